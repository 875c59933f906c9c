package wire

import (
	"encoding/binary"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/http2/hpack"
)

// pendingBlock is a header block whose frames have not all come.
type pendingBlock struct {
	open   bool
	id     uint32
	end    bool // END_STREAM
	frames int
	bytes  []byte
}

// headerList is what is known of the list being decoded.
type headerList struct {
	size      int
	over      bool // larger than allowed: decoded for the table's sake only
	malformed bool
	regular   bool // a field that is not a pseudo-header field came
	trailer   bool
	scheme    string
	protocol  string
	host      string
	length    int64 // -1: none
	seen      uint8 // pseudo-header fields, a bit each
}

const (
	seenMethod = 1 << iota
	seenScheme
	seenPath
	seenAuthority
	seenProtocol
)

func (c *conn2) headersFrame(flags byte, id uint32, p []byte) error {
	if id == 0 {
		return &connError{codeProtocol, "HEADERS without a stream"}
	}
	p, ce := unpad(flags, p)
	if ce != nil {
		return ce
	}
	self := false
	if flags&flagPriority != 0 {
		if len(p) < 5 {
			return &connError{codeSize, "HEADERS too short for its priority"}
		}
		self = binary.BigEndian.Uint32(p)&maxWindow == id
		p = p[5:]
	}
	end := flags&flagEndStream != 0
	if flags&flagEndHeaders == 0 {
		c.block = pendingBlock{open: true, id: id, end: end, bytes: append(c.block.bytes[:0], p...)}
		if self {
			return &connError{codeProtocol, "a stream depends on itself"}
		}
		return nil
	}
	if self {
		if err := c.decode(p, false); err != nil {
			return err
		}
		c.mu.Lock()
		c.lastID = max(c.lastID, id)
		c.mu.Unlock()
		return streamError{id, codeProtocol}
	}
	return c.headers(id, end, p)
}

func (c *conn2) continuationFrame(flags byte, id uint32, p []byte) error {
	b := &c.block
	if !b.open {
		return &connError{codeProtocol, "CONTINUATION without HEADERS"}
	}
	b.frames++
	if b.frames > maxContinuation || len(b.bytes)+len(p) > maxBlock {
		return &connError{codeCalm, "a header block is too long"}
	}
	b.bytes = append(b.bytes, p...)
	if flags&flagEndHeaders == 0 {
		return nil
	}
	b.open = false
	err := c.headers(id, b.end, b.bytes)
	if cap(b.bytes) > smallBuffer {
		b.bytes = nil
	}
	return err
}

// decode reads a block into c.req and c.list. Its error ends the connection: the table is lost.
func (c *conn2) decode(p []byte, trailer bool) error {
	c.req.Method, c.req.Host, c.req.Target, c.req.fields = "", "", "", c.req.fields[:0]
	c.list = headerList{trailer: trailer, length: -1}
	if _, err := c.dec.Write(p); err != nil {
		return &connError{codeCompression, "a header block cannot be decoded"}
	}
	if err := c.dec.Close(); err != nil {
		return &connError{codeCompression, "a header block is cut off"}
	}
	return nil
}

// field takes one field of the block being decoded (RFC 9113, section 8).
func (c *conn2) field(f hpack.HeaderField) {
	l := &c.list
	l.size += len(f.Name) + len(f.Value) + 32
	if l.size > c.srv.cfg.MaxHeader || len(c.req.fields) >= maxFields {
		l.over = true
		return
	}
	if l.malformed {
		return
	}
	for i := range len(f.Value) {
		if control[f.Value[i]] {
			l.malformed = true
			return
		}
	}
	if f.Name == "" {
		l.malformed = true
		return
	}
	if f.Name[0] == ':' {
		l.malformed = !c.pseudo(f.Name, f.Value)
		return
	}
	l.regular = true
	l.malformed = !c.regular(f.Name, f.Value)
}

func (c *conn2) pseudo(name, value string) bool {
	l := &c.list
	if l.regular || l.trailer {
		return false
	}
	var bit uint8
	switch name {
	case ":method":
		bit, c.req.Method = seenMethod, value
	case ":scheme":
		bit, l.scheme = seenScheme, value
	case ":path":
		bit, c.req.Target = seenPath, value
	case ":authority":
		bit, c.req.Host = seenAuthority, value
	case ":protocol":
		bit, l.protocol = seenProtocol, value
		if !c.srv.cfg.ExtendedConnect {
			return false
		}
	}
	if bit == 0 || l.seen&bit != 0 {
		return false
	}
	l.seen |= bit
	return true
}

func (c *conn2) regular(name, value string) bool {
	for i := range len(name) {
		if b := name[i]; lower[b] != b || b == 0 {
			return false
		}
	}
	if n := len(value); n > 0 && (value[0] == ' ' || value[0] == '\t' || value[n-1] == ' ' || value[n-1] == '\t') {
		return false
	}
	l := &c.list
	switch name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return false
	case "te":
		if !strings.EqualFold(value, "trailers") {
			return false
		}
	case "content-length":
		n, ok := parseLength(value)
		if !ok || l.length >= 0 || l.trailer {
			return false
		}
		l.length = n
	case "host":
		if l.host != "" || l.trailer {
			return false
		}
		l.host = value
		return true
	}
	c.req.fields = append(c.req.fields, Field{name, value})
	return true
}

