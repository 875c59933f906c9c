package upstream

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// set is the tasks of one Update. It never changes.
type set struct {
	all      []*endpoint // draining ones included
	releases []*release  // those that take new requests
	down     string
}

// release is the tasks of one release. Weights decide between releases by chance, exactly; load
// decides within one. Were they mixed, a canary's emptier tasks would draw more than their share.
type release struct {
	name    string
	weight  float64 // of all
	top     float64 // largest of one task
	tasks   []*endpoint
	weights []float64
}

func (s *set) add(e *endpoint, weight float64) {
	i := slices.IndexFunc(s.releases, func(r *release) bool { return r.name == e.release })
	if i < 0 {
		i = len(s.releases)
		s.releases = append(s.releases, &release{name: e.release})
	}
	r := s.releases[i]
	r.weight += weight
	r.top = max(r.top, weight)
	r.tasks, r.weights = append(r.tasks, e), append(r.weights, weight)
}

// tasks that take new requests.
func (s *set) takers() (out []*endpoint) {
	for _, r := range s.releases {
		out = append(out, r.tasks...)
	}
	return out
}

// How strictly a task must be fit to be chosen.
const (
	fitAll     = iota // healthy and not passed over
	fitHealthy        // passed over or not: too many are
	fitAny            // even sick ones
)

// choose takes a task by weight and load, or none. One that refused connections is given to one
// caller at a time, who finds out whether it is back.
func (s *set) choose(now int64, tried []*endpoint, slowStart time.Duration) *endpoint {
	for fit := s.panics(now); fit <= fitAny; fit++ {
		var room [16]*endpoint
		var total float64
		ready := 0
		var only *release
		for _, r := range s.releases {
			if r.fits(now, fit, tried, room[:0]) != nil {
				total += r.weight
				only = r
				ready++
			}
		}
		if ready == 0 {
			continue
		}
		if ready > 1 {
			at := rand.Float64() * total
			for _, r := range s.releases {
				if r.fits(now, fit, tried, room[:0]) != nil {
					only = r
					if at -= r.weight; at < 0 {
						break
					}
				}
			}
		}
		if e := only.lightest(now, only.fits(now, fit, tried, room[:0]), slowStart); e.claim(now) {
			return e
		}
		fit-- // somebody else asks whether that one is back; it is not fit any more
	}
	return nil
}

// panics gives how strict to be: when more than half of the tasks are passed over, the fault is not
// theirs, and the rest would break under the load.
func (s *set) panics(now int64) int {
	out, n := 0, 0
	for _, r := range s.releases {
		for _, e := range r.tasks {
			n++
			if e.out(now) {
				out++
			}
		}
	}
	if out*2 > n {
		return fitHealthy
	}
	return fitAll
}

// claim makes sure that of all callers only one connects to a task that refused.
func (e *endpoint) claim(now int64) bool {
	at := e.redial.Load()
	return at == 0 || e.redial.CompareAndSwap(at, now+int64(redialMost))
}

// fits gives the tasks that can be chosen, nil when there are none.
func (r *release) fits(now int64, fit int, tried []*endpoint, in []*endpoint) []*endpoint {
	for _, e := range r.tasks {
		if fit < fitAny && (e.sick.Load() || e.lapsed(now)) || fit == fitAll && e.out(now) || e.redial.Load() != 0 && now < e.redial.Load() || slices.Contains(tried, e) {
			continue
		}
		in = append(in, e)
	}
	if len(in) == 0 {
		return nil
	}
	return in
}

// crowd is how many times as much a task may have in flight as one that starts slowly and lets it take its turn. Those who
// came while a service had too few tasks wait at the old ones: more of them would not be served before the new are.
const crowd = 8

// crowded says that other has so much more in flight than e, which starts slowly, that e is the better place.
func crowded(other, e *endpoint) bool {
	return e.since.Load() != 0 && other.inFlight.Load()+1 > crowd*(e.inFlight.Load()+1)
}

