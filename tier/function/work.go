package function

import (
	"container/heap"
	"context"
	"time"
)

// Asynchronous events wait in line by function, the next that is due in front, so that an end of one costs what is to be
// done next, however many wait. The line is of names: what an event is stands in the ledger.

// turn is when an event is to be worked at.
type turn struct {
	id       string // of the event
	function string
	due      time.Time
	// held is what could not be written down of an event: what is on disk is older, and must not be gone by. nil: go by that.
	held *tried
}

// line is what waits of one function: a heap by time.
type line []turn

func (l line) Len() int           { return len(l) }
func (l line) Less(i, j int) bool { return l[i].due.Before(l[j].due) }
func (l line) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }
func (l *line) Push(x any)        { *l = append(*l, x.(turn)) }
func (l *line) Pop() any {
	last := len(*l) - 1
	t := (*l)[last]
	(*l)[last] = turn{}
	*l = (*l)[:last]
	return t
}

// tried is what came of an attempt.
type tried struct {
	e event1
	// over says that nothing of the event is left.
	over bool
	// unkept says that e could not be written down. rest is what is left to do of an event that the function had; nil: it
	// is to be tried again.
	unkept bool
	rest   func() tried
}

// comes puts an event in line that was written down.
func (v *Invoker) comes(t turn) {
	v.mu.Lock()
	v.came = append(v.came, t)
	v.mu.Unlock()
	v.prod()
}

// hands hand out asynchronous events. All of it belongs to work's goroutine.
type hands struct {
	v     *Invoker
	lines map[string]*line // by function
	read  map[string]bool  // events that were read from the ledger; nil after an hour
	busy  map[string]int   // events under way, by function
	going int              // of all
	done  chan tried
}

// work hands out asynchronous events that are due, and ends idle environments, until ctx ends.
func (v *Invoker) work(ctx context.Context) {
	h := &hands{v: v, lines: map[string]*line{}, read: map[string]bool{}, busy: map[string]int{}, done: make(chan tried)}
	for id, e := range v.async.All() {
		h.read[id] = true
		h.push(turn{id: id, function: e.Function.String(), due: e.Due})
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	hour := time.NewTicker(time.Hour)
	defer hour.Stop()
	for {
		h.take()
		for function := range h.lines {
			h.handOut(ctx, function, time.Now())
		}
		select {
		case <-ctx.Done():
			for ; h.going > 0; h.going-- {
				<-h.done // they end with their environments, or soon
			}
			return
		case d := <-h.done:
			h.back(d)
		case <-v.news:
		case now := <-tick.C:
			v.reap(now)
		case now := <-hour.C:
			v.forgetPlaces(now)
			h.orphans(now)
			h.read = nil
		}
	}
}

func (h *hands) push(t turn) {
	l := h.lines[t.function]
	if l == nil {
		l = &line{}
		h.lines[t.function] = l
	}
	heap.Push(l, t)
}

// take puts what came in line, unless it was read from the ledger, too: what came in that moment.
func (h *hands) take() {
	h.v.mu.Lock()
	came := h.v.came
	h.v.came = nil
	h.v.mu.Unlock()
	for _, t := range came {
		if !h.read[t.id] {
			h.push(t)
		}
	}
}

// back puts an event in line again of which something is left.
func (h *hands) back(d tried) {
	function := d.e.Function.String()
	h.going--
	if h.busy[function]--; h.busy[function] == 0 {
		delete(h.busy, function)
	}
	if d.over {
		return
	}
	t := turn{id: d.e.ID, function: function, due: d.e.Due}
	if d.unkept {
		t.held = &d
	}
	h.push(t)
}

// handOut has a function work at what is due, as much at once as it may.
func (h *hands) handOut(ctx context.Context, function string, now time.Time) {
	l := h.lines[function]
	f := h.v.known(function)
	for f != nil && l.Len() > 0 && !now.Before((*l)[0].due) && h.busy[function] < asyncAtOnce && ctx.Err() == nil {
		t := heap.Pop(l).(turn)
		e, kept := h.v.async.Get(t.id)
		work := func() tried { return h.v.attempt(ctx, f, e) }
		switch {
		case t.held != nil && t.held.rest != nil:
			work = t.held.rest
		case t.held != nil:
			e = t.held.e
		case !kept:
			continue
		}
		h.busy[function]++
		h.going++
		h.v.wg.Go(func() { h.done <- work() })
	}
	if l.Len() == 0 {
		delete(h.lines, function)
	}
}

// orphans forgets events of functions that have not been there for long: one may come back.
func (h *hands) orphans(now time.Time) {
	for function, l := range h.lines {
		if h.v.known(function) != nil {
			continue
		}
		left := line{}
		for _, t := range *l {
			e, kept := h.v.async.Get(t.id)
			if !kept || now.Sub(e.At) > orphaned && h.v.forget(e).over {
				continue
			}
			left = append(left, t) // or the next time
		}
		heap.Init(&left)
		h.lines[function] = &left
	}
}
