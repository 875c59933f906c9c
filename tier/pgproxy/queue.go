package pgproxy

import "time"

// queue is a FIFO with removal from its middle: clients that wait. All that wait in one queue have the
// same limit counted from when they came, so the first is always the one whose time ends first. Time is
// an argument: the queue itself never looks at a clock.
type queue struct {
	first, last *client
	size        int

	of   *fair // whose part it is; nil: it is one of its own
	name string
}

// push puts c at the end.
func (q *queue) push(c *client) {
	c.inQueue, c.prev, c.next = q, q.last, nil
	if q.last != nil {
		q.last.next = c
	} else {
		q.first = c
	}
	q.last = c
	q.grew(1)
}

// pushFront puts c before all others: it waited already.
func (q *queue) pushFront(c *client) {
	c.inQueue, c.prev, c.next = q, nil, q.first
	if q.first != nil {
		q.first.prev = c
	} else {
		q.last = c
	}
	q.first = c
	q.grew(1)
}

// remove takes c out, wherever it stands.
func (q *queue) remove(c *client) {
	if c.inQueue != q {
		return
	}
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		q.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		q.last = c.prev
	}
	c.inQueue, c.prev, c.next = nil, nil, nil
	q.grew(-1)
}

func (q *queue) grew(by int) {
	q.size += by
	if q.of != nil {
		if q.of.size += by; q.size == 0 {
			q.of.emptied(q)
		}
	}
}

// pop takes the first, nil when there is none.
func (q *queue) pop() *client {
	c := q.first
	if c != nil {
		q.remove(c)
	}
	return c
}

// expired says whose time is over at now, counted from when it came or, later, from; nil when nobody's
// is. It stays in the queue.
func (q *queue) expired(now time.Time, limit time.Duration, from time.Time) *client {
	if q.first == nil || now.Before(q.due(limit, from)) {
		return nil
	}
	return q.first
}

// due is when the first one's time ends; zero when nobody waits.
func (q *queue) due(limit time.Duration, from time.Time) time.Time {
	if q.first == nil {
		return time.Time{}
	}
	if since := q.first.since; since.After(from) {
		return since.Add(limit)
	}
	return from.Add(limit)
}
