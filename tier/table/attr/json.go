package attr

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
)

// ParseValue reads one value as it stands on the wire: {"S":"a"}. Errors are *Error.
func ParseValue(raw []byte) (Value, error) {
	s := scanner{b: string(raw)}
	v := s.value(0)
	if err := s.end(); err != nil {
		return Value{}, err
	}
	return v, nil
}

// ParseItem reads an item as it stands on the wire: {"a":{"S":"b"},…}. Errors are *Error, with the name of
// the attribute that is bad. JSON that is wrong anywhere comes before a value that is.
func ParseItem(raw []byte) (Item, error) {
	s := scanner{b: string(raw)}
	item := s.item(0)
	if err := s.end(); err != nil {
		return nil, err
	}
	return item, nil
}

// The words of AWS' reader of JSON, which is Java's.
const (
	classPrefix     = "Unrecognized collection type class "
	valueClass      = "com.amazonaws.dynamodb.v20120810.AttributeValue"
	noStructHere    = "Start of structure or map found where not expected"
	noFieldOfType   = "Unexpected field type"
	noValueOfType   = "Unexpected value type in payload"
	noToken         = "Unexpected token received from parser"
	noBase64        = "only base-64-encoded strings are convertible to bytes"
	base64Length    = "Base64 encoded length is expected a multiple of 4 bytes but found: "
	base64Last      = "Invalid last non-pad Base64 character dectected" // sic
	base64Character = "Invalid base64 character dectected"

	emptyValue     = "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
	severalKinds   = "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes"
	wrongParameter = "One or more parameter values were invalid: "
)

// item reads attributes by name; depth is how many lists and maps stand around them.
func (s *scanner) item(depth int) Item {
	switch c := s.peek(); c {
	case '{':
		s.pos++
	case '[':
		s.fail("Unrecognized collection type java.util.Map<java.lang.String, " + valueClass + ">")
		return nil
	default:
		s.wrong(c, noFieldOfType, noFieldOfType)
		return nil
	}
	item := make(Item)
	for first := true; s.more(&first, '}'); {
		name := s.key()
		if depth == 0 {
			s.name = name
		}
		item[name] = s.value(depth)
	}
	return item
}

// value reads {"S":"a"}.
func (s *scanner) value(depth int) Value {
	if depth >= MaxDepth {
		s.refuse(invalid(tooDeep))
		s.skip(depth)
		return Value{}
	}
	switch c := s.peek(); c {
	case '{':
		s.pos++
	case '[':
		s.fail(classPrefix + valueClass)
		return Value{}
	case 'n':
		s.literal("null")
		s.refuse(invalid(emptyValue))
		return Value{}
	default:
		s.wrong(c, noValueOfType, noValueOfType)
		return Value{}
	}
	var v Value
	count := 0
	for first := true; s.more(&first, '}'); {
		k := KindOf(s.key())
		switch {
		case k == 0:
			s.skip(0)
		case s.null():
		case k == v.Kind: // said twice: the last holds
			v = s.payload(k, depth)
		default:
			v = s.payload(k, depth)
			count++
		}
	}
	switch {
	case count == 0:
		s.refuse(invalid(emptyValue))
	case count > 1:
		s.refuse(invalid(severalKinds))
	}
	return v
}

// payload reads what stands behind the kind.
func (s *scanner) payload(k Kind, depth int) Value {
	v := Value{Kind: k}
	switch k {
	case S:
		v.Text = s.text()
	case N:
		v.Text = s.number()
	case B:
		v.Bytes = s.blob()
	case Bool:
		v.True = s.boolean()
	case Null:
		if !s.boolean() {
			s.refuse(invalid(wrongParameter + "Null attribute value types must have the value of true"))
		}
	case SS, NS, BS:
		s.set(&v)
	case L, M:
		if k == M {
			v.Map = s.item(depth + 1)
			break
		}
		if !s.list() {
			break
		}
		v.List = []Value{}
		for first := true; s.more(&first, ']'); {
			v.List = append(v.List, s.value(depth+1))
		}
	}
	return v
}

// list reads the start of an array, or refuses what stands there.
func (s *scanner) list() bool {
	switch c := s.peek(); c {
	case '[':
		s.pos++
		return true
	case '{':
		s.fail(noStructHere)
	default:
		s.wrong(c, noFieldOfType, noFieldOfType)
	}
	return false
}

func (s *scanner) set(v *Value) {
	if !s.list() {
		return
	}
	element := v.Kind.element()
	for first := true; s.more(&first, ']'); {
		e := Value{Kind: element}
		switch element {
		case S:
			e.Text = s.text()
		case N:
			e.Text = s.number()
		case B:
			e.Bytes = s.blob()
		}
		v.List = append(v.List, e)
	}
	if s.err != nil {
		return
	}
	if e := v.badSet(); e != nil {
		s.refuse(e)
	}
}

// CheckSet refuses a set that is empty or has an element twice; what is no set is well. Errors are *Error.
func (v Value) CheckSet() error {
	if !v.Kind.Set() {
		return nil
	}
	if e := v.badSet(); e != nil {
		return e
	}
	return nil
}

