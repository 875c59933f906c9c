package proxyproto

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}

// start serves each client's address over HTTP.
func start(t *testing.T, trusted []netip.Prefix, timeout time.Duration) string {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Listen(inner, func() []netip.Prefix { return trusted })
	l.timeout = timeout
	s := &http.Server{
		Handler:  http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Method+" "+r.RemoteAddr) }),
		ErrorLog: log.New(io.Discard, "", 0),
	}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return inner.Addr().String()
}

// talk sends raw bytes and returns status and body; 0 if the connection closed without an answer.
func talk(t *testing.T, addr string, raw string) (int, string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, raw)
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, ""
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(b)
}

func v2(t *testing.T, h *proxyproto.Header) string {
	t.Helper()
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const get = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

func header2(t *testing.T) string {
	return v2(t, &proxyproto.Header{
		Version: 2, Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv6,
		SourceAddr: &net.TCPAddr{IP: net.ParseIP("2001:db8::7"), Port: 4242}, DestinationAddr: &net.TCPAddr{IP: net.ParseIP("2001:db8::8"), Port: 443},
	})
}

func TestTrustedAddressesAreBelieved(t *testing.T) {
	addr := start(t, loopback, time.Second)
	local := v2(t, &proxyproto.Header{Version: 2, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC})
	for _, c := range []struct{ raw, want string }{
		{"PROXY TCP4 203.0.113.7 198.51.100.1 4242 80\r\n" + get, "GET 203.0.113.7:4242"},
		{"PROXY TCP6 2001:db8::7 2001:db8::1 4242 80\r\n" + get, "GET [2001:db8::7]:4242"},
		{"PROXY UNKNOWN\r\n" + get, "GET 127.0.0.1:"},
		{header2(t) + get, "GET [2001:db8::7]:4242"},
		{local + get, "GET 127.0.0.1:"},
		{get, "GET 127.0.0.1:"},
		{"P" + "UT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "PUT 127.0.0.1:"},
		{"\r\n" + get, "GET 127.0.0.1:"},
	} {
		if code, body := talk(t, addr, c.raw); code != 200 && c.raw[0] != '\r' || code == 200 && !strings.HasPrefix(body, c.want) {
			t.Errorf("%.20q: %d %s, want %s", c.raw, code, body, c.want)
		}
	}
}

func TestOthersAreNeverBelieved(t *testing.T) {
	for name, trusted := range map[string][]netip.Prefix{"none trusted": nil, "others trusted": {netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}} {
		addr := start(t, trusted, time.Second)
		for _, raw := range []string{"PROXY TCP4 203.0.113.7 198.51.100.1 4242 80\r\n" + get, header2(t) + get} {
			if code, body := talk(t, addr, raw); code != 400 && code != 0 {
				t.Errorf("%s, %.20q: %d %s", name, raw, code, body)
			}
		}
		if code, body := talk(t, addr, get); code != 200 || !strings.HasPrefix(body, "GET 127.0.0.1:") {
			t.Errorf("%s: %d %s", name, code, body)
		}
	}
}

func TestBrokenHeadersCloseTheirConnectionAlone(t *testing.T) {
	addr := start(t, loopback, time.Second)
	for _, raw := range []string{
		"PROXY\r\n" + get, "PROXY TCP4 1.2.3.4\r\n" + get, "PROXY TCP4 999.1.1.1 1.1.1.1 1 2\r\n" + get, "PROXY TCP4 1.1.1.1 1.1.1.1 99999 2\r\n" + get,
		"PROXY " + strings.Repeat("x", 500) + "\r\n" + get,
		header2(t)[:12] + "\x2f\x11\x00\x0c" + strings.Repeat("\x00", 12) + get,
		header2(t)[:12] + "\x21\x13\x00\x0c" + strings.Repeat("\x00", 12) + get,
		header2(t)[:12] + "\x21\x11\x00\x01\x00" + get,
	} {
		if code, body := talk(t, addr, raw); code != 0 && code != 400 {
			t.Errorf("%.30q: %d %s", raw, code, body)
		}
	}
	if code, _ := talk(t, addr, get); code != 200 {
		t.Errorf("afterwards: %d", code)
	}
}

func TestSlowHeadersDelayNobodyAndTimeOut(t *testing.T) {
	addr := start(t, loopback, 300*time.Millisecond)
	var slow []net.Conn
	for i, part := range []string{"", "P", "PROX", "PROXY TCP4 203.0", header2(t)[:9], header2(t)[:20]} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, part)
		slow = append(slow, c)
		if code, _ := talk(t, addr, get); code != 200 {
			t.Errorf("another client beside slow header %d: %d", i, code)
		}
	}
	for i, c := range slow {
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("slow header %d: %v", i, err)
		}
	}
}

// Whatever a trusted address sends, nothing panics, and without a header not a byte is lost.
func FuzzConn(f *testing.F) {
	f.Add([]byte("PROXY TCP4 203.0.113.7 198.51.100.1 4242 80\r\nGET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\nx"))
	f.Add([]byte("PUT / HTTP/1.1\r\n\r\n"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x50\x01\xbbrest"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00rest"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x31\xff\xff"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := &Conn{Conn: canned{r: bytes.NewReader(raw)}, timeout: time.Hour}
		if c.RemoteAddr() == nil || fmt.Sprint(c.RemoteAddr()) == "" {
			t.Fatal("no address")
		}
		got, err := io.ReadAll(c)
		if err != nil {
			return
		}
		has := bytes.HasPrefix(raw, []byte("PROXY")) || bytes.HasPrefix(raw, proxyproto.SIGV2)
		if !has && !bytes.Equal(got, raw) {
			t.Errorf("%q became %q", raw, got)
		}
		if has && !bytes.HasSuffix(raw, got) {
			t.Errorf("%q became %q", raw, got)
		}
	})
}

type canned struct {
	net.Conn
	r io.Reader
}

func (c canned) Read(b []byte) (int, error) { return c.r.Read(b) }
func (c canned) Close() error               { return nil }
func (c canned) RemoteAddr() net.Addr       { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
