package certs

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/libdns/libdns"
)

// DNSProvider writes and removes records of a zone. It is what every provider of libdns is, so any
// of them fits; AppendRecords and DeleteRecords get TXT records named relative to the zone.
type DNSProvider interface {
	libdns.RecordAppender
	libdns.RecordDeleter
}

// DNSProviders are the known providers by the name that edge.tls.dns uses. Each is made from its
// credentials, whose form is its own.
type DNSProviders map[string]func(credentials string) (DNSProvider, error)

// BuiltinDNS are the providers that need nothing but the standard protocol.
var BuiltinDNS = DNSProviders{"rfc2136": NewRFC2136}

// Open makes the provider called name.
func (p DNSProviders) Open(name, credentials string) (DNSProvider, error) {
	mk := p[name]
	if mk == nil {
		return nil, fmt.Errorf("open DNS provider %s: there is none of that name; known are %s", name, strings.Join(slices.Sorted(maps.Keys(p)), ", "))
	}
	out, err := mk(credentials)
	if err != nil {
		return nil, fmt.Errorf("open DNS provider %s: %w", name, err)
	}
	return out, nil
}
