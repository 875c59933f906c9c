package partiql

import (
	"strings"

	"tenfold/tier/table/attr"
	"tenfold/tier/table/expr"
)

// parser reads one statement. What is no PartiQL ends it at once, by a panic with a stop that Parse catches;
// what DynamoDB does not take is kept in later, for AWS tells of it only when all could be read.
type parser struct {
	text       string
	words      []word
	pos        int
	parameters []attr.Value
	used       int // parameters

	later error
}

type stop struct{ err *Error }

// fail ends reading: the statement is no PartiQL.
func (p *parser) fail(detail string) { panic(stop{unreadable(detail)}) }

// refuse notes the first thing that DynamoDB does not take.
func (p *parser) refuse(err error) {
	if p.later == nil {
		p.later = err
	}
}

// Details of what cannot be read.
const (
	leftOver      = "Unexpected token after expression"
	noTerm        = "Unexpected term"
	noKeywordHere = "Unexpected keyword"
	noSignHere    = "Unexpected operator"
	noRightSide   = "Missing right-hand side expression of infix operator"
	noTable       = "Expected identifier for simple path"
	noName        = "Invalid path dot component"
	noStatement   = "Expected data manipulation"
	noTypeName    = "Expected type name"
)

func (p *parser) word() word { return p.words[p.pos] }

// at says whether a sign stands here.
func (p *parser) at(s string) bool { return p.word().kind == sign && p.word().say == s }

func (p *parser) take(s string) bool {
	if p.at(s) {
		p.pos++
		return true
	}
	return false
}

func (p *parser) want(s, detail string) {
	if !p.take(s) {
		p.fail(detail)
	}
}

func (p *parser) keyword(k string) bool {
	return p.word().kind == bare && strings.EqualFold(p.word().say, k)
}

// takeKeywords reads keywords that stand here one behind the other, or nothing.
func (p *parser) takeKeywords(ks ...string) bool {
	for i, k := range ks {
		w := p.words[min(p.pos+i, len(p.words)-1)]
		if w.kind != bare || !strings.EqualFold(w.say, k) {
			return false
		}
	}
	p.pos += len(ks)
	return true
}

func (p *parser) end() {
	if p.word().kind != atEnd {
		p.fail(leftOver)
	}
}

func (p *parser) statement() *Statement {
	s := &Statement{}
	switch {
	case p.keyword("SELECT"):
		p.query(s)
	case p.takeKeywords("INSERT", "INTO"):
		p.insert(s)
	case p.takeKeywords("UPDATE"):
		p.update(s)
	case p.takeKeywords("DELETE", "FROM"):
		p.delete(s)
	case p.takeKeywords("FROM"):
		p.updateFrom(s)
	case p.keyword("EXISTS") && p.words[p.pos+1].say == "(":
		p.pos += 2
		s.Exists = true
		p.query(s)
		p.want(")", noTerm)
	default:
		p.expression()
	}
	p.end()
	return s
}

// expression refuses what begins as no statement. A test of a type alone has words of its own.
func (p *parser) expression() {
	if p.word().kind == bare && !isKeyword(p.word().say) && p.words[p.pos+1].kind == bare && strings.EqualFold(p.words[p.pos+1].say, "IS") {
		p.pos += 2
		p.takeKeywords("NOT")
		p.typeName()
		p.end()
		panic(stop{refuse("Unsupported operation: IsType")})
	}
	p.fail(noStatement)
}

// query reads: SELECT columns FROM table WHERE condition ORDER BY names
func (p *parser) query(s *Statement) {
	s.Verb = Select
	p.pos++
	if !p.take("*") {
		s.Columns = p.columns()
	}
	if !p.takeKeywords("FROM") {
		p.fail(noTerm)
	}
	p.table(s, noTerm)
	if p.take(".") {
		w := p.word()
		if w.kind != bare && w.kind != quoted {
			p.fail(noName)
		}
		s.Index = w.say
		p.pos++
	}
	p.alias()
	p.where(s)
	if p.takeKeywords("ORDER", "BY") {
		s.OrderBy = p.order()
	}
}

func (p *parser) columns() []Column {
	var columns []Column
	for first := true; first || p.take(","); first = false {
		if w := p.word(); w.kind == bare && p.words[p.pos+1].say == "(" && p.words[p.pos+1].kind == sign {
			p.refuse(refuse("Unexpected path component at %s", p.place(w)))
			p.pos++
			p.skipParentheses()
			continue
		}
		path := p.path()
		columns = append(columns, Column{columnName(path, len(columns)+1), path})
		p.alias()
	}
	return columns
}

// skipParentheses goes over what stands in the parentheses that open here.
func (p *parser) skipParentheses() {
	for depth := 0; ; p.pos++ {
		switch {
		case p.word().kind == atEnd:
			p.fail(noTerm)
		case p.at("("):
			depth++
		case p.at(")"):
			depth--
		}
		if depth == 0 {
			p.pos++
			return
		}
	}
}

func (p *parser) table(s *Statement, detail string) {
	w := p.word()
	if w.kind != quoted && (w.kind != bare || isKeyword(w.say)) {
		p.fail(detail)
	}
	s.Table = w.say
	p.pos++
}

