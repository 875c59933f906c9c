package httpcache

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fixture is a cache that runs, in front of an origin of the test's own.
type fixture struct {
	t     *testing.T
	cache *Cache
	door  http.Handler
	asked atomic.Int64 // requests that reached the origin
	stop  func()
}

func start(t *testing.T, cfg Config, rule *Rule, origin http.HandlerFunc) *fixture {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, cache: c}
	f.door = c.Handler(func(*http.Request) *Rule { return rule }, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.asked.Add(1)
		origin(w, r)
	}))
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- c.Run(ctx, func() { close(ready) }) }()
	<-ready
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(f.stop)
	return f
}

// answer is what a client got; broken: the response was cut short.
type answer struct {
	*httptest.ResponseRecorder
	broken bool
}

func (f *fixture) do(r *http.Request) (a answer) {
	a.ResponseRecorder = httptest.NewRecorder()
	defer func() {
		if p := recover(); p == http.ErrAbortHandler {
			a.broken = true
		} else if p != nil {
			panic(p)
		}
	}()
	f.door.ServeHTTP(a.ResponseRecorder, r)
	return a
}

// get asks for a path; fields are name, value, name, value.
func (f *fixture) get(path string, fields ...string) answer {
	return f.do(request1("GET", path, fields...))
}

func request1(method, path string, fields ...string) *http.Request {
	r := httptest.NewRequest(method, "http://example.com"+path, nil)
	r.RequestURI = ""
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	return r
}

// all asks n times at once, for paths that path gives, and waits.
func (f *fixture) all(n int, path func(i int) string) []answer {
	out := make([]answer, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { out[i] = f.get(path(i)) })
	}
	wg.Wait()
	return out
}

func (f *fixture) wantAsked(n int64) {
	f.t.Helper()
	if got := f.asked.Swap(0); got != n {
		f.t.Errorf("the origin was asked %d times, want %d", got, n)
	}
}

func wantBody(t *testing.T, a answer, status int, body string) {
	t.Helper()
	if a.Code != status || a.Body.String() != body || a.broken {
		t.Errorf("got %d %.60q (broken %v), want %d %.60q", a.Code, a.Body.String(), a.broken, status, body)
	}
}

func within(t *testing.T, from time.Time, limit time.Duration) {
	t.Helper()
	if d := time.Since(from); d > limit {
		t.Errorf("it took %v, more than %v", d, limit)
	}
}

func slow(cc string, after time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(after)
		w.Header().Set("Cache-Control", cc)
		fmt.Fprint(w, "body of ", r.URL.Path)
	}
}

func TestMissesShareOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Config{}, nil, slow("max-age=60", 500*time.Millisecond))
		defer f.stop()
		from := time.Now()
		for _, a := range f.all(200, func(int) string { return "/a" }) {
			wantBody(t, a, 200, "body of /a")
		}
		within(t, from, 500*time.Millisecond)
		f.wantAsked(1)
		wantBody(t, f.get("/a"), 200, "body of /a")
		f.wantAsked(0)
	})
}

func TestUncacheableIsDelayedOncePerRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Config{}, &Rule{Route: "/api/*"}, slow("no-store", 500*time.Millisecond))
		defer f.stop()
		from := time.Now()
		for _, a := range f.all(200, func(int) string { return "/api/a" }) {
			wantBody(t, a, 200, "body of /api/a")
		}
		within(t, from, time.Second)
		for round, path := range []func(int) string{
			func(int) string { return "/api/a" },
			func(int) string { return "/api/new" },
			func(i int) string { return fmt.Sprint("/api/deep/", i%7) },
		} {
			from = time.Now()
			for i, a := range f.all(200, path) {
				wantBody(t, a, 200, "body of "+path(i))
			}
			if d := time.Since(from); d > 500*time.Millisecond {
				t.Errorf("round %d took %v", round, d)
			}
		}
		f.wantAsked(800)
	})
}

// A route that once could not share must still collapse what it is known to be able to share.
func TestCacheableOnABlockedRouteIsHeldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Config{}, &Rule{Route: "/*"}, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(100 * time.Millisecond)
			if r.URL.Path == "/me" {
				w.Header().Set("Cache-Control", "private")
			} else {
				w.Header().Set("Cache-Control", "max-age=5")
			}
			fmt.Fprint(w, r.URL.Path)
		})
		defer f.stop()
		f.get("/me")
		f.get("/news")
		f.wantAsked(2)
		time.Sleep(10 * time.Second)
		f.all(50, func(int) string { return "/news" })
		f.wantAsked(1)
	})
}

