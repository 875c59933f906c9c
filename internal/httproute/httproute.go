// Package httproute matches requests against route patterns, "[METHOD ][host]/path": the path's last
// segment may be "*" (anything below, the folder itself included) and ":name" stands for one segment.
// Order of the patterns means nothing: the most specific match wins. Pure. Begin at New.
package httproute

import (
	"fmt"
	"slices"
	"strings"
)

// Pattern is a parsed route.
type Pattern struct {
	Method, Host string
	segments     []string // ":name" and a final "*" included
}

// Parse reads a pattern.
func Parse(s string) (Pattern, error) {
	var p Pattern
	rest := s
	if i := strings.IndexByte(rest, ' '); i >= 0 {
		p.Method, rest = rest[:i], strings.TrimLeft(rest[i:], " ")
		if p.Method == "" || strings.ToUpper(p.Method) != p.Method {
			return p, fmt.Errorf("parse route %q: a method is in upper case", s)
		}
	}
	i := strings.IndexByte(rest, '/')
	if i < 0 {
		return p, fmt.Errorf("parse route %q: it has no path", s)
	}
	p.Host = strings.ToLower(rest[:i])
	p.segments = strings.Split(rest[i+1:], "/")
	for j, seg := range p.segments {
		if strings.Contains(seg, "*") && (seg != "*" || j != len(p.segments)-1) {
			return p, fmt.Errorf("parse route %q: a * stands alone, as the last segment", s)
		}
	}
	return p, nil
}

// Match says whether a request is meant. rest is what the final "*" stands for.
func (p Pattern) Match(method, host, path string) (rest string, ok bool) {
	if p.Method != "" && p.Method != method && !(p.Method == "GET" && method == "HEAD") || p.Host != "" && p.Host != host {
		return "", false
	}
	path = strings.TrimPrefix(path, "/")
	for i, seg := range p.segments {
		if seg == "*" {
			return path, true
		}
		part, after, more := strings.Cut(path, "/")
		last := i == len(p.segments)-1
		switch {
		case seg != part && !(strings.HasPrefix(seg, ":") && part != ""):
			return "", false
		case last:
			return "", !more
		case !more:
			// "/api/*" means "/api" too
			return "", i == len(p.segments)-2 && p.segments[i+1] == "*"
		}
		path = after
	}
	return "", false
}

// key orders patterns: the greater is the more specific.
func (p Pattern) key() string {
	var b strings.Builder
	b.WriteByte('a')
	if p.Host != "" {
		b.Reset()
		b.WriteByte('b')
	}
	for _, seg := range p.segments {
		switch {
		case seg == "*":
			b.WriteByte('0')
		case strings.HasPrefix(seg, ":"):
			b.WriteByte('1')
		default:
			b.WriteByte('2')
		}
	}
	if p.segments[len(p.segments)-1] != "*" {
		b.WriteByte('9') // an end is more specific than anything below
	}
	if p.Method != "" {
		b.WriteByte('m')
	}
	return b.String()
}

// Table is a set of patterns with a value each.
type Table[V any] struct{ entries []entry[V] }

type entry[V any] struct {
	pattern Pattern
	text    string
	value   V
}

// Add puts a pattern in. Two that are equally specific are decided by their text, so that the
// outcome never depends on order.
func (t *Table[V]) Add(pattern string, v V) error {
	p, err := Parse(pattern)
	if err != nil {
		return err
	}
	t.entries = append(t.entries, entry[V]{p, pattern, v})
	slices.SortFunc(t.entries, func(a, b entry[V]) int {
		if c := strings.Compare(b.pattern.key(), a.pattern.key()); c != 0 {
			return c
		}
		return strings.Compare(a.text, b.text)
	})
	return nil
}

// All calls f for each match, the most specific first, until f returns false.
func (t *Table[V]) All(method, host, path string, f func(pattern, rest string, v V) bool) {
	for _, e := range t.entries {
		if rest, ok := e.pattern.Match(method, host, path); ok && !f(e.text, rest, e.value) {
			return
		}
	}
}

// Find returns the most specific match.
func (t *Table[V]) Find(method, host, path string) (v V, pattern string, ok bool) {
	t.All(method, host, path, func(p, _ string, x V) bool {
		v, pattern, ok = x, p, true
		return false
	})
	return v, pattern, ok
}
