//go:build scenario

package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tenfold"
	"tenfold/control"
)

// crate is a server for an image that holds nothing else: no shell, no libraries.
const crate = `package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

var version = "0"

var held [][]byte

func main() {
	if len(os.Args) > 1 {
		in, _ := io.ReadAll(os.Stdin)
		fmt.Println("asked to", os.Args[1], "with", os.Getenv("WORD"), string(in))
		if os.Args[1] == "fail" {
			os.Exit(7)
		}
		return
	}
	fmt.Println("crate", version, "begins")
	if api := os.Getenv("AWS_LAMBDA_RUNTIME_API"); api != "" {
		at := "http://" + api + "/2018-06-01/runtime/invocation/"
		for {
			res, err := http.Get(at + "next")
			if err != nil {
				return
			}
			event, _ := io.ReadAll(res.Body)
			res.Body.Close()
			answer := fmt.Sprintf("{\"statusCode\": 200, \"body\": \"%s %s, an event of %t\"}", os.Getenv("AWS_LAMBDA_FUNCTION_NAME"), os.Getenv("WORD"), len(event) > 0)
			if res, err = http.Post(at+res.Header.Get("Lambda-Runtime-Aws-Request-Id")+"/response", "application/json", strings.NewReader(answer)); err == nil {
				res.Body.Close()
			}
		}
	}
	if version == "bad" {
		fmt.Println("panic: nothing to sell")
		os.Exit(3)
	}
	slow, _ := time.ParseDuration(os.Getenv("SLOW"))
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		time.Sleep(slow)
		if os.Getenv("FAILS") != "" && r.URL.Path != "/healthz" {
			w.WriteHeader(500)
		}
		fmt.Fprintf(w, "crate %s %s", version, b)
	})
	http.HandleFunc("/caps", func(w http.ResponseWriter, r *http.Request) {
		b, _ := os.ReadFile("/proc/self/status")
		w.Write(b)
	})
	http.HandleFunc("/eat", func(w http.ResponseWriter, r *http.Request) {
		for range 64 {
			b := make([]byte, 8<<20)
			for i := range b {
				b[i] = 1
			}
			held = append(held, b)
		}
		fmt.Fprint(w, "ate 512 MB")
	})
	s := &http.Server{Addr: "127.0.0.1:" + os.Getenv("PORT")}
	go s.ListenAndServe()
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	<-c
	s.Shutdown(context.Background())
	fmt.Println("crate", version, "ends")
}
`

const crateDockerfile = "FROM scratch\nCOPY crate /crate\nENTRYPOINT [\"/crate\"]\n"

// engine is a real one of the test's own, Docker's or Podman's, in a folder of its own, with no network but the machine's.
type engine struct {
	t      *testing.T
	socket string
	cli    []string // its own command line
	limits []string // of what a container asks for that the machine may refuse; the driver asks for less by itself
}

// startEngine starts Docker's, or skips the test and says why that cannot be.
func startEngine(t *testing.T) *engine {
	t.Helper()
	for _, program := range []string{"dockerd", "containerd", "runc", "docker"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no container engine: %v (scripts/need scenarios installs docker.io)", err)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("an engine of the test's own needs root")
	}
	dir, err := os.MkdirTemp("", "tfd") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{t: t, socket: filepath.Join(dir, "d.sock"), cli: []string{"docker"}}
	e.start(dir, exec.Command("dockerd", "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "pid"),
		"-H", "unix://"+e.socket, "--iptables=false", "--ip-forward=false", "--ip-masq=false", "--bridge=none", "--storage-driver=vfs"))
	return e
}

