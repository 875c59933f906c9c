package edge

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"tenfold"
	"tenfold/internal/directory"
	"tenfold/internal/siterules"
)

// requestOf makes of a question the request that the door would get.
func requestOf(ctx context.Context, q directory.Question) (*http.Request, error) {
	invalid := func(format string, args ...any) error {
		return tenfold.Errorf(tenfold.CodeInvalid, format, args...).WithHint("write the address as a browser sends it, a space as %%20: https://shop.example.com/a%%20b?c=d")
	}
	u, err := url.Parse(q.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, invalid("%q is not an address", q.URL)
	}
	if strings.Contains(q.URL, " ") {
		return nil, invalid("%q has a space, which no request can have", q.URL)
	}
	r, err := http.NewRequestWithContext(ctx, q.Method, q.URL, nil)
	if err != nil {
		return nil, invalid("%q %q is not a request", q.Method, q.URL)
	}
	for k, v := range q.Header {
		if r.Header.Set(k, v); http.CanonicalHeaderKey(k) == "Host" {
			r.Host = v
		}
	}
	r.Header.Del("Host")
	if u.Scheme == "https" {
		r.TLS = &tls.ConnectionState{ServerName: hostOf(r), HandshakeComplete: true}
	}
	// From here on as a server has it.
	r.URL.Scheme, r.URL.Host, r.URL.User, r.URL.Fragment = "", "", nil, ""
	if r.URL.Path == "" {
		r.URL.Path = "/"
	}
	r.RequestURI, r.RemoteAddr = r.URL.RequestURI(), q.Client
	return r, nil
}

// explain tells what ServeHTTP would do with a request, by the same decisions, and sends nothing on.
func (d *Door) explain(ctx context.Context, q directory.Question) (directory.Explanation, error) {
	r, err := requestOf(ctx, q)
	if err != nil {
		return directory.Explanation{}, err
	}
	x := &explainer{d: d, t: d.current.Load(), r: r}
	x.tell()
	return x.out, nil
}

// explainer collects what there is to say, in the order in which a request meets it. The first that
// would answer is the answer; what follows is what the next would be.
type explainer struct {
	d   *Door
	t   *table
	r   *http.Request
	out directory.Explanation
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
	host := hostOf(x.r)
	if x.d.challenges(x.r) {
		x.say("transport", "an authority's question", "answered by the door while it proves that it has "+host)
	}
	what, to, s := x.d.first(x.t, x.r, host)
	if what == firstInsecure {
		x.say("transport", "308 to https", "certificates are automatic for "+host)
		x.answers("308 to " + to)
		x.r.TLS = &tls.ConnectionState{ServerName: host, HandshakeComplete: true}
		what, to, s = x.d.first(x.t, x.r, host)
	}
	switch what {
	case firstAstray:
		x.answers("421: this connection is not for " + host)
	case firstConsole:
		why := "the console's"
		if !x.t.console[host] {
			why = directory.HooksPath + "* is where Git hosts deliver, on every host"
		}
		x.say("host", host, why)
		x.answers("the console")
	case firstRenamed:
		x.say("host", host, "not the first of domain: redirected to "+x.t.redirect[host])
		x.answers("301 to " + to)
	case firstNobody:
		x.say("host", host, known(x.t))
		x.answers("404: nothing is served for " + host)
	case firstSite:
		x.site(s, host)
	}
}

func (x *explainer) site(s *site, host string) {
	why := "a host of the app"
	if x.t.hosts[host] != s {
		why = "no app has this host: the house's first app answers on this machine"
	}
	x.say("app", s.App+" "+s.Env, why)
	q := x.d.route(x.t, s, host, x.r)
	q.told = true
	x.admission(q)
	x.route(q)
	if q.apart != "" {
		x.say("pin", "version "+directory.PinOf(q.apart)+", which the page was made with", "frontends.*.pin, by the call's X-Deployment-Id")
	}
	if q.to != nil {
		x.cache(q)
		x.origin(q)
	}
}

