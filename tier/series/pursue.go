package series

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"tenfold"
	"tenfold/internal/freeport"
	"tenfold/internal/keeper"
	"tenfold/internal/ledger"
)

// How engines are watched and started again.
const (
	lookPace  = time.Second
	startPace = 20 * time.Millisecond // to the first answer
	askLimit  = 2 * time.Second
	healthFor = 10 * time.Second
	// startLimit is how long it may take to its first answer, and hangLimit how long it may be silent after one: it is
	// killed then.
	startLimit, hangLimit = 5 * time.Minute, 30 * time.Second
	tries                 = 3 // of a goal that never served, before it is given up on
	statsPace             = 5 * time.Second
	tellPace              = 2 * time.Second // the front is told the same again: it may be another
)

// Run pursues every record, and tells the front, until ctx ends. The engines go on.
func (t *Tier) Run(ctx context.Context, ready func()) error {
	var wg sync.WaitGroup
	wg.Go(func() { t.watch(ctx) })
	wg.Go(func() { t.tell(ctx) })
	err := t.pursuit.Run(ctx, ready)
	wg.Wait()
	return err
}

// watch wakes the pursuit when an engine begins or ends.
func (t *Tier) watch(ctx context.Context) {
	for ctx.Err() == nil {
		events, err := t.cfg.Units.Subscribe(ctx)
		if err == nil {
			for e := range events {
				if strings.HasPrefix(e.Status.Unit.ID, unitPrefix) && e.Status.Phase != keeper.Running {
					t.pursuit.Wake()
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(ledger.FirstPause):
		}
	}
}

func (t *Tier) wake() {
	t.pursuit.Wake()
	t.news()
}

// news has the front told now.
func (t *Tier) news() {
	select {
	case t.prod <- struct{}{}:
	default:
	}
}

// tell keeps the front informed. While no manifest names a series there is none.
func (t *Tier) tell(ctx context.Context) {
	tick := time.NewTicker(tellPace)
	defer tick.Stop()
	for {
		if err := t.hand(ctx); err != nil && ctx.Err() == nil {
			t.say("front", tenfold.ID{}, "the front of time series is not told: "+err.Error())
		} else {
			t.say("front", tenfold.ID{}, "")
		}
		select {
		case <-ctx.Done():
			return
		case <-t.prod:
		case <-tick.C:
		}
	}
}

// hand puts the snapshot together and hands it down.
func (t *Tier) hand(ctx context.Context) error {
	t.telling.Lock()
	defer t.telling.Unlock()
	all := t.records.All()
	if !t.Holds() {
		return t.cfg.Process.Idle(ctx)
	}
	keys, lines, err := t.cfg.Holders(ctx)
	if err != nil {
		return err
	}
	s := Snapshot{Keys: keys, Entries: []Entry{}}
	for key, r := range all {
		is, _ := r.wants()
		e := Entry{ID: r.ID, Port: r.Port, Password: r.Password, Accept: is.Accept, OTLP: r.OTLP, Engine: r.Version, Line: lines[key]}
		switch {
		case r.Stopped:
			e.Down = "it is stopped"
		case r.Serving == "" && r.Failed != "":
			e.Down = "it was not started"
		}
		s.Entries = append(s.Entries, e)
	}
	rep, err := t.cfg.Process.Put(ctx, s)
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.report = rep
	t.mu.Unlock()
	return nil
}

// Introduce tells the front now who may ask: before the first request of one who was just given a password.
func (t *Tier) Introduce(ctx context.Context) {
	if t.Holds() && t.hand(ctx) != nil {
		t.news()
	}
}

// pursue brings one series nearer to its goal.
func (t *Tier) pursue(ctx context.Context, key string) time.Duration {
	r, ok := t.records.Get(key)
	if !ok {
		return 0
	}
	if r.Stopped {
		return t.stop(ctx, key)
	}
	s, ok := r.wants()
	if !ok {
		return time.Minute // it failed, and nothing ever served; another goal wakes
	}
	u, err := t.status(ctx, key)
	if err != nil {
		return lookPace
	}
	if u.Phase == keeper.Running && u.Unit.Label == s.basis() && r.Port != 0 {
		return t.attend(ctx, key, r, s, u)
	}
	if u.Phase == keeper.Exited && u.Unit.Label == s.basis() {
		if again, wait := t.died(key, r, u); wait > 0 {
			return wait
		} else if !again {
			return time.Minute
		}
		if r, ok = t.records.Get(key); !ok { // it may need another port
			return 0
		}
	}
	if err := t.start(ctx, key, r, s); err != nil {
		if ctx.Err() == nil {
			t.fail(key, r, err)
		}
		return t.tries.Pause(key)
	}
	return startPace
}

// stop ends the engine of what left the manifest. Its files stay.
func (t *Tier) stop(ctx context.Context, key string) time.Duration {
	t.mu.Lock()
	delete(t.healthy, key)
	delete(t.stats, key)
	t.mu.Unlock()
	if err := t.cfg.Units.Remove(ctx, unitPrefix+key); err != nil {
		return time.Second
	}
	return time.Minute
}

func (t *Tier) status(ctx context.Context, key string) (keeper.Status, error) {
	all, err := t.cfg.Units.List(ctx, unitPrefix+key)
	if err != nil {
		return keeper.Status{}, err
	}
	for _, u := range all {
		if u.Unit.ID == unitPrefix+key {
			return u, nil
		}
	}
	return keeper.Status{}, nil
}

// start finds an engine and has it run.
func (t *Tier) start(ctx context.Context, key string, r record, s spec) error {
	f, err := find(ctx, r.ID, s)
	if err != nil {
		return err
	}
	port := r.Port
	if port == 0 {
		if port, err = freeport.Pick(); err != nil {
			return err
		}
	}
	err = t.records.Change(key, func(x *record) {
		x.Port, x.Version, x.OTLP = port, f.name(), f.otlp()
		if x.Password == "" {
			x.Password = password()
		}
		r.Port, r.Password, r.Version, r.OTLP = x.Port, x.Password, x.Version, x.OTLP
	})
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.begun[key] = time.Now()
	delete(t.healthy, key)
	t.mu.Unlock()
	defer t.news() // where the engine is now
	return t.launch(ctx, key, r, s, f)
}

// attend looks after an engine that runs.
func (t *Tier) attend(ctx context.Context, key string, r record, s spec, u keeper.Status) time.Duration {
	if _, err := ask(ctx, r, "/health"); err != nil {
		if ctx.Err() != nil {
			return 0
		}
		return t.silent(ctx, key, r, u)
	}
	t.mu.Lock()
	known := t.healthy[key].After(u.Started)
	t.healthy[key] = time.Now()
	took := time.Since(u.Started)
	delete(t.deaths, key)
	due := time.Since(t.stats[key].At) > statsPace
	t.mu.Unlock()
	t.tries.Done(key)
	if r.Serving != r.Goal && r.Failed != r.Goal {
		if err := t.settle(ctx, key, r, s, took); err != nil {
			t.fail(key, r, err)
			return lookPace
		}
	} else if !known && took < startLimit {
		t.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: "series serves again", Took: took})
	}
	if due {
		if b, err := ask(ctx, r, "/metrics"); err == nil {
			st := parseStats(b)
			st.At = time.Now()
			t.mu.Lock()
			was := t.stats[key].ReadOnly
			t.stats[key] = st
			t.mu.Unlock()
			t.tellOfDisk(r.ID, was, st.ReadOnly)
		}
	}
	return 0
}

