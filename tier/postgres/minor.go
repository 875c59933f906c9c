package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"tenfold"
	"tenfold/internal/dbinfo"
)

// Minor releases: the program on disk was replaced by a newer one of its major, and a server runs by the old one
// until it is started again.

// outdated says which release is installed when the primary runs by another of the same major; "": by that one.
func (p *Postgres) outdated(ctx context.Context, r record) (string, error) {
	e, err := p.engine(ctx, r)
	if err != nil || r.Version == "" || e.Version == r.Version {
		return "", err
	}
	return e.Version, nil
}

// UpgradeMinor brings a database to the release of its major that is installed: by a switchover where a reader
// follows, else by a restart. Clients of the pool are held either way.
func (p *Postgres) UpgradeMinor(ctx context.Context, id tenfold.ID) (dbinfo.Upgrade, error) {
	key := id.String()
	r, err := p.served(id)
	if err != nil {
		return dbinfo.Upgrade{}, err
	}
	told := dbinfo.Upgrade{Database: string(id.Name), From: r.Version, To: r.Version, Begun: time.Now().UTC()}
	to, err := p.outdated(ctx, r)
	if err != nil || to == "" {
		return told, err
	}
	told.To = to
	held, how, err := p.renew(ctx, key, "PostgreSQL "+to)
	if err != nil {
		return told, err
	}
	told.Pause, told.Total = held, time.Since(told.Begun)
	told.Steps = []dbinfo.UpgradeStep{{What: how, Took: held}}
	return told, nil
}

// renew starts every server of a database again: the readers first, then one of them takes over. Without a
// reader that can, the primary is restarted where it is.
func (p *Postgres) renew(ctx context.Context, key, why string) (held time.Duration, how string, err error) {
	r, _ := p.get(key)
	best, loose, err := p.successor(ctx, r.ID, 0)
	if err != nil {
		return 0, "", err
	}
	if best == 0 && !loose {
		held, err = p.restart(ctx, key, why)
		return held, "a restart: clients were held", err
	}
	for _, n := range r.staying() {
		if err := p.renewReader(ctx, key, n.N); err != nil {
			return 0, "", err
		}
	}
	begun := time.Now()
	if err := p.Switchover(ctx, r.ID, 0); err != nil {
		return 0, "", err
	}
	held = time.Since(begun)
	now, _ := p.get(key)
	var version string
	if err := p.ask(ctx, now, now.Primary, func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, "select split_part(current_setting('server_version'), ' ', 1)").Scan(&version)
	}); err != nil {
		return 0, "", err
	}
	if err := p.records.Change(key, func(x *record) { x.Version = version }); err != nil {
		return 0, "", err
	}
	return held, fmt.Sprintf("a switchover to a reader that runs %s: the most that clients were held", why), nil
}

// renewReader starts a reader again and returns when it follows.
func (p *Postgres) renewReader(ctx context.Context, key string, n int) error {
	begun := time.Now()
	if err := p.cfg.Units.Remove(ctx, unitOf(key, n)); err != nil {
		return err
	}
	p.unlink(key, n)
	p.wake()
	if err := until(ctx, startLimit, func(ctx context.Context) (bool, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.greeted[place{key, n}].After(begun), nil
	}); err != nil {
		return fmt.Errorf("restart reader %d: %w", n, err)
	}
	return nil
}
