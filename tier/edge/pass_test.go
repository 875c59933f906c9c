package edge

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tenfold/internal/directory"
)

// rawTask answers each request with the bytes that say gives for its path, and closes the connection when
// say says so. It keeps the heads it got.
type rawTask struct {
	directory.Endpoint
	mu    sync.Mutex
	heads map[string][]string // by path: sorted lines
}

func newRawTask(t *testing.T, say func(path string, w net.Conn) (closes bool)) *rawTask {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &rawTask{Endpoint: directory.Endpoint{ID: "raw", Addr: l.Addr().String()}, heads: map[string][]string{}}
	var wg sync.WaitGroup
	var open sync.Map
	t.Cleanup(func() {
		l.Close()
		open.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Store(c, nil)
			wg.Go(func() {
				defer c.Close()
				in := bufio.NewReader(c)
				for {
					var lines []string
					for {
						line, err := in.ReadString('\n')
						if err != nil {
							return
						}
						if line = strings.TrimRight(line, "\r\n"); line == "" {
							break
						}
						lines = append(lines, line)
					}
					path := strings.Fields(lines[0])[1]
					slices.Sort(lines)
					k.mu.Lock()
					k.heads[path] = lines
					k.mu.Unlock()
					if say(path, c) {
						return
					}
				}
			})
		}
	})
	return k
}

func (k *rawTask) head(path string) (out []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, l := range k.heads[path] {
		if !strings.HasPrefix(l, "Traceparent: 00-") && !strings.HasPrefix(l, "Pragma:") {
			out = append(out, l)
		}
	}
	return out
}

// exchange sends a request on a connection of its own and reads the answer as a client does.
func exchange(t *testing.T, addr, path, fields string) (string, error) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: shop.localhost\r\n%s\r\n", path, fields)
	var out strings.Builder
	in := bufio.NewReader(c)
	for {
		res, err := http.ReadResponse(in, &http.Request{Method: "GET"})
		if err != nil {
			return "", err
		}
		h := res.Header
		for _, own := range []string{"Date", "Server-Timing"} {
			h.Del(own)
		}
		body, err := io.ReadAll(res.Body)
		fmt.Fprintf(&out, "%d %d %v close=%v", res.StatusCode, res.ContentLength, res.TransferEncoding, res.Close)
		for _, name := range slices.Sorted(maps.Keys(h)) {
			fmt.Fprintf(&out, "\n%s: %q", name, h[name])
		}
		fmt.Fprintf(&out, "\ntrailer %v\n%.40q of %d\n", res.Trailer, body, len(body))
		if err != nil || res.StatusCode >= 200 {
			return out.String(), err
		}
	}
}

// What goes past ServeHTTP is what ServeHTTP would have sent, both ways.
func TestPlainRequestsAreAnsweredAlikeOnBothWays(t *testing.T) {
	answers := map[string]string{
		"plain":    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nset-cookie: a=1\r\nSet-Cookie: b=2\r\nX-Powered-By: me\r\n\r\n{}",
		"dated":    "HTTP/1.1 200 Fine\r\nDate: Thu, 26 Nov 2026 03:00:00 GMT\r\nContent-Length: 2\r\n\r\nok",
		"long":     "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + strings.Repeat("0123456789", 30000),
		"edge":     "HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + strings.Repeat("x", 65536),
		"empty":    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"nothing":  "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
		"chunked":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"trailers": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
		"close":    "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end",
		"closing":  "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
		"hop":      "HTTP/1.1 200 OK\r\nConnection: X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: x\r\nContent-Length: 0\r\n\r\n",
		"tags":     "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nSurrogate-Key: a b\r\nCache-Tag: c\r\nCache-Status: mine; hit\r\nContent-Length: 0\r\n\r\n",
		"private":  "HTTP/1.1 200 OK\r\nCache-Control: max-age=60, private\r\nEtag: \"x\"\r\nContent-Length: 2\r\n\r\nok",
		"lost":     "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nlost",
		"broken":   "HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops",
		"early":    "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"events":   "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9\r\n\r\ndata: 1\n\n",
		"twice":    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
		"garbage":  "SSH-2.0-OpenSSH\r\n\r\n",
	}
	h := open(t)
	h.route(t, "shop", nil)
	k := newRawTask(t, func(path string, w net.Conn) bool {
		name := strings.TrimPrefix(strings.TrimSuffix(path, "?pragma"), "/api/")
		io.WriteString(w, cmp.Or(answers[name], "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwarm"))
		return strings.HasPrefix(name, "clos") || name == "garbage" || name == "twice"
	})
	h.publish(t, k.Endpoint)
	var direct atomic.Int64
	passings = sync.Pool{New: func() any { direct.Add(1); return &passing{} }}
	fields := "User-Agent: test\r\nx-custom-header: v\r\nCookie: a=b\r\nConnection: keep-alive\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Port: 1\r\nForwarded: for=9.9.9.9\r\nKeep-Alive: 3\r\n"
	for name := range answers {
		for range 2 { // the route is known to store nothing, and a connection is at hand
			if _, err := exchange(t, h.addr, "/api/warm", ""); err != nil {
				t.Fatal(err)
			}
		}
		fast, ferr := exchange(t, h.addr, "/api/"+name, fields)
		if _, err := exchange(t, h.addr, "/api/warm", ""); err != nil {
			t.Fatal(err)
		}
		slow, serr := exchange(t, h.addr, "/api/"+name+"?pragma", fields+"Pragma: x\r\n")
		slow = strings.ReplaceAll(slow, "?pragma", "")
		if ferr != nil || serr != nil {
			t.Errorf("%s: %v and %v", name, ferr, serr)
		}
		if name == "garbage" || name == "twice" { // pages of our own, with an identity each
			fast, slow = fast[:3], slow[:3]
		}
		if name == "close" { // its length is told when the end came with the rest
			unframed := strings.NewReplacer(" 13 []", "", " -1 [chunked]", "", "\nContent-Length: [\"13\"]", "")
			fast, slow = unframed.Replace(fast), unframed.Replace(slow)
		}
		if fast != slow {
			t.Errorf("%s: straight\n%s\nthrough ServeHTTP\n%s", name, fast, slow)
		}
		a, b := k.head("/api/"+name), k.head("/api/"+name+"?pragma")
		for i := range b {
			b[i] = strings.ReplaceAll(b[i], "?pragma", "")
		}
		if !slices.Equal(a, b) {
			t.Errorf("%s: the task was asked\n%s\nand\n%s", name, strings.Join(a, "\n"), strings.Join(b, "\n"))
		}
	}
	if direct.Load() == 0 {
		t.Error("nothing went straight to the task")
	}
	eventually(t, "nothing is in flight", func() bool {
		return busy(h.door.current.Load().services[serviceKey{"shop", "production", "api"}]) == 0
	})
}

