package wire

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// eventsAtOnce are taken from the kernel by one call.
	eventsAtOnce = 256
	// loopBuffer is what a loop reads into, for all its connections: one that idles has no buffer.
	loopBuffer = 16 << 10
	seatEvents = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET
)

// A loop answers hits of plain HTTP/1.1 connections, each as it comes: a connection there is a seat, with
// no goroutine and no buffer. What is no hit, or not whole, leaves the loop with what was read of it for a
// goroutine of its own (resume), and comes back when it idles or is hits again (sit).
//
// The goroutine of a connection must be parked and woken for each hit, which is most of what a hit costs
// beside the kernel's part. Seats have an epoll of their own, and that epoll is the one thing of them that
// Go's poller knows of: the loop's goroutine is woken for as many hits as came meanwhile. Two designs
// lost. A thread that waits in epoll itself keeps its P from the others until the runtime notices. And a
// loop that asks its epoll until nothing is there never lets a single P look for what else came; so it
// waits after each batch, and Go's poller, asked then, gives it and the others their turns.
//
// One goroutine owns all of it but mail. Others hand in what is to be done by do.
type loop struct {
	srv    *Server
	file   *os.File // the epoll, as Go's poller knows it
	raw    syscall.RawConn
	poll   int
	seats  []*seat // by descriptor
	events [eventsAtOnce]unix.EpollEvent
	hand   *conn1 // answers for the seat that has its turn
	at     *seat  // that one
	broken bool   // its connection

	mu   sync.Mutex
	bell int      // eventfd, -1 after the end; under mu
	mail []func() // under mu
}

func newLoop(s *Server) (*loop, error) {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open loop: %w", err)
	}
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(poll)
		return nil, fmt.Errorf("open loop: %w", err)
	}
	unix.SetNonblock(poll, true) // or Go's poller does not take it
	p := &loop{srv: s, poll: poll, bell: bell, file: os.NewFile(uintptr(poll), "loop")}
	p.raw, err = p.file.SyscallConn()
	if err == nil {
		err = p.watch(bell, unix.EPOLLIN|unix.EPOLLET)
	}
	if err == nil {
		// Go's poller has it only if deadlines work.
		err = p.file.SetReadDeadline(time.Time{})
	}
	if err != nil {
		unix.Close(bell)
		p.file.Close()
		return nil, fmt.Errorf("open loop: %w", err)
	}
	l := &link{srv: s, loop: p}
	p.hand = &conn1{link: l, work: &work{in: make([]byte, loopBuffer), out: make([]byte, 0, smallBuffer), fields: make([]Field, 0, 24)}}
	p.hand.req.Major = 1
	return p, nil
}

func (p *loop) watch(fd int, events uint32) error {
	return unix.EpollCtl(p.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

// do has fn run by the loop. false: it has ended.
func (p *loop) do(fn func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bell < 0 {
		return false
	}
	if p.mail = append(p.mail, fn); len(p.mail) == 1 {
		p.ring()
	}
	return true
}

// ring wakes the loop. It is never answered: each ring is an event of its own. Under mu, or the loop's.
func (p *loop) ring() {
	one := [8]byte{1}
	unix.Write(p.bell, one[:])
}

func (p *loop) readMail() {
	p.mu.Lock()
	mail := p.mail
	p.mail = nil
	p.mu.Unlock()
	for _, fn := range mail {
		fn()
	}
}

// run serves until the file is closed, then closes all seats.
func (p *loop) run() {
	err := p.raw.Read(p.batch)
	if p.srv.ctx.Err() == nil {
		p.srv.cfg.Log.Error("wait for connections", "err", err)
	}
	p.mu.Lock()
	unix.Close(p.bell)
	p.bell = -1
	p.mu.Unlock()
	p.poll = -1  // closed, and may be another's
	p.readMail() // connections that were to come
	for _, s := range p.seats {
		if s != nil {
			p.end(s)
		}
	}
}

// batch handles what came. It gives false, which is to wait: an event since the last call to epoll_wait
// wakes it at once, after the others that have been waiting.
func (p *loop) batch(uintptr) bool {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.poll), uintptr(unsafe.Pointer(&p.events[0])), eventsAtOnce, 0, 0, 0)
	if errno != 0 {
		if errno == unix.EINTR {
			p.ring()
		}
		return false
	}
	for i := range p.events[:n] {
		e := &p.events[i]
		fd := int(e.Fd)
		if fd == p.bell {
			p.readMail()
			continue
		}
		// A descriptor that was closed and opened again since is asked in vain, and no more.
		if fd < len(p.seats) && p.seats[fd] != nil {
			p.event(p.seats[fd], e.Events)
		}
	}
	if n == eventsAtOnce {
		p.ring() // there may be more, which raise no other event
	}
	return false
}

// sweep holds the seats to the limits.
func (p *loop) sweep(now int64) {
	cfg := &p.srv.cfg
	idle := cfg.IdleTimeout
	if p.srv.draining.Load() {
		idle = min(idle, cfg.DrainGrace)
	}
	for _, s := range p.seats {
		switch {
		case s == nil:
		case len(s.owed) > 0:
			if now-s.since > cfg.WriteTimeout.Milliseconds() {
				p.end(s)
			}
		case now-s.since > idle.Milliseconds():
			before := s.since
			p.event(s, 0) // what came in this moment is answered
			if p.seats[s.fd] == s && s.since == before {
				p.end(s)
			}
		}
	}
}
