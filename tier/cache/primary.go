package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gomodule/redigo/redis"

	"tenfold"
)

// handLimit bounds how long writes are held in a handover.
const handLimit = 2 * time.Second

// begin starts the primary's server where it is.
func (c *Cache) begin(ctx context.Context, key string, r record, v view, st step) error {
	begun := time.Now()
	p := v.Nodes[r.Primary]
	if r.Serving != r.Goal {
		if err := c.fits(key, r, c.memory()); err != nil {
			return err
		}
	}
	e, err := c.engine(ctx, r.Spec)
	if err != nil {
		return err
	}
	version := map[string]string{"valkey": "Valkey", "redis": "Redis", memcached: "Memcached"}[e.Name] + " " + e.Version
	if err := c.records.Change(key, func(x *record) {
		x.Version, x.cluster = version, x.whole().cluster
		if x.Admin == "" {
			x.Admin = password()
		}
	}); err != nil {
		return err
	}
	fresh, _ := c.get(key)
	fresh.Goal, fresh.Spec = r.Goal, r.Spec
	at := place{key, r.Primary}
	c.count(at, 1)
	if p.Exit != "" && !p.Asked { // what lies there is of long ago
		if err := c.forget(fresh, r.Primary); err != nil {
			return err
		}
	}
	if err := c.launch(ctx, key, fresh, r.Primary, e); err != nil {
		return err
	}
	if err := c.await(ctx, key, fresh, r.Primary); err != nil {
		return err
	}
	c.count(at, 0)
	if err := c.forget(fresh, r.Primary); err != nil {
		return err
	}
	text, severity := fmt.Sprintf("%s started, %s, %s", version, sizeOf(r.Spec.Size), r.Spec.Evict), tenfold.SeverityInfo
	if p.Exit != "" && !p.Asked && r.Serving == r.Goal {
		text, severity = fmt.Sprintf("%s started again, the last one: %s", version, p.Exit), tenfold.SeverityWarning
		if st.Why != "" {
			text += "; no reader took over: " + st.Why
		}
	}
	c.cfg.Emit(tenfold.Event{ID: r.ID, Severity: severity, Text: text, Took: time.Since(begun)})
	return nil
}

// count counts a start that is tried, or forgets them.
func (c *Cache) count(at place, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n == 0 {
		delete(c.failed, at)
		return
	}
	c.failed[at] += n
}

func (c *Cache) memory() int64 {
	if c.cfg.Memory > 0 {
		return c.cfg.Memory
	}
	return machineMemory()
}

// follow starts a reader's server. It is looked at from then on: being given all data may take long.
func (c *Cache) follow(ctx context.Context, key string, r record, v view, n int) error {
	at := fmt.Sprint(key, "#", n)
	c.mu.Lock()
	due := c.retry[at]
	c.mu.Unlock()
	if time.Now().Before(due) {
		return nil
	}
	if x := v.Nodes[n]; x.Exit != "" && !x.Asked {
		c.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityWarning, Text: fmt.Sprintf("reader %d ended: %s; it is started again", n, x.Exit), Hint: "its log: " + c.logOf(r.ID, n)})
	}
	pause := c.tries.Pause(at)
	c.mu.Lock()
	c.retry[at] = time.Now().Add(pause)
	c.mu.Unlock()
	e, err := c.engine(ctx, r.Spec)
	if err != nil {
		return err
	}
	if err := c.forget(r, n); err != nil { // it is given all by the primary
		return err
	}
	return c.launch(ctx, key, r, n, e)
}

