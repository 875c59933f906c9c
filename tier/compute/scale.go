package compute

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"tenfold"
	"tenfold/internal/atomicfile"
	"tenfold/internal/directory"
	"tenfold/internal/keeper"
	"tenfold/internal/schedule"
	"tenfold/tier/compute/autoscale"
)

const (
	scalePace = time.Second
	keepPace  = 15 * time.Minute // between two times that the forecast is put on disk
	lateOver  = 10               // samples, of which late answers are judged
)

// ranged says that the count moves by itself.
func (s serviceSpec) ranged() bool {
	b := s.widest()
	return b.Min < b.Max
}

// widest are bounds that hold whatever the time.
func (s serviceSpec) widest() tenfold.Bounds {
	b := s.Scale
	if s.Scaling != nil {
		for _, t := range s.Scaling.Schedule {
			b.Min, b.Max = min(b.Min, t.Bounds.Min), max(b.Max, t.Bounds.Max)
		}
	}
	return b
}

// count is how many tasks of a version there should be.
func (r record) count(s serviceSpec) int {
	b := s.widest()
	switch {
	case b.Min == b.Max:
		return b.Min
	case r.Scaled == nil:
		return max(1, s.Scale.Min)
	}
	return min(max(*r.Scaled, b.Min), b.Max)
}

// scaling is what a service's autoscaling remembers. It belongs to run's goroutine, but for woken and said.
type scaling struct {
	scaler  *autoscale.Scaler
	targets autoscale.Targets
	before  directory.Load
	piles   []Backlog  // of the queues, at the sample before
	late    [][]uint64 // buckets of the last samples, oldest first
	at      time.Time
	cpu     map[int]float64 // seconds, by task
	cpuAt   time.Time
	saved   time.Time
	woken   atomic.Bool
	said    string // under service.mu: the load, for people
}

// note says how many of how many tasks there are, and why.
func (x *scaling) note(up int, r record) string {
	b := r.Serving.Spec.widest()
	what := fmt.Sprintf("%d of %d-%d", up, b.Min, b.Max)
	if r.count(r.Serving.Spec) == 0 {
		return what + ": asleep"
	}
	if x.said != "" {
		what += ": " + x.said
	}
	return what
}

// waking says that somebody waits for the first task.
func (s *service) waking(r record) bool {
	if r.Serving == nil || !r.Serving.Spec.ranged() || r.Deploy != nil {
		return false
	}
	first := false
	for _, t := range r.Tasks {
		if t.Phase == serving && !t.Down {
			return false
		}
		first = first || t.Phase == starting && !t.Down && time.Since(t.Since) < 5*time.Second
	}
	return first
}

// wakeUp hears from the door that somebody waits, until ctx ends.
func (c *Compute) wakeUp(ctx context.Context) {
	var seq uint64
	for ctx.Err() == nil {
		w, err := c.cfg.Traffic.Waiting(ctx, seq)
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(quietPace):
			}
			continue
		}
		seq = w.Seq
		for _, it := range c.all() {
			if s, ok := it.(*service); ok && slices.Contains(w.Services, entry(s.id)) {
				s.scaled.woken.Store(true)
				s.prod()
			}
		}
	}
}

// wakes asks for the first task of a service for which somebody waits, and says whether it did.
func (s *service) wakes(now time.Time) bool {
	r := s.snapshot()
	if !s.scaled.woken.Swap(false) || r.Serving == nil || r.Goal == nil || !r.Serving.Spec.ranged() || r.count(r.Serving.Spec) > 0 {
		return false
	}
	if s.scaled.scaler != nil {
		s.scaled.scaler.Woke(now)
	}
	if !s.scaled.at.IsZero() {
		s.scaled.at = now // the door is asked in a second, not while the task comes to life
	}
	return s.scaleTo(r, 1, "a request waits")
}

