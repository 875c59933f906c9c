package postgres

import (
	"time"

	"tenfold"
	"tenfold/internal/pooldir"
)

// reportAge is how old the pool's report may be to be believed: without a pool nobody knows who waits,
// and a database that sleeps is not woken.
const reportAge = 5 * time.Second

// Report takes in what the pool says of how databases are used, and wakes those that a client waits for.
func (p *Postgres) Report(r pooldir.Report) {
	p.mu.Lock()
	p.report, p.reported = r, time.Now()
	p.mu.Unlock()
	for key, s := range r.Databases {
		if rec, ok := p.records.Get(key); ok && rec.Suspended && (s.Wake || s.Waiting > 0) {
			// The client waits, and the disk may be slow: after a crash that forgets it the database sleeps on.
			p.records.Soon(key, func(x *record) { x.Suspended = false })
			p.wake()
		}
	}
}

// idle says that a database may be suspended: it may go down to nothing, and nobody has asked anything
// of it for long.
func (p *Postgres) idle(key string, r record, now time.Time) bool {
	if c := r.Spec.Capacity; c.Max == 0 || c.Min > 0 || r.Spec.Suspend == 0 || r.Suspended || r.Switch != 0 || r.Upgrade != nil && r.Upgrade.Stage != upgradeClosed && r.Upgrade.Stage != upgradeEnded {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.report.Databases[key]
	if !ok || now.Sub(p.reported) > reportAge || s.Waiting > 0 || s.Wake || p.healthy[key].IsZero() {
		return false
	}
	for _, n := range s.Busy {
		if n > 0 {
			return false
		}
	}
	last := s.Last
	if last.Before(p.began) { // never asked since this daemon began
		last = p.began
	}
	return now.Sub(last) >= r.Spec.Suspend
}

// suspend notes that a database sleeps; its servers end with the next look at it.
func (p *Postgres) suspend(key string, r record) error {
	if err := p.records.Change(key, func(x *record) { x.Suspended = true }); err != nil {
		return err
	}
	p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: "suspended after " + r.Spec.Suspend.String() + " without a question; the first connection wakes it"})
	p.changed()
	return nil
}
