package compute

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"tenfold"
	"tenfold/internal/build"
	"tenfold/internal/directory"
	"tenfold/internal/keeper"
	"tenfold/internal/tasklog"
)

const (
	busyPace  = 50 * time.Millisecond  // between looks while something is on its way
	quietPace = 200 * time.Millisecond // and when all is well: so long a crashed task keeps its endpoint
)

// service pursues one service: it looks, asks next, does.
type service struct {
	pursuit
	wg sync.WaitGroup // probes and stops; run waits for them

	mu     sync.Mutex
	rec    record
	probes map[int]*health
	busy   map[int]bool // being stopped
	acked  string       // the serving version as the door goes by it

	// The rest belongs to run's goroutine.
	tries     map[int]*try // starts that did not come about
	published []directory.Endpoint
	down      string
	known     bool // the door goes by published
	looked    time.Time
	wrong     map[int]bool
	warned    time.Time
	clean     bool // no migration of an earlier deployment is left
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

// switchedTo says that the door goes by a version.
func (s *service) switchedTo(version string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acked == version
}

func (s *service) acknowledge(r record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked = ""
	if r.Serving != nil {
		s.acked = r.Serving.Version
	}
}

// change replaces the record, durably first.
func (s *service) change(f func(record) record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := f(s.rec)
	if reflect.DeepEqual(rec, s.rec) {
		return nil
	}
	if err := s.c.save(s.id, rec); err != nil {
		return err
	}
	s.rec = rec
	return nil
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
		if t.Phase == serving && !t.Down {
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
	if r.Serving == nil {
		if r.Failed == o.Goal {
			o.State = tenfold.StateFailed
		}
		return o, true
	}
	o.Serving = r.Serving.Fingerprint
	switch {
	case up == 0 && r.Serving.Spec.count() > 0:
		o.Reason = "no task is healthy"
	case !s.switchedTo(r.Serving.Version):
		o.Reason = "the front door has not switched yet"
	default:
		o.State = tenfold.StateReady
	}
	return o, true
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
		if err != nil && ctx.Err() == nil && time.Since(s.warned) > time.Minute {
			s.warned = time.Now()
			s.emit(tenfold.SeverityWarning, 0, err.Error())
		}
		pace := busyPace
		if quiet {
			pace = quietPace
		}
		if !s.wait(ctx, pace) {
			return
		}
	}
}

// look sees the world once and does what next says.
func (s *service) look(ctx context.Context) (quiet bool, err error) {
	units, err := s.c.cfg.Units.List(ctx, s.prefix())
	if err != nil {
		return false, fmt.Errorf("list tasks: %w", err)
	}
	now := time.Now()
	rec := s.snapshot()
	w, err := s.see(ctx, rec, units, now)
	if err != nil {
		return false, err
	}
	var effects []effect
	if err := s.change(func(r record) record {
		r, effects = next(r, w, now)
		return r
	}); err != nil {
		return false, err
	}
	for _, e := range effects {
		s.carryOut(ctx, e)
	}
	s.strays(ctx, units)
	rec = s.snapshot()
	s.ask(ctx, rec, w, now)
	s.publish(ctx, rec, w)
	return len(effects) == 0 && s.settled(rec), ctx.Err()
}

func (s *service) settled(r record) bool {
	if r.Deploy != nil || r.Goal == nil && len(r.Tasks) > 0 {
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
	s.lookAtPorts(r, full, now)
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

func unitOf(u keeper.Status) unitSeen {
	out := unitSeen{Phase: u.Phase, Started: u.Started}
	if u.LastExit != nil {
		out.Code = u.LastExit.Code
		if u.LastExit.Signal != 0 {
			out.Code = -1
		}
	}
	return out
}

func (s *service) knowsDraining(n int) bool {
	if !s.known {
		return false
	}
	for _, e := range s.published {
		if e.ID == taskID(s.id, n) {
			return e.Draining
		}
	}
	return true
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
	}
}

// versionOf finds the spec that a task runs.
func versionOf(r record, t task) (version, bool) {
	if r.Deploy != nil && r.Deploy.To.Version == t.Version {
		return r.Deploy.To, true
	}
	for _, v := range []*version{r.Serving, r.Goal} {
		if v != nil && v.Version == t.Version {
			return *v, true
		}
	}
	return version{}, false
}

func (s *service) start(ctx context.Context, n int) {
	t := s.tries[n]
	if t != nil && time.Now().Before(t.after) {
		return
	}
	if err := s.startTask(ctx, n); err != nil && ctx.Err() == nil {
		if t == nil {
			t = &try{}
			s.tries[n] = t
		}
		t.n++
		t.err, t.after = err, time.Now().Add(min(100*time.Millisecond<<min(t.n, 7), maxBackoff))
		if code := tenfold.CodeOf(err); code == tenfold.CodeInvalid || code == tenfold.CodeMissing || code == tenfold.CodeNotFound || t.n >= 5 {
			r := s.snapshot()
			if r.Deploy != nil && slices.ContainsFunc(r.Tasks, func(t task) bool { return t.N == n && t.Version == r.Deploy.To.Version }) {
				s.fail(ctx, fmt.Sprintf("task %d could not be started: %v", s.index(r, n), err), tenfold.HintOf(err))
			} else if t.n == 5 {
				s.emit(tenfold.SeverityWarning, 0, "a task cannot be started: "+err.Error())
			}
		}
		return
	}
	delete(s.tries, n)
}

func (s *service) startTask(ctx context.Context, n int) error {
	r := s.snapshot()
	i := slices.IndexFunc(r.Tasks, func(t task) bool { return t.N == n })
	if i < 0 {
		return nil
	}
	t := r.Tasks[i]
	v, ok := versionOf(r, t)
	if !ok {
		return nil // superseded; the next look retires it
	}
	b, err := s.c.cfg.Builder.Find(v.Spec.Build)
	if err != nil {
		return tenfold.Errorf(tenfold.CodeNotFound, "its build is gone: %w", err).WithHint("build it again: tenfold deploy")
	}
	env, err := s.c.environment(ctx, s.id, v, nil, b)
	if err != nil {
		return err
	}
	if t.Port == 0 {
		if t.Port, err = freePort(); err != nil {
			return err
		}
		// Durable before the process exists: whoever adopts it must know its port.
		if err := s.change(func(r record) record {
			r.Tasks = slices.Clone(r.Tasks)
			for i := range r.Tasks {
				if r.Tasks[i].N == n {
					r.Tasks[i].Port = t.Port
				}
			}
			return r
		}); err != nil {
			return err
		}
	}
	if err := s.c.cfg.Units.Remove(ctx, s.unitID(n)); err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.probes, n)
	s.mu.Unlock()
	_, err = s.c.cfg.Units.Start(ctx, s.unit(t, v, b, append(env, "PORT="+strconv.Itoa(t.Port))))
	return err
}

func (s *service) unit(t task, v version, b build.Result, env []string) keeper.Unit {
	grace := 10 * time.Second
	if !v.Spec.Routed {
		grace = max(grace, v.Spec.Drain) // a worker drains by itself when asked to end
	}
	label, _ := json.Marshal(struct {
		Version string `json:"version"`
		Port    int    `json:"port"`
	}{t.Version, t.Port})
	return keeper.Unit{
		ID: s.unitID(t.N), Label: string(label), Argv: v.Spec.Command.Argv(), Env: env, Dir: b.Dir, StopGrace: grace,
		Log: s.logPath(t.N), LogMax: logMax(v.Spec.Logs), Memory: v.Spec.Size.Memory, CPU: v.Spec.Size.CPU,
	}
}

// logMax spreads what a service's logs may take over the current file and three rotated ones.
func logMax(l tenfold.Logs) int64 {
	if l.Max <= 0 {
		return 0
	}
	return max(l.Max/4, 64<<10)
}

func (s *service) logPath(n int) string {
	return filepath.Join(s.c.logDir(s.id), strconv.Itoa(n)+".log")
}

// freePort asks the kernel for a port that nobody listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// stop ends a task beside the loop: a slow one must not keep the others waiting.
func (s *service) stop(ctx context.Context, n int) {
	s.mu.Lock()
	if s.busy[n] {
		s.mu.Unlock()
		return
	}
	s.busy[n] = true
	s.mu.Unlock()
	s.wg.Go(func() {
		err := s.c.cfg.Units.Remove(ctx, s.unitID(n))
		s.mu.Lock()
		delete(s.busy, n)
		delete(s.probes, n)
		s.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			s.emit(tenfold.SeverityWarning, 0, fmt.Sprintf("stop task %d: %v", n, err))
		}
		s.prod()
	})
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
		every := v.Spec.Health.Every
		if every <= 0 {
			every = 5 * time.Second
		}
		if !v.Spec.Routed && v.Spec.Health.Route == "" {
			up := now.Sub(u.Started)
			h.take(up >= workerUp, "up for "+workerUp.String(), now, every)
			continue
		}
		h.asking = true
		s.wg.Go(func() {
			ok, answer := probe(ctx, v.Spec.Health, t.Port)
			s.mu.Lock()
			h.take(ok, answer, time.Now(), every)
			s.mu.Unlock()
			if ok {
				s.prod()
			}
		})
	}
}

