//go:build scenario

package test

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Clients log in over TLS that they verify by what `db ca` prints, and with a token of `db token`, which is
// told to nobody else.
func TestPoolTLSAndTokens(t *testing.T) {
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "    uses: [db]\ndatabases: [db]\n")})
	h.up(dir)
	root := filepath.Join(t.TempDir(), "root.crt")
	if err := os.WriteFile(root, []byte(h.must(dir, "db", "ca")), 0o600); err != nil {
		t.Fatal(err)
	}
	if file := strings.TrimSpace(h.must(dir, "db", "ca", "--file")); file == "" {
		t.Error("no file")
	} else if b, err := os.ReadFile(file); err != nil || !strings.Contains(string(b), "BEGIN CERTIFICATE") {
		t.Error(file, err)
	}
	plain := strings.TrimSpace(h.must(dir, "db", "url"))
	ask := func(dsn string) error {
		c, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			return err
		}
		defer c.Close(t.Context())
		var n int
		return c.QueryRow(t.Context(), "select 1").Scan(&n)
	}
	secure := func(dsn, mode string) string {
		u, err := url.Parse(dsn)
		if err != nil {
			t.Fatal(err)
		}
		u.RawQuery = "sslmode=" + mode + "&sslrootcert=" + url.QueryEscape(root)
		return u.String()
	}
	for _, mode := range []string{"verify-ca", "verify-full", "verify-full&channel_binding=require", "verify-full&sslnegotiation=direct"} {
		if err := ask(secure(plain, mode)); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
	}
	localhost := strings.Replace(secure(plain, "verify-full"), "127.0.0.1", "localhost", 1)
	if err := ask(localhost); err != nil {
		t.Error(err)
	}
	with := strings.TrimSpace(h.must(dir, "db", "token", "--url"))
	with, _, _ = strings.Cut(with, "\n")
	if err := ask(secure(with, "verify-full")); err != nil {
		t.Error(err)
	}
	if err := ask(with); err != nil {
		t.Error(err)
	}
	u, err := url.Parse(with)
	if err != nil {
		t.Fatal(err)
	}
	token, _ := u.User.Password()
	if token = strings.Split(token, ".")[1]; len(token) < 20 {
		t.Fatal(with)
	}
	filepath.WalkDir(h.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), token) {
				t.Errorf("the token is in %s", path)
			}
		}
		return nil
	})
	h.must(dir, "db", "rotate")
	eventually(t, "the token to end with its password", 20*time.Second, func() bool { return ask(with) != nil })
}
