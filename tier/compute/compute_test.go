package compute

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tenfold"
	"tenfold/internal/build"
	"tenfold/internal/directory"
	"tenfold/internal/keeper/keepertest"
	"tenfold/internal/source"
)

func TestMain(m *testing.M) { keepertest.Main(m, map[string]func(){"server": server}) }

// server is the app under test: it does what its environment says.
func server() {
	fmt.Println("server begins")
	if os.Getenv("CRASH") != "" {
		fmt.Println("panic: STRIPE_KEY is not set")
		os.Exit(2)
	}
	port := os.Getenv("PORT")
	if p := os.Getenv("OTHER_PORT"); p != "" {
		port = p
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, os.Getenv("VERSION")) })
	mux.HandleFunc("/sick", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	mux.HandleFunc("/env", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, os.Getenv(r.URL.Query().Get("v"))) })
	mux.HandleFunc("/exit", func(w http.ResponseWriter, r *http.Request) { os.Exit(9) })
	mux.HandleFunc("/hold", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	fmt.Println(http.ListenAndServe("127.0.0.1:"+port, mux))
	os.Exit(1)
}

// door stands for the front door: it keeps what is published and counts what is held.
type door struct {
	mu        sync.Mutex
	endpoints map[tenfold.ID][]directory.Endpoint
	down      map[tenfold.ID]string
	inFlight  atomic.Int64
	waiting   chan directory.Waiting
}

func (d *door) Publish(_ context.Context, id tenfold.ID, e []directory.Endpoint, down string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.endpoints[id], d.down[id] = e, down
	return nil
}

func (d *door) Withdraw(ctx context.Context, id tenfold.ID) error {
	return d.Publish(ctx, id, nil, "removed")
}

func (d *door) InFlight(context.Context, string) (int, error) { return int(d.inFlight.Load()), nil }

func (d *door) Counts(context.Context, directory.Lease) (map[string]directory.Count, error) {
	return nil, nil
}

func (d *door) Load(context.Context, tenfold.ID) (directory.Load, error) {
	return directory.Load{}, nil
}

func (d *door) Waiting(ctx context.Context, _ uint64) (directory.Waiting, error) {
	select {
	case w := <-d.waiting:
		return w, nil
	case <-ctx.Done():
		return directory.Waiting{}, ctx.Err()
	}
}

func (d *door) get(id tenfold.ID) (live []string, draining int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.endpoints[id] {
		if e.Draining {
			draining++
		} else {
			live = append(live, e.Addr)
		}
	}
	return live, draining
}

// box is a house with this tier alone.
type box struct {
	*Compute
	t      *testing.T
	cfg    Config
	door   *door
	root   string
	stop   func()
	mu     sync.Mutex
	events []tenfold.Event
	slow   sync.Mutex // held, events are not taken
}

func newBox(t *testing.T) *box {
	b := &box{t: t, door: &door{endpoints: map[tenfold.ID][]directory.Endpoint{}, down: map[tenfold.ID]string{}, waiting: make(chan directory.Waiting)}, root: t.TempDir()}
	if err := os.MkdirAll(filepath.Join(b.root, "api"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.root, "api", "file"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	units := keepertest.Start(t)
	b.cfg = Config{
		Dir: filepath.Join(dir, "compute"), Units: units, Builder: &build.Builder{Dir: filepath.Join(dir, "build"), Units: units, Env: []string{"PATH=" + os.Getenv("PATH")}},
		Traffic: b.door, URL: func(a tenfold.AppName, _ tenfold.Environment) string { return "http://" + string(a) + ".localhost" },
		Resolve: func(_ context.Context, x tenfold.Binding) (string, error) {
			return "value of " + string(x.From.Name), nil
		},
		Emit: func(e tenfold.Event) {
			b.slow.Lock()
			defer b.slow.Unlock()
			b.mu.Lock()
			defer b.mu.Unlock()
			b.events = append(b.events, e)
		},
	}
	b.begin()
	t.Cleanup(func() { b.stop() })
	return b
}

// begin starts a daemon's worth of the tier over the same records.
func (b *box) begin() {
	b.t.Helper()
	c, err := New(b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Compute = c
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, func() {}) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	})
}

