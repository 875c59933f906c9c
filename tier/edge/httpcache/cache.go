package httpcache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Config of a Cache; useful when zero.
type Config struct {
	Memory int64  // bytes of the memory tier; 0: 256 MiB
	Disk   int64  // bytes of the disk tier; 0: 5 GiB
	Dir    string // folder of the disk tier, of the cache alone; "": no disk tier
	Log    *slog.Logger
	Now    func() time.Time // the clock of ages and freshness; nil: time.Now
}

const (
	defaultMemory = 256 << 20
	defaultDisk   = 5 << 30
)

// Cache is the store and what goes on around it. Its methods may be called from many goroutines.
type Cache struct {
	log     *slog.Logger
	now     func() time.Time
	memory  *memory
	disk    *disk // nil: none
	purges  purges
	flights flights
	routes  routes
	maxBody atomic.Int64 // bytes of a body that can be stored
	room    atomic.Int64 // bytes of bodies under way at once
	filling atomic.Int64
	encode  chan encoding
	counts  counts

	mu      sync.Mutex // owns what follows
	running context.Context
	work    sync.WaitGroup // goroutines of fills; added to under mu while running
}

type counts struct {
	hits, misses, stale, revalidated, collapsed, uncacheable, stored atomic.Uint64
}

// Stats is a snapshot of counters since New, and of sizes.
type Stats struct {
	Hits        uint64 // answered from the store, fresh; both doors
	Stale       uint64 // answered from the store, stale
	Misses      uint64 // asked of the origin with nothing stored to validate
	Revalidated uint64 // validations that the origin answered with 304
	Collapsed   uint64 // answered by a request to the origin that another had begun
	Uncacheable uint64 // passed through since they could not be stored
	Stored      uint64 // responses put into the store
	Evicted     uint64 // entries that left the memory tier for want of room

	Entries     int   // in memory
	MemoryBytes int64 // of Config.Memory
	DiskEntries int
	DiskBytes   int64 // of Config.Disk
}

