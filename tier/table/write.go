package table

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"tenfold/tier/table/attr"
)

// A change is decided under the latch of its partition: what the item was is read, the condition is tried, the
// batch is filled with the item, what its indexes have of it, when it expires and its stream record, and is
// applied. Then the latch is let go and the disk is waited for. So changes of an item are in one order for its
// readers, its indexes, its stream and the log; and a change that was seen by the next one is on disk before
// that is.
//
// The obvious design holds the latch until the write is on disk: then a hot partition is as slow as the disk.

// change is what becomes of one item.
type change struct {
	t       *table
	d       *definition
	primary []byte
	// before and after are the item; nil: there is none.
	before, after attr.Item
	// raw is how before stands in the log.
	raw []byte
	// only says that the item is read, and not changed.
	only bool
	// expired says that its time to live ended, which its stream record tells.
	expired bool
	// legacy says that the request has no expressions, which one refusal is worded by.
	legacy bool

	sizes
	record  uint64 // of the stream; 0: none
	indexed []indexChange
}

// sizes are of the item before and after, in bytes as DynamoDB counts them.
type sizes struct{ was, is int }

// indexChange is what becomes of an item in an index, in bytes.
type indexChange struct {
	no uint16
	sizes
	units float64
}

// read fills in what the item is now. The latch is held.
func (s *Store) read(c *change) error {
	raw, closer, err := s.db.Get(c.d.itemKey(c.primary))
	if err == pebble.ErrNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	defer closer.Close()
	c.raw = bytes.Clone(raw)
	c.before, err = decode(c.raw)
	c.was = c.before.Size()
	return err
}

// nothing says that a change changes nothing.
func (c *change) nothing() bool {
	return c.before == nil && c.after == nil || c.before != nil && c.after != nil && c.before.Equal(c.after)
}

// put appends a change to a batch. The latch is held.
func (s *Store) put(b *pebble.Batch, c *change) {
	k := c.d.itemKey(c.primary)
	if c.after == nil {
		c.is = 0
		b.Delete(k, nil)
	} else {
		c.is = c.after.Size()
		b.Set(k, c.d.encode(c.after), nil)
	}
	for i := range c.d.Indexes {
		if x := &c.d.Indexes[i]; !x.Leaving {
			s.putIndex(b, c, x)
		}
	}
	if c.d.TTL != "" {
		was, is := expiry(c.d, c.before), expiry(c.d, c.after)
		if was != is {
			if was != 0 {
				b.Delete(append(numbered(keyExpiry, c.d.ID, was), c.primary...), nil)
			}
			if is != 0 {
				b.Set(append(numbered(keyExpiry, c.d.ID, is), c.primary...), nil, nil)
			}
		}
	}
	if c.d.Stream != "" && !c.nothing() {
		c.record = s.putRecord(b, c)
	}
	if c.d.Recover != 0 {
		s.putUndo(b, c)
	}
}

// putIndex appends what a change does to an index.
func (s *Store) putIndex(b *pebble.Batch, c *change, x *index) {
	var was, is []byte
	var had, has bool
	ic := indexChange{no: x.No}
	var old, now attr.Item
	if c.before != nil {
		if was, had = c.d.indexKey(x, c.before, c.primary); had {
			// While an index is filled, what was there before it may not be in it yet, nor counted.
			had = !x.Filling || s.entered(was)
		}
		if had {
			old = c.d.project(x, c.before)
			ic.was = old.Size()
		}
	}
	if c.after != nil {
		if is, has = c.d.indexKey(x, c.after, c.primary); has {
			now = c.d.project(x, c.after)
			ic.is = now.Size()
		}
	}
	if !had && !has {
		return
	}
	moved := had && has && !bytes.Equal(was, is)
	if had && (!has || moved) {
		b.Delete(was, nil)
		ic.units += writeUnits(ic.was)
	}
	switch {
	case !has:
	case !had || moved:
		b.Set(is, c.d.encode(now), nil)
		ic.units += writeUnits(ic.is)
	case !old.Equal(now):
		b.Set(is, c.d.encode(now), nil)
		ic.units += writeUnits(max(ic.was, ic.is))
	}
	c.indexed = append(c.indexed, ic)
}

