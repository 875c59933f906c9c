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
		if f, ok := value(t, "headers"); ok {
			rule.Headers = map[string]string{}
			for _, h := range f.order {
				rule.Headers[h] = ""
				if v := f.fields[h]; !v.off {
					rule.Headers[h] = v.node.Value
				}
			}
		}
		if b.app.Rules == nil {
			b.app.Rules = map[tenfold.Route]tenfold.Rule{}
		}
		b.app.Rules[tenfold.Route(name)] = rule
	}
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