// New makes a Cache. It starts nothing and reads no file: Run does. Before Run, and after it, the cache
// serves from memory, and passes each miss through by itself.
func New(cfg Config) (*Cache, error) {
	if cfg.Memory < 0 || cfg.Disk < 0 {
		return nil, errors.New("make cache: a size is negative")
	}
	if cfg.Memory == 0 {
		cfg.Memory = defaultMemory
	}
	if cfg.Disk == 0 {
		cfg.Disk = defaultDisk
	}
	c := &Cache{log: cfg.Log, now: cfg.Now, memory: newMemory(cfg.Memory), encode: make(chan encoding, 256)}
	if c.log == nil {
		c.log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if c.now == nil {
		c.now = time.Now
	}
	c.flights.m, c.flights.vary = map[string]*fill{}, map[string][]string{}
	c.routes.init()
	if cfg.Dir != "" {
		c.disk = newDisk(cfg.Dir, cfg.Disk, c.log)
	}
	c.SetBounds(cfg.Memory, cfg.Disk)
	return c, nil
}

// SetBounds changes the sizes of the tiers, in bytes; 0: the default of Config. What does not fit any more
// leaves before it returns; bodies that are under way are bounded by the memory tier's size too.
func (c *Cache) SetBounds(memory, disk int64) {
	memory, disk = cmp.Or(memory, defaultMemory), cmp.Or(disk, defaultDisk)
	c.memory.bound(memory)
	c.room.Store(memory)
	most := memory / 4
	if c.disk != nil {
		c.disk.bound(disk)
		most = max(most, min(disk/8, 64<<20))
	}
	c.maxBody.Store(most)
}

// Run opens the disk tier, calls ready, and works in the background until ctx is done: shared requests to
// the origin, revalidation, compression, writing to disk. It returns when all of that is over, and nobody
// waits any more for a request that had begun.
func (c *Cache) Run(ctx context.Context, ready func()) error {
	if c.disk != nil {
		if err := c.disk.open(); err != nil {
			return fmt.Errorf("run cache: %w", err)
		}
	}
	c.mu.Lock()
	if c.running != nil {
		c.mu.Unlock()
		return errors.New("run cache: it runs already")
	}
	c.running = ctx
	c.mu.Unlock()

	var own sync.WaitGroup
	own.Go(func() { c.encodeLoop(ctx) })
	if c.disk != nil {
		own.Go(func() { c.disk.writeLoop(ctx, c) })
	}
	ready()
	<-ctx.Done()
	c.mu.Lock()
	c.running = nil
	c.mu.Unlock()
	c.work.Wait()
	own.Wait()
	if c.disk != nil {
		return c.disk.close()
	}
	return nil
}

// begin starts a goroutine of the cache's own, which ends soon after ctx. false: Run does not run.
func (c *Cache) begin(f func(ctx context.Context)) bool {
	c.mu.Lock()
	ctx := c.running
	if ctx == nil || ctx.Err() != nil {
		c.mu.Unlock()
		return false
	}
	c.work.Add(1)
	c.mu.Unlock()
	go func() {
		defer c.work.Done()
		f(ctx)
	}()
	return true
}

// Stats takes a snapshot.
func (c *Cache) Stats() Stats {
	s := Stats{
		Hits: c.counts.hits.Load(), Misses: c.counts.misses.Load(), Stale: c.counts.stale.Load(),
		Revalidated: c.counts.revalidated.Load(), Collapsed: c.counts.collapsed.Load(),
		Uncacheable: c.counts.uncacheable.Load(), Stored: c.counts.stored.Load(),
	}
	for i := range c.memory.shards {
		s.Hits += c.memory.shards[i].hits.Load()
	}
	c.memory.mu.Lock()
	s.Entries, s.MemoryBytes, s.Evicted = c.memory.small.count+c.memory.main.count, c.memory.small.bytes+c.memory.main.bytes, c.memory.evicted
	c.memory.mu.Unlock()
	if c.disk != nil {
		s.DiskEntries, s.DiskBytes = c.disk.size()
	}
	return s
}

// store puts an entry into the tiers, unless a purge or an invalidation since stamp, taken before the
// request went to the origin, speaks of it.
func (c *Cache) store(e *entry, stamp uint64) bool {
	c.purges.RLock()
	defer c.purges.RUnlock()
	if c.purges.since(stamp, e) {
		return false
	}
	e.stamp = stamp
	replaced := c.memory.put(e)
	if c.disk != nil {
		c.disk.forget(replaced)
		c.disk.offer(e)
	}
	c.counts.stored.Add(1)
	return true
}

// routes remembers what could be stored: of keys, whether the last response could be shared; of routes,
// whether one could not. Who could not share is not made to wait again.
type routes struct {
	seed    maphash.Seed
	keys    [1 << 15]atomic.Uint64 // hash of a key that could be shared, by its low bits
	mu      sync.RWMutex
	blocked map[string]time.Time // until when misses of a route are not held
}

const (
	maxRoutes = 4096
	// blockedFor is how long a route stays marked after its last response that could not be shared;
	// erredFor when that was an error, which says little of the route.
	blockedFor = 10 * time.Minute
	erredFor   = 5 * time.Second
)

func (r *routes) init() {
	r.seed, r.blocked = maphash.MakeSeed(), map[string]time.Time{}
}

// hold says whether a miss may wait for another one's response.
func (r *routes) hold(q *request) bool {
	return r.holds(maphash.String(r.seed, q.key), q.route, q.now)
}

// holds is hold for the hash of a key.
func (r *routes) holds(hash uint64, route string, now time.Time) bool {
	h := hash | 1
	if r.keys[h>>1%uint64(len(r.keys))].Load() == h {
		return true
	}
	r.mu.RLock()
	until, ok := r.blocked[route]
	r.mu.RUnlock()
	return !ok || now.After(until)
}

// note remembers an outcome.
func (r *routes) note(q *request, status int, shared bool, now time.Time) {
	h := maphash.String(r.seed, q.key) | 1
	slot := &r.keys[h>>1%uint64(len(r.keys))]
	if shared {
		slot.Store(h)
		return
	}
	slot.CompareAndSwap(h, 0)
	r.block(q.route, status, now)
}

// block notes that a response of a route could not be shared.
func (r *routes) block(route string, status int, now time.Time) {
	until := now.Add(blockedFor)
	if status >= 400 {
		until = now.Add(erredFor)
	}
	r.mu.RLock()
	have := r.blocked[route]
	r.mu.RUnlock()
	if until.Sub(have) < time.Second {
		return // spare the lock on a busy route
	}
	r.mu.Lock()
	if len(r.blocked) >= maxRoutes {
		clear(r.blocked)
	}
	r.blocked[route] = until
	r.mu.Unlock()
}

// routeOf names what is remembered together: the rule's route, or host and first segment; and the kind of
// file, since one route often leads to both pages and assets.
func routeOf(ru *Rule, host, path string) string {
	route := ru.Route
	if route == "" {
		seg := strings.TrimPrefix(path, "/")
		if i := strings.IndexByte(seg, '/'); i >= 0 {
			seg = seg[:i]
		} else {
			seg = ""
		}
		route = host + "/" + seg
	}
	last := path[strings.LastIndexByte(path, '/')+1:]
	if i := strings.LastIndexByte(last, '.'); i >= 0 && len(last)-i <= 6 {
		route += " " + strings.ToLower(last[i:])
	}
	return route
}

// request is a request with what the cache reads of it.
type request struct {
	r          *http.Request
	rule       *Rule
	key        string
	route      string
	cc         directives
	now        time.Time
	authorized bool
	ranged     bool
}

func (c *Cache) newRequest(r *http.Request, ru *Rule) *request {
	q := &request{r: r, rule: ru, now: c.now()}
	scheme := r.URL.Scheme
	if scheme == "" {
		scheme = "http"
		if r.TLS != nil {
			scheme = "https"
		}
	}
	var room [512]byte
	key, _ := appendKey(room[:0], ru, scheme, r.Host, r.URL.RequestURI(), headerFields(r.Header))
	q.key = string(key)
	q.route = routeOf(ru, r.Host, r.URL.Path)
	if cc := r.Header["Cache-Control"]; len(cc) > 0 {
		q.cc = parseCacheControl(cc)
	} else {
		q.cc = noDirectives()
		if p := r.Header["Pragma"]; len(p) > 0 {
			q.cc.noCache = parseCacheControl(p).noCache // RFC 9111 §5.4
		}
	}
	_, q.authorized = r.Header["Authorization"]
	_, q.ranged = r.Header["Range"]
	return q
}
