package siterules

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"tenfold/internal/lazy"
)

// Rules are a Set made ready to be asked. It never changes.
type Rules struct {
	redirects []redirect
	headers   []header
}

type redirect struct {
	Redirect
	matcher
}

type header struct {
	Header
	matcher
}

type matcher struct {
	path, not *regexp.Regexp
	needs     []*regexp.Regexp // of Needs, by index; nil where there is no expression
}

// Compile makes a Set ready. Its error is of a Set that Read did not make.
func (s *Set) Compile() (*Rules, error) {
	out := &Rules{}
	if s == nil {
		return out, nil
	}
	for _, r := range s.Redirects {
		m, err := r.compile()
		if err != nil {
			return nil, err
		}
		out.redirects = append(out.redirects, redirect{r, m})
	}
	for _, h := range s.Headers {
		m, err := h.compile()
		if err != nil {
			return nil, err
		}
		out.headers = append(out.headers, header{h, m})
	}
	return out, nil
}

func (p *Pattern) compile() (m matcher, err error) {
	if m.path, err = regexp.Compile(p.Path); err != nil {
		return m, err
	}
	if p.Not != "" {
		if m.not, err = regexp.Compile(p.Not); err != nil {
			return m, err
		}
	}
	m.needs = make([]*regexp.Regexp, len(p.Needs))
	for i, n := range p.Needs {
		if n.Match != "" {
			if m.needs[i], err = regexp.Compile(n.Match); err != nil {
				return m, err
			}
		}
	}
	return m, nil
}

// Request is what rules are asked about.
type Request struct {
	Host    string // without port, lower case
	Path    string // decoded
	Query   url.Values
	Header  http.Header
	Country string // two letters; "": not known
}

// Move is what a redirect says of a request.
type Move struct {
	To     string
	Status int
	Rule   Redirect
}

// Move finds the first redirect for a request. file says that there is a file of the path itself.
func (s *Rules) Move(r *Request, file bool) (Move, bool) {
	for i := range s.redirects {
		d := &s.redirects[i]
		if file && d.Behind {
			continue
		}
		values, ok := d.matches(&d.Pattern, r)
		if !ok {
			continue
		}
		to := expand(d.To, values, d.Status)
		if d.Status >= 300 && d.Status < 400 && to == r.Path {
			continue // to itself: for ever
		}
		return Move{to, d.Status, d.Redirect}, true
	}
	return Move{}, false
}

// Fields are the headers for a request: those to set, later rules' values after earlier ones', and those
// to remove.
func (s *Rules) Fields(r *Request) (set map[string]string, remove []string) {
	for i := range s.headers {
		h := &s.headers[i]
		if _, ok := h.matches(&h.Pattern, r); !ok {
			continue
		}
		for _, f := range h.Set {
			if set == nil {
				set = map[string]string{}
			}
			k := http.CanonicalHeaderKey(f.Name)
			if had, ok := set[k]; ok && had != f.Value {
				set[k] = had + ", " + f.Value
			} else {
				set[k] = f.Value
			}
		}
		for _, name := range h.Remove {
			delete(set, http.CanonicalHeaderKey(name))
			remove = append(remove, name)
		}
	}
	return set, remove
}

// matches says whether a request is meant, and what its parts are called.
func (m *matcher) matches(p *Pattern, r *Request) (values map[string]string, ok bool) {
	if p.Host != "" && p.Host != r.Host {
		return nil, false
	}
	found := m.path.FindStringSubmatch(r.Path)
	if found == nil || m.not != nil && m.not.MatchString(r.Path) {
		return nil, false
	}
	values = map[string]string{}
	for i, name := range m.path.SubexpNames() {
		if name != "" {
			values[name] = found[i]
		}
	}
	for _, q := range p.Query {
		got, there := r.Query[q.Name]
		if !there || q.As == "" && got[0] != q.Value {
			return nil, false
		}
		if q.As != "" {
			values[q.As] = got[0]
		}
	}
	for i := range p.Needs {
		if p.Needs[i].holds(r, m.needs[i]) == p.Needs[i].Not {
			return nil, false
		}
	}
	return values, true
}

func (n *Need) holds(r *Request, expr *regexp.Regexp) bool {
	var value string
	there := false
	switch n.Kind {
	case "language":
		value, there = preferred(r.Header.Get("Accept-Language")), true
		base, _, _ := strings.Cut(value, "-")
		for _, v := range n.OneOf {
			if v == value || v == base {
				return true
			}
		}
		return false
	case "country":
		value, there = strings.ToLower(r.Country), r.Country != ""
	case "cookie":
		c, err := (&http.Request{Header: r.Header}).Cookie(n.Key)
		if there = err == nil; there {
			value = c.Value
		}
	case "header":
		v := r.Header.Values(n.Key)
		if there = len(v) > 0; there {
			value = v[0]
		}
	case "query":
		v, ok := r.Query[n.Key]
		if there = ok; there {
			value = v[0]
		}
	case "host":
		value, there = r.Host, true
	}
	if !there {
		return false
	}
	if expr != nil {
		return expr.MatchString(value)
	}
	if len(n.OneOf) == 0 {
		return true
	}
	for _, v := range n.OneOf {
		if v == value {
			return true
		}
	}
	return false
}

// preferred is the first language of Accept-Language, lower case; browsers write them in that order.
func preferred(accept string) string {
	first, _, _ := strings.Cut(accept, ",")
	first, _, _ = strings.Cut(first, ";")
	return strings.ToLower(strings.TrimSpace(first))
}

var reference = lazy.Regexp(`\$\$|\$\{[A-Za-z0-9_]+\}`)

// expand fills in a target. What comes from the request is escaped, so that it stays within its part of
// the URL, and never becomes a host.
func expand(to string, values map[string]string, status int) string {
	moved := status >= 300 && status < 400
	out := reference.Get().ReplaceAllStringFunc(to, func(s string) string {
		if s == "$$" {
			return "$"
		}
		v := values[s[2:len(s)-1]]
		if !moved {
			return v
		}
		parts := strings.Split(v, "/")
		for i, p := range parts {
			parts[i] = url.PathEscape(p)
		}
		return strings.Join(parts, "/")
	})
	if strings.HasPrefix(to, "/") && (strings.HasPrefix(out, "//") || strings.HasPrefix(out, "/\\")) {
		out = "/" + strings.TrimLeft(out, "/\\")
	}
	return out
}
