package wire

import (
	"context"
	"errors"
	"sync"
	"time"
)

// watchAfter is how long a handler runs before the connection is watched: most answer before, and
// cost no second goroutine.
const watchAfter = 20 * time.Millisecond

// watch notices that the client went away while a handler runs, by reading on. What it reads
// belongs to the next request.
type watch struct {
	c      *conn1
	cancel context.CancelFunc

	mu    sync.Mutex
	timer *time.Timer
	armed bool
	busy  chan struct{} // of the read under way: closed when it ended
	over  bool
	err   error
}

// arm starts it; the body has been read to its end.
func (w *watch) arm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.armed || w.over || w.c.w > w.c.r { // the next request is there: the client lives
		return
	}
	w.armed = true
	if w.timer == nil {
		w.timer = time.AfterFunc(watchAfter, w.read)
	} else {
		w.timer.Reset(watchAfter)
	}
}

func (w *watch) read() {
	w.mu.Lock()
	if !w.armed || w.over || w.busy != nil { // stopped as the timer went off, or armed again since
		w.mu.Unlock()
		return
	}
	busy := make(chan struct{})
	w.busy = busy
	c := w.c
	c.r, c.w = 0, 0
	w.mu.Unlock()
	defer close(busy)
	for {
		n, err := c.read(c.in)
		w.mu.Lock()
		c.w = n
		over := w.over
		gone := err != nil && !over && !errors.Is(err, errNudged)
		if gone {
			w.err = err
			w.cancel()
		}
		w.mu.Unlock()
		if err == nil || over || gone {
			return
		}
	}
}

// stop ends it and waits until nothing reads; the watch is then ready for the next request.
func (w *watch) stop() {
	w.mu.Lock()
	if w.armed && !w.timer.Stop() && w.busy == nil {
		w.armed = false // its goroutine is about to begin, and will see this
	}
	busy := w.busy
	w.over = true
	w.mu.Unlock()
	if busy != nil {
		select {
		case <-busy:
		default:
			w.c.rw.SetReadDeadline(long)
			<-busy
		}
		w.c.rw.SetReadDeadline(time.Time{})
	}
	w.mu.Lock()
	w.armed, w.over, w.busy = false, false, nil
	w.mu.Unlock()
}
