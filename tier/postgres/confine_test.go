//go:build scenario

package postgres

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tenfold"
)

// controls is what a process's cgroup says, of the first of some files that there is.
func controls(pid int, names ...string) string {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	for _, l := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		f := strings.SplitN(l, ":", 3)
		if len(f) != 3 || !strings.Contains(f[2], "tenfold-") {
			continue
		}
		for _, mount := range []string{f[1], "unified", ""} {
			for _, name := range names {
				if v, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", mount, f[2], name)); err == nil {
					return strings.TrimSpace(string(v))
				}
			}
		}
	}
	return ""
}

// What the server may take is bounded by its capacity, and its share grows with it.
func TestLimitsFollowTheCapacity(t *testing.T) {
	f := begin(t)
	f.start(t, tenfold.Database{Capacity: tenfold.Capacity{Min: 0.5, Max: 2}})
	f.await(t, "ready", ready)
	pid := f.pid(t, 1)
	eventually := func(what string, ok func() bool) {
		t.Helper()
		for begun := time.Now(); !ok(); <-time.After(50 * time.Millisecond) {
			f.mu.Lock()
			said := strings.Join(f.texts, "\n")
			f.mu.Unlock()
			if strings.Contains(said, "bounds what PostgreSQL plans with, not what it takes") {
				t.Skip("no cgroup can be written here, which is said")
			}
			if time.Since(begun) > 60*time.Second {
				t.Fatalf("not %s: quota %q, weight %q, memory %q\n%s", what, controls(pid, "cpu.max", "cpu.cfs_quota_us"), controls(pid, "cpu.weight", "cpu.shares"), controls(pid, "memory.max", "memory.limit_in_bytes"), said)
			}
		}
	}
	one := func(got string, want ...string) bool { return got == want[0] || got == want[1] }
	eventually("bounded", func() bool {
		return one(controls(pid, "cpu.max", "cpu.cfs_quota_us"), "50000 100000", "50000") && one(controls(pid, "cpu.weight", "cpu.shares"), "50", "512") &&
			one(controls(pid, "memory.max", "memory.limit_in_bytes"), strconv.Itoa(4<<30), "") && one(controls(pid, "memory.high", "memory.soft_limit_in_bytes"), strconv.Itoa(1<<30), "")
	})
	c := f.connect(t)
	eventually("given more", func() bool {
		if _, err := c.Exec(t.Context(), "select sum(sqrt(g)) from generate_series(1, 1000000) g"); err != nil {
			t.Fatal(err)
		}
		return one(controls(pid, "cpu.weight", "cpu.shares"), "200", "2048")
	})
	if f.pid(t, 1) != pid {
		t.Error("it was restarted for it")
	}
}
