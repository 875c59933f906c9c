package compute

import (
	"maps"
	"sync"
	"testing"

	"tenfold"
)

// Whoever looks only when it is told of a change sees what a build and a service come to: nobody has to ask again and
// again.
func TestEachChangeIsTold(t *testing.T) {
	b := newBox(t)
	b.stop()
	told := make(chan struct{}, 1)
	b.cfg.Changed = func() {
		select {
		case told <- struct{}{}:
		default:
		}
	}
	b.begin()
	var mu sync.Mutex
	seen := map[tenfold.ID]tenfold.State{}
	go func() {
		for {
			select {
			case <-t.Context().Done():
				return
			case <-told:
			}
			rs, err := b.Observe(t.Context())
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			clear(seen)
			for _, r := range rs {
				seen[r.ID] = r.State
			}
			mu.Unlock()
		}
	}()
	comesTo := func(want map[tenfold.ID]tenfold.State) {
		t.Helper()
		b.poll(func() bool { mu.Lock(); defer mu.Unlock(); return maps.Equal(seen, want) }, func() string { return "what was told" })
	}
	b.deploy(b.app(func(*tenfold.Workload) {}))
	built := api
	built.Kind = tenfold.KindBuild
	comesTo(map[tenfold.ID]tenfold.State{api: tenfold.StateReady, built: tenfold.StateReady})
	for _, r := range []tenfold.ID{built, api} {
		if err := b.Apply(t.Context(), tenfold.Step{Verb: tenfold.VerbStop, Want: tenfold.Resource{ID: r}}); err != nil {
			t.Fatal(err)
		}
	}
	b.until(api, func(o tenfold.Resource) bool { return o.State == tenfold.StateStopped })
	comesTo(map[tenfold.ID]tenfold.State{api: tenfold.StateStopped, built: tenfold.StateStopped})
}
