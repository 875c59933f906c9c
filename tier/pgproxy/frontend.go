package pgproxy

import (
	"bytes"
	"strings"

	"tenfold/internal/pgwire"
)

// maxBatch is how much of what a client sent is kept so that it can be sent again, in bytes.
const maxBatch = 16 << 10

// feed takes messages of a client and gives how many bytes it used. It stops where the client has to wait.
func (l *loop) feed(c *client, data []byte) (used int) {
	for used < len(data) && !c.closed && !c.blocked {
		rest := data[used:]
		if c.skip > 0 {
			n := min(c.skip, len(rest))
			if s := c.server; s != nil {
				s.out = append(s.out, rest[:n]...)
				s.fed(n)
			}
			c.skip -= n
			used += n
			continue
		}
		if c.phase == phaseStartup {
			n := l.startup(c, rest)
			if n == 0 {
				return used
			}
			used += n
			continue
		}
		typ, size, ok, err := pgwire.Header(rest)
		if err != nil || ok && c.phase != phaseReady && size > 8192 {
			l.dismiss(c, &pgwire.Error{Code: "08P01", Message: "invalid message length"})
			return used
		}
		if !ok {
			return used
		}
		if size > len(rest) {
			if typ == 'd' && c.phase == phaseReady {
				if s := c.server; s != nil {
					if s.followed() {
						c.blocked = true // as message has it
						return used
					}
					s.out = append(s.out, rest...)
					s.batchLost = true
					s.fed(len(rest))
				}
				c.skip = size - len(rest)
				return len(data)
			}
			return used
		}
		if c.phase != phaseReady {
			l.authenticate(c, typ, rest[pgwire.HeaderSize:size])
			used += size
			continue
		}
		l.rest = rest
		if l.after = 0; size < len(rest) {
			l.after = rest[size]
		}
		if !l.message(c, typ, rest[:size]) {
			return used
		}
		used += size + l.more
		l.more = 0
	}
	return used
}

// message takes one message; false when the client has to wait with it.
func (l *loop) message(c *client, typ byte, msg []byte) bool {
	if typ == 'X' {
		l.leave(c)
		return true
	}
	if c.admin {
		l.administrate(c, typ, msg)
		return true
	}
	if c.local {
		if typ == 'S' {
			c.local = false
			l.reply(c, pgwire.AppendReady(nil, 'I'))
		}
		return true
	}
	s := c.server
	if s == nil {
		if l.alone(c, typ, msg) {
			return true
		}
		if l.cache != nil && l.cached(c, typ, msg) {
			return true
		}
		if s = l.borrow(c, typ, msg); s == nil {
			return !c.blocked
		}
	} else if l.db.Paused && s.idle() && typ != 'S' && typ != 'H' {
		l.holdPinned(c)
		return false
	}
	if s.sealed || c.split && s.internal() || s.followed() {
		// What comes next may be a write: it is looked at when the reader is given back. Or others are before it.
		c.blocked = true
		return false
	}
	if s.skipping && typ != 'S' {
		return true // the server would drop it too
	}
	if !s.begun && (typ == 'd' || typ == 'c' || typ == 'f') {
		return true // the end of a COPY that failed
	}
	if s.pending() == 0 {
		s.mark, s.rows, s.sent = l.now, 0, 0
	}
	if !s.begun {
		s.fill, c.fill = c.fill, nil
	}
	s.remember(msg)
	s.sealed = c.split && (typ == 'Q' || typ == 'S')
	body := msg[pgwire.HeaderSize:]
	switch typ {
	case 'Q':
		l.query(c, s, msg)
	case 'P':
		return l.parse(c, s, msg)
	case 'B':
		return l.bind(c, s, msg)
	case 'D':
		return l.describe(c, s, msg)
	case 'C':
		l.closeNamed(c, s, msg)
	case 'E':
		s.pass(msg, op{kind: opExecute, seen: s.portal(body), req: s.born(body)})
	case 'S':
		s.skipping = false
		if s.copyIn {
			s.out = append(s.out, msg...) // the server takes no notice of it
			return true
		}
		s.pass(msg, op{kind: opSync})
	case 'H':
		s.out = append(s.out, msg...)
	case 'F':
		s.traits |= writes
		s.pass(msg, op{kind: opQuery})
	case 'd':
		s.out = append(s.out, msg...)
		s.batchLost = true
		s.fed(len(msg))
	case 'c', 'f':
		s.out = append(s.out, msg...)
		if s.copyIn {
			s.copyIn = false
		} else if s.pending() > 0 {
			s.push(op{kind: opCopyDone})
		}
	default:
		l.dismiss(c, &pgwire.Error{Code: "08P01", Message: "invalid frontend message type " + string(rune(typ)), Detail: strings.ToValidUTF8(string(body[:min(len(body), 16)]), "?")})
	}
	return true
}

