package edge

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"tenfold/internal/directory"
	"tenfold/internal/release"
	"tenfold/tier/edge/limit"
)

// explain tells what ServeHTTP would do with a request, by the same decision, and sends nothing on.
func (d *Door) explain(q directory.Question) (directory.Explanation, error) {
	u, err := url.Parse(q.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return directory.Explanation{}, fmt.Errorf("%q is not an address", q.URL)
	}
	r := httptest.NewRequest(q.Method, q.URL, nil)
	r.RemoteAddr = q.Client
	for k, v := range q.Header {
		r.Header.Set(k, v)
	}
	if u.Scheme == "http" {
		r.TLS = nil
	}
	x := &explainer{d: d, t: d.current.Load(), r: r, host: bareHost(u.Host)}
	x.tell()
	return x.out, nil
}

// explainer collects what there is to say, in the order in which a request meets it. The first that
// would answer is the answer; what follows is what the next would be.
type explainer struct {
	d    *Door
	t    *table
	r    *http.Request
	host string
	out  directory.Explanation
}

func (x *explainer) say(what, says, why string) {
	x.out.Lines = append(x.out.Lines, directory.Line{What: what, Says: says, Why: why})
}

func (x *explainer) answers(by string) {
	if x.out.Answer == "" {
		x.out.Answer = by
	}
}

// by names a rule's place.
func by(k said) string { return fmt.Sprintf("edge.routes.%s, line %d", k.pattern, k.Line) }

func (x *explainer) tell() {
	r, host := x.r, x.host
	if x.d.secured(host) && !x.t.secure(r) {
		x.say("transport", "308 to https", "certificates are automatic for "+host)
		x.answers("308 to https://" + host + r.URL.RequestURI())
	}
	if x.t.console[host] {
		x.say("host", host, "the console's")
		x.answers("the console")
		return
	}
	if to, ok := x.t.redirect[host]; ok {
		x.say("host", host, "not the first of domain: redirected to "+to)
		x.answers("301 to " + to)
		return
	}
	s := x.t.find(host)
	if s == nil {
		x.say("host", host, known(x.t))
		x.answers("404: nothing is served for " + host)
		return
	}
	why := "a host of the app"
	if x.t.hosts[host] != s {
		why = "no app has this host: the house's first app answers on this machine"
	}
	x.say("app", s.App+" "+s.Env, why)
	q := x.d.route(s, r)
	x.admission(q)
	x.route(q)
	if q.to != nil {
		x.cache(q)
		x.origin(q)
	}
}

// admission is who would be turned away.
func (x *explainer) admission(q *routed) {
	if q.cors.rule != nil {
		x.say("cors", strings.Join(q.cors.CORS, " "), by(q.cors))
		if x.r.Method == http.MethodOptions && x.r.Header.Get("Access-Control-Request-Method") != "" {
			x.answers("204 to a preflight, by the rule")
		}
	}
	if q.maintenance.rule != nil {
		x.say("maintenance", "503 with a page of the app's", by(q.maintenance))
		if no := x.d.admit(x.r, q); no != nil {
			x.answers("503: closed for maintenance")
		}
	}
	if q.site.Password != "" {
		x.say("password", "asked for, but for those who know it", "a preview's")
		x.answers("401 without the password")
	}
	if k := q.auth; k.rule != nil {
		g := k.guard
		var asks []string
		for _, a := range []struct {
			asked bool
			what  string
		}{{g.off, "nothing"}, {len(g.allow)+len(g.deny) > 0, "the right address"}, {g.mtls != nil, "a client certificate"}, {g.signed != nil, "a signature"}, {g.basic != nil, "a password"}} {
			if a.asked {
				asks = append(asks, a.what)
			}
		}
		x.say("auth", "asks for "+strings.Join(asks, ", "), by(k))
		if !g.off {
			if !g.addressed(q.client) {
				x.answers("403: " + q.client + " is not allowed")
			} else if no := x.d.check(&guard{mtls: g.mtls, signed: g.signed}, q, x.r); no != nil {
				x.answers(fmt.Sprintf("%d: %s: %s", no.status, no.title, no.why))
			} else if _, _, ok := x.r.BasicAuth(); g.basic != nil && !ok {
				x.answers("401 without a password")
			}
		}
	}
	if k := q.limit; k.rule != nil {
		var parts []string
		if l := k.Limit; l.Rate > 0 {
			parts = append(parts, fmt.Sprintf("%d per %s by %s", l.Rate, l.Per, l.By))
		}
		if n := k.Limit.Concurrency; n > 0 {
			parts = append(parts, fmt.Sprintf("%d at once", n))
		}
		if n := k.Limit.Body; n > 0 {
			parts = append(parts, fmt.Sprintf("bodies of %d bytes", n))
		}
		if n := k.Limit.Header; n > 0 {
			parts = append(parts, fmt.Sprintf("heads of %d bytes", n))
			if int64(limit.HeaderSize(x.r)) > n {
				x.answers("431: the head is too large")
			}
		}
		x.say("limit", strings.Join(parts, ", "), by(k))
	}
}

