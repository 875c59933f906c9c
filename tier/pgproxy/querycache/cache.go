// Package querycache keeps answers of PostgreSQL and knows when they are no more what the server would
// answer. It never guesses: what a query reads is asked of the server (analyse.go, tree.go), and what
// changed is read from its WAL (follower.go, stream.go).
//
// The promises, and what keeps them:
//
//   - An answer is at most Bound older than what is committed and acknowledged. A look asks the server for
//     the end of its WAL; once the stream has been read to there, everything acknowledged before the look
//     was asked is known. Without a look that is younger than Bound nothing is answered.
//   - A session sees its own writes: a look says which transactions had ended when it was asked (Number).
//   - What was stored is of a state after all changes that were thrown out before. A commit is in the WAL
//     before others see it, so a query that begins after its change was read may still see the old rows.
//     Therefore a table that changed is not filled from until a look's snapshot sees the change; snapshots
//     only grow, so a query that begins later sees it too.
//   - Changes that come while a query runs keep its answer from being stored.
//
// The obvious design, to remember the position of the WAL before a query and to compare positions, loses:
// a position says what is durable, not what is visible.
//
// Cache is owned by one goroutine and touches neither clock nor network. Begin at Cache.Get, then Follower.
package querycache

import (
	"container/list"
	"maps"
	"slices"
	"time"
)

const (
	// Bound is how much older than what is acknowledged an answer may be.
	Bound = 50 * time.Millisecond
	// maxVerdicts is how many texts are remembered with what was found of them.
	maxVerdicts = 4096
	// refusedFor is how long a query that may not be cached is not looked at again.
	refusedFor = time.Minute
	// share is the part of all memory that one answer may take.
	share = 16
	// overhead is what an entry costs beside its bytes.
	overhead = 256
)

// Cache is the answers of one database. Owned by one goroutine.
type Cache struct {
	limit, bytes int64
	entries      map[string]*Entry
	recent       *list.List // of *Entry, the last used first
	tables       map[uint32]*table
	verdicts     map[string]*Verdict
	catalog      map[uint32]string // what the catalogs say of each relation that a query reads
	global       string
	drops        uint64

	live     bool // a look has been finished
	asOf     time.Time
	covered  uint64
	snapshot Snapshot
	counts   Counts
}

// Counts are since the cache was made; Entries and Bytes are now.
type Counts struct {
	Hits, Misses, Stored, Invalidations, Evicted, Drops uint64
	Entries                                             int
	Bytes, Limit                                        int64
}

// Entry is one answer.
type Entry struct {
	Describe []byte // RowDescription, whole; empty when nobody asked for it
	Rows     []byte // DataRows and CommandComplete, whole
	Count    uint64 // of rows

	key   string
	until time.Time
	of    []*table
	at    *list.Element
}

func (e *Entry) size() int64 { return int64(len(e.key) + len(e.Describe) + len(e.Rows) + overhead) }

// table is one that changes are published of.
type table struct {
	changes uint64
	pending []uint32 // transactions whose change was read and was not yet seen by a look
	since   uint64   // transactions before this one may have changed it unpublished
	watched bool
	entries map[*Entry]struct{}
}

// Verdict is what was found of a query.
type Verdict struct {
	Why string // it may not be cached; "": it may
	// Tables are those whose rows it reads, Relations all that it names, views too, with what the catalogs
	// say of them. Since is the first transaction whose changes of the tables are surely published.
	Tables    []uint32
	Relations map[uint32]string
	Since     uint64

	pending bool
	until   time.Time // of one that was refused
}

// Pending says that it is not known yet.
func (v *Verdict) Pending() bool { return v.pending }

// Change is a transaction's, with the tables that it changed.
type Change struct {
	XID    uint32
	Tables []uint32
}

