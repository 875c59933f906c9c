package postgres

import (
	"context"
	"fmt"
	"time"

	"tenfold"
)

// Restarts in order: clients of the pool are held, the server ends and comes back by its new settings or as its
// new version. The pursuit of the database does it: whoever else ended its server would look like a crash.

// restartAsked is one that somebody waits for.
type restartAsked struct {
	why  string
	done chan restarted // has room for one
}

type restarted struct {
	held time.Duration
	err  error
}

// restart has the primary restarted and returns when it serves again. held is how long clients were.
func (p *Postgres) restart(ctx context.Context, key, why string) (held time.Duration, err error) {
	q := restartAsked{why, make(chan restarted, 1)}
	p.mu.Lock()
	p.restarts[key] = append(p.restarts[key], q)
	p.mu.Unlock()
	p.wake()
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case d := <-q.done:
		return d.held, d.err
	}
}

// asked takes the restarts that are waited for.
func (p *Postgres) asked(key string) []restartAsked {
	p.mu.Lock()
	defer p.mu.Unlock()
	qs := p.restarts[key]
	delete(p.restarts, key)
	return qs
}

// restartNow does it. Called by the pursuit alone.
func (p *Postgres) restartNow(ctx context.Context, key string, r record, why string) (held time.Duration, err error) {
	e, err := p.engine(ctx, r)
	if err != nil {
		return 0, err
	}
	if r.Logical != r.Upgrade.alive() {
		r.Logical = r.Upgrade.alive()
		if err := p.records.Change(key, func(x *record) { x.Logical = r.Logical }); err != nil {
			return 0, err
		}
	}
	if _, err := p.configure(r, r.Primary); err != nil {
		return 0, err
	}
	if err := p.proveSettings(ctx, e, r, r.Primary); err != nil {
		return 0, err
	}
	checkpoint(ctx, p, r)
	checkpoint(ctx, p, r) // of what was written during the first, which may have taken long
	at := time.Now()
	p.pause(key, true)
	defer p.pause(key, false)
	until(ctx, quietLimit, func(context.Context) (bool, error) { return p.quiet(key), nil }) // bounded: a long transaction is cut
	if err := p.cfg.Units.Remove(ctx, unitOf(key, r.Primary)); err != nil {
		return 0, err
	}
	if err := p.begin(ctx, key, r, ""); err != nil {
		return 0, err
	}
	if _, err := p.see(ctx, key, r); err != nil { // the pool is told
		return 0, err
	}
	held = time.Since(at)
	p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("restarted for %s: clients were held for %d ms", why, held.Milliseconds()), Took: held})
	return held, nil
}

// checkpoint makes what comes after it short. What fails here fails there.
func checkpoint(ctx context.Context, p *Postgres, r record) {
	if c, err := connect(ctx, r, "postgres"); err == nil {
		c.Exec(ctx, "checkpoint")
		c.Close(context.WithoutCancel(ctx))
	}
}
