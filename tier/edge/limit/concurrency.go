package limit

import (
	"context"
	"math"
	"net/http"
	"sync"
	"time"
)

// Load is how many requests may be under way at once.
type Load struct {
	// Most is the limit, or with Adaptive its upper bound (1000 then).
	Most int
	// Adaptive finds the limit by itself: it grows while answers take as long as usual and shrinks
	// when they take longer. Least (4) is its lower bound.
	Adaptive bool
	Least    int
	// Queue is how many requests may wait for others to end (as many as may be under way; negative:
	// none), and Wait for how long (100 ms). Once the queue has not been empty for that long, only
	// Hurry (5 ms): a queue that stands makes everybody late and nobody faster.
	Queue int
	Wait  time.Duration
	Hurry time.Duration
}

// How the limit adapts: gradient2 of Netflix' concurrency-limits. Answers of a short window are
// compared with those of a long one, not with the fastest ever, which only the cheapest route
// reaches.
const (
	windowTime  = 100 * time.Millisecond
	windowLeast = 10  // answers in a window
	longWeight  = 300 // windows that the usual time is made of
	tolerance   = 1.5 // slower than usual that is borne
	smoothing   = 0.2
)

// Concurrency limits how many requests are under way, and sheds the rest early, so that those which
// are served stay fast. It has no goroutine.
type Concurrency struct {
	load Load

	mu       sync.Mutex
	limit    float64
	under    int
	waiting  []*waiter // oldest first
	emptied  time.Time // when nobody waited last
	long     float64   // usual time of an answer in nanoseconds; 0: unknown
	sum      float64   // of this window
	n, shed  int       // answers, and failures, in it
	peak     int       // most under way in it
	windowAt time.Time
	// What answers took, and the limit, since when they are slow; 0: they are not.
	slowLimit, slowShort float64
	refused              uint64
}

type waiter struct {
	pass chan struct{} // closed when it may go
	gone bool          // passed, or left
}

// NewConcurrency makes a limiter.
func NewConcurrency(l Load) *Concurrency {
	if l.Most <= 0 {
		l.Most = 1000
	}
	if l.Least <= 0 {
		l.Least = 4
	}
	l.Least = min(l.Least, l.Most)
	if l.Wait <= 0 {
		l.Wait = 100 * time.Millisecond
	}
	if l.Hurry <= 0 {
		l.Hurry = 5 * time.Millisecond
	}
	c := &Concurrency{load: l, limit: float64(l.Most)}
	if l.Adaptive {
		c.limit = float64(max(l.Least, min(l.Most, 32)))
	}
	return c
}

// Limit is how many requests may be under way now.
func (c *Concurrency) Limit() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int(c.limit)
}

// Counts gives how many requests are under way and waiting, and how many were refused so far.
func (c *Concurrency) Counts() (under, waiting int, refused uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.under, len(c.waiting), c.refused
}

// Acquire waits for a place. The error is a *Denied with status 503, or ctx's. Each place must be
// given back once, by Release or Leave.
func (c *Concurrency) Acquire(ctx context.Context) error {
	c.mu.Lock()
	now := time.Now()
	if len(c.waiting) == 0 {
		c.emptied = now
		if c.under < int(c.limit) {
			c.take()
			c.mu.Unlock()
			return nil
		}
	}
	if len(c.waiting) >= c.queue() {
		d := c.refuse()
		c.mu.Unlock()
		return d
	}
	w := &waiter{pass: make(chan struct{})}
	c.waiting = append(c.waiting, w)
	wait := c.load.Wait
	if c.stands(now) {
		wait = c.load.Hurry
	}
	c.mu.Unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	var err error
	select {
	case <-w.pass:
		return nil
	case <-timer.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.gone {
		return nil // it was let pass meanwhile
	}
	c.leaveQueue(w)
	if err == nil {
		err = c.refuse()
	}
	return err
}

func (c *Concurrency) take() {
	c.under++
	c.peak = max(c.peak, c.under)
}

func (c *Concurrency) queue() int {
	switch {
	case c.load.Queue < 0:
		return 0
	case c.load.Queue == 0:
		return int(c.limit)
	}
	return c.load.Queue
}

// stands says that the queue has not been empty for Wait: there is more than can be served.
func (c *Concurrency) stands(now time.Time) bool { return now.Sub(c.emptied) > c.load.Wait }

func (c *Concurrency) refuse() *Denied {
	c.refused++
	return &Denied{http.StatusServiceUnavailable, "too many requests are under way", time.Second}
}

func (c *Concurrency) leaveQueue(w *waiter) {
	for i, o := range c.waiting {
		if o == w {
			w.gone = true
			c.waiting = append(c.waiting[:i], c.waiting[i+1:]...)
			return
		}
	}
}

// Release gives a place back after an answer that took so long. Failed says that it was none: a time
// limit passed, or the service itself was overloaded.
func (c *Concurrency) Release(took time.Duration, failed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.load.Adaptive {
		c.sample(time.Now(), took, failed)
	}
	c.leave()
}

// Leave gives a place back of which nothing was learned: its request became a stream, or its client
// went away.
func (c *Concurrency) Leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leave()
}

