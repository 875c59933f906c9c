package event

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"tenfold/internal/awsapi"
	"tenfold/internal/pattern"
)

// archive keeps the events of a bus.
type archive struct {
	Account     string `json:"account"`
	Name        string `json:"name"`
	Bus         string `json:"bus"`
	Number      uint64 `json:"number"` // its events are under it
	Pattern     string `json:"pattern,omitempty"`
	Description string `json:"description,omitempty"`
	Days        int    `json:"days"` // 0: for ever
	Created     int64  `json:"created"`
	Kept        bool   `json:"kept,omitempty"`

	takes *pattern.Pattern
}

// replay gives a bus events of an archive again.
type replay struct {
	Account     string   `json:"account"`
	Name        string   `json:"name"`
	Archive     string   `json:"archive"`
	Bus         string   `json:"bus"`
	Rules       []string `json:"rules,omitempty"` // ARNs; none: all
	Description string   `json:"description,omitempty"`
	From        int64    `json:"from"` // Unix milliseconds
	To          int64    `json:"to"`
	State       string   `json:"state"`
	Reason      string   `json:"reason,omitempty"`
	Began       int64    `json:"began"`
	Ended       int64    `json:"ended,omitempty"`
	// At is the key of the event that was played last, and Last its time. Both are written in one batch with
	// what came of it.
	At   []byte `json:"at,omitempty"`
	Last int64  `json:"last,omitempty"`
}

type replayDestination struct {
	Arn        string
	FilterArns []string `json:",omitempty"`
}

const (
	// sweepEvery is how often it is looked for what archives need not keep any more.
	sweepEvery = time.Hour
	// replayChunk is how many events are played in one batch, and replayAhead how many deliveries may wait.
	replayChunk, replayAhead = 100, 10_000
	// replayKept is how long one that ended is told of.
	replayKept = 90 * 24 * time.Hour
)

func (a *archive) arn() string { return arn("events", a.Account, "archive/"+a.Name) }
func (r *replay) arn() string  { return arn("events", r.Account, "replay/"+r.Name) }

func (a *archive) compile() error {
	a.takes = nil
	if a.Pattern == "" {
		return nil
	}
	p, err := pattern.Parse([]byte(a.Pattern))
	a.takes = p
	return err
}

// span is where an archive's events of a time are.
func (a *archive) span(from, to int64) (low, high []byte) {
	return historyKey(a.Number, max(from, 0), 0), historyKey(a.Number, to, math.MaxUint64)
}

// nextArchive is a number that no archive has. Call with mu held.
func (s *Store) nextArchive() uint64 {
	n := uint64(time.Now().UnixMilli()) // and never one that another had
	for _, a := range s.archives {
		n = max(n, a.Number+1)
	}
	return n
}

func (s *Store) createArchive(c awsapi.Caller, in *input) (any, error) {
	b, err := s.busFor(c, "CreateArchive", in.EventSourceArn)
	if err != nil {
		return nil, err
	}
	if !nameOK(in.ArchiveName, 48) {
		return nil, badName("archiveName", in.ArchiveName, 48)
	}
	a := &archive{Account: c.Account, Name: in.ArchiveName, Bus: b.Name, Pattern: text(in.EventPattern), Description: text(in.Description), Created: time.Now().UnixMilli()}
	if in.RetentionDays != nil {
		if a.Days = *in.RetentionDays; a.Days < 0 {
			return nil, invalid("RetentionDays is 0 or more")
		}
	}
	if err := a.compile(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := place{c.Account, a.Name}
	if s.archives[p] != nil {
		return nil, exists("Archive %s already exists.", a.Name)
	}
	a.Number = s.nextArchive()
	if err := s.put(named(kindArchive, p), a); err != nil {
		return nil, err
	}
	s.archives[p] = a
	return a.state(), nil
}

func (a *archive) state() member {
	return member{"ArchiveArn": a.arn(), "State": enabled, "CreationTime": stamp(a.Created)}
}

// wantArchive has a bus' archive as its manifest says; what one keeps that it names no longer stays until it
// is too old. Call with mu held.
func (s *Store) wantArchive(b *bus, keep time.Duration) error {
	p := place{b.Account, manifestArchive(b.Name)}
	a := s.archives[p]
	days := int(keep / (24 * time.Hour))
	switch {
	case days == 0 && (a == nil || !a.Kept):
		return nil
	case days == 0:
		return s.removeArchive(a)
	case a != nil && a.Days == days && a.Kept:
		return nil
	}
	next := &archive{Account: b.Account, Name: p.name, Bus: b.Name, Created: time.Now().UnixMilli()}
	if a != nil {
		*next = *a
	} else {
		next.Number = s.nextArchive()
	}
	next.Days, next.Kept = days, true
	if err := s.put(named(kindArchive, p), next); err != nil {
		return err
	}
	s.archives[p] = next
	return nil
}

// removeArchive deletes an archive with its events. Call with mu held.
func (s *Store) removeArchive(a *archive) error {
	low, high := a.span(0, math.MaxInt64)
	p := place{a.Account, a.Name}
	if err := s.write(func(b *pebble.Batch) error {
		if err := b.DeleteRange(low, high, nil); err != nil {
			return err
		}
		return b.Delete(named(kindArchive, p), nil)
	}); err != nil {
		return err
	}
	delete(s.archives, p)
	return nil
}

// archiveOf finds an archive whose bus the caller may use.
func (s *Store) archiveOf(c awsapi.Caller, operation, name string) (*archive, error) {
	s.mu.RLock()
	a := s.archives[place{c.Account, name}]
	s.mu.RUnlock()
	if a == nil {
		return nil, missing("Archive %s does not exist.", name)
	}
	_, err := s.busFor(c, operation, a.Bus)
	return a, err
}

// holds counts what an archive keeps, by reading it.
func (s *Store) holds(a *archive) (events, size int64, err error) {
	low, high := a.span(0, math.MaxInt64)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: low, UpperBound: high})
	if err != nil {
		return 0, 0, err
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		events++
		size += int64(len(it.Value()))
	}
	return events, size, it.Error()
}

