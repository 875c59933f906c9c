package table

import (
	"encoding/json"
	"slices"

	"tenfold/internal/awsapi"
	"tenfold/tier/table/attr"
	"tenfold/tier/table/request"
)

// batchBytes is how many bytes of items an answer of BatchGetItem has at most.
const batchBytes = 16 << 20

func (s *Store) batchGet(c awsapi.Caller, in *request.Input) ([]byte, error) {
	type part struct {
		t *table
		d *definition
	}
	parts := make([]part, len(in.Gets))
	for i, g := range in.Gets {
		t, d, err := s.use(c, g.TableName, g.Account, "BatchGetItem")
		if err != nil {
			return nil, err
		}
		seen := map[string]bool{}
		for _, k := range g.Keys {
			if err := d.checkKey(k); err != nil {
				return nil, err
			}
			if p := string(d.primary(k)); seen[p] {
				return nil, invalid("Provided list of item keys contains duplicates")
			} else {
				seen[p] = true
			}
		}
		if err := d.scalarsOnly(&request.Input{Projection: g.Projection}); err != nil {
			return nil, err
		}
		parts[i] = part{t, d}
	}
	out := append(make([]byte, 0, 4096), `{"Responses":{`...)
	left := map[string]json.RawMessage{}
	var capacity []member
	size, refusals := 0, 0
	for i, g := range in.Gets {
		t, d := parts[i].t, parts[i].d
		got := &consumed{t: t, d: d}
		if i > 0 {
			out = append(out, ',')
		}
		out = appendName(out, g.As)
		out = append(out, '[')
		var unread []attr.Item
		n := 0
		for _, k := range g.Keys {
			if size >= batchBytes {
				unread = append(unread, k)
				continue
			}
			if s.admit(t, d, nil, false) != nil {
				unread = append(unread, k)
				refusals++
				continue
			}
			item, err := s.get(s.db, d, k)
			if err != nil {
				return nil, err
			}
			one := &consumed{t: t, d: d, read: readUnits(item.Size(), g.ConsistentRead)}
			s.book(one)
			got.read += one.read
			if item == nil {
				continue
			}
			if size += item.Size(); size > batchBytes {
				unread = append(unread, k)
				continue
			}
			if n++; n > 1 {
				out = append(out, ',')
			}
			if g.Projection != nil {
				item = g.Projection.Apply(item)
			}
			out = item.AppendJSON(out)
		}
		t.returned(n)
		out = append(out, ']')
		if unread != nil {
			left[g.As] = unprocessed(g, unread)
		}
		if m := got.describe(in.ReturnConsumedCapacity, ""); m != nil {
			capacity = append(capacity, m)
		}
	}
	if refusals > 0 && !slices.ContainsFunc(parts, func(p part) bool { return !p.d.Provisioned }) && refusals == keysIn(in.Gets) {
		return nil, errThrottled("table")
	}
	raw, err := json.Marshal(left)
	if err != nil {
		return nil, err
	}
	out = append(out, `},"UnprocessedKeys":`...)
	out = append(out, raw...)
	if capacity != nil {
		raw, err := json.Marshal(capacity)
		if err != nil {
			return nil, err
		}
		out = append(append(out, `,"ConsumedCapacity":`...), raw...)
	}
	return append(out, '}'), nil
}

func keysIn(gets []request.Keys) (n int) {
	for _, g := range gets {
		n += len(g.Keys)
	}
	return n
}

// unprocessed is the entry of a table with the keys that are left.
func unprocessed(g request.Keys, left []attr.Item) json.RawMessage {
	m := map[string]json.RawMessage{}
	if json.Unmarshal(g.Raw, &m) != nil {
		m = map[string]json.RawMessage{}
	}
	b := []byte{'['}
	for i, k := range left {
		if i > 0 {
			b = append(b, ',')
		}
		b = k.AppendJSON(b)
	}
	m["Keys"] = append(b, ']')
	raw, err := json.Marshal(m)
	if err != nil {
		return nil // it was JSON before
	}
	return raw
}

