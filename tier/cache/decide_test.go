package cache

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"tenfold/internal/keeper"
)

// server is a server of a random world: what it would be, beside what can be seen of it.
type server struct {
	sight
	data int // how many writes it has
}

type world struct {
	rng   *rand.Rand
	s     spec
	c     cluster
	nodes map[int]*server
	seen  map[int]bool // who followed when the primary answered last
	log   []string
}

func (w *world) view() view {
	v := view{Nodes: map[int]sight{}, Followed: w.seen}
	for n, x := range w.nodes {
		s := x.sight
		s.Answers = x.Unit == keeper.Running && !x.Hung
		s.Label, s.Tuned, s.Offset = w.s.basis(), true, int64(x.data)
		s.Replica = s.Replica && s.Answers
		v.Nodes[n] = s
	}
	if p := v.Nodes[w.c.Primary]; p.Answers && !p.Replica {
		w.seen = map[int]bool{}
		for n, s := range v.Nodes {
			w.seen[n] = s.LinkUp
		}
		v.Followed = w.seen
	}
	return v
}

// holder is who has the primary's address.
func (w *world) holder() (n int) {
	for m, x := range w.nodes {
		if x.Unit == keeper.Running && slices.Contains(x.Bind, primaryHost) {
			n = m
		}
	}
	return n
}

// pass lets time pass: replicas follow whoever has the address and is a primary.
func (w *world) pass() {
	h := w.nodes[w.holder()]
	for n, x := range w.nodes {
		if x.Unit != keeper.Running || !x.Replica {
			continue
		}
		x.LinkUp = h != nil && n != w.holder() && !h.Replica && !h.Hung && w.rng.IntN(10) > 0
		if x.LinkUp {
			x.data, x.Down = h.data, 0
		} else {
			x.Down += 5 * time.Second
		}
	}
	if h != nil && !h.Replica && !h.Hung {
		h.data++
	}
}

func (w *world) harm() {
	n := w.c.Nodes[w.rng.IntN(len(w.c.Nodes))].N
	x := w.nodes[n]
	switch w.rng.IntN(4) {
	case 0, 1:
		x.die(w.s.Persist)
	case 2:
		x.Hung = x.Unit == keeper.Running
	case 3:
		x.LinkUp = false
	}
}

func (x *server) die(persist bool) {
	*x = server{sight: sight{Unit: keeper.Exited}, data: x.data}
	if !persist {
		x.data = 0
	}
}

func (w *world) do(t *testing.T, st step) {
	w.log = append(w.log, fmt.Sprintf("%+v of %+v", st, w.c))
	x := w.nodes[st.Node]
	half := w.rng.IntN(6) == 0 // the daemon dies in the middle
	switch st.Do {
	case boot:
		for n, y := range w.nodes {
			if n != st.Node && y.Unit == keeper.Running && y.data > 0 && w.seen[n] && x.data == 0 && y.full0() {
				t.Fatalf("an empty server is the primary, and reader %d had data", n)
			}
		}
		x.sight = sight{Unit: keeper.Running, Bind: []string{ownHost(st.Node), primaryHost}}
	case follow:
		x.sight = sight{Unit: keeper.Running, Replica: true, Bind: []string{ownHost(st.Node)}}
	case fence:
		x.die(w.s.Persist)
	case promote:
		if p := w.nodes[w.c.Primary]; p.Unit == keeper.Running {
			t.Fatal("promoted while the primary lives")
		}
		w.c.Primary = st.Node
		w.c.Epoch++
		w.c.Switch = 0
		w.c.edit(st.Node, func(n *node) { n.Leaving = false })
		if !half {
			w.lead(st.Node)
		}
	case finish:
		w.lead(st.Node)
	case handover:
		from := w.nodes[st.From]
		x.data = from.data // writes are held until it has all
		if w.c.Primary != st.Node {
			w.c.Epoch++
		}
		w.c.Primary, w.c.Switch = st.Node, 0
		w.c.edit(st.Node, func(n *node) { n.Leaving = false })
		if half {
			return
		}
		from.Bind, from.Replica = []string{ownHost(st.From)}, true
		w.lead(st.Node)
	case demote:
		x.Replica, x.Bind = true, []string{ownHost(st.Node)}
	case cancel:
		w.c.Switch = 0
	case listen:
		want := w.c.assign(w.s, w.view())
		for n, hosts := range want {
			w.nodes[n].Bind = hosts
		}
	case add:
		n := w.c.free()
		w.c.Nodes = append(slices.Clone(w.c.Nodes), node{N: n})
		w.nodes[n] = &server{}
	case dismiss:
		w.c.edit(st.Node, func(n *node) { n.Leaving = true })
	case drop:
		w.c.Nodes = slices.DeleteFunc(slices.Clone(w.c.Nodes), func(n node) bool { return n.N == st.Node })
		delete(w.nodes, st.Node)
	default:
		t.Fatalf("%+v", st)
	}
}

