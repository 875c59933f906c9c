// Package store keeps what concerns more than one tier: revisions, events, the audit log, secrets'
// ciphertexts and scale bounds, in one embedded SQL database that only the daemon opens.
//
// It speaks in strings and bytes, so that its format does not follow the code. Rows of events and
// audit are only ever appended; revisions keep what was deployed, byte for byte. Begin at Open.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	_ "modernc.org/sqlite" // the driver
)

// ErrNotFound says that no such row exists.
var ErrNotFound = errors.New("not found")

// Store is an open database. Its methods are safe for concurrent use.
type Store struct{ db *sql.DB }

// migrations are applied in order, once each; PRAGMA user_version counts them. Never edit one
// that was released: add another.
var migrations = []string{`
create table environments (
	app text not null, env text not null,
	goal integer not null default 0,     -- revision that the loop pursues; 0: nothing should run
	serving integer not null default 0,  -- last revision that served whole
	changed integer not null,
	primary key (app, env)
);
create table revisions (
	app text not null, env text not null, revision integer not null,
	created integer not null, dir text not null, manifest blob not null, document blob not null,
	state text not null, reason text not null default '', actor text not null default '', label text not null default '',
	origin integer not null default 0,
	primary key (app, env, revision)
);
create table events (
	seq integer primary key autoincrement, at integer not null,
	app text not null, env text not null, document blob not null
);
create index events_by_app on events (app, env, seq);
create table audit (
	seq integer primary key autoincrement, at integer not null, actor text not null,
	app text not null, env text not null, revision integer not null,
	verb text not null, resource text not null, reason text not null
);
create trigger audit_is_append_only_u before update on audit begin select raise(abort, 'the audit log is append-only'); end;
create trigger audit_is_append_only_d before delete on audit begin select raise(abort, 'the audit log is append-only'); end;
create table secrets (
	app text not null, name text not null, version integer not null, created integer not null, sealed blob not null,
	primary key (app, name, version)
);
create table scale (
	app text not null, env text not null, service text not null, min integer not null, max integer not null,
	primary key (app, env, service)
);`}

// Open opens or makes the database at path. A database of a newer Tenfold is refused.
func Open(ctx context.Context, path string) (*Store, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(wal)&_pragma=synchronous(full)&_pragma=busy_timeout(5000)&_pragma=cache_size(-1024)")
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	db.SetMaxOpenConns(1) // one writer, no busy errors, and a small footprint
	s := &Store{db}
	if err := s.migrate(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	return s, nil
}

func (s *Store) migrate(ctx context.Context) error {
	var have int
	if err := s.db.QueryRowContext(ctx, "pragma user_version").Scan(&have); err != nil {
		return err
	}
	if have > len(migrations) {
		return fmt.Errorf("it was written by a newer Tenfold (format %d, this one knows %d)", have, len(migrations))
	}
	for i := have; i < len(migrations); i++ {
		if err := s.tx(ctx, func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, migrations[i]); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, fmt.Sprintf("pragma user_version = %d", i+1))
			return err
		}); err != nil {
			return fmt.Errorf("migrate to format %d: %w", i+1, err)
		}
	}
	return nil
}

