//go:build scenario

package postgres

import (
	"os"
	"slices"
	"tenfold"
	"tenfold/internal/pooldir"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestABusyDatabaseGetsMoreWithoutARestart(t *testing.T) {
	f := begin(t)
	f.start(t, tenfold.Database{Capacity: tenfold.Capacity{Min: 0.5, Max: 2}})
	f.await(t, "ready", ready)
	c := f.connect(t)
	ask := func() (mem string) {
		t.Helper()
		if err := c.QueryRow(t.Context(), "select current_setting('effective_cache_size')").Scan(&mem); err != nil {
			t.Fatal(err)
		}
		return mem
	}
	if got := ask(); got != "768MB" {
		t.Errorf("at half an ACU effective_cache_size is %s", got)
	}
	for begun := time.Now(); ask() == "768MB"; {
		if _, err := c.Exec(t.Context(), "select sum(sqrt(g)) from generate_series(1, 1000000) g"); err != nil {
			t.Fatal(err)
		}
		if time.Since(begun) > 30*time.Second {
			t.Fatal("it gets no more")
		}
	}
}

func TestADatabaseThatNobodyAsksSleepsAndIsWoken(t *testing.T) {
	f := begin(t)
	f.start(t, tenfold.Database{Capacity: tenfold.Capacity{Max: 1}, Suspend: time.Millisecond})
	f.await(t, "ready", ready)
	if _, err := f.connect(t).Exec(t.Context(), "create table t as select 42 n"); err != nil {
		t.Fatal(err)
	}
	key := id.String()
	asleep := func() bool {
		units, _ := f.status(t.Context(), key)
		return len(units) == 0 && f.Pool()[0].Suspended
	}
	f.Report(pooldir.Report{Databases: map[string]pooldir.State{key: {Busy: map[string]int{f.Pool()[0].Primary: 1}}}})
	if f.idle(key, f.records.All()[key].whole(), time.Now()) {
		t.Fatal("it would sleep although something is under way")
	}
	f.await(t, "asleep", func(r tenfold.Resource) bool {
		f.Report(pooldir.Report{Databases: map[string]pooldir.State{key: {}}})
		return ready(r) && asleep()
	})
	at := time.Now()
	f.Report(pooldir.Report{Databases: map[string]pooldir.State{key: {Clients: 1, Waiting: 1, Wake: true}}})
	var n int
	for n != 42 {
		url, err := f.Field(t.Context(), id, tenfold.FieldURL)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := pgx.Connect(t.Context(), url); err == nil {
			c.QueryRow(t.Context(), "select n from t").Scan(&n)
			c.Close(t.Context())
		}
		if time.Since(at) > 30*time.Second {
			t.Fatal("it does not wake")
		}
	}
	t.Logf("first row %s after the first client", time.Since(at))
}

// The figures that are published, of a database of 1 GB: LARGE=1 go test -v -run OfAGigabyte ./tier/postgres
func TestReaderAndWakeOfAGigabyte(t *testing.T) {
	if os.Getenv("LARGE") == "" {
		t.Skip("LARGE=1 runs it")
	}
	f := begin(t)
	db := tenfold.Database{Capacity: tenfold.Capacity{Max: 8}, Readers: tenfold.Bounds{Max: 1}}
	f.start(t, db)
	f.await(t, "ready", ready)
	if _, err := f.connect(t).Exec(t.Context(), `create table t (n int, pad text); alter table t alter pad set storage external;
		insert into t select g, repeat(md5(g::text), 60) from generate_series(1, 480000) g; create index on t (n)`); err != nil {
		t.Fatal(err)
	}
	// A gigabyte at rest: what was just written is not on disk yet, and a copy begins with a checkpoint.
	r, _ := f.get(id.String())
	c, err := connect(t.Context(), r, "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	if _, err := c.Exec(t.Context(), "checkpoint"); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MB", du(f.dataOf(id, 1))>>20)
	at := time.Now()
	db.Readers.Min = 1
	f.start(t, db)
	f.reached(t, 1, false)
	t.Logf("a reader after %s", time.Since(at))
	db.Readers = tenfold.Bounds{}
	db.Suspend = time.Millisecond
	f.start(t, db)
	f.settled(t, 0)
	key := id.String()
	var wakes []time.Duration
	for range 20 {
		f.await(t, "asleep", func(tenfold.Resource) bool {
			f.Report(pooldir.Report{Databases: map[string]pooldir.State{key: {}}})
			units, _ := f.status(t.Context(), key)
			return len(units) == 0
		})
		at := time.Now()
		var n int
		for n != 4711 {
			f.Report(pooldir.Report{Databases: map[string]pooldir.State{key: {Waiting: 1, Wake: true}}})
			url, _ := f.Field(t.Context(), id, tenfold.FieldURL)
			if c, err := pgx.Connect(t.Context(), url); err == nil {
				c.QueryRow(t.Context(), "select n from t where n = 4711").Scan(&n)
				c.Close(t.Context())
			}
		}
		wakes = append(wakes, time.Since(at))
	}
	slices.Sort(wakes)
	t.Logf("first row after %v", wakes)
}
