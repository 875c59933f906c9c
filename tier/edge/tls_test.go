package edge

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tenfold"
	"tenfold/internal/directory"
	"tenfold/tier/edge/certs"
)

func TestOneWildcardServesAllEnvironmentsBelow(t *testing.T) {
	preview := func(env, host, credentials string, version int64) directory.Site {
		return directory.Site{App: "shop", Env: env, Hosts: []string{"pr.shop.localhost", host}, DNS: &directory.DNS{
			Provider: "hetzner", Credentials: credentials, Version: version, Wildcards: []string{"*.preview.shop.net"}}}
	}
	hosts, dns := hostsOf(&table{snapshot: directory.Snapshot{Sites: []directory.Site{
		{App: "blog", Hosts: []string{"blog.net"}, Redirect: map[string]string{"www.blog.net": "blog.net"}},
		preview("preview/a", "a.preview.shop.net", "old", 1), preview("preview/b", "b.preview.shop.net", "new", 2), preview("preview/c", "c.preview.shop.net", "old", 1),
		{App: "shop", Hosts: []string{"shop.net"}, DNS: &directory.DNS{Provider: "ovh", Credentials: "x"}},
	}}, console: map[string]bool{"console.localhost": true}})
	if want := []string{"*.preview.shop.net", "blog.net", "console.localhost", "pr.shop.localhost", "shop.net", "www.blog.net", "localhost"}; !slices.Equal(hosts, want) {
		t.Errorf("hosts %v, want %v", hosts, want)
	}
	if dns["*.preview.shop.net"] != (certs.DNS{Provider: "hetzner", Credentials: "new"}) || dns["shop.net"].Provider != "ovh" || dns["blog.net"].Provider != "" {
		t.Errorf("DNS %v", dns)
	}
}

// Credentials go to the door, and nowhere else: not into a spec, a record or an error.
func TestCredentialsOfDNSGoToTheDoorAlone(t *testing.T) {
	secrets := map[string]string{"DNS_KEY": "hunter2-token"}
	h := ruled(t, nil, secrets, func(a *tenfold.App) {
		a.Door.DNS = &tenfold.DNS{Provider: "hetzner", Secret: *secret("DNS_KEY")}
		a.Contact = "ops@shop.net"
	})
	read := func() (out directory.DNS, contact string) {
		s := h.Edge.snapshot(t.Context())
		for _, x := range s.Sites {
			if x.DNS != nil {
				out = *x.DNS
			}
		}
		return out, s.Contact
	}
	if d, contact := read(); d.Provider != "hetzner" || d.Credentials != "hunter2-token" || contact != "ops@shop.net" {
		t.Errorf("%+v %s", d, contact)
	}
	filepath.WalkDir(filepath.Join(h.cfg.Dir, "goals"), func(p string, e os.DirEntry, err error) error {
		if b, rerr := os.ReadFile(p); rerr == nil && strings.Contains(string(b), "hunter2") {
			t.Errorf("%s holds the secret", p)
		}
		return err
	})
	if st, err := os.Stat(filepath.Join(h.cfg.Dir, snapshotFile)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("snapshot: %v, %v", st, err)
	}
	// A version is looked up once; another is another.
	h.Edge.cfg.Resolve = func(_ context.Context, b tenfold.Binding) (string, error) {
		if b.Version == 2 {
			return "next-token", nil
		}
		return "", errors.New("the store is away")
	}
	if d, _ := read(); d.Credentials != "hunter2-token" {
		t.Errorf("%+v", d)
	}
	if got := h.route(t, "shop", func(a *tenfold.App) {
		s := *secret("DNS_KEY")
		s.Version = 2
		a.Door.DNS = &tenfold.DNS{Provider: "hetzner", Secret: s}
	}); got.Failed == got.Goal {
		t.Fatal(got.Reason)
	}
	if d, contact := read(); d.Credentials != "next-token" || d.Version != 2 || contact != "" {
		t.Errorf("%+v %q", d, contact)
	}
	h.Edge.cfg.Resolve = func(context.Context, tenfold.Binding) (string, error) { return "two words hunter2", nil }
	got := h.route(t, "shop", func(a *tenfold.App) {
		s := *secret("DNS_KEY")
		s.Version = 3
		a.Door.DNS = &tenfold.DNS{Provider: "hetzner", Secret: s}
	})
	if got.Failed != got.Goal || !strings.Contains(got.Reason, "edge.tls.dns.hetzner: secret DNS_KEY: ") || strings.Contains(got.Reason, "hunter2") || !strings.Contains(got.Hint, "tenfold secrets set DNS_KEY --app shop") {
		t.Errorf("unusable credentials: %q, %q", got.Reason, got.Hint)
	}
}

func TestTheContactIsKept(t *testing.T) {
	id := func(app tenfold.AppName) tenfold.ID {
		return tenfold.ID{App: app, Env: "production", Kind: tenfold.KindEdge, Name: "edge"}
	}
	all := map[tenfold.ID]string{id("b"): "b@x.net", id("c"): "c@x.net"}
	if got := contactOf("", all); got != "b@x.net" {
		t.Errorf("the first by name: %q", got)
	}
	all[id("a")] = "a@x.net"
	if got := contactOf("b@x.net", all); got != "b@x.net" {
		t.Errorf("with one more: %q", got)
	}
	delete(all, id("b"))
	if got := contactOf("b@x.net", all); got != "a@x.net" {
		t.Errorf("when its app is gone: %q", got)
	}
	if got := contactOf("b@x.net", nil); got != "" {
		t.Errorf("without any: %q", got)
	}
}
