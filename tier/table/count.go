package table

import (
	"encoding/json"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// How much is in a table is kept in memory and written down when the store is closed. A store that was not
// closed counts again, beside serving: over a snapshot, to which what has changed since is added.

// counts is what is written down of a table.
type counts struct {
	Items, Bytes int64
	Indexes      map[uint16]counts `json:",omitempty"`
}

// readCounts takes what was written down, once: it holds no longer when the next change is made.
func (s *Store) readCounts(t *table, d *definition) (ok bool, err error) {
	k := key(keyCount, d.ID)
	raw, closer, err := s.db.Get(k)
	if err == pebble.ErrNotFound {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer closer.Close()
	var c counts
	if json.Unmarshal(raw, &c) != nil {
		return false, nil
	}
	if s.db.Writable() == nil {
		if err := s.db.Delete(k, synced); err != nil {
			return false, err
		}
	}
	t.count.items.Store(c.Items)
	t.count.bytes.Store(c.Bytes)
	for no, x := range c.Indexes {
		n := t.indexCount(no)
		n.items.Store(x.Items)
		n.bytes.Store(x.Bytes)
	}
	return true, nil
}

func (s *Store) writeCounts() {
	if s.db.Writable() != nil {
		return
	}
	b := s.db.NewBatch()
	defer b.Close()
	for _, t := range s.every() {
		if t.counting.Load() {
			continue
		}
		d := t.def.Load()
		c := counts{t.count.items.Load(), t.count.bytes.Load(), map[uint16]counts{}}
		for i := range d.Indexes {
			n := t.indexCount(d.Indexes[i].No)
			c.Indexes[d.Indexes[i].No] = counts{Items: n.items.Load(), Bytes: n.bytes.Load()}
		}
		raw, err := json.Marshal(c)
		if err == nil {
			err = b.Set(key(keyCount, d.ID), raw, nil)
		}
		if err != nil {
			s.cfg.Log.Error("write down how much a table holds", "table", d.Name, "err", err)
		}
	}
	if err := b.Commit(synced); err != nil {
		s.cfg.Log.Error("write down how much tables hold", "err", err)
	}
}

// recount counts a table and its indexes.
func (s *Store) recount(t *table) {
	begun := time.Now()
	d := t.def.Load()
	snap := t.first
	defer snap.Close()
	if s.countSpan(snap, key(keyItem, d.ID), &t.count) {
		for i := range d.Indexes {
			if !s.countSpan(snap, d.indexPrefix(&d.Indexes[i]), t.indexCount(d.Indexes[i].No)) {
				return
			}
		}
	} else {
		return
	}
	t.counting.Store(false)
	if took := time.Since(begun); took > time.Second {
		s.cfg.Log.Info("counted a table's items, since the last process was not closed", "table", d.Name, "items", t.count.items.Load(), "took", took)
	}
}

// countSpan adds what a span of a snapshot holds; false: the store is being closed, or it cannot be read.
func (s *Store) countSpan(snap *pebble.Snapshot, prefix []byte, n *count) bool {
	it, err := snap.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		s.cfg.Log.Error("count items", "err", err)
		return false
	}
	defer it.Close()
	var items, bytes int64
	for it.First(); it.Valid(); it.Next() {
		if items&0xff == 0 && s.stopped() {
			return false
		}
		item, err := unpack(it.Value())
		if err != nil {
			s.cfg.Log.Error("an item cannot be read", "key", it.Key(), "err", err)
			continue
		}
		items++
		bytes += int64(item.size)
	}
	n.items.Add(items)
	n.bytes.Add(bytes)
	return it.Error() == nil
}