// startPodman starts Podman's service, or skips the test and says why that cannot be.
func startPodman(t *testing.T) *engine {
	t.Helper()
	for _, program := range []string{"podman", "conmon"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no Podman: %v (scripts/need scenarios installs podman)", err)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("an engine of the test's own needs root")
	}
	dir, err := os.MkdirTemp("", "tfp")
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{t: t, socket: filepath.Join(dir, "p.sock"), limits: []string{"--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"},
		cli: []string{"podman", "--root", filepath.Join(dir, "data"), "--runroot", filepath.Join(dir, "run"), "--tmpdir", filepath.Join(dir, "tmp"), "--storage-driver", "vfs"}}
	args := append(slices.Clone(e.cli[1:]), "system", "service", "--time", "0", "unix://"+e.socket)
	e.start(dir, exec.Command("podman", args...))
	return e
}

// start starts the engine's process, and runs a first container. It ends with the test, and its folder goes.
func (e *engine) start(dir string, cmd *exec.Cmd) {
	t, name := e.t, cmd.Args[0]
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			cmd.Process.Kill()
			<-ended
		}
		mounts, _ := filepath.Glob(filepath.Join(dir, "exec", "netns", "*"))
		for _, m := range append(mounts, filepath.Join(dir, "data", "vfs")) { // Podman binds this one to itself
			unix.Unmount(m, unix.MNT_DETACH)
		}
		os.RemoveAll(dir)
		if t.Failed() {
			lines := strings.Split(out.String(), "\n")
			t.Logf("%s:\n%s", name, strings.Join(lines[max(0, len(lines)-20):], "\n"))
		}
	})
	for begun := time.Now(); ; <-time.After(50 * time.Millisecond) {
		c, err := net.Dial("unix", e.socket)
		if err == nil {
			c.Close()
			break
		}
		select {
		case <-ended:
			t.Skipf("%s does not start here:\n%s", name, out.String())
		default:
		}
		if time.Since(begun) > 60*time.Second {
			t.Skipf("%s does not answer here:\n%s", name, out.String())
		}
	}
	t.Setenv("DOCKER_HOST", "unix://"+e.socket)
	e.image("crate:1", "1")
	run := append(append([]string{"run", "--rm", "--network", "host", "--memory", "64m"}, e.limits...), "crate:1", "try")
	if out, err := e.docker(run...); err != nil {
		t.Skipf("containers do not run here: %v\n%s", err, out)
	}
}

