package certs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"tenfold/internal/atomicfile"
)

// Stores are the places of this machine where roots are trusted. The zero value is Debian's system
// store and the current user's browsers.
type Stores struct {
	// Anchors is the folder of roots the administrator adds; empty: /usr/local/share/ca-certificates.
	Anchors string
	// Update rebuilds the system's bundle after a change; empty: update-ca-certificates. As on
	// Debian, it is run once a root has come, and with --fresh once one has gone.
	Update string
	// Home is where the NSS databases of Chromium and Firefox are looked for; empty: the user's.
	Home string
}

// Outcome says what became of one store.
type Outcome struct {
	Store string // "system", or the folder of a browser's database
	Done  bool   // changed, or already as wanted
	Text  string // what was done, or why not
	// Commands are what a person who may can type to do it; none when Done.
	Commands []string
}

// Trust installs root, in PEM, into every store it finds. It is an error only if root is no
// authority's certificate: what could not be done is told by its Outcome.
func (s Stores) Trust(ctx context.Context, root []byte) ([]Outcome, error) {
	c, err := parseOnly(root)
	if err != nil {
		return nil, fmt.Errorf("trust root: %w", err)
	}
	s.complete()
	out := []Outcome{s.trustSystem(ctx, c, root)}
	for _, db := range s.databases() {
		out = append(out, s.browser(ctx, db, c, root))
	}
	return out, nil
}

// Untrust removes what Trust installed.
func (s Stores) Untrust(ctx context.Context, root []byte) ([]Outcome, error) {
	c, err := parseOnly(root)
	if err != nil {
		return nil, fmt.Errorf("untrust root: %w", err)
	}
	s.complete()
	out := []Outcome{s.untrustSystem(ctx, c)}
	for _, db := range s.databases() {
		out = append(out, s.forget(ctx, db, c))
	}
	return out, nil
}

func parseOnly(root []byte) (*x509.Certificate, error) {
	b, rest := pem.Decode(root)
	if b == nil || b.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("not one certificate in PEM")
	}
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		return nil, err
	}
	if !c.IsCA {
		return nil, errors.New("not the certificate of an authority")
	}
	return c, nil
}

func (s *Stores) complete() {
	if s.Anchors == "" {
		s.Anchors = "/usr/local/share/ca-certificates"
	}
	if s.Update == "" {
		s.Update = "update-ca-certificates"
	}
	if s.Home == "" {
		s.Home, _ = os.UserHomeDir()
	}
}

// label names a root in all stores: two houses of one machine do not take each other's away.
func label(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return "tenfold-" + hex.EncodeToString(sum[:6])
}

func (s *Stores) anchor(c *x509.Certificate) string {
	return filepath.Join(s.Anchors, label(c)+".crt")
}

func (s *Stores) trustSystem(ctx context.Context, c *x509.Certificate, root []byte) Outcome {
	o := Outcome{Store: "system"}
	file := s.anchor(c)
	o.Commands = []string{
		"sudo tee " + file + " >/dev/null <<'EOF'\n" + string(bytes.TrimSpace(root)) + "\nEOF",
		"sudo " + s.Update,
	}
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, root) {
		return Outcome{Store: o.Store, Done: true, Text: file + " is there already"}
	}
	if _, err := exec.LookPath(s.Update); err != nil {
		o.Text = s.Update + " is not installed: it is of the package ca-certificates; other systems have other ways, such as trust anchor"
		return o
	}
	if err := atomicfile.Write(file, root, 0o644); err != nil {
		o.Text = why(err)
		return o
	}
	if text, err := run(ctx, s.Update); err != nil {
		os.Remove(file)
		o.Text = fmt.Sprintf("%s: %s", s.Update, text)
		return o
	}
	return Outcome{Store: o.Store, Done: true, Text: fmt.Sprintf("wrote %s and ran %s", file, s.Update)}
}

