// Package httpcache is the front door's HTTP cache: shared (RFC 9111), with ranges and conditionals
// (RFC 9110), stale-while-revalidate and stale-if-error (RFC 5861), CDN-Cache-Control (RFC 9213) and
// Cache-Status (RFC 9211).
//
// It has two doors onto one store. Cache.Handler is net/http middleware with the whole semantics, written
// plainly; Cache.Hit answers what most requests are, a plain GET or HEAD of a fresh response in memory,
// from heads serialised beforehand and without allocating. A fuzz test holds Hit to what Handler answers.
//
// It never contacts an origin by itself: what it does not have it asks of the http.Handler behind it. It
// never overrides private or no-store unless a Rule says so in words, and never stores a body that did not
// arrive whole.
//
// Begin at Cache.Handler (handler.go), then fill.go: one request to the origin and all who wait for it.
// fresh.go decides what may be stored and for how long; memory.go and disk.go are the two tiers.
package httpcache
