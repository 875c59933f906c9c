//go:build scenario

package test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tenfold"
	"tenfold/control"
)

// echo is a service that answers with its version and what it was sent; its arguments say how it misbehaves.
var echo = map[string]string{
	"go.mod": "module echo\n\ngo 1.24\n",
	"main.go": `package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"context"
	"time"
)

func main() {
	mode, version := "", "0"
	if len(os.Args) > 1 { version = os.Args[1] }
	if len(os.Args) > 2 { mode = os.Args[2] }
	switch mode {
	case "crash":
		fmt.Fprintln(os.Stderr, "panic: no luck today")
		os.Exit(3)
	case "hang":
		select {}
	case "migrate":
		fmt.Println("relation users does not exist")
		os.Exit(1)
	}
	http.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		if mode == "sick" { http.Error(w, "the database is on fire", 500) }
	})
	http.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", version, b)
	})
	addr := "127.0.0.1:" + os.Getenv("PORT")
	if mode == "deaf" { addr = "127.0.0.1:0" }
	s := &http.Server{Addr: addr}
	go s.ListenAndServe()
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	<-c
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	s.Shutdown(ctx)
}
`,
}

func manifest(args, extra string) string {
	return "app: echo\nservices:\n  api:\n    path: .\n    build: go build -o echo .\n    command: exec ./echo " + args + "\n    routes: [/*]\n    health: {route: /healthz, grace: 3s}\n    scale: 2\n    deploy: {deadline: 20s}\n" + extra
}

func (h *house) deploy(dir, args, extra string) (string, int) {
	write(h.t, dir, map[string]string{"tenfold.yaml": manifest(args, extra)})
	return h.runIn(dir, "deploy")
}

func echoApp(t *testing.T) (*house, string) {
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "")})
	h.up(dir)
	return h, dir
}

