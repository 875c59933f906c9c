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
	"strings"
	"sync"
	"testing"
	"time"

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
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<17) // 2 MiB: more than the first windows
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

// A certificate that is asked for per host, as package certs asks.
func TestClientCertificates(t *testing.T) {
	card, staff := certificate(t)
	cert, pool := certificate(t)
	conf := &tls.Config{Certificates: []tls.Certificate{cert}}
	conf.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		c := conf.Clone()
		c.ClientAuth, c.ClientCAs, c.SessionTicketsDisabled = tls.RequestClientCert, staff, true
		return c, nil
	}
	s, err := New(Config{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, len(r.TLS.PeerCertificates), r.TLS.NegotiatedProtocol)
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
