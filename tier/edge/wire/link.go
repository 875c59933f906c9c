package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// What the reading side of a connection is doing; the sweep compares how long with the limits.
// Deadlines on the sockets would cost a timer per request: a store per request is all this costs.
const (
	phaseBusy      = iota // a handler runs, or the connection is not ours any more: no limit
	phaseHandshake        // TLS
	phaseIdle             // waiting for a request's first byte
	phaseHead             // inside a request's head
	phaseLinger           // answered and closed for writing, reading what is still under way
)

// nudgeAfter is how long a connection waits with its buffers before it gives them back.
const nudgeAfter = 3 * time.Second

var (
	errNudged = errors.New("read was interrupted")
	errSlow   = errors.New("the client is too slow")
	long      = time.Unix(1, 0) // a deadline long past
)

// link is what the two loops have in common: the connection, how it is written to, and what the
// server's sweep sees of it.
type link struct {
	srv        *Server
	raw        net.Conn // as accepted
	rw         net.Conn // raw, a Sock of it, or TLS over it
	sock       *Sock    // rw; nil: it is none
	cork       *cork    // below TLS
	tls        *tls.ConnectionState
	remote     netip.AddrPort
	remoteText string
	ctx        context.Context // of the connection

	phase  atomic.Int64 // milliseconds of Unix time << 3, phase below
	wrote  atomic.Int64 // milliseconds at which the write under way began; 0: none
	nudged atomic.Bool  // the sweep interrupts a read so that buffers are given back
	late   atomic.Bool  // the sweep interrupts a read for good
	held   atomic.Bool  // the reader has buffers while idle
	kept   atomic.Bool  // hijacked: the handler owns the connection until it closes it
	body   atomic.Pointer[pace]
	two    atomic.Pointer[conn2]
	gone   sync.Once
	began  bool  // a request was read
	loop   *loop // that writes instead, for the seat that has its turn; nil: it is a connection's
	alt    bool  // Alt-Svc is still to be said; as out: conn1's goroutine, conn2.mu
}

func (l *link) enter(phase int, at time.Time) { l.phase.Store(at.UnixMilli()<<3 | int64(phase)) }

// read reads once. The sweep's interruptions come out as errNudged and errSlow.
func (l *link) read(p []byte) (int, error) {
	n, err := l.rw.Read(p)
	return n, l.interrupted(n, err)
}

// interrupted tells the sweep's interruptions from other errors of a read.
func (l *link) interrupted(n int, err error) error {
	if err != nil && n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		if l.late.Load() {
			return errSlow
		}
		if l.nudged.Swap(false) {
			l.rw.SetReadDeadline(time.Time{})
			return errNudged
		}
	}
	return err
}

// Pieces in which large bodies are written: each has WriteTimeout to leave.
const piece = 64 << 10

// write sends p, watched by the sweep.
func (l *link) write(p []byte) error { return l.writeAt(time.Now(), p) }

// writeAt is write for who knows what time it is.
func (l *link) writeAt(now time.Time, p []byte) error {
	if l.loop != nil {
		return l.loop.put(now, p, nil)
	}
	for len(p) > 0 {
		n := min(len(p), piece)
		l.wrote.Store(now.UnixMilli())
		err := l.send(p[:n])
		l.wrote.Store(0)
		if err != nil {
			return err
		}
		if p = p[n:]; len(p) > 0 {
			now = time.Now()
		}
	}
	return nil
}

func (l *link) send(p []byte) error {
	if l.cork == nil || len(p) <= 1024 {
		_, err := l.rw.Write(p)
		return err
	}
	l.cork.hold()
	_, err := l.rw.Write(p)
	return errors.Join(err, l.cork.release())
}

// writeBoth sends a head and a body: on a plain socket in one writev, without copying the body.
func (l *link) writeBoth(head, body []byte) error {
	if l.loop != nil {
		return l.loop.put(time.Now(), head, body)
	}
	if l.cork != nil {
		buf := getBuffer(bigBuffer)
		defer buf.free()
		n := min(len(body), max(0, piece-len(head)))
		if err := l.write(append(append(buf.b[:0], head...), body[:n]...)); err != nil {
			return err
		}
		return l.write(body[n:])
	}
	n := min(len(body), 2*piece)
	l.wrote.Store(time.Now().UnixMilli())
	var err error
	if l.sock != nil {
		_, err = l.sock.WriteBoth(head, body[:n])
	} else {
		bufs := net.Buffers{head, body[:n]}
		_, err = bufs.WriteTo(l.raw)
	}
	l.wrote.Store(0)
	if err != nil {
		return err
	}
	return l.write(body[n:])
}

// abort closes the connection at once, from any goroutine.
func (l *link) abort() { l.raw.Close() }

// end closes the connection and takes it off the server's list. With linger it first says that
// nothing more is sent and reads what is still under way, for a moment: closing a socket with unread
// input sends a reset, which can destroy the answer before the client has read it.
func (l *link) end(linger bool) {
	l.gone.Do(func() {
		if linger {
			l.linger()
		}
		l.rw.Close()
		l.srv.forget(l)
	})
}

