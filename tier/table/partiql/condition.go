package partiql

import (
	"strconv"
	"strings"

	"tenfold/tier/table/attr"
	"tenfold/tier/table/expr"
)

// condition reads: a OR b, which binds weaker than a AND b, which binds weaker than NOT a. missing is what is
// said when nothing stands here.
func (p *parser) condition(missing string) *expr.Term {
	t := p.conjunction(missing)
	if !p.keyword("OR") {
		return t
	}
	t = &expr.Term{Op: "OR", Terms: []*expr.Term{t}}
	for p.takeKeywords("OR") {
		t.Terms = append(t.Terms, p.conjunction(noRightSide))
	}
	return t
}

func (p *parser) conjunction(missing string) *expr.Term {
	t := p.negation(missing)
	if !p.keyword("AND") {
		return t
	}
	t = &expr.Term{Op: "AND", Terms: []*expr.Term{t}}
	for p.takeKeywords("AND") {
		t.Terms = append(t.Terms, p.negation(noRightSide))
	}
	return t
}

func (p *parser) negation(missing string) *expr.Term {
	if p.takeKeywords("NOT") {
		return not(p.negation(noTerm))
	}
	if p.at("(") && !p.holdsOperand() {
		p.pos++
		t := p.condition(noTerm)
		p.want(")", noTerm)
		return t
	}
	return p.comparison(missing)
}

func not(t *expr.Term) *expr.Term { return &expr.Term{Op: "NOT", Terms: []*expr.Term{t}} }

func call(function string, args ...*expr.Operand) *expr.Term {
	return &expr.Term{Op: "CALL", Args: []*expr.Operand{{Function: function, Args: args}}}
}

// holdsOperand says whether the parenthesis that opens here holds an operand: then a comparison follows its
// other half.
func (p *parser) holdsOperand() bool {
	depth := 0
	for i := p.pos; i < len(p.words); i++ {
		if p.words[i].kind != sign {
			continue
		}
		switch p.words[i].say {
		case "(":
			depth++
		case ")":
			if depth--; depth == 0 {
				after := p.words[i+1]
				return after.kind == sign && comparison(after.say) != "" ||
					after.kind == bare && (strings.EqualFold(after.say, "IN") || strings.EqualFold(after.say, "IS") || strings.EqualFold(after.say, "BETWEEN"))
			}
		}
	}
	return false
}

// comparison is a sign as expressions have it; empty for what compares nothing.
func comparison(s string) string {
	switch s {
	case "=", "<>", "<", "<=", ">", ">=":
		return s
	case "!=":
		return "<>"
	}
	return ""
}

func (p *parser) comparison(missing string) *expr.Term {
	x := p.operand(missing)
	negated := p.keyword("NOT") && p.words[p.pos+1].kind == bare && p.takeKeywords("NOT")
	var t *expr.Term
	switch {
	case p.takeKeywords("IN"):
		t = p.in(x)
	case p.takeKeywords("BETWEEN"):
		low := p.operand(noRightSide)
		if !p.takeKeywords("AND") {
			p.fail(noTerm)
		}
		t = &expr.Term{Op: "BETWEEN", Args: []*expr.Operand{x, low, p.operand(noRightSide)}}
	case negated:
		p.fail(leftOver)
	case p.takeKeywords("IS"):
		return p.is(x)
	case p.word().kind == sign && comparison(p.word().say) != "":
		op := comparison(p.word().say)
		p.pos++
		return compare(x, op, p.operand(noRightSide))
	case x.Function != "":
		return &expr.Term{Op: "CALL", Args: []*expr.Operand{x}}
	default:
		if p.word().kind == atEnd || p.at(")") {
			p.fail(noTerm)
		}
		p.fail(leftOver)
	}
	if negated {
		return not(t)
	}
	return t
}

// compare makes a term of two operands. What a function says can be compared with true and false.
func compare(x *expr.Operand, op string, y *expr.Operand) *expr.Term {
	if x.Function != "" && x.Function != "size" && len(y.Path) == 0 && y.Value.Kind == attr.Bool && (op == "=" || op == "<>") {
		t := &expr.Term{Op: "CALL", Args: []*expr.Operand{x}}
		if y.Value.True != (op == "=") {
			return not(t)
		}
		return t
	}
	return &expr.Term{Op: op, Args: []*expr.Operand{x, y}}
}

// in reads the values of IN: a list in brackets or in parentheses, or a parameter that is one.
func (p *parser) in(x *expr.Operand) *expr.Term {
	t := &expr.Term{Op: "IN", Args: []*expr.Operand{x}}
	closing := "]"
	switch {
	case p.take("?"):
		v := p.parameter()
		for _, e := range v.List {
			t.Args = append(t.Args, &expr.Operand{Value: e})
		}
		return t
	case p.take("("):
		closing = ")"
	case p.take("["):
	default:
		p.fail(noTerm)
	}
	for first := true; !p.take(closing); first = false {
		if !first {
			p.want(",", noTerm)
		}
		t.Args = append(t.Args, p.operand(noTerm))
	}
	return t
}

