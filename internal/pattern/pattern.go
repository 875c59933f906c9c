// Package pattern is the language in which EventBridge's rules, and Lambda's event sources, say which events they take: a JSON object with
// the shape of the event, and lists of what a field may be at its leaves.
//
// Parse reads a pattern, Matches holds it against an event. It is pure, and neither keeps nor changes what it
// is given. Begin at Parse. Source: "Amazon EventBridge event patterns" and "Comparison operators" of the
// EventBridge User Guide.
package pattern

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Limits of a pattern.
const (
	maxBytes = 4096
	maxDepth = 50
	// maxAlternatives is how many combinations $or may make.
	maxAlternatives = 1000
)

// Pattern is a pattern that was read. The zero value matches every event.
type Pattern struct{ root node }

// node is an object of a pattern: all fields must match, and one of each $or.
type node struct {
	fields map[string]field
	ors    [][]node
}

// field is an object, or alternatives.
type field struct {
	node   *node
	leaves []leaf
}

// leaf is one thing that a field may be.
type leaf func(v any, there bool) bool

// Error says what is wrong with a pattern, in AWS' words.
type Error struct{ Reason string }

func (e *Error) Error() string { return "Event pattern is not valid. Reason: " + e.Reason }

func refuse(format string, args ...any) error { return &Error{fmt.Sprintf(format, args...)} }

// Parse reads a pattern. Its error is an *Error.
func Parse(raw []byte) (*Pattern, error) {
	if len(raw) > maxBytes {
		return nil, refuse("a pattern has at most %d bytes", maxBytes)
	}
	v, err := decode(raw)
	if err != nil {
		return nil, refuse("%v", err)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, refuse("Filter is not an object")
	}
	n, alternatives, err := parseNode(m, "", 0)
	if err != nil {
		return nil, err
	}
	if len(m) == 0 {
		return nil, refuse("Empty event pattern is not allowed")
	}
	if alternatives > maxAlternatives {
		return nil, refuse("$or makes more than %d combinations", maxAlternatives)
	}
	return &Pattern{n}, nil
}

func decode(raw []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, fmt.Errorf("something follows the object")
	}
	return undot(v), nil
}

// undot has a name with dots be a path: {"a.b": 1} is {"a": {"b": 1}}, in patterns and in events, as AWS has it.
func undot(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = undot(v[i])
		}
	case map[string]any:
		var dotted []string
		for k, x := range v {
			v[k] = undot(x)
			if strings.Contains(k, ".") {
				dotted = append(dotted, k)
			}
		}
		slices.Sort(dotted)
		for _, k := range dotted {
			within(v, k)
		}
	}
	return v
}

