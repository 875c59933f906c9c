package httpcache

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// passing is how a request goes through on its own.
type passing struct {
	status string                                                    // for Cache-Status
	head   func(status int, h http.Header)                           // sees the final header before the client
	store  func(status int, h http.Header, v verdict) (allowed bool) // nil: never
	part   bool                                                      // a 206 may be stored
}

func storeAny(_ int, _ http.Header, v verdict) bool { return v.store }

// pass sends a request through by itself: nobody waits for it. What can be stored is kept as it goes by.
func (h *handler) pass(w http.ResponseWriter, q *request, p passing) {
	pw := &passWriter{ResponseWriter: w, c: h.c, q: q, p: p, sent: q.now, stamp: h.c.purges.stamp()}
	h.next.ServeHTTP(pw, q.r)
	if !pw.decided {
		pw.WriteHeader(http.StatusOK)
	}
	if pw.tee {
		pw.keep()
	}
}

type passWriter struct {
	http.ResponseWriter
	c       *Cache
	q       *request
	p       passing
	sent    time.Time
	stamp   uint64
	decided bool

	tee     bool // the body is kept
	got     time.Time
	status  int
	header  http.Header
	verdict verdict
	vary    []varied
	span    *span
	body    []byte
}

func (w *passWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *passWriter) WriteHeader(status int) {
	if w.decided || status >= 100 && status < 200 {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.decided = true
	h := w.Header()
	w.got = w.c.now()
	if w.p.head != nil {
		w.p.head(status, h)
		w.stamp = w.c.purges.stamp() // the response itself is newer than what it invalidates
	}
	if w.p.store != nil {
		w.consider(status, h)
	}
	h.Del("Surrogate-Key")
	h.Del("Cache-Tag")
	member := w.p.status
	if w.tee {
		member += "; stored"
	}
	h.Add("Cache-Status", member)
	w.ResponseWriter.WriteHeader(status)
}

// consider decides whether the body is kept.
func (w *passWriter) consider(status int, h http.Header) {
	as := status
	if status == http.StatusPartialContent && w.p.part {
		w.span = parseContentRange(h["Content-Range"])
		if w.span == nil {
			return
		}
		as = http.StatusOK
	}
	v := judge(w.q, as, h, w.sent, w.got)
	if status != http.StatusNotModified {
		w.c.routes.note(w.q, status, v.store && v.share, w.got)
	}
	if n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); err == nil && n > w.c.maxBody.Load() {
		return
	}
	if !w.p.store(status, h, v) {
		w.c.counts.uncacheable.Add(1)
		return
	}
	w.vary = selection(w.q, h)
	if mayCompress(status, h, v.noTransform) && !listHas(h["Vary"], "Accept-Encoding") {
		h.Add("Vary", "Accept-Encoding")
	}
	w.tee, w.status, w.verdict, w.header = true, status, v, h.Clone()
}

func (w *passWriter) Write(p []byte) (int, error) {
	if !w.decided {
		w.WriteHeader(http.StatusOK)
	}
	n, err := w.ResponseWriter.Write(p)
	if w.tee {
		if err != nil || int64(len(w.body)+n) > w.c.maxBody.Load() {
			w.tee, w.body = false, nil
		} else {
			w.body = append(w.body, p[:n]...)
		}
	}
	return n, err
}

// ReadFrom lets the connection take the body straight from its source when it is not kept.
func (w *passWriter) ReadFrom(r io.Reader) (int64, error) {
	if !w.decided {
		w.WriteHeader(http.StatusOK)
	}
	if w.tee {
		return io.Copy(struct{ io.Writer }{w}, r)
	}
	return io.Copy(w.ResponseWriter, r)
}

// Hijack gives the connection away, for an upgrade.
func (w *passWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.decided = w.decided || err == nil
	return conn, rw, err
}

// Flush sends what was written so far.
func (w *passWriter) Flush() {
	if !w.decided {
		w.WriteHeader(http.StatusOK)
	}
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// keep stores a response that went by whole.
func (w *passWriter) keep() {
	n, err := strconv.Atoi(w.header.Get("Content-Length"))
	if w.q.r.Method != http.MethodHead && err == nil && n != len(w.body) && bodyAllowed(w.status) {
		return
	}
	if w.span != nil {
		w.keepPart()
		return
	}
	w.c.store(newEntry(w.q, w.verdict, w.status, w.header, w.vary, w.body, nil, w.got), w.stamp)
}

// keepPart stores a part; joined to a stored one of the same representation when they touch
// (RFC 9111 §3.4), and as a whole when nothing is missing.
func (w *passWriter) keepPart() {
	s := w.span
	if int64(len(w.body)) != s.Last-s.First+1 || s.Total < 0 {
		return
	}
	h, body := w.header, w.body
	_, list := w.c.memory.find([]byte(w.q.key))
	for _, e := range list {
		p := e.part
		if p == nil || p.Total != s.Total || !e.matches(headerFields(w.q.r.Header)) || !strong(e.etag()) || e.etag() != h.Get("Etag") ||
			p.First > s.Last+1 || s.First > p.Last+1 || max(p.Last, s.Last)-min(p.First, s.First) >= w.c.maxBody.Load() {
			continue
		}
		joined := make([]byte, max(p.Last, s.Last)-min(p.First, s.First)+1)
		first := min(p.First, s.First)
		copy(joined[p.First-first:], e.body)
		copy(joined[s.First-first:], body)
		s, body = &span{first, first + int64(len(joined)) - 1, s.Total}, joined
	}
	status := w.status
	h.Del("Content-Range")
	if s.First == 0 && s.Last == s.Total-1 {
		s, status = nil, http.StatusOK
	}
	w.c.store(newEntry(w.q, w.verdict, status, h, w.vary, body, s, w.got), w.stamp)
}

// parseContentRange reads "bytes first-last/total" (RFC 9110 §14.4); nil: it is not that.
func parseContentRange(lines []string) *span {
	if len(lines) != 1 {
		return nil
	}
	unit, rest, ok := strings.Cut(strings.TrimSpace(lines[0]), " ")
	place, total, ok2 := strings.Cut(strings.TrimSpace(rest), "/")
	first, last, ok3 := strings.Cut(place, "-")
	if !ok || !ok2 || !ok3 || !strings.EqualFold(unit, "bytes") {
		return nil
	}
	s := &span{position(first), position(last), position(total)}
	if total == "*" {
		s.Total = -1
	} else if s.Total < 0 {
		return nil
	}
	if s.First < 0 || s.Last < s.First || s.Total >= 0 && s.Last >= s.Total || s.Last == 1<<63-1 {
		return nil
	}
	return s
}

// headUpdate applies the response to a HEAD to the stored response to a GET (RFC 9111 §4.3.5).
func (c *Cache) headUpdate(q *request, e *entry, status int, h http.Header) {
	if e == nil || status != http.StatusOK || e.status != status || !e.whole() {
		return
	}
	stamp := c.purges.stamp()
	n, err := strconv.Atoi(h.Get("Content-Length"))
	if differs(h.Get("Etag"), e.etag()) || differs(h.Get("Last-Modified"), e.modified()) || err == nil && n != len(e.body) {
		c.discard(e)
		return
	}
	if fresh, v := c.update(q, e, h, q.now, c.now()); v.store {
		c.store(fresh, stamp)
	}
}

func differs(got, have string) bool { return got != "" && got != have }
