package compute

import (
	"slices"
	"time"

	"tenfold/internal/keeper"
	"tenfold/tier/compute/judge"
)

// unitSeen is a task's process as the keeper has it.
type unitSeen struct {
	Phase   keeper.Phase
	Started time.Time
	Code    int // exit status; -1 for a signal
	Port    int // that its process was told; 0: unknown
}

// seen is the world at one moment.
type seen struct {
	Units    map[int]unitSeen      // by task number
	Migrate  *unitSeen             // of the deployment on its way
	Healthy  map[int]bool          // answered the last probe as it should
	Sick     map[int]bool          // has not answered for so long that it must be taken for hung
	Busy     map[int]bool          // being stopped right now
	Wrong    map[int]bool          // listens on another port than its own
	Clash    map[int]bool          // ended because its port was taken
	Released string                // of a frontend's server: the build whose release users have
	InFlight map[int]int           // of draining tasks whose draining the door knows; absent: unknown
	Verdict  judge.Decision        // of the new version against the old
	Thin     bool                  // too little traffic for a verdict
	Calls    map[int]uint64        // requests to tasks so far, when they were asked for
	Work     map[int]time.Duration // of processors that tasks used until they were healthy
	Cores    int
}

// verb says what an effect does to a task.
type verb string

const (
	doStart   verb = "start"   // the task N; a unit of it that ended goes first
	doStop    verb = "stop"    // the task N
	doMigrate verb = "migrate" // run the migration of the deployment
	doFail    verb = "fail"    // diagnose and give the deployment up: Cause, task N if it has one
	sayUp     verb = "up"      // tell that N is healthy
	sayDown   verb = "down"    // tell that N ended by itself
	sayMigr   verb = "migrated"
	saySwitch verb = "switched"
	sayTrial  verb = "tried"  // new tasks get requests beside the old
	sayPassed verb = "passed" // a canary did: Cause
	sayProven verb = "proven" // a watch is over: Cause
)

type effect struct {
	Verb  verb
	N     int
	Cause string
}

const (
	maxScaling  = 8                // the same when the load asks for them and nothing is known of their starts
	mostScaling = 64               // the same when they hardly use processors
	maxStarting = 2                // tasks starting at once: a herd would slow each other down
	upLong      = 10 * time.Second // up this long, a crash counts as the first again
	maxBackoff  = 10 * time.Second
	maxClashes  = 3
)

// next is the whole policy of a service: from the record and the world to a new record and what to do
// now. It is pure, and everything it asks for is asked for again until the world shows it done, so a
// daemon killed between deciding and doing loses nothing.
//
// The order of a deployment: migrate once; start new tasks beside the old; give them requests when they are
// healthy, as the strategy says (strategy.go); keep the old warm until the new have proved themselves; drain
// the old until nothing is in flight; stop them. Until new tasks are healthy the old serve untouched, so a
// version that never becomes healthy harms nobody.
func next(r record, w seen, now time.Time) (record, []effect) {
	r.Tasks = slices.Clone(r.Tasks)
	p := planner{r: r, w: w, now: now}
	for n := range w.Units {
		p.r.LastTask = max(p.r.LastTask, n) // of a task that the record lost; its number is never used again
	}
	p.goal()
	p.tasks()
	if p.r.Deploy != nil {
		p.deploy()
	}
	p.handOver()
	p.watch()
	p.keepPinned()
	if p.r.Serving != nil {
		p.keepCount()
	}
	return p.r, p.effects
}

type planner struct {
	r       record
	w       seen
	now     time.Time
	effects []effect
}

func (p *planner) do(v verb, n int, cause string) {
	p.effects = append(p.effects, effect{v, n, cause})
}

func (p *planner) phase(t *task, phase string) {
	t.Phase, t.Since = phase, p.now
}

// retire takes a task out: what had traffic drains first.
func (p *planner) retire(t *task) {
	switch {
	case t.Phase == serving && !t.Down:
		p.phase(t, draining)
	case t.Phase == starting || t.Phase == serving:
		p.phase(t, stopping)
	}
}

