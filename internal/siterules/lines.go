package siterules

import (
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"tenfold/internal/lazy"
)

var namedPart = lazy.Regexp(`:[A-Za-z][A-Za-z0-9_]*`)

// fromPath makes a regular expression of a path with :placeholders and *, as _redirects and _headers
// have them. One "*" at the end takes the folder itself too.
func fromPath(path string) string {
	seen := map[string]bool{}
	var b strings.Builder
	star := false
	quote := func(s string) { b.WriteString(regexp.QuoteMeta(s)) }
	for path != "" {
		i := strings.IndexAny(path, "*:")
		if i < 0 {
			quote(path)
			break
		}
		if path[i] == '*' && !star && i+1 == len(path) && strings.HasSuffix(path[:i], "/") {
			quote(strings.TrimSuffix(path[:i], "/"))
			b.WriteString("(?:/(?P<splat>.*))?")
			break
		}
		quote(path[:i])
		path = path[i:]
		if path[0] == '*' {
			if star {
				b.WriteString(".*")
			} else {
				b.WriteString("(?P<splat>.*)")
			}
			star, path = true, path[1:]
			continue
		}
		name := namedPart.FindString(path)
		if name == "" || !strings.HasPrefix(path, name) || seen[name] {
			quote(":")
			path = path[1:]
			continue
		}
		seen[name] = true
		b.WriteString("(?P<" + name[1:] + ">[^/]+)")
		path = path[len(name):]
	}
	return b.String()
}

// toTemplate makes ${name} of :name in a target, behind its host.
func toTemplate(to string) string {
	head, to := splitHost(to)
	return escape(head) + namedPart.Get().ReplaceAllStringFunc(escape(to), func(s string) string { return "${" + s[1:] + "}" })
}

// escape doubles what means something in a template.
func escape(s string) string { return strings.ReplaceAll(s, "$", "$$") }

// redirects reads _redirects: "from [name=value …] to [status][!] [Condition=value …]". A line with an error
// takes no other along.
func (f *file) redirects(text string) {
	for n, line := range strings.Split(text, "\n") {
		n++
		if i := strings.Index(line, " #"); i >= 0 {
			line = line[:i]
		}
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if bad := f.redirect(n, words); bad != nil {
			f.bad = append(f.bad, bad)
		}
	}
}

func (f *file) redirect(n int, words []string) error {
	from, host := words[0], ""
	if u, err := url.Parse(from); err == nil && (u.Scheme == "http" || u.Scheme == "https") {
		host, from = strings.ToLower(u.Hostname()), from[strings.Index(from, "://")+3:]
		if i := strings.IndexByte(from, '/'); i >= 0 {
			from = from[i:]
		} else {
			from = "/"
		}
	}
	if !strings.HasPrefix(from, "/") {
		return f.fail(n, "%q does not begin with /", cut(from))
	}
	var query []Param
	rest := words[1:]
	for len(rest) > 0 && !strings.HasPrefix(rest[0], "/") && !strings.Contains(rest[0], "://") {
		name, value, ok := strings.Cut(rest[0], "=")
		if !ok || f.dialect == Cloudflare {
			return f.fail(n, "%q is neither a parameter nor where the rule leads", cut(rest[0]))
		}
		p := Param{Name: name, Value: value}
		if strings.HasPrefix(value, ":") {
			p.Value, p.As = "", strings.TrimPrefix(value, ":")
		}
		query, rest = append(query, p), rest[1:]
	}
	if len(rest) == 0 {
		return f.fail(n, "the rule for %q leads nowhere", cut(from))
	}
	p, err := f.pattern(n, words[0], fromPath(from))
	if err != nil {
		return err
	}
	p.Host, p.Query = host, query
	r := Redirect{Pattern: p, To: toTemplate(rest[0]), Status: 301, Behind: f.dialect == Netlify}
	if f.dialect == Cloudflare {
		r.Status = 302
	}
	for _, w := range rest[1:] {
		status, force := strings.CutSuffix(w, "!")
		if code, err := strconv.Atoi(status); err == nil {
			if r.Status = code; force {
				r.Behind = false
			}
			if !slices.Contains([]int{200, 301, 302, 303, 307, 308, 404, 410}, code) {
				f.note(n, "status %d is not honoured, so the rule is not", code)
				return nil
			}
			continue
		}
		if ok := f.condition(n, w, &r); !ok {
			return nil
		}
	}
	if bad := target(rest[0], r.Status); bad != "" {
		f.note(n, "%s", bad)
		return nil
	}
	f.set.Redirects = append(f.set.Redirects, r)
	return nil
}

// condition reads Netlify's Country=, Language=, Cookie= and Role=; false: the rule is left out.
func (f *file) condition(n int, word string, r *Redirect) bool {
	name, value, ok := strings.Cut(word, "=")
	kind := strings.ToLower(name)
	values := strings.Split(strings.ToLower(value), ",")
	switch {
	case !ok || f.dialect == Cloudflare:
		f.note(n, "%q is not understood, so the rule is not honoured", cut(word))
		return false
	case kind == "country" || kind == "language":
		r.Needs = append(r.Needs, Need{Kind: kind, OneOf: values})
	case kind == "cookie":
		for _, v := range strings.Split(value, ",") {
			r.Needs = append(r.Needs, Need{Kind: "cookie", Key: v})
		}
	default:
		f.note(n, "the condition %s is not honoured, so the rule is not", cut(name))
		return false
	}
	return true
}

// headers reads _headers: a path, and below it, indented, "Name: value" or "! Name".
func (f *file) headers(text string) {
	var h *Header
	lost := false // what follows stands below a path that cannot be used
	done := func() {
		if h != nil && len(h.Set)+len(h.Remove) > 0 {
			f.set.Headers = append(f.set.Headers, *h)
		}
		h = nil
	}
	for n, line := range strings.Split(text, "\n") {
		n++
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || strings.HasPrefix(trimmed, "#"):
		case line[0] != ' ' && line[0] != '\t':
			done()
			from, host := trimmed, ""
			if u, err := url.Parse(trimmed); err == nil && u.Host != "" && strings.Contains(trimmed, "://") {
				host = strings.ToLower(u.Hostname())
				from = "/" + strings.TrimPrefix(trimmed[strings.Index(trimmed, "://")+3+len(u.Host):], "/")
			}
			var bad error
			var p Pattern
			if !strings.HasPrefix(from, "/") {
				bad = f.fail(n, "%q does not begin with /", cut(trimmed))
			} else {
				p, bad = f.pattern(n, trimmed, fromPath(from))
			}
			if lost = bad != nil; lost {
				f.bad = append(f.bad, bad)
				continue
			}
			p.Host = host
			h = &Header{Pattern: p}
		case lost:
		case h == nil:
			f.bad = append(f.bad, f.fail(n, "%q stands below no path", cut(trimmed)))
		case strings.HasPrefix(trimmed, "!"):
			h.Remove = append(h.Remove, strings.TrimSpace(trimmed[1:]))
		default:
			name, value, ok := strings.Cut(trimmed, ":")
			if !ok {
				f.bad = append(f.bad, f.fail(n, "%q is no header: write Name: value", cut(trimmed)))
				continue
			}
			name, value = strings.TrimSpace(name), strings.TrimSpace(value)
			if bad := headerOK(name, value); bad != "" {
				f.note(n, "%s", bad)
				continue
			}
			h.Set = append(h.Set, Field{name, value})
		}
	}
	done()
}
