package source

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"
)

// Stream gives records in order, shard by shard.
type Stream interface {
	// Shards are those there are, with those that ended and can still be read.
	Shards(ctx context.Context) ([]Shard, error)
	// Begin is the position where a shard is read from that was never read: Latest or Oldest. It is good for as long as
	// the records after it are.
	Begin(ctx context.Context, shard, start string) (position string, err error)
	// Read gives up to n records after a position; next is the position after them. It may wait a little when there are
	// none. end: there will be none any more. A position whose records are gone gives the oldest that are there.
	Read(ctx context.Context, shard, position string, n int) (records []Record, next string, end bool, err error)
}

// Shard is a part of a stream. Its parent, if there is one, comes before it.
type Shard struct {
	ID, Parent string
}

// Place is how far a shard was worked at: it outlives the process.
type Place struct {
	Position string    `json:"position"`
	Ended    bool      `json:"ended,omitempty"`
	At       time.Time `json:"at"` // when it was written
}

// Places remembers how far shards were worked at.
type Places interface {
	Get(shard string) (Place, bool)
	// Set returns when the place is on disk.
	Set(shard string, p Place) error
	// Keep forgets all shards but those.
	Keep(shards map[string]bool) error
}

// Drop is records that were given up on.
type Drop struct {
	Shard   string
	Records []Record
	// Why is RetryAttemptsExhausted or MaximumRecordAgeExceeded; Err the function's last failure, nil for the latter.
	Why   string
	Tries int
	Err   error
}

// GiveUp tells somebody of a Drop. When it returns nil that is not lost.
type GiveUp func(context.Context, Drop) error

const (
	// shardPace is between two looks at which shards there are.
	shardPace = 5 * time.Second
	// readAhead is how many records of a shard may be in hand, besides a batch for each lane.
	readAhead = 1000
	// A batch that failed is tried again after pauses that double from retryFirst up to retryMost.
	retryFirst, retryMost = time.Second, time.Minute
	// readPace is between two reads of a shard that had nothing.
	readPace = 250 * time.Millisecond
)

// Follower has a function work at a stream.
type Follower struct {
	stream Stream
	set    Settings
	call   Call
	places Places
	giveUp GiveUp
	log    *slog.Logger
	tally
	filter

	oldest struct {
		sync.Mutex
		of map[string]time.Time // by shard: of the first record that is not done
	}
}

// NewFollower joins a stream and a function. It starts nothing.
func NewFollower(s Stream, set Settings, call Call, places Places, giveUp GiveUp, log *slog.Logger) *Follower {
	set.Batch, set.Parallel = max(1, set.Batch), max(1, set.Parallel)
	f := &Follower{stream: s, set: set, call: call, places: places, giveUp: giveUp, log: log, filter: newFilter(set.Match)}
	f.oldest.of = map[string]time.Time{}
	return f
}

// Use says what the stream gave.
func (f *Follower) Use() Use {
	f.mu.Lock()
	u := f.use
	f.mu.Unlock()
	f.oldest.Lock()
	defer f.oldest.Unlock()
	for _, at := range f.oldest.of {
		if !at.IsZero() {
			u.Behind = max(u.Behind, time.Since(at))
		}
	}
	return u
}

// Run reads until ctx ends, and returns when the calls that are under way have ended.
func (f *Follower) Run(ctx context.Context) {
	if f.unread != nil {
		f.trouble(f.unread)
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	going := map[string]bool{}
	ends := make(chan string)
	wait := time.Duration(0)
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			for len(going) > 0 {
				delete(going, <-ends)
			}
			return
		case id := <-ends:
			timer.Stop()
			delete(going, id)
		case <-timer.C:
		}
		shards, err := f.stream.Shards(ctx)
		if ctx.Err() != nil {
			wait = shardPace
			continue
		}
		if f.trouble(err) && err != nil {
			f.log.Warn("read an event source", "err", err)
		}
		if wait = shardPace; err != nil {
			continue
		}
		there := map[string]bool{}
		for _, s := range shards {
			there[s.ID] = true
		}
		if err := f.places.Keep(there); err != nil {
			f.log.Warn("forget how far shards were read", "err", err)
		}
		if err := f.begin(ctx, shards); err != nil && f.trouble(err) {
			f.log.Warn("read an event source", "err", err)
		}
		for _, s := range shards {
			p, known := f.places.Get(s.ID)
			if !known || going[s.ID] || p.Ended || there[s.Parent] && !f.ended(s.Parent) {
				continue
			}
			going[s.ID] = true
			wg.Go(func() {
				f.follow(ctx, s.ID, p.Position)
				ends <- s.ID
			})
		}
	}
}