// route is who would be asked, and with what.
func (x *explainer) route(q *routed) {
	if q.redirect.rule != nil {
		to := q.redirect.location(x.r.URL)
		x.say("redirect", fmt.Sprintf("%d to %s", q.redirect.Status, to), by(q.redirect))
		x.answers(fmt.Sprintf("%d to %s", q.redirect.Status, to))
	}
	if q.rewrite.rule != nil {
		x.say("rewrite", q.rewrite.rewritten(x.r.URL).RequestURI(), by(q.rewrite))
	}
	var others []string
	q.site.routes.All(x.r.Method, q.host, q.path(x.r.URL), func(pattern, _ string, _ *destination) bool {
		others = append(others, pattern)
		return true
	})
	if q.to == nil {
		x.say("route", "none", "routes: "+patterns(q.site))
		x.answers("404: no route for " + x.r.Method + " " + q.path(x.r.URL))
		return
	}
	why := "the only one that matches"
	if len(others) > 1 {
		why = "more specific than " + strings.Join(others[1:], ", ")
	}
	to := "service " + q.to.Service
	if q.to.Frontend != "" {
		to = "frontend " + q.to.Frontend
	}
	x.say("route", q.to.Pattern+" to "+to, why)
	for _, f := range []struct {
		what string
		of   map[string]set
	}{{"header", q.headers}, {"request", q.request}} {
		var keys []string
		for k := range f.of {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			says := k + ": " + f.of[k].value
			if f.of[k].value == "" {
				says = k + " removed"
			}
			x.say(f.what, says, "edge.routes."+f.of[k].pattern)
		}
	}
}

func (x *explainer) cache(q *routed) {
	e := x.d.cache.Explain(x.r, q.rule)
	why := "by the response's own headers"
	if q.caching.rule != nil {
		why = by(q.caching)
	}
	x.say("cache key", e.Key, why)
	switch {
	case e.Bypass != "":
		x.say("cache", "not asked", e.Bypass)
	case e.Stored && e.Fresh:
		x.say("cache", "stored, fresh for "+e.Left.Round(time.Second).String(), fmt.Sprintf("%s old, one of %d under the key", e.Age.Round(time.Second), e.Variants))
		x.answers("the cache")
	case e.Stored:
		x.say("cache", "stored, stale since "+(-e.Left).Round(time.Second).String(), "served by stale-while-revalidate or revalidated")
	case e.Passing:
		x.say("cache", "nothing stored", "responses of this route were not to be stored of late: no request waits for another's")
	default:
		x.say("cache", "nothing stored", "what may be stored will be")
	}
}

