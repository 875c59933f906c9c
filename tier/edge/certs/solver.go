package certs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	rfc8555 "github.com/mholt/acmez/v3/acme"
	"github.com/miekg/dns"
	"go.uber.org/zap"
)

const (
	dnsWait    = 2 * time.Minute  // until a record must be seen
	dnsNobody  = 20 * time.Second // until nobody needs to be asked any more, if nobody answers
	dnsTimeout = 5 * time.Second  // of one question
	apiWait    = 2 * time.Minute  // of a provider
)

// dnsSolver solves DNS-01 by the provider that a host has at that moment, so that a renewal that has
// been failing for days succeeds once its credentials are right.
//
// A challenge does not say whether it is for a wildcard, and *.example.com and example.com may be
// proven by different providers: there is a solver for each.
type dnsSolver struct {
	k    *Keyring
	wild bool

	mu    sync.Mutex
	shown map[string]DNSProvider // by domain and token: who shows it removes it
}

var (
	_ acmez.Solver = (*dnsSolver)(nil)
	_ acmez.Waiter = (*dnsSolver)(nil)
)

func (s *dnsSolver) Present(ctx context.Context, c rfc8555.Challenge) error {
	host := c.Identifier.Value
	if s.wild {
		host = "*." + host
	}
	p, err := s.k.open(host)
	if err == nil && p == nil {
		err = errNoDNS
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, apiWait)
	defer cancel()
	if err := p.Present(ctx, c.Identifier.Value, c.Token, c.KeyAuthorization); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shown[c.Identifier.Value+" "+c.Token] = p
	return nil
}

// CleanUp goes on when ctx has ended, which is when it is needed most.
func (s *dnsSolver) CleanUp(ctx context.Context, c rfc8555.Challenge) error {
	p := s.shownBy(c)
	if p == nil {
		return nil
	}
	s.mu.Lock()
	delete(s.shown, c.Identifier.Value+" "+c.Token)
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	return p.CleanUp(ctx, c.Identifier.Value, c.Token, c.KeyAuthorization)
}

func (s *dnsSolver) shownBy(c rfc8555.Challenge) DNSProvider {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown[c.Identifier.Value+" "+c.Token]
}

// Wait returns when the record is at every server of its zone. An authority that comes too early
// counts a failure, of which it allows few. Asked are the zone's own servers, since a resolver would
// remember that there was nothing. If none of them answers this machine, the authority has the last
// word.
func (s *dnsSolver) Wait(ctx context.Context, c rfc8555.Challenge) error {
	limit := s.k.cfg.dnsWait
	if limit < 0 {
		return nil
	}
	if limit == 0 {
		limit = dnsWait
	}
	name, value := dns.Fqdn(c.DNS01TXTRecordName()), c.DNS01KeyAuthorization()
	begun, heard := time.Now(), false
	tick := time.NewTicker(min(2*time.Second, limit/4))
	defer tick.Stop()
	for {
		at, err := s.servers(ctx, s.shownBy(c), &name)
		if err == nil {
			var seen bool
			if seen, err = allHave(ctx, at, name, value); seen {
				return nil
			}
			heard = heard || err == nil
		}
		switch waited := time.Since(begun); {
		case heard && waited > limit:
			return fmt.Errorf("the record %s is not seen at %s after %v", strings.TrimSuffix(name, "."), strings.Join(at, ", "), limit)
		case !heard && waited > min(limit, dnsNobody):
			s.k.cfg.Log.Info("the record of a challenge cannot be looked at; the authority is asked all the same", "record", name, "err", err)
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// servers are who must have the record: Config.Resolvers, or the name servers of its zone. An alias
// (CNAME), by which some have another zone answer for them, is followed.
func (s *dnsSolver) servers(ctx context.Context, p DNSProvider, name *string) ([]string, error) {
	if len(s.k.cfg.Resolvers) > 0 {
		return s.k.cfg.Resolvers, nil
	}
	resolvers := certmagic.RecursiveNameservers(nil)
	if d, ok := p.(discreet); ok {
		if own, ok := d.DNSProvider.(interface{ nameServer() string }); ok {
			resolvers = []string{own.nameServer()} // knows its zone, also where nobody else does
		}
	}
	for range 5 {
		alias := ""
		if m, err := ask(ctx, resolvers, *name, dns.TypeCNAME); err == nil {
			for _, rr := range m.Answer {
				if c, ok := rr.(*dns.CNAME); ok && strings.EqualFold(c.Hdr.Name, *name) {
					alias = c.Target
				}
			}
		}
		if alias == "" {
			break
		}
		*name = alias
	}
	zone, err := certmagic.FindZoneByFQDN(ctx, zap.NewNop(), *name, resolvers)
	if err != nil {
		return nil, err
	}
	m, err := ask(ctx, resolvers, zone, dns.TypeNS)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, rr := range m.Answer {
		if ns, ok := rr.(*dns.NS); ok {
			out = append(out, net.JoinHostPort(strings.TrimSuffix(ns.Ns, "."), "53"))
		}
	}
	if len(out) == 0 {
		return resolvers, nil
	}
	return out, nil
}

// allHave says whether every server that answers has a TXT record of that value. An error: none did.
func allHave(ctx context.Context, servers []string, name, value string) (bool, error) {
	answered, last := 0, error(nil)
	for _, server := range servers {
		m, err := ask(ctx, []string{server}, name, dns.TypeTXT)
		if err != nil {
			last = err
			continue
		}
		answered++
		has := false
		for _, rr := range m.Answer {
			txt, ok := rr.(*dns.TXT)
			has = has || ok && strings.Join(txt.Txt, "") == value
		}
		if !has {
			return false, nil
		}
	}
	if answered == 0 {
		return false, errors.Join(errors.New("no name server answers"), last)
	}
	return true, nil
}

// ask puts a question to the first of servers that answers.
func ask(ctx context.Context, servers []string, name string, kind uint16) (*dns.Msg, error) {
	last := errors.New("there is no name server")
	for _, server := range servers {
		m := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
		m.SetEdns0(4096, false)
		for _, proto := range []string{"udp", "tcp"} {
			c := &dns.Client{Net: proto, Timeout: dnsTimeout}
			r, _, err := c.ExchangeContext(ctx, m, server)
			switch {
			case err != nil:
				last = fmt.Errorf("ask name server %s: %w", server, err)
			case r.Truncated && proto == "udp":
				continue
			case r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError:
				last = fmt.Errorf("ask name server %s: it says %s", server, dns.RcodeToString[r.Rcode])
			default:
				return r, nil
			}
		}
	}
	return nil, last
}
