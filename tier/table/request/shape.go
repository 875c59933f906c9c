package request

import (
	_ "embed"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

//go:embed operations.txt
var operationsText string

// kind is what a member is in JSON.
type kind byte

const (
	isString kind = iota
	isInteger
	isLong
	isDouble
	isBoolean
	isBlob
	isList
	isMap
	isStruct
)

// shape is a type: of a member, or of what is in a list or a map.
type shape struct {
	kind    kind
	class   string  // the name in Java, which AWS' messages use
	of      *shape  // what a list or a map holds
	members []field // of a structure
}

// field is a member of a structure and what it has to satisfy.
type field struct {
	name  string
	lower string // as AWS' messages have it: "tableName"
	*shape

	notNull, notNullOld, alone, never bool
	table, tableOld, pattern          bool
	tables                            bool
	each                              int
	short, long                       int // bounds of a length; 0: none
	low, high                         int64
	hasLow, hasHigh                   bool
	enum                              []string
}

// shapes are all structures of operations.txt by name.
var shapes = sync.OnceValue(func() map[string]*shape {
	all := make(map[string]*shape)
	var current *shape
	structure := func(name string) *shape {
		if all[name] == nil {
			all[name] = &shape{kind: isStruct, class: name}
		}
		return all[name]
	}
	for line := range strings.Lines(operationsText) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || words[0] == "#":
		case line[0] != ' ':
			current = structure(words[0])
			if len(words) > 1 {
				current.class = words[1]
			}
		default:
			current.members = append(current.members, readField(words, structure))
		}
	}
	return all
})

func readField(words []string, structure func(string) *shape) field {
	f := field{name: words[0], lower: strings.ToLower(words[0][:1]) + words[0][1:]}
	typ, required := strings.CutSuffix(words[1], "!")
	typ, f.notNullOld = strings.CutSuffix(typ, "!")
	f.notNull = required && !f.notNullOld
	f.shape = readShape(typ, structure)
	for i, w := range words[2:] {
		before, after, isRange := strings.Cut(w, "..")
		switch {
		case w == "=":
			f.enum = words[2+i+1:]
			return f
		case w == "alone":
			f.alone = true
		case w == "never":
			f.never = true
		case w == "name":
			f.pattern, f.short, f.long = true, 3, 255
		case w == "table":
			f.table, f.pattern, f.short, f.long = true, true, 3, 255
		case w == "oldtable":
			f.table, f.tableOld, f.pattern = true, true, true
		case w == "^":
			f.pattern = true
		case w == "tables":
			f.tables = true
		case before == "each":
			f.each = number(after)
		case isRange:
			f.short, f.long = number(before), number(after)
		case w[:2] == ">=":
			f.low, f.hasLow = int64(number(w[2:])), true
		case w[:2] == "<=":
			f.high, f.hasHigh = int64(number(w[2:])), true
		}
	}
	return f
}

func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

func readShape(name string, structure func(string) *shape) *shape {
	outer, inner, ok := strings.Cut(strings.TrimSuffix(name, ">"), "<")
	if ok {
		of := readShape(inner, structure)
		if outer == "List" {
			return &shape{kind: isList, of: of}
		}
		return &shape{kind: isMap, of: of}
	}
	switch name {
	case "String":
		return &shape{kind: isString, class: name}
	case "Integer":
		return &shape{kind: isInteger, class: name}
	case "Long":
		return &shape{kind: isLong, class: name}
	case "Double":
		return &shape{kind: isDouble, class: name}
	case "Boolean":
		return &shape{kind: isBoolean, class: name}
	case "Blob":
		return &shape{kind: isBlob}
	}
	return structure(name)
}

// java is the name of the type in Java, which is what AWS' service runs on.
func (s *shape) java() string {
	switch s.kind {
	case isBlob:
		return "java.nio.ByteBuffer"
	case isList:
		return "java.util.List<" + s.of.java() + ">"
	case isMap:
		return "java.util.Map<java.lang.String, " + s.of.java() + ">"
	case isStruct:
		return "com.amazonaws.dynamodb.v20120810." + s.class
	}
	return "java.lang." + s.class
}

// wrong says what is wrong with the types of n, in the words of AWS' reader of JSON; "" when nothing is.
// inside is whether n is an element of a list or a map, rather than a structure's member: the words differ.
func (s *shape) wrong(n *node, inside bool) string {
	if n.null() {
		return ""
	}
	switch s.kind {
	case isList, isMap, isStruct:
		return s.wrongInside(n, inside)
	}
	switch n.kind {
	case '[':
		return "Unrecognized collection type class " + s.java()
	case '{':
		return "Start of structure or map found where not expected"
	}
	switch {
	case s.kind == isBlob:
		return wrongBlob(n)
	case s.kind == isString && n.kind == '"':
		return ""
	case s.kind == isBoolean && n.kind == '"':
		if _, ok := word(n.text); !ok {
			return "Unexpected token received from parser"
		}
		return ""
	case s.kind == isBoolean && (n.kind == 't' || n.kind == 'f'):
		return ""
	case s.kind != isBoolean && s.kind != isString && n.kind == 0:
		return ""
	}
	return n.token() + " cannot be converted to " + s.class
}

// token is what Java's parser calls a scalar.
func (n *node) token() string {
	switch {
	case n.kind == 't':
		return "TRUE_VALUE"
	case n.kind == 'f':
		return "FALSE_VALUE"
	case n.kind == '"':
		return "STRING_VALUE"
	case strings.ContainsAny(n.text, ".eE"):
		return "DECIMAL_VALUE"
	}
	return "NUMBER_VALUE"
}

func wrongBlob(n *node) string {
	if n.kind != '"' {
		return "only base-64-encoded strings are convertible to bytes"
	}
	if len(n.text)%4 != 0 {
		return "Base64 encoded length is expected a multiple of 4 bytes but found: " + strconv.Itoa(len(n.text))
	}
	if !canonicalBase64(n.text) {
		return "Invalid last non-pad Base64 character dectected"
	}
	return ""
}

func (s *shape) wrongInside(n *node, inside bool) string {
	want := byte('{')
	if s.kind == isList {
		want = '['
	}
	switch {
	case n.kind == want:
	case n.kind == '{':
		return "Start of structure or map found where not expected"
	case n.kind == '[' && s.kind == isMap:
		return "Unrecognized collection type " + s.java()
	case n.kind == '[':
		return "Unrecognized collection type class " + s.java()
	case !inside:
		return "Unexpected field type"
	case s.kind == isStruct:
		return "Unexpected value type in payload"
	default:
		return "class sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl cannot be cast to class java.lang.Class (sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl and java.lang.Class are in module java.base of loader 'bootstrap')"
	}
	for i := range n.list {
		if w := s.of.wrong(&n.list[i], true); w != "" {
			return w
		}
	}
	for i := range n.members {
		m := &n.members[i]
		w := ""
		if s.kind == isMap {
			w = s.of.wrong(&m.node, true)
		} else if f := s.field(m.name); f != nil && !f.never {
			w = f.wrong(&m.node, false)
		}
		if w != "" {
			return w
		}
	}
	return ""
}

func (s *shape) field(name string) *field {
	for i := range s.members {
		if s.members[i].name == name {
			return &s.members[i]
		}
	}
	return nil
}

// length of a string in the characters of Java, of a list or a map in elements.
func (n *node) length() int {
	switch n.kind {
	case '[':
		return len(n.list)
	case '{':
		return len(n.members)
	}
	length := 0
	for _, r := range n.text {
		length++
		if r >= utf8.RuneSelf && r > 0xFFFF {
			length++
		}
	}
	return length
}
