package keeper_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tenfold/internal/keeper"
	"tenfold/internal/keeper/keepertest"
	"tenfold/internal/tasklog"
)

func TestMain(m *testing.M) {
	keepertest.Main(m, map[string]func(){
		"hungry": func() { // takes memory until it is stopped, at most 1 GiB
			var all [][]byte
			for range 128 {
				b := make([]byte, 8<<20)
				for i := range b {
					b[i] = 1
				}
				all = append(all, b)
			}
			fmt.Println(len(all))
		},
		"serve": func() { // accepts on the passed listener and says its pid
			l, err := net.FileListener(os.NewFile(3, "l"))
			if err != nil {
				panic(err)
			}
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintln(c, os.Getpid())
				c.Close()
			}
		},
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for begun := time.Now(); !ok(); {
		if time.Since(begun) > 15*time.Second {
			t.Fatalf("not within 15 s: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func sh(id, script string) keeper.Unit {
	return keeper.Unit{ID: id, Argv: []string{"/bin/sh", "-c", script}, Env: os.Environ(), StopGrace: time.Second}
}

func start(t *testing.T, h *keepertest.House, u keeper.Unit) keeper.Status {
	t.Helper()
	s, err := h.Start(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// alive says whether a process runs; a zombie does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

func readPID(t *testing.T, path string) (pid int) {
	t.Helper()
	eventually(t, path, func() bool {
		b, _ := os.ReadFile(path)
		pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
		return pid > 0
	})
	return pid
}

func TestExitStatusIsKeptUntilRemoved(t *testing.T) {
	h := keepertest.Start(t)
	start(t, h, sh("a", "exit 7"))
	s, err := h.Wait(t.Context(), "a")
	if err != nil || s.Phase != keeper.Exited || s.LastExit == nil || s.LastExit.Code != 7 {
		t.Fatalf("%+v %v", s, err)
	}
	if again := start(t, h, sh("a", "exit 8")); again.LastExit == nil || again.LastExit.Code != 7 {
		t.Fatalf("a second start of the same id made something new: %+v", again)
	}
	if err := h.Remove(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if l, _ := h.List(t.Context(), ""); len(l) != 0 {
		t.Fatalf("left: %+v", l)
	}
	start(t, h, keeper.Unit{ID: "b", Argv: []string{"/no/such/program"}})
	if s, err := h.Wait(t.Context(), "b"); err != nil || s.LastExit.Code != 127 {
		t.Fatalf("%+v %v", s, err)
	}
}

// A unit has its score from its first moment on, and so has what it starts at once; the keeper stands last, where it may.
func TestWhomTheKernelEndsFirst(t *testing.T) {
	h := keepertest.Start(t)
	score := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	for _, n := range []int{keeper.AppOOMScore, 300} {
		u := sh(fmt.Sprint("u", n), "cat /proc/self/oom_score_adj & cat /proc/self/oom_score_adj; wait")
		u.OOMScore, u.Log = n, filepath.Join(h.Dir, fmt.Sprint(n, ".log"))
		start(t, h, u)
		if s, err := h.Wait(t.Context(), u.ID); err != nil || s.LastExit.Code != 0 {
			t.Fatalf("%+v %v", s, err)
		}
		lines, err := tasklog.Read(u.Log, tasklog.Options{})
		if err != nil || len(lines) != 2 || lines[0].Text != fmt.Sprint(n) || lines[1].Text != fmt.Sprint(n) {
			t.Errorf("%+v %v", lines, err)
		}
	}
	want := score("/proc/self/oom_score_adj")
	if exec.Command("/bin/sh", "-c", "echo -900 >/proc/self/oom_score_adj").Run() == nil { // as root, mostly
		want = "-900"
	}
	if got := score(fmt.Sprintf("/proc/%d/oom_score_adj", h.Warden.Pid)); got != want {
		t.Errorf("the warden is at %s, want %s", got, want)
	}
	u := sh("plain", "cat /proc/self/oom_score_adj")
	u.Log = filepath.Join(h.Dir, "plain.log")
	start(t, h, u)
	if _, err := h.Wait(t.Context(), u.ID); err != nil {
		t.Fatal(err)
	}
	if lines, err := tasklog.Read(u.Log, tasklog.Options{}); err != nil || len(lines) != 1 || lines[0].Text == "-900" {
		t.Errorf("one that has none stands as last as the keeper: %+v %v", lines, err)
	}
}

func TestAUnitMayBeRemovedWhileItIsWaitedFor(t *testing.T) {
	h := keepertest.Start(t)
	for i := range 30 {
		id := fmt.Sprint("w/", i)
		start(t, h, sh(id, "sleep 60"))
		ended := make(chan error, 1)
		go func() {
			st, err := h.Wait(t.Context(), id)
			if err == nil && (st.Unit.ID != id || st.Phase != keeper.Exited) {
				err = fmt.Errorf("%s is %s", st.Unit.ID, st.Phase)
			}
			ended <- err
		}()
		if err := h.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil && !strings.Contains(err.Error(), "no unit") {
			t.Fatal(err)
		}
	}
}

func TestStopEndsGrandchildrenOfOtherSessionsToo(t *testing.T) {
	h := keepertest.Start(t)
	file := filepath.Join(h.Dir, "pid")
	u := sh("a", "setsid sh -c 'trap \"\" TERM; echo $$ >"+file+"; while :; do sleep 0.1; done' & exec sleep 1000")
	start(t, h, u)
	grandchild := readPID(t, file)
	if err := h.Stop(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if alive(grandchild) {
		t.Fatal("the grandchild lives on")
	}
}

// Two houses on one machine have units of the same id: daemon and door at least.
func TestHousesDoNotEndEachOthersUnits(t *testing.T) {
	a, b := keepertest.Start(t), keepertest.Start(t)
	file := filepath.Join(b.Dir, "pid")
	start(t, a, sh("house/door", "exec sleep 1000"))
	start(t, b, sh("house/door", "setsid sh -c 'echo $$ >"+file+"; exec sleep 1000' & exec sleep 1000"))
	grandchild := readPID(t, file)
	if err := a.Stop(t.Context(), "house/door"); err != nil {
		t.Fatal(err)
	}
	all, err := b.List(t.Context(), "house/door")
	if err != nil || len(all) != 1 || all[0].Phase != keeper.Running || !alive(grandchild) {
		t.Fatalf("%+v, %v, grandchild lives: %t", all, err, alive(grandchild))
	}
}

func TestRestartsWithBackoffOnceFenced(t *testing.T) {
	h := keepertest.Start(t)
	u := sh("a", "exit 1")
	u.Restart = keeper.RestartAlways
	start(t, h, u)
	eventually(t, "three restarts", func() bool {
		l, _ := h.List(t.Context(), "a")
		return len(l) == 1 && l[0].Restarts >= 3
	})
	if err := h.Stop(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
}

func TestOutputIsStoredWhole(t *testing.T) {
	h := keepertest.Start(t)
	u := sh("a", "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo oops >&2; printf end")
	u.Log, u.LogMax, u.LogKeep = filepath.Join(h.Dir, "log", "a.log"), 200_000, 20
	start(t, h, u)
	if _, err := h.Wait(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	lines, err := tasklog.Read(u.Log, tasklog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if last := lines[len(lines)-1].Text; last != "oops" && last != "end" {
		t.Errorf("the last line is %q", last)
	}
	n := 0
	for _, l := range lines {
		if strings.HasPrefix(l.Text, "line ") {
			if l.Text != fmt.Sprintf("line %d", n) {
				t.Fatalf("line %d is %q", n, l.Text)
			}
			n++
		}
	}
	if n != 20000 || len(lines) != 20002 {
		t.Fatalf("%d lines, %d in all", n, len(lines))
	}
}

func TestListenerStaysWhileItsUnitIsReplaced(t *testing.T) {
	h := keepertest.Start(t)
	addr, err := h.Listen(t.Context(), "door", "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := h.Listen(t.Context(), "door", "tcp", "127.0.0.1:0"); err != nil || again != addr {
		t.Fatal(again, err)
	}
	exe, _ := os.Executable()
	u := keeper.Unit{ID: "door", Argv: []string{exe}, Env: keepertest.Env("serve"), Listeners: []string{"door"}, Restart: keeper.RestartAlways}
	start(t, h, u)
	ask := func() int {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		defer c.Close()
		var pid int
		fmt.Fscan(c, &pid)
		return pid
	}
	first := ask()
	for range 5 {
		syscall.Kill(first, syscall.SIGKILL)
		eventually(t, "another process answers", func() bool { p := ask(); return p > 0 && p != first })
		first = ask()
	}
}

func TestLargeEnvironment(t *testing.T) {
	h := keepertest.Start(t)
	u := sh("a", `[ ${#BIG} = 100000 ]`)
	u.Env = append(u.Env, "BIG="+strings.Repeat("x", 100_000), "BIG2="+strings.Repeat("y", 100_000))
	start(t, h, u)
	if s, err := h.Wait(t.Context(), "a"); err != nil || s.LastExit.Code != 0 {
		t.Fatalf("%+v %v", s.LastExit, err)
	}
}

func TestNothingOutlivesAKilledKeeper(t *testing.T) {
	h := keepertest.Start(t)
	file := filepath.Join(h.Dir, "pid")
	start(t, h, sh("a", "setsid sh -c 'echo $$ >"+file+"; exec sleep 1000' & exec sleep 1001"))
	grandchild := readPID(t, file)
	l, err := h.List(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	syscall.Kill(keeperPID(t, h.Warden.Pid), syscall.SIGKILL)
	h.Gone(t)
	for _, pid := range []int{l[0].PID, grandchild} {
		if alive(pid) {
			t.Errorf("process %d lives on", pid)
		}
	}
	h.Again(t)
}

func keeperPID(t *testing.T, warden int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", warden, warden))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.Fields(string(b))[0])
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestSecondKeeperIsRefused(t *testing.T) {
	h := keepertest.Start(t)
	err := keeper.Run(context.Background(), keeper.Config{Dir: h.Dir, Socket: filepath.Join(h.Dir, "other.sock")})
	if err == nil || !strings.Contains(err.Error(), "another keeper holds") {
		t.Fatal(err)
	}
}
