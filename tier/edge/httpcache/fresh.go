package httpcache

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// verdict is what the header of a response allows (RFC 9111 §3, §4.2).
type verdict struct {
	store bool // may be stored
	// share: whoever waited for this response may have it too. False for what arrives stale or asks for
	// validation on each use: that answers one request.
	share    bool
	lifetime time.Duration // freshness lifetime
	age      time.Duration // corrected initial age (RFC 9111 §4.2.3)
	noCache  bool
	strict   bool // must-revalidate, proxy-revalidate or s-maxage: never stale
	// staleRevalidate and staleError are RFC 5861's windows after the end of the lifetime.
	staleRevalidate, staleError time.Duration
	noTransform, immutable      bool
	omit                        []string // fields not to be stored
	explicit                    bool     // freshness is the response's or the rule's own word
}

// understood are the statuses whose caching rules are known here (must-understand, RFC 9111 §5.2.2.3).
func understood(status int) bool {
	switch status {
	case 200, 203, 204, 300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 410, 414, 421, 451, 500, 501, 502, 503, 504:
		return true
	}
	return false
}

// heuristic are the statuses cacheable without explicit freshness (RFC 9110 §15.1). Those of errors are
// left out on purpose: an error is kept only when its response says so.
func heuristic(status int) bool {
	switch status {
	case 200, 203, 204, 206, 300, 301, 308:
		return true
	}
	return false
}

const (
	// heuristicShare of the time since Last-Modified counts as fresh, as RFC 9111 §4.2.2 suggests.
	heuristicShare = 10
	heuristicMax   = 24 * time.Hour
)

// responseDirectives are those that apply here: CDN-Cache-Control, where it is valid, in place of
// Cache-Control and Expires (RFC 9213 §2.2).
func responseDirectives(h http.Header) (d directives, targeted bool) {
	if d, ok := parseTargeted(h["Cdn-Cache-Control"]); ok {
		return d, true
	}
	return parseCacheControl(h["Cache-Control"]), false
}

// judge reads a final response's header. sent and got are when the request went and the response came.
func judge(q *request, status int, h http.Header, sent, got time.Time) verdict {
	ru := q.rule
	d, targeted := responseDirectives(h)
	v := verdict{
		noCache: d.noCache, noTransform: d.noTransform, immutable: d.immutable,
		strict: d.mustRevalidate || d.proxyRevalidate || d.sMaxAge >= 0,
		omit:   slices.Concat(d.noCacheFields, d.privateFields),
		age:    initialAge(h, sent, got),
	}
	overridden := d.private && ru.OverridePrivate || d.noStore && ru.OverrideNoStore
	if overridden {
		v.omit = append(v.omit, "Set-Cookie", "Set-Cookie2")
	}
	v.lifetime, v.explicit = lifetime(ru, d, targeted, status, h, !overridden && hasCookie(h), got)
	v.staleRevalidate = staleWindow(d.staleRevalidate, ru.StaleRevalidate, d)
	v.staleError = staleWindow(d.staleError, ru.StaleError, d)

	_, star := varyNames(h)
	switch {
	case q.cc.noStore, status < 200, status == 304, status == 206, status == 416, star:
		return v
	case d.mustUnderstand:
		if !understood(status) {
			return v
		}
	case d.noStore && !ru.OverrideNoStore:
		return v
	}
	if d.private && !ru.OverridePrivate {
		return v
	}
	// RFC 9111 §3.5
	if q.authorized && !d.public && !d.mustRevalidate && d.sMaxAge < 0 {
		return v
	}
	validator := h.Get("Etag") != "" || h.Get("Last-Modified") != ""
	v.share = !v.noCache && v.lifetime > v.age
	named := d.public || d.maxAge >= 0 || d.sMaxAge >= 0 || len(h["Expires"]) > 0 && !targeted || d.noCache
	v.store = (v.explicit || named || heuristic(status)) && (v.share || validator && status < 400 || v.staleRevalidate > 0 && !v.noCache)
	return v
}

