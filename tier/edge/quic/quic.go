// Package quic serves HTTP/3 (RFC 9114) for the front door, by quic-go.
//
// One Server serves any number of UDP sockets with one Handler, the same that answers HTTP/1.1 and
// HTTP/2. Clients learn of it by the Alt-Svc field (RFC 7838) that the door adds to those answers.
// A client that has been here before may send a request with its first packet (0-RTT). Such a packet
// can be replayed by anybody who saw it, so only requests with safe methods are answered from it;
// others wait for the handshake's end, which proves that they are fresh (RFC 8470). Connections
// outlive a change of the client's address (RFC 9000 §9). Begin at Config and New.
package quic

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// Config is what a Server needs. The zero value of each limit means its default.
type Config struct {
	// Handler answers all requests. Required.
	Handler http.Handler
	// TLS has the certificates; its protocols are replaced by h3, TLS 1.3 is spoken alone. Required.
	TLS *tls.Config
	Log *slog.Logger // nil: slog.Default

	MaxHeader   int           // bytes of a request's fields; 32 KiB. Beyond: 431
	MaxConns    int           // connections; 10,000. Beyond: refused
	MaxStreams  int           // concurrent requests of a connection; 100
	IdleTimeout time.Duration // silence after which a connection is forgotten; 60 s
	// Handshakes is how many connections may be in their handshake before further clients have to
	// prove their address first (Retry, RFC 9000 §8.1.2); 256. Negative: all have to.
	Handshakes int
	// TokenKey keeps address tokens and stateless resets good across restarts and between doors of
	// one address; zero: one is made up.
	TokenKey [32]byte
	// NoEarly turns 0-RTT off.
	NoEarly bool
}

// Server serves HTTP/3. Make one with New.
type Server struct {
	cfg   Config
	inner *http3.Server
	conf  *quic.Config
	tls   *tls.Config

	conns   atomic.Int64 // not yet gone, handshakes included
	shaking atomic.Int64 // of these, in their handshake

	leave sync.Once
	gone  chan struct{} // closed when no connection is left, after Drain or Close

	mu      sync.Mutex
	leaving bool                // Drain or Close was called
	visits  map[*visit]struct{} // connections that were accepted
}

// New checks cfg and fills in its defaults. It starts nothing.
func New(cfg Config) (*Server, error) {
	if cfg.Handler == nil {
		return nil, errors.New("make HTTP/3 server: no handler")
	}
	if cfg.TLS == nil {
		return nil, errors.New("make HTTP/3 server: no TLS configuration")
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	orDefault(&cfg.MaxHeader, 32<<10)
	orDefault(&cfg.MaxConns, 10_000)
	orDefault(&cfg.MaxStreams, 100)
	orDefault(&cfg.IdleTimeout, 60*time.Second)
	orDefault(&cfg.Handshakes, 256)
	if cfg.TokenKey == ([32]byte{}) {
		rand.Read(cfg.TokenKey[:])
	}
	s := &Server{cfg: cfg, gone: make(chan struct{}), visits: map[*visit]struct{}{}}
	s.conf = &quic.Config{
		MaxIdleTimeout:        cfg.IdleTimeout,
		HandshakeIdleTimeout:  5 * time.Second,
		MaxIncomingStreams:    int64(cfg.MaxStreams),
		MaxIncomingUniStreams: 8, // control, the two of QPACK, and what a client greases with
		// A client is to have no more than this of an upload in our memory.
		InitialStreamReceiveWindow:     256 << 10,
		MaxStreamReceiveWindow:         2 << 20,
		InitialConnectionReceiveWindow: 512 << 10,
		MaxConnectionReceiveWindow:     4 << 20,
		Allow0RTT:                      !cfg.NoEarly,
	}
	s.tls = http3.ConfigureTLSConfig(onlyTLS13(cfg.TLS))
	std := &http.Server{Handler: cfg.Handler}
	s.inner = &http3.Server{
		Handler:        http.HandlerFunc(s.serve),
		MaxHeaderBytes: cfg.MaxHeader,
		IdleTimeout:    cfg.IdleTimeout,
		Logger:         cfg.Log,
		// Handlers of net/http ask whether it is there, ReverseProxy for one, before they cut short an
		// answer that their backend has cut short.
		ConnContext: func(ctx context.Context, _ *quic.Conn) context.Context {
			return context.WithValue(ctx, http.ServerContextKey, std)
		},
	}
	return s, nil
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// onlyTLS13 is a copy without ways into 1.2, which QUIC forbids (RFC 9001 §4.2).
func onlyTLS13(c *tls.Config) *tls.Config {
	c.DecryptTicket(nil, tls.ConnectionState{}) // makes the ticket keys before they are copied: go.dev/issue/60506
	c = c.Clone()
	c.MinVersion = tls.VersionTLS13
	if get := c.GetConfigForClient; get != nil {
		c.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			own, err := get(h)
			if own != nil {
				own = own.Clone()
				own.MinVersion = tls.VersionTLS13
			}
			return own, err
		}
	}
	return c
}

// Serve serves the packets of p until Drain or Close, and then returns nil. It may run for many
// sockets at once. It does not close p, but nobody else may use it meanwhile, unless it is a Socket:
// then a drain leaves new clients to the others that hold it, if there are any.
func (s *Server) Serve(p net.PacketConn) error {
	reset := quic.StatelessResetKey(s.cfg.TokenKey)
	token := quic.TokenGeneratorKey(s.cfg.TokenKey)
	t := &quic.Transport{
		Conn:                p,
		StatelessResetKey:   &reset,
		TokenGeneratorKey:   &token,
		VerifySourceAddress: func(net.Addr) bool { return s.shaking.Load() >= int64(s.cfg.Handshakes) },
		ConnContext:         s.admit,
	}
	if shared, ok := p.(*Socket); ok {
		t.ConnectionIDGenerator = shared
	}
	if s.isLeaving() {
		return nil
	}
	l, err := t.ListenEarly(s.tls, s.conf)
	if err != nil {
		return fmt.Errorf("serve HTTP/3: %w", err)
	}
	err = s.inner.ServeListener(watched{l, s})
	if s.isLeaving() {
		// The connections that are left need the socket. The listener stays too: who comes now is
		// refused by admit, at once, and falls back to TCP; without it he would be left to wait.
		<-s.gone
		err = nil
	}
	l.Close()
	t.Close()
	if err != nil {
		return fmt.Errorf("serve HTTP/3: %w", err)
	}
	return nil
}

func (s *Server) isLeaving() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leaving
}

