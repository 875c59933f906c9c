package control

import (
	"context"
	"net/http"

	"tenfold"
)

// Buckets is what can be asked of buckets: how to reach them, since objects are not sent along this API.
type Buckets interface {
	// BucketAccess is what any client of S3 needs to be the owner of an environment, who may all.
	BucketAccess(ctx context.Context, env Env) (BucketAccess, error)
}

// BucketAccess is an address on this machine, and a key for it.
type BucketAccess struct {
	Endpoint  string `json:"endpoint"`
	Region    string `json:"region"`
	AccessKey string `json:"accessKey"`
	SecretKey string `json:"secretKey"`
	// Named are the buckets of the manifest, and Public where the front door leads to those that have routes.
	Named  []tenfold.Name          `json:"named"`
	Public map[tenfold.Name]string `json:"public,omitempty"`
}

func (s server) bucketRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/apps/{app}/{env}/buckets", func(w http.ResponseWriter, r *http.Request) {
		reply(w)(s.api.BucketAccess(r.Context(), envOf(r)))
	})
}

// BucketAccess implements API.
func (c *Client) BucketAccess(ctx context.Context, env Env) (BucketAccess, error) {
	return call[BucketAccess](ctx, c, http.MethodGet, env.path()+"/buckets", nil)
}