// begin gives shards a place that have none: all that there are when the stream is read for the first time the one
// that was asked for, later ones their beginning, since nothing lies between them and those before.
func (f *Follower) begin(ctx context.Context, shards []Shard) error {
	start, fresh := f.set.Start, map[string]string{}
	for _, s := range shards {
		if _, known := f.places.Get(s.ID); known {
			start = Oldest
		}
	}
	for _, s := range shards {
		if _, known := f.places.Get(s.ID); known {
			continue
		}
		at, err := f.stream.Begin(ctx, s.ID, start)
		if err != nil {
			return err
		}
		fresh[s.ID] = at
	}
	for id, at := range fresh {
		if err := f.places.Set(id, Place{Position: at, At: time.Now()}); err != nil {
			return err
		}
	}
	return nil
}

func (f *Follower) ended(shard string) bool {
	p, _ := f.places.Get(shard)
	return p.Ended
}

// lane is a share of a shard's keys. Its batches come one after the other.
type lane struct {
	in   []*pending
	news chan struct{} // holds one
}

// pending is a record that is in hand.
type pending struct {
	Record
	done bool
}

// reading is a shard that is followed.
type reading struct {
	f     *Follower
	shard string
	lanes []*lane

	mu     sync.Mutex
	window []*pending // in order, from the first that is not done
	room   chan struct{}
	saving sync.Mutex // one writes down how far, and the furthest wins
}

// follow works at a shard from a position until it ended or ctx does.
func (f *Follower) follow(ctx context.Context, shard, position string) {
	defer f.age(shard, time.Time{})
	r := &reading{f: f, shard: shard, room: make(chan struct{}, 1)}
	var wg sync.WaitGroup
	life, end := context.WithCancel(ctx)
	for range f.set.Parallel {
		l := &lane{news: make(chan struct{}, 1)}
		r.lanes = append(r.lanes, l)
		wg.Go(func() { r.drain(life, l) })
	}
	ended := r.read(ctx, position)
	if ended { // what is in hand is done first
		for !r.empty() && ctx.Err() == nil {
			select {
			case <-r.room:
			case <-ctx.Done():
			}
		}
	}
	end()
	wg.Wait()
	if ended && r.empty() {
		p, _ := f.places.Get(shard)
		p.Ended, p.At = true, time.Now()
		if err := f.places.Set(shard, p); err != nil {
			f.log.Error("write down that a shard was read", "shard", shard, "err", err) // it is read again, and has nothing
		}
	}
}

func (r *reading) empty() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.window) == 0
}

// read hands records to lanes until the shard ends, or ctx does.
func (r *reading) read(ctx context.Context, position string) (ended bool) {
	wait := troubleFirst
	for ctx.Err() == nil {
		r.mu.Lock()
		room := readAhead + r.f.set.Batch*len(r.lanes) - len(r.window)
		r.mu.Unlock()
		if room <= 0 {
			select {
			case <-r.room:
			case <-ctx.Done():
			}
			continue
		}
		records, next, end, err := r.f.stream.Read(ctx, r.shard, position, min(room, readAhead))
		if ctx.Err() != nil && err != nil {
			return false
		}
		if r.f.trouble(err) && err != nil {
			r.f.log.Warn("read an event source", "shard", r.shard, "err", err)
		}
		if err != nil {
			pause(ctx, wait)
			wait = min(2*wait, troubleMost)
			continue
		}
		position, wait = next, troubleFirst
		r.take(records)
		if end {
			return true
		}
		if len(records) == 0 {
			pause(ctx, readPace)
		}
	}
	return false
}

