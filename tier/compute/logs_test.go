package compute

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tenfold"
)

func TestOutputIsKeptWithinItsAgeAndSize(t *testing.T) {
	c := &Compute{cfg: Config{Dir: t.TempDir()}}
	id := tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindService, Name: "api"}
	dir, now := c.logDir(id), time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, age := range map[string]time.Duration{"1.log": 40 * 24 * time.Hour, "2.log": 40 * 24 * time.Hour, "3.log.2": 5 * time.Hour, "3.log.1": 4 * time.Hour, "3.log": 3 * time.Hour, "4.log": time.Hour, "exec-x.log": 2 * time.Hour} {
		f := filepath.Join(dir, name)
		if err := os.WriteFile(f, make([]byte, 100), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(f, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	left := func() string {
		var out []string
		for _, f := range stored(filepath.Join(dir, "*")) {
			out = append(out, filepath.Base(f.path))
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	written := map[string]bool{filepath.Join(dir, "2.log"): true, filepath.Join(dir, "4.log"): true}
	for _, step := range []struct {
		what string
		logs tenfold.Logs
		want string
	}{
		{"by age, but what a quiet task writes to", tenfold.Logs{Keep: 30 * 24 * time.Hour, Max: 600}, "2.log 3.log 3.log.1 3.log.2 4.log exec-x.log"},
		{"the oldest of too much", tenfold.Logs{Keep: 30 * 24 * time.Hour, Max: 350}, "2.log 4.log exec-x.log"},
		{"what is written to stays", tenfold.Logs{Max: 1}, "2.log 4.log"},
	} {
		c.sweepLogs(id, step.logs, written, now)
		if got := left(); got != step.want {
			t.Errorf("%s: left are %s", step.what, got)
		}
	}
}

func TestRunsBeyondThoseRememberedAreForgotten(t *testing.T) {
	var all []Run
	for n := range keptRuns + 3 {
		r := Run{N: n + 1, Ended: time.Unix(int64(n+1), 0)}
		if n == 1 {
			r.Ended = time.Time{} // goes on
		}
		all = append(all, r)
	}
	kept, old := forgetRuns(all)
	if len(old) != 2 || old[0].N != 1 || old[1].N != 3 || kept[0].N != 2 || kept[1].N != 4 {
		t.Errorf("forgotten: %+v; the first that are kept: %+v", old, kept[:2])
	}
}
