package pgproxy

import (
	"cmp"
	"maps"
	"slices"

	"tenfold/internal/pooldir"
)

// View is what was seen of each database, by ID.
func (p *Proxy) View() map[string]pooldir.View {
	out := map[string]pooldir.View{}
	p.each(func(id string, l *loop) { out[id] = l.view() })
	return out
}

func (l *loop) view() pooldir.View {
	v := pooldir.View{Groups: l.groups(), Statements: l.seen.all(), Slow: l.slow.all(), Retried: l.stats.Retried, TimedOut: l.stats.TimedOut, Cache: l.cacheView()}
	v.Pins = l.pinsSeen(v.Statements)
	return v
}

// all are the statements, those that took most time first.
func (n *seen) all() []pooldir.Statement {
	var out []pooldir.Statement
	take := func(c *counts) {
		s := c.Statement
		s.Errors, s.Pins = maps.Clone(s.Errors), maps.Clone(s.Pins)
		out = append(out, s)
	}
	for _, c := range n.byText {
		take(c)
	}
	if n.other.Calls > 0 {
		take(&n.other)
	}
	slices.SortFunc(out, func(a, b pooldir.Statement) int {
		return cmp.Or(cmp.Compare(b.Executed, a.Executed), cmp.Compare(a.Fingerprint, b.Fingerprint))
	})
	return out
}

// groups are the pools by user and role.
func (l *loop) groups() []pooldir.Group {
	byPool := map[*pool]*pooldir.Group{}
	for p := range l.pools() {
		g := &pooldir.Group{User: p.account.user.Name, Readers: p.reader, Servers: len(p.all), AtOnce: p.n, Waiting: p.waiting.size + p.held.size}
		for _, c := range []*client{p.waiting.oldest(), p.held.first} {
			if c != nil {
				g.Oldest = max(g.Oldest, l.now.Sub(c.since))
			}
		}
		byPool[p] = g
	}
	for _, x := range l.conns {
		c := x.client
		if c == nil || c.phase != phaseReady || c.admin {
			continue
		}
		if g := byPool[c.pool]; g != nil {
			g.Clients++
			if c.server != nil {
				g.Busy++
			}
			if c.pins != 0 {
				g.Pinned++
			}
		}
	}
	var out []pooldir.Group
	for _, g := range byPool {
		out = append(out, *g)
	}
	slices.SortFunc(out, func(a, b pooldir.Group) int {
		return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(role(a), role(b)))
	})
	return out
}

// role is where a group's connections go, as it is shown.
func role(g pooldir.Group) string {
	if g.Readers {
		return "readers"
	}
	return "primary"
}

// pinsSeen are the reasons of pins by statement, most first.
func (l *loop) pinsSeen(of []pooldir.Statement) []pooldir.Pin {
	type key struct{ reason, fingerprint string }
	now := map[key]int{}
	for _, x := range l.conns {
		if x.client == nil {
			continue
		}
		for _, k := range x.client.causes {
			if k.held && k.traits&x.client.pins != 0 {
				now[key{pinReason(k.traits), k.seen.Fingerprint}]++
			}
		}
	}
	var out []pooldir.Pin
	for _, s := range of {
		for reason, n := range s.Pins {
			out = append(out, pooldir.Pin{Reason: reason, Fingerprint: s.Fingerprint, Query: s.Query, Total: n, Now: now[key{reason, s.Fingerprint}]})
		}
	}
	slices.SortFunc(out, func(a, b pooldir.Pin) int {
		return cmp.Or(cmp.Compare(b.Now, a.Now), cmp.Compare(b.Total, a.Total), cmp.Compare(a.Reason+a.Fingerprint, b.Reason+b.Fingerprint))
	})
	return out
}
