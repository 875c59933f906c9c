package httpcache

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

func TestRangesAndConditionals(t *testing.T) {
	f := start(t, Config{}, nil, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Etag", `"v1"`)
		w.Header().Set("Date", "Thu, 01 Jan 2026 00:00:00 GMT")
		w.Header().Set("Cache-Control", "max-age=99999999")
		w.Header().Set("Last-Modified", "Wed, 31 Dec 2025 00:00:00 GMT")
		w.Header().Set("Content-Type", "image/png")
		fmt.Fprint(w, "0123456789")
	})
	f.get("/a")
	f.wantAsked(1)
	for _, c := range []struct {
		fields string // "Name: value" by line
		status int
		body   string
		rang   string // Content-Range
	}{
		{"Range: bytes=0-1", 206, "01", "bytes 0-1/10"},
		{"Range: bytes=8-", 206, "89", "bytes 8-9/10"},
		{"Range: bytes=8-100", 206, "89", "bytes 8-9/10"},
		{"Range: bytes=-3", 206, "789", "bytes 7-9/10"},
		{"Range: bytes=-30", 206, "0123456789", "bytes 0-9/10"},
		{"Range: bytes=10-", 416, "", "bytes */10"},
		{"Range: bytes=-0", 416, "", "bytes */10"},
		{"Range: bytes=2-1", 200, "0123456789", ""},
		{"Range: bytes=a-1", 200, "0123456789", ""},
		{"Range: bytes=-", 200, "0123456789", ""},
		{"Range: lines=0-1", 200, "0123456789", ""},
		{"Range: bytes=0-9,0-9", 200, "0123456789", ""},
		{"Range: bytes=0-1\nIf-Range: \"v1\"", 206, "01", "bytes 0-1/10"},
		{"Range: bytes=0-1\nIf-Range: W/\"v1\"", 200, "0123456789", ""},
		{"Range: bytes=0-1\nIf-Range: \"v2\"", 200, "0123456789", ""},
		{"Range: bytes=0-1\nIf-Range: Wed, 31 Dec 2025 00:00:00 GMT", 206, "01", "bytes 0-1/10"},
		{"Range: bytes=0-1\nIf-Range: Wed, 31 Dec 2025 00:00:01 GMT", 200, "0123456789", ""},
		{`If-None-Match: "v1"`, 304, "", ""},
		{`If-None-Match: W/"v1"`, 304, "", ""},
		{`If-None-Match: "x", "v1"`, 304, "", ""},
		{`If-None-Match: "a,b","v1"`, 304, "", ""},
		{`If-None-Match: *`, 304, "", ""},
		{`If-None-Match: "v2"`, 200, "0123456789", ""},
		{"If-None-Match: \"v2\"\nIf-Modified-Since: Wed, 31 Dec 2025 00:00:00 GMT", 200, "0123456789", ""},
		{"If-Modified-Since: Wed, 31 Dec 2025 00:00:00 GMT", 304, "", ""},
		{"If-Modified-Since: Tue, 30 Dec 2025 00:00:00 GMT", 200, "0123456789", ""},
		{"If-Modified-Since: yesterday", 200, "0123456789", ""},
		{"If-None-Match: \"v1\"\nRange: bytes=0-1", 304, "", ""},
	} {
		var fields []string
		for _, line := range strings.Split(c.fields, "\n") {
			name, value, _ := strings.Cut(line, ": ")
			fields = append(fields, name, value)
		}
		a := f.get("/a", fields...)
		if a.Code != c.status || a.Body.String() != c.body || a.Header().Get("Content-Range") != c.rang {
			t.Errorf("%q: got %d %q %q", c.fields, a.Code, a.Body.String(), a.Header().Get("Content-Range"))
		}
		if a.Code == 304 && (a.Header().Get("Etag") == "" || a.Header().Get("Content-Length") != "") {
			t.Errorf("%q: 304 has %v", c.fields, a.Header())
		}
	}
	head := f.do(request1("HEAD", "/a"))
	if head.Body.Len() != 0 || head.Header().Get("Content-Length") != "10" || head.Header().Get("Age") == "" {
		t.Errorf("HEAD: %v", head.Header())
	}
	a := f.get("/a", "Range", "bytes=0-1, 4-5, -1")
	_, params, err := mime.ParseMediaType(a.Header().Get("Content-Type"))
	if err != nil || a.Code != 206 {
		t.Fatalf("several ranges: %d %v", a.Code, a.Header())
	}
	parts := multipart.NewReader(a.Body, params["boundary"])
	for _, want := range []string{"01 bytes 0-1/10", "45 bytes 4-5/10", "9 bytes 9-9/10"} {
		p, err := parts.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(p)
		if got := string(b) + " " + p.Header.Get("Content-Range"); got != want {
			t.Errorf("part %q, want %q", got, want)
		}
	}
	f.wantAsked(0)
	f.get("/a", "If-Match", `"v1"`)
	f.wantAsked(1) // the origin's to decide
}

