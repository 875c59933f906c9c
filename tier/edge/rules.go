package edge

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"

	"tenfold/internal/directory"
)

// redirected answers with the redirect of the most specific rule that has one.
func redirected(w http.ResponseWriter, r *http.Request, s *site, host string) bool {
	done := false
	s.rules.All(r.Method, host, r.URL.Path, func(_, rest string, rule directory.Rule) bool {
		if rule.RedirectTo == "" {
			return true
		}
		to := rule.RedirectTo
		if strings.HasSuffix(to, "*") {
			to = strings.TrimSuffix(to, "*") + rest
		}
		if strings.HasPrefix(to, "//") || strings.HasPrefix(to, "/\\") {
			to = "/" + strings.TrimLeft(to, "/\\") // what a * matched must not become a host
		}
		if r.URL.RawQuery != "" && !strings.Contains(to, "?") {
			to += "?" + r.URL.RawQuery
		}
		w.Header().Set("Location", to)
		w.WriteHeader(rule.Status)
		done = true
		return false
	})
	return done
}

// withHeaders sets the response headers that rules ask for: each header by the most specific rule
// that names it.
func withHeaders(w http.ResponseWriter, r *http.Request, s *site, host string) http.ResponseWriter {
	var set map[string]string
	s.rules.All(r.Method, host, r.URL.Path, func(_, _ string, rule directory.Rule) bool {
		for k, v := range rule.Headers {
			k = http.CanonicalHeaderKey(k)
			if _, ok := set[k]; !ok {
				if set == nil {
					set = map[string]string{}
				}
				set[k] = v
			}
		}
		return true
	})
	if set == nil {
		return w
	}
	return &headerWriter{ResponseWriter: w, set: set}
}

type headerWriter struct {
	http.ResponseWriter
	set  map[string]string
	done bool
}

// Unwrap lets http.ResponseController reach what is below: Flush and Hijack.
func (h *headerWriter) Unwrap() http.ResponseWriter { return h.ResponseWriter }

// WriteHeader puts the rules' headers over the answer's own.
func (h *headerWriter) WriteHeader(status int) {
	if !h.done && (status >= 200 || status == http.StatusSwitchingProtocols) {
		h.done = true
		for k, v := range h.set {
			if v == "" {
				h.Header().Del(k)
			} else {
				h.Header().Set(k, v)
			}
		}
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

// recorder remembers the status.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64 // of the body
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
		r.status = http.StatusOK
	}
	n, err := io.Copy(r.ResponseWriter, src)
	r.bytes += n
	return n, err
}

// WriteHeader notes the final status.
func (r *recorder) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write notes 200 when nothing was said.
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}
