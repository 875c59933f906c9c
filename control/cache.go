package control

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"tenfold"
	"tenfold/internal/cacheinfo"
	"tenfold/internal/dbinfo"
)

// Caches is what can be asked of one cache. The data is cacheinfo's.
type Caches interface {
	Cache(ctx context.Context, id tenfold.ID) (cacheinfo.Cache, error)
	// CacheFailover kills the primary as a crash would and returns when there is one again.
	CacheFailover(ctx context.Context, id tenfold.ID) error
	// CacheSwitchover makes a reader the primary in order; node 0: the one that is least behind.
	CacheSwitchover(ctx context.Context, id tenfold.ID, node int) error
	// CacheRotate gives every user a new password and restarts the services that have one.
	CacheRotate(ctx context.Context, id tenfold.ID) (dbinfo.Rotation, error)
	// CacheTop is what the primary does now; CacheKeys samples keys, n of them (0: 5000).
	CacheTop(ctx context.Context, id tenfold.ID) (cacheinfo.Top, error)
	CacheKeys(ctx context.Context, id tenfold.ID, n int) (cacheinfo.Keys, error)
	// CacheBackup takes a backup now; CacheBackups lists what can be restored from.
	CacheBackup(ctx context.Context, id tenfold.ID) (cacheinfo.Backup, error)
	CacheBackups(ctx context.Context, id tenfold.ID) ([]cacheinfo.Backup, error)
	// CacheRestore makes a new cache beside the old with the last backup before a time (zero: the newest).
	CacheRestore(ctx context.Context, id tenfold.ID, to time.Time) (tenfold.ID, error)
}

// cacheRoutes are those of caches.
func (s server) cacheRoutes(mux *http.ServeMux) {
	const at = "/v1/apps/{app}/{env}/caches/{name}"
	id := func(r *http.Request) tenfold.ID {
		e := envOf(r)
		return tenfold.ID{App: e.App, Env: e.Env, Kind: tenfold.KindCache, Name: nameOf(r)}
	}
	mux.HandleFunc("GET "+at, func(w http.ResponseWriter, r *http.Request) { reply(w)(s.api.Cache(r.Context(), id(r))) })
	mux.HandleFunc("POST "+at+"/failover", func(w http.ResponseWriter, r *http.Request) { done(w, s.api.CacheFailover(r.Context(), id(r))) })
	mux.HandleFunc("POST "+at+"/switchover", func(w http.ResponseWriter, r *http.Request) {
		var q struct{ Node int }
		if read(w, r, &q) {
			done(w, s.api.CacheSwitchover(r.Context(), id(r), q.Node))
		}
	})
	mux.HandleFunc("POST "+at+"/rotate", func(w http.ResponseWriter, r *http.Request) { reply(w)(s.api.CacheRotate(r.Context(), id(r))) })
	mux.HandleFunc("GET "+at+"/top", func(w http.ResponseWriter, r *http.Request) { reply(w)(s.api.CacheTop(r.Context(), id(r))) })
	mux.HandleFunc("GET "+at+"/keys", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.FormValue("sample"))
		reply(w)(s.api.CacheKeys(r.Context(), id(r), n))
	})
	mux.HandleFunc("GET "+at+"/backups", func(w http.ResponseWriter, r *http.Request) { reply(w)(s.api.CacheBackups(r.Context(), id(r))) })
	mux.HandleFunc("POST "+at+"/backups", func(w http.ResponseWriter, r *http.Request) { reply(w)(s.api.CacheBackup(r.Context(), id(r))) })
	mux.HandleFunc("POST "+at+"/restore", func(w http.ResponseWriter, r *http.Request) {
		var q struct{ To time.Time }
		if read(w, r, &q) {
			reply(w)(s.api.CacheRestore(r.Context(), id(r), q.To))
		}
	})
}

func cachePath(id tenfold.ID) string {
	return Env{App: id.App, Env: id.Env}.path() + "/caches/" + string(id.Name)
}

// Cache implements API.
func (c *Client) Cache(ctx context.Context, id tenfold.ID) (cacheinfo.Cache, error) {
	return call[cacheinfo.Cache](ctx, c, http.MethodGet, cachePath(id), nil)
}

// CacheFailover implements API.
func (c *Client) CacheFailover(ctx context.Context, id tenfold.ID) error {
	return do(ctx, c, http.MethodPost, cachePath(id)+"/failover", nil)
}

// CacheSwitchover implements API.
func (c *Client) CacheSwitchover(ctx context.Context, id tenfold.ID, node int) error {
	return do(ctx, c, http.MethodPost, cachePath(id)+"/switchover", map[string]int{"node": node})
}

// CacheRotate implements API.
func (c *Client) CacheRotate(ctx context.Context, id tenfold.ID) (dbinfo.Rotation, error) {
	return call[dbinfo.Rotation](ctx, c, http.MethodPost, cachePath(id)+"/rotate", nil)
}

// CacheBackup implements API.
func (c *Client) CacheBackup(ctx context.Context, id tenfold.ID) (cacheinfo.Backup, error) {
	return call[cacheinfo.Backup](ctx, c, http.MethodPost, cachePath(id)+"/backups", nil)
}

// CacheBackups implements API.
func (c *Client) CacheBackups(ctx context.Context, id tenfold.ID) ([]cacheinfo.Backup, error) {
	return call[[]cacheinfo.Backup](ctx, c, http.MethodGet, cachePath(id)+"/backups", nil)
}

// CacheRestore implements API.
func (c *Client) CacheRestore(ctx context.Context, id tenfold.ID, to time.Time) (tenfold.ID, error) {
	return call[tenfold.ID](ctx, c, http.MethodPost, cachePath(id)+"/restore", map[string]time.Time{"to": to})
}

// CacheTop implements API.
func (c *Client) CacheTop(ctx context.Context, id tenfold.ID) (cacheinfo.Top, error) {
	return call[cacheinfo.Top](ctx, c, http.MethodGet, cachePath(id)+"/top", nil)
}

// CacheKeys implements API.
func (c *Client) CacheKeys(ctx context.Context, id tenfold.ID, n int) (cacheinfo.Keys, error) {
	return call[cacheinfo.Keys](ctx, c, http.MethodGet, cachePath(id)+"/keys?sample="+strconv.Itoa(n), nil)
}
