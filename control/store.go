package control

import (
	"context"
	"encoding/json"
	"net/http"
)

// Stores is what can be asked of queues and tables.
type Stores interface {
	// StoreCall has one of AWS' operations done as the owner of an environment, who may all. A refusal is no
	// error of this call.
	StoreCall(ctx context.Context, env Env, c StoreCall) (StoreCalled, error)
}

// StoreCall is an operation of one of AWS' services: "sqs", "SendMessage" and its JSON.
type StoreCall struct {
	Service   string          `json:"service"`
	Operation string          `json:"operation"`
	Body      json.RawMessage `json:"body"`
}

// StoreCalled is its answer, or the code and the words of a refusal.
type StoreCalled struct {
	Body    json.RawMessage `json:"body,omitempty"`
	Code    string          `json:"code,omitempty"`
	Message string          `json:"message,omitempty"`
}

func (s server) storeRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/apps/{app}/{env}/stores", func(w http.ResponseWriter, r *http.Request) {
		var c StoreCall
		if read(w, r, &c) {
			reply(w)(s.api.StoreCall(r.Context(), envOf(r), c))
		}
	})
}

// StoreCall implements API.
func (c *Client) StoreCall(ctx context.Context, env Env, q StoreCall) (StoreCalled, error) {
	return call[StoreCalled](ctx, c, http.MethodPost, env.path()+"/stores", q)
}
