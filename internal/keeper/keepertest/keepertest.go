// Package keepertest gives a test a real keeper with its warden: the test's own binary, executed
// again in those modes. Call Main from TestMain, then Start in a test.
package keepertest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"tenfold/internal/keeper"
)

const mode, dirVar = "KEEPERTEST_MODE", "KEEPERTEST_DIR"

func init() { runtime.LockOSThread() } // the main goroutine stays on the main thread

// Main runs a package's tests, or is the warden or the keeper of one. extra are further modes that
// a package's tests run their binary in, by the value of KEEPERTEST_MODE.
func Main(m *testing.M, extra map[string]func()) {
	which := os.Getenv(mode)
	if f, ok := extra[which]; ok {
		os.Unsetenv(mode)
		f()
		os.Exit(0)
	}
	if which == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	dir := os.Getenv(dirVar)
	socket := filepath.Join(dir, "k.sock")
	var err error
	switch which {
	case "warden":
		os.Setenv(mode, "keeper")
		err = keeper.Warden(ctx, []string{self()}, socket)
	case "keeper":
		if len(os.Args) > 1 && os.Args[1] == "check" {
			fmt.Println("test")
			os.Exit(0)
		}
		err = keeper.Run(ctx, keeper.Config{Dir: dir, Socket: socket, Check: []string{"check"}})
	default:
		err = fmt.Errorf("no mode %q", which)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func self() string {
	p, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return p
}

// Env is the environment that makes this binary run as an extra mode of Main.
func Env(extra string) []string { return append(os.Environ(), mode+"="+extra) }

// House is a running warden with its keeper.
type House struct {
	*keeper.Client
	Dir    string
	Warden *os.Process
	done   chan error
}

// Start starts a warden and a keeper in a folder of their own and ends both with the test.
func Start(t testing.TB) *House {
	t.Helper()
	dir, err := os.MkdirTemp("", "tf") // short: a socket lies in it
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o755) // engines run as another user
	h := &House{Dir: dir}
	h.boot(t)
	t.Cleanup(func() {
		h.End(t)
		os.RemoveAll(dir)
	})
	return h
}

func (h *House) boot(t testing.TB) {
	t.Helper()
	cmd := exec.Command(self())
	cmd.Env = append(os.Environ(), mode+"=warden", dirVar+"="+h.Dir, "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.Warden, h.done = cmd.Process, make(chan error, 1)
	go func() { h.done <- cmd.Wait() }()
	for begun := time.Now(); ; {
		c, err := keeper.Dial(t.Context(), filepath.Join(h.Dir, "k.sock"))
		if err == nil {
			h.Client = c
			return
		}
		if time.Since(begun) > 30*time.Second {
			t.Fatalf("no keeper: %v", err)
		}
		runtime.Gosched()
	}
}

// Again starts a new warden and keeper in the same folder, after End or a death.
func (h *House) Again(t testing.TB) { h.boot(t) }

// End stops the warden and waits until it has gone.
func (h *House) End(t testing.TB) {
	h.Warden.Signal(syscall.SIGTERM)
	h.Gone(t)
}

// Gone waits until the warden has ended.
func (h *House) Gone(t testing.TB) {
	select {
	case err := <-h.done:
		h.done <- err
	case <-time.After(30 * time.Second):
		t.Error("the warden does not end")
		h.Warden.Kill()
	}
}
