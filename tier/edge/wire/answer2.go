package wire

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// answer2 is the http.ResponseWriter of an HTTP/2 request. Reading and writing are independent
// (full duplex): a conversation flushes what it says.
type answer2 struct {
	st *stream
	c  *conn2

	mu      sync.Mutex
	header  http.Header
	status  int
	sent    bool
	length  int64 // declared; -1: not
	written int64
	buf     *buffer
	n       int
}

// Header implements http.ResponseWriter.
func (a *answer2) Header() http.Header {
	if a.header == nil {
		a.header = http.Header{}
	}
	return a.header
}

// WriteHeader implements http.ResponseWriter. 1xx is sent at once, and another may follow.
func (a *answer2) WriteHeader(status int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.writeHeader(status)
}

func (a *answer2) writeHeader(status int) {
	if a.status != 0 {
		return
	}
	if status < 100 || status > 999 || status == http.StatusSwitchingProtocols {
		panic(fmt.Sprintf("invalid status %d in HTTP/2", status))
	}
	if status < 200 {
		c := a.c
		block := a.fields(appendStatus(nil, status), true)
		c.mu.Lock()
		defer c.mu.Unlock()
		if !a.st.gone && c.err == nil {
			c.need()
			c.out = appendBlock(c.out, a.st.id, block, 0)
			c.flush()
		}
		return
	}
	a.status = status
	if l := a.Header().Get("Content-Length"); l != "" {
		if n, ok := parseLength(l); ok && bodyAllowed(status) {
			a.length = n
		} else if !ok || status != http.StatusNotModified {
			a.header.Del("Content-Length")
		}
	}
}

// fields appends the handler's header fields to an HPACK block.
func (a *answer2) fields(block []byte, informal bool) []byte {
	for name, values := range a.header {
		switch name {
		case "Trailer":
		case "Content-Length":
			if informal {
				continue
			}
		default:
			if hopByHop(name) {
				continue
			}
		}
		if !validToken(name) {
			continue
		}
		key := strings.ToLower(name)
		for _, v := range values {
			block = AppendField(block, key, cleanValue(v))
		}
	}
	return block
}

func (a *answer2) bodiless() bool {
	return !bodyAllowed(a.status) || a.st.req.Method == http.MethodHead
}

// Write implements http.ResponseWriter.
func (a *answer2) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.status == 0 {
		a.writeHeader(http.StatusOK)
	}
	if !bodyAllowed(a.status) {
		return 0, http.ErrBodyNotAllowed
	}
	if a.length >= 0 && a.written+int64(len(p)) > a.length {
		return 0, errTooLong
	}
	a.written += int64(len(p))
	if a.bodiless() {
		return len(p), nil
	}
	if a.buf == nil {
		a.buf = getBuffer(smallBuffer)
	}
	if a.n+len(p) <= len(a.buf.b) {
		a.n += copy(a.buf.b[a.n:], p)
		return len(p), nil
	}
	if err := a.push(false); err != nil {
		return 0, err
	}
	if len(p) < len(a.buf.b) {
		a.n = copy(a.buf.b, p)
		return len(p), nil
	}
	if err := a.send(p, false); err != nil {
		return 0, err
	}
	return len(p), nil
}

// ReadFrom implements io.ReaderFrom with a pooled buffer.
func (a *answer2) ReadFrom(r io.Reader) (int64, error) {
	buf := getBuffer(bigBuffer)
	defer buf.free()
	return io.CopyBuffer(struct{ io.Writer }{a}, struct{ io.Reader }{r}, buf.b[:32<<10])
}

// push sends what is buffered.
func (a *answer2) push(end bool) error {
	n := a.n
	a.n = 0
	if n == 0 {
		return a.send(nil, end)
	}
	return a.send(a.buf.b[:n], end)
}

