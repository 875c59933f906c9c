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
	// Token makes a password that lets somebody in for a quarter of an hour.
	Token(ctx context.Context, id tenfold.ID) (pooldir.Token, error)
	// Authority is whose certificates pools show.
	Authority(ctx context.Context) (pooldir.Authority, error)
}

// poolRoutes are those of a database's pool, below the database's own.
func (s server) poolRoutes(mux *http.ServeMux, at string, id func(*http.Request) tenfold.ID) {
	mux.HandleFunc("GET "+at+"/pool", func(w http.ResponseWriter, r *http.Request) { reply(w)(s.api.Pool(r.Context(), id(r))) })
	mux.HandleFunc("POST "+at+"/token", func(w http.ResponseWriter, r *http.Request) { reply(w)(s.api.Token(r.Context(), id(r))) })
	mux.HandleFunc("GET /v1/authority", func(w http.ResponseWriter, r *http.Request) { reply(w)(s.api.Authority(r.Context())) })
}

// Pool implements API.
func (c *Client) Pool(ctx context.Context, id tenfold.ID) (pooldir.View, error) {
	return call[pooldir.View](ctx, c, http.MethodGet, dbPath(id)+"/pool", nil)
}

// Token implements API.
func (c *Client) Token(ctx context.Context, id tenfold.ID) (pooldir.Token, error) {
	return call[pooldir.Token](ctx, c, http.MethodPost, dbPath(id)+"/token", nil)
}

// Authority implements API.
func (c *Client) Authority(ctx context.Context) (pooldir.Authority, error) {
	return call[pooldir.Authority](ctx, c, http.MethodGet, "/v1/authority", nil)
}
