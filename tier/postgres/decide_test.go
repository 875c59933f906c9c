package postgres

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"tenfold"
	"tenfold/internal/keeper"
	"tenfold/internal/pgrepl"
)

// An upgrade of Tenfold restarts nobody: these stood before databases had readers.
func TestFingerprintsStay(t *testing.T) {
	for want, d := range map[string]tenfold.Database{
		"1db9f9f35537f13d": {},
		"573f0e89d1c433f3": {Major: 17, Extensions: []string{"vector"}, Settings: map[string]string{"work_mem": "5MB"}, Line: 7},
	} {
		if got, err := tenfold.FingerprintOf(specOf(d), nil); err != nil || got != want {
			t.Errorf("%+v: %s, want %s (%v)", d, got, want, err)
		}
	}
}

// server is one node of a simulated world.
type server struct {
	unit     keeper.Phase
	asked    bool
	failures int
	recovery bool
	wal      pgrepl.LSN // on its disk
	epoch    uint64     // whose history it has
	final    bool
	gone     time.Duration
}

// world is a cluster without PostgreSQL: WAL is a number, a commit makes it grow.
type world struct {
	c     cluster
	s     spec
	nodes map[int]*server
	names []int      // the primary's synchronous_standby_names
	acked pgrepl.LSN // the last acknowledged commit
	rng   *rand.Rand
	log   []string
}

