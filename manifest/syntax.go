package manifest

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"tenfold/internal/lazy"
)

// readYAML gives the top mapping, or nil after it has reported why there is none. Anchors, aliases,
// merge keys and tags are refused before anything is expanded (rule 8), which also ends YAML bombs.
func readYAML(r *reporter, src []byte) *yaml.Node {
	if len(src) > MaxSize {
		r.at(nil, "a manifest is a few hundred lines; was another file meant?", "the file has %d bytes, at most %d are read", len(src), MaxSize)
		return nil
	}
	if i := badUTF8(src); i >= 0 {
		line := 1 + bytes.Count(src[:i], []byte("\n"))
		col := utf8.RuneCount(src[bytes.LastIndexByte(src[:i], '\n')+1:i]) + 1
		r.problems = append(r.problems, r.text.problem(line, col, 1, "the file is not UTF-8: byte "+hexByte(src[i])+" at offset "+itoa(i), "save it as UTF-8"))
		return nil
	}
	// A dense file of brackets must end here, not in the recursion of the parser.
	if tooDeep(r, src) {
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(src))
	var doc, second yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) || err == nil && empty(&doc) {
		r.at(nil, "write at least \"services: [api]\", or run tenfold init for a first version", "the file is empty")
		return nil
	}
	if err != nil {
		explain(r, src, err)
		return nil
	}
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		at := &second
		if err != nil || second.Line == 0 {
			at = nil
		}
		r.at(at, "one file holds one app: remove the line \"---\" and what follows", "the file holds several YAML documents")
		return nil
	}
	refuse(r, doc.Content[0], 1)
	if r.failed() {
		return nil
	}
	return doc.Content[0]
}

func empty(doc *yaml.Node) bool {
	return len(doc.Content) == 0 || doc.Content[0].Kind == yaml.ScalarNode && doc.Content[0].Tag == "!!null"
}

