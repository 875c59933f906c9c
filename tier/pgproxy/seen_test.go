package pgproxy

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tenfold/internal/pooldir"
)

const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestCutComment(t *testing.T) {
	for _, c := range []struct{ sql, rest, trace string }{
		{"select 1", "select 1", ""},
		{"select 1 /*traceparent='" + parent + "'*/", "select 1", parent},
		{"select 1/*controller='a%20b',traceparent='" + parent + "',framework='django%3A5'*/ ; ", "select 1", parent},
		{"select 1 /* db_driver='x', route='/a\\'b' */", "select 1", ""},
		{"select 1 /*traceparent='nonsense'*/", "select 1", ""},
		{"select 1 /* said by me */", "select 1 /* said by me */", ""},
		{"select 1 /*+ Leading(a b) */", "select 1 /*+ Leading(a b) */", ""},
		{"select 1 /*a=b*/", "select 1 /*a=b*/", ""},
		{"select 1 /*a='b*/", "select 1 /*a='b*/", ""},
		{"/*a='b'*/ select 1", "/*a='b'*/ select 1", ""},
		{"select '/*a=''b''*/'", "select '/*a=''b''*/'", ""},
		{"/*a='b'*/", "", ""}, {"*/", "*/", ""}, {"/*/", "/*/", ""}, {"", "", ""},
	} {
		if rest, trace := cutComment([]byte(c.sql)); string(rest) != c.rest || trace != c.trace {
			t.Errorf("%q: %q %q", c.sql, rest, trace)
		}
	}
}

// FuzzSeen: whatever a client sends, what it is counted as is bounded, and a comment that is cut changes
// neither what the statement does nor its form.
func FuzzSeen(f *testing.F) {
	f.Add([]byte("select 1 /*traceparent='"+parent+"'*/"), false)
	f.Add([]byte("insert into t values ('a', 1), ($1, $2)"), true)
	f.Add([]byte("select $$ /*a='b'*/"), false)
	f.Fuzz(func(t *testing.T, sql []byte, backslash bool) {
		n := newSeen()
		now := time.Unix(1, 0)
		k := n.look(sql, backslash, now)
		if len(k.seen.Query) > maxText || len(n.byText) > 1 {
			t.Fatal(len(k.seen.Query), len(n.byText))
		}
		rest, _ := cutComment(sql)
		if !bytes.HasPrefix(sql, rest) {
			t.Fatalf("%q of %q", rest, sql)
		}
		for range 3 {
			if again := n.look(sql, backslash, now); again.traits != k.traits || again.seen != k.seen {
				t.Fatalf("%q: %+v, then %+v", sql, k, again)
			}
		}
	})
}

func TestStatementsThatDifferInLiteralsAreOne(t *testing.T) {
	n := newSeen()
	of := func(sql string) string { k := n.look([]byte(sql), false, time.Unix(1, 0)); return k.seen.Query }
	for _, same := range [][]string{
		{"select a from t where b = 1", "select a from t where b = 'x''y'", "select  a from t\n where b=  -2.5e3", "select a from t where b = $$x$$ -- why"},
		{"select a from t where b in (1)", "select a from t where b in (1, 2, 3)", "select a from t where b in ('a', 2)"},
		{"insert into t values (1, 'a')", "insert into t values (2, 'b')"},
	} {
		for _, sql := range same {
			if got, want := of(sql), of(same[0]); got != want {
				t.Errorf("%q: %q, not %q", sql, got, want)
			}
			if strings.ContainsAny(of(sql), "123'") {
				t.Errorf("%q shows literals: %q", sql, of(sql))
			}
		}
	}
	if of("select a from t where b = 1") == of("select a from t where c = 1") || of("select $1") == of("select $2") {
		t.Error("different statements are one")
	}
}

func TestStatementsAreBounded(t *testing.T) {
	n := newSeen()
	now := time.Unix(1, 0)
	kept := n.look([]byte("select one_that_stays"), false, now)
	kept.seen.Calls = 1000
	calls := uint64(1000)
	for i := range 5 * maxSeen {
		now = now.Add(time.Second / 100)
		k := n.look([]byte("select "+strings.Repeat("a", i%97)+"x"+fmt.Sprint(i)+"y from t"+strings.Repeat("b", i)[:i%50]), false, now)
		n.statement(&k).Calls++
		calls++
	}
	sum := uint64(0)
	for _, s := range n.all() {
		sum += s.Calls
	}
	if sum != calls || len(n.byText) > maxSeen || len(n.byForm) > 4*maxSeen+1 {
		t.Errorf("%d calls of %d; %d texts, %d forms", sum, calls, len(n.byText), len(n.byForm))
	}
	if again := n.look([]byte("select one_that_stays"), false, now); again.seen.Calls != 1000 {
		t.Error("the one with most calls was forgotten")
	}
	for i := range 2 * newPerSecond { // at once
		n.look([]byte(fmt.Sprintf("select at_once_%s", strings.Repeat("z", i))), false, now)
	}
	if last := n.look([]byte("select at_once_and_too_late"), false, now); last.seen != &n.other {
		t.Error(last.seen.Query)
	}
}

