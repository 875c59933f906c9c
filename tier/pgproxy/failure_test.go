package pgproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tenfold/internal/pooldir"
)

// relay stands between the pool and the server, so that a server's death can be had at will.
type relay struct {
	net.Listener
	to string

	mu    sync.Mutex
	conns []net.Conn
}

func newRelay(t testing.TB, to string) *relay {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: l, to: to}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				continue
			}
			r.mu.Lock()
			r.conns = append(r.conns, c, s)
			r.mu.Unlock()
			wg.Go(func() { io.Copy(s, c); s.Close(); c.Close() })
			wg.Go(func() { io.Copy(c, s); s.Close(); c.Close() })
		}
	})
	t.Cleanup(func() { l.Close(); r.cut(); wg.Wait() })
	return r
}

// cut ends all connections through it.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}

// relayed is a pool whose server can be cut off.
func relayed(t *testing.T, change ...func(*pooldir.Database)) (*fixture, *relay) {
	f := begin(t, change...)
	r := newRelay(t, f.server)
	f.put(func(d *pooldir.Database) { d.Primary = r.Addr().String(); d.Epoch++ })
	return f, r
}

func code(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return fmt.Sprint(err)
}

// async runs a statement and gives its error later.
func async(c *pgx.Conn, sql string, args ...any) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(bg, sql, args...)
		done <- err
	}()
	return done
}

func waiting(n int) func(Stats, pooldir.State) bool {
	return func(_ Stats, s pooldir.State) bool { return s.Waiting == n }
}

func TestClientsAreHeldThroughPauseFailoverAndWake(t *testing.T) {
	f := begin(t)
	c := f.connect()
	f.exec(c, "create table t (n int)")
	p := f.connect()
	f.exec(p, "select pg_advisory_lock(1)", pgx.QueryExecModeSimpleProtocol)
	for _, hold := range []struct {
		name     string
		from, to func(*pooldir.Database)
	}{
		{"pause", func(d *pooldir.Database) { d.Paused = true }, func(d *pooldir.Database) { d.Paused = false }},
		{"no primary", func(d *pooldir.Database) { d.Primary = "" }, func(d *pooldir.Database) { d.Primary = f.server }},
		{"suspended", func(d *pooldir.Database) { d.Suspended = true }, func(d *pooldir.Database) { d.Suspended = false }},
	} {
		f.put(hold.from)
		f.await("quiet", func(_ Stats, s pooldir.State) bool { return s.Quiet })
		done := async(c, "insert into t values (1)")
		f.await("held", waiting(1))
		if st := f.state(); st.Wake != (hold.name == "suspended") {
			t.Errorf("%s: %+v", hold.name, st)
		}
		var held <-chan error
		if hold.name == "pause" {
			held = async(p, "select pg_advisory_unlock(1)", pgx.QueryExecModeSimpleProtocol)
			f.await("held", waiting(2))
		}
		late := make(chan error, 1) // logging in needs no server
		go func() {
			d, err := pgx.Connect(bg, f.dsn())
			if err == nil {
				err = d.Close(bg)
			}
			late <- err
		}()
		if err := <-late; err != nil {
			t.Error(err)
		}
		f.put(hold.to)
		if err := <-done; err != nil {
			t.Errorf("%s: %v", hold.name, err)
		}
		if held != nil {
			if err := <-held; err != nil {
				t.Error(err)
			}
		}
	}
	if got := one[int](f, c, "select count(*)::int from t"); got != 3 {
		t.Error(got)
	}
}

func TestPauseLetsTransactionsEnd(t *testing.T) {
	f := begin(t)
	c := f.connect()
	f.exec(c, "begin")
	news := f.News()
	f.put(func(d *pooldir.Database) { d.Paused = true })
	if f.state().Quiet {
		t.Error("quiet within a transaction")
	}
	f.exec(c, "commit")
	<-news // at once, not within a second
	if !f.state().Quiet {
		t.Error("not quiet")
	}
}