// promote makes a reader the primary of a new epoch. The record says so first: whatever dies from here on,
// the old primary starts as a reader.
func (c *Cache) promote(ctx context.Context, key string, r record, v view, st step) error {
	begun := time.Now()
	if err := c.records.Change(key, func(x *record) {
		x.Primary, x.Switch = st.Node, 0
		x.Epoch++
		x.edit(st.Node, func(n *node) { n.Leaving = false })
	}); err != nil {
		return err
	}
	old := v.Nodes[r.Primary]
	r, _ = c.get(key)
	if err := c.lead(ctx, r, st.Node, v); err != nil {
		return err
	}
	c.mu.Lock()
	c.healthy[key] = time.Now()
	delete(c.rested, key)
	c.mu.Unlock()
	text := fmt.Sprintf("reader %d took over: %s", st.Node, st.Why)
	if old.Exit != "" {
		text += " (" + old.Exit + ")"
	}
	c.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityWarning, Text: text, Took: time.Since(begun)})
	return nil
}

// lead has a server follow nobody and take the primary's address, which is free. Addresses for reads that no
// reader has it takes too.
func (c *Cache) lead(ctx context.Context, r record, n int, v view) error {
	if _, err := c.do(ctx, r, n, askLimit, "REPLICAOF", "NO", "ONE"); err != nil {
		return fmt.Errorf("promote reader %d: %w", n, err)
	}
	s := v.Nodes[n]
	s.Replica, s.LinkUp = false, false
	v.Nodes[n] = s
	bind := r.assign(r.Spec, v)[n]
	for at, x := range v.Nodes { // what another has is moved when all is looked at again
		if at != n && x.Answers {
			bind = slices.DeleteFunc(bind, func(h string) bool { return h != ownHost(n) && slices.Contains(x.Bind, h) })
		}
	}
	if _, err := c.do(ctx, r, n, askLimit, "CONFIG", "SET", "bind", strings.Join(bind, " ")); err != nil {
		return fmt.Errorf("give reader %d the address: %w", n, err)
	}
	return nil
}

// finish does what a promotion left undone.
func (c *Cache) finish(ctx context.Context, key string, r record, v view) error {
	if err := c.lead(ctx, r, r.Primary, v); err != nil {
		return err
	}
	c.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityWarning, Text: fmt.Sprintf("reader %d took over, which had been cut off", r.Primary)})
	return nil
}

// handover makes a reader the primary in order: writes are held until it has all of them, and then the old one
// follows it. It may be done twice.
func (c *Cache) handover(ctx context.Context, key string, r record, v view, st step) error {
	begun := time.Now()
	if _, err := c.do(ctx, r, st.From, askLimit, "CLIENT", "PAUSE", (2 * handLimit).Milliseconds(), "WRITE"); err != nil {
		return fmt.Errorf("hold writes: %w", err)
	}
	release := func() { c.do(context.WithoutCancel(ctx), r, st.From, askLimit, "CLIENT", "UNPAUSE") }
	if err := c.caughtUp(ctx, r, st.From, st.Node); err != nil {
		release()
		if r.Switch != 0 {
			c.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityWarning, Text: "switchover given up: " + err.Error(), Hint: "see the servers: tenfold cache nodes"})
			return c.records.Change(key, func(x *record) { x.Switch = 0 })
		}
		return err
	}
	if err := c.records.Change(key, func(x *record) {
		if x.Primary != st.Node {
			x.Epoch++
		}
		x.Primary, x.Switch = st.Node, 0
		x.edit(st.Node, func(n *node) { n.Leaving = false })
	}); err != nil {
		release()
		return err
	}
	r, _ = c.get(key)
	if err := c.yieldAddress(ctx, r, st.From); err != nil {
		return err
	}
	old := v.Nodes[st.From]
	old.Bind = []string{ownHost(st.From)}
	v.Nodes[st.From] = old
	if err := c.lead(ctx, r, st.Node, v); err != nil {
		return err
	}
	if err := c.demote(ctx, key, r, st.From); err != nil {
		return err
	}
	release()
	c.wake()
	c.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("reader %d took over: switchover", st.Node), Took: time.Since(begun)})
	return nil
}

