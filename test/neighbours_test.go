//go:build scenario

package test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tenfold/control"
)

// offender takes what it can get of a machine, each in its way. bench/compute has the same in a program of its own, and
// measures what its neighbour feels of it.
var offender = map[string]string{
	"go.mod": "module offender\n\ngo 1.24\n",
	"main.go": `package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
)

var held [][]byte
var files []*os.File

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "well") })
	http.HandleFunc("/eat", func(w http.ResponseWriter, r *http.Request) {
		for range 512 { // 4 GB
			held = append(held, bytes.Repeat([]byte{1}, 8<<20))
		}
		fmt.Fprint(w, "ate all")
	})
	http.HandleFunc("/fork", func(w http.ResponseWriter, r *http.Request) {
		out, err := exec.Command("sh", "-c", "for i in $(seq 6000); do sleep 61.5 & done").CombinedOutput()
		fmt.Fprintf(w, "%v %d", err, bytes.Count(out, []byte("fork")))
	})
	http.HandleFunc("/spin", func(w http.ResponseWriter, r *http.Request) {
		for range 4 {
			exec.Command("sh", "-c", "while :; do :; done # spins").Start()
		}
	})
	http.HandleFunc("/flood", func(w http.ResponseWriter, r *http.Request) {
		line := bytes.Repeat([]byte("what nobody wants to read\n"), 4000)
		for range 400 { // 40 MB
			os.Stdout.Write(line)
		}
	})
	http.HandleFunc("/leak", func(w http.ResponseWriter, r *http.Request) {
		for range 200_000 {
			f, err := os.Open(os.Args[0])
			if err != nil {
				fmt.Fprint(w, len(files), " ", err)
				return
			}
			files = append(files, f)
		}
	})
	fmt.Println(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}
`,
}

// within has the house be started in a cgroup that bounds its memory, so that a hog in it cannot take the machine's; false:
// none can be made here. Whom the kernel ends is chosen in it as it would be on the whole machine.
func (h *house) within(limit int64) bool {
	dir := memoryGroup()
	if dir == "" {
		return false
	}
	dir = filepath.Join(dir, filepath.Base(h.dir))
	bound := map[bool]string{true: "memory.max", false: "memory.limit_in_bytes"}
	if os.Mkdir(dir, 0o755) != nil {
		return false
	}
	h.t.Cleanup(func() {
		h.run("down", "--house") // a group that is not empty stays
		for begun := time.Now(); rmdir(dir) != nil && time.Since(begun) < 20*time.Second; <-time.After(50 * time.Millisecond) {
		}
	})
	_, err := os.Stat(filepath.Join(dir, "memory.max"))
	if os.WriteFile(filepath.Join(dir, bound[err == nil]), []byte(strconv.FormatInt(limit, 10)), 0) != nil {
		return false
	}
	script := fmt.Sprintf("#!/bin/sh\necho $$ >%s/cgroup.procs || exit 1\nexec %s \"$@\"\n", dir, h.bin)
	inside := filepath.Join(h.dir, "inside")
	if err := os.WriteFile(inside, []byte(script), 0o755); err != nil {
		h.t.Fatal(err)
	}
	h.bin = inside
	return true
}

// rmdir removes a cgroup with those in it, which the keeper left.
func rmdir(dir string) error {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	return os.Remove(dir)
}

// memoryGroup is where a cgroup can be made that bounds memory: version 2 at its root, version 1 below this process's own.
func memoryGroup() string {
	if b, err := os.ReadFile("/sys/fs/cgroup/cgroup.subtree_control"); err == nil && bytes.Contains(b, []byte("memory")) {
		return "/sys/fs/cgroup"
	}
	b, _ := os.ReadFile("/proc/self/cgroup")
	for l := range strings.Lines(string(b)) {
		if p := strings.SplitN(strings.TrimSpace(l), ":", 3); len(p) == 3 && p[1] == "memory" {
			if dir := filepath.Join("/sys/fs/cgroup/memory", p[2]); os.WriteFile(filepath.Join(dir, "cgroup.clone_children"), []byte("0"), 0) == nil {
				return dir
			}
		}
	}
	return ""
}

