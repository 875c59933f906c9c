package manifest

import (
	"slices"
	"strings"

	"tenfold"
)

func (b *builder) rules() {
	edge := b.top.get("edge")
	if edge == nil || edge.off {
		return
	}
	b.accessLog(edge)
	b.door(edge)
	routes, ok := value(edge, "routes")
	if !ok {
		return
	}
	for _, name := range routes.order {
		t := routes.fields[name]
		if t.off {
			continue
		}
		rule := tenfold.Rule{Line: t.line()}
		if f, ok := value(t, "redirect"); ok {
			rule.Redirect = b.redirect(tenfold.Route(name), f)
		}
		if f, ok := value(t, "rewrite"); ok {
			rule.Rewrite = b.rewrite(tenfold.Route(name), f)
			if rule.Redirect != nil {
				b.reporter.at(f.place(), "keep one of them", "%s: redirect and rewrite stand side by side", t.path)
			}
		}
		rule.Headers, rule.Request = headersOf(t, "headers"), headersOf(t, "request")
		rule.Timeout = b.duration(t, "timeout", 0)
		if f, ok := value(t, "hedge"); ok {
			if rule.Hedge, _ = readShare(b.reporter, f.node, f.path); rule.Hedge >= 1 {
				b.reporter.at(f.node, "write 95%", "%s: no request is slower than 100%% of them", f.path)
			}
		}
		if f := t.get("cors"); f != nil && f.off {
			rule.CORS = []string{}
		} else if f, ok := value(t, "cors"); ok {
			rule.CORS = b.origins(f)
		}
		if f := t.get("auth"); f != nil && f.off {
			rule.Auth = &tenfold.Auth{Off: true}
		} else if f, ok := value(t, "auth"); ok {
			rule.Auth = b.auth(f)
		}
		if f, ok := value(t, "maintenance"); ok {
			rule.Maintenance = b.page(f)
		}
		if f := t.get("cache"); f != nil && f.off {
			rule.Cache = &tenfold.Caching{Off: true}
		} else if f, ok := value(t, "cache"); ok {
			rule.Cache = b.caching(f)
		}
		if f, ok := value(t, "limit"); ok {
			rule.Limit = b.limiting(f)
		}
		if b.app.Rules == nil {
			b.app.Rules = map[tenfold.Route]tenfold.Rule{}
		}
		b.app.Rules[tenfold.Route(name)] = rule
	}
}

// headersOf are header fields to set; those to remove are empty.
func headersOf(t *tree, name string) map[string]string {
	f, ok := value(t, name)
	if !ok {
		return nil
	}
	out := map[string]string{}
	for _, h := range f.order {
		out[h] = ""
		if v := f.fields[h]; !v.off {
			out[h] = v.node.Value
		}
	}
	return out
}

func (b *builder) accessLog(edge *tree) {
	f := edge.get("log")
	if f == nil {
		return
	}
	if f.off {
		b.app.Log.Off = true
		return
	}
	b.app.Log.Keep = b.duration(f, "keep", 0)
	if s, ok := value(f, "sample"); ok {
		b.app.Log.Sample, _ = readShare(b.reporter, s.node, s.path)
	}
	if p, ok := value(f, "personal"); ok {
		b.app.Log.Personal = p.node.Value == "true"
	}
}

func (b *builder) caching(t *tree) *tenfold.Caching {
	c := &tenfold.Caching{}
	if f, ok := value(t, "fresh"); ok {
		c.Default, c.Min, c.Max = b.span(f, "default", 0), b.span(f, "min", 0), b.duration(f, "max", 0)
		if c.Max > 0 && c.Min > c.Max {
			b.reporter.at(f.place(), "make min the smaller one", "%s: min %s is above max %s", f.path, short(c.Min), short(c.Max))
		}
	}
	if f, ok := value(t, "stale"); ok {
		c.StaleRevalidate = b.span(f, "revalidate", 0)
		c.StaleError = b.span(f, "error", c.StaleRevalidate)
	}
	if f, ok := value(t, "key"); ok {
		if q := f.get("query"); q != nil && q.off {
			c.NoQuery = true
		}
		c.Query, c.Headers, c.Cookies = b.words(f, "query"), b.words(f, "headers"), b.words(f, "cookies")
	}
	c.Tags = b.words(t, "tags")
	for _, w := range b.words(t, "override") {
		switch w {
		case "private":
			c.OverridePrivate = true
		case "no-store":
			c.OverrideNoStore = true
		default:
			f, _ := value(t, "override")
			b.reporter.at(f.node, "one of: private, no-store", "%s: %q cannot be overridden", f.path, cut(w, 40))
		}
	}
	return c
}

