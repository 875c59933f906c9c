package postgres

import (
	"context"
	"strconv"

	"tenfold"
	"tenfold/internal/engines"
)

// Command is how to run a program of PostgreSQL ("psql", "pg_dump", "pg_restore") on a database as
// the app's role. Address and password stand in env, for libpq: an argument list is for all to read.
// CodeUnavailable before the first start, CodeMissing when the engine came without the program.
func (p *Postgres) Command(ctx context.Context, id tenfold.ID, tool string) (argv, env []string, err error) {
	r, ok := p.get(id.String())
	if !ok || r.port() == 0 {
		return nil, nil, tenfold.Errorf(tenfold.CodeUnavailable, "%s has not been started", id.Short()).WithHint("tenfold up")
	}
	e, err := p.engine(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	program := e.Tool(tool)
	if program == "" {
		// Another major's client will do: psql speaks to any server, a newer pg_dump to older ones.
		for _, other := range engines.AllPostgres(ctx, p.cfg.Engines) {
			if other.Major >= e.Major && program == "" {
				program = other.Tool(tool)
			}
		}
	}
	if program == "" {
		return nil, nil, tenfold.Errorf(tenfold.CodeMissing, "%s is not installed: PostgreSQL %s came without it", tool, e.Version).WithHint("apt-get install postgresql-client")
	}
	return []string{program}, []string{
		"PGHOST=127.0.0.1", "PGPORT=" + strconv.Itoa(r.port()), "PGUSER=" + role(id), "PGPASSWORD=" + r.Password, "PGDATABASE=" + role(id), "PGSSLMODE=disable",
	}, nil
}
