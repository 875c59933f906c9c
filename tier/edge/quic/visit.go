package quic

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go"
)

// visit is one connection, from its first packet on. The context of the connection carries it.
type visit struct {
	srv    *Server
	conn   *quic.Conn   // set when accepted, before any request
	shaken sync.Once    // the handshake has ended, in whichever way
	active atomic.Int64 // requests
}

type visitKey struct{}

var (
	errFull    = errors.New("there are as many connections as Config.MaxConns")
	errLeaving = errors.New("the server drains")
)

// admit is asked for each first packet. Its context ends with the connection.
func (s *Server) admit(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
	if s.isLeaving() {
		return nil, errLeaving
	}
	if s.conns.Add(1) > int64(s.cfg.MaxConns) {
		s.conns.Add(-1)
		return nil, errFull
	}
	s.shaking.Add(1)
	v := &visit{srv: s}
	context.AfterFunc(ctx, func() {
		v.shook()
		s.conns.Add(-1)
		s.mu.Lock()
		delete(s.visits, v)
		s.mu.Unlock()
	})
	return context.WithValue(ctx, visitKey{}, v), nil
}

func (v *visit) shook() { v.shaken.Do(func() { v.srv.shaking.Add(-1) }) }

// watched is a listener that notes what it accepts. A connection is accepted before its handshake
// has ended: as soon as 0-RTT can be read.
type watched struct {
	*quic.EarlyListener
	srv *Server
}

func (w watched) Accept(ctx context.Context) (*quic.Conn, error) {
	c, err := w.EarlyListener.Accept(ctx)
	if err != nil {
		return nil, err
	}
	v := c.Context().Value(visitKey{}).(*visit)
	v.conn = c
	w.srv.mu.Lock()
	if c.Context().Err() == nil {
		w.srv.visits[v] = struct{}{}
	}
	w.srv.mu.Unlock()
	go func() { // ends with the handshake, or the connection
		select {
		case <-c.HandshakeComplete():
		case <-c.Context().Done():
		}
		v.shook()
	}()
	return c, nil
}

// serve is the handler of all requests: 0-RTT is looked at here, and time limits are set.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	v, ok := r.Context().Value(visitKey{}).(*visit)
	if !ok {
		panic("HTTP/3 request without its connection")
	}
	v.active.Add(1)
	defer v.active.Add(-1)
	if !v.fresh(w, r) {
		return
	}
	if r.Method == http.MethodConnect {
		s.connect(w, r)
		return
	}
	out := &patientWriter{ResponseWriter: w, rc: http.NewResponseController(w)}
	if err := out.takeBody(r); err != nil {
		panic(http.ErrAbortHandler) // the request is not whole, and its stream is reset
	}
	s.cfg.Handler.ServeHTTP(out, r)
	out.extend() // for what is left in quic-go's buffer
}

// connect passes on an extended CONNECT (RFC 9220: WebSocket over one stream) as the door's HTTP/2
// does: the protocol is in Header[":protocol"], a name that no client can send. Both directions live
// as long as the handler lets them.
func (s *Server) connect(w http.ResponseWriter, r *http.Request) {
	if r.Proto == "HTTP/3.0" {
		w.WriteHeader(http.StatusNotImplemented) // a plain CONNECT asks for a tunnel
		return
	}
	r.Header[":protocol"] = []string{r.Proto}
	r.Proto = "HTTP/3.0"
	w.Header()["Content-Type"] = nil
	s.cfg.Handler.ServeHTTP(w, r)
}

// fresh sees to requests that came with a 0-RTT packet, which somebody may be replaying. Safe ones
// are marked (RFC 8470 §5.1), so that a backend may still say 425 (Too Early). For others, and for
// those that announce a body, the handshake's end is awaited: it proves that the client is there now. A replay
// never gets so far; its connection ends, and nothing was done for it.
func (v *visit) fresh(w http.ResponseWriter, r *http.Request) bool {
	select {
	case <-v.conn.HandshakeComplete():
		return true
	default:
	}
	if safe(r.Method) && r.ContentLength <= 0 {
		r.Header.Set("Early-Data", "1")
		return true
	}
	select {
	case <-v.conn.HandshakeComplete():
		return true
	case <-v.conn.Context().Done():
	case <-r.Context().Done():
	}
	w.WriteHeader(http.StatusTooEarly)
	return false
}

// safe is RFC 9110 §9.2.1, without TRACE, which the door does not answer.
func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}
