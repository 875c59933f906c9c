package queue

import (
	"bytes"
	"container/heap"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// queue is one queue. Messages are numbered in the order in which they came.
type queue struct {
	s *Store

	mu   sync.Mutex
	m    meta
	gone bool
	next uint64 // number of the next message

	// committing are numbers of messages that are on their way to disk, done those that are there behind
	// them: messages come in their order.
	committing map[uint64]bool
	done       []arrival

	ready  ordered[ready]    // of a standard queue: those without a group that can be given out
	groups map[string]*group // all of a queue in order; of another those that have a MessageGroupId
	// open are groups that have something to give out, quiet ones first, then by their first message; of a queue in
	// order only those that have nothing in flight.
	open   ordered[*group]
	hidden map[uint64]*hidden // given out, or delayed
	due    ordered[*hidden]   // of hidden, by when they are seen again
	// sending are deduplication keys that are on their way to disk: others that have the same wait.
	sending map[string]chan struct{}
	flying  int                 // of hidden: not those that are delayed
	tries   map[string]*attempt // of ReceiveRequestAttemptId
	purged  time.Time           // the last time; forgotten with the process

	timer   *time.Timer
	waiters map[chan struct{}]bool
	dead    redrive
	moves   []*move

	sent, received, deleted uint64
}

type arrival struct {
	n     uint64
	group string
	seen  time.Time // zero: at once
}

// group is the messages of one MessageGroupId, in order.
type group struct {
	name   string
	wait   []uint64
	flight int
	place  int // in open; -1: not there
}

// noise says how much more of a queue's time a group takes than others need mind: 0 for one with little in flight,
// and one more each time that doubles. A quieter group's messages go first, as in SQS' fair queues, which say
// nothing of how they measure it.
func (g *group) noise() int { return bits.Len(uint(g.flight / quiet)) }

// quiet is how many messages in flight make no group noisy, but for one less.
const quiet = 8

// hidden is a message that is not seen now.
type hidden struct {
	n       uint64
	until   time.Time
	delayed bool
	nonce   uint64
	group   string
	place   int // in due
}

// stored is a message as it is on disk.
type stored struct {
	ID      string               `json:"id"`
	Body    string               `json:"body"`
	Attrs   map[string]attribute `json:"attrs,omitempty"`
	System  map[string]attribute `json:"system,omitempty"`
	Sent    int64                `json:"sent"` // Unix milliseconds
	Seen    int64                `json:"seen,omitempty"`
	Group   string               `json:"group,omitempty"`
	Dedupe  string               `json:"dedupe,omitempty"`
	By      string               `json:"by"`
	Source  string               `json:"source,omitempty"` // ARN of the queue that gave it up
	SentSeq uint64               `json:"seq,omitempty"`    // its number where it was sent, if that was elsewhere
}

// attribute is a message attribute.
type attribute struct {
	DataType    string
	StringValue *string `json:",omitempty"`
	BinaryValue []byte  `json:",omitempty"`
}

// state is what became of a message; it is written without waiting for the disk.
type state struct {
	Count int    `json:"c"`
	First int64  `json:"f"` // Unix milliseconds
	Nonce uint64 `json:"n"`
	Until int64  `json:"u"`
}

type attempt struct {
	numbers []uint64
	until   time.Time
}

func (s *Store) empty(m meta) *queue {
	q := &queue{s: s, m: m, next: 1, committing: map[uint64]bool{}, groups: map[string]*group{}, hidden: map[uint64]*hidden{}, sending: map[string]chan struct{}{}, tries: map[string]*attempt{}, waiters: map[chan struct{}]bool{}}
	q.settle()
	return q
}

// settle reads what of the attributes is asked for often. Under mu, or before others know of q.
func (q *queue) settle() {
	q.dead = redrive{}
	if p := q.m.Attrs["RedrivePolicy"]; p != "" {
		json.Unmarshal([]byte(p), &q.dead) // was checked when it was set
	}
}

func (q *queue) name() string { return q.m.Account + "/" + q.m.Name }

func (q *queue) fifo() bool { return strings.HasSuffix(q.m.Name, ".fifo") }

func (q *queue) attr(name string) int {
	if n, err := strconv.Atoi(q.m.Attrs[name]); err == nil {
		return n
	}
	return attributes[name].deflt
}

func (q *queue) save() error {
	b, err := json.Marshal(q.m)
	if err != nil {
		return err
	}
	return q.s.db.Set(metaKey(place{q.m.Account, q.m.Name}), b, pebble.Sync)
}

// load reads which messages a queue has.
func (s *Store) load(m meta) (*queue, error) {
	q := s.empty(m)
	now := s.cfg.Now()
	states := map[uint64]state{}
	err := s.each('s', m.ID, func(n uint64, v []byte) error {
		var st state
		if err := json.Unmarshal(v, &st); err != nil {
			return err
		}
		if time.UnixMilli(st.Until).After(now) {
			states[n] = st
		}
		q.next = max(q.next, n+1)
		return nil
	})
	if err != nil {
		return nil, err
	}
	fifo := q.fifo()
	err = s.each('b', m.ID, func(n uint64, v []byte) error {
		var x struct {
			Seen  int64  `json:"seen"`
			Group string `json:"group"`
		}
		end := v[max(0, len(v)-2048):]
		if fifo || bytes.Contains(end, []byte(`"seen"`)) || bytes.Contains(end, []byte(`"group"`)) {
			if err := json.Unmarshal(v, &x); err != nil {
				return err
			}
		}
		q.next = max(q.next, n+1)
		a := arrival{n: n, group: x.Group, seen: time.UnixMilli(x.Seen)}
		if st, ok := states[n]; ok { // still with who got it, as far as is known
			q.hide(&hidden{n: n, until: time.UnixMilli(st.Until), nonce: st.Nonce, group: x.Group})
			return nil
		}
		q.arrive(a, now)
		return nil
	})
	if err != nil {
		return nil, err
	}
	q.arm(now)
	return q, nil
}

// each calls f for the messages of a kind, by number.
func (s *Store) each(kind byte, id uint64, f func(n uint64, v []byte) error) error {
	low, high := span(kind, id)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: low, UpperBound: high})
	if err != nil {
		return err
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		if err := f(binary.BigEndian.Uint64(it.Key()[10:]), it.Value()); err != nil {
			return err
		}
	}
	return it.Error()
}

