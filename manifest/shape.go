package manifest

import (
	"strings"

	"go.yaml.in/yaml/v3"

	"tenfold/internal/lazy"
)

const maxName = 40

var (
	kebabCase = lazy.Regexp(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	upperCase = lazy.Regexp(`^[A-Z][A-Z0-9_]*$`)
	settingOK = lazy.Regexp(`^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)?$`)
	headerOK  = lazy.Regexp(`^[A-Za-z0-9!#$%&'*+.^_|~-]+$`)
)

// shape turns a node into a tree by what the table says of its key: rules 1, 3 and 4. It reports
// keys that do not exist or do not run, and values of a wrong form; nil means reported.
func shape(r *reporter, k key, name, n *yaml.Node, path string) *tree {
	t := &tree{path: path, key: name, node: n}
	switch {
	case isNull(n):
		return t
	case isFalse(n) && k.form != fBool && k.form != fTexts && k.form != fEnv:
		if !k.off && path != "" && !thing(path) {
			hint := "leave the line out for the default"
			if k.deflt != "" {
				hint += ": " + k.deflt
			}
			if k.name == "evict" {
				hint = "write noeviction"
			}
			r.at(n, hint, "%s cannot be false", path)
			return nil
		}
		t.off = true
		return t
	}
	switch k.form {
	case fMap:
		return shapeMap(r, k, t)
	case fNamed:
		return shapeNamed(r, k, t)
	case fURLs:
		return shapeURLs(r, k, t)
	case fEnv, fTexts:
		return shapeTexts(r, k, t)
	case fUses:
		return shapeUses(r, t)
	case fKeeps:
		return shapeKeeps(r, t)
	case fAny:
		if n.Kind != yaml.MappingNode {
			r.at(n, "write {detail-type: [order.paid]}", "%s: want a map, not a %s", path, kindWord(n))
			return nil
		}
	case fCommand, fRoutes, fHosts, fWords:
		if n.Kind == yaml.MappingNode {
			r.at(n, "write a text or a list", "%s: a %s cannot be a map", path, k.form)
			return nil
		}
	default:
		if n.Kind != yaml.ScalarNode {
			hint := "write one value"
			if k.form == fWord {
				hint = "one of: " + strings.Join(k.words, ", ")
			}
			r.at(n, hint, "%s: want a %s, not a %s", path, k.form, kindWord(n))
			return nil
		}
	}
	return t
}

// thing says that path is a section or a named entry, which false leaves out.
func thing(path string) bool {
	path = stripEnv(path)
	section, rest, _ := strings.Cut(path, ".")
	switch section {
	case "frontends", "services", "functions", "jobs", "databases", "caches", "queues", "tables", "events", "buckets", "series", "secrets":
		return !strings.Contains(rest, ".")
	case "edge":
		return rest == "" || rest == "routes" || strings.HasPrefix(rest, "routes.")
	case "environments", "":
		return true
	}
	return false
}

// stripEnv takes "environments.<name>." off a path.
func stripEnv(path string) string {
	if rest, ok := strings.CutPrefix(path, "environments."); ok {
		_, path, _ = strings.Cut(rest, ".")
	}
	return path
}

func kindWord(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "map"
	case yaml.SequenceNode:
		return "list"
	}
	return "text"
}

func shapeMap(r *reporter, k key, t *tree) *tree {
	n := t.node
	if n.Kind != yaml.MappingNode {
		switch {
		case k.main == rangeKey && n.Kind == yaml.ScalarNode:
			return shapeRange(r, t)
		case k.main != "" && k.main != rangeKey:
			c, _ := k.find(k.main)
			f := shape(r, c, nil, n, join(t.path, k.main))
			if f == nil {
				return nil
			}
			f.key = t.key
			t.set(k.main, f)
			return t
		case t.path == "":
			r.at(n, "write at least \"services: [api]\"", "a manifest is a map of keys, not a %s", kindWord(n))
		default:
			r.at(n, "keys here: "+strings.Join(k.alive(), ", "), "%s: want a map, not a %s", t.path, kindWord(n))
		}
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		c, ok := k.find(name.Value)
		path := join(t.path, name.Value)
		switch {
		case !ok:
			unknownKey(r, k, t.path, name)
		case c.later != "":
			r.at(name, laterHint(path, c), "%s: this Tenfold does not run %s yet", path, c.later)
		default:
			if f := shape(r, c, name, value, path); f != nil {
				t.set(c.name, f)
			}
		}
	}
	return t
}

