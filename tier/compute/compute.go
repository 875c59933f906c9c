// Package compute runs services and jobs as processes of this machine.
//
// It owns the builds of services, the services themselves and the jobs. Each has a durable record in
// Dir and one goroutine that pursues it; tasks, migrations, job runs and build commands are units of
// the keeper, so that the daemon may die at any point: the next one adopts what runs and goes on by
// the record. What a service does next is decided by the pure function next (next.go); service.go
// looks at the world and carries the decisions out. It never touches traffic itself: it tells Traffic
// which endpoints there are and asks what is in flight. Begin at Compute, then next.
package compute

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tenfold"
	"tenfold/internal/atomicfile"
	"tenfold/internal/build"
	"tenfold/internal/container"
	"tenfold/internal/directory"
	"tenfold/internal/isolate"
	"tenfold/internal/keeper"
	"tenfold/tier/compute/judge"
)

// Traffic is what this tier needs of the front door. It keeps out how requests find their way.
type Traffic interface {
	// Publish tells which endpoints answer for a service, and why there are none, and returns when
	// the door goes by it.
	Publish(ctx context.Context, service tenfold.ID, endpoints []directory.Endpoint, down string) error
	// Withdraw forgets a service that was removed, its private address included.
	Withdraw(ctx context.Context, service tenfold.ID) error
	// InFlight counts the requests that a task is answering now.
	InFlight(ctx context.Context, task string) (int, error)
	// Counts renews the lease of tasks, if it names any, and says what every task answered so far.
	Counts(ctx context.Context, l directory.Lease) (map[string]directory.Count, error)
	// Load is how a service is used.
	Load(ctx context.Context, service tenfold.ID) (directory.Load, error)
	// Waiting says who waits for services without a task, once that is somebody else than at after.
	Waiting(ctx context.Context, after uint64) (directory.Waiting, error)
}

// Units runs tasks, and tells when one ends.
type Units interface {
	keeper.Units
	Subscribe(ctx context.Context) (<-chan keeper.Event, error)
}

// Backlog is what is in a queue now, and what came and went since somebody began to count.
type Backlog struct {
	Waiting, Working int
	Sent, Done       uint64
}

// Config is what a Compute stands on. Dir, Units, Builder, Traffic, Resolve and Emit are required.
type Config struct {
	Dir     string // records and logs
	Units   Units
	Builder *build.Builder
	Traffic Traffic
	Resolve tenfold.Resolve
	Emit    tenfold.Emit
	// Changed is called when the state that Observe gives of something changed, and does not block. nil: nobody is told.
	Changed func()
	// KeepBuilds names builds of a shared Builder that others need; nil: none.
	KeepBuilds func() map[string]bool
	// FrontendBuild is the key of a frontend's build, and Released that of the one whose release users
	// get now ("" for none): what a frontend's server runs from. nil: no frontend has a server.
	FrontendBuild func(tenfold.App, tenfold.Name) string
	Released      func(frontend tenfold.ID) string
	// Backlog says how much is in a queue that services are scaled by; ok is false when that is not known. nil: of none.
	Backlog func(queue tenfold.ID) (b Backlog, ok bool)
	// URL is what processes are told as APP_URL; nil: nothing.
	URL func(tenfold.AppName, tenfold.Environment) string
	// Box says how the processes of a service are shut in that run from a build; nil: they are not. Strict says that
	// none runs of which a limit cannot be enforced, where the manifest does not say.
	Box    func(service tenfold.ID, b build.Result) (*isolate.Box, error)
	Strict bool
	// Containers has tasks run in containers; nil: none does.
	Containers *container.Driver
	// BaseEnv is what every process gets: PATH, HOME, LANG, TMPDIR. Empty: those of this process.
	BaseEnv []string
}

// Compute is the tier of services, their builds, and jobs.
type Compute struct {
	cfg  Config
	wake chan struct{} // there are new items; holds one
	// watched says that services hear at once when a process of theirs ends.
	watched atomic.Bool

	forgets sync.Mutex    // one Forget at a time
	goals   sync.Mutex    // held while a goal is applied
	leaving map[home]bool // takes no goals; under goals

	mu    sync.Mutex
	items map[tenfold.ID]item
	first map[string]firstProcess // of containers, by unit
}

// item is one resource with its record: a *buildItem, *service or *job.
type item interface {
	run(ctx context.Context) // pursues until ctx ends
	apply(tenfold.Step) error
	observe() (tenfold.Resource, bool)
	of() *pursuit
}

