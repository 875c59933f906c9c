package keeper

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// The marks in the environment by which descendants are found, whatever session they moved to.
const (
	markUnit  = "TENFOLD_UNIT="
	markHouse = "TENFOLD_HOUSE="
)

// UnitOf is the id of the unit that the keeper started a process for, by its environment; "" for none.
func UnitOf(env []string) (id string) {
	for _, kv := range env {
		if v, is := strings.CutPrefix(kv, markUnit); is {
			id = v
		}
	}
	return id
}

// process is one line of /proc.
type process struct {
	pid, ppid, session int
	state              byte
	began              uint64 // in ticks since the machine's start: a pid may come again, not both
}

// processes lists what runs, without zombies.
func processes() []process { return processesAbove(0) }

// younger lists what runs and has begun after a process that has just begun: of numbers above its own, unless the
// kernel has begun to count anew since. Reading of all others costs more than all else that a start needs.
func younger(pid int) []process {
	// "0.20 0.18 0.12 1/80 11206": the last is the number that was given last.
	b, err := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(b))
	if err != nil || len(f) < 5 {
		return processes()
	}
	if last, err := strconv.Atoi(f[4]); err != nil || last < pid {
		return processes()
	}
	return processesAbove(pid)
}

func processesAbove(low int) []process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid <= low {
			continue
		}
		if p, ok := stat(pid); ok && p.state != 'Z' && p.state != 'X' {
			out = append(out, p)
		}
	}
	return out
}

func stat(pid int) (process, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}, false
	}
	return parseStat(pid, b)
}

// parseStat reads /proc/<pid>/stat.
func parseStat(pid int, b []byte) (process, bool) {
	// The name stands in parentheses and may hold anything.
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return process{}, false
	}
	f := strings.Fields(string(b[i+1:]))
	if len(f) < 20 {
		return process{}, false
	}
	ppid, _ := strconv.Atoi(f[1])
	session, _ := strconv.Atoi(f[3])
	began, _ := strconv.ParseUint(f[19], 10, 64)
	return process{pid, ppid, session, f[0][0], began}, true
}

// marked says whether a process was started with these lines in its environment. Another user's
// environment cannot be read by one who is not root: then session and parents have to tell.
func marked(pid int, lines ...string) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false
	}
	for _, line := range lines {
		if !bytes.HasPrefix(b, []byte(line+"\x00")) && !bytes.Contains(b, []byte("\x00"+line+"\x00")) {
			return false
		}
	}
	return true
}

// family is what was found of a unit's tree so far, by pid, with the beginning of each process.
type family map[int]uint64

// look finds the living processes of a unit: those in its cgroup, marked with its id, of its
// session, found before, or below one of these. Another house's unit of the same id has the same
// mark for its unit, so that of the house has to be there too. No single way is enough: a child can leave the
// session and clear its environment, an orphan has lost its parents, and a cgroup may not exist.
func (known family) look(house, id string, p *proc) []int {
	return known.among(processes(), house, id, p)
}

// among is look among processes that were listed.
func (known family) among(all []process, house, id string, p *proc) []int {
	in := map[int]bool{}
	for _, pid := range p.group.processes() {
		in[pid] = true
	}
	for _, q := range all {
		began, seen := known[q.pid]
		if seen && began == q.began || p.pid > 0 && q.session == p.pid || !in[q.pid] && marked(q.pid, markUnit+id, markHouse+house) {
			in[q.pid] = true
		}
	}
	grow(all, in)
	out := []int{}
	for _, q := range all {
		if in[q.pid] && q.pid != os.Getpid() {
			known[q.pid] = q.began
			out = append(out, q.pid)
		}
	}
	return out
}

// grow adds the children of those who are in.
func grow(all []process, in map[int]bool) {
	for grown := true; grown; {
		grown = false
		for _, p := range all {
			if in[p.ppid] && !in[p.pid] {
				in[p.pid], grown = true, true
			}
		}
	}
}

// descendants lists the living processes below pid.
func descendants(pid int) []int {
	all, in := processes(), map[int]bool{pid: true}
	grow(all, in)
	var out []int
	for _, p := range all {
		if in[p.pid] && p.pid != pid {
			out = append(out, p.pid)
		}
	}
	return out
}

// kill sends a signal to each.
func kill(pids []int, sig syscall.Signal) {
	for _, p := range pids {
		syscall.Kill(p, sig)
	}
}

// lookPath finds a program in the PATH of env.
func lookPath(name string, env []string, dir string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, nil
	}
	for _, kv := range env {
		list, ok := strings.CutPrefix(kv, "PATH=")
		if !ok {
			continue
		}
		for _, d := range filepath.SplitList(list) {
			p := filepath.Join(d, name)
			if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return p, nil
			}
		}
	}
	return "", &os.PathError{Op: "find in PATH", Path: name, Err: os.ErrNotExist}
}
