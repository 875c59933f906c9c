package keeper

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"tenfold/internal/isolate"
)

// How a unit is restarted and ended.
const (
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 10 * time.Second
	steady       = 10 * time.Second // up this long, the backoff begins anew
	fencePace    = 10 * time.Millisecond
	defaultGrace = 10 * time.Second
)

// held is a unit with its process. Its life is one goroutine (live).
type held struct {
	unit   Unit
	start  int64 // order of starting
	stop   chan struct{}
	once   sync.Once
	exited chan struct{} // closed when Exited

	limiting sync.Mutex // one change of limits at a time

	// Under Keeper.mu: what a re-exec hands on.
	status  Status
	backoff time.Duration
	proc    *proc // nil between two processes
}

// proc is one process of a unit, from before its fork until its tree is gone.
type proc struct {
	refused string        // why there is no process; set before reaped
	over    chan struct{} // closed when the process has ended; nil for one that a re-exec left
	joined  chan struct{} // closed when it is in its groups; nil before its start
	out     *output
	group   *group // nil: no cgroup
	reaped  chan syscall.WaitStatus

	// Written by the main goroutine, which also carries out a re-exec.
	pid   int
	ended *syscall.WaitStatus

	told time.Time // when the stop signal was sent; under Keeper.mu
}

func (h *held) asked() bool {
	select {
	case <-h.stop:
		return true
	default:
		return false
	}
}

func (u Unit) stopSignal() syscall.Signal {
	if u.StopSignal == 0 {
		return syscall.SIGTERM
	}
	return u.StopSignal
}

func (u Unit) stopGrace() time.Duration {
	if u.StopGrace == 0 {
		return defaultGrace
	}
	return u.StopGrace
}

// live runs the unit until it has ended for good. p is the process that a re-exec left it with.
// Owned by Keeper.Run through its wait group.
func (k *Keeper) live(h *held, p *proc) {
	defer k.running.Done()
	defer close(h.exited)
	for {
		if p == nil {
			p = k.begin(h)
		}
		exit := k.follow(h, p)
		p = nil
		exit.Asked = h.asked()
		final := exit.Asked || h.unit.Restart != RestartAlways
		k.update(h, func(s *Status) {
			if exit.At.Sub(s.Started) > steady {
				h.backoff = 0
			}
			h.proc = nil
			s.PID, s.LastExit, s.Phase = 0, &exit, Waiting
			if final {
				s.Phase = Exited
			}
		})
		if final || !k.pause(h) {
			return
		}
	}
}

// pause waits out the backoff before a restart and says whether there is one.
func (k *Keeper) pause(h *held) bool {
	select {
	case <-h.stop:
		k.update(h, func(s *Status) { s.Phase = Exited })
		return false
	case <-time.After(h.backoff):
	}
	k.update(h, func(s *Status) {
		h.backoff = min(max(2*h.backoff, firstBackoff), lastBackoff)
		s.Restarts++
	})
	return true
}

// begin starts a process of the unit. One that could not be started has ended with status 127, as a
// shell says it.
func (k *Keeper) begin(h *held) *proc {
	p := &proc{reaped: make(chan syscall.WaitStatus, 1)}
	err := k.launch(h, p)
	if err != nil {
		k.log("start unit", "unit", h.unit.ID, "err", err)
		p.refused = err.Error()
		if err := p.out.close(err.Error()); err != nil {
			k.log("close log", "unit", h.unit.ID, "err", err)
		}
		p.out = nil
		p.reaped <- syscall.WaitStatus(127 << 8)
	}
	return p
}

func (k *Keeper) launch(h *held, p *proc) error {
	prepared := prepare(h.unit) // beside output and group: all of it takes as long as the fork does
	o, out, errw, err := k.openOutput(h.unit)
	if err != nil {
		abandon(prepared)
		return err
	}
	defer out.Close()
	defer errw.Close()
	p.out = o
	k.mu.Lock()
	limits := h.unit.limits()
	if h.status.Limits != nil {
		limits = *h.status.Limits
		limits.bound = h.unit.bound()
	}
	k.mu.Unlock()
	group, unenforced := k.groups.make(k.house, h.unit.ID, limits)
	p.group = group
	plan, err := prepared()
	if err != nil {
		return err
	}
	defer plan.Close()
	k.update(h, func(s *Status) { h.proc, s.Started, s.Unenforced, s.Rungs = p, time.Now(), unenforced, nil })
	p.over = make(chan struct{})
	if h.unit.Strict && unenforced != "" {
		return &unenforcedError{unenforced}
	}
	if err := k.fork(h, p, plan, out, errw); err != nil {
		return err
	}
	rungs := plan.Rungs()
	// Started stands: all output is later than that.
	k.update(h, func(s *Status) { s.Phase, s.PID = Running, p.pid })
	p.joined = make(chan struct{})
	k.running.Add(1)
	go func() {
		defer k.running.Done()
		defer close(p.joined)
		k.settle(h, p, limits, rungs, unenforced)
	}()
	return nil
}