// alias reads another name for what stands before it, which DynamoDB does not take.
func (p *parser) alias() {
	as := p.takeKeywords("AS")
	w := p.word()
	if w.kind == quoted || w.kind == bare && !isKeyword(w.say) {
		p.pos++
		as = true
	}
	if as {
		p.refuse(refuse("Aliasing is not supported"))
	}
}

func (p *parser) where(s *Statement) {
	if !p.takeKeywords("WHERE") {
		return
	}
	t := p.condition(noTerm)
	if err := expr.Check(t); err != nil {
		p.refuse(err)
	}
	s.Where = expr.NewCondition(t)
}

func (p *parser) order() []Order {
	var order []Order
	for first := true; first || p.take(","); first = false {
		path := p.path()
		o := Order{Name: path[0].Name}
		if len(path) > 1 {
			p.refuse(refuse("Only top-level attributes are supported in ORDER BY"))
		}
		if !p.takeKeywords("ASC") {
			o.Descending = p.takeKeywords("DESC")
		}
		order = append(order, o)
	}
	return order
}

// insert reads: table VALUE item
func (p *parser) insert(s *Statement) {
	s.Verb = Insert
	p.table(s, noTable)
	if !p.takeKeywords("VALUE") {
		p.fail(leftOver)
	}
	if p.take("?") {
		v := p.parameter()
		if v.Kind != attr.M {
			p.refuse(refuse("Unsupported data type: %v", v.Kind))
		}
		s.Item = v.Map
		return
	}
	if !p.at("{") {
		p.fail(noTerm)
	}
	s.Item = p.attributes(func(string) string { return "root" })
	if err := s.Item.TooDeep(); err != nil {
		p.refuse(err)
	}
}

// update reads: table changes WHERE condition RETURNING what
func (p *parser) update(s *Statement) {
	s.Verb = Update
	p.table(s, noTable)
	p.alias()
	p.changes(s)
	p.where(s)
	p.returning(s)
}

// updateFrom reads the same in another order: table WHERE condition changes RETURNING what
func (p *parser) updateFrom(s *Statement) {
	s.Verb = Update
	p.table(s, noTerm)
	p.alias()
	p.where(s)
	if !p.keyword("SET") && !p.keyword("REMOVE") {
		p.fail(noStatement)
	}
	p.changes(s)
	p.returning(s)
}

func (p *parser) delete(s *Statement) {
	s.Verb = Delete
	p.table(s, noTable)
	p.alias()
	p.where(s)
	p.returning(s)
	if s.Returning != "" && s.Returning != "ALL OLD *" {
		p.refuse(refuse("Invalid returning clause: RETURNING %s. Only RETURNING ALL OLD * is allowed in DELETE statements.", s.Returning))
	}
}

// changes reads: SET path = value, … REMOVE path, …
func (p *parser) changes(s *Statement) {
	var actions []expr.Action
	for {
		switch {
		case p.takeKeywords("SET"):
			for first := true; first || p.take(","); first = false {
				actions = append(actions, p.set())
			}
			continue
		case p.takeKeywords("REMOVE"):
			for first := true; first || p.take(","); first = false {
				actions = append(actions, expr.Action{Verb: expr.Remove, Path: p.path()})
			}
			continue
		}
		break
	}
	if actions == nil {
		p.fail(noStatement)
	}
	for _, a := range actions {
		if err := expr.CheckAction(a); err != nil {
			p.refuse(err)
		}
	}
	u, err := expr.NewUpdate(actions)
	if err != nil {
		p.refuse(err)
	}
	s.Update = u
}

// returning reads: RETURNING ALL|MODIFIED OLD|NEW *
func (p *parser) returning(s *Statement) {
	if !p.takeKeywords("RETURNING") {
		return
	}
	for _, which := range []string{"ALL", "MODIFIED"} {
		for _, when := range []string{"OLD", "NEW"} {
			if p.takeKeywords(which, when) {
				p.want("*", noTerm)
				s.Returning = which + " " + when + " *"
				return
			}
		}
	}
	p.fail(noTerm)
}

// path reads: name.name['name'][index]
func (p *parser) path() expr.Path {
	w := p.word()
	switch {
	case w.kind == quoted, w.kind == bare && !isKeyword(w.say):
	case w.kind == bare:
		p.fail(noKeywordHere)
	default:
		p.fail(noTerm)
	}
	p.pos++
	return p.steps(expr.Name(w.say))
}

func (p *parser) steps(path expr.Path) expr.Path {
	for {
		switch {
		case p.take("."):
			w := p.word()
			if w.kind != quoted && (w.kind != bare || isKeyword(w.say)) {
				p.fail(noName)
			}
			p.pos++
			path = append(path, expr.Step{Name: w.say})
		case p.take("["):
			path = append(path, p.bracket())
			p.want("]", noTerm)
		default:
			return path
		}
	}
}

// bracket reads what stands between brackets in a path: an index, or a name as text.
func (p *parser) bracket() expr.Step {
	w := p.word()
	p.pos++
	switch w.kind {
	case text:
		return expr.Step{Name: w.say}
	case number:
		if n, ok := index(w.say); ok {
			return expr.Step{Index: n, IsIndex: true}
		}
	}
	p.pos--
	p.fail(noTerm)
	return expr.Step{}
}
