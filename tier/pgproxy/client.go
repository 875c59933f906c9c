package pgproxy

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tenfold/internal/pgwire"
	"tenfold/tier/pgproxy/querycache"
)

// phase is how far a client is.
type phase uint8

const (
	phaseStartup  phase = iota // its first packet is awaited
	phasePassword              // SASLInitialResponse is
	phaseProof                 // SASLResponse is
	phaseParams                // logged in; what servers say of themselves is not known yet
	phaseReady
)

// A client is one connection of an app. The loop owns it.
type client struct {
	fd     int
	phase  phase
	closed bool
	// blocked says that input is kept, not looked at: it waits for a server, or for one to be made ready.
	blocked bool
	// local says that an error was answered without a server: all is dropped up to Sync.
	local bool
	// retried says that what is under way was begun for the second time.
	retried bool
	silent  bool // reading is suspended
	out     bool // EPOLLOUT is asked for
	urgent  bool // it is heard even while enough others wait

	reader    bool // of name-ro
	split     bool // what is under way was sent to a reader
	direct    bool // what comes next goes to the primary
	admin     bool // of the admin database: it has no server
	backslash bool // standard_conforming_strings is off

	pool   *pool
	server *server
	since  time.Time // waits since, or logs in since
	in     []byte    // read and not used
	outbuf []byte    // to be sent when the connection takes more
	queued int       // one more than its place among the sends of this round; 0: none
	skip   int       // bytes of a message that is passed on in parts

	ahead      *server // that was sent already what it asks; it waits for that one's earlier answers
	inQueue    *queue
	prev, next *client

	account *account
	app     string // application_name of the startup packet
	counted bool   // among its account's
	login   *login // while it logs in

	tls     *channel // nil: none
	shaking bool     // its handshake is under way, elsewhere
	near    bool     // it is on this machine

	pid    uint32
	secret []byte

	statements map[string]*prepared // by the client's names
	unnamed    *unnamed
	settings   *settings
	fixed      []setting        // of the startup packet: what RESET goes back to
	pins       traits           // why it keeps its server
	suspect    traits           // what may have stayed in the session since it was last asked
	names      []string         // of settings that may have changed
	causes     []cause          // what may have pinned it, or did
	wrote      uint64           // number of its last transaction that may have written
	waited     time.Duration    // for the server that it has, until a statement is known that it was for
	fill       *querycache.Fill // for the answer to what comes next; nil: it is not kept
	class      *class           // of the query at the front of in
	trace      string           // traceparent of the text that came last
	// lost is the error that the next statement gets: its transaction's server has gone.
	lost *pgwire.Error
}

// unnamed is the client's unnamed statement: it lives until the next one, whatever server has it.
type unnamed struct {
	gen   uint64 // grows with each: a server may still have an earlier one
	parse []byte // body of Parse after the name
	class class
	valid bool
}

// login is what a client needs only while it logs in.
type login struct {
	exchange pgwire.Exchange
	startup  pgwire.Startup
	keys     *pgwire.Keys
	way      way
	salt     [4]byte // of MD5
}

// way is how a client is asked to prove who it is.
type way uint8

const (
	bySCRAM way = iota
	byMD5       // where the directory says so
	byToken     // for users with TokenUser behind their name
)

func (l *loop) clientEvent(c *client, events uint32, h *heard) {
	if events&unix.EPOLLOUT != 0 {
		l.flushClient(c)
	}
	if !c.closed && events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		l.readClient(c, h)
	}
}

func (l *loop) readClient(c *client, h *heard) {
	if c.silent && !h.did {
		// It is not watched: this is a hang-up.
		l.leave(c)
		return
	}
	if c.tls != nil {
		l.readSealed(c)
		return
	}
	buf, kept := l.room(c)
	data, errno := h.receive(c.fd, buf)
	if errno == unix.EAGAIN || errno == unix.EINTR {
		return
	}
	if errno != 0 || len(data) == 0 {
		l.leave(c)
		return
	}
	if h.did && kept > 0 { // since then it was given its batch back, to begin again
		c.in = append(c.in, data...)
		data = c.in[kept:]
	}
	l.took(c, data, kept)
}

// room is where what a client sends next goes: behind the kept bytes of c.in, or into the loop's buffer.
func (l *loop) room(c *client) (buf []byte, kept int) {
	if kept = len(c.in); kept == 0 {
		return l.buf[:], 0
	}
	c.in = slices.Grow(c.in, max(4096, l.missing(c)))
	return c.in[kept:cap(c.in)], kept
}