// arrive has a message be given out, at once or when it is due. Under mu.
func (q *queue) arrive(a arrival, now time.Time) {
	if a.seen.After(now) {
		q.hide(&hidden{n: a.n, until: a.seen, delayed: true, group: a.group})
		return
	}
	q.show(a.n, a.group)
}

// show puts a message among those that can be given out. Under mu.
func (q *queue) show(n uint64, of string) {
	if !q.grouped(of) {
		heap.Push(&q.ready, ready(n))
		return
	}
	g := q.group(of)
	if i, found := slices.BinarySearch(g.wait, n); !found {
		g.wait = slices.Insert(g.wait, i, n)
	}
	q.place(g)
}

// grouped says whether a message's MessageGroupId makes it one of a group.
func (q *queue) grouped(name string) bool { return name != "" || q.fifo() }

// group finds a group, or makes it. Under mu.
func (q *queue) group(name string) *group {
	g := q.groups[name]
	if g == nil {
		g = &group{name: name, place: -1}
		q.groups[name] = g
	}
	return g
}

// withdraw takes a message out of those that can be given out. Under mu.
func (q *queue) withdraw(n uint64, of string) {
	if !q.grouped(of) {
		if i := slices.Index(q.ready, ready(n)); i >= 0 {
			heap.Remove(&q.ready, i)
		}
		return
	}
	if g := q.groups[of]; g != nil {
		if i, found := slices.BinarySearch(g.wait, n); found {
			g.wait = slices.Delete(g.wait, i, i+1)
			q.place(g)
		}
	}
}

// flies says whether a hidden message counts as one that its group has in flight.
func (q *queue) flies(h *hidden) bool { return q.fifo() || h.group != "" && !h.delayed }

