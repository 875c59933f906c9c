package postgres

import (
	"fmt"
	"slices"
	"time"

	"tenfold"
	"tenfold/internal/keeper"
	"tenfold/internal/pgrepl"
)

// The decisions of a cluster: what to do next, by the record and by what was seen. Pure.
//
// Invariants, which decide_test.go holds over random worlds:
//   - A node is promoted only when no process of the primary lives, and after the record says so: there is
//     never a second one that could acknowledge a commit.
//   - In synchronous mode the promoted node has every acknowledged commit. A commit is acknowledged when
//     one of Sync has it, so the one with most WAL among *all* of Sync has all of them, and with one of
//     Sync not asked nobody is promoted: the old primary starts again where it is, which loses nothing.
//   - Sync grows in the record before it does at the primary, and shrinks in the other order.
//
// The obvious design, "promote the most advanced reader that answers", lost: the one that does not
// answer may be the one that acknowledged last.

// How patient a cluster is.
const (
	syncPatience = 10 * time.Second // with no synchronous reader, before commits go on without
	// lossLimit is how much WAL an asynchronous failover may lose, by the primary's last known
	// position: beyond it the primary is started again instead.
	lossLimit = 16 << 20
)

// sight is what was seen of one node.
type sight struct {
	Unit    keeper.Phase // "": the keeper has none
	PID     int
	Started time.Time
	Asked   bool // its last end was asked for
	// Failures counts ends in a row soon after a start.
	Failures int
	Hung     bool // stopped, or silent for longer than a server can be
	Answers  bool
	// The rest is known only of one that answers.
	Recovery bool
	// Position is what a reader has received, and what a primary has flushed; 0: not known.
	Position pgrepl.LSN
	// Streaming says that a reader is sent the primary's WAL now.
	Streaming bool
	// Final is the last position of a server that was shut down in order; 0: it was not.
	Final pgrepl.LSN
}

// view is what was seen of a cluster.
type view struct {
	Nodes map[int]sight
	// Last is the primary's last known position.
	Last pgrepl.LSN
	// Gone is how long each node of Sync has not streamed; absent: it does.
	Gone map[int]time.Duration
}

// verb is something to do.
type verb string

const (
	wait    verb = ""        // for something that is under way
	boot    verb = "boot"    // start the primary's server where it is
	fence   verb = "fence"   // kill a primary that hangs
	hasten  verb = "hasten"  // kill what a dead primary left running
	promote verb = "promote" // a new epoch
	finish  verb = "finish"  // a promotion that the record holds already
	demote  verb = "demote"  // end the primary in order, for a switchover
	cancel  verb = "cancel"  // a switchover that cannot be
	apply   verb = "apply"   // the goal to a running primary
	include verb = "include" // a reader among those that a commit waits for
	exclude verb = "exclude" // it from them
	arm     verb = "arm"     // note that commits are safe
	relax   verb = "relax"   // commits wait for nobody
	add     verb = "add"     // a reader
	dismiss verb = "dismiss" // a reader: it is to leave
	drop    verb = "drop"    // a reader that leaves
)

// step is what to do, to which node, and why in words for people.
type step struct {
	Do   verb
	Node int
	Why  string
	// Alarm says that people should know.
	Alarm bool
	// Clean says of a promotion that the old primary was shut down in order and the new one has all of
	// it: the old one can follow as it is.
	Clean bool
}

// next decides. goal says that the spec is not yet what the primary runs by.
func (c cluster) next(s spec, goal bool, v view) step {
	p := v.Nodes[c.Primary]
	switch {
	case p.Unit == keeper.Stopping && p.Asked, p.Unit == keeper.Waiting:
		return step{}
	case p.Unit == keeper.Stopping:
		return step{Do: hasten, Node: c.Primary}
	case p.Unit == keeper.Running && p.Hung:
		return step{Do: fence, Node: c.Primary, Why: "it does not answer"}
	case p.Unit == keeper.Running && !p.Answers:
		return step{}
	case p.Unit == keeper.Running && p.Recovery:
		return step{Do: finish, Node: c.Primary}
	case p.Unit == keeper.Running:
		return c.tend(s, goal, v)
	}
	return c.succeed(s, v)
}

// succeed decides when the primary has ended with all its processes.
func (c cluster) succeed(s spec, v view) step {
	p := v.Nodes[c.Primary]
	again := step{Do: boot, Node: c.Primary}
	if c.Switch != 0 && p.Final > 0 {
		to := v.Nodes[c.Switch]
		if to.Answers && to.Recovery && to.Position > p.Final {
			return step{Do: promote, Node: c.Switch, Why: "switchover", Clean: true}
		}
		if to.Answers && to.Recovery && to.Streaming {
			return step{} // the end of the WAL is on its way
		}
		return step{Do: cancel, Node: c.Switch, Why: fmt.Sprintf("reader %d did not get the end of the WAL", c.Switch)}
	}
	if p.Unit == "" || p.Asked {
		return again // the house was down, or we stopped it for a restart
	}
	heir, why := c.heir(s, v)
	if heir == 0 {
		again.Why = why
		return again
	}
	return step{Do: promote, Node: heir, Why: "the primary ended"}
}