func (s *Store) shownArchive(a *archive) (member, error) {
	n, size, err := s.holds(a)
	return member{"ArchiveName": a.Name, "EventSourceArn": arn("events", a.Account, "event-bus/"+a.Bus), "State": enabled, "RetentionDays": a.Days, "EventCount": n, "SizeBytes": size, "CreationTime": stamp(a.Created)}, err
}

func (s *Store) describeArchive(c awsapi.Caller, in *input) (any, error) {
	a, err := s.archiveOf(c, "DescribeArchive", in.ArchiveName)
	if err != nil {
		return nil, err
	}
	m, err := s.shownArchive(a)
	m["ArchiveArn"] = a.arn()
	if a.Pattern != "" {
		m["EventPattern"] = a.Pattern
	}
	if a.Description != "" {
		m["Description"] = a.Description
	}
	return m, err
}

func (s *Store) updateArchive(c awsapi.Caller, in *input) (any, error) {
	if in.EventPattern == nil && in.RetentionDays == nil && in.Description == nil {
		return nil, invalid("At least one of EventPattern, RetentionDays or Description must be provided.")
	}
	a, err := s.archiveOf(c, "UpdateArchive", in.ArchiveName)
	if err != nil {
		return nil, err
	}
	if a.Kept {
		return nil, keptError("Archive", a.Name, a.Bus)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next := *a
	if in.EventPattern != nil {
		next.Pattern = *in.EventPattern
	}
	if in.Description != nil {
		next.Description = *in.Description
	}
	if in.RetentionDays != nil {
		if next.Days = *in.RetentionDays; next.Days < 0 {
			return nil, invalid("RetentionDays is 0 or more")
		}
	}
	if err := next.compile(); err != nil {
		return nil, err
	}
	p := place{a.Account, a.Name}
	if err := s.put(named(kindArchive, p), &next); err != nil {
		return nil, err
	}
	s.archives[p] = &next
	return next.state(), nil
}

func (s *Store) deleteArchive(c awsapi.Caller, in *input) (any, error) {
	a, err := s.archiveOf(c, "DeleteArchive", in.ArchiveName)
	if err != nil {
		return nil, err
	}
	if a.Kept {
		return nil, keptError("Archive", a.Name, a.Bus)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return none{}, s.removeArchive(a)
}

func (s *Store) listArchives(c awsapi.Caller, in *input) (any, error) {
	s.mu.RLock()
	all := of(s.archives, c.Account)
	s.mu.RUnlock()
	out := []member{}
	for _, a := range all {
		if !strings.HasPrefix(a.Name, in.NamePrefix) || in.State != "" && in.State != enabled || in.EventSourceArn != "" && in.EventSourceArn != arn("events", a.Account, "event-bus/"+a.Bus) {
			continue
		}
		m, err := s.shownArchive(a)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return paged("Archives", out, in)
}

// sweep deletes what archives keep no longer, until the store is closed.
func (s *Store) sweep() {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-s.life.Done():
			return
		case <-t.C:
		}
		s.mu.RLock()
		var all []*archive
		for _, a := range s.archives {
			if a.Days > 0 {
				all = append(all, a)
			}
		}
		s.mu.RUnlock()
		for _, a := range all {
			low, high := a.span(0, time.Now().Add(-time.Duration(a.Days)*24*time.Hour).UnixMilli())
			if s.db.Writable() != nil {
				continue
			}
			if err := s.db.DeleteRange(low, high, pebble.NoSync); err != nil {
				s.cfg.Log.Error("delete archived events that are too old", "archive", a.Name, "err", err)
			}
		}
		s.forgetReplays()
	}
}

func (s *Store) forgetReplays() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, r := range s.replays {
		if r.Ended > 0 && time.Since(time.UnixMilli(r.Ended)) > replayKept && s.drop(named(kindReplay, p)) == nil {
			delete(s.replays, p)
		}
	}
}