// appendName appends a member's name and the colon.
func appendName(b []byte, name string) []byte {
	raw, err := json.Marshal(name)
	if err != nil {
		return b // a string always can be written
	}
	return append(append(b, raw...), ':')
}

func (s *Store) batchWrite(c awsapi.Caller, in *request.Input) (any, error) {
	if err := s.db.Writable(); err != nil {
		return nil, err
	}
	type part struct {
		t  *table
		d  *definition
		cs []*change
	}
	parts := make([]part, len(in.Writes))
	for i, w := range in.Writes {
		t, d, err := s.use(c, w.TableName, w.Account, "BatchWriteItem")
		if err != nil {
			return nil, err
		}
		parts[i] = part{t: t, d: d}
		seen := map[string]bool{}
		for _, x := range w.Writes {
			k := x.Key
			if x.Item != nil {
				k = x.Item
				for _, n := range d.keyNames() {
					if x.Item[n].Kind != d.Types[n] {
						return nil, invalid("The provided key element does not match the schema")
					}
				}
				if err := d.checkItem(x.Item); err != nil {
					return nil, err
				}
				if x.Item.Size() > maxItem {
					return nil, invalid("Item size has exceeded the maximum allowed size")
				}
			} else if err := d.checkKey(x.Key); err != nil {
				return nil, err
			}
			p := d.primary(k)
			if seen[string(p)] {
				return nil, invalid("Provided list of item keys contains duplicates")
			}
			seen[string(p)] = true
			parts[i].cs = append(parts[i].cs, &change{t: t, d: d, primary: p})
		}
	}
	var cs []*change
	var items []attr.Item
	left := map[string][]member{}
	metrics := map[string][]member{}
	var taken, refusals int
	for i, w := range in.Writes {
		p := parts[i]
		for j, x := range w.Writes {
			// Each is booked as what it brings before the next is let in.
			if s.admit(p.t, p.d, nil, true) != nil {
				left[w.As] = append(left[w.As], unprocessedWrite(x))
				refusals++
				continue
			}
			s.reserve(p.t, p.d, writeUnits(x.Item.Size()))
			taken++
			cs, items = append(cs, p.cs[j]), append(items, x.Item)
		}
	}
	if taken == 0 && refusals > 0 {
		return nil, errThrottled("table")
	}
	err := s.write(cs, nil, func() error {
		for i, ch := range cs {
			ch.after = items[i]
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var capacity []member
	for i, w := range in.Writes {
		got := &consumed{t: parts[i].t, d: parts[i].d}
		n := 0.0
		for j, ch := range parts[i].cs {
			if !slices.Contains(cs, ch) {
				continue
			}
			got.changed(ch, 1)
			n += writeUnits(w.Writes[j].Item.Size())
			if in.ReturnItemCollectionMetrics == "SIZE" {
				k := w.Writes[j].Key
				if k == nil {
					k = w.Writes[j].Item
				}
				if m := ch.d.collection(k); m != nil {
					metrics[w.As] = append(metrics[w.As], m)
				}
			}
		}
		s.reserve(parts[i].t, parts[i].d, -n)
		s.book(got)
		if m := got.describe(in.ReturnConsumedCapacity, ""); m != nil {
			capacity = append(capacity, m)
		}
	}
	out := member{"UnprocessedItems": left}
	if capacity != nil {
		out["ConsumedCapacity"] = capacity
	}
	if in.ReturnItemCollectionMetrics == "SIZE" && len(metrics) > 0 {
		out["ItemCollectionMetrics"] = metrics
	}
	return out, nil
}

func unprocessedWrite(x request.BatchWrite) member {
	if x.Item != nil {
		return member{"PutRequest": member{"Item": raw(x.Item)}}
	}
	return member{"DeleteRequest": member{"Key": raw(x.Key)}}
}

// reserve takes units out of a table's bucket before it is known what a write takes.
func (s *Store) reserve(t *table, d *definition, units float64) {
	if d.Provisioned {
		t.mu.Lock()
		t.bucket("").write.units -= units
		t.mu.Unlock()
	}
}
