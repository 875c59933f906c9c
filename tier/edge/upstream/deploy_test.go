package upstream

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Tasks are replaced again and again as a deploy does it: new ones beside old ones, then the old drain,
// and die hard when they count zero. No request fails, no POST is seen twice, no body is cut.
func TestNoRequestFailsWhileTasksAreReplaced(t *testing.T) {
	var posts, seen atomic.Int64
	start := func() (Endpoint, *httptest.Server) {
		return task(t, func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			if r.Method == "POST" {
				seen.Add(1)
			}
			if err != nil {
				t.Errorf("a cut body: %v", err)
			}
			fmt.Fprint(w, len(b))
		})
	}
	ep, server := start()
	f := serve(t, Policy{}, ep)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var good, bad atomic.Int64
	for i := range 9 {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: i%2 == 0}}
			defer client.CloseIdleConnections()
			for bad.Load() == 0 {
				select {
				case <-stop:
					return
				default:
				}
				n := []int{0, 10, 200_000}[i%3]
				var body io.Reader
				method := "GET"
				if n > 0 {
					method, body = "POST", strings.NewReader(strings.Repeat("x", n))
					if i > 5 {
						body = io.MultiReader(body) // of unknown length
					}
					posts.Add(1)
				}
				req, _ := http.NewRequest(method, "http://"+f.addr+"/", body)
				res, err := client.Do(req)
				if err != nil {
					bad.Add(1)
					t.Error(err)
					return
				}
				b, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode != 200 || string(b) != fmt.Sprint(n) {
					bad.Add(1)
					t.Errorf("%s of %d: %d %q %v", method, n, res.StatusCode, b, err)
					return
				}
				good.Add(1)
			}
		})
	}
	for range 40 {
		next, nextServer := start()
		old := ep
		old.Draining = true
		before := good.Load()
		f.Update([]Endpoint{old, next}, "")
		eventually(t, "the old task counts zero", func() bool {
			for _, c := range f.Counts() {
				if c.ID == old.ID {
					return c.InFlight == 0
				}
			}
			return true
		})
		server.CloseClientConnections()
		server.Close()
		f.Update([]Endpoint{next}, "")
		eventually(t, "requests pass", func() bool { return good.Load() > before+5 || bad.Load() > 0 })
		ep, server = next, nextServer
	}
	close(stop)
	wg.Wait()
	if bad.Load() > 0 || posts.Load() != seen.Load() {
		t.Fatalf("%d good, %d bad; %d POSTs were sent, tasks saw %d", good.Load(), bad.Load(), posts.Load(), seen.Load())
	}
}
