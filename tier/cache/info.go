package cache

import (
	"context"
	"net"
	"slices"
	"strconv"

	"tenfold"
	"tenfold/internal/cacheinfo"
	"tenfold/internal/keeper"
)

// Cache tells of a cache and its servers.
func (c *Cache) Cache(_ context.Context, id tenfold.ID) (cacheinfo.Cache, error) {
	key := id.String()
	r, ok := c.get(key)
	if !ok {
		return cacheinfo.Cache{}, tenfold.Errorf(tenfold.CodeNotFound, "no %s of %s", id.Short(), id.App).WithHint("list what there is: tenfold status")
	}
	out := cacheinfo.Cache{Version: r.Version, Size: r.Spec.Size, Evict: r.Spec.Evict, Epoch: r.Epoch, TLS: r.Spec.TLS, Nodes: []cacheinfo.Node{}}
	for i := range r.Spec.Readers.Max {
		out.Readers = append(out.Readers, net.JoinHostPort(readHost(i), strconv.Itoa(r.Port)))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.seen[key]
	p := v.Nodes[r.Primary]
	for _, n := range r.Nodes {
		s := v.Nodes[n.N]
		x := cacheinfo.Node{N: n.N, PID: s.PID, Role: "reader", State: stateOf(n, s), Lag: -1, Memory: int64(c.told[place{key, n.N}].facts.number("used_memory")), Addr: []string{}}
		switch {
		case n.N == r.Primary:
			x.Role, x.Lag = "primary", 0
			if x.State == "following" {
				x.State = "serving"
			}
		case s.LinkUp && p.Answers:
			x.Lag = max(0, p.Offset-s.Offset)
		}
		for _, h := range s.Bind {
			if h != ownHost(n.N) {
				x.Addr = append(x.Addr, net.JoinHostPort(h, strconv.Itoa(r.Port)))
			}
		}
		slices.Sort(x.Addr)
		out.Nodes = append(out.Nodes, x)
	}
	return out, nil
}

func stateOf(n node, s sight) string {
	switch {
	case n.Leaving:
		return "leaving"
	case s.Unit != keeper.Running || !s.Answers:
		return "away"
	case s.Loading:
		return "loading"
	case s.Syncing, s.Replica && !s.LinkUp:
		return "copying"
	}
	return "following"
}

// Secure says that a cache's servers speak TLS.
func (c *Cache) Secure(id tenfold.ID) bool {
	r, ok := c.get(id.String())
	return ok && r.Spec.TLS
}

// Hosts are all addresses that clients may reach a cache at.
func Hosts() []string {
	out := []string{primaryHost}
	for i := range maxReaders {
		out = append(out, readHost(i))
	}
	return out
}

// maxReaders is how many a manifest may ask for.
const maxReaders = 5
