package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// runKeyring runs k until the test ends or stop is called, and waits for Run's return.
func runKeyring(t *testing.T, k *Keyring) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	up, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- k.Run(ctx, func() { close(up) }) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	select {
	case <-up:
	case <-time.After(10 * time.Second):
		t.Fatal("not ready")
	}
	return stop
}

func dial(t *testing.T, port int, conf *tls.Config) *tls.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), conf)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newKeyring(t *testing.T, cfg Config) *Keyring {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	cfg.Log = testLog(t)
	k, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *Keyring) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(k.local.cert)
	return p
}

// listenTLS serves conf and returns its port; each connection is told its state, then echoed.
func listenTLS(t *testing.T, conf *tls.Config, got chan<- tls.ConnectionState) int {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", conf)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if tc := c.(*tls.Conn); tc.Handshake() == nil {
				if got != nil {
					got <- tc.ConnectionState()
				}
				io.WriteString(tc, "x") // carries the session ticket to the client's Read
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().(*net.TCPAddr).Port
}

func TestPublicNames(t *testing.T) {
	for host, want := range map[string]bool{
		"example.com": true, "*.example.com": true, "a.b.example.co.uk": true, "EXAMPLE.com.": true, "example.com:443": true,
		"localhost": false, "shop.localhost": false, "nas": false, "nas.local": false, "db.internal": false, "x.home.arpa": false,
		"192.168.1.4": false, "8.8.8.8": false, "[::1]:443": false, "2001:db8::1": false, "": false, "*": false, "*.com": false, "x.lan": false,
	} {
		if Public(host) != want {
			t.Errorf("Public(%q) is not %v", host, want)
		}
	}
}

func TestLocalNamesAreServedAndVerify(t *testing.T) {
	k := newKeyring(t, Config{})
	port := listenTLS(t, k.TLSConfig(), nil)
	for _, name := range []string{"shop.localhost", "localhost", "a.b.localhost", "nas.local", "127.0.0.1"} {
		c := dial(t, port, &tls.Config{ServerName: name, RootCAs: k.pool()})
		leaf := c.ConnectionState().PeerCertificates[0]
		if d := time.Until(leaf.NotAfter); d > leafLife || d < leafLife/2 {
			t.Errorf("%s: leaf lives %v more", name, d)
		}
		c.Close()
	}
	for _, name := range []string{"evil.com", "nas", "-x.localhost", "x..localhost"} {
		if c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), &tls.Config{ServerName: name, InsecureSkipVerify: true}); err == nil {
			c.Close()
			t.Errorf("%s got a certificate", name)
		}
	}
}

func TestRootMaySignLocalNamesOnly(t *testing.T) {
	k := newKeyring(t, Config{})
	leaf, err := k.local.leaf("bank.com", time.Now()) // a thief of the key would
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leaf.Leaf.Verify(x509.VerifyOptions{DNSName: "bank.com", Roots: k.pool()}); err == nil {
		t.Error("a certificate for bank.com by the local root is believed")
	}
	leaf, err = k.local.leaf("8.8.8.8", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leaf.Leaf.Verify(x509.VerifyOptions{DNSName: "8.8.8.8", Roots: k.pool()}); err == nil {
		t.Error("a certificate for 8.8.8.8 by the local root is believed")
	}
}

func TestRootIsKeptAndItsKeyIsPrivate(t *testing.T) {
	dir := t.TempDir()
	var roots [8]string
	done := make(chan struct{})
	for i := range roots { // several processes start at once
		go func() {
			if k, err := New(Config{Dir: dir, Log: slog.New(slog.DiscardHandler)}); err == nil {
				roots[i] = string(k.Root())
			}
			done <- struct{}{}
		}()
	}
	for range roots {
		<-done
	}
	for _, r := range roots {
		if r == "" || r != roots[0] {
			t.Fatal("processes have different roots")
		}
	}
	if strings.Contains(roots[0], "PRIVATE") {
		t.Error("Root tells the key")
	}
	st, err := os.Stat(filepath.Join(dir, "local", "root.pem"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("root.pem: %v, %v", st.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, "local", "root.pem"), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("damaged root: %v", err)
	}
}

func TestLeavesAreRemadeAndBounded(t *testing.T) {
	k := newKeyring(t, Config{})
	now := time.Now()
	a, _ := k.local.leaf("a.localhost", now)
	if b, _ := k.local.leaf("a.localhost", now.Add(leafLife/2-time.Hour)); a != b {
		t.Error("a young leaf is not used again")
	}
	if b, _ := k.local.leaf("a.localhost", now.Add(leafLife/2+time.Hour)); a == b {
		t.Error("an old leaf is used again")
	}
	for i := range leavesMax + 50 {
		k.local.leaf(fmt.Sprintf("n%d.localhost", i), now)
	}
	if n := len(k.local.leaves); n > leavesMax {
		t.Errorf("%d leaves are kept", n)
	}
}

func TestSessionsResume(t *testing.T) {
	k := newKeyring(t, Config{})
	got := make(chan tls.ConnectionState, 1)
	port := listenTLS(t, k.TLSConfig(), got)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		conf := &tls.Config{ServerName: "shop.localhost", RootCAs: k.pool(), ClientSessionCache: tls.NewLRUClientSessionCache(4), MaxVersion: version}
		for i := range 2 {
			c := dial(t, port, conf)
			io.ReadAll(c)
			c.Close()
			if st := <-got; st.DidResume != (i == 1 && version == tls.VersionTLS13) {
				t.Errorf("version %x, handshake %d: resumed %v", version, i, st.DidResume)
			}
		}
	}
	if c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), &tls.Config{ServerName: "shop.localhost", RootCAs: k.pool(), MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		c.Close()
		t.Error("TLS 1.1 is spoken")
	}
}

