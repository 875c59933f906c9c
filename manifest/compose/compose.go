// Package compose translates a docker compose file into the text of a tenfold.yaml.
//
// Begin at Import. It walks the YAML nodes itself instead of taking compose's own loader, because
// the promise is that nothing is dropped silently: each field is either translated or listed with
// its line, and a loader that normalises first has forgotten the lines.
package compose

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"tenfold"
	"tenfold/internal/lazy"
	"tenfold/manifest"
)

// A Note is a field that could not be honoured, or one that was translated by a guess.
type Note struct {
	File  string
	Line  int
	Field string // "services.api.volumes"
	Text  string
}

// String is "compose.yaml:12: services.api.volumes: …".
func (n Note) String() string { return fmt.Sprintf("%s:%d: %s: %s", n.File, n.Line, n.Field, n.Text) }

// importer collects the parts of the manifest.
type importer struct {
	file     string
	notes    []Note
	services []*service
	stores   map[string]string // compose name to tenfold.yaml kind
	text     map[string]string // compose name of a store to its entry
	names    map[string]string // compose name to ours
	secrets  map[string]bool
}

// service is one entry of services: its lines below its name.
type service struct {
	name  string
	key   *yaml.Node
	node  *yaml.Node
	uses  []string
	lines []string
	ports bool
}

// Import reads the compose file name in fsys. The text is a manifest that parses; notes list, by
// line, what it does not carry. The error is a *tenfold.Error when the file is no compose file.
func Import(fsys fs.FS, name string) ([]byte, []Note, error) {
	src, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, nil, fmt.Errorf("read compose file: %w", err)
	}
	bad := func(format string, args ...any) error {
		return tenfold.Errorf(tenfold.CodeInvalid, name+": "+format, args...).WithHint("is this a compose file? it needs services: with image: or build:")
	}
	if len(src) > manifest.MaxSize {
		return nil, nil, bad("the file has %d bytes, at most %d are read", len(src), manifest.MaxSize)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(src, &doc); err != nil {
		return nil, nil, bad("%v", err)
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, nil, bad("no services")
	}
	left := maxNodes
	if !expand(doc.Content[0], 0, &left) {
		return nil, nil, bad("aliases expand to more than %d values", maxNodes)
	}
	im := &importer{file: name, stores: map[string]string{}, text: map[string]string{}, names: map[string]string{}, secrets: map[string]bool{}}
	app := im.top(doc.Content[0])
	if len(im.services)+len(im.stores) == 0 {
		return nil, nil, bad("no services")
	}
	for _, s := range im.services {
		im.service(s)
	}
	slices.SortStableFunc(im.notes, func(a, b Note) int { return a.Line - b.Line })
	out := im.write(app)
	if _, err := manifest.Parse("tenfold.yaml", out); err != nil {
		return out, im.notes, tenfold.Errorf(tenfold.CodeInvalid, "the translation of %s needs a hand:\n%w", name, err).WithHint("correct these lines in the text")
	}
	return out, im.notes, nil
}

// maxNodes bounds what aliases may expand to.
const maxNodes = 50_000

// expand replaces aliases and merge keys by what they stand for; compose files use them a lot.
func expand(n *yaml.Node, depth int, left *int) bool {
	if *left--; *left < 0 || depth > 40 {
		return false
	}
	if n.Kind == yaml.AliasNode {
		*n = copyOf(n.Alias, n.Line)
	}
	for i, c := range n.Content {
		if c.Kind == yaml.AliasNode {
			k := copyOf(c.Alias, c.Line)
			n.Content[i] = &k
		} else if len(c.Content) > 0 {
			k := *c
			k.Content = slices.Clone(c.Content)
			n.Content[i] = &k
		}
		if !expand(n.Content[i], depth+1, left) {
			return false
		}
	}
	if n.Kind == yaml.MappingNode {
		merged(n)
	}
	return true
}

func copyOf(n *yaml.Node, line int) yaml.Node {
	k := *n
	k.Anchor, k.Line, k.Content = "", line, slices.Clone(n.Content)
	return k
}

func merged(n *yaml.Node) {
	var own, base []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.Value != "<<":
			own = append(own, k, v)
		case v.Kind == yaml.SequenceNode:
			for _, c := range v.Content {
				base = append(base, c.Content...)
			}
		case v.Kind == yaml.MappingNode:
			base = append(base, v.Content...)
		}
	}
	for i := 0; i+1 < len(base); i += 2 {
		if !slices.ContainsFunc(own, func(o *yaml.Node) bool { return o.Value == base[i].Value && o.Kind == yaml.ScalarNode }) {
			own = append(own, base[i], base[i+1])
		}
	}
	if len(own)%2 == 0 {
		n.Content = own
	}
}

func (im *importer) note(n *yaml.Node, field, format string, args ...any) {
	im.notes = append(im.notes, Note{im.file, n.Line, field, fmt.Sprintf(format, args...)})
}

// each calls f for the pairs of a mapping.
func each(n *yaml.Node, f func(key, value *yaml.Node)) {
	if n == nil || n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		f(n.Content[i], n.Content[i+1])
	}
}

func field(n *yaml.Node, name string) *yaml.Node {
	var out *yaml.Node
	each(n, func(k, v *yaml.Node) {
		if k.Value == name {
			out = v
		}
	})
	return out
}

