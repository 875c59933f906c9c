package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/store"
	"tenfold/plan"
)

var _ control.API = (*house)(nil)

// House implements control.API.
func (h *house) House(ctx context.Context) (control.House, error) {
	out := control.House{Version: h.version, PID: pid, UID: os.Getuid(), Started: h.started, Data: h.layout.Dir, Listen: []string{h.listen}, Console: h.console(), Apps: []control.Summary{}}
	out.SSH, _ = h.ssh.Load().(string)
	if h.settings.TLS != "" {
		out.Listen = append(out.Listen, h.settings.TLS)
		if r, err := h.edge.Report(ctx, true); err == nil {
			out.Root = r.Root
		}
	}
	envs, err := h.store.Environments(ctx)
	if err != nil {
		return out, err
	}
	observed, err := h.observe(ctx)
	if err != nil {
		return out, err
	}
	for _, e := range envs {
		s, err := h.summary(ctx, e, ofEnv(observed, e))
		if err != nil {
			return out, err
		}
		out.Apps = append(out.Apps, s)
	}
	return out, nil
}

func (h *house) environment(ctx context.Context, e control.Env) (store.Environment, error) {
	envs, err := h.store.Environments(ctx)
	if err != nil {
		return store.Environment{}, err
	}
	i := slices.IndexFunc(envs, func(x store.Environment) bool { return x.App == string(e.App) && x.Env == string(e.Env) })
	if i < 0 {
		return store.Environment{}, tenfold.Errorf(tenfold.CodeNotFound, "no app %s in %s here", e.App, e.Env).WithHint("list what runs: tenfold ps; start it in its folder: tenfold up")
	}
	return envs[i], nil
}

// summary judges an environment.
func (h *house) summary(ctx context.Context, e store.Environment, observed []tenfold.Resource) (control.Summary, error) {
	s := control.Summary{Env: control.Env{App: tenfold.AppName(e.App), Env: tenfold.Environment(e.Env)}, Revision: tenfold.Revision(e.Goal), Changed: e.Changed}
	if e.Goal == 0 {
		s.State = "stopped"
		if slices.ContainsFunc(observed, func(o tenfold.Resource) bool { return o.State != tenfold.StateStopped }) {
			s.State = "stopping"
		}
		return s, nil
	}
	app, err := h.app(ctx, e.App, e.Env, e.Goal)
	if err != nil {
		return s, err
	}
	s.URLs = h.urls(app)
	desired, err := h.want(ctx, app)
	if err != nil {
		return s, err
	}
	switch out := plan.Judge(desired, observed); {
	case out.Done:
		s.State = "healthy"
	case e.Goal != e.Serving:
		s.State = "deploying"
	default:
		s.State = "degraded"
	}
	return s, nil
}

// Status implements control.API.
func (h *house) Status(ctx context.Context, env control.Env) (control.Status, error) {
	var st control.Status
	e, err := h.environment(ctx, env)
	if err != nil {
		return st, err
	}
	all, err := h.observe(ctx)
	if err != nil {
		return st, err
	}
	observed := ofEnv(all, e)
	if st.Summary, err = h.summary(ctx, e, observed); err != nil {
		return st, err
	}
	if e.Goal > 0 {
		rev, err := h.store.Revision(ctx, e.App, e.Env, e.Goal)
		if err != nil {
			return st, err
		}
		st.Label = rev.Label
		if app, err := h.app(ctx, e.App, e.Env, e.Goal); err == nil {
			st.Certificates = h.certificatesOf(ctx, app)
		}
	}
	st.Resources, st.Tasks = []control.Resource{}, []control.Task{}
	for _, o := range joinServers(observed) {
		if o.ID.Kind == tenfold.KindBuild || o.ID.Kind == tenfold.KindEdge {
			continue
		}
		if o.ID.Kind == tenfold.KindDatabase {
			o.Note += h.pools.note(o.ID)
		}
		st.Resources = append(st.Resources, control.Resource{Kind: o.ID.Kind, Name: o.ID.Name, State: o.State, Now: o.Note, Reason: o.Reason, Endpoint: o.Endpoint, Trial: h.trialOf(o.ID)})
	}
	slices.SortFunc(st.Resources, func(a, b control.Resource) int { return kindOrder(a.Kind) - kindOrder(b.Kind) })
	if st.Tasks, err = h.tasks(ctx, env); err != nil {
		return st, err
	}
	kept, err := h.Kept(ctx)
	if err != nil {
		return st, err
	}
	for _, k := range kept {
		if k.ID.App == env.App && k.ID.Env == env.Env {
			st.Kept = append(st.Kept, k)
		}
	}
	st.Traffic = h.traffic(ctx, env)
	return st, nil
}

// joinServers makes one of a frontend and its server, which bears the same name.
func joinServers(observed []tenfold.Resource) []tenfold.Resource {
	servers := map[tenfold.ID]tenfold.Resource{}
	for _, o := range observed {
		if o.ID.Kind == tenfold.KindService {
			servers[o.ID] = o
		}
	}
	var out []tenfold.Resource
	for _, o := range observed {
		id := o.ID
		if id.Kind = tenfold.KindService; o.ID.Kind == tenfold.KindFrontend {
			if s, ok := servers[id]; ok {
				delete(servers, id)
				if o.Note += ", " + s.Note; s.State != tenfold.StateReady {
					o.State = s.State
				}
				o.Reason = cmp.Or(s.Reason, o.Reason)
			}
			out = append(out, o)
		} else if o.ID.Kind != tenfold.KindService {
			out = append(out, o)
		}
	}
	for _, s := range servers {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b tenfold.Resource) int { return a.ID.Compare(b.ID) })
	return out
}

