package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"tenfold"
	"tenfold/internal/dbinfo"
	"tenfold/internal/engines"
	"tenfold/internal/keeper"
)

// The way back from an upgrade: the old server follows the new one until a stated time.

// other is the old server of an upgrade that was switched.
func (r record) other() (record, bool) {
	if r.Upgrade == nil || len(r.Upgrade.Other) != 1 {
		return r, false
	}
	return side(r, r.Upgrade.Other[0], r.Upgrade.From), true
}

// keepOpen keeps the old server following, tidies up after the switch, and ends the way back when its time is
// over. All of it may be done again and again.
func (p *Postgres) keepOpen(ctx context.Context, key string, r record) error {
	old, ok := r.other()
	if !ok {
		return p.shutWay(ctx, key, r, "its old server is not known")
	}
	if time.Now().After(r.Upgrade.Until) {
		return p.shutWay(ctx, key, r, "its time is over")
	}
	if err := p.dropReaders(ctx, key, r); err != nil {
		return err
	}
	cur, err := p.open(ctx, r)
	if err != nil {
		return err
	}
	defer cur.Close(context.WithoutCancel(ctx))
	if err := unsubscribe(ctx, cur, forth); err != nil {
		return err
	}
	all, err := p.status(ctx, key)
	if err != nil {
		return err
	}
	if all[old.Primary].Phase != keeper.Running {
		e, err := engines.Postgres(ctx, r.Upgrade.From, p.cfg.Engines)
		if err != nil {
			return err
		}
		if err := p.start(ctx, e, old); err != nil {
			return err
		}
	}
	var lost bool
	if err := cur.QueryRow(ctx, "select not exists (select from pg_replication_slots where slot_name = $1 and wal_status <> 'lost')", back).Scan(&lost); err != nil {
		return err
	}
	if lost {
		return p.shutWay(ctx, key, r, fmt.Sprintf("the old server did not take more than %d MB of changes", r.Upgrade.Bound))
	}
	c, err := p.open(ctx, old)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	var follows bool
	if err := c.QueryRow(ctx, "select exists (select from pg_subscription where subname = $1)", back).Scan(&follows); err != nil || follows {
		return err
	}
	if err := unpublish(ctx, c, forth); err != nil {
		return err
	}
	// What held WAL for readers and for the archive of the old server would hold it for ever.
	if err := until(ctx, startLimit, func(ctx context.Context) (bool, error) {
		if _, err := c.Exec(ctx, "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_type = 'physical' and active"); err != nil {
			return false, err
		}
		_, err := c.Exec(ctx, "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_type = 'physical' and not active")
		if err != nil && !inUse(err) {
			return false, err
		}
		var left bool
		err = c.QueryRow(ctx, "select exists (select from pg_replication_slots where slot_type = 'physical')").Scan(&left)
		return !left, err
	}); err != nil {
		return fmt.Errorf("drop the slots of the old server: %w", err)
	}
	return p.subscribe(ctx, old, r, back, "copy_data = false, create_slot = false, slot_name = '"+back+"'")
}

// dropReaders removes the readers of the server that was left.
func (p *Postgres) dropReaders(ctx context.Context, key string, r record) error {
	if len(r.Upgrade.Readers) == 0 {
		return nil
	}
	for _, n := range r.Upgrade.Readers {
		if err := p.scrap(ctx, side(r, node{N: n}, 0)); err != nil {
			return err
		}
	}
	return p.amend(key, func(u *upgrade) { u.Readers = nil })
}

// shutWay ends the way back: nothing is kept for it any more, the old server ends. Its data stays until somebody
// says --finish.
func (p *Postgres) shutWay(ctx context.Context, key string, r record, why string) error {
	if err := p.dropReaders(ctx, key, r); err != nil {
		return err
	}
	cur, err := p.open(ctx, r)
	if err != nil {
		return err
	}
	defer cur.Close(context.WithoutCancel(ctx))
	place, bytes := "", int64(0)
	if old, ok := r.other(); ok {
		if err := p.cfg.Units.Remove(ctx, unitOf(key, old.Primary)); err != nil {
			return err
		}
		p.unlink(key, old.Primary)
		place = p.dataOf(r.ID, old.Primary)
		bytes = du(place)
	}
	if err := errors.Join(unsubscribe(ctx, cur, forth), unpublish(ctx, cur, back)); err != nil {
		return err
	}
	if err := p.amend(key, func(u *upgrade) {
		u.Stage, u.Told.Until, u.Told.Step = upgradeClosed, time.Time{}, "no way back: "+why
	}); err != nil {
		return err
	}
	p.reload(ctx, r, r.Primary) // what is kept of WAL; done with the next start otherwise
	p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("the way back to PostgreSQL %d is closed: %s; the old data, %d MB, stays at %s", r.Upgrade.From, why, bytes>>20, place), Hint: "remove it: tenfold db upgrade --finish"})
	return nil
}

