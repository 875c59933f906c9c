//go:build scenario

package test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func scaleManifest(scale string) string {
	return fmt.Sprintf("app: moody\nservices:\n  api:\n    path: .\n    build: go build -o moody .\n    command: exec ./moody 1 0 50ms\n    routes: [/*]\n    health: /healthz\n    scale: %s\n", scale)
}

// scaled is what status says of the service.
func (h *house) scaled(dir string) string {
	out := h.must(dir, "status")
	for l := range strings.Lines(out) {
		if strings.Contains(l, " of ") && strings.Contains(l, "api") {
			return l
		}
	}
	return out
}

// Load brings tasks, its end takes them away again, and nobody sees an error on the way.
func TestScalesWithTheLoad(t *testing.T) {
	h := newHouse(t)
	dir := write(t, t.TempDir(), moody)
	write(t, dir, map[string]string{"tenfold.yaml": scaleManifest("{min: 1, max: 6, concurrency: 4}")})
	h.up(dir)
	traffic := h.traffic(16, time.Millisecond)
	eventually(t, "more tasks", 100*time.Second, func() bool {
		return strings.Contains(h.scaled(dir), "6 of 1-6") || strings.Contains(h.scaled(dir), "5 of 1-6")
	})
	traffic.end()
	if n := traffic.bad[0].Load() + traffic.bad[1].Load(); n > 0 {
		t.Errorf("%d of %d requests failed", n, traffic.all[1].Load())
	}
	eventually(t, "one task again", 100*time.Second, func() bool { return strings.Contains(h.scaled(dir), "1 of 1-6") })
	if log := h.must(dir, "events"); !strings.Contains(log, "scaled from 1 to") || !strings.Contains(log, "4 per task") {
		t.Errorf("no event says why:\n%s", log)
	}
}

// A service that sleeps wakes by requests, and loses none of those that come at once.
func TestWakesFromZero(t *testing.T) {
	h := newHouse(t)
	dir := write(t, t.TempDir(), moody)
	write(t, dir, map[string]string{"tenfold.yaml": scaleManifest("0-2")})
	h.up(dir)
	for round := range 2 { // it sleeps after a minute
		eventually(t, "sleep", 100*time.Second, func() bool { return strings.Contains(h.scaled(dir), "asleep") })
		client := &http.Client{Transport: &http.Transport{}}
		var bad atomic.Int64
		var wg sync.WaitGroup
		began := time.Now()
		for range 50 {
			wg.Go(func() {
				req, _ := http.NewRequest("GET", "http://"+h.addr+"/", nil)
				req.Host = "moody.localhost"
				res, err := client.Do(req)
				if err != nil {
					bad.Add(1)
					return
				}
				res.Body.Close()
				if res.StatusCode != 200 {
					bad.Add(1)
				}
			})
		}
		wg.Wait()
		client.CloseIdleConnections()
		t.Logf("round %d: all 50 answered after %s", round, time.Since(began).Round(time.Millisecond))
		if n := bad.Load(); n > 0 {
			t.Fatalf("%d of 50 requests to a sleeping service failed", n)
		}
	}
}
