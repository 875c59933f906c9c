package function

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"tenfold"
	"tenfold/internal/build"
	"tenfold/internal/directory"
	"tenfold/internal/isolate"
	"tenfold/internal/ledger"
	"tenfold/internal/schedule"
	"tenfold/tier/function/source"
)

// Traffic is what this tier needs of the front door.
type Traffic interface {
	// Publish tells where a function's requests go, and why nowhere.
	Publish(ctx context.Context, function tenfold.ID, endpoints []directory.Endpoint, down string) error
	// Withdraw forgets a function that was removed.
	Withdraw(ctx context.Context, function tenfold.ID) error
}

// Invokers is the process that serves functions.
type Invokers interface {
	Put(context.Context, Snapshot) (Report, error)
	Report(context.Context) (Report, error)
	Invoke(context.Context, Call) (Answered, error)
}

// Config is what a Tier stands on. All fields but Pass, Box, Strict and BaseEnv are required.
type Config struct {
	Dir     string
	Builder *build.Builder
	// BuildKey is the key of a function's build.
	BuildKey func(tenfold.App, tenfold.Name) string
	Invokers Invokers
	// Address is where the process of Invokers listens: host:port of loopback.
	Address string
	Traffic Traffic
	Resolve tenfold.Resolve
	Emit    tenfold.Emit
	// URL is what processes are told as APP_URL.
	URL func(tenfold.AppName, tenfold.Environment) string
	// Account is the 12 digits by which AWS' protocols name an environment.
	Account func(tenfold.AppName, tenfold.Environment) string
	// Keys are those who may call functions.
	Keys func(context.Context) ([]Key, error)
	// Pass is what the front door shows of a function, to be believed; nil: no function has routes.
	Pass func(tenfold.ID) string
	// Box says how the processes of a function are shut in that run from a build, and may read further folders; nil:
	// they are not. Strict says that none runs of which a limit cannot be enforced, where the manifest does not say.
	Box    func(function tenfold.ID, b build.Result, read ...string) (*isolate.Box, error)
	Strict bool
	// BaseEnv is what every process gets. Empty: PATH, HOME, LANG, TMPDIR of this process.
	BaseEnv []string
}

// Tier is the deciding half: it keeps goals and says what is to be served.
type Tier struct {
	cfg     Config
	records *ledger.Ledger[record]
	wake    chan struct{}

	mu     sync.Mutex
	report Report
	served map[string]string // by ID: the goal that the invoke process has
	// published are functions that the front door was told of by this process.
	published map[tenfold.ID]bool

	// Run's alone, by ID: the goal that an event told of, and what was served last.
	told map[string]string
	last map[string]Goal
}

var _ tenfold.Tier = (*Tier)(nil)

// spec is what a function resource wants.
type spec struct {
	Build       string            `json:"build"` // key
	Language    string            `json:"language,omitempty"`
	Handler     string            `json:"handler,omitempty"`
	Command     tenfold.Command   `json:"command,omitzero"`
	Env         map[string]string `json:"env,omitempty"`
	Bindings    []tenfold.Binding `json:"bindings,omitempty"`
	Routes      []tenfold.Route   `json:"routes,omitempty"`
	Event       string            `json:"event,omitempty"`
	Schedule    tenfold.Schedule  `json:"schedule,omitzero"`
	From        []Source          `json:"from,omitempty"`
	To          *tenfold.ID       `json:"to,omitempty"`
	Dead        *tenfold.ID       `json:"dead,omitempty"`
	Retries     int               `json:"retries"`
	Age         time.Duration     `json:"age"`
	Timeout     time.Duration     `json:"timeout"`
	Size        tenfold.Size      `json:"size"`
	Scale       tenfold.Bounds    `json:"scale"`
	Concurrency int               `json:"concurrency"`
	Logs        tenfold.Logs      `json:"logs"`
	Isolation   string            `json:"isolation,omitempty"`
	Line        int               `json:"line,omitempty"`
}

