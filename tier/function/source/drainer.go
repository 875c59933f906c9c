package source

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Queue gives each record to whoever asks first.
type Queue interface {
	// Take gives up to n records, which nobody else gets for the queue's time and hold. It waits for the first up to wait.
	Take(ctx context.Context, n int, wait, hold time.Duration) ([]Record, error)
	// Done ends records. Those that are gone already are no error.
	Done(ctx context.Context, records []Record) error
	// Hold gives records to nobody else for d from now; 0: to anybody at once.
	Hold(ctx context.Context, records []Record, d time.Duration) error
	// Visible is the queue's time: for how long nobody else gets what was taken.
	Visible() time.Duration
	// Ordered says that records of one key come one after the other.
	Ordered() bool
}

const (
	// takeWait is how long one question waits for records. It is short, since it is never cut off: what was given in
	// that moment would count as received and be seen by nobody until the queue's time is over.
	takeWait = time.Second
	// askLimit bounds a question.
	askLimit = 15 * time.Second
	// A source that does not answer is asked again after pauses that double from troubleFirst up to troubleMost; a
	// function without room after busyFirst up to busyMost.
	troubleFirst, troubleMost = 100 * time.Millisecond, 5 * time.Second
	busyFirst, busyMost       = 20 * time.Millisecond, time.Second
	// takeMost is what one question gets at most, as SQS has it.
	takeMost = 10
	// leaveDone is for how long it is tried to end what was done, once Run is to end.
	leaveDone = 20 * time.Second
)

// Drainer has a function work at a queue.
type Drainer struct {
	queue Queue
	set   Settings
	call  Call
	log   *slog.Logger
	tally
	filter
}

// NewDrainer joins a queue and a function. It starts nothing.
func NewDrainer(q Queue, s Settings, call Call, log *slog.Logger) *Drainer {
	s.Batch, s.Parallel = max(1, s.Batch), max(1, s.Parallel)
	return &Drainer{queue: q, set: s, call: call, log: log, filter: newFilter(s.Match)}
}

// Use says what the queue gave.
func (d *Drainer) Use() Use {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.use
}

// Run takes records until ctx ends, and returns when what was in hand is done or given back.
func (d *Drainer) Run(ctx context.Context) {
	if d.unread != nil {
		d.trouble(d.unread)
		return
	}
	slots := make(chan struct{}, d.set.Parallel)
	var wg sync.WaitGroup
	defer wg.Wait()
	wait := troubleFirst
	for {
		// First room, then records: what is taken is worked at from that moment on.
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		if ctx.Err() != nil {
			return
		}
		records, err := d.gather(ctx)
		if d.trouble(err) && err != nil {
			d.log.Warn("read an event source", "err", err)
		}
		if len(records) == 0 {
			<-slots
			if err == nil {
				wait = troubleFirst
			} else if pause(ctx, wait) {
				wait = min(2*wait, troubleMost)
			}
			continue
		}
		wait = troubleFirst
		d.count(func(u *Use) { u.Working++ })
		wg.Go(func() {
			defer func() { <-slots }()
			defer d.count(func(u *Use) { u.Working-- })
			d.batch(ctx, records)
		})
	}
}

// gather takes a batch: what is there, or as much as comes within the window. With ctx the window ends.
func (d *Drainer) gather(ctx context.Context) (out []Record, err error) {
	ask := func(wait time.Duration) error {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), askLimit)
		defer cancel()
		began := time.Now()
		more, err := d.queue.Take(limit, min(takeMost, d.set.Batch-len(out)), wait, d.set.Wait)
		out = append(out, d.pass(ctx, more)...)
		if err == nil && len(more) == 0 && time.Since(began) < wait/2 { // its process is about to end
			pause(ctx, troubleFirst)
		}
		return err
	}
	if err = ask(takeWait); err != nil || len(out) == 0 {
		return out, err
	}
	size := func() (n int) {
		for _, r := range out {
			n += len(r.Body)
		}
		return n
	}
	until := time.Now().Add(d.set.Wait)
	for len(out) < d.set.Batch && size() < most/2 && ctx.Err() == nil && (time.Now().Before(until)) {
		left := min(takeWait, time.Until(until))
		if left < takeWait { // questions wait whole seconds
			left = 0
			if !pause(ctx, min(time.Until(until), 100*time.Millisecond)) {
				break
			}
		}
		if err = ask(left); err != nil {
			break // what is in hand is worked at
		}
	}
	return out, err
}

// pass ends records that the function is not called with, as Lambda does, and gives the others.
func (d *Drainer) pass(ctx context.Context, records []Record) []Record {
	wanted, others := d.sift(records)
	if len(others) == 0 {
		return wanted
	}
	if err := d.ask(ctx, func(ctx context.Context) error { return d.queue.Done(ctx, others) }); err != nil {
		d.log.Warn("pass over what a function is not called with: it comes again", "records", len(others), "err", err)
		return wanted
	}
	d.count(func(u *Use) { u.Filtered += uint64(len(others)) })
	return wanted
}