// Look is a look at the server, finished when the stream was read to where its WAL ended.
type Look struct {
	Asked    time.Time // before it was asked
	Number   uint64    // of the last transaction that had ended then
	Snapshot Snapshot
	Global   string            // what the catalogs say of what belongs to no relation
	Catalog  map[uint32]string // and of each relation that was asked for
}

// New makes an empty cache of at most limit bytes.
func New(limit int64) *Cache {
	c := &Cache{limit: limit}
	c.Reset()
	return c
}

// Reset forgets everything: the stream broke, or the server is another.
func (c *Cache) Reset() {
	c.entries, c.recent, c.tables, c.verdicts, c.catalog = map[string]*Entry{}, list.New(), map[uint32]*table{}, map[string]*Verdict{}, map[uint32]string{}
	c.bytes, c.live, c.global, c.snapshot = 0, false, "", Snapshot{}
	c.asOf = time.Time{}
	c.drops++
}

// Drop forgets answers and what was found of queries: the catalogs changed. What is known of tables stays.
func (c *Cache) Drop() {
	for _, t := range c.tables {
		t.entries = nil
	}
	c.entries, c.recent, c.verdicts, c.catalog = map[string]*Entry{}, list.New(), map[string]*Verdict{}, map[uint32]string{}
	c.bytes = 0
	c.drops++
	c.counts.Drops++
}

// Fresh says that what is kept is at most Bound older than what is acknowledged, and has the transaction
// with a number.
func (c *Cache) Fresh(wrote uint64, now time.Time) bool {
	return c.live && now.Sub(c.asOf) < Bound && wrote <= c.covered
}

// Get finds an answer for a session whose last write has a number; nil: ask the server.
func (c *Cache) Get(key []byte, wrote uint64, now time.Time) *Entry {
	e := c.entries[string(key)]
	if e == nil || !c.Fresh(wrote, now) {
		return nil
	}
	if now.After(e.until) {
		c.remove(e)
		return nil
	}
	c.recent.MoveToFront(e.at)
	return e
}

// Has says that there is an answer, which may be too old for a session now and good after the next look.
func (c *Cache) Has(key []byte, now time.Time) bool {
	e := c.entries[string(key)]
	return e != nil && now.Before(e.until)
}

// Hit counts.
func (c *Cache) Hit() { c.counts.Hits++ }

// Miss counts.
func (c *Cache) Miss() { c.counts.Misses++ }

// Counts are those of now.
func (c *Cache) Counts() Counts {
	n := c.counts
	n.Entries, n.Bytes, n.Limit = len(c.entries), c.bytes, c.limit
	return n
}

// Judge gives what is known of a query; ask says that it is to be found out, and told by Judged.
func (c *Cache) Judge(of []byte, now time.Time) (v *Verdict, ask bool) {
	if v = c.verdicts[string(of)]; v != nil && (v.Why == "" || now.Before(v.until)) {
		return v, false
	}
	if len(c.verdicts) >= maxVerdicts {
		maps.DeleteFunc(c.verdicts, func(_ string, v *Verdict) bool { return !v.pending })
	}
	v = &Verdict{pending: true}
	c.verdicts[string(of)] = v
	return v, true
}

// Drops tells one state of the catalogs from the next.
func (c *Cache) Drops() uint64 { return c.drops }

// Judged takes what was found of a query, when the catalogs were those of drops.
func (c *Cache) Judged(of string, drops uint64, v Verdict, now time.Time) {
	if drops != c.drops {
		return
	}
	v.pending, v.until = false, now.Add(refusedFor)
	if v.Why == "" {
		for oid, is := range v.Relations {
			if was, known := c.catalog[oid]; known && was != is {
				c.Drop()
				return
			}
		}
		maps.Copy(c.catalog, v.Relations)
		for _, oid := range v.Tables {
			t := c.table(oid)
			t.since, t.watched = max(t.since, v.Since), true
		}
	}
	c.verdicts[of] = &v
}

// Unanswered forgets that a query is being looked at: nobody could.
func (c *Cache) Unanswered(of string) { delete(c.verdicts, of) }