// version hashes what a running environment would notice.
func (s spec) version() (string, error) {
	return tenfold.FingerprintOf(spec{Build: s.Build, Language: s.Language, Handler: s.Handler, Command: s.Command, Env: s.Env, Bindings: s.Bindings, Size: s.Size, Concurrency: s.Concurrency, Isolation: s.Isolation}, nil)
}

type record struct {
	ID      tenfold.ID   `json:"id"`
	Spec    spec         `json:"spec"`
	Needs   []tenfold.ID `json:"needs,omitempty"`
	Goal    string       `json:"goal"`
	Stopped bool         `json:"stopped,omitempty"`
	Failed  string       `json:"failed,omitempty"`
	Reason  string       `json:"reason,omitempty"`
	Hint    string       `json:"hint,omitempty"`
	// Began is when the schedule was applied, Last its last time that was answered.
	Began time.Time `json:"began,omitzero"`
	Last  time.Time `json:"last,omitzero"`
}

// New reads the records; it starts nothing.
func New(cfg Config) (*Tier, error) {
	if cfg.Dir == "" || cfg.Builder == nil || cfg.BuildKey == nil || cfg.Invokers == nil || cfg.Traffic == nil || cfg.Resolve == nil || cfg.Emit == nil || cfg.URL == nil || cfg.Account == nil || cfg.Keys == nil {
		return nil, errors.New("new functions: all of Config but BaseEnv is required")
	}
	if len(cfg.BaseEnv) == 0 {
		for _, name := range []string{"PATH", "HOME", "LANG", "TMPDIR"} {
			if v := os.Getenv(name); v != "" {
				cfg.BaseEnv = append(cfg.BaseEnv, name+"="+v)
			}
		}
	}
	recs, err := ledger.Open[record](filepath.Join(cfg.Dir, "goals"))
	if err != nil {
		return nil, err
	}
	return &Tier{cfg: cfg, records: recs, wake: make(chan struct{}, 1), served: map[string]string{}, published: map[tenfold.ID]bool{}, told: map[string]string{}, last: map[string]Goal{}}, nil
}

// Name implements tenfold.Service.
func (t *Tier) Name() string { return "function" }

// Desired implements tenfold.Tier.
func (t *Tier) Desired(app tenfold.App, _ tenfold.Scale) ([]tenfold.Resource, error) {
	var out []tenfold.Resource
	for _, name := range slices.Sorted(maps.Keys(app.Functions)) {
		f := app.Functions[name]
		if err := checkSources(f); err != nil {
			return nil, tenfold.Errorf(tenfold.CodeInvalid, "functions.%s.from: %w", name, err).WithHint("write a pattern of EventBridge: match: {body: {kind: [order]}} (tenfold.yaml:%d)", f.Line)
		}
		s := spec{
			Build: t.cfg.BuildKey(app, name), Language: f.Build.Language, Handler: f.Handler, Command: f.Command, Env: f.Env, Bindings: f.Bindings, Routes: f.Routes, Event: f.Event,
			Schedule: f.Schedule, To: f.To, Dead: f.Dead, From: sources(app, f), Retries: f.Retries, Age: f.Age, Timeout: f.Timeout, Size: f.Size, Scale: f.Scale, Concurrency: f.Concurrency, Logs: f.Logs, Isolation: f.Isolation, Line: f.Line,
		}
		needs := append(slices.Clone(f.Uses), app.ID(tenfold.KindBuild, name))
		for _, x := range f.From {
			needs = append(needs, x.From)
		}
		slices.SortFunc(needs, tenfold.ID.Compare)
		needs = slices.Compact(needs)
		hashed := s
		hashed.Line = 0
		fp, err := tenfold.FingerprintOf(hashed, needs)
		if err != nil {
			return nil, fmt.Errorf("plan function %s: %w", name, err)
		}
		out = append(out, tenfold.Resource{ID: app.ID(tenfold.KindFunction, name), Spec: s, Fingerprint: fp, Needs: needs})
	}
	return out, nil
}

