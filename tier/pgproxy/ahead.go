package pgproxy

import (
	"bytes"
	"slices"
	"time"

	"tenfold/internal/pgwire"
)

// A server that has answered sleeps until the pool has heard it, found who is next and sent it that one's query: on
// a busy machine it takes longer to be woken than to answer. So while clients wait, a server that answers a short
// read has the next ones' sent ahead, and goes on without having slept. PostgreSQL takes messages in their order and
// answers each as if it had come alone.
//
// Only what is proven to write nothing goes ahead of, and behind, only such: it leaves nothing in the session, opens
// no transaction, and may be asked of another server as well. That is the way out of all that can come between: a
// server that turns out slow, is to be cancelled, or paused, has those who were sent ahead taken back. They wait
// again, before all others, and what the server answers them is dropped.

const (
	// aheadMost are sent ahead to one server.
	aheadMost = 3
	// shortFor is how long a statement may usually take that others are sent ahead behind.
	shortFor = time.Millisecond
	// aheadFor is after how long who was sent ahead is taken back.
	aheadFor = 10 * time.Millisecond
)

// ahead is what a server was sent before its client was answered.
type ahead struct {
	client *client // nil: it was taken back
	text   []byte  // as it was sent
}

// sendAhead sends a server what the next clients who wait ask for, as far as that may be.
func (l *loop) sendAhead(s *server) {
	p := s.pool
	if p.waiting.size == 0 || len(s.ahead) >= aheadMost || !l.mayBegin(p) || !s.leads() {
		return
	}
	had := len(s.out)
	for p.waiting.size > 0 && len(s.ahead) < aheadMost {
		c := p.waiting.next()
		before := len(s.out)
		if c.phase != phaseReady || c.lost != nil || c.pins != 0 || c.suspect != 0 || c.settings != s.settings || !l.fresh(s, c) || !l.appendAhead(s, c) {
			break
		}
		p.waiting.pop()
		if len(s.ahead) == 0 {
			l.beginAhead(s)
		}
		c.ahead = s
		l.stats.Ahead++
		s.ahead = append(s.ahead, ahead{c, bytes.Clone(s.out[before:])})
	}
	if len(s.out) > had && !l.laterServer(s) {
		l.send(s)
	}
}

// followed says that others were sent ahead behind what a server's client asked: it can say no more before them.
func (s *server) followed() bool { return len(s.ahead) > 0 && s.early == nil }

// leads says that others may be sent ahead behind what a server does.
func (s *server) leads() bool {
	c := s.client
	if c == nil || s.closing || s.retired || s.cancelling > 0 || s.tx != 'I' || s.traits != 0 || s.copyIn || s.skipping || s.sealed || s.again || s.skip > 0 || s.fatal != nil {
		return false
	}
	if c.closed || c.blocked || c.split || c.retried || c.pins != 0 || c.suspect != 0 || len(c.in) > 0 || c.skip > 0 {
		return false
	}
	// One batch, all of it.
	var asked *counts
	for i := s.head; i < len(s.ops); i++ {
		switch o := &s.ops[i]; o.kind {
		case opQuery, opSync:
			if i != len(s.ops)-1 {
				return false
			}
			if o.kind == opQuery {
				asked = o.seen
			}
		case opExecute:
			asked = o.seen
		case opOther, opDescribe, opParseUnnamed, opParsedHere, opClosedHere:
		default:
			return false
		}
	}
	if n := len(s.ops); s.pending() == 0 || s.ops[n-1].kind != opQuery && s.ops[n-1].kind != opSync {
		return false
	}
	return asked.short()
}

// short says that a statement usually takes little time.
func (c *counts) short() bool { return c != nil && c.Calls >= 8 && c.usual < shortFor }

// aheadable says that a text is one query that is proven to write nothing and to leave nothing, and usually short.
func (k *class) aheadable() bool {
	return k.statements == 1 && k.selects == 1 && k.traits == 0 && !k.locks && k.seen.short()
}

