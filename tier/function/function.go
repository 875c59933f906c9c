package function

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"tenfold/tier/function/runtimeapi"
)

// function is one function with its environments.
type function struct {
	v    *Invoker
	logs *logs

	mu    sync.Mutex
	goal  Goal
	envs  []*environment   // of any version, starting ones too
	queue []*waiting       // for an environment, the first first
	feeds map[string]*feed // by source
	gone  bool
	wait  time.Time // until when none is started that nobody waits for: the last did not start
	tally Use
	took  []time.Duration // of the last invocations, a ring
	at    int
}

// waiting is an invocation without an environment. got holds one.
type waiting struct {
	got chan *environment
	err error // why there is none; set before got is closed
}

// errRemoved is why a function that was removed takes no invocation.
var errRemoved = errors.New("the function was removed")

func newFunction(v *Invoker, g Goal) *function {
	return &function{v: v, goal: g, logs: newLogs(g), feeds: map[string]*feed{}}
}

// put takes a goal: environments of another version end when they are idle.
func (f *function) put(g Goal) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.goal = g
	for _, e := range slices.Clone(f.envs) {
		if e.version != g.Version && e.busy == 0 && e.ready {
			f.retire(e, "spindown")
		}
	}
	f.fill()
	f.feed()
}

// end ends the function and returns when nothing of it runs.
func (f *function) end() {
	f.mu.Lock()
	f.gone = true
	for _, w := range f.queue {
		w.err = errRemoved
		close(w.got)
	}
	f.queue = nil
	var gone []chan struct{}
	for _, x := range f.feeds {
		x.end()
		gone = append(gone, x.done)
	}
	for _, e := range slices.Clone(f.envs) {
		gone = append(gone, e.gone)
		f.retire(e, "spindown")
	}
	f.mu.Unlock()
	for _, c := range gone {
		<-c
	}
	f.logs.close()
}

// fill starts environments for those who wait, and those that are kept warm. Under f.mu.
func (f *function) fill() {
	if f.gone || !f.v.runs.Load() || f.v.life.Err() != nil {
		return
	}
	current, room := 0, 0
	for _, e := range f.envs {
		if e.version == f.goal.Version && !e.leaving {
			current++
			if !e.ready {
				room += f.goal.Concurrency
			}
		}
	}
	want := (len(f.queue) - room + f.goal.Concurrency - 1) / f.goal.Concurrency
	if time.Now().After(f.wait) {
		want = max(want, f.goal.Min-current)
	}
	for range min(want, f.goal.Max-current) {
		f.start()
	}
}

// acquire gives an environment with room.
func (f *function) acquire(ctx context.Context) (*environment, error) {
	f.mu.Lock()
	if f.gone { // it was found just before it was removed: nobody would serve a queue
		f.mu.Unlock()
		return nil, errRemoved
	}
	var best *environment
	busy := 0
	for _, e := range f.envs {
		if e.version == f.goal.Version && !e.leaving {
			busy += e.busy
			// The most lately used is the warmest, and lets others become idle.
			if e.ready && e.busy < f.goal.Concurrency && (best == nil || e.idle.After(best.idle)) {
				best = e
			}
		}
	}
	if best != nil {
		best.busy++
		f.mu.Unlock()
		return best, nil
	}
	if busy+len(f.queue) >= f.goal.Max*f.goal.Concurrency {
		f.tally.Throttles++
		f.mu.Unlock()
		return nil, &Throttled{"ReservedFunctionConcurrentInvocationLimitExceeded"}
	}
	w := &waiting{got: make(chan *environment, 1)}
	f.queue = append(f.queue, w)
	f.tally.Cold++
	f.fill()
	f.mu.Unlock()
	select {
	case e, ok := <-w.got:
		if !ok {
			return nil, w.err
		}
		return e, nil
	case <-ctx.Done():
	}
	f.mu.Lock()
	if i := slices.Index(f.queue, w); i >= 0 {
		f.queue = slices.Delete(f.queue, i, i+1)
		f.mu.Unlock()
		return nil, ctx.Err()
	}
	f.mu.Unlock()
	if e, ok := <-w.got; ok { // it was given in the same moment
		f.release(e)
	}
	return nil, ctx.Err()
}

