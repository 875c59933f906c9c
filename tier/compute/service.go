package compute

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"tenfold"
	"tenfold/internal/directory"
	"tenfold/internal/keeper"
	"tenfold/internal/tasklog"
	"tenfold/tier/compute/judge"
)

const (
	busyPace  = 50 * time.Millisecond  // between looks while something is on its way
	quietPace = 200 * time.Millisecond // and when all is well
	calmPace  = time.Second            // the same, where the keeper tells of a task that ends and nothing is compared
)

// service pursues one service: it looks, asks next, does.
type service struct {
	pursuit
	wg sync.WaitGroup // probes, stops, and what is written or told beside the loop; run waits for them

	changing sync.Mutex // one change of the record at a time, from the look at it until it is in place
	disk     sync.Mutex // one write of it at a time, the newest last

	mu      sync.Mutex
	rec     record
	behind  bool            // the disk has an older record
	lost    error           // why the last write beside the loop failed
	unsaid  []tenfold.Event // events that wait for the end of a look
	telling bool            // somebody tells them
	probes  map[int]*health
	busy    map[int]bool // being stopped
	acked   string       // who answers, as the door goes by it: answering; "" when nothing is known
	shown   string       // how the comparison of a new version stands

	// The rest belongs to run's goroutine.
	tries      map[int]*try // starts that did not come about
	published  []directory.Endpoint
	down       string
	known      bool             // the door goes by published
	stands     standing         // as Changed was told last
	listed     map[int]unitSeen // the units of this look
	followed   bool             // it began in a deployment, whose events somebody waits for
	looked     time.Time
	wrong      map[int]bool
	warned     time.Time
	told       time.Time // of a crash loop
	scaled     scaling
	swept      time.Time           // the logs, the last time
	clean      bool                // no migration of an earlier deployment is left
	unenforced string              // what was warned of; run's alone
	counts     map[int]judge.Count // of tasks, when they were last asked for
	counted    time.Time
	usual      []usual
	trial      *trial // nil: nothing is compared
	verdict    judge.Verdict
}

type try struct {
	n     int
	after time.Time
	err   error
}

func (s *service) snapshot() record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rec
}

func (s *service) apply(step tenfold.Step) error {
	defer s.prod()
	switch step.Verb {
	case tenfold.VerbStart, tenfold.VerbUpdate:
		spec, ok := step.Want.Spec.(serviceSpec)
		if !ok {
			return fmt.Errorf("the spec is a %T", step.Want.Spec)
		}
		v, err := spec.version()
		if err != nil {
			return err
		}
		return s.change(func(r record) record {
			if r.Goal == nil || r.Goal.Fingerprint != step.Want.Fingerprint {
				r.Goal = &version{spec, step.Want.Needs, step.Want.Fingerprint, v}
				r.Failed, r.Reason, r.Hint = "", "", ""
			}
			r.Gone = false
			return r
		})
	case tenfold.VerbStop, tenfold.VerbRemove:
		return s.change(func(r record) record {
			r.Goal, r.Failed, r.Reason, r.Hint = nil, "", "", ""
			r.Gone = step.Verb == tenfold.VerbRemove
			return r
		})
	}
	return fmt.Errorf("unknown verb %q", step.Verb)
}