func TestStaleWhileRevalidate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Config{}, nil, slow("max-age=1, stale-while-revalidate=60", 500*time.Millisecond))
		defer f.stop()
		f.get("/a")
		f.wantAsked(1)
		time.Sleep(5 * time.Second)
		from := time.Now()
		for _, a := range f.all(200, func(int) string { return "/a" }) {
			wantBody(t, a, 200, "body of /a")
		}
		within(t, from, 0)
		time.Sleep(time.Second)
		f.wantAsked(1)
		if s := f.get("/a").Header().Get("Cache-Status"); s != "tenfold; hit; ttl=0" && s != statusHit {
			t.Errorf("after the refresh: %s", s)
		}
	})
}

func TestLeaderLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Config{}, nil, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			for i := range 10 {
				time.Sleep(100 * time.Millisecond)
				if r.Context().Err() != nil {
					panic(http.ErrAbortHandler)
				}
				fmt.Fprint(w, i)
				w.(http.Flusher).Flush()
			}
		})
		defer f.stop()
		ctx, leave := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { f.do(request1("GET", "/a").WithContext(ctx)) })
		synctest.Wait()
		answers := make([]answer, 20)
		for i := range answers {
			wg.Go(func() { answers[i] = f.get("/a") })
		}
		time.Sleep(450 * time.Millisecond)
		leave()
		wg.Wait()
		for _, a := range answers {
			wantBody(t, a, 200, "0123456789")
		}
		f.wantAsked(1)

		// nobody follows: the fill is finished for the store's sake
		ctx, leave = context.WithCancel(context.Background())
		wg.Go(func() { f.do(request1("GET", "/b").WithContext(ctx)) })
		time.Sleep(250 * time.Millisecond)
		leave()
		wg.Wait()
		time.Sleep(2 * time.Second)
		wantBody(t, f.get("/b"), 200, "0123456789")
		f.wantAsked(1)
	})
}

func TestCutShortIsNeverCompleteNorStored(t *testing.T) {
	for name, origin := range map[string]http.HandlerFunc{
		"panic": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			fmt.Fprint(w, "half of")
			time.Sleep(time.Second)
			panic(http.ErrAbortHandler)
		},
		"length": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "half of")
			time.Sleep(time.Second)
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := start(t, Config{}, nil, origin)
			defer f.stop()
			for _, a := range f.all(10, func(int) string { return "/a" }) {
				if !a.broken {
					t.Errorf("%s: a response that was cut short looks complete", name)
				}
			}
			f.wantAsked(1)
			f.get("/a")
			f.wantAsked(1)
			if n := f.cache.Stats().Entries; n != 0 {
				t.Errorf("%s: %d entries are stored", name, n)
			}
		})
	}
}

func TestFollowersOfAnotherVariant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Config{}, nil, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(100 * time.Millisecond)
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Vary", "Accept-Language")
			fmt.Fprint(w, r.Header.Get("Accept-Language"))
		})
		defer f.stop()
		from := time.Now()
		var wg sync.WaitGroup
		for i := range 60 {
			lang := []string{"de", "en", "it"}[i%3]
			wg.Go(func() { wantBody(t, f.get("/a", "Accept-Language", lang), 200, lang) })
		}
		wg.Wait()
		within(t, from, 200*time.Millisecond)
		f.wantAsked(3)
	})
}

func TestPurgeWhileAFillIsRunning(t *testing.T) {
	for name, p := range map[string]Purge{
		"url": {URL: "http://EXAMPLE.com/a"}, "prefix": {Prefix: "http://example.com/"}, "tag": {Tag: "Fruit"}, "release": {Release: "r1"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var version atomic.Value
			version.Store("old")
			f := start(t, Config{}, &Rule{Release: "r1"}, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=60")
				w.Header().Set("Surrogate-Key", "veg fruit")
				v := version.Load()
				time.Sleep(time.Second)
				fmt.Fprint(w, v)
			})
			defer f.stop()
			var wg sync.WaitGroup
			wg.Go(func() { f.get("/a") })
			time.Sleep(500 * time.Millisecond)
			version.Store("new")
			f.cache.Purge(p)
			wg.Wait()
			wantBody(t, f.get("/a"), 200, "new")
			f.wantAsked(2)
			a := f.get("/a")
			wantBody(t, a, 200, "new")
			if a.Header().Get("Surrogate-Key") != "" {
				t.Error("the surrogate key was sent on")
			}
			f.wantAsked(0)
			if n := f.cache.Purge(p); n != 1 {
				t.Errorf("%s: purged %d, want 1", name, n)
			}
			f.get("/a")
			f.wantAsked(1)
		})
	}
}

