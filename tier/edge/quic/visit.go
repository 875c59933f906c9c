package quic

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

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

var errFull = errors.New("there are as many connections as Config.MaxConns")

// admit is asked for each first packet. Its context ends with the connection.
func (s *Server) admit(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
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
	rc := http.NewResponseController(w)
	if !v.fresh(w, r) {
		return
	}
	if err := settleBody(r, rc); err != nil {
		panic(http.ErrAbortHandler) // the request is not whole, and its stream is reset
	}
	s.cfg.Handler.ServeHTTP(&patientWriter{w, rc}, r)
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

// settleBody finds out whether a request of unknown length has a body at all, where it usually has
// none: quic-go does not say, and a backend must not be sent an empty body in chunks with every GET.
// The end of such a stream comes with its fields, so there is nothing to wait for.
func settleBody(r *http.Request, rc *http.ResponseController) error {
	body := &patientBody{ReadCloser: r.Body, rc: rc}
	r.Body = body
	switch {
	case r.ContentLength == 0:
		r.Body = http.NoBody
	case r.ContentLength < 0 && (safe(r.Method) || r.Method == http.MethodDelete):
		n, err := body.Read(body.first[:])
		switch {
		case n == 1:
			body.held = true
		case err == io.EOF:
			r.Body, r.ContentLength = http.NoBody, 0
		default:
			return err
		}
	}
	return nil
}

// patience is how long a read of a body, or a write of an answer, may make no progress.
const patience = 30 * time.Second

// patientBody gives up on a client that stops sending in mid-body.
type patientBody struct {
	io.ReadCloser
	rc    *http.ResponseController
	first [1]byte
	held  bool // first was read ahead
}

func (b *patientBody) Read(p []byte) (int, error) {
	if b.held && len(p) > 0 {
		p[0], b.held = b.first[0], false
		return 1, nil
	}
	b.rc.SetReadDeadline(time.Now().Add(patience))
	return b.ReadCloser.Read(p)
}

// patientWriter gives up on a client that stops taking an answer.
type patientWriter struct {
	http.ResponseWriter
	rc *http.ResponseController
}

func (w *patientWriter) Write(p []byte) (int, error) {
	w.rc.SetWriteDeadline(time.Now().Add(patience))
	return w.ResponseWriter.Write(p)
}

func (w *patientWriter) FlushError() error {
	w.rc.SetWriteDeadline(time.Now().Add(patience))
	return w.rc.Flush()
}

func (w *patientWriter) Flush() { w.FlushError() }

// Unwrap is for http.ResponseController.
func (w *patientWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
