package compute

import (
	"slices"
	"testing"
	"time"

	"tenfold"
	"tenfold/internal/keeper"
	"tenfold/tier/compute/judge"
)

// until steps on until ok, and says how long it took.
func (w *world) until(t *testing.T, most time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	begun := w.now
	for !ok() {
		if w.now.Sub(begun) > most {
			t.Fatalf("%s: not after %s: %+v\nlast: %v", what, most, w.rec, w.log[max(0, len(w.log)-10):])
		}
		w.step()
	}
	return w.now.Sub(begun)
}

func TestCanaryGetsAShareUntilItIsJudged(t *testing.T) {
	w := newWorld(1)
	w.strategy = tenfold.StrategyCanary
	w.goal("v1", 4, false)
	w.settle(t, 1000)
	w.goal("v2", 4, false)
	w.rec.Goal.Spec.Bake = 2 * time.Minute // longer than the deadline, which does not count it
	w.until(t, time.Minute, "a canary", func() bool { return w.taking("v2") > 0 })
	for range 800 {
		w.step()
		if w.taking("v2") != 1 || w.taking("v1") != 4 || w.rec.Serving.Version != "v1" {
			t.Fatalf("while it is tried out: %+v", w.rec.Tasks)
		}
	}
	w.until(t, 2*time.Minute, "passed by time", func() bool { return w.rec.Deploy.Passed == passedTime })
	w.until(t, time.Minute, "the switch", func() bool { return w.rec.Serving.Version == "v2" })
	if w.taking("v2") != 4 || w.taking("v1") != 0 || w.serving("v1") != 4 {
		t.Errorf("after the switch: %+v", w.rec.Tasks)
	}
	w.settle(t, 2000)
	if w.serving("v1") != 0 || len(w.rec.Proven) != 2 {
		t.Errorf("at the end: %+v", w.rec)
	}

	// What has served before is not tried out: going back to it is a matter of a start.
	w.goal("v1", 4, false)
	if took := w.until(t, time.Minute, "back", func() bool { return w.rec.Serving.Version == "v1" }); took > 5*time.Second {
		t.Errorf("going back took %s", took)
	}
}

func TestACanaryThatIsWorseGoesAtOnce(t *testing.T) {
	for _, strategy := range []string{tenfold.StrategyCanary, tenfold.StrategyRolling, tenfold.StrategyBlueGreen} {
		w := newWorld(2)
		w.strategy = strategy
		w.goal("v1", 3, false)
		w.settle(t, 1000)
		w.bad["v2"] = "worse"
		w.goal("v2", 3, false)
		w.until(t, time.Minute, strategy+": given up", func() bool { return w.rec.Failed != "" })
		if w.rec.Serving.Version != "v1" || w.taking("v1") != 3 || w.taking("v2") != 0 {
			t.Errorf("%s: %+v", strategy, w.rec.Tasks)
		}
		w.settle(t, 1000)
		if len(w.rec.Tasks) != 3 {
			t.Errorf("%s: %+v", strategy, w.rec.Tasks)
		}
	}
}

// A person goes back while the old tasks are warm: none has to start.
func TestGoingBackWhileOldTasksAreWarm(t *testing.T) {
	w := newWorld(3)
	w.goal("v1", 2, false)
	w.settle(t, 1000)
	w.goal("v2", 2, false)
	w.until(t, time.Minute, "the switch", func() bool { return w.rec.Watch != nil })
	last := w.rec.LastTask
	w.goal("v1", 2, false)
	w.step()
	if w.rec.Serving.Version != "v1" || w.taking("v1") != 2 || w.rec.LastTask != last || w.rec.Deploy != nil {
		t.Errorf("%+v", w.rec)
	}
}

// Tasks stay for the pages that were made with them, as many as they need, and go when they are not called.
func TestTasksStayForPages(t *testing.T) {
	w := newWorld(4)
	pinned := func(v string) {
		w.goal(v, 4, false)
		w.rec.Goal.Spec.Pinned = time.Hour
	}
	calls := map[int]uint64{}
	step := func(old, new uint64) {
		var effects []effect
		for _, x := range w.rec.Tasks {
			if x.Apart {
				calls[x.N] += old
			} else {
				calls[x.N] += new
			}
		}
		s := w.see()
		s.Calls = calls
		w.rec, effects = next(w.rec, s, w.now)
		for _, e := range effects {
			w.do(e)
		}
		w.now = w.now.Add(time.Second)
	}
	pinned("v1")
	w.settle(t, 1000)
	pinned("v2")
	w.until(t, time.Minute, "the switch", func() bool { return w.rec.Serving.Version == "v2" })
	w.until(t, time.Minute, "the end of the watch", func() bool { return w.rec.Watch == nil })
	if len(w.rec.Kept) != 1 || w.serving("v1") != 4 || w.taking("v1") != 0 {
		t.Fatalf("%+v", w.rec)
	}
	for range 120 {
		step(3, 1) // most pages are old
	}
	if w.serving("v1") < 3 {
		t.Errorf("%d tasks for most of the calls", w.serving("v1"))
	}
	for range 180 {
		step(1, 20)
	}
	if w.serving("v1") != 1 {
		t.Errorf("%d tasks for few calls", w.serving("v1"))
	}
	for range 1200 {
		step(0, 20)
	}
	if w.serving("v1") != 0 || len(w.rec.Kept) != 0 || w.taking("v2") != 4 {
		t.Errorf("nobody calls: %+v", w.rec)
	}

	// Called for ever, they go when the frontend keeps its releases no longer. Going back takes them.
	pinned("v3")
	for range 60 {
		step(1, 1)
	}
	pinned("v2")
	step(1, 1)
	step(1, 1)
	if w.rec.Serving.Version != "v2" || w.taking("v2") == 0 {
		t.Errorf("going back to kept tasks: %+v", w.rec)
	}
	for range 3700 {
		step(1, 1)
	}
	if len(w.rec.Kept) != 0 || w.serving("v3") != 0 {
		t.Errorf("kept for ever: %+v", w.rec.Kept)
	}
}

func TestSharesAndLeases(t *testing.T) {
	s := &service{pursuit: pursuit{id: api}, probes: map[int]*health{}}
	spec := serviceSpec{Strategy: tenfold.StrategyCanary, Share: 0.2, Scale: tenfold.Bounds{Min: 2, Max: 2}}
	r := record{
		Serving: &version{Version: "old", Spec: spec}, Deploy: &deployment{To: version{Version: "new", Spec: spec}, Tried: time.Unix(1, 0)},
		Tasks: []task{{N: 1, Version: "old", Phase: serving}, {N: 2, Version: "old", Phase: serving}, {N: 3, Version: "new", Phase: serving}, {N: 4, Version: "old", Phase: serving, Apart: true}},
	}
	w := seen{Units: map[int]unitSeen{}}
	for n := range 5 {
		w.Units[n] = unitSeen{Phase: keeper.Running}
	}
	out, _ := s.endpoints(r, w)
	var weights []float64
	for _, e := range out {
		weights = append(weights, e.Weight)
	}
	if !slices.Equal(weights, []float64{0.4, 0.4, 0.2, 0}) || out[0].Leased || !out[2].Leased || !out[3].Draining || out[2].Release != "new" {
		t.Errorf("%+v", out)
	}
	if next(r, seen{Units: w.Units, Verdict: judge.Undecided}, time.Unix(2, 0)); trialName(r) != "canary 20 %" {
		t.Error(trialName(r))
	}
}
