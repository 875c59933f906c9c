package httpcache

import (
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
	if !l.Plain || l.Method != http.MethodGet && l.Method != http.MethodHead || len(l.Target) == 0 || l.Target[0] != '/' || strings.IndexByte(l.Target, keySeparator) >= 0 {
		return nil
	}
	ru := l.Rule
	if ru == nil {
		ru = &zeroRule
	}
	if ru.Off {
		return nil
	}
	var room [512]byte
	key, ok := appendKey(room[:0], ru, l.Scheme, l.Host, l.Target, l.Fields)
	if !ok {
		return nil
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
			return nil
		}
		e.touch()
		s.hits.Add(1)
		return c.formFor(e, l.Fields)
	}
	return nil
}
