package bucket

import (
	"bytes"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
)

// asked is a request as it can be told before anybody verified it.
type asked struct {
	access       string // the key that it says it is signed with; "": none
	bucket, key  string // "": of the account, of the bucket
	from         string // the bucket that is copied from
	operation    string // as IAM names it: PutObject
	makes, drops bool   // an object, when it succeeds
}

// read tells what is asked for.
func read(r *http.Request) asked {
	q := r.URL.Query()
	a := asked{access: signer(r, q)}
	path := strings.TrimPrefix(r.URL.Path, "/")
	a.bucket, a.key, _ = strings.Cut(path, "/")
	if src := r.Header.Get("X-Amz-Copy-Source"); src != "" {
		if s, err := url.QueryUnescape(strings.TrimPrefix(src, "/")); err == nil {
			a.from, _, _ = strings.Cut(strings.TrimPrefix(s, "/"), "/")
		}
		if a.from == "" {
			a.from = "?" // what cannot be read is nobody's
		}
	}
	a.name(r.Method, q)
	if a.operation == "PostObject" {
		a.access = signedForm(r) // the engine looks at nothing else
	}
	return a
}

// signer is the access key that a request names, in the field or in the query.
func signer(r *http.Request, q url.Values) string {
	scope := q.Get("X-Amz-Credential")
	if scope == "" {
		_, scope, _ = strings.Cut(r.Header.Get("Authorization"), "Credential=")
	}
	access, _, ok := strings.Cut(scope, "/")
	if !ok {
		return ""
	}
	return access
}

// formHead bounds what is read of a form before its file; S3 takes 20 KB.
const formHead = 64 << 10

// signedForm is the access key that the form of a PostObject is signed with, "" if none. What it reads it puts back.
func signedForm(r *http.Request) (access string) {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if r.Body == nil || err != nil || kind != "multipart/form-data" || params["boundary"] == "" {
		return ""
	}
	var head bytes.Buffer
	rest := r.Body
	form := multipart.NewReader(io.LimitReader(io.TeeReader(rest, &head), formHead), params["boundary"])
	for {
		p, err := form.NextRawPart()
		if err != nil || p.FormName() == "file" {
			break
		}
		if strings.EqualFold(p.FormName(), "x-amz-credential") {
			scope, err := io.ReadAll(io.LimitReader(p, 1<<10))
			if err == nil {
				access, _, _ = strings.Cut(string(scope), "/")
			}
			break
		}
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(&head, rest), rest}
	return access
}

// parts of a bucket or an object that are named by the query, and what IAM calls them.
var parts = []struct{ query, word string }{
	{"acl", "Acl"}, {"cors", "CORS"}, {"policy", "Policy"}, {"policyStatus", "PolicyStatus"}, {"versioning", "Versioning"}, {"tagging", "Tagging"},
	{"lifecycle", "LifecycleConfiguration"}, {"notification", "Notification"}, {"website", "Website"}, {"encryption", "EncryptionConfiguration"},
	{"ownershipControls", "OwnershipControls"}, {"publicAccessBlock", "PublicAccessBlock"}, {"object-lock", "ObjectLockConfiguration"},
	{"retention", "Retention"}, {"legal-hold", "LegalHold"}, {"attributes", "Attributes"}, {"location", "Location"}, {"versions", "Versions"},
}

func (a *asked) name(method string, q url.Values) {
	verb := map[string]string{http.MethodGet: "Get", http.MethodHead: "Head", http.MethodPut: "Put", http.MethodDelete: "Delete", http.MethodPost: "Post", http.MethodOptions: "Options"}[method]
	of := "Object"
	switch {
	case a.bucket == "":
		a.operation = "ListAllMyBuckets"
		return
	case a.key == "":
		of = "Bucket"
	}
	for _, p := range parts {
		if q.Has(p.query) {
			a.operation = verb + of + p.word
			return
		}
	}
	switch {
	case of == "Bucket" && method == http.MethodGet:
		a.operation = "ListBucket"
	case of == "Bucket" && method == http.MethodPut:
		a.operation = "CreateBucket"
	case of == "Bucket" && method == http.MethodPost && q.Has("delete"):
		a.operation = "DeleteObjects"
	case of == "Bucket" && method == http.MethodPost:
		a.operation, a.makes = "PostObject", true
	case q.Has("uploadId") && method == http.MethodPost:
		a.operation, a.makes = "CompleteMultipartUpload", true
	case q.Has("uploadId") && method == http.MethodDelete:
		a.operation = "AbortMultipartUpload"
	case q.Has("uploadId") && method == http.MethodPut:
		a.operation = "UploadPart"
	case q.Has("uploadId"):
		a.operation = "ListParts"
	case q.Has("uploads") && method == http.MethodPost:
		a.operation = "CreateMultipartUpload"
	case of == "Object" && method == http.MethodPut:
		a.operation, a.makes = "PutObject", true
		if a.from != "" {
			a.operation = "CopyObject"
		}
	case of == "Object" && method == http.MethodDelete:
		a.operation, a.drops = "DeleteObject", true
	default:
		a.operation = verb + of
	}
}
