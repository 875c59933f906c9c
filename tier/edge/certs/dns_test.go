package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-acme/lego/v5/challenge/dns01"
	rfc8555 "github.com/mholt/acmez/v3/acme"
	"github.com/miekg/dns"

	"tenfold"
)

// nameServer is the authority of one zone, takes dynamic updates and knows every host's address.
type nameServer struct {
	zone, addr string
	mu         sync.Mutex
	txt        map[string][]string
}

const testSecret = "c2VjcmV0IG9mIHRoZSB0ZXN0cw=="

func startNameServer(t *testing.T, zone string) *nameServer {
	t.Helper()
	s := &nameServer{zone: zone, txt: map[string][]string{}}
	// The same port for both protocols, as DNS has it: another try when TCP's is taken in UDP.
	var tcp net.Listener
	var udp net.PacketConn
	var err error
	for range 20 {
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
	s.addr = tcp.Addr().String()
	secrets := map[string]string{"tenfold.": testSecret}
	for _, srv := range []*dns.Server{
		{Listener: tcp, Handler: s, TsigSecret: secrets, MsgAcceptFunc: acceptUpdates},
		{PacketConn: udp, Handler: s, TsigSecret: secrets, MsgAcceptFunc: acceptUpdates},
	} {
		done := make(chan struct{})
		up := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(up) }
		go func() { defer close(done); srv.ActivateAndServe() }()
		<-up
		t.Cleanup(func() { srv.Shutdown(); <-done })
	}
	return s
}

func acceptUpdates(dh dns.Header) dns.MsgAcceptAction {
	if int(dh.Bits>>11)&0xF == dns.OpcodeUpdate {
		return dns.MsgAccept
	}
	return dns.DefaultMsgAcceptFunc(dh)
}

func (s *nameServer) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg).SetReply(r)
	m.Authoritative = true
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Opcode == dns.OpcodeUpdate {
		if r.IsTsig() == nil || w.TsigStatus() != nil {
			m.Rcode = dns.RcodeNotAuth
			w.WriteMsg(m)
			return
		}
		for _, rr := range r.Ns {
			name := strings.ToLower(rr.Header().Name)
			if txt, ok := rr.(*dns.TXT); ok && rr.Header().Class == dns.ClassINET {
				s.txt[name] = append(s.txt[name], txt.Txt[0])
			} else {
				delete(s.txt, name)
			}
		}
		m.SetTsig("tenfold.", dns.HmacSHA256, 300, time.Now().Unix())
		w.WriteMsg(m)
		return
	}
	for _, q := range r.Question {
		name := strings.ToLower(q.Name)
		if q.Qtype != dns.TypeA && !dns.IsSubDomain(s.zone, name) {
			m.Rcode = dns.RcodeRefused
			break
		}
		h := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET}
		soa := &dns.SOA{Hdr: dns.RR_Header{Name: s.zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET}, Ns: "ns." + s.zone, Mbox: "a." + s.zone}
		switch {
		case q.Qtype == dns.TypeA:
			m.Answer = append(m.Answer, &dns.A{Hdr: h, A: net.IPv4(127, 0, 0, 1)})
		case q.Qtype == dns.TypeTXT:
			for _, v := range s.txt[name] {
				m.Answer = append(m.Answer, &dns.TXT{Hdr: h, Txt: []string{v}})
			}
		case q.Qtype == dns.TypeSOA && name == s.zone:
			m.Answer = append(m.Answer, soa)
		default:
			m.Ns = append(m.Ns, soa)
		}
	}
	w.WriteMsg(m)
}

func (s *nameServer) values(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.txt[name])
}

// credentials are those of the name server for rfc2136.
func (s *nameServer) credentials() string {
	return "dns://tenfold:" + url.QueryEscape(testSecret) + "@" + s.addr
}

