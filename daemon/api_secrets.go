package daemon

import (
	"context"
	"errors"
	"time"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/lazy"
	"tenfold/internal/store"
)

var secretName = lazy.Regexp(`^[A-Z][A-Z0-9_]{0,127}$`)

// Secrets implements control.API.
func (h *house) Secrets(ctx context.Context, app tenfold.AppName) ([]control.Secret, error) {
	stored, err := h.store.Secrets(ctx, string(app))
	if err != nil {
		return nil, err
	}
	used := map[tenfold.Name]bool{}
	envs, err := h.store.Environments(ctx)
	if err != nil {
		return nil, err
	}
	for _, e := range envs {
		if e.App != string(app) || e.Goal == 0 {
			continue
		}
		a, err := h.app(ctx, e.App, e.Env, e.Goal)
		if err != nil {
			return nil, err
		}
		for n := range a.Secrets {
			used[n] = true
		}
	}
	out := []control.Secret{}
	for _, s := range stored {
		out = append(out, control.Secret{Name: tenfold.Name(s.Name), Version: s.Version, Changed: s.Created, Used: used[tenfold.Name(s.Name)]})
	}
	return out, nil
}

// SetSecret implements control.API.
func (h *house) SetSecret(ctx context.Context, app tenfold.AppName, name tenfold.Name, value string) (int64, error) {
	if !secretName.MatchString(string(name)) {
		return 0, tenfold.Errorf(tenfold.CodeInvalid, "%q is no name for a secret", name).WithHint("use upper-case letters, digits and underscores: STRIPE_KEY")
	}
	if app == "" {
		return 0, tenfold.Errorf(tenfold.CodeInvalid, "a secret belongs to an app").WithHint("name it with --app")
	}
	if value == "" {
		return 0, tenfold.Errorf(tenfold.CodeInvalid, "the value of %s is empty", name).WithHint("printf %%s \"$VALUE\" | tenfold secrets set %s", name)
	}
	sealed, err := h.key.Seal(value)
	if err != nil {
		return 0, tenfold.Errorf(tenfold.CodeInvalid, "%w", err)
	}
	v, err := h.store.SetSecret(ctx, string(app), string(name), sealed, time.Now())
	if err != nil {
		return 0, err
	}
	return v, h.store.Audit(ctx, store.Entry{At: time.Now(), Actor: "user", App: string(app), Verb: "set", Resource: "secret " + string(name), Reason: "asked for"})
}

// RemoveSecret implements control.API.
func (h *house) RemoveSecret(ctx context.Context, app tenfold.AppName, name tenfold.Name) error {
	all, err := h.Secrets(ctx, app)
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.Name == name && s.Used {
			return tenfold.Errorf(tenfold.CodeConflict, "secret %s is named by the manifest that serves", name).WithHint("take it out of secrets: and uses: and deploy, then remove it")
		}
	}
	err = h.store.RemoveSecret(ctx, string(app), string(name))
	if errors.Is(err, store.ErrNotFound) {
		return tenfold.Errorf(tenfold.CodeNotFound, "%s has no secret %s", app, name).WithHint("list them: tenfold secrets --app %s", app)
	}
	if err != nil {
		return err
	}
	return h.store.Audit(ctx, store.Entry{At: time.Now(), Actor: "user", App: string(app), Verb: "remove", Resource: "secret " + string(name), Reason: "asked for"})
}

// Events implements control.API.
func (h *house) Events(ctx context.Context, q control.EventQuery, yield func(tenfold.Event) error) error {
	return h.hub.follow(ctx, string(q.App), string(q.Env.Env), q.After, q.Tail, q.Follow, yield)
}

// Audit implements control.API.
func (h *house) Audit(ctx context.Context, app tenfold.AppName, limit int) ([]control.Entry, error) {
	if limit <= 0 {
		limit = 100
	}
	entries, err := h.store.AuditLog(ctx, string(app), limit)
	out := []control.Entry{}
	for _, e := range entries {
		out = append(out, control.Entry{At: e.At, Actor: e.Actor, App: e.App, Env: e.Env, Revision: tenfold.Revision(e.Revision), Verb: e.Verb, Resource: e.Resource, Reason: e.Reason})
	}
	return out, err
}
