package pgproxy

import (
	"errors"
	"fmt"
	"time"

	"tenfold/internal/pgwire"
	"tenfold/internal/pooldir"
)

const (
	// dialsAtOnce are begun for one pool.
	dialsAtOnce = 4
	// retryFirst and retryLast are between attempts to reach a server that does not answer.
	retryFirst, retryLast = 20 * time.Millisecond, 250 * time.Millisecond
	// defaults of what a snapshot leaves out.
	defaultPool, defaultWait, defaultHold = 20, 5 * time.Second, 30 * time.Second
)

// A pool is the connections of one user to the primary, or to readers, and the clients that wait for one.
type pool struct {
	account *account
	reader  bool
	idle    []*server // the last used on top: its caches are warm
	all     map[*server]struct{}
	dialing int
	waiting fair  // for a connection
	held    queue // pinned ones, through a pause
	retryAt time.Time
	backoff time.Duration
	failing error // of the last attempt; nil when it succeeded
	// aheadDue is when it is next looked for who has been sent ahead for too long; zero: nobody was.
	aheadDue time.Time
	width
}

// target is where the pool's next connection goes; "" when there is nothing.
func (l *loop) target(p *pool) (addr string, primary bool) {
	if p.reader {
		best, least := "", 0
		for _, r := range l.db.Readers {
			if r.Draining || r.Addr == "" {
				continue
			}
			n := 0
			for s := range p.all {
				if s.addr == r.Addr {
					n++
				}
			}
			if best == "" || n < least {
				best, least = r.Addr, n
			}
		}
		if best != "" {
			return best, false
		}
	}
	return l.db.Primary, true
}

// mayBegin says that servers may be given work.
func (l *loop) mayBegin(p *pool) bool {
	if l.db.Paused || l.db.Suspended {
		return false
	}
	addr, _ := l.target(p)
	return addr != ""
}

// limit is how long clients of a pool may wait now, and from when it counts.
func (l *loop) limit(p *pool) (time.Duration, time.Time) {
	if !l.mayBegin(p) || p.failing != nil && len(p.all) == 0 {
		return l.db.Hold, time.Time{}
	}
	return l.db.Wait, l.resumed
}

// borrow gives a client a server that is ready for its message. nil: it waits (blocked), or was answered.
func (l *loop) borrow(c *client, typ byte, msg []byte) *server {
	if c.lost != nil {
		e := c.lost
		c.lost, c.class = nil, nil
		l.answerError(c, typ, e)
		return nil
	}
	if !l.route(c, typ, msg) {
		return nil
	}
	p := c.pool
	if l.sequences(c, typ, msg) {
		return nil
	}
	l.lastAsked = l.now
	if p.waiting.size == 0 && l.mayBegin(p) && p.wide(l.now) {
		if s := l.takeIdle(p, c); s != nil {
			l.stats.waited(0)
			return l.give(s, c)
		}
	}
	c.blocked, c.since = true, l.now
	p.waiting.push(c)
	l.grow(p)
	return nil
}

// sequences refuses currval and lastval where the answer would be another client's, and pins from
// there on, so that it will be right.
func (l *loop) sequences(c *client, typ byte, msg []byte) bool {
	if typ != 'Q' || c.class == nil || c.class.traits&leavesSequence == 0 || c.pins&leavesSequence != 0 {
		return false
	}
	p := c.pool
	for i, s := range p.idle {
		if s.last == c && s.traits&writes != 0 && s.settings == c.settings {
			// The client's own write was the last thing that it did: it goes to the top.
			p.idle = append(append(p.idle[:i], p.idle[i+1:]...), s)
			return false
		}
	}
	c.blame(leavesSequence, c.class.seen)
	l.pin(c, leavesSequence)
	c.class = nil
	l.answerError(c, typ, &pgwire.Error{Code: "55000", Message: "currval or lastval of another session", Hint: "use INSERT … RETURNING; from now on this client keeps its server, and its own nextval is seen"})
	return true
}

// takeIdle takes the idle server that fits a client best.
func (l *loop) takeIdle(p *pool, c *client) *server {
	at := -1
	for i := len(p.idle) - 1; i >= 0; i-- {
		if !l.fresh(p.idle[i], c) {
			continue
		}
		if same := p.idle[i].settings == c.settings; same || at < 0 {
			if at = i; same {
				break
			}
		}
	}
	if at < 0 {
		return nil
	}
	s := p.idle[at]
	p.idle = append(p.idle[:at], p.idle[at+1:]...)
	return s
}

