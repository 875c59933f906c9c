//go:build scenario

package test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tenfold"
	"tenfold/control"
)

// moody is a service that answers with its version, fails a share of requests but those of its probe, and
// takes its time: by its arguments.
var moody = map[string]string{
	"go.mod": "module moody\n\ngo 1.24\n",
	"main.go": `package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	version := os.Args[1]
	fails, _ := strconv.Atoi(os.Args[2])
	slow, _ := time.ParseDuration(os.Args[3])
	http.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {})
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(slow)
		w.Header().Set("Version", version)
		if rand.IntN(100) < fails {
			http.Error(w, "out of luck", 500)
			return
		}
		w.Header().Set("Cache-Control", r.URL.Query().Get("cache"))
		fmt.Fprint(w, version)
	})
	s := &http.Server{Addr: "127.0.0.1:" + os.Getenv("PORT")}
	go s.ListenAndServe()
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	<-c
	s.Shutdown(context.Background())
}
`,
}

func moodyManifest(version string, fails int, slow, deploy string, scale int) string {
	return fmt.Sprintf("app: moody\nservices:\n  api:\n    path: .\n    build: go build -o moody .\n    command: exec ./moody %s %d %s\n    routes: [/*]\n    health: /healthz\n    scale: %d\n    deploy: %s\n", version, fails, slow, scale, deploy)
}

// answers is traffic of which is counted what each version answered.
type answers struct {
	h    *house
	all  [8]atomic.Int64 // by version
	bad  [8]atomic.Int64
	stop chan struct{}
	done chan struct{}
}

func (h *house) traffic(clients int, pause time.Duration) *answers {
	a := &answers{h: h, stop: make(chan struct{}), done: make(chan struct{})}
	left := make(chan struct{})
	for range clients {
		go func() {
			c := &http.Client{Transport: &http.Transport{}}
			defer func() { c.CloseIdleConnections(); left <- struct{}{} }()
			for {
				select {
				case <-a.stop:
					return
				case <-time.After(pause):
				}
				req, _ := http.NewRequest("GET", "http://"+h.addr+"/", nil)
				req.Host = "moody.localhost"
				res, err := c.Do(req)
				if err != nil {
					a.bad[0].Add(1)
					continue
				}
				res.Body.Close()
				v, _ := strconv.Atoi(res.Header.Get("Version"))
				if a.all[v].Add(1); res.StatusCode != 200 {
					a.bad[v].Add(1)
				}
			}
		}()
	}
	go func() {
		for range clients {
			<-left
		}
		close(a.done)
	}()
	return a
}

func (a *answers) end() {
	close(a.stop)
	<-a.done
}

func moodyHouse(t *testing.T, deploy string, scale int) (*house, string) {
	h := newHouse(t)
	dir := write(t, t.TempDir(), moody)
	write(t, dir, map[string]string{"tenfold.yaml": moodyManifest("1", 0, "0s", deploy, scale)})
	h.up(dir)
	return h, dir
}

func (h *house) moody(dir, version string, fails int, slow, deploy string, scale int) (string, int) {
	write(h.t, dir, map[string]string{"tenfold.yaml": moodyManifest(version, fails, slow, deploy, scale)})
	return h.runIn(dir, "deploy")
}

func (h *house) last(app string) control.Revision {
	h.t.Helper()
	revs, err := h.client().Revisions(h.t.Context(), control.Env{App: tenfold.AppName(app), Env: "production"})
	if err != nil || len(revs) == 0 {
		h.t.Fatal(err)
	}
	return revs[0]
}

func TestACanaryThatFailsIsRolledBackBeforeManySeeIt(t *testing.T) {
	const canary = "{strategy: canary, share: 10%}"
	h, dir := moodyHouse(t, canary, 2)
	a := h.traffic(8, 4*time.Millisecond)
	eventually(t, "traffic", 10*time.Second, func() bool { return a.all[1].Load() > 300 })
	for version, c := range map[int]struct {
		fails int
		slow  string
		says  string
		bad   int64 // answers
		seen  int64
	}{2: {100, "0s", "answers failed", 20, 20}, 3: {10, "0s", "answers failed", 40, 200}, 4: {0, "150ms", "took longer than", 0, 300}} {
		out, status := h.moody(dir, fmt.Sprint(version), c.fails, c.slow, canary, 2)
		if status != tenfold.CodeFailed.ExitStatus() || !strings.Contains(out, "canary 10 % rolled back after") || !strings.Contains(out, c.says) {
			t.Errorf("version %d: exit %d\n%s", version, status, out)
		}
		t.Logf("version %d: %d requests, %d failed\n%s", version, a.all[version].Load(), a.bad[version].Load(), out)
		if a.bad[version].Load() > c.bad || a.all[version].Load() > c.seen {
			t.Errorf("version %d: %d of %d answers failed", version, a.bad[version].Load(), a.all[version].Load())
		}
	}
	// One that is as good takes over, in seconds since there is traffic.
	out, status := h.moody(dir, "5", 0, "0s", canary, 2)
	if status != 0 || !strings.Contains(out, "canary: 1 task gets 10 % of the requests") || !strings.Contains(out, "canary is as good as the old version") {
		t.Errorf("exit %d\n%s", status, out)
	}
	t.Logf("%s", out)
	eventually(t, "only version 5 answers", 10*time.Second, func() bool { _, v := h.get("moody.localhost", "/"); return v == "5" })
	a.end()
	if a.bad[0].Load()+a.bad[1].Load()+a.bad[5].Load() > 0 {
		t.Errorf("%d requests got no answer, %d of version 1 failed", a.bad[0].Load(), a.bad[1].Load())
	}
}

