package expr

import (
	"maps"
	"slices"

	"tenfold/tier/table/attr"
)

// Verb is what an action does.
type Verb string

// The verbs, as they stand in an UpdateExpression.
const (
	Set    Verb = "SET"
	Remove Verb = "REMOVE"
	Add    Verb = "ADD"
	Delete Verb = "DELETE"
)

// Action is one change of an update.
type Action struct {
	Verb  Verb
	Path  Path
	Value *Operand // nil for Remove
}

// Update is a list of changes, no two of the same value.
type Update struct {
	actions []Action
	legacy  bool // AttributeUpdates: other words, and ADD appends to lists
}

// ParseUpdate reads an UpdateExpression. Errors are *Error.
func ParseUpdate(text string, a *Args) (*Update, error) {
	var actions []Action
	var verbs []Verb
	p, err := read(updateExpression, text, func(p *parser) { actions, verbs = p.update() })
	if err != nil {
		return nil, err
	}
	if err := p.checkUpdate(actions, verbs, a); err != nil {
		return nil, err
	}
	return newUpdate(actions), nil
}

// NewUpdate is an update that was put together by hand, from resolved operands. Paths that collide are an
// *Error.
func NewUpdate(actions []Action) (*Update, error) {
	paths := make([]Path, len(actions))
	for i, a := range actions {
		paths[i] = a.Path
	}
	if err := checkCollisions(paths); err != nil {
		return nil, err
	}
	return newUpdate(actions), nil
}

// newUpdate puts actions in the order in which they are done: what is removed comes last, the last element
// of a list first, so that an index means what it meant before; what is set behind a list's end comes in
// order of the indexes.
func newUpdate(actions []Action) *Update {
	done := slices.Clone(actions)
	slices.SortStableFunc(done, func(a, b Action) int {
		removesA, removesB := a.Verb == Remove, b.Verb == Remove
		switch {
		case removesA && removesB:
			return b.Path.compare(a.Path)
		case removesA:
			return 1
		case removesB:
			return -1
		}
		return a.Path.compare(b.Path)
	})
	return &Update{actions: done}
}

