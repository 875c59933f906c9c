package quic

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// Socket is one process's hold on a UDP socket that several share while one hands over to the next.
//
// The kernel gives each packet to whoever reads first, so each process puts a mark of its own into
// the connection ids that it gives out (RFC 9000 §5.1, as QUIC-LB does for balancers), and passes on
// what carries another's mark, by a unix socket that the other reads. First packets carry an id that
// the client made up; they are for any reader that has not retired. What passes between processes
// keeps its sender's address and control messages; answers go out by the shared socket.
type Socket struct {
	*net.UDPConn
	raw   syscall.RawConn
	batch *ipv4.PacketConn
	dir   string
	mark  mark
	inbox *net.UnixConn

	mu      sync.Mutex
	passed  []passedOn // by others, not yet read
	more    chan struct{}
	leaving bool // first packets are for the others
	retired bool
	stopped bool // by SetReadDeadline
	reading sync.WaitGroup
	thrown  atomic.Int64 // first packets while leaving
}

// mark is the beginning of all connection ids of one process.
type mark [2]byte

const (
	idLen      = 8
	mostPassed = 1024 // packets that wait to be read; beyond, they are lost, as packets may be
	socketName = "quic-%s.sock"
)

// passedOn is a packet that another process has read.
type passedOn struct {
	from *net.UDPAddr
	oob  []byte
	data []byte
}

// Share takes hold of a UDP socket. Processes that share it name the same folder, where their unix
// sockets lie: a folder that only they can write to, with a path of at most 80 bytes.
func Share(u *net.UDPConn, dir string) (*Socket, error) {
	raw, err := u.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("share UDP socket: %w", err)
	}
	s := &Socket{UDPConn: u, raw: raw, batch: ipv4.NewPacketConn(u), dir: dir, more: make(chan struct{}, 1)}
	for range 64 {
		rand.Read(s.mark[:])
		s.inbox, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.path(s.mark), Net: "unixgram"})
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("share UDP socket: %w", err)
	}
	os.Chmod(s.path(s.mark), 0o600)
	s.inbox.SetReadBuffer(1 << 20)
	s.reading.Go(s.take)
	return s, nil
}

func (s *Socket) path(m mark) string {
	return filepath.Join(s.dir, fmt.Sprintf(socketName, hex.EncodeToString(m[:])))
}

// Close lets go of the socket.
func (s *Socket) Close() error {
	os.Remove(s.path(s.mark))
	err := errors.Join(s.inbox.Close(), s.UDPConn.Close())
	s.reading.Wait()
	return err
}

// Others says whether another process holds the socket too. It removes what dead ones left.
func (s *Socket) Others() bool {
	all, _ := filepath.Glob(filepath.Join(s.dir, fmt.Sprintf(socketName, "*")))
	found := false
	for _, path := range all {
		if path == s.path(s.mark) {
			continue
		}
		c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			if errors.Is(err, syscall.ECONNREFUSED) {
				os.Remove(path)
			}
			continue
		}
		c.Close()
		found = true
	}
	return found
}

// Leave takes no new clients any more: their first packets are thrown away, so that the copies that they
// send again meet the process that comes next, which may not be there yet. When it is, until ctx ends,
// the socket is its own, and what it passes on still comes.
func (s *Socket) Leave(ctx context.Context) {
	s.mu.Lock()
	s.leaving = true
	s.mu.Unlock()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !s.Others() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	s.retire()
}

// retire stops reading from the shared socket.
func (s *Socket) retire() {
	s.mu.Lock()
	s.retired = true
	s.mu.Unlock()
	s.UDPConn.SetReadDeadline(time.Unix(1, 0))
}

// GenerateConnectionID implements quic.ConnectionIDGenerator.
func (s *Socket) GenerateConnectionID() (quic.ConnectionID, error) {
	b := make([]byte, idLen)
	copy(b, s.mark[:])
	rand.Read(b[len(s.mark):])
	return quic.ConnectionIDFromBytes(b), nil
}

// ConnectionIDLen implements quic.ConnectionIDGenerator.
func (s *Socket) ConnectionIDLen() int { return idLen }

// SetReadDeadline is for quic-go's Transport, which interrupts its reading by it.
func (s *Socket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = !t.IsZero()
	s.wake()
	if s.retired || s.stopped {
		t = time.Unix(1, 0)
	}
	return s.UDPConn.SetReadDeadline(t)
}

// wake has a reader look at what changed. Under s.mu.
func (s *Socket) wake() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// ReadBatch reads packets that are for this process, at least one. It is called by one goroutine.
func (s *Socket) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	for {
		s.mu.Lock()
		if s.stopped {
			s.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		}
		if n := s.hand(ms); n > 0 {
			s.mu.Unlock()
			return n, nil
		}
		retired := s.retired
		if !retired {
			s.UDPConn.SetReadDeadline(time.Time{}) // whoever has news from here on interrupts the read
		}
		s.mu.Unlock()
		if retired {
			<-s.more
			continue
		}
		n, err := s.batch.ReadBatch(ms, flags)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return n, err
		}
		if n = s.sort(ms[:n]); n > 0 {
			return n, nil
		}
	}
}

