package pgproxy

import (
	"bytes"
	"slices"

	"tenfold/internal/pgwire"
)

// answer looks through what a server sent, passes on what is the client's and gives how much was used.
// Messages that go on as they are leave from where they lie, side by side in one write.
func (l *loop) answer(s *server, data []byte) (used int) {
	w := writer{l: l, s: s, data: data}
	l.gather = l.gather[:0]
	for used < len(data) && !s.closing {
		rest := data[used:]
		if s.skip > 0 {
			n := min(s.skip, len(rest))
			w.pass(used, used+n)
			l.collect(s, 0, rest[:n])
			s.skip -= n
			used += n
			continue
		}
		typ, size, ok, err := pgwire.Header(rest)
		if err != nil {
			w.flush()
			l.lose(s, err)
			return len(data)
		}
		if !ok {
			break
		}
		if size > len(rest) {
			if (typ == 'D' || typ == 'd') && s.client != nil && !s.internal() {
				w.pass(used, len(data))
				l.collect(s, typ, rest)
				s.skip = size - len(rest)
				s.replied = true
				s.sent += uint64(size)
				if typ == 'D' {
					s.rows++
				}
				used = len(data)
			}
			break
		}
		l.backend(s, &w, typ, used, size)
		used += size
	}
	w.flush()
	return used
}

// writer collects what goes to the client of a server.
type writer struct {
	l        *loop
	s        *server
	data     []byte
	from, to int // of data, to be sent after what is gathered
}

// pass adds data[from:to].
func (w *writer) pass(from, to int) {
	if w.s.client == nil {
		return
	}
	if w.from == w.to {
		w.from = from
	} else if w.to != from {
		w.l.gather = append(w.l.gather, w.data[w.from:w.to]...)
		w.from = from
	}
	w.to = to
}

// put adds bytes that are not the server's.
func (w *writer) put() {
	w.l.gather = append(w.l.gather, w.data[w.from:w.to]...)
	w.from, w.to = 0, 0
}

func (w *writer) flush() {
	c := w.s.client
	if c != nil {
		if len(w.l.gather) > 0 {
			w.put()
			w.l.reply(c, w.l.gather)
		} else if w.from < w.to {
			w.l.reply(c, w.data[w.from:w.to])
		}
		if len(c.outbuf) > throttleAt && !w.s.closing {
			w.l.silenceServer(w.s, true)
		}
	}
	w.l.gather, w.from, w.to = w.l.gather[:0], 0, 0
}

func (s *server) internal() bool { return s.pending() > 0 && s.ops[s.head].internal() }

// synthetics answers what is at the front for the pool to answer, into l.gather.
func (l *loop) synthetics(s *server) {
	for s.pending() > 0 && s.ops[s.head].synthetic() {
		switch o := &s.ops[s.head]; o.kind {
		case opParsed:
			l.gather = append(l.gather, '1', 0, 0, 0, 4)
		case opClosed:
			l.gather = append(l.gather, '3', 0, 0, 0, 4)
		case opDeallocated:
			l.gather = append(l.gather, deallocated(s.tx)...)
			s.begun = len(s.ops) > s.head+1
		}
		s.replied = true
		s.pop()
	}
}

