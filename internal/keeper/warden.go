package keeper

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tenfold/internal/lean"
)

// How a warden ends things.
const (
	stopPace    = 200 * time.Millisecond // a stop is repeated: one near an exec may be lost
	orphanGrace = 4 * time.Second        // for what ends by its death signal: PostgreSQL's fast shutdown
)

// Warden starts the keeper's command and stands above it: it passes a stop on, and when the keeper
// dies it clears away what the keeper left, first waiting a little for what ends by its death signal.
// It does not start the keeper again: the next `tenfold up` or the system's service manager does.
// It must be called on the main goroutine, locked to the main thread.
func Warden(ctx context.Context, argv []string, socket string) error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	chld := make(chan os.Signal, 1)
	signal.Notify(chld, syscall.SIGCHLD)
	defer signal.Stop(chld)
	standLast()
	pid, err := syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM},
	})
	if err != nil {
		return fmt.Errorf("start keeper: %w", err)
	}
	debug.SetGCPercent(20)
	lean.Shed() // it only waits from here on
	var tick <-chan time.Time
	done := ctx.Done()
	for {
		select {
		case <-chld:
		case <-done:
			done = nil
			tick = time.Tick(stopPace)
		case <-tick:
			c, cancel := context.WithTimeout(context.Background(), stopPace)
			(&Client{socket: socket}).Shutdown(c) // repeated until it is gone
			cancel()
		}
		if ws, gone := reapFor(pid); gone {
			clearAway()
			if ws.ExitStatus() != 0 {
				return fmt.Errorf("keeper ended: %s", describe(ws))
			}
			return nil
		}
	}
}

func describe(ws syscall.WaitStatus) string {
	if ws.Signaled() {
		return "signal " + ws.Signal().String()
	}
	return fmt.Sprintf("exit status %d", ws.ExitStatus())
}

// reapFor reaps what ended and says whether pid did.
func reapFor(pid int) (status syscall.WaitStatus, gone bool) {
	for {
		var ws syscall.WaitStatus
		p, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if err != nil || p <= 0 {
			return status, gone
		}
		if p == pid {
			status, gone = ws, true
		}
	}
}

// clearAway waits for what the keeper left to end by its death signal, and kills what does not.
// Orphans become this process's children, theirs follow.
func clearAway() {
	begun := time.Now()
	for {
		reapFor(0)
		left := descendants(os.Getpid())
		if len(left) == 0 {
			return
		}
		if time.Since(begun) > orphanGrace {
			kill(left, syscall.SIGKILL)
		}
		time.Sleep(fencePace)
	}
}
