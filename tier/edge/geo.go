package edge

import (
	"net/http"
	"sync"

	"github.com/oschwald/maxminddb-golang/v2"

	"tenfold/internal/directory"
)

// viewerCountry is CloudFront's name for the country of who asks, in two letters (ISO 3166-1).
const viewerCountry = "CloudFront-Viewer-Country"

// places are the MaxMind files in use, by path.
type places struct {
	mu   sync.RWMutex
	open map[string]*place
}

// place is one file; it is closed when no site names it and no lookup is under way.
type place struct {
	sync.RWMutex
	db *maxminddb.Reader // nil: it cannot be read, or is closed
}

// mark sets the country of a client, in place of what the client itself may say.
func (p *places) mark(file string, h http.Header, client string) {
	if file == "" {
		return
	}
	h.Del(viewerCountry)
	if country := p.country(file, client); country != "" {
		h.Set(viewerCountry, country)
	}
}

// country is where a client is, as a file knows; empty: it does not.
func (p *places) country(file, client string) string {
	a, ok := addrOf(client)
	if !ok {
		return ""
	}
	p.mu.RLock()
	one := p.open[file]
	p.mu.RUnlock()
	if one == nil {
		return ""
	}
	one.RLock()
	defer one.RUnlock()
	if one.db == nil {
		return ""
	}
	var code string
	if err := one.db.Lookup(a).DecodePath(&code, "country", "iso_code"); err != nil || len(code) != 2 {
		return ""
	}
	return code
}

// retain opens the files that sites name and closes the others. The deploy has seen that each is one;
// a copy that was lost since gives no country.
func (p *places) retain(sites []directory.Site) {
	p.mu.Lock()
	defer p.mu.Unlock()
	named := map[string]bool{}
	for _, s := range sites {
		if s.Geo == "" {
			continue
		}
		named[s.Geo] = true
		if p.open[s.Geo] == nil {
			if db, err := maxminddb.Open(s.Geo); err == nil {
				p.open[s.Geo] = &place{db: db}
			}
		}
	}
	for file, one := range p.open {
		if !named[file] {
			delete(p.open, file)
			one.Lock()
			one.db.Close()
			one.db = nil
			one.Unlock()
		}
	}
}
