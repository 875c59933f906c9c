package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tenfold"
)

// begin starts the primary's server where it is.
func (p *Postgres) begin(ctx context.Context, key string, r record, why string) error {
	n := r.Primary
	all, err := p.status(ctx, key)
	if err != nil {
		return err
	}
	last := all[n].LastExit
	crashed := last != nil && !last.Asked && r.Serving == r.Goal
	begun := time.Now()
	if !crashed && r.Serving != r.Goal && !r.Begun.IsZero() {
		begun = r.Begun
	}
	e, err := p.engine(ctx, r)
	if err != nil {
		return err
	}
	if r.Spec.Clone != "" {
		if r, err = p.copied(ctx, key, e, r); err != nil {
			return err
		}
	}
	if err := p.initialize(ctx, e, r); err != nil {
		return err
	}
	if err := p.cfg.Units.Remove(ctx, unitOf(key, n)); err != nil {
		return err
	}
	if r.Logical != r.Upgrade.alive() || r.Pending != "" {
		r.Logical, r.Pending = r.Upgrade.alive(), ""
		if err := p.records.Change(key, func(x *record) { x.Logical, x.Pending = r.Logical, "" }); err != nil {
			return err
		}
	}
	if !r.Counts && library(e, "pg_stat_statements") {
		r.Counts = true
		if err := p.records.Change(key, func(x *record) { x.Counts = true }); err != nil {
			return err
		}
	}
	if _, err := p.configure(r, n); err != nil {
		return err
	}
	if _, err := p.launch(ctx, e, r, n); err != nil {
		return err
	}
	if err := p.await(ctx, key, r, n); err != nil {
		return err
	}
	if r.Epoch > 1 {
		// The record named it before it was promoted, and it went down in between.
		if yes, err := p.recovering(ctx, r, n); err != nil || yes {
			return err
		}
	}
	if err := p.settle(ctx, key, r, e.Version); err != nil {
		return err
	}
	text, severity := fmt.Sprintf("PostgreSQL %s started", e.Version), tenfold.SeverityInfo
	if r.Serving != r.Goal {
		text += ", role and database made"
	}
	if crashed {
		text, severity = fmt.Sprintf("PostgreSQL %s started again, the last one: %s", e.Version, last.Describe()), tenfold.SeverityWarning
		if why != "" {
			text += "; nobody was promoted: " + why
		}
	}
	p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: severity, Text: text, Took: time.Since(begun)})
	return nil
}

// settle makes what is in the primary, and notes that it serves the goal.
func (p *Postgres) settle(ctx context.Context, key string, r record, version string) error {
	if len(r.Nodes) > 1 {
		if err := p.slots(ctx, r, true); err != nil {
			return err
		}
	}
	if r.Serving != r.Goal { // else it has all from before
		if err := populate(ctx, r); err != nil {
			return err
		}
	}
	if r.Serving != r.Goal || r.Version != version { // to wake from sleep is no time to write what is known
		if err := p.records.Change(key, func(x *record) {
			x.Version = version
			if x.Was != 0 && strings.HasPrefix(version, strconv.Itoa(x.Spec.Major)+".") {
				x.Was = 0 // the manifest has come after
			}
			if x.Goal == r.Goal {
				x.Serving = r.Goal
			}
		}); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.healthy[key] = time.Now()
	return nil
}

// apply brings a new goal to a primary that runs. It is restarted only for settings that take nothing
// less; how many readers there are is none.
func (p *Postgres) apply(ctx context.Context, key string, r record) error {
	begun := time.Now()
	e, err := p.engine(ctx, r)
	if err != nil {
		return err
	}
	if err := p.reloaded(ctx, r, r.Primary); err != nil {
		return err
	}
	c, err := connect(ctx, r, "postgres")
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	if err := wrong(ctx, c); err != nil {
		return err
	}
	var restart []string
	if err := c.QueryRow(ctx, pendingRestart).Scan(&restart); err != nil {
		return fmt.Errorf("check settings: %w", err)
	}
	if len(restart) > 0 {
		if err := p.proveSettings(ctx, e, r, r.Primary); err != nil {
			return err
		}
		if r.Spec.Window == nil || inside(*r.Spec.Window, time.Now()) {
			c.Close(ctx) // for nobody is to be waited
			_, err := p.restartNow(ctx, key, r, join(restart))
			return err
		}
	}
	if err := p.records.Change(key, func(x *record) { x.Pending = join(restart) }); err != nil {
		return err
	}
	if err := p.settle(ctx, key, r, r.Version); err != nil {
		return err
	}
	text, hint := "settings taken without a restart", ""
	if len(restart) > 0 {
		text, hint = fmt.Sprintf("a restart for %s waits for the window %s", join(restart), *r.Spec.Window), "now: tenfold db restart"
	}
	p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: text, Hint: hint, Took: time.Since(begun)})
	return nil
}

