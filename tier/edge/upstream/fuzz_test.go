package upstream

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// feed is a connection that was filled beforehand and gives its bytes in pieces.
type feed struct {
	r    *bytes.Reader
	size int
}

func (f *feed) Read(p []byte) (int, error)       { return f.r.Read(p[:min(len(p), f.size)]) }
func (f *feed) Write(p []byte) (int, error)      { return len(p), nil }
func (f *feed) Close() error                     { return nil }
func (f *feed) LocalAddr() net.Addr              { return nil }
func (f *feed) RemoteAddr() net.Addr             { return nil }
func (f *feed) SetDeadline(time.Time) error      { return nil }
func (f *feed) SetReadDeadline(time.Time) error  { return nil }
func (f *feed) SetWriteDeadline(time.Time) error { return nil }

type nobody struct{}

func (nobody) waits() (time.Duration, error) { return 0, nil }

// read reads one response as the relay does; rest is what follows it.
func read(data []byte, size int, method string) (h head, text string, trailers []field, rest []byte, err error) {
	f := &feed{bytes.NewReader(data), max(size, 1)}
	c := newConn(f, nil)
	defer c.discard()
	if err = c.readHead(); err != nil {
		return
	}
	h = c.head
	b := bodyOf(c, &h, method)
	var out strings.Builder
	for {
		p, berr := b.next(nobody{})
		out.Write(p)
		if berr == io.EOF {
			break
		}
		if err = berr; err != nil {
			break
		}
	}
	rest = append(rest, c.buf[c.r:c.w]...)
	more, _ := io.ReadAll(f.r)
	return h, out.String(), b.trailers, append(rest, more...), err
}

// FuzzResponse compares what is accepted with net/http's reading of it: status, fields, body, end.
// We may refuse more, never read differently; and the pieces in which bytes come change nothing.
func FuzzResponse(f *testing.F) {
	for _, text := range ambiguous {
		if len(text) < 1000 {
			f.Add([]byte(text), 7, false)
		}
	}
	for _, text := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n5;x=y\r\nhello\r\n00\r\nA: b\r\n\r\nrest",
		"HTTP/1.0 200 OK\r\n\r\nuntil the end",
		"HTTP/1.1 204 No Content\r\nX-A:  b \r\n\r\n",
		"HTTP/1.1 304\r\nContent-Length: 5\r\n\r\n",
	} {
		f.Add([]byte(text), 1000, false)
		f.Add([]byte(text), 1, true)
	}
	f.Fuzz(func(t *testing.T, data []byte, size int, isHead bool) {
		method := "GET"
		if isHead {
			method = "HEAD"
		}
		h, text, trailers, rest, err := read(data, size, method)
		h2, text2, _, rest2, err2 := read(data, 1, method)
		if (err == nil) != (err2 == nil) || text != text2 && err == nil || h.status != h2.status || err == nil && !bytes.Equal(rest, rest2) {
			t.Fatalf("pieces of %d and of 1 differ: %v %v", size, err, err2)
		}
		if err != nil || h.status == http.StatusSwitchingProtocols {
			return
		}
		in := bufio.NewReader(bytes.NewReader(data))
		res, herr := http.ReadResponse(in, &http.Request{Method: method})
		if herr != nil {
			return // refuses what we take: a reason of bytes beyond ASCII, say
		}
		if res.StatusCode != h.status {
			t.Fatalf("status %d, net/http %d", h.status, res.StatusCode)
		}
		b, berr := io.ReadAll(res.Body)
		if berr != nil {
			t.Fatalf("whole to us, to net/http: %v", berr)
		}
		if h.status >= 200 && string(b) != text {
			t.Fatalf("body %q, net/http %q", text, b)
		}
		if after, _ := io.ReadAll(in); h.status >= 200 && !bytes.Equal(after, rest) {
			t.Fatalf("after it %q, net/http %q", rest, after)
		}
		got := http.Header{}
		for _, f := range h.fields {
			got.Add(f.name, f.value)
		}
		for k, v := range res.Header {
			if k != "Trailer" && strings.Join(got[k], "\n") != strings.Join(v, "\n") {
				t.Fatalf("field %s: %q, net/http %q", k, got[k], v)
			}
		}
		for _, f := range trailers {
			if hopByHop(f.name) || f.name == "Content-Length" {
				t.Fatalf("trailer %s", f.name)
			}
		}
	})
}

// FuzzChunkLength holds the size line to one reading.
func FuzzChunkLength(f *testing.F) {
	for _, s := range []string{"0", "5", "5;a=b", "5 ;a", "5 ", " 5", "0x5", "5g", "ffffffffffffffff", "00000000000000001", "-1", "+1", "5;\x00", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		n, err := chunkLength(line)
		if err != nil {
			return
		}
		var back int64
		digits := 0
		for _, c := range line {
			d := hexDigit(c)
			if d < 0 {
				break
			}
			back, digits = back*16+int64(d), digits+1
		}
		if digits == 0 || n != back || n < 0 || digits < len(line) && line[digits] != ';' && line[digits] != ' ' && line[digits] != '\t' {
			t.Fatalf("%q is %d", line, n)
		}
	})
}

// FuzzRequest checks that a request head is one request to whoever reads it, and the same one.
func FuzzRequest(f *testing.F) {
	f.Add("GET", "/a?b", "/a", "", "b", "h:80", "X-A", "v", "1.2.3.4:5")
	f.Add("POST", "/a%20b", "/a b", "", "", "h", "Cookie", "a=b", "[::1]:5")
	f.Add("GET", "/a b", "/a b", "", "x y\r\n", "h\r\nX: y", "X\r\nY", "a\r\nB: c", "x")
	f.Fuzz(func(t *testing.T, method, uri, path, rawPath, query, host, name, value, remote string) {
		r := &http.Request{Method: method, RequestURI: uri, Host: host, RemoteAddr: remote, Header: http.Header{name: {value}}, ProtoMajor: 1, ProtoMinor: 1}
		r.URL = newURL(path, rawPath, query)
		x := exchange{policy: Policy{}.withDefaults(), r: r}
		b, err := x.appendHead(nil)
		if err != nil {
			return
		}
		if bytes.Count(b, []byte("\r\n\r\n")) != 1 || !bytes.HasSuffix(b, []byte("\r\n\r\n")) || bytes.IndexByte(b, 0) >= 0 {
			t.Fatalf("%q", b)
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(string(b), "\r\n\r\n"), "\r\n") {
			if strings.ContainsAny(line, "\r\n") || line == "" {
				t.Fatalf("line %q of %q", line, b)
			}
		}
		if first, _, _ := strings.Cut(string(b), "\r\n"); strings.Count(first, " ") != 2 {
			t.Fatalf("%q", first)
		}
	})
}
