//go:build scenario

package test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// zone is a name server for tenfold-shop.com: dynamic updates, signed; every host is this machine.
type zone struct {
	addr string
	mu   sync.Mutex
	txt  map[string][]string
}

const (
	zoneName = "tenfold-shop.com."
	zoneKey  = "c2VjcmV0IG9mIHRoZSB0ZXN0cw=="
)

func newZone(t *testing.T) *zone {
	t.Helper()
	z := &zone{txt: map[string][]string{}}
	var tcp net.Listener
	var udp net.PacketConn
	var err error
	for range 20 { // the same port for both
		if tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if udp, err = net.ListenPacket("udp", tcp.Addr().String()); err == nil {
			break
		}
		tcp.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	z.addr = tcp.Addr().String()
	accept := func(h dns.Header) dns.MsgAcceptAction {
		if int(h.Bits>>11)&0xF == dns.OpcodeUpdate {
			return dns.MsgAccept
		}
		return dns.DefaultMsgAcceptFunc(h)
	}
	for _, s := range []*dns.Server{{Listener: tcp}, {PacketConn: udp}} {
		s.Handler, s.TsigSecret, s.MsgAcceptFunc = z, map[string]string{"tenfold.": zoneKey}, accept
		up, done := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go func() { defer close(done); s.ActivateAndServe() }()
		<-up
		t.Cleanup(func() { s.Shutdown(); <-done })
	}
	return z
}

func (z *zone) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg).SetReply(r)
	m.Authoritative = true
	z.mu.Lock()
	defer z.mu.Unlock()
	if r.Opcode == dns.OpcodeUpdate {
		if r.IsTsig() == nil || w.TsigStatus() != nil {
			m.Rcode = dns.RcodeNotAuth
			w.WriteMsg(m)
			return
		}
		for _, rr := range r.Ns {
			name := strings.ToLower(rr.Header().Name)
			if txt, ok := rr.(*dns.TXT); ok && rr.Header().Class == dns.ClassINET {
				z.txt[name] = append(z.txt[name], txt.Txt[0])
			} else {
				delete(z.txt, name)
			}
		}
		m.SetTsig("tenfold.", dns.HmacSHA256, 300, time.Now().Unix())
		w.WriteMsg(m)
		return
	}
	q := r.Question[0]
	h := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET}
	soa := &dns.SOA{Hdr: dns.RR_Header{Name: zoneName, Rrtype: dns.TypeSOA, Class: dns.ClassINET}, Ns: "ns." + zoneName, Mbox: "a." + zoneName}
	switch name := strings.ToLower(q.Name); {
	case q.Qtype == dns.TypeA:
		m.Answer = append(m.Answer, &dns.A{Hdr: h, A: net.IPv4(127, 0, 0, 1)})
	case q.Qtype == dns.TypeTXT && len(z.txt[name]) > 0:
		for _, v := range z.txt[name] {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: h, Txt: []string{v}})
		}
	case q.Qtype == dns.TypeSOA && name == zoneName:
		m.Answer = append(m.Answer, soa)
	default:
		m.Ns = append(m.Ns, soa)
	}
	w.WriteMsg(m)
}

// authority is a Pebble: it validates at tlsPort and asks z. What it is believed by is in the file ca.
func authority(t *testing.T, z *zone, tlsPort int) (directory, ca string) {
	t.Helper()
	bin, err := exec.LookPath("pebble")
	if err != nil {
		if bin, err = filepath.Abs("../bin/tools/pebble"); err == nil {
			_, err = os.Stat(bin)
		}
	}
	if err != nil {
		t.Skip("no pebble, which make conformance installs")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	ca = write("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	listen := fmt.Sprintf("127.0.0.1:%d", port(t))
	conf, _ := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": listen, "managementListenAddress": fmt.Sprintf("127.0.0.1:%d", port(t)), "certificate": ca,
		"privateKey": write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})),
		"httpPort":   1, "tlsPort": tlsPort, "keyAlgorithm": "ecdsa", "retryAfter": map[string]int{"authz": 1, "order": 1},
		"profiles": map[string]any{"default": map[string]any{"description": "of the test", "validityPeriod": 90 * 24 * 3600}},
	}})
	cmd := exec.Command(bin, "-config", write("config.json", conf), "-dnsserver", z.addr)
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("pebble:\n%s", out.String())
		}
	})
	return "https://" + listen + "/dir", ca
}

func port(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// shown is the certificate that the door shows for a name; nil: none.
func shown(addr, name string) *x509.Certificate {
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: &tls.Config{ServerName: name, InsecureSkipVerify: true}} // whose it is, is looked at
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return nil
	}
	defer c.Close()
	return c.(*tls.Conn).ConnectionState().PeerCertificates[0]
}

func (h *house) setSecret(app, name, value string) {
	h.t.Helper()
	cmd := exec.Command(h.bin, "--data", h.dir, "secrets", "set", name, "--app", app)
	cmd.Stdin = strings.NewReader(value)
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("set %s: %v\n%s", name, err, out)
	}
}

