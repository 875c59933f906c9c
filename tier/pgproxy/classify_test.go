package pgproxy

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		sql   string
		want  traits
		names string
	}{
		{"select abalance from accounts where aid = 1", 0, ""},
		{"  -- listen x\n/* set /* nested */ a = b */ SELECT 'listen', $$set x$$, E'it''s \\' set', \"set\" ; ; ", 0, ""},
		{"with a as (select 1) select count(*) from a", 0, ""},
		{"with a as (delete from t returning *) select * from a", writes, ""},
		{"select * from t for update", writes, ""},
		{"select * into temporary t2 from t", writes | leavesTemp, ""},
		{"select f(1)", writes, ""},
		{"select PG_Advisory_Lock(1)", writes | leavesLock, ""},
		{`select "pg_advisory_lock"(1)`, writes | leavesLock, ""},
		{"select pg_advisory_xact_lock(1)", writes, ""},
		{"set search_path to a, b", setsNames, "search_path"},
		{"SET SESSION Time Zone 'UTC'", setsNames, "timezone"},
		{"set local work_mem = '1MB'", 0, ""},
		{"set transaction isolation level serializable", 0, ""},
		{"set my.Var = 1; set \"my\".other to 2", setsNames, "my.var my.other"},
		{"set names 'utf8'", setsNames, "client_encoding"},
		{"set session characteristics as transaction read only", setsNames, "default_transaction_isolation default_transaction_read_only default_transaction_deferrable"},
		{"reset all", setsNames | resetsAll, ""},
		{"reset work_mem", setsNames, "work_mem"},
		{"select set_config('a.b', $1, false)", writes | setsNames, "a.b"},
		{"select set_config('a.b', f(1, 2), true)", writes, ""},
		{"select set_config($1, $2, false)", writes | setsUnknown, ""},
		{"select set_config('a' || 'b', '', false)", writes | setsUnknown, ""},
		{"create temp table t (n int)", writes | leavesTemp, ""},
		{"create or replace temporary view v as select 1", writes | leavesTemp, ""},
		{"create global temp table t ()", writes | leavesTemp, ""},
		{"create table pg_temp.t ()", writes | leavesTemp, ""},
		{"create table t ()", writes, ""},
		{"declare c cursor with hold for select 1", writes | leavesCursor, ""},
		{"declare c cursor without holdings for select 1", writes, ""},
		{"listen x", writes | leavesListen, ""},
		{"unlisten *", writes | mayFree, ""},
		{"prepare p (int) as select $1", writes | leavesPrepare, ""},
		{"prepare transaction 'x'", writes | controls | commits, ""},
		{"deallocate prepare all", writes | deallocs | mayFree, ""},
		{"discard all", writes | discards | mayFree, ""},
		{"begin; insert into t values (1); commit", writes | controls | commits | mayFree, ""},
		{"rollback to savepoint a", controls | rollsTo | mayFree, ""},
		{"do $$ begin end $$", writes | mayLeave, ""},
		{"(select 1) union (select 2)", 0, ""},
		{"select currval('s')", writes | leavesSequence, ""},
		{"explain analyze delete from t", writes, ""},
		{"load 'x'", writes | leavesForever, ""},
		{"'", writes, ""}, {"$a$", writes, ""}, {"/*", 0, ""}, {"\"", writes, ""}, {"", 0, ""},
	} {
		got := classify([]byte(c.sql), false)
		if got.traits != c.want || strings.Join(got.names, " ") != c.names {
			t.Errorf("%s: %b %v, want %b %s", c.sql, got.traits, got.names, c.want, c.names)
		}
	}
	if k := classify([]byte(`deallocate "A b"`), false); k.dealloc != "A b" || k.statements != 1 {
		t.Errorf("%+v", k)
	}
	if k := classify([]byte(`select '\'; listen x; --'`), true); k.traits != 0 {
		t.Errorf("%+v", k)
	}
}

func FuzzClassify(f *testing.F) {
	for _, s := range []string{"select 1", "set a.b = 'x'; select $t$ $t$", "select set_config('a', (1), false)", "declare c cursor", `u&"x`, "e'\\"} {
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, sql []byte, backslash bool) {
		k := classify(sql, backslash)
		// What stands before it in a comment, or between statements, changes nothing.
		again := classify(append([]byte("/* listen */ ; -- set x = 1\n"), sql...), backslash)
		if k.traits != again.traits || !slices.Equal(k.names, again.names) || k.statements != again.statements {
			t.Errorf("%q: %+v, after a comment %+v", sql, k, again)
		}
		l := lexer{sql: sql, backslash: backslash}
		for last := -1; ; last = l.pos {
			kind, _ := l.next()
			if kind == tokEnd {
				break
			}
			if l.pos <= last {
				t.Fatalf("%q: no progress at %d", sql, l.pos)
			}
		}
	})
}

func TestQueueIsFairAndKnowsWhoseTimeIsOver(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var q queue
	c := make([]*client, 5)
	for i := range c {
		c[i] = &client{since: start.Add(time.Duration(i) * time.Second)}
		q.push(c[i])
	}
	if q.expired(start.Add(999*time.Millisecond), time.Second, time.Time{}) != nil || q.expired(start.Add(time.Second), time.Second, time.Time{}) != c[0] {
		t.Error("the first one's time ends after a second")
	}
	// After a hold the wait counts anew.
	if q.expired(start.Add(time.Second), time.Second, start.Add(500*time.Millisecond)) != nil {
		t.Error("the hold counted as waiting")
	}
	q.remove(c[2])
	q.remove(c[2])
	q.remove(c[4])
	q.pushFront(c[2])
	var order []*client
	for x := q.pop(); x != nil; x = q.pop() {
		order = append(order, x)
	}
	if !slices.Equal(order, []*client{c[2], c[0], c[1], c[3]}) || q.size != 0 || q.pop() != nil {
		t.Error(order)
	}
}

func TestReplayMakesOneSessionOfAnother(t *testing.T) {
	in := interned{}
	a := in.get([]setting{{"search_path", `"$user", public`}, {"role", "lesser"}})
	b := in.get([]setting{{"my.x", `it's \`}})
	if got := replay(a, b); got != `RESET ROLE;RESET "search_path";SELECT pg_catalog.set_config('my.x', E'it''s \\',false);` {
		t.Error(got)
	}
	if got := replay(b, a); got != `RESET "my"."x";SELECT pg_catalog.set_config('search_path','"$user", public',false);SELECT pg_catalog.set_config('role','lesser',false);` {
		t.Error(got)
	}
	if in.get([]setting{{"role", "lesser"}, {"search_path", `"$user", public`}}) != a || in.get(nil) != nil {
		t.Error("equal settings are not one")
	}
}

func BenchmarkClassify(b *testing.B) {
	sql := []byte("SELECT abalance FROM pgbench_accounts WHERE aid = 123456;")
	for b.Loop() {
		classify(sql, false)
	}
}
