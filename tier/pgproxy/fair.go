package pgproxy

import (
	"slices"
	"time"
)

// maxNames is how many empty queues are kept for the next time.
const maxNames = 64

// fair are clients that wait for a connection, in turns: one of each application, in the order in which
// they came. A FIFO of all would let a service with a thousand clients make the others wait for all of them.
type fair struct {
	byName map[string]*queue
	turn   []*queue // those in which somebody waits; the first is the next
	size   int
}

func (f *fair) at(name string) *queue {
	q := f.byName[name]
	if q == nil {
		if f.byName == nil || len(f.byName) >= maxNames {
			f.byName = map[string]*queue{}
			for _, q := range f.turn {
				f.byName[q.name] = q
			}
		}
		q = &queue{of: f, name: name}
		f.byName[name] = q
	}
	return q
}

// push puts c at the end of its application's queue.
func (f *fair) push(c *client) {
	q := f.at(c.app)
	if q.size == 0 {
		f.turn = append(f.turn, q)
	}
	q.push(c)
}

// pushFront makes c the next of all: it waited already.
func (f *fair) pushFront(c *client) {
	q := f.at(c.app)
	if i := slices.Index(f.turn, q); i >= 0 {
		f.turn = slices.Delete(f.turn, i, i+1)
	}
	f.turn = slices.Insert(f.turn, 0, q)
	q.pushFront(c)
}

// pop takes the next, nil when there is none.
func (f *fair) pop() *client {
	if len(f.turn) == 0 {
		return nil
	}
	q := f.turn[0]
	c := q.pop()
	if len(f.turn) > 1 && f.turn[0] == q { // others are before its next
		copy(f.turn, f.turn[1:])
		f.turn[len(f.turn)-1] = q
	}
	return c
}

// next is who pop will give; nil when there is none.
func (f *fair) next() *client {
	if len(f.turn) == 0 {
		return nil
	}
	return f.turn[0].first
}

// emptied takes a queue out of the turns.
func (f *fair) emptied(q *queue) {
	if i := slices.Index(f.turn, q); i >= 0 {
		f.turn = slices.Delete(f.turn, i, i+1)
	}
}

// all are those that wait now; who waits no more when its turn in the loop comes is left out.
func (f *fair) all(yield func(*client) bool) {
	var list []*client
	for _, q := range f.turn {
		for c := q.first; c != nil; c = c.next {
			list = append(list, c)
		}
	}
	for _, c := range list {
		if c.inQueue != nil && c.inQueue.of == f && !yield(c) {
			return
		}
	}
}

// oldest is who waits for longest; nil when nobody does.
func (f *fair) oldest() (c *client) {
	for _, q := range f.turn {
		if c == nil || q.first.since.Before(c.since) {
			c = q.first
		}
	}
	return c
}

// expired is queue's, of whoever's time is over.
func (f *fair) expired(now time.Time, limit time.Duration, from time.Time) *client {
	for _, q := range f.turn {
		if c := q.expired(now, limit, from); c != nil {
			return c
		}
	}
	return nil
}

// due is queue's, the earliest.
func (f *fair) due(limit time.Duration, from time.Time) (due time.Time) {
	for _, q := range f.turn {
		if d := q.due(limit, from); due.IsZero() || d.Before(due) {
			due = d
		}
	}
	return due
}
