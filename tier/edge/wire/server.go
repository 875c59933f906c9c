package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// sweepEvery is how often limits are looked at.
const sweepEvery = 500 * time.Millisecond

// Server serves connections of any number of listeners. Make one with New.
type Server struct {
	cfg      Config
	dates    dates
	std      *http.Server // what http.ServerContextKey holds: handlers of net/http ask whether it is there
	ctx      context.Context
	cut      context.CancelFunc
	draining atomic.Bool
	running  sync.WaitGroup // connections' goroutines, the sweep

	alt1, alt2 []byte // Config.AltSvc as a field line and as an HPACK block

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	links     map[*link]struct{}
	seated    int     // connections in loops, or on their way there or back
	loops     []*loop // set once, with the first listener
	sweeping  bool
	closed    bool
	empty     chan struct{} // closed when a drain has seen the last connection go

	next atomic.Uint32 // of loops, in turn

	refusing sync.Mutex
	spare    *os.File // a descriptor to give up when there are no others; under refusing
}

// New checks cfg and fills in its defaults. It starts nothing.
func New(cfg Config) (*Server, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, std: &http.Server{Handler: cfg.Handler}, listeners: map[net.Listener]struct{}{}, links: map[*link]struct{}{}, empty: make(chan struct{})}
	if cfg.AltSvc != "" {
		s.alt1 = []byte("Alt-Svc: " + cfg.AltSvc + "\r\n")
		s.alt2 = AppendField(nil, "alt-svc", cfg.AltSvc)
	}
	s.ctx, s.cut = context.WithCancel(context.WithValue(cfg.BaseContext, http.ServerContextKey, s.std))
	return s, nil
}

// Serve accepts connections of l, plain HTTP/1.1 and HTTP/2 with prior knowledge, until Drain or
// Close, and then returns nil. It may run for many listeners at once. It closes l.
func (s *Server) Serve(l net.Listener) error { return s.serve(l, false) }

// ServeTLS is Serve over TLS with Config.TLS.
func (s *Server) ServeTLS(l net.Listener) error {
	if s.cfg.TLS == nil {
		l.Close()
		return errors.New("serve TLS: no Config.TLS")
	}
	return s.serve(l, true)
}

func (s *Server) serve(l net.Listener, secure bool) error {
	b := (*bare)(nil)
	if !secure {
		if b = s.bareOf(l); b != nil {
			l = b
		}
	}
	defer l.Close()
	if !s.listen(l) {
		return nil
	}
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()
	accept := func() error {
		c, err := l.Accept()
		if err == nil {
			s.accept(c, secure)
		}
		return err
	}
	if b != nil && len(s.loops) > 0 {
		accept = b.accept
	}
	var wait time.Duration
	for {
		err := accept()
		if err == nil {
			wait = 0
			continue
		}
		if s.draining.Load() || s.ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept connection: %w", err)
		}
		if s.refuseOne(l, err) {
			continue
		}
		// Out of memory or descriptors, or a connection that died before it was accepted.
		wait = min(max(5*time.Millisecond, 2*wait), time.Second)
		s.cfg.Log.Warn("accept connection", "addr", l.Addr(), "err", err, "again", wait)
		select {
		case <-time.After(wait):
		case <-s.ctx.Done():
			return nil
		}
	}
}

// listen registers l and starts the sweep with the first listener.
func (s *Server) listen(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.draining.Load() {
		return false
	}
	s.listeners[l] = struct{}{}
	if !s.sweeping {
		s.sweeping = true
		s.refusing.Lock()
		s.spare, _ = os.Open(os.DevNull)
		s.refusing.Unlock()
		s.openLoops()
		s.running.Go(s.sweep)
	}
	return true
}

// refuseOne takes a connection off the queue at the limit of open files and closes it, so that its
// client hears at once instead of waiting in the queue: a spare descriptor is given up for it.
func (s *Server) refuseOne(l net.Listener, err error) bool {
	if !outOfFiles(err) {
		return false
	}
	if b, ok := l.(*bare); ok {
		l = b.Listener
	}
	d, ok := l.(interface{ SetDeadline(time.Time) error })
	if !ok {
		return false // Accept could block
	}
	s.refusing.Lock()
	defer s.refusing.Unlock()
	if s.ctx.Err() != nil {
		return false
	}
	if s.spare == nil {
		s.spare, _ = os.Open(os.DevNull)
		return false
	}
	s.spare.Close()
	d.SetDeadline(time.Now().Add(10 * time.Millisecond)) // another process may have taken it
	c, err := l.Accept()
	if err == nil {
		reset(c)
	}
	d.SetDeadline(time.Time{})
	s.spare, _ = os.Open(os.DevNull)
	return err == nil
}

func reset(c net.Conn) {
	if t, ok := c.(interface{ SetLinger(int) error }); ok {
		t.SetLinger(0)
	}
	c.Close()
}

func (s *Server) accept(c net.Conn, secure bool) {
	l := &link{srv: s, raw: c, rw: c}
	s.mu.Lock()
	if s.closed || s.full() {
		s.mu.Unlock()
		reset(c)
		return
	}
	s.links[l] = struct{}{}
	s.running.Add(1)
	s.mu.Unlock()
	l.enter(phaseHandshake, time.Now())
	go func() {
		defer s.running.Done()
		defer func() {
			if !l.kept.Load() {
				l.end(false)
			}
		}()
		s.open(l, secure)
	}()
}

