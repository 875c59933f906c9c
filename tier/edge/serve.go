package edge

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"tenfold/internal/directory"
	"tenfold/tier/edge/httpcache"
	"tenfold/tier/edge/upstream"
)

// routed is what ServeHTTP found out about a request; it travels in the request's context, also
// into what the cache asks for by itself.
type routed struct {
	decision
	site   *site
	host   string
	client string       // who asks, as host:port
	secure bool         // it came over TLS
	told   bool         // explain asks: nothing is counted, slowed down or remembered
	to     *destination // nil: no route
	rule   *httpcache.Rule
	begun  time.Time
	// asked is how long after begun the service was, 0 when it was not. A request that is answered from
	// what is stored may have the service asked beside it, on a goroutine of the cache.
	asked atomic.Int64
	// release is the one that frontend is answered from; "" for whatever is current.
	frontend, release string
	apart             string     // the version that a call is pinned to, when it is not the current one
	tried             *candidate // nil: users' own
}

type routedKey struct{}

// routedOf gives what is known of a request; nil before it was routed.
func routedOf(r *http.Request) *routed {
	q, _ := r.Context().Value(routedKey{}).(*routed)
	return q
}

// first is what a request meets before any rule of a site.
type first uint8

const (
	firstSite     first = iota
	firstNobody         // no app has the host
	firstConsole        // its hosts, and deliveries of Git hosts on any
	firstRenamed        // 301: the host is another name of an app
	firstInsecure       // 308: the host is answered over TLS alone
	firstAstray         // 421: the connection is another host's
)

// first finds who is meant. to is where a redirect leads, s the site that is meant or has that other name.
func (d *Door) first(t *table, r *http.Request, host string) (what first, to string, s *site) {
	switch {
	case d.keys != nil && r.TLS != nil && d.keys.Misdirected(r.TLS, r.Host):
		return firstAstray, "", nil
	case d.secured(host) && !t.secure(r) && !d.challenges(r):
		return firstInsecure, "https://" + host + r.URL.RequestURI(), nil
	case t.console[host] || strings.HasPrefix(r.URL.Path, directory.HooksPath):
		return firstConsole, "", nil
	}
	if to, ok := t.redirect[host]; ok {
		s = t.hosts[to]
		if _, port, err := net.SplitHostPort(r.Host); err == nil && port != "" {
			to = net.JoinHostPort(to, port)
		}
		return firstRenamed, "//" + to + r.URL.RequestURI(), s
	}
	if s = t.find(host); s == nil {
		return firstNobody, "", nil
	}
	return firstSite, "", s
}

// ServeHTTP finds who is meant and hands the request to the cache, behind which answer stands. What it
// decides by, explain tells: first, route, admit, end and statics.find answer nobody and change nothing
// but the request.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t, host := d.current.Load(), hostOf(r)
	if d.challenged(w, r) {
		return
	}
	what, to, s := d.first(t, r, host)
	switch what {
	case firstAstray:
		page{http.StatusMisdirectedRequest, "this connection is not for " + host, "its certificate is another host's", ""}.show(w, r)
	case firstInsecure:
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusPermanentRedirect)
	case firstConsole:
		d.console.ServeHTTP(w, r)
	case firstRenamed:
		if s != nil && t.secure(r) {
			(&fields{hsts: s.HSTS}).edit(w.Header(), http.StatusMovedPermanently)
		}
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusMovedPermanently)
	case firstNobody:
		page{http.StatusNotFound, "nothing is served for " + host, known(t), ""}.show(w, r)
	case firstSite:
		d.serve(w, r, t, s, host)
	}
}

// serve answers a request of a site, and notes it.
func (d *Door) serve(w http.ResponseWriter, r *http.Request, t *table, s *site, host string) {
	q := d.route(t, s, host, r)
	rec := &recorder{ResponseWriter: w, q: q}
	defer func(target string) { q.note(rec, r, target) }(r.URL.RequestURI())
	// A context of wire's own takes it along; any other needs a copy of the request.
	if c, ok := r.Context().(interface{ Keep(key, value any) }); ok {
		c.Keep(routedKey{}, q)
	} else {
		r = r.WithContext(context.WithValue(r.Context(), routedKey{}, q))
	}
	d.pass(rec, r, q)
}