// One certificate, proven by DNS, serves all previews. Credentials that are no good are told, those that
// are set anew are used without a restart, and nobody reads either.
func TestPreviewsShareAWildcardCertificate(t *testing.T) {
	z, tlsPort := newZone(t), port(t)
	directory, ca := authority(t, z, tlsPort)
	t.Setenv("SSL_CERT_FILE", ca) // for the house's processes, which inherit it
	h := newHouse(t)
	secure := fmt.Sprintf("127.0.0.1:%d", tlsPort)
	write(t, h.dir, map[string]string{"house.json": fmt.Sprintf(`{"listen": "127.0.0.1:0", "tls": %q, "acme": %q}`, secure, directory)})
	dir := write(t, t.TempDir(), map[string]string{"index.html": "x", "tenfold.yaml": `app: shop
domain: shop.tenfold-shop.com
contact: ops@tenfold-shop.com
frontends: {web: {path: ., build: false}}
environments:
  preview: {secrets: [DNS_KEY], domain: "*.preview.tenfold-shop.com", edge: {tls: {dns: {rfc2136: DNS_KEY}}}}
`})
	credentials := func(key string) string {
		return "dns://tenfold:" + url.QueryEscape(key) + "@" + z.addr
	}
	h.must(dir, "up", "--detach")
	eventually(t, "production has its own, by a port", 30*time.Second, func() bool {
		c := shown(secure, "shop.tenfold-shop.com")
		return c != nil && strings.Contains(c.Issuer.CommonName, "Pebble") && c.VerifyHostname("shop.tenfold-shop.com") == nil
	})
	a := []string{"up", "--detach", "--env", "preview/a"}
	if out, code := h.runIn(dir, a...); code == 0 || !strings.Contains(out, "DNS_KEY") || !strings.Contains(out, "tenfold secrets set") {
		t.Fatalf("without the secret: exit %d\n%s", code, out)
	}
	h.setSecret("shop", "DNS_KEY", "tenfold:aHVudGVyMg==")
	if out, code := h.runIn(dir, a...); code == 0 || !strings.Contains(out, "edge.tls.dns.rfc2136: secret DNS_KEY") || !strings.Contains(out, "tenfold secrets set DNS_KEY") || strings.Contains(out, "aHVudGVyMg") {
		t.Fatalf("a secret of the wrong form: exit %d\n%s", code, out)
	}
	h.setSecret("shop", "DNS_KEY", credentials("aHVudGVyMg=="))
	h.must(dir, a...)
	eventually(t, "status tells of credentials that are refused", 30*time.Second, func() bool {
		out := h.must(dir, "status", "--env", "preview/a")
		return strings.Contains(out, "*.preview.tenfold-shop.com") && strings.Contains(out, "DNS provider rfc2136") && strings.Contains(out, "NOTAUTH") && strings.Contains(out, "hint:")
	})
	eventually(t, "an event tells", 40*time.Second, func() bool {
		return strings.Contains(h.must(dir, "events", "--env", "preview/a"), "*.preview.tenfold-shop.com has no certificate")
	})
	h.setSecret("shop", "DNS_KEY", credentials(zoneKey))
	h.must(dir, a...)
	var first *x509.Certificate
	eventually(t, "the new credentials are used", 30*time.Second, func() bool {
		first = shown(secure, "a.preview.tenfold-shop.com")
		return first != nil
	})
	if first.VerifyHostname("a.preview.tenfold-shop.com") != nil || len(first.DNSNames) != 1 || first.DNSNames[0] != "*.preview.tenfold-shop.com" {
		t.Errorf("certificate of %v", first.DNSNames)
	}
	h.must(dir, "up", "--detach", "--env", "preview/b")
	if c := shown(secure, "b.preview.tenfold-shop.com"); c == nil || c.SerialNumber.Cmp(first.SerialNumber) != 0 {
		t.Error("another preview has another certificate")
	}
	eventually(t, "status is in order", 30*time.Second, func() bool {
		out := h.must(dir, "status", "--env", "preview/b")
		return strings.Contains(out, "certificate of *.preview.tenfold-shop.com: by Pebble") && !strings.Contains(out, "hint:")
	})
	// The account has the contact; no log and no record has the credentials, but the door's snapshot.
	contact := false
	filepath.WalkDir(h.dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil
		}
		contact = contact || strings.Contains(p, "users/ops@tenfold-shop.com")
		b, _ := os.ReadFile(p)
		for _, s := range []string{zoneKey, url.QueryEscape(zoneKey), "aHVudGVyMg"} {
			if bytes.Contains(b, []byte(s)) && e.Name() != "directory.json" {
				t.Errorf("%s holds credentials", p)
			}
		}
		return nil
	})
	if !contact {
		t.Error("the account has no contact")
	}
	if out := h.must(dir, "events", "--env", "preview/a"); strings.Contains(out, "aHVudGVyMg") || strings.Contains(out, zoneKey) {
		t.Errorf("events tell the credentials:\n%s", out)
	}
}
