// Package isolate shuts a process in before its program begins, rung by rung: a user of its own, bounds and
// no new privileges, namespaces, Landlock, a seccomp filter. Each rung is used where the machine has it, and
// said where it has not.
//
// Everything is done by the child itself between fork and exec (fork.go), so that it costs no further
// program. It never decides who is shut in and knows no unit: the keeper does, in which the cgroups are too.
// Begin at Box, then Prepare and Plan.Start; Probe says what a machine has.
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

// The rungs, in the order in which they are taken.
const (
	RungUser       = "own user"
	RungBounds     = "rlimits, no new privileges"
	RungNamespaces = "namespaces"
	RungLandlock   = "landlock"
	RungSeccomp    = "seccomp"
)

// Rung is one of them, on this machine or for one process.
type Rung struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Found is what holds, or why it does not.
	Found string `json:"found,omitempty"`
}

// Box says what a process may see and do. All paths are absolute.
type Box struct {
	// User is the process's user and group where the caller is root and may become it; 0: none of its own.
	// Groups are further ones.
	User   int   `json:"user,omitempty"`
	Groups []int `json:"groups,omitempty"`
	// Home is a folder for it alone: made, given to User, and with tmp in it.
	Home string `json:"home,omitempty"`
	// Hide are folders of which it sees nothing, but what Read and Write name below them.
	Hide []string `json:"hide,omitempty"`
	// Read may be read and executed, Write changed too: folders or files. What is outside of Hide may be read
	// anyway, where its modes allow that.
	Read  []string `json:"read,omitempty"`
	Write []string `json:"write,omitempty"`
}

// The users that Prepare accepts as a process's own: above those of people, packages and containers
// (systemd-nspawn takes up to 0x6fffffff), below systemd's foreign users.
const (
	FirstUser = 0x70000000
	Users     = 0x7ffe0000 - FirstUser
)

// maxFiles bounds a process's descriptors, maxProcesses what a user may have of processes and threads where
// no cgroup counts them for each unit.
const (
	maxFiles     = 65536
	maxProcesses = 16384
)

// Plan is how one process is started. It holds descriptors until Close.
type Plan struct {
	box     Box
	rungs   []Rung
	user    int // 0: stays the caller's
	files   uint64
	ruleset int // descriptor of Landlock's rules; -1: none
	proc    int // descriptor of its /proc; -1: none
	filter  []unix.SockFilter
	mounts  []mount
	private bool   // has a /tmp of its own
	java    string // JDK_JAVA_OPTIONS as the process is told
}

// Prepare finds which rungs hold for a process that runs argv in dir, and makes what they need. Only a Box
// that cannot be made at all is an error: a home that cannot be written.
func Prepare(b Box, argv, env []string, dir string) (*Plan, error) {
	p := &Plan{box: b, ruleset: -1, proc: -1, java: variable("JDK_JAVA_OPTIONS", env)}
	p.user = p.takeUser(argv, env, dir)
	if err := p.takeHome(); err != nil {
		return nil, err
	}
	p.files = maxFiles
	var now unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &now) == nil && now.Max < p.files {
		p.files = now.Max
	}
	p.add(Rung{RungBounds, true, fmt.Sprintf("%d descriptors, no core files", p.files)})
	p.takeNamespaces(argv, dir)
	p.takeLandlock()
	var err error
	if p.filter, err = filter(); err == nil {
		err = seccompWorks()
	}
	if err != nil {
		p.filter = nil
		p.add(Rung{RungSeccomp, false, err.Error()})
	} else {
		p.add(Rung{RungSeccomp, true, fmt.Sprintf("%d calls refused", len(refused))})
	}
	return p, nil
}

func (p *Plan) add(r Rung) { p.rungs = append(p.rungs, r) }

// Rungs says what holds for the process, in order; of no plan, nothing.
func (p *Plan) Rungs() []Rung {
	if p == nil {
		return nil
	}
	return p.rungs
}

