package pgproxy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tenfold/internal/enginetest"
	"tenfold/internal/pooldir"
)

const cacheIt = "/* tenfold:cache=1m */ "

// remembering is a pool with the query cache on.
func remembering(t testing.TB, change ...func(*pooldir.Database)) *fixture {
	t.Helper()
	u, err := url.Parse(enginetest.Postgres(t, "wal_level=logical"))
	if err != nil {
		t.Fatal(err)
	}
	return over(t, u.Host, append([]func(*pooldir.Database){func(d *pooldir.Database) { d.Cache, d.Pool = true, 8 }}, change...)...)
}

func (f *fixture) cacheState() pooldir.Cache { return *f.View()[f.db.ID].Cache }

// warm asks until the answer comes from the cache.
func (f *fixture) warm(c *pgx.Conn, sql string, args ...any) {
	f.t.Helper()
	for begun := time.Now(); ; {
		before := f.cacheState().Hits
		f.exec(c, sql, args...)
		if f.cacheState().Hits > before {
			return
		}
		if time.Since(begun) > 20*time.Second {
			f.t.Fatalf("%s is not cached: %+v, %q", sql, f.cacheState(), f.uncached(sql))
		}
	}
}

// within asks until what was just acknowledged is seen: no answer that was asked for after the bound is old.
func (f *fixture) within(what string, seen func() bool) {
	f.t.Helper()
	for acknowledged := time.Now(); ; {
		asked := time.Now()
		if seen() {
			return
		}
		if late := asked.Sub(acknowledged); late > 50*time.Millisecond {
			f.t.Fatalf("%s is not seen %s after it was acknowledged", what, late)
		}
	}
}

// uncached is why a statement is not cached.
func (f *fixture) uncached(sql string) string {
	text := newSeen().normalize([]byte(sql))
	for _, s := range f.View()[f.db.ID].Statements {
		if s.Query == text {
			return s.Uncached
		}
	}
	return ""
}

func TestAnswersComeFromTheCacheUntilTheirRowsChange(t *testing.T) {
	f := remembering(t)
	c, other, direct := f.connect(), f.connect(), f.direct()
	f.exec(c, "create table items (id int primary key, name text, at timestamptz default now())")
	f.exec(c, "insert into items values (1, 'one'), (2, 'two')")
	f.exec(c, "create view names as select id, upper(name) as name from items")
	sql := cacheIt + "select name from names where id = $1"
	for _, mode := range modes {
		f.warm(c, sql, mode, 1)
		if got := one[string](f, c, sql, mode, 1); got != "ONE" {
			t.Fatalf("%v: %q", mode, got)
		}
		// A session sees its own write at once.
		for i := range 20 {
			want := fmt.Sprintf("N%d", i)
			f.exec(c, "update items set name = $1 where id = 1", mode, want)
			if got := one[string](f, c, sql, mode, 1); got != want {
				t.Fatalf("%v: %q after writing %q", mode, got, want)
			}
		}
		f.warm(c, sql, mode, 1)
		// What another wrote, here past the pool, after the bound at the latest.
		f.exec(direct, "update items set name = 'one' where id = 1")
		f.within("a row", func() bool { return one[string](f, other, sql, mode, 1) == "ONE" })
	}
	if n := f.cacheState(); n.Hits == 0 || n.Stored == 0 || n.Invalidations == 0 || n.State != "on" {
		t.Errorf("%+v", n)
	}
	// Sessions that see other things by the same text have answers of their own.
	f.exec(c, "create schema other")
	f.exec(c, "create table other.items (id int primary key, name text)")
	plain := cacheIt + "select name from items where id = 1"
	f.warm(c, plain)
	f.exec(other, "set search_path to other")
	if err := other.QueryRow(bg, plain).Scan(new(string)); !errors.Is(err, pgx.ErrNoRows) {
		t.Error(err)
	}
	f.exec(other, "set search_path to public")
	zoned := cacheIt + "select at::text from items where id = 1"
	f.warm(other, zoned)
	utc := one[string](f, other, zoned)
	f.exec(other, "set time zone 'Asia/Tokyo'")
	if got := one[string](f, other, zoned); got == utc {
		t.Error("an answer of another time zone")
	}
	// TRUNCATE and DDL end what is kept; a transaction asks the server.
	f.warm(c, plain)
	f.exec(direct, "truncate items")
	f.within("TRUNCATE", func() bool { return errors.Is(c.QueryRow(bg, plain).Scan(new(string)), pgx.ErrNoRows) })
	f.exec(c, "insert into items values (1, 'x')")
	viewed := cacheIt + "select name from (select * from names) n where id = 1"
	f.warm(c, viewed)
	f.exec(direct, "create or replace view names as select id, lower(name) || 'y' as name from items")
	f.within("DDL", func() bool { return one[string](f, c, viewed) == "xy" })
}