// send puts the head, if it is still to go, and p in line, and waits until p is framed.
func (a *answer2) send(p []byte, end bool) error {
	c, st := a.c, a.st
	var block []byte
	if !a.sent {
		a.sent = true
		block = a.fields(appendStatus(make([]byte, 0, 256), a.status), false)
		if end && a.length < 0 && a.header["Content-Length"] == nil && bodyAllowed(a.status) && (a.written > 0 || st.req.Method != http.MethodHead) {
			block = appendIndexed(block, nameContentLength, strconv.FormatInt(a.written, 10))
		}
		if a.header["Date"] == nil {
			block = append(block, c.srv.dates.at(time.Now()).field...)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.gone || c.err != nil || st.err != nil {
		return a.dead()
	}
	st.expect = false
	if block != nil {
		if c.alt {
			c.alt = false
			block = append(block, c.srv.alt2...)
		}
		c.need()
		var flags byte
		if end && len(p) == 0 {
			flags = flagEndStream
		}
		c.out = appendBlock(c.out, st.id, block, flags)
		if flags != 0 {
			c.localEnds(st)
			c.flushSoon()
			return nil
		}
	} else if end && len(p) == 0 {
		c.need()
		c.out = appendFrameHead(c.out, 0, frameData, flagEndStream, st.id)
		c.localEnds(st)
		c.flushSoon()
		return nil
	}
	if len(p) > 0 {
		st.pend, st.pendEnd = p, end
		c.queue(st)
	}
	c.flushSoon()
	for len(st.pend) > 0 && !st.gone && c.err == nil && !st.write.past {
		st.cond.Wait()
	}
	if len(st.pend) > 0 || (st.gone || c.err != nil) && !st.localEnded {
		err := a.dead()
		st.pend = nil // the handler's bytes are its own again
		c.abandon(st, codeCancel)
		return err
	}
	if st.err != nil && !st.localEnded {
		return st.err
	}
	return nil
}

func (a *answer2) dead() error {
	switch {
	case a.st.write.past:
		return os.ErrDeadlineExceeded
	case a.st.err != nil:
		return a.st.err
	case a.c.err != nil:
		return a.c.err
	}
	return errStreamClosed
}

// FlushError sends what was written so far.
func (a *answer2) FlushError() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.status == 0 {
		a.writeHeader(http.StatusOK)
	}
	if a.n == 0 && a.sent {
		return nil
	}
	return a.push(false)
}

// Flush implements http.Flusher.
func (a *answer2) Flush() { a.FlushError() }

// SetReadDeadline is for http.ResponseController.
func (a *answer2) SetReadDeadline(t time.Time) error {
	a.c.mu.Lock()
	defer a.c.mu.Unlock()
	a.st.read.set(a.st, t)
	return nil
}

// SetWriteDeadline is for http.ResponseController.
func (a *answer2) SetWriteDeadline(t time.Time) error {
	a.c.mu.Lock()
	defer a.c.mu.Unlock()
	a.st.write.set(a.st, t)
	return nil
}

// EnableFullDuplex is for http.ResponseController: it is always on.
func (a *answer2) EnableFullDuplex() error { return nil }

// finish is called after the handler: it sends what there is to send, and ends the stream.
func (a *answer2) finish() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.status == 0 {
		a.writeHeader(http.StatusOK)
	}
	if a.length >= 0 && a.written < a.length && !a.bodiless() {
		a.push(false)
		a.c.mu.Lock()
		a.c.abandon(a.st, codeInternal) // shorter than it said: it must not look whole
		a.c.mu.Unlock()
		return
	}
	var trailers []byte
	for name, v := range trailersOf(a.header) {
		trailers = AppendField(trailers, strings.ToLower(name), v)
	}
	err := a.push(trailers == nil)
	c, st := a.c, a.st
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.abandon(st, codeCancel)
		return
	}
	if trailers != nil && !st.gone && c.err == nil {
		c.need()
		c.out = appendBlock(c.out, st.id, trailers, flagEndStream)
		c.localEnds(st)
	}
	if !st.gone {
		c.abandon(st, codeNone) // the answer is whole and the rest of the body not wanted
	}
	c.flushSoon()
}

func (a *answer2) release() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.buf != nil {
		a.buf.free()
		a.buf = nil
	}
}
