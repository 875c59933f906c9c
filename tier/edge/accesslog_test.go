package edge

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tenfold"
	"tenfold/internal/directory"
	"tenfold/internal/tasklog"
)

func FuzzAccessLine(f *testing.F) {
	f.Add("GET", "shop.example.com", "/a?b=\"c\"\\", "/*", true)
	f.Add("GET", "x", "/\x00\xff\u2028", "/*", false)
	f.Fuzz(func(t *testing.T, method, host, target, route string, personal bool) {
		dir := t.TempDir()
		logs := &accessLogs{dir: dir, m: map[string]*accessLog{}}
		l, err := logs.of(directory.Site{App: "a", Env: "p", Log: &directory.Logging{Sample: 1, Personal: personal}})
		if err != nil {
			t.Fatal(err)
		}
		l.add(&access{at: time.Now(), method: method, host: host, target: target, route: route, status: 200, took: time.Millisecond, remote: "192.0.2.1"})
		if err := l.w.Close(); err != nil {
			t.Fatal(err)
		}
		lines, err := tasklog.Read(LogPath(dir, "a", "p"), tasklog.Options{})
		if err != nil || len(lines) == 0 {
			t.Fatal(lines, err)
		}
		text := ""
		for _, line := range lines {
			text += line.Text
		}
		var got map[string]any
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if _, ok := got["client"]; ok != personal {
			t.Errorf("client is there: %t", ok)
		}
		if p, _ := got["path"].(string); !personal && strings.Contains(p, "?") {
			t.Errorf("path %q has its query", p)
		}
	})
}

func TestRequestsAreLogged(t *testing.T) {
	h := open(t)
	h.route(t, "shop", func(a *tenfold.App) { a.Log = tenfold.AccessLog{Sample: 1, Personal: true} })
	h.ask(t, "GET", "/api/none?secret=1", "")
	h.stop()
	paths, _ := filepath.Glob(filepath.Join(h.door.cfg.Dir, "log", "*.log"))
	if len(paths) != 1 {
		t.Fatal(paths)
	}
	lines, err := tasklog.Read(paths[0], tasklog.Options{})
	if err != nil || len(lines) != 1 {
		t.Fatal(lines, err)
	}
	for _, want := range []string{`"path":"/api/none?secret=1"`, `"status":503`, `"route":"/api/*"`, `"client":"127.0.0.1`} {
		if !strings.Contains(lines[0].Text, want) {
			t.Errorf("no %s in %s", want, lines[0].Text)
		}
	}
}

// Who asks is told the same way whether the loop answers or the handler, also when proxies wrote a line each.
func TestHitsAreLoggedWithTheirClient(t *testing.T) {
	h := open(t)
	h.route(t, "shop", func(a *tenfold.App) {
		a.Log, a.Door.Trust = tenfold.AccessLog{Sample: 1, Personal: true}, []string{"127.0.0.0/8"}
	})
	ep, _ := task(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Cache-Control", "max-age=60") })
	h.publish(t, ep)
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for range 2 {
		io.WriteString(c, "GET /api/x HTTP/1.1\r\nHost: shop.localhost\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-For: 198.51.100.1, 127.0.0.9\r\nX-Forwarded-Proto: https\r\n\r\n")
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
	}
	h.stop()
	lines, err := tasklog.Read(LogPath(h.door.cfg.Dir, "shop", "production"), tasklog.Options{})
	if err != nil || len(lines) != 2 || !strings.Contains(lines[1].Text, `"cache":"hit"`) {
		t.Fatal(lines, err)
	}
	for _, l := range lines {
		if !strings.Contains(l.Text, `"client":"198.51.100.1:0"`) || !strings.Contains(l.Text, `"tls":true`) {
			t.Error(l.Text)
		}
	}
}

func TestLogsOfSitesThatAreGoneAreClosed(t *testing.T) {
	logs := &accessLogs{dir: t.TempDir(), m: map[string]*accessLog{}}
	stays, goes := directory.Site{App: "a", Env: "p"}, directory.Site{App: "b", Env: "p"}
	for _, s := range []directory.Site{stays, goes} {
		if _, err := logs.of(s); err != nil {
			t.Fatal(err)
		}
	}
	gone := logs.m[LogPath(logs.dir, "b", "p")]
	if err := logs.retain([]directory.Site{stays}); err != nil {
		t.Fatal(err)
	}
	gone.add(&access{at: time.Now(), method: "GET"}) // one that was still under way
	if len(logs.m) != 1 || logs.m[LogPath(logs.dir, "a", "p")] == nil {
		t.Errorf("open: %v", logs.m)
	}
	if stays.Log = (&directory.Logging{Off: true}); logs.retain([]directory.Site{stays}) != nil || len(logs.m) != 0 {
		t.Errorf("open though off: %v", logs.m)
	}
}