// place has a group stand in open exactly when it has something to give. Under mu.
func (q *queue) place(g *group) {
	can := len(g.wait) > 0 && (g.flight == 0 || !q.fifo())
	switch {
	case can && g.place < 0:
		heap.Push(&q.open, g)
	case can:
		heap.Fix(&q.open, g.place)
	case g.place >= 0:
		heap.Remove(&q.open, g.place)
	}
	if len(g.wait) == 0 && g.flight == 0 {
		delete(q.groups, g.name)
	}
}

// hide takes a message out of sight. Under mu.
func (q *queue) hide(h *hidden) {
	q.hidden[h.n] = h
	heap.Push(&q.due, h)
	if !h.delayed {
		q.flying++
	}
	if q.flies(h) {
		g := q.group(h.group)
		g.flight++
		q.place(g)
	}
}

// unhide forgets that a message is out of sight. Under mu.
func (q *queue) unhide(h *hidden) {
	delete(q.hidden, h.n)
	heap.Remove(&q.due, h.place)
	if !h.delayed {
		q.flying--
	}
	if g := q.groups[h.group]; g != nil && q.flies(h) {
		g.flight--
		q.place(g)
	}
}

// settleDue shows what is due by now, and has the timer set for the next. Under mu.
func (q *queue) settleDue(now time.Time) {
	for len(q.due) > 0 && !q.due[0].until.After(now) {
		h := q.due[0]
		q.show(h.n, h.group) // first: the group stays known
		q.unhide(h)
	}
}

func (q *queue) available() bool { return len(q.ready) > 0 || len(q.open) > 0 }

// arm sets the timer for what is due next, and wakes who waits for what is there. Under mu.
func (q *queue) arm(now time.Time) {
	if q.available() {
		q.wakeAll()
	}
	if len(q.due) == 0 || q.gone {
		return
	}
	d := max(0, q.due[0].until.Sub(now))
	if q.timer == nil {
		q.timer = time.AfterFunc(d, func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			now := q.s.cfg.Now()
			q.settleDue(now)
			q.arm(now)
		})
		return
	}
	q.timer.Reset(d)
}

func (q *queue) stopTimer() {
	if q.timer != nil {
		q.timer.Stop()
	}
}

