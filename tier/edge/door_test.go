package edge

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tenfold"
	"tenfold/internal/directory"
	"tenfold/internal/release"
)

// house is a door with the tier that commands it.
type house struct {
	*Edge
	door *Door
	addr string // of the door
	stop func() // ends the door and waits
}

var shop = tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindService, Name: "api"}

func short(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tf") // short: a socket lies in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func open(t testing.TB) *house {
	t.Helper()
	dir := short(t)
	h := &house{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.addr = l.Addr().String()
	h.startDoor(t, dir, l)
	h.Edge, err = New(Config{
		Dir: dir, Control: filepath.Join(dir, "door.sock"), Emit: func(tenfold.Event) {},
		SiteDir: func(id tenfold.ID) string { return filepath.Join(dir, "sites", string(id.App)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	running(t, h.Edge.Run)
	return h
}

// running runs something until the test ends or it is stopped.
func running(t testing.TB, run func(context.Context, func()) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func (h *house) startDoor(t testing.TB, dir string, l net.Listener) {
	t.Helper()
	d, err := NewDoor(DoorConfig{Dir: dir, Control: filepath.Join(dir, "door.sock"), Listeners: []net.Listener{l}})
	if err != nil {
		t.Fatal(err)
	}
	h.door, h.stop = d, running(t, d.Run)
}

// route makes the app known with a service "api", a site "web" and what f adds.
func (h *house) route(t testing.TB, name tenfold.AppName, f func(*tenfold.App)) tenfold.Resource {
	t.Helper()
	app := tenfold.App{
		Name: name, Env: "production",
		Services:  map[tenfold.Name]tenfold.Workload{"api": {Routes: []tenfold.Route{"/api/*"}}},
		Frontends: map[tenfold.Name]tenfold.Frontend{"web": {Routes: []tenfold.Route{"/*"}, Fallback: "index.html"}},
	}
	if f != nil {
		f(&app)
	}
	want, err := h.Desired(app, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Apply(t.Context(), tenfold.Step{Verb: tenfold.VerbStart, Want: want[0]}); err != nil {
		t.Fatal(err)
	}
	var got tenfold.Resource
	eventually(t, "applied", func() bool {
		all, _ := h.Observe(t.Context())
		for _, r := range all {
			if r.ID == want[0].ID {
				got = r
				return r.Serving == r.Goal || r.Failed == r.Goal
			}
		}
		return false
	})
	return got
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for begun := time.Now(); !ok(); <-time.After(2 * time.Millisecond) {
		if time.Since(begun) > 10*time.Second {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func (h *house) publish(t testing.TB, eps ...directory.Endpoint) {
	t.Helper()
	if err := h.Publish(t.Context(), shop, eps, ""); err != nil {
		t.Fatal(err)
	}
}

func task(t testing.TB, f http.HandlerFunc) (directory.Endpoint, *httptest.Server) {
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return directory.Endpoint{ID: s.Listener.Addr().String(), Addr: s.Listener.Addr().String()}, s
}

// ask sends a request to shop.localhost.
func (h *house) ask(t testing.TB, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+h.addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "shop.localhost"
	for i := 0; i < len(header); i += 2 {
		if req.Header.Set(header[i], header[i+1]); header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	tr := &http.Transport{DisableCompression: true}
	defer tr.CloseIdleConnections()
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func TestWhatTheDoorBeforeHasAtWorkIsLoad(t *testing.T) {
	before, now := open(t), open(t)
	now.cfg.Leaving = func() []string { return []string{before.cfg.Control, filepath.Join(short(t), "gone.sock")} }
	begun, end := make(chan struct{}), make(chan struct{})
	ep, _ := task(t, func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-end
	})
	for _, h := range []*house{before, now} {
		h.route(t, "shop", nil)
		h.publish(t, ep)
	}
	load := func() (l directory.Load) {
		t.Helper()
		eventually(t, "the doors know the service", func() bool {
			r, err := now.Report(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			_, ok := r.Services["shop/production/api"]
			return ok
		})
		now.last.at = time.Time{}
		l, err := now.Load(t.Context(), shop)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		before.ask(t, http.MethodGet, "/api/long", "")
	}()
	<-begun
	if l := load(); l.InFlight != 1 || l.Requests != 0 {
		t.Errorf("with a request at the door before: %+v", l)
	}
	if n, err := now.InFlight(t.Context(), ep.ID); err != nil || n != 1 {
		t.Errorf("the task answers %d requests, %v", n, err)
	}
	close(end)
	<-done
	if l := load(); l.InFlight != 0 {
		t.Errorf("once it was answered: %+v", l)
	}
}

func TestNoRequestFailsWhileTasksAreReplaced(t *testing.T) {
	h := open(t)
	h.route(t, "shop", nil)
	var posts, seen atomic.Int64
	start := func() (directory.Endpoint, *httptest.Server) {
		return task(t, func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			if r.Method == http.MethodPost {
				seen.Add(1)
			}
			<-time.After(time.Millisecond)
			fmt.Fprintf(w, "%d", len(b))
		})
	}
	ep, server := start()
	h.publish(t, ep)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var good, bad atomic.Int64
	for i := range 8 {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: i%2 == 0}}
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				n := []int{0, 10, 200_000}[i%3]
				var body io.Reader
				method := http.MethodGet
				if n > 0 {
					method, body = http.MethodPost, strings.NewReader(strings.Repeat("x", n))
					posts.Add(1)
				}
				req, _ := http.NewRequest(method, "http://"+h.addr+"/api/x", body)
				req.Host = "shop.localhost"
				res, err := client.Do(req)
				if err != nil {
					bad.Add(1)
					t.Error(err)
					return
				}
				b, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode != 200 || string(b) != fmt.Sprint(n) {
					bad.Add(1)
					t.Errorf("%d %q %v", res.StatusCode, b, err)
					return
				}
				good.Add(1)
			}
		})
	}
	for range 50 {
		next, nextServer := start()
		old := ep
		old.Draining = true
		h.publish(t, old, next)
		eventually(t, "the old task has nothing in flight", func() bool {
			n, err := h.InFlight(t.Context(), old.ID)
			return err == nil && n == 0
		})
		server.CloseClientConnections() // at once and hard: nobody may be there
		server.Close()
		h.publish(t, next)
		ep, server = next, nextServer
	}
	cancel()
	wg.Wait()
	if good.Load() < 100 || bad.Load() > 0 {
		t.Fatalf("%d good, %d bad", good.Load(), bad.Load())
	}
	if posts.Load() != seen.Load() {
		t.Fatalf("%d POSTs were sent, tasks saw %d", posts.Load(), seen.Load())
	}
}

func TestADeadTaskIsPassedOver(t *testing.T) {
	h := open(t)
	h.route(t, "shop", nil)
	dead, s := task(t, nil)
	s.Close()
	alive, _ := task(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Write(b)
	})
	h.publish(t, dead, alive)
	for range 20 {
		if res, b := h.ask(t, "POST", "/api/", strings.Repeat("y", 100_000)); res.StatusCode != 200 || len(b) != 100_000 {
			t.Fatal(res.StatusCode, len(b))
		}
	}
}

func TestARequestWaitsForATask(t *testing.T) {
	h := open(t)
	h.route(t, "shop", nil)
	h.publish(t)
	ep, _ := task(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "here") })
	done := make(chan string, 1)
	go func() {
		_, b := h.ask(t, "POST", "/api/", "x")
		done <- b
	}()
	eventually(t, "the request is held", func() bool {
		return h.door.current.Load().services[serviceKey{"shop", "production", "api"}].Held() == 1
	})
	h.publish(t, ep)
	if b := <-done; b != "here" {
		t.Fatal(b)
	}
}

func TestPOSTThatWasSentIsNotRepeated(t *testing.T) {
	h := open(t)
	h.route(t, "shop", nil)
	var n atomic.Int64
	breaks := func(w http.ResponseWriter, _ *http.Request) {
		n.Add(1)
		c, _, _ := w.(http.Hijacker).Hijack()
		c.Close()
	}
	a, _ := task(t, breaks)
	b, _ := task(t, breaks)
	h.publish(t, a, b)
	res, text := h.ask(t, "POST", "/api/pay", "money")
	if res.StatusCode != 502 || n.Load() != 1 || !strings.Contains(text, "service api broke off") {
		t.Fatalf("%d after %d tries: %s", res.StatusCode, n.Load(), text)
	}
	n.Store(0)
	if res, _ := h.ask(t, "GET", "/api/pay", ""); res.StatusCode != 502 || n.Load() != 3 { // both, and once more on a fresh connection
		t.Fatalf("GET: %d after %d tries", res.StatusCode, n.Load())
	}
}

func TestWebSocketsPassBothWaysAndCount(t *testing.T) {
	h := open(t)
	h.route(t, "shop", func(a *tenfold.App) {
		a.Rules = map[tenfold.Route]tenfold.Rule{"/*": {Headers: map[string]string{"X-Frame-Options": "DENY"}}}
	})
	ep, _ := task(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		w.WriteHeader(http.StatusSwitchingProtocols)
		c, b, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		for {
			line, err := b.ReadString('\n')
			if err != nil {
				return
			}
			io.WriteString(c, "echo "+line)
		}
	})
	h.publish(t, ep)
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET /api/ws HTTP/1.1\r\nHost: shop.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	in := bufio.NewReader(c)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatal(res, err)
	}
	io.WriteString(c, "hello\n")
	if line, err := in.ReadString('\n'); line != "echo hello\n" {
		t.Fatal(line, err)
	}
	if n, err := h.InFlight(t.Context(), ep.ID); n != 1 || err != nil {
		t.Fatalf("%d in flight, %v", n, err)
	}
	c.Close()
	eventually(t, "nothing in flight", func() bool { n, _ := h.InFlight(t.Context(), ep.ID); return n == 0 })
}

func TestEventsAreFlushedAtOnceAndEndWhenSilent(t *testing.T) {
	h := open(t)
	h.route(t, "shop", func(a *tenfold.App) {
		w := a.Services["api"]
		w.Timeout.Idle = 200 * time.Millisecond
		a.Services["api"] = w
	})
	ep, _ := task(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "data: 1\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	h.publish(t, ep)
	req, _ := http.NewRequest("GET", "http://"+h.addr+"/api/events", nil)
	req.Host = "shop.localhost"
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	in := bufio.NewReader(res.Body)
	if line, err := in.ReadString('\n'); line != "data: 1\n" {
		t.Fatal(line, err)
	}
	if _, err := io.ReadAll(in); err == nil {
		t.Fatal("the silent stream ended as if it were whole")
	}
}

func TestWhatATaskSees(t *testing.T) {
	h := open(t)
	h.route(t, "shop", nil)
	ep, _ := task(t, func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{"header": r.Header, "host": r.Host, "uri": r.RequestURI})
	})
	h.publish(t, ep)
	_, b := h.ask(t, "GET", "/api/a%2Fb?x=1;y", "", "X-Forwarded-For", "6.6.6.6", "Forwarded", "for=6.6.6.6", "X-Hop", "1", "Connection", "X-Hop", "Traceparent", "nonsense")
	var got struct {
		Header http.Header
		Host   string
		URI    string
	}
	if err := json.Unmarshal([]byte(b), &got); err != nil {
		t.Fatal(err, b)
	}
	if got.Header.Get("X-Forwarded-For") != "127.0.0.1" || got.Header.Get("X-Forwarded-Proto") != "http" || got.Header.Get("X-Forwarded-Host") != "shop.localhost" ||
		got.Header.Get("Forwarded") != "" || got.Header.Get("X-Hop") != "" || got.Host != "shop.localhost" || got.URI != "/api/a%2Fb?x=1;y" || !traceparent.MatchString(got.Header.Get("Traceparent")) {
		t.Fatal(b)
	}
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	if _, b := h.ask(t, "GET", "/api/", "", "Traceparent", parent); !strings.Contains(b, parent) {
		t.Fatal(b)
	}
}

