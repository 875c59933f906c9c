// Package runtimeapi is the API that one execution environment of a function speaks: Lambda's Runtime API
// (2018-06-01), its Extensions API (2020-01-01) and Telemetry API (2022-07-01).
//
// An Environment is the server's side of one process: what runs in it asks for invocations and answers
// them. The package starts no process and opens no socket; it is told when the process ended. Begin at
// Environment, then Invoke.
//
// Sources: the AWS Lambda developer guide ("Using the Lambda runtime API for custom runtimes", "Using the
// Lambda Extensions API", "Accessing real-time telemetry data"), and what the Runtime Interface Emulator
// answers where the guide is silent.
package runtimeapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Limits of payloads, in bytes.
const (
	MaxEvent    = 6 << 20     // a synchronous event
	MaxResponse = 6<<20 + 100 // a response that is not streamed
	MaxStream   = 200 << 20   // a streamed response
	maxError    = 256 << 10   // the body of an error
)

// Fields of the protocol.
const (
	fieldRequestID = "Lambda-Runtime-Aws-Request-Id"
	fieldDeadline  = "Lambda-Runtime-Deadline-Ms"
	fieldARN       = "Lambda-Runtime-Invoked-Function-Arn"
	fieldTrace     = "Lambda-Runtime-Trace-Id"
	fieldClient    = "Lambda-Runtime-Client-Context"
	fieldIdentity  = "Lambda-Runtime-Cognito-Identity"
	fieldMode      = "Lambda-Runtime-Function-Response-Mode"
	fieldErrorType = "Lambda-Runtime-Function-Error-Type"
	fieldErrorBody = "Lambda-Runtime-Function-Error-Body"
)

// Types of errors, as the guide names them.
const (
	ErrorExit      = "Runtime.ExitError"
	ErrorEntry     = "Runtime.InvalidEntrypoint"
	ErrorTruncated = "Runtime.TruncatedResponse"
	ErrorUnknown   = "Runtime.Unknown"
	ErrorTooLarge  = "Function.ResponseSizeTooLarge"
	ErrorTimeout   = "Sandbox.Timedout"
	ErrorSandbox   = "Sandbox.Failure"
	ErrorExtension = "Extension.Crash"
)

// Invocation is one event on its way to a function.
type Invocation struct {
	ID       string // unique, a UUID
	Payload  []byte
	Deadline time.Time
	ARN      string // that was asked for
	Trace    string // X-Ray's form: "Root=1-…;Parent=…;Sampled=1"
	Client   string // client context, JSON
	Identity string // Cognito's, JSON
}

// Failure is a function's error, or the environment's on its behalf.
type Failure struct {
	Type    string   `json:"errorType"`
	Message string   `json:"errorMessage"`
	Stack   []string `json:"stackTrace,omitempty"`
	// Body is what the function said, as it said it; empty: the fields above are all.
	Body []byte `json:"-"`
}

func (f *Failure) Error() string { return f.Type + ": " + f.Message }

// Payload is what a caller gets: the function's own words, or ours in the same form.
func (f *Failure) Payload() []byte {
	if len(f.Body) > 0 {
		return f.Body
	}
	b, _ := json.Marshal(f)
	return b
}

// Sink takes a response. It is called from one goroutine at a time.
type Sink interface {
	// Begin is called once, before anything of the body. streamed says that the function streams.
	Begin(contentType string, streamed bool)
	io.Writer
}

// Streamer is a Sink for whom a response is streamed whenever its length is not known before.
type Streamer interface {
	Sink
	Streams()
}

// integration is the type of a streamed response over HTTP.
const integration = "application/vnd.awslambda.http-integration-response"

// Config is what an Environment tells those who register with it.
type Config struct {
	Function string // its name
	Handler  string
	Account  string // 12 digits
	// Concurrency is how many invocations may be in the process at once; 0: 1.
	Concurrency int
	// Extensions are the names of the external extensions that were started with it: an invocation waits
	// until each has registered and asked for its first event.
	Extensions []string
}

