package cache

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"tenfold"
	"tenfold/internal/freeport"
	"tenfold/internal/keeper"
	"tenfold/internal/ledger"
)

// How servers are watched and restarted.
const (
	startLimit = 20 * time.Second
	answerPace = 10 * time.Millisecond
	guardPace  = 100 * time.Millisecond // PINGs to a primary that has readers
	lookPace   = time.Second            // all that is known of a cache that has readers
)

// Run pursues every record. It is woken by the keeper when a process ends.
func (c *Cache) Run(ctx context.Context, ready func()) error {
	var wg sync.WaitGroup
	wg.Go(func() { c.watch(ctx) })
	wg.Go(func() { c.copies.Run(ctx, func() {}) })
	err := c.pursuit.Run(ctx, ready)
	wg.Wait()
	c.mu.Lock()
	links := c.links
	c.links = map[place]*link{}
	c.mu.Unlock()
	for _, l := range links {
		l.mu.Lock()
		l.drop()
		l.mu.Unlock()
	}
	return err
}

// watch wakes the pursuit when a server's process begins or ends.
func (c *Cache) watch(ctx context.Context) {
	for ctx.Err() == nil {
		events, err := c.cfg.Units.Subscribe(ctx)
		if err == nil {
			for e := range events {
				if strings.HasPrefix(e.Status.Unit.ID, unitPrefix) && e.Status.Phase != keeper.Running {
					c.wake()
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(ledger.FirstPause):
		}
	}
}

// wake has every cache looked at now, all of it.
func (c *Cache) wake() {
	c.mu.Lock()
	clear(c.rested)
	c.mu.Unlock()
	c.pursuit.Wake()
}

// get is a record, with the cluster that one of an earlier version stands for.
func (c *Cache) get(key string) (record, bool) {
	r, ok := c.records.Get(key)
	return r.whole(), ok
}

// pursue brings one cache nearer to its goal.
func (c *Cache) pursue(ctx context.Context, key string) time.Duration {
	for range 50 {
		r, ok := c.get(key)
		switch {
		case !ok || ctx.Err() != nil:
			return 0
		case r.Stopped || c.orphaned(r):
			return c.stop(ctx, key, r)
		case r.Failed == r.Goal && r.Serving == "":
			return time.Minute
		case c.quiet(key) && c.heartbeat(ctx, key, r, r.Primary):
			return guardPace
		}
		r, err := c.identify(key, r)
		if err != nil {
			return c.tries.Pause(key)
		}
		v, err := c.see(ctx, key, r)
		if err != nil {
			return c.tries.Pause(key)
		}
		st := r.next(r.Spec, r.Serving != r.Goal && r.Failed != r.Goal, v)
		if st.Do == wait {
			return c.rest(key, r, v)
		}
		if err := c.act(ctx, key, r, v, st); err != nil {
			if ctx.Err() != nil {
				return 0
			}
			c.fail(key, r, st, err)
			return c.tries.Pause(key)
		}
	}
	return ledger.FirstPause
}

// quiet says that all was looked at lately and nothing was to be done.
func (c *Cache) quiet(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.rested[key]) < lookPace
}

// rest notes how the cache is and says when to look again.
func (c *Cache) rest(key string, r record, v view) time.Duration {
	p := v.Nodes[r.Primary]
	c.greet(key, r, v)
	c.expire(key, r, time.Now())
	c.scale(key, r, v, time.Now())
	c.mu.Lock()
	defer c.mu.Unlock()
	if !p.Answers || p.Loading {
		return guardPace
	}
	c.tries.Done(key)
	c.healthy[key] = time.Now()
	for n, s := range v.Nodes {
		if s.Answers {
			c.tries.Done(fmt.Sprint(key, "#", n))
		}
	}
	for _, n := range r.staying() {
		if !v.Nodes[n.N].LinkUp { // it is soon, or something is wrong
			return guardPace
		}
	}
	if len(r.Nodes) == 1 {
		return 0
	}
	c.rested[key] = time.Now()
	return guardPace
}

// greet says once of each start of a reader that it follows.
func (c *Cache) greet(key string, r record, v view) {
	for _, n := range r.readers() {
		s := v.Nodes[n.N]
		at := place{key, n.N}
		c.mu.Lock()
		known := c.greeted[at] == s.PID
		if s.LinkUp && !s.Syncing {
			c.greeted[at] = s.PID
		}
		c.mu.Unlock()
		if !known && s.LinkUp && !s.Syncing {
			c.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("reader %d follows", n.N), Took: time.Since(s.Started)})
		}
	}
}

