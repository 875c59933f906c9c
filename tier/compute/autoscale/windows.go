package autoscale

import (
	"time"
)

// lookBack is how far back the last begin of a window is looked for: a week and a day for what comes by
// weekdays; what comes more rarely holds from its first time on.
const lookBack = 8 * 24 * time.Hour

// windows remembers which window holds, and until when to ask nobody again.
type windows struct {
	now   int // index; -1: none
	since time.Time
	until time.Time // zero: not asked yet
}

// bounds are those that hold at a time, with the words for the reason.
func (s *Scaler) bounds(at time.Time) (low, high int, why string) {
	if len(s.t.Windows) == 0 {
		return s.t.Min, s.t.Max, ""
	}
	w := &s.win
	if w.until.IsZero() || !at.Before(w.until) {
		began := at.Add(-lookBack)
		first := w.until.IsZero()
		if first {
			w.now = -1
		}
		w.until = at.Add(lookBack)
		for i, x := range s.t.Windows {
			from := began
			if !first && w.since.After(from) {
				from = w.since
			}
			if tick := lastTick(x, from, at); !tick.IsZero() && !tick.Before(w.since) {
				w.now, w.since = i, tick
			}
			if next, err := x.When.Next(began, at); err == nil && !next.IsZero() && next.Before(w.until) {
				w.until = next
			}
		}
	}
	if w.now < 0 {
		return s.t.Min, s.t.Max, ""
	}
	x := s.t.Windows[w.now]
	return x.Min, x.Max, " since " + w.since.UTC().Format("Mon 15:04") + " by schedule"
}

// lastTick is the last time in (from, to] at which a window began; zero: none.
func lastTick(x Window, from, to time.Time) time.Time {
	// Halving finds it without walking through every minute of a week.
	lo, hi := from, to
	next := func(t time.Time) time.Time {
		n, err := x.When.Next(from, t)
		if err != nil || n.After(to) {
			return time.Time{}
		}
		return n
	}
	best := next(lo)
	if best.IsZero() {
		return best
	}
	for hi.Sub(lo) > time.Minute {
		mid := lo.Add(hi.Sub(lo) / 2)
		if n := next(mid); !n.IsZero() {
			best, lo = n, mid
		} else {
			hi = mid
		}
	}
	for n := next(best); !n.IsZero(); n = next(best) {
		best = n
	}
	return best
}
