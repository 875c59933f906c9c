package frontend

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tenfold"
	"tenfold/internal/build"
	"tenfold/internal/keeper/keepertest"
	"tenfold/internal/source"
)

func TestMain(m *testing.M) { keepertest.Main(m, nil) }

// shop is a project with one frontend, and this tier alone.
type shop struct {
	*Frontend
	t      *testing.T
	cfg    Config
	root   string
	stop   func()
	mu     sync.Mutex
	events []string
}

func newShop(t *testing.T) *shop {
	s := &shop{t: t, root: t.TempDir()}
	dir, units := t.TempDir(), keepertest.Start(t)
	s.cfg = Config{
		Dir: filepath.Join(dir, "frontend"), Builder: &build.Builder{Dir: filepath.Join(dir, "build"), Units: units, Env: []string{"PATH=" + os.Getenv("PATH")}},
		Resolve: func(context.Context, tenfold.Binding) (string, error) { return "hunter2hunter2", nil },
		Emit: func(e tenfold.Event) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.events = append(s.events, string(e.Severity)+" "+string(e.ID.Name)+" "+e.Text)
		},
	}
	s.begin()
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *shop) begin() {
	f, err := New(s.cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.Frontend = f
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx, func() {}) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	})
}

// Whoever looks only when it is told of a change sees what a build and a frontend come to.
func TestEachChangeIsTold(t *testing.T) {
	s := newShop(t)
	s.stop()
	told := make(chan struct{}, 1)
	s.cfg.Changed = func() {
		select {
		case told <- struct{}{}:
		default:
		}
	}
	s.begin()
	for _, r := range must(s.Desired(s.app("hello", good), nil)) {
		if err := s.Apply(t.Context(), tenfold.Step{Verb: tenfold.VerbStart, Want: r}); err != nil {
			t.Fatal(err)
		}
		for ready := false; !ready; {
			select {
			case <-told:
			case <-time.After(20 * time.Second):
				t.Fatalf("%s: told of nothing, events: %v", r.ID, s.said())
			}
			for _, o := range must(s.Observe(t.Context())) {
				ready = ready || o.ID == r.ID && o.State == tenfold.StateReady
			}
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (s *shop) app(text, command string) tenfold.App {
	s.t.Helper()
	dir := filepath.Join(s.root, "web")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "text"), []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	digest, err := source.Digest(s.t.Context(), s.root, "web")
	if err != nil {
		s.t.Fatal(err)
	}
	return tenfold.App{Name: "shop", Env: "production", Frontends: map[tenfold.Name]tenfold.Frontend{"web": {
		Source: tenfold.Source{Root: s.root, Context: "web", Path: "web", Digest: digest}, Keep: time.Hour, Env: map[string]string{"COLOR": "red"},
		Build:    tenfold.Build{Command: tenfold.Command{Shell: command}, Test: tenfold.Command{Shell: "test -f text"}, Output: "dist"},
		Bindings: []tenfold.Binding{{Var: "TOKEN", From: tenfold.ID{Kind: tenfold.KindSecret, Name: "TOKEN"}, Field: tenfold.FieldValue, Version: 1}},
	}}}
}

var web = tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindFrontend, Name: "web"}

const good = "mkdir -p dist/assets && cp text dist/index.html && echo $COLOR $CI > dist/assets/app.js"

// deploy applies build and frontend in order; it ends with the first that failed.
func (s *shop) deploy(app tenfold.App) tenfold.Resource {
	s.t.Helper()
	rs, err := s.Desired(app, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	var o tenfold.Resource
	for _, r := range rs {
		if err := s.Apply(s.t.Context(), tenfold.Step{Verb: tenfold.VerbStart, Want: r}); err != nil {
			s.t.Fatal(err)
		}
		o = s.until(r.ID, func(o tenfold.Resource) bool {
			return o.Goal == r.Fingerprint && (o.Serving == r.Fingerprint || o.Failed == r.Fingerprint)
		})
		if o.Failed != "" {
			return o
		}
	}
	return o
}

func (s *shop) until(id tenfold.ID, ok func(tenfold.Resource) bool) tenfold.Resource {
	s.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		rs, err := s.Observe(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		var o tenfold.Resource
		for _, r := range rs {
			if r.ID == id {
				o = r
			}
		}
		if ok(o) {
			return o
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("waited in vain: %+v\n%s", o, s.said())
		}
		<-tick.C
	}
}

func (s *shop) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.events, "\n")
}