func TestErrorPagesSayWhichPartFailedAndWhy(t *testing.T) {
	h := open(t)
	h.route(t, "shop", func(a *tenfold.App) {
		w := a.Services["api"]
		w.Timeout.Request = 50 * time.Millisecond
		a.Services["api"] = w
	})
	slow, _ := task(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	h.publish(t, slow)
	if res, b := h.ask(t, "GET", "/api/", ""); res.StatusCode != 504 || !strings.Contains(b, "took too long") {
		t.Fatal(res.StatusCode, b)
	}
	if res, b := h.ask(t, "GET", "/nothing", "", "Host", "elsewhere.example", "Accept", "text/html"); res.StatusCode != 404 || !strings.Contains(b, "shop.localhost") || !strings.Contains(b, "<html") {
		t.Fatal(res.StatusCode, b)
	}
	if res, _ := h.ask(t, "POST", "/api/", strings.Repeat("x", maxBody+1)); res.StatusCode != 413 {
		t.Fatal(res.StatusCode)
	}
	if err := h.Publish(t.Context(), shop, nil, "service api: task exited with status 1"); err != nil {
		t.Fatal(err)
	}
	res, b := h.ask(t, "GET", "/api/", "")
	if res.StatusCode != 503 || !strings.Contains(b, "task exited with status 1") || res.Header.Get("X-Request-Id") == "" || res.Header.Get("Content-Type") != "application/json" {
		t.Fatal(res.StatusCode, b)
	}
	if _, b := h.ask(t, "GET", "/", "", "X-Forwarded-For", "9.9.9.9"); strings.Contains(b, "tenfold status") {
		t.Fatalf("details went out: %s", b)
	}
}

func TestTheDoorServesOnByWhatItKnew(t *testing.T) {
	h := open(t)
	h.route(t, "shop", nil)
	ep, _ := task(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "yes") })
	h.publish(t, ep)
	version := h.door.current.Load().snapshot.Version
	h.stop()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.addr = l.Addr().String()
	h.startDoor(t, h.cfg.Dir, l)
	if got := h.door.current.Load().snapshot.Version; got != version {
		t.Fatalf("version %d, want %d", got, version)
	}
	if res, b := h.ask(t, "GET", "/api/", ""); b != "yes" {
		t.Fatal(res.StatusCode, b)
	}
	if err := h.door.apply(directory.Snapshot{Version: version - 1}); err == nil {
		t.Fatal("an older snapshot was taken")
	}
	// The tier's folder was lost: it goes on from the door's version.
	h.version = 0
	h.publish(t, ep)
	if got := h.door.current.Load().snapshot.Version; got <= version {
		t.Fatalf("version %d after %d", got, version)
	}
}