// promote makes a reader the primary. The record says so first: whatever dies from here on, no server of
// the older epoch is started as a primary.
func (p *Postgres) promote(ctx context.Context, key string, r record, v view, st step) error {
	begun := time.Now()
	if all, err := p.status(ctx, key); err == nil && all[r.Primary].LastExit != nil && !st.Clean {
		begun = all[r.Primary].LastExit.At
	}
	old := r.Primary
	p.gate.Lock()
	err := p.records.Change(key, func(x *record) {
		x.cluster = x.whole().cluster
		x.Epoch++
		x.Primary, x.Armed, x.Switch = st.Node, false, 0
		x.edit(st.Node, func(n *node) { n.Leaving = false })
		x.edit(old, func(n *node) {
			if !st.Clean {
				n.Stage = stageRejoin
			}
		})
		x.Sync = nil
		if x.Spec.Sync != "" {
			for _, n := range x.staying() {
				if v.Nodes[n.N].Answers {
					x.Sync = append(x.Sync, n.N)
				}
			}
			if len(x.Sync) == 0 { // the old primary, once it follows
				for _, n := range x.staying() {
					x.Sync = append(x.Sync, n.N)
				}
			}
		}
	})
	p.gate.Unlock()
	if err != nil {
		return err
	}
	r, _ = p.get(key)
	if err := p.finish(ctx, key, r, begun); err != nil {
		return err
	}
	text, severity := fmt.Sprintf("%s: reader %d promoted, epoch %d", st.Why, st.Node, r.Epoch), tenfold.SeverityWarning
	if st.Clean {
		severity = tenfold.SeverityInfo
	}
	p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: severity, Text: text, Took: time.Since(begun)})
	return nil
}

// finish does what the record says of a promotion. All of it may be done twice.
func (p *Postgres) finish(ctx context.Context, key string, r record, begun time.Time) error {
	n := r.Primary
	if err := p.reloaded(ctx, r, n); err != nil { // whom commits wait for is known before there are any
		return err
	}
	if err := p.ask(ctx, r, n, func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, "select pg_promote(false)")
		return err
	}); err != nil {
		return fmt.Errorf("promote reader %d: %w", n, err)
	}
	// While the server is at it: the others need their slots, and to know whom to follow.
	if err := p.slots(ctx, r, false); err != nil {
		return err
	}
	for _, x := range r.readers() {
		if x.Stage == stageReady {
			if err := p.reload(ctx, r, x.N); err != nil && ctx.Err() != nil {
				return err
			}
		}
	}
	if err := until(ctx, startLimit, func(ctx context.Context) (bool, error) {
		yes, err := p.recovering(ctx, r, n)
		return !yes, err
	}); err != nil {
		return fmt.Errorf("promote reader %d: %w", n, err)
	}
	p.mu.Lock()
	p.healthy[key] = time.Now()
	p.mu.Unlock()
	p.pause(key, false)
	p.readers.Wake()
	return nil
}

// slots makes a slot at the primary for every reader, so that what it needs is kept while it is away, and
// removes those of nodes that are none any more. With reserve the slots of readers that never came hold
// WAL from now on; without, one that is there is left as it is, which is all that a failover has time for.
func (p *Postgres) slots(ctx context.Context, r record, reserve bool) error {
	names := []string{}
	for _, n := range r.readers() {
		names = append(names, standby(n.N))
	}
	return p.ask(ctx, r, r.Primary, func(ctx context.Context, c *pgx.Conn) error {
		if _, err := c.Exec(ctx, `select pg_drop_replication_slot(slot_name) from pg_replication_slots
			where slot_name like 'node\_%' and not active and (slot_name <> all($1) or $2 and restart_lsn is null)`, names, reserve); err != nil && !inUse(err) { // a reader that comes just now
			return fmt.Errorf("drop slots: %w", err)
		}
		return makeSlots(ctx, c, names, true)
	})
}

func inUse(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && pe.Code == "55006"
}

func makeSlots(ctx context.Context, c *pgx.Conn, names []string, reserve bool) error {
	_, err := c.Exec(ctx, `select pg_create_physical_replication_slot(n, $2) from unnest($1::text[]) n
		where not exists (select from pg_replication_slots where slot_name = n)`, names, reserve)
	if err != nil {
		return fmt.Errorf("make slots: %w", err)
	}
	return nil
}

