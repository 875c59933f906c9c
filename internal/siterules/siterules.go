// Package siterules reads the rule files that sites bring along from other hosts: _redirects and _headers
// of Netlify and of Cloudflare Pages, vercel.json, and Amplify's customHttp.yml and redirect JSON. All of
// them become one form: an ordered list of redirects, rewrites and headers whose patterns are regular
// expressions (RE2: no input makes one slow).
//
// What a file says and is not honoured is noted with its line, never dropped in silence: a rule with a
// condition that cannot be judged is left out as a whole, since without it it would hold for all. A file
// with an error gives an error with the line, and, where its rules are lines, those of its other lines. Pure: Read asks its caller for files. Begin at Read.
package siterules

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Bounds of what is read.
const (
	MaxFile  = 1 << 20 // bytes of a file
	maxRules = 5000    // of a file
	maxLine  = 8 << 10 // bytes of a pattern or target
)

// Set is what all rule files of a site say, in the order in which it is asked.
type Set struct {
	Redirects []Redirect `json:"redirects,omitempty"`
	Headers   []Header   `json:"headers,omitempty"`
	// Faults are the errors of the file that these rules stand in for: they are its lines without
	// an error, or, Earlier, those of the last file that had none.
	Faults  []string `json:"faults,omitempty"`
	Earlier bool     `json:"earlier,omitempty"`
}

// Empty says that there is nothing to follow.
func (s *Set) Empty() bool { return s == nil || len(s.Redirects)+len(s.Headers) == 0 }

// Redirect sends the browser elsewhere (Status 3xx), answers with another file (200) or with a page of
// an error (4xx).
type Redirect struct {
	Pattern
	// To is a path or an address; "${name}" in it stands for what the pattern's group of that name matched.
	To     string `json:"to"`
	Status int    `json:"status"`
	// Behind says that a file of the path itself comes first; else the rule does.
	Behind bool `json:"behind,omitempty"`
}

// Header sets and removes fields of answers.
type Header struct {
	Pattern
	Set    []Field  `json:"set,omitempty"`
	Remove []string `json:"remove,omitempty"`
}

// Field is one header field.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Pattern says which requests are meant.
type Pattern struct {
	Path string `json:"path"`           // regular expression for the whole decoded path
	Not  string `json:"not,omitempty"`  // one for what the path must not match
	Host string `json:"host,omitempty"` // exact; "": any
	// Query are parameters that must be there: with a value, or with any, taken under a name ("${id}").
	Query []Param `json:"query,omitempty"`
	Needs []Need  `json:"needs,omitempty"`

	File string `json:"file"`           // where the rule stands
	Line int    `json:"line,omitempty"` // 0: not known
	From string `json:"from"`           // as it was written
}

// Param is a query parameter that a pattern asks for.
type Param struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
	As    string `json:"as,omitempty"`
}

// Need is a condition beside the URL.
type Need struct {
	Kind  string   `json:"kind"` // language, country, cookie, header, query, host
	Key   string   `json:"key,omitempty"`
	OneOf []string `json:"oneOf,omitempty"` // values; none: that it is there
	Match string   `json:"match,omitempty"` // or a regular expression for the whole value
	Not   bool     `json:"not,omitempty"`
}

// Note is something in a file that is not honoured.
type Note struct {
	File string
	Line int
	Text string
}

func (n Note) String() string {
	if n.Line > 0 {
		return fmt.Sprintf("%s:%d: %s", n.File, n.Line, n.Text)
	}
	return n.File + ": " + n.Text
}

// Error is what makes a file unusable.
type Error struct {
	File string
	Line int
	Text string
}

func (e *Error) Error() string { return Note(*e).String() }

// Errors are those of a file whose other lines were read, each an Error.
type Errors []error

func (e Errors) Error() string {
	if len(e) == 1 {
		return e[0].Error()
	}
	return fmt.Sprintf("%v (and %d more errors)", e[0], len(e)-1)
}

// Unwrap gives each.
func (e Errors) Unwrap() []error { return e }

// Dialect is whose _redirects it is; they differ.
type Dialect int

// The dialects. Netlify's: a file of the path comes before a rule without "!", status 301 unless said.
// Cloudflare's: rules come before files, 302 unless said.
const (
	Netlify Dialect = iota
	Cloudflare
)

