package compute

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"tenfold"
	"tenfold/internal/keeper"
	"tenfold/tier/compute/judge"
)

// world plays the keeper, the tasks and the door for next.
type world struct {
	now     time.Time
	rec     record
	units   map[int]unitSeen
	up      map[int]time.Time // healthy from
	bad     map[string]string // by version: "exit", "sick", "migrate", "port"
	migrate *unitSeen
	rnd     *rand.Rand
	crashes bool
	// released is, of a frontend's server, the build whose release users have.
	released string
	strategy string
	log      []string
}

func newWorld(seed uint64) *world {
	return &world{
		now: time.Unix(1e9, 0), units: map[int]unitSeen{}, up: map[int]time.Time{}, bad: map[string]string{},
		rnd: rand.New(rand.NewPCG(seed, 1)), rec: record{ID: tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindService, Name: "api"}},
	}
}

func (w *world) goal(v string, count int, migrate bool) {
	s := serviceSpec{Scale: tenfold.Bounds{Min: count, Max: count}, Deadline: time.Minute, Drain: 5 * time.Second, Health: tenfold.Health{Grace: 10 * time.Second}}
	if migrate {
		s.Migrate = tenfold.Command{Shell: "migrate"}
	}
	s.Routed, s.Strategy, s.Bake = true, w.strategy, 3*time.Second
	w.rec.Goal = &version{Spec: s, Version: v, Fingerprint: fmt.Sprint(v, count)}
	w.rec.Failed = ""
}

func (w *world) see() seen {
	s := seen{Verdict: w.verdict(), Calls: map[int]uint64{}, Released: w.released, Units: maps.Clone(w.units), Healthy: map[int]bool{}, InFlight: map[int]int{}, Wrong: map[int]bool{}, Migrate: w.migrate}
	for n, at := range w.up {
		s.Healthy[n] = w.units[n].Phase == keeper.Running && !w.now.Before(at)
	}
	for _, t := range w.rec.Tasks {
		if t.Phase == draining && w.rnd.IntN(4) == 0 {
			s.InFlight[t.N] = w.rnd.IntN(2)
		}
		if w.bad[t.Version] == "port" && t.Phase == starting {
			s.Wrong[t.N] = true
		}
	}
	return s
}

// verdict says of a version that is worse that it is, when it has had requests for a while.
func (w *world) verdict() judge.Decision {
	r := w.rec
	switch {
	case r.Deploy != nil && !r.Deploy.Tried.IsZero() && w.bad[r.Deploy.To.Version] == "worse" && w.now.Sub(r.Deploy.Tried) > time.Second:
		return judge.Worse
	case r.Deploy == nil && r.Watch != nil && w.bad[r.Serving.Version] == "worse" && w.now.Sub(r.Watch.Began) > time.Second:
		return judge.Worse
	}
	return judge.Undecided
}

// taking counts tasks of a version that get requests.
func (w *world) taking(version string) (n int) {
	for _, t := range w.rec.Tasks {
		if t.Phase == serving && !t.Down && !t.Apart && t.Version == version {
			n++
		}
	}
	return n
}

// step is one look; a daemon that dies loses what it was about to do with probability one in ten.
func (w *world) step() []effect {
	var effects []effect
	w.rec, effects = next(w.rec, w.see(), w.now)
	for _, e := range effects {
		w.log = append(w.log, fmt.Sprintf("%s %d %s", e.Verb, e.N, e.Cause))
		if w.crashes && w.rnd.IntN(10) == 0 {
			continue
		}
		w.do(e)
	}
	w.now = w.now.Add(100 * time.Millisecond)
	if w.crashes {
		for n, u := range w.units {
			if u.Phase == keeper.Running && w.rnd.IntN(200) == 0 {
				w.units[n] = unitSeen{Phase: keeper.Exited, Code: 1}
			}
		}
	}
	return effects
}

func (w *world) do(e effect) {
	switch e.Verb {
	case doStart:
		w.units[e.N] = unitSeen{Phase: keeper.Running, Started: w.now}
		delete(w.up, e.N)
		switch w.bad[w.version(e.N)] {
		case "exit":
			w.units[e.N] = unitSeen{Phase: keeper.Exited, Code: 1}
		case "sick", "port":
		default:
			w.up[e.N] = w.now.Add(time.Duration(w.rnd.IntN(2000)) * time.Millisecond)
		}
	case doStop:
		delete(w.units, e.N)
		delete(w.up, e.N)
	case doMigrate:
		w.migrate = &unitSeen{Phase: keeper.Exited}
		if w.bad[w.rec.Deploy.To.Version] == "migrate" {
			w.migrate.Code = 1
		}
	case sayMigr:
		w.migrate = nil
	case doFail:
		w.rec = w.rec.fail("because", "", w.now)
		w.migrate = nil
	}
}

func (w *world) version(n int) string {
	for _, t := range w.rec.Tasks {
		if t.N == n {
			return t.Version
		}
	}
	return ""
}

func (w *world) serving(version string) (n int) {
	for _, t := range w.rec.Tasks {
		if t.Phase == serving && !t.Down && t.Version == version {
			n++
		}
	}
	return n
}