func (e *engine) docker(args ...string) (string, error) {
	cmd := exec.Command(e.cli[0], append(slices.Clone(e.cli[1:]), args...)...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+e.socket, "DOCKER_BUILDKIT=0")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// image makes an image from scratch that holds a version of the crate.
func (e *engine) image(name, version string) {
	e.t.Helper()
	dir := crateFolder(e.t, version)
	if out, err := e.docker("build", "-t", name, dir); err != nil {
		e.t.Skipf("images are not built here: %v\n%s", err, out)
	}
}

// crateFolder is what an image of the crate is built of.
func crateFolder(t *testing.T, version string) string {
	t.Helper()
	dir := write(t, t.TempDir(), map[string]string{"main.go": crate, "go.mod": "module crate\n\ngo 1.24\n", "Dockerfile": crateDockerfile, ".dockerignore": "*.go\nnotes\n", "notes": "x"})
	build := exec.Command("go", "build", "-ldflags", "-s -w -X main.version="+version, "-o", "crate", ".")
	build.Dir = dir
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// containers counts those of the engine, running or not.
func (e *engine) containers() int {
	e.t.Helper()
	out, err := e.docker("ps", "-aq")
	if err != nil {
		e.t.Fatalf("%v\n%s", err, out)
	}
	return len(strings.Fields(out))
}

func crateManifest(of, more string) string {
	return "app: crate\nservices:\n  api: {" + of + ", routes: [/*], size: 64mb, env: {WORD: sesame}, deploy: {bake: 1s}" + more + "}\n"
}

// all are the tasks of the app, by id.
func (h *house) all(app tenfold.AppName) map[tenfold.TaskID]control.Task {
	h.t.Helper()
	st, err := h.client().Status(h.t.Context(), control.Env{App: app, Env: "production"})
	if err != nil {
		h.t.Fatal(err)
	}
	out := map[tenfold.TaskID]control.Task{}
	for _, t := range st.Tasks {
		out[t.ID] = t
	}
	return out
}

// inside finds the process of a task's container: the crate, with the task's number in its mark.
func inside(t *testing.T, task control.Task) int {
	t.Helper()
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		cmdline, _ := os.ReadFile(d + "/cmdline")
		environ, _ := os.ReadFile(d + "/environ")
		if bytes.HasPrefix(cmdline, []byte("/crate\x00")) && bytes.Contains(environ, []byte("PORT="+strconv.Itoa(task.Port)+"\x00")) {
			pid, _ := strconv.Atoi(filepath.Base(d))
			return pid
		}
	}
	t.Fatalf("no process of %s", task.ID)
	return 0
}

// The container driver passes what the process driver passes: deploys without a failed request, scaling,
// crashes, limits, logs, releases that are broken, one-off commands.
func TestContainers(t *testing.T) {
	e := startEngine(t)
	h := newHouse(t)
	dir := write(t, t.TempDir(), map[string]string{"tenfold.yaml": crateManifest("image: crate:1", "")})
	h.up(dir)
	says := func(version string) {
		t.Helper()
		if status, body := h.get("crate.localhost", "/"); status != 200 || !strings.HasPrefix(body, "crate "+version) {
			t.Fatalf("%d %s, want crate %s", status, body, version)
		}
	}
	says("1")
	if out := h.must(dir, "logs", "api"); !strings.Contains(out, "crate 1 begins") {
		t.Errorf("logs:\n%s", out)
	}
	if out := h.must(dir, "status"); !strings.Contains(out, "isolation of api: container") {
		t.Errorf("status:\n%s", out)
	}
	if out, _ := h.run("doctor"); !strings.Contains(out, "Docker ") || !strings.Contains(out, e.socket) {
		t.Errorf("doctor:\n%s", out)
	}
	_, status := h.get("crate.localhost", "/caps")
	if !strings.Contains(status, "NoNewPrivs:\t1") || !strings.Contains(status, "CapEff:\t00000000000000fb") || !strings.Contains(status, "Seccomp:\t2") {
		t.Errorf("what shuts it in:\n%s", status)
	}

	// A new release, and more tasks, while requests come: none fails.
	l := h.load("crate.localhost", 8, 5*time.Millisecond)
	e.image("crate:2", "2")
	write(t, dir, map[string]string{"tenfold.yaml": crateManifest("image: crate:2", "")})
	h.must(dir, "deploy")
	says("2")
	h.must(dir, "scale", "api=3")
	serving := func() (n int) {
		for _, x := range h.all("crate") {
			if x.State == "serving" {
				n++
			}
		}
		return n
	}
	eventually(t, "three tasks", 60*time.Second, func() bool { return serving() == 3 && e.containers() == 3 })
	if ok, failed := l.end(); failed > 0 || ok == 0 {
		t.Errorf("%d requests failed, %d did not: %v", failed, ok, l.first)
	}

	// Its process dies, or the one that holds it: a new one comes, and nothing is left.
	h.killTasks(e, 3, 30*time.Second)
	says("2")

	// The daemon dies: what runs is adopted.
	before := h.all("crate")
	h.kill("house daemon")
	eventually(t, "the daemon is back", 20*time.Second, func() bool {
		_, err := h.client().House(t.Context())
		return err == nil
	})
	says("2")
	for id, x := range before {
		if now := h.all("crate")[id]; now.PID != x.PID {
			t.Errorf("%s was %+v and is %+v", id, x, now)
		}
	}

	// More memory than its size.
	victim := h.crate()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://127.0.0.1:"+strconv.Itoa(victim.Port)+"/eat", nil)
	if res, err := http.DefaultClient.Do(req); err == nil {
		b, _ := io.ReadAll(res.Body)
		t.Errorf("with 64 MB it %s", b)
	}
	cancel()
	eventually(t, "it is started again", 30*time.Second, func() bool { return h.all("crate")[victim.ID].Restarts > victim.Restarts })
	eventually(t, "the log says why", 10*time.Second, func() bool {
		return strings.Contains(h.must(dir, "logs", "api"), "killed: out of memory of its 64 MB")
	})

	// One-off commands in the same image: kept by the house, and before this terminal.
	if out := h.must(dir, "run", "api", "--", "/crate", "count"); !strings.Contains(out, "asked to count with sesame") {
		t.Errorf("run: %s", out)
	}
	if out, status := h.runIn(dir, "run", "api", "--", "/crate", "fail"); status != 7 {
		t.Errorf("run: exit %d\n%s", status, out)
	}
	cmd := exec.Command(h.bin, "--data", h.dir, "exec", "api", "--", "/crate", "fail")
	cmd.Dir, cmd.Stdin = dir, strings.NewReader("from here")
	if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 7 || !strings.Contains(string(out), "asked to fail with sesame from here") {
		t.Errorf("exec: %v %s", err, out)
	}
	if out, status := h.runIn(dir, "run", "api", "--", "/bin/sh"); status != 127 || !strings.Contains(out, `has no program "/bin/sh"`) {
		t.Errorf("run: exit %d\n%s", status, out)
	}

	// Releases that are broken are given up, and what served serves on.
	e.image("crate:bad", "bad")
	for of, want := range map[string]string{
		"image: crate:bad":                        "panic: nothing to sell",
		"image: crate:2, command: serve":          "command: [./api, serve]",
		"image: crate:2, migrate: [/crate, fail]": "asked to fail",
		"image: \"localhost:1/nobody/none:4\"":    "pull localhost:1/nobody/none:4",
	} {
		write(t, dir, map[string]string{"tenfold.yaml": crateManifest(of, "")})
		if out, status := h.runIn(dir, "deploy"); status == 0 || !strings.Contains(out, want) || !strings.Contains(out, "hint: ") {
			t.Errorf("%s: exit %d\n%s", of, status, out)
		}
		says("2")
	}
	eventually(t, "three containers", 20*time.Second, func() bool { return serving() == 3 && e.containers() == 3 })

	h.must(dir, "down")
	if n := e.containers(); n != 0 {
		t.Errorf("%d containers are left", n)
	}
}

// crate is a task that serves.
func (h *house) crate() control.Task {
	for _, x := range h.all("crate") {
		if x.State == "serving" {
			return x
		}
	}
	return control.Task{}
}

// killTasks kills a container's process, and then the one that holds a container. Within so long a new one serves, and
// in a third of that there are again n containers.
func (h *house) killTasks(e *engine, n int, within time.Duration) {
	t := e.t
	t.Helper()
	for what, kill := range map[string]func(control.Task) int{
		"the container's process": func(x control.Task) int { return inside(t, x) },
		"its holder":              func(x control.Task) int { return x.PID },
	} {
		victim := h.crate()
		pid, was := kill(victim), inside(t, victim)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(what, err)
		}
		eventually(t, what+" was killed, the task is started again", within, func() bool {
			now := h.all("crate")[victim.ID]
			return now.Restarts > victim.Restarts && now.State == "serving" && now.PID != victim.PID
		})
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", was)); err == nil {
			t.Errorf("%s was killed, and the container runs on", what)
		}
		eventually(t, fmt.Sprintf("%d containers", n), within/3, func() bool { return e.containers() == n })
	}
}