// route finds what the rules and routes of a site say of a request.
func (d *Door) route(t *table, s *site, host string, r *http.Request) *routed {
	q := &routed{decision: s.decide(r.Method, host, r.URL.Path), site: s, host: host, rule: &uncached, begun: time.Now()}
	q.client, q.secure = t.client(r.RemoteAddr, r.Header["X-Forwarded-For"]), t.secure(r)
	if q.secure {
		r.URL.Scheme = "https" // the cache keeps what was answered over TLS apart, wherever TLS ended
	}
	if to, _, ok := s.routes.Find(r.Method, host, q.path(r.URL)); ok {
		q.to, q.frontend = to, to.Frontend
		q.rule, q.release = s.pinned(q.ruleFor(to), to)
		if s.pinning && to.Service != "" {
			q.rule, q.apart = s.deployed(q.rule, to, r.Method, host, r.URL.Path, r.Header.Get("X-Deployment-Id"), r.URL.RawQuery)
		}
	}
	return q
}

// note counts a request and writes it into the access log.
func (q *routed) note(rec *recorder, r *http.Request, target string) {
	log, route := q.site.missing, ""
	a := access{
		method: r.Method, host: r.Host, target: target, remote: q.client, status: rec.status, bytes: rec.bytes,
		took: time.Since(q.begun), protocol: r.ProtoMajor, secure: q.secure, hit: rec.hit(),
	}
	if q.to != nil {
		log, route = q.to.log, q.to.Pattern
		q.to.count.add(a.status, a.took)
		if a.hit {
			q.to.count.hits.Add(1)
		}
	}
	a.at, a.route = q.begun.Add(a.took), route
	log.add(&a)
}

// pass lets a request through to the cache, or answers it: who may not pass, what is too much.
func (d *Door) pass(w http.ResponseWriter, r *http.Request, q *routed) {
	if q.crosses() {
		if isPreflight(r) {
			preflight(w, r, q.cors.CORS)
			return
		}
		w = &headerWriter{ResponseWriter: w, editor: &outward{cors: q.cors.CORS, origin: r.Header.Get("Origin")}}
	}
	if no := d.admit(r, q); no != nil {
		no.show(q.dress(w), r)
		return
	}
	if q.site.Password != "" || q.auth.rule != nil && !q.auth.guard.off {
		w = &headerWriter{ResponseWriter: w, editor: &outward{kept: true}}
	}
	most := int64(maxBody)
	if q.limited(r) {
		l := q.limit.limiter
		leave, pass := l.take(q.dress(w), r, q.client)
		if !pass {
			return
		}
		defer leave()
		most = cmp.Or(l.body, most)
	}
	if r.ContentLength > most {
		page{http.StatusRequestEntityTooLarge, "the request is too large", "at most " + sizeText(most) + " are taken", "edge.routes.*.limit.body sets it"}.show(q.dress(w), r)
		return
	}
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = http.MaxBytesReader(w, r.Body, most)
	}
	trace(r.Header)
	d.places.mark(q.site.Geo, r.Header, q.client)
	d.cached.ServeHTTP(w, r)
}

// crosses says that a rule lets pages of other origins in.
func (q *routed) crosses() bool { return q.cors.rule != nil && len(q.cors.CORS) > 0 }

// limited says that a limit holds: what the door asks of itself is free.
func (q *routed) limited(r *http.Request) bool { return q.limit.rule != nil && !isInner(r) }

