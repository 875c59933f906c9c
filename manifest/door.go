package manifest

import (
	"net/mail"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"tenfold"
)

// door reads what edge says of the whole app.
func (b *builder) door(edge *tree) {
	d := &b.app.Door
	if t, ok := value(edge, "tls"); ok {
		d.HSTS = b.duration(t, "hsts", 0)
		if f, ok := value(t, "dns"); ok {
			d.DNS = b.dns(f)
		}
	}
	d.Trust = b.addresses(edge, "trust")
	if t, ok := value(edge, "store"); ok {
		d.Memory, d.Disk = b.size(t, "memory", 0), b.size(t, "disk", 0)
	}
	if t, ok := value(edge, "geo"); ok {
		d.Geo = b.page(t)
	}
	if t, ok := value(edge, "errors"); ok {
		for _, name := range t.order {
			f := t.fields[name]
			status, err := strconv.Atoi(name)
			switch {
			case err != nil || status < 400 || status > 599:
				b.reporter.at(f.place(), "write a status and a page: 404: pages/404.html", "%s: %q is not the status of an error", t.path, cut(name, 40))
			case !f.off:
				if d.Errors == nil {
					d.Errors = map[int]tenfold.Page{}
				}
				if p := b.page(f); p != nil {
					d.Errors[status] = *p
				}
			}
		}
	}
}

// dns is the provider of DNS and its secret. Of an environment's and the app's own only one may be left:
// false takes one away.
func (b *builder) dns(t *tree) (out *tenfold.DNS) {
	for _, name := range t.order {
		f := t.fields[name]
		switch {
		case f.off || isNull(f.node):
		case !slices.Contains(tenfold.DNSProviders, name):
			hint := "known are " + strings.Join(tenfold.DNSProviders, ", ")
			if n := nearest(name, tenfold.DNSProviders); n != "" {
				hint = "did you mean " + n + "? " + hint
			}
			b.reporter.at(f.place(), hint+"; any name server that takes updates is rfc2136", "%s: no DNS provider %q", t.path, cut(name, 40))
		case out != nil:
			b.reporter.at(f.place(), "keep one of them, or write "+out.Provider+": false", "%s: %s and %s: one provider has the app's names", t.path, out.Provider, name)
		default:
			if s := b.secretOf(t, name); s != nil {
				out = &tenfold.DNS{Provider: name, Secret: *s}
			}
		}
	}
	return out
}

// contact is an e-mail address. What alarms will take beside it is accepted, and said to do nothing.
func (b *builder) contact() {
	t, ok := value(b.top, "contact")
	if !ok {
		return
	}
	s := t.node.Value
	a, err := mail.ParseAddress(s)
	_, host, _ := strings.Cut(s, "@")
	u, uerr := url.Parse(s)
	switch {
	case err == nil && a.Address == s && len(s) <= 254 && strings.Contains(host, ".") && hostText.MatchString(strings.ToLower(host)):
		b.app.Contact = s
	case b.kinds[s] == tenfold.KindSecret, uerr == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil:
		what := "an address on the web"
		if b.kinds[s] == tenfold.KindSecret {
			what = "a secret"
		}
		b.reporter.warn(t.node, "an e-mail address has an effect: authorities of certificates are given it", "contact: %s is for alarms, which this Tenfold does not send yet", what)
	case upperCase.MatchString(s):
		b.reporter.at(t.node, "declare it: secrets: ["+cut(s, 60)+"], or write ops@shop.example.com", "contact: no secret %q is declared", cut(s, 60))
	default:
		b.reporter.at(t.node, "write ops@shop.example.com", "contact: %q is neither an e-mail address, nor an address on the web, nor a secret", cut(s, 60))
	}
}

// page names a file of the project.
func (b *builder) page(t *tree) *tenfold.Page {
	file, ok := readPath(b.reporter, t.node, t.path)
	if !ok {
		return nil
	}
	return &tenfold.Page{File: file, Line: t.line()}
}