// full0 is full of a server that answers.
func (x *server) full0() bool { return x.Replica && !x.Hung && !x.Loading && x.data > 1 }

func (w *world) lead(n int) {
	x := w.nodes[n]
	if x.Unit != keeper.Running {
		return
	}
	x.Replica, x.LinkUp = false, false
	if !slices.Contains(x.Bind, primaryHost) {
		x.Bind = append(slices.Clone(x.Bind), primaryHost)
	}
}

func (w *world) check(t *testing.T) {
	at := map[string]int{}
	for n, x := range w.nodes {
		if x.Unit != keeper.Running {
			continue
		}
		for _, h := range x.Bind {
			if o, ok := at[h]; ok {
				t.Fatalf("%s is at %d and %d", h, o, n)
			}
			at[h] = n
		}
		if !slices.Contains(x.Bind, ownHost(n)) {
			t.Fatalf("%d is not at its own address", n)
		}
	}
}

func TestRandomWorldsHaveOneServerAtAnAddressAndComeToRest(t *testing.T) {
	for seed := range uint64(200) {
		w := &world{rng: rand.New(rand.NewPCG(seed, 1))}
		w.s.Readers.Max = w.rng.IntN(4)
		w.s.Readers.Min = w.rng.IntN(w.s.Readers.Max + 1)
		w.s.Persist = w.rng.IntN(2) == 0
		w.c = cluster{Nodes: []node{{N: 1}}, Primary: 1, Epoch: 1}
		w.nodes = map[int]*server{1: {}}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			defer func() {
				if t.Failed() {
					for _, l := range w.log[max(0, len(w.log)-25):] {
						t.Log(l)
					}
				}
			}()
			for range 300 {
				switch w.rng.IntN(6) {
				case 0:
					w.harm()
				case 1:
					w.c.Readers = w.rng.IntN(5)
				case 2:
					if rs := w.c.staying(); len(rs) > 0 && w.rng.IntN(8) == 0 {
						w.c.Switch = rs[w.rng.IntN(len(rs))].N
					}
				}
				w.pass()
				epoch := w.c.Epoch
				if st := w.c.next(w.s, false, w.view()); st.Do != wait {
					w.do(t, st)
				}
				if w.c.Epoch < epoch || w.c.Epoch > epoch+1 {
					t.Fatal("the epoch jumped")
				}
				w.check(t)
			}
			// Left alone it comes to rest with as many readers as are wanted, each at its place.
			for _, x := range w.nodes {
				x.Hung = false
			}
			quiet := 0
			for range 300 {
				h := w.nodes[w.holder()]
				for n, x := range w.nodes {
					if x.Replica && x.Unit == keeper.Running && h != nil && !h.Replica && n != w.holder() {
						x.LinkUp, x.data, x.Down = true, h.data, 0
					}
				}
				if st := w.c.next(w.s, false, w.view()); st.Do != wait {
					quiet = 0
					w.do(t, st)
				} else {
					quiet++
				}
				w.check(t)
			}
			want := wanted(w.c.Readers, w.s.Readers)
			if len(w.c.readers()) != want || quiet < 100 || w.holder() != w.c.Primary {
				t.Fatalf("%d readers, want %d; quiet for %d rounds; %d has the address: %+v", len(w.c.readers()), want, quiet, w.holder(), w.c)
			}
			for i := range w.s.Readers.Max {
				at := 0
				for n, x := range w.nodes {
					if slices.Contains(x.Bind, readHost(i)) {
						at = n
					}
				}
				if at == 0 || want > 0 && at == w.c.Primary {
					t.Fatalf("%s is at %d", readHost(i), at)
				}
			}
		})
		if t.Failed() {
			return
		}
	}
}

func TestUnitsAreNamedAndRead(t *testing.T) {
	for _, key := range []string{"shop/production/cache/hot", "shop/preview/fix/cache/hot2"} {
		for _, n := range []int{1, 2, 17} {
			if k, m, ok := parseUnit(unitOf(key, n)); !ok || k != key || m != n {
				t.Errorf("%s %d: %s %d %t", key, n, k, m, ok)
			}
		}
	}
	for _, bad := range []string{"cache/shop", "cache/shop/production/cache/1", "database/shop/production/cache/hot", "cache/shop/production/cache/hot/1"} {
		if k, n, ok := parseUnit(bad); ok {
			t.Errorf("%s: %s %d", bad, k, n)
		}
	}
}
