package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// keepEvents bounds the events of the house; older ones are pruned by AddEvent now and then.
const keepEvents = 50_000

// Event is a stored event; Document is its JSON without the sequence number.
type Event struct {
	Seq      int64
	At       time.Time
	App, Env string
	Document []byte
}

// AddEvent appends and returns the sequence number.
func (s *Store) AddEvent(ctx context.Context, e Event) (int64, error) {
	res, err := s.db.ExecContext(ctx, "insert into events (at, app, env, document) values (?, ?, ?, ?)", e.At.UnixMicro(), e.App, e.Env, e.Document)
	if err != nil {
		return 0, fmt.Errorf("add event: %w", err)
	}
	seq, err := res.LastInsertId()
	if err != nil {
		return 0, fmt.Errorf("add event: %w", err)
	}
	if seq%1000 == 0 {
		if _, err := s.db.ExecContext(ctx, "delete from events where seq <= ?", seq-keepEvents); err != nil {
			return seq, fmt.Errorf("prune events: %w", err)
		}
	}
	return seq, nil
}

// Events lists those after seq, oldest first. Empty app or env match all. With tail > 0 it gives
// the last ones instead of the first.
func (s *Store) Events(ctx context.Context, app, env string, after int64, tail int) ([]Event, error) {
	if tail <= 0 {
		tail = keepEvents
	}
	return query(ctx, s, func(rows *sql.Rows) (e Event, err error) {
		var at int64
		err = rows.Scan(&e.Seq, &at, &e.App, &e.Env, &e.Document)
		e.At = time.UnixMicro(at)
		return e, err
	}, `select seq, at, app, env, document from (
			select * from events where seq > ? and (? = '' or app = ?) and (? = '' or env = ?) order by seq desc limit ?
		) order by seq`, after, app, app, env, env, tail)
}

// LastEvent is the highest sequence number given out, 0 before the first.
func (s *Store) LastEvent(ctx context.Context) (seq int64, err error) {
	err = s.db.QueryRowContext(ctx, "select coalesce(max(seq), 0) from events").Scan(&seq)
	return seq, err
}

// Entry is one line of the audit log.
type Entry struct {
	Seq                    int64
	At                     time.Time
	Actor, App, Env        string
	Revision               int64
	Verb, Resource, Reason string
}

// Audit appends an entry. Entries can be neither changed nor deleted.
func (s *Store) Audit(ctx context.Context, e Entry) error {
	_, err := s.db.ExecContext(ctx, "insert into audit (at, actor, app, env, revision, verb, resource, reason) values (?,?,?,?,?,?,?,?)",
		e.At.UnixMicro(), e.Actor, e.App, e.Env, e.Revision, e.Verb, e.Resource, e.Reason)
	if err != nil {
		return fmt.Errorf("append to audit log: %w", err)
	}
	return nil
}

// AuditLog lists the newest entries, oldest of them first. Empty app matches all.
func (s *Store) AuditLog(ctx context.Context, app string, limit int) ([]Entry, error) {
	return query(ctx, s, func(rows *sql.Rows) (e Entry, err error) {
		var at int64
		err = rows.Scan(&e.Seq, &at, &e.Actor, &e.App, &e.Env, &e.Revision, &e.Verb, &e.Resource, &e.Reason)
		e.At = time.UnixMicro(at)
		return e, err
	}, `select * from (select seq, at, actor, app, env, revision, verb, resource, reason from audit
		where ? = '' or app = ? order by seq desc limit ?) order by seq`, app, app, limit)
}

// SetSecret stores a new version of a sealed secret and returns its number.
func (s *Store) SetSecret(ctx context.Context, app, name string, sealed []byte, now time.Time) (version int64, err error) {
	err = s.tx(ctx, func(tx *sql.Tx) error {
		if err := tx.QueryRowContext(ctx, "select coalesce(max(version), 0) + 1 from secrets where app = ? and name = ?", app, name).Scan(&version); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "insert into secrets (app, name, version, created, sealed) values (?,?,?,?,?)", app, name, version, now.UnixMicro(), sealed)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("set secret %s of %s: %w", name, app, err)
	}
	return version, nil
}

// Secret is one version; Sealed is nil in lists.
type Secret struct {
	Name    string
	Version int64
	Created time.Time
	Sealed  []byte
}

// Secret returns a version; 0 means the newest. ErrNotFound when there is none.
func (s *Store) Secret(ctx context.Context, app, name string, version int64) (Secret, error) {
	out, err := query(ctx, s, func(rows *sql.Rows) (x Secret, err error) {
		var at int64
		err = rows.Scan(&x.Name, &x.Version, &at, &x.Sealed)
		x.Created = time.UnixMicro(at)
		return x, err
	}, "select name, version, created, sealed from secrets where app = ? and name = ? and (? = 0 or version = ?) order by version desc limit 1", app, name, version, version)
	if err != nil {
		return Secret{}, err
	}
	if len(out) == 0 {
		return Secret{}, fmt.Errorf("secret %s of %s: %w", name, app, ErrNotFound)
	}
	return out[0], nil
}

// Secrets lists the newest version of each of an app's secrets.
func (s *Store) Secrets(ctx context.Context, app string) ([]Secret, error) {
	return query(ctx, s, func(rows *sql.Rows) (x Secret, err error) {
		var at int64
		err = rows.Scan(&x.Name, &x.Version, &at)
		x.Created = time.UnixMicro(at)
		return x, err
	}, "select name, max(version), max(created) from secrets where app = ? group by name order by name", app)
}

// RemoveSecret forgets all versions of a secret.
func (s *Store) RemoveSecret(ctx context.Context, app, name string) error {
	res, err := s.db.ExecContext(ctx, "delete from secrets where app = ? and name = ?", app, name)
	if err != nil {
		return fmt.Errorf("remove secret %s of %s: %w", name, app, err)
	}
	if n, _ := res.RowsAffected(); n == 0 {
		return fmt.Errorf("secret %s of %s: %w", name, app, ErrNotFound)
	}
	return nil
}

// Bounds are the scale of one service as a person set it.
type Bounds struct {
	Service  string
	Min, Max int
}

// SetScale stores bounds; Max 0 removes them, so that the manifest's hold again.
func (s *Store) SetScale(ctx context.Context, app, env string, b Bounds) error {
	var err error
	if b.Max == 0 {
		_, err = s.db.ExecContext(ctx, "delete from scale where app = ? and env = ? and service = ?", app, env, b.Service)
	} else {
		_, err = s.db.ExecContext(ctx, `insert into scale (app, env, service, min, max) values (?,?,?,?,?)
			on conflict (app, env, service) do update set min = excluded.min, max = excluded.max`, app, env, b.Service, b.Min, b.Max)
	}
	if err != nil {
		return fmt.Errorf("set scale of %s/%s %s: %w", app, env, b.Service, err)
	}
	return nil
}

// Scale lists the bounds set for an environment.
func (s *Store) Scale(ctx context.Context, app, env string) ([]Bounds, error) {
	return query(ctx, s, func(rows *sql.Rows) (b Bounds, err error) {
		err = rows.Scan(&b.Service, &b.Min, &b.Max)
		return b, err
	}, "select service, min, max from scale where app = ? and env = ? order by service", app, env)
}
