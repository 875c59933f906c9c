package isolate

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Between fork and exec the child of a Go program may do nothing but system calls: it has one thread, and
// whatever lock another one held stays locked. The standard library's ForkExec knows users, sessions and
// namespaces there, and neither bounds, mounts, Landlock nor filters. A program in between that does these
// would have to start first, which takes longer than all of it. So the child is written here, in the manner
// of the standard library's (syscall/exec_linux.go), whose hooks into the runtime it uses.

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// vforkSyscall makes a system call after which the child runs on this stack while the parent waits for it: it keeps its own
// return address where the child cannot overwrite it. As in the standard library it has to be written in assembly, and is
// to be called directly.
//
//go:noescape
func vforkSyscall(trap, a1, a2 uintptr) (r1, errno uintptr)

// Process is what Start starts.
type Process struct {
	Path      string // absolute
	Argv, Env []string
	Dir       string // "": the caller's
	// Files become descriptors 0, 1, …; all others have to be closed on exec.
	Files []uintptr
	// Cgroup is the descriptor of a folder of version 2 that the process is born in; -1: the caller's.
	Cgroup int
	// DeathSignal is sent to it when the thread ends that started it; 0: none.
	DeathSignal syscall.Signal
}

// The steps between fork and exec.
const (
	stepFork = iota
	stepMount
	stepFiles
	stepBounds
	stepUser
	stepFolder
	stepPrivileges
	stepLandlock
	stepSeccomp
	stepExec
)

var steps = []string{"fork", "mount", "pass descriptors", "set bounds", "become its user", "enter its folder", "give up privileges", "enter the Landlock domain", "set the filter", "execute"}

// StepError says which step of a start failed, and why.
type StepError struct {
	step int
	Err  syscall.Errno
}

func (e *StepError) Error() string { return steps[e.step] + ": " + e.Err.Error() }

func (e *StepError) Unwrap() error { return e.Err }

// Rung is the rung that the step belongs to; "" for what is no rung.
func (e *StepError) Rung() string {
	switch e.step {
	case stepMount:
		return RungNamespaces
	case stepBounds, stepPrivileges:
		return RungBounds
	case stepUser:
		return RungUser
	case stepLandlock:
		return RungLandlock
	case stepSeccomp:
		return RungSeccomp
	}
	return ""
}

