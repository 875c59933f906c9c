package request

import (
	"slices"
	"strings"

	"tenfold/tier/table/attr"
)

// parameters are the expressions of a request, or of one of its parts, as they were sent, and those from
// before there were expressions. Nil is what was not sent.
type parameters struct {
	ConditionExpression, UpdateExpression, KeyConditionExpression, FilterExpression, ProjectionExpression *string

	names  map[string]string
	values attr.Item
	// badValues is what is invalid in ExpressionAttributeValues; rawValues has their names then.
	badValues *attr.Error
	rawValues []byte

	AttributesToGet     []string
	ConditionalOperator string
	// What was before expressions, as JSON, which package expr reads.
	Expected, KeyConditions, QueryFilter, ScanFilter, AttributeUpdates []byte

	segment, resource bool // whether Segment, and ResourceArn, were sent
}

// set keeps a member; it says false of one that is no expression.
func (p *parameters) set(name string, raw []byte) bool {
	switch name {
	case "ConditionExpression":
		p.ConditionExpression = new(unquote(raw))
	case "UpdateExpression":
		p.UpdateExpression = new(unquote(raw))
	case "KeyConditionExpression":
		p.KeyConditionExpression = new(unquote(raw))
	case "FilterExpression":
		p.FilterExpression = new(unquote(raw))
	case "ProjectionExpression":
		p.ProjectionExpression = new(unquote(raw))
	case "ExpressionAttributeNames":
		p.names = map[string]string{}
		object(raw, func(name string, raw []byte) { p.names[name] = unquote(raw) })
	case "ExpressionAttributeValues":
		values, err := attr.ParseItem(raw)
		if err != nil {
			p.badValues, p.rawValues, values = asError(err), raw, attr.Item{}
		}
		p.values = values
	case "AttributesToGet":
		p.AttributesToGet = texts(raw)
	case "ConditionalOperator":
		p.ConditionalOperator = unquote(raw)
	case "Expected":
		p.Expected = raw
	case "KeyConditions":
		p.KeyConditions = raw
	case "QueryFilter":
		p.QueryFilter = raw
	case "ScanFilter":
		p.ScanFilter = raw
	case "AttributeUpdates":
		p.AttributeUpdates = raw
	default:
		return false
	}
	return true
}

// sent gives the names of those parameters that were sent, in the order asked for.
func (p *parameters) sent(names []string) []string {
	var sent []string
	for _, name := range names {
		if p.has(name) {
			sent = append(sent, name)
		}
	}
	return sent
}

func (p *parameters) has(name string) bool {
	switch name {
	case "ConditionExpression":
		return p.ConditionExpression != nil
	case "UpdateExpression":
		return p.UpdateExpression != nil
	case "KeyConditionExpression":
		return p.KeyConditionExpression != nil
	case "FilterExpression":
		return p.FilterExpression != nil
	case "ProjectionExpression":
		return p.ProjectionExpression != nil
	case "AttributesToGet":
		return p.AttributesToGet != nil
	case "Expected":
		return p.Expected != nil
	case "KeyConditions":
		return p.KeyConditions != nil
	case "QueryFilter":
		return p.QueryFilter != nil
	case "ScanFilter":
		return p.ScanFilter != nil
	case "AttributeUpdates":
		return p.AttributeUpdates != nil
	case "ConditionalOperator":
		return p.ConditionalOperator != ""
	}
	return false
}

// exclusive checks that expressions and what was there before them are not mixed, and that names and values
// of expressions come with expressions.
func (p *parameters) exclusive(expressions, before []string) error {
	sent := p.sent(expressions)
	if len(sent) > 0 {
		old := p.sent(before)
		if p.KeyConditionExpression == nil { // KeyConditions may stand beside other expressions
			old = slices.DeleteFunc(old, func(name string) bool { return name == "KeyConditions" })
		}
		if len(old) > 0 {
			return validation("Can not use both expression and non-expression parameters in the same request: Non-expression parameters: {" + strings.Join(old, ", ") + "} Expression parameters: {" + strings.Join(sent, ", ") + "}")
		}
	}
	if p.names != nil && len(sent) == 0 {
		return validation("ExpressionAttributeNames can only be specified when using expressions")
	}
	if p.values == nil {
		return nil
	}
	var withValues []string
	for _, e := range expressions {
		if e == "ProjectionExpression" {
			continue
		}
		if p.has(e) {
			return nil
		}
		withValues = append(withValues, e)
	}
	verb := " is null"
	if len(withValues) > 1 {
		verb = " are null"
	}
	return validation("ExpressionAttributeValues can only be specified when using expressions: " + strings.Join(withValues, " and ") + verb)
}

// checkNamesAndValues checks ExpressionAttributeNames and ExpressionAttributeValues by themselves.
func (p *parameters) checkNamesAndValues() error {
	if p.names != nil && len(p.names) == 0 {
		return validation("ExpressionAttributeNames must not be empty")
	}
	for name := range p.names {
		if !isPlaceholder(name, '#') {
			return validation(`ExpressionAttributeNames contains invalid key: Syntax error; key: "` + name + `"`)
		}
	}
	if p.badValues != nil {
		return p.checkBadValues()
	}
	if p.values != nil && len(p.values) == 0 {
		return validation("ExpressionAttributeValues must not be empty")
	}
	for name := range p.values {
		if !isPlaceholder(name, ':') {
			return validation(`ExpressionAttributeValues contains invalid key: Syntax error; key: "` + name + `"`)
		}
	}
	return nil
}

// checkBadValues says what is wrong with values that did not parse; a bad name comes first.
func (p *parameters) checkBadValues() error {
	bad := ""
	found := false
	object(p.rawValues, func(name string, _ []byte) {
		if !found && !isPlaceholder(name, ':') {
			bad, found = name, true
		}
	})
	switch {
	case found:
		return validation(`ExpressionAttributeValues contains invalid key: Syntax error; key: "` + bad + `"`)
	case p.badValues.Serialization:
		return refused(p.badValues)
	}
	return validation("ExpressionAttributeValues contains invalid value: " + words(p.badValues) + " for key " + p.badValues.Attribute)
}

// isPlaceholder says whether s is the mark and then letters, digits or underscores.
func isPlaceholder(s string, mark byte) bool {
	return len(s) > 1 && s[0] == mark && isName(s[1:]) && !strings.ContainsAny(s, ".-")
}
