package wire

import (
	"bytes"
	"strings"
	"unsafe"
)

// refusal is why the loop answers a message itself. After every one the connection closes: what
// follows a message that could not be read cannot be read either.
type refusal struct {
	status int
	why    string
}

var (
	badLine      = &refusal{400, "malformed request line"}
	badMethod    = &refusal{400, "malformed method"}
	badTarget    = &refusal{400, "malformed target"}
	badVersion   = &refusal{505, "not a version served here"}
	badField     = &refusal{400, "malformed header field"}
	badEnd       = &refusal{400, "a line does not end in CRLF"}
	badHost      = &refusal{400, "missing, malformed or several Host"}
	badLength    = &refusal{400, "malformed or several Content-Length"}
	badCoding    = &refusal{400, "malformed or several Transfer-Encoding"}
	otherCoding  = &refusal{501, "a transfer coding other than chunked"}
	twoFramings  = &refusal{400, "both Content-Length and Transfer-Encoding"}
	oldChunked   = &refusal{400, "Transfer-Encoding in HTTP/1.0"}
	badExpect    = &refusal{417, "an expectation other than 100-continue"}
	noTunnel     = &refusal{501, "CONNECT is not served"}
	tooLarge     = &refusal{431, "the head is too large"}
	tooSlow      = &refusal{408, "the head came too slowly"}
	badUpgrading = &refusal{400, "an Upgrade with a body"}
)

// maxFields bounds the number of fields of a head, whatever their size.
const maxFields = 256

// head is what an HTTP/1.1 head says of framing and of the connection.
type head struct {
	minor     int   // of the version: 0 or 1
	length    int64 // Content-Length; -1: none
	chunked   bool
	close     bool // the connection ends after the answer
	keepAlive bool // HTTP/1.0 asks that it does not
	upgrade   bool
	expect    bool // 100-continue
}

// lower maps the bytes of a token (RFC 9110, section 5.6.2) to lower case, all others to 0.
var lower = func() (t [256]byte) {
	for _, c := range "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz" {
		t[c] = byte(c)
	}
	for c := 'A'; c <= 'Z'; c++ {
		t[c] = byte(c) + 'a' - 'A'
	}
	return
}()

// control marks the bytes that a field value must not have.
var control = func() (t [256]bool) {
	for c := range 32 {
		t[c] = c != '\t'
	}
	t[127] = true
	return
}()

func validToken(s string) bool {
	for i := range len(s) {
		if lower[s[i]] == 0 {
			return false
		}
	}
	return s != ""
}

// view is b as a string that shares its bytes.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// rebase gives the part of s that v is of base, when s is a copy of base.
func rebase(base []byte, s, v string) string {
	if v == "" {
		return ""
	}
	off := uintptr(unsafe.Pointer(unsafe.StringData(v))) - uintptr(unsafe.Pointer(unsafe.SliceData(base)))
	if off >= uintptr(len(base)) {
		return v // a constant
	}
	return s[off : off+uintptr(len(v))]
}

// parse reads a whole head, the empty line included, into h and r. It writes field names in lower
// case into b, of which r's strings are views.
func (h *head) parse(b []byte, r *Request) *refusal {
	*h = head{length: -1, minor: 1}
	r.fields = r.fields[:0]
	r.Host = ""
	b, ref := h.line(b, r)
	if ref != nil {
		return ref
	}
	var f framing
	for {
		if len(b) >= 2 && b[0] == '\r' && b[1] == '\n' {
			if len(b) > 2 {
				return badField
			}
			break
		}
		name, value, rest, ref := cutField(b)
		if ref != nil {
			return ref
		}
		b = rest
		if known(name) {
			if skip, ref := f.take(h, r, name, value); ref != nil {
				return ref
			} else if skip {
				continue
			}
		}
		if len(r.fields) == maxFields {
			return tooLarge
		}
		r.fields = append(r.fields, Field{name, value})
	}
	return f.judge(h, r)
}

// line reads the request line (RFC 9112, section 3) and returns what follows.
func (h *head) line(b []byte, r *Request) ([]byte, *refusal) {
	i := bytes.IndexByte(b, '\n')
	if i < 1 || b[i-1] != '\r' {
		return nil, badEnd
	}
	line, rest := b[:i-1], b[i+1:]
	i = bytes.IndexByte(line, ' ')
	if i < 1 {
		return nil, badLine
	}
	r.Method = view(line[:i])
	if !validToken(r.Method) {
		return nil, badMethod
	}
	line = line[i+1:]
	i = bytes.IndexByte(line, ' ')
	if i < 1 {
		return nil, badLine
	}
	r.Target = view(line[:i])
	switch v := view(line[i+1:]); {
	case v == "HTTP/1.1":
	case v == "HTTP/1.0":
		h.minor = 0
	case len(v) == 8 && v[:5] == "HTTP/" && v[6] == '.' && digit(v[5]) && digit(v[7]):
		return nil, badVersion
	default:
		return nil, badLine
	}
	if r.Method == "CONNECT" {
		return nil, noTunnel
	}
	if !splitTarget(r) {
		return nil, badTarget
	}
	return rest, nil
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// splitTarget checks the target and brings the absolute form (RFC 9112, section 3.2.2) to a host
// and the origin form.
func splitTarget(r *Request) bool {
	t := r.Target
	for i := range len(t) {
		if c := t[i]; c <= ' ' || c >= 127 || c == '#' {
			return false
		}
	}
	if t[0] == '/' {
		return true
	}
	if t == "*" {
		return r.Method == "OPTIONS"
	}
	scheme, rest, ok := strings.Cut(t, "://")
	if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
		return false
	}
	i := strings.IndexAny(rest, "/?")
	if i < 0 {
		r.Host, r.Target = rest, "/"
	} else {
		r.Host, r.Target = rest[:i], rest[i:]
		if rest[i] == '?' {
			r.Target = "/" + r.Target
		}
	}
	return validHost(r.Host)
}

