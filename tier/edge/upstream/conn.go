package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tenfold/tier/edge/wire"
)

// Sizes of buffers. A connection keeps bufferSize while it idles; longer bodies borrow.
const (
	bufferSize = 8 << 10
	borrowSize = 64 << 10
)

var borrowed = sync.Pool{New: func() any { b := make([]byte, borrowSize); return &b }}

// waiter is told before a read that would wait, and gives the silence that is allowed.
type waiter interface {
	waits() (silence time.Duration, err error)
}

// conn is a connection to a task. One request at a time owns it; between requests the pool does.
type conn struct {
	net.Conn
	ep   *endpoint
	sock *wire.Sock      // Conn, as it is read and written; nil when it is not a socket
	raw  syscall.RawConn // nil when the connection is not a socket
	fd   uintptr         // of the socket; good while the connection is open, and only its owner closes it
	buf  []byte
	own  []byte // buf while nothing is borrowed
	lent *[]byte
	r, w int    // buf[r:w] is read and not yet used
	out  []byte // what heads are written in
	head head
	watch
	since    int64  // when it became idle
	used     int    // requests before this one
	sent     uint64 // bytes before this request
	out64    uint64 // bytes of this request
	asked    int64  // clock when this request went out
	answered bool   // a head of any kind came for this request

	// Results of try, which is made once so that no request allocates it.
	n   int
	err error
	try func(uintptr) bool
}

func newConn(nc net.Conn, ep *endpoint) *conn {
	c := &conn{Conn: nc, ep: ep}
	c.own = make([]byte, bufferSize)
	c.buf = c.own
	c.kill = func() { nc.SetDeadline(time.Unix(1, 0)) }
	c.sock = wire.NewSock(nc)
	if sc, ok := nc.(syscall.Conn); ok {
		if c.raw, _ = sc.SyscallConn(); c.raw != nil {
			c.raw.Control(func(fd uintptr) { c.fd = fd })
		}
	}
	c.try = func(fd uintptr) bool {
		var errno syscall.Errno
		if c.n, errno = wire.ReadNow(fd, c.buf[c.w:]); errno != 0 {
			c.err = errno
		} else {
			c.err = nil
		}
		return true
	}
	return c
}

// alive says that an idle connection was not closed and carries no byte that nobody asked for.
func (c *conn) alive() bool {
	return c.raw == nil || wire.PeekByte(c.fd) == syscall.EAGAIN
}

// Write sends, and counts what was handed to the kernel.
func (c *conn) Write(p []byte) (int, error) {
	var n int
	var err error
	if c.sock != nil {
		n, err = c.sock.Write(p)
	} else {
		n, err = c.Conn.Write(p)
	}
	c.out64 += uint64(n)
	return n, err
}

// ask sends what is in out on a connection that idled, and reads what comes first.
func (c *conn) ask() error {
	rest := c.out
	if c.sock != nil {
		c.r, c.w = 0, 0
		sent, n, err := c.sock.Exchange(c.out, c.buf)
		c.out64 += uint64(sent)
		if c.w = n; err != nil || sent == len(c.out) {
			return err
		}
		rest = c.out[sent:]
	}
	_, err := c.Write(rest)
	return err
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	if c.sock != nil {
		return c.sock.Read(p)
	}
	return c.Conn.Read(p)
}

// unseen proves, after the task closed a connection without an answer, that it read nothing of the
// request: the other side's FIN was sent before a byte of the request reached its kernel. A
// reset proves nothing, since it acknowledges nothing. This makes even a POST good for another try. (A
// task that ended its own side alone, and reads on, could never answer.)
func (c *conn) unseen(err error) bool {
	if c.raw == nil || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EPIPE) {
		return false
	}
	var acked uint64
	ok := false
	cerr := c.raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			acked, ok = info.Bytes_acked, true
		}
	})
	return cerr == nil && ok && acked <= c.sent+1 // one more: the SYN may count
}