// Parts of one representation join; what they cover is answered without the origin.
func TestPartsAreStoredAndJoined(t *testing.T) {
	etag := `"v1"`
	f := start(t, Config{}, nil, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Etag", etag)
		http.ServeContent(w, r, "a.bin", time.Time{}, strings.NewReader("0123456789"))
	})
	wantBody(t, f.get("/a", "Range", "bytes=0-3"), 206, "0123")
	wantBody(t, f.get("/a", "Range", "bytes=1-2"), 206, "12")
	f.wantAsked(1)
	wantBody(t, f.get("/a", "Range", "bytes=2-7"), 206, "234567")
	wantBody(t, f.get("/a", "Range", "bytes=1-6"), 206, "123456")
	f.wantAsked(1)
	wantBody(t, f.get("/a", "Range", "bytes=8-"), 206, "89")
	f.wantAsked(1)
	wantBody(t, f.get("/a"), 200, "0123456789")
	wantBody(t, f.get("/a", "Range", "bytes=-2"), 206, "89")
	f.wantAsked(0)

	wantBody(t, f.get("/b", "Range", "bytes=0-3"), 206, "0123")
	etag = `"v2"`
	wantBody(t, f.get("/b", "Range", "bytes=4-5"), 206, "45")
	f.wantAsked(2)
	wantBody(t, f.get("/b", "Range", "bytes=0-5"), 206, "012345")
	f.wantAsked(1) // never joined across versions
}

func TestCodedForms(t *testing.T) {
	text := strings.Repeat("all work and no play ", 200)
	f := start(t, Config{}, nil, func(w http.ResponseWriter, r *http.Request) {
		cc := "max-age=60"
		if r.URL.Path == "/no" {
			cc += ", no-transform"
		}
		w.Header().Set("Cache-Control", cc)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Etag", `"v1"`)
		io.WriteString(w, text)
	})
	if v := f.get("/a").Header().Get("Vary"); v != "Accept-Encoding" {
		t.Errorf("the first answer varies by %q", v)
	}
	f.get("/no")
	for accept, c := range map[string]struct {
		name string
		open func(io.Reader) (io.Reader, error)
	}{
		"gzip":                         {"gzip", func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
		"gzip, deflate, br, zstd":      {"br", func(r io.Reader) (io.Reader, error) { return brotli.NewReader(r), nil }},
		"br;q=0.5, zstd, gzip;q=0":     {"zstd", func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) }},
		"identity, gzip;q=0.5":         {"", nil},
		"gzip;q=0, br;q=0, zstd;q=0.0": {"", nil},
	} {
		var a answer
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
			if a = f.get("/a", "Accept-Encoding", accept); a.Header().Get("Content-Encoding") == c.name {
				break
			}
		}
		if got := a.Header().Get("Content-Encoding"); got != c.name {
			t.Fatalf("%s: coding %q", accept, got)
		}
		body, tag := io.Reader(a.Body), `"v1"`
		if c.open != nil {
			var err error
			if body, err = c.open(a.Body); err != nil {
				t.Fatal(err)
			}
			tag = `W/"v1"`
		}
		b, err := io.ReadAll(body)
		if err != nil || string(b) != text || a.Header().Get("Etag") != tag || a.Header().Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s: %v, %d bytes, %v", accept, err, len(b), a.Header())
		}
		if a := f.get("/a", "Accept-Encoding", accept, "If-None-Match", tag); a.Code != 304 || a.Header().Get("Etag") != tag {
			t.Errorf("%s: validated: %d %v", accept, a.Code, a.Header())
		}
	}
	if a := f.get("/a", "Accept-Encoding", "gzip", "Range", "bytes=0-2"); a.Code != 206 || a.Header().Get("Content-Encoding") != "" || a.Body.String() != "all" {
		t.Errorf("a range of a coded form: %d %v", a.Code, a.Header())
	}
	if a := f.get("/no", "Accept-Encoding", "gzip"); a.Header().Get("Content-Encoding")+a.Header().Get("Vary") != "" {
		t.Errorf("no-transform was transformed: %v", a.Header())
	}
	f.wantAsked(2)
}

