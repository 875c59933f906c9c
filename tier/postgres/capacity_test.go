package postgres

import (
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tenfold"
	"tenfold/internal/pooldir"
)

func TestCapacityFollowsTheLoadAndNeverFlaps(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		least, most := float64(rng.IntN(4))/2, 0.5+float64(rng.IntN(16))/2
		most = max(least, most)
		s := scaling{}
		now := time.Unix(0, 0)
		mean := rng.Float64() * most * acuCores
		changes := 0
		for second := range 4 * 3600 { // steady load with noise
			now = now.Add(time.Second)
			before := s.ACU
			s = s.next(now, mean*(0.9+0.2*rng.Float64()), least, most)
			if s.ACU < max(least, acuStep) || s.ACU > max(most, acuStep) {
				t.Fatalf("%g is not within %g-%g", s.ACU, least, most)
			}
			if second > 3600 && s.ACU != before {
				changes++
			}
		}
		if changes > 12 {
			t.Errorf("%d changes in 3 hours of steady load of %.2f cores, %g-%g", changes, mean, least, most)
		}
		// What is needed is there with the next look.
		if up := s.next(now.Add(time.Second), most*acuCores, least, most); up.ACU != max(most, acuStep) {
			t.Errorf("at full load %g of %g", up.ACU, most)
		}
	}
}

func TestReadersComeWhenTheyAreCrowdedAndGoWhenOneLessWouldDo(t *testing.T) {
	now := time.Unix(0, 0)
	var c crowd
	have := 0
	run := func(span time.Duration, busy func() int) (changes int) {
		for end := now.Add(span); now.Before(end); now = now.Add(time.Second) {
			before := have
			if have, c = c.next(now, have, busy(), 20, 0, 3); have != before {
				changes++
			}
			if have < 0 || have > 3 {
				t.Fatalf("%d readers", have)
			}
		}
		return changes
	}
	if run(time.Hour, func() int { return 3 }); have != 0 {
		t.Errorf("%d readers for 3 busy connections", have)
	}
	if run(20*time.Second, func() int { return 20 }); have != 0 {
		t.Error("a burst makes a reader")
	}
	if run(time.Hour, func() int { return 35 }); have != 3 {
		t.Errorf("%d readers for 35 busy connections of 20 each", have)
	}
	if n := run(3*time.Hour, func() int { return 15 }); have != 2 || n != 1 {
		t.Errorf("%d readers for 15 busy connections, %d changes", have, n)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	if n := run(6*time.Hour, func() int { return 10 + rng.IntN(12) }); n > 2 {
		t.Errorf("%d changes at steady load", n)
	}
	if run(2*time.Hour, func() int { return 0 }); have != 0 {
		t.Errorf("%d readers for nobody", have)
	}
}

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
	db := tenfold.Database{Capacity: tenfold.Capacity{Max: 1}, Readers: tenfold.Bounds{Max: 1}}
	f.start(t, db)
	f.await(t, "ready", ready)
	if _, err := f.connect(t).Exec(t.Context(), `create table t (n int, pad text); alter table t alter pad set storage external;
		insert into t select g, repeat(md5(g::text), 60) from generate_series(1, 480000) g; create index on t (n)`); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MB", du(f.dataOf(id, 1))>>20)
	at := time.Now()
	db.Readers.Min = 1
	f.start(t, db)
	f.settled(t, 1)
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