func TestFiftyDeploysFailNoRequest(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	if out, err := exec.Command("go", "build", "-C", dir, "-o", "echo", ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// Built once: it is the switching that is looked at, and the manifest is no source.
	version := func(n int) {
		text := strings.Replace(manifest(fmt.Sprint(n), ""), "    build: go build -o echo .\n", "", 1)
		write(t, dir, map[string]string{"tenfold.yaml": text})
	}
	version(1)
	h.up(dir)
	l := h.load("echo.localhost", 8, 10*time.Millisecond)
	begun := time.Now()
	for i := 2; i <= 51; i++ {
		version(i)
		if out, status := h.runIn(dir, "deploy"); status != 0 {
			t.Fatalf("deploy %d: exit %d\n%s", i, status, out)
		} else if !strings.Contains(out, fmt.Sprintf("deployment %d serves", i)) || strings.Contains(out, " built: ") {
			t.Errorf("deploy %d, of which nothing is to be built, said:\n%s", i, out)
		}
	}
	took := time.Since(begun) / 50
	ok, failed := l.end()
	t.Logf("50 deploys under 8 clients, %s each: %d answers, %d failed %v", took.Round(time.Millisecond), ok, failed, l.first)
	if failed > 0 || ok < 1000 {
		t.Fail()
	}
	if _, body := h.get("echo.localhost", "/echo"); !strings.HasPrefix(body, "51 ") {
		t.Errorf("served: %q", body)
	}
}

func TestBrokenReleasesAreNamedAndFailNoRequest(t *testing.T) {
	t.Parallel()
	h, dir := echoApp(t)
	l := h.load("echo.localhost", 8, 10*time.Millisecond)
	cases := []struct{ name, args, extra, cause string }{
		{"crash", "2 crash", "", "no luck today"},
		{"hang", "2 hang", "", "connection refused"},
		{"sick", "2 sick", "", "500"},
		{"deaf", "2 deaf", "", "PORT"},
		{"migration", "2", "    migrate: ./echo 2 migrate\n", "relation users does not exist"},
		{"test", "2", "    test: sh -c 'echo 3 of 7 assertions failed; exit 1'\n", "3 of 7 assertions failed"},
	}
	for round := range 3 {
		for _, c := range cases {
			out, status := h.deploy(dir, c.args, c.extra+fmt.Sprintf("    env: {ROUND: %d}\n", round))
			if status != tenfold.CodeFailed.ExitStatus() || !strings.Contains(out, c.cause) || !strings.Contains(out, "tenfold: hint: ") {
				t.Errorf("%s, round %d: exit %d\n%s", c.name, round, status, out)
			}
		}
	}
	for range 2 {
		broken := strings.Replace(echo["main.go"], "func main() {", "func main() { this is no Go", 1)
		write(t, dir, map[string]string{"main.go": broken})
		if out, status := h.deploy(dir, "2", ""); status != tenfold.CodeFailed.ExitStatus() || !strings.Contains(out, "main.go:") {
			t.Errorf("build: exit %d\n%s", status, out)
		}
	}
	ok, failed := l.end()
	t.Logf("20 broken releases under 8 clients: %d answers, %d failed %v", ok, failed, l.first)
	if failed > 0 {
		t.Fail()
	}
	if _, body := h.get("echo.localhost", "/echo"); !strings.HasPrefix(body, "1 ") {
		t.Errorf("served: %q", body)
	}
}

func TestKillsUnderLoad(t *testing.T) {
	h, _ := echoApp(t)
	kill := func(what string, times int, pid func() int, allowed func(l *load) int64) {
		l := h.load("echo.localhost", 8, time.Millisecond)
		for range times {
			p := pid()
			if p == 0 {
				t.Fatalf("no %s to kill", what)
			}
			syscall.Kill(p, syscall.SIGKILL)
			eventually(t, "another "+what, 20*time.Second, func() bool { n := pid(); return n != 0 && n != p })
			<-time.After(300 * time.Millisecond)
		}
		ok, failed := l.end()
		t.Logf("%d × kill -9 of %s under 8 clients: %d answers, %d failed (%d of them GET) %v", times, what, ok, failed, l.get.Load(), l.first)
		if bad := allowed(l); bad > 0 {
			t.Errorf("%s: %d requests failed that should not", what, bad)
		}
	}
	all := func(l *load) int64 { return l.failed.Load() }
	kill("the daemon", 10, func() int { return h.process("house daemon") }, all)
	kill("a task", 5, func() int { return h.process("echo 1") }, func(l *load) int64 { return l.get.Load() })
	kill("the door", 5, func() int { return h.process("house door") }, func(*load) int64 { return 0 })

	h.kill("house keeper")
	eventually(t, "nothing is left", 10*time.Second, func() bool { return len(h.mine()) == 0 })
}

// Five hand-overs between two builds of the binary, as a package upgrade makes them.
func TestUpgradeHandsOver(t *testing.T) {
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "    uses: [db]\ndatabases: [db]\n")})
	h.up(dir)
	next := h.next()
	kept := func() string {
		var out []string
		for pid, cmd := range h.mine() {
			if strings.Contains(cmd, "echo 1") || strings.Contains(cmd, "postgres -D") || strings.Contains(cmd, "house keeper") {
				out = append(out, fmt.Sprint(pid, " ", filepath.Base(strings.Fields(cmd)[0])))
			}
		}
		slices.Sort(out)
		return strings.ReplaceAll(strings.Join(out, ", "), "next", "tenfold")
	}
	before := kept()
	h.must(dir, "db", "psql", "--", "-c", "create table t (n int)")
	l := h.load("echo.localhost", 8, time.Millisecond)
	first := h.bin
	for n := range 5 {
		h.bin = []string{next, first}[n%2]
		if out := h.must(dir, "upgrade"); n == 0 && !strings.Contains(out, "runs next") {
			t.Errorf("upgrade said: %s", out)
		}
		h.must(dir, "db", "psql", "--", "-c", "insert into t values (1)")
		eventually(t, "one door, of the new binary", 40*time.Second, func() bool {
			doors := 0
			for _, cmd := range h.mine() {
				if strings.Contains(cmd, "house door") {
					doors++
				}
			}
			return doors == 1
		})
	}
	ok, failed := l.end()
	t.Logf("5 upgrades under 8 clients: %d answers, %d failed %v", ok, failed, l.first)
	if failed > 0 {
		t.Fail()
	}
	if after := kept(); after != before {
		t.Errorf("tasks, databases and the keeper were %s, are %s", before, after)
	}
	if out, status := h.deploy(dir, "2", "    uses: [db]\ndatabases: [db]\n"); status != 0 {
		t.Errorf("deploy after the upgrades: exit %d\n%s", status, out)
	}
}

