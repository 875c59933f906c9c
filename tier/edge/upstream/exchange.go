package upstream

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"tenfold/tier/edge/wire"
)

// maxSends is how often a request goes out that a task may have seen.
const maxSends = 3

// exchange is one request and its answer. The goroutine that serves the request owns it.
type exchange struct {
	service *Service
	policy  *Policy
	timeout time.Duration
	hedge   Hedge
	w       http.ResponseWriter
	r       *http.Request
	start   int64
	upgrade string  // the protocol asked for
	stream  *stream // the client's end of a protocol asked for by CONNECT; nil: its connection
	up      upload
	sender  *sender // of the streamed body, once it runs
	tried   []*endpoint
	sticky  *endpoint // whom the client's cookie names
	held    bool      // has a place among the held
	fresh   bool      // pooled connections are not to be trusted now
	hedged  bool      // a second task is asked meanwhile: nothing is passed on early
	begun   bool      // the answer: no other can be given
	taken   bool      // the client's connection was hijacked
	flush   func() error
	flushed bool // all that was written
	result  Result
}

// stage says how far a try came, and so who may get the request next.
type stage int

const (
	stageUnsent stage = iota // no task can have seen it: anybody may get it
	stageStale               // a pooled connection ended without a byte of answer
	stageBroke               // a new one did
	stageFinal               // no second try
)

// failure is a try without an answer.
type failure struct {
	stage stage
	err   error
}

func (f *failure) Error() string { return f.err.Error() }

func (x *exchange) run() error {
	x.service.budget.request(x.start)
	defer x.service.leaveHold(&x.held)
	if isGRPC(x.r) {
		return x.overHTTP2()
	}
	if x.r.Method == http.MethodConnect {
		if err := x.extended(); err != nil {
			return err
		}
	} else {
		x.upgrade = upgradeOf(x.r)
		if err := x.up.prepare(x.r); err != nil {
			return err
		}
		defer x.up.free()
	}
	if d, ok := wire.Carried(x.r.Context()).(*Direct); ok && d.take(x.service) {
		return x.adopt(d)
	}
	x.sticky = x.service.sticks(x.policy, x.r)
	until := x.start + int64(x.policy.Hold)
	for {
		c, err := x.try(until)
		if err == nil {
			x.service.leaveHold(&x.held)
			return x.relay(c)
		}
		var f *failure
		if !errors.As(err, &f) {
			return err
		}
		if !x.again(f, until) {
			return x.blame(f.err)
		}
		if f.stage != stageUnsent {
			until = clock() + int64(x.policy.Hold)
		}
	}
}

// again says whether the request may be sent another time after f.
func (x *exchange) again(f *failure, until int64) bool {
	if x.r.Context().Err() != nil || !x.up.again() {
		return false
	}
	now := clock()
	switch f.stage {
	case stageUnsent:
		return now < until || x.result.Tries == 0 && x.fresh
	case stageStale, stageBroke:
		return idempotent(x.r.Method) && x.upgrade == "" && x.result.Tries < maxSends && x.service.budget.take(now, &x.policy.Retry)
	}
	return false
}

// blame names the service in an error, unless the error is not the task's.
func (x *exchange) blame(err error) error {
	var bad *BadBody
	var request *BadRequest
	switch {
	case errors.Is(err, ErrClientGone), errors.Is(err, context.Canceled): // not by the context: stopping a sender may end it
		return ErrClientGone
	case errors.Is(err, ErrSlow), errors.As(err, &bad), errors.As(err, &request):
		return err
	}
	return &Broken{x.service.name, x.result.Endpoint, err}
}

// pick takes a task and notes how long that took.
func (x *exchange) pick(until int64) (*endpoint, error) {
	before := clock()
	e, err := x.service.pick(x.r.Context(), x.policy, x.tried, x.sticky, until, &x.held)
	if waited := clock() - before; waited > int64(time.Millisecond) {
		x.result.Queue += time.Duration(waited)
	}
	x.sticky = nil
	if err != nil {
		return nil, err
	}
	x.result.Endpoint, x.result.Release = e.id, e.release
	return e, nil
}

// try chooses a task and gets the head of its answer. The connection comes back with the head; it
// counts as in flight until x.end.
func (x *exchange) try(until int64) (*conn, error) {
	e, err := x.pick(until)
	if err != nil {
		return nil, err
	}
	if x.result.Tries == 0 && x.up.kind == bodyNone && x.upgrade == "" {
		if after := x.service.hedgeAfter(&x.hedge, x.r.Method); after > 0 {
			return x.tryTwo(e, after)
		}
	}
	c, err := x.send(e, x.r.Context())
	return x.judge(e, c, err)
}

