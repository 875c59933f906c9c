package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"tenfold"
	"tenfold/internal/dbinfo"
	"tenfold/internal/engines"
	"tenfold/internal/freeport"
	"tenfold/internal/keeper"
)

// Upgrades to another major.
//
// A server of the new major is made beside the database and filled by logical replication (transfer.go); the app
// goes on meanwhile. At the end the pool holds its clients for a moment, what is left is brought over, and the
// record says that the new server is the primary: from then on it is. The old one follows the new by the same
// means in the other direction, so that there is a way back without loss, until a stated time.
//
// pg_upgrade lost: it takes the database down for as long as its catalogue is large, what it links cannot go
// back, and it needs the programs of both majors in full.
//
// Until the record says so the old server is the primary, whatever was killed on the way: a copy that was cut
// off is begun again from nothing.

// upgradeStage is how far an upgrade has come.
type upgradeStage string

const (
	upgradeAsked     upgradeStage = "asked"     // a copy is made, from the beginning
	upgradeOpen      upgradeStage = "open"      // the new major serves, the old one follows
	upgradeReturning upgradeStage = "returning" // the way back was asked for
	upgradeClosed    upgradeStage = "closed"    // no way back any more; the old data is kept
	upgradeEnded     upgradeStage = "ended"     // nothing is left of it but what is told
)

// upgrade is what a record knows of one. Never changed: replaced.
type upgrade struct {
	Stage    upgradeStage   `json:"stage"`
	From     int            `json:"from"` // majors
	To       int            `json:"to"`
	Rehearse bool           `json:"rehearse,omitempty"`
	Keep     time.Duration  `json:"keep,omitempty"`  // the way back
	Until    time.Time      `json:"until,omitzero"`  // when it ends
	Bound    int64          `json:"bound,omitempty"` // MB of WAL that are kept for who follows
	Other    []node         `json:"other,omitempty"` // servers that are not of the cluster: the new during the copy, the old after it
	Readers  []int          `json:"readers,omitempty"`
	Told     dbinfo.Upgrade `json:"told"`
}

// copying says that a copy is under way.
func (u *upgrade) copying() bool { return u != nil && u.Stage == upgradeAsked }

// alive says that logical replication is needed.
func (u *upgrade) alive() bool {
	return u != nil && (u.Stage == upgradeAsked && !u.Rehearse || u.Stage == upgradeOpen || u.Stage == upgradeReturning)
}

// wayBack is how long the old major follows unless it is said.
const wayBack = 24 * time.Hour

// amend changes what a record says of its upgrade.
func (p *Postgres) amend(key string, f func(*upgrade)) error {
	return p.records.Change(key, func(r *record) {
		if r.Upgrade != nil {
			u := *r.Upgrade
			f(&u)
			r.Upgrade = &u
		}
	})
}

// UpgradeOptions say how.
type UpgradeOptions struct {
	Rehearse bool
	Keep     time.Duration // the way back; 0: a day
}

// Upgrade moves a database to another major, or rehearses it on a clone, and returns when that is done. When ctx
// ends first it goes on; to ask again is to wait again. CodeMissing when the major is not installed, CodeConflict
// when something of the database stands in the way: both say what to do.
func (p *Postgres) Upgrade(ctx context.Context, id tenfold.ID, to int, o UpgradeOptions) (dbinfo.Upgrade, error) {
	key := id.String()
	r, err := p.served(id)
	if err != nil {
		return dbinfo.Upgrade{}, err
	}
	if !r.Upgrade.copying() {
		u, err := p.plan(ctx, r, to, o)
		if err != nil {
			return dbinfo.Upgrade{}, err
		}
		if err := p.records.Change(key, func(x *record) { x.Upgrade, x.Suspended = u, false }); err != nil {
			return dbinfo.Upgrade{}, err
		}
	}
	p.wake()
	return p.outcome(ctx, key)
}

