package httpcache

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// flights are the requests to the origin that others may wait for, by key and, where it is known, by the
// fields that select the response.
type flights struct {
	mu   sync.Mutex
	m    map[string]*fill
	vary map[string][]string // by key: what responses under way vary by
}

// A fill is one request to the origin on a goroutine of the cache, and all who wait for its response. The
// client that caused it is one of those: that it leaves harms nobody.
//
// When the header has come, decide chooses what becomes of it, the mode. A response that can be shared is
// streamed to everybody as it arrives and stored when it came whole. One that cannot goes to the client
// that caused it, written by the origin's goroutine directly; the others are let go at once, all together.
type fill struct {
	c      *Cache
	q      *request // of the cache's own: its request lives as long as the fill
	flight string   // its key in flights; "": nobody else waits
	stale  *entry   // what is to be validated, or served in place of an error
	sent   time.Time
	stamp  uint64
	down   atomic.Bool // Unreachable was called
	cancel context.CancelFunc
	// yielded is closed when the leader, seeing mode letting, leaves its writer to the fill.
	yielded chan struct{}

	mu       sync.Mutex // owns what follows
	changed  chan struct{}
	mode     mode
	leader   http.ResponseWriter // nil: nobody, or gone
	waiting  int
	idle     *time.Timer // runs while nobody waits
	ending   bool        // Run ends: nothing is fetched for the store's sake alone
	interims []interim
	status   int
	header   http.Header // of a streamed response; not changed
	got      time.Time   // when it came
	vary     []varied    // what selects it
	tags     []string
	verdict  verdict
	body     []byte
	base     int64 // position of body's first byte, once windowed
	windowed bool  // the body is too large to store: only what readers still need is kept
	readers  map[*reader]struct{}
	trailer  http.Header
	over     bool // the origin's handler returned
	cut      bool // and the response did not come whole
	panicked any
	result   *entry
	how      string // Cache-Status of result
}

type mode uint8

const (
	pending   mode = iota
	streaming      // to everybody; stored at the end
	exclusive      // to the leader alone; stored at the end
	answering      // with result
	letting        // the response goes to the leader; followers go their own way
	failed         // there was no response
)

type interim struct {
	status int
	header http.Header
}

// reader is one client's place in a streamed body; under the fill's mu.
type reader struct{ pos int64 }

const (
	graceFor  = 30 * time.Second // how long a fill goes on that nobody waits for
	windowMax = 1 << 20          // bytes kept of a body that is not stored
)

func newFill(c *Cache, w http.ResponseWriter, q *request, stale *entry, flight string) *fill {
	own := *q
	f := &fill{c: c, flight: flight, stale: stale, stamp: c.purges.stamp(), changed: make(chan struct{}), yielded: make(chan struct{}), leader: w, readers: map[*reader]struct{}{}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(q.r.Context()))
	f.cancel = cancel
	ctx = context.WithValue(ctx, unreachableKey{}, &f.down)
	own.r = q.r.Clone(ctx)
	own.r.Body = http.NoBody
	for _, name := range []string{"Range", "If-Range", "If-None-Match", "If-Modified-Since"} {
		own.r.Header.Del(name)
	}
	own.r.Method = http.MethodGet
	f.q = &own
	f.idle = time.AfterFunc(graceFor, cancel)
	if w != nil {
		f.waiting = 1
		f.idle.Stop()
	}
	return f
}

// run sends the request through next and ends the fill. ctx is Run's: when it ends, the fill goes on for
// those who wait, and for nobody else.
func (f *fill) run(ctx context.Context, next http.Handler) {
	defer context.AfterFunc(ctx, f.last)()
	defer f.cancel()
	for validate := f.stale != nil; ; validate = false {
		r := f.q.r
		if validate {
			validate = f.validators(r.Header)
		} else if f.stale != nil {
			r = r.Clone(r.Context())
			r.Header.Del("If-None-Match")
			r.Header.Del("If-Modified-Since")
		}
		f.sent = f.c.now()
		w := &fillWriter{f: f, header: http.Header{}, validating: validate}
		panicked := call(next, w, r)
		if panicked == nil && !w.decided {
			w.WriteHeader(http.StatusOK)
		}
		if !w.again {
			f.end(w, panicked)
			return
		}
	}
}

// call runs a handler and gives what it panicked with.
func call(next http.Handler, w http.ResponseWriter, r *http.Request) (panicked any) {
	defer func() {
		if panicked = recover(); panicked != nil && panicked != http.ErrAbortHandler {
			panicked = fmt.Sprintf("%v\n%s", panicked, debug.Stack())
		}
	}()
	next.ServeHTTP(w, r)
	return nil
}

// validators adds the preconditions that ask whether the stored response still holds (RFC 9111 §4.3.1).
func (f *fill) validators(h http.Header) bool {
	tag, modified := f.stale.etag(), f.stale.modified()
	if tag != "" {
		h.Set("If-None-Match", tag)
	}
	if modified != "" {
		h.Set("If-Modified-Since", modified)
	}
	return tag != "" || modified != ""
}

func (f *fill) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fill) enter() {
	f.mu.Lock()
	f.waiting++
	f.idle.Stop()
	f.mu.Unlock()
}

// last ends a fill that nobody waits for, now or when that is so.
func (f *fill) last() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ending = true; f.waiting == 0 {
		f.cancel()
	}
}