func badUTF8(src []byte) int {
	for i := 0; i < len(src); {
		r, n := utf8.DecodeRune(src[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// tooDeep counts brackets outside quotes and comments. It is coarse: text that opens more than
// MaxDepth brackets on the way is no manifest.
func tooDeep(r *reporter, src []byte) bool {
	depth, line := 0, 1
	var quote byte
	for i, c := range src {
		switch {
		case c == '\n':
			line++
			continue
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case (c == '"' || c == '\'') && (i == 0 || strings.IndexByte(" \t\n[{,:", src[i-1]) >= 0):
			quote = c
		case c == '[' || c == '{':
			if depth++; depth > 4*MaxDepth {
				r.problems = append(r.problems, r.text.problem(line, 1, 1, "nested deeper than "+itoa(MaxDepth)+" levels", "a manifest needs no more than 8"))
				return true
			}
		case (c == ']' || c == '}') && depth > 0:
			depth--
		}
	}
	return false
}

// refuse walks the nodes and reports what the language leaves out.
func refuse(r *reporter, n *yaml.Node, depth int) {
	if depth > MaxDepth {
		r.at(n, "a manifest needs no more than 8", "nested deeper than %d levels", MaxDepth)
		return
	}
	const rule8 = "write the value out in each place; what differs by place stands in environments"
	switch {
	case n.Kind == yaml.AliasNode:
		r.at(n, rule8+"; a text that begins with * must be quoted", "YAML aliases (*%s) are not part of the language", n.Value)
		return
	case n.Anchor != "":
		r.at(n, rule8, "YAML anchors (&%s) are not part of the language", n.Anchor)
	case n.Style&yaml.TaggedStyle != 0:
		r.at(n, "remove it: the key says what type its value has", "YAML tags (%s) are not part of the language", n.Tag)
	}
	if n.Kind == yaml.MappingNode {
		seen := map[string]*yaml.Node{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			switch {
			case k.Kind == yaml.AliasNode:
			case k.Tag == "!!merge":
				r.at(k, rule8, "YAML merge keys (<<) are not part of the language")
			case k.Kind != yaml.ScalarNode:
				r.at(k, "a key is a word", "a key must be text")
			case seen[k.Value] != nil:
				r.at(k, "keep one of them", "the key %q stands twice; it stands first on line %d", k.Value, seen[k.Value].Line)
			default:
				seen[k.Value] = k
			}
		}
	}
	for _, c := range n.Content {
		refuse(r, c, depth+1)
	}
}

// explain finds line and column of a syntax error, which the YAML package tells roughly or not at
// all: the line after the longest prefix of the file that still is YAML. Looking for one by one
// would be quadratic; halving lands near it, and a few steps on pass over a list of several lines.
func explain(r *reporter, src []byte, err error) {
	lines := bytes.SplitAfter(src, []byte("\n"))
	ok := func(k int) bool {
		var n yaml.Node
		return yaml.Unmarshal(bytes.Join(lines[:k], nil), &n) == nil
	}
	low, high := 0, len(lines)
	for low+1 < high {
		if mid := (low + high) / 2; ok(mid) {
			low = mid
		} else {
			high = mid
		}
	}
	for k := low + 1; k <= min(low+30, len(lines)); k++ {
		if ok(k) {
			low = k
		}
	}
	line := min(low+1, len(lines))
	s := r.text.lines[line-1]
	col := 1 + len(s) - len(strings.TrimLeft(s, " \t"))
	msg, hint := strings.TrimPrefix(err.Error(), "yaml: "), ""
	if rest, found := strings.CutPrefix(msg, "line "); found {
		if _, after, cut := strings.Cut(rest, ": "); cut {
			msg = after
		}
	}
	width := 1
	if c, w, m, h := cause(s); m != "" {
		col, width, msg, hint = c, w, m, h
	} else {
		msg = "not valid YAML: " + msg
		hint = "check the indentation and the brackets of this line"
	}
	r.problems = append(r.problems, r.text.problem(line, utf8.RuneCountInString(s[:min(col-1, len(s))])+1, width, msg, hint))
}

var (
	tabIndent   = lazy.Regexp(`^ *\t`)
	leadingStar = lazy.Regexp(`(?:^\s*|[:\-\[{,]\s*)(\*[^\s,\]}:]*)`)
	leadingSign = lazy.Regexp("(?:^|[:\\-\\[{,])\\s+([@`%][^\\s,\\]}]*)")
	colonInText = lazy.Regexp(`^\s*(?:- )?[^\s"'#:\[{]+:\s+([^"'\[{|>#][^#]*?: .*)$`)
)

// cause says what is wrong with a line in words of this language, "" when it sees nothing.
// The column is in bytes, from 1.
func cause(s string) (col, width int, msg, hint string) {
	switch {
	case tabIndent.MatchString(s):
		return strings.IndexByte(s, '\t') + 1, 1, "a tab in the indentation", "YAML is indented with spaces: replace the tab with two"
	case leadingStar.MatchString(s):
		m := leadingStar.Get().FindStringSubmatchIndex(s)
		w := s[m[2]:m[3]]
		return m[2] + 1, len(w), "a leading * must be quoted", "write \"" + w + "\""
	case leadingSign.MatchString(s):
		m := leadingSign.Get().FindStringSubmatchIndex(s)
		w := s[m[2]:m[3]]
		return m[2] + 1, len(w), "a leading " + w[:1] + " must be quoted", "write \"" + w + "\""
	case strings.Count(s, `"`)%2 == 1 && !strings.Contains(s, `\"`):
		return strings.LastIndexByte(s, '"') + 1, 1, "a quote is not closed", "close it with \" on the same line"
	case strings.Count(s, "[") > strings.Count(s, "]"):
		return strings.LastIndexByte(s, '[') + 1, 1, "a [ is not closed", "close it with ]"
	case strings.Count(s, "{") > strings.Count(s, "}"):
		return strings.LastIndexByte(s, '{') + 1, 1, "a { is not closed", "close it with }"
	case colonInText.MatchString(s):
		m := colonInText.Get().FindStringSubmatchIndex(s)
		return m[2] + 1, m[3] - m[2], "a text with \": \" in it must be quoted", "write '" + s[m[2]:m[3]] + "'"
	}
	return 0, 0, "", ""
}