// outcome waits until what was asked of an upgrade is done, and is what is told of it.
func (p *Postgres) outcome(ctx context.Context, key string) (dbinfo.Upgrade, error) {
	for {
		r, _ := p.get(key)
		if r.Upgrade == nil {
			return dbinfo.Upgrade{}, tenfold.Errorf(tenfold.CodeConflict, "the upgrade is gone").WithHint("see how it stands: tenfold db nodes")
		}
		if told := r.Upgrade.Told; told.Total > 0 {
			if told.Fault != "" {
				return told, tenfold.Errorf(tenfold.CodeFailed, "%s", told.Fault).WithHint("%s", told.Hint)
			}
			return told, nil
		}
		select {
		case <-ctx.Done():
			return r.Upgrade.Told, ctx.Err()
		case <-time.After(answerPace):
		}
	}
}

// plan says what an upgrade would be, or why it cannot be.
func (p *Postgres) plan(ctx context.Context, r record, to int, o UpgradeOptions) (*upgrade, error) {
	from, err := p.majorOf(r)
	if err != nil {
		return nil, err
	}
	switch {
	case r.Upgrade != nil && (r.Upgrade.Stage == upgradeOpen || r.Upgrade.Stage == upgradeClosed || r.Upgrade.Stage == upgradeReturning):
		return nil, tenfold.Errorf(tenfold.CodeConflict, "the last upgrade, from PostgreSQL %d to %d, is not finished: its old data is still there", r.Upgrade.From, r.Upgrade.To).
			WithHint("keep the new one: tenfold db upgrade --finish; or go back: tenfold db upgrade --back")
	case to <= from:
		return nil, tenfold.Errorf(tenfold.CodeInvalid, "its data is of PostgreSQL %d: an upgrade leads to a newer one, not to %d", from, to).WithHint("name a newer major: --to %d", from+1)
	case to > engines.NewestPostgres:
		return nil, tenfold.Errorf(tenfold.CodeInvalid, "PostgreSQL %d is not known here", to).WithHint("the newest is %d", engines.NewestPostgres)
	case !o.Rehearse && !p.pooled(r):
		return nil, tenfold.Errorf(tenfold.CodeConflict, "without its pool apps have the server's own address, and would be cut off").WithHint("leave proxy: false out of its manifest and deploy, then upgrade")
	}
	e, err := engines.Postgres(ctx, to, p.cfg.Engines)
	if err != nil {
		return nil, missingEngine(to, err)
	}
	if _, note, err := p.dumper(ctx, from, to); err != nil {
		return nil, err
	} else if note != "" {
		defer func() { p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: "upgrade: " + note}) }()
	}
	c, err := p.open(ctx, r)
	if err != nil {
		return nil, err
	}
	defer c.Close(context.WithoutCancel(ctx))
	what, err := surveyOf(ctx, c, role(r.ID))
	if err != nil {
		return nil, err
	}
	if err := what.tooLarge(); err != nil && !o.Rehearse {
		return nil, err
	}
	var free unix.Statfs_t
	if err := unix.Statfs(p.home(r.ID), &free); err != nil {
		return nil, fmt.Errorf("look at the disk: %w", err)
	}
	room, need := int64(free.Bavail)*free.Bsize, what.bytes*3/2+1<<30
	if o.Rehearse {
		need += what.bytes
	}
	if room < need {
		return nil, tenfold.Errorf(tenfold.CodeConflict, "a copy takes about %d MB, the disk has %d MB free", need>>20, room>>20).WithHint("make room below %s", p.home(r.ID))
	}
	u := &upgrade{Stage: upgradeAsked, From: from, To: to, Rehearse: o.Rehearse, Keep: cmp.Or(o.Keep, wayBack), Bound: max((room-need)/2, 1<<30) >> 20}
	u.Told = dbinfo.Upgrade{Database: string(r.ID.Name), From: r.Version, To: e.Version, Rehearsed: o.Rehearse, Begun: time.Now().UTC(), Step: "begins"}
	what.tell(&u.Told)
	return u, nil
}

