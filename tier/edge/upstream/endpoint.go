package upstream

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tenfold/internal/directory"
)

// How tasks are judged.
const (
	// memory is the time constant in which a measured latency is forgotten.
	memory = 5 * time.Second
	// grain is added to latencies, so that microseconds of difference decide nothing.
	grain = 250 * time.Microsecond
	// spread bounds by how much a slower task is avoided; what it has in flight counts beside.
	spread = 16
	// even is the ratio below which two tasks count as equal, so that chance decides between them.
	even = 1.2

	slowLeast = 50 * time.Millisecond // more than others, that a far slower task must be
	slowTimes = 5                     // in a row

	redialFirst = 50 * time.Millisecond  // after a refused connection
	redialMost  = 250 * time.Millisecond // below the second in which a service must be back
)

// endpoint is one task, with its traffic since it became known.
type endpoint struct {
	id, addr string
	release  string
	draining atomic.Bool
	told     atomic.Bool // that it drained
	drained  func(string)
	inFlight atomic.Int64
	requests atomic.Uint64
	errors   atomic.Uint64
	class    [6]atomic.Uint64 // of answers, by status class; 0: none came
	buckets  []atomic.Uint64  // by directory.Bounds, of the time to the first byte
	busy     atomic.Int64     // those times in sum
	pool     pool

	since    atomic.Int64          // clock when it began to take requests, for its slow start; 0: long ago
	redial   atomic.Int64          // clock before which nobody connects, since it refused; 0: it answers
	refusals atomic.Int32          // in a row
	ejected  atomic.Int64          // clock until which it is passed over; 0: not
	sick     atomic.Bool           // its health check fails
	lease    atomic.Pointer[lease] // nil: it needs none

	cost      atomic.Uint64 // float64: latency in nanoseconds; 0: unknown
	stamp     atomic.Int64  // clock of the last measurement
	mu        sync.Mutex    // of measurements and the following
	fails     int           // in a row
	ejections int
	slow      atomic.Int32 // answers in a row that were far slower than the others'
}

func newEndpoint(e Endpoint, drained func(string)) *endpoint {
	return &endpoint{id: e.ID, addr: e.Addr, release: e.Release, drained: drained, buckets: make([]atomic.Uint64, len(directory.Bounds)+1)}
}

// lease lets a task have requests until a moment, and until it failed so many in all.
type lease struct {
	until  int64 // clock
	errors uint64
}

// firstErrors is how many requests a task may fail before its lease was renewed for the first time.
const firstErrors = 10

// grant begins the lease of a task that needs one, and ends the need.
func (e *endpoint) grant(leased bool, now int64) {
	switch have := e.lease.Load(); {
	case !leased:
		e.lease.Store(nil)
	case have == nil:
		e.lease.Store(&lease{until: now + int64(directory.LeaseFor), errors: e.errors.Load() + firstErrors})
	}
}

// lapsed says that the task had a lease and has it no more.
func (e *endpoint) lapsed(now int64) bool {
	l := e.lease.Load()
	return l != nil && (now >= l.until || e.errors.Load() >= l.errors)
}

// answered counts an answer by its status; 0: none came.
func (e *endpoint) answered(status int) {
	if c := status / 100; c >= 0 && c < len(e.class) {
		e.class[c].Add(1)
	}
	if status == 0 || status >= 500 {
		e.errors.Add(1)
	}
}

// load is how the task was used.
func (e *endpoint) load() directory.Load {
	l := directory.Load{Requests: e.requests.Load(), Busy: time.Duration(e.busy.Load()), InFlight: e.inFlight.Load(), Buckets: make([]uint64, len(e.buckets))}
	for i := range e.buckets {
		l.Buckets[i] = e.buckets[i].Load()
		l.Answered += l.Buckets[i]
	}
	return l
}

// leave ends a request, and tells when a draining task has none left.
func (e *endpoint) leave() {
	if e.inFlight.Add(-1) == 0 && e.draining.Load() {
		e.tell()
	}
}

func (e *endpoint) tell() {
	if !e.told.Swap(true) && e.drained != nil {
		e.drained(e.id)
	}
}

