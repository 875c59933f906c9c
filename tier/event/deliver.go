package event

import (
	"container/heap"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"tenfold/internal/awsapi"
)

// A delivery is in the log from the moment that its event was acknowledged until its target took it, or its
// dead-letter queue did. In memory is of each only when it is due and for whom: deliver keeps these by time
// and hands those that are due to goroutines, so many at once for a target, so that one that is slow holds up
// no other. How often it was tried is written before it is tried again.

const (
	// atOnce bounds what is under way, and atOnceTarget that to one target.
	atOnce, atOnceTarget = 256, 16
	// Pauses double from pauseFirst to pauseMost, and are between a half and all of that: 185 tries take a day.
	pauseFirst, pauseMost = time.Second, 10 * time.Minute
	// deliverTimeout bounds a try at a target inside the house.
	deliverTimeout = 30 * time.Second
)

// delivery is an event on its way to one target.
type delivery struct {
	ID      string          `json:"id"`
	Account string          `json:"account"`
	Arn     string          `json:"arn"`
	Body    string          `json:"body"`
	Rule    string          `json:"rule,omitempty"` // or the schedule: an ARN
	Bus     string          `json:"bus,omitempty"`
	Target  string          `json:"target,omitempty"`
	Group   string          `json:"group,omitempty"`
	HTTP    *httpParameters `json:"http,omitempty"`
	Job     string          `json:"job,omitempty"`
	Retries int             `json:"retries"`
	Age     int64           `json:"age"` // seconds
	Dead    string          `json:"dead,omitempty"`
	At      int64           `json:"at"` // Unix milliseconds
	Due     int64           `json:"due"`
	Tries   int             `json:"tries,omitempty"`
	Hops    int             `json:"hops,omitempty"`
	// Code and Why are of the last failure; with Given it was given up on, and only its dead-letter queue is
	// yet to have it.
	Code  string `json:"code,omitempty"`
	Why   string `json:"why,omitempty"`
	Given bool   `json:"given,omitempty"`
}

// waiting is what is in memory of a delivery.
type waiting struct {
	due    int64
	n      uint64
	target string // its ARN
	turn   bool   // due is its turn at a target with a rate
}

func (d *delivery) waiting(n uint64) waiting { return waiting{due: d.Due, n: n, target: d.Arn} }

type byDue []waiting

func (b byDue) Len() int           { return len(b) }
func (b byDue) Less(i, j int) bool { return b[i].due < b[j].due }
func (b byDue) Swap(i, j int)      { b[i], b[j] = b[j], b[i] }
func (b *byDue) Push(x any)        { *b = append(*b, x.(waiting)) }
func (b *byDue) Pop() any {
	old := *b
	x := old[len(old)-1]
	*b = old[:len(old)-1]
	return x
}

// ended is what became of one try.
type ended struct {
	waiting
	again bool // at due
}

// deliver hands out what is due, until the store is closed.
func (s *Store) deliver() {
	var queue byDue
	going, busy := 0, map[string]int{}
	parked := map[string][]waiting{} // by target that has enough under way
	slots := map[string]time.Time{}  // by target with a rate: when the next may go
	results := make(chan ended)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		s.pending.Lock()
		for _, w := range s.arrived {
			heap.Push(&queue, w)
		}
		s.arrived = nil
		s.pending.Unlock()
		now := time.Now()
		for len(queue) > 0 && queue[0].due <= now.UnixMilli() && going < atOnce && s.life.Err() == nil {
			w := heap.Pop(&queue).(waiting)
			if busy[w.target] >= atOnceTarget {
				parked[w.target] = append(parked[w.target], w)
				continue
			}
			if per := s.pace(w.target); per > 0 && !w.turn {
				free := slots[w.target]
				if !free.After(now) {
					free = now
				}
				slots[w.target] = free.Add(per)
				if free.After(now) {
					w.due, w.turn = free.UnixMilli()+1, true
					heap.Push(&queue, w)
					continue
				}
			}
			w.turn = false
			going++
			busy[w.target]++
			go func() { results <- s.try(w) }()
		}
		s.counts.waiting.Store(int64(len(queue) + going))
		pause := time.Hour
		if len(queue) > 0 && going < atOnce {
			pause = max(time.Millisecond, time.UnixMilli(queue[0].due).Sub(now))
		}
		timer.Reset(pause)
		select {
		case <-s.life.Done():
			for range going {
				<-results
			}
			return
		case <-s.news:
		case <-timer.C:
		case r := <-results:
			going--
			if busy[r.target]--; busy[r.target] == 0 {
				delete(busy, r.target)
			}
			if r.again {
				heap.Push(&queue, r.waiting)
			}
			if list := parked[r.target]; len(list) > 0 {
				heap.Push(&queue, list[0])
				if parked[r.target] = list[1:]; len(list) == 1 {
					delete(parked, r.target)
				}
			}
			if len(slots) > 1000 {
				for k, t := range slots {
					if t.Before(now) {
						delete(slots, k)
					}
				}
			}
		}
	}
}