// Environment is the server's side of one execution environment. Safe for concurrent use.
type Environment struct {
	cfg Config
	mux *http.ServeMux
	ext extensions
	tel telemetry

	// queue hands invocations to those who ask for the next one.
	queue chan *call
	over  chan struct{} // closed when the environment ended

	mu    sync.Mutex
	calls map[string]*call
	ready chan struct{} // closed with the runtime's first ask for an event, or its end
	began bool          // ready is closed
	asked int           // of the runtime's asks for an event, those that wait now
	end   *Failure      // why it ended
}

// New makes an environment before its process exists.
func New(cfg Config) *Environment {
	if cfg.Concurrency < 1 {
		cfg.Concurrency = 1
	}
	e := &Environment{cfg: cfg, queue: make(chan *call), over: make(chan struct{}), ready: make(chan struct{}), calls: map[string]*call{}}
	e.ext.init(e)
	e.mux = http.NewServeMux()
	const runtime = "/2018-06-01/runtime/"
	e.mux.HandleFunc("GET "+runtime+"invocation/next", e.next)
	e.mux.HandleFunc("POST "+runtime+"invocation/{id}/response", e.response)
	e.mux.HandleFunc("POST "+runtime+"invocation/{id}/error", e.failure)
	e.mux.HandleFunc("POST "+runtime+"init/error", e.initError)
	e.ext.routes(e.mux)
	e.tel.routes(e.mux, e)
	e.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, "NotFound", "there is no "+r.Method+" "+r.URL.Path)
	})
	return e
}

// ServeHTTP implements http.Handler.
func (e *Environment) ServeHTTP(w http.ResponseWriter, r *http.Request) { e.mux.ServeHTTP(w, r) }

// refuse answers with an error of the API itself.
func refuse(w http.ResponseWriter, status int, kind, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"errorMessage": message, "errorType": kind})
}

func accepted(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	io.WriteString(w, `{"status":"OK"}`+"\n")
}

// call is an invocation that the function has or will get.
type call struct {
	Invocation
	sink Sink

	// Under Environment.mu: answering says that somebody delivers the answer; done is closed with it. late has
	// the runtime's answer read no further.
	answering bool
	late      func()
	done      chan struct{}
	fail      *Failure
}

// Ready is closed once the runtime and all extensions asked for their first event, or the environment
// ended before; then Failed says why.
func (e *Environment) Ready() <-chan struct{} { return e.ready }

// Over is closed when the environment ended.
func (e *Environment) Over() <-chan struct{} { return e.over }

// Failed is why the environment ended; nil while it lives.
func (e *Environment) Failed() *Failure {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.end
}

// start closes ready. Under e.mu.
func (e *Environment) start() {
	if !e.began {
		e.began = true
		close(e.ready)
	}
}

// End is called when the process is gone, or has to go: what is in flight fails with f.
func (e *Environment) End(f *Failure) {
	e.mu.Lock()
	if e.end != nil {
		e.mu.Unlock()
		return
	}
	e.end = f
	close(e.over)
	e.start()
	for id, c := range e.calls {
		if !c.answering {
			delete(e.calls, id)
			c.fail = f
			close(c.done)
		}
	}
	e.mu.Unlock()
	e.ext.end()
}

// ErrOver says that an environment took no invocation because it had ended: another may have it.
var ErrOver = errors.New("the environment has ended")

// Invoke gives the function an event and its answer to sink. It returns when the function answered (nil),
// failed, or ctx ended: then the process still works at it, and the environment is of no use to others.
// ErrOver: the function has not seen the event.
func (e *Environment) Invoke(ctx context.Context, in Invocation, sink Sink) error {
	c := &call{Invocation: in, sink: sink, done: make(chan struct{})}
	if err := e.ext.invoke(ctx, c); err != nil {
		return err
	}
	select {
	case e.queue <- c:
	case <-e.over:
		return ErrOver
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		e.mu.Lock()
		if !c.answering {
			delete(e.calls, c.ID)
			e.mu.Unlock()
			return ctx.Err()
		}
		e.mu.Unlock()
		c.late()
		<-c.done // the sink is being written to
		if c.fail != nil {
			return ctx.Err()
		}
	}
	if c.fail != nil {
		return c.fail
	}
	return nil
}

