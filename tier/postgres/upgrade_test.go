//go:build scenario

package postgres

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tenfold"
	"tenfold/internal/dbinfo"
	"tenfold/internal/engines"
	"tenfold/internal/enginetest"
	"tenfold/internal/keeper/keepertest"
)

// twoMajors are the oldest and the newest that this machine has.
func twoMajors(t *testing.T) (from, to int) {
	t.Helper()
	for _, e := range engines.AllPostgres(t.Context(), enginetest.Folder()) {
		if to == 0 {
			to = e.Major
		}
		from = e.Major
	}
	if n, err := strconv.Atoi(os.Getenv("UPGRADE_TO")); err == nil {
		to = n
	}
	if from == to {
		enginetest.OneMajor(t, to)
	}
	return from, to
}

// client does one statement after another at whoever is the primary, as through the pool: none is begun while
// clients are held.
type client struct {
	f      *fixture
	n      atomic.Int64
	failed atomic.Int64
	worst  atomic.Int64
	stop   func()
}

func (f *fixture) drive(t *testing.T) *client {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &client{f: f}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var conn *pgx.Conn
		var at string
		var password string
		asked := time.Now()
		for ctx.Err() == nil {
			d := f.Pool()[0]
			password = d.Users[0].Password
			if d.Paused || d.Primary == "" {
				if conn != nil {
					conn.Close(ctx)
					conn = nil
				}
				<-time.After(time.Millisecond)
				continue
			}
			if conn == nil || d.Primary != at {
				if conn != nil {
					conn.Close(ctx)
				}
				at = d.Primary
				var err error
				if conn, err = pgx.Connect(ctx, "postgresql://main_db:"+password+"@"+at+"/main_db?sslmode=disable"); err != nil {
					conn = nil
					continue
				}
			}
			if f.Pool()[0].Paused { // it may have been since: the real pool asks and begins at once
				continue
			}
			n := c.n.Load() + 1
			_, err := conn.Exec(ctx, "insert into w (n) values ($1) on conflict do nothing", n) // it may be the second time: it was cut off behind it
			if err == nil {
				_, err = conn.Exec(ctx, "update w set seen = seen + 1 where n = $1", n)
			}
			if err != nil {
				if ctx.Err() == nil && !f.Pool()[0].Paused {
					c.failed.Add(1)
					t.Log(err)
				}
				conn.Close(ctx)
				conn = nil
				continue
			}
			c.worst.Store(max(c.worst.Load(), int64(time.Since(asked))))
			asked = time.Now()
			c.n.Store(n)
		}
		if conn != nil {
			conn.Close(context.Background())
		}
	}()
	c.stop = func() { cancel(); <-done }
	t.Cleanup(c.stop)
	return c
}

