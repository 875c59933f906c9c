package wire

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// forgiven is how much of a body that the handler did not read is read for it, so that the
	// connection can go on.
	forgiven = 256 << 10
	// maxChunkLine bounds a chunk's size and extensions.
	maxChunkLine = 256
	// maxTrailer bounds the trailer section.
	maxTrailer = 8 << 10
)

var (
	errChunk   = errors.New("read request body: malformed chunk")
	errTrailer = errors.New("read request body: malformed trailer")
)

// body1 is the body of an HTTP/1.1 request (RFC 9112, sections 6 and 7). A proxy's transport may
// read it after the handler has returned: from then on it gets http.ErrBodyReadAfterClose.
type body1 struct {
	c       *conn1
	answer  *answer1
	trailer *http.Header
	chunked bool
	expect  atomic.Bool // the client waits for 100

	mu     sync.Mutex
	left   int64 // of the body, or of the chunk
	inside bool  // of a chunk whose CRLF is still to come
	ended  bool
	err    error // for good
	pace   pace
	closed atomic.Bool
}

// Read implements io.Reader. The last byte comes together with io.EOF: net/http's transport may
// otherwise take a body for one byte longer than it is (golang/go#40747).
func (b *body1) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	if b.ended {
		return 0, io.EOF
	}
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	if b.expect.Swap(false) {
		if b.err = b.answer.goOn(); b.err != nil {
			return 0, b.err
		}
	}
	b.c.body.Store(&b.pace)
	n, err := b.some(p)
	b.c.body.Store(nil)
	if err == io.EOF {
		b.ended = true
		b.c.watch.arm()
	} else if err != nil {
		b.err = err
	}
	return n, err
}

func (b *body1) some(p []byte) (int, error) {
	if b.chunked && b.left == 0 {
		if err := b.chunk(); err != nil {
			return 0, err
		}
	}
	p = p[:min(int64(len(p)), b.left)]
	n, err := b.raw(p)
	b.left -= int64(n)
	if err != nil {
		return n, err
	}
	if b.left > 0 {
		return n, nil
	}
	if !b.chunked {
		return n, io.EOF
	}
	// The chunk is over; if the rest of the line and the last chunk are here already, say so at once.
	if bytes.HasPrefix(b.c.in[b.c.r:b.c.w], []byte("\r\n0\r\n\r\n")) {
		b.c.r += 7
		return n, io.EOF
	}
	return n, nil
}

// raw reads bytes of the body: first what is in the buffer, then past it.
func (b *body1) raw(p []byte) (int, error) {
	c := b.c
	if c.r < c.w {
		n := copy(p, c.in[c.r:c.w])
		c.r += n
		return n, nil
	}
	if len(p) < len(c.in)/2 {
		if err := b.fill(); err != nil {
			return 0, err
		}
		n := copy(p, c.in[c.r:c.w])
		c.r += n
		return n, nil
	}
	return b.wait(p)
}

// fill reads more into the buffer.
func (b *body1) fill() error {
	c := b.c
	if c.r == c.w {
		c.r, c.w = 0, 0
	}
	c.makeRoom(maxTrailer + smallBuffer)
	n, err := b.wait(c.in[c.w:])
	c.w += n
	return err
}

func (b *body1) wait(p []byte) (int, error) {
	for {
		b.pace.begin()
		n, err := b.c.read(p)
		b.pace.done(n)
		switch {
		case n > 0:
			return n, nil
		case errors.Is(err, errNudged):
		case err == io.EOF:
			return 0, io.ErrUnexpectedEOF
		case err != nil:
			return 0, err
		}
	}
}

// chunk reads up to the first byte of the next chunk's data; io.EOF after the last chunk.
func (b *body1) chunk() error {
	if b.inside {
		line, err := b.line(2)
		if err != nil {
			return err
		}
		if len(line) != 0 {
			return errChunk
		}
	}
	line, err := b.line(maxChunkLine)
	if err != nil {
		return err
	}
	n, ok := chunkSize(line)
	if !ok {
		return errChunk
	}
	b.left, b.inside = n, true
	if n > 0 {
		return nil
	}
	if err := b.trailers(); err != nil {
		return err
	}
	return io.EOF
}