// appendAhead appends to s.out what a client that waits asks for, as message will when the client has the server;
// false: it is not known, or not to be sent ahead.
func (l *loop) appendAhead(s *server, c *client) bool {
	rest := c.in
	if len(rest) > maxBatch {
		return false
	}
	// next is the next message, when it is of this type.
	next := func(want byte) []byte {
		typ, size, ok, err := pgwire.Header(rest)
		if !ok || err != nil || size > len(rest) || typ != want {
			return nil
		}
		msg := rest[:size]
		rest = rest[size:]
		return msg
	}
	if msg := next('Q'); msg != nil {
		if len(rest) > 0 || c.class == nil || !c.class.aheadable() {
			return false
		}
		s.out = append(s.out, msg...)
		return true
	}
	parse := next('P')
	bind := next('B')
	if bind == nil {
		return false
	}
	_, named, ok := pgwire.CString(bind[pgwire.HeaderSize:])
	if !ok {
		return false
	}
	portal := bind[pgwire.HeaderSize : len(bind)-len(named)]
	name, values, ok := pgwire.CString(named)
	if !ok {
		return false
	}
	var p *prepared
	if parse != nil {
		to, text, ok := pgwire.CString(parse[pgwire.HeaderSize:])
		if !ok || len(to) > 0 || len(name) > 0 {
			return false
		}
		if k := l.seen.look(sqlOf(text), c.backslash, l.now); !k.aheadable() {
			return false
		}
	} else {
		if p = c.statements[string(name)]; p == nil || !p.class.aheadable() {
			return false
		}
		if k := s.statements[p]; k == nil || k.gen != p.gen {
			return false
		}
	}
	after := rest
	if d := next('D'); d != nil && (len(d) == pgwire.HeaderSize || d[pgwire.HeaderSize] != 'P') {
		return false
	}
	if next('E') == nil || next('S') == nil || len(rest) > 0 {
		return false
	}
	if p == nil {
		s.out = append(s.out, c.in...)
	} else {
		s.out = append(appendNamed(s.out, 'B', portal, p.name, values), after...)
	}
	return true
}

// nextAhead gives a server that has answered to the next who was sent ahead.
func (l *loop) nextAhead(s *server) {
	if !l.mayBegin(s.pool) {
		l.takeBackAhead(s)
	}
	a := s.ahead[0]
	rest := copy(s.ahead, s.ahead[1:])
	s.ahead[rest] = ahead{}
	s.ahead = s.ahead[:rest]
	l.beginAhead(s)
	c := a.client
	if c != nil && (c.settings != s.settings || s.tx != 'I') {
		l.waitAgain(c)
		c = nil
	}
	if c == nil {
		s.unnamed = nil // it may have been another's, or none now
		s.push(op{kind: opDropped})
		l.works(s)
		return
	}
	l.waited(c)
	c.ahead, s.client, c.server = nil, c, s
	s.early, s.earlyAt = a.text, len(s.out)
	l.resume(c)
	if s.early != nil && c.server == s {
		l.cut(s) // it asked nothing after all
	}
	l.sendAhead(s)
}

// earlier takes what the server has got already off what its client asks. Where it is not the same, as when a
// statement's plan turned out to be outdated meanwhile, what was sent ahead is dropped, and all behind it.
func (l *loop) earlier(s *server) {
	same := bytes.Equal(s.out[s.earlyAt:], s.early)
	s.early = nil
	if same {
		s.out = s.out[:s.earlyAt]
		l.works(s)
		return
	}
	dropped := make([]op, 1+len(s.ahead))
	for i := range dropped {
		dropped[i].kind = opDropped
	}
	l.takeBackAhead(s)
	s.ahead, s.unnamed = nil, nil
	s.ops = slices.Insert(s.ops, s.head, dropped...)
}

// beginAhead notes that a server begins with something behind which others are, or with what is dropped.
func (l *loop) beginAhead(s *server) {
	s.aheadSince = l.now
	if s.pool.aheadDue.IsZero() {
		s.pool.aheadDue = l.now.Add(aheadFor)
	}
}

// takeBackAhead has those who were sent ahead to a server wait again.
func (l *loop) takeBackAhead(s *server) {
	for i := len(s.ahead) - 1; i >= 0; i-- {
		if c := s.ahead[i].client; c != nil {
			s.ahead[i].client = nil
			l.waitAgain(c)
		}
	}
}

// waitAgain puts who was sent ahead before all who wait.
func (l *loop) waitAgain(c *client) {
	if c.ahead != nil {
		c.ahead = nil
		l.stats.TakenBack++
	}
	c.blocked = true
	c.pool.waiting.pushFront(c)
}

// waitNoMore takes a client out of whatever it waits in for a server.
func (c *client) waitNoMore() {
	if c.inQueue != nil {
		c.inQueue.remove(c)
	}
	if s := c.ahead; s != nil {
		c.ahead = nil
		s.ahead[slices.IndexFunc(s.ahead, func(a ahead) bool { return a.client == c })].client = nil
	}
}

// aheadTimers takes back who has been ahead for too long, and ends what nobody waits for.
func (l *loop) aheadTimers(p *pool) {
	if p.aheadDue.IsZero() || l.now.Before(p.aheadDue) {
		return
	}
	p.aheadDue = time.Time{}
	for s := range p.all {
		vain := s.client == nil && s.pending() > 0 && s.ops[s.head].kind == opDropped && s.cancelling == 0
		if !vain && !slices.ContainsFunc(s.ahead, func(a ahead) bool { return a.client != nil }) {
			continue
		}
		due := s.aheadSince.Add(aheadFor)
		if !l.now.Before(due) {
			if l.takeBackAhead(s); vain {
				l.cancelAt(s, nil)
			}
		} else if p.aheadDue.IsZero() || due.Before(p.aheadDue) {
			p.aheadDue = due
		}
	}
}
