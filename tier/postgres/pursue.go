package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"tenfold"
	"tenfold/internal/freeport"
	"tenfold/internal/keeper"
	"tenfold/internal/ledger"
)

// How servers are watched and restarted.
const (
	startLimit  = 60 * time.Second // to the first answer; recovery after a crash may take as long
	answerPace  = 5 * time.Millisecond
	fencePace   = 10 * time.Millisecond
	worriedPace = 250 * time.Millisecond // while the primary does not answer
	watchPace   = time.Second            // of a cluster that has readers
)

// Run pursues every record, and every reader apart from its cluster: cloning one takes long, and a
// failover does not wait for it. It is woken by the keeper when a process ends.
func (p *Postgres) Run(ctx context.Context, ready func()) error {
	var wg sync.WaitGroup
	wg.Go(func() { p.watch(ctx) })
	for _, s := range []*ledger.Pursuit{&p.readers, &p.archive, &p.copies, &p.samples, &p.moves, &p.outbox} {
		wg.Go(func() { s.Run(ctx, func() {}) })
	}
	err := p.pursuit.Run(ctx, ready)
	wg.Wait()
	p.records.Flush()
	p.mu.Lock()
	links := p.links
	p.links = map[place]*link{}
	samplers := slices.Collect(maps.Keys(p.samplers))
	p.mu.Unlock()
	for _, key := range samplers {
		p.unsample(key)
	}
	for _, l := range links {
		l.mu.Lock()
		l.drop()
		l.mu.Unlock()
	}
	return err
}

// watch wakes the pursuits when a server's process begins or ends.
func (p *Postgres) watch(ctx context.Context) {
	for ctx.Err() == nil {
		events, err := p.cfg.Units.Subscribe(ctx)
		if err == nil {
			for e := range events {
				if strings.HasPrefix(e.Status.Unit.ID, unitPrefix) && e.Status.Phase != keeper.Running {
					p.wake()
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(ledger.FirstPause):
		}
	}
}

func (p *Postgres) wake() {
	p.pursuit.Wake()
	p.readers.Wake()
	p.archive.Wake()
	p.moves.Wake()
	p.outbox.Wake()
}

// pursue brings one database nearer to its goal.
func (p *Postgres) pursue(ctx context.Context, key string) time.Duration {
	for range 50 {
		r, ok := p.get(key)
		if !ok || ctx.Err() != nil {
			return 0
		}
		if r.Stopped || p.orphaned(r) {
			return p.stop(ctx, key, r)
		}
		if r.Failed == r.Goal && r.Serving == "" {
			return time.Minute
		}
		if r.Suspended && r.Serving == r.Goal {
			return p.stop(ctx, key, r)
		}
		r, err := p.identify(key, r)
		if err != nil {
			return p.tries.Pause(key)
		}
		v, err := p.see(ctx, key, r)
		if err != nil {
			return p.tries.Pause(key)
		}
		st := r.next(r.timed(), r.Serving != r.Goal && r.Failed != r.Goal, v)
		if st.Do == wait {
			if qs := p.asked(key); len(qs) > 0 && v.Nodes[r.Primary].Answers {
				held, err := p.restartNow(ctx, key, r, qs[0].why)
				for _, q := range qs {
					q.done <- restarted{held, err}
				}
				continue
			}
			if p.idle(key, r, time.Now()) && p.suspend(key, r) == nil {
				continue
			}
			return p.rest(ctx, key, r, v)
		}
		if err := p.do(ctx, key, r, v, st); err != nil {
			if ctx.Err() != nil {
				return 0
			}
			if r.Serving != r.Goal && definite(err) {
				p.fail(key, r, err)
			}
			return p.tries.Pause(key)
		}
	}
	return ledger.FirstPause
}

// rest notes how the primary is and says when to look again.
func (p *Postgres) rest(ctx context.Context, key string, r record, v view) time.Duration {
	s := v.Nodes[r.Primary]
	if s.Answers {
		p.mu.Lock()
		p.tries.Done(key)
		p.healthy[key] = time.Now()
		p.mu.Unlock()
		p.scale(key, r, s.PID)
		p.tick(key, r, time.Now())
		p.clampedNote(key, r)
		if now, _ := p.get(key); now.Primary == r.Primary {
			p.confine(ctx, key, now, r.Primary, s.PID, s.Started)
		}
		p.gather(key, r)
		if mu := p.one(key + "#password"); r.Next != "" && mu.TryLock() { // a rotation was cut off
			p.rotate(ctx, key) // what fails here is tried again at the next look
			mu.Unlock()
		}
		if now, _ := p.get(key); now.ACU != r.ACU {
			p.reload(ctx, now, r.Primary) // what fails here is done with the next start or reload
		}
	}
	switch {
	case s.Unit != keeper.Running:
		return fencePace
	case !s.Answers:
		return worriedPace
	case len(r.Nodes) > 1 || r.Spec.Readers.Max > 0 || r.Spec.Capacity.Max > 0:
		return watchPace
	}
	return 0
}

// do takes one step.
func (p *Postgres) do(ctx context.Context, key string, r record, v view, st step) error {
	switch st.Do {
	case boot:
		return p.begin(ctx, key, r, st.Why)
	case fence:
		p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityWarning, Text: "the primary is killed: " + st.Why})
		killAll(p.dataOf(r.ID, st.Node))
		return p.cfg.Units.Signal(ctx, unitOf(key, st.Node), 9)
	case hasten:
		killAll(p.dataOf(r.ID, st.Node))
		select {
		case <-ctx.Done():
		case <-time.After(fencePace):
		}
		return ctx.Err()
	case promote:
		return p.promote(ctx, key, r, v, st)
	case finish:
		return p.finish(ctx, key, r, time.Now())
	case demote:
		return p.demote(ctx, key, r)
	case cancel:
		p.pause(key, false)
		p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityWarning, Text: "switchover given up: " + st.Why, Hint: "see the readers: tenfold db nodes"})
		return p.records.Change(key, func(x *record) { x.Switch = 0 })
	case apply:
		return p.apply(ctx, key, r)
	case include, exclude, arm, relax:
		return p.guarded(ctx, key, r, st)
	case add:
		return p.add(key, r)
	case dismiss:
		return p.records.Change(key, func(x *record) { x.edit(st.Node, func(n *node) { n.Leaving = true }) })
	case drop:
		return p.drop(ctx, key, r, st.Node)
	}
	return fmt.Errorf("no such step: %q", st.Do)
}

