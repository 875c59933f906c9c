package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/store"
	"tenfold/tier/compute"
)

// Decide implements control.API.
func (h *house) Decide(ctx context.Context, env control.Env, promote bool, actor string) (string, error) {
	e, err := h.environment(ctx, env)
	if err != nil {
		return "", err
	}
	if e.Goal == 0 {
		return "", tenfold.Errorf(tenfold.CodeConflict, "%s does not run", e.App).WithHint("start it in its folder: tenfold up")
	}
	if promote {
		return h.promote(ctx, e, actor)
	}
	text, back, err := h.abort(ctx, e, actor)
	if err != nil {
		return "", err
	}
	e.Goal = back
	return text, h.heed(ctx, e)
}

// heedFor is how long an abort waits for the front door: longer than a task takes to start, where one has to.
const heedFor = 30 * time.Second

// heed returns when every service of an environment, and the front door, go by its goal.
func (h *house) heed(ctx context.Context, e store.Environment) error {
	want, err := h.desired(ctx, e)
	if err != nil {
		return err
	}
	have, err := h.compute.Observe(ctx)
	if err != nil {
		return err
	}
	goals := map[tenfold.ID]string{}
	for _, r := range ofEnv(have, e) {
		goals[r.ID] = ""
	}
	for _, r := range want {
		goals[r.ID] = r.Fingerprint
	}
	limited, cancel := context.WithTimeout(ctx, heedFor)
	defer cancel()
	for id, goal := range goals {
		if id.Kind != tenfold.KindService {
			continue
		}
		if err := h.compute.Heed(limited, id, goal); err != nil {
			if now, again := h.environment(ctx, control.Env{App: tenfold.AppName(e.App), Env: tenfold.Environment(e.Env)}); again == nil && now.Goal != e.Goal {
				return nil // somebody has deployed again
			}
			return tenfold.Errorf(tenfold.CodeUnavailable, "aborted, but %s may get requests still: %w", id.Short(), err).WithHint("see how it stands: tenfold status --app %s", e.App)
		}
	}
	return nil
}

// promote ends every time of trial in an environment.
func (h *house) promote(ctx context.Context, e store.Environment, actor string) (string, error) {
	app, err := h.app(ctx, e.App, e.Env, e.Goal)
	if err != nil {
		return "", err
	}
	var names []string
	for _, n := range slices.Sorted(maps.Keys(app.Services)) {
		done, err := h.compute.Promote(app.ID(tenfold.KindService, n))
		if err != nil && tenfold.CodeOf(err) != tenfold.CodeNotFound {
			return "", err
		}
		if done {
			names = append(names, string(n))
		}
	}
	if len(names) == 0 {
		return "", tenfold.Errorf(tenfold.CodeConflict, "nothing of %s is tried out or watched", e.App).WithHint("see how it stands: tenfold status --app %s", e.App)
	}
	what := strings.Join(names, ", ")
	return "promoted: " + what, h.store.Audit(ctx, store.Entry{
		At: time.Now(), Actor: actor, App: e.App, Env: e.Env, Revision: e.Goal, Verb: "promote", Resource: "service " + what, Reason: "asked for",
	})
}

// abort gives up the deployment on its way, or goes back from one whose old tasks are warm still. back is the goal then.
func (h *house) abort(ctx context.Context, e store.Environment, actor string) (text string, back int64, err error) {
	h.deploying.Lock()
	defer h.deploying.Unlock()
	rev, err := h.store.Revision(ctx, e.App, e.Env, e.Goal)
	if err != nil {
		return "", 0, err
	}
	back = e.Serving
	if rev.State != "pending" {
		app, err := h.app(ctx, e.App, e.Env, e.Goal)
		if err != nil {
			return "", 0, err
		}
		warm := func(n tenfold.Name) bool {
			return h.compute.Trial(app.ID(tenfold.KindService, n)) == compute.TrialWatched
		}
		if !slices.ContainsFunc(slices.Collect(maps.Keys(app.Services)), warm) {
			return "", 0, tenfold.Errorf(tenfold.CodeConflict, "no deployment of %s is on its way or watched", e.App).WithHint("go back to an earlier one: tenfold rollback --app %s", e.App)
		}
		before, err := h.before(ctx, control.Env{App: tenfold.AppName(e.App), Env: tenfold.Environment(e.Env)})
		if err != nil {
			return "", 0, err
		}
		back = int64(before)
	}
	text = fmt.Sprintf("deployment %d was aborted by %s", e.Goal, actor)
	reason, err := json.Marshal(failure{Reason: text, Hint: "deploy again when it is right: tenfold deploy"})
	if err != nil {
		return "", 0, err
	}
	h.deciding.Lock()
	defer h.deciding.Unlock()
	if err := h.store.GiveUp(ctx, e.App, e.Env, e.Goal, back, string(reason), time.Now()); err != nil {
		return "", 0, err
	}
	if err := h.store.Audit(ctx, store.Entry{
		At: time.Now(), Actor: actor, App: e.App, Env: e.Env, Revision: e.Goal, Verb: "abort", Resource: "app " + e.App, Reason: "asked for",
	}); err != nil {
		return "", 0, err
	}
	after := "nothing was switched"
	if back > 0 {
		after = fmt.Sprintf("deployment %d serves", back)
	}
	h.hub.emit(tenfold.Event{ID: tenfold.ID{App: tenfold.AppName(e.App), Env: tenfold.Environment(e.Env)}, Severity: tenfold.SeverityWarning, Text: text + "; " + after})
	h.wake()
	return "aborted; " + after, back, nil
}

// trialOf says how a resource's new version is tried out.
func (h *house) trialOf(id tenfold.ID) string {
	if id.Kind != tenfold.KindService {
		return ""
	}
	return h.compute.Trial(id)
}

// nextDeployment is where Next.js looks for the id of a deployment, which its pages then send by themselves.
const nextDeployment = "NEXT_DEPLOYMENT_ID"

// pin says in an app which deployment the calls of its pages are pinned to.
func (h *house) pin(app *tenfold.App) error {
	for n, f := range app.Frontends {
		if f.Pin == nil {
			continue
		}
		pin := *f.Pin
		var parts []string
		for _, s := range pin.Services {
			part, err := h.compute.PinOf(*app, s)
			if err != nil {
				return err
			}
			parts = append(parts, part)
		}
		pin.ID = strings.Join(parts, "-")
		f.Pin = &pin
		if f.Server != nil {
			server := *f.Server
			f.Env, server.Env = with(f.Env, nextDeployment, pin.ID), with(server.Env, nextDeployment, pin.ID)
			f.Server = &server
		}
		app.Frontends[n] = f
	}
	return nil
}

// with is env with one variable more, unless the user set it.
func with(env map[string]string, name, value string) map[string]string {
	out := map[string]string{name: value}
	maps.Copy(out, env)
	return out
}
