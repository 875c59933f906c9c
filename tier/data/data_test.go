package data

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tenfold"
	"tenfold/internal/awsapi"
)

// shelf is a Store, and a Service.
type shelf struct {
	kept    map[string][]string // by account
	removed []string
}

func (s *shelf) Keep(_ context.Context, account string, wants []Want) map[string]error {
	errs := map[string]error{}
	s.kept[account] = []string{}
	for _, w := range wants {
		if w.Name == "bad" {
			errs[w.Name] = tenfold.Errorf(tenfold.CodeInvalid, "it cannot be").WithHint("call it good")
			continue
		}
		s.kept[account] = append(s.kept[account], w.Name)
	}
	return errs
}

func (s *shelf) Remove(_ context.Context, account, name string) error {
	s.removed = append(s.removed, account+"/"+name)
	return nil
}

func (s *shelf) Facts(string) map[string]Outcome {
	return map[string]Outcome{"emails": {Note: "empty"}}
}

func (s *shelf) Serve(_ context.Context, q *awsapi.Request) ([]byte, error) {
	if q.Operation == "No" {
		return nil, awsapi.Denied(q.Caller, "sqs:No", "arn", "emails")
	}
	return []byte(`{"by":"` + q.Caller.Of + `"}`), nil
}

func want(name string) Want {
	return Want{ID: tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindQueue, Name: tenfold.Name(name)}, Account: "1", Name: name, Goal: "g", Queue: &tenfold.Queue{}}
}

func newServer(why error) (*Server, *shelf) {
	s := &shelf{kept: map[string][]string{}}
	return NewServer(map[tenfold.Kind]Store{tenfold.KindQueue: s}, map[string]awsapi.Served{"sqs": {Service: s}}, func() error { return why }, slog.New(slog.DiscardHandler)), s
}

func TestServer(t *testing.T) {
	v, shelf := newServer(errors.New("the disk is full"))
	// Who comes before the first snapshot waits: nobody is known yet.
	early := make(chan int)
	go func() {
		w := httptest.NewRecorder()
		v.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		early <- w.Code
	}()
	select {
	case <-early:
		t.Fatal("answered before it knew anybody")
	default:
	}
	rep := v.Put(t.Context(), Snapshot{Wants: []Want{want("emails"), want("bad")}})
	if code := <-early; code != http.StatusOK {
		t.Error(code)
	}
	good, bad := rep.Resources["shop/production/queue/emails"], rep.Resources["shop/production/queue/bad"]
	if good.Goal != "g" || good.Note != "empty" || good.Failed != "" || bad.Failed == "" || bad.Hint != "call it good" || rep.Trouble != "the disk is full" {
		t.Errorf("%+v", rep)
	}
	// An account whose last resource left the manifest hears of it.
	if v.Put(t.Context(), Snapshot{}); len(shelf.kept["1"]) != 0 {
		t.Error(shelf.kept)
	}
	if c, err := v.call(t.Context(), Call{Service: "sqs", Operation: "Yes", Account: "1"}); err != nil || string(c.Body) != `{"by":"owner"}` {
		t.Error(c, err)
	}
	if c, err := v.call(t.Context(), Call{Service: "sqs", Operation: "No", Account: "1"}); err != nil || c.Code != "AccessDeniedException" {
		t.Error(c, err)
	}
	if _, err := v.call(t.Context(), Call{Service: "none"}); err == nil {
		t.Error("a service that does not exist")
	}
}

// process hands what it is told to a Server.
type process struct {
	*Server
	shelf *shelf
	idle  int
}

func (p *process) Put(ctx context.Context, s Snapshot) (Report, error) {
	return p.Server.Put(ctx, s), nil
}
func (p *process) Idle(context.Context) error             { p.idle++; return nil }
func (p *process) Report(context.Context) (Report, error) { return p.Server.Report(), nil }
func (p *process) Remove(ctx context.Context, w Want) error {
	return p.shelf.Remove(ctx, w.Account, w.Name)
}

