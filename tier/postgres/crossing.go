package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"tenfold"
	"tenfold/internal/keeper"
)

// A crossing is the end of an upgrade, or of the way back: clients are held while what is left is brought from one
// server to the other. All that can be done before is: connections are open, the follower is near, and the parts that
// do not need each other are done side by side. On a machine that is busy each statement and each new backend
// waits for its turn, so that their number in a row is what clients wait for.
type crossing struct {
	from, shape, rows *pgx.Conn // of the server that is left: the stream, its schema, what the stream lacks
	to, into          *pgx.Conn // of the other
}

func (p *Postgres) cross(ctx context.Context, from, to record) (x crossing, err error) {
	for _, c := range []struct {
		conn **pgx.Conn
		of   record
	}{{&x.from, from}, {&x.shape, from}, {&x.rows, from}, {&x.to, to}, {&x.into, to}} {
		if *c.conn, err = p.open(ctx, c.of); err != nil {
			x.close(ctx)
			return x, err
		}
	}
	return x, nil
}

func (x crossing) close(ctx context.Context) {
	for _, c := range []*pgx.Conn{x.from, x.shape, x.rows, x.to, x.into} {
		if c != nil {
			c.Close(context.WithoutCancel(ctx))
		}
	}
}

// crossLimit bounds how long clients are held for the last writes.
const crossLimit = 10 * time.Second

// approach returns when the follower has all that was written until now: what is left for the switch is what comes
// in the moment after.
func (x crossing) approach(ctx context.Context, slot string) error {
	err := nearly(ctx, x.from, slot)
	if err == nil {
		err = x.fully(ctx, slot, crossLimit)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		n, _ := behind(context.WithoutCancel(ctx), x.from, slot)
		return tenfold.Errorf(tenfold.CodeFailed, "the copy does not catch up with what is written: it is %d MB behind", n>>20).WithHint("begin again when less is written")
	}
	return err
}

// bring brings over all that is left, with the app kept out of the server that is left. shape is what its schema has
// to be still; nil: that is not looked at.
func (x crossing) bring(ctx context.Context, app, slot string, what survey, shape map[string]string) error {
	if err := shut(ctx, x.from, app); err != nil {
		return err
	}
	var wg sync.WaitGroup
	var streamed, copied, changed error
	wg.Go(func() {
		if err := x.fully(ctx, slot, crossLimit); err != nil {
			streamed = fmt.Errorf("bring over the last writes: %w", err)
		}
	})
	wg.Go(func() { copied = rest(ctx, x.rows, x.into, what) })
	if shape != nil {
		changed = unchanged(ctx, x.shape, shape)
	}
	wg.Wait()
	return errors.Join(changed, streamed, copied)
}

// behind is how much WAL has not been applied; -1: nobody follows.
func behind(ctx context.Context, c *pgx.Conn, slot string) (n int64, err error) {
	err = c.QueryRow(ctx, "select coalesce((select (pg_current_wal_flush_lsn() - confirmed_flush_lsn)::bigint from pg_replication_slots where slot_name = $1 and active), -1)", slot).Scan(&n)
	return n, err
}

// caughtUpLimit bounds how long a follower may need for what is left.
const (
	caughtUpLimit = 10 * time.Minute
	closeEnough   = 256 << 10 // bytes of WAL: milliseconds
)

func nearly(ctx context.Context, c *pgx.Conn, slot string) error {
	return until(ctx, caughtUpLimit, func(ctx context.Context) (bool, error) {
		n, err := behind(ctx, c, slot)
		return n >= 0 && n < closeEnough, err
	})
}

// fully returns when all that was committed until now is applied and on disk at the follower.
//
// The follower applies without waiting for its disk: with a wait for each of them one process does not keep up with
// the commits of many clients, which share theirs. It is a commit of our own, which does wait, that has all before
// it on disk there, and walWriterPace is how soon the follower says so.
func (x crossing) fully(ctx context.Context, slot string, limit time.Duration) error {
	const commit = "select pg_logical_emit_message(true, 'tenfold', '')"
	var mark string
	if _, err := x.from.Exec(ctx, commit); err != nil { // those that did not wait for the disk are on it too
		return err
	}
	if err := x.from.QueryRow(ctx, "select pg_current_wal_flush_lsn()::text").Scan(&mark); err != nil {
		return err
	}
	return until(ctx, limit, func(ctx context.Context) (ok bool, err error) {
		if _, err := x.to.Exec(ctx, commit); err != nil {
			return false, err
		}
		err = x.from.QueryRow(ctx, "select exists (select from pg_replication_slots where slot_name = $1 and confirmed_flush_lsn >= $2::pg_lsn)", slot, mark).Scan(&ok)
		return ok, err
	})
}

// shut keeps the app's role, and whoever else is no superuser, out of a server, and ends who is in.
func shut(ctx context.Context, c *pgx.Conn, app string) error {
	if _, err := c.Exec(ctx, "alter role "+pgx.Identifier{app}.Sanitize()+" nologin"); err != nil {
		return fmt.Errorf("hold writes: %w", err)
	}
	if err := until(ctx, 5*time.Second, func(ctx context.Context) (bool, error) {
		var left int
		err := c.QueryRow(ctx, `select count(pg_terminate_backend(pid)) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()
			and usename is not null and not exists (select from pg_roles where rolname = usename and rolsuper)`).Scan(&left)
		return left == 0, err
	}); err != nil {
		return fmt.Errorf("hold writes: %w", err)
	}
	return nil
}

// admit lets the app's role in again.
func admit(ctx context.Context, c *pgx.Conn, app string) error {
	if _, err := c.Exec(ctx, "alter role "+pgx.Identifier{app}.Sanitize()+" login"); err != nil {
		return fmt.Errorf("admit the app: %w", err)
	}
	return nil
}

// vouch says of a server that it serves, as the next look at it will: nobody is held until that look, by whoever
// has just worked on it.
func (p *Postgres) vouch(key string, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[key] = view{Nodes: map[int]sight{n: {Unit: keeper.Running, Answers: true}}}
}
