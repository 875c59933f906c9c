package limit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestRatesHoldOverAnyTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewRates(Rate{Requests: 50, Burst: 100})
		take := func(key string, n int) (got int) {
			for range n {
				if l.Take(key).OK {
					got++
				}
			}
			return got
		}
		if got := take("a", 200); got != 100 {
			t.Errorf("burst: %d", got)
		}
		if a := l.Take("a"); a.OK || a.Retry != 20*time.Millisecond || a.Reset != 2*time.Second {
			t.Errorf("%+v", a)
		}
		if got := take("b", 10); got != 10 {
			t.Errorf("another client: %d", got)
		}
		time.Sleep(time.Second)
		if got := take("a", 200); got != 50 {
			t.Errorf("after a second: %d", got)
		}
		time.Sleep(19 * time.Millisecond)
		if l.Take("a").OK {
			t.Error("too early")
		}
		time.Sleep(time.Millisecond)
		if a := l.Take("a"); !a.OK || a.Remaining != 0 {
			t.Errorf("%+v", a)
		}
		// Over a minute of steady pressure it is the rate, in any second.
		for range 60 {
			got := 0
			for range 100 {
				time.Sleep(10 * time.Millisecond)
				got += take("a", 3)
			}
			if got != 50 {
				t.Fatalf("%d in a second", got)
			}
		}
	})
}

func TestKeysAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewRates(Rate{Requests: 10, Keys: 3200})
		for range 20 {
			l.Take("busy")
		}
		for i := range 20_000 {
			l.Take(fmt.Sprint(i))
		}
		if n := l.Len(); n > 3200 {
			t.Errorf("%d keys", n)
		}
		if l.Take("busy").OK {
			t.Error("who used all of its allowance was forgotten first")
		}
	})
}

func TestRefusalsSayWhenToComeAgain(t *testing.T) {
	l := NewRates(Rate{Requests: 1, Per: 10 * time.Second, Burst: 2})
	h := l.Handler(func(r *http.Request) string { return ClientKey(r.RemoteAddr) }, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }), nil)
	var w *httptest.ResponseRecorder
	for range 3 {
		w = httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	}
	if w.Code != 429 || w.Header().Get("Retry-After") != "10" || w.Header().Get("RateLimit-Policy") != `"default";q=2;w=20` || w.Header().Get("RateLimit") != `"default";r=0;t=20` {
		t.Error(w.Code, w.Header())
	}
}

func TestClientKeys(t *testing.T) {
	for remote, want := range map[string]string{
		"1.2.3.4:5": "1.2.3.4", "1.2.3.4": "1.2.3.4", "[2001:db8:1:2:3:4:5:6]:7": "2001:db8:1:2::", "2001:db8:1:2::9": "2001:db8:1:2::",
		"[::ffff:1.2.3.4]:5": "1.2.3.4", "[fe80::1%eth0]:5": "fe80::", "@": "@", "": "",
	} {
		if got := ClientKey(remote); got != want {
			t.Errorf("%q: %q", remote, got)
		}
	}
}

func FuzzClientKey(f *testing.F) {
	f.Add("1.2.3.4:5")
	f.Add("[::1%a]:5")
	f.Fuzz(func(t *testing.T, s string) {
		if got := ClientKey(s); ClientKey(got) != got {
			t.Errorf("%q: %q, and of that %q", s, got, ClientKey(got))
		}
	})
}

func TestSizes(t *testing.T) {
	var read error
	h := Body(10, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, read = io.ReadAll(r.Body) }), nil)
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader("12345678901"))); w.Code != 413 {
		t.Error(w.Code)
	}
	r := httptest.NewRequest("POST", "/", io.MultiReader(strings.NewReader("12345678901")))
	var large *http.MaxBytesError
	if h.ServeHTTP(httptest.NewRecorder(), r); !errors.As(read, &large) {
		t.Error(read)
	}
	if h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/", strings.NewReader("1234567890"))); read != nil {
		t.Error(read)
	}
	h = Header(1000, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}), func(w http.ResponseWriter, _ *http.Request, d *Denied) { w.WriteHeader(d.Status) })
	r = httptest.NewRequest("GET", "/", nil)
	w = httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != 200 {
		t.Error(w.Code)
	}
	r.Header["X"] = []string{strings.Repeat("a", 500), strings.Repeat("a", 500)}
	w = httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != 431 {
		t.Error(w.Code)
	}
}

func TestTheFixedLimitAndItsQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewConcurrency(Load{Most: 2, Queue: 1})
		for range 2 {
			if err := c.Acquire(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		passed := make(chan error, 1)
		go func() { passed <- c.Acquire(t.Context()) }()
		synctest.Wait()
		var d *Denied
		if err := c.Acquire(t.Context()); !errors.As(err, &d) || d.Status != 503 || d.RetryAfter == 0 {
			t.Error(err)
		}
		c.Leave()
		if err := <-passed; err != nil {
			t.Error(err)
		}
		begun := time.Now()
		if err := c.Acquire(t.Context()); err == nil || time.Since(begun) != 100*time.Millisecond {
			t.Error(err, time.Since(begun))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.Acquire(ctx); err != context.Canceled {
			t.Error(err)
		}
		if under, waiting, refused := c.Counts(); under != 2 || waiting != 0 || refused != 2 {
			t.Error(under, waiting, refused)
		}
	})
}

// server answers with some workers, first come first served, as a real one does: under more than it
// can bear everybody waits.
type server struct {
	workers chan struct{}
	work    time.Duration
}

func (s *server) answer() {
	s.workers <- struct{}{}
	time.Sleep(time.Duration(float64(s.work) * (0.7 + 0.6*rand.Float64())))
	<-s.workers
}

// press offers requests at a rate, and gives the times of those served, and how many were refused.
func press(c *Concurrency, s *server, rate int, lasts time.Duration) (served []time.Duration, refused int64) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var no atomic.Int64
	for range int(float64(rate) * lasts.Seconds()) {
		time.Sleep(time.Duration(rand.ExpFloat64() * float64(time.Second) / float64(rate)))
		wg.Go(func() {
			begun := time.Now()
			if c.Acquire(context.Background()) != nil {
				no.Add(1)
				return
			}
			asked := time.Now()
			s.answer()
			c.Release(time.Since(asked), false)
			mu.Lock()
			served = append(served, time.Since(begun))
			mu.Unlock()
		})
	}
	wg.Wait()
	slices.Sort(served)
	return served, no.Load()
}

// At three times of what a service can bear, it still serves what it can, and those as fast as ever.
func TestSheddingKeepsTheServedFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{make(chan struct{}, 20), 10 * time.Millisecond} // bears 2000/s
		c := NewConcurrency(Load{Adaptive: true})
		if served, refused := press(c, s, 1000, 10*time.Second); refused > int64(len(served)/1000) {
			t.Errorf("%d of %d refused at half of it", refused, len(served))
		}
		for range 2 {
			const lasts = 10
			served, _ := press(c, s, 6000, lasts*time.Second)
			median, p99 := served[len(served)/2], served[len(served)*99/100]
			t.Logf("limit %d: %d/s served, median %v, p99 %v", c.Limit(), len(served)/lasts, median, p99)
			if len(served) < 1800*lasts || median > 30*time.Millisecond || p99 > 60*time.Millisecond {
				t.Errorf("%d/s served, median %v, p99 %v", len(served)/lasts, median, p99)
			}
		}
		if _, refused := press(c, s, 1000, 10*time.Second); refused > 20 {
			t.Errorf("%d refused after it", refused)
		}
	})
}

// A service that became slower in itself is not starved.
func TestTheLimitFollowsASlowerService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{make(chan struct{}, 50), 10 * time.Millisecond}
		c := NewConcurrency(Load{Adaptive: true})
		press(c, s, 1000, 5*time.Second)
		s.work = 30 * time.Millisecond // still bears 1666/s
		press(c, s, 1000, 30*time.Second)
		if served, refused := press(c, s, 1000, 10*time.Second); float64(refused) > 0.05*float64(len(served)) {
			t.Errorf("%d refused, limit %d", refused, c.Limit())
		}
	})
}

func TestStreamsGiveTheirPlaceBack(t *testing.T) {
	c := NewConcurrency(Load{Most: 1, Queue: -1})
	under := func() int { n, _, _ := c.Counts(); return n }
	h := c.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/events" {
			w.Header().Set("Content-Type", "text/event-stream")
			w.(http.Flusher).Flush()
			if under() != 0 {
				t.Error("a stream holds a place")
			}
			return
		}
		if under() != 1 {
			t.Error("an answer holds no place")
		}
		if r.URL.Path == "/panic" {
			panic(http.ErrAbortHandler)
		}
	}), nil)
	for _, path := range []string{"/", "/events", "/panic"} {
		func() {
			defer func() { recover() }()
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
		}()
		if under() != 0 {
			t.Errorf("%s: %d under way", path, under())
		}
	}
}

func BenchmarkTake(b *testing.B) {
	l := NewRates(Rate{Requests: 1_000_000})
	for b.Loop() {
		l.Take("192.0.2.1")
	}
}
