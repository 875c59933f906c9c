package postgres

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"tenfold/internal/keeper"
	"tenfold/internal/pooldir"
)

// What holds of a pool where the manifest says nothing.
const (
	poolSize = 20
	poolWait = 5 * time.Second
	poolHold = 30 * time.Second
)

// Pool is what the pooling proxy routes by. Users has the app's own role. A database without a server
// that takes writes now, in a failover say, has no Primary: its clients are held.
func (p *Postgres) Pool() []pooldir.Database {
	out := []pooldir.Database{}
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, stored := range p.records.All() {
		r := stored.whole()
		if r.Stopped || r.Serving == "" || r.Spec.Proxy.Off {
			continue
		}
		d := pooldir.Database{
			ID: key, Name: role(r.ID), Port: r.Pool, Epoch: r.Epoch, Paused: p.paused[key], Suspended: r.Suspended,
			Pool: cmp.Or(r.Spec.Proxy.Pool, poolSize), Wait: cmp.Or(r.Spec.Proxy.Wait, poolWait), Hold: cmp.Or(r.Spec.Proxy.Hold, poolHold),
			Split: r.Spec.Proxy.Split, Cache: r.Spec.Proxy.Cache, CacheFor: r.Spec.Proxy.CacheFor, MD5: r.Spec.Proxy.MD5,
			Users:        []pooldir.User{{Name: role(r.ID), Password: r.Password, Limit: r.Spec.Proxy.UserLimit}},
			ServiceLimit: r.Spec.Proxy.ServiceLimit,
		}
		if r.Spec.API {
			d.API = &pooldir.API{Database: d.Name} // who may ask is the daemon's to say
		}
		// Before this daemon has had a look the record holds: the database runs on while a daemon is replaced,
		// and its clients are not to be held for that.
		v, looked := p.seen[key]
		if s := v.Nodes[r.Primary]; !looked || s.Answers && !s.Recovery && s.Unit == keeper.Running {
			d.Primary = address(r.port())
		}
		for _, n := range r.Nodes {
			if dir := p.socketsOf(r.ID, n.N); dir != "" {
				if d.Sockets == nil {
					d.Sockets = map[string]string{}
				}
				d.Sockets[address(n.Port)] = socketOf(dir, n.Port)
			}
		}
		for _, n := range r.readers() {
			s := v.Nodes[n.N]
			if n.Stage == stageReady && s.Answers && s.Recovery {
				d.Readers = append(d.Readers, pooldir.Reader{Addr: address(n.Port), Draining: n.Leaving})
			}
		}
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b pooldir.Database) int { return strings.Compare(a.ID, b.ID) })
	return out
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// Changed is closed at the next change of what Pool says.
func (p *Postgres) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.change
}

// changed tells whoever waits that Pool says something new.
func (p *Postgres) changed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.change)
	p.change = make(chan struct{})
}

// quiet says that nothing is under way on a database's servers, as far as the pool knows. Without a pool
// nobody does, and a switchover does not wait.
func (p *Postgres) quiet(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.report.Databases[key]
	return !ok || time.Since(p.reported) > reportAge || s.Quiet
}

// note is what status says of a cluster's readers.
func (p *Postgres) note(key string, r record) string {
	if len(r.Nodes) < 2 {
		return p.waits(r)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.seen[key]
	follow := 0
	for _, n := range r.staying() {
		if v.Nodes[n.N].Streaming {
			follow++
		}
	}
	out := ", " + strconv.Itoa(follow) + " of " + strconv.Itoa(len(r.staying())) + " readers follow"
	if r.Spec.Sync != "" && !r.Armed {
		out += ", commits not yet on two nodes"
	}
	return out + p.waits(r)
}
