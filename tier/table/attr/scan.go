package attr

import (
	"unicode/utf8"
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
