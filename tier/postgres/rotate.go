package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"tenfold"
)

// Rotate gives the app's role a new password and returns when servers and record have it. Connections that
// are open go on; whoever connects from then on needs the new one, which Field gives. A database that sleeps
// is woken.
func (p *Postgres) Rotate(ctx context.Context, id tenfold.ID) error {
	key := id.String()
	r, err := p.served(id)
	if err != nil {
		return err
	}
	if r.Switch != 0 {
		return tenfold.Errorf(tenfold.CodeConflict, "%s is being switched over", id.Short()).WithHint("ask again when that is done: tenfold db nodes")
	}
	mu := p.one(key + "#password")
	mu.Lock()
	defer mu.Unlock()
	if r.Suspended {
		if err := p.records.Change(key, func(x *record) { x.Suspended = false }); err != nil {
			return err
		}
		p.wake()
	}
	if err := until(ctx, startLimit, func(context.Context) (bool, error) { return p.answers(key), nil }); err != nil {
		return tenfold.Errorf(tenfold.CodeUnavailable, "%s does not answer: %w", id.Short(), err).WithHint("see its servers: tenfold db nodes")
	}
	// On disk before any server has it: whatever dies from here on, rest goes on with it.
	if err := p.records.Change(key, func(x *record) {
		if x.Next == "" {
			x.Next = password()
		}
	}); err != nil {
		return err
	}
	return p.rotate(ctx, key)
}

// rotate makes the next password the one that holds. It may be done twice. The caller holds the lock of Rotate.
func (p *Postgres) rotate(ctx context.Context, key string) error {
	r, _ := p.get(key)
	if r.Next == "" {
		return nil
	}
	if p.pooled(r) {
		// The pool logs in at the server as the role too: it begins nothing until it has heard of the new
		// password. Who is in a transaction has a connection, so the wait is bounded.
		p.pause(key, true)
		defer p.pause(key, false)
		until(ctx, quietLimit, func(context.Context) (bool, error) { return p.quiet(key), nil })
	}
	c, err := connect(ctx, r, "postgres")
	if err != nil {
		return tenfold.Errorf(tenfold.CodeUnavailable, "%s does not answer: %w", r.ID.Short(), err).WithHint("see its servers: tenfold db nodes")
	}
	defer c.Close(context.WithoutCancel(ctx))
	if err := setPassword(ctx, c, role(r.ID), r.Next); err != nil {
		return err
	}
	if err := replayed(ctx, c); err != nil {
		return err
	}
	if err := p.records.Change(key, func(x *record) {
		if x.Next == r.Next {
			x.Password, x.Next = r.Next, ""
		}
	}); err != nil {
		return err
	}
	p.changed()
	p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: "role " + role(r.ID) + " has a new password"})
	return nil
}

// replayed returns when the readers have what the primary has now, or are too far behind to wait for.
func replayed(ctx context.Context, c *pgx.Conn) error {
	var mark string
	if err := c.QueryRow(ctx, "select pg_current_wal_lsn()::text").Scan(&mark); err != nil {
		return fmt.Errorf("set password: %w", err)
	}
	until(ctx, 2*time.Second, func(ctx context.Context) (yes bool, err error) {
		err = c.QueryRow(ctx, `select not exists (select from pg_stat_replication where application_name like 'node\_%' and replay_lsn < $1::pg_lsn)`, mark).Scan(&yes)
		return yes, err
	})
	return nil
}

// setPassword gives a role a password of our own making: it is hexadecimal, and nothing in it needs quoting.
// Statistics keep the text of what they count, so this is not counted.
func setPassword(ctx context.Context, c *pgx.Conn, name, password string) error {
	if _, err := c.Exec(ctx, "set pg_stat_statements.track_utility = off"); err != nil {
		return fmt.Errorf("set password: %w", err)
	}
	if _, err := c.Exec(ctx, "alter role "+pgx.Identifier{name}.Sanitize()+" password '"+password+"'"); err != nil {
		return fmt.Errorf("set password: %w", err)
	}
	return nil
}
