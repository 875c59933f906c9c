package pgproxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tenfold/internal/pgwire"
	"tenfold/tier/pgproxy/querycache"
)

// dialLimit is how long a server may take until it is ready for a query.
const dialLimit = 5 * time.Second

// opKind is what a server was asked, in the order of its answers.
type opKind uint8

const (
	opQuery        opKind = iota // all up to ReadyForQuery is the client's
	opSync                       // likewise
	opParse                      // of a named statement
	opParseUnnamed               // of the unnamed one
	opDescribe
	opExecute
	opOther    // Bind, Close: one message answers it
	opCopyDone // the end of a client's COPY: nothing answers it

	// What was put in by the pool: the answer is not the client's.
	opParsedHere
	opClosedHere
	opProbe   // asks what stayed in the session
	opReplay  // sets the session's settings
	opDiscard // cleans it
	opDropped // was sent ahead for a client that waits again, or has gone

	// What the server was not asked: the pool answers when everything before is answered.
	opParsed
	opClosed
	opDeallocated
)

// op is one of them.
type op struct {
	kind      opKind
	statement *prepared
	name      string  // the client's, for the statement
	seen      *counts // of the statement, for what ends there
	req       request // what it is for, with seen
}

func (o *op) internal() bool  { return o.kind >= opProbe && o.kind <= opDropped }
func (o *op) synthetic() bool { return o.kind >= opParsed }

// A server is one connection to a PostgreSQL server, logged in as one user. The loop owns it.
type server struct {
	fd      int
	pool    *pool
	addr    string
	epoch   uint64
	primary bool
	pid     uint32
	secret  []byte

	client  *client // who has it now
	last    *client // who had it last
	closing bool
	retired bool // closed when it is given back
	silent  bool // reading is suspended
	wants   bool // EPOLLOUT is asked for
	queued  bool // out is sent at the end of the round
	since   time.Time

	ahead      []ahead   // what was sent for clients that have not got it yet
	aheadSince time.Time // since when the first of them is the next
	early      []byte    // what the server has got already of what its client asks now
	earlyAt    int       // where in out that begins

	asked bool      // something that it has not answered
	began time.Time // since when
	turns *turns    // of its process; nil: it is not of this machine, or nobody knows

	in, out    []byte
	skip       int // bytes of a message that is passed on in parts
	ops        []op
	head       int
	tx         byte // of the last ReadyForQuery
	begun      bool // something was sent that no ReadyForQuery has answered
	skipping   bool // after an error the server drops all up to Sync
	copyIn     bool
	defined    bool // its transaction has DDL
	cancelling int
	fatal      *pgwire.Error // said before it hung up

	fill *querycache.Fill // of the answer under way; nil: it is not kept

	sealed bool // its client, whose read was split off, has to wait until this batch is answered
	wrote  bool // the transaction may have written

	statements map[*prepared]*kept
	uses       uint64
	unnamed    *client // whose statement the unnamed one is
	unnamedGen uint64  // and which of it
	settings   *settings

	// The batch under way, up to a ReadyForQuery that leaves nothing open.
	batch     []byte
	batchLost bool // it is not kept: too long, or within a transaction
	traits    traits
	described bool
	replied   bool // the client has seen something of the answer
	again     bool // it failed for an outdated plan and will be sent again

	// Of what is answered now: since when, rows and bytes that were passed on.
	mark  time.Time
	rows  uint64
	sent  uint64
	bound *counts            // the statement of the unnamed portal
	bears request            // what it is for
	named map[string]*counts // of the other portals; nil when there are none

	probed []string // names that the probe asks for
	found  traits
	values []setting
	broken *pgwire.Error // of an internal op
}

func (s *server) pending() int { return len(s.ops) - s.head }

func (s *server) push(o op) { s.ops = append(s.ops, o) }

func (s *server) pop() {
	s.head++
	if s.head == len(s.ops) {
		s.ops, s.head = s.ops[:0], 0
	}
}

// pass sends a message as it is.
func (s *server) pass(msg []byte, o op) {
	s.out = append(s.out, msg...)
	s.ops = append(s.ops, o)
}

// works notes that a server has something to answer.
func (l *loop) works(s *server) {
	if !s.asked {
		s.asked = true
		s.pool.works(s, l.now)
	}
}

// answered notes that the server has nothing to do.
func (s *server) answered() {
	s.asked = false
	s.pool.rested(s)
}

// idle says that nothing is under way.
func (s *server) idle() bool { return !s.begun && s.pending() == 0 && s.tx == 'I' }

