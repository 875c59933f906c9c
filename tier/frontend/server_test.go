package frontend

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tenfold"
	"tenfold/internal/atomicfile"
	"tenfold/internal/build"
	"tenfold/internal/release"
)

// paired is an app whose build yields a server: $v in both halves.
func (s *shop) paired(text, command string) tenfold.App {
	app := s.app(text, command)
	w := app.Frontends["web"]
	w.Server = &tenfold.Workload{Command: tenfold.Command{Shell: "node server/index.mjs"}}
	w.Build.Output, w.Build.Private = "", "server"
	w.Build.Assets = []tenfold.Asset{{From: "static", To: "_next/static"}, {From: "public"}}
	app.Frontends["web"] = w
	return app
}

const halves = "mkdir -p static public server && cp text static/app.txt && echo page > public/robots.txt && cp text server/index.mjs"

func TestABuildWithAServerIsReleasedInTwoHalves(t *testing.T) {
	s := newShop(t)
	s.stop()
	served, asked := "", []string{}
	s.cfg.Serves = func(_ tenfold.ID, build string) (bool, string) { return build == served, "" }
	s.cfg.Try = func(_ context.Context, _ tenfold.ID, release string) (string, func(), error) {
		asked = append(asked, release)
		return "http://127.0.0.1:1", func() {}, nil
	}
	s.begin()
	app := s.paired("one", halves)
	served = BuildKey(app, "web")
	if o := s.deploy(app); o.Failed != "" {
		t.Fatalf("%+v", o)
	}
	id, _ := s.Current(web)
	r, err := s.site(web).Open(string(id))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for n := range r.Files {
		names = append(names, n)
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"_next/static/app.txt", "robots.txt"}) || r.Meta.Server != served || s.Released(web) != served {
		t.Errorf("files %v, server %q, released %q; want %s", names, r.Meta.Server, s.Released(web), served)
	}
	if keys := s.BuildKeys(); !keys[served] {
		t.Errorf("the build that serves may be pruned: %v", keys)
	}
	// A folder of files may be a link, and lead to others of its own.
	app = s.paired("linked", "mkdir -p made/sub public server && cp text made/sub/app.txt && ln -s sub made/alias && ln -s made static && touch server/x")
	served = BuildKey(app, "web")
	if o := s.deploy(app); o.Failed != "" {
		t.Fatalf("%+v", o)
	}
	linked, _ := s.Current(web)
	if r, err := s.site(web).Open(string(linked)); err != nil || len(r.Files) != 2 || r.Files["_next/static/alias/app.txt"].Size == 0 {
		t.Errorf("of linked folders there is %+v, %v", r, err)
	}
	app = s.paired("one", halves)
	served = BuildKey(app, "web")
	s.deploy(app)
	// The same files with another server are another release.
	app = s.paired("one", halves+" && echo two >> server/index.mjs")
	served = BuildKey(app, "web")
	if o := s.deploy(app); o.Failed != "" {
		t.Fatalf("%+v", o)
	}
	if again, _ := s.Current(web); again == id {
		t.Error("another server did not make another release")
	}

	for _, c := range []struct{ name, command, reason string }{
		{"secret in the bundle", halves + ` && echo "const t='$TOKEN'" > server/index.mjs`, "the value of TOKEN stands in index.mjs"},
		{"no server", "mkdir -p static && cp text static/app.txt", "the build made no server: there is no folder server"},
		{"link that leaves", halves + " && ln -s /etc/passwd public/passwd", "passwd is a link that leaves"},
	} {
		app := s.paired(c.name, c.command)
		served = BuildKey(app, "web")
		if o := s.deploy(app); !strings.Contains(o.Reason, c.reason) {
			t.Errorf("%s: %+v", c.name, o)
		}
	}

	// Tests against the candidate decide; what passed once is not tried again.
	app = s.paired("three", halves)
	w := app.Frontends["web"]
	w.E2E = tenfold.Command{Shell: `echo "asked $APP_URL, ${TOKEN-no secret}" && grep -q three text && exit 4`}
	app.Frontends["web"] = w
	served = BuildKey(app, "web")
	o := s.deploy(app)
	if !strings.Contains(o.Reason, "exited with status 4") || !strings.Contains(o.Reason, "asked http://127.0.0.1:1, no secret") || !strings.Contains(o.Hint, "e2e: false") {
		t.Errorf("%+v", o)
	}
	w.E2E.Shell = "grep -q three text"
	app.Frontends["web"] = w
	before := len(asked)
	if o := s.deploy(app); o.Failed != "" || len(asked) != before+1 {
		t.Errorf("tried %d times: %+v", len(asked)-before, o)
	}
	s.stop()
	s.begin()
	if o := s.deploy(app); o.Failed != "" || len(asked) != before+1 {
		t.Errorf("after a restart it was tried %d times: %+v", len(asked)-before, o)
	}
}

