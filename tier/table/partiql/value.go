package partiql

import (
	"slices"
	"strconv"
	"strings"

	"tenfold/tier/table/attr"
	"tenfold/tier/table/expr"
)

// parameter is what stands for the question mark that was just read.
func (p *parser) parameter() attr.Value {
	p.used++
	if p.used > len(p.parameters) {
		return attr.Value{Kind: attr.Null}
	}
	return p.parameters[p.used-1]
}

// value reads a literal or a parameter. path is where it stands in the value that a message names.
func (p *parser) value(path string) attr.Value {
	w := p.word()
	switch {
	case w.kind == text:
		p.pos++
		return attr.String(w.say)
	case w.kind == number:
		p.pos++
		return p.number(w.say, path)
	case w.kind == bare:
		return p.named(w)
	case p.take("-"), p.take("+"):
		signed := w.say
		if w = p.word(); w.kind != number {
			p.fail(noTerm)
		}
		p.pos++
		return p.number(signed+w.say, path)
	case p.take("?"):
		return p.parameter()
	case p.at("{"):
		return attr.Value{Kind: attr.M, Map: p.attributes(func(name string) string { return path + "." + name })}
	case p.take("["):
		return attr.Value{Kind: attr.L, List: p.elements("]", path)}
	case p.take("<<"):
		return p.bag(p.elements(">>", path))
	}
	p.fail(noTerm)
	return attr.Value{}
}

// named is a literal that is a word.
func (p *parser) named(w word) attr.Value {
	switch strings.ToUpper(w.say) {
	case "TRUE", "FALSE":
		p.pos++
		return attr.Value{Kind: attr.Bool, True: strings.EqualFold(w.say, "TRUE")}
	case "NULL":
		p.pos++
		return attr.Value{Kind: attr.Null}
	case "MISSING":
		p.pos++
		p.refuse(refuse("Unsupported data type: MISSING at %s", p.place(w)))
		return attr.Value{Kind: attr.Null}
	}
	if isKeyword(w.say) {
		p.fail(noKeywordHere)
	}
	// A path or a function, where only a value can be.
	p.pos++
	if p.at("(") {
		p.skipParentheses()
	}
	p.refuse(refuse("Unsupported data type: %s under key root at %s", strings.ToLower(w.say), p.place(w)))
	return attr.Value{Kind: attr.Null}
}

func (p *parser) number(s, path string) attr.Value {
	n, err := attr.Number(s)
	if err != nil {
		p.refuse(refuse("%s under %s", err.Error(), path))
	}
	return attr.Value{Kind: attr.N, Text: n}
}

// elements reads the values of a list or a bag, whose opening sign was just read.
func (p *parser) elements(closing, path string) []attr.Value {
	list := []attr.Value{}
	for !p.take(closing) {
		if len(list) > 0 {
			p.want(",", noTerm)
		}
		list = append(list, p.value(path+"["+strconv.Itoa(len(list))+"]"))
	}
	return list
}

// attributes reads a map; pathOf is where the value of a name stands.
func (p *parser) attributes(pathOf func(name string) string) attr.Item {
	p.want("{", noTerm)
	item := attr.Item{}
	for first := true; !p.take("}"); first = false {
		if !first {
			p.want(",", noTerm)
		}
		w := p.word()
		if w.kind != text && w.kind != quoted {
			p.fail(noTerm)
		}
		p.pos++
		p.want(":", noTerm)
		item[w.say] = p.value(pathOf(w.say))
	}
	return item
}

// bag is a set of DynamoDB.
func (p *parser) bag(list []attr.Value) attr.Value {
	if len(list) == 0 {
		p.refuse(refuse("Empty bags are not supported"))
		return attr.Value{Kind: attr.Null}
	}
	set := attr.Value{List: list}
	for _, e := range list {
		if e.Kind != list[0].Kind || e.Kind > attr.B {
			p.refuse(refuse("Bags may only hold strings, numbers or binary values, all of one type"))
			return attr.Value{Kind: attr.Null}
		}
	}
	set.Kind = list[0].Kind + attr.SS - attr.S
	if err := set.CheckSet(); err != nil {
		message := err.Error()
		if e, ok := err.(*attr.Error); ok && e.Older != "" {
			message = e.Older
		}
		p.refuse(refuse("%s", message))
	}
	return set
}

// set reads: path = value
func (p *parser) set() expr.Action {
	a := expr.Action{Verb: expr.Set, Path: p.path()}
	p.want("=", noTerm)
	if w := p.word(); w.kind == bare && p.words[p.pos+1].say == "(" && p.words[p.pos+1].kind == sign {
		switch strings.ToLower(w.say) {
		case "set_add":
			return p.setFunction(a, expr.Add)
		case "set_delete":
			return p.setFunction(a, expr.Delete)
		}
	}
	a.Value = p.sum()
	return a
}

// sum reads: operand, operand + operand, or operand - operand.
func (p *parser) sum() *expr.Operand {
	x := p.setOperand()
	for _, op := range []string{"+", "-"} {
		if p.take(op) {
			return &expr.Operand{Function: op, Args: []*expr.Operand{x, p.setOperand()}}
		}
	}
	return x
}

// setOperand reads a path, a value, or list_append and if_not_exists of such.
func (p *parser) setOperand() *expr.Operand {
	w := p.word()
	switch {
	case w.kind == bare && p.words[p.pos+1].kind == sign && p.words[p.pos+1].say == "(":
		o := &expr.Operand{Function: strings.ToLower(w.say), Args: p.arguments()}
		if o.Function != "list_append" && o.Function != "if_not_exists" {
			p.refuse(refuse("Unrecognized function: %s at %s", o.Function, p.place(w)))
			return &expr.Operand{Value: attr.Value{Kind: attr.Null}}
		}
		return o
	case p.take("("):
		o := p.sum()
		p.want(")", noTerm)
		return o
	case w.kind == quoted, w.kind == bare && !isKeyword(w.say):
		return &expr.Operand{Path: p.path()}
	case w.kind == atEnd:
		p.fail(noRightSide)
	}
	return &expr.Operand{Value: p.value("root")}
}

// arguments reads what follows the name of a function that stands here.
func (p *parser) arguments() []*expr.Operand {
	p.pos += 2
	var args []*expr.Operand
	for !p.take(")") {
		if len(args) > 0 {
			p.want(",", noTerm)
		}
		args = append(args, p.setOperand())
	}
	return args
}

// setFunction reads set_add(path, set) or set_delete(path, set), where path is what is set.
func (p *parser) setFunction(a expr.Action, verb expr.Verb) expr.Action {
	w := p.word()
	first := p.words[p.pos+2]
	name := strings.ToUpper(w.say)
	args := p.arguments()
	a.Verb = verb
	a.Value = &expr.Operand{Value: attr.Value{Kind: attr.SS}}
	switch {
	case len(args) != 2:
		p.refuse(refuse("%s must have exactly two arguments at %s", name, p.place(w)))
	case len(args[0].Path) == 0 || !slices.Equal(args[0].Path, a.Path):
		p.refuse(refuse("The first argument to %s must equal the assignment value at %s", name, p.place(w)))
	case p.later == nil && !args[1].Value.Kind.Set():
		p.refuse(refuse("The second argument to %s must be a value with type SET at %s", name, p.place(first)))
	default:
		a.Value = args[1]
	}
	return a
}
