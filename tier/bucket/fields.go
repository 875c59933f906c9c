package bucket

import (
	"net/http"
	"strings"
)

// fields writes the fields of an answer as S3 does, where clients depend on it: boto3 names an object's metadata as
// the field is written, in lower case there and as Go writes it here, and takes an identifier that the engine says
// twice for one with a comma.
type fields struct {
	http.ResponseWriter
	done bool
}

// Unwrap lets http.ResponseController reach the writer below.
func (f *fields) Unwrap() http.ResponseWriter { return f.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (f *fields) WriteHeader(status int) {
	if !f.done {
		f.done = status >= 200
		asS3(f.Header())
	}
	f.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (f *fields) Write(p []byte) (int, error) {
	if !f.done {
		f.WriteHeader(http.StatusOK)
	}
	return f.ResponseWriter.Write(p)
}

const metadata = "X-Amz-Meta-"

func asS3(h http.Header) {
	for _, name := range []string{"X-Amz-Request-Id", "X-Amz-Id-2"} {
		if v := h[name]; len(v) > 1 {
			h[name] = v[:1]
		}
	}
	var names []string
	for name := range h {
		if strings.HasPrefix(name, metadata) {
			names = append(names, name)
		}
	}
	for _, name := range names {
		h[strings.ToLower(name)] = h[name] // the map itself: Set would write it as Go does
		delete(h, name)
	}
}
