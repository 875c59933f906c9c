package wire

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// recorder is a backend that notes each request with the body it saw.
type recorder struct {
	mu   sync.Mutex
	seen []string
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	b, err := io.ReadAll(q.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.seen = append(r.seen, q.Method+" "+q.RequestURI+" broken")
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.seen = append(r.seen, fmt.Sprintf("%s %s %s", q.Method, q.RequestURI, b))
	w.Header().Set("X-Host", q.Host)
	io.WriteString(w, "ok")
}

// talk sends raw bytes and reads all answers until the connection closes.
func talk(t testing.TB, addr, send string) []*http.Response {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, send)
	c.(*net.TCPConn).CloseWrite()
	var all []*http.Response
	for br := bufio.NewReader(c); ; {
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			return all
		}
		b, _ := io.ReadAll(res.Body)
		res.Body = io.NopCloser(bytes.NewReader(b))
		all = append(all, res)
	}
}

// TestFraming sends what RFC 9112, sections 2, 3, 5, 6, 7 and 11, and published desync techniques
// make ambiguous. Each is followed by a second request, which a wrong reading would hide or invent.
func TestFraming(t *testing.T) {
	const next = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
	get := func(fields string) string { return "GET /x HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n" }
	post := func(fields, body string) string { return "POST /x HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n" + body }
	cases := []struct {
		name, send string
		want       string // statuses, space-separated; the second request's included
		seen       string // what the backend saw, by "|"
	}{
		{"plain", get(""), "200 200", "GET /x |GET /next "},
		{"one empty line before", "\r\n" + get(""), "200 200", "GET /x |GET /next "},
		{"two empty lines before", "\r\n\r\n" + get(""), "400", ""},
		{"length", post("Content-Length: 5\r\n", "hello"), "200 200", "POST /x hello|GET /next "},
		{"length with white space", post("Content-Length: \t 5 \t\r\n", "hello"), "200 200", "POST /x hello|GET /next "},
		{"length zero on GET", get("Content-Length: 0\r\n"), "200 200", "GET /x |GET /next "},
		{"body on GET", get("Content-Length: 3\r\n") + "abc", "200 200", "GET /x abc|GET /next "},
		{"chunked", post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"), "200 200", "POST /x hello!|GET /next "},
		{"chunked in another case", post("transfer-encoding: CHUNKED\r\n", "5\r\nhello\r\n0\r\n\r\n"), "200 200", "POST /x hello|GET /next "},
		{"chunk extension", post("Transfer-Encoding: chunked\r\n", "5;a=b;c=\"d;e\" ; f\r\nhello\r\n0;x\r\n\r\n"), "200 200", "POST /x hello|GET /next "},
		{"trailer", post("Transfer-Encoding: chunked\r\nTrailer: X-T\r\n", "1\r\nh\r\n0\r\nX-T: v\r\n\r\n"), "200 200", "POST /x h|GET /next "},
		{"leading zeros of a chunk size", post("Transfer-Encoding: chunked\r\n", "0005\r\nhello\r\n000\r\n\r\n"), "200 200", "POST /x hello|GET /next "},

		{"both framings", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), "400", ""},
		{"both framings, other order", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"), "400", ""},
		{"two lengths", post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!"), "400", ""},
		{"two equal lengths", post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), "400", ""},
		{"list of lengths", post("Content-Length: 5, 5\r\n", "hello"), "400", ""},
		{"length with a sign", post("Content-Length: +5\r\n", "hello"), "400", ""},
		{"negative length", post("Content-Length: -5\r\n", "hello"), "400", ""},
		{"hexadecimal length", post("Content-Length: 0x5\r\n", "hello"), "400", ""},
		{"length with a fraction", post("Content-Length: 5.0\r\n", "hello"), "400", ""},
		{"length with a separator", post("Content-Length: 1_0\r\n", "hellohello"), "400", ""},
		{"empty length", post("Content-Length:\r\n", ""), "400", ""},
		{"length that overflows", post("Content-Length: 18446744073709551621\r\n", "hello"), "400", ""},
		{"length with a space inside", post("Content-Length: 5 5\r\n", "hello"), "400", ""},
		{"identity", post("Transfer-Encoding: identity\r\n", "hello"), "501", ""},
		{"gzip, chunked", post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), "501", ""},
		{"chunked, identity", post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"), "400", ""},
		{"two codings", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), "400", ""},
		{"two codings, one other", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", "0\r\n\r\n"), "400", ""},
		{"quoted coding", post("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"), "400", ""},
		{"xchunked", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), "501", ""},
		{"coding with vertical tab", post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"), "400", ""},
		{"empty coding", post("Transfer-Encoding:\r\n", "0\r\n\r\n"), "400", ""},
		{"space before the colon", post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), "400", ""},
		{"tab before the colon", post("Content-Length\t: 5\r\n", "hello"), "400", ""},
		{"folded coding", post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), "400", ""},
		{"folded field", get("X: a\r\n b\r\n"), "400", ""},
		{"first field begins with a space", "GET /x HTTP/1.1\r\n Host: a\r\n\r\n", "400", ""},
		{"chunked in HTTP/1.0", "POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", ""},
		{"underscore name is another field", post("Content_Length: 9\r\nContent-Length: 5\r\n", "hello"), "200 200", "POST /x hello|GET /next "},

		{"LF ends the request line", "GET /x HTTP/1.1\nHost: a\r\n\r\n", "400", ""},
		{"LF ends a field", "GET /x HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", "400", ""},
		{"LF ends the head", "GET /x HTTP/1.1\r\nHost: a\r\n\n", "400", ""},
		{"bare LFs only", "GET /x HTTP/1.1\nHost: a\n\n", "400", ""},
		{"CR in a value", get("X: a\rb\r\n"), "400", ""},
		{"CR before CRLF", get("X: a\r\r\n"), "400", ""},
		{"NUL in a value", get("X: a\x00b\r\n"), "400", ""},
		{"NUL in a name", get("X\x00: a\r\n"), "400", ""},
		{"control in a value", get("X: a\x01b\r\n"), "400", ""},
		{"DEL in a value", get("X: a\x7fb\r\n"), "400", ""},
		{"no colon", get("X\r\n"), "400", ""},
		{"empty name", get(": a\r\n"), "400", ""},
		{"name in brackets", get("[x]: a\r\n"), "400", ""},
		{"empty line of white space", get(" \r\n"), "400", ""},

		{"no Host", "GET /x HTTP/1.1\r\nX: a\r\n\r\n", "400", ""},
		{"two Hosts", get("Host: b\r\n"), "400", ""},
		{"two equal Hosts", get("Host: a\r\n"), "400", ""},
		{"empty Host", "GET /x HTTP/1.1\r\nHost:\r\n\r\n", "400", ""},
		{"Host with a path", "GET /x HTTP/1.1\r\nHost: a/b\r\n\r\n", "400", ""},
		{"Host with userinfo", "GET /x HTTP/1.1\r\nHost: u@a\r\n\r\n", "400", ""},
		{"Host with a space", "GET /x HTTP/1.1\r\nHost: a b\r\n\r\n", "400", ""},
		{"Host that is a list", "GET /x HTTP/1.1\r\nHost: a, b\r\n\r\n", "400", ""},
		{"Host with a bad port", "GET /x HTTP/1.1\r\nHost: a:b\r\n\r\n", "400", ""},
		{"IPv6 Host", "GET /x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "200 200", "GET /x |GET /next "},

		{"absolute target", "GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n", "200 200", "GET /x |GET /next "},
		{"absolute target without a path", "GET http://b?q HTTP/1.1\r\nHost: a\r\n\r\n", "200 200", "GET /?q |GET /next "},
		{"absolute target with userinfo", "GET http://u@b/x HTTP/1.1\r\nHost: a\r\n\r\n", "400", ""},
		{"absolute target of another scheme", "GET ftp://b/x HTTP/1.1\r\nHost: a\r\n\r\n", "400", ""},
		{"relative target", "GET x HTTP/1.1\r\nHost: a\r\n\r\n", "400", ""},
		{"target with a fragment", "GET /x#y HTTP/1.1\r\nHost: a\r\n\r\n", "400", ""},
		{"target with a bad escape", "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", "400", ""},
		{"target with raw bytes", "GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", "400", ""},
		{"target of two slashes", "GET //b/x HTTP/1.1\r\nHost: a\r\n\r\n", "200 200", "GET //b/x |GET /next "},
		{"asterisk", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "200 200", "OPTIONS * |GET /next "},
		{"asterisk on GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", "400", ""},
		{"CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "501", ""},
		{"two spaces", "GET  /x HTTP/1.1\r\nHost: a\r\n\r\n", "400", ""},
		{"tab for a space", "GET\t/x HTTP/1.1\r\nHost: a\r\n\r\n", "400", ""},
		{"space after the version", "GET /x HTTP/1.1 \r\nHost: a\r\n\r\n", "400", ""},
		{"bad method", "G(T /x HTTP/1.1\r\nHost: a\r\n\r\n", "400", ""},
		{"HTTP/0.9", "GET /x\r\n\r\n", "400", ""},
		{"lower-case version", "GET /x http/1.1\r\nHost: a\r\n\r\n", "400", ""},
		{"version 1.2", "GET /x HTTP/1.2\r\nHost: a\r\n\r\n", "505", ""},
		{"version 2.0", "GET /x HTTP/2.0\r\nHost: a\r\n\r\n", "505", ""},
		{"version 1.10", "GET /x HTTP/1.10\r\nHost: a\r\n\r\n", "400", ""},
		{"HTTP/1.0 closes", "GET /x HTTP/1.0\r\nHost: a\r\n\r\n", "200", "GET /x "},
		{"HTTP/1.0 keep-alive", "GET /x HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "200 200", "GET /x |GET /next "},
		{"close", get("Connection: x, close\r\n"), "200", "GET /x "},
		{"unknown expectation", post("Expect: 200-ok\r\nContent-Length: 1\r\n", "a"), "417", ""},
		{"upgrade with a body", post("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n", "a"), "400", ""},
		{"head too large", get("X: " + strings.Repeat("a", 40<<10) + "\r\n"), "431", ""},
		{"too many fields", get(strings.Repeat("X: a\r\n", 300)), "431", ""},

		{"chunk size missing", post("Transfer-Encoding: chunked\r\n", "\r\nhello\r\n0\r\n\r\n"), "400", "POST /x broken"},
		{"chunk size with 0x", post("Transfer-Encoding: chunked\r\n", "0x5\r\nhello\r\n0\r\n\r\n"), "400", "POST /x broken"},
		{"chunk size with a sign", post("Transfer-Encoding: chunked\r\n", "+5\r\nhello\r\n0\r\n\r\n"), "400", "POST /x broken"},
		{"chunk size with a space before", post("Transfer-Encoding: chunked\r\n", " 5\r\nhello\r\n0\r\n\r\n"), "400", "POST /x broken"},
		{"chunk size with a space after", post("Transfer-Encoding: chunked\r\n", "5 \r\nhello\r\n0\r\n\r\n"), "400", "POST /x broken"},
		{"chunk size that overflows", post("Transfer-Encoding: chunked\r\n", "10000000000000005\r\nhello\r\n0\r\n\r\n"), "400", "POST /x broken"},
		{"chunk line ends in LF", post("Transfer-Encoding: chunked\r\n", "5\nhello\r\n0\r\n\r\n"), "400", "POST /x broken"},
		{"chunk data ends in LF", post("Transfer-Encoding: chunked\r\n", "5\r\nhello\n0\r\n\r\n"), "400", "POST /x broken"},
		{"chunk data too long", post("Transfer-Encoding: chunked\r\n", "5\r\nhelloXX0\r\n\r\n"), "400", "POST /x broken"},
		{"extension with LF", post("Transfer-Encoding: chunked\r\n", "5;a\nb\r\nhello\r\n0\r\n\r\n"), "400", "POST /x broken"},
		{"extension with CR", post("Transfer-Encoding: chunked\r\n", "5;a\rb\r\nhello\r\n0\r\n\r\n"), "400", "POST /x broken"},
		{"extension without a name", post("Transfer-Encoding: chunked\r\n", "5;\r\nhello\r\n0\r\n\r\n"), "400", "POST /x broken"},
		{"extension unterminated", post("Transfer-Encoding: chunked\r\n", "5;a=\"b\r\nhello\r\n0\r\n\r\n"), "400", "POST /x broken"},
		{"extension endless", post("Transfer-Encoding: chunked\r\n", "5;"+strings.Repeat("a", 5000)+"\r\nhello\r\n0\r\n\r\n"), "400", "POST /x broken"},
		{"last chunk ends in LF", post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\n"), "400", "POST /x broken"},
		{"trailer with framing", post("Transfer-Encoding: chunked\r\n", "0\r\nContent-Length: 5\r\n\r\n"), "400", "POST /x broken"},
		{"trailer folded", post("Transfer-Encoding: chunked\r\n", "0\r\nX: a\r\n b\r\n\r\n"), "400", "POST /x broken"},
		{"body cut off", "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\nhello", "400", "POST /x broken"},
		{"request in a body", post("Content-Length: "+fmt.Sprint(len(next))+"\r\n", next), "200 200", "POST /x " + next + "|GET /next "},
		{"method in lower case is its own", "get /x HTTP/1.1\r\nHost: a\r\n\r\n", "200 200", "get /x |GET /next "},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rec := &recorder{}
			hits := stored{"a/hit": hello("stored")}
			s := start(t, Config{Handler: rec, Hits: hits}, false, false)
			var got []string
			all := talk(t, s.addr, c.send+next)
			for _, res := range all {
				got = append(got, fmt.Sprint(res.StatusCode))
			}
			if g := strings.Join(got, " "); g != c.want {
				t.Errorf("answers %q, not %q", g, c.want)
			}
			rec.mu.Lock()
			defer rec.mu.Unlock()
			if g := strings.Join(rec.seen, "|"); g != c.seen {
				t.Errorf("the backend saw %q, not %q", g, c.seen)
			}
		})
	}
}

func TestPipelinedHitsAndMissesKeepTheirOrder(t *testing.T) {
	rec := &recorder{}
	s := start(t, Config{Handler: rec, Hits: stored{"a/hit": hello("stored"), "a/big": hello(strings.Repeat("b", 100_000))}}, false, false)
	var send, want strings.Builder
	for i := range 40 {
		switch i % 4 {
		case 0:
			send.WriteString("GET /hit HTTP/1.1\r\nHost: a\r\n\r\n")
			want.WriteString("6 ")
		case 1:
			send.WriteString("GET /miss HTTP/1.1\r\nHost: a\r\n\r\n")
			want.WriteString("2 ")
		case 2:
			send.WriteString("GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
			want.WriteString("100000 ")
		case 3:
			send.WriteString("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
			want.WriteString("2 ")
		}
	}
	var got strings.Builder
	for _, res := range talk(t, s.addr, send.String()) {
		b, _ := io.ReadAll(res.Body)
		fmt.Fprintf(&got, "%d ", len(b))
	}
	if got.String() != want.String() {
		t.Errorf("got  %s\nwant %s", got.String(), want.String())
	}
}

// FuzzHTTP1 holds the head's parser to net/http's: what is accepted here is read the same there.
func FuzzHTTP1(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /a?b=c HTTP/1.1\r\nHost: a:80\r\nContent-Length: 3\r\nX-Y: z\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=\"y\"\r\nabc\r\n0\r\nT: u\r\n\r\nGET / HTTP/1.1\r\n",
		"GET http://b/c HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: [::1]\r\n\r\n",
		"GET // HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\nExpect: 100-continue\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n c\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		i := bytes.Index(in, emptyLine)
		if i < 0 {
			return
		}
		hd, rest := bytes.Clone(in[:i+4]), in[i+4:]
		var h head
		var r Request
		if h.parse(hd, &r) != nil {
			return
		}
		if _, err := url.ParseRequestURI(r.Target); err != nil {
			return
		}
		br := bufio.NewReader(bytes.NewReader(in))
		q, err := http.ReadRequest(br)
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", in, err)
		}
		length := max(0, h.length)
		if h.chunked {
			length = -1
		}
		if q.Method != r.Method || q.Host != r.Host || q.ProtoMinor != h.minor || q.ContentLength != length || q.URL.RequestURI() == "" {
			t.Fatalf("%q: %s %q length %d, net/http: %s %q length %d", in, r.Method, r.Host, length, q.Method, q.Host, q.ContentLength)
		}
		n := 0
		for _, v := range q.Header {
			n += len(v)
		}
		for _, fd := range r.fields {
			if fd.Name != "trailer" && q.Header.Get(fd.Name) == "" && fd.Value != "" {
				t.Fatalf("%q: field %s is not there for net/http", in, fd.Name)
			}
		}
		got, gotErr := readBody(&h, rest)
		want, wantErr := io.ReadAll(q.Body)
		if gotErr == nil && (wantErr != nil || string(got) != string(want)) {
			t.Fatalf("%q: body %q, net/http %q %v", in, got, want, wantErr)
		}
	})
}

