package wire

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// seat is a connection in a loop.
type seat struct {
	fd      int
	remote  netip.AddrPort
	began   bool     // a request was read
	closing bool     // when nothing is owed any more
	since   int64    // milliseconds of Unix time: idle since, or the piece under way is being written since
	owed    [][]byte // what the socket did not take yet
	paid    int      // bytes of the piece
}

// Hits in a row after which a connection that has a goroutine goes to a loop: often enough that the way
// there and back, a dozen system calls, is nothing beside them.
const hitsInARow = 64

// add takes a connection in.
func (p *loop) add(s *seat) {
	for s.fd >= len(p.seats) {
		p.seats = append(p.seats, make([]*seat, max(64, len(p.seats)))...)
	}
	p.seats[s.fd] = s
	s.since = time.Now().UnixMilli()
	if p.watch(s.fd, seatEvents) != nil {
		p.end(s)
	}
}

// event answers what came from a seat as long as it is hits.
func (p *loop) event(s *seat, events uint32) {
	if len(s.owed) > 0 && !p.pay(s) {
		return
	}
	c := p.hand
	p.at, p.broken = s, false
	c.began, c.req.Remote = s.began, s.remote
	for {
		n, errno := ReadNow(uintptr(s.fd), c.in)
		if errno == syscall.EAGAIN {
			return
		}
		if errno != 0 || n == 0 {
			p.end(s)
			return
		}
		whole := c.turn(n)
		s.began = c.began
		if !whole {
			p.odd(s)
			return
		}
		if len(s.owed) > 0 {
			return
		}
		s.since = c.phase.Load() >> 3
		if n < len(c.in) && events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) == 0 {
			return // it has been emptied, and what comes later is a new event
		}
	}
}

// odd is what becomes of a seat after a turn that ended otherwise than in waiting.
func (p *loop) odd(s *seat) {
	c := p.hand
	ended := c.ended
	c.ended, c.missed = false, false
	switch {
	case p.broken:
		p.end(s)
	case !ended || c.r < c.w: // what a client sends after its last request is read, or the close destroys the answer
		p.leave(s, ended)
	case len(s.owed) > 0:
		s.closing = true
	default:
		p.end(s)
	}
	c.out = c.out[:0]
}

// put writes for the seat that has its turn. What the socket does not take is owed: a copy of a, which is
// the loop's buffer, and b itself, which is a stored response's.
func (p *loop) put(now time.Time, a, b []byte) error {
	s := p.at
	for len(s.owed) == 0 && len(a)+len(b) > 0 {
		if len(a) == 0 {
			a, b = b, nil
		}
		n, errno := write(uintptr(s.fd), a, b)
		switch {
		case errno == 0:
			m := min(n, len(a))
			a, b = a[m:], b[n-m:]
			continue
		case errno == unix.EINTR:
			continue
		case errno != unix.EAGAIN:
			p.broken = true
			return os.NewSyscallError("write", errno)
		}
		break
	}
	if len(a)+len(b) == 0 {
		return nil
	}
	if len(s.owed) == 0 {
		s.since, s.paid = now.UnixMilli(), 0
	}
	if len(a) > 0 {
		s.owed = append(s.owed, bytes.Clone(a))
	}
	if len(b) > 0 {
		s.owed = append(s.owed, b)
	}
	return nil
}

// pay writes what is owed; false: there is still some, or the connection is closed.
func (p *loop) pay(s *seat) bool {
	for len(s.owed) > 0 {
		n, errno := write(uintptr(s.fd), s.owed[0], nil)
		switch errno {
		case 0:
			if s.owed[0] = s.owed[0][n:]; len(s.owed[0]) == 0 {
				s.owed = s.owed[1:]
			}
			if s.paid += n; s.paid >= piece {
				s.since, s.paid = time.Now().UnixMilli(), 0
			}
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			p.end(s)
			return false
		}
	}
	s.owed = nil
	if s.closing {
		p.end(s)
		return false
	}
	s.since = time.Now().UnixMilli()
	return true
}

// end closes a seat.
func (p *loop) end(s *seat) {
	p.seats[s.fd] = nil
	unix.Close(s.fd)
	p.srv.mu.Lock()
	p.srv.seated--
	p.srv.tellEmpty()
	p.srv.mu.Unlock()
}

// leave gives the seat that has its turn a goroutine, with what was read and what is still to be written.
func (p *loop) leave(s *seat, ended bool) {
	c := p.hand
	p.seats[s.fd] = nil
	unix.EpollCtl(p.poll, unix.EPOLL_CTL_DEL, s.fd, nil)
	if len(c.out) > 0 {
		s.owed = append(s.owed, bytes.Clone(c.out))
	}
	rest := bytes.Clone(c.in[c.r:c.w])
	p.srv.running.Add(1)
	go p.srv.resume(s, rest, ended)
}

// resume serves a connection that left its loop, from what was read of it on.
func (s *Server) resume(from *seat, rest []byte, ended bool) {
	defer s.running.Done()
	raw, err := s.connOf(from.fd)
	if err != nil {
		s.cfg.Log.Warn("serve connection", "remote", from.remote, "err", err)
	}
	l := &link{srv: s, raw: raw, rw: raw, remote: from.remote, remoteText: from.remote.String(), began: from.began}
	s.mu.Lock()
	s.seated--
	if err != nil || s.closed {
		s.tellEmpty()
		s.mu.Unlock()
		if raw != nil {
			raw.Close()
		}
		return
	}
	s.links[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		if !l.kept.Load() {
			l.end(false)
		}
	}()
	for _, b := range from.owed {
		if l.write(b) != nil {
			return
		}
	}
	if ended {
		l.end(true)
		return
	}
	l.enter(phaseHead, time.Now())
	l.begin(false, rest)
}

// connOf makes a connection of Go's of a descriptor, which is its from then on. At the limit of open files
// the spare one is given up for the moment in which there are two.
func (s *Server) connOf(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "connection")
	defer f.Close()
	c, err := net.FileConn(f)
	if err == nil || !outOfFiles(err) {
		return c, err
	}
	s.refusing.Lock()
	defer s.refusing.Unlock()
	if s.spare == nil {
		return nil, err
	}
	s.spare.Close()
	c, err = net.FileConn(f)
	f.Close()
	s.spare, _ = os.Open(os.DevNull)
	return c, err
}

// sit gives a connection that idles, and has nothing buffered, to a loop. false: it cannot be, and goes on
// as it is.
func (l *link) sit() bool {
	s := l.srv
	if l.sock == nil || l.kept.Load() || len(s.loops) == 0 {
		return false
	}
	fd, err := duplicate(l.sock.raw)
	if err != nil {
		return false
	}
	l.gone.Do(func() {
		s.mu.Lock()
		delete(s.links, l)
		s.seated++
		s.mu.Unlock()
		l.raw.Close()
	})
	s.seat(&seat{fd: fd, remote: l.remote, began: l.began})
	return true
}

// seat hands a connection to a loop. It is among those that count already.
func (s *Server) seat(c *seat) {
	p := s.loops[int(s.next.Add(1))%len(s.loops)]
	if !p.do(func() { p.add(c) }) {
		unix.Close(c.fd)
		s.mu.Lock()
		s.seated--
		s.tellEmpty()
		s.mu.Unlock()
	}
}
