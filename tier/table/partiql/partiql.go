// Package partiql reads the statements of PartiQL that DynamoDB takes (SELECT, INSERT, UPDATE, DELETE, and
// EXISTS in transactions) into conditions, updates and projections of package expr.
//
// It knows no table. Which attributes are keys is told to Statement.Key, for what writes or reads one item, and
// to Statement.Ranges, for what reads many. It runs nothing.
//
// Begin at Parse. A statement is cut into words (words.go) and read in one pass; what is wrong is told in AWS'
// words, some of which name a place in the text. Sources: the developer guide of DynamoDB ("PartiQL reference"),
// and the tests of paritysuite's dynamodb-conformance, which were run against AWS.
package partiql

import (
	"fmt"
	"strconv"

	"tenfold/tier/table/attr"
	"tenfold/tier/table/expr"
)

// Verb is what a statement does.
type Verb string

// The verbs.
const (
	Select Verb = "SELECT"
	Insert Verb = "INSERT"
	Update Verb = "UPDATE"
	Delete Verb = "DELETE"
)

// Statement is one statement, with its parameters in their places.
type Statement struct {
	Verb Verb
	// Exists says that a SELECT stands in EXISTS(…): a condition of a transaction, which reads one item and
	// asks something of it.
	Exists bool
	Table  string
	Index  string // empty for the table itself; only of SELECT

	Columns []Column // of SELECT; nil for *
	OrderBy []Order  // of SELECT

	Item attr.Item // of INSERT

	Update *expr.Update // of UPDATE

	// Where is the whole of the condition, nil for none. It holds for what Key and Ranges find in it, too.
	Where *expr.Condition

	// Returning is the clause of that name as AWS prints it, "ALL OLD *", "MODIFIED NEW *" and so on; empty
	// for none.
	Returning string
}

// Column is one column of a SELECT, and what it is called in the answer.
type Column struct {
	Name string
	Path expr.Path
}

// Order is one term of ORDER BY.
type Order struct {
	Name       string
	Descending bool
}

// Error is a statement that cannot be run, in AWS' words: a ValidationException.
type Error struct{ Message string }

func (e *Error) Error() string { return e.Message }

func refuse(format string, args ...any) *Error {
	return &Error{Message: fmt.Sprintf(format, args...)}
}

// unreadable is a statement that is no PartiQL.
func unreadable(detail string) *Error {
	return &Error{Message: "Statement wasn't well formed, can't be processed: " + detail}
}

// Parse reads a statement. parameters stand for its question marks, one each. Errors are *Error, *expr.Error or
// *attr.Error.
func Parse(text string, parameters []attr.Value) (s *Statement, err error) {
	words, unread := split(text)
	if unread != nil {
		return nil, unread
	}
	p := &parser{text: text, words: words, parameters: parameters}
	defer func() {
		if r := recover(); r != nil {
			stop, ok := r.(stop)
			if !ok {
				panic(r)
			}
			s, err = nil, stop.err
		}
	}()
	s = p.statement()
	if p.used != len(parameters) {
		p.refuse(refuse("Number of parameters in request and statement don't match."))
	}
	if p.later != nil {
		return nil, p.later
	}
	return s, nil
}

// Project is what a SELECT answers of an item.
func (s *Statement) Project(item attr.Item) attr.Item {
	if s.Columns == nil {
		return item
	}
	out := make(attr.Item, len(s.Columns))
	for _, c := range s.Columns {
		if v, ok := c.Path.Get(item); ok {
			out[c.Name] = v
		}
	}
	return out
}

// Names are the names of the attributes that a SELECT's columns look at, in the order of the text; nil for *.
func (s *Statement) Names() []string {
	paths := make([]expr.Path, len(s.Columns))
	for i, c := range s.Columns {
		paths[i] = c.Path
	}
	return expr.NewProjection(paths).Names()
}

// columnName is what a column is called: by the last name of its path, or by its place when that ends in an
// index.
func columnName(p expr.Path, place int) string {
	if last := p[len(p)-1]; !last.IsIndex {
		return last.Name
	}
	return "_" + strconv.Itoa(place)
}
