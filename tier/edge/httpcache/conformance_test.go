//go:build conformance

package httpcache_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tenfold/tier/edge/httpcache"
)

// Required of the suite, its dependencies honoured.
const (
	wantRequired = 155 // of 160
	wantOptimal  = 88  // of 105
)

// TestConformance runs http-tests/cache-tests against a small door. It needs the suite beside the
// checkout and Node; go test -tags conformance -run Conformance -timeout 10m.
func TestConformance(t *testing.T) {
	suites, err := filepath.Abs("../../../../shared/suites")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(suites, "cache-tests")); err != nil {
		t.Skipf("skipped: suite not present (looked for %s)", filepath.Join(suites, "cache-tests"))
	}
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("skipped: node is not installed")
	}
	dir := suiteCopy(t, filepath.Join(suites, "cache-tests"))
	origin := startOrigin(t, dir)
	door := startDoor(t, origin)

	out := filepath.Join(t.TempDir(), "results.json")
	run := exec.Command("node", "--no-warnings", "test-engine/cli.mjs")
	run.Dir = dir
	run.Env = append(os.Environ(), "npm_config_base="+door, "npm_package_config_id="+os.Getenv("CACHE_TEST"))
	text, err := run.Output()
	if err != nil {
		t.Fatalf("run suite: %v\n%s", err, text)
	}
	if os.Getenv("CACHE_TEST") != "" {
		t.Logf("%s", text)
		return
	}
	if err := os.WriteFile(out, text, 0o600); err != nil {
		t.Fatal(err)
	}
	score(t, suites, dir, out)
}

// suiteCopy makes a copy with the suite's own dependencies installed; CACHE_TESTS_COPY names one that is
// ready.
func suiteCopy(t *testing.T, from string) string {
	if ready := os.Getenv("CACHE_TESTS_COPY"); ready != "" {
		return ready
	}
	dir := filepath.Join(t.TempDir(), "cache-tests")
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	install := exec.Command("npm", "install", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund")
	install.Dir = dir
	if text, err := install.CombinedOutput(); err != nil {
		t.Skipf("skipped: the suite's packages cannot be installed: %v\n%s", err, text)
	}
	return dir
}

func startOrigin(t *testing.T, dir string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close() // Node cannot be handed a listener
	origin := exec.Command("node", "test-engine/server/server.mjs")
	origin.Dir = dir
	origin.Env = append(os.Environ(), "npm_config_protocol=http", fmt.Sprint("npm_config_port=", port), "npm_config_pidfile="+filepath.Join(t.TempDir(), "pid"))
	origin.Stdout = io.Discard
	if err := origin.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		origin.Process.Kill()
		origin.Wait()
	})
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(10 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			c.Close()
			return "http://" + addr
		}
		if time.Now().After(deadline) {
			t.Fatalf("the suite's origin does not listen: %v", err)
		}
	}
}

func startDoor(t *testing.T, origin string) string {
	target, err := url.Parse(origin)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	proxy.Transport = &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}
	proxy.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
		httpcache.Unreachable(r)
		w.WriteHeader(http.StatusBadGateway)
	}
	cache, err := httpcache.New(httpcache.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error)
	go func() { done <- cache.Run(ctx, func() { close(ready) }) }()
	<-ready
	door := httptest.NewServer(cache.Handler(nil, proxy))
	t.Cleanup(func() {
		door.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return door.URL
}

// score counts with the suite's own reading of its dependencies.
func score(t *testing.T, suites, dir, out string) {
	script := `
import fs from 'fs'
const [dir, file] = process.argv.slice(1)
const tests = (await import(dir + '/tests/index.mjs')).default
const { determineTestResult, resultTypes } = await import(dir + '/test-engine/lib/results.mjs')
const res = JSON.parse(fs.readFileSync(file)), n = {required: 0, optimal: 0, check: 0}, failed = []
for (const s of tests) for (const t of s.tests) {
  if (t.browser_only) continue
  const k = t.kind || 'required', r = determineTestResult(tests, t.id, res)
  if (r === resultTypes.pass || r === resultTypes.yes) n[k]++
  else failed.push(k + ' ' + t.id + ' ' + JSON.stringify(res[t.id]))
}
console.log(n.required, n.optimal, n.check)
console.log(failed.sort().join('\n'))`
	text, err := exec.Command("node", "--input-type=module", "-e", script, dir, out).CombinedOutput()
	if err != nil {
		t.Fatalf("score: %v\n%s", err, text)
	}
	head, failed, _ := strings.Cut(string(text), "\n")
	var required, optimal, check int
	if _, err := fmt.Sscan(head, &required, &optimal, &check); err != nil {
		t.Fatalf("score: %v\n%s", err, text)
	}
	t.Logf("required %d/160, optimal %d/105, check %d/100\n%s", required, optimal, check, failed)
	if required < wantRequired || optimal < wantOptimal {
		t.Errorf("required %d, optimal %d; wanted at least %d and %d", required, optimal, wantRequired, wantOptimal)
	}
	for _, line := range strings.Split(failed, "\n") {
		if strings.HasPrefix(line, "required cdn-") || strings.HasPrefix(line, "optimal cdn-") {
			t.Errorf("CDN-Cache-Control: %s", line)
		}
	}
}