// next is the runtime's ask for an event. It may wait for ever.
func (e *Environment) next(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	if e.end != nil {
		e.mu.Unlock()
		refuse(w, http.StatusForbidden, "InvalidStateTransition", "the environment has ended")
		return
	}
	if e.asked+len(e.calls) >= e.cfg.Concurrency {
		e.mu.Unlock()
		refuse(w, http.StatusForbidden, "InvalidStateTransition", fmt.Sprintf("%d invocations are in this environment already: answer one first", e.cfg.Concurrency))
		return
	}
	e.asked++
	if e.ext.settled() {
		e.start()
	}
	e.mu.Unlock()
	var c *call
	select {
	case c = <-e.queue:
	case <-e.over:
	case <-r.Context().Done():
	}
	e.mu.Lock()
	e.asked--
	if c == nil {
		e.mu.Unlock()
		refuse(w, http.StatusForbidden, "InvalidStateTransition", "the environment has ended")
		return
	}
	if e.end != nil { // it ended between the two
		c.fail = e.end
		close(c.done)
		e.mu.Unlock()
		refuse(w, http.StatusForbidden, "InvalidStateTransition", "the environment has ended")
		return
	}
	e.calls[c.ID] = c
	e.mu.Unlock()
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set(fieldRequestID, c.ID)
	h.Set(fieldDeadline, strconv.FormatInt(c.Deadline.UnixMilli(), 10))
	h.Set(fieldARN, c.ARN)
	for name, value := range map[string]string{fieldTrace: c.Trace, fieldClient: c.Client, fieldIdentity: c.Identity} {
		if value != "" {
			h.Set(name, value)
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(c.Payload)))
	w.Write(c.Payload)
}

// take claims the right to answer an invocation.
func (e *Environment) take(w http.ResponseWriter, r *http.Request) *call {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.calls[r.PathValue("id")]
	if c == nil || c.answering {
		refuse(w, http.StatusBadRequest, "InvalidRequestID", "Invalid request ID")
		return nil
	}
	c.answering = true
	c.late = func() { http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) }
	return c
}

// settle ends an invocation.
func (e *Environment) settle(c *call, f *Failure) {
	e.mu.Lock()
	delete(e.calls, c.ID)
	c.fail = f
	e.mu.Unlock()
	close(c.done)
}

// response takes an answer, whole or as it comes.
func (e *Environment) response(w http.ResponseWriter, r *http.Request) {
	c := e.take(w, r)
	if c == nil {
		return
	}
	mode := r.Header.Get(fieldMode)
	if mode != "" && mode != "streaming" {
		e.settle(c, &Failure{Type: ErrorUnknown, Message: "the runtime asks for the response mode " + strconv.Quote(mode)})
		refuse(w, http.StatusBadRequest, "InvalidResponseMode", "the response mode is streaming or not said")
		return
	}
	// aws-lambda-go never says the mode: what it streams is known by its type, or by who asked.
	if _, streams := c.sink.(Streamer); mode == "streaming" || strings.HasPrefix(r.Header.Get("Content-Type"), integration) || streams && r.ContentLength < 0 {
		e.stream(w, r, c)
		return
	}
	if r.ContentLength > MaxResponse {
		e.tooLarge(w, c, r.ContentLength)
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, MaxResponse+1))
	switch {
	case err != nil:
		e.settle(c, &Failure{Type: ErrorTruncated, Message: "the function ended before its response was whole"})
		refuse(w, http.StatusBadRequest, ErrorTruncated, "the response is not whole")
	case len(body) > MaxResponse:
		rest, _ := io.Copy(io.Discard, r.Body)
		e.tooLarge(w, c, int64(len(body))+rest)
	case r.Trailer.Get(fieldErrorType) != "":
		e.settle(c, failureOf(r.Trailer.Get(fieldErrorType), decodeTrailer(r.Trailer.Get(fieldErrorBody))))
		accepted(w)
	default:
		c.sink.Begin(r.Header.Get("Content-Type"), false)
		c.sink.Write(body)
		e.settle(c, nil)
		accepted(w)
	}
}

