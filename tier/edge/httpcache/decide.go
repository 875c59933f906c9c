package httpcache

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

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
	if n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); err == nil && n > c.maxBody.Load() {
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
