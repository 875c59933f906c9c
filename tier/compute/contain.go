package compute

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tenfold"
	"tenfold/internal/build"
	"tenfold/internal/container"
	"tenfold/internal/isolate"
	"tenfold/internal/keeper"
)

// The container driver. A task of an image is the same unit as any other, whose program asks a container
// engine to run it (internal/container): all that starts, watches, counts and ends tasks stays as it is.

// contain has a unit run in a container.
func (c *Compute) contain(ctx context.Context, u keeper.Unit, b build.Result) (keeper.Unit, error) {
	if c.cfg.Containers == nil {
		return u, errors.New("nobody runs containers here")
	}
	there, err := c.cfg.Containers.Has(ctx, b.Image)
	if err == nil && !there {
		// Somebody removed it: the build's own pursuit makes it again.
		if err := c.cfg.Builder.Forget(b.Key); err != nil {
			return u, fmt.Errorf("forget the build of %s: %w", u.ID, err)
		}
		return u, tenfold.Errorf(tenfold.CodeUnavailable, "its image %s was removed from the container engine, and is made again", b.Image)
	}
	if err == nil {
		u, err = c.cfg.Containers.Unit(ctx, u, container.Of(u, b.Image))
	}
	return u, EngineError(err)
}

// EngineError says what to do where there is no container engine.
func EngineError(err error) error {
	var missing *container.MissingError
	if errors.As(err, &missing) {
		return tenfold.Errorf(tenfold.CodeMissing, "%w", err).WithHint("%s", missing.Hint)
	}
	return err
}

// firstProcess is the first process of a unit's container, as the machine counts.
type firstProcess struct {
	started time.Time // of the unit's own process
	pid     int
}

// pids lists the processes of a task.
func (c *Compute) pids(ctx context.Context, u keeper.Status) []int {
	if c.cfg.Containers == nil || !container.Holds(u.Unit) {
		return tree(u.PID)
	}
	c.mu.Lock()
	f, known := c.first[u.Unit.ID]
	c.mu.Unlock()
	if !known || !f.started.Equal(u.Started) || f.pid == 0 {
		f = firstProcess{u.Started, c.cfg.Containers.PID(ctx, u.Unit.ID)}
		c.mu.Lock()
		c.first[u.Unit.ID] = f
		c.mu.Unlock()
	}
	return tree(f.pid)
}

// containerRungs are what shuts a task in that runs in a container.
func containerRungs() []isolate.Rung {
	return []isolate.Rung{{Name: "container", OK: true, Found: "files, processes and limits of its own; few capabilities, no new privileges, the engine's seccomp"}}
}

// pruneImages forgets the images of builds that are gone.
func (c *Compute) pruneImages() error {
	if c.cfg.Containers == nil {
		return nil
	}
	c.mu.Lock()
	clear(c.first) // it is asked for again where it is wanted
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.cfg.Containers.Prune(ctx, c.cfg.Builder.Known); err != nil {
		return fmt.Errorf("forget images: %w", err)
	}
	return nil
}
