package wire

import (
	"context"
	"io"
	"sync"
	"time"
)

// requestContext is the context of one HTTP/1.1 request. context.WithCancel costs a tenth of what a
// proxied request does, most of it for a channel that nobody waits on: here it is made when somebody does.
type requestContext struct {
	parent context.Context // of the connection

	mu   sync.Mutex
	done chan struct{} // nil until it is asked for
	stop func() bool   // ends what waits for parent
	err  error

	key, value any       // see Keep
	carried    io.Closer // see Carried
}

// Keep has Value give value for key. It is for the first who handles a request: later ones derive a
// context of their own.
func (c *requestContext) Keep(key, value any) { c.key, c.value = key, value }

// Deadline implements context.Context.
func (c *requestContext) Deadline() (time.Time, bool) { return c.parent.Deadline() }

// Value implements context.Context.
func (c *requestContext) Value(key any) any {
	if c.key != nil && key == c.key {
		return c.value
	}
	if key == (carriedKey{}) && c.carried != nil {
		return c.carried
	}
	return c.parent.Value(key)
}

// Err implements context.Context.
func (c *requestContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = c.parent.Err()
	}
	return c.err
}

// Done implements context.Context.
func (c *requestContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.err != nil {
			close(c.done)
		} else {
			c.stop = context.AfterFunc(c.parent, c.cancel)
		}
	}
	return c.done
}

// cancel ends the context.
func (c *requestContext) cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	ended := c.err != nil
	if !ended {
		c.err = context.Canceled
	}
	if c.done == nil {
		return
	}
	select {
	case <-c.done:
	default:
		close(c.done)
	}
	if c.stop != nil {
		c.stop()
	}
}
