package upstream

import (
	"bufio"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// extended turns an extended CONNECT (RFC 8441, RFC 9220: WebSocket over one stream of HTTP/2 or
// HTTP/3) into the upgrade that tasks know. A plain CONNECT asks for a tunnel, which no service is.
func (x *exchange) extended() error {
	protocol := strings.Join(x.r.Header[":protocol"], ",")
	if x.r.ProtoMajor < 2 || protocol == "" || !isToken(protocol) {
		return &BadRequest{"CONNECT asks for a tunnel, which a service is not"}
	}
	x.upgrade = protocol
	x.stream = &stream{body: x.r.Body, w: x.w, rc: http.NewResponseController(x.w)}
	r := x.r.Clone(x.r.Context())
	r.Method, r.Body, r.ContentLength = http.MethodGet, http.NoBody, 0
	r.Header.Del("Content-Length")
	if strings.EqualFold(protocol, "websocket") {
		var key [16]byte
		rand.Read(key[:])
		x.stream.key = base64.StdEncoding.EncodeToString(key[:])
		r.Header.Set("Sec-WebSocket-Key", x.stream.key)
	}
	x.r = r
	return nil
}

// switchStream answers 200 for the task's 101, and pumps.
func (x *exchange) switchStream(c *conn) error {
	to := x.w.Header()
	for _, f := range c.head.fields {
		switch {
		case hopByHop(f.name), f.name == "Content-Length":
		case f.name == "Sec-Websocket-Accept":
			if x.stream.key != "" && f.value != acceptOf(x.stream.key) {
				return x.blame(errMalformed("Sec-WebSocket-Accept"))
			}
		default:
			to.Add(f.name, f.value)
		}
	}
	c.end()
	x.begun = true
	x.result.Status = http.StatusOK
	x.w.WriteHeader(http.StatusOK)
	if err := x.doFlush(); err != nil {
		return ErrClientGone
	}
	return x.pump(x.stream, bufio.NewReader(strings.NewReader("")), c)
}

// acceptOf is the answer to a Sec-WebSocket-Key (RFC 6455 §4.2.2).
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// stream is one stream of HTTP/2 or HTTP/3 as a connection. It ends with its request, not before.
type stream struct {
	body io.Reader
	w    http.ResponseWriter
	rc   *http.ResponseController
	key  string // sent to the task
}

// Read reads what the client sent.
func (s *stream) Read(p []byte) (int, error) { return s.body.Read(p) }

// Write sends at once.
func (s *stream) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err == nil {
		err = s.rc.Flush()
	}
	return n, err
}

// SetDeadline breaks off reads and writes under way.
func (s *stream) SetDeadline(t time.Time) error {
	s.rc.SetWriteDeadline(t)
	return s.rc.SetReadDeadline(t)
}

// SetReadDeadline breaks off reads under way.
func (s *stream) SetReadDeadline(t time.Time) error { return s.rc.SetReadDeadline(t) }

// SetWriteDeadline breaks off writes under way.
func (s *stream) SetWriteDeadline(t time.Time) error { return s.rc.SetWriteDeadline(t) }

// Close does nothing: the stream ends with its request.
func (s *stream) Close() error { return nil }

// LocalAddr and RemoteAddr are those of nobody.
func (s *stream) LocalAddr() net.Addr  { return nil }
func (s *stream) RemoteAddr() net.Addr { return nil }
