package compute

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"tenfold"
	"tenfold/internal/keeper"
)

// keptRuns is how many runs of a job are remembered, with their output.
const keptRuns = 100

// Run is one run of a job or of a one-off command.
type Run struct {
	N       int       `json:"n"`
	Trigger string    `json:"trigger"` // "schedule", "first-deploy", "retry", "hand"
	Attempt int       `json:"attempt"` // from 1
	Tick    time.Time `json:"tick,omitzero"`
	Began   time.Time `json:"began"`
	Ended   time.Time `json:"ended,omitzero"`
	Exit    int       `json:"exit"`            // status, -1 for a signal
	Error   string    `json:"error,omitempty"` // why it did not end well
	Log     string    `json:"log"`             // file, see internal/tasklog
	Unit    string    `json:"unit"`
}

// OK says that the run ended well.
func (r Run) OK() bool { return !r.Ended.IsZero() && r.Error == "" }

type jobGoal struct {
	Spec        jobSpec      `json:"spec"`
	Needs       []tenfold.ID `json:"needs,omitempty"`
	Fingerprint string       `json:"fingerprint"`
}

type jobRecord struct {
	ID      tenfold.ID `json:"id"`
	Goal    *jobGoal   `json:"goal,omitempty"`
	Stopped bool       `json:"stopped,omitempty"`
	Gone    bool       `json:"gone,omitempty"`
	Began   time.Time  `json:"began,omitzero"` // of the schedule
	Last    time.Time  `json:"last,omitzero"`  // the last tick that was answered
	// First says that the run of a first-deploy job ended well; it outlives the job's removal.
	First   bool  `json:"first,omitempty"`
	LastRun int   `json:"lastRun"`
	Runs    []Run `json:"runs,omitempty"` // newest last
}

// job pursues one job's schedule.
type job struct {
	pursuit
	mu  sync.Mutex
	rec jobRecord
}

func (j *job) snapshot() jobRecord {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.rec
}

func (j *job) change(f func(*jobRecord)) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	rec := j.rec
	rec.Runs = slices.Clone(rec.Runs)
	f(&rec)
	if err := j.c.save(j.id, rec); err != nil {
		return err
	}
	j.rec = rec
	return nil
}

func (j *job) apply(s tenfold.Step) error {
	defer j.prod()
	switch s.Verb {
	case tenfold.VerbStart, tenfold.VerbUpdate:
		spec, ok := s.Want.Spec.(jobSpec)
		if !ok {
			return fmt.Errorf("the spec is a %T", s.Want.Spec)
		}
		if r := j.snapshot(); r.Goal != nil && r.Goal.Fingerprint == s.Want.Fingerprint && !r.Stopped && !r.Gone {
			return nil
		}
		now := time.Now()
		return j.change(func(r *jobRecord) {
			if r.Goal == nil || r.Goal.Spec.Schedule != spec.Schedule || r.Stopped || r.Gone {
				r.Began, r.Last = now, now // a new schedule has missed nothing
			}
			r.Goal, r.Stopped, r.Gone = &jobGoal{spec, s.Want.Needs, s.Want.Fingerprint}, false, false
		})
	case tenfold.VerbStop:
		return j.change(func(r *jobRecord) { r.Stopped = true })
	case tenfold.VerbRemove:
		return j.change(func(r *jobRecord) { r.Gone, r.Goal = true, nil })
	}
	return fmt.Errorf("unknown verb %q", s.Verb)
}

func (j *job) observe() (tenfold.Resource, bool) {
	r := j.snapshot()
	o := tenfold.Resource{ID: j.id, State: tenfold.StateReady}
	if r.Gone || r.Goal == nil {
		return o, false
	}
	o.Goal, o.Serving, o.Needs = r.Goal.Fingerprint, r.Goal.Fingerprint, r.Goal.Needs
	if r.Stopped {
		o.State, o.Serving = tenfold.StateStopped, ""
	}
	o.Note = "by hand: tenfold run " + string(j.id.Name)
	s := r.Goal.Spec.Schedule
	if next, err := following(s, r.Began, time.Now()); err == nil && !next.IsZero() {
		zone := s.Timezone
		if z, err := time.LoadLocation(zone); err == nil {
			next = next.In(z)
		}
		o.Note = "next " + next.Format("2006-01-02 15:04 MST")
	} else if s.FirstDeploy {
		o.Note = "waits for the first deploy"
		if r.First {
			o.Note = "done"
		}
	}
	if n := len(r.Runs); n > 0 && !r.Runs[n-1].Ended.IsZero() {
		last := r.Runs[n-1]
		how := "ok, " + last.Ended.Sub(last.Began).Round(time.Second).String()
		if !last.OK() {
			how = last.Error
		}
		o.Note += "; last " + how
	}
	return o, true
}

