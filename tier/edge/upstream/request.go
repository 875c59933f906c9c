package upstream

import (
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// appendHead writes the head of a request as the task gets it. The target is the client's own text
// where nobody rewrote it.
func (x *exchange) appendHead(b []byte) ([]byte, error) {
	r := x.r
	if !isToken(r.Method) {
		return nil, &BadRequest{"method"}
	}
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = appendTarget(b, r)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	for i := range len(r.Host) {
		if c := r.Host[i]; c <= ' ' || c >= 0x7f || c == '/' || c == '\\' || c == '@' || c == '?' || c == '#' {
			return nil, &BadRequest{"host"}
		}
	}
	b = append(b, r.Host...)
	b = append(b, "\r\n"...)
	trusted := x.trusted()
	hop := r.Header["Connection"]
	for name, values := range r.Header {
		if dropped(name, trusted) || len(hop) > 0 && connectionLists(hop, name) {
			continue
		}
		if !isToken(name) {
			return nil, &BadRequest{"field name"}
		}
		if name == "Cookie" && len(values) > 1 { // HTTP/2 splits it; HTTP/1 must not (RFC 9113 §8.2.3)
			values = []string{strings.Join(values, "; ")}
		}
		for _, v := range values {
			if !clean(v) {
				return nil, &BadRequest{"field " + name}
			}
			b = appendField(b, name, v)
		}
	}
	b = x.appendForwarded(b, trusted)
	return x.appendFraming(b), nil
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// dropped says that a request's field is not passed on, or is written by this package.
func dropped(name string, trusted bool) bool {
	if name == "" || name[0] == ':' {
		return true
	}
	switch name {
	case "Host", "Content-Length", "Forwarded", "Expect", "X-Forwarded-For":
		return true
	}
	if strings.HasPrefix(name, "X-Forwarded-") {
		return !trusted
	}
	return hopByHop(name)
}

func connectionLists(connection []string, name string) bool {
	for _, c := range connection {
		for v := range strings.SplitSeq(c, ",") {
			if strings.EqualFold(trim(v), name) {
				return true
			}
		}
	}
	return false
}

// appendForwarded says who asked: to whom we believe, beside what they say; to all others, instead.
func (x *exchange) appendForwarded(b []byte, trusted bool) []byte {
	r := x.r
	b = append(b, "X-Forwarded-For: "...)
	if trusted {
		for _, v := range r.Header["X-Forwarded-For"] {
			if clean(v) {
				b = append(append(b, v...), ", "...)
			}
		}
	}
	b = append(b, clientIP(r.RemoteAddr)...)
	b = append(b, "\r\n"...)
	if !trusted || len(r.Header["X-Forwarded-Proto"]) == 0 {
		proto := "http"
		if r.TLS != nil {
			proto = "https"
		}
		b = appendField(b, "X-Forwarded-Proto", proto)
	}
	if !trusted || len(r.Header["X-Forwarded-Host"]) == 0 {
		b = appendField(b, "X-Forwarded-Host", r.Host)
	}
	return b
}

func (x *exchange) trusted() bool {
	if len(x.policy.Trust) == 0 {
		return false
	}
	a, err := netip.ParseAddr(clientIP(x.r.RemoteAddr))
	return err == nil && slices.ContainsFunc(x.policy.Trust, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}

func clientIP(remote string) string {
	if i := strings.LastIndexByte(remote, ':'); i > 0 {
		ip := remote[:i]
		if ip[0] == '[' && ip[i-1] == ']' {
			ip = ip[1 : i-1]
		}
		if _, err := netip.ParseAddr(ip); err == nil {
			return ip
		}
	}
	return "unknown" // RFC 7239 §6.2
}

// appendFraming writes what says how the request's body ends, and the blank line.
func (x *exchange) appendFraming(b []byte) []byte {
	r := x.r
	if connectionLists(r.Header["Te"], "trailers") {
		b = append(b, "TE: trailers\r\n"...)
	}
	if x.upgrade != "" {
		b = append(b, "Connection: Upgrade\r\n"...)
		b = appendField(b, "Upgrade", x.upgrade)
	}
	switch {
	case x.up.kind == bodyStream && x.up.length < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		for name := range r.Trailer {
			if isToken(name) && !hopByHop(name) {
				b = appendField(b, "Trailer", name)
			}
		}
	case x.up.kind != bodyNone:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, x.up.length, 10)
		b = append(b, "\r\n"...)
	case r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch:
		b = append(b, "Content-Length: 0\r\n"...)
	}
	if x.up.expects {
		b = append(b, "Expect: 100-continue\r\n"...)
	}
	return append(b, "\r\n"...)
}

// appendTarget writes the origin form of the target (RFC 9112 §3.2.1).
func appendTarget(b []byte, r *http.Request) []byte {
	u := r.URL
	if raw := r.RequestURI; raw != "" && raw[0] == '/' && u.RawPath == "" && strings.HasPrefix(raw, u.Path) {
		rest := raw[len(u.Path):]
		if same := rest == "" && u.RawQuery == "" || rest != "" && rest[0] == '?' && rest[1:] == u.RawQuery; same && visible(raw) {
			return append(b, raw...)
		}
	}
	path := u.EscapedPath()
	if path == "*" && r.Method == http.MethodOptions {
		return append(b, '*')
	}
	if path == "" || path[0] != '/' {
		b = append(b, '/')
	}
	b = appendVisible(b, path)
	if u.ForceQuery || u.RawQuery != "" {
		b = append(b, '?')
		b = appendVisible(b, u.RawQuery)
	}
	return b
}

func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// appendVisible escapes what cannot stand in a request line.
func appendVisible(b []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f {
			b = append(b, '%', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return b
}

func isToken(s string) bool {
	for i := range len(s) {
		if !token[s[i]] {
			return false
		}
	}
	return s != ""
}

// idempotent methods may be sent again when no answer came (RFC 9110 §9.2.2).
func idempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}
