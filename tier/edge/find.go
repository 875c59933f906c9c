package edge

import (
	"net/http"
	"path"
	"strings"

	"tenfold/internal/directory"
	"tenfold/internal/release"
	"tenfold/internal/siterules"
)

// found is how a frontend answers a request: one of a file, a redirect, its server, and a page that says
// why there is none of them.
type found struct {
	r       *http.Request // by the path that is looked for, after the route's prefix and the site's rules
	site    release.Site
	release *release.Release // nil: there is none that can be read

	of       *release.Release // whose file it is: release, or an earlier one
	file     string
	how      string // file was found
	location string
	status   int // of file, or of location
	served   bool
	lost     bool // an asset that no release has
	no       page

	move   *siterules.Move // the site's own rule that the request meets; nil: none
	fields siteFields
	vary   []string
}

// is says that a file answers.
func (x *found) is(of *release.Release, file string, status int, how string) {
	x.of, x.file, x.status, x.how = of, file, status, how
}

// find decides how a frontend answers a request along a route: by a file of the release id, which is the
// current one if it is "", or of an earlier one for an asset whose name carries its hash, since a page
// that was loaded before a deploy still finds its parts. What has no file is the server's, if it has one.
func (s *statics) find(r *http.Request, pattern, name string, f directory.Frontend, id string) *found {
	x := &found{r: r, site: release.Site{Dir: f.Dir}}
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	if !reads && f.Server == "" {
		x.no = page{http.StatusMethodNotAllowed, "frontend " + name + " takes GET and HEAD only", "a route of a service would have to take " + r.Method, ""}
		return x
	}
	var err error
	if id == "" {
		id, err = x.site.Current()
	}
	if err == nil && id != "" {
		x.release, err = s.release(x.site, id)
	}
	switch {
	case err != nil:
		x.no = page{http.StatusInternalServerError, "frontend " + name + " cannot be read", err.Error(), ""}
		return x
	case id == "":
		x.no = page{http.StatusServiceUnavailable, "frontend " + name + " has no release yet", "its build has not finished", "tenfold status"}
		return x
	}
	x.r = s.rebase(r, pattern, f, x.release)
	if !reads {
		x.served = true
		return x
	}
	if !s.byRule(x) && !s.ofItsOwn(x) {
		if x.served = f.Server != ""; !x.served {
			x.missing(f)
		}
	}
	return x
}

// ofItsOwn finds the file of the path itself.
func (s *statics) ofItsOwn(x *found) bool {
	if file, ok := lookup(x.release, x.r.URL.Path); ok {
		x.is(x.release, file, http.StatusOK, "the path's own")
		return true
	}
	old, file, ok := s.earlier(x.site, strings.TrimPrefix(path.Clean(x.r.URL.Path), "/"))
	if ok {
		x.is(old, file, http.StatusOK, "of an earlier release: its name carries its hash")
	}
	return ok
}

// missing answers for a path without a file: the page of a single-page app, else 404. Never HTML in place
// of a script, which would break sites for hours.
func (x *found) missing(f directory.Frontend) {
	has := func(file string) bool { return x.release.Files[file].Digest != "" }
	switch {
	case asset(x.r.URL.Path):
		x.lost, x.no = true, page{http.StatusNotFound, "no such file in any release that is kept", "the fallback is never given for an asset", ""}
	case has(f.Fallback):
		x.is(x.release, f.Fallback, http.StatusOK, "the fallback of a single-page app")
	case has("404.html"):
		x.is(x.release, "404.html", http.StatusNotFound, "the release has no such file")
	default:
		x.no = page{http.StatusNotFound, "no such page", x.r.URL.Path, ""}
	}
}

// send answers with what was found, but for what the server has to say.
func (s *statics) send(w http.ResponseWriter, x *found) {
	switch {
	case x.file != "":
		s.file(w, x.r, x.site, x.of, x.file, x.status)
	case x.location != "":
		w.Header().Set("Location", x.location)
		w.WriteHeader(x.status)
	case x.lost:
		w.Header().Set("Cache-Control", "no-store") // nobody keeps it, and it is text whatever is asked for
		http.Error(w, x.no.title, x.no.status)
	default:
		if x.no.status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", "GET, HEAD")
		}
		x.no.show(w, x.r)
	}
}