// alone answers what needs no server; false when it does.
func (l *loop) alone(c *client, typ byte, msg []byte) bool {
	switch typ {
	case 'S':
		l.reply(c, pgwire.AppendReady(nil, 'I'))
	case 'H', 'd', 'c', 'f': // the end of a COPY that failed
	case 'C':
		if body := msg[pgwire.HeaderSize:]; len(body) > 1 && body[0] == 'S' {
			l.forget(c, cstring(body[1:]))
		}
		l.reply(c, pgwire.Append(nil, '3'))
	case 'Q':
		if c.class == nil {
			c.class = new(class)
			*c.class = l.seen.look(sqlOf(msg[pgwire.HeaderSize:]), c.backslash, l.now)
			c.trace = l.seen.trace
		}
		if p := l.deallocates(c, c.class); p != nil && c.lost == nil {
			l.forget(c, c.class.dealloc)
			c.class = nil
			l.reply(c, deallocated('I'))
			return true
		}
		return false
	case 'P':
		return c.lost == nil && l.parseAlone(c, msg)
	case 'B', 'D', 'E', 'F':
		return false
	default:
		l.dismiss(c, &pgwire.Error{Code: "08P01", Message: "invalid frontend message type " + string(rune(typ))})
	}
	return true
}

// parseAlone answers Parse of a named statement that some server has taken before: many clients prepare
// the same ones when they begin, and none of them should wait for a connection for that.
func (l *loop) parseAlone(c *client, msg []byte) bool {
	name, rest, ok := pgwire.CString(msg[pgwire.HeaderSize:])
	if !ok || len(name) == 0 || c.statements[string(name)] != nil || l.after != 'S' {
		return false // more will follow that needs a server
	}
	rest, trace := l.seen.withoutComment(rest)
	p := l.statements.find(rest, c.settings)
	if p == nil || !p.good {
		return false
	}
	p.class.seen.traced(trace)
	c.trace = trace
	p.refs++
	if c.statements == nil {
		c.statements = map[string]*prepared{}
	}
	c.statements[string(name)] = p
	l.reply(c, pgwire.Append(nil, '1'))
	return true
}

// deallocates says that a query is nothing but DEALLOCATE of a statement that the client prepared by
// protocol: servers have it under another name.
func (l *loop) deallocates(c *client, k *class) *prepared {
	if k.traits&deallocs == 0 || k.statements != 1 || k.dealloc == "" {
		return nil
	}
	return c.statements[k.dealloc]
}

func deallocated(status byte) []byte {
	return pgwire.AppendReady(pgwire.Append(nil, 'C', "DEALLOCATE\x00"), status)
}

