package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// A tree is a manifest after the nine rules: lists of names are maps, a scalar stands under its
// main key. It is what environments are merged over.
type tree struct {
	path   string     // "services.api.health"
	key    *yaml.Node // where it is named; nil at the top
	node   *yaml.Node // the value as written
	off    bool       // set to false
	fields map[string]*tree
	order  []string // of fields, as written
}

// get is the field's tree, nil when it is absent or empty all along the way.
func (t *tree) get(name string) *tree {
	if t == nil {
		return nil
	}
	return t.fields[name]
}

func (t *tree) set(name string, f *tree) {
	if t.fields == nil {
		t.fields = map[string]*tree{}
	}
	if t.fields[name] == nil {
		t.order = append(t.order, name)
	}
	t.fields[name] = f
}

// place is where messages about the tree point: its name rather than its value.
func (t *tree) place() *yaml.Node {
	if t.key != nil {
		return t.key
	}
	return t.node
}

func (t *tree) line() int {
	if n := t.place(); n != nil {
		return n.Line
	}
	return 0
}

// merge lays over onto base, key by key; neither is changed. An empty value changes nothing.
func merge(base, over *tree) *tree {
	switch {
	case base == nil || over.off:
		return over
	case over.fields == nil && isNull(over.node):
		return base
	case base.off || base.fields == nil || over.fields == nil:
		return over
	}
	out := &tree{path: base.path, key: base.key, node: base.node, order: slices.Clone(base.order), fields: maps.Clone(base.fields)}
	for _, name := range over.order {
		out.set(name, merge(base.fields[name], over.fields[name]))
	}
	return out
}

func isNull(n *yaml.Node) bool {
	return n == nil || n.Kind == yaml.ScalarNode && n.Tag == "!!null"
}

func isFalse(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Tag == "!!bool" && (n.Value == "false" || n.Value == "False" || n.Value == "FALSE")
}

func sortedKeys[K ~string, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func itoa(i int) string { return strconv.Itoa(i) }

func hexByte(b byte) string { return fmt.Sprintf("0x%02x", b) }

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
