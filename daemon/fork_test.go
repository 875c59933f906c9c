package daemon

import (
	"testing"

	"tenfold"
)

func TestAForksAppHasNoSecretAnywhere(t *testing.T) {
	secret := func() []tenfold.Binding {
		return []tenfold.Binding{
			{Var: "KEY", From: tenfold.ID{App: "shop", Kind: tenfold.KindSecret, Name: "KEY"}, Field: tenfold.FieldValue, Version: 1},
			{Var: "MADE", From: tenfold.ID{App: "shop", Kind: tenfold.KindSecret, Name: "MADE"}, Field: tenfold.FieldValue, Version: 1},
		}
	}
	app := tenfold.App{
		Name: "shop", Env: "preview/fork", Secrets: map[tenfold.Name]tenfold.Secret{"KEY": {}, "MADE": {Generate: 32}},
		Services:  map[tenfold.Name]tenfold.Workload{"api": {Bindings: secret()}},
		Frontends: map[tenfold.Name]tenfold.Frontend{"web": {Bindings: secret(), Server: &tenfold.Workload{Bindings: secret()}}},
	}
	(&house{}).distrust(&app)
	for where, bs := range map[string][]tenfold.Binding{
		"service": app.Services["api"].Bindings, "frontend": app.Frontends["web"].Bindings, "server": app.Frontends["web"].Server.Bindings,
	} {
		if len(bs) != 1 || bs[0].Var != "MADE" || bs[0].From.App != "shop@preview/fork" {
			t.Errorf("the %s of a fork gets %+v", where, bs)
		}
	}
}
