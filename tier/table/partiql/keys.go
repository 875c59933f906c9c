package partiql

import (
	"bytes"
	"slices"
	"strings"

	"tenfold/tier/table/attr"
	"tenfold/tier/table/expr"
)

// Key is the one item that the statement's condition names: it says of each of names, with AND and with =, what
// it equals. rest is what else the condition asks, nil for nothing; ok is false when it names no one item.
// (Of UPDATE and DELETE AWS then says NoKey.)
func (s *Statement) Key(names ...string) (key attr.Item, rest *expr.Condition, ok bool) {
	key = attr.Item{}
	var others []*expr.Term
	for _, t := range conjuncts(s.Where.Term()) {
		name, v, found := equality(t)
		if _, twice := key[name]; found && slices.Contains(names, name) && !twice {
			key[name] = v
			continue
		}
		others = append(others, t)
	}
	if len(key) != len(names) {
		return nil, nil, false
	}
	switch len(others) {
	case 0:
		return key, nil, true
	case 1:
		return key, expr.NewCondition(others[0]), true
	}
	return key, expr.NewCondition(&expr.Term{Op: "AND", Terms: others}), true
}

// NoKey is the refusal of an UPDATE or a DELETE that does not name one item.
const NoKey = "Where clause does not contain a mandatory equality on all key attributes"

// conjuncts are the terms that must all hold.
func conjuncts(t *expr.Term) []*expr.Term {
	switch {
	case t == nil:
		return nil
	case t.Op != "AND":
		return []*expr.Term{t}
	}
	var all []*expr.Term
	for _, sub := range t.Terms {
		all = append(all, conjuncts(sub)...)
	}
	return all
}

// equality is the attribute and the value of a term that says that they are equal.
func equality(t *expr.Term) (name string, v attr.Value, ok bool) {
	if t.Op != "=" {
		return "", v, false
	}
	for i, o := range t.Args {
		other := t.Args[1-i]
		if len(o.Path) == 1 && other.Function == "" && len(other.Path) == 0 {
			return o.Path[0].Name, other.Value, true
		}
	}
	return "", v, false
}

// Range is a part of a table or of an index: the items of one hash key, and of those the ones whose sort key is
// as Sort says; nil for all.
type Range struct {
	Hash attr.Value
	Sort *expr.KeyTerm
}

// Ranges are the parts of a table in which a SELECT finds all that it looks for, by the names of its hash and
// sort key (which is empty where there is none). scan says that it has to look everywhere. Whatever they are,
// Where must be asked of each item. No item is in two of them. Errors are *Error.
func (s *Statement) Ranges(hash, sort string) (ranges []Range, scan bool, err error) {
	branches, ok := branchesOf(s.Where.Term(), hash, sort)
	if !ok {
		return nil, true, nil
	}
	for i, b := range branches {
		for _, c := range branches[:i] {
			if b.overlaps(c) {
				return nil, false, refuse("Overlapping conditions with range keys are not supported in where clause")
			}
		}
	}
	for _, b := range branches {
		ranges = add(ranges, b.Range)
	}
	return ranges, false, nil
}

// add adds a range to others. Where they meet the whole of the hash key is read, once.
func add(ranges []Range, r Range) []Range {
	for i, q := range ranges {
		if !q.Hash.Equal(r.Hash) {
			continue
		}
		if q.Sort == nil || r.Sort == nil || meet(*q.Sort, *r.Sort) {
			ranges[i].Sort = nil
			return slices.DeleteFunc(ranges, func(o Range) bool { return o.Hash.Equal(r.Hash) && o.Sort != nil })
		}
	}
	return append(ranges, r)
}

// branch is a range, and whether its condition says of the sort key what it is not.
type branch struct {
	Range
	negated bool
}

// overlaps says whether AWS refuses two branches of an OR.
func (b branch) overlaps(c branch) bool {
	switch {
	case !b.Hash.Equal(c.Hash) || b.negated || c.negated || b.Sort == nil && c.Sort == nil:
		return false
	case b.Sort == nil || c.Sort == nil:
		return true
	}
	return meet(*b.Sort, *c.Sort)
}

