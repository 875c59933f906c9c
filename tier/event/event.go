// Package event is EventBridge on the house's log: buses, rules and their targets, archives, connections to
// HTTP endpoints, and schedules with the Scheduler's API.
//
// Store holds those of all accounts. PutEvents writes, in one synced batch, what archives keep of the events
// and one delivery for each target of each rule that takes them; only then it answers. Deliveries are made
// from the log, each again and again until its target took it or it is given up on: at least once, in no
// order. That a delivery was made is not synced: after a crash it may be made again.
// Begin at Store.Serve and at deliver.go. Source: the Amazon EventBridge API Reference and User Guide.
package event

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"tenfold/internal/awsapi"
	"tenfold/internal/kv"
)

// Message is what a queue is sent.
type Message struct {
	Body string
	// Group and Once are for queues in order: the message group, and what makes two messages one.
	Group, Once string
	Attributes  map[string]string
}

// Sender sends to queues. Its error is an *awsapi.Fault when the queue refuses.
type Sender interface {
	Send(ctx context.Context, account, queue string, m Message) error
}

// Invoker calls functions. When it returns nil the call outlives both processes; the same id is one call.
type Invoker interface {
	Invoke(ctx context.Context, account, function, id string, payload []byte) error
}

// Runner starts jobs.
type Runner interface {
	Start(ctx context.Context, account, job, id string) error
}

// Sealer keeps what nobody may read in the log: the secrets of connections.
type Sealer interface {
	Seal(value string) ([]byte, error)
	Open(sealed []byte) (string, error)
}

// Config is what a Store is told. A nil target is refused as one that is not here.
type Config struct {
	Log    *slog.Logger
	Send   Sender
	Invoke Invoker
	Run    Runner
	Seal   Sealer
	// HTTP sends to endpoints; nil: a transport of its own.
	HTTP http.RoundTripper
}

// Store holds buses and what belongs to them. Safe for concurrent use.
type Store struct {
	db  *kv.DB
	cfg Config

	life context.Context
	end  context.CancelFunc
	done sync.WaitGroup

	next atomic.Uint64 // number of the next delivery
	news chan struct{} // holds one: there is something for the deliverer
	tick chan struct{} // holds one: timers changed

	mu sync.RWMutex // held while definitions change, on disk too
	// Under mu.
	buses     map[place]*bus
	endpoints map[place]*endpoint
	conns     map[place]*connection
	archives  map[place]*archive
	replays   map[place]*replay
	groups    map[place]*group
	schedules map[place]*schedule // name is group/name
	replaying map[place]context.CancelFunc
	lasts     map[string]int64 // when each timer rang last: Unix milliseconds

	pending sync.Mutex
	// Under pending: deliveries that were written and not yet taken up.
	arrived []waiting

	counts counts
}

// place names a thing of an account.
type place struct{ account, name string }