// Close closes what the plan holds.
func (p *Plan) Close() {
	if p == nil {
		return
	}
	for _, fd := range []*int{&p.ruleset, &p.proc} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}

// Environ is what the process has to be told of its box, before all that it is told otherwise: where its home and its
// temporary folder are. Its user has no name on this machine, and some libraries cannot do without.
func (p *Plan) Environ() []string {
	if p.box.Home == "" {
		return nil
	}
	tmp := filepath.Join(p.box.Home, "tmp")
	if p.private {
		tmp = "/tmp"
	}
	out := []string{"TMPDIR=" + tmp}
	// A person's tools lie below their home (nvm, pyenv, rustup), and look for themselves there.
	if p.ruleset >= 0 && p.hides("/tmp") && !p.private {
		// Nothing can be made in /tmp then, and Java looks at no TMPDIR.
		out = append(out, "JDK_JAVA_OPTIONS="+strings.TrimSpace(p.java+" -Djava.io.tmpdir="+tmp))
	}
	if p.user > 0 {
		out = append(out, "USER=app", "LOGNAME=app")
	}
	if p.user > 0 || within(os.Getenv("HOME"), p.box.Hide) {
		out = append(out, "HOME="+p.box.Home)
	}
	return out
}

// takeUser says which user the process becomes, 0 for none.
func (p *Plan) takeUser(argv, env []string, dir string) int {
	why := userWorks()
	if why == nil && p.box.User < FirstUser {
		why = errors.New("it was given none")
	}
	if why == nil {
		why = p.reached(argv, env, dir)
	}
	if why != nil {
		p.add(Rung{RungUser, false, why.Error()})
		return 0
	}
	p.add(Rung{RungUser, true, fmt.Sprint(p.box.User)})
	return p.box.User
}

// userWorks says why no process can be given a user of its own here.
var userWorks = sync.OnceValue(func() error {
	if os.Getuid() != 0 {
		return errors.New("only root may give one")
	}
	for _, name := range []string{"uid_map", "gid_map"} {
		b, err := os.ReadFile("/proc/self/" + name)
		if err != nil {
			return err
		}
		if !mapped(string(b), FirstUser, FirstUser+Users) {
			return errors.New("this container has too few users")
		}
	}
	return nil
})

// mapped says whether one line of a map of users holds all from first to end.
func mapped(text string, first, end uint64) bool {
	for l := range strings.Lines(text) {
		var inside, outside, n uint64
		if c, _ := fmt.Sscan(l, &inside, &outside, &n); c == 3 && inside <= first && inside+n >= end {
			return true
		}
	}
	return false
}

// takeHome makes the home with its tmp.
func (p *Plan) takeHome() error {
	if p.box.Home == "" {
		return nil
	}
	for _, dir := range []string{p.box.Home, filepath.Join(p.box.Home, "tmp")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make the home of a process: %w", err)
		}
		if os.Getuid() != 0 {
			continue
		}
		if err := os.Lchown(dir, p.user, p.user); err != nil {
			return fmt.Errorf("give a process its home: %w", err)
		}
	}
	return nil
}

// reached says what of a command and its folder another user than root could not reach: a program in root's
// home, a data directory that is closed to others.
func (p *Plan) reached(argv, env []string, dir string) error {
	given := append(append([]string{p.box.Home}, p.box.Read...), p.box.Write...)
	ways := given
	if !within(dir, given) {
		ways = append(ways, dir)
	}
	for _, path := range ways {
		if at, ok := closed(path, given); ok {
			return fmt.Errorf("only root may enter %s", at)
		}
	}
	for _, path := range programs(argv, env, dir) {
		if at, ok := closed(path, given); ok {
			return fmt.Errorf("its program is %s, and only root may enter %s", path, at)
		}
	}
	return nil
}

