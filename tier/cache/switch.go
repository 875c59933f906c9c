package cache

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"tenfold"
)

// Failover kills the primary as a crash would and returns when there is one again: another where a reader may
// take over, else the same. It is for rehearsals, and for a primary that is ill.
func (c *Cache) Failover(ctx context.Context, id tenfold.ID) error {
	key := id.String()
	r, err := c.served(id)
	if err != nil {
		return err
	}
	before, err := c.status(ctx, key)
	if err != nil {
		return err
	}
	pid := before[r.Primary].PID
	if err := c.cfg.Units.Signal(ctx, unitOf(key, r.Primary), int(syscall.SIGKILL)); err != nil {
		return tenfold.Errorf(tenfold.CodeUnavailable, "%s: %w", id.Short(), err).WithHint("see its servers: tenfold cache nodes")
	}
	c.wake()
	return c.until(ctx, id, func() bool {
		now, _ := c.get(key)
		if now.Epoch != r.Epoch {
			return c.leads(ctx, now)
		}
		all, err := c.status(ctx, key)
		return err == nil && all[now.Primary].PID != pid && c.leads(ctx, now)
	})
}

// Switchover makes a reader (0: the one that is least behind) the primary in order: writes are held meanwhile
// and none is lost. CodeConflict when there is none that follows.
func (c *Cache) Switchover(ctx context.Context, id tenfold.ID, to int) error {
	key := id.String()
	r, err := c.served(id)
	if err != nil {
		return err
	}
	c.mu.Lock()
	v := c.seen[key]
	c.mu.Unlock()
	best := 0
	for _, n := range r.staying() {
		x := v.Nodes[n.N]
		if (to == 0 || to == n.N) && x.full() && x.LinkUp && (best == 0 || x.Offset > v.Nodes[best].Offset) {
			best = n.N
		}
	}
	if best == 0 {
		return tenfold.Errorf(tenfold.CodeConflict, "%s has no reader that follows and could take over", id.Short()).WithHint("write readers: 1 in its manifest, or see how they are: tenfold cache nodes")
	}
	if err := c.records.Change(key, func(x *record) { x.Switch = best }); err != nil {
		return err
	}
	c.wake()
	given := false
	err = c.until(ctx, id, func() bool {
		now, _ := c.get(key)
		given = now.Switch == 0 && now.Primary != best
		return given || now.Primary == best && c.leads(ctx, now)
	})
	if given {
		return tenfold.Errorf(tenfold.CodeConflict, "%s: reader %d could not take over", id.Short(), best).WithHint("see why: tenfold events, tenfold cache nodes")
	}
	return err
}

// leads says that the primary of a record answers at the primary's address.
func (c *Cache) leads(ctx context.Context, r record) bool {
	s := sight{Started: time.Now()}
	c.look(ctx, r.ID.String(), r, r.Primary, &s, pingLimit)
	for _, h := range s.Bind {
		if h == primaryHost {
			return s.Answers && !s.Replica && !s.Loading
		}
	}
	return false
}

// until asks until something is so, for as long as a start may take.
func (c *Cache) until(ctx context.Context, id tenfold.ID, ok func() bool) error {
	for begun := time.Now(); !ok(); {
		if time.Since(begun) > startLimit {
			return tenfold.Errorf(tenfold.CodeFailed, "%s has no primary after %s", id.Short(), startLimit).WithHint("it is tried on; see how it stands: tenfold cache nodes")
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for a primary: %w", ctx.Err())
		case <-time.After(answerPace):
		}
	}
	return nil
}