func TestUnsafeMethodsInvalidate(t *testing.T) {
	f := start(t, Config{}, nil, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		if r.Method == "POST" {
			w.Header().Set("Location", "/b")
			w.Header().Set("Content-Location", "http://other.example/c")
			w.WriteHeader(201)
		}
	})
	f.get("/a?x=1")
	f.get("/b")
	f.get("/c")
	f.wantAsked(3)
	f.do(request1("POST", "/a?x=1"))
	f.get("/a?x=1")
	f.get("/b")
	f.get("/c")
	f.wantAsked(3) // POST, a, b
}

func TestStaleInPlaceOfErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mode := "ok"
		f := start(t, Config{}, nil, func(w http.ResponseWriter, r *http.Request) {
			switch mode {
			case "500":
				w.WriteHeader(500)
			case "unreachable":
				Unreachable(r)
				w.WriteHeader(502)
			case "abort":
				panic(http.ErrAbortHandler)
			default:
				w.Header().Set("Cache-Control", r.URL.Query().Get("cc"))
				fmt.Fprint(w, "ok")
			}
		})
		defer f.stop()
		paths := map[string][3]int{ // status for 500, unreachable, abort; 0: broken
			"/?cc=max-age=1,stale-if-error=600": {200, 200, 200},
			"/?cc=max-age=1":                    {500, 200, 200},
			"/?cc=max-age=1,must-revalidate":    {500, 502, 0},
			"/?cc=s-maxage=1":                   {500, 502, 0},
		}
		for path := range paths {
			f.get(path)
		}
		time.Sleep(time.Minute)
		for i, m := range []string{"500", "unreachable", "abort"} {
			mode = m
			for path, want := range paths {
				a := f.get(path)
				if want[i] == 0 && !a.broken || want[i] != 0 && (a.Code != want[i] || a.broken) {
					t.Errorf("%s, %s: got %d (broken %v), want %d", path, m, a.Code, a.broken, want[i])
				}
			}
			time.Sleep(10 * time.Second)
		}
		// while the origin fails, nobody waits for it to fail again
		mode = "500"
		f.get("/?cc=max-age=1,stale-if-error=600")
		f.asked.Store(0)
		for range 10 {
			wantBody(t, f.get("/?cc=max-age=1,stale-if-error=600"), 200, "ok")
			synctest.Wait()
		}
		time.Sleep(time.Hour)
		if a := f.get("/?cc=max-age=1,stale-if-error=600"); a.Code != 500 {
			t.Errorf("an hour later: %d", a.Code)
		}
	})
}

func TestLargeBodiesGoThroughUnstored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		piece := strings.Repeat("0123456789abcdef", 4096) // 64 KiB
		f := start(t, Config{Memory: 4 << 20}, nil, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			for range 100 {
				if _, err := w.Write([]byte(piece)); err != nil {
					panic(http.ErrAbortHandler)
				}
				time.Sleep(time.Millisecond)
			}
		})
		defer f.stop()
		for _, a := range f.all(5, func(int) string { return "/big" }) {
			if a.Body.Len() != 100*len(piece) || a.broken || !bytes.Equal(a.Body.Bytes()[99*len(piece):], []byte(piece)) {
				t.Errorf("got %d bytes, broken %v", a.Body.Len(), a.broken)
			}
		}
		f.wantAsked(1)
		if n := f.cache.Stats().Entries; n != 0 {
			t.Errorf("%d entries are stored", n)
		}
		if n := f.cache.filling.Load(); n != 0 {
			t.Errorf("%d bytes are still counted as under way", n)
		}
	})
}

