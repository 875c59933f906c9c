package keeper_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"tenfold/internal/keeper"
	"tenfold/internal/keeper/keepertest"
)

// A unit that stands still goes on when it is let, and hears that it is to end although nobody let it.
func TestUnitsStandStill(t *testing.T) {
	house := keepertest.Start(t)
	s := start(t, house, keeper.Unit{ID: "still", Argv: []string{"/bin/sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.01; done"}, Env: []string{"PATH=/usr/bin:/bin"}, StopGrace: 20 * time.Second})
	for begun := time.Now(); s.PID == 0; <-time.After(time.Millisecond) { // its process may be yet to come
		if all, err := house.List(t.Context(), "still"); err == nil && len(all) == 1 {
			s = all[0]
		}
		if time.Since(begun) > 20*time.Second {
			t.Fatal("it does not run")
		}
	}
	thaw, err := house.Freeze(t.Context(), "still")
	if err != nil {
		t.Skip(err)
	}
	until := func(want string) {
		t.Helper()
		for begun := time.Now(); !strings.Contains(control(s.PID, "cgroup.events"), want); <-time.After(time.Millisecond) {
			if time.Since(begun) > 20*time.Second {
				t.Fatalf("not %q: %q", want, control(s.PID, "cgroup.events"))
			}
		}
	}
	until("frozen 1")
	if err := thaw(); err != nil {
		t.Fatal(err)
	}
	until("frozen 0")
	if _, err := house.Freeze(t.Context(), "still"); err != nil {
		t.Fatal(err)
	}
	until("frozen 1")
	begun := time.Now()
	if err := house.Stop(t.Context(), "still"); err != nil {
		t.Fatal(err)
	}
	all, err := house.List(t.Context(), "still")
	if err != nil || len(all) != 1 || all[0].LastExit == nil || all[0].LastExit.Code != 7 || all[0].LastExit.Signal == syscall.SIGKILL {
		t.Errorf("after %s: %+v, %v", time.Since(begun), all[0].LastExit, err)
	}
	for _, id := range []string{"still", "nobody"} {
		if _, err := house.Freeze(t.Context(), id); err == nil {
			t.Errorf("%s stands still", id)
		}
	}
}
