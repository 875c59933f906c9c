package edge

import (
	"net/http"
	"strings"
	"time"

	"tenfold/tier/edge/httpcache"
	"tenfold/tier/edge/wire"
)

// hits answers plain requests from the cache, inside the connection's loop.
type hits struct{ d *Door }

// Hit implements wire.Hits. What it does not answer goes the whole way through ServeHTTP, so it may
// give up on anything unusual.
func (h hits) Hit(r *wire.Request, room *wire.Hit) *wire.Hit {
	t := h.d.current.Load()
	host := bareHost(r.Host)
	if t.console[host] {
		return nil
	}
	if h.d.keys != nil && (r.TLS == nil && h.d.secured(host) || r.TLS != nil && h.d.keys.Misdirected(r.TLS, r.Host)) {
		return nil
	}
	s := t.find(host)
	if s == nil {
		return nil
	}
	path, _, _ := strings.Cut(r.Target, "?")
	if strings.IndexByte(path, '%') >= 0 {
		return nil // routes are matched against decoded paths
	}
	for _, f := range r.Fields() {
		if httpcache.Disturbs(f.Name) {
			return nil
		}
	}
	to, _, ok := s.routes.Find(r.Method, host, path)
	if !ok {
		return nil
	}
	if s.Password != "" {
		return nil
	}
	if _, _, found := s.careful.Find(r.Method, host, path); found {
		return nil // who asks matters, or hits count too
	}
	rule := &to.rule
	if said, _, ok := s.caching.Find(r.Method, host, path); ok {
		rule = said
	}
	rule, _ = s.pinned(rule, to)
	if s.pinning && to.Service != "" {
		_, query, _ := strings.Cut(r.Target, "?")
		apart := ""
		if rule, apart = s.deployed(rule, to, r.Method, host, path, r.Get("x-deployment-id"), query); apart != "" {
			return nil
		}
	}
	scheme := "http"
	if t.secureOf(r) {
		scheme = "https"
	}
	l := httpcache.Lookup{Method: r.Method, Scheme: scheme, Host: r.Host, Target: r.Target, Plain: true, Rule: rule, Fields: r}
	if s.Geo != "" {
		l.Fields = &viewer{r, h.d, t, s.Geo}
	}
	st, alone, own := h.d.cache.Find(&l)
	if st == nil {
		if own && h.d.direct(r, s, to, host, path) {
			r.Mark = newPassing(to, alone)
		}
		return nil
	}
	*room = wire.Hit{
		Status: st.Status, Head1: st.Head1, Block2: st.Block2, Body: st.Body,
		Born: st.Born.Unix() - int64(st.InitialAge/time.Second), Dated: true, Tag: to,
	}
	return room
}

// viewer is a request's fields with the country that the door says, whatever the client does: a stored
// answer may have been chosen by it. It is looked up only for such an answer.
type viewer struct {
	r    *wire.Request
	d    *Door
	t    *table
	file string
}

// Value implements httpcache.Fields.
func (v *viewer) Value(name string) (string, int) {
	if !strings.EqualFold(name, viewerCountry) {
		return v.r.Value(name)
	}
	if country := v.d.places.country(v.file, v.t.clientOf(v.r)); country != "" {
		return country, 1
	}
	return "", 0
}

// served counts what Hit answered.
func served(r *wire.Request, h *wire.Hit, bytes int64, begun time.Time, took time.Duration) {
	to, ok := h.Tag.(*destination)
	if !ok {
		return
	}
	to.count.hits.Add(1)
	to.count.add(h.Status, took)
	if to.log == nil {
		return
	}
	a := access{at: begun.Add(took), method: r.Method, host: r.Host, target: r.Target, route: to.Pattern, status: h.Status, bytes: bytes, took: took, protocol: r.Major, secure: to.table.secureOf(r), hit: true}
	if to.log.personal {
		a.remote = to.table.clientOf(r)
	}
	to.log.add(&a)
}

// bareHost is a Host field without its port, in lower case; most need no copy.
func bareHost(h string) string {
	if i := strings.LastIndexByte(h, ':'); i >= 0 && strings.IndexByte(h[i:], ']') < 0 {
		h = h[:i]
	}
	h = strings.TrimSuffix(strings.Trim(h, "[]"), ".")
	for i := range len(h) {
		if c := h[i]; c >= 'A' && c <= 'Z' {
			return strings.ToLower(h)
		}
	}
	return h
}

func hostOf(r *http.Request) string { return bareHost(r.Host) }
