package source

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestUnpackMakesTheSameSources(t *testing.T) {
	dir := project(t)
	var b bytes.Buffer
	if err := Pack(t.Context(), dir, &b); err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(t.TempDir(), "there")
	if err := Unpack(t.Context(), &b, dst); err != nil {
		t.Fatal(err)
	}
	if a, b := digest(t, dir, "."), digest(t, dst, "."); a != b {
		t.Errorf("packed %s, unpacked %s", a, b)
	}
	if _, err := os.Stat(filepath.Join(dst, ".env")); err == nil {
		t.Error("a file of secrets travelled")
	}
}

func archive(t testing.TB, headers ...tar.Header) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		h.Mode = 0o644
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		w.Write(make([]byte, h.Size))
	}
	w.Close()
	return b.Bytes()
}

func TestUnpackStaysInside(t *testing.T) {
	for name, b := range map[string][]byte{
		"up":              archive(t, tar.Header{Name: "../x", Typeflag: tar.TypeReg}),
		"absolute":        archive(t, tar.Header{Name: "/tmp/x", Typeflag: tar.TypeReg}),
		"link out":        archive(t, tar.Header{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "../../etc"}),
		"absolute link":   archive(t, tar.Header{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "/etc"}),
		"through a chain": archive(t, tar.Header{Name: "a/b", Typeflag: tar.TypeSymlink, Linkname: ".."}, tar.Header{Name: "a/b/../../x", Typeflag: tar.TypeReg}),
		"device":          archive(t, tar.Header{Name: "a", Typeflag: tar.TypeChar}),
		"twice":           archive(t, tar.Header{Name: "a", Typeflag: tar.TypeReg}, tar.Header{Name: "a", Typeflag: tar.TypeReg}),
		"torn":            archive(t, tar.Header{Name: "a", Typeflag: tar.TypeReg, Size: 4096})[:1024],
	} {
		dst := filepath.Join(t.TempDir(), "in")
		if err := Unpack(t.Context(), bytes.NewReader(b), dst); err == nil {
			t.Errorf("%s: taken", name)
		}
		if _, err := os.Stat(dst); err == nil {
			t.Errorf("%s: something is left", name)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(archive(f, tar.Header{Name: "a/b", Typeflag: tar.TypeReg, Size: 3}))
	f.Add(archive(f, tar.Header{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "b"}, tar.Header{Name: "a/c", Typeflag: tar.TypeReg}))
	f.Add([]byte("no archive"))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		Unpack(t.Context(), bytes.NewReader(b), filepath.Join(dir, "in"))
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() != "in" {
				t.Errorf("made %s outside", strings.TrimSpace(e.Name()))
			}
		}
	})
}
