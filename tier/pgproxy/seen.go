package pgproxy

import (
	"bytes"
	"cmp"
	"fmt"
	"hash/fnv"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/DataDog/go-sqllexer"

	"tenfold/internal/pgwire"
	"tenfold/internal/pooldir"
)

const (
	// maxSeen is how many fingerprints are told apart; then the half with least calls becomes "other".
	maxSeen = 2000
	// newPerSecond is how many new forms of statements are looked at; more of them are "other". A client
	// that makes up a new one each time costs no more than this.
	newPerSecond = 500
	// maxText is how much of a text is normalised, and shown.
	maxText = 4 << 10
	// slots of the cache by text, and the longest text in it.
	textSlots, maxCached = 1024, 2 << 10
)

// counts is what became of the statements of one fingerprint. Owned by the loop.
type counts struct {
	pooldir.Statement
	usual   time.Duration // that it took, of the last ones more than of earlier ones
	dropped bool          // its counts went to other; the next call brings it back
}

// seen knows statements by fingerprint. Owned by the loop.
//
// Normalising a text takes 5 µs or more, a tenth of what the pool may spend on a transaction, and with
// simple queries nearly every text is new. So texts are grouped twice. The lexer that classifies a
// statement hashes its tokens on the way, literals as one: that is byForm, and only a form that is new is
// normalised. Forms that differ in what does not count (upper case, the length of IN lists) have the same
// normal text: that is byText, and the fingerprint. A text that came before, byte for byte, is not even
// classified again (recent).
type seen struct {
	byForm   map[uint64]*counts
	byText   map[string]*counts
	other    counts
	recent   []recent
	second   time.Time // since when fresh counts
	fresh    int
	cleaner  *sqllexer.Obfuscator
	normal   *sqllexer.Normalizer
	stripped []byte // of the text that is looked at
	trace    string // traceparent of it
}

// recent is a text that came at least twice. Slots are found by the text's hash; one that came once only
// leaves its hash, so texts that never come again cost no memory.
type recent struct {
	hash      uint64
	candidate uint64
	text      string
	backslash bool
	class     class
}

func newSeen() *seen {
	return &seen{
		byForm: map[uint64]*counts{}, byText: map[string]*counts{}, recent: make([]recent, textSlots),
		other:   counts{Statement: pooldir.Statement{Fingerprint: "other", Query: "(others)"}},
		cleaner: sqllexer.NewObfuscator(sqllexer.WithReplacePositionalParameter(false), sqllexer.WithDollarQuotedFunc(false), sqllexer.WithReplaceDigits(true)),
		normal:  sqllexer.NewNormalizer(sqllexer.WithUppercaseKeywords(false), sqllexer.WithKeepSQLAlias(true)),
	}
}

// look classifies a text and finds what is counted of its like.
func (n *seen) look(sql []byte, backslash bool, now time.Time) class {
	sql, trace := cutComment(sql)
	n.trace = trace
	if len(sql) > maxCached {
		k := classify(sql, backslash)
		k.seen, k.keep = n.find(k.form, sql, now), cacheComment(sql, backslash)
		k.seen.traced(trace)
		return k
	}
	h := maphash.Bytes(formSeed, sql)
	r := &n.recent[h%textSlots]
	if r.hash == h && r.text == string(sql) && r.backslash == backslash {
		if r.class.seen.dropped || r.class.seen == &n.other {
			r.class.seen = n.find(r.class.form, sql, now)
		}
		r.class.seen.traced(trace)
		return r.class
	}
	k := classify(sql, backslash)
	k.seen, k.keep = n.find(k.form, sql, now), cacheComment(sql, backslash)
	k.seen.traced(trace)
	if r.candidate == h {
		*r = recent{hash: h, candidate: h, text: string(sql), backslash: backslash, class: k}
	} else {
		r.candidate = h
	}
	return k
}

func (c *counts) traced(parent string) {
	if parent != "" {
		c.Trace = parent
	}
}

// find gives what is counted of a form of statements.
func (n *seen) find(form uint64, sql []byte, now time.Time) *counts {
	if c := n.byForm[form]; c != nil && !c.dropped {
		return c
	}
	if now.Sub(n.second) >= time.Second {
		n.second, n.fresh = now, 0
	}
	if n.fresh++; n.fresh > newPerSecond {
		return &n.other
	}
	text := n.normalize(sql)
	c := n.byText[text]
	if c == nil {
		if len(n.byText) >= maxSeen {
			n.shrink()
		}
		h := fnv.New64a()
		h.Write([]byte(text))
		c = &counts{Statement: pooldir.Statement{Fingerprint: fmt.Sprintf("%016x", h.Sum64()), Query: text}}
		n.byText[text] = c
	}
	if len(n.byForm) >= 4*maxSeen {
		clear(n.byForm) // those in use come back
	}
	n.byForm[form] = c
	return c
}

// normalize makes a text without what differs from call to call.
func (n *seen) normalize(sql []byte) string {
	sql = sql[:min(len(sql), maxText)]
	text, _, err := sqllexer.ObfuscateAndNormalize(strings.ToValidUTF8(string(sql), "?"), n.cleaner, n.normal, sqllexer.WithDBMS(sqllexer.DBMSPostgres))
	if err != nil || text == "" {
		return "(empty)"
	}
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "")
	}
	return text
}

