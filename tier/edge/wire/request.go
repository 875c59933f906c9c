package wire

import (
	"context"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
)

// request makes what a Handler gets. r's strings must be good for ever.
func (l *link) request(ctx context.Context, r *Request, minor int, body io.ReadCloser, length int64) (*http.Request, error) {
	u, err := url.ParseRequestURI(r.Target)
	if err != nil {
		return nil, err
	}
	q := &http.Request{
		Method: method(r.Method), URL: u, RequestURI: r.Target, Host: r.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: minor,
		Header: make(http.Header, len(r.fields)), Body: body, ContentLength: length,
		RemoteAddr: l.remoteText, TLS: l.tls,
	}
	switch {
	case r.Major == 2:
		q.Proto, q.ProtoMajor, q.ProtoMinor = "HTTP/2.0", 2, 0
	case minor == 0:
		q.Proto = "HTTP/1.0"
	}
	values := make([]string, len(r.fields)) // one array for all fields that come once
	for _, f := range r.fields {
		key := textproto.CanonicalMIMEHeaderKey(f.Name)
		if v := q.Header[key]; v != nil {
			if key == "Cookie" { // RFC 9113, section 8.2.3
				v[0] += "; " + f.Value
				continue
			}
			q.Header[key] = append(v, f.Value)
			continue
		}
		values[0] = f.Value
		q.Header[key], values = values[:1:1], values[1:]
	}
	for _, list := range q.Header["Trailer"] {
		for name := range strings.SplitSeq(list, ",") {
			name = textproto.CanonicalMIMEHeaderKey(strings.Trim(name, " \t"))
			if !validToken(name) || forbiddenTrailer(name) {
				continue
			}
			if q.Trailer == nil {
				q.Trailer = http.Header{}
			}
			q.Trailer[name] = nil
		}
	}
	q.Header.Del("Trailer")
	return q.WithContext(ctx), nil
}

// method spares a string for the usual ones.
func method(s string) string {
	for _, m := range [...]string{http.MethodGet, http.MethodPost, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions} {
		if s == m {
			return m
		}
	}
	return s
}

// forbiddenTrailer names what may not come after the body because it is needed before it
// (RFC 9110, section 6.5.1). name is canonical.
func forbiddenTrailer(name string) bool {
	switch name {
	case "Content-Length", "Host", "Content-Encoding", "Content-Type", "Content-Range", "Authorization", "Set-Cookie", "Cache-Control", "Expect", "Range", "Cookie":
		return true
	}
	return hopByHop(name)
}

// cleanValue keeps a handler's field value on its line.
func cleanValue(s string) string {
	for i := range len(s) {
		if control[s[i]] {
			return strings.Map(func(r rune) rune {
				if r < 128 && control[byte(r)] {
					return ' '
				}
				return r
			}, s)
		}
	}
	return strings.Trim(s, " \t")
}
