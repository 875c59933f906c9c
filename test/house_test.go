//go:build scenario

package test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tenfold/control"
)

// house is a data directory with the binary under test.
type house struct {
	t    *testing.T
	dir  string
	bin  string
	addr string // of the front door, once up
}

func newHouse(t *testing.T) *house {
	t.Helper()
	bin, err := filepath.Abs("../bin/tenfold")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("no binary: make build (%v)", err)
	}
	dir, err := os.MkdirTemp("", "tfh")
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o755) // PostgreSQL runs as another user when the tests run as root
	h := &house{t: t, dir: dir, bin: bin}
	t.Cleanup(func() {
		if t.Failed() {
			for pid, cmd := range h.mine() {
				if info, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil && strings.Contains(cmd, "house ") {
					t.Logf("since %s: %s", info.ModTime().UTC().Format("15:04:05.000"), cmd) // a process that was started anew
				}
			}
			for _, name := range []string{"daemon", "door"} {
				b, _ := os.ReadFile(filepath.Join(dir, "log", name+".log"))
				lines := strings.Split(string(b), "\n")
				t.Logf("%s:\n%s", name, strings.Join(lines[max(0, len(lines)-15):], "\n"))
			}
		}
		h.bin = bin
		h.run("down", "--house")
		h.gone()
		os.RemoveAll(dir)
	})
	return h
}

// run runs the command line and returns what it printed, both streams together, and its exit status.
func (h *house) run(args ...string) (string, int) { return h.runIn("", args...) }

