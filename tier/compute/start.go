package compute

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"tenfold"
	"tenfold/internal/build"
	"tenfold/internal/freeport"
	"tenfold/internal/keeper"
	"tenfold/internal/shell"
	"tenfold/tier/compute/judge"
)

// start starts a task, unless it failed to only just now. A start that fails for good, or again and
// again, fails the deployment that it belongs to.
func (s *service) start(ctx context.Context, n int) {
	if _, known := s.counts[n]; !known {
		s.counts[n] = judge.Count{} // all that it answers is compared
	}
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
		if t.Port, err = freeport.Pick(); err != nil {
			return err
		}
		// A daemon that dies before it is on disk reads it from the unit's label.
		if err := s.changeSoon(func(r record) record {
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
	if _, ended := s.listed[n]; ended {
		if err := s.c.cfg.Units.Remove(ctx, s.unitID(n)); err != nil {
			return err
		}
	}
	s.mu.Lock()
	delete(s.probes, n)
	s.mu.Unlock()
	u, err := s.c.confine(ctx, s.unit(t, v, b, append(env, "PORT="+strconv.Itoa(t.Port))), s.id, v.Spec, b)
	if err != nil {
		return err
	}
	if _, err = s.c.cfg.Units.Start(ctx, u); err != nil || v.Spec.worker() {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h := &health{}
	s.probes[n] = h
	s.probe(ctx, h, v.Spec.Health, t.Port, v.Spec.probeEvery(), firstPatience) // at once, and not when it is seen to run
	return nil
}

// label is what a unit says of its task to a daemon that adopts it.
type label struct {
	Version string `json:"version"`
	Port    int    `json:"port"`
}

// portOf is the port that a task was started with; 0 when its unit says none.
func portOf(u keeper.Unit) int {
	var l label
	if json.Unmarshal([]byte(u.Label), &l) != nil || l.Port < 0 || l.Port > 1<<16-1 {
		return 0
	}
	return l.Port
}

func (s *service) unit(t task, v version, b build.Result, env []string) keeper.Unit {
	grace := 10 * time.Second
	if !v.Spec.Routed {
		grace = max(grace, v.Spec.Drain) // a worker drains by itself when asked to end
	}
	said, _ := json.Marshal(label{t.Version, t.Port})
	argv := v.Spec.Command.Argv()
	if b.Image == "" {
		argv, env = shell.Spare(argv, env, b.Dir)
	}
	return keeper.Unit{
		ID: s.unitID(t.N), Label: string(said), Argv: argv, Env: env, Dir: b.Dir, StopGrace: grace, StopTree: true,
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
