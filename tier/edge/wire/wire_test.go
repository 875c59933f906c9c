package wire

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// stored answers what a map holds: the Hits of tests.
type stored map[string]*Hit

func (s stored) Hit(r *Request, _ *Hit) *Hit {
	if r.Get("range") != "" || r.Get("authorization") != "" {
		return nil
	}
	return s[r.Host+r.Target]
}

// served is a running Server and how to reach it.
type served struct {
	*Server
	addr   string
	client *http.Client
	roots  *x509.CertPool
}

// start runs a Server on a port of its own until the test ends; tls and two say how its client
// speaks.
func start(t testing.TB, cfg Config, secure, two bool) *served {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, l, cfg, secure, two)
}

func startOn(t testing.TB, l net.Listener, cfg Config, secure, two bool) *served {
	t.Helper()
	s := &served{}
	if secure {
		cert, roots := certificate(t)
		cfg.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		s.roots = roots
	}
	var err error
	if s.Server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() {
		serve := s.Serve
		if secure {
			serve = s.ServeTLS
		}
		if err := serve(l); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.roots}, Protocols: new(http.Protocols)}
	switch {
	case two && secure:
		tr.Protocols.SetHTTP2(true)
	case two:
		tr.Protocols.SetUnencryptedHTTP2(true)
	default:
		tr.Protocols.SetHTTP1(true)
	}
	s.client = &http.Client{Transport: tr, Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if n := s.Conns(); n != 0 {
			t.Errorf("%d connections after Close", n)
		}
	})
	return s
}

func (s *served) url(path string) string {
	if s.roots != nil {
		return "https://" + s.addr + path
	}
	return "http://" + s.addr + path
}

var certificate = func() func(testing.TB) (tls.Certificate, *x509.CertPool) {
	made := sync.OnceValues(func() (tls.Certificate, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return tls.Certificate{}, err
		}
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
		if err != nil {
			return tls.Certificate{}, err
		}
		leaf, err := x509.ParseCertificate(der)
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
	})
	return func(t testing.TB) (tls.Certificate, *x509.CertPool) {
		t.Helper()
		cert, err := made()
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AddCert(cert.Leaf)
		return cert, pool
	}
}()

// speaks runs a test over every protocol.
func speaks(t *testing.T, f func(t *testing.T, secure, two bool)) {
	for _, c := range []struct {
		name        string
		secure, two bool
	}{{"h1", false, false}, {"h1 tls", true, false}, {"h2c", false, true}, {"h2 tls", true, true}} {
		t.Run(c.name, func(t *testing.T) { t.Parallel(); f(t, c.secure, c.two) })
	}
}

func body(t *testing.T, res *http.Response, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// until polls a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not in time: %s", what)
		}
	}
}

func hello(body string) *Hit {
	return Prepare(200, http.Header{"Content-Type": {"text/plain"}, "Etag": {`"x"`}}, []byte(body), time.Now().Unix()-7)
}

func TestHitsAndMisses(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 20_000)
	speaks(t, func(t *testing.T, secure, two bool) {
		hits := stored{}
		var mu sync.Mutex
		told := 0
		s := start(t, Config{
			Hits: hits,
			Served: func(r *Request, h *Hit, bytes int64, _ time.Time, took time.Duration) {
				mu.Lock()
				defer mu.Unlock()
				told++
			},
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Proto", r.Proto)
				b, err := io.ReadAll(r.Body)
				if err != nil {
					t.Errorf("read body: %v", err)
				}
				io.WriteString(w, r.Method+" "+r.RequestURI+" "+string(b))
			}),
		}, secure, two)
		hits[s.addr+"/hit"], hits[s.addr+"/large"] = hello("stored"), hello(large)
		for range 3 {
			res, err := s.client.Get(s.url("/hit"))
			if b := body(t, res, err); b != "stored" || res.Header.Get("Age") != "7" && res.Header.Get("Age") != "8" || res.Header.Get("Date") == "" || res.ContentLength != 6 {
				t.Fatalf("hit: %q %v", b, res.Header)
			}
			res, err = s.client.Get(s.url("/large"))
			if b := body(t, res, err); b != large {
				t.Fatalf("large hit: %d bytes", len(b))
			}
			res, err = s.client.Head(s.url("/hit"))
			if b := body(t, res, err); b != "" || res.ContentLength != 6 {
				t.Fatalf("head: %q %v", b, res.Header)
			}
			res, err = s.client.Get(s.url("/miss?a=b"))
			if b := body(t, res, err); b != "GET /miss?a=b " || res.ContentLength != int64(len(b)) {
				t.Fatalf("miss: %q %v", b, res.Header)
			}
			res, err = s.client.Post(s.url("/post"), "text/plain", strings.NewReader(large))
			if b := body(t, res, err); b != "POST /post "+large {
				t.Fatalf("post: %d bytes", len(b))
			}
			res, err = s.client.Post(s.url("/post"), "text/plain", io.MultiReader(strings.NewReader("a"), strings.NewReader(large)))
			if b := body(t, res, err); b != "POST /post a"+large {
				t.Fatalf("chunked post: %d bytes", len(b))
			}
		}
		if mu.Lock(); told != 9 {
			t.Errorf("told of %d hits", told)
		}
		mu.Unlock()
		if n := s.Conns(); n != 1 {
			t.Errorf("%d connections, not one that is kept", n)
		}
	})
}