// give makes a server a client's. nil when its session has to be made the client's first.
func (l *loop) give(s *server, c *client) *server {
	s.client, c.server = c, s
	if s.settings == c.settings {
		return s
	}
	sql := replay(s.settings, c.settings)
	if sql == "" {
		s.settings = c.settings
		return s
	}
	// What the client asks goes only when this is known to have worked: it must never run under
	// another's settings.
	l.stats.Replayed++
	c.blocked = true
	s.out = pgwire.AppendQuery(s.out, sql)
	s.push(op{kind: opReplay})
	l.flush(s)
	return nil
}

// grow opens connections for those who wait.
func (l *loop) grow(p *pool) {
	for p.waiting.size > p.dialing+len(p.idle) && p.dialing < dialsAtOnce && len(p.all)+p.dialing < l.db.Pool && l.mayBegin(p) && !l.now.Before(p.retryAt) && p.wide(l.now) {
		addr, primary := l.target(p)
		p.dialing++
		epoch, db, user, password := l.db.Epoch, l.db.Name, p.account.user.Name, p.account.user.Password
		l.p.helpers.Go(func() {
			got, err := l.p.connect(l.p.life, addr, db, user, password)
			l.do(func() { l.dialed(p, addr, primary, epoch, got, err) })
		})
	}
	if l.db.Suspended && p.waiting.size > 0 {
		l.announce()
	}
}

// dialed takes the end of an attempt to connect.
func (l *loop) dialed(p *pool, addr string, primary bool, epoch uint64, got session, err error) {
	p.dialing--
	if err != nil {
		l.undialed(p, addr, err)
		return
	}
	p.failing, p.backoff, p.retryAt = nil, 0, time.Time{}
	if primary && (epoch != l.db.Epoch || addr != l.db.Primary) {
		got.close() // meanwhile there is another primary
		l.grow(p)
		return
	}
	if l.params == nil {
		l.params = got.params
	}
	s := &server{fd: got.fd, pool: p, addr: addr, epoch: epoch, primary: primary, pid: got.pid, secret: got.secret, turns: got.turns, tx: 'I', statements: map[*prepared]*kept{}, since: l.now}
	if err := l.add(s.fd, nil, s); err != nil {
		l.remove(s.fd)
		s.turns.close()
		return
	}
	p.all[s] = struct{}{}
	if !primary {
		l.begunAgain(addr)
	}
	l.stats.Opened++
	l.ready(s)
	l.grow(p)
}

func (l *loop) undialed(p *pool, addr string, err error) {
	l.sick[addr] = fault{err.Error(), l.now}
	p.failing = err
	p.backoff = min(max(2*p.backoff, retryFirst), retryLast)
	p.retryAt = l.now.Add(p.backoff)
	for c := range p.waiting.all {
		if c.split {
			l.toPrimary(c)
		}
	}
	var e *pgwire.Error
	if !errors.As(err, &e) || e.Code[:min(2, len(e.Code))] == "57" || e.Code == "53300" {
		return // it may get better
	}
	// The server is there and does not want us.
	for c := p.waiting.pop(); c != nil; c = p.waiting.pop() {
		l.refuse(c, &pgwire.Error{Code: e.Code, Message: "the server refused the pool's connection: " + e.Message, Hint: "see what the database says: tenfold logs " + l.db.Name})
	}
}

// ready takes a server that nobody has: to the next who waits, or to rest.
func (l *loop) ready(s *server) {
	if s.closing {
		return
	}
	if len(s.ahead) > 0 && !l.ended {
		s.since = l.now
		s.answered()
		l.nextAhead(s)
		return
	}
	if s.cancelling > 0 {
		return
	}
	if s.retired || l.ended {
		l.cut(s)
		return
	}
	p := s.pool
	s.since = l.now
	s.answered()
	for l.mayBegin(p) && p.wide(l.now) {
		c := p.waiting.pop()
		if c == nil {
			break
		}
		if c.phase == phaseParams {
			c.blocked = false
			l.welcome(c)
			if !c.closed && len(c.in) > 0 {
				l.resume(c)
			}
			if s.client != nil || s.closing { // it was taken meanwhile
				return
			}
			continue
		}
		if !l.fresh(s, c) {
			c.split = false
			l.split.behind.push(c)
			l.lookAround()
			continue
		}
		l.waited(c)
		if l.give(s, c) != nil {
			l.resume(c)
			l.sendAhead(s)
		}
		return
	}
	p.idle = append(p.idle, s)
	l.announce()
}

