package edge

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
)

// How requests reach tasks.
const (
	holdFor      = 5 * time.Second  // a request waits this long for a task to come
	idleUpstream = 4 * time.Second  // below Node's 5 s, so that we close idle connections first
	replayable   = 64 << 10         // bodies up to this many bytes are kept for a second try
	maxTries     = 3                // endpoints per request
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
	if err := keepBody(r); err != nil {
		return nil, err
	}
	var tried []*endpoint
	for {
		ep, limit, err := b.pick(r.Context(), tg, tried)
		if err != nil {
			return nil, err
		}
		res, err := b.send(r, ep, limit)
		if err == nil {
			return res, nil
		}
		tried = append(tried, ep)
		if len(tried) >= maxTries || r.Context().Err() != nil || !again(r, err) {
			return nil, err
		}
		if r.GetBody != nil {
			if r.Body, err = r.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

// keepBody reads a small body into memory, so that it can be sent again. A longer one streams.
// Either way it ends exactly at its length: see golang/go#40747.
func keepBody(r *http.Request) error {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		r.Body, r.GetBody = http.NoBody, func() (io.ReadCloser, error) { return http.NoBody, nil }
		return nil
	}
	if r.ContentLength < 0 {
		return nil
	}
	if r.ContentLength > replayable {
		r.Body = struct {
			io.Reader
			io.Closer
		}{&exactly{r.Body, r.ContentLength}, r.Body}
		return nil
	}
	b := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, b); err != nil {
		return &badBody{err}
	}
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
	r.Body, _ = r.GetBody()
	return nil
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

// again says whether a failed request may be sent to another task: when no task can have seen it,
// or when seeing it twice changes nothing and its body can be repeated.
func again(r *http.Request, err error) bool {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" || errors.Is(err, syscall.ECONNREFUSED) {
		return r.GetBody != nil
	}
	safe := r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions
	return safe && r.GetBody != nil && r.Header.Get("Upgrade") == "" && !errors.Is(err, errSlow)
}

// pick takes the less busy of two tasks at random, and waits for one while there is none. The
// count is raised before the check for draining: once a draining task counts zero, nothing comes.
func (b *balancer) pick(ctx context.Context, tg target, tried []*endpoint) (*endpoint, time.Duration, error) {
	var timeout <-chan time.Time
	for {
		t := b.table()
		p := t.pool(tg.app, tg.env, tg.service)
		if p == nil {
			return nil, 0, &errDown{tg.service, "it is not deployed"}
		}
		if ep := choose(p.endpoints, tried); ep != nil {
			ep.inFlight.Add(1)
			if ep.draining.Load() {
				ep.inFlight.Add(-1)
				continue
			}
			limit := p.Request
			if limit == 0 {
				limit = defaultLimit
			}
			return ep, limit, nil
		}
		if len(tried) > 0 {
			tried = nil // all were tried: any may have come back
		}
		if timeout == nil {
			timeout = time.After(holdFor)
		}
		select {
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case <-t.changed:
		case <-timeout:
			return nil, 0, &errDown{tg.service, p.Down}
		}
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

// send makes one try. The response counts as in flight until its body is closed.
func (b *balancer) send(r *http.Request, ep *endpoint, limit time.Duration) (*http.Response, error) {
	ep.requests.Add(1)
	ctx, cancel := context.WithCancelCause(r.Context())
	timer := time.AfterFunc(limit, func() { cancel(errSlow) })
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
	res.Body = &counted{ReadCloser: res.Body, done: func() { cancel(nil); ep.inFlight.Add(-1) }}
	return res, nil
}

// counted tells when a response is over. For an upgraded connection it is the connection itself.
type counted struct {
	io.ReadCloser
	closed atomic.Bool
	done   func()
}

// Write passes on to an upgraded connection.
func (c *counted) Write(p []byte) (int, error) {
	w, ok := c.ReadCloser.(io.Writer)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	return w.Write(p)
}

// Close ends the response.
func (c *counted) Close() error {
	err := c.ReadCloser.Close()
	if !c.closed.Swap(true) {
		c.done()
	}
	return err
}

func newProxy(table func() *table, fail func(http.ResponseWriter, *http.Request, error)) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.Host = p.In.Host
			p.Out.Header.Del("Forwarded")
			p.SetXForwarded()
			p.Out.URL.Scheme, p.Out.URL.Host = "http", "task"
			trace(p.Out.Header)
		},
		Transport:     &balancer{table, newTransport()},
		FlushInterval: -1, // at once: SSE must not wait, and small responses cost no more
		ErrorHandler:  fail,
		ErrorLog:      quiet,
	}
}