// backend takes one whole message of a server, at data[at:at+size].
func (l *loop) backend(s *server, w *writer, typ byte, at, size int) {
	switch typ {
	case 'S', 'N', 'A': // they answer nothing and may come at any time
		if s.client != nil && (!s.internal() || typ == 'A' && s.ops[s.head].kind == opProbe) {
			w.pass(at, at+size)
			s.replied = s.replied || typ == 'N' && s.begun
			if typ != 'A' {
				s.fill = nil // it is no part of an answer that others get
			}
		}
		return
	}
	if s.pending() > 0 && s.ops[s.head].synthetic() {
		if typ == 'E' && l.mayRepeat(s) && s.described && isOutdated(w.data[at+pgwire.HeaderSize:at+size]) {
			for s.ops[s.head].synthetic() { // the batch is sent again, and these are answered then
				s.pop()
			}
		} else {
			w.put()
			l.synthetics(s)
		}
	}
	if s.pending() == 0 {
		if typ == 'E' {
			e := pgwire.ParseError(w.data[at+pgwire.HeaderSize : at+size])
			s.fatal = &e
			return // it hangs up next
		}
		w.flush()
		l.log.Error("a server answers what it was not asked", "database", l.db.ID, "message", string(rune(typ)))
		l.lose(s, pgwire.ErrFraming)
		return
	}
	o := &s.ops[s.head]
	if o.kind == opCopyDone {
		s.pop()
		l.backend(s, w, typ, at, size)
		return
	}
	if o.internal() {
		l.internal(s, w, o, typ, w.data[at+pgwire.HeaderSize:at+size])
		return
	}
	if typ == 'Z' {
		l.readyForQuery(s, w, at, size)
		return
	}
	if typ == 'E' {
		l.failed(s, w, at, size)
		return
	}
	if s.again {
		return
	}
	s.sent += uint64(size)
	switch typ {
	case '1', '2', '3':
		mine := o.kind == opParsedHere || o.kind == opClosedHere
		if typ == '1' && o.statement != nil {
			o.statement.good = true
		}
		s.pop()
		if mine {
			return
		}
	case 'T', 'n':
		if o.kind == opDescribe {
			s.pop()
		}
	case 'D':
		s.rows++
	case 'C':
		tag := w.data[at+pgwire.HeaderSize : at+size]
		l.completed(s, tag)
		if o.kind == opExecute {
			l.answered(s, o.seen, tag)
			s.pop()
		} else if o.seen != nil {
			l.counted(s, o.seen, tag)
		}
	case 'I', 's':
		if o.kind == opExecute {
			if typ == 's' && o.seen != nil {
				o.seen.Calls-- // it goes on
			}
			l.answered(s, o.seen, nil)
			s.pop()
		}
	case 'G':
		l.copyBegins(s)
	}
	s.replied = true
	l.collect(s, typ, w.data[at:at+size])
	w.pass(at, at+size)
}

// copyBegins notes that a server now reads COPY data: what Sync it got before the end of the data it
// drops, so there will be no answer.
func (l *loop) copyBegins(s *server) {
	s.copyIn = true
	s.batchLost = true
	if s.ops[s.head].kind == opQuery {
		return
	}
	kept := s.ops[:s.head+1]
	for i := s.head + 1; i < len(s.ops); i++ {
		if s.ops[i].kind == opCopyDone {
			s.copyIn = false
			kept = append(kept, s.ops[i:]...)
			break
		}
		if s.ops[i].kind != opSync {
			kept = append(kept, s.ops[i])
		}
	}
	s.ops = kept
}

// completed looks at a command's tag for what concerns the whole session.
func (l *loop) completed(s *server, tag []byte) {
	if len(tag) < 3 {
		return
	}
	switch tag[0] {
	case 'C': // CREATE, CALL; not COMMIT, COPY, CLOSE
		if tag[1] == 'R' || tag[1] == 'A' {
			l.defined(s)
		}
		return
	case 'A': // ALTER; not ANALYZE
		if tag[1] == 'L' {
			l.defined(s)
		}
		return
	case 'D':
		if tag[1] == 'R' || tag[1] == 'O' || tag[1] == 'I' { // DROP, DO, DISCARD
			l.defined(s)
		}
	default:
		return
	}
	if len(tag) < 11 {
		return
	}
	switch string(tag[:len(tag)-1]) {
	case "DISCARD ALL":
		s.settings, s.unnamed = nil, nil
		l.emptied(s)
		if c := s.client; c != nil {
			c.take(l, l.interned.get(nil))
			l.forgetAll(c)
			c.pins, c.suspect, c.names = 0, 0, nil
			if c.fixed != nil {
				c.take(l, l.interned.get(append([]setting(nil), c.fixed...))) // what the startup packet said stays
			}
		}
	case "DEALLOCATE ALL":
		l.emptied(s)
		if s.client != nil {
			l.forgetAll(s.client)
		}
	}
}

// defined notes DDL: what a text means may be another now, and again when the transaction is over.
func (l *loop) defined(s *server) {
	l.statements.ddl++
	s.defined = true
	l.redefined()
}

// emptied notes that a server has no statements but those whose Parse is under way.
func (l *loop) emptied(s *server) {
	clear(s.statements)
	for _, o := range s.ops[s.head:] {
		if o.kind == opParse || o.kind == opParsedHere && o.statement != nil {
			s.statements[o.statement] = &kept{gen: o.statement.gen}
		}
	}
}

func (l *loop) forgetAll(c *client) {
	for _, p := range c.statements {
		l.statements.drop(p)
	}
	clear(c.statements)
	if c.unnamed != nil {
		c.unnamed.valid = false
	}
}

// outdated is what a server says when a statement's tables changed since it was planned.
const outdated = "cached plan must not change result type"

func isOutdated(body []byte) bool {
	e := pgwire.ParseError(body)
	return e.Code == "0A000" && e.Message == outdated
}

