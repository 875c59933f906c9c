package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"tenfold"
	"tenfold/internal/dbinfo"
	"tenfold/internal/depot"
	"tenfold/internal/pgrepl"
)

// Base backups, in the depot: base/<name>/data.tar is the data directory, base/<name>/manifest the
// server's list of its files, base/<name>/backup says where it begins and ends. That is written last:
// without it there is no backup, whatever was killed on the way.

const nameForm = "20060102T150405.000Z"

// base is what base/<name>/backup holds.
type base struct {
	Name     string     `json:"name"`
	Version  string     `json:"version"`
	Begun    time.Time  `json:"begun"`
	Ended    time.Time  `json:"ended"`
	Start    pgrepl.LSN `json:"start"`
	End      pgrepl.LSN `json:"end"`
	Timeline uint32     `json:"timeline"`
	Segment  uint64     `json:"segment"`
	Bytes    int64      `json:"bytes"` // of the data directory
	Sum      string     `json:"sum"`   // SHA-256 of its archive
	Role     string     `json:"role"`  // of the app, and its database's name
	Proven   time.Time  `json:"-"`
}

// proof is what base/<name>/proof holds: that a restore of it was started and answered.
type proof struct {
	At time.Time `json:"at"`
}

func errNoBackups(id tenfold.ID) error {
	return tenfold.Errorf(tenfold.CodeConflict, "%s has no backups", id.Short()).WithHint("write backups: 7d under it in tenfold.yaml and deploy")
}

// one is a lock by name: a database's key while its base backups are made or removed, with "#conf" behind
// it while a server's files are written.
func (p *Postgres) one(key string) *sync.Mutex {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.locks[key] == nil {
		p.locks[key] = &sync.Mutex{}
	}
	return p.locks[key]
}

// Backup takes a base backup now. CodeConflict when the manifest asks for no backups.
func (p *Postgres) Backup(ctx context.Context, id tenfold.ID) (dbinfo.Backup, error) {
	r, err := p.served(id)
	if err != nil {
		return dbinfo.Backup{}, err
	}
	d, err := p.depot(ctx, r)
	if err != nil {
		return dbinfo.Backup{}, err
	}
	b, err := p.backup(ctx, r, d)
	if err != nil {
		return dbinfo.Backup{}, err
	}
	return p.told(r, d, b, nil), nil
}

func (p *Postgres) backup(ctx context.Context, r record, d depot.Depot) (base, error) {
	mu := p.one(r.ID.String())
	mu.Lock()
	defer mu.Unlock()
	s, err := p.readArchive(r.ID)
	if err != nil {
		return base{}, err
	}
	if s.System == "" || s.Lineage != r.Lineage {
		return base{}, tenfold.Errorf(tenfold.CodeUnavailable, "%s: its archive of WAL has not begun", r.ID.Short()).WithHint("try again in a moment; if it lasts: tenfold events")
	}
	c, err := replication(ctx, r)
	if err != nil {
		return base{}, tenfold.Errorf(tenfold.CodeUnavailable, "%s: its primary does not answer: %w", r.ID.Short(), err).WithHint("see its servers: tenfold db nodes")
	}
	defer c.Close(context.WithoutCancel(ctx))
	b := base{Begun: time.Now().UTC(), Version: r.Version, Segment: s.Segment, Role: role(r.ID)}
	b.Name = b.Begun.Format(nameForm)
	at := "base/" + b.Name + "/"
	var taken pgrepl.Base
	sum := sha256.New()
	count := &counter{}
	err = d.Put(ctx, at+"data.tar", func(w io.Writer) (err error) {
		taken, err = pgrepl.Backup(ctx, c, pgrepl.Options{Label: "tenfold " + b.Name}, io.MultiWriter(w, sum, count))
		return err
	})
	if err == nil {
		err = d.Put(ctx, at+"manifest", func(w io.Writer) error { _, err := w.Write(taken.Manifest); return err })
	}
	if err != nil {
		d.Place.Delete(context.WithoutCancel(ctx), d.Name(at+"data.tar"))
		return base{}, fmt.Errorf("back up %s: %w", r.ID.Short(), err)
	}
	b.Start, b.End, b.Timeline, b.Ended = taken.Start, taken.End, taken.Timeline, time.Now().UTC()
	b.Bytes, b.Sum = count.n, hex.EncodeToString(sum.Sum(nil))
	p.archivedTo(ctx, r.ID.String(), b.End)
	return b, d.PutJSON(ctx, at+"backup", b)
}

// archivedTo waits until the archive has the WAL before end: a backup that ended there cannot be restored without. Not
// for long: an archive that has stopped has an alarm of its own, and the primary keeps what it wants.
func (p *Postgres) archivedTo(ctx context.Context, key string, end pgrepl.LSN) {
	limit, cancel := context.WithTimeout(ctx, archiveWait)
	defer cancel()
	tick := time.NewTicker(archiveLook)
	defer tick.Stop()
	for {
		p.mu.Lock()
		at := p.archived[key].at
		p.mu.Unlock()
		if at >= end {
			return
		}
		select {
		case <-limit.Done():
			return
		case <-tick.C:
		}
	}
}