// took takes what was read: behind the kept bytes of c.in, where there are any.
func (l *loop) took(c *client, data []byte, kept int) {
	if kept > 0 {
		c.in = c.in[:kept+len(data)]
		data = c.in
	}
	if c.blocked {
		if kept == 0 {
			c.in = keep(data)
		}
		if len(c.in) > throttleAt {
			l.silence(c, true)
		}
		return
	}
	l.use(c, data)
}

// missing is how much the message that c.in begins with lacks, within reason.
func (l *loop) missing(c *client) int {
	if c.phase == phaseReady {
		if _, size, ok, _ := pgwire.Header(c.in); ok {
			// What was announced is believed step by step: memory is for bytes that came.
			return min(size-len(c.in), max(readSize, len(c.in)))
		}
	}
	return 0
}

// use looks through data, which is c.in or lies in a buffer of the loop's, and keeps what remains.
func (l *loop) use(c *client, data []byte) {
	used := l.feed(c, data)
	if c.closed {
		return
	}
	rest := data[used:]
	if len(c.in) > 0 {
		switch {
		case len(rest) == 0:
			free(c.in)
			c.in = nil
		case used > 0:
			c.in = c.in[:copy(c.in, rest)]
		}
	} else {
		c.in = keep(rest)
	}
	if s := c.server; s != nil {
		l.flush(s)
		if s.expects() {
			l.hurry(c)
		}
	}
}

// resume goes on with what a client has sent before.
func (l *loop) resume(c *client) {
	c.blocked = false
	if c.silent && (c.server == nil || len(c.server.out) <= throttleAt) {
		l.silence(c, false)
	}
	if len(c.in) > 0 {
		l.use(c, c.in)
	}
}

// silence stops reading from a client, or begins again.
func (l *loop) silence(c *client, on bool) {
	if c.silent != on {
		c.silent = on
		l.rewatch(c)
	}
}

func (l *loop) rewatch(c *client) {
	var e uint32
	if !c.silent {
		e = unix.EPOLLIN
	}
	if c.out {
		e |= unix.EPOLLOUT
	}
	l.watch(c.fd, e, unix.EPOLL_CTL_MOD, c.urgent)
}

// reply sends bytes to a client, or keeps them until it takes them.
func (l *loop) reply(c *client, b []byte) {
	if c.closed || len(b) == 0 {
		return
	}
	if c.tls != nil {
		b = l.seal(c.tls, b)
	}
	l.put(c, b)
}

// put sends bytes as they are on the wire, at the end of the round where that is as good.
func (l *loop) put(c *client, b []byte) {
	if len(c.outbuf) > 0 {
		c.outbuf = append(c.outbuf, b...)
	} else if !l.later(c, b) {
		l.putNow(c, b)
	}
}

func (l *loop) putNow(c *client, b []byte) {
	if len(c.outbuf) > 0 {
		c.outbuf = append(c.outbuf, b...)
		return
	}
	// When it fails, reading tells of it as well; what is under way is ended there.
	if sent, failed := sendAll(c.fd, b); !failed {
		l.putRest(c, b[sent:])
	}
}

// putRest keeps what a client's connection does not take yet.
func (l *loop) putRest(c *client, rest []byte) {
	if len(rest) > 0 {
		c.outbuf, c.out = append([]byte(nil), rest...), true
		l.rewatch(c)
	}
}

func (l *loop) flushClient(c *client) {
	sent, failed := sendAll(c.fd, c.outbuf)
	if failed {
		l.leave(c)
		return
	}
	if c.outbuf = c.outbuf[sent:]; len(c.outbuf) > 0 {
		return
	}
	c.outbuf, c.out = nil, false
	l.rewatch(c)
	if s := c.server; s != nil && s.silent {
		l.silenceServer(s, false)
	}
}

// leave ends a client: it hung up, or was told why it must go.
func (l *loop) leave(c *client) {
	if c.closed {
		return
	}
	l.sooner(c)
	c.closed = true
	c.waitNoMore()
	if c.phase == phaseReady {
		l.clients--
		delete(l.byPID, c.pid)
	}
	if c.account != nil {
		c.account.gone(c)
	}
	for _, p := range c.statements {
		l.statements.drop(p)
	}
	c.statements = nil
	free(c.in)
	c.in = nil
	s := c.server
	c.server = nil
	if c.tls != nil {
		c.tls.conn.CloseWrite() // says that nothing was cut off
		sendAll(c.fd, c.tls.take())
	}
	l.remove(c.fd)
	if s != nil {
		l.abandoned(s, c)
	}
}

