package certs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
)

// DNSProvider writes and removes the TXT record of _acme-challenge.domain by which a name is proven
// (RFC 8555 §8.4), made of keyAuth. It is what every provider of lego is, so any of them fits.
type DNSProvider interface {
	Present(ctx context.Context, domain, token, keyAuth string) error
	CleanUp(ctx context.Context, domain, token, keyAuth string) error
}

// DNS says by whom names are proven: a provider of DNSProviders and the credentials it is opened by.
type DNS struct{ Provider, Credentials string }

// String and LogValue keep the credentials out of what is printed.
func (d DNS) String() string { return d.Provider }

// GoString is String.
func (d DNS) GoString() string { return d.Provider }

// LogValue is String.
func (d DNS) LogValue() slog.Value { return slog.StringValue(d.Provider) }

// DNSProviders are the known providers by the name that edge.tls.dns uses. Each is made from its
// credentials, whose form is its own. Making one asks nobody.
type DNSProviders map[string]func(credentials string) (DNSProvider, error)

// BuiltinDNS are the providers there are: docs/certificates.md has the form of their credentials.
var BuiltinDNS = DNSProviders{
	"cloudflare": newCloudflare, "digitalocean": newDigitalOcean, "gandiv5": newGandi, "hetzner": newHetzner,
	"ovh": newOVH, "rfc2136": NewRFC2136, "route53": newRoute53,
}

// Open makes the provider that d names. No error of it, then or later, tells the credentials.
func (p DNSProviders) Open(d DNS) (DNSProvider, error) {
	mk := p[d.Provider]
	if mk == nil {
		return nil, &errProvider{d.Provider, fmt.Errorf("there is none of that name; known are %s", strings.Join(slices.Sorted(maps.Keys(p)), ", "))}
	}
	if strings.TrimSpace(d.Credentials) == "" {
		return nil, &errProvider{d.Provider, errors.New("its credentials are empty")}
	}
	out, err := mk(strings.TrimSpace(d.Credentials))
	if err != nil {
		return nil, &errProvider{d.Provider, redact(err, d.Credentials)}
	}
	return discreet{out, d}, nil
}

// errProvider is a fault of a DNS provider, or of what is known of it.
type errProvider struct {
	name string
	err  error
}

func (e *errProvider) Error() string { return "DNS provider " + e.name + ": " + e.err.Error() }
func (e *errProvider) Unwrap() error { return e.err }

// discreet is a provider whose errors say nothing of its credentials, whatever a service answers.
type discreet struct {
	DNSProvider
	of DNS
}

func (p discreet) Present(ctx context.Context, domain, token, keyAuth string) error {
	return p.tell(p.DNSProvider.Present(ctx, domain, token, keyAuth))
}

func (p discreet) CleanUp(ctx context.Context, domain, token, keyAuth string) error {
	return p.tell(p.DNSProvider.CleanUp(ctx, domain, token, keyAuth))
}

func (p discreet) tell(err error) error {
	if err == nil {
		return nil
	}
	return &errProvider{p.of.Provider, redact(err, p.of.Credentials)}
}

// redact is err, or its text with the secrets left out when it holds one.
func redact(err error, credentials string) error {
	text := err.Error()
	for _, s := range secretsOf(credentials) {
		text = strings.ReplaceAll(text, s, "…")
	}
	if text == err.Error() {
		return err
	}
	return errors.New(text)
}

// open is the provider for host: of it or of the wildcard that covers it. Both are nil without one.
// What was opened once is used until nobody names it any more.
func (k *Keyring) open(host string) (DNSProvider, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d, ok := k.dnsOf(host)
	if !ok {
		return nil, nil
	}
	o, had := k.opened[d]
	if !had {
		o.provider, o.err = k.cfg.providers.Open(d)
		k.opened[d] = o
	}
	return o.provider, o.err
}

type openedDNS struct {
	provider DNSProvider
	err      error
}

// dnsOf is by whom host is proven. Under k.mu.
func (k *Keyring) dnsOf(host string) (DNS, bool) {
	if d, ok := k.dns[host]; ok {
		return d, true
	}
	d, ok := k.dns[wildcard(host)]
	return d, ok
}

// SetDNS says by whom hosts and wildcards are proven (DNS-01), from the next SetHosts on. Wildcards
// have no other proof; other hosts are proven so when neither port is given (Config). What cannot be
// opened is a fault of the host's certificate. Other credentials than before are used at once.
func (k *Keyring) SetDNS(of map[string]DNS) {
	next := map[string]DNS{}
	for host, d := range of {
		next[normal(host)] = d
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.nextDNS = next
}

// takeDNS makes what SetDNS said last the case. Under k.mu.
func (k *Keyring) takeDNS() {
	if k.nextDNS == nil {
		return
	}
	k.dns, k.nextDNS = k.nextDNS, nil
	used := map[DNS]bool{}
	for _, d := range k.dns {
		used[d] = true
	}
	maps.DeleteFunc(k.opened, func(d DNS, _ openedDNS) bool { return !used[d] })
}
