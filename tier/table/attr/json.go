package attr

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
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

// scanner reads the JSON of values from one copy of it, of which all texts without escapes are parts. It goes on behind a value that is invalid, for JSON that is wrong later
// on comes first; it stops at once at JSON that is wrong.
type scanner struct {
	b       string
	pos     int
	err     *Error // JSON that is wrong
	invalid *Error // the first value that is
	name    string // attribute at the top of the item
}

func (s *scanner) end() error {
	s.space()
	if s.err == nil && s.pos != len(s.b) {
		s.fail("")
	}
	switch {
	case s.err != nil:
		return s.err
	case s.invalid != nil:
		return s.invalid
	}
	return nil
}

func (s *scanner) fail(message string) {
	if s.err == nil {
		s.err = &Error{Serialization: true, Message: message, Attribute: s.name}
	}
	s.pos = len(s.b)
}

func (s *scanner) refuse(e *Error) {
	if s.invalid == nil {
		e.Attribute = s.name
		s.invalid = e
	}
}

func (s *scanner) space() {
	for s.pos < len(s.b) {
		switch s.b[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return
		}
	}
}

// peek is the next byte that is no space, and 0 at the end.
func (s *scanner) peek() byte {
	s.space()
	if s.pos < len(s.b) {
		return s.b[s.pos]
	}
	return 0
}

func (s *scanner) take(c byte) bool {
	if s.peek() == c {
		s.pos++
		return true
	}
	return false
}

// more goes from one member of an object or an array to the next; close is what ends it.
func (s *scanner) more(first *bool, close byte) bool {
	switch {
	case s.err != nil:
		return false
	case s.take(close):
		return false
	case *first:
		*first = false
		return true
	case s.take(','):
		return true
	}
	s.fail("")
	return false
}

// key reads the name of a member and the colon.
func (s *scanner) key() string {
	if s.peek() != '"' {
		s.fail("")
		return ""
	}
	name := s.string()
	if !s.take(':') {
		s.fail("")
	}
	return name
}

// null says whether null stands here, and reads it. A member that is null is one that is not there.
func (s *scanner) null() bool {
	if s.peek() != 'n' {
		return false
	}
	s.literal("null")
	return true
}

func (s *scanner) literal(word string) {
	if len(s.b)-s.pos < len(word) || s.b[s.pos:s.pos+len(word)] != word {
		s.fail("")
		return
	}
	s.pos += len(word)
}

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

// maxJSONDepth is how deep arrays and objects may stand inside what is skipped.
const maxJSONDepth = 1000

// skip reads any JSON and forgets it.
func (s *scanner) skip(depth int) {
	if depth > maxJSONDepth {
		s.fail("")
		return
	}
	switch c := s.peek(); {
	case c == '"':
		s.string()
	case c == '{':
		s.pos++
		for first := true; s.more(&first, '}'); {
			s.key()
			s.skip(depth + 1)
		}
	case c == '[':
		s.pos++
		for first := true; s.more(&first, ']'); {
			s.skip(depth + 1)
		}
	case c == 't':
		s.literal("true")
	case c == 'f':
		s.literal("false")
	case c == 'n':
		s.literal("null")
	default:
		s.skipNumber()
	}
}

func (s *scanner) skipNumber() {
	rest := s.b[s.pos:]
	n := jsonNumber(rest)
	if n == 0 {
		s.fail("")
		return
	}
	s.pos += n
}

// jsonNumber is how many bytes at the front of b are a number of JSON.
func jsonNumber(b string) int {
	i := 0
	digits := func() bool {
		start := i
		for i < len(b) && b[i] >= '0' && b[i] <= '9' {
			i++
		}
		return i > start
	}
	if i < len(b) && b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if !digits() {
		return 0
	}
	if i < len(b) && b[i] == '.' {
		i++
		if !digits() {
			return 0
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if !digits() {
			return 0
		}
	}
	return i
}

// string reads the string that begins here with its quote. Most have no escape and are taken as they stand.
func (s *scanner) string() string {
	start := s.pos + 1
	for i := start; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '"':
			t := s.b[start:i]
			s.pos = i + 1
			return validText(t)
		case c == '\\':
			return s.escaped(start, i)
		case c < ' ':
			s.fail("")
			return ""
		}
	}
	s.fail("")
	return ""
}