// dismiss tells a client why and ends it.
func (l *loop) dismiss(c *client, e *pgwire.Error) {
	if c.closed {
		return
	}
	e.Severity = "FATAL"
	if c.shaking { // it would take it for a part of the handshake
	} else if c.server == nil || c.server.skip == 0 { // within a message nothing can be said
		l.reply(c, pgwire.AppendError(nil, e))
	}
	l.leave(c)
}

// startup reads a client's first packets. It gives how much it used; 0 when there is not enough.
func (l *loop) startup(c *client, b []byte) int {
	if c.tls == nil && b[0] == pgwire.TLSHello {
		if sec := l.offered(); sec != nil {
			l.shake(c, sec, b, true)
			return len(b)
		}
	}
	if c.tls == nil && l.db.API != nil && isHTTP(b) {
		l.surrender(c, b)
		return 0
	}
	s, size, err := pgwire.ParseStartup(b)
	switch {
	case errors.Is(err, pgwire.ErrVersion):
		l.dismiss(c, &pgwire.Error{Code: "0A000", Message: "unsupported frontend protocol", Hint: "use a client of PostgreSQL 7.4 or later"})
		return 0
	case err != nil:
		l.leave(c) // not PostgreSQL
		return 0
	case size == 0:
		return 0
	}
	switch s.Kind {
	case pgwire.StartupTLS, pgwire.StartupGSS:
		if len(b) > size {
			// What came before the answer may have been put there by another (CVE-2021-23214).
			l.leave(c)
			return 0
		}
		if c.tls != nil {
			l.dismiss(c, &pgwire.Error{Code: "08P01", Message: "encryption was asked for twice"})
			return 0
		}
		if s.Kind == pgwire.StartupTLS {
			if sec := l.offered(); sec != nil {
				l.reply(c, []byte{'S'})
				l.shake(c, sec, nil, false)
				return size
			}
		}
		l.reply(c, []byte{'N'})
		return size
	case pgwire.StartupCancel:
		l.cancel(c, s.PID, s.Secret)
		return 0
	}
	l.identify(c, s)
	return size
}

// offered is the TLS that there is; nil without, or while no certificate can be made.
func (l *loop) offered() *secure {
	s, err := l.p.secure()
	if err != nil {
		l.log.Error("make a certificate", "database", l.db.ID, "err", err)
	}
	return s
}

// identify finds who logs in.
func (l *loop) identify(c *client, s pgwire.Startup) {
	if s.Get("replication") != "" && s.Get("replication") != "false" && s.Get("replication") != "off" && s.Get("replication") != "0" {
		l.dismiss(c, &pgwire.Error{Code: "0A000", Message: "replication is not pooled", Hint: "connect to the server itself: tenfold status"})
		return
	}
	user := s.Get("user")
	name := s.Get("database")
	if name == "" {
		name = strings.TrimSuffix(user, TokenUser)
	}
	minor, tell := s.Negotiate()
	if tell {
		l.reply(c, pgwire.AppendNegotiate(nil, minor, s.Options))
	}
	c.secret = make([]byte, 4)
	if minor >= 2 {
		c.secret = make([]byte, 32)
	}
	c.admin = name == adminName && name != l.db.Name
	c.reader = name == l.db.Name+"-ro"
	if name != l.db.Name && !c.reader && !c.admin {
		l.dismiss(c, &pgwire.Error{Code: "3D000", Message: `database "` + name + `" does not exist`, Hint: `here are "` + l.db.Name + `" and "` + l.db.Name + `-ro", and "` + adminName + `" shows what the pool does`})
		return
	}
	l.challenge(c, s, user)
}

