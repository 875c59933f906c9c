package keeper_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tenfold/internal/keeper"
	"tenfold/internal/keeper/keepertest"
	"tenfold/internal/tasklog"
)

func reexec(t *testing.T, h *keepertest.House) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Reexec(t.Context(), exe); err != nil {
		t.Fatal(err)
	}
}

func TestReexecLosesNoLineNoStatusNoListener(t *testing.T) {
	h := keepertest.Start(t)
	pid := keeperPID(t, h.Warden.Pid)
	addr, err := h.Listen(t.Context(), "door", "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	goOn := filepath.Join(h.Dir, "go")
	loud := sh("loud", "i=0; while [ $i -lt 30000 ]; do echo line $i; i=$((i+1)); done; while [ ! -e "+goOn+" ]; do printf x; sleep 0.01; done; echo; exit 5")
	loud.Log, loud.LogMax, loud.LogKeep = filepath.Join(h.Dir, "loud.log"), 100_000, 50
	start(t, h, loud)
	start(t, h, sh("ended", "exit 7"))
	if _, err := h.Wait(t.Context(), "ended"); err != nil {
		t.Fatal(err)
	}
	start(t, h, sh("brief", "sleep 0.3; exit 9"))
	waited := make(chan keeper.Status, 1) // across all the re-execs
	go func() {
		s, _ := h.Wait(context.Background(), "loud")
		waited <- s
	}()
	for range 5 {
		reexec(t, h)
	}
	if now := keeperPID(t, h.Warden.Pid); now != pid {
		t.Fatalf("keeper %d became %d", pid, now)
	}
	if err := os.WriteFile(goOn, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s := <-waited; s.LastExit == nil || s.LastExit.Code != 5 || s.Restarts != 0 {
		t.Fatalf("loud: %+v", s)
	}
	for id, code := range map[string]int{"ended": 7, "brief": 9} {
		if s, err := h.Wait(t.Context(), id); err != nil || s.LastExit == nil || s.LastExit.Code != code {
			t.Fatalf("%s: %+v %v", id, s, err)
		}
	}
	if again, err := h.Listen(t.Context(), "door", "tcp", "127.0.0.1:0"); err != nil || again != addr {
		t.Fatal(again, err)
	}
	lines, err := tasklog.Read(loud.Log, tasklog.Options{})
	if err != nil || len(lines) != 30001 {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	for i, l := range lines[:30000] {
		if l.Text != fmt.Sprintf("line %d", i) {
			t.Fatalf("line %d is %q", i, l.Text)
		}
	}
	if last := lines[30000].Text; strings.Trim(last, "x") != "" {
		t.Fatalf("the unfinished line became %q", last)
	}
}

func TestReexecGoesOnWithAStopAndWithARestart(t *testing.T) {
	h := keepertest.Start(t)
	told := filepath.Join(h.Dir, "told")
	ready := filepath.Join(h.Dir, "pid")
	u := sh("slow", "trap 'echo x >>"+told+"' TERM; echo $$ >"+ready+"; while :; do sleep 0.05; done")
	start(t, h, u)
	readPID(t, ready)
	stopped := make(chan error, 1)
	go func() { stopped <- h.Stop(t.Context(), "slow") }()
	eventually(t, "it is told to stop", func() bool { _, err := os.Stat(told); return err == nil })
	again := sh("again", "exit 1")
	again.Restart = keeper.RestartAlways
	start(t, h, again)
	reexec(t, h)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(told); string(b) != "x\n" {
		t.Errorf("told to stop %d times", strings.Count(string(b), "x"))
	}
	l, err := h.List(t.Context(), "again")
	if err != nil || len(l) != 1 {
		t.Fatal(l, err)
	}
	before := l[0].Restarts
	eventually(t, "one more restart", func() bool {
		l, _ := h.List(t.Context(), "again")
		return len(l) == 1 && l[0].Restarts > before
	})
}

func TestReexecRefusesWhatIsNoKeeper(t *testing.T) {
	h := keepertest.Start(t)
	start(t, h, sh("a", "exec sleep 1000"))
	plain := filepath.Join(h.Dir, "plain")
	if err := os.WriteFile(plain, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"/no/such/binary", plain, "/bin/false", "/bin/true"} {
		if err := h.Reexec(t.Context(), bad); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if l, err := h.List(t.Context(), "a"); err != nil || len(l) != 1 || l[0].Phase != keeper.Running || !alive(l[0].PID) {
		t.Fatalf("%+v %v", l, err)
	}
}

func TestSubscribersSeeEveryUnitAndItsEnd(t *testing.T) {
	h := keepertest.Start(t)
	start(t, h, sh("early", "exec sleep 1000"))
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	events, err := h.Subscribe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	until := func(what string, ok func(keeper.Event) bool) {
		t.Helper()
		for e := range events {
			if ok(e) {
				return
			}
		}
		t.Fatal("not told of", what)
	}
	until("a unit from before", func(e keeper.Event) bool { return e.Status.Unit.ID == "early" })
	start(t, h, sh("late", "exit 3"))
	ended := func(e keeper.Event) bool {
		return e.Status.Unit.ID == "late" && e.Status.Phase == keeper.Exited && e.Status.LastExit.Code == 3
	}
	until("an end", ended)
	reexec(t, h)
	if err := h.Remove(t.Context(), "late"); err != nil {
		t.Fatal(err)
	}
	if err := h.Stop(t.Context(), "early"); err != nil {
		t.Fatal(err)
	}
	until("an end after a re-exec", func(e keeper.Event) bool {
		return e.Status.Unit.ID == "early" && e.Status.Phase == keeper.Exited
	})
}

func TestStopFindsWhoClearedItsEnvironmentAndLeft(t *testing.T) {
	h := keepertest.Start(t)
	file := filepath.Join(h.Dir, "pid")
	u := sh("a", "(env -i setsid sh -c 'trap \"\" TERM; echo $$ >"+file+"; while :; do /bin/sleep 0.1; done' &) ; exec sleep 1000")
	start(t, h, u)
	orphan := readPID(t, file)
	if l, err := h.List(t.Context(), "a"); err != nil || len(l) != 1 {
		t.Fatal(l, err)
	} else if !inGroup(orphan) {
		t.Skip("no cgroup can be written here; without one such a process is not found")
	}
	if err := h.Stop(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if alive(orphan) {
		t.Fatal("the orphan lives on")
	}
}

func inGroup(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	return err == nil && strings.Contains(string(b), "/tenfold-")
}

func TestMemoryLimitIsEnforcedOrSaidNotToBe(t *testing.T) {
	h := keepertest.Start(t)
	exe, _ := os.Executable()
	u := keeper.Unit{ID: "hungry", Argv: []string{exe}, Env: keepertest.Env("hungry"), Memory: 64 << 20, CPU: 0.5}
	start(t, h, u)
	s, err := h.Wait(t.Context(), "hungry")
	if err != nil {
		t.Fatal(err)
	}
	if s.Unenforced != "" {
		t.Skip("not enforced here: " + s.Unenforced)
	}
	if !s.LastExit.OOM || s.LastExit.Signal != syscall.SIGKILL {
		t.Fatalf("%+v", s.LastExit)
	}
}

func TestSweepsWhatAnEarlierHouseLeft(t *testing.T) {
	h := keepertest.Start(t)
	file := filepath.Join(h.Dir, "pid")
	start(t, h, sh("a", "setsid sh -c 'echo $$ >"+file+"; exec sleep 1000'; true")) // in front: it heeds SIGINT
	orphan := readPID(t, file)
	k := keeperPID(t, h.Warden.Pid)
	h.Warden.Kill() // both, so that nobody clears away
	syscall.Kill(k, syscall.SIGKILL)
	h.Gone(t)
	eventually(t, "the keeper has ended, which holds the lock", func() bool { return !alive(k) })
	h.Again(t)
	if alive(orphan) {
		t.Fatal("it lives on beside the new keeper")
	}
}

func TestWardenAndKeeperStaySmall(t *testing.T) {
	if race {
		t.Skip("the race detector takes memory of its own")
	}
	h := keepertest.Start(t)
	for i := range 20 {
		start(t, h, sh(fmt.Sprintf("a%d", i), "exec sleep 1000"))
	}
	sum := 0
	for _, pid := range []int{h.Warden.Pid, keeperPID(t, h.Warden.Pid)} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			t.Skip(err)
		}
		_, after, _ := strings.Cut(string(b), "\nPss:")
		var kb int
		fmt.Sscan(after, &kb)
		t.Logf("process %d: %d KiB", pid, kb)
		sum += kb
	}
	if sum > 12<<10 {
		t.Errorf("%d KiB together", sum)
	}
}
