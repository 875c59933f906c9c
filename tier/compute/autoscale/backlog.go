package autoscale

import (
	"fmt"
	"math"
	"time"
)

// Backlog is a target by what is in a queue.
type Backlog struct {
	Queue string // for people
	// Messages is how many, waiting or being worked at, there may be for each task.
	Messages float64
	// Age is within what time those that wait should be done; 0: no target.
	Age time.Duration
}

// Pile is how a queue was since the sample before.
type Pile struct {
	Known   bool // false: nobody said
	Waiting int
	Working int // given out, and not done yet
	Sent    int
	Done    int
}

// flow is what is measured of a queue.
type flow struct {
	sent mean // messages a second
	// done and took are messages and the seconds of tasks that they took, while there was enough to do; the past fades.
	done, took float64
	waited     bool // at the sample before
}

// each is how many messages a second one task does; 0: not known well enough.
func (f *flow) each() float64 {
	if f.done < enough {
		return 0
	}
	return f.done / f.took
}

const (
	enough = 3         // messages, of which it is judged how long one takes
	fade   = 1 - 1/60. // of what was measured, with each second that is
)

// byBacklog is how many tasks the queues ask for, and the need as it is remembered. Messages that are worked at count:
// a task is not ended over its head.
//
// Messages alone is a law of ECS' and KEDA's users, and asks for a task for each so many, whether they are quick or
// slow. Age says what is meant: with arrivals s, and e done a second by one task, what waits is gone within Age when
// n·e = s + waiting/Age. e is measured while some wait all the time, since idle tasks show nothing.
func (s *Scaler) byBacklog(x Sample, dt float64) (best ask, need float64) {
	for i, t := range s.t.Backlogs {
		if i >= len(x.Piles) || !x.Piles[i].Known { // as it is, until somebody says more
			if s.want > best.n {
				best = ask{s.want, "nobody says how much waits in " + t.Queue}
			}
			continue
		}
		p := x.Piles[i]
		f := &s.flows[i]
		sent := f.sent.slowly(float64(p.Sent) / dt)
		if p.Waiting > 0 && f.waited && x.Ready > 0 {
			f.done, f.took = f.done*fade+float64(p.Done), f.took*fade+float64(x.Ready)*dt
		}
		f.waited = p.Waiting > 0
		all := p.Waiting + p.Working
		if all+p.Sent+p.Done > 0 {
			s.idle = x.At
		}
		n, stay := float64(all)/max(t.Messages, 1), float64(s.want)*(1+slack)
		why := fmt.Sprintf("%s: %d waiting, %d at work, %g per task", t.Queue, p.Waiting, p.Working, t.Messages)
		if each := f.each(); t.Age > 0 && each > 0 {
			if m := (sent + float64(p.Waiting)/t.Age.Seconds()) / each; m > n {
				stay = float64(s.want) + max(0.5, float64(s.want)/10) // a little late is no reason for a task that is soon too many
				n, why = m, fmt.Sprintf("%s: %d waiting, %.3g/s come, a task does %.3g/s: to be done within %s", t.Queue, p.Waiting, sent, each, t.Age)
			}
		}
		need = max(need, n)
		k := int(math.Ceil(n - slack))
		if n <= stay {
			k = min(k, s.want)
		}
		if all > 0 { // which may wake it
			k = max(k, 1)
		}
		if k > best.n {
			best = ask{k, why}
		}
	}
	return best, need
}
