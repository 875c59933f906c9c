package table

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"tenfold/internal/awsapi"
)

// Verdict is what a check of one table found.
type Verdict struct {
	Table   string
	Items   int64
	Entries int64 // of indexes
	Records int64 // of the stream
	// Wrong are the first things that are not as they have to be; Count is how many there are.
	Wrong []string `json:",omitempty"`
	Count int64
}

func (v *Verdict) wrong(format string, args ...any) {
	if v.Count++; len(v.Wrong) < 20 {
		v.Wrong = append(v.Wrong, fmt.Sprintf(format, args...))
	}
}

// Verify checks an account's tables, one of them when name is not "": that every index has exactly the items
// that it has to have and as they are, that everything that expires is dated, and that the newest record of
// each item in the stream tells of the item as it is. It reads a snapshot, beside what goes on.
func (s *Store) Verify(account, name string) ([]Verdict, error) {
	var out []Verdict
	for _, t := range s.of(account) {
		d := t.def.Load()
		if name != "" && name != d.Name {
			continue
		}
		v, err := s.verify(t, d)
		if err != nil {
			return out, fmt.Errorf("verify table %s: %w", d.Name, err)
		}
		out = append(out, v)
	}
	if name != "" && out == nil {
		return nil, errNoTableNamed(name)
	}
	return out, nil
}

func (s *Store) verify(t *table, d *definition) (v Verdict, err error) {
	v.Table = d.Name
	snap := s.db.NewSnapshot()
	defer snap.Close()
	has := map[uint16]int64{} // entries that indexes have to have
	dated := int64(0)
	prefix := key(keyItem, d.ID)
	err = walk(snap, prefix, func(k, raw []byte) error {
		primary := k[len(prefix):]
		item, err := decode(raw)
		if err != nil {
			v.wrong("item %x cannot be read: %v", primary, err)
			return nil
		}
		v.Items++
		if !bytes.Equal(d.primary(item), primary) {
			v.wrong("item %s stands under the key of another", d.keyOf(nil, item).AppendJSON(nil))
		}
		for i := range d.Indexes {
			x := &d.Indexes[i]
			if x.Leaving || x.Filling {
				continue
			}
			ik, ok := d.indexKey(x, item, primary)
			if !ok {
				continue
			}
			has[x.No]++
			part, err := itemAt(snap, ik)
			switch {
			case err != nil:
				return err
			case part == nil:
				v.wrong("item %s is not in index %s", d.keyOf(nil, item).AppendJSON(nil), x.Name)
			case !part.Equal(d.project(x, item)):
				v.wrong("item %s is another in index %s", d.keyOf(nil, item).AppendJSON(nil), x.Name)
			}
		}
		if at := expiry(d, item); d.TTL != "" && !d.Dating && at != 0 {
			dated++
			_, closer, err := snap.Get(append(numbered(keyExpiry, d.ID, at), primary...))
			if err == pebble.ErrNotFound {
				v.wrong("item %s expires, and is not dated", d.keyOf(nil, item).AppendJSON(nil))
				return nil
			}
			if err != nil {
				return err
			}
			return closer.Close()
		}
		return nil
	})
	if err != nil {
		return v, err
	}
	for i := range d.Indexes {
		x := &d.Indexes[i]
		if x.Leaving || x.Filling {
			continue
		}
		n := int64(0)
		if err := walk(snap, d.indexPrefix(x), func(_, _ []byte) error { n++; return nil }); err != nil {
			return v, err
		}
		if v.Entries += n; n != has[x.No] {
			v.wrong("index %s has %d entries, and the table has items for %d", x.Name, n, has[x.No])
		}
	}
	return v, s.verifyStream(snap, d, &v)
}

func walk(snap *pebble.Snapshot, prefix []byte, each func(k, v []byte) error) error {
	it, err := snap.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if err := each(it.Key(), it.Value()); err != nil {
			return err
		}
	}
	return it.Error()
}

// verifyStream holds the newest record of each item against the item.
func (s *Store) verifyStream(snap *pebble.Snapshot, d *definition, v *Verdict) error {
	if d.Stream == "" {
		return nil
	}
	prefix := numbered(keyStream, d.ID, 0)[:6]
	it, err := snap.NewIter(&pebble.IterOptions{LowerBound: numbered(keyStream, d.ID, uint64(d.Began)<<12), UpperBound: after(prefix)})
	if err != nil {
		return err
	}
	defer it.Close()
	seen := map[string]bool{}
	for ok := it.Last(); ok; ok = it.Prev() {
		v.Records++
		n := binary.BigEndian.Uint64(it.Key()[len(prefix):])
		r, err := readRecord(n, it.Value())
		if err != nil {
			v.wrong("stream record %d cannot be read: %v", n, err)
			continue
		}
		primary := d.primary(r.key)
		if seen[string(primary)] {
			continue
		}
		seen[string(primary)] = true
		item, err := itemAt(snap, d.itemKey(primary))
		if err != nil {
			return err
		}
		switch {
		case item != nil && r.event == remove:
			v.wrong("the stream says that item %s was removed, and it is there", r.key.AppendJSON(nil))
		case item == nil && r.event != remove:
			v.wrong("the stream has item %s, and the table has not", r.key.AppendJSON(nil))
		case item != nil && r.now != nil && !r.now.Equal(item):
			v.wrong("the stream has another item %s than the table", r.key.AppendJSON(nil))
		}
	}
	return it.Error()
}

// verifyCall is Verify for the owner of an environment, who asks as if it were an operation.
func (s *Store) verifyCall(c awsapi.Caller, name string) (any, error) {
	if !c.May("dynamodb", awsapi.Every) {
		return nil, fault("UnknownOperationException", "")
	}
	out, err := s.Verify(c.Account, name)
	if err != nil {
		return nil, err
	}
	return member{"Tables": out}, nil
}
