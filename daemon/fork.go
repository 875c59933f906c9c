package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"tenfold"
	"tenfold/internal/store"
)

// distrust takes from a fork's app what only somebody with a right to the repository may have: the
// app's secrets, copies of its data, host names, and what edge says for all apps of the house. Secrets that are generated
// are made anew, for this environment alone; a rule that asks for one of the app's lets nobody pass.
func (h *house) distrust(app *tenfold.App) {
	app.Domains, app.Contact, app.Door = nil, "", tenfold.Door{HSTS: app.Door.HSTS, Errors: app.Door.Errors}
	own := forkSecrets(app.Name, app.Env)
	for name, s := range app.Secrets {
		if s.Generate == 0 {
			delete(app.Secrets, name)
		}
	}
	keep := func(bs []tenfold.Binding) []tenfold.Binding {
		bs = slices.DeleteFunc(slices.Clone(bs), func(b tenfold.Binding) bool {
			_, mine := app.Secrets[b.From.Name]
			return b.From.Kind == tenfold.KindSecret && !mine
		})
		for i := range bs {
			if bs[i].From.Kind == tenfold.KindSecret {
				bs[i].From.App = own
			}
		}
		return bs
	}
	for n, f := range app.Frontends {
		f.Bindings = keep(f.Bindings)
		if f.Server != nil {
			server := *f.Server
			server.Bindings = keep(server.Bindings)
			f.Server = &server
		}
		app.Frontends[n] = f
	}
	for n, s := range app.Services {
		s.Bindings = keep(s.Bindings)
		app.Services[n] = s
	}
	for n, f := range app.Functions {
		f.Bindings = keep(f.Bindings)
		app.Functions[n] = f
	}
	for n, d := range app.Databases {
		d.Clone = "" // a fork's code sees nobody's rows
		app.Databases[n] = d
	}
	for route, r := range app.Rules {
		if len(r.Auth.Secrets()) > 0 {
			r.Auth = &tenfold.Auth{Deny: []string{"0.0.0.0/0", "::/0"}}
			app.Rules[route] = r
		}
	}
}

// forkSecrets is under which name a fork's own secrets are stored. No app can be called so.
func forkSecrets(app tenfold.AppName, env tenfold.Environment) tenfold.AppName {
	return app + "@" + tenfold.AppName(env)
}

// forgetForkSecrets removes what was made for a fork's preview.
func (h *house) forgetForkSecrets(ctx context.Context, p preview) error {
	own := string(forkSecrets(p.App, p.Env))
	all, err := h.store.Secrets(ctx, own)
	if err != nil {
		return err
	}
	for _, s := range all {
		if err := h.store.RemoveSecret(ctx, own, s.Name); err != nil && !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("remove secrets of %s: %w", p.Env, err)
		}
	}
	return nil
}
