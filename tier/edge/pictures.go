package edge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/netip"
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

// pictures are the handlers in use, by site and frontend. They stay as long as the manifest says the same.
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

func (p *pictures) serve(w http.ResponseWriter, r *http.Request, q *routed, name string, of directory.Images) {
	h, err := p.of(q.site.name()+" "+name, of)
	if err != nil {
		page{http.StatusInternalServerError, "pictures cannot be made", err.Error(), "frontends.*.images sets how"}.show(w, r)
		return
	}
	h.ServeHTTP(w, r)
}

func (p *pictures) of(key string, of directory.Images) (http.Handler, error) {
	said, err := json.Marshal(of)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.m[key]; h != nil && h.of == string(said) {
		return h.handler, nil
	}
	sum := sha256.Sum256([]byte(key))
	h, err := image.New(image.Config{
		Dir: filepath.Join(p.d.cfg.Dir, "pictures", hex.EncodeToString(sum[:8])), Bytes: mostPictures,
		App: http.HandlerFunc(p.d.inner), From: of.From, Widths: of.Widths, Formats: of.Formats,
	})
	if err != nil {
		return nil, err
	}
	p.m[key] = &pictureHandler{string(said), h}
	return h, nil
}

// retain forgets the handlers of sites that are gone; what they made is made again if need be.
func (p *pictures) retain(sites []directory.Site) {
	named := map[string]bool{}
	for _, s := range sites {
		for name := range s.Frontends {
			named[s.App+"/"+s.Env+" "+name] = true
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for key := range p.m {
		if !named[key] {
			delete(p.m, key)
		}
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
	s := d.current.Load().find(hostOf(r))
	if s == nil || r.URL.Path == picturesPath || r.URL.Path == nextPicturesPath {
		http.NotFound(w, r)
		return
	}
	r.RemoteAddr = nowhere
	q := d.route(s, r)
	ctx := context.WithValue(context.WithValue(r.Context(), routedKey{}, q), innerKey{}, true)
	d.pass(w, r.WithContext(ctx), q)
}

func isInner(r *http.Request) bool { return r.Context().Value(innerKey{}) != nil }
