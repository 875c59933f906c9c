package awsapi

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"hash/crc32"
	"io"
	"log/slog"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"tenfold/internal/sigv4"
)

// Defaults of Served.
const (
	DefaultLimit = 16 << 20
	// compressFrom is the size from which an answer is compressed for a client that takes gzip.
	compressFrom = 4 << 10
)

// Served is a service as Front has it.
type Served struct {
	Service
	// Namespace stands before the code in __type: "com.amazonaws.dynamodb.v20120810#". The codes of AWS' own
	// front have another, see typeOf.
	Namespace string
	// Targets are what X-Amz-Target begins with: "DynamoDB_20120810". By it the service is known before the
	// signature is, which it has to be for Operations.
	Targets []string
	// Operations says whether there is an operation. One that there is not is refused without looking at
	// the signature. Nil: the service says so itself.
	Operations func(name string) bool
	// Body has an empty body stay empty, for the service to refuse; else it is read as {}.
	Body bool
	// XMLNS is the name space of the query protocol's answers; "" : the service does not speak it.
	XMLNS string
	// Limit is how long a body may be, unpacked; 0: DefaultLimit.
	Limit int64
	// Route finds the operation of a request in REST, whose service is known by its signature alone; "": there
	// is none. Nil: the service speaks JSON to one address, or the query protocol.
	Route func(method, path string) (operation string)
	// Sum has answers carry X-Amz-Crc32, as DynamoDB's do.
	Sum bool
}

// Front is the HTTP side of several services. Its fields are set before the first request.
type Front struct {
	// Keys finds an access key.
	Keys func(access string) (Key, bool)
	// Services by the name that requests are signed with.
	Services map[string]Served
	Log      *slog.Logger

	signed sigv4.Verifier
}

// NewFront makes a Front.
func NewFront(keys func(access string) (Key, bool), services map[string]Served, log *slog.Logger) *Front {
	f := &Front{Keys: keys, Services: services, Log: log}
	f.signed.Keys = func(access string) (string, bool) {
		k, ok := keys(access)
		return k.Secret, ok
	}
	return f
}

// ServeHTTP implements http.Handler.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := rand.Text() + rand.Text() // 52 characters, as AWS' are
	w.Header().Set("X-Amzn-Requestid", id)
	if r.Header.Get("Origin") != "" && shared(w.Header(), r) {
		return
	}
	rest := f.rest(r)
	if r.Method == http.MethodGet && r.URL.RawQuery == "" && rest == nil { // what load balancers and people ask
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		io.WriteString(w, "healthy: "+strings.Join(slices.Sorted(maps.Keys(f.Services)), ", ")+"\n")
		return
	}
	a := answer{w: w, r: r, id: id, log: f.Log}
	if rest != nil {
		a.s, a.rest, a.json = *rest, true, "application/json"
	}
	q, err := f.read(&a)
	if err != nil {
		a.refuse(err)
		return
	}
	body, err := a.serve(r.Context(), q)
	if err != nil {
		a.refuse(err)
		return
	}
	a.write(http.StatusOK, body)
}

// rest finds the service that a request in REST is signed for; nil: it is none.
func (f *Front) rest(r *http.Request) *Served {
	_, scope, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	parts := strings.Split(scope, "/") // access key, date, region, service, aws4_request
	if len(parts) < 5 {
		return nil
	}
	s, ok := f.Services[parts[3]]
	if !ok || s.Route == nil {
		return nil
	}
	return &s
}