// judge draws the consequences of a try for the task and for the next try.
func (x *exchange) judge(e *endpoint, c *conn, err error) (*conn, error) {
	now := clock()
	if err == nil {
		took := time.Duration(now - c.asked)
		e.observe(now, took)
		if x.policy.Eject.Latency > 1 {
			e.compare(now, took, x.service.set.Load(), &x.policy.Eject)
		}
		if x.hedge.Quantile > 0 {
			x.service.slowest.add(took)
		}
		switch st := c.head.status; {
		case st == http.StatusBadGateway || st == http.StatusServiceUnavailable || st == http.StatusGatewayTimeout:
			e.bad(now, &x.policy.Eject)
		default:
			e.good()
		}
		e.answered(c.head.status)
		return c, nil
	}
	var f *failure
	if errors.As(err, &f) && f.err != ErrClientGone {
		switch {
		case f.stage == stageStale:
			x.fresh = true
		case f.stage == stageUnsent && x.result.Tries > 0 && !isDial(f.err):
			x.fresh = true
		case f.stage != stageUnsent:
			if Status(f.err) != http.StatusBadRequest && Status(f.err) != http.StatusRequestEntityTooLarge {
				e.answered(0)
				e.bad(now, &x.policy.Eject)
				x.tried = append(x.tried, e)
			}
		}
	}
	e.leave()
	return nil, err
}

func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// connect gives a connection to a task: one at hand, or a new one.
func (x *exchange) connect(e *endpoint, ctx context.Context) (*conn, error) {
	now := clock()
	if !x.fresh && x.upgrade == "" {
		if c := e.pool.get(now, !idempotent(x.r.Method)); c != nil {
			return c, nil
		}
	}
	c, err := dial(ctx, e)
	x.result.Connect += time.Duration(clock() - now)
	if err != nil {
		if ctx.Err() != nil {
			return nil, &failure{stageFinal, ErrClientGone}
		}
		e.refused(clock())
		return nil, &failure{stageUnsent, err}
	}
	if e.reached() {
		x.service.mu.Lock()
		x.service.release() // others wait for the same
		x.service.mu.Unlock()
	}
	return c, nil
}

// send makes one try at one task, up to the head of the answer. ctx is the request's, or that of a
// hedge.
func (x *exchange) send(e *endpoint, ctx context.Context) (*conn, error) {
	c, err := x.connect(e, ctx)
	if err != nil {
		return nil, err
	}
	if c.out, err = x.appendHead(c.out[:0]); err != nil {
		e.pool.put(c, clock())
		return nil, &failure{stageFinal, err}
	}
	e.requests.Add(1)
	x.result.Tries++
	c.asked = clock()
	if x.hedged {
		defer context.AfterFunc(ctx, c.look)()
	}
	c.begin(ctx, x.timeout)
	if err = x.write(c); err == nil {
		err = x.await(c)
	}
	if err == nil {
		return c, nil
	}
	err = c.why(err)
	stage := x.stageOf(c, err)
	if x.stopSender(c) && x.sender != nil {
		var bad *BadBody
		if errors.As(x.sender.err, &bad) {
			err = bad
		}
	}
	x.sender = nil
	if stage == stageUnsent && c.used == 0 {
		e.refused(clock()) // takes connections and closes them: the next attempt must not come at once
	}
	c.end()
	c.discard()
	return nil, &failure{stage, err}
}

// stageOf says what a failed try means for the next one.
func (x *exchange) stageOf(c *conn, err error) stage {
	var bad errMalformed
	switch {
	case c.cause() != nil, errors.As(err, &bad), c.answered, x.sender != nil:
		return stageFinal
	case c.out64 == 0, c.unseen(err):
		return stageUnsent
	case c.used > 0:
		return stageStale
	}
	return stageBroke
}

// write sends the head and a kept body, or starts the sender of a streamed one.
func (x *exchange) write(c *conn) error {
	c.answered = false
	out := c.out
	if x.up.kind == bodyKept {
		if len(out)+len(x.up.kept) > bufferSize {
			bufs := net.Buffers{out, x.up.kept}
			n, err := bufs.WriteTo(c.Conn)
			c.out64 += uint64(n)
			return x.orAnswer(c, err)
		}
		c.out = append(out, x.up.kept...)
		out = c.out
	}
	if _, err := c.Write(out); err != nil {
		return x.orAnswer(c, err)
	}
	if x.up.kind == bodyStream && !x.up.expects {
		x.startSender(c)
	}
	return nil
}