// The HTTP cache, from the manifest to the command line.
func TestCacheRulesAndPurge(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	rules := "edge:\n  routes:\n    /echo: {cache: {fresh: 1h, tags: [echo]}}\n    /slow: {limit: {rate: 2/h}}\n"
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", rules)})
	h.up(dir)
	kept := func() bool {
		req, _ := http.NewRequest("GET", "http://"+h.addr+"/echo", nil)
		req.Host = "echo.localhost"
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return strings.Contains(res.Header.Get("Cache-Status"), "hit")
	}
	eventually(t, "an answer from the cache", 10*time.Second, kept)
	for _, args := range [][]string{{"edge", "purge", "--tag", "echo"}, {"edge", "purge", "/echo"}, {"edge", "purge", "/ec*"}} {
		eventually(t, "an answer from the cache", 10*time.Second, kept)
		if out := h.must(dir, args...); !strings.Contains(out, "1 purged") {
			t.Errorf("%v: %s", args, out)
		}
		if kept() {
			t.Errorf("%v: served on", args)
		}
	}
	for range 2 {
		h.get("echo.localhost", "/slow")
	}
	if code, body := h.get("echo.localhost", "/slow"); code != 429 {
		t.Errorf("the third in an hour: %d %s", code, body)
	}
	if out := h.must(dir, "status"); !strings.Contains(out, "cache hits") {
		t.Errorf("status: %s", out)
	}
	eventually(t, "the access log", 5*time.Second, func() bool {
		out := h.must(dir, "logs", "edge")
		return strings.Contains(out, `"path":"/echo"`) && strings.Contains(out, `"cache":"hit"`) && strings.Contains(out, `"status":429`)
	})
	if out := h.must(dir, "metrics"); !strings.Contains(out, "http_cache_hits_total{") {
		t.Errorf("metrics: %s", out)
	}
}

// TLS with the house's own authority: both protocols, the cache behind them, and a hand-over.
func TestTLSForLocalNames(t *testing.T) {
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "edge: {routes: {/echo: {cache: 1h}}}\n")})
	addr, roots := h.upTLS(dir)
	_, port, _ := net.SplitHostPort(addr)
	ask := func(h2 bool) (*http.Response, error) {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: h2, DisableKeepAlives: true}
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
		res, err := (&http.Client{Transport: tr}).Get("https://echo.localhost:" + port + "/echo")
		if err == nil {
			res.Body.Close()
		}
		return res, err
	}
	for _, h2 := range []bool{false, true} {
		eventually(t, "a hit over TLS", 10*time.Second, func() bool {
			res, err := ask(h2)
			if err != nil || res.StatusCode != 200 || (res.ProtoMajor == 2) != h2 {
				t.Fatalf("h2 %t: %+v, %v", h2, res, err)
			}
			return strings.Contains(res.Header.Get("Cache-Status"), "hit")
		})
	}
	if out := h.must(dir, "status"); !strings.Contains(out, "https://echo.localhost:"+port) {
		t.Errorf("status does not name the address: %s", out)
	}
	h.kill("house door")
	eventually(t, "TLS after the door was killed", 10*time.Second, func() bool { res, err := ask(true); return err == nil && res.StatusCode == 200 })
}

