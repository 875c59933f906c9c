package edge

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"tenfold"
	"tenfold/internal/directory"
	"tenfold/tier/edge/wire"
)

// Calls with the id of a deployment reach its tasks, over both ways through the door, and what is stored of
// one version is not given for another's.
func TestCallsReachTheVersionThatTheyArePinnedTo(t *testing.T) {
	h := open(t)
	h.route(t, "shop", func(a *tenfold.App) {
		f := a.Frontends["web"]
		f.Pin = &tenfold.Pin{Routes: []tenfold.Route{"/api/*"}}
		a.Frontends["web"] = f
	})
	version := func(v string) (directory.Endpoint, *httptest.Server) {
		e, s := task(t, func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/stored") {
				w.Header().Set("Cache-Control", "max-age=60")
			}
			fmt.Fprint(w, v)
		})
		e.Release = strings.Repeat(v, 64)
		return e, s
	}
	one, server := version("1")
	two, _ := version("2")
	h.publish(t, one)
	id1, id2 := "99999999-"+directory.PinOf(one.Release), directory.PinOf(two.Release)
	ask := func(path, id string) string {
		t.Helper()
		if id == "" {
			_, body := h.ask(t, "GET", path, "")
			return body
		}
		_, body := h.ask(t, "GET", path, "", "X-Deployment-Id", id)
		return body
	}
	for range 3 {
		if got := ask("/api/stored", id1) + ask("/api/x", id1); got != "11" {
			t.Fatalf("of the current version: %q", got)
		}
	}
	one.Apart = true
	h.publish(t, one, two)
	for range 30 {
		for _, path := range []string{"/api/x", "/api/stored"} {
			if got := ask(path, id1) + ask(path, id2) + ask(path, "") + ask(path, "deadbeef"); got != "1222" {
				t.Fatalf("%s: %q", path, got)
			}
		}
		if got := ask("/api/x?dpl="+id1, "") + ask("/api/x?a=1&dpl="+id2, ""); got != "12" {
			t.Fatalf("by query: %q", got)
		}
	}
	if _, body := h.ask(t, "POST", "/api/x", "body", "X-Deployment-Id", id1); body != "1" {
		t.Errorf("a POST: %q", body)
	}
	r, err := h.Report(t.Context(), false)
	if c := r.Endpoints[one.ID]; err != nil || c.Requests < 64 || c.InFlight != 0 || c.Class[2] != c.Requests {
		t.Errorf("%v, it counts %+v", err, c)
	}
	server.Close() // it died: the current version answers
	for range 10 {
		if got := ask("/api/x", id1); got != "2" {
			t.Fatalf("with its task gone: %q", got)
		}
	}
	one.Draining = true
	h.publish(t, one, two)
	if got := ask("/api/x", id1); got != "2" {
		t.Errorf("with its task draining: %q", got)
	}
	res, script := h.ask(t, "GET", directory.PinScript+"?d=x&p=/api/*", "")
	if res.StatusCode != 200 || script != string(pinScript) || res.Header.Get("Content-Type") != "text/javascript; charset=utf-8" {
		t.Errorf("the script: %s %q", res.Status, script)
	}
	if res, _ := h.ask(t, "POST", directory.PinScript, ""); res.StatusCode != 405 {
		t.Errorf("a script that is posted to: %s", res.Status)
	}
}

