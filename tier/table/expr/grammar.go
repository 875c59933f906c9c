package expr

import (
	"strconv"
	"strings"

	"tenfold/tier/table/attr"
)

// parser reads one expression. Its methods go back to read by a panic with an *Error when a word stands where
// no rule takes it; nothing else may panic.
type parser struct {
	kind  string // the parameter, as messages name it; empty for terms that came from elsewhere
	text  string
	words []word
	pos   int
	ops   int // operators and functions

	redundant bool // parentheses in parentheses
}

// read runs rule over the whole of an expression.
func read(kind, text string, rule func(*parser)) (p *parser, err *Error) {
	if len(text) > maxBytes {
		e := refuse("Invalid %s: Expression size has exceeded the maximum allowed size;", kind)
		e.Older = e.Message + " expression size: " + strconv.Itoa(len(text))
		return nil, e
	}
	if strings.TrimSpace(text) == "" {
		return nil, refuse("Invalid %s: The expression can not be empty;", kind)
	}
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(*Error)
			if !ok {
				panic(r)
			}
			err = e
		}
	}()
	p = &parser{kind: kind, text: text, words: split(text)}
	rule(p)
	if p.word().kind != atEnd {
		p.stop()
	}
	if p.ops > maxOperators {
		return nil, p.refuse("The expression contains too many operators; operator count: %d", p.ops)
	}
	return p, nil
}

const updateExpression = "UpdateExpression"

func (p *parser) refuse(format string, args ...any) *Error {
	if p.kind == "" {
		return refuse(format, args...)
	}
	return refuse("Invalid "+p.kind+": "+format, args...)
}

// stop refuses the word that stands here. AWS shows it, and with it the words around.
func (p *parser) stop() {
	here := p.words[p.pos]
	token := "<EOF>"
	near := here
	if here.kind != atEnd {
		token = p.text[here.start:here.end]
	}
	if p.pos > 0 {
		near.start = p.words[p.pos-1].start
		near.end = max(near.end, p.words[p.pos-1].end)
	}
	if here.kind != atEnd && p.words[p.pos+1].kind != atEnd {
		near.end = p.words[p.pos+1].end
	}
	around := strings.TrimSpace(p.text[near.start:near.end])
	panic(p.refuse("Syntax error; token: \"%s\", near: \"%s\"", token, around))
}

func (p *parser) word() word     { return p.words[p.pos] }
func (p *parser) string() string { return p.text[p.word().start:p.word().end] }

// at says whether a sign stands here.
func (p *parser) at(s string) bool { return p.word().kind == sign && p.string() == s }

// take reads a sign if it stands here.
func (p *parser) take(s string) bool {
	if p.at(s) {
		p.pos++
		return true
	}
	return false
}

func (p *parser) want(s string) {
	if !p.take(s) {
		p.stop()
	}
}

// keyword says whether a keyword stands here; a call of a function of that name is none.
func (p *parser) keyword(k string) bool {
	return p.word().kind == ident && strings.EqualFold(p.string(), k)
}

func (p *parser) takeKeyword(k string) bool {
	if p.keyword(k) {
		p.pos++
		return true
	}
	return false
}

// isKeyword says whether a name is one of the words that hold an expression together.
func isKeyword(name string) bool {
	switch strings.ToUpper(name) {
	case "AND", "OR", "NOT", "BETWEEN", "IN", "SET", "REMOVE", "ADD", "DELETE":
		return true
	}
	return false
}

// parenthesis says whether one opens here, and notes whether it and the next hold the same.
func (p *parser) parenthesis() bool {
	if !p.at("(") {
		return false
	}
	inner := p.words[p.pos+1]
	if inner.kind == sign && inner.match >= 0 && p.word().match == inner.match+1 && p.text[inner.start] == '(' {
		p.redundant = true
	}
	p.pos++
	return true
}

// condition reads: a OR b, which binds weaker than a AND b, which binds weaker than NOT a.
func (p *parser) condition() *Term {
	t := p.conjunction()
	if !p.keyword("OR") {
		return t
	}
	t = &Term{Op: "OR", Terms: []*Term{t}}
	for p.takeKeyword("OR") {
		t.Terms = append(t.Terms, p.conjunction())
	}
	return t
}

func (p *parser) conjunction() *Term {
	t := p.negation()
	if !p.keyword("AND") {
		return t
	}
	t = &Term{Op: "AND", Terms: []*Term{t}}
	for p.takeKeyword("AND") {
		t.Terms = append(t.Terms, p.negation())
	}
	return t
}

func (p *parser) negation() *Term {
	if p.takeKeyword("NOT") {
		return &Term{Op: "NOT", Terms: []*Term{p.negation()}}
	}
	if p.at("(") && !p.holdsOperand() {
		p.parenthesis()
		t := p.condition()
		p.want(")")
		return t
	}
	return p.comparison()
}

// holdsOperand says whether the parenthesis that opens here holds an operand, not a condition: then what
// follows its other half compares it, or goes on as a path.
func (p *parser) holdsOperand() bool {
	match := p.word().match
	if match < 0 {
		return false
	}
	after := p.words[match+1]
	switch w := p.text[after.start:after.end]; after.kind {
	case sign:
		return w != ")" && w != "(" && w != ","
	case ident:
		return strings.EqualFold(w, "BETWEEN") || strings.EqualFold(w, "IN")
	}
	return false
}

