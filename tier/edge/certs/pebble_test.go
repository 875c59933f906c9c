//go:build conformance

package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const pebbleHow = "go install github.com/letsencrypt/pebble/v2/cmd/pebble@latest"

// pebble is a running ACME authority that rejects 5 % of nonces.
type pebble struct {
	directory string
	roots     *x509.CertPool // of its HTTPS
	dir       string
	manage    string
}

func findPebble(t *testing.T) string {
	t.Helper()
	if p, err := exec.LookPath("pebble"); err == nil {
		return p
	}
	out, _ := exec.Command("go", "env", "GOPATH").Output()
	p := filepath.Join(strings.TrimSpace(string(out)), "bin", "pebble")
	if _, err := os.Stat(p); err != nil {
		t.Skip("pebble is not installed: " + pebbleHow)
	}
	return p
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// startPebble validates at httpPort and tlsPort of 127.0.0.1, and issues certificates of that life.
func startPebble(t *testing.T, resolver string, httpPort, tlsPort int, life time.Duration) *pebble {
	t.Helper()
	bin := findPebble(t)
	dir := t.TempDir()
	ca, err := openLocalCA(filepath.Join(dir, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.leaf("127.0.0.1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := &pebble{roots: x509.NewCertPool(), dir: dir}
	p.roots.AddCert(ca.cert)
	listen, manage := freePort(t), freePort(t)
	p.directory = fmt.Sprintf("https://127.0.0.1:%d/dir", listen)
	p.manage = fmt.Sprintf("https://127.0.0.1:%d", manage)
	conf, _ := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": fmt.Sprintf("127.0.0.1:%d", listen), "managementListenAddress": fmt.Sprintf("127.0.0.1:%d", manage),
		"certificate": write("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]})),
		"privateKey":  write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
		"httpPort":    httpPort, "tlsPort": tlsPort, "keyAlgorithm": "ecdsa",
		"retryAfter": map[string]int{"authz": 1, "order": 1},
		"profiles":   map[string]any{"default": map[string]any{"description": "of the test", "validityPeriod": int(life.Seconds())}},
	}})
	cmd := exec.Command(bin, "-config", write("config.json", conf), "-dnsserver", resolver)
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=5")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("pebble:\n%s", log.String())
		}
	})
	client := p.client()
	eventually(t, 10*time.Second, "pebble answers", func() bool {
		r, err := client.Get(p.directory)
		if err == nil {
			r.Body.Close()
		}
		return err == nil
	})
	return p
}

func (p *pebble) client() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.roots}, DisableKeepAlives: true}}
}

// issued are the roots of the certificates that it issues.
func (p *pebble) issued(t *testing.T) *x509.CertPool {
	t.Helper()
	r, err := p.client().Get(p.manage + "/roots/0")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		t.Fatal("no root")
	}
	return pool
}

