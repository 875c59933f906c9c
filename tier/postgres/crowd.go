package postgres

import (
	"fmt"
	"time"

	"tenfold"
)

// How many readers there are, within the bounds of the manifest, by how busy the pool finds them: a reader
// more is a copy of the data to make, so it comes when they have been busy for a while, and goes when
// one less would have been enough for long.
const (
	crowded    = 0.7 // of a reader's connections in use
	crowdedFor = 30 * time.Second
	spareFor   = 10 * time.Minute
)

// crowd is what the count of readers is moved by. Zero at first.
type crowd struct {
	busy  time.Time // since when they are crowded; zero: they are not
	spare time.Time // since when one less would do; zero: it would not
}

// next is the count after a look: busy connections on all readers, of pool each. least and most are the
// bounds.
func (c crowd) next(now time.Time, have, busy, pool, least, most int) (int, crowd) {
	room := func(n int) float64 { return float64(n*pool) * crowded }
	// With none, reads are on the primary, which the pool counts apart: one comes when that is crowded.
	full := float64(busy) >= max(room(have), room(1))
	spare := have > 0 && float64(busy) < 0.6*room(have-1) || have == 1 && busy == 0
	switch {
	case full && c.busy.IsZero():
		c.busy = now
	case !full:
		c.busy = time.Time{}
	}
	switch {
	case spare && c.spare.IsZero():
		c.spare = now
	case !spare:
		c.spare = time.Time{}
	}
	want := have
	switch {
	case full && now.Sub(c.busy) >= crowdedFor:
		want, c = have+1, crowd{}
	case spare && now.Sub(c.spare) >= spareFor:
		want, c = have-1, crowd{}
	}
	return min(max(want, least), most), c
}

// gather moves how many readers a database has by what the pool reports.
func (p *Postgres) gather(key string, r record) {
	b := r.timed().Readers
	if b.Min == b.Max || r.Switch != 0 {
		return
	}
	p.mu.Lock()
	s, ok := p.report.Databases[key]
	fresh := ok && time.Since(p.reported) < reportAge
	c := p.crowds[key]
	p.mu.Unlock()
	if !fresh {
		return
	}
	pool := r.Spec.Proxy.Pool
	if pool == 0 {
		pool = poolSize
	}
	have, busy := len(r.staying()), 0
	for _, n := range r.Nodes {
		if n.N != r.Primary || have == 0 {
			busy += s.Busy[address(n.Port)]
		}
	}
	want, c := c.next(time.Now(), have, busy, pool, b.Min, b.Max)
	p.mu.Lock()
	p.crowds[key] = c
	p.mu.Unlock()
	if want == have {
		return
	}
	if p.records.Change(key, func(x *record) { x.Readers = want }) == nil {
		p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("readers %d → %d: %d connections busy, %d a reader", have, want, busy, pool)})
	}
}
