package upstream

import (
	"bytes"
	"io"
)

// maxLine bounds a chunk's size line, extensions included.
const maxLine = 4 << 10

// How a body ends (RFC 9112 §6.3).
const (
	endNow   = iota // there is none
	endCount        // after a number of bytes
	endChunk        // chunked, by a chunk of size 0 and trailers
	endClose        // with the connection
)

// States of a chunked body.
const (
	chunkSize = iota
	chunkData
	chunkEnd
	chunkTrailer
	chunkDone
)

// body reads a response's body in place: next gives views into the connection's buffer.
type body struct {
	c        *conn
	end      int
	state    int
	left     int64 // of the body or of the chunk
	trailers []field
	size     int // of the trailers
}

// bodyOf says how the body after h ends.
func bodyOf(c *conn, h *head, method string) body {
	b := body{c: c}
	switch {
	case h.bodiless(method):
	case h.chunked:
		b.end = endChunk
	case h.length >= 0:
		b.end, b.left = endCount, h.length
	default:
		b.end = endClose
	}
	return b
}

// next gives the following bytes, good until the next call. io.EOF comes at the true end of the
// body only; an early end is io.ErrUnexpectedEOF. Before it waits for the socket it calls idle, so
// that what was passed on reaches the client.
func (b *body) next(idle waiter) ([]byte, error) {
	switch b.end {
	case endNow:
		return nil, io.EOF
	case endCount:
		if b.left == 0 {
			return nil, io.EOF
		}
		return b.view(idle)
	case endClose:
		b.left = 1 << 62
		p, err := b.view(idle)
		if err == io.ErrUnexpectedEOF {
			err = io.EOF
		}
		return p, err
	}
	for {
		var err error
		switch b.state {
		case chunkSize:
			err = b.readSize(idle)
		case chunkData:
			p, err := b.view(idle)
			if b.left == 0 {
				b.state = chunkEnd
			}
			return p, err
		case chunkEnd:
			var line []byte
			if line, err = b.line(idle); err == nil && len(line) > 0 {
				err = errMalformed("chunk longer than its size")
			}
			b.state = chunkSize
		case chunkTrailer:
			err = b.readTrailer(idle)
		case chunkDone:
			return nil, io.EOF
		}
		if err != nil {
			return nil, err
		}
	}
}

// view gives what is buffered of the next b.left bytes, reading when nothing is.
func (b *body) view(idle waiter) ([]byte, error) {
	c := b.c
	if c.r == c.w {
		if b.left > int64(len(c.buf)) {
			c.enlarge()
		}
		if err := c.fill(idle); err != nil {
			return nil, unexpected(err)
		}
	}
	n := int(min(b.left, int64(c.w-c.r)))
	p := c.buf[c.r : c.r+n]
	c.r += n
	b.left -= int64(n)
	return p, nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// line reads one line that ends in CRLF, without it.
func (b *body) line(idle waiter) ([]byte, error) {
	c := b.c
	for from := 0; ; {
		if i := bytes.IndexByte(c.buf[c.r+from:c.w], '\n'); i >= 0 {
			i += from
			if i == 0 || c.buf[c.r+i-1] != '\r' {
				return nil, errMalformed("bare LF")
			}
			p := c.buf[c.r : c.r+i-1]
			c.r += i + 1
			return p, nil
		}
		if from = c.w - c.r; from > maxLine {
			return nil, errMalformed("line too long")
		}
		if err := c.fill(idle); err != nil {
			return nil, unexpected(err)
		}
	}
}

// readSize reads "size[;extensions]" (RFC 9112 §7.1). Extensions are dropped.
func (b *body) readSize(idle waiter) error {
	line, err := b.line(idle)
	if err != nil {
		return err
	}
	n, err := chunkLength(line)
	if err != nil {
		return err
	}
	b.left, b.state = n, chunkData
	if n == 0 {
		b.state = chunkTrailer
	}
	return nil
}

func chunkLength(line []byte) (n int64, err error) {
	digits := 0
	for digits < len(line) {
		d := hexDigit(line[digits])
		if d < 0 {
			break
		}
		if digits++; digits > 15 {
			return 0, errMalformed("chunk too large")
		}
		n = n<<4 | int64(d)
	}
	ext := bytes.TrimLeft(line[digits:], " \t")
	if digits == 0 || len(ext) > 0 && ext[0] != ';' || len(ext) == 0 && digits != len(line) {
		return 0, errMalformed("chunk size")
	}
	for _, c := range ext {
		if c < ' ' && c != '\t' || c == 0x7f {
			return 0, errMalformed("chunk extension")
		}
	}
	return n, nil
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// readTrailer reads one line of the trailers. Fields that frame or route are dropped: they must not
// change a message that was passed on already (RFC 9110 §6.5.1).
func (b *body) readTrailer(idle waiter) error {
	line, err := b.line(idle)
	if err != nil {
		return err
	}
	if len(line) == 0 {
		b.state = chunkDone
		return nil
	}
	if b.size += len(line); b.size > maxHead || len(b.trailers) == maxFields {
		return errMalformed("trailers too large")
	}
	f, _, _, err := nextField(string(line) + "\r\n")
	if err == nil && !hopByHop(f.name) && !framing(f.name) {
		b.trailers = append(b.trailers, f)
	}
	return err
}

func framing(name string) bool {
	switch name {
	case "Content-Length", "Host", "Content-Encoding", "Content-Type", "Content-Range", "Set-Cookie":
		return true
	}
	return false
}

// over says that the body was read to its true end.
func (b *body) over() bool {
	switch b.end {
	case endNow:
		return true
	case endCount:
		return b.left == 0
	case endChunk:
		return b.state == chunkDone
	}
	return false
}