// checkSources says what is wrong with what a function is to be called with.
func checkSources(f tenfold.Function) error {
	for _, x := range f.From {
		if err := source.CheckMatch(x.Match); err != nil {
			return fmt.Errorf("%s: %w", x.From.Name, err)
		}
	}
	return nil
}

// sources are a function's, with what its app says of them.
func sources(app tenfold.App, f tenfold.Function) []Source {
	var out []Source
	for _, x := range f.From {
		s := Source{From: x.From, Name: string(x.From.Name), Settings: source.Settings{Batch: x.Batch, Wait: x.Wait, Parallel: x.Parallel, Start: x.Start, Bisect: x.Bisect, Retries: x.Retries, Age: x.Age, Match: x.Match}}
		if x.From.Kind == tenfold.KindQueue {
			q := app.Queues[x.From.Name]
			if s.Visible = q.Timeout; q.FIFO != nil {
				s.Name += ".fifo"
			}
		}
		out = append(out, s)
	}
	return out
}

// Apply implements tenfold.Tier.
func (t *Tier) Apply(_ context.Context, s tenfold.Step) error {
	defer t.prod()
	key := s.Want.ID.String()
	switch s.Verb {
	case tenfold.VerbStop:
		return t.records.Change(key, func(r *record) { r.Stopped = true })
	case tenfold.VerbRemove:
		return t.records.Delete(key)
	}
	want, ok := s.Want.Spec.(spec)
	if !ok {
		return fmt.Errorf("apply to %s: its spec is a %T", s.Want.ID.Short(), s.Want.Spec)
	}
	now := time.Now()
	return t.records.Update(key, func(r *record) {
		if r.Spec.Schedule != want.Schedule || r.Stopped || r.Began.IsZero() {
			r.Began, r.Last = now, now // a new schedule has missed nothing
		}
		r.ID, r.Spec, r.Needs, r.Goal, r.Stopped, r.Failed, r.Reason, r.Hint = s.Want.ID, want, s.Want.Needs, s.Want.Fingerprint, false, "", "", ""
	})
}

// Observe implements tenfold.Tier.
func (t *Tier) Observe(context.Context) ([]tenfold.Resource, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []tenfold.Resource
	for key, r := range t.records.All() {
		o := tenfold.Resource{ID: r.ID, Goal: r.Goal, Needs: r.Needs, Failed: r.Failed, Reason: r.Reason, Hint: r.Hint, State: tenfold.StatePending}
		switch {
		case r.Stopped:
			if t.served[key] == "" {
				o.State = tenfold.StateStopped
			}
		case r.Failed != "" && r.Failed == r.Goal:
			if o.State, o.Serving = tenfold.StateFailed, t.served[key]; o.Serving != "" {
				o.State = tenfold.StateReady // the version before
			}
		case t.served[key] == r.Goal:
			o.State, o.Serving = tenfold.StateReady, r.Goal
			o.Note = note(t.report.Functions[key], r.Spec.Scale)
		}
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b tenfold.Resource) int { return a.ID.Compare(b.ID) })
	return out, nil
}

// note is one line on how a function is.
func note(u Use, scale tenfold.Bounds) string {
	var parts []string
	if u.Busy > 0 {
		parts = append(parts, fmt.Sprintf("%d at work", u.Busy))
	}
	parts = append(parts, fmt.Sprintf("%d warm of %d-%d", u.Warm, scale.Min, scale.Max))
	if u.Invocations > 0 {
		parts = append(parts, fmt.Sprintf("%d calls, p95 %s", u.Invocations, round(u.P95)))
	}
	if u.Errors > 0 {
		parts = append(parts, fmt.Sprintf("%d failed", u.Errors))
	}
	if u.Throttles > 0 {
		parts = append(parts, fmt.Sprintf("%d throttled", u.Throttles))
	}
	if u.Queued > 0 {
		parts = append(parts, fmt.Sprintf("%d events wait", u.Queued))
	}
	if u.Dropped > 0 {
		parts = append(parts, fmt.Sprintf("%d given up on", u.Dropped))
	}
	for _, name := range slices.Sorted(maps.Keys(u.Sources)) {
		if t := u.Sources[name].Trouble; t != "" {
			parts = append(parts, name+" cannot be read: "+t)
		}
	}
	return strings.Join(parts, ", ")
}

