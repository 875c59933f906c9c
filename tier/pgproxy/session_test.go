package pgproxy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tenfold/internal/pooldir"
)

var bg = context.Background()

func single(d *pooldir.Database) { d.Pool = 1 }

// await looks until ok; the state is the pool's, so there is nothing to wait on but it.
func (f *fixture) await(what string, ok func(Stats, pooldir.State) bool) {
	f.t.Helper()
	for begun := time.Now(); !ok(f.stats(), f.state()); {
		if time.Since(begun) > 20*time.Second {
			f.t.Fatalf("not %s: %+v %+v", what, f.stats(), f.state())
		}
	}
}

func unpinned(st Stats, _ pooldir.State) bool { return st.Pinned == 0 && st.Busy == 0 }
func pinned(st Stats, _ pooldir.State) bool   { return st.Pinned == 1 }

// Each statement keeps its client at its server, for the reason, and another lets it go.
func TestClientIsPinnedWhileTheSessionHoldsSomething(t *testing.T) {
	f := begin(t)
	f.exec(f.connect(), "create function locks() returns void language plpgsql as $$ begin perform pg_advisory_lock(7); end $$")
	for _, c := range []struct{ reason, pin, free string }{
		{"temporary table", "create temp table x (n int)", "drop table x"},
		{"temporary table", "begin; create temp table x (n int) on commit preserve rows; commit", "discard temp"},
		{"temporary table", "select 1 as n into temp x", "drop table x"},
		{"advisory lock", "select pg_advisory_lock(1)", "select pg_advisory_unlock(1)"},
		{"advisory lock", "do $$ begin perform pg_advisory_lock(7); end $$", "select pg_advisory_unlock_all()"},
		{"cursor with hold", "declare k cursor with hold for select 1", "close k"},
		{"listen", "listen news", "unlisten *"},
		{"prepare in SQL", "prepare p as select 1", "deallocate p"},
		{"prepare in SQL", "prepare p as select 1", "deallocate all"},
		{"load or session authorization", "load 'plpgsql'", "discard all"},
		{"set_config of a computed name", "select set_config('work' || '_mem', '5MB', false)", "discard all"},
	} {
		client := f.connect()
		if _, err := client.PgConn().Exec(bg, c.pin).ReadAll(); err != nil {
			t.Fatal(c.pin, err)
		}
		f.await("pinned by "+c.pin, pinned)
		if f.stats().Pins[c.reason] == 0 {
			t.Errorf("%s: %v", c.pin, f.stats().Pins)
		}
		if _, err := client.PgConn().Exec(bg, c.free).ReadAll(); err != nil {
			t.Fatal(c.free, err)
		}
		f.await("freed by "+c.free, unpinned)
		client.Close(bg)
	}
}

func TestWhatEndsWithTheTransactionPinsNothing(t *testing.T) {
	f := begin(t)
	c := f.connect()
	for _, sql := range []string{
		"begin; create temp table x (n int) on commit drop; insert into x values (1); commit",
		"begin; create temp table x (n int); rollback",
		"begin; select pg_advisory_xact_lock(1); commit",
		"begin; set local work_mem = '7MB'; commit",
		"select set_config('work_mem', '7MB', true)",
		"select 'create temp table' as \"listen\" -- prepare",
		"begin; declare k cursor for select 1; commit",
	} {
		if _, err := c.PgConn().Exec(bg, sql).ReadAll(); err != nil {
			t.Fatal(sql, err)
		}
		f.await("free after "+sql, unpinned)
	}
	if got := one[string](f, c, "show work_mem"); got == "7MB" {
		t.Error("the setting stayed")
	}
}

