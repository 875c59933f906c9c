package cache

import (
	"fmt"
	"time"

	"tenfold"
)

// How many readers there are between the bounds of the manifest goes by how busy the servers are that answer
// reads. A server of this kind works on one processor: its load is the share of one that it uses.
const (
	loadPace = 10 * time.Second
	busyAt   = 0.6 // mean of a minute: one more
	idleAt   = 0.4 // mean of ten, had one fewer done it all: one less
	risesBy  = 6   // samples
	fallsBy  = 60  // samples
)

// sampleOf is one look at the loads of a cache.
type sampleOf struct {
	at      time.Time
	primary float64
	readers float64 // their sum
	n       int     // of readers
}

// crowded decides how many readers there should be now, and why; 0, "" is as many as there are.
func crowded(samples []sampleOf, b tenfold.Bounds) (change int, why string) {
	if len(samples) == 0 {
		return 0, ""
	}
	last := samples[len(samples)-1]
	same := 0 // samples in a row with as many readers
	for i := len(samples) - 1; i >= 0 && samples[i].n == last.n; i-- {
		same++
	}
	mean := func(k int, of func(sampleOf) float64) (sum float64) {
		for _, s := range samples[len(samples)-k:] {
			sum += of(s)
		}
		return sum / float64(k)
	}
	if same >= risesBy && last.n < b.Max {
		load := mean(risesBy, func(s sampleOf) float64 {
			if s.n == 0 {
				return s.primary
			}
			return s.readers / float64(s.n)
		})
		if load > busyAt {
			return 1, fmt.Sprintf("what serves reads used %.0f %% of a processor for a minute", 100*load)
		}
	}
	if same >= fallsBy && last.n > b.Min {
		load := mean(fallsBy, func(s sampleOf) float64 {
			if s.n == 1 {
				return s.primary + s.readers
			}
			return s.readers / float64(s.n-1)
		})
		if load < idleAt {
			return -1, fmt.Sprintf("one fewer would have used %.0f %% of a processor in ten minutes", 100*load)
		}
	}
	return 0, ""
}

// scale samples the loads and changes the number of readers within the bounds.
func (c *Cache) scale(key string, r record, v view, now time.Time) {
	b := r.Spec.Readers
	if b.Min == b.Max {
		return
	}
	c.mu.Lock()
	s := c.scalings[key]
	if len(s) > 0 && now.Sub(s[len(s)-1].at) < loadPace {
		c.mu.Unlock()
		return
	}
	one := sampleOf{at: now, n: len(r.staying())}
	for n := range v.Nodes {
		load, ok := c.loadOf(place{key, n}, now)
		if !ok {
			c.mu.Unlock()
			return
		}
		if n == r.Primary {
			one.primary = load
		} else {
			one.readers += load
		}
	}
	s = append(s, one)
	s = s[max(0, len(s)-fallsBy):]
	c.scalings[key] = s
	c.mu.Unlock()
	change, why := crowded(s, b)
	if change == 0 {
		return
	}
	want := one.n + change
	if c.records.Change(key, func(x *record) { x.Readers = want }) == nil {
		c.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("%d of %d-%d readers: %s", want, b.Min, b.Max, why)})
		c.wake()
	}
}

// used is the processor time that a server had used at a time.
type used struct {
	cpu float64
	at  time.Time
	pid string
}

// loadOf is the share of a processor that a server used since it was asked last. The caller holds mu.
func (c *Cache) loadOf(at place, now time.Time) (float64, bool) {
	t := c.told[at]
	is := used{t.facts.number("used_cpu_user_main_thread") + t.facts.number("used_cpu_sys_main_thread"), t.at, t.facts["process_id"]}
	was, ok := c.used[at]
	c.used[at] = is
	took := is.at.Sub(was.at).Seconds()
	if !ok || was.pid != is.pid || took <= 0 || now.Sub(is.at) > loadPace {
		return 0, false
	}
	return (is.cpu - was.cpu) / took, true
}