// admission is who would be turned away.
func (x *explainer) admission(q *routed) {
	if q.cors.rule != nil {
		x.say("cors", strings.Join(q.cors.CORS, " "), by(q.cors))
	}
	if q.crosses() && isPreflight(x.r) {
		x.answers("204 to a preflight, by the rule")
	}
	if q.maintenance.rule != nil {
		x.say("maintenance", "503 with a page of the app's", by(q.maintenance))
	}
	if q.site.Password != "" {
		x.say("password", "asked for, but for those who know it", "a preview's")
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
	}
	if k := q.limit; k.rule != nil {
		var parts []string
		if l := k.Limit; l.Rate > 0 {
			whose := "a client"
			if k.limiter.everybody {
				whose = "all clients together"
			}
			parts = append(parts, rateText(l)+" of "+whose)
		}
		if n := k.Limit.Concurrency; n > 0 {
			parts = append(parts, fmt.Sprintf("%d at once", n))
		}
		if n := k.Limit.Body; n > 0 {
			parts = append(parts, "bodies to "+sizeText(n))
		}
		if n := k.Limit.Header; n > 0 {
			parts = append(parts, "heads to "+sizeText(n))
		}
		x.say("limit", strings.Join(parts, ", "), by(k))
	}
	if no := x.d.admit(x.r, q); no != nil {
		x.refuses(no.page)
	}
	if file := q.site.Geo; file != "" {
		x.d.places.mark(file, x.r.Header, q.client)
		says := x.r.Header.Get(viewerCountry)
		if says == "" {
			says = "not known"
		}
		x.say("country", says, "edge.geo, of "+q.client)
	}
}

// refuses tells of a page.
func (x *explainer) refuses(p page) {
	text := fmt.Sprintf("%d: %s", p.status, p.title)
	if p.detail != "" {
		text += ": " + p.detail
	}
	x.answers(text)
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
	case e.Stored:
		x.say("cache", "stored, stale since "+(-e.Left).Round(time.Second).String(), "served by stale-while-revalidate or revalidated")
	case e.Passing:
		x.say("cache", "nothing stored", "responses of this route were not to be stored of late: no request waits for another's")
	default:
		x.say("cache", "nothing stored", "what may be stored will be")
	}
	if e.Answers {
		x.answers("the cache")
	}
}

// origin is what answers behind the cache.
func (x *explainer) origin(q *routed) {
	onward := q.onward(x.r)
	switch x.d.end(onward, q) {
	case endPicture:
		x.say("picture", "made to fit, of "+onward.URL.Query().Get("url"), "frontends."+q.to.Frontend+".images")
		x.answers("frontend " + q.to.Frontend + ": a picture made to fit")
	case endFrontend:
		x.frontend(q, onward)
	case endService:
		x.tasks(q, serviceKey{q.site.App, q.site.Env, q.to.Service}, "service "+q.to.Service)
	}
}

// frontend is what a frontend's release has, and what its own rules say.
func (x *explainer) frontend(q *routed, onward *http.Request) {
	name := q.to.Frontend
	f := q.site.Frontends[name]
	got := x.d.statics.find(onward, q.to.Pattern, name, f, q.releaseOf(name))
	x.siteRules(got)
	switch {
	case got.served:
		x.say("file", "none", "the server of release "+got.release.ID+" answers")
		x.tasks(q, serverKey(x.t, serviceKey{q.site.App, q.site.Env, f.Server}, got.release.Meta.Server), "the server of frontend "+name)
	case got.location != "":
		x.answers(fmt.Sprintf("%d to %s", got.status, got.location))
	case got.file != "":
		x.say("file", got.file+" of release "+got.of.ID, got.how)
		answer := "frontend " + name + ", " + got.file
		if got.status != http.StatusOK {
			answer = fmt.Sprintf("%d with %s", got.status, answer)
		}
		x.answers(answer)
	default:
		x.say("file", "none", got.no.detail)
		x.refuses(got.no)
	}
}

