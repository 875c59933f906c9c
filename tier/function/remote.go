package function

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/google/uuid"

	"tenfold"
	"tenfold/internal/unixhttp"
	"tenfold/tier/function/runtimeapi"
)

// Call is an invocation by hand or by schedule, as the daemon asks for it.
type Call struct {
	Function tenfold.ID `json:"function"`
	ID       string     `json:"id,omitempty"` // "": a new one
	Payload  []byte     `json:"payload"`
	Async    bool       `json:"async,omitempty"`
	Tail     bool       `json:"tail,omitempty"`
}

// Answered is what came of a Call.
type Answered struct {
	RequestID string        `json:"requestId"`
	Payload   []byte        `json:"payload,omitempty"`
	Failed    string        `json:"failed,omitempty"`    // type of the function's error; its words are the payload
	Throttled string        `json:"throttled,omitempty"` // why it was not asked
	Took      time.Duration `json:"took"`
	Init      time.Duration `json:"init,omitempty"`
	Tail      []byte        `json:"tail,omitempty"`
}

// ControlHandler serves the daemon. It believes whoever asks.
func (v *Invoker) ControlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /snapshot", func(w http.ResponseWriter, r *http.Request) {
		var s Snapshot
		if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		v.Put(s)
		reply(w, v.Report())
	})
	mux.HandleFunc("GET /report", func(w http.ResponseWriter, r *http.Request) { reply(w, v.Report()) })
	mux.HandleFunc("POST /invoke", func(w http.ResponseWriter, r *http.Request) {
		var c Call
		if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a, err := v.call(r.Context(), c)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		reply(w, a)
	})
	return mux
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func (v *Invoker) call(ctx context.Context, c Call) (Answered, error) {
	in := runtimeapi.Invocation{ID: c.ID, Payload: c.Payload}
	if in.ID == "" {
		in.ID = uuid.NewString()
	}
	var busy *Throttled
	if c.Async {
		a, err := Answered{RequestID: in.ID}, v.Enqueue(ctx, c.Function, in)
		if errors.As(err, &busy) {
			a.Throttled, err = busy.Reason, nil
		}
		return a, err
	}
	var out collect
	o, err := v.Invoke(ctx, c.Function, in, c.Tail, &out)
	a := Answered{RequestID: in.ID, Payload: out.Bytes(), Took: o.Took, Init: o.Init, Tail: o.Tail}
	var fail *runtimeapi.Failure
	switch {
	case errors.As(err, &fail):
		a.Failed, a.Payload = fail.Type, fail.Payload()
	case errors.As(err, &busy):
		a.Throttled = busy.Reason
	case err != nil:
		return a, err
	}
	return a, nil
}

// Remote is an Invoker in another process, as the daemon sees it.
type Remote struct{ client *http.Client }

// NewRemote is for the Invoker whose ControlHandler is served on a unix socket. It connects when it is asked.
func NewRemote(socket string) *Remote {
	return &Remote{unixhttp.Once(socket)}
}

// Put hands down a snapshot.
func (r *Remote) Put(ctx context.Context, s Snapshot) (rep Report, err error) {
	return rep, r.ask(ctx, http.MethodPut, "/snapshot", s, &rep)
}

// Report asks how functions are used.
func (r *Remote) Report(ctx context.Context) (rep Report, err error) {
	return rep, r.ask(ctx, http.MethodGet, "/report", nil, &rep)
}

// Invoke calls a function. While there is no process it waits for one.
func (r *Remote) Invoke(ctx context.Context, c Call) (a Answered, err error) {
	return a, unixhttp.AskPatiently(ctx, r.client, whom, http.MethodPost, "/invoke", c, &a)
}

// whom is what a Remote asks, for errors.
const whom = "the functions' process"

func (r *Remote) ask(ctx context.Context, method, path string, question, answer any) error {
	return unixhttp.Ask(ctx, r.client, whom, method, path, question, answer)
}
