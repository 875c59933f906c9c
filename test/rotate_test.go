//go:build scenario

package test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// databaseURL is what the processes that run a command were given, each once.
func (h *house) databaseURLs(command string) map[string]bool {
	out := map[string]bool{}
	for pid, cmd := range h.mine() {
		if !strings.Contains(cmd, command) {
			continue
		}
		environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		for _, kv := range strings.Split(string(environ), "\x00") {
			if url, ok := strings.CutPrefix(kv, "DATABASE_URL="); ok {
				out[url] = true
			}
		}
	}
	return out
}

// A new password reaches the services by new tasks, while what is open goes on and no visitor notices.
func TestRotateGivesServicesANewPassword(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "    uses: [db]\ndatabases: [db]\nfunctions: {told: {path: told, handler: index.handler, runtime: node, uses: [db]}}\n"),
		"told/index.mjs": "export const handler = async () => process.env.DATABASE_URL;\n"})
	h.up(dir)
	told := func() string {
		out, _ := h.runIn(dir, "fn", "invoke", "told")
		url, _, _ := strings.Cut(strings.TrimPrefix(out, `"`), `"`)
		return url
	}
	if now, want := told(), strings.TrimSpace(h.must(dir, "db", "url")); now != want {
		t.Errorf("a function is told %s, not %s", now, want)
	}
	old := strings.TrimSpace(h.must(dir, "db", "url"))
	open, err := pgx.Connect(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close(context.Background())
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	failed := make(chan error, 1)
	go func() { // through the pool, on the connection that was open
		defer close(failed)
		for n := 0; ctx.Err() == nil; n++ {
			if _, err := open.Exec(context.Background(), "select $1::int", n); err != nil {
				failed <- err
				return
			}
		}
	}()
	out := h.must(dir, "db", "rotate")
	eventually(t, "the new password in a function that was warm", 20*time.Second, func() bool {
		now := told()
		return now != old && now == strings.TrimSpace(h.must(dir, "db", "url"))
	})
	if !strings.Contains(out, "new password") || !strings.Contains(out, "api") || !strings.Contains(out, "told") {
		t.Errorf("db rotate says: %s", out)
	}
	fresh := strings.TrimSpace(h.must(dir, "db", "url"))
	if fresh == old {
		t.Fatal("it is the old one")
	}
	eventually(t, "all tasks with the new password", 30*time.Second, func() bool {
		has := h.databaseURLs("echo 1")
		return len(has) == 1 && has[fresh]
	})
	eventually(t, "a connection with the new password, none with the old", 10*time.Second, func() bool {
		c, err := pgx.Connect(t.Context(), fresh)
		if err != nil {
			return false
		}
		c.Close(t.Context())
		_, err = pgx.Connect(t.Context(), old)
		return err != nil && strings.Contains(err.Error(), "28P01")
	})
	stop()
	if err := <-failed; err != nil {
		t.Errorf("a connection that was open: %v", err)
	}
	if out := h.must(dir, "db", "rotate", "--json"); !strings.Contains(out, `"restarted"`) {
		t.Errorf("%s", out)
	}
}