func TestTier(t *testing.T) {
	v, shelf := newServer(nil)
	p := &process{Server: v, shelf: shelf}
	var events []tenfold.Event
	tier, err := New(Config{Dir: t.TempDir(), Process: p, Address: "127.0.0.1:1", Emit: func(e tenfold.Event) { events = append(events, e) },
		Account: func(tenfold.AppName, tenfold.Environment) string { return "1" }, Keys: func(context.Context) ([]awsapi.Key, error) { return nil, nil }})
	if err != nil {
		t.Fatal(err)
	}
	if err := tier.hand(t.Context()); err != nil || p.idle != 1 || tier.Holds() {
		t.Error("a process for nothing", err)
	}
	app := tenfold.App{Name: "shop", Env: "production", Queues: map[tenfold.Name]tenfold.Queue{
		"emails": {Timeout: time.Second, Line: 3}, "orders": {FIFO: &tenfold.FIFO{}}, "bad": {},
	}}
	all, err := tier.Desired(app, nil)
	if err != nil || len(all) != 3 {
		t.Fatal(all, err)
	}
	app.Queues["emails"] = tenfold.Queue{Timeout: time.Second, Line: 9}
	if again, _ := tier.Desired(app, nil); again[1].Fingerprint != all[1].Fingerprint {
		t.Error("another line is no change")
	}
	for _, r := range all {
		if err := tier.Apply(t.Context(), tenfold.Step{Verb: tenfold.VerbStart, Want: r}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := tier.hand(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(events) != 3 {
		t.Errorf("%d events, want one for each: %v", len(events), events)
	}
	is, err := tier.Observe(t.Context())
	if err != nil || is[0].State != tenfold.StateFailed || is[0].Hint != "call it good" || is[1].State != tenfold.StateReady || is[1].Serving != all[1].Fingerprint || is[1].Note != "empty" {
		t.Errorf("%+v, %v", is, err)
	}
	// That nothing can be written is seen where one looks.
	full, shelf2 := newServer(errors.New("the disk is full"))
	p.Server, p.shelf = full, shelf2
	if err := tier.hand(t.Context()); err != nil {
		t.Fatal(err)
	}
	if is, err := tier.Observe(t.Context()); err != nil || is[1].State != tenfold.StateReady || is[1].Note != "read only: the disk is full" {
		t.Errorf("%+v, %v", is, err)
	}
	p.Server, p.shelf = v, shelf
	orders := app.ID(tenfold.KindQueue, "orders")
	for f, want := range map[tenfold.Field]string{tenfold.FieldURL: "http://127.0.0.1:1/1/orders.fifo", tenfold.FieldARN: "arn:aws:sqs:us-east-1:1:orders.fifo", tenfold.FieldAPI: "http://127.0.0.1:1", tenfold.FieldName: "orders.fifo"} {
		if got, err := tier.Field(orders, f); err != nil || got != want {
			t.Error(f, got, err)
		}
	}
	if _, err := tier.Field(orders, tenfold.FieldPassword); err == nil {
		t.Error("a queue has no password")
	}
	if err := tier.Destroy(t.Context(), orders); err == nil {
		t.Error("destroyed while a manifest names it")
	}
	if err := tier.Apply(t.Context(), tenfold.Step{Verb: tenfold.VerbStop, Want: tenfold.Resource{ID: orders}}); err != nil {
		t.Fatal(err)
	}
	if kept := tier.Kept(); len(kept) != 1 || kept[0] != orders {
		t.Error(kept)
	}
	if err := tier.Destroy(t.Context(), orders); err != nil || len(shelf.removed) != 1 || shelf.removed[0] != "1/orders.fifo" || len(tier.Kept()) != 0 {
		t.Error(err, shelf.removed)
	}
}

// mortal is a process that may be another at any time.
type mortal struct{ is atomic.Pointer[Server] }

func (m *mortal) begin() {
	s, _ := newServer(nil)
	m.is.Store(s)
}

func (m *mortal) Put(ctx context.Context, s Snapshot) (Report, error) {
	return m.is.Load().Put(ctx, s), nil
}
func (m *mortal) Idle(context.Context) error             { return nil }
func (m *mortal) Report(context.Context) (Report, error) { return m.is.Load().Report(), nil }
func (m *mortal) Remove(context.Context, Want) error     { return nil }

// A process that was started again between two looks is told what there is to be when it is looked at next, and
// not when it would be told the same again: who asks it for anything waits until then.
func TestAProcessThatCameBackIsTold(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p := &mortal{}
		p.begin()
		tier, err := New(Config{Dir: dir, Process: p, Address: "127.0.0.1:1", Emit: func(tenfold.Event) {},
			Account: func(tenfold.AppName, tenfold.Environment) string { return "1" }, Keys: func(context.Context) ([]awsapi.Key, error) { return nil, nil }})
		if err != nil {
			t.Fatal(err)
		}
		all, err := tier.Desired(tenfold.App{Name: "shop", Env: "production", Queues: map[tenfold.Name]tenfold.Queue{"emails": {}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := tier.Apply(t.Context(), tenfold.Step{Verb: tenfold.VerbStart, Want: all[0]}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- tier.Run(ctx, func() {}) }()
		time.Sleep(2500 * time.Millisecond)
		if p.is.Load().Report().Untold {
			t.Error("the first was told nothing")
		}
		p.begin()
		time.Sleep(time.Second)
		if p.is.Load().Report().Untold {
			t.Error("the one that came back was told nothing in a second")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
