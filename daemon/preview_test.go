package daemon

import (
	"os"
	"strings"
	"testing"
	"time"

	"tenfold"
	"tenfold/internal/ledger"
	"tenfold/manifest"
)

func TestEachBranchHasAnInstanceOfItsOwn(t *testing.T) {
	of := func(template tenfold.Environment) manifest.Target {
		return manifest.Target{Env: template, Preview: true, Named: []string{"demo", "preview", "review"}}
	}
	seen := map[tenfold.Environment]string{}
	for _, branch := range []string{
		"cart", "Cart", "cart/", "feature/cart", "feature-cart", "feature_cart", "FEATURE/CART", "pr-7", "production", "staging", "shop", "main", "ü", "ö", "---", "0",
		strings.Repeat("a", 80), strings.Repeat("a", 81), strings.Repeat("-a", 60), "a" + strings.Repeat("/", 60) + "b",
	} {
		env := instance(of("preview"), "shop", branch, 0, false)
		if other, taken := seen[env]; taken {
			t.Errorf("%q and %q are both %s", branch, other, env)
		}
		seen[env] = branch
		label := strings.TrimPrefix(string(env), "preview/")
		if label == "" || len(label) > mostLabel || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || label[0] == '-' || label[len(label)-1] == '-' {
			t.Errorf("%q becomes %q, which is no label of a host", branch, label)
		}
	}
	hosts := map[string]string{"demo": "the manifest's own"}
	for env, branch := range seen {
		hosts[strings.TrimPrefix(string(env), "preview/")] = branch
	}
	for _, template := range []tenfold.Environment{"preview", "review"} {
		for _, branch := range []string{"demo", "cart", "feature/cart", strings.TrimPrefix(string(instance(of("preview"), "shop", "feature/cart", 0, false)), "preview/")} {
			_, label, _ := strings.Cut(string(instance(of(template), "shop", branch, 0, false)), "/")
			if other, taken := hosts[label]; taken && (template != "preview" || other != branch) {
				t.Errorf("%s of %s has the host of %s, %s", branch, template, other, label)
			}
			hosts[label] = branch
		}
	}
	if a, b := instance(of("review"), "shop", "x", 7, true), instance(of("preview"), "shop", "x", 7, true); strings.TrimPrefix(string(a), "review/") == strings.TrimPrefix(string(b), "preview/") {
		t.Errorf("two previews of one fork have one host: %s and %s", a, b)
	}
	if env := instance(of("preview"), "shop", "cart", 7, false); env != "preview/cart" {
		t.Errorf("a pull request of the repository itself: %s", env)
	}
	if env := instance(of("preview"), "shop", "main", 7, true); env != "preview/pr-7" {
		t.Errorf("a fork's: %s", env)
	}
}

// What was on its way to a preview when that was removed is not deployed: it would have no password.
func TestARemovedPreviewGetsNothing(t *testing.T) {
	previews, err := ledger.Open[preview](t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h := &house{previews: previews, layout: Layout{Dir: t.TempDir()}}
	open := func() preview {
		p, err := h.openPreview(t.Context(), preview{App: "shop", Env: "preview/cart", Branch: "cart", Commit: "0123456789"}, manifest.Target{Env: "preview", Preview: true, Open: true, Keep: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := open()
	if err := h.stands(first); err != nil {
		t.Error(err)
	}
	previews.Change(first.key(), func(p *preview) { p.Removing = true })
	if h.stands(first) == nil {
		t.Error("deployed while it is removed")
	}
	previews.Delete(first.key())
	sources := h.sourcesOf(gitOrigin("shop", "preview/cart"))
	if err := os.MkdirAll(sources, 0o700); err != nil {
		t.Fatal(err)
	}
	if h.stands(first) == nil {
		t.Error("deployed after it was removed")
	}
	if _, err := os.Stat(sources); err == nil {
		t.Error("its sources are left")
	}
	if second := open(); h.stands(first) == nil || h.stands(second) != nil {
		t.Error("what was sent to the preview that is gone came to its successor")
	}
}

func TestAForkGetsNothingOfTheApps(t *testing.T) {
	secret := func(name tenfold.Name) tenfold.Binding {
		return tenfold.Binding{Var: string(name), From: tenfold.ID{App: "shop", Env: "preview/pr-7", Kind: tenfold.KindSecret, Name: name}, Field: tenfold.FieldValue}
	}
	db := tenfold.Binding{Var: "DATABASE_URL", From: tenfold.ID{App: "shop", Env: "preview/pr-7", Kind: tenfold.KindDatabase, Name: "db"}}
	app := tenfold.App{
		Name: "shop", Env: "preview/pr-7", Domains: []string{"shop.example.com"},
		Door:      tenfold.Door{Trust: []string{"0.0.0.0/0"}, Memory: 1 << 40, DNS: &tenfold.DNS{Provider: "route53", Secret: secret("DNS_KEY")}},
		Contact:   "fork@example.com",
		Secrets:   map[tenfold.Name]tenfold.Secret{"STRIPE_KEY": {}, "SESSION": {Generate: 32}},
		Databases: map[tenfold.Name]tenfold.Database{"db": {Clone: "production"}},
		Services:  map[tenfold.Name]tenfold.Workload{"api": {Bindings: []tenfold.Binding{secret("STRIPE_KEY"), secret("SESSION"), db}}},
		Frontends: map[tenfold.Name]tenfold.Frontend{"web": {Bindings: []tenfold.Binding{secret("STRIPE_KEY")}, Server: &tenfold.Workload{Bindings: []tenfold.Binding{secret("STRIPE_KEY"), db}}}},
		Rules:     map[tenfold.Route]tenfold.Rule{"/admin/*": {Auth: &tenfold.Auth{Basic: new(tenfold.Binding)}}},
	}
	(&house{}).distrust(&app)
	if len(app.Domains)+len(app.Door.Trust) > 0 || app.Door.Memory != 0 || app.Door.DNS != nil || app.Contact != "" || len(app.Secrets) != 1 {
		t.Errorf("%v %+v %v", app.Domains, app.Door, app.Secrets)
	}
	if d := app.Databases["db"]; d.Clone != "" {
		t.Errorf("a fork's database begins as a copy of %s", d.Clone)
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
