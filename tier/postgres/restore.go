package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"tenfold"
	"tenfold/internal/depot"
	"tenfold/internal/engines"
	"tenfold/internal/freeport"
	"tenfold/internal/keeper"
	"tenfold/internal/pgrepl"
)

// recoveryLimit bounds how long a restored server may take to replay its WAL.
const recoveryLimit = 2 * time.Hour

// Restore makes a new database beside the old as it was at a time (zero: as late as can be) and returns
// its name. The old one is not touched. CodeNotFound when no backup reaches that time; the backup or the
// WAL that cannot be read is named.
func (p *Postgres) Restore(ctx context.Context, id tenfold.ID, to time.Time) (tenfold.ID, error) {
	begun := time.Now()
	r, ok := p.get(id.String())
	if !ok {
		return tenfold.ID{}, tenfold.Errorf(tenfold.CodeNotFound, "no %s of %s", id.Short(), id.App).WithHint("list what there is: tenfold status")
	}
	lineage := r.Lineage
	r, d, b, err := p.chooseLineage(ctx, r, to)
	if err != nil {
		return tenfold.ID{}, err
	}
	if r.Lineage == lineage && p.answers(r.ID.String()) { // its archive may be about to begin again
		p.archivedTo(ctx, r.ID.String(), b.End)
	}
	made, err := p.beside(r, "-restored")
	if err != nil {
		return tenfold.ID{}, err
	}
	made.Was = made.Spec.Major // it has the major of its backup
	if err := p.rebuild(ctx, d, b, r, made, to); err != nil {
		return tenfold.ID{}, errors.Join(err, p.discard(context.WithoutCancel(ctx), made.ID))
	}
	if err := p.adopt(ctx, made, b.Role); err != nil {
		return tenfold.ID{}, err
	}
	p.cfg.Emit(tenfold.Event{ID: made.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("restored from backup %s of %s", b.Name, id.Name), Took: time.Since(begun)})
	return made.ID, nil
}

// chooseLineage is choose among the backups since the last upgrade to another major, then among those before each.
// The record that it returns is the one that these are of.
func (p *Postgres) chooseLineage(ctx context.Context, r record, to time.Time) (record, depot.Depot, base, error) {
	var first error
	for i := len(r.Lineages); i >= 0; i-- {
		of := r
		if i < len(r.Lineages) {
			of.Lineage = r.Lineages[i]
		}
		d, err := p.depot(ctx, of)
		if err != nil {
			return of, d, base{}, err
		}
		b, err := p.choose(ctx, of, d, to)
		if err == nil {
			return of, d, b, nil
		}
		if first == nil {
			first = err
		}
		if to.IsZero() || tenfold.CodeOf(err) != tenfold.CodeNotFound {
			break
		}
	}
	return r, depot.Depot{}, base{}, first
}

// choose is the newest backup that ended before a time.
func (p *Postgres) choose(ctx context.Context, r record, d depot.Depot, to time.Time) (base, error) {
	all, faults, err := bases(ctx, d)
	if err != nil {
		return base{}, err
	}
	for i := len(all) - 1; i >= 0; i-- {
		if to.IsZero() || all[i].Ended.Before(to) {
			if until := p.told(r, d, all[i], nil).Until; to.After(until.Add(time.Second)) {
				return base{}, tenfold.Errorf(tenfold.CodeNotFound, "the WAL of %s reaches to %s", r.ID.Short(), until.UTC().Format(time.DateTime)).WithHint("restore to that time, or --to latest")
			}
			return all[i], nil
		}
	}
	switch {
	case len(faults) > 0:
		for name, err := range faults {
			return base{}, tenfold.Errorf(tenfold.CodeFailed, "backup %s of %s cannot be read: %w", name, r.ID.Short(), err).WithHint("another time may have another backup: tenfold db backups")
		}
	case len(all) == 0:
		return base{}, tenfold.Errorf(tenfold.CodeNotFound, "%s has no backup yet", r.ID.Short()).WithHint("take one: tenfold db backup")
	}
	return base{}, tenfold.Errorf(tenfold.CodeNotFound, "the oldest backup of %s is of %s", r.ID.Short(), all[0].Ended.UTC().Format(time.DateTime)).WithHint("restore to a later time: tenfold db backups")
}

