package limit

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// place is the answer of a request that has a place.
type place struct {
	http.ResponseWriter
	c      *Concurrency
	begun  time.Time
	took   time.Duration // to the head; 0: none yet
	status int
	left   bool
}

// Unwrap lets http.ResponseController reach what is below.
func (p *place) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// WriteHeader notes when the answer began.
func (p *place) WriteHeader(status int) {
	if p.took == 0 && status >= 200 {
		p.took, p.status = max(time.Since(p.begun), 1), status
		if strings.HasPrefix(p.Header().Get("Content-Type"), "text/event-stream") {
			p.leave()
		}
	}
	p.ResponseWriter.WriteHeader(status)
}

// Write answers 200 first when nothing was said.
func (p *place) Write(b []byte) (int, error) {
	if p.took == 0 {
		p.WriteHeader(http.StatusOK)
	}
	return p.ResponseWriter.Write(b)
}

// ReadFrom keeps the way open for sendfile.
func (p *place) ReadFrom(src io.Reader) (int64, error) {
	if p.took == 0 {
		p.WriteHeader(http.StatusOK)
	}
	return io.Copy(p.ResponseWriter, src)
}

// FlushError passes on; it begins an answer that was not begun.
func (p *place) FlushError() error {
	if p.took == 0 {
		p.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(p.ResponseWriter).Flush()
}

// Flush passes on.
func (p *place) Flush() { p.FlushError() }

// Hijack gives the place back: what follows is an upgraded protocol.
func (p *place) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, b, err := http.NewResponseController(p.ResponseWriter).Hijack()
	if err == nil {
		p.leave()
	}
	return conn, b, err
}

func (p *place) leave() {
	if !p.left {
		p.left = true
		p.c.Leave()
	}
}

// end gives the place back.
func (p *place) end(r *http.Request) {
	switch {
	case p.left:
	case r.Context().Err() != nil || p.took == 0:
		p.leave()
	default:
		p.left = true
		p.c.Release(p.took, p.status == http.StatusServiceUnavailable || p.status == http.StatusGatewayTimeout)
	}
}