// New reads the records in cfg.Dir. It starts nothing.
func New(cfg Config) (*Compute, error) {
	switch {
	case cfg.Dir == "" || cfg.Units == nil || cfg.Builder == nil || cfg.Traffic == nil || cfg.Resolve == nil || cfg.Emit == nil:
		return nil, errors.New("new compute: Dir, Units, Builder, Traffic, Resolve and Emit are required")
	}
	if len(cfg.BaseEnv) == 0 {
		for _, name := range []string{"PATH", "HOME", "LANG", "TMPDIR"} {
			if v := os.Getenv(name); v != "" {
				cfg.BaseEnv = append(cfg.BaseEnv, name+"="+v)
			}
		}
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	c := &Compute{cfg: cfg, wake: make(chan struct{}, 1), leaving: map[home]bool{}, items: map[tenfold.ID]item{}, first: map[string]firstProcess{}}
	if err := os.MkdirAll(c.records(), 0o750); err != nil {
		return nil, fmt.Errorf("new compute: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(c.records(), "*.json"))
	if err != nil {
		return nil, fmt.Errorf("new compute: %w", err)
	}
	for _, f := range files {
		if err := c.load(f); err != nil {
			return nil, fmt.Errorf("new compute: %w", err)
		}
	}
	return c, nil
}

func (c *Compute) records() string { return filepath.Join(c.cfg.Dir, "records") }

func (c *Compute) recordPath(id tenfold.ID) string {
	return filepath.Join(c.records(), strings.ReplaceAll(id.String(), "/", "~")+".json")
}

func (c *Compute) save(id tenfold.ID, record any) error {
	if err := atomicfile.WriteJSON(c.recordPath(id), record, 0o600); err != nil {
		return fmt.Errorf("save record of %s: %w", id.Short(), err)
	}
	return nil
}

func (c *Compute) load(path string) error {
	var head struct {
		ID tenfold.ID `json:"id"`
	}
	if err := atomicfile.ReadJSON(path, &head); err != nil {
		return err
	}
	it, err := c.item(head.ID)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	switch it := it.(type) {
	case *buildItem:
		return atomicfile.ReadJSON(path, &it.rec)
	case *service:
		return atomicfile.ReadJSON(path, &it.rec)
	case *job:
		return atomicfile.ReadJSON(path, &it.rec)
	}
	return nil
}

// item finds or makes what pursues id.
func (c *Compute) item(id tenfold.ID) (item, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if it, ok := c.items[id]; ok {
		return it, nil
	}
	p := pursuit{c: c, id: id, poke: make(chan struct{}, 1)}
	var it item
	switch id.Kind {
	case tenfold.KindBuild:
		it = &buildItem{pursuit: p, rec: buildRecord{ID: id}}
	case tenfold.KindService:
		it = &service{pursuit: p, rec: record{ID: id}, probes: map[int]*health{}, busy: map[int]bool{}, tries: map[int]*try{}, counts: map[int]judge.Count{}}
	case tenfold.KindJob:
		it = &job{pursuit: p, rec: jobRecord{ID: id}}
	default:
		return nil, fmt.Errorf("compute owns no %s", id.Kind)
	}
	c.items[id] = it
	c.prod()
	return it, nil
}

// prod makes Run look for items that nobody pursues.
func (c *Compute) prod() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// pursuit is what all items have.
type pursuit struct {
	c    *Compute
	id   tenfold.ID
	poke chan struct{} // the goal changed; holds one

	// Under c.mu: whether somebody pursues it or nobody may, and what ends that and is closed then.
	claimed bool
	end     context.CancelFunc
	ended   chan struct{}
}

func (p *pursuit) of() *pursuit { return p }

func (p *pursuit) prod() {
	select {
	case p.poke <- struct{}{}:
	default:
	}
}

func (p *pursuit) emit(s tenfold.Severity, took time.Duration, text string) {
	p.c.cfg.Emit(tenfold.Event{At: time.Now(), ID: p.id, Severity: s, Text: text, Took: took})
}

// wait returns after d, when poked, or when ctx ended; then false.
func (p *pursuit) wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-p.poke:
	case <-timer.C:
	}
	return ctx.Err() == nil
}

// Name implements tenfold.Service.
func (c *Compute) Name() string { return "compute" }

// Run pursues all goals until ctx ends. Units go on without it.
func (c *Compute) Run(ctx context.Context, ready func()) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ready()
	wg.Go(func() { c.wakeUp(ctx) })
	wg.Go(func() { c.watch(ctx) })
	for {
		c.mu.Lock()
		for _, it := range c.items {
			p := it.of()
			if p.claimed {
				continue
			}
			own, end := context.WithCancel(ctx)
			ended := make(chan struct{})
			p.claimed, p.end, p.ended = true, end, ended
			wg.Go(func() {
				defer close(ended)
				defer end()
				it.run(own)
			})
		}
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			wg.Wait()
			c.mu.Lock()
			for _, it := range c.items {
				it.of().claimed = false
			}
			c.mu.Unlock()
			return nil
		case <-c.wake:
		}
	}
}

