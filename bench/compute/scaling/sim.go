// Package scaling lets autoscalers run a service in virtual time: ours and models of its peers, written
// from their documentation, under the same arrivals.
//
// The service is the simplest that shows what matters: tasks of two slots, a request takes one for 50 ms,
// a front door holds in order what finds none free. A request is bad when its answer took more than 250 ms
// or when it waited so long that it was given up. Begin at Run; what is run is in scenarios.go.
package scaling

import (
	"math"
	"math/rand/v2"
)

// World is what a controller scales.
type World struct {
	Slots    int     // of a task
	Service  float64 // seconds that a request takes a slot
	Boot     float64 // seconds until a task takes requests
	SLO      float64 // seconds, above which an answer is bad
	Patience float64 // seconds after which a waiting request is given up
	Most     int     // tasks
	First    int     // tasks at the beginning
	Seed     uint64
}

// Usual is the world of all scenarios.
func Usual(boot float64, seed uint64) World {
	return World{Slots: 2, Service: 0.05, Boot: boot, SLO: 0.25, Patience: 8, Most: 45, First: 1, Seed: seed}
}

// Second is what can be measured of one second.
type Second struct {
	At       float64 // its end
	Arrived  int
	Finished int
	Busy     float64 // slot-seconds of what finished
	Used     float64 // slot-seconds worked, of Ready tasks
	Mean     float64 // requests in the house, mean over the second: waiting and in work
	InWork   int     // now
	Waiting  int     // now
	Ready    int
	Starting int
}

// Controller says how many tasks there should be, each second.
type Controller interface {
	Decide(Second) int
}

// Result is how a run went.
type Result struct {
	Requests, Bad int
	TaskSeconds   float64
	Ideal         float64 // task-seconds, were tasks divisible and always right
	Actions       int
	Recover       float64 // seconds from the time that the scenario names until the last bad request before Until
	Seconds       float64
}

// world is a run.
type world struct {
	World
	queue, leaves ring
	inWork        int
	tasks         int
	boots         ring // times at which starting tasks are ready
	res           *Result
	from, until   float64
	finished      int
	busy          float64
	last, used    float64
}

// Run lets c run the world under load for so many seconds. Recovery is looked for between from and until.
func Run(w World, load func(t float64) float64, seconds int, from, until float64, c Controller) Result {
	res := Result{Seconds: float64(seconds)}
	rng := rand.New(rand.NewPCG(w.Seed, 17))
	s := &world{World: w, tasks: w.First, res: &res, from: from, until: until}
	for n := range seconds {
		t, end := float64(n), float64(n+1)
		arrived := 0
		lambda := load(t + 0.5)
		res.Ideal += max(1, lambda*w.Service/float64(w.Slots))
		if lambda > 0 {
			for t -= math.Log(1-rng.Float64()) / lambda; t < end; t -= math.Log(1-rng.Float64()) / lambda {
				s.advance(t)
				s.queue.push(t)
				s.dispatch(t)
				arrived++
			}
		}
		s.advance(end)
		s.count(end)
		res.Requests += arrived
		x := Second{At: end, Arrived: arrived, Finished: s.finished, Busy: s.busy, Used: s.used, InWork: s.inWork, Waiting: s.queue.len(), Ready: s.tasks, Starting: s.boots.len()}
		s.finished, s.busy, s.used = 0, 0, 0
		s.scale(end, min(max(c.Decide(x), 0), w.Most))
		res.TaskSeconds += float64(s.tasks + s.boots.len())
	}
	return res
}

func (s *world) scale(now float64, want int) {
	have := s.tasks + s.boots.len()
	if want != have {
		s.res.Actions++
	}
	for ; have < want; have++ {
		s.boots.push(now + s.Boot)
	}
	for ; have > want; have-- {
		if s.boots.len() > 0 {
			s.boots.unpush() // what has not begun to serve goes first
		} else {
			s.tasks--
		}
	}
}

// count sums the slots at work over time.
func (s *world) count(now float64) {
	s.used += float64(min(s.inWork, s.tasks*s.Slots)) * (now - s.last)
	s.last = now
}

// advance lets everything happen that happens until now.
func (s *world) advance(now float64) {
	for {
		boot, leave := s.boots.head(), s.leaves.head()
		switch {
		case leave <= boot && leave <= now:
			s.count(leave)
			s.leaves.pop()
			s.inWork--
			s.finished++
			s.busy += s.Service
			s.dispatch(leave)
		case boot < leave && boot <= now:
			s.count(boot)
			s.boots.pop()
			s.tasks++
			s.dispatch(boot)
		default:
			return
		}
	}
}

func (s *world) dispatch(now float64) {
	s.count(now)
	for s.inWork < s.tasks*s.Slots && s.queue.len() > 0 {
		came := s.queue.pop()
		if now-came > s.Patience {
			s.bad(came)
			continue
		}
		s.inWork++
		s.leaves.push(now + s.Service)
		if now+s.Service-came > s.SLO {
			s.bad(came)
		}
	}
	for s.queue.len() > 0 && now-s.queue.head() > s.Patience {
		s.bad(s.queue.pop())
	}
}

func (s *world) bad(came float64) {
	s.res.Bad++
	if came >= s.from && came < s.until {
		s.res.Recover = came - s.from
	}
}

// ring is a queue of times.
type ring struct {
	v    []float64
	h, n int
}

func (r *ring) len() int { return r.n }

func (r *ring) push(t float64) {
	if r.n == len(r.v) {
		v := make([]float64, max(64, 2*len(r.v)))
		for i := range r.n {
			v[i] = r.v[(r.h+i)%len(r.v)]
		}
		r.v, r.h = v, 0
	}
	r.v[(r.h+r.n)%len(r.v)] = t
	r.n++
}

func (r *ring) head() float64 {
	if r.n == 0 {
		return math.Inf(1)
	}
	return r.v[r.h]
}

func (r *ring) pop() float64 {
	t := r.v[r.h]
	r.h = (r.h + 1) % len(r.v)
	r.n--
	return t
}

func (r *ring) unpush() { r.n-- }