func TestHeldTooLongEndsWithAHint(t *testing.T) {
	f := begin(t, func(d *pooldir.Database) { d.Hold = 50 * time.Millisecond })
	c := f.connect()
	f.put(func(d *pooldir.Database) { d.Primary = "" })
	var pe *pgconn.PgError
	if _, err := c.Exec(bg, "select 1"); !errors.As(err, &pe) || pe.Code != "57P03" || pe.Hint == "" {
		t.Fatal(err)
	}
	f.put(func(d *pooldir.Database) { d.Primary = f.server })
	one[int](f, c, "select 1")
}

func TestOlderEpochGetsNothingMore(t *testing.T) {
	f, r := relayed(t, single)
	c := f.connect()
	f.exec(c, "create table t (n int)")
	f.exec(c, "begin")
	f.exec(c, "insert into t values (1)")
	f.put(func(d *pooldir.Database) { d.Primary, d.Epoch = f.server, d.Epoch+1 })
	if _, err := c.Exec(bg, "commit"); code(err) != "08006" {
		t.Error(err)
	}
	if got := one[int](f, c, "select count(*)::int from t"); got != 0 {
		t.Error(got)
	}
	r.cut()
}

func TestServerDies(t *testing.T) {
	f, r := relayed(t)
	busy := func(st Stats, _ pooldir.State) bool { return st.Busy == 1 }
	simple := pgx.QueryExecModeSimpleProtocol
	c := f.connect()
	f.exec(c, "create table t (n int)")
	// One holds a lock, so that the others are surely under way.
	l, err := pgx.Connect(bg, "postgresql://test@"+f.server+"/postgres?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(bg)
	for _, mode := range []pgx.QueryExecMode{simple, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
		f.exec(c, "select count(*) from t", mode)
		f.exec(l, "begin; lock table t")
		read := async(c, "select count(*) from t", mode)
		f.await("busy", busy)
		r.cut()
		f.await("again", func(st Stats, _ pooldir.State) bool { return st.Retried > 0 })
		f.exec(l, "rollback")
		if err := <-read; err != nil {
			t.Errorf("%v: a read was not repeated: %v", mode, err)
		}
	}
	f.exec(l, "begin; lock table t")
	write := async(c, "insert into t values (1)", simple)
	f.await("busy", busy)
	r.cut()
	if err := <-write; code(err) != "08007" {
		t.Error(err)
	}
	f.exec(l, "rollback")
	f.exec(c, "begin")
	f.exec(c, "insert into t values (2)")
	r.cut()
	if _, err := c.Exec(bg, "insert into t values (3)", simple); code(err) != "08006" {
		t.Error(err)
	}
	f.exec(c, "insert into t values (4)") // the connection is good
	if got := one[int](f, c, "select count(*)::int from t where n in (2, 3)"); got != 0 {
		t.Error(got)
	}
	// Who was pinned must begin a session of its own.
	f.exec(c, "create temp table x (n int)", simple)
	f.await("pinned", pinned)
	r.cut()
	if _, err := c.Exec(bg, "select 1"); err == nil {
		t.Error("the session went on without its table")
	}
	// While nothing answers, clients wait.
	d := f.connect()
	r.Close()
	r.cut()
	read := async(d, "select 1")
	f.await("held", waiting(1))
	f.put(func(d *pooldir.Database) { d.Primary, d.Epoch = f.server, d.Epoch+1 })
	if err := <-read; err != nil {
		t.Error(err)
	}
}

// Clients of all kinds at once, under random disconnects and cancels: each gets the answer to what it
// asked, and money is neither made nor lost.
func TestIdentityAndConservationUnderLoad(t *testing.T) {
	f := begin(t, func(d *pooldir.Database) { d.Pool, d.Wait, d.Users[0].Limit = 5, time.Minute, 100 })
	setup := f.connect()
	f.exec(setup, "create table accounts (id int primary key, sum bigint not null); insert into accounts select n, 1000 from generate_series(1, 10) n; create table history (who text, delta bigint)")
	const clients, turns = 24, 60
	var answers, moved atomic.Int64
	var wg sync.WaitGroup
	for n := range clients {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(n)))
			w := worker{f: f, n: n, rng: rng, answers: &answers, moved: &moved}
			for turn := range turns {
				if !w.turn(turn) {
					return
				}
			}
			if w.c != nil {
				w.c.Close(bg)
			}
		})
	}
	wg.Wait()
	if got := one[int64](f, setup, "select sum(sum)::bigint from accounts"); got != 10000 {
		t.Errorf("the sum is %d", got)
	}
	if got := one[int64](f, setup, "select count(*) from history"); got != moved.Load() {
		t.Errorf("%d transfers were acknowledged, %d are there", moved.Load(), got)
	}
	t.Logf("%d answers, %+v", answers.Load(), f.stats())
}

