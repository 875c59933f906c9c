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
	dirs   []string
	memory string // the folder that counts kills for memory
	two    string // the folder of version 2; not handed on by a re-exec, since only a fork needs it
}

const (
	groupPrefix = "tenfold-"
	houseGroup  = groupPrefix + "house"
)

func groupName(house, id string) string { return groupPrefix + house + "-" + hash(id) }

// find reads where this process's own groups are.
func (g *groups) find() {
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
	if base, ok := g.bases[""]; ok {
		g.delegate(base)
	}
}

// delegate hands memory and cpu of version 2 to groups below base. A group with processes of its own
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
		if c == "memory" || c == "cpu" {
			g.two[c] = put(base, "cgroup.subtree_control", "+"+c) == nil
		}
	}
}

// make makes the group of a unit with its limits. unenforced says which of them do not hold, and why.
func (g *groups) make(house string, u Unit) (made *group, unenforced string) {
	g.once.Do(g.find)
	made = &group{}
	var missing []string
	name := groupName(house, u.ID)
	// One hierarchy to find descendants by; version 2 where it can be written.
	for _, c := range []string{"", "pids", "freezer"} {
		if dir, err := made.in(g.bases, c, name); err == nil {
			if c == "" {
				made.two = dir
			}
			break
		}
	}
	if u.Memory > 0 {
		if err := g.limitMemory(made, name, u.Memory); err != nil {
			missing = append(missing, "memory: "+err.Error())
		}
	}
	if u.CPU > 0 {
		if err := g.limitCPU(made, name, u.CPU); err != nil {
			missing = append(missing, "cpu: "+err.Error())
		}
	}
	return made, strings.Join(missing, "; ")
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
	if !slices.Contains(m.dirs, dir) {
		m.dirs = append(m.dirs, dir)
	}
	return dir, nil
}

func (g *groups) limitMemory(m *group, name string, bytes int64) error {
	limit := strconv.FormatInt(bytes, 10)
	if g.two["memory"] {
		dir, err := m.in(g.bases, "", name)
		if err != nil {
			return err
		}
		m.memory = dir
		put(dir, "memory.swap.max", "0") // no such file without swap accounting
		return put(dir, "memory.max", limit)
	}
	dir, err := m.in(g.bases, "memory", name)
	if err != nil {
		return err
	}
	m.memory = dir
	if err := put(dir, "memory.limit_in_bytes", limit); err != nil {
		return err
	}
	put(dir, "memory.memsw.limit_in_bytes", limit) // likewise
	return nil
}

func (g *groups) limitCPU(m *group, name string, cores float64) error {
	const period = 100_000 // microseconds
	quota := strconv.Itoa(max(1000, int(cores*period)))
	if g.two["cpu"] {
		dir, err := m.in(g.bases, "", name)
		if err != nil {
			return err
		}
		return put(dir, "cpu.max", quota+" "+strconv.Itoa(period))
	}
	dir, err := m.in(g.bases, "cpu", name)
	if err != nil {
		return err
	}
	return errors.Join(put(dir, "cpu.cfs_period_us", strconv.Itoa(period)), put(dir, "cpu.cfs_quota_us", quota))
}

// open opens the group of version 2, into which a process can be born.
func (m *group) open() (*os.File, error) {
	if m == nil || m.two == "" {
		return nil, errNoGroup
	}
	return os.Open(m.two)
}

// join moves a process that has just begun into the group, with what it may have started already.
func (m *group) join(house, id string, p *proc) error {
	if m == nil || len(m.dirs) == 0 {
		return nil
	}
	var failed error
	early := family{}.look(house, id, p)
	for _, dir := range m.dirs {
		if err := put(dir, "cgroup.procs", strconv.Itoa(p.pid)); err != nil && !errors.Is(err, syscall.ESRCH) {
			failed = errors.Join(failed, err)
		}
		for _, pid := range early {
			put(dir, "cgroup.procs", strconv.Itoa(pid))
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
	for _, dir := range m.dirs {
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
	if m == nil || m.memory == "" {
		return false
	}
	killed := false
	for _, name := range []string{"memory.events", "memory.oom_control"} {
		lines(filepath.Join(m.memory, name), func(l string) {
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
		for _, dir := range m.dirs {
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
