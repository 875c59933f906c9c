package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// front is a net/http server before a service, and what it said of its requests.
type front struct {
	*Service
	addr string

	mu      sync.Mutex
	results []Result
}

// serve puts a service with these tasks behind a server.
func serve(t testing.TB, p Policy, tasks ...Endpoint) *front {
	t.Helper()
	f := &front{}
	f.Service = NewService(Config{Name: "api", Policy: p, Done: func(_ *http.Request, r *Result) {
		f.mu.Lock()
		f.results = append(f.results, *r)
		f.mu.Unlock()
	}})
	f.Update(tasks, "")
	s := httptest.NewUnstartedServer(f.Service)
	s.Config.ErrorLog = quiet
	s.EnableHTTP2 = true
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s.Config.Protocols = protocols
	s.Start()
	f.addr = s.Listener.Addr().String()
	t.Cleanup(s.Close)
	t.Cleanup(func() { f.Close() })
	return f
}

func (f *front) last(t testing.TB) Result {
	t.Helper()
	eventually(t, "a result", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.results) > 0 })
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.results[len(f.results)-1]
}

func (f *front) inFlight() (n int64) {
	for _, c := range f.Counts() {
		n += c.InFlight
	}
	return n
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for begun := time.Now(); !ok(); <-time.After(2 * time.Millisecond) {
		if time.Since(begun) > 10*time.Second {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// task is a backend of net/http.
func task(t testing.TB, h http.HandlerFunc) (Endpoint, *httptest.Server) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = quiet
	s.Start()
	t.Cleanup(s.Close)
	return endpointAt(s.Listener.Addr()), s
}

func endpointAt(a net.Addr) Endpoint {
	return Endpoint{ID: "task-" + a.String(), Addr: a.String(), Release: "r1", Weight: 1}
}

// script is a backend of bare sockets: f gets each connection.
func script(t testing.TB, f func(n int, c net.Conn, in *bufio.Reader)) Endpoint {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); l.Close(); wg.Wait() })
	wg.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { c.Close() })()
				f(n, c, bufio.NewReader(c))
			})
		}
	})
	return endpointAt(l.Addr())
}

// hears reads one request whole; nil when the connection ends.
func hears(in *bufio.Reader) *http.Request {
	r, err := http.ReadRequest(in)
	if err != nil {
		return nil
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return nil
	}
	return r
}

// answers says the same to every request.
func answers(t testing.TB, text string) Endpoint {
	return script(t, func(_ int, c net.Conn, in *bufio.Reader) {
		if hears(in) != nil {
			io.WriteString(c, text)
		}
	})
}

func (f *front) ask(t testing.TB, method, path string, body io.Reader, header ...string) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+f.addr+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	tr := &http.Transport{DisableCompression: true, ExpectContinueTimeout: 5 * time.Second}
	defer tr.CloseIdleConnections()
	res, err := tr.RoundTrip(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res, string(b), err
}

