package edge

import (
	"net"
	"net/http"
	"strings"

	"tenfold/internal/directory"
	"tenfold/internal/httproute"
)

// table is a snapshot made ready to route by. It never changes; a new snapshot is a new table.
type table struct {
	snapshot directory.Snapshot
	hosts    map[string]*site
	sites    map[[2]string]*site // by app and environment
	redirect map[string]string   // host -> canonical host
	fallback *site               // for localhost
	console  map[string]bool
	changed  chan struct{} // closed when another table took this one's place
}

type site struct {
	directory.Site
	routes httproute.Table[directory.Route]
	rules  httproute.Table[directory.Rule]
	pools  map[string]*pool
}

// pool is a service's tasks.
type pool struct {
	directory.Service
	endpoints []*endpoint // that take new requests
	all       []*endpoint // as in Service.Endpoints
}

// newTable builds a table; endpoints keep their counts across tables.
func newTable(s directory.Snapshot, endpoint func(directory.Endpoint) *endpoint) (*table, error) {
	t := &table{snapshot: s, hosts: map[string]*site{}, sites: map[[2]string]*site{}, redirect: map[string]string{}, console: map[string]bool{}, changed: make(chan struct{})}
	for _, h := range s.ConsoleHosts {
		t.console[h] = true
	}
	for _, x := range s.Sites {
		st := &site{Site: x, pools: map[string]*pool{}}
		for _, r := range x.Routes {
			if err := st.routes.Add(r.Pattern, r); err != nil {
				return nil, err
			}
		}
		for _, r := range x.Rules {
			if err := st.rules.Add(r.Pattern, r); err != nil {
				return nil, err
			}
		}
		for _, sv := range x.Services {
			p := &pool{Service: sv}
			for _, e := range sv.Endpoints {
				ep := endpoint(e)
				p.all = append(p.all, ep)
				if !e.Draining {
					p.endpoints = append(p.endpoints, ep)
				}
			}
			st.pools[sv.Name] = p
		}
		t.sites[[2]string{x.App, x.Env}] = st
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

// mark tells the tasks whether they drain, once the table is in use.
func (t *table) mark() {
	for _, s := range t.sites {
		for _, p := range s.pools {
			for i, ep := range p.all {
				ep.draining.Store(p.Endpoints[i].Draining)
			}
		}
	}
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

// pool finds the tasks of a service in the current table.
func (t *table) pool(app, env, service string) *pool {
	if s, ok := t.sites[[2]string{app, env}]; ok {
		return s.pools[service]
	}
	return nil
}

func hostOf(r *http.Request) string {
	h := r.Host
	if name, _, err := net.SplitHostPort(h); err == nil {
		h = name
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(h, "[]"), "."))
}
