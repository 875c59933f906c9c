// Package autoscale says how many tasks a service should have.
//
// It is pure: it takes what was measured in a second, with the time, and gives the count with the reason
// in numbers. It starts nothing, sleeps never and knows no task; tier/compute feeds it and does what it says.
//
// The law. Arrivals λ and the time S that a request takes at a task give the work that is offered, a = λ·S
// (Little). A task does Concurrency of it at once, and some room is kept so that chance makes nobody wait.
// What has piled up meanwhile is drained by more tasks for a moment, counted for the time when they will
// be there: the boot time is measured. Up is at once. Down is to the most that was needed in the last
// minute, so that nothing flaps; after sudden loads that come again and again, longer.
//
// The obvious designs lost. CPU saturates: at 100 % of a target of 70 % it asks for ×1.43 whatever the
// load is. A mean of requests in flight over a minute (Knative) is late or, in its panic, far too much.
//
// Begin at Scaler.Step; the arithmetic is in law.go, queues in backlog.go, repeated loads in rhythm.go, forecasts in
// season.go.
package autoscale

import (
	"fmt"
	"math"
	"slices"
	"time"

	"tenfold/internal/schedule"
)

// Targets are what a service is scaled by. The one that asks for most tasks wins.
type Targets struct {
	Min, Max    int
	Concurrency float64 // requests that one task works on at once; 0: measured
	RPS         float64 // requests a second and task; 0: no target
	CPU         float64 // share of its cores that a task may use, 0.7; 0: no target
	// Latency is what Quantile of the answers should be faster than; 0: no target.
	Latency  time.Duration
	Quantile float64
	// Predict lets the forecast act once it has proved itself; it is made and judged in any case.
	Predict bool
	// Backlogs are of queues that the tasks work at.
	Backlogs []Backlog
	// Windows replace Min and Max from a time on: the one that began last holds.
	Windows []Window
}

// Window is bounds that hold from when its schedule says.
type Window struct {
	When     schedule.Schedule
	Min, Max int
}

// Sample is what was measured since the sample before, usually a second.
type Sample struct {
	At       time.Time
	Arrived  int           // requests
	Finished int           // answers
	Busy     time.Duration // that the finished were at tasks, in sum
	InFlight int           // at tasks now
	Waiting  int           // held by the front door now
	Ready    int           // tasks that take requests
	Starting int           // tasks on their way
	Boot     time.Duration // measured, from the start of a task to its first good answer; 0: unknown
	CPU      float64       // mean use of the tasks' cores, 1 is all of them; negative: unknown
	Piles    []Pile        // as in Targets.Backlogs
	Late     float64       // Quantile of the answers' latency over the last seconds, in seconds; 0: unknown
}

// Decision is how many tasks there should be.
type Decision struct {
	Want    int
	Changed bool   // Want is another than before
	Reason  string // "120 rps × 52 ms = 6.2 in flight, 2 per task"
}

// Scaler decides for one service. It is not safe for concurrent use.
type Scaler struct {
	t    Targets
	want int
	last time.Time
	law  law
	beat rhythm
	fore *Season
	need []float64 // tasks needed, a ring of holdMost seconds
	at   int
	idle time.Time // since when nothing comes
	from time.Time // of the first sample
	acts []order   // tasks asked for and perhaps not there yet
	late struct {
		until time.Time // no more for latency's sake before
		floor int
		held  time.Time
	}
	win   windows
	flows []flow // as in Targets.Backlogs
}

type order struct {
	at time.Time
	n  int
}

const (
	holdLeast = 60 // seconds for which a need is remembered
	holdMost  = 300
	// idleLeast is how long nothing may come before a service sleeps; one that boots slowly sleeps later.
	idleLeast = 60 * time.Second
	idleBoots = 20
	bootGuess = 3 * time.Second // until one was measured
	slack     = 0.04            // of the need, below which no task is added for it
)

// New makes a scaler that goes on from a count. season may be nil.
func New(t Targets, want int, season *Season) *Scaler {
	s := &Scaler{want: want, need: make([]float64, holdMost), fore: season}
	if s.fore == nil {
		s.fore = &Season{}
	}
	s.Set(t)
	return s
}

// Set changes the targets; what was measured stays.
func (s *Scaler) Set(t Targets) {
	if len(t.Backlogs) != len(s.flows) || !slices.EqualFunc(t.Backlogs, s.t.Backlogs, func(a, b Backlog) bool { return a.Queue == b.Queue }) {
		s.flows = make([]flow, len(t.Backlogs))
	}
	s.t = t
	s.win = windows{}
}

// Woke says that a request waited for a service that slept, and was not let wait until the next sample.
func (s *Scaler) Woke(at time.Time) { s.want, s.idle = max(s.want, 1), at }

