package expr

import (
	"cmp"
	"strconv"
	"strings"

	"tenfold/tier/table/attr"
)

// Step is one step of a document path: into a map by name, or into a list by index.
type Step struct {
	Name    string
	Index   int
	IsIndex bool
}

// Path leads from an item to a value: a.b[2].c. Its first step is the name of an attribute.
type Path []Step

// Name is the path to an attribute.
func Name(name string) Path { return Path{{Name: name}} }

// String is the path as AWS prints it: [a, b, [2], c].
func (p Path) String() string {
	words := make([]string, len(p))
	for i, s := range p {
		words[i] = s.Name
		if s.IsIndex {
			words[i] = "[" + strconv.Itoa(s.Index) + "]"
		}
	}
	return "[" + strings.Join(words, ", ") + "]"
}

// Get is the value that a path leads to.
func (p Path) Get(item attr.Item) (v attr.Value, ok bool) {
	if len(p) == 0 {
		return v, false
	}
	v, ok = item[p[0].Name]
	for _, s := range p[1:] {
		if !ok {
			return v, false
		}
		v, ok = s.into(v)
	}
	return v, ok
}

func (s Step) into(v attr.Value) (attr.Value, bool) {
	switch {
	case s.IsIndex && v.Kind == attr.L && s.Index < len(v.List):
		return v.List[s.Index], true
	case !s.IsIndex && v.Kind == attr.M:
		w, ok := v.Map[s.Name]
		return w, ok
	}
	return attr.Value{}, false
}

// compare orders paths step by step, names before indexes.
func (p Path) compare(q Path) int {
	for i := range min(len(p), len(q)) {
		if p[i] == q[i] {
			continue
		}
		if p[i].IsIndex != q[i].IsIndex {
			if p[i].IsIndex {
				return 1
			}
			return -1
		}
		return cmp.Or(cmp.Compare(p[i].Index, q[i].Index), strings.Compare(p[i].Name, q[i].Name))
	}
	return len(p) - len(q)
}

// collide says why two paths cannot stand in one expression: one leads through the other ("overlap"), or one
// takes for a list what the other takes for a map ("conflict"). Empty when they can.
func (p Path) collide(q Path) string {
	for i := range min(len(p), len(q)) {
		if p[i].IsIndex != q[i].IsIndex {
			return "conflict"
		}
		if p[i] != q[i] {
			return ""
		}
	}
	return "overlap"
}

// checkCollisions refuses paths that collide; overlaps come first.
func checkCollisions(paths []Path) *Error {
	var conflict *Error
	for i, p := range paths {
		for _, q := range paths[:i] {
			why := q.collide(p)
			if why == "" || why == "conflict" && conflict != nil {
				continue
			}
			e := refuse("Two document paths %s with each other; must remove or rewrite one of these paths; path one: %v, path two: %v", why, q, p)
			if why == "overlap" {
				return e
			}
			conflict = e
		}
	}
	return conflict
}