func TestAppsDoNotDisturbEachOther(t *testing.T) {
	h := open(t)
	h.route(t, "shop", func(a *tenfold.App) { a.Domains = []string{"shop.example", "www.shop.example"} })
	first := h.door.current.Load().hosts["shop.localhost"]
	if r := h.route(t, "blog", nil); r.State != tenfold.StateReady {
		t.Fatalf("%+v", r)
	}
	t2 := h.door.current.Load()
	if s := t2.hosts["shop.localhost"]; !s.Default || fmt.Sprint(s.Site) != fmt.Sprint(first.Site) || t2.hosts["blog.localhost"].Default {
		t.Fatal("the second app changed the first")
	}
	if r := h.route(t, "thief", func(a *tenfold.App) { a.Domains = []string{"www.shop.example"} }); r.State != tenfold.StateFailed || !strings.Contains(r.Reason, "www.shop.example belongs to app shop") {
		t.Fatalf("%+v", r)
	}
	res, _ := h.ask(t, "GET", "/a?b=c", "", "Host", "www.shop.example")
	if res.StatusCode != 301 || res.Header.Get("Location") != "//shop.example/a?b=c" {
		t.Fatal(res.StatusCode, res.Header)
	}
}

func TestRulesAreDecidedKeyByKey(t *testing.T) {
	h := open(t)
	h.route(t, "shop", func(a *tenfold.App) {
		a.Rules = map[tenfold.Route]tenfold.Rule{
			"/*":     {Headers: map[string]string{"X-A": "all", "X-B": "all", "Server": ""}},
			"/api/*": {Headers: map[string]string{"X-B": "api"}},
			"/old/*": {Redirect: &tenfold.Redirect{To: "/new/*", Status: 308}},
		}
	})
	ep, _ := task(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-A", "own")
		w.Header().Set("Server", "secret")
	})
	h.publish(t, ep)
	res, _ := h.ask(t, "GET", "/api/", "")
	if res.Header.Get("X-A") != "all" || res.Header.Get("X-B") != "api" || res.Header.Get("Server") != "" {
		t.Fatal(res.Header)
	}
	if res, _ := h.ask(t, "GET", "/old/a/b?c=1", ""); res.StatusCode != 308 || res.Header.Get("Location") != "/new/a/b?c=1" {
		t.Fatal(res.StatusCode, res.Header)
	}
	if res, _ := h.ask(t, "GET", "/old//evil.example/", ""); strings.HasPrefix(res.Header.Get("Location"), "//") {
		t.Fatal(res.Header)
	}
}