// Finish ends an upgrade for good: the way back is closed and the old data removed. Of one that only copies yet
// it is no end: CodeConflict.
func (p *Postgres) Finish(ctx context.Context, id tenfold.ID) error {
	key := id.String()
	r, err := p.served(id)
	if err != nil {
		return err
	}
	if r.Upgrade == nil || r.Upgrade.Stage != upgradeOpen && r.Upgrade.Stage != upgradeClosed {
		return tenfold.Errorf(tenfold.CodeConflict, "%s has no upgrade to finish", id.Short()).WithHint("begin one: tenfold db upgrade --to 17 --rehearse")
	}
	old, has := r.other()
	if r.Upgrade.Stage == upgradeOpen {
		if err := p.shutWay(ctx, key, r, "it was finished"); err != nil {
			return err
		}
	}
	if has {
		if err := p.scrap(ctx, old); err != nil {
			return err
		}
	}
	return p.records.Change(key, func(x *record) { x.Upgrade = nil })
}

// Back gives an upgrade up that copies still, or goes back to the old major, with all that was written since.
// CodeConflict, with the reason, when there is no way back.
func (p *Postgres) Back(ctx context.Context, id tenfold.ID) (dbinfo.Upgrade, error) {
	key := id.String()
	r, err := p.served(id)
	if err != nil {
		return dbinfo.Upgrade{}, err
	}
	switch u := r.Upgrade; {
	case u == nil || u.Stage == upgradeEnded:
		return dbinfo.Upgrade{}, tenfold.Errorf(tenfold.CodeConflict, "%s has no upgrade to go back from", id.Short()).WithHint("see its servers: tenfold db nodes")
	case u.Stage == upgradeClosed:
		return dbinfo.Upgrade{}, errNoWayBack(strings.TrimPrefix(u.Told.Step, "no way back: "))
	case u.Stage == upgradeAsked:
		if err := p.amend(key, func(u *upgrade) {
			u.Stage, u.Told.Step, u.Told.Fault, u.Told.Hint, u.Told.Total = upgradeEnded, "given up", "it was given up", "begin again: tenfold db upgrade", time.Since(u.Told.Begun)
		}); err != nil {
			return dbinfo.Upgrade{}, err
		}
		r, _ = p.get(key)
		return r.Upgrade.Told, p.clearAway(ctx, key, r)
	}
	if err := p.returnable(ctx, key, r); err != nil {
		return dbinfo.Upgrade{}, err
	}
	if err := p.amend(key, func(u *upgrade) { u.Stage, u.Told.Fault, u.Told.Hint, u.Told.Total = upgradeReturning, "", "", 0 }); err != nil {
		return dbinfo.Upgrade{}, err
	}
	p.wake()
	return p.outcome(ctx, key)
}

// returnable says why one cannot go back.
func (p *Postgres) returnable(ctx context.Context, key string, r record) error {
	old, ok := r.other()
	if !ok {
		return errNoWayBack("its old server is not known")
	}
	cur, err := p.open(ctx, r)
	if err != nil {
		return err
	}
	defer cur.Close(context.WithoutCancel(ctx))
	c, err := p.open(ctx, old)
	if err != nil {
		return errNoWayBack("the old server does not answer: " + err.Error())
	}
	defer c.Close(context.WithoutCancel(ctx))
	a, err := columnsOf(ctx, cur)
	if err != nil {
		return err
	}
	b, err := columnsOf(ctx, c)
	if err != nil {
		return err
	}
	if d := differing(a, b); len(d) > 0 {
		return errNoWayBack("the schema was changed since: " + strings.Join(d[:min(len(d), 5)], ", "))
	}
	if err := nearly(ctx, cur, back); err != nil {
		return errNoWayBack("the old server has not caught up")
	}
	what, err := surveyOf(ctx, cur, role(r.ID))
	if err != nil {
		return err
	}
	return what.tooLarge()
}

