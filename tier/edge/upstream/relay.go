package upstream

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// relay passes the answer on whose head is in c.
func (x *exchange) relay(c *conn) error {
	x.result.FirstByte = time.Duration(clock() - x.start)
	h := &c.head
	x.result.Status = h.status
	if h.status == http.StatusSwitchingProtocols {
		return x.switchOver(c)
	}
	c.expect(0, nil)
	whole := false
	defer func() { x.end(c, whole) }()
	b := bodyOf(c, h, x.r.Method)
	if h.length > 0 && (h.status == http.StatusNoContent) || h.chunked && h.bodiless(x.r.Method) && x.r.Method != http.MethodHead {
		h.close = true // what follows belongs to nobody
	}
	x.settleSender(h)
	x.header(h, &b)
	x.begun = true
	x.w.WriteHeader(h.status)
	err := x.copy(&b, h)
	if err != nil {
		return err
	}
	whole = b.over()
	return nil
}

// settleSender decides what becomes of a request body that is still being sent when the answer
// comes. On HTTP/1 the client's connection is made full duplex, and closes after the answer.
func (x *exchange) settleSender(h *head) {
	s := x.sender
	if s == nil {
		return
	}
	s.begun.Store(true)
	if s.lastly.Load() {
		select { // all but done: the task has it all
		case <-s.done:
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
	select {
	case <-s.done:
		return
	default:
	}
	if x.r.ProtoMajor > 1 {
		return // streams of HTTP/2 are full duplex
	}
	if http.NewResponseController(x.w).EnableFullDuplex() != nil {
		s.stop.Store(true)
	}
	x.w.Header()["Connection"] = []string{"close"}
}

// header makes the client's header of the answer's.
func (x *exchange) header(h *head, b *body) {
	to := x.w.Header()
	h.copyTo(to)
	if !h.typed && b.end != endNow {
		if _, ok := to["Content-Type"]; !ok {
			to["Content-Type"] = nil // no server guesses it then
		}
	}
	if h.status == http.StatusNoContent || h.chunked || h.status < 200 {
		delete(to, "Content-Length")
	}
	if h.trailers {
		for _, f := range h.fields {
			if f.name == "Trailer" {
				to.Add("Trailer", f.value)
			}
		}
	}
	x.service.stick(x.policy, x.w, x.r, x.result.Endpoint)
}

// copy passes the body on. What came is flushed whenever more must be waited for; a short body of
// known length is not: its end is near.
func (x *exchange) copy(b *body, h *head) error {
	var idle waiter = x
	if b.end == endCount && b.left <= 2*bufferSize && !h.events {
		idle = unhurried{x}
	}
	x.flushed = false
	for {
		p, err := b.next(idle)
		if len(p) > 0 {
			n, werr := x.w.Write(p)
			x.result.Bytes += int64(n)
			x.flushed = false
			if werr != nil {
				return ErrClientGone
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return x.blame(err)
		}
	}
	x.trailers(b)
	return nil
}

// trailers passes on what follows a chunked body.
func (x *exchange) trailers(b *body) {
	if len(b.trailers) == 0 {
		return
	}
	x.doFlush() // trailers need a body in chunks
	announced := x.w.Header()["Trailer"]
	for _, f := range b.trailers {
		name := f.name
		if !connectionLists(announced, name) {
			name = http.TrailerPrefix + name
		}
		x.w.Header().Add(name, f.value)
	}
}

// waits implements waiter: before a wait for the task, the client gets what there is.
func (x *exchange) waits() (time.Duration, error) {
	if !x.flushed {
		x.flushed = true
		if err := x.doFlush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return 0, ErrClientGone
		}
	}
	return x.policy.Idle, nil
}

// unhurried waits without a flush.
type unhurried struct{ x *exchange }

func (u unhurried) waits() (time.Duration, error) { return u.x.policy.Idle, nil }

func (x *exchange) doFlush() error {
	if x.flush == nil {
		switch f := x.w.(type) {
		case interface{ FlushError() error }:
			x.flush = f.FlushError
		default:
			x.flush = http.NewResponseController(x.w).Flush
		}
	}
	return x.flush()
}

// abort ends a client's stream so that what it got cannot look whole.
func abort(w http.ResponseWriter, r *http.Request) {
	if !r.ProtoAtLeast(1, 1) {
		// An HTTP/1.0 answer without a length ends with its connection: only a reset shows the break.
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			if t, ok := c.(interface{ SetLinger(int) error }); ok {
				t.SetLinger(0)
			}
			c.Close()
		}
	}
	panic(http.ErrAbortHandler)
}