// within moves what stands under a name with dots to where the name says, unless something else is there.
func within(m map[string]any, name string) {
	parts := strings.Split(name, ".")
	to := m
	for _, p := range parts[:len(parts)-1] {
		next, there := to[p]
		if !there {
			next = map[string]any{}
		}
		sub, ok := next.(map[string]any)
		if !ok {
			return
		}
		to[p] = sub
		to = sub
	}
	last := parts[len(parts)-1]
	if _, there := to[last]; !there {
		to[last] = m[name]
		delete(m, name)
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func parseNode(m map[string]any, path string, depth int) (n node, alternatives int, err error) {
	if depth > maxDepth {
		return n, 0, refuse("it is nested deeper than %d levels", maxDepth)
	}
	n.fields = map[string]field{}
	alternatives = 1
	for name, v := range m {
		at := join(path, name)
		if name == "$or" {
			if list, ok := v.([]any); ok && len(list) > 1 {
				var or []node
				sum := 0
				for _, e := range list {
					o, ok := e.(map[string]any)
					if !ok || len(o) == 0 {
						return n, 0, refuse("%s takes a list of objects", at)
					}
					one, k, err := parseNode(o, path, depth+1)
					if err != nil {
						return n, 0, err
					}
					or = append(or, one)
					sum += k
				}
				n.ors = append(n.ors, or)
				if alternatives *= sum; alternatives > maxAlternatives {
					return n, 0, refuse("$or makes more than %d combinations", maxAlternatives)
				}
				continue
			}
			return n, 0, refuse("%s takes a list of two objects or more", at)
		}
		switch v := v.(type) {
		case map[string]any:
			if len(v) == 0 {
				return n, 0, refuse("%q is an empty object", at)
			}
			sub, k, err := parseNode(v, at, depth+1)
			if err != nil {
				return n, 0, err
			}
			if alternatives *= k; alternatives > maxAlternatives {
				return n, 0, refuse("$or makes more than %d combinations", maxAlternatives)
			}
			n.fields[name] = field{node: &sub}
		case []any:
			if len(v) == 0 {
				return n, 0, refuse("Empty arrays are not allowed at %s", at)
			}
			f := field{}
			for _, e := range v {
				l, err := parseLeaf(e, at)
				if err != nil {
					return n, 0, err
				}
				f.leaves = append(f.leaves, l)
			}
			n.fields[name] = f
		default:
			return n, 0, refuse("%q must be an object or an array at %s", name, at)
		}
	}
	return n, alternatives, nil
}

// parseLeaf reads one alternative of a field.
func parseLeaf(v any, at string) (leaf, error) {
	m, ok := v.(map[string]any)
	if !ok {
		if _, list := v.([]any); list {
			return nil, refuse("a list stands in a list at %s", at)
		}
		return one(func(x any) bool { return equal(v, x) }), nil
	}
	if len(m) != 1 {
		return nil, refuse("Only one key allowed in match expression at %s", at)
	}
	for op, arg := range m {
		return parseOperator(op, arg, at)
	}
	return nil, nil
}

// hasLeaf says whether a field has a value of its own, which is what "exists" asks: an object, or a list without
// values, has not.
func hasLeaf(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		return false
	case []any:
		return slices.ContainsFunc(v, hasLeaf)
	}
	return true
}

// one is a leaf that some value of the field must satisfy.
func one(f func(x any) bool) leaf {
	return func(v any, there bool) bool { return there && any1(v, f) }
}

// any1 says whether a value, or one of a list's, satisfies f.
func any1(v any, f func(x any) bool) bool {
	list, ok := v.([]any)
	if !ok {
		return f(v)
	}
	for _, e := range list {
		if any1(e, f) {
			return true
		}
	}
	return false
}

// equal compares scalars; numbers by value.
func equal(a, b any) bool {
	x, ok := a.(json.Number)
	if !ok {
		switch a.(type) {
		case nil, string, bool:
			return a == b
		}
		return false
	}
	y, ok := b.(json.Number)
	if !ok {
		return false
	}
	if x == y {
		return true
	}
	p, q := number(x), number(y)
	return p != nil && q != nil && p.Cmp(q) == 0
}

// number is a number of reasonable size, and nil for others.
func number(n json.Number) *big.Rat {
	s := n.String()
	if len(s) > 64 {
		return nil
	}
	if i := strings.IndexAny(s, "eE"); i >= 0 && len(s)-i > 5 { // 1e999999 is no number to build
		return nil
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return nil
	}
	return r
}

func parseOperator(op string, arg any, at string) (leaf, error) {
	switch op {
	case "exists":
		want, ok := arg.(bool)
		if !ok {
			return nil, refuse("exists match pattern must be either true or false at %s", at)
		}
		return func(v any, there bool) bool { return (there && hasLeaf(v)) == want }, nil
	case "anything-but":
		not, err := parseNot(arg, at)
		if err != nil {
			return nil, err
		}
		return one(func(x any) bool { return !not(x) }), nil
	case "numeric":
		f, err := parseNumeric(arg, at)
		return one(f), err
	case "cidr":
		s, ok := arg.(string)
		if !ok {
			return nil, refuse("prefix match pattern must be a string at %s", at)
		}
		p, err := parseCIDR(s, at)
		if err != nil {
			return nil, err
		}
		return one(func(x any) bool {
			s, ok := x.(string)
			if !ok {
				return false
			}
			a, err := netip.ParseAddr(s)
			return err == nil && p.Contains(a.Unmap())
		}), nil
	}
	f, err := parseText(op, arg, at)
	if err != nil {
		return nil, err
	}
	return one(texts(f)), nil
}

// parseCIDR reads 10.0.0.0/24 or 2001:db8::/32.
func parseCIDR(s, at string) (netip.Prefix, error) {
	address, mask, ok := strings.Cut(s, "/")
	if !ok || strings.Contains(mask, "/") {
		return netip.Prefix{}, refuse("Malformed CIDR, one '/' required at %s", at)
	}
	if _, err := netip.ParseAddr(address); err != nil {
		return netip.Prefix{}, refuse("Nonstandard IP address: %s at %s", address, at)
	}
	if _, err := strconv.Atoi(mask); err != nil {
		return netip.Prefix{}, refuse("Malformed CIDR, mask bits must be an integer at %s", at)
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, refuse("Malformed CIDR, mask bits are out of bounds at %s", at)
	}
	return p, nil
}

// texts makes a test of strings one of values.
func texts(f func(string) bool) func(any) bool {
	return func(x any) bool {
		s, ok := x.(string)
		return ok && f(s)
	}
}

// parseText reads the operators on strings.
func parseText(op string, arg any, at string) (func(string) bool, error) {
	if m, ok := arg.(map[string]any); ok && (op == "prefix" || op == "suffix") && len(m) == 1 {
		s, ok := m["equals-ignore-case"].(string)
		if !ok {
			return nil, refuse("%s takes a string or equals-ignore-case at %s", op, at)
		}
		if op == "prefix" {
			return func(x string) bool { return len(x) >= len(s) && strings.EqualFold(x[:len(s)], s) }, nil
		}
		return func(x string) bool { return len(x) >= len(s) && strings.EqualFold(x[len(x)-len(s):], s) }, nil
	}
	s, ok := arg.(string)
	switch op {
	case "prefix", "suffix", "equals-ignore-case", "wildcard":
		if !ok {
			return nil, refuse("%s match pattern must be a string at %s", op, at)
		}
	default:
		return nil, refuse("Unrecognized match type %s at %s", op, at)
	}
	switch op {
	case "prefix":
		return func(x string) bool { return strings.HasPrefix(x, s) }, nil
	case "suffix":
		return func(x string) bool { return strings.HasSuffix(x, s) }, nil
	case "equals-ignore-case":
		return func(x string) bool { return strings.EqualFold(x, s) }, nil
	}
	parts, err := splitWildcard(s, at)
	if err != nil {
		return nil, err
	}
	return func(x string) bool { return wild(parts, x) }, nil
}

// splitWildcard cuts a wildcard at its stars; \* and \\ are themselves.
func splitWildcard(s, at string) ([]string, error) {
	var parts []string
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			if i++; i == len(s) || s[i] != '*' && s[i] != '\\' {
				return nil, refuse("Invalid escape character at pos %d at %s", i, at)
			}
			b.WriteByte(s[i])
		case s[i] == '*':
			if i > 0 && s[i-1] == '*' && len(parts) > 0 && b.Len() == 0 {
				return nil, refuse("Consecutive wildcard characters at pos %d at %s", i, at)
			}
			parts = append(parts, b.String())
			b.Reset()
		default:
			b.WriteByte(s[i])
		}
	}
	return append(parts, b.String()), nil
}