// batch has one batch worked at.
func (d *Drainer) batch(ctx context.Context, records []Record) {
	held := time.Now()
	if d.set.Wait > 0 { // each has the queue's whole time from here on
		if err := d.ask(ctx, func(ctx context.Context) error { return d.queue.Hold(ctx, records, d.queue.Visible()) }); err != nil {
			d.log.Warn("hold what was taken of a queue", "err", err)
		}
	}
	all := parts(records)
	for i, part := range all {
		if i > 0 && d.queue.Visible() > 0 && time.Since(held) > d.queue.Visible()/2 {
			held = time.Now()
			if err := d.ask(ctx, func(ctx context.Context) error { return d.queue.Hold(ctx, part, d.queue.Visible()) }); err != nil {
				d.log.Warn("hold what was taken of a queue", "err", err)
			}
		}
		failed, over := d.work(ctx, part, &held)
		if over || d.queue.Ordered() && len(failed) > 0 && i+1 < len(all) {
			rest := slices.Concat(all[i+1:]...)
			if over {
				rest = slices.Concat(part, rest)
			} else { // only those whose key failed wait; the others are given back at once
				rest = slices.DeleteFunc(rest, func(r Record) bool {
					return slices.ContainsFunc(failed, func(f Record) bool { return f.Key == r.Key })
				})
			}
			d.giveBack(ctx, rest)
			return
		}
	}
}

// work has the function called with records until it took them, and ends those that it did. over: nobody works at
// them.
func (d *Drainer) work(ctx context.Context, records []Record, held *time.Time) (failed []Record, over bool) {
	var answer []byte
	var err error
	for wait := busyFirst; ; wait = min(2*wait, busyMost) {
		if answer, err = d.call(context.WithoutCancel(ctx), event(records)); !errors.Is(err, ErrBusy) {
			break
		}
		d.count(func(u *Use) { u.Throttle++ })
		if !pause(ctx, wait) {
			return nil, true
		}
		if v := d.queue.Visible(); v > 0 && time.Since(*held) > v/2 { // they wait here, and are not tried in vain
			*held = time.Now()
			if err := d.ask(ctx, func(ctx context.Context) error { return d.queue.Hold(ctx, records, v) }); err != nil {
				return nil, true
			}
		}
	}
	done, failed, why := d.sort(records, answer, err)
	d.count(func(u *Use) {
		u.Batches++
		u.Records += uint64(len(done))
		u.Failed += uint64(len(failed))
		if why != nil {
			u.Last = why.Error()
		}
	})
	if len(done) > 0 {
		if err := d.ask(ctx, func(ctx context.Context) error { return d.queue.Done(ctx, done) }); err != nil {
			d.log.Error("end what was done of a queue: it comes again", "records", len(done), "err", err)
		}
	}
	return failed, false // the queue gives those again when its time is over, and gives up on them
}

// sort says which records are done. In order, what comes after a failure of its own key is not.
func (d *Drainer) sort(records []Record, answer []byte, err error) (done, failed []Record, why error) {
	if err != nil {
		return nil, records, err
	}
	named, err := failures(answer, records)
	if err != nil {
		return nil, records, err
	}
	stuck := map[string]bool{}
	for _, r := range records {
		if named[r.ID] || d.queue.Ordered() && stuck[r.Key] {
			stuck[r.Key] = true
			failed = append(failed, r)
		} else {
			done = append(done, r)
		}
	}
	if len(failed) > 0 {
		why = errors.New("the function reported failures of a batch")
	}
	return done, failed, why
}

// giveBack has records that nobody works at be seen by others at once.
func (d *Drainer) giveBack(ctx context.Context, records []Record) {
	if len(records) == 0 {
		return
	}
	if err := d.ask(ctx, func(ctx context.Context) error { return d.queue.Hold(ctx, records, 0) }); err != nil {
		d.log.Warn("give back what was taken of a queue", "records", len(records), "err", err)
	}
}

// ask asks until there is an answer, as long as others do not get the records meanwhile, or, once ctx has ended, for
// leaveDone.
func (d *Drainer) ask(ctx context.Context, f func(context.Context) error) (err error) {
	limit := max(d.queue.Visible(), leaveDone)
	if ctx.Err() != nil {
		limit = leaveDone
	}
	life, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	for wait := troubleFirst; ; wait = min(2*wait, troubleMost) {
		one, end := context.WithTimeout(life, askLimit)
		err = f(one)
		end()
		if err == nil || code(err) != "" || !pause(life, wait) {
			return err
		}
	}
}
