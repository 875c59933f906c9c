package main

import (
	"fmt"
	"slices"
	"time"

	"tenfold/internal/measure"
)

// side is a server of a comparison.
type side struct {
	name string
	base string       // of plain HTTP
	tls  string       // of TLS; "" where it is not offered
	pids func() []int // whose CPU time counts
}

// take is what one load on one side gave.
type take struct {
	load
	cpu  float64 // µs of the server for each answer
	busy float64 // share of its processor that the server used
}

// leastBusy is how busy a server's processor must be for its throughput to be its own.
const leastBusy = 0.9

// contest takes rounds of a load on each side in turn. Sides without an address are left out.
func (b *bench) contest(run func(side) (load, error), sides ...side) (map[string][]take, error) {
	out := map[string][]take{}
	for round := range b.rounds {
		for i := range sides {
			// Each round begins with another, so that none always follows the same neighbour.
			s := sides[(i+round)%len(sides)]
			if s.base == "" {
				continue
			}
			t, err := taken(s, run)
			if again := b.house.find(); err != nil && again == nil && b.ctx.Err() == nil {
				b.note(s.name, fmt.Sprintf("a round is taken again: %v", err))
				t, err = taken(s, run)
			}
			if err != nil {
				return nil, fmt.Errorf("load %s: %w", s.name, err)
			}
			out[s.name] = append(out[s.name], t)
			if err := b.ctx.Err(); err != nil {
				return nil, err
			}
		}
	}
	for name, takes := range out {
		if bad := measure.Median(each(takes, func(t take) float64 { return t.bad })); bad > 0 {
			b.note(name, fmt.Sprintf("%.0f bad answers in the median round", bad))
		}
	}
	return out, nil
}

func taken(s side, run func(side) (load, error)) (take, error) {
	before, err := cpu(s.pids())
	if err != nil {
		return take{}, err
	}
	begun := time.Now()
	l, err := run(s)
	if err != nil {
		return take{}, err
	}
	took := time.Since(begun).Seconds()
	after, err := cpu(s.pids())
	if err != nil {
		return take{}, err
	}
	t := take{load: l, busy: (after - before) / took}
	if l.answers > 0 {
		t.cpu = (after - before) * 1e6 / l.answers
	}
	return t, nil
}

func each(takes []take, f func(take) float64) []float64 {
	out := make([]float64, len(takes))
	for i, t := range takes {
		out[i] = f(t)
	}
	return out
}

// worst is for what must hold in every round: a median would hide the one that broke it.
func worst(values []float64) []float64 {
	if len(values) == 0 {
		return nil
	}
	return []float64{slices.Max(values)}
}

func rate(t take) float64   { return t.rate }
func cpuOf(t take) float64  { return t.cpu }
func busyOf(t take) float64 { return t.busy }
func p99(t take) float64    { return t.p99 }

// faster asks for so many times the peer's throughput; where either side's processor was not busy, CPU
// time for each answer decides instead, and the name of the figure says so.
func (b *bench) faster(name string, takes map[string][]take, peer string, asked float64) {
	if len(takes[peer]) == 0 {
		b.note(name, "no peer")
		return
	}
	ours, theirs := takes["tenfold"], takes[peer]
	mine, other := measure.Median(each(ours, busyOf)), measure.Median(each(theirs, busyOf))
	f := measure.Figure{Name: name, Unit: "req/s", Ours: each(ours, rate), Peer: each(theirs, rate), Asked: measure.AtLeast(asked)}
	if min(mine, other) < leastBusy {
		b.note(name, fmt.Sprintf("busy %.2f and %.2f at %.0f and %.0f req/s: CPU decides", mine, other, measure.Median(f.Ours), measure.Median(f.Peer)))
		f = measure.Figure{Name: name + ", CPU", Unit: "µs/req", Ours: each(ours, cpuOf), Peer: each(theirs, cpuOf), Asked: measure.AtMost(1 / asked)}
	}
	b.report.Add(f)
}

// cheaper asks for at most so many times the peer's CPU time for each answer.
func (b *bench) cheaper(name string, takes map[string][]take, peer string, asked float64) {
	if len(takes[peer]) == 0 {
		b.note(name, "no peer")
		return
	}
	b.report.Add(measure.Figure{Name: name + ", CPU", Unit: "µs/req", Ours: each(takes["tenfold"], cpuOf), Peer: each(takes[peer], cpuOf), Asked: measure.AtMost(asked)})
}

// tail compares the 99th percentile at one rate for both: half of what the slower one can do.
func (b *bench) tail(name, path string, takes map[string][]take, peer side, asked float64) error {
	if len(takes[peer.name]) == 0 {
		b.note(name, "no peer")
		return nil
	}
	perSecond := min(measure.Median(each(takes["tenfold"], rate)), measure.Median(each(takes[peer.name], rate))) / 2
	tails, err := b.contest(func(s side) (load, error) {
		return b.openLoop(s.base+path, connections, perSecond, b.each)
	}, b.house.side(), peer)
	if err != nil {
		return err
	}
	b.report.Add(measure.Figure{
		Name: fmt.Sprintf("%s, p99 at %.0f/s", name, perSecond), Unit: "ms",
		Ours: each(tails["tenfold"], p99), Peer: each(tails[peer.name], p99), Asked: measure.AtMost(asked),
	})
	return nil
}

// seen prints a peer that nothing is asked against.
func (b *bench) seen(name string, takes map[string][]take, peer string) {
	if t := takes[peer]; len(t) > 0 {
		b.note(name, fmt.Sprintf("%.0f req/s, %.1f µs/req, busy %.2f", measure.Median(each(t, rate)), measure.Median(each(t, cpuOf)), measure.Median(each(t, busyOf))))
	}
}