func (j *job) run(ctx context.Context) {
	for {
		if err := j.look(ctx, time.Now()); err != nil && ctx.Err() == nil {
			j.emit(tenfold.SeverityWarning, 0, err.Error())
		}
		if !j.wait(ctx, time.Second) {
			return
		}
	}
}

// look notes ended runs, retries failed ones and starts what is due.
func (j *job) look(ctx context.Context, now time.Time) error {
	if err := j.reap(ctx, now); err != nil {
		return err
	}
	r := j.snapshot()
	going := slices.IndexFunc(r.Runs, func(x Run) bool { return x.Ended.IsZero() })
	if r.Goal == nil || r.Stopped || r.Gone {
		if going >= 0 {
			return j.c.cfg.Units.Stop(ctx, r.Runs[going].Unit)
		}
		return nil
	}
	spec := r.Goal.Spec
	if going >= 0 && spec.Timeout > 0 && now.Sub(r.Runs[going].Began) > spec.Timeout {
		j.note(r.Runs[going].N, "not done after "+spec.Timeout.String())
		return j.c.cfg.Units.Stop(ctx, r.Runs[going].Unit)
	}
	if going < 0 && j.retries(r, spec) {
		last := r.Runs[len(r.Runs)-1]
		_, err := j.launch(ctx, Run{Trigger: "retry", Attempt: last.Attempt + 1, Tick: last.Tick})
		return err
	}
	if spec.Schedule.FirstDeploy {
		if r.First || going >= 0 || gaveUp(r) {
			return nil
		}
		_, err := j.launch(ctx, Run{Trigger: "first-deploy", Attempt: 1})
		return err
	}
	tick, run, err := due(spec, r.Began, r.Last, now)
	if err != nil || tick.IsZero() {
		return err
	}
	if going >= 0 && run {
		switch spec.Overlap {
		case "forbid":
			run = false
			j.emit(tenfold.SeverityWarning, 0, "skipped: the last run still goes on (overlap: forbid)")
		case "replace":
			j.note(r.Runs[going].N, "replaced by the next run")
			if err := j.c.cfg.Units.Stop(ctx, r.Runs[going].Unit); err != nil {
				return err
			}
		}
	}
	// Answered before it runs: a crash between loses a run rather than making it twice.
	if err := j.change(func(r *jobRecord) { r.Last = tick }); err != nil || !run {
		return err
	}
	_, err = j.launch(ctx, Run{Trigger: "schedule", Attempt: 1, Tick: tick})
	return err
}

// gaveUp says that the first-deploy run and its retries failed since the job was applied.
func gaveUp(r jobRecord) bool {
	return slices.ContainsFunc(r.Runs, func(x Run) bool { return x.Trigger != "hand" && x.Began.After(r.Began) })
}

func (j *job) retries(r jobRecord, spec jobSpec) bool {
	if len(r.Runs) == 0 {
		return false
	}
	last := r.Runs[len(r.Runs)-1]
	return !last.OK() && last.Trigger != "hand" && last.Began.After(r.Began) && last.Error != "replaced by the next run" && last.Attempt <= spec.Retries
}

// note writes down why a run is about to be ended.
func (j *job) note(n int, why string) {
	_ = j.change(func(r *jobRecord) {
		for i := range r.Runs {
			if r.Runs[i].N == n {
				r.Runs[i].Error = why
			}
		}
	})
}

