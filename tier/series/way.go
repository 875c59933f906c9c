package series

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"time"
)

// rewindable has a body that is not long be sent a second time, should the engine die of the first.
func rewindable(r *http.Request) error {
	if r.ContentLength <= 0 || r.ContentLength > mostKept {
		return nil
	}
	b := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, b); err != nil {
		return refuse(http.StatusBadRequest, "invalid", "the body ends early")
	}
	r.Body = io.NopCloser(bytes.NewReader(b))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
	return nil
}

// again asks anew when an engine died over a question: the values of a request that is written twice are there once.
// It implements http.RoundTripper.
type again struct{ way *http.Transport }

// pauses are before each further try. A process that is killed takes a moment to close what it listens on; and a
// question that it dies of is not asked for ever.
var pauses = []time.Duration{50 * time.Millisecond, 250 * time.Millisecond}

// RoundTrip implements http.RoundTripper.
func (a again) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := a.way.RoundTrip(r)
	for _, pause := range pauses {
		var no *refusal
		if err == nil || r.Context().Err() != nil || errors.As(err, &no) || r.ContentLength != 0 && r.GetBody == nil {
			break
		}
		select {
		case <-r.Context().Done():
			return nil, r.Context().Err()
		case <-time.After(pause):
		}
		next := r.Clone(r.Context())
		if r.GetBody != nil {
			body, err := r.GetBody()
			if err != nil {
				return nil, err
			}
			next.Body = body
		}
		a.way.CloseIdleConnections() // they led to the one that died
		res, err = a.way.RoundTrip(next)
	}
	return res, err
}

// counted counts the bytes of a body.
type counted struct {
	io.ReadCloser
	by *counter
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.by.bytes.Add(uint64(n))
	return n, err
}

// proxy has the engine answer.
func (f *Front) proxy(a asked) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport: again{f.way},
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", hostOf(a.entry.ID), "engine"
			p.Out.URL.Path, p.Out.URL.RawPath, p.Out.URL.RawQuery = a.route.to, "", cleaned(p.In.URL.RawQuery)
			if a.route.to == "/query" {
				p.Out.Method, p.Out.URL.RawQuery = http.MethodGet, "q=SHOW+DATABASES"
			}
			p.Out.ContentLength = p.In.ContentLength
			p.Out.Header.Del("Cookie")
			p.Out.SetBasicAuth(engineUser, a.entry.Password)
		},
		ModifyResponse: func(res *http.Response) error {
			if res.StatusCode == http.StatusUnauthorized { // the password is ours: what answers is no engine of ours
				return errors.New("what answers does not know us")
			}
			if res.StatusCode < 400 {
				return nil
			}
			if err := reworded(a.entry, res); err != nil {
				return err
			}
			a.count.errors.Add(1)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			var long *http.MaxBytesError
			var no *refusal
			switch {
			case r.Context().Err() != nil:
				a.count.errors.Add(1)
				panic(http.ErrAbortHandler)
			case errors.As(err, &long):
				err = tooLong(a.route)
			case errors.As(err, &no):
			default:
				f.log.Warn("an engine did not answer", "series", a.entry.ID.String(), "protocol", a.route.protocol, "err", err)
				err = refuse(http.StatusBadGateway, "unavailable", "the engine of %s broke off before it answered: ask again, or write fewer values at once; what is written twice is there once", a.entry.ID.Short())
			}
			f.refused(w, r, a, err)
		},
		ErrorLog:   f.quiet,
		BufferPool: buffers{},
	}
}

// reworded is an error that the engine tells in text, without what is the engine's own business; nil for one that is
// told in JSON, as clients of Prometheus read it.
func reworded(e Entry, res *http.Response) error {
	if !strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain") {
		return nil
	}
	var from io.Reader = io.LimitReader(res.Body, 64<<10)
	if res.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(from)
		if err != nil {
			return nil
		}
		from = io.LimitReader(z, 64<<10)
	}
	b, err := io.ReadAll(from)
	if err != nil {
		return err
	}
	text := strings.TrimSpace(string(b))
	if strings.Contains(text, "read-only mode") {
		return refuse(http.StatusServiceUnavailable, "unavailable", "%s is read only: less than %s are free on its disk; make room, and it takes values again", e.ID.Short(), sizeOf(leastFree))
	}
	if i := strings.LastIndex(text, "requestURI: "); i >= 0 { // it begins with who asked for what
		_, text, _ = strings.Cut(text[i:], "; ")
	}
	return refuse(res.StatusCode, "invalid", "%s", cut(text))
}

// dial connects to an engine, and waits for one that starts again. What is asked has not been sent by then, so nothing
// is asked twice.
func (f *Front) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	waits := false
	for until := time.Now().Add(holdFor); ; {
		f.mu.RLock()
		e, ok := f.entries[f.hosts[host]]
		f.mu.RUnlock()
		if !ok || e.Down != "" {
			return nil, refuse(http.StatusServiceUnavailable, "unavailable", "the series was stopped")
		}
		if e.Port != 0 {
			c, err := (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", strconv.Itoa(e.Port)))
			if err == nil || ctx.Err() != nil {
				return c, err
			}
		}
		if !waits {
			select {
			case f.held <- struct{}{}:
				waits = true
				defer func() { <-f.held }()
			default:
				return nil, refuse(http.StatusServiceUnavailable, "unavailable", "the engine of %s starts, and %d requests wait for it already: try again", e.ID.Short(), mostHeld)
			}
		}
		if time.Now().After(until) {
			return nil, refuse(http.StatusServiceUnavailable, "unavailable", "the engine of %s does not answer; tenfold status says why", e.ID.Short())
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(againIn):
		}
	}
}

// buffers are what bodies are copied through.
type buffers struct{}

var pool = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// Get implements httputil.BufferPool.
func (buffers) Get() []byte { return *pool.Get().(*[]byte) }

// Put implements httputil.BufferPool.
func (buffers) Put(b []byte) { pool.Put(&b) }
