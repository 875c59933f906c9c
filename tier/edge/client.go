package edge

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"tenfold/tier/edge/wire"
)

// trusts says that an address is a proxy before this door. Those of PROXY headers count too, since
// that is what a connection's address is by then.
func (t *table) trusts(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return within(t.trust, a)
}

// client is who asks, as host:port: the connection's other end, or, when that is trusted, the last
// address in X-Forwarded-For that is not (RFC 7239 §7.4: only what a trusted one has added counts).
func (t *table) client(remote string, forwarded []string) string {
	if len(t.trust) == 0 || len(forwarded) == 0 {
		return remote
	}
	peer, err := netip.ParseAddrPort(remote)
	if err != nil || !t.trusts(peer.Addr()) {
		return remote
	}
	chain := strings.Split(strings.Join(forwarded, ","), ",")
	for i := len(chain) - 1; i >= 0; i-- {
		a, err := parseForwarded(strings.TrimSpace(chain[i]))
		if err != nil {
			break // whoever wrote this did not know who asked
		}
		remote = netip.AddrPortFrom(a, 0).String()
		if !t.trusts(a) {
			break
		}
	}
	return remote
}

// clientOf is client for a request in a connection's loop.
func (t *table) clientOf(r *wire.Request) string {
	var forwarded []string
	if len(t.trust) > 0 {
		for _, f := range r.Fields() {
			if f.Name == "x-forwarded-for" {
				forwarded = append(forwarded, f.Value)
			}
		}
	}
	return t.client(r.Remote.String(), forwarded)
}

// parseForwarded reads an address of X-Forwarded-For, which some write with a port.
func parseForwarded(s string) (netip.Addr, error) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return a, nil
	}
	ap, err := netip.ParseAddrPort(s)
	return ap.Addr(), err
}

// secure says that a request came over TLS: here, or as a trusted proxy says.
func (t *table) secure(r *http.Request) bool {
	if r.TLS != nil || len(t.trust) == 0 {
		return r.TLS != nil
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && t.secureBehind(peer.Addr(), r.Header.Get("X-Forwarded-Proto"))
}

// secureOf is secure for a request in a connection's loop.
func (t *table) secureOf(r *wire.Request) bool {
	return r.Secure || t.secureBehind(r.Remote.Addr(), r.Get("x-forwarded-proto"))
}

// secureBehind says that peer is a trusted proxy to which the request came over TLS.
func (t *table) secureBehind(peer netip.Addr, proto string) bool {
	return proto == "https" && t.trusts(peer)
}

// addrOf is the address in host:port.
func addrOf(remote string) (netip.Addr, bool) {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	a, err := netip.ParseAddr(host)
	return a.Unmap().WithZone(""), err == nil
}

// prefixes parses networks; what cannot be parsed is an error of whoever made the snapshot.
func prefixes(of []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range of {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, err
		}
		out = append(out, p.Masked())
	}
	return out, nil
}
