package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tenfold"
)

// quietLimit bounds how long a switchover waits for the pool to have nothing under way.
const quietLimit = 500 * time.Millisecond

// Switchover makes a reader (0: the one that is least behind) the primary in order: nothing is lost, and
// with the pool nothing fails. It returns when the reader serves. CodeConflict when there is none that
// follows.
func (p *Postgres) Switchover(ctx context.Context, id tenfold.ID, to int) error {
	key := id.String()
	if _, err := p.served(id); err != nil {
		return err
	}
	best := 0
	if err := until(ctx, startLimit, func(ctx context.Context) (bool, error) {
		var loose bool
		var err error
		best, loose, err = p.successor(ctx, id, to)
		return best != 0 || !loose, err // one that was just copied is soon on disk
	}); err != nil {
		return err
	}
	if best == 0 {
		return tenfold.Errorf(tenfold.CodeConflict, "%s has no reader that follows and could take over", id.Short()).WithHint("write readers: 1 in its manifest, or see how they are: tenfold db nodes")
	}
	if err := p.records.Change(key, func(x *record) { x.Switch = best }); err != nil {
		return err
	}
	p.wake()
	return p.awaitSwitch(ctx, key, best)
}

// successor is the reader that is least behind, or the one that is asked for; 0: there is none. loose says that
// one follows whose data is not on disk yet.
func (p *Postgres) successor(ctx context.Context, id tenfold.ID, to int) (best int, loose bool, err error) {
	r, _ := p.get(id.String())
	lag, err := p.lag(ctx, r)
	if err != nil {
		return 0, false, tenfold.Errorf(tenfold.CodeUnavailable, "%s: its primary does not answer: %w", id.Short(), err).WithHint("a failover needs no asking: tenfold db nodes")
	}
	for _, n := range r.staying() {
		behind, ok := lag[n.N]
		if !ok || to != 0 && to != n.N {
			continue
		}
		loose = loose || n.Loose != ""
		if n.sound() && (best == 0 || behind < lag[best]) {
			best = n.N
		}
	}
	return best, loose, nil
}

func (p *Postgres) awaitSwitch(ctx context.Context, key string, to int) error {
	err := until(ctx, startLimit, func(ctx context.Context) (bool, error) {
		r, _ := p.get(key)
		switch {
		case r.Switch != 0:
			return false, nil
		case r.Primary != to:
			return false, tenfold.Errorf(tenfold.CodeFailed, "reader %d did not take over: node %d is the primary", to, r.Primary).WithHint("see why: tenfold events")
		}
		yes, err := p.recovering(ctx, r, to)
		return err == nil && !yes, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return tenfold.Errorf(tenfold.CodeFailed, "reader %d has not taken over after %s", to, startLimit).WithHint("it is tried on; see how it stands: tenfold db nodes")
	}
	return err
}

// Failover kills the primary as a crash would and returns when there is one again: another where a
// reader may take over, else the same. It is for rehearsals, and for a primary that is ill.
func (p *Postgres) Failover(ctx context.Context, id tenfold.ID) error {
	r, err := p.served(id)
	if err != nil {
		return err
	}
	killAll(p.dataOf(id, r.Primary))
	p.wake()
	gone := false
	err = until(ctx, startLimit, func(ctx context.Context) (bool, error) {
		now, _ := p.get(id.String())
		yes, err := p.recovering(ctx, now, now.Primary)
		gone = gone || err != nil || now.Epoch != r.Epoch
		return gone && err == nil && !yes, nil
	})
	if err != nil {
		return tenfold.Errorf(tenfold.CodeFailed, "%s has no primary: %w", id.Short(), err).WithHint("see how it stands: tenfold db nodes")
	}
	return nil
}

// served is the record of a database that has been started.
func (p *Postgres) served(id tenfold.ID) (record, error) {
	r, ok := p.get(id.String())
	if !ok {
		return r, tenfold.Errorf(tenfold.CodeNotFound, "no %s of %s", id.Short(), id.App).WithHint("list what there is: tenfold status")
	}
	if r.Serving == "" || r.Stopped {
		return r, tenfold.Errorf(tenfold.CodeUnavailable, "%s does not run", id.Short()).WithHint("tenfold up")
	}
	return r, nil
}

// demote ends the primary in order, which sends all its WAL to the readers first. Clients are held by
// the pool meanwhile; whoever is connected past it is cut off.
func (p *Postgres) demote(ctx context.Context, key string, r record) error {
	c, err := connect(ctx, r, "postgres")
	if err != nil {
		return err
	}
	_, err = c.Exec(ctx, "checkpoint") // so that the one at the end is short
	c.Close(context.WithoutCancel(ctx))
	if err != nil {
		return fmt.Errorf("prepare switchover: %w", err)
	}
	p.pause(key, true)
	until(ctx, quietLimit, func(context.Context) (bool, error) { return p.quiet(key), nil }) // bounded: a long transaction is cut
	return p.cfg.Units.Stop(ctx, unitOf(key, r.Primary))
}

// pause asks the pool to begin nothing on the database's servers, or to go on.
func (p *Postgres) pause(key string, on bool) {
	p.mu.Lock()
	changed := p.paused[key] != on
	p.paused[key] = on
	p.mu.Unlock()
	if changed {
		p.changed()
	}
}
