//go:build scenario

package test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// A site that renders on a server, as a framework would build it: a file whose name carries its hash,
// and a server whose pages name it. The build takes its version from the file VERSION.
var rendered = map[string]string{
	"package.json": `{"name":"rendered","version":"1.0.0","private":true}`,
	"VERSION":      "1",
	"tenfold.yaml": `app: rendered
frontends:
  web:
    build: {command: sh build.sh, output: dist/client}
    server: node dist/server/index.mjs
    e2e: node e2e.mjs
`,
	"build.sh": `set -e
v=$(cat VERSION)
mkdir -p dist/client/assets dist/server
echo "export default 'version $v'" > app.js
h=$(sha256sum app.js | cut -c1-8)
mv app.js dist/client/assets/app-$h.js
echo "robots $v" > dist/client/robots.txt
sed "s/VERSION/$v/g; s/HASH/$h/g" server.mjs > dist/server/index.mjs
`,
	"server.mjs": `import http from 'node:http'
http.createServer(async (req, res) => {
  if (req.method === 'POST') {
    let body = ''
    for await (const c of req) body += c
    return res.end('posted ' + body)
  }
  if (req.url === '/kept') res.setHeader('Cache-Control', 's-maxage=3600')
  res.setHeader('Content-Type', 'text/html')
  res.end('<h1>version VERSION</h1><script type=module src=/assets/app-HASH.js></script>')
}).listen(process.env.PORT, process.env.HOST)
`,
	"e2e.mjs": `import fs from 'node:fs'
const version = fs.readFileSync('VERSION', 'utf8').trim()
const page = await (await fetch(process.env.APP_URL + '/')).text()
const asset = await (await fetch(process.env.APP_URL + /src=([^>]*)>/.exec(page)[1])).text()
const robots = await (await fetch(process.env.APP_URL + '/robots.txt')).text()
console.log('the candidate says', page, asset, robots)
if (!page.includes('version ' + version) || !asset.includes('version ' + version) || !robots.includes(version)) process.exit(3)
if (version === '3') { console.log('1 of 2 failed: the cart is broken'); process.exit(1) }
await fetch(process.env.SEEN ?? 'data:,ok')
`,
}

var named = regexp.MustCompile(`<h1>version (\d+)</h1><script type=module src=(/assets/app-[0-9a-f]+\.js)>`)

// watcher asks for pages and what they name, all the time, and keeps what did not fit together.
type watcher struct {
	mu   sync.Mutex
	seen map[string]int
	bad  []string
	end  chan struct{}
	wg   sync.WaitGroup
}

func (h *house) watch(host string) *watcher {
	w := &watcher{seen: map[string]int{}, end: make(chan struct{})}
	for range 4 {
		w.wg.Go(func() {
			for {
				select {
				case <-w.end:
					return
				case <-time.After(2 * time.Millisecond):
				}
				w.look(h, host)
			}
		})
	}
	return w
}

func (w *watcher) look(h *house, host string) {
	status, page := h.get(host, "/")
	w.mu.Lock()
	defer w.mu.Unlock()
	m := named.FindStringSubmatch(page)
	if status != 200 || m == nil {
		w.bad = append(w.bad, fmt.Sprint("page: ", status, " ", page))
		return
	}
	w.seen[m[1]]++
	if status, asset := h.get(host, m[2]); status != 200 || !strings.Contains(asset, "version "+m[1]) {
		w.bad = append(w.bad, fmt.Sprint("page of ", m[1], ", asset: ", status, " ", asset))
	}
}

func (w *watcher) stop(t *testing.T) map[string]int {
	t.Helper()
	close(w.end)
	w.wg.Wait()
	if len(w.bad) > 0 {
		t.Errorf("%d answers do not fit together: %s", len(w.bad), w.bad[0])
	}
	return w.seen
}