// leave says that one less waits. What is left without anybody is finished for the store's sake, for a
// time; what is not stored ends.
func (f *fill) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting--
	f.wake()
	if f.waiting == 0 && !f.over {
		if f.mode == letting || f.windowed || f.ending {
			f.cancel()
		} else {
			f.idle.Reset(graceFor)
		}
	}
}

// fillWriter is what the origin's handler writes to; on the fill's goroutine alone.
type fillWriter struct {
	f          *fill
	header     http.Header
	validating bool
	decided    bool
	again      bool                // the validation failed oddly: ask without preconditions
	direct     http.ResponseWriter // mode letting: the leader's
}

func (w *fillWriter) Header() http.Header { return w.header }

func (w *fillWriter) WriteHeader(status int) {
	if w.decided {
		return
	}
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		w.f.mu.Lock()
		w.f.interims = append(w.f.interims, interim{status, w.header.Clone()})
		w.f.wake()
		w.f.mu.Unlock()
		return
	}
	w.decided = true
	w.f.decide(w, status)
}

func (w *fillWriter) Write(p []byte) (int, error) {
	if !w.decided {
		w.WriteHeader(http.StatusOK)
	}
	if w.direct != nil {
		return w.direct.Write(p)
	}
	return w.f.write(p)
}

// Flush passes a flush on; who reads from the stream is flushed anyway whenever it has caught up.
func (w *fillWriter) Flush() {
	if !w.decided {
		w.WriteHeader(http.StatusOK)
	}
	if w.direct != nil {
		_ = http.NewResponseController(w.direct).Flush()
	}
}

// write takes a piece of the body.
func (f *fill) write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mode != streaming && f.mode != exclusive {
		return len(p), nil // the body of a 304, of an error that is not shown, or of what nobody waits for
	}
	if f.body == nil {
		if n, err := strconv.Atoi(f.header.Get("Content-Length")); err == nil && n <= int(f.c.maxBody.Load()) {
			f.body = make([]byte, 0, n)
		}
	}
	f.body = append(f.body, p...)
	f.c.filling.Add(int64(len(p)))
	if !f.windowed && (int64(len(f.body)) > f.c.maxBody.Load() || f.c.filling.Load() > f.c.room.Load()) {
		f.windowed = true
		f.mu.Unlock()
		f.c.flights.mu.Lock()
		f.unregister()
		f.c.flights.mu.Unlock()
		f.mu.Lock()
		if f.waiting == 0 {
			f.cancel()
		}
	}
	f.wake()
	for f.windowed && f.shrink() > windowMax && f.waiting > 0 {
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-changed:
			f.mu.Lock()
		case <-f.q.r.Context().Done():
			f.mu.Lock()
			return 0, context.Cause(f.q.r.Context())
		}
	}
	return len(p), nil
}

// shrink forgets what all readers have, and returns how much is left. Nothing goes while somebody waits
// who does not read yet.
func (f *fill) shrink() int {
	if f.waiting > len(f.readers) {
		return len(f.body)
	}
	low := f.base + int64(len(f.body))
	for r := range f.readers {
		low = min(low, r.pos)
	}
	if drop := low - f.base; drop > windowMax/4 {
		f.body = slices.Clone(f.body[drop:])
		f.base = low
		f.c.filling.Add(-drop)
	}
	return len(f.body)
}

// end closes the fill when the origin's handler has returned.
func (f *fill) end(w *fillWriter, panicked any) {
	f.idle.Stop()
	if f.flight != "" {
		defer func() {
			f.c.flights.mu.Lock()
			f.unregister()
			if _, ok := f.c.flights.m[f.flight]; !ok {
				delete(f.c.flights.vary, f.q.key)
			}
			f.c.flights.mu.Unlock()
		}()
	}
	if f.mode == pending && f.stale != nil && f.stale.staleOn(f.c.now(), true) {
		f.answer(f.stale, "tenfold; fwd=stale; detail=stale-if-error", true)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over, f.panicked = true, panicked
	f.c.filling.Add(-int64(len(f.body)))
	switch f.mode {
	case pending:
		f.mode = failed
	case streaming, exclusive:
		f.cut = panicked != nil || !f.windowed && !f.fullLength()
		f.trailer = trailers(w.header)
		if !f.cut && !f.windowed {
			f.result = newEntry(f.q, f.verdict, f.status, w.header, f.vary, slices.Clip(f.body), nil, f.got)
			f.c.store(f.result, f.stamp)
		}
	case letting:
		if w.direct != nil && panicked == nil {
			for name, values := range trailers(w.header) {
				w.direct.Header()[name] = values
			}
		}
	}
	f.wake()
}

// fullLength says whether as much came as Content-Length promised.
func (f *fill) fullLength() bool {
	n, err := strconv.Atoi(f.header.Get("Content-Length"))
	return err != nil || n == len(f.body) || !bodyAllowed(f.status)
}

// trailers are the trailer fields that a handler set, as net/http takes them.
func trailers(h http.Header) http.Header {
	out := http.Header{}
	for name, values := range h {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			out[name] = values
		}
	}
	for _, line := range h["Trailer"] {
		for _, name := range strings.Split(line, ",") {
			name = http.CanonicalHeaderKey(strings.TrimSpace(name))
			if v, ok := h[name]; ok && name != "" {
				out[name] = v
			}
		}
	}
	return out
}
