package series

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tenfold"
	"tenfold/internal/enginetest"
	"tenfold/internal/keeper/keepertest"
)

func TestMain(m *testing.M) { keepertest.Main(m, nil) }

var id = tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindSeries, Name: "prices"}

// fixture is a tier with real engines, held by a real keeper, and a front.
type fixture struct {
	*Tier
	house *keepertest.House
	cfg   Config
	front *front

	mu     sync.Mutex
	events []tenfold.Event
}

// front is a Process in the test's own.
type front struct {
	*Front
	addr string
	idle atomic.Int64
}

func newFront(t *testing.T) *front {
	t.Helper()
	f := &front{Front: NewFront(slog.New(slog.DiscardHandler))}
	s := httptest.NewServer(f.Front)
	t.Cleanup(s.Close)
	f.addr = strings.TrimPrefix(s.URL, "http://")
	return f
}

func (f *front) Put(_ context.Context, s Snapshot) (Report, error) { return f.Front.Put(s), nil }
func (f *front) Idle(context.Context) error                        { f.idle.Add(1); return nil }
func (f *front) Address(context.Context) (string, error)           { return f.addr, nil }

func service(name tenfold.Name) tenfold.ID {
	return tenfold.ID{App: id.App, Env: id.Env, Kind: tenfold.KindService, Name: name}
}

// keysOf are those of two services: api uses prices, other uses nothing.
func keysOf(id tenfold.ID) []Key {
	return []Key{
		{Of: service("api"), Series: id, User: "api", Secret: "let-api-in-" + string(id.Name), Uses: true, Line: 3},
		{Of: service("other"), Series: id, User: "other", Secret: "let-other-in-" + string(id.Name), Line: 4},
	}
}

func begin(t *testing.T) *fixture {
	t.Helper()
	enginetest.Series(t)
	f := &fixture{house: keepertest.Start(t), front: newFront(t)}
	f.cfg = Config{Dir: filepath.Join(f.house.Dir, "series"), Units: f.house, Process: f.front,
		Holders: func(context.Context) ([]Key, map[string]int, error) {
			return keysOf(id), map[string]int{id.String(): 7}, nil
		},
		Emit: func(e tenfold.Event) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.events = append(f.events, e)
		}}
	return f
}

// open runs the tier, as a daemon that starts; what it returns ends it.
func (f *fixture) open(t *testing.T) (stop func()) {
	t.Helper()
	var err error
	if f.Tier, err = New(f.cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx, func() {}) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

func (f *fixture) apply(t *testing.T, verb tenfold.Verb, s tenfold.Series) {
	t.Helper()
	want, err := f.Desired(tenfold.App{Name: id.App, Env: id.Env, Series: map[tenfold.Name]tenfold.Series{id.Name: s}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Apply(t.Context(), tenfold.Step{Verb: verb, Want: want[0]}); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) await(t *testing.T, what string, ok func(tenfold.Resource) bool) tenfold.Resource {
	t.Helper()
	var last []tenfold.Resource
	for begun := time.Now(); time.Since(begun) < 60*time.Second; <-time.After(10 * time.Millisecond) {
		if last, _ = f.Observe(t.Context()); len(last) == 1 && ok(last[0]) {
			return last[0]
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	t.Fatalf("not %s: %+v\n%+v", what, last, f.events)
	return tenfold.Resource{}
}

func ready(r tenfold.Resource) bool { return r.State == tenfold.StateReady }

func (f *fixture) pid(t *testing.T) int {
	t.Helper()
	u, err := f.status(t.Context(), id.String())
	if err != nil || u.PID == 0 {
		t.Fatal(u, err)
	}
	return u.PID
}

// send asks at an address with a body, as one service; status 0 is no answer.
func send(method, at, user, secret, body string, fields ...string) (status int, answer string) {
	r, err := http.NewRequest(method, at, bytes.NewReader([]byte(body)))
	if err != nil {
		return 0, err.Error()
	}
	if secret != "" {
		r.SetBasicAuth(user, secret)
	}
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(b)
}

// write sends one value by each protocol that every engine has.
func (f *fixture) write(t *testing.T, name string, value float64) {
	t.Helper()
	at := "http://" + f.front.addr + "/prices"
	if code, out := send("POST", at+"/write", "api", "let-api-in-prices", fmt.Sprintf("%s,by=influx value=%g", name, value)); code != 204 {
		t.Fatal(code, out)
	}
	body := enginetest.RemoteWrite(value, time.Now(), name+"_value", "by", "remote-write")
	if code, out := send("POST", at+"/api/v1/write", "api", "let-api-in-prices", string(body), "Content-Encoding", "snappy", "Content-Type", "application/x-protobuf"); code != 204 {
		t.Fatal(code, out)
	}
}

// query is the sum that PromQL answers with, "" for none.
func (f *fixture) query(promQL string) string {
	code, out := send("GET", "http://"+f.front.addr+"/prices/api/v1/query?query="+url.QueryEscape(promQL), "api", "let-api-in-prices", "")
	var answer struct {
		Data struct{ Result []struct{ Value []any } }
	}
	if err := json.Unmarshal([]byte(out), &answer); code != 200 || err != nil {
		return fmt.Sprint(code, out)
	}
	if len(answer.Data.Result) == 0 {
		return ""
	}
	return fmt.Sprint(answer.Data.Result[0].Value[1])
}

// eventually waits for an answer.
func (f *fixture) eventually(t *testing.T, want, promQL string) {
	t.Helper()
	for begun := time.Now(); ; <-time.After(20 * time.Millisecond) {
		got := f.query(promQL)
		if got == want {
			return
		}
		if time.Since(begun) > 30*time.Second {
			t.Fatalf("%s is %q, want %q", promQL, got, want)
		}
	}
}

// flushed waits until what was written lies on disk: it outlives any death then.
func (f *fixture) flushed(t *testing.T) {
	t.Helper()
	for begun := time.Now(); ; <-time.After(20 * time.Millisecond) {
		values, _ := filepath.Glob(filepath.Join(f.home(id), "data/data/small/*/*/timestamps.bin"))
		names, _ := filepath.Glob(filepath.Join(f.home(id), "data/indexdb/*/*/items.bin"))
		if len(values) > 0 && len(names) > 0 {
			return
		}
		if time.Since(begun) > 60*time.Second {
			t.Fatal("nothing on disk within a minute")
		}
	}
}

func holdNothing(context.Context) ([]Key, map[string]int, error) { return nil, nil, nil }

// nobody runs nothing.
type nobody struct{ Units }