// An origin much faster than the clients, its body too large to keep: all of it arrives, and memory stays
// bounded by the window.
func TestLargeBodyOfAFastOrigin(t *testing.T) {
	for range 4 {
		f := start(t, Config{Memory: 1 << 20}, nil, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			for i := range 64 {
				w.Write(bytes.Repeat([]byte{byte('0' + i)}, 64<<10))
			}
		})
		for _, a := range f.all(3, func(int) string { return "/big" }) {
			if a.Body.Len() != 4<<20 || a.broken || a.Body.Bytes()[4<<20-1] != '0'+63 {
				t.Fatalf("got %d bytes, broken %v", a.Body.Len(), a.broken)
			}
		}
		f.stop()
	}
}

// When Run ends, who waits is answered still: a door that hands over drains while requests are under way.
// What nobody waits for ends at once, and so does what the last client leaves.
func TestEndWithAFillRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer, ended := make(chan struct{}), make(chan struct{}, 2)
		f := start(t, Config{}, nil, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60, stale-while-revalidate=60")
			fmt.Fprint(w, "begun")
			select {
			case <-answer:
				fmt.Fprint(w, ", whole")
			case <-r.Context().Done():
				ended <- struct{}{}
				panic(http.ErrAbortHandler)
			}
		})
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if a := f.get("/a"); a.broken || a.Body.String() != "begun, whole" {
					t.Errorf("got %d %q", a.Code, a.Body.String())
				}
			})
		}
		leaving, leave := context.WithCancel(t.Context())
		wg.Go(func() { f.do(request1("GET", "/b").WithContext(leaving)) })
		synctest.Wait()
		stopped := make(chan struct{})
		go func() { f.stop(); close(stopped) }()
		synctest.Wait()
		leave()
		<-ended
		select {
		case <-stopped:
			t.Error("Run returned while three waited")
		default:
		}
		close(answer)
		wg.Wait()
		<-stopped
	})
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		f := start(t, Config{}, nil, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=1, stale-while-revalidate=600")
			if asked++; asked == 1 {
				fmt.Fprint(w, "old")
				return
			}
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		})
		f.get("/a")
		time.Sleep(2 * time.Second)
		if a := f.get("/a"); a.Body.String() != "old" {
			t.Errorf("%q", a.Body.String())
		}
		synctest.Wait()
		f.stop() // does not return before the refresh has ended
	})
}

// An origin that has another answer now, though none to store, ends the old one.
func TestSupersededByWhatCannotBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gone atomic.Bool
		f := start(t, Config{}, nil, func(w http.ResponseWriter, r *http.Request) {
			if gone.Load() {
				w.WriteHeader(404)
				return
			}
			w.Header().Set("Cache-Control", "max-age=1, stale-while-revalidate=600")
			fmt.Fprint(w, "here")
		})
		defer f.stop()
		f.get("/a")
		gone.Store(true)
		time.Sleep(10 * time.Second)
		wantBody(t, f.get("/a"), 200, "here")
		synctest.Wait()
		wantBody(t, f.get("/a"), 404, "")
	})
}

