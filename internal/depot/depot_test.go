package depot

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestObjectsComeBackAndAFlippedByteDoesNot(t *testing.T) {
	for _, key := range []string{"", "correct horse battery staple"} {
		dir := t.TempDir()
		d := Depot{Place: Dir(dir), Key: key}
		text := []byte(strings.Repeat("row 42; ", 50_000))
		if err := d.Put(t.Context(), "wal/000000010000000000000001", func(w io.Writer) error { _, err := w.Write(text); return err }); err != nil {
			t.Fatal(err)
		}
		var back bytes.Buffer
		read := func(r io.Reader) error { back.Reset(); _, err := back.ReadFrom(r); return err }
		if err := d.Get(t.Context(), "wal/000000010000000000000001", read); err != nil || !bytes.Equal(back.Bytes(), text) {
			t.Fatalf("%d bytes, %v", back.Len(), err)
		}
		names, err := d.Place.List(t.Context(), "wal/")
		if err != nil || !slices.Equal(names, []string{d.Name("wal/000000010000000000000001")}) {
			t.Fatal(names, err)
		}
		file := filepath.Join(dir, names[0])
		stored, err := os.ReadFile(file)
		if err != nil || key != "" && bytes.Contains(stored, []byte("row 42")) {
			t.Fatal("readable without the key", err)
		}
		for i := 0; i < len(stored); i += 1 + len(stored)/40 {
			stored[i] ^= 0x10
			os.WriteFile(file, stored, 0o600)
			if err := d.Get(t.Context(), "wal/000000010000000000000001", read); err == nil && !bytes.Equal(back.Bytes(), text) || err != nil && !strings.Contains(err.Error(), "000000010000000000000001") {
				t.Fatalf("byte %d flipped: %v", i, err)
			}
			stored[i] ^= 0x10
		}
		os.WriteFile(file, stored[:len(stored)-3], 0o600)
		if err := d.Get(t.Context(), "wal/000000010000000000000001", read); err == nil {
			t.Fatal("one that is cut off is read")
		}

		// What fails half-way leaves nothing.
		broken := errors.New("broken")
		if err := d.Put(t.Context(), "base/x", func(w io.Writer) error { w.Write(text); return broken }); !errors.Is(err, broken) {
			t.Fatal(err)
		}
		if err := d.Get(t.Context(), "base/x", read); !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "base", "*")); len(left) > 0 {
			t.Fatal(left)
		}
	}
}

var zero time.Time

// suite is what every Place keeps.
func suite(t *testing.T, p Place) {
	t.Helper()
	ctx := t.Context()
	large := bytes.Repeat([]byte("0123456789abcdef"), 3<<20) // 48 MB: of several parts
	for name, text := range map[string][]byte{"wal/1": []byte("one"), "wal/2": large, "base/x/data": {}} {
		if err := p.Put(ctx, name, bytes.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		r, err := p.Get(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || !bytes.Equal(got, text) {
			t.Errorf("%s: %d bytes, want %d: %v", name, len(got), len(text), err)
		}
	}
	if names, err := p.List(ctx, "wal/"); err != nil || !slices.Equal(names, []string{"wal/1", "wal/2"}) {
		t.Error(names, err)
	}
	broken := errors.New("broken")
	if err := p.Put(ctx, "wal/3", io.MultiReader(bytes.NewReader(large), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("what broke half-way: %v", err)
	}
	for range 2 {
		if err := p.Delete(ctx, "wal/1"); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"wal/1", "wal/3"} {
		if _, err := p.Get(ctx, name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if names, err := p.List(ctx, ""); err != nil || !slices.Equal(names, []string{"base/x/data", "wal/2"}) {
		t.Error(names, err)
	}
}