// release gives an environment back, to who waits first.
func (f *function) release(e *environment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e.busy--
	e.idle = time.Now()
	if e.leaving {
		if e.busy == 0 {
			close(e.still)
		}
		return
	}
	if e.version != f.goal.Version && e.busy == 0 {
		f.retire(e, "spindown")
		f.fill()
		return
	}
	f.serve(e)
	e.chill()
}

// serve gives an environment's room to those who wait. Under f.mu.
func (f *function) serve(e *environment) {
	for len(f.queue) > 0 && e.ready && !e.leaving && e.version == f.goal.Version && e.busy < f.goal.Concurrency {
		w := f.queue[0]
		f.queue = f.queue[1:]
		e.busy++
		w.got <- e
	}
}

// invoke has the function work at an event.
func (f *function) invoke(ctx context.Context, in runtimeapi.Invocation, tail bool, sink runtimeapi.Sink) (Outcome, error) {
	out := Outcome{RequestID: in.ID}
	began := time.Now()
	for {
		f.mu.Lock()
		g := f.goal
		f.mu.Unlock()
		e, err := f.acquire(ctx)
		if err != nil {
			return out, f.named(in.ID, err)
		}
		out.Init = e.forWhom(began)
		e.thaw()
		// From here on the function works whether or not somebody waits for it.
		work, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.Timeout)
		in.ARN = g.ARN()
		start := time.Now()
		in.Deadline = start.Add(g.Timeout)
		e.told("platform.start", map[string]any{"requestId": in.ID, "version": "$LATEST"})
		err = e.api.Invoke(work, in, sink)
		cancel()
		if errors.Is(err, runtimeapi.ErrOver) {
			f.drop(e)
			continue // the event was not seen
		}
		out.Took = time.Since(start)
		err = f.judge(e, g, in.ID, err)
		f.count(out.Took, err != nil)
		line := f.logs.report(e, g, in.ID, start, out, err)
		if tail {
			out.Tail = f.logs.tail(e, in.ID, start, line)
		}
		if err != nil && e.ended() {
			f.drop(e)
		} else {
			f.release(e)
		}
		return out, err
	}
}

// judge names what went wrong; a timeout ends the environment.
func (f *function) judge(e *environment, g Goal, request string, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		fail := &runtimeapi.Failure{Type: runtimeapi.ErrorTimeout, Message: fmt.Sprintf("RequestId: %s Error: Task timed out after %.2f seconds", request, g.Timeout.Seconds())}
		e.api.Shutdown("timeout")
		e.api.End(fail)
		return fail
	}
	return f.named(request, err)
}

// named puts the request's name into what an environment says of itself.
func (f *function) named(request string, err error) error {
	var fail *runtimeapi.Failure
	if errors.As(err, &fail) && fail.Body == nil && (fail.Type == runtimeapi.ErrorExit || fail.Type == runtimeapi.ErrorEntry || fail.Type == runtimeapi.ErrorSandbox) {
		return &runtimeapi.Failure{Type: fail.Type, Message: "RequestId: " + request + " Error: " + fail.Message}
	}
	return err
}

func (f *function) count(took time.Duration, failed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tally.Invocations++
	f.tally.Duration += took
	if failed {
		f.tally.Errors++
	}
	if len(f.took) < sampled {
		f.took = append(f.took, took)
		return
	}
	f.took[f.at%sampled] = took
	f.at++
}

// drop forgets an environment that ended under an invocation.
func (f *function) drop(e *environment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e.busy--
	if e.leaving {
		if e.busy == 0 {
			close(e.still)
		}
		return
	}
	f.retire(e, "failure")
	f.fill()
}

// use says how the function is used.
func (f *function) use() Use {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.tally
	u.Waiting, u.Sources = len(f.queue), f.used()
	for _, e := range f.envs {
		u.Busy += e.busy
		if e.ready && !e.leaving {
			u.Warm++
		}
	}
	if len(f.took) > 0 {
		s := slices.Sorted(slices.Values(f.took))
		u.P95 = s[len(s)*95/100]
	}
	return u
}