// lasting is an error that trying again does not help against.
type lasting struct {
	code string
	err  error
}

func (l *lasting) Error() string { return l.err.Error() }
func (l *lasting) Unwrap() error { return l.err }

func never(code, format string, args ...any) error {
	return &lasting{code, fmt.Errorf(format, args...)}
}

// temporary is an error with the code by which a dead letter names it, and after which moment it may be
// tried again.
type temporary struct {
	code  string
	after time.Duration
	err   error
}

func (t *temporary) Error() string { return t.err.Error() }
func (t *temporary) Unwrap() error { return t.err }

// try makes one delivery once, and writes down what comes next.
func (s *Store) try(w waiting) ended {
	raw, closer, err := s.db.Get(deliveryKey(w.n))
	if errors.Is(err, pebble.ErrNotFound) {
		return ended{waiting: w}
	}
	var d delivery
	if err == nil {
		err = json.Unmarshal(raw, &d)
		closer.Close()
	}
	if err != nil {
		s.cfg.Log.Error("read a delivery", "number", w.n, "err", err)
		w.due = time.Now().Add(pauseMost).UnixMilli()
		return ended{w, true}
	}
	u := s.usesOf(&d)
	if d.Given {
		return s.bury(w, &d, u)
	}
	u.Invocations.Add(1)
	err = s.send(w.n, &d)
	if err == nil {
		u.Delivered.Add(1)
		return s.forget(w)
	}
	if s.life.Err() != nil { // the next process tries it
		return ended{waiting: w}
	}
	u.Failed.Add(1)
	d.Code, d.Why = "SDK_CLIENT_ERROR", err.Error()
	pause := time.Duration(0)
	var l *lasting
	var t *temporary
	switch {
	case errors.As(err, &l):
		d.Code = l.code
	case errors.As(err, &t):
		d.Code, pause = t.code, t.after
	}
	now := time.Now()
	due := now.Add(max(pause, backoff(d.Tries)))
	end := time.UnixMilli(d.At).Add(time.Duration(d.Age) * time.Second)
	if l != nil || d.Tries >= d.Retries || due.After(end) {
		d.Given = true
		return s.bury(w, &d, u)
	}
	d.Tries++
	u.Retried.Add(1)
	d.Due = due.UnixMilli()
	return s.again(w, &d)
}

// backoff is the pause after the try that n others failed before.
func backoff(n int) time.Duration {
	d := pauseMost
	if n < 16 {
		d = min(pauseMost, pauseFirst<<n)
	}
	return d/2 + rand.N(d/2)
}

// again writes down when a delivery is tried next. That it cannot be written is no reason not to.
func (s *Store) again(w waiting, d *delivery) ended {
	if raw, err := json.Marshal(d); err != nil {
		s.cfg.Log.Error("keep a delivery", "target", d.Arn, "err", err)
	} else if err := s.db.Set(deliveryKey(w.n), raw, pebble.NoSync); err != nil {
		s.cfg.Log.Error("keep a delivery", "target", d.Arn, "err", err)
	}
	w.due = d.Due
	return ended{w, true}
}

func (s *Store) forget(w waiting) ended {
	if err := s.db.Delete(deliveryKey(w.n), pebble.NoSync); err != nil {
		s.cfg.Log.Error("forget a delivery", "number", w.n, "err", err)
	}
	return ended{waiting: w}
}

// bury hands what was given up on to its dead-letter queue, with what EventBridge says of it.
func (s *Store) bury(w waiting, d *delivery, u *busCounts) ended {
	queue, ok := queueOf(d.Dead)
	if !ok {
		u.Dropped.Add(1)
		s.cfg.Log.Warn("an event was given up on, and there is no dead-letter queue for it", "rule", d.Rule, "target", d.Arn, "tries", d.Tries+1, "why", d.Why)
		return s.forget(w)
	}
	m := Message{Body: d.Body, Group: d.group(), Once: d.ID + "-dead", Attributes: map[string]string{
		"RULE_ARN": d.Rule, "TARGET_ARN": d.Arn, "ERROR_CODE": d.Code, "ERROR_MESSAGE": cut(d.Why, 1000), "RETRY_ATTEMPTS": strconv.Itoa(d.Tries),
		"EXHAUSTED_RETRY_CONDITION": exhausted(d),
	}}
	ctx, cancel := context.WithTimeout(s.life, deliverTimeout)
	defer cancel()
	err := s.sendQueue(ctx, d.Account, queue, m)
	var l *lasting
	switch {
	case err == nil:
		u.Buried.Add(1)
		return s.forget(w)
	case errors.As(err, &l):
		u.Dropped.Add(1)
		s.cfg.Log.Error("an event was given up on, and its dead-letter queue does not take it", "rule", d.Rule, "target", d.Arn, "queue", queue, "err", err)
		return s.forget(w)
	}
	d.Due = time.Now().Add(backoff(4)).UnixMilli()
	return s.again(w, d)
}