// A push is a deploy; one whose test fails is refused with the test's output, and what ran serves on.
func TestGitPushDeploys(t *testing.T) {
	h := newHouse(t)
	h.must("", "up", "--detach", "--listen", h.listen(), write(t, t.TempDir(), map[string]string{"index.html": "the house needs an app", "tenfold.yaml": "app: first\nfrontends: {web: {path: ., build: false}}\n"}))
	info, err := h.client().House(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.addr = info.Listen[0]
	dir := t.TempDir()
	git := func(args ...string) (string, error) {
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com", "GIT_TERMINAL_PROMPT=0")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	push := func(page, test string) (string, error) {
		write(t, dir, map[string]string{"index.html": page, "tenfold.yaml": "frontends:\n  web: {path: ., test: '" + test + "', build: {command: mkdir -p out && cp index.html out/, output: out}}\n"})
		if out, err := git("add", "-A"); err != nil {
			t.Fatal(out)
		}
		if out, err := git("commit", "-qm", page); err != nil {
			t.Fatal(out)
		}
		return git("push", "tenfold", "HEAD:main")
	}
	if out, err := git("init", "-q", "-b", "main"); err != nil {
		t.Fatal(out)
	}
	remote := strings.Fields(h.must("", "git", "remote", "pages"))
	if out, err := git("remote", "add", "tenfold", remote[len(remote)-1]); err != nil {
		t.Fatal(out)
	}
	out, err := push("one", "true")
	if err != nil || !strings.Contains(out, "pages is up") {
		t.Fatalf("%v\n%s", err, out)
	}
	if code, body := h.get("pages.localhost", "/"); code != 200 || body != "one" {
		t.Errorf("%d %s", code, body)
	}
	if out, err := push("two", "echo expected more of this; false"); err == nil || !strings.Contains(out, "expected more of this") {
		t.Errorf("a push with a failing test: %v\n%s", err, out)
	}
	if code, body := h.get("pages.localhost", "/"); code != 200 || body != "one" {
		t.Errorf("after the refused push: %d %s", code, body)
	}
	if out, err := push("three", "true"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if code, body := h.get("pages.localhost", "/"); code != 200 || body != "three" {
		t.Errorf("%d %s", code, body)
	}
	if out, err := git("push", strings.Replace(remote[len(remote)-1], "git:", "git:x", 1), "HEAD:main"); err == nil {
		t.Errorf("pushed with a wrong token: %s", out)
	}

	// The folder and the remote of one project take turns; a stranger's folder of the same name does neither.
	write(t, dir, map[string]string{"index.html": "four"})
	h.must(dir, "deploy", "--app", "pages")
	if code, body := h.get("pages.localhost", "/"); code != 200 || body != "four" {
		t.Errorf("deployed from the folder after a push: %d %s", code, body)
	}
	if out, err := push("five", "true"); err != nil {
		t.Errorf("pushed after a deploy from the folder: %v\n%s", err, out)
	}
	if code, body := h.get("pages.localhost", "/"); code != 200 || body != "five" {
		t.Errorf("%d %s", code, body)
	}
	other := write(t, t.TempDir(), map[string]string{"index.html": "other", "tenfold.yaml": "app: pages\nfrontends: {web: {path: ., build: false}}\n"})
	if out, code := h.runIn(other, "deploy"); code != 4 || !strings.Contains(out, "which came by git") {
		t.Errorf("a stranger's folder: %d %s", code, out)
	}
}

func TestDataOutlivesManifests(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "")})
	h.up(dir)
	if out, status := h.deploy(dir, "2", "    uses: [db]\ndatabases: [db]\n"); status != 0 {
		t.Fatal(out)
	}
	h.must(dir, "db", "psql", "--", "-c", "create table t (n int); insert into t values (42)")

	// Two apps side by side.
	other := write(t, t.TempDir(), map[string]string{"tenfold.yaml": "app: pages\nfrontends:\n  site: {path: ., build: {command: mkdir -p out && cp index.html out/, output: out}}\n", "index.html": "<title>other</title>"})
	h.up(other)
	if code, body := h.get("pages.localhost", "/"); code != 200 || !strings.Contains(body, "other") {
		t.Errorf("pages: %d %s", code, body)
	}
	if code, _ := h.get("localhost", "/echo"); code != 200 {
		t.Errorf("the second app took the first one's address: %d", code)
	}

	// Rolled back past the revision that brought the database: stopped, kept, and said so.
	out := h.must(dir, "rollback")
	if !strings.Contains(out, "tenfold kept remove echo/production/database/db") {
		t.Errorf("rollback does not say what is kept:\n%s", out)
	}
	h.must(dir, "rollback", "2")
	if out := h.must(dir, "db", "psql", "--", "-Atc", "select n from t"); !strings.Contains(out, "42") {
		t.Errorf("the row: %s", out)
	}
	// Renamed: the old one is kept.
	if out, status := h.deploy(dir, "3", "    uses: [main-db]\ndatabases: [main-db]\n"); status != 0 || !strings.Contains(out, "kept remove echo/production/database/db") {
		t.Errorf("rename: exit %d\n%s", status, out)
	}
	h.must(dir, "down")
	if code, body := h.get("pages.localhost", "/"); code != 200 {
		t.Errorf("down of one app touched the other: %d %s", code, body)
	}
	// Nothing is removed but by name.
	if _, status := h.run("kept", "remove", "echo/production/database/db"); status != tenfold.CodeInvalid.ExitStatus() {
		t.Errorf("removed without --yes: %d", status)
	}
	h.must(dir, "kept", "remove", "echo/production/database/db", "--yes")
	if out := h.must(dir, "kept"); strings.Contains(out, "database/db ") || !strings.Contains(out, "main-db") {
		t.Errorf("kept: %s", out)
	}
}