// goal begins, supersedes and ends deployments.
func (p *planner) goal() {
	r := &p.r
	if r.Goal == nil {
		r.Deploy, r.Serving, r.Before, r.Watch, r.Kept = nil, nil, nil, nil, nil
		for i := range r.Tasks {
			p.retire(&r.Tasks[i])
		}
		return
	}
	if d := r.Deploy; d != nil {
		if d.To.Version == r.Goal.Version {
			to := *d
			to.To = *r.Goal
			r.Deploy = &to
		} else {
			p.dropNew()
		}
	}
	if r.Serving != nil && r.Serving.Version == r.Goal.Version {
		r.Serving = r.Goal // bounds and the like: no deployment
		return
	}
	if r.Deploy == nil && r.Watch != nil && r.Watch.Old.Version == r.Goal.Version {
		p.back() // its tasks are warm still
		r.Serving, r.Failed, r.Reason, r.Hint = r.Goal, "", "", ""
		p.do(saySwitch, 0, "")
		return
	}
	if r.Deploy == nil && r.Failed != r.Goal.Fingerprint {
		r.Deployments++
		r.Deploy = &deployment{Number: r.Deployments, To: *r.Goal, Began: p.now}
		r.Quickest, r.Work = 0, 0
		p.endWatch()
		p.recall(r.Goal.Version)
	}
}

// dropNew ends the deployment on its way with the tasks it started.
func (p *planner) dropNew() {
	for i := range p.r.Tasks {
		t := &p.r.Tasks[i]
		users := p.r.Before != nil && p.r.Before.Version == t.Version
		switch {
		case t.Version == p.r.Deploy.To.Version && (t.Phase == starting || t.Phase == serving && !users && p.isNew(*t)):
			p.retire(t)
		case p.r.Serving != nil && t.Version == p.r.Serving.Version:
			t.Apart = false // it had made room for a new one
		}
	}
	p.r.Deploy = nil
}

func (p *planner) isNew(t task) bool {
	return p.r.Deploy != nil && t.Version == p.r.Deploy.To.Version && (p.r.Serving == nil || p.r.Serving.Version != t.Version)
}

// drain is how long a task may finish what is in flight.
func (p *planner) drain() time.Duration {
	for _, v := range []*version{p.r.Goal, p.r.Serving} {
		if v != nil && v.Spec.Drain > 0 {
			return v.Spec.Drain
		}
	}
	return 30 * time.Second
}

// tasks moves every task by what was seen of it.
func (p *planner) tasks() {
	var left []task
	for _, t := range p.r.Tasks {
		u, exists := p.w.Units[t.N]
		ended := !exists || u.Phase == keeper.Exited
		switch t.Phase {
		case draining:
			n, known := p.w.InFlight[t.N]
			if ended || known && n == 0 || p.now.Sub(t.Since) >= p.drain() {
				p.phase(&t, stopping)
			}
		case starting, serving:
			p.living(&t, u, exists, ended)
		}
		if t.Phase == stopping {
			if !exists {
				continue
			}
			if !p.w.Busy[t.N] {
				p.do(doStop, t.N, "")
			}
		}
		left = append(left, t)
	}
	p.r.Tasks = left
}

// living moves a task that should be up.
func (p *planner) living(t *task, u unitSeen, exists, ended bool) {
	if t.Port == 0 && exists {
		t.Port = u.Port // the record lost it
	}
	switch {
	case t.Down:
		if !p.now.Before(t.Again) && !p.w.Busy[t.N] {
			t.Down = false
			p.phase(t, starting)
			p.do(doStart, t.N, "")
		}
	case !exists && t.Phase == starting:
		t.Healthy = false
		p.do(doStart, t.N, "") // new, or its start did not come about
	case ended && p.w.Clash[t.N] && t.Phase == starting && t.Restarts < maxClashes:
		t.Port = 0
		t.Restarts++
		p.do(doStart, t.N, "")
	case ended && p.isNew(*t) && t.Phase == starting:
		// deploy judges it
	case ended:
		p.crashed(t)
	case p.w.Sick[t.N] && t.Phase == serving:
		// Hung: end it, and the next look finds it ended.
		p.do(doStop, t.N, "hung")
		p.crashed(t)
	case p.w.Healthy[t.N] && t.Phase == starting && !p.isNew(*t):
		p.phase(t, serving)
		t.Healthy = true
		p.booted(t.N, u)
		p.do(sayUp, t.N, "")
	case p.w.Healthy[t.N] && t.Phase == starting && !t.Healthy:
		t.Healthy = true
		p.booted(t.N, u)
		p.do(sayUp, t.N, "")
	case t.Phase == serving && t.Restarts > 0 && p.now.Sub(t.Since) > upLong:
		t.Restarts = 0
	}
}

