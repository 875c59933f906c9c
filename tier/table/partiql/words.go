package partiql

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// wordKind tells the words of a statement apart.
type wordKind byte

const (
	atEnd  wordKind = iota
	bare            // a name or a keyword
	quoted          // "name"
	text            // 'text'
	number
	sign
)

// word is one word: what it says, and where it stands in the statement.
type word struct {
	kind       wordKind
	say        string // without quotes
	start, end int
}

// split cuts a statement into words; the last is atEnd. A semicolon at the end is none.
func split(s string) ([]word, *Error) {
	words := make([]word, 0, len(s)/4+2)
	for i := 0; ; {
		var ok bool
		if i, ok = skip(s, i); !ok {
			return nil, unreadable("")
		}
		if i >= len(s) {
			break
		}
		w := next(s, i)
		if w.end == 0 || w.kind == number && !readable(w.say) {
			return nil, unreadable("")
		}
		words = append(words, w)
		i = w.end
	}
	if n := len(words); n > 0 && words[n-1].say == ";" && words[n-1].kind == sign {
		words = words[:n-1]
	}
	return append(words, word{start: len(s), end: len(s)}), nil
}

// skip goes over spaces and comments; ok is false for a comment without end.
func skip(s string, i int) (_ int, ok bool) {
	for i < len(s) {
		rest := s[i:]
		switch {
		case rest[0] == ' ' || rest[0] == '\t' || rest[0] == '\r' || rest[0] == '\n':
			i++
		case strings.HasPrefix(rest, "--"):
			n := strings.IndexByte(rest, '\n')
			if n < 0 {
				return len(s), true
			}
			i += n
		case strings.HasPrefix(rest, "/*"):
			n := strings.Index(rest[2:], "*/")
			if n < 0 {
				return i, false
			}
			i += n + 4
		default:
			return i, true
		}
	}
	return i, true
}

// next is the word at i; its end is 0 when none begins there.
func next(s string, i int) word {
	c := s[i]
	switch {
	case c == '\'' || c == '"':
		return quotedWord(s, i)
	case c >= '0' && c <= '9', c == '.' && i+1 < len(s) && s[i+1] >= '0' && s[i+1] <= '9':
		end := endOfNumber(s, i)
		return word{kind: number, say: s[i:end], start: i, end: end}
	case inName(c):
		end := i + 1
		for end < len(s) && (inName(s[end]) || s[end] >= '0' && s[end] <= '9') {
			end++
		}
		return word{kind: bare, say: s[i:end], start: i, end: end}
	}
	for _, two := range []string{"<<", ">>", "<=", ">=", "<>", "!="} {
		if strings.HasPrefix(s[i:], two) {
			return word{kind: sign, say: two, start: i, end: i + 2}
		}
	}
	if strings.IndexByte("()[]{},.:;=<>+-*/?", c) >= 0 {
		return word{kind: sign, say: s[i : i+1], start: i, end: i + 1}
	}
	return word{}
}

func inName(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '$'
}

// quotedWord reads a text or a quoted name; a quote in it is written twice.
func quotedWord(s string, i int) word {
	q := s[i]
	w := word{kind: text, start: i}
	if q == '"' {
		w.kind = quoted
	}
	var say strings.Builder
	for j := i + 1; j < len(s); j++ {
		if s[j] != q {
			say.WriteByte(s[j])
			continue
		}
		if j+1 < len(s) && s[j+1] == q {
			say.WriteByte(q)
			j++
			continue
		}
		w.say, w.end = say.String(), j+1
		return w
	}
	return word{}
}

func endOfNumber(s string, i int) int {
	digits := func() {
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			i++
		}
	}
	digits()
	if i < len(s) && s[i] == '.' {
		i++
		digits()
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		j := i + 1
		if j < len(s) && (s[j] == '+' || s[j] == '-') {
			j++
		}
		if j < len(s) && s[j] >= '0' && s[j] <= '9' {
			i = j
			digits()
		}
	}
	return i
}

// readable says whether Java's BigDecimal holds a number: its exponent, less the digits behind the point, has 32
// bits.
func readable(s string) bool {
	mantissa, exponent := s, "0"
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		mantissa, exponent = s[:i], s[i+1:]
	}
	e, err := strconv.ParseInt(exponent, 10, 32)
	_, fraction, _ := strings.Cut(mantissa, ".")
	scale := int64(len(fraction)) - e
	return err == nil && scale == int64(int32(scale))
}

// place is where a word stands, as messages tell it: line, column and length, in characters, from 1.
func (p *parser) place(w word) string {
	before := p.text[:w.start]
	line := 1 + strings.Count(before, "\n")
	column := 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
	return strconv.Itoa(line) + ":" + strconv.Itoa(column) + ":" + strconv.Itoa(utf8.RuneCountInString(p.text[w.start:w.end]))
}

// isKeyword says whether a name holds statements together, so that only quotes make it an attribute's.
func isKeyword(name string) bool {
	switch strings.ToUpper(name) {
	case "SELECT", "FROM", "WHERE", "AND", "OR", "NOT", "IN", "IS", "BETWEEN", "LIKE", "ESCAPE", "NULL", "MISSING",
		"TRUE", "FALSE", "INSERT", "INTO", "VALUE", "VALUES", "UPDATE", "SET", "REMOVE", "DELETE", "RETURNING",
		"ORDER", "BY", "ASC", "DESC", "GROUP", "HAVING", "LIMIT", "AS", "AT", "ON", "JOIN", "INNER", "LEFT", "RIGHT",
		"OUTER", "CROSS", "FULL", "NATURAL", "UNION", "INTERSECT", "EXCEPT", "CASE", "WHEN", "THEN", "ELSE", "END",
		"DISTINCT", "ALL", "EXISTS", "CAST", "CREATE", "DROP", "TABLE", "PIVOT", "UNPIVOT":
		return true
	}
	return false
}