// Conns is how many connections there are, handshakes included.
func (s *Server) Conns() int { return int(s.conns.Load()) }

// Drain says goodbye: nobody new is let in, each connection is told so (GOAWAY, RFC 9114 §5.2) and
// finishes its requests. One that has been idle for two seconds is closed. When the last is gone, or
// when ctx ends, which cuts off those that are left, Drain and the Serve calls return: nil, or ctx's
// error. Sockets stay open.
func (s *Server) Drain(ctx context.Context) error {
	return s.end(func() error {
		quiet := make(chan struct{})
		done := make(chan struct{})
		go func() { defer close(done); s.dismiss(quiet) }()
		err := s.inner.Shutdown(ctx)
		close(quiet)
		<-done
		if err != nil {
			return fmt.Errorf("drain HTTP/3: %w", err)
		}
		return nil
	})
}

// Close ends everything at once: connections and the contexts of requests. It waits up to five
// seconds for handlers to return, and says so if some have not.
func (s *Server) Close() error {
	return s.end(func() error {
		done := make(chan error, 1)
		go func() { done <- s.inner.Close() }()
		select {
		case err := <-done:
			return err
		case <-time.After(5 * time.Second):
			return errors.New("close HTTP/3 server: a handler does not return")
		}
	})
}

// end does how, and lets Serve return. After a first call there is nothing left to end, but Close
// may cut a Drain short.
func (s *Server) end(how func() error) error {
	s.mu.Lock()
	s.leaving = true
	s.mu.Unlock()
	err := how()
	s.leave.Do(func() { close(s.gone) })
	return err
}

// dismiss closes connections that have been told to go and have nothing more to do here.
func (s *Server) dismiss(quiet <-chan struct{}) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	idle := map[*visit]time.Time{}
	for {
		select {
		case <-quiet:
			return
		case now := <-tick.C:
			s.mu.Lock()
			for v := range s.visits {
				since, ok := idle[v]
				switch {
				case v.active.Load() > 0:
					delete(idle, v)
				case !ok:
					idle[v] = now
				case now.Sub(since) >= idleGrace:
					v.conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
				}
			}
			s.mu.Unlock()
		}
	}
}

// idleGrace is how long a connection has been idle when a drain closes it.
const idleGrace = 2 * time.Second

// AltSvc is the value of the Alt-Svc field (RFC 7838 §3) that tells clients of HTTP/1.1 and HTTP/2
// that port speaks HTTP/3, for a day.
func AltSvc(port int) string { return fmt.Sprintf(`h3=":%d"; ma=86400`, port) }