func (q *queue) wakeAll() {
	for w := range q.waiters {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

var errGone = errors.New("the queue was deleted")

// reserve waits until nobody else sends with one of the keys, and keeps others waiting until the function
// that it returns is called. keys are sorted, so that two of them never wait for each other.
func (q *queue) reserve(keys []string) (done func()) {
	for _, k := range keys {
		for {
			q.mu.Lock()
			busy := q.sending[k]
			if busy == nil {
				q.sending[k] = make(chan struct{})
			}
			q.mu.Unlock()
			if busy == nil {
				break
			}
			<-busy
		}
	}
	return func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		for _, k := range keys {
			close(q.sending[k])
			delete(q.sending, k)
		}
	}
}

// put stores messages in one write and returns their numbers; keys are their deduplication keys, or "".
func (q *queue) put(all []*stored, keys []string) ([]uint64, error) {
	if err := q.s.db.Writable(); err != nil {
		return nil, err
	}
	now := q.s.cfg.Now()
	b := q.s.db.NewBatch()
	defer b.Close()
	q.mu.Lock()
	if q.gone {
		q.mu.Unlock()
		return nil, errGone
	}
	numbers := make([]uint64, len(all))
	for i, m := range all {
		n := q.next
		q.next++
		numbers[i], q.committing[n] = n, true
		if q.fifo() && m.SentSeq == 0 {
			m.SentSeq = n
		}
	}
	q.mu.Unlock()
	err := func() error {
		for i, m := range all {
			v, err := json.Marshal(m)
			if err != nil {
				return err
			}
			b.Set(numbered('b', q.m.ID, numbers[i]), v, nil)
			if len(keys) > i && keys[i] != "" {
				v := binary.BigEndian.AppendUint64(nil, uint64(now.Add(dedupeFor).UnixMilli()))
				v = binary.BigEndian.AppendUint64(v, numbers[i])
				b.Set(dedupeKey(q.m.ID, keys[i]), append(v, m.ID...), nil)
			}
		}
		return q.s.db.Commit(b)
	}()
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, n := range numbers {
		delete(q.committing, n)
		if err == nil {
			a := arrival{n: n, group: all[i].Group}
			if all[i].Seen > 0 {
				a.seen = time.UnixMilli(all[i].Seen)
			}
			q.done = append(q.done, a)
			q.sent++
		}
	}
	q.arrivals(now)
	return numbers, err
}

// arrivals lets in what is on disk and has nothing before it that is not. Under mu.
func (q *queue) arrivals(now time.Time) {
	first := ^uint64(0)
	for n := range q.committing {
		first = min(first, n)
	}
	slices.SortFunc(q.done, func(a, b arrival) int { return int(int64(a.n - b.n)) })
	i := 0
	for ; i < len(q.done) && q.done[i].n < first; i++ {
		q.arrive(q.done[i], now)
	}
	q.done = slices.Delete(q.done, 0, i)
	q.arm(now)
}

// taken is a message that was given out.
type taken struct {
	stored
	n      uint64
	state  state
	handle string
}

// take gives out up to count messages.
func (q *queue) take(count int, timeout time.Duration, try string) (out []taken, err error) {
	now := q.s.cfg.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gone {
		return nil, errGone
	}
	q.settleDue(now)
	most := maxInFlight
	if q.fifo() {
		most = maxInFlightFIFO
	}
	b := q.s.db.NewBatch()
	defer b.Close()
	wrote := false
	give := func(n uint64) error {
		t, ok, err := q.read(n)
		if err != nil || !ok {
			return err
		}
		if now.Sub(time.UnixMilli(t.Sent)) > time.Duration(q.attr("MessageRetentionPeriod"))*time.Second {
			wrote = true
			q.delete(b, n)
			return nil
		}
		if most, err := q.dead.Count.Int64(); err == nil && int64(t.state.Count) >= most {
			if moved := q.bury(t); moved {
				return nil
			}
		}
		t.state.Count++
		if t.state.First == 0 {
			t.state.First = now.UnixMilli()
		}
		var r [8]byte
		rand.Read(r[:])
		t.state.Nonce, t.state.Until = binary.BigEndian.Uint64(r[:]), now.Add(timeout).UnixMilli()
		v, err := json.Marshal(t.state)
		if err != nil {
			return err
		}
		b.Set(numbered('s', q.m.ID, n), v, nil)
		wrote = true
		t.handle = handleOf(q.m.ID, n, t.state.Nonce)
		q.hide(&hidden{n: n, until: now.Add(timeout), nonce: t.state.Nonce, group: t.Group})
		q.received++
		out = append(out, t)
		return nil
	}
	if a := q.tries[try]; try != "" && a != nil && a.until.After(now) { // the same attempt gets the same again
		for _, n := range a.numbers {
			if h := q.hidden[n]; h != nil && !h.delayed {
				q.unhide(h)
				if g := q.groups[h.group]; g != nil { // not before it is given out again
					q.place(g)
				}
				if err := give(n); err != nil {
					return nil, err
				}
			}
		}
	}
	again := len(out) > 0
	for !again && (len(out) == 0 || len(out) < count && q.available()) {
		if q.flying >= most {
			if !q.fifo() && len(out) == 0 {
				return nil, errInFlight
			}
			break
		}
		if q.fifo() {
			if len(q.open) == 0 {
				break
			}
			g := q.open[0]
			for len(out) < count && len(g.wait) > 0 {
				n := g.wait[0]
				g.wait = g.wait[1:]
				if err := give(n); err != nil {
					g.wait = slices.Insert(g.wait, 0, n)
					q.place(g)
					return nil, err
				}
			}
			q.place(g)
			continue
		}
		n, of, ok := q.pick()
		if !ok {
			break
		}
		if err := give(n); err != nil {
			q.show(n, of)
			return nil, err
		}
	}
	if wrote {
		if err := b.Commit(pebble.NoSync); err != nil {
			return nil, err
		}
	}
	if try != "" && len(out) > 0 && q.fifo() {
		a := &attempt{until: now.Add(min(timeout, dedupeFor))}
		for _, t := range out {
			a.numbers = append(a.numbers, t.n)
		}
		q.tries[try] = a
	}
	q.arm(now)
	return out, nil
}

// pick takes out what is given out next by a standard queue, and its group. Under mu.
func (q *queue) pick() (n uint64, of string, ok bool) {
	if len(q.open) > 0 {
		g := q.open[0]
		if len(q.ready) == 0 || g.noise() == 0 && g.first() < uint64(q.ready[0]) {
			n = g.wait[0]
			g.wait = g.wait[1:]
			q.place(g)
			return n, g.name, true
		}
	}
	if len(q.ready) == 0 {
		return 0, "", false
	}
	return uint64(heap.Pop(&q.ready).(ready)), "", true
}

var errInFlight = errors.New("too many messages are in flight")

// read gets a message from disk. Under mu.
func (q *queue) read(n uint64) (t taken, ok bool, err error) {
	v, c, err := q.s.db.Get(numbered('b', q.m.ID, n))
	if errors.Is(err, pebble.ErrNotFound) {
		return t, false, nil
	}
	if err != nil {
		return t, false, err
	}
	err = json.Unmarshal(v, &t.stored)
	c.Close()
	if err != nil {
		return t, false, fmt.Errorf("read message %d of %s: %w", n, q.name(), err)
	}
	t.n = n
	v, c, err = q.s.db.Get(numbered('s', q.m.ID, n))
	if errors.Is(err, pebble.ErrNotFound) {
		return t, true, nil
	}
	if err != nil {
		return t, false, err
	}
	err = json.Unmarshal(v, &t.state)
	c.Close()
	return t, err == nil, err
}

// delete takes a message off the disk. Under mu.
func (q *queue) delete(b *pebble.Batch, n uint64) {
	b.Delete(numbered('b', q.m.ID, n), nil)
	b.Delete(numbered('s', q.m.ID, n), nil)
}

// bury gives a message to the dead-letter queue, in one write. Under mu; false: it could not be done.
func (q *queue) bury(t taken) bool {
	name, ok := named(q.dead.Target, q.m.Account)
	to := q.s.find(q.m.Account, name)
	if !ok || to == nil || to == q {
		return false
	}
	if t.Source == "" {
		t.Source = arn(q.m.Account, q.m.Name)
	}
	if err := q.moveTo(to, t); err != nil {
		q.s.cfg.Log.Error("give a message up", "queue", q.name(), "err", err)
		return false
	}
	return true
}

// moveTo puts a message into another queue and deletes it here, in one write. q.mu is held; to's may be
// taken only without waiting, since another queue may be on its way here: what cannot be moved now is later.
func (q *queue) moveTo(to *queue, t taken) error {
	if !to.mu.TryLock() {
		return errors.New("the other queue is busy")
	}
	defer to.mu.Unlock()
	if to.gone {
		return errGone
	}
	m := t.stored
	m.Seen = 0
	n := to.next
	v, err := json.Marshal(m)
	if err != nil {
		return err
	}
	b := q.s.db.NewBatch()
	defer b.Close()
	b.Set(numbered('b', to.m.ID, n), v, nil)
	q.delete(b, t.n)
	if err := q.s.db.Commit(b); err != nil {
		return err
	}
	to.next++
	now := q.s.cfg.Now()
	to.done = append(to.done, arrival{n: n, group: m.Group})
	to.arrivals(now)
	return nil
}

// remove deletes a message by its handle; known is false when the handle is not the last one.
func (q *queue) remove(handle string) (known bool, err error) {
	id, n, nonce, ok := readHandle(handle)
	if !ok || id != q.m.ID {
		return false, errHandle
	}
	if err := q.s.db.Writable(); err != nil {
		return false, err
	}
	b := q.s.db.NewBatch()
	defer b.Close()
	q.mu.Lock()
	q.settleDue(q.s.cfg.Now())
	h := q.hidden[n]
	of := ""
	if h == nil || h.nonce != nonce {
		// The time is over. Unless somebody else has it now, it can still be deleted.
		t, late, err := q.late(n, nonce)
		if err != nil || !late || h != nil {
			q.mu.Unlock()
			return late && h == nil, err
		}
		if q.fifo() {
			q.mu.Unlock()
			return false, errExpired
		}
		of = t.Group
		q.withdraw(n, of)
	}
	if h != nil { // it keeps its place until it is gone
		h.until = q.s.cfg.Now().Add(time.Hour)
		heap.Fix(&q.due, h.place)
	}
	q.delete(b, n)
	q.mu.Unlock()
	err = q.s.db.Commit(b)
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case h != nil && q.hidden[n] == h:
		q.unhide(h)
		if err != nil {
			q.show(n, h.group)
		}
	case h == nil && err != nil:
		q.show(n, of)
	}
	if err == nil {
		q.deleted++
	}
	q.arm(q.s.cfg.Now())
	return true, err
}

