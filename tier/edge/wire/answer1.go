package wire

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

var (
	errTooLong  = http.ErrContentLength
	errTooShort = errors.New("write response: shorter than its Content-Length")
)

// answer1 is the http.ResponseWriter of an HTTP/1.1 request. A small answer leaves in one write
// with the length it turned out to have; a longer one is sent in chunks unless the handler said how
// long it is. Read and write sides are independent (full duplex).
type answer1 struct {
	c      *conn1
	req    *http.Request
	body   *body1
	cancel context.CancelFunc
	header http.Header

	mu         sync.Mutex // the body's reader may write 100 meanwhile
	status     int        // 0: not said yet
	sent       bool       // the head is in c.out, or gone
	length     int64      // declared; -1: not
	written    int64
	chunked    bool
	untilClose bool // HTTP/1.0 without a length
	hijacked   bool
	deadlines  atomic.Bool // the handler set some
	early      *buffer     // body before the head was sent
	n          int         // bytes in early
	err        error
}

// Header implements http.ResponseWriter.
func (a *answer1) Header() http.Header {
	if a.header == nil {
		a.header = http.Header{}
	}
	return a.header
}

// WriteHeader implements http.ResponseWriter. 1xx but 101 is sent at once, and another may follow.
func (a *answer1) WriteHeader(status int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.writeHeader(status)
}

func (a *answer1) writeHeader(status int) {
	if a.status != 0 || a.hijacked {
		return
	}
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("invalid status %d", status))
	}
	if status < 200 && status != http.StatusSwitchingProtocols {
		if a.c.head.minor == 1 {
			a.c.out = a.fields(appendStatusLine(a.c.out, status), true)
			a.c.out = append(a.c.out, "\r\n"...)
			a.note(a.c.flush())
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
	if status == http.StatusSwitchingProtocols {
		a.c.head.close = true // unless it is hijacked, nobody speaks the other protocol
		a.begin()
		a.note(a.c.flush())
	}
}

// goOn tells a client that waits with its body to send it.
func (a *answer1) goOn() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sent || a.hijacked {
		return nil // the final status tells the client, too
	}
	return a.c.write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
}

func (a *answer1) note(err error) {
	if err != nil && a.err == nil {
		a.err = err
		a.cancel()
	}
}

// fields appends the handler's header fields, without those that are the loop's.
func (a *answer1) fields(out []byte, informal bool) []byte {
	for name, values := range a.header {
		switch name {
		case "Connection":
			if a.status == http.StatusSwitchingProtocols {
				break
			}
			for _, v := range values {
				a.c.head.close = a.c.head.close || hasOption(v, "close")
			}
			continue
		case "Transfer-Encoding", "Keep-Alive", "Proxy-Connection":
			continue
		case "Content-Length":
			if a.length >= 0 || informal {
				continue
			}
		case "Trailer":
			if !a.chunked {
				continue
			}
		}
		if !validToken(name) {
			continue // http.TrailerPrefix among them
		}
		for _, v := range values {
			out = append(append(append(append(out, name...), ": "...), cleanValue(v)...), "\r\n"...)
		}
	}
	return out
}

// begin puts the head into c.out. It decides on the framing of the body.
func (a *answer1) begin() {
	a.sent = true
	bodiless := !bodyAllowed(a.status)
	switch {
	case a.length >= 0, bodiless:
	case a.req.Method == http.MethodHead:
	case a.c.head.minor == 0:
		a.untilClose, a.c.head.close = true, true
	default:
		a.chunked = true
	}
	out := appendStatusLine(a.c.out, a.status)
	out = a.fields(out, false)
	if a.length >= 0 {
		out = append(out, "Content-Length: "...)
		out = strconv.AppendInt(out, a.length, 10)
		out = append(out, "\r\n"...)
	} else if a.chunked {
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	if a.header["Date"] == nil {
		out = append(out, a.c.srv.dates.at(time.Now()).line...)
	}
	if a.c.alt {
		a.c.alt = false
		out = append(out, a.c.srv.alt1...)
	}
	if a.status != http.StatusSwitchingProtocols {
		if a.body.expect.Load() {
			a.c.head.close = true // it may or may not send the body now
		}
		out = a.c.connection(out)
	}
	a.c.out = append(out, "\r\n"...)
}

// Write implements http.ResponseWriter.
func (a *answer1) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.write(p)
}

func (a *answer1) write(p []byte) (int, error) {
	if a.hijacked {
		return 0, http.ErrHijacked
	}
	if a.status == 0 {
		a.writeHeader(http.StatusOK)
	}
	if a.err != nil || len(p) == 0 {
		return 0, a.err
	}
	if !bodyAllowed(a.status) {
		return 0, http.ErrBodyNotAllowed
	}
	if a.length >= 0 && a.written+int64(len(p)) > a.length {
		return 0, errTooLong
	}
	a.written += int64(len(p))
	if a.req.Method == http.MethodHead {
		return len(p), nil
	}
	if !a.sent && a.length < 0 {
		if a.early == nil {
			a.early = getBuffer(smallBuffer)
		}
		if a.n+len(p) <= len(a.early.b) {
			a.n += copy(a.early.b[a.n:], p)
			return len(p), nil
		}
	}
	a.start()
	a.emit(p)
	if a.err != nil {
		return 0, a.err
	}
	return len(p), nil
}

// start sends the head and what was written so far, as far as c.out.
func (a *answer1) start() {
	if !a.sent {
		a.begin()
	}
	if a.early != nil {
		if a.n > 0 {
			a.emit(a.early.b[:a.n])
		}
		a.early.free()
		a.early = nil
	}
}

