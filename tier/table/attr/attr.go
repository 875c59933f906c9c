// Package attr is the values and items of DynamoDB: what they are, how they stand in JSON on the wire, in a
// compact form on disk and, for keys, in bytes that sort; and how they are compared, counted and added.
//
// It knows no table, no expression and no request, and keeps nothing: every function is pure, a Value that
// was read is never changed by another call. Reading is written by hand, without reflection, because every
// PutItem and GetItem goes through it. What is refused is refused in AWS' words.
//
// Begin at Value. Sources: the API reference of DynamoDB ("AttributeValue"), its developer guide ("Data
// types", "Constraints", "Capacity unit consumption"), and the tests of dynalite and of ScyllaDB's
// Alternator, which were run against AWS.
package attr

import (
	"bytes"
	"slices"
)

// Kind is the type of a value.
type Kind byte

// The kinds. Zero is no value.
const (
	S Kind = iota + 1
	N
	B
	SS
	NS
	BS
	M
	L
	Bool
	Null
)

// String is the kind's name on the wire: "S", …, "BOOL", "NULL".
func (k Kind) String() string {
	switch k {
	case S:
		return "S"
	case N:
		return "N"
	case B:
		return "B"
	case SS:
		return "SS"
	case NS:
		return "NS"
	case BS:
		return "BS"
	case M:
		return "M"
	case L:
		return "L"
	case Bool:
		return "BOOL"
	case Null:
		return "NULL"
	}
	return ""
}

// KindOf is the kind with a name on the wire, and 0 when there is none.
func KindOf(name string) Kind {
	for k := S; k <= Null; k++ {
		if k.String() == name {
			return k
		}
	}
	return 0
}

// element is the kind of a set's elements, and 0 for what is no set.
func (k Kind) element() Kind {
	if k >= SS && k <= BS {
		return k - SS + S
	}
	return 0
}

// Set says whether the kind is one of the three sets.
func (k Kind) Set() bool { return k.element() != 0 }

// Value is one value. Only the field of its Kind is set. Values are shared: who changes one clones it first.
type Value struct {
	Kind  Kind
	Text  string  // S; N in the form that Number gives
	Bytes []byte  // B
	List  []Value // L; and the elements of SS, NS, BS as S, N, B
	Map   Item    // M
	True  bool    // BOOL
}

// Item is attributes by name: a row of a table, or a map inside one.
type Item map[string]Value

// MaxDepth is how many levels an attribute may have. The attribute itself is the first, what stands in its
// list or map the second.
const MaxDepth = 32

// Error is bad input, in AWS' words.
type Error struct {
	Serialization bool // AWS answers SerializationException, else ValidationException
	Message       string
	// Older is the message where AWS still checks values as it used to: BatchWriteItem, the transactions,
	// Scan and PartiQL. Empty where it is the same.
	Older string
	// Attribute is the name, at the top of an item, of what is bad; empty where there is none.
	Attribute string
}

func (e *Error) Error() string { return e.Message }

func invalid(message string) *Error { return &Error{Message: message} }

// String is a value of kind S.
func String(s string) Value { return Value{Kind: S, Text: s} }

// Clone is a copy that shares nothing that can change.
func (v Value) Clone() Value {
	if v.Bytes != nil {
		v.Bytes = slices.Clone(v.Bytes)
	}
	if v.List != nil {
		list := make([]Value, len(v.List))
		for i, e := range v.List {
			list[i] = e.Clone()
		}
		v.List = list
	}
	v.Map = v.Map.Clone()
	return v
}

// Clone is a copy that shares nothing that can change; nil stays nil.
func (i Item) Clone() Item {
	if i == nil {
		return nil
	}
	out := make(Item, len(i))
	for name, v := range i {
		out[name] = v.Clone()
	}
	return out
}

