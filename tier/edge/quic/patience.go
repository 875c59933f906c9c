package quic

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// patience is how long a write of an answer, or a read of a body of known length, may make no
// progress. A body of unknown length may be a stream that is silent for as long as it likes.
const patience = 30 * time.Second

// patientWriter gives up on a client that stops taking an answer. Once the handler sets a deadline
// of its own, that direction is the handler's.
type patientWriter struct {
	http.ResponseWriter
	rc              *http.ResponseController
	reads, writes   atomic.Bool // the handler's own
	contentTypeSeen bool
}

// plain keeps quic-go from guessing a Content-Type: what the handler does not set is not sent.
func (w *patientWriter) plain() {
	if !w.contentTypeSeen {
		w.contentTypeSeen = true
		if h := w.Header(); h["Content-Type"] == nil {
			h["Content-Type"] = nil
		}
	}
}

func (w *patientWriter) extend() {
	if !w.writes.Load() {
		w.rc.SetWriteDeadline(time.Now().Add(patience))
	}
}

func (w *patientWriter) WriteHeader(status int) {
	if status >= 200 {
		w.plain()
	}
	w.extend()
	w.ResponseWriter.WriteHeader(status)
}

func (w *patientWriter) Write(p []byte) (int, error) {
	w.plain()
	w.extend()
	return w.ResponseWriter.Write(p)
}

func (w *patientWriter) FlushError() error {
	w.plain()
	w.extend()
	return w.rc.Flush()
}

func (w *patientWriter) Flush() { w.FlushError() }

func (w *patientWriter) SetReadDeadline(t time.Time) error {
	w.reads.Store(true)
	return w.rc.SetReadDeadline(t)
}

func (w *patientWriter) SetWriteDeadline(t time.Time) error {
	w.writes.Store(true)
	return w.rc.SetWriteDeadline(t)
}

// Unwrap is for http.ResponseController.
func (w *patientWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// takeBody sets limits to r's body, and finds out whether one of unknown length is there at all,
// where there usually is none: quic-go does not say, and a backend must not be sent an empty body in
// chunks with every GET. The end of such a stream comes with its fields, so there is nothing to wait
// for.
func (w *patientWriter) takeBody(r *http.Request) error {
	b := &patientBody{ReadCloser: r.Body, w: w, limited: true}
	r.Body = b
	switch {
	case r.ContentLength == 0:
		r.Body = http.NoBody
	case r.ContentLength > 0:
	case safe(r.Method) || r.Method == http.MethodDelete:
		n, err := b.Read(b.first[:])
		w.rc.SetReadDeadline(time.Time{})
		b.limited, b.held = false, n == 1
		if n == 0 && err == io.EOF {
			r.Body, r.ContentLength = http.NoBody, 0
		} else if n == 0 && err != nil {
			return err
		}
	default:
		b.limited = false
	}
	return nil
}

// patientBody gives up on a client that stops sending in mid-body.
type patientBody struct {
	io.ReadCloser
	w       *patientWriter
	limited bool
	first   [1]byte
	held    bool // first was read ahead
}

func (b *patientBody) Read(p []byte) (int, error) {
	if b.held && len(p) > 0 {
		p[0], b.held = b.first[0], false
		return 1, nil
	}
	if b.limited && !b.w.reads.Load() {
		b.w.rc.SetReadDeadline(time.Now().Add(patience))
	}
	return b.ReadCloser.Read(p)
}