// settleIn is how long a process that is shut in has to itself before it is moved into groups of version 1: that holds
// up whatever forks or ends on the machine, the new program's threads first of all.
const settleIn = 25 * time.Millisecond

// settle moves a new process into the groups that it could not be born in, and says what shuts it in.
func (k *Keeper) settle(h *held, p *proc, limits Limits, rungs []isolate.Rung, unenforced string) {
	if len(rungs) > 0 {
		select {
		case <-time.After(settleIn):
		case <-p.over:
			return
		}
	}
	err := p.group.join(k.house, h.unit.ID, p, func() []process { return younger(p.pid) })
	failed := err != nil && !limits.none()
	if failed {
		unenforced = err.Error()
	}
	if len(rungs) > 0 || failed {
		k.update(h, func(s *Status) {
			if failed { // else Limit may have said something newer
				s.Unenforced = unenforced
			}
			if len(rungs) > 0 {
				s.Rungs = slices.Insert(rungs, min(2, len(rungs)), p.group.rung(unenforced))
			}
		})
	}
	if failed && h.unit.Strict {
		k.log("end a unit of which a limit does not hold", "unit", h.unit.ID, "err", err)
		syscall.Kill(p.pid, syscall.SIGKILL)
	}
}

// abandon closes what was prepared in vain.
func abandon(prepared func() (*isolate.Plan, error)) {
	if plan, err := prepared(); err == nil {
		plan.Close()
	}
}

// prepare begins to make what shuts a unit in; the result is to be asked for once, and closed. Without a box it is nil.
func prepare(u Unit) func() (*isolate.Plan, error) {
	if u.Box == nil {
		return func() (*isolate.Plan, error) { return nil, nil }
	}
	var plan *isolate.Plan
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		plan, err = isolate.Prepare(*u.Box, u.Argv, u.Env, u.Dir)
	}()
	return func() (*isolate.Plan, error) {
		<-done
		return plan, err
	}
}

// unenforcedError is why a strict unit was not started.
type unenforcedError struct{ what string }

func (e *unenforcedError) Error() string { return "a limit cannot be enforced: " + e.what }

// follow waits for the end of a process, or ends it when the unit is stopped, until its whole tree
// is gone and its output stored.
func (k *Keeper) follow(h *held, p *proc) Exit {
	var ws syscall.WaitStatus
	known := family{}
	stop := h.stop
	if p.pid == 0 { // could not be started; and no signal may go to 0
		stop = nil
	}
	select {
	case ws = <-p.reaped:
	case <-stop:
		k.update(h, func(s *Status) { s.Phase = Stopping })
		ws = k.end(h, p, known)
	}
	if p.over != nil {
		close(p.over)
	}
	if p.joined != nil {
		<-p.joined // no group is removed into which something is moved
	}
	if p.pid > 0 {
		k.update(h, func(s *Status) { s.Phase = Stopping })
		k.fence(h, p, known)
	}
	if err := p.out.close(""); err != nil {
		k.log("close log", "unit", h.unit.ID, "err", err)
	}
	e := Exit{Code: ws.ExitStatus(), At: time.Now(), Refused: p.refused}
	if ws.Signaled() {
		e.Code, e.Signal = -1, ws.Signal()
	}
	e.OOM = (e.Signal == syscall.SIGKILL || e.Code == 128+int(syscall.SIGKILL)) && p.group.killedForMemory()
	p.group.remove()
	return e
}

// end asks the process to stop and kills the tree when it does not in time.
func (k *Keeper) end(h *held, p *proc, known family) syscall.WaitStatus {
	// Looked at before its parents die: a child with a session and an environment of its own is
	// found by nothing else afterwards.
	tree := known.look(k.house, h.unit.ID, p)
	k.mu.Lock()
	first := p.told.IsZero() // not told before a re-exec
	if first {
		p.told = time.Now()
	}
	left := h.unit.stopGrace() - time.Since(p.told)
	k.mu.Unlock()
	if first {
		p.group.thaw() // what stands still hears nothing
		syscall.Kill(p.pid, h.unit.stopSignal())
		if h.unit.StopTree {
			kill(slices.DeleteFunc(tree, func(pid int) bool { return pid == p.pid }), h.unit.stopSignal())
		}
	}
	select {
	case ws := <-p.reaped:
		return ws
	case <-time.After(left):
	}
	kill(known.look(k.house, h.unit.ID, p), syscall.SIGKILL)
	syscall.Kill(p.pid, syscall.SIGKILL)
	return <-p.reaped
}