func TestJudge(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		fields      string
		status      int
		store       bool
		share       bool
		lifetime    int // seconds
		stale, fail int
	}{
		{"Cache-Control: max-age=60", 200, true, true, 60, 0, 0},
		{"Cache-Control: max-age=60, s-maxage=10", 200, true, true, 10, 0, 0},
		{"Cache-Control: max-age=60\nCDN-Cache-Control: max-age=5", 200, true, true, 5, 0, 0},
		{"Cache-Control: no-store\nCDN-Cache-Control: max-age=5", 200, true, true, 5, 0, 0},
		{"Cache-Control: no-store\nCDN-Cache-Control: max-age=5, &", 200, false, false, 0, 0, 0},
		{"CDN-Cache-Control: private\nCache-Control: max-age=60", 200, false, false, 0, 0, 0},
		{"Cache-Control: private=\"x-user\", max-age=60", 200, true, true, 60, 0, 0},
		{"Cache-Control: max-age=60\nAge: 60", 200, false, false, 60, 0, 0},
		{"Cache-Control: max-age=60\nAge: 60\nEtag: \"1\"", 200, true, false, 60, 0, 0},
		{"Cache-Control: no-cache\nEtag: \"1\"", 200, true, false, 0, 0, 0},
		{"Cache-Control: max-age=60\nVary: a, *", 200, false, false, 60, 0, 0},
		{"Cache-Control: max-age=60", 206, false, false, 60, 0, 0},
		{"Cache-Control: max-age=60", 404, true, true, 60, 0, 0},
		{"Last-Modified: Wed, 31 Dec 2025 23:50:00 GMT", 200, true, true, 60, 0, 0},
		{"Last-Modified: Wed, 31 Dec 2025 23:50:00 GMT\nSet-Cookie: a=1", 200, true, false, 0, 0, 0},
		{"Last-Modified: Wed, 31 Dec 2025 23:50:00 GMT", 404, false, false, 0, 0, 0},
		{"Cache-Control: s-maxage=1, stale-while-revalidate=30", 200, true, true, 1, 30, 0},
		{"Cache-Control: max-age=1, must-revalidate, stale-while-revalidate=30, stale-if-error=9", 200, true, true, 1, 0, 0},
		{"Cache-Control: max-age=1, stale-if-error=9", 200, true, true, 1, 0, 9},
		{"Cache-Control: max-age=60, no-store, must-understand", 200, true, true, 60, 0, 0},
		{"Cache-Control: max-age=60, no-store, must-understand", 299, false, false, 60, 0, 0},
		{"", 200, false, false, 0, 0, 0},
	} {
		h := http.Header{}
		for line := range strings.SplitSeq(c.fields, "\n") {
			if name, value, ok := strings.Cut(line, ": "); ok {
				h.Add(name, value)
			}
		}
		v := judge(&request{r: request1("GET", "/"), rule: &zeroRule, cc: noDirectives()}, c.status, h, now, now)
		got := fmt.Sprint(v.store, v.share, v.staleRevalidate, v.staleError)
		want := fmt.Sprint(c.store, c.share, time.Duration(c.stale)*time.Second, time.Duration(c.fail)*time.Second)
		if got != want || v.store && v.lifetime != time.Duration(c.lifetime)*time.Second {
			t.Errorf("%d %q: %s, fresh %v; want %s, %ds", c.status, c.fields, got, v.lifetime, want, c.lifetime)
		}
	}
}

func TestAuthorization(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Config{}, nil, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", r.URL.Query().Get("cc"))
			time.Sleep(100 * time.Millisecond)
			fmt.Fprint(w, r.Header.Get("Authorization"))
		})
		defer f.stop()
		var wg sync.WaitGroup
		for i := range 20 {
			who := fmt.Sprint("user", i)
			wg.Go(func() { wantBody(t, f.get("/?cc=max-age=60", "Authorization", who), 200, who) })
		}
		wg.Wait()
		f.wantAsked(20)
		wantBody(t, f.get("/?cc=max-age=60"), 200, "")
		f.wantAsked(1)
		f.get("/?cc=max-age=60,public", "Authorization", "x")
		wantBody(t, f.get("/?cc=max-age=60,public"), 200, "x")
		f.wantAsked(1)
	})
}

// What arrives stale or asks for validation on each use answers one request, and holds up nobody twice.
func TestNoCacheIsNotShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, Config{}, nil, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(100 * time.Millisecond)
			w.Header().Set("Cache-Control", "no-cache")
			w.Header().Set("Etag", `"1"`)
			if r.Header.Get("If-None-Match") == `"1"` {
				w.WriteHeader(304)
				return
			}
			fmt.Fprint(w, "page")
		})
		defer f.stop()
		for range 2 {
			from := time.Now()
			for _, a := range f.all(50, func(int) string { return "/page" }) {
				wantBody(t, a, 200, "page")
			}
			within(t, from, 200*time.Millisecond)
			f.wantAsked(50)
		}
		if n := f.cache.Stats().Revalidated; n < 50 {
			t.Errorf("%d validations, want 50 at least", n)
		}
	})
}

func TestRuns(t *testing.T) {
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, cache: c}
	f.door = c.Handler(nil, slow("max-age=60", 0))
	wantBody(t, f.get("/a"), 200, "body of /a") // before Run: passes, stores
	wantBody(t, f.get("/a"), 200, "body of /a")
	if s := c.Stats(); s.Hits != 1 || s.Misses != 1 {
		t.Errorf("stats: %+v", s)
	}
}