// caughtUp returns when a reader has all that a primary has whose writes are held.
func (c *Cache) caughtUp(ctx context.Context, r record, from, to int) error {
	for begun := time.Now(); ; {
		has, err := c.offset(ctx, r, from, "master_repl_offset")
		if err != nil {
			return err
		}
		got, err := c.offset(ctx, r, to, "slave_repl_offset")
		if err != nil {
			return err
		}
		if got >= has {
			return nil
		}
		if time.Since(begun) > handLimit {
			return fmt.Errorf("reader %d did not get the last %d bytes", to, has-got)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(answerPace / 2):
		}
	}
}

func (c *Cache) offset(ctx context.Context, r record, n int, name string) (int64, error) {
	b, err := redis.Bytes(c.do(ctx, r, n, askLimit, "INFO", "replication"))
	if err != nil {
		return 0, err
	}
	return int64(parseInfo(b).number(name)), nil
}

// yieldAddress takes all addresses but its own from a server.
func (c *Cache) yieldAddress(ctx context.Context, r record, n int) error {
	if _, err := c.do(ctx, r, n, askLimit, "CONFIG", "SET", "bind", ownHost(n)); err != nil {
		return fmt.Errorf("take the address from %d: %w", n, err)
	}
	return nil
}

// demote has a server follow the primary that the record names. Its clients are cut off: they come back at the
// address, which is another's.
func (c *Cache) demote(ctx context.Context, _ string, r record, n int) error {
	if err := c.yieldAddress(ctx, r, n); err != nil {
		return err
	}
	if _, err := c.do(ctx, r, n, askLimit, "REPLICAOF", primaryHost, r.Port); err != nil {
		return fmt.Errorf("have %d follow: %w", n, err)
	}
	for _, kind := range []string{"normal", "pubsub"} {
		if _, err := c.do(ctx, r, n, askLimit, "CLIENT", "KILL", "TYPE", kind); err != nil {
			return fmt.Errorf("cut clients of %d off: %w", n, err)
		}
	}
	return nil
}

// listen gives servers the addresses that they should have: what moves is taken first and given then.
func (c *Cache) listen(ctx context.Context, r record, v view) error {
	want := r.assign(r.Spec, v)
	var errs []error
	for _, giving := range []bool{false, true} {
		for n, hosts := range want {
			x := v.Nodes[n]
			if !x.Answers || x.Loading || sameHosts(x.Bind, hosts) {
				continue
			}
			if !giving { // only what it keeps
				hosts = slices.DeleteFunc(slices.Clone(hosts), func(h string) bool { return !slices.Contains(x.Bind, h) })
				if sameHosts(x.Bind, hosts) {
					continue
				}
			}
			if _, err := c.do(ctx, r, n, askLimit, "CONFIG", "SET", "bind", strings.Join(hosts, " ")); err != nil {
				errs = append(errs, fmt.Errorf("have %d listen at %s: %w", n, strings.Join(hosts, ", "), err))
			}
		}
	}
	return errors.Join(errs...)
}

// restart ends a server for what cannot be changed while it runs; it is started again with its data.
func (c *Cache) restart(ctx context.Context, key string, r record, n int) error {
	if n != r.Primary {
		return c.cfg.Units.Remove(ctx, unitOf(key, n))
	}
	if err := c.fits(key, r, c.memory()); err != nil {
		return err
	}
	if _, err := c.engine(ctx, r.Spec); err != nil { // better the old one than none
		return err
	}
	// Readers first: they speak as the old one does, and would take over.
	for _, x := range r.readers() {
		if err := c.cfg.Units.Remove(ctx, unitOf(key, x.N)); err != nil {
			return err
		}
	}
	text := "restarts with its data, for what cannot be changed while it runs"
	switch memory := c.runsMemcached(r, n); {
	case memory, r.Spec.memcached():
		text = "restarts empty, for what cannot be changed while it runs"
	case r.Admin != "":
		if _, err := c.do(ctx, r, n, askLimit, "CONFIG", "SET", "save", "3600 1"); err != nil { // with it, it saves when it ends
			return fmt.Errorf("have it save: %w", err)
		}
	}
	c.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: text})
	return c.cfg.Units.Remove(ctx, unitOf(key, n))
}