// lingerMost is how many bytes are read of what a client still sends.
const lingerMost = 32 << 20

func (l *link) linger() {
	l.body.Store(nil)
	l.enter(phaseLinger, time.Now())
	switch c := l.rw.(type) {
	case *tls.Conn:
		c.CloseWrite()
	}
	if c, ok := l.raw.(interface{ CloseWrite() error }); !ok || c.CloseWrite() != nil {
		return
	}
	l.raw.SetReadDeadline(time.Now().Add(time.Second))
	// A client that sends a large body reads its answer only when it has sent it, or cannot.
	buf := getBuffer(frameBuffer)
	defer buf.free()
	room := buf.b[:cap(buf.b)]
	for n := 0; n < lingerMost; {
		m, err := l.raw.Read(room)
		if n += m; err != nil {
			return
		}
	}
}

// cork joins the records that one TLS write makes into one write of the socket: crypto/tls begins a
// connection with records of one packet, each of which would be a system call.
type cork struct {
	net.Conn
	mu   sync.Mutex
	held bool
	buf  *buffer
}

func (c *cork) hold() {
	c.mu.Lock()
	c.held, c.buf = true, getBuffer(bigBuffer)
	c.buf.b = c.buf.b[:0]
	c.mu.Unlock()
}

func (c *cork) Write(p []byte) (int, error) {
	c.mu.Lock()
	if c.held {
		c.buf.b = append(c.buf.b, p...)
		c.mu.Unlock()
		return len(p), nil
	}
	c.mu.Unlock()
	return c.Conn.Write(p)
}

func (c *cork) release() error {
	c.mu.Lock()
	b := c.buf
	c.held, c.buf = false, nil
	var err error
	if len(b.b) > 0 {
		_, err = c.Conn.Write(b.b)
	}
	c.mu.Unlock()
	b.free()
	return err
}

// buffer is a pooled slice of bytes.
type buffer struct {
	b    []byte
	size int
}

// Sizes of pooled buffers.
const (
	smallBuffer = 4 << 10  // a request head, a small response
	frameBuffer = 24 << 10 // an HTTP/2 frame and more
	bigBuffer   = 72 << 10 // what is written at once
)

var pools = map[int]*sync.Pool{smallBuffer: {}, frameBuffer: {}, bigBuffer: {}}

func getBuffer(size int) *buffer {
	if b, ok := pools[size].Get().(*buffer); ok {
		return b
	}
	return &buffer{make([]byte, size), size}
}

// free gives the buffer back. One that grew is dropped.
func (b *buffer) free() {
	if cap(b.b) > b.size*2 {
		return
	}
	b.b = b.b[:cap(b.b)]
	pools[b.size].Put(b)
}

// pace is a request body being read: the sweep compares what came with the least rate. Only time
// spent waiting for the client counts, so a slow handler never makes a client look slow.
type pace struct {
	waiting atomic.Int64 // milliseconds at which the read under way began; 0: none
	waited  atomic.Int64 // milliseconds, sum of reads done
	bytes   atomic.Int64
}

func (p *pace) begin() { p.waiting.Store(time.Now().UnixMilli()) }

func (p *pace) done(n int) {
	p.waited.Add(time.Now().UnixMilli() - p.waiting.Swap(0))
	p.bytes.Add(int64(n))
}

// tooSlow says whether the body came in slower than rate bytes a second, after ten seconds of grace.
func (p *pace) tooSlow(now int64, rate int) bool {
	w := p.waiting.Load()
	if w == 0 {
		return false
	}
	spent := p.waited.Load() + now - w
	return spent > 10_000 && p.bytes.Load() < (spent-10_000)*int64(rate)/1000
}

// sweep holds the connection to the limits. It never blocks.
func (l *link) sweep(now int64) {
	cfg := &l.srv.cfg
	if w := l.wrote.Load(); w != 0 && now-w > cfg.WriteTimeout.Milliseconds() {
		l.abort()
		return
	}
	if b := l.body.Load(); b != nil && b.tooSlow(now, cfg.BodyRate) {
		l.interrupt()
		return
	}
	if two := l.two.Load(); two != nil {
		two.sweep(now)
	}
	p := l.phase.Load()
	spent := time.Duration(now-p>>3) * time.Millisecond
	switch p & 7 {
	case phaseHandshake:
		if spent > cfg.HandshakeTimeout {
			l.abort()
		}
	case phaseHead:
		if spent > cfg.HeaderTimeout {
			l.interrupt()
		}
	case phaseLinger:
		if spent > 2*time.Second {
			l.abort()
		}
	case phaseIdle:
		switch {
		case spent > cfg.IdleTimeout, l.srv.draining.Load() && spent > cfg.DrainGrace && l.two.Load() == nil:
			l.interrupt()
		case spent > nudgeAfter && l.held.Swap(false):
			l.nudged.Store(true)
			l.rw.SetReadDeadline(long)
		}
	}
}

// interrupt ends the read under way; the reader closes the connection in its own way.
func (l *link) interrupt() {
	l.late.Store(true)
	l.rw.SetReadDeadline(long)
}
