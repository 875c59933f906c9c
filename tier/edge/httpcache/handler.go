package httpcache

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Handler is the cache in front of next, with the whole semantics. rule gives the rule of a request, nil
// for the zero Rule; it is asked once per request.
//
// next is called with requests as they came, or with the preconditions of the cache in place of the
// client's, and, for a response that several wait for, with a context that outlives the client: it ends
// when nobody needs the response any more. Such calls run on goroutines of the cache, while Run runs. When
// no origin answered, next calls Unreachable before it writes its error page. A response cut short is told
// by a panic with http.ErrAbortHandler, as httputil.ReverseProxy does.
func (c *Cache) Handler(rule func(*http.Request) *Rule, next http.Handler) http.Handler {
	return &handler{c, rule, next}
}

type handler struct {
	c    *Cache
	rule func(*http.Request) *Rule
	next http.Handler
}

type unreachableKey struct{}

// Unreachable tells the cache that the response about to be written is the proxy's own: no origin
// answered. The cache may then serve what it has, stale (RFC 9111 §4.2.4). Without the cache it does
// nothing.
func Unreachable(r *http.Request) {
	if p, ok := r.Context().Value(unreachableKey{}).(*atomic.Bool); ok {
		p.Store(true)
	}
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ru := &zeroRule
	if h.rule != nil {
		if given := h.rule(r); given != nil {
			ru = given
		}
	}
	q := h.c.newRequest(r, ru)
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		if bypass(r, ru) != "" {
			h.pass(w, q, passing{status: "tenfold; fwd=bypass"})
			return
		}
		h.get(w, q, nil)
	case http.MethodOptions, http.MethodTrace, http.MethodConnect, "PROPFIND", "REPORT", "SEARCH", "QUERY":
		h.pass(w, q, passing{status: "tenfold; fwd=method"})
	default:
		h.unsafe(w, q)
	}
}

// bypass says why a GET or HEAD is not for the cache; "": it is.
func bypass(r *http.Request, ru *Rule) string {
	switch {
	case ru.Off:
		return "the rule says so"
	case r.ContentLength != 0:
		return "it has a body"
	case r.Header["Upgrade"] != nil:
		return "it asks for another protocol"
	case r.Header["If-Match"] != nil || r.Header["If-Unmodified-Since"] != nil:
		return "its condition is the origin's to judge"
	}
	return ""
}

// unsafe passes a request of a method that may change things (RFC 9111 §4.4). What it invalidates is
// gone before the client reads the head of the answer. A POST response that says it is what GET would
// give is stored as that (RFC 9110 §9.3.3).
func (h *handler) unsafe(w http.ResponseWriter, q *request) {
	h.pass(w, q, passing{
		status: "tenfold; fwd=method",
		head: func(status int, header http.Header) {
			if status >= 200 && status < 400 {
				h.c.invalidate(q, header)
			}
		},
		store: func(status int, header http.Header, v verdict) bool {
			return q.r.Method == http.MethodPost && status == 200 && v.share && v.explicit && !q.rule.Off && h.c.names(q, header.Get("Content-Location"))
		},
	})
}

// names says whether a reference, resolved, is the target of a request itself.
func (c *Cache) names(q *request, ref string) bool {
	if ref == "" {
		return false
	}
	target := urlOf(q.key)
	if strings.HasPrefix(ref, "/") && !strings.HasPrefix(ref, "//") {
		i := strings.Index(target, "://") + 3
		j := strings.IndexByte(target[i:], '/')
		return j >= 0 && target[i+j:] == ref
	}
	return canonicalURL(ref) == target
}

// released is what a follower knows of the response that it waited for in vain.
type released struct {
	vary []string // the response could be stored, but was selected by other values of these
}

// get answers GET and HEAD. after is not nil when the request has waited once already: it waits again
// only for a response that is known to be selected by fields like its own.
func (h *handler) get(w http.ResponseWriter, q *request, after *released) {
	c := h.c
	e, seen := c.lookup(q)
	if e != nil {
		switch c.reuse(q, e) {
		case useFresh:
			c.counts.hits.Add(1)
			e.touch()
			c.respond(w, q, e, statusHit)
			return
		case useStale:
			if h.refresh(q, e) {
				c.counts.stale.Add(1)
				e.touch()
				c.respond(w, q, e, "tenfold; hit; ttl="+strconv.FormatInt(-int64(e.staleFor(q.now)/time.Second), 10))
				return
			}
		case useAllowed:
			c.counts.stale.Add(1)
			c.respond(w, q, e, "tenfold; hit; ttl="+strconv.FormatInt(-int64(e.staleFor(q.now)/time.Second), 10))
			return
		}
	}
	if q.cc.onlyIfCached {
		w.Header().Set("Cache-Status", "tenfold; hit=?0; detail=only-if-cached")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusGatewayTimeout) // RFC 9111 §5.2.1.7
		return
	}
	c.counts.misses.Add(uint64(b2i(e == nil)))
	fwd := forwardReason(q, e, seen)
	switch {
	case q.r.Method == http.MethodHead:
		h.pass(w, q, passing{status: fwd, head: func(status int, header http.Header) { c.headUpdate(q, e, status, header) }})
	case q.ranged && (e == nil || !e.whole()):
		h.pass(w, q, passing{status: fwd, part: true, store: storeAny})
	case e != nil:
		shared := after == nil && !q.special() && !e.rules.NoCache
		h.fetch(w, q, e, fwd, shared, after)
	case (after == nil || after.vary != nil) && !q.special() && c.routes.hold(q):
		h.fetch(w, q, nil, fwd, true, after)
	default:
		h.pass(w, q, passing{status: fwd, store: storeAny})
	}
}

