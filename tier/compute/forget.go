package compute

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"tenfold"
)

// home is one environment of one app.
type home struct {
	app tenfold.AppName
	env tenfold.Environment
}

func homeOf(id tenfold.ID) home { return home{id.App, id.Env} }

// Forget ends all that is left of an environment whose resources were removed: its pursuits, units that
// nobody waits for (a one-off command), records and logs. It refuses while Observe tells of any of them,
// and may be called again when it was cut off.
func (c *Compute) Forget(ctx context.Context, app tenfold.AppName, env tenfold.Environment) error {
	c.forgets.Lock()
	defer c.forgets.Unlock()
	h := home{app, env}
	items, err := c.leave(h)
	if err != nil {
		return err
	}
	defer func() {
		c.goals.Lock()
		delete(c.leaving, h)
		c.goals.Unlock()
	}()
	c.hold(items)
	for _, it := range items {
		if err := c.forget(ctx, it.of().id); err != nil {
			c.release(items)
			return fmt.Errorf("forget %s: %w", it.of().id, err)
		}
	}
	return nil
}

// leave lists the items of an environment and refuses new goals for it from here on, if none is there
// that is not removed.
func (c *Compute) leave(h home) ([]item, error) {
	c.goals.Lock()
	defer c.goals.Unlock()
	var items []item
	for _, it := range c.all() {
		id := it.of().id
		if homeOf(id) != h {
			continue
		}
		if _, there := it.observe(); there {
			return nil, tenfold.Errorf(tenfold.CodeConflict, "%s of %s/%s is not removed yet", id.Short(), id.App, id.Env).
				WithHint("take it down first: tenfold down --app %s --env %s", id.App, id.Env)
		}
		items = append(items, it)
	}
	c.leaving[h] = true
	return items, nil
}

// hold ends the pursuits of items, waits for them, and lets Run begin none again.
func (c *Compute) hold(items []item) {
	var ended []chan struct{}
	c.mu.Lock()
	for _, it := range items {
		p := it.of()
		p.claimed = true
		if p.end != nil {
			p.end()
			ended = append(ended, p.ended)
		}
	}
	c.mu.Unlock()
	for _, e := range ended {
		<-e
	}
}

// release undoes hold.
func (c *Compute) release(items []item) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, it := range items {
		p := it.of()
		p.claimed, p.end = false, nil
	}
	c.prod()
}

// forget takes away what one item left. Its record goes last, so that what was cut off is found again.
func (c *Compute) forget(ctx context.Context, id tenfold.ID) error {
	if err := c.endUnits(ctx, id); err != nil {
		return err
	}
	if id.Kind == tenfold.KindService {
		if err := c.cfg.Traffic.Withdraw(ctx, id); err != nil {
			return err
		}
	}
	logs := c.logDir(id)
	if err := os.RemoveAll(logs); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Dir(logs), filepath.Dir(filepath.Dir(logs))} {
		_ = os.Remove(dir) // the kind's, then the environment's, once they are empty
	}
	if err := os.Remove(c.seasonPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget %s: %w", id.Short(), err)
	}
	if err := os.Remove(c.recordPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.items, id)
	return nil
}

// endUnits ends the units of an item that its pursuit does not wait for.
func (c *Compute) endUnits(ctx context.Context, id tenfold.ID) error {
	if id.Kind == tenfold.KindBuild {
		return c.cfg.Builder.Clear(ctx, entry(id))
	}
	kinds := map[tenfold.Kind][]string{tenfold.KindService: {"task", "migrate", "exec"}, tenfold.KindJob: {"job"}}
	for _, kind := range kinds[id.Kind] {
		prefix := kind + "/" + entry(id) + "/"
		units, err := c.cfg.Units.List(ctx, prefix)
		if err != nil {
			return err
		}
		for _, u := range units {
			if strings.Contains(strings.TrimPrefix(u.Unit.ID, prefix), "/") {
				continue // of an environment whose name begins like this one's
			}
			if err := c.cfg.Units.Remove(ctx, u.Unit.ID); err != nil {
				return err
			}
		}
	}
	return nil
}