// hand gives what was passed on. Under s.mu.
func (s *Socket) hand(ms []ipv4.Message) int {
	n := min(len(ms), len(s.passed))
	for i, p := range s.passed[:n] {
		m := &ms[i]
		m.N, m.NN, m.Flags, m.Addr = copy(m.Buffers[0], p.data), copy(m.OOB, p.oob), 0, p.from
	}
	s.passed = slices.Delete(s.passed, 0, n)
	return n
}

// sort keeps the packets that are for this process at the front, and passes on the others.
func (s *Socket) sort(ms []ipv4.Message) int {
	s.mu.Lock()
	leaving := s.leaving
	s.mu.Unlock()
	kept := 0
	for i := range ms {
		m := &ms[i]
		if leaving && first(m.Buffers[0][:m.N], s.mark) {
			s.thrown.Add(1)
			continue
		}
		if to, ok := addressee(m.Buffers[0][:m.N]); ok && to != s.mark && s.pass(to, m) {
			continue
		}
		if kept != i { // copied, not swapped: quic-go knows whose buffer is at which place
			to := &ms[kept]
			to.N, to.NN, to.Flags, to.Addr = copy(to.Buffers[0], m.Buffers[0][:m.N]), copy(to.OOB, m.OOB[:m.NN]), m.Flags, m.Addr
		}
		kept++
	}
	return kept
}

// first says that a packet begins a connection: Initial or 0-RTT of version 1 or 2 (RFC 9000 §17.2, RFC
// 9369 §3.2), to an id that is not of mark.
func first(p []byte, of mark) bool {
	if len(p) < 6 || p[0]&0x80 == 0 {
		return false
	}
	if to, ok := addressee(p); ok && to == of {
		return false
	}
	kind := p[0] >> 4 & 3
	if binary.BigEndian.Uint32(p[1:]) == 0x6b3343cf { // version 2 counts from one
		kind = (kind + 3) & 3
	}
	return kind < 2
}

// addressee reads the mark of the process that a packet is for (RFC 8999 §5). A long header may have
// an id that the client made up.
func addressee(p []byte) (m mark, ok bool) {
	switch {
	case len(p) < 1:
		return m, false
	case p[0]&0x80 == 0:
		p = p[1:]
	case len(p) < 6 || p[5] != idLen:
		return m, false
	default:
		p = p[6:]
	}
	if len(p) < idLen {
		return m, false
	}
	return mark(p), true
}

// pass gives a packet to the process with the mark, if there is one. It never waits: a packet too
// many is lost.
func (s *Socket) pass(to mark, m *ipv4.Message) bool {
	a, ok := m.Addr.(*net.UDPAddr)
	if !ok {
		return false
	}
	from, err := a.AddrPort().MarshalBinary()
	if err != nil || len(from) > 255 {
		return false
	}
	b := append([]byte{byte(len(from))}, from...)
	b = binary.BigEndian.AppendUint16(b, uint16(m.NN))
	b = append(append(b, m.OOB[:m.NN]...), m.Buffers[0][:m.N]...)
	raw, err := s.inbox.SyscallConn()
	if err != nil {
		return false
	}
	cerr := raw.Control(func(fd uintptr) {
		err = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT, &unix.SockaddrUnix{Name: s.path(to)})
	})
	return cerr == nil && (err == nil || err == unix.EAGAIN || err == unix.ENOBUFS)
}

// take reads what others pass on, until the inbox is closed.
func (s *Socket) take() {
	buf := make([]byte, 64<<10)
	for {
		n, err := s.inbox.Read(buf)
		if err != nil {
			return
		}
		p, ok := unpack(buf[:n])
		if !ok {
			continue
		}
		s.mu.Lock()
		if len(s.passed) < mostPassed {
			s.passed = append(s.passed, p)
		}
		s.wake()
		s.mu.Unlock()
		s.UDPConn.SetReadDeadline(time.Unix(1, 0))
	}
}

// unpack is the other side of pass.
func unpack(b []byte) (p passedOn, ok bool) {
	if len(b) < 1 || len(b) < 1+int(b[0])+2 {
		return p, false
	}
	var from netip.AddrPort
	if err := from.UnmarshalBinary(b[1 : 1+b[0]]); err != nil || !from.IsValid() {
		return p, false
	}
	b = b[1+b[0]:]
	oob := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; len(b) < oob {
		return p, false
	}
	b = slices.Clone(b)
	return passedOn{net.UDPAddrFromAddrPort(from), b[:oob], b[oob:]}, true
}
