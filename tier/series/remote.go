package series

import (
	"context"
	"encoding/json"
	"net/http"

	"tenfold/internal/unixhttp"
)

// ControlHandler serves the daemon. It believes whoever asks.
func (f *Front) ControlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /snapshot", func(w http.ResponseWriter, r *http.Request) {
		var s Snapshot
		if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(f.Put(s))
	})
	return mux
}

// Remote is a Front in another process, as the daemon sees it.
type Remote struct{ client *http.Client }

// NewRemote is for the Front whose ControlHandler is served on a unix socket. It connects when it is asked.
func NewRemote(socket string) *Remote { return &Remote{unixhttp.Once(socket)} }

// Put hands down a snapshot.
func (r *Remote) Put(ctx context.Context, s Snapshot) (rep Report, err error) {
	return rep, unixhttp.Ask(ctx, r.client, "the front of time series", http.MethodPut, "/snapshot", s, &rep)
}
