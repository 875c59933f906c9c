package function

import (
	"context"
	"sync"
	"time"
)

// Freezer has the processes of a unit stand still, until thaw is called.
type Freezer interface {
	Freeze(ctx context.Context, unit string) (thaw func() error, err error)
}

const (
	// frostAfter is how long an environment is idle before it stands still. Lambda freezes at once; here what is called
	// again and again is left alone.
	frostAfter = 100 * time.Millisecond
	// frostLimit bounds how long the keeper is waited for.
	frostLimit = 5 * time.Second
)

// frost is whether an environment stands still.
type frost struct {
	mu  sync.Mutex
	out func() error // under mu: lets it go on; nil: it does not stand still
	off bool         // under mu: the machine has no freezer

	timer *time.Timer // under function.mu
}

// chill has the environment stand still soon, unless it is called before. One with extensions is left alone: they work
// on when the function has answered; and one in a container, whose processes are the engine's. Under function.mu.
func (e *environment) chill() {
	if e.f.v.cfg.Freezer == nil || e.busy > 0 || e.leaving || e.awake {
		return
	}
	if e.frost.timer == nil {
		e.frost.timer = time.AfterFunc(frostAfter, e.freeze)
	} else {
		e.frost.timer.Reset(frostAfter)
	}
}

// freeze is what the timer does. It holds frost.mu all along, so that a call that comes meanwhile finds it done.
func (e *environment) freeze() {
	e.frost.mu.Lock()
	defer e.frost.mu.Unlock()
	if e.frost.off || e.frost.out != nil {
		return
	}
	e.f.mu.Lock()
	idle := e.busy == 0 && !e.leaving && time.Since(e.idle) >= frostAfter-time.Millisecond
	e.f.mu.Unlock()
	if !idle {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), frostLimit)
	defer cancel()
	out, err := e.f.v.cfg.Freezer.Freeze(ctx, e.unit)
	if err != nil {
		if e.frost.off = true; ctx.Err() != nil { // it may stand still: nobody is to be given to it
			e.f.mu.Lock()
			e.f.retire(e, "failure")
			e.f.mu.Unlock()
		}
		return
	}
	e.frost.out = out
}

// thaw has the environment go on: whoever is to be heard by it calls this first.
func (e *environment) thaw() {
	e.frost.mu.Lock()
	defer e.frost.mu.Unlock()
	if e.frost.out == nil {
		return
	}
	if err := e.frost.out(); err != nil {
		e.f.v.cfg.Log.Error("let an environment go on", "unit", e.unit, "err", err) // its call times out, which ends it
	}
	e.frost.out = nil
}
