// Package plan compares what is wanted with what was observed and says what to do next.
//
// It is pure: no clock, no randomness, no world. It sees one environment at a time and looks at
// fingerprints, never at specs. Next is called again after every change, so it plans only what can
// be done now; what waits for something else comes in a later call. Begin at Next.
package plan

import (
	"fmt"
	"slices"
	"strings"

	"tenfold"
)

// Next lists the steps that can be taken now, in a fixed order. It is empty at the goal, while
// tiers are on their way, and when what remains waits for something that failed.
//
// A thing is started or updated only when all that it needs serves as wanted. A thing that left
// the manifest is stopped only when nothing that is still there needs it; what holds data is
// stopped and kept, never removed.
func Next(desired, observed []tenfold.Resource) []tenfold.Step {
	want, have := byID(desired), byID(observed)
	var steps []tenfold.Step
	for _, d := range sorted(desired) {
		if s, ok := forward(d, want, have); ok {
			steps = append(steps, s)
		}
	}
	for _, o := range sorted(observed) {
		if _, wanted := want[o.ID]; wanted {
			continue
		}
		if s, ok := away(o, want, observed); ok {
			steps = append(steps, s)
		}
	}
	return steps
}

// forward plans the start or update of d.
func forward(d tenfold.Resource, want, have map[tenfold.ID]tenfold.Resource) (tenfold.Step, bool) {
	o, exists := have[d.ID]
	if exists && o.Goal == d.Fingerprint && o.State != tenfold.StateStopped {
		return tenfold.Step{}, false // serving, on its way, or given up on
	}
	for _, n := range d.Needs {
		if !Serves(want[n], have[n]) {
			return tenfold.Step{}, false
		}
	}
	switch {
	case !exists:
		return tenfold.Step{Verb: tenfold.VerbStart, Want: d, Reason: "it is in the manifest and does not run"}, true
	case o.State == tenfold.StateStopped:
		return tenfold.Step{Verb: tenfold.VerbStart, Want: d, Reason: "it is in the manifest and was stopped"}, true
	case o.Serving == "":
		return tenfold.Step{Verb: tenfold.VerbStart, Want: d, Reason: "nothing of it serves yet"}, true
	case o.Serving == d.Fingerprint:
		return tenfold.Step{Verb: tenfold.VerbUpdate, Want: d, Reason: "back to " + short(d.Fingerprint) + ", which still serves"}, true
	}
	return tenfold.Step{Verb: tenfold.VerbUpdate, Want: d, Reason: fmt.Sprintf("it changed: %s serves, %s is wanted", short(o.Serving), short(d.Fingerprint))}, true
}

// away plans the end of o, which nobody wants any more.
func away(o tenfold.Resource, want map[tenfold.ID]tenfold.Resource, observed []tenfold.Resource) (tenfold.Step, bool) {
	keep := o.ID.Kind.HoldsData()
	if keep && o.State == tenfold.StateStopped {
		return tenfold.Step{}, false
	}
	for _, other := range observed {
		if other.ID == o.ID || other.State == tenfold.StateStopped {
			continue
		}
		_, stays := want[other.ID]
		if slices.Contains(other.Needs, o.ID) || !stays && rank(other.ID.Kind) > rank(o.ID.Kind) {
			return tenfold.Step{}, false
		}
	}
	if keep {
		return tenfold.Step{Verb: tenfold.VerbStop, Want: o, Reason: "it is no longer in the manifest; its data is kept"}, true
	}
	return tenfold.Step{Verb: tenfold.VerbRemove, Want: o, Reason: "it is no longer in the manifest"}, true
}

// rank orders the end of things: traffic first, then what answers it, then what it stands on.
func rank(k tenfold.Kind) int {
	switch k {
	case tenfold.KindEdge:
		return 4
	case tenfold.KindFrontend, tenfold.KindJob:
		return 3
	case tenfold.KindService:
		return 2
	case tenfold.KindBuild:
		return 0
	}
	return 1
}

// Serves says whether o is d in working order.
func Serves(d, o tenfold.Resource) bool {
	return d.Fingerprint != "" && o.State == tenfold.StateReady && o.Goal == d.Fingerprint && o.Serving == d.Fingerprint
}

// Outcome is how far desired has come.
type Outcome struct {
	Done   bool               // everything serves as wanted and nothing unwanted runs
	Failed []tenfold.Resource // observed: goals that were given up on
	Late   []tenfold.Resource // desired: not yet serving and not failed
	Left   []tenfold.Resource // observed: unwanted and still running
}

// Judge compares like Next, but only to say where things stand.
func Judge(desired, observed []tenfold.Resource) Outcome {
	want, have := byID(desired), byID(observed)
	var out Outcome
	for _, d := range sorted(desired) {
		o := have[d.ID]
		switch {
		case Serves(d, o):
		case o.Failed == d.Fingerprint && o.Goal == d.Fingerprint:
			out.Failed = append(out.Failed, o)
		default:
			out.Late = append(out.Late, d)
		}
	}
	for _, o := range sorted(observed) {
		if _, wanted := want[o.ID]; !wanted && o.State != tenfold.StateStopped {
			out.Left = append(out.Left, o)
		}
	}
	out.Done = len(out.Failed)+len(out.Late)+len(out.Left) == 0
	return out
}

// Check finds a need that is not among the desired, or a cycle: faults of a tier that Next would
// wait for without end.
func Check(desired []tenfold.Resource) error {
	want := byID(desired)
	done := map[tenfold.ID]int{} // 1: on the path, 2: checked
	var visit func(tenfold.ID, []string) error
	visit = func(id tenfold.ID, path []string) error {
		path = append(path, id.Short())
		switch done[id] {
		case 1:
			return fmt.Errorf("check plan: these need each other: %s", strings.Join(path, " -> "))
		case 2:
			return nil
		}
		done[id] = 1
		for _, n := range want[id].Needs {
			if _, ok := want[n]; !ok {
				return fmt.Errorf("check plan: %s needs %s, which is not wanted", id.Short(), n.Short())
			}
			if err := visit(n, path); err != nil {
				return err
			}
		}
		done[id] = 2
		return nil
	}
	for _, d := range sorted(desired) {
		if err := visit(d.ID, nil); err != nil {
			return err
		}
	}
	return nil
}

func byID(rs []tenfold.Resource) map[tenfold.ID]tenfold.Resource {
	m := make(map[tenfold.ID]tenfold.Resource, len(rs))
	for _, r := range rs {
		m[r.ID] = r
	}
	return m
}

func sorted(rs []tenfold.Resource) []tenfold.Resource {
	return slices.SortedFunc(slices.Values(rs), func(a, b tenfold.Resource) int { return a.ID.Compare(b.ID) })
}

func short(fingerprint string) string {
	if len(fingerprint) > 6 {
		return fingerprint[:6]
	}
	if fingerprint == "" {
		return "nothing"
	}
	return fingerprint
}