// beside is the record of a database to be made from r: a name that is free, a port of its own.
func (p *Postgres) beside(r record, suffix string) (record, error) {
	out := record{Spec: r.Spec, Super: r.Super, Password: r.Password, Version: r.Version, Was: r.Was, Of: r.ID.String(), Begun: time.Now()}
	out.Spec.Readers, out.Spec.Sync, out.Spec.Backups = tenfold.Bounds{}, "", nil
	for i := 1; ; i++ {
		out.ID = r.ID
		if out.ID.Name += tenfold.Name(suffix); i > 1 {
			out.ID.Name += tenfold.Name(fmt.Sprintf("-%d", i))
		}
		if _, taken := p.records.Get(out.ID.String()); !taken {
			break
		}
	}
	port, err := freeport.Pick()
	if err != nil {
		return out, err
	}
	out.Port = port
	out.cluster = out.whole().cluster
	out.Goal, err = tenfold.FingerprintOf(out.Spec, nil)
	out.Serving = out.Goal
	return out, err
}

// discard removes what a restore that failed has left.
func (p *Postgres) discard(ctx context.Context, id tenfold.ID) error {
	p.mu.Lock()
	delete(p.healthy, id.String())
	p.mu.Unlock()
	p.unlink(id.String(), 1)
	return errors.Join(p.cfg.Units.Remove(ctx, unitPrefix+id.String()), os.RemoveAll(p.home(id)))
}

// rebuild makes a data directory from a backup and its WAL and starts it until it has replayed all to a
// time. The server runs when it returns.
func (p *Postgres) rebuild(ctx context.Context, d depot.Depot, b base, from, to record, at time.Time) error {
	if err := p.discard(ctx, to.ID); err != nil { // of one that was killed
		return err
	}
	if err := p.makeHome(to.ID, 1); err != nil {
		return err
	}
	data := p.dataOf(to.ID, 1)
	if err := p.unpack(ctx, d, b, data); err != nil {
		return tenfold.Errorf(tenfold.CodeFailed, "backup %s of %s cannot be used: %w", b.Name, from.ID.Short(), err).WithHint("another time may have another backup: tenfold db backups")
	}
	if err := p.bringWAL(ctx, d, b, from, data); err != nil {
		return tenfold.Errorf(tenfold.CodeFailed, "the WAL of %s cannot be used: %w", from.ID.Short(), err).WithHint("restore to a time before it: tenfold db backups")
	}
	err := p.replay(ctx, to, at)
	if err != nil && !at.IsZero() && strings.Contains(err.Error(), "recovery ended before configured recovery target") {
		// Nothing was committed between the last record and the time: the end is how it was then.
		err = p.replay(ctx, to, time.Time{})
	}
	return err
}

// unpack makes the data directory and checks every byte of it: the archive as a whole, each file against
// the list that the server made.
func (p *Postgres) unpack(ctx context.Context, d depot.Depot, b base, data string) error {
	uid, gid := engines.RunAs()
	sum := sha256.New()
	var files pgrepl.Files
	if err := d.Get(ctx, "base/"+b.Name+"/data.tar", func(r io.Reader) (err error) {
		all := io.TeeReader(r, sum)
		if files, err = pgrepl.Unpack(all, data, uid, gid); err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, all)
		return err
	}); err != nil {
		return err
	}
	if hex.EncodeToString(sum.Sum(nil)) != b.Sum {
		return fmt.Errorf("base/%s/data.tar is not what was stored", b.Name)
	}
	return d.Get(ctx, "base/"+b.Name+"/manifest", func(r io.Reader) error {
		manifest, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		return pgrepl.Check(manifest, files)
	})
}

// fetchedAtOnce is how many segments are brought side by side: most of the time each waits for a disk or a bucket.
const fetchedAtOnce = 4

