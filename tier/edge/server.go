package edge

import (
	"net/http"
	"strings"

	"tenfold/internal/directory"
	"tenfold/internal/release"
	"tenfold/tier/edge/httpcache"
)

// A frontend with a server is two halves of one release: files, and tasks that render the rest. Which
// release it is is read from the disk once a request, and both halves are chosen by it, so that one
// rename switches both.

// releaseOf is the release that a request for a frontend was found to be answered from; "": the one that
// is current by then.
func (q *routed) releaseOf(name string) string {
	if q.frontend == name {
		return q.release
	}
	return ""
}

// pinned is the cache's rule for a request to a destination; of a frontend with a server its pages are
// kept by the release that answers, which it returns too. The same pointer for the same release, so that
// a hit costs no copy.
func (s *site) pinned(rule *httpcache.Rule, to *destination) (*httpcache.Rule, string) {
	f := s.Frontends[to.Frontend]
	if f.Server == "" {
		return rule, ""
	}
	id, _ := release.Site{Dir: f.Dir}.Current() // of one that cannot be read nothing is answered, so nothing kept
	return s.keptBy(rule, "@"+id), id
}

// keptBy is a rule whose responses are kept apart from others by a mark: the same pointer for the same
// mark, so that a hit costs no copy.
func (s *site) keptBy(rule *httpcache.Rule, mark string) *httpcache.Rule {
	type key struct {
		rule *httpcache.Rule
		mark string
	}
	if v, ok := s.released.Load(key{rule, mark}); ok {
		return v.(*httpcache.Rule)
	}
	own := *rule
	own.Release += mark
	v, _ := s.released.LoadOrStore(key{rule, mark}, &own)
	return v.(*httpcache.Rule)
}

// toFrontend answers with a file, or with what the frontend's server says where there is none.
func (d *Door) toFrontend(w http.ResponseWriter, r *http.Request, q *routed) {
	name := q.to.Frontend
	f := q.site.Frontends[name]
	x := d.statics.find(r, q.to.Pattern, name, f, q.releaseOf(name))
	if x.fields.any() {
		w = &headerWriter{ResponseWriter: w, editor: &x.fields}
	}
	for _, field := range x.vary {
		w.Header().Add("Vary", field)
	}
	if !x.served {
		d.statics.send(w, x)
		return
	}
	q.ask()
	d.toService(w, x.r, serverKey(d.current.Load(), serviceKey{q.site.App, q.site.Env, f.Server}, x.release.Meta.Server), q.override())
}

// rebase takes a route's prefix off the path where the build leaves it out of its files' names, as Vite
// and Astro do with a base path. One that renders on a server is asked for the path as it came.
func (s *statics) rebase(r *http.Request, pattern string, f directory.Frontend, rel *release.Release) *http.Request {
	_, route, _ := strings.Cut(pattern, "/")
	prefix, ok := strings.CutSuffix("/"+route, "/*")
	if !ok || prefix == "" || f.Server != "" || strings.Contains(prefix, "/:") {
		return r
	}
	rest, below := strings.CutPrefix(r.URL.Path, prefix)
	if !below || rest != "" && rest[0] != '/' || s.holds(rel, prefix[1:]) {
		return r
	}
	return at(r, "/"+strings.TrimPrefix(rest, "/"))
}

// holds says whether a release has a folder; found out once a release.
func (s *statics) holds(rel *release.Release, folder string) bool {
	key := rel.ID + "/" + folder
	if v, ok := s.folders.Load(key); ok {
		return v.(bool)
	}
	has := false
	for name := range rel.Files {
		if has = strings.HasPrefix(name, folder+"/"); has {
			break
		}
	}
	s.folders.Store(key, has)
	return has
}

// serverKey is the way to those tasks of a frontend's server that run a build; when the door knows
// none, the service itself, which says why.
func serverKey(t *table, k serviceKey, build string) serviceKey {
	own := k
	own.name += "@" + build
	if build == "" || t.services[own] == nil {
		return k
	}
	return own
}

// byBuild parts a service's endpoints by what they run: "" for those of which it is not said.
func byBuild(eps []directory.Endpoint) map[string][]directory.Endpoint {
	out := map[string][]directory.Endpoint{"": nil}
	for _, e := range eps {
		out[e.Build] = append(out[e.Build], e)
	}
	return out
}