// booted notes how long a task took to its first good answer.
func (p *planner) booted(n int, u unitSeen) {
	took := p.now.Sub(u.Started)
	if u.Started.IsZero() || took <= 0 {
		return
	}
	if p.r.Boot == 0 {
		p.r.Boot = took
	}
	p.r.Boot += (took - p.r.Boot) / 4
	if p.r.Quickest == 0 || took < p.r.Quickest {
		p.r.Quickest = took
	}
	p.r.Work = max(p.r.Work, p.w.Work[n])
}

// atOnce is how many tasks may start at once when the load asks for them: as many as the processors bring up in the
// time that one takes. Those that wait for something else in it do not slow each other down.
func (p *planner) atOnce() int {
	if p.r.Quickest == 0 || p.r.Work == 0 {
		return maxScaling
	}
	return int(min(max(float64(p.w.Cores)*float64(p.r.Quickest)/float64(p.r.Work), maxScaling), mostScaling))
}

func (p *planner) crashed(t *task) {
	backoff := time.Duration(0)
	if t.Restarts > 0 {
		backoff = min(100*time.Millisecond<<min(t.Restarts-1, 10), maxBackoff)
	}
	t.Down, t.Again, t.Healthy = true, p.now.Add(backoff), false
	t.Restarts++
	p.do(sayDown, t.N, "")
}

// deploy moves the deployment on its way.
func (p *planner) deploy() {
	d := p.r.Deploy
	if limit := d.To.Spec.Deadline; limit > 0 && p.now.Sub(d.Began)-d.Tested > limit && !p.trying() {
		p.do(doFail, p.worst(), "deadline")
		return
	}
	if !d.To.Spec.Migrate.IsZero() && !d.Migrated {
		switch m := p.w.Migrate; {
		case m == nil:
			p.do(doMigrate, 0, "")
			return
		case m.Phase != keeper.Exited:
			return
		case m.Code != 0:
			p.do(doFail, 0, "migrate")
			return
		}
		done := *d
		done.Migrated = true
		p.r.Deploy, d = &done, &done
		p.do(sayMigr, 0, "")
	}
	healthy, waiting := 0, 0
	for _, t := range p.r.Tasks {
		if p.isNew(t) && t.Phase == serving && !t.Down {
			healthy++ // tried out, or users have them still: back to the version before
		}
		if p.isNew(t) && t.Down && !d.Tried.IsZero() {
			p.do(doFail, t.N, "exit")
			return
		}
		if !p.isNew(t) || t.Phase != starting {
			continue
		}
		u, exists := p.w.Units[t.N]
		switch {
		case exists && u.Phase == keeper.Exited && !(p.w.Clash[t.N] && t.Restarts <= maxClashes):
			p.do(doFail, t.N, "exit")
			return
		case t.Healthy:
			healthy++
			continue
		case p.w.Wrong[t.N]:
			p.do(doFail, t.N, "port")
			return
		case exists && d.To.Spec.Health.Grace > 0 && p.now.Sub(u.Started) > d.To.Spec.Health.Grace:
			p.do(doFail, t.N, "health")
			return
		}
		waiting++
	}
	if p.r.Serving != nil && p.w.Verdict == judge.Worse && !d.Tried.IsZero() {
		p.do(doFail, 0, causeWorse)
		return
	}
	want := p.wanted()
	for n := healthy + waiting; n < want && waiting < maxStarting; n++ {
		p.add(d.To.Version)
		waiting++
	}
	p.takeOver(healthy, want)
}

