package function

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"tenfold"
	"tenfold/tier/function/runtimeapi"
)

const (
	asyncMost = 1 << 20 // bytes of an asynchronous event
	// retryFirst and retryNext are Lambda's pauses after a function's error; busyFirst doubles up to
	// busyMost after it was throttled.
	retryFirst, retryNext = time.Minute, 2 * time.Minute
	busyFirst, busyMost   = time.Second, 5 * time.Minute
	// orphaned is how long events of a function that is not there are kept.
	orphaned = 14 * 24 * time.Hour
	// asyncAtOnce bounds the asynchronous events of one function that are under way.
	asyncAtOnce = 100
	// asyncQueued and asyncBytes bound what of one function is kept: a function that is too slow for what comes shows
	// it to who calls, rather than filling disk and memory.
	asyncQueued, asyncBytes = 10_000, 256 << 20
)

// depth is how much of a function's asynchronous events is kept.
type depth struct {
	n     int
	bytes int64
}

// deepen counts an event in; false: there are too many.
func (v *Invoker) deepen(id tenfold.ID, size int) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	d := v.depths[id.String()]
	if d.n >= asyncQueued || d.n > 0 && d.bytes+int64(size) > asyncBytes {
		return false
	}
	v.depths[id.String()] = depth{d.n + 1, d.bytes + int64(size)}
	return true
}

// shoal counts an event out.
func (v *Invoker) shoal(id tenfold.ID, size int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if d := v.depths[id.String()]; d.n > 1 {
		v.depths[id.String()] = depth{d.n - 1, d.bytes - int64(size)}
	} else {
		delete(v.depths, id.String())
	}
}

// event1 is an asynchronous event that was accepted: it is kept until the function had it, or it was given
// up on.
type event1 struct {
	ID       string     `json:"id"`
	Function tenfold.ID `json:"function"`
	Payload  []byte     `json:"payload"`
	Client   string     `json:"client,omitempty"`
	Trace    string     `json:"trace,omitempty"`
	At       time.Time  `json:"at"`
	Tries    int        `json:"tries,omitempty"` // that the function failed
	Busy     int        `json:"busy,omitempty"`  // that it was throttled in a row
	Due      time.Time  `json:"due"`
}

// tooDeep is why no further asynchronous event is accepted.
const tooDeep = "ReservedFunctionInvocationRateLimitExceeded"

// Enqueue accepts an asynchronous event. When it returns nil the event outlives this process; a *Throttled says that
// too many of the function wait.
func (v *Invoker) Enqueue(ctx context.Context, id tenfold.ID, in runtimeapi.Invocation) error {
	if _, err := v.find(ctx, id); err != nil {
		return err
	}
	if len(in.Payload) > asyncMost {
		return tenfold.Errorf(tenfold.CodeInvalid, "an asynchronous event has %d bytes, and %d at most", len(in.Payload), asyncMost)
	}
	return v.keep(id, in)
}

// keep writes an event down, whether or not its function is there. A *Throttled says that too many wait: who hands on
// what came of another event tries again later, and that one waits meanwhile.
func (v *Invoker) keep(id tenfold.ID, in runtimeapi.Invocation) error {
	now := time.Now()
	e := event1{ID: in.ID, Function: id, Payload: in.Payload, Client: in.Client, Trace: in.Trace, At: now, Due: now}
	if !v.deepen(id, len(e.Payload)) {
		return &Throttled{tooDeep}
	}
	if err := v.async.Update(in.ID, func(r *event1) { *r = e }); err != nil {
		v.shoal(id, len(e.Payload))
		return err
	}
	v.comes(turn{id: e.ID, function: id.String(), due: now})
	return nil
}

