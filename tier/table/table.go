// Package table is DynamoDB on the house's log: tables with items, indexes, streams, transactions and backups,
// behind DynamoDB's JSON protocol.
//
// Store holds the tables of all accounts. What is acknowledged is on disk; an item, its indexes and its stream
// record are one write. Reads of every kind see only what is on disk. A partition has a latch (stripe) under
// which its changes are decided and applied; the wait for the disk is outside of it, so that many writers share
// a sync. Begin at Store.Serve; how a change is made is in write.go, how pages are read in read.go.
// Source: the Amazon DynamoDB API Reference and Developer Guide.
package table

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"tenfold/internal/awsapi"
	"tenfold/internal/kv"
)

// Config is what a Store is told.
type Config struct {
	Log *slog.Logger
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Burst is for how long capacity that was not used is kept; 0: five minutes, as DynamoDB does.
	Burst time.Duration
	// Objects are where exports go and imports come from; nil: neither is served.
	Objects Objects
}

// synced is how everything is written that shares no sync with others.
var synced = pebble.Sync

// Store holds tables. Safe for concurrent use.
type Store struct {
	db  *kv.DB
	cfg Config

	end  chan struct{}
	done sync.WaitGroup

	stripes [stripes]stripe

	// changing is held by who changes definitions: one at a time.
	changing sync.Mutex
	// transfers is held while an export or an import is begun: a token begins one.
	transfers sync.Mutex

	mu     sync.RWMutex
	tables map[place]*table
	tokens map[string]bool // of transactions that are being made
	nextID uint32

	undos atomic.Uint64 // tells apart what is written down in one millisecond
}

type place struct{ account, name string }

// table is a table in use.
type table struct {
	def   atomic.Pointer[definition]
	count count
	gone  atomic.Bool

	// counting says that count does not have what was there before; first is a snapshot of that.
	counting atomic.Bool
	first    *pebble.Snapshot

	mu      sync.Mutex
	indexes map[uint16]*count
	buckets map[string]*bucket // by the index they are of, "" for the table's own
	stream  stream
	use     use
}

// count is how much is in a table or an index.
type count struct{ items, bytes atomic.Int64 }

func (t *table) indexCount(no uint16) *count {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.indexes[no]
	if c == nil {
		c = &count{}
		t.indexes[no] = c
	}
	return c
}

// Open reads what tables there are.
func Open(db *kv.DB, cfg Config) (*Store, error) {
	if cfg.Log == nil {
		return nil, errors.New("open tables: Log is required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.Burst = cmp.Or(cfg.Burst, 5*time.Minute)
	s := &Store{db: db, cfg: cfg, end: make(chan struct{}), tables: map[place]*table{}, tokens: map[string]bool{}, nextID: 1}
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{kv.Tables, keyMeta}, UpperBound: []byte{kv.Tables, keyMeta + 1}})
	if err != nil {
		return nil, fmt.Errorf("open tables: %w", err)
	}
	defer it.Close()
	var uncounted []*table
	for it.First(); it.Valid(); it.Next() {
		d := &definition{}
		if err := json.Unmarshal(it.Value(), d); err != nil {
			return nil, fmt.Errorf("open tables: %s: %w", it.Key(), err)
		}
		t := newTable(d)
		counted, err := s.readCounts(t, d)
		if err == nil {
			err = s.openStream(t, d)
		}
		if err != nil {
			return nil, fmt.Errorf("open table %s: %w", d.Name, err)
		}
		if !counted {
			t.counting.Store(true)
			t.first = db.NewSnapshot()
			uncounted = append(uncounted, t)
		}
		s.tables[place{d.Account, d.Name}] = t
		s.nextID = max(s.nextID, d.ID+1)
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("open tables: %w", err)
	}
	if n, err := s.highestCopy(); err != nil {
		return nil, fmt.Errorf("open tables: %w", err)
	} else {
		s.nextID = max(s.nextID, n+1)
	}
	if n, err := s.resumeTransfers(); err != nil {
		return nil, fmt.Errorf("open tables: %w", err)
	} else {
		s.nextID = max(s.nextID, n+1)
	}
	for _, t := range uncounted {
		s.done.Go(func() { s.recount(t) })
	}
	for _, t := range s.tables {
		s.resume(t)
	}
	s.done.Go(s.sweep)
	return s, nil
}