func (f *front) get(t testing.TB, path string) (int, string) {
	t.Helper()
	res, b, err := f.ask(t, "GET", path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, b
}

func TestWhatATaskSees(t *testing.T) {
	got := make(chan string, 10)
	ep := script(t, func(_ int, c net.Conn, in *bufio.Reader) {
		for {
			var b strings.Builder
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				b.WriteString(line)
				if line == "\r\n" {
					break
				}
			}
			got <- b.String()
			io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
		}
	})
	f := serve(t, Policy{}, ep)
	f.ask(t, "GET", "/a%2Fb/../c?x=1;y&z=%20", nil, "X-Forwarded-For", "6.6.6.6", "X-Forwarded-Host", "evil", "X-Forwarded-Port", "1", "Forwarded", "for=6.6.6.6", "X-Hop", "1", "Connection", "X-Hop", "Keep-Alive", "x", "Proxy-Authorization", "x", "Te", "trailers")
	head := <-got
	for _, want := range []string{"GET /a%2Fb/../c?x=1;y&z=%20 HTTP/1.1\r\n", "\r\nHost: " + f.addr + "\r\n", "X-Forwarded-For: 127.0.0.1\r\n", "X-Forwarded-Proto: http\r\n", "X-Forwarded-Host: " + f.addr, "TE: trailers\r\n"} {
		if strings.Count(head, want) != 1 {
			t.Errorf("%q is not there once:\n%s", want, head)
		}
	}
	for _, bad := range []string{"6.6.6.6", "X-Hop", "Keep-Alive", "Proxy-", "Forwarded: ", "evil", "X-Forwarded-Port", "Content-Length", "Connection"} {
		if strings.Contains(head, bad) {
			t.Errorf("%q is there:\n%s", bad, head)
		}
	}
	// A target of HTTP/2 may hold what a request line may not.
	for path, want := range map[string]string{"/a b": "GET /a%20b HTTP/1.1\r\n", "/ä": "GET /%C3%A4 HTTP/1.1\r\n", "//x": "GET //x HTTP/1.1\r\n"} {
		r := httptest.NewRequest("GET", "http://h/", nil)
		r.URL.Path, r.RequestURI = path, path
		f.ServeHTTP(httptest.NewRecorder(), r)
		if head := <-got; !strings.HasPrefix(head, want) {
			t.Errorf("%q: %s", path, head)
		}
	}
	for name, r := range map[string]*http.Request{"header": {Header: http.Header{"X": {"a\r\nY: b"}}}, "host": {Host: "a\r\nX: y"}, "method": {Method: "GET /x HTTP/1.1\r\n\r\nPOST"}} {
		q := httptest.NewRequest("GET", "http://h/", nil)
		if r.Header != nil {
			q.Header = r.Header
		}
		q.Host, q.Method = r.Host, "GET"
		if r.Method != "" {
			q.Method = r.Method
		}
		w := httptest.NewRecorder()
		if f.ServeHTTP(w, q); w.Code != 400 {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
}

func TestTrustedProxiesAreBelieved(t *testing.T) {
	ep, _ := task(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header["X-Forwarded-For"], r.Header["X-Forwarded-Proto"], r.Header["X-Forwarded-Host"])
	})
	f := serve(t, Policy{Trust: prefixes("127.0.0.0/8")}, ep)
	_, b, err := f.ask(t, "GET", "/", nil, "X-Forwarded-For", "6.6.6.6", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "shop.example")
	if err != nil || b != "[6.6.6.6, 127.0.0.1] [https] [shop.example]" {
		t.Fatal(b, err)
	}
}

func TestBodiesPassWholeBothWays(t *testing.T) {
	ep, _ := task(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if r.URL.Path == "/chunked" {
			w.(http.Flusher).Flush()
		}
		w.Write(b)
	})
	f := serve(t, Policy{}, ep)
	for _, path := range []string{"/counted", "/chunked"} {
		for _, n := range []int{0, 1, 100, 8 << 10, 64 << 10, 64<<10 + 1, 300_000, 3 << 20} {
			body := strings.Repeat("x0123456789abcde", n/16+1)[:n]
			for name, r := range map[string]io.Reader{"known": strings.NewReader(body), "unknown": io.MultiReader(strings.NewReader(body))} {
				res, got, err := f.ask(t, "POST", path, r)
				if err != nil || res.StatusCode != 200 || got != body {
					t.Fatalf("%s %s %d: %d bytes, %v", path, name, n, len(got), err)
				}
			}
		}
	}
	if n := f.Counts()[0]; n.InFlight != 0 || n.Errors != 0 || n.Idle == 0 {
		t.Fatalf("%+v", n)
	}
}

func TestEarlyResponsesAndTrailers(t *testing.T) {
	ep := answers(t, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nX-A: 1\r\nx-a: 2\r\nKeep-Alive: timeout=5\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n5;ext=\"a\"\r\nhello\r\n0\r\nX-Sum: 42\r\nX-More: 7\r\nContent-Length: 9\r\n\r\n")
	f := serve(t, Policy{}, ep)
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	b, _ := io.ReadAll(c)
	got := string(b)
	for _, want := range []string{"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n", "X-A: 1\r\nX-A: 2\r\n", "5\r\nhello\r\n0\r\n", "X-Sum: 42\r\n", "X-More: 7\r\n", "Trailer: X-Sum\r\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if strings.Contains(got, "Keep-Alive") || strings.Contains(got, "X-Hop") || strings.Contains(got, "Content-Length") || strings.Count(got, "Link") != 1 {
		t.Error("what belongs to one connection passed on")
	}
	if t.Failed() {
		t.Log(got)
	}
}

