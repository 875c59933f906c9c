package httpcache

import (
	"net/http"
	"strings"
	"time"
)

// Explanation is what the cache would do with a request, and why.
type Explanation struct {
	Key string // as people read it: what a rule adds stands behind the URL
	// Bypass is why the cache would not be asked; empty: it would.
	Bypass string
	Stored bool
	Fresh  bool
	// Answers says that what is stored would be sent as it is: not when the request asks for a newer one.
	Answers bool
	Age     time.Duration
	// Left is how long it stays fresh, or, below zero, since when it is not.
	Left     time.Duration
	Variants int // responses under the key, for whatever fields select them
	// Passing says that the route's responses were not to be stored of late, so that nobody waits for
	// another's request.
	Passing bool
}

// Explain says what Handler would do with a request. Nothing is sent and nothing counts as a hit.
func (c *Cache) Explain(r *http.Request, ru *Rule) Explanation {
	if ru == nil {
		ru = &zeroRule
	}
	q := c.newRequest(r, ru)
	x := Explanation{Key: strings.ReplaceAll(q.key, string(rune(keySeparator)), " + ")}
	if x.Bypass = bypass(r, ru); r.Method != http.MethodGet && r.Method != http.MethodHead {
		x.Bypass = "its method is " + r.Method
	}
	_, list := c.memory.find([]byte(q.key))
	x.Variants = len(list)
	if e, _ := c.lookup(q); e != nil {
		x.Stored, x.Fresh, x.Age = true, e.fresh(q.now), e.age(q.now)
		x.Answers = x.Bypass == "" && c.reuse(q, e) != useNot
		x.Left, x.Variants = e.lifetime-x.Age, max(1, x.Variants)
	}
	x.Passing = !x.Stored && !c.routes.hold(q)
	return x
}
