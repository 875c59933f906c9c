package upstream

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"tenfold/tier/edge/wire"
)

// Direct is a GET on its way to a task and back without a net/http request: half of what a proxied
// request costs is that request, its header map and the answer's. It sends what is plain over a connection
// that is at hand, once. All else is an exchange's: Serve does it from the beginning, or goes on with what
// came (see Service.Direct).
//
// It implements wire.Passing but for Fields, and io.Closer for when it is carried.
type Direct struct {
	service *Service
	policy  *Policy
	c       *conn
	body    body
	err     error       // why there is no answer
	taken   atomic.Bool // by an exchange
	begun   int64
	took    time.Duration
}

// Direct sends r to a task and reads the head of the answer. trace is a whole field line that stands for
// r's traceparent and tracestate; nil: those pass on. client ends when nobody waits for the answer.
//
// nil: nothing was sent that Serve may not send. Otherwise Plain says whether the answer, of a known length
// or without a body, can be passed on as it is; if not, the Direct is to be carried to Serve, which
// answers with it, its error included.
func (s *Service) Direct(r *wire.Request, trace []byte, client context.Context) *Direct {
	p := s.policy.Load()
	if p.Sticky > 0 || p.Hedge != (Hedge{}) {
		return nil
	}
	if len(p.Trust) > 0 {
		peer := r.Remote.Addr().Unmap().WithZone("")
		for _, t := range p.Trust {
			if t.Contains(peer) {
				return nil // what it says of its client is passed on
			}
		}
	}
	set, now := s.set.Load(), clock()
	if set.soonest() != math.MaxInt64 {
		return nil // somebody has to find out whether a task is back
	}
	e := set.choose(now, nil, p.SlowStart)
	if e == nil {
		return nil
	}
	e.inFlight.Add(1)
	if e.draining.Load() {
		e.leave()
		return nil
	}
	c := e.pool.get(now, false)
	if c == nil {
		e.leave()
		return nil
	}
	out, ok := appendDirect(c.out[:0], r, trace)
	if c.out = out; !ok {
		e.pool.put(c, now)
		e.leave()
		return nil
	}
	d := &Direct{service: s, policy: p, c: c, begun: now}
	return d.send(client)
}

// send sends c.out and reads the head.
func (d *Direct) send(client context.Context) *Direct {
	c, e := d.c, d.c.ep
	e.requests.Add(1)
	c.asked = d.begun
	c.answered = false
	c.begin(client, d.policy.Timeout)
	err := c.ask()
	if err == nil {
		err = c.readHead()
	}
	if err == nil && c.head.status >= 200 {
		c.answered = true
		err = c.whole(http.MethodGet)
	}
	if err == nil && c.head.status == http.StatusSwitchingProtocols {
		err = errMalformed("101 that nobody asked for")
	}
	if err != nil {
		return d.failed(c.why(err))
	}
	if c.head.status >= 200 {
		x := exchange{service: d.service, policy: d.policy}
		x.judge(e, c, nil)
		d.took = time.Duration(clock() - d.begun)
		d.body = bodyOf(c, &c.head, http.MethodGet)
	}
	return d
}

// failed draws the consequences of a try without an answer: nil when Serve may send the request again.
func (d *Direct) failed(err error) *Direct {
	c, e := d.c, d.c.ep
	var bad errMalformed
	cause, malformed := c.cause(), errors.As(err, &bad)
	unseen := c.out64 == 0 || c.unseen(err)
	c.end()
	c.discard()
	if malformed || cause == ErrSlow {
		e.answered(0)
		e.bad(clock(), &d.policy.Eject)
	}
	e.leave()
	d.c = nil
	switch {
	case cause != nil:
		d.err = cause
	case malformed:
		d.err = err
	case unseen, d.service.budget.take(clock(), &d.policy.Retry):
		return nil
	default:
		d.err = err
	}
	return d
}

// Plain says that the answer can be passed on as it is.
func (d *Direct) Plain() bool {
	if d.err != nil {
		return false
	}
	h := &d.c.head
	return h.status >= 200 && !h.chunked && !h.trailers && !h.events && (d.body.end == endCount || d.body.end == endNow && h.length <= 0)
}

// Status is the answer's.
func (d *Direct) Status() int { return d.c.head.status }

// Value implements what judges an answer by its fields: a field's value and in how many lines it stands;
// of several, the first. name is canonical.
func (d *Direct) Value(name string) (value string, lines int) {
	for i := range d.c.head.fields {
		if f := &d.c.head.fields[i]; f.name == name {
			if lines++; lines == 1 {
				value = f.value
			}
		}
	}
	return value, lines
}

