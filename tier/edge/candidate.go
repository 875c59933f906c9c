package edge

import (
	"context"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"tenfold"
	"tenfold/internal/directory"
	"tenfold/internal/freeport"
)

// candidate is what is tried out, ready to route by.
type candidate struct {
	directory.Candidate
	site *site
}

// Candidate opens an address of the loopback interface where app answers as it will with a release of
// one of its frontends, so that it can be tried out before users get it. It lasts until end is called,
// or the daemon dies.
func (e *Edge) Candidate(ctx context.Context, app tenfold.App, frontend tenfold.Name, release string) (url string, end func(), err error) {
	want, err := e.Desired(app, nil)
	if err != nil {
		return "", nil, err
	}
	port, err := freeport.Pick()
	if err != nil {
		return "", nil, err
	}
	id := app.ID(tenfold.KindFrontend, frontend)
	c := directory.Candidate{Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Frontend: string(frontend), Release: release}
	c.Site = directory.Site{App: string(app.Name), Env: string(app.Env), Frontends: map[string]directory.Frontend{}}
	e.fill(&c.Site, id, want[0].Spec.(spec))
	e.mu.Lock()
	if e.candidates == nil {
		e.candidates = map[tenfold.ID]directory.Candidate{}
	}
	e.candidates[id] = c
	e.mu.Unlock()
	end = func() {
		e.mu.Lock()
		if e.candidates[id].Addr == c.Addr {
			delete(e.candidates, id)
		}
		e.mu.Unlock()
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = e.push(limited) // the next snapshot says it again
	}
	if err := e.push(ctx); err != nil {
		end()
		return "", nil, err
	}
	return "http://" + c.Addr, end, nil
}

// tried lists what is tried out now.
func (e *Edge) tried() (out []directory.Candidate) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range slices.SortedFunc(maps.Keys(e.candidates), tenfold.ID.Compare) {
		out = append(out, e.candidates[id])
	}
	return out
}

// try answers on a candidate's address. Nothing of it is kept in the cache, counted or noted.
func (d *Door) try(addr string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t := d.current.Load()
		c, ok := t.candidates[addr]
		if !ok {
			page{http.StatusNotFound, "nothing is tried out here any more", "its tests have ended", ""}.show(w, r)
			return
		}
		q := d.route(t, c.site, c.site.Hosts[0], r)
		q.tried, q.rule, q.frontend, q.release = c, &uncached, c.Frontend, c.Release
		trace(r.Header)
		d.answer(w, r.WithContext(context.WithValue(r.Context(), routedKey{}, q)))
	})
}