func (b *box) app(change func(*tenfold.Workload)) tenfold.App {
	b.t.Helper()
	digest, err := source.Digest(b.t.Context(), b.root, ".")
	if err != nil {
		b.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	w := tenfold.Workload{
		Source:  tenfold.Source{Root: b.root, Context: ".", Path: "api", Digest: digest},
		Command: tenfold.Command{Args: []string{self}}, Env: map[string]string{"KEEPERTEST_MODE": "server", "VERSION": "one"},
		Bindings: []tenfold.Binding{{Var: "KEY", From: tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindSecret, Name: "KEY"}, Field: tenfold.FieldValue, Version: 1}},
		Routes:   []tenfold.Route{"/*"}, Scale: tenfold.Bounds{Min: 2, Max: 2}, Deadline: time.Minute, Drain: 5 * time.Second, Bake: 50 * time.Millisecond,
		Health: tenfold.Health{Every: time.Second, Timeout: time.Second, Grace: 10 * time.Second},
	}
	change(&w)
	return tenfold.App{Name: "shop", Env: "production", Services: map[tenfold.Name]tenfold.Workload{"api": w}}
}

var api = tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindService, Name: "api"}

// deploy applies the app as the loop would and waits until the service serves it or failed.
func (b *box) deploy(app tenfold.App) tenfold.Resource {
	b.t.Helper()
	rs, err := b.Desired(app, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	var last tenfold.Resource
	for _, kind := range []tenfold.Kind{tenfold.KindBuild, tenfold.KindService, tenfold.KindJob} {
		for _, r := range rs {
			if r.ID.Kind != kind {
				continue
			}
			if err := b.Apply(b.t.Context(), tenfold.Step{Verb: tenfold.VerbStart, Want: r}); err != nil {
				b.t.Fatal(err)
			}
			last = b.until(r.ID, func(o tenfold.Resource) bool {
				return o.Goal == r.Fingerprint && (o.Serving == r.Fingerprint && o.State == tenfold.StateReady || o.Failed == r.Fingerprint)
			})
			if last.Failed != "" {
				return last
			}
		}
	}
	return last
}

func (b *box) until(id tenfold.ID, ok func(tenfold.Resource) bool) tenfold.Resource {
	b.t.Helper()
	var o tenfold.Resource
	b.poll(func() bool {
		rs, err := b.Observe(b.t.Context())
		if err != nil {
			b.t.Fatal(err)
		}
		o = tenfold.Resource{}
		for _, r := range rs {
			if r.ID == id {
				o = r
			}
		}
		return ok(o)
	}, func() string { return fmt.Sprintf("%+v", o) })
	return o
}

func (b *box) poll(ok func() bool, what func() string) {
	b.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			b.t.Fatalf("waited in vain: %s\nevents: %v", what(), b.said())
		}
		<-tick.C
	}
}

func (b *box) said() (out []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.events {
		out = append(out, string(e.Severity)+" "+e.Text)
	}
	return out
}

func get(addr, path string) string {
	res, err := http.Get("http://" + addr + path)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	buf := make([]byte, 1000)
	n, _ := res.Body.Read(buf)
	return string(buf[:n])
}

func (b *box) live(n int) []string {
	b.t.Helper()
	var live []string
	b.poll(func() bool {
		var d int
		live, d = b.door.get(api)
		return len(live) == n && d == 0
	}, func() string { return fmt.Sprint("live ", live) })
	return live
}