func (e *Environment) tooLarge(w http.ResponseWriter, c *call, n int64) {
	e.settle(c, &Failure{Type: ErrorTooLarge, Message: fmt.Sprintf("Response payload size (%d bytes) exceeded maximum allowed payload size (%d bytes).", n, MaxResponse)})
	refuse(w, http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", fmt.Sprintf("Exceeded maximum allowed payload size (%d bytes).", MaxResponse))
}

// stream passes an answer on as it comes. An error in the middle is told in trailers.
func (e *Environment) stream(w http.ResponseWriter, r *http.Request, c *call) {
	c.sink.Begin(r.Header.Get("Content-Type"), true)
	buf := make([]byte, 32<<10)
	total := 0
	for {
		n, err := r.Body.Read(buf)
		if total += n; total > MaxStream {
			e.settle(c, &Failure{Type: ErrorTooLarge, Message: fmt.Sprintf("Response payload size exceeded maximum allowed payload size (%d bytes).", MaxStream)})
			refuse(w, http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", fmt.Sprintf("Exceeded maximum allowed payload size (%d bytes).", MaxStream))
			return
		}
		if n > 0 {
			if _, werr := c.sink.Write(buf[:n]); werr != nil {
				e.settle(c, &Failure{Type: ErrorSandbox, Message: "who asked is gone"})
				io.Copy(io.Discard, io.LimitReader(r.Body, MaxStream))
				accepted(w)
				return
			}
		}
		switch {
		case err == io.EOF:
			var f *Failure
			if kind := r.Trailer.Get(fieldErrorType); kind != "" {
				f = failureOf(kind, decodeTrailer(r.Trailer.Get(fieldErrorBody)))
			}
			e.settle(c, f)
			accepted(w)
			return
		case err != nil:
			e.settle(c, &Failure{Type: ErrorTruncated, Message: "the function ended before its response was whole"})
			refuse(w, http.StatusBadRequest, ErrorTruncated, "the response is not whole")
			return
		}
	}
}

// failure takes a function's error.
func (e *Environment) failure(w http.ResponseWriter, r *http.Request) {
	c := e.take(w, r)
	if c == nil {
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxError))
	if err != nil {
		body = nil
	}
	e.settle(c, failureOf(r.Header.Get(fieldErrorType), body))
	accepted(w)
}

// initError takes the runtime's last words before it could take an event.
func (e *Environment) initError(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	began := e.began
	e.mu.Unlock()
	if began {
		refuse(w, http.StatusForbidden, "InvalidStateTransition", "the runtime has begun: answer an invocation instead")
		return
	}
	body, _ := io.ReadAll(io.LimitReader(r.Body, maxError))
	accepted(w)
	e.End(failureOf(r.Header.Get(fieldErrorType), body))
}

// failureOf reads what a function says of its error. What is no JSON is told as it is.
func failureOf(kind string, body []byte) *Failure {
	f := &Failure{}
	if json.Unmarshal(body, f) == nil && json.Valid(body) {
		f.Body = body
	}
	if f.Type == "" {
		f.Type = kind
	}
	if f.Type == "" {
		f.Type = ErrorUnknown
	}
	if f.Message == "" && f.Body == nil {
		f.Message = strings.ToValidUTF8(string(body), "?")
	}
	return f
}