// prepare makes on a reader the slots that it will need as a primary: to make them takes writes that
// are waited for, and a failover has no time. Nobody has used them, so they hold nothing back.
func (p *Postgres) prepare(ctx context.Context, key string, r record, n int, started time.Time) error {
	names := []string{}
	for _, x := range r.Nodes {
		if x.N != n {
			names = append(names, standby(x.N))
		}
	}
	made := started.String() + strings.Join(names, ",")
	at := place{key, n}
	p.mu.Lock()
	done := p.slotted[at] == made
	p.mu.Unlock()
	if done {
		return nil
	}
	if err := p.ask(ctx, r, n, func(ctx context.Context, c *pgx.Conn) error { return makeSlots(ctx, c, names, false) }); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slotted[at] = made
	return nil
}

// guarded changes which readers a commit waits for.
func (p *Postgres) guarded(ctx context.Context, key string, r record, st step) error {
	switch st.Do {
	case include:
		if err := p.records.Change(key, func(x *record) { x.Sync = append(slices.Clone(x.Sync), st.Node) }); err != nil {
			return err
		}
	case relax:
		if err := p.records.Change(key, func(x *record) { x.Sync, x.Armed = nil, false }); err != nil {
			return err
		}
		severity := tenfold.SeverityInfo
		if st.Alarm {
			severity = tenfold.SeverityAlarm
		}
		p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: severity, Text: st.Why})
	case exclude:
		return p.exclude(ctx, key, r, st.Node)
	case arm:
		return p.arm(ctx, key, r)
	}
	r, _ = p.get(key)
	return p.reloaded(ctx, r, r.Primary)
}

// exclude makes commits wait for the others only. The record forgets the node when one of them has all
// that it may have been alone with.
func (p *Postgres) exclude(ctx context.Context, key string, r record, n int) error {
	// Nobody else may write the files meanwhile: by the record it still is one.
	mu := p.one(key + "#conf")
	mu.Lock()
	defer mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(r.Sync), func(m int) bool { return m == n })
	r.Sync = rest
	if err := p.take(ctx, r, r.Primary); err != nil {
		return err
	}
	if err := p.caughtUp(ctx, r, rest); err != nil {
		return fmt.Errorf("take reader %d out of the synchronous ones: %w", n, err)
	}
	return p.records.Change(key, func(x *record) { x.Sync = rest })
}

// arm notes that every acknowledged commit is on a reader.
func (p *Postgres) arm(ctx context.Context, key string, r record) error {
	if err := p.reloaded(ctx, r, r.Primary); err != nil {
		return err
	}
	if err := p.caughtUp(ctx, r, r.Sync); err != nil {
		return fmt.Errorf("wait for a synchronous reader: %w", err)
	}
	if err := p.records.Change(key, func(x *record) { x.Armed = slices.Equal(x.Sync, r.Sync) }); err != nil {
		return err
	}
	p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("commits wait for a reader: none is lost with the primary (epoch %d)", r.Epoch)})
	return nil
}

// caughtUp returns when one of some readers has all that the primary acknowledged until now. Whether
// commits wait is a flag that the checkpointer sets when it gets to its configuration, so a checkpoint
// is asked for first: after it, whatever is acknowledged has waited as the configuration says.
func (p *Postgres) caughtUp(ctx context.Context, r record, among []int) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	c, err := connect(ctx, r, "postgres")
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	if _, err := c.Exec(ctx, "checkpoint"); err != nil {
		return err
	}
	var mark string
	if err := c.QueryRow(ctx, "select pg_current_wal_flush_lsn()::text").Scan(&mark); err != nil {
		return err
	}
	names := []string{}
	for _, m := range among {
		names = append(names, standby(m))
	}
	return until(ctx, 5*time.Second, func(ctx context.Context) (yes bool, err error) {
		err = c.QueryRow(ctx, "select exists (select from pg_stat_replication where application_name = any($1) and state = 'streaming' and sync_state in ('sync', 'quorum') and flush_lsn >= $2::pg_lsn)", names, mark).Scan(&yes)
		return yes, err
	})
}

// lag is how far each reader is behind, in bytes of WAL to replay, by the primary's own account.
func (p *Postgres) lag(ctx context.Context, r record) (map[int]int64, error) {
	out := map[int]int64{}
	err := p.ask(ctx, r, r.Primary, func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, "select application_name, coalesce(pg_current_wal_lsn() - replay_lsn, 0)::bigint from pg_stat_replication where not pg_is_in_recovery()")
		if err != nil {
			return err
		}
		var name string
		var bytes int64
		_, err = pgx.ForEachRow(rows, []any{&name, &bytes}, func() error {
			for _, n := range r.Nodes {
				if standby(n.N) == name {
					out[n.N] = max(bytes, 0)
				}
			}
			return nil
		})
		return err
	})
	return out, err
}
