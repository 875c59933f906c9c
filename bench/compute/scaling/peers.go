package scaling

import (
	"math"
	"math/rand/v2"
)

// window keeps the last seconds of a measurement.
type window struct {
	v [1024]float64
	n int
}

func (w *window) add(x float64) { w.v[w.n%len(w.v)] = x; w.n++ }

// mean of n seconds after skipping some, and whether there are so many.
func (w *window) mean(skip, n int) (float64, bool) {
	if w.n < skip+n {
		return 0, false
	}
	sum := 0.0
	for i := 1 + skip; i <= skip+n; i++ {
		sum += w.v[(w.n-i)%len(w.v)]
	}
	return sum / float64(n), true
}

// ECS is target tracking of Amazon ECS (Application Auto Scaling): a metric in periods, an alarm after
// some in a row above the target, another after more in a row below nine tenths of it; each moves the
// count in proportion. From its documentation: 3 periods up, 15 down at 60 s; what the finer metric of
// 2026 does was measured by others as 86 s to the first action, and it moves on once a minute.
type ECS struct {
	Period   int     // seconds
	Up, Down int     // periods in a row
	Lag      int     // seconds until a period's value can be seen
	Cooldown int     // seconds between two actions outward
	Target   float64 // CPU, or requests a second and task when Requests
	Requests bool

	count  int
	metric window
	above  int
	below  int
	at     int
	acted  int
	ran    bool
}

// Decide implements Controller.
func (e *ECS) Decide(x Second) int {
	if !e.ran {
		e.ran, e.count, e.acted = true, x.Ready+x.Starting, -1<<20
	}
	v := 0.0
	switch {
	case e.Requests:
		v = float64(x.Arrived) / float64(max(x.Ready, 1))
	case x.Ready > 0:
		v = min(1, x.Used/float64(2*x.Ready))
	}
	e.metric.add(v)
	if e.at++; e.at%e.Period != 0 {
		return e.count
	}
	m, ok := e.metric.mean(e.Lag, e.Period)
	if !ok {
		return e.count
	}
	if e.above++; m <= e.Target {
		e.above = 0
	}
	if e.below++; m >= 0.9*e.Target {
		e.below = 0
	}
	switch {
	case e.above >= e.Up && e.at-e.acted >= e.Cooldown:
		e.acted = e.at
		e.count = min(int(math.Ceil(float64(e.count)*m/e.Target-1e-9)), 200)
	case e.below >= e.Down:
		e.count = max(1, int(math.Ceil(float64(e.count)*m/e.Target-1e-9)))
	}
	return e.count
}

// HPA is Kubernetes' Horizontal Pod Autoscaler on CPU, as documented for autoscaling/v2 with its
// defaults: every 15 s, a tolerance of a tenth, up by at most four or as many again in 15 s, down to the
// most that was recommended in 300 s.
type HPA struct {
	Target float64
	Phase  int
	cpu    window
	recs   window
	count  int
	at     int
}

// Decide implements Controller.
func (h *HPA) Decide(x Second) int {
	if h.at == 0 {
		h.count = x.Ready + x.Starting
	}
	h.at++
	v := 0.0
	if x.Ready > 0 {
		v = min(1, x.Used/float64(2*x.Ready))
	}
	h.cpu.add(v)
	if (h.at+h.Phase)%15 != 0 {
		return h.count
	}
	m, ok := h.cpu.mean(0, 10)
	if !ok {
		return h.count
	}
	ratio, want := m/h.Target, h.count
	if math.Abs(ratio-1) > 0.1 {
		want = max(1, int(math.Ceil(float64(x.Ready)*ratio-1e-9)))
	}
	if x.Starting > 0 && want > x.Ready { // those that are not ready count as idle
		if ratio = ratio * float64(x.Ready) / float64(x.Ready+x.Starting); ratio <= 1.1 {
			want = h.count
		} else {
			want = int(math.Ceil(float64(x.Ready+x.Starting) * ratio))
		}
	}
	h.recs.add(float64(want))
	if want > h.count {
		h.count = min(want, max(h.count+4, 2*h.count))
		return h.count
	}
	most := 0.0
	for i := 1; i <= min(20, h.recs.n); i++ {
		most = max(most, h.recs.v[(h.recs.n-i)%len(h.recs.v)])
	}
	h.count = min(h.count, max(want, int(most)))
	return h.count
}

// KPA is Knative's pod autoscaler on concurrency with its documented defaults: every 2 s, a window of
// 60 s, a panic window of 6 s that acts alone, and only upward, from twice the capacity on and for 60 s
// after, a target of 70 %, down by at most half.
type KPA struct {
	Slots float64
	Phase int
	conc  window
	count int
	at    int
	panic int // until
	most  int
	in    bool
}

// Decide implements Controller.
func (k *KPA) Decide(x Second) int {
	if k.at == 0 {
		k.count = x.Ready + x.Starting
	}
	k.at++
	k.conc.add(float64(x.InWork + x.Waiting))
	if (k.at+k.Phase)%2 != 0 {
		return k.count
	}
	stable, _ := k.conc.mean(0, min(60, k.conc.n))
	short, _ := k.conc.mean(0, min(6, k.conc.n))
	target := 0.7 * k.Slots
	ready := max(x.Ready, 1)
	clip := func(v float64) int {
		return int(min(max(math.Ceil(v), math.Floor(float64(ready)/2)), 1000*float64(ready)))
	}
	want, urgent := clip(stable/target), clip(short/target)
	if float64(urgent)/float64(ready) >= 2 {
		if !k.in {
			k.in, k.most = true, 0
		}
		k.panic = k.at + 60
	} else if k.in && k.at > k.panic {
		k.in = false
	}
	if k.in {
		k.most = max(k.most, urgent, want)
		want = max(k.most, x.Ready)
	}
	k.count = max(1, want)
	return k.count
}

// Peers are the models by name, with their timers at a phase that the seed says.
func Peers(seed uint64) map[string]Controller {
	rng := rand.New(rand.NewPCG(seed, 3))
	return map[string]Controller{
		"ECS CPU 60 s":      &ECS{Period: 60, Up: 3, Down: 15, Lag: 60, Cooldown: 60, Target: 0.7, at: rng.IntN(60)},
		"ECS CPU 20 s":      &ECS{Period: 20, Up: 3, Down: 3, Lag: 20, Cooldown: 60, Target: 0.7, at: rng.IntN(20)},
		"ECS requests 60 s": &ECS{Period: 60, Up: 3, Down: 15, Lag: 60, Cooldown: 60, Target: 28, Requests: true, at: rng.IntN(60)},
		"HPA CPU 70":        &HPA{Target: 0.7, Phase: rng.IntN(15)},
		"KPA":               &KPA{Slots: 2, Phase: rng.IntN(2)},
	}
}
