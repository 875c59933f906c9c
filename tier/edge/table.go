package edge

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"tenfold/internal/directory"
	"tenfold/internal/httproute"
	"tenfold/tier/edge/httpcache"
	"tenfold/tier/edge/upstream"
)

// table is a snapshot made ready to route by. It never changes; a new snapshot is a new table.
type table struct {
	snapshot directory.Snapshot
	hosts    map[string]*site
	redirect map[string]string // host -> canonical host
	fallback *site             // for localhost
	console  map[string]bool
	trust    []netip.Prefix
	limits   limiters
	// candidates are what is tried out, by the address where it answers.
	candidates map[string]*candidate
	services   map[serviceKey]*upstream.Service // set by lead, before the table comes into use
	functions  map[serviceKey]called            // those of services that are functions
	ways       []way
}

type site struct {
	directory.Site
	routes httproute.Table[*destination]
	rules  httproute.Table[*rule]
	// careful has the rules that are not plain: what they cover is never answered from the loop.
	careful httproute.Table[*rule]
	// altering has those that change a request on its way or its answer, or how the way is gone.
	altering httproute.Table[*rule]
	caching  httproute.Table[*httpcache.Rule] // of rules, for the loop: a whole decision costs too much there
	missing  *accessLog                       // of requests that no route takes
	// pins are the routes along which calls reach the deployment that made the page, and versions by
	// service who answers them.
	pins     httproute.Table[struct{}]
	pinning  bool
	versions map[string]versions
	// released holds copies of rules, by rule and release (see pinned).
	released sync.Map
}

// name tells a site from others.
func (s *site) name() string { return s.App + "/" + s.Env }

// routeName tells a pattern of this site from the same one of another.
func (s *site) routeName(pattern string) string { return s.App + "/" + s.Env + " " + pattern }

// destination is a route made ready: where it leads, how it is cached, what went along it.
type destination struct {
	directory.Route
	rule  httpcache.Rule
	count *routeCount
	log   *accessLog // nil: none
	table *table
	way   *upstream.Service // of a route to a service that is no function; set before the table comes into use
}

// newTable builds a table. Counts of routes are kept across tables.
func newTable(s directory.Snapshot, counts *traffic, before limiters, logs *accessLogs) (*table, error) {
	t := &table{snapshot: s, hosts: map[string]*site{}, redirect: map[string]string{}, console: map[string]bool{}, limits: limiters{}, candidates: map[string]*candidate{}, functions: map[serviceKey]called{}}
	var err error
	if t.trust, err = prefixes(s.Trust); err != nil {
		return nil, err
	}
	for _, h := range s.ConsoleHosts {
		t.console[h] = true
	}
	for _, x := range s.Sites {
		st := &site{Site: x}
		mark := edition(x)
		log, err := logs.of(x)
		if err != nil {
			return nil, fmt.Errorf("open access log: %w", err)
		}
		st.missing = log
		for _, f := range x.Services {
			if f.Function != "" {
				t.functions[serviceKey{x.App, x.Env, f.Name}] = called{id: f.Function, pass: f.Pass}
			}
			if f.Bucket != "" {
				t.functions[serviceKey{x.App, x.Env, f.Name}] = called{id: f.Bucket, bucket: true}
			}
		}
		for _, r := range x.Routes {
			to := &destination{Route: r, rule: httpcache.Rule{Route: st.routeName(r.Pattern), Release: mark, Scope: st.name()}, count: counts.of(x.App, x.Env, r.Pattern), log: log, table: t}
			key := serviceKey{x.App, x.Env, r.Service}
			if _, function := t.functions[key]; r.Service != "" && r.Frontend == "" && !function {
				t.ways = append(t.ways, way{to, key})
			}
			if err := st.routes.Add(r.Pattern, to); err != nil {
				return nil, err
			}
		}
		for _, r := range x.Rules {
			if err := st.addRule(r, mark, t.limits, before); err != nil {
				return nil, err
			}
		}
		if err := st.pin(); err != nil {
			return nil, err
		}
		for _, h := range x.Hosts {
			t.hosts[h] = st
		}
		for from, to := range x.Redirect {
			t.redirect[from] = to
		}
		if x.Default {
			t.fallback = st
		}
	}
	for _, c := range s.Candidates {
		if err := t.addCandidate(c); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *table) addCandidate(c directory.Candidate) error {
	st := &site{Site: c.Site}
	for _, r := range c.Site.Routes {
		if err := st.routes.Add(r.Pattern, &destination{Route: r, rule: uncached}); err != nil {
			return err
		}
	}
	for _, r := range c.Site.Rules {
		r.Limit, r.Cache, r.Auth = nil, nil, nil // whoever tries it out may
		if err := st.addRule(r, "", nil, nil); err != nil {
			return err
		}
	}
	t.candidates[c.Addr] = &candidate{c, st}
	return nil
}

func (s *site) addRule(of directory.Rule, mark string, limits, before limiters) error {
	r := &rule{Rule: of}
	if c := of.Cache; c != nil {
		r.caching = &httpcache.Rule{
			Route: s.routeName(of.Pattern), Release: mark, Scope: s.name(), Off: c.Off,
			FreshDefault: c.Default, FreshMin: c.Min, FreshMax: c.Max, StaleRevalidate: c.StaleRevalidate, StaleError: c.StaleError,
			Headers: c.Headers, Cookies: c.Cookies, Tags: c.Tags, OverridePrivate: c.OverridePrivate, OverrideNoStore: c.OverrideNoStore,
		}
		switch {
		case c.NoQuery:
			r.caching.Query = httpcache.QueryNone
		case len(c.Query) > 0:
			r.caching.Query, r.caching.Params = httpcache.QueryOnly, c.Query
		}
	}
	if of.Limit != nil {
		r.limiter = limits.of(before, s.routeName(of.Pattern), of.Limit)
	}
	var err error
	if r.guard, err = newGuard(of.Auth); err != nil {
		return fmt.Errorf("rule %s: %w", of.Pattern, err)
	}
	if r.caching != nil {
		if err := s.caching.Add(of.Pattern, r.caching); err != nil {
			return err
		}
	}
	if !r.plain() {
		if err := s.careful.Add(of.Pattern, r); err != nil {
			return err
		}
	}
	if len(of.Headers)+len(of.Request) > 0 || of.Timeout > 0 || of.Hedge > 0 {
		if err := s.altering.Add(of.Pattern, r); err != nil {
			return err
		}
	}
	return s.rules.Add(of.Pattern, r)
}

// lead gives the routes their ways.
func (t *table) lead(ways map[serviceKey]*upstream.Service) {
	t.services = ways
	for _, to := range t.ways {
		to.to.way = ways[to.key]
	}
}

// way is a route that leads to a service.
type way struct {
	to  *destination
	key serviceKey
}

// edition changes with a site's routes and rules, so that nothing is answered from the cache in a way
// that the manifest no longer says.
func edition(s directory.Site) string {
	h := fnv.New64a()
	json.NewEncoder(h).Encode([]any{s.App, s.Env, s.Routes, s.Rules, s.Frontends, s.HSTS, s.Errors})
	return strconv.FormatUint(h.Sum64(), 36)
}

// find gives the site for a host name without port.
func (t *table) find(host string) *site {
	if s, ok := t.hosts[host]; ok {
		return s
	}
	if host == "localhost" || host == "::1" || strings.HasPrefix(host, "127.") {
		return t.fallback
	}
	return nil
}
