package expr

import (
	"strings"
	"unicode/utf8"
)

// wordKind tells the words of an expression apart.
type wordKind byte

const (
	atEnd  wordKind = iota
	ident           // a name or a keyword
	alias           // #name
	param           // :value
	number          // an index
	sign            // ( ) [ ] , . = <> < <= > >= + -
	alien           // what no expression has
)

// word is one word of an expression: text[start:end].
type word struct {
	kind       wordKind
	start, end int
	// match is, for a parenthesis, which word is its other half, or -1.
	match int
}

// split cuts an expression into words; the last is atEnd. Nothing is refused here: what is no word of the
// language is one that no rule of the grammar takes.
func split(text string) []word {
	words := make([]word, 0, len(text)/4+2)
	var open []int // parentheses not yet closed
	for i := 0; i < len(text); {
		c := text[i]
		if c == ' ' || c == '\t' || c == '\r' || c == '\n' {
			i++
			continue
		}
		w := word{start: i, match: -1}
		w.kind, w.end = next(text, i)
		if w.kind == sign {
			switch c {
			case '(':
				open = append(open, len(words))
			case ')':
				if n := len(open); n > 0 {
					w.match = open[n-1]
					words[w.match].match = len(words)
					open = open[:n-1]
				}
			}
		}
		words = append(words, w)
		i = w.end
	}
	return append(words, word{kind: atEnd, start: len(text), end: len(text), match: -1})
}

func next(text string, i int) (kind wordKind, end int) {
	switch c := text[i]; {
	case c == '#' || c == ':':
		end = endOfWord(text, i+1)
		switch {
		case end == i+1:
			return alien, end
		case c == '#':
			return alias, end
		}
		return param, end
	case c == '_': // stands in names, but begins none
		return alien, i + 1
	case c >= '0' && c <= '9':
		end = endOfWord(text, i)
		if strings.TrimLeft(text[i:end], "0123456789") != "" {
			return alien, end
		}
		return number, end
	case !notInWord(rune(c)):
		return ident, endOfWord(text, i)
	case c == '<' && i+1 < len(text) && (text[i+1] == '=' || text[i+1] == '>'), c == '>' && i+1 < len(text) && text[i+1] == '=':
		return sign, i + 2
	case strings.IndexByte("()[],.=<>+-", c) >= 0:
		return sign, i + 1
	}
	_, size := utf8.DecodeRuneInString(text[i:])
	return alien, i + size
}

func endOfWord(text string, i int) int {
	for i < len(text) && !notInWord(rune(text[i])) {
		i++
	}
	return i
}

// notInWord says whether a character has no place in a name that stands in an expression.
func notInWord(c rune) bool {
	return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_')
}