func TestAVersionThatFailsUnderTrafficIsTakenBack(t *testing.T) {
	for _, deploy := range []string{"rolling", "blue-green"} {
		h, dir := moodyHouse(t, deploy, 1)
		a := h.traffic(4, 5*time.Millisecond)
		eventually(t, "traffic", 10*time.Second, func() bool { return a.all[1].Load() > 200 })
		begun := time.Now()
		write(t, dir, map[string]string{"tenfold.yaml": moodyManifest("2", 50, "0s", deploy, 1)})
		out, status := h.runIn(dir, "deploy", "--wait")
		if status != tenfold.CodeFailed.ExitStatus() || !strings.Contains(out, "rolled back") {
			t.Errorf("%s: exit %d\n%s", deploy, status, out)
		}
		eventually(t, deploy+": version 1 answers again", 10*time.Second, func() bool { return a.all[2].Load() > 0 && h.last("moody").State == "failed" })
		t.Logf("%s: taken back %s after it was asked for, %d of %d answers failed: %s", deploy, time.Since(begun).Round(time.Millisecond), a.bad[2].Load(), a.all[2].Load(), h.last("moody").Reason)
		if r := h.last("moody"); !strings.Contains(r.Reason, "rolled back") || !strings.Contains(r.Reason, "answers failed") {
			t.Errorf("%s: %+v", deploy, r)
		}
		for range 50 {
			if status, v := h.get("moody.localhost", "/"); v != "1" {
				t.Fatalf("%s: %d %s", deploy, status, v)
			}
		}
		eventually(t, deploy+": all is as it was", 10*time.Second, func() bool {
			st := decode[control.Status](t, h.must(dir, "--json", "status"))
			return st.State == "healthy" && st.Revision == 1
		})
		a.end()
	}
}

func TestPromoteAbortAndGoBack(t *testing.T) {
	const canary = "{strategy: canary, share: 50%, bake: 10m}"
	h, dir := moodyHouse(t, canary, 2)
	h.must(dir, "scale", "api=3")
	begin := func(version string) chan string {
		out := make(chan string, 1)
		go func() {
			text, status := h.moody(dir, version, 0, "0s", canary, 2)
			out <- fmt.Sprintf("exit %d\n%s", status, text)
		}()
		eventually(t, "the canary answers", 30*time.Second, func() bool { _, v := h.get("moody.localhost", "/"); return v == version })
		return out
	}
	out := begin("2")
	if text := h.must(dir, "status"); !strings.Contains(text, "canary 50 %: ") || !strings.Contains(text, "0 errors") {
		t.Errorf("status says: %s", text)
	}
	only := func(version string) bool {
		for range 20 {
			if _, v := h.get("moody.localhost", "/"); v != version {
				return false
			}
		}
		return true
	}
	// Its requests are on a lease: with a daemon that renews nothing they go back to the old tasks.
	daemon := h.process("house daemon")
	syscall.Kill(daemon, syscall.SIGSTOP)
	eventually(t, "without a daemon only version 1 answers", 20*time.Second, func() bool { return only("1") })
	syscall.Kill(daemon, syscall.SIGCONT)
	eventually(t, "with it the canary does again", 10*time.Second, func() bool { _, v := h.get("moody.localhost", "/"); return v == "2" })
	if text := h.must(dir, "deploy", "--abort"); !strings.Contains(text, "aborted; deployment 1 serves") {
		t.Error(text)
	}
	if !only("1") {
		t.Error("the canary answers after --abort returned")
	}
	if text := <-out; !strings.HasPrefix(text, fmt.Sprintf("exit %d", tenfold.CodeFailed.ExitStatus())) || !strings.Contains(text, "aborted by") {
		t.Error(text)
	}
	out = begin("3")
	h.kill("house daemon") // it goes on with the canary
	eventually(t, "a daemon", 20*time.Second, func() bool { _, status := h.runIn(dir, "status"); return status == 0 })
	if text := h.must(dir, "deploy", "--promote"); !strings.Contains(text, "promoted: api") {
		t.Error(text)
	}
	if text := <-out; !strings.HasPrefix(text, "exit 0") {
		t.Error(text)
	}
	live := 0
	for _, task := range decode[control.Status](t, h.must(dir, "--json", "status")).Tasks {
		if task.State == "serving" {
			live++
		}
	}
	if live != 3 {
		t.Errorf("%d tasks serve after a deploy of what was scaled to 3", live)
	}
	// The old tasks are warm: back is a matter of a moment.
	begun := time.Now()
	if text := h.must(dir, "deploy", "--abort"); !strings.Contains(text, "deployment 1 serves") {
		t.Error(text)
	}
	if !only("1") {
		t.Error("the new version answers after --abort returned")
	}
	t.Logf("back after %s", time.Since(begun).Round(time.Millisecond))
	if text, status := h.runIn(dir, "deploy", "--promote"); status != tenfold.CodeConflict.ExitStatus() {
		t.Errorf("exit %d\n%s", status, text)
	}
}