// escaped reads a string whose first escape is at i.
func (s *scanner) escaped(start, i int) string {
	out := make([]byte, 0, 2*(i-start)+16)
	out = append(out, s.b[start:i]...)
	for i < len(s.b) {
		switch c := s.b[i]; {
		case c == '"':
			s.pos = i + 1
			return validText(string(out))
		case c < ' ':
			s.fail("")
			return ""
		case c != '\\':
			out = append(out, c)
			i++
		default:
			var used int
			if out, used = unescape(out, s.b[i:]); used == 0 {
				s.fail("")
				return ""
			}
			i += used
		}
	}
	s.fail("")
	return ""
}

// validText has U+FFFD in place of every byte that is no UTF-8.
func validText(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}

// unescape appends what the escape at the front of b stands for; used is 0 when it is none.
func unescape(out []byte, b string) (_ []byte, used int) {
	if len(b) < 2 {
		return out, 0
	}
	switch b[1] {
	case '"', '\\', '/':
		return append(out, b[1]), 2
	case 'b':
		return append(out, '\b'), 2
	case 'f':
		return append(out, '\f'), 2
	case 'n':
		return append(out, '\n'), 2
	case 'r':
		return append(out, '\r'), 2
	case 't':
		return append(out, '\t'), 2
	case 'u':
	default:
		return out, 0
	}
	r, ok := hex4(b[2:])
	if !ok {
		return out, 0
	}
	if r < 0xD800 || r > 0xDFFF {
		return utf8.AppendRune(out, r), 6
	}
	if low, ok := lowSurrogate(b[6:]); ok && r < 0xDC00 {
		return utf8.AppendRune(out, (r-0xD800)<<10+(low-0xDC00)+0x10000), 12
	}
	return utf8.AppendRune(out, utf8.RuneError), 6
}

func lowSurrogate(b string) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	r, ok := hex4(b[2:])
	return r, ok && r >= 0xDC00 && r <= 0xDFFF
}

func hex4(b string) (r rune, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	for i := range 4 {
		c := b[i]
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// AppendJSON appends the value as it stands on the wire.
func (v Value) AppendJSON(b []byte) []byte {
	b = append(b, '{', '"')
	b = append(b, v.Kind.String()...)
	b = append(b, '"', ':')
	switch v.Kind {
	case S, N, B:
		b = v.appendBareJSON(b)
	case SS, NS, BS, L:
		b = append(b, '[')
		for i, e := range v.List {
			if i > 0 {
				b = append(b, ',')
			}
			if v.Kind == L {
				b = e.AppendJSON(b)
			} else {
				b = e.appendBareJSON(b)
			}
		}
		b = append(b, ']')
	case M:
		b = v.Map.AppendJSON(b)
	case Bool:
		b = appendBool(b, v.True)
	default:
		b = append(b, "true"...)
	}
	return append(b, '}')
}

func appendBool(b []byte, yes bool) []byte {
	return strconv.AppendBool(b, yes)
}

func (v Value) appendBareJSON(b []byte) []byte {
	if v.Kind == B {
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, v.Bytes)
		return append(b, '"')
	}
	return appendString(b, v.Text)
}

// AppendJSON appends the item as it stands on the wire, attributes by name.
func (i Item) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	var few [24]string
	for n, name := range i.names(few[:0]) {
		if n > 0 {
			b = append(b, ',')
		}
		b = appendString(b, name)
		b = append(b, ':')
		b = i[name].AppendJSON(b)
	}
	return append(b, '}')
}

// AppendString appends a string of JSON. It must be valid UTF-8, as all is that was read here.
func AppendString(b []byte, s string) []byte { return appendString(b, s) }

func appendString[T string | []byte](b []byte, s T) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xF])
		}
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