func TestWhatMayNotBeCachedSaysWhy(t *testing.T) {
	f := remembering(t)
	c := f.connect()
	for _, sql := range []string{
		"create table items (id int primary key, name text)", "create table loose (id int)", "create unlogged table quick (id int primary key)",
		"create table secret (id int primary key)", "alter table secret enable row level security",
		"create materialized view stale as select * from items", "create view hidden as select count(*) from secret",
		"create view clocked as select *, now() as at from items",
	} {
		f.exec(c, sql)
	}
	for sql, want := range map[string]string{
		"select id from loose":                                   "primary key",
		"select id from quick":                                   "unlogged",
		"select id from secret":                                  "row-level security",
		"select * from hidden":                                   "row-level security",
		"select * from stale":                                    "materialized",
		"select * from clocked":                                  "depends on more: now",
		"select relname from pg_class":                           "catalogs",
		"select count(*), current_date from items":               "another each time",
		"select ctid from items":                                 "system column",
		"select name from items where name > 'now'":              "now",
		"select name::timestamptz from items":                    "now",
		"select version() from items":                            "depends on more",
		"select 1 as a":                                          "no table",
		"select id from items tablesample bernoulli (50)":        "",
		"select nosuch from items":                               "PostgreSQL says",
		"select oid::regclass from (select 1::oid as oid) x":     "catalogs",
		"select id from items order by id for update":            "",
		"select nextval('x') from items":                         "",
		"with x as (delete from items returning id) table x":     "",
		"select id from items where name = current_setting('x')": "depends on more",
	} {
		why := ""
		for begun := time.Now(); time.Since(begun) < 10*time.Second; {
			c.Exec(bg, cacheIt+sql, pgx.QueryExecModeSimpleProtocol)
			if why = f.uncached(cacheIt + sql); why != "" && !strings.HasPrefix(why, "it begins") && !strings.HasPrefix(why, "no statement") || want == "" {
				break
			}
		}
		if want = strings.TrimPrefix(want, "depends on more: "); !strings.Contains(why, want) {
			t.Errorf("%s: %q, want %q", sql, why, want)
		}
	}
	if n := f.cacheState(); n.Stored != 0 {
		t.Errorf("%+v", n)
	}
	// UPDATEs of what is not published go on.
	f.exec(c, "insert into loose values (1)")
	f.exec(c, "update loose set id = 2")
}

