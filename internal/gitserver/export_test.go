package gitserver

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStaysInside(t *testing.T) {
	for link, want := range map[[2]string]bool{
		{"a", "b"}: true, {"a/b/c", "../../x/y"}: true, {"a/b", "./../x"}: true, {"a", "."}: true,
		{"a", "/etc"}: false, {"a", "../x"}: false, {"a/b", "../../x"}: false, {"a", ""}: false,
		// a -> b/../.. is harmless only when b is no link.
		{"a", "b/../x"}: false, {"d/a", "./x/.."}: false,
	} {
		if got := staysInside(link[0], link[1]); got != want {
			t.Errorf("%s -> %q: %v", link[0], link[1], got)
		}
	}
}

// FuzzStaysInside makes the links that are allowed, together, and looks where they lead.
func FuzzStaysInside(f *testing.F) {
	f.Add("a", "b/c", "d", "a/../..")
	f.Add("a/x", "..", "b", "a/x/x")
	f.Fuzz(func(t *testing.T, one, oneTo, two, twoTo string) {
		outer := t.TempDir()
		root := filepath.Join(outer, "root")
		if os.Mkdir(root, 0o700) != nil {
			return
		}
		for _, l := range [][2]string{{one, oneTo}, {two, twoTo}} {
			name := filepath.Clean(l[0])
			if !filepath.IsLocal(name) || len(name) > 100 || strings.Contains(l[1], "\x00") || !staysInside(name, l[1]) {
				continue
			}
			// Git makes folders, never through a link.
			p := filepath.Join(root, name)
			if os.MkdirAll(filepath.Dir(p), 0o700) != nil {
				continue
			}
			if real, err := filepath.EvalSymlinks(filepath.Dir(p)); err != nil || real != filepath.Dir(p) {
				continue
			}
			_ = os.Symlink(l[1], p)
		}
		_ = filepath.WalkDir(root, func(p string, _ os.DirEntry, _ error) error {
			if real, err := filepath.EvalSymlinks(p); err == nil && real != root && !strings.HasPrefix(real, root+"/") {
				t.Errorf("%q -> %q and %q -> %q lead to %s", one, oneTo, two, twoTo, real)
			}
			return nil
		})
	})
}

// TestBombIsNotUnpacked pushes a tree of ten folders, each ten times the next: 10^10 files in a pack of
// a few hundred bytes.
func TestBombIsNotUnpacked(t *testing.T) {
	w := newWorld(t, nil)
	w.commit("a", "a")
	object := func(in string, args ...string) string {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c := w.command(ctx, args...)
		c.Stdin = strings.NewReader(in)
		out, err := c.Output()
		if err != nil {
			t.Fatalf("git %v: %v", args, err)
		}
		return strings.TrimSpace(string(out))
	}
	kind, id := "100644 blob", object("boom", "hash-object", "-w", "--stdin")
	for range 10 {
		var tree strings.Builder
		for i := range 10 {
			fmt.Fprintf(&tree, "%s %s\tf%d\n", kind, id, i)
		}
		kind, id = "040000 tree", object(tree.String(), "mktree")
	}
	bomb := object("", "commit-tree", "-m", "bomb", id)
	out, err := w.git("push", w.url("shop"), bomb+":refs/heads/main")
	if err == nil || !strings.Contains(out, "more than 200000 files") {
		t.Errorf("%v:\n%s", err, out)
	}
	if len(w.pushes) > 0 || !w.clean() {
		t.Error("the bomb reached the callback, or left something")
	}
}

// TestLargePushIsSentInPieces is one that git sends without a length, after asking whether it may.
func TestLargePushIsSentInPieces(t *testing.T) {
	w := newWorld(t, nil)
	var noise strings.Builder
	x := uint64(1)
	for noise.Len() < 2<<20 {
		x = x*6364136223846793005 + 1442695040888963407
		fmt.Fprintf(&noise, "%x", x>>16)
	}
	var size int64
	w.on = func(_ context.Context, p Push, out io.Writer) error {
		info, err := os.Stat(filepath.Join(p.Dir, "large"))
		if err == nil {
			size = info.Size()
		}
		return err
	}
	w.commit("large", noise.String())
	w.must("push", w.url("shop"), "main")
	if size != int64(noise.Len()) {
		t.Errorf("%d bytes arrived", size)
	}
}
