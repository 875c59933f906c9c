package httpcache

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
)

func FuzzCacheControl(f *testing.F) {
	for _, s := range []string{
		"max-age=60", `no-cache="a, b", max-age="60"`, `ext="max-age=3\"600", max-age=1`, "private,,,=,\"", `a="`, `a="b\`, "max-age =1",
		"max-age=99999999999999999999", "No-StOrE", "stale-while-revalidate", "max-stale",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d := parseCacheControl([]string{s})
		for _, n := range []int64{d.maxAge, d.sMaxAge, d.staleError, d.staleRevalidate, d.maxStale, d.minFresh} {
			if n < -1 || n > maxSeconds {
				t.Errorf("%q: %d", s, n)
			}
		}
		if !strings.Contains(strings.ToLower(s), "no-store") && d.noStore {
			t.Errorf("%q: no-store was read", s)
		}
		parseTargeted([]string{s})
		parseAge([]string{s})
	})
}

func FuzzDate(f *testing.F) {
	f.Add("Thu, 18 Aug 2050 02:01:18 GMT")
	f.Add("Thursday, 18-Aug-50 02:01:18 GMT")
	f.Add("Thu Aug  8 02:01:18 2050")
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		if d, ok := parseDate(s, now); ok {
			if again, ok := parseDate(d.Format(http.TimeFormat), now); !ok || !again.Equal(d) {
				t.Errorf("%q is %v, then %v", s, d, again)
			}
		}
	})
}

func FuzzRange(f *testing.F) {
	f.Add("bytes=0-1, 4-, -3", "bytes 0-1/3", int64(10))
	f.Fuzz(func(t *testing.T, s, content string, size int64) {
		size = max(0, size)
		ranges, _ := parseRange([]string{s}, size)
		for _, r := range ranges {
			if r.first < 0 || r.last < r.first || r.last >= size {
				t.Errorf("%q of %d: %v", s, size, r)
			}
		}
		if sp := parseContentRange([]string{content}); sp != nil && (sp.First < 0 || sp.Last < sp.First || sp.Total >= 0 && sp.Last >= sp.Total) {
			t.Errorf("%q: %v", content, *sp)
		}
		etagListed([]string{s}, content)
	})
}

func FuzzNormalise(f *testing.F) {
	f.Add("en, de;q=0.5", "a=1&b=2&utm=3")
	f.Fuzz(func(t *testing.T, value, query string) {
		for _, name := range []string{"Foo", "Accept-Language"} {
			v := varied{Name: name, Raw: value, Normal: normalise(name, value)}
			if !v.matches(headerFields{name: {value}}, "") || !v.matches(headerFields{name: {" " + value + "\t"}}, "") && name != "Foo" {
				t.Errorf("%s: %q does not match itself", name, value)
			}
		}
		ru := &Rule{Query: QueryOnly, Params: []string{"a", "b"}}
		key, _ := appendKey(nil, ru, "http", "h", "/?"+query, headerFields{})
		again, _ := appendKey(nil, ru, "http", "h", string(key[len("http://h"):]), headerFields{})
		if string(key) != string(again) {
			t.Errorf("%q: key %q, of its own %q", query, key, again)
		}
	})
}

// FuzzHitIsHandler asks both doors the same of one store: what the fast one answers, the plain one answers
// too, to the byte. Each step is one byte: what is asked, and what the origin would say.
func FuzzHitIsHandler(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 1, 2, 2, 40, 40, 80, 120, 0})
	f.Add([]byte("the quick brown fox jumps over the lazy dog"))
	f.Add([]byte{7, 7, 71, 71, 135, 135, 199, 199, 255, 3, 3, 67, 67, 131, 131, 195, 195})
	f.Fuzz(func(t *testing.T, steps []byte) { hitIsHandler(t, steps) })
}

// The same at length, and with enough hits to mean something.
func TestHitIsHandler(t *testing.T) {
	random, hits := rand.New(rand.NewPCG(3, 4)), 0
	for range 60 {
		steps := make([]byte, 64)
		for i := range steps {
			steps[i] = byte(random.IntN(256))
			if i > 0 && random.IntN(2) == 0 {
				steps[i] = steps[i-1]
			}
		}
		hits += hitIsHandler(t, steps)
	}
	if hits < 500 {
		t.Errorf("%d hits were compared", hits)
	}
}

var fuzzHeaders = []http.Header{
	{"Cache-Control": {"max-age=60"}, "Etag": {`"1"`}, "Content-Type": {"text/html"}},
	{"Cache-Control": {"max-age=1"}, "Last-Modified": {"Thu, 01 Jan 2026 00:00:00 GMT"}, "Age": {"1"}},
	{"Cache-Control": {"s-maxage=5, stale-while-revalidate=5"}, "Vary": {"Accept-Language"}, "X-Odd": {"a\r\nb"}},
	{"Cache-Control": {"no-store"}, "Cache-Status": {"other; hit"}},
	{"Cdn-Cache-Control": {"max-age=30"}, "Surrogate-Key": {"x"}, "Set-Cookie": {"a=1", "b=2"}, "Content-Language": {"de"}, "Vary": {"Accept-Language"}},
	{"Cache-Control": {"max-age=60"}, "Content-Type": {"text/css"}, "Vary": {"Accept-Encoding"}, "Connection": {"X-Hop"}, "X-Hop": {"1"}},
	{"Expires": {"Thu, 01 Jan 2099 00:00:00 GMT"}, "Bad Name": {"1"}},
	{"Cache-Control": {"no-cache"}, "Etag": {`W/"2"`}},
}
var fuzzFields = [][]string{nil, {"Accept-Language", "de"}, {"Accept-Language", "en, de;q=0.5"}, {"Accept-Encoding", "br, gzip"}}
var fuzzStatuses = []int{200, 200, 200, 404, 301, 204, 500, 200}

func hitIsHandler(t *testing.T, steps []byte) (hits int) {
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	c, err := New(Config{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	var step byte
	rule := &Rule{Query: QueryOnly, Params: []string{"a"}, StaleError: time.Minute}
	door := c.Handler(func(*http.Request) *Rule { return rule }, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, values := range fuzzHeaders[step>>2&7] {
			w.Header()[name] = slices.Clone(values)
		}
		w.WriteHeader(fuzzStatuses[step>>5])
		fmt.Fprint(w, strings.Repeat("body ", int(step)*2))
	}))
	for _, step = range steps[:min(len(steps), 64)] {
		target := fmt.Sprintf("/%d?b=%d&a=1", step>>6, step)
		method := []string{"GET", "GET", "HEAD", "GET"}[step>>1&3]
		r := request1(method, target, fuzzFields[step&3]...)
		s := c.Hit(&Lookup{Method: method, Scheme: "http", Host: "Example.com", Target: target, Plain: true, Rule: rule, Fields: headerFields(r.Header)})
		before := c.Stats()
		rec := httptest.NewRecorder()
		door.ServeHTTP(rec, r)
		if s != nil {
			hits++
			compare(t, method, s, rec, now)
		} else if after := c.Stats(); after.Hits > before.Hits {
			t.Errorf("%s %s: a hit for the handler alone", method, target)
		}
		drainCodings(c)
		now = now.Add(time.Duration(step%5) * time.Second)
	}
	return hits
}

// drainCodings does what Run does, at once.
func drainCodings(c *Cache) {
	for {
		select {
		case job := <-c.encode:
			c.encodeOne(job.e, job.code)
		default:
			return
		}
	}
}

// compare holds a Stored, in both protocols, to what the handler wrote.
func compare(t *testing.T, method string, s *Stored, rec *httptest.ResponseRecorder, now time.Time) {
	t.Helper()
	if s.Status != rec.Code || method != "HEAD" && bodyAllowed(s.Status) && !bytes.Equal(s.Body, rec.Body.Bytes()) {
		t.Fatalf("hit %d, %d bytes; handler %d, %d bytes", s.Status, len(s.Body), rec.Code, rec.Body.Len())
	}
	want := http.Header{}
	for name, values := range rec.Header() {
		for _, v := range values {
			if validField(name, v) {
				want.Add(name, v)
			}
		}
	}
	head := string(s.Head1)
	line, rest, _ := strings.Cut(head, "\r\n")
	if !strings.HasPrefix(line, fmt.Sprintf("HTTP/1.1 %d ", rec.Code)) || !strings.HasSuffix(head, "\r\n") || strings.HasSuffix(head, "\r\n\r\n") {
		t.Fatalf("head %q", head)
	}
	got, err := textproto.NewReader(bufio.NewReader(strings.NewReader(rest + "\r\n"))).ReadMIMEHeader()
	if err != nil {
		t.Fatalf("%v in %q", err, head)
	}
	got.Set("Age", fmt.Sprint(s.Age(now)))
	if fmt.Sprint(http.Header(got)) != fmt.Sprint(want) {
		t.Fatalf("hit     %v\nhandler %v", got, want)
	}
	got2 := http.Header{}
	got2.Set("Age", fmt.Sprint(s.Age(now)))
	block, err := hpack.NewDecoder(4096, nil).DecodeFull(s.Block2)
	if err != nil {
		t.Fatal(err)
	}
	for i, field := range block {
		if i == 0 {
			if field.Name != ":status" || field.Value != fmt.Sprint(rec.Code) {
				t.Fatalf("block begins with %v", field)
			}
			continue
		}
		if field.Name != strings.ToLower(field.Name) {
			t.Errorf("%s is not in lower case", field.Name)
		}
		got2.Add(field.Name, field.Value)
	}
	if fmt.Sprint(got2) != fmt.Sprint(want) {
		t.Fatalf("block   %v\nhandler %v", got2, want)
	}
	dynamic := false
	d := hpack.NewDecoder(0, func(hpack.HeaderField) {})
	d.SetAllowedMaxDynamicTableSize(0)
	if _, err := d.Write(s.Block2); err != nil || d.Close() != nil {
		dynamic = true
	}
	if dynamic {
		t.Error("the block needs a dynamic table")
	}
}