// observe takes a measured latency. A rise is taken half at once, so that a task that became slow is
// avoided by the next requests; a fall takes memory.
func (e *endpoint) observe(now int64, took time.Duration) {
	i, _ := slices.BinarySearch(directory.Bounds, took)
	e.buckets[i].Add(1)
	e.busy.Add(int64(took))
	t := float64(took)
	e.mu.Lock()
	cost := math.Float64frombits(e.cost.Load())
	switch keep := math.Exp(-float64(now-e.stamp.Load()) / float64(memory)); {
	case cost == 0:
		cost = t
	case t > cost:
		cost += (t - cost) / 2
	default:
		cost = cost*keep + t*(1-keep)
	}
	e.cost.Store(math.Float64bits(max(cost, 1)))
	e.stamp.Store(now)
	e.mu.Unlock()
}

// latency is the measured one, faded since: a task that was slow is tried again some time.
func (e *endpoint) latency(now int64) float64 {
	cost := math.Float64frombits(e.cost.Load())
	if age := now - e.stamp.Load(); cost != 0 && age > int64(memory)/8 {
		cost *= math.Exp(-float64(age) / float64(memory))
	}
	return cost
}

// lighter says that a should rather take the next request than b: it has the lower product of
// requests in flight and the square of its latency. The square, since most of what a task has in
// flight does not make the next one wait: by the plain product a task ten times slower still gets
// requests as soon as the others have ten in flight each, and the slowest hundredth is its own.
func lighter(now int64, a, b *endpoint) bool {
	la, lb := a.latency(now), b.latency(now)
	switch {
	case la == 0 || lb == 0: // nothing is known of one: count alone
		la, lb = 1, 1
	default:
		la, lb = la+float64(grain), lb+float64(grain)
		la, lb = min(la, spread*lb), min(lb, spread*la)
	}
	return even*la*la*float64(a.inFlight.Load()+1) < lb*lb*float64(b.inFlight.Load()+1)
}

// refused notes that no connection could be made. The next attempt waits, a little longer each time.
func (e *endpoint) refused(now int64) {
	n := e.refusals.Add(1)
	wait := min(redialFirst<<min(n-1, 8), redialMost)
	e.redial.Store(now + int64(wait))
	e.pool.close(false)
}

// reached notes that the task takes connections, and says whether it did not before.
func (e *endpoint) reached() bool {
	if e.redial.Load() == 0 {
		return false
	}
	e.refusals.Store(0)
	return e.redial.Swap(0) != 0
}

// good notes an answer.
func (e *endpoint) good() {
	e.mu.Lock()
	e.fails, e.ejections = 0, e.ejections/2
	e.mu.Unlock()
}

// bad notes a failure, and passes the task over when there were too many in a row.
func (e *endpoint) bad(now int64, p *Eject) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fails++; p.Failures > 0 && e.fails >= p.Failures {
		e.eject(now, p)
	}
}

// eject passes the task over, longer each time. Under e.mu.
func (e *endpoint) eject(now int64, p *Eject) {
	if until := e.ejected.Load(); until != 0 && now < until {
		return
	}
	wait := min(p.Base<<min(e.ejections, 10), p.Most)
	e.ejections++
	e.fails = 0
	e.slow.Store(0)
	e.ejected.Store(now + int64(wait))
}

// out says that the task is passed over. The one that sees the time pass lets it start slowly.
func (e *endpoint) out(now int64) bool {
	until := e.ejected.Load()
	if until == 0 {
		return false
	}
	if now < until {
		return true
	}
	if e.ejected.CompareAndSwap(until, 0) {
		e.since.Store(now)
	}
	return false
}

// compare ejects a task whose answers are, one after the other, far slower than the others' are. What
// a single answer took is compared, not the average: one slow request must not count twice.
func (e *endpoint) compare(now int64, took time.Duration, s *set, p *Eject) {
	if p.Latency <= 1 || took < slowLeast && e.slow.Load() == 0 {
		return
	}
	var all []float64
	if took >= slowLeast {
		for _, o := range s.takers() {
			if l := o.latency(now); o != e && l > 0 {
				all = append(all, l)
			}
		}
	}
	slices.Sort(all)
	if len(all) == 0 || float64(took) < all[len(all)/2]*p.Latency+float64(slowLeast) {
		e.slow.Store(0)
		return
	}
	if e.slow.Add(1) >= slowTimes {
		e.mu.Lock()
		e.eject(now, p)
		e.mu.Unlock()
	}
}