// validHost checks an authority without userinfo: what DNS, an IPv4 or IPv6 address and a port
// need, and no more of what RFC 3986 would allow.
func validHost(h string) bool {
	if h == "" {
		return false
	}
	if h[0] == '[' {
		i := strings.IndexByte(h, ']')
		if i < 3 {
			return false
		}
		for _, c := range []byte(h[1:i]) {
			if c != ':' && c != '.' && !(digit(c) || 'a' <= c|0x20 && c|0x20 <= 'f') {
				return false
			}
		}
		return h[i+1:] == "" || h[i+1] == ':' && digits(h[i+2:])
	}
	for i := range len(h) {
		c := h[i]
		switch {
		case digit(c), 'a' <= c|0x20 && c|0x20 <= 'z', c == '-', c == '.', c == '_':
		case c == ':':
			return i > 0 && digits(h[i+1:])
		default:
			return false
		}
	}
	return true
}

// digits allows none: "host:" is valid.
func digits(s string) bool {
	for i := range len(s) {
		if !digit(s[i]) {
			return false
		}
	}
	return len(s) <= 5
}

// cutField reads one field line (RFC 9112, section 5), which ends in CRLF and is not folded.
func cutField(b []byte) (name, value string, rest []byte, ref *refusal) {
	i := 0
	for ; i < len(b); i++ {
		c := lower[b[i]]
		if c == 0 {
			break
		}
		b[i] = c
	}
	if i == 0 || i == len(b) || b[i] != ':' {
		return "", "", nil, badField
	}
	name, b = view(b[:i]), b[i+1:]
	j := bytes.IndexByte(b, '\n')
	if j < 1 || b[j-1] != '\r' {
		return "", "", nil, badEnd
	}
	v := b[:j-1]
	for len(v) > 0 && (v[0] == ' ' || v[0] == '\t') {
		v = v[1:]
	}
	for len(v) > 0 && (v[len(v)-1] == ' ' || v[len(v)-1] == '\t') {
		v = v[:len(v)-1]
	}
	for _, c := range v {
		if control[c] {
			return "", "", nil, badField
		}
	}
	return name, view(v), b[j+1:], nil
}

// known says whether a field means something to the loop.
func known(name string) bool {
	switch name {
	case "host", "content-length", "transfer-encoding", "connection", "upgrade", "expect", "http2-settings":
		return true
	}
	return false
}

// framing gathers the fields that say where a message ends and what becomes of its connection.
type framing struct {
	hosts, lengths, codings int
	host, coding, upgrade   string
}

// take reads one known field; skip says that it is not to be among the request's fields.
func (f *framing) take(h *head, r *Request, name, value string) (skip bool, ref *refusal) {
	switch name {
	case "host":
		f.hosts++
		f.host = value
		return true, nil
	case "content-length":
		f.lengths++
		n, ok := parseLength(value)
		if !ok || f.lengths > 1 {
			return false, badLength
		}
		h.length = n
		return true, nil
	case "transfer-encoding":
		f.codings++
		f.coding = value
		return true, nil
	case "connection":
		h.close = h.close || hasOption(value, "close")
		h.keepAlive = h.keepAlive || hasOption(value, "keep-alive")
		h.upgrade = h.upgrade || hasOption(value, "upgrade")
	case "upgrade":
		if strings.EqualFold(value, "h2c") {
			return true, nil // ignoring it is always allowed, and passing it on opens a tunnel
		}
		f.upgrade = value
	case "http2-settings":
		return true, nil
	case "expect":
		if h.minor == 0 {
			return true, nil
		}
		if !strings.EqualFold(value, "100-continue") {
			return false, badExpect
		}
		h.expect = true
	}
	return false, nil
}

func (f *framing) judge(h *head, r *Request) *refusal {
	switch {
	case f.hosts > 1, f.hosts == 0 && h.minor == 1, f.hosts == 1 && !validHost(f.host):
		return badHost
	case f.codings == 0:
	case h.minor == 0:
		return oldChunked
	case f.lengths > 0:
		return twoFramings
	case f.codings > 1:
		return badCoding
	case strings.EqualFold(f.coding, "chunked"):
		h.chunked = true
	case len(f.coding) > 7 && strings.EqualFold(f.coding[len(f.coding)-7:], "chunked") && strings.Contains(f.coding, ","):
		return otherCoding
	case validToken(f.coding):
		return otherCoding
	default:
		return badCoding
	}
	if r.Host == "" {
		r.Host = f.host
	}
	h.upgrade = h.upgrade && f.upgrade != "" && h.minor == 1
	if h.upgrade && h.hasBody() {
		return badUpgrading
	}
	if h.minor == 0 {
		h.close = h.close || !h.keepAlive
	}
	if h.expect && !h.hasBody() {
		h.expect = false
	}
	return nil
}

func (h *head) hasBody() bool { return h.chunked || h.length > 0 }

// parseLength reads 1*DIGIT, at most 18 of them.
func parseLength(s string) (int64, bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		if !digit(s[i]) {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

// hasOption says whether a comma-separated list has an option, in any case.
func hasOption(list, option string) bool {
	for part := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.Trim(part, " \t"), option) {
			return true
		}
	}
	return false
}