// take gives each record to the lane of its key. Those that the function is not called with are done.
func (r *reading) take(records []Record) {
	var over []*pending
	r.mu.Lock()
	for _, x := range records {
		p := &pending{Record: x}
		r.window = append(r.window, p)
		if !r.f.wants(x) {
			over = append(over, p)
			continue
		}
		l := r.lanes[0]
		if len(r.lanes) > 1 {
			h := fnv.New32a()
			h.Write([]byte(x.Key))
			l = r.lanes[h.Sum32()%uint32(len(r.lanes))]
		}
		l.in = append(l.in, p)
		ring(l.news)
	}
	r.behind()
	r.mu.Unlock()
	if len(over) > 0 {
		r.finish(over)
		r.f.count(func(u *Use) { u.Filtered += uint64(len(over)) })
	}
}

func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

// behind notes how old the first record is that is not done. Under mu.
func (r *reading) behind() {
	if len(r.window) == 0 {
		r.f.age(r.shard, time.Time{})
	} else {
		r.f.age(r.shard, r.window[0].At)
	}
}

func (f *Follower) age(shard string, at time.Time) {
	f.oldest.Lock()
	defer f.oldest.Unlock()
	if at.IsZero() {
		delete(f.oldest.of, shard)
	} else {
		f.oldest.of[shard] = at
	}
}

// drain works at a lane's records, batch by batch, until ctx ends.
func (r *reading) drain(ctx context.Context, l *lane) {
	for ctx.Err() == nil {
		batch := r.gather(ctx, l)
		if len(batch) == 0 {
			continue
		}
		r.f.count(func(u *Use) { u.Working++ })
		for _, part := range parts(plainRecords(batch)) {
			if !r.settle(ctx, batch[:len(part)]) {
				break
			}
			batch = batch[len(part):]
		}
		r.f.count(func(u *Use) { u.Working-- })
	}
}

func plainRecords(batch []*pending) []Record {
	out := make([]Record, len(batch))
	for i, p := range batch {
		out[i] = p.Record
	}
	return out
}

// gather takes what comes to a lane: what is there, or as much as comes within the window.
func (r *reading) gather(ctx context.Context, l *lane) []*pending {
	var window <-chan time.Time
	for {
		r.mu.Lock()
		n := len(l.in)
		if n >= r.f.set.Batch || n > 0 && r.f.set.Wait == 0 {
			return r.cut(l)
		}
		r.mu.Unlock()
		if n > 0 && window == nil {
			t := time.NewTimer(r.f.set.Wait)
			defer t.Stop()
			window = t.C
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.news:
		case <-window:
			r.mu.Lock()
			return r.cut(l)
		}
	}
}

// cut takes a batch off a lane. It releases mu.
func (r *reading) cut(l *lane) []*pending {
	defer r.mu.Unlock()
	n := min(len(l.in), r.f.set.Batch)
	out := l.in[:n:n]
	l.in = l.in[n:]
	if len(l.in) > 0 {
		ring(l.news)
	}
	return out
}

// piece is a part of a batch that is worked at.
type piece struct {
	records []*pending
	tries   int
}