// cloneArgs are those of clone3(2).
type cloneArgs struct {
	flags, pidFD, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// child is all that the child needs, made before the fork.
type child struct {
	clone  cloneArgs
	old    bool // by clone, without a cgroup
	path   *byte
	argv   **byte
	envv   **byte
	dir    *byte
	files  []uintptr
	next   int // the first descriptor that is free above all of them
	pipe   int
	death  uintptr
	ppid   uintptr
	mounts []mount
	limits [3]struct {
		which uintptr
		to    unix.Rlimit
	}
	user    int
	groups  []uint32
	ruleset int
	proc    int
	empty   *byte // ""
	procAt  *byte // "/proc"
	here    int   // AT_FDCWD
	filter  unix.SockFprog
}

// Start starts a process as planned and returns its number once it has executed its program. It is to be
// called on the thread whose end the process's death signal is for.
func (p *Plan) Start(x Process) (pid int, err error) {
	c, err := p.child(x)
	if err != nil {
		return 0, err
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return 0, os.NewSyscallError("pipe", err)
	}
	defer unix.Close(pipe[0])
	c.pipe = pipe[1]
	c.next = max(c.next, pipe[1]) + 1
	syscall.ForkLock.Lock()
	n, errno := c.fork()
	afterFork()
	if errno != 0 && c.clone.cgroup != 0 {
		c.clone.flags &^= unix.CLONE_INTO_CGROUP
		c.clone.cgroup = 0
		n, errno = c.fork()
		afterFork()
	}
	if errno == syscall.ENOSYS { // an old kernel, or the filter of a container
		c.old = true
		n, errno = c.fork()
		afterFork()
	}
	syscall.ForkLock.Unlock()
	unix.Close(pipe[1])
	if errno != 0 {
		return 0, &StepError{stepFork, errno}
	}
	var said [2]int32
	b := (*[8]byte)(unsafe.Pointer(&said))[:]
	for {
		read, err := unix.Read(pipe[0], b)
		if err == unix.EINTR {
			continue
		}
		if read == len(b) {
			for {
				if _, err := unix.Wait4(int(n), nil, 0, nil); err != unix.EINTR {
					break
				}
			}
			return 0, &StepError{int(said[0]), syscall.Errno(said[1])}
		}
		return int(n), nil
	}
}

func (p *Plan) child(x Process) (*child, error) {
	c := &child{mounts: p.mounts, user: p.user, ruleset: p.ruleset, proc: p.proc, here: unix.AT_FDCWD, death: uintptr(x.DeathSignal), ppid: uintptr(os.Getpid())}
	var err error
	if c.path, err = unix.BytePtrFromString(x.Path); err != nil {
		return nil, err
	}
	c.empty, _ = unix.BytePtrFromString("")
	c.procAt, _ = unix.BytePtrFromString("/proc")
	argv, err := syscall.SlicePtrFromStrings(x.Argv)
	if err != nil {
		return nil, err
	}
	envv, err := syscall.SlicePtrFromStrings(x.Env)
	if err != nil {
		return nil, err
	}
	c.argv, c.envv = &argv[0], &envv[0]
	if x.Dir != "" {
		if c.dir, err = unix.BytePtrFromString(x.Dir); err != nil {
			return nil, err
		}
	}
	c.files = append([]uintptr(nil), x.Files...)
	c.next = len(c.files)
	for _, f := range c.files {
		c.next = max(c.next, int(f)+1)
	}
	c.next = max(c.next, p.ruleset+1)
	c.limits[0].which, c.limits[0].to = unix.RLIMIT_CORE, unix.Rlimit{}
	c.limits[1].which, c.limits[1].to = unix.RLIMIT_NOFILE, unix.Rlimit{Cur: p.files, Max: p.files}
	c.limits[2].which = ^uintptr(0)
	if p.user > 0 {
		c.limits[2].which, c.limits[2].to = unix.RLIMIT_NPROC, unix.Rlimit{Cur: maxProcesses, Max: maxProcesses}
	}
	if p.files == 0 { // a trial
		c.limits[1].which = ^uintptr(0)
	}
	for _, g := range p.box.Groups {
		c.groups = append(c.groups, uint32(g))
	}
	if len(p.filter) > 0 {
		c.filter = unix.SockFprog{Len: uint16(len(p.filter)), Filter: &p.filter[0]}
	}
	c.clone.exitSignal = uint64(unix.SIGCHLD)
	c.clone.flags = unix.CLONE_VM | unix.CLONE_VFORK
	if len(p.mounts) > 0 {
		c.clone.flags |= unix.CLONE_NEWNS | unix.CLONE_NEWIPC
	}
	if x.Cgroup >= 0 {
		c.clone.flags |= unix.CLONE_INTO_CGROUP
		c.clone.cgroup = uint64(x.Cgroup)
	}
	return c, nil
}

// fork makes the child, which shares this process's memory and never returns from here. The parent's thread waits until the
// child has executed its program, and returns at once: this frame is the child's. A copy of the keeper's memory takes
// longer to make than all rungs together. The caller has to call afterFork.
//
//go:noinline
//go:norace
//go:nocheckptr
func (c *child) fork() (pid uintptr, err syscall.Errno) {
	var (
		step, i int
		r       uintptr
		said    [2]int32
	)
	beforeFork()
	// No allocation and no call of anything but system calls from here on.
	if c.old {
		pid, r = vforkSyscall(unix.SYS_CLONE, uintptr(c.clone.flags|c.clone.exitSignal), 0)
	} else {
		pid, r = vforkSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&c.clone)), unsafe.Sizeof(c.clone))
	}
	if r != 0 || pid != 0 {
		return pid, syscall.Errno(r)
	}
	if _, _, err = syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0); err != 0 {
		goto failed
	}
	afterForkInChild()
	step = stepMount
	for i = 0; i < len(c.mounts); i++ {
		if _, _, err = syscall.RawSyscall6(unix.SYS_MOUNT, uintptr(unsafe.Pointer(c.mounts[i].source)), uintptr(unsafe.Pointer(c.mounts[i].target)),
			uintptr(unsafe.Pointer(c.mounts[i].kind)), c.mounts[i].flags, uintptr(unsafe.Pointer(c.mounts[i].data)), 0); err != 0 {
			goto failed
		}
	}
	if c.proc >= 0 {
		if _, _, err = syscall.RawSyscall6(unix.SYS_MOVE_MOUNT, uintptr(c.proc), uintptr(unsafe.Pointer(c.empty)), uintptr(c.here), uintptr(unsafe.Pointer(c.procAt)), unix.MOVE_MOUNT_F_EMPTY_PATH, 0); err != 0 {
			goto failed
		}
	}
	step = stepFiles
	// First out of the way what lies where others go, then each to its place.
	if c.pipe < len(c.files) {
		if _, _, err = syscall.RawSyscall(unix.SYS_DUP3, uintptr(c.pipe), uintptr(c.next), unix.O_CLOEXEC); err != 0 {
			goto failed
		}
		c.pipe = c.next
		c.next++
	}
	if c.ruleset >= 0 && c.ruleset < len(c.files) {
		if _, _, err = syscall.RawSyscall(unix.SYS_DUP3, uintptr(c.ruleset), uintptr(c.next), unix.O_CLOEXEC); err != 0 {
			goto failed
		}
		c.ruleset = c.next
		c.next++
	}
	for i = 0; i < len(c.files); i++ {
		if int(c.files[i]) < i {
			if _, _, err = syscall.RawSyscall(unix.SYS_DUP3, c.files[i], uintptr(c.next), unix.O_CLOEXEC); err != 0 {
				goto failed
			}
			c.files[i] = uintptr(c.next)
			c.next++
		}
	}
	for i = 0; i < len(c.files); i++ {
		if int(c.files[i]) == i {
			_, _, err = syscall.RawSyscall(unix.SYS_FCNTL, uintptr(i), unix.F_SETFD, 0)
		} else {
			_, _, err = syscall.RawSyscall(unix.SYS_DUP3, c.files[i], uintptr(i), 0)
		}
		if err != 0 {
			goto failed
		}
	}
	step = stepBounds
	for i = 0; i < len(c.limits); i++ {
		if c.limits[i].which == ^uintptr(0) {
			continue
		}
		if _, _, err = syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, c.limits[i].which, uintptr(unsafe.Pointer(&c.limits[i].to)), 0, 0, 0); err != 0 {
			goto failed
		}
	}
	step = stepUser
	if c.user > 0 {
		r = 0
		if len(c.groups) > 0 {
			r = uintptr(unsafe.Pointer(&c.groups[0]))
		}
		if _, _, err = syscall.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(c.groups)), r, 0); err != 0 {
			goto failed
		}
		if _, _, err = syscall.RawSyscall(unix.SYS_SETRESGID, uintptr(c.user), uintptr(c.user), uintptr(c.user)); err != 0 {
			goto failed
		}
		if _, _, err = syscall.RawSyscall(unix.SYS_SETRESUID, uintptr(c.user), uintptr(c.user), uintptr(c.user)); err != 0 {
			goto failed
		}
	}
	step = stepFolder
	if c.dir != nil {
		if _, _, err = syscall.RawSyscall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(c.dir)), 0, 0); err != 0 {
			goto failed
		}
	}
	step = stepPrivileges
	if c.death != 0 { // after the user, which would clear it
		if _, _, err = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, c.death, 0, 0, 0, 0); err != 0 {
			goto failed
		}
		if r, _, _ = syscall.RawSyscall(unix.SYS_GETPPID, 0, 0, 0); r != c.ppid {
			r, _, _ = syscall.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
			syscall.RawSyscall(unix.SYS_KILL, r, c.death, 0)
		}
	}
	if _, _, err = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); err != 0 {
		goto failed
	}
	step = stepLandlock
	if c.ruleset >= 0 {
		if _, _, err = syscall.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(c.ruleset), 0, 0); err != 0 {
			goto failed
		}
	}
	step = stepSeccomp
	if c.filter.Len > 0 {
		if _, _, err = syscall.RawSyscall(unix.SYS_SECCOMP, seccompSetModeFilter, 0, uintptr(unsafe.Pointer(&c.filter))); err != 0 {
			goto failed
		}
	}
	step = stepExec
	_, _, err = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(c.path)), uintptr(unsafe.Pointer(c.argv)), uintptr(unsafe.Pointer(c.envv)))
failed:
	said[0], said[1] = int32(step), int32(err)
	syscall.RawSyscall(unix.SYS_WRITE, uintptr(c.pipe), uintptr(unsafe.Pointer(&said)), unsafe.Sizeof(said))
	for {
		syscall.RawSyscall(unix.SYS_EXIT, 253, 0, 0)
	}
}