// Touches are the names of the attributes that the update writes, in order. A nil *Update writes none.
func (u *Update) Touches() []string {
	if u == nil {
		return nil
	}
	names := make(map[string]bool, len(u.actions))
	for _, a := range u.actions {
		names[a.Path[0].Name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// Actions are the changes, in the order in which they are done. They must not be changed.
func (u *Update) Actions() []Action {
	if u == nil {
		return nil
	}
	return u.actions
}

const (
	missingOperand = "The provided expression refers to an attribute that does not exist in the item"
	wrongOperand   = "An operand in the update expression has an incorrect data type"
	wrongPath      = "The document path provided in the update expression is invalid for update"
	wrongLegacy    = "Type mismatch for attribute to update"
)

// OnlyRemoves says whether the update does nothing but take away, so that it makes no item where there is
// none. A nil *Update, or one without changes, makes one.
func (u *Update) OnlyRemoves() bool {
	for _, a := range u.Actions() {
		if a.Verb == Set || a.Verb == Add {
			return false
		}
	}
	return len(u.Actions()) > 0
}

// Apply is the item as it is after the update; item itself is not changed. The two share what did not change.
// nil stands for an item that is not there: from that nothing can be removed, which is no mistake. A nil
// *Update changes nothing. All that is read is read from the item as it was.
//
// updated is what the update wrote to: applied to item it gives UPDATED_OLD, applied to after UPDATED_NEW. (So
// what was set behind the end of a list is not in UPDATED_NEW, and what moved to the place of a removed
// element is: AWS has it so.) Errors are *Error or *attr.Error.
func (u *Update) Apply(item attr.Item) (after attr.Item, updated *Projection, err error) {
	after = make(attr.Item, len(item)+1)
	maps.Copy(after, item)
	paths := make([]Path, 0, len(u.Actions()))
	for _, a := range u.Actions() {
		if err := u.do(a, item, after); err != nil {
			return nil, nil, err
		}
		paths = append(paths, a.Path)
	}
	for _, a := range u.Actions() {
		name := a.Path[0].Name
		if err := (attr.Item{name: after[name]}).TooDeep(); err != nil {
			return nil, nil, err
		}
	}
	return after, NewProjection(paths), nil
}

// do does one action to after.
func (u *Update) do(a Action, before, after attr.Item) error {
	if a.Verb == Remove {
		if before == nil {
			return nil
		}
		return removeAt(after, a.Path)
	}
	v, keep, err := u.value(a, before)
	if err != nil {
		return err
	}
	if !keep {
		return removeAt(after, a.Path)
	}
	return setAt(after, a.Path, v)
}

// value is what an action writes; keep is false when nothing is left.
func (u *Update) value(a Action, before attr.Item) (v attr.Value, keep bool, err error) {
	if a.Verb == Set {
		v, err = a.Value.compute(before)
		return v, true, err
	}
	operand := a.Value.Value
	old, ok := a.Path.Get(before)
	switch {
	case !ok && a.Verb == Add:
		return operand, true, nil
	case !ok:
		return v, false, nil
	case u.legacy && a.Verb == Add && old.Kind == attr.L && operand.Kind == attr.L:
		return attr.Value{Kind: attr.L, List: slices.Concat(old.List, operand.List)}, true, nil
	case old.Kind != operand.Kind:
		return v, false, u.mismatch()
	case a.Verb == Add && old.Kind == attr.N:
		sum, err := attr.Add(old.Text, operand.Text)
		return attr.Value{Kind: attr.N, Text: sum}, true, err
	case !old.Kind.Set():
		return v, false, u.mismatch()
	case a.Verb == Add:
		return union(old, operand), true, nil
	}
	rest := attr.Value{Kind: old.Kind}
	for _, e := range old.List {
		if !operand.Contains(e) {
			rest.List = append(rest.List, e)
		}
	}
	return rest, len(rest.List) > 0, nil
}

func (u *Update) mismatch() *Error {
	if u.legacy {
		return refuse(wrongLegacy)
	}
	return refuse(wrongOperand)
}

func union(a, b attr.Value) attr.Value {
	all := attr.Value{Kind: a.Kind, List: slices.Clone(a.List)}
	for _, e := range b.List {
		if !a.Contains(e) {
			all.List = append(all.List, e)
		}
	}
	return all
}

// compute is the value of an operand of SET.
func (o *Operand) compute(item attr.Item) (attr.Value, error) {
	switch o.Function {
	case "":
		v, ok := o.in(item)
		if !ok {
			return v, refuse(missingOperand)
		}
		return v, nil
	case "if_not_exists":
		if v, ok := o.Args[0].Path.Get(item); ok {
			return v, nil
		}
		return o.Args[1].compute(item)
	}
	x, err := o.Args[0].compute(item)
	if err != nil {
		return x, err
	}
	y, err := o.Args[1].compute(item)
	if err != nil {
		return y, err
	}
	switch {
	case o.Function == "list_append" && x.Kind == attr.L && y.Kind == attr.L:
		return attr.Value{Kind: attr.L, List: slices.Concat(x.List, y.List)}, nil
	case o.Function == "+" && x.Kind == attr.N && y.Kind == attr.N:
		sum, err := attr.Add(x.Text, y.Text)
		return attr.Value{Kind: attr.N, Text: sum}, err
	case o.Function == "-" && x.Kind == attr.N && y.Kind == attr.N:
		sum, err := attr.Sub(x.Text, y.Text)
		return attr.Value{Kind: attr.N, Text: sum}, err
	}
	return attr.Value{}, refuse(wrongOperand)
}

// setAt puts v where path leads, in maps and lists that are copied on the way there. A list takes what is set
// behind its end as its last element.
func setAt(item attr.Item, path Path, v attr.Value) error {
	if len(path) == 1 {
		item[path[0].Name] = v
		return nil
	}
	top, ok := item[path[0].Name]
	if ok {
		top, ok = setIn(top, path[1:], v)
	}
	if !ok {
		return refuse(wrongPath)
	}
	item[path[0].Name] = top
	return nil
}

func setIn(at attr.Value, path Path, v attr.Value) (attr.Value, bool) {
	if len(path) == 0 {
		return v, true
	}
	s := path[0]
	switch {
	case !s.IsIndex && at.Kind == attr.M:
		if len(path) > 1 {
			sub, ok := at.Map[s.Name]
			if !ok {
				return at, false
			}
			if v, ok = setIn(sub, path[1:], v); !ok {
				return at, false
			}
		}
		m := make(attr.Item, len(at.Map)+1)
		maps.Copy(m, at.Map)
		m[s.Name] = v
		at.Map = m
		return at, true
	case s.IsIndex && at.Kind == attr.L && s.Index < len(at.List):
		v, ok := setIn(at.List[s.Index], path[1:], v)
		if !ok {
			return at, false
		}
		at.List = slices.Clone(at.List)
		at.List[s.Index] = v
		return at, true
	case s.IsIndex && at.Kind == attr.L && len(path) == 1:
		at.List = append(slices.Clone(at.List), v)
		return at, true
	}
	return at, false
}

// removeAt removes what path leads to. What is not there is removed already, but all that leads there must be.
func removeAt(item attr.Item, path Path) error {
	if len(path) == 1 {
		delete(item, path[0].Name)
		return nil
	}
	top, ok := item[path[0].Name]
	if ok {
		top, ok = removeIn(top, path[1:])
	}
	if !ok {
		return refuse(wrongPath)
	}
	item[path[0].Name] = top
	return nil
}

func removeIn(at attr.Value, path Path) (attr.Value, bool) {
	s := path[0]
	if s.IsIndex && at.Kind != attr.L || !s.IsIndex && at.Kind != attr.M {
		return at, false
	}
	sub, ok := s.into(at)
	if !ok {
		return at, len(path) == 1
	}
	last := len(path) == 1
	if !last {
		if sub, ok = removeIn(sub, path[1:]); !ok {
			return at, false
		}
	}
	switch {
	case s.IsIndex && last:
		at.List = slices.Concat(at.List[:s.Index], at.List[s.Index+1:])
	case s.IsIndex:
		at.List = slices.Clone(at.List)
		at.List[s.Index] = sub
	default:
		at.Map = maps.Clone(at.Map)
		if last {
			delete(at.Map, s.Name)
		} else {
			at.Map[s.Name] = sub
		}
	}
	return at, true
}