func TestRFC2136UpdatesAZone(t *testing.T) {
	s := startNameServer(t, "tenfold-shop.com.")
	p, err := BuiltinDNS.Open(DNS{"rfc2136", s.credentials()})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Present(t.Context(), "preview.tenfold-shop.com", "t", "k"); err != nil {
		t.Fatal(err)
	}
	if n := s.values("_acme-challenge.preview.tenfold-shop.com."); n != 1 {
		t.Fatalf("the zone has %d records, want 1", n)
	}
	if err := p.CleanUp(t.Context(), "preview.tenfold-shop.com", "t", "k"); err != nil {
		t.Fatal(err)
	}
	if n := s.values("_acme-challenge.preview.tenfold-shop.com."); n != 0 {
		t.Fatalf("the zone has %d records, want none", n)
	}
	// An unsigned update is refused, and the refusal is told.
	p, err = BuiltinDNS.Open(DNS{"rfc2136", "dns://" + s.addr})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Present(t.Context(), "tenfold-shop.com", "t", "k"); err == nil || !strings.Contains(err.Error(), "NOTAUTH") {
		t.Fatalf("unsigned update: %v", err)
	}
	// So is one of a zone that is another's.
	if err := p.Present(t.Context(), "elsewhere.com", "t", "k"); err == nil || !strings.Contains(err.Error(), "zone of _acme-challenge.elsewhere.com") {
		t.Fatalf("another's zone: %v", err)
	}
}

func TestDNSCredentials(t *testing.T) {
	for _, c := range []DNS{
		{"rfc2136", ""}, {"rfc2136", "hunter2"}, {"rfc2136", "http://a:b@c"}, {"rfc2136", "dns://"}, {"rfc2136", "dns://hunter2@c"}, {"rfc2136", "dns://a:hunter2@%zz"},
		{"cloudflare", " \n"}, {"cloudflare", "hunter2 hunter2"}, {"digitalocean", "DO_AUTH_TOKEN=hunter2"}, {"hetzner", "hunter2\nhunter2"}, {"gandiv5", "GANDIV5_TOKEN=hunter2"},
		{"route53", "hunter2"}, {"route53", "AWS_ACCESS_KEY_ID=a"}, {"route53", "AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY="}, {"route53", "AWS_PROFILE=hunter2"},
		{"ovh", "OVH_ENDPOINT=hunter2\nOVH_APPLICATION_KEY=a\nOVH_APPLICATION_SECRET=b\nOVH_CONSUMER_KEY=c"}, {"ovh", "OVH_ENDPOINT=ovh-eu\nOVH_APPLICATION_KEY=hunter2"},
		{"route54", "hunter2"},
	} {
		_, err := BuiltinDNS.Open(c)
		if err == nil {
			t.Errorf("%q of %s is taken for credentials", c.Credentials, c.Provider)
		} else if !strings.Contains(err.Error(), c.Provider) || strings.Contains(strings.TrimPrefix(err.Error(), "DNS provider ovh: ovh: new client: unknown endpoint 'hunter2'"), "hunter2") {
			t.Errorf("%s: %v", c.Provider, err)
		}
	}
	for _, c := range []DNS{
		{"cloudflare", "abcdefgh\n"}, {"digitalocean", "abcdefgh"}, {"hetzner", "abcdefgh"}, {"gandiv5", "abc=defgh=="},
		{"route53", "# of the shop\nAWS_ACCESS_KEY_ID=AKIA\nAWS_SECRET_ACCESS_KEY = \"a/b=\"\n"}, {"route53", "AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b\nAWS_REGION=eu-west-1\nAWS_HOSTED_ZONE_ID=Z1"},
		{"ovh", "OVH_ENDPOINT=ovh-eu\nOVH_APPLICATION_KEY=a\nOVH_APPLICATION_SECRET=b\nOVH_CONSUMER_KEY=c"},
	} {
		if _, err := BuiltinDNS.Open(c); err != nil {
			t.Error(err)
		}
	}
	if got := fmt.Sprintf("%v %+v %#v", DNS{"cloudflare", "hunter2"}, DNS{"cloudflare", "hunter2"}, DNS{"cloudflare", "hunter2"}); strings.Contains(got, "hunter2") {
		t.Errorf("printed: %s", got)
	}
}

// TestTheManifestKnowsTheProviders: it cannot import this package, so it has a list of its own.
func TestTheManifestKnowsTheProviders(t *testing.T) {
	if have := slices.Sorted(maps.Keys(BuiltinDNS)); !slices.Equal(have, tenfold.DNSProviders) {
		t.Errorf("providers %v, the manifest takes %v", have, tenfold.DNSProviders)
	}
}

