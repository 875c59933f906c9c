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

// process is one line of /proc.
type process struct {
	pid, ppid, session int
	state              byte
}

// processes lists what runs, without zombies.
func processes() []process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
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
	// The name stands in parentheses and may hold anything.
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return process{}, false
	}
	f := strings.Fields(string(b[i+1:]))
	if len(f) < 4 {
		return process{}, false
	}
	ppid, _ := strconv.Atoi(f[1])
	session, _ := strconv.Atoi(f[3])
	return process{pid, ppid, session, f[0][0]}, true
}

// marked says whether a process was started with this line in its environment. Another user's
// environment cannot be read by one who is not root: then session and parents have to tell.
func marked(pid int, line string) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	return err == nil && (bytes.HasPrefix(b, []byte(line+"\x00")) || bytes.Contains(b, []byte("\x00"+line+"\x00")))
}

// tree finds the living processes of a unit: those marked with its id, of its session, or below
// one of these. PIDs in known count as found before they moved away (their parents died).
func tree(id string, session int, known map[int]bool) []int {
	all := processes()
	in := map[int]bool{}
	for _, p := range all {
		if p.session == session && session > 0 || known[p.pid] || marked(p.pid, markUnit+id) {
			in[p.pid] = true
		}
	}
	for grown := true; grown; {
		grown = false
		for _, p := range all {
			if in[p.ppid] && !in[p.pid] {
				in[p.pid], grown = true, true
			}
		}
	}
	out := []int{}
	for _, p := range all {
		if in[p.pid] && p.pid != os.Getpid() {
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

// children lists the living direct children of this process.
func children() []int {
	var out []int
	self := os.Getpid()
	for _, p := range processes() {
		if p.ppid == self {
			out = append(out, p.pid)
		}
	}
	return out
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