// worst is the new task that a missed deadline is explained by.
func (p *planner) worst() int {
	for _, t := range p.r.Tasks {
		if p.isNew(t) && !t.Healthy {
			return t.N
		}
	}
	return 0
}

func (p *planner) add(version string) {
	p.r.LastTask++
	p.r.Tasks = append(p.r.Tasks, task{N: p.r.LastTask, Version: version, Phase: starting, Since: p.now})
	p.do(doStart, p.r.LastTask, "")
}

// switchOver gives users the new version: one new record, published whole.
func (p *planner) switchOver() {
	d, old, method := p.r.Deploy, p.r.Serving, p.method()
	p.r.Before = p.outgoing(d.To)
	for i := range p.r.Tasks {
		t := &p.r.Tasks[i]
		switch {
		case p.r.Before != nil && t.Version == p.r.Before.Version:
			// until handOver
		case old != nil && t.Version == old.Version && t.Phase == serving && !t.Down && (method != atOnce || old.Spec.Pinned > 0):
			t.Apart = true
		case t.Version != d.To.Version && t.Apart && p.keeps(t.Version):
			// for the pages that were made with it
		case t.Version != d.To.Version:
			p.retire(t)
		case t.Phase == starting && t.Healthy:
			p.phase(t, serving)
		}
	}
	to := d.To
	p.r.Serving, p.r.Deploy, p.r.Failed, p.r.Reason, p.r.Hint = &to, nil, "", "", ""
	switch {
	case method != atOnce:
		p.r.Watch = &watch{Old: *old, Began: p.now}
	case old != nil && old.Spec.Pinned > 0:
		p.keep(*old)
	}
	if method == atOnce {
		p.prove()
	}
	p.do(saySwitch, 0, "")
}

// outgoing is the version that users of a frontend's server have until its release is switched; nil
// when they have to's at once.
func (p *planner) outgoing(to version) *version {
	if !to.Spec.Paired || p.w.Released == "" || p.w.Released == to.Spec.Build {
		return nil
	}
	for _, v := range []*version{p.r.Serving, p.r.Before} {
		if v != nil && v.Version != to.Version && v.Spec.Build == p.w.Released {
			return v
		}
	}
	return nil
}

// handOver retires the outgoing version once users have the release of the serving one.
func (p *planner) handOver() {
	b := p.r.Before
	if b == nil || p.r.Serving == nil || p.w.Released == "" || p.w.Released == b.Spec.Build && p.w.Released != p.r.Serving.Spec.Build {
		return
	}
	for i := range p.r.Tasks {
		if t := &p.r.Tasks[i]; t.Version == b.Version && t.Version != p.r.Serving.Version {
			p.retire(t)
		}
	}
	p.r.Before = nil
}

// keepCount holds the number of tasks of the serving version at what is wanted.
func (p *planner) keepCount() {
	v := p.r.Serving
	var have, waiting int
	for _, t := range p.r.Tasks {
		if t.Version == v.Version && (t.Phase == starting || t.Phase == serving) {
			have++
			if t.Phase == starting {
				waiting++
			}
		}
	}
	want, most := p.r.count(v.Spec), maxStarting
	if v.Spec.ranged() {
		most = p.atOnce()
	}
	for ; have < want && waiting < most; have++ {
		p.add(v.Version)
		waiting++
	}
	for i := len(p.r.Tasks) - 1; i >= 0 && have > want; i-- {
		if t := &p.r.Tasks[i]; t.Version == v.Version && (t.Phase == starting || t.Phase == serving) {
			p.retire(t)
			have--
		}
	}
}

// fail gives the deployment on its way up, or the one that is watched; the old version serves on.
func (r record) fail(reason, hint string, now time.Time) record {
	p := planner{r: r, now: now}
	p.r.Tasks = slices.Clone(r.Tasks)
	switch {
	case r.Deploy != nil:
		p.r.Failed, p.r.Reason, p.r.Hint = r.Deploy.To.Fingerprint, reason, hint
		p.dropNew()
	case r.Watch != nil && r.Serving != nil:
		p.r.Failed, p.r.Reason, p.r.Hint = r.Serving.Fingerprint, reason, hint
		p.back()
	}
	return p.r
}
