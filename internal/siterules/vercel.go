package siterules

import (
	"bytes"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"tenfold/internal/lazy"
)

// vercelRule is an entry of redirects, rewrites or headers.
type vercelRule struct {
	Source      string        `json:"source"`
	Destination string        `json:"destination"`
	Permanent   *bool         `json:"permanent"`
	StatusCode  int           `json:"statusCode"`
	Headers     []vercelField `json:"headers"`
	Has         []vercelHas   `json:"has"`
	Missing     []vercelHas   `json:"missing"`
}

type vercelField struct{ Key, Value string }

type vercelHas struct {
	Type  string          `json:"type"`
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
}

// vercelElsewhere are keys that say how a project is built, which is not this package's concern.
var vercelElsewhere = []string{"$schema", "version", "name", "buildCommand", "outputDirectory", "installCommand", "devCommand", "framework", "public", "github", "git", "regions", "ignoreCommand", "scope", "alias", "redirects", "rewrites", "headers", "cleanUrls", "trailingSlash"}

// vercel reads vercel.json.
func (f *file) vercel(text []byte) error {
	var doc struct {
		Redirects, Rewrites, Headers []vercelRule
		CleanURLs                    bool `json:"cleanUrls"`
		TrailingSlash                *bool
	}
	if err := f.json(text, &doc); err != nil {
		return err
	}
	var keys map[string]json.RawMessage
	if err := f.json(text, &keys); err != nil {
		return err
	}
	for k := range keys {
		if !slices.Contains(vercelElsewhere, k) {
			f.note(lineOf(text, `"`+k+`"`), "%q is not honoured", cut(k))
		}
	}
	slices.SortFunc(f.notes, func(a, b Note) int { return a.Line - b.Line })
	for _, r := range doc.Redirects {
		status := r.StatusCode
		if status == 0 {
			status = 307
			if r.Permanent == nil || *r.Permanent {
				status = 308
			}
		}
		if err := f.vercelRedirect(text, r, status, false); err != nil {
			return err
		}
	}
	f.tidyURLs(doc.CleanURLs, doc.TrailingSlash)
	for _, r := range doc.Rewrites {
		if err := f.vercelRedirect(text, r, 200, true); err != nil {
			return err
		}
	}
	for _, r := range doc.Headers {
		line := lineOf(text, strconv.Quote(r.Source))
		p, ok, err := f.vercelPattern(line, r)
		if err != nil || !ok {
			if err != nil {
				return err
			}
			continue
		}
		h := Header{Pattern: p}
		for _, kv := range r.Headers {
			if bad := headerOK(kv.Key, kv.Value); bad != "" {
				f.note(line, "%s", bad)
				continue
			}
			h.Set = append(h.Set, Field{kv.Key, kv.Value})
		}
		f.set.Headers = append(f.set.Headers, h)
	}
	return nil
}

// tidyURLs are cleanUrls and trailingSlash, as redirects.
func (f *file) tidyURLs(clean bool, slash *bool) {
	add := func(from, expr, to string) {
		if p, err := f.pattern(0, from, expr); err == nil {
			f.set.Redirects = append(f.set.Redirects, Redirect{Pattern: p, To: to, Status: 308})
		}
	}
	if clean {
		add("cleanUrls", `(?P<dir>/|/.*/)index\.html`, "${dir}")
		add("cleanUrls", `(?P<page>/.+)\.html`, "${page}")
	}
	if slash == nil {
		return
	}
	if *slash {
		add("trailingSlash", `(?P<page>(?:/[^/.]+)+)`, "${page}/")
	} else {
		add("trailingSlash", `(?P<page>/.*[^/])/+`, "${page}")
	}
}

func (f *file) vercelRedirect(text []byte, r vercelRule, status int, behind bool) error {
	line := lineOf(text, strconv.Quote(r.Source))
	if r.Source == "" {
		return f.fail(line, "a rule has no source")
	}
	if status != 200 && !slices.Contains([]int{301, 302, 303, 307, 308}, status) {
		f.note(line, "status %d is not honoured, so the rule is not", status)
		return nil
	}
	if bad := target(r.Destination, status); bad != "" {
		f.note(line, "%s", bad)
		return nil
	}
	p, ok, err := f.vercelPattern(line, r)
	if err != nil || !ok {
		return err
	}
	f.set.Redirects = append(f.set.Redirects, Redirect{Pattern: p, To: vercelTarget(r.Destination), Status: status, Behind: behind})
	return nil
}

func (f *file) vercelPattern(line int, r vercelRule) (p Pattern, ok bool, err error) {
	expr, not, bad := fromPathToRegexp(r.Source)
	if bad != "" {
		f.note(line, "%s in %q is not honoured, so the rule is not", bad, cut(r.Source))
		return p, false, nil
	}
	if !compiles(expr) {
		f.note(line, "an expression in %q is not honoured, so the rule is not", cut(r.Source))
		return p, false, nil
	}
	if p, err = f.pattern(line, r.Source, expr); err != nil {
		return p, false, err
	}
	if not != "" {
		if p.Not = not; !compiles(not) {
			return p, false, f.fail(line, "%q is no pattern", cut(r.Source))
		}
	}
	for _, list := range []struct {
		of  []vercelHas
		not bool
	}{{r.Has, false}, {r.Missing, true}} {
		for _, h := range list.of {
			n := Need{Kind: h.Type, Key: h.Key, Not: list.not}
			if !slices.Contains([]string{"header", "cookie", "query", "host"}, h.Type) {
				f.note(line, "the condition %q is not honoured, so the rule is not", cut(h.Type))
				return p, false, nil
			}
			var value string
			if len(h.Value) > 0 && json.Unmarshal(h.Value, &value) != nil {
				f.note(line, "a condition's value that is no text is not honoured, so the rule is not")
				return p, false, nil
			}
			if value != "" {
				if n.Match = "^(?:" + value + ")$"; !compiles(n.Match) {
					f.note(line, "the condition %q is not honoured, so the rule is not", cut(value))
					return p, false, nil
				}
			}
			p.Needs = append(p.Needs, n)
		}
	}
	return p, true, nil
}