func (s *shop) serves() string {
	b, err := os.ReadFile(filepath.Join(s.SiteDir(web), "current", "files", "index.html"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func TestReleaseRollbackAndComeBack(t *testing.T) {
	s := newShop(t)
	s.deploy(s.app("one", good))
	if got := s.serves(); got != "one" {
		t.Fatalf("it serves %q", got)
	}
	said := s.said()
	for _, want := range []string{"info web tested: test -f text", "built: 2 files, 12 B"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in\n%s", want, said)
		}
	}
	one, _ := s.Current(web)
	s.deploy(s.app("two", good))
	if got := s.serves(); got != "two" {
		t.Errorf("it serves %q", got)
	}

	// A person goes back; a daemon that dies keeps to it; the next deploy ends it.
	if to, err := s.Rollback(t.Context(), web, ""); err != nil || to != one {
		t.Errorf("rolled back to %s, %v; want %s", to, err, one)
	}
	s.stop()
	s.begin()
	o := s.until(web, func(o tenfold.Resource) bool { return o.State == tenfold.StateReady })
	if got := s.serves(); got != "one" || !strings.Contains(o.Reason, "went back") {
		t.Errorf("after the rollback it serves %q: %+v", got, o)
	}
	if _, err := s.Rollback(t.Context(), web, "abc"); tenfold.CodeOf(err) != tenfold.CodeNotFound || tenfold.HintOf(err) == "" {
		t.Errorf("rollback to nowhere: %v", err)
	}
	s.deploy(s.app("three", good))
	if got := s.serves(); got != "three" {
		t.Errorf("it serves %q", got)
	}
	if all, err := s.Releases(web); len(all) != 3 || err != nil {
		t.Errorf("%d releases, %v", len(all), err)
	}

	if err := s.Apply(t.Context(), tenfold.Step{Verb: tenfold.VerbRemove, Want: tenfold.Resource{ID: web}}); err != nil {
		t.Fatal(err)
	}
	s.until(web, func(o tenfold.Resource) bool { c, _ := s.Current(web); return c == "" && o.Goal == "" })
	s.deploy(s.app("three", good))
	if got := s.serves(); got != "three" {
		t.Errorf("back again it serves %q", got)
	}
}

func TestBadBuildsSwitchNothing(t *testing.T) {
	s := newShop(t)
	s.deploy(s.app("one", good))
	for _, c := range []struct{ name, command, reason, hint string }{
		{"fails", "echo oops >&2; exit 3", "exited with status 3\n  last output   oops", "run it yourself"},
		{"no output", "mkdir -p build public", "the build made no folder dist: there is build/ public/", "output"},
		{"empty output", "mkdir dist", "left no file in dist", "output"},
		{"leak", good + " && echo \"const t='$TOKEN'\" > dist/assets/t.js", "the value of TOKEN stands in assets/t.js", "env, not uses"},
		{"test", "true", "", ""},
	} {
		app := s.app("two "+c.name, c.command)
		if c.name == "test" {
			w := app.Frontends["web"]
			w.Build.Test = tenfold.Command{Shell: "echo 1 of 9 failed; false"}
			app.Frontends["web"] = w
			c.reason, c.hint = "test: echo 1 of 9 failed; false: exited with status 1", "test: false"
		}
		o := s.deploy(app)
		if o.Failed == "" || !strings.Contains(o.Reason, c.reason) || !strings.Contains(o.Hint, c.hint) {
			t.Errorf("%s: %s", c.name, fmt.Sprintf("%+v", o))
		}
		if strings.Contains(o.Reason+o.Hint+s.said(), "hunter2") {
			t.Errorf("%s: a secret is told", c.name)
		}
		if got := s.serves(); got != "one" {
			t.Errorf("%s: it serves %q", c.name, got)
		}
	}
}

// TestFingerprintsAreStable: an upgrade of Tenfold must rebuild nothing. If this fails, the spec of
// existing frontends changed meaning: add new fields with omitempty instead.
func TestFingerprintsAreStable(t *testing.T) {
	app := tenfold.App{Name: "shop", Env: "production", Frontends: map[tenfold.Name]tenfold.Frontend{"web": {
		Source: tenfold.Source{Root: "/a", Context: "web", Path: "web", Digest: "d"}, Keep: time.Hour,
		Build: tenfold.Build{Language: "node", Command: tenfold.Command{Shell: "npm run build"}, Output: "dist"},
	}}}
	want := map[tenfold.Kind]string{tenfold.KindBuild: "6faa98cadc4361aa", tenfold.KindFrontend: "68d56ec73ba97821"}
	for _, root := range []string{"/a", "/b"} {
		w := app.Frontends["web"]
		w.Source.Root, w.Line = root, len(root)
		app.Frontends["web"] = w
		rs, err := (&Frontend{}).Desired(app, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rs {
			if r.Fingerprint != want[r.ID.Kind] {
				t.Errorf("%s has fingerprint %s, had %s", r.ID.Kind, r.Fingerprint, want[r.ID.Kind])
			}
		}
	}
}
