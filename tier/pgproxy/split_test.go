package pgproxy

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tenfold/internal/engines"
	"tenfold/internal/pooldir"
)

// standby starts a reader of a server; settings are its own.
func standby(t testing.TB, server string, settings ...string) (addr string) {
	t.Helper()
	e, err := engines.Postgres(t.Context(), 0, "")
	if err != nil {
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("", "standby")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	as := func(cmd *exec.Cmd) *exec.Cmd {
		cmd.Dir, cmd.Env, cmd.SysProcAttr = "/", []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}, &syscall.SysProcAttr{}
		if uid, gid := engines.RunAs(); uid > 0 {
			os.Chown(dir, uid, gid)
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		}
		return cmd
	}
	host, port, _ := net.SplitHostPort(server)
	data := filepath.Join(dir, "data")
	tool := filepath.Join(e.Bin, "pg_basebackup")
	if _, err := os.Stat(tool); err != nil {
		t.Skip("no pg_basebackup: apt-get install postgresql")
	}
	if out, err := as(exec.Command(tool, "-D", data, "-h", host, "-p", port, "-U", "test", "-R", "-X", "stream", "-c", "fast", "--no-sync")).CombinedOutput(); err != nil {
		t.Fatalf("pg_basebackup: %v\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	l.Close()
	_, port, _ = net.SplitHostPort(addr)
	args := []string{"-D", data, "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "shared_buffers=16MB"}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	cmd := as(exec.Command(e.Server, args...))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Signal(syscall.SIGQUIT); cmd.Wait() })
	for begun := time.Now(); ; {
		c, err := pgx.Connect(bg, "postgresql://test@"+addr+"/postgres?sslmode=disable")
		if err == nil {
			c.Close(bg)
			return addr
		}
		if time.Since(begun) > 30*time.Second {
			t.Fatal(err)
		}
	}
}

// splitting is a pool that splits between a server and a standby.
func splitting(t testing.TB, settings ...string) (f *fixture, reader string) {
	f = begin(t)
	reader = standby(t, f.server, settings...)
	f.put(func(d *pooldir.Database) {
		d.Split, d.Pool, d.Readers = true, 8, []pooldir.Reader{{Addr: reader}}
	})
	return f, reader
}

const where = "select current_setting('transaction_read_only')" // "on" at a reader

var modes = []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeCacheStatement}

func TestReadsGoToAReader(t *testing.T) {
	f, _ := splitting(t)
	c := f.connect()
	f.exec(c, "create table t (n int)")
	for _, mode := range modes {
		for range 3 {
			// The first of them may find the reader behind for longer than a read waits.
			for begun := time.Now(); ; {
				got := ""
				err := c.QueryRow(bg, where, mode).Scan(&got)
				if err == nil && got == "on" {
					break
				}
				if err != nil || time.Since(begun) > 20*time.Second {
					t.Fatalf("%v: %q, %v", mode, got, err)
				}
			}
			f.exec(c, "insert into t values (1)", mode)
		}
		// A transaction is where it began.
		tx, err := c.BeginTx(bg, pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: pgx.RepeatableRead})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for range 2 {
			if err := tx.QueryRow(bg, "select pg_is_in_recovery()::text", mode).Scan(&got); err != nil || got != "true" {
				t.Fatalf("read only: %q, %v", got, err)
			}
		}
		if _, err := tx.Exec(bg, "insert into t values (1)"); err == nil {
			t.Error("it wrote")
		}
		tx.Rollback(bg)
		// What would stay at the reader is refused with a reason, never left there.
		lost := f.connect()
		f.exec(lost, "begin read only", mode)
		if _, err := lost.Exec(bg, "select pg_advisory_xact_lock(1)", mode); !lost.IsClosed() || !strings.Contains(fmt.Sprint(err), "READ ONLY") && !strings.Contains(fmt.Sprint(err), "0A000") {
			t.Errorf("%v: a lock at a reader: %v", mode, err)
		}
		if tx, err = c.Begin(bg); err != nil {
			t.Fatal(err)
		}
		if err := tx.QueryRow(bg, where, mode).Scan(&got); err != nil || got != "off" {
			t.Fatalf("in a transaction: %q, %v", got, err)
		}
		tx.Rollback(bg)
	}
	for _, sql := range []string{
		"select pg_is_in_recovery()::text -- no function that is known",
		"select 'false' from (select 1 for update) x where not pg_is_in_recovery() or true",
		"with x as (insert into t values (2) returning n) select 'false' from x",
	} {
		if got := one[string](f, c, sql); got != "false" {
			t.Errorf("%s: at a reader", sql)
		}
	}
	// One that writes behind a view is repeated at the primary.
	f.exec(c, "create sequence s; create view v as select nextval('s') as n", pgx.QueryExecModeSimpleProtocol)
	if _, err := c.Exec(bg, "select n from v", pgx.QueryExecModeSimpleProtocol); err != nil {
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "25006" {
			t.Error(err)
		}
	}
	f.exec(c, "create temp table pinned_here (n int)")
	if got := one[string](f, c, where); got != "off" {
		t.Error("a pinned client was sent to a reader")
	}
	if st := f.stats(); st.Split == 0 {
		t.Errorf("%+v", st)
	}
}

func TestWhatFollowsAReadInAPipelineIsNotSentToTheReader(t *testing.T) {
	f, _ := splitting(t)
	c := f.connect()
	f.exec(c, "create table t (n int)")
	p := c.PgConn().StartPipeline(bg)
	for i := range 20 {
		p.SendQueryParams("select count(*) from t", nil, nil, nil, nil)
		p.SendPipelineSync()
		p.SendQueryParams(fmt.Sprintf("insert into t values (%d)", i), nil, nil, nil, nil)
		p.SendPipelineSync()
	}
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	var counts []string
	for syncs := 0; syncs < 40; {
		r, err := p.GetResults()
		if err != nil {
			t.Fatal(err)
		}
		switch r := r.(type) {
		case *pgconn.ResultReader:
			res := r.Read()
			if res.Err != nil {
				t.Fatal(res.Err)
			}
			if len(res.Rows) > 0 {
				counts = append(counts, string(res.Rows[0][0]))
			}
		case *pgconn.PipelineSync:
			syncs++
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(counts, " "); got != "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19" {
		t.Error(got)
	}
}

// Each client reads what it wrote, from a reader that is behind on purpose; the pool's own readers, which
// promise nothing, show that it is.
func TestNobodyReadsLessThanItWrote(t *testing.T) {
	f, _ := splitting(t, "recovery_min_apply_delay=8ms")
	f.exec(f.connect(), "create table pairs (client int primary key, n int)")
	const clients, each = 20, 500
	var stale, behind, atReader atomic.Int64
	var all sync.WaitGroup
	for i := range clients {
		c := f.connect()
		ro, err := pgx.Connect(bg, strings.Replace(f.dsn(), "/postgres?", "/postgres-ro?", 1))
		if err != nil {
			t.Fatal(err)
		}
		defer ro.Close(bg)
		f.exec(c, "insert into pairs values ($1, 0)", i)
		mode := modes[i%len(modes)]
		all.Go(func() {
			for n := 1; n <= each; n++ {
				if _, err := c.Exec(bg, "update pairs set n = $2 where client = $1", mode, i, n); err != nil {
					t.Error(err)
					return
				}
				if n%50 == 0 {
					got := -1
					if err := ro.QueryRow(bg, "select n from pairs where client = $1", i).Scan(&got); err != nil && !errors.Is(err, pgx.ErrNoRows) {
						t.Error(err)
					} else if got < n {
						behind.Add(1)
					}
				}
				got, readOnly := -1, ""
				if err := c.QueryRow(bg, "select n, current_setting('transaction_read_only') from pairs where client = $1", mode, i).Scan(&got, &readOnly); err != nil {
					t.Error(err)
					return
				}
				if got != n {
					stale.Add(1)
				}
				if readOnly == "on" {
					atReader.Add(1)
				}
			}
		})
	}
	all.Wait()
	t.Logf("%d pairs, %d of the reads at the reader, %d stale; of %d reads at -ro %d were behind", clients*each, atReader.Load(), stale.Load(), clients*each/50, behind.Load())
	if stale.Load() > 0 || atReader.Load() == 0 || behind.Load() == 0 {
		t.Errorf("%+v", f.stats())
	}
}

// A reader that goes away costs no read.
func TestReadsGoOnWithoutTheReader(t *testing.T) {
	f, reader := splitting(t)
	r := newRelay(t, reader)
	f.put(func(d *pooldir.Database) { d.Readers = []pooldir.Reader{{Addr: r.Addr().String()}} })
	c := f.connect()
	f.exec(c, "create table t (n int)")
	// The first may find the reader behind for longer than a read waits.
	for begun := time.Now(); one[string](f, c, where) != "on"; {
		if time.Since(begun) > 20*time.Second {
			t.Fatal("not at the reader")
		}
	}
	r.Close()
	r.cut()
	for i := range 50 {
		f.exec(c, "insert into t values ($1)", i)
		if got := one[int](f, c, "select count(*)::int from t"); got != i+1 {
			t.Fatal(got)
		}
	}
}

func TestParseLSN(t *testing.T) {
	for s, want := range map[string]uint64{"0/0": 0, "16/B374D848": 0x16B374D848, "": 0, "x/1": 0, "1/1FFFFFFFF": 0} {
		if got, err := parseLSN(s); got != want || (err == nil) != (want > 0 || s == "0/0") {
			t.Error(s, got, err)
		}
	}
}

// The same while connections to two readers, one of them behind, break again and again: no read fails, and
// none is stale.
func TestNobodyReadsLessWhileReadersBreak(t *testing.T) {
	f, first := splitting(t)
	near, far := newRelay(t, first), newRelay(t, standby(t, f.server, "recovery_min_apply_delay=4ms"))
	f.put(func(d *pooldir.Database) {
		d.Readers = []pooldir.Reader{{Addr: near.Addr().String()}, {Addr: far.Addr().String()}}
	})
	c := f.connect()
	f.exec(c, "create table pairs (client int primary key, n int)")
	for begun := time.Now(); one[string](f, c, where) != "on"; {
		if time.Since(begun) > 20*time.Second {
			t.Fatal("not at a reader")
		}
	}
	const clients, each = 12, 150
	var done, atReader atomic.Int64
	var all sync.WaitGroup
	for i := range clients {
		c := f.connect()
		f.exec(c, "insert into pairs values ($1, 0)", i)
		mode := modes[i%len(modes)]
		all.Go(func() {
			for n := 1; n <= each || n <= 10*each && atReader.Load() == 0; n++ { // a busy machine has readers behind for long
				if _, err := c.Exec(bg, "update pairs set n = $2 where client = $1", mode, i, n); err != nil {
					t.Error(err)
					return
				}
				got, readOnly := -1, ""
				if err := c.QueryRow(bg, "select n, current_setting('transaction_read_only') from pairs where client = $1", mode, i).Scan(&got, &readOnly); err != nil || got != n {
					t.Errorf("read %d after %d: %v", got, n, err)
					return
				}
				if readOnly == "on" {
					atReader.Add(1)
				}
				if done.Add(1)%100 == 0 {
					near.cut()
					far.cut()
				}
			}
		})
	}
	all.Wait()
	if t.Logf("%d pairs, %d of the reads at a reader", done.Load(), atReader.Load()); atReader.Load() == 0 {
		t.Errorf("%+v", f.stats())
	}
}