// orAnswer overlooks an error of writing when the task answered before it closed: with 413, say.
func (x *exchange) orAnswer(c *conn, err error) error {
	if err == nil || c.cause() != nil || c.out64 == 0 {
		return err
	}
	if c.fill(nil) == nil {
		return nil
	}
	return err
}

// await reads the head of the answer, and passes on what comes before it (RFC 9110 §15.2).
func (x *exchange) await(c *conn) error {
	if x.up.expects {
		wait := time.Second
		if x.timeout > 0 {
			wait = min(wait, x.timeout)
		}
		c.expect(wait, errNoContinue)
	}
	for early := 0; ; early++ {
		err := c.readHead()
		if errors.Is(err, errNoContinue) || x.up.expects && c.cause() == errNoContinue {
			if err = c.revive(x.r.Context(), x.timeout); err == nil { // it may not know of 100: send anyway
				x.startSender(c)
				continue
			}
		}
		if err != nil {
			return err
		}
		h := &c.head
		c.answered = true
		switch {
		case h.status >= 200:
			return c.whole(x.r.Method)
		case h.status == http.StatusSwitchingProtocols:
			if x.upgrade == "" || !strings.EqualFold(h.upgrade, x.upgrade) || h.minor == 0 {
				return errMalformed("101 that nobody asked for")
			}
			return nil
		case early >= maxEarly:
			return errMalformed("too many 1xx responses")
		case h.status == http.StatusContinue:
			if x.up.expects {
				c.expect(x.timeout, ErrSlow)
				x.startSender(c)
			}
		case !x.hedged && x.r.ProtoAtLeast(1, 1):
			x.early(h)
		}
	}
}

// whole reads a short body of known length before anything is passed on: when the task breaks off in
// it, the request can still be sent to another one.
func (c *conn) whole(method string) error {
	h := &c.head
	if h.bodiless(method) || h.length < 0 || h.length > bufferSize || h.events {
		return nil
	}
	for int64(c.w-c.r) < h.length {
		if err := c.fill(nil); err != nil {
			c.answered = false
			return unexpected(err)
		}
	}
	return nil
}

// errNoContinue says that the task did not say 100 Continue in time.
var errNoContinue = errors.New("no 100 Continue")

// early passes a 1xx response on.
func (x *exchange) early(h *head) {
	header := x.w.Header()
	var added []string
	for _, f := range h.fields {
		_, ok := header[f.name]
		if ok = ok && !slices.Contains(added, f.name); !ok && !hopByHop(f.name) && !h.listed(f.name) {
			added = append(added, f.name)
			header.Add(f.name, f.value)
		}
	}
	x.w.WriteHeader(h.status)
	for _, name := range added {
		delete(header, name)
	}
}

// startSender lets the body stream while the answer is awaited.
func (x *exchange) startSender(c *conn) {
	if x.sender != nil {
		return
	}
	x.up.expects = false
	x.up.touched = true
	x.sender = &sender{c: c, r: x.r, limit: x.timeout, silence: x.policy.Idle, left: x.up.length, done: make(chan struct{})}
	go x.sender.run()
}

// stopSender ends the sender and waits for it, wherever it is. A server that cannot break off a read
// ends it with the request: then it is not waited for, and false is returned.
func (x *exchange) stopSender(c *conn) bool {
	s := x.sender
	if s == nil {
		return true
	}
	select {
	case <-s.done:
		return true
	default:
	}
	s.stop.Store(true)
	c.kill()
	if http.NewResponseController(x.w).SetReadDeadline(time.Unix(1, 0)) != nil {
		return false
	}
	<-s.done
	return true
}

// end is over with a connection: the pool gets it when another request can use it.
func (x *exchange) end(c *conn, whole bool) {
	e := c.ep
	sent := x.stopSender(c) && (x.sender == nil || x.sender.err == nil)
	cause := c.end()
	if sent && whole && cause == nil && !c.head.close && c.r == c.w && !e.draining.Load() {
		now := clock()
		if c.head.keepAlive > 0 {
			e.pool.told(now, c.head.keepAlive)
		}
		e.pool.put(c, now)
	} else {
		c.discard()
	}
	e.leave()
}