// watch has a service look when a process of it ended or is gone.
func (c *Compute) watch(ctx context.Context) {
	for ctx.Err() == nil {
		events, err := c.cfg.Units.Subscribe(ctx)
		if err == nil {
			c.watched.Store(true)
			for e := range events {
				if e.Removed || e.Status.Phase != keeper.Running {
					c.prodOwner(e.Status.Unit.ID)
				}
			}
			c.watched.Store(false)
		}
		select {
		case <-ctx.Done():
		case <-time.After(quietPace):
		}
	}
}

// prodOwner has the service look to which a unit belongs, by its name.
func (c *Compute) prodOwner(unit string) {
	p := strings.Split(unit, "/")
	if len(p) < 5 || p[0] != "task" && p[0] != "migrate" {
		return
	}
	n := len(p) - 2 // an environment may have a slash in its name
	id := tenfold.ID{App: tenfold.AppName(p[1]), Env: tenfold.Environment(strings.Join(p[2:n], "/")), Kind: tenfold.KindService, Name: tenfold.Name(p[n])}
	c.mu.Lock()
	it, ok := c.items[id]
	c.mu.Unlock()
	if ok {
		it.of().prod()
	}
}

// Observe implements tenfold.Tier.
func (c *Compute) Observe(context.Context) ([]tenfold.Resource, error) {
	var out []tenfold.Resource
	for _, it := range c.all() {
		if r, ok := it.observe(); ok {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b tenfold.Resource) int { return a.ID.Compare(b.ID) })
	return out, nil
}

func (c *Compute) all() []item {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []item
	for _, it := range c.items {
		out = append(out, it)
	}
	return out
}

// Apply implements tenfold.Tier: it records the goal; Run pursues it.
func (c *Compute) Apply(_ context.Context, s tenfold.Step) error {
	c.goals.Lock()
	defer c.goals.Unlock()
	if c.leaving[homeOf(s.Want.ID)] {
		return tenfold.Errorf(tenfold.CodeConflict, "%s/%s is being forgotten", s.Want.ID.App, s.Want.ID.Env).WithHint("try again when it is gone")
	}
	it, err := c.item(s.Want.ID)
	if err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	if err := it.apply(s); err != nil {
		return fmt.Errorf("apply to %s: %w", s.Want.ID.Short(), err)
	}
	return nil
}

// find returns the service of an ID that is known and not removed.
func (c *Compute) find(id tenfold.ID) (*service, error) {
	c.mu.Lock()
	it, ok := c.items[id]
	c.mu.Unlock()
	s, is := it.(*service)
	if !ok || !is || s.snapshot().Gone {
		return nil, tenfold.Errorf(tenfold.CodeNotFound, "no service %s runs in %s/%s", id.Name, id.App, id.Env).WithHint("see what runs: tenfold status --app %s", id.App)
	}
	return s, nil
}

// confine shuts a unit in that runs from a build of a service: what the build is an image of, in a container.
func (c *Compute) confine(ctx context.Context, u keeper.Unit, id tenfold.ID, spec serviceSpec, b build.Result) (keeper.Unit, error) {
	u.OOMScore = keeper.AppOOMScore
	u.Strict = spec.Isolation == tenfold.IsolationStrict || spec.Isolation == "" && c.cfg.Strict
	if b.Image != "" {
		return c.contain(ctx, u, b)
	}
	if c.cfg.Box == nil {
		return u, nil
	}
	var err error
	if u.Box, err = c.cfg.Box(id, b); err != nil {
		return u, fmt.Errorf("shut %s in: %w", id.Short(), err)
	}
	return u, nil
}

// environment is what a process of a service's version gets.
func (c *Compute) environment(ctx context.Context, id tenfold.ID, v version, extra map[string]string, b build.Result) ([]string, error) {
	var env []string
	if b.Image == "" { // an image has its own PATH and HOME
		env = slices.Clone(c.cfg.BaseEnv)
	}
	env = append(env, pairs(v.Spec.Env)...)
	env = append(env, pairs(extra)...)
	for _, bind := range v.Spec.Bindings {
		bind.By = id.Name
		value, err := c.cfg.Resolve(ctx, bind)
		if err != nil {
			return nil, fmt.Errorf("look up %s: %w", bind.Var, err)
		}
		env = append(env, bind.Var+"="+value)
	}
	env = append(env, "HOST=127.0.0.1", "APP_ENV="+string(id.Env))
	if c.cfg.URL != nil {
		env = append(env, "APP_URL="+c.cfg.URL(id.App, id.Env))
	}
	return b.Environ(env), nil
}
