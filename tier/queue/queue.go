// Package queue is SQS on the house's log: all 23 operations, in JSON and in the older query protocol.
//
// Store holds the queues of all accounts; a queue keeps its messages in the log and, in memory, little more
// than their numbers. What is acknowledged is on disk. That a message was given out is not synced: after a
// crash it is given out again, as SQS' "at least once" allows; that it was deleted is.
// Begin at Store.Serve. Source: the Amazon SQS API Reference and Developer Guide.
package queue

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"tenfold/internal/awsapi"
	"tenfold/internal/kv"
)

// Config is what a Store is told.
type Config struct {
	Log *slog.Logger
	// URL is how clients name a queue. Its path ends in "/<account>/<name>".
	URL func(account, name string) string
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Store holds queues. Safe for concurrent use.
type Store struct {
	db  *kv.DB
	cfg Config

	end  chan struct{}
	done sync.WaitGroup
	// leaving is closed when who waits for messages is to be answered now.
	leaving chan struct{}
	leave   sync.Once

	mu     sync.Mutex
	queues map[place]*queue
	nextID uint64
}

type place struct{ account, name string }

// meta is what is kept of a queue beside its messages.
type meta struct {
	ID       uint64            `json:"id"`
	Account  string            `json:"account"`
	Name     string            `json:"name"`
	Attrs    map[string]string `json:"attrs"` // those that were set
	Tags     map[string]string `json:"tags,omitempty"`
	Created  int64             `json:"created"` // Unix seconds
	Modified int64             `json:"modified"`
	Policy   map[string]grant  `json:"policy,omitempty"` // of AddPermission, by label
	// Kept says that a manifest names it: clients cannot delete it. By is who made it otherwise.
	Kept bool   `json:"kept,omitempty"`
	By   string `json:"by,omitempty"`
}

type grant struct {
	Accounts []string `json:"accounts"`
	Actions  []string `json:"actions"`
}

// What an attribute is when nobody set it, and between what it may be set.
var attributes = map[string]struct{ deflt, low, high int }{
	"DelaySeconds":                  {0, 0, 900},
	"MaximumMessageSize":            {maxMessage, 1024, maxMessage},
	"MessageRetentionPeriod":        {4 * 86400, 60, 14 * 86400},
	"ReceiveMessageWaitTimeSeconds": {0, 0, 20},
	"VisibilityTimeout":             {30, 0, 43200},
	"KmsDataKeyReusePeriodSeconds":  {300, 60, 86400},
}

const (
	maxMessage = 1 << 20
	// maxInFlight is of a standard queue; of one in order 20,000.
	maxInFlight, maxInFlightFIFO = 120_000, 20_000
	dedupeFor                    = 5 * time.Minute
	sweepEvery                   = 30 * time.Second
)

// Keys: 'q' 'm' account '/' name → meta; 'q' 'b' id number → a message; 'q' 's' id number → what became of
// it; 'q' 'd' id key → until when a deduplication id is known, and of which message.
func metaKey(p place) []byte { return []byte("qm" + p.account + "/" + p.name) }

func numbered(kind byte, id, n uint64) []byte {
	b := make([]byte, 0, 18)
	b = append(b, kv.Queues, kind)
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, id), n)
}

func dedupeKey(id uint64, key string) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{kv.Queues, 'd'}, id), key...)
}

// span is all keys of a kind of a queue.
func span(kind byte, id uint64) (low, high []byte) {
	low = binary.BigEndian.AppendUint64([]byte{kv.Queues, kind}, id)
	return low, binary.BigEndian.AppendUint64([]byte{kv.Queues, kind}, id+1)
}