func newTable(d *definition) *table {
	t := &table{indexes: map[uint16]*count{}, buckets: map[string]*bucket{}}
	t.def.Store(d)
	t.stream.init()
	return t
}

// Close ends what it does by itself. Requests must have ended.
func (s *Store) Close() {
	close(s.end)
	s.done.Wait()
	s.writeCounts()
}

func (s *Store) find(account, name string) *table {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.tables[place{account, name}]
}

// of are an account's tables, by name.
func (s *Store) of(account string) []*table {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []*table
	for p, t := range s.tables {
		if p.account == account {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b *table) int { return cmp.Compare(a.def.Load().Name, b.def.Load().Name) })
	return out
}

func (s *Store) every() []*table {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]*table, 0, len(s.tables))
	for _, t := range s.tables {
		out = append(out, t)
	}
	return out
}

// stripes is how many latches there are: partitions share them by hash.
const stripes = 1024

// stripe is the latch of some partitions. What is applied under it may not be on disk yet: last says when it is.
type stripe struct {
	mu     sync.Mutex
	passed uint64 // barriers
	last   atomic.Pointer[kv.Group]
}

// settle waits until what was applied under a stripe before is on disk. Groups reach the disk in the
// order in which they were joined, so the last speaks for all.
func (p *stripe) settle() error {
	g := p.last.Load()
	if g == nil {
		return nil
	}
	return g.Wait()
}

// settle waits for all stripes: for reads that cross partitions.
func (s *Store) settle() error {
	for i := range s.stripes {
		if err := s.stripes[i].settle(); err != nil {
			return err
		}
	}
	return nil
}

// stripeOf is the stripe of a partition, by an item's primary key: its first bytes are a hash.
func (s *Store) stripeOf(d *definition, primary []byte) *stripe {
	return &s.stripes[stripeNo(d, primary)]
}

func stripeNo(d *definition, primary []byte) int {
	n := uint32(primary[0])<<16 | uint32(primary[1])<<8 | uint32(primary[2])
	return int((n ^ d.ID*2654435761) % stripes)
}

// apply applies a batch under the stripes that are held, so that who comes after sees it. The caller lets go
// of the stripes, then waits.
func (s *Store) apply(b *pebble.Batch, held []*stripe) (*kv.Group, error) {
	g := s.db.Join()
	for _, p := range held {
		p.last.Store(g) // before it is seen: who sees it waits for it
	}
	defer b.Close()
	return g, g.Apply(b)
}

// barrier waits until everybody who took a definition before is done with it.
func (s *Store) barrier() {
	for i := range s.stripes {
		p := &s.stripes[i]
		p.mu.Lock()
		p.passed++ // to have held it is the point
		p.mu.Unlock()
	}
}

// sweep deletes by and by what has had its time.
func (s *Store) sweep() {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for n := 1; ; n++ {
		select {
		case <-s.end:
			return
		case <-t.C:
		}
		if s.db.Writable() != nil {
			continue
		}
		for _, t := range s.every() {
			if err := s.expire(t); err != nil {
				s.cfg.Log.Error("delete expired items", "table", t.def.Load().Name, "err", err)
			}
		}
		if n%sweepsAnHour == 0 {
			if err := s.trim(); err != nil {
				s.cfg.Log.Error("delete what is too old", "err", err)
			}
		}
	}
}

const (
	sweepEvery   = 5 * time.Second
	sweepsAnHour = int(time.Hour / sweepEvery)
)

// stopped says that the store is being closed.
func (s *Store) stopped() bool {
	select {
	case <-s.end:
		return true
	default:
		return false
	}
}

var _ awsapi.Service = (*Store)(nil)

// Remove deletes a table with all that is in it; one that is not there is no error.
func (s *Store) Remove(_ context.Context, account, name string) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if t := s.find(account, name); t != nil {
		return s.drop(t)
	}
	return nil
}
