package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/lean"
	"tenfold/internal/store"
	"tenfold/plan"
)

// The loop's pace: woken by events, and by itself after these.
const (
	busyPace = 250 * time.Millisecond // while something is on its way
	idlePace = 2 * time.Second
)

// loop pursues every environment's goal until ctx ends.
type loop struct{ h *house }

func (l loop) Name() string { return "loop" }

func (l loop) Run(ctx context.Context, ready func()) error {
	ready()
	for {
		busy, err := l.h.pass(ctx)
		if err != nil && ctx.Err() == nil {
			l.h.log.Error("reconcile", "err", err)
		}
		pace := idlePace
		if busy {
			pace = busyPace
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.h.wakeup:
		case <-time.After(pace):
		}
	}
}

// pass compares every environment with the world once and takes the steps that can be taken.
func (h *house) pass(ctx context.Context) (busy bool, err error) {
	envs, err := h.store.Environments(ctx)
	if err != nil {
		return false, err
	}
	observed, err := h.observe(ctx)
	if err != nil {
		return false, err
	}
	for _, e := range envs {
		b, err := h.pursue(ctx, e, ofEnv(observed, e))
		if err != nil {
			h.log.Error("reconcile", "app", e.App, "env", e.Env, "err", err)
		}
		busy = busy || b
	}
	return busy, nil
}

// observe asks every tier.
func (h *house) observe(ctx context.Context) ([]tenfold.Resource, error) {
	var all []tenfold.Resource
	for _, t := range h.tiers {
		rs, err := t.Observe(ctx)
		if err != nil {
			return nil, fmt.Errorf("observe %s: %w", t.Name(), err)
		}
		h.own(t, rs)
		all = append(all, rs...)
	}
	return all, nil
}

// own remembers which tier speaks of which resource: kinds alone do not say (builds have two tiers).
func (h *house) own(t tenfold.Tier, rs []tenfold.Resource) {
	for _, r := range rs {
		h.owners.Store(r.ID, t)
	}
}

func ofEnv(rs []tenfold.Resource, e store.Environment) []tenfold.Resource {
	var out []tenfold.Resource
	for _, r := range rs {
		if string(r.ID.App) == e.App && string(r.ID.Env) == e.Env {
			out = append(out, r)
		}
	}
	return out
}

// pursue takes the next steps of one environment and settles its revision when it is decided.
func (h *house) pursue(ctx context.Context, e store.Environment, observed []tenfold.Resource) (busy bool, err error) {
	desired, err := h.desired(ctx, e)
	if err != nil {
		return false, err
	}
	steps := plan.Next(desired, observed)
	for _, s := range steps {
		if err := h.take(ctx, e, s); err != nil {
			return true, err
		}
	}
	if len(steps) > 0 {
		return true, nil
	}
	out := plan.Judge(desired, observed)
	if err := h.settle(ctx, e, out); err != nil {
		return true, err
	}
	return len(out.Late)+len(out.Left) > 0, nil
}

// desired is what the goal of an environment wants; nothing for goal 0.
func (h *house) desired(ctx context.Context, e store.Environment) ([]tenfold.Resource, error) {
	if e.Goal == 0 {
		return nil, nil
	}
	app, err := h.app(ctx, e.App, e.Env, e.Goal)
	if err != nil {
		return nil, err
	}
	return h.want(ctx, app)
}

// want asks every tier what an app needs of it.
func (h *house) want(ctx context.Context, app tenfold.App) ([]tenfold.Resource, error) {
	bounds, err := h.store.Scale(ctx, string(app.Name), string(app.Env))
	if err != nil {
		return nil, err
	}
	scale := tenfold.Scale{}
	for _, b := range bounds {
		scale[tenfold.Name(b.Service)] = tenfold.Bounds{Min: b.Min, Max: b.Max}
	}
	var all []tenfold.Resource
	for _, t := range h.tiers {
		rs, err := t.Desired(app, scale)
		if err != nil {
			return nil, fmt.Errorf("plan %s: %w", t.Name(), err)
		}
		h.own(t, rs)
		all = append(all, rs...)
	}
	return all, plan.Check(all)
}