// Open reads what queues there are, and which messages wait in them.
func Open(db *kv.DB, cfg Config) (*Store, error) {
	if cfg.Log == nil || cfg.URL == nil {
		return nil, errors.New("open queues: Log and URL are required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Store{db: db, cfg: cfg, end: make(chan struct{}), leaving: make(chan struct{}), queues: map[place]*queue{}, nextID: 1}
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte("qm"), UpperBound: []byte("qn")})
	if err != nil {
		return nil, fmt.Errorf("open queues: %w", err)
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		var m meta
		if err := json.Unmarshal(it.Value(), &m); err != nil {
			return nil, fmt.Errorf("open queues: %s: %w", it.Key(), err)
		}
		q, err := s.load(m)
		if err != nil {
			return nil, fmt.Errorf("open queue %s: %w", m.Name, err)
		}
		s.queues[place{m.Account, m.Name}] = q
		s.nextID = max(s.nextID, m.ID+1)
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("open queues: %w", err)
	}
	s.done.Go(s.sweep)
	return s, nil
}

// Leave answers those that wait for messages: another process is to serve them.
func (s *Store) Leave() { s.leave.Do(func() { close(s.leaving) }) }

// Close ends what it does by itself. Requests must have ended.
func (s *Store) Close() {
	close(s.end)
	s.done.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.queues {
		q.mu.Lock()
		q.stopTimer()
		q.mu.Unlock()
	}
}

// sweep deletes messages that are older than their queue keeps them, and deduplication ids that have ended.
func (s *Store) sweep() {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-s.end:
			return
		case <-t.C:
		}
		if s.db.Writable() != nil {
			continue
		}
		for _, q := range s.all() {
			if err := q.expire(); err != nil {
				s.cfg.Log.Error("delete what is too old", "queue", q.name(), "err", err)
			}
		}
	}
}

func (s *Store) all() []*queue {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.queues))
}

func (s *Store) find(account, name string) *queue {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queues[place{account, name}]
}

// of are an account's queues, by name.
func (s *Store) of(account string) []*queue {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*queue
	for p, q := range s.queues {
		if p.account == account {
			out = append(out, q)
		}
	}
	slices.SortFunc(out, func(a, b *queue) int { return cmp.Compare(a.m.Name, b.m.Name) })
	return out
}

// create makes a queue, or gives the one there is. made says which.
func (s *Store) create(m meta) (q *queue, made bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := place{m.Account, m.Name}
	if q := s.queues[p]; q != nil {
		return q, false, nil
	}
	if err := s.db.Writable(); err != nil {
		return nil, false, err
	}
	m.ID = s.nextID
	m.Created = s.cfg.Now().Unix()
	m.Modified = m.Created
	q = s.empty(m)
	if err := q.save(); err != nil {
		return nil, false, err
	}
	s.nextID++
	s.queues[p] = q
	return q, true, nil
}

// remove deletes a queue with all that is in it.
func (s *Store) remove(q *queue) error {
	if err := s.db.Writable(); err != nil {
		return err
	}
	b := s.db.NewBatch()
	defer b.Close()
	p := place{q.m.Account, q.m.Name}
	b.Delete(metaKey(p), nil)
	for _, kind := range []byte("bsd") {
		low, high := span(kind, q.m.ID)
		b.DeleteRange(low, high, nil)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := b.Commit(pebble.Sync); err != nil {
		return err
	}
	q.gone = true
	q.stopTimer()
	q.wakeAll()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.queues, p)
	return nil
}

// Backlog is how many messages are in a queue, and the age of the oldest that waits.
type Backlog struct {
	Visible  int           `json:"visible"`
	InFlight int           `json:"inFlight"`
	Delayed  int           `json:"delayed"`
	Oldest   time.Duration `json:"oldest"`
	// NoisyGroups are those of a standard queue with more in flight than the others, QuietVisible what waits of the
	// others.
	NoisyGroups  int `json:"noisyGroups,omitempty"`
	QuietVisible int `json:"quietVisible,omitempty"`

	Sent     uint64 `json:"sent"` // since the process began
	Received uint64 `json:"received"`
	Deleted  uint64 `json:"deleted"`
}

