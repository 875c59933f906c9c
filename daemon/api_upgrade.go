package daemon

import (
	"context"
	"fmt"
	"time"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/dbinfo"
	"tenfold/tier/postgres"
)

// UpgradeDatabase implements control.API.
func (h *house) UpgradeDatabase(ctx context.Context, id tenfold.ID, q control.UpgradeQuestion) (dbinfo.Upgrade, error) {
	what := fmt.Sprintf("asked for, to PostgreSQL %d", q.To)
	if q.To == 0 {
		what = "asked for, to the release that is installed"
	}
	if q.Rehearse {
		what += ", a rehearsal"
	}
	if err := h.audit(ctx, id.App, id.Env, "upgrade", id.Short(), what); err != nil {
		return dbinfo.Upgrade{}, err
	}
	if q.To == 0 {
		return h.postgres.UpgradeMinor(ctx, id)
	}
	return h.postgres.Upgrade(ctx, id, q.To, postgres.UpgradeOptions{Rehearse: q.Rehearse, Keep: q.Keep})
}

// RestartDatabase implements control.API.
func (h *house) RestartDatabase(ctx context.Context, id tenfold.ID) (time.Duration, error) {
	if err := h.audit(ctx, id.App, id.Env, "restart", id.Short(), "asked for"); err != nil {
		return 0, err
	}
	return h.postgres.Restart(ctx, id)
}

// UpgradeBack implements control.API.
func (h *house) UpgradeBack(ctx context.Context, id tenfold.ID) (dbinfo.Upgrade, error) {
	if err := h.audit(ctx, id.App, id.Env, "upgrade", id.Short(), "asked to go back"); err != nil {
		return dbinfo.Upgrade{}, err
	}
	return h.postgres.Back(ctx, id)
}

// UpgradeFinish implements control.API.
func (h *house) UpgradeFinish(ctx context.Context, id tenfold.ID) error {
	if err := h.audit(ctx, id.App, id.Env, "upgrade", id.Short(), "asked to finish: the old data is removed"); err != nil {
		return err
	}
	return h.postgres.Finish(ctx, id)
}