// wild says whether x is the parts with anything between them.
func wild(parts []string, x string) bool {
	if len(parts) == 1 {
		return x == parts[0]
	}
	rest, ok := strings.CutPrefix(x, parts[0])
	if !ok {
		return false
	}
	for _, p := range parts[1 : len(parts)-1] {
		_, after, ok := strings.Cut(rest, p)
		if !ok {
			return false
		}
		rest = after
	}
	return strings.HasSuffix(rest, parts[len(parts)-1])
}

// parseNot reads what anything-but excludes.
func parseNot(arg any, at string) (func(any) bool, error) {
	switch v := arg.(type) {
	case string, json.Number:
		return func(x any) bool { return equal(v, x) }, nil
	case []any:
		if len(v) == 0 {
			return nil, refuse("anything-but takes a list of at least one at %s", at)
		}
		for _, e := range v {
			switch e.(type) {
			case string, json.Number:
			default:
				return nil, refuse("Inside anything but list, start|null|boolean is not supported. at %s", at)
			}
		}
		return func(x any) bool {
			for _, e := range v {
				if equal(e, x) {
					return true
				}
			}
			return false
		}, nil
	case map[string]any:
		if len(v) != 1 {
			return nil, refuse("Only one key allowed in match expression at %s", at)
		}
		for op, arg := range v {
			list, ok := arg.([]any)
			if !ok {
				list = []any{arg}
			}
			var fs []func(string) bool
			for _, e := range list {
				text, ok := e.(string)
				switch {
				case op == "prefix" || op == "suffix":
					if _, nested := e.(map[string]any); nested && len(list) == 1 {
						return nil, refuse("Value of anything-but must be an array or single string/number value. at %s", at)
					}
					if !ok {
						return nil, refuse("prefix/suffix match pattern must be a string at %s", at)
					}
					if text == "" {
						return nil, refuse("Null prefix/suffix not allowed at %s", at)
					}
				case op == "equals-ignore-case" && !ok:
					return nil, refuse("Inside anything-but/equals-ignore-case list, number|start|null|boolean is not supported. at %s", at)
				}
				f, err := parseText(op, e, at)
				if err != nil {
					return nil, err
				}
				fs = append(fs, f)
			}
			return texts(func(x string) bool {
				for _, f := range fs {
					if f(x) {
						return true
					}
				}
				return false
			}), nil
		}
	}
	return nil, refuse("Value of anything-but must be an array or single string/number value. at %s", at)
}