func TestSettingsFollowTheirClient(t *testing.T) {
	f := begin(t, single)
	a, b := f.connect(), f.connect()
	f.exec(a, "set search_path to pg_catalog, public")
	f.exec(a, "set time zone 'Europe/Berlin'")
	f.exec(a, "set my.tenant = 'o''neill\\'")
	f.exec(b, "set session statement_timeout = '77s'")
	for range 3 {
		if got := one[string](f, a, "select current_setting('search_path') || '|' || current_setting('timezone') || '|' || current_setting('my.tenant') || '|' || current_setting('statement_timeout')"); got != `pg_catalog, public|Europe/Berlin|o'neill\|0` {
			t.Fatal(got)
		}
		if got := one[string](f, b, "select current_setting('search_path') || '|' || coalesce(current_setting('my.tenant', true), '') || '|' || current_setting('statement_timeout')"); got != `"$user", public||77s` {
			t.Fatal(got)
		}
	}
	// What a transaction that was rolled back set is not the client's.
	tx, err := a.Begin(bg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(bg, "set work_mem = '9MB'"); err != nil {
		t.Fatal(err)
	}
	tx.Rollback(bg)
	one[int](f, b, "select 1")
	if got := one[string](f, a, "show work_mem"); got == "9MB" {
		t.Error(got)
	}
	// RESET goes back to the server's default, and to nothing of another's.
	f.exec(a, "reset all")
	if got := one[string](f, a, "show search_path"); got != `"$user", public` {
		t.Error(got)
	}
	if st := f.stats(); st.Pinned != 0 || st.Servers != 1 {
		t.Errorf("%+v", st)
	}
}

func TestStartupParametersAreTheClients(t *testing.T) {
	f := begin(t, single)
	a, err := pgx.Connect(bg, f.dsn()+"&search_path=pg_catalog&application_name=app&options=-c%20work_mem%3D6MB")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close(bg)
	b := f.connect()
	for range 2 {
		if got := one[string](f, a, "select current_setting('search_path') || current_setting('application_name') || current_setting('work_mem')"); got != "pg_catalogapp6MB" {
			t.Error(got)
		}
		if got := one[string](f, b, "show search_path"); got != `"$user", public` {
			t.Error(got)
		}
	}
	f.exec(a, "set search_path to public")
	f.exec(a, "reset search_path")
	if got := one[string](f, a, "show search_path"); got != "pg_catalog" {
		t.Error(got)
	}
	if _, err := pgx.Connect(bg, f.dsn()+"&work_mem=nonsense"); err == nil {
		c, _ := pgx.Connect(bg, f.dsn()+"&work_mem=nonsense")
		if _, err := c.Exec(bg, "select 1"); err == nil {
			t.Error("a setting that no server takes was taken")
		}
	}
}

func TestRoleFollowsItsClient(t *testing.T) {
	f := begin(t, single)
	a, b := f.connect(), f.connect()
	f.exec(a, "create role lesser")
	f.exec(a, "set role lesser")
	for range 2 {
		if got := one[string](f, b, "select current_user::text"); got != "test" {
			t.Fatal(got)
		}
		if got := one[string](f, a, "select current_user::text"); got != "lesser" {
			t.Fatal(got)
		}
	}
}

func TestNotificationsReachTheirListener(t *testing.T) {
	f := begin(t)
	a, b := f.connect(), f.connect()
	f.exec(a, "listen news")
	f.exec(b, "notify news, 'hello'")
	n, err := a.WaitForNotification(bg)
	if err != nil || n.Payload != "hello" {
		t.Fatal(n, err)
	}
}

// Two clients call different statements by one name.
func TestNamesOfStatementsDoNotClash(t *testing.T) {
	f := begin(t, single)
	a, b := f.connect(), f.connect()
	for c, sql := range map[*pgx.Conn]string{a: "select 1", b: "select 'two'"} {
		if _, err := c.PgConn().Prepare(bg, "s", sql, nil); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		for c, want := range map[*pgx.Conn]string{a: "1", b: "two"} {
			r := c.PgConn().ExecPrepared(bg, "s", nil, nil, nil).Read()
			if r.Err != nil || string(r.Rows[0][0]) != want {
				t.Fatal(r.Err, r.Rows)
			}
		}
	}
	// The unnamed one too stays, though another client had the server meanwhile.
	if _, err := a.PgConn().Prepare(bg, "", "select 11", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := b.PgConn().Prepare(bg, "", "select 22", nil); err != nil {
		t.Fatal(err)
	}
	for c, want := range map[*pgx.Conn]string{a: "11", b: "22"} {
		if r := c.PgConn().ExecPrepared(bg, "", nil, nil, nil).Read(); r.Err != nil || string(r.Rows[0][0]) != want {
			t.Fatal(r.Err, r.Rows)
		}
	}
	// A name that is taken, one that does not exist, one that was freed in SQL.
	var pe *pgconn.PgError
	if _, err := a.PgConn().Prepare(bg, "s", "select 3", nil); !errors.As(err, &pe) || pe.Code != "42P05" {
		t.Error(err)
	}
	if r := a.PgConn().ExecPrepared(bg, "none", nil, nil, nil).Read(); !errors.As(r.Err, &pe) || pe.Code != "26000" {
		t.Error(r.Err)
	}
	if _, err := a.PgConn().Exec(bg, "deallocate s").ReadAll(); err != nil {
		t.Fatal(err)
	}
	if r := a.PgConn().ExecPrepared(bg, "s", nil, nil, nil).Read(); !errors.As(r.Err, &pe) || pe.Code != "26000" {
		t.Error(r.Err)
	}
	if r := b.PgConn().ExecParams(bg, "deallocate s", nil, nil, nil, nil).Read(); r.Err != nil {
		t.Error(r.Err)
	}
	if _, err := b.PgConn().Prepare(bg, "s", "select 4", nil); err != nil {
		t.Error(err)
	}
	if _, err := b.PgConn().Exec(bg, "deallocate all").ReadAll(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.PgConn().Prepare(bg, "s", "select 5", nil); err != nil {
		t.Error(err)
	}
	// A Parse that fails takes no name.
	if _, err := b.PgConn().Prepare(bg, "bad", "selec", nil); err == nil {
		t.Error("prepared")
	}
	if _, err := b.PgConn().Prepare(bg, "bad", "select 6", nil); err != nil {
		t.Error(err)
	}
	if err := b.PgConn().Deallocate(bg, "bad"); err != nil {
		t.Error(err)
	}
	one[int](f, b, "select 1")
}

func TestMoreStatementsThanAServerKeeps(t *testing.T) {
	f := begin(t, single)
	c := f.connect()
	for i := range serverStatements + 50 {
		if _, err := c.PgConn().Prepare(bg, fmt.Sprint("s", i), fmt.Sprint("select ", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range []int{0, serverStatements + 49, 1, 25} {
		if r := c.PgConn().ExecPrepared(bg, fmt.Sprint("s", i), nil, nil, nil).Read(); r.Err != nil || string(r.Rows[0][0]) != fmt.Sprint(i) {
			t.Fatal(r.Err)
		}
	}
}

// Another client's DDL changes what a prepared statement gives: who prepares afresh sees nothing of it.
func TestOutdatedPlansAreMadeAnew(t *testing.T) {
	f := begin(t, single)
	a, b := f.connect(), f.connect()
	f.exec(a, "create table t (n int); insert into t values (1)")
	f.exec(a, "select * from t")
	one[int](f, b, "select n from t")
	f.exec(a, "alter table t add column m int default 2")
	d := f.connect() // prepares the same text, which the server has with the old shape
	rows, err := d.Query(bg, "select * from t")
	if err != nil {
		t.Fatal(err)
	}
	n := len(rows.FieldDescriptions())
	rows.Close()
	if rows.Err() != nil || n != 2 {
		t.Fatal(rows.Err(), n)
	}
}

func TestCopyBothWays(t *testing.T) {
	f := begin(t, single)
	c := f.connect()
	f.exec(c, "create table t (n int, s text)")
	rows := make([][]any, 20000)
	for i := range rows {
		rows[i] = []any{i, strings.Repeat("x", i%300)}
	}
	n, err := c.CopyFrom(bg, pgx.Identifier{"t"}, []string{"n", "s"}, pgx.CopyFromRows(rows))
	if err != nil || n != 20000 {
		t.Fatal(n, err)
	}
	var out strings.Builder
	if _, err := c.PgConn().CopyTo(bg, &out, "copy t to stdout"); err != nil || strings.Count(out.String(), "\n") != 20000 {
		t.Fatal(err)
	}
	if _, err := c.PgConn().CopyFrom(bg, strings.NewReader("nonsense\tx\n"+strings.Repeat("1\ty\n", 100000)), "copy t from stdin"); err == nil {
		t.Error("taken")
	}
	if got := one[int](f, f.connect(), "select count(*)::int from t"); got != 20000 {
		t.Error(got)
	}
	if got := one[int](f, c, "select length(repeat('y', 3000000))"); got != 3000000 {
		t.Error(got)
	}
	if got := one[string](f, c, "select repeat('y', 3000000)"); len(got) != 3000000 {
		t.Error(len(got))
	}
	// Messages that are taken as a whole, longer than what is read at once.
	if _, err := c.Exec(bg, "do $$ begin raise exception '%', repeat('long ', 60000); end $$"); err == nil || len(err.Error()) < 300000 {
		t.Error(len(err.Error()))
	}
	if _, err := c.Exec(bg, "do $$ begin raise notice '%', repeat('long ', 60000); end $$"); err != nil {
		t.Error(err)
	}
	if got := one[int](f, c, "select length($1)", strings.Repeat("z", 2000000)); got != 2000000 {
		t.Error(got)
	}
}

func TestPipelinesKeepTheirOrder(t *testing.T) {
	f := begin(t, single)
	c := f.connect()
	batch := &pgx.Batch{}
	for i := range 200 {
		batch.Queue("select $1::int + "+fmt.Sprint(i%7), i)
	}
	br := c.SendBatch(bg, batch)
	for i := range 200 {
		var n int
		if err := br.QueryRow().Scan(&n); err != nil || n != i+i%7 {
			t.Fatal(i, n, err)
		}
	}
	br.Close()
	// Syncs of their own, with an error between.
	p := c.PgConn().StartPipeline(bg)
	p.SendQueryParams("select 1", nil, nil, nil, nil)
	p.SendPipelineSync()
	p.SendQueryParams("select 1/0", nil, nil, nil, nil)
	p.SendQueryParams("select 2", nil, nil, nil, nil)
	p.SendPipelineSync()
	p.SendPrepare("late", "select 3", nil)
	p.SendQueryPrepared("late", nil, nil, nil)
	p.SendPipelineSync()
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		r, err := p.GetResults()
		if err != nil {
			got = append(got, "error")
			continue
		}
		if r == nil {
			break
		}
		switch r := r.(type) {
		case *pgconn.ResultReader:
			res := r.Read()
			if res.Err != nil {
				got = append(got, "error")
			} else {
				got = append(got, string(res.Rows[0][0]))
			}
		case *pgconn.PipelineSync:
			got = append(got, "sync")
		case *pgconn.StatementDescription:
			got = append(got, "described")
		}
		if len(got) > 20 {
			break
		}
	}
	if s := strings.Join(got, " "); s != "1 sync error sync described 3 sync" {
		t.Error(s)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestCancelReachesTheRightStatement(t *testing.T) {
	f := begin(t, single)
	c, other := f.connect(), f.connect()
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(bg, "select pg_sleep(60)")
		done <- err
	}()
	// A server that has not begun takes no notice of a cancel: the server itself says that it runs.
	direct := f.direct()
	for one[int](f, direct, "select count(*)::int from pg_stat_activity where state = 'active' and query like 'select pg_sleep%'") == 0 {
	}
	waits := make(chan error, 1)
	go func() {
		_, err := other.Exec(bg, "select 1")
		waits <- err
	}()
	f.await("waiting", func(st Stats, _ pooldir.State) bool { return st.Waiting == 1 })
	if err := c.PgConn().CancelRequest(bg); err != nil {
		t.Fatal(err)
	}
	var pe *pgconn.PgError
	if err := <-done; !errors.As(err, &pe) || pe.Code != "57014" {
		t.Fatal(err)
	}
	if err := <-waits; err != nil {
		t.Fatal(err)
	}
}

// Drivers take the end of the connection for the end of the matter, and send their next statement.
func TestWhoCancelsHearsWhenTheServerWasTold(t *testing.T) {
	f, r := relayed(t, single)
	c := f.connect()
	direct := f.direct()
	f.exec(direct, "select pg_advisory_lock(1)")
	done := async(c, "select pg_advisory_lock(1)", pgx.QueryExecModeSimpleProtocol)
	f.await("busy", func(st Stats, _ pooldir.State) bool { return st.Busy == 1 })
	r.mu.Lock() // the server hears of no connection more
	letOn := sync.OnceFunc(r.mu.Unlock)
	t.Cleanup(letOn)
	asked := make(chan error, 1)
	go func() { asked <- c.PgConn().CancelRequest(bg) }()
	f.await("cancelled", func(st Stats, _ pooldir.State) bool { return st.Cancelled == 1 })
	f.exec(direct, "select pg_advisory_unlock(1)")
	if err := <-done; err != nil {
		t.Error(err)
	}
	f.exec(c, "select 1")
	select {
	case err := <-asked:
		t.Fatal("told before the server was:", err)
	default:
	}
	letOn()
	if err := <-asked; err != nil {
		t.Error(err)
	}
	f.exec(c, "select 1")
}

func TestWhoWaitsTooLongIsToldWhy(t *testing.T) {
	f := begin(t, single)
	a, b := f.connect(), f.connect() // which may take longer than what follows is to wait
	f.put(func(d *pooldir.Database) { d.Wait = 50 * time.Millisecond })
	f.exec(a, "begin")
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		_, err := b.Exec(bg, "select 1", mode)
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "53300" || !strings.Contains(pe.Hint, "proxy.pool") {
			t.Fatal(err)
		}
	}
	f.exec(a, "commit")
	one[int](f, b, "select 1") // the connection goes on
}

func TestSequencesOfAnotherSessionAreNotTold(t *testing.T) {
	f := begin(t)
	a, b := f.connect(), f.connect()
	f.exec(a, "create sequence s")
	simple := pgx.QueryExecModeSimpleProtocol
	f.exec(b, "select nextval('s')", simple)
	f.exec(a, "select count(*) from pg_class", simple)
	var pe *pgconn.PgError
	if _, err := a.Exec(bg, "select lastval()", simple); !errors.As(err, &pe) || pe.Code != "55000" {
		t.Fatal(err)
	}
	f.exec(a, "select nextval('s')", simple)
	f.exec(a, "select lastval()", simple)
}

// A server that had a client's unnamed statement, and then another client, must not execute it in place of
// the one that the client prepared meanwhile elsewhere.
func TestUnnamedStatementIsTheLastOne(t *testing.T) {
	f := begin(t)
	a, b := f.connect(), f.connect()
	prepare := func(sql string) {
		t.Helper()
		if _, err := a.PgConn().Prepare(bg, "", sql, nil); err != nil {
			t.Fatal(err)
		}
	}
	prepare("select 'one'")
	run := func(sql string) { // as a named statement: a simple query would end the unnamed one
		t.Helper()
		if _, err := b.PgConn().Prepare(bg, sql, sql, nil); err != nil {
			t.Fatal(err)
		}
		if r := b.PgConn().ExecPrepared(bg, sql, nil, nil, nil).Read(); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	run("begin") // takes that server
	prepare("select 'two'")
	run("commit") // and gives it back last
	if r := a.PgConn().ExecPrepared(bg, "", nil, nil, nil).Read(); r.Err != nil || string(r.Rows[0][0]) != "two" {
		t.Fatalf("%q, %v", r.Rows, r.Err)
	}
}
