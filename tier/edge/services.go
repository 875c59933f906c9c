package edge

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"

	"tenfold/internal/directory"
	"tenfold/tier/edge/httpcache"
	"tenfold/tier/edge/upstream"
)

// serviceKey names a service across apps.
type serviceKey struct{ app, env, name string }

// services are the ways to the tasks of every service that a snapshot names, kept across snapshots
// with what they know of their tasks. Under Door.mu, but for find, which reads the table.
type services struct {
	ways map[serviceKey]*upstream.Service
	ends map[serviceKey]context.CancelFunc // of Run, once the door runs
}

// update makes the ways of a snapshot, tells each its tasks, and lets go of those that are named no
// more. A task that drains gets nothing new once update has returned.
func (d *Door) update(s directory.Snapshot, trust []netip.Prefix) map[serviceKey]*upstream.Service {
	named := map[serviceKey]*upstream.Service{}
	for _, site := range s.Sites {
		for _, sv := range site.Services {
			parts := byBuild(sv.Endpoints)
			if len(sv.Endpoints) == 0 {
				// All ended at once: whoever waits for a build's tasks goes on waiting.
				for key := range d.services.ways {
					if build, ok := strings.CutPrefix(key.name, sv.Name+"@"); ok && key.app == site.App && key.env == site.Env {
						parts[build] = nil
					}
				}
			}
			for build, eps := range parts {
				key := serviceKey{site.App, site.Env, sv.Name}
				if build != "" {
					key.name += "@" + build
				}
				named[key] = d.updateWay(key, sv, eps, trust)
			}
			for release, eps := range byApart(sv.Endpoints) {
				key := serviceKey{site.App, site.Env, apartName(sv.Name, release)}
				named[key] = d.updateWay(key, sv, eps, trust)
			}
		}
	}
	for key, way := range d.services.ways {
		if named[key] != nil {
			continue
		}
		way.Update(nil, "it is not deployed")
		if busy(way) == 0 {
			if end := d.services.ends[key]; end != nil {
				end()
			}
			way.Close()
			delete(d.services.ways, key)
			delete(d.services.ends, key)
		}
	}
	return named
}

// updateWay makes the way to some tasks of a service, or tells it how they are now.
func (d *Door) updateWay(key serviceKey, sv directory.Service, eps []directory.Endpoint, trust []netip.Prefix) *upstream.Service {
	way, ok := d.services.ways[key]
	if !ok {
		fail := failing(sv.Name)
		if isApart(key) {
			fail = d.orCurrent(serviceKey{key.app, key.env, sv.Name}, fail)
		}
		way = upstream.NewService(upstream.Config{Name: sv.Name, Fail: fail, Waits: d.somebodyWaits})
		d.services.ways[key] = way
		d.begin(key, way)
	}
	policy := upstream.Policy{Timeout: sv.Request, Idle: sv.Idle, Sticky: sv.Sticky, Hold: sv.Hold, Trust: trust}
	apart := isApart(key)
	if apart {
		policy.Hold, policy.SlowStart = -1, -1 // the current version answers then; these tasks are warm
	}
	way.SetPolicy(policy)
	tasks := make([]upstream.Endpoint, len(eps))
	for i, e := range eps {
		tasks[i] = upstream.Endpoint{
			ID: e.ID, Addr: e.Addr, Release: e.Release, Weight: cmp.Or(e.Weight, 1), Leased: e.Leased,
			Draining: e.Draining || e.Apart && !apart,
		}
	}
	way.Update(tasks, sv.Down)
	return way
}

func busy(way *upstream.Service) (n int64) {
	for _, c := range way.Counts() {
		n += c.InFlight
	}
	return n + int64(way.Held())
}

// begin runs what a way needs a clock for, as long as the door runs. Under d.mu.
func (d *Door) begin(key serviceKey, way *upstream.Service) {
	if d.life == nil {
		return
	}
	ctx, end := context.WithCancel(d.life)
	d.services.ends[key] = end
	d.background.Go(func() { way.Run(ctx) })
}

// failing answers what no task did with a page that says which service it was.
func failing(service string) func(http.ResponseWriter, *http.Request, error) {
	return func(w http.ResponseWriter, r *http.Request, err error) {
		var body *upstream.BadBody
		var bad *upstream.BadRequest
		if !errors.As(err, &body) && !errors.As(err, &bad) && !errors.Is(err, upstream.ErrClientGone) {
			httpcache.Unreachable(r) // something older may do instead
		}
		failed(service, err).show(w, r)
	}
}

// toService carries a request to a service of the table in use, with what its route overrides.
func (d *Door) toService(w http.ResponseWriter, r *http.Request, key serviceKey, route upstream.Route) {
	way := d.current.Load().services[key]
	if way == nil {
		failing(key.name)(w, r, &upstream.Down{Service: key.name, Why: "it is not deployed"})
		return
	}
	way.Serve(w, r, route)
}
