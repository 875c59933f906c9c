package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tenfold/internal/measure"
)

// house is Tenfold, running the app of app.go in a data directory of its own.
type house struct {
	bin   string
	data  string
	app   string // the project's folder
	place string // what tasks leave
	base  string // "http://127.0.0.1:port" of the door
	tls   string // "https://localhost:port"; "" where this version offers no TLS
	door  int    // its process
}

// tlsHost is what clients that speak TLS ask for: wrk takes the server's name from the URL, so it has to
// be one that resolves; the house certifies it and the app, the only one, answers for it.
const tlsHost = "localhost"

// openHouse starts the house on the load's processor and moves the door to its own. With one
// processor to begin with, every Go runtime in it works with one thread, tasks included.
func openHouse(dir, bin string) (*house, error) {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(bin); err != nil {
		return nil, fmt.Errorf("find the program to measure: %w: run make build first", err)
	}
	h := &house{bin: bin, data: filepath.Join(dir, "data"), app: filepath.Join(dir, "app"), place: filepath.Join(dir, "place")}
	if err := h.project(); err != nil {
		return nil, err
	}
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	args := []string{"-c", strconv.Itoa(loadCPU), bin, "--data", h.data, "up", "--detach", "--listen", ports[0], h.app}
	h.base = "http://" + ports[0]
	if help, err := exec.Command(bin, "up", "--help").Output(); err == nil && strings.Contains(string(help), "--tls") {
		args = append(args, "--tls", ports[1])
		h.tls = "https://" + tlsHost + strings.TrimPrefix(ports[1], "127.0.0.1")
	}
	cmd := exec.Command("taskset", args...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the app: %w: %s", err, out), h.close())
	}
	if err := h.find(); err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

// project writes the app: this program as its tasks, a page as its frontend.
func (h *house) project() error {
	self, err := executable()
	if err != nil {
		return err
	}
	program, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	// A folder for each service: a deploy of one then leaves the others' tasks alone.
	for _, service := range []string{"bytes", "drill", "roll", "four"} {
		folder := filepath.Join(h.app, service)
		err = errors.Join(err, os.MkdirAll(folder, 0o755), os.WriteFile(filepath.Join(folder, "bench"), program, 0o755))
	}
	return errors.Join(
		err, os.MkdirAll(h.place, 0o777), os.Chmod(h.place, 0o777),
		os.WriteFile(filepath.Join(h.app, "tenfold.yaml"), fmt.Appendf(nil, manifest, h.place), 0o644),
		writeRelease(filepath.Join(h.app, "web"), 0),
	)
}

// find learns which process the door is, and puts it on its processor.
func (h *house) find() error {
	doors := h.processes("door")
	if len(doors) != 1 {
		return fmt.Errorf("found %d processes of the door", len(doors))
	}
	h.door = doors[0]
	measure.Favour(h.door)
	return measure.Pin(h.door, serverCPU)
}

// processes are the house's own of a mode.
func (h *house) processes(mode string) []int {
	return measure.Processes(func(args []string) bool {
		return len(args) > 2 && args[0] == h.bin && args[1] == "house" && args[2] == mode && slices.Contains(args, h.data)
	})
}

// left is where a file lies that tasks leave: in the place, or, shut in, in their service's home.
func (h *house) left(name string) string {
	file := filepath.Join(h.place, name)
	if _, err := os.Stat(file); err == nil {
		return file
	}
	filepath.WalkDir(h.data, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == name && e.Type().IsRegular() {
			file = path
			return filepath.SkipAll
		}
		return nil
	})
	return file
}

// tenfold runs a command of the program on the app.
func (h *house) tenfold(args ...string) ([]byte, error) {
	cmd := exec.Command(h.bin, append([]string{"--data", h.data, "--app", "bench"}, args...)...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("tenfold %s: %w: %s", strings.Join(args, " "), err, exit.Stderr)
	}
	return out, err
}

type status struct {
	State string `json:"state"`
	Tasks []struct {
		Service string `json:"service"`
		State   string `json:"state"`
		PID     int    `json:"pid"`
		Port    int    `json:"port"`
	} `json:"tasks"`
}

func (h *house) status() (status, error) {
	var st status
	out, err := h.tenfold("--json", "status")
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal(out, &st)
}

// tasks gives the processes and addresses of a service's serving tasks.
func (h *house) tasks(service string) (pids []int, addrs []string, err error) {
	st, err := h.status()
	if err != nil {
		return nil, nil, err
	}
	for _, t := range st.Tasks {
		if t.Service == service && t.State == "serving" {
			pids, addrs = append(pids, t.PID), append(addrs, "127.0.0.1:"+strconv.Itoa(t.Port))
		}
	}
	return pids, addrs, nil
}

// settled waits until the app is healthy and the service has that many serving tasks.
func (h *house) settled(service string, tasks int) error {
	for begun := time.Now(); time.Since(begun) < 60*time.Second; time.Sleep(50 * time.Millisecond) {
		st, err := h.status()
		if err != nil {
			continue // the daemon may be starting again
		}
		n := 0
		for _, t := range st.Tasks {
			if t.Service == service && t.State == "serving" {
				n++
			}
		}
		if n == tasks && st.State == "healthy" {
			return nil
		}
	}
	return fmt.Errorf("service %s does not get its %d tasks", service, tasks)
}

func (h *house) side() side {
	return side{name: "tenfold", base: h.base, tls: h.tls, pids: func() []int { return []int{h.door} }}
}

func (h *house) close() error {
	if _, err := os.Stat(h.data); err != nil {
		return nil
	}
	_, err := h.tenfold("down", "--house")
	if err != nil && len(h.processes("warden")) == 0 {
		return nil // the house was gone before the answer was
	}
	return err
}