func (s *Store) startReplay(c awsapi.Caller, in *input) (any, error) {
	service, account, rest, ok := resource(in.EventSourceArn)
	name, is := strings.CutPrefix(rest, "archive/")
	if !ok || !is || service != "events" || account != c.Account {
		return nil, invalid("Parameter EventSourceArn is not valid. Reason: Must contain an archive ARN.")
	}
	s.mu.RLock()
	known := s.archives[place{c.Account, name}] != nil
	s.mu.RUnlock()
	if !known {
		return nil, invalid("Parameter EventSourceArn is not valid. Reason: Archive %s does not exist.", name)
	}
	a, err := s.archiveOf(c, "StartReplay", name)
	if err != nil {
		return nil, err
	}
	if !nameOK(in.ReplayName, 64) {
		return nil, badName("replayName", in.ReplayName, 64)
	}
	r := &replay{Account: c.Account, Name: in.ReplayName, Archive: a.Name, Bus: a.Bus, Description: text(in.Description), From: int64(in.EventStartTime * 1000), To: int64(in.EventEndTime * 1000), State: "STARTING", Began: time.Now().UnixMilli()}
	switch {
	case in.Destination == nil || in.Destination.Arn != arn("events", c.Account, "event-bus/"+a.Bus):
		return nil, invalid("Parameter Destination.Arn is not valid. Reason: Cross event bus replay is not permitted.")
	case r.To <= r.From:
		return nil, invalid("Parameter EventEndTime is not valid. Reason: EventStartTime must be before EventEndTime.")
	}
	r.Rules = in.Destination.FilterArns
	s.mu.Lock()
	defer s.mu.Unlock()
	p := place{c.Account, r.Name}
	if s.replays[p] != nil {
		return nil, exists("Replay %s already exists.", r.Name)
	}
	if err := s.put(named(kindReplay, p), r); err != nil {
		return nil, err
	}
	s.replays[p] = r
	s.play(p)
	return member{"ReplayArn": r.arn(), "State": r.State, "ReplayStartTime": stamp(r.Began)}, nil
}

// resumeReplays goes on with those that were under way.
func (s *Store) resumeReplays() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, r := range s.replays {
		if r.Ended == 0 {
			s.play(p)
		}
	}
}

// play has a replay go on beside everything else. Call with mu held.
func (s *Store) play(p place) {
	ctx, cancel := context.WithCancel(s.life)
	s.replaying[p] = cancel
	s.done.Go(func() {
		defer cancel()
		for ctx.Err() == nil && s.playSome(ctx, p) {
		}
		s.mu.Lock()
		delete(s.replaying, p)
		s.mu.Unlock()
	})
}

// playSome plays a replay's next events, and says whether there are more.
func (s *Store) playSome(ctx context.Context, p place) (more bool) {
	for s.counts.waiting.Load() > replayAhead {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(100 * time.Millisecond):
		}
	}
	s.mu.RLock()
	r := *s.replays[p]
	a, b := s.archives[place{r.Account, r.Archive}], s.buses[place{r.Account, r.Bus}]
	s.mu.RUnlock()
	if a == nil || b == nil {
		return s.endReplay(p, "FAILED", "the archive or its bus was deleted", nil, nil, nil)
	}
	batch := s.db.NewBatch()
	defer batch.Close()
	all, n, err := s.playChunk(batch, &r, a, b)
	if err != nil {
		return s.endReplay(p, "FAILED", err.Error(), nil, nil, nil)
	}
	if ctx.Err() != nil {
		return false
	}
	if n < replayChunk {
		return s.endReplay(p, "COMPLETED", "", batch, all, func(x *replay) { x.At, x.Last = r.At, r.Last })
	}
	r.State = "RUNNING"
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.replays[p].Ended > 0 {
		return false
	}
	if err = set(batch, named(kindReplay, p), &r); err == nil {
		err = s.commit(batch, all)
	}
	if err != nil {
		s.cfg.Log.Error("replay events", "replay", r.Name, "err", err)
		return false
	}
	s.replays[p] = &r
	return true
}

