//go:build scenario

package test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"tenfold"
)

// Who starts an app in a terminal is told which secret to set, and can set it: the house that up began is gone by then.
func TestASecretIsSetWhereNoHouseRuns(t *testing.T) {
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "    uses: [KEY]\nsecrets: [KEY]\n")})
	if out, code := h.runIn(dir, "up", "--listen", "127.0.0.1:0"); code != tenfold.CodeInvalid.ExitStatus() || !strings.Contains(out, "tenfold secrets set KEY --app echo") {
		t.Fatalf("without the secret: exit %d\n%s", code, out)
	}
	for range 2 {
		h.setSecret("echo", "KEY", "sesame")
		if out, code := h.runIn(dir, "ps"); code != tenfold.CodeUnavailable.ExitStatus() {
			t.Fatalf("a house is left: exit %d\n%s", code, out)
		}
	}
	h.up(dir)
	if out, code := h.runIn(dir, "up", "--detach", "--listen", "127.0.0.1:0"); code != 0 {
		t.Errorf("any port, where a house has one: exit %d\n%s", code, out)
	}
	if out, code := h.runIn(dir, "up", "--detach", "--listen", "127.0.0.1:1"); code != tenfold.CodeConflict.ExitStatus() || !strings.Contains(out, "listens on "+h.addr+" already") {
		t.Errorf("another port: exit %d\n%s", code, out)
	}
	h.setSecret("echo", "KEY", "other") // where one runs, it goes on
	if out := h.must(dir, "secrets"); !strings.Contains(out, "KEY") || !strings.Contains(out, "3") {
		t.Errorf("secrets: %s", out)
	}
}

// Rules of the manifest, from the file to the door, with a secret and pages of the project; and what
// explain says of them.
func TestEdgeRules(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	write(t, dir, map[string]string{
		"pages/404.html": "<h1>lost</h1>", "pages/soon.html": "<h1>soon</h1>",
		"tenfold.yaml": strings.Replace(manifest("1", `secrets: [ADMIN_USERS]
edge:
  errors: {404: pages/404.html}
  routes:
    /v1/*: {rewrite: /*}
    /admin/*: {auth: ADMIN_USERS}
    /soon/*: {maintenance: pages/soon.html}
    /old/*: {redirect: /new/*}
`), "routes: [/*]", "routes: [/echo, /admin/*]", 1),
	})
	if out, code := h.runIn(dir, "up", "--detach", "--listen", "127.0.0.1:0"); code == 0 || !strings.Contains(out, "tenfold secrets set ADMIN_USERS") {
		t.Fatalf("without the secret: exit %d\n%s", code, out)
	}
	if _, err := h.client().SetSecret(t.Context(), "echo", "ADMIN_USERS", "ann:wonderland"); err != nil {
		t.Fatal(err)
	}
	h.must(dir, "up", "--detach")
	info, err := h.client().House(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.addr = info.Listen[0]
	for _, c := range []struct {
		path string
		edit func(*http.Request)
		code int
		text string
	}{
		{"/v1/echo", nil, 200, "1 "},
		{"/nothing", nil, 404, "<h1>lost</h1>"},
		{"/soon/x", nil, 503, "<h1>soon</h1>"},
		{"/old/a", nil, 301, "/new/a"},
		{"/admin/x", nil, 401, ""},
		{"/admin/x", func(r *http.Request) { r.SetBasicAuth("ann", "queen") }, 401, ""},
		{"/admin/x", func(r *http.Request) { r.SetBasicAuth("ann", "wonderland") }, 404, "404 page not found"},
	} {
		code, body, header := h.ask("echo.localhost", c.path, func(r *http.Request) {
			r.Header.Set("Accept", "text/html")
			if c.edit != nil {
				c.edit(r)
			}
		})
		if text := body + header.Get("Location"); code != c.code || !strings.Contains(text, c.text) {
			t.Errorf("%s: %d %q, want %d %q", c.path, code, text, c.code, c.text)
		}
	}
	if out := h.must(dir, "edge", "explain", "/old/a"); !strings.Contains(out, "301 to /new/a") || !strings.Contains(out, "edge.routes./old/*, line 18") {
		t.Errorf("explain: %s", out)
	}
	if out := h.must(dir, "edge", "explain", "POST", "/v1/echo", "--json"); !strings.Contains(out, `"answer"`) || !strings.Contains(out, "service api") {
		t.Errorf("explain --json: %s", out)
	}
	if out, code := h.runIn(dir, "edge", "explain", "nowhere"); code == 0 || !strings.Contains(out, "neither a path nor an address") {
		t.Errorf("explain nowhere: %s", out)
	}
	eventually(t, "a line of a request that no route takes", 5*time.Second, func() bool {
		return strings.Contains(h.must(dir, "logs", "edge"), `"path":"/nothing","route":"","status":404`)
	})
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "edge: {errors: {404: pages/none.html}}\n")})
	if out, code := h.runIn(dir, "deploy"); code == 0 || !strings.Contains(out, "edge.errors.404") || !strings.Contains(out, "tenfold.yaml:11") {
		t.Errorf("a page that is not there: exit %d\n%s", code, out)
	}
}

// A certificate that cannot be got is told, with the cause, by an event and in status.
func TestACertificateThatFailsIsTold(t *testing.T) {
	h := newHouse(t)
	dir := write(t, t.TempDir(), map[string]string{"index.html": "x", "tenfold.yaml": "app: pages\ndomain: shop.example.com\nfrontends: {web: {path: ., build: false}}\n"})
	write(t, h.dir, map[string]string{"house.json": `{"listen": "127.0.0.1:0", "tls": "127.0.0.1:0", "acme": "https://127.0.0.1:1/dir"}`})
	h.must(dir, "up", "--detach")
	eventually(t, "status tells", 20*time.Second, func() bool {
		out := h.must(dir, "status")
		return strings.Contains(out, "certificate of shop.example.com") && strings.Contains(out, "connection refused") && strings.Contains(out, "hint:")
	})
	eventually(t, "an event tells", 40*time.Second, func() bool {
		return strings.Contains(h.must(dir, "events"), "shop.example.com has no certificate")
	})
}
