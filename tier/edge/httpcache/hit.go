package httpcache

import (
	"hash/maphash"
	"net/http"
	"strings"
)

// Lookup is what the fast door reads of a request. Strings may be views of a buffer: none is kept.
type Lookup struct {
	Method string
	Scheme string // "http" or "https"
	Host   string // as in Host or :authority
	Target string // path and query as they were sent, beginning with "/"
	// Plain says that the request has no body and none of the fields that Disturbs names.
	Plain  bool
	Rule   *Rule  // nil: the zero Rule
	Fields Fields // a pointer, so that handing it over allocates nothing
}

// disturbing are the fields that take a request off the fast door, by the length of their names.
var disturbing [20][]string

func init() {
	for _, n := range []string{
		"Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since",
		"Authorization", "Cache-Control", "Pragma", "Expect", "Upgrade", "Transfer-Encoding",
	} {
		disturbing[len(n)] = append(disturbing[len(n)], n)
	}
}

// Disturbs says whether a field takes a request off the fast door. Case does not matter.
func Disturbs(name string) bool {
	if len(name) > 19 {
		return false
	}
	for _, n := range disturbing[len(name)] {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}

// Hit finds the answer to a plain GET or HEAD that memory has fresh. nil says that Handler must answer; it
// says nothing else of the response. Hit allocates nothing for requests whose key fits 512 bytes and whose
// selecting fields are written as in the request that filled the store.
func (c *Cache) Hit(l *Lookup) *Stored {
	st, _, _ := c.Find(l)
	return st
}

// Find is Hit; when it finds nothing, alone says that the request goes its own way: nothing is stored that
// could answer it, and of late what its route answers is not to be shared. Then Alone judges the response.
func (c *Cache) Find(l *Lookup) (st *Stored, a Alone, alone bool) {
	if !l.Plain || l.Method != http.MethodGet && l.Method != http.MethodHead || len(l.Target) == 0 || l.Target[0] != '/' || strings.IndexByte(l.Target, keySeparator) >= 0 {
		return nil, a, false
	}
	ru := l.Rule
	if ru == nil {
		ru = &zeroRule
	}
	a.c = c
	if ru.Off {
		return nil, a, true
	}
	var room [512]byte
	key, ok := appendKey(room[:0], ru, l.Scheme, l.Host, l.Target, l.Fields)
	if !ok {
		return nil, a, false
	}
	s, list := c.memory.find(key)
	for _, e := range list {
		if !e.matches(l.Fields) {
			continue
		}
		if !e.whole() {
			continue
		}
		if !e.fresh(c.now()) {
			return nil, a, false
		}
		e.touch()
		s.hits.Add(1)
		return c.formFor(e, l.Fields), a, false
	}
	if len(list) > 0 || l.Method != http.MethodGet || ru.FreshDefault > 0 || ru.FreshMin > 0 || ru.StaleRevalidate > 0 || ru.OverridePrivate || ru.OverrideNoStore {
		return nil, a, false
	}
	path, _, _ := strings.Cut(l.Target, "?")
	a.route = routeOf(ru, l.Host, path)
	if c.routes.holds(maphash.Bytes(c.routes.seed, key), a.route, c.now()) || c.disk != nil && c.disk.has(key) {
		return nil, Alone{}, false
	}
	return nil, a, true
}

// Alone is a GET that goes its own way, past Handler.
type Alone struct {
	c     *Cache
	route string // "": the rule keeps it off
}

// Status is the member of Cache-Status that the response gets.
func (a *Alone) Status() string {
	if a.route == "" {
		return "tenfold; fwd=bypass"
	}
	return "tenfold; fwd=uri-miss"
}

// Passes says that a response is not to be stored, and counts it. false: Handler has to judge it, and what
// it needs for that is all there still.
func (a *Alone) Passes(status int, f Fields) bool {
	if a.route == "" {
		return true
	}
	if !transient(status, f) {
		return false
	}
	a.c.counts.misses.Add(1)
	a.c.counts.uncacheable.Add(1)
	a.c.routes.block(a.route, status, a.c.now())
	return true
}

// transient says, without making much of it, that judge would not have a response to a plain request
// stored under a rule that says nothing.
func transient(status int, f Fields) bool {
	for _, name := range [...]string{"Cdn-Cache-Control", "Expires"} {
		if _, n := f.Value(name); n > 0 {
			return false
		}
	}
	cc, n := f.Value("Cache-Control")
	switch {
	case n == 0:
		_, tagged := f.Value("Etag")
		_, modified := f.Value("Last-Modified")
		return tagged+modified == 0 && status != http.StatusPartialContent
	case n > 1:
		return false
	}
	// One that says no-store or private in the plainest words.
	for part := range strings.SplitSeq(cc, ",") {
		switch part = strings.Trim(part, " \t"); {
		case strings.EqualFold(part, "no-store"), strings.EqualFold(part, "private"):
			return !strings.Contains(strings.ToLower(cc), "must-understand")
		}
	}
	return false
}