// enter lets a client in whose password was right; greeting is what it is told first.
func (l *loop) enter(c *client, greeting []byte) {
	role := 0
	if c.reader {
		role = 1
	}
	c.pool = c.account.pools[role]
	var ok bool
	if c.fixed, ok = startupSettings(c.login.startup); !ok {
		l.dismiss(c, &pgwire.Error{Code: "0A000", Message: "startup option is not understood: " + c.login.startup.Get("options"), Hint: "use -c name=value"})
		return
	}
	if e := l.admit(c); e != nil {
		l.dismiss(c, e)
		return
	}
	greeting = pgwire.AppendAuth(greeting, pgwire.AuthOK, "")
	rand.Read(c.secret)
	for l.lastPID == 0 || l.byPID[l.lastPID] != nil {
		l.lastPID = (l.lastPID + 1) & 0x7fffffff // SQL has it as an integer
	}
	c.pid = l.lastPID
	l.byPID[c.pid] = c
	l.clients++
	c.inQueue.remove(c)
	c.phase = phaseParams
	l.reply(c, greeting)
	if c.admin {
		l.welcome(c)
		return
	}
	l.lastAsked = l.now
	if l.params == nil {
		// Nobody knows yet what servers say of themselves: the first connection will.
		c.blocked, c.since = true, l.now
		c.pool.waiting.push(c)
		l.grow(c.pool)
		return
	}
	l.welcome(c)
}

// startupSettings are the run-time parameters of a startup packet; ok is false when options are unreadable.
func startupSettings(s pgwire.Startup) (list []setting, ok bool) {
	set := func(p pgwire.Param) {
		n := strings.ToLower(p.Name)
		for i := range list {
			if list[i].name == n {
				list[i].value = p.Value
				return
			}
		}
		list = append(list, setting{n, p.Value})
	}
	for _, p := range s.Params {
		switch p.Name {
		case "user", "database", "replication":
		case "options":
			more, ok := pgwire.Settings(p.Value)
			if !ok {
				return nil, false
			}
			for _, m := range more {
				set(m)
			}
		default:
			set(p)
		}
	}
	return list, true
}

// welcome tells a client that is logged in what servers say of themselves, and that it may begin.
func (l *loop) welcome(c *client) {
	out := make([]byte, 0, 512)
	var differ []setting
	for _, x := range c.fixed {
		if !slices.ContainsFunc(l.params, func(p pgwire.Param) bool { return strings.EqualFold(p.Name, x.name) && p.Value == x.value }) {
			differ = append(differ, x)
		}
	}
	c.fixed = differ
	for _, p := range l.params {
		for _, x := range differ {
			if strings.EqualFold(p.Name, x.name) {
				p.Value = x.value
			}
		}
		if strings.EqualFold(p.Name, "session_authorization") {
			p.Value = c.account.user.Name
		}
		out = pgwire.AppendParameter(out, p.Name, p.Value)
	}
	out = pgwire.AppendKey(out, c.pid, c.secret)
	out = pgwire.AppendReady(out, 'I')
	c.take(l, l.interned.get(differ))
	c.login, c.phase = nil, phaseReady
	l.reply(c, out)
}

// take makes settings the client's.
func (c *client) take(l *loop, s *settings) {
	c.settings = s
	v, _ := s.get("standard_conforming_strings")
	c.backslash = v == "off"
}

// cancel passes a request to cancel on to the server that works for whoever has this key, and hangs up on who
// asked only when the server has been told, as a server does: who waits for that knows that what it sends
// next is not cancelled.
func (l *loop) cancel(from *client, pid uint32, secret []byte) {
	c := l.byPID[pid]
	if c == nil || subtle.ConstantTimeCompare(c.secret, secret) != 1 {
		l.leave(from)
		return
	}
	if (c.inQueue != nil || c.ahead != nil) && c.phase == phaseReady {
		// It has not begun.
		c.waitNoMore()
		l.refuse(c, &pgwire.Error{Code: "57014", Message: "canceling statement due to user request"})
	} else if s := c.server; s != nil && !s.idle() {
		l.silence(from, true) // nothing more is said on it
		l.cancelAt(s, from)
		return
	}
	l.leave(from)
}

// cancelAt asks a server to cancel. Until the request is through, nobody else gets the connection: it
// would be theirs that is cancelled. Then whoever asked, where it was a client, is hung up on.
func (l *loop) cancelAt(s *server, from *client) {
	if s.queued {
		l.send(s) // or what is to be cancelled came after the request
	}
	l.takeBackAhead(s)
	s.cancelling++
	l.stats.Cancelled++
	addr, pid, secret := s.addr, s.pid, s.secret
	l.p.helpers.Go(func() {
		l.p.sendCancel(addr, pid, secret)
		l.do(func() {
			s.cancelling--
			if from != nil {
				l.leave(from)
			}
			if !s.closing && s.client == nil && s.idle() {
				l.ready(s)
			} else if !s.closing && s.client != nil && s.idle() {
				l.settle(s)
			}
		})
	})
}
