package limit

import (
	"fmt"
	"hash/maphash"
	"math"
	"net/http"
	"sync"
	"time"
)

// Rate is how often a key may come.
type Rate struct {
	Requests int           // that many
	Per      time.Duration // in that time (1 s)
	Burst    int           // at once after a pause (Requests)
	Keys     int           // that are remembered (100,000); beyond, the idlest is forgotten
	// Announce adds the RateLimit fields to every answer, not only to 429.
	Announce bool
}

const shards = 32

// Rates limits rates by GCRA (the generic cell rate algorithm, ITU-T I.371): for each key one time is
// kept, at which its allowance is whole again. Against a window that begins anew each second, nobody
// can send twice the rate around its edge; against a bucket refilled by a timer, an idle key costs
// nothing.
type Rates struct {
	rate   Rate
	step   int64 // nanoseconds between requests
	depth  int64 // nanoseconds of allowance that a burst uses up
	seed   maphash.Seed
	policy string
	begun  time.Time
	shards [shards]struct {
		mu   sync.Mutex
		full map[uint64]int64 // key -> when its allowance is whole
	}
}

// NewRates makes a limiter. Requests below 1 count as 1.
func NewRates(r Rate) *Rates {
	r.Requests = max(r.Requests, 1)
	if r.Per <= 0 {
		r.Per = time.Second
	}
	if r.Burst <= 0 {
		r.Burst = r.Requests
	}
	if r.Keys <= 0 {
		r.Keys = 100_000
	}
	l := &Rates{rate: r, step: max(int64(r.Per)/int64(r.Requests), 1), seed: maphash.MakeSeed(), begun: time.Now()}
	l.depth = l.step * int64(r.Burst)
	l.policy = fmt.Sprintf(`"default";q=%d;w=%d`, r.Burst, int64(math.Ceil(time.Duration(l.depth).Seconds())))
	for i := range l.shards {
		l.shards[i].full = map[uint64]int64{}
	}
	return l
}

// Allowance is what a key has left.
type Allowance struct {
	OK        bool
	Remaining int           // requests that may follow at once
	Retry     time.Duration // until the next is allowed, when this one is not
	Reset     time.Duration // until all of the burst is there again
}

// Take uses one request of a key's allowance, if there is one.
func (l *Rates) Take(key string) Allowance {
	now := int64(time.Since(l.begun))
	h := maphash.String(l.seed, key)
	s := &l.shards[h%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	had, known := s.full[h]
	full := max(had, now) + l.step
	if over := full - now - l.depth; over > 0 {
		return Allowance{Retry: time.Duration(over), Reset: time.Duration(had - now)}
	}
	if !known && len(s.full) >= max(l.rate.Keys/shards, 1) {
		forget(s.full, now)
	}
	s.full[h] = full
	return Allowance{OK: true, Remaining: int((l.depth - (full - now)) / l.step), Reset: time.Duration(full - now)}
}

// forget makes room: it drops what is whole again among a few keys, else the one nearest to it.
func forget(full map[uint64]int64, now int64) {
	seen, idlest, at, dropped := 0, uint64(0), int64(math.MaxInt64), false
	for k, t := range full { // a map's order is by chance
		if t <= now {
			delete(full, k)
			dropped = true
		} else if t < at {
			idlest, at = k, t
		}
		if seen++; seen == 16 {
			break
		}
	}
	if !dropped {
		delete(full, idlest)
	}
}

// Len is how many keys are remembered.
func (l *Rates) Len() (n int) {
	for i := range l.shards {
		l.shards[i].mu.Lock()
		n += len(l.shards[i].full)
		l.shards[i].mu.Unlock()
	}
	return n
}

// Handler lets requests pass while their key has allowance, and answers 429 (RFC 6585 §4) with
// Retry-After, RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10) else. A nil
// key limits all requests together.
func (l *Rates) Handler(key func(*http.Request) string, next http.Handler, deny Deny) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k := ""
		if key != nil {
			k = key(r)
		}
		a := l.Take(k)
		if !a.OK || l.rate.Announce {
			h := w.Header()
			h.Set("RateLimit-Policy", l.policy)
			h.Set("RateLimit", fmt.Sprintf(`"default";r=%d;t=%d`, a.Remaining, int64(math.Ceil(max(a.Reset, 0).Seconds()))))
		}
		if !a.OK {
			refuse(w, r, &Denied{http.StatusTooManyRequests, fmt.Sprintf("more than %d requests per %v", l.rate.Requests, l.rate.Per), a.Retry}, deny)
			return
		}
		next.ServeHTTP(w, r)
	})
}
