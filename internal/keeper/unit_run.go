package keeper

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"tenfold/internal/tasklog"
)

// How a unit is restarted and ended.
const (
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 10 * time.Second
	steady       = 10 * time.Second // up this long, the backoff begins anew
	fencePace    = 10 * time.Millisecond
	defaultGrace = 10 * time.Second
)

// held is a unit with its process. Its life is one goroutine (live); the keeper's mutex owns status.
type held struct {
	unit Unit

	status Status // under Keeper.mu
	stop   chan struct{}
	once   sync.Once
	exited chan struct{} // closed when Exited
	start  int64         // order of starting

	reaped chan syscall.WaitStatus // from the reaper, for the current process
}

// live runs the unit until it has ended for good. Owned by Keeper.Run through its wait group.
func (k *Keeper) live(h *held) {
	defer k.running.Done()
	defer close(h.exited)
	backoff := time.Duration(0)
	for {
		started := time.Now()
		exit := k.once(h)
		asked := false
		select {
		case <-h.stop:
			asked = true
		default:
		}
		exit.Asked = asked
		final := asked || h.unit.Restart != RestartAlways
		k.update(h, func(s *Status) {
			s.PID, s.LastExit, s.Phase = 0, &exit, Waiting
			if final {
				s.Phase = Exited
			}
		})
		if final {
			return
		}
		if time.Since(started) > steady {
			backoff = 0
		}
		select {
		case <-h.stop:
			k.update(h, func(s *Status) { s.Phase = Exited })
			return
		case <-time.After(backoff):
		}
		backoff = min(max(2*backoff, firstBackoff), lastBackoff)
		k.update(h, func(s *Status) { s.Restarts++ })
	}
}

// once runs the unit's process from start until its whole tree is gone.
func (k *Keeper) once(h *held) Exit {
	logged, outW, errW, err := k.openLog(h.unit)
	if err != nil {
		return k.unstarted(h, err)
	}
	pid, err := k.fork(h, outW, errW)
	outW.Close()
	errW.Close()
	if err != nil {
		logged(err.Error())
		return k.unstarted(h, err)
	}
	k.update(h, func(s *Status) { s.Phase, s.PID, s.Started = Running, pid, time.Now() })
	var ws syscall.WaitStatus
	select {
	case ws = <-h.reaped:
	case <-h.stop:
		k.update(h, func(s *Status) { s.Phase = Stopping })
		ws = k.end(h, pid)
	}
	k.update(h, func(s *Status) { s.Phase = Stopping })
	k.fence(h, pid)
	logged("")
	return exitOf(ws)
}

// unstarted is the exit of what could not be started: 127 as a shell says it.
func (k *Keeper) unstarted(h *held, err error) Exit {
	k.log("start unit", "unit", h.unit.ID, "err", err)
	return Exit{Code: 127, At: time.Now()}
}

func exitOf(ws syscall.WaitStatus) Exit {
	e := Exit{Code: ws.ExitStatus(), At: time.Now()}
	if ws.Signaled() {
		e.Code, e.Signal = -1, ws.Signal()
	}
	return e
}

// end asks the process to stop and kills the tree when it does not in time.
func (k *Keeper) end(h *held, pid int) syscall.WaitStatus {
	sig, grace := h.unit.StopSignal, h.unit.StopGrace
	if sig == 0 {
		sig = syscall.SIGTERM
	}
	if grace == 0 {
		grace = defaultGrace
	}
	syscall.Kill(pid, sig)
	select {
	case ws := <-h.reaped:
		return ws
	case <-time.After(grace):
	}
	kill(tree(h.unit.ID, pid, nil), syscall.SIGKILL)
	syscall.Kill(pid, syscall.SIGKILL)
	return <-h.reaped
}

// fence waits until no descendant lives. What is left is told to end as a stop does, and killed
// when it has not after the unit's grace: a backend outlives its postmaster and can still commit.
func (k *Keeper) fence(h *held, session int) {
	known := map[int]bool{}
	grace := h.unit.StopGrace
	if grace == 0 {
		grace = defaultGrace
	}
	sig := h.unit.StopSignal
	if sig == 0 {
		sig = syscall.SIGTERM
	}
	begun, told := time.Now(), false
	for {
		left := tree(h.unit.ID, session, known)
		if len(left) == 0 {
			return
		}
		for _, p := range left {
			known[p] = true
		}
		switch {
		case time.Since(begun) > grace:
			kill(left, syscall.SIGKILL)
		case !told:
			kill(left, sig)
			told = true
		}
		time.Sleep(fencePace)
	}
}

