package isolate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A process gets a view of the mounts of its own, with a /tmp and a /dev/shm of its own and a /proc in which
// it sees its own user's processes alone, and System V IPC of its own. Not of its own are the network, since
// it is reached at 127.0.0.1; and the numbers of processes: as number 1 a program would not be ended by a
// signal that it does not handle, and would have to reap what others leave.

// mount is one call of mount(2), in C's strings.
type mount struct {
	source, target, kind, data *byte
	flags                      uintptr
}

func newMount(source, target, kind, data string, flags uintptr) (m mount, err error) {
	for _, s := range []struct {
		to   **byte
		text string
	}{{&m.source, source}, {&m.target, target}, {&m.kind, kind}, {&m.data, data}} {
		if *s.to, err = unix.BytePtrFromString(s.text); err != nil {
			return m, err
		}
	}
	m.flags = flags
	return m, nil
}

// temporary are the folders for everybody's short-lived files.
var temporary = []string{"/tmp", "/var/tmp"}

func (p *Plan) takeNamespaces(argv []string, dir string) {
	if err := namespacesWork(); err != nil {
		p.add(Rung{RungNamespaces, false, err.Error()})
		return
	}
	p.private = p.box.Home != "" && !p.uses(argv, dir)
	own := []string{"processes of its user alone"}
	var err error
	if p.mounts, err = p.view(); err == nil {
		p.proc, err = openProc()
	}
	if err != nil {
		p.mounts, p.private = nil, false
		p.add(Rung{RungNamespaces, false, err.Error()})
		return
	}
	if p.private {
		own = append(own, "a /tmp of its own")
	}
	p.add(Rung{RungNamespaces, true, "mounts, IPC: " + strings.Join(own, ", ")})
}

// uses says whether what the process runs, or may see, lies in a temporary folder: then another cannot be put
// in its place.
func (p *Plan) uses(argv []string, dir string) bool {
	paths := append(append([]string{dir, p.box.Home}, p.box.Read...), p.box.Write...)
	for _, a := range argv {
		paths = append(paths, strings.Fields(a)...)
	}
	for _, path := range paths {
		if within(strings.Trim(path, `"';`), temporary) {
			return true
		}
	}
	return false
}

// view are the mounts that make a process's own.
func (p *Plan) view() (out []mount, err error) {
	add := func(source, target, kind, data string, flags uintptr) {
		if _, missing := os.Stat(target); missing != nil || err != nil {
			return
		}
		var m mount
		if m, err = newMount(source, target, kind, data, flags); err == nil {
			out = append(out, m)
		}
	}
	add("none", "/", "", "", unix.MS_REC|unix.MS_SLAVE) // nothing of it reaches the machine's own
	if p.private {
		for _, t := range temporary {
			add(filepath.Join(p.box.Home, "tmp"), t, "", "", unix.MS_BIND)
		}
	}
	add("shm", "/dev/shm", "tmpfs", "mode=1777", unix.MS_NOSUID|unix.MS_NODEV)
	return out, err
}

// openProc makes a /proc in which a user sees its own processes alone, mounted nowhere yet: Landlock knows
// it by its descriptor, and the child puts it in its place.
func openProc() (fd int, err error) {
	kind, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(kind)
	if err := errors.Join(unix.FsconfigSetString(kind, "hidepid", "2"), unix.FsconfigCreate(kind)); err != nil {
		return -1, os.NewSyscallError("fsconfig", err)
	}
	fd, err = unix.Fsmount(kind, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	return fd, os.NewSyscallError("fsmount", err)
}

// namespacesWork tries them once, with a child that ends before it runs anything.
var namespacesWork = sync.OnceValue(func() error {
	if os.Getuid() != 0 {
		return errors.New("only root may make them")
	}
	p := &Plan{ruleset: -1, proc: -1}
	defer p.Close()
	var err error
	if p.mounts, err = p.view(); err != nil {
		return err
	}
	if p.proc, err = openProc(); err != nil {
		return err
	}
	return p.try()
})

// try starts a child that does all of a plan and then cannot execute a folder. An error says what else it
// could not do.
func (p *Plan) try() error {
	pid, err := p.Start(Process{Path: "/", Argv: []string{"/"}, Dir: "/", Cgroup: -1, DeathSignal: syscall.SIGKILL})
	var failed *StepError
	switch {
	case err == nil: // a folder was executed
		unix.Kill(pid, unix.SIGKILL)
		unix.Wait4(pid, nil, 0, nil)
		return nil
	case errors.As(err, &failed) && failed.step == stepExec:
		return nil
	}
	return fmt.Errorf("they cannot be made: %w", err)
}
