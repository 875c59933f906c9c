package table

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"tenfold/internal/awsapi"
	"tenfold/internal/kv"
	"tenfold/tier/table/request"
)

// expireAtOnce is how many items one write of the sweep deletes.
const expireAtOnce = 100

// tooLongAgo is the age from which a moment is taken for another kind of number, as DynamoDB does.
const tooLongAgo = 5 * 365 * 24 * time.Hour

func (s *Store) updateTTL(c awsapi.Caller, in *request.Input) (any, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	t, d, err := s.named(c, in, "UpdateTimeToLive")
	if err != nil {
		return nil, err
	}
	spec := in.TimeToLiveSpecification
	name := ""
	if spec.Enabled {
		name = spec.AttributeName
	}
	switch {
	case name != "" && d.TTL == name:
		return nil, invalid("TimeToLive is already enabled")
	case name != "" && d.TTL != "":
		return nil, invalid("TimeToLive is active on a different AttributeName: current AttributeName is %s", d.TTL)
	case name == "" && d.TTL == "":
		return nil, invalid("TimeToLive is already disabled")
	}
	if err := s.setTTL(t, name); err != nil {
		return nil, err
	}
	return member{"TimeToLiveSpecification": member{"AttributeName": spec.AttributeName, "Enabled": spec.Enabled}}, nil
}

// setTTL has items end by an attribute, or by none. changing is held.
func (s *Store) setTTL(t *table, name string) error {
	d := t.def.Load().clone()
	d.TTL, d.Dating = name, name != ""
	if err := s.save(t, d); err != nil {
		return err
	}
	s.barrier()
	k := key(keyExpiry, d.ID)
	if name == "" {
		return s.db.DeleteRange(k, after(k), synced)
	}
	s.done.Go(func() { s.date(t, name) })
	return nil
}

// date enters when the items end that were there before it was told by which attribute.
func (s *Store) date(t *table, name string) {
	done := s.passOver(t, "find out when items expire", func(b *pebble.Batch, c *change) {
		if at := expiry(c.d, c.before); at != 0 && c.d.TTL != "" {
			b.Set(append(numbered(keyExpiry, c.d.ID, at), c.primary...), nil, nil)
		}
	})
	if done {
		s.finish(t, func(d *definition) { d.Dating = d.Dating && d.TTL != name })
	}
}

func (s *Store) describeTTL(c awsapi.Caller, in *request.Input) (any, error) {
	_, d, err := s.named(c, in, "DescribeTimeToLive")
	if err != nil {
		return nil, err
	}
	m := member{"TimeToLiveStatus": "DISABLED"}
	if d.TTL != "" {
		m = member{"TimeToLiveStatus": "ENABLED", "AttributeName": d.TTL}
	}
	return member{"TimeToLiveDescription": m}, nil
}

// expire deletes the items of a table whose time has come.
func (s *Store) expire(t *table) error {
	for !s.stopped() && !t.gone.Load() {
		d := t.def.Load()
		if d.TTL == "" {
			return nil
		}
		now := s.cfg.Now()
		from, to := numbered(keyExpiry, d.ID, uint64(max(0, now.Add(-tooLongAgo).Unix()))), numbered(keyExpiry, d.ID, uint64(now.Unix())+1)
		it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
		if err != nil {
			return err
		}
		var keys [][]byte
		for ok := it.First(); ok && len(keys) < expireAtOnce; ok = it.Next() {
			keys = append(keys, slices.Clone(it.Key()))
		}
		if err := it.Close(); err != nil {
			return err
		}
		if len(keys) == 0 {
			return nil
		}
		if err := s.expireSome(t, d, keys, uint64(now.Unix())); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) expireSome(t *table, d *definition, keys [][]byte, now uint64) error {
	var cs []*change
	seen := map[string]bool{}
	for _, k := range keys {
		p := k[14:] // prefix, kind, table, moment
		if !seen[string(p)] {
			seen[string(p)] = true
			cs = append(cs, &change{t: t, d: d, primary: p, expired: true})
		}
	}
	err := s.write(cs, func(b *pebble.Batch) {
		for _, k := range keys {
			b.Delete(k, nil) // where the item says otherwise now, this one is stale
		}
	}, func() error {
		for _, c := range cs {
			if at := expiry(c.d, c.before); at == 0 || at > now {
				c.only = true
			}
		}
		return nil
	})
	for _, c := range cs {
		if err == nil && !c.only && c.before != nil {
			t.mu.Lock()
			t.use.Expired++
			t.mu.Unlock()
		}
	}
	return err
}

// wholeSeconds reads a number as a moment, and gives 0 for one that is none.
func wholeSeconds(text string) uint64 {
	whole, _, _ := strings.Cut(text, ".")
	n, err := strconv.ParseUint(whole, 10, 40)
	if err != nil {
		return 0
	}
	return n
}

// trim deletes what is kept for a time only: records of streams, what items were, tokens of transactions.
func (s *Store) trim() error {
	for _, t := range s.every() {
		d := t.def.Load()
		if d.Label != "" {
			if err := s.trimStream(d); err != nil {
				return err
			}
		}
		if d.Recover != 0 {
			if err := s.db.DeleteRange(key(keyUndo, d.ID), numbered(keyUndo, d.ID, uint64(s.earliest(d).UnixMilli())), synced); err != nil {
				return err
			}
		}
	}
	return s.trimTokens()
}

func (s *Store) trimTokens() error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kv.Tables, keyToken}, UpperBound: []byte{kv.Tables, keyToken + 1}})
	if err != nil {
		return err
	}
	defer it.Close()
	b := s.db.NewBatch()
	defer b.Close()
	old := s.cfg.Now().Add(-tokenFor)
	for ok := it.First(); ok; ok = it.Next() {
		if v := it.Value(); len(v) < 8 || time.UnixMilli(int64(binary.BigEndian.Uint64(v))).Before(old) {
			b.Delete(slices.Clone(it.Key()), nil)
		}
	}
	if err := it.Error(); err != nil || b.Empty() {
		return err
	}
	return b.Commit(synced)
}
