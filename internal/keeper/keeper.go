package keeper

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tenfold/internal/lean"
)

// Config is what Run needs.
type Config struct {
	Dir    string // the keeper's own folder: lock
	Socket string // unix socket to be commanded by, mode 0600
	Units  []Unit // started at once: the daemon
	// Check are the arguments with which a binary says its version: the dry run before Reexec.
	// Empty: "house", "check".
	Check []string
	Log   *slog.Logger
}

// Keeper is the running keeper. Its main goroutine, locked to the main thread, forks and reaps;
// each unit has one goroutine of its own.
type Keeper struct {
	cfg   Config
	house string // hash of the data directory, in the environment of all units

	onMain  chan func()
	pids    map[int]*proc  // owned by the main goroutine
	running sync.WaitGroup // units
	groups  groups
	lock    *os.File
	socket  *net.UnixListener

	mu         sync.Mutex
	generation int // counts re-execs
	units      map[string]*held
	watchers   map[*watcher]bool
	order      int64
	listeners  map[string]listener
	closing    bool

	shut     chan struct{}
	shutOnce sync.Once
}

type listener struct {
	fd            int
	network, addr string // as asked
	bound         string
}

// Run is the keeper's process. It returns when ctx is done or Shutdown was asked for, after every
// unit has ended in reverse order of its start. It must be called on the main goroutine, locked to
// the main thread, since death signals of children follow the thread that forked them.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("start keeper: %w", err)
	}
	if len(cfg.Check) == 0 {
		cfg.Check = []string{"house", "check"}
	}
	runtime.LockOSThread()
	standLast()
	debug.SetGCPercent(40) // it outlives everything and does little: memory matters more than speed
	// Go hands an ignored signal on to children, and one without a handler ends the keeper.
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(asked)
	k := &Keeper{
		cfg: cfg, house: hash(absolute(cfg.Dir)),
		onMain: make(chan func()), pids: map[int]*proc{}, units: map[string]*held{}, watchers: map[*watcher]bool{},
		listeners: map[string]listener{}, shut: make(chan struct{}),
	}
	if err := k.open(); err != nil {
		return err
	}
	defer k.lock.Close()
	serving := make(chan struct{})
	go func() { defer close(serving); k.serve(k.socket) }()
	for _, u := range cfg.Units {
		if _, err := k.start(u); err != nil {
			k.log("start unit", "unit", u.ID, "err", err)
		}
	}
	settled := time.AfterFunc(lean.Settled, lean.Shed)
	defer settled.Stop()
	k.main(ctx)
	k.socket.Close()
	<-serving
	os.Remove(cfg.Socket)
	return nil
}

// open takes the house over: from the binary that this process was before, or afresh.
func (k *Keeper) open() error {
	s, err := inherited()
	if err != nil {
		// What the earlier binary held is still marked, and swept.
		k.log("start afresh", "err", err)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	if s != nil {
		return k.adopt(s)
	}
	if k.lock, err = flock(filepath.Join(k.cfg.Dir, "lock")); err != nil {
		return err
	}
	k.sweep()
	os.Remove(k.cfg.Socket)
	if k.socket, err = listenPrivate(k.cfg.Socket); err != nil {
		k.lock.Close()
	}
	return err
}

func absolute(dir string) string {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return dir
	}
	return abs
}

// hash names a thing in marks and cgroups: 16 hexadecimal digits.
func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:8])
}

func flock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock data directory: another keeper holds %s", path)
	}
	return f, nil
}

func listenPrivate(path string) (*net.UnixListener, error) {
	old := syscall.Umask(0o177)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	syscall.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen for commands: %w", err)
	}
	return l, nil
}

// sweep ends what an earlier keeper of this house left: asked first, then killed.
func (k *Keeper) sweep() {
	groups := k.groups.left(k.house)
	defer groups.remove()
	groups.thaw() // what stands still hears nothing
	for i := range 500 {
		in := map[int]bool{}
		for _, pid := range groups.processes() {
			in[pid] = true
		}
		var left []int
		for _, p := range processes() {
			if p.pid != os.Getpid() && (in[p.pid] || marked(p.pid, markHouse+k.house)) {
				left = append(left, p.pid)
			}
		}
		if len(left) == 0 {
			return
		}
		switch {
		case i == 0:
			k.log("sweep what an earlier keeper left", "processes", left)
			kill(left, syscall.SIGINT)
		case i > 400:
			kill(left, syscall.SIGKILL)
		}
		time.Sleep(fencePace)
	}
}

