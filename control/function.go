package control

import (
	"context"
	"net/http"
	"time"

	"tenfold"
)

// Functions is what can be asked of functions.
type Functions interface {
	Functions(ctx context.Context, env Env) ([]Function, error)
	// Invoke calls a function by hand. Its own failure is no error of this call.
	Invoke(ctx context.Context, env Env, q Invocation) (Invoked, error)
}

// Function is one function and how it is used since its process began.
type Function struct {
	Name        tenfold.Name  `json:"name"`
	ARN         string        `json:"arn"`
	Handler     string        `json:"handler"`
	Runtime     string        `json:"runtime,omitempty"`
	Routes      []string      `json:"routes,omitempty"`
	Timeout     time.Duration `json:"timeout"`
	Memory      int64         `json:"memory"` // bytes
	Min         int           `json:"min"`
	Max         int           `json:"max"`
	Concurrency int           `json:"concurrency"`

	Invocations uint64        `json:"invocations"`
	Errors      uint64        `json:"errors"`
	Throttles   uint64        `json:"throttles"`
	Cold        uint64        `json:"cold"`
	Busy        int           `json:"busy"`
	Warm        int           `json:"warm"`
	Waiting     int           `json:"waiting"`
	Queued      int           `json:"queued"`
	Dropped     uint64        `json:"dropped"`
	P95         time.Duration `json:"p95"`
	Init        time.Duration `json:"init"`
	Last        string        `json:"last,omitempty"` // why an environment did not start, the last time
	Unenforced  string        `json:"unenforced,omitempty"`
	From        []EventSource `json:"from,omitempty"`
}

// EventSource is a queue or table that a function is called with, and what came of that since the functions' process
// began.
type EventSource struct {
	Name     tenfold.Name  `json:"name"`
	Kind     tenfold.Kind  `json:"kind"`
	Batch    int           `json:"batch"`
	Parallel int           `json:"parallel"`
	Working  int           `json:"working"` // batches
	Batches  uint64        `json:"batches"`
	Records  uint64        `json:"records"`  // that were done
	Failed   uint64        `json:"failed"`   // that were not, each time
	Dropped  uint64        `json:"dropped"`  // of a table: that were given up on
	Filtered uint64        `json:"filtered"` // that match did not take
	Behind   time.Duration `json:"behind,omitempty"`
	Trouble  string        `json:"trouble,omitempty"` // why it cannot be read
	Last     string        `json:"last,omitempty"`    // the last failure of a batch
}

// Invocation asks for a call.
type Invocation struct {
	Function tenfold.Name `json:"function"`
	Payload  []byte       `json:"payload"`
	Async    bool         `json:"async,omitempty"`
	Tail     bool         `json:"tail,omitempty"` // its output, too
}

// Invoked is what came of a call.
type Invoked struct {
	RequestID string        `json:"requestId"`
	Payload   []byte        `json:"payload,omitempty"`
	Failed    string        `json:"failed,omitempty"`    // type of the function's error, which is the payload
	Throttled string        `json:"throttled,omitempty"` // why it was not called
	Took      time.Duration `json:"took"`
	Init      time.Duration `json:"init,omitempty"` // of an environment that was started for it
	Tail      []byte        `json:"tail,omitempty"`
}

func (s server) functionRoutes(mux *http.ServeMux) {
	const at = "/v1/apps/{app}/{env}/functions"
	mux.HandleFunc("GET "+at, func(w http.ResponseWriter, r *http.Request) { reply(w)(s.api.Functions(r.Context(), envOf(r))) })
	mux.HandleFunc("POST "+at+"/{name}/invoke", func(w http.ResponseWriter, r *http.Request) {
		var q Invocation
		if read(w, r, &q) {
			q.Function = nameOf(r)
			reply(w)(s.api.Invoke(r.Context(), envOf(r), q))
		}
	})
}

// Functions implements API.
func (c *Client) Functions(ctx context.Context, env Env) ([]Function, error) {
	return call[[]Function](ctx, c, http.MethodGet, env.path()+"/functions", nil)
}

// Invoke implements API.
func (c *Client) Invoke(ctx context.Context, env Env, q Invocation) (Invoked, error) {
	return call[Invoked](ctx, c, http.MethodPost, env.path()+"/functions/"+string(q.Function)+"/invoke", q)
}
