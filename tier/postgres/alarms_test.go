package postgres

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"tenfold"
)

func TestADiskIsFullLate(t *testing.T) {
	for _, x := range []struct {
		total, free float64
		full        bool
	}{{10 << 30, 2 << 30, false}, {10 << 30, 1 << 29, true}, {2 << 40, 6 << 30, false}, {2 << 40, 4 << 30, true}, {1 << 30, 0, true}} {
		if got := fullness(x.total, x.free) > usualLimits.full; got != x.full {
			t.Errorf("%.1f GB of %.1f free: %v", x.free/(1<<30), x.total/(1<<30), got)
		}
	}
}

func TestAnAlarmStaysUntilItIsClearlyBetter(t *testing.T) {
	for _, x := range []struct {
		on    bool
		value float64
		want  bool
	}{{false, 95, false}, {true, 95, true}, {true, 89, false}, {false, 101, true}} {
		if got := beyond(x.on, x.value, 100); got != x.want {
			t.Errorf("%+v: %v", x, got)
		}
	}
}

// Each alarm is said once, by a daemon that comes back too, and when it is over.
func TestAlarmsAreSaidOnceAndCleared(t *testing.T) {
	f := begin(t)
	f.Postgres = nil
	stop := f.open(t)
	f.start(t, tenfold.Database{})
	f.await(t, "ready", ready)
	app := f.connect(t)
	defer app.Close(context.Background()) // one that nobody holds is closed by the garbage collector
	stop()                                // from here on nobody looks but this test
	stop = f.open(t)                      // a daemon that comes back, and is gone again
	stop()
	key := id.String()
	r, _ := f.get(key)
	c, err := connect(t.Context(), r, "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	if _, err := c.Exec(t.Context(), "select pg_create_physical_replication_slot('forgotten', true); create table t as select generate_series(1, 10000)"); err != nil {
		t.Fatal(err)
	}
	if _, err := app.Exec(t.Context(), "begin; select 1"); err != nil {
		t.Fatal(err)
	}
	look := func(l limits) []string {
		t.Helper()
		r, _ := f.get(key)
		found, err := f.ailing(t.Context(), c, r, l)
		if err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		f.texts = nil
		f.mu.Unlock()
		f.ring(key, found)
		for k, x := range found {
			if x.text == "" || x.hint == "" {
				t.Errorf("%s: %+v", k, x)
			}
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		return slices.Clone(f.texts)
	}
	never := limits{age: 1e18, retained: 1e18, unbounded: 1e18, running: 1e6 * time.Hour, full: 1e18}
	if said := look(never); len(said) != 0 {
		t.Errorf("without any trouble: %q", said)
	}
	for _, x := range []struct {
		what string
		l    limits
	}{
		{"transaction IDs of database main_db are 0.00 billion old", limits{age: 1, retained: 1e18, unbounded: 1e18, running: 1e6 * time.Hour, full: 1e18}},
		{"slot forgotten keeps", limits{age: 1e18, retained: 1e-9, unbounded: 1e18, running: 1e6 * time.Hour, full: 1e18}},
		{"of main_db is idle in transaction for", limits{age: 1e18, retained: 1e18, unbounded: 1e18, running: 0, full: 1e18}},
		{"nearly full", limits{age: 1e18, retained: 1e18, unbounded: 1e18, running: 1e6 * time.Hour, full: 0}},
	} {
		said := look(x.l)
		if !slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, x.what) && !strings.HasPrefix(s, "over: ") }) {
			t.Errorf("%s: %q", x.what, said)
		}
		if again := look(x.l); len(again) != 0 {
			t.Errorf("%s is said again: %q", x.what, again)
		}
		f.open(t)() // another daemon over the same records
		if again := look(x.l); len(again) != 0 {
			t.Errorf("%s is said again by the next daemon: %q", x.what, again)
		}
		if d, err := f.Database(t.Context(), id); err != nil || !slices.ContainsFunc(d.Alarms, func(s string) bool { return strings.Contains(s, x.what) }) {
			t.Errorf("%q %v", d.Alarms, err)
		}
		if over := look(never); !slices.ContainsFunc(over, func(s string) bool { return strings.HasPrefix(s, "over: ") && strings.Contains(s, x.what) }) {
			t.Errorf("%s is over: %q", x.what, over)
		}
	}
}
