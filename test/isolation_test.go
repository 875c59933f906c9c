//go:build scenario

package test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tenfold"
	"tenfold/control"
)

// prober is a service that does what it is asked to.
var prober = map[string]string{
	"go.mod": "module prober\n\ngo 1.24\n",
	"main.go": `package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
)

var held [][]byte

func main() {
	os.WriteFile("mine", []byte("file of "+os.Getenv("NAME")), 0o666)
	os.WriteFile(os.TempDir()+"/mine", []byte("tmp of "+os.Getenv("NAME")), 0o666)
	http.HandleFunc("/sh", func(w http.ResponseWriter, r *http.Request) {
		script, _ := io.ReadAll(r.Body)
		out, err := exec.Command("sh", "-c", string(script)).CombinedOutput()
		fmt.Fprintf(w, "%s|%v", out, err)
	})
	http.HandleFunc("/eat", func(w http.ResponseWriter, r *http.Request) {
		for range 64 {
			b := make([]byte, 8<<20)
			for i := range b { b[i] = 1 }
			held = append(held, b)
		}
		fmt.Fprint(w, "ate 512 MB")
	})
	fmt.Println(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}
`,
}

const probers = `app: two
services:
  a: {path: ., build: go build -o prober ., command: exec ./prober, routes: [/a/*], env: {NAME: a, WORD: sesame-a}, size: 128mb}
  b: {path: ., build: go build -o prober ., command: exec ./prober, routes: [/b/*], env: {NAME: b, WORD: sesame-b}}
`

// shell runs a script in the task of a service and gives what it printed, and how it ended.
func (h *house) shell(task control.Task, script string) (string, error) {
	res, err := http.Post("http://127.0.0.1:"+strconv.Itoa(task.Port)+"/sh", "text/plain", strings.NewReader(script))
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	return string(out), err
}

func (h *house) tasks(app tenfold.AppName) map[string]control.Task {
	h.t.Helper()
	st, err := h.client().Status(h.t.Context(), control.Env{App: app, Env: "production"})
	if err != nil {
		h.t.Fatal(err)
	}
	out := map[string]control.Task{}
	for _, t := range st.Tasks {
		out[string(t.Service)] = t
	}
	return out
}

func rung(t control.Task, name string) bool {
	for _, r := range t.Isolation {
		if r.Name == name {
			return r.OK
		}
	}
	return false
}

// startProbers starts two tasks that do what they are told, and waits until both tell their rungs.
func startProbers(t *testing.T) (h *house, dir string, a, b control.Task) {
	t.Helper()
	h = newHouse(t)
	dir = write(t, t.TempDir(), prober)
	write(t, dir, map[string]string{"tenfold.yaml": probers})
	h.up(dir)
	eventually(t, "both tell their rungs", 20*time.Second, func() bool {
		tasks := h.tasks("two")
		a, b = tasks["a"], tasks["b"]
		return len(a.Isolation) > 0 && len(b.Isolation) > 0
	})
	return h, dir, a, b
}

