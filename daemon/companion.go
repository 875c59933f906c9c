package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"tenfold/internal/atomicfile"
	"tenfold/internal/freeport"
	"tenfold/internal/keeper"
	"tenfold/tier/edge/wire"
)

const (
	// companionWait is how long a process that was just started may take to answer.
	companionWait, companionAgain = 10 * time.Second, 10 * time.Millisecond
	// companionDrain bounds how long requests may go on in a process that is to end.
	companionDrain = 30 * time.Second
)

// companion is a process of the house beside the daemon, of which there is one at a time: it alone owns what
// it keeps. Its listener is the keeper's, so that clients of one that ends wait for the next.
type companion struct {
	h               *house
	mode            Mode
	name            string // of its listener, its log and its socket
	binary, version string
	addr            string // where it listens

	mu      sync.Mutex
	started bool // by this daemon
}

// newCompanion opens the listener. Its address is kept in dir: processes are told of it when they start.
func newCompanion(ctx context.Context, h *house, mode Mode, name, dir, binary, version string) (*companion, error) {
	c := &companion{h: h, mode: mode, name: name, binary: binary, version: version}
	var err error
	if c.addr, err = companionAddress(dir); err == nil {
		if _, err = h.keeper.Listen(ctx, name, "tcp", c.addr); err == nil {
			return c, nil
		}
		h.log.Warn("a process of the house gets another address", "process", name, "was", c.addr, "err", err) // taken while the house was down
	}
	port, err := freeport.Pick()
	if err != nil {
		return nil, fmt.Errorf("listen for %s: %w", name, err)
	}
	// The keeper knows a listener by the address that was asked for: it must be the same the next time.
	c.addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	if err := atomicfile.Write(filepath.Join(dir, addressFile), []byte(c.addr+"\n"), 0o640); err != nil {
		return nil, err
	}
	if _, err := h.keeper.Listen(ctx, name, "tcp", c.addr); err != nil {
		return nil, fmt.Errorf("listen for %s: %w", name, err)
	}
	return c, nil
}

const addressFile = "address"

// companionAddress reads where a companion listens: loopback and a port.
func companionAddress(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, addressFile))
	if err != nil {
		return "", err
	}
	addr, err := netip.ParseAddrPort(strings.TrimSpace(string(b)))
	if err != nil || addr.Port() == 0 || !addr.Addr().IsLoopback() {
		return "", fmt.Errorf("%s holds %q, which is no address of loopback", filepath.Join(dir, addressFile), b)
	}
	return addr.String(), nil
}

// serving has the process run and calls ask until it answers.
func (c *companion) serving(ctx context.Context, ask func(context.Context) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.started {
		unit, _, err := turn(ctx, c.h.keeper, c.prefix(), c.version)
		if err != nil {
			return err
		}
		if err := c.end(ctx, unit); err != nil {
			return err
		}
		if _, err := c.h.keeper.Start(ctx, keeper.Unit{
			ID: unit, Argv: Command(c.binary, c.mode, c.h.layout.Dir), Env: os.Environ(), Dir: "/",
			Listeners: []string{c.name}, Restart: keeper.RestartAlways, Log: c.h.layout.Log(c.name), OOMScore: -500, StopGrace: companionDrain + 5*time.Second,
		}); err != nil {
			return fmt.Errorf("start %s: %w", c.name, err)
		}
		c.started = true
	}
	limit, cancel := context.WithTimeout(ctx, companionWait)
	defer cancel()
	for {
		err := ask(limit)
		if err == nil || limit.Err() != nil {
			return err
		}
		select {
		case <-limit.Done():
			return err
		case <-time.After(companionAgain):
		}
	}
}

// idle ends the process: there is nothing that it could serve.
func (c *companion) idle(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.end(ctx, "")
}

func (c *companion) prefix() string { return "house/" + c.name + "/" }

// end ends the processes but the one named.
func (c *companion) end(ctx context.Context, but string) error {
	units, err := c.h.keeper.List(ctx, c.prefix())
	if err != nil {
		return err
	}
	for _, u := range units {
		if u.Unit.ID != but {
			if err := c.h.keeper.Remove(ctx, u.Unit.ID); err != nil {
				return err
			}
		}
	}
	c.started = c.started && but != ""
	return nil
}

// companionWork is what a companion does.
type companionWork struct {
	public, private http.Handler
	// run blocks until its context is done; it calls ready once requests may come.
	run func(ctx context.Context, ready func()) error
	// leave has requests that only wait be answered, since the process is to end; nil: there are none.
	leave func()
}

// runCompanion is such a process: it serves clients on the keeper's listener and the daemon on its socket.
func runCompanion(ctx context.Context, data, name string, make func(Layout, *slog.Logger) (companionWork, error)) error {
	l, _, err := ground(data)
	if err != nil {
		return err
	}
	nl, err := net.FileListener(os.NewFile(3, name))
	if err != nil {
		return fmt.Errorf("take over listener: %w", err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	work, err := make(l, log)
	if err != nil {
		return err
	}
	socket := l.Socket(name)
	os.Remove(socket)
	cl, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return err
	}
	// As the front door's: what a request costs beside the store is much of what it costs.
	public, err := wire.New(wire.Config{Handler: work.public, Log: log, DrainGrace: time.Millisecond})
	if err != nil {
		return err
	}
	private := &http.Server{Handler: work.private, ReadHeaderTimeout: 10 * time.Second}
	var wg sync.WaitGroup
	life, die := context.WithCancel(context.WithoutCancel(ctx))
	defer die()
	wg.Go(func() {
		// Requests that came are finished first; those that come wait in the listener for the next process.
		select {
		case <-ctx.Done():
		case <-life.Done():
		}
		if work.leave != nil {
			work.leave()
		}
		limit, cancel := context.WithTimeout(context.Background(), companionDrain)
		defer cancel()
		public.Drain(limit)
		private.Shutdown(limit) // who was promised something by it has it
		die()
	})
	err = work.run(life, func() {
		wg.Go(func() { public.Serve(nl) })
		wg.Go(func() { private.Serve(cl) })
	})
	die()
	public.Close()
	private.Close()
	wg.Wait()
	return err
}
