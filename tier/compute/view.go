package compute

import (
	"context"
	"slices"
	"strings"
	"time"

	"tenfold"
	"tenfold/internal/container"
	"tenfold/internal/isolate"
	"tenfold/internal/keeper"
)

// Task is a running copy of a service, for people.
type Task struct {
	ID       tenfold.TaskID
	Service  tenfold.ID
	PID      int
	Port     int
	State    string // "starting", "serving", "draining", "stopping", "down", "warm"
	Started  time.Time
	Restarts int
	Version  string
	CPU      float64 // seconds since its living processes started
	RSS      int64   // bytes
	// Rungs are what shuts it in, and what does not; Unenforced is which limit does not hold, and why.
	Rungs      []isolate.Rung
	Unenforced string
}

// Tasks lists all tasks of the house by ID.
func (c *Compute) Tasks(ctx context.Context) ([]Task, error) {
	units, err := c.cfg.Units.List(ctx, "task/")
	if err != nil {
		return nil, err
	}
	byID := map[string]keeper.Status{}
	for _, u := range units {
		byID[u.Unit.ID] = u
	}
	var out []Task
	for _, it := range c.all() {
		s, ok := it.(*service)
		if !ok {
			continue
		}
		for _, t := range s.snapshot().Tasks {
			v := Task{ID: tenfold.TaskID(taskID(s.id, t.N)), Service: s.id, Port: t.Port, State: t.Phase, Restarts: t.Restarts, Version: t.Version}
			switch {
			case t.Down:
				v.State = "down"
			case t.Apart && t.Phase == serving:
				v.State = "warm"
			}
			if u, ok := byID[s.unitID(t.N)]; ok && u.Phase != keeper.Exited {
				v.PID, v.Started, v.Rungs, v.Unenforced = u.PID, u.Started, u.Rungs, u.Unenforced
				v.CPU, v.RSS = usage(c.pids(ctx, u))
				if container.Holds(u.Unit) {
					v.Rungs = containerRungs()
				}
			}
			out = append(out, v)
		}
	}
	slices.SortFunc(out, func(a, b Task) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return out, nil
}

// againMark ends the name of a version whose tasks are replaced by new ones of the same.
const againMark = "-before"

// Restart replaces all tasks of a service by new ones of the same version, as a deployment does: the
// old serve until the new are healthy.
func (c *Compute) Restart(_ context.Context, id tenfold.ID) error {
	s, err := c.find(id)
	if err != nil {
		return err
	}
	defer s.prod()
	return s.change(func(r record) record {
		if r.Goal != nil && r.Failed == r.Goal.Fingerprint {
			r.Failed, r.Reason, r.Hint = "", "", "" // try again
		}
		if r.Serving == nil || r.Goal == nil || r.Deploy != nil || r.Serving.Version != r.Goal.Version {
			return r // a deployment is on its way, or begins now: it starts new tasks anyway
		}
		// The serving version under another name, so that next sees the goal as a new one. Its tasks
		// keep running under that name.
		old := *r.Serving
		old.Version += againMark
		r.Serving = &old
		r.Tasks = slices.Clone(r.Tasks)
		for i := range r.Tasks {
			if r.Tasks[i].Version == r.Goal.Version {
				r.Tasks[i].Version = old.Version
			}
		}
		return r
	})
}