// autoscale measures once a second and moves the count.
func (s *service) autoscale(ctx context.Context, r record, now time.Time) {
	x := &s.scaled
	if r.Serving == nil || r.Goal == nil {
		x.scaler = nil
		return
	}
	spec := r.Serving.Spec
	if !spec.ranged() {
		x.scaler = nil
		if n := spec.Scale.Min; r.Scaled == nil || *r.Scaled != n { // a range begins at what ran before
			if err := s.change(func(r record) record { r.Scaled = &n; return r }); err != nil {
				s.emit(tenfold.SeverityWarning, 0, err.Error())
			}
		}
		return
	}
	targets := targetsOf(spec)
	if x.scaler == nil {
		x.scaler, x.targets = autoscale.New(targets, r.count(spec), s.readSeason()), targets
		x.before, x.piles, x.late, x.at, x.saved = directory.Load{}, nil, nil, time.Time{}, now
	}
	if !reflect.DeepEqual(targets, x.targets) {
		x.scaler.Set(targets)
		x.targets = targets
	}
	if now.Sub(x.at) < scalePace-quietPace/2 {
		return
	}
	limited, cancel := context.WithTimeout(ctx, 3*time.Second)
	load, err := s.c.cfg.Traffic.Load(limited, s.id)
	cancel()
	if err != nil {
		return // the count stays until the door says more
	}
	first := x.at.IsZero() || load.Requests < x.before.Requests // or the door began anew
	before := x.before
	x.before, x.at = load, now
	if first {
		x.late = nil
		return
	}
	sample := s.sample(ctx, r, before, load, now)
	d := x.scaler.Step(sample)
	s.mu.Lock()
	x.said = said(load, targets, sample)
	s.mu.Unlock()
	if d.Want != r.count(spec) {
		s.scaleTo(r, d.Want, d.Reason)
	}
	if now.Sub(x.saved) > keepPace {
		x.saved = now
		if err := s.keepSeason(); err != nil {
			s.emit(tenfold.SeverityWarning, 0, "keep the forecast: "+err.Error())
		}
	}
}

