package certs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	rfc8555 "github.com/mholt/acmez/v3/acme"
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

func (p *rfc2136) nameServer() string { return p.server }

func (p *rfc2136) Present(ctx context.Context, domain, _, keyAuth string) error {
	return p.update(ctx, domain, keyAuth, (*dns.Msg).Insert)
}

func (p *rfc2136) CleanUp(ctx context.Context, domain, _, keyAuth string) error {
	return p.update(ctx, domain, keyAuth, (*dns.Msg).Remove)
}

func (p *rfc2136) update(ctx context.Context, domain, keyAuth string, how func(*dns.Msg, []dns.RR)) error {
	c := rfc8555.Challenge{Identifier: rfc8555.Identifier{Value: domain}, KeyAuthorization: keyAuth}
	name := dns.Fqdn(c.DNS01TXTRecordName())
	zone, err := p.zone(ctx, name)
	if err != nil {
		return err
	}
	m := new(dns.Msg)
	m.SetUpdate(zone)
	how(m, []dns.RR{&dns.TXT{
		Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: recordTTL},
		Txt: []string{c.DNS01KeyAuthorization()},
	}})
	client := &dns.Client{Net: "tcp", Timeout: 10 * time.Second}
	if p.key != "" {
		client.TsigSecret = map[string]string{p.key: p.secret}
		m.SetTsig(p.key, p.hash, 300, time.Now().Unix())
	}
	answer, _, err := client.ExchangeContext(ctx, m, p.server)
	if err != nil {
		return fmt.Errorf("update zone %s at %s: %w", zone, p.server, err)
	}
	if answer.Rcode != dns.RcodeSuccess {
		return fmt.Errorf("update zone %s at %s: the server says %s", zone, p.server, dns.RcodeToString[answer.Rcode])
	}
	return nil
}

// zone is the zone of a name, as the server itself says: others may see another zone of that name, or
// none.
func (p *rfc2136) zone(ctx context.Context, name string) (string, error) {
	last := errors.New("it has no zone of that name")
	for rest, more := name, true; more && rest != ""; _, rest, more = strings.Cut(rest, ".") {
		r, err := ask(ctx, []string{p.server}, rest, dns.TypeSOA)
		if err != nil {
			last = err
			continue
		}
		for _, rr := range slices.Concat(r.Answer, r.Ns) {
			if soa, ok := rr.(*dns.SOA); ok && dns.IsSubDomain(soa.Hdr.Name, name) && soa.Hdr.Name != "." {
				return soa.Hdr.Name, nil
			}
		}
	}
	return "", fmt.Errorf("find the zone of %s at %s: %w", name, p.server, last)
}
