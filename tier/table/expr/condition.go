package expr

import (
	"bytes"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"

	"tenfold/tier/table/attr"
)

// Operand is what a condition compares or an update writes: a path, a value, or a function of operands.
type Operand struct {
	Path     Path
	Value    attr.Value
	Function string // size, if_not_exists, list_append, "+", "-", and in conditions those that are true or false
	Args     []*Operand

	param string // :value, until it is resolved
}

// Term is a condition: Op says of what. AND, OR and NOT are of Terms; the rest is of Args: = <> < <= > >= of
// two, BETWEEN of three, IN of two and more, and CALL of one, which is a function that is true or false.
type Term struct {
	Op    string
	Terms []*Term
	Args  []*Operand
}

// Condition says whether an item is as someone wants it. A nil *Condition is content with every item.
type Condition struct{ term *Term }

// NewCondition is a condition that was put together by hand, from resolved operands.
func NewCondition(t *Term) *Condition {
	if t == nil {
		return nil
	}
	return &Condition{term: t}
}

// Term is the condition's tree, which must not be changed; nil for a nil condition.
func (c *Condition) Term() *Term {
	if c == nil {
		return nil
	}
	return c.term
}

// ParseCondition reads a condition. kind is the name of the parameter it came in: ConditionExpression or
// FilterExpression. Errors are *Error.
func ParseCondition(kind, text string, a *Args) (*Condition, error) {
	t, err := parseCondition(kind, text, a)
	if err != nil {
		return nil, err
	}
	return &Condition{term: t}, nil
}

// Names are the names of the attributes that the condition looks at, in order.
func (c *Condition) Names() []string {
	if c == nil {
		return nil
	}
	names := make(map[string]bool)
	c.term.operands(func(o *Operand) {
		if len(o.Path) > 0 {
			names[o.Path[0].Name] = true
		}
	})
	return slices.Sorted(maps.Keys(names))
}

// Paths are the paths that the condition looks at, as they stand in it.
func (c *Condition) Paths() []Path {
	if c == nil {
		return nil
	}
	var paths []Path
	c.term.operands(func(o *Operand) {
		if len(o.Path) > 0 {
			paths = append(paths, o.Path)
		}
	})
	return paths
}

// operands calls f for every operand of a term in the order of the text, a function after its arguments.
func (t *Term) operands(f func(*Operand)) {
	for _, sub := range t.Terms {
		sub.operands(f)
	}
	for _, o := range t.Args {
		o.each(f)
	}
}

// leaves calls f for every term that is not of other terms, in the order of the text.
func (t *Term) leaves(f func(*Term)) {
	if len(t.Terms) == 0 {
		f(t)
	}
	for _, sub := range t.Terms {
		sub.leaves(f)
	}
}

func (o *Operand) each(f func(*Operand)) {
	for _, arg := range o.Args {
		arg.each(f)
	}
	f(o)
}

// Holds says whether an item is as the condition wants it. An item that is not there is an empty one.
func (c *Condition) Holds(item attr.Item) (bool, error) {
	if c == nil {
		return true, nil
	}
	return c.term.holds(item), nil
}

func (t *Term) holds(item attr.Item) bool {
	switch t.Op {
	case "AND":
		for _, sub := range t.Terms {
			if !sub.holds(item) {
				return false
			}
		}
		return true
	case "OR":
		for _, sub := range t.Terms {
			if sub.holds(item) {
				return true
			}
		}
		return false
	case "NOT":
		return !t.Terms[0].holds(item)
	case "CALL":
		return t.Args[0].holds(item)
	}
	v, ok := t.Args[0].in(item)
	switch t.Op {
	case "IN":
		for _, arg := range t.Args[1:] {
			if w, has := arg.in(item); ok && has && v.Equal(w) {
				return true
			}
		}
		return false
	case "BETWEEN":
		low, hasLow := t.Args[1].in(item)
		high, hasHigh := t.Args[2].in(item)
		return ok && hasLow && hasHigh && ordered(low, "<=", v) && ordered(v, "<=", high)
	}
	w, has := t.Args[1].in(item)
	switch t.Op {
	case "=":
		return ok && has && v.Equal(w)
	case "<>": // what is not there is not equal to anything
		return !ok || !has || !v.Equal(w)
	}
	return ok && has && ordered(v, t.Op, w)
}

// ordered compares values that have an order; others never hold.
func ordered(v attr.Value, op string, w attr.Value) bool {
	order, ok := attr.Compare(v, w)
	if !ok {
		return false
	}
	switch op {
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	case ">=":
		return order >= 0
	}
	return false
}

// in is the operand's value in an item.
func (o *Operand) in(item attr.Item) (attr.Value, bool) {
	switch {
	case o.Function == "size":
		v, ok := o.Args[0].in(item)
		if !ok {
			return attr.Value{}, false
		}
		n, ok := size(v)
		return attr.Value{Kind: attr.N, Text: strconv.Itoa(n)}, ok
	case len(o.Path) > 0:
		return o.Path.Get(item)
	}
	return o.Value, o.Value.Kind != 0
}

// size is what the function of that name counts: of text what UTF-16 has units, bytes of binary, elements of
// everything else.
func size(v attr.Value) (n int, ok bool) {
	switch v.Kind {
	case attr.S:
		for _, r := range v.Text {
			n += max(1, utf16.RuneLen(r))
		}
		return n, true
	case attr.B:
		return len(v.Bytes), true
	case attr.SS, attr.NS, attr.BS, attr.L:
		return len(v.List), true
	case attr.M:
		return len(v.Map), true
	}
	return 0, false
}

// holds is for functions that are true or false.
func (o *Operand) holds(item attr.Item) bool {
	v, ok := o.Args[0].in(item)
	switch o.Function {
	case "attribute_exists":
		return ok
	case "attribute_not_exists":
		return !ok
	}
	w, has := o.Args[1].in(item)
	if !ok || !has {
		return false
	}
	switch o.Function {
	case "attribute_type":
		return v.Kind.String() == w.Text
	case "begins_with":
		return v.Kind == w.Kind && (v.Kind == attr.S && strings.HasPrefix(v.Text, w.Text) ||
			v.Kind == attr.B && bytes.HasPrefix(v.Bytes, w.Bytes))
	case "contains":
		return contains(v, w)
	}
	return false
}

func contains(v, w attr.Value) bool {
	switch {
	case v.Kind == attr.S && w.Kind == attr.S:
		return strings.Contains(v.Text, w.Text)
	case v.Kind == attr.B && w.Kind == attr.B:
		return bytes.Contains(v.Bytes, w.Bytes)
	case v.Kind == attr.L:
		return slices.ContainsFunc(v.List, w.Equal)
	}
	return v.Contains(w)
}