// majorOf is the major of a database's data.
func (p *Postgres) majorOf(r record) (int, error) {
	have, err := dataMajor(p.dataOf(r.ID, r.Primary))
	if err == nil && have == 0 {
		err = tenfold.Errorf(tenfold.CodeUnavailable, "%s has no data yet", r.ID.Short()).WithHint("tenfold up")
	}
	return have, err
}

// upgrading are the databases that an upgrade, or a window, may ask something of.
func (p *Postgres) upgrading() []string {
	var out []string
	for key, r := range p.records.All() {
		if !r.Stopped && !r.Suspended && r.Serving != "" && r.Of == "" {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}

// pursueUpgrade brings one nearer to its end.
func (p *Postgres) pursueUpgrade(ctx context.Context, key string) time.Duration {
	r, ok := p.get(key)
	if !ok || ctx.Err() != nil {
		return 0
	}
	if !p.answers(key) {
		return watchPace
	}
	var err error
	stage := upgradeEnded
	if r.Upgrade != nil {
		stage = r.Upgrade.Stage
	}
	switch stage {
	case upgradeEnded, upgradeClosed:
		if err = p.maintain(ctx, key, r); err == nil {
			p.say(key+"#upgrade", r.ID, "")
			return watchPace
		}
	case upgradeAsked:
		err = p.carryOut(ctx, key, r)
	case upgradeOpen:
		if err = p.keepOpen(ctx, key, r); err == nil {
			return watchPace
		}
	case upgradeReturning:
		err = p.goBack(ctx, key, r)
	}
	if err == nil || ctx.Err() != nil {
		return answerPace
	}
	p.say(key+"#upgrade", r.ID, "upgrade: "+err.Error())
	return max(p.tries.Pause(key+"#upgrade"), time.Second)
}

// carryOut makes the copy and switches, or rehearses that. What fails ends it; the record then says why.
func (p *Postgres) carryOut(ctx context.Context, key string, r record) error {
	if err := p.clearAway(ctx, key, r); err != nil { // of one that was cut off
		return err
	}
	begun := time.Now()
	err := p.attempt(ctx, key)
	if err == nil || ctx.Err() != nil {
		return err
	}
	r, _ = p.get(key)
	if r.Upgrade == nil || r.Upgrade.Stage != upgradeAsked { // it was switched: what failed is done again by keepOpen
		return err
	}
	clean := context.WithoutCancel(ctx)
	cleared := p.clearAway(clean, key, r)
	hint := tenfold.HintOf(err)
	p.amend(key, func(u *upgrade) {
		u.Stage, u.Other, u.Told.Fault, u.Told.Hint, u.Told.Step, u.Told.Total = upgradeEnded, nil, err.Error(), hint, "failed", time.Since(begun)
	})
	p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityWarning, Text: fmt.Sprintf("the upgrade to PostgreSQL %d was given up, the database serves as before: %v", r.Upgrade.To, err), Hint: hint})
	return cleared
}

// clearAway removes what a copy made: servers beside the database, and what is in the database for it.
func (p *Postgres) clearAway(ctx context.Context, key string, r record) error {
	p.pause(key, false)
	for _, n := range r.Upgrade.Other {
		if err := p.scrap(ctx, side(r, n, 0)); err != nil {
			return err
		}
	}
	c, err := p.open(ctx, r)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	if err := unpublish(ctx, c, forth); err != nil {
		return err
	}
	if err := admit(ctx, c, role(r.ID)); err != nil {
		return err
	}
	return p.amend(key, func(u *upgrade) { u.Other = nil })
}

// beginNode notes a server beside the cluster before there is anything of it.
func (p *Postgres) beginNode(key string) (node, error) {
	port, err := freeport.Pick()
	if err != nil {
		return node{}, err
	}
	n := node{Port: port}
	err = p.records.Change(key, func(r *record) {
		n.N = r.free()
		u := *r.Upgrade
		u.Other = append(slices.Clone(u.Other), n)
		r.Upgrade = &u
	})
	return n, err
}

