package release

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"tenfold/internal/siterules"
)

func output(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func add(t *testing.T, s Site, files map[string]string) Release {
	t.Helper()
	r, err := s.Add(t.Context(), output(t, files), Meta{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReleasesLiveAndDie(t *testing.T) {
	s := Site{Dir: t.TempDir()}
	if id, err := s.Current(); id != "" || err != nil {
		t.Fatalf("current of an empty site: %q, %v", id, err)
	}
	one := add(t, s, map[string]string{"index.html": "one", "assets/app-BX3k2f9a.js": "shared"})
	two := add(t, s, map[string]string{"index.html": "two", "assets/app-BX3k2f9a.js": "shared"})
	if again := add(t, s, map[string]string{"index.html": "one", "assets/app-BX3k2f9a.js": "shared"}); again.ID != one.ID || !again.Created.Equal(one.Created) {
		t.Errorf("the same files gave %v, want %v", again, one)
	}
	if f := one.Files["assets/app-BX3k2f9a.js"]; !f.Hashed || f.Type != "text/javascript; charset=utf-8" || f.Size != 6 {
		t.Errorf("index says %+v", f)
	}
	for _, id := range []string{one.ID, two.ID} {
		if err := s.Switch(id); err != nil {
			t.Fatal(err)
		}
		if got, _ := s.Current(); got != id {
			t.Errorf("current is %q, want %q", got, id)
		}
		if through, err := os.ReadFile(filepath.Join(s.Dir, "current", "files", "index.html")); err != nil || string(through) == "" {
			t.Errorf("read through the link: %q, %v", through, err)
		}
	}
	if err := s.Switch("0123456789ab"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("switch to a release that is not there: %v", err)
	}
	if err := s.Remove(one.ID, two.ID); !errors.Is(err, ErrCurrent) {
		t.Errorf("removing the current release: %v", err)
	}
	if _, err := s.Open(one.ID); err != nil {
		t.Errorf("a refused Remove deleted something: %v", err)
	}
	if err := s.Remove(one.ID); err != nil {
		t.Fatal(err)
	}
	if all, _ := s.List(); len(all) != 1 || all[0].ID != two.ID {
		t.Errorf("left are %v", all)
	}
	if blobs, _ := filepath.Glob(filepath.Join(s.Dir, "blobs", "??", "*")); len(blobs) != 2 {
		t.Errorf("%d blobs are left, want those of one release", len(blobs))
	}
	if b, err := os.ReadFile(s.Path(two.ID, "assets/app-BX3k2f9a.js")); string(b) != "shared" || err != nil {
		t.Errorf("a shared file went with the other release: %q, %v", b, err)
	}
}

// TestCrashLeavesOldOrNew puts what a kill leaves at each point of Add, Switch and Remove.
func TestCrashLeavesOldOrNew(t *testing.T) {
	s := Site{Dir: t.TempDir()}
	one := add(t, s, map[string]string{"index.html": "one"})
	if err := s.Switch(one.ID); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"releases/.new-A/files", "blobs/.new-B", "releases/aaaaaaaaaaaa/files"} {
		if err := os.MkdirAll(filepath.Join(s.Dir, p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("releases/aaaaaaaaaaaa", filepath.Join(s.Dir, ".new-C")); err != nil {
		t.Fatal(err)
	}
	if all, err := s.List(); len(all) != 1 || err != nil {
		t.Errorf("list with leftovers: %v, %v", all, err)
	}
	two := add(t, s, map[string]string{"index.html": "two"})
	if left, _ := filepath.Glob(filepath.Join(s.Dir, ".new-*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	if left, _ := filepath.Glob(filepath.Join(s.Dir, "*", ".new-*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	if got, _ := s.Current(); got != one.ID {
		t.Errorf("current is %q", got)
	}
	if err := s.Switch(two.ID); err != nil {
		t.Error(err)
	}
}

func TestAddRefuses(t *testing.T) {
	s := Site{Dir: t.TempDir()}
	if _, err := s.Add(t.Context(), t.TempDir(), Meta{}); !errors.Is(err, ErrEmpty) {
		t.Errorf("an empty folder: %v", err)
	}
	dir := output(t, map[string]string{"index.html": "x"})
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "p")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(t.Context(), dir, Meta{}); err == nil || !strings.Contains(err.Error(), "leaves") {
		t.Errorf("a link that leaves the output: %v", err)
	}
}

func TestAReleaseOfSeveralRoots(t *testing.T) {
	s := Site{Dir: t.TempDir()}
	real := output(t, map[string]string{"a.txt": "client", "sub/b.txt": "b", "_headers": "rules"})
	link := filepath.Join(t.TempDir(), "client") // a root may be a link, and have links to its own folders
	if err := errors.Join(os.Symlink(real, link), os.Symlink("sub", filepath.Join(real, "alias"))); err != nil {
		t.Fatal(err)
	}
	pages := output(t, map[string]string{"a.txt": "prerendered", "c.txt": "c", "_headers": "a page"})
	r, err := s.AddRoots(t.Context(), []Root{{Dir: link}, {Dir: pages}, {Dir: pages, At: "/x/../docs/"}}, Meta{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"a.txt", "alias/b.txt", "c.txt", "docs/_headers", "docs/a.txt", "docs/c.txt", "sub/b.txt"}
	if got := slices.Sorted(maps.Keys(r.Files)); !slices.Equal(got, want) || r.Files["a.txt"].Size != int64(len("client")) {
		t.Errorf("released %v, want %v; a.txt is %+v", got, want, r.Files["a.txt"])
	}
	out := output(t, map[string]string{"a.txt": "x"})
	if _, err := s.AddRoots(t.Context(), []Root{{Dir: out, At: "../../../up"}}, Meta{}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(s.Dir, "up")); err == nil {
		t.Error("a root was placed outside the release")
	}
	if err := os.Symlink(filepath.Join(pages, "c.txt"), filepath.Join(out, "c.txt")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddRoots(t.Context(), []Root{{Dir: pages}, {Dir: out}}, Meta{}); err == nil || !strings.Contains(err.Error(), "c.txt is a link that leaves") {
		t.Errorf("a link from one root to another: %v", err)
	}
}

func TestHashed(t *testing.T) {
	for name, want := range map[string]bool{
		"assets/index-BX3k2f9a.js": true, "assets/index-DiwrgTda.css": true, "assets/logo-a1b2c3d4.svg": true,
		"_next/static/chunks/main.js": true, "static/js/main.3f2a9c1b.js": true, "main.3f2a9c1b4d5e6f70.css": true,
		"static/js/main.3f2a9c1b.js.map": true, "chunk-JKQ3ZB7A.js": true,
		"index.html": false, "assets/index-BX3k2f9a.html": false, "app.js": false, "assets/app-settings.js": false,
		"assets/app-version2.js": false, "favicon.ico": false, "assets/logo.svg": false, "service-worker.js": false,
		"word.deadbeef.js": false, "jquery-3.7.1.min.js": false,
	} {
		if got := Hashed(name); got != want {
			t.Errorf("Hashed(%q) = %v", name, got)
		}
	}
}

func FuzzPathStaysInside(f *testing.F) {
	for _, s := range []string{"index.html", "../../x", "/etc/passwd", "a/../../..", "..\\x", "a\x00b", ""} {
		f.Add("0123456789ab", s)
	}
	f.Add("../..", "x")
	s := Site{Dir: "/site"}
	f.Fuzz(func(t *testing.T, id, file string) {
		if p := s.Path(id, file); !strings.HasPrefix(p, "/site/releases/") {
			t.Errorf("Path(%q, %q) = %q", id, file, p)
		}
	})
}

func TestAHeadIsAReleaseWithoutItsFiles(t *testing.T) {
	s := Site{Dir: t.TempDir()}
	meta := Meta{Source: "d", Build: "b", Label: "l", Server: "k", Rules: map[string]siterules.Set{"_headers": {Headers: []siterules.Header{{}}}}}
	r, err := s.Add(t.Context(), output(t, map[string]string{"index.html": "one", "a.js": "two"}), meta)
	if err != nil {
		t.Fatal(err)
	}
	want, err := s.Open(r.ID)
	if err != nil {
		t.Fatal(err)
	}
	want.Files = nil
	if got, err := s.Head(r.ID); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("head %+v, %v; want %+v", got, err, want)
	}
	if all, err := s.Heads(); err != nil || len(all) != 1 || !reflect.DeepEqual(all[0], *want) {
		t.Errorf("heads %+v, %v", all, err)
	}
	for _, id := range []string{"0123456789ab", "../x"} {
		if _, err := s.Head(id); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("head of %s: %v", id, err)
		}
	}
	path := filepath.Join(s.releases(), r.ID, "release.json")
	for _, text := range []string{"", "[", `{"id": 1}`, `{"id": "0123456789ab", "files": {}}`} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Head(r.ID); err == nil {
			t.Errorf("%q is taken for a release", text)
		}
	}
}