// branchesOf are the branches of a condition; ok is false when it holds for items of any hash key.
func branchesOf(t *expr.Term, hash, sort string) (branches []branch, ok bool) {
	if t == nil {
		return nil, false
	}
	switch t.Op {
	case "OR":
		for _, sub := range t.Terms {
			more, ok := branchesOf(sub, hash, sort)
			if !ok {
				return nil, false
			}
			branches = append(branches, more...)
		}
		return branches, true
	case "=":
		if name, v, found := equality(t); found && name == hash {
			return []branch{{Range: Range{Hash: v}}}, true
		}
	case "IN":
		return inBranches(t, hash)
	case "AND":
		return andBranches(t, hash, sort)
	}
	return nil, false
}

func inBranches(t *expr.Term, hash string) (branches []branch, ok bool) {
	if p := t.Args[0].Path; len(p) != 1 || p[0].Name != hash {
		return nil, false
	}
	for _, o := range t.Args[1:] {
		if o.Function != "" || len(o.Path) > 0 {
			return nil, false
		}
		if !slices.ContainsFunc(branches, func(b branch) bool { return b.Hash.Equal(o.Value) }) {
			branches = append(branches, branch{Range: Range{Hash: o.Value}})
		}
	}
	return branches, true
}

// andBranches are those of the first term that has any, each with what another says of the sort key.
func andBranches(t *expr.Term, hash, sort string) (branches []branch, ok bool) {
	all := conjuncts(t)
	of := -1
	for i, sub := range all {
		if branches, ok = branchesOf(sub, hash, sort); ok {
			of = i
			break
		}
	}
	if !ok || sort == "" {
		return branches, ok
	}
	for i, sub := range all {
		if i == of {
			continue
		}
		term, negated, ok := sortTerm(sub, sort)
		for j := range branches {
			if ok && branches[j].Sort == nil {
				branches[j].Sort = &term
			}
			branches[j].negated = branches[j].negated || negated
		}
	}
	return branches, true
}

// sortTerm is a term that says where a sort key lies, or that it does not lie there.
func sortTerm(t *expr.Term, sort string) (term expr.KeyTerm, negated, ok bool) {
	switch t.Op {
	case "NOT":
		return term, slices.Contains(expr.NewCondition(t).Names(), sort), false
	case "<>":
		return term, slices.Contains(expr.NewCondition(t).Names(), sort), false
	case "OR", "IN":
		return term, false, false
	}
	k, err := expr.NewKeyCondition(t)
	if err != nil || len(k.Terms) != 1 || k.Terms[0].Name != sort {
		return term, false, false
	}
	return k.Terms[0], false, true
}

// meet says whether a sort key can be as both terms want it.
func meet(a, b expr.KeyTerm) bool {
	switch {
	case a.Op == "=":
		return b.Holds(a.Values[0])
	case b.Op == "=":
		return a.Holds(b.Values[0])
	}
	lowA, highA := bounds(a)
	lowB, highB := bounds(b)
	return lowA.below(highB) && lowB.below(highA)
}

// bound is one end of a range of sort keys; without a value it is open.
type bound struct {
	value *attr.Value
	in    bool // the value itself belongs to it
}

func bounds(t expr.KeyTerm) (low, high bound) {
	v := t.Values[0]
	switch t.Op {
	case "<", "<=":
		return bound{}, bound{&v, t.Op == "<="}
	case ">", ">=":
		return bound{&v, t.Op == ">="}, bound{}
	case "BETWEEN":
		return bound{&v, true}, bound{&t.Values[1], true}
	}
	end := attr.Value{Kind: v.Kind, Text: v.Text + strings.Repeat("\xff", 4), Bytes: append(bytes.Clone(v.Bytes), 0xff, 0xff, 0xff, 0xff)}
	return bound{&v, true}, bound{&end, true} // begins_with
}

// below says whether a range that begins at low can reach one that ends at high.
func (low bound) below(high bound) bool {
	if low.value == nil || high.value == nil {
		return true
	}
	order, ok := attr.Compare(*low.value, *high.value)
	return !ok || order < 0 || order == 0 && low.in && high.in
}