func round(d time.Duration) time.Duration {
	if d > 10*time.Millisecond {
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}

func (t *Tier) prod() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Run hands the invoke process what is to be served, and keeps schedules, until ctx ends.
func (t *Tier) Run(ctx context.Context, ready func()) error {
	ready()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var told time.Time // when the invoke process was told last; zero: it has to be again
	for {
		now := time.Now()
		switch {
		case now.Sub(told) > tellPace:
			if told = now; t.serve(ctx) != nil && ctx.Err() == nil {
				told = time.Time{}
			}
			t.prune(now)
		case len(t.records.Keys()) > 0:
			if rep, err := t.cfg.Invokers.Report(ctx); err == nil {
				t.mu.Lock()
				t.report = rep
				t.mu.Unlock()
			} else {
				told = time.Time{} // it died, and another knows nothing
			}
		}
		t.schedules(ctx, now)
		select {
		case <-ctx.Done():
			return nil
		case <-t.wake:
			told = time.Time{}
		case <-tick.C:
		}
	}
}

// tellPace is how often the invoke process is told what it was told before: by then a process that died
// serves again.
const tellPace = 10 * time.Second

// prune deletes logs of functions past what is kept: by age, and the oldest beyond the size.
func (t *Tier) prune(now time.Time) {
	for _, r := range t.records.All() {
		var files []logFile
		var total int64
		paths, _ := filepath.Glob(filepath.Join(t.logDir(r.ID), "*.log*"))
		for _, p := range paths {
			if info, err := os.Stat(p); err == nil {
				files = append(files, logFile{p, info.ModTime(), info.Size()})
				total += info.Size()
			}
		}
		slices.SortFunc(files, func(a, b logFile) int { return a.at.Compare(b.at) })
		for i, f := range files {
			old := r.Spec.Logs.Keep > 0 && now.Sub(f.at) > r.Spec.Logs.Keep
			if i == len(files)-1 || !old && (r.Spec.Logs.Max <= 0 || total <= r.Spec.Logs.Max) {
				break
			}
			if filepath.Base(f.path) != platformLog && os.Remove(f.path) == nil {
				total -= f.size
			}
		}
	}
}

type logFile struct {
	path string
	at   time.Time
	size int64
}

// serve puts the snapshot together and hands it down.
func (t *Tier) serve(ctx context.Context) error {
	var s Snapshot
	served := map[string]string{}
	gone := map[string]bool{}
	t.mu.Lock()
	before := maps.Clone(t.served)
	t.mu.Unlock()
	for key := range before {
		gone[key] = true
	}
	// keep leaves a function as the invoke process has it: one whose database does not answer now, or whose
	// next version cannot be served, still works.
	keep := func(key string, id tenfold.ID) {
		if g, ok := t.last[key]; ok {
			s.Functions = append(s.Functions, g)
		} else {
			s.Kept = append(s.Kept, id)
		}
		delete(gone, key)
		if goal := before[key]; goal != "" {
			served[key] = goal
		}
	}
	for key, r := range t.records.All() {
		if r.Stopped || r.Goal == "" {
			continue
		}
		if r.Failed == r.Goal {
			keep(key, r.ID)
			continue
		}
		g, err := t.goal(ctx, r)
		if err != nil {
			if before[key] != r.Goal { // what serves does not fail by what cannot be looked up for a while
				t.fail(key, r, err)
			}
			keep(key, r.ID)
			continue
		}
		s.Functions = append(s.Functions, g)
		served[key] = r.Goal
		delete(gone, key)
	}
	slices.SortFunc(s.Functions, func(a, b Goal) int { return a.ID.Compare(b.ID) })
	slices.SortFunc(s.Kept, tenfold.ID.Compare)
	var err error
	if s.Keys, err = t.cfg.Keys(ctx); err != nil {
		return err
	}
	rep, err := t.cfg.Invokers.Put(ctx, s)
	if err != nil {
		return err
	}
	clear(t.last)
	for _, g := range s.Functions {
		t.last[g.ID.String()] = g
	}
	for _, g := range s.Functions {
		t.mu.Lock()
		published := t.published[g.ID]
		t.published[g.ID] = len(g.Routes) > 0
		t.mu.Unlock()
		if len(g.Routes) > 0 && !published {
			if err := t.cfg.Traffic.Publish(ctx, g.ID, []directory.Endpoint{{ID: g.ID.String(), Addr: t.cfg.Address}}, ""); err != nil {
				t.mu.Lock()
				delete(t.published, g.ID)
				t.mu.Unlock()
				return err
			}
		}
	}
	for key := range gone {
		id, err := tenfold.ParseID(key)
		if err != nil {
			continue
		}
		t.mu.Lock()
		delete(t.published, id)
		t.mu.Unlock()
		if err := t.cfg.Traffic.Withdraw(ctx, id); err != nil {
			return err
		}
	}
	t.mu.Lock()
	t.served, t.report = served, rep
	t.mu.Unlock()
	for _, g := range s.Functions {
		if key := g.ID.String(); before[key] != served[key] && t.told[key] != served[key] {
			t.told[key] = served[key]
			t.cfg.Emit(tenfold.Event{At: time.Now(), ID: g.ID, Severity: tenfold.SeverityInfo, Text: describe(g)})
		}
	}
	return nil
}

// describe says what is served.
func describe(g Goal) string {
	what := g.Handler
	switch {
	case what != "":
	case len(g.Argv) == 0:
		what = "an image"
	default:
		what = strings.TrimPrefix(g.Argv[len(g.Argv)-1], "exec ")
	}
	text := fmt.Sprintf("%s can be called, %d-%d environments", what, g.Min, g.Max)
	if len(g.Routes) > 0 {
		text += ", at " + strings.Join(g.Routes, ", ")
	}
	var from []string
	for _, s := range g.Sources {
		from = append(from, string(s.From.Name))
	}
	if len(from) > 0 {
		text += ", from " + strings.Join(from, ", ")
	}
	return text
}

// fail notes that a goal cannot be served.
func (t *Tier) fail(key string, r record, err error) {
	if ctxOver(err) {
		return
	}
	var e *tenfold.Error
	hint := ""
	if errors.As(err, &e) {
		if e.Code == tenfold.CodeUnavailable {
			return // it comes
		}
		hint = e.Hint
	}
	t.records.Change(key, func(x *record) {
		if x.Goal == r.Goal {
			x.Failed, x.Reason, x.Hint = r.Goal, err.Error(), hint
		}
	})
	t.cfg.Emit(tenfold.Event{At: time.Now(), ID: r.ID, Severity: tenfold.SeverityWarning, Text: "function not served: " + err.Error(), Hint: hint})
}

func ctxOver(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// goal is a record as it is to be served, with its secrets.
func (t *Tier) goal(ctx context.Context, r record) (Goal, error) {
	b, err := t.cfg.Builder.Find(r.Spec.Build)
	if err != nil {
		return Goal{}, tenfold.Errorf(tenfold.CodeNotFound, "its build is gone: %w", err).WithHint("build it again: tenfold deploy")
	}
	version, err := r.Spec.version()
	if err != nil {
		return Goal{}, err
	}
	argv := r.Spec.Command.Argv()
	if r.Spec.Command.IsZero() && b.Image == "" {
		if argv, err = bootstrap(filepath.Join(t.cfg.Dir, "runtimes"), r.Spec.Language); err != nil {
			return Goal{}, err
		}
		if venv := filepath.Join(b.Dir, ".venv", "bin", "python"); r.Spec.Language == "python" {
			if _, err := os.Stat(venv); err == nil {
				argv[0] = venv // with what the project depends on
			}
		}
	}
	env, err := t.environment(ctx, r, b)
	if err != nil {
		return Goal{}, err
	}
	// What processes are told counts too: a password that was rotated is another version.
	told := sha256.Sum256([]byte(version + "\x00" + strings.Join(env, "\x00")))
	g := Goal{
		Image: b.Image, ID: r.ID, Version: hex.EncodeToString(told[:8]), Argv: argv, Dir: b.Dir, Env: env, Handler: r.Spec.Handler, Timeout: r.Spec.Timeout, Size: r.Spec.Size, Min: r.Spec.Scale.Min, Max: r.Spec.Scale.Max,
		Concurrency: r.Spec.Concurrency, Retries: r.Spec.Retries, Age: r.Spec.Age, Sources: r.Spec.From, To: r.Spec.To, Dead: r.Spec.Dead, Form: form(r.Spec.Event), Account: t.cfg.Account(r.ID.App, r.ID.Env), LogDir: t.logDir(r.ID), Logs: r.Spec.Logs,
	}
	for _, route := range r.Spec.Routes {
		g.Routes = append(g.Routes, string(route))
	}
	if t.cfg.Pass != nil {
		g.Pass = t.cfg.Pass(r.ID)
	}
	g.Extensions = extensions(b.Dir)
	g.Strict = r.Spec.Isolation == tenfold.IsolationStrict || r.Spec.Isolation == "" && t.cfg.Strict
	if t.cfg.Box != nil && b.Image == "" {
		if g.Box, err = t.cfg.Box(r.ID, b, filepath.Join(t.cfg.Dir, "runtimes")); err != nil {
			return Goal{}, fmt.Errorf("shut %s in: %w", r.ID.Short(), err)
		}
	}
	return g, nil
}

// form is a manifest's word for the form of events, as package event has it.
func form(word string) string {
	if word == "alb" {
		return "alb"
	}
	return "v2"
}

// extensions are the programs in a package's folder of that name.
func extensions(dir string) (out []string) {
	entries, err := os.ReadDir(filepath.Join(dir, "extensions"))
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			out = append(out, filepath.Join(dir, "extensions", e.Name()))
		}
	}
	return out
}

