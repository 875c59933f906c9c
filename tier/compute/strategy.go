package compute

import (
	"math"
	"slices"
	"time"

	"tenfold"
	"tenfold/tier/compute/judge"
)

// How new tasks take over. Every strategy begins alike, with new tasks that become healthy beside the old,
// and ends alike: the old ones stay warm, without requests, while the new ones are watched, so that going
// back takes no start. They differ in between.
//
//   - rolling: each new task takes the place of an old one as soon as it is healthy. The lease of new tasks
//     and the comparison with the old, which answer at the same time, are a canary's.
//   - blue-green: none gets a request until all are healthy; then all do and the old ones none.
//   - canary: a few get a share of the requests, until the comparison is sure or the time is over.
//
// What has served already, or is the same version started anew, is not tried out: it takes over at once.
type method string

const (
	atOnce    method = ""
	rolling   method = "rolling"
	blueGreen method = "blue-green"
	canary    method = "canary"
)

const (
	// leastTrial is how long a canary is tried out at least, however much traffic there is: some faults
	// come only with the second request of a client, or with a timer.
	leastTrial = 10 * time.Second
	// rollingBake and so on are how long old tasks stay warm, or a canary is tried out, unless it is said.
	rollingBake   = 30 * time.Second
	blueGreenBake = 5 * time.Minute
	canaryBake    = 5 * time.Minute
	canaryShare   = 0.05
	// pinnedFor is how long tasks stay for pages after the last call of one.
	pinnedFor = 10 * time.Minute
	// pinnedPace is how often their number is made to fit their calls, and their last call noted.
	pinnedPace = time.Minute
	keptMost   = 3 // versions with tasks for pages
	provenMost = 20
	causeWorse = "worse"
)

// What a canary passed by.
const (
	passedGood   = "as good"   // by comparison
	passedTime   = "time"      // nothing spoke against it
	passedThin   = "thin"      // nor for it: there was too little traffic
	passedPerson = "by a word" // of a person
)

// watch is the time after a switch.
type watch struct {
	Old   version   `json:"old"`
	Began time.Time `json:"began"`
	Over  bool      `json:"over,omitempty"` // a person said so
}

// kept is an earlier version with tasks for the pages that were made with it.
type kept struct {
	Version version   `json:"version"`
	Since   time.Time `json:"since"`
	Called  time.Time `json:"called"` // last, to pinnedPace
	Looked  time.Time `json:"looked"`
	Calls   uint64    `json:"calls"` // at Looked
	Others  uint64    `json:"others"`
}

// proven is a version that served well.
type proven struct {
	Version string `json:"version"`
	Build   string `json:"build"`
}

// method is how the deployment on its way takes over.
func (p *planner) method() method {
	d, old := p.r.Deploy, p.r.Serving
	switch {
	case old == nil || d.To.Spec.Paired || d.To.Fingerprint == old.Fingerprint, p.r.count(d.To.Spec) == 0 && !d.To.Spec.ranged(), !d.To.Spec.Routed:
		return atOnce
	case slices.ContainsFunc(p.r.Proven, func(v proven) bool { return v.Version == d.To.Version }):
		return atOnce
	}
	switch d.To.Spec.Strategy {
	case tenfold.StrategyCanary:
		return canary
	case tenfold.StrategyBlueGreen:
		return blueGreen
	}
	return rolling
}

func (s serviceSpec) share() float64 {
	if s.Share > 0 && s.Share < 1 {
		return s.Share
	}
	return canaryShare
}

func (s serviceSpec) bake() time.Duration {
	switch {
	case s.Bake > 0:
		return s.Bake
	case s.Strategy == tenfold.StrategyCanary:
		return canaryBake
	case s.Strategy == tenfold.StrategyBlueGreen:
		return blueGreenBake
	}
	return rollingBake
}

