package edge

import (
	"net/http"
	"time"
)

// FieldFunction tells the functions' process which function a request is for, and FieldPass that the front door says
// so: anybody on the machine reaches that process. The door sets both, whatever the client says there.
const (
	FieldFunction = "Tenfold-Function"
	FieldPass     = "Tenfold-Pass"
)

// functionSlack is what a function may take beside its own timeout: to start, and to be told.
const functionSlack = 15 * time.Second

// called is a function, or a bucket, as its process is asked for it.
type called struct {
	id, pass string
	bucket   bool
}

// naming says in a request which function it is for, when it is for one. r is changed only if it is not of.
func (t *table) naming(r, of *http.Request, key serviceKey) *http.Request {
	f, ok := t.functions[key]
	if !ok {
		return r
	}
	if r == of {
		r = of.Clone(of.Context())
	}
	if f.bucket {
		r.Header.Set(FieldBucket, f.id)
		return r
	}
	r.Header.Set(FieldFunction, f.id)
	r.Header.Set(FieldPass, f.pass)
	return r
}
