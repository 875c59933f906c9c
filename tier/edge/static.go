package edge

import (
	"net/http"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"tenfold/internal/release"
	"tenfold/tier/edge/httpcache"
)

// statics serves frontends' releases. Which release is current is read from the disk at each
// request (one readlink), so that a switch needs no word to the door and a page never mixes two.
type statics struct {
	mu   sync.Mutex
	open map[string]*release.Release // by folder and id; a release never changes
	// folders says which releases have which folder (see holds).
	folders sync.Map
	rules   sync.Map // *siterules.Rules by release
}

func newStatics() *statics {
	return &statics{open: map[string]*release.Release{}}
}

func (s *statics) release(site release.Site, id string) (*release.Release, error) {
	key := site.Dir + "\x00" + id
	s.mu.Lock()
	r, ok := s.open[key]
	s.mu.Unlock()
	if ok {
		return r, nil
	}
	r, err := site.Open(id)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) > 64 {
		clear(s.open)
		s.rules.Clear()
		s.folders.Clear()
	}
	s.open[key] = r
	return r, nil
}

// at is a request for another path.
func at(r *http.Request, to string) *http.Request {
	out := *r
	u := *r.URL
	u.Path, u.RawPath = to, ""
	out.URL = &u
	return &out
}

// lookup finds the file for a path: itself, its index.html, or the page of that name.
func lookup(rel *release.Release, urlPath string) (string, bool) {
	p := strings.TrimPrefix(path.Clean("/"+urlPath), "/")
	for _, try := range []string{p, path.Join(p, "index.html"), p + ".html"} {
		if _, ok := rel.Files[try]; ok && try != "" {
			return try, true
		}
	}
	return "", false
}

// asset says whether a path names a file that only a build makes: never a page of a single-page app.
func asset(p string) bool {
	if release.Hashed(p) {
		return true
	}
	switch path.Ext(p) {
	case ".js", ".mjs", ".css", ".map", ".woff", ".woff2", ".ttf", ".wasm":
		return true
	}
	return false
}

func (s *statics) earlier(site release.Site, file string) (*release.Release, string, bool) {
	if !release.Hashed(file) {
		return nil, "", false
	}
	all, err := site.List()
	if err != nil {
		return nil, "", false
	}
	for i := range all {
		if _, ok := all[i].Files[file]; ok {
			return &all[i], file, true
		}
	}
	return nil, "", false
}

func (s *statics) file(w http.ResponseWriter, r *http.Request, site release.Site, rel *release.Release, name string, status int) {
	meta := rel.Files[name]
	h := w.Header()
	h.Set("Content-Type", meta.Type)
	h.Set("ETag", `"`+meta.Digest[:min(32, len(meta.Digest))]+`"`)
	switch {
	case meta.Hashed:
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	case strings.HasPrefix(meta.Type, "text/html"):
		h.Set("Cache-Control", "no-cache")
	default:
		h.Set("Cache-Control", "public, max-age=0, must-revalidate")
	}
	full := site.Path(rel.ID, name)
	if len(meta.Coded) > 0 {
		h.Add("Vary", "Accept-Encoding")
		if r.Header.Get("Range") == "" && status == http.StatusOK {
			if coding := choose(r.Header["Accept-Encoding"], meta.Coded); coding != "" {
				if f, err := os.Open(site.Coded(meta.Digest, coding)); err == nil {
					defer f.Close()
					h.Set("Content-Encoding", coding)
					h.Set("ETag", strings.TrimSuffix(h.Get("ETag"), `"`)+"-"+coding+`"`)
					content(w, r, status, f)
					return
				}
			}
		}
	}
	f, err := os.Open(full)
	if err != nil {
		page{http.StatusInternalServerError, "a file of the release cannot be read", err.Error(), ""}.show(w, r)
		return
	}
	defer f.Close()
	content(w, r, status, f)
}

// choose takes, of the codings that a client likes best, the one that is smallest; "" for the file as it is.
func choose(accept []string, coded map[string]int64) string {
	if len(accept) == 0 {
		return ""
	}
	weight := httpcache.Accepted(strings.Join(accept, ","))
	best, top := "", weight["identity"]
	for _, coding := range release.Codings {
		size, ok := coded[coding]
		if !ok || weight[coding] == 0 {
			continue
		}
		if w := weight[coding]; w > top || w == top && (best == "" || size < coded[best]) {
			best, top = coding, w
		}
	}
	return best
}

type seeker interface {
	Read([]byte) (int, error)
	Seek(int64, int) (int64, error)
}

// content answers conditionals and ranges; a page that stands for an error has its status instead.
func content(w http.ResponseWriter, r *http.Request, status int, c seeker) {
	if status != http.StatusOK {
		w = &statusWriter{w, status}
		r = r.Clone(r.Context())
		r.Header = http.Header{}
	}
	http.ServeContent(w, r, "", time.Time{}, c)
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader answers with the status of the page.
func (s *statusWriter) WriteHeader(int) { s.ResponseWriter.WriteHeader(s.status) }