// watchFor is how long the old tasks stay warm after a switch to s. Behind a canary little is left to see.
func (s serviceSpec) watchFor() time.Duration {
	if s.Strategy == tenfold.StrategyCanary {
		return rollingBake
	}
	return s.bake()
}

// trying says that a canary is compared.
func (p *planner) trying() bool {
	d := p.r.Deploy
	return !d.Tried.IsZero() && d.Passed == "" && p.method() == canary
}

// wanted is how many new tasks there should be now.
func (p *planner) wanted() int {
	d := p.r.Deploy
	n := p.r.count(d.To.Spec)
	if d.To.Spec.ranged() {
		n = max(n, 1) // one that sleeps is tried out too
	}
	if p.method() == canary && d.Passed == "" {
		return min(n, max(1, int(math.Ceil(d.To.Spec.share()*float64(n)))))
	}
	return n
}

// takeOver gives new tasks requests, as far as it is time for it.
func (p *planner) takeOver(healthy, want int) {
	d := p.r.Deploy
	switch p.method() {
	case canary:
		if d.Passed == "" {
			p.tryOut(healthy, want)
			return
		}
	case rolling:
		// One step where pages are pinned to a version: a call would reach the other one.
		if want > 1 && d.To.Spec.Pinned == 0 && healthy < want {
			p.replaceSome(want)
			return
		}
	}
	if healthy >= want {
		p.switchOver()
	}
}

// serveNew lets healthy new tasks have requests, and says how many do.
func (p *planner) serveNew() (n int) {
	for i := range p.r.Tasks {
		t := &p.r.Tasks[i]
		if !p.isNew(*t) {
			continue
		}
		if t.Phase == starting && t.Healthy {
			p.phase(t, serving)
		}
		if t.Phase == serving && !t.Down {
			n++
		}
	}
	if n > 0 && p.r.Deploy.Tried.IsZero() {
		d := *p.r.Deploy
		d.Tried = p.now
		p.r.Deploy = &d
		p.do(sayTrial, n, "")
	}
	return n
}

// replaceSome puts healthy new tasks in the places of old ones; the last old one goes with the switch.
func (p *planner) replaceSome(want int) {
	room := max(1, want-p.serveNew())
	for i := range p.r.Tasks {
		t := &p.r.Tasks[i]
		if t.Version != p.r.Serving.Version || t.Phase != serving || t.Down {
			continue
		}
		if t.Apart = room <= 0; !t.Apart {
			room--
		}
	}
}

// tryOut moves a canary on.
func (p *planner) tryOut(healthy, want int) {
	if p.r.Deploy.Tried.IsZero() {
		if healthy >= want {
			p.serveNew()
		}
		return
	}
	p.serveNew()
	d := *p.r.Deploy
	switch took := p.now.Sub(d.Tried); {
	case p.w.Verdict == judge.AsGood && took >= leastTrial:
		d.Passed, d.Tested = passedGood, took
	case took >= d.To.Spec.bake():
		if d.Passed, d.Tested = passedTime, took; p.w.Thin {
			d.Passed = passedThin
		}
	default:
		return
	}
	p.r.Deploy = &d
	p.do(sayPassed, 0, d.Passed)
}

// watch ends the time after a switch, when it is over.
func (p *planner) watch() {
	w := p.r.Watch
	if w == nil || p.r.Serving == nil || p.r.Deploy != nil {
		return
	}
	switch took := p.now.Sub(w.Began); {
	case p.w.Verdict == judge.Worse:
		p.do(doFail, 0, causeWorse)
		return
	case w.Over, took >= p.r.Serving.Spec.watchFor(), p.w.Verdict == judge.AsGood && took >= leastTrial:
		p.do(sayProven, 0, "")
		p.prove()
		p.endWatch()
	}
}

// endWatch lets the old tasks go, but for those that pages need.
func (p *planner) endWatch() {
	if p.r.Watch == nil {
		return
	}
	old := p.r.Watch.Old
	p.r.Watch = nil
	if old.Spec.Pinned > 0 {
		p.keep(old)
		return
	}
	p.release(old.Version, 0)
}

