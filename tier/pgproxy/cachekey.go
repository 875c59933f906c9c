package pgproxy

import (
	"bytes"
	"encoding/binary"
	"strings"
	"time"
	"unicode"

	"tenfold/internal/pgwire"
)

// wanted is what a client asks of the cache: one statement, whole.
type wanted struct {
	class    *class
	sql      []byte
	types    []byte // of Parse, after the text
	tail     []byte // of Bind, after the name of the statement
	parse    []byte // body of Parse after the name; nil: there is none
	name     string // that Parse gives
	size     int    // of all its messages
	describe bool
	extended bool
}

// cacheable finds out whether what a client asks is one statement that reads and asks for the cache.
func (l *loop) cacheable(c *client, typ byte, msg []byte) (q wanted, keep time.Duration, ok bool) {
	switch typ {
	case 'Q':
		if c.class == nil {
			return q, 0, false
		}
		sql, _ := cutComment(sqlOf(msg[pgwire.HeaderSize:]))
		q = wanted{class: c.class, sql: sql, size: len(msg)}
	case 'P', 'B':
		if q, ok = l.batch(c); !ok {
			return q, 0, false
		}
	default:
		return q, 0, false
	}
	if k := q.class; k.statements != 1 || k.selects != 1 || k.traits != 0 {
		return q, 0, false
	}
	if keep = q.class.keep; keep == 0 {
		keep = l.db.CacheFor[q.class.seen.Fingerprint]
	}
	return q, keep, keep > 0
}

// batch reads what a client sent up to Sync: one statement that is bound, perhaps described, and executed.
func (l *loop) batch(c *client) (q wanted, ok bool) {
	q.extended = true
	bound, executed := false, false
	for b := l.rest; ; {
		typ, size, ok, err := pgwire.Header(b)
		if !ok || err != nil || size > len(b) {
			return q, false // the rest is not here yet
		}
		body := b[pgwire.HeaderSize:size]
		q.size += size
		switch {
		case typ == 'P' && q.parse == nil && !bound:
			name, rest, ok := pgwire.CString(body)
			if !ok {
				return q, false
			}
			k := l.seen.look(sqlOf(rest), c.backslash, l.now)
			if k.keep == 0 && l.db.CacheFor[k.seen.Fingerprint] == 0 {
				return q, false
			}
			q.class, q.name = &k, string(name)
			q.parse, _ = l.seen.withoutComment(rest)
		case typ == 'B' && !bound:
			if bound = l.bindsTo(c, &q, body); !bound {
				return q, false
			}
		case typ == 'D' && bound && !executed && len(body) == 2 && body[0] == 'P' && body[1] == 0:
			q.describe = true
		case typ == 'E' && bound && !executed && len(body) == 5 && body[0] == 0 && binary.BigEndian.Uint32(body[1:]) == 0:
			executed = true
		case typ == 'S' && executed:
			return q, true
		default:
			return q, false
		}
		b = b[size:]
	}
}

// bindsTo reads a Bind of the unnamed portal, to the statement that was parsed with it or before.
func (l *loop) bindsTo(c *client, q *wanted, body []byte) bool {
	portal, rest, ok := pgwire.CString(body)
	if !ok || len(portal) > 0 {
		return false
	}
	name, tail, ok := pgwire.CString(rest)
	if !ok {
		return false
	}
	q.tail = tail
	parse := q.parse
	switch p := c.statements[string(name)]; {
	case parse != nil:
		if string(name) != q.name {
			return false
		}
	case len(name) == 0:
		if c.unnamed == nil || !c.unnamed.valid {
			return false
		}
		q.class = &c.unnamed.class
		parse, _ = l.seen.withoutComment(c.unnamed.parse)
	case p != nil:
		q.class, parse = &p.class, p.parse
	default:
		return false
	}
	if q.sql, q.types, ok = pgwire.CString(parse); !ok {
		return false
	}
	return true
}

// cacheKey is everything that an answer depends on but the data.
func (l *loop) cacheKey(dst []byte, c *client, q *wanted) []byte {
	kind := byte('Q')
	if q.extended {
		kind = 'E'
		if q.describe {
			kind = 'D'
		}
	}
	dst = append(append(append(dst, kind), c.account.user.Name...), 0)
	dst = append(append(dst, l.cache.scope(c.settings)...), 0)
	dst = append(append(dst, q.sql...), 0)
	dst = append(dst, q.types...)
	return append(dst, q.tail...)
}

// unseen are settings that no answer depends on.
var unseen = map[string]bool{
	"application_name": true, "statement_timeout": true, "lock_timeout": true, "idle_in_transaction_session_timeout": true,
	"idle_session_timeout": true, "transaction_timeout": true,
}

