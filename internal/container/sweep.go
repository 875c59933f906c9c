package container

import (
	"context"
	"errors"
	"os"
	"strings"
)

// Sweep removes the containers of this house whose unit is gone, and says how many there were: what a
// killed process left. known gives the ids of all units; it is asked after the containers were listed,
// since a unit is there before its container.
func (d Driver) Sweep(ctx context.Context, known func(context.Context) (map[string]bool, error)) (int, error) {
	e, err := Find(ctx)
	if err != nil {
		var missing *MissingError
		if errors.As(err, &missing) {
			return 0, nil // without an engine there are none
		}
		return 0, err
	}
	all, err := e.list(ctx, labelHouse+"="+d.house())
	if err != nil || len(all) == 0 {
		return 0, err
	}
	units, err := known(ctx)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, c := range all {
		unit := c.Labels[labelUnit]
		if units[unit] || held(unit) {
			continue
		}
		if err := e.remove(ctx, c.ID); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// held says that a person's process holds a container, and lives.
func held(unit string) bool {
	pid, is := strings.CutPrefix(unit, terminalUnit)
	if !is {
		return false
	}
	_, err := os.Stat("/proc/" + pid)
	return err == nil
}

// PID is the first process of a unit's container as the machine numbers it; 0 when it does not run.
func (d Driver) PID(ctx context.Context, unit string) int {
	e, err := Find(ctx)
	if err != nil {
		return 0
	}
	c, err := e.inspect(ctx, containerName(d.house(), unit))
	if err != nil || !c.State.Running {
		return 0
	}
	return c.State.Pid
}