// Equal says whether two values are the same: sets whatever their order, numbers by value.
func (v Value) Equal(w Value) bool {
	if v.Kind != w.Kind {
		return false
	}
	switch v.Kind {
	case S, N: // a number has one form
		return v.Text == w.Text
	case B:
		return bytes.Equal(v.Bytes, w.Bytes)
	case SS, NS, BS:
		return len(v.List) == len(w.List) && containsAll(v.List, w.List)
	case L:
		return slices.EqualFunc(v.List, w.List, Value.Equal)
	case M:
		return v.Map.Equal(w.Map)
	case Bool:
		return v.True == w.True
	}
	return true
}

// Equal says whether two items have the same attributes.
func (i Item) Equal(j Item) bool {
	if len(i) != len(j) {
		return false
	}
	for name, v := range i {
		if w, ok := j[name]; !ok || !v.Equal(w) {
			return false
		}
	}
	return true
}

// containsAll says whether a has each of b; both are elements of sets.
func containsAll(a, b []Value) bool {
	if len(a) <= 16 {
		for _, e := range b {
			if !slices.ContainsFunc(a, e.Equal) {
				return false
			}
		}
		return true
	}
	has := make(map[string]bool, len(a))
	for _, e := range a {
		has[e.setKey()] = true
	}
	for _, e := range b {
		if !has[e.setKey()] {
			return false
		}
	}
	return true
}

// setKey is what tells an element of a set from the others.
func (v Value) setKey() string {
	if v.Kind == B {
		return string(v.Bytes)
	}
	return v.Text
}

// Contains says whether a set has an element.
func (v Value) Contains(element Value) bool {
	return v.Kind.Set() && slices.ContainsFunc(v.List, element.Equal)
}

// Compare orders two values of kind S (by their bytes in UTF-8), N (by value) or B (by their bytes, unsigned)
// as sort keys are ordered. ok is false when the kinds differ or have no order.
func Compare(a, b Value) (order int, ok bool) {
	if a.Kind != b.Kind {
		return 0, false
	}
	switch a.Kind {
	case S:
		return compareText(a.Text, b.Text), true
	case N:
		return compareNumbers(a.Text, b.Text), true
	case B:
		return bytes.Compare(a.Bytes, b.Bytes), true
	}
	return 0, false
}

func compareText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Size is how many bytes DynamoDB counts for a value: text in UTF-8, binary before Base64, a number by its
// digits, 3 for a list or a map and 1 for each of its entries.
func (v Value) Size() int {
	switch v.Kind {
	case S:
		return len(v.Text)
	case N:
		return numberSize(v.Text)
	case B:
		return len(v.Bytes)
	case SS, NS, BS:
		size := 0
		for _, e := range v.List {
			size += e.Size()
		}
		return size
	case L:
		size := 3 + len(v.List)
		for _, e := range v.List {
			size += e.Size()
		}
		return size
	case M:
		return 3 + len(v.Map) + v.Map.Size()
	case Bool, Null:
		return 1
	}
	return 0
}

// Size is how many bytes DynamoDB counts for an item: names and values.
func (i Item) Size() int {
	size := 0
	for name, v := range i {
		size += len(name) + v.Size()
	}
	return size
}

// levels is how many levels a value has; what is no list and no map has one.
func (v Value) levels() int {
	deepest := 0
	switch v.Kind {
	case L:
		for _, e := range v.List {
			deepest = max(deepest, e.levels())
		}
	case M:
		for _, e := range v.Map {
			deepest = max(deepest, e.levels())
		}
	}
	return deepest + 1
}

// TooDeep is the refusal of an item with an attribute of more than MaxDepth levels, and nil for others.
// Reading already refuses such values; an update can build one.
func (i Item) TooDeep() error {
	for name, v := range i {
		if (v.Kind == L || v.Kind == M) && v.levels() > MaxDepth {
			return &Error{Message: tooDeep, Attribute: name}
		}
	}
	return nil
}

const tooDeep = "Nesting Levels have exceeded supported limits: Attributes in the item have nested levels beyond supported limit"
