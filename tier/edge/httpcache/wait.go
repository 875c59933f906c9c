package httpcache

import (
	"net/http"
)

// lead answers the client that caused the fill.
func (f *fill) lead(w http.ResponseWriter, q *request, fwd string) {
	defer f.leave()
	told, gone := 0, q.r.Context().Done()
	yielded := false
	for {
		f.mu.Lock()
		mode, changed, over := f.mode, f.changed, f.over
		told = f.tell(w, q, told) // unlocks
		switch mode {
		case streaming, exclusive:
			f.stream(w, q, fwd+"; stored")
			return
		case answering:
			f.c.respondLate(w, q, f.result, f.how)
			return
		case failed:
			f.abort()
		case letting:
			if !yielded {
				yielded = true
				close(f.yielded)
			}
			if over {
				if f.panicked != nil {
					f.abort()
				}
				return
			}
		}
		select {
		case <-changed:
		case <-gone:
			f.mu.Lock()
			if f.mode == letting {
				f.cancel() // and wait: the origin's goroutine has the writer
				gone = nil
				f.mu.Unlock()
				continue
			}
			f.leader = nil
			f.mu.Unlock()
			return
		}
	}
}

// follow answers a client that waits for another one's fill. ok is false when the response is not for it:
// then it goes its own way, by what again says.
func (f *fill) follow(w http.ResponseWriter, q *request) (again *released, ok bool) {
	defer f.leave()
	told := 0
	fields := headerFields(q.r.Header)
	for {
		f.mu.Lock()
		mode, changed, share := f.mode, f.changed, f.verdict.share
		told = f.tell(w, q, told) // unlocks
		switch mode {
		case streaming:
			if r := mismatch(f.vary, fields); r != nil {
				return r, false
			}
			f.stream(w, q, "tenfold; fwd=uri-miss; collapsed")
			return nil, true
		case answering:
			if !share {
				return &released{}, false
			}
			if r := mismatch(f.result.vary, fields); r != nil {
				return r, false
			}
			f.c.respondLate(w, q, f.result, f.how+"; collapsed")
			return nil, true
		case exclusive, letting, failed:
			return &released{}, false
		}
		select {
		case <-changed:
		case <-q.r.Context().Done():
			return &released{}, false
		}
	}
}

// mismatch is not nil when a response was selected by other fields.
func mismatch(vary []varied, fields Fields) *released {
	var r released
	matched := true
	for i := range vary {
		matched = matched && vary[i].matches(fields, "")
		r.vary = append(r.vary, vary[i].Name)
	}
	if matched {
		return nil
	}
	return &r
}

// respondLate answers from an entry after a wait.
func (c *Cache) respondLate(w http.ResponseWriter, q *request, e *entry, how string) {
	q.now = c.now()
	if e.part != nil {
		panic(http.ErrAbortHandler) // a part is never revalidated
	}
	c.respond(w, q, e, how)
}

// tell passes on interim responses (RFC 9110 §15.2) that the client has not had yet. Called under mu,
// which it releases.
func (f *fill) tell(w http.ResponseWriter, q *request, told int) int {
	interims := f.interims
	f.mu.Unlock()
	if !q.r.ProtoAtLeast(1, 1) {
		return len(interims)
	}
	for _, i := range interims[told:] {
		h := w.Header()
		for name, values := range i.header {
			h[name] = values
		}
		w.WriteHeader(i.status)
		for name := range i.header {
			delete(h, name)
		}
	}
	return len(interims)
}

// abort ends a client's response as the origin's ended: not at all.
func (f *fill) abort() {
	if f.panicked != nil && f.panicked != http.ErrAbortHandler {
		panic(f.panicked)
	}
	panic(http.ErrAbortHandler)
}

// stream sends the response to one client as it arrives. What was cut short never looks complete: the
// connection breaks.
func (f *fill) stream(w http.ResponseWriter, q *request, status string) {
	at := &reader{}
	f.mu.Lock()
	if f.base > 0 {
		f.mu.Unlock()
		panic(http.ErrAbortHandler) // came too late for a body that is not kept; it was not to be found any more
	}
	f.readers[at] = struct{}{}
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.readers, at)
		f.wake()
		f.mu.Unlock()
	}()

	h := w.Header()
	for name, values := range f.header {
		h[name] = append([]string(nil), values...)
	}
	h.Add("Cache-Status", status)
	if f.status == http.StatusOK && notModified(q.r.Header, f.header, q.now) {
		writeNotModified(w)
		return
	}
	w.WriteHeader(f.status)
	flush := http.NewResponseController(w)
	for {
		f.mu.Lock()
		piece := f.body[at.pos-f.base:]
		over, cut, changed := f.over, f.cut, f.changed
		f.mu.Unlock()
		if len(piece) > 0 {
			if _, err := w.Write(piece); err != nil {
				return
			}
			f.mu.Lock()
			at.pos += int64(len(piece))
			if f.windowed {
				f.wake()
			}
			f.mu.Unlock()
			continue
		}
		if cut {
			panic(http.ErrAbortHandler)
		}
		if over {
			for name, values := range f.trailer {
				h[name] = values
			}
			return
		}
		_ = flush.Flush()
		select {
		case <-changed:
		case <-q.r.Context().Done():
			return
		}
	}
}