// wellFormed checks the request as a whole.
func (c *conn2) wellFormed(end bool) bool {
	l, r := &c.list, &c.req
	if l.malformed || !validToken(r.Method) {
		return false
	}
	if r.Host == "" {
		if l.seen&seenAuthority != 0 && l.host == "" {
			return false
		}
		r.Host = l.host
	} else if l.host != "" && !strings.EqualFold(l.host, r.Host) {
		return false // two answers to the question whom it is for
	}
	if !validHost(r.Host) {
		return false
	}
	if r.Method == http.MethodConnect {
		if l.protocol == "" {
			return false // a plain tunnel is not served
		}
	} else if l.protocol != "" {
		return false
	}
	if l.scheme != "http" && l.scheme != "https" || r.Target == "" {
		return false
	}
	if r.Target[0] != '/' && r.Target != "*" || !splitTarget(r) {
		return false
	}
	return !end || l.length <= 0
}

// headers handles a whole header block: a request, or the trailers of one.
func (c *conn2) headers(id uint32, end bool, p []byte) error {
	c.mu.Lock()
	st, last := c.streams[id], c.lastID
	c.mu.Unlock()
	if err := c.decode(p, st != nil); err != nil {
		return err
	}
	if st != nil {
		return c.trailers(st, end)
	}
	if id%2 == 0 {
		return &connError{codeProtocol, "a client's stream with an even number"}
	}
	if id <= last {
		return c.late2(id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastID = id
	if c.goingAway == 2 {
		return nil // the client knows that it will not be answered
	}
	switch {
	case len(c.streams) >= c.srv.cfg.MaxStreams:
		return streamError{id, codeRefused}
	case c.list.over:
		c.refuse2(id, tooLarge)
		return nil
	case !c.wellFormed(end):
		if c.srv.cfg.Refused != nil {
			c.srv.cfg.Refused(c.remote, http.StatusBadRequest, "malformed HTTP/2 request")
		}
		return streamError{id, codeProtocol}
	}
	if end && c.srv.cfg.Hits != nil && (c.req.Method == http.MethodGet || c.req.Method == http.MethodHead) {
		c.mu.Unlock()
		hit := c.srv.cfg.Hits.Hit(&c.req, &c.stored)
		c.mu.Lock()
		if hit != nil {
			c.hit(id, hit)
			return nil
		}
	}
	return c.open(id, end)
}

// late2 judges HEADERS on a stream that is closed, or was passed over. Under no lock.
func (c *conn2) late2(id uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch known, ours := c.closed(id); {
	case ours:
		return nil // it was under way when we reset the stream
	case known:
		return &connError{codeClosed, "HEADERS on a closed stream"}
	}
	return &connError{codeProtocol, "a stream's number is not above the last"}
}

// hit answers with a stored response. Under c.mu.
func (c *conn2) hit(id uint32, h *Hit) {
	st := c.srv.dates.at(c.now)
	body := h.Body
	if c.req.Method == http.MethodHead {
		body = nil
	}
	c.need()
	at := len(c.out)
	o := append(c.out, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	o = append(o, h.Block2...)
	if !h.Dated {
		o = append(o, st.field...)
	}
	if h.Born != 0 {
		o = appendAge(o, h.age(st.unix))
	}
	if c.alt {
		c.alt = false
		o = append(o, c.srv.alt2...)
	}
	var flags byte
	if len(body) == 0 {
		flags = flagEndStream
	}
	if n := len(o) - at - frameHead; n <= frameLimit {
		appendFrameHead(o[:at], n, frameHeaders, flags|flagEndHeaders, id)
		c.out = o
	} else {
		block := append([]byte(nil), o[at+frameHead:]...)
		c.out = appendBlock(o[:at], id, block, flags)
	}
	switch n := int64(len(body)); {
	case n == 0:
		c.remember(id, false)
	case n <= frameLimit && n <= c.sendWin && n <= c.peerInit && c.first == nil:
		c.sendWin -= n
		c.out = append(appendFrameHead(c.out, int(n), frameData, flagEndStream, id), body...)
		c.remember(id, false)
	default:
		s := &stream{c: c, id: id, sendWin: c.peerInit, remoteEnded: true, pend: body, pendEnd: true}
		c.streams[id] = s
		c.queue(s)
		c.pump()
	}
	if c.srv.cfg.Served != nil {
		c.srv.cfg.Served(&c.req, h, int64(len(body)), c.now, time.Since(c.now))
	}
}

func appendAge(dst []byte, age int64) []byte {
	var digits [20]byte
	i := len(digits)
	for {
		i--
		digits[i] = byte('0' + age%10)
		if age /= 10; age == 0 {
			break
		}
	}
	return append(appendInt(appendInt(dst, 0, 4, nameAge), 0, 7, uint64(len(digits)-i)), digits[i:]...)
}

// refuse2 answers a request that is not passed on. Under c.mu.
func (c *conn2) refuse2(id uint32, ref *refusal) {
	if c.srv.cfg.Refused != nil {
		c.srv.cfg.Refused(c.remote, ref.status, ref.why)
	}
	c.need()
	block := appendStatus(nil, ref.status)
	block = append(block, c.srv.dates.at(c.now).field...)
	c.out = appendBlock(c.out, id, block, flagEndStream)
	c.remember(id, true)
	c.out = appendUint32(appendFrameHead(c.out, 4, frameReset, 0, id), uint32(codeNone))
}

// trailers ends a request's body.
func (c *conn2) trailers(st *stream, end bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case st.remoteEnded:
		return streamError{st.id, codeClosed}
	case !end, c.list.malformed, c.list.over:
		return streamError{st.id, codeProtocol}
	}
	for _, f := range c.req.fields {
		name := http.CanonicalHeaderKey(f.Name)
		if forbiddenTrailer(name) {
			continue
		}
		if st.trailer == nil {
			st.trailer = http.Header{}
		}
		st.trailer.Add(name, f.Value)
	}
	return c.bodyEnds(st)
}
