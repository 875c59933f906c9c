package edge

import (
	_ "embed"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"tenfold/internal/directory"
	"tenfold/tier/edge/httpcache"
	"tenfold/tier/edge/upstream"
)

// A page that was loaded before a deploy goes on calling the API that it was made for. A frontend with
// pin has a script in its pages (pin.js) that sends the id of the deployment along with such calls, in
// X-Deployment-Id; Next.js does so by itself, there or as ?dpl=. The id names a version of each service that
// is called, joined by "-". A version that is not the current one is asked as long as it has tasks, which
// get nothing else (directory.Endpoint.Apart); after that the current one answers, never an error.

// versions are those of a service that answer calls which are pinned.
type versions struct {
	current *kept
	apart   []*kept
}

// kept is a version with the rules by which its responses are kept apart from others', by the rule that a
// route has for all: one look by a pointer, since plain calls meet it too.
type kept struct {
	release string
	rules   sync.Map
}

func (k *kept) rule(of *httpcache.Rule) *httpcache.Rule {
	if v, ok := k.rules.Load(of); ok {
		return v.(*httpcache.Rule)
	}
	own := *of
	own.Release += "#" + k.release
	v, _ := k.rules.LoadOrStore(of, &own)
	return v.(*httpcache.Rule)
}

// pin makes a site's pins ready.
func (s *site) pin() error {
	for _, f := range s.Frontends {
		for _, route := range f.Pin {
			if err := s.pins.Add(route, struct{}{}); err != nil {
				return err
			}
			s.pinning = true
		}
	}
	if !s.pinning {
		return nil
	}
	s.versions = map[string]versions{}
	for _, sv := range s.Services {
		v := versions{current: &kept{}}
		for _, e := range sv.Endpoints {
			switch {
			case e.Draining || e.Release == "":
			case e.Apart:
				if !slices.ContainsFunc(v.apart, func(k *kept) bool { return k.release == e.Release }) {
					v.apart = append(v.apart, &kept{release: e.Release})
				}
			case !e.Leased:
				v.current.release = e.Release
			}
		}
		s.versions[sv.Name] = v
	}
	return nil
}

// deployed is the rule for a call to a service of a site that pins, by which nothing that one version
// answered is given for another's, and the version that it is pinned to, "" for the current one. id is of
// X-Deployment-Id.
func (s *site) deployed(rule *httpcache.Rule, to *destination, method, host, path, id, query string) (*httpcache.Rule, string) {
	if _, _, ok := s.pins.Find(method, host, path); !ok {
		return rule, ""
	}
	v, ok := s.versions[to.Service]
	if !ok {
		return rule, "" // it has no tasks
	}
	if id == "" && strings.Contains(query, "dpl=") {
		if values, err := url.ParseQuery(query); err == nil {
			id = values.Get("dpl")
		}
	}
	if id != "" && len(v.apart) > 0 && !names(id, v.current.release) {
		for _, k := range v.apart {
			if names(id, k.release) {
				return k.rule(rule), k.release
			}
		}
	}
	return v.current.rule(rule), ""
}

// names says that the id of a deployment names a version.
func names(id, release string) bool {
	pin := directory.PinOf(release)
	for part := range strings.SplitSeq(id, "-") {
		if part == pin && pin != "" {
			return true
		}
	}
	return false
}

// apartName is the name of the way to a service's tasks of a version that is not current.
func apartName(service, release string) string { return service + "#" + release }

func isApart(key serviceKey) bool { return strings.Contains(key.name, "#") }

// pinnedKey is the way to a version of a service that a call is pinned to, or to the current one.
func pinnedKey(t *table, k serviceKey, release string) serviceKey {
	own := serviceKey{k.app, k.env, apartName(k.name, release)}
	if release == "" || t.services[own] == nil {
		return k
	}
	return own
}

// byApart are the tasks that get only pinned calls, by version; none of a version of which all drain.
func byApart(eps []directory.Endpoint) map[string][]directory.Endpoint {
	out := map[string][]directory.Endpoint{}
	for _, e := range eps {
		if e.Apart && e.Release != "" {
			out[e.Release] = append(out[e.Release], e)
		}
	}
	for release, tasks := range out {
		if !slices.ContainsFunc(tasks, func(e directory.Endpoint) bool { return !e.Draining }) {
			delete(out, release)
		}
	}
	return out
}

// orCurrent has the current version answer what the one that was meant never got, since its tasks are gone.
func (d *Door) orCurrent(current serviceKey, otherwise func(http.ResponseWriter, *http.Request, error)) func(http.ResponseWriter, *http.Request, error) {
	return func(w http.ResponseWriter, r *http.Request, err error) {
		var down *upstream.Down
		var broken *upstream.Broken
		var op *net.OpError
		again := errors.As(err, &down) || errors.As(err, &op) && op.Op == "dial" ||
			errors.As(err, &broken) && (r.Method == http.MethodGet || r.Method == http.MethodHead) // it may have been seen, but changed nothing
		if whole := r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0; again && whole {
			d.toService(w, r, current, upstream.Route{})
			return
		}
		otherwise(w, r, err)
	}
}

//go:embed pin.js
var pinScript []byte

// servePinScript answers with the script; what it is to pin stands in its own address, so that it is the
// same for all.
func servePinScript(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "the script is read", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
	w.Header().Set("Cache-Control", "public, max-age=86400")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Write(pinScript)
}