// siteRules says which of a site's own rules a request meets.
func (x *explainer) siteRules(got *found) {
	if m := got.move; m != nil {
		says := "answered by " + m.To
		if got.location != "" {
			says = "moved to " + got.location
		}
		x.say("site's rule", says, siterules.Note{File: m.Rule.File, Line: m.Rule.Line, Text: m.Rule.From}.String())
	}
	for _, k := range slices.Sorted(maps.Keys(got.fields.set)) {
		x.say("header", k+": "+got.fields.set[k], "the site's own rules")
	}
	for _, k := range got.fields.remove {
		x.say("header", k+" removed", "the site's own rules")
	}
}

// tasks tells which tasks may be asked, of a service or of a frontend's server.
func (x *explainer) tasks(q *routed, key serviceKey, name string) {
	takes, one := 0, ""
	how := x.service(key)
	shares := sharesOf(how.Endpoints)
	if way := x.t.services[key]; way != nil {
		for _, c := range way.Counts() {
			state := "may be asked"
			if share := shares[c.Release]; share > 0 && len(shares) > 1 {
				state = fmt.Sprintf("its version gets %.3g %% of requests", 100*share)
			}
			switch {
			case c.Lapsed:
				state = "is tried out, and nobody has renewed its lease: gets nothing while others are there"
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
				one = c.ID
			}
			x.say("task", c.ID+" at "+c.Addr, fmt.Sprintf("%s, %d in flight, %s", state, c.InFlight, c.Latency.Round(100*time.Microsecond)))
		}
	}
	if takes == 0 {
		if how.Hold > 0 {
			x.answers(fmt.Sprintf("%s: sleeps, or none of its tasks is healthy: held for up to %s while one starts, then 503", name, how.Hold))
			return
		}
		x.answers("503 after up to 5s: " + name + " has no healthy task")
		return
	}
	if how.Sticky > 0 {
		of := "services." + how.Name
		if q.to.Frontend != "" {
			of = "frontends." + q.to.Frontend + ".server"
		}
		x.say("sticky", "a client stays at its task by a cookie, for "+how.Sticky.String(), of+".sticky")
	}
	if o := q.override(); o.Timeout > 0 {
		x.say("timeout", o.Timeout.String(), by(q.wait))
	}
	if q.hedge.rule != nil {
		x.say("hedge", fmt.Sprintf("a second task past %.0f%% of latencies", q.hedge.Hedge*100), by(q.hedge))
	}
	if takes == 1 {
		x.answers(name + ": " + one + ", the only task that may be asked")
		return
	}
	x.answers(name + ": the less loaded of two of its tasks taken at random")
}

// service is how a service is used, as the snapshot has it; the zero Service for one that it does not have.
func (x *explainer) service(key serviceKey) (out directory.Service) {
	name, _, _ := strings.Cut(key.name, "@") // of one build, or one version
	for _, s := range x.t.snapshot.Sites {
		if s.App != key.app || s.Env != key.env {
			continue
		}
		for _, sv := range s.Services {
			if sv.Name == name {
				return sv
			}
		}
	}
	return out
}

// sharesOf is which part of the requests each version gets, of tasks that get any.
func sharesOf(of []directory.Endpoint) map[string]float64 {
	out, all := map[string]float64{}, 0.0
	for _, e := range of {
		if !e.Draining && !e.Apart {
			out[e.Release] += cmp.Or(e.Weight, 1)
			all += cmp.Or(e.Weight, 1)
		}
	}
	for k := range out {
		out[k] /= all
	}
	return out
}

// Explain asks the door what it would do with a request.
func (e *Edge) Explain(ctx context.Context, q directory.Question) (directory.Explanation, error) {
	var out directory.Explanation
	if _, err := requestOf(ctx, q); err != nil {
		return out, err // said here, its hint comes along
	}
	err := e.ask(ctx, "/explain", q, &out)
	return out, err
}

func (d *Door) serveExplain(w http.ResponseWriter, r *http.Request) {
	var q directory.Question
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&q)
	if err == nil {
		var out directory.Explanation
		if out, err = d.explain(r.Context(), q); err == nil {
			json.NewEncoder(w).Encode(out)
			return
		}
	}
	http.Error(w, err.Error(), http.StatusBadRequest)
}
