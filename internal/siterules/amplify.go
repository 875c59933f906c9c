package siterules

import (
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"tenfold/internal/lazy"
)

// customHTTP reads Amplify's customHttp.yml: headers by glob.
func (f *file) customHTTP(text []byte) error {
	type entry struct {
		Pattern yaml.Node `yaml:"pattern"`
		Headers []struct {
			Key   yaml.Node `yaml:"key"`
			Value string    `yaml:"value"`
		} `yaml:"headers"`
	}
	var doc struct {
		CustomHeaders []entry `yaml:"customHeaders"`
		Applications  []struct {
			AppRoot       string  `yaml:"appRoot"`
			CustomHeaders []entry `yaml:"customHeaders"`
		} `yaml:"applications"`
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		line := 0
		if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
			line, _ = strconv.Atoi(m[1])
		}
		return f.fail(line, "%s", strings.ReplaceAll(strings.TrimPrefix(err.Error(), "yaml: "), "\n", " "))
	}
	all := doc.CustomHeaders
	for _, a := range doc.Applications {
		all = append(all, a.CustomHeaders...)
	}
	if len(doc.Applications) > 1 {
		f.note(0, "all applications' headers are set, whatever their appRoot")
	}
	for _, e := range all {
		from := e.Pattern.Value
		if from == "" {
			return f.fail(e.Pattern.Line, "an entry has no pattern")
		}
		p, err := f.pattern(e.Pattern.Line, from, fromGlob(from))
		if err != nil {
			return err
		}
		h := Header{Pattern: p}
		for _, kv := range e.Headers {
			if bad := headerOK(kv.Key.Value, kv.Value); bad != "" {
				f.note(kv.Key.Line, "%s", bad)
				continue
			}
			h.Set = append(h.Set, Field{kv.Key.Value, kv.Value})
		}
		f.set.Headers = append(f.set.Headers, h)
	}
	return nil
}

var yamlLine = lazy.Regexp(`line ([0-9]{1,9})`)

// fromGlob makes a regular expression of Amplify's globs: "**/*", "*.js", "/path/*", "**/*.css".
func fromGlob(glob string) string {
	var b strings.Builder
	rest := glob
	if !strings.HasPrefix(rest, "/") {
		if !strings.HasPrefix(rest, "**") {
			b.WriteString("/(?:.*/)?") // "*.js" is meant in every folder
		} else {
			b.WriteString("/")
		}
	}
	for rest != "" {
		switch {
		case strings.HasPrefix(rest, "**/"):
			b.WriteString("(?:.*/)?")
			rest = rest[3:]
		case strings.HasPrefix(rest, "**"):
			b.WriteString(".*")
			rest = rest[2:]
		case rest[0] == '*':
			b.WriteString("[^/]*")
			rest = rest[1:]
		case rest[0] == '?':
			b.WriteString("[^/]")
			rest = rest[1:]
		default:
			b.WriteString(regexp.QuoteMeta(rest[:1]))
			rest = rest[1:]
		}
	}
	return b.String()
}

// amplify reads Amplify's rules for redirects as its console and API have them: an array of source,
// target, status and condition.
func (f *file) amplify(text []byte) error {
	var rules []struct{ Source, Target, Status, Condition string }
	if err := f.json(text, &rules); err != nil {
		return err
	}
	for _, r := range rules {
		line := lineOf(text, strconv.Quote(r.Source))
		status, behind := 0, false
		switch r.Status {
		case "200", "301", "302":
			status, _ = strconv.Atoi(r.Status)
		case "404-200":
			status, behind = 200, true
		case "404":
			status, behind = 404, true
		default:
			f.note(line, "status %q is not honoured, so the rule is not", cut(r.Status))
			continue
		}
		source, host := r.Source, ""
		if i := strings.Index(source, "://"); i >= 0 {
			host, source, _ = strings.Cut(source[i+3:], "/")
			host, source = strings.ToLower(host), "/"+source
		}
		expr, bad := fromAmplify(source)
		if bad != "" {
			f.note(line, "%s in %q is not honoured, so the rule is not", bad, cut(r.Source))
			continue
		}
		if bad := target(r.Target, status); bad != "" {
			f.note(line, "%s", bad)
			continue
		}
		p, err := f.pattern(line, r.Source, expr)
		if err != nil {
			return err
		}
		p.Host = host
		if c := strings.Trim(r.Condition, "<>"); c != "" {
			if len(c) != 2 {
				f.note(line, "the condition %q is not honoured, so the rule is not", cut(r.Condition))
				continue
			}
			p.Needs = append(p.Needs, Need{Kind: "country", OneOf: []string{strings.ToLower(c)}})
		}
		head, to := splitHost(r.Target)
		f.set.Redirects = append(f.set.Redirects, Redirect{Pattern: p, To: escape(head) + amplifyName.Get().ReplaceAllStringFunc(escape(to), amplifyGroup), Status: status, Behind: behind})
	}
	return nil
}

var (
	amplifyName = lazy.Regexp(`<[A-Za-z*][A-Za-z0-9_-]*>`)
	notName     = lazy.Regexp(`[^A-Za-z0-9_]`)
)

// amplifyGroup is the group of "<*>" or "<name>".
func amplifyGroup(s string) string { return "${" + amplifyNameOf(s) + "}" }

func amplifyNameOf(s string) string {
	if s = strings.Trim(s, "<>"); s == "*" {
		return "splat"
	}
	return "p_" + notName.ReplaceAllString(s, "_")
}

// fromAmplify makes a regular expression of "/docs/<name>/<*>" or of "</^…$/>", which is one already,
// in JavaScript's words.
func fromAmplify(src string) (expr, bad string) {
	if inner, ok := strings.CutPrefix(src, "</"); ok && strings.HasSuffix(inner, "/>") {
		inner = strings.TrimSuffix(inner, "/>")
		if strings.Contains(inner, "(?!") {
			// The one that Amplify's console offers for single-page apps, and its like: a path whose last
			// part has no dot, or an ending that is not of the list; the list may be left out, since it
			// is of assets, for which no page stands in anyway.
			if amplifyApp.MatchString(inner) {
				return `(?:/[^.]*|/.*\.[A-Za-z0-9]*)`, ""
			}
			return "", "a look around"
		}
		inner = strings.TrimSuffix(strings.TrimPrefix(inner, "^"), "$")
		if !compiles(inner) {
			return "", "a JavaScript expression"
		}
		return "(?:" + inner + ")", ""
	}
	if !strings.HasPrefix(src, "/") {
		return "", "a path that does not begin with /"
	}
	seen := map[string]bool{}
	var b strings.Builder
	at := 0
	for _, m := range amplifyName.Get().FindAllStringIndex(src, -1) {
		b.WriteString(regexp.QuoteMeta(src[at:m[0]]))
		name := amplifyNameOf(src[m[0]:m[1]])
		if seen[name] {
			return "", "a name that stands twice"
		}
		seen[name] = true
		if name == "splat" {
			b.WriteString("(?P<splat>.*)")
		} else {
			b.WriteString("(?P<" + name + ">[^/]+)")
		}
		at = m[1]
	}
	b.WriteString(regexp.QuoteMeta(src[at:]))
	return b.String(), ""
}

var amplifyApp = lazy.Regexp(`^\^\[\^\.\]\+\$\|\\\.\(\?!\(([a-z0-9|]+)\)\$\)\(\[\^\.\]\+\$\)$`)
