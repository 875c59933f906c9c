package function

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"tenfold"
	"tenfold/internal/awsapi"
	"tenfold/internal/keeper"
	"tenfold/internal/ledger"
	"tenfold/tier/function/runtimeapi"
	"tenfold/tier/function/source"
)

const (
	region = awsapi.Region
	// unitPrefix begins the units of environments.
	unitPrefix = "fn/"
	// initLimit is how long an environment may take to ask for its first event, beside the function's timeout.
	initLimit = 10 * time.Second
	// idleLimit is after how long an environment that nobody needs ends.
	idleLimit = 5 * time.Minute
	// sampled is of how many invocations the durations are kept.
	sampled = 256
)

// InvokerConfig is what an Invoker stands on. Dir, Units and Log are required.
type InvokerConfig struct {
	Dir   string // asynchronous events
	Units keeper.Units
	Log   *slog.Logger
	// Contain has a unit run in a container of an image; nil: no function is one.
	Contain func(ctx context.Context, u keeper.Unit, image string) (keeper.Unit, error)
	// Freezer has environments stand still between calls; nil: they do not.
	Freezer Freezer
	// Ask asks the stores' process, and Places is a directory for how far streams were read; nil: functions have no
	// event sources.
	Ask    source.Ask
	Places string
}

// Invoker is the serving half: it holds execution environments and hands events to them. It belongs in a
// process of its own, so that functions work on while the daemon does not. Safe for concurrent use.
type Invoker struct {
	cfg   InvokerConfig
	async *ledger.Ledger[event1]
	news  chan struct{} // of the asynchronous queue; holds one

	mu        sync.Mutex
	functions map[string]*function // by ID
	keys      map[string]Key
	depths    map[string]depth // of asynchronous events, by function
	came      []turn           // asynchronous events that work has not seen
	first     chan struct{}    // closed with the first snapshot
	begun     bool

	life context.Context // ends with Run; environments are started while it runs
	die  context.CancelFunc
	runs atomic.Bool

	places  *ledger.Ledger[source.Place] // nil without Ask
	reading context.Context              // ends with Leave, or before life; event sources are read while it does not
	leave   context.CancelFunc
	feeding sync.WaitGroup
	wg      sync.WaitGroup
	seq     atomic.Int64 // of environments
}

// NewInvoker reads the asynchronous events in cfg.Dir. It starts nothing.
func NewInvoker(cfg InvokerConfig) (*Invoker, error) {
	if cfg.Dir == "" || cfg.Units == nil || cfg.Log == nil {
		return nil, errors.New("new invoker: Dir, Units and Log are required")
	}
	q, err := ledger.Open[event1](cfg.Dir)
	if err != nil {
		return nil, err
	}
	v := &Invoker{cfg: cfg, async: q, news: make(chan struct{}, 1), functions: map[string]*function{}, keys: map[string]Key{}, depths: map[string]depth{}, first: make(chan struct{})}
	for _, e := range q.All() {
		d := v.depths[e.Function.String()]
		v.depths[e.Function.String()] = depth{d.n + 1, d.bytes + int64(len(e.Payload))}
	}
	if cfg.Ask != nil {
		if v.places, err = ledger.Open[source.Place](cfg.Places); err != nil {
			return nil, err
		}
	}
	v.life, v.die = context.WithCancel(context.Background())
	v.reading, v.leave = context.WithCancel(context.Background())
	return v, nil
}

// Name implements tenfold.Service.
func (v *Invoker) Name() string { return "invoke" }

// Run serves until ctx ends; the environments end with it.
func (v *Invoker) Run(ctx context.Context, ready func()) error {
	// What an Invoker before this one left waits for an API that nobody serves any more.
	left, err := v.cfg.Units.List(ctx, unitPrefix)
	if err != nil {
		return err
	}
	for _, u := range left {
		if err := v.cfg.Units.Remove(ctx, u.Unit.ID); err != nil {
			return err
		}
	}
	v.runs.Store(true)
	ready()
	stop := context.AfterFunc(ctx, v.leave)
	defer stop()
	v.work(ctx)
	v.feeding.Wait() // while there are environments
	v.die()
	v.mu.Lock()
	all := make([]*function, 0, len(v.functions))
	for _, f := range v.functions {
		all = append(all, f)
	}
	v.mu.Unlock()
	for _, f := range all {
		f.end()
	}
	v.wg.Wait()
	return nil
}

// Put takes a snapshot. Functions that are neither in it nor kept end.
func (v *Invoker) Put(s Snapshot) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.keys = map[string]Key{}
	for _, k := range s.Keys {
		v.keys[k.Access] = k
	}
	now := map[string]bool{}
	for _, id := range s.Kept {
		now[id.String()] = true
	}
	for _, g := range s.Functions {
		id := g.ID.String()
		now[id] = true
		f := v.functions[id]
		if f == nil {
			f = newFunction(v, g)
			v.functions[id] = f
		}
		f.put(g)
	}
	for id, f := range v.functions {
		if !now[id] {
			delete(v.functions, id)
			v.wg.Go(f.end)
		}
	}
	if !v.begun {
		v.begun = true
		close(v.first)
	}
	v.prod()
}

// prod has the asynchronous queue looked at.
func (v *Invoker) prod() {
	select {
	case v.news <- struct{}{}:
	default:
	}
}

// find gives a function, waiting for the first snapshot.
func (v *Invoker) find(ctx context.Context, id tenfold.ID) (*function, error) {
	select {
	case <-v.first:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if f := v.functions[id.String()]; f != nil {
		return f, nil
	}
	return nil, tenfold.Errorf(tenfold.CodeNotFound, "no function %s runs in %s/%s", id.Name, id.App, id.Env).WithHint("see what runs: tenfold status --app %s", id.App)
}

// known is a function by its ID; nil: there is none.
func (v *Invoker) known(id string) *function {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.functions[id]
}

// Report says how functions are used.
func (v *Invoker) Report() Report {
	v.mu.Lock()
	defer v.mu.Unlock()
	r := Report{Functions: map[string]Use{}}
	for id, f := range v.functions {
		r.Functions[id] = f.use()
	}
	for id, d := range v.depths {
		if u, ok := r.Functions[id]; ok {
			u.Queued = d.n
			r.Functions[id] = u
		}
	}
	return r
}

// Throttled is why a function takes no invocation now.
type Throttled struct{ Reason string }

func (t *Throttled) Error() string { return "Rate Exceeded: " + t.Reason }

// Outcome is what is known of an invocation beside its answer.
type Outcome struct {
	RequestID string
	Took      time.Duration
	Init      time.Duration // of an environment that was started for it
	Tail      []byte        // the last of its output, when it was asked for
}

// Invoke has a function work at an event and gives its answer to sink. An error is a
// *runtimeapi.Failure when the function failed, a *Throttled when it was not asked, or another when
// something is amiss here. The function works on when ctx ends.
func (v *Invoker) Invoke(ctx context.Context, id tenfold.ID, in runtimeapi.Invocation, tail bool, sink runtimeapi.Sink) (Outcome, error) {
	f, err := v.find(ctx, id)
	if err != nil {
		return Outcome{RequestID: in.ID}, err
	}
	return f.invoke(ctx, in, tail, sink)
}