func (s *Store) tx(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// Close closes the database.
func (s *Store) Close() error { return s.db.Close() }

// Environment is what should run and what does, by revision.
type Environment struct {
	App, Env      string
	Goal, Serving int64
	Changed       time.Time
}

// Environments lists all, by app and name.
func (s *Store) Environments(ctx context.Context) ([]Environment, error) {
	return query(ctx, s, func(rows *sql.Rows) (e Environment, err error) {
		var at int64
		err = rows.Scan(&e.App, &e.Env, &e.Goal, &e.Serving, &at)
		e.Changed = time.UnixMicro(at)
		return e, err
	}, "select app, env, goal, serving, changed from environments order by app, env")
}

// Revision is one deployed state of an environment.
type Revision struct {
	App, Env string
	Revision int64
	Created  time.Time
	Dir      string // where its sources were
	Manifest []byte // as written by the user, or as inferred
	Document []byte // the App as JSON
	State    string // pending, serving, failed, superseded
	Reason   string
	Actor    string
	Label    string // "a41f9c2 checkout: totals"
	Origin   int64  // the revision that this one rolled back to; 0: none
}

const revisionColumns = "app, env, revision, created, dir, manifest, document, state, reason, actor, label, origin"

func scanRevision(rows *sql.Rows) (r Revision, err error) {
	var at int64
	err = rows.Scan(&r.App, &r.Env, &r.Revision, &at, &r.Dir, &r.Manifest, &r.Document, &r.State, &r.Reason, &r.Actor, &r.Label, &r.Origin)
	r.Created = time.UnixMicro(at)
	return r, err
}

// AddRevision numbers r, stores it and makes it the goal of its environment, in one transaction. The
// audit log counts too: an environment that was forgotten and is made again never repeats a number, by
// which tiers and caches know what they have.
// document is made once the number is known.
func (s *Store) AddRevision(ctx context.Context, r Revision, document func(revision int64) ([]byte, error)) (int64, error) {
	err := s.tx(ctx, func(tx *sql.Tx) error {
		row := tx.QueryRowContext(ctx, `select coalesce(max(revision), 0) + 1 from (
			select revision from revisions where app = ?1 and env = ?2 union all select revision from audit where app = ?1 and env = ?2)`, r.App, r.Env)
		if err := row.Scan(&r.Revision); err != nil {
			return err
		}
		var err error
		if r.Document, err = document(r.Revision); err != nil {
			return err
		}
		now := r.Created.UnixMicro()
		if _, err := tx.ExecContext(ctx, "insert into revisions ("+revisionColumns+") values (?,?,?,?,?,?,?,?,?,?,?,?)",
			r.App, r.Env, r.Revision, now, r.Dir, r.Manifest, r.Document, r.State, r.Reason, r.Actor, r.Label, r.Origin); err != nil {
			return err
		}
		return setGoal(ctx, tx, r.App, r.Env, r.Revision, now)
	})
	if err != nil {
		return 0, fmt.Errorf("add revision of %s/%s: %w", r.App, r.Env, err)
	}
	return r.Revision, nil
}

func setGoal(ctx context.Context, tx *sql.Tx, app, env string, revision, now int64) error {
	_, err := tx.ExecContext(ctx, `insert into environments (app, env, goal, changed) values (?, ?, ?, ?)
		on conflict (app, env) do update set goal = excluded.goal, changed = excluded.changed`, app, env, revision, now)
	return err
}

// SetGoal makes revision what the loop pursues; 0 means that nothing should run.
func (s *Store) SetGoal(ctx context.Context, app, env string, revision int64, now time.Time) error {
	if err := s.tx(ctx, func(tx *sql.Tx) error { return setGoal(ctx, tx, app, env, revision, now.UnixMicro()) }); err != nil {
		return fmt.Errorf("set goal of %s/%s to revision %d: %w", app, env, revision, err)
	}
	return nil
}

// GiveUp records that a revision failed and makes an earlier one (0: none) the goal again, at once: whoever
// sees the other goal sees the failure too. Of one that served, the earlier one serves again from now on: a
// revision that fails next must not go back to what was given up.
func (s *Store) GiveUp(ctx context.Context, app, env string, revision, back int64, reason string, now time.Time) error {
	err := s.tx(ctx, func(tx *sql.Tx) error {
		if err := setGoal(ctx, tx, app, env, back, now.UnixMicro()); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "update revisions set state = 'failed', reason = ? where app = ? and env = ? and revision = ?", reason, app, env, revision); err != nil {
			return err
		}
		served, err := tx.ExecContext(ctx, "update environments set serving = ? where app = ? and env = ? and serving = ?", back, app, env, revision)
		if err != nil {
			return err
		}
		if n, err := served.RowsAffected(); err != nil || n == 0 {
			return err
		}
		_, err = tx.ExecContext(ctx, "update revisions set state = 'serving' where app = ? and env = ? and revision = ?", app, env, back)
		return err
	})
	if err != nil {
		return fmt.Errorf("give up revision %d of %s/%s: %w", revision, app, env, err)
	}
	return nil
}

// Serve records that a revision serves; the one before is superseded.
func (s *Store) Serve(ctx context.Context, app, env string, revision int64) error {
	err := s.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "update revisions set state = 'superseded' where app = ? and env = ? and state = 'serving'", app, env); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "update environments set serving = ? where app = ? and env = ?", revision, app, env); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "update revisions set state = 'serving', reason = '' where app = ? and env = ? and revision = ?", app, env, revision)
		return err
	})
	if err != nil {
		return fmt.Errorf("let revision %d of %s/%s serve: %w", revision, app, env, err)
	}
	return nil
}

// Revision returns one; ErrNotFound when there is none.
func (s *Store) Revision(ctx context.Context, app, env string, revision int64) (Revision, error) {
	rs, err := query(ctx, s, scanRevision, "select "+revisionColumns+" from revisions where app = ? and env = ? and revision = ?", app, env, revision)
	if err != nil {
		return Revision{}, err
	}
	if len(rs) == 0 {
		return Revision{}, fmt.Errorf("revision %d of %s/%s: %w", revision, app, env, ErrNotFound)
	}
	return rs[0], nil
}

// Revisions lists those of an environment, newest first, at most limit.
func (s *Store) Revisions(ctx context.Context, app, env string, limit int) ([]Revision, error) {
	return query(ctx, s, scanRevision, "select "+revisionColumns+" from revisions where app = ? and env = ? order by revision desc limit ?", app, env, limit)
}

// Forget removes an environment with its revisions, events and bounds. The audit log stays.
func (s *Store) Forget(ctx context.Context, app, env string) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		for _, table := range []string{"environments", "revisions", "events", "scale"} {
			if _, err := tx.ExecContext(ctx, "delete from "+table+" where app = ? and env = ?", app, env); err != nil {
				return fmt.Errorf("forget %s/%s: %w", app, env, err)
			}
		}
		return nil
	})
}

func query[T any](ctx context.Context, s *Store, scan func(*sql.Rows) (T, error), q string, args ...any) ([]T, error) {
	rows, err := s.db.QueryContext(ctx, q, args...)
	if err != nil {
		return nil, fmt.Errorf("query store: %w", err)
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("read store: %w", err)
		}
		out = append(out, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read store: %w", err)
	}
	return out, nil
}
