package release

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

func TestFilesAreCodedOnceAndGoTogether(t *testing.T) {
	s := Site{Dir: t.TempDir()}
	from := t.TempDir()
	text := strings.Repeat("function hello() { return 'hello' }\n", 200)
	for name, body := range map[string]string{"app.js": text, "again.js": text, "small.js": "1", "photo.png": text + "x"} {
		if err := os.WriteFile(filepath.Join(from, name), []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r, err := s.Add(t.Context(), from, Meta{})
	if err != nil {
		t.Fatal(err)
	}
	f := r.Files["app.js"]
	if len(f.Coded) != len(Codings) || len(r.Files["small.js"].Coded)+len(r.Files["photo.png"].Coded) > 0 {
		t.Errorf("coded: %+v", r.Files)
	}
	for coding, open := range map[string]func(io.Reader) (io.Reader, error){
		"br":   func(r io.Reader) (io.Reader, error) { return brotli.NewReader(r), nil },
		"zstd": func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) },
		"gzip": func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
	} {
		b, err := os.ReadFile(s.Coded(f.Digest, coding))
		if err != nil || int64(len(b)) != f.Coded[coding] || len(b) > len(text)/10 {
			t.Fatalf("%s: %d bytes, %v", coding, len(b), err)
		}
		in, err := open(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if back, err := io.ReadAll(in); err != nil || string(back) != text {
			t.Errorf("%s does not come back: %v", coding, err)
		}
	}
	before, _ := os.Stat(s.Coded(f.Digest, "br"))
	os.WriteFile(filepath.Join(from, "small.js"), []byte("2"), 0o644)
	next, err := s.Add(t.Context(), from, Meta{})
	if err != nil || next.Files["app.js"].Coded["br"] != f.Coded["br"] {
		t.Fatalf("%+v %v", next.Files["app.js"], err)
	}
	if after, _ := os.Stat(s.Coded(f.Digest, "br")); !os.SameFile(before, after) {
		t.Error("coded again")
	}
	os.Remove(filepath.Join(from, "app.js"))
	os.Remove(filepath.Join(from, "again.js"))
	last, err := s.Add(t.Context(), from, Meta{})
	if err != nil {
		t.Fatal(err)
	}
	s.Switch(last.ID)
	if err := s.Remove(r.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.Coded(f.Digest, "br")); err != nil {
		t.Error("a coded form went while a release holds the file")
	}
	if err := s.Remove(next.ID); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.Dir, "blobs", "??", "*.*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