// act takes one step.
func (c *Cache) act(ctx context.Context, key string, r record, v view, st step) error {
	switch st.Do {
	case boot:
		return c.begin(ctx, key, r, v, st)
	case follow:
		return c.follow(ctx, key, r, v, st.Node)
	case fence:
		c.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityWarning, Text: fmt.Sprintf("%s is killed: %s", roleOf(r, st.Node), st.Why)})
		if err := c.cfg.Units.Signal(ctx, unitOf(key, st.Node), 9); err != nil {
			return err
		}
		limit, cancel := context.WithTimeout(ctx, askLimit)
		defer cancel()
		_, err := c.cfg.Units.Wait(limit, unitOf(key, st.Node))
		return err
	case promote:
		return c.promote(ctx, key, r, v, st)
	case finish:
		return c.finish(ctx, key, r, v)
	case handover:
		return c.handover(ctx, key, r, v, st)
	case demote:
		return c.demote(ctx, key, r, st.Node)
	case cancel:
		c.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityWarning, Text: "switchover given up: " + st.Why, Hint: "see the servers: tenfold cache nodes"})
		return c.records.Change(key, func(x *record) { x.Switch = 0 })
	case restart:
		return c.restart(ctx, key, r, st.Node)
	case tune:
		return c.tune(ctx, key, r, st.Node, v.Nodes[st.Node].PID)
	case settle:
		return c.settle(key, r)
	case listen:
		return c.listen(ctx, r, v)
	case add:
		return c.records.Change(key, func(x *record) {
			x.cluster = x.whole().cluster
			x.Nodes = append(slices.Clone(x.Nodes), node{N: x.free()})
		})
	case dismiss:
		return c.records.Change(key, func(x *record) { x.edit(st.Node, func(n *node) { n.Leaving = true }) })
	case drop:
		return c.drop(ctx, key, r, v, st.Node)
	}
	return fmt.Errorf("no such step: %q", st.Do)
}

func roleOf(r record, n int) string {
	if n == r.Primary {
		return "the primary"
	}
	return fmt.Sprintf("reader %d", n)
}

// fail notes what trying again will not mend, and says the rest once.
func (c *Cache) fail(key string, r record, st step, err error) {
	if st.Node == r.Primary && r.Serving != r.Goal && definite(err) {
		c.records.Change(key, func(x *record) {
			if x.Goal == r.Goal {
				x.Failed, x.Reason, x.Hint = r.Goal, err.Error(), tenfold.HintOf(err)
			}
		})
		c.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityWarning, Text: "cache not started: " + err.Error()})
		return
	}
	c.say(key, r.ID, fmt.Sprintf("%s %s: %v", st.Do, roleOf(r, st.Node), err))
}

// say warns once of what is tried again and again.
func (c *Cache) say(at string, id tenfold.ID, text string) {
	if c.tries.News(at, text) && text != "" {
		c.cfg.Emit(tenfold.Event{ID: id, Severity: tenfold.SeverityWarning, Text: text})
	}
}

// failures are starts of a server in a row that came to nothing.
func (c *Cache) failures(p place) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed[p]
}

// stop ends every server of a cache, readers first: the primary's end is not to look like a failover.
func (c *Cache) stop(ctx context.Context, key string, r record) time.Duration {
	units, err := c.status(ctx, key)
	if err != nil {
		return time.Second
	}
	c.mu.Lock()
	delete(c.healthy, key)
	delete(c.rested, key)
	delete(c.seen, key)
	c.mu.Unlock()
	var order []int
	for n := range units {
		if n != r.Primary {
			order = append(order, n)
		}
	}
	for _, n := range append(order, r.Primary) {
		if err := c.cfg.Units.Remove(ctx, unitOf(key, n)); err != nil {
			return time.Second
		}
		c.unlink(key, n)
	}
	return time.Minute
}

// orphaned says that a restored cache's origin is stopped: it stops with it.
func (c *Cache) orphaned(r record) bool {
	if r.Of == "" {
		return false
	}
	of, ok := c.records.Get(r.Of)
	return !ok || of.Stopped
}

// identify gives a record its port and passwords, once.
func (c *Cache) identify(key string, r record) (record, error) {
	if r.Port != 0 {
		return r, nil
	}
	port, err := freeport.Pick()
	if err != nil {
		return r, err
	}
	err = c.records.Change(key, func(x *record) {
		x.Port, x.Admin, x.Password, x.cluster = port, password(), password(), x.whole().cluster
	})
	if err != nil {
		return r, err
	}
	fresh, _ := c.get(key)
	fresh.Goal, fresh.Spec = r.Goal, r.Spec // what this round pursues
	return fresh, nil
}