func TestByFingerprintAndNotInATransaction(t *testing.T) {
	f := remembering(t)
	c := f.connect()
	f.exec(c, "create table items (id int primary key, name text)")
	f.exec(c, "insert into items values (1, 'one')")
	sql := "select name from items where id = $1"
	f.exec(c, sql, 1)
	fingerprint := ""
	for _, s := range f.View()[f.db.ID].Statements {
		if strings.HasPrefix(s.Query, "select name") {
			fingerprint = s.Fingerprint
		}
	}
	f.put(func(d *pooldir.Database) { d.CacheFor = map[string]time.Duration{fingerprint: time.Minute} })
	f.warm(c, sql, 1)
	before := f.cacheState().Hits
	f.exec(c, "begin")
	f.exec(c, sql, 1)
	f.exec(c, "commit")
	if f.cacheState().Hits != before {
		t.Error("a transaction was answered from the cache")
	}
	// Another server: nothing of the old one is left.
	f.put(func(d *pooldir.Database) { d.Epoch++ })
	if n := f.cacheState(); n.Entries != 0 || n.State == "on" {
		t.Errorf("%+v", n)
	}
	f.warm(c, sql, 1)
	// A table that loses its identity is published no more, and its UPDATEs go on.
	f.exec(f.direct(), "alter table items drop constraint items_pkey")
	for begun := time.Now(); ; {
		if _, err := f.direct().Exec(bg, "update items set name = 'two'"); err == nil {
			break
		} else if pe := (*pgconn.PgError)(nil); !errors.As(err, &pe) || time.Since(begun) > 10*time.Second {
			t.Fatal(err)
		}
		f.exec(c, sql, 1)
	}
}

func TestCacheIsOffWithoutLogicalWAL(t *testing.T) {
	f := begin(t, func(d *pooldir.Database) { d.Cache = true })
	c := f.connect()
	f.exec(c, "create table items (id int primary key)")
	for begun := time.Now(); !strings.Contains(f.cacheState().State, "wal_level"); {
		f.exec(c, cacheIt+"select id from items")
		if time.Since(begun) > 20*time.Second {
			t.Fatalf("%+v", f.cacheState())
		}
	}
}

// The oracle: writers count up; whoever reads knows what was acknowledged when.
func TestNoAnswerIsOlderThanPromised(t *testing.T) { oracle(t, 6000) }

// oracle runs random reads and writes of 8 sessions. Each row's value only grows, and only its writer
// changes it: an answer below the session's own last write, or below what was acknowledged when the read
// began less the bound, is wrong.
func oracle(t *testing.T, operations int) {
	f := remembering(t)
	const rows, sessions = 16, 8
	c := f.connect()
	f.exec(c, "create table ledger (id int primary key, n bigint not null, owner int)")
	f.exec(c, "insert into ledger select i, 0, i % 8 from generate_series(0, 15) i")
	f.warm(c, cacheIt+"select count(*) from ledger") // it follows the server, which may take as long as all that is below
	began := f.cacheState().Hits
	type ack struct {
		at time.Time
		n  int64
	}
	var (
		mu                   sync.Mutex
		acks                 [rows][]ack // under mu, of each row
		wg                   sync.WaitGroup
		wrong, reads, writes int
	)
	acknowledged := func(row int, before time.Time) (n int64) { // under mu
		for i := len(acks[row]) - 1; i >= 0; i-- {
			if acks[row][i].at.Before(before) {
				return acks[row][i].n
			}
		}
		return 0
	}
	for s := range sessions {
		conn := f.connect()
		if s == 0 {
			conn = f.direct() // who writes past the pool
		}
		mode := modes[s%len(modes)]
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(s), 7))
			own := [rows]int64{}
			for range operations / sessions {
				row := r.IntN(rows)
				if r.IntN(50) == 0 || s == 0 && r.IntN(25) == 0 {
					row = row/sessions*sessions + s
					own[row]++
					if _, err := conn.Exec(bg, "update ledger set n = $1 where id = $2", mode, own[row], row); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					acks[row] = append(acks[row], ack{time.Now(), own[row]})
					writes++
					mu.Unlock()
					continue
				}
				mu.Lock()
				floor := acknowledged(row, time.Now().Add(-50*time.Millisecond))
				mu.Unlock()
				if row%sessions == s {
					floor = own[row]
				}
				var n int64
				if err := conn.QueryRow(bg, cacheIt+"select n from ledger where id = $1", mode, row).Scan(&n); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				reads++
				if n < floor {
					wrong++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	n := f.cacheState()
	t.Logf("%d reads, %d writes: %d wrong; %+v", reads, writes, wrong, n)
	if wrong > 0 {
		t.Errorf("%d answers were older than promised", wrong)
	}
	if n.Hits == began {
		t.Error("nothing came from the cache")
	}
}