// app connects as the app does.
func (f *fixture) app(t *testing.T) *pgx.Conn {
	t.Helper()
	var d = f.Pool()[0]
	for begun := time.Now(); d.Primary == "" || d.Paused; d = f.Pool()[0] {
		if time.Since(begun) > 30*time.Second {
			t.Fatal("no primary")
		}
		<-time.After(5 * time.Millisecond)
	}
	c, err := pgx.Connect(t.Context(), "postgresql://main_db:"+d.Users[0].Password+"@"+d.Primary+"/main_db?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

const upgradeSchema = `
	create table w (n bigint primary key, seen int not null default 0);
	create table parted (at int, v text, primary key (at)) partition by range (at);
	create table parted_1 partition of parted for values from (0) to (100);
	create table parted_2 partition of parted for values from (100) to (1000);
	insert into parted select g, 'p' || g from generate_series(1, 500) g;
	create table log (line text, at timestamptz default now());
	insert into log select 'line ' || g from generate_series(1, 1000) g;
	create unlogged table seen (n int primary key); insert into seen select generate_series(1, 50);
	create type mood as enum ('glad', 'sad');
	create table people (id serial primary key, name text unique, m mood, boss int references people, doc jsonb, twice int generated always as (length(name) * 2) stored);
	insert into people (name, m, doc) select 'n' || g, 'glad', '{"a": [1, 2]}' from generate_series(1, 20000) g;
	update people set boss = 1 where id > 1;
	create index on people using gin (doc);
	create function shout() returns trigger language plpgsql as $$ begin new.name := upper(new.name); return new; end $$;
	create trigger shout before insert on people for each row execute function shout();
	create materialized view glad as select count(*) n from people where m = 'glad';
	create view names as select name from people;
	create sequence tickets start 1000; select nextval('tickets'), nextval('tickets');
	select lo_from_bytea(4711, 'a large one');
	create schema other; create table other.t (id uuid primary key default gen_random_uuid()); insert into other.t default values;
	alter role main_db set statement_timeout = '77s'`

func begun(t *testing.T, from int) *fixture {
	t.Helper()
	f := &fixture{house: keepertest.Start(t), pooled: true, engines: enginetest.Folder()}
	f.open(t)
	f.start(t, tenfold.Database{Major: from})
	f.await(t, "ready", ready)
	if _, err := f.app(t).Exec(t.Context(), upgradeSchema, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	return f
}

// facts are what must be the same on both sides.
func facts(t *testing.T, c *pgx.Conn) map[string]string {
	t.Helper()
	out := map[string]string{}
	for name, sql := range map[string]string{
		"log": "select count(*)::text from log", "seen": "select count(*)::text from seen", "parted": "select sum(at)::text || count(*) from parted",
		"people": "select md5(string_agg(p::text, ',' order by id)) from people p", "glad": "select n::text from glad", "blob": "select convert_from(lo_get(4711), 'utf8')",
		"names": "select count(*)::text from names", "other": "select string_agg(id::text, ',') from other.t", "timeout": "show statement_timeout",
	} {
		var s string
		if err := c.QueryRow(t.Context(), sql).Scan(&s); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out[name] = s
	}
	return out
}

func TestAnUpgradeIsRehearsedSwitchedAndGoneBackFrom(t *testing.T) {
	from, to := twoMajors(t)
	f := begun(t, from)
	before := facts(t, f.app(t))

	told, err := f.Upgrade(t.Context(), id, to, UpgradeOptions{Rehearse: true})
	if err != nil {
		f.dump(t)
		t.Fatalf("%v %+v", err, told)
	}
	if !told.Rehearsed || told.Rows < 20000 || len(told.Skipped) != 3 || told.Pause == 0 {
		t.Errorf("%+v", told)
	}
	show(t, told)
	if units, _ := f.status(t.Context(), id.String()); len(units) != 1 {
		t.Errorf("a rehearsal leaves %d servers", len(units))
	}

	drv := f.drive(t)
	told, err = f.Upgrade(t.Context(), id, to, UpgradeOptions{})
	if err != nil {
		f.dump(t)
		t.Fatal(err)
	}
	show(t, told)
	if held := told.Steps[len(told.Steps)-1]; held.Took > time.Second {
		t.Errorf("%s took %s", held.What, held.Took)
	}
	c := f.app(t)
	var version string
	var wal int
	if err := c.QueryRow(t.Context(), "select current_setting('server_version_num'), (select count(*) from pg_publication)").Scan(&version, &wal); err != nil || !strings.HasPrefix(version, strconv.Itoa(to)) {
		t.Fatal(version, err)
	}
	for k, v := range facts(t, c) {
		if before[k] != v {
			t.Errorf("%s: %s became %s", k, before[k], v)
		}
	}
	var next int
	if err := c.QueryRow(t.Context(), "select nextval('tickets')").Scan(&next); err != nil || next != 1002 {
		t.Errorf("the sequence goes on at %d %v", next, err)
	}
	if _, err := c.Exec(t.Context(), "insert into people (name, m) values ('later', 'sad'); insert into log (line) values ('later'); update other.t set id = gen_random_uuid(); select lo_from_bytea(4712, 'later')", pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	more(t, drv, 200)

	// A daemon that dies meanwhile, and the manifest as it was, change nothing.
	f.start(t, tenfold.Database{Major: from, Settings: map[string]string{"work_mem": "6MB"}})
	f.await(t, "ready again", func(r tenfold.Resource) bool { return ready(r) && r.Serving == r.Goal })

	told, err = f.Back(t.Context(), id)
	if err != nil {
		f.dump(t)
		t.Fatal(err)
	}
	show(t, told)
	c = f.app(t)
	if err := c.QueryRow(t.Context(), "select current_setting('server_version_num')").Scan(&version); err != nil || !strings.HasPrefix(version, strconv.Itoa(from)) {
		t.Fatal(version, err)
	}
	var n, lines, late int
	if err := c.QueryRow(t.Context(), "select (select count(*) from people where name = 'LATER'), (select count(*) from log), nextval('tickets')").Scan(&n, &lines, &late); err != nil || n != 1 || lines != 1001 || late != 1003 {
		t.Errorf("after the way back: %d %d %d %v", n, lines, late, err)
	}
	more(t, drv, 50)
	drv.stop()
	var rows, seen int64
	if err := c.QueryRow(t.Context(), "select count(*), sum(seen) from w").Scan(&rows, &seen); err != nil || rows < drv.n.Load() || seen < drv.n.Load() {
		t.Errorf("%d of %d acknowledged rows are there, %d updates: %v", rows, drv.n.Load(), seen, err)
	}
	if drv.failed.Load() > 0 {
		t.Errorf("%d statements failed", drv.failed.Load())
	}
	t.Logf("%d writes, none lost, the longest took %s", drv.n.Load(), time.Duration(drv.worst.Load()))
}

func more(t *testing.T, c *client, n int64) {
	t.Helper()
	from := c.n.Load()
	for begun := time.Now(); c.n.Load() < from+n; <-time.After(time.Millisecond) {
		if time.Since(begun) > 60*time.Second {
			c.f.dump(t)
			t.Fatal("no write is acknowledged")
		}
	}
}

func show(t *testing.T, u dbinfo.Upgrade) {
	t.Helper()
	for _, s := range u.Steps {
		t.Logf("  %s  %s", s.Took.Round(time.Millisecond), s.What)
	}
	t.Logf("  %s in all, %s of them held", u.Total.Round(time.Millisecond), u.Pause.Round(time.Millisecond))
}

func TestAnUpgradeIsRefusedWithItsReason(t *testing.T) {
	from, to := twoMajors(t)
	f := begun(t, from)
	if _, err := f.Upgrade(t.Context(), id, from, UpgradeOptions{}); err == nil || !strings.Contains(err.Error(), "an upgrade leads to a newer one") {
		t.Error(err)
	}
	if _, err := f.Back(t.Context(), id); err == nil || !strings.Contains(err.Error(), "no upgrade to go back from") {
		t.Error(err)
	}
	// The manifest asks for another major: it is not started, and said what to do.
	f.start(t, tenfold.Database{Major: to})
	r := f.await(t, "refused", func(r tenfold.Resource) bool { return r.Failed != "" })
	if !strings.Contains(r.Reason, "its data is of PostgreSQL") || !strings.Contains(r.Hint, "tenfold db upgrade") {
		t.Errorf("%q %q", r.Reason, r.Hint)
	}
	f.start(t, tenfold.Database{Major: from})
	f.await(t, "ready", ready)
	c := f.app(t)
	if _, err := c.Exec(t.Context(), "create table big as select g, repeat('x', 2000) pad from generate_series(1, 60000) g; alter table big alter pad set storage external", pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	_, err := f.Upgrade(t.Context(), id, to, UpgradeOptions{})
	if err == nil || !strings.Contains(err.Error(), "public.big") {
		t.Error(err)
	}
	if _, err := c.Exec(t.Context(), "alter table big replica identity full"); err != nil {
		t.Fatal(err)
	}
	// A migration during the copy.
	altered := make(chan error, 1)
	url := c.Config().ConnString()
	go func() {
		for !slices.ContainsFunc(f.events(), func(s string) bool { return strings.Contains(s, "the schema is there") }) {
			<-time.After(time.Millisecond)
		}
		c, err := pgx.Connect(context.Background(), url) // the other one ended with the restart
		if err == nil {
			_, err = c.Exec(context.Background(), "alter table people add column late int")
			c.Close(context.Background())
		}
		altered <- err
	}()
	_, err = f.Upgrade(t.Context(), id, to, UpgradeOptions{})
	if err == nil || !strings.Contains(err.Error(), "table public.people") {
		f.dump(t)
		t.Error(err)
	}
	if err := <-altered; err != nil {
		t.Error(err)
	}
	// Everything is as before.
	if _, err := f.app(t).Exec(t.Context(), "insert into w values (-1, 0)"); err != nil {
		t.Error(err)
	}
	if units, _ := f.status(t.Context(), id.String()); len(units) != 1 {
		t.Errorf("it leaves %d servers", len(units))
	}
}

// Backups from before an upgrade are restored as what they are.
func TestARestoreReachesBackBeforeAnUpgrade(t *testing.T) {
	from, to := twoMajors(t)
	f := &fixture{house: keepertest.Start(t), pooled: true, engines: enginetest.Folder()}
	f.open(t)
	d := tenfold.Database{Major: from, Backups: &tenfold.Backups{Keep: 24 * time.Hour, Every: 24 * time.Hour}}
	f.start(t, d)
	f.await(t, "ready", ready)
	f.backedUpOnce(t)
	if _, err := f.app(t).Exec(t.Context(), "create table t (n int primary key); insert into t values (1)", pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	f.arrived(t, before.Add(time.Second))
	if _, err := f.app(t).Exec(t.Context(), "insert into t values (2)"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Upgrade(t.Context(), id, to, UpgradeOptions{}); err != nil {
		f.dump(t)
		t.Fatal(err)
	}
	d.Major = to
	f.start(t, d)
	var list []dbinfo.Backup
	for begun := time.Now(); len(list) < 2; <-time.After(20 * time.Millisecond) { // one since
		list, _ = f.Backups(t.Context(), id)
		if time.Since(begun) > 60*time.Second {
			f.dump(t)
			t.Fatalf("%+v", list)
		}
	}
	if !strings.Contains(list[1].Fault, "before an upgrade") {
		t.Errorf("%+v", list)
	}
	made, err := f.Restore(t.Context(), id, before)
	if err != nil {
		f.dump(t)
		t.Fatal(err)
	}
	r, _ := f.get(made.String())
	c, err := connect(t.Context(), r, role(made))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	var n int
	var version string
	if err := c.QueryRow(t.Context(), "select count(*), current_setting('server_version_num') from t").Scan(&n, &version); err != nil || n != 1 || !strings.HasPrefix(version, strconv.Itoa(from)) {
		t.Errorf("%d rows, version %s, %v", n, version, err)
	}
	if err := f.Finish(t.Context(), id); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(f.dataOf(id, 1)); err == nil {
		t.Error("the old data is there after --finish")
	}
}

func (f *fixture) events() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.texts)
}

// What takes a restart waits for the window that the manifest names, and is done at once by who asks.
func TestARestartWaitsForItsWindow(t *testing.T) {
	f := &fixture{house: keepertest.Start(t), pooled: true}
	f.open(t)
	closed := tenfold.Window{Day: int(time.Now().UTC().Add(72 * time.Hour).Weekday()), From: time.Hour, To: 2 * time.Hour}
	d := tenfold.Database{Window: &closed}
	f.start(t, d)
	f.await(t, "ready", ready)
	pid := f.pid(t, 1)
	d.Settings = map[string]string{"max_connections": "60", "work_mem": "7MB"}
	want := f.start(t, d)
	r := f.await(t, "served", func(r tenfold.Resource) bool { return ready(r) && r.Serving == want })
	if !strings.Contains(r.Note, "a restart for max_connections waits for "+closed.String()) || f.pid(t, 1) != pid {
		t.Errorf("%q", r.Note)
	}
	ask := func() (most, mem string) {
		if err := f.app(t).QueryRow(t.Context(), "select current_setting('max_connections'), current_setting('work_mem')").Scan(&most, &mem); err != nil {
			t.Fatal(err)
		}
		return most, mem
	}
	if most, mem := ask(); most != "100" || mem != "7MB" {
		t.Errorf("%s connections, work_mem %s", most, mem)
	}
	held, err := f.Restart(t.Context(), id)
	if err != nil || held == 0 {
		t.Fatal(held, err)
	}
	if most, _ := ask(); most != "60" {
		t.Errorf("%s connections after the restart", most)
	}
	// In an open window it is done unasked.
	open := tenfold.Window{Day: tenfold.Daily, From: 0, To: 24*time.Hour - 1}
	d.Window = &open
	d.Settings = map[string]string{"max_connections": "70"}
	f.start(t, d)
	for begun := time.Now(); ; <-time.After(20 * time.Millisecond) {
		var most string // a connection past the pool is cut off by the restart
		if c, err := pgx.Connect(t.Context(), "postgresql://main_db:"+f.Pool()[0].Users[0].Password+"@"+address(f.records.All()[id.String()].port())+"/main_db?sslmode=disable"); err == nil {
			c.QueryRow(t.Context(), "show max_connections").Scan(&most)
			c.Close(t.Context())
		}
		if most == "70" {
			break
		}
		if time.Since(begun) > 30*time.Second {
			f.dump(t)
			t.Fatal("it is not restarted in its window")
		}
	}
}

// A newer release of the major is taken by a switchover to a reader that runs it, or by a restart.
func TestANewerReleaseIsTaken(t *testing.T) {
	for readers := range 2 {
		f := &fixture{house: keepertest.Start(t), pooled: true}
		f.open(t)
		f.start(t, tenfold.Database{Readers: tenfold.Bounds{Min: readers, Max: readers}})
		r := f.settled(t, readers)
		if err := f.records.Change(id.String(), func(x *record) { x.Version = "9.9" }); err != nil { // it ran before the package was upgraded
			t.Fatal(err)
		}
		if _, err := f.app(t).Exec(t.Context(), "create table w (n bigint primary key, seen int default 0)"); err != nil {
			t.Fatal(err)
		}
		drv := f.drive(t)
		more(t, drv, 20)
		told, err := f.UpgradeMinor(t.Context(), id)
		if err != nil || told.From != "9.9" || told.To != r.Version || len(told.Steps) != 1 {
			f.dump(t)
			t.Fatalf("%+v %v", told, err)
		}
		more(t, drv, 20)
		drv.stop()
		now, _ := f.get(id.String())
		if now.Version != r.Version || int(now.Epoch-r.Epoch) != readers || drv.failed.Load() > 0 {
			t.Errorf("version %s, epoch %d → %d, %d statements failed", now.Version, r.Epoch, now.Epoch, drv.failed.Load())
		}
		show(t, told)
	}
}
