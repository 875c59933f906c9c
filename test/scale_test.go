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

// Services that sleep wake by requests, and lose none of those that come at once: twenty cold wakes, ten services twice.
// Most of it is a minute without requests, so it runs beside others.
func TestWakesFromZero(t *testing.T) {
	t.Parallel()
	const services = 10
	h := newHouse(t)
	dir := write(t, t.TempDir(), moody)
	text := "app: moody\nservices:\n"
	for i := range services {
		text += fmt.Sprintf("  s%d: {path: ., build: go build -o moody ., command: exec ./moody 1 0 50ms, routes: [/s%d/*], health: /healthz, scale: 0-2}\n", i, i)
	}
	write(t, dir, map[string]string{"tenfold.yaml": text})
	h.up(dir)
	asleep := func() bool { return strings.Count(h.must(dir, "status"), "0 of 0-2: asleep") == services }
	for round := range 2 { // they sleep after a minute
		eventually(t, "sleep", 240*time.Second, asleep)
		var bad atomic.Int64
		began := time.Now()
		var wg sync.WaitGroup
		for i := range services {
			client := &http.Client{Transport: &http.Transport{}}
			for range 10 {
				wg.Go(func() {
					req, _ := http.NewRequest("GET", fmt.Sprintf("http://%s/s%d/", h.addr, i), nil)
					req.Host = "moody.localhost"
					res, err := client.Do(req)
					if err != nil {
						t.Log(err)
						bad.Add(1)
						return
					}
					res.Body.Close()
					if res.StatusCode != 200 {
						bad.Add(1)
					}
				})
			}
			wg.Wait() // the next one wakes by itself too
			client.CloseIdleConnections()
		}
		t.Logf("round %d: %d services woken by 10 requests each in %s", round, services, time.Since(began).Round(time.Millisecond))
		if n := bad.Load(); n > 0 {
			t.Fatalf("%d of %d requests to sleeping services failed", n, services*10)
		}
	}
}
