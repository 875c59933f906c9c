package httpcache

import "time"

// Rule is what the manifest says of a route's caching (edge.routes.<route>.cache). The zero Rule: by the
// response's own header fields alone. A Rule is not changed once it was handed over.
type Rule struct {
	// Route names the route, for what is remembered of it: whether its responses can be stored at all.
	// Empty: the host and the first segment of the path stand for it.
	Route string
	// Off leaves the route uncached: requests pass, unsafe methods still invalidate.
	Off bool

	// FreshDefault is the freshness lifetime of a response that names none of its own; it applies to
	// statuses that RFC 9110 §15.1 calls heuristically cacheable below 400, and not to Set-Cookie.
	// FreshMin and FreshMax bound what the response says; FreshMax 0: no bound. Neither makes a response
	// with private, no-store or no-cache reusable.
	FreshDefault, FreshMin, FreshMax time.Duration
	// StaleRevalidate and StaleError are stale-while-revalidate and stale-if-error for responses that do
	// not say themselves.
	StaleRevalidate, StaleError time.Duration

	// Query says which parameters are part of the key, by Params.
	Query  Query
	Params []string
	// Headers and Cookies are request fields and cookies whose values are part of the key.
	Headers, Cookies []string

	// Scope is whose tags are meant: those of one scope never name another's.
	Scope string
	// Tags are surrogate tags of every response of the route, besides those that it names itself.
	Tags []string
	// Release is part of the key, and what Purge{Release} takes away: the release or deployment that
	// answers. Changing it switches all at once.
	Release string

	// OverridePrivate and OverrideNoStore store what says private or no-store. Set-Cookie is then left out
	// of what is stored.
	OverridePrivate, OverrideNoStore bool
}

// Query is which parameters of the query are part of the key.
type Query uint8

const (
	QueryWhole  Query = iota // the target as it was sent, order included
	QueryOnly                // Params alone, sorted by name
	QueryExcept              // all but Params, sorted by name
	QueryNone                // none: the path alone
)

var zeroRule Rule