type worker struct {
	f              *fixture
	n              int
	rng            *rand.Rand
	c              *pgx.Conn
	answers, moved *atomic.Int64
}

func (w *worker) turn(turn int) bool {
	t := w.f.t
	if w.c == nil || w.c.IsClosed() {
		var err error
		if w.c, err = pgx.Connect(bg, w.f.dsn()+"&application_name=app"+fmt.Sprint(w.n%3)); err != nil {
			t.Error(err)
			return false
		}
		// All call different statements by the same name.
		if _, err := w.c.PgConn().Prepare(bg, "mine", fmt.Sprintf("select %d + $1::int", w.n*1000), nil); err != nil {
			t.Error(err)
			return false
		}
	}
	ok := func(what string, err error) bool {
		if err != nil {
			t.Errorf("client %d turn %d: %s: %v", w.n, turn, what, err)
		}
		return err == nil
	}
	mark := fmt.Sprintf("client %d turn %d", w.n, turn)
	var got string
	switch w.rng.IntN(9) {
	case 0:
		r := w.c.PgConn().ExecPrepared(bg, "mine", [][]byte{[]byte(fmt.Sprint(turn))}, nil, nil).Read()
		if !ok("prepared", r.Err) {
			return false
		}
		if want := fmt.Sprint(w.n*1000 + turn); string(r.Rows[0][0]) != want {
			t.Errorf("%s got %s", mark, r.Rows[0][0])
		}
	case 1, 2:
		if !ok("simple", w.c.QueryRow(bg, "select '"+mark+"'", pgx.QueryExecModeSimpleProtocol).Scan(&got)) || got != mark {
			t.Errorf("%s got %q", mark, got)
		}
	case 3:
		if !ok("extended", w.c.QueryRow(bg, "select $1::text", mark).Scan(&got)) || got != mark {
			t.Errorf("%s got %q", mark, got)
		}
	case 4:
		tx, err := w.c.Begin(bg)
		if !ok("begin", err) {
			return false
		}
		delta, a, b := w.rng.IntN(50), 1+w.rng.IntN(9), 10
		_, err = tx.Exec(bg, "update accounts set sum = sum - $1 where id = $2", delta, a)
		if err == nil {
			_, err = tx.Exec(bg, "update accounts set sum = sum + $1 where id = $2", delta, b)
		}
		if err == nil {
			_, err = tx.Exec(bg, "insert into history values ($1, $2)", mark, delta)
		}
		if !ok("transfer", err) {
			return false
		}
		if w.rng.IntN(3) == 0 {
			tx.Rollback(bg)
		} else if ok("commit", tx.Commit(bg)) {
			w.moved.Add(1)
		}
	case 5: // leaves in the middle of a transaction
		w.c.Exec(bg, "begin; update accounts set sum = sum - 100 where id = "+fmt.Sprint(1+w.rng.IntN(9)))
		w.c.PgConn().Conn().Close()
		w.c = nil
	case 6:
		ctx, cancel := context.WithCancel(bg)
		done := make(chan error, 1)
		go func() {
			_, err := w.c.Exec(ctx, "select '"+mark+"', pg_sleep(0.01)", pgx.QueryExecModeSimpleProtocol)
			done <- err
		}()
		w.c.PgConn().CancelRequest(bg)
		err := <-done
		cancel()
		if err != nil && code(err) != "57014" {
			ok("cancelled", err)
		}
	case 7:
		if _, err := w.c.Exec(bg, "set my.mark = '"+mark+"'"); !ok("set", err) {
			return false
		}
		if !ok("show", w.c.QueryRow(bg, "select current_setting('my.mark')").Scan(&got)) || got != mark {
			t.Errorf("%s got %q", mark, got)
		}
	case 8:
		if _, err := w.c.Exec(bg, "select 1/0"); code(err) != "22012" {
			ok("error", err)
		}
		b := &pgx.Batch{}
		for i := range 5 {
			b.Queue("select $1::text", fmt.Sprint(mark, " ", i))
		}
		br := w.c.SendBatch(bg, b)
		for i := range 5 {
			if err := br.QueryRow().Scan(&got); !ok("batch", err) || got != fmt.Sprint(mark, " ", i) {
				t.Errorf("%s got %q", mark, got)
			}
		}
		br.Close()
	}
	w.answers.Add(1)
	return true
}

