package quic

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// certificate is one for localhost, and a pool that trusts it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
}

type door struct {
	*Server
	addr   string
	served chan error
	pool   *x509.CertPool
}

func start(t *testing.T, cfg Config, h http.HandlerFunc) *door {
	t.Helper()
	cert, pool := certificate(t)
	cfg.Handler = h
	cfg.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}}
	cfg.Log = slog.New(slog.DiscardHandler)
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := socket(t)
	d := &door{s, p.LocalAddr().String(), make(chan error, 1), pool}
	go func() { d.served <- s.Serve(p) }()
	t.Cleanup(func() {
		s.Close()
		select {
		case err := <-d.served:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Serve does not return")
		}
	})
	return d
}

func socket(t *testing.T) net.PacketConn {
	t.Helper()
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func (d *door) clientTLS() *tls.Config {
	return &tls.Config{ServerName: "localhost", RootCAs: d.pool, ClientSessionCache: tls.NewLRUClientSessionCache(8), NextProtos: []string{"h3"}}
}

func (d *door) client(t *testing.T) *http.Client {
	tr := &http3.Transport{TLSClientConfig: d.clientTLS()}
	t.Cleanup(func() { tr.Close() })
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

func (d *door) url(path string) string { return "https://" + d.addr + path }

func read(t *testing.T, r *http.Response, err error) (int, string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func TestRequestsAndUploads(t *testing.T) {
	d := start(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hit":
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "hello")
		case "/length":
			fmt.Fprint(w, r.Method, " ", r.ContentLength, " ", r.Body == http.NoBody, " ", r.Proto, " ", r.TLS != nil, " ", r.Host != "")
		case "/echo":
			io.Copy(w, r.Body)
		case "/sum":
			h := sha256.New()
			n, err := io.Copy(h, r.Body)
			fmt.Fprintf(w, "%d %x %v", n, h.Sum(nil), err)
		default:
			http.NotFound(w, r)
		}
	})
	c := d.client(t)
	get := func(p string) (int, string) { r, err := c.Get(d.url(p)); return read(t, r, err) }
	if code, body := get("/hit"); code != 200 || body != "hello" {
		t.Errorf("hit: %d %s", code, body)
	}
	if code, _ := get("/miss"); code != 404 {
		t.Errorf("miss: %d", code)
	}
	if _, body := get("/length"); body != "GET 0 true HTTP/3.0 true true" {
		t.Errorf("a GET arrives as %s", body)
	}
	r, err := c.Head(d.url("/hit"))
	if code, body := read(t, r, err); code != 200 || body != "" || r.ContentLength != 5 {
		t.Errorf("HEAD: %d %q %d", code, body, r.ContentLength)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<19) // 8 MiB: more than every window
	want := fmt.Sprintf("%d %x <nil>", len(big), sha256.Sum256(big))
	r, err = c.Post(d.url("/sum"), "", bytes.NewReader(big))
	if _, body := read(t, r, err); body != want {
		t.Errorf("upload: %s", body)
	}
	r, err = c.Post(d.url("/sum"), "", io.MultiReader(bytes.NewReader(big))) // of unknown length
	if _, body := read(t, r, err); body != want {
		t.Errorf("upload of unknown length: %s", body)
	}
	req, _ := http.NewRequest("DELETE", d.url("/echo"), io.MultiReader(strings.NewReader("body of a DELETE")))
	r, err = c.Do(req)
	if _, body := read(t, r, err); body != "body of a DELETE" {
		t.Errorf("DELETE: %s", body)
	}
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			text := strings.Repeat(fmt.Sprint(i), 1000)
			r, err := c.Post(d.url("/echo"), "", strings.NewReader(text))
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Body.Close()
			if b, _ := io.ReadAll(r.Body); string(b) != text {
				t.Errorf("request %d got another's answer", i)
			}
		})
	}
	wg.Wait()
}

func TestAnAnswerCutShortNeverLooksWhole(t *testing.T) {
	d := start(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.Repeat("x", 10_000))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	r, err := d.client(t).Get(d.url("/"))
	if err != nil {
		return
	}
	defer r.Body.Close()
	if _, err := io.ReadAll(r.Body); err == nil {
		t.Error("the body ends as if it were whole")
	}
}