// Relations are all that looks have to ask for.
func (c *Cache) Relations() []uint32 { return slices.Collect(maps.Keys(c.catalog)) }

func (c *Cache) table(oid uint32) *table {
	t := c.tables[oid]
	if t == nil {
		t = &table{}
		c.tables[oid] = t
	}
	return t
}

// Changed takes transactions in the order of their commits.
func (c *Cache) Changed(changes []Change) {
	for _, x := range changes {
		for _, oid := range x.Tables {
			t := c.table(oid)
			t.changes++
			t.pending = append(t.pending, x.XID)
			c.counts.Invalidations += uint64(len(t.entries))
			for e := range t.entries {
				c.remove(e)
			}
		}
	}
}

// Looked takes the end of a look; the changes before it were given to Changed. It says whether the
// catalogs changed, in which case everything was dropped.
func (c *Cache) Looked(l Look) (dropped bool) {
	if !c.live {
		c.global = l.Global
	}
	dropped = l.Global != c.global
	for oid, was := range c.catalog {
		if is, asked := l.Catalog[oid]; asked && is != was {
			dropped = true
		}
	}
	if dropped {
		c.Drop()
	}
	c.live, c.global, c.snapshot = true, l.Global, l.Snapshot
	if l.Asked.After(c.asOf) {
		c.asOf, c.covered = l.Asked, max(c.covered, l.Number)
	}
	for _, t := range c.tables {
		if len(t.pending) > 0 {
			t.pending = slices.DeleteFunc(t.pending, l.Snapshot.Sees)
		}
	}
	return dropped
}

// Fill is an answer that is on its way.
type Fill struct {
	Entry
	c       *Cache
	changes []uint64
	drops   uint64
}

// Begin prepares to store an answer, before its query is sent. nil: not now, for a table just changed and
// nobody knows whether the query will see it.
func (c *Cache) Begin(key []byte, v *Verdict, keep time.Duration, now time.Time) *Fill {
	if !c.live || v.pending || v.Why != "" {
		return nil
	}
	f := &Fill{Entry: Entry{until: now.Add(keep)}, c: c, drops: c.drops}
	for _, oid := range v.Tables {
		t := c.tables[oid]
		if t == nil || !t.watched || len(t.pending) > 0 || c.snapshot.Min < t.since {
			return nil
		}
		f.of = append(f.of, t)
		f.changes = append(f.changes, t.changes)
	}
	f.key = string(key)
	return f
}

// Fits says that an answer of so many bytes more may still be stored.
func (f *Fill) Fits(more int) bool { return f.size()+int64(more) <= f.c.limit/share }

// Put stores an answer that is whole, unless something changed meanwhile.
func (c *Cache) Put(f *Fill) bool {
	if f.c != c || f.drops != c.drops || !f.Fits(0) {
		return false
	}
	for i, t := range f.of {
		if t.changes != f.changes[i] {
			return false
		}
	}
	if old := c.entries[f.key]; old != nil {
		c.remove(old)
	}
	e := &Entry{Describe: slices.Clip(f.Describe), Rows: slices.Clip(f.Rows), Count: f.Count, key: f.key, until: f.until, of: f.of}
	for c.bytes+e.size() > c.limit {
		c.remove(c.recent.Back().Value.(*Entry))
		c.counts.Evicted++
	}
	e.at = c.recent.PushFront(e)
	c.entries[e.key] = e
	c.bytes += e.size()
	for _, t := range e.of {
		if t.entries == nil {
			t.entries = map[*Entry]struct{}{}
		}
		t.entries[e] = struct{}{}
	}
	c.counts.Stored++
	return true
}

func (c *Cache) remove(e *Entry) {
	if c.entries[e.key] != e {
		return
	}
	delete(c.entries, e.key)
	c.recent.Remove(e.at)
	c.bytes -= e.size()
	for _, t := range e.of {
		delete(t.entries, e)
	}
}
