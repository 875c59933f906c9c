package upstream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// simulated is a service whose tasks answer by the virtual clock: what the balancer decides, without
// a socket.
type simulated struct {
	*Service
	p     *Policy
	takes func(id string) time.Duration
	mu    sync.Mutex
	count map[string]int
	took  []time.Duration
}

func simulate(p Policy, takes func(id string) time.Duration, tasks ...Endpoint) *simulated {
	s := &simulated{Service: NewService(Config{Name: "api", Policy: p}), takes: takes, count: map[string]int{}}
	s.p = s.policy.Load()
	s.Update(tasks, "")
	return s
}

func tasks(n int) (out []Endpoint) {
	for i := range n {
		out = append(out, Endpoint{ID: fmt.Sprint(i), Addr: fmt.Sprint("127.0.0.1:", i+1), Release: "r1", Weight: 1})
	}
	return out
}

// request makes one request; failed answers are bad.
func (s *simulated) request(bad func(id string) bool) {
	begun := clock()
	e, err := s.pick(context.Background(), s.p, nil, nil, begun+int64(s.p.Hold), new(bool))
	if err != nil {
		s.held.Store(0)
		return
	}
	asked := clock()
	time.Sleep(s.takes(e.id))
	now := clock()
	if bad != nil && bad(e.id) {
		e.bad(now, &s.p.Eject)
	} else {
		e.good()
		e.observe(now, time.Duration(now-asked))
		e.compare(now, time.Duration(now-asked), s.set.Load(), &s.p.Eject)
	}
	e.leave()
	s.mu.Lock()
	s.count[e.id]++
	s.took = append(s.took, time.Duration(clock()-begun))
	s.mu.Unlock()
}

// load sends requests at a rate for a while, in a bubble.
func (s *simulated) load(rate int, lasts time.Duration, bad func(string) bool) {
	s.mu.Lock()
	s.count, s.took = map[string]int{}, nil
	s.mu.Unlock()
	var wg sync.WaitGroup
	for range int(float64(rate) * lasts.Seconds()) {
		time.Sleep(time.Duration(rand.ExpFloat64() * float64(time.Second) / float64(rate)))
		wg.Go(func() { s.request(bad) })
	}
	wg.Wait()
}

func (s *simulated) quantile(q float64) time.Duration {
	slices.Sort(s.took)
	return s.took[int(q*float64(len(s.took)-1))]
}

func (s *simulated) share(id string) float64 {
	return float64(s.count[id]) / float64(len(s.took))
}

// One of four tasks is ten times slower: nearly nobody notices. By counts alone, as least-connection
// balancers have it, its share of an idle service would be a quarter, and the 99th percentile its own.
func TestASlowTaskIsAvoided(t *testing.T) {
	for _, rate := range []int{50, 500, 1500} {
		synctest.Test(t, func(t *testing.T) {
			s := simulate(Policy{}, func(id string) time.Duration {
				if id == "0" {
					return 20 * time.Millisecond
				}
				return time.Duration(float64(2*time.Millisecond) * (0.8 + 0.4*rand.Float64()))
			}, tasks(4)...)
			s.load(rate, 4*time.Second, nil)
			s.load(rate, 10*time.Second, nil)
			if p99, share := s.quantile(0.99), s.share("0"); p99 > 5*time.Millisecond || share > 0.01 {
				t.Errorf("%d/s: p99 %v, the slow one got %.3f", rate, p99, share)
			}
			if a, b := s.share("1"), s.share("2"); rate > 50 && (a < 0.28 || a > 0.39 || b < 0.28 || b > 0.39) {
				t.Errorf("%d/s: the quick ones got %.2f and %.2f", rate, a, b)
			}
		})
	}
}

// A task that becomes quick again gets its share back.
func TestATaskThatWasSlowComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow atomic.Bool
		slow.Store(true)
		s := simulate(Policy{}, func(id string) time.Duration {
			if id == "0" && slow.Load() {
				return 500 * time.Millisecond
			}
			return 5 * time.Millisecond
		}, tasks(4)...)
		s.load(300, 10*time.Second, nil)
		slow.Store(false)
		s.load(300, 60*time.Second, nil)
		s.load(300, 5*time.Second, nil)
		if share := s.share("0"); share < 0.2 {
			t.Errorf("it gets %.3f", share)
		}
	})
}

func TestANewTaskComesToItsShareInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulate(Policy{SlowStart: 10 * time.Second}, func(string) time.Duration { return 5 * time.Millisecond }, tasks(3)...)
		s.load(400, 2*time.Second, nil)
		s.Update(tasks(4), "")
		var shares []float64
		for range 11 {
			s.load(400, time.Second, nil)
			shares = append(shares, s.share("3"))
		}
		if shares[0] > 0.06 || shares[4] < 0.07 || shares[4] > 0.19 || shares[10] < 0.2 || shares[10] > 0.31 {
			t.Errorf("shares second by second: %.2f", shares)
		}
	})
}

// A task at which many wait gets no more of them while those that were started for it start slowly.
func TestAServiceThatHadTooFewTasksDoesNotCrowdTheOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulate(Policy{SlowStart: 10 * time.Second}, func(string) time.Duration { return 5 * time.Millisecond }, tasks(1)...)
		s.known["0"].inFlight.Add(500)
		s.Update(tasks(20), "")
		s.load(500, 2*time.Second, nil)
		if n := s.count["0"]; n > 5 {
			t.Errorf("of %d requests %d went where 500 wait", len(s.took), n)
		}
		most := 0
		for _, n := range s.count {
			most = max(most, n)
		}
		if most > len(s.took)/8 {
			t.Errorf("one of 19 new tasks got %d of %d", most, len(s.took))
		}
	})
}

