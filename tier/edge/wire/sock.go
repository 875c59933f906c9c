package wire

import (
	"io"
	"net"
	"os"
	"syscall"
)

// Sock is a TCP connection that is read and written without the scheduler's knowledge. A socket that
// does not block answers within microseconds, but the scheduler does not know that of a system call: it
// keeps a watch on each, and gives the processor to another thread when one takes as long as two loopback
// packets do. Under load that is a tenth of what a proxied request costs.
//
// One goroutine may read and one may write at a time, as the loops do; Conn is for all else.
type Sock struct {
	net.Conn
	raw syscall.RawConn

	// in and what became of it are the reader's, out is the writer's; send and recv are made once so that
	// no call allocates them.
	in   []byte
	n    int
	rerr error
	recv func(fd uintptr) bool
	each func(n int) bool
	more func(fd uintptr) bool
	swap func(fd uintptr) bool
	said bool // by swap

	out, then []byte
	sent      int
	werr      error
	send      func(fd uintptr) bool
}

// NewSock makes c a Sock; nil when it is not TCP.
func NewSock(c net.Conn) *Sock {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return nil
	}
	s := &Sock{Conn: c, raw: raw}
	s.recv, s.more, s.swap, s.send = s.receive, s.receiveEach, s.exchange, s.transmit
	return s
}

// Read implements net.Conn.
func (s *Sock) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.in, s.n, s.rerr = p, 0, nil
	err := s.raw.Read(s.recv)
	s.in = nil
	if err == nil {
		err = s.rerr
	}
	return s.n, err
}

func (s *Sock) receive(fd uintptr) bool {
	n, errno := ReadNow(fd, s.in)
	switch {
	case errno == syscall.EAGAIN:
		return false
	case errno != 0:
		s.rerr = os.NewSyscallError("read", errno)
	case n == 0:
		s.rerr = io.EOF
	}
	s.n = n
	return true
}

// ReadEach reads into p and hands each that how much came, again and again until each says false, and
// returns what the last read gave. Between two reads it waits without asking the socket first: a read that
// took less than there was room for has emptied it, and what comes later is a new event. each must not read.
func (s *Sock) ReadEach(p []byte, each func(n int) bool) (int, error) {
	s.in, s.n, s.rerr, s.each = p, 0, nil, each
	err := s.raw.Read(s.more)
	s.in, s.each = nil, nil
	if err == nil {
		err = s.rerr
	}
	return s.n, err
}

func (s *Sock) receiveEach(fd uintptr) bool {
	for {
		if !s.receive(fd) {
			return false
		}
		n := s.n
		if s.rerr != nil || !s.each(n) {
			return true
		}
		if s.n = 0; n < len(s.in) {
			return false
		}
	}
}

// Exchange writes a and reads what comes then into p, as both the reader and the writer, for a peer that says nothing
// unasked: it waits without asking the socket first. Less than all of a and no error: the socket has no room for more, and nothing was read.
func (s *Sock) Exchange(a, p []byte) (sent, n int, err error) {
	s.out, s.then, s.sent, s.werr = a, nil, 0, nil
	s.in, s.n, s.rerr, s.said = p, 0, nil, false
	err = s.raw.Read(s.swap)
	s.in, s.out = nil, nil
	switch {
	case err != nil:
	case s.werr != nil:
		err = s.werr
	default:
		err = s.rerr
	}
	return s.sent, s.n, err
}

// exchange runs after the poller has been made ready for what comes: an answer is an event that it hears of.
func (s *Sock) exchange(fd uintptr) bool {
	if s.said {
		return s.receive(fd)
	}
	s.said = true
	return !s.transmit(fd) || s.werr != nil
}

// ReadNow reads what is there of a socket that does not block; EAGAIN: nothing is.
func ReadNow(fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, errno := read(fd, p)
		if errno != syscall.EINTR {
			return max(0, n), errno
		}
	}
}

// Write implements net.Conn.
func (s *Sock) Write(p []byte) (int, error) { return s.WriteBoth(p, nil) }

// WriteBoth writes a and then b, as one if the socket has room, and says how much of both was taken.
func (s *Sock) WriteBoth(a, b []byte) (int, error) {
	if len(a) == 0 {
		a, b = b, nil
	}
	s.out, s.then, s.sent, s.werr = a, b, 0, nil
	err := s.raw.Write(s.send)
	s.out, s.then = nil, nil
	if err == nil {
		err = s.werr
	}
	return s.sent, err
}

func (s *Sock) transmit(fd uintptr) bool {
	for len(s.out) > 0 {
		n, errno := write(fd, s.out, s.then)
		switch errno {
		case 0:
			s.wrote(n)
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			s.werr = os.NewSyscallError("write", errno)
			return true
		}
	}
	return true
}

// wrote takes n bytes off what is to be sent.
func (s *Sock) wrote(n int) {
	s.sent += n
	if n < len(s.out) {
		s.out = s.out[n:]
		return
	}
	s.out, s.then = s.then[n-len(s.out):], nil
}
