package expr

import (
	"strings"

	"tenfold/tier/table/attr"
)

// What is wrong with an update that could be read, in AWS' order: reserved words, names of functions, sections
// said twice, names and then values that are not defined, paths that collide, types of ADD and DELETE, and of
// functions.

// checkUpdate refuses an update, or resolves what stands in it.
func (p *parser) checkUpdate(actions []Action, verbs []Verb, a *Args) *Error {
	checks := []func() *Error{
		func() *Error {
			for _, act := range actions {
				if err := p.reservedIn(act.Path); err != nil {
					return err
				}
				if err := act.eachOperand(func(o *Operand) *Error { return p.reservedIn(o.Path) }); err != nil {
					return err
				}
			}
			return nil
		},
		func() *Error { return p.checkSums(actions, p.checkUpdateFunction) },
		func() *Error { return p.checkVerbs(verbs) },
		func() *Error { return p.resolveUpdate(actions, a) },
		func() *Error {
			paths := make([]Path, len(actions))
			for i, act := range actions {
				paths[i] = act.Path
			}
			if err := checkCollisions(paths); err != nil {
				return p.refuse("%s", err.Message)
			}
			return nil
		},
		func() *Error { return p.checkAddDelete(actions) },
		func() *Error { return p.checkSums(actions, p.checkUpdateTypes) },
	}
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// eachOperand calls f for the operands of an action until one is refused.
func (a Action) eachOperand(f func(*Operand) *Error) (err *Error) {
	if a.Value != nil {
		a.Value.each(func(o *Operand) {
			if err == nil {
				err = f(o)
			}
		})
	}
	return err
}

// checkSums calls f for every function of an update until one is refused.
func (p *parser) checkSums(actions []Action, f func(*Operand) *Error) *Error {
	for _, act := range actions {
		err := act.eachOperand(func(o *Operand) *Error {
			if o.Function == "" {
				return nil
			}
			return f(o)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func updateFunction(name string) bool {
	return name == "if_not_exists" || name == "list_append" || name == "+" || name == "-"
}

func (p *parser) checkUpdateFunction(o *Operand) *Error {
	switch {
	case o.Function == "+" || o.Function == "-":
		return nil
	case updateFunction(o.Function):
		for _, arg := range o.Args {
			if arg.Function == "list_append" {
				return p.refuse(misplaced, arg.Function)
			}
		}
		return nil
	case arity(o.Function) > 0:
		return p.refuse("The function is not allowed in an update expression; function: %s", o.Function)
	}
	return p.refuse("Invalid function name; function: %s", o.Function)
}

func (p *parser) checkVerbs(verbs []Verb) *Error {
	seen := make(map[Verb]bool, len(verbs))
	for _, v := range verbs {
		if seen[v] {
			return p.refuse("The \"%s\" section can only be used once in an update expression;", v)
		}
		seen[v] = true
	}
	return nil
}

// resolveUpdate resolves all names before the first value, as AWS does.
func (p *parser) resolveUpdate(actions []Action, a *Args) *Error {
	for _, act := range actions {
		if err := p.resolvePath(act.Path, a); err != nil {
			return err
		}
		if err := act.eachOperand(func(o *Operand) *Error { return p.resolvePath(o.Path, a) }); err != nil {
			return err
		}
	}
	for _, act := range actions {
		if act.Value == nil {
			continue
		}
		if err := act.eachOperand(func(o *Operand) *Error {
			if o.param == "" {
				return nil
			}
			v, ok := a.value(o.param)
			if !ok {
				return p.refuse("An expression attribute value used in expression is not defined; attribute value: %s", o.param)
			}
			o.Value = v
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// checkAddDelete refuses what can be neither added nor deleted.
func (p *parser) checkAddDelete(actions []Action) *Error {
	for _, act := range actions {
		if act.Verb != Add && act.Verb != Delete {
			continue
		}
		k := act.Value.Value.Kind
		if k.Set() || k == attr.N && act.Verb == Add {
			continue
		}
		return p.refuse("Incorrect operand type for operator or function; operator: %s, operand type: %s", act.Verb, longName(k))
	}
	return nil
}

// longName is what messages about ADD and DELETE call a kind.
func longName(k attr.Kind) string {
	switch k {
	case attr.S:
		return "STRING"
	case attr.N:
		return "NUMBER"
	case attr.B:
		return "BINARY"
	case attr.Bool:
		return "BOOLEAN"
	case attr.L:
		return "LIST"
	case attr.M:
		return "MAP"
	}
	return strings.ToUpper(k.String())
}

func (p *parser) checkUpdateTypes(o *Operand) *Error {
	if len(o.Args) != 2 {
		return p.refuse(wrongCount, o.Function, len(o.Args))
	}
	if o.Function == "if_not_exists" {
		if len(o.Args[0].Path) == 0 {
			return p.refuse(needsPath, o.Function)
		}
		return nil
	}
	want := attr.N
	if o.Function == "list_append" {
		want = attr.L
	}
	for _, arg := range o.Args {
		if k := arg.kind(); k != 0 && k != want {
			return p.refuse(wrongType, o.Function, k)
		}
	}
	return nil
}

// CheckAction refuses an action, put together from resolved operands, that no expression could say. Errors are
// *Error.
func CheckAction(a Action) error {
	p := &parser{}
	actions := []Action{a}
	for _, check := range []func() *Error{
		func() *Error { return p.checkSums(actions, p.checkUpdateFunction) },
		func() *Error { return p.checkAddDelete(actions) },
		func() *Error { return p.checkSums(actions, p.checkUpdateTypes) },
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}