// admit says why a request may not pass; nil: it may. One that passes is changed so that nobody behind
// the door gets what was meant for it.
func (d *Door) admit(r *http.Request, q *routed) *denial {
	if q.maintenance.rule != nil && !(q.auth.rule != nil && len(q.auth.guard.allow) > 0 && q.auth.guard.addressed(q.client)) {
		return &denial{page: page{http.StatusServiceUnavailable, "closed for maintenance", "edge.routes.*.maintenance says so", ""}, retry: maintenanceLook, html: q.maintenance.Maintenance}
	}
	if q.site.Password != "" && !isInner(r) {
		if no := d.passwords.check(map[string]string{"": q.site.Password}, q, r); no != nil {
			return no
		}
	}
	if q.auth.rule != nil {
		if no := d.check(q.auth.guard, q, r); no != nil {
			return no
		}
	}
	if q.limited(r) {
		return q.limit.limiter.tooLong(r)
	}
	return nil
}

// uncached is the rule of requests that no route takes.
var uncached = httpcache.Rule{Off: true}

func ruleOf(r *http.Request) *httpcache.Rule { return routedOf(r).rule }

// end is what stands at the end of a request's way, behind the cache.
type end uint8

const (
	endNowhere  end = iota // no route takes it
	endRedirect            // by a rule
	endScript              // by which pages say which deployment made them
	endPicture
	endFrontend
	endService
)

// onward is a request as it goes on behind the cache: with the path and the fields that rules say.
func (q *routed) onward(r *http.Request) *http.Request {
	if q.rewrite.rule == nil && q.request == nil {
		return r
	}
	r = r.Clone(r.Context())
	if q.rewrite.rule != nil {
		r.URL = q.rewrite.rewritten(r.URL)
	}
	q.onRequest(r)
	return r
}

// end finds what answers a request that goes on.
func (d *Door) end(onward *http.Request, q *routed) end {
	switch {
	case q.redirect.rule != nil:
		return endRedirect
	case q.site.pinning && onward.URL.Path == directory.PinScript:
		return endScript
	case q.to == nil:
		return endNowhere
	case q.to.Frontend == "":
		return endService
	case d.pictures.meant(onward.URL.Path, q.site.Frontends[q.to.Frontend]):
		return endPicture
	}
	return endFrontend
}

// answer is what the cache asks when it cannot answer itself.
func (d *Door) answer(w http.ResponseWriter, r *http.Request) {
	q := routedOf(r)
	onward := q.onward(r)
	w = q.dress(w)
	switch d.end(onward, q) {
	case endRedirect:
		w.Header().Set("Location", q.redirect.location(r.URL))
		w.WriteHeader(q.redirect.Status)
	case endScript:
		servePinScript(w, onward)
	case endPicture:
		d.pictures.serve(w, onward, q)
	case endFrontend:
		d.toFrontend(w, onward, q)
	case endService:
		q.ask()
		t, key := d.current.Load(), serviceKey{q.site.App, q.site.Env, q.to.Service}
		d.toService(w, t.naming(onward, r, key), pinnedKey(t, key, q.apart), q.override())
	default:
		page{http.StatusNotFound, "no route for " + r.Method + " " + onward.URL.Path, "routes: " + patterns(q.site), ""}.show(w, r)
	}
}

// ask notes that the service is asked now.
func (q *routed) ask() { q.asked.Store(max(1, int64(time.Since(q.begun)))) }

// override is what rules say of the way to a service.
func (q *routed) override() (o upstream.Route) {
	if q.wait.rule != nil {
		o.Timeout = q.wait.Timeout
	}
	if q.hedge.rule != nil {
		o.Hedge = upstream.Hedge{Quantile: q.hedge.Hedge}
	}
	return o
}

func known(t *table) string {
	var hosts []string
	for h := range t.hosts {
		hosts = append(hosts, h)
	}
	slices.Sort(hosts)
	if len(hosts) == 0 {
		return "no app runs here"
	}
	return "here are: " + strings.Join(hosts, ", ")
}

func patterns(s *site) string {
	var out []string
	for _, r := range s.Routes {
		out = append(out, r.Pattern)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}
