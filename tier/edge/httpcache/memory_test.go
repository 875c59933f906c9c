package httpcache

import (
	"container/list"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"
)

// put stores a body of a size under a key.
func put(c *Cache, key string, size int) *entry {
	h := http.Header{"Cache-Control": {"max-age=3600"}, "Content-Type": {"image/png"}}
	q := &request{r: request1("GET", "/"), rule: &zeroRule, key: key, cc: noDirectives()}
	now := time.Now()
	e := newEntry(q, judge(q, 200, h, now, now), 200, h, nil, make([]byte, size), nil, now)
	c.store(e, c.purges.stamp())
	return e
}

type sized struct {
	key   string
	bytes int64
}

func TestMemoryIsBoundedAndAdmitsWhatIsUsed(t *testing.T) {
	c, err := New(Config{Memory: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	zipf := rand.NewZipf(random, 1.1, 8, 20_000)
	hits, lruHits, n := 0, 0, 24_000
	lru, recent, lruBytes := map[string]*list.Element{}, list.New(), int64(0)
	for i := range n {
		key := fmt.Sprint("http://h/", zipf.Uint64())
		if i%3 == 0 { // a scan goes by: each asked for once
			key = fmt.Sprint("http://h/scan/", i)
		}
		size := 1000 + random.IntN(8000)
		if el := lru[key]; el != nil {
			recent.MoveToFront(el)
			lruHits += b2i(i >= n/2)
		} else {
			lru[key] = recent.PushFront(sized{key, int64(size) + 1100})
			lruBytes += int64(size) + 1100
			for lruBytes > 4<<20 {
				last := recent.Remove(recent.Back()).(sized)
				delete(lru, last.key)
				lruBytes -= last.bytes
			}
		}
		if _, list := c.memory.find([]byte(key)); len(list) > 0 {
			list[0].touch()
			hits += b2i(i >= n/2)
			continue
		}
		put(c, key, size)
		if s := c.Stats(); s.MemoryBytes > 4<<20 {
			t.Fatalf("%d bytes are stored", s.MemoryBytes)
		}
	}
	of := func(hits int) float64 { return float64(hits) / float64(n/2) * 3 / 2 }
	t.Logf("hit ratio of what is no scan: %.3f; LRU %.3f", of(hits), of(lruHits))
	if of(hits) < 1.02*of(lruHits) {
		t.Errorf("hit ratio %.3f; LRU of the same size %.3f", of(hits), of(lruHits))
	}
	checkMemory(t, c.memory)
	if n := c.Purge(Purge{Prefix: "http://h/"}); n == 0 || c.Stats().Entries != 0 || c.Stats().MemoryBytes != 0 {
		t.Errorf("after a purge of all: %+v", c.Stats())
	}
}

// checkMemory holds the index to the queues.
func checkMemory(t *testing.T, m *memory) {
	t.Helper()
	indexed := map[*entry]bool{}
	m.each(func(e *entry) { indexed[e] = true })
	m.mu.Lock()
	defer m.mu.Unlock()
	queued := 0
	for _, q := range []*queue{&m.small, &m.main} {
		var bytes int64
		for e := q.head; e != nil; e = e.place.next {
			queued++
			bytes += e.place.charged
			if !indexed[e] || e.void.Load() || e.place.in != q {
				t.Errorf("%s is queued, but indexed %v, void %v", e.key, indexed[e], e.void.Load())
			}
		}
		if bytes != q.bytes {
			t.Errorf("a queue counts %d bytes of %d", q.bytes, bytes)
		}
	}
	if queued != len(indexed) {
		t.Errorf("%d are queued, %d indexed", queued, len(indexed))
	}
}

func TestMemoryUnderContention(t *testing.T) {
	c, err := New(Config{Memory: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(g), 7))
			for range 3000 {
				key := fmt.Sprint("http://h/", random.IntN(300))
				switch random.IntN(10) {
				case 0:
					c.invalidateURL(key)
				case 1:
					_, list := c.memory.find([]byte(key))
					for _, e := range list {
						c.memory.grow(e, 100)
					}
				case 2, 3, 4:
					put(c, key, random.IntN(20_000))
				default:
					c.Hit(&Lookup{Method: "GET", Scheme: "http", Host: "h", Target: key[len("http://h"):], Plain: true, Fields: &lookupFields{}})
				}
			}
		})
	}
	wg.Wait()
	checkMemory(t, c.memory)
}

func TestAPartNeverReplacesAWhole(t *testing.T) {
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	whole := put(c, "http://h/", 100)
	part := put(c, "http://h/2", 10)
	part.key, part.part = "http://h/", &span{0, 9, 100}
	c.memory.put(part)
	if _, list := c.memory.find([]byte("http://h/")); len(list) != 2 || list[1] != whole {
		t.Errorf("%d entries", len(list))
	}
}

func TestTooManyVariants(t *testing.T) {
	f := start(t, Config{}, nil, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Vary", "X")
	})
	for i := range 3 * maxVariants {
		f.get("/", "X", fmt.Sprint(i))
	}
	if n := f.cache.Stats().Entries; n != maxVariants {
		t.Errorf("%d variants are kept", n)
	}
	checkMemory(t, f.cache.memory)
}
