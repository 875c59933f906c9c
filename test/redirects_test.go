//go:build scenario

package test

import (
	"strings"
	"testing"
)

// Rule files of another host: followed, noted where they are not, kept when they break, and gone back
// with a rollback.
func TestRuleFilesOfOtherHosts(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), map[string]string{
		"tenfold.yaml": "app: pages\nfrontends: {web: {path: ., build: false}}\nedge: {routes: {/mine: {redirect: /manifest}}}\n",
		"index.html":   "home", "shadow.html": "a file", "404.html": "lost",
		"_redirects": "/old/* /new/:splat 301\n/shadow /elsewhere\n/app/* /index.html 200\n/api/* https://api.example.com/:splat 200\n/mine /theirs\n",
		"_headers":   "/*\n  X-Frame-Options: DENY\n",
	})
	out := h.up(dir)
	if !strings.Contains(out, "_redirects:4: another host is not asked") {
		t.Errorf("what is not honoured is not listed: %s", out)
	}
	expect := func(path string, code int, text string) {
		t.Helper()
		got, body, header := h.ask("pages.localhost", path, nil)
		if got != code || body != text && header.Get("Location") != text {
			t.Errorf("%s: %d %q %q, want %d %q", path, got, body, header.Get("Location"), code, text)
		}
	}
	expect("/old/a?x=1", 301, "/new/a?x=1")
	expect("/shadow", 200, "a file")
	expect("/app/deep/link", 200, "home")
	expect("/mine", 301, "/manifest")
	expect("/_redirects", 404, "lost")
	if _, _, header := h.ask("pages.localhost", "/", nil); header.Get("X-Frame-Options") != "DENY" {
		t.Errorf("headers: %v", header)
	}
	if out := h.must(dir, "edge", "explain", "/old/a"); !strings.Contains(out, "_redirects:1: /old/*") || !strings.Contains(out, "/new/a") {
		t.Errorf("explain: %s", out)
	}
	write(t, dir, map[string]string{"_redirects": "/old/* /newer/:splat 301\nnonsense\n", "index.html": "second"})
	out, code := h.runIn(dir, "deploy")
	if code != 0 || !strings.Contains(out, "_redirects:2: ") || !strings.Contains(out, "stay as they were") {
		t.Errorf("a broken file: exit %d %s", code, out)
	}
	expect("/", 200, "second")
	expect("/old/a", 301, "/new/a")
	write(t, dir, map[string]string{"_redirects": "/old/* /newest/:splat 301\n"})
	h.must(dir, "deploy")
	expect("/old/a", 301, "/newest/a")
	h.must(dir, "rollback")
	expect("/old/a", 301, "/new/a")

	// A file that never was whole: its good lines hold, the newest of them, and status says which does not.
	fresh := write(t, t.TempDir(), map[string]string{
		"tenfold.yaml": "app: fresh\nfrontends: {web: {path: ., build: false}}\n", "index.html": "home",
		"_redirects": "/old /new\nnonsense\n/older /new\n",
	})
	if out := h.up(fresh); !strings.Contains(out, "_redirects:2: \"nonsense\" does not begin with /") || !strings.Contains(out, "its other lines hold (2 rules)") {
		t.Errorf("a first file with an error: %s", out)
	}
	leads := func(path, to string) {
		t.Helper()
		if _, _, header := h.ask("fresh.localhost", path, nil); header.Get("Location") != to {
			t.Errorf("%s leads to %q, want %q", path, header.Get("Location"), to)
		}
	}
	leads("/older", "/new")
	// Of two apps an address names its own; a path alone does not.
	if out := h.must(t.TempDir(), "edge", "explain", "http://fresh.localhost/older"); !strings.Contains(out, "_redirects:3: /older") {
		t.Errorf("explained by its address: %s", out)
	}
	if out, code := h.runIn(t.TempDir(), "edge", "explain", "/older"); code != 2 || !strings.Contains(out, "which app? fresh, pages") || !strings.Contains(out, "--app fresh") {
		t.Errorf("explained of two: %d %s", code, out)
	}
	if out := h.must(fresh, "status"); !strings.Contains(out, "_redirects:2: ") {
		t.Errorf("status: %s", out)
	}
	write(t, fresh, map[string]string{"_redirects": "/old /new\nnonsense\n/older /newer\n"})
	h.must(fresh, "deploy")
	leads("/older", "/newer")
	write(t, fresh, map[string]string{"_redirects": "/old /good\n"})
	h.must(fresh, "deploy")
	if out := h.must(fresh, "status"); strings.Contains(out, "_redirects") {
		t.Errorf("status, when all is well: %s", out)
	}
	for _, third := range []string{"/a /b", "/c /d"} { // the second of two with errors keeps the last that had none, too
		write(t, fresh, map[string]string{"_redirects": "/old /bad\nnonsense\n" + third + "\n"})
		h.must(fresh, "deploy")
		leads("/old", "/good")
	}
	if out := h.must(fresh, "status"); !strings.Contains(out, "earlier rules hold") {
		t.Errorf("status: %s", out)
	}
}
