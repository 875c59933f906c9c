package compute

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	"tenfold"
	"tenfold/internal/build"
	"tenfold/internal/keeper"
)

// users is what may answer requests now: the tasks of the build whose release users have.
func (w *world) users() int { return w.serving("v-" + w.released) }

func (w *world) pairedGoal(build string, count int) {
	w.goal("v-"+build, count, false)
	w.rec.Goal.Spec.Build, w.rec.Goal.Spec.Paired = build, true
}

// TestTheServerOfAFrontendWaitsForItsRelease: until the release is switched the tasks before serve, whatever
// becomes of the new ones, and after it they go.
func TestTheServerOfAFrontendWaitsForItsRelease(t *testing.T) {
	for seed := range uint64(100) {
		w := newWorld(seed)
		w.pairedGoal("one", 2)
		w.settle(t, 3000)
		w.released = "one"
		w.settle(t, 3000)

		// Two is up, and users have one.
		w.pairedGoal("two", 2)
		w.settle(t, 3000)
		if w.rec.Serving.Spec.Build != "two" || w.serving("v-two") != 2 || w.users() != 2 {
			t.Fatalf("seed %d: before the switch: %+v", seed, w.rec)
		}
		// What users have is started again when it dies.
		for _, x := range w.rec.Tasks {
			if x.Version == "v-one" {
				w.units[x.N] = unitSeen{Phase: keeper.Exited, Code: 1}
				break
			}
		}
		w.settle(t, 3000)
		if w.users() != 2 {
			t.Fatalf("seed %d: a task that users have stays down: %+v", seed, w.rec.Tasks)
		}
		switch seed % 3 {
		case 0: // promoted
			w.released = "two"
		case 1: // its tests failed: back without a new task
			last := w.rec.LastTask
			w.pairedGoal("one", 2)
			w.settle(t, 3000)
			if w.rec.LastTask != last {
				t.Fatalf("seed %d: going back started tasks", seed)
			}
		case 2: // overtaken
			w.pairedGoal("three", 1)
			w.settle(t, 3000)
			if w.users() != 2 || w.serving("v-two") != 0 {
				t.Fatalf("seed %d: overtaken: %+v", seed, w.rec)
			}
			w.released = "three"
		}
		w.settle(t, 3000)
		want := w.rec.Goal.Spec.Scale.Min
		if w.users() != want || len(w.rec.Tasks) != want || w.rec.Before != nil {
			t.Fatalf("seed %d: at rest: %+v", seed, w.rec)
		}
		w.rec.Goal = nil
		w.settle(t, 3000)
		if len(w.rec.Tasks) != 0 {
			t.Fatalf("seed %d: left: %+v", seed, w.rec.Tasks)
		}
	}
}

// TestRunBuildSaysWhatIsWrong: an answer without an error would have the caller wait for tasks that never come.
func TestRunBuildSaysWhatIsWrong(t *testing.T) {
	dir, key := t.TempDir(), "0123456789abcdef0123"
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "builds", key, "tree"), 0o755), os.WriteFile(filepath.Join(dir, "builds", key, "build.json"), []byte("{}"), 0o644)); err != nil {
		t.Fatal(err)
	}
	c := &Compute{cfg: Config{Dir: t.TempDir(), Builder: &build.Builder{Dir: dir}}, wake: make(chan struct{}, 1), items: map[tenfold.ID]item{}}
	it, err := c.item(api)
	if err != nil {
		t.Fatal(err)
	}
	s := it.(*service)
	s.rec.Goal = &version{Spec: serviceSpec{Build: "another", Size: tenfold.Size{CPU: math.NaN()}}, Version: "v"}
	if err := c.RunBuild(api, key); err == nil || s.rec.Goal.Spec.Build != "another" {
		t.Errorf("a version that has no name: %v, %+v", err, s.rec.Goal)
	}
}
