package keeper_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tenfold/internal/isolate"
	"tenfold/internal/keeper"
	"tenfold/internal/keeper/keepertest"
)

// control is what a process's cgroup says, "" when it has none with that file.
func control(pid int, names ...string) string {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	for _, l := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		f := strings.SplitN(l, ":", 3)
		if len(f) != 3 {
			continue
		}
		for _, mount := range []string{f[1], "unified", ""} {
			for _, name := range names {
				for _, path := range []string{f[2], "/" + filepath.Base(f[2])} { // the second in a namespace
					if v, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", mount, path, name)); err == nil && strings.Contains(path, "tenfold-") {
						return strings.TrimSpace(string(v))
					}
				}
			}
		}
	}
	return ""
}

// Limits change while a unit runs, hold for what it forked before, through its restarts, and can be lifted.
func TestLimitsAreChangedWhileAUnitRuns(t *testing.T) {
	house := keepertest.Start(t)
	_, err := house.Start(t.Context(), keeper.Unit{ID: "limited", Argv: []string{"/bin/sh", "-c", "sleep 1000 & sleep 1000"}, Env: []string{"PATH=/usr/bin:/bin"}, Restart: keeper.RestartAlways})
	if err != nil {
		t.Fatal(err)
	}
	running := func(not int) int {
		for begun := time.Now(); ; <-time.After(time.Millisecond) {
			if all, err := house.List(t.Context(), "limited"); err != nil {
				t.Fatal(err)
			} else if all[0].Phase == keeper.Running && all[0].PID != 0 && all[0].PID != not {
				return all[0].PID
			}
			if time.Since(begun) > 20*time.Second {
				t.Fatal("it does not run")
			}
		}
	}
	pid := running(0)
	unenforced, err := house.Limit(t.Context(), "limited", keeper.Limits{Memory: 256 << 20, High: 128 << 20, CPU: 0.5, Weight: 2, PIDs: 50})
	if err != nil {
		t.Fatal(err)
	}
	if unenforced != "" {
		t.Skipf("not enforced here, and said so: %s", unenforced)
	}
	differs := func(pid int) (out []string) {
		for what, got := range map[string]string{
			"memory": control(pid, "memory.max", "memory.limit_in_bytes"), "high": control(pid, "memory.high", "memory.soft_limit_in_bytes"),
			"pids": control(pid, "pids.max"), "cpu": control(pid, "cpu.max", "cpu.cfs_quota_us"), "weight": control(pid, "cpu.weight", "cpu.shares"),
		} {
			want := map[string][]string{"memory": {"268435456"}, "high": {"134217728"}, "pids": {"50"}, "cpu": {"50000 100000", "50000"}, "weight": {"200", "2048"}}[what]
			if got != want[0] && got != want[len(want)-1] {
				out = append(out, fmt.Sprintf("%s of %d: %q, want %q", what, pid, got, want))
			}
		}
		return out
	}
	holds := func(pid int) {
		t.Helper()
		for _, d := range differs(pid) {
			t.Error(d)
		}
	}
	holds(pid)
	children, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/task/" + strconv.Itoa(pid) + "/children")
	for _, c := range strings.Fields(string(children)) {
		n, _ := strconv.Atoi(c)
		holds(n)
	}
	if err := house.Signal(t.Context(), "limited", 9); err != nil {
		t.Fatal(err)
	}
	pid = running(pid)
	eventually(t, "the limits hold for the next process", func() bool { return len(differs(pid)) == 0 }) // it begins meanwhile
	if unenforced, err := house.Limit(t.Context(), "limited", keeper.Limits{}); err != nil || unenforced != "" {
		t.Error(unenforced, err)
	}
	if got := control(pid, "cpu.max", "cpu.cfs_quota_us"); got != "max 100000" && got != "-1" {
		t.Errorf("lifted, cpu is %q", got)
	}
	if got := control(pid, "pids.max"); got != "max" {
		t.Errorf("lifted, pids is %q", got)
	}
	if _, err := house.Limit(t.Context(), "nobody", keeper.Limits{}); err == nil {
		t.Error("a unit that is not there was limited")
	}
}

