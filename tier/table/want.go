package table

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"tenfold"
	"tenfold/tier/table/attr"
)

// Wanted is a table as a manifest has it.
type Wanted struct {
	Name    string
	Hash    string
	Sort    string               // "": none
	Types   map[string]attr.Kind // of keys' attributes; S where nothing stands
	Indexes []WantedIndex
	TTL     string // attribute; "": items do not end
	Stream  string // StreamViewType; "": none
	// Read and Write are units a second; 0: on demand.
	Read, Write int64
	// Days is for how long every change can be undone; 0: it cannot.
	Days int
}

// WantedIndex is a secondary index as a manifest has it.
type WantedIndex struct {
	Name       string
	Local      bool
	Hash, Sort []string
	Projection string   // ALL, KEYS_ONLY or INCLUDE
	Others     []string // with INCLUDE
}

// Want makes the tables that a manifest names in an account, with its settings; those that it names no longer
// are a client's from now on. Indexes that the manifest does not name are left alone when a client made them.
// The errors are by name.
func (s *Store) Want(_ context.Context, account string, all []Wanted) map[string]error {
	errs := map[string]error{}
	named := map[string]bool{}
	for _, w := range all {
		named[w.Name] = true
		if err := s.want(account, w); err != nil {
			errs[w.Name] = err
		}
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	for _, t := range s.of(account) {
		if d := t.def.Load(); d.Kept && !named[d.Name] {
			d = d.clone()
			d.Kept = false
			if err := s.save(t, d); err != nil {
				s.cfg.Log.Error("let go of a table", "table", d.Name, "err", err)
			}
		}
	}
	return errs
}

func (w *Wanted) kind(name string) attr.Kind {
	if k, ok := w.Types[name]; ok {
		return k
	}
	return attr.S
}

func (w *Wanted) index(x WantedIndex, d *definition) {
	for _, n := range slices.Concat(x.Hash, x.Sort) {
		d.typed(n, w.kind(n))
	}
	d.NextIndex++
	d.Indexes = append(d.Indexes, index{Name: x.Name, No: d.NextIndex, Local: x.Local, Hash: x.Hash, Sort: x.Sort, Projection: x.Projection, Others: x.Others, Capacity: throughput{Read: w.Read, Write: w.Write}})
}

// typed gives an attribute of a key its type.
func (d *definition) typed(name string, k attr.Kind) {
	if _, ok := d.Types[name]; !ok {
		d.Order = append(d.Order, name)
	}
	d.Types[name] = k
}

func (s *Store) want(account string, w Wanted) error {
	t := s.find(account, w.Name)
	if t == nil {
		d := &definition{Account: account, Name: w.Name, UUID: uuid.NewString(), Created: s.moment(), Kept: true, Billed: true, Hash: w.Hash, Sort: w.Sort, Types: map[string]attr.Kind{}}
		for _, n := range d.keyNames() {
			d.typed(n, w.kind(n))
		}
		for _, x := range w.Indexes {
			w.index(x, d)
		}
		s.adjust(d, w)
		if !d.Provisioned {
			d.ModeSince = d.Created
		}
		if w.Days > 0 {
			d.Recover, d.RecoverDays = s.cfg.Now().UnixMilli(), w.Days
		}
		d.TTL = w.TTL
		_, err := s.make(d)
		return err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	d := t.def.Load().clone()
	for _, n := range []struct{ what, is, wanted string }{{"key", d.Hash, w.Hash}, {"sort", d.Sort, w.Sort}} {
		if n.is != n.wanted {
			return tenfold.Errorf(tenfold.CodeConflict, "table %s has the %s %q, and it cannot become %q: a table's key is for ever", w.Name, n.what, n.is, n.wanted).WithHint("put it back, or name a new table in tenfold.yaml and move the items")
		}
	}
	for _, n := range d.keyNames() {
		if d.Types[n] != w.kind(n) {
			return tenfold.Errorf(tenfold.CodeConflict, "the key %s of table %s is of type %s, and it cannot become %s", n, w.Name, d.Types[n], w.kind(n)).WithHint("put the type back, or name a new table in tenfold.yaml and move the items")
		}
	}
	changed, moved := s.adjust(d, w), false
	if !d.Kept {
		d.Kept, changed = true, true
	}
	for _, x := range w.Indexes {
		y := d.index(x.Name)
		switch {
		case y == nil && x.Local:
			return tenfold.Errorf(tenfold.CodeConflict, "table %s is there already, and a local index cannot be added to it: %s", w.Name, x.Name).WithHint("leave out local: true, or name a new table")
		case y == nil:
			w.index(x, d)
			d.Indexes[len(d.Indexes)-1].Filling = true
			changed, moved = true, true
		case y.Leaving:
			return fmt.Errorf("index %s is still being deleted; it is made again after that", x.Name)
		case !slices.Equal(y.Hash, x.Hash) || !slices.Equal(y.Sort, x.Sort) || y.Projection != x.Projection || !slices.Equal(y.Others, x.Others):
			return tenfold.Errorf(tenfold.CodeConflict, "index %s of table %s has another key or projection, and an index cannot be changed", x.Name, w.Name).WithHint("name a new index beside it, move the readers, then remove the old one")
		}
	}
	for i := range d.Indexes {
		y := &d.Indexes[i]
		if d.Named[y.Name] && !y.Leaving && !slices.ContainsFunc(w.Indexes, func(x WantedIndex) bool { return x.Name == y.Name }) {
			if y.Local {
				return tenfold.Errorf(tenfold.CodeConflict, "the local index %s of table %s cannot be removed", y.Name, w.Name).WithHint("put it back, or name a new table")
			}
			y.Leaving, y.Filling = true, false
			changed, moved = true, true
		}
	}
	if names := w.names(); !equalSets(names, d.Named) {
		d.Named, changed = names, true
	}
	if changed {
		if err := s.save(t, d); err != nil {
			return err
		}
	}
	if moved {
		s.barrier()
		s.resume(t)
	}
	if d.TTL != w.TTL {
		if err := s.setTTL(t, ""); err != nil {
			return err
		}
		if w.TTL != "" {
			if err := s.setTTL(t, w.TTL); err != nil {
				return err
			}
		}
	}
	if on := w.Days > 0; on != (d.Recover != 0) || on && d.RecoverDays != w.Days {
		return s.setRecover(t, on, w.Days)
	}
	return nil
}

func (w *Wanted) names() map[string]bool {
	out := map[string]bool{}
	for _, x := range w.Indexes {
		out[x.Name] = true
	}
	return out
}

func equalSets(a, b map[string]bool) bool {
	if len(a) != len(b) {
		return false
	}
	for k := range a {
		if !b[k] {
			return false
		}
	}
	return true
}

// adjust gives a definition the settings that can change at any time.
func (s *Store) adjust(d *definition, w Wanted) (changed bool) {
	provisioned := w.Read > 0
	if d.Provisioned != provisioned || d.Capacity.Read != w.Read || d.Capacity.Write != w.Write {
		d.Provisioned, d.Capacity.Read, d.Capacity.Write, changed = provisioned, w.Read, w.Write, true
		for i := range d.Indexes {
			if x := &d.Indexes[i]; !x.Local {
				x.Capacity.Read, x.Capacity.Write = w.Read, w.Write
			}
		}
	}
	if d.Stream != w.Stream {
		changed = true
		if d.Stream = w.Stream; w.Stream != "" {
			s.startStream(d, w.Stream)
		}
	}
	if d.Named == nil {
		d.Named, changed = w.names(), true
	}
	return changed
}
