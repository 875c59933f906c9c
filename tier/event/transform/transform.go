// Package transform makes what a target is given of an event: a part of it by a path, or a template whose
// placeholders are filled from it.
//
// It is pure. Begin at Path and Template. Source: "Amazon EventBridge input transformation" and "Target
// parameters" of the EventBridge User Guide.
package transform

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Limits of an input transformer.
const (
	maxTemplate = 8192
	maxPaths    = 100
)

// Path is a JSON path of the kind that EventBridge takes: $.detail.lines[0].sku, with $ for the whole.
type Path struct{ steps []step }

type step struct {
	name  string
	index int // of a list, when name is ""
}

// ParsePath reads a path.
func ParsePath(s string) (Path, error) {
	rest, ok := strings.CutPrefix(s, "$")
	if !ok || len(s) > 256 {
		return Path{}, fmt.Errorf("%q is no path: it begins with $ and has at most 256 characters", s)
	}
	var p Path
	for rest != "" {
		switch {
		case strings.HasPrefix(rest, "['"):
			name, after, ok := strings.Cut(rest[2:], "']")
			if !ok || name == "" {
				return Path{}, fmt.Errorf("%q is no path: ['…'] is not closed", s)
			}
			p.steps, rest = append(p.steps, step{name: name}), after
		case rest[0] == '[':
			n, after, ok := strings.Cut(rest[1:], "]")
			i, err := strconv.Atoi(n)
			if !ok || err != nil || i < 0 {
				return Path{}, fmt.Errorf("%q is no path: [n] takes a number", s)
			}
			p.steps, rest = append(p.steps, step{index: i}), after
		case rest[0] == '.':
			rest = rest[1:]
			end := strings.IndexAny(rest, ".[")
			if end < 0 {
				end = len(rest)
			}
			if end == 0 {
				return Path{}, fmt.Errorf("%q is no path: a name is empty", s)
			}
			p.steps, rest = append(p.steps, step{name: rest[:end]}), rest[end:]
		default:
			return Path{}, fmt.Errorf("%q is no path: after $ stands .name or [n]", s)
		}
	}
	return p, nil
}

// Get is what stands at the path; ok is false when nothing does.
func (p Path) Get(event any) (v any, ok bool) {
	v = event
	for _, s := range p.steps {
		if s.name != "" {
			m, isMap := v.(map[string]any)
			if v, ok = m[s.name]; !isMap || !ok {
				return nil, false
			}
			continue
		}
		list, isList := v.([]any)
		if !isList || s.index >= len(list) {
			return nil, false
		}
		v = list[s.index]
	}
	return v, true
}

// Template is a text with placeholders: <name>.
type Template struct {
	paths map[string]Path
	text  string
}

// ParseTemplate reads an input transformer. Placeholders that no path names are refused, but those of
// EventBridge itself: <aws.events.event>, <aws.events.event.json>, <aws.events.event.ingestion-time>,
// <aws.events.rule-arn> and <aws.events.rule-name>.
func ParseTemplate(paths map[string]string, text string) (*Template, error) {
	if text == "" || len(text) > maxTemplate {
		return nil, fmt.Errorf("has not 1 to %d characters", maxTemplate)
	}
	if len(paths) > maxPaths {
		return nil, fmt.Errorf("has more than %d paths", maxPaths)
	}
	t := &Template{paths: map[string]Path{}, text: text}
	for name, s := range paths {
		if strings.HasPrefix(strings.ToLower(name), "aws") {
			return nil, fmt.Errorf("names a path %q: names that begin with AWS are EventBridge's own", name)
		}
		p, err := ParsePath(s)
		if err != nil {
			return nil, err
		}
		t.paths[name] = p
	}
	var missing string
	t.each(func(name string, _ bool) []byte {
		if _, ok := t.paths[name]; !ok && !strings.HasPrefix(name, "aws.events.") && missing == "" {
			missing = name
		}
		return nil
	})
	if missing != "" {
		return nil, fmt.Errorf("contains invalid placeholder %s.", missing)
	}
	return t, nil
}

// each copies the template and has f fill the placeholders; quoted says that one stands inside quotes.
func (t *Template) each(f func(name string, quoted bool) []byte) []byte {
	var out []byte
	quoted := false
	for i := 0; i < len(t.text); i++ {
		c := t.text[i]
		switch {
		case c == '\\' && i+1 < len(t.text):
			out = append(out, c, t.text[i+1])
			i++
			continue
		case c == '"':
			quoted = !quoted
		case c == '<':
			if n := strings.IndexByte(t.text[i:], '>'); n > 1 && placeholder(t.text[i+1:i+n]) {
				out = append(out, f(t.text[i+1:i+n], quoted)...)
				i += n
				continue
			}
		}
		out = append(out, c)
	}
	return out
}

func placeholder(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.') {
			return false
		}
	}
	return true
}

// Facts are what is known of an event beside what is in it.
type Facts struct{ RuleARN, RuleName, Ingested string }

// Decode reads an event as Get and Fill take it.
func Decode(event []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(event))
	d.UseNumber()
	return v, d.Decode(&v)
}

// Fill is what the template makes of an event. Outside of quotes a value stands as JSON, inside as its text.
func (t *Template) Fill(event any, f Facts) []byte {
	return t.each(func(name string, quoted bool) []byte {
		var v any
		switch name {
		case "aws.events.event", "aws.events.event.json":
			v = event
		case "aws.events.event.ingestion-time":
			v = f.Ingested
		case "aws.events.rule-arn":
			v = f.RuleARN
		case "aws.events.rule-name":
			v = f.RuleName
		default:
			v, _ = t.paths[name].Get(event)
		}
		raw, err := json.Marshal(v)
		if err != nil {
			return nil // it was JSON before
		}
		if !quoted {
			return raw
		}
		switch v.(type) {
		case nil:
			return nil
		case string:
			return raw[1 : len(raw)-1]
		case map[string]any, []any: // its quotes would end the text
			s, err := json.Marshal(string(raw))
			if err != nil {
				return nil
			}
			return s[1 : len(s)-1]
		}
		return raw
	})
}
