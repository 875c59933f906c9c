package certs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"
)

// rfc2136 updates a zone on its own name server: BIND, Knot, PowerDNS, Windows.
type rfc2136 struct {
	server    string
	key, hash string // TSIG; "" without
	secret    string
}

// NewRFC2136 is a provider for name servers that take dynamic updates (RFC 2136), signed by TSIG
// (RFC 8945). The credentials are an address:
//
//	dns://KEY:SECRET@HOST[:PORT][?algorithm=hmac-sha256]
//
// SECRET is base64, percent-encoded where an address asks for it. Without KEY:SECRET updates are not
// signed, which a server believes of trusted addresses only.
func NewRFC2136(credentials string) (DNSProvider, error) {
	u, err := url.Parse(credentials)
	if err != nil || u.Scheme != "dns" || u.Host == "" {
		return nil, errors.New("its credentials are not of the form dns://KEY:SECRET@HOST[:PORT]") // says nothing of the secret
	}
	p := &rfc2136{server: u.Host, hash: dns.Fqdn(u.Query().Get("algorithm"))}
	if u.Port() == "" {
		p.server = net.JoinHostPort(u.Hostname(), "53")
	}
	if p.hash == "." {
		p.hash = dns.HmacSHA256
	}
	if u.User != nil {
		p.key = dns.Fqdn(strings.ToLower(u.User.Username()))
		p.secret, _ = u.User.Password()
		if p.secret == "" {
			return nil, errors.New("its credentials have a key without a secret")
		}
	}
	return p, nil
}

func (p *rfc2136) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return recs, p.update(ctx, zone, recs, (*dns.Msg).Insert)
}

func (p *rfc2136) DeleteRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return recs, p.update(ctx, zone, recs, (*dns.Msg).Remove)
}

func (p *rfc2136) update(ctx context.Context, zone string, recs []libdns.Record, how func(*dns.Msg, []dns.RR)) error {
	var rrs []dns.RR
	for _, rec := range recs {
		r := rec.RR()
		if r.Type != "TXT" {
			return fmt.Errorf("update zone %s: a record of type %s: only TXT is written", zone, r.Type)
		}
		rrs = append(rrs, &dns.TXT{
			Hdr: dns.RR_Header{Name: dns.Fqdn(libdns.AbsoluteName(r.Name, zone)), Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: uint32(r.TTL / time.Second)},
			Txt: []string{r.Data}, // of a challenge: 43 bytes, so one string
		})
	}
	m := new(dns.Msg)
	m.SetUpdate(dns.Fqdn(zone))
	how(m, rrs)
	c := &dns.Client{Net: "tcp", Timeout: 10 * time.Second}
	if p.key != "" {
		c.TsigSecret = map[string]string{p.key: p.secret}
		m.SetTsig(p.key, p.hash, 300, time.Now().Unix())
	}
	answer, _, err := c.ExchangeContext(ctx, m, p.server)
	if err != nil {
		return fmt.Errorf("update zone %s at %s: %w", zone, p.server, err)
	}
	if answer.Rcode != dns.RcodeSuccess {
		return fmt.Errorf("update zone %s at %s: the server says %s", zone, p.server, dns.RcodeToString[answer.Rcode])
	}
	return nil
}