// environment is what a function's processes get beside the variables of the Runtime API.
func (t *Tier) environment(ctx context.Context, r record, b build.Result) ([]string, error) {
	var env []string
	if b.Image == "" { // an image has its own PATH and HOME
		env = slices.Clone(t.cfg.BaseEnv)
	}
	for _, k := range slices.Sorted(maps.Keys(r.Spec.Env)) {
		env = append(env, k+"="+r.Spec.Env[k])
	}
	for _, bind := range r.Spec.Bindings {
		bind.By = r.ID.Name
		v, err := t.cfg.Resolve(ctx, bind)
		if err != nil {
			return nil, fmt.Errorf("look up %s: %w", bind.Var, err)
		}
		env = append(env, bind.Var+"="+v)
	}
	env = append(env, "APP_ENV="+string(r.ID.Env), "APP_URL="+t.cfg.URL(r.ID.App, r.ID.Env))
	return b.Environ(env), nil
}

func (t *Tier) logDir(id tenfold.ID) string {
	return filepath.Join(t.cfg.Dir, "logs", filepath.FromSlash(strings.ReplaceAll(id.String(), "~", "_")))
}

// LogPaths lists the log files of a function.
func (t *Tier) LogPaths(id tenfold.ID) []string {
	files, _ := filepath.Glob(filepath.Join(t.logDir(id), "*.log"))
	return files
}

