package upstream

import (
	"context"
	"sync"
	"time"
)

// glance is how often a busy connection's request is looked at: a client that went away is noticed
// within that time.
const glance = 250 * time.Millisecond

var epoch = time.Now()

// clock is a monotonic time in nanoseconds. Only differences mean something.
func clock() int64 { return int64(time.Since(epoch)) }

// watch ends a connection's request when its time is over or its client is gone.
//
// The obvious way, a deadline and a context.AfterFunc per request, costs a tenth of the whole hop.
// A watch is armed once and looks at the request, whichever it is by then, every glance; it sleeps
// while the connection idles.
type watch struct {
	kill func() // makes reads and writes of the connection fail

	mu     sync.Mutex
	timer  *time.Timer
	armed  bool
	fires  int64 // when the timer fires, while armed
	ctx    context.Context
	until  int64 // deadline; 0: none
	late   error // what passing the deadline means
	killed error
}

// begin watches a request. The deadline means ErrSlow.
func (w *watch) begin(ctx context.Context, limit time.Duration) {
	now := clock()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ctx, w.killed = ctx, nil
	w.set(now, limit, ErrSlow)
	if !w.armed {
		w.arm(now)
	}
}

// expect moves the deadline; 0 lifts it.
func (w *watch) expect(limit time.Duration, late error) {
	now := clock()
	w.mu.Lock()
	w.set(now, limit, late)
	w.mu.Unlock()
}

func (w *watch) set(now int64, limit time.Duration, late error) {
	w.until, w.late = 0, late
	if limit > 0 {
		w.until = now + int64(limit)
		if w.until == 0 {
			w.until = 1
		}
		if w.armed && w.until < w.fires {
			w.arm(now)
		}
	}
}

func (w *watch) arm(now int64) {
	wait := int64(glance)
	if w.until != 0 {
		wait = max(min(wait, w.until-now), 0)
	}
	w.armed, w.fires = true, now+wait
	if w.timer == nil {
		w.timer = time.AfterFunc(time.Duration(wait), w.look)
	} else {
		w.timer.Reset(time.Duration(wait))
	}
}

func (w *watch) look() {
	now := clock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx == nil {
		w.armed = false
		return
	}
	switch {
	case w.killed != nil:
	case w.ctx.Err() != nil:
		w.killed = ErrClientGone
	case w.until != 0 && now >= w.until:
		w.killed = w.late
	default:
		w.arm(now)
		return
	}
	w.armed = false
	w.kill()
}

// end stops watching and says why the request was ended, if it was.
func (w *watch) end() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ctx, w.until = nil, 0
	return w.killed
}

// follow watches on behalf of another context.
func (w *watch) follow(ctx context.Context) {
	w.mu.Lock()
	w.ctx = ctx
	w.mu.Unlock()
}

// cause is why the request was ended, if it was.
func (w *watch) cause() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.killed
}

// stop ends the timer with the connection.
func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ctx = nil
	if w.timer != nil {
		w.timer.Stop()
	}
}
