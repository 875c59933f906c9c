package certs

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Debian's own program, on folders of the test.
func TestTrustWithUpdateCACertificates(t *testing.T) {
	program, err := exec.LookPath("update-ca-certificates")
	if err != nil {
		t.Skip("update-ca-certificates is not installed: apt-get install ca-certificates")
	}
	dir := t.TempDir()
	for _, d := range []string{"local", "etc", "hooks", "home"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	update := filepath.Join(dir, "update")
	script := "#!/bin/sh\nexec " + program + " \"$@\" --certsconf /dev/null --certsdir " + dir + "/none --localcertsdir " + dir + "/local --etccertsdir " + dir + "/etc --hooksdir " + dir + "/hooks\n"
	if err := os.WriteFile(update, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	// Another root, for the program makes no bundle of none.
	if err := os.WriteFile(filepath.Join(dir, "local", "other.crt"), newKeyring(t, Config{}).Root(), 0o644); err != nil {
		t.Fatal(err)
	}
	k := newKeyring(t, Config{})
	s := Stores{Anchors: filepath.Join(dir, "local"), Update: update, Home: filepath.Join(dir, "home")}
	bundled := func() bool {
		b, _ := os.ReadFile(filepath.Join(dir, "etc", "ca-certificates.crt"))
		return bytes.Contains(b, bytes.TrimSpace(k.Root()))
	}
	if out, err := s.Trust(context.Background(), k.Root()); err != nil || !out[0].Done || !bundled() {
		t.Fatalf("trust: %+v, %v, in the bundle: %v", out, err, bundled())
	}
	if out, err := s.Untrust(context.Background(), k.Root()); err != nil || !out[0].Done || bundled() {
		t.Fatalf("untrust: %+v, %v, in the bundle: %v", out, err, bundled())
	}
}

// A database as Chromium has it.
func TestTrustWithCertutil(t *testing.T) {
	if _, err := exec.LookPath("certutil"); err != nil {
		t.Skip("certutil is not installed: apt-get install libnss3-tools")
	}
	home := t.TempDir()
	db := filepath.Join(home, ".pki", "nssdb")
	if err := os.MkdirAll(db, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("certutil", "-d", "sql:"+db, "-N", "--empty-password").CombinedOutput(); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	k := newKeyring(t, Config{})
	update, _ := updater(t, "0")
	s := Stores{Anchors: t.TempDir(), Update: update, Home: home}
	list := func() string {
		out, _ := exec.Command("certutil", "-d", "sql:"+db, "-L").CombinedOutput()
		return string(out)
	}
	for i, want := range []string{"added", "there already"} {
		out, err := s.Trust(context.Background(), k.Root())
		if err != nil || len(out) != 2 || !out[1].Done || !strings.Contains(out[1].Text, want) || !strings.Contains(list(), label(k.local.cert)) {
			t.Fatalf("trust %d: %+v, %v\n%s", i, out, err, list())
		}
	}
	if err := exec.Command("certutil", "-d", "sql:"+db, "-V", "-u", "L", "-n", label(k.local.cert)).Run(); err != nil {
		t.Errorf("it is not trusted as an authority: %v\n%s", err, list())
	}
	for i, want := range []string{"removed", "not there"} {
		out, err := s.Untrust(context.Background(), k.Root())
		if err != nil || !out[1].Done || !strings.Contains(out[1].Text, want) || strings.Contains(list(), label(k.local.cert)) {
			t.Fatalf("untrust %d: %+v, %v\n%s", i, out, err, list())
		}
	}
}
