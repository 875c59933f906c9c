package upstream

import (
	"net/http"
	"net/textproto"
	"strings"
	"time"
)

// Limits of what a task may answer.
const (
	maxHead   = 64 << 10 // bytes of a response's head, or of its trailers
	maxFields = 256
	maxEarly  = 16 // 1xx responses before the final one
)

// field is one header field. Names are canonical.
type field struct{ name, value string }

// head is the parsed head of a response (RFC 9112 §4, §5). It is reused from response to response;
// the strings are pieces of one text that belongs to the response.
type head struct {
	status    int
	minor     int // of HTTP/1
	fields    []field
	length    int64 // of Content-Length; -1: none
	chunked   bool
	close     bool          // the connection ends with this response
	keepAlive time.Duration // how long the task says that it keeps idle connections; 0: did not say
	upgrade   string
	events    bool     // text/event-stream
	typed     bool     // has a Content-Type
	hop       []string // names that Connection lists, lower case
	trailers  bool     // Trailer was announced
}

// parse reads a head, its final blank line included. What two readers could understand in two ways
// is an error, never repaired: lines that end in a bare LF or contain a bare CR, folded lines, space
// around a name, several or odd lengths, a length beside a coding, a coding other than chunked.
func (h *head) parse(text string) error {
	*h = head{fields: h.fields[:0], hop: h.hop[:0], length: -1}
	line, rest, ok := strings.Cut(text, "\r\n")
	if !ok {
		return errMalformed("no status line")
	}
	if err := h.statusLine(line); err != nil {
		return err
	}
	h.close = h.minor == 0
	coded := false
	for {
		f, left, more, err := nextField(rest)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if len(h.fields) == maxFields {
			return errMalformed("too many fields")
		}
		h.fields = append(h.fields, f)
		if err := h.meaning(f, &coded); err != nil {
			return err
		}
		rest = left
	}
	if coded && h.length >= 0 {
		return errMalformed("both Content-Length and Transfer-Encoding")
	}
	if coded && h.minor == 0 {
		return errMalformed("Transfer-Encoding in HTTP/1.0")
	}
	return nil
}

func (h *head) statusLine(line string) error {
	if len(line) < 12 || line[:7] != "HTTP/1." || line[7] != '0' && line[7] != '1' || line[8] != ' ' {
		return errMalformed("status line")
	}
	h.minor = int(line[7] - '0')
	for _, c := range []byte(line[9:12]) {
		if c < '0' || c > '9' {
			return errMalformed("status code")
		}
		h.status = h.status*10 + int(c-'0')
	}
	if h.status < 100 || h.status > 599 {
		return errMalformed("status code")
	}
	if len(line) > 12 && (line[12] != ' ' || !clean(line[12:])) {
		return errMalformed("reason phrase")
	}
	return nil
}

// meaning notes what a field says about the connection and the length of the body.
func (h *head) meaning(f field, coded *bool) error {
	switch f.name {
	case "Content-Length":
		if h.length >= 0 {
			return errMalformed("several Content-Length")
		}
		n, ok := decimal(f.value)
		if !ok {
			return errMalformed("Content-Length")
		}
		h.length = n
	case "Transfer-Encoding":
		if *coded || !strings.EqualFold(f.value, "chunked") {
			return errMalformed("Transfer-Encoding other than chunked")
		}
		*coded, h.chunked = true, true
	case "Connection":
		for v := range strings.SplitSeq(f.value, ",") {
			switch v = strings.ToLower(trim(v)); v {
			case "":
			case "close":
				h.close = true
			case "keep-alive":
				if h.minor == 0 {
					h.close = false
				}
			default:
				h.hop = append(h.hop, v)
			}
		}
	case "Keep-Alive":
		h.keepAlive = keepAlive(f.value)
	case "Upgrade":
		h.upgrade = f.value
	case "Trailer":
		h.trailers = true
	case "Content-Type":
		h.typed = true
		h.events = len(f.value) >= 17 && strings.EqualFold(f.value[:17], "text/event-stream")
	}
	return nil
}

// bodiless says that a response has no body whatever its fields say (RFC 9112 §6.3).
func (h *head) bodiless(method string) bool {
	return method == http.MethodHead || h.status < 200 || h.status == http.StatusNoContent || h.status == http.StatusNotModified
}

// nextField reads one field line; more is false after the blank line, which must end the text.
func nextField(text string) (f field, rest string, more bool, err error) {
	end := strings.IndexByte(text, '\r')
	if end < 0 || end+1 == len(text) || text[end+1] != '\n' {
		return f, "", false, errMalformed("the head does not end, or has a bare CR")
	}
	line, rest := text[:end], text[end+2:]
	if line == "" {
		if rest != "" {
			return f, "", false, errMalformed("bytes after the head")
		}
		return f, "", false, nil
	}
	colon := strings.IndexByte(line, ':')
	if colon <= 0 {
		return f, "", false, errMalformed("field without a name")
	}
	name, canonical, first := line[:colon], true, true
	for i := range len(name) {
		c := name[i]
		if !token[c] {
			return f, "", false, errMalformed("field name")
		}
		if first && 'a' <= c && c <= 'z' || !first && 'A' <= c && c <= 'Z' {
			canonical = false
		}
		first = c == '-'
	}
	if !canonical {
		name = textproto.CanonicalMIMEHeaderKey(name)
	}
	value := trim(line[colon+1:])
	if !clean(value) {
		return f, "", false, errMalformed("field value")
	}
	return field{name, value}, rest, true, nil
}

// trim takes off optional whitespace (RFC 9110 §5.6.3).
func trim(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// clean says that a field value or reason has no control character but tab (RFC 9110 §5.5).
func clean(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// token marks the bytes of which names and methods consist (RFC 9110 §5.6.2).
var token = func() (t [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t[c] = true
	}
	return t
}()

// decimal reads 1*DIGIT, at most 18 of them.
func decimal(s string) (int64, bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

// keepAlive reads "timeout=5, max=100", as Node and others say it.
func keepAlive(v string) time.Duration {
	for p := range strings.SplitSeq(v, ",") {
		if k, s, ok := strings.Cut(trim(p), "="); ok && strings.EqualFold(k, "timeout") {
			if n, ok := decimal(s); ok && n < 1<<20 {
				return time.Duration(n) * time.Second
			}
		}
	}
	return 0
}

// hopByHop are the fields that belong to one connection (RFC 9110 §7.6.1).
func hopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// listed says that Connection names a field, so that it belongs to the connection too.
func (h *head) listed(name string) bool {
	for _, n := range h.hop {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}

// copyTo adds the fields that pass on to the client's header. The values share one array.
func (h *head) copyTo(to http.Header) {
	values := make([]string, len(h.fields))
	for i, f := range h.fields {
		if hopByHop(f.name) || len(h.hop) > 0 && h.listed(f.name) {
			continue
		}
		if had, ok := to[f.name]; ok {
			to[f.name] = append(had, f.value)
			continue
		}
		values[i] = f.value
		to[f.name] = values[i : i+1 : i+1]
	}
}