// shrink makes the half with least calls one.
func (n *seen) shrink() {
	all := slices.SortedFunc(maps.Values(n.byText), func(a, b *counts) int { return cmp.Compare(a.Calls, b.Calls) })
	for _, c := range all[:len(all)/2] {
		delete(n.byText, c.Query)
		n.other.add(&c.Statement)
		c.dropped = true
	}
	maps.DeleteFunc(n.byForm, func(_ uint64, c *counts) bool { return c.dropped })
}

// add counts what b has as well.
func (c *counts) add(b *pooldir.Statement) {
	c.Calls += b.Calls
	c.Rows += b.Rows
	c.Received += b.Received
	c.Sent += b.Sent
	c.Hits += b.Hits
	c.Misses += b.Misses
	c.Waited += b.Waited
	c.Executed += b.Executed
	c.Longest = max(c.Longest, b.Longest)
	for i, k := range b.Times {
		c.Times[i] += k
	}
	for class, k := range b.Errors {
		c.failed(class, k)
	}
	for reason, k := range b.Pins {
		c.pinned(reason, k)
	}
}

func (c *counts) failed(class string, n uint64) {
	if c.Errors == nil {
		c.Errors = map[string]uint64{}
	}
	c.Errors[class] += n
}

func (c *counts) pinned(reason string, n uint64) {
	if c.Pins == nil {
		c.Pins = map[string]uint64{}
	}
	c.Pins[reason] += n
}

// statement gives a statement's counts for one more use: those that became "other" begin again.
func (n *seen) statement(k *class) *counts {
	c := k.seen
	if c == nil {
		return &n.other
	}
	if c.dropped {
		if at := n.byText[c.Query]; at != nil {
			c = at
		} else {
			if len(n.byText) >= maxSeen {
				n.shrink()
			}
			c = &counts{Statement: pooldir.Statement{Fingerprint: c.Fingerprint, Query: c.Query, Trace: c.Trace}}
			n.byText[c.Query] = c
		}
		n.byForm[k.form] = c
		k.seen = c
	}
	return c
}

// asked notes that a client's statement goes to its server.
func (l *loop) asked(c *client, k *class, size int) *counts {
	x := l.seen.statement(k)
	x.Received += uint64(size)
	x.Waited += c.waited
	l.req = request{trace: c.trace, waited: c.waited}
	c.waited, c.trace = 0, ""
	return x
}

// front is the statement of the message that a client waits with; nil when it has none.
func (l *loop) front(c *client, typ byte, body []byte) *counts {
	_, rest, ok := pgwire.CString(body)
	if !ok {
		return nil
	}
	switch typ {
	case 'Q':
		if c.class != nil {
			return l.seen.statement(c.class)
		}
	case 'P':
		k := l.seen.look(sqlOf(rest), c.backslash, l.now)
		return k.seen
	case 'B':
		if name := sqlOf(rest); len(name) > 0 {
			if p := c.statements[string(name)]; p != nil {
				return l.seen.statement(&p.class)
			}
		} else if c.unnamed != nil {
			return l.seen.statement(&c.unnamed.class)
		}
	}
	return nil
}

// opens notes which statement a portal executes; portal is its name with the zero.
func (s *server) opens(portal []byte, x *counts) *counts {
	if len(portal) == 1 {
		s.bound = x
		return x
	}
	if s.named == nil {
		s.named = map[string]*counts{}
	}
	s.named[string(portal[:len(portal)-1])] = x
	return x
}

// portal is the statement that the portal of an Execute executes; nil when it was not seen (a cursor).
func (s *server) portal(body []byte) *counts {
	name := sqlOf(body)
	if len(name) == 0 {
		return s.bound
	}
	return s.named[string(name)]
}

// fed counts data of a COPY.
func (s *server) fed(n int) {
	if s.pending() > 0 {
		if x := s.ops[s.head].seen; x != nil {
			x.Received += uint64(n)
		}
	}
}

// answered notes the end of what a server was asked, with the tag of its CommandComplete.
func (l *loop) answered(s *server, x *counts, tag []byte) {
	if x == nil {
		return
	}
	begun := s.mark
	l.timed(s, x)
	x.Calls++
	rows := x.Rows
	l.counted(s, x, tag)
	l.finished(s, x, s.ops[s.head].req, begun, x.Rows-rows, "")
}

// counted notes rows: as the tag has them, or as many as came.
func (l *loop) counted(s *server, x *counts, tag []byte) {
	if rows, ok := tagRows(tag); ok {
		x.Rows += rows
	} else {
		x.Rows += s.rows
	}
	s.rows = 0
}

// timed adds the time since the server began with it.
func (l *loop) timed(s *server, x *counts) {
	d := l.now.Sub(s.mark)
	s.mark = l.now
	x.Executed += d
	x.Times[bucket(d)]++
	l.stats.Execs[bucket(d)]++
	l.stats.Executed += d
	x.Longest = max(x.Longest, d)
	x.usual += (d - x.usual) / 8
	x.Sent += s.sent
	s.sent = 0
}