// How long the archive is waited for, and how often it is looked at.
const (
	archiveWait = 30 * time.Second
	archiveLook = 20 * time.Millisecond
)

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }

// bases lists the base backups that are whole, oldest first. faults are those that cannot be read.
func bases(ctx context.Context, d depot.Depot) (out []base, faults map[string]error, err error) {
	names, err := d.Place.List(ctx, "base/")
	if err != nil {
		return nil, nil, err
	}
	faults = map[string]error{}
	for _, stored := range names {
		name := strings.Split(stored, "/")[1]
		if stored != d.Name("base/"+name+"/backup") {
			continue
		}
		var b base
		if err := d.GetJSON(ctx, "base/"+name+"/backup", &b); err != nil {
			faults[name] = err
			continue
		}
		var proven proof
		if slices.Contains(names, d.Name("base/"+name+"/proof")) && d.GetJSON(ctx, "base/"+name+"/proof", &proven) == nil {
			b.Proven = proven.At
		}
		out = append(out, b)
	}
	return out, faults, nil
}

// Backups lists what can be restored from, the newest first.
func (p *Postgres) Backups(ctx context.Context, id tenfold.ID) ([]dbinfo.Backup, error) {
	r, ok := p.get(id.String())
	if !ok {
		return nil, tenfold.Errorf(tenfold.CodeNotFound, "no %s of %s", id.Short(), id.App).WithHint("list what there is: tenfold status")
	}
	out := []dbinfo.Backup{}
	for i, l := range r.Lineages { // of another major, until the upgrade
		of := r
		of.Lineage = l
		until := r.Lineage
		if i+1 < len(r.Lineages) {
			until = r.Lineages[i+1]
		}
		d, err := p.depot(ctx, of)
		if err != nil {
			return nil, err
		}
		all, _, err := bases(ctx, d)
		if err != nil {
			return nil, err
		}
		for _, b := range all {
			at, _ := time.Parse(lineageForm, until)
			out = append(out, dbinfo.Backup{Name: b.Name, Begun: b.Begun, Ended: b.Ended, Bytes: b.Bytes, Until: at, Encrypted: d.Key != "", Proven: b.Proven, Fault: "PostgreSQL " + b.Version + ", before an upgrade"})
		}
	}
	d, err := p.depot(ctx, r)
	if err != nil {
		return nil, err
	}
	all, faults, err := bases(ctx, d)
	if err != nil {
		return nil, err
	}
	for i, b := range all {
		var next *base
		if i+1 < len(all) {
			next = &all[i+1]
		}
		out = append(out, p.told(r, d, b, next))
	}
	for name, err := range faults {
		out = append(out, dbinfo.Backup{Name: name, Fault: err.Error(), Encrypted: d.Key != ""})
	}
	slices.SortFunc(out, func(a, b dbinfo.Backup) int { return strings.Compare(b.Name, a.Name) })
	return out, nil
}

// told is a backup as people see it. A gap in the archive ends what can be restored from those before it.
func (p *Postgres) told(r record, d depot.Depot, b base, next *base) dbinfo.Backup {
	s, _ := p.readArchive(r.ID)
	out := dbinfo.Backup{Name: b.Name, Begun: b.Begun, Ended: b.Ended, Bytes: b.Bytes, Until: p.until(r, s), Encrypted: d.Key != "", Proven: b.Proven}
	if b.Start < s.Gap {
		out.Fault = "the archive has a gap after it"
		if out.Until = b.Ended; next != nil && next.Start < s.Gap {
			out.Until = next.Begun
		}
	}
	return out
}

// until is the latest time that can be restored.
func (p *Postgres) until(r record, s archiveState) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.archived[r.ID.String()]; a.until.After(s.Until) {
		return a.until
	}
	return s.Until
}

// keepCopies takes base backups when they are due, removes what is too old, and rehearses restores.
func (p *Postgres) keepCopies(ctx context.Context, key string) time.Duration {
	at := key + "#copies"
	r, ok := p.get(key)
	if !ok || r.Spec.Backups == nil || !p.answers(key) || ctx.Err() != nil {
		return 0
	}
	again, err := p.copyOnce(ctx, r)
	if errors.Is(err, depot.ErrNotYet) {
		return watchPace // it is the bucket's own trouble, if it is one
	}
	if err != nil && ctx.Err() == nil {
		p.say(at, r.ID, "backup: "+err.Error())
		return max(p.tries.Pause(at), time.Second)
	}
	p.say(at, r.ID, "")
	p.tries.Done(at)
	return again
}

