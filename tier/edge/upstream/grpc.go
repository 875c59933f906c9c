package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// isGRPC says that a request is gRPC over HTTP/2 or later, which needs HTTP/2 up to the task: trailers, and
// both bodies at once. gRPC-Web is plain HTTP.
func isGRPC(r *http.Request) bool {
	if r.ProtoMajor < 2 {
		return false
	}
	rest, ok := strings.CutPrefix(r.Header.Get("Content-Type"), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// h2c is HTTP/2 without TLS to the tasks (RFC 9113 §3.3), by net/http: a transport, made when the
// first gRPC call comes.
type h2c struct {
	mu        sync.Mutex
	transport *http.Transport
}

func (h *h2c) get() *http.Transport {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.transport == nil {
		h.transport = &http.Transport{
			DialContext:        dialer.DialContext,
			DisableCompression: true,
			IdleConnTimeout:    time.Minute,
			Protocols:          new(http.Protocols),
			HTTP2:              &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
		}
		h.transport.Protocols.SetUnencryptedHTTP2(true)
	}
	return h.transport
}

func (h *h2c) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.transport != nil {
		h.transport.CloseIdleConnections()
	}
}

// overHTTP2 carries a gRPC call. What no task has seen is sent to another; nothing else is repeated.
func (x *exchange) overHTTP2() error {
	until := x.start + int64(x.policy.Hold)
	for {
		e, err := x.pick(until)
		if err != nil {
			return err
		}
		err = x.call(e)
		e.leave()
		if err == nil {
			return nil
		}
		if x.begun || !isDial(err) || clock() >= until || x.r.Context().Err() != nil {
			return x.blame(err)
		}
		e.refused(clock())
	}
}

func (x *exchange) call(e *endpoint) error {
	ctx, cancel := context.WithCancelCause(x.r.Context())
	defer cancel(nil)
	asked := clock()
	timer := time.AfterFunc(x.timeout, func() { cancel(ErrSlow) })
	defer timer.Stop()
	out := x.outgoing(ctx, e)
	e.requests.Add(1)
	x.result.Tries++
	res, err := x.service.h2c.get().RoundTrip(out)
	if err == nil {
		x.service.leaveHold(&x.held)
	}
	now := clock()
	if err != nil {
		if cause := context.Cause(ctx); cause == ErrSlow {
			err = ErrSlow
		}
		if !isDial(err) && x.r.Context().Err() == nil {
			e.answered(0)
			e.bad(now, &x.policy.Eject)
		}
		return err
	}
	defer res.Body.Close()
	e.reached()
	e.good()
	e.observe(now, time.Duration(now-asked))
	timer.Stop()
	x.result.FirstByte, x.result.Status = time.Duration(now-x.start), res.StatusCode
	e.answered(res.StatusCode)
	silence := time.AfterFunc(x.policy.Idle, func() { cancel(ErrSilent) })
	defer silence.Stop()
	err = x.relayHTTP2(res, silence)
	if cause := context.Cause(ctx); err != nil && cause == ErrSilent {
		err = ErrSilent
	}
	return err
}

// outgoing is the request as the task gets it.
func (x *exchange) outgoing(ctx context.Context, e *endpoint) *http.Request {
	out := x.r.Clone(ctx)
	u := *x.r.URL
	u.Scheme, u.Host = "http", e.addr
	out.URL, out.RequestURI = &u, ""
	trusted := x.trusted()
	for name := range out.Header {
		if name == "X-Forwarded-For" && trusted || name == "Expect" {
			continue
		}
		if dropped(name, trusted) && name != "Te" {
			delete(out.Header, name)
		}
	}
	if !connectionLists(x.r.Header["Te"], "trailers") {
		delete(out.Header, "Te")
	}
	out.Header.Add("X-Forwarded-For", clientIP(x.r.RemoteAddr))
	if out.Header.Get("X-Forwarded-Proto") == "" {
		proto := "http"
		if x.r.TLS != nil {
			proto = "https"
		}
		out.Header.Set("X-Forwarded-Proto", proto)
	}
	if out.Header.Get("X-Forwarded-Host") == "" {
		out.Header.Set("X-Forwarded-Host", x.r.Host)
	}
	if x.r.Body != nil && x.r.Body != http.NoBody {
		out.Body = io.NopCloser(x.r.Body) // the server that gave it closes it
	}
	return out
}

// relayHTTP2 passes the answer on, every message at once, and its trailers.
func (x *exchange) relayHTTP2(res *http.Response, silence *time.Timer) error {
	to := x.w.Header()
	for name, values := range res.Header {
		if !hopByHop(name) {
			to[name] = append(to[name], values...)
		}
	}
	for name := range res.Trailer {
		to.Add("Trailer", name)
	}
	announced := len(res.Trailer)
	x.begun = true
	x.w.WriteHeader(res.StatusCode)
	if res.ContentLength == 0 && announced == 0 {
		// The head ended the stream: gRPC's Trailers-Only, which has to end it again. A flush would send a
		// head that something follows, and a client would wait for trailers that were in it.
		return nil
	}
	if err := x.doFlush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return ErrClientGone
	}
	lent := borrowed.Get().(*[]byte)
	defer borrowed.Put(lent)
	for {
		n, err := res.Body.Read(*lent)
		silence.Reset(x.policy.Idle)
		if n > 0 {
			m, werr := x.w.Write((*lent)[:n])
			x.result.Bytes += int64(m)
			if werr == nil {
				werr = x.doFlush()
			}
			if werr != nil && !errors.Is(werr, http.ErrNotSupported) {
				return ErrClientGone
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	for name, values := range res.Trailer {
		if announced != len(res.Trailer) {
			name = http.TrailerPrefix + name
		}
		for _, v := range values {
			to.Add(name, v)
		}
	}
	return nil
}
