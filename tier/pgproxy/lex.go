package pgproxy

// tokenKind is what a token of SQL is, as far as it matters here.
type tokenKind uint8

const (
	tokEnd    tokenKind = iota
	tokWord             // an identifier or keyword, not quoted
	tokQuoted           // "…", with its quotes
	tokString           // a literal of any form, with its quotes
	tokNumber
	tokParam // $1
	tokPunct // one byte
)

// lexer cuts SQL into tokens as PostgreSQL does, far enough to tell words from what stands in strings,
// comments and quoted names. It never fails: what does not end, ends with the text.
type lexer struct {
	sql []byte
	pos int
	// backslash says that plain strings know escapes (standard_conforming_strings is off).
	backslash bool
}

// wordByte and spaceByte are what identifiers consist of, and white space.
var wordByte, spaceByte [256]bool

func init() {
	for c := range 256 {
		wordByte[c] = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '$' || c >= 0x80
		spaceByte[c] = c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v'
	}
}

// next gives the next token; text lies in the SQL.
func (l *lexer) next() (kind tokenKind, text []byte) {
	s := l.sql
	i := l.pos
	for i < len(s) {
		c := s[i]
		switch {
		case spaceByte[c]:
			i++
			continue
		case c == '-' && i+1 < len(s) && s[i+1] == '-':
			for i < len(s) && s[i] != '\n' && s[i] != '\r' {
				i++
			}
			continue
		case c == '/' && i+1 < len(s) && s[i+1] == '*':
			i = skipComment(s, i)
			continue
		}
		break
	}
	if i >= len(s) {
		l.pos = len(s)
		return tokEnd, nil
	}
	start, c := i, s[i]
	switch {
	case c >= '0' && c <= '9':
		for i < len(s) && (wordByte[s[i]] || s[i] == '.') {
			i++
		}
		kind = tokNumber
	case c == '$':
		kind, i = l.dollar(i)
	case wordByte[c]:
		for i < len(s) && wordByte[s[i]] {
			i++
		}
		kind = tokWord
		if i < len(s) && s[i] == '\'' && i-start == 1 && c|0x20 != '_' {
			switch c | 0x20 {
			case 'e':
				kind, i = tokString, skipQuoted(s, i, '\'', true)
			case 'b', 'x', 'n':
				kind, i = tokString, skipQuoted(s, i, '\'', l.backslash)
			}
		} else if i+1 < len(s) && s[i] == '&' && i-start == 1 && c|0x20 == 'u' {
			switch s[i+1] {
			case '\'':
				kind, i = tokString, skipQuoted(s, i+1, '\'', l.backslash)
			case '"':
				kind, i = tokQuoted, skipQuoted(s, i+1, '"', false)
			}
		}
	case c == '\'':
		kind, i = tokString, skipQuoted(s, i, '\'', l.backslash)
	case c == '"':
		kind, i = tokQuoted, skipQuoted(s, i, '"', false)
	default:
		kind = tokPunct
		i++
	}
	l.pos = i
	return kind, s[start:i]
}

// dollar reads what begins with '$': a parameter or a dollar-quoted string.
func (l *lexer) dollar(i int) (tokenKind, int) {
	s := l.sql
	j := i + 1
	if j < len(s) && s[j] >= '0' && s[j] <= '9' {
		for j < len(s) && s[j] >= '0' && s[j] <= '9' {
			j++
		}
		return tokParam, j
	}
	for j < len(s) && wordByte[s[j]] && s[j] != '$' {
		j++
	}
	if j >= len(s) || s[j] != '$' {
		return tokPunct, i + 1
	}
	tag := s[i : j+1]
	for k := j + 1; k+len(tag) <= len(s); k++ {
		if s[k] == '$' && string(s[k:k+len(tag)]) == string(tag) {
			return tokString, k + len(tag)
		}
	}
	return tokString, len(s)
}

// skipQuoted gives the end of what is quoted from i on; a doubled quote stands for itself.
func skipQuoted(s []byte, i int, quote byte, backslash bool) int {
	for i++; i < len(s); i++ {
		switch {
		case s[i] == quote:
			if i+1 >= len(s) || s[i+1] != quote {
				return i + 1
			}
			i++
		case backslash && s[i] == '\\':
			i++
		}
	}
	return len(s)
}

// skipComment gives the end of a block comment; they nest.
func skipComment(s []byte, i int) int {
	depth := 0
	for i < len(s) {
		switch {
		case s[i] == '/' && i+1 < len(s) && s[i+1] == '*':
			depth++
			i += 2
		case s[i] == '*' && i+1 < len(s) && s[i+1] == '/':
			depth--
			i += 2
			if depth == 0 {
				return i
			}
		default:
			i++
		}
	}
	return len(s)
}

// is says that a word is a keyword, given in upper case.
func is(text []byte, upper string) bool {
	if len(text) != len(upper) {
		return false
	}
	for i := range len(upper) {
		c := text[i]
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		if c != upper[i] {
			return false
		}
	}
	return true
}