// reap writes down how runs ended and forgets their units.
func (j *job) reap(ctx context.Context, now time.Time) error {
	for _, run := range j.snapshot().Runs {
		if !run.Ended.IsZero() {
			continue
		}
		u, found, err := j.c.unit(ctx, run.Unit)
		if err != nil {
			return err
		}
		if found && u.Phase != keeper.Exited {
			continue
		}
		end(&run, u, found, now)
		if err := j.change(func(r *jobRecord) {
			for i := range r.Runs {
				if r.Runs[i].N == run.N {
					r.Runs[i] = run
				}
			}
			if run.OK() && run.Trigger != "hand" && r.Goal != nil && r.Goal.Spec.Schedule.FirstDeploy {
				r.First = true
			}
		}); err != nil {
			return err
		}
		if err := j.c.cfg.Units.Remove(ctx, run.Unit); err != nil {
			return err
		}
		e := tenfold.Event{At: now, ID: j.id, Severity: tenfold.SeverityInfo, Text: "run " + strconv.Itoa(run.N) + " done", Took: run.Ended.Sub(run.Began)}
		if !run.OK() {
			e.Severity, e.Text = tenfold.SeverityWarning, fmt.Sprintf("run %d: %s", run.N, run.Error)
			e.Detail = outputDetail(lastOutput(run.Log, 10, run.Began.Add(-time.Millisecond)))
			e.Hint = fmt.Sprintf("run it again: tenfold run %s", j.id.Name)
		}
		j.c.cfg.Emit(e)
	}
	return nil
}

// end fills in how a run's unit ended.
func end(run *Run, u keeper.Status, found bool, now time.Time) {
	run.Ended = now
	switch {
	case !found || u.LastExit == nil:
		run.Exit = -1
		if run.Error == "" {
			run.Error = "ended with the house"
		}
	default:
		run.Ended, run.Exit = u.LastExit.At, u.LastExit.Code
		if u.LastExit.Signal != 0 {
			run.Exit = -1
		}
		if run.Error == "" && run.Exit != 0 {
			run.Error = exitText(u)
		}
	}
}

// unit asks the keeper for one unit.
func (c *Compute) unit(ctx context.Context, id string) (keeper.Status, bool, error) {
	units, err := c.cfg.Units.List(ctx, id)
	if err != nil {
		return keeper.Status{}, false, err
	}
	for _, u := range units {
		if u.Unit.ID == id {
			return u, true, nil
		}
	}
	return keeper.Status{}, false, nil
}

// launch starts a run; its record is durable before the process exists.
func (j *job) launch(ctx context.Context, run Run) (Run, error) {
	r := j.snapshot()
	if r.Goal == nil {
		return run, tenfold.Errorf(tenfold.CodeNotFound, "no job %s in %s/%s", j.id.Name, j.id.App, j.id.Env).WithHint("see what there is: tenfold status --app %s", j.id.App)
	}
	spec := r.Goal.Spec
	service := tenfold.ID{App: j.id.App, Env: j.id.Env, Kind: tenfold.KindService, Name: spec.Service}
	u, err := j.c.command(ctx, service, spec.Command.Argv(), spec.Env)
	if err != nil {
		return run, err
	}
	var old []Run
	if err := j.change(func(r *jobRecord) {
		r.LastRun++
		run.N, run.Began = r.LastRun, time.Now()
		run.Unit = "job/" + entry(j.id) + "/" + strconv.Itoa(run.N)
		run.Log = filepath.Join(j.c.logDir(j.id), strconv.Itoa(run.N)+".log")
		r.Runs, old = forgetRuns(append(r.Runs, run))
	}); err != nil {
		return run, err
	}
	for _, o := range old {
		removeLog(o.Log)
	}
	u.ID, u.Log, u.LogMax = run.Unit, run.Log, j.logMax(service)
	_, err = j.c.cfg.Units.Start(ctx, u)
	return run, err
}

// logMax is for one run so much that all which are remembered keep within what the service's logs may take.
func (j *job) logMax(service tenfold.ID) int64 {
	s, err := j.c.find(service)
	if err != nil {
		return 0
	}
	rec := s.snapshot()
	if rec.Serving == nil {
		return 0
	}
	l := rec.Serving.Spec.Logs
	l.Max /= keptRuns
	return logMax(l)
}

// forgetRuns parts the runs that are remembered from those that are not: one that goes on always is, or nobody would
// hear how it ended.
func forgetRuns(all []Run) (kept, old []Run) {
	for i, r := range all {
		if i < len(all)-keptRuns && !r.Ended.IsZero() {
			old = append(old, r)
		} else {
			kept = append(kept, r)
		}
	}
	return kept, old
}

