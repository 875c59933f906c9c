package request

import (
	"cmp"
	"slices"
	"strings"

	"tenfold/tier/table/attr"
	"tenfold/tier/table/expr"
)

// targets is where the parsed expressions of a request, or of one of its parts, go. Nil is what it cannot have.
type targets struct {
	condition, filter **expr.Condition
	update            **expr.Update
	projection        **expr.Projection
	keyCondition      **expr.KeyCondition
}

// parse reads the expressions, in AWS' order, after what they share.
func (p *parameters) parse(to targets) error {
	if err := p.checkNamesAndValues(); err != nil {
		return err
	}
	args := &expr.Args{Names: p.names, Values: p.values}
	if p.UpdateExpression != nil && to.update != nil {
		u, err := expr.ParseUpdate(*p.UpdateExpression, args)
		if err != nil {
			return refused(err)
		}
		*to.update = u
	}
	if p.ConditionExpression != nil && to.condition != nil {
		c, err := expr.ParseCondition("ConditionExpression", *p.ConditionExpression, args)
		if err != nil {
			return refused(err)
		}
		*to.condition = c
	}
	var key *expr.Condition
	if p.KeyConditionExpression != nil && to.keyCondition != nil {
		c, err := expr.ParseCondition("KeyConditionExpression", *p.KeyConditionExpression, args)
		if err != nil {
			return refused(err)
		}
		key = c
	}
	if p.FilterExpression != nil && to.filter != nil {
		c, err := expr.ParseCondition("FilterExpression", *p.FilterExpression, args)
		if err != nil {
			return refused(err)
		}
		*to.filter = c
	}
	if p.ProjectionExpression != nil && to.projection != nil {
		j, err := expr.ParseProjection(*p.ProjectionExpression, args)
		if err != nil {
			return refused(err)
		}
		*to.projection = j
	}
	if err := args.Unused(); err != nil {
		return refused(err)
	}
	if key != nil { // what keys cannot be asked comes last
		k, err := expr.NewKeyCondition(key.Term())
		if err != nil {
			return validation(strings.TrimPrefix(err.Error(), "Invalid KeyConditionExpression: "))
		}
		*to.keyCondition = k
	}
	return nil
}

// legacyCondition reads a parameter from before expressions into a condition.
func (p *parameters) legacyCondition(name string, raw []byte, to **expr.Condition) error {
	if raw == nil {
		return nil
	}
	c, err := expr.LegacyCondition(name, raw, p.ConditionalOperator)
	if err != nil {
		return refused(err)
	}
	*to = c
	return nil
}

// attributesToGet reads AttributesToGet.
func (p *parameters) attributesToGet(to **expr.Projection) error {
	for i, name := range p.AttributesToGet {
		if slices.Contains(p.AttributesToGet[:i], name) {
			return validation(wrongParameter + "Duplicate value in attribute name: " + name)
		}
	}
	*to = expr.LegacyProjection(p.AttributesToGet)
	return nil
}

// refused answers for what package attr or package expr found invalid.
func refused(err error) error {
	e, ok := err.(*attr.Error)
	switch {
	case !ok:
		return validation(err.Error())
	case e.Serialization:
		return serialization(e.Message)
	}
	return validation(words(e))
}

// words are what is said of a value that is invalid. AWS has two wordings, the newer one in some operations
// only; all operations here have the older one, which programs and test suites have known for longest.
func words(e *attr.Error) string { return cmp.Or(e.Older, e.Message) }