func TestSecretsAreMaskedInTheBuildLog(t *testing.T) {
	s := newShop(t)
	if o := s.deploy(s.app("one", good+` && echo "with $TOKEN and $TOKEN"`)); o.Failed != "" {
		t.Fatalf("%+v", o)
	}
	paths := s.LogPaths(web)
	if len(paths) != 1 {
		t.Fatalf("logs: %v", paths)
	}
	b, err := os.ReadFile(paths[0])
	if err != nil || strings.Contains(string(b), "hunter2") || !strings.Contains(string(b), "with *** and ***") {
		t.Errorf("%v, the log has\n%s", err, b)
	}
	// What was told of it is masked too, in a failure.
	o := s.deploy(s.app("two", `echo "no $TOKEN"; exit 1`))
	if strings.Contains(o.Reason, "hunter2") || !strings.Contains(o.Reason, "no ***") {
		t.Errorf("the failure says %s", o.Reason)
	}
}

func TestTheRootsOfABuildWithAServer(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "client"), 0o755), os.MkdirAll(filepath.Join(dir, "prerendered"), 0o755)); err != nil {
		t.Fatal(err)
	}
	got := rootsOf(build.Result{Dir: dir}, tenfold.Build{Output: "client", Assets: []tenfold.Asset{{From: "prerendered", To: "docs"}, {From: "not there", To: "x"}}})
	want := []release.Root{{Dir: filepath.Join(dir, "client")}, {Dir: filepath.Join(dir, "prerendered"), At: "docs"}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}

// TestWhatIsReleasedCostsNoFileOfIt: compute asks several times a second.
func TestWhatIsReleasedCostsNoFileOfIt(t *testing.T) {
	f := &Frontend{cfg: Config{Dir: t.TempDir()}, wake: make(chan struct{}, 1), items: map[tenfold.ID]*item{}}
	f.item(web)
	r := release.Release{ID: "0123456789ab", Meta: release.Meta{Server: "server"}, Files: map[string]release.File{}}
	for i := range 5000 {
		r.Files[fmt.Sprintf("page-%d.html", i)] = release.File{Digest: strings.Repeat("a", 64), Type: "text/html"}
	}
	at := filepath.Join(f.SiteDir(web), "releases", r.ID)
	if err := errors.Join(os.MkdirAll(at, 0o755), atomicfile.WriteJSON(filepath.Join(at, "release.json"), r, 0o644), f.site(web).Switch(r.ID)); err != nil {
		t.Fatal(err)
	}
	for name, ask := range map[string]func() bool{
		"Released":  func() bool { return f.Released(web) == "server" },
		"BuildKeys": func() bool { return f.BuildKeys()["server"] },
		"Earlier":   func() bool { to, _, err := f.Earlier(web, "0123"); return string(to) == r.ID && err == nil },
	} {
		n := testing.AllocsPerRun(1, func() {
			if !ask() {
				t.Errorf("%s is wrong", name)
			}
		})
		if n > 1000 {
			t.Errorf("%s allocates %v times for a release of %d files", name, n, len(r.Files))
		}
	}
}