func (h *house) runIn(dir string, args ...string) (string, int) {
	cmd := exec.Command(h.bin, append([]string{"--data", h.dir}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	status := 0
	if err != nil {
		status = cmd.ProcessState.ExitCode()
	}
	return string(out), status
}

// must runs and fails the test on another exit status than 0.
func (h *house) must(dir string, args ...string) string {
	h.t.Helper()
	out, status := h.runIn(dir, args...)
	if status != 0 {
		h.t.Fatalf("tenfold %s: exit %d\n%s", strings.Join(args, " "), status, out)
	}
	return out
}

// up starts the app of a folder, on a free port the first time.
func (h *house) up(dir string) string {
	h.t.Helper()
	out := h.must(dir, "up", "--detach", "--listen", h.listen())
	info, err := h.client().House(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	h.addr = info.Listen[0]
	return out
}

// upTLS starts the app of a folder with TLS beside plain HTTP, on free ports. It returns the address of
// TLS and who signs the house's certificates.
func (h *house) upTLS(dir string) (addr string, roots *x509.CertPool) {
	h.t.Helper()
	h.must(dir, "up", "--detach", "--listen", "127.0.0.1:0", "--tls", "127.0.0.1:0")
	info, err := h.client().House(h.t.Context())
	if err != nil || len(info.Listen) != 2 {
		h.t.Fatalf("%+v, %v", info, err)
	}
	roots = x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(info.Root)) {
		h.t.Fatalf("no root: %q", info.Root)
	}
	h.addr = info.Listen[0]
	return info.Listen[1], roots
}

// next builds another version of the binary, which is there as long as the house.
func (h *house) next() string {
	h.t.Helper()
	next := filepath.Join(h.dir, "next")
	build := exec.Command("go", "build", "-tags", "nodynamic", "-ldflags", "-X main.version=next", "-o", next, "./cmd/tenfold")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		h.t.Fatalf("%v\n%s", err, out)
	}
	return next
}

func (h *house) listen() string {
	if h.addr != "" {
		return h.addr
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (h *house) client() *control.Client { return control.Unix(filepath.Join(h.dir, "control.sock")) }

// get asks the front door with a host name.
func (h *house) get(host, path string) (int, string) {
	req, _ := http.NewRequest("GET", "http://"+h.addr+path, nil)
	req.Host = host
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

// ask is like get, but follows no redirect, may be edited first, and gives the headers too.
func (h *house) ask(host, path string, edit func(*http.Request)) (int, string, http.Header) {
	h.t.Helper()
	r, _ := http.NewRequest("GET", "http://"+h.addr+path, nil)
	r.Host = host
	if edit != nil {
		edit(r)
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return res.StatusCode, string(b), res.Header
}

func eventually(t *testing.T, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	for begun := time.Now(); !ok(); <-time.After(20 * time.Millisecond) {
		if time.Since(begun) > limit {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// mine lists the living processes of the house, by the mark that the keeper puts in their environment
// or the data directory on their command line or as the folder they work in.
func (h *house) mine() map[int]string {
	out := map[int]string{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(d))
		cmdline, _ := os.ReadFile(d + "/cmdline")
		environ, _ := os.ReadFile(d + "/environ")
		stat, _ := os.ReadFile(d + "/stat")
		if i := bytes.LastIndexByte(stat, ')'); i < 0 || len(stat) < i+3 || stat[i+2] == 'Z' || pid == os.Getpid() {
			continue
		}
		cwd, _ := os.Readlink(d + "/cwd") // Redis writes its title over both of the others
		if bytes.Contains(cmdline, []byte(h.dir)) || bytes.Contains(environ, []byte(h.dir)) || strings.HasPrefix(cwd, h.dir) {
			out[pid] = string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '}))
		}
	}
	return out
}

// process finds the pid of one of the house's processes by a part of its command line.
func (h *house) process(part string) int {
	for pid, cmd := range h.mine() {
		if strings.Contains(cmd, part) {
			return pid
		}
	}
	return 0
}

// kill waits for a process of the house, kills it and waits until it is gone: what is asked of the house
// afterwards is not answered by the dying. Never by an unchecked pid: kill(0) is our own process group,
// the test and everything that started it.
func (h *house) kill(part string) {
	h.t.Helper()
	pid := 0
	for begun := time.Now(); pid <= 1; <-time.After(20 * time.Millisecond) {
		if pid = h.process(part); pid <= 1 && time.Since(begun) > 20*time.Second {
			h.t.Fatalf("no %s to kill among %v", part, h.mine())
		}
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		h.t.Fatal(err)
	}
	for { // readable once the last of its threads has ended
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 20000)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n != 1 {
			h.t.Fatalf("%s, process %d, outlives SIGKILL (%v)", part, pid, err)
		}
		return
	}
}

func (h *house) gone() {
	h.t.Helper()
	for begun := time.Now(); len(h.mine()) > 0; <-time.After(50 * time.Millisecond) {
		if time.Since(begun) > 20*time.Second {
			h.t.Errorf("processes are left: %v", h.mine())
			for pid := range h.mine() {
				syscall.Kill(pid, syscall.SIGKILL)
			}
			return
		}
	}
}

// write makes a project of files.
func write(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(p), 0o755)
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// load is traffic against the front door: half of its clients keep their connection, half open a new
// one for each request; GET and POST in turn.
type load struct {
	ok, failed atomic.Int64
	mu         sync.Mutex
	first      []string
	stop       context.CancelFunc
	done       sync.WaitGroup
	get        atomic.Int64 // failed GETs
}

func (h *house) load(host string, clients int, pause time.Duration) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{stop: cancel}
	for i := range clients {
		tr := &http.Transport{DisableKeepAlives: i%2 == 0}
		c := &http.Client{Transport: tr, Timeout: 30 * time.Second}
		l.done.Go(func() {
			defer tr.CloseIdleConnections()
			for n := 0; ctx.Err() == nil; n++ {
				l.one(c, h.addr, host, n)
				select {
				case <-ctx.Done():
				case <-time.After(pause):
				}
			}
		})
	}
	return l
}

func (l *load) one(c *http.Client, addr, host string, n int) {
	method, body := "GET", ""
	if n%2 == 1 {
		method, body = "POST", "hello "+strconv.Itoa(n)
	}
	req, _ := http.NewRequest(method, "http://"+addr+"/echo", strings.NewReader(body))
	req.Host = host
	sent := time.Now()
	res, err := c.Do(req)
	why := ""
	if err != nil {
		why = err.Error()
	} else {
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		switch {
		case err != nil:
			why = err.Error()
		case res.StatusCode != 200:
			why = fmt.Sprintf("%d %s", res.StatusCode, b)
		case method == "POST" && !strings.HasSuffix(string(b), body):
			why = "wrong answer: " + string(b)
		}
	}
	if why == "" {
		l.ok.Add(1)
		return
	}
	l.failed.Add(1)
	if method == "GET" {
		l.get.Add(1)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.first) < 5 {
		l.first = append(l.first, fmt.Sprintf("%s %s after %s: %s", time.Now().UTC().Format("15:04:05.000"), method, time.Since(sent).Round(time.Millisecond), why))
	}
}

func (l *load) end() (ok, failed int64) {
	l.stop()
	l.done.Wait()
	return l.ok.Load(), l.failed.Load()
}

func decode[T any](t *testing.T, s string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatalf("%v in %q", err, s)
	}
	return v
}