// tellOfDisk says once that nothing can be written, and once that it can again.
func (t *Tier) tellOfDisk(id tenfold.ID, was, is bool) {
	switch {
	case is && !was:
		t.cfg.Emit(tenfold.Event{ID: id, Severity: tenfold.SeverityError, Text: fmt.Sprintf("series is read only: less than %s are free on its disk", sizeOf(leastFree)), Hint: "make room; it takes values again by itself"})
	case was && !is:
		t.cfg.Emit(tenfold.Event{ID: id, Severity: tenfold.SeverityInfo, Text: "series takes values again"})
	}
}

// settle notes that the goal serves. One that changes only what is accepted starts nothing: the engine that runs may
// not have it.
func (t *Tier) settle(ctx context.Context, key string, r record, s spec, took time.Duration) error {
	if slices.Contains(s.Accept, tenfold.SeriesOTLP) && !r.OTLP {
		return t.start(ctx, key, r, s) // there may be a newer one by now
	}
	err := t.records.Change(key, func(x *record) {
		if x.Goal == r.Goal {
			x.Serving, x.Is, x.Failed, x.Reason, x.Hint = r.Goal, s, "", "", ""
		}
	})
	if err != nil {
		return err
	}
	t.news()
	t.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("series kept for %dd by %s", s.days(), r.Version), Took: took})
	return nil
}

