package event

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/google/uuid"

	"tenfold/internal/awsapi"
	"tenfold/tier/event/transform"
)

// A timer that was due while the house was down rings once when it is back, for the latest of the moments
// that it missed: when it rang last is written in one batch with the deliveries that came of it.

// What a timer is of stands before its id.
const (
	ruleTimer     = "r/"
	scheduleTimer = "s/"
)

// ringer is something with a timer, and when it rang last.
type ringer struct {
	id   string
	t    *timer
	last int64
	r    *rule
	x    *schedule
}

// rang keeps when a timer rang last, as it is on disk.
func (s *Store) rang(id string, last int64) {
	if s.lasts == nil {
		s.lasts = map[string]int64{}
	}
	s.lasts[id] = last
}

// ringers are all timers that are on.
func (s *Store) ringers() []ringer {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []ringer
	for _, b := range s.buses {
		for _, r := range b.rules {
			if r.timer != nil && r.State != disabled {
				id := ruleTimer + r.id()
				out = append(out, ringer{id: id, t: r.timer, last: max(r.Began, s.lasts[id]), r: r})
			}
		}
	}
	for _, x := range s.schedules {
		if x.timer != nil && x.State != disabled {
			id := scheduleTimer + x.id()
			out = append(out, ringer{id: id, t: x.timer, last: max(x.Began, s.lasts[id], x.Start-1), x: x})
		}
	}
	return out
}

// ring rings timers when they are due, until the store is closed.
func (s *Store) ring() {
	type known struct {
		t    *timer
		last int64
		next time.Time
	}
	cache := map[string]known{}
	clock := time.NewTimer(time.Hour)
	defer clock.Stop()
	for {
		now := time.Now()
		earliest := now.Add(time.Hour) // clocks are set, too
		all := s.ringers()
		if len(cache) > 2*len(all)+100 {
			clear(cache)
		}
		for _, g := range all {
			k := cache[g.id]
			if k.t != g.t || k.last != g.last {
				k = known{g.t, g.last, g.t.next(time.UnixMilli(g.last))}
				cache[g.id] = k
			}
			over := g.x != nil && g.x.End > 0 && (k.next.IsZero() || k.next.UnixMilli() > g.x.End)
			switch {
			case g.x != nil && (k.next.IsZero() || over):
				if g.x.After == "DELETE" {
					s.completed(g.x)
				}
			case k.next.IsZero():
			case k.next.After(now):
				if k.next.Before(earliest) {
					earliest = k.next
				}
			default:
				if err := s.rings(g, now); err != nil {
					s.cfg.Log.Error("a schedule is due and could not be written down", "schedule", g.id, "err", err)
					if again := now.Add(time.Second); again.Before(earliest) {
						earliest = again
					}
				} else {
					earliest = now // what is next is seen in another round
				}
			}
		}
		clock.Reset(max(0, earliest.Sub(now)))
		select {
		case <-s.life.Done():
			return
		case <-s.tick:
		case <-clock.C:
		}
	}
}

// rings has on disk what comes of a timer that is due.
func (s *Store) rings(g ringer, now time.Time) error {
	tick := g.t.due(time.UnixMilli(g.last), now)
	if tick.IsZero() {
		return fmt.Errorf("%s is due and is not", g.id)
	}
	if err := s.db.Writable(); err != nil {
		return err
	}
	batch := s.db.NewBatch()
	defer batch.Close()
	var all []waiting
	err := func() error {
		s.mu.RLock()
		defer s.mu.RUnlock()
		if g.r != nil {
			var err error
			all, err = s.ringRule(batch, g.r, tick, now)
			return err
		}
		d, err := g.x.delivery(tick, now)
		if err != nil {
			return err
		}
		w, err := s.add(batch, d)
		all = []waiting{w}
		return err
	}()
	if err != nil {
		return err
	}
	if err := set(batch, keyOf(kindTimer, g.id), tick.UnixMilli()); err != nil {
		return err
	}
	if err := s.commit(batch, all); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rang(g.id, tick.UnixMilli())
	return nil
}

// ringRule is what comes of a rule's schedule: an event for its targets. Call with mu held for reading.
func (s *Store) ringRule(batch *pebble.Batch, r *rule, tick, now time.Time) ([]waiting, error) {
	b := s.buses[place{r.Account, r.Bus}]
	if b == nil {
		return nil, nil
	}
	raw, err := marshal(envelope{Version: "0", ID: uuid.NewString(), DetailType: "Scheduled Event", Source: "aws.events", Account: r.Account,
		Time: tick.UTC().Format(eventTime), Region: awsapi.Region, Resources: []string{r.arn()}, Detail: []byte("{}")})
	if err != nil {
		return nil, err
	}
	tree, err := transform.Decode(raw)
	if err != nil {
		return nil, err
	}
	b.uses.Matched.Add(1)
	return s.fire(batch, b, r, raw, tree, spreading{at: within(now, r.Window)})
}

// within is a moment of a window that begins now.
func within(now time.Time, seconds int64) time.Time {
	if seconds <= 0 {
		return now
	}
	return now.Add(rand.N(time.Duration(seconds) * time.Second))
}