// said is the load in a few words.
func said(l directory.Load, t autoscale.Targets, x autoscale.Sample) string {
	var parts []string
	if t.RPS > 0 {
		parts = append(parts, fmt.Sprintf("%d rps, %g per task", x.Arrived, t.RPS))
	}
	for i, b := range t.Backlogs {
		if p := x.Piles[i]; p.Known {
			parts = append(parts, fmt.Sprintf("%d in %s, %g per task", p.Waiting+p.Working, b.Queue, b.Messages))
		}
	}
	if t.Concurrency > 0 || t.RPS == 0 && len(t.Backlogs) == 0 {
		text := fmt.Sprintf("%d in flight", l.InFlight+l.Waiting)
		if t.Concurrency > 0 {
			text += fmt.Sprintf(", %g per task", t.Concurrency)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

// scaleTo moves the count, and says why; false: it could not.
func (s *service) scaleTo(r record, n int, why string) bool {
	from := r.count(r.Serving.Spec)
	if err := s.changeSoon(func(r record) record {
		r.Scaled = &n
		return r
	}); err != nil {
		s.emit(tenfold.SeverityWarning, 0, err.Error())
		return false
	}
	s.emitSoon(tenfold.SeverityInfo, 0, fmt.Sprintf("scaled from %d to %s: %s", from, plural(n, "task"), why))
	s.prod()
	return true
}

func targetsOf(s serviceSpec) autoscale.Targets {
	t := autoscale.Targets{Min: s.Scale.Min, Max: s.Scale.Max}
	if g := s.Scaling; g != nil {
		t.Concurrency, t.RPS, t.CPU, t.Latency, t.Quantile, t.Predict = g.Concurrency, g.RPS, g.CPU, g.Latency, g.Quantile, g.Predict
		for _, w := range g.Schedule {
			t.Windows = append(t.Windows, autoscale.Window{When: schedule.Schedule{Cron: w.Cron}, Min: w.Bounds.Min, Max: w.Bounds.Max})
		}
		for _, b := range g.Backlog {
			t.Backlogs = append(t.Backlogs, autoscale.Backlog{Queue: string(b.Queue.Name), Messages: float64(b.Messages), Age: b.Age})
		}
	}
	if !s.Routed && len(t.Backlogs) == 0 { // nobody wakes what nobody calls
		t.Min = max(t.Min, 1)
		for i := range t.Windows {
			t.Windows[i].Min = max(t.Windows[i].Min, 1)
		}
	}
	return t
}

// untilSample is how long it is until the load is to be measured, most at most.
func (s *service) untilSample(most time.Duration) time.Duration {
	if s.scaled.scaler == nil {
		return most
	}
	return min(most, max(time.Until(s.scaled.at.Add(scalePace)), quietPace)) // a door that does not answer is not pressed
}

// sample is what happened between two reports of the door.
func (s *service) sample(ctx context.Context, r record, before, load directory.Load, now time.Time) autoscale.Sample {
	x := autoscale.Sample{
		At: now, Boot: r.Boot, CPU: -1, InFlight: int(load.InFlight), Waiting: int(load.Waiting),
		Arrived:  max(0, int(load.Requests-before.Requests)+int(load.Waiting-before.Waiting)),
		Finished: int(load.Answered - min(load.Answered, before.Answered)), Busy: max(0, load.Busy-before.Busy),
	}
	var ready []int
	for _, t := range r.Tasks {
		switch {
		case t.Down || t.Apart:
		case t.Phase == serving:
			x.Ready++
			ready = append(ready, t.N)
		case t.Phase == starting:
			x.Starting++
		}
	}
	x.Piles = s.pile(r)
	t := s.scaled.targets
	if t.Latency > 0 {
		s.scaled.late = append(s.scaled.late, load.Buckets)
		s.scaled.late = s.scaled.late[max(0, len(s.scaled.late)-lateOver):]
		x.Late = quantile(s.scaled.late[0], load.Buckets, t.Quantile).Seconds()
	}
	if t.CPU > 0 {
		x.CPU = s.cpu(ctx, ready, r.Serving.Spec.Size.CPU, now)
	}
	return x
}

// pile says how much came to the queues of a service since the sample before, and what is in them.
func (s *service) pile(r record) []autoscale.Pile {
	g := r.Serving.Spec.Scaling
	if g == nil || len(g.Backlog) == 0 {
		s.scaled.piles = nil
		return nil
	}
	before := s.scaled.piles
	s.scaled.piles = make([]Backlog, len(g.Backlog))
	out := make([]autoscale.Pile, len(g.Backlog))
	for i, t := range g.Backlog {
		if s.c.cfg.Backlog == nil {
			continue
		}
		b, ok := s.c.cfg.Backlog(t.Queue)
		if !ok {
			continue
		}
		out[i] = autoscale.Pile{Known: true, Waiting: b.Waiting, Working: b.Working}
		if len(before) == len(out) && b.Sent >= before[i].Sent && b.Done >= before[i].Done && before[i].Sent+before[i].Done > 0 { // else they were counted anew
			out[i].Sent, out[i].Done = int(b.Sent-before[i].Sent), int(b.Done-before[i].Done)
		}
		s.scaled.piles[i] = b
	}
	return out
}

// quantile is what so many of the answers between two counts were faster than: drawn out straight within
// their bucket. 0: there were none.
func quantile(from, to []uint64, q float64) time.Duration {
	var all float64
	n := make([]float64, min(len(from), len(to)))
	for i := range n {
		n[i] = float64(to[i] - min(to[i], from[i]))
		all += n[i]
	}
	low, left := time.Duration(0), q*all
	for i, c := range n {
		high := 2 * low
		if i < len(directory.Bounds) {
			high = directory.Bounds[i]
		}
		if c > 0 && left <= c {
			return low + time.Duration(float64(high-low)*left/c)
		}
		left -= c
		low = high
	}
	return 0
}

// cpu is the mean share of their cores that tasks used since the last time; -1 when nothing is known. A
// task without a limit is taken to have one core.
func (s *service) cpu(ctx context.Context, tasks []int, cores float64, now time.Time) float64 {
	if cores <= 0 {
		cores = 1
	}
	units, err := s.c.cfg.Units.List(ctx, s.prefix())
	if err != nil {
		return -1
	}
	took := now.Sub(s.scaled.cpuAt).Seconds()
	seen, sum, n := map[int]float64{}, 0.0, 0
	for _, u := range units {
		for _, t := range tasks {
			if u.Unit.ID != s.unitID(t) || u.Phase != keeper.Running {
				continue
			}
			used, _ := usage(s.c.pids(ctx, u))
			seen[t] = used
			if was, ok := s.scaled.cpu[t]; ok {
				sum += max(0, used-was) / cores
				n++
			}
		}
	}
	s.scaled.cpu, s.scaled.cpuAt = seen, now
	if n == 0 || took <= 0 {
		return -1
	}
	return sum / float64(n) / took
}

func (c *Compute) seasonPath(id tenfold.ID) string {
	return filepath.Join(c.cfg.Dir, "forecasts", strings.ReplaceAll(id.String(), "/", "~")+".json")
}

func (s *service) keepSeason() error {
	if err := os.MkdirAll(filepath.Dir(s.c.seasonPath(s.id)), 0o750); err != nil {
		return err
	}
	return atomicfile.WriteJSON(s.c.seasonPath(s.id), s.scaled.scaler.Season(), 0o600)
}

// readSeason reads what was learned before; nil when there is nothing.
func (s *service) readSeason() *autoscale.Season {
	var out autoscale.Season
	if err := atomicfile.ReadJSON(s.c.seasonPath(s.id), &out); err != nil {
		return nil
	}
	return &out
}