// waited notes that a client has the server that it waited for.
func (l *loop) waited(c *client) {
	l.stats.waited(l.now.Sub(c.since))
	c.waited += l.now.Sub(c.since)
}

// settle decides what becomes of a server whose client has nothing under way.
func (l *loop) settle(s *server) {
	c := s.client
	if c == nil {
		l.ready(s)
		return
	}
	others := len(s.ahead) > 0
	if s.cancelling > 0 && !others {
		return
	}
	if c.suspect&touching != 0 || c.pins != 0 && c.suspect&mayFree != 0 {
		s.probed, c.names, c.suspect = c.names, nil, 0
		s.out = pgwire.AppendQuery(s.out, probe(s.probed))
		s.push(op{kind: opProbe})
		l.flush(s)
		return
	}
	c.suspect, c.retried = 0, false
	c.acquit()
	if c.pins != 0 {
		if l.closing || s.retired {
			l.dismiss(c, shuttingDown())
		}
		l.announce()
		if s.settings != c.settings {
			l.give(s, c)
		} else if c.split && c.blocked && !c.closed && c.inQueue == nil {
			l.resume(c)
		}
		return
	}
	l.part(s)
	s.last = c
	if c.skip > 0 {
		// A COPY failed in the middle of a message: the server waits for the rest, and would take what the
		// next client says for it.
		s.retired = true
	}
	if l.closing {
		l.dismiss(c, shuttingDown())
	}
	l.ready(s)
	if (c.split || others) && c.blocked && !c.closed && c.inQueue == nil && c.server == nil && c.ahead == nil {
		l.resume(c) // it sent more before it was answered
	}
}

// part takes a client and its server apart. Where one was not read because the other did not keep up, it is
// read again.
func (l *loop) part(s *server) {
	c := s.client
	s.client, c.server = nil, nil
	if !c.closed && !c.blocked {
		l.silence(c, false)
	}
	if !s.closing {
		l.silenceServer(s, false)
	}
}

// pin notes why a client keeps its server.
func (l *loop) pin(c *client, why traits) {
	for t := why & pinning &^ c.pins; t != 0; t &= t - 1 {
		l.stats.Pins[pinReason(t&-t)]++
		if x := c.convict(t & -t); x != nil {
			x.pinned(pinReason(t&-t), 1)
		}
	}
	c.pins |= why & pinning
}

// Reasons for pins, as they are counted and shown.
var pinReasons = map[traits]string{
	leavesTemp: "temporary table", leavesLock: "advisory lock", leavesCursor: "cursor with hold", leavesListen: "listen",
	leavesPrepare: "prepare in SQL", leavesForever: "load or session authorization", leavesSequence: "currval or lastval", setsUnknown: "set_config of a computed name",
}

func pinReason(t traits) string { return pinReasons[t] }

// abandoned takes the server of a client that left.
func (l *loop) abandoned(s *server, c *client) {
	s.client = nil
	if s.closing {
		return
	}
	l.silenceServer(s, false)
	if s.unnamed == c {
		s.unnamed = nil
	}
	dirty := c.pins|c.suspect&^(mayFree|writes|controls|commits) != 0
	switch {
	case s.internal() && s.pending() == 1 && !s.begun && s.tx == 'I':
		// A probe or a replay is under way: the session is unknown until it is cleaned.
		l.clean(s)
	case s.pending() > 0 || s.begun || s.skip > 0 || len(s.out) > 0:
		if s.pending() > 0 {
			l.cancelAt(s, nil)
		}
		l.cut(s)
	case s.tx != 'I':
		s.out = pgwire.AppendQuery(s.out, "ROLLBACK")
		s.push(op{kind: opDiscard})
		if dirty {
			l.clean(s)
		}
		l.flush(s)
	case dirty:
		l.clean(s)
	default:
		l.ready(s)
	}
}

// clean makes a server's session as after its login; it is ready when that is answered.
func (l *loop) clean(s *server) {
	if s.internal() && s.ops[s.head].kind != opDiscard {
		for i := s.head; i < len(s.ops); i++ {
			s.ops[i].kind = opDiscard // whatever it was, its answer counts no more
		}
	}
	s.out = pgwire.AppendQuery(s.out, "DISCARD ALL")
	s.push(op{kind: opDiscard})
	clear(s.statements)
	l.statements.ddl++ // its temporary tables go
	s.settings, s.unnamed, s.last = nil, nil, nil
	l.stats.Cleaned++
	l.flush(s)
}

