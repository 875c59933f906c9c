package function

import (
	"bytes"
	"context"
	"encoding/json"
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
)

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

// Enqueue accepts an asynchronous event. When it returns nil the event outlives this process.
func (v *Invoker) Enqueue(ctx context.Context, id tenfold.ID, in runtimeapi.Invocation) error {
	if _, err := v.find(ctx, id); err != nil {
		return err
	}
	if len(in.Payload) > asyncMost {
		return tenfold.Errorf(tenfold.CodeInvalid, "an asynchronous event has %d bytes, and %d at most", len(in.Payload), asyncMost)
	}
	now := time.Now()
	e := event1{ID: in.ID, Function: id, Payload: in.Payload, Client: in.Client, Trace: in.Trace, At: now, Due: now}
	if err := v.async.Update(in.ID, func(r *event1) { *r = e }); err != nil {
		return err
	}
	v.prod()
	return nil
}

// work hands out asynchronous events that are due, and ends idle environments, until ctx ends.
func (v *Invoker) work(ctx context.Context) {
	going := map[string]bool{} // by event
	busy := map[string]int{}   // by function
	done := make(chan event1)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			for len(going) > 0 { // they end with their environments, or soon
				delete(going, (<-done).ID)
			}
			return
		case e := <-done:
			delete(going, e.ID)
			busy[e.Function.String()]--
		case <-v.news:
		case now := <-tick.C:
			v.reap(now)
		}
		now := time.Now()
		for id, e := range v.async.All() {
			fn := e.Function.String()
			if going[id] || now.Before(e.Due) || busy[fn] >= asyncAtOnce || ctx.Err() != nil {
				continue
			}
			v.mu.Lock()
			f := v.functions[fn]
			v.mu.Unlock()
			if f == nil { // it may come back
				if now.Sub(e.At) > orphaned {
					v.forget(e)
				}
				continue
			}
			going[id] = true
			busy[fn]++
			v.wg.Go(func() {
				v.attempt(ctx, f, e)
				done <- e
			})
		}
	}
}

// attempt tries an event once and writes down what comes next.
func (v *Invoker) attempt(ctx context.Context, f *function, e event1) {
	f.mu.Lock()
	g := f.goal
	f.mu.Unlock()
	now := time.Now()
	if g.Age > 0 && now.Sub(e.At) > g.Age {
		v.giveUp(ctx, g, e, "EventAgeExceeded", nil)
		return
	}
	var out collect
	_, err := f.invoke(ctx, runtimeapi.Invocation{ID: e.ID, Payload: e.Payload, Client: e.Client, Trace: e.Trace}, false, &out)
	var fail *runtimeapi.Failure
	var busy *Throttled
	switch {
	case ctx.Err() != nil:
		return // the next process tries it again
	case err == nil:
		if err := v.tell(ctx, g.To, g, e, "Success", nil, out.Bytes()); err != nil {
			v.cfg.Log.Error("tell what came of an event", "function", g.ID.String(), "event", e.ID, "err", err)
			v.put(e, now.Add(busyFirst))
			return
		}
		v.forget(e)
	case errors.As(err, &busy):
		e.Busy++
		v.put(e, now.Add(min(busyMost, busyFirst<<min(e.Busy-1, 16))))
	case errors.As(err, &fail):
		e.Busy = 0
		if e.Tries++; e.Tries > g.Retries {
			v.giveUp(ctx, g, e, "RetriesExhausted", fail)
			return
		}
		pause := retryNext
		if e.Tries == 1 {
			pause = retryFirst
		}
		v.put(e, now.Add(pause))
	default:
		v.put(e, now.Add(busyFirst))
	}
}

func (v *Invoker) put(e event1, due time.Time) {
	e.Due = due
	if err := v.async.Update(e.ID, func(r *event1) { *r = e }); err != nil {
		v.cfg.Log.Error("keep an event", "event", e.ID, "err", err)
	}
}

func (v *Invoker) forget(e event1) {
	if err := v.async.Delete(e.ID); err != nil {
		v.cfg.Log.Error("forget an event", "event", e.ID, "err", err)
	}
}

// giveUp ends an event that the function could not do.
func (v *Invoker) giveUp(ctx context.Context, g Goal, e event1, why string, fail *runtimeapi.Failure) {
	to := g.Dead
	if to == nil {
		to = g.To
	}
	var said []byte
	text := "the event is older than " + g.Age.String()
	if fail != nil {
		said, text = fail.Payload(), fail.Error()
	}
	if err := v.tell(ctx, to, g, e, why, fail, said); err != nil {
		v.cfg.Log.Error("hand on an event that was given up on", "function", g.ID.String(), "event", e.ID, "err", err)
		v.put(e, time.Now().Add(busyMost))
		return
	}
	v.mu.Lock()
	f := v.functions[g.ID.String()]
	v.mu.Unlock()
	if f != nil {
		f.mu.Lock()
		f.tally.Dropped++
		f.mu.Unlock()
		f.logs.add(true, fmt.Sprintf("GAVE UP RequestId: %s after %d tries: %s", e.ID, e.Tries, text))
	}
	v.forget(e)
}

// tell hands what came of an event to a destination, in Lambda's form (version 1.0).
func (v *Invoker) tell(ctx context.Context, to *tenfold.ID, g Goal, e event1, condition string, fail *runtimeapi.Failure, payload []byte) error {
	if to == nil {
		return nil
	}
	type object = map[string]any
	res := object{"statusCode": 200, "executedVersion": "$LATEST"}
	if fail != nil {
		res["functionError"] = "Unhandled"
	}
	b, err := json.Marshal(object{
		"version": "1.0", "timestamp": time.Now().UTC().Format("2006-01-02T15:04:05.000Z"),
		"requestContext":  object{"requestId": e.ID, "functionArn": g.ARN() + ":$LATEST", "condition": condition, "approximateInvokeCount": max(1, e.Tries)},
		"requestPayload":  jsonOr(e.Payload),
		"responseContext": res,
		"responsePayload": jsonOr(payload),
	})
	if err != nil {
		return err
	}
	return v.Enqueue(ctx, *to, runtimeapi.Invocation{ID: newID(), Payload: b, Trace: e.Trace})
}

// jsonOr gives b as JSON: as it is when it is some.
func jsonOr(b []byte) json.RawMessage {
	switch {
	case len(bytes.TrimSpace(b)) == 0:
		return json.RawMessage("null")
	case json.Valid(b):
		return b
	}
	s, _ := json.Marshal(string(b))
	return s
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