// words are a list of plain words.
func (b *builder) words(t *tree, name string) (out []string) {
	f, ok := value(t, name)
	if !ok {
		return nil
	}
	parts, _ := readList(b.reporter, f.node, f.path, "word")
	for _, p := range parts {
		if p.Value == "" || strings.ContainsAny(p.Value, " \t\r\n,;=\"") {
			b.reporter.at(p, "write one word each", "%s: %q is not a word", f.path, cut(p.Value, 40))
			continue
		}
		out = append(out, p.Value)
	}
	return out
}

func (b *builder) limiting(t *tree) *tenfold.Limiting {
	l := &tenfold.Limiting{By: "client"}
	if f, ok := value(t, "rate"); ok {
		l.Rate, l.Per = readRate(b.reporter, f.node, f.path)
	}
	if f, ok := value(t, "per"); ok {
		l.By = f.node.Value
	}
	if f, ok := value(t, "burst"); ok {
		l.Burst, _ = readCount(b.reporter, f.node, f.path, 1, 1_000_000)
		if l.Rate == 0 {
			b.reporter.at(f.place(), "add rate: 50/s", "%s: a burst of no rate", f.path)
		}
	}
	if f, ok := value(t, "concurrency"); ok {
		l.Concurrency, _ = readCount(b.reporter, f.node, f.path, 1, 1_000_000)
	}
	if f, ok := value(t, "body"); ok {
		l.Body, _ = readSize(b.reporter, f.node, f.path)
	}
	if f, ok := value(t, "header"); ok {
		if l.Header, _ = readSize(b.reporter, f.node, f.path); l.Header > 32<<10 {
			b.reporter.at(f.node, "write at most 32kb", "%s: the front door takes no longer ones", f.path)
		}
	}
	return l
}

func (b *builder) redirect(route tenfold.Route, f *tree) *tenfold.Redirect {
	out := &tenfold.Redirect{Status: 301}
	if s, ok := value(f, "status"); ok {
		n, _ := readCount(b.reporter, s.node, s.path, 301, 308)
		if n != 0 && !slices.Contains([]int{301, 302, 303, 307, 308}, n) {
			b.reporter.at(s.node, "one of: 301, 302, 303, 307, 308", "%s: %d is not a status of a redirect", s.path, n)
		}
		out.Status = n
	}
	to, ok := value(f, "to")
	if !ok {
		b.reporter.at(f.place(), "add to: /new/*", "%s does not say where to", f.path)
		return out
	}
	out.To = to.node.Value
	_, _, from := route.Split()
	switch s := out.To; {
	case !strings.HasPrefix(s, "/") && !strings.HasPrefix(s, "https://") && !strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "//") || strings.ContainsAny(s, " \t\r\n\\"):
		b.reporter.at(to.node, "write a path or an address: /new/*, https://example.com/", "%s: %q is neither a path nor an address", to.path, cut(s, 60))
	case strings.HasSuffix(s, "*") && !strings.HasSuffix(from, "*"):
		b.reporter.at(to.node, "end the route with * too, or remove the *", "%s: %q takes what * matched, but the route %q has none", to.path, cut(s, 60), cut(string(route), 60))
	case s == from:
		b.reporter.at(to.node, "write another path", "%s: redirects to itself", to.path)
	}
	return out
}
