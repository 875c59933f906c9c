package cache

import (
	"fmt"
	"slices"
	"time"

	"tenfold"
	"tenfold/internal/keeper"
)

// The decisions of a cache: what to do next, by the record and by what was seen. Pure.
//
// Invariants, which decide_test.go holds over random worlds:
//   - A reader is promoted only when no process of the primary lives, or in a handover that the primary's
//     writes are held for; and after the record says so.
//   - A server that starts empty is never the primary while a reader has data: readers would follow it and be
//     empty too.
//   - No address is at two servers.

// staleLimit is how long a reader that lost its primary serves reads: beyond it the primary does.
const staleLimit = time.Minute

// sight is what was seen of one node.
type sight struct {
	Unit    keeper.Phase // "": the keeper has none
	PID     int
	Started time.Time
	Label   string // what it was started for, see basis
	Asked   bool   // its last end was asked for
	Exit    string // how it ended
	Hung    bool   // stopped, or silent for longer than a server can be
	Answers bool
	// The rest is known only of one that answers.
	Loading bool // its data, from disk
	Replica bool
	LinkUp  bool // a replica that follows
	Syncing bool // a replica that is given all data
	Fed     bool // this process has followed: it has data, also where that is none and its offset is 0
	Down    time.Duration
	Offset  int64
	Bind    []string // the addresses it listens at
	Tuned   bool     // it runs by the goal
	// Failures counts starts in a row that came to nothing.
	Failures int
}

// full says that a replica has the data of a primary, of now or of before its link broke.
func (s sight) full() bool {
	return s.Answers && s.Replica && !s.Loading && !s.Syncing && (s.LinkUp || s.Fed || s.Offset > 1)
}

// view is what was seen of a cache.
type view struct {
	Nodes map[int]sight
	// Followed are the readers that followed when the primary last answered.
	Followed map[int]bool
}

// verb is something to do.
type verb string

const (
	wait     verb = ""         // for something that is under way
	boot     verb = "boot"     // start the primary's server where it is
	follow   verb = "follow"   // start a reader's server
	fence    verb = "fence"    // kill a server that hangs
	promote  verb = "promote"  // a reader, of a primary that is dead
	finish   verb = "finish"   // a promotion that the record holds already
	handover verb = "handover" // in order, from a primary that lives
	demote   verb = "demote"   // one that is a primary and should be none
	cancel   verb = "cancel"   // a switchover that cannot be
	restart  verb = "restart"  // what cannot be changed while it runs
	tune     verb = "tune"     // the goal to a running server
	settle   verb = "settle"   // all runs by the goal
	listen   verb = "listen"   // addresses
	add      verb = "add"      // a reader
	dismiss  verb = "dismiss"  // a reader: it is to leave
	drop     verb = "drop"     // a reader that leaves
)

// step is what to do, to which node, and why in words for people.
type step struct {
	Do   verb
	Node int
	From int // of a handover
	Why  string
}

// next decides. goal says that the record does not yet say that the goal is served.
func (c cluster) next(s spec, goal bool, v view) step {
	p := v.Nodes[c.Primary]
	switch {
	case p.Unit == keeper.Stopping, p.Unit == keeper.Waiting:
		return step{}
	case p.Unit == keeper.Running && p.Hung:
		return step{Do: fence, Node: c.Primary, Why: "it does not answer"}
	case p.Unit == keeper.Running && (!p.Answers || p.Loading):
		return step{}
	case p.Unit == keeper.Running && p.Replica:
		if st, held := c.mute(v); held {
			return st
		}
		for _, n := range c.readers() {
			if x := v.Nodes[n.N]; x.Answers && !x.Replica {
				return step{Do: handover, Node: c.Primary, From: n.N}
			}
		}
		return step{Do: finish, Node: c.Primary}
	case p.Unit == keeper.Running:
		return c.tend(s, goal, v)
	}
	return c.succeed(s, v)
}

// succeed decides when the primary has ended.
func (c cluster) succeed(s spec, v view) step {
	again := step{Do: boot, Node: c.Primary}
	if st, held := c.mute(v); held {
		return st
	}
	heir, fresh := 0, false
	for _, n := range c.readers() {
		x := v.Nodes[n.N]
		if x.Answers && !x.Replica && !x.Loading { // of a handover that was cut off
			return step{Do: promote, Node: n.N, Why: "the one that was to take over ended first"}
		}
		if x.Unit != keeper.Running || !x.full() {
			continue
		}
		followed := v.Followed == nil || v.Followed[n.N]
		if heir == 0 || followed && !fresh || followed == fresh && x.Offset > v.Nodes[heir].Offset {
			heir, fresh = n.N, followed
		}
	}
	switch {
	case heir == 0:
		return again
	case !fresh && s.Persist && v.Nodes[c.Primary].Failures < 3:
		again.Why = fmt.Sprintf("reader %d did not follow", heir)
		return again
	case !fresh:
		return step{Do: promote, Node: heir, Why: "the primary ended, and the reader had not followed it to the end"}
	}
	return step{Do: promote, Node: heir, Why: "the primary ended"}
}

