package wire

import (
	"context"
	"io"
	"runtime/debug"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// Passes answers plain requests with what comes from elsewhere while it is sent, without a net/http
// request. It is for HTTP/1.1, where a proxied request costs little else.
type Passes interface {
	// Pass is asked for a GET that Hits had no answer for and marked (Request.Mark), on the goroutine of the
	// connection, and may block. client ends when the client is gone; only its Err is to be asked, and not
	// after Done. r is good until Done.
	//
	// nil, nil: the Handler has to answer. With carried the Handler finds it by Carried, and Close is called
	// when the Handler has returned.
	Pass(r *Request, client context.Context) (p Passing, carried io.Closer)
}

// Passing is an answer under way. Its body has the length that its fields say.
type Passing interface {
	Status() int
	// Fields appends the fields, each with its CRLF, without Connection and Transfer-Encoding; dated says
	// that Date is among them.
	Fields(b []byte) (out []byte, dated bool)
	// Next gives the next part of the body, good until the next call; io.EOF, without a part, after the last.
	Next() ([]byte, error)
	// Done is called once, with the bytes of body that were sent or queued. An answer that is not whole
	// breaks its connection.
	Done(sent int64, whole bool)
}

// Carried is what Pass gave for the Handler; nil: nothing.
func Carried(ctx context.Context) any { return ctx.Value(carriedKey{}) }

type carriedKey struct{}

// pass answers with what comes from elsewhere. A short answer is written when the loop next waits, as hits
// are.
func (c *conn1) pass(p Passing) bool {
	out, dated := p.Fields(appendStatusLine(c.out, p.Status()))
	if !dated {
		out = append(out, c.srv.dates.at(time.Now()).line...)
	}
	if c.alt {
		c.alt = false
		out = append(out, c.srv.alt1...)
	}
	out = append(c.connection(out), "\r\n"...)
	var sent int64
	for {
		part, err := p.Next()
		if err != nil {
			c.out = out
			p.Done(sent, err == io.EOF)
			if err != io.EOF {
				c.flush()
				return false
			}
			if c.head.close {
				c.flush()
				return false
			}
			return true
		}
		switch {
		case len(out)+len(part) <= 4*smallBuffer:
			out = append(out, part...)
		case len(out) == 0:
			err = c.write(part)
		default:
			err = c.writeBoth(out, part)
			out = out[:0]
		}
		if err != nil {
			c.out = out[:0]
			p.Done(sent, false)
			return false
		}
		sent += int64(len(part))
	}
}

// client is a link's context as Pass gets it: it looks at the socket when it is asked, which costs a
// request nothing.
type client struct {
	context.Context
	l    *link
	once sync.Once
	fd   int // -1: not to be had
}

// Err says whether the client is gone. A client that closed its side for writing counts as gone, as it
// does while a Handler runs.
func (c *client) Err() error {
	if err := c.Context.Err(); err != nil {
		return err
	}
	c.once.Do(func() {
		c.fd = -1
		if sc, ok := c.l.raw.(syscall.Conn); ok {
			if raw, err := sc.SyscallConn(); err == nil {
				raw.Control(func(fd uintptr) { c.fd = int(fd) })
			}
		}
	})
	if c.fd < 0 {
		return nil
	}
	if err := PeekByte(uintptr(c.fd)); err == io.EOF || err == syscall.ECONNRESET {
		return context.Canceled
	}
	return nil
}

// PeekByte looks for a byte on a socket without taking it: nil, io.EOF, or the error, which is EAGAIN when
// the socket is open and silent. It never waits.
func PeekByte(fd uintptr) error {
	var b [1]byte
	n, _, e := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b)), 1, syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
	switch {
	case e != 0:
		return e
	case n == 0:
		return io.EOF
	}
	return nil
}

// passes asks Passes for the request in c.head, whose head is b; answered: it was, and ok is what next
// returns.
func (c *conn1) passes(b []byte) (ok, answered bool) {
	if c.flush() != nil {
		return false, true
	}
	if c.client == nil {
		c.client = &client{Context: c.ctx, l: c.link}
	}
	c.phase.Store(phaseBusy)
	defer func() {
		if v := recover(); v != nil {
			c.srv.cfg.Log.Error("pass panicked", "host", c.req.Host, "panic", v, "stack", string(debug.Stack()))
			ok, answered = false, true
		}
	}()
	p, carried := c.srv.cfg.Passes.Pass(&c.req, c.client)
	if p == nil {
		c.carried = carried
		return false, false
	}
	c.r += len(b)
	return c.pass(p), true
}