func (p *parser) comparison() *Term {
	x := p.operand()
	switch {
	case p.takeKeyword("BETWEEN"):
		p.ops++
		low := p.operand()
		if !p.takeKeyword("AND") {
			p.stop()
		}
		return &Term{Op: "BETWEEN", Args: []*Operand{x, low, p.operand()}}
	case p.takeKeyword("IN"):
		p.ops++
		p.want("(")
		return &Term{Op: "IN", Args: append([]*Operand{x}, p.operands()...)}
	case p.word().kind == sign:
		switch op := p.string(); op {
		case "=", "<>", "<", "<=", ">", ">=":
			p.pos++
			p.ops++
			return &Term{Op: op, Args: []*Operand{x, p.operand()}}
		}
	}
	if x.Function == "" {
		p.stop()
	}
	return &Term{Op: "CALL", Args: []*Operand{x}}
}

// operands reads operands up to the parenthesis that closes.
func (p *parser) operands() []*Operand {
	list := []*Operand{p.operand()}
	for p.take(",") {
		list = append(list, p.operand())
	}
	p.want(")")
	return list
}

// operand reads a path, a value, or a function of operands; any in parentheses.
func (p *parser) operand() *Operand {
	if p.parenthesis() {
		o := p.operand()
		p.want(")")
		if len(o.Path) > 0 && p.kind != updateExpression {
			o.Path = p.steps(o.Path)
		}
		return o
	}
	w := p.word()
	switch {
	case w.kind == param:
		p.pos++
		return &Operand{param: p.text[w.start:w.end]}
	case w.kind == ident && p.words[p.pos+1].kind == sign && p.text[p.words[p.pos+1].start] == '(':
		name := p.string()
		if isKeyword(name) {
			p.stop()
		}
		p.pos += 2
		p.ops++
		return &Operand{Function: name, Args: p.operands()}
	}
	return &Operand{Path: p.path()}
}

func (p *parser) path() Path { return p.steps(Path{p.name()}) }

func (p *parser) name() Step {
	w := p.word()
	name := p.string()
	if w.kind != alias && (w.kind != ident || isKeyword(name)) {
		p.stop()
	}
	p.pos++
	return Step{Name: name}
}

// steps reads what follows the first step of a path.
func (p *parser) steps(path Path) Path {
	for {
		switch {
		case p.take("."):
			path = append(path, p.name())
		case p.take("["):
			if p.word().kind != number {
				p.stop()
			}
			path = append(path, Step{Index: p.index(), IsIndex: true})
			p.want("]")
		default:
			return path
		}
	}
}

func (p *parser) index() int {
	digits := p.string()
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil {
		panic(p.refuse("List index is not within the allowable range; index: [%s]", digits))
	}
	p.pos++
	return int(n)
}

// projection reads: path, path, …
func (p *parser) projection() []Path {
	paths := []Path{p.path()}
	for p.take(",") {
		paths = append(paths, p.path())
	}
	return paths
}

// update reads: SET …, … REMOVE …, … ADD …, … DELETE …, …
func (p *parser) update() (actions []Action, verbs []Verb) {
	for {
		verb := Verb(strings.ToUpper(p.string()))
		switch verb {
		case Set, Remove, Add, Delete:
		default:
			p.stop()
		}
		p.pos++
		verbs = append(verbs, verb)
		actions = append(actions, p.action(verb))
		for p.take(",") {
			actions = append(actions, p.action(verb))
		}
		if p.word().kind == atEnd {
			return actions, verbs
		}
	}
}

func (p *parser) action(verb Verb) Action {
	a := Action{Verb: verb, Path: p.path()}
	switch verb {
	case Set:
		p.want("=")
		a.Value = p.sum()
	case Add, Delete:
		w := p.word()
		if w.kind != param {
			p.stop()
		}
		p.pos++
		a.Value = &Operand{param: p.text[w.start:w.end]}
	}
	return a
}

// sum reads: operand, operand + operand, or operand - operand.
func (p *parser) sum() *Operand {
	if p.at("(") {
		// The parenthesis is around all of it, unless a sign follows its other half.
		match := p.word().match
		if match >= 0 {
			after := p.words[match+1]
			if s := p.text[after.start:after.end]; s != "+" && s != "-" {
				p.pos++
				o := p.sum()
				p.want(")")
				return o
			}
		}
	}
	x := p.operand()
	for _, op := range []string{"+", "-"} {
		if p.take(op) {
			p.ops++
			return &Operand{Function: op, Args: []*Operand{x, p.operand()}}
		}
	}
	return x
}

// literal says whether an operand is a value.
func (o *Operand) literal() bool { return o.Function == "" && len(o.Path) == 0 }

// kind is the kind that an operand has whatever the item: that of a value, or of what a function gives.
func (o *Operand) kind() attr.Kind {
	switch {
	case o.literal():
		return o.Value.Kind
	case o.Function == "size":
		return attr.N
	case o.Function == "list_append":
		return attr.L
	}
	return 0
}
