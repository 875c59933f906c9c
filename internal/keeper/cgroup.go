package keeper

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"tenfold/internal/isolate"
)

// groups is where cgroups can be made: version 2 below the keeper's own (systemd with Delegate=yes),
// version 1 hierarchies when root may write them. Nothing here ever keeps a unit from starting.
type groups struct {
	once  sync.Once
	bases map[string]string // by controller: the folder below which groups are made; "" is version 2 itself
	two   map[string]bool   // controllers that version 2 enforces
}

// group is the cgroup of one process of a unit: a folder in each hierarchy that is needed.
// A nil group holds nothing.
type group struct {
	mu     sync.Mutex
	dirs   []string // under mu
	memory string   // under mu: the folder that counts kills for memory
	held   []string // under mu: the controllers that limit it, "v2 memory"
	two    string   // the folder of version 2; not handed on by a re-exec, since only a fork needs it
}

const (
	groupPrefix = "tenfold-"
	houseGroup  = groupPrefix + "house"
)

func groupName(house, id string) string { return groupPrefix + house + "-" + hash(id) }

// find finds where groups can be made, and makes ready for them.
func (g *groups) find() {
	g.look()
	if base, ok := g.bases[""]; ok {
		g.delegate(base)
	}
}

// look reads where this process's own groups are.
func (g *groups) look() {
	g.bases, g.two = map[string]string{}, map[string]bool{}
	own := map[string]string{} // by controller, "" for version 2
	lines(procSelf("cgroup"), func(l string) {
		if p := strings.SplitN(l, ":", 3); len(p) == 3 {
			for c := range strings.SplitSeq(p[1], ",") {
				own[c] = p[2]
			}
		}
	})
	lines(procSelf("mountinfo"), func(l string) {
		before, after, ok := strings.Cut(l, " - ")
		f, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(kind) < 3 {
			return
		}
		root, mount := f[3], f[4]
		names := []string{""}
		switch kind[0] {
		case "cgroup2":
		case "cgroup":
			names = strings.Split(kind[2], ",")
		default:
			return
		}
		for _, c := range names {
			p, ok := own[c]
			if !ok {
				continue
			}
			dir := filepath.Join(mount, strings.TrimPrefix(p, strings.TrimSuffix(root, "/")))
			if filepath.Base(dir) == houseGroup { // moved there before a re-exec
				dir = filepath.Dir(dir)
			}
			if syscall.Access(filepath.Join(dir, "cgroup.procs"), 2) == nil && syscall.Access(dir, 2) == nil {
				g.bases[c] = dir
			}
		}
	})
}

// delegate hands memory, cpu and pids of version 2 to groups below base. A group with processes of its own
// may not, so the keeper and its warden move into one beside the units'.
func (g *groups) delegate(base string) {
	b, err := os.ReadFile(filepath.Join(base, "cgroup.controllers"))
	if err != nil {
		return
	}
	if _, err := os.Stat(filepath.Join(base, "cgroup.type")); err == nil && len(strings.Fields(string(b))) > 0 { // not the root
		house := filepath.Join(base, houseGroup)
		os.Mkdir(house, 0o755)
		lines(filepath.Join(base, "cgroup.procs"), func(pid string) {
			if pid == strconv.Itoa(os.Getpid()) || pid == strconv.Itoa(os.Getppid()) {
				put(house, "cgroup.procs", pid)
			}
		})
	}
	for _, c := range strings.Fields(string(b)) {
		if c == "memory" || c == "cpu" || c == "pids" {
			g.two[c] = put(base, "cgroup.subtree_control", "+"+c) == nil
		}
	}
}

// make makes the group of a unit with its limits. unenforced says which of them do not hold, and why.
func (g *groups) make(house, id string, l Limits) (made *group, unenforced string) {
	g.once.Do(g.find)
	made = &group{}
	name := groupName(house, id)
	// One hierarchy to find descendants by; version 2 where it can be written.
	for _, c := range []string{"", "pids", "freezer"} {
		if dir, err := made.in(g.bases, c, name); err == nil {
			if c == "" {
				made.two = dir
			}
			break
		}
	}
	return made, g.limit(made, name, l)
}

var errNoGroup = errors.New("no cgroup can be written here")

// in makes the group's folder in the hierarchy of a controller.
func (m *group) in(bases map[string]string, controller, name string) (string, error) {
	base, ok := bases[controller]
	if !ok {
		return "", errNoGroup
	}
	dir := filepath.Join(base, name)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Contains(m.dirs, dir) {
		m.dirs = append(m.dirs, dir)
	}
	return dir, nil
}

// holds notes that a controller limits the group.
func (m *group) holds(controller string, two bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := controller + " (v1)"
	if two {
		name = controller + " (v2)"
	}
	if !slices.Contains(m.held, name) {
		m.held = append(m.held, name)
	}
}