// free is a number that no node has.
func (r record) free() int {
	most := 0
	for _, n := range r.whole().Nodes {
		most = max(most, n.N)
	}
	if r.Upgrade != nil {
		for _, n := range r.Upgrade.Other {
			most = max(most, n.N)
		}
		for _, n := range r.Upgrade.Readers {
			most = max(most, n)
		}
	}
	return most + 1
}

// attempt is one upgrade, from the clone that a rehearsal begins with to the switch.
func (p *Postgres) attempt(ctx context.Context, key string) (err error) {
	begun := time.Now()
	r, _ := p.get(key)
	u := *r.Upgrade
	note := func(what string, since time.Time) {
		p.amend(key, func(u *upgrade) {
			u.Told.Steps = append(slices.Clone(u.Told.Steps), dbinfo.UpgradeStep{What: what, Took: time.Since(since)})
		})
	}
	say := func(step string) {
		p.amend(key, func(u *upgrade) { u.Told.Step = step })
		p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("upgrade to PostgreSQL %d: %s", u.To, step)})
	}
	p.amend(key, func(u *upgrade) { u.Told.Steps, u.Told.Pause, u.Told.Fault, u.Told.Hint = nil, 0, "", "" })
	t := &transfer{p: p, say: say}
	if t.from, err = p.source(ctx, key, r, note); err != nil {
		return err
	}
	r, _ = p.get(key)
	n, err := p.beginNode(key)
	if err != nil {
		return err
	}
	r, _ = p.get(key)
	at := time.Now()
	e, err := engines.Postgres(ctx, u.To, p.cfg.Engines)
	if err != nil {
		return missingEngine(u.To, err)
	}
	t.to = side(r, n, u.To)
	t.to.Counts, t.to.Logical = library(e, "pg_stat_statements"), true
	if err := p.makeHome(r.ID, n.N); err != nil {
		return err
	}
	if err := p.start(ctx, e, t.to); err != nil {
		return err
	}
	if err := populate(ctx, t.to); err != nil {
		return err
	}
	c, err := p.open(ctx, t.from)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	if t.what, err = surveyOf(ctx, c, role(r.ID)); err != nil {
		return err
	}
	if err := t.schema(ctx); err != nil {
		return err
	}
	note("a server of "+e.Version+" with the schema", at)
	say(fmt.Sprintf("the schema is there; %d tables are copied, %d MB", len(t.what.published()), t.what.bytes>>20))
	at = time.Now()
	if err := t.follow(ctx, func() error { return p.same(key, r) }); err != nil {
		return err
	}
	note(fmt.Sprintf("%d MB copied, writes go on", t.what.bytes>>20), at)
	at = time.Now()
	if err := t.polish(ctx); err != nil {
		return err
	}
	note("statistics", at)
	x, err := p.cross(ctx, t.from, t.to)
	if err != nil {
		return err
	}
	defer x.close(ctx)
	if u.Rehearse {
		return p.rehearsed(ctx, key, t, x, begun, note)
	}
	return p.cut(ctx, key, r, t, x, begun)
}

// same says that the primary is the one that the copy was begun from.
func (p *Postgres) same(key string, r record) error {
	now, ok := p.get(key)
	switch {
	case !ok || now.Stopped || now.Upgrade == nil || now.Upgrade.Stage != upgradeAsked:
		return tenfold.Errorf(tenfold.CodeConflict, "it was given up").WithHint("nothing was switched")
	case now.Epoch != r.Epoch:
		return tenfold.Errorf(tenfold.CodeConflict, "another server became the primary during the copy").WithHint("nothing was switched; begin again")
	}
	return nil
}

