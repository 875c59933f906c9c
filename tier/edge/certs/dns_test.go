package certs

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"
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

func TestRFC2136UpdatesAZone(t *testing.T) {
	s := startNameServer(t, "tenfold-shop.com.")
	p, err := BuiltinDNS.Open("rfc2136", "dns://tenfold:"+strings.ReplaceAll(testSecret, "=", "%3D")+"@"+s.addr)
	if err != nil {
		t.Fatal(err)
	}
	recs := []libdns.Record{libdns.TXT{Name: "_acme-challenge", Text: "x-1", TTL: time.Minute}}
	if _, err := p.AppendRecords(context.Background(), "tenfold-shop.com.", recs); err != nil {
		t.Fatal(err)
	}
	if n := s.values("_acme-challenge.tenfold-shop.com."); n != 1 {
		t.Fatalf("the zone has %d records, want 1", n)
	}
	if _, err := p.DeleteRecords(context.Background(), "tenfold-shop.com.", recs); err != nil {
		t.Fatal(err)
	}
	if n := s.values("_acme-challenge.tenfold-shop.com."); n != 0 {
		t.Fatalf("the zone has %d records, want none", n)
	}
	// An unsigned update is refused, and the refusal is told.
	p, err = NewRFC2136("dns://" + s.addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.AppendRecords(context.Background(), "tenfold-shop.com.", recs); err == nil || !strings.Contains(err.Error(), "NOTAUTH") {
		t.Fatalf("unsigned update: %v", err)
	}
}

func TestDNSCredentials(t *testing.T) {
	for _, c := range []string{"", "hunter2", "http://a:b@c", "dns://", "dns://hunter2@c", "dns://a:hunter2@%zz"} {
		if _, err := NewRFC2136(c); err == nil {
			t.Errorf("%q is taken for credentials", c)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
	if _, err := BuiltinDNS.Open("route54", ""); err == nil || !strings.Contains(err.Error(), "rfc2136") {
		t.Errorf("unknown provider: %v", err)
	}
}
