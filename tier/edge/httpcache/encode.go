package httpcache

import (
	"bytes"
	"compress/gzip"
	"context"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// Content codings that the cache makes, in the order in which it prefers them among equals.
const (
	identity = iota
	br
	zst
	gz
	codings
)

var codingNames = [codings]string{"identity", "br", "zstd", "gzip"}

const (
	minEncoded = 256     // bytes; below, the head weighs more than what is saved
	maxEncoded = 8 << 20 // bytes; above, the work is not worth the memory
)

// encoding is work for encodeLoop: one entry in one coding.
type encoding struct {
	e    *entry
	code int
}

// compressible says whether the cache makes coded forms of an entry.
func (e *entry) compressible() bool {
	return e.part == nil && !e.rules.NoTransform && len(e.body) >= minEncoded && len(e.body) <= maxEncoded &&
		compressible(e.status, e.header)
}

func compressible(status int, h http.Header) bool {
	if status != http.StatusOK || len(h["Content-Encoding"]) > 0 || len(h["Content-Range"]) > 0 {
		return false
	}
	t, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		return false
	}
	switch {
	case strings.HasPrefix(t, "text/"), strings.HasSuffix(t, "+json"), strings.HasSuffix(t, "+xml"):
		return t != "text/event-stream"
	}
	switch t {
	case "application/json", "application/javascript", "application/xml", "application/wasm", "application/manifest+json",
		"application/x-javascript", "image/svg+xml", "image/bmp", "font/ttf", "font/otf", "application/vnd.ms-fontobject", "application/x-ndjson":
		return true
	}
	return false
}

// mayCompress is compressible for a response whose body is still to come: its Vary must say already what
// later answers will depend on.
func mayCompress(status int, h http.Header, noTransform bool) bool {
	if noTransform || !compressible(status, h) {
		return false
	}
	n, err := strconv.Atoi(h.Get("Content-Length"))
	return err != nil || n >= minEncoded && n <= maxEncoded
}

// formFor chooses the coding of an answer, and asks for one to be made that would have been better. Both
// doors choose here; it allocates nothing.
func (c *Cache) formFor(e *entry, fields Fields) *Stored {
	best := e.forms[identity].Load()
	if !e.encodable {
		return best
	}
	value, n := fields.Value("Accept-Encoding")
	if n != 1 {
		return best
	}
	var q [codings]int
	acceptable(value, &q)
	top := 0
	for code := br; code < codings; code++ {
		if q[code] > q[top] {
			top = code
		}
	}
	if top == identity {
		return best
	}
	if bit := uint32(1) << top; e.made.Load()&bit == 0 && e.wanted.Load()&bit == 0 && e.wanted.Or(bit)&bit == 0 {
		select {
		case c.encode <- encoding{e, top}:
		default:
			e.wanted.And(^bit)
		}
	}
	have := 0
	for code := br; code < codings; code++ {
		if s := e.forms[code].Load(); s != nil && q[code] > q[have] {
			have, best = code, s
		}
	}
	return best
}

// acceptable reads Accept-Encoding (RFC 9110 §12.5.3) into weights of our codings, in thousandths.
func acceptable(value string, q *[codings]int) {
	var said [codings]bool
	star := -1
	for value != "" {
		var m string
		m, value, _ = strings.Cut(value, ",")
		name, weight := weighted(m)
		if name == "*" {
			star = weight
			continue
		}
		for code, n := range codingNames {
			if strings.EqualFold(name, n) || code == gz && strings.EqualFold(name, "x-gzip") {
				q[code], said[code] = weight, true
			}
		}
	}
	for code := range q {
		if !said[code] && star >= 0 {
			q[code] = star
		}
	}
}

// Accepted reads an Accept-Encoding field (RFC 9110 §12.5.3): the weights, in thousandths, of identity, br,
// zstd and gzip. What the field does not name, and * does not mean, has 0, identity too unless it says so.
func Accepted(value string) map[string]int {
	var q [codings]int
	acceptable(value, &q)
	out := make(map[string]int, codings)
	for code, name := range codingNames {
		out[name] = q[code]
	}
	return out
}

func (c *Cache) encodeLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case job := <-c.encode:
			c.encodeOne(job.e, job.code)
		}
	}
}

// encodeOne makes one coded form. Its entity tag is weak: the bytes differ from those of the identity
// form, what they mean does not (RFC 9110 §8.8.1); so validation works across codings, and ranges of
// different codings are never combined.
func (c *Cache) encodeOne(e *entry, code int) {
	bit := uint32(1) << code
	if e.void.Load() || e.made.Load()&bit != 0 {
		return
	}
	body := encodeBody(e.body, code)
	if len(body) < len(e.body)-len(e.body)/20 {
		h := e.header.Clone()
		h.Set("Content-Encoding", codingNames[code])
		h.Set("Content-Length", strconv.Itoa(len(body)))
		if tag := e.etag(); strong(tag) {
			h.Set("Etag", "W/"+tag)
		}
		delete(h, "Content-Md5")
		delete(h, "Accept-Ranges")
		form := e.form(h, body)
		e.forms[code].Store(form)
		c.memory.grow(e, int64(len(body)+len(form.Head1)+len(form.Block2)+200))
	}
	e.made.Or(bit)
}

func encodeBody(body []byte, code int) []byte {
	var b bytes.Buffer
	switch code {
	case br:
		w := brotli.NewWriterLevel(&b, 6)
		w.Write(body)
		w.Close()
	case zst:
		w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
		if err != nil {
			return body
		}
		return w.EncodeAll(body, nil)
	case gz:
		w, err := gzip.NewWriterLevel(&b, 6)
		if err != nil {
			return body
		}
		w.Write(body)
		w.Close()
	}
	return b.Bytes()
}
