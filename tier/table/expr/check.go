package expr

import (
	"encoding/base64"

	"tenfold/tier/table/attr"
)

// What is wrong with a condition that could be read. AWS tells of one mistake, and looks for kinds of them in
// an order: parentheses, names of functions, their place, reserved words; then, term by term, names and values
// that are not defined, how many operands, which, of what type.

func parseCondition(kind, text string, a *Args) (*Term, *Error) {
	var t *Term
	p, err := read(kind, text, func(p *parser) { t = p.condition() })
	if err != nil {
		return nil, err
	}
	if p.redundant {
		return nil, p.refuse("The expression has redundant parentheses;")
	}
	if err := p.checkFunctions(t); err != nil {
		return nil, err
	}
	if err := p.checkReserved(t); err != nil {
		return nil, err
	}
	if err := p.checkLeaves(t, a); err != nil {
		return nil, err
	}
	return t, nil
}

// arity is how many operands a function of conditions takes, and 0 for what is none.
func arity(function string) int {
	switch function {
	case "attribute_exists", "attribute_not_exists", "size":
		return 1
	case "attribute_type", "begins_with", "contains":
		return 2
	}
	return 0
}

// checkFunctions refuses functions that there are not, then those in a wrong place: size gives a value, all
// others are conditions.
func (p *parser) checkFunctions(t *Term) (err *Error) {
	t.operands(func(o *Operand) {
		switch {
		case err != nil || o.Function == "" || arity(o.Function) > 0:
		case updateFunction(o.Function):
			err = p.refuse("The function is not allowed in a condition expression; function: %s", o.Function)
		default:
			err = p.refuse("Invalid function name; function: %s", o.Function)
		}
	})
	if err != nil {
		return err
	}
	return p.checkPlaces(t)
}

func (p *parser) checkPlaces(t *Term) *Error {
	for _, sub := range t.Terms {
		if err := p.checkPlaces(sub); err != nil {
			return err
		}
	}
	var err *Error
	inside := func(o *Operand) {
		if err == nil && o.Function != "" && o.Function != "size" {
			err = p.refuse(misplaced, o.Function)
		}
	}
	for _, o := range t.Args {
		if t.Op != "CALL" {
			o.each(inside)
			continue
		}
		for _, arg := range o.Args {
			arg.each(inside)
		}
		if err == nil && o.Function == "size" {
			err = p.refuse(misplaced, o.Function)
		}
	}
	return err
}

func (p *parser) checkReserved(t *Term) (err *Error) {
	t.operands(func(o *Operand) {
		if err == nil {
			err = p.reservedIn(o.Path)
		}
	})
	return err
}

func (p *parser) reservedIn(path Path) *Error {
	for _, s := range path {
		if !s.IsIndex && s.Name[0] != '#' && reserved(s.Name) {
			return p.refuse("Attribute name is a reserved keyword; reserved keyword: %s", s.Name)
		}
	}
	return nil
}

// checkLeaves goes from condition to condition and resolves what stands in each.
func (p *parser) checkLeaves(t *Term, a *Args) *Error {
	for _, sub := range t.Terms {
		if err := p.checkLeaves(sub, a); err != nil {
			return err
		}
	}
	for _, o := range t.Args {
		if err := p.resolve(o, a); err != nil {
			return err
		}
	}
	return p.checkLeaf(t)
}

func (p *parser) checkLeaf(t *Term) *Error {
	for _, check := range []func(*Term) *Error{p.checkCounts, p.checkDistinct, p.checkTypes} {
		if err := check(t); err != nil {
			return err
		}
	}
	return nil
}

// Check refuses a term, put together from resolved operands, that no expression could say: by the number and
// the types of operands, and the place of functions. Errors are *Error.
func Check(t *Term) error {
	p := &parser{}
	if err := p.checkFunctions(t); err != nil {
		return err
	}
	var err *Error
	t.leaves(func(t *Term) {
		if err == nil {
			err = p.checkLeaf(t)
		}
	})
	if err != nil {
		return err
	}
	return nil
}

// resolve puts names and values in the place of what stands for them.
func (p *parser) resolve(o *Operand, a *Args) (err *Error) {
	o.each(func(o *Operand) {
		switch {
		case err != nil:
		case o.param != "":
			v, ok := a.value(o.param)
			if !ok {
				err = p.refuse("An expression attribute value used in expression is not defined; attribute value: %s", o.param)
				return
			}
			o.Value = v
		default:
			err = p.resolvePath(o.Path, a)
		}
	})
	return err
}