func (im *importer) top(root *yaml.Node) (app string) {
	app = "app"
	each(root, func(k, v *yaml.Node) {
		switch {
		case k.Value == "name":
			app = kebab(v.Value)
		case k.Value == "version" || strings.HasPrefix(k.Value, "x-"):
		case k.Value == "services":
			each(v, im.declare)
		case k.Value == "volumes" || k.Value == "networks":
			im.note(k, k.Value, "not carried: data lives in databases and caches; everything of an app can reach what it uses")
		default:
			im.note(k, k.Value, "not carried")
		}
	})
	return app
}

var (
	postgresImage = lazy.Regexp(`(^|/)(postgres|postgis|pgvector|timescaledb)(:|$|@)`)
	cacheImage    = lazy.Regexp(`(^|/)(redis|valkey|keydb|redis-stack|redis-stack-server)(:|$|@)`)
	majorVersion  = lazy.Regexp(`:(?:pg)?(1[4-8])\b`)
	nonKebab      = lazy.Regexp(`[^a-z0-9]+`)
)

func kebab(s string) string {
	s = strings.Trim(nonKebab.ReplaceAllString(strings.ToLower(s), "-"), "-")
	if s == "" || s[0] >= '0' && s[0] <= '9' {
		s = strings.Trim("app-"+s, "-")
	}
	return strings.Trim(s[:min(len(s), 30)], "-")
}

// declare says what a compose service is: a database, a cache or a service.
func (im *importer) declare(k, v *yaml.Node) {
	name := kebab(k.Value)
	for slices.Contains(slices.Collect(values(im.names)), name) {
		name += "-2"
	}
	image := ""
	if i := field(v, "image"); i != nil {
		image = i.Value
	}
	switch {
	case postgresImage.MatchString(image):
		im.stores[k.Value], im.text[k.Value] = "databases", ""
		if m := majorVersion.FindStringSubmatch(image); m != nil {
			im.text[k.Value] = "engine: postgres-" + m[1]
		}
		if strings.Contains(image, "pgvector") {
			im.text[k.Value] = strings.TrimPrefix(im.text[k.Value]+", extensions: [vector]", ", ")
		}
		im.leftOf(k, v, "image", "environment", "ports", "volumes", "healthcheck", "restart", "container_name")
	case cacheImage.MatchString(image):
		im.stores[k.Value] = "caches"
		if c := field(v, "command"); c != nil && strings.Contains(flat(c), "appendonly yes") {
			im.text[k.Value] = "persist: true"
		}
		im.leftOf(k, v, "image", "ports", "volumes", "healthcheck", "restart", "container_name", "command")
	case field(v, "build") == nil && image != "" && !manifest.IsImage(image):
		im.note(field(v, "image"), "services."+k.Value+".image", "left out: %q is not the name of an image", image)
		return
	default:
		im.services = append(im.services, &service{name: name, key: k, node: v})
	}
	im.names[k.Value] = name
}

func values(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}

// leftOf notes what of a store is not carried. What Tenfold does by itself needs no note.
func (im *importer) leftOf(k, v *yaml.Node, honoured ...string) {
	each(v, func(f, value *yaml.Node) {
		path := "services." + k.Value + "." + f.Value
		switch {
		case f.Value == "volumes":
			im.note(f, path, "not carried: the data of this volume is not moved; Tenfold keeps its own, import a dump")
		case f.Value == "ports":
			im.note(f, path, "not carried: stores listen on the loopback interface; tenfold status shows where")
		case f.Value == "environment":
			im.note(f, path, "not carried: role, password and database are made, and injected where used")
		case !slices.Contains(honoured, f.Value):
			im.note(f, path, "not carried")
		}
	})
}

// flat is a command as one line.
func flat(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode {
		return n.Value
	}
	var parts []string
	for _, c := range n.Content {
		parts = append(parts, c.Value)
	}
	return strings.Join(parts, " ")
}

func (im *importer) write(app string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# from %s\napp: %s\n", path.Base(im.file), app)
	if len(im.services) > 0 {
		b.WriteString("services:\n")
		routed := slices.IndexFunc(im.services, func(s *service) bool { return s.ports })
		for i, s := range im.services {
			b.WriteString("  " + s.name + ":\n")
			for _, l := range s.lines {
				b.WriteString("    " + l + "\n")
			}
			switch {
			case i == routed:
				b.WriteString("    routes: [/*]\n")
			case s.ports:
				b.WriteString("    routes: [/" + s.name + "/*]\n")
			}
			if len(s.uses) > 0 {
				b.WriteString("    uses: [" + strings.Join(s.uses, ", ") + "]\n")
			}
		}
	}
	for _, section := range []string{"databases", "caches"} {
		head := section + ":\n"
		for _, name := range sorted(im.stores) {
			if im.stores[name] == section {
				entry := "  " + im.names[name] + ":"
				if t := im.text[name]; t != "" {
					entry += " {" + t + "}"
				}
				b.WriteString(head + entry + "\n")
				head = ""
			}
		}
	}
	if len(im.secrets) > 0 {
		b.WriteString("secrets:\n")
		for _, s := range sorted(im.secrets) {
			b.WriteString("  " + s + ":\n")
		}
	}
	return []byte(b.String())
}

func sorted[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