func TestClientCertificates(t *testing.T) {
	k := newKeyring(t, Config{})
	staff, other := newKeyring(t, Config{}), newKeyring(t, Config{})
	k.SetClientCAs("Admin.localhost", staff.pool())
	got := make(chan tls.ConnectionState, 1)
	port := listenTLS(t, k.TLSConfig(), got)
	card := func(of *Keyring) tls.Certificate {
		c, err := of.local.sign("carol.localhost", time.Now(), x509.ExtKeyUsageClientAuth)
		if err != nil {
			t.Fatal(err)
		}
		return *c
	}
	cache := tls.NewLRUClientSessionCache(4)
	for _, c := range []struct {
		host  string
		cert  *Keyring
		shown bool
	}{
		{"admin.localhost", staff, true}, {"admin.localhost", nil, false}, {"admin.localhost", staff, true}, {"shop.localhost", staff, false}, {"shop.localhost", other, false},
	} {
		conf := &tls.Config{ServerName: c.host, RootCAs: k.pool(), ClientSessionCache: cache}
		if c.cert != nil {
			conf.Certificates = []tls.Certificate{card(c.cert)}
		}
		conn := dial(t, port, conf)
		io.ReadAll(conn)
		conn.Close()
		if st := <-got; len(st.VerifiedChains) != 0 || (len(st.PeerCertificates) > 0) != c.shown {
			t.Errorf("%s: %d chains, %d certificates, want some: %v", c.host, len(st.VerifiedChains), len(st.PeerCertificates), c.shown)
		}
	}
	// Another authority's certificate, forced upon the server, is the route's to refuse; a client is told whose is asked for.
	alien := card(other)
	conf := &tls.Config{ServerName: "admin.localhost", RootCAs: k.pool(), GetClientCertificate: func(asked *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if len(asked.AcceptableCAs) == 0 {
			t.Error("the authorities are not named")
		}
		return &alien, nil
	}}
	dial(t, port, conf).Close()
	if st := <-got; len(st.VerifiedChains) != 0 || len(st.PeerCertificates) == 0 {
		t.Errorf("%d chains, %d certificates", len(st.VerifiedChains), len(st.PeerCertificates))
	}
	k.SetClientCAs("admin.localhost", nil)
	conn := dial(t, port, &tls.Config{ServerName: "admin.localhost", RootCAs: k.pool(), Certificates: []tls.Certificate{card(staff)}})
	conn.Close()
	if st := <-got; len(st.PeerCertificates) != 0 {
		t.Error("a certificate is still asked for")
	}
}

func TestMisdirected(t *testing.T) {
	k := newKeyring(t, Config{})
	k.SetClientCAs("admin.localhost", k.pool())
	for _, c := range []struct {
		sni, authority string
		want           bool
	}{
		{"shop.localhost", "shop.localhost:8443", false}, {"shop.localhost", "SHOP.localhost.", false}, {"shop.localhost", "other.localhost", true},
		{"shop.localhost", "shop.localhost.evil.com", true}, {"shop.localhost", "shop.localhostx", true}, {"shop.localhost", "", true}, {"shop.localhost", "shop.localhost", false},
		{"", "127.0.0.1:8443", false}, {"", "admin.localhost", true}, {"shop.localhost", "admin.localhost", true}, {"admin.localhost", "admin.localhost", false},
	} {
		if k.Misdirected(&tls.ConnectionState{ServerName: c.sni}, c.authority) != c.want {
			t.Errorf("SNI %q, authority %q: misdirected is not %v", c.sni, c.authority, c.want)
		}
	}
	if k.Misdirected(nil, "admin.localhost") {
		t.Error("plain HTTP is misdirected")
	}
}

func TestAHostThatIsNotServedGetsNoCertificate(t *testing.T) {
	k := newKeyring(t, Config{CA: "https://127.0.0.1:1/dir"})
	runKeyring(t, k)
	start := time.Now()
	if _, err := k.certificate(&tls.ClientHelloInfo{ServerName: "elsewhere.com"}); err == nil {
		t.Error("a certificate for a host of others")
	}
	if time.Since(start) > firstWait/2 {
		t.Error("its handshake waits")
	}
}