// is reads what follows IS: [NOT] NULL, MISSING or a type.
func (p *parser) is(x *expr.Operand) *expr.Term {
	negated := p.takeKeywords("NOT")
	var t *expr.Term
	if p.takeKeywords("MISSING") {
		t = call("attribute_not_exists", x)
	} else {
		kinds := p.typeName()
		t = &expr.Term{Op: "OR"}
		for _, k := range kinds {
			t.Terms = append(t.Terms, call("attribute_type", x, &expr.Operand{Value: attr.String(k.String())}))
		}
		if len(t.Terms) == 1 {
			t = t.Terms[0]
		}
	}
	if negated {
		return not(t)
	}
	return t
}

// typeName reads the name of a type, and gives the kinds that are of it.
func (p *parser) typeName() []attr.Kind {
	if p.takeKeywords("DOUBLE", "PRECISION") {
		return []attr.Kind{attr.N}
	}
	if p.takeKeywords("CHARACTER", "VARYING") {
		return []attr.Kind{attr.S}
	}
	kinds := typeKinds(p.word())
	if kinds == nil {
		p.fail(noTypeName)
	}
	p.pos++
	return kinds
}

func typeKinds(w word) []attr.Kind {
	if w.kind != bare {
		return nil
	}
	switch strings.ToUpper(w.say) {
	case "NULL":
		return []attr.Kind{attr.Null}
	case "BOOL", "BOOLEAN":
		return []attr.Kind{attr.Bool}
	case "STRING", "SYMBOL", "CHAR", "CHARACTER", "VARCHAR":
		return []attr.Kind{attr.S}
	case "INT", "INT2", "INT4", "INT8", "INTEGER", "INTEGER2", "INTEGER4", "INTEGER8", "SMALLINT", "BIGINT", "FLOAT", "REAL",
		"DECIMAL", "NUMERIC", "NUMBER":
		return []attr.Kind{attr.N}
	case "BLOB", "CLOB", "BINARY":
		return []attr.Kind{attr.B}
	case "LIST":
		return []attr.Kind{attr.L}
	case "STRUCT", "TUPLE", "MAP":
		return []attr.Kind{attr.M}
	case "BAG", "SET":
		return []attr.Kind{attr.SS, attr.NS, attr.BS}
	case "STRING_SET":
		return []attr.Kind{attr.SS}
	case "NUMBER_SET":
		return []attr.Kind{attr.NS}
	case "BINARY_SET":
		return []attr.Kind{attr.BS}
	}
	return nil
}

// operand reads a path, a value, or a function of operands; any in parentheses.
func (p *parser) operand(missing string) *expr.Operand {
	w := p.word()
	switch {
	case w.kind == atEnd:
		p.fail(missing)
	case p.take("("):
		o := p.operand(noTerm)
		p.want(")", noTerm)
		return o
	case w.kind == bare && p.words[p.pos+1].kind == sign && p.words[p.pos+1].say == "(":
		return p.function()
	case w.kind == quoted, w.kind == bare && !isKeyword(w.say):
		return &expr.Operand{Path: p.path()}
	case w.kind == bare && isOperator(w.say):
		p.fail(noSignHere)
	case w.kind == sign && (comparison(w.say) != "" || w.say == "*" || w.say == "/"):
		p.fail(noSignHere)
	}
	return &expr.Operand{Value: p.value("root")}
}

// isOperator says whether a keyword stands between terms.
func isOperator(name string) bool {
	switch strings.ToUpper(name) {
	case "IS", "IN", "LIKE", "BETWEEN", "AND", "OR":
		return true
	}
	return false
}

// function reads a function of a condition.
func (p *parser) function() *expr.Operand {
	w := p.word()
	o := &expr.Operand{Function: strings.ToLower(w.say)}
	p.pos += 2
	if !p.take(")") {
		o.Args = append(o.Args, p.operand(noTerm))
		for p.take(",") {
			o.Args = append(o.Args, p.operand(noTerm))
		}
		p.want(")", noTerm)
	}
	switch o.Function {
	case "attribute_exists", "attribute_not_exists", "attribute_type", "begins_with", "contains", "size":
	case "missing":
		o.Function = "attribute_not_exists"
	default:
		p.refuse(refuse("Unrecognized function: %s at %s", o.Function, p.place(w)))
		o.Function = "size" // whatever: the statement is refused
	}
	return o
}

func index(s string) (int, bool) {
	n, err := strconv.ParseInt(s, 10, 32)
	return int(n), err == nil
}