func kindOrder(k tenfold.Kind) int {
	return slices.Index([]tenfold.Kind{tenfold.KindFrontend, tenfold.KindService, tenfold.KindFunction, tenfold.KindDatabase, tenfold.KindCache, tenfold.KindQueue, tenfold.KindTable, tenfold.KindBus, tenfold.KindBucket, tenfold.KindSeries, tenfold.KindJob}, k)
}

// Wait implements control.API.
func (h *house) Wait(ctx context.Context, e control.Env, n tenfold.Revision) (control.Revision, error) {
	for {
		news := h.hub.next()
		// The goal first: one that is another because this revision was given up on says so in its state.
		env, err := h.environment(ctx, e)
		if err != nil {
			return control.Revision{}, err
		}
		h.deciding.RLock() // who follows events has all that led to the state it is told
		rev, err := h.store.Revision(ctx, string(e.App), string(e.Env), int64(n))
		h.deciding.RUnlock()
		if errors.Is(err, store.ErrNotFound) {
			return control.Revision{}, tenfold.Errorf(tenfold.CodeNotFound, "no deployment %d of %s", n, e.App)
		}
		if err != nil {
			return control.Revision{}, err
		}
		if rev.State != "pending" {
			out := revision(rev)
			kept, err := h.Kept(ctx)
			if err != nil {
				return out, err
			}
			for _, k := range kept {
				if k.ID.App == e.App && k.ID.Env == e.Env {
					out.Kept = append(out.Kept, k)
				}
			}
			return out, nil
		}
		if env.Goal != int64(n) {
			return control.Revision{}, tenfold.Errorf(tenfold.CodeConflict, "deployment %d of %s was overtaken by another", n, e.App).WithHint("tenfold status --app %s", e.App)
		}
		select {
		case <-ctx.Done():
			return control.Revision{}, ctx.Err()
		case <-news:
		case <-time.After(time.Second): // a settled revision is news too, but never only that
		}
	}
}

func revision(r store.Revision) control.Revision {
	out := control.Revision{Revision: tenfold.Revision(r.Revision), Created: r.Created, State: r.State, Reason: r.Reason, Actor: r.Actor, Label: r.Label}
	var f failure
	if r.Reason != "" && json.Unmarshal([]byte(r.Reason), &f) == nil {
		out.Reason, out.Hint = f.Reason, f.Hint
	}
	return out
}

// Revisions implements control.API.
func (h *house) Revisions(ctx context.Context, e control.Env) ([]control.Revision, error) {
	if _, err := h.environment(ctx, e); err != nil {
		return nil, err
	}
	revs, err := h.store.Revisions(ctx, string(e.App), string(e.Env), 100)
	out := []control.Revision{}
	for _, r := range revs {
		out = append(out, revision(r))
	}
	return out, err
}

// Down implements control.API: the loop with an empty goal.
func (h *house) Down(ctx context.Context, e control.Env) error {
	env, err := h.environment(ctx, e)
	if err != nil {
		return err
	}
	if env.Goal != 0 {
		if err := h.store.SetGoal(ctx, env.App, env.Env, 0, time.Now()); err != nil {
			return err
		}
		if err := h.store.Audit(ctx, store.Entry{At: time.Now(), Actor: "user", App: env.App, Env: env.Env, Revision: env.Goal, Verb: "down", Resource: "app " + env.App, Reason: "asked for"}); err != nil {
			return err
		}
	}
	h.wake()
	for {
		all, err := h.observe(ctx)
		if err != nil {
			return err
		}
		left := plan.Judge(nil, ofEnv(all, env)).Left
		if len(left) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to stop: %w", left[0].ID.Short(), ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Scale implements control.API.
func (h *house) Scale(ctx context.Context, e control.Env, service tenfold.Name, b tenfold.Bounds) error {
	env, err := h.environment(ctx, e)
	if err != nil {
		return err
	}
	if env.Goal == 0 {
		return tenfold.Errorf(tenfold.CodeConflict, "%s does not run", e.App).WithHint("start it in its folder: tenfold up")
	}
	app, err := h.app(ctx, env.App, env.Env, env.Goal)
	if err != nil {
		return err
	}
	if _, ok := app.Services[service]; !ok && app.Frontends[service].Server == nil {
		return tenfold.Errorf(tenfold.CodeNotFound, "%s has no service %s", e.App, service).WithHint("list them: tenfold ps --app %s", e.App)
	}
	if b.Min < 0 || b.Max < b.Min || b.Max > 1000 {
		return tenfold.Errorf(tenfold.CodeInvalid, "%d-%d is no range of tasks", b.Min, b.Max).WithHint("write a number or a range up to 1000: tenfold scale %s=2", service)
	}
	if err := h.store.SetScale(ctx, env.App, env.Env, store.Bounds{Service: string(service), Min: b.Min, Max: b.Max}); err != nil {
		return err
	}
	h.wake()
	return nil
}
