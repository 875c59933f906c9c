package postgres

import (
	"context"
	"time"

	"tenfold"
	"tenfold/internal/dbinfo"
)

// Backup takes a base backup now.
func (p *Postgres) Backup(ctx context.Context, id tenfold.ID) (dbinfo.Backup, error) {
	return dbinfo.Backup{}, errNoBackups(id)
}

// Backups lists what can be restored from, the newest first.
func (p *Postgres) Backups(ctx context.Context, id tenfold.ID) ([]dbinfo.Backup, error) {
	return nil, errNoBackups(id)
}

// Restore makes a new database beside the old as it was at a time.
func (p *Postgres) Restore(ctx context.Context, id tenfold.ID, to time.Time) (tenfold.ID, error) {
	return tenfold.ID{}, errNoBackups(id)
}

func errNoBackups(id tenfold.ID) error {
	return tenfold.Errorf(tenfold.CodeConflict, "%s has no backups", id.Short()).WithHint("write backups: 7d under it in tenfold.yaml and deploy")
}