// source is the side that is copied: the database, its WAL made to say enough, or a clone of it.
func (p *Postgres) source(ctx context.Context, key string, r record, note func(string, time.Time)) (record, error) {
	at := time.Now()
	e, err := p.engine(ctx, r)
	if err != nil {
		return r, err
	}
	if r.Upgrade.Rehearse {
		n, err := p.beginNode(key)
		if err != nil {
			return r, err
		}
		now, _ := p.get(key)
		s := side(now, n, r.Upgrade.From)
		s.Logical = true
		if err := p.makeHome(r.ID, n.N); err != nil {
			return s, err
		}
		copied, err := p.copyData(ctx, r, p.dataOf(r.ID, n.N))
		if err != nil {
			return s, err
		}
		if err := p.start(ctx, e, s); err != nil {
			return s, err
		}
		note("a clone to rehearse on, "+sizeOf(copied), at)
		return s, nil
	}
	level, err := p.walLevel(ctx, r)
	if err != nil {
		return r, err
	}
	if level != "logical" {
		paused, err := p.restart(ctx, key, "wal_level = logical for the upgrade")
		if err != nil {
			return r, err
		}
		p.amend(key, func(u *upgrade) { u.Told.Pause = paused })
		note(fmt.Sprintf("a restart for wal_level = logical, clients held for %d ms", paused.Milliseconds()), at)
	} else if err := p.reloaded(ctx, r, r.Primary); err != nil {
		return r, err
	}
	now, _ := p.get(key)
	n, _ := now.node(now.Primary)
	return side(now, n, r.Upgrade.From), nil
}

func (p *Postgres) walLevel(ctx context.Context, r record) (level string, err error) {
	err = p.ask(ctx, r, r.Primary, func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, "show wal_level").Scan(&level)
	})
	return level, err
}

// rehearsed does on a clone what a switch would, and reads every row on both sides.
func (p *Postgres) rehearsed(ctx context.Context, key string, t *transfer, x crossing, begun time.Time, note func(string, time.Time)) error {
	if err := x.approach(ctx, forth); err != nil {
		return err
	}
	at := time.Now()
	if err := x.bring(ctx, role(t.from.ID), forth, t.what, t.shape); err != nil {
		return err
	}
	pause := time.Since(at)
	at = time.Now()
	rows, err := t.compare(ctx)
	if err != nil {
		return err
	}
	note(fmt.Sprintf("%d rows read on both sides: they are the same", rows), at)
	r, _ := p.get(key)
	if err := p.clearAway(ctx, key, r); err != nil {
		return err
	}
	if err := t.what.tooLarge(); err != nil {
		p.amend(key, func(u *upgrade) { u.Told.Fault, u.Told.Hint = err.Error(), tenfold.HintOf(err) })
	}
	p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("an upgrade to PostgreSQL %s was rehearsed: clients would wait for about %d ms", r.Upgrade.Told.To, pause.Milliseconds()), Took: time.Since(begun)})
	return p.amend(key, func(u *upgrade) {
		u.Stage, u.Told.Pause, u.Told.Rows, u.Told.Total, u.Told.Step = upgradeEnded, pause, rows, time.Since(begun), "rehearsed"
	})
}

