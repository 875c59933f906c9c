package expr

import (
	"tenfold/tier/table/attr"
)

// KeyTerm is a condition on one attribute of a key.
type KeyTerm struct {
	Name string
	// Op is = < <= > >= BETWEEN or begins_with.
	Op     string
	Values []attr.Value // two for BETWEEN, else one
}

// Holds says whether a value is as the term wants it.
func (t KeyTerm) Holds(v attr.Value) bool {
	switch t.Op {
	case "=":
		return v.Equal(t.Values[0])
	case "BETWEEN":
		return ordered(t.Values[0], "<=", v) && ordered(v, "<=", t.Values[1])
	case "begins_with":
		o := Operand{Function: t.Op, Args: []*Operand{{Value: v}, {Value: t.Values[0]}}}
		return o.holds(nil)
	}
	return ordered(v, t.Op, t.Values[0])
}

// KeyCondition is what a Query asks of keys: a term for each attribute. Which of them are keys, and whether
// their values are of the keys' types, is for the store to say.
type KeyCondition struct {
	Terms []KeyTerm // in the order of the text
	// Legacy says that it came as KeyConditions. Then Op can also be one that no key can be asked:
	// <> IN NULL NOT_NULL CONTAINS NOT_CONTAINS.
	Legacy bool
}

// Term is the term for an attribute.
func (k *KeyCondition) Term(name string) (KeyTerm, bool) {
	for _, t := range k.Terms {
		if t.Name == name {
			return t, true
		}
	}
	return KeyTerm{}, false
}

// ParseKeyCondition reads a KeyConditionExpression. Errors are *Error.
func ParseKeyCondition(text string, a *Args) (*KeyCondition, error) {
	t, err := parseCondition("KeyConditionExpression", text, a)
	if err != nil {
		return nil, err
	}
	k := &KeyCondition{}
	if err := k.add(t); err != nil {
		return nil, err
	}
	return k, nil
}

// NewKeyCondition makes of a tree of terms what a key can be asked, or refuses it as AWS refuses an
// expression.
func NewKeyCondition(t *Term) (*KeyCondition, error) {
	k := &KeyCondition{}
	if err := k.add(t); err != nil {
		return nil, err
	}
	return k, nil
}

const (
	badKeyOperator = "Invalid operator used in KeyConditionExpression: %s"
	badKeyTerm     = "Invalid condition in KeyConditionExpression: %s"
	badKey         = "Invalid KeyConditionExpression: KeyConditionExpressions %s"
)

func (k *KeyCondition) add(t *Term) *Error {
	op := t.Op
	args := t.Args
	switch op {
	case "AND":
		for _, sub := range t.Terms {
			if err := k.add(sub); err != nil {
				return err
			}
		}
		return nil
	case "OR", "NOT", "IN", "<>":
		return refuse(badKeyOperator, op)
	case "CALL":
		op = args[0].Function
		args = args[0].Args
		if op != "begins_with" {
			return refuse(badKeyOperator, op)
		}
	}
	if (op == "BETWEEN" || op == "begins_with") && len(args[0].Path) == 0 {
		return refuse(badKeyTerm, op+" operator must have the key attribute as its first operand")
	}
	return k.addTerm(op, args)
}

// addTerm finds the attribute of a term, on whichever side it stands.
func (k *KeyCondition) addTerm(op string, args []*Operand) *Error {
	term := KeyTerm{Op: op}
	first := true
	for i, o := range args {
		if o.Function != "" {
			return refuse(badKey, "cannot contain nested operations")
		}
		if len(o.Path) == 0 {
			term.Values = append(term.Values, o.Value)
			continue
		}
		switch {
		case !first:
			return refuse(badKeyTerm, "Multiple attribute names used in one condition")
		case len(o.Path) > 1:
			return refuse(badKey, "cannot have conditions on nested attributes")
		}
		first = false
		term.Name = o.Path[0].Name
		if i > 0 {
			term.Op = mirrored(op)
		}
	}
	if first {
		return refuse(badKeyTerm, "No key attribute specified")
	}
	if _, ok := k.Term(term.Name); ok {
		return refuse(badKey, "must only contain one condition per key")
	}
	k.Terms = append(k.Terms, term)
	return nil
}

// mirrored is the operator when its sides are exchanged.
func mirrored(op string) string {
	switch op {
	case "<":
		return ">"
	case "<=":
		return ">="
	case ">":
		return "<"
	case ">=":
		return "<="
	}
	return op
}
