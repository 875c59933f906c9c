package postgres

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tenfold"
	"tenfold/internal/freeport"
	"tenfold/internal/keeper"
)

// How a server is watched and restarted.
const (
	startLimit   = 60 * time.Second // to the first answer; recovery after a crash may take as long
	answerPace   = 10 * time.Millisecond
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 10 * time.Second
)

// pursue brings one database nearer to its goal.
func (p *Postgres) pursue(ctx context.Context, key string) time.Duration {
	r, ok := p.records.Get(key)
	if !ok || ctx.Err() != nil {
		return 0
	}
	if r.Stopped {
		if err := p.cfg.Units.Remove(ctx, unitPrefix+key); err != nil {
			return time.Second
		}
		return time.Minute
	}
	if r.Failed == r.Goal {
		return time.Minute
	}
	if err := p.serve(ctx, key, r); err != nil {
		if ctx.Err() != nil {
			return 0
		}
		if r.Serving != r.Goal && definite(err) {
			p.fail(key, r, err)
		}
		return p.later(key)
	}
	p.mu.Lock()
	delete(p.backoff, key)
	p.healthy[key] = time.Now()
	p.mu.Unlock()
	return 0
}

// later is how long to wait before the next try.
func (p *Postgres) later(key string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.backoff[key] = min(max(2*p.backoff[key], firstBackoff), lastBackoff)
	return p.backoff[key]
}

// definite says that trying again will not help.
func definite(err error) bool {
	var te *tenfold.Error
	return errors.As(err, &te)
}

func (p *Postgres) fail(key string, r record, err error) {
	p.records.Change(key, func(x *record) {
		if x.Goal == r.Goal {
			x.Failed, x.Reason, x.Hint = r.Goal, err.Error(), tenfold.HintOf(err)
		}
	})
	p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityWarning, Text: "database not started: " + err.Error()})
}

// serve makes sure that the server runs as the record says, and asks it.
func (p *Postgres) serve(ctx context.Context, key string, r record) error {
	status, err := p.status(ctx, key)
	if err != nil {
		return err
	}
	running := len(status) == 1 && status[0].Unit.ID == unitPrefix+key && status[0].Phase == keeper.Running
	if running && r.Serving == r.Goal {
		return ping(ctx, r)
	}
	crashed := len(status) == 1 && status[0].LastExit != nil && !status[0].LastExit.Asked && r.Serving == r.Goal
	begun := time.Now()
	if !crashed && !r.Begun.IsZero() {
		begun = r.Begun
	}
	e, err := p.engine(ctx, r)
	if err != nil {
		return err
	}
	if r, err = p.identify(key, r, e.Version); err != nil {
		return err
	}
	if err := p.initialize(ctx, e, r); err != nil {
		return err
	}
	// A new goal with a running server: settings may have changed, so it starts anew.
	if err := p.cfg.Units.Remove(ctx, unitPrefix+key); err != nil {
		return err
	}
	if err := p.configure(e, r); err != nil {
		return err
	}
	if _, err := p.cfg.Units.Start(ctx, p.unit(e, r)); err != nil {
		return err
	}
	if err := p.await(ctx, key, r); err != nil {
		return err
	}
	if err := populate(ctx, r); err != nil {
		return err
	}
	if err := p.records.Change(key, func(x *record) {
		if x.Goal == r.Goal {
			x.Serving = r.Goal
		}
	}); err != nil {
		return err
	}
	p.mu.Lock()
	p.healthy[key] = time.Now()
	p.mu.Unlock()
	text, severity := fmt.Sprintf("PostgreSQL %s started, role and database made", e.Version), tenfold.SeverityInfo
	if crashed {
		text, severity = fmt.Sprintf("PostgreSQL %s restarted after %s", e.Version, status[0].LastExit.Describe()), tenfold.SeverityWarning
	}
	p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: severity, Text: text, Took: time.Since(begun)})
	return nil
}

// identify gives a record its port and passwords, once.
func (p *Postgres) identify(key string, r record, version string) (record, error) {
	port := r.Port
	if port == 0 {
		var err error
		if port, err = freeport.Pick(); err != nil {
			return r, err
		}
	}
	err := p.records.Change(key, func(x *record) {
		x.Port, x.Version = port, version
		if x.Super == "" {
			x.Super, x.Password = password(), password()
		}
	})
	if err != nil {
		return r, err
	}
	fresh, _ := p.records.Get(key)
	fresh.Goal, fresh.Spec = r.Goal, r.Spec // what this round pursues
	return fresh, nil
}

// await waits for the first answer of a server that was started.
func (p *Postgres) await(ctx context.Context, key string, r record) error {
	begun := time.Now()
	for {
		err := ping(ctx, r)
		if err == nil {
			return nil
		}
		s, lerr := p.status(ctx, key)
		if lerr != nil {
			return lerr
		}
		if len(s) == 1 && s[0].Phase == keeper.Exited && s[0].LastExit != nil {
			lines := keeper.LastLines(p.LogPath(r.ID), begun.Add(-time.Second), 5)
			return tenfold.Errorf(tenfold.CodeFailed, "PostgreSQL ended: %s\n  last output  %s", s[0].LastExit.Describe(), strings.Join(lines, "\n               ")).
				WithHint("its whole log: %s", filepath.Clean(p.LogPath(r.ID)))
		}
		if time.Since(begun) > startLimit {
			return tenfold.Errorf(tenfold.CodeFailed, "PostgreSQL does not answer after %s: %w", startLimit, err).WithHint("its log: %s", p.LogPath(r.ID))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(answerPace):
		}
	}
}

func ping(ctx context.Context, r record) error {
	c, err := connect(ctx, r, "postgres")
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	return c.Ping(ctx)
}

// status is what the keeper says of one database's server: one entry or none. The keeper lists by
// prefix, and "db" is a prefix of "db2".
func (p *Postgres) status(ctx context.Context, key string) ([]keeper.Status, error) {
	all, err := p.cfg.Units.List(ctx, unitPrefix+key)
	return slices.DeleteFunc(all, func(s keeper.Status) bool { return s.Unit.ID != unitPrefix+key }), err
}
