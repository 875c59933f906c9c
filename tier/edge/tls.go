package edge

import (
	"crypto/x509"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"tenfold/internal/directory"
	"tenfold/tier/edge/certs"
	"tenfold/tier/edge/proxyproto"
)

// challengePath is where authorities look for the answers of HTTP-01.
const challengePath = "/.well-known/acme-challenge/"

// port of a listener, 0 when it has none.
func port(ls []net.Listener) int {
	for _, l := range ls {
		if a, ok := l.Addr().(*net.TCPAddr); ok {
			return a.Port
		}
	}
	return 0
}

// openKeys makes the ring of certificates when there is a listener for TLS.
func (d *Door) openKeys() error {
	if len(d.cfg.TLSListeners) == 0 {
		return nil
	}
	cfg := certs.Config{Dir: d.cfg.Certificates, CA: d.cfg.ACME, Log: d.cfg.Log}
	// An authority comes to the usual ports; with an authority of one's own they may be any.
	if p := port(d.cfg.TLSListeners); p == 443 || d.cfg.ACME != "" {
		cfg.TLSPort = p
	}
	if p := port(d.cfg.Listeners); p == 80 || d.cfg.ACME != "" {
		cfg.HTTPPort = p
	}
	cfg.Alarm = func(a certs.Alarm) {
		d.cfg.Log.Warn(a.Title, "host", a.Host, "cause", a.Cause, "hint", a.Hint, "cleared", a.Cleared)
	}
	var err error
	d.keys, err = certs.New(cfg)
	return err
}

// hostsOf are the names that need certificates, and those among them that DNS can prove. What stands
// for an environment below a wildcard has the wildcard's: authorities count how many names of a domain
// get certificates in a week, and previews come and go.
func hostsOf(t *table) ([]string, map[string]certs.DNS) {
	var out []string
	dns, version := map[string]certs.DNS{}, map[string]int64{}
	for _, s := range t.snapshot.Sites {
		for _, h := range append(slices.Sorted(maps.Keys(s.Redirect)), s.Hosts...) {
			if s.DNS == nil {
				out = append(out, h)
				continue
			}
			if _, below, _ := strings.Cut(h, "."); slices.Contains(s.DNS.Wildcards, "*."+below) {
				h = "*." + below
			}
			out = append(out, h)
			if _, had := dns[h]; !had || s.DNS.Version > version[h] {
				dns[h], version[h] = certs.DNS{Provider: s.DNS.Provider, Credentials: s.DNS.Credentials}, s.DNS.Version
			}
		}
	}
	for h := range t.console {
		out = append(out, h)
	}
	slices.Sort(out)
	return append(slices.Compact(out), "localhost"), dns
}

// secured says that a host is answered over TLS alone: a public name, where both usual ports are ours.
func (d *Door) secured(host string) bool {
	return d.keys != nil && d.standard && certs.Public(host)
}

// challenges says that a request may be an authority's, which asks without TLS (RFC 8555 §8.3).
func (d *Door) challenges(r *http.Request) bool {
	return d.keys != nil && r.TLS == nil && strings.HasPrefix(r.URL.Path, challengePath)
}

// challenged answers an authority, if it asks for what this door is to prove.
func (d *Door) challenged(w http.ResponseWriter, r *http.Request) bool {
	if !d.challenges(r) {
		return false
	}
	answered := true
	d.keys.HTTPHandler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { answered = false })).ServeHTTP(w, r)
	return answered
}

// certificates tells how those of the hosts stand.
func (d *Door) certificates() []directory.Certificate {
	if d.keys == nil {
		return nil
	}
	var out []directory.Certificate
	for _, s := range d.keys.Status() {
		c := directory.Certificate{Host: s.Host, Issuer: s.Issuer, Local: s.Local, NotAfter: s.NotAfter, Renewal: s.Renewal}
		if s.LastError != nil {
			c.Error = s.LastError.Error()
		}
		out = append(out, c)
	}
	return out
}

// faults are what is wrong with certificates now.
func (d *Door) faults() (out []directory.Fault) {
	for _, a := range d.keys.Faults() {
		out = append(out, directory.Fault{Host: a.Host, Title: a.Title, Cause: a.Cause, Hint: a.Hint, Since: a.Since, Severe: a.Severe})
	}
	return out
}

// askForCertificates has handshakes ask for client certificates where a route needs one: of every host
// of the site, since what a handshake asks is decided before a path is known.
func (d *Door) askForCertificates(t *table) {
	hosts := map[string]bool{}
	for _, s := range t.snapshot.Sites {
		pool, any := x509.NewCertPool(), false
		for _, r := range s.Rules {
			if r.Auth != nil && r.Auth.MTLS != "" {
				any = pool.AppendCertsFromPEM([]byte(r.Auth.MTLS)) || any
			}
		}
		if !any {
			continue
		}
		names := s.Hosts
		if s.Default {
			names = append(slices.Clone(names), "localhost")
		}
		for _, h := range names {
			hosts[h] = true
			d.keys.SetClientCAs(h, pool)
		}
	}
	for h := range d.certified {
		if !hosts[h] {
			d.keys.SetClientCAs(h, nil)
		}
	}
	d.certified = hosts
}

// proxied has a listener believe the PROXY headers of trusted addresses.
func (d *Door) proxied(l net.Listener) net.Listener {
	return proxyproto.Listen(l, func() []netip.Prefix { return d.current.Load().trust })
}
