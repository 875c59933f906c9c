//go:build scenario

package test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// The daemon is killed in the middle of a base backup: what was written of it is no backup, another is taken, and that
// is restored whole. Each is of many frames.
func TestABackupOutlivesAKillInItsMiddle(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	to := filepath.Join(t.TempDir(), "backups")
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "    uses: [db]\ndatabases: {db: {backups: {every: 1h, keep: 1d, to: "+to+", key: KEY}}}\nsecrets: {KEY: {generate: 32}}\n")})
	h.up(dir)
	rows := func(name string) (n int, sum string) {
		t.Helper()
		args := []string{"db", "url"}
		if name != "" {
			args = append(args, "--name", name)
		}
		c, err := pgx.Connect(t.Context(), strings.TrimSpace(h.must(dir, args...)))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(t.Context())
		if name == "" {
			if _, err := c.Exec(t.Context(), "create table if not exists t (n int primary key, pad text); alter table t alter pad set storage external"); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Exec(t.Context(), "insert into t select g, repeat(md5(g::text), 60) from generate_series(1, 50000) g on conflict do nothing"); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.QueryRow(t.Context(), "select count(*), md5(string_agg(n || pad, '' order by n)) from t").Scan(&n, &sum); err != nil {
			t.Fatal(err)
		}
		return n, sum
	}
	n, sum := rows("")
	whole := func() (names []string) {
		names, err := filepath.Glob(filepath.Join(to, "*", "*", "*", "base", "*", "backup.*"))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	eventually(t, "a first backup", 60*time.Second, func() bool { return len(whole()) > 0 })
	before := len(whole())
	taken := make(chan string, 1)
	go func() {
		out, _ := h.runIn(dir, "db", "backup") // fails, or is over
		taken <- out
	}()
	half := func() []string {
		parts, _ := filepath.Glob(filepath.Join(to, "*", "*", "*", "base", "*", ".part-*"))
		return parts
	}
	eventually(t, "a backup under way", 60*time.Second, func() bool { return len(half()) > 0 })
	h.kill("house daemon")
	t.Log(<-taken)
	if len(whole()) != before {
		t.Log("it was over before the daemon was killed")
	}
	eventually(t, "another backup", 60*time.Second, func() bool {
		out, status := h.runIn(dir, "db", "backup")
		return status == 0 && strings.Contains(out, "Z")
	})
	if out := h.must(dir, "db", "backups"); strings.Count(out, "encrypted") != len(whole()) {
		t.Errorf("%d are whole:\n%s", len(whole()), out)
	}
	name := strings.Fields(h.must(dir, "db", "restore", "--to", "latest"))[0]
	if got, same := rows(name); got != n || same != sum {
		t.Errorf("%s has %d rows, want %d (sum the same: %v)", name, got, n, sum == same)
	}
}