func TestTasksAreShutInFromEachOther(t *testing.T) {
	h, dir, a, b := startProbers(t)
	if !rung(a, "own user") && !rung(a, "landlock") {
		t.Skipf("this machine has neither rung that hides files: %+v", a.Isolation)
	}
	ask := func(task control.Task, script string) string {
		t.Helper()
		out, err := h.shell(task, script)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if own := ask(a, "cat mine $TMPDIR/mine && tr '\\0' '\\n' </proc/$PPID/environ | grep WORD && kill -0 $PPID && python3 -c 'print(6*7)'; node -p 6*7"); !strings.HasPrefix(own, "file of atmp of aWORD=sesame-a") || !strings.Contains(own, "42\n|<nil>") {
		t.Errorf("what is its own: %q", own)
	}
	where := strings.TrimSuffix(ask(a, "pwd; echo $TMPDIR"), "|<nil>")
	paths := strings.Fields(where)
	if len(paths) != 2 {
		t.Fatalf("%q", where)
	}
	for what, script := range map[string]string{
		"variables": fmt.Sprintf("tr '\\0' '\\n' </proc/%d/environ", a.PID), "memory": fmt.Sprintf("head -c 1 /proc/%d/mem", a.PID),
		"a descriptor": fmt.Sprintf("ls -l /proc/%d/fd", a.PID), "the key of secrets": "cat " + filepath.Join(h.dir, "secrets.key"),
		"the house": "cat " + filepath.Join(h.dir, "house.db"), "its keeper": fmt.Sprintf("kill -9 $(pgrep -f 'house keeper --data %s')", h.dir),
		"homes": "ls " + filepath.Join(h.dir, "homes") + "/*/tmp", "a signal": fmt.Sprintf("kill -9 %d", a.PID), "the system": "echo bad >/etc/tenfold-was-here",
	} {
		out := ask(b, script)
		if strings.HasSuffix(out, "|<nil>") || strings.Contains(out, "sesame-a") || strings.Contains(out, "AGE-SECRET") || strings.Contains(out, "mine") {
			t.Errorf("b reached %s of a: %q", what, out)
		}
	}
	os.Remove("/etc/tenfold-was-here")
	if now := h.tasks("two")["a"]; now.PID != a.PID || now.Restarts != 0 {
		t.Errorf("a is %+v, was %+v", now, a)
	}
	if rung(a, "own user") {
		if id := ask(b, "id -u"); id == ask(a, "id -u") || id == "0\n|<nil>" {
			t.Errorf("b is user %q", id)
		}
	}
	// What others name as TMPDIR or hold in the same build is another's, or of a group that both are in: builds are one.
	if out := ask(b, "cat "+paths[1]+"/mine"); strings.Contains(out, "tmp of a") && !strings.Contains(out, "tmp of b") {
		t.Errorf("b read a's temporary file: %q", out)
	}
	if out := h.must(dir, "status"); !strings.Contains(out, "isolation of a: ") {
		t.Errorf("status says nothing of isolation:\n%s", out)
	}
	if out, _ := h.run("doctor"); !strings.Contains(out, "isolation: landlock") || !strings.Contains(out, "isolation: cgroup") {
		t.Errorf("doctor says nothing of isolation:\n%s", out)
	}
}

func TestLimitsOfTasksHold(t *testing.T) {
	h, dir, a, b := startProbers(t)
	if !rung(a, "cgroup") {
		write(t, dir, map[string]string{"tenfold.yaml": strings.Replace(probers, "size: 128mb", "size: 128mb, isolation: strict", 1)})
		if out, status := h.runIn(dir, "deploy"); status == 0 || !strings.Contains(out, "cannot be enforced") || !strings.Contains(out, "isolation: best-effort") {
			t.Errorf("strict without cgroups: exit %d\n%s", status, out)
		}
		t.Skipf("no cgroup here, and said so: %+v", a.Isolation)
	}
	if res, err := http.Get("http://127.0.0.1:" + strconv.Itoa(a.Port) + "/eat"); err == nil {
		b, _ := io.ReadAll(res.Body)
		t.Errorf("a with 128 MB: %s", b)
	}
	eventually(t, "a is started again, and b never was", 20*time.Second, func() bool {
		tasks := h.tasks("two")
		return tasks["a"].Restarts > 0 && tasks["a"].PID != a.PID && tasks["b"].PID == b.PID
	})
	// A fork bomb ends at the bound of its task, and leaves the house and the other task as they are.
	bomb := "for i in $(seq 5000); do sleep 3 & done 2>&1 | tail -1; jobs | wc -l"
	out, err := h.shell(b, bomb)
	if err == nil && !strings.Contains(out, "annot fork") && !strings.Contains(out, "esource") {
		t.Errorf("5000 processes in one task: %q", out)
	}
	if _, status := h.run("ps"); status != 0 {
		t.Error("the house does not answer beside a fork bomb")
	}
}
