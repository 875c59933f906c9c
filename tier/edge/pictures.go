package edge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"tenfold/internal/directory"
	"tenfold/tier/edge/image"
)

// Paths at which a frontend's pictures are made to fit: our own, and that of Next.js' default loader.
const (
	picturesPath     = "/_tenfold/image"
	nextPicturesPath = "/_next/image"
)

// mostPictures bounds the results on disk of each frontend, in bytes.
const mostPictures = 256 << 20

// pictures are the handlers in use, by the folder of their results: one for each site and frontend, and
// for each that is tried out. They stay as long as the manifest says the same.
type pictures struct {
	d  *Door
	mu sync.Mutex
	m  map[string]*pictureHandler
}

type pictureHandler struct {
	of      string // what the manifest says
	handler http.Handler
}

// meant says that a request is for a picture that is made. A server of Next.js makes its own, by its own
// configuration, unless the manifest says how.
func (p *pictures) meant(path string, f directory.Frontend) bool {
	said := len(f.Images.Widths)+len(f.Images.Formats)+len(f.Images.From) > 0
	return !f.Images.Off && (path == picturesPath || path == nextPicturesPath && (f.Server == "" || said))
}

func (p *pictures) serve(w http.ResponseWriter, r *http.Request, q *routed) {
	folder, app := pictureFolder(q.site.Site, q.to.Frontend, ""), http.HandlerFunc(p.d.inner)
	if c := q.tried; c != nil {
		folder, app = pictureFolder(q.site.Site, q.to.Frontend, c.Addr), p.d.innerOf(c.Addr)
	}
	h, err := p.of(folder, q.site.Frontends[q.to.Frontend].Images, app)
	if err != nil {
		page{http.StatusInternalServerError, "pictures cannot be made", err.Error(), "frontends.*.images sets how"}.show(w, r)
		return
	}
	h.ServeHTTP(w, r)
}

// dir is where the folders of results lie.
func (p *pictures) dir() string { return filepath.Join(p.d.cfg.Dir, "pictures") }

// pictureFolder names the results of a frontend; tried is the address of a candidate, "" for users' own.
func pictureFolder(s directory.Site, frontend, tried string) string {
	key := s.App + "/" + s.Env + " " + frontend
	if tried != "" {
		key += " " + tried
	}
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:8])
}

// of gives the handler of a folder, which asks app for what is its own.
func (p *pictures) of(folder string, of directory.Images, app http.Handler) (http.Handler, error) {
	said, err := json.Marshal(of)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.m[folder]; h != nil && h.of == string(said) {
		return h.handler, nil
	}
	h, err := image.New(image.Config{
		Dir: filepath.Join(p.dir(), folder), Bytes: mostPictures,
		App: app, From: of.From, Widths: of.Widths, Formats: of.Formats,
	})
	if err != nil {
		return nil, err
	}
	p.m[folder] = &pictureHandler{string(said), h}
	return h, nil
}

// retain forgets the handlers of what is gone, and removes what they made: it is made again if need be.
func (p *pictures) retain(s directory.Snapshot) {
	named := map[string]bool{}
	for _, one := range s.Sites {
		for name := range one.Frontends {
			named[pictureFolder(one, name, "")] = true
		}
	}
	for _, c := range s.Candidates {
		for name := range c.Site.Frontends {
			named[pictureFolder(c.Site, name, c.Addr)] = true
		}
	}
	p.mu.Lock()
	for folder := range p.m {
		if !named[folder] {
			delete(p.m, folder)
		}
	}
	p.mu.Unlock()
	folders, err := os.ReadDir(p.dir())
	for _, f := range folders {
		if !named[f.Name()] {
			err = errors.Join(err, os.RemoveAll(filepath.Join(p.dir(), f.Name())))
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.d.cfg.Log.Error("remove pictures", "err", err)
	}
}

// nowhere is who asks on behalf of everybody: no rule lets this address in.
var nowhere = netip.AddrPortFrom(netip.IPv4Unspecified(), 0).String()

// innerKey marks requests of the door itself, in their context.
type innerKey struct{}

// inner answers the door's own request for a file or path of a site. What is made of the answer is for
// all, so it is asked as nobody: what needs a password of the app's stays behind it. The one before
// a whole preview was asked of whoever is served.
func (d *Door) inner(w http.ResponseWriter, r *http.Request) {
	t, host := d.current.Load(), hostOf(r)
	s := t.find(host)
	if s == nil || ofPictures(r.URL.Path) {
		http.NotFound(w, r)
		return
	}
	r.RemoteAddr = nowhere
	q := d.route(t, s, host, r)
	ctx := context.WithValue(context.WithValue(r.Context(), routedKey{}, q), innerKey{}, true)
	d.pass(w, r.WithContext(ctx), q)
}

// innerOf is inner for what is tried out at an address, where nobody is asked who he is.
func (d *Door) innerOf(addr string) http.HandlerFunc {
	site := d.try(addr)
	return func(w http.ResponseWriter, r *http.Request) {
		if ofPictures(r.URL.Path) {
			http.NotFound(w, r)
			return
		}
		site.ServeHTTP(w, r)
	}
}

// ofPictures says that a path is one at which pictures are made: they are made of no other.
func ofPictures(path string) bool { return path == picturesPath || path == nextPicturesPath }

func isInner(r *http.Request) bool { return r.Context().Value(innerKey{}) != nil }
