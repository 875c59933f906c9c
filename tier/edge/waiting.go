package edge

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"tenfold/internal/directory"
)

// waits tells at once that a request waits for a service that has no task, so that it can be woken.
type waits struct {
	mu      sync.Mutex
	seq     uint64
	changed chan struct{} // closed when seq grows
}

// somebodyWaits is called from requests.
func (d *Door) somebodyWaits() {
	d.waits.mu.Lock()
	defer d.waits.mu.Unlock()
	d.waits.seq++
	close(d.waits.changed)
	d.waits.changed = make(chan struct{})
}

// longestWait bounds how long a question of who waits is left open.
const longestWait = 30 * time.Second

// serveWaiting answers who waits, as soon as that may be somebody else than at the sequence number that
// the question names.
func (d *Door) serveWaiting(w http.ResponseWriter, r *http.Request) {
	after, _ := strconv.ParseUint(r.FormValue("after"), 10, 64)
	timer := time.NewTimer(longestWait)
	defer timer.Stop()
	d.waits.mu.Lock()
	seq, changed := d.waits.seq, d.waits.changed
	d.waits.mu.Unlock()
	if seq == after {
		select {
		case <-changed:
		case <-timer.C:
		case <-r.Context().Done():
			return
		case <-d.leaving:
			http.Error(w, "this door leaves", http.StatusServiceUnavailable)
			return
		}
	}
	d.waits.mu.Lock()
	out := directory.Waiting{Seq: d.waits.seq}
	d.waits.mu.Unlock()
	d.mu.Lock()
	for key, way := range d.services.ways {
		if name := serviceName(key); way.Asleep() && !slices.Contains(out.Services, name) {
			out.Services = append(out.Services, name)
		}
	}
	d.mu.Unlock()
	json.NewEncoder(w).Encode(out)
}

// serviceName is what a way is called outside: one service may have several ways, by build.
func serviceName(k serviceKey) string {
	name, _, _ := strings.Cut(k.name, "@")
	return k.app + "/" + k.env + "/" + name
}

// loads are how services are used. Under d.mu.
func (d *Door) loads() map[string]directory.Load {
	out := map[string]directory.Load{}
	for key, way := range d.services.ways {
		l := out[serviceName(key)]
		l.Add(way.Load())
		out[serviceName(key)] = l
	}
	return out
}