// Builds names the builds that functions need.
func (t *Tier) Builds() map[string]bool {
	out := map[string]bool{}
	for _, r := range t.records.All() {
		out[r.Spec.Build] = true
	}
	return out
}

// Use says how functions are used.
func (t *Tier) Use(ctx context.Context) map[tenfold.ID]Use {
	out := map[tenfold.ID]Use{}
	if len(t.records.Keys()) == 0 {
		return out
	}
	t.mu.Lock()
	rep := t.report
	t.mu.Unlock()
	if now, err := t.cfg.Invokers.Report(ctx); err == nil { // else as it was reported last
		rep = now
	}
	for key, u := range rep.Functions {
		if id, err := tenfold.ParseID(key); err == nil {
			out[id] = u
		}
	}
	return out
}

// Invoke calls a function by hand.
func (t *Tier) Invoke(ctx context.Context, c Call) (Answered, error) {
	r, ok := t.records.Get(c.Function.String())
	if !ok || r.Stopped {
		return Answered{}, tenfold.Errorf(tenfold.CodeNotFound, "no function %s runs in %s/%s", c.Function.Name, c.Function.App, c.Function.Env).WithHint("list them: tenfold fn list --app %s", c.Function.App)
	}
	return t.cfg.Invokers.Invoke(ctx, c)
}