func (c *Concurrency) leave() {
	c.under--
	now := time.Now()
	for len(c.waiting) > 0 && c.under < int(c.limit) {
		// While the queue stands, who came last goes first: its time is not up yet, and nothing is
		// served for clients that gave up.
		i := 0
		if c.stands(now) {
			i = len(c.waiting) - 1
		}
		w := c.waiting[i]
		c.leaveQueue(w)
		c.take()
		close(w.pass)
	}
	if len(c.waiting) == 0 {
		c.emptied = now
	}
}

// sample takes the time of an answer, and at the end of a window adapts the limit.
func (c *Concurrency) sample(now time.Time, took time.Duration, failed bool) {
	if c.n == 0 && c.shed == 0 {
		c.windowAt = now
	}
	if failed {
		c.shed++
	} else {
		c.n++
		c.sum += float64(took)
	}
	if c.n+c.shed < windowLeast || now.Sub(c.windowAt) < windowTime {
		return
	}
	switch {
	case c.shed*10 > c.n:
		c.limit = max(float64(c.load.Least), c.limit*0.9)
	case c.n > 0:
		c.adapt(c.sum / float64(c.n))
	}
	c.n, c.shed, c.sum, c.peak = 0, 0, 0, c.under
}

func (c *Concurrency) adapt(short float64) {
	switch {
	case c.long == 0 || c.inItself(short):
		c.long = short
	case c.long > 2*short: // it was slow for long, and is no more
		c.long *= 0.95
	default:
		weight := 1.0 / longWeight
		if short > c.long*tolerance {
			weight /= 10 // what is slow under load must not become the usual
		}
		c.long += (short - c.long) * weight
	}
	if float64(c.peak) < c.limit/2 {
		return // the limit did not matter
	}
	gradient := max(0.5, min(1, tolerance*c.long/short))
	next := c.limit*gradient + math.Sqrt(c.limit)/2
	c.limit = c.limit*(1-smoothing) + next*smoothing
	c.limit = min(max(c.limit, float64(c.load.Least)), float64(c.load.Most))
}

// inItself says that the service is slow whatever its load: since answers became slow the limit fell
// far, and they are as slow as before. Without this a release that is slower than the last one would
// be starved.
func (c *Concurrency) inItself(short float64) bool {
	if short <= c.long*tolerance {
		c.slowLimit = 0
		return false
	}
	if c.slowLimit == 0 || short < c.slowShort*0.8 {
		c.slowLimit, c.slowShort = c.limit, short
		return false
	}
	if c.limit > c.slowLimit*0.6 && c.limit > float64(c.load.Least) {
		return false
	}
	c.slowLimit = 0
	return true
}

// Handler lets requests pass while there is a place and answers 503 with Retry-After else. An answer's
// time is that to its head; an answer that becomes a stream (text/event-stream, or an upgraded
// connection) gives its place back then.
func (c *Concurrency) Handler(next http.Handler, deny Deny) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := c.Acquire(r.Context()); err != nil {
			if d, ok := err.(*Denied); ok {
				refuse(w, r, d, deny)
			}
			return
		}
		p := &place{ResponseWriter: w, c: c, begun: time.Now()}
		defer p.end(r)
		next.ServeHTTP(p, r)
	})
}
