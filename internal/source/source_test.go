package source

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func digest(t *testing.T, root, context string) string {
	t.Helper()
	d, err := Digest(t.Context(), root, context)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func project(t *testing.T) string {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"package.json": "{}", "src/index.js": "1", ".env": "SECRET=1", ".env.local": "x", ".env.test.local": "x",
		".env.example": "SECRET=", "node_modules/a/index.js": "no", "src/__pycache__/x.pyc": "no", ".tenfold/state": "no",
	})
	if err := os.Symlink("src/index.js", filepath.Join(dir, "main.js")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestCopyTakesWhatDigestReads(t *testing.T) {
	dir := project(t)
	dst := filepath.Join(t.TempDir(), "copy")
	if err := Copy(t.Context(), dir, ".", dst); err != nil {
		t.Fatal(err)
	}
	files, err := list(t.Context(), dst, dst)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.path)
	}
	if want := []string{".env.example", "main.js", "package.json", "src/index.js"}; !slices.Equal(names, want) {
		t.Errorf("copied %q, want %q", names, want)
	}
	if a, b := digest(t, dir, "."), digest(t, dst, "."); a != b {
		t.Errorf("the copy has digest %s, the project %s", b, a)
	}
}

func TestDigestSeesEveryChange(t *testing.T) {
	dir := project(t)
	seen := map[string]string{digest(t, dir, "."): "the project"}
	for _, c := range []struct {
		what string
		do   func() error
	}{
		{"content", func() error { return os.WriteFile(filepath.Join(dir, "src/index.js"), []byte("2"), 0o644) }},
		{"executable bit", func() error { return os.Chmod(filepath.Join(dir, "src/index.js"), 0o755) }},
		{"name", func() error { return os.Rename(filepath.Join(dir, "src"), filepath.Join(dir, "lib")) }},
		{"link", func() error {
			os.Remove(filepath.Join(dir, "main.js"))
			return os.Symlink("lib/index.js", filepath.Join(dir, "main.js"))
		}},
	} {
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		d := digest(t, dir, ".")
		if before, ok := seen[d]; ok {
			t.Errorf("after a change of %s the digest is that of %s", c.what, before)
		}
		seen[d] = c.what
	}
	before := digest(t, dir, ".")
	write(t, dir, map[string]string{".env": "SECRET=2", "node_modules/b.js": "x"})
	if digest(t, dir, ".") != before {
		t.Error("files that are never copied changed the digest")
	}
}

// Another setting is no other program: nothing is built again for a line of the manifest.
func TestTheManifestIsNoSource(t *testing.T) {
	dir := project(t)
	write(t, dir, map[string]string{"api/main.go": "package main"})
	before, api := digest(t, dir, "."), digest(t, dir, "api")
	write(t, dir, map[string]string{Manifest: "app: shop"})
	if digest(t, dir, ".") != before {
		t.Error("the manifest changed the digest")
	}
	dst := filepath.Join(t.TempDir(), "copy")
	if err := Copy(t.Context(), dir, ".", dst); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dst, Manifest)); err == nil {
		t.Error("the manifest was copied, so that a build could go by an old one")
	}
	var packed bytes.Buffer
	if err := Pack(t.Context(), dir, &packed); err != nil {
		t.Fatal(err)
	}
	there := filepath.Join(t.TempDir(), "there")
	if err := Unpack(t.Context(), &packed, there); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(there, Manifest)); err != nil {
		t.Errorf("the manifest did not travel: %v", err)
	}
	write(t, dir, map[string]string{"api/" + Manifest: "of another project"})
	if digest(t, dir, "api") == api {
		t.Error("a file of the manifest's name is a source where it is no manifest")
	}
}

func TestGitDecides(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	dir := t.TempDir()
	write(t, dir, map[string]string{".gitignore": "*.log\ndist/\n", "a.txt": "a", "b.log": "b", "dist/x": "x", "web/i.html": "i", "gone.txt": "g"})
	for _, args := range [][]string{{"init", "-q"}, {"add", "."}} {
		if out, err := exec.Command("git", append([]string{"-C", dir}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v %s", args, err, out)
		}
	}
	os.Remove(filepath.Join(dir, "gone.txt"))
	names := func(context string) string {
		files, err := list(t.Context(), dir, filepath.Join(dir, context))
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, f := range files {
			out = append(out, f.path)
		}
		return strings.Join(out, " ")
	}
	if got := names("."); got != ".gitignore a.txt web/i.html" {
		t.Errorf("files: %s", got)
	}
	if got := names("web"); got != "i.html" {
		t.Errorf("files of web: %s", got)
	}
	if got := names("dist"); got != "x" {
		t.Errorf("files of an ignored folder: %s", got)
	}
}

func TestBadThingsAreNamed(t *testing.T) {
	for what, c := range map[string]struct {
		make func(dir string) error
		want string
	}{
		"socket": {func(dir string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s.sock"), Net: "unix"})
			if err == nil {
				l.SetUnlinkOnClose(false)
				err = l.Close()
			}
			return err
		}, "s.sock is a socket"},
		"link outside":  {func(dir string) error { return os.Symlink("../../etc/passwd", filepath.Join(dir, "p")) }, "outside the project"},
		"absolute link": {func(dir string) error { return os.Symlink("/etc/passwd", filepath.Join(dir, "p")) }, "outside the project"},
	} {
		t.Run(what, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "tf") // short, for the socket's address
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			if err := c.make(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := Digest(t.Context(), dir, "."); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
	if _, err := Digest(t.Context(), t.TempDir(), "../x"); err == nil {
		t.Error("a context outside the root was accepted")
	}
}