func (s *Stores) untrustSystem(ctx context.Context, c *x509.Certificate) Outcome {
	o := Outcome{Store: "system"}
	file := s.anchor(c)
	o.Commands = []string{"sudo rm " + file, "sudo " + s.Update + " --fresh"}
	err := os.Remove(file)
	if errors.Is(err, fs.ErrNotExist) {
		return Outcome{Store: o.Store, Done: true, Text: file + " is not there"}
	}
	if err != nil {
		o.Text = why(err)
		return o
	}
	if text, err := run(ctx, s.Update, "--fresh"); err != nil {
		o.Text = fmt.Sprintf("%s: %s", s.Update, text)
		o.Commands = o.Commands[1:]
		return o
	}
	return Outcome{Store: o.Store, Done: true, Text: fmt.Sprintf("removed %s and ran %s", file, s.Update)}
}

// databases are the folders of NSS databases: Chromium's, which all its kin share, and those of
// Firefox's profiles, packaged in whichever way.
func (s *Stores) databases() []string {
	var out []string
	for _, p := range []string{
		".pki/nssdb", "snap/chromium/current/.pki/nssdb",
		".mozilla/firefox/*", ".config/mozilla/firefox/*", "snap/firefox/common/.mozilla/firefox/*", ".var/app/org.mozilla.firefox/.mozilla/firefox/*",
	} {
		found, _ := filepath.Glob(filepath.Join(s.Home, p, "cert9.db"))
		for _, f := range found {
			out = append(out, filepath.Dir(f))
		}
	}
	return out
}

func (s *Stores) browser(ctx context.Context, db string, c *x509.Certificate, root []byte) Outcome {
	o := Outcome{Store: db}
	o.Commands = []string{fmt.Sprintf("certutil -d sql:%s -A -n %s -t C,, <<'EOF'\n%s\nEOF", quote(db), label(c), bytes.TrimSpace(root))}
	if _, err := exec.LookPath("certutil"); err != nil {
		o.Text = "certutil is not installed: it is of the package libnss3-tools"
		o.Commands = append([]string{"sudo apt-get install libnss3-tools"}, o.Commands...)
		return o
	}
	if _, err := run(ctx, "certutil", "-d", "sql:"+db, "-L", "-n", label(c)); err == nil {
		return Outcome{Store: db, Done: true, Text: label(c) + " is there already"}
	}
	f, err := os.CreateTemp("", "tenfold-root-*.crt")
	if err == nil {
		defer os.Remove(f.Name())
		_, err = f.Write(root)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		o.Text = why(err)
		return o
	}
	if text, err := run(ctx, "certutil", "-d", "sql:"+db, "-A", "-n", label(c), "-t", "C,,", "-i", f.Name()); err != nil {
		o.Text = "certutil: " + text
		return o
	}
	return Outcome{Store: db, Done: true, Text: "added " + label(c) + "; a browser that runs must be started again"}
}

func (s *Stores) forget(ctx context.Context, db string, c *x509.Certificate) Outcome {
	o := Outcome{Store: db, Commands: []string{fmt.Sprintf("certutil -d sql:%s -D -n %s", quote(db), label(c))}}
	if _, err := exec.LookPath("certutil"); err != nil {
		o.Text = "certutil is not installed: it is of the package libnss3-tools"
		return o
	}
	if _, err := run(ctx, "certutil", "-d", "sql:"+db, "-L", "-n", label(c)); err != nil {
		return Outcome{Store: db, Done: true, Text: label(c) + " is not there"}
	}
	if text, err := run(ctx, "certutil", "-d", "sql:"+db, "-D", "-n", label(c)); err != nil {
		o.Text = "certutil: " + text
		return o
	}
	return Outcome{Store: db, Done: true, Text: "removed " + label(c)}
}

// run returns the output's last line when a command fails.
func run(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return last, err
	}
	return fmt.Sprint(err), err
}

func why(err error) string {
	if errors.Is(err, fs.ErrPermission) {
		return "this user may not write there"
	}
	return err.Error()
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