// late says whether a nonce is the last that a message was given out with. Under mu.
func (q *queue) late(n, nonce uint64) (t taken, late bool, err error) {
	t, ok, err := q.read(n)
	return t, ok && t.state.Nonce == nonce, err
}

var (
	errHandle  = errors.New("The input receipt handle is invalid.")
	errExpired = errors.New("The receipt handle has expired.")
	errVisible = errors.New("The message referred to is not in flight.")
)

// extend has a message be seen again after timeout.
func (q *queue) extend(handle string, timeout time.Duration) error {
	id, n, nonce, ok := readHandle(handle)
	if !ok || id != q.m.ID {
		return errHandle
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.s.cfg.Now()
	q.settleDue(now)
	h := q.hidden[n]
	if h == nil || h.delayed || h.nonce != nonce {
		return errVisible
	}
	h.until = now.Add(timeout)
	heap.Fix(&q.due, h.place)
	if v, c, err := q.s.db.Get(numbered('s', q.m.ID, n)); err == nil {
		var st state
		err = json.Unmarshal(v, &st)
		c.Close()
		if err == nil {
			st.Until = h.until.UnixMilli()
			if v, err := json.Marshal(st); err == nil {
				q.s.db.Set(numbered('s', q.m.ID, n), v, pebble.NoSync)
			}
		}
	}
	q.settleDue(now)
	q.arm(now)
	return nil
}

// known looks a deduplication key up: the message that was sent with it.
func (q *queue) known(key string) (n uint64, id string, ok bool, err error) {
	v, c, err := q.s.db.Get(dedupeKey(q.m.ID, key))
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, "", false, nil
	}
	if err != nil {
		return 0, "", false, err
	}
	defer c.Close()
	if len(v) < 16 || !time.UnixMilli(int64(binary.BigEndian.Uint64(v))).After(q.s.cfg.Now()) {
		return 0, "", false, nil
	}
	return binary.BigEndian.Uint64(v[8:]), string(v[16:]), true, nil
}

