package wire

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Wrapper is a listener that makes something else of some of a socket's connections. What it does not
// want, a loop may have as it is.
type Wrapper interface {
	// Under is the listener below.
	Under() net.Listener
	// Wants says whether a connection of that address is to be wrapped.
	Wants(peer netip.AddrPort) bool
	// Wrap wraps it.
	Wrap(net.Conn) net.Conn
}

// bare accepts connections of a listener without Go's poller knowing of them: it would wake a thread for
// each event. The listener it does know, by a descriptor of its own: net's does not let one wait.
type bare struct {
	net.Listener
	srv  *Server
	file *os.File
	raw  syscall.RawConn
	wrap Wrapper // nil: there is none
	fd   int
	from unix.Sockaddr
	err  error
}

// bareOf looks for a socket below l; nil: there is none, or nothing for loops to answer.
func (s *Server) bareOf(l net.Listener) *bare {
	if s.cfg.Hits == nil {
		return nil
	}
	b := &bare{Listener: l, srv: s}
	if b.wrap, _ = l.(Wrapper); b.wrap != nil {
		l = b.wrap.Under()
	}
	t, ok := l.(*net.TCPListener)
	if !ok {
		return nil
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return nil
	}
	fd, err := duplicate(raw)
	if err != nil {
		return nil
	}
	b.file = os.NewFile(uintptr(fd), "listener")
	if b.raw, err = b.file.SyscallConn(); err != nil {
		b.file.Close()
		return nil
	}
	return b
}

// duplicate gives another descriptor for the same socket.
func duplicate(raw syscall.RawConn) (fd int, err error) {
	if e := raw.Control(func(of uintptr) { fd, err = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
		return -1, e
	}
	return fd, err
}

// Close implements net.Listener.
func (b *bare) Close() error { return errors.Join(b.file.Close(), b.Listener.Close()) }

// accept waits for a connection and hands it on.
func (b *bare) accept() error {
	b.err = nil
	if b.raw.Read(b.try) != nil {
		return net.ErrClosed // there is no deadline
	}
	if b.err != nil {
		return b.err
	}
	peer := addrOf(b.from)
	if b.wrap != nil && b.wrap.Wants(peer) {
		c, err := b.srv.connOf(b.fd)
		if err != nil {
			return err
		}
		b.srv.accept(b.wrap.Wrap(c), false)
		return nil
	}
	// As package net has it.
	for _, o := range [...][3]int{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}, {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15}, {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15}, {unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9},
	} {
		unix.SetsockoptInt(b.fd, o[0], o[1], o[2])
	}
	s := b.srv
	s.mu.Lock()
	if s.closed || s.full() {
		s.mu.Unlock()
		unix.SetsockoptLinger(b.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		unix.Close(b.fd)
		return nil
	}
	s.seated++
	s.mu.Unlock()
	s.seat(&seat{fd: b.fd, remote: peer})
	return nil
}

func (b *bare) try(fd uintptr) bool {
	for {
		var err error
		b.fd, b.from, err = unix.Accept4(int(fd), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case err == unix.EAGAIN:
			return false
		case err == unix.EINTR, err == unix.ECONNABORTED:
			continue
		case err != nil:
			b.err = os.NewSyscallError("accept4", err)
		}
		return true
	}
}

// addrOf is a peer's address as package net has it.
func addrOf(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(a.Addr).Unmap()
		if a.ZoneId != 0 && ip.Is6() {
			if i, err := net.InterfaceByIndex(int(a.ZoneId)); err == nil {
				ip = ip.WithZone(i.Name)
			}
		}
		return netip.AddrPortFrom(ip, uint16(a.Port))
	}
	return netip.AddrPort{}
}

// outOfFiles says that there is no descriptor to be had.
func outOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// openLoops makes the loops, one for each processor. Under s.mu.
func (s *Server) openLoops() {
	if s.cfg.Hits == nil {
		return
	}
	for range runtime.GOMAXPROCS(0) {
		p, err := newLoop(s)
		if err != nil {
			s.cfg.Log.Warn("serve with goroutines alone", "err", err)
			return
		}
		s.loops = append(s.loops, p)
		s.running.Go(p.run)
	}
}