// sqlOf is the text of a query or, after its name, of Parse.
func sqlOf(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

func cstring(b []byte) string { return string(sqlOf(b)) }

// forget drops a client's name for a statement.
func (l *loop) forget(c *client, name string) {
	if p := c.statements[name]; p != nil {
		l.statements.drop(p)
		delete(c.statements, name)
	}
}

func (l *loop) query(c *client, s *server, msg []byte) {
	var k class
	if c.class != nil {
		k, c.class = *c.class, nil
	} else {
		k = l.seen.look(sqlOf(msg[pgwire.HeaderSize:]), c.backslash, l.now)
		c.trace = l.seen.trace
	}
	l.stats.Queries++
	if p := l.deallocates(c, &k); p != nil && s.tx != 'E' {
		l.forget(c, k.dealloc)
		l.synthesize(s, op{kind: opDeallocated})
		return
	}
	s.unnamed = nil // a simple query ends it
	if c.unnamed != nil {
		c.unnamed.valid = false
	}
	x := l.asked(c, &k, len(msg))
	l.suspect(c, s, &k)
	s.pass(msg, op{kind: opQuery, seen: x, req: l.req})
}

// suspect notes what a statement may do to the session.
func (l *loop) suspect(c *client, s *server, k *class) {
	s.traits |= k.traits
	if c.split && !s.primary && (k.locks || k.traits&(pinning|mayLeave) != 0) {
		l.dismiss(c, &pgwire.Error{Code: "0A000", Message: "a reader answers this transaction: what the statement leaves in the session, or locks, would be there only", Hint: "begin the transaction without READ ONLY"})
		return
	}
	if k.traits&^(writes|controls|commits|mayFree) == 0 && (k.traits&mayFree == 0 || c.pins|c.suspect == 0) {
		return
	}
	c.suspect |= k.traits
	c.blame(k.traits, k.seen)
	c.names = append(c.names, k.names...)
	if k.traits&resetsAll != 0 {
		for _, x := range c.settings.all() {
			c.names = append(c.names, x.name)
		}
	}
	if k.traits&(leavesForever|leavesSequence|setsUnknown) != 0 {
		l.pin(c, k.traits&(leavesForever|leavesSequence|setsUnknown))
	}
}

func (l *loop) parse(c *client, s *server, msg []byte) bool {
	name, rest, ok := pgwire.CString(msg[pgwire.HeaderSize:])
	if !ok || bytes.IndexByte(rest, 0) < 0 {
		l.malformed(c)
		return true
	}
	if len(name) == 0 {
		return l.parseUnnamed(c, s, msg, rest)
	}
	if old := c.statements[string(name)]; old != nil && !c.retried {
		// The server itself says that there is one already.
		l.ensure(s, old)
		s.out = appendParse(s.out, old)
		s.push(op{kind: opOther})
		return true
	} else if old != nil {
		l.statements.drop(old)
	}
	rest, trace := l.seen.withoutComment(rest)
	p := l.statements.intern(rest, c.settings, func(sql []byte) class { return l.seen.look(sql, c.backslash, l.now) })
	p.class.seen.traced(trace)
	c.trace = trace
	if c.statements == nil {
		c.statements = map[string]*prepared{}
	}
	key := string(name)
	c.statements[key] = p
	if k := s.statements[p]; k != nil && k.gen == p.gen {
		l.synthesize(s, op{kind: opParsed, statement: p, name: key})
		return true
	}
	l.install(s, p, op{kind: opParse, statement: p, name: key, seen: p.class.seen, req: request{trace: trace}})
	return true
}

func (l *loop) parseUnnamed(c *client, s *server, msg, rest []byte) bool {
	if c.unnamed == nil {
		c.unnamed = new(unnamed)
	}
	u := c.unnamed
	u.class = l.seen.look(sqlOf(rest), c.backslash, l.now)
	c.trace = l.seen.trace
	u.parse = append(u.parse[:0], rest...)
	u.valid = true
	u.gen++
	if p := l.deallocates(c, &u.class); p != nil {
		// Under the server's name, and there must be one to free.
		l.ensure(s, p)
		_, types, _ := pgwire.CString(rest)
		u.parse = append(append(u.parse[:0], "DEALLOCATE "+p.name+"\x00"...), types...)
		msg = pgwire.Append(nil, 'P', "\x00", string(u.parse))
	}
	s.unnamed, s.unnamedGen = c, u.gen
	s.pass(msg, op{kind: opParseUnnamed, seen: u.class.seen, req: request{trace: c.trace}})
	return true
}

func (l *loop) malformed(c *client) {
	l.dismiss(c, &pgwire.Error{Code: "08P01", Message: "invalid message format"})
}

// nobodysName is no statement's: who asks for a name of ours gets the server's own error.
const nobodysName = "tenfold_"

// foreign is a name that a client uses and did not prepare by protocol: PREPARE in SQL made it, or the
// server says that there is none.
func foreign(name []byte) string {
	if bytes.HasPrefix(name, []byte(nobodysName)) {
		return nobodysName
	}
	return string(name)
}

func (l *loop) bind(c *client, s *server, msg []byte) bool {
	body := msg[pgwire.HeaderSize:]
	_, rest, ok := pgwire.CString(body)
	if !ok {
		l.malformed(c)
		return true
	}
	portal := body[:len(body)-len(rest)]
	name, tail, ok := pgwire.CString(rest)
	if !ok {
		l.malformed(c)
		return true
	}
	l.stats.Queries++
	if len(name) == 0 {
		if !l.ensureUnnamed(c, s) {
			s.out = appendNamed(s.out, 'B', portal, nobodysName, tail)
			s.push(op{kind: opOther})
			return true
		}
		l.bound(c, s, &c.unnamed.class)
		x := l.asked(c, &c.unnamed.class, len(msg))
		s.bear(portal, l.req)
		s.pass(msg, op{kind: opOther, seen: s.opens(portal, x), req: l.req})
		return true
	}
	if p := c.statements[string(name)]; p != nil {
		l.bound(c, s, &p.class)
		l.ensure(s, p)
		s.out = appendNamed(s.out, 'B', portal, p.name, tail)
		x := l.asked(c, &p.class, len(msg))
		s.bear(portal, l.req)
		s.push(op{kind: opOther, statement: p, seen: s.opens(portal, x), req: l.req})
		return true
	}
	s.opens(portal, nil)
	s.traits |= writes
	s.out = appendNamed(s.out, 'B', portal, foreign(name), tail)
	s.push(op{kind: opOther})
	return true
}

// bound notes what a bound statement will do when it is executed.
func (l *loop) bound(c *client, s *server, k *class) {
	l.suspect(c, s, k)
	if k.traits&deallocs != 0 && k.dealloc != "" {
		if p := c.statements[k.dealloc]; p != nil {
			delete(s.statements, p)
			l.forget(c, k.dealloc)
		}
	}
}

func (l *loop) describe(c *client, s *server, msg []byte) bool {
	body := msg[pgwire.HeaderSize:]
	if len(body) < 2 {
		l.malformed(c)
		return true
	}
	if body[0] != 'S' {
		s.pass(msg, op{kind: opDescribe})
		return true
	}
	s.described = true
	name := sqlOf(body[1:])
	if len(name) == 0 {
		if !l.ensureUnnamed(c, s) {
			s.out = appendNamed(s.out, 'D', body[:1], nobodysName, nil)
			s.push(op{kind: opDescribe})
			return true
		}
		s.pass(msg, op{kind: opDescribe})
		return true
	}
	at := foreign(name)
	o := op{kind: opDescribe}
	if p := c.statements[string(name)]; p != nil {
		l.ensure(s, p)
		at, o.statement = p.name, p
	}
	s.out = appendNamed(s.out, 'D', body[:1], at, nil)
	s.push(o)
	return true
}

func (l *loop) closeNamed(c *client, s *server, msg []byte) {
	body := msg[pgwire.HeaderSize:]
	if len(body) < 2 || body[0] != 'S' {
		s.pass(msg, op{kind: opOther})
		return
	}
	name := sqlOf(body[1:])
	if len(name) == 0 {
		if c.unnamed != nil {
			c.unnamed.valid = false
		}
		s.pass(msg, op{kind: opOther})
		return
	}
	if p := c.statements[string(name)]; p != nil {
		// It stays at the server: others may use it, and so may this one, soon.
		delete(c.statements, string(name))
		l.synthesize(s, op{kind: opClosed, statement: p, name: string(name)})
		l.statements.drop(p)
		return
	}
	if c.pins&leavesPrepare != 0 || c.suspect&leavesPrepare != 0 {
		s.out = appendClose(s.out, foreign(name))
		s.push(op{kind: opOther})
		c.suspect |= mayFree
		return
	}
	l.synthesize(s, op{kind: opClosed}) // closing what does not exist is no error
}

// ensure makes sure that a server has a statement by the time that what follows arrives.
func (l *loop) ensure(s *server, p *prepared) {
	s.uses++
	if k := s.statements[p]; k != nil {
		if k.gen == p.gen {
			k.used = s.uses
			return
		}
		s.out = appendClose(s.out, p.name)
		s.push(op{kind: opClosedHere, statement: p})
		delete(s.statements, p)
	}
	l.install(s, p, op{kind: opParsedHere, statement: p})
}

// install sends Parse, and closes the statement unused for longest when there are too many.
func (l *loop) install(s *server, p *prepared, o op) {
	if k := s.statements[p]; k != nil { // outdated
		s.out = appendClose(s.out, p.name)
		s.push(op{kind: opClosedHere, statement: p})
		delete(s.statements, p)
	}
	if len(s.statements) >= serverStatements {
		var oldest *prepared
		for q, k := range s.statements {
			if oldest == nil || k.used < s.statements[oldest].used {
				oldest = q
			}
		}
		s.out = appendClose(s.out, oldest.name)
		s.push(op{kind: opClosedHere, statement: oldest})
		delete(s.statements, oldest)
	}
	s.uses++
	s.statements[p] = &kept{gen: p.gen, used: s.uses}
	s.out = appendParse(s.out, p)
	s.push(o)
	l.stats.Parsed++
}

// ensureUnnamed makes sure that a server's unnamed statement is the client's; false when it has none.
func (l *loop) ensureUnnamed(c *client, s *server) bool {
	if s.unnamed == c && c.unnamed != nil && s.unnamedGen == c.unnamed.gen {
		return c.unnamed.valid
	}
	if c.unnamed == nil || !c.unnamed.valid {
		return false
	}
	s.unnamed, s.unnamedGen = c, c.unnamed.gen
	s.out = pgwire.Append(s.out, 'P', "\x00", string(c.unnamed.parse))
	s.push(op{kind: opParsedHere})
	return true
}