func TestStopEndsWhatIsUnderWayAndTellsTheIdle(t *testing.T) {
	f := begin(t)
	idle, busy := f.connect(), f.connect()
	f.exec(busy, "begin")
	stopped := make(chan struct{})
	go func() { f.stop(); close(stopped) }()
	// The idle one is told while the other's transaction goes on.
	for {
		if _, err := idle.Exec(bg, "select 1"); err != nil {
			if c := code(err); c != "57P01" && !strings.Contains(c, "closed") && !strings.Contains(c, "reset") && !strings.Contains(c, "broken pipe") && !strings.Contains(c, "EOF") {
				t.Error(err)
			}
			break
		}
	}
	f.exec(busy, "create table t (n int)")
	f.exec(busy, "commit")
	<-stopped
}

func TestDirectoryOutlivesTheProcess(t *testing.T) {
	f := begin(t)
	f.stop()
	again, err := New(Config{Dir: f.cfg.Dir})
	if err != nil {
		t.Fatal(err)
	}
	if again.snapshot.Version != f.at || again.snapshot.Databases[0].Users[0].Password != "secret" {
		t.Errorf("%+v", again.snapshot)
	}
	if err := again.Apply(pooldir.Snapshot{Version: f.at - 1}); err == nil {
		t.Error("an older one was taken")
	}
}

func TestWhoMayLogIn(t *testing.T) {
	f := begin(t, func(d *pooldir.Database) {
		d.Users = append(d.Users, pooldir.User{Name: "few", Password: "pässword", Limit: 1})
	})
	setup := f.connect()
	f.exec(setup, "create role few login password 'pässword'")
	try := func(user, password, db string) string {
		c, err := pgx.Connect(bg, fmt.Sprintf("postgresql://%s:%s@%s/%s?sslmode=prefer", user, password, f.addr, db))
		if err == nil {
			t.Cleanup(func() { c.Close(bg) })
			var n int
			err = c.QueryRow(bg, "select 1").Scan(&n)
		}
		return code(err)
	}
	for _, c := range []struct{ user, password, db, want string }{
		{"test", "secret", "postgres", "<nil>"},
		{"test", "wrong", "postgres", "28P01"},
		{"nobody", "secret", "postgres", "28P01"},
		{"test", "secret", "other", "3D000"},
		{"few", "p%C3%A4ssword", "postgres-ro", "<nil>"},
		{"few", "p%C3%A4ssword", "postgres", "53300"},
	} {
		if got := try(c.user, c.password, c.db); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
	f.put(func(d *pooldir.Database) { d.Users[0].Password = "newer" })
	if got := try("test", "newer", "postgres"); got != "<nil>" {
		t.Error(got)
	}
}
