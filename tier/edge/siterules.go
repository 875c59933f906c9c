package edge

import (
	"net/http"
	"path"
	"slices"
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

// byRule answers with what a site's own rules say, after edge.routes and, by the dialect, before or
// after the file of the path itself. done: it has. Else w sets the headers of the rules, and path is
// where to look for a file.
func (s *statics) byRule(w http.ResponseWriter, r *http.Request, at release.Site, rel *release.Release) (out http.ResponseWriter, to string, done bool) {
	rules := s.rulesOf(rel)
	if rules == nil {
		return w, r.URL.Path, false
	}
	q := ruleRequest(r)
	if set, remove := rules.Fields(q); len(set)+len(remove) > 0 {
		w = &headerWriter{ResponseWriter: w, editor: &siteFields{set, remove}}
	}
	_, file := lookup(rel, r.URL.Path)
	m, ok := rules.Move(q, file)
	if !ok {
		return w, r.URL.Path, false
	}
	for _, n := range m.Rule.Needs {
		switch n.Kind {
		case "language":
			w.Header().Add("Vary", "Accept-Language")
		case "cookie":
			w.Header().Add("Vary", "Cookie")
		case "header":
			w.Header().Add("Vary", http.CanonicalHeaderKey(n.Key))
		case "country":
			w.Header().Set("Cache-Control", "private, no-store") // no field of the client's own says it
		}
	}
	switch {
	case m.Status >= 300 && m.Status < 400:
		if r.URL.RawQuery != "" && !strings.Contains(m.To, "?") {
			m.To += "?" + r.URL.RawQuery
		}
		w.Header().Set("Location", escapeLocation(m.To))
		w.WriteHeader(m.Status)
		return w, "", true
	case m.Status == http.StatusOK:
		to, _, _ = strings.Cut(m.To, "?")
		return w, path.Clean("/" + to), false
	}
	if name, ok := lookup(rel, m.To); ok {
		s.file(w, r, at, rel, name, m.Status)
	} else {
		page{m.Status, "no such page", r.URL.Path, ""}.show(w, r)
	}
	return w, "", true
}

// siteFields are what _headers and its like say.
type siteFields struct {
	set    map[string]string
	remove []string
}

func (f *siteFields) edit(h http.Header, _ int) {
	hashed := strings.Contains(h.Get("Cache-Control"), "immutable")
	for _, name := range f.remove {
		h.Del(name)
	}
	for k, v := range f.set {
		h.Set(k, v)
	}
	// Browsers may keep a page as long as the site says. This cache asks each time: the next release
	// must not have to wait for what it has kept of the last.
	if f.set["Cache-Control"] != "" && !hashed || f.set["Cdn-Cache-Control"] != "" {
		h.Set("CDN-Cache-Control", "no-cache")
	}
}

// explainRules says which of a site's own rules a request meets.
func (x *explainer) explainRules(rel *release.Release) {
	rules := x.d.statics.rulesOf(rel)
	if rules == nil {
		return
	}
	q := ruleRequest(x.r)
	_, file := lookup(rel, x.r.URL.Path)
	if m, ok := rules.Move(q, file); ok {
		says := map[bool]string{true: "moved to ", false: "answered by "}[m.Status >= 300 && m.Status < 400] + m.To
		x.say("site's rule", says, siterules.Note{File: m.Rule.File, Line: m.Rule.Line, Text: m.Rule.From}.String())
		switch {
		case m.Status >= 300 && m.Status < 400:
			x.answers(http.StatusText(m.Status) + " to " + m.To)
		case m.Status != http.StatusOK:
			x.answers(http.StatusText(m.Status) + ", by a rule of the site")
		}
	}
	set, remove := rules.Fields(q)
	var keys []string
	for k := range set {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		x.say("header", k+": "+set[k], "the site's own rules")
	}
	for _, k := range remove {
		x.say("header", k+" removed", "the site's own rules")
	}
}