// open learns who is there and runs the loop. The handshake has a goroutine of its own, so that
// the stack it needs is not kept for the life of the connection.
func (s *Server) open(l *link, secure bool) {
	proto := ""
	if secure {
		c := &cork{Conn: l.raw}
		t := tls.Server(c, s.cfg.TLS)
		done := make(chan error, 1)
		go func() { done <- t.HandshakeContext(s.ctx) }() // ends when the connection closes, which the sweep sees to
		if err := <-done; err != nil {
			plainOnTLS(err)
			return
		}
		state := t.ConnectionState()
		proto = state.NegotiatedProtocol
		if proto != "" && proto != "h2" && proto != "http/1.1" {
			return // a handshake that was all there is to do, as in ACME's TLS-ALPN-01
		}
		l.cork, l.rw, l.tls, l.alt = c, t, &state, s.alt1 != nil
	}
	l.remoteText = l.raw.RemoteAddr().String() // may read a PROXY header: not before this goroutine
	l.remote, _ = netip.ParseAddrPort(l.remoteText)
	l.begin(proto == "h2", nil)
}

// begin runs the loop of a connection, of which rest was read.
func (l *link) begin(two bool, rest []byte) {
	s := l.srv
	l.ctx = context.WithValue(s.ctx, http.LocalAddrContextKey, l.raw.LocalAddr())
	if s.cfg.ConnContext != nil {
		l.ctx = s.cfg.ConnContext(l.ctx, l.rw)
	}
	if s := NewSock(l.raw); s != nil && l.tls == nil {
		l.sock, l.rw = s, s
	}
	ctx, cancel := context.WithCancel(l.ctx)
	l.ctx = ctx
	defer cancel()
	if !two {
		if rest, two = serve1(l, rest); !two {
			return
		}
	}
	serve2(l, rest)
}

// plainOnTLS tells a client that spoke HTTP to a TLS port.
func plainOnTLS(err error) {
	var re tls.RecordHeaderError
	if errors.As(err, &re) && re.Conn != nil {
		switch string(re.RecordHeader[:]) {
		case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
			re.Conn.Write([]byte("HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nthis is an HTTPS port: use https://\n"))
		}
	}
}

func (s *Server) forget(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.links, l)
	s.tellEmpty()
}

// tellEmpty lets Drain know. Under s.mu.
func (s *Server) tellEmpty() {
	if s.draining.Load() && len(s.links)+s.seated == 0 {
		select {
		case <-s.empty:
		default:
			close(s.empty)
		}
	}
}

// Conns is how many connections are open, upgraded ones included.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.links) + s.seated
}

// full says that no other connection is to be taken. Under s.mu.
func (s *Server) full() bool { return len(s.links)+s.seated >= s.cfg.MaxConns }

func (s *Server) all(into []*link) []*link {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.links {
		into = append(into, l)
	}
	return into
}

func (s *Server) sweep() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	var links []*link
	for {
		select {
		case now := <-tick.C:
			links = s.all(links[:0])
			for _, l := range links {
				l.sweep(now.UnixMilli())
			}
			clear(links)
			s.mu.Lock()
			seated := s.seated
			s.mu.Unlock()
			for _, p := range s.loops {
				if seated > 0 {
					p.do(func() { p.sweep(now.UnixMilli()) })
				}
			}
		case <-s.ctx.Done():
			return
		}
	}
}

// Drain says goodbye: listeners close, each HTTP/1.1 answer says that its connection closes, each
// HTTP/2 connection gets GOAWAY and finishes its streams. An idle connection is not closed in the
// moment in which a request may be on its way to it, as http.Server.Shutdown does, but when it has
// been idle for DrainGrace. Drain returns nil when the last connection is gone, hijacked ones
// included, or ctx's error when it ends first. Close is to be called either way.
func (s *Server) Drain(ctx context.Context) error {
	s.mu.Lock()
	first := !s.draining.Swap(true)
	for l := range s.listeners {
		l.Close()
	}
	s.tellEmpty()
	s.mu.Unlock()
	if first {
		for _, l := range s.all(nil) {
			if two := l.two.Load(); two != nil {
				two.drain()
			}
		}
	}
	select {
	case <-s.empty:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("drain %d connections: %w", s.Conns(), ctx.Err())
	}
}

// Close ends everything at once: listeners, connections, the contexts of requests. It waits up to
// five seconds for handlers to return, and says so if some have not.
func (s *Server) Close() error {
	s.cut()
	s.mu.Lock()
	s.closed = true
	for l := range s.listeners {
		l.Close()
	}
	loops := s.loops
	s.mu.Unlock()
	for _, p := range loops {
		p.file.Close() // waits for what the loop is at, which may want s.mu
	}
	s.refusing.Lock()
	if s.spare != nil {
		s.spare.Close()
		s.spare = nil
	}
	s.refusing.Unlock()
	done := make(chan struct{})
	go func() { s.running.Wait(); close(done) }()
	kept := false
	for _, l := range s.all(nil) {
		if l.kept.Load() {
			kept = true
			continue
		}
		l.abort()
	}
	if kept { // handlers that took a connection over may say goodbye
		select {
		case <-done:
		case <-time.After(time.Second):
		}
	}
	for _, l := range s.all(nil) {
		l.abort()
		if l.kept.Load() {
			l.end(false)
		}
	}
	select {
	case <-done:
		return nil
	case <-time.After(5 * time.Second):
		return errors.New("close wire server: a handler does not return")
	}
}

// openFiles is the limit of open files.
func openFiles() int {
	var r syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r) != nil || r.Cur > 1<<20 {
		return 1 << 20
	}
	return int(r.Cur)
}
