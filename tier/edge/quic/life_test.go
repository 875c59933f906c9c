package quic

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// WebSocket over one stream, as the door's HTTP/2 has it: both directions at once.
func TestExtendedConnect(t *testing.T) {
	d := start(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Method, " ", r.Proto, " ", r.Header[":protocol"], " ", r.URL.Path, " ", r.Host, "\n")
		w.(http.Flusher).Flush()
		b := make([]byte, 4)
		for {
			n, err := r.Body.Read(b)
			if err != nil {
				return
			}
			w.Write(bytes.ToUpper(b[:n]))
			w.(http.Flusher).Flush()
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	tr := &quic.Transport{Conn: socket(t)}
	defer tr.Close()
	to, _ := net.ResolveUDPAddr("udp", d.addr)
	conn, err := tr.Dial(ctx, to, d.clientTLS(), &quic.Config{})
	if err != nil {
		t.Fatal(err)
	}
	h := (&http3.Transport{}).NewClientConn(conn)
	open := func(proto string) *http3.RequestStream {
		str, err := h.OpenRequestStream(ctx)
		if err != nil {
			t.Fatal(err)
		}
		req, _ := http.NewRequestWithContext(ctx, http.MethodConnect, "https://shop.localhost/chat", nil)
		if req.Proto = proto; proto == "" {
			req.URL.Scheme, req.URL.Path = "", ""
		}
		if err := str.SendRequestHeader(req); err != nil {
			t.Fatal(err)
		}
		return str
	}
	str := open("websocket")
	if r, err := str.ReadResponse(); err != nil || r.StatusCode != 200 {
		t.Fatalf("%v, %v", r, err)
	}
	want := "CONNECT HTTP/3.0 [websocket] /chat shop.localhost\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(str, got); err != nil || string(got) != want {
		t.Fatalf("%q, %v", got, err)
	}
	for range 3 {
		io.WriteString(str, "ping")
		if _, err := io.ReadFull(str, got[:4]); err != nil || string(got[:4]) != "PING" {
			t.Fatalf("%q, %v", got[:4], err)
		}
	}
	str.Close()
	if b, err := io.ReadAll(str); err != nil || len(b) != 0 {
		t.Errorf("%q, %v", b, err)
	}
}

// A client moves to another socket in the middle of an upload, as a phone does from Wi-Fi to 5G.
func TestMigration(t *testing.T) {
	var seen sync.Map
	d := start(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.RemoteAddr, true)
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	wifi, phone := &quic.Transport{Conn: socket(t)}, &quic.Transport{Conn: socket(t)}
	defer wifi.Close()
	defer phone.Close()
	to, _ := net.ResolveUDPAddr("udp", d.addr)
	conn, err := wifi.Dial(ctx, to, d.clientTLS(), &quic.Config{})
	if err != nil {
		t.Fatal(err)
	}
	h := (&http3.Transport{}).NewClientConn(conn)
	round := func(body io.Reader) string {
		req, _ := http.NewRequestWithContext(ctx, "POST", d.url("/"), body)
		r, err := h.RoundTrip(req)
		_, text := read(t, r, err)
		return text
	}
	if got := round(strings.NewReader("abc")); got != "3" {
		t.Fatalf("before: %s", got)
	}
	in, out := io.Pipe()
	go func() {
		out.Write(make([]byte, 1<<20))
		path, err := conn.AddPath(phone)
		if err == nil {
			if err = path.Probe(ctx); err == nil {
				err = path.Switch()
			}
		}
		if err != nil {
			out.CloseWithError(err)
			return
		}
		out.Write(make([]byte, 1<<20))
		out.Close()
	}()
	if got := round(in); got != fmt.Sprint(2<<20) {
		t.Errorf("the upload during the move: %s", got)
	}
	if got := round(strings.NewReader("abcd")); got != "4" {
		t.Errorf("after: %s", got)
	}
	for _, tr := range []*quic.Transport{wifi, phone} {
		if _, ok := seen.Load(tr.Conn.LocalAddr().String()); !ok {
			t.Errorf("no request came from %s", tr.Conn.LocalAddr())
		}
	}
}