// purgeEvery is how long after a purge the next one of a queue is refused, as AWS does. What was there is gone at
// once, so this only keeps an app from what AWS would refuse it.
const purgeEvery = time.Minute

// purge deletes all messages.
func (q *queue) purge() error {
	if err := q.s.db.Writable(); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.s.cfg.Now()
	if !q.purged.IsZero() && now.Sub(q.purged) < purgeEvery {
		return fault(codePurging, "AWS.SimpleQueueService.PurgeQueueInProgress", "Only one PurgeQueue operation on %s is allowed every 60 seconds.", q.m.Name)
	}
	b := q.s.db.NewBatch()
	defer b.Close()
	for _, kind := range []byte("bs") {
		low, _ := span(kind, q.m.ID)
		b.DeleteRange(low, numbered(kind, q.m.ID, q.next), nil)
	}
	if err := q.s.db.Commit(b); err != nil {
		return err
	}
	q.ready, q.open, q.due, q.done, q.flying = nil, nil, nil, nil, 0
	clear(q.groups)
	clear(q.hidden)
	q.purged = now
	return nil
}

// expire deletes messages that are too old and deduplication keys that have ended.
func (q *queue) expire() error {
	now := q.s.cfg.Now()
	keep := time.Duration(q.attr("MessageRetentionPeriod")) * time.Second
	b := q.s.db.NewBatch()
	defer b.Close()
	low, high := span('d', q.m.ID)
	it, err := q.s.db.NewIter(&pebble.IterOptions{LowerBound: low, UpperBound: high})
	if err != nil {
		return err
	}
	for it.First(); it.Valid(); it.Next() {
		if v := it.Value(); len(v) < 8 || !time.UnixMilli(int64(binary.BigEndian.Uint64(v))).After(now) {
			b.Delete(slices.Clone(it.Key()), nil)
		}
	}
	if err := it.Close(); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gone {
		return nil
	}
	maps.DeleteFunc(q.tries, func(_ string, a *attempt) bool { return !a.until.After(now) })
	stop := errors.New("young")
	old := map[uint64]bool{}
	err = q.s.each('b', q.m.ID, func(n uint64, v []byte) error {
		var x struct {
			Sent  int64  `json:"sent"`
			Group string `json:"group"`
		}
		if err := json.Unmarshal(v, &x); err != nil {
			return err
		}
		if now.Sub(time.UnixMilli(x.Sent)) <= keep {
			return stop
		}
		if h := q.hidden[n]; h != nil { // with somebody, who may yet delete it
			return nil
		}
		if q.grouped(x.Group) {
			q.withdraw(n, x.Group)
		} else {
			old[n] = true
		}
		q.delete(b, n)
		return nil
	})
	if err != nil && !errors.Is(err, stop) {
		return err
	}
	if len(old) > 0 {
		q.ready = slices.DeleteFunc(q.ready, func(n ready) bool { return old[uint64(n)] })
		heap.Init(&q.ready)
	}
	return q.s.db.Commit(b)
}

