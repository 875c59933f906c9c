package pgproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"tenfold/internal/pgwire"
)

// Protocols of TLS (ALPN). A client that begins with TLS at once must name one: another protocol's
// client, led here by somebody else, does not (RFC 9325 §3.7, and what PostgreSQL asks for).
const (
	alpnPostgres = "postgresql"
	alpnHTTP     = "http/1.1" // of the Data API
)

// A channel is a client's TLS. The handshake, which computes for a millisecond and waits for the client,
// is a goroutine's; from then on the loop itself seals and opens records, over a connection that is
// nothing but memory. The obvious design, a goroutine with a tls.Conn for each client for good, costs an
// idle client two stacks and each message two switches of goroutine.
//
// It works because crypto/tls keeps what it read of a record when a read only waits (a net.Error that
// is Temporary), and writes what it seals in one call without looking at what a slow client takes.
type channel struct {
	conn    *tls.Conn
	wire    *wire
	binding []byte // what SCRAM binds to
}

// wire is what a tls.Conn reads from and writes to.
type wire struct {
	net.Conn        // the socket while the handshake is under way, then nowhere
	in       []byte // came and was not read yet
	sealed   []byte // to be sent
}

func (w *wire) Read(p []byte) (int, error) {
	if len(w.in) > 0 {
		n := copy(p, w.in)
		w.in = w.in[n:]
		return n, nil
	}
	return w.Conn.Read(p)
}

func (w *wire) Write(p []byte) (int, error) {
	if w.Conn == (nowhere{}) {
		w.sealed = append(w.sealed, p...)
		return len(p), nil
	}
	return w.Conn.Write(p)
}

// nowhere is a connection on which nothing ever comes, and which takes everything.
type nowhere struct{}

func (nowhere) Read([]byte) (int, error)         { return 0, errLater }
func (nowhere) Write(p []byte) (int, error)      { return len(p), nil }
func (nowhere) Close() error                     { return nil }
func (nowhere) LocalAddr() net.Addr              { return nil }
func (nowhere) RemoteAddr() net.Addr             { return nil }
func (nowhere) SetDeadline(time.Time) error      { return nil }
func (nowhere) SetReadDeadline(time.Time) error  { return nil }
func (nowhere) SetWriteDeadline(time.Time) error { return nil }

// later is the error of a read for which nothing has come yet.
type later struct{}

func (later) Error() string   { return "nothing has come yet" }
func (later) Timeout() bool   { return true }
func (later) Temporary() bool { return true } // crypto/tls asks for it

var errLater net.Error = later{}

// secure is the TLS that clients are offered, and what SCRAM binds to; nil when there is none. It is made
// again when there is another certificate.
func (p *Proxy) secure() (*secure, error) {
	if p.cfg.Certificate == nil {
		return nil, nil
	}
	c, err := p.cfg.Certificate()
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.tls; s != nil && s.of == c {
		return s, nil
	}
	of := func(protocols ...string) *tls.Config {
		return &tls.Config{
			Certificates: []tls.Certificate{*c}, MinVersion: tls.VersionTLS12, NextProtos: protocols,
			SessionTicketsDisabled: true, // libpq resumes nothing, and a ticket would outlive a pool's keys
			// A result is written as it comes: small records first, for browsers, would only cost.
			DynamicRecordSizingDisabled: true,
		}
	}
	p.tls = &secure{of: c, binding: pgwire.EndPoint(c.Leaf), asked: of(alpnPostgres), direct: of(alpnPostgres, alpnHTTP)}
	return p.tls, nil
}

type secure struct {
	of            *tls.Certificate
	binding       []byte
	asked, direct *tls.Config // after an SSLRequest, and without one
}

