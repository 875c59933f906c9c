package isolate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Landlock (landlock(7)) is allowed paths alone: what a Box hides is left out by naming what lies around it.

// What may be done to files and folders, by the kernel's words.
const (
	mayRead  = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	mayWrite = mayRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_REFER
	ofFiles = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
)

// leastABI is the first in which files can be renamed from one folder into another, truncateABI that in which
// truncating can be refused, scopeABI that in which signals stay inside.
const (
	leastABI    = 2
	truncateABI = 3
	scopeABI    = 6
)

// landlockABI asks the kernel once.
var landlockABI = sync.OnceValues(func() (int, error) {
	v, _, err := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch {
	case err == unix.ENOSYS:
		return 0, errors.New("the kernel has none")
	case err == unix.EOPNOTSUPP:
		return 0, errors.New("it is switched off: boot with lsm=landlock,…")
	case err != 0:
		return 0, err
	case v < leastABI:
		return int(v), fmt.Errorf("version %d cannot rename between folders: Linux 5.19 can", v)
	}
	return int(v), nil
})

func landlockSays(abi int) string {
	s := fmt.Sprintf("version %d: the system is read only", abi)
	if abi >= scopeABI {
		s += ", signals stay inside"
	}
	return s
}

func (p *Plan) takeLandlock() {
	abi, err := landlockABI()
	if err == nil {
		p.ruleset, err = p.makeRuleset(abi)
	}
	if err != nil {
		p.add(Rung{RungLandlock, false, err.Error()})
		return
	}
	p.add(Rung{RungLandlock, true, landlockSays(abi)})
}

func (p *Plan) makeRuleset(abi int) (fd int, err error) {
	write := uint64(mayWrite)
	if abi >= truncateABI {
		write |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: write}
	size := unsafe.Offsetof(attr.Handled_access_net)
	if abi >= scopeABI {
		attr.Scoped = unix.LANDLOCK_SCOPE_SIGNAL | unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
		size = unsafe.Offsetof(attr.Quiet_access_fs)
	}
	r, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, pointer(&attr), size, 0)
	if errno != 0 {
		return -1, fmt.Errorf("make a ruleset: %w", errno)
	}
	fd = int(r)
	unix.CloseOnExec(fd)
	for _, path := range around("/", p.hidden()) {
		may := uint64(mayRead)
		switch path {
		case "/dev":
			may = write
		case "/proc":
			may |= unix.LANDLOCK_ACCESS_FS_WRITE_FILE
		case "/tmp":
			if !p.private {
				may = write
			}
		}
		if err := allow(fd, path, may); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	shared := []string{}
	if !p.private && !p.hides("/var/tmp") {
		shared = append(shared, "/var/tmp")
	}
	if p.user == 0 && os.Getuid() != 0 {
		// A person's programs keep caches below their home, and it is theirs that they run.
		if home, err := os.UserHomeDir(); err == nil && !within(home, p.box.Hide) && !p.hides(filepath.Join(home, ".cache")) {
			shared = append(shared, filepath.Join(home, ".cache"))
		}
	}
	if p.box.Home != "" { // its tmp also by itself: bound to /tmp it is below nothing else
		shared = append(shared, p.box.Home, filepath.Join(p.box.Home, "tmp"))
	}
	for _, path := range append(shared, p.box.Write...) {
		if err := allow(fd, path, write); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	if p.proc >= 0 {
		if err := allowFD(fd, p.proc, "/proc", mayRead|unix.LANDLOCK_ACCESS_FS_WRITE_FILE); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	for _, path := range p.box.Read {
		if err := allow(fd, path, mayRead); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

// hides says whether something below a folder is hidden, or the folder itself.
func (p *Plan) hides(folder string) bool {
	for _, h := range p.box.Hide {
		if within(h, []string{folder}) || within(folder, []string{h}) {
			return true
		}
	}
	return false
}

// allow adds a rule for a path and all below it. One that is not there, or that this process may not open,
// needs none.
func allow(ruleset int, path string, may uint64) error {
	if path == "" {
		return nil
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	return allowFD(ruleset, fd, path, may)
}

func allowFD(ruleset, fd int, path string, may uint64) error {
	rule := unix.LandlockPathBeneathAttr{Allowed_access: may, Parent_fd: int32(fd)}
	add := func() syscall.Errno {
		_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, pointer(&rule), 0, 0, 0)
		return errno
	}
	errno := add()
	if errno == unix.EINVAL { // a file, of which nothing may be said that is for folders
		rule.Allowed_access = may & ofFiles
		errno = add()
	}
	if errno != 0 {
		return fmt.Errorf("allow %s: %w", path, errno)
	}
	return nil
}

// hidden are the folders to hide that the modes of those above them do not hide anyway.
func (p *Plan) hidden() []string {
	if p.user == 0 {
		return p.box.Hide
	}
	return slices.DeleteFunc(slices.Clone(p.box.Hide), func(h string) bool {
		_, shut := closed(filepath.Dir(h), nil)
		return shut
	})
}

// around names what lies in a folder, and in the folders on the way to what is hidden, without that itself.
func around(folder string, hide []string) []string {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		path := filepath.Join(folder, e.Name())
		hidden, onTheWay := false, false
		for _, h := range hide {
			h = filepath.Clean(h)
			hidden = hidden || path == h
			onTheWay = onTheWay || strings.HasPrefix(h, path+"/")
		}
		switch {
		case hidden:
		case onTheWay && e.Type()&os.ModeSymlink == 0:
			out = append(out, around(path, hide)...)
		case e.Type()&os.ModeSymlink != 0 && folder != "/":
			// What it leads to is allowed where it lies; and it may lead to what is hidden.
		default:
			out = append(out, path)
		}
	}
	return out
}
