package edge

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// outward changes an answer on its way to the client, in front of the cache: what depends on who asks.
type outward struct {
	cors   []string // nil: no rule
	origin string
	kept   bool // somebody had to show who he is: no other cache may keep the answer
}

func (o *outward) edit(h http.Header, _ int) {
	if o.cors != nil {
		crossOrigin(h, o.cors, o.origin)
	}
	if o.kept {
		private(h)
	}
}

// private takes from an answer what lets caches beyond this one keep it.
func private(h http.Header) {
	h.Del("CDN-Cache-Control")
	h.Del("Surrogate-Control")
	said := h.Values("Cache-Control")
	out := []string{"private"}
	for _, line := range said {
		for d := range strings.SplitSeq(line, ",") {
			d = strings.TrimSpace(d)
			switch name, _, _ := strings.Cut(strings.ToLower(d), "="); name {
			case "no-store":
				return
			case "", "public", "private", "s-maxage", "must-revalidate", "proxy-revalidate":
			default:
				out = append(out, d)
			}
		}
	}
	h.Set("Cache-Control", strings.Join(out, ", "))
}

// fields are what rules set on responses, and HSTS: behind the cache, so that hits have them too.
type fields struct {
	set  map[string]set
	hsts time.Duration
}

// dress has what rules set put on an answer, whoever gives it: a redirect and a refusal are looked at by
// browsers, and by those who audit a site, as pages are.
func (q *routed) dress(w http.ResponseWriter) http.ResponseWriter {
	edit := fields{set: q.headers}
	if q.secure {
		edit.hsts = q.site.HSTS
	}
	if edit.set == nil && edit.hsts == 0 {
		return w
	}
	return &headerWriter{ResponseWriter: w, editor: &edit}
}

// keeps says that a field tells caches how long to keep an answer. What a rule says of that is meant for what is
// there: an asset's year, on the 404 of a moment, would keep browsers from the asset for that year.
func keeps(name string) bool {
	return name == "Cache-Control" || name == "Cdn-Cache-Control" || name == "Surrogate-Control" || name == "Expires"
}

func (f *fields) edit(h http.Header, status int) {
	for k, v := range f.set {
		if status >= 400 && keeps(k) {
			continue
		}
		if v.value == "" {
			h.Del(k)
		} else {
			h.Set(k, v.value)
		}
	}
	if f.hsts > 0 && h.Get("Strict-Transport-Security") == "" {
		h.Set("Strict-Transport-Security", "max-age="+strconv.FormatInt(int64(f.hsts/time.Second), 10)) // RFC 6797
	}
}

// headerWriter has an editor change the header of the final answer.
type headerWriter struct {
	http.ResponseWriter
	editor interface {
		edit(h http.Header, status int)
	}
	done bool
}

// Unwrap lets http.ResponseController reach what is below: Flush and Hijack.
func (h *headerWriter) Unwrap() http.ResponseWriter { return h.ResponseWriter }

// WriteHeader lets the editor at the final header.
func (h *headerWriter) WriteHeader(status int) {
	if !h.done && (status >= 200 || status == http.StatusSwitchingProtocols) {
		h.done = true
		h.editor.edit(h.Header(), status)
	}
	h.ResponseWriter.WriteHeader(status)
}

// Write answers 200 first when nothing was said.
func (h *headerWriter) Write(b []byte) (int, error) {
	if !h.done {
		h.WriteHeader(http.StatusOK)
	}
	return h.ResponseWriter.Write(b)
}

// recorder remembers the status, and says how long it took (Server-Timing).
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64 // of the body
	q      *routed
}

// Unwrap lets http.ResponseController reach what is below.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Hijack hands over the connection; what follows is an upgraded protocol.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, b, err := http.NewResponseController(r.ResponseWriter).Hijack()
	if err == nil {
		r.status = http.StatusSwitchingProtocols
	}
	return c, b, err
}

// ReadFrom keeps the way open for sendfile.
func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	n, err := io.Copy(r.ResponseWriter, src)
	r.bytes += n
	return n, err
}

// WriteHeader notes the final status.
func (r *recorder) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		r.status = status
		r.timing()
	}
	r.ResponseWriter.WriteHeader(status)
}

// hit says that the answer is a stored one.
func (r *recorder) hit() bool {
	return strings.Contains(r.Header().Get("Cache-Status"), "tenfold; hit")
}

// timing tells how long the door had the request, and of that how long a service (W3C Server Timing).
func (r *recorder) timing() {
	took, service := time.Since(r.q.begun), time.Duration(-1)
	if at := r.q.asked.Load(); at > 0 && !r.hit() { // what is asked beside a hit holds nobody up
		service = took - time.Duration(at)
	}
	r.Header().Add("Server-Timing", string(appendTiming(make([]byte, 0, 48), took, service)))
}

// appendTiming appends how long the door and, unless it is negative, a service took.
func appendTiming(b []byte, door, service time.Duration) []byte {
	b = appendMillis(append(b, "door;dur="...), door)
	if service >= 0 {
		b = appendMillis(append(b, ", service;dur="...), service)
	}
	return b
}

// appendMillis appends milliseconds with one decimal.
func appendMillis(b []byte, d time.Duration) []byte {
	tenths := d.Round(100*time.Microsecond).Microseconds() / 100
	b = strconv.AppendInt(b, tenths/10, 10)
	return append(b, '.', byte('0'+tenths%10))
}

// Write notes 200 when nothing was said.
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}
