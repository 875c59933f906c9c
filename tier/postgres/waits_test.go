package postgres

import (
	"slices"
	"strings"
	"testing"
	"time"

	"tenfold"
	"tenfold/internal/dbinfo"
	"tenfold/internal/pooldir"
)

func TestWaitsAreAveragesOfTenMinutes(t *testing.T) {
	var s sampler
	now := time.Unix(1e9, 0)
	for i := range 2000 { // the last at now
		at := now.Add(time.Duration(i-1999) * time.Second)
		x := sample{time: at, active: map[string]int{"CPU": 1}}
		if i < 1000 {
			x.active["Lock: tuple"] = 9
		}
		if now.Sub(at) < 30*time.Second {
			x.active["IO: DataFileRead"] = 4
		}
		s.keep(x)
	}
	got := s.waits(now)
	if got.Samples != samplesKept || !got.Since.Equal(now.Add(-(samplesKept-1)*time.Second)) || len(got.Active) != 2 {
		t.Fatalf("%+v", got)
	}
	if cpu := got.Active[0]; cpu.On != "CPU" || cpu.All != 1 || cpu.Minute != 1 {
		t.Errorf("%+v", cpu)
	}
	if io := got.Active[1]; io.All != 4*30.0/samplesKept || io.Minute != 4*30.0/61 {
		t.Errorf("%+v", io)
	}
	if quiet := s.waits(now.Add(time.Hour)); quiet.Samples != 0 || len(quiet.Active) != 0 {
		t.Errorf("%+v", quiet)
	}
}

// Who waits for a lock is seen; and to look keeps nothing awake.
func TestSessionsAreSampledAndADatabaseSleepsAllTheSame(t *testing.T) {
	f := begin(t)
	f.start(t, tenfold.Database{Capacity: tenfold.Capacity{Max: 1}, Suspend: time.Millisecond})
	f.await(t, "ready", ready)
	a, b := f.connect(t), f.connect(t)
	for _, sql := range []string{"create table t as select 1 n", "begin", "update t set n = 2"} {
		if _, err := a.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() {
		_, err := b.Exec(t.Context(), "update t set n = 3")
		done <- err
	}()
	var seen dbinfo.Waits
	f.await(t, "seen", func(tenfold.Resource) bool {
		var err error
		if seen, err = f.Waits(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(seen.Active, func(w dbinfo.Wait) bool { return strings.HasPrefix(w.On, "Lock: ") && w.Minute > 0 && w.All > 0 })
	})
	if _, err := a.Exec(t.Context(), "rollback"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	key := id.String()
	f.await(t, "asleep", func(r tenfold.Resource) bool {
		f.Report(pooldir.Report{Databases: map[string]pooldir.State{key: {}}})
		units, _ := f.status(t.Context(), key)
		return ready(r) && len(units) == 0 && f.Pool()[0].Suspended
	})
	if got := f.sampled(); len(got) != 0 {
		t.Errorf("it sleeps, and %v are sampled", got)
	}
	f.await(t, "left alone", func(tenfold.Resource) bool {
		s := f.sampler(key)
		s.busy.Lock()
		defer s.busy.Unlock()
		return s.conn == nil
	})
	if got, err := f.Waits(t.Context(), id); err != nil || got.Samples < seen.Samples {
		t.Errorf("what was seen is forgotten: %+v %v", got, err)
	}
	if units, _ := f.status(t.Context(), key); len(units) != 0 {
		t.Error("to ask for waits wakes it")
	}
}
