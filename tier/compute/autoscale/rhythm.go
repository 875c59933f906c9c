package autoscale

import (
	"fmt"
	"math"
	"time"
)

const (
	restLeast = 15                      // seconds for which a need is remembered when the next one is foreseen
	aheadBy   = 2500 * time.Millisecond // before a foreseen load, beside the boot time
	afterBy   = 4 * time.Second         // that it may be late
	onsets    = 8
	worthIt   = 20 * time.Second // of rest, for which tasks are ended and started again
)

// rhythm knows sudden loads that come again. A minute's memory forgets one that comes every two minutes,
// and pays the boot time each time; to keep its tasks all the time pays for them. Where three come at
// equal distances the next one is foreseen: tasks are started before it and let go after it. Where they
// come irregularly they are remembered for longer.
type rhythm struct {
	starts [onsets]time.Time
	peaks  [onsets]float64
	n      int // sudden loads seen
	calm   float64
	known  bool
	up     bool
	ended  time.Time
}

// step takes the need of a second. A sudden load is twice the usual need and at least a task more.
func (r *rhythm) step(at time.Time, need float64) {
	if !r.known {
		r.calm, r.known = need, true
		return
	}
	high, low := max(r.calm*1.6, r.calm+0.8), max(r.calm*1.3, r.calm+0.4)
	switch {
	case !r.up && need > high:
		r.up = true
		r.starts[r.n%onsets], r.peaks[r.n%onsets] = at, need
		r.n++
	case r.up && need < low:
		r.up, r.ended = false, at
	case r.up:
		i := (r.n - 1) % onsets
		r.peaks[i] = max(r.peaks[i], need)
		if at.Sub(r.starts[i]) > time.Minute { // no burst, but how it is from now on
			r.up, r.calm = false, need
			r.n--
		}
	default:
		r.calm += (need - r.calm) / 20
	}
}

func (r *rhythm) start(back int) time.Time { return r.starts[(r.n-1-back)%onsets] }

// period is the distance of the last sudden loads when they come evenly; 0 when not.
func (r *rhythm) period() time.Duration {
	if r.n < 4 {
		return 0
	}
	a, b, c := r.start(0).Sub(r.start(1)), r.start(1).Sub(r.start(2)), r.start(2).Sub(r.start(3))
	mean := (a + b + c) / 3
	for _, d := range []time.Duration{a, b, c} {
		if (d - mean).Abs() > max(mean/50, 2*time.Second) {
			return 0
		}
	}
	return mean
}

func (r *rhythm) peak() (most float64) {
	for i := range min(r.n, 4) {
		most = max(most, r.peaks[(r.n-1-i)%onsets])
	}
	return most
}

// window is when the next foreseen load comes, with what must be ready before.
func (r *rhythm) window(now time.Time, boot time.Duration) (from, to time.Time, ok bool) {
	p := r.period()
	if p == 0 {
		return
	}
	next := r.start(0).Add(p)
	return next.Add(-boot - aheadBy), next.Add(afterBy), true
}

// floor is what a foreseen load needs, while it is near.
func (r *rhythm) floor(now time.Time, boot time.Duration) (float64, string) {
	from, to, ok := r.window(now, boot)
	if !ok || now.Before(from) || now.After(to) {
		return 0, ""
	}
	return r.peak(), fmt.Sprintf("load comes every %s: %d tasks the last time", r.period().Round(time.Second), int(math.Ceil(r.peak())))
}

// released says that tasks may go before the next load: it is far enough away to be worth it.
func (r *rhythm) released(now time.Time, boot time.Duration) bool {
	from, _, ok := r.window(now, boot)
	return ok && !r.up && now.Before(from) && from.Sub(r.ended) > max(boot, worthIt)
}

// hold is for how many seconds a need is remembered, since sudden loads come again without order.
func (r *rhythm) hold() int {
	if r.n < 2 {
		return 0
	}
	gap := 0.0
	for i := range min(r.n-1, 3) {
		gap = max(gap, r.start(i).Sub(r.start(i+1)).Seconds())
	}
	if gap *= 1.25; gap > holdMost {
		return 0
	}
	return max(holdLeast, int(gap))
}