// release retires the tasks of a version that are apart, but for some.
func (p *planner) release(version string, keep int) {
	for i := range p.r.Tasks {
		t := &p.r.Tasks[i]
		if t.Version != version || !t.Apart || t.Phase == draining || t.Phase == stopping {
			continue
		}
		if keep > 0 && t.Phase == serving && !t.Down {
			keep--
			continue
		}
		p.retire(t)
	}
}

// back gives the requests to the old tasks again, which are warm.
func (p *planner) back() {
	old := p.r.Watch.Old
	for i := range p.r.Tasks {
		switch t := &p.r.Tasks[i]; t.Version {
		case old.Version:
			t.Apart = false
		case p.r.Serving.Version:
			p.retire(t)
		}
	}
	p.r.Serving, p.r.Watch = &old, nil
}

// prove notes that the serving version served well.
func (p *planner) prove() {
	v := proven{p.r.Serving.Version, p.r.Serving.Spec.Build}
	list := slices.DeleteFunc(slices.Clone(p.r.Proven), func(o proven) bool { return o.Version == v.Version })
	list = append(list, v)
	p.r.Proven = list[max(0, len(list)-provenMost):]
}

func (p *planner) keeps(version string) bool {
	return slices.ContainsFunc(p.r.Kept, func(k kept) bool { return k.Version.Version == version })
}

// keep has the tasks of a version that are apart stay for the pages that were made with it.
func (p *planner) keep(v version) {
	if p.keeps(v.Version) {
		return
	}
	p.r.Kept = append(slices.Clone(p.r.Kept), kept{Version: v, Since: p.now, Called: p.now, Looked: p.now, Calls: p.calls(v.Version), Others: p.calls(p.r.Serving.Version)})
	for len(p.r.Kept) > keptMost {
		oldest := p.r.Kept[0].Version.Version
		p.r.Kept = p.r.Kept[1:]
		p.release(oldest, 0)
	}
}

// recall makes tasks that were kept for pages new ones of a deployment: they run, and are healthy.
func (p *planner) recall(version string) {
	p.r.Kept = slices.DeleteFunc(slices.Clone(p.r.Kept), func(k kept) bool { return k.Version.Version == version })
	for i := range p.r.Tasks {
		if t := &p.r.Tasks[i]; t.Version == version && t.Apart {
			if t.Apart = false; t.Phase == serving && !t.Down {
				p.phase(t, starting)
			}
		}
	}
}

func (p *planner) calls(version string) (n uint64) {
	for _, t := range p.r.Tasks {
		if t.Version == version {
			n += p.w.Calls[t.N]
		}
	}
	return n
}

// keepPinned keeps as many tasks of earlier versions as their pages need, and none when no call came for a
// while.
func (p *planner) keepPinned() {
	if len(p.r.Kept) == 0 || p.r.Serving == nil || p.w.Calls == nil {
		return
	}
	most := p.r.Serving.Spec.Pinned
	var left []kept
	for _, k := range p.r.Kept {
		if p.now.Sub(k.Looked) >= pinnedPace {
			calls, others := p.calls(k.Version.Version), p.calls(p.r.Serving.Version)
			if calls != k.Calls {
				k.Called = p.now
			}
			if own, rest := float64(calls-min(calls, k.Calls)), float64(others-min(others, k.Others)); own+rest > 0 {
				p.release(k.Version.Version, max(1, int(math.Ceil(float64(p.r.count(k.Version.Spec))*own/(own+rest)))))
			}
			k.Looked, k.Calls, k.Others = p.now, calls, others
		}
		if p.now.Sub(k.Called) > pinnedFor || p.now.Sub(k.Since) > most {
			p.release(k.Version.Version, 0)
			continue
		}
		left = append(left, k)
	}
	p.r.Kept = left
}