// bus is an event bus.
type bus struct {
	Account     string            `json:"account"`
	Name        string            `json:"name"`
	Description string            `json:"description,omitempty"`
	Policy      string            `json:"policy,omitempty"`
	Dead        string            `json:"dead,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Created     int64             `json:"created"` // Unix milliseconds
	Modified    int64             `json:"modified"`
	// Kept says that a manifest names it: clients cannot delete it. By is who made it otherwise.
	Kept bool   `json:"kept,omitempty"`
	By   string `json:"by,omitempty"`

	rules map[string]*rule
	uses  *busCounts
}

// The first two bytes of keys; a bus, a rule and so on follow as account/name.
const (
	kindBus        = 'b'
	kindRule       = 'r' // account/bus/name
	kindEndpoint   = 'd'
	kindConnection = 'c'
	kindArchive    = 'a'
	kindReplay     = 'p'
	kindGroup      = 'g'
	kindSchedule   = 's'
	kindTimer      = 't' // when a timer rang last, by what it is a timer of
	kindDelivery   = 'w' // number → delivery
	kindHistory    = 'h' // archive's number, milliseconds, number → event
	kindOutbox     = 'o' // account/bus/database → how far its rows were taken
)

func keyOf(kind byte, name string) []byte { return append([]byte{kv.Events, kind}, name...) }

func named(kind byte, p place) []byte { return keyOf(kind, p.account+"/"+p.name) }

func deliveryKey(n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{kv.Events, kindDelivery}, n)
}

// Open reads what there is, and what is to be delivered. Run does it.
func Open(db *kv.DB, cfg Config) (*Store, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.HTTP == nil {
		cfg.HTTP = &http.Transport{MaxIdleConnsPerHost: 8, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: endpointTimeout, ForceAttemptHTTP2: true}
	}
	s := &Store{db: db, cfg: cfg, news: make(chan struct{}, 1), tick: make(chan struct{}, 1),
		buses: map[place]*bus{}, endpoints: map[place]*endpoint{}, conns: map[place]*connection{}, archives: map[place]*archive{},
		replays: map[place]*replay{}, groups: map[place]*group{}, schedules: map[place]*schedule{}, replaying: map[place]context.CancelFunc{}}
	s.life, s.end = context.WithCancel(context.Background())
	s.counts.buses = map[place]*busCounts{}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("open events: %w", err)
	}
	return s, nil
}

// each reads all of a kind.
func each[T any](s *Store, kind byte, f func(key []byte, v *T) error) error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kv.Events, kind}, UpperBound: []byte{kv.Events, kind + 1}})
	if err != nil {
		return err
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		v := new(T)
		if err := json.Unmarshal(it.Value(), v); err != nil {
			return fmt.Errorf("read %q: %w", it.Key(), err)
		}
		if err := f(it.Key(), v); err != nil {
			return err
		}
	}
	return it.Error()
}

func (s *Store) load() error {
	s.next.Store(1)
	return errors.Join(
		each(s, kindBus, func(_ []byte, b *bus) error { s.addBus(b); return nil }),
		each(s, kindRule, func(_ []byte, r *rule) error {
			b := s.bus(r.Account, r.Bus)
			if b == nil {
				return nil
			}
			if err := r.compile(); err != nil { // an older Tenfold took it: it takes no event until it is put again
				s.cfg.Log.Error("a rule is not valid any more", "rule", r.id(), "err", err)
			}
			b.rules[r.Name] = r
			return nil
		}),
		each(s, kindConnection, func(_ []byte, c *connection) error { s.conns[place{c.Account, c.Name}] = c; return nil }),
		each(s, kindEndpoint, func(_ []byte, e *endpoint) error { s.endpoints[place{e.Account, e.Name}] = e; return nil }),
		each(s, kindArchive, func(_ []byte, a *archive) error {
			s.archives[place{a.Account, a.Name}] = a
			if err := a.compile(); err != nil { // an older Tenfold took its pattern: rather it keeps everything
				s.cfg.Log.Error("an archive's pattern is not valid any more", "archive", a.Name, "err", err)
			}
			return nil
		}),
		each(s, kindReplay, func(_ []byte, r *replay) error { s.replays[place{r.Account, r.Name}] = r; return nil }),
		each(s, kindGroup, func(_ []byte, g *group) error { s.groups[place{g.Account, g.Name}] = g; return nil }),
		each(s, kindSchedule, func(_ []byte, x *schedule) error {
			s.schedules[place{x.Account, x.Group + "/" + x.Name}] = x
			return x.compile()
		}),
		each(s, kindTimer, func(key []byte, last *int64) error { s.rang(string(key[2:]), *last); return nil }),
		each(s, kindDelivery, func(key []byte, d *delivery) error {
			n := binary.BigEndian.Uint64(key[2:])
			s.next.Store(max(s.next.Load(), n+1))
			s.arrived = append(s.arrived, d.waiting(n))
			return nil
		}),
	)
}

func (s *Store) addBus(b *bus) {
	p := place{b.Account, b.Name}
	b.rules = map[string]*rule{}
	if s.counts.buses[p] == nil {
		s.counts.buses[p] = &busCounts{}
	}
	b.uses = s.counts.buses[p]
	s.buses[p] = b
}

// bus finds a bus; "default" is there in every account. Call with mu held for writing when it may be made,
// and see busRead.
func (s *Store) bus(account, name string) *bus {
	p := place{account, name}
	if b := s.buses[p]; b != nil || name != defaultBus {
		return b
	}
	s.addBus(&bus{Account: account, Name: name})
	return s.buses[p]
}

const defaultBus = "default"

// busRead finds a bus with mu held for reading or not at all.
func (s *Store) busRead(account, name string) *bus {
	s.mu.RLock()
	b := s.buses[place{account, name}]
	s.mu.RUnlock()
	if b == nil && name == defaultBus {
		s.mu.Lock()
		b = s.bus(account, name)
		s.mu.Unlock()
	}
	return b
}

// Run makes deliveries, rings timers and plays archives again until ctx ends; then all of it has ended.
// ready is called when it has begun.
func (s *Store) Run(ctx context.Context, ready func()) error {
	stop := context.AfterFunc(ctx, s.end)
	defer stop()
	s.done.Go(s.deliver)
	s.done.Go(s.ring)
	s.done.Go(s.sweep)
	s.resumeReplays()
	ready()
	<-s.life.Done()
	s.done.Wait()
	return nil
}

// Close ends what Run does, and waits for it.
func (s *Store) Close() {
	s.end()
	s.done.Wait()
}

// write has changes to definitions on disk before it returns. Call with mu held.
func (s *Store) write(change func(b *pebble.Batch) error) error {
	if err := s.db.Writable(); err != nil {
		return err
	}
	b := s.db.NewBatch()
	defer b.Close()
	if err := change(b); err != nil {
		return err
	}
	return b.Commit(pebble.Sync)
}

// put writes one definition.
func (s *Store) put(key []byte, v any) error {
	return s.write(func(b *pebble.Batch) error { return set(b, key, v) })
}

func set(b *pebble.Batch, key []byte, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.Set(key, raw, nil)
}

func (s *Store) drop(keys ...[]byte) error {
	return s.write(func(b *pebble.Batch) error {
		for _, k := range keys {
			if err := b.Delete(k, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func prod(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// of are an account's things, by name.
func of[T any](all map[place]*T, account string) []*T {
	type pair struct {
		name string
		v    *T
	}
	var found []pair
	for p, v := range all {
		if p.account == account {
			found = append(found, pair{p.name, v})
		}
	}
	slices.SortFunc(found, func(a, b pair) int { return cmp.Compare(a.name, b.name) })
	out := make([]*T, len(found))
	for i, f := range found {
		out[i] = f.v
	}
	return out
}

// ARNs are as EventBridge makes them.
func arn(service, account, rest string) string {
	return "arn:aws:" + service + ":" + awsapi.Region + ":" + account + ":" + rest
}

func (b *bus) arn() string { return arn("events", b.Account, "event-bus/"+b.Name) }

// resource cuts an ARN of this partition.
func resource(arn string) (service, account, rest string, ok bool) {
	p := strings.SplitN(arn, ":", 6)
	if len(p) != 6 || p[0] != "arn" || p[2] == "" || p[5] == "" {
		return "", "", "", false
	}
	return p[2], p[4], p[5], true
}
