package httpcache

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestBoundsChangeWhileItServes(t *testing.T) {
	f := start(t, Config{Memory: 8 << 20, Dir: t.TempDir(), Disk: 64 << 20}, nil, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		fmt.Fprint(w, r.URL.Path, strings.Repeat("x", 64<<10))
	})
	for i := range 60 {
		f.get(fmt.Sprint("/", i))
	}
	if s := f.cache.Stats(); s.MemoryBytes < 3<<20 || s.MemoryBytes > 8<<20 {
		t.Fatalf("%d bytes in memory", s.MemoryBytes)
	}
	for begun := time.Now(); f.cache.Stats().DiskEntries < 50; <-time.After(5 * time.Millisecond) {
		if time.Since(begun) > 10*time.Second {
			t.Fatalf("%d on disk", f.cache.Stats().DiskEntries)
		}
	}
	f.cache.SetBounds(1<<20, 2<<20)
	if s := f.cache.Stats(); s.MemoryBytes > 1<<20 || s.DiskBytes > 2<<20 || s.Entries == 0 {
		t.Errorf("bounded to 1 and 2 MiB it holds %d and %d bytes, %d entries", s.MemoryBytes, s.DiskBytes, s.Entries)
	}
	if a := f.get("/59"); a.Code != 200 || !strings.HasPrefix(a.Body.String(), "/59x") {
		t.Errorf("%d after it", a.Code)
	}
	f.cache.SetBounds(0, 0)
	if most := f.cache.maxBody.Load(); most != 64<<20 {
		t.Errorf("by default bodies of %d bytes are kept", most)
	}
}

// What is under way is bounded by the size that holds now: of six bodies that together are more, not all
// are kept, though all are passed on.
func TestBoundsHoldForWhatIsUnderWay(t *testing.T) {
	var written, all sync.WaitGroup
	written.Add(6)
	f := start(t, Config{Memory: 64 << 20}, nil, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		fmt.Fprint(w, strings.Repeat("x", 200<<10))
		written.Done()
		written.Wait()
	})
	f.cache.SetBounds(1<<20, 0)
	for i := range 6 {
		all.Go(func() {
			if a := f.get(fmt.Sprint("/", i)); a.Body.Len() != 200<<10 {
				t.Errorf("%d bytes", a.Body.Len())
			}
		})
	}
	all.Wait()
	if n := f.cache.Stats().Stored; n == 0 || n > 5 {
		t.Errorf("%d of six bodies were stored", n)
	}
}

func TestTagsAreOfTheirScope(t *testing.T) {
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	origin := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("Surrogate-Key", "Tags all")
		fmt.Fprint(w, "x")
	})
	scope := ""
	f := &fixture{t: t, cache: c, door: c.Handler(func(*http.Request) *Rule { return &Rule{Scope: scope} }, origin)}
	for _, scope = range []string{"one/production", "two/production"} {
		f.get("/" + scope)
	}
	if n := c.Purge(Purge{Tag: "tags"}); n != 0 {
		t.Errorf("a tag of nobody's purged %d", n)
	}
	if n := c.Purge(Purge{Tag: "TAGS", Scope: "one/production"}); n != 1 {
		t.Errorf("one's purged %d", n)
	}
	if n := c.Stats().Entries; n != 1 {
		t.Errorf("%d are left, not the other's one", n)
	}
}
