//go:build scenario

package postgres

import (
	"fmt"
	"slices"
	"testing"

	"tenfold"
)

// Whoever is the primary, what was acknowledged is told; some of it twice after a failover, under the same id.
func TestOutboxGoesOnAfterAFailover(t *testing.T) {
	f := begin(t)
	f.buses = map[tenfold.Name]tenfold.Bus{"shop-bus": {From: map[tenfold.Name]string{"main-db": "w"}}}
	f.start(t, tenfold.Database{Readers: tenfold.Bounds{Min: 2, Max: 2}})
	f.settled(t, 2)
	w := f.write(t)
	w.more(t, 200)
	for range 2 {
		r := f.settled(t, 2)
		w.more(t, 100)
		kills["postmaster"](t, f, r.Primary)
		w.more(t, 300)
	}
	f.settled(t, 2)
	w.more(t, 50)
	if lost := w.lost(t); len(lost) > 0 {
		t.Fatalf("lost: %v", lost)
	}
	all := f.details(t, len(w.acked))
	var missing []int
	for _, n := range w.acked {
		if !slices.Contains(all, fmt.Sprintf(`row.inserted {"epoch":0,"n":%d}`, n)) {
			missing = append(missing, n)
		}
	}
	f.bus.mu.Lock()
	defer f.bus.mu.Unlock()
	ids := map[string]string{}
	for _, r := range f.bus.rows {
		if was, ok := ids[r.ID]; ok && was != string(r.Detail) {
			t.Errorf("%s and %s have the id %s", was, r.Detail, r.ID)
		}
		ids[r.ID] = string(r.Detail)
	}
	t.Logf("%d commits acknowledged, %d rows told", len(w.acked), len(all))
	if len(missing) > 0 {
		t.Errorf("not told: %v", missing)
	}
}
