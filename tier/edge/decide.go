package edge

import (
	"net/http"
	"net/url"
	"strings"

	"tenfold/internal/directory"
	"tenfold/tier/edge/httpcache"
)

// rule is edge.routes of one pattern, made ready.
type rule struct {
	directory.Rule
	guard   *guard          // nil: nothing is said of who may pass
	limiter *limiter        // nil: no limit
	caching *httpcache.Rule // nil: nothing is said of the cache
}

// decision is what the rules of a site say of a request: key by key, each by the most specific
// pattern that has it. The same decision is what ServeHTTP follows and what explain tells.
type decision struct {
	redirect, rewrite said
	maintenance       said
	cors              said
	auth              said
	limit             said
	caching           said
	wait              said // timeout
	hedge             said
	headers, request  map[string]set // by canonical name
}

// said is one key of one rule. The zero value: no rule says it.
type said struct {
	*rule
	pattern, rest string
}

// set is a header field and the pattern that sets it; an empty value removes it.
type set struct{ value, pattern string }

// decide asks all rules of a site. Most sites have none.
func (s *site) decide(method, host, path string) (d decision) {
	s.rules.All(method, host, path, func(pattern, rest string, r *rule) bool {
		one := said{r, pattern, rest}
		first := func(k *said, has bool) {
			if has && k.rule == nil {
				*k = one
			}
		}
		// A redirect and a rewrite are one choice: the nearer of them holds.
		moved := d.redirect.rule != nil || d.rewrite.rule != nil
		first(&d.redirect, r.RedirectTo != "" && !moved)
		first(&d.rewrite, r.Rewrite != "" && !moved)
		first(&d.maintenance, r.Maintenance != "")
		first(&d.cors, r.CORS != nil)
		first(&d.auth, r.guard != nil)
		first(&d.limit, r.limiter != nil)
		first(&d.caching, r.caching != nil)
		first(&d.wait, r.Timeout > 0)
		first(&d.hedge, r.Hedge > 0)
		nearer(&d.headers, r.Headers, pattern)
		nearer(&d.request, r.Request, pattern)
		return true
	})
	return d
}

// nearer adds fields that no nearer rule has said.
func nearer(to *map[string]set, fields map[string]string, pattern string) {
	for k, v := range fields {
		k = http.CanonicalHeaderKey(k)
		if _, ok := (*to)[k]; ok {
			continue
		}
		if *to == nil {
			*to = map[string]set{}
		}
		(*to)[k] = set{v, pattern}
	}
}

// plain says that a rule leaves answers as they are stored, under the path that was asked for: nothing
// about it depends on who asks.
func (r *rule) plain() bool {
	return r.RedirectTo == "" && r.Rewrite == "" && r.limiter == nil && r.Maintenance == "" && len(r.CORS) == 0 && (r.guard == nil || r.guard.off)
}

// expand makes a target of what a request's path has in place of the pattern's "*" and ":names".
func (k said) expand(target, path string) string {
	to, query, asked := strings.Cut(target, "?")
	if strings.Contains(to, "/:") {
		_, from, _ := strings.Cut(k.pattern, "/")
		values := map[string]string{}
		have := strings.Split(strings.TrimPrefix(path, "/"), "/")
		for i, seg := range strings.Split(from, "/") {
			if strings.HasPrefix(seg, ":") && i < len(have) {
				values[seg] = have[i]
			}
		}
		parts := strings.Split(to, "/")
		for i, p := range parts {
			if v, ok := values[p]; ok {
				parts[i] = v
			}
		}
		to = strings.Join(parts, "/")
	}
	if strings.HasSuffix(to, "*") {
		to = strings.TrimSuffix(to, "*") + k.rest
	}
	if strings.HasPrefix(to, "//") || strings.HasPrefix(to, "/\\") {
		to = "/" + strings.TrimLeft(to, "/\\") // what a * matched must not become a host
	}
	if asked {
		to += "?" + query
	}
	return to
}

// location is where a redirect leads. What the path had is escaped again.
func (k said) location(u *url.URL) string {
	to := k.expand(k.RedirectTo, u.Path)
	if u.RawQuery != "" && !strings.Contains(to, "?") {
		to += "?" + u.RawQuery
	}
	return escapeLocation(to)
}

// escapeLocation escapes what cannot stand in a Location; percent signs stay.
func escapeLocation(s string) string {
	const hex = "0123456789ABCDEF"
	if !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '<' || r == '>' }) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '<' || c == '>' {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// rewritten is the URL that is asked for instead.
func (k said) rewritten(u *url.URL) *url.URL {
	path, query, _ := strings.Cut(k.expand(k.Rewrite, u.Path), "?")
	out := *u
	out.Path, out.RawPath = path, ""
	out.RawQuery = strings.Trim(query+"&"+u.RawQuery, "&")
	return &out
}

// path is where a request is routed.
func (d *decision) path(u *url.URL) string {
	if d.rewrite.rule == nil {
		return u.Path
	}
	return d.rewrite.rewritten(u).Path
}

// ruleFor is the cache's rule for a request to a destination.
func (d *decision) ruleFor(to *destination) *httpcache.Rule {
	if d.caching.rule != nil {
		return d.caching.caching
	}
	return &to.rule
}

// onRequest sets and removes fields of what a service gets.
func (d *decision) onRequest(r *http.Request) {
	for k, v := range d.request {
		switch {
		case k == "Host" && v.value != "":
			r.Host = v.value
		case v.value == "":
			r.Header.Del(k)
		default:
			r.Header.Set(k, v.value)
		}
	}
}
