package plan

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"tenfold"
)

var kinds = []tenfold.Kind{
	tenfold.KindBuild, tenfold.KindDatabase, tenfold.KindCache,
	tenfold.KindService, tenfold.KindJob, tenfold.KindFrontend, tenfold.KindEdge,
}

// randomDesired makes an acyclic set: a thing needs only things that were made before it, of its
// own or a lower floor.
func randomDesired(r *rand.Rand) []tenfold.Resource {
	var out []tenfold.Resource
	for _, k := range kinds {
		for i := range r.IntN(4) {
			d := tenfold.Resource{
				ID: tenfold.ID{App: "a", Env: "production", Kind: k, Name: tenfold.Name(fmt.Sprintf("%s-%d", k, i))},
			}
			for _, o := range out {
				if r.IntN(3) == 0 {
					d.Needs = append(d.Needs, o.ID)
				}
			}
			d.Fingerprint, _ = tenfold.FingerprintOf(r.IntN(5), d.Needs)
			if r.IntN(4) > 0 {
				out = append(out, d)
			}
		}
	}
	return out
}

// world is a set of tiers that keep the contract: Apply stores the goal, tick pursues it.
type world struct {
	t     *testing.T
	r     *rand.Rand
	have  map[tenfold.ID]tenfold.Resource
	fails map[tenfold.ID]bool
}

func (w *world) observed() []tenfold.Resource {
	var out []tenfold.Resource
	for _, r := range w.have {
		out = append(out, r)
	}
	w.r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func (w *world) apply(s tenfold.Step) {
	o := w.have[s.Want.ID]
	o.ID = s.Want.ID
	switch s.Verb {
	case tenfold.VerbRemove:
		if s.Want.ID.Kind.HoldsData() {
			w.t.Fatalf("planned the removal of data: %v", s)
		}
		delete(w.have, s.Want.ID)
		return
	case tenfold.VerbStop:
		o.State, o.Goal, o.Serving = tenfold.StateStopped, "", ""
	default:
		for _, n := range s.Want.Needs {
			if w.have[n].State != tenfold.StateReady {
				w.t.Fatalf("%v stands on %v, which does not serve", s, n)
			}
		}
		o.Goal, o.State, o.Needs, o.Failed = s.Want.Fingerprint, tenfold.StatePending, s.Want.Needs, ""
	}
	w.have[s.Want.ID] = o
}

func (w *world) tick() {
	for id, o := range w.have {
		if o.State != tenfold.StatePending || w.r.IntN(2) == 0 {
			continue
		}
		if w.fails[id] && o.Serving != o.Goal {
			o.Failed, o.State = o.Goal, tenfold.StateFailed
			if o.Serving != "" {
				o.State = tenfold.StateReady
			}
		} else {
			o.Serving, o.State = o.Goal, tenfold.StateReady
		}
		w.have[id] = o
	}
}

func (w *world) run(desired []tenfold.Resource) Outcome {
	w.t.Helper()
	if err := Check(desired); err != nil {
		w.t.Fatal(err)
	}
	quiet := 0
	for range 500 {
		steps := Next(desired, w.observed())
		for _, s := range steps {
			w.apply(s)
		}
		pending := slices.ContainsFunc(w.observed(), func(o tenfold.Resource) bool { return o.State == tenfold.StatePending })
		if len(steps) == 0 && !pending {
			if quiet++; quiet > 3 {
				return Judge(desired, w.observed())
			}
		} else {
			quiet = 0
		}
		w.tick()
	}
	w.t.Fatal("does not come to rest")
	return Outcome{}
}

func TestNextConvergesOverRandomWorlds(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := &world{t: t, r: r, have: map[tenfold.ID]tenfold.Resource{}, fails: map[tenfold.ID]bool{}}
		for range 4 {
			d := randomDesired(r)
			if out := w.run(d); !out.Done {
				t.Fatalf("seed %d: not done: %+v", seed, out)
			}
		}
		if out := w.run(nil); !out.Done {
			t.Fatalf("seed %d: not down: %+v", seed, out)
		}
		for _, o := range w.observed() {
			if !o.ID.Kind.HoldsData() || o.State != tenfold.StateStopped {
				t.Fatalf("seed %d: left behind: %+v", seed, o)
			}
		}
	}
}

func TestFailuresEndInQuietAndRollBack(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 2))
		w := &world{t: t, r: r, have: map[tenfold.ID]tenfold.Resource{}, fails: map[tenfold.ID]bool{}}
		good := randomDesired(r)
		w.run(good)
		bad := randomDesired(r)
		for _, d := range bad {
			w.fails[d.ID] = r.IntN(3) == 0
		}
		out := w.run(bad)
		for _, l := range out.Late {
			if w.fails[l.ID] && w.have[l.ID].Goal == l.Fingerprint {
				t.Fatalf("seed %d: a failure counts as late: %v", seed, l)
			}
		}
		clear(w.fails)
		if out := w.run(good); !out.Done {
			t.Fatalf("seed %d: rollback not done: %+v", seed, out)
		}
	}
}

func TestCheckNamesCyclesAndMissingNeeds(t *testing.T) {
	a := tenfold.ID{App: "x", Env: "p", Kind: tenfold.KindService, Name: "a"}
	b := tenfold.ID{App: "x", Env: "p", Kind: tenfold.KindService, Name: "b"}
	err := Check([]tenfold.Resource{{ID: a, Needs: []tenfold.ID{b}}, {ID: b, Needs: []tenfold.ID{a}}})
	if err == nil || err.Error() != "check plan: these need each other: service a -> service b -> service a" {
		t.Fatalf("got %v", err)
	}
	err = Check([]tenfold.Resource{{ID: a, Needs: []tenfold.ID{b}}})
	if err == nil || err.Error() != "check plan: service a needs service b, which is not wanted" {
		t.Fatalf("got %v", err)
	}
}