// fence waits until no descendant lives. What is left is told to end as a stop does, and killed
// when it has not after the unit's grace: a backend outlives its postmaster and can still commit.
func (k *Keeper) fence(h *held, p *proc, known family) {
	begun, told := time.Now(), false
	for {
		left := known.look(k.house, h.unit.ID, p)
		if len(left) == 0 {
			return
		}
		switch {
		case time.Since(begun) > h.unit.stopGrace():
			kill(left, syscall.SIGKILL)
		case !told:
			kill(left, h.unit.stopSignal())
			told = true
		}
		time.Sleep(fencePace)
	}
}

// environment is what u's process is given: a starter that is a unit itself may hand on its own, so
// the marks and descriptors in it do not count.
func (k *Keeper) environment(u Unit) []string {
	env := []string{markUnit + u.ID, markHouse + k.house}
	for _, kv := range u.Env {
		if !strings.HasPrefix(kv, markUnit) && !strings.HasPrefix(kv, markHouse) && !strings.HasPrefix(kv, "LISTEN_FD") && !strings.HasPrefix(kv, stateVar) {
			env = append(env, kv)
		}
	}
	if len(u.Listeners) > 0 {
		env = append(env, "LISTEN_FDS="+strconv.Itoa(len(u.Listeners)), "LISTEN_FDNAMES="+strings.Join(u.Listeners, ":"))
	}
	return env
}

// fork starts the unit's process on the keeper's main thread and registers it with the reaper. plan is of a unit with a
// box.
func (k *Keeper) fork(h *held, p *proc, plan *isolate.Plan, out, errw *os.File) error {
	u := h.unit
	if len(u.Argv) == 0 {
		return errors.New("it has no command")
	}
	path, err := lookPath(u.Argv[0], u.Env, u.Dir)
	if err != nil {
		return err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	files := []uintptr{null.Fd(), out.Fd(), errw.Fd()}
	for _, name := range u.Listeners {
		fd, ok := k.listenerFD(name)
		if !ok {
			return fmt.Errorf("no listener %q is held", name)
		}
		files = append(files, uintptr(fd))
	}
	death := cmp.Or(u.DeathSignal, syscall.SIGKILL)
	start := func(cgroup int) (int, error) { return k.forkOpen(u, path, files, death, cgroup) }
	if plan != nil {
		env := overlay(k.environment(u), plan.Environ())
		start = func(cgroup int) (int, error) {
			return plan.Start(isolate.Process{Path: path, Argv: u.Argv, Env: env, Dir: u.Dir, Files: files, Cgroup: cgroup, DeathSignal: death})
		}
	}
	return k.do(func() error {
		// Born in its group, it has no moment in which to start something outside.
		cgroup := -1
		if dir, err := p.group.open(); err == nil {
			defer dir.Close()
			cgroup = int(dir.Fd())
		}
		return withOOMScore(u.OOMScore, func() error {
			pid, err := start(cgroup)
			if err != nil {
				return &os.PathError{Op: "start", Path: path, Err: err}
			}
			p.pid, k.pids[pid] = pid, p
			return nil
		})
	})
}

// overlay puts variables in the places of those of the same name: of two, a program sees whichever it likes.
func overlay(env, over []string) []string {
	for _, kv := range over {
		name, _, _ := strings.Cut(kv, "=")
		env = append(slices.DeleteFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") }), kv)
	}
	return env
}

// forkOpen starts a process that is not shut in.
func (k *Keeper) forkOpen(u Unit, path string, files []uintptr, death syscall.Signal, cgroup int) (pid int, err error) {
	attr := &syscall.ProcAttr{Dir: u.Dir, Env: k.environment(u), Files: files, Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: death}}
	if u.UID > 0 && os.Getuid() == 0 {
		attr.Sys.Credential = &syscall.Credential{Uid: uint32(u.UID), Gid: uint32(u.GID)}
	}
	if cgroup >= 0 {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, cgroup
		if pid, err = syscall.ForkExec(path, u.Argv, attr); err == nil {
			return pid, nil
		}
		attr.Sys.UseCgroupFD = false
	}
	return syscall.ForkExec(path, u.Argv, attr)
}