// release makes files the current release of the site.
func (h *house) release(t testing.TB, files map[string]string) release.Release {
	t.Helper()
	r := h.releaseOf(t, files, release.Meta{})
	if err := (release.Site{Dir: h.cfg.SiteDir(shop)}).Switch(r.ID); err != nil {
		t.Fatal(err)
	}
	return r
}

// releaseOf makes a release that nobody gets yet.
func (h *house) releaseOf(t testing.TB, files map[string]string, meta release.Meta) release.Release {
	t.Helper()
	from := t.TempDir()
	for name, text := range files {
		to := filepath.Join(from, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r, err := release.Site{Dir: h.cfg.SiteDir(shop)}.Add(t.Context(), from, meta)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestFilesOfReleases(t *testing.T) {
	h := open(t)
	h.route(t, "shop", nil)
	if res, b := h.ask(t, "GET", "/", ""); res.StatusCode != 503 || !strings.Contains(b, "no release yet") {
		t.Fatal(res.StatusCode, b)
	}
	long := strings.Repeat("let a = 1;\n", 1000)
	h.release(t, map[string]string{"index.html": "<html>one", "about.html": "about", "docs/index.html": "docs", "assets/app-1a2b3c4d.js": long, "robots.txt": "robots"})
	for path, want := range map[string]string{
		"/": "200 no-cache <html>one", "/about": "200 no-cache about", "/docs": "200 no-cache docs", "/cart/7": "200 no-cache <html>one",
		"/robots.txt": "200 public, max-age=0, must-revalidate robots", "/assets/app-1a2b3c4d.js": "200 public, max-age=31536000, immutable " + long,
	} {
		res, b := h.ask(t, "GET", path, "")
		if got := fmt.Sprintf("%d %s %s", res.StatusCode, res.Header.Get("Cache-Control"), b); got != want {
			t.Errorf("%s: %.90s", path, got)
		}
	}
	res, _ := h.ask(t, "GET", "/about", "")
	if res, b := h.ask(t, "GET", "/about", "", "If-None-Match", res.Header.Get("ETag")); res.StatusCode != 304 || b != "" {
		t.Error(res.StatusCode, b)
	}
	if res, b := h.ask(t, "GET", "/robots.txt", "", "Range", "bytes=1-2"); res.StatusCode != 206 || b != "ob" {
		t.Error(res.StatusCode, b)
	}
	if res, b := h.ask(t, "GET", "/assets/app-1a2b3c4d.js", "", "Accept-Encoding", "gzip"); res.Header.Get("Content-Encoding") != "gzip" || len(b) > 1000 {
		t.Error(res.Header, len(b))
	}
	if res, _ := h.ask(t, "POST", "/", "x"); res.StatusCode != 405 {
		t.Error(res.StatusCode)
	}

	h.release(t, map[string]string{"index.html": "<html>two", "assets/app-5e6f7a8b.js": "two"})
	if _, b := h.ask(t, "GET", "/", ""); b != "<html>two" {
		t.Errorf("after the switch: %s", b)
	}
	if res, b := h.ask(t, "GET", "/assets/app-1a2b3c4d.js", ""); res.StatusCode != 200 || b != long {
		t.Errorf("an asset of the earlier release: %d", res.StatusCode)
	}
	if res, b := h.ask(t, "GET", "/assets/app-00000000.js", "", "Accept", "text/html"); res.StatusCode != 404 || res.Header.Get("Cache-Control") != "no-store" || strings.Contains(b, "<") {
		t.Errorf("%d %s %s", res.StatusCode, res.Header.Get("Cache-Control"), b)
	}
	if res, _ := h.ask(t, "GET", "/../../directory.json", ""); res.StatusCode == 200 && res.Header.Get("Content-Type") == "application/json" {
		t.Error("a file outside of the release")
	}
}

func TestDrainAnswersWhatIsUnderWay(t *testing.T) {
	h := open(t)
	h.route(t, "shop", nil)
	go1 := make(chan struct{})
	ep, _ := task(t, func(w http.ResponseWriter, _ *http.Request) { <-go1; io.WriteString(w, "whole") })
	h.publish(t, ep)
	done := make(chan string, 1)
	go func() { _, b := h.ask(t, "GET", "/api/", ""); done <- b }()
	eventually(t, "under way", func() bool { return busy(h.door.current.Load().services[serviceKey{"shop", "production", "api"}]) == 1 })
	stopped := make(chan struct{})
	go func() { h.stop(); close(stopped) }()
	eventually(t, "the door drains", func() bool {
		c, err := net.Dial("tcp", h.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	close(go1)
	if b := <-done; b != "whole" {
		t.Fatal(b)
	}
	<-stopped
}

func TestPrivateAddressLeadsToTheService(t *testing.T) {
	h := open(t)
	h.route(t, "shop", nil)
	ep, _ := task(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) })
	h.publish(t, ep)
	u, err := h.ServiceURL(t.Context(), shop)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Get(u + "/anything")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); string(b) != "/anything" {
		t.Fatal(string(b))
	}
}

// A rule's cache answers once for all, a purge makes it ask again, and nothing overrides private.
func TestRoutesAreCachedByRule(t *testing.T) {
	h := open(t)
	h.route(t, "shop", func(a *tenfold.App) {
		a.Rules = map[tenfold.Route]tenfold.Rule{
			"/api/tags":  {Cache: &tenfold.Caching{Default: time.Hour, Tags: []string{"tags"}, NoQuery: true}},
			"/api/none":  {Cache: &tenfold.Caching{Off: true}},
			"/api/mine":  {Cache: &tenfold.Caching{Default: time.Hour, Min: time.Hour}},
			"/api/three": {Limit: &tenfold.Limiting{Rate: 3, Per: time.Hour, By: "client"}},
		}
	})
	var asked atomic.Int64
	ep, _ := task(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/none":
			w.Header().Set("Cache-Control", "max-age=60")
		case "/api/mine":
			w.Header().Set("Cache-Control", "private")
		}
		fmt.Fprint(w, asked.Add(1))
	})
	h.publish(t, ep)
	ask := func(path string) string {
		res, b := h.ask(t, "GET", path, "")
		return fmt.Sprint(res.StatusCode, " ", b)
	}
	first := ask("/api/tags?x=1")
	eventually(t, "an answer from the cache", func() bool { return ask("/api/tags?x=2") == first })
	if res, _ := h.ask(t, "GET", "/api/tags", ""); !strings.Contains(res.Header.Get("Cache-Status"), "hit") {
		t.Errorf("Cache-Status: %q", res.Header.Get("Cache-Status"))
	}
	if n, err := h.Purge(t.Context(), directory.Purge{Site: "shop/production", Tag: "tags"}); err != nil || n < 1 {
		t.Errorf("purged %d, %v", n, err)
	}
	if again := ask("/api/tags"); again == first {
		t.Error("served after the purge")
	}
	for _, path := range []string{"/api/none", "/api/mine"} {
		if a, b := ask(path), ask(path); a == b {
			t.Errorf("%s was kept: %s", path, a)
		}
	}
	for range 3 {
		ask("/api/three")
	}
	if res, _ := h.ask(t, "GET", "/api/three", ""); res.StatusCode != 429 || res.Header.Get("Retry-After") == "" {
		t.Errorf("the fourth request: %d, Retry-After %q", res.StatusCode, res.Header.Get("Retry-After"))
	}
	r, err := h.Report(t.Context(), true)
	if err != nil || r.Cache.Hits < 2 {
		t.Errorf("report: %+v, %v", r.Cache, err)
	}
}

// What is stale is answered while the service is asked beside it, on another goroutine: the detector of
// races watches, and the service's time is not this answer's.
func TestRefreshingBesideAnAnswer(t *testing.T) {
	h := open(t)
	h.route(t, "shop", nil)
	var asked atomic.Int64
	ep, _ := task(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=0, stale-while-revalidate=600")
		fmt.Fprint(w, asked.Add(1))
	})
	h.publish(t, ep)
	stale := 0
	eventually(t, "twenty stale answers", func() bool {
		res, _ := h.ask(t, "GET", "/api/x", "")
		if strings.Contains(res.Header.Get("Cache-Status"), "tenfold; hit; ttl=") {
			if stale++; strings.Contains(res.Header.Get("Server-Timing"), "service") {
				t.Errorf("a stored answer says that the service took %s", res.Header.Get("Server-Timing"))
			}
		}
		return stale >= 20
	})
	if asked.Load() < 2 {
		t.Error("nothing was refreshed")
	}
}

func FuzzSnapshot(f *testing.F) {
	f.Add([]byte(`{"version":1,"sites":[{"app":"a","env":"production","hosts":["a.localhost"],"default":true,"routes":[{"pattern":"/*","service":"s"}],"rules":[{"pattern":"/x/*","redirectTo":"/y/*","status":301}],"services":[{"name":"s"}]}]}`), "a.localhost", "/x/1")
	f.Fuzz(func(t *testing.T, b []byte, host, path string) {
		var s directory.Snapshot
		if json.Unmarshal(b, &s) != nil {
			return
		}
		table, err := newTable(s, newTraffic(), nil, &accessLogs{dir: t.TempDir(), m: map[string]*accessLog{}})
		if err != nil {
			return
		}
		if st := table.find(host); st != nil {
			st.routes.Find("GET", host, path)
		}
	})
}
