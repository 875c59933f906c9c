package request

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth is how deep arrays and objects may stand inside one another.
const maxDepth = 1000

// cursor walks over JSON without keeping it. What it gives points into b. Once something is no JSON it stays
// bad and at the end.
type cursor struct {
	b   []byte
	pos int
	bad bool
}

func (c *cursor) fail() { c.bad, c.pos = true, len(c.b) }

// peek is the next byte that is no space, 0 at the end.
func (c *cursor) peek() byte {
	for c.pos < len(c.b) {
		switch b := c.b[c.pos]; b {
		case ' ', '\t', '\r', '\n':
			c.pos++
		default:
			return b
		}
	}
	return 0
}

func (c *cursor) take(b byte) bool {
	if c.peek() != b || c.pos == len(c.b) {
		return false
	}
	c.pos++
	return true
}

// more goes from one member of an object or array to the next; end closes it.
func (c *cursor) more(first *bool, end byte) bool {
	switch {
	case c.bad, c.take(end):
		return false
	case *first:
		*first = false
		return true
	case c.take(','):
		return true
	}
	c.fail()
	return false
}

// key reads a member's name, with its quotes, and the colon.
func (c *cursor) key() []byte {
	if c.peek() != '"' {
		c.fail()
		return nil
	}
	name := c.string()
	if !c.take(':') {
		c.fail()
	}
	return name
}

// string passes over a string and returns it with its quotes.
func (c *cursor) string() []byte {
	start, escaped := c.pos, false
	for i := start + 1; i < len(c.b); i++ {
		switch b := c.b[i]; {
		case b == '"':
			if escaped && !json.Valid(c.b[start:i+1]) {
				c.fail()
				return nil
			}
			c.pos = i + 1
			return c.b[start:c.pos]
		case b == '\\':
			i, escaped = i+1, true
		case b < ' ':
			c.fail()
			return nil
		}
	}
	c.fail()
	return nil
}

// value passes over any value and returns it.
func (c *cursor) value(depth int) []byte {
	first := c.peek()
	start := c.pos
	switch first {
	case '"':
		c.string()
	case '{', '[':
		if depth > maxDepth {
			c.fail()
			return nil
		}
		c.pos++
		for begin := true; c.more(&begin, first+2); {
			if first == '{' {
				c.key()
			}
			c.value(depth + 1)
		}
	case 't':
		c.word("true")
	case 'f':
		c.word("false")
	case 'n':
		c.word("null")
	default:
		c.number()
	}
	if c.bad {
		return nil
	}
	return c.b[start:c.pos]
}

func (c *cursor) word(w string) {
	if !strings.HasPrefix(string(c.b[c.pos:min(len(c.b), c.pos+len(w))]), w) {
		c.fail()
		return
	}
	c.pos += len(w)
}

func (c *cursor) number() {
	start := c.pos
	for c.pos < len(c.b) && strings.IndexByte("+-.0123456789eE", c.b[c.pos]) >= 0 {
		c.pos++
	}
	if start == c.pos || !json.Valid(c.b[start:c.pos]) {
		c.fail()
	}
}

// end says whether nothing stands behind what was read, and all of it was JSON.
func (c *cursor) end() bool { return c.peek() == 0 && c.pos == len(c.b) && !c.bad }

// unquote is the text of a string of JSON; of anything else it is "".
func unquote(raw []byte) string {
	if len(raw) < 2 || raw[0] != '"' {
		return ""
	}
	plain := true
	for _, b := range raw[1 : len(raw)-1] {
		if b == '\\' {
			plain = false
			break
		}
	}
	if in := raw[1 : len(raw)-1]; plain && utf8.Valid(in) {
		return string(in)
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// object calls do for each member of an object that is not null. Of anything else it does nothing.
func object(raw []byte, do func(name string, raw []byte)) {
	c := cursor{b: raw}
	if !c.take('{') {
		return
	}
	for first := true; c.more(&first, '}'); {
		name := c.key()
		if value := c.value(0); !c.bad && value[0] != 'n' {
			do(unquote(name), value)
		}
	}
}

// array calls do for each element of an array. Of anything else it does nothing.
func array(raw []byte, do func(raw []byte)) {
	c := cursor{b: raw}
	if !c.take('[') {
		return
	}
	for first := true; c.more(&first, ']'); {
		if value := c.value(0); !c.bad {
			do(value)
		}
	}
}

func boolean(raw []byte) bool {
	if raw[0] == '"' {
		yes, _ := word(unquote(raw))
		return yes
	}
	return raw[0] == 't'
}

// word is a string that is taken for a boolean.
func word(s string) (yes, ok bool) {
	switch strings.ToUpper(s) {
	case "TRUE", "1", "YES":
		return true, true
	case "FALSE", "0", "NO":
		return false, true
	}
	return false, false
}

// integer is a number without its fraction; what is too large for 64 bits is the largest that is not.
func integer(raw []byte) int64 {
	if i, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return i
	}
	f, _ := strconv.ParseFloat(string(raw), 64)
	switch f = math.Floor(f); {
	case f >= math.MaxInt64:
		return math.MaxInt64
	case f <= math.MinInt64:
		return math.MinInt64
	}
	return int64(f)
}

// node is JSON in memory, for the requests in which something is wrong.
type node struct {
	kind    byte   // the first of its bytes: { [ " t f n, and 0 for a number
	text    string // of a string; of a number as it stands
	raw     []byte
	members []entry // of an object, in the order of the text, null ones too
	list    []node
}

type entry struct {
	name string
	node
}

// parse reads JSON; ok is whether it is some.
func parse(raw []byte) (n node, ok bool) {
	c := cursor{b: raw}
	n = c.node(0)
	return n, c.end()
}

func (c *cursor) node(depth int) node {
	n := node{kind: c.peek()}
	start := c.pos
	switch n.kind {
	case '{', '[':
		if depth > maxDepth {
			c.fail()
			return n
		}
		c.pos++
		for first := true; c.more(&first, n.kind+2); {
			if n.kind == '[' {
				n.list = append(n.list, c.node(depth+1))
				continue
			}
			name := unquote(c.key())
			n.members = append(n.members, entry{name, c.node(depth + 1)})
		}
	case '"':
		n.text = unquote(c.string())
	case 't', 'f', 'n':
		c.value(depth)
	default:
		n.kind = 0
		n.text = string(c.value(depth))
	}
	n.raw = c.b[start:c.pos]
	return n
}

func (n *node) null() bool { return n == nil || n.kind == 'n' }

// member is a member of an object, nil where it is missing or null. Of two with one name the last holds.
func (n *node) member(name string) *node {
	for i := len(n.members) - 1; i >= 0; i-- {
		if m := &n.members[i]; m.name == name {
			if m.null() {
				return nil
			}
			return &m.node
		}
	}
	return nil
}
