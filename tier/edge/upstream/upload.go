package upstream

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// replayable bodies, up to this many bytes, are read before a task is chosen and can be sent again.
const replayable = 64 << 10

const (
	bodyNone   = iota
	bodyKept   // in memory
	bodyStream // passed on as it comes
)

// upload is a request's body.
type upload struct {
	kind    int
	length  int64 // -1: unknown, sent in chunks
	kept    []byte
	lent    *[]byte
	expects bool // the client waits for 100 Continue
	touched bool // a byte was read from the client: no second try
}

// prepare reads a small body and leaves a longer one to stream.
func (u *upload) prepare(r *http.Request) error {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return nil
	}
	u.kind, u.length = bodyStream, r.ContentLength
	u.expects = strings.EqualFold(r.Header.Get("Expect"), "100-continue")
	if u.length < 0 || u.length > replayable || u.expects {
		return nil
	}
	u.lent = borrowed.Get().(*[]byte)
	u.kept = (*u.lent)[:u.length]
	if _, err := io.ReadFull(r.Body, u.kept); err != nil {
		u.free()
		return &BadBody{unexpected(err)}
	}
	u.kind = bodyKept
	return nil
}

func (u *upload) free() {
	if u.lent != nil {
		borrowed.Put(u.lent)
		u.lent, u.kept = nil, nil
	}
}

// again says that the body can be sent another time.
func (u *upload) again() bool { return u.kind != bodyStream || !u.touched }

// sender passes a streamed body on while the answer is awaited, in a goroutine of its own that ends
// before the exchange does.
//
// A net/http server throws away what is left of an HTTP/1 body when the answer begins, so that a
// reader beside it sees a clean end in the middle and a truncated body looks whole
// (golang/go#40747). Therefore the sender knows the length and never asks for an end it can count;
// of an unknown length it is stopped, or the client's connection made full duplex, before the
// answer begins.
type sender struct {
	c       *conn
	r       *http.Request
	limit   time.Duration // for each write, and then for the first byte of the answer
	silence time.Duration // the same, once the answer began
	begun   atomic.Bool   // the answer
	left    int64         // -1: chunked
	stop    atomic.Bool   // no more may be sent
	lastly  atomic.Bool   // the last bytes are being written
	done    chan struct{}
	err     error // after done
}

func (s *sender) run() {
	defer close(s.done)
	if s.err = s.copy(); s.err != nil {
		var bad *BadBody
		if errors.As(s.err, &bad) {
			s.c.kill() // the answer will not come: the task waits for the rest
		}
	}
}

func (s *sender) copy() error {
	lent := borrowed.Get().(*[]byte)
	defer borrowed.Put(lent)
	const front, back = 10, 2 // of a chunk: its size and CRLF
	buf := *lent
	for s.left != 0 {
		room := buf[front : len(buf)-back]
		if s.left > 0 {
			room = room[:min(int64(len(room)), s.left)]
		}
		n, err := s.r.Body.Read(room)
		if s.stop.Load() {
			return errStopped
		}
		out := room[:n]
		if s.left > 0 {
			s.left -= int64(n)
			s.lastly.Store(s.left == 0)
		} else if n > 0 {
			out = frame(buf, front, n)
		}
		if n > 0 {
			if s.begun.Load() {
				s.c.expect(s.silence, ErrSilent)
			} else {
				s.c.expect(s.limit, ErrSlow)
			}
			if _, werr := s.c.Write(out); werr != nil {
				return s.c.why(werr)
			}
		}
		switch {
		case s.left == 0:
			return nil
		case err == io.EOF && s.left < 0:
			return s.finish(buf[:0])
		case err != nil:
			return &BadBody{unexpected(err)}
		}
	}
	return nil
}

// frame puts size and CRLF around n bytes at buf[front:].
func frame(buf []byte, front, n int) []byte {
	const hex = "0123456789abcdef"
	at := front - 2
	copy(buf[at:], "\r\n")
	for v := n; ; v >>= 4 {
		at--
		buf[at] = hex[v&15]
		if v < 16 {
			break
		}
	}
	end := front + n + copy(buf[front+n:], "\r\n")
	return buf[at:end]
}

// finish ends a chunked body, with the client's trailers.
func (s *sender) finish(b []byte) error {
	s.lastly.Store(true)
	b = append(b, "0\r\n"...)
	for name, values := range s.r.Trailer {
		if isToken(name) && !hopByHop(name) {
			for _, v := range values {
				if clean(v) {
					b = appendField(b, name, v)
				}
			}
		}
	}
	b = append(b, "\r\n"...)
	_, err := s.c.Write(b)
	return s.c.why(err)
}

var errStopped = errors.New("the answer came before the request's body was read")
