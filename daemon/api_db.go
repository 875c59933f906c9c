package daemon

import (
	"context"
	"fmt"
	"slices"
	"time"

	"tenfold"
	"tenfold/control"
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

// Rotate implements control.API.
func (h *house) Rotate(ctx context.Context, id tenfold.ID) (dbinfo.Rotation, error) {
	return h.rotate(ctx, id, h.postgres.Rotate)
}

// rotate changes the passwords of a store and restarts those that have one.
func (h *house) rotate(ctx context.Context, id tenfold.ID, change func(context.Context, tenfold.ID) error) (dbinfo.Rotation, error) {
	out := dbinfo.Rotation{Restarted: []string{}}
	env, err := h.environment(ctx, control.Env{App: id.App, Env: id.Env})
	if err != nil {
		return out, err
	}
	if err := h.audit(ctx, id.App, id.Env, "rotate", id.Short(), "asked for"); err != nil {
		return out, err
	}
	if err := change(ctx, id); err != nil || env.Goal == 0 {
		return out, err
	}
	app, err := h.app(ctx, env.App, env.Env, env.Goal)
	if err != nil {
		return out, err
	}
	for _, name := range holders(app, id, tenfold.FieldPassword, tenfold.FieldURL, tenfold.FieldReadURL) {
		if err := h.compute.Restart(ctx, app.ID(tenfold.KindService, name)); err != nil {
			return out, fmt.Errorf("restart %s: %w", name, err)
		}
		out.Restarted = append(out.Restarted, string(name))
	}
	for _, name := range functionHolders(app, id, tenfold.FieldPassword, tenfold.FieldURL, tenfold.FieldReadURL) {
		out.Restarted = append(out.Restarted, string(name))
	}
	h.function.Refresh()
	return out, nil
}

// holders are the services, and frontends with a server, that are given one of these facts of a resource.
func holders(app tenfold.App, id tenfold.ID, fields ...tenfold.Field) (out []tenfold.Name) {
	for name, s := range app.Services {
		if told(s.Bindings, id, fields) {
			out = append(out, name)
		}
	}
	for name, f := range app.Frontends {
		if f.Server != nil && told(f.Server.Bindings, id, fields) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// functionHolders are the functions that are.
func functionHolders(app tenfold.App, id tenfold.ID, fields ...tenfold.Field) (out []tenfold.Name) {
	for name, f := range app.Functions {
		if told(f.Bindings, id, fields) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func told(bs []tenfold.Binding, id tenfold.ID, fields []tenfold.Field) bool {
	return slices.ContainsFunc(bs, func(b tenfold.Binding) bool { return b.From == id && slices.Contains(fields, b.Field) })
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