// statement is what the pool has of the one whose text contains part.
func (f *fixture) statement(part string) pooldir.Statement {
	f.t.Helper()
	for _, s := range f.View()[f.db.ID].Statements {
		if strings.Contains(s.Query, part) {
			return s
		}
	}
	return pooldir.Statement{}
}

func TestStatementsAreSeen(t *testing.T) {
	f := begin(t, single)
	c := f.connect()
	f.exec(c, "create table seen (n int primary key, s text)")
	for i, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeDescribeExec} {
		tag := fmt.Sprintf("mode%c", 'a'+i)
		insert := "insert into seen as " + tag + " select g, $1::text from generate_series($2::int, $2::int + 9) g"
		f.exec(c, insert, mode, "some text", 100*i)
		if _, err := c.Exec(bg, insert, mode, "some text", 100*i); err == nil {
			t.Fatal("twice the same key")
		}
		if s := f.statement("as " + tag); s.Calls != 2 || s.Rows != 10 || s.Errors["23"] != 1 || s.Failed() != 1 || s.Received == 0 || s.Executed <= 0 || s.Longest > s.Executed {
			t.Errorf("%v: %+v", mode, s)
		}
		rows, err := c.Query(bg, "select s from seen "+tag+" where n >= $1", mode, 100*i)
		if err != nil {
			t.Fatal(err)
		}
		rows.Close()
		if s := f.statement("seen " + tag + " where"); s.Calls != 1 || s.Rows != 10*1 || s.Sent < 10*9 {
			t.Errorf("%v: %+v", mode, s)
		}
		f.exec(c, "delete from seen", mode)
	}
	// A text that is wrong counts as well.
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeDescribeExec} {
		c.Exec(bg, "select nothing from nowhere", mode)
	}
	if s := f.statement("nowhere"); s.Calls != 2 || s.Errors["42"] != 2 {
		t.Errorf("%+v", s)
	}
	// COPY, and a pipeline.
	if _, err := c.PgConn().CopyFrom(bg, strings.NewReader("1\ta\n2\tb\n"), "copy seen from stdin"); err != nil {
		t.Fatal(err)
	}
	if s := f.statement("copy seen"); s.Calls != 1 || s.Rows != 2 || s.Received < 8 {
		t.Errorf("%+v", s)
	}
	b := &pgx.Batch{}
	for i := range 5 {
		b.Queue("select piped from (select $1::int) p(piped)", i)
	}
	if err := c.SendBatch(bg, b).Close(); err != nil {
		t.Fatal(err)
	}
	if s := f.statement("piped"); s.Calls != 5 || s.Rows != 5 {
		t.Errorf("%+v", s)
	}
}

func TestWaitIsApartFromExecution(t *testing.T) {
	f := begin(t, single)
	a, b := f.connect(), f.connect()
	f.exec(a, "begin")
	waits := make(chan error, 1)
	go func() {
		_, err := b.Exec(bg, "select 'waited'")
		waits <- err
	}()
	f.await("waiting", func(st Stats, _ pooldir.State) bool { return st.Waiting == 1 })
	f.exec(a, "select pg_sleep(0.05)")
	f.exec(a, "commit")
	if err := <-waits; err != nil {
		t.Fatal(err)
	}
	s := f.statement("select ?")
	if s.Calls != 1 || s.Waited < 50*time.Millisecond {
		t.Errorf("%+v", s)
	}
	if sleep := f.statement("pg_sleep"); sleep.Executed < 50*time.Millisecond || sleep.Waited != 0 {
		t.Errorf("%+v", sleep)
	}
}