// origin is what answers behind the cache.
func (x *explainer) origin(q *routed) {
	switch {
	case q.to.Frontend != "" && x.d.pictures.meant(q.path(x.r.URL), q.site.Frontends[q.to.Frontend]):
		x.say("picture", "made to fit, of "+x.r.URL.Query().Get("url"), "frontends."+q.to.Frontend+".images")
		x.answers("frontend " + q.to.Frontend + ": a picture made to fit")
	case q.to.Frontend != "":
		f := q.site.Frontends[q.to.Frontend]
		if rel, err := x.d.statics.release(release.Site{Dir: f.Dir}, q.releaseOf(q.to.Frontend, f)); err == nil {
			x.explainRules(rel)
		}
		at := x.r.URL
		if current, err := (release.Site{Dir: f.Dir}).Current(); err == nil {
			at = x.d.statics.rebase(x.r, q.to.Pattern, f, current).URL
		}
		file, id, how := x.d.statics.find(f, q.path(at))
		if f.Server != "" && id != "" && (file == "" || x.r.Method != http.MethodGet && x.r.Method != http.MethodHead) {
			x.say("file", "none", "the server of release "+id+" answers")
			k := serviceKey{q.site.App, q.site.Env, f.Server}
			if rel, err := x.d.statics.release(release.Site{Dir: f.Dir}, id); err == nil {
				k = serverKey(x.t, k, rel.Meta.Server)
			}
			x.tasks(q, k, "the server of frontend "+q.to.Frontend)
			return
		}
		if id == "" {
			x.say("file", "none", how)
			x.answers("503: frontend " + q.to.Frontend + " has no release yet")
			return
		}
		if file == "" {
			x.say("file", "none", how)
			x.answers("404 of release " + id)
			return
		}
		x.say("file", file+" of release "+id, how)
		x.answers("frontend " + q.to.Frontend + ", " + file)
	default:
		x.tasks(q, serviceKey{q.site.App, q.site.Env, q.to.Service}, "service "+q.to.Service)
	}
}

// tasks tells which tasks may be asked, of a service or of a frontend's server.
func (x *explainer) tasks(q *routed, key serviceKey, name string) {
	takes := 0
	if way := x.t.services[key]; way != nil {
		for _, c := range way.Counts() {
			state := "may be asked"
			switch {
			case c.Draining:
				state = "drains: gets nothing new"
			case c.Sick:
				state = "fails its health check"
			case c.Ejected:
				state = "passed over for a while: too many failures, or too slow"
			case c.Refusing:
				state = "takes no connection"
			default:
				takes++
			}
			x.say("task", c.ID+" at "+c.Addr, fmt.Sprintf("%s, %d in flight, %s", state, c.InFlight, c.Latency.Round(100*time.Microsecond)))
		}
	}
	if takes == 0 {
		x.answers("503 after up to 5s: " + name + " has no healthy task")
		return
	}
	if o := q.override(); o.Timeout > 0 {
		x.say("timeout", o.Timeout.String(), by(q.wait))
	}
	if q.hedge.rule != nil {
		x.say("hedge", fmt.Sprintf("a second task past %.0f%% of latencies", q.hedge.Hedge*100), by(q.hedge))
	}
	x.answers(name + ": the less loaded of two of its tasks taken at random")
}

// find is the file that serve would answer a path with, and how it is found.
func (s *statics) find(f directory.Frontend, urlPath string) (file, id, how string) {
	site := release.Site{Dir: f.Dir}
	id, err := site.Current()
	if err != nil || id == "" {
		return "", "", "its build has not finished"
	}
	rel, err := s.release(site, id)
	if err != nil {
		return "", "", err.Error()
	}
	if file, ok := lookup(rel, urlPath); ok {
		return file, id, "the path's own"
	}
	if asset(urlPath) {
		if old, file, ok := s.earlier(site, strings.TrimPrefix(path.Clean(urlPath), "/")); ok {
			return file, old.ID, "of an earlier release: its name carries its hash"
		}
		return "", id, "no release that is kept has this asset; the fallback is never given for one"
	}
	if f.Fallback != "" && rel.Files[f.Fallback].Digest != "" {
		return f.Fallback, id, "the fallback of a single-page app"
	}
	return "", id, "the release has no such file"
}

// Explain asks the door what it would do with a request.
func (e *Edge) Explain(ctx context.Context, q directory.Question) (directory.Explanation, error) {
	var out directory.Explanation
	err := e.ask(ctx, "/explain", q, &out)
	return out, err
}

func (d *Door) serveExplain(w http.ResponseWriter, r *http.Request) {
	var q directory.Question
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&q)
	if err == nil {
		var out directory.Explanation
		if out, err = d.explain(q); err == nil {
			json.NewEncoder(w).Encode(out)
			return
		}
	}
	http.Error(w, err.Error(), http.StatusBadRequest)
}