func (s *service) observe() (tenfold.Resource, bool) {
	r := s.snapshot()
	o := tenfold.Resource{ID: s.id, State: tenfold.StatePending, Failed: r.Failed, Reason: r.Reason, Hint: r.Hint}
	up := 0
	for _, t := range r.Tasks {
		if t.Phase == serving && !t.Down && !t.Apart {
			up++
		}
	}
	if r.Goal == nil {
		o.State = tenfold.StateStopped
		if len(r.Tasks) > 0 {
			o.State = tenfold.StatePending // stopping; what it needs must outlive it
		}
		return o, len(r.Tasks) > 0 || !r.Gone && r.LastTask > 0
	}
	o.Goal, o.Needs = r.Goal.Fingerprint, r.Goal.Needs
	o.Note = plural(up, "task")
	s.mu.Lock()
	if r.Serving != nil && r.Serving.Spec.ranged() {
		o.Note = s.scaled.note(up, r)
	}
	if s.shown != "" && (r.Deploy != nil || r.Watch != nil) {
		o.Note += ", " + s.shown
	}
	s.mu.Unlock()
	if r.Serving == nil {
		if r.Failed == o.Goal {
			o.State = tenfold.StateFailed
		}
		return o, true
	}
	o.Serving = r.Serving.Fingerprint
	pending := ""
	switch {
	case up == 0 && r.count(r.Serving.Spec) > 0:
		pending = "no task is healthy"
	case r.Deploy != nil && r.Deploy.To.Version != r.Goal.Version:
		pending = "the deployment on its way is being given up"
	case !s.heard(r):
		pending = "the front door has not switched yet"
	default:
		o.State = tenfold.StateReady
	}
	if o.Failed != o.Goal && pending != "" {
		o.Reason = pending // why a goal was given up says more
	}
	return o, true
}

// standing is what of observe decides what happens next elsewhere.
type standing struct {
	there           bool
	state           tenfold.State
	serving, failed string
}