// AppendFields appends the fields that pass on, each with its CRLF, but for those that omit names in
// canonical form; dated: Date is among them.
func (d *Direct) AppendFields(b []byte, omit func(name string) bool) (out []byte, dated bool) {
	h := &d.c.head
	for i := range h.fields {
		f := &h.fields[i]
		switch {
		case hopByHop(f.name), len(h.hop) > 0 && h.listed(f.name), omit(f.name):
			continue
		case f.name == "Content-Length" && h.status == http.StatusNoContent:
			continue
		}
		dated = dated || f.name == "Date"
		b = appendField(b, f.name, f.value)
	}
	return b, dated
}

// Next implements wire.Passing.
func (d *Direct) Next() ([]byte, error) {
	c, b := d.c, &d.body
	if b.end == endNow || b.left == 0 {
		return nil, io.EOF
	}
	if int64(c.w-c.r) < b.left && c.lent == nil {
		// A long body: what follows is there already, more often than not, and goes in the same write.
		c.expect(0, nil)
		c.spread()
		if c.raw != nil && c.w < len(c.buf) && c.raw.Read(c.try) == nil && c.n > 0 {
			c.w += c.n
		}
	}
	return b.view(d)
}

// waits implements waiter: what came is with the client.
func (d *Direct) waits() (time.Duration, error) { return d.policy.Idle, nil }

// Done implements wire.Passing.
func (d *Direct) Done(_ int64, whole bool) {
	d.service.budget.request(d.begun)
	x := exchange{service: d.service, policy: d.policy}
	x.end(d.c, whole && d.body.over())
}

// Took is how long the task took to the head of the answer, or to its end if that is short.
func (d *Direct) Took() time.Duration { return d.took }

// take says that the exchange that asks has it from now on.
func (d *Direct) take(s *Service) bool { return d.service == s && !d.taken.Swap(true) }

// Close implements io.Closer: an answer that nobody took is nobody's.
func (d *Direct) Close() error {
	if d.taken.Swap(true) || d.c == nil {
		return nil
	}
	d.c.end()
	d.c.discard()
	d.c.ep.leave()
	return nil
}

// adopt goes on with a request that was sent, and whose head came.
func (x *exchange) adopt(d *Direct) error {
	if d.err != nil {
		return x.blame(d.err)
	}
	c := d.c
	x.result.Endpoint, x.result.Release, x.result.Tries = c.ep.id, c.ep.release, 1
	c.follow(x.r.Context())
	if c.head.status < 200 {
		x.early(&c.head)
		err := x.await(c)
		if c, err = x.judge(c.ep, c, err); err != nil {
			d.c.end()
			d.c.discard()
			return x.blame(err)
		}
	}
	return x.relay(c)
}

// appendDirect writes the head of a request as exchange.appendHead does. false: there is something that
// is not plain in it.
func appendDirect(b []byte, r *wire.Request, trace []byte) ([]byte, bool) {
	b = append(append(append(b, "GET "...), r.Target...), " HTTP/1.1\r\nHost: "...)
	b = append(append(b, r.Host...), "\r\n"...)
	fields := r.Fields()
	for i := range fields {
		f := &fields[i]
		switch f.Name {
		case "connection":
			if !strings.EqualFold(f.Value, "keep-alive") && !strings.EqualFold(f.Value, "close") {
				return b, false
			}
			continue
		case "te", "trailer", "transfer-encoding", "upgrade", "expect":
			return b, false
		case "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "forwarded":
			continue
		case "traceparent", "tracestate":
			if trace != nil {
				continue
			}
		}
		if len(f.Name) > 12 && f.Name[:12] == "x-forwarded-" {
			continue
		}
		b = appendCanonical(b, f.Name)
		b = append(append(append(b, ": "...), f.Value...), "\r\n"...)
	}
	b = append(b, trace...)
	b = append(b, "X-Forwarded-For: "...)
	if r.Remote.IsValid() {
		b = r.Remote.Addr().AppendTo(b)
	} else {
		b = append(b, "unknown"...) // RFC 7239 §6.2
	}
	b = append(b, "\r\nX-Forwarded-Proto: http"...)
	if r.Secure {
		b = append(b, 's')
	}
	b = append(b, "\r\nX-Forwarded-Host: "...)
	return append(append(b, r.Host...), "\r\n\r\n"...), true
}

// appendCanonical appends a field's name, which is in lower case, as Go and most others write it: what
// an app's own code compares may be that.
func appendCanonical(b []byte, name string) []byte {
	first := true
	for i := range len(name) {
		c := name[i]
		if first && 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		b = append(b, c)
		first = c == '-'
	}
	return b
}
