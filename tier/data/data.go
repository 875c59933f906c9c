// Package data is the tier of purpose-built stores: queues, as SQS has them, tables, as DynamoDB
// has them, event buses, as EventBridge has them, and buckets, as S3 has them. One process of the house holds
// the first three, in one durable log; another holds the buckets.
//
// Tier is the half that decides: it keeps goals and hands them down. Server is the process: it has a Store
// for each kind, which the daemon joins with the packages that do the work, and lets clients in by their
// keys. Begin at Tier.Run.
package data

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"tenfold"
	"tenfold/internal/awsapi"
	"tenfold/internal/directory"
	"tenfold/internal/ledger"
)

// Process is the process that holds the stores.
type Process interface {
	// Put has it run and hands down what there is to be. Idle: nothing is left that it could hold.
	Put(ctx context.Context, s Snapshot) (Report, error)
	Idle(ctx context.Context) error
	Report(ctx context.Context) (Report, error)
	// Remove deletes a resource with all that is in it.
	Remove(ctx context.Context, w Want) error
}

// Traffic is what this tier needs of the front door.
type Traffic interface {
	// Publish tells where a resource's requests go, and why nowhere.
	Publish(ctx context.Context, id tenfold.ID, endpoints []directory.Endpoint, down string) error
	// Withdraw forgets one that was removed.
	Withdraw(ctx context.Context, id tenfold.ID) error
}

// Config is what a Tier stands on. All but Kinds, Traffic and Secret is required.
type Config struct {
	Dir     string
	Process Process
	// Address is where the process listens: host:port of loopback.
	Address string
	Emit    tenfold.Emit
	// Account is the 12 digits by which AWS' protocols name an environment.
	Account func(tenfold.AppName, tenfold.Environment) string
	// Keys are those who may ask.
	Keys func(context.Context) ([]awsapi.Key, error)
	// Kinds are what the process holds; nil: queues, tables and event buses. Of two tiers no kind is both's.
	Kinds []tenfold.Kind
	// Traffic is told where requests along the routes of buckets go. Only buckets need it.
	Traffic Traffic
	// Secret is the value of a secret. Only buses that name one need it.
	Secret func(context.Context, tenfold.ID) (string, error)
}

// Tier is the deciding half.
type Tier struct {
	cfg     Config
	records *ledger.Ledger[record]
	dir     string // name of its folder
	wake    chan struct{}

	mu     sync.Mutex
	report Report
	told   map[string]string // by ID: the goal that an event told of
	routed map[string]bool   // by ID: the front door knows where
}

var _ tenfold.Tier = (*Tier)(nil)

// spec is what a resource of this tier wants.
type spec struct {
	Queue *tenfold.Queue `json:"queue,omitempty"`
	Table *tenfold.Table `json:"table,omitempty"`
	Bus   *tenfold.Bus   `json:"bus,omitempty"`

	Bucket *tenfold.Bucket `json:"bucket,omitempty"`
}

type record struct {
	ID      tenfold.ID `json:"id"`
	Spec    spec       `json:"spec"`
	Goal    string     `json:"goal"`
	Stopped bool       `json:"stopped,omitempty"`
}

// New reads the records; it starts nothing.
func New(cfg Config) (*Tier, error) {
	if cfg.Dir == "" || cfg.Process == nil || cfg.Address == "" || cfg.Emit == nil || cfg.Account == nil || cfg.Keys == nil {
		return nil, errors.New("new data tier: all of Config is required")
	}
	recs, err := ledger.Open[record](filepath.Join(cfg.Dir, "goals"))
	if err != nil {
		return nil, err
	}
	if cfg.Kinds == nil {
		cfg.Kinds = []tenfold.Kind{tenfold.KindQueue, tenfold.KindTable, tenfold.KindBus}
	}
	return &Tier{cfg: cfg, records: recs, dir: filepath.Base(cfg.Dir), wake: make(chan struct{}, 1), told: map[string]string{}, routed: map[string]bool{}}, nil
}

// Name implements tenfold.Service.
func (t *Tier) Name() string { return t.dir }

