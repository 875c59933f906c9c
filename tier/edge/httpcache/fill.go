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

// run sends the request through next and ends the fill. ctx is Run's.
func (f *fill) run(ctx context.Context, next http.Handler) {
	defer context.AfterFunc(ctx, f.cancel)()
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

// leave says that one less waits. What is left without anybody is finished for the store's sake, for a
// time; what is not stored ends.
func (f *fill) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting--
	f.wake()
	if f.waiting == 0 && !f.over {
		if f.mode == letting || f.windowed {
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

// decide chooses the mode when the header has come.
func (f *fill) decide(w *fillWriter, status int) {
	c, e, now := f.c, f.stale, f.c.now()
	h := w.header
	switch {
	case w.validating && status == http.StatusNotModified:
		if fresh, ok := f.freshen(h, now); ok {
			c.counts.revalidated.Add(1)
			f.answer(fresh, "tenfold; fwd=stale; fwd-status=304", fresh.fresh(now))
		} else {
			w.again, w.decided = true, true
		}
		return
	case e != nil && failure(status) && e.staleOn(now, f.down.Load()):
		c.counts.stale.Add(1)
		e.failing.Store(now.Add(erredFor).UnixNano())
		f.answer(e, fmt.Sprintf("tenfold; fwd=stale; fwd-status=%d; detail=stale-if-error", status), true)
		return
	}
	v := judge(f.q, status, h, f.sent, now)
	if n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); err == nil && n > c.maxBody {
		v.store, v.share = false, false
	}
	shared := v.store && v.share && !f.down.Load()
	if e != nil && !v.store && (status < 400 || status == 404 || status == 410) && !f.q.special() {
		c.discard(e) // the origin has another answer now, though none to keep
	}
	c.routes.note(f.q, status, shared, now)
	names, _ := varyNames(h)
	var direct http.ResponseWriter
	f.mu.Lock()
	f.status, f.verdict, f.got, f.vary = status, v, now, selecting(names, f.q.r.Header)
	switch {
	case shared:
		f.mode = streaming
	case v.store && !f.down.Load():
		f.mode = exclusive
	default:
		f.mode = letting
		direct = f.leader
		c.counts.uncacheable.Add(1)
	}
	if f.mode != letting {
		if mayCompress(status, h, v.noTransform) && !listHas(h["Vary"], "Accept-Encoding") {
			h.Add("Vary", "Accept-Encoding")
		}
		f.header, f.tags = h.Clone(), tagsOf(h, f.q.rule)
		f.header.Del("Surrogate-Key")
		f.header.Del("Cache-Tag")
	}
	f.wake()
	f.mu.Unlock()
	f.depart(names)
	switch {
	case direct != nil:
		<-f.yielded
		f.handOver(w, direct, status)
	case f.mode == letting:
		f.cancel()
	}
}

// handOver writes the header of a response that is not shared to the leader, which has yielded its writer
// and waits for the end.
func (f *fill) handOver(w *fillWriter, direct http.ResponseWriter, status int) {
	w.direct = direct
	h := direct.Header()
	for name, values := range w.header {
		h[name] = values
	}
	h.Del("Surrogate-Key")
	h.Del("Cache-Tag")
	h.Add("Cache-Status", forwardReason(f.q, f.stale, false)+"; fwd-status="+strconv.Itoa(status))
	direct.WriteHeader(status)
}

// depart ends waiting for what cannot be shared; for what varies, it notes by what.
func (f *fill) depart(names []string) {
	if f.flight == "" {
		return
	}
	fl := &f.c.flights
	fl.mu.Lock()
	defer fl.mu.Unlock()
	switch f.mode {
	case streaming:
		if len(names) > 0 {
			fl.vary[f.q.key] = names
			delete(fl.m, f.flight)
			f.flight = f.q.key + secondary(names, f.q.r.Header)
			if fl.m[f.flight] == nil {
				fl.m[f.flight] = f
			}
		}
	case letting, exclusive:
		f.unregister()
	}
}

// unregister takes the fill out of flights, under their lock.
func (f *fill) unregister() {
	fl := &f.c.flights
	if fl.m[f.flight] == f {
		delete(fl.m, f.flight)
	}
}

// discard takes one entry out of both tiers.
func (c *Cache) discard(e *entry) {
	c.memory.drop([]*entry{e})
	if c.disk != nil {
		c.disk.forget([]*entry{e})
	}
}

// failure are the errors that RFC 5861 §4 speaks of.
func failure(status int) bool {
	return status == 500 || status == 502 || status == 503 || status == 504
}

// answer ends waiting with an entry; shared: for followers too.
func (f *fill) answer(e *entry, how string, shared bool) {
	f.mu.Lock()
	f.result, f.how, f.mode, f.verdict.share = e, how, answering, shared
	f.wake()
	f.mu.Unlock()
	if f.flight != "" {
		f.c.flights.mu.Lock()
		f.unregister()
		f.c.flights.mu.Unlock()
	}
}

// freshen makes of the stored response and a 304 the response that holds from now on, and stores it
// (RFC 9111 §4.3.4, §3.2). false: the 304 speaks of another representation.
func (f *fill) freshen(h http.Header, now time.Time) (*entry, bool) {
	e := f.stale
	if tag := h.Get("Etag"); strong(tag) && strong(e.etag()) && tag != e.etag() {
		return nil, false
	}
	fresh, v := f.c.update(f.q, e, h, f.sent, now)
	if v.store {
		f.c.store(fresh, f.stamp)
	}
	return fresh, true
}

// update makes an entry with the stored body and header, and the fields of a newer response in it.
func (c *Cache) update(q *request, e *entry, h http.Header, sent, now time.Time) (*entry, verdict) {
	merged := e.header.Clone()
	if _, ok := h["Date"]; !ok {
		merged.Set("Date", now.UTC().Format(http.TimeFormat))
	}
	for name, values := range storedHeader(h, nil) {
		switch name {
		case "Content-Length", "Content-Encoding", "Content-Range":
		default:
			merged[name] = values
		}
	}
	if a, ok := h["Age"]; ok {
		merged["Age"] = a
	}
	v := judge(q, e.status, merged, sent, now)
	vary := e.vary
	if _, ok := h["Vary"]; ok {
		vary = selection(q, h)
	}
	fresh := newEntry(q, v, e.status, merged, vary, e.body, e.part, now)
	if len(h["Surrogate-Key"])+len(h["Cache-Tag"]) == 0 {
		fresh.tags = e.tags
	}
	return fresh, v
}

// write takes a piece of the body.
func (f *fill) write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mode != streaming && f.mode != exclusive {
		return len(p), nil // the body of a 304, of an error that is not shown, or of what nobody waits for
	}
	if f.body == nil {
		if n, err := strconv.Atoi(f.header.Get("Content-Length")); err == nil && n <= int(f.c.maxBody) {
			f.body = make([]byte, 0, n)
		}
	}
	f.body = append(f.body, p...)
	f.c.filling.Add(int64(len(p)))
	if !f.windowed && (int64(len(f.body)) > f.c.maxBody || f.c.filling.Load() > f.c.room) {
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
