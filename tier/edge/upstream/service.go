// Package upstream is the way from the front door to a service's tasks: it chooses a task, carries
// the request there over a pooled connection, and the answer back.
//
// What it promises. A request that no task can have seen is never lost while a task lives: it is
// sent to another one, or held until one comes. A request that a task may have seen is sent again
// only when it is idempotent (RFC 9110 §9.2.2), nothing was answered, and the budget of retries is
// not used up. A response that can be read in two ways (RFC 9112 §6, §11) is not passed on. A
// response that broke off never looks whole to the client, and a request body that broke off never
// looks whole to the task. A draining task that counts zero gets nothing more.
//
// Plain requests take an HTTP/1.1 path of this package's own (head.go, body.go, conn.go); upgrades
// end as a pump of bytes; gRPC goes through net/http's HTTP/2. Rate and concurrency limits are in
// tier/edge/limit: a caller puts them before a Service. Nothing here reads a directory or renders a
// page.
//
// Begin at Service and Policy. A request's life is in exchange.go.
package upstream

import (
	"cmp"
	"context"
	"math"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tenfold/internal/directory"
)

// Service is a set of tasks that answer alike. It is an http.Handler; Update says who they are.
type Service struct {
	name    string
	fail    func(http.ResponseWriter, *http.Request, error)
	done    func(*http.Request, *Result)
	drained func(string)
	waits   func()
	policy  atomic.Pointer[Policy]
	set     atomic.Pointer[set]
	budget  budget
	slowest quantiles // of latencies, for hedging
	held    atomic.Int64
	h2c     h2c

	mu    sync.Mutex           // of what follows
	known map[string]*endpoint // by id; those that left stay while they have requests
	gone  directory.Load       // of those that left
	wake  chan struct{}        // closed when a held request should look again
}

// NewService makes a service without tasks. It starts nothing; Run does what needs a clock.
func NewService(c Config) *Service {
	s := &Service{name: c.Name, fail: c.Fail, done: c.Done, drained: c.Drained, waits: c.Waits, known: map[string]*endpoint{}, wake: make(chan struct{})}
	if s.fail == nil {
		s.fail = fail
	}
	s.SetPolicy(c.Policy)
	s.set.Store(&set{})
	return s
}

// SetPolicy changes the policy for requests to come.
func (s *Service) SetPolicy(p Policy) { s.policy.Store(p.withDefaults()) }

// Update says which tasks there are, and why there are none. Tasks known by id and address keep
// their counts, latencies and connections. A task that drains, or is no longer named, gets no new
// request once Update has returned; what is in flight goes on.
func (s *Service) Update(tasks []Endpoint, down string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := clock()
	first := len(s.set.Load().all) == 0
	next := &set{down: down}
	named := make(map[string]bool, len(tasks))
	for _, t := range tasks {
		e := s.known[t.ID]
		if e == nil || e.addr != t.Addr || e.release != t.Release {
			if e != nil {
				e.draining.Store(true) // the task that had this id
				e.pool.close(true)
				s.gone.Add(e.load()) // what it goes on answering is not counted any more
			}
			e = newEndpoint(t, s.drained)
			if !first {
				e.since.Store(now)
			}
			s.known[t.ID] = e
		}
		e.grant(t.Leased, now)
		named[t.ID] = true
		next.all = append(next.all, e)
		if !t.Draining && t.Weight > 0 && !math.IsInf(t.Weight, 1) {
			next.add(e, t.Weight)
			e.pool.open()
			e.told.Store(false)
			e.draining.Store(false)
		}
	}
	slices.SortFunc(next.releases, func(a, b *release) int { return cmp.Compare(a.name, b.name) })
	s.set.Store(next)
	// After the store: who sees the mark finds a set without the task.
	for i, t := range tasks {
		if t.Draining {
			e := next.all[i]
			e.draining.Store(true)
			e.pool.close(false)
			if e.inFlight.Load() == 0 {
				e.tell()
			}
		}
	}
	for id, e := range s.known {
		if !named[id] {
			e.draining.Store(true)
			e.pool.close(true)
			if e.inFlight.Load() == 0 {
				e.tell()
				s.forget(id, e)
			}
		}
	}
	s.release()
}

// release lets held requests look again. Under s.mu.
func (s *Service) release() {
	close(s.wake)
	s.wake = make(chan struct{})
}

