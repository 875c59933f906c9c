package upstream

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// window is the seconds over which a budget counts.
const window = 10

// budget bounds retries to a share of requests, so that a service in trouble is not buried under
// them: a fixed number of tries for each request multiplies the load just when it hurts.
type budget struct {
	seconds [window]second
}

type second struct {
	at       atomic.Int64 // which second is counted here
	requests atomic.Int64
	retries  atomic.Int64
}

func (b *budget) second(now int64) *second {
	at := now / int64(time.Second)
	s := &b.seconds[((at%window)+window)%window]
	if had := s.at.Load(); had != at && s.at.CompareAndSwap(had, at) {
		s.requests.Store(0)
		s.retries.Store(0)
	}
	return s
}

// request counts a request.
func (b *budget) request(now int64) { b.second(now).requests.Add(1) }

// take allows a retry, and counts it.
func (b *budget) take(now int64, p *Retry) bool {
	var requests, retries int64
	at := now / int64(time.Second)
	for i := range b.seconds {
		if s := &b.seconds[i]; at-s.at.Load() < window {
			requests += s.requests.Load()
			retries += s.retries.Load()
		}
	}
	if float64(retries) >= float64(requests)*p.Share+p.Least*window {
		return false
	}
	b.second(now).retries.Add(1)
	return true
}

// quantiles estimates quantiles of recent latencies, to a fifth of their value.
type quantiles struct {
	n       atomic.Int64
	buckets [256]atomic.Int64 // four to an octave of nanoseconds
}

func (q *quantiles) add(d time.Duration) {
	q.buckets[bucketOf(d)].Add(1)
	if n := q.n.Add(1); n >= 8192 && q.n.CompareAndSwap(n, n/2) {
		for i := range q.buckets { // half of the past is forgotten
			q.buckets[i].Add(-q.buckets[i].Load() / 2)
		}
	}
}

func bucketOf(d time.Duration) int {
	v := uint64(max(d, 4))
	exp := bits.Len64(v) - 1
	return exp*4 + int(v>>(exp-2)&3)
}

// at gives the latency that a share of requests stays below; 0 while too few are known.
func (q *quantiles) at(share float64) time.Duration {
	n := q.n.Load()
	if n < 100 {
		return 0
	}
	left := int64(float64(n) * share)
	for i := range q.buckets {
		if left -= q.buckets[i].Load(); left < 0 {
			exp, part := i/4, i%4
			return time.Duration(uint64(5+part) << exp >> 2) // the bucket's upper end
		}
	}
	return 0
}
