package daemon

import (
	"context"
	"time"

	"tenfold"
	"tenfold/internal/dbinfo"
)

// Database implements control.API.
func (h *house) Database(ctx context.Context, id tenfold.ID) (dbinfo.Database, error) {
	return h.postgres.Database(ctx, id)
}

// Failover implements control.API.
func (h *house) Failover(ctx context.Context, id tenfold.ID) error {
	if err := h.audit(ctx, id.App, id.Env, "failover", id.Short(), "asked for"); err != nil {
		return err
	}
	return h.postgres.Failover(ctx, id)
}

// Switchover implements control.API.
func (h *house) Switchover(ctx context.Context, id tenfold.ID, node int) error {
	if err := h.audit(ctx, id.App, id.Env, "switchover", id.Short(), "asked for"); err != nil {
		return err
	}
	return h.postgres.Switchover(ctx, id, node)
}

// Sessions implements control.API.
func (h *house) Sessions(ctx context.Context, id tenfold.ID) ([]dbinfo.Session, error) {
	return h.postgres.Sessions(ctx, id)
}

// Locks implements control.API.
func (h *house) Locks(ctx context.Context, id tenfold.ID) ([]dbinfo.Lock, error) {
	return h.postgres.Locks(ctx, id)
}

// Statements implements control.API.
func (h *house) Statements(ctx context.Context, id tenfold.ID, limit int) ([]dbinfo.Statement, error) {
	return h.postgres.Statements(ctx, id, limit)
}

// Plan implements control.API.
func (h *house) Plan(ctx context.Context, id tenfold.ID, sql string, analyze bool) (dbinfo.Plan, error) {
	return h.postgres.Plan(ctx, id, sql, analyze)
}

// Waits implements control.API.
func (h *house) Waits(ctx context.Context, id tenfold.ID) (dbinfo.Waits, error) {
	return h.postgres.Waits(ctx, id)
}

// Advice implements control.API.
func (h *house) Advice(ctx context.Context, id tenfold.ID) (dbinfo.Advice, error) {
	return h.postgres.Advice(ctx, id)
}

// Backup implements control.API.
func (h *house) Backup(ctx context.Context, id tenfold.ID) (dbinfo.Backup, error) {
	return h.postgres.Backup(ctx, id)
}

// Backups implements control.API.
func (h *house) Backups(ctx context.Context, id tenfold.ID) ([]dbinfo.Backup, error) {
	return h.postgres.Backups(ctx, id)
}

// Restore implements control.API.
func (h *house) Restore(ctx context.Context, id tenfold.ID, to time.Time) (tenfold.ID, error) {
	if err := h.audit(ctx, id.App, id.Env, "restore", id.Short(), "asked for, to "+to.Format(time.RFC3339)); err != nil {
		return tenfold.ID{}, err
	}
	return h.postgres.Restore(ctx, id, to)
}

// Clone implements control.API.
func (h *house) Clone(ctx context.Context, id tenfold.ID, name tenfold.Name) (tenfold.ID, error) {
	if err := h.audit(ctx, id.App, id.Env, "clone", id.Short(), "asked for"); err != nil {
		return tenfold.ID{}, err
	}
	return h.postgres.Clone(ctx, id, name)
}