// cut closes a connection to a server.
func (l *loop) cut(s *server) { l.lose(s, nil) }

// lose takes a server's connection out: it broke, or is no longer wanted.
func (l *loop) lose(s *server, why error) {
	if s.closing {
		return
	}
	s.closing = true
	p := s.pool
	s.answered()
	s.turns.close()
	delete(p.all, s)
	for i, x := range p.idle {
		if x == s {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			break
		}
	}
	l.remove(s.fd)
	l.takeBackAhead(s)
	s.ahead = nil
	l.stats.Closed++
	if why != nil {
		l.sick[s.addr] = fault{why.Error(), l.now}
		if s.fatal != nil {
			l.sick[s.addr] = fault{s.fatal.Message, l.now}
		}
	}
	if c := s.client; c != nil {
		l.bereave(s, c)
	}
	if p.waiting.size > 0 {
		l.grow(p)
	}
	l.announce()
}

// bereave decides what a client whose server has gone is told.
func (l *loop) bereave(s *server, c *client) {
	if len(s.ops) > 0 && s.internal() && !s.begun && s.ops[s.head].kind == opReplay {
		// It had not begun: it waits for another.
		l.part(s)
		if c.split {
			l.toPrimary(c)
			return
		}
		c.blocked = true
		c.pool.waiting.pushFront(c)
		l.grow(c.pool)
		return
	}
	if s.skip > 0 || c.pins != 0 || s.fatal != nil && !comesBack(s.fatal.Code) {
		// A message was cut, or the session held what no other has, or the server meant this very client.
		e := &pgwire.Error{Code: "57P01", Message: "the session's server has gone", Detail: l.pinsOf(c), Hint: "connect again; what the session kept (temporary tables, locks, LISTEN) is to be made again"}
		if s.fatal != nil {
			e = s.fatal
		}
		if s.skip > 0 {
			l.leave(c)
		} else {
			l.dismiss(c, e)
		}
		return
	}
	if s.traits&writes == 0 && s.begun && l.mayRepeat(s) {
		for i := len(s.ops) - 1; i >= s.head; i-- {
			s.again = true
			l.takeBack(s, &s.ops[i])
		}
		l.repeat(s)
		return
	}
	if s.fatal != nil && (s.begun || s.pending() > 0) {
		// It was told, as it would be without a pool: drivers know what to make of it.
		l.dismiss(c, l.lostError(s))
		return
	}
	l.part(s)
	e := l.lostError(s)
	if s.primary && (s.wrote || s.traits&writes != 0) {
		l.wrote(c, true) // it may have been committed
	}
	if s.pending() > 0 {
		l.erred(s, s.ops[s.head].seen, s.ops[s.head].req, e.Code)
	}
	busy := s.begun || s.pending() > 0
	if s.internal() && !s.begun { // a probe: the client's statement was answered
		busy = false
	}
	c.suspect, c.names, c.retried = 0, nil, false
	if !busy {
		if s.tx != 'I' {
			c.lost = e
		}
		return
	}
	// As many answers as were awaited.
	for i := len(s.ops) - 1; i >= s.head; i-- {
		l.takeBack(s, &s.ops[i])
	}
	var out []byte
	ends := 0
	for _, o := range s.ops[s.head:] {
		if o.kind == opQuery || o.kind == opSync {
			out = pgwire.AppendReady(pgwire.AppendError(out, e), 'I')
			ends++
		}
	}
	if s.skipping { // the error was told, Sync is awaited
		c.local = true
	} else if k := len(s.ops) - 1; s.pending() == 0 || s.ops[k].kind != opQuery && s.ops[k].kind != opSync {
		out = pgwire.AppendError(out, e)
		c.local = true
	}
	l.reply(c, out)
	c.blocked = false
	if len(c.in) > 0 {
		l.resume(c)
	}
}

// comesBack says that a server that hangs up with this code does so to everyone.
func comesBack(code string) bool { return code == "57P01" || code == "57P02" || code == "57P03" }

func (l *loop) pinsOf(c *client) string {
	var out string
	for t := c.pins; t != 0; t &= t - 1 {
		if out != "" {
			out += ", "
		}
		out += pinReason(t & -t)
	}
	return out
}