func compiles(expr string) bool { _, err := regexp.Compile(expr); return err == nil }

var (
	vercelName = lazy.Regexp(`^:([A-Za-z_][A-Za-z0-9_]*)`)
	// "/((?!api|_next).*)": everything but.
	butFor = lazy.Regexp(`^\(\(\?!([^()]*(?:\([^()]*\)[^()]*)*)\)\.\*\)`)
)

// fromPathToRegexp reads path-to-regexp's patterns, as far as RE2 can say them: ":name", with "*", "+",
// "?" or an expression of its own, and groups without a name, which are called g1, g2, …. A leading
// "(?!…)" of the one form that people use becomes a pattern of its own, not.
func fromPathToRegexp(src string) (expr, not, bad string) {
	var b strings.Builder
	groups := 0
	seen := map[string]bool{}
	for src != "" {
		switch c := src[0]; {
		case c == ':':
			m := vercelName.FindStringSubmatch(src)
			if m == nil || seen[m[1]] {
				b.WriteString(regexp.QuoteMeta(":"))
				src = src[1:]
				continue
			}
			seen[m[1]] = true
			src = src[len(m[0]):]
			inner := "[^/]+"
			if strings.HasPrefix(src, "(") {
				n := closing(src)
				if n < 0 {
					return "", "", "an open bracket"
				}
				inner, src = src[1:n], src[n+1:]
			}
			if strings.Contains(inner, "(?") || strings.HasPrefix(inner, "?") {
				return "", "", "a look around"
			}
			name := "(?P<" + m[1] + ">"
			before, slash := strings.CutSuffix(b.String(), "/")
			if src != "" && strings.IndexByte("*+?", src[0]) >= 0 && slash {
				b.Reset()
				b.WriteString(before)
				switch src[0] {
				case '*':
					b.WriteString("(?:/" + name + inner + "(?:/" + inner + ")*))?")
				case '+':
					b.WriteString("/" + name + inner + "(?:/" + inner + ")*)")
				case '?':
					b.WriteString("(?:/" + name + inner + "))?")
				}
				src = src[1:]
				continue
			}
			b.WriteString(name + inner + ")")
		case c == '(':
			if m := butFor.FindStringSubmatch(src); m != nil {
				groups++
				not = "^" + b.String() + "(?:" + m[1] + ")"
				b.WriteString("(?P<g" + strconv.Itoa(groups) + ">.*)")
				src = src[len(m[0]):]
				continue
			}
			n := closing(src)
			if n < 0 {
				return "", "", "an open bracket"
			}
			if strings.Contains(src[1:n], "(?") || strings.HasPrefix(src[1:n], "?") && !strings.HasPrefix(src[1:n], "?:") {
				return "", "", "a look around"
			}
			groups++
			b.WriteString("(?P<g" + strconv.Itoa(groups) + ">" + strings.TrimPrefix(src[1:n], "?:") + ")")
			src = src[n+1:]
		case c == '\\' && len(src) > 1:
			b.WriteString(regexp.QuoteMeta(src[1:2]))
			src = src[2:]
		default:
			b.WriteString(regexp.QuoteMeta(src[:1]))
			src = src[1:]
		}
	}
	return b.String(), not, ""
}

// closing finds the bracket that closes the first.
func closing(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

var vercelRef = lazy.Regexp(`:[A-Za-z_][A-Za-z0-9_]*[*+?]?|\$\$[0-9]+`)

// vercelTarget makes a template of a destination: ":name" and "$1".
func vercelTarget(to string) string {
	head, to := splitHost(to)
	return escape(head) + vercelRef.Get().ReplaceAllStringFunc(escape(to), func(s string) string {
		if n, ok := strings.CutPrefix(s, "$$"); ok {
			return "${g" + n + "}"
		}
		return "${" + strings.TrimRight(s[1:], "*+?") + "}"
	})
}

// json decodes text, and turns what is wrong into an Error with its line.
func (f *file) json(text []byte, into any) error {
	err := json.Unmarshal(text, into)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &syntax):
		return f.fail(lineAt(text, syntax.Offset), "%v", err)
	case errors.As(err, &kind):
		return f.fail(lineAt(text, kind.Offset), "%s cannot be a %s", cut(kind.Field), kind.Value)
	}
	return f.fail(0, "%v", err)
}

func lineAt(text []byte, offset int64) int {
	return 1 + bytes.Count(text[:min(max(offset, 0), int64(len(text)))], []byte("\n"))
}

// lineOf finds where something stands first; 0: nowhere as it is.
func lineOf(text []byte, what string) int {
	if i := bytes.Index(text, []byte(what)); i >= 0 {
		return lineAt(text, int64(i))
	}
	return 0
}
