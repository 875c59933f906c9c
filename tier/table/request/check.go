package request

import (
	"encoding/base64"
	"strconv"
	"strings"
)

// maxViolations is how many violated constraints AWS tells at once.
const maxViolations = 10

const namePattern = "[a-zA-Z0-9_.-]+"

// violations collects what is wrong with the values of a request whose types are right.
type violations []string

func (v *violations) add(n *node, path, constraint string) {
	if len(*v) < maxViolations {
		*v = append(*v, "Value "+n.quoted()+" at '"+path+"' failed to satisfy constraint: "+constraint)
	}
}

// String is all of them in one sentence.
func (v violations) String() string {
	s := ""
	if len(v) > 1 {
		s = "s"
	}
	return strconv.Itoa(len(v)) + " validation error" + s + " detected: " + strings.Join(v, "; ")
}

// old checks what the oldest operations check by themselves, before everything else and one at a time.
func (s *shape) old(n *node) string {
	for i := range s.members {
		f := &s.members[i]
		m := n.member(f.name)
		if f.notNullOld && m == nil {
			return "The parameter '" + f.name + "' is required but was not present in the request"
		}
		if f.tableOld && m != nil && !isTableARN(m.text) && (m.length() < 3 || m.length() > 255) {
			return f.name + " must be at least 3 characters long and at most 255 characters long"
		}
	}
	return ""
}

// check goes through the members of the structure n; prefix is its path with a dot behind, "" at the top.
func (s *shape) check(n *node, prefix string, v *violations) {
	for i := range s.members {
		f := &s.members[i]
		m := n.member(f.name)
		switch {
		case m != nil && f.never:
			v.add(m, prefix+f.lower, "There is no "+f.name+" here")
			continue
		case m != nil:
			f.check(m, prefix+f.lower, v)
			continue
		}
		if f.notNull || f.alone && !s.others(n, f) {
			v.add(nil, prefix+f.lower, "Member must not be null")
		}
	}
}

// others says whether n has a member beside f and IndexName.
func (s *shape) others(n *node, f *field) bool {
	for i := range s.members {
		if o := &s.members[i]; o.name != f.name && o.name != "IndexName" && n.member(o.name) != nil {
			return true
		}
	}
	return false
}

func (f *field) check(n *node, path string, v *violations) {
	switch f.kind {
	case isInteger, isLong, isDouble:
		value := integer(n.raw)
		if f.hasLow && value < f.low {
			v.add(n, path, "Member must have value greater than or equal to "+strconv.FormatInt(f.low, 10))
		}
		if f.hasHigh && value > f.high {
			v.add(n, path, "Member must have value less than or equal to "+strconv.FormatInt(f.high, 10))
		}
		return
	}
	if f.table && isTableARN(n.text) {
		return
	}
	if f.pattern && !isName(n.text) {
		v.add(n, path, "Member must satisfy regular expression pattern: "+namePattern)
	}
	if f.short > 0 && n.length() < f.short {
		v.add(n, path, "Member must have length greater than or equal to "+strconv.Itoa(f.short))
	}
	if f.long > 0 && n.length() > f.long {
		v.add(n, path, "Member must have length less than or equal to "+strconv.Itoa(f.long))
	}
	if f.enum != nil && !has(f.enum, n.text) {
		v.add(n, path, "Member must satisfy enum value set: ["+strings.Join(f.enum, ", ")+"]")
	}
	if f.tables && !allTables(n) {
		v.add(n, path, "Map keys must satisfy constraint: [Member must have length less than or equal to 255, Member must have length greater than or equal to 3, Member must satisfy regular expression pattern: "+namePattern+"]")
	}
	if f.each > 0 && !allShort(n, f.each) {
		v.add(n, path, "Map value must satisfy constraint: [Member must have length less than or equal to "+strconv.Itoa(f.each)+", Member must have length greater than or equal to 1]")
	}
	f.shape.inside(n, path, v)
}

// inside checks what a list, map or structure holds.
func (s *shape) inside(n *node, path string, v *violations) {
	switch {
	case len(*v) == maxViolations || n.null():
	case s.kind == isStruct:
		if s.class != "AttributeValue" { // has rules of its own, told later
			s.check(n, path+".", v)
		}
	case s.kind == isList:
		for i := range n.list {
			s.of.inside(&n.list[i], path+"."+strconv.Itoa(i+1)+".member", v)
		}
	case s.kind == isMap:
		for i := range n.members {
			m := &n.members[i]
			s.of.inside(&m.node, path+"."+m.name+".member", v)
		}
	}
}

func allTables(n *node) bool {
	for i := range n.members {
		name := n.members[i].name
		if !isTableARN(name) && (len(name) < 3 || len(name) > 255 || !isName(name)) {
			return false
		}
	}
	return true
}

func allShort(n *node, longest int) bool {
	for i := range n.members {
		if l := n.members[i].length(); l < 1 || l > longest {
			return false
		}
	}
	return true
}

func isName[T string | []byte](s T) bool {
	for i := range len(s) {
		c := s[i]
		if c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-' {
			continue
		}
		return false
	}
	return len(s) > 0
}

func has(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

func canonicalBase64(s string) bool {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	return err == nil && base64.StdEncoding.EncodedLen(len(b)) == len(s)
}

// longestQuoted is how much of a value a message repeats.
const longestQuoted = 2000

// quoted is a value as AWS' messages have it.
func (n *node) quoted() string {
	if n.null() {
		return "null"
	}
	s := n.words()
	if len(s) > longestQuoted {
		s = strings.ToValidUTF8(s[:longestQuoted], "") + "…" + s[len(s)-1:]
	}
	return "'" + s + "'"
}

func (n *node) words() string {
	switch n.kind {
	case '"':
		return n.text
	case 0:
		return strconv.FormatInt(integer(n.raw), 10)
	case '[':
		parts := make([]string, len(n.list))
		for i := range n.list {
			parts[i] = n.list[i].words()
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return string(n.raw)
}