func TestTraceOfTheRequestIsNotedAndStripped(t *testing.T) {
	f := begin(t)
	c := f.connect()
	trace := func(i int) string { return fmt.Sprintf("00-%032x-%016x-01", i+1, i+1) }
	for i := range 20 { // as ORMs do: each text is another
		name := fmt.Sprintf("s%d", i)
		if _, err := c.PgConn().Prepare(bg, name, "select traced from (select $1::int) p(traced) /*route='%2F',traceparent='"+trace(i)+"'*/", nil); err != nil {
			t.Fatal(err)
		}
		if r := c.PgConn().ExecPrepared(bg, name, [][]byte{[]byte("7")}, nil, nil).Read(); r.Err != nil || string(r.Rows[0][0]) != "7" {
			t.Fatal(r.Err)
		}
	}
	if s := f.statement("traced"); s.Calls != 20 || s.Trace != trace(19) {
		t.Errorf("%+v", s)
	}
	if n := f.stats().Parsed; n > 2 {
		t.Errorf("%d statements prepared at servers, all are one", n)
	}
	f.exec(c, "select 1 as simple /*traceparent='"+trace(77)+"'*/", pgx.QueryExecModeSimpleProtocol)
	if s := f.statement("simple"); s.Trace != trace(77) {
		t.Errorf("%+v", s)
	}
}

// sheet asks the admin database.
func (f *fixture) sheet(admin *pgconn.PgConn, command string) (columns []string, rows [][]string) {
	f.t.Helper()
	rs, err := admin.Exec(bg, command).ReadAll()
	if err != nil || len(rs) != 1 {
		f.t.Fatal(command, err, len(rs))
	}
	for _, d := range rs[0].FieldDescriptions {
		columns = append(columns, d.Name)
	}
	for _, r := range rs[0].Rows {
		var row []string
		for _, v := range r {
			row = append(row, string(v))
		}
		rows = append(rows, row)
	}
	return columns, rows
}

func TestAdminDatabaseShowsWhatThePoolDoes(t *testing.T) {
	f := begin(t)
	c := f.connect()
	f.exec(c, "create temp table kept_by_this (n int)")
	f.await("pinned", pinned)
	admin, err := pgconn.Connect(bg, strings.Replace(f.dsn(), "/postgres?", "/tenfold?", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(bg)
	_, help := f.sheet(admin, "show help;")
	for _, row := range help {
		columns, rows := f.sheet(admin, row[0])
		for _, r := range rows {
			if len(r) != len(columns) {
				t.Errorf("%s: %v for %v", row[0], r, columns)
			}
		}
		if len(rows) == 0 && row[0] != "SHOW SLOW" {
			t.Errorf("%s: nothing", row[0])
		}
	}
	if _, rows := f.sheet(admin, "SHOW PINS"); len(rows) != 1 || rows[0][0] != "temporary table" || rows[0][1] != "1" || !strings.Contains(rows[0][4], "kept_by_this") {
		t.Errorf("%q", rows)
	}
	f.exec(c, "drop table kept_by_this")
	f.await("free", unpinned)
	if _, rows := f.sheet(admin, "SHOW PINS"); len(rows) != 1 || rows[0][1] != "0" || rows[0][2] != "1" {
		t.Errorf("%q", rows)
	}
	// What it does not know is an error, and the session goes on.
	for _, sql := range []string{"select 1", "show nothing", "drop table t"} {
		if _, err := admin.Exec(bg, sql).ReadAll(); err == nil {
			t.Error(sql, "was taken")
		}
	}
	if r := admin.ExecParams(bg, "show pools", nil, nil, nil, nil).Read(); r.Err == nil {
		t.Error("the extended protocol was taken")
	}
	f.sheet(admin, "show pools")
	if _, err := pgconn.Connect(bg, strings.NewReplacer("/postgres?", "/tenfold?", ":secret@", ":wrong@").Replace(f.dsn())); err == nil {
		t.Error("a wrong password was taken")
	}
}

func BenchmarkLook(b *testing.B) {
	n := newSeen()
	now := time.Unix(1, 0)
	same := []byte("SELECT abalance FROM pgbench_accounts WHERE aid = $1;")
	b.Run("same", func(b *testing.B) {
		for b.Loop() {
			n.look(same, false, now)
		}
	})
	b.Run("literals", func(b *testing.B) {
		sql := []byte("SELECT abalance FROM pgbench_accounts WHERE aid = 1000000;")
		for i := 0; b.Loop(); i++ {
			for j, d := len(sql)-2, i; j > len(sql)-8; j, d = j-1, d/10 {
				sql[j] = byte('0' + d%10)
			}
			n.look(sql, false, now)
		}
	})
	b.Run("classify only", func(b *testing.B) {
		for b.Loop() {
			classify(same, false)
		}
	})
}