func TestDeployUpdateRestartStop(t *testing.T) {
	b := newBox(t)
	b.deploy(b.app(func(w *tenfold.Workload) { w.Migrate = tenfold.Command{Shell: "echo migrating $KEY"} }))
	first := b.live(2)
	for _, c := range []struct{ v, want string }{{"KEY", "value of KEY"}, {"HOST", "127.0.0.1"}, {"APP_ENV", "production"}, {"APP_URL", "http://shop.localhost"}} {
		if got := get(first[0], "/env?v="+c.v); got != c.want {
			t.Errorf("%s is %q, want %q", c.v, got, c.want)
		}
	}
	said := strings.Join(b.said(), "\n")
	for _, want := range []string{"info migrated: echo migrating $KEY", "info task 1 of 2 healthy: GET / answered 200", "info task 2 of 2 healthy"} {
		if !strings.Contains(said, want) {
			t.Errorf("no event %q in\n%s", want, said)
		}
	}

	// The daemon dies: another one adopts the tasks and tells the door again.
	b.stop()
	b.door.Publish(t.Context(), api, nil, "")
	b.begin()
	if again := b.live(2); !slices.Equal(again, first) {
		t.Errorf("after a restart of the daemon %v answer, before %v", again, first)
	}

	// An update switches in one step, and the old tasks stay until nothing is in flight.
	b.door.inFlight.Store(1)
	b.deploy(b.app(func(w *tenfold.Workload) { w.Env["VERSION"] = "two" }))
	live, draining := b.door.get(api)
	if len(live) != 2 || draining != 2 || get(live[0], "/") != "two" || get(first[0], "/") != "one" {
		t.Errorf("while draining: live %v, %d draining", live, draining)
	}
	b.door.inFlight.Store(0)
	b.live(2)
	b.poll(func() bool { ts, _ := b.Tasks(t.Context()); return len(ts) == 2 }, func() string { return "old tasks gone" })

	// Bounds change the count and start no deployment.
	scaled := b.app(func(w *tenfold.Workload) { w.Env["VERSION"] = "two"; w.Scale = tenfold.Bounds{Min: 1, Max: 1} })
	b.deploy(scaled)
	if one := b.live(1); one[0] != live[0] {
		t.Errorf("scaled down to %v from %v", one, live)
	}
	var tasks []Task
	var err error
	b.poll(func() bool { tasks, err = b.Tasks(t.Context()); return len(tasks) == 1 }, func() string { return fmt.Sprintf("%+v", tasks) })
	if err != nil || tasks[0].RSS == 0 || tasks[0].PID == 0 || len(b.LogPaths(api)) == 0 {
		t.Errorf("tasks: %+v, %v", tasks, err)
	}

	if err := b.Restart(t.Context(), api); err != nil {
		t.Fatal(err)
	}
	b.poll(func() bool { l, d := b.door.get(api); return len(l) == 1 && d == 0 && l[0] != live[0] }, func() string { return "restarted" })

	if err := b.Apply(t.Context(), tenfold.Step{Verb: tenfold.VerbRemove, Want: tenfold.Resource{ID: api}}); err != nil {
		t.Fatal(err)
	}
	b.until(api, func(r tenfold.Resource) bool { return r.ID == (tenfold.ID{}) })
	left, err := b.cfg.Units.List(t.Context(), "")
	if err != nil || len(left) > 0 {
		t.Errorf("units are left: %v, %v", left, err)
	}
}