// Each request is made with 0-RTT on a connection of its own, through a socket that hears nothing
// before it is opened, so that the handshake cannot end.
func TestEarlyRequests(t *testing.T) {
	type call struct{ method, early string }
	calls := make(chan call, 10)
	d := start(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		calls <- call{r.Method + string(body), r.Header.Get("Early-Data")}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conf := d.clientTLS()
	to, _ := net.ResolveUDPAddr("udp", d.addr)
	for i, c := range []struct {
		method, want, body string
		early              bool
	}{
		{http.MethodGet, "GET", "", false}, // gets the ticket
		{http3.MethodGet0RTT, "GET", "", true},
		{http3.MethodHead0RTT, "HEAD", "", true},
		{http.MethodPost, "POSTx", "x", false},
	} {
		deaf := &deafSocket{PacketConn: socket(t), open: make(chan struct{})}
		if i == 0 {
			close(deaf.open)
		}
		tr := &quic.Transport{Conn: deaf}
		conn, err := tr.DialEarly(ctx, to, conf, &quic.Config{})
		if err != nil {
			t.Fatal(err)
		}
		h := (&http3.Transport{}).NewClientConn(conn)
		done := make(chan error, 1)
		go func() {
			if c.method == http.MethodPost {
				done <- rawPost(ctx, conn)
				return
			}
			req, _ := http.NewRequestWithContext(ctx, c.method, d.url("/"), nil)
			r, err := h.RoundTrip(req)
			if err == nil {
				io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
			done <- err
		}()
		if c.early {
			select {
			case got := <-calls:
				if got != (call{c.want, "1"}) {
					t.Errorf("%s: %+v", c.method, got)
				}
			case <-ctx.Done():
				t.Fatalf("%s: a safe early request waits for the handshake", c.method)
			}
			close(deaf.open)
		} else if i > 0 {
			eventually(t, "the early request has arrived", func() bool { return d.waiting() == 1 })
			if len(calls) != 0 {
				t.Error("an unsafe request is answered before the handshake")
			}
			close(deaf.open)
			if got := <-calls; got != (call{c.want, ""}) {
				t.Errorf("%s: %+v", c.method, got)
			}
		} else if got := <-calls; got.early != "" {
			t.Errorf("a request after the handshake is marked: %+v", got)
		}
		if err := <-done; err != nil {
			t.Errorf("%s: %v", c.method, err)
		}
		if i > 0 && !conn.ConnectionState().Used0RTT {
			t.Errorf("%s: 0-RTT was not used", c.method)
		}
		conn.CloseWithError(0, "")
		tr.Close()
	}
}

// waiting is how many requests are in the server's hands.
func (d *door) waiting() (n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for v := range d.visits {
		n += v.active.Load()
	}
	return n
}

// rawPost sends POST in 0-RTT, as an attacker would: quic-go's client knows better.
func rawPost(ctx context.Context, conn *quic.Conn) error {
	str, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	// QPACK (RFC 9204) with static references: :method POST, :scheme https, :path /, :authority a
	block := []byte{0, 0, 0xc0 | 20, 0xc0 | 23, 0xc0 | 1, 0x50, 1, 'a'}
	msg := append([]byte{1, byte(len(block))}, block...)
	msg = append(msg, 0, 1, 'x')
	if _, err := str.Write(msg); err != nil {
		return err
	}
	str.Close()
	b, err := io.ReadAll(str)
	if err == nil && len(b) == 0 {
		err = errors.New("no answer")
	}
	return err
}

// deafSocket hears nothing until it is opened.
type deafSocket struct {
	net.PacketConn
	open chan struct{}
}

func (s *deafSocket) ReadFrom(p []byte) (int, net.Addr, error) {
	n, from, err := s.PacketConn.ReadFrom(p)
	<-s.open
	return n, from, err
}

func TestDrain(t *testing.T) {
	in, out := make(chan struct{}), make(chan struct{})
	d := start(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(in)
			<-out
		}
		io.WriteString(w, "done")
	})
	busy, idle := d.client(t), d.client(t)
	r, err := idle.Get(d.url("/"))
	read(t, r, err)
	answer := make(chan string, 1)
	go func() {
		r, err := busy.Get(d.url("/slow"))
		_, body := read(t, r, err)
		answer <- body
	}()
	<-in
	drained := make(chan error, 1)
	go func() { drained <- d.Drain(context.Background()) }()
	// Newcomers are refused, once the goodbye has begun.
	eventually(t, "newcomers are refused", func() bool {
		r, err := d.client(t).Get(d.url("/"))
		if err == nil {
			r.Body.Close()
		}
		return err != nil
	})
	select {
	case err := <-drained:
		t.Fatalf("the drain ends before the request: %v", err)
	case err := <-d.served:
		t.Fatalf("Serve ends before the request: %v", err)
	default:
	}
	close(out)
	if got := <-answer; got != "done" {
		t.Errorf("the request in flight got %q", got)
	}
	select {
	case err := <-drained:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the drain does not end")
	}
	eventually(t, "no connection is left", func() bool { return d.Conns() == 0 })
}