// read takes a request in: its body whole, then who signed it, then for which service.
func (f *Front) read(a *answer) (*Request, error) {
	r := a.r
	// Until the signature says which service is meant, the largest limit of all holds.
	limit := int64(0)
	for _, s := range f.Services {
		limit = max(limit, cmp.Or(s.Limit, DefaultLimit))
	}
	raw, err := io.ReadAll(http.MaxBytesReader(a.w, r.Body, limit))
	if err != nil {
		var tooLong *http.MaxBytesError
		if errors.As(err, &tooLong) {
			return nil, &Fault{Status: http.StatusRequestEntityTooLarge, Code: "RequestEntityTooLargeException", Message: "the request is longer than " + strconv.FormatInt(limit, 10) + " bytes"}
		}
		return nil, &Fault{Code: "SerializationException", Message: "the request is not whole"}
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	target := r.Header.Get("X-Amz-Target")
	if target == "" && !a.rest && (kind == "application/x-www-form-urlencoded" || r.URL.Query().Get("Action") != "") {
		a.query = true
	}
	sum := sha256.Sum256(raw)
	if !a.query && !a.rest {
		if err := f.early(a, kind, target, raw); err != nil {
			return nil, err
		}
	}
	scope, err := f.signed.Verify(r, hex.EncodeToString(sum[:]))
	if err != nil {
		if !a.query && !a.rest && notJSON(r, raw) {
			return nil, &Fault{Code: "SerializationException"}
		}
		var e *sigv4.Error
		if errors.As(err, &e) {
			status := http.StatusBadRequest
			if a.query || a.rest {
				status = http.StatusForbidden
			}
			return nil, &Fault{Status: status, Code: e.Code, Message: e.Message}
		}
		return nil, err
	}
	s, ok := f.Services[scope.Service]
	if !ok {
		return nil, &Fault{Status: http.StatusNotFound, Code: "UnknownOperationException", Message: "this address serves " + strings.Join(slices.Sorted(maps.Keys(f.Services)), ", ") + ", not " + scope.Service}
	}
	a.s = s
	key, ok := f.Keys(scope.AccessKey)
	if !ok { // taken away since
		return nil, &Fault{Code: sigv4.CodeUnknown, Message: "The security token included in the request is invalid."}
	}
	body, err := unpack(r, raw, cmp.Or(s.Limit, DefaultLimit))
	if err != nil {
		return nil, err
	}
	q := &Request{Caller: key.Caller, ID: a.id, HTTP: r}
	q.Caller.Region = scope.Region
	if a.query {
		if s.XMLNS == "" {
			return nil, &Fault{Status: http.StatusNotFound, Code: "UnknownOperationException", Message: scope.Service + " does not speak the query protocol"}
		}
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return nil, &Fault{Code: "MalformedQueryString", Message: "The query string contains a syntax error: " + err.Error()}
		}
		for k, vs := range r.URL.Query() {
			form[k] = append(form[k], vs...)
		}
		q.Form, q.Operation = form, form.Get("Action")
		if q.Operation == "" {
			return nil, &Fault{Code: "MissingAction", Message: "The request must contain the parameter Action"}
		}
		a.operation = q.Operation
		return q, nil
	}
	if _, q.Operation, _ = strings.Cut(target, "."); a.rest {
		if q.Operation = s.Route(r.Method, r.URL.Path); q.Operation == "" {
			return nil, &Fault{Status: http.StatusNotFound, Code: "UnknownOperationException", Message: r.Method + " " + r.URL.Path + " is no operation of " + scope.Service}
		}
	}
	if len(body) == 0 && !s.Body {
		body = []byte("{}")
	}
	q.Body, a.operation = body, q.Operation
	return q, nil
}

// unpack gives the body as the service sees it.
func unpack(r *http.Request, raw []byte, limit int64) ([]byte, error) {
	switch r.Header.Get("Content-Encoding") {
	case "gzip":
		z, err := gzip.NewReader(bytes.NewReader(raw))
		if err == nil {
			raw, err = io.ReadAll(io.LimitReader(z, limit+1))
		}
		if err != nil {
			return nil, &Fault{Code: "SerializationException", Message: "the request's gzip encoding is broken"}
		}
	case "", "identity", "aws-chunked":
	default:
		return nil, &Fault{Status: http.StatusUnsupportedMediaType, Code: "SerializationException", Message: "requests may be encoded by gzip only"}
	}
	if int64(len(raw)) > limit {
		return nil, &Fault{Status: http.StatusRequestEntityTooLarge, Code: "RequestEntityTooLargeException", Message: "the request is longer than " + strconv.FormatInt(limit, 10) + " bytes"}
	}
	return raw, nil
}