// Whatever a task takes, it is the task that ends: the other service, the front door, the daemon, the keeper and the
// database keep their processes, what it said is bounded, and nothing of it is left.
func TestANoisyNeighbourEndsAlone(t *testing.T) {
	h := newHouse(t)
	if !h.within(1200 << 20) {
		t.Skip("no cgroup that bounds memory can be made here")
	}
	dir := write(t, t.TempDir(), offender)
	write(t, dir, map[string]string{"tenfold.yaml": `app: street
services:
  quiet: {path: ., build: go build -o offender ., command: exec ./offender, routes: [/quiet/*], uses: [db]}
  loud: {path: ., build: go build -o offender ., command: exec ./offender, routes: [/loud/*], size: {memory: 192mb, cpu: 0.5}, logs: {max: 1mb}}
  free: {path: ., build: go build -o offender ., command: exec ./offender, routes: [/free/*]}
databases: [db]
`})
	h.up(dir)
	task := func(service string) control.Task { return h.tasks("street")[service] }
	eventually(t, "the tasks' rungs", 20*time.Second, func() bool { return len(task("loud").Isolation) > 0 })
	if !rung(task("loud"), "cgroup") {
		t.Skipf("no cgroup here: %+v", task("loud").Isolation)
	}
	// Whom the kernel ends first.
	score := func(pid int) int {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
		n, err2 := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		return n
	}
	house := map[string]int{}
	for _, part := range []string{"house keeper", "house daemon", "house door", "house pool", "postgres -D"} {
		house[part] = h.process(part)
		for _, service := range []string{"quiet", "loud", "free"} {
			if s, n := score(task(service).PID), score(house[part]); n >= s {
				t.Errorf("%s has score %d, a task %d", part, n, s)
			}
		}
	}
	quiet := task("quiet")
	ask := func(service, path string) string {
		c := &http.Client{Timeout: 60 * time.Second}
		defer c.CloseIdleConnections()
		res, err := c.Get("http://127.0.0.1:" + strconv.Itoa(task(service).Port) + path)
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return string(b)
	}
	again := func(service string, before control.Task) {
		t.Helper()
		eventually(t, service+" starts anew", 40*time.Second, func() bool {
			now := task(service)
			return now.PID != 0 && now.PID != before.PID && ask(service, "/") == "well"
		})
	}
	well := func(after string) {
		t.Helper()
		if now := task("quiet"); now.PID != quiet.PID || now.Restarts != 0 {
			t.Errorf("%s: the neighbour is %+v, was %+v", after, now, quiet)
		}
		for part, pid := range house {
			if now := h.process(part); now != pid {
				t.Errorf("%s: %s is process %d, was %d", after, part, now, pid)
			}
		}
		if code, body := h.get("street.localhost", "/quiet/"); code != 200 || body != "well" {
			t.Errorf("%s: the neighbour answers %d %s", after, code, body)
		}
		if out := h.must(dir, "db", "psql", "--", "-Atc", "select 6*7"); !strings.Contains(out, "42") {
			t.Errorf("%s: the database answers %s", after, out)
		}
	}

	ask("loud", "/spin")
	eventually(t, "four that spin", 5*time.Second, func() bool { return h.count("# spins") == 4 })
	well("a spin loop")
	if out := ask("loud", "/leak"); !strings.Contains(out, "too many open files") {
		t.Errorf("a descriptor leak: %s", out)
	}
	well("a descriptor leak")
	ask("loud", "/flood")
	well("a log flood")
	kept := int64(0)
	logs, _ := filepath.Glob(filepath.Join(h.dir, "compute", "logs", "street", "production", "service", "loud", "*"))
	for _, f := range logs {
		if info, err := os.Stat(f); err == nil {
			kept += info.Size()
		}
	}
	if kept == 0 || kept > 1<<20+128<<10 {
		t.Errorf("of 40 MB %d bytes are kept in %v", kept, logs)
	}
	before := task("loud")
	ask("loud", "/eat")
	again("loud", before)
	well("a memory hog with a size")
	if n := h.count("# spins"); n != 0 {
		t.Errorf("%d that spun are left of a task that ended", n)
	}
	ask("loud", "/fork")
	well("a fork bomb")
	before = task("free")
	ask("free", "/eat")
	again("free", before)
	well("a memory hog without a size")

	h.must(dir, "down", "--house")
	eventually(t, "nothing is left", 20*time.Second, func() bool { return len(h.mine()) == 0 })
}

// count counts the house's processes by a part of their command line.
func (h *house) count(part string) (n int) {
	for _, cmd := range h.mine() {
		if strings.Contains(cmd, part) {
			n++
		}
	}
	return n
}
