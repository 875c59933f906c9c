package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"time"
)

// preface begins an HTTP/2 connection (RFC 9113, section 3.4); its first 18 bytes look like a head.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// work is what a connection needs while it is busy, and gives back while it is idle.
type work struct {
	in     []byte // in[r:w] of conn1 is read and not yet used
	out    []byte // to be written; begins on base
	fields []Field
}

var works = sync.Pool{New: func() any {
	return &work{in: make([]byte, smallBuffer), out: make([]byte, 0, smallBuffer), fields: make([]Field, 0, 24)}
}}

// conn1 is one HTTP/1.1 connection. All of it belongs to the connection's goroutine, but what the
// watch reads while a handler runs.
type conn1 struct {
	*link
	*work
	r, w    int
	req     Request
	head    head
	room    Hit  // for Hits
	skipped bool // an empty line before the request line
	missed  bool // the head at in[r:] is in req and head, and Hits has no answer
	asked   bool // nor has Passes
	toTwo   bool
	ended   bool // nothing more is to be read or written
	row     int  // hits in a row
	seated  bool // a loop has the connection
	linger  bool // what the client still sends is read before the close
	watch   watch
	inPlace func(n int) bool // turn, made once
	client  *client          // of Passes, once it was asked
	carried io.Closer        // what Passes gave for the Handler
}

// serve1 runs an HTTP/1.1 connection, of which some was read before, to its end, or until a loop has it. two
// says that it began as HTTP/2, with rest read.
func serve1(l *link, read []byte) (rest []byte, two bool) {
	c := &conn1{link: l, work: works.Get().(*work)}
	if len(read) > len(c.in) {
		c.in = make([]byte, len(read))
	}
	c.w = copy(c.in, read)
	c.watch.c, c.inPlace = c, c.turn
	c.req.Major, c.req.Secure, c.req.Remote, c.req.TLS = 1, l.tls != nil, l.remote, l.tls
	for c.next() {
	}
	if c.toTwo {
		rest = bytes.Clone(c.in[c.r:c.w])
	}
	linger := c.linger || c.r < c.w
	c.release()
	if !c.toTwo && !c.seated && !l.kept.Load() {
		l.end(linger)
	}
	return rest, c.toTwo
}

// release gives the buffers back. One that grew is cut to size.
func (c *conn1) release() {
	if c.work == nil {
		return
	}
	if len(c.in) > 2*smallBuffer {
		c.in = make([]byte, smallBuffer)
	}
	if cap(c.out) > 5*smallBuffer {
		c.out = make([]byte, 0, smallBuffer)
	}
	c.room = Hit{}
	clear(c.fields)
	c.fields, c.out = c.fields[:0], c.out[:0]
	c.req.fields, c.req.Method, c.req.Host, c.req.Target = nil, "", "", ""
	works.Put(c.work)
	c.work, c.r, c.w = nil, 0, 0
}

// next serves one request, and says whether another may follow.
func (c *conn1) next() bool {
	n, ref, err := c.readHead()
	if err != nil {
		return false
	}
	if ref != nil {
		c.req.Method = ""
		return c.refuse(ref)
	}
	b := c.in[c.r : c.r+n]
	if !c.missed {
		now := time.Now()
		if !c.began && c.tls == nil && string(b) == preface[:18] {
			c.toTwo = true
			return false
		}
		if ref = c.parse(b); ref != nil {
			return c.refuse(ref)
		}
		if hit := c.lookUp(); hit != nil {
			c.r += n
			return c.hit(hit, now)
		}
	}
	asked := c.asked
	c.missed, c.asked, c.row = false, false, 0
	if !asked && c.passable() {
		if ok, answered := c.passes(b); answered {
			return ok
		}
	}
	return c.handle(b)
}

// parse reads the head b into req and head.
func (c *conn1) parse(b []byte) *refusal {
	c.began, c.skipped = true, false
	c.req.fields, c.req.Mark = c.fields, nil
	ref := c.head.parse(b, &c.req)
	c.fields = c.req.fields[:0]
	return ref
}

// lookUp asks Hits for an answer to the request in req.
func (c *conn1) lookUp() *Hit {
	h := &c.head
	if c.srv.cfg.Hits == nil || h.hasBody() || h.upgrade || c.req.Method != http.MethodGet && c.req.Method != http.MethodHead {
		return nil
	}
	return c.srv.cfg.Hits.Hit(&c.req, &c.room)
}

// passable says that Passes may have an answer to the request in req.
func (c *conn1) passable() bool {
	return c.req.Mark != nil && c.srv.cfg.Passes != nil && c.req.Method == http.MethodGet
}