// publish tells the door who answers, when that changed.
func (s *service) publish(ctx context.Context, r record, w seen) {
	endpoints, down := s.endpoints(r, w)
	if s.known && down == s.down && slices.Equal(endpoints, s.published) {
		s.acknowledge(r)
		return
	}
	if r.Gone && len(endpoints) == 0 && len(s.published) == 0 && !s.known {
		s.known = true // nothing was ever told, or the site went with it
		s.acknowledge(r)
		return
	}
	limited, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if err := s.c.cfg.Traffic.Publish(limited, s.id, endpoints, down); err != nil {
		s.known = false
		return
	}
	s.published, s.down, s.known = endpoints, down, true
	s.acknowledge(r)
	s.prod() // who drains may be asked now
}

// endpoints are the tasks that answer. A task that misses its probes gets no traffic, unless all do:
// then slow answers are better than none.
func (s *service) endpoints(r record, w seen) (out []directory.Endpoint, down string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sick []directory.Endpoint
	for _, t := range r.Tasks {
		u, ok := w.Units[t.N]
		if !ok || u.Phase == keeper.Exited || t.Down || t.Phase != serving && t.Phase != draining {
			continue
		}
		e := directory.Endpoint{ID: taskID(s.id, t.N), Addr: "127.0.0.1:" + strconv.Itoa(t.Port), Draining: t.Phase == draining}
		if h := s.probes[t.N]; h != nil && h.bad >= sickAfter && t.Phase == serving {
			sick = append(sick, e)
			continue
		}
		out = append(out, e)
	}
	if !slices.ContainsFunc(out, func(e directory.Endpoint) bool { return !e.Draining }) {
		out = append(out, sick...)
	}
	switch {
	case len(out) > 0:
	case r.Failed != "":
		first, _, _ := strings.Cut(r.Reason, "\n")
		down = s.id.Short() + ": deploy failed: " + first
	case r.Goal == nil:
		down = s.id.Short() + " is stopped"
	case r.Serving == nil:
		down = s.id.Short() + " is starting"
	default:
		down = s.id.Short() + ": no task is healthy"
	}
	return out, down
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