// cut makes the new server the primary: the pool holds its clients, nothing writes, the record says so.
func (p *Postgres) cut(ctx context.Context, key string, r record, t *transfer, x crossing, begun time.Time) error {
	if err := publish(ctx, x.to, back, t.what.published()); err != nil {
		return err
	}
	// A slot takes its time to be made, little to be moved to where the way back begins.
	if _, err := x.to.Exec(ctx, "select pg_create_logical_replication_slot('"+back+"', 'pgoutput')"); err != nil {
		return fmt.Errorf("prepare the way back: %w", err)
	}
	checkpoint(ctx, p, t.to) // what was copied is not written in the middle of the switch
	if err := errors.Join(unchanged(ctx, x.shape, t.shape), x.approach(ctx, forth), p.same(key, r)); err != nil {
		return err
	}
	at := time.Now()
	p.pause(key, true)
	defer p.pause(key, false)
	until(ctx, quietLimit, func(context.Context) (bool, error) { return p.quiet(key), nil }) // bounded: a long transaction is cut
	if err := x.bring(ctx, role(r.ID), forth, t.what, t.shape); err != nil {
		return err
	}
	if now, _ := p.get(key); now.Password != t.to.Password { // it was rotated meanwhile
		if err := setPassword(ctx, x.to, role(r.ID), now.Password); err != nil {
			return err
		}
	}
	// What is written from here on is kept for the way back.
	if _, err := x.to.Exec(ctx, "select pg_replication_slot_advance('"+back+"', pg_current_wal_flush_lsn())"); err != nil {
		return fmt.Errorf("prepare the way back: %w", err)
	}
	if err := p.same(key, r); err != nil {
		return err
	}
	if err := p.swap(key, t.to.Nodes[0], func(x *record, u *upgrade) {
		u.Stage, u.Until, u.Told.Step = upgradeOpen, time.Now().Add(u.Keep), "the new major serves"
		u.Told.Until = u.Until
		x.Version, x.Counts, x.Was, x.Logical = u.Told.To, t.to.Counts, u.From, true
	}); err != nil {
		return err
	}
	p.vouch(key, t.to.Primary)
	pause := p.resumed(ctx, key, at)
	p.amend(key, func(u *upgrade) {
		u.Told.Steps = append(slices.Clone(u.Told.Steps), dbinfo.UpgradeStep{What: "the switch: clients were held", Took: pause})
		u.Told.Pause, u.Told.Total = max(pause, u.Told.Pause), time.Since(begun)
	})
	now, _ := p.get(key)
	p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Took: time.Since(begun),
		Text: fmt.Sprintf("upgraded to PostgreSQL %s, epoch %d: clients were held for %d ms; the way back is open until %s", now.Version, now.Epoch, pause.Milliseconds(), now.Upgrade.Until.UTC().Format(time.DateTime)),
		Hint: fmt.Sprintf("write engine: postgres-%d in tenfold.yaml; back: tenfold db upgrade --back", now.Upgrade.To)})
	return nil
}

// swap makes another server the database's only one. The record is what counts: before it the one serves, after
// it the other.
func (p *Postgres) swap(key string, to node, f func(*record, *upgrade)) error {
	p.gate.Lock()
	defer p.gate.Unlock()
	return p.records.Change(key, func(x *record) {
		x.cluster = x.whole().cluster
		u := *x.Upgrade
		old, _ := x.node(x.Primary)
		u.Readers = nil
		for _, n := range x.readers() {
			u.Readers = append(u.Readers, n.N)
		}
		u.Other = []node{{N: old.N, Port: old.Port}}
		x.cluster = cluster{Nodes: []node{{N: to.N, Port: to.Port}}, Primary: to.N, Epoch: x.Epoch + 1, Readers: x.Readers}
		x.Lineages = append(slices.Clone(x.Lineages), x.Lineage)
		x.Lineage = time.Now().UTC().Format(lineageForm)
		f(x, &u)
		x.Upgrade = &u
	})
}

// resumed lets clients go on and says how long they were held.
func (p *Postgres) resumed(ctx context.Context, key string, since time.Time) time.Duration {
	p.pause(key, false)
	p.wake()
	until(ctx, startLimit, func(context.Context) (bool, error) {
		r, _ := p.get(key)
		p.mu.Lock()
		defer p.mu.Unlock()
		s := p.seen[key].Nodes[r.Primary]
		return s.Answers && s.Unit == keeper.Running && !s.Recovery, nil
	})
	return time.Since(since)
}

// errNoWayBack is why there is none.
func errNoWayBack(why string) error {
	return tenfold.Errorf(tenfold.CodeConflict, "there is no way back: %s", why).WithHint("a backup from before the upgrade may do: tenfold db backups")
}

// missingEngine says how a major comes onto this machine.
func missingEngine(major int, err error) error {
	return tenfold.Errorf(tenfold.CodeMissing, "%w", err).WithHint("%s", engines.Ways(major))
}