// silent decides about one that runs and does not answer.
func (t *Tier) silent(ctx context.Context, key string, r record, u keeper.Status) time.Duration {
	t.mu.Lock()
	last := t.healthy[key]
	t.mu.Unlock()
	switch {
	case !last.After(u.Started) && time.Since(u.Started) < startLimit:
		return startPace
	case last.After(u.Started) && time.Since(last) < hangLimit:
		return lookPace
	}
	t.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityWarning, Text: "the engine is killed: it does not answer"})
	if err := t.cfg.Units.Signal(ctx, unitPrefix+key, 9); err != nil {
		return lookPace
	}
	return lookPace
}

// died says what is done about an engine that ended: it is started again at once, after a while, or not at all.
func (t *Tier) died(key string, r record, u keeper.Status) (again bool, wait time.Duration) {
	how := "ended"
	if u.LastExit != nil {
		how += ": " + u.LastExit.Describe()
	}
	t.mu.Lock()
	begun, served := t.begun[key], t.healthy[key].After(u.Started)
	if !served {
		t.deaths[key]++
	}
	n := t.deaths[key]
	t.mu.Unlock()
	words := t.lastWords(r.ID, u.Started)
	if strings.Contains(words, "address already in use") { // it was taken while the engine was down
		t.records.Change(key, func(x *record) { x.Port = 0 })
		return true, 0
	}
	if served {
		t.say(key, r.ID, "")
		t.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityWarning, Text: "the engine " + how + "; it is started again"})
		return true, 0
	}
	if n >= tries && r.Serving != r.Goal && r.Failed != r.Goal {
		t.fail(key, r, tenfold.Errorf(tenfold.CodeFailed, "%s %s\n  last output  %s", r.Version, how, words).WithHint("its whole log: %s", t.LogPath(r.ID)))
		return false, 0
	}
	t.say(key, r.ID, "the engine "+how)
	t.mu.Lock()
	defer t.mu.Unlock()
	pause := min(ledger.FirstPause<<min(n, 10), ledger.LastPause)
	if since := time.Since(begun); since < pause {
		t.deaths[key]-- // it is looked at again, and counted then
		return true, pause - since
	}
	return true, 0
}

// fail notes what trying again will not mend, and says the rest once.
func (t *Tier) fail(key string, r record, err error) {
	var te *tenfold.Error
	if errors.As(err, &te) && r.Serving != r.Goal && r.Failed != r.Goal {
		t.records.Change(key, func(x *record) {
			if x.Goal == r.Goal {
				x.Failed, x.Reason, x.Hint = r.Goal, err.Error(), tenfold.HintOf(err)
			}
		})
		t.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityWarning, Text: "series not started: " + err.Error()})
		t.wake()
		return
	}
	t.say(key, r.ID, err.Error())
}

// say warns once of what is tried again and again.
func (t *Tier) say(at string, id tenfold.ID, text string) {
	if t.tries.News(at, text) && text != "" {
		t.cfg.Emit(tenfold.Event{ID: id, Severity: tenfold.SeverityWarning, Text: text})
	}
}
