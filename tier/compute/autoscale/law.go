package autoscale

import (
	"math"
	"time"
)

const (
	bins     = 128
	room     = 0.78                  // the share of a task's capacity that arrivals may fill
	spread   = 0.9                   // square roots of the work that are kept free beside it
	drainFor = 0.7                   // seconds in which what has piled up should be gone
	perGuess = 10                    // requests at once that a task is taken to do until measured
	serve    = 50 * time.Millisecond // the same of the time that one takes
	blocks   = 12                    // of the memory of undisturbed service times
	blockFor = 50                    // seconds, each
)

// law keeps what the arithmetic needs of the past.
type law struct {
	arrived, busy, done [bins]float64 // a second each
	n                   int           // bins written so far
	fastest             [blocks]float64
	at                  int
	inBlock             float64
	knee                float64 // measured concurrency of a task
	cpu                 mean
}

// load is what is offered at one moment.
type load struct {
	rate    float64 // arrivals a second
	slope   float64 // of it, a second
	service float64 // seconds that a request takes at a task
	per     float64 // requests that a task does at once
	queue   float64 // requests that wait, at the door or at tasks that have too many
}

// lambda is the rate of arrivals when a task that is started now is there.
func (l load) lambda(boot time.Duration) float64 {
	return min(l.rate+l.slope*boot.Seconds(), 2*l.rate)
}

// erlangs is the capacity for so much work offered at once: a share is kept free, and of little work,
// where chance weighs more, the square root.
func erlangs(a float64) float64 { return max(a/room, a+spread*math.Sqrt(a)) }

// measure takes in a sample.
func (w *law) measure(x Sample, dt float64, concurrency float64) load {
	for range min(max(1, int(dt+0.5)), bins) {
		i := w.n % bins
		w.arrived[i], w.busy[i], w.done[i] = float64(x.Arrived)/dt, x.Busy.Seconds()/dt, float64(x.Finished)/dt
		w.n++
	}
	l := load{per: concurrency}
	l.rate, l.slope = w.rate(x.Boot)
	l.service = w.service(dt)
	if l.per <= 0 {
		l.per = w.measured(x, dt, l.service)
	}
	l.queue = float64(x.Waiting) + max(0, float64(x.InFlight)-float64(x.Ready)*l.per)
	return l
}

// over is the mean of the last n bins after skipping some.
func (w *law) over(b *[bins]float64, skip, n int) float64 {
	n = min(n, w.n-skip, bins-skip)
	if n <= 0 {
		return 0
	}
	sum := 0.0
	for i := 1 + skip; i <= n+skip; i++ {
		sum += b[(w.n-i)%bins]
	}
	return sum / float64(n)
}

// rate is the mean of 20 s, unless the last two seconds, or the last one, leave what chance explains
// of it. The slope is the smallest of three in a row: a load that rises goes on rising, one that jumped
// does not.
func (w *law) rate(boot time.Duration) (rate, slope float64) {
	rate = w.over(&w.arrived, 0, 20)
	if two := w.over(&w.arrived, 0, 2); math.Abs(two-rate) > 3*math.Sqrt(max(rate, 1)/2) {
		rate = two
	}
	if one := w.over(&w.arrived, 0, 1); one > rate+4*math.Sqrt(max(rate, 1)) {
		rate = one
	}
	// The longer a boot takes, the more it is worth to know the slope well, and the longer it may take.
	n := int(min(max(boot.Seconds()/2, 5), 20))
	if w.n < 4*n {
		return rate, 0
	}
	slope = math.Inf(1)
	for i := range 3 {
		slope = min(slope, (w.over(&w.arrived, n*i, n)-w.over(&w.arrived, n*(i+1), n))/float64(n))
	}
	if slope < math.Sqrt(2*max(rate, 1)/float64(n))/float64(n)/2 {
		slope = 0
	}
	return rate, slope
}

// service is how long a request takes at a task: that of the last seconds, but not more than twice the
// fastest of the last ten minutes. Beyond that it is tasks with too much to do that make it long, and
// the work would be counted twice, as long service and as a queue.
func (w *law) service(dt float64) float64 {
	now := 0.0
	if done := w.over(&w.done, 0, 10); done > 0 {
		now = w.over(&w.busy, 0, 10) / done
	}
	if w.inBlock += dt; w.inBlock >= blockFor {
		w.inBlock, w.at = 0, (w.at+1)%blocks
		w.fastest[w.at] = 0
	}
	if f := &w.fastest[w.at]; now > 0 && (*f == 0 || now < *f) {
		*f = now
	}
	if now == 0 {
		if now = w.best(); now == 0 {
			now = serve.Seconds()
		}
		return now
	}
	return min(now, 2*w.best())
}

func (w *law) best() (least float64) {
	for _, f := range w.fastest {
		if f > 0 && (least == 0 || f < least) {
			least = f
		}
	}
	return least
}

// measured is how much a task does at once, where nobody says it. A task that slows down shows it: then
// what it finishes a second, times what one request takes undisturbed, is what it does at once.
func (w *law) measured(x Sample, dt, service float64) float64 {
	if w.knee == 0 {
		w.knee = perGuess
	}
	best := w.best()
	if x.Ready == 0 || x.Finished < 10 || best == 0 {
		return w.knee
	}
	each := float64(x.InFlight) / float64(x.Ready)
	took := x.Busy.Seconds() / float64(x.Finished)
	switch full := float64(x.Finished) / dt / float64(x.Ready) * best; {
	case took > 1.5*best && each > 1.3*full:
		w.knee += (max(full, 0.25) - w.knee) * 0.5
	case took < 1.2*best && each > w.knee:
		w.knee += (each - w.knee) * 0.5
	}
	return w.knee
}

// mean forgets in about ten samples.
type mean struct {
	v   float64
	set bool
}

func (m *mean) take(v float64) float64 { return m.near(v, 8) }

// slowly is take that forgets in about half a minute.
func (m *mean) slowly(v float64) float64 { return m.near(v, 30) }

func (m *mean) near(v, samples float64) float64 {
	if !m.set {
		m.v, m.set = v, true
	}
	m.v += (v - m.v) / samples
	return m.v
}
