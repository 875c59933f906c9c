package function

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream/eventstreamapi"
	"github.com/google/uuid"

	"tenfold"
	"tenfold/internal/sigv4"
	"tenfold/tier/function/runtimeapi"
)

// Handler serves the Invoke API, and what the front door sends to functions.
func (v *Invoker) Handler() http.Handler {
	api := invokeAPI{v: v, signed: &sigv4.Verifier{Keys: v.secret}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /2015-03-31/functions/{name}/invocations", api.invoke)
	mux.HandleFunc("POST /2021-11-15/functions/{name}/response-streaming-invocations", api.stream)
	mux.HandleFunc("POST /2014-11-13/functions/{name}/invoke-async/", api.old)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, &fault{http.StatusNotFound, "UnknownOperationException", "of Lambda's API, invocations are served: " + r.Method + " " + r.URL.Path + " is not"})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(FieldFunction) != "" {
			v.gateway(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (v *Invoker) secret(access string) (string, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	k, ok := v.keys[access]
	return k.Secret, ok
}

// invokeAPI is Lambda's API as its clients call it.
type invokeAPI struct {
	v      *Invoker
	signed *sigv4.Verifier
}

// fault is an error in the form of Lambda's API.
type fault struct {
	status  int
	kind    string
	message string
}

func (f *fault) Error() string { return f.kind + ": " + f.message }

func refuse(w http.ResponseWriter, f *fault) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Amzn-Errortype", f.kind)
	if w.Header().Get("X-Amzn-Requestid") == "" {
		w.Header().Set("X-Amzn-Requestid", uuid.NewString())
	}
	body := map[string]string{"Type": "User", "Message": f.message, "message": f.message}
	if f.status >= 500 {
		body["Type"] = "Service"
	}
	if f.kind == "TooManyRequestsException" {
		body["Reason"], body["message"], body["Message"] = f.message, "Rate Exceeded.", "Rate Exceeded."
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(f.status)
	json.NewEncoder(w).Encode(body)
}

// asked reads a request: which function, who asks, and the event.
func (a invokeAPI) asked(r *http.Request, limit int, what string) (id tenfold.ID, body []byte, err error) {
	body, err = io.ReadAll(io.LimitReader(r.Body, int64(limit)+1))
	if err != nil {
		return id, nil, &fault{http.StatusBadRequest, "InvalidRequestContentException", "the event is not whole"}
	}
	if len(body) > limit {
		return id, nil, &fault{http.StatusRequestEntityTooLarge, "RequestTooLargeException", fmt.Sprintf("Request must be smaller than %d bytes for the %s operation", limit, what)}
	}
	sum := sha256.Sum256(body)
	scope, err := a.signed.Verify(r, hex.EncodeToString(sum[:]))
	if err != nil {
		var e *sigv4.Error
		if errors.As(err, &e) {
			return id, nil, &fault{http.StatusForbidden, e.Code, e.Message}
		}
		return id, nil, err
	}
	a.v.mu.Lock()
	key := a.v.keys[scope.AccessKey]
	a.v.mu.Unlock()
	said, err := url.PathUnescape(r.PathValue("name"))
	if err != nil {
		said = r.PathValue("name")
	}
	name, ok := nameOf(said, key.Account, r.URL.Query().Get("Qualifier"))
	if !ok {
		return id, nil, notFound(key, said)
	}
	id = tenfold.ID{App: key.Scope.App, Env: key.Scope.Env, Kind: tenfold.KindFunction, Name: tenfold.Name(name)}
	if _, err := a.v.find(r.Context(), id); err != nil {
		return id, nil, notFound(key, name)
	}
	if !slices.Contains(key.Functions, id.Name) {
		at := ""
		if key.Line > 0 {
			at = fmt.Sprintf(" (tenfold.yaml:%d)", key.Line)
		}
		return id, nil, &fault{http.StatusForbidden, "AccessDeniedException", fmt.Sprintf("%s is not authorized to perform: lambda:InvokeFunction on resource: %s: add %s to its uses%s", key.Of, arn(key.Account, name), name, at)}
	}
	if len(body) == 0 {
		body = []byte("{}")
	} else if !json.Valid(body) {
		return id, nil, &fault{http.StatusBadRequest, "InvalidRequestContentException", "Could not parse request body into json: " + badJSON(body)}
	}
	return id, body, nil
}

func badJSON(b []byte) string {
	var any json.RawMessage
	if err := json.Unmarshal(b, &any); err != nil {
		return err.Error()
	}
	return "it is none"
}

func notFound(k Key, name string) error {
	return &fault{http.StatusNotFound, "ResourceNotFoundException", "Function not found: " + arn(k.Account, name)}
}

// faultOf puts an error into the API's form.
func faultOf(err error) *fault {
	var f *fault
	var busy *Throttled
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &busy):
		return &fault{http.StatusTooManyRequests, "TooManyRequestsException", busy.Reason}
	}
	return &fault{http.StatusInternalServerError, "ServiceException", err.Error()}
}

// invoke is Invoke.
func (a invokeAPI) invoke(w http.ResponseWriter, r *http.Request) {
	kind := r.Header.Get("X-Amz-Invocation-Type")
	limit := runtimeapi.MaxEvent
	if kind == "Event" {
		limit = asyncMost
	}
	id, body, err := a.asked(r, limit, "InvokeFunction")
	if err != nil {
		refuse(w, faultOf(err))
		return
	}
	in := runtimeapi.Invocation{ID: uuid.NewString(), Payload: body, Trace: r.Header.Get("X-Amzn-Trace-Id")}
	w.Header().Set("X-Amzn-Requestid", in.ID)
	if c := r.Header.Get("X-Amz-Client-Context"); c != "" {
		b, err := base64.StdEncoding.DecodeString(c)
		if err != nil || !json.Valid(b) {
			refuse(w, &fault{http.StatusBadRequest, "InvalidRequestContentException", "Client context must be a valid Base64-encoded JSON object."})
			return
		}
		in.Client = string(b)
	}
	switch kind {
	case "", "RequestResponse":
	case "DryRun":
		w.WriteHeader(http.StatusNoContent)
		return
	case "Event":
		if err := a.v.Enqueue(r.Context(), id, in); err != nil {
			refuse(w, faultOf(err))
			return
		}
		w.WriteHeader(http.StatusAccepted)
		return
	default:
		refuse(w, &fault{http.StatusBadRequest, "InvalidParameterValueException", "X-Amz-Invocation-Type is RequestResponse, Event or DryRun"})
		return
	}
	var out collect
	o, err := a.v.Invoke(r.Context(), id, in, r.Header.Get("X-Amz-Log-Type") == "Tail", &out)
	payload := out.Bytes()
	var fail *runtimeapi.Failure
	switch {
	case errors.As(err, &fail):
		w.Header().Set("X-Amz-Function-Error", "Unhandled")
		payload = fail.Payload()
	case err != nil:
		refuse(w, faultOf(err))
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Amz-Executed-Version", "$LATEST")
	h.Set("Content-Length", strconv.Itoa(len(payload)))
	if o.Tail != nil {
		h.Set("X-Amz-Log-Result", base64.StdEncoding.EncodeToString(o.Tail))
	}
	w.Write(payload)
}

// old is InvokeAsync, which SDKs still have.
func (a invokeAPI) old(w http.ResponseWriter, r *http.Request) {
	id, body, err := a.asked(r, asyncMost, "InvokeAsync")
	if err == nil {
		err = a.v.Enqueue(r.Context(), id, runtimeapi.Invocation{ID: uuid.NewString(), Payload: body})
	}
	if err != nil {
		refuse(w, faultOf(err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	io.WriteString(w, `{"Status":202}`)
}

// stream is InvokeWithResponseStream.
func (a invokeAPI) stream(w http.ResponseWriter, r *http.Request) {
	id, body, err := a.asked(r, runtimeapi.MaxEvent, "InvokeWithResponseStream")
	if err != nil {
		refuse(w, faultOf(err))
		return
	}
	in := runtimeapi.Invocation{ID: uuid.NewString(), Payload: body, Trace: r.Header.Get("X-Amzn-Trace-Id")}
	w.Header().Set("X-Amzn-Requestid", in.ID)
	switch r.Header.Get("X-Amz-Invocation-Type") {
	case "", "RequestResponse":
	case "DryRun":
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		refuse(w, &fault{http.StatusBadRequest, "InvalidParameterValueException", "X-Amz-Invocation-Type is RequestResponse or DryRun"})
		return
	}
	s := &eventSink{w: w}
	o, err := a.v.Invoke(r.Context(), id, in, r.Header.Get("X-Amz-Log-Type") == "Tail", s)
	var fail *runtimeapi.Failure
	if err != nil && !errors.As(err, &fail) {
		refuse(w, faultOf(err))
		return
	}
	complete := map[string]string{}
	if fail != nil {
		complete["ErrorCode"], complete["ErrorDetails"] = fail.Type, string(fail.Payload())
	}
	if o.Tail != nil {
		complete["LogResult"] = base64.StdEncoding.EncodeToString(o.Tail)
	}
	b, err := json.Marshal(complete)
	if err != nil {
		return
	}
	s.send("InvokeComplete", "application/json", b)
}

// eventSink sends an answer as events of application/vnd.amazon.eventstream.
type eventSink struct {
	w     http.ResponseWriter
	began bool
}

// Begin implements runtimeapi.Sink.
func (s *eventSink) Begin(contentType string, _ bool) {
	if contentType == "" {
		contentType = "application/octet-stream"
	}
	s.head(contentType)
}

// Streams implements runtimeapi.Streamer.
func (s *eventSink) Streams() {}

func (s *eventSink) head(contentType string) {
	if s.began {
		return
	}
	s.began = true
	h := s.w.Header()
	h.Set("Content-Type", "application/vnd.amazon.eventstream")
	h.Set("X-Amz-Executed-Version", "$LATEST")
	h.Set("X-Amzn-Response-Content-Type", contentType)
	s.w.WriteHeader(http.StatusOK)
}

// chunkMost is how large the payload of one event is.
const chunkMost = 1 << 20

// Write implements io.Writer.
func (s *eventSink) Write(p []byte) (int, error) {
	for c := range slices.Chunk(p, chunkMost) {
		if err := s.send("PayloadChunk", "application/octet-stream", c); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (s *eventSink) send(kind, contentType string, payload []byte) error {
	s.head("application/octet-stream")
	m := eventstream.Message{Payload: payload}
	m.Headers.Set(eventstreamapi.MessageTypeHeader, eventstream.StringValue(eventstreamapi.EventMessageType))
	m.Headers.Set(eventstreamapi.EventTypeHeader, eventstream.StringValue(kind))
	m.Headers.Set(eventstreamapi.ContentTypeHeader, eventstream.StringValue(contentType))
	if err := eventstream.NewEncoder().Encode(s.w, m); err != nil {
		return err
	}
	return http.NewResponseController(s.w).Flush()
}
