package pgproxy

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"tenfold/internal/pgwire"
	"tenfold/internal/pooldir"
)

const (
	// readSize is what one read takes at most, into the loop's own buffer: an idle connection has none.
	readSize = 64 << 10
	// throttleAt is how many bytes may wait for one side before the other is no longer read.
	throttleAt = 256 << 10
	// eventsAtOnce are taken from the kernel by one call.
	eventsAtOnce = 256
	// loginLimit is how long a client may take to log in.
	loginLimit = 60 * time.Second
	// idleServer is after how long a server connection that nobody used is closed.
	idleServer = 10 * time.Minute
)

// A loop is all of one database: its clients, its servers, their queues. One goroutine owns everything
// in it and waits in epoll, so nothing needs a lock and an idle client needs no stack and no buffer.
// Two designs lost: a goroutine for each connection costs 1.4 times the processor time (two of them must
// be woken for each message, docs/bench), and one loop for all databases lets a busy one
// delay the others. What may block (dialling, files, the daemon) is done by goroutines, which hand over
// their results by do.
type loop struct {
	p   *Proxy
	log *slog.Logger

	poll     int       // epoll of everything
	urgent   int       // epoll of what is heard even while enough clients wait (width.go)
	heard    time.Time // when everything was heard last
	patient  patience
	opened   time.Time // when a server last answered within a transaction that goes on
	bell     int       // eventfd
	listener int       // -1: none
	conns    []slot
	gen      uint32
	events   [eventsAtOnce]unix.EpollEvent
	buf      [readSize]byte
	cipher   [readSize]byte // what a client with TLS sent
	sealed   []byte         // for one
	gather   []byte         // for a client, while a server's bytes are looked through
	now      time.Time
	pack     pack
	more     int  // bytes of messages that were answered with the one that is looked at
	after    byte // type of the message after the one that is looked at; 0: unknown

	db       pooldir.Database
	version  uint64
	accounts map[string]*account
	closing  bool // drains; nothing is accepted
	ended    bool
	// resumed is when clients could last begin again after they were held.
	resumed time.Time

	params     []pgwire.Param // what servers say of themselves, for clients that log in
	statements statements
	interned   interned
	byPID      map[uint32]*client
	lastPID    uint32
	clients    int
	logins     queue // clients that log in
	stats      Stats
	seen       *seen
	req        request // of what asked looked at last
	slow       slow
	split      split
	cache      *caching // nil: it is off
	rest       []byte   // of a client's input, from the message that is looked at
	lastAsked  time.Time
	sick       map[string]fault
	announced  bool // Quiet or Wake were told

	mu   sync.Mutex
	mail []func() // under mu
	done chan struct{}
}

type fault struct {
	err string
	at  time.Time
}

// slot is what a descriptor is; gen tells a descriptor from the one that had its number before.
type slot struct {
	gen    uint32
	client *client
	server *server
}

// account is a user with what a login needs and the servers that are kept for it.
type account struct {
	user    pooldir.User
	keys    *pgwire.Keys
	clients int
	apps    map[string]int // clients by application
	pools   [2]*pool       // of the primary, of readers
}

func newLoop(p *Proxy) (*loop, error) {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open loop: %w", err)
	}
	urgent, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		unix.Close(poll)
		return nil, fmt.Errorf("open loop: %w", err)
	}
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(poll)
		unix.Close(urgent)
		return nil, fmt.Errorf("open loop: %w", err)
	}
	l := &loop{
		p: p, log: p.cfg.Log, poll: poll, urgent: urgent, bell: bell, listener: -1, accounts: map[string]*account{}, byPID: map[uint32]*client{},
		interned: interned{}, statements: statements{byBody: map[string]*prepared{}}, sick: map[string]fault{}, seen: newSeen(), split: split{applied: map[string]uint64{}, reset: map[string]uint64{}}, stats: Stats{Pins: map[string]uint64{}}, done: make(chan struct{}),
		now: time.Now(),
	}
	l.lastPID = uint32(l.now.UnixNano()) & 0x7fffffff
	l.watch(bell, unix.EPOLLIN, unix.EPOLL_CTL_ADD, true)
	return l, nil
}

// do has fn run by the loop. It does not wait; after the loop's end fn is dropped.
func (l *loop) do(fn func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bell < 0 { // it has ended: the number may be another's descriptor by now
		return
	}
	if l.mail = append(l.mail, fn); len(l.mail) == 1 {
		one := [8]byte{1}
		unix.Write(l.bell, one[:])
	}
}

// ask has fn run by the loop and waits for it; false when the loop has ended.
func (l *loop) ask(fn func()) bool {
	ran := make(chan struct{})
	l.do(func() { fn(); close(ran) })
	select {
	case <-ran:
		return true
	case <-l.done:
		return false
	}
}

// watch has the kernel tell of events, even while enough clients wait when urgent.
func (l *loop) watch(fd int, events uint32, op int, urgent bool) error {
	var gen uint32
	if fd < len(l.conns) {
		gen = l.conns[fd].gen
	}
	e := unix.EpollEvent{Events: events, Fd: int32(fd), Pad: int32(gen)}
	err := unix.EpollCtl(l.poll, op, fd, &e)
	if urgent && err == nil {
		err = unix.EpollCtl(l.urgent, op, fd, &e)
	}
	return err
}

// add begins to watch a connection for input.
func (l *loop) add(fd int, c *client, s *server) error {
	for fd >= len(l.conns) {
		l.conns = append(l.conns, make([]slot, max(64, len(l.conns)))...)
	}
	l.gen++
	l.conns[fd] = slot{l.gen, c, s}
	return l.watch(fd, unix.EPOLLIN, unix.EPOLL_CTL_ADD, s != nil)
}