func TestAnAuthorityOutOfReachRaisesOneAlarm(t *testing.T) {
	dead := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "down", http.StatusServiceUnavailable) }))
	defer dead.Close()
	roots := x509.NewCertPool()
	roots.AddCert(dead.Certificate())
	alarms := make(chan Alarm, 10)
	k := newKeyring(t, Config{CA: dead.URL, CARoots: roots, HTTPPort: 1, Alarm: func(a Alarm) { alarms <- a }})
	k.SetHosts([]string{"shop.tenfold-shop.com", "shop.localhost", "*.tenfold-shop.com"})
	runKeyring(t, k)
	codes := map[string]Alarm{}
	for range 2 {
		select {
		case a := <-alarms:
			codes[a.Host] = a
		case <-time.After(10 * time.Second):
			t.Fatalf("alarms: %v", codes)
		}
	}
	if a := codes["shop.tenfold-shop.com"]; a.Code != "certificate-missing" || a.Cause == "" || a.Hint == "" || !a.Severe {
		t.Errorf("alarm: %+v", a)
	}
	if a := codes["*.tenfold-shop.com"]; a.Code != "certificate-missing" || !strings.Contains(a.Hint, "edge.tls.dns") {
		t.Errorf("alarm: %+v", a)
	}
	if all := k.Faults(); len(all) != 2 || all[0].Host != "*.tenfold-shop.com" || all[1] != codes["shop.tenfold-shop.com"] {
		t.Errorf("faults: %+v", all)
	}
	if _, err := k.certificate(&tls.ClientHelloInfo{ServerName: "shop.tenfold-shop.com"}); err == nil || !strings.Contains(err.Error(), "no certificate yet") {
		t.Errorf("handshake: %v", err)
	}
	k.SetHosts([]string{"shop.localhost"})
	for range 2 {
		select {
		case a := <-alarms:
			if !a.Cleared {
				t.Errorf("alarm: %+v", a)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("alarms of hosts that are gone are not cleared")
		}
	}
	if n, all := len(alarms), k.Faults(); n > 0 || len(all) > 0 {
		t.Errorf("%d alarms more, faults: %+v", n, all)
	}
}

func TestNobodyIsAskedWhatNobodyCouldProve(t *testing.T) {
	asked := make(chan string, 10)
	ca := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked <- r.URL.Path }))
	defer ca.Close()
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate())
	alarms := make(chan Alarm, 10)
	k := newKeyring(t, Config{CA: ca.URL, CARoots: roots, Alarm: func(a Alarm) { alarms <- a }})
	k.SetHosts([]string{"shop.tenfold-shop.com", "nas.local"})
	stop := runKeyring(t, k)
	select {
	case a := <-alarms:
		if a.Host != "shop.tenfold-shop.com" || !strings.Contains(a.Hint, "edge.tls.dns") {
			t.Errorf("alarm: %+v", a)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no alarm")
	}
	stop()
	if len(asked) != 0 {
		t.Errorf("the authority was asked: %s", <-asked)
	}
}

// An attempt that is broken off by the end of the door is no fault of a certificate.
func TestStoppingInAnAttemptRaisesNoAlarm(t *testing.T) {
	asked := make(chan struct{}, 10)
	ca := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	defer ca.Close()
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate())
	alarms := make(chan Alarm, 10)
	k := newKeyring(t, Config{CA: ca.URL, CARoots: roots, TLSPort: 1, Alarm: func(a Alarm) { alarms <- a }})
	k.SetHosts([]string{"shop.tenfold-shop.com"})
	stop := runKeyring(t, k)
	<-asked
	// Meanwhile a handshake waits, and ends with its client.
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { _, err := k.first(ctx, "shop.tenfold-shop.com"); ended <- err }()
	cancel()
	if err := <-ended; err == nil {
		t.Error("a certificate from nowhere")
	}
	start := time.Now()
	stop()
	if d := time.Since(start); d > 4*time.Second {
		t.Errorf("stopping took %v", d)
	}
	if len(alarms) != 0 {
		t.Errorf("alarm: %+v", <-alarms)
	}
}

func TestHTTPHandlerLeavesOthersAlone(t *testing.T) {
	k := newKeyring(t, Config{HTTPPort: 1})
	h := k.HTTPHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(308) }))
	ask := func(path string) int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "http://shop.tenfold-shop.com"+path, nil))
		return w.Code
	}
	runKeyring(t, k)
	for _, path := range []string{"/", "/.well-known/acme-challenge/unknown", "/.well-known/security.txt"} {
		if got := ask(path); got != 308 {
			t.Errorf("%s: %d", path, got)
		}
	}
}

func TestRunTwice(t *testing.T) {
	k := newKeyring(t, Config{})
	runKeyring(t, k)
	if err := k.Run(context.Background(), func() {}); err == nil {
		t.Error("two runs at once")
	}
}
