package edge

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// How requests reach tasks.
const (
	holdFor      = 5 * time.Second // a request waits this long for a task to come
	idleUpstream = 4 * time.Second // below Node's 5 s, so that we close idle connections first
	replayable   = 64 << 10        // bodies up to this many bytes are kept for a second try
	maxTries     = 3               // of a request that some task may have seen
	triedPace    = 50 * time.Millisecond
	defaultIdle  = 10 * time.Minute
	defaultLimit = 60 * time.Second // to the first byte of a response
)

// endpoint is one task, with its traffic since the door started.
type endpoint struct {
	id, addr string
	draining atomic.Bool
	inFlight atomic.Int64
	requests atomic.Uint64
	errors   atomic.Uint64
}

// errDown says that a service has no task; the page tells why.
type errDown struct{ service, why string }

func (e *errDown) Error() string { return "service " + e.service + " has no healthy task" }

// target is what a proxied request is for; it travels in the request's context.
type target struct {
	app, env, service string
	in                *http.Request // as the client sent it
}

type targetKey struct{}

// balancer is the transport of the proxy: it picks a task, counts what is in flight, and sends
// again only what no task has seen.
type balancer struct {
	table func() *table
	next  http.RoundTripper
}

func newTransport() *http.Transport {
	return &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 2 * time.Second, KeepAlive: -1}).DialContext,
		IdleConnTimeout:     idleUpstream,
		MaxIdleConnsPerHost: 256,
		DisableCompression:  true,
		WriteBufferSize:     8 << 10, ReadBufferSize: 8 << 10,
		ExpectContinueTimeout: time.Second,
	}
}

// RoundTrip implements http.RoundTripper.
func (b *balancer) RoundTrip(r *http.Request) (*http.Response, error) {
	tg := r.Context().Value(targetKey{}).(target)
	body, err := keepBody(r)
	if err != nil {
		return nil, err
	}
	until := time.Now().Add(holdFor)
	var tried []*endpoint
	for {
		ep, p, err := b.pick(r.Context(), tg, tried, until)
		if err != nil {
			return nil, err
		}
		res, err := b.send(r, ep, p)
		if err == nil {
			return res, nil
		}
		tried = append(tried, ep)
		if r.Context().Err() != nil || !body.rewind(r) {
			return nil, err
		}
		switch {
		case unsent(err):
			if time.Now().After(until) {
				return nil, err
			}
		case !harmless(r) || errors.Is(err, errSlow) || len(tried) >= maxTries || choose(b.endpoints(tg), tried) == nil:
			return nil, err
		}
	}
}

// body is what a request carries: kept in memory, or streaming and good for a second try as long
// as nothing of it was read.
type body struct {
	kept   []byte
	stream io.Reader
	read   atomic.Bool
}

// Read reads the stream.
func (b *body) Read(p []byte) (int, error) {
	b.read.Store(true)
	return b.stream.Read(p)
}

// Close leaves the stream open: the server that gave it closes it after the request.
func (b *body) Close() error { return nil }

// rewind makes r ready for another try, or says that it cannot be.
func (b *body) rewind(r *http.Request) bool {
	if b.stream != nil {
		return !b.read.Load()
	}
	r.Body, _ = r.GetBody()
	return true
}

// keepBody reads a small body into memory, so that it can be sent again. A longer one streams.
// Either way it ends exactly at its length: see golang/go#40747.
func keepBody(r *http.Request) (*body, error) {
	b := &body{}
	switch {
	case r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0:
		r.Body, r.GetBody = http.NoBody, func() (io.ReadCloser, error) { return http.NoBody, nil }
		return b, nil
	case r.ContentLength < 0:
		b.stream = r.Body
		r.Body = b
		return b, nil
	case r.ContentLength > replayable:
		b.stream = &exactly{r.Body, r.ContentLength}
		r.Body = b
		return b, nil
	}
	b.kept = make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, b.kept); err != nil {
		return nil, &badBody{err}
	}
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.kept)), nil }
	r.Body, _ = r.GetBody()
	return b, nil
}

// badBody is a body that the client did not send whole.
type badBody struct{ err error }

func (e *badBody) Error() string { return "read request body: " + e.err.Error() }
func (e *badBody) Unwrap() error { return e.err }

// exactly ends with io.EOF together with the last byte.
type exactly struct {
	r    io.Reader
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.left <= 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > e.left {
		p = p[:e.left]
	}
	n, err := e.r.Read(p)
	e.left -= int64(n)
	if e.left == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// unsent says that no task can have seen the request: there was no connection.
func unsent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// harmless says that a request seen twice changes nothing.
func harmless(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions) && r.Header.Get("Upgrade") == ""
}

func (b *balancer) endpoints(tg target) []*endpoint {
	if p := b.table().pool(tg.app, tg.env, tg.service); p != nil {
		return p.endpoints
	}
	return nil
}

