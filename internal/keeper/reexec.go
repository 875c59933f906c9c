package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// An upgrade in place: the keeper becomes another binary by exec, so that its children stay its own.
//
// The main goroutine does it, the one that forks and reaps: no process is made or waited for
// meanwhile. It takes the keeper's lock for good, which halts every unit's goroutine at its next
// change, and parks the readers of output, which hand on what they read of an unfinished line.
// Everything else is plain data, which the new binary reads from a memfd; the descriptors stay open
// under their numbers. A unit's goroutine begins again at what its process was about; every one of
// these beginnings may be repeated.

// stateVar tells a keeper's process that it is another one's continuation: the descriptor of the state.
const stateVar = "TENFOLD_KEEPER_STATE="

// stateVersion grows when an older state would be misread. A field may be added without.
const stateVersion = 1

// checkTime bounds the dry run of a new binary.
const checkTime = 10 * time.Second

// state is what a keeper hands to its continuation.
type state struct {
	Version    int             `json:"version"`
	Generation int             `json:"generation"`
	Order      int64           `json:"order"`
	Lock       int             `json:"lock"`   // descriptor
	Socket     int             `json:"socket"` // descriptor
	Units      []unitState     `json:"units"`
	Listeners  []listenerState `json:"listeners"`
}

type unitState struct {
	Status  Status        `json:"status"`
	Start   int64         `json:"start"`
	Backoff time.Duration `json:"backoff"`
	Stopped bool          `json:"stopped"` // Stop was asked for
	Proc    *procState    `json:"proc,omitempty"`
}

type procState struct {
	PID     int       `json:"pid"`
	Ended   *uint32   `json:"ended,omitempty"` // wait status, when it was reaped
	Told    time.Time `json:"told,omitzero"`
	Pipes   [2]int    `json:"pipes"` // descriptors of standard output and error; -1: ended
	Pending [2][]byte `json:"pending"`
	Dirs    []string  `json:"dirs,omitempty"` // cgroups
	Memory  string    `json:"memory,omitempty"`
}

type listenerState struct {
	Name    string `json:"name"`
	FD      int    `json:"fd"`
	Network string `json:"network"`
	Addr    string `json:"addr"`
	Bound   string `json:"bound"`
}

// check runs the new binary once: what cannot even say its version must not take over.
func (k *Keeper) check(binary string) error {
	refused := func(err error) error { return fmt.Errorf("upgrade keeper: %s: %w", binary, err) }
	out, in, err := os.Pipe()
	if err != nil {
		return refused(err)
	}
	defer out.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		in.Close()
		return refused(err)
	}
	defer null.Close()
	p := &proc{reaped: make(chan syscall.WaitStatus, 1)}
	err = k.do(func() error {
		pid, err := syscall.ForkExec(binary, append([]string{binary}, k.cfg.Check...), &syscall.ProcAttr{
			Env: os.Environ(), Files: []uintptr{null.Fd(), in.Fd(), null.Fd()},
			Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
		})
		if err == nil {
			p.pid, k.pids[pid] = pid, p
		}
		return err
	})
	in.Close()
	if err != nil {
		return refused(err)
	}
	var ws syscall.WaitStatus
	select {
	case ws = <-p.reaped:
	case <-time.After(checkTime):
		syscall.Kill(p.pid, syscall.SIGKILL)
		<-p.reaped
		return refused(fmt.Errorf("did not say its version within %s", checkTime))
	}
	if ws.ExitStatus() != 0 {
		return refused(fmt.Errorf("ended with %s when asked for its version", describe(ws)))
	}
	out.SetReadDeadline(time.Now().Add(time.Second))
	said, _ := io.ReadAll(io.LimitReader(out, 1<<10))
	if strings.TrimSpace(string(said)) == "" {
		return refused(errors.New("said no version"))
	}
	k.log("upgrade keeper", "binary", binary, "version", strings.TrimSpace(string(said)))
	return nil
}

// become replaces this process by binary. It runs on the main goroutine and returns only when that
// did not work; then everything goes on as before.
func (k *Keeper) become(binary string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := state{Version: stateVersion, Generation: k.generation + 1, Order: k.order, Lock: int(k.lock.Fd()), Socket: rawFD(k.socket)}
	keep := []int{s.Lock, s.Socket}
	for _, h := range k.units {
		u := unitState{Status: h.status, Start: h.start, Backoff: h.backoff, Stopped: h.asked()}
		if p := h.proc; p != nil && p.pid > 0 {
			u.Status.PID = p.pid
			u.Proc = &procState{PID: p.pid, Told: p.told}
			if p.ended != nil {
				ended := uint32(*p.ended)
				u.Proc.Ended = &ended
			}
			if p.group != nil {
				u.Proc.Dirs, u.Proc.Memory = p.group.folders(), p.group.memory
			}
			u.Proc.Pipes, u.Proc.Pending = p.out.park()
			defer p.out.unpark(u.Proc.Pipes)
			keep = append(keep, u.Proc.Pipes[:]...)
		}
		s.Units = append(s.Units, u)
	}
	for name, l := range k.listeners {
		s.Listeners = append(s.Listeners, listenerState{name, l.fd, l.network, l.addr, l.bound})
		keep = append(keep, l.fd)
	}
	fd, err := writeState(s)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	keep = append(keep, fd)
	closeOnExec(keep, false)
	defer closeOnExec(keep, true)
	env := append(os.Environ(), stateVar+strconv.Itoa(fd))
	err = syscall.Exec(binary, append([]string{binary}, os.Args[1:]...), env)
	return fmt.Errorf("upgrade keeper: %s: %w", binary, err)
}