// Desired implements tenfold.Tier.
func (t *Tier) Desired(app tenfold.App, _ tenfold.Scale) ([]tenfold.Resource, error) {
	var out []tenfold.Resource
	add := func(kind tenfold.Kind, name tenfold.Name, s spec) error {
		if !slices.Contains(t.cfg.Kinds, kind) {
			return nil
		}
		fp, err := tenfold.FingerprintOf(s, nil)
		out = append(out, tenfold.Resource{ID: app.ID(kind, name), Spec: s, Fingerprint: fp})
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(app.Queues)) {
		x := app.Queues[name]
		x.Line = 0
		if err := add(tenfold.KindQueue, name, spec{Queue: &x}); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(app.Tables)) {
		x := app.Tables[name]
		x.Line = 0
		if err := add(tenfold.KindTable, name, spec{Table: &x}); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(app.Events)) {
		x := app.Events[name]
		x.Line = 0
		if err := add(tenfold.KindBus, name, spec{Bus: &x}); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(app.Buckets)) {
		x := app.Buckets[name]
		x.Line = 0
		if err := add(tenfold.KindBucket, name, spec{Bucket: &x}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Apply implements tenfold.Tier.
func (t *Tier) Apply(_ context.Context, s tenfold.Step) error {
	defer t.prod()
	key := s.Want.ID.String()
	switch s.Verb {
	case tenfold.VerbStop, tenfold.VerbRemove:
		return t.records.Change(key, func(r *record) { r.Goal, r.Stopped = "", true })
	}
	want, ok := s.Want.Spec.(spec)
	if !ok {
		return fmt.Errorf("apply to %s: its spec is a %T", s.Want.ID.Short(), s.Want.Spec)
	}
	return t.records.Update(key, func(r *record) { r.ID, r.Spec, r.Goal, r.Stopped = s.Want.ID, want, s.Want.Fingerprint, false })
}

// Observe implements tenfold.Tier.
func (t *Tier) Observe(context.Context) ([]tenfold.Resource, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []tenfold.Resource
	for key, r := range t.records.All() {
		o := tenfold.Resource{ID: r.ID, Goal: r.Goal, State: tenfold.StatePending}
		is := t.report.Resources[key]
		switch {
		case r.Stopped:
			o.State = tenfold.StateStopped
		case is.Goal != r.Goal:
		case is.Failed != "":
			o.State, o.Failed, o.Reason, o.Hint = tenfold.StateFailed, r.Goal, is.Failed, is.Hint
		default:
			o.State, o.Serving, o.Note, o.Endpoint = tenfold.StateReady, r.Goal, is.Note, t.cfg.Address
			if t.report.Trouble != "" {
				o.Note = "read only: " + t.report.Trouble
			}
		}
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b tenfold.Resource) int { return a.ID.Compare(b.ID) })
	return out, nil
}

// Field gives one fact of a resource to those who use it.
func (t *Tier) Field(id tenfold.ID, f tenfold.Field) (string, error) {
	r, ok := t.records.Get(id.String())
	if !ok {
		return "", tenfold.Errorf(tenfold.CodeUnavailable, "%s has not been started", id.Short())
	}
	w := t.want(r)
	switch f {
	case tenfold.FieldAPI:
		return "http://" + t.cfg.Address, nil
	case tenfold.FieldName:
		return w.Name, nil
	case tenfold.FieldURL:
		if id.Kind == tenfold.KindQueue {
			return QueueURL(t.cfg.Address, w.Account, w.Name), nil
		}
	case tenfold.FieldARN:
		if id.Kind == tenfold.KindBus {
			return "arn:aws:events:" + awsapi.Region + ":" + w.Account + ":event-bus/" + w.Name, nil
		}
		if id.Kind == tenfold.KindBucket {
			return "arn:aws:s3:::" + w.Name, nil
		}
		if id.Kind == tenfold.KindTable {
			return "arn:aws:dynamodb:" + awsapi.Region + ":" + w.Account + ":table/" + w.Name, nil
		}
		return "arn:aws:sqs:" + awsapi.Region + ":" + w.Account + ":" + w.Name, nil
	}
	return "", fmt.Errorf("a %s has no %s", id.Kind, f)
}

// QueueURL is how SQS names a queue.
func QueueURL(address, account, name string) string {
	return "http://" + address + "/" + account + "/" + name
}

// want is a record as the process is told of it.
func (t *Tier) want(r record) Want {
	w := Want{ID: r.ID, Account: t.cfg.Account(r.ID.App, r.ID.Env), Name: AWSName(r.ID, r.Spec.Queue), Goal: r.Goal, Queue: r.Spec.Queue, Table: r.Spec.Table, Bus: r.Spec.Bus, Bucket: r.Spec.Bucket}
	return w
}

// AWSName is what SDKs call a resource: a queue in order ends in ".fifo".
func AWSName(id tenfold.ID, q *tenfold.Queue) string {
	if q != nil && q.FIFO != nil {
		return string(id.Name) + ".fifo"
	}
	return string(id.Name)
}

func (t *Tier) prod() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// tellPace is how often the process is told what it was told before.
const tellPace = 10 * time.Second

// Run hands the process what there is to be, until ctx ends.
func (t *Tier) Run(ctx context.Context, ready func()) error {
	ready()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var told time.Time // zero: it has to be told again
	for {
		if len(t.records.Keys()) > 0 && time.Since(told) <= tellPace {
			rep, err := t.cfg.Process.Report(ctx)
			if err != nil || rep.Untold { // it died, and the one that came, or is to come, knows nothing
				told = time.Time{}
			} else {
				t.take(rep)
			}
		}
		if now := time.Now(); now.Sub(told) > tellPace {
			if told = now; t.hand(ctx) != nil && ctx.Err() == nil {
				told = time.Time{}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.wake:
			told = time.Time{}
		case <-tick.C:
		}
	}
}

// hand puts the snapshot together and hands it down.
func (t *Tier) hand(ctx context.Context) error {
	all := t.records.All()
	if len(all) == 0 {
		return t.cfg.Process.Idle(ctx)
	}
	var s Snapshot
	for _, r := range all {
		if !r.Stopped {
			w := t.want(r)
			w.Ordered = ordered(all, r)
			if err := t.secrets(ctx, &w); err != nil {
				return err
			}
			s.Wants = append(s.Wants, w)
		}
	}
	slices.SortFunc(s.Wants, func(a, b Want) int { return a.ID.Compare(b.ID) })
	var err error
	if s.Keys, err = t.cfg.Keys(ctx); err != nil {
		return err
	}
	rep, err := t.cfg.Process.Put(ctx, s)
	if err != nil {
		return err
	}
	t.take(rep)
	return t.route(ctx, all)
}

// route tells the front door where requests go that come along routes.
func (t *Tier) route(ctx context.Context, all map[string]record) error {
	for key, r := range all {
		want := r.Spec.Bucket != nil && len(r.Spec.Bucket.Routes) > 0 && !r.Stopped
		t.mu.Lock()
		is := t.routed[key]
		t.mu.Unlock()
		if want == is {
			continue
		}
		var err error
		if want {
			err = t.cfg.Traffic.Publish(ctx, r.ID, []directory.Endpoint{{ID: key, Addr: t.cfg.Address}}, "")
		} else {
			err = t.cfg.Traffic.Withdraw(ctx, r.ID)
		}
		if err != nil {
			return err
		}
		t.mu.Lock()
		t.routed[key] = want
		t.mu.Unlock()
	}
	return nil
}

// ordered are the queues in order of a bus' environment.
func ordered(all map[string]record, bus record) (out map[tenfold.Name]bool) {
	if bus.Spec.Bus == nil {
		return nil
	}
	for _, r := range all {
		if q := r.Spec.Queue; q != nil && q.FIFO != nil && !r.Stopped && r.ID.App == bus.ID.App && r.ID.Env == bus.ID.Env {
			if out == nil {
				out = map[tenfold.Name]bool{}
			}
			out[r.ID.Name] = true
		}
	}
	return out
}

// secrets looks up those that a bus' rules name. One without a value leaves out what needs it until it has one.
func (t *Tier) secrets(ctx context.Context, w *Want) error {
	if w.Bus == nil || t.cfg.Secret == nil {
		return nil
	}
	for _, r := range w.Bus.Rules {
		for _, x := range r.To {
			if x.Secret.Name == "" {
				continue
			}
			v, err := t.cfg.Secret(ctx, x.Secret)
			if err != nil {
				if ctx.Err() != nil {
					return err
				}
				continue
			}
			if w.Secrets == nil {
				w.Secrets = map[tenfold.Name]string{}
			}
			w.Secrets[x.Secret.Name] = v
		}
	}
	return nil
}

// Holds says whether there is anything to hold.
func (t *Tier) Holds() bool { return len(t.records.Keys()) > 0 }

// Introduce hands the keys down now: before the first call of one that was just made.
func (t *Tier) Introduce(ctx context.Context) {
	if len(t.records.Keys()) > 0 {
		if t.hand(ctx) != nil {
			t.prod()
		}
	}
}

func (t *Tier) take(rep Report) {
	t.mu.Lock()
	t.report = rep
	var events []tenfold.Event
	for key, is := range rep.Resources {
		r, ok := t.records.Get(key)
		if !ok || r.Goal != is.Goal || t.told[key] == is.Goal+is.Failed {
			continue
		}
		t.told[key] = is.Goal + is.Failed
		e := tenfold.Event{At: time.Now(), ID: r.ID, Severity: tenfold.SeverityInfo, Text: describe(r)}
		if is.Failed != "" {
			e.Severity, e.Text = tenfold.SeverityWarning, string(r.ID.Kind)+" not as it is to be: "+is.Failed
		}
		events = append(events, e)
	}
	t.mu.Unlock()
	for _, e := range events {
		t.cfg.Emit(e)
	}
}

// describe says what serves.
func describe(r record) string {
	if x := r.Spec.Table; x != nil {
		text := "table by " + x.Key
		if x.Sort != "" {
			text += " and " + x.Sort
		}
		if n := len(x.Indexes); n > 0 {
			text += fmt.Sprintf(", %d indexes", n)
		}
		return text
	}
	if x := r.Spec.Bucket; x != nil {
		text := "bucket"
		if x.Versions {
			text += " with versions"
		}
		return text
	}
	if x := r.Spec.Bus; x != nil {
		return fmt.Sprintf("event bus with %d rules", len(x.Rules))
	}
	text := "queue"
	if r.Spec.Queue.FIFO != nil {
		text = "queue in order"
	}
	if r.Spec.Queue.Dead != "" {
		text += fmt.Sprintf(", after %d tries to %s", r.Spec.Queue.Retries+1, r.Spec.Queue.Dead)
	}
	return text
}

// Kept are resources that no goal names and that hold data.
func (t *Tier) Kept() []tenfold.ID {
	var out []tenfold.ID
	for _, r := range t.records.All() {
		if r.Stopped {
			out = append(out, r.ID)
		}
	}
	return out
}

// Destroy deletes a resource that no manifest names, with all that is in it.
func (t *Tier) Destroy(ctx context.Context, id tenfold.ID) error {
	r, ok := t.records.Get(id.String())
	if !ok {
		return tenfold.Errorf(tenfold.CodeNotFound, "there is no %s of %s", id.Short(), id.App).WithHint("list what is kept: tenfold kept")
	}
	if !r.Stopped {
		return tenfold.Errorf(tenfold.CodeConflict, "%s is still served", id.Short()).WithHint("try again in a second")
	}
	if err := t.cfg.Process.Remove(ctx, t.want(r)); err != nil {
		return err
	}
	defer t.prod()
	return t.records.Delete(id.String())
}

// Use says how each resource is used.
func (t *Tier) Use() map[string]Outcome {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.report.Resources)
}

// Is says how one resource is used; ok is false for one that nothing was said of.
func (t *Tier) Is(id tenfold.ID) (o Outcome, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o, ok = t.report.Resources[id.String()]
	return o, ok
}

// Snapshot is everything the process serves by. It has secrets in it, so it is handed over on a socket and
// never written down: a process that starts waits for its first.
type Snapshot struct {
	Keys  []awsapi.Key `json:"keys,omitempty"`
	Wants []Want       `json:"wants,omitempty"`
}

// Want is one resource as it is to be.
type Want struct {
	ID      tenfold.ID     `json:"id"`
	Account string         `json:"account"`
	Name    string         `json:"name"` // as SDKs call it
	Goal    string         `json:"goal"`
	Queue   *tenfold.Queue `json:"queue,omitempty"`
	Table   *tenfold.Table `json:"table,omitempty"`
	Bus     *tenfold.Bus   `json:"bus,omitempty"`

	Bucket *tenfold.Bucket `json:"bucket,omitempty"`
	// Secrets are the values of those that it names. They are handed down and never written.
	Secrets map[tenfold.Name]string `json:"secrets,omitempty"`
	// Ordered are the queues in order among those that a bus sends to.
	Ordered map[tenfold.Name]bool `json:"ordered,omitempty"`
}

// Outcome is what became of a Want, and how it is used.
type Outcome struct {
	Goal   string `json:"goal"`
	Failed string `json:"failed,omitempty"`
	Hint   string `json:"hint,omitempty"`
	Note   string `json:"note,omitempty"` // a line on how it is now
	// Facts are the kind's own: of a queue how many messages wait.
	Facts json.RawMessage `json:"facts,omitempty"`
}

// Report is how the stores are.
type Report struct {
	Resources map[string]Outcome `json:"resources"` // by ID
	// Trouble says why nothing can be written now; "": it can.
	Trouble string `json:"trouble,omitempty"`
	// Untold: the process has begun and was told nothing yet, so its clients wait.
	Untold bool `json:"untold,omitempty"`
}