// pick takes the less busy of two tasks at random, and waits for one while there is none. The
// count is raised before the check for draining: once a draining task counts zero, nothing comes.
func (b *balancer) pick(ctx context.Context, tg target, tried []*endpoint, until time.Time) (*endpoint, *pool, error) {
	for {
		t := b.table()
		p := t.pool(tg.app, tg.env, tg.service)
		if p == nil {
			return nil, nil, &errDown{tg.service, "it is not deployed"}
		}
		if ep := choose(p.endpoints, tried); ep != nil {
			ep.inFlight.Add(1)
			if ep.draining.Load() {
				ep.inFlight.Add(-1)
				continue // the table that says so is in use already
			}
			return ep, p, nil
		}
		wait := time.Until(until)
		if wait <= 0 {
			return nil, nil, &errDown{tg.service, p.Down}
		}
		if len(tried) > 0 && len(p.endpoints) > 0 {
			wait = min(wait, triedPace) // all refused: any may have come back
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, nil, ctx.Err()
		case <-t.changed:
		case <-timer.C:
		}
		timer.Stop()
		tried = nil
	}
}

func choose(all, tried []*endpoint) *endpoint {
	left := all
	if len(tried) > 0 {
		left = slices.DeleteFunc(slices.Clone(all), func(e *endpoint) bool { return slices.Contains(tried, e) })
	}
	switch len(left) {
	case 0:
		return nil
	case 1:
		return left[0]
	}
	i := rand.IntN(len(left))
	j := rand.IntN(len(left) - 1)
	if j >= i {
		j++
	}
	if left[j].inFlight.Load() < left[i].inFlight.Load() {
		i = j
	}
	return left[i]
}

// errSlow says that the first byte did not come in time.
var errSlow = errors.New("no response in time")

// errSilent says that an upgraded connection or a stream of events carried nothing for too long.
var errSilent = errors.New("nothing came for too long")

// send makes one try. The response counts as in flight until its body is closed.
func (b *balancer) send(r *http.Request, ep *endpoint, p *pool) (*http.Response, error) {
	ep.requests.Add(1)
	ctx, cancel := context.WithCancelCause(r.Context())
	timer := time.AfterFunc(cmp.Or(p.Request, defaultLimit), func() { cancel(errSlow) })
	out := r.WithContext(ctx)
	u := *r.URL
	u.Scheme, u.Host = "http", ep.addr
	out.URL = &u
	res, err := b.next.RoundTrip(out)
	timer.Stop()
	if err != nil {
		if context.Cause(ctx) == errSlow {
			err = errSlow
		}
		cancel(nil)
		ep.inFlight.Add(-1)
		ep.errors.Add(1)
		return nil, err
	}
	if res.StatusCode >= 500 {
		ep.errors.Add(1)
	}
	c := &counted{ReadCloser: res.Body, done: func() { cancel(nil); ep.inFlight.Add(-1) }}
	if res.StatusCode == http.StatusSwitchingProtocols || strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		c.idle = cmp.Or(p.Idle, defaultIdle)
		c.silence = time.AfterFunc(c.idle, func() { cancel(errSilent); c.ReadCloser.Close() })
	}
	res.Body = c
	return res, nil
}

// counted tells when a response is over. For an upgraded connection it is the connection itself.
type counted struct {
	io.ReadCloser
	closed  atomic.Bool
	done    func()
	idle    time.Duration
	silence *time.Timer // nil for plain responses
}

// Read reads on.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.heard()
	return n, err
}

func (c *counted) heard() {
	if c.silence != nil && !c.closed.Load() {
		c.silence.Reset(c.idle)
	}
}

// Write passes on to an upgraded connection.
func (c *counted) Write(p []byte) (int, error) {
	w, ok := c.ReadCloser.(io.Writer)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	c.heard()
	return w.Write(p)
}

// Close ends the response.
func (c *counted) Close() error {
	err := c.ReadCloser.Close()
	if !c.closed.Swap(true) {
		if c.silence != nil {
			c.silence.Stop()
		}
		c.done()
	}
	return err
}

func newProxy(table func() *table, fail func(http.ResponseWriter, *http.Request, error)) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.Host = p.In.Host
			p.Out.URL.RawQuery = p.In.URL.RawQuery // as the client wrote it, ";" included
			p.Out.Header.Del("Forwarded")
			p.SetXForwarded()
			p.Out.URL.Scheme, p.Out.URL.Host = "http", "task"
			trace(p.Out.Header)
		},
		Transport:     &balancer{table, newTransport()},
		FlushInterval: -1, // at once: SSE must not wait, and small responses cost no more
		BufferPool:    buffers{},
		ErrorHandler:  fail,
		ErrorLog:      quiet,
	}
}

// buffers are what bodies are copied through.
type buffers struct{}

var pooled = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// Get implements httputil.BufferPool.
func (buffers) Get() []byte { return *pooled.Get().(*[]byte) }

// Put implements httputil.BufferPool.
func (buffers) Put(b []byte) { pooled.Put(&b) }