// Names are the rule files, in the order in which their rules are asked. They are never served.
var Names = []string{"_redirects", "_headers", "vercel.json", "customHttp.yml", "customHttp.yaml", "amplify-redirects.json"}

// Read reads one rule file. With Errors the set has the rules of its good lines, with another error none.
func Read(name string, text []byte, d Dialect) (Set, []Note, error) {
	f := &file{name: name, dialect: d}
	if len(text) > MaxFile {
		return Set{}, nil, &Error{name, 0, fmt.Sprintf("it has %d bytes, at most %d are read", len(text), MaxFile)}
	}
	if i := slices.Index(text, 0); i >= 0 {
		return Set{}, nil, &Error{name, 0, "it is not text"}
	}
	var err error
	switch name {
	case "_redirects":
		f.redirects(string(text))
	case "_headers":
		f.headers(string(text))
	case "vercel.json":
		err = f.vercel(text)
	case "customHttp.yml", "customHttp.yaml":
		err = f.customHTTP(text)
	case "amplify-redirects.json":
		err = f.amplify(text)
	default:
		return Set{}, nil, fmt.Errorf("%s is no rule file", name)
	}
	if err == nil && len(f.set.Redirects)+len(f.set.Headers) > maxRules {
		err = &Error{name, 0, fmt.Sprintf("it has more than %d rules", maxRules)}
	}
	if err != nil {
		return Set{}, nil, err
	}
	if len(f.bad) > 0 {
		return f.set, f.notes, f.bad
	}
	return f.set, f.notes, nil
}

// file is a file while it is read.
type file struct {
	name    string
	dialect Dialect
	set     Set
	notes   []Note
	bad     Errors
}

func (f *file) note(line int, format string, args ...any) {
	f.notes = append(f.notes, Note{f.name, line, fmt.Sprintf(format, args...)})
}

func (f *file) fail(line int, format string, args ...any) error {
	return &Error{f.name, line, fmt.Sprintf(format, args...)}
}

// pattern checks a regular expression that was made of a written pattern.
func (f *file) pattern(line int, from, expr string) (Pattern, error) {
	p := Pattern{Path: "^" + expr + "$", File: f.name, Line: line, From: from}
	if len(from) > maxLine {
		return p, f.fail(line, "a pattern of %d bytes", len(from))
	}
	if _, err := regexp.Compile(p.Path); err != nil {
		return p, f.fail(line, "%q is no pattern: %v", cut(from), err)
	}
	return p, nil
}

// target says what is wrong with where a rule leads.
func target(to string, status int) (bad string) {
	switch {
	case to == "" || len(to) > maxLine:
		return "it leads nowhere"
	case strings.ContainsAny(to, "\r\n\x00"):
		return "its target is not one line"
	case status == 200 || status >= 400:
		if !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") {
			return "another host is not asked on a visitor's behalf: " + cut(to)
		}
	case !strings.HasPrefix(to, "/") && !strings.HasPrefix(to, "https://") && !strings.HasPrefix(to, "http://"):
		return "it leads neither to a path nor to an address: " + cut(to)
	}
	return ""
}

// splitHost takes the host off an address: no part of a request becomes one.
func splitHost(to string) (head, path string) {
	i := strings.Index(to, "://")
	if i < 0 {
		return "", to
	}
	if j := strings.IndexByte(to[i+3:], '/'); j >= 0 {
		return to[:i+3+j], to[i+3+j:]
	}
	return to, ""
}

func cut(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}

// headerOK says that a field may be set by a site's own file: it is well-formed, and not one that frames
// the message or speaks for the front door.
func headerOK(name, value string) (bad string) {
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+.^_`|~-") != "" {
		return fmt.Sprintf("%q is no name of a header", cut(name))
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return "the value of " + name + " is not one line"
	}
	switch strings.ToLower(name) {
	case "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "trailer", "te", "date", "host", "content-encoding", "content-range", "accept-ranges", "age", "etag", "last-modified", "server-timing", "cache-status", "set-cookie":
		return name + " is the front door's own"
	case "basic-auth":
		return "Basic-Auth protects nothing here; write edge.routes.*.auth in tenfold.yaml"
	}
	return ""
}
