package expr

import (
	"cmp"
	"slices"

	"tenfold/tier/table/attr"
)

// Projection is which parts of an item are wanted. A nil *Projection wants all.
type Projection struct {
	paths []Path
	root  branch
}

// branch is what is wanted of a value: all of it, or parts of a map or of a list.
type branch struct {
	step Step
	all  bool
	sub  []branch // in order of their steps
}

// ParseProjection reads a ProjectionExpression. Errors are *Error.
func ParseProjection(text string, a *Args) (*Projection, error) {
	var paths []Path
	p, err := read("ProjectionExpression", text, func(p *parser) { paths = p.projection() })
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		if err := p.reservedIn(path); err != nil {
			return nil, err
		}
	}
	for _, path := range paths {
		if err := p.resolvePath(path, a); err != nil {
			return nil, err
		}
	}
	if err := checkCollisions(paths); err != nil {
		return nil, p.refuse("%s", err.Message)
	}
	return NewProjection(paths), nil
}

// LegacyProjection is AttributesToGet; nil for none.
func LegacyProjection(names []string) *Projection {
	if names == nil {
		return nil
	}
	paths := make([]Path, len(names))
	for i, name := range names {
		paths[i] = Name(name)
	}
	return NewProjection(paths)
}

// NewProjection wants what paths lead to. None may lead through another.
func NewProjection(paths []Path) *Projection {
	p := &Projection{paths: paths}
	for _, path := range paths {
		p.root.add(path)
	}
	return p
}

func (b *branch) add(path Path) {
	if len(path) == 0 {
		b.all = true
		return
	}
	i, found := slices.BinarySearchFunc(b.sub, path[0], func(c branch, s Step) int {
		return cmp.Or(cmp.Compare(c.step.Index, s.Index), cmp.Compare(c.step.Name, s.Name))
	})
	if !found {
		b.sub = slices.Insert(b.sub, i, branch{step: path[0]})
	}
	b.sub[i].add(path[1:])
}

// Paths are what the projection wants, in the order of the text; nil for a nil projection.
func (p *Projection) Paths() []Path {
	if p == nil {
		return nil
	}
	return p.paths
}

// Names are the names of the attributes of which the projection wants anything, in the order of the text.
func (p *Projection) Names() []string {
	var names []string
	for _, path := range p.Paths() {
		if !slices.Contains(names, path[0].Name) {
			names = append(names, path[0].Name)
		}
	}
	return names
}

// Apply is the item with nothing but what is wanted; it shares its values. Of a list come the elements that
// are wanted, one behind the other.
func (p *Projection) Apply(item attr.Item) attr.Item {
	if p == nil || item == nil {
		return item
	}
	out := make(attr.Item, len(p.root.sub))
	for i := range p.root.sub {
		b := &p.root.sub[i]
		if v, ok := item[b.step.Name]; ok {
			if v, ok = b.of(v); ok {
				out[b.step.Name] = v
			}
		}
	}
	return out
}

// of is what is wanted of a value; ok is false when it has none of that.
func (b *branch) of(v attr.Value) (_ attr.Value, ok bool) {
	if b.all {
		return v, true
	}
	part := attr.Value{Kind: v.Kind}
	for i := range b.sub {
		sub := &b.sub[i]
		w, ok := sub.step.into(v)
		if !ok {
			continue
		}
		if w, ok = sub.of(w); !ok {
			continue
		}
		if sub.step.IsIndex {
			part.List = append(part.List, w)
			continue
		}
		if part.Map == nil {
			part.Map = make(attr.Item, len(b.sub))
		}
		part.Map[sub.step.Name] = w
	}
	return part, part.List != nil || part.Map != nil
}