// A page goes on calling the API that it was made for.
func TestCallsArePinnedToTheDeploymentThatMadeThePage(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), moody)
	deploy := func(version string) string {
		return fmt.Sprintf("app: moody\nfrontends:\n  web: {path: web, build: false, pin: [/api/*]}\nservices:\n  api:\n    path: .\n    build: go build -o moody .\n    command: exec ./moody %s 0 0s\n    routes: [/api/*]\n    health: /healthz\n", version)
	}
	write(t, dir, map[string]string{"tenfold.yaml": deploy("1"), "web/index.html": "<!doctype html><html><head><title>shop</title></head><body>one</body></html>"})
	h.up(dir)
	page := func() (id string) {
		t.Helper()
		_, body := h.get("moody.localhost", "/")
		_, rest, ok := strings.Cut(body, `<head><script src="/_tenfold/pin.js?d=`)
		if !ok {
			t.Fatalf("the page: %s", body)
		}
		id, _, _ = strings.Cut(rest, "&amp;")
		return id
	}
	call := func(id, query string) string {
		t.Helper()
		status, body, _ := h.ask("moody.localhost", "/api/x"+query, func(r *http.Request) {
			if id != "" {
				r.Header.Set("X-Deployment-Id", id)
			}
		})
		return fmt.Sprint(status, " ", body)
	}
	expect := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	if status, script, head := h.ask("moody.localhost", "/_tenfold/pin.js?d=x&p=/api/*", nil); status != 200 || !strings.Contains(script, "X-Deployment-Id") || !strings.HasPrefix(head.Get("Content-Type"), "text/javascript") {
		t.Errorf("%d %q", status, script)
	}
	first := page()
	expect("page 1", call(first, "?cache=max-age=60"), "200 1") // stored
	write(t, dir, map[string]string{"tenfold.yaml": deploy("2")})
	h.must(dir, "deploy")
	second := page()
	if first == second {
		t.Fatalf("both pages are of %s", first)
	}
	for n := range 20 {
		q := ""
		if n%2 == 0 {
			q = "?cache=max-age=60" // what is stored of one is not given to the other
		}
		expect("page 1 after the deploy", call(first, q), "200 1")
		expect("page 2", call(second, q), "200 2")
		expect("no page", call("", q), "200 2")
	}
	expect("by query, as Next.js does", call("", "?dpl="+first), "200 1")
	expect("a deployment that nobody knows", call("00000000", ""), "200 2")
	h.must(dir, "deploy", "--promote", "--wait") // and the old task stays for the page
	if st := h.must(dir, "status"); strings.Contains(st, "watched") {
		t.Errorf("after --promote --wait: %s", st)
	}
	expect("page 1 after the watch", call(first, ""), "200 1")
	h.kill("moody 1")
	for range 50 {
		if got := call(first, ""); got != "200 1" && got != "200 2" {
			t.Fatalf("while its task is gone: %s", got)
		}
	}
	eventually(t, "its task is back", 20*time.Second, func() bool { return call(first, "") == "200 1" })
	write(t, dir, map[string]string{"tenfold.yaml": deploy("3")})
	h.must(dir, "deploy")
	expect("page 1 after two deploys", call(first, ""), "200 1")
	expect("page 2 after one", call(second, ""), "200 2")
	expect("page 3", call(page(), ""), "200 3")
}
