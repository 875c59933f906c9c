package compute

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"tenfold"
	"tenfold/internal/directory"
)

// slowDoor takes what it is told only when it may.
type slowDoor struct {
	*door
	may chan struct{} // closed when it may
}

func (d slowDoor) Publish(ctx context.Context, id tenfold.ID, e []directory.Endpoint, down string) error {
	select {
	case <-d.may:
		return d.door.Publish(ctx, id, e, down)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A canary that is given up gets requests until the front door has heard of it: who waits for the goal waits for that.
func TestAGoalIsHeededWhenTheDoorHasHeardOfIt(t *testing.T) {
	b := newBox(t)
	trial := func(version string) tenfold.App {
		return b.app(func(w *tenfold.Workload) {
			w.Env["VERSION"], w.Strategy, w.Share, w.Bake = version, tenfold.StrategyCanary, 0.5, time.Hour
		})
	}
	first := b.deploy(trial("one"))
	apply := func(app tenfold.App) (goal string) {
		t.Helper()
		rs, err := b.Desired(app, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rs { // the build comes first
			if err := b.Apply(t.Context(), tenfold.Step{Verb: tenfold.VerbUpdate, Want: r}); err != nil {
				t.Fatal(err)
			}
			if goal = r.Fingerprint; r.ID.Kind == tenfold.KindBuild {
				b.until(r.ID, func(o tenfold.Resource) bool { return o.Serving == goal })
			}
		}
		return goal
	}
	leased := func() bool {
		b.door.mu.Lock()
		defer b.door.mu.Unlock()
		return slices.ContainsFunc(b.door.endpoints[api], func(e directory.Endpoint) bool { return e.Leased && !e.Draining })
	}
	canary := apply(trial("two"))
	b.poll(leased, func() string { return "a canary" })
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := b.Heed(short, api, canary); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a canary that is tried out is no goal that is heeded: %v", err)
	}

	b.stop()
	slow := slowDoor{b.door, make(chan struct{})}
	b.cfg.Traffic = slow
	b.begin() // as after the end of a daemon: the door has the canary still
	if goal := apply(trial("one")); goal != first.Goal {
		t.Fatalf("goal %s, was %s", goal, first.Goal)
	}
	heeded := make(chan error, 1)
	go func() { heeded <- b.Heed(t.Context(), api, first.Goal) }()
	b.poll(func() bool {
		s, err := b.find(api)
		return err == nil && s.snapshot().Deploy == nil // given up, and the door is being told
	}, func() string { return "the deployment is given up" })
	select {
	case err := <-heeded:
		t.Errorf("heeded (%v) while the door sends requests to the canary: %t", err, leased())
	default:
	}
	close(slow.may)
	if err := <-heeded; err != nil || leased() {
		t.Errorf("heeded: %v; the canary gets requests: %t", err, leased())
	}
}