// remember keeps what a client sends so that it can be sent again.
func (s *server) remember(msg []byte) {
	if !s.begun {
		s.begun = true
		s.batch, s.batchLost, s.traits, s.described, s.replied = s.batch[:0], s.tx != 'I', 0, false, false
	}
	if s.batchLost {
		return
	}
	if len(s.batch)+len(msg) > maxBatch {
		s.batchLost = true
		return
	}
	s.batch = append(s.batch, msg...)
}

// synthesize has the pool answer in place of the server.
func (l *loop) synthesize(s *server, o op) { s.push(o) }

// session is what a login at a server gives.
type session struct {
	fd     int
	pid    uint32
	secret []byte
	params []pgwire.Param
	turns  *turns
}

func (s *session) close() {
	unix.Close(s.fd)
	s.turns.close()
}

// connect opens a connection for the loop. It blocks.
func (p *Proxy) connect(ctx context.Context, addr, database, user, password string) (session, error) {
	conn, s, err := p.login(ctx, addr, database, user, password)
	if err != nil {
		return s, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Time{})
	if s.fd, err = duplicate(conn.(syscall.Conn)); err != nil {
		return s, err
	}
	if conn.RemoteAddr().Network() == "unix" {
		// Who listens there is the postmaster, whose children the servers are.
		if peer, err := unix.GetsockoptUcred(s.fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil && peer.Pid > 0 {
			s.turns = openTurns(int(s.pid), int(peer.Pid))
		}
	}
	return s, nil
}

// login opens a connection and logs in. It blocks. The connection keeps its deadline.
func (p *Proxy) login(ctx context.Context, addr, database, user, password string) (net.Conn, session, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	var s session
	conn, err := p.dial(ctx, addr)
	if err != nil {
		return nil, s, err
	}
	if d, ok := ctx.Deadline(); ok {
		conn.SetDeadline(d)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := p.introduce(conn, &s, database, user, password); err != nil {
		conn.Close()
		return nil, s, err
	}
	return conn, s, nil
}

// dial connects to a server, by its Unix socket where it has one, which spares messages the way through TCP. A server
// that was started before it was told to listen there is found at its address.
func (p *Proxy) dial(ctx context.Context, addr string) (net.Conn, error) {
	if known := p.sockets.Load(); known != nil && (*known)[addr] != "" {
		if conn, err := new(net.Dialer).DialContext(ctx, "unix", (*known)[addr]); err == nil || ctx.Err() != nil {
			return conn, err
		}
	}
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

// introduce logs in.
func (p *Proxy) introduce(conn net.Conn, s *session, database, user, password string) error {
	out := pgwire.AppendStartup(nil, pgwire.Param{Name: "user", Value: user}, pgwire.Param{Name: "database", Value: database}, pgwire.Param{Name: "application_name", Value: "tenfold"})
	var login pgwire.Login
	for {
		if out != nil {
			if _, err := conn.Write(out); err != nil {
				return err
			}
		}
		typ, body, err := readMessage(conn)
		if err != nil {
			return err
		}
		if out, err = s.take(&login, typ, body, func(salt []byte, n int) *pgwire.Keys { return p.serverKeys(user, password, salt, n) }); err != nil {
			return err
		}
		if typ == 'Z' {
			return nil
		}
	}
}

// take reads one message of a server that lets us in, and gives what is to be answered.
func (s *session) take(login *pgwire.Login, typ byte, body []byte, keys func([]byte, int) *pgwire.Keys) ([]byte, error) {
	switch typ {
	case 'R':
		if len(body) < 4 {
			return nil, pgwire.ErrFraming
		}
		data := body[4:]
		switch kind := binary.BigEndian.Uint32(body); kind {
		case pgwire.AuthOK:
		case pgwire.AuthSASL:
			return pgwire.Append(nil, 'p', string(login.Begin())), nil
		case pgwire.AuthSASLContinue:
			answer, err := login.Continue(data, keys)
			if err != nil {
				return nil, err
			}
			return pgwire.Append(nil, 'p', string(answer)), nil
		case pgwire.AuthSASLFinal:
			return nil, login.Finish(data)
		default:
			return nil, fmt.Errorf("the server asks for authentication of kind %d: SCRAM-SHA-256 is what is spoken", kind)
		}
	case 'S':
		name, rest, _ := pgwire.CString(body)
		value, _, ok := pgwire.CString(rest)
		if ok {
			s.params = append(s.params, pgwire.Param{Name: string(name), Value: string(value)})
		}
	case 'K':
		if len(body) < 8 {
			return nil, pgwire.ErrFraming
		}
		s.pid, s.secret = binary.BigEndian.Uint32(body), slices.Clone(body[4:])
	case 'E':
		e := pgwire.ParseError(body)
		return nil, &e
	}
	return nil, nil
}

func readMessage(r io.Reader) (byte, []byte, error) {
	var h [pgwire.HeaderSize]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	typ, size, _, err := pgwire.Header(h[:])
	if err != nil || size > 1<<20 {
		return 0, nil, pgwire.ErrFraming
	}
	body := make([]byte, size-pgwire.HeaderSize)
	_, err = io.ReadFull(r, body)
	return typ, body, err
}

// sendCancel asks a server to cancel and returns when it has taken the request.
func (p *Proxy) sendCancel(addr string, pid uint32, secret []byte) {
	ctx, cancel := context.WithTimeout(p.life, dialLimit)
	defer cancel()
	conn, err := p.dial(ctx, addr)
	if err != nil {
		return // then there is nothing to cancel
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(dialLimit))
	conn.Write(pgwire.AppendCancel(nil, pid, secret))
	io.Copy(io.Discard, conn) // it hangs up when the signal is sent
}

func (l *loop) serverEvent(s *server, events uint32, h *heard) {
	if events&unix.EPOLLOUT != 0 {
		l.flush(s)
	}
	if s.closing || events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) == 0 {
		return
	}
	buf, kept := l.buf[:], len(s.in)
	if kept > 4096 {
		s.in = slices.Grow(s.in, readSize)
		buf = s.in[kept:cap(s.in)]
	} else {
		buf = buf[copy(buf, s.in):]
	}
	data, errno := h.receive(s.fd, buf)
	if errno == unix.EAGAIN || errno == unix.EINTR {
		return
	} else if errno != 0 || len(data) == 0 {
		l.lose(s, errors.New("the server hung up"))
		return
	}
	switch {
	case kept > 4096:
		s.in = s.in[:kept+len(data)]
		data = s.in
	case kept > 0:
		s.in = s.in[:0]
		data = l.buf[:kept+len(data)]
	}
	used := l.answer(s, data)
	if s.closing {
		return
	}
	if s.asked && !s.begun && s.pending() == 0 {
		s.answered()
	}
	if s.client != nil && s.expects() {
		l.hurry(s.client)
	}
	rest := data[used:]
	if s.in = append(s.in[:0], rest...); len(rest) == 0 && cap(s.in) > readSize {
		s.in = nil
	}
}

// flush sends what is kept for a server: all of it in one write, at the end of the round where that is as good. When everything that it was asked is
// for the pool to answer, it is answered here.
func (l *loop) flush(s *server) {
	if s.closing {
		return
	}
	if s.pending() > 0 && s.ops[s.head].synthetic() && !slices.ContainsFunc(s.ops[s.head:], func(o op) bool { return !o.synthetic() }) {
		l.gather = l.gather[:0]
		l.synthetics(s)
		if s.client != nil {
			l.reply(s.client, l.gather)
		}
		if l.gather = l.gather[:0]; s.idle() {
			l.settle(s)
		}
	}
	if s.early != nil {
		l.earlier(s)
	}
	if len(s.out) == 0 {
		return
	}
	l.works(s)
	if !l.laterServer(s) {
		l.send(s)
	}
}

// send sends what is kept for a server, now.
func (l *loop) send(s *server) {
	sent, failed := sendAll(s.fd, s.out)
	if failed {
		l.lose(s, errors.New("the server hung up"))
		return
	}
	l.accepted(s, sent)
}

// accepted notes how much of what is kept for a server it took.
func (l *loop) accepted(s *server, sent int) {
	if sent == len(s.out) {
		if s.out = s.out[:0]; cap(s.out) > throttleAt {
			s.out = nil
		}
		if s.wants {
			s.wants = false
			l.rewatchServer(s)
		}
		if c := s.client; c != nil && c.silent && !c.blocked {
			l.silence(c, false)
		}
		return
	}
	s.out = s.out[:copy(s.out, s.out[sent:])]
	if !s.wants {
		s.wants = true
		l.rewatchServer(s)
	}
	if c := s.client; c != nil && len(s.out) > throttleAt {
		l.silence(c, true)
	}
}

func (l *loop) rewatchServer(s *server) {
	var e uint32
	if !s.silent {
		e = unix.EPOLLIN
	}
	if s.wants {
		e |= unix.EPOLLOUT
	}
	l.watch(s.fd, e, unix.EPOLL_CTL_MOD, true)
}

// silenceServer stops reading from a server whose client does not keep up, or begins again.
func (l *loop) silenceServer(s *server, on bool) {
	if s.silent != on {
		s.silent = on
		l.rewatchServer(s)
	}
}