// fill reads once, at least one byte, into the buffer behind what is there.
func (c *conn) fill(idle waiter) error {
	if c.r == c.w {
		c.r, c.w = 0, 0
	} else if c.w == len(c.buf) {
		c.room()
	}
	if idle != nil {
		if c.raw != nil {
			if err := c.raw.Read(c.try); err != nil {
				return c.why(err)
			}
			if c.n > 0 {
				c.w += c.n
				return nil
			}
			if c.err == nil {
				return io.EOF
			}
			if c.err != syscall.EAGAIN {
				return c.why(c.err)
			}
		}
		silence, err := idle.waits()
		if err != nil {
			return err
		}
		c.expect(silence, ErrSilent)
	}
	n, err := c.Read(c.buf[c.w:])
	c.w += n
	if idle != nil {
		c.expect(0, nil)
	}
	if n > 0 {
		return nil
	}
	return c.why(err)
}

// why gives the reason of an error: the watch's, when that ended the request.
func (c *conn) why(err error) error {
	if cause := c.cause(); cause != nil {
		return cause
	}
	return err
}

// room makes place behind what is buffered.
func (c *conn) room() {
	if c.r > 0 {
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
		return
	}
	c.buf = append(c.buf, make([]byte, len(c.buf))...)
}

// enlarge borrows a larger buffer for a long body. Nothing must be buffered.
func (c *conn) enlarge() {
	if c.lent == nil && len(c.buf) < borrowSize {
		c.lent = borrowed.Get().(*[]byte)
		c.buf, c.r, c.w = *c.lent, 0, 0
	}
}

// spread borrows a larger buffer for what is buffered and what is still to come.
func (c *conn) spread() {
	if c.lent != nil || len(c.buf) >= borrowSize {
		return
	}
	from := c.buf[c.r:c.w]
	c.lent = borrowed.Get().(*[]byte)
	c.buf = *c.lent
	c.r, c.w = 0, copy(c.buf, from)
}

// restore gives back what was borrowed and forgets what was grown. Nothing must be buffered.
func (c *conn) restore() {
	if c.lent != nil {
		borrowed.Put(c.lent)
		c.lent = nil
	}
	c.buf, c.r, c.w = c.own, 0, 0
	if cap(c.out) > bufferSize {
		c.out = nil
	}
}

// readHead reads one head into c.head. io.EOF means that the task closed before the first byte.
func (c *conn) readHead() error {
	if c.r > 0 {
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	}
	for line, scan := 0, 0; ; {
		i := bytes.IndexByte(c.buf[scan:c.w], '\n')
		if i < 0 {
			if scan = c.w; scan > maxHead {
				return errMalformed("head too large")
			}
			if scan > 7 && string(c.buf[:7]) != "HTTP/1." {
				return errMalformed("not HTTP/1")
			}
			if err := c.fill(nil); err != nil {
				if c.w > 0 {
					err = unexpected(err)
				}
				return err
			}
			continue
		}
		if i += scan; i == 0 || c.buf[i-1] != '\r' {
			return errMalformed("bare LF")
		}
		if i-1 == line {
			if i >= maxHead {
				return errMalformed("head too large")
			}
			c.r = i + 1
			return c.head.parse(string(c.buf[:c.r]))
		}
		line, scan = i+1, i+1
	}
}

// revive makes a connection usable again whose deadline for 100 Continue passed.
func (c *conn) revive(ctx context.Context, limit time.Duration) error {
	c.end()
	if err := c.SetDeadline(time.Time{}); err != nil {
		return err
	}
	c.begin(ctx, limit)
	return nil
}

// dial opens a connection to a task.
func dial(ctx context.Context, ep *endpoint) (*conn, error) {
	nc, err := dialer.DialContext(ctx, "tcp", ep.addr)
	if err != nil {
		return nil, err
	}
	return newConn(nc, ep), nil
}

var dialer = net.Dialer{Timeout: 2 * time.Second, KeepAlive: -1}

// discard closes a connection for good.
func (c *conn) discard() {
	c.watch.stop()
	c.Conn.Close()
	c.restore()
}
