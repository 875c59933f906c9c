package function

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"tenfold/internal/keeper"
)

// stands waits until a function's environments stand still, and says whether the machine can do that.
func stands(t testing.TB, b *bench, name string) bool {
	t.Helper()
	f, err := b.find(t.Context(), id(name))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; <-time.After(5 * time.Millisecond) {
		f.mu.Lock()
		envs := f.envs
		f.mu.Unlock()
		n := 0
		for _, e := range envs {
			e.frost.mu.Lock()
			is, off := e.frost.out != nil, e.frost.off
			e.frost.mu.Unlock()
			if off {
				return false
			}
			if is {
				n++
			}
		}
		if n > 0 && n == len(envs) {
			return true
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d stand still", n, len(envs))
		}
	}
}

// frozen is what the kernel says of a process' group.
func frozen(t testing.TB, pid int) bool {
	t.Helper()
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(groups)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
				if b, err := os.ReadFile(mount + path + "/cgroup.events"); err == nil {
					return strings.Contains(string(b), "frozen 1")
				}
			}
		}
	}
	t.Skip("the group of a process is not found")
	return false
}

// An idle environment stands still; it works when it is called, however often, and ends when it is to.
func TestIdleEnvironmentsStandStill(t *testing.T) {
	b := start(t)
	b.cfg.Freezer = b.house.Client
	b.goal("echo", "echo", nil)
	who := func() (pid int) {
		said, _, err := b.call("echo", order{Do: "who"})
		var x struct{ PID int }
		if err != nil || json.Unmarshal([]byte(said), &x) != nil || x.PID == 0 {
			t.Fatalf("%q, %v", said, err)
		}
		return x.PID
	}
	pid := who()
	if !stands(t, b, "echo") {
		t.Skip("this machine has no freezer")
	}
	for end := time.Now().Add(20 * time.Second); !frozen(t, pid); <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the kernel does not have it stand still")
		}
	}
	for range 3 { // the same process goes on
		if again := who(); again != pid {
			t.Errorf("another process: %d, %d before", again, pid)
		}
		stands(t, b, "echo")
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if said, _, err := b.call("echo", order{Text: "hello"}); err != nil || !strings.Contains(said, "hello") {
				t.Errorf("%q, %v", said, err)
			}
		})
	}
	wg.Wait()
	stands(t, b, "echo")
	b.goal("echo", "echo", func(g *Goal) { g.Version = "2" }) // the old ones end, standing still as they are
	if who() == pid {
		t.Error("the version before")
	}
	for end := time.Now().Add(20 * time.Second); ; <-time.After(5 * time.Millisecond) {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("one that stands still does not end")
		}
	}
}

// A machine without a freezer is asked once for each environment.
func TestNoFreezer(t *testing.T) {
	b := start(t)
	x := &broken{}
	b.cfg.Freezer = x
	b.goal("echo", "echo", nil)
	for range 3 {
		if _, _, err := b.call("echo", order{}); err != nil {
			t.Fatal(err)
		}
		if stands(t, b, "echo") {
			t.Error("it stands still")
		}
	}
	if x.n != 1 {
		t.Errorf("asked %d times", x.n)
	}
}

type broken struct{ n int }

func (b *broken) Freeze(context.Context, string) (func() error, error) {
	b.n++
	return nil, fmt.Errorf("none here")
}

var _ Freezer = (*keeper.Client)(nil)

// What standing still costs a call: the kernel lets go.
func BenchmarkCallOfOneThatStandsStill(b *testing.B) {
	x := start(b)
	x.cfg.Freezer = x.house.Client
	x.goal("echo", "echo", nil)
	if _, _, err := x.call("echo", order{}); err != nil {
		b.Fatal(err)
	}
	if !stands(b, x, "echo") {
		b.Skip("this machine has no freezer")
	}
	f, err := x.find(b.Context(), id("echo"))
	if err != nil {
		b.Fatal(err)
	}
	e := f.envs[0]
	var thaw time.Duration
	for b.Loop() {
		e.frost.mu.Lock()
		if e.frost.out, err = x.house.Freeze(b.Context(), e.unit); err != nil {
			b.Fatal(err)
		}
		e.frost.mu.Unlock()
		began := time.Now()
		e.thaw()
		thaw += time.Since(began)
	}
	b.ReportMetric(float64(thaw.Microseconds())/float64(b.N), "µs-thaw/op")
}
