package upstream

import (
	"context"
	"net/http"
	"time"
)

// hedgeAfter is how long the first task has before a second is asked; 0: for ever.
func (s *Service) hedgeAfter(h *Hedge, method string) time.Duration {
	if h.After <= 0 && h.Quantile <= 0 || method != http.MethodGet && method != http.MethodHead && method != http.MethodOptions {
		return 0
	}
	if h.Quantile > 0 {
		if at := s.slowest.at(min(h.Quantile, 0.999)); at > 0 {
			return max(at, h.After)
		}
	}
	return h.After
}

// outcome is what one of two tries came to. Each works on its own copy of the exchange.
type outcome struct {
	x      *exchange
	e      *endpoint
	c      *conn
	err    error
	cancel context.CancelFunc
}

// tryTwo asks first, and after a while another task too. The first answer wins; the other try is cut
// off and gone when this returns.
func (x *exchange) tryTwo(first *endpoint, after time.Duration) (*conn, error) {
	results := make(chan outcome, 2)
	var cancels []context.CancelFunc
	start := func(e *endpoint) {
		y := *x
		y.hedged = true
		y.result.Endpoint, y.result.Release = e.id, e.release
		ctx, cancel := context.WithCancel(x.r.Context())
		cancels = append(cancels, cancel)
		go func() {
			c, err := y.send(e, ctx)
			results <- outcome{&y, e, c, err, cancel}
		}()
	}
	start(first)
	timer := time.NewTimer(after)
	defer timer.Stop()
	running, got := 1, outcome{}
	for running > 0 && got.c == nil {
		select {
		case got = <-results:
			running--
			if got.err != nil && running > 0 {
				x.lost(got)
			}
		case <-timer.C:
			now := clock()
			e := x.service.set.Load().choose(now, []*endpoint{first}, x.policy.SlowStart)
			if e == nil {
				continue
			}
			if e.inFlight.Add(1); e.draining.Load() || !x.service.budget.take(now, &x.policy.Retry) {
				e.leave()
				continue
			}
			x.result.Hedged = true
			running++
			start(e)
		}
	}
	if got.c != nil {
		got.c.follow(x.r.Context())
	}
	for _, cancel := range cancels {
		cancel()
	}
	tries := 0
	for ; running > 0; running-- {
		other := <-results
		tries += other.x.result.Tries
		x.lost(other)
	}
	got.x.result.Hedged = x.result.Hedged
	x.result = got.x.result
	x.result.Tries += tries
	return x.judge(got.e, got.c, got.err)
}

// lost ends a try that did not win.
func (x *exchange) lost(o outcome) {
	if o.err != nil {
		x.judge(o.e, nil, o.err)
		return
	}
	// It may just be slower this time, or a task that hangs: what it took is a lower bound.
	o.e.observe(clock(), time.Duration(clock()-o.c.asked))
	o.c.end()
	o.c.discard()
	o.e.leave()
}