// line reads a line of at most max bytes that ends in CRLF and returns it without.
func (b *body1) line(max int) ([]byte, error) {
	c := b.c
	for {
		if i := bytes.IndexByte(c.in[c.r:c.w], '\n'); i >= 0 {
			line := c.in[c.r : c.r+i]
			if i == 0 || line[i-1] != '\r' || i > max {
				return nil, errChunk
			}
			c.r += i + 1
			return line[:i-1], nil
		}
		if c.w-c.r > max {
			return nil, errChunk
		}
		if err := b.fill(); err != nil {
			return nil, err
		}
	}
}

// chunkSize reads a chunk's size and checks the grammar of its extensions (RFC 9112, section 7.1.1),
// which mean nothing to us.
func chunkSize(line []byte) (int64, bool) {
	var n int64
	i := 0
	for ; i < len(line); i++ {
		d := hexDigit(line[i])
		if d < 0 {
			break
		}
		n = n<<4 | int64(d)
	}
	if i == 0 || i > 15 {
		return 0, false
	}
	return n, validExtensions(line[i:])
}

func hexDigit(c byte) int {
	switch {
	case digit(c):
		return int(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

func validExtensions(b []byte) bool {
	blank := func() {
		for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
			b = b[1:]
		}
	}
	token := func() bool {
		i := 0
		for i < len(b) && lower[b[i]] != 0 {
			i++
		}
		b = b[i:]
		return i > 0
	}
	for len(b) > 0 {
		blank()
		if len(b) == 0 || b[0] != ';' {
			return false
		}
		b = b[1:]
		blank()
		if !token() {
			return false
		}
		rest := b
		blank()
		if len(b) == 0 || b[0] != '=' {
			b = rest
			continue
		}
		b = b[1:]
		blank()
		if len(b) > 0 && b[0] == '"' {
			if !quoted(&b) {
				return false
			}
		} else if !token() {
			return false
		}
	}
	return true
}

// quoted cuts a quoted string off b.
func quoted(b *[]byte) bool {
	s := (*b)[1:]
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			*b = s[i+1:]
			return true
		case s[i] == '\\':
			i++
			if i == len(s) || control[s[i]] {
				return false
			}
		case control[s[i]]:
			return false
		}
	}
	return false
}

// trailers reads the trailer section up to and with its empty line.
func (b *body1) trailers() error {
	for total := 0; ; {
		line, err := b.line(maxTrailer)
		if errors.Is(err, errChunk) {
			return errTrailer
		}
		if err != nil {
			return err
		}
		if len(line) == 0 {
			return nil
		}
		if total += len(line); total > maxTrailer {
			return errTrailer
		}
		name, value, _, ref := cutField(append(bytes.Clone(line), '\r', '\n'))
		if ref != nil {
			return errTrailer
		}
		key := textproto.CanonicalMIMEHeaderKey(name)
		if forbiddenTrailer(key) {
			return errTrailer
		}
		if *b.trailer == nil {
			*b.trailer = http.Header{}
		}
		b.trailer.Add(key, value)
	}
}

// Close leaves what was not read to the loop.
func (b *body1) Close() error { return nil }

// shut is called after the handler: nobody else reads from the connection when it returns.
func (b *body1) shut() {
	b.closed.Store(true)
	if !b.mu.TryLock() {
		b.c.interrupt() // somebody still waits for the client
		b.mu.Lock()
	}
	b.mu.Unlock()
}

// rest says whether the connection may go on: the body was read, or what is left of it is small
// and comes.
func (b *body1) rest() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return true
	}
	b.c.linger = true
	if b.err != nil || b.expect.Load() || !b.chunked && b.left > forgiven || b.c.head.close {
		return false
	}
	b.c.enter(phaseHead, time.Now()) // it has the time of a head
	buf := getBuffer(frameBuffer)
	defer buf.free()
	for n := 0; n <= forgiven; {
		m, err := b.some(buf.b)
		n += m
		if err == io.EOF {
			b.c.linger = false
			b.ended = true
			return true
		}
		if err != nil {
			return false
		}
	}
	return false
}