// failed takes an ErrorResponse.
func (l *loop) failed(s *server, w *writer, at, size int) {
	body := w.data[at+pgwire.HeaderSize : at+size]
	l.stats.Errors++
	s.fill = nil
	e := pgwire.ParseError(body)
	if e.Fatal() {
		s.fatal = &e // it hangs up next; what to say is decided then
		return
	}
	o := s.ops[s.head]
	if o.kind != opQuery && e.Code == "0A000" && e.Message == outdated {
		for _, x := range s.ops[s.head:] {
			if x.kind == opSync {
				break
			}
			if x.statement != nil {
				x.statement.gen++
			}
		}
		if o.statement == nil {
			// An Execute failed: which statement it was is not known, so none is trusted.
			for p := range s.statements {
				p.gen++
			}
		}
		s.again = l.mayRepeat(s) && s.described && !s.batchLost
	}
	s.copyIn = false
	if o.kind != opQuery && o.kind != opSync {
		l.skipToSync(s)
	}
	if c := s.client; c != nil && c.split && !s.primary && !s.again && (e.Code == "25006" || e.Code == "40001") {
		s.again = l.mayRepeat(s) // it writes after all, or is in the way of what the reader has to take over
	}
	if s.again {
		s.client.blocked = true
		return
	}
	l.erred(s, o.seen, o.req, e.Code)
	if s.pending() > 0 {
		s.ops[s.head].seen = nil // of a simple query: ReadyForQuery follows
	}
	s.replied = true
	w.pass(at, at+size)
}

// mayRepeat says that the batch under way can be sent again without anyone noticing: nothing of its
// answer was seen, it is kept as a whole and alone.
func (l *loop) mayRepeat(s *server) bool {
	c := s.client
	if c == nil || s.replied || s.batchLost || s.tx != 'I' || c.retried || c.closed {
		return false
	}
	syncs := 0
	for i, o := range s.ops[s.head:] {
		if o.kind == opQuery || o.kind == opSync {
			if syncs++; i != s.pending()-1 {
				return false
			}
		}
	}
	return syncs == 1
}

// skipToSync drops what a server drops after an error, and takes back what was assumed of it, the last
// first.
func (l *loop) skipToSync(s *server) {
	end := s.head
	for end < len(s.ops) && s.ops[end].kind != opSync {
		end++
	}
	for i := end - 1; i >= s.head; i-- {
		l.takeBack(s, &s.ops[i])
	}
	if s.skipping = end == len(s.ops); s.skipping {
		s.ops, s.head = s.ops[:0], 0
		return
	}
	s.head = end
}

// takeBack undoes the assumption that o would succeed.
func (l *loop) takeBack(s *server, o *op) {
	c := s.client
	switch o.kind {
	case opParse, opParsed:
		if o.kind == opParse {
			delete(s.statements, o.statement)
		}
		if c != nil && c.statements[o.name] == o.statement && !s.again {
			l.forget(c, o.name)
		}
	case opParseUnnamed:
		s.unnamed = nil
		if c != nil && c.unnamed != nil && !s.again {
			c.unnamed.valid = false
		}
	case opParsedHere:
		if o.statement == nil {
			s.unnamed = nil
		} else {
			delete(s.statements, o.statement)
		}
	case opClosedHere:
		s.statements[o.statement] = &kept{gen: o.statement.gen - 1}
	case opClosed:
		if c != nil && o.statement != nil && c.statements[o.name] == nil {
			o.statement.refs++
			if c.statements == nil {
				c.statements = map[string]*prepared{}
			}
			c.statements[o.name] = o.statement
		}
	}
}

