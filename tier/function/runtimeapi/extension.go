package runtimeapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Fields of the Extensions API.
const (
	fieldName       = "Lambda-Extension-Name"
	fieldIdentifier = "Lambda-Extension-Identifier"
	fieldEventID    = "Lambda-Extension-Event-Identifier"
	fieldExtError   = "Lambda-Extension-Function-Error-Type"
)

// extensions are those who registered: processes of their own, or parts of the runtime's.
type extensions struct {
	e  *Environment
	mu sync.Mutex
	// by identifier
	all map[string]*extension
	// missing are external ones that have not asked for their first event.
	missing map[string]bool
	down    chan struct{}
}

type extension struct {
	name   string
	invoke bool // wants INVOKE
	stop   bool // wants SHUTDOWN
	asked  bool
	events chan event
}

// event is what an extension gets.
type event struct {
	EventType          string            `json:"eventType"`
	DeadlineMs         int64             `json:"deadlineMs"`
	RequestID          string            `json:"requestId,omitempty"`
	InvokedFunctionArn string            `json:"invokedFunctionArn,omitempty"`
	Tracing            map[string]string `json:"tracing,omitempty"`
	ShutdownReason     string            `json:"shutdownReason,omitempty"`
}

func (x *extensions) init(e *Environment) {
	x.e, x.all, x.missing, x.down = e, map[string]*extension{}, map[string]bool{}, make(chan struct{})
	for _, n := range e.cfg.Extensions {
		x.missing[n] = true
	}
}

func (x *extensions) routes(mux *http.ServeMux) {
	const base = "/2020-01-01/extension/"
	mux.HandleFunc("POST "+base+"register", x.register)
	mux.HandleFunc("GET "+base+"event/next", x.next)
	mux.HandleFunc("POST "+base+"init/error", x.failed)
	mux.HandleFunc("POST "+base+"exit/error", x.failed)
}

func (x *extensions) register(w http.ResponseWriter, r *http.Request) {
	name := r.Header.Get(fieldName)
	var body struct {
		Events []string `json:"events"`
	}
	if name == "" {
		refuse(w, http.StatusForbidden, "Extension.InvalidExtensionName", "the field "+fieldName+" is missing")
		return
	}
	if b, err := io.ReadAll(io.LimitReader(r.Body, 64<<10)); err != nil || len(b) > 0 && json.Unmarshal(b, &body) != nil {
		refuse(w, http.StatusBadRequest, "InvalidRequestFormat", "the body is not {\"events\": [\"INVOKE\", \"SHUTDOWN\"]}")
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	external := x.missing[name]
	for _, o := range x.all {
		if o.name == name {
			refuse(w, http.StatusForbidden, "Extension.AlreadyRegistered", "an extension "+name+" has registered")
			return
		}
	}
	select {
	case <-x.e.ready:
		refuse(w, http.StatusForbidden, "Extension.InvalidExtensionState", "extensions register before the runtime asks for its first event")
		return
	default:
	}
	for _, want := range body.Events {
		if want != "INVOKE" && want != "SHUTDOWN" {
			refuse(w, http.StatusBadRequest, "InvalidEventType", "an event is INVOKE or SHUTDOWN, not "+want)
			return
		}
		if want == "SHUTDOWN" && !external {
			refuse(w, http.StatusForbidden, "ShutdownEventNotSupportedForInternalExtension", "an extension within the runtime gets no SHUTDOWN")
			return
		}
	}
	id := uuid.NewString()
	x.all[id] = &extension{name: name, invoke: slices.Contains(body.Events, "INVOKE"), stop: slices.Contains(body.Events, "SHUTDOWN"), events: make(chan event, 16)}
	w.Header().Set(fieldIdentifier, id)
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]string{"functionName": x.e.cfg.Function, "functionVersion": "$LATEST", "handler": x.e.cfg.Handler, "accountId": x.e.cfg.Account})
}

// find gives the extension of a request.
func (x *extensions) find(w http.ResponseWriter, r *http.Request) *extension {
	x.mu.Lock()
	defer x.mu.Unlock()
	id := r.Header.Get(fieldIdentifier)
	o := x.all[id]
	if o == nil {
		kind := "Extension.UnknownExtensionIdentifier"
		if id == "" {
			kind = "Extension.MissingExtensionIdentifier"
		}
		refuse(w, http.StatusForbidden, kind, "the field "+fieldIdentifier+" has to be what register gave")
	}
	return o
}

func (x *extensions) next(w http.ResponseWriter, r *http.Request) {
	o := x.find(w, r)
	if o == nil {
		return
	}
	x.mu.Lock()
	o.asked = true
	delete(x.missing, o.name)
	left := len(x.missing)
	x.mu.Unlock()
	if left == 0 {
		x.e.mu.Lock()
		if x.e.asked > 0 {
			x.e.start()
		}
		x.e.mu.Unlock()
	}
	var ev event
	select {
	case ev = <-o.events:
	case <-x.down:
		select {
		case ev = <-o.events:
		default:
			refuse(w, http.StatusForbidden, "Extension.InvalidExtensionState", "the environment has ended")
			return
		}
	case <-r.Context().Done():
		return
	}
	w.Header().Set(fieldEventID, uuid.NewString())
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(ev)
}

// failed is an extension's last word: the environment ends.
func (x *extensions) failed(w http.ResponseWriter, r *http.Request) {
	o := x.find(w, r)
	if o == nil {
		return
	}
	kind := r.Header.Get(fieldExtError)
	if kind == "" {
		kind = ErrorExtension
	}
	accepted(w)
	x.e.End(&Failure{Type: kind, Message: "extension " + o.name + " failed"})
}

// settled says that every external extension asked for its first event. Under Environment.mu.
func (x *extensions) settled() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.missing) == 0
}

// invoke tells extensions of an invocation.
func (x *extensions) invoke(_ context.Context, c *call) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, o := range x.all {
		if !o.invoke {
			continue
		}
		ev := event{EventType: "INVOKE", DeadlineMs: c.Deadline.UnixMilli(), RequestID: c.ID, InvokedFunctionArn: c.ARN}
		if c.Trace != "" {
			ev.Tracing = map[string]string{"type": "X-Amzn-Trace-Id", "value": c.Trace}
		}
		select {
		case o.events <- ev:
		default: // it is behind by 16: it will not miss one more
		}
	}
	return nil
}

// ShutdownGrace is how long extensions have to say goodbye.
const ShutdownGrace = 2 * time.Second

// Shutdown tells extensions that the environment ends, and says how long they may take: 0 when nobody
// wants to know. reason is "spindown", "timeout" or "failure".
func (e *Environment) Shutdown(reason string) time.Duration {
	x := &e.ext
	x.mu.Lock()
	defer x.mu.Unlock()
	var grace time.Duration
	for _, o := range x.all {
		if o.stop {
			grace = ShutdownGrace
			select {
			case o.events <- event{EventType: "SHUTDOWN", ShutdownReason: reason, DeadlineMs: time.Now().Add(ShutdownGrace).UnixMilli()}:
			default:
			}
		}
	}
	return grace
}

func (x *extensions) end() {
	x.mu.Lock()
	defer x.mu.Unlock()
	select {
	case <-x.down:
	default:
		close(x.down)
	}
}

// decodeTrailer reads an error's body, which stands in base64 in its trailer.
func decodeTrailer(s string) []byte {
	if b, err := base64.StdEncoding.DecodeString(s); err == nil {
		return b
	}
	return []byte(s)
}
