package edge

import (
	"context"
	"io"
	"strings"
	"sync"
	"time"

	"tenfold/tier/edge/httpcache"
	"tenfold/tier/edge/upstream"
	"tenfold/tier/edge/wire"
)

// Most requests of an app's API are plain: no rule changes them, nothing is stored of what they get. They
// go from the loop to a task and back as they are. The first half of the decision is Hit's; this is the
// rest of it, and what is noted of such a request. What turns out not to be plain goes on through ServeHTTP,
// with the task's answer if there is one.

// direct says that a GET that nothing stored answers may go straight to its service.
func (d *Door) direct(r *wire.Request, s *site, to *destination, host, path string) bool {
	if r.Major != 1 || to.way == nil || s.Geo != "" || r.Secure && s.HSTS > 0 || strings.HasPrefix(path, "/_tenfold/") || strings.HasPrefix(path, "/.well-known/") {
		return false
	}
	_, _, altered := s.altering.Find(r.Method, host, path)
	return !altered
}

// passing is a request on its way past ServeHTTP.
type passing struct {
	*upstream.Direct
	to    *destination
	alone httpcache.Alone
	r     *wire.Request
	begun time.Time
	trace []byte
}

var passings = sync.Pool{New: func() any { return &passing{trace: make([]byte, 0, 96)} }}

func newPassing(to *destination, a httpcache.Alone) *passing {
	p := passings.Get().(*passing)
	p.to, p.alone = to, a
	return p
}

func (p *passing) free() {
	p.Direct, p.to, p.r, p.alone = nil, nil, nil, httpcache.Alone{}
	passings.Put(p)
}

// passes is wire.Passes.
type passes struct{}

// Pass implements wire.Passes.
func (passes) Pass(r *wire.Request, client context.Context) (wire.Passing, io.Closer) {
	p := r.Mark.(*passing)
	p.r, p.begun = r, time.Now()
	var trace []byte
	if v, n := r.Value("traceparent"); n != 1 || !traced(v) {
		trace = append(appendTrace(append(p.trace[:0], "Traceparent: "...)), "\r\n"...)
		p.trace = trace[:0]
	}
	p.Direct = p.to.way.Direct(r, trace, client)
	switch {
	case p.Direct == nil:
		p.free()
		return nil, nil
	case !p.Plain() || !p.alone.Passes(p.Status(), p.Direct):
		carried := p.Direct
		p.free()
		return nil, carried
	}
	return p, nil
}

// Fields implements wire.Passing.
func (p *passing) Fields(b []byte) (out []byte, dated bool) {
	b, dated = p.AppendFields(b, ownField)
	b = append(append(append(b, "Cache-Status: "...), p.alone.Status()...), "\r\nServer-Timing: "...)
	b = appendTiming(b, time.Since(p.begun), p.Took())
	return append(b, "\r\n"...), dated
}

// ownField names what a service says to the door alone.
func ownField(name string) bool { return name == "Surrogate-Key" || name == "Cache-Tag" }

// Done implements wire.Passing.
func (p *passing) Done(sent int64, whole bool) {
	status := p.Status()
	p.Direct.Done(sent, whole)
	took := time.Since(p.begun)
	p.to.count.add(status, took)
	if p.to.log != nil {
		a := access{at: p.begun.Add(took), method: p.r.Method, host: p.r.Host, target: p.r.Target, route: p.to.Pattern, status: status, bytes: sent, took: took, protocol: 1, secure: p.to.table.secureOf(p.r)}
		if p.to.log.personal {
			a.remote = p.to.table.clientOf(p.r)
		}
		p.to.log.add(&a)
	}
	p.free()
}
