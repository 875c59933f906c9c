package httpcache

import (
	"bytes"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// memory is the memory tier: a sharded index for lookups, and S3-FIFO (Yang et al., SOSP 2023) for
// admission and eviction by bytes. What came once goes through a small queue and leaves without having
// pushed out what is used; what is used again while there, or soon after, enters the main queue.
//
// A hit takes one shard's read lock and counts in the entry; the queues and their lock are for insertion
// and removal alone. An LRU list would put a lock and a write to shared lines on every hit; an outside
// cache library was tried on paper and refused: lookup by a view of bytes, several variants of one key,
// weights that grow when a coding joins, and purges that must be done when they return are all ours to
// know.
type memory struct {
	seed   maphash.Seed
	shards [256]shard

	limit atomic.Int64 // bytes

	mu          sync.Mutex // owns all below, and place of each entry
	small, main queue
	ghosts      map[uint64]uint64 // hashes lately evicted from small, with the turn they came in
	ghostRing   []uint64
	turn        uint64
	evicted     uint64
}

type shard struct {
	sync.RWMutex
	m    map[string][]*entry // newest first; a slice is never changed, only replaced
	hits atomic.Uint64
	_    [64]byte
}

// maxVariants of one key are kept.
const maxVariants = 64

type place struct {
	in         *queue
	next, prev *entry
	charged    int64
}

// queue is an intrusive list: head is the newest.
type queue struct {
	head, tail *entry
	bytes      int64
	count      int
}

func newMemory(limit int64) *memory {
	m := &memory{seed: maphash.MakeSeed(), ghosts: map[uint64]uint64{}}
	m.limit.Store(limit)
	for i := range m.shards {
		m.shards[i].m = map[string][]*entry{}
	}
	return m
}

// shardOf chooses by the URL alone, so that all keys of one URL are found in one shard.
func (m *memory) shardOf(key []byte) *shard {
	if i := bytes.IndexByte(key, keySeparator); i >= 0 {
		key = key[:i]
	}
	return &m.shards[maphash.Bytes(m.seed, key)%uint64(len(m.shards))]
}

// ofURL gives all entries of one URL.
func (m *memory) ofURL(u string) (found []*entry) {
	s := m.shardOf([]byte(u))
	s.RLock()
	defer s.RUnlock()
	for key, list := range s.m {
		if strings.HasPrefix(key, u) && (len(key) == len(u) || key[len(u)] == keySeparator) {
			found = append(found, list...)
		}
	}
	return found
}

// find gives all variants of a key, newest first. It allocates nothing.
func (m *memory) find(key []byte) (*shard, []*entry) {
	s := m.shardOf(key)
	s.RLock()
	list := s.m[string(key)]
	s.RUnlock()
	return s, list
}

// bound changes the limit; what does not fit any more leaves.
func (m *memory) bound(limit int64) {
	if m.limit.Swap(limit) <= limit {
		return
	}
	m.mu.Lock()
	victims := m.evict()
	m.mu.Unlock()
	m.forget(victims)
}

// put adds an entry and takes away what it replaces, which it returns. A part never replaces a whole.
func (m *memory) put(e *entry) (replaced []*entry) {
	fits := e.bytes <= m.limit.Load()/4
	replaced = m.replace(e, fits)
	m.mu.Lock()
	into := &m.small
	for _, r := range replaced {
		if r.place.in == &m.main {
			into = &m.main
		}
		e.freq.Store(max(e.freq.Load(), r.freq.Load()))
		m.unlink(r)
	}
	hash := m.hash(e.key)
	if _, ok := m.ghosts[hash]; ok {
		delete(m.ghosts, hash)
		into = &m.main
	}
	if fits && !e.void.Load() {
		m.link(into, e)
	}
	victims := m.evict()
	m.mu.Unlock()
	m.forget(victims)
	return replaced
}

// replace changes the index alone.
func (m *memory) replace(e *entry, add bool) (replaced []*entry) {
	s := m.shardOf([]byte(e.key))
	s.Lock()
	defer s.Unlock()
	old := s.m[e.key]
	if e.fromDisk && slices.ContainsFunc(old, func(o *entry) bool { return o.variantOf(e) }) {
		e.void.Store(true)
		return nil // memory is never behind the disk
	}
	list := make([]*entry, 0, len(old)+1)
	if add {
		list = append(list, e)
	}
	for _, o := range old {
		switch {
		case o == e:
		case o.variantOf(e) && (e.whole() || !o.whole()), len(list) >= maxVariants:
			o.void.Store(true)
			replaced = append(replaced, o)
		default:
			list = append(list, o)
		}
	}
	if len(list) == 0 {
		delete(s.m, e.key)
	} else {
		s.m[e.key] = list
	}
	return replaced
}

// drop takes entries out for good: they are void.
func (m *memory) drop(list []*entry) {
	for _, e := range list {
		e.void.Store(true)
	}
	m.forget(list)
	m.mu.Lock()
	for _, e := range list {
		m.unlink(e)
	}
	m.mu.Unlock()
}

// forget takes entries out of the index.
func (m *memory) forget(list []*entry) {
	for _, e := range list {
		s := m.shardOf([]byte(e.key))
		s.Lock()
		if rest := slices.DeleteFunc(slices.Clone(s.m[e.key]), func(o *entry) bool { return o == e }); len(rest) > 0 {
			s.m[e.key] = rest
		} else {
			delete(s.m, e.key)
		}
		s.Unlock()
	}
}

// grow charges an entry for a coding that joined it.
func (m *memory) grow(e *entry, bytes int64) {
	m.mu.Lock()
	if q := e.place.in; q != nil {
		e.place.charged += bytes
		q.bytes += bytes
	}
	victims := m.evict()
	m.mu.Unlock()
	m.forget(victims)
}

// each calls f for every entry. f must not call the memory tier.
func (m *memory) each(f func(*entry)) {
	for i := range m.shards {
		s := &m.shards[i]
		s.RLock()
		for _, list := range s.m {
			for _, e := range list {
				f(e)
			}
		}
		s.RUnlock()
	}
}

func (m *memory) hash(key string) uint64 { return maphash.String(m.seed, key) }

// evict makes room; it returns what left. Under mu.
func (m *memory) evict() (victims []*entry) {
	limit := m.limit.Load()
	for m.small.bytes+m.main.bytes > limit {
		if e := m.small.tail; e != nil && (m.small.bytes > limit/10 || m.main.tail == nil) {
			m.unlink(e)
			if e.freq.Load() > 1 {
				e.freq.Store(0)
				m.link(&m.main, e)
				continue
			}
			m.remember(m.hash(e.key))
			victims = append(victims, e)
			continue
		}
		e := m.main.tail
		if e == nil {
			break
		}
		m.unlink(e)
		if f := e.freq.Load(); f > 0 {
			e.freq.Store(f - 1)
			m.link(&m.main, e)
			continue
		}
		victims = append(victims, e)
	}
	m.evicted += uint64(len(victims))
	return victims
}

// remember notes a key that left the small queue, for as many turns as main has entries.
func (m *memory) remember(hash uint64) {
	m.turn++
	m.ghosts[hash] = m.turn
	m.ghostRing = append(m.ghostRing, hash)
	for len(m.ghostRing) > max(1024, m.main.count) {
		old := m.ghostRing[0]
		m.ghostRing = m.ghostRing[1:]
		if t := m.ghosts[old]; m.turn-t >= uint64(len(m.ghostRing)) {
			delete(m.ghosts, old)
		}
	}
}

func (m *memory) link(q *queue, e *entry) {
	if e.place.charged == 0 {
		e.place.charged = e.bytes
	}
	e.place.in, e.place.prev, e.place.next = q, nil, q.head
	if q.head != nil {
		q.head.place.prev = e
	} else {
		q.tail = e
	}
	q.head = e
	q.bytes += e.place.charged
	q.count++
}

func (m *memory) unlink(e *entry) {
	q := e.place.in
	if q == nil {
		return
	}
	if e.place.prev != nil {
		e.place.prev.place.next = e.place.next
	} else {
		q.head = e.place.next
	}
	if e.place.next != nil {
		e.place.next.place.prev = e.place.prev
	} else {
		q.tail = e.place.prev
	}
	q.bytes -= e.place.charged
	q.count--
	e.place.in, e.place.next, e.place.prev = nil, nil, nil
}
