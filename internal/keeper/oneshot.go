package keeper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tenfold/internal/tasklog"
)

// RunToEnd starts a unit, waits until its tree has gone and forgets it. The unit needs a Log; the
// last lines of this run come back with the exit. When ctx ends first the unit is stopped.
func RunToEnd(ctx context.Context, units Units, u Unit, lines int) (Exit, []string, error) {
	begun := time.Now()
	if err := units.Remove(ctx, u.ID); err != nil {
		return Exit{}, nil, err
	}
	if _, err := units.Start(ctx, u); err != nil {
		return Exit{}, nil, fmt.Errorf("start %s: %w", u.ID, err)
	}
	s, err := units.Wait(ctx, u.ID)
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	removed := units.Remove(clean, u.ID)
	last := LastLines(u.Log, begun, lines)
	if err := errors.Join(err, removed); err != nil {
		return Exit{}, last, err
	}
	if s.LastExit == nil {
		return Exit{}, last, fmt.Errorf("run %s: no exit status", u.ID)
	}
	return *s.LastExit, last, nil
}

// LastLines are the last lines of a log since a time.
func LastLines(log string, since time.Time, n int) []string {
	stored, err := tasklog.Read(log, tasklog.Options{Tail: n, Since: since})
	if err != nil {
		return nil
	}
	var out []string
	for _, l := range stored {
		out = append(out, l.Text)
	}
	return out
}

// Describe says how a process ended, as people read it.
func (e Exit) Describe() string {
	switch {
	case e.Refused != "":
		return "not started: " + e.Refused
	case e.OOM:
		return "killed by the kernel: out of memory"
	case e.Signal != 0 && e.Asked:
		return "stopped with " + signalName(e)
	case e.Signal != 0:
		return "ended by signal " + signalName(e)
	case e.Code == 127:
		return "status 127: command not found"
	case e.Code == 126:
		return "status 126: not executable"
	}
	return fmt.Sprintf("status %d", e.Code)
}

func signalName(e Exit) string { return e.Signal.String() }
