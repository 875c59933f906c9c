package edge

import (
	"net/http"
	"path"
	"strings"

	"tenfold/internal/release"
	"tenfold/internal/siterules"
)

// rulesOf are the rules that a release brings along, made ready once a release.
func (s *statics) rulesOf(rel *release.Release) *siterules.Rules {
	if len(rel.Meta.Rules) == 0 {
		return nil
	}
	if v, ok := s.rules.Load(rel.ID); ok {
		return v.(*siterules.Rules)
	}
	set := rel.Rules()
	r, err := set.Compile()
	if err != nil {
		return nil // it was compiled when it was read: a file that somebody changed since
	}
	s.rules.Store(rel.ID, r)
	return r
}

// ruleRequest is what rules are asked about.
func ruleRequest(r *http.Request) *siterules.Request {
	return &siterules.Request{Host: hostOf(r), Path: r.URL.Path, Query: r.URL.Query(), Header: r.Header, Country: r.Header.Get(viewerCountry)}
}

// byRule finds what a site's own rules say, after edge.routes and, by the dialect, before or after the
// file of the path itself. done: they answer; else they may have changed where to look for a file.
func (s *statics) byRule(x *found) (done bool) {
	rules := s.rulesOf(x.release)
	if rules == nil {
		return false
	}
	q := ruleRequest(x.r)
	x.fields.set, x.fields.remove = rules.Fields(q)
	_, file := lookup(x.release, x.r.URL.Path)
	m, ok := rules.Move(q, file)
	if !ok {
		return false
	}
	x.move = &m
	for _, n := range m.Rule.Needs {
		switch n.Kind {
		case "language":
			x.vary = append(x.vary, "Accept-Language")
		case "cookie":
			x.vary = append(x.vary, "Cookie")
		case "header":
			x.vary = append(x.vary, http.CanonicalHeaderKey(n.Key))
		case "country":
			x.fields.private = true // no field of the client's own says it
		}
	}
	switch {
	case m.Status >= 300 && m.Status < 400:
		if x.r.URL.RawQuery != "" && !strings.Contains(m.To, "?") {
			m.To += "?" + x.r.URL.RawQuery
		}
		x.status, x.location = m.Status, escapeLocation(m.To)
		return true
	case m.Status == http.StatusOK:
		if to, _, _ := strings.Cut(m.To, "?"); path.Clean("/"+to) != x.r.URL.Path {
			x.r = at(x.r, path.Clean("/"+to))
		}
		return false
	}
	if name, ok := lookup(x.release, m.To); ok {
		x.is(x.release, name, m.Status, "a rule of the site")
	} else {
		x.no = page{m.Status, "no such page", x.r.URL.Path, ""}
	}
	return true
}

// siteFields are what _headers and its like say.
type siteFields struct {
	set     map[string]string
	remove  []string
	private bool // nobody but who asked may keep the answer
}

func (f *siteFields) any() bool { return len(f.set)+len(f.remove) > 0 || f.private }

func (f *siteFields) edit(h http.Header, status int) {
	hashed, failed := strings.Contains(h.Get("Cache-Control"), "immutable"), status >= 400
	for _, name := range f.remove {
		if !failed || !keeps(name) {
			h.Del(name)
		}
	}
	for k, v := range f.set {
		if !failed || !keeps(k) {
			h.Set(k, v)
		}
	}
	if f.private {
		h.Set("Cache-Control", "private, no-store")
		h.Del("CDN-Cache-Control")
		return
	}
	// Browsers may keep a page as long as the site says. This cache asks each time: the next release
	// must not have to wait for what it has kept of the last.
	if failed {
		return
	}
	if f.set["Cache-Control"] != "" && !hashed || f.set["Cdn-Cache-Control"] != "" {
		h.Set("CDN-Cache-Control", "no-cache")
	}
}