// addresses are a list of addresses and networks, as networks.
func (b *builder) addresses(t *tree, name string) (out []string) {
	f, ok := value(t, name)
	if !ok {
		return nil
	}
	parts, _ := readList(b.reporter, f.node, f.path, "address")
	for _, p := range parts {
		net, err := netip.ParsePrefix(p.Value)
		if a, aerr := netip.ParseAddr(p.Value); aerr == nil && a.Zone() == "" {
			net, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		switch {
		case err != nil:
			b.reporter.at(p, "write an address or a network: 10.1.2.3 or 10.0.0.0/8", "%s: %q is neither an address nor a network", f.path, cut(p.Value, 60))
		case net.Masked() != net:
			b.reporter.at(p, "write "+net.Masked().String(), "%s: %s has bits beyond its length", f.path, p.Value)
		case slices.Contains(out, net.String()):
			b.reporter.at(p, "keep one of them", "%s: %q stands twice", f.path, p.Value)
		default:
			out = append(out, net.String())
		}
	}
	return out
}

// auth reads who may pass.
func (b *builder) auth(t *tree) *tenfold.Auth {
	a := &tenfold.Auth{Allow: b.addresses(t, "allow"), Deny: b.addresses(t, "deny")}
	a.Basic, a.MTLS, a.Signed = b.secretOf(t, "basic"), b.secretOf(t, "mtls"), b.secretOf(t, "signed")
	if len(a.Secrets())+len(a.Allow)+len(a.Deny) == 0 && !b.reporter.failed() {
		b.reporter.at(t.place(), "name a secret: auth: ADMIN_USERS, or write auth: false", "%s asks for nothing", t.path)
	}
	return a
}

// secretOf is the secret that a key names.
func (b *builder) secretOf(t *tree, name string) *tenfold.Binding {
	f, ok := value(t, name)
	if !ok {
		return nil
	}
	secret := f.node.Value
	if b.kinds[secret] != tenfold.KindSecret {
		hint := "declare it: secrets: [" + upper(secret) + "], then tenfold secrets set " + upper(secret)
		if strings.ContainsAny(secret, ":\n") {
			hint = "secrets never stand in this file: name one in UPPER_CASE, declare it in secrets and set it by tenfold secrets set"
		}
		b.reporter.at(f.node, hint, "%s: no secret %q is declared", f.path, cut(secret, 40))
		return nil
	}
	return &tenfold.Binding{From: b.app.ID(tenfold.KindSecret, tenfold.Name(secret)), Field: tenfold.FieldValue}
}

// origins are what a browser says in Origin.
func (b *builder) origins(t *tree) (out []string) {
	parts, _ := readList(b.reporter, t.node, t.path, "origin")
	for _, p := range parts {
		u, err := url.Parse(p.Value)
		switch {
		case p.Value == "*":
			out = append(out, "*")
		case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.User != nil || u.Fragment != "":
			b.reporter.at(p, "write https://partner.example.com, without a path, or \"*\"", "%s: %q is not an origin", t.path, cut(p.Value, 60))
		default:
			out = append(out, strings.ToLower(p.Value))
		}
	}
	if slices.Contains(out, "*") && len(out) > 1 {
		b.reporter.at(t.node, "write \"*\" alone, or the origins alone", "%s: * stands for all origins, beside it no other means anything", t.path)
	}
	return out
}

// rewrite is the path that a route is answered by.
func (b *builder) rewrite(route tenfold.Route, t *tree) string {
	s := t.node.Value
	_, _, from := route.Split()
	at := func(hint, format string, args ...any) string {
		b.reporter.at(t.node, hint, t.path+": "+format, args...)
		return ""
	}
	path, query, _ := strings.Cut(s, "?")
	switch {
	case !strings.HasPrefix(s, "/") || strings.HasPrefix(s, "//") || strings.ContainsAny(s, " \t\r\n\\#") || !pathText.MatchString(path):
		return at("write a path: /api/*; another address needs a redirect", "%q is not a path", cut(s, 60))
	case strings.Contains(query, "*") || strings.Contains(strings.TrimSuffix(path, "*"), "*") || strings.HasSuffix(path, "*") && !strings.HasSuffix(path, "/*"):
		return at("write * as the last segment", "%q: * stands for whole segments at the end", cut(s, 60))
	case strings.HasSuffix(path, "*") && !strings.HasSuffix(from, "*"):
		return at("end the route with * too, or remove the *", "%q takes what * matched, but the route %q has none", cut(s, 60), cut(string(route), 60))
	case s == from:
		return at("write another path", "rewrites to itself")
	}
	for part := range strings.SplitSeq(path, "/") {
		if strings.HasPrefix(part, ":") && !slices.Contains(strings.Split(from, "/"), part) {
			return at("use a :name of the route", "%q takes %s, which the route %q does not have", cut(s, 60), cut(part, 40), cut(string(route), 60))
		}
	}
	return s
}