// turn answers what came on an idle connection as long as it is hits alone, or passes where a goroutine has the
// connection, whole, and says whether it was. Otherwise in[r:w] is what is left, and a connection that is to end
// has ended. It must not read.
func (c *conn1) turn(n int) bool {
	c.r, c.w = 0, n
	now := time.Now()
	for c.r < c.w {
		b := c.in[c.r:c.w]
		i := bytes.Index(b, emptyLine)
		if i <= 0 || i+4 > c.srv.cfg.MaxHeader || !c.began && b[0] == preface[0] || b[0] == '\r' {
			return false
		}
		b = b[:i+4]
		if c.parse(b) != nil {
			return false // once more, to be refused
		}
		hit := c.lookUp()
		if hit == nil {
			if c.loop == nil && c.passable() {
				ok, answered := c.passes(b)
				if answered && ok {
					c.row, now = 0, time.Now()
					continue
				}
				c.asked, c.ended = !answered, answered
			}
			c.missed = !c.ended
			return false
		}
		c.r += len(b)
		if !c.hit(hit, now) {
			c.ended = true
			return false
		}
	}
	c.row++
	err := c.writeAt(now, c.out) // a clock costs as much as a tenth of what is left of a hit without the kernel
	if c.out = c.out[:0]; err != nil {
		c.ended = true
		return false
	}
	c.enter(phaseIdle, now)
	return c.row < hitsInARow || c.loop != nil // whose connections are where they belong
}

var emptyLine = []byte("\r\n\r\n")

// readHead reads until a whole head is in the buffer and returns its length. What was answered so
// far is written before it waits.
func (c *conn1) readHead() (int, *refusal, error) {
	scan := c.r
	for {
		if !c.skipped && c.w-c.r >= 2 && c.in[c.r] == '\r' && c.in[c.r+1] == '\n' {
			c.skipped = true // RFC 9112, section 2.2: one empty line is forgiven
			c.r += 2
			scan = c.r
		}
		end, whole := c.w, false
		if i := bytes.Index(c.in[scan:c.w], emptyLine); i >= 0 {
			end, whole = scan+i+4, true
		}
		// A line that ends in LF alone would never end the head. What is said of it must not depend on how it came.
		for b := c.in[scan:end]; ; {
			i := bytes.IndexByte(b, '\n')
			if i < 0 {
				break
			}
			at := end - len(b) + i
			if at == c.r || c.in[at-1] != '\r' {
				return 0, badEnd, nil
			}
			b = b[i+1:]
		}
		if whole && end-c.r <= c.srv.cfg.MaxHeader {
			return end - c.r, nil, nil
		}
		if c.w-c.r > c.srv.cfg.MaxHeader {
			return 0, tooLarge, nil
		}
		scan = max(c.r, c.w-3)
		if err := c.flush(); err != nil {
			return 0, nil, err
		}
		if c.r == c.w {
			c.r, c.w, scan = 0, 0, 0
			if err := c.await(); err != nil {
				return 0, nil, err
			}
			scan = c.r
			continue
		}
		if c.phase.Load()&7 != phaseHead {
			c.enter(phaseHead, time.Now())
		}
		before := c.r
		c.makeRoom(c.srv.cfg.MaxHeader + 4)
		scan -= before - c.r
		n, err := c.read(c.in[c.w:])
		c.w += n
		switch {
		case errors.Is(err, errSlow):
			return 0, tooSlow, nil
		case err != nil && !errors.Is(err, errNudged) && n == 0:
			return 0, nil, err
		}
	}
}

// await waits for the first byte of a request. When it takes long, the buffers are given back: an
// idle connection costs its goroutine and little else.
func (c *conn1) await() error {
	c.enter(phaseIdle, time.Now())
	c.held.Store(true)
	n, err := c.first()
	for err == nil && c.r == c.w && !c.ended { // hits alone, and many of them
		c.row = 0
		if c.seated = c.sit(); c.seated {
			return io.EOF
		}
		n, err = c.first()
	}
	if c.ended {
		return io.EOF
	}
	if err == nil || n > 0 {
		c.enter(phaseHead, time.Now())
		return nil
	}
	if !errors.Is(err, errNudged) {
		return err
	}
	c.release()
	if c.seated = c.sit(); c.seated {
		return io.EOF
	}
	var first [1]byte
	for errors.Is(err, errNudged) {
		n, err = c.read(first[:])
	}
	c.work = works.Get().(*work)
	if n == 0 {
		return err
	}
	c.enter(phaseHead, time.Now())
	c.in[0], c.w = first[0], 1
	return nil
}

// first reads into in until there is something that is no hit.
func (c *conn1) first() (int, error) {
	if c.sock == nil || c.srv.cfg.Hits == nil {
		n, err := c.read(c.in)
		c.w = n
		return n, err
	}
	n, err := c.sock.ReadEach(c.in, c.inPlace)
	if err != nil {
		c.r, c.w = 0, 0
	}
	return n, c.interrupted(n, err)
}

// makeRoom sees to it that in has room to read into, growing up to limit.
func (c *conn1) makeRoom(limit int) {
	if c.w < len(c.in) {
		return
	}
	if c.r > 0 {
		c.w = copy(c.in, c.in[c.r:c.w])
		c.r = 0
		return
	}
	in := make([]byte, min(2*len(c.in), max(limit, len(c.in)+1)))
	copy(in, c.in[:c.w])
	c.in = in
}

func (c *conn1) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	err := c.write(c.out)
	c.out = c.out[:0]
	return err
}

