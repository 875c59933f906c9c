package postgres

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tenfold"
	"tenfold/internal/engines"
	"tenfold/internal/enginetest"
	"tenfold/internal/keeper"
	"tenfold/internal/keeper/keepertest"
)

func TestMain(m *testing.M) { keepertest.Main(m, nil) }

type fixture struct {
	*Postgres
	house *keepertest.House
	mu    sync.Mutex
	texts []string
	// resolve answers for secrets, when it is set before open.
	resolve func(tenfold.Binding) (string, error)
	// pooled says that there is a pool, which the test plays.
	pooled bool
	// bus takes rows of outboxes, and buses says of which tables.
	bus   *bus
	buses map[tenfold.Name]tenfold.Bus
	// engines is a folder with more majors than the machine's own, when it is set before open.
	engines string
	end     func() // ends the tier that open made last
}

func begin(t *testing.T) *fixture {
	t.Helper()
	if _, err := engines.Postgres(t.Context(), 0, ""); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("no engine to test with: %v (apt-get install postgresql)", err)
	}
	f := &fixture{house: keepertest.Start(t)}
	if os.Getenv("POSTGRES") != "" { // of the majors that start may be told
		f.engines = enginetest.Folder()
	}
	f.open(t)
	return f
}

// open makes a tier over the same folder and keeper, as a daemon that comes back does.
func (f *fixture) open(t *testing.T) (stop func()) {
	t.Helper()
	if f.bus == nil {
		f.bus = &bus{}
	}
	p, err := New(Config{Dir: filepath.Join(f.house.Dir, "pg"), Engines: f.engines, Outbox: f.bus, Units: f.house, Pooled: f.pooled, Resolve: func(_ context.Context, b tenfold.Binding) (string, error) { return f.resolve(b) }, Emit: func(e tenfold.Event) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.texts = append(f.texts, e.Text)
		if os.Getenv("SHOW") != "" {
			fmt.Println(time.Now().Format("05.000"), e.Text, e.Took)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	f.Postgres = p
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, func() {}) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	f.end = stop
	return stop
}

var id = tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindDatabase, Name: "main-db"}

func (f *fixture) start(t *testing.T, d tenfold.Database) string {
	t.Helper()
	if major, err := strconv.Atoi(os.Getenv("POSTGRES")); err == nil && d.Major == 0 { // another than the newest
		d.Major = major
	}
	want, err := f.Desired(tenfold.App{Name: "shop", Env: "production", Databases: map[tenfold.Name]tenfold.Database{"main-db": d}, Events: f.buses}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Apply(t.Context(), tenfold.Step{Verb: tenfold.VerbStart, Want: want[0]}); err != nil {
		t.Fatal(err)
	}
	return want[0].Fingerprint
}

func (f *fixture) await(t *testing.T, what string, ok func(tenfold.Resource) bool) tenfold.Resource {
	t.Helper()
	var last tenfold.Resource
	for begun := time.Now(); time.Since(begun) < 60*time.Second; <-time.After(20 * time.Millisecond) {
		rs, err := f.Observe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rs {
			if last = r; ok(r) {
				return r
			}
		}
	}
	t.Fatalf("not %s: %+v", what, last)
	return last
}

func ready(r tenfold.Resource) bool { return r.State == tenfold.StateReady }

func (f *fixture) connect(t *testing.T) *pgx.Conn {
	t.Helper()
	url, err := f.Field(t.Context(), id, tenfold.FieldURL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDatabaseFromNothingThroughCrashAndStop(t *testing.T) {
	f := begin(t)
	f.start(t, tenfold.Database{Settings: map[string]string{"work_mem": "5MB"}})
	f.await(t, "ready", ready)
	c := f.connect(t)
	var mem, user string
	if err := c.QueryRow(t.Context(), "select current_setting('work_mem'), current_user").Scan(&mem, &user); err != nil || mem != "5MB" || user != "main_db" {
		t.Fatal(mem, user, err)
	}
	if _, err := c.Exec(t.Context(), "create table t (n int); insert into t values (42)"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(t.Context(), "create role evil"); err == nil {
		t.Fatal("the app's role may make roles")
	}

	// kill -9 of the postmaster: back by itself with what was committed.
	units, err := f.house.List(t.Context(), unitPrefix)
	if err != nil {
		t.Fatal(err)
	}
	first := units[0].PID
	syscall.Kill(first, syscall.SIGKILL)
	f.await(t, "restarted", func(r tenfold.Resource) bool {
		u, _ := f.house.List(t.Context(), unitPrefix)
		return ready(r) && len(u) == 1 && u[0].Phase == keeper.Running && u[0].PID != first
	})
	var n int
	for begun := time.Now(); n != 42; <-time.After(50 * time.Millisecond) {
		url, _ := f.Field(t.Context(), id, tenfold.FieldURL)
		if c, err := pgx.Connect(t.Context(), url); err == nil {
			c.QueryRow(t.Context(), "select n from t").Scan(&n)
			c.Close(t.Context())
		}
		if time.Since(begun) > 20*time.Second {
			t.Fatal("the row is gone")
		}
	}

	// Stopped: nothing runs, data is kept, and it comes back.
	if err := f.Apply(t.Context(), tenfold.Step{Verb: tenfold.VerbStop, Want: tenfold.Resource{ID: id}}); err != nil {
		t.Fatal(err)
	}
	f.await(t, "stopped", func(r tenfold.Resource) bool { return r.State == tenfold.StateStopped })
	if k := f.Kept(); len(k) != 1 || k[0].Bytes < 1<<20 {
		t.Fatalf("kept: %+v", k)
	}
	f.start(t, tenfold.Database{})
	f.await(t, "ready again", ready)
	if err := f.Destroy(t.Context(), id); tenfold.CodeOf(err) != tenfold.CodeConflict {
		t.Fatalf("destroyed what is in use: %v", err)
	}
	c = f.connect(t)
	if err := c.QueryRow(t.Context(), "select n from t").Scan(&n); err != nil || n != 42 {
		t.Fatal(n, err)
	}
}

func TestANewDaemonAdoptsTheServer(t *testing.T) {
	f := begin(t)
	f.Postgres = nil
	stop := f.open(t)
	f.start(t, tenfold.Database{})
	f.await(t, "ready", ready)
	c := f.connect(t)
	var before, after int
	c.QueryRow(t.Context(), "select pg_backend_pid()").Scan(&before)
	stop()
	f.open(t)
	f.await(t, "ready", ready)
	if err := c.QueryRow(t.Context(), "select pg_backend_pid()").Scan(&after); err != nil || after != before {
		t.Fatalf("the connection broke: %v", err)
	}
}

func TestWhatIsMissingIsSaid(t *testing.T) {
	t.Setenv("POSTGRES", "") // where none is missing
	f := begin(t)
	e, _ := engines.Postgres(t.Context(), 0, "")
	other := engines.OldestPostgres
	if e.Major == other {
		other++
	}
	f.start(t, tenfold.Database{Major: other})
	r := f.await(t, "failed", func(r tenfold.Resource) bool { return r.State == tenfold.StateFailed })
	if !strings.Contains(r.Reason, fmt.Sprintf("PostgreSQL %d is not installed", other)) || !strings.Contains(r.Hint, "doctor --fix") {
		t.Fatalf("%q %q", r.Reason, r.Hint)
	}
	f.start(t, tenfold.Database{Settings: map[string]string{"no_such_setting": "1"}})
	r = f.await(t, "failed", func(r tenfold.Resource) bool {
		return r.State == tenfold.StateFailed && r.Failed == r.Goal && strings.Contains(r.Reason, "ended")
	})
	if !strings.Contains(r.Reason, "no_such_setting") {
		t.Fatalf("%q", r.Reason)
	}
}