// lightest takes the lighter of two by chance. A task that starts slowly, or has a smaller weight
// than others of its release, lets that part of its turns pass, unless that crowds another.
func (r *release) lightest(now int64, fit []*endpoint, slowStart time.Duration) *endpoint {
	if len(fit) == 1 {
		return fit[0]
	}
	var e, other *endpoint
	for range 4 {
		i := rand.IntN(len(fit))
		j := rand.IntN(len(fit) - 1)
		if j >= i {
			j++
		}
		e, other = fit[i], fit[j]
		if lighter(now, other, e) {
			e, other = other, e
		}
		if crowded(other, e) || r.takes(now, e, slowStart) {
			return e
		}
		if r.takes(now, other, slowStart) {
			return other
		}
	}
	return e
}

func (r *release) takes(now int64, e *endpoint, slowStart time.Duration) bool {
	share := r.share(now, e, slowStart)
	return share >= 1 || rand.Float64() < share
}

// share is the part of its turns that a task takes.
func (r *release) share(now int64, e *endpoint, slowStart time.Duration) float64 {
	share := 1.0
	if r.top > 0 && len(r.tasks) > 1 {
		if i := slices.Index(r.tasks, e); r.weights[i] != r.top {
			share = r.weights[i] / r.top
		}
	}
	since := e.since.Load()
	if since == 0 || slowStart <= 0 {
		return share
	}
	part := float64(now-since) / float64(slowStart)
	if part >= 1 {
		e.since.CompareAndSwap(since, 0)
		return share
	}
	return share * max(part, 0.02)
}

// soonest is when a task that refused connections may be asked again; MaxInt64 when none did.
func (s *set) soonest() int64 {
	at := int64(math.MaxInt64)
	for _, r := range s.releases {
		for _, e := range r.tasks {
			if t := e.redial.Load(); t != 0 {
				at = min(at, t)
			}
		}
	}
	return at
}

// pick takes a task and counts the request as in flight to it; while there is none it waits. The
// count is raised before the look at draining: once a draining task counts zero, nothing comes. A
// request that waited keeps its place among the held ones, since it may have to wait again: waits
// says so, and leaveHold ends it.
func (s *Service) pick(ctx context.Context, p *Policy, tried []*endpoint, want *endpoint, until int64, waits *bool) (*endpoint, error) {
	listens := false
	for {
		wake := (<-chan struct{})(nil)
		if listens {
			wake = s.waiting()
		}
		set, now := s.set.Load(), clock()
		e := want
		want = nil
		if e == nil || e.out(now) || e.sick.Load() || e.lapsed(now) || e.redial.Load() != 0 || slices.Contains(tried, e) {
			if e = set.choose(now, tried, p.SlowStart); e == nil && len(tried) > 0 {
				tried = nil // who broke off may be asked again, when nobody else is left
				e = set.choose(now, nil, p.SlowStart)
			}
		}
		if e != nil {
			e.inFlight.Add(1)
			if !e.draining.Load() {
				return e, nil
			}
			e.leave()
			continue // the set that says so is in use already
		}
		if now >= until {
			return nil, &Down{s.name, set.down}
		}
		if !*waits {
			if s.held.Add(1) > int64(p.HoldMost) {
				s.held.Add(-1)
				return nil, &Down{s.name, "too many requests wait for a task"}
			}
			*waits = true
			if s.waits != nil && len(set.releases) == 0 {
				s.waits()
			}
		}
		if !listens {
			listens = true
			continue // look once more: a task may have come before we listened
		}
		timer := time.NewTimer(time.Duration(max(min(until, set.soonest())-now, int64(time.Millisecond))))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ErrClientGone
		case <-wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// leaveHold gives up a place among the held requests.
func (s *Service) leaveHold(waits *bool) {
	if *waits {
		*waits = false
		s.held.Add(-1)
	}
}