// badSet is why a set is none, in AWS' words, which differ from kind to kind; nil for one that is well.
func (v Value) badSet() *Error {
	if len(v.List) == 0 {
		switch v.Kind {
		case SS:
			return invalid(wrongParameter + "An string set  may not be empty")
		case NS:
			return invalid(wrongParameter + "An number set  may not be empty")
		}
		return invalid(wrongParameter + "Binary sets should not be empty")
	}
	if !hasDuplicates(v.List) {
		return nil
	}
	const collection = wrongParameter + "Input collection "
	switch v.Kind {
	case SS:
		return &Error{
			Message: collection + "[" + strings.Join(v.quoted(), ", ") + "] contains duplicates.",
			Older:   collection + v.elements() + " contains duplicates.",
		}
	case NS:
		return &Error{Message: collection + "contains duplicates.", Older: "Input collection contains duplicates"}
	}
	return &Error{
		Message: collection + "[" + strings.Join(v.quoted(), ",") + "]of type BS contains duplicates.",
		Older:   collection + v.elements() + "of type BS contains duplicates.",
	}
}

// quoted are a set's elements as AWS lists them when one is there twice: in order up to the first that
// repeats, then as they came.
func (v Value) quoted() []string {
	repeat := 1
	for repeat < len(v.List) && !slices.ContainsFunc(v.List[:repeat], v.List[repeat].Equal) {
		repeat++
	}
	list := slices.Clone(v.List)
	slices.SortFunc(list[:repeat], func(a, b Value) int {
		order, _ := Compare(a, b)
		return order
	})
	words := make([]string, len(list))
	for i, e := range list {
		words[i] = string(e.appendBareJSON(nil))
	}
	return words
}

func hasDuplicates(list []Value) bool {
	if len(list) <= 16 {
		for i, e := range list {
			for _, f := range list[:i] {
				if e.Equal(f) {
					return true
				}
			}
		}
		return false
	}
	seen := make(map[string]bool, len(list))
	for _, e := range list {
		if seen[e.setKey()] {
			return true
		}
		seen[e.setKey()] = true
	}
	return false
}

// elements is a set as AWS prints it: [a, b].
func (v Value) elements() string {
	words := make([]string, len(v.List))
	for i, e := range v.List {
		words[i] = e.Text
		if e.Kind == B {
			words[i] = base64.StdEncoding.EncodeToString(e.Bytes)
		}
	}
	return "[" + strings.Join(words, ", ") + "]"
}

// text reads a string, or refuses what stands there.
func (s *scanner) text() string {
	if c := s.peek(); c != '"' {
		s.wrong(c, "", " cannot be converted to String")
		return ""
	}
	return s.string()
}

func (s *scanner) number() string {
	t := s.text()
	if s.err != nil {
		return ""
	}
	n, err := Number(t)
	if err != nil {
		s.refuse(err.(*Error))
	}
	return n
}

func (s *scanner) blob() []byte {
	switch c := s.peek(); c {
	case '"':
	case '[':
		s.fail(classPrefix + "java.nio.ByteBuffer")
		return nil
	default:
		s.wrong(c, noBase64, noBase64)
		return nil
	}
	t := s.string()
	if s.err != nil {
		return nil
	}
	if len(t)%4 != 0 {
		s.fail(base64Length + strconv.Itoa(len(t)))
		return nil
	}
	b, err := base64.StdEncoding.Strict().DecodeString(t)
	if err != nil || strings.ContainsAny(t, "\r\n") {
		s.fail(base64Last)
		return nil
	}
	return b
}

func (s *scanner) boolean() bool {
	switch c := s.peek(); c {
	case 't':
		s.literal("true")
		return true
	case 'f':
		s.literal("false")
		return false
	case '"':
		switch strings.ToUpper(s.string()) {
		case "TRUE", "1", "YES":
			return true
		case "FALSE", "0", "NO":
			return false
		}
		s.fail(noToken)
	case '[':
		s.fail(classPrefix + "java.lang.Boolean")
	default:
		s.wrong(c, "", " cannot be converted to Boolean")
	}
	return false
}

// wrong refuses what stands here, beginning with c, which is not what is wanted. For a null and for a
// literal without an own message it is put together from what stands there and from verdict.
func (s *scanner) wrong(c byte, message, verdict string) {
	start := s.pos
	switch {
	case c == '{':
		s.fail(noStructHere)
		return
	case c == '[':
		s.fail(classPrefix + "java.lang" + strings.Replace(verdict, " cannot be converted to ", ".", 1))
		return
	}
	s.skip(0)
	if s.err != nil {
		return
	}
	if message != "" {
		s.fail(message)
		return
	}
	switch word := s.b[start:s.pos]; {
	case c == 't':
		s.fail("TRUE_VALUE" + verdict)
	case c == 'f':
		s.fail("FALSE_VALUE" + verdict)
	case c == 'n':
		s.fail(noToken)
	case strings.ContainsAny(word, ".eE"):
		s.fail("DECIMAL_VALUE" + verdict)
	default:
		s.fail("NUMBER_VALUE" + verdict)
	}
}
