package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"tenfold"
	"tenfold/internal/engines"
	"tenfold/internal/pgrepl"
)

// plainName is what the manifest takes as a name: it is a folder's too.
var plainName = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

// Clone makes a copy of a running database beside it and returns its name; "" for name: the old one's
// with "-clone" behind it. The old one is not touched and goes on meanwhile. CodeConflict when the name
// is taken.
func (p *Postgres) Clone(ctx context.Context, id tenfold.ID, name tenfold.Name) (tenfold.ID, error) {
	begun := time.Now()
	r, err := p.served(id)
	if err != nil {
		return tenfold.ID{}, err
	}
	made, err := p.beside(r, "-clone")
	if err != nil {
		return tenfold.ID{}, err
	}
	if name != "" {
		if !plainName.MatchString(string(name)) || len(name) > 40 {
			return tenfold.ID{}, tenfold.Errorf(tenfold.CodeInvalid, "%.60q is no name for a database", name).WithHint("names are kebab-case: orders-copy")
		}
		made.ID.Name = name
		if _, taken := p.records.Get(made.ID.String()); taken {
			return tenfold.ID{}, tenfold.Errorf(tenfold.CodeConflict, "there is a %s already", made.ID.Short()).WithHint("choose another name")
		}
	}
	copied, err := p.copyTo(ctx, r, made)
	if err != nil {
		return tenfold.ID{}, errors.Join(err, p.discard(context.WithoutCancel(ctx), made.ID))
	}
	if err := p.adopt(ctx, made, role(id)); err != nil {
		return tenfold.ID{}, err
	}
	p.cfg.Emit(tenfold.Event{ID: made.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("cloned from %s, %s", id.Name, sizeOf(copied)), Took: time.Since(begun)})
	return made.ID, nil
}

// copied sees to it that the data of a database that begins as a copy of another environment's is there.
// The superuser's password comes along; the role's is its own, and set when the server runs.
func (p *Postgres) copied(ctx context.Context, key string, e engines.Engine, r record) (record, error) {
	data := p.dataOf(r.ID, r.Primary)
	if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); err == nil || r.Epoch > 1 {
		return r, nil
	}
	begun := time.Now()
	of := r.ID
	of.Env = r.Spec.Clone
	from, ok := p.get(of.String())
	if ok && from.Suspended && !from.Stopped {
		if err := p.records.Change(of.String(), func(x *record) { x.Suspended = false }); err != nil {
			return r, err
		}
		p.wake()
		return r, fmt.Errorf("%s of %s sleeps: it is woken first", of.Name, of.Env)
	}
	if !ok || from.Serving == "" || from.Stopped {
		return r, tenfold.Errorf(tenfold.CodeUnavailable, "it is to begin as a copy of %s of %s, which does not run", of.Name, of.Env).
			WithHint("start that first, or leave clone: %s out to begin empty", of.Env)
	}
	if theirs, err := p.engine(ctx, from); err != nil || theirs.Major != e.Major {
		return r, errors.Join(err, tenfold.Errorf(tenfold.CodeConflict, "it is to begin as a copy of %s of %s, which is of PostgreSQL %d", of.Name, of.Env, theirs.Major).
			WithHint("write engine: postgres-%d", theirs.Major))
	}
	if err := p.makeHome(r.ID, r.Primary); err != nil {
		return r, err
	}
	if err := p.records.Change(key, func(x *record) { x.Super = from.Super }); err != nil {
		return r, err
	}
	r.Super = from.Super
	fresh := data + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return r, fmt.Errorf("make data directory: %w", err)
	}
	copied, err := p.copyData(ctx, from, fresh)
	if err != nil {
		return r, err
	}
	if err := os.Rename(fresh, data); err != nil {
		return r, fmt.Errorf("make data directory: %w", err)
	}
	p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("copied from %s of %s, %s", of.Name, of.Env, sizeOf(copied)), Took: time.Since(begun)})
	return r, nil
}

// duplicate makes a data directory of a running database's primary: shared by the file system where that can,
// else copied. It is not on disk yet.
func (p *Postgres) duplicate(ctx context.Context, r record, o pgrepl.Options, data string) (pgrepl.Copied, error) {
	c, err := connect(ctx, r, "postgres")
	if err != nil {
		return pgrepl.Copied{}, tenfold.Errorf(tenfold.CodeUnavailable, "%s: its primary does not answer: %w", r.ID.Short(), err).WithHint("see its servers: tenfold db nodes")
	}
	defer c.Close(context.WithoutCancel(ctx))
	uid, gid := engines.RunAs()
	return pgrepl.Copy(ctx, c.PgConn(), o, p.dataOf(r.ID, r.Primary), data, uid, gid)
}

// sizeOf says how much was copied, and how.
func sizeOf(c pgrepl.Copied) string {
	out := fmt.Sprintf("%d MB", c.Bytes>>20)
	if c.Shared {
		out += " shared with the original (copy on write)"
	}
	return out
}

// copyData makes a data directory of a running database's, with the WAL that it needs, on disk.
func (p *Postgres) copyData(ctx context.Context, r record, data string) (pgrepl.Copied, error) {
	copied, err := p.duplicate(ctx, r, pgrepl.Options{Label: "tenfold clone", WAL: true}, data)
	if err == nil {
		err = pgrepl.Sync(data)
	}
	if err != nil {
		return copied, fmt.Errorf("clone %s: %w", r.ID.Short(), err)
	}
	return copied, nil
}

// copyTo makes the data directory of a clone and starts it.
func (p *Postgres) copyTo(ctx context.Context, r, to record) (copied pgrepl.Copied, err error) {
	if err := p.discard(ctx, to.ID); err != nil { // of one that was killed
		return copied, err
	}
	if err := p.makeHome(to.ID, 1); err != nil {
		return copied, err
	}
	if copied, err = p.copyData(ctx, r, p.dataOf(to.ID, 1)); err != nil {
		return copied, err
	}
	if _, err := p.configure(to, 1); err != nil {
		return copied, err
	}
	e, err := p.engine(ctx, to)
	if err != nil {
		return copied, err
	}
	if _, err := p.launch(ctx, e, to, 1); err != nil {
		return copied, err
	}
	return copied, p.await(ctx, to.ID.String(), to, 1)
}

// adopt gives a server that was made beside another its own names, and the record that keeps it running.
func (p *Postgres) adopt(ctx context.Context, made record, old string) error {
	key := made.ID.String()
	if err := p.as(ctx, made, old, role(made.ID)); err != nil {
		return errors.Join(err, p.discard(context.WithoutCancel(ctx), made.ID))
	}
	if err := p.entrust(ctx, made); err != nil {
		return errors.Join(err, p.discard(context.WithoutCancel(ctx), made.ID))
	}
	if err := p.records.Update(key, func(x *record) { *x = made }); err != nil {
		return err
	}
	p.wake()
	if err := until(ctx, startLimit, func(context.Context) (bool, error) { return p.answers(key), nil }); err != nil {
		return fmt.Errorf("start %s: %w", made.ID.Short(), err)
	}
	return nil
}

// entrust sets the role's password to the record's: a backup from before a rotation has an older one.
func (p *Postgres) entrust(ctx context.Context, r record) error {
	c, err := connect(ctx, r, "postgres")
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	return setPassword(ctx, c, role(r.ID), r.Password)
}