// special requests neither wait for others nor let others wait for them.
func (q *request) special() bool {
	return q.authorized || q.cc.noStore || q.cc.noCache || q.cc.maxAge >= 0 || q.cc.minFresh >= 0
}

// forwardReason is the member of Cache-Status for a request that goes on (RFC 9211 §2.2).
func forwardReason(q *request, e *entry, seen bool) string {
	switch {
	case e != nil && e.fresh(q.now):
		return "tenfold; fwd=request"
	case e != nil:
		return "tenfold; fwd=stale"
	case seen:
		return "tenfold; fwd=vary-miss"
	}
	return "tenfold; fwd=uri-miss"
}

// lookup finds the newest stored response that a request selects: a whole one, or a part that covers the
// range asked for. seen: there is something under the key.
func (c *Cache) lookup(q *request) (found *entry, seen bool) {
	fields := headerFields(q.r.Header)
	_, list := c.memory.find([]byte(q.key))
	if e := choose(q, list, fields); e != nil {
		return e, true
	}
	if c.disk != nil {
		if e := c.disk.find(q, fields); e != nil {
			return c.promote(e), true
		}
	}
	return nil, len(list) > 0
}

func choose(q *request, list []*entry, fields Fields) *entry {
	for _, e := range list {
		if e.matches(fields) {
			if e.whole() {
				return e
			}
			if _, ok := e.wants(q); ok {
				return e
			}
		}
	}
	return nil
}

type use uint8

const (
	useNot     use = iota
	useFresh       // as it is
	useStale       // and refresh it behind the scenes
	useAllowed     // stale, which the client allows
)

// reuse decides on a stored response without asking the origin (RFC 9111 §4, request directives §5.2.1).
func (c *Cache) reuse(q *request, e *entry) use {
	age := e.age(q.now)
	fresh := e.fresh(q.now)
	if q.authorized && !e.rules.Explicit {
		return useNot
	}
	reload := q.cc.noCache || q.cc.maxAge >= 0 && age > time.Duration(q.cc.maxAge)*time.Second
	if q.cc.noStore || reload && !(fresh && e.rules.Immutable) {
		return useNot
	}
	if q.cc.minFresh >= 0 && e.lifetime-age < time.Duration(q.cc.minFresh)*time.Second {
		return useNot
	}
	stale := e.staleFor(q.now)
	switch {
	case fresh:
		return useFresh
	case e.rules.NoCache:
		return useNot
	case stale <= e.rules.StaleRevalidate && e.rules.StaleRevalidate > 0:
		return useStale
	case e.failing.Load() > q.now.UnixNano() && e.staleOn(q.now, false):
		return useStale
	case q.cc.maxStale >= 0 && !e.rules.Strict && stale <= time.Duration(q.cc.maxStale)*time.Second:
		return useAllowed
	}
	return useNot
}

// fetch asks the origin for the sake of one request, and, if shared, of all that come meanwhile.
func (h *handler) fetch(w http.ResponseWriter, q *request, e *entry, fwd string, shared bool, after *released) {
	f, leader := h.join(w, q, e, shared, after)
	if f == nil { // Run does not run
		h.pass(w, q, passing{status: fwd, store: storeAny})
		return
	}
	if leader {
		f.lead(w, q, fwd)
		return
	}
	again, ok := f.follow(w, q)
	if ok {
		h.c.counts.collapsed.Add(1)
		return
	}
	if q.r.Context().Err() != nil {
		panic(http.ErrAbortHandler)
	}
	if after != nil {
		again = &released{}
	}
	q.now = h.c.now()
	h.get(w, q, again)
}

// refresh revalidates an entry in the background; true when it is under way.
func (h *handler) refresh(q *request, e *entry) bool {
	f, _ := h.join(nil, q, e, true, nil)
	return f != nil
}

// join finds the request to the origin that is under way for requests like q, or begins one; leader says
// which. w is nil for nobody: a refresh. nil: it could not be begun.
func (h *handler) join(w http.ResponseWriter, q *request, e *entry, shared bool, after *released) (f *fill, leader bool) {
	c := h.c
	fl := &c.flights
	flight := ""
	if shared {
		fl.mu.Lock()
		names := fl.vary[q.key]
		if after != nil && after.vary != nil {
			names = after.vary
		}
		if e != nil {
			names = nil
			for _, v := range e.vary {
				names = append(names, v.Name)
			}
		}
		flight = q.key + secondary(names, q.r.Header)
		if f := fl.m[flight]; f != nil && !c.purges.outdates(f) {
			if w != nil {
				f.enter()
			}
			fl.mu.Unlock()
			return f, false
		}
	}
	f = newFill(c, w, q, e, flight)
	ok := c.begin(func(ctx context.Context) { f.run(ctx, h.next) })
	if ok && shared {
		fl.m[flight] = f
	}
	if shared {
		fl.mu.Unlock()
	}
	if !ok {
		return nil, false
	}
	return f, true
}
