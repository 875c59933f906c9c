package edge

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"

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
	limits   limiters
	services map[serviceKey]*upstream.Service // set before the table comes into use
}

type site struct {
	directory.Site
	routes httproute.Table[*destination]
	rules  httproute.Table[directory.Rule]
	// What rules say of the cache and of limits, where they say anything: most sites do not.
	caching httproute.Table[*httpcache.Rule]
	limits  httproute.Table[*limiter]
}

// routeName tells a pattern of this site from the same one of another.
func (s *site) routeName(pattern string) string { return s.App + "/" + s.Env + " " + pattern }

// ruleFor is the cache's rule for a request to a destination.
func (s *site) ruleFor(to *destination, method, host, path string) *httpcache.Rule {
	if rule, _, ok := s.caching.Find(method, host, path); ok {
		return rule
	}
	return &to.rule
}

// destination is a route made ready: where it leads, how it is cached, what went along it.
type destination struct {
	directory.Route
	rule  httpcache.Rule
	count *routeCount
	log   *accessLog // nil: none
}

// newTable builds a table. Counts of routes are kept across tables.
func newTable(s directory.Snapshot, counts *traffic, before limiters, logs *accessLogs) (*table, error) {
	t := &table{snapshot: s, hosts: map[string]*site{}, redirect: map[string]string{}, console: map[string]bool{}, limits: limiters{}}
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
		for _, r := range x.Routes {
			to := &destination{Route: r, rule: httpcache.Rule{Route: st.routeName(r.Pattern), Release: mark}, count: counts.of(x.App, x.Env, r.Pattern), log: log}
			if err := st.routes.Add(r.Pattern, to); err != nil {
				return nil, err
			}
		}
		for _, r := range x.Rules {
			if err := st.addRule(r, mark, t.limits, before); err != nil {
				return nil, err
			}
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
	return t, nil
}

func (s *site) addRule(r directory.Rule, mark string, limits, before limiters) error {
	if err := s.rules.Add(r.Pattern, r); err != nil {
		return err
	}
	if c := r.Cache; c != nil {
		rule := &httpcache.Rule{
			Route: s.routeName(r.Pattern), Release: mark, Off: c.Off,
			FreshDefault: c.Default, FreshMin: c.Min, FreshMax: c.Max, StaleRevalidate: c.StaleRevalidate, StaleError: c.StaleError,
			Headers: c.Headers, Cookies: c.Cookies, Tags: c.Tags, OverridePrivate: c.OverridePrivate, OverrideNoStore: c.OverrideNoStore,
		}
		switch {
		case c.NoQuery:
			rule.Query = httpcache.QueryNone
		case len(c.Query) > 0:
			rule.Query, rule.Params = httpcache.QueryOnly, c.Query
		}
		if err := s.caching.Add(r.Pattern, rule); err != nil {
			return err
		}
	}
	if r.Limit != nil {
		return s.limits.Add(r.Pattern, limits.of(before, s.routeName(r.Pattern), r.Limit))
	}
	return nil
}

// edition changes with a site's routes and rules, so that nothing is answered from the cache in a way
// that the manifest no longer says.
func edition(s directory.Site) string {
	h := fnv.New64a()
	json.NewEncoder(h).Encode([]any{s.App, s.Env, s.Routes, s.Rules, s.Frontends})
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