// Season is what was learned of days and weeks, to be kept.
func (s *Scaler) Season() *Season { return s.fore }

// ask is what one target wants.
type ask struct {
	n   int
	why string
}

// Step takes a sample and decides.
func (s *Scaler) Step(x Sample) Decision {
	if s.last.IsZero() {
		s.from, s.idle = x.At, x.At
	}
	dt := min(max(x.At.Sub(s.last).Seconds(), 0.05), 60)
	if s.last.IsZero() {
		dt = 1
	}
	s.last = x.At
	low, high, when := s.bounds(x.At)
	boot := x.Boot
	if boot <= 0 {
		boot = bootGuess
	}
	l := s.law.measure(x, dt, s.t.Concurrency)
	if x.Arrived > 0 || x.InFlight > 0 || x.Waiting > 0 {
		s.idle = x.At
	}
	base := s.base(l, x, boot)
	piled, need := s.byBacklog(x, dt)
	s.remember(max(base, need), dt, x.At)
	best := s.urgent(l, x, boot, base)
	for _, a := range []ask{s.byCPU(x), s.byLatency(x, boot), piled} {
		if a.n > best.n {
			best = a
		}
	}
	floor := s.floor(x.At, boot, l)
	if f := s.fore.step(x.At, dt, base, x.Ready, boot); s.t.Predict && f > floor.n && f > best.n {
		floor = ask{f, fmt.Sprintf("forecast for this time of the week: %d tasks", f)}
	}
	return s.settle(x, l, best, floor, low, high, when, boot)
}

// base is how many tasks the arrivals need, without what has piled up.
func (s *Scaler) base(l load, x Sample, boot time.Duration) float64 {
	need := erlangs(l.lambda(boot)*l.service) / l.per
	if s.t.RPS > 0 {
		need = max(need*b2f(s.t.Concurrency > 0), l.lambda(boot)/s.t.RPS)
	}
	return need
}