// shake does a client's handshake aside. first is what was read of it; direct says that no SSLRequest came
// before, so that the client must name a protocol.
func (l *loop) shake(c *client, s *secure, first []byte, direct bool) {
	conn, err := detach(c.fd)
	if err != nil {
		l.log.Error("begin TLS", "database", l.db.ID, "err", err)
		l.leave(c)
		return
	}
	unix.EpollCtl(l.poll, unix.EPOLL_CTL_DEL, c.fd, nil)
	w := &wire{Conn: conn, in: append([]byte(nil), first...)}
	conf, until := s.asked, c.since.Add(loginLimit)
	if direct {
		conf = s.direct
	}
	c.shaking = true
	l.p.helpers.Go(func() {
		ch := &channel{conn: tls.Server(w, conf), wire: w, binding: s.binding}
		conn.SetDeadline(until)
		ctx, cancel := context.WithDeadline(l.p.life, until)
		defer cancel()
		err := ch.conn.HandshakeContext(ctx)
		protocol := ch.conn.ConnectionState().NegotiatedProtocol
		if err == nil && direct && protocol == "" {
			err = errors.New("no protocol was named")
		}
		if err == nil && protocol == alpnHTTP {
			conn.SetDeadline(time.Time{})
			l.do(func() { l.cede(c) })
			l.p.web.take(ch.conn)
			return
		}
		conn.Close()
		w.Conn = nowhere{}
		l.do(func() { l.shaken(c, ch, err) })
	})
}

// detach gives a socket to goroutines as well: a descriptor of its own, which they may wait for.
func detach(fd int) (net.Conn, error) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(own), "client")
	defer f.Close()
	return net.FileConn(f)
}

// shaken takes a client back whose handshake is over.
func (l *loop) shaken(c *client, ch *channel, err error) {
	if c.closed {
		return
	}
	c.shaking = false
	if err != nil {
		l.stats.Unshaken++
		l.leave(c)
		return
	}
	c.tls = ch
	if err := l.watch(c.fd, unix.EPOLLIN, unix.EPOLL_CTL_ADD, false); err != nil {
		l.leave(c)
		return
	}
	l.open(c) // what came right behind the handshake
}

// cede gives up a client whose socket is the web's now.
func (l *loop) cede(c *client) {
	c.shaking = false
	l.leave(c)
}

// version is what is shown of a client's TLS; "" for none.
func (ch *channel) version() string {
	if ch == nil {
		return ""
	}
	return tls.VersionName(ch.conn.ConnectionState().Version)
}

// readSealed reads what a client with TLS sent.
func (l *loop) readSealed(c *client) {
	n, errno := recv(c.fd, l.cipher[:])
	if errno == unix.EAGAIN || errno == unix.EINTR {
		return
	}
	if errno != 0 || n == 0 {
		l.leave(c)
		return
	}
	c.tls.wire.in = l.cipher[:n]
	l.open(c)
}

// open opens all records that are whole and looks through what was in them. The loop's buffer is used
// again with each, so none of what came stays in the wire.
func (l *loop) open(c *client) {
	for !c.closed {
		buf, kept := l.room(c)
		n, err := c.tls.conn.Read(buf)
		l.sendSealed(c) // a key update has an answer
		if n > 0 {
			l.took(c, buf[:n], kept)
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, errLater) {
			if !c.closed && !errors.Is(err, io.EOF) {
				l.stats.Unshaken++
			}
			l.leave(c)
		}
		return
	}
}

// seal gives what b is on the wire. It lies in the loop's scratch, good until the next call.
func (l *loop) seal(ch *channel, b []byte) []byte {
	ch.wire.sealed = l.sealed[:0]
	ch.conn.Write(b) // to memory; after an alert it seals nothing, and the alert ends the client
	b = ch.take()
	if l.sealed = b; cap(b) > throttleAt {
		l.sealed = nil
	}
	return b
}

func (ch *channel) take() []byte {
	b := ch.wire.sealed
	ch.wire.sealed = nil
	return b
}

func (l *loop) sendSealed(c *client) {
	if b := c.tls.take(); len(b) > 0 {
		l.put(c, b)
	}
}