// goBack makes the old server the primary again.
func (p *Postgres) goBack(ctx context.Context, key string, r record) error {
	err := p.turn(ctx, key, r)
	if err == nil || ctx.Err() != nil {
		return err
	}
	now, _ := p.get(key)
	if now.Upgrade == nil || now.Upgrade.Stage != upgradeReturning {
		return err
	}
	p.pause(key, false)
	if c, oerr := p.open(ctx, now); oerr == nil {
		err = errors.Join(err, admit(ctx, c, role(r.ID)))
		c.Close(context.WithoutCancel(ctx))
	}
	p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityWarning, Text: "the way back was not gone, the new major serves on: " + err.Error()})
	return p.amend(key, func(u *upgrade) {
		u.Stage, u.Told.Fault, u.Told.Hint, u.Told.Total = upgradeOpen, err.Error(), tenfold.HintOf(err), time.Since(u.Told.Begun)
	})
}

func (p *Postgres) turn(ctx context.Context, key string, r record) error {
	begun := time.Now()
	old, ok := r.other()
	if !ok {
		return errNoWayBack("its old server is not known")
	}
	x, err := p.cross(ctx, r, old)
	if err != nil {
		return err
	}
	defer x.close(ctx)
	what, err := surveyOf(ctx, x.from, role(r.ID))
	if err != nil {
		return err
	}
	checkpoint(ctx, p, old) // what was applied is not written in the middle of the switch
	if err := x.approach(ctx, back); err != nil {
		return err
	}
	at := time.Now()
	p.pause(key, true)
	defer p.pause(key, false)
	until(ctx, quietLimit, func(context.Context) (bool, error) { return p.quiet(key), nil }) // bounded: a long transaction is cut
	if err := x.bring(ctx, role(r.ID), back, what, nil); err != nil {
		return err
	}
	if err := unsubscribe(ctx, x.to, back); err != nil {
		return err
	}
	if err := p.follower(ctx, x.to, old, r.Password); err != nil {
		return err
	}
	from := r.Upgrade.Told.From
	if err := p.swap(key, old.Nodes[0], func(x *record, u *upgrade) {
		u.Stage, u.Until = upgradeEnded, time.Time{}
		u.Told.Step, u.Told.Until = "back on "+from, time.Time{}
		x.Version, x.Was = from, u.To
	}); err != nil {
		return err
	}
	p.vouch(key, old.Primary)
	pause := p.resumed(ctx, key, at)
	now, _ := p.get(key)
	p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Took: time.Since(begun), Hint: fmt.Sprintf("write engine: postgres-%d in tenfold.yaml", r.Upgrade.From),
		Text: fmt.Sprintf("back on PostgreSQL %s, epoch %d, with all that was written: clients were held for %d ms", from, now.Epoch, pause.Milliseconds())})
	// The new server has nothing that the old one has not.
	if err := p.dropReaders(ctx, key, now); err != nil {
		return err
	}
	for _, n := range now.Upgrade.Other {
		if err := p.scrap(ctx, side(now, n, 0)); err != nil {
			return err
		}
	}
	return p.amend(key, func(u *upgrade) {
		u.Other = nil
		u.Told = dbinfo.Upgrade{Database: u.Told.Database, From: u.Told.To, To: from, Begun: begun.UTC(), Step: u.Told.Step, Pause: pause, Total: time.Since(begun)}
		what.tell(&u.Told)
		u.Told.Steps = []dbinfo.UpgradeStep{{What: "the switch back: clients were held", Took: pause}}
	})
}

// follower makes the old server one that apps may use again: their password may be another by now.
func (p *Postgres) follower(ctx context.Context, c *pgx.Conn, old record, password string) error {
	if err := setPassword(ctx, c, role(old.ID), password); err != nil {
		return err
	}
	if err := admit(ctx, c, role(old.ID)); err != nil {
		return err
	}
	// The server runs by the files of one that is nobody's primary.
	if err := os.Remove(filepath.Join(p.homeOf(old.ID, old.Primary), ".pgpass")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
