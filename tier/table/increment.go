package table

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/cockroachdb/pebble/v2"

	"tenfold/tier/table/attr"
)

// An incremental export has, of each item that changed in a span of time, what it was before the span and what it was
// at its end. Both are known from what items were before each change: the first change in the span has the one, the
// first one after it the other, and without a change after it the item is still that. The table is not gone through.

// viewBoth and viewNew say which of the two are written.
const (
	viewBoth = "NEW_AND_OLD_IMAGES"
	viewNew  = "NEW_IMAGE"
)

// Parts of what is written down in the log for an incremental export, each by the item's own key.
const (
	partNew  = 'n' // what it was at the end; empty: nothing
	partOld  = 'o' // what it was before the span; empty: nothing
	partWhen = 'w' // the last change in the span, Unix ms
)

func partOf(copied []byte, kind byte, item []byte) []byte {
	return slices.Concat(copied, []byte{kind}, item)
}

// span writes down the changes of a table in the span of an export.
func (s *Store) span(snap *pebble.Snapshot, x *export, copied []byte) error {
	image := func(kind byte) func(*pebble.Batch, int64, []byte, []byte) {
		return func(b *pebble.Batch, _ int64, item, was []byte) { b.Set(partOf(copied, kind, item), was, nil) }
	}
	// What is written last stays: of what items were the earliest, of when they changed the latest.
	err := s.changes(snap, x.Of.ID, x.At, 0, true, image(partNew))
	if err == nil {
		err = s.changes(snap, x.Of.ID, x.From, x.At, true, image(partOld))
	}
	if err == nil {
		err = s.changes(snap, x.Of.ID, x.From, x.At, false, func(b *pebble.Batch, at int64, item, _ []byte) {
			b.Set(partOf(copied, partWhen, item), binary.BigEndian.AppendUint64(nil, uint64(at)), nil)
		})
	}
	if err != nil {
		return err
	}
	when := partOf(copied, partWhen, nil)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: when, UpperBound: after(when)})
	if err != nil {
		return err
	}
	return s.inBatches(it, false, func(b *pebble.Batch, k, _ []byte) error {
		item := k[len(when):]
		_, changed, err := found(s.db, partOf(copied, partNew, item))
		if err != nil || changed {
			return err
		}
		is, _, err := found(snap, slices.Concat(key(keyItem, x.Of.ID), item))
		b.Set(partOf(copied, partNew, item), is, nil)
		return err
	})
}

// found is a copy of what is under a key.
func found(in pebble.Reader, k []byte) (v []byte, ok bool, err error) {
	raw, closer, err := in.Get(k)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer closer.Close()
	return slices.Clone(raw), true, nil
}

// changes goes through the changes of a table from a moment on and before another, both in Unix ms (0: to the last). f
// puts into a batch what is to be written of each, by the item's key and what it was before.
func (s *Store) changes(snap *pebble.Snapshot, table uint32, from, before int64, newestFirst bool, f func(b *pebble.Batch, at int64, item, was []byte)) error {
	prefix := key(keyUndo, table)
	upper := after(prefix)
	if before != 0 {
		upper = numbered(keyUndo, table, uint64(before))
	}
	it, err := snap.NewIter(&pebble.IterOptions{LowerBound: numbered(keyUndo, table, uint64(from)), UpperBound: upper})
	if err != nil {
		return err
	}
	return s.inBatches(it, newestFirst, func(b *pebble.Batch, k, v []byte) error {
		n, w := binary.Uvarint(v)
		if w <= 0 || n > uint64(len(v)-w) || len(k) < len(prefix)+8 {
			return fmt.Errorf("what an item was cannot be read: %x", k)
		}
		f(b, int64(binary.BigEndian.Uint64(k[len(prefix):])), v[w:w+int(n)], v[w+int(n):])
		return nil
	})
}

// inBatches goes through an iterator, which it closes, and commits what f puts into batches of about a megabyte. All of
// it is on the disk when it returns.
func (s *Store) inBatches(it *pebble.Iterator, backwards bool, f func(b *pebble.Batch, k, v []byte) error) error {
	defer it.Close()
	first, next := it.First, it.Next
	if backwards {
		first, next = it.Last, it.Prev
	}
	b := s.db.NewBatch()
	defer func() { b.Close() }()
	for ok := first(); ok; ok = next() {
		if err := f(b, it.Key(), it.Value()); err != nil {
			return err
		}
		if b.Len() > 1<<20 {
			if s.stopped() {
				return errStopped
			}
			if err := b.Commit(pebble.NoSync); err != nil {
				return err
			}
			b.Close()
			b = s.db.NewBatch()
		}
	}
	if err := it.Error(); err != nil {
		return err
	}
	return b.Commit(synced)
}

// spanLine appends the line of an item, and nothing for one that was there neither before the span nor at its end. size
// is that of its images, in bytes.
func (s *Store) spanLine(line []byte, x *export, copied, item, when []byte) (_ []byte, size int, err error) {
	var images [2]packed
	var there [2]bool
	for i, part := range []byte{partOld, partNew} {
		raw, _, err := found(s.db, partOf(copied, part, item))
		if err != nil {
			return line, 0, err
		}
		if there[i] = len(raw) > 0; there[i] {
			if images[i], err = unpack(raw); err != nil {
				return line, 0, err
			}
		}
	}
	if !there[0] && !there[1] {
		return line, 0, nil
	}
	of := images[0]
	if there[1] {
		of = images[1]
	}
	whole, err := attr.ParseBinary(of.item)
	if err != nil {
		return line, 0, err
	}
	line = append(line, `{"Metadata":{"WriteTimestampMicros":{"N":"`...)
	line = strconv.AppendUint(line, binary.BigEndian.Uint64(when)*1000, 10)
	line = append(line, `"}},"Keys":`...)
	line = x.Of.keyOf(nil, whole).AppendJSON(line)
	for i, name := range []string{`,"OldImage":`, `,"NewImage":`} {
		if !there[i] || i == 0 && x.View == viewNew {
			continue
		}
		if line, err = attr.BinaryToJSON(append(line, name...), images[i].item); err != nil {
			return line, 0, err
		}
		size += images[i].size
	}
	return append(line, "}\n"...), size, nil
}