// readBody reads a body as the loop does, from bytes.
func readBody(h *head, rest []byte) ([]byte, error) {
	client, server := net.Pipe()
	go func() { client.Write(rest); client.Close() }() // ends with the pipe
	defer server.Close()
	srv, err := New(Config{Handler: http.NotFoundHandler()})
	if err != nil {
		return nil, err
	}
	c := &conn1{link: &link{srv: srv, raw: server, rw: server}, work: works.Get().(*work)}
	c.watch.c = c
	c.watch.over = true
	defer c.release()
	var trailer http.Header
	b := &body1{c: c, chunked: h.chunked, left: max(0, h.length), ended: !h.hasBody(), trailer: &trailer}
	return io.ReadAll(b)
}

// FuzzHTTP1Loop holds a whole connection to net/http's reading of the same bytes: the requests that
// reach the handler are the ones net/http would see, with the same bodies, in the same order.
func FuzzHTTP1Loop(f *testing.F) {
	for _, s := range []string{
		"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /hit HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\r\nGET /b HTTP/1.0\r\n\r\n",
		"POST /leave HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\nabcdefghiGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /leave HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nFF;a\r\nabcdefghi\r\n0\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
		"HEAD /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /b",
	} {
		f.Add([]byte(s))
	}
	var seen []string
	srv, err := New(Config{
		Hits: stored{"a/hit": hello("stored")},
		Served: func(r *Request, _ *Hit, _ int64, _ time.Time, _ time.Duration) {
			seen = append(seen, r.Method+" "+r.Target+" ")
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.RequestURI, "/leave") {
				seen = append(seen, r.Method+" "+r.RequestURI+" left")
				return
			}
			b, err := io.ReadAll(r.Body)
			if err != nil {
				b = []byte("broken")
			}
			seen = append(seen, r.Method+" "+r.RequestURI+" "+string(b))
		}),
	})
	if err != nil {
		f.Fatal(err)
	}
	l := newPipes()
	go srv.Serve(l)
	f.Cleanup(func() { srv.Close() })
	f.Fuzz(func(t *testing.T, in []byte) {
		if bytes.HasPrefix(in, []byte("PRI")) {
			return // HTTP/2
		}
		seen = nil
		c := l.dial()
		done := make(chan struct{})
		go func() { io.Copy(io.Discard, c); close(done) }()
		c.SetWriteDeadline(time.Now().Add(2 * time.Second))
		c.Write(in)
		// End what was begun in a way that nothing takes for a request, then leave.
		c.Write([]byte("\x00\n\x00\n"))
		select {
		case <-done:
		case <-time.After(50 * time.Millisecond): // a body that has not come whole
		}
		c.Close()
		<-done
		until(t, "the connection to end", func() bool { return srv.Conns() == 0 })
		br := bufio.NewReader(bytes.NewReader(append(bytes.Clone(in), "\x00\n\x00\n"...)))
		for i, got := range seen {
			if b, _ := br.Peek(2); string(b) == "\r\n" {
				br.Discard(2)
			}
			q, err := http.ReadRequest(br)
			if err != nil {
				t.Fatalf("%q: request %d is %q, net/http: %v", in, i, got, err)
			}
			b, err := io.ReadAll(q.Body)
			if err != nil {
				b = []byte("broken")
			}
			want := q.Method + " " + q.RequestURI + " " + string(b)
			if u, ok := strings.CutPrefix(q.RequestURI, "http"); ok && strings.Contains(u, "://") {
				continue // of the absolute form the host is another field
			}
			if strings.HasSuffix(got, " left") {
				want = q.Method + " " + q.RequestURI + " left"
			}
			if got != want && !strings.HasSuffix(got, " broken") {
				t.Fatalf("%q: request %d is %q, net/http: %q", in, i, got, want)
			}
		}
	})
}