// heir is the reader to promote after the primary's death, or 0 with the reason why there is none.
func (c cluster) heir(s spec, v view) (int, string) {
	best, at := 0, pgrepl.LSN(0)
	for _, n := range c.readers() {
		x := v.Nodes[n.N]
		if n.sound() && x.Unit == keeper.Running && x.Answers && x.Recovery && x.Position > 0 && (best == 0 || x.Position > at) {
			best, at = n.N, x.Position
		}
	}
	if best == 0 {
		return 0, ""
	}
	// A primary that cannot start leaves no better choice than a reader with a gap.
	desperate := v.Nodes[c.Primary].Failures >= 3
	if s.Sync == "" {
		if v.Last > at && v.Last-at > lossLimit && !desperate {
			return 0, fmt.Sprintf("reader %d is %d MB behind", best, (v.Last-at)>>20)
		}
		return best, ""
	}
	if !c.Armed {
		return 0, "no reader has all commits"
	}
	for _, m := range c.Sync {
		if x := v.Nodes[m]; !x.Answers || x.Position == 0 || x.Position > at {
			return 0, fmt.Sprintf("reader %d may have commits that the others have not", m)
		}
	}
	return best, ""
}

// tend decides while the primary serves.
func (c cluster) tend(s spec, goal bool, v view) step {
	if goal {
		return step{Do: apply, Node: c.Primary}
	}
	if c.Switch != 0 {
		if n, ok := c.node(c.Switch); !ok || !n.sound() || !v.Nodes[n.N].Streaming {
			return step{Do: cancel, Node: c.Switch, Why: fmt.Sprintf("reader %d does not follow", c.Switch)}
		}
		return step{Do: demote, Node: c.Primary}
	}
	if st := c.guard(s, v); st.Do != wait {
		return st
	}
	for _, n := range c.readers() {
		if n.Leaving && !slices.Contains(c.Sync, n.N) {
			return step{Do: drop, Node: n.N}
		}
	}
	stay := c.staying()
	want := min(max(c.Readers, s.Readers.Min), s.Readers.Max)
	switch {
	case len(stay) < want:
		return step{Do: add}
	case len(stay) > want:
		// The one that is least of use goes: without data first, then the youngest.
		slices.SortFunc(stay, func(a, b node) int {
			if x, y := v.Nodes[a.N].Streaming, v.Nodes[b.N].Streaming; x != y {
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

// guard decides which readers a commit waits for.
func (c cluster) guard(s spec, v view) step {
	if s.Sync == "" || s.Readers.Max == 0 {
		if len(c.Sync) > 0 {
			return step{Do: relax, Why: "the manifest asks for no synchronous commits"}
		}
		return step{}
	}
	following := 0 // of Sync
	for _, m := range c.Sync {
		if v.Nodes[m].Streaming {
			following++
		}
	}
	for _, n := range c.readers() {
		// Strict names a reader before it follows: with none, commits wait from the first moment on.
		ready := n.sound() && v.Nodes[n.N].Streaming || s.Sync == tenfold.SyncStrict
		if ready && !n.Leaving && !slices.Contains(c.Sync, n.N) {
			return step{Do: include, Node: n.N}
		}
	}
	if !c.Armed && following > 0 {
		return step{Do: arm}
	}
	if len(c.Sync) > 0 && following == 0 {
		for _, m := range c.Sync {
			if v.Gone[m] < syncPatience {
				return step{}
			}
		}
		if s.Sync == tenfold.SyncOn {
			return step{Do: relax, Why: fmt.Sprintf("no synchronous reader for %s: commits are acknowledged on the primary alone, and no reader is promoted until one has caught up", syncPatience), Alarm: true}
		}
		return step{}
	}
	for _, m := range c.Sync {
		n, known := c.node(m)
		others := following
		if v.Nodes[m].Streaming {
			others--
		}
		if n.Leaving && len(c.Sync) == 1 && len(c.staying()) == 0 {
			return step{Do: relax, Why: "the last reader leaves"}
		}
		if (!known || n.Leaving || v.Gone[m] >= syncPatience && s.Sync == tenfold.SyncOn) && others > 0 {
			return step{Do: exclude, Node: m}
		}
	}
	return step{}
}
