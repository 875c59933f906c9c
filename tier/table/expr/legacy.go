package expr

import (
	"encoding/json"
	"maps"
	"slices"

	"tenfold/tier/table/attr"
)

// The parameters that were before expressions. Their JSON is read here, attribute by attribute in the order of
// the names. What is wrong with a value is an *attr.Error, all else an *Error.

// legacyCondition is one attribute of Expected, QueryFilter, ScanFilter or KeyConditions.
type legacyCondition struct {
	ComparisonOperator string
	AttributeValueList *[]json.RawMessage
	Value              json.RawMessage
	Exists             *bool

	values []attr.Value
}

const invalidParameter = "One or more parameter values were invalid: "

func invalid(message string) *Error { return &Error{Message: invalidParameter + message} }

// readLegacy reads a parameter that is a map of structures.
func readLegacy[T any](raw json.RawMessage) (m map[string]T, names []string, err error) {
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, nil, &attr.Error{Serialization: true, Message: "Unexpected field type"}
	}
	return m, slices.Sorted(maps.Keys(m)), nil
}

// readValues reads the values of a condition, wherever they stand.
func (c *legacyCondition) readValues(name string) error {
	var raws []json.RawMessage
	if c.AttributeValueList != nil {
		raws = *c.AttributeValueList
	} else if c.has(c.Value) {
		raws = []json.RawMessage{c.Value}
	}
	for _, raw := range raws {
		v, err := attr.ParseValue(raw)
		if err != nil {
			return named(err, name)
		}
		c.values = append(c.values, v)
	}
	return nil
}

func (c *legacyCondition) has(raw json.RawMessage) bool { return raw != nil && string(raw) != "null" }

func named(err error, name string) error {
	if e, ok := err.(*attr.Error); ok {
		e.Attribute = name
	}
	return err
}

// LegacyCondition reads Expected, QueryFilter or ScanFilter; param says which. operator is ConditionalOperator:
// AND, OR, or empty for AND. Without conditions it is nil.
func LegacyCondition(param string, raw json.RawMessage, operator string) (*Condition, error) {
	m, names, err := readLegacy[legacyCondition](raw)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	all := &Term{Op: "AND"}
	if operator == "OR" {
		all.Op = "OR"
	}
	for _, name := range names {
		c := m[name]
		if err := c.readValues(name); err != nil {
			return nil, err
		}
		check := c.checkValues
		if param == "Expected" {
			check = func() *Error { return c.checkExpected(name) }
		}
		if err := check(); err != nil {
			return nil, err
		}
		all.Terms = append(all.Terms, c.term(name))
	}
	return NewCondition(all), nil
}

// checkExpected refuses what Expected cannot say of an attribute, and puts an operator where there is none.
func (c *legacyCondition) checkExpected(name string) *Error {
	forAttribute := " for Attribute: " + name
	value := c.has(c.Value)
	switch {
	case c.AttributeValueList != nil && value:
		return invalid("Value and AttributeValueList cannot be used together" + forAttribute)
	case c.ComparisonOperator == "" && c.AttributeValueList != nil:
		return invalid("AttributeValueList can only be used with a ComparisonOperator" + forAttribute)
	case c.ComparisonOperator == "":
		return c.checkExists(value, forAttribute)
	case c.Exists != nil:
		return invalid("Exists and ComparisonOperator cannot be used together" + forAttribute)
	case c.ComparisonOperator != "NULL" && c.ComparisonOperator != "NOT_NULL" && c.AttributeValueList == nil && !value:
		return invalid("Value or AttributeValueList must be used with ComparisonOperator: " + c.ComparisonOperator + forAttribute)
	}
	return c.checkValues()
}

func (c *legacyCondition) checkExists(value bool, forAttribute string) *Error {
	exists := "null"
	if c.Exists != nil {
		exists = "false"
		if *c.Exists {
			exists = "true"
		}
	}
	switch {
	case exists == "false" && value:
		return invalid("Value cannot be used when Exists is false" + forAttribute)
	case exists == "false":
		c.ComparisonOperator = "NULL"
	case !value:
		return invalid("Value must be provided when Exists is " + exists + forAttribute)
	default:
		c.ComparisonOperator = "EQ"
	}
	return nil
}