func (q *queue) backlog() Backlog {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.s.cfg.Now()
	q.settleDue(now)
	b := Backlog{Visible: len(q.ready), InFlight: q.flying, Delayed: len(q.hidden) - q.flying, Sent: q.sent, Received: q.received, Deleted: q.deleted}
	first := ^uint64(0)
	if len(q.ready) > 0 {
		first = uint64(q.ready[0])
	}
	for _, g := range q.groups {
		if g.noise() == 0 {
			b.QuietVisible += len(g.wait)
		} else if !q.fifo() {
			b.NoisyGroups++
		}
		b.Visible += len(g.wait)
		if len(g.wait) > 0 {
			first = min(first, g.wait[0])
		}
	}
	if b.Visible > 0 {
		if t, ok, err := q.read(first); err == nil && ok {
			b.Oldest = now.Sub(time.UnixMilli(t.Sent))
		}
	}
	return b
}

// A receipt handle is the queue, the number and the nonce.
func handleOf(id, n, nonce uint64) string {
	b := binary.BigEndian.AppendUint64(nil, id)
	b = binary.BigEndian.AppendUint64(b, n)
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(b, nonce))
}

func readHandle(s string) (id, n, nonce uint64, ok bool) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(b) != 24 {
		return 0, 0, 0, false
	}
	return binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:]), true
}

// ordered is a heap (container/heap) of what knows its place in it.
type ordered[T placed[T]] []T

// placed is what stands in such a heap.
type placed[T any] interface {
	comesBefore(T) bool
	at(i int)
}

var (
	_ placed[ready]   = ready(0)
	_ placed[*group]  = (*group)(nil)
	_ placed[*hidden] = (*hidden)(nil)
)

func (h ordered[T]) Len() int           { return len(h) }
func (h ordered[T]) Less(i, j int) bool { return h[i].comesBefore(h[j]) }
func (h ordered[T]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at(i)
	h[j].at(j)
}
func (h *ordered[T]) Push(x any) {
	*h = append(*h, x.(T))
	x.(T).at(len(*h) - 1)
}
func (h *ordered[T]) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	x.at(-1)
	return x
}

// ready is the number of a message that can be given out; it need not know its place.
type ready uint64

func (n ready) comesBefore(o ready) bool { return n < o }
func (ready) at(int)                     {}

// A group stands by its first message, which it has, but in the moment in which its last is given out; behind
// quieter ones.
func (g *group) comesBefore(o *group) bool {
	if a, b := g.noise(), o.noise(); a != b {
		return a < b
	}
	return g.first() < o.first()
}
func (g *group) at(i int) { g.place = i }

func (g *group) first() uint64 {
	if len(g.wait) == 0 {
		return ^uint64(0)
	}
	return g.wait[0]
}

// Hidden messages stand by when they are seen again.
func (h *hidden) comesBefore(o *hidden) bool { return h.until.Before(o.until) }
func (h *hidden) at(i int)                   { h.place = i }