func (s *Service) waiting() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wake
}

// Counts gives the traffic of every task that is named or still has requests.
func (s *Service) Counts() []Count {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := clock()
	out := make([]Count, 0, len(s.known))
	for _, e := range s.known {
		c := Count{ID: e.id, Addr: e.addr, Release: e.release, InFlight: e.inFlight.Load(), Requests: e.requests.Load(), Errors: e.errors.Load(),
			Latency: time.Duration(e.latency(now)), Ejected: e.ejected.Load() != 0 && now < e.ejected.Load(), Sick: e.sick.Load(), Refusing: e.redial.Load() != 0, Draining: e.draining.Load(), Lapsed: e.lapsed(now)}
		for i := range e.class {
			c.Class[i] = e.class[i].Load()
		}
		for i := range e.buckets {
			c.Buckets = append(c.Buckets, e.buckets[i].Load())
		}
		e.pool.mu.Lock()
		c.Idle = len(e.pool.idle)
		e.pool.mu.Unlock()
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Count) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// Renew lets tasks that need a lease have requests for as long as a lease lasts, and until errors more of
// each failed. Those that are not this service's, or need none, are passed over.
func (s *Service) Renew(l directory.Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := clock()
	for _, id := range l.Tasks {
		if e := s.known[id]; e != nil && e.lease.Load() != nil {
			e.lease.Store(&lease{until: now + int64(directory.LeaseFor), errors: e.errors.Load() + uint64(max(0, l.Errors))})
		}
	}
}

// Held is how many requests wait for a task.
func (s *Service) Held() int { return int(s.held.Load()) }

// ServeHTTP carries a request to a task and the answer back. When the answer breaks off after it
// began, it panics with http.ErrAbortHandler, by which a server ends the client's stream unfinished.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.Serve(w, r, Route{}) }

// Serve is ServeHTTP with what a route overrides.
func (s *Service) Serve(w http.ResponseWriter, r *http.Request, route Route) {
	x := exchange{service: s, policy: s.policy.Load(), w: w, r: r, start: clock()}
	x.timeout = cmp.Or(route.Timeout, x.policy.Timeout)
	x.hedge = cmp.Or(route.Hedge, x.policy.Hedge)
	if s.done != nil {
		defer func() {
			if x.result.Total == 0 { // the writer panicked
				x.result.Err, x.result.Total = ErrClientGone, time.Duration(clock()-x.start)
				s.done(r, &x.result)
			}
		}()
	}
	err := x.run()
	if err != nil && !x.begun {
		x.result.Status = Status(err)
		s.fail(w, r, err)
	}
	x.result.Err, x.result.Total = err, max(time.Duration(clock()-x.start), 1)
	if s.done != nil {
		s.done(r, &x.result)
	}
	if err != nil && x.begun && !x.taken {
		abort(w, r)
	}
}

// Run does what needs a clock: it asks tasks for their health and closes idle connections, until ctx
// ends; then it closes all idle ones. A Service serves without it, but keeps idle connections longer.
func (s *Service) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.checkHealth(ctx) })
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.Close()
			return nil
		case <-tick.C:
			s.sweep(clock())
		}
	}
}

func (s *Service) sweep(now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	named := s.set.Load().all
	for id, e := range s.known {
		e.pool.sweep(now)
		if e.inFlight.Load() == 0 && !slices.Contains(named, e) {
			s.forget(id, e)
		}
	}
}

// forget drops a task and keeps its sums. Under s.mu.
func (s *Service) forget(id string, e *endpoint) {
	s.gone.Add(e.load())
	delete(s.known, id)
}

// Load is how the service was used since it was made: the sums never fall.
func (s *Service) Load() directory.Load {
	s.mu.Lock()
	defer s.mu.Unlock()
	var l directory.Load
	l.Add(s.gone)
	l.InFlight = 0
	for _, e := range s.known {
		l.Add(e.load())
	}
	l.Waiting = s.held.Load()
	return l
}

// Asleep says that requests wait and no task is there to take them.
func (s *Service) Asleep() bool { return s.held.Load() > 0 && len(s.set.Load().releases) == 0 }

// Close closes idle connections. Requests under way go on, and their connections close after them.
func (s *Service) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.known {
		e.pool.close(true)
	}
	s.h2c.close()
	return nil
}