func TestABackendThatDiesInMidBodyIsSeen(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.Repeat("x", 10_000))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}))
	defer backend.Close()
	to, _ := url.Parse(backend.URL)
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	d := start(t, Config{}, proxy.ServeHTTP)
	r, err := d.client(t).Get(d.url("/"))
	if err != nil {
		return
	}
	defer r.Body.Close()
	if b, err := io.ReadAll(r.Body); err == nil {
		t.Errorf("%d bytes end as if they were all", len(b))
	}
}

func TestNothingIsGuessedOfAnAnswer(t *testing.T) {
	d := start(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/typed" {
			w.Header().Set("Content-Type", "text/x")
		}
		io.WriteString(w, "<html>")
	})
	c := d.client(t)
	for path, want := range map[string]string{"/": "[]", "/typed": "[text/x]"} {
		r, err := c.Get(d.url(path))
		read(t, r, err)
		if got := fmt.Sprint(r.Header["Content-Type"]); got != want {
			t.Errorf("%s: Content-Type %s", path, got)
		}
	}
}

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

// A certificate that is asked for per host, as package certs asks.
func TestClientCertificates(t *testing.T) {
	card, staff := certificate(t)
	cert, pool := certificate(t)
	conf := &tls.Config{Certificates: []tls.Certificate{cert}}
	conf.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		c := conf.Clone()
		c.ClientAuth, c.ClientCAs, c.SessionTicketsDisabled = tls.VerifyClientCertIfGiven, staff, true
		return c, nil
	}
	s, err := New(Config{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, len(r.TLS.VerifiedChains), r.TLS.NegotiatedProtocol)
	}), TLS: conf})
	if err != nil {
		t.Fatal(err)
	}
	p := socket(t)
	served := make(chan error, 1)
	go func() { served <- s.Serve(p) }()
	for _, certs := range [][]tls.Certificate{nil, {card}} {
		tr := &http3.Transport{TLSClientConfig: &tls.Config{ServerName: "localhost", RootCAs: pool, Certificates: certs}}
		r, err := (&http.Client{Transport: tr}).Get("https://" + p.LocalAddr().String())
		if _, body := read(t, r, err); body != fmt.Sprint(len(certs), "h3") {
			t.Errorf("%d certificates: %s", len(certs), body)
		}
		tr.Close()
	}
	if err := errors.Join(s.Close(), <-served); err != nil {
		t.Error(err)
	}
}

func TestLimits(t *testing.T) {
	d := start(t, Config{MaxHeader: 4 << 10, MaxConns: 2}, func(w http.ResponseWriter, r *http.Request) {})
	req, _ := http.NewRequest("GET", d.url("/"), nil)
	req.Header.Set("X", strings.Repeat("x", 8<<10))
	c := d.client(t)
	r, err := c.Do(req)
	if err == nil {
		if code, _ := read(t, r, err); code != 431 {
			t.Errorf("a large head: %d", code)
		}
	}
	r, err = c.Get(d.url("/"))
	read(t, r, err)
	r, err = d.client(t).Get(d.url("/"))
	read(t, r, err)
	if _, err := d.client(t).Get(d.url("/")); err == nil {
		t.Error("a third connection is let in")
	}
	if n := d.Conns(); n != 2 {
		t.Errorf("%d connections", n)
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

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		}
	}
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

func TestConfigIsChecked(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("no handler")
	}
	if _, err := New(Config{Handler: http.NotFoundHandler()}); err == nil {
		t.Error("no TLS")
	}
	if AltSvc(443) != `h3=":443"; ma=86400` {
		t.Error(AltSvc(443))
	}
	cert, _ := certificate(t)
	s, err := New(Config{Handler: http.NotFoundHandler(), TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Drain(context.Background()), s.Close()); err != nil {
		t.Error(err)
	}
	if err := s.Serve(socket(t)); err != nil {
		t.Error(err)
	}
}