// A release's part is what its weight says, however idle its tasks are.
func TestACanaryGetsItsWeight(t *testing.T) {
	for _, rate := range []int{20, 2000} {
		synctest.Test(t, func(t *testing.T) {
			eps := tasks(5)
			eps[4].Release, eps[4].Weight = "r2", 4*0.05/0.95
			s := simulate(Policy{}, func(string) time.Duration { return 5 * time.Millisecond }, eps...)
			s.load(rate, time.Duration(20000/rate)*time.Second, nil)
			if share := s.share("4"); share < 0.04 || share > 0.06 {
				t.Errorf("%d/s: the canary got %.3f", rate, share)
			}
			eps[4].Weight = 0
			s.Update(eps, "")
			if s.load(rate, time.Second, nil); s.count["4"] != 0 {
				t.Error("weight 0 got requests")
			}
		})
	}
}

func TestFailingTasksArePassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulate(Policy{Retry: Retry{Least: -1}}, func(string) time.Duration { return time.Millisecond }, tasks(4)...)
		fails := func(bad ...string) func(string) bool {
			return func(id string) bool { return slices.Contains(bad, id) }
		}
		s.load(400, 10*time.Second, fails("0"))
		if share := s.share("0"); share > 0.03 {
			t.Errorf("the failing one got %.3f", share)
		}
		// It is well again, and starts slowly.
		s.load(400, 40*time.Second, nil)
		s.load(400, 2*time.Second, nil)
		if share := s.share("0"); share < 0.2 {
			t.Errorf("after it was well it got %.3f", share)
		}
		// Three of four fail: the last must not carry all of it.
		s.load(400, 10*time.Second, fails("0", "1", "2"))
		if share := s.share("3"); share > 0.75 {
			t.Errorf("panic: the last one got %.3f", share)
		}
	})
}

func TestFarSlowerTasksArePassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulate(Policy{}, func(id string) time.Duration {
			if id == "0" {
				return 2 * time.Second
			}
			return 10 * time.Millisecond
		}, tasks(3)...)
		ejected := false
		for range 60 {
			s.load(500, time.Second, nil)
			ejected = ejected || s.Counts()[0].Ejected
		}
		if !ejected {
			t.Error("it never was")
		}
	})
}

func TestTheBudgetOfRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b budget
		p := Policy{}.withDefaults()
		taken := func(n int) (got int) {
			for range n {
				if b.take(clock(), &p.Retry) {
					got++
				}
			}
			return got
		}
		if got := taken(100); got != 30 { // three a second for ten seconds
			t.Errorf("%d without traffic", got)
		}
		for range 1000 {
			b.request(clock())
		}
		if got := taken(1000); got != 200 {
			t.Errorf("%d of 1000 more", got)
		}
		time.Sleep(window * time.Second)
		if got := taken(100); got != 30 {
			t.Errorf("%d after the window", got)
		}
	})
}

func TestQuantiles(t *testing.T) {
	var q quantiles
	for i := range 20000 {
		q.add(time.Duration(i%1000+1) * time.Millisecond)
	}
	for _, share := range []float64{0.5, 0.95, 0.99} {
		if got, want := q.at(share).Seconds(), share; got < want*0.95 || got > want*1.27 {
			t.Errorf("%.2f: %.3f s", share, got)
		}
	}
}

// A request that is held leaves with its client, and the hold ends in time.
func TestHoldEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulate(Policy{Hold: 3 * time.Second, HoldMost: 1}, nil)
		begun := time.Now()
		s.request(nil)
		if took := time.Since(begun); took != 3*time.Second {
			t.Error(took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			waits := false
			if _, err := s.pick(ctx, s.p, nil, nil, clock()+int64(time.Hour), &waits); err != ErrClientGone {
				t.Error(err)
			}
			s.leaveHold(&waits)
		}()
		synctest.Wait()
		if _, err := s.pick(t.Context(), s.p, nil, nil, clock()+int64(time.Hour), new(bool)); err == nil || Status(err) != http.StatusServiceUnavailable {
			t.Error("more were held than allowed", err)
		}
		cancel()
		synctest.Wait()
		if s.Held() != 0 {
			t.Error(s.Held())
		}
	})
}

func TestHealthChecksDecide(t *testing.T) {
	var sick atomic.Bool
	ep, _ := task(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" && sick.Load() {
			w.WriteHeader(500)
		}
		fmt.Fprint(w, "a")
	})
	other, _ := task(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "b") })
	f := serve(t, Policy{Health: Health{Path: "/healthz", Every: 10 * time.Millisecond}}, ep, other)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	state := func(id string) Count {
		all := f.Counts()
		return all[slices.IndexFunc(all, func(c Count) bool { return c.ID == id })]
	}
	sick.Store(true)
	eventually(t, "sick", func() bool { return state(ep.ID).Sick })
	for range 10 {
		if _, b := f.get(t, "/"); b != "b" {
			t.Fatal("a sick task got a request")
		}
	}
	f.Update([]Endpoint{ep}, "")
	if _, b := f.get(t, "/"); b != "a" {
		t.Fatal("the only task, though sick, should be asked")
	}
	sick.Store(false)
	eventually(t, "well", func() bool { return !state(ep.ID).Sick })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