// A unit with a box tells which rungs shut it in, keeps them through a re-exec of its keeper, and is bounded.
func TestAUnitWithABoxTellsItsRungs(t *testing.T) {
	house := keepertest.Start(t)
	u := sh("boxed", "exec sleep 1000")
	u.Box, u.PIDs = &isolate.Box{Home: filepath.Join(house.Dir, "home"), Hide: []string{house.Dir}}, 20
	u.Env, u.Dir = []string{"PATH=/usr/bin:/bin"}, "/"
	start(t, house, u)
	var s keeper.Status
	eventually(t, "rungs are told", func() bool {
		l, _ := house.List(t.Context(), "boxed")
		s = l[0]
		return len(s.Rungs) > 0
	})
	ladder, err := house.Ladder(t.Context())
	if err != nil || len(ladder) != len(s.Rungs) {
		t.Fatalf("%+v, %v; of the unit: %+v", ladder, err, s.Rungs)
	}
	for i, r := range s.Rungs {
		if r.Name != ladder[i].Name || r.OK && !ladder[i].OK || r.Found == "" {
			t.Errorf("rung %d is %+v, the machine's %+v", i, r, ladder[i])
		}
		if r.Name == "cgroup" && r.OK && strings.Contains(r.Found, "pids") && control(s.PID, "pids.max") != "20" {
			t.Errorf("processes are bounded to %q", control(s.PID, "pids.max"))
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := house.Reexec(t.Context(), exe); err != nil {
		t.Fatal(err)
	}
	if l, err := house.List(t.Context(), "boxed"); err != nil || len(l) != 1 || l[0].PID != s.PID || len(l[0].Rungs) != len(s.Rungs) {
		t.Fatalf("after a re-exec: %+v, %v", l, err)
	}
}

// Where limits cannot be enforced a strict unit does not run, and says why; where they can it does.
func TestAStrictUnitRunsOnlyWithItsLimits(t *testing.T) {
	house := keepertest.Start(t)
	u := sh("strict", "exit 3")
	u.Memory, u.CPU, u.Strict = 64<<20, 1, true
	start(t, house, u)
	s, err := house.Wait(t.Context(), "strict")
	if err != nil {
		t.Fatal(err)
	}
	switch e := s.LastExit; {
	case s.Unenforced == "" && (e.Code != 3 || e.Refused != ""):
		t.Errorf("limits hold, and it ended with %+v", e)
	case s.Unenforced != "" && (e.Code != 127 || !strings.Contains(e.Refused, "cannot be enforced: "+s.Unenforced)):
		t.Errorf("%s does not hold, and it ended with %+v", s.Unenforced, e)
	}
	if u := sh("no program", ""); true {
		u.Argv = []string{"/no/such/program"}
		start(t, house, u)
		if s, err := house.Wait(t.Context(), u.ID); err != nil || !strings.Contains(s.LastExit.Refused, "/no/such/program") || !strings.HasPrefix(s.LastExit.Describe(), "not started") {
			t.Errorf("%+v, %v", s.LastExit, err)
		}
	}
}

// What a process starts before it is in its group comes into it too, whatever it leaves: its parent, its session, or
// its environment.
func TestWhatAUnitStartsAtOnceIsBounded(t *testing.T) {
	house := keepertest.Start(t)
	u := sh("early", "setsid env -i /bin/sleep 98761 & (sleep 98762 &); (setsid sleep 98763 &); exec sleep 98764")
	u.Box, u.PIDs = &isolate.Box{Home: filepath.Join(house.Dir, "home"), Hide: []string{house.Dir}}, 20
	u.Env, u.Dir = []string{"PATH=/usr/bin:/bin"}, "/"
	start(t, house, u)
	var s keeper.Status
	eventually(t, "rungs are told", func() bool {
		l, _ := house.List(t.Context(), "early")
		s = l[0]
		return len(s.Rungs) > 0
	})
	bound := "" // of a machine that counts no processes
	for _, r := range s.Rungs {
		if r.Name == "cgroup" && r.OK && strings.Contains(r.Found, "pids") {
			bound = "20"
		}
	}
	found := 0
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		b, _ := os.ReadFile(path)
		if f := strings.Split(string(b), "\x00"); len(f) < 2 || !strings.HasPrefix(f[1], "9876") {
			continue
		}
		found++
		pid, err := strconv.Atoi(strings.Split(path, "/")[2])
		if err != nil {
			t.Fatal(err)
		}
		if got := control(pid, "pids.max"); got != bound {
			t.Errorf("%q is bounded to %q, not to %q", b, got, bound)
		}
	}
	if found != 4 {
		t.Errorf("%d of 4 processes run", found)
	}
}