// Over a connection: interim responses, trailers, and a body cut short, for who leads and who follows.
func TestOverAConnection(t *testing.T) {
	hold := make(chan struct{})
	f := start(t, Config{}, nil, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Trailer", "X-Sum")
		io.WriteString(w, "some body")
		<-hold
		if r.URL.Path == "/cut" {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("X-Sum", "9")
	})
	server := httptest.NewServer(f.door)
	t.Cleanup(server.Close)
	ask := func(path string) chan string {
		out := make(chan string, 1)
		go func() {
			hints := 0
			r, err := http.NewRequest("GET", server.URL+path, nil)
			if err != nil {
				out <- err.Error()
				return
			}
			r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
				Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
					if code == 103 && h.Get("Link") != "" {
						hints++
					}
					return nil
				}}))
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				out <- err.Error()
				return
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			out <- fmt.Sprint(hints, resp.Header.Get("Link"), string(b), resp.Trailer.Get("X-Sum"), err)
		}()
		return out
	}
	for _, c := range []struct{ path, want string }{{"/a", "1some body9<nil>"}, {"/cut", "1some bodyunexpected EOF"}} {
		lead := ask(c.path)
		poll(t, func() bool { return f.asked.Load() == 1 })
		follow := ask(c.path)
		poll(t, func() bool { return waiting(f.cache) == 2 })
		hold <- struct{}{}
		// what was not flushed yet may be lost with a connection that breaks; that it breaks must show
		ok := func(got string) bool { return got == c.want || c.path == "/cut" && got == "1unexpected EOF" }
		if got := <-lead; !ok(got) {
			t.Errorf("%s leads: %s", c.path, got)
		}
		if got := <-follow; !ok(got) {
			t.Errorf("%s follows: %s", c.path, got)
		}
		f.asked.Store(0)
	}
	if got := <-ask("/a"); got != "0some body<nil>" {
		t.Errorf("from the store: %s", got)
	}
}

func poll(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to pass")
		}
	}
}

// waiting counts the clients of all fills.
func waiting(c *Cache) (n int) {
	c.flights.mu.Lock()
	defer c.flights.mu.Unlock()
	for _, f := range c.flights.m {
		f.mu.Lock()
		n += f.waiting
		f.mu.Unlock()
	}
	return n
}

// An upgrade goes through: the connection is handed to the origin's handler.
func TestUpgradePasses(t *testing.T) {
	f := start(t, Config{}, nil, func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nhello")
	})
	server := httptest.NewServer(f.door)
	t.Cleanup(server.Close)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
	b, err := io.ReadAll(bufio.NewReader(conn))
	if err != nil || !strings.HasSuffix(string(b), "\r\n\r\nhello") {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestRules(t *testing.T) {
	cc := "max-age=60"
	var cookie string
	rule := &Rule{}
	f := start(t, Config{}, rule, func(w http.ResponseWriter, r *http.Request) {
		if cc != "" {
			w.Header().Set("Cache-Control", cc)
		}
		if cookie != "" {
			w.Header().Set("Set-Cookie", cookie)
		}
		fmt.Fprint(w, r.URL.RequestURI(), r.Header.Get("Accept-Language"))
	})
	asks := func(ru Rule, want int64, requests ...[]string) {
		t.Helper()
		*rule = ru
		rule.Release = fmt.Sprint(time.Now().UnixNano()) // a world of its own
		for _, r := range requests {
			f.get(r[0], r[1:]...)
		}
		f.wantAsked(want)
	}
	asks(Rule{Query: QueryOnly, Params: []string{"page"}}, 3,
		[]string{"/?page=1&utm=a"}, []string{"/?utm=b&page=1"}, []string{"/?page=2"}, []string{"/?p%61ge=1"}, []string{"/?p%61ge=1&utm=2"})
	asks(Rule{Query: QueryExcept, Params: []string{"utm"}}, 3,
		[]string{"/?b=1&a=2&utm=a"}, []string{"/?a=2&b=1"}, []string{"/?a=2"}, []string{"/"}, []string{"/?utm=3"})
	asks(Rule{Query: QueryNone}, 1, []string{"/?a=1"}, []string{"/?b=1"}, []string{"/"})
	asks(Rule{Headers: []string{"accept-language"}, Cookies: []string{"theme"}}, 4,
		[]string{"/", "Accept-Language", "de"}, []string{"/", "Accept-Language", "en"}, []string{"/", "Cookie", "x=1; theme=dark"},
		[]string{"/", "Cookie", "theme=dark; x=2"}, []string{"/", "Cookie", "theme=light"})
	cc = ""
	asks(Rule{}, 2, []string{"/"}, []string{"/"})
	asks(Rule{FreshDefault: time.Minute}, 1, []string{"/"}, []string{"/"})
	cookie = "id=1"
	asks(Rule{FreshDefault: time.Minute, FreshMin: time.Minute}, 2, []string{"/"}, []string{"/"})
	cc = "private, max-age=60"
	asks(Rule{FreshDefault: time.Minute, FreshMin: time.Minute}, 2, []string{"/"}, []string{"/"})
	asks(Rule{OverridePrivate: true}, 1, []string{"/"}, []string{"/"})
	if a := f.get("/"); a.Header().Get("Set-Cookie") != "" {
		t.Error("an overridden private response shares its cookie")
	}
	cc = "no-store"
	asks(Rule{FreshMin: time.Minute, OverridePrivate: true}, 2, []string{"/"}, []string{"/"})
	asks(Rule{FreshMin: time.Minute, OverrideNoStore: true}, 1, []string{"/"}, []string{"/"})
	cookie, cc = "", "no-cache"
	asks(Rule{FreshMin: time.Minute}, 2, []string{"/"}, []string{"/"})
	cc = "max-age=0"
	asks(Rule{FreshMin: time.Minute}, 1, []string{"/"}, []string{"/"})
	asks(Rule{Off: true}, 2, []string{"/"}, []string{"/"})
}