func TestServerRenderingSwitchesBothHalvesAtOnce(t *testing.T) {
	h := newHouse(t)
	dir := write(t, t.TempDir()+"/rendered", rendered)
	const host = "rendered.localhost"
	h.up(dir)
	if status, page := h.get(host, "/any/path"); status != 200 || !strings.Contains(page, "version 1") {
		t.Fatalf("%d %s", status, page)
	}
	if _, text := h.get(host, "/robots.txt"); text != "robots 1\n" {
		t.Errorf("the file has %q", text)
	}
	req, _ := http.NewRequest("POST", "http://"+h.addr+"/robots.txt", strings.NewReader("form"))
	req.Host = host
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if string(body) != "posted form" {
		t.Errorf("a POST was answered %d %q", res.StatusCode, body)
	}
	_, first := h.get(host, "/kept")
	h.get(host, "/kept")

	// One entry in status, with its task.
	status := h.must("", "status", "--app", "rendered")
	if !regexp.MustCompile(`web +frontend +ready +release \w+, 1 task`).MatchString(status) || strings.Contains(status, "service") {
		t.Errorf("status:\n%s", status)
	}
	one := strings.Fields(strings.Split(h.must("", "releases", "web", "--app", "rendered"), "\n")[1])[0]

	w := h.watch(host)
	version := func(v string) {
		if err := os.WriteFile(filepath.Join(dir, "VERSION"), []byte(v+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	version("2")
	if out := h.must(dir, "up", "--detach"); !strings.Contains(out, "tested before promotion: node e2e.mjs") {
		t.Errorf("nothing is said of the tests:\n%s", out)
	}
	if _, page := h.get(host, "/"); !strings.Contains(page, "version 2") {
		t.Errorf("after the deploy: %s", page)
	}
	if _, page := h.get(host, "/kept"); page == first {
		t.Errorf("a page that was cached before is served after the switch: %s", page)
	}
	// A failing test keeps the release before, and says what it printed.
	version("3")
	out, code := h.runIn(dir, "up", "--detach")
	if code == 0 || !strings.Contains(out, "1 of 2 failed: the cart is broken") || !strings.Contains(out, "e2e: node e2e.mjs: exited with status 1") {
		t.Errorf("exit %d:\n%s", code, out)
	}
	if _, page := h.get(host, "/"); !strings.Contains(page, "version 2") {
		t.Errorf("after the failed deploy: %s", page)
	}
	if out := h.must("", "logs", "web", "--app", "rendered"); !strings.Contains(out, "the candidate says <h1>version 3</h1>") {
		t.Errorf("the log of the tests is not kept:\n%s", out)
	}
	// Back to the first release: its server comes back with it.
	h.must("", "rollback", "--frontend", "web", one, "--app", "rendered")
	if _, page := h.get(host, "/"); !strings.Contains(page, "version 1") {
		t.Errorf("after going back: %s", page)
	}
	if _, text := h.get(host, "/robots.txt"); text != "robots 1\n" {
		t.Errorf("after going back the file has %q", text)
	}
	seen := w.stop(t)
	if seen["1"] == 0 || seen["2"] == 0 || seen["3"] > 0 {
		t.Errorf("pages of versions were seen: %v", seen)
	}
	// A dead task is started again; who asks meanwhile waits.
	eventually(t, "the tasks of the other release are gone", 20*time.Second, func() bool {
		n := 0
		for _, cmd := range h.mine() {
			if strings.HasPrefix(cmd, "node dist/server/") {
				n++
			}
		}
		return n == 1
	})
	h.kill("node dist/server/index.mjs")
	eventually(t, "the server is back", 10*time.Second, func() bool { status, _ := h.get(host, "/"); return status == 200 })
	eventually(t, "explain names the task", 10*time.Second, func() bool {
		out = h.must(dir, "edge", "explain", "/any/path")
		return strings.Contains(out, "the server of frontend web") && strings.Contains(out, "rendered/production/web/")
	})
	// The daemon is killed in the middle of deploys: users have one release or the other, whole.
	w = h.watch(host)
	for i, wait := range []time.Duration{20, 150, 400, 700, 1000, 1300} {
		version(fmt.Sprint(10 + i))
		done := make(chan struct{})
		go func() { defer close(done); h.runIn(dir, "up", "--detach") }()
		<-time.After(wait * time.Millisecond)
		h.kill("house daemon")
		<-done
	}
	eventually(t, "the daemon is back", 20*time.Second, func() bool { _, code := h.runIn(dir, "up", "--detach"); return code == 0 })
	if _, page := h.get(host, "/"); !strings.Contains(page, "version 15") {
		t.Errorf("after the kills: %s", page)
	}
	t.Logf("pages of versions were seen: %v", w.stop(t))
	// Without its server the site is files.
	y := strings.Replace(rendered["tenfold.yaml"], "server: node dist/server/index.mjs\n    e2e: node e2e.mjs", "server: false", 1)
	if err := os.WriteFile(filepath.Join(dir, "tenfold.yaml"), []byte(y), 0o644); err != nil {
		t.Fatal(err)
	}
	h.must(dir, "up", "--detach")
	if status, _ := h.get(host, "/any/path"); status != 404 {
		t.Errorf("without a server: %d", status)
	}
	eventually(t, "the server is gone", 10*time.Second, func() bool { return h.process("dist/server/index.mjs") == 0 })
}