// checkValues refuses values that are too few or too many for an operator, or not of its types.
func (c *legacyCondition) checkValues() *Error {
	op := c.ComparisonOperator
	wanted, most := 1, 1
	switch op {
	case "NULL", "NOT_NULL":
		wanted, most = 0, 0
	case "BETWEEN":
		wanted, most = 2, 2
	case "IN":
		most = len(c.values)
	}
	if n := len(c.values); n < wanted || n > most {
		return refuse("%sInvalid number of argument(s) for the %s ComparisonOperator", invalidParameter, op)
	}
	for _, v := range c.values {
		if v.Kind != c.values[0].Kind {
			return invalid("AttributeValues inside AttributeValueList must be of same type")
		}
	}
	for _, v := range c.values {
		if !fits(op, v.Kind) {
			return refuse("%sComparisonOperator %s is not valid for %v AttributeValue type", invalidParameter, op, v.Kind)
		}
	}
	if op == "BETWEEN" {
		if order, ok := attr.Compare(c.values[0], c.values[1]); ok && order > 0 {
			return refuse("The BETWEEN condition was provided a range where the lower bound is greater than the upper bound")
		}
	}
	return nil
}

// fits says whether an operator takes values of a kind.
func fits(op string, k attr.Kind) bool {
	switch op {
	case "EQ", "NE":
		return true
	case "BEGINS_WITH":
		return k == attr.S || k == attr.B
	}
	return k == attr.S || k == attr.N || k == attr.B
}

// term is the condition as expressions have it.
func (c *legacyCondition) term(name string) *Term {
	args := []*Operand{{Path: Name(name)}}
	for _, v := range c.values {
		args = append(args, &Operand{Value: v})
	}
	call := func(function string) *Term {
		return &Term{Op: "CALL", Args: []*Operand{{Function: function, Args: args}}}
	}
	switch c.ComparisonOperator {
	case "NULL":
		return call("attribute_not_exists")
	case "NOT_NULL":
		return call("attribute_exists")
	case "CONTAINS":
		return call("contains")
	case "NOT_CONTAINS": // what is not there contains nothing, and does not "not contain" either
		exists := &Term{Op: "CALL", Args: []*Operand{{Function: "attribute_exists", Args: args[:1]}}}
		return &Term{Op: "AND", Terms: []*Term{exists, {Op: "NOT", Terms: []*Term{call("contains")}}}}
	case "BEGINS_WITH":
		return call("begins_with")
	}
	return &Term{Op: comparison(c.ComparisonOperator), Args: args}
}

// comparison is a ComparisonOperator as expressions have it; what they have no sign for stays as it is.
func comparison(op string) string {
	switch op {
	case "EQ":
		return "="
	case "NE":
		return "<>"
	case "LT":
		return "<"
	case "LE":
		return "<="
	case "GT":
		return ">"
	case "GE":
		return ">="
	case "BEGINS_WITH":
		return "begins_with"
	}
	return op
}

// LegacyKeyConditions reads KeyConditions.
func LegacyKeyConditions(raw json.RawMessage) (*KeyCondition, error) {
	m, names, err := readLegacy[legacyCondition](raw)
	if err != nil {
		return nil, err
	}
	k := &KeyCondition{Legacy: true}
	for _, name := range names {
		c := m[name]
		if err := c.readValues(name); err != nil {
			return nil, err
		}
		if err := c.checkValues(); err != nil {
			return nil, err
		}
		k.Terms = append(k.Terms, KeyTerm{Name: name, Op: comparison(c.ComparisonOperator), Values: c.values})
	}
	return k, nil
}

// LegacyUpdate reads AttributeUpdates.
func LegacyUpdate(raw json.RawMessage) (*Update, error) {
	m, names, err := readLegacy[struct {
		Action string
		Value  json.RawMessage
	}](raw)
	if err != nil {
		return nil, err
	}
	actions := make([]Action, 0, len(names))
	for _, name := range names {
		c := m[name]
		if c.Value == nil || string(c.Value) == "null" {
			if c.Action != "DELETE" {
				return nil, invalid("Only DELETE action is allowed when no attribute value is specified")
			}
			actions = append(actions, Action{Verb: Remove, Path: Name(name)})
			continue
		}
		v, err := attr.ParseValue(c.Value)
		if err != nil {
			return nil, named(err, name)
		}
		a := Action{Verb: Set, Path: Name(name), Value: &Operand{Value: v}}
		switch c.Action {
		case "DELETE":
			if !v.Kind.Set() {
				return nil, refuse("%sDELETE action with value is not supported for the type %v", invalidParameter, v.Kind)
			}
			a.Verb = Delete
		case "ADD":
			if !v.Kind.Set() && v.Kind != attr.N && v.Kind != attr.L {
				return nil, refuse("%sADD action is not supported for the type %v", invalidParameter, v.Kind)
			}
			a.Verb = Add
		}
		actions = append(actions, a)
	}
	u := newUpdate(actions)
	u.legacy = true
	return u, nil
}