// A client that does not heed GOAWAY and has nothing to do is dismissed.
func TestDrainDismissesTheIdle(t *testing.T) {
	d := start(t, Config{}, func(w http.ResponseWriter, r *http.Request) {})
	to, _ := net.ResolveUDPAddr("udp", d.addr)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	tr := &quic.Transport{Conn: socket(t)}
	defer tr.Close()
	conn, err := tr.Dial(ctx, to, d.clientTLS(), &quic.Config{KeepAlivePeriod: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the connection is there", func() bool { return d.Conns() == 1 && d.shaking.Load() == 0 })
	start := time.Now()
	if err := d.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < idleGrace || took > idleGrace+3*time.Second {
		t.Errorf("the drain took %v", took)
	}
	<-conn.Context().Done()
	var app *quic.ApplicationError
	if err := context.Cause(conn.Context()); !errors.As(err, &app) || app.ErrorCode != quic.ApplicationErrorCode(http3.ErrCodeNoError) {
		t.Errorf("the client hears: %v", err)
	}
}

func TestDrainEndsWithItsContext(t *testing.T) {
	var in atomic.Bool
	d := start(t, Config{}, func(w http.ResponseWriter, r *http.Request) { in.Store(true); <-r.Context().Done() })
	go func() {
		if r, err := d.client(t).Get(d.url("/")); err == nil {
			r.Body.Close()
		}
	}()
	eventually(t, "a request is in flight", in.Load)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := d.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("drain: %v", err)
	}
}

func TestAddressesAreProvenWhenHandshakesPileUp(t *testing.T) {
	d := start(t, Config{Handshakes: -1}, func(w http.ResponseWriter, r *http.Request) {}) // from the first on
	r, err := d.client(t).Get(d.url("/"))
	read(t, r, err)
	eventually(t, "no handshake is counted any more", func() bool { return d.shaking.Load() == 0 })
}

func TestCloseLeavesNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	cert, pool := certificate(t)
	s, err := New(Config{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
		}
	}), TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	if err != nil {
		t.Fatal(err)
	}
	p := socket(t)
	served := make(chan error, 1)
	go func() { served <- s.Serve(p) }()
	tr := &http3.Transport{TLSClientConfig: &tls.Config{ServerName: "localhost", RootCAs: pool}}
	c := &http.Client{Transport: tr}
	r, err := c.Get("https://" + p.LocalAddr().String() + "/")
	read(t, r, err)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if r, err := c.Get("https://" + p.LocalAddr().String() + "/slow"); err == nil {
			r.Body.Close()
		}
	}()
	eventually(t, "the slow request is there", func() bool { return (&door{Server: s}).waiting() == 1 })
	if err := errors.Join(s.Close(), <-served); err != nil {
		t.Fatal(err)
	}
	<-gone
	tr.Close()
	eventually(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
}
