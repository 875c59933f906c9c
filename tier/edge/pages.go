package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"

	"tenfold/tier/edge/upstream"
)

// quiet takes what net/http would print about clients that went away.
var quiet = log.New(io.Discard, "", 0)

var traceparent = regexp.MustCompile(`^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?$`)

// trace passes a W3C traceparent on, and starts one where there is none that is valid.
func trace(h http.Header) {
	if v := h["Traceparent"]; len(v) == 1 && traced(v[0]) {
		return
	}
	delete(h, "Tracestate")
	h["Traceparent"] = []string{string(appendTrace(make([]byte, 0, 55)))}
}

// traced says that a traceparent is valid.
func traced(v string) bool {
	return traceparent.MatchString(v) && !strings.HasPrefix(v, "ff") && v[3:35] != strings.Repeat("0", 32) && v[36:52] != strings.Repeat("0", 16)
}

// appendTrace appends a new traceparent.
func appendTrace(b []byte) []byte {
	b = append(b, "00-"...)
	b = appendHex(appendHex(b, rand.Uint64()|1), rand.Uint64())
	b = appendHex(append(b, '-'), rand.Uint64()|1)
	return append(b, "-00"...)
}

// appendHex appends a number as 16 hexadecimal digits.
func appendHex(b []byte, n uint64) []byte {
	const hex = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, hex[n>>shift&15])
	}
	return b
}

// page is an error answer: which tier failed and, to callers on this machine, why.
type page struct {
	status        int
	title, detail string
	hint          string
}

// failed turns an error of the way to a service into a page.
func failed(service string, err error) page {
	var down *upstream.Down
	var bad *upstream.BadBody
	var wrong *upstream.BadRequest
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &down):
		why := down.Why
		if why == "" {
			why = "none of its tasks is healthy"
		}
		return page{http.StatusServiceUnavailable, "service " + service + " is not available", why, "tenfold status; tenfold logs " + service}
	case errors.As(err, &large):
		return page{http.StatusRequestEntityTooLarge, "the request is too large", "at most " + sizeText(large.Limit) + " are taken", "edge.routes.*.limit.body sets it"}
	case errors.As(err, &bad):
		return page{http.StatusBadRequest, "the request's body is not whole", bad.Error(), ""}
	case errors.As(err, &wrong):
		return page{http.StatusBadRequest, "the request cannot be passed on", wrong.Reason, ""}
	case errors.Is(err, upstream.ErrSlow):
		return page{http.StatusGatewayTimeout, "the service took too long", "its first byte did not come in time", "services.*.timeout sets the limit"}
	case errors.Is(err, upstream.ErrClientGone), errors.Is(err, context.Canceled):
		return page{499, "the client went away", "", ""}
	}
	why := err
	var broken *upstream.Broken
	if errors.As(err, &broken) {
		why = broken.Err
	}
	return page{http.StatusBadGateway, "service " + service + " broke off", why.Error(), "tenfold logs " + service}
}

// maintenanceLook is after what time clients are told to look again whether a closed route is open.
const maintenanceLook = time.Minute

// maintenance answers a browser with a page of the app's own that it is not there for a while.
func maintenance(w http.ResponseWriter, html string) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusServiceUnavailable)
	io.WriteString(w, html)
}

// show writes a page as HTML or JSON. Details go to callers on this machine only. A browser gets the
// app's own page where there is one.
func (p page) show(w http.ResponseWriter, r *http.Request) {
	id := fmt.Sprintf("%012x", rand.Uint64()>>16)
	detail, hint := p.detail, p.hint
	if !local(r) {
		detail, hint = "", ""
	}
	h := w.Header()
	for _, k := range []string{"Content-Encoding", "Content-Length", "ETag", "Last-Modified"} {
		h.Del(k)
	}
	h.Set("Cache-Control", "no-store")
	h.Set("X-Request-Id", id)
	if p.status == http.StatusServiceUnavailable && h.Get("Retry-After") == "" {
		h.Set("Retry-After", "2")
	}
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		h.Set("Content-Type", "application/json")
		w.WriteHeader(p.status)
		body := map[string]any{"error": p.title, "request": id}
		if detail != "" {
			body["detail"] = detail
		}
		if hint != "" {
			body["hint"] = hint
		}
		json.NewEncoder(w).Encode(body)
		return
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(p.status)
	if q := routedOf(r); q != nil && q.site.Errors[p.status] != "" {
		io.WriteString(w, q.site.Errors[p.status])
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>%d %[2]s</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:15vh auto;padding:0 1rem;color:#222}h1{font-size:1.4rem}pre{background:#f4f4f4;padding:1rem;overflow:auto;white-space:pre-wrap}small{color:#777}@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}pre{background:#222}}</style>
<h1>%[2]s</h1>`, p.status, html.EscapeString(p.title))
	if detail != "" {
		fmt.Fprintf(&b, "<pre>%s</pre>", html.EscapeString(detail))
	}
	if hint != "" {
		fmt.Fprintf(&b, "<p>What to do: <code>%s</code></p>", html.EscapeString(hint))
	}
	fmt.Fprintf(&b, "<small>%d, request %s</small></html>\n", p.status, id)
	io.WriteString(w, b.String())
}

// local says whether the caller is on this machine, straight.
func local(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback() && r.Header.Get("X-Forwarded-For") == "" && r.Header.Get("Forwarded") == ""
}
