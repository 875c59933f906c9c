package httpcache

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// lookupFields are a request's fields for Lookup, as a connection loop would have them.
type lookupFields struct{ encoding, language string }

func (f *lookupFields) Value(name string) (string, int) {
	switch {
	case name == "Accept-Encoding" && f.encoding != "":
		return f.encoding, 1
	case name == "Accept-Language" && f.language != "":
		return f.language, 1
	}
	return "", 0
}

// filled is a cache with n responses of size bytes at /objects/0 and so on.
func filled(tb testing.TB, n, size int, header http.Header) *Cache {
	c, err := New(Config{Memory: max(1<<20, int64(n)*int64(size+4096))})
	if err != nil {
		tb.Fatal(err)
	}
	for i := range n {
		r := request1("GET", fmt.Sprint("/objects/", i))
		q := c.newRequest(r, &zeroRule)
		now := time.Now()
		c.store(newEntry(q, judge(q, 200, header, now, now), 200, header, selection(q, header), make([]byte, size), nil, now), c.purges.stamp())
	}
	if got := c.Stats().Entries; got != n {
		tb.Fatalf("%d entries, want %d", got, n)
	}
	return c
}

// stocked are caches with 100,000 objects, by Content-Type and Vary: filling one takes seconds.
var stocked = map[string]*Cache{}

func stock(b *testing.B, header http.Header) *Cache {
	name := fmt.Sprint(header)
	if stocked[name] == nil {
		stocked[name] = filled(b, 100_000, 1024, header)
	}
	return stocked[name]
}

func benchmarkHit(b *testing.B, header http.Header, rule *Rule, fields *lookupFields) {
	c := stock(b, header)
	targets := make([]string, 4096)
	for i := range targets {
		targets[i] = fmt.Sprint("/objects/", i*23)
	}
	l := Lookup{Method: "GET", Scheme: "http", Host: "example.com", Plain: true, Fields: fields, Rule: rule}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		l.Target = targets[i%len(targets)]
		if c.Hit(&l) == nil {
			b.Fatal("no hit")
		}
	}
}

func BenchmarkStore(b *testing.B) {
	c, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	header := http.Header{"Cache-Control": {"max-age=3600"}, "Content-Type": {"text/html"}, "Etag": {`"1"`}}
	q := c.newRequest(request1("GET", "/a"), &zeroRule)
	now := time.Now()
	b.ReportAllocs()
	for i := range b.N {
		q.key = fmt.Sprint("http://example.com/", i)
		c.store(newEntry(q, judge(q, 200, header, now, now), 200, header, selection(q, header), make([]byte, 1024), nil, now), c.purges.stamp())
	}
}

func BenchmarkHit(b *testing.B) {
	plain := http.Header{"Cache-Control": {"max-age=3600"}, "Content-Type": {"image/png"}}
	vary := http.Header{"Cache-Control": {"max-age=3600"}, "Content-Type": {"text/html"}, "Vary": {"Accept-Encoding"}}
	browser := &lookupFields{encoding: "gzip, deflate, br, zstd"}
	b.Run("plain", func(b *testing.B) { benchmarkHit(b, plain, nil, browser) })
	b.Run("coded", func(b *testing.B) {
		benchmarkHit(b, http.Header{"Cache-Control": {"max-age=3600"}, "Content-Type": {"text/html"}}, nil, browser)
	})
	b.Run("vary", func(b *testing.B) { benchmarkHit(b, vary, nil, &lookupFields{}) })
	b.Run("rule", func(b *testing.B) {
		benchmarkHit(b, plain, &Rule{Query: QueryOnly, Params: []string{"page"}}, browser)
	})
}

func BenchmarkHitParallel(b *testing.B) {
	c := stock(b, http.Header{"Cache-Control": {"max-age=3600"}, "Content-Type": {"image/png"}})
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		l := Lookup{Method: "GET", Scheme: "http", Host: "example.com", Target: "/objects/77", Plain: true, Fields: &lookupFields{}}
		for pb.Next() {
			if c.Hit(&l) == nil {
				b.Fatal("no hit")
			}
		}
	})
}

func TestHitDoesNotAllocate(t *testing.T) {
	c := filled(t, 1000, 1024, http.Header{"Cache-Control": {"max-age=3600"}, "Content-Type": {"text/html"}, "Vary": {"Accept-Language"}})
	l := Lookup{Method: "GET", Scheme: "http", Host: "EXAMPLE.com", Target: "/objects/77", Plain: true, Fields: &lookupFields{encoding: "br, gzip;q=0.5"}}
	now := time.Now()
	if n := testing.AllocsPerRun(1000, func() {
		s := c.Hit(&l)
		if s == nil || s.Age(now) > 1 {
			t.Fatal("no hit")
		}
	}); n != 0 {
		t.Errorf("a hit allocates %v times", n)
	}
	l.Rule = &Rule{Query: QueryOnly, Params: []string{"page", "sort"}}
	l.Target = "/objects/77?utm=1&other=3"
	if n := testing.AllocsPerRun(1000, func() {
		if c.Hit(&l) == nil {
			t.Fatal("no hit")
		}
	}); n != 0 {
		t.Errorf("a hit by a rule allocates %v times", n)
	}
}