func laterHint(path string, c key) string {
	hint := "remove it"
	switch c.name {
	case "target":
		hint += "; deploy with tenfold up --env <name>"
	case "functions":
		hint += " or use a service with the same routes"
	case "server":
		hint += " or run it as a service with routes: [/*]"
	default:
		hint += " until it does"
	}
	return hint
}

// unknownKey offers the nearest key of this place, or the place where such a key exists.
func unknownKey(r *reporter, k key, path string, name *yaml.Node) {
	hint := ""
	all := make([]string, 0, len(k.keys))
	for _, c := range k.keys {
		all = append(all, c.name)
	}
	switch n := nearest(name.Value, all); {
	case synonyms[name.Value] != "" && n == "":
		hint = "here it is called " + synonyms[name.Value]
		if why, none := strings.CutPrefix(synonyms[name.Value], "nothing: "); none {
			hint = why
		}
	default:
		hint = didYouMean(name.Value, k.alive())
		if n != "" {
			hint = "did you mean \"" + n + "\"?"
		}
	}
	prefix := ""
	if path != "" {
		prefix = path + ": "
	}
	r.at(name, hint, "%sunknown key %q", prefix, cut(name.Value, 60))
}

// synonyms are the words of other tools.
var synonyms = map[string]string{
	"version": "nothing: this file has no version; remove the line", "name": "app", "ports": "routes; a task listens on $PORT",
	"port": "nothing: a task listens on $PORT; remove the line", "environment": "env", "depends_on": "uses", "replicas": "scale",
	"instances": "scale", "memory": "size", "cpu": "size: {memory: 1gb, cpu: 0.5}", "healthcheck": "health", "domains": "domain",
	"start": "command", "cmd": "command", "entrypoint": "command", "release": "migrate", "root": "path", "dir": "path",
	"volumes": "nothing: data lives in databases and caches", "retention": "keep", "ttl": "keep", "on": "routes or schedule",
	"redirects": "edge: {routes: {/old/*: {redirect: /new/*}}}", "output": "build: {output: dist}", "cron": "schedule", "when": "schedule",
}

func shapeRange(r *reporter, t *tree) *tree {
	low, high, ok := parseRange(t.node.Value)
	if !ok {
		r.at(t.node, "write a number or a range: 3 or 1-4", "%s: %q is not a range", t.path, cut(t.node.Value, 40))
		return nil
	}
	for _, f := range []struct{ name, value string }{{"min", low}, {"max", high}} {
		n := *t.node
		n.Value = f.value
		t.set(f.name, &tree{path: t.path, key: t.key, node: &n})
	}
	return t
}

func shapeNamed(r *reporter, k key, t *tree) *tree {
	n := t.node
	entry := key{name: k.name, form: fMap, main: entryMain(k), off: k.off, keys: k.keys}
	add := func(name, value *yaml.Node) {
		if name.Kind != yaml.ScalarNode {
			r.at(name, "write a list of names, or a map of names", "%s: want a name, not a %s", t.path, kindWord(name))
			return
		}
		if !checkName(r, k, t.path, name) {
			return
		}
		if t.fields[name.Value] != nil {
			r.at(name, "keep one of them", "%s: %q stands twice", t.path, name.Value)
			return
		}
		if f := shape(r, entry, name, value, join(t.path, name.Value)); f != nil {
			t.set(name.Value, f)
		}
	}
	eachName(n, add)
	return t
}

// eachName calls add for each name that a map, a list or a single word gives (rule 1); value is nil
// but in a map.
func eachName(n *yaml.Node, add func(name, value *yaml.Node)) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			add(n.Content[i], n.Content[i+1])
		}
	case yaml.SequenceNode:
		for _, c := range n.Content {
			add(c, nil)
		}
	default:
		add(n, nil)
	}
}

func checkName(r *reporter, k key, path string, n *yaml.Node) bool {
	s := n.Value
	switch {
	case k.name == "to" && strings.Contains(s, "://"): // an HTTP endpoint
		return true
	case k.name == "secrets" && !upperCase.MatchString(s):
		r.at(n, "write "+upper(s), "%s: a secret is named in UPPER_CASE, %q is not", path, cut(s, 60))
	case k.name == "secrets" && reserved[s] != "":
		r.at(n, "choose another name", "%s: %s %s", path, s, reserved[s])
	case k.name != "secrets" && !kebabCase.MatchString(s):
		r.at(n, "write "+kebab(s), "%s: names are kebab-case, %q is not", path, cut(s, 60))
	case k.name != "secrets" && len(s) > maxName:
		r.at(n, "shorten it", "%s: a name has at most %d characters, this one %d", path, maxName, len(s))
	default:
		return true
	}
	return false
}