// openLog makes the pipes for standard output and error and starts their readers. logged writes a
// line of the keeper's own ("" for none), waits for the readers and closes the log.
func (k *Keeper) openLog(u Unit) (logged func(string), outW, errW *os.File, err error) {
	var w *tasklog.Writer
	if u.Log != "" {
		max, keep := u.LogMax, u.LogKeep
		if max == 0 {
			max = 16 << 20
		}
		if keep == 0 {
			keep = 3
		}
		if w, err = tasklog.Create(u.Log, max, keep); err != nil {
			return nil, nil, nil, err
		}
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, nil, nil, err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		outR.Close()
		outW.Close()
		return nil, nil, nil, err
	}
	var readers sync.WaitGroup
	for _, r := range []struct {
		f      *os.File
		stderr bool
	}{{outR, false}, {errR, true}} {
		readers.Go(func() {
			defer r.f.Close()
			if w == nil {
				discard(r.f)
			} else if err := w.Copy(r.f, r.stderr); err != nil {
				k.log("store output", "unit", u.ID, "err", err)
				discard(r.f) // a task must not block because its output cannot be stored
			}
		})
	}
	return func(line string) {
		readers.Wait() // the tree is fenced: all writers are gone
		if w == nil {
			return
		}
		if line != "" {
			w.Add(time.Now(), true, false, []byte("tenfold: "+line))
		}
		if err := w.Close(); err != nil {
			k.log("close log", "unit", u.ID, "err", err)
		}
	}, outW, errW, nil
}

func discard(f *os.File) {
	buf := make([]byte, 32<<10)
	for {
		if _, err := f.Read(buf); err != nil {
			return
		}
	}
}

// fork starts the unit's process on the keeper's main thread and registers it with the reaper.
func (k *Keeper) fork(h *held, out, errw *os.File) (int, error) {
	u := h.unit
	env := []string{markUnit + u.ID, markHouse + k.house}
	for _, kv := range u.Env { // a starter that is a unit itself hands its own marks on with its environment
		if !strings.HasPrefix(kv, markUnit) && !strings.HasPrefix(kv, markHouse) && !strings.HasPrefix(kv, "LISTEN_FD") {
			env = append(env, kv)
		}
	}
	if len(u.Argv) == 0 {
		return 0, errors.New("it has no command")
	}
	path, err := lookPath(u.Argv[0], u.Env, u.Dir)
	if err != nil {
		return 0, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	files := []uintptr{null.Fd(), out.Fd(), errw.Fd()}
	if len(u.Listeners) > 0 {
		for _, name := range u.Listeners {
			fd, ok := k.listenerFD(name)
			if !ok {
				return 0, fmt.Errorf("no listener %q is held", name)
			}
			files = append(files, uintptr(fd))
		}
		env = append(env, "LISTEN_FDS="+strconv.Itoa(len(u.Listeners)), "LISTEN_FDNAMES="+strings.Join(u.Listeners, ":"))
	}
	attr := &syscall.ProcAttr{Dir: u.Dir, Env: env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: u.DeathSignal}}
	if attr.Sys.Pdeathsig == 0 {
		attr.Sys.Pdeathsig = syscall.SIGKILL
	}
	if u.UID > 0 && os.Getuid() == 0 {
		attr.Sys.Credential = &syscall.Credential{Uid: uint32(u.UID), Gid: uint32(u.GID)}
	}
	type result struct {
		pid int
		err error
	}
	done := make(chan result, 1)
	k.onMain <- func() {
		pid, err := syscall.ForkExec(path, u.Argv, attr)
		if err == nil {
			k.pids[pid] = h
			if u.OOMScore != 0 {
				os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(strconv.Itoa(u.OOMScore)), 0) // best effort
			}
		}
		done <- result{pid, err}
	}
	r := <-done
	if r.err != nil {
		return 0, &os.PathError{Op: "start", Path: path, Err: r.err}
	}
	return r.pid, nil
}
