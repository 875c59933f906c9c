package control

import (
	"context"
	"net/http"

	"tenfold"
	"tenfold/internal/pooldir"
)

// Pools is what can be asked of the pool before a database. The data is pooldir's.
type Pools interface {
	// Pool is what the pool has seen since it began, and has now.
	Pool(ctx context.Context, id tenfold.ID) (pooldir.View, error)
}

// poolRoutes are those of a database's pool, below the database's own.
func (s server) poolRoutes(mux *http.ServeMux, at string, id func(*http.Request) tenfold.ID) {
	mux.HandleFunc("GET "+at+"/pool", func(w http.ResponseWriter, r *http.Request) { reply(w)(s.api.Pool(r.Context(), id(r))) })
}

// Pool implements API.
func (c *Client) Pool(ctx context.Context, id tenfold.ID) (pooldir.View, error) {
	return call[pooldir.View](ctx, c, http.MethodGet, dbPath(id)+"/pool", nil)
}