// drop ends a reader and removes its data.
func (c *Cache) drop(ctx context.Context, key string, r record, v view, n int) error {
	if x := v.Nodes[n]; x.Answers { // who is connected comes back elsewhere
		if err := c.yieldAddress(ctx, r, n); err != nil {
			return err
		}
	}
	if err := c.cfg.Units.Remove(ctx, unitOf(key, n)); err != nil {
		return err
	}
	c.unlink(key, n)
	gone := []string{c.homeOf(r.ID, n)}
	if n == 1 { // its folder is the cache's own
		gone = []string{filepath.Join(gone[0], dumpFile), filepath.Join(gone[0], "appendonlydir")}
	}
	for _, path := range gone {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove reader %d: %w", n, err)
		}
	}
	if err := c.records.Change(key, func(x *record) {
		x.Nodes = slices.DeleteFunc(slices.Clone(x.Nodes), func(y node) bool { return y.N == n })
	}); err != nil {
		return err
	}
	c.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("reader %d is gone", n)})
	return nil
}

// tuning is what a server was told last.
type tuning struct {
	digest string
	pid    int
}

func (c *Cache) digest(r record) string {
	h := sha256.New()
	fmt.Fprint(h, settings(r.Spec), accounts(r))
	if r.Spec.TLS && c.cfg.Certificate != nil {
		if p, err := c.cfg.Certificate(); err == nil {
			h.Write(p.Cert)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

func (c *Cache) isTuned(at place, r record, pid int) bool {
	want := tuning{c.digest(r), pid}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tuned[at] == want
}

// tune gives a running server the settings and users of the goal.
func (c *Cache) tune(ctx context.Context, key string, r record, n, pid int) error {
	if r.Serving != r.Goal {
		if err := c.fits(key, r, c.memory()); err != nil {
			return err
		}
	}
	if c.runsMemcached(r, n) {
		return c.tuneMemcached(ctx, r, n)
	}
	digest := c.digest(r)
	for _, s := range settings(r.Spec) {
		if _, err := c.do(ctx, r, n, askLimit, "CONFIG", "SET", s[0], s[1]); err != nil {
			return fmt.Errorf("set %s: %w", s[0], err)
		}
	}
	for name, rules := range accounts(r) {
		args := []any{"SETUSER", name, "reset"}
		for _, word := range strings.Fields(rules) {
			args = append(args, word)
		}
		if _, err := c.do(ctx, r, n, askLimit, "ACL", args...); err != nil {
			return fmt.Errorf("set user %s: %w", name, err)
		}
	}
	if r.Spec.TLS {
		home := c.homeOf(r.ID, n)
		if err := c.writeTLS(home); err != nil {
			return err
		}
		// It reads all three again when one is set.
		if _, err := c.do(ctx, r, n, askLimit, "CONFIG", "SET", tlsFiles[0].setting, home+"/"+tlsFiles[0].file, tlsFiles[1].setting, home+"/"+tlsFiles[1].file); err != nil {
			return fmt.Errorf("set certificate: %w", err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tuned[place{key, n}] = tuning{digest, pid}
	return nil
}

// settle notes that the goal is served.
func (c *Cache) settle(key string, r record) error {
	c.mu.Lock()
	c.healthy[key] = time.Now()
	c.mu.Unlock()
	if r.Serving != "" {
		c.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("changed while it ran: %s, %s", sizeOf(r.Spec.Size), r.Spec.Evict)})
	}
	return c.records.Change(key, func(x *record) {
		if x.Goal == r.Goal {
			x.Serving = r.Goal
		}
	})
}
