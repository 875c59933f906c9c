package kv

import (
	"runtime"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Writers share syncs: who writes joins the group that is gathering, applies its batch without a sync, and waits
// for the group's, which is one sync of the log after the last of them applied. While it runs the next gathers.
//
// Pebble shares syncs too, but wakes its log's thread for each writer and begins with whoever comes first. Here a
// sync lets everybody go before it who is ready to run, since they bring their writes along: with 32 clients and two
// busy processors a third of the futex calls and of the waits of sysmon are left, and two thirds of the switches.
// Waiting longer, for a time or for as many as the last group had, saves nothing more and keeps few clients waiting.

// gatherLimit is how long a sync waits at most for writers who are ready to run.
const gatherLimit = time.Millisecond

// Group is some writes that reach the disk together. Groups reach it in the order in which they were joined.
type Group struct {
	d    *DB
	in   sync.WaitGroup // those who have joined and not applied yet
	n    int            // joined; under DB.joining
	done chan struct{}
	err  error // once done is closed
}

// Join joins the group that is gathering. Apply has to follow.
func (d *DB) Join() *Group {
	d.joining.Lock()
	g := d.gathering
	if g == nil {
		g = &Group{d: d, done: make(chan struct{})}
		d.gathering = g
	}
	g.n++
	g.in.Add(1)
	first := g.n == 1
	d.joining.Unlock()
	if first {
		d.begin <- g
	}
	return g
}

// Apply applies a batch, so that who reads after it sees it. It is not on disk before Wait says so.
func (g *Group) Apply(b *pebble.Batch) error {
	defer g.in.Done()
	return g.d.DB.Apply(b, pebble.NoSync)
}

// Wait waits until the group is on disk.
func (g *Group) Wait() error {
	<-g.done
	return g.err
}

// Commit applies a batch and waits until it is on disk.
func (d *DB) Commit(b *pebble.Batch) error {
	g := d.Join()
	if err := g.Apply(b); err != nil {
		return err
	}
	return g.Wait()
}

// sync syncs one group after the other until there will be none.
func (d *DB) sync() {
	for g := range d.begin {
		d.gather(g)
		g.in.Wait()
		g.err = d.LogData(nil, pebble.Sync)
		close(g.done)
	}
}

// gather waits while writers come that only a processor keeps from joining, and closes the group to others.
func (d *DB) gather(g *Group) {
	begun := time.Now()
	for before := 0; ; runtime.Gosched() {
		d.joining.Lock()
		n := g.n
		if n == before || time.Since(begun) > gatherLimit {
			d.gathering = nil
			d.joining.Unlock()
			return
		}
		d.joining.Unlock()
		before = n
	}
}
