package certs

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// updater stands for update-ca-certificates: it keeps a log of how it was called.
func updater(t *testing.T, exit string) (path, log string) {
	t.Helper()
	dir := t.TempDir()
	path, log = filepath.Join(dir, "update"), filepath.Join(dir, "log")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho \"ran $*\" >>"+log+"\necho it is broken >&2\nexit "+exit+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path, log
}

func TestTrustAndUntrustTheSystemStore(t *testing.T) {
	root := newKeyring(t, Config{}).Root()
	update, log := updater(t, "0")
	s := Stores{Anchors: t.TempDir(), Update: update, Home: t.TempDir()}
	ctx := context.Background()
	for i, want := range []string{"wrote ", "is there already"} {
		out, err := s.Trust(ctx, root)
		if err != nil || len(out) != 1 || !out[0].Done || !strings.Contains(out[0].Text, want) {
			t.Fatalf("trust %d: %+v, %v", i, out, err)
		}
	}
	files, _ := filepath.Glob(filepath.Join(s.Anchors, "tenfold-*.crt"))
	if len(files) != 1 {
		t.Fatalf("anchors: %v", files)
	}
	if b, _ := os.ReadFile(files[0]); string(b) != string(root) {
		t.Error("another root was written")
	}
	for i, want := range []string{"removed ", "is not there"} {
		out, err := s.Untrust(ctx, root)
		if err != nil || !out[0].Done || !strings.Contains(out[0].Text, want) {
			t.Fatalf("untrust %d: %+v, %v", i, out, err)
		}
	}
	if b, _ := os.ReadFile(log); string(b) != "ran \nran --fresh\n" {
		t.Errorf("the update ran as %q", b)
	}
}

func TestTrustSaysWhatToTypeWhenItMayNot(t *testing.T) {
	root := newKeyring(t, Config{}).Root()
	update, _ := updater(t, "3")
	anchors := t.TempDir()
	out, err := Stores{Anchors: anchors, Update: update, Home: t.TempDir()}.Trust(context.Background(), root)
	if err != nil || out[0].Done || !strings.Contains(out[0].Text, "it is broken") || len(out[0].Commands) != 2 || !strings.Contains(out[0].Commands[0], "BEGIN CERTIFICATE") {
		t.Fatalf("an update that fails: %+v, %v", out, err)
	}
	if left, _ := os.ReadDir(anchors); len(left) != 0 {
		t.Error("the anchor of an update that failed stays")
	}
	out, err = Stores{Anchors: filepath.Join(anchors, "none"), Update: "no-such-program-here", Home: t.TempDir()}.Trust(context.Background(), root)
	if err != nil || out[0].Done || !strings.Contains(out[0].Text, "ca-certificates") {
		t.Fatalf("no program: %+v, %v", out, err)
	}
	// A browser's database without the program that writes it.
	home := t.TempDir()
	db := filepath.Join(home, ".mozilla/firefox/ab.default")
	if err := os.MkdirAll(db, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(db, "cert9.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir())
	out, _ = Stores{Anchors: anchors, Update: update, Home: home}.Trust(context.Background(), root)
	if len(out) != 2 || out[1].Done || !strings.Contains(out[1].Text, "libnss3-tools") || len(out[1].Commands) != 2 {
		t.Fatalf("browser: %+v", out)
	}
}

func TestTrustTakesAuthoritiesOnly(t *testing.T) {
	k := newKeyring(t, Config{})
	key, err := os.ReadFile(filepath.Join(k.cfg.Dir, "local", "root.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{nil, []byte("x"), key} {
		if _, err := (Stores{}).Trust(context.Background(), bad); err == nil {
			t.Errorf("%.20q is taken", bad)
		}
		if _, err := (Stores{}).Untrust(context.Background(), bad); err == nil {
			t.Errorf("%.20q is taken", bad)
		}
	}
}