// readyForQuery takes ReadyForQuery of the client's own batch.
func (l *loop) readyForQuery(s *server, w *writer, at, size int) {
	for s.pending() > 0 { // an opQuery or opSync it must be
		k, x := s.ops[s.head].kind, s.ops[s.head].seen
		if k == opQuery && x != nil && !s.again {
			l.answered(s, x, nil)
		}
		s.pop()
		if k == opQuery || k == opSync {
			break
		}
	}
	for s.pending() > 0 && s.ops[s.head].kind == opCopyDone { // of a COPY that failed before the client knew
		s.pop()
	}
	if size > pgwire.HeaderSize {
		s.tx = w.data[at+pgwire.HeaderSize]
	}
	l.collected(s)
	s.copyIn = false
	if s.again {
		s.again = false
		w.flush()
		l.repeat(s)
		return
	}
	w.pass(at, at+size)
	s.begun = s.pending() > 0
	if s.begun && s.ops[s.head].synthetic() {
		w.put()
		l.synthetics(s)
		s.begun = s.begun || s.pending() > 0
	}
	s.wrote = s.wrote || s.primary && s.traits&writes != 0
	if s.begun {
		s.batchLost = true // a part of it is answered
		return
	}
	sealed := s.sealed
	s.sealed = false
	if sealed && s.tx != 'I' {
		w.flush()
		if c := s.client; c != nil && c.blocked {
			l.resume(c)
		}
		return
	}
	if s.tx != 'I' {
		l.opened = l.now
		return
	}
	if s.wrote {
		s.wrote = false
		if s.client != nil {
			l.wrote(s.client, s.defined)
		}
	}
	if s.defined || s.traits&leavesTemp != 0 {
		s.defined = false
		l.statements.ddl++
	}
	l.stats.Transactions++
	s.named = nil
	w.flush()
	l.settle(s)
}

// repeat gives a client's batch back to it, as if it had not been sent, and lets it begin again.
func (l *loop) repeat(s *server) {
	c := s.client
	s.begun = false
	c.in = append(append([]byte(nil), s.batch...), c.in...)
	c.retried = true
	l.stats.Retried++
	if c.split {
		l.part(s)
		s.sealed = false
		if !s.closing && s.idle() {
			l.ready(s)
		}
		l.toPrimary(c)
		return
	}
	others := len(s.ahead) > 0 // who are answered first
	if !others && !s.closing && s.idle() {
		l.resume(c)
		return
	}
	l.part(s)
	c.since = l.now
	l.waitAgain(c)
	if others {
		l.ready(s)
	} else {
		l.grow(c.pool)
	}
}

// internal takes a message that answers the pool's own question.
func (l *loop) internal(s *server, w *writer, o *op, typ byte, body []byte) {
	switch typ {
	case 'E':
		e := pgwire.ParseError(body)
		s.broken = &e
		if e.Fatal() {
			s.fatal = &e
		}
	case 'D':
		if o.kind == opProbe {
			s.foundRow(body)
		}
	case 'Z':
		kind, broken := o.kind, s.broken
		s.pop()
		s.broken = nil
		if len(body) > 0 {
			s.tx = body[0]
		}
		w.flush()
		l.internalDone(s, kind, broken)
	}
}

// foundRow reads a row of the probe: five booleans, or a setting's name and value.
func (s *server) foundRow(body []byte) {
	cols, err := pgwire.Row(body)
	if err != nil {
		return
	}
	if len(cols) == 2 {
		s.values = append(s.values, setting{string(cols[0]), string(cols[1])})
		return
	}
	for i, t := range [...]traits{leavesTemp, leavesLock, leavesCursor, leavesListen, leavesPrepare} {
		if i < len(cols) && bytes.Equal(cols[i], []byte("t")) {
			s.found |= t
		}
	}
}

func (l *loop) internalDone(s *server, kind opKind, broken *pgwire.Error) {
	c := s.client
	switch kind {
	case opDiscard, opDropped:
		if broken != nil && kind == opDiscard {
			l.cut(s)
			return
		}
		if s.pending() == 0 && c == nil {
			l.ready(s)
		}
	case opReplay:
		if broken == nil {
			s.settings = c.settings
			c.blocked = false
			l.resume(c)
			return
		}
		// A setting that the server does not take: of the startup packet, for a session is only what it took.
		l.part(s)
		l.clean(s)
		l.dismiss(c, broken)
	case opProbe:
		names, values, found := s.probed, s.values, s.found
		s.probed, s.values, s.found = nil, nil, 0
		if broken != nil || c == nil {
			l.cut(s)
			return
		}
		if len(names) > 0 {
			s.settings = l.interned.with(l.interned.without(c.settings, names), values)
			c.take(l, l.interned.with(s.settings, c.resetTo(names, values)))
		}
		l.pin(c, found)
		c.pins = c.pins&^(leavesTemp|leavesLock|leavesCursor|leavesListen|leavesPrepare) | found
		if s.idle() {
			l.settle(s)
		}
	}
}

// resetTo are the settings of the startup packet among names that have no other value now: RESET goes
// back to them, which the server cannot know.
func (c *client) resetTo(names []string, values []setting) (out []setting) {
	for _, x := range c.fixed {
		if slices.Contains(names, x.name) && !slices.ContainsFunc(values, func(v setting) bool { return v.name == x.name }) {
			out = append(out, x)
		}
	}
	return out
}