// command is a unit that runs argv as a task of the service's serving version would run.
func (c *Compute) command(ctx context.Context, id tenfold.ID, argv []string, extra map[string]string) (keeper.Unit, error) {
	s, err := c.find(id)
	if err != nil {
		return keeper.Unit{}, err
	}
	rec := s.snapshot()
	if rec.Serving == nil {
		return keeper.Unit{}, tenfold.Errorf(tenfold.CodeUnavailable, "service %s does not serve yet", id.Name).WithHint("deploy it first: tenfold up")
	}
	b, err := c.cfg.Builder.Find(rec.Serving.Spec.Build)
	if err != nil {
		return keeper.Unit{}, err
	}
	env, err := c.environment(ctx, id, *rec.Serving, extra, b)
	if err != nil {
		return keeper.Unit{}, err
	}
	u := keeper.Unit{Argv: argv, Env: env, Dir: b.Dir, StopGrace: 10 * time.Second, StopTree: true, Memory: rec.Serving.Spec.Size.Memory, CPU: rec.Serving.Spec.Size.CPU}
	return c.confine(ctx, u, id, rec.Serving.Spec, b)
}

// RunJob starts a job by hand and returns at once; follow Run.Log, then WaitRun.
func (c *Compute) RunJob(ctx context.Context, id tenfold.ID) (Run, error) {
	c.mu.Lock()
	it := c.items[id]
	c.mu.Unlock()
	j, ok := it.(*job)
	if _, err := c.find(tenfold.ID{App: id.App, Env: id.Env, Kind: tenfold.KindService, Name: id.Name}); !ok && err == nil {
		return Run{}, tenfold.Errorf(tenfold.CodeInvalid, "%s is a service, which runs already", id.Name).
			WithHint("run a command with its build and variables: tenfold run %s --app %s -- COMMAND", id.Name, id.App)
	}
	if !ok {
		return Run{}, tenfold.Errorf(tenfold.CodeNotFound, "no job %s in %s/%s", id.Name, id.App, id.Env).WithHint("see what there is: tenfold status --app %s", id.App)
	}
	return j.launch(ctx, Run{Trigger: "hand", Attempt: 1})
}

// Exec starts a one-off command in the folder and with the environment of a service's serving version
// and returns at once; follow Run.Log, then WaitRun.
func (c *Compute) Exec(ctx context.Context, service tenfold.ID, argv []string) (Run, error) {
	u, err := c.command(ctx, service, argv, nil)
	if err != nil {
		return Run{}, err
	}
	now := time.Now()
	stamp := strconv.FormatInt(now.UnixNano(), 36)
	run := Run{Trigger: "hand", Attempt: 1, Began: now, Unit: "exec/" + entry(service) + "/" + stamp}
	run.Log = filepath.Join(c.logDir(service), "exec-"+stamp+".log")
	u.ID, u.Log = run.Unit, run.Log
	_, err = c.cfg.Units.Start(ctx, u)
	return run, err
}

// WaitRun returns when a run ended, with its exit. When ctx ends first the run is stopped.
func (c *Compute) WaitRun(ctx context.Context, run Run) (Run, error) {
	if run.N > 0 {
		if done, ok := c.waitJob(ctx, run); ok {
			return done, nil
		}
	}
	u, err := c.cfg.Units.Wait(ctx, run.Unit)
	if ctx.Err() != nil {
		clean, stop := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer stop()
		return run, c.cfg.Units.Stop(clean, run.Unit)
	}
	if err != nil {
		return run, fmt.Errorf("wait for run: %w", err)
	}
	end(&run, u, true, time.Now())
	return run, c.cfg.Units.Remove(ctx, run.Unit)
}

// waitJob waits until the job's own loop, which alone removes the unit, wrote down how the run ended.
// False when ctx ended first, or the job was forgotten.
func (c *Compute) waitJob(ctx context.Context, run Run) (Run, bool) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		known := false
		for _, it := range c.all() {
			j, ok := it.(*job)
			if !ok || "job/"+entry(j.id)+"/"+strconv.Itoa(run.N) != run.Unit {
				continue
			}
			known = true
			for _, r := range j.snapshot().Runs {
				if r.Unit == run.Unit && !r.Ended.IsZero() {
					return r, true
				}
			}
			j.prod()
		}
		if !known {
			return run, false
		}
		select {
		case <-ctx.Done():
			return run, false
		case <-tick.C:
		}
	}
}

// Runs lists the remembered runs of a job, newest first.
func (c *Compute) Runs(id tenfold.ID) []Run {
	c.mu.Lock()
	it := c.items[id]
	c.mu.Unlock()
	j, ok := it.(*job)
	if !ok {
		return nil
	}
	runs := slices.Clone(j.snapshot().Runs)
	slices.Reverse(runs)
	return runs
}
