package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"tenfold/internal/measure"
	"time"

	"golang.org/x/sys/unix"
)

// Processors: the server's, and that of the load and the tasks.
const (
	serverCPU = 0
	loadCPU   = 1
)

// packages say what to install for a tool.
var packages = map[string]string{"wrk": "wrk", "h2load": "nghttp2-client", "taskset": "util-linux", "nginx": "nginx", "haproxy": "haproxy"}

// tools says what is missing, all at once.
func tools(names ...string) error {
	var missing []string
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			missing = append(missing, packages[n])
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("not installed: apt-get install %s", strings.Join(missing, " "))
}

// cpu is the time that the threads of some processes have run, in seconds.
func cpu(pids []int) (sum float64, err error) {
	for _, pid := range pids {
		own, _, err := measure.CPU(pid)
		if err != nil {
			return 0, err
		}
		sum += own
	}
	return sum, nil
}

// tree is a process and its descendants.
func tree(pid int) []int {
	out := []int{pid}
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, f := range strings.Fields(string(b)) {
		if child, err := strconv.Atoi(f); err == nil {
			out = append(out, tree(child)...)
		}
	}
	return out
}

// end stops a process that this program started, politely and then not.
func end(cmd *exec.Cmd, polite syscall.Signal) error {
	cmd.Process.Signal(polite)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case <-done:
		return nil
	case <-time.After(10 * time.Second):
		cmd.Process.Kill()
		<-done
		return fmt.Errorf("%s had to be killed", cmd.Path)
	}
}

// openFiles lets this program, and what it starts, hold as many files as it may: the number.
func openFiles() (int, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("read the limit of open files: %w", err)
	}
	if more := (unix.Rlimit{Cur: 200_000, Max: 200_000}); l.Max < more.Max && unix.Setrlimit(unix.RLIMIT_NOFILE, &more) == nil {
		return int(more.Cur), nil
	}
	l.Cur = l.Max // set, not only found so: otherwise Go gives children the limit it began with
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("raise the limit of open files: %w", err)
	}
	return int(l.Cur), nil
}

// measureOpen counts the files that a process has open.
func measureOpen(pid int) int {
	fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(fds)
}