// take records a step and hands it to the tier of its kind.
func (h *house) take(ctx context.Context, e store.Environment, s tenfold.Step) error {
	owner, ok := h.owners.Load(s.Want.ID)
	if !ok {
		return fmt.Errorf("%s: no tier owns it", s)
	}
	if err := owner.(tenfold.Tier).Apply(ctx, s); err != nil {
		return fmt.Errorf("%s: %w", s, err)
	}
	h.log.Info(s.String(), "app", e.App, "env", e.Env, "revision", e.Goal)
	return h.store.Audit(ctx, store.Entry{
		At: time.Now(), Actor: "loop", App: e.App, Env: e.Env, Revision: e.Goal,
		Verb: string(s.Verb), Resource: s.Want.ID.Short(), Reason: s.Reason,
	})
}

// settle records that the goal serves or was given up on. A failed goal gives way to the last
// revision that served, which still serves or is put back; without one everything stops.
func (h *house) settle(ctx context.Context, e store.Environment, out plan.Outcome) error {
	if e.Goal == 0 || e.Goal == e.Serving && len(out.Failed) == 0 {
		return nil
	}
	rev, err := h.store.Revision(ctx, e.App, e.Env, e.Goal)
	if err != nil {
		return err
	}
	switch {
	case len(out.Failed) > 0 && rev.State == "pending":
		return h.giveUp(ctx, e, out.Failed, e.Serving)
	case rev.State == "serving" && slices.ContainsFunc(out.Failed, wentBack):
		// Its own watch took it back: with it goes the rest of what was deployed.
		before, err := h.before(ctx, control.Env{App: tenfold.AppName(e.App), Env: tenfold.Environment(e.Env)})
		if tenfold.CodeOf(err) == tenfold.CodeNotFound {
			return nil
		}
		if err != nil {
			return err
		}
		return h.giveUp(ctx, e, out.Failed, int64(before))
	case out.Done && rev.State != "serving":
		h.deciding.Lock()
		defer h.deciding.Unlock()
		if err := h.store.Serve(ctx, e.App, e.Env, e.Goal); err != nil {
			return err
		}
		h.hub.emit(tenfold.Event{
			ID: tenfold.ID{App: tenfold.AppName(e.App), Env: tenfold.Environment(e.Env)}, Severity: tenfold.SeverityInfo,
			Text: fmt.Sprintf("deployment %d serves", e.Goal), Took: time.Since(rev.Created),
		})
		h.settled.Reset(lean.Settled)
	}
	return nil
}

// wentBack says that a service gave a version up that served, and has the one before again.
func wentBack(o tenfold.Resource) bool {
	return o.ID.Kind == tenfold.KindService && o.Serving != "" && o.Serving != o.Goal
}

// giveUp records that the goal failed; back is the revision that is the goal again, 0 for none.
func (h *house) giveUp(ctx context.Context, e store.Environment, failed []tenfold.Resource, back int64) error {
	var reasons []string
	hint := ""
	for _, f := range failed {
		reasons = append(reasons, f.ID.Short()+": "+f.Reason)
		if hint == "" {
			hint = f.Hint
		}
	}
	reason, err := json.Marshal(failure{strings.Join(reasons, "\n"), hint})
	if err != nil {
		return err
	}
	h.deciding.Lock()
	defer h.deciding.Unlock()
	if err := h.store.GiveUp(ctx, e.App, e.Env, e.Goal, back, string(reason), time.Now()); err != nil {
		return err
	}
	after := "nothing was switched; no earlier deployment to serve. data is kept."
	switch {
	case back == e.Serving && back > 0:
		after = fmt.Sprintf("deployment %d serves on. data is kept.", back)
	case back > 0:
		after = fmt.Sprintf("deployment %d serves again. data is kept.", back)
	}
	h.settled.Reset(lean.Settled)
	first, detail, _ := strings.Cut(strings.Join(reasons, "\n"), "\n")
	h.hub.emit(tenfold.Event{
		ID: failed[0].ID, Severity: tenfold.SeverityError, Text: first, Detail: strings.TrimRight(detail+"\n"+after, "\n"), Hint: hint,
	})
	return nil
}

// failure is how a failed revision's reason is stored.
type failure struct {
	Reason string `json:"reason"`
	Hint   string `json:"hint,omitempty"`
}