// parseNumeric reads comparisons: ["=", 5], ["<", 5], or from a lower to an upper bound: [">", 0, "<=", 5].
func parseNumeric(arg any, at string) (func(any) bool, error) {
	list, ok := arg.([]any)
	if !ok {
		return nil, refuse("Value of numeric must be an array. at %s", at)
	}
	type comparison struct {
		op string
		n  *big.Rat
	}
	var all []comparison
	for i := 0; i < len(list) || i == 0; i += 2 {
		op, ok := "", false
		if i < len(list) {
			op, ok = list[i].(string)
		}
		switch {
		case !ok:
			return nil, refuse("Invalid member in numeric match: %v at %s", list, at)
		case op != "=" && op != "<" && op != "<=" && op != ">" && op != ">=":
			return nil, refuse("Unrecognized numeric range operator: %s at %s", op, at)
		case i > 0 && (i > 2 || all[0].op[0] != '>'):
			return nil, refuse("Too many terms in numeric range expression at %s", at)
		case i > 0 && op[0] != '<':
			return nil, refuse("Bad numeric range operator: %s at %s", op, at)
		}
		var jn json.Number
		if i+1 < len(list) {
			jn, ok = list[i+1].(json.Number)
		}
		if !ok || jn == "" {
			return nil, refuse("Value of %s must be numeric at %s", op, at)
		}
		n := number(jn)
		if n == nil {
			return nil, refuse("the number %s is out of bounds at %s", jn, at)
		}
		all = append(all, comparison{op, n})
	}
	if len(all) == 2 && all[0].n.Cmp(all[1].n) >= 0 {
		return nil, refuse("Bottom must be less than top at %s", at)
	}
	return func(x any) bool {
		jn, ok := x.(json.Number)
		if !ok {
			return false
		}
		n := number(jn)
		if n == nil {
			return false
		}
		for _, c := range all {
			order := n.Cmp(c.n)
			if !(c.op == "=" && order == 0 || c.op == "<" && order < 0 || c.op == "<=" && order <= 0 || c.op == ">" && order > 0 || c.op == ">=" && order >= 0) {
				return false
			}
		}
		return true
	}, nil
}

// Matches says whether an event is one that the pattern takes. What is no JSON object is not.
func (p *Pattern) Matches(event []byte) bool {
	v, err := decode(event)
	if err != nil {
		return false
	}
	m, ok := v.(map[string]any)
	return ok && p.root.matches(m)
}

func (n *node) matches(m map[string]any) bool {
	for name, f := range n.fields {
		v, there := m[name]
		if !f.matches(v, there) {
			return false
		}
	}
	for _, or := range n.ors {
		found := false
		for i := range or {
			found = found || or[i].matches(m)
		}
		if !found {
			return false
		}
	}
	return true
}

func (f field) matches(v any, there bool) bool {
	if f.node == nil {
		for _, l := range f.leaves {
			if l(v, there) {
				return true
			}
		}
		return false
	}
	switch v := v.(type) {
	case map[string]any:
		return f.node.matches(v)
	case []any: // one of its objects
		for _, e := range v {
			if f.matches(e, true) {
				return true
			}
		}
		return false
	}
	return f.node.matches(nil) // only what must not exist is satisfied by what is no object
}