// lostError says what became of what was under way.
func (l *loop) lostError(s *server) *pgwire.Error {
	e := &pgwire.Error{Severity: "ERROR", Code: "08006", Message: "the connection to the server was lost", Hint: "the transaction was not committed: begin it again"}
	if (s.begun || s.pending() > 0) && (s.traits&commits != 0 || s.traits&writes != 0 && s.tx == 'I') {
		e.Code, e.Hint = "08007", "whether it was committed is not known: look before you repeat it"
	}
	if s.fatal != nil {
		e.Detail = "the server said: " + s.fatal.Message
	}
	return e
}

// answerError answers a client's message with an error in place of a server.
func (l *loop) answerError(c *client, typ byte, e *pgwire.Error) {
	e.Severity = "ERROR"
	out := pgwire.AppendError(nil, e)
	if typ == 'Q' || typ == 'F' {
		out = pgwire.AppendReady(out, 'I')
	} else {
		c.local = true
	}
	l.reply(c, out)
}

// refuse ends a client's waiting with an error.
func (l *loop) refuse(c *client, e *pgwire.Error) {
	if c.phase != phaseReady {
		l.dismiss(c, e)
		return
	}
	if typ, size, ok, err := pgwire.Header(c.in); ok && err == nil && size <= len(c.in) {
		if x := l.front(c, typ, c.in[pgwire.HeaderSize:size]); x != nil {
			x.Waited += l.now.Sub(c.since)
			x.failed(e.Code[:2], 1)
		}
		c.in = c.in[:copy(c.in, c.in[size:])]
		l.answerError(c, typ, e)
	}
	c.class = nil
	l.resume(c)
}

// holdPinned has a pinned client wait through a pause.
func (l *loop) holdPinned(c *client) {
	c.blocked, c.since = true, l.now
	c.pool.held.push(c)
}

func shuttingDown() *pgwire.Error {
	return &pgwire.Error{Code: "57P01", Message: "the pool is being replaced", Hint: "connect again: another one takes connections already"}
}

// timers does what is due.
func (l *loop) timers() {
	if c := l.logins.expired(l.now, loginLimit, time.Time{}); c != nil {
		l.leave(c)
	}
	l.splitTimers()
	l.cacheTimers()
	for p := range l.pools() {
		limit, from := l.limit(p)
		for c := p.waiting.expired(l.now, limit, from); c != nil; c = p.waiting.expired(l.now, limit, from) {
			c.inQueue.remove(c)
			l.refuse(c, l.waitedInVain(p, l.now.Sub(c.since)))
		}
		for c := p.held.expired(l.now, l.db.Hold, time.Time{}); c != nil; c = p.held.expired(l.now, l.db.Hold, time.Time{}) {
			p.held.remove(c)
			l.refuse(c, l.waitedInVain(p, l.now.Sub(c.since)))
		}
		l.adjust(p)
		l.aheadTimers(p)
		l.employ(p)
		for len(p.idle) > 0 && l.now.Sub(p.idle[0].since) > idleServer {
			l.cut(p.idle[0])
		}
	}
}

func (l *loop) waitedInVain(p *pool, waited time.Duration) *pgwire.Error {
	after := waited.Round(100 * time.Millisecond)
	l.stats.TimedOut++
	if limit, _ := l.limit(p); limit == l.db.Hold && (!l.mayBegin(p) || p.failing != nil) {
		e := &pgwire.Error{Code: "57P03", Message: fmt.Sprintf("database %s has no server: waited %s", l.db.Name, after), Hint: "see what it does: tenfold status; clients wait as long as databases." + l.db.Name + ".proxy.hold"}
		if p.failing != nil {
			e.Detail = p.failing.Error()
		}
		return e
	}
	return &pgwire.Error{Code: "53300", Message: fmt.Sprintf("no connection to database %s was free within %s: all %d are in use", l.db.Name, after, l.db.Pool),
		Hint: "shorten transactions, or raise databases." + l.db.Name + ".proxy.pool"}
}