func writeState(s state) (int, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return -1, fmt.Errorf("hand on state: %w", err)
	}
	fd, err := unix.MemfdCreate("keeper", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("hand on state: %w", err)
	}
	for off := 0; off < len(b); {
		n, err := unix.Pwrite(fd, b[off:], int64(off))
		if err != nil {
			syscall.Close(fd)
			return -1, fmt.Errorf("hand on state: %w", err)
		}
		off += n
	}
	return fd, nil
}

func closeOnExec(fds []int, on bool) {
	flag := 0
	if on {
		flag = unix.FD_CLOEXEC
	}
	for _, fd := range fds {
		if fd >= 0 {
			unix.FcntlInt(uintptr(fd), unix.F_SETFD, flag)
		}
	}
}

// inherited reads the state that this process was handed, nil when there is none.
func inherited() (*state, error) {
	name, _ := strings.CutSuffix(stateVar, "=")
	v, ok := os.LookupEnv(name)
	if !ok {
		return nil, nil
	}
	os.Unsetenv(name)
	fd, err := strconv.Atoi(v)
	if err != nil {
		return nil, fmt.Errorf("take over state: %w", err)
	}
	f := os.NewFile(uintptr(fd), "state")
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	if err != nil {
		return nil, fmt.Errorf("take over state: %w", err)
	}
	return decodeState(b)
}

func decodeState(b []byte) (*state, error) {
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("take over state: %w", err)
	}
	if s.Version != stateVersion {
		return nil, fmt.Errorf("take over state: version %d is not known", s.Version)
	}
	return &s, nil
}

// adopt restores what s says. Units go on in goroutines of their own.
func (k *Keeper) adopt(s *state) error {
	k.generation, k.order = s.Generation, s.Order
	closeOnExec([]int{s.Lock, s.Socket}, true)
	k.lock = os.NewFile(uintptr(s.Lock), "lock")
	f := os.NewFile(uintptr(s.Socket), "socket")
	l, err := net.FileListener(f)
	f.Close()
	if err != nil {
		return fmt.Errorf("take over command socket: %w", err)
	}
	k.socket = l.(*net.UnixListener)
	for _, l := range s.Listeners {
		closeOnExec([]int{l.FD}, true)
		k.listeners[l.Name] = listener{l.FD, l.Network, l.Addr, l.Bound}
	}
	for _, u := range s.Units {
		// The keeper's own units are started from the new binary when they next start, and at once: they have not
		// failed yet.
		if i := slices.IndexFunc(k.cfg.Units, func(own Unit) bool { return own.ID == u.Status.Unit.ID }); i >= 0 {
			u.Status.Unit, u.Backoff = k.cfg.Units[i], 0
		}
		h := newHeld(u.Status.Unit, u.Start)
		h.status, h.backoff = u.Status, u.Backoff
		k.units[h.unit.ID] = h
		if u.Stopped {
			h.once.Do(func() { close(h.stop) })
		}
		if u.Proc != nil {
			h.proc = k.adoptProc(h, u.Proc)
		}
		if h.status.Phase == Exited {
			close(h.exited)
			continue
		}
		k.running.Add(1)
		if h.proc == nil && h.status.Phase == Waiting {
			go func() {
				if k.pause(h) {
					k.live(h, nil)
					return
				}
				close(h.exited)
				k.running.Done()
			}()
			continue
		}
		if p := h.proc; p != nil && p.ended == nil {
			p.joined = make(chan struct{})
			go func() { // the earlier binary may have been about to
				defer close(p.joined)
				p.group.join(k.house, h.unit.ID, p, processes)
			}()
		}
		go k.live(h, h.proc)
	}
	return nil
}

func (k *Keeper) adoptProc(h *held, s *procState) *proc {
	p := &proc{pid: s.PID, told: s.Told, reaped: make(chan syscall.WaitStatus, 1)}
	if len(s.Dirs) > 0 {
		p.group = &group{dirs: s.Dirs, memory: s.Memory}
	}
	if s.Ended != nil {
		ws := syscall.WaitStatus(*s.Ended)
		p.ended = &ws
		p.reaped <- ws
	} else {
		k.pids[p.pid] = p
	}
	if h.unit.Log == "" {
		return p
	}
	closeOnExec(s.Pipes[:], true)
	var pipes [2]*os.File
	for i, fd := range s.Pipes {
		if fd >= 0 {
			pipes[i] = os.NewFile(uintptr(fd), "pipe")
		}
	}
	out, err := k.readOutput(h.unit, pipes, s.Pending)
	if err != nil {
		k.log("open log", "unit", h.unit.ID, "err", err)
		for _, f := range pipes {
			if f != nil {
				f.Close()
			}
		}
		return p
	}
	p.out = out
	return p
}