// reserved variables are set by Tenfold.
var reserved = map[string]string{
	"PORT": "is set by Tenfold to the port that a task listens on", "APP_URL": "is set by Tenfold to the app's address",
	"APP_ENV": "is set by Tenfold to the environment's name",
}

// upper makes a variable's name of any.
func upper(s string) string {
	out := strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z':
			return c - 'a' + 'A'
		case c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			return c
		}
		return '_'
	}, cut(s, 60))
	if out == "" || out[0] >= '0' && out[0] <= '9' || out[0] == '_' {
		out = "X_" + strings.TrimLeft(out, "_")
	}
	return out
}

func shapeURLs(r *reporter, k key, t *tree) *tree {
	if t.node.Kind != yaml.MappingNode {
		r.at(t.node, "write /old/*: {redirect: /new/*}", "%s: want a map by route, not a %s", t.path, kindWord(t.node))
		return nil
	}
	for i := 0; i+1 < len(t.node.Content); i += 2 {
		name, value := t.node.Content[i], t.node.Content[i+1]
		if _, ok := readRoute(r, name, t.path); !ok {
			continue
		}
		rule := key{name: "rule", form: fMap, keys: k.keys}
		if f := shape(r, rule, name, value, join(t.path, name.Value)); f != nil {
			t.set(name.Value, f)
		}
	}
	return t
}

func shapeTexts(r *reporter, k key, t *tree) *tree {
	n := t.node
	if n.Kind != yaml.MappingNode {
		r.at(n, "write "+map[form]string{fEnv: "LOG_LEVEL: info", fTexts: "name: value"}[k.form], "%s: want a map of names and values, not a %s", t.path, kindWord(n))
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		path := join(t.path, name.Value)
		switch {
		case value.Kind != yaml.ScalarNode:
			r.at(value, "write it as one text, in quotes if need be", "%s: want a text, not a %s", path, kindWord(value))
		case k.form == fEnv && !upperCase.MatchString(name.Value):
			r.at(name, "write "+upper(name.Value), "%s: a variable is named in UPPER_CASE, %q is not", t.path, cut(name.Value, 60))
		case k.form == fEnv && reserved[name.Value] != "":
			r.at(name, "remove the line", "%s: %s %s", t.path, name.Value, reserved[name.Value])
		case k.name == "settings" && !settingOK.MatchString(name.Value):
			r.at(name, "settings are named as PostgreSQL does: statement_timeout", "%s: %q is not a setting", t.path, cut(name.Value, 60))
		case (k.name == "headers" || k.name == "request") && !headerOK.MatchString(name.Value):
			r.at(name, "a header's name has letters, digits and -", "%s: %q is not a header", t.path, cut(name.Value, 60))
		case strings.ContainsAny(value.Value, "\x00") || k.form == fTexts && strings.ContainsAny(value.Value, "\r\n"):
			r.at(value, "write it on one line", "%s: the value holds a character that cannot stand there", path)
		default:
			t.set(name.Value, &tree{path: path, key: name, node: value, off: k.form == fTexts && isFalse(value)})
		}
	}
	return t
}

// shapeKeeps takes true, or a map of names and durations.
func shapeKeeps(r *reporter, t *tree) *tree {
	n := t.node
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!bool":
		return t
	case n.Kind != yaml.MappingNode:
		r.at(n, "write true, or a map: {0123456789abcdef: 10s}", "%s: want true or a map of durations", t.path)
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if value.Kind != yaml.ScalarNode {
			r.at(value, "write a duration: 10s", "%s: want a duration, not a %s", join(t.path, name.Value), kindWord(value))
			continue
		}
		t.set(name.Value, &tree{path: join(t.path, name.Value), key: name, node: value, off: isFalse(value)})
	}
	return t
}

func shapeUses(r *reporter, t *tree) *tree {
	n := t.node
	add := func(name, value *yaml.Node) {
		switch {
		case name.Kind != yaml.ScalarNode:
			r.at(name, "write the name of a database, cache, queue, table, service or secret", "%s: want a name, not a %s", t.path, kindWord(name))
		case t.fields[name.Value] != nil:
			r.at(name, "keep one of them", "%s: %q stands twice", t.path, cut(name.Value, 60))
		case value != nil && isFalse(value):
			t.set(name.Value, &tree{path: t.path, key: name, node: value, off: true})
		case !isNull(value) && value.Kind != yaml.ScalarNode:
			r.at(value, "write the variable's name: {db: DATABASE_URL}", "%s: %s: want a variable's name, not a %s", t.path, name.Value, kindWord(value))
		default:
			t.set(name.Value, &tree{path: t.path, key: name, node: value})
		}
	}
	eachName(n, add)
	return t
}