// door serves what the lead's door would: HTTPHandler and TLSConfig.
func serveDoor(t *testing.T, k *Keyring, httpPort, tlsPort int) {
	t.Helper()
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	var servers []*http.Server
	for _, one := range []struct {
		port int
		tls  bool
	}{{httpPort, false}, {tlsPort, true}} {
		if one.port == 0 {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", one.port))
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: k.HTTPHandler(hello), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
		servers = append(servers, s)
		if one.tls {
			l = tls.NewListener(l, k.TLSConfig())
		}
		go s.Serve(l)
	}
	t.Cleanup(func() {
		for _, s := range servers {
			s.Close()
		}
	})
}

func TestConformancePebble(t *testing.T) {
	for _, c := range []struct {
		name      string
		http, tls bool
		host      string
		provider  string
	}{
		{"HTTP-01", true, false, "shop.tenfold-shop.com", ""},
		{"TLS-ALPN-01", false, true, "shop.tenfold-shop.com", ""},
		{"DNS-01 of a wildcard", true, true, "*.preview.tenfold-shop.com", "rfc2136"},
		{"DNS-01 without ports", false, false, "shop.tenfold-shop.com", "rfc2136"},
		{"DNS-01 by a provider of lego", true, true, "*.preview.tenfold-shop.com", "digitalocean"},
	} {
		t.Run(c.name, func(t *testing.T) {
			names := startNameServer(t, "tenfold-shop.com.")
			httpPort, tlsPort := freePort(t), freePort(t)
			p := startPebble(t, names.addr, httpPort, tlsPort, 90*24*time.Hour)
			cfg := Config{Dir: t.TempDir(), CA: p.directory, CARoots: p.roots, ListenHost: "127.0.0.1", Log: testLog(t)}
			if c.provider == "digitalocean" {
				_, mk := startCloud(t, names, names.credentials())
				cfg.providers, cfg.Resolvers = DNSProviders{c.provider: mk}, []string{names.addr} // a service has other name servers
			}
			if c.http {
				cfg.HTTPPort = httpPort
			}
			if c.tls {
				cfg.TLSPort = tlsPort
			}
			k, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			serveDoor(t, k, httpPort, tlsPort)
			dns := map[string]DNS{}
			if c.provider != "" {
				dns[c.host] = DNS{c.provider, names.credentials()}
			}
			k.SetContact("ops@tenfold-shop.com")
			k.SetDNS(dns)
			k.SetHosts([]string{c.host, "shop.localhost"})
			start := time.Now()
			stop := runKeyring(t, k)
			host := strings.Replace(c.host, "*", "a", 1)
			// The first visitor's handshake waits for the certificate.
			roots := p.issued(t)
			conn := dial(t, tlsPort, &tls.Config{ServerName: host, RootCAs: roots})
			took := time.Since(start)
			t.Logf("%s: certificate after %v", c.name, took.Round(time.Millisecond))
			if took > 10*time.Second {
				t.Errorf("the certificate took %v", took)
			}
			first := conn.ConnectionState().PeerCertificates[0]
			conn.Close()
			st := k.Status()
			if len(st) != 2 || st[0].LastError != nil && st[1].LastError != nil || !strings.Contains(st[0].Issuer+st[1].Issuer, "Pebble") {
				t.Errorf("status: %+v", st)
			}
			for _, s := range st {
				t.Logf("%s by %s until %s, renewal %s", s.Host, s.Issuer, s.NotAfter, s.Renewal)
			}
			// After a restart it is served from disk, before anybody is asked.
			stop()
			again, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			again.SetDNS(dns)
			again.SetHosts([]string{c.host})
			runKeyring(t, again)
			leaf, err := again.certificate(&tls.ClientHelloInfo{ServerName: host})
			if err != nil || leaf.Leaf.SerialNumber.Cmp(first.SerialNumber) != 0 {
				t.Errorf("after a restart: %v", err)
			}
		})
	}
}

func TestConformancePebbleRenewsWhileServing(t *testing.T) {
	names := startNameServer(t, "tenfold-shop.com.")
	httpPort, tlsPort := freePort(t), freePort(t)
	p := startPebble(t, names.addr, httpPort, tlsPort, 20*time.Second)
	k, err := New(Config{Dir: t.TempDir(), CA: p.directory, CARoots: p.roots, ListenHost: "127.0.0.1", HTTPPort: httpPort, TLSPort: tlsPort, Log: testLog(t), checkEvery: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	serveDoor(t, k, httpPort, tlsPort)
	k.SetHosts([]string{"shop.tenfold-shop.com"})
	runKeyring(t, k)
	conf := &tls.Config{ServerName: "shop.tenfold-shop.com", RootCAs: p.issued(t)}
	dial(t, tlsPort, conf).Close()

	var seen sync.Map
	var n, count atomic.Int64
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil && count.Load() < 3 {
				c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", tlsPort), conf)
				if err != nil {
					t.Errorf("handshake: %v", err)
					return
				}
				n.Add(1)
				if _, had := seen.LoadOrStore(c.ConnectionState().PeerCertificates[0].SerialNumber.String(), true); !had {
					count.Add(1)
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	t.Logf("%d handshakes, %d certificates, no failure", n.Load(), count.Load())
	if count.Load() < 3 {
		t.Errorf("%d certificates seen in 60 s, want 3", count.Load())
	}
}

// Nothing answers on the port of the challenge: the alarm says so.
func TestConformancePebbleFailureSaysWhy(t *testing.T) {
	names := startNameServer(t, "tenfold-shop.com.")
	nowhere, tlsPort := freePort(t), freePort(t)
	p := startPebble(t, names.addr, nowhere, nowhere, time.Hour)
	alarms := make(chan Alarm, 10)
	k, err := New(Config{Dir: t.TempDir(), CA: p.directory, CARoots: p.roots, ListenHost: "127.0.0.1", TLSPort: tlsPort, Log: testLog(t), Alarm: func(a Alarm) { alarms <- a }})
	if err != nil {
		t.Fatal(err)
	}
	serveDoor(t, k, 0, tlsPort)
	k.SetHosts([]string{"shop.tenfold-shop.com"})
	runKeyring(t, k)
	select {
	case a := <-alarms:
		t.Logf("%s: %s; %s", a.Title, a.Cause, a.Hint)
		if a.Code != "certificate-missing" || !strings.Contains(a.Cause, "connect") || !strings.Contains(a.Hint, "firewall") {
			t.Errorf("alarm: %+v", a)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("no alarm")
	}
}