// playChunk adds to a batch what comes of a replay's next events.
func (s *Store) playChunk(batch *pebble.Batch, r *replay, a *archive, b *bus) (all []waiting, n int, err error) {
	low, high := a.span(r.From, r.To)
	if r.At != nil {
		low = append(bytes.Clone(r.At), 0)
	}
	rules := map[string]bool(nil)
	for _, x := range r.Rules {
		if rules == nil {
			rules = map[string]bool{}
		}
		rules[x] = true
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: low, UpperBound: high})
	if err != nil {
		return nil, 0, err
	}
	defer it.Close()
	for it.First(); it.Valid() && n < replayChunk; it.Next() {
		n++
		var e envelope
		if err := json.Unmarshal(it.Value(), &e); err != nil {
			return nil, n, err
		}
		e.Replay = r.Name
		raw, err := marshal(e)
		if err != nil {
			return nil, n, err
		}
		if all, err = s.spread(batch, b, raw, spreading{at: time.Now(), rules: rules, replay: true, made: all}); err != nil {
			return nil, n, err
		}
		r.At, r.Last = bytes.Clone(it.Key()), int64(binary.BigEndian.Uint64(it.Key()[10:]))
	}
	return all, n, it.Error()
}

// endReplay writes down how a replay ended, with the last of its events.
func (s *Store) endReplay(p place, state, reason string, batch *pebble.Batch, all []waiting, f func(r *replay)) (more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := *s.replays[p]
	if next.Ended > 0 {
		return false
	}
	if batch == nil {
		batch = s.db.NewBatch()
		defer batch.Close()
	}
	next.State, next.Reason, next.Ended = state, reason, time.Now().UnixMilli()
	if f != nil {
		f(&next)
	}
	err := set(batch, named(kindReplay, p), &next)
	if err == nil {
		err = s.commit(batch, all)
	}
	if err != nil {
		s.cfg.Log.Error("end a replay", "replay", next.Name, "err", err)
		return false
	}
	s.replays[p] = &next
	return false
}

func (s *Store) replayOf(c awsapi.Caller, operation, name string) (*replay, error) {
	s.mu.RLock()
	r := s.replays[place{c.Account, name}]
	s.mu.RUnlock()
	if r == nil {
		return nil, missing("Replay %s does not exist.", name)
	}
	_, err := s.busFor(c, operation, r.Bus)
	return r, err
}

func (r *replay) state() member {
	m := member{"ReplayName": r.Name, "EventSourceArn": arn("events", r.Account, "archive/"+r.Archive), "State": r.State, "EventStartTime": stamp(r.From), "EventEndTime": stamp(r.To), "ReplayStartTime": stamp(r.Began)}
	if r.Reason != "" {
		m["StateReason"] = r.Reason
	}
	if r.Last > 0 {
		m["EventLastReplayedTime"] = stamp(r.Last)
	}
	if r.Ended > 0 {
		m["ReplayEndTime"] = stamp(r.Ended)
	}
	return m
}

func (s *Store) describeReplay(c awsapi.Caller, in *input) (any, error) {
	r, err := s.replayOf(c, "DescribeReplay", in.ReplayName)
	if err != nil {
		return nil, err
	}
	m := r.state()
	d := member{"Arn": arn("events", r.Account, "event-bus/"+r.Bus)}
	if len(r.Rules) > 0 {
		d["FilterArns"] = r.Rules
	}
	m["ReplayArn"], m["Destination"] = r.arn(), d
	if r.Description != "" {
		m["Description"] = r.Description
	}
	return m, nil
}

func (s *Store) listReplays(c awsapi.Caller, in *input) (any, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := []member{}
	for _, r := range of(s.replays, c.Account) {
		if strings.HasPrefix(r.Name, in.NamePrefix) && (in.State == "" || in.State == r.State) && (in.EventSourceArn == "" || in.EventSourceArn == arn("events", r.Account, "archive/"+r.Archive)) {
			out = append(out, r.state())
		}
	}
	return paged("Replays", out, in)
}

func (s *Store) cancelReplay(c awsapi.Caller, in *input) (any, error) {
	r, err := s.replayOf(c, "CancelReplay", in.ReplayName)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := place{c.Account, in.ReplayName}
	next := *s.replays[p]
	if !slices.Contains([]string{"STARTING", "RUNNING"}, next.State) {
		return nil, fault("IllegalStatusException", "Replay %s is not in a valid state for this operation.", r.Name)
	}
	next.State, next.Ended = "CANCELLED", time.Now().UnixMilli()
	if err := s.put(named(kindReplay, p), &next); err != nil {
		return nil, err
	}
	s.replays[p] = &next
	if cancel := s.replaying[p]; cancel != nil {
		cancel()
	}
	return member{"ReplayArn": next.arn(), "State": "CANCELLING"}, nil
}