func (p *parser) resolvePath(path Path, a *Args) *Error {
	for i, s := range path {
		if s.IsIndex || s.Name[0] != '#' {
			continue
		}
		name, ok := a.name(s.Name)
		if !ok {
			return p.refuse("An expression attribute name used in the document path is not defined; attribute name: %s", s.Name)
		}
		path[i].Name = name
	}
	if len(path) > maxSteps {
		return p.refuse("The document path has too many nesting elements; nesting levels: %d", len(path))
	}
	return nil
}

const (
	misplaced     = "The function is not allowed to be used this way in an expression; function: %s"
	wrongCount    = "Incorrect number of operands for operator or function; operator or function: %s, number of operands: %d"
	wrongType     = "Incorrect operand type for operator or function; operator or function: %s, operand type: %s"
	needsPath     = "Operator or function requires a document path; operator or function: %s"
	needsDistinct = "The first operand must be distinct from the remaining operands for this operator or function; operator: %s, first operand: %v"
)

func (p *parser) checkCounts(t *Term) (err *Error) {
	if n := len(t.Args); t.Op == "IN" && n > maxIn {
		return p.refuse("The IN operator is provided with too many operands; number of operands: %d", n)
	}
	for _, o := range t.Args {
		o.each(func(o *Operand) {
			if err == nil && o.Function != "" && len(o.Args) != arity(o.Function) {
				err = p.refuse(wrongCount, o.Function, len(o.Args))
			}
		})
	}
	return err
}

func (p *parser) checkDistinct(t *Term) (err *Error) {
	same := func(name string, args []*Operand) {
		if err == nil && len(args) == 2 && len(args[0].Path) > 0 && len(args[0].Path) == len(args[1].Path) && args[0].Path.compare(args[1].Path) == 0 {
			err = p.refuse(needsDistinct, name, args[0].Path)
		}
	}
	for _, o := range t.Args {
		o.each(func(o *Operand) { same(o.Function, o.Args) })
	}
	if t.Op != "CALL" && t.Op != "IN" {
		same(t.Op, t.Args)
	}
	return err
}

func (p *parser) checkTypes(t *Term) (err *Error) {
	for _, o := range t.Args {
		o.each(func(o *Operand) {
			if err == nil && o.Function != "" {
				err = p.checkFunctionTypes(o)
			}
		})
	}
	if err != nil {
		return err
	}
	switch t.Op {
	case "<", "<=", ">", ">=", "BETWEEN":
		for _, o := range t.Args {
			if k := o.kind(); k > attr.B {
				return p.refuse(wrongType, t.Op, k)
			}
		}
	}
	if t.Op == "BETWEEN" {
		return p.checkBounds(t.Args[1], t.Args[2])
	}
	return nil
}

func (p *parser) checkFunctionTypes(o *Operand) *Error {
	first := o.Args[0]
	switch o.Function {
	case "attribute_exists", "attribute_not_exists":
		if len(first.Path) == 0 {
			return p.refuse(needsPath, o.Function)
		}
	case "begins_with":
		for _, arg := range o.Args {
			if k := arg.kind(); k != 0 && k != attr.S && k != attr.B {
				return p.refuse(wrongType, o.Function, k)
			}
		}
	case "attribute_type":
		name := o.Args[1]
		switch k := name.kind(); {
		case k == 0:
			return p.refuse(wrongType, o.Function, "{NS,SS,L,BS,N,M,B,BOOL,NULL,S}")
		case k != attr.S:
			return p.refuse(wrongType, o.Function, k)
		}
		if attr.KindOf(name.Value.Text) == 0 {
			return p.refuse("Invalid attribute type name found; type: %s, valid types: {B,NULL,SS,BOOL,L,BS,N,NS,S,M}", name.Value.Text)
		}
	case "size":
		switch k := first.kind(); k {
		case attr.N, attr.Bool, attr.Null:
			return p.refuse(wrongType, o.Function, k)
		}
	}
	return nil
}

func (p *parser) checkBounds(low, high *Operand) *Error {
	if !low.literal() || !high.literal() {
		return nil
	}
	const bounds = "lower bound operand: AttributeValue: {%v:%s}, upper bound operand: AttributeValue: {%v:%s}"
	v, w := low.Value, high.Value
	order, ok := attr.Compare(v, w)
	switch {
	case !ok:
		return p.refuse("The BETWEEN operator requires same data type for lower and upper bounds; "+bounds, v.Kind, plain(v), w.Kind, plain(w))
	case order > 0:
		return p.refuse("The BETWEEN operator requires upper bound to be greater than or equal to lower bound; "+bounds, v.Kind, plain(v), w.Kind, plain(w))
	}
	return nil
}

// plain is a value as messages show it.
func plain(v attr.Value) string {
	if v.Kind == attr.B {
		return base64.StdEncoding.EncodeToString(v.Bytes)
	}
	return v.Text
}
