package wire

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

var errStreamClosed = errors.New("the stream was closed")

// stream is one request of an HTTP/2 connection that was not answered at once. Its fields are
// guarded by the connection's mu.
type stream struct {
	c  *conn2
	id uint32

	// Sending.
	sendWin    int64
	pend       []byte // data in line: the handler's, which waits, or a stored body
	pendEnd    bool   // the stream ends with it
	queued     bool
	next       *stream
	localEnded bool
	sent       int64 // bytes of data framed
	stalled    int64 // when sent was stalledAt, and has been since; 0: not watched
	stalledAt  int64

	// Receiving.
	recv        []byte // recv[taken:] is to be read
	taken       int
	recvLeft    int64
	recvOwed    int64
	declared    int64 // Content-Length; -1: none
	got         int64
	remoteEnded bool
	bodyErr     error
	bodyClosed  bool
	trailer     http.Header
	pace        pace

	gone   bool
	err    error
	cond   *sync.Cond // nil: no handler
	cancel context.CancelFunc
	req    *http.Request
	expect bool
	read   deadline
	write  deadline
}

func (st *stream) wake() {
	if st.cond != nil {
		st.cond.Broadcast()
	}
}

// fail ends both directions for the handler.
func (st *stream) fail(err error) {
	if st.err == nil {
		st.err = err
	}
	if st.bodyErr == nil {
		st.bodyErr = err
	}
	if st.cancel != nil {
		st.cancel()
	}
	st.pend = nil
	st.wake()
}

// take stores what came of the body.
func (st *stream) take(p []byte) {
	if st.taken == len(st.recv) || st.taken > 0 && len(st.recv)+len(p) > cap(st.recv) {
		st.recv = st.recv[:copy(st.recv, st.recv[st.taken:])]
		st.taken = 0
	}
	st.recv = append(st.recv, p...)
}

// refund lets the client send n more bytes of this stream.
func (st *stream) refund(n int64) {
	if st.recvOwed += n; st.recvOwed < streamWindow/4 || st.remoteEnded || st.gone {
		return
	}
	st.c.need()
	st.c.out = appendUint32(appendFrameHead(st.c.out, 4, frameWindow, 0, st.id), uint32(st.recvOwed))
	st.recvLeft += st.recvOwed
	st.recvOwed = 0
}

// open makes a stream of the request in c.req and starts its handler. Under c.mu.
func (c *conn2) open(id uint32, end bool) error {
	if c.running >= 2*c.srv.cfg.MaxStreams {
		return streamError{id, codeRefused} // handlers of reset streams that have not noticed yet
	}
	st := &stream{c: c, id: id, sendWin: c.peerInit, recvLeft: streamWindow, declared: c.list.length, remoteEnded: end}
	st.cond = sync.NewCond(&c.mu)
	ctx, cancel := context.WithCancel(c.ctx)
	st.cancel = cancel
	length := c.list.length
	var body io.ReadCloser = http.NoBody
	if end {
		st.bodyErr = io.EOF
		length = 0
	} else {
		body = &body2{st}
	}
	q, err := c.request(ctx, &c.req, 0, body, length)
	if err != nil {
		cancel()
		return streamError{id, codeProtocol}
	}
	if c.list.protocol != "" {
		q.Header[":protocol"] = []string{c.list.protocol}
	}
	st.expect = !end && q.Header.Get("Expect") == "100-continue"
	st.req = q
	c.streams[id] = st
	if !end {
		c.uploads++
	}
	c.running++
	c.srv.running.Go(func() { c.run(st) })
	return nil
}

// run calls the Handler for a stream.
func (c *conn2) run(st *stream) {
	a := &answer2{st: st, c: c, length: -1}
	whole := false
	defer func() {
		if !whole {
			c.srv.panicked(recover(), st.req)
			c.mu.Lock()
			c.abandon(st, codeInternal)
			c.mu.Unlock()
		}
		a.release()
		st.cancel()
		c.mu.Lock()
		st.read.stop()
		st.write.stop()
		st.shutBody()
		c.flushSoon()
		c.running--
		c.leave()
		c.mu.Unlock()
	}()
	c.srv.cfg.Handler.ServeHTTP(a, st.req)
	whole = true
	a.finish()
}

// shutBody drops what the handler did not read. Under c.mu.
func (st *stream) shutBody() {
	st.bodyClosed = true
	if n := len(st.recv) - st.taken; n > 0 {
		st.c.refund(int64(n))
	}
	st.recv, st.taken = nil, 0
}

// deadline is a handler's own limit of reading or writing.
type deadline struct {
	timer *time.Timer
	past  bool
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
	}
}

// set makes the deadline t. Under c.mu.
func (d *deadline) set(st *stream, t time.Time) {
	d.stop()
	d.past = false
	if t.IsZero() {
		return
	}
	var self *time.Timer
	self = time.AfterFunc(time.Until(t), func() {
		st.c.mu.Lock()
		defer st.c.mu.Unlock()
		if d.timer == self {
			d.past = true
			st.wake()
		}
	})
	d.timer = self
}

// body2 is the body of an HTTP/2 request.
type body2 struct{ st *stream }

// Read implements io.Reader. The last byte comes together with io.EOF when the end is known.
func (b *body2) Read(p []byte) (int, error) {
	st := b.st
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	if st.expect {
		st.expect = false
		if !st.localEnded && !st.gone {
			c.need()
			c.out = appendBlock(c.out, st.id, appendStatus(nil, http.StatusContinue), 0)
			c.flush()
		}
	}
	waiting := false
	for st.taken == len(st.recv) && st.bodyErr == nil && !st.bodyClosed && !st.read.past {
		if !waiting {
			waiting = true
			st.pace.begin()
		}
		st.cond.Wait()
	}
	if waiting {
		st.pace.done(0)
	}
	switch {
	case st.bodyClosed:
		return 0, http.ErrBodyReadAfterClose
	case st.taken < len(st.recv):
	case st.bodyErr != nil:
		st.publishTrailer()
		return 0, st.bodyErr
	default:
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(p, st.recv[st.taken:])
	st.taken += n
	st.pace.bytes.Add(int64(n))
	c.refund(int64(n))
	st.refund(int64(n))
	c.flush()
	if st.taken == len(st.recv) && st.bodyErr == io.EOF {
		st.publishTrailer()
		return n, io.EOF
	}
	return n, nil
}

// publishTrailer fills the request's Trailer. Under c.mu.
func (st *stream) publishTrailer() {
	if st.bodyErr != io.EOF || len(st.trailer) == 0 {
		return
	}
	if st.req.Trailer == nil {
		st.req.Trailer = http.Header{}
	}
	for k, v := range st.trailer {
		st.req.Trailer[k] = v
	}
	st.trailer = nil
}

// Close drops what has not been read.
func (b *body2) Close() error {
	b.st.c.mu.Lock()
	defer b.st.c.mu.Unlock()
	b.st.shutBody()
	b.st.wake()
	return nil
}
