package daemon

import (
	"context"
	"errors"
	"slices"
	"time"

	"tenfold"
	"tenfold/internal/container"
	"tenfold/tier/compute"
)

// containers makes units that run in containers, for this house.
func containers(binary string, l Layout) *container.Driver {
	return &container.Driver{Command: Command(binary, ModeContainer, l.Dir), Data: l.Dir}
}

// checkEngine says at once that an app needs a container engine where there is none.
func checkEngine(ctx context.Context, app tenfold.App) error {
	var contained []string
	for name, s := range app.Services {
		if s.Contained() {
			contained = append(contained, "service "+string(name))
		}
	}
	for name, f := range app.Functions {
		if f.Contained() {
			contained = append(contained, "function "+string(name))
		}
	}
	if len(contained) == 0 {
		return nil
	}
	_, err := container.Find(ctx)
	if err == nil {
		return nil
	}
	err = compute.EngineError(err)
	e := tenfold.Errorf(tenfold.CodeMissing, "it runs in a container: %w", err).WithHint("%s", tenfold.HintOf(err))
	e.Resource = slices.Min(contained)
	return e
}

// sweepPace is how often containers are looked for whose unit is gone, while there is an engine.
const sweepPace = 5 * time.Minute

// sweeper removes containers that nothing holds: those of processes that were killed, of a machine that
// lost its power.
type sweeper struct{ h *house }

func (sweeper) Name() string { return "containers" }

func (s sweeper) Run(ctx context.Context, ready func()) error {
	ready()
	tick := time.NewTicker(sweepPace)
	defer tick.Stop()
	for {
		n, err := s.h.containers.Sweep(ctx, s.h.unitIDs)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			s.h.log.Warn("containers that nothing holds are not removed", "err", err)
		case n > 0:
			s.h.log.Info("removed containers that nothing held", "count", n)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// unitIDs are the units that the keeper holds.
func (h *house) unitIDs(ctx context.Context) (map[string]bool, error) {
	units, err := h.keeper.List(ctx, "")
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, u := range units {
		out[u.Unit.ID] = true
	}
	return out, nil
}

// checkContainers says which engine answers.
func checkContainers(ctx context.Context) Check {
	c := Check{Name: "container engine", Optional: true}
	e, err := container.Find(ctx)
	var missing *container.MissingError
	if errors.As(err, &missing) {
		c.Found, c.Fix = missing.Reason+": needed by image and dockerfile alone", missing.Hint
		return c
	}
	if err != nil {
		c.Found = err.Error()
		return c
	}
	info, err := e.Info(ctx)
	if err != nil {
		c.Found = e.Socket + ": " + err.Error()
		return c
	}
	c.OK, c.Found = true, info.String()+" at "+e.Socket
	return c
}