// lifetime is the freshness lifetime (RFC 9111 §4.2.1) within the rule's bounds. explicit: the response or
// the rule names it. cookie: it sets one, which is then to be shared only on the response's own word.
func lifetime(ru *Rule, d directives, targeted bool, status int, h http.Header, cookie bool, got time.Time) (time.Duration, bool) {
	date, hasDate := parseDate(h.Get("Date"), got)
	if !hasDate {
		date = got
	}
	explicit := true
	var life time.Duration
	switch {
	case d.sMaxAge >= 0:
		life = time.Duration(d.sMaxAge) * time.Second
	case d.maxAge >= 0:
		life = time.Duration(d.maxAge) * time.Second
	case len(h["Expires"]) > 0 && !targeted:
		if expires, ok := parseDate(h.Get("Expires"), got); ok && len(h["Expires"]) == 1 {
			life = expires.Sub(date)
		}
	case ru.FreshDefault > 0 && heuristic(status) && !cookie:
		life = ru.FreshDefault
	case d.noCache || cookie || !d.public && !heuristic(status):
		explicit = false
	default:
		explicit = false
		if modified, ok := parseDate(h.Get("Last-Modified"), got); ok && modified.Before(date) {
			life = min(date.Sub(modified)/heuristicShare, heuristicMax)
		}
	}
	if status < 400 || explicit {
		if ru.FreshMin > 0 && !cookie {
			life = max(life, ru.FreshMin)
		}
	}
	if ru.FreshMax > 0 {
		life = min(life, ru.FreshMax)
	}
	return life, explicit
}

func hasCookie(h http.Header) bool { return len(h["Set-Cookie"]) > 0 || len(h["Set-Cookie2"]) > 0 }

// staleWindow is how long after its lifetime a response may be served under RFC 5861. must-revalidate and
// proxy-revalidate forbid it always; s-maxage does unless the response names the window beside it, which
// is how frameworks write "fresh so long, then stale so long".
func staleWindow(said int64, byRule time.Duration, d directives) time.Duration {
	switch {
	case d.mustRevalidate || d.proxyRevalidate || d.noCache:
		return 0
	case said >= 0:
		return time.Duration(said) * time.Second
	case d.sMaxAge >= 0:
		return 0
	}
	return byRule
}

// initialAge is corrected_initial_age of RFC 9111 §4.2.3. The apparent age counts whole seconds, as Date
// does: a response made in the last half second is not half a second old.
func initialAge(h http.Header, sent, got time.Time) time.Duration {
	age := parseAge(h["Age"]) + max(0, got.Sub(sent))
	if date, ok := parseDate(h.Get("Date"), got); ok {
		age = max(age, got.Truncate(time.Second).Sub(date))
	}
	return max(0, age)
}

// tagsOf reads the surrogate tags that a response names: Surrogate-Key (space) and Cache-Tag (comma).
// Tags compare without case; more than 128, or longer than 256 bytes, are left out.
func tagsOf(h http.Header, ru *Rule) []string {
	var tags []string
	add := func(t string) {
		if t = strings.TrimSpace(t); t == "" || len(t) > 256 || len(tags) >= 128 {
			return
		}
		if t = scoped(ru.Scope, t); !slices.Contains(tags, t) {
			tags = append(tags, t)
		}
	}
	for _, t := range ru.Tags {
		add(t)
	}
	for _, line := range h["Surrogate-Key"] {
		for _, t := range strings.Fields(line) {
			add(t)
		}
	}
	for _, line := range h["Cache-Tag"] {
		for _, t := range strings.Split(line, ",") {
			add(t)
		}
	}
	return tags
}

// scoped is a tag as it is stored. No tag has a control character in it.
func scoped(scope, tag string) string {
	if scope == "" {
		return strings.ToLower(tag)
	}
	return scope + "\x00" + strings.ToLower(tag)
}

// hopByHop are never stored (RFC 9111 §3.1), besides what Connection names.
var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Authorization",
	"Surrogate-Key", "Cache-Tag", "Age",
}

// storedHeader is the part of a response's header that is kept, as a new map.
func storedHeader(h http.Header, omit []string) http.Header {
	out := make(http.Header, len(h))
	for name, values := range h {
		if len(values) > 0 && !strings.HasPrefix(name, http.TrailerPrefix) {
			out[name] = slices.Clone(values)
		}
	}
	for _, line := range h["Connection"] {
		for _, name := range strings.Split(line, ",") {
			delete(out, http.CanonicalHeaderKey(strings.Trim(name, " \t")))
		}
	}
	for _, name := range hopByHop {
		delete(out, name)
	}
	for _, name := range omit {
		delete(out, name)
	}
	return out
}