// stop ends every server of a database, the primary first: the readers then have all that it had.
func (p *Postgres) stop(ctx context.Context, key string, r record) time.Duration {
	units, err := p.status(ctx, key)
	if err != nil {
		return time.Second
	}
	p.mu.Lock()
	delete(p.healthy, key)
	p.mu.Unlock()
	order := []int{r.Primary}
	for n := range units {
		order = append(order, n)
	}
	for _, n := range order {
		if n == 0 {
			continue
		}
		if err := p.cfg.Units.Remove(ctx, unitOf(key, n)); err != nil {
			return time.Second
		}
		p.unlink(key, n)
	}
	p.unsample(key)
	return time.Minute
}

// orphaned says that a restored database's origin is stopped: it stops with it.
func (p *Postgres) orphaned(r record) bool {
	if r.Of == "" {
		return false
	}
	of, ok := p.records.Get(r.Of)
	return !ok || of.Stopped
}

// get is a record, with the cluster that one of an earlier version stands for.
func (p *Postgres) get(key string) (record, bool) {
	r, ok := p.records.Get(key)
	return r.whole(), ok
}

// definite says that trying again will not help.
func definite(err error) bool {
	var te *tenfold.Error
	return errors.As(err, &te)
}

func (p *Postgres) fail(key string, r record, err error) {
	p.records.Change(key, func(x *record) {
		if x.Goal == r.Goal {
			x.Failed, x.Reason, x.Hint = r.Goal, err.Error(), tenfold.HintOf(err)
		}
	})
	p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityWarning, Text: "database not started: " + err.Error()})
}

// identify gives a record its first node and passwords, once.
func (p *Postgres) identify(key string, r record) (record, error) {
	stored, _ := p.records.Get(key)
	if len(stored.Nodes) > 0 && stored.Super != "" && stored.Pool != 0 {
		return r, nil
	}
	pool, err := freeport.Pick()
	if err != nil {
		return r, err
	}
	port := r.Port
	if port == 0 {
		if port, err = freeport.Pick(); err != nil {
			return r, err
		}
	}
	err = p.records.Change(key, func(x *record) {
		x.Port = port
		if x.Pool == 0 {
			x.Pool = pool
		}
		x.cluster = x.whole().cluster
		if x.Super == "" {
			x.Super, x.Password = password(), password()
		}
	})
	if err != nil {
		return r, err
	}
	fresh, _ := p.get(key)
	fresh.Goal, fresh.Spec = r.Goal, r.Spec // what this round pursues
	return fresh, nil
}

// await waits for the first answer of a node that was started.
func (p *Postgres) await(ctx context.Context, key string, r record, n int) error {
	begun := time.Now()
	x, _ := r.node(n)
	for {
		err := errNotUp
		if up(p.dataOf(r.ID, n), x.Port) {
			err = p.ask(ctx, r, n, func(ctx context.Context, c *pgx.Conn) error { return c.Ping(ctx) })
		}
		if err == nil {
			return nil
		}
		all, lerr := p.status(ctx, key)
		if lerr != nil {
			return lerr
		}
		if s := all[n]; s.Phase == keeper.Exited && s.LastExit != nil {
			lines := keeper.LastLines(p.logOf(r.ID, n), begun.Add(-time.Second), 5)
			return tenfold.Errorf(tenfold.CodeFailed, "PostgreSQL ended: %s\n  last output  %s", s.LastExit.Describe(), strings.Join(lines, "\n               ")).
				WithHint("its whole log: %s", filepath.Clean(p.logOf(r.ID, n)))
		}
		if time.Since(begun) > startLimit {
			return tenfold.Errorf(tenfold.CodeFailed, "PostgreSQL does not answer after %s: %w", startLimit, err).WithHint("its log: %s", p.logOf(r.ID, n))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(answerPace):
		}
	}
}

var errNotUp = errors.New("it starts")

// up says by a server's own lock file that it takes connections at a port. To ask by connecting costs it a
// process each time, of which there is none to spare while a client waits for it to wake.
func up(data string, port int) bool {
	b, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return false
	}
	// Process, folder, start, port, socket, address, memory, state: the lines since version 10.
	f := strings.Split(string(b), "\n")
	return len(f) > 7 && f[3] == strconv.Itoa(port) && slices.Contains([]string{"ready", "standby"}, strings.TrimSpace(f[7]))
}

// recovering says whether a node is a reader still.
func (p *Postgres) recovering(ctx context.Context, r record, n int) (yes bool, err error) {
	err = p.ask(ctx, r, n, func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, "select pg_is_in_recovery()").Scan(&yes)
	})
	return yes, err
}
