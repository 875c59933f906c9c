// Package expr reads DynamoDB's expressions (conditions, filters, projections, updates, conditions on keys) and
// applies them to items. The older parameters that expressions replaced (Expected, AttributeUpdates,
// KeyConditions, QueryFilter, ScanFilter, AttributesToGet) end in the same forms.
//
// It knows no table: which attributes are keys, and what may be done to those, is asked of what was read
// (Condition.Names, Update.Touches, KeyCondition.Terms). It changes no item that it is given.
//
// An expression is read in three steps: words (words.go), a tree of what they say (grammar.go), and the rules
// that a tree must keep (check.go), which are in an order of their own, because AWS tells of one mistake only.
// Begin at ParseCondition and ParseUpdate. Sources: the developer guide of DynamoDB ("Expressions"), and the
// tests of dynalite, of ScyllaDB's Alternator and of paritysuite's dynamodb-conformance, which were run
// against AWS.
package expr

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"tenfold/tier/table/attr"
)

// Error is an expression that cannot be read or cannot be applied, in AWS' words: a ValidationException.
type Error struct {
	Message string
	// Older is the message where AWS still reads expressions as it used to: in transactions and in Scan. Empty
	// where it is the same.
	Older string
}

func (e *Error) Error() string { return e.Message }

func refuse(format string, args ...any) *Error {
	return &Error{Message: fmt.Sprintf(format, args...)}
}

// Limits of expressions.
const (
	maxBytes     = 4096 // of an expression as it was sent
	maxOperators = 300
	maxIn        = 100 // operands of IN, the first among them
	maxSteps     = 32  // of a document path
)

// Args are the names and values that the expressions of one request share, and which of them were used.
// A nil *Args has none.
type Args struct {
	Names  map[string]string // "#a": "attribute"
	Values attr.Item         // ":a": value

	used map[string]bool
}

func (a *Args) name(alias string) (string, bool) {
	if a == nil {
		return "", false
	}
	name, ok := a.Names[alias]
	if ok {
		a.use(alias)
	}
	return name, ok
}

func (a *Args) value(alias string) (attr.Value, bool) {
	if a == nil {
		return attr.Value{}, false
	}
	v, ok := a.Values[alias]
	if ok {
		a.use(alias)
	}
	return v, ok
}

func (a *Args) use(alias string) {
	if a.used == nil {
		a.used = make(map[string]bool)
	}
	a.used[alias] = true
}

// Check says what is wrong with the names and values themselves: none at all where the map is there, and
// aliases that are none. It comes before the first expression is read.
func (a *Args) Check() error {
	if a == nil {
		return nil
	}
	if err := checkAliases("ExpressionAttributeNames", '#', a.Names); err != nil {
		return err
	}
	return checkAliases("ExpressionAttributeValues", ':', a.Values)
}

func checkAliases[V any](parameter string, mark byte, m map[string]V) error {
	if m == nil {
		return nil
	}
	if len(m) == 0 {
		return refuse("%s must not be empty", parameter)
	}
	for _, alias := range slices.Sorted(maps.Keys(m)) {
		if len(alias) < 2 || alias[0] != mark || strings.IndexFunc(alias[1:], notInWord) >= 0 {
			return refuse("%s contains invalid key: Syntax error; key: %q", parameter, alias)
		}
	}
	return nil
}

// Unused is the refusal of names or values that no expression used, and nil when all were. It comes after
// the last expression was read.
func (a *Args) Unused() error {
	if a == nil {
		return nil
	}
	if err := unused("ExpressionAttributeNames", a.Names, a.used); err != nil {
		return err
	}
	return unused("ExpressionAttributeValues", a.Values, a.used)
}

func unused[V any](parameter string, m map[string]V, used map[string]bool) error {
	var rest []string
	for alias := range m {
		if !used[alias] {
			rest = append(rest, alias)
		}
	}
	if rest == nil {
		return nil
	}
	slices.Sort(rest)
	return refuse("Value provided in %s unused in expressions: keys: {%s}", parameter, strings.Join(rest, ", "))
}