func TestPostgresKilledUnderLoadLosesNoCommit(t *testing.T) {
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "    uses: [db, cache]\ndatabases: [db]\ncaches: {cache: {size: 16mb}}\n")})
	h.up(dir)
	h.must(dir, "db", "psql", "--", "-c", "create table t (n int primary key)")
	var mu sync.Mutex
	acknowledged, refused := map[string]bool{}, 0
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for n := w; ctx.Err() == nil; n += 4 {
				_, status := h.runIn(dir, "db", "psql", "--", "-c", fmt.Sprintf("insert into t values (%d)", n))
				mu.Lock()
				if status == 0 {
					acknowledged[strconv.Itoa(n)] = true
				} else {
					refused++
				}
				mu.Unlock()
			}
		})
	}
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(acknowledged) }
	for range 4 {
		for _, engine := range []string{"postgres -D", "-server "} {
			before := count()
			eventually(t, "writes after a kill", 30*time.Second, func() bool { return count() > before+3 })
			h.kill(engine)
		}
	}
	before := count()
	eventually(t, "writes after the last kill", 30*time.Second, func() bool { return count() > before+3 })
	stop()
	writers.Wait()
	rows := strings.Fields(h.must(dir, "db", "psql", "--", "-Atc", "select n from t"))
	t.Logf("4 × kill -9 of PostgreSQL and 4 × of Redis: %d inserts acknowledged, %d refused, %d rows", len(acknowledged), refused, len(rows))
	for _, n := range rows {
		delete(acknowledged, n)
	}
	if len(acknowledged) > 0 {
		t.Errorf("acknowledged and lost: %v", acknowledged)
	}
	eventually(t, "the cache is back", 20*time.Second, func() bool {
		st, err := h.client().Status(t.Context(), control.Env{App: "echo", Env: "production"})
		return err == nil && st.State == "healthy"
	})
}

func TestHelpfulFailures(t *testing.T) {
	t.Parallel()
	h, dir := echoApp(t)
	for args, want := range map[string]struct {
		status int
		text   string
	}{
		"status --app nothing": {3, "tenfold: hint: "},
		"scale api=many":       {2, "tenfold: hint: "},
		"rollback 99":          {3, "no deployment 99"},
		"logs nothing":         {3, "has no nothing"},
		"frobnicate":           {2, "unknown command"},
		"secrets set X=1":      {2, "pipe it in"},
	} {
		if out, status := h.runIn(dir, strings.Fields(args)...); status != want.status || !strings.Contains(out, want.text) {
			t.Errorf("%s: exit %d, want %d\n%s", args, status, want.status, out)
		}
	}
	write(t, dir, map[string]string{"tenfold.yaml": "app: echo\nservices:\n  api:\n    rout: [/*]\n"})
	out, status := h.runIn(dir, "deploy")
	if status != 2 || !strings.Contains(out, "tenfold.yaml:4:5") || !strings.Contains(out, `did you mean "routes"`) {
		t.Errorf("exit %d\n%s", status, out)
	}
	st := decode[control.Status](t, h.must(dir, "--json", "--app", "echo", "status"))
	if st.State != "healthy" || len(st.Tasks) != 2 {
		t.Errorf("%+v", st)
	}
	if out := h.must(dir, "--app", "echo", "scale", "api=3"); out == "" {
		t.Error("scale says nothing")
	}
	eventually(t, "three tasks", 20*time.Second, func() bool {
		s, err := h.client().Status(t.Context(), control.Env{App: "echo", Env: "production"})
		return err == nil && len(s.Tasks) == 3 && s.State == "healthy"
	})
	if _, err := os.Stat(filepath.Join(h.dir, "secrets.key")); err != nil {
		t.Error(err)
	}
}
