package pgproxy

import (
	"context"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tenfold/internal/enginetest"
	"tenfold/internal/pooldir"
)

// fixture is a pool before a real PostgreSQL.
type fixture struct {
	*Proxy
	t      testing.TB
	server string // host:port
	addr   string // of the pool
	db     pooldir.Database
	at     uint64 // version
	stop   func()
}

// begin starts a PostgreSQL and a pool before it; change may say how.
func begin(t testing.TB, change ...func(*pooldir.Database)) *fixture {
	t.Helper()
	u, err := url.Parse(enginetest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	return over(t, u.Host, change...)
}

// over starts a pool before a server that runs.
func over(t testing.TB, server string, change ...func(*pooldir.Database)) *fixture {
	t.Helper()
	return made(t, server, Config{}, change...)
}

func made(t testing.TB, server string, cfg Config, change ...func(*pooldir.Database)) *fixture {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, server: server, addr: ln.Addr().String(), at: 1}
	f.db = pooldir.Database{
		ID: "shop/production/database/db", Name: "postgres", Port: ln.Addr().(*net.TCPAddr).Port, Epoch: 1, Primary: f.server,
		Pool: 4, Wait: 10 * time.Second, Hold: 20 * time.Second, Users: []pooldir.User{{Name: "test", Password: "secret"}},
	}
	for _, fn := range change {
		fn(&f.db)
	}
	cfg.Dir, cfg.Listeners = t.TempDir(), []net.Listener{ln}
	if f.Proxy, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	f.put(func(*pooldir.Database) {})
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- f.Run(ctx, func() { close(ready) }) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(f.stop)
	<-ready
	return f
}

// put hands down a changed directory and waits until it is in use.
func (f *fixture) put(change func(*pooldir.Database)) {
	f.t.Helper()
	change(&f.db)
	f.at++
	if err := f.Apply(pooldir.Snapshot{Version: f.at, Databases: []pooldir.Database{f.db}}); err != nil {
		f.t.Fatal(err)
	}
	f.state()
}

func (f *fixture) state() pooldir.State { return f.Report().Databases[f.db.ID] }
func (f *fixture) stats() Stats         { return f.Stats()[f.db.ID] }

func (f *fixture) dsn() string {
	return "postgresql://test:secret@" + f.addr + "/postgres?sslmode=disable"
}

// connect logs in through the pool.
func (f *fixture) connect() *pgx.Conn {
	f.t.Helper()
	c, err := pgx.Connect(context.Background(), f.dsn())
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

// direct logs in at the server.
func (f *fixture) direct() *pgx.Conn {
	f.t.Helper()
	c, err := pgx.Connect(context.Background(), "postgresql://test@"+f.server+"/postgres?sslmode=disable")
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func (f *fixture) exec(c *pgx.Conn, sql string, args ...any) {
	f.t.Helper()
	if _, err := c.Exec(context.Background(), sql, args...); err != nil {
		f.t.Fatalf("%s: %v", sql, err)
	}
}

func one[T any](f *fixture, c *pgx.Conn, sql string, args ...any) T {
	f.t.Helper()
	var v T
	if err := c.QueryRow(context.Background(), sql, args...).Scan(&v); err != nil {
		f.t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func TestQueriesOfManyClientsShareFewConnections(t *testing.T) {
	f := begin(t)
	f.exec(f.connect(), "create table t (n int)")
	var clients []*pgx.Conn
	for range 20 {
		clients = append(clients, f.connect())
	}
	for i := range 3 {
		for _, c := range clients {
			f.exec(c, "insert into t values ($1)", i)
			if n := one[int](f, c, "select count(*)::int from t where n = $1", i); n < 1 {
				t.Fatal(n)
			}
		}
	}
	if st := f.stats(); st.Servers > 4 || st.Clients < 20 || st.Pinned != 0 {
		t.Errorf("%+v", st)
	}
}