// What can be read in two ways is never passed on.
var ambiguous = map[string]string{
	"both framings":         "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"two lengths":           "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
	"two equal lengths":     "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
	"list of lengths":       "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
	"signed length":         "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
	"negative length":       "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
	"hex length":            "HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello",
	"empty length":          "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello",
	"huge length":           "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
	"space before colon":    "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
	"folded line":           "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\nhello",
	"bare LF":               "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
	"bare LF within":        "HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: b\r\nContent-Length: 5\r\n\r\nhello",
	"bare CR":               "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 5\r\n\r\nhello",
	"NUL":                   "HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 5\r\n\r\nhello",
	"no name":               "HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 5\r\n\r\nhello",
	"no colon":              "HTTP/1.1 200 OK\r\nabc\r\nContent-Length: 5\r\n\r\nhello",
	"name with a space":     "HTTP/1.1 200 OK\r\nX Y: a\r\nContent-Length: 5\r\n\r\nhello",
	"unknown coding":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
	"chunked twice":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"chunked with a tab":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
	"identity":              "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
	"chunked in 1.0":        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"version":               "HTTP/1.2 200 OK\r\nContent-Length: 5\r\n\r\nhello",
	"version 2":             "HTTP/2 200\r\ncontent-length: 5\r\n\r\nhello",
	"status of two digits":  "HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\nhello",
	"status of four digits": "HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\nhello",
	"status 099":            "HTTP/1.1 099 OK\r\nContent-Length: 5\r\n\r\nhello",
	"status 600":            "HTTP/1.1 600 OK\r\nContent-Length: 5\r\n\r\nhello",
	"101 unasked":           "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
	"not HTTP":              "SSH-2.0-OpenSSH_9.2\r\n\r\n",
	"empty line first":      "\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
	"nothing":               "",
	"half a head":           "HTTP/1.1 200 OK\r\nContent-Le",
	"endless 1xx":           strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 40) + "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
	"too large":             "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", maxHead) + "\r\n\r\n",
}

func TestAmbiguousResponsesAreNotPassedOn(t *testing.T) {
	for name, text := range ambiguous {
		f := serve(t, Policy{Hold: -1}, answers(t, text))
		if res, b, err := f.ask(t, "GET", "/", nil); err != nil || res.StatusCode != 502 || strings.Contains(b, "hello") {
			t.Errorf("%s: %.20q %v", name, b, err)
		}
		if f.inFlight() != 0 {
			t.Errorf("%s: counts as in flight", name)
		}
	}
}

// A body that breaks off never looks whole, on either version of HTTP.
func TestBrokenBodiesDoNotLookWhole(t *testing.T) {
	for name, text := range map[string]string{
		"counted":           "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
		"nothing of it":     "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n",
		"long":              "HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n" + strings.Repeat("x", 300_000),
		"in a chunk":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nhello",
		"after a chunk":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"in the last chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
		"in the trailers":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n",
		"size":              "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5x\r\nhello\r\n0\r\n\r\n",
		"size with 0x":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
		"size with a space": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n",
		"size after space":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
		"huge size":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n",
		"bare LF":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
		"longer than said":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n",
		"LF after data":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n",
		"endless extension": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;" + strings.Repeat("a", 9000) + "\r\nhello\r\n0\r\n\r\n",
	} {
		f := serve(t, Policy{}, answers(t, text))
		if res, b, err := f.ask(t, "GET", "/", nil); err == nil && res.StatusCode != 502 {
			t.Errorf("%s: %d, looks whole: %.20q", name, res.StatusCode, b)
		}
		two := &http.Transport{Protocols: new(http.Protocols)}
		two.Protocols.SetUnencryptedHTTP2(true)
		res, err := two.RoundTrip(httptest.NewRequest("GET", "http://"+f.addr+"/", nil))
		if err == nil {
			if _, err = io.ReadAll(res.Body); err == nil && res.StatusCode != 502 {
				t.Errorf("%s: looks whole on HTTP/2", name)
			}
		}
		two.CloseIdleConnections()
		// HTTP/1.0 has no other sign than a reset.
		c, err := net.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
		b, err := io.ReadAll(c)
		if err == nil && len(b) > 0 && !strings.Contains(string(b), "Content-Length: 50") && !strings.HasPrefix(string(b), "HTTP/1.0 502") {
			t.Errorf("%s: looks whole on HTTP/1.0: %.200q", name, b)
		}
		c.Close()
		if r := f.last(t); r.Err == nil {
			t.Errorf("%s: no error in the result", name)
		}
	}
}