// Podman serves the same calls: a deploy, its output, its limits, a command in its image, a process that dies, an image
// that is built, and nothing left.
func TestContainersUnderPodman(t *testing.T) {
	e := startPodman(t)
	h := newHouse(t)
	dir := write(t, t.TempDir(), map[string]string{"tenfold.yaml": crateManifest("image: \"localhost/crate:1\"", "")})
	h.up(dir)
	says := func(version string) {
		t.Helper()
		if status, body := h.get("crate.localhost", "/"); status != 200 || !strings.HasPrefix(body, "crate "+version) {
			t.Fatalf("%d %s, want crate %s", status, body, version)
		}
	}
	says("1")
	if out := h.must(dir, "logs", "api"); !strings.Contains(out, "crate 1 begins") {
		t.Errorf("logs:\n%s", out)
	}
	if out, _ := h.run("doctor"); !strings.Contains(out, "Podman ") || !strings.Contains(out, e.socket) {
		t.Errorf("doctor:\n%s", out)
	}
	_, status := h.get("crate.localhost", "/caps")
	if !strings.Contains(status, "NoNewPrivs:\t1") || !strings.Contains(status, "CapEff:\t00000000000000fb") || !strings.Contains(status, "Seccomp:\t2") {
		t.Errorf("what shuts it in:\n%s", status)
	}
	if out := h.must(dir, "run", "api", "--", "/crate", "count"); !strings.Contains(out, "asked to count with sesame") {
		t.Errorf("run: %s", out)
	}
	cmd := exec.Command(h.bin, "--data", h.dir, "exec", "api", "--", "/crate", "fail")
	cmd.Dir, cmd.Stdin = dir, strings.NewReader("from here")
	if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 7 || !strings.Contains(string(out), "asked to fail with sesame from here") {
		t.Errorf("exec: %v %s", err, out)
	}
	if out, status := h.runIn(dir, "run", "api", "--", "/bin/sh"); status != 127 || !strings.Contains(out, `has no program "/bin/sh"`) {
		t.Errorf("run: exit %d\n%s", status, out)
	}
	h.killTasks(e, 1, 60*time.Second)

	// Built by the engine, while requests come.
	l := h.load("crate.localhost", 4, 10*time.Millisecond)
	write(t, dir, map[string]string{"tenfold.yaml": crateManifest("path: box, build: {dockerfile: Dockerfile}", "")})
	if out, err := exec.Command("cp", "-r", crateFolder(t, "2"), filepath.Join(dir, "box")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, status := h.runIn(dir, "deploy"); status != 0 || !strings.Contains(out, "built: ") {
		t.Errorf("deploy: exit %d\n%s", status, out)
	}
	says("2")
	if ok, failed := l.end(); failed > 0 || ok == 0 {
		t.Errorf("%d requests failed, %d did not: %v", failed, ok, l.first)
	}
	h.must(dir, "down")
	if n := e.containers(); n != 0 {
		t.Errorf("%d containers are left", n)
	}
}

// Containers go through what processes do in deploys_test.go and scale_test.go: a canary that fails is taken back, blue
// gives way to green, they die under load, follow it, sleep and wake.
func TestContainersAreTriedOutScaledAndWoken(t *testing.T) {
	e := startEngine(t)
	h := newHouse(t)
	manifest := func(env, deploy, scale string) string {
		return fmt.Sprintf("app: crate\nservices:\n  api: {image: crate:1, routes: [/*], size: 64mb, health: /healthz, env: {%s}, deploy: %s, scale: %s}\n", env, deploy, scale)
	}
	dir := write(t, t.TempDir(), map[string]string{"tenfold.yaml": manifest("ROUND: 1", "rolling", "2")})
	h.up(dir)
	serving := func() (n int) {
		for _, x := range h.all("crate") {
			if x.State == "serving" {
				n++
			}
		}
		return n
	}
	deploy := func(text string) (string, int) {
		write(t, dir, map[string]string{"tenfold.yaml": text})
		return h.runIn(dir, "deploy")
	}
	l := h.load("crate.localhost", 8, 5*time.Millisecond)
	eventually(t, "traffic", 20*time.Second, func() bool { return l.ok.Load() > 300 })
	out, status := deploy(manifest("FAILS: 1", "{strategy: canary, share: 10%}", "2"))
	if status != tenfold.CodeFailed.ExitStatus() || !strings.Contains(out, "canary 10 % rolled back after") {
		t.Errorf("a canary that fails: exit %d\n%s", status, out)
	}
	if _, failed := l.end(); failed > 20 {
		t.Errorf("of a canary that fails users saw %d answers: %v", failed, l.first)
	}

	l = h.load("crate.localhost", 8, 5*time.Millisecond)
	if out, status := deploy(manifest("ROUND: 2", "{strategy: blue-green, bake: 1s}", "2")); status != 0 {
		t.Errorf("blue-green: exit %d\n%s", status, out)
	}
	for range 3 {
		var victim control.Task
		eventually(t, "two tasks", 30*time.Second, func() bool {
			for _, x := range h.all("crate") {
				if x.State == "serving" && inside(t, x) > 0 {
					victim = x
				}
			}
			return serving() == 2
		})
		if err := syscall.Kill(inside(t, victim), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is started again", 30*time.Second, func() bool {
			now := h.all("crate")[victim.ID]
			return now.Restarts > victim.Restarts && now.State == "serving"
		})
	}
	ok, failed := l.end()
	if l.get.Load() > 0 || ok == 0 {
		t.Errorf("while containers were replaced and killed %d requests were answered and %d failed, %d of them GET: %v", ok, failed, l.get.Load(), l.first)
	}

	if out, status := deploy(manifest("ROUND: 3, SLOW: 50ms", "rolling", "{min: 0, max: 4, concurrency: 4}")); status != 0 {
		t.Fatalf("a range: exit %d\n%s", status, out)
	}
	l = h.load("crate.localhost", 12, time.Millisecond)
	eventually(t, "more tasks", 100*time.Second, func() bool { return serving() >= 3 })
	if ok, failed := l.end(); failed > 0 || ok == 0 {
		t.Errorf("while it was scaled %d requests failed, %d did not: %v", failed, ok, l.first)
	}
	eventually(t, "sleep", 180*time.Second, func() bool {
		return strings.Contains(h.must(dir, "status"), "0 of 0-4: asleep") && e.containers() == 0
	})
	l = h.load("crate.localhost", 8, 5*time.Millisecond)
	eventually(t, "answers", 30*time.Second, func() bool { return l.ok.Load() > 20 })
	if ok, failed := l.end(); failed > 0 {
		t.Errorf("of those that woke it %d failed, %d did not: %v", failed, ok, l.first)
	}
	h.must(dir, "down")
	if n := e.containers(); n != 0 {
		t.Errorf("%d containers are left", n)
	}
}