func (l *loop) remove(fd int) {
	l.conns[fd] = slot{}
	unix.Close(fd)
}

// run serves until end was called.
func (l *loop) run() {
	defer close(l.done)
	runtime.LockOSThread() // patience is a thread's; with the goroutine it ends
	l.openPack()
	for !l.ended {
		n := l.wait()
		for at := 0; at < n; at += batchSize {
			l.round(l.events[at:min(at+batchSize, n)])
		}
		l.timers()
		l.deliver()
	}
	l.closePack()
	for _, x := range l.conns {
		if x.client != nil {
			unix.Close(x.client.fd)
		}
		if x.server != nil {
			unix.Close(x.server.fd)
			x.server.turns.close()
		}
	}
	if l.cache != nil {
		l.unfollow("")
	}
	if !l.split.looking && l.split.eyes != nil {
		l.split.eyes.close()
	}
	l.stopListening()
	unix.Close(l.poll)
	unix.Close(l.urgent)
	l.mu.Lock()
	unix.Close(l.bell)
	l.bell = -1
	l.mu.Unlock()
}

// round deals with what came of up to batchSize descriptors.
func (l *loop) round(events []unix.EpollEvent) {
	l.hear(events)
	for i := range events {
		e := &events[i]
		switch fd := int(e.Fd); fd {
		case l.bell:
			var b [8]byte
			unix.Read(l.bell, b[:])
			l.readMail()
		case l.listener:
			l.accept()
		default:
			if fd >= len(l.conns) || l.conns[fd].gen != uint32(e.Pad) {
				continue // closed by an event before this one
			}
			if s := l.conns[fd].server; s != nil {
				l.serverEvent(s, e.Events, &l.pack.heard[i])
			} else if c := l.conns[fd].client; c != nil {
				l.clientEvent(c, e.Events, &l.pack.heard[i])
			}
		}
	}
	l.deliver()
}

// wait gives the number of events. It waits a millisecond without the scheduler's knowledge first: a call that
// may block costs a hand-over to another thread and keeps the runtime's monitor awake (docs/bench).
// Under load something comes sooner; and who stops the world waits a millisecond at most.
func (l *loop) wait() int {
	n, enough := 0, l.enough()
	l.patience(enough)
	if enough && l.now.Sub(l.heard) < unheardFor {
		n = l.look(l.urgent)
	}
	if n > 0 {
		l.now = time.Now()
		return n
	}
	if n = l.look(l.poll); n == 0 {
		l.bePatient(false) // who comes next comes alone
		timeout := -1
		if due := l.due(); !due.IsZero() {
			timeout = max(0, int(time.Until(due)/time.Millisecond)+1)
		}
		n, _ = unix.EpollWait(l.poll, l.events[:], timeout)
	}
	l.now = time.Now()
	l.heard = l.now
	return max(0, n) // less: EINTR
}

// look gives the number of events that come within a millisecond.
func (l *loop) look(poll int) int {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(poll), uintptr(unsafe.Pointer(&l.events[0])), eventsAtOnce, 1, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

func (l *loop) readMail() {
	l.mu.Lock()
	mail := l.mail
	l.mail = nil
	l.mu.Unlock()
	for _, fn := range mail {
		fn()
	}
}

// recv and send are reads and writes that never block, without the scheduler's knowledge.
func recv(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
	runtime.KeepAlive(b)
	return int(n), errno
}

func send(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	runtime.KeepAlive(b)
	return int(n), errno
}

// sendAll writes what it can and says how much; failed when the connection is gone.
func sendAll(fd int, b []byte) (sent int, failed bool) {
	for sent < len(b) {
		n, errno := send(fd, b[sent:])
		switch errno {
		case 0:
			sent += n
		case unix.EINTR:
		case unix.EAGAIN:
			return sent, false
		default:
			return sent, true
		}
	}
	return sent, false
}

// listen takes over a listening socket.
func (l *loop) listen(ln net.Listener) error {
	fd, err := duplicate(ln.(*net.TCPListener))
	if err != nil {
		return err
	}
	l.listener = fd
	return l.watch(fd, unix.EPOLLIN, unix.EPOLL_CTL_ADD, true)
}

func (l *loop) stopListening() {
	if l.listener >= 0 {
		unix.EpollCtl(l.poll, unix.EPOLL_CTL_DEL, l.listener, nil)
		unix.EpollCtl(l.urgent, unix.EPOLL_CTL_DEL, l.listener, nil)
		unix.Close(l.listener)
		l.listener = -1
	}
}

// duplicate gives a descriptor of its own for a connection or listener; it does not block.
func duplicate(c syscall.Conn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var dup error
	if err := raw.Control(func(of uintptr) { fd, dup = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return -1, err
	}
	return fd, dup
}

func (l *loop) accept() {
	for range 64 {
		fd, from, err := unix.Accept4(l.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ECONNABORTED) && !errors.Is(err, unix.EINTR) {
				l.log.Error("accept client", "database", l.db.ID, "err", err)
			}
			return
		}
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		c := &client{fd: fd, since: l.now, near: isNear(from)}
		if err := l.add(fd, c, nil); err != nil {
			l.remove(fd)
			continue
		}
		l.logins.push(c)
	}
}

// buffers of clients that wait come from here.
var buffers = sync.Pool{New: func() any { return new([512]byte) }}

// keep gives a copy of b that outlives the loop's buffer.
func keep(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	if len(b) <= 512 {
		return append(buffers.Get().(*[512]byte)[:0], b...)
	}
	return append([]byte(nil), b...)
}

// free gives back what keep made.
func free(b []byte) {
	if cap(b) == 512 {
		buffers.Put((*[512]byte)(b[:512]))
	}
}