func TestBrokenVersionsHarmNobody(t *testing.T) {
	b := newBox(t)
	one := func(w *tenfold.Workload) { w.Scale = tenfold.Bounds{Min: 1, Max: 1} }
	good := b.deploy(b.app(one))
	serves := b.live(1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	other := l.Addr().(*net.TCPAddr).Port
	l.Close()
	for _, c := range []struct {
		name   string
		change func(*tenfold.Workload)
		reason []string
		hint   string
	}{
		{"crash", func(w *tenfold.Workload) { w.Env["CRASH"] = "1" }, []string{"task 1 exited with status 2 before it answered /", "last output", "STRIPE_KEY is not set"}, "set STRIPE_KEY under env"},
		{"port", func(w *tenfold.Workload) { w.Env["OTHER_PORT"] = fmt.Sprint(other) }, []string{fmt.Sprintf("listens on 127.0.0.1:%d, not on PORT", other), "it was running", "connection refused"}, "PORT"},
		{"sick", func(w *tenfold.Workload) { w.Health.Route, w.Health.Grace = "/sick", 3*time.Second }, []string{"not healthy after 3s: GET /sick answered 500"}, "health"},
		{"migrate", func(w *tenfold.Workload) { w.Migrate = tenfold.Command{Shell: "echo no such table; exit 4"} }, []string{"migrate: echo no such table; exit 4: exited with status 4", "no such table"}, "migration"},
		{"no migration", func(w *tenfold.Workload) { w.Migrate = tenfold.Command{Shell: "nosuchmigration"} }, []string{"exited with status 127"}, `"nosuchmigration" names a program that is not there`},
		{"command", func(w *tenfold.Workload) { w.Command = tenfold.Command{Shell: "nosuchprogram"} }, []string{"exited with status 127"}, `"nosuchprogram" names a program that is not there`},
		{"deadline", func(w *tenfold.Workload) {
			w.Command, w.Deadline = tenfold.Command{Shell: "exec sleep 60"}, 500*time.Millisecond
		}, []string{"does not answer after 500ms"}, "PORT"},
	} {
		o := b.deploy(b.app(func(w *tenfold.Workload) { one(w); c.change(w) }))
		if o.Failed == "" || o.Serving != good.Goal || o.State != tenfold.StateReady {
			t.Errorf("%s: observed %+v", c.name, o)
		}
		for _, want := range c.reason {
			if !strings.Contains(o.Reason, want) {
				t.Errorf("%s: no %q in reason\n%s", c.name, want, o.Reason)
			}
		}
		if !strings.Contains(o.Hint, c.hint) {
			t.Errorf("%s: hint %q", c.name, o.Hint)
		}
		if now := b.live(1); !slices.Equal(now, serves) || get(now[0], "/") != "one" {
			t.Errorf("%s: %v serve, before %v", c.name, now, serves)
		}
	}
	back := b.deploy(b.app(one))
	if back.Serving != good.Goal {
		t.Errorf("back: %+v", back)
	}
}

func TestCrashedTaskLeavesTrafficAndComesBack(t *testing.T) {
	b := newBox(t)
	b.deploy(b.app(func(w *tenfold.Workload) {}))
	before := b.live(2)
	get(before[0], "/exit")
	b.poll(func() bool { l, _ := b.door.get(api); return len(l) == 1 }, func() string { return "it was taken out" })
	after := b.live(2)
	if !slices.Contains(after, before[0]) {
		t.Errorf("%v answer, before %v", after, before)
	}
	b.poll(func() bool { return strings.Contains(strings.Join(b.said(), "\n"), "exited with status 9") }, func() string { return "a warning" })
}

func TestJobs(t *testing.T) {
	b := newBox(t)
	app := b.app(func(w *tenfold.Workload) { w.Scale = tenfold.Bounds{Min: 1, Max: 1} })
	app.Jobs = map[tenfold.Name]tenfold.Job{
		"seed":  {Service: "api", Command: tenfold.Command{Shell: "echo seeded with $KEY"}, Schedule: tenfold.Schedule{FirstDeploy: true}},
		"often": {Service: "api", Command: tenfold.Command{Shell: "exit 3"}, Schedule: tenfold.Schedule{Rate: time.Second}, Retries: 1},
		"hand":  {Service: "api", Command: tenfold.Command{Shell: "echo by hand; pwd"}},
	}
	b.deploy(app)
	seed, often, hand := app.ID(tenfold.KindJob, "seed"), app.ID(tenfold.KindJob, "often"), app.ID(tenfold.KindJob, "hand")
	b.poll(func() bool { r := b.Runs(seed); return len(r) == 1 && r[0].OK() }, func() string { return fmt.Sprintf("%+v", b.Runs(seed)) })
	if out := lastOutput(b.Runs(seed)[0].Log, 5, time.Time{}); !slices.Contains(out, "seeded with value of KEY") {
		t.Errorf("seed printed %q", out)
	}
	b.poll(func() bool {
		return slices.ContainsFunc(b.Runs(often), func(r Run) bool { return r.Trigger == "retry" && r.Exit == 3 && r.Attempt == 2 })
	}, func() string { return fmt.Sprintf("%+v", b.Runs(often)) })

	run, err := b.RunJob(t.Context(), hand)
	if err != nil {
		t.Fatal(err)
	}
	if run, err = b.WaitRun(t.Context(), run); err != nil || !run.OK() {
		t.Fatalf("run by hand: %+v, %v", run, err)
	}
	service := app.ID(tenfold.KindJob, "api")
	if _, err := b.RunJob(t.Context(), service); tenfold.CodeOf(err) != tenfold.CodeInvalid || !strings.Contains(tenfold.HintOf(err), "tenfold run api --app") {
		t.Errorf("a service that is run as a job: %v, hint %q", err, tenfold.HintOf(err))
	}
	run, err = b.Exec(t.Context(), api, []string{"/bin/sh", "-c", "cat file; exit 5"})
	if err != nil {
		t.Fatal(err)
	}
	if run, err = b.WaitRun(t.Context(), run); err != nil || run.Exit != 5 || run.OK() {
		t.Errorf("exec: %+v, %v", run, err)
	}

	// The first-deploy run is once per environment, whatever dies or is removed meanwhile.
	b.stop()
	b.begin()
	for _, v := range []tenfold.Verb{tenfold.VerbRemove, tenfold.VerbStart} {
		rs, _ := b.Desired(app, nil)
		for _, r := range rs {
			if r.ID == seed {
				if err := b.Apply(t.Context(), tenfold.Step{Verb: v, Want: r}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	b.until(seed, func(r tenfold.Resource) bool { return strings.HasPrefix(r.Note, "done") })
	if n := len(b.Runs(seed)); n != 1 {
		t.Errorf("seeded %d times", n)
	}
}