// What breaks on the straight way is mended, told, or cut, as on the other.
func TestPlainRequestsThatBreak(t *testing.T) {
	h := open(t)
	h.route(t, "shop", nil)
	var mu sync.Mutex
	seen := map[string]int{}
	held := make(chan struct{})
	k := newRawTask(t, func(path string, w net.Conn) bool {
		mu.Lock()
		seen[path]++
		n := seen[path]
		mu.Unlock()
		switch path {
		case "/api/stale": // closes the connection instead of an answer, once
			if n == 1 {
				return true
			}
		case "/api/short": // breaks off in a short body, once
			if n == 1 {
				io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
				return true
			}
		case "/api/cut": // breaks off in a long body
			w.Write(append([]byte("HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n"), bytes.Repeat([]byte("x"), 100000)...))
			return true
		case "/api/held":
			<-held
		}
		io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere")
		return false
	})
	h.publish(t, k.Endpoint)
	warm := func() {
		t.Helper()
		for range 2 {
			if _, err := exchange(t, h.addr, "/api/warm", ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, path := range []string{"/api/stale", "/api/short"} {
		warm()
		if got, err := exchange(t, h.addr, path, ""); err != nil || !strings.Contains(got, `"here"`) {
			t.Errorf("%s: %v\n%s", path, err, got)
		}
	}
	warm()
	if got, err := exchange(t, h.addr, "/api/cut", ""); err == nil {
		t.Errorf("a body that broke off looks whole: %s", got)
	}
	// A client that goes away is noticed while the task thinks, and its request ends.
	warm()
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "GET /api/held HTTP/1.1\r\nHost: shop.localhost\r\n\r\n")
	way := h.door.current.Load().services[serviceKey{"shop", "production", "api"}]
	eventually(t, "the task has it", func() bool { return busy(way) == 1 })
	c.Close()
	eventually(t, "its client is missed", func() bool { return busy(way) == 0 })
	close(held)
	// Pipelined requests are answered in turn.
	warm()
	if c, err = net.Dial("tcp", h.addr); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, strings.Repeat("GET /api/warm HTTP/1.1\r\nHost: shop.localhost\r\n\r\n", 5))
	in := bufio.NewReader(c)
	for i := range 5 {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		if b, _ := io.ReadAll(res.Body); string(b) != "here" {
			t.Errorf("answer %d: %q", i, b)
		}
	}
	eventually(t, "nothing is in flight", func() bool { return busy(way) == 0 })
}

// A task that is too slow is a 504, in time.
func TestPlainRequestsThatTakeTooLong(t *testing.T) {
	h := open(t)
	over := make(chan struct{})
	defer close(over)
	k := newRawTask(t, func(path string, w net.Conn) bool {
		if path == "/api/slow" {
			<-over
		}
		io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere")
		return false
	})
	site := directory.Site{App: "shop", Env: "production", Hosts: []string{"shop.localhost"}, Routes: []directory.Route{{Pattern: "/api/*", Service: "api"}},
		Services: []directory.Service{{Name: "api", Request: 300 * time.Millisecond, Endpoints: []directory.Endpoint{k.Endpoint}}}}
	if err := h.door.apply(directory.Snapshot{Version: 1 << 40, Sites: []directory.Site{site}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := exchange(t, h.addr, "/api/warm", ""); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := exchange(t, h.addr, "/api/slow", ""); err != nil || !strings.HasPrefix(got, "504") {
		t.Errorf("%v\n%s", err, got)
	}
}