func exhausted(d *delivery) string {
	if d.Tries >= d.Retries {
		return "MaximumRetryAttempts"
	}
	return "MaximumEventAgeInSeconds"
}

func (d *delivery) group() string {
	if d.Group != "" {
		return d.Group
	}
	return "events"
}

func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// queueOf is the name of the queue that an ARN names.
func queueOf(a string) (string, bool) {
	service, _, rest, ok := resource(a)
	return rest, ok && service == "sqs"
}

// send gives a delivery to its target.
func (s *Store) send(n uint64, d *delivery) error {
	ctx, cancel := context.WithTimeout(s.life, deliverTimeout)
	defer cancel()
	service, account, rest, _ := resource(d.Arn)
	if account != d.Account {
		return never("NO_PERMISSIONS", "%s is of another account", d.Arn)
	}
	kind, name, _ := strings.Cut(rest, "/")
	switch {
	case service == "sqs":
		return s.sendQueue(ctx, account, rest, Message{Body: d.Body, Group: d.group(), Once: d.ID})
	case service == "lambda" && s.cfg.Invoke != nil:
		name, _, _ := strings.Cut(strings.TrimPrefix(rest, "function:"), ":")
		return s.cfg.Invoke.Invoke(ctx, account, name, d.ID, []byte(d.Body))
	case service == "ecs" && s.cfg.Run != nil:
		return s.cfg.Run.Start(ctx, account, d.Job, d.ID)
	case service == "events" && kind == "event-bus":
		return s.hop(n, d, name)
	case service == "events" && kind == "api-destination":
		name, _, _ := strings.Cut(name, "/")
		return s.call(ctx, d, name)
	}
	return never("NO_RESOURCE", "there is nothing here that takes events as %s", d.Arn)
}

func (s *Store) sendQueue(ctx context.Context, account, queue string, m Message) error {
	if s.cfg.Send == nil {
		return never("NO_RESOURCE", "there are no queues here")
	}
	if !strings.HasSuffix(queue, ".fifo") {
		m.Group, m.Once = "", ""
	}
	err := s.cfg.Send.Send(ctx, account, queue, m)
	var f *awsapi.Fault
	if errors.As(err, &f) && f.Status < 500 {
		if f.Code == "QueueDoesNotExist" {
			return never("NO_RESOURCE", "queue %s does not exist", queue)
		}
		return never("SDK_CLIENT_ERROR", "queue %s: %w", queue, err)
	}
	return err
}

// hop gives an event to another bus, in one batch with the end of this delivery: it arrives once.
func (s *Store) hop(n uint64, d *delivery, name string) error {
	if d.Hops >= maxHops {
		return never("SDK_CLIENT_ERROR", "the event went from bus to bus %d times", d.Hops)
	}
	b := s.busRead(d.Account, name)
	if b == nil {
		return never("NO_RESOURCE", "event bus %s does not exist", name)
	}
	batch := s.db.NewBatch()
	defer batch.Close()
	all, err := s.spread(batch, b, []byte(d.Body), spreading{at: time.Now(), hops: d.Hops + 1})
	if err != nil {
		return err
	}
	if err := batch.Delete(deliveryKey(n), nil); err != nil {
		return err
	}
	return s.commit(batch, all)
}

// busCounts is what happened on a bus since the process began.
type busCounts struct {
	Puts, Matched, Triggered, Invocations, Delivered, Failed, Retried, Buried, Dropped atomic.Int64
	rows                                                                               rowCounts
}

type counts struct {
	waiting atomic.Int64
	buses   map[place]*busCounts // under Store.mu
	others  busCounts            // of schedules
}

func (s *Store) usesOf(d *delivery) *busCounts {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if u := s.counts.buses[place{d.Account, d.Bus}]; u != nil {
		return u
	}
	return &s.counts.others
}