// cloud is the API of DigitalOcean, as lego speaks with it, before the name server.
type cloud struct {
	names *nameServer
	token string

	mu      sync.Mutex
	asked   int
	records map[string]string // id to name
}

func startCloud(t *testing.T, names *nameServer, token string) (*cloud, func(string) (DNSProvider, error)) {
	t.Helper()
	c := &cloud{names: names, token: token, records: map[string]string{}}
	s := httptest.NewServer(c)
	t.Cleanup(s.Close)
	before := dns01.DefaultClient() // finds zones, for all of lego's providers
	dns01.SetDefaultClient(dns01.NewClient(&dns01.Options{RecursiveNameservers: []string{names.addr}, Timeout: 5 * time.Second}))
	t.Cleanup(func() { dns01.SetDefaultClient(before) })
	return c, newDigitalOceanAt(s.URL)
}

func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if got := r.Header.Get("Authorization"); got != "Bearer "+c.token {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"id":"Unauthorized","message":"no such token: %s"}`, strings.TrimPrefix(got, "Bearer ")) // as bad as it can be
		return
	}
	c.names.mu.Lock()
	defer c.names.mu.Unlock()
	switch id := strconv.Itoa(c.asked); r.Method {
	case http.MethodPost:
		var rec struct{ Name, Data string }
		json.NewDecoder(r.Body).Decode(&rec)
		name := strings.ToLower(dns.Fqdn(rec.Name))
		c.names.txt[name] = append(c.names.txt[name], rec.Data)
		c.records[id] = name
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"domain_record":{"id":%s,"type":"TXT","name":%q,"data":%q,"ttl":120}}`, id, rec.Name, rec.Data)
	case http.MethodDelete:
		delete(c.names.txt, c.records[path.Base(r.URL.Path)])
		w.WriteHeader(http.StatusNoContent)
	}
}

