package edge

import (
	"time"

	"tenfold"
)

// FieldBucket tells the files' process which bucket a request is for. The door sets it, whatever the client says
// there. It is no proof of anything: who may do what is told by the signature alone.
const FieldBucket = "Tenfold-Bucket"

// bucketRequest is how long the first byte of an answer may take: the engine reads 5 GB before it has one.
const bucketRequest = time.Hour

// uploading is a rule of a bucket's route: what the bucket takes, the door lets by, unless the manifest says
// otherwise there.
func uploading(r tenfold.Rule, body int64) tenfold.Rule {
	l := tenfold.Limiting{}
	if r.Limit != nil {
		l = *r.Limit
	}
	if l.Body == 0 {
		l.Body = body
	}
	r.Limit = &l
	return r
}