// scope is all settings of a session that an answer may depend on: search_path, role and time zone among
// them.
func (k *caching) scope(s *settings) string {
	if s == nil {
		return ""
	}
	if out, ok := k.scopes[s]; ok {
		return out
	}
	if len(k.scopes) >= maxInterned {
		clear(k.scopes)
	}
	var b strings.Builder
	for _, x := range s.list {
		if !unseen[x.name] {
			b.WriteString(x.name + "\x01" + x.value + "\x01")
		}
	}
	k.scopes[s] = b.String()
	return k.scopes[s]
}

// shapeOf is a text without the values of its literals: what a server finds of one text with a shape, it
// finds of all of them. end is where the statement ends; why says that an answer would not hold.
func shapeOf(dst, sql []byte, backslash bool) (shape []byte, end int, why string) {
	l := lexer{sql: sql, backslash: backslash}
	for {
		kind, text := l.next()
		switch kind {
		case tokEnd:
			return dst, end, why
		case tokString:
			if timeWord(text) || (text[0]|0x20 == 'e' || text[0]|0x20 == 'u') && bytes.IndexByte(text, '\\') >= 0 {
				why = "a literal that may mean another time with each call ('now')"
			}
			dst = append(dst, text[0]|0x20, '\'', ' ')
		case tokNumber:
			dst = append(dst, numberKind(text), '0', ' ')
		case tokPunct:
			if text[0] == ';' {
				continue
			}
			dst = append(dst, text...)
		default:
			dst = append(append(dst, text...), ' ')
		}
		end = l.pos
	}
}

// numberKind tells literals of different types apart.
func numberKind(text []byte) byte {
	switch {
	case len(bytes.Trim(text, "0123456789")) > 0:
		return 'n'
	case len(text) <= 9:
		return '4'
	case len(text) <= 18:
		return '8'
	}
	return 'n'
}

// timeWord says that a text may be read as a time that is another one with each call.
func timeWord(text []byte) bool {
	if len(text) > 64 {
		return false // no time is so long
	}
	for w := range bytes.FieldsFuncSeq(text, func(r rune) bool { return !unicode.IsLetter(r) }) {
		if is(w, "NOW") || is(w, "TODAY") || is(w, "TOMORROW") || is(w, "YESTERDAY") {
			return true
		}
	}
	return false
}

// timely says that among the parameters of a Bind, after its names, is one that timeWord says is a time.
func timely(tail []byte) bool {
	if len(tail) < 2 {
		return true
	}
	n := int(binary.BigEndian.Uint16(tail))
	if tail = tail[2:]; len(tail) < 2*n+2 {
		return true
	}
	formats := tail[:2*n]
	tail = tail[2*n:]
	params := int(binary.BigEndian.Uint16(tail))
	tail = tail[2:]
	for i := range params {
		if len(tail) < 4 {
			return true
		}
		size := int(int32(binary.BigEndian.Uint32(tail)))
		if tail = tail[4:]; size < 0 {
			continue
		}
		if size > len(tail) {
			return true
		}
		format := uint16(0)
		switch {
		case n == 1:
			format = binary.BigEndian.Uint16(formats)
		case i < n:
			format = binary.BigEndian.Uint16(formats[2*i:])
		}
		if format == 0 && timeWord(tail[:size]) {
			return true
		}
		tail = tail[size:]
	}
	return false
}

// oids reads the types of Parse, after its text.
func oids(b []byte) (out []uint32) {
	if len(b) < 2 {
		return nil
	}
	n := int(binary.BigEndian.Uint16(b))
	for b = b[2:]; n > 0 && len(b) >= 4; n-- {
		out = append(out, binary.BigEndian.Uint32(b))
		b = b[4:]
	}
	return out
}

// cacheMark begins what a comment says to the cache: /* tenfold:cache=10s */.
var cacheMark = []byte("tenfold:cache=")

// cacheComment is how long a comment in a text says that its answer may be kept; 0: none does.
func cacheComment(sql []byte, backslash bool) time.Duration {
	if !bytes.Contains(sql, cacheMark) {
		return 0
	}
	l := lexer{sql: sql, backslash: backslash}
	for {
		from := l.pos
		kind, text := l.next()
		gap := sql[from : l.pos-len(text)]
		if _, after, ok := bytes.Cut(gap, cacheMark); ok {
			if end := bytes.IndexAny(after, " \t\r\n*,"); end >= 0 {
				after = after[:end]
			}
			if d, err := time.ParseDuration(string(after)); err == nil && d > 0 {
				return d
			}
			return 0
		}
		if kind == tokEnd {
			return 0
		}
	}
}