// emit frames a part of the body.
func (a *answer1) emit(p []byte) {
	c := a.c
	if a.chunked {
		c.out = strconv.AppendInt(c.out, int64(len(p)), 16)
		c.out = append(c.out, "\r\n"...)
	}
	if len(c.out)+len(p) <= 2*smallBuffer {
		c.out = append(c.out, p...)
	} else {
		a.note(c.writeBoth(c.out, p))
		c.out = c.out[:0]
	}
	if a.chunked {
		c.out = append(c.out, "\r\n"...)
	}
}

// ReadFrom implements io.ReaderFrom with a pooled buffer.
func (a *answer1) ReadFrom(r io.Reader) (int64, error) {
	buf := getBuffer(bigBuffer)
	defer buf.free()
	var total int64
	for {
		n, err := r.Read(buf.b[:32<<10])
		if n > 0 {
			m, werr := a.Write(buf.b[:n])
			total += int64(m)
			if werr != nil {
				return total, werr
			}
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// FlushError sends what was written so far.
func (a *answer1) FlushError() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.hijacked {
		return http.ErrHijacked
	}
	if a.status == 0 {
		a.writeHeader(http.StatusOK)
	}
	a.start()
	a.note(a.c.flush())
	return a.err
}

// Flush implements http.Flusher.
func (a *answer1) Flush() { a.FlushError() }

// SetReadDeadline is for http.ResponseController.
func (a *answer1) SetReadDeadline(t time.Time) error {
	a.deadlines.Store(true)
	return a.c.rw.SetReadDeadline(t)
}

// SetWriteDeadline is for http.ResponseController.
func (a *answer1) SetWriteDeadline(t time.Time) error {
	a.deadlines.Store(true)
	return a.c.rw.SetWriteDeadline(t)
}

// EnableFullDuplex is for http.ResponseController: it is always on.
func (a *answer1) EnableFullDuplex() error { return nil }

// finish is called after the handler: it sends what there is to send.
func (a *answer1) finish() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.deadlines.Load() {
		a.c.rw.SetDeadline(time.Time{})
	}
	if a.status == 0 {
		a.writeHeader(http.StatusOK)
	}
	if !a.sent && a.length < 0 && bodyAllowed(a.status) && (a.req.Method != http.MethodHead || a.written > 0) && !a.trailing() {
		a.length = a.written
	}
	a.start()
	if a.length >= 0 && a.written < a.length && a.req.Method != http.MethodHead {
		a.note(errTooShort)
		return a.err
	}
	if a.chunked {
		a.c.out = append(a.c.out, "0\r\n"...)
		a.trailers()
		a.c.out = append(a.c.out, "\r\n"...)
	}
	a.note(a.c.flush())
	return a.err
}

// trailing says whether the handler gave trailers.
func (a *answer1) trailing() bool {
	if a.header["Trailer"] != nil {
		return true
	}
	for name := range a.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			return true
		}
	}
	return false
}

func (a *answer1) trailers() {
	for name, v := range trailersOf(a.header) {
		a.c.out = append(append(append(append(a.c.out, name...), ": "...), v...), "\r\n"...)
	}
}

// trailersOf yields the trailers of a handler's header: those declared in Trailer, and those that
// begin with http.TrailerPrefix.
func trailersOf(h http.Header) func(yield func(name, value string) bool) {
	return func(yield func(name, value string) bool) {
		each := func(name string, values []string) bool {
			if !validToken(name) || forbiddenTrailer(name) {
				return true
			}
			for _, v := range values {
				if !yield(name, cleanValue(v)) {
					return false
				}
			}
			return true
		}
		for _, list := range h["Trailer"] {
			for name := range strings.SplitSeq(list, ",") {
				name = http.CanonicalHeaderKey(strings.Trim(name, " \t"))
				if !each(name, h[name]) {
					return
				}
			}
		}
		for name, values := range h {
			if after, ok := strings.CutPrefix(name, http.TrailerPrefix); ok && !each(after, values) {
				return
			}
		}
	}
}

// Hijack implements http.Hijacker. The connection stays among the server's until it is closed, so
// that a drain waits for it; it gives what was read past the request before what comes next.
func (a *answer1) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	a.c.watch.stop()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.hijacked {
		return nil, nil, http.ErrHijacked
	}
	if a.body.chunked || a.body.left > 0 {
		return nil, nil, errors.New("hijack connection: the request has a body")
	}
	if a.status != 0 && !a.sent {
		a.start()
	}
	if err := a.c.flush(); err != nil {
		return nil, nil, err
	}
	a.hijacked = true
	a.c.rw.SetDeadline(time.Time{})
	a.c.kept.Store(true)
	h := &hijacked{Conn: a.c.owned(), link: a.c.link, early: bytes.Clone(a.c.in[a.c.r:a.c.w])}
	a.c.r, a.c.w = 0, 0
	return h, bufio.NewReadWriter(bufio.NewReader(h), bufio.NewWriter(h)), nil
}

// owned is the connection as a handler may have it: to be used by several goroutines at once.
func (l *link) owned() net.Conn {
	if l.sock != nil {
		return l.raw
	}
	return l.rw
}

// hijacked is a connection that a handler took over.
type hijacked struct {
	net.Conn
	link  *link
	early []byte
}

func (h *hijacked) Read(p []byte) (int, error) {
	if len(h.early) > 0 {
		n := copy(p, h.early)
		h.early = h.early[n:]
		return n, nil
	}
	return h.Conn.Read(p)
}

// CloseWrite says that nothing more is sent.
func (h *hijacked) CloseWrite() error {
	if c, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (h *hijacked) Close() error {
	h.link.end(false)
	return nil
}