// Bytes after a response belong to nobody: the next request must not get them.
func TestBytesThatNobodyAskedForAreDropped(t *testing.T) {
	for name, text := range map[string]string{
		"after the body":  "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother",
		"body of 204":     "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nother",
		"body of 304":     "HTTP/1.1 304 Not Modified\r\n\r\nother",
		"after the chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother",
	} {
		f := serve(t, Policy{}, script(t, func(_ int, c net.Conn, in *bufio.Reader) {
			for hears(in) != nil {
				io.WriteString(c, text)
			}
		}))
		for range 3 {
			if res, b, err := f.ask(t, "GET", "/", nil); err != nil || strings.Contains(b, "other") || res.StatusCode >= 400 {
				t.Errorf("%s: %v %q %v", name, res, b, err)
			}
		}
		if n := f.Counts()[0].Idle; n != 0 {
			t.Errorf("%s: the connection was kept", name)
		}
	}
}

func TestHeadAndEmptyResponses(t *testing.T) {
	ep := script(t, func(_ int, c net.Conn, in *bufio.Reader) {
		for r := hears(in); r != nil; r = hears(in) {
			switch {
			case r.Method == "HEAD":
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")
			case r.URL.Path == "/304":
				io.WriteString(c, "HTTP/1.1 304 Not Modified\r\nEtag: \"a\"\r\nContent-Length: 99\r\n\r\n")
			case r.URL.Path == "/0":
				io.WriteString(c, "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n")
			}
		}
	})
	f := serve(t, Policy{}, ep)
	for range 2 {
		if res, b, err := f.ask(t, "HEAD", "/", nil); err != nil || res.ContentLength != 1234 || b != "" {
			t.Fatal(res, b, err)
		}
		if res, _, err := f.ask(t, "GET", "/304", nil); err != nil || res.StatusCode != 304 || res.Header.Get("ETag") != `"a"` {
			t.Fatal(res, err)
		}
		if res, b, err := f.ask(t, "GET", "/0", nil); err != nil || res.StatusCode != 200 || b != "" {
			t.Fatal(res, err)
		}
	}
	if n := f.Counts()[0].Idle; n != 1 {
		t.Fatalf("%d connections: they were not used again", n)
	}
}

func TestExpectContinueIsTheTasksToSay(t *testing.T) {
	var read atomic.Int64
	ep, _ := task(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		read.Add(n)
		fmt.Fprint(w, n)
	})
	silent := script(t, func(_ int, c net.Conn, in *bufio.Reader) { // knows nothing of 100
		if hears(in) != nil {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsilent")
		}
	})
	f := serve(t, Policy{}, ep)
	if res, b, err := f.ask(t, "POST", "/", strings.NewReader("hello"), "Expect", "100-continue"); err != nil || b != "5" {
		t.Fatal(res, b, err)
	}
	body := &counting{r: strings.NewReader(strings.Repeat("x", 1000))}
	if res, _, err := f.ask(t, "POST", "/no", body, "Expect", "100-continue"); err != nil || res.StatusCode != 417 || body.n.Load() != 0 {
		t.Fatal(res, err, body.n.Load())
	}
	f.Update([]Endpoint{silent}, "")
	if res, b, err := f.ask(t, "POST", "/", strings.NewReader("hello"), "Expect", "100-continue"); err != nil || b != "silent" {
		t.Fatal(res, b, err)
	}
}