// The script in a JavaScript engine: which calls it marks, and that it leaves the rest alone.
func TestPinScriptMarksCalls(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("no node")
	}
	const around = `
const sent = [];
globalThis.location = { origin: "http://shop.localhost" };
globalThis.document = { baseURI: "http://shop.localhost/a/b", currentScript: { src: "http://shop.localhost/_tenfold/pin.js?d=abc-def&p=%2Fapi%2F*&p=%2Fauth%2F%3Auser%2Ftoken" } };
globalThis.window = globalThis;
globalThis.fetch = (input, init) => { sent.push(["fetch", input.url || String(input), new Headers(init && init.headers || input.headers).get("x-deployment-id"), init && init.method, new Headers(init && init.headers || input.headers).get("a")]); };
globalThis.XMLHttpRequest = class { open(m, u) { this.u = u; this.h = {}; } setRequestHeader(k, v) { this.h[k.toLowerCase()] = v; } send() { sent.push(["xhr", this.u, this.h["x-deployment-id"] || null]); } };
SCRIPT
fetch("/api/x"); fetch("../api/y", { method: "POST", headers: { a: "1" } }); fetch("/other"); fetch("http://elsewhere.example/api/x"); fetch("/auth/me/token"); fetch("/auth/me/you/token"); fetch("/apix");
fetch(new Request("http://shop.localhost/api/z", { headers: { a: "2" } })); fetch("/api/own", { headers: { "X-Deployment-Id": "mine" } }); fetch(new URL("http://shop.localhost/api/u"));
for (const [u, own] of [["/api/x", null], ["/other", null], ["/api/x", "mine"]]) { const x = new XMLHttpRequest(); x.open("GET", u); if (own) x.setRequestHeader("x-deployment-id", own); x.send(); }
console.log(sent.map((s) => s.filter((v) => v != null).join(" ")).join("\n"));`
	out, err := exec.Command(node, "-e", strings.Replace(around, "SCRIPT", string(pinScript), 1)).CombinedOutput()
	want := `fetch /api/x abc-def
fetch ../api/y abc-def POST 1
fetch /other
fetch http://elsewhere.example/api/x
fetch /auth/me/token abc-def
fetch /auth/me/you/token
fetch /apix
fetch http://shop.localhost/api/z abc-def 2
fetch /api/own mine
fetch http://shop.localhost/api/u abc-def
xhr /api/x abc-def
xhr /other
xhr /api/x mine
`
	if err != nil || string(out) != want {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestIDsNameVersions(t *testing.T) {
	release := "0123456789abcdef"
	for id, want := range map[string]bool{"01234567": true, "x-01234567-y": true, "0123456": false, "012345678": false, "": false, "-": false, strings.Repeat("-", 1000): false} {
		if names(id, release) != want {
			t.Errorf("%q: %v", id, !want)
		}
	}
	if names("", "") || names("-", "") {
		t.Error("nothing names nothing")
	}
}

func FuzzDeployed(f *testing.F) {
	s := &site{Site: directory.Site{App: "shop", Frontends: map[string]directory.Frontend{"web": {Pin: []string{"/api/*"}}}, Services: []directory.Service{{Name: "api", Endpoints: []directory.Endpoint{
		{ID: "a", Release: strings.Repeat("a", 64)}, {ID: "b", Release: strings.Repeat("b", 64), Apart: true}}}}}}
	if err := s.pin(); err != nil {
		f.Fatal(err)
	}
	to := &destination{Route: directory.Route{Service: "api"}}
	f.Add("aaaaaaaa", "dpl=bbbbbbbb")
	f.Add("", "dpl=%zz&dpl=bbbbbbbb;")
	f.Fuzz(func(t *testing.T, id, query string) {
		rule, apart := s.deployed(&to.rule, to, "GET", "shop.localhost", "/api/x", id, query)
		if apart != "" && apart[0] != 'b' || !strings.HasPrefix(rule.Release, "#") {
			t.Errorf("%q, %q: %q, %q", id, query, apart, rule.Release)
		}
	})
}

// What pinning costs a plain call of a site that pins nothing: a look at a flag.
func BenchmarkHitOfASiteThatPins(b *testing.B) {
	for _, pin := range []bool{false, true} {
		b.Run(fmt.Sprint("pin=", pin), func(b *testing.B) {
			h := open(b)
			h.route(b, "shop", func(a *tenfold.App) {
				if pin {
					f := a.Frontends["web"]
					f.Pin = &tenfold.Pin{Routes: []tenfold.Route{"/api/*"}}
					a.Frontends["web"] = f
				}
			})
			e, _ := task(b, func(http.ResponseWriter, *http.Request) {})
			e.Release = strings.Repeat("a", 64)
			if err := h.Publish(b.Context(), shop, []directory.Endpoint{e}, ""); err != nil {
				b.Fatal(err)
			}
			r := &wire.Request{Major: 1, Method: "GET", Host: "shop.localhost", Target: "/api/x"}
			for b.Loop() {
				if r.Mark = nil; (hits{h.door}).Hit(r, new(wire.Hit)) == nil && r.Mark != nil {
					r.Mark.(*passing).free()
				}
			}
		})
	}
}
