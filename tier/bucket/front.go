package bucket

import (
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"crypto/rand"

	"tenfold"
	"tenfold/internal/awsapi"
	"tenfold/internal/sigv4"
	"tenfold/internal/unixhttp"
)

// FieldBucket tells the files' process which bucket a request is for that came along a route of the front
// door. The door sets it, whatever the client says there.
const FieldBucket = "Tenfold-Bucket"

// service is what requests are signed for.
const service = "s3"

// drained bounds what is read of a body that is refused: a client that is still sending does not read the
// answer, and one that is cut off tries again instead of saying why.
const drained, drainedFor = 64 << 20, 5 * time.Second

// fault is an error as S3 tells it.
type fault struct {
	XMLName   xml.Name `xml:"Error"`
	status    int
	Code      string
	Message   string
	Bucket    string `xml:"BucketName,omitempty"`
	Access    string `xml:"AWSAccessKeyId,omitempty"`
	RequestID string `xml:"RequestId"`
}

func (f *fault) Error() string { return f.Code + ": " + f.Message }

func refuse(status int, code, format string, args ...any) *fault {
	return &fault{status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

// ServeHTTP lets in who may and has the engine answer. It implements http.Handler.
func (s *Store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler { // the client or the engine is gone
				s.log.Error("request broke", "method", r.Method, "panic", p, "stack", string(debug.Stack()))
			}
			panic(http.ErrAbortHandler)
		}
	}()
	if r.URL.Path == "/" && r.URL.RawQuery == "" && r.Method == http.MethodGet && r.Header.Get("Authorization") == "" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		io.WriteString(w, "healthy: s3\n")
		return
	}
	a := read(r)
	d, err := s.admit(r, &a)
	if err != nil {
		s.refused(w, r, err)
		return
	}
	r.Header.Del(FieldBucket)
	s.proxy(d, &a).ServeHTTP(&fields{ResponseWriter: w}, r)
}