// mute waits for a server that does not answer, and ends one that hangs: it may be the one that has most, or
// the address, before another takes either.
func (c cluster) mute(v view) (st step, held bool) {
	for _, n := range c.readers() {
		switch x := v.Nodes[n.N]; {
		case x.Unit == keeper.Running && x.Hung:
			return step{Do: fence, Node: n.N, Why: "it does not answer"}, true
		case x.Unit == keeper.Running && !x.Answers:
			return step{}, true
		}
	}
	return step{}, false
}

// tend decides while the primary serves.
func (c cluster) tend(s spec, goal bool, v view) step {
	if v.Nodes[c.Primary].Label != s.basis() {
		return step{Do: restart, Node: c.Primary}
	}
	if c.Switch != 0 {
		if x := v.Nodes[c.Switch]; !c.has(c.Switch) || !x.full() || !x.LinkUp {
			return step{Do: cancel, Node: c.Switch, Why: fmt.Sprintf("reader %d does not follow", c.Switch)}
		}
		return step{Do: handover, Node: c.Switch, From: c.Primary}
	}
	for _, n := range c.Nodes {
		if x := v.Nodes[n.N]; x.Answers && !x.Loading && !x.Tuned {
			return step{Do: tune, Node: n.N}
		}
	}
	if goal {
		return step{Do: settle, Node: c.Primary}
	}
	for _, n := range c.readers() {
		if st := c.keep(s, n, v.Nodes[n.N]); st.Do != wait {
			return st
		}
	}
	if st := c.count(s, v); st.Do != wait {
		return st
	}
	for n, want := range c.assign(s, v) {
		if x := v.Nodes[n]; x.Answers && !x.Loading && !sameHosts(x.Bind, want) {
			return step{Do: listen}
		}
	}
	return step{}
}

// keep decides of one reader.
func (c cluster) keep(s spec, n node, x sight) step {
	switch {
	case n.Leaving:
		return step{Do: drop, Node: n.N}
	case x.Unit == keeper.Running && x.Hung:
		return step{Do: fence, Node: n.N, Why: "it does not answer"}
	case x.Unit == keeper.Running && x.Label != s.basis():
		return step{Do: restart, Node: n.N}
	case x.Unit == "" || x.Unit == keeper.Exited:
		return step{Do: follow, Node: n.N}
	case x.Answers && !x.Loading && !x.Replica:
		return step{Do: demote, Node: n.N}
	}
	return step{}
}

// count decides how many readers there are.
func (c cluster) count(s spec, v view) step {
	stay := c.staying()
	want := wanted(c.Readers, s.Readers)
	switch {
	case len(stay) < want:
		return step{Do: add}
	case len(stay) > want:
		// The one that is least of use goes: without data first, then the youngest.
		slices.SortFunc(stay, func(a, b node) int {
			if x, y := v.Nodes[a.N].LinkUp, v.Nodes[b.N].LinkUp; x != y {
				if x {
					return 1
				}
				return -1
			}
			return b.N - a.N
		})
		return step{Do: dismiss, Node: stay[0].N}
	}
	return step{}
}

func wanted(now int, b tenfold.Bounds) int { return min(max(now, b.Min), b.Max) }

// assign says at which addresses each node listens. One that has no data of its own yet is at no address that
// clients know.
func (c cluster) assign(s spec, v view) map[int][]string {
	out := map[int][]string{}
	for _, n := range c.Nodes {
		out[n.N] = []string{ownHost(n.N)}
	}
	p := v.Nodes[c.Primary]
	if !p.Answers || p.Replica {
		return out
	}
	out[c.Primary] = append(out[c.Primary], primaryHost)
	var serving []int
	for _, n := range c.staying() {
		if x := v.Nodes[n.N]; x.full() && (x.LinkUp || x.Down < staleLimit) {
			serving = append(serving, n.N)
		}
	}
	for i := range s.Readers.Max {
		n := c.Primary
		if len(serving) > 0 {
			n = serving[i%len(serving)]
		}
		out[n] = append(out[n], readHost(i))
	}
	return out
}

func sameHosts(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}