// bringWAL puts the WAL from a backup on into the data directory, the segment that is not full yet
// included where it lies on this machine.
func (p *Postgres) bringWAL(ctx context.Context, d depot.Depot, b base, from record, data string) error {
	names, err := d.Place.List(ctx, "wal/")
	if err != nil {
		return err
	}
	first := b.Start.Segment(0, b.Segment)[8:]
	var wg sync.WaitGroup
	turn := make(chan struct{}, fetchedAtOnce)
	failed := make(chan error, len(names))
	for _, stored := range names {
		seg := segmentOf(stored)
		name, _, _ := strings.Cut(path.Base(stored), ".zst")
		if seg != "" && seg[8:] < first {
			continue
		}
		turn <- struct{}{}
		if len(failed) > 0 {
			break
		}
		wg.Go(func() {
			defer func() { <-turn }()
			if err := d.Get(ctx, "wal/"+name, func(r io.Reader) error { return p.bring(r, filepath.Join(data, "pg_wal", name), 0) }); err != nil {
				failed <- err
			}
		})
	}
	wg.Wait()
	close(failed)
	if err := <-failed; err != nil {
		return err
	}
	if now, ok := p.get(from.ID.String()); ok && now.Lineage != from.Lineage {
		return nil // what is archived now is another server's
	}
	s, err := p.readArchive(from.ID)
	if err != nil {
		return err
	}
	if s.System == "" {
		return nil
	}
	name := s.Next.Segment(s.Timeline, s.Segment)
	f, err := os.Open(filepath.Join(p.archiveDir(from.ID), name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return p.bring(f, filepath.Join(data, "pg_wal", name), int64(s.Segment))
}

// bring writes a file for the user that servers run as, filled up to a size: a segment has its size
// whatever is in it.
func (p *Postgres) bring(r io.Reader, path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err == nil && size > 0 {
		err = f.Truncate(size)
	}
	if uid, gid := engines.RunAs(); err == nil && uid > 0 {
		err = f.Chown(uid, gid)
	}
	return errors.Join(err, f.Close())
}

// replay starts a restored server and waits until it has replayed its WAL to a time, or to its end, and
// taken a history of its own.
func (p *Postgres) replay(ctx context.Context, r record, to time.Time) error {
	key, data := r.ID.String(), p.dataOf(r.ID, 1)
	if err := p.cfg.Units.Remove(ctx, unitPrefix+key); err != nil {
		return err
	}
	if _, err := p.configure(r, 1); err != nil {
		return err
	}
	// The WAL lies in pg_wal already: there is nothing to fetch, and a command must be said.
	recovery := "restore_command = 'false'\nrecovery_target_timeline = 'latest'\nrecovery_target_action = 'promote'\n"
	if !to.IsZero() {
		recovery += "recovery_target_time = " + quoteConf(to.UTC().Format("2006-01-02 15:04:05.999999+00")) + "\n"
	}
	for name, text := range map[string]string{"postgresql.auto.conf": recovery, "recovery.signal": ""} {
		if _, err := replace(filepath.Join(data, name), text); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	e, err := p.engine(ctx, r)
	if err != nil {
		return err
	}
	begun := time.Now()
	if _, err := p.launch(ctx, e, r, 1); err != nil {
		return err
	}
	if err := until(ctx, recoveryLimit, func(ctx context.Context) (bool, error) {
		all, err := p.status(ctx, key)
		if err != nil {
			return false, err
		}
		if all[1].Phase == keeper.Exited {
			lines := keeper.LastLines(p.logOf(r.ID, 1), begun.Add(-time.Second), 8)
			return false, fmt.Errorf("PostgreSQL ended while it replayed: %s", strings.Join(lines, "\n  "))
		}
		yes, err := p.recovering(ctx, r, 1)
		return err == nil && !yes, nil
	}); err != nil {
		return err
	}
	_, err = replace(filepath.Join(data, "postgresql.auto.conf"), "# written by tenfold\n")
	return err
}

// as renames the app's database and role in a restored server.
func (p *Postgres) as(ctx context.Context, r record, old, name string) error {
	if old == name {
		return nil
	}
	c, err := connect(ctx, r, "postgres")
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	from, to := pgx.Identifier{old}.Sanitize(), pgx.Identifier{name}.Sanitize()
	for _, sql := range []string{"alter database " + from + " rename to " + to, "alter role " + from + " rename to " + to} {
		if _, err := c.Exec(ctx, sql); err != nil {
			return fmt.Errorf("rename restored database: %w", err)
		}
	}
	return nil
}

// rehearseRestore restores a backup to its latest, looks at every table, and removes it again.
func (p *Postgres) rehearseRestore(ctx context.Context, r record, d depot.Depot, b base) (err error) {
	to, err := p.beside(r, "-restored")
	if err != nil {
		return err
	}
	to.ID.Name = r.ID.Name + "~drill" // no name of a user's
	defer func() {
		err = errors.Join(err, p.discard(context.WithoutCancel(ctx), to.ID))
	}()
	if err := p.rebuild(ctx, d, b, r, to, time.Time{}); err != nil {
		return err
	}
	c, err := connect(ctx, to, b.Role)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	rows, err := c.Query(ctx, "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname not in ('pg_catalog', 'information_schema')")
	if err != nil {
		return err
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, t := range tables {
		if _, err := c.Exec(ctx, "select 1 from "+t+" limit 1"); err != nil {
			return fmt.Errorf("read %s: %w", t, err)
		}
	}
	return nil
}