// Refresh has functions told anew what they are given: a secret, a password or an address changed.
func (t *Tier) Refresh() { t.prod() }

// Field gives one fact of a function, for those who use it.
func (t *Tier) Field(id tenfold.ID, f tenfold.Field) (string, error) {
	switch f {
	case tenfold.FieldName:
		return string(id.Name), nil
	case tenfold.FieldURL:
		return "http://" + t.cfg.Address, nil
	}
	return "", fmt.Errorf("a function has no %s", f)
}

// schedules calls functions whose time has come. An event is answered for before it is sent: a crash between
// loses one rather than making it twice.
func (t *Tier) schedules(ctx context.Context, now time.Time) {
	for key, r := range t.records.All() {
		t.mu.Lock()
		serves := t.served[key] == r.Goal
		t.mu.Unlock()
		if r.Stopped || !serves || r.Spec.Schedule.IsZero() {
			continue
		}
		s := schedule.Schedule{Cron: r.Spec.Schedule.Cron, Rate: r.Spec.Schedule.Rate, At: r.Spec.Schedule.At, Timezone: r.Spec.Schedule.Timezone}
		tick, err := s.Due(r.Began, r.Last, now)
		if err != nil || tick.IsZero() {
			continue
		}
		if t.records.Change(key, func(x *record) { x.Last = tick }) != nil {
			continue
		}
		a, err := t.cfg.Invokers.Invoke(ctx, Call{Function: r.ID, Payload: scheduled(t.cfg.Account(r.ID.App, r.ID.Env), r.ID, tick), Async: true})
		if a.Throttled != "" {
			err = &Throttled{a.Throttled}
		}
		if err != nil && ctx.Err() == nil {
			t.cfg.Emit(tenfold.Event{At: now, ID: r.ID, Severity: tenfold.SeverityWarning, Text: "its scheduled event was not delivered: " + err.Error()})
		}
	}
}

// scheduled is the event of a schedule, as EventBridge sends it.
func scheduled(account string, id tenfold.ID, at time.Time) []byte {
	return fmt.Appendf(nil, `{"version":"0","id":%q,"detail-type":"Scheduled Event","source":"aws.events","account":%q,"time":%q,"region":%q,"resources":["arn:aws:events:%s:%s:rule/%s"],"detail":{}}`,
		uuid.NewString(), account, at.UTC().Format(time.RFC3339), region, region, account, id.Name)
}

// Forget removes what is left of an environment that is gone: goals and logs.
func (t *Tier) Forget(_ context.Context, app tenfold.AppName, env tenfold.Environment) error {
	for key, r := range t.records.All() {
		if r.ID.App == app && r.ID.Env == env {
			if err := t.records.Delete(key); err != nil {
				return err
			}
		}
	}
	t.prod()
	return os.RemoveAll(filepath.Join(t.cfg.Dir, "logs", filepath.FromSlash(string(app)+"/"+string(env))))
}