// erred notes an error that answered a statement.
func (l *loop) erred(s *server, x *counts, req request, code string) {
	if x == nil {
		return
	}
	begun := s.mark
	l.timed(s, x)
	l.finished(s, x, req, begun, 0, code)
	x.Calls++
	x.failed(code[:min(2, len(code))], 1)
	s.rows = 0
}

// tagRows reads the count at the end of a command's tag: "INSERT 0 5", "SELECT 3".
func tagRows(tag []byte) (rows uint64, ok bool) {
	i := len(tag) - 1
	if i >= 0 && tag[i] == 0 {
		i--
	}
	mul := uint64(1)
	for ; i >= 0 && tag[i] >= '0' && tag[i] <= '9' && mul <= 1e18; i-- {
		rows, ok = rows+mul*uint64(tag[i]-'0'), true
		mul *= 10
	}
	return rows, ok
}

// cause is a statement that may have pinned its client, or did.
type cause struct {
	traits // that it may have left
	seen   *counts
	held   bool // it did
}

// blame notes which of a client's statements may pin it.
func (c *client) blame(t traits, x *counts) {
	if t&(pinning|mayLeave) == 0 || x == nil {
		return
	}
	if len(c.causes) < 16 { // of one transaction: the first ones did it
		c.causes = append(c.causes, cause{traits: t, seen: x})
	}
}

// convict says which statement brought a reason to pin about.
func (c *client) convict(reason traits) *counts {
	for _, may := range [...]traits{reason, mayLeave} {
		for i := range c.causes {
			if k := &c.causes[i]; !k.held && k.traits&may != 0 {
				c.causes = append(c.causes, cause{traits: reason, seen: k.seen, held: true})
				return k.seen
			}
		}
	}
	return nil
}

// acquit forgets causes that did not pin, and those of reasons that are over.
func (c *client) acquit() {
	if c.causes != nil {
		if c.causes = slices.DeleteFunc(c.causes, func(k cause) bool { return !k.held || k.traits&c.pins == 0 }); len(c.causes) == 0 {
			c.causes = nil
		}
	}
}

// cutComment takes the comment that sqlcommenter appends off a text and gives its traceparent. Only
// what has its form is taken: hints and the app's own comments stay. A text that ends so and is no
// comment (in a string that does not end) is an error with and without it.
func cutComment(sql []byte) (rest []byte, trace string) {
	end := len(sql)
	for end > 0 && (spaceByte[sql[end-1]] || sql[end-1] == ';') {
		end--
	}
	if end < 2 || sql[end-1] != '/' || sql[end-2] != '*' {
		return sql, ""
	}
	begin := bytes.LastIndex(sql[:end-2], []byte("/*"))
	if begin < 0 {
		return sql, ""
	}
	trace, ok := commentTags(sql[begin+2 : end-2])
	if !ok {
		return sql, ""
	}
	for begin > 0 && spaceByte[sql[begin-1]] {
		begin--
	}
	return sql[:begin:begin], trace
}

// commentTags reads key='value',key='value', values as in URLs; ok is false for anything else.
func commentTags(b []byte) (trace string, ok bool) {
	b = bytes.TrimFunc(b, func(r rune) bool { return r < utf8.RuneSelf && spaceByte[r] })
	for {
		i := bytes.IndexByte(b, '=')
		if i <= 0 || i+1 >= len(b) || b[i+1] != '\'' {
			return "", false
		}
		for _, c := range b[:i] {
			if !wordByte[c] && c != '-' && c != '.' && c != '%' {
				return "", false
			}
		}
		key, rest := b[:i], b[i+2:]
		j := 0
		for j < len(rest) && rest[j] != '\'' {
			if rest[j] == '\\' {
				j++
			}
			j++
		}
		if j >= len(rest) || bytes.Contains(rest[:j], []byte("*/")) {
			return "", false
		}
		if string(key) == "traceparent" && isTrace(rest[:j]) {
			trace = string(rest[:j])
		}
		if rest = rest[j+1:]; len(rest) == 0 {
			return trace, true
		}
		if rest[0] != ',' {
			return "", false
		}
		b = bytes.TrimLeft(rest[1:], " ")
	}
}

// isTrace says that b is a traceparent of W3C: 00-<32 hex>-<16 hex>-<2 hex>.
func isTrace(b []byte) bool {
	if len(b) != 55 {
		return false
	}
	for i, c := range b {
		if i == 2 || i == 35 || i == 52 {
			if c != '-' {
				return false
			}
		} else if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// withoutComment is the body of a Parse after its name, without what sqlcommenter appended: the
// same statement then, whatever request it is for. The result lies in the loop's scratch.
func (n *seen) withoutComment(body []byte) ([]byte, string) {
	sql, types, ok := pgwire.CString(body)
	if !ok {
		return body, ""
	}
	rest, trace := cutComment(sql)
	if len(rest) == len(sql) {
		return body, ""
	}
	n.stripped = append(append(append(n.stripped[:0], rest...), 0), types...)
	return n.stripped, trace
}