// entered reports whether an index has an entry. The latch of its item is held.
func (s *Store) entered(entry []byte) bool {
	_, closer, err := s.db.Get(entry)
	if err == nil {
		closer.Close()
	}
	return err != pebble.ErrNotFound // one that cannot be read is removed all the same
}

// counted keeps the counts once a change is applied.
func (c *change) counted() {
	if c.only {
		return
	}
	c.t.count.add(c.sizes)
	for _, x := range c.indexed {
		c.t.indexCount(x.no).add(x.sizes)
	}
}

func (n *count) add(z sizes) {
	if z.was == 0 && z.is > 0 {
		n.items.Add(1)
	}
	if z.was > 0 && z.is == 0 {
		n.items.Add(-1)
	}
	if z.was != z.is {
		n.bytes.Add(int64(z.is - z.was))
	}
}

// write makes several changes at once, or none. how is called when what the items are now was read; a refusal of
// it changes nothing. extra adds to the batch. What is returned is on disk, and so is what a refusal was decided
// by.
func (s *Store) write(cs []*change, extra func(b *pebble.Batch), how func() error) error {
	held := s.hold(cs)
	locked := true
	unlock := func() {
		if locked {
			locked = false
			for _, p := range held {
				p.mu.Unlock()
			}
		}
	}
	defer unlock() // when it breaks
	err := func() error {
		for _, c := range cs {
			if c.t.gone.Load() {
				return errNoTable()
			}
			c.d = c.t.def.Load() // indexes may have come or gone since
			if err := s.read(c); err != nil {
				return err
			}
		}
		return how()
	}()
	if err == nil {
		b := s.db.NewBatch()
		for _, c := range cs {
			if !c.only && (c.before != nil || c.after != nil) {
				s.put(b, c)
			}
		}
		if extra != nil {
			extra(b)
		}
		if !b.Empty() {
			g, err := s.apply(b, held)
			if err == nil {
				for _, c := range cs {
					c.counted()
				}
				unlock()
				err = g.Wait()
			}
			for _, c := range cs {
				if c.record != 0 {
					c.t.stream.written(c.record)
				}
			}
			return err
		}
		b.Close()
	}
	unlock()
	for _, p := range held {
		if lost := p.settle(); lost != nil {
			return lost
		}
	}
	return err
}

// hold takes the stripes of changes, each once and all in one order, so that nobody waits in a circle.
func (s *Store) hold(cs []*change) []*stripe {
	var nos []int
	for _, c := range cs {
		nos = append(nos, stripeNo(c.d, c.primary))
	}
	slices.Sort(nos)
	nos = slices.Compact(nos)
	var out []*stripe
	for _, n := range nos {
		s.stripes[n].mu.Lock()
		out = append(out, &s.stripes[n])
	}
	return out
}

// putUndo writes down what an item was, so that the table can be had as it was.
func (s *Store) putUndo(b *pebble.Batch, c *change) {
	k := numbered(keyUndo, c.d.ID, uint64(s.cfg.Now().UnixMilli()))
	k = binary.BigEndian.AppendUint64(k, s.undos.Add(1))
	v := binary.AppendUvarint(nil, uint64(len(c.primary)))
	v = append(v, c.primary...)
	b.Set(k, append(v, c.raw...), nil) // nothing after the key: there was none
}

// expiry is when an item ends, in Unix seconds; 0: never.
func expiry(d *definition, item attr.Item) uint64 {
	v, ok := item[d.TTL]
	if !ok || v.Kind != attr.N {
		return 0
	}
	return wholeSeconds(v.Text)
}