// An image is built here from a Dockerfile; what did not change is not built again, and what is gone is made again.
func TestDockerfile(t *testing.T) {
	e := startEngine(t)
	h := newHouse(t)
	dir := crateFolder(t, "1")
	write(t, dir, map[string]string{"tenfold.yaml": crateManifest("path: ., build: {dockerfile: Dockerfile}", "")})
	if out := h.up(dir); !strings.Contains(out, "built: docker build -f Dockerfile .") {
		t.Errorf("up:\n%s", out)
	}
	says := func(version string) {
		t.Helper()
		if status, body := h.get("crate.localhost", "/"); status != 200 || !strings.HasPrefix(body, "crate "+version) {
			t.Fatalf("%d %s, want crate %s", status, body, version)
		}
	}
	says("1")
	if out := h.must(dir, "logs", "api"); !strings.Contains(out, "COPY crate /crate") {
		t.Errorf("what the engine told of the build is not in the logs:\n%s", out)
	}
	if out := h.must(dir, "deploy"); !strings.Contains(out, "not built again") {
		t.Errorf("the same again:\n%s", out)
	}
	l := h.load("crate.localhost", 4, 5*time.Millisecond)
	second, err := os.ReadFile(filepath.Join(crateFolder(t, "2"), "crate"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{"crate": string(second)})
	h.must(dir, "deploy")
	says("2")
	if ok, failed := l.end(); failed > 0 || ok == 0 {
		t.Errorf("%d requests failed, %d did not: %v", failed, ok, l.first)
	}
	write(t, dir, map[string]string{"Dockerfile": "FROM scratch\nCOPY notes /\n"}) // which is not given to the engine
	if out, status := h.runIn(dir, "deploy"); status == 0 || !strings.Contains(out, "COPY notes") {
		t.Errorf("a Dockerfile that fails: exit %d\n%s", status, out)
	}
	says("2")
	// Somebody cleans the engine up: the task that ends next waits for its image to be made again.
	write(t, dir, map[string]string{"Dockerfile": crateDockerfile})
	h.must(dir, "deploy")
	images, err := e.docker("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference=localhost/tenfold-*")
	if err != nil || len(strings.Fields(images)) == 0 {
		t.Fatal(images, err)
	}
	if out, err := e.docker(append([]string{"rmi", "-f"}, strings.Fields(images)...)...); err != nil {
		t.Fatal(out)
	}
	for _, x := range h.all("crate") {
		if x.State == "serving" { // one that was replaced may be about to be gone
			syscall.Kill(inside(t, x), syscall.SIGKILL)
		}
	}
	eventually(t, "its image is made again", 60*time.Second, func() bool {
		again, err := e.docker("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference=localhost/tenfold-*")
		return err == nil && strings.Contains(images, strings.TrimSpace(again)) && strings.TrimSpace(again) != ""
	})
	eventually(t, "it serves again", 60*time.Second, func() bool { status, _ := h.get("crate.localhost", "/"); return status == 200 })
	// The keeper dies, and with it all that it held: also what runs in containers.
	was := 0
	for _, x := range h.all("crate") {
		if x.State == "serving" {
			was = inside(t, x)
		}
	}
	h.kill("house keeper")
	eventually(t, "the container ends with its keeper", 20*time.Second, func() bool { _, err := os.Stat(fmt.Sprintf("/proc/%d", was)); return err != nil })
	h.gone()
	h.must(dir, "up", "--detach", "--listen", h.addr)
	says("2")
	eventually(t, "one container, and none of before", 20*time.Second, func() bool { return e.containers() == 1 })
	h.must(dir, "down")
}

// A function may be an image: what is in it speaks the Runtime API.
func TestFunctionOfAnImage(t *testing.T) {
	e := startEngine(t)
	h := newHouse(t)
	dir := write(t, t.TempDir(), map[string]string{"tenfold.yaml": "app: crate\nfunctions:\n  notify: {image: crate:1, routes: [/*], env: {WORD: sesame}, size: 64mb}\n"})
	h.up(dir)
	if status, body := h.get("crate.localhost", "/x"); status != 200 || body != "notify sesame, an event of true" {
		t.Errorf("%d %s", status, body)
	}
	if n := e.containers(); n != 1 {
		t.Errorf("%d containers for one call", n)
	}
	if out := h.must(dir, "logs", "notify"); !strings.Contains(out, "crate 1 begins") {
		t.Errorf("logs:\n%s", out)
	}
	h.must(dir, "down")
	eventually(t, "no container is left", 20*time.Second, func() bool { return e.containers() == 0 })
}

// Where there is no engine, a deployment says so before it does anything.
func TestNoContainerEngine(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
	h := newHouse(t)
	dir := write(t, t.TempDir(), map[string]string{"tenfold.yaml": crateManifest("image: crate:1", "")})
	out, status := h.runIn(dir, "up", "--detach", "--listen", h.listen())
	if status == 0 || !strings.Contains(out, "service api: it runs in a container: there is no container engine on this machine") || !strings.Contains(out, "apt-get install docker.io") {
		t.Errorf("exit %d\n%s", status, out)
	}
}