// closed finds the first folder on the way to a path that others may not pass, or the file that they may not
// read. What is given to the process counts as open from there on.
func closed(path string, given []string) (string, bool) {
	if path == "" {
		return "", false
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	at := "/"
	for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		at = filepath.Join(at, part)
		if within(at, given) {
			return "", false
		}
		info, err := os.Stat(at)
		if err != nil {
			return "", false // not there, for nobody
		}
		need := os.FileMode(0o1)
		if !info.IsDir() {
			need = 0o4
		}
		if info.Mode()&need == 0 {
			return at, true
		}
	}
	return "", false
}

// programs are the files that a command runs, as far as one can see from outside: its words, what they stand
// for in PATH, and the interpreter of a script and of a virtual environment.
func programs(argv, env []string, dir string) []string {
	words := argv[:min(1, len(argv))]
	if len(argv) == 3 && argv[1] == "-c" {
		words = strings.FieldsFunc(argv[2], func(r rune) bool { return strings.ContainsRune(" \t\n;&|()\"'", r) })
	}
	words = append([]string{".venv/bin/python"}, words...)
	var out []string
	for _, w := range words {
		path := w
		if !strings.Contains(w, "/") {
			path = inPath(w, env)
		} else if !filepath.IsAbs(w) {
			path = filepath.Join(dir, w)
		}
		info, err := os.Stat(path)
		if path == "" || err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			continue
		}
		out = append(out, path)
		if i := interpreter(path); i != "" {
			out = append(out, i)
		}
	}
	return out
}

// variable is the value of a variable in env; "" without.
func variable(name string, env []string) (value string) {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			value = v
		}
	}
	return value
}

func inPath(name string, env []string) string {
	for _, kv := range env {
		list, ok := strings.CutPrefix(kv, "PATH=")
		if !ok {
			continue
		}
		for _, d := range filepath.SplitList(list) {
			if info, err := os.Stat(filepath.Join(d, name)); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return filepath.Join(d, name)
			}
		}
	}
	return ""
}

// interpreter is the program that a script names in its first line; "" for none.
func interpreter(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, 256)
	n, _ := f.Read(b)
	line, ok := strings.CutPrefix(string(b[:n]), "#!")
	if !ok {
		return ""
	}
	line, _, _ = strings.Cut(line, "\n")
	if words := strings.Fields(line); len(words) > 0 && filepath.IsAbs(words[0]) {
		return words[0]
	}
	return ""
}

// within says whether a path is one of the folders or below one.
func within(path string, folders []string) bool {
	for _, f := range folders {
		if f != "" && (path == f || strings.HasPrefix(path, strings.TrimSuffix(f, "/")+"/")) {
			return true
		}
	}
	return false
}

// Give lets a group read and change a folder's files, and keeps all others but root and the owner out: what
// a process with a user of its own runs from. A file with several links may stand in other folders too: that
// one may be read, through folders alone that are closed to others. It does nothing where the folder
// has been given already.
func Give(dir string, group int) error {
	if os.Getuid() != 0 || group < FirstUser {
		return nil
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("give a folder to a process: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Gid) == group && info.Mode().Perm() == 0o770 {
		return nil
	}
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == dir || d.Type()&os.ModeSymlink != 0 {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := info.Mode().Perm()
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 && !d.IsDir() {
			return os.Chmod(path, mode|mode>>6&0o5|0o4)
		}
		if err := os.Lchown(path, -1, group); err != nil {
			return err
		}
		if d.IsDir() {
			mode |= 0o770
		}
		return os.Chmod(path, mode|mode>>3&0o70)
	})
	if err != nil {
		return fmt.Errorf("give a folder to a process: %w", err)
	}
	// Last: it says that all below is done.
	if err := errors.Join(os.Lchown(dir, -1, group), os.Chmod(dir, 0o770)); err != nil {
		return fmt.Errorf("give a folder to a process: %w", err)
	}
	return nil
}
