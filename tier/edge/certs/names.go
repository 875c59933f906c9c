package certs

import (
	"net"
	"net/netip"
	"strings"

	"github.com/caddyserver/certmagic"
)

// localDomains are those that no public authority may certify (RFC 6761, RFC 6762, RFC 8375, ICANN's
// reserved .internal) and those that are in use on LANs. The local root may sign below these alone.
var localDomains = []string{"localhost", "local", "internal", "home.arpa", "lan", "home", "corp", "intranet", "private", "test", "example", "invalid"}

// Public says whether a public authority may be asked for a certificate of host: not localhost,
// LAN names, single labels and addresses.
func Public(host string) bool {
	host = normal(host)
	if !certmagic.SubjectQualifiesForPublicCert(host) || certmagic.SubjectIsIP(host) || !strings.Contains(host, ".") {
		return false
	}
	return !belowLocal(host)
}

func belowLocal(host string) bool {
	for _, d := range localDomains {
		if host == d || strings.HasSuffix(host, "."+d) {
			return true
		}
	}
	return false
}

// normal is a host as it is compared: without port, brackets and final dot, lower case.
func normal(host string) string {
	if strings.IndexByte(host, ':') >= 0 {
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.ToLower(strings.TrimSuffix(strings.TrimSpace(host), "."))
}

// wellFormed says whether name can stand in a certificate: labels of letters, digits, - and _, or an
// address. A wildcard is for SetHosts alone.
func wellFormed(name string) bool {
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// wildcard is the name whose certificate covers host one label up: *.example.com of a.example.com.
func wildcard(host string) string {
	_, rest, ok := strings.Cut(host, ".")
	if !ok {
		return ""
	}
	return "*." + rest
}
