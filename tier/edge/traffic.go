package edge

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tenfold/internal/directory"
)

// traffic counts requests by route. Routes come from manifests, so their number is bounded.
type traffic struct {
	m sync.Map // routeKey -> *routeCount
}

type routeKey struct{ app, env, pattern string }

type routeCount struct {
	class   [6]atomic.Uint64
	hits    atomic.Uint64
	sum     atomic.Int64
	buckets []atomic.Uint64
}

func newTraffic() *traffic { return &traffic{} }

// of gives the counts of a route, the same ones each time.
func (t *traffic) of(app, env, pattern string) *routeCount {
	v, _ := t.m.LoadOrStore(routeKey{app, env, pattern}, &routeCount{buckets: make([]atomic.Uint64, len(directory.Bounds)+1)})
	return v.(*routeCount)
}

func (c *routeCount) add(status int, took time.Duration) {
	class := status / 100
	if class < 1 || class > 5 {
		class = 0
	}
	c.class[class].Add(1)
	c.sum.Add(int64(took))
	i, _ := slices.BinarySearch(directory.Bounds, took)
	c.buckets[i].Add(1)
}

func (t *traffic) routes() []directory.RouteCount {
	var out []directory.RouteCount
	t.m.Range(func(k, v any) bool {
		key, c := k.(routeKey), v.(*routeCount)
		r := directory.RouteCount{App: key.app, Env: key.env, Pattern: key.pattern, Hits: c.hits.Load(), Sum: time.Duration(c.sum.Load())}
		for i := range c.class {
			r.Class[i] = c.class[i].Load()
		}
		for i := range c.buckets {
			r.Buckets = append(r.Buckets, c.buckets[i].Load())
		}
		out = append(out, r)
		return true
	})
	return out
}