// rung says what of cgroups holds for the process in the group.
func (m *group) rung(unenforced string) isolate.Rung {
	r := isolate.Rung{Name: rungCgroup, Found: unenforced}
	m.mu.Lock()
	defer m.mu.Unlock()
	if unenforced == "" {
		r.OK, r.Found = len(m.held) > 0, strings.Join(m.held, ", ")
	}
	if r.Found == "" {
		r.Found = errNoGroup.Error()
	}
	return r
}

// rungCgroup is the rung that is the keeper's.
const rungCgroup = "cgroup"

// Ladder says which rungs this machine has for units of a keeper that runs as this process does, and changes nothing.
func Ladder() []isolate.Rung {
	g := &groups{}
	g.look()
	found := map[string]string{} // by controller
	if base, ok := g.bases[""]; ok {
		b, _ := os.ReadFile(filepath.Join(base, "cgroup.controllers"))
		for _, c := range strings.Fields(string(b)) {
			found[c] = c + " (v2)"
		}
	}
	var have, miss []string
	for _, c := range []string{"cpu", "memory", "pids"} {
		if _, ok := g.bases[c]; ok && found[c] == "" {
			found[c] = c + " (v1)"
		}
		if found[c] == "" {
			miss = append(miss, c)
		} else {
			have = append(have, found[c])
		}
	}
	r := isolate.Rung{Name: rungCgroup, OK: len(miss) == 0, Found: strings.Join(have, ", ")}
	switch {
	case len(have) == 0:
		r.Found = errNoGroup.Error()
	case len(miss) > 0:
		r.Found += "; not " + strings.Join(miss, ", ")
	}
	out := isolate.Probe()
	return slices.Insert(out, 2, r)
}

// folders are the group's, one in each hierarchy that it is in.
func (m *group) folders() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.dirs)
}

// open opens the group of version 2, into which a process can be born.
func (m *group) open() (*os.File, error) {
	if m == nil || m.two == "" {
		return nil, errNoGroup
	}
	return os.Open(m.two)
}

// join moves a process into the group, with what it may have started already, as far as that is among others.
func (m *group) join(house, id string, p *proc, others func() []process) error {
	if m == nil || len(m.folders()) == 0 {
		return nil
	}
	var failed error
	early := family{}.among(append(others(), process{pid: p.pid, session: p.pid}), house, id, p)
	for _, dir := range m.folders() {
		if err := put(dir, "cgroup.procs", strconv.Itoa(p.pid)); err != nil && !errors.Is(err, syscall.ESRCH) {
			failed = errors.Join(failed, err)
		}
		for _, pid := range early {
			if pid != p.pid { // each is a lock that all forks of the machine wait for
				put(dir, "cgroup.procs", strconv.Itoa(pid))
			}
		}
	}
	return failed
}

// processes lists who is in the group.
func (m *group) processes() []int {
	if m == nil {
		return nil
	}
	var out []int
	for _, dir := range m.folders() {
		lines(filepath.Join(dir, "cgroup.procs"), func(l string) {
			if pid, err := strconv.Atoi(l); err == nil && pid > 0 {
				out = append(out, pid)
			}
		})
	}
	return out
}

// killedForMemory says whether the kernel killed one of the group for memory.
func (m *group) killedForMemory() bool {
	if m == nil {
		return false
	}
	m.mu.Lock()
	folder := m.memory
	m.mu.Unlock()
	if folder == "" {
		return false
	}
	killed := false
	for _, name := range []string{"memory.events", "memory.oom_control"} {
		lines(filepath.Join(folder, name), func(l string) {
			if n, ok := strings.CutPrefix(l, "oom_kill "); ok && n != "0" {
				killed = true
			}
		})
	}
	return killed
}

// remove removes the group, which is empty when its unit is fenced.
func (m *group) remove() {
	if m != nil {
		for _, dir := range m.folders() {
			os.Remove(dir)
		}
	}
}

// left finds the groups of an earlier keeper of the house.
func (g *groups) left(house string) *group {
	g.once.Do(g.find)
	found := &group{}
	for _, base := range g.bases {
		dirs, _ := filepath.Glob(filepath.Join(base, groupPrefix+house+"-*"))
		found.dirs = append(found.dirs, dirs...)
	}
	return found
}

func procSelf(name string) string { return "/proc/self/" + name }

// put writes a control file, which has to exist.
func put(dir, name, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}

// lines calls f for each line of a file, for none when it cannot be read.
func lines(path string, f func(string)) {
	file, err := os.Open(path)
	if err != nil {
		return
	}
	defer file.Close()
	for s := bufio.NewScanner(file); s.Scan(); {
		f(s.Text())
	}
}