func TestAProviderOfLego(t *testing.T) {
	names := startNameServer(t, "tenfold-shop.com.")
	c, mk := startCloud(t, names, "right-token")
	all := DNSProviders{"digitalocean": mk}
	p, err := all.Open(DNS{"digitalocean", "right-token"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Present(t.Context(), "preview.tenfold-shop.com", "t", "k"); err != nil {
		t.Fatal(err)
	}
	if n := names.values("_acme-challenge.preview.tenfold-shop.com."); n != 1 {
		t.Fatalf("the zone has %d records, want 1", n)
	}
	if err := p.CleanUp(t.Context(), "preview.tenfold-shop.com", "t", "k"); err != nil {
		t.Fatal(err)
	}
	if n := names.values("_acme-challenge.preview.tenfold-shop.com."); n != 0 || c.asked != 2 {
		t.Fatalf("the zone has %d records, want none; %d calls", n, c.asked)
	}
	// The service repeats the token in its refusal; the error does not.
	p, err = all.Open(DNS{"digitalocean", "wrong-token"})
	if err != nil {
		t.Fatal(err)
	}
	err = p.Present(t.Context(), "preview.tenfold-shop.com", "t", "k")
	if err == nil || !strings.Contains(err.Error(), "no such token: …") || strings.Contains(err.Error(), "wrong-token") {
		t.Fatalf("refused: %v", err)
	}
}

func TestTheRecordIsAwaited(t *testing.T) {
	names := startNameServer(t, "tenfold-shop.com.")
	k := newKeyring(t, Config{Resolvers: []string{names.addr}, dnsWait: time.Second})
	s := &dnsSolver{k: k, shown: map[string]DNSProvider{}}
	c := rfc8555.Challenge{Identifier: rfc8555.Identifier{Value: "tenfold-shop.com"}, Token: "t", KeyAuthorization: "k"}
	if err := s.Wait(t.Context(), c); err == nil || !strings.Contains(err.Error(), "_acme-challenge.tenfold-shop.com is not seen at "+names.addr) {
		t.Errorf("without the record: %v", err)
	}
	p, _ := NewRFC2136(names.credentials())
	time.AfterFunc(300*time.Millisecond, func() { p.Present(context.Background(), "tenfold-shop.com", "t", "k") })
	if err := s.Wait(t.Context(), c); err != nil {
		t.Errorf("with it: %v", err)
	}
	// Asked at the provider's own server, where nobody said who to ask.
	k.cfg.Resolvers = nil
	s.shown["tenfold-shop.com t"] = discreet{DNSProvider: p}
	if err := s.Wait(t.Context(), c); err != nil {
		t.Errorf("at the provider's server: %v", err)
	}
	// Where nobody answers, the authority has the last word.
	k.cfg.Resolvers = []string{"127.0.0.1:1"}
	if err := s.Wait(t.Context(), c); err != nil {
		t.Errorf("without an answer: %v", err)
	}
}

// TestEachHostHasItsProvider: unusable credentials are a fault of those who have them, and of nobody
// else; other credentials are taken while it runs.
func TestEachHostHasItsProvider(t *testing.T) {
	ca := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "down", http.StatusServiceUnavailable) }))
	defer ca.Close()
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate())
	alarms := make(chan Alarm, 20)
	k := newKeyring(t, Config{CA: ca.URL, CARoots: roots, Alarm: func(a Alarm) { alarms <- a }})
	k.SetContact("ops@tenfold-shop.com")
	k.SetDNS(map[string]DNS{"*.preview.tenfold-shop.com": {"cloudflare", "hunter2 hunter2"}, "www.tenfold-shop.com": {"hetzner", "a-token"}})
	k.SetHosts([]string{"*.preview.tenfold-shop.com", "www.tenfold-shop.com", "*.tenfold-shop.net"})
	runKeyring(t, k)
	got := map[string]Alarm{}
	next := func(n int) {
		t.Helper()
		clear(got)
		for range n {
			select {
			case a := <-alarms:
				got[a.Host] = a
			case <-time.After(10 * time.Second):
				t.Fatalf("alarms: %v", got)
			}
		}
	}
	next(3)
	if a := got["*.preview.tenfold-shop.com"]; !strings.Contains(a.Cause, "DNS provider cloudflare") || strings.Contains(a.Cause, "hunter2") || !strings.Contains(a.Hint, "edge.tls.dns.cloudflare") {
		t.Errorf("unusable credentials: %+v", a)
	}
	if a := got["*.tenfold-shop.net"]; !strings.Contains(a.Hint, "name a provider") {
		t.Errorf("no provider: %+v", a)
	}
	if a := got["www.tenfold-shop.com"]; !strings.Contains(a.Cause, "503") {
		t.Errorf("an authority that is down: %+v", a)
	}
	begun := time.Now() // a visitor does not wait for what cannot come
	if _, err := k.certificate(&tls.ClientHelloInfo{ServerName: "b.preview.tenfold-shop.com"}); err == nil || !strings.Contains(err.Error(), "cloudflare") || time.Since(begun) > firstWait/2 {
		t.Errorf("a name below the wildcard: %v after %v", err, time.Since(begun))
	}
	a := k.acme
	if _, by, err := a.configOf("www.tenfold-shop.com"); err != nil || by.Provider != "hetzner" {
		t.Errorf("without ports: %v, %v", by, err)
	}
	if w := a.ways.Load(); w.issuer.Email != "ops@tenfold-shop.com" {
		t.Errorf("contact %q", w.issuer.Email)
	}
	k.SetDNS(map[string]DNS{"*.preview.tenfold-shop.com": {"cloudflare", "right-token"}, "www.tenfold-shop.com": {"hetzner", "a-token"}})
	k.SetContact("")
	k.SetHosts([]string{"*.preview.tenfold-shop.com", "www.tenfold-shop.com", "*.tenfold-shop.net", "a.preview.tenfold-shop.com"})
	eventually(t, 10*time.Second, "the new credentials are used", func() bool {
		for _, s := range k.Status() {
			if s.Host == "*.preview.tenfold-shop.com" {
				return s.LastError != nil && strings.Contains(s.LastError.Error(), "503")
			}
		}
		return false
	})
	if all := k.public(); slices.Contains(all, "a.preview.tenfold-shop.com") {
		t.Errorf("a name below a wildcard gets a certificate of its own: %v", all)
	}
	if len(k.opened) != 2 {
		t.Errorf("%d providers are open", len(k.opened))
	}
}

func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(within)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}