// answer writes what came of one request.
type answer struct {
	w         http.ResponseWriter
	r         *http.Request
	id        string
	log       *slog.Logger
	s         Served
	query     bool
	rest      bool   // in REST: the operation is the method and the path
	json      string // content type of the request
	operation string
}

// serve has the service answer; a bug in it is one request's, not the process'.
func (a *answer) serve(ctx context.Context, q *Request) (body []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			a.log.Error("request broke", "operation", q.Operation, "panic", p, "stack", string(debug.Stack()))
			body, err = nil, errBroken
		}
	}()
	return a.s.Serve(ctx, q)
}

var errBroken = errors.New("the service has a bug; its log has the place")

func (a *answer) write(status int, body []byte) {
	h := a.w.Header()
	if a.query {
		h.Set("Content-Type", "text/xml")
	} else {
		h.Set("Content-Type", a.json)
	}
	if len(body) >= compressFrom && takesGzip(a.r) {
		var b bytes.Buffer
		z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
		z.Write(body)
		z.Close()
		body = b.Bytes()
		h.Set("Content-Encoding", "gzip")
	}
	if a.s.Sum || a.s.Service == nil && !a.query { // of what goes over the line
		h.Set("X-Amz-Crc32", strconv.FormatUint(uint64(crc32.ChecksumIEEE(body)), 10))
	}
	if status == http.StatusRequestEntityTooLarge {
		h.Set("Transfer-Encoding", "chunked")
	} else {
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	a.w.WriteHeader(status)
	a.w.Write(body)
}

func takesGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		if name, _, _ := strings.Cut(strings.TrimSpace(part), ";"); name == "gzip" {
			return true
		}
	}
	return false
}

func (a *answer) refuse(err error) {
	var f *Fault
	if !errors.As(err, &f) {
		if a.r.Context().Err() == nil && !errors.Is(err, errBroken) {
			a.log.Error("request failed", "operation", a.operation, "err", err)
		}
		f = &Fault{Status: http.StatusInternalServerError, Code: "InternalServerError", Query: "InternalFailure", Message: "The request could not be served: " + err.Error()}
	}
	status := cmp.Or(f.Status, http.StatusBadRequest)
	if f == errNoPage {
		a.json = ""
		a.write(status, []byte("<UnknownOperationException/>\n"))
		return
	}
	side := "Sender"
	if status >= 500 {
		side = "Receiver"
	}
	if a.query {
		a.write(status, faultXML(a.s.XMLNS, side, cmp.Or(f.Query, f.Code), f.Message, a.id))
		return
	}
	if f.Query != "" && f.Query != f.Code {
		a.w.Header().Set("X-Amzn-Query-Error", f.Query+";"+side)
	}
	members := map[string]any{}
	maps.Copy(members, f.Fields)
	kind, message := a.s.typeOf(f.Code)
	if members["__type"] = kind; a.rest {
		a.w.Header().Set("X-Amzn-Errortype", f.Code)
		delete(members, "__type")
		message = "Message"
	}
	if f.Message != "" {
		members[message] = f.Message
	}
	body, err := json.Marshal(members)
	if err != nil {
		a.log.Error("write an error", "operation", a.operation, "err", err)
		body = []byte(`{"__type":"InternalServerError"}`)
		status = http.StatusInternalServerError
	}
	a.write(status, body)
}

// faultXML is a refusal in the query protocol.
func faultXML(space, side, code, message, id string) []byte {
	out, err := xml.Marshal(struct {
		XMLName xml.Name `xml:"ErrorResponse"`
		Space   string   `xml:"xmlns,attr,omitempty"`
		Type    string   `xml:"Error>Type"`
		Code    string   `xml:"Error>Code"`
		Message string   `xml:"Error>Message"`
		Detail  struct{} `xml:"Error>Detail"`
		ID      string   `xml:"RequestId"`
	}{Space: space, Type: side, Code: code, Message: message, ID: id})
	if err != nil {
		panic(err) // strings alone
	}
	return append([]byte(xml.Header), out...)
}