// settle has records worked at until each is done or given up on; false: ctx ended before.
func (r *reading) settle(ctx context.Context, batch []*pending) bool {
	f := r.f
	stack := []piece{{records: batch}}
	for len(stack) > 0 {
		p := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if p.records = r.ageOut(ctx, p.records); ctx.Err() != nil {
			return false
		}
		if len(p.records) == 0 {
			continue
		}
		records := plainRecords(p.records)
		answer, err := r.call(ctx, records)
		if errors.Is(err, ErrBusy) {
			return false
		}
		good, err := firstFailure(records, answer, err)
		r.finish(p.records[:good])
		f.count(func(u *Use) {
			u.Batches++
			u.Records += uint64(good)
			if u.Failed += uint64(len(records) - good); err != nil {
				u.Last = err.Error()
			}
		})
		if err == nil {
			continue
		}
		rest := piece{records: p.records[good:], tries: p.tries + 1}
		switch {
		case good > 0: // it went on: what is left is another batch, which was tried once
			rest.tries = 1
			fallthrough
		case !f.set.Bisect || len(rest.records) == 1:
			if f.set.Retries >= 0 && rest.tries > f.set.Retries {
				if !r.drop(ctx, Drop{Shard: r.shard, Records: plainRecords(rest.records), Why: "RetryAttemptsExhausted", Tries: rest.tries, Err: err}) {
					return false
				}
				r.finish(rest.records)
				continue
			}
			stack = append(stack, rest)
		default: // halves are tried afresh, the first first
			half := len(rest.records) / 2
			stack = append(stack, piece{records: rest.records[half:]}, piece{records: rest.records[:half]})
		}
		if !pause(ctx, min(retryFirst<<min(rest.tries-1, 16), retryMost)) {
			return false
		}
	}
	return true
}

// call calls the function, and waits while it has no room; ErrBusy: ctx ended meanwhile.
func (r *reading) call(ctx context.Context, records []Record) ([]byte, error) {
	for wait := busyFirst; ; wait = min(2*wait, busyMost) {
		answer, err := r.f.call(context.WithoutCancel(ctx), event(records))
		if !errors.Is(err, ErrBusy) {
			return answer, err
		}
		r.f.count(func(u *Use) { u.Throttle++ })
		if !pause(ctx, wait) {
			return nil, err // ctx ended
		}
	}
}

// firstFailure is how many records are done before the first that is not, and why that is not. What comes after it is
// tried again, whatever was said of it: the order holds.
func firstFailure(records []Record, answer []byte, err error) (good int, why error) {
	if err != nil {
		return 0, err
	}
	failed, err := failures(answer, records)
	if err != nil {
		return 0, err
	}
	for i, x := range records {
		if failed[x.ID] {
			return i, fmt.Errorf("the function reported a failure at %s", x.ID)
		}
	}
	return len(records), nil
}

// ageOut gives up on records that are too old.
func (r *reading) ageOut(ctx context.Context, records []*pending) []*pending {
	if r.f.set.Age <= 0 {
		return records
	}
	n := 0
	for n < len(records) && !records[n].At.IsZero() && time.Since(records[n].At) > r.f.set.Age {
		n++
	}
	if n > 0 {
		if !r.drop(ctx, Drop{Shard: r.shard, Records: plainRecords(records[:n]), Why: "MaximumRecordAgeExceeded"}) {
			return nil
		}
		r.finish(records[:n])
	}
	return records[n:]
}

// drop tells of records that are given up on, until that is not lost; false: ctx ended before.
func (r *reading) drop(ctx context.Context, d Drop) bool {
	for wait := troubleFirst; ; wait = min(2*wait, troubleMost) {
		err := r.f.giveUp(ctx, d)
		if err == nil {
			r.f.count(func(u *Use) { u.Dropped += uint64(len(d.Records)) })
			return true
		}
		r.f.log.Error("hand on what was given up on", "shard", r.shard, "err", err)
		if !pause(ctx, wait) {
			return false
		}
	}
}

// finish notes that records are done or given up on, and writes down how far the shard is worked at.
func (r *reading) finish(records []*pending) {
	if len(records) == 0 {
		return
	}
	r.saving.Lock()
	defer r.saving.Unlock()
	r.mu.Lock()
	for _, p := range records {
		p.done = true
	}
	last := ""
	n := 0
	for ; n < len(r.window) && r.window[n].done; n++ {
		last = r.window[n].Handle
	}
	clear(r.window[:n])
	r.window = r.window[n:]
	r.behind()
	r.mu.Unlock()
	if last != "" {
		if err := r.f.places.Set(r.shard, Place{Position: last, At: time.Now()}); err != nil {
			r.f.log.Error("write down how far a stream was read: records come again", "shard", r.shard, "err", err)
		}
	}
	ring(r.room)
}