// closing says whether the answer to the request in c.head is the last of its connection.
func (c *conn1) closing() bool {
	if c.srv.draining.Load() {
		c.head.close = true
	}
	return c.head.close
}

// hit answers with a stored response. It is written when the loop next waits, so that what
// pipelined requests get goes in one write; a large body goes at once.
func (c *conn1) hit(h *Hit, now time.Time) bool {
	st := c.srv.dates.at(now)
	out := append(c.out, h.Head1...)
	if !h.Dated {
		out = append(out, st.line...)
	}
	if h.Born != 0 {
		out = append(out, "Age: "...)
		out = strconv.AppendInt(out, h.age(st.unix), 10)
		out = append(out, "\r\n"...)
	}
	if c.alt {
		c.alt = false
		out = append(out, c.srv.alt1...)
	}
	out = c.connection(out)
	out = append(out, "\r\n"...)
	body := h.Body
	if c.req.Method == http.MethodHead {
		body = nil
	}
	var err error
	switch {
	case len(out)+len(body) <= 4*smallBuffer:
		c.out = append(out, body...)
	default:
		err = c.writeBoth(out, body)
		c.out = out[:0]
	}
	if c.srv.cfg.Served != nil {
		c.srv.cfg.Served(&c.req, h, int64(len(body)), now, time.Since(now))
	}
	if err != nil {
		return false
	}
	if c.head.close {
		c.flush()
		return false
	}
	return true
}

// connection appends what the client has to know of the connection's future.
func (c *conn1) connection(out []byte) []byte {
	switch {
	case c.closing():
		return append(out, "Connection: close\r\n"...)
	case c.head.minor == 0:
		return append(out, "Connection: keep-alive\r\n"...)
	}
	return out
}

// refuse answers a message that is not passed on, and ends the connection.
func (c *conn1) refuse(ref *refusal) bool {
	if c.srv.cfg.Refused != nil {
		c.srv.cfg.Refused(c.remote, ref.status, ref.why)
	}
	body := ref.why + "\n"
	c.out = appendStatusLine(c.out, ref.status)
	c.out = fmt.Appendf(c.out, "Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nCache-Control: no-store\r\n", len(body))
	c.out = append(c.out, c.srv.dates.at(time.Now()).line...)
	c.out = append(c.out, "Connection: close\r\n\r\n"...)
	if c.req.Method != http.MethodHead {
		c.out = append(c.out, body...)
	}
	c.flush()
	c.linger = true
	return false
}

// handle runs the Handler for the request whose head is b.
func (c *conn1) handle(b []byte) bool {
	if c.flush() != nil {
		return false
	}
	s := string(b)
	r := c.req
	r.fields = c.req.fields
	for i := range r.fields {
		f := &r.fields[i]
		f.Name, f.Value = rebase(b, s, f.Name), rebase(b, s, f.Value)
	}
	r.Mark = nil
	r.Method, r.Host, r.Target = rebase(b, s, r.Method), rebase(b, s, r.Host), rebase(b, s, r.Target)
	ctx := &requestContext{parent: c.ctx}
	defer ctx.cancel()
	if c.carried != nil {
		ctx.carried = c.carried
		c.carried = nil
		defer ctx.carried.Close()
	}
	body := &body1{c: c, chunked: c.head.chunked, left: max(0, c.head.length), ended: !c.head.hasBody()}
	body.expect.Store(c.head.expect)
	length := max(0, c.head.length)
	if c.head.chunked {
		length = -1
	}
	q, err := c.request(ctx, &r, c.head.minor, http.NoBody, length)
	if err != nil {
		return c.refuse(badTarget)
	}
	c.r += len(b)
	a := &answer1{c: c, req: q, body: body, cancel: ctx.cancel, length: -1}
	if c.head.hasBody() {
		q.Body = body
		body.answer = a
		body.trailer = &q.Trailer
		if c.head.chunked {
			q.TransferEncoding = []string{"chunked"}
		}
		q.Close = c.head.close
	}
	c.watch.cancel = ctx.cancel
	c.phase.Store(phaseBusy)
	if body.ended {
		c.watch.arm()
	}
	whole := c.run(a, q)
	body.shut()
	c.watch.stop()
	if a.hijacked {
		return false
	}
	if !whole {
		c.ended = true
		if a.untilClose {
			reset(c.raw) // its end must not look like the end of the body
		}
		return false
	}
	if a.finish() != nil || c.watch.err != nil {
		return false
	}
	return body.rest() && !c.head.close
}

// run calls the Handler; false: it panicked, and the answer is not whole.
func (c *conn1) run(w http.ResponseWriter, q *http.Request) (whole bool) {
	defer func() {
		if !whole {
			c.srv.panicked(recover(), q)
		}
	}()
	c.srv.cfg.Handler.ServeHTTP(w, q)
	return true
}

func (s *Server) panicked(v any, q *http.Request) {
	if v != nil && v != http.ErrAbortHandler {
		s.cfg.Log.Error("handler panicked", "method", q.Method, "host", q.Host, "panic", v, "stack", string(debug.Stack()))
	}
}