// Backlogs are those of an account's queues, by name.
func (s *Store) Backlogs(account string) map[string]Backlog {
	out := map[string]Backlog{}
	for _, q := range s.of(account) {
		out[q.m.Name] = q.backlog()
	}
	return out
}

// Wanted is a queue as a manifest has it.
type Wanted struct {
	Name                 string // ends in ".fifo" when it is in order
	Timeout, Keep, Delay time.Duration
	Receives             int    // how often a message is given out before it goes to Dead
	Dead                 string // "": it is given out until Keep ends
	FIFO                 bool
	ContentDedupe        bool
	PerGroup             bool
}

// Want makes the queues that a manifest names in an account, with its settings; those that it names no longer
// are a client's from now on. The errors are by name.
func (s *Store) Want(_ context.Context, account string, all []Wanted) map[string]error {
	errs := map[string]error{}
	named := map[string]bool{}
	for _, w := range all {
		named[w.Name] = true
		if err := s.want(account, w); err != nil {
			errs[w.Name] = err
		}
	}
	for _, q := range s.of(account) {
		q.mu.Lock()
		if q.m.Kept && !named[q.m.Name] {
			q.m.Kept = false
			if err := q.save(); err != nil {
				s.cfg.Log.Error("let go of a queue", "queue", q.m.Name, "err", err)
				q.m.Kept = true
			}
		}
		q.mu.Unlock()
	}
	return errs
}

func (s *Store) want(account string, w Wanted) error {
	attrs := map[string]string{
		"VisibilityTimeout": seconds(w.Timeout), "MessageRetentionPeriod": seconds(w.Keep), "DelaySeconds": seconds(w.Delay),
	}
	if w.Dead != "" {
		attrs["RedrivePolicy"] = `{"deadLetterTargetArn":"` + arn(account, w.Dead) + `","maxReceiveCount":` + strconv.Itoa(w.Receives) + `}`
	}
	if w.FIFO {
		attrs["FifoQueue"], attrs["ContentBasedDeduplication"] = "true", strconv.FormatBool(w.ContentDedupe)
		attrs["DeduplicationScope"], attrs["FifoThroughputLimit"] = "queue", "perQueue"
		if w.PerGroup {
			attrs["DeduplicationScope"], attrs["FifoThroughputLimit"] = "messageGroup", "perMessageGroupId"
		}
	}
	q, _, err := s.create(meta{Account: account, Name: w.Name, Attrs: attrs, Kept: true})
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	was := q.m
	next := maps.Clone(q.m.Attrs)
	maps.Copy(next, attrs)
	if w.Dead == "" {
		delete(next, "RedrivePolicy")
	}
	if q.m.Kept && maps.Equal(next, q.m.Attrs) {
		return nil
	}
	q.m.Attrs, q.m.Kept = next, true
	q.m.Modified = s.cfg.Now().Unix()
	if err := q.save(); err != nil {
		q.m = was
		return err
	}
	q.settle()
	return nil
}

// Remove deletes a queue with all that is in it; one that is not there is no error.
func (s *Store) Remove(_ context.Context, account, name string) error {
	if q := s.find(account, name); q != nil {
		return s.remove(q)
	}
	return nil
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

func arn(account, name string) string {
	return "arn:aws:sqs:" + awsapi.Region + ":" + account + ":" + name
}

// named reads an ARN of this account.
func named(arn, account string) (string, bool) {
	p := strings.Split(arn, ":")
	if len(p) != 6 || p[0] != "arn" || p[2] != "sqs" || p[4] != account {
		return "", false
	}
	return p[5], true
}

// redrive is a RedrivePolicy.
type redrive struct {
	Target string      `json:"deadLetterTargetArn"`
	Count  json.Number `json:"maxReceiveCount"`
}

// makeID makes an id as AWS' are: a random UUID.
func makeID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