// main forks and reaps until everything has ended. Only here are processes made and waited for, so
// that none is reaped before it is known.
func (k *Keeper) main(ctx context.Context) {
	chld := make(chan os.Signal, 1)
	signal.Notify(chld, syscall.SIGCHLD)
	defer signal.Stop(chld)
	ended := make(chan struct{})
	done := ctx.Done()
	shut := k.shut
	for {
		k.reap() // first: after a re-exec something may have ended unheard
		select {
		case f := <-k.onMain:
			f()
		case <-chld:
		case <-time.After(time.Second): // a lost SIGCHLD costs a second, never a unit
		case <-done:
			done, shut = nil, nil
			go func() { k.stopAll(); close(ended) }()
		case <-shut:
			done, shut = nil, nil
			go func() { k.stopAll(); close(ended) }()
		case <-ended:
			return
		}
	}
}

// do runs f on the main goroutine.
func (k *Keeper) do(f func() error) error {
	done := make(chan error, 1)
	k.onMain <- func() { done <- f() }
	return <-done
}

func (k *Keeper) reap() {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if p, ok := k.pids[pid]; ok {
			delete(k.pids, pid)
			p.ended = &ws
			p.reaped <- ws // buffered: a process ends once
		}
	}
}

// stopAll ends all units, the last started first, and waits for their goroutines.
func (k *Keeper) stopAll() {
	k.mu.Lock()
	k.closing = true
	var all []*held
	for _, h := range k.units {
		all = append(all, h)
	}
	k.mu.Unlock()
	slices.SortFunc(all, func(a, b *held) int { return int(b.start - a.start) })
	for _, h := range all {
		h.once.Do(func() { close(h.stop) })
		<-h.exited
	}
	k.running.Wait()
}

func (k *Keeper) log(msg string, args ...any) { k.cfg.Log.Info(msg, args...) }

func (k *Keeper) update(h *held, f func(*Status)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(&h.status)
	k.changed(h.unit.ID)
}

func newHeld(u Unit, start int64) *held {
	return &held{
		unit: u, start: start, status: Status{Unit: u, Phase: Running, Started: time.Now()},
		stop: make(chan struct{}), exited: make(chan struct{}),
	}
}

// start holds u, or returns the unit that has its id.
func (k *Keeper) start(u Unit) (Status, error) {
	if u.ID == "" || strings.Contains(u.ID, "..") || strings.ContainsAny(u.ID, "\x00\n") {
		return Status{}, fmt.Errorf("start unit: %q is no id", u.ID)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if h, ok := k.units[u.ID]; ok {
		return h.status, nil
	}
	if k.closing {
		return Status{}, errors.New("start unit: the keeper is ending")
	}
	k.order++
	h := newHeld(u, k.order)
	k.units[u.ID] = h
	k.changed(u.ID)
	k.running.Add(1)
	go k.live(h, nil)
	return h.status, nil
}

func (k *Keeper) get(id string) (*held, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h, ok := k.units[id]
	return h, ok
}

func (k *Keeper) list(prefix string) []Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []Status
	for id, h := range k.units {
		if strings.HasPrefix(id, prefix) {
			out = append(out, h.status)
		}
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.Unit.ID, b.Unit.ID) })
	return out
}

// listen holds a listening socket; the same name and address again is the same socket.
func (k *Keeper) listen(name, network, addr string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l, ok := k.listeners[name]; ok {
		if l.network == network && l.addr == addr {
			return l.bound, nil
		}
		return "", fmt.Errorf("listener %s is held on %s", name, l.addr)
	}
	nl, bound, err := openSocket(network, addr)
	if err != nil {
		return "", err
	}
	defer nl.Close()
	// A descriptor of our own: File() of the listener would clear the shared O_NONBLOCK for good.
	raw, err := nl.(syscall.Conn).SyscallConn()
	if err != nil {
		return "", err
	}
	fd := -1
	if cerr := raw.Control(func(f uintptr) { fd, err = unix.FcntlInt(f, unix.F_DUPFD_CLOEXEC, 100) }); cerr != nil || err != nil {
		return "", errors.Join(cerr, err)
	}
	if ul, ok := nl.(*net.UnixListener); ok {
		ul.SetUnlinkOnClose(false)
	}
	k.listeners[name] = listener{fd, network, addr, bound}
	return bound, nil
}

// openSocket listens on a stream's address, or binds a datagram's.
func openSocket(network, addr string) (c io.Closer, bound string, err error) {
	if strings.HasPrefix(network, "udp") {
		p, err := net.ListenPacket(network, addr)
		if err != nil {
			return nil, "", err
		}
		return p, p.LocalAddr().String(), nil
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		return nil, "", err
	}
	return l, l.Addr().String(), nil
}

func (k *Keeper) unlisten(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l, ok := k.listeners[name]; ok {
		syscall.Close(l.fd)
		delete(k.listeners, name)
	}
}

func (k *Keeper) listenerFD(name string) (int, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l, ok := k.listeners[name]
	return l.fd, ok
}