func (s *service) standing() standing {
	o, there := s.observe()
	return standing{there, o.State, o.Serving, o.Failed}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

func (s *service) prefix() string { return "task/" + entry(s.id) + "/" }

func (s *service) unitID(n int) string { return s.prefix() + strconv.Itoa(n) }

func (s *service) migrateID(d deployment) string {
	return "migrate/" + entry(s.id) + "/" + strconv.FormatInt(int64(d.Number), 10)
}

// TaskID is the name of a service's n-th task.
func taskID(id tenfold.ID, n int) string { return entry(id) + "/" + strconv.Itoa(n) }

func (s *service) run(ctx context.Context) {
	defer s.wg.Wait()
	s.known = false
	for {
		quiet, err := s.look(ctx)
		if now := s.standing(); now != s.stands {
			s.stands = now
			s.c.cfg.Changed()
		}
		rec := s.snapshot()
		waking := s.waking(rec)
		if !waking { // else it would take from the task that comes to life
			s.tell()
		}
		if err != nil && ctx.Err() == nil && time.Since(s.warned) > time.Minute {
			s.warned = time.Now()
			s.emit(tenfold.SeverityWarning, 0, err.Error())
		}
		pace := busyPace
		switch {
		case quiet && s.c.watched.Load() && rec.Watch == nil:
			pace = s.untilProbe(s.untilSample(calmPace))
		case quiet:
			pace = quietPace
		case waking:
			pace = s.untilProbe(busyPace)
		}
		if !s.wait(ctx, pace) {
			return
		}
	}
}

// look sees the world once and does what next says. What a waiting request does not need comes after the door was told.
func (s *service) look(ctx context.Context) (quiet bool, err error) {
	var units []keeper.Status
	if !s.wakes(time.Now()) || len(s.snapshot().Tasks) > 0 || s.listed == nil { // what slept, and left nothing, has none
		if units, err = s.c.cfg.Units.List(ctx, s.prefix()); err != nil {
			return false, fmt.Errorf("list tasks: %w", err)
		}
	}
	now := time.Now()
	rec := s.snapshot()
	w, err := s.see(ctx, rec, units, now)
	if err != nil {
		return false, err
	}
	s.listed, s.followed = w.Units, rec.Deploy != nil
	w.Work, w.Cores = s.work(ctx, rec, w, units), runtime.NumCPU()
	var effects []effect
	if !s.waking(rec) { // else there is nothing to compare, and requests wait
		s.count(ctx, rec, &w, now)
	}
	if err := s.changeSoon(func(r record) record {
		r, effects = next(r, w, now)
		return r
	}); err != nil {
		return false, err
	}
	for _, e := range effects {
		s.carryOut(ctx, e)
	}
	rec = s.snapshot()
	s.publish(ctx, rec, w)
	s.ask(ctx, rec, w, now)
	s.strays(ctx, units)
	s.autoscale(ctx, rec, now)
	rec = s.snapshot()
	s.sweep(rec, now)
	return len(effects) == 0 && s.settled(rec), ctx.Err()
}

// sweep bounds what is kept of its output, now and then.
func (s *service) sweep(r record, now time.Time) {
	if r.Serving == nil || now.Sub(s.swept) < sweepPace {
		return
	}
	s.swept = now
	written := map[string]bool{}
	for _, t := range r.Tasks {
		written[s.logPath(t.N)] = true
	}
	s.wg.Go(func() { s.c.sweepLogs(s.id, r.Serving.Spec.Logs, written, now) })
}

func (s *service) settled(r record) bool {
	if r.Deploy != nil || r.Goal == nil && len(r.Tasks) > 0 {
		return false
	}
	if r.Before != nil {
		return false
	}
	return !slices.ContainsFunc(r.Tasks, func(t task) bool { return t.Phase != serving || t.Down })
}

// see puts together what next has to know.
func (s *service) see(ctx context.Context, r record, units []keeper.Status, now time.Time) (w seen, err error) {
	w = seen{Units: map[int]unitSeen{}, Healthy: map[int]bool{}, Sick: map[int]bool{}, Busy: map[int]bool{}, Clash: map[int]bool{}, InFlight: map[int]int{}}
	full := map[int]keeper.Status{}
	for _, u := range units {
		n, err := strconv.Atoi(strings.TrimPrefix(u.Unit.ID, s.prefix()))
		if err != nil {
			continue
		}
		full[n], w.Units[n] = u, unitOf(u)
	}
	for _, t := range r.Tasks {
		u, ok := w.Units[t.N]
		if t.Phase == draining && s.knowsDraining(t.N) {
			if n, err := s.c.cfg.Traffic.InFlight(ctx, taskID(s.id, t.N)); err == nil {
				w.InFlight[t.N] = n
			}
		}
		if ok && t.Phase == starting && u.Phase == keeper.Exited && !t.Down {
			w.Clash[t.N] = s.clashed(t)
		}
	}
	if w.Migrate, err = s.migration(ctx, r); err != nil {
		return w, err
	}
	if r.Goal != nil && r.Goal.Spec.Paired && s.c.cfg.Released != nil {
		w.Released = s.c.cfg.Released(tenfold.ID{App: s.id.App, Env: s.id.Env, Kind: tenfold.KindFrontend, Name: s.id.Name})
	}
	s.lookAtLimits(r, full)
	s.lookAtPorts(ctx, r, full, now)
	w.Wrong = s.wrong
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, h := range s.probes {
		w.Healthy[n] = h.ok
		w.Sick[n] = h.bad >= sickAfter && now.Sub(h.since) > hungAfter
	}
	for n := range s.busy {
		w.Busy[n] = true
	}
	return w, nil
}

// work is what tasks used of processors until they were healthy; of one for which requests wait nobody asks.
func (s *service) work(ctx context.Context, r record, w seen, units []keeper.Status) map[int]time.Duration {
	out := map[int]time.Duration{}
	if s.waking(r) {
		return out
	}
	for _, t := range r.Tasks {
		if t.Phase != starting || t.Healthy || !w.Healthy[t.N] {
			continue
		}
		for _, u := range units {
			if u.Unit.ID == s.unitID(t.N) && u.PID > 0 {
				seconds, _ := usage(s.c.pids(ctx, u))
				out[t.N] = max(time.Duration(seconds*float64(time.Second)), leastWork)
			}
		}
	}
	return out
}

// leastWork is what the kernel counts in.
const leastWork = 10 * time.Millisecond

// lookAtLimits warns once of a limit that does not hold.
func (s *service) lookAtLimits(r record, units map[int]keeper.Status) {
	for _, t := range r.Tasks {
		u := units[t.N]
		if u.Unenforced == "" || u.Unenforced == s.unenforced || u.Unit.Strict {
			continue
		}
		s.unenforced = u.Unenforced
		s.emit(tenfold.SeverityWarning, 0, "a limit cannot be enforced, and its tasks run without: "+u.Unenforced)
	}
}

func unitOf(u keeper.Status) unitSeen {
	out := unitSeen{Phase: u.Phase, Started: u.Started, Port: portOf(u.Unit)}
	if u.LastExit != nil {
		out.Code = u.LastExit.Code
		if u.LastExit.Signal != 0 {
			out.Code = -1
		}
	}
	return out
}

// carryOut does one thing that next decided.
func (s *service) carryOut(ctx context.Context, e effect) {
	switch e.Verb {
	case doStart:
		s.start(ctx, e.N)
	case doStop:
		s.stop(ctx, e.N)
	case doMigrate:
		s.migrate(ctx)
	case doFail:
		s.giveUp(ctx, e)
	case sayUp:
		s.sayUp(e.N)
	case sayDown:
		s.sayDown(ctx, e.N)
	case sayMigr:
		s.migrated(ctx)
	case saySwitch:
		s.switched()
	case sayTrial:
		s.sayTrial(e.N)
	case sayPassed:
		s.sayPassed(e.Cause)
	case sayProven:
		s.sayProven()
	}
}

// versionOf finds the spec that a task runs.
func versionOf(r record, t task) (version, bool) {
	if r.Deploy != nil && r.Deploy.To.Version == t.Version {
		return r.Deploy.To, true
	}
	for _, v := range []*version{r.Serving, r.Before, r.Goal} {
		if v != nil && v.Version == t.Version {
			return *v, true
		}
	}
	if r.Watch != nil && r.Watch.Old.Version == t.Version {
		return r.Watch.Old, true
	}
	for _, k := range r.Kept {
		if k.Version.Version == t.Version {
			return k.Version, true
		}
	}
	return version{}, false
}

// strays ends units that the record does not know: left by a record that was lost.
func (s *service) strays(ctx context.Context, units []keeper.Status) {
	r := s.snapshot()
	for _, u := range units {
		n, err := strconv.Atoi(strings.TrimPrefix(u.Unit.ID, s.prefix()))
		if err == nil && !slices.ContainsFunc(r.Tasks, func(t task) bool { return t.N == n }) {
			s.stop(ctx, n)
		}
	}
}

// ask probes the tasks whose turn it is, beside the loop.
func (s *service) ask(ctx context.Context, r record, w seen, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range r.Tasks {
		u, ok := w.Units[t.N]
		v, known := versionOf(r, t)
		if !ok || !known || u.Phase != keeper.Running || t.Down || t.Phase != starting && t.Phase != serving {
			continue
		}
		h := s.probes[t.N]
		if h == nil {
			h = &health{}
			s.probes[t.N] = h
		}
		if h.asking || now.Before(h.next) {
			continue
		}
		every := v.Spec.probeEvery()
		if v.Spec.worker() {
			up := now.Sub(u.Started)
			h.take(up >= workerUp, "up for "+workerUp.String(), now, every)
			continue
		}
		patience := time.Duration(0)
		if t.Phase == starting {
			patience = firstPatience
		}
		s.probe(ctx, h, v.Spec.Health, t.Port, every, patience)
	}
}

// untilProbe is how long it is until some task is to be asked again, most at most.
func (s *service) untilProbe(most time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.rec.Tasks {
		if h := s.probes[t.N]; h != nil && !h.asking && !t.Down && (t.Phase == starting || t.Phase == serving) {
			most = min(most, max(time.Until(h.next), soonPace))
		}
	}
	return most
}

// probe asks a task beside the loop, which hears at once of a good answer. Under s.mu.
func (s *service) probe(ctx context.Context, h *health, how tenfold.Health, port int, every, patience time.Duration) {
	h.asking = true
	s.wg.Go(func() {
		ok, answer := probe(ctx, how, port, patience)
		s.mu.Lock()
		h.take(ok, answer, time.Now(), every)
		s.mu.Unlock()
		if ok {
			s.prod()
		}
	})
}

// lastOutput is what a task or a migration printed last.
func lastOutput(path string, lines int, since time.Time) []string {
	read, err := tasklog.Read(path, tasklog.Options{Tail: 4 * lines, Since: since})
	if err != nil {
		return nil
	}
	var out []string
	for _, l := range read {
		if text := strings.TrimRight(l.Text, " \t\r"); text != "" {
			out = append(out, text)
		}
	}
	return out[max(0, len(out)-lines):]
}