func (w *world) say(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

func (w *world) follows(n int) bool {
	p, x := w.nodes[w.c.Primary], w.nodes[n]
	m, ok := w.c.node(n)
	return ok && n != w.c.Primary && m.Stage == stageReady && x.unit == keeper.Running && x.recovery && p.unit == keeper.Running && !p.recovery && x.epoch == p.epoch && x.wal <= p.wal
}

func (w *world) view() view {
	v := view{Nodes: map[int]sight{}, Gone: map[int]time.Duration{}, Last: w.nodes[w.c.Primary].wal}
	for n, x := range w.nodes {
		s := sight{Unit: x.unit, Asked: x.asked, Failures: x.failures, Streaming: w.follows(n)}
		if s.Answers = x.unit == keeper.Running && w.rng.IntN(20) > 0; s.Answers { // now and then one is not seen
			s.Recovery, s.Position = x.recovery, x.wal
		}
		if x.unit == keeper.Exited && x.final {
			s.Final = x.wal - 1
		}
		if v.Nodes[n] = s; s.Streaming {
			x.gone = 0
		} else if slices.Contains(w.c.Sync, n) {
			v.Gone[n] = x.gone
		}
	}
	return v
}

// commit writes on the primary, sends to some readers, and acknowledges when it may.
func (w *world) commit() {
	p := w.nodes[w.c.Primary]
	if p.unit != keeper.Running || p.recovery {
		return
	}
	p.wal += pgrepl.LSN(1 + w.rng.IntN(3))
	enough := len(w.names) == 0
	for n, x := range w.nodes {
		if w.follows(n) && w.rng.IntN(3) > 0 {
			x.wal = p.wal
			enough = enough || slices.Contains(w.names, n)
		}
	}
	if enough {
		w.acked = p.wal
	}
}

// harm is what the world does to servers.
func (w *world) harm() {
	for n, x := range w.nodes {
		if x.unit == keeper.Running && w.rng.IntN(12) == 0 {
			x.unit, x.asked, x.final = keeper.Exited, false, false
			x.failures++
			w.say("node %d dies at %d", n, x.wal)
		}
		x.gone += time.Duration(w.rng.IntN(6)) * time.Second
	}
}

// mend is what the readers' own pursuit does.
func (w *world) mend() {
	p := w.nodes[w.c.Primary]
	serves := p.unit == keeper.Running && !p.recovery
	for _, n := range w.c.readers() {
		x := w.nodes[n.N]
		switch {
		case n.Stage != stageReady && serves && w.rng.IntN(3) == 0:
			x.wal, x.epoch = p.wal, p.epoch
			w.c.edit(n.N, func(m *node) { m.Stage = stageReady })
		case n.Stage == stageReady && x.unit != keeper.Running && w.rng.IntN(3) == 0:
			x.unit, x.recovery, x.failures = keeper.Running, true, 0
		case n.Stage == stageReady && x.unit == keeper.Running && serves && x.wal <= p.wal:
			x.epoch = p.epoch // it takes the new history
		}
	}
}

// do carries a step out, or only its first half, as a daemon does that is killed on the way.
func (w *world) do(t *testing.T, st step) {
	half := w.rng.IntN(6) == 0
	p := w.nodes[w.c.Primary]
	w.say("%s %d (half: %v) %+v", st.Do, st.Node, half, w.c)
	switch st.Do {
	case boot:
		p.unit, p.asked = keeper.Running, false
		if !p.recovery {
			w.names = slices.Clone(w.c.Sync)
		}
	case fence, hasten:
		p.unit = keeper.Exited
	case promote:
		if p.unit == keeper.Running || p.unit == keeper.Stopping {
			t.Fatal("promoted while the primary lives")
		}
		old, planned := w.c.Primary, st.Clean
		if w.s.Sync != "" && w.c.Armed && w.nodes[st.Node].wal < w.acked {
			t.Fatalf("node %d has %d, %d was acknowledged", st.Node, w.nodes[st.Node].wal, w.acked)
		}
		if w.s.Sync != "" && !w.c.Armed && !planned {
			t.Fatal("promoted although no reader has all commits")
		}
		if planned && w.nodes[st.Node].wal < p.wal {
			t.Fatal("a switchover lost something")
		}
		w.c.Epoch++
		w.c.Primary, w.c.Armed, w.c.Switch, w.c.Sync = st.Node, false, 0, nil
		w.c.edit(st.Node, func(n *node) { n.Leaving = false })
		if !planned {
			w.c.edit(old, func(n *node) { n.Stage = stageRejoin })
		}
		if w.s.Sync != "" {
			for _, n := range w.c.staying() {
				w.c.Sync = append(w.c.Sync, n.N)
			}
		}
		if w.s.Sync == "" {
			w.acked = w.nodes[st.Node].wal // what an asynchronous failover loses is lost
		}
		if !half {
			w.finish(t)
		}
	case finish:
		w.finish(t)
	case demote:
		for n := range w.nodes {
			if w.follows(n) && w.rng.IntN(5) > 0 {
				w.nodes[n].wal = p.wal
			}
		}
		p.unit, p.asked, p.final = keeper.Exited, true, true
	case cancel:
		w.c.Switch = 0
	case include:
		w.c.Sync = append(slices.Clone(w.c.Sync), st.Node)
		if !half {
			w.names = slices.Clone(w.c.Sync)
		}
	case exclude:
		rest := slices.DeleteFunc(slices.Clone(w.c.Sync), func(n int) bool { return n == st.Node })
		w.names = rest
		if !half && w.caught(rest) {
			w.c.Sync = rest
		}
	case arm:
		w.names = slices.Clone(w.c.Sync)
		if !half && w.caught(w.c.Sync) {
			w.c.Armed = true
		}
	case relax:
		w.c.Sync, w.c.Armed = nil, false
		if !half {
			w.names = nil
		}
	case add:
		n := 0
		for _, x := range w.c.Nodes {
			n = max(n, x.N)
		}
		w.c.Nodes = append(slices.Clone(w.c.Nodes), node{N: n + 1, Stage: stageNew})
		w.nodes[n+1] = &server{recovery: true}
	case dismiss:
		w.c.edit(st.Node, func(n *node) { n.Leaving = true })
	case drop:
		w.c.Nodes = slices.DeleteFunc(slices.Clone(w.c.Nodes), func(n node) bool { return n.N == st.Node })
		delete(w.nodes, st.Node)
	}
}

// caught sends what the primary has to one of some nodes that follows.
func (w *world) caught(among []int) bool {
	for _, n := range among {
		if w.follows(n) {
			w.nodes[n].wal = w.nodes[w.c.Primary].wal
			return true
		}
	}
	return false
}

func (w *world) finish(t *testing.T) {
	p := w.nodes[w.c.Primary]
	if p.unit != keeper.Running {
		return
	}
	for n, x := range w.nodes {
		if n != w.c.Primary && x.unit == keeper.Running && !x.recovery {
			t.Fatal("two primaries")
		}
		if n != w.c.Primary {
			x.recovery = true // whatever it was, it starts with standby.signal from now on
		}
	}
	p.recovery, p.epoch, w.names = false, w.c.Epoch, slices.Clone(w.c.Sync)
}

func TestRandomWorldsLoseNothingAndComeToRest(t *testing.T) {
	for seed := range uint64(500) {
		w := &world{rng: rand.New(rand.NewPCG(seed, 1))}
		w.s.Readers.Max = w.rng.IntN(4)
		w.s.Readers.Min = w.rng.IntN(w.s.Readers.Max + 1)
		w.s.Sync = []string{"", tenfold.SyncOn, tenfold.SyncStrict}[w.rng.IntN(3)]
		w.c = cluster{Nodes: []node{{N: 1}}, Primary: 1, Epoch: 1}
		w.nodes = map[int]*server{1: {epoch: 1, wal: 1}}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			defer func() {
				if t.Failed() {
					for _, l := range w.log[max(0, len(w.log)-25):] {
						t.Log(l)
					}
				}
			}()
			for range 300 {
				switch w.rng.IntN(5) {
				case 0:
					w.harm()
				case 1:
					w.c.Readers = w.rng.IntN(5)
				case 2:
					if len(w.c.readers()) > 0 && w.rng.IntN(8) == 0 {
						w.c.Switch = w.c.readers()[w.rng.IntN(len(w.c.readers()))].N
					}
				}
				w.commit()
				w.mend()
				epoch := w.c.Epoch
				if st := w.c.next(w.s, false, w.view()); st.Do != wait {
					w.do(t, st)
				}
				if w.c.Epoch < epoch || w.c.Epoch > epoch+1 {
					t.Fatal("the epoch jumped")
				}
				if p := w.nodes[w.c.Primary]; w.s.Sync != "" && p.unit == keeper.Running && !p.recovery && p.wal < w.acked {
					t.Fatalf("the primary has %d, %d was acknowledged", p.wal, w.acked)
				}
			}
			// Left alone it comes to rest with as many readers as are wanted, and stays there.
			quiet := 0
			for range 400 {
				for _, x := range w.nodes {
					x.gone += 3 * time.Second
				}
				w.mend()
				w.commit()
				if st := w.c.next(w.s, false, w.view()); st.Do != wait {
					quiet = 0
					w.do(t, st)
				} else {
					quiet++
				}
			}
			want := min(max(w.c.Readers, w.s.Readers.Min), w.s.Readers.Max)
			if len(w.c.readers()) != want || quiet < 100 {
				t.Fatalf("%d readers, want %d; quiet for %d rounds: %+v", len(w.c.readers()), want, quiet, w.c)
			}
			if w.s.Sync != "" && want > 0 && !w.c.Armed {
				t.Fatalf("commits are not on two nodes: %+v", w.c)
			}
		})
		if t.Failed() {
			return
		}
	}
}