func (w *world) settle(t *testing.T, steps int) {
	t.Helper()
	quiet := 0
	for range steps {
		if len(w.step()) == 0 && w.rec.Deploy == nil && w.rec.Watch == nil {
			quiet++
		} else {
			quiet = 0
		}
		if quiet > 120 { // longer than any backoff
			return
		}
	}
	t.Fatalf("never quiet: %+v\nlast: %v", w.rec, w.log[max(0, len(w.log)-20):])
}

func TestDeploymentsConvergeInRandomWorlds(t *testing.T) {
	kinds := []string{"", "", "exit", "sick", "migrate", "port", "worse"}
	for seed := range uint64(300) {
		w := newWorld(seed)
		good := ""
		for i := range 4 {
			v := fmt.Sprintf("v%d", i)
			count, migrate := 1+w.rnd.IntN(4), w.rnd.IntN(2) == 0
			kind := kinds[w.rnd.IntN(len(kinds))]
			if kind == "migrate" && !migrate {
				kind = ""
			}
			if kind == "worse" && good == "" {
				kind = "" // nothing to compare it with
			}
			w.bad[v] = kind
			w.strategy = []string{"", tenfold.StrategyBlueGreen, tenfold.StrategyCanary}[w.rnd.IntN(3)]
			w.goal(v, count, migrate)
			w.crashes = true
			for range w.rnd.IntN(60) {
				w.step()
			}
			w.crashes = false
			w.settle(t, 3000)
			// A crash while it starts fails a good version too: then it is as if it were bad.
			if w.rec.Failed == "" {
				good = v
				if kind != "" {
					t.Fatalf("seed %d: %s is %q and serves", seed, v, kind)
				}
				if got := w.taking(v); got != count || len(w.rec.Tasks) != count {
					t.Fatalf("seed %d: %d tasks of %s serve, want %d: %+v", seed, got, v, count, w.rec.Tasks)
				}
			} else if good != "" {
				if w.rec.Serving == nil || w.rec.Serving.Version != good || w.taking(good) != w.rec.Serving.Spec.Scale.Min {
					t.Fatalf("seed %d: %s failed and %s does not serve on: %+v", seed, v, good, w.rec)
				}
			}
		}
		w.rec.Goal = nil
		w.settle(t, 3000)
		if len(w.rec.Tasks) > 0 || len(w.units) > 0 {
			t.Fatalf("seed %d: stopped, and there are %+v, %v", seed, w.rec.Tasks, w.units)
		}
	}
}

// TestNoCapacityIsLostBeforeTheSwitch: at every moment of a deployment without crashes either all old
// or all new tasks serve.
func TestNoCapacityIsLostBeforeTheSwitch(t *testing.T) {
	for seed := range uint64(100) {
		w := newWorld(seed)
		w.goal("v1", 3, false)
		w.settle(t, 1000)
		w.bad["v2"] = []string{"", "exit", "sick", "worse"}[seed%4]
		w.strategy = []string{"", tenfold.StrategyBlueGreen, tenfold.StrategyCanary}[seed%3]
		w.goal("v2", 3, true)
		for range 400 {
			w.step()
			if old, now := w.serving("v1"), w.serving("v2"); old != 3 && now != 3 {
				t.Fatalf("seed %d: %d old and %d new tasks serve", seed, old, now)
			}
			if old, now := w.taking("v1"), w.taking("v2"); old+now < 3 {
				t.Fatalf("seed %d: %d old and %d new tasks take requests", seed, old, now)
			}
			startingNow := 0
			for _, x := range w.rec.Tasks {
				if x.Phase == starting && !x.Healthy {
					startingNow++
				}
			}
			if startingNow > maxStarting {
				t.Fatalf("seed %d: %d tasks start at once", seed, startingNow)
			}
		}
	}
}

func TestBoundsStartNoDeployment(t *testing.T) {
	w := newWorld(1)
	w.goal("v1", 1, true)
	w.settle(t, 1000)
	w.goal("v1", 3, true)
	w.settle(t, 1000)
	if w.serving("v1") != 3 || w.rec.Deployments != 1 {
		t.Errorf("%d tasks after %d deployments", w.serving("v1"), w.rec.Deployments)
	}
	w.goal("v1", 0, true)
	w.settle(t, 1000)
	if len(w.rec.Tasks) != 0 || w.rec.Deployments != 1 || w.rec.Serving.Fingerprint != "v10" {
		t.Errorf("scaled to nothing: %+v", w.rec)
	}
}

func TestCrashLoopBacksOff(t *testing.T) {
	w := newWorld(1)
	w.goal("v1", 1, false)
	w.settle(t, 1000)
	w.bad["v1"] = "exit"
	n := w.rec.Tasks[0].N
	w.units[n] = unitSeen{Phase: keeper.Exited, Code: 1}
	starts := 0
	for range 600 { // a minute
		for _, e := range w.step() {
			if e.Verb == doStart {
				starts++
			}
		}
	}
	if starts < 8 || starts > 14 {
		t.Errorf("started %d times in a minute", starts)
	}
	delete(w.bad, "v1")
	w.settle(t, 2000)
	if w.serving("v1") != 1 {
		t.Errorf("it does not serve again: %+v", w.rec.Tasks)
	}
}