// admit finds whose request it is and says whether they may.
func (s *Store) admit(r *http.Request, a *asked) (*door, error) {
	via, err := s.along(r, a)
	if err != nil {
		return nil, err
	}
	account := via
	if a.access == "" { // nobody signed: the engine says whether the bucket is for all
		if account == "" {
			account = s.only(a.bucket)
		}
		if account == "" {
			return nil, refuse(http.StatusForbidden, "AccessDenied", "Access Denied: the request is not signed. Sign it, or ask for a presigned URL.")
		}
	} else {
		k, ok := s.cfg.Keys(a.access)
		switch {
		case !ok:
			// What is wrong in the form of a signature is told before that its key is nobody's, and the engine tells both.
			if account = cmp.Or(via, s.only(a.bucket)); account == "" {
				f := refuse(http.StatusForbidden, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
				f.Access = a.access
				return nil, f
			}
		case via != "" && via != k.Account:
			return nil, refuse(http.StatusForbidden, "AccessDenied", "Access Denied: the key is of another environment than this address.")
		default:
			account = k.Account
			if err := s.may(r, a, k); err != nil {
				return nil, err
			}
		}
	}
	d := s.doorOf(account)
	if d == nil {
		return nil, refuse(http.StatusNotFound, "NoSuchBucket", "The specified bucket does not exist")
	}
	return d, s.bounded(r, a, account)
}

// along is the account of the route that a request came along; "": it came directly.
func (s *Store) along(r *http.Request, a *asked) (account string, err error) {
	v := r.Header.Get(FieldBucket)
	if v == "" {
		return "", nil
	}
	id, err := tenfold.ParseID(v)
	w, ok := s.wantedID(id)
	if err != nil || !ok {
		return "", refuse(http.StatusServiceUnavailable, "ServiceUnavailable", "The bucket of this route is not there yet. Please try again.")
	}
	if a.bucket != w.name && s.cfg.suite == nil {
		return "", refuse(http.StatusNotFound, "NoSuchBucket", "The specified bucket does not exist")
	}
	return w.account, nil
}

// may says why the holder of a key may not; nil: it may, if the key signed.
func (s *Store) may(r *http.Request, a *asked, k awsapi.Key) error {
	named := s.wanted(k.Account, a.bucket) != nil
	switch {
	case a.operation == "PostObject":
		return nil // what proves the key is in the form: the engine looks at it, and account.allowed after it
	case a.bucket != "" && a.operation == "CreateBucket" && !named:
		if len(k.Uses[service]) == 0 {
			return s.denied(r, a, k, a.bucket)
		}
	case a.bucket != "" && !s.uses(k, a.bucket):
		return s.denied(r, a, k, a.bucket)
	}
	if a.from != "" && !s.uses(k, a.from) {
		return s.denied(r, a, k, a.from)
	}
	if named && a.operation == "DeleteBucket" {
		return refuse(http.StatusForbidden, "AccessDenied", "%s", keeps(a.bucket))
	}
	return nil
}

// keeps is why a bucket of the manifest is not deleted.
func keeps(bucket string) string {
	return fmt.Sprintf("Access Denied: bucket %s stays as long as tenfold.yaml names it. Take it out of the manifest and deploy, then: tenfold kept remove", bucket)
}

// uses says whether a key's holder uses a bucket, or made it.
func (s *Store) uses(k awsapi.Key, bucket string) bool {
	if k.May(service, bucket) {
		return true
	}
	if s.wanted(k.Account, bucket) != nil {
		return false
	}
	d := s.doorOf(k.Account)
	return d != nil && s.owners.of(d.account, bucket) == k.Access
}

// denied is told in full to who proved that the key is theirs.
func (s *Store) denied(r *http.Request, a *asked, k awsapi.Key, bucket string) error {
	if _, err := s.signed.Verify(r, ""); err != nil {
		var e *sigv4.Error
		if errors.As(err, &e) && e.Code == sigv4.CodeInvalid {
			return refuse(http.StatusForbidden, "SignatureDoesNotMatch", "%s", e.Message)
		}
		return refuse(http.StatusForbidden, "AccessDenied", "Access Denied")
	}
	f := awsapi.Denied(k.Caller, service+":"+a.operation, "arn:aws:s3:::"+strings.TrimSuffix(bucket+"/"+a.key, "/"), bucket)
	return refuse(http.StatusForbidden, "AccessDenied", "%s", f.Message)
}

// bounded refuses bodies that are longer than the bucket takes, and bounds those that do not say how long they
// are.
func (s *Store) bounded(r *http.Request, a *asked, account string) error {
	w := s.wanted(account, a.bucket)
	if w == nil || w.Body == 0 || r.Body == nil {
		return nil
	}
	n := r.ContentLength
	if v, err := strconv.ParseInt(r.Header.Get("X-Amz-Decoded-Content-Length"), 10, 64); err == nil {
		n = v
	}
	if n > w.Body {
		return refuse(http.StatusBadRequest, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size: it has %d bytes and limit.body of buckets.%s is %d.", n, a.bucket, w.Body)
	}
	if r.ContentLength < 0 {
		r.Body = http.MaxBytesReader(nil, r.Body, w.Body+w.Body/8+64<<10) // chunks have heads
	}
	return nil
}

// refused answers an error.
func (s *Store) refused(w http.ResponseWriter, r *http.Request, err error) {
	var f *fault
	if !errors.As(err, &f) {
		s.log.Error("answer a request", "method", r.Method, "err", err)
		f = refuse(http.StatusInternalServerError, "InternalError", "We encountered an internal error. Please try again.")
	}
	if r.ContentLength != 0 {
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(drainedFor))
		if n, err := io.Copy(io.Discard, io.LimitReader(r.Body, drained)); err != nil || n == drained {
			w.Header().Set("Connection", "close")
		}
		http.NewResponseController(w).SetReadDeadline(time.Time{})
	}
	f.RequestID = rand.Text()[:16]
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("X-Amz-Request-Id", f.RequestID)
	body, merr := xml.Marshal(f)
	if merr != nil {
		panic(merr) // strings alone
	}
	w.WriteHeader(f.status)
	if r.Method != http.MethodHead {
		io.WriteString(w, xml.Header)
		w.Write(body)
	}
}

func transport(socket string) *http.Transport {
	t := unixhttp.Transport(socket)
	t.DisableCompression, t.MaxIdleConnsPerHost, t.IdleConnTimeout = true, 64, 30*time.Second
	t.ExpectContinueTimeout = time.Second
	t.WriteBufferSize, t.ReadBufferSize = 64<<10, 64<<10
	return t
}

// proxy has the engine answer. What is signed reaches it as it came: the path, the host, the fields.
func (s *Store) proxy(d *door, a *asked) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport: d.client,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = "http", "engine"
			p.Out.Host = p.In.Host
			p.Out.URL.RawQuery = p.In.URL.RawQuery
			p.Out.ContentLength = p.In.ContentLength
		},
		ModifyResponse: func(res *http.Response) error { return s.answered(d, a, res) },
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			var f *fault
			var long *http.MaxBytesError
			switch {
			case errors.As(err, &f):
			case errors.As(err, &long):
				err = refuse(http.StatusBadRequest, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
			case r.Context().Err() != nil:
				panic(http.ErrAbortHandler)
			default:
				var ne net.Error
				s.log.Warn("the engine did not answer", "operation", a.operation, "err", err, "timeout", errors.As(err, &ne) && ne.Timeout())
				err = refuse(http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate.")
			}
			s.refused(w, r, err)
		},
		ErrorLog:   s.quiet,
		BufferPool: buffers{},
	}
}

// answered looks at an answer before the client has it: what it changed is noted, and an event of it is on the
// disk before the client knows that it succeeded.
func (s *Store) answered(d *door, a *asked, res *http.Response) error {
	res.Header.Set("Server", "tenfold")
	if a.access != "" && res.Header.Get("Cache-Control") == "" && res.Request.Header.Get("Authorization") == "" {
		res.Header.Set("Cache-Control", "private") // a presigned URL ends, and copies of its answer with it
	}
	if res.StatusCode >= 300 && !(a.operation == "PostObject" && res.StatusCode == http.StatusSeeOther) { // a form may lead on to a page
		return nil
	}
	switch a.operation {
	case "CreateBucket", "DeleteBucket":
		s.owners.forget(d.account, a.bucket)
	}
	if res.Request.Method != http.MethodGet && res.Request.Method != http.MethodHead {
		s.use.touched(d.account.id, a.bucket)
	}
	return s.tell(d, a, res)
}

// buffers are what bodies are copied through.
type buffers struct{}

var pool = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// Get implements httputil.BufferPool.
func (buffers) Get() []byte { return *pool.Get().(*[]byte) }

// Put implements httputil.BufferPool.
func (buffers) Put(b []byte) { pool.Put(&b) }
