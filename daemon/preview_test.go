package daemon

import (
	"strings"
	"testing"

	"tenfold"
)

func TestEachBranchHasAnInstanceOfItsOwn(t *testing.T) {
	seen := map[tenfold.Environment]string{}
	for _, branch := range []string{
		"cart", "Cart", "cart/", "feature/cart", "feature-cart", "feature_cart", "FEATURE/CART", "pr-7", "production", "staging", "shop", "main", "ü", "ö", "---", "0",
		strings.Repeat("a", 80), strings.Repeat("a", 81), strings.Repeat("-a", 60), "a" + strings.Repeat("/", 60) + "b",
	} {
		env := instance("preview", "shop", branch, 0, false)
		if other, taken := seen[env]; taken {
			t.Errorf("%q and %q are both %s", branch, other, env)
		}
		seen[env] = branch
		label := strings.TrimPrefix(string(env), "preview/")
		if label == "" || len(label) > mostLabel || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || label[0] == '-' || label[len(label)-1] == '-' {
			t.Errorf("%q becomes %q, which is no label of a host", branch, label)
		}
	}
	if env := instance("preview", "shop", "cart", 7, false); env != "preview/cart" {
		t.Errorf("a pull request of the repository itself: %s", env)
	}
	if env := instance("preview", "shop", "main", 7, true); env != "preview/pr-7" {
		t.Errorf("a fork's: %s", env)
	}
}

func TestAForkGetsNothingOfTheApps(t *testing.T) {
	secret := func(name tenfold.Name) tenfold.Binding {
		return tenfold.Binding{Var: string(name), From: tenfold.ID{App: "shop", Env: "preview/pr-7", Kind: tenfold.KindSecret, Name: name}, Field: tenfold.FieldValue}
	}
	db := tenfold.Binding{Var: "DATABASE_URL", From: tenfold.ID{App: "shop", Env: "preview/pr-7", Kind: tenfold.KindDatabase, Name: "db"}}
	app := tenfold.App{
		Name: "shop", Env: "preview/pr-7", Domains: []string{"shop.example.com"},
		Door:      tenfold.Door{Trust: []string{"0.0.0.0/0"}, Memory: 1 << 40},
		Secrets:   map[tenfold.Name]tenfold.Secret{"STRIPE_KEY": {}, "SESSION": {Generate: 32}},
		Services:  map[tenfold.Name]tenfold.Workload{"api": {Bindings: []tenfold.Binding{secret("STRIPE_KEY"), secret("SESSION"), db}}},
		Frontends: map[tenfold.Name]tenfold.Frontend{"web": {Bindings: []tenfold.Binding{secret("STRIPE_KEY")}, Server: &tenfold.Workload{Bindings: []tenfold.Binding{secret("STRIPE_KEY"), db}}}},
		Rules:     map[tenfold.Route]tenfold.Rule{"/admin/*": {Auth: &tenfold.Auth{Basic: new(tenfold.Binding)}}},
	}
	(&house{}).distrust(&app)
	if len(app.Domains)+len(app.Door.Trust) > 0 || app.Door.Memory != 0 || len(app.Secrets) != 1 {
		t.Errorf("%v %+v %v", app.Domains, app.Door, app.Secrets)
	}
	got := app.Services["api"].Bindings
	if len(got) != 2 || got[0].From.App != "shop@preview/pr-7" || got[1] != db {
		t.Errorf("the service's: %+v", got)
	}
	if web := app.Frontends["web"]; len(web.Bindings) > 0 || len(web.Server.Bindings) != 1 {
		t.Errorf("the frontend's: %+v %+v", web.Bindings, web.Server.Bindings)
	}
	if a := app.Rules["/admin/*"].Auth; a.Basic != nil || len(a.Deny) == 0 {
		t.Errorf("a rule that asks for a secret lets people pass: %+v", a)
	}
}