// attempt tries an event once and writes down what comes next.
func (v *Invoker) attempt(ctx context.Context, f *function, e event1) tried {
	f.mu.Lock()
	g := f.goal
	f.mu.Unlock()
	now := time.Now()
	if g.Age > 0 && now.Sub(e.At) > g.Age {
		return v.giveUp(g, e, "EventAgeExceeded", nil)
	}
	var out collect
	_, err := f.invoke(ctx, runtimeapi.Invocation{ID: e.ID, Payload: e.Payload, Client: e.Client, Trace: e.Trace}, false, &out)
	var fail *runtimeapi.Failure
	var busy *Throttled
	now = time.Now()
	switch {
	case err == nil: // also when this process ends: the function had it
		return v.finish(g, e, out.Bytes())
	case ctx.Err() != nil:
		return tried{e: e} // the next process tries it again
	case errors.As(err, &busy):
		e.Busy++
		return v.put(e, now.Add(min(busyMost, busyFirst<<min(e.Busy-1, 16))))
	case errors.As(err, &fail):
		e.Busy = 0
		if e.Tries++; e.Tries > g.Retries {
			return v.giveUp(g, e, "RetriesExhausted", fail)
		}
		pause := retryNext
		if e.Tries == 1 {
			pause = retryFirst
		}
		return v.put(e, now.Add(pause))
	}
	return v.put(e, now.Add(busyFirst))
}

func (v *Invoker) put(e event1, due time.Time) tried {
	e.Due = due
	if err := v.async.Update(e.ID, func(r *event1) { *r = e }); err != nil {
		v.cfg.Log.Error("keep an event", "event", e.ID, "err", err)
		return tried{e: e, unkept: true}
	}
	return tried{e: e}
}

func (v *Invoker) forget(e event1) tried {
	if err := v.async.Delete(e.ID); err != nil {
		v.cfg.Log.Error("forget an event", "event", e.ID, "err", err)
		return later(e, func() tried { return v.forget(e) })
	}
	v.shoal(e.Function, len(e.Payload))
	return tried{e: e, over: true}
}

// later has the rest of an event done in a while: the function is not asked again.
func later(e event1, rest func() tried) tried {
	e.Due = time.Now().Add(restPace)
	return tried{e: e, unkept: true, rest: rest}
}

// restPace is how often it is tried to write down what came of an event.
const restPace = 10 * time.Second

// finish ends an event that the function did.
func (v *Invoker) finish(g Goal, e event1, said []byte) tried {
	if err := v.tell(g.To, g, "Success", g.outcome(e, "Success", nil, said), e.Trace); err != nil {
		v.cfg.Log.Error("tell what came of an event", "function", g.ID.String(), "event", e.ID, "err", err)
		return later(e, func() tried { return v.finish(g, e, said) })
	}
	return v.forget(e)
}

// giveUp ends an event that the function could not do.
func (v *Invoker) giveUp(g Goal, e event1, why string, fail *runtimeapi.Failure) tried {
	to := g.Dead
	if to == nil {
		to = g.To
	}
	var said []byte
	text := "the event is older than " + g.Age.String()
	if fail != nil {
		said, text = fail.Payload(), fail.Error()
	}
	if err := v.tell(to, g, why, g.outcome(e, why, fail, said), e.Trace); err != nil {
		v.cfg.Log.Error("hand on an event that was given up on", "function", g.ID.String(), "event", e.ID, "err", err)
		return later(e, func() tried { return v.giveUp(g, e, why, fail) })
	}
	if f := v.known(g.ID.String()); f != nil {
		f.mu.Lock()
		f.tally.Dropped++
		f.mu.Unlock()
		f.logs.add(true, fmt.Sprintf("GAVE UP RequestId: %s after %d tries: %s", e.ID, e.Tries, text))
	}
	return v.forget(e)
}

// reap ends environments that nobody needed for long.
func (v *Invoker) reap(now time.Time) {
	v.mu.Lock()
	all := make([]*function, 0, len(v.functions))
	for _, f := range v.functions {
		all = append(all, f)
	}
	v.mu.Unlock()
	for _, f := range all {
		f.reap(now)
	}
}

func (f *function) reap(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	warm := 0
	for _, e := range f.envs {
		if !e.leaving && e.version == f.goal.Version {
			warm++
		}
	}
	for _, e := range f.envs {
		if e.ready && !e.leaving && e.busy == 0 && (e.version != f.goal.Version || warm > f.goal.Min && now.Sub(e.idle) > idleLimit) {
			f.retire(e, "spindown")
			warm--
		}
	}
	f.fill()
}

// collect takes a whole answer.
type collect struct {
	bytes.Buffer
	contentType string
}

// Begin implements runtimeapi.Sink.
func (c *collect) Begin(contentType string, _ bool) { c.contentType = contentType }