func (p *Postgres) copyOnce(ctx context.Context, r record) (time.Duration, error) {
	d, err := p.depot(ctx, r)
	if err != nil {
		return 0, err
	}
	s, err := p.readArchive(r.ID)
	if err != nil || s.System == "" || s.Lineage != r.Lineage {
		return watchPace, err
	}
	all, _, err := bases(ctx, d)
	if err != nil {
		return 0, err
	}
	plan := r.Spec.Backups
	now := time.Now()
	due := now
	if n := len(all); n > 0 && all[n-1].Start >= s.Gap {
		due = all[n-1].Begun.Add(plan.Every)
	}
	if !due.After(now) {
		b, err := p.backup(ctx, r, d)
		if err != nil {
			return 0, err
		}
		p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("backup %s, %d MB", b.Name, b.Bytes>>20), Took: b.Ended.Sub(b.Begun)})
		return answerPace, nil
	}
	if err := errors.Join(p.expire(ctx, r, d, all, now), p.expireLineages(ctx, r, now)); err != nil {
		return 0, err
	}
	next := min(due.Sub(now), time.Hour)
	if plan.Drill > 0 {
		last := all[len(all)-1]
		// The newest one is proven once the WAL that it needs has arrived.
		var proven time.Time
		for _, b := range all {
			proven = latest(proven, b.Proven)
		}
		if since := now.Sub(proven); since > plan.Drill && p.until(r, s).After(last.Ended) {
			return answerPace, p.drill(ctx, r, d, last)
		} else if since > plan.Drill {
			next = min(next, watchPace)
		}
	}
	return next, nil
}

// lineageForm is how a lineage is named: by when it began.
const lineageForm = "20060102T150405Z"

// expireLineages removes the backups from before an upgrade that is longer ago than backups are kept.
func (p *Postgres) expireLineages(ctx context.Context, r record, now time.Time) error {
	if len(r.Lineages) == 0 {
		return nil
	}
	until := r.Lineage
	if len(r.Lineages) > 1 {
		until = r.Lineages[1]
	}
	if at, err := time.Parse(lineageForm, until); err != nil || now.Sub(at) < r.Spec.Backups.Keep {
		return err
	}
	of := r
	of.Lineage = r.Lineages[0]
	d, err := p.depot(ctx, of)
	if err != nil {
		return err
	}
	for _, below := range []string{"base/", "wal/"} {
		names, err := d.Place.List(ctx, below)
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := d.Place.Delete(ctx, n); err != nil {
				return err
			}
		}
	}
	return p.records.Change(r.ID.String(), func(x *record) {
		if len(x.Lineages) > 0 && x.Lineages[0] == of.Lineage {
			x.Lineages = slices.Clone(x.Lineages[1:])
		}
	})
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// expired are the backups that no moment within the time kept needs: all that are older than the newest
// from before it. The newest always stays.
func expired(all []base, keep time.Duration, now time.Time) []base {
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Ended.Before(now.Add(-keep)) {
			return all[:i]
		}
	}
	return nil
}

// expire removes backups that are too old, and the WAL and what was left half-way before the oldest
// that stays.
func (p *Postgres) expire(ctx context.Context, r record, d depot.Depot, all []base, now time.Time) error {
	mu := p.one(r.ID.String())
	mu.Lock()
	defer mu.Unlock()
	gone := expired(all, r.Spec.Backups.Keep, now)
	if len(gone) == 0 || len(gone) == len(all) {
		return nil
	}
	oldest := all[len(gone)]
	for _, b := range gone {
		for _, part := range []string{"backup", "proof", "manifest", "data.tar"} { // without the first it is none
			if err := d.Place.Delete(ctx, d.Name("base/"+b.Name+"/"+part)); err != nil {
				return err
			}
		}
	}
	names, err := d.Place.List(ctx, "wal/")
	if err != nil {
		return err
	}
	first := oldest.Start.Segment(0, oldest.Segment)[8:]
	for _, stored := range names {
		if seg := segmentOf(stored); seg != "" && seg[8:] < first {
			if err := d.Place.Delete(ctx, stored); err != nil {
				return err
			}
		}
	}
	return nil
}

// segmentOf is the segment that a stored object is, "" when it is none.
func segmentOf(stored string) string {
	name, _, _ := strings.Cut(path.Base(stored), ".")
	if len(name) != 24 || strings.Trim(name, "0123456789ABCDEF") != "" {
		return ""
	}
	return name
}

// drill restores a backup aside, starts it and looks at it: a backup that was never restored is a hope.
func (p *Postgres) drill(ctx context.Context, r record, d depot.Depot, b base) error {
	begun := time.Now()
	err := p.rehearseRestore(ctx, r, d, b)
	if err != nil {
		if ctx.Err() == nil {
			p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityAlarm, Text: "a rehearsed restore of backup " + b.Name + " failed: " + err.Error(), Hint: "take another: tenfold db backup"})
		}
		return errors.Join(errors.New("restore rehearsal"), err)
	}
	p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: "restore of backup " + b.Name + " proven", Took: time.Since(begun)})
	return d.PutJSON(ctx, "base/"+b.Name+"/proof", proof{At: time.Now().UTC()})
}