func b2f(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// urgent is what the arrivals need together with what has piled up.
func (s *Scaler) urgent(l load, x Sample, boot time.Duration, base float64) ask {
	a := l.lambda(boot) * l.service
	why := fmt.Sprintf("%s × %s = %.3g in flight, %.3g per task", rate(l.lambda(boot)), span(l.service), a, l.per)
	if s.t.RPS > 0 && base <= l.lambda(boot)/s.t.RPS {
		why = fmt.Sprintf("%s, %.3g per task", rate(l.lambda(boot)), s.t.RPS)
	}
	if queue := l.queue; queue > 0 && l.service > 0 {
		over := s.leftover(l, x, boot)
		if more := min(over*l.service/drainFor/l.per, 2*max(base, 1)); more > 0.5 {
			return ask{int(math.Ceil(base + more)), fmt.Sprintf("%s, and %.0f waiting", why, queue)}
		}
		why += fmt.Sprintf(", and %.0f waiting", queue)
	}
	n := int(math.Ceil(base))
	if base <= float64(s.want)*(1+slack) {
		n = min(n, s.want)
	}
	if n == 0 && (x.Arrived > 0 || x.Waiting > 0 || x.InFlight > 0) {
		n = 1
		if x.Ready == 0 {
			why = fmt.Sprintf("%d waiting, asleep", max(x.Waiting, x.Arrived))
		}
	}
	return ask{n, why}
}

// leftover is how much will wait when a task that is started now is there.
func (s *Scaler) leftover(l load, x Sample, boot time.Duration) float64 {
	queue, at := l.queue, 0.0
	capacity := float64(x.Ready) * l.per / l.service
	lambda := l.lambda(0)
	left := x.Starting
	var come []order // oldest first, with the seconds until they are there in at
	for i := len(s.acts) - 1; i >= 0 && left > 0; i-- {
		n := min(left, s.acts[i].n)
		come = append([]order{{s.acts[i].at, n}}, come...)
		left -= n
	}
	for _, o := range come {
		in := max((boot - x.At.Sub(o.at)).Seconds(), at, 0.25)
		queue = max(0, queue+(lambda-capacity)*(in-at))
		capacity += float64(o.n) * l.per / l.service
		at = in
	}
	return max(0, queue+(lambda-capacity)*max(boot.Seconds()-at, 0))
}

// byCPU guards: use of processors saturates, so it asks step by step, and only beyond a tenth.
func (s *Scaler) byCPU(x Sample) ask {
	if s.t.CPU <= 0 || x.CPU < 0 || x.Ready == 0 {
		return ask{}
	}
	use := s.law.cpu.take(x.CPU)
	ratio := use / s.t.CPU
	n := int(math.Ceil(float64(x.Ready)*ratio - 1e-9))
	if ratio > 0.9 && ratio < 1.1 {
		n = x.Ready
	}
	if x.Starting > 0 {
		n = min(n, s.want) // what was asked for last time is not there yet
	}
	return ask{n, fmt.Sprintf("cpu %.0f%% of %d tasks, target %.0f%%", use*100, x.Ready, s.t.CPU*100)}
}

// byLatency adds while answers are late, and waits for each addition to show; it lets go slowly once
// they are twice as fast as they need to be.
func (s *Scaler) byLatency(x Sample, boot time.Duration) ask {
	if s.t.Latency <= 0 || x.Ready == 0 {
		return ask{}
	}
	f, target := &s.late, s.t.Latency.Seconds()
	switch {
	case x.Late > target && x.At.After(f.until) && x.Starting == 0:
		f.floor = x.Ready + max(1, int(math.Ceil(float64(x.Ready)*(min(x.Late/target, 2)-1))))
		f.until, f.held = x.At.Add(boot+10*time.Second), x.At
	case x.Late > target/2:
		f.held = x.At
	case f.floor > 0 && x.At.Sub(f.held) > holdLeast*time.Second:
		f.floor--
		f.held = x.At
	}
	return ask{f.floor, fmt.Sprintf("p%g %s, target %s", s.t.Quantile*100, span(x.Late), span(target))}
}

// remember keeps what was needed, for each second since the sample before.
func (s *Scaler) remember(need, dt float64, at time.Time) {
	for range max(1, int(dt+0.5)) {
		s.need[s.at] = need
		s.at = (s.at + 1) % len(s.need)
	}
	s.beat.step(at, need)
}

// held is the most that was needed in the last so many seconds.
func (s *Scaler) held(seconds int) (most float64) {
	for i := 1; i <= min(seconds, len(s.need)); i++ {
		most = max(most, s.need[(s.at-i+2*len(s.need))%len(s.need)])
	}
	return most
}

// floor is what is kept although it is not needed just now.
func (s *Scaler) floor(now time.Time, boot time.Duration, l load) ask {
	if need, why := s.beat.floor(now, boot); need > 0 {
		return ask{int(math.Ceil(need - slack)), why}
	}
	seconds := holdLeast
	if s.beat.released(now, boot) {
		seconds = restLeast
	} else if h := s.beat.hold(); h > 0 {
		seconds = h
	}
	need := s.held(seconds)
	if s.want == 0 {
		need = 0 // what was needed before it fell asleep wakes nobody
	}
	return ask{int(math.Ceil(need * (1 - slack/2))), fmt.Sprintf("at most %.1f tasks needed in the last %d s", need, seconds)}
}

// settle turns what is asked for into the count.
func (s *Scaler) settle(x Sample, l load, best, floor ask, low, high int, when string, boot time.Duration) Decision {
	n, why := best.n, best.why
	if floor.n > n {
		n, why = floor.n, floor.why
	}
	if n < s.want && l.queue > 0.5 && x.Starting+x.Ready > 0 {
		n = s.want // what waits was counted in
	}
	if n < s.want && x.At.Sub(s.from) < holdLeast*time.Second {
		n = s.want // what was needed before is not known
	}
	if n < s.want {
		if half := (s.want + 1) / 2; n < half {
			n = half
		}
		if floor.n >= best.n {
			why = floor.why
		}
	}
	if n == 0 || n == 1 && s.want <= 1 && floor.n == 0 && best.n == 0 {
		n = 0
	}
	wait := max(idleLeast, idleBoots*boot)
	if n == 0 && s.want > 0 && x.At.Sub(s.idle) < wait {
		n = 1 // not idle for long enough
	} else if n == 1 && s.want == 1 && low == 0 && best.n == 0 && x.At.Sub(s.idle) >= wait {
		n = 0
	}
	if n == 0 {
		why = fmt.Sprintf("nothing came for %s", x.At.Sub(s.idle).Round(time.Second))
	}
	if b := min(max(n, low), high); b != n {
		n = b
		why = fmt.Sprintf("%s; bounds %d-%d%s", why, low, high, when)
	}
	d := Decision{Want: n, Changed: n != s.want, Reason: why}
	if n > s.want {
		s.acts = append(s.acts, order{x.At, n - s.want})
		if len(s.acts) > 64 {
			s.acts = s.acts[1:]
		}
	}
	s.want = n
	return d
}

func rate(v float64) string { return fmt.Sprintf("%.3g rps", v) }

func span(seconds float64) string {
	if seconds < 1 {
		return fmt.Sprintf("%.3g ms", seconds*1000)
	}
	return fmt.Sprintf("%.3g s", seconds)
}