// due is when timers has something to do next, at the latest in half a minute.
func (l *loop) due() time.Time {
	due := l.now.Add(30 * time.Second)
	earlier := func(t time.Time) {
		if !t.IsZero() && t.Before(due) {
			due = t
		}
	}
	earlier(l.logins.due(loginLimit, time.Time{}))
	earlier(l.split.behind.due(splitWait, time.Time{}))
	earlier(l.cacheDue())
	for p := range l.pools() {
		limit, from := l.limit(p)
		earlier(p.waiting.due(limit, from))
		if l.db.Split && p.reader && p.waiting.size > 0 {
			earlier(l.now.Add(splitWait))
		}
		earlier(p.held.due(l.db.Hold, time.Time{}))
		earlier(p.aheadDue)
		if p.waiting.size > p.dialing {
			earlier(p.retryAt)
		}
		if p.waiting.size > 0 {
			earlier(p.width.due())
		}
	}
	return due
}

// pools are those of all users.
func (l *loop) pools() func(yield func(*pool) bool) {
	return func(yield func(*pool) bool) {
		for _, a := range l.accounts {
			if !yield(a.pools[0]) || !yield(a.pools[1]) {
				return
			}
		}
	}
}

func newPool(a *account, reader bool) *pool {
	return &pool{account: a, reader: reader, all: map[*server]struct{}{}}
}

// apply makes a database's new directory the one in use.
func (l *loop) apply(db pooldir.Database, version uint64, keys map[string]*pgwire.Keys) {
	old := l.db
	if db.Pool <= 0 {
		db.Pool = defaultPool
	}
	if db.Wait <= 0 {
		db.Wait = defaultWait
	}
	if db.Hold <= 0 {
		db.Hold = defaultHold
	}
	l.db, l.version, l.announced = db, version, false
	l.users(db, keys)
	l.applyCache(old)
	if db.Epoch != old.Epoch || db.Primary != old.Primary {
		l.newPrimary()
	}
	if l.closing {
		return
	}
	for p := range l.pools() {
		for s := range p.all {
			l.review(s)
		}
	}
	if !(old.Paused || old.Suspended || old.Primary == "") || db.Paused || db.Suspended || db.Primary == "" {
		if db.Primary != old.Primary {
			l.begin()
		}
	} else {
		l.resumed = l.now
		l.begin()
	}
	l.announce()
}

// users takes over who may log in.
func (l *loop) users(db pooldir.Database, keys map[string]*pgwire.Keys) {
	named := map[string]bool{}
	for _, u := range db.Users {
		named[u.Name] = true
		a := l.accounts[u.Name]
		if a == nil {
			a = &account{}
			a.pools = [2]*pool{newPool(a, false), newPool(a, true)}
			l.accounts[u.Name] = a
		}
		if a.user.Password != u.Password { // its connections go when they are given back
			for _, p := range a.pools {
				for s := range p.all {
					s.retired = true
				}
			}
		}
		a.user, a.keys = u, keys[u.Name]
	}
	for name, a := range l.accounts {
		if named[name] {
			continue
		}
		for _, x := range l.conns {
			if x.client != nil && x.client.account == a {
				l.dismiss(x.client, &pgwire.Error{Code: "28000", Message: `user "` + name + `" is no more`})
			}
		}
		for _, p := range a.pools {
			for s := range p.all {
				l.cut(s)
			}
		}
		delete(l.accounts, name)
	}
}

// review closes connections that the directory no longer has: at once, when another primary may write.
func (l *loop) review(s *server) {
	if s.primary {
		if s.epoch < l.db.Epoch || l.db.Primary != "" && s.addr != l.db.Primary {
			l.cut(s)
			return
		}
	} else {
		ok := false
		for _, r := range l.db.Readers {
			ok = ok || r.Addr == s.addr && !r.Draining
		}
		if !ok {
			s.retired = true
		}
	}
	if s.retired && s.client == nil && s.idle() {
		l.cut(s)
	}
}

// begin lets those who were held begin.
func (l *loop) begin() {
	for p := range l.pools() {
		p.retryAt, p.backoff = time.Time{}, 0
		for c := p.held.pop(); c != nil; c = p.held.pop() {
			c.waited += l.now.Sub(c.since)
			l.resume(c)
		}
		l.employ(p)
	}
}

// drain ends a loop: nothing is accepted, what is under way comes to its end.
func (l *loop) drain() {
	l.closing = true
	l.stopListening()
	for _, x := range l.conns {
		if c := x.client; c != nil && c.server == nil && !c.blocked {
			l.dismiss(c, shuttingDown())
		} else if c != nil && c.server != nil && c.server.idle() && c.pins != 0 {
			l.dismiss(c, shuttingDown())
		}
	}
}