type counting struct {
	r io.Reader
	n atomic.Int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// The body that a client does not finish never looks finished to the task.
func TestBrokenUploadsDoNotLookWhole(t *testing.T) {
	whole := make(chan error, 8)
	ep, _ := task(t, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		whole <- err
	})
	f := serve(t, Policy{}, ep)
	for _, head := range []string{"Content-Length: 500000\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n"} {
		c, err := net.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\n"+head)
		eventually(t, "the task has the request", func() bool { return f.inFlight() == 1 || len(whole) > 0 })
		c.Close()
		if err := <-whole; err == nil {
			t.Errorf("%q looked whole", head)
		}
	}
	// A small one is read before a task gets it.
	c, _ := net.Dial("tcp", f.addr)
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nhello")
	c.(*net.TCPConn).CloseWrite()
	if res, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || res.StatusCode != 400 {
		t.Error(res, err)
	}
	c.Close()
	eventually(t, "nothing in flight", func() bool { return f.inFlight() == 0 })
	if len(whole) != 0 {
		t.Error("the task got a part of a small body")
	}
}

// An answer that comes before the body was read reaches the client, and the rest of the body does not
// become a request.
func TestAnswersBeforeTheEndOfTheBody(t *testing.T) {
	ep := script(t, func(_ int, c net.Conn, in *bufio.Reader) {
		http.ReadRequest(in)
		io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge")
		io.Copy(io.Discard, in)
	})
	f := serve(t, Policy{}, ep)
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nhello")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode != 413 || !res.Close {
		t.Fatal(res, err)
	}
	if b, err := io.ReadAll(res.Body); string(b) != "large" || err != nil {
		t.Fatal(string(b), err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Fatal("the connection stays open")
	}
	eventually(t, "nothing in flight", func() bool { return f.inFlight() == 0 })
}

func TestErrorsSayWhatFailed(t *testing.T) {
	f := serve(t, Policy{Timeout: 60 * time.Millisecond, Hold: 50 * time.Millisecond})
	f.Update(nil, "deploy failed: exit status 1")
	if status, b := f.get(t, "/"); status != 503 || !strings.Contains(b, "deploy failed") {
		t.Error(status, b)
	}
	slow, _ := task(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	f.Update([]Endpoint{slow}, "")
	if status, b := f.get(t, "/"); status != 504 || !errors.Is(f.last(t).Err, ErrSlow) {
		t.Error(status, b)
	}
	f.Update([]Endpoint{answers(t, "")}, "")
	if status, b := f.get(t, "/"); status != 502 || !strings.Contains(b, "service api broke off") || f.last(t).Tries != maxSends {
		t.Error(status, b, f.last(t))
	}
	eventually(t, "nothing in flight", func() bool { return f.inFlight() == 0 })
}

func TestAPOSTThatWasSentIsNotRepeated(t *testing.T) {
	var n atomic.Int64
	breaks := func(_ int, c net.Conn, in *bufio.Reader) {
		if hears(in) != nil {
			n.Add(1)
		}
	}
	f := serve(t, Policy{}, script(t, breaks), script(t, breaks))
	for _, body := range []string{"money", strings.Repeat("x", 200_000)} {
		n.Store(0)
		if res, _, err := f.ask(t, "POST", "/pay", strings.NewReader(body)); err != nil || res.StatusCode != 502 || n.Load() != 1 {
			t.Fatalf("%v %v after %d tries", res, err, n.Load())
		}
	}
	n.Store(0)
	if res, _, err := f.ask(t, "PUT", "/pay", strings.NewReader("x")); err != nil || res.StatusCode != 502 || n.Load() != maxSends {
		t.Fatalf("%v %v after %d tries", res, err, n.Load())
	}
}

func TestAClientThatGoesAwayEndsItsRequest(t *testing.T) {
	came, gone := make(chan struct{}), make(chan struct{})
	ep, _ := task(t, func(_ http.ResponseWriter, r *http.Request) { close(came); <-r.Context().Done(); close(gone) })
	f := serve(t, Policy{}, ep)
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+f.addr+"/", nil)
	go func() {
		<-came
		cancel()
	}()
	if _, err := http.DefaultTransport.RoundTrip(req); err == nil {
		t.Fatal("answered")
	}
	<-gone
	eventually(t, "nothing in flight", func() bool { return f.inFlight() == 0 })
	if r := f.last(t); r.Status != 499 || r.Err != ErrClientGone {
		t.Fatalf("%+v", r)
	}
}
