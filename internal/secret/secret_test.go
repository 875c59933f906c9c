package secret

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSealedValuesOpenOnlyWithTheirKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	k, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := k.Seal("s3cret\nline")
	if err != nil || bytes.Contains(sealed, []byte("s3cret")) {
		t.Fatalf("sealed %q, %v", sealed, err)
	}
	again, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Open(sealed); err != nil || got != "s3cret\nline" {
		t.Fatalf("opened %q, %v", got, err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v", info.Mode())
	}
	other, err := Load(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Open(sealed); err == nil {
		t.Fatal("opened with another key")
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := k.Open(sealed); err == nil {
		t.Fatal("opened a changed value")
	}
}

func TestSealRefusesWhatAProcessCannotGet(t *testing.T) {
	k, err := Load(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"a\x00b", strings.Repeat("x", MaxSize+1)} {
		if _, err := k.Seal(v); err == nil {
			t.Errorf("sealed %d bytes", len(v))
		}
	}
}

func FuzzOpen(f *testing.F) {
	k, err := Load(filepath.Join(f.TempDir(), "key"))
	if err != nil {
		f.Fatal(err)
	}
	sealed, _ := k.Seal("x")
	f.Add(sealed)
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := k.Open(b); err == nil && !bytes.Equal(b, sealed) {
			t.Fatalf("opened a forgery: %q", v)
		}
	})
}
