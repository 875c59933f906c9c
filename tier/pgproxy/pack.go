package pgproxy

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"

	"tenfold/internal/uring"
)

// Where the kernel has io_uring, a round of the loop receives from all sockets that have something by one
// system call, looks through it, and sends all that came of it by another. A call of its own for each costs
// more than all else that the pool does for a query (docs/bench/database.md). Without it, and for much at once,
// calls are made where they arise.

const (
	// batchSize is how many sockets are heard, or sent to, at once.
	batchSize = 64
	// hearSize is what one of several sockets may bring in a round: queries and short answers. One that has a
	// part of a message kept is read by itself, into more.
	hearSize = 8 << 10
	// batchBytes is what may be kept for clients until the end of a round.
	batchBytes = 64 << 10
)

// pack is what the loop has to receive and send together.
type pack struct {
	ring  *uring.Ring // nil: the kernel has none
	room  [][]byte
	heard [batchSize]heard
	sends []sending
	text  []byte    // for clients
	lost  []*server // the connection broke when it was sent to
}

// heard is what came of a receive.
type heard struct {
	data  []byte
	errno syscall.Errno
	did   bool // it was made; else the socket is to be read
}

// sending is what a socket is to get at the end of the round: text[from:to] for a client, all that is kept for
// a server. Both nil: it was sent before.
type sending struct {
	c        *client
	s        *server
	from, to int
	sent     int
	failed   bool
}

func (l *loop) openPack() {
	r, err := uring.New(batchSize)
	if err != nil {
		l.log.Debug("one system call for each message", "database", l.db.ID, "err", err)
		return
	}
	l.pack.ring = r
	all := make([]byte, batchSize*hearSize)
	for i := range batchSize {
		l.pack.room = append(l.pack.room, all[i*hearSize:(i+1)*hearSize:(i+1)*hearSize])
	}
}

func (l *loop) closePack() {
	if l.pack.ring != nil {
		l.pack.ring.Close()
		l.pack.ring = nil
	}
}

// failPack gives the ring up: calls are made one by one from now on.
func (l *loop) failPack(err error) {
	l.log.Error("the kernel's ring failed: one system call for each message from now on", "database", l.db.ID, "err", err)
	l.closePack()
}

// hear receives together for the events, at most batchSize, what can be.
func (l *loop) hear(events []unix.EpollEvent) {
	b := &l.pack
	for i := range events {
		b.heard[i] = heard{}
	}
	if b.ring == nil || len(events) < 2 {
		return
	}
	for i := range events {
		e := &events[i]
		fd := int(e.Fd)
		if e.Events&unix.EPOLLIN == 0 || fd >= len(l.conns) || l.conns[fd].gen != uint32(e.Pad) {
			continue
		}
		if c := l.conns[fd].client; c != nil && (c.tls != nil || c.silent || len(c.in) > 0 || c.phase != phaseReady) {
			continue
		} else if s := l.conns[fd].server; s != nil && (s.silent || len(s.in) > 0) || c == nil && s == nil {
			continue
		}
		b.heard[i].did = true
		b.ring.Recv(fd, b.room[i])
	}
	if b.ring.Len() == 0 {
		return
	}
	err := b.ring.Do()
	made := 0
	for i := range events {
		h := &b.heard[i]
		switch {
		case !h.did:
		case err != nil:
			h.errno = unix.EIO // what was received is lost with the ring, so the connection is, too
		default:
			var n int
			n, h.errno = b.ring.Result(made)
			h.data = b.room[i][:n]
			made++
		}
	}
	if err != nil {
		l.failPack(err)
	}
}

// receive is what a socket has: heard already, or read into buf now.
func (h *heard) receive(fd int, buf []byte) ([]byte, syscall.Errno) {
	if h.did {
		return h.data, h.errno
	}
	n, errno := recv(fd, buf)
	return buf[:max(0, n)], errno
}

// later keeps what a client is to get until the end of the round; false: it is to be sent now.
func (l *loop) later(c *client, text []byte) bool {
	b := &l.pack
	if b.ring == nil {
		return false
	}
	if c.phase != phaseReady || len(b.text)+len(text) > batchBytes {
		l.sooner(c)
		return false
	}
	if c.queued > 0 {
		e := &b.sends[c.queued-1]
		if e.to != len(b.text) {
			l.sooner(c)
			return false
		}
		b.text = append(b.text, text...)
		e.to = len(b.text)
		return true
	}
	from := len(b.text)
	b.text = append(b.text, text...)
	b.sends = append(b.sends, sending{c: c, from: from, to: len(b.text)})
	c.queued = len(b.sends)
	return true
}

// sooner sends what was kept for a client, before something that does not wait.
func (l *loop) sooner(c *client) {
	if c.queued == 0 {
		return
	}
	e := &l.pack.sends[c.queued-1]
	c.queued, e.c = 0, nil
	l.putNow(c, l.pack.text[e.from:e.to])
}

// laterServer has a server get what is kept for it at the end of the round; false: it is to be sent now.
func (l *loop) laterServer(s *server) bool {
	b := &l.pack
	if b.ring == nil || len(s.out) > batchBytes {
		return false
	}
	if !s.queued {
		s.queued = true
		b.sends = append(b.sends, sending{s: s})
	}
	return true
}

// deliver sends what is kept. What a connection that broke entails comes after all else: it may say
// something to those who are in the list.
func (l *loop) deliver() {
	b := &l.pack
	for len(b.sends) > 0 {
		for at := 0; at < len(b.sends); at += batchSize {
			l.deliverSome(b.sends[at:min(at+batchSize, len(b.sends))])
		}
		for i := range b.sends {
			if e := &b.sends[i]; e.failed && e.s != nil {
				b.lost = append(b.lost, e.s)
			}
		}
		clear(b.sends)
		b.sends, b.text = b.sends[:0], b.text[:0]
		for _, s := range b.lost {
			l.lose(s, errors.New("the server hung up"))
		}
		clear(b.lost)
		b.lost = b.lost[:0]
	}
}

func (l *loop) deliverSome(sends []sending) {
	b := &l.pack
	together := b.ring != nil && len(sends) > 1
	for i := range sends {
		e := &sends[i]
		fd, text := -1, []byte(nil)
		if e.c != nil {
			e.c.queued = 0
			fd, text = e.c.fd, b.text[e.from:e.to]
		} else if e.s != nil {
			e.s.queued = false
			if !e.s.closing { // its descriptor may be another's
				fd, text = e.s.fd, e.s.out
			}
		}
		if len(text) == 0 {
			e.c, e.s = nil, nil
			continue
		}
		if together {
			b.ring.Send(fd, text)
		} else {
			e.sent, e.failed = sendAll(fd, text)
		}
	}
	var err error
	if together {
		err = b.ring.Do()
	}
	made := 0
	for i := range sends {
		e := &sends[i]
		if e.c == nil && e.s == nil {
			continue
		}
		switch {
		case err != nil:
			e.failed = true // nobody knows what was sent
		case together:
			var errno syscall.Errno
			e.sent, errno = b.ring.Result(made)
			e.failed = errno != 0 && errno != unix.EAGAIN && errno != unix.EINTR
			made++
		}
		switch {
		case e.failed && e.c != nil:
			unix.Shutdown(e.c.fd, unix.SHUT_RDWR) // what comes next would follow on a gap; reading ends it
		case e.failed: // deliver ends it
		case e.c != nil:
			l.putRest(e.c, b.text[e.from+e.sent:e.to])
		default:
			l.accepted(e.s, e.sent)
		}
	}
	if err != nil {
		l.failPack(err)
	}
}
