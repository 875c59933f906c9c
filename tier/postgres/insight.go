package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tenfold"
	"tenfold/internal/dbinfo"
	"tenfold/internal/keeper"
)

// Database says which servers hold a database and how each is. CodeUnavailable when it does not run.
func (p *Postgres) Database(ctx context.Context, id tenfold.ID) (dbinfo.Database, error) {
	r, err := p.served(id)
	if err != nil {
		return dbinfo.Database{}, err
	}
	key := id.String()
	units, err := p.status(ctx, key)
	if err != nil {
		return dbinfo.Database{}, err
	}
	v, err := p.see(ctx, key, r)
	if err != nil {
		return dbinfo.Database{}, err
	}
	lag, _ := p.lag(ctx, r) // without a primary there is none
	out := dbinfo.Database{Name: role(id), Version: r.Version, Epoch: r.Epoch, Sync: r.Spec.Sync, Safe: r.Armed}
	if out.Sync == "" {
		out.Sync = tenfold.SyncOff
	}
	for _, k := range slices.Sorted(maps.Keys(r.Alarms)) {
		out.Alarms = append(out.Alarms, r.Alarms[k])
	}
	if r.Upgrade != nil {
		told := r.Upgrade.Told
		out.Upgrade = &told
	}
	for _, n := range r.Nodes {
		s := v.Nodes[n.N]
		x := dbinfo.Node{N: n.N, Role: "reader", Addr: address(n.Port), PID: units[n.N].PID, Lag: -1, State: stateOf(r, n, s)}
		if n.N == r.Primary {
			x.Role, x.Lag = "primary", 0
		}
		if l, ok := lag[n.N]; ok {
			x.Lag = l
		}
		for _, m := range r.Sync {
			x.Sync = x.Sync || m == n.N
		}
		out.Nodes = append(out.Nodes, x)
	}
	return out, nil
}

func stateOf(r record, n node, s sight) string {
	switch {
	case n.N == r.Primary && s.Answers && !s.Recovery:
		return "serving"
	case n.N == r.Primary && s.Answers:
		return "being promoted"
	case n.Leaving:
		return "leaving"
	case n.Stage == stageNew:
		return "cloning"
	case n.Stage == stageRejoin:
		return "rejoining"
	case s.Streaming:
		return "following"
	case s.Unit == keeper.Running:
		return "starting"
	}
	return "down"
}

// Sessions lists who is connected to the app's database, the busiest first.
func (p *Postgres) Sessions(ctx context.Context, id tenfold.ID) ([]dbinfo.Session, error) {
	out := []dbinfo.Session{}
	err := p.rows(ctx, id, `select pid, coalesce(usename, ''), application_name, coalesce(state, ''), coalesce(wait_event_type || ': ' || wait_event, ''),
			coalesce(extract(epoch from now() - coalesce(xact_start, state_change)), 0)::float8, query
		from pg_stat_activity where datname = $1 and backend_type = 'client backend' and pid <> pg_backend_pid()
		order by state = 'active' desc, xact_start nulls last, pid`, func(rows pgx.Rows) error {
		var s dbinfo.Session
		var age float64
		err := rows.Scan(&s.PID, &s.User, &s.App, &s.State, &s.Wait, &age, &s.Query)
		s.Age = seconds(age)
		if s.State != "active" && s.Wait == "Client: ClientRead" {
			s.Wait = ""
		}
		out = append(out, s)
		return err
	}, role(id))
	return out, err
}

// Locks lists who waits for whom, the longest wait first.
func (p *Postgres) Locks(ctx context.Context, id tenfold.ID) ([]dbinfo.Lock, error) {
	sessions, err := p.Sessions(ctx, id)
	if err != nil {
		return nil, err
	}
	by := map[int]dbinfo.Session{}
	for _, s := range sessions {
		by[s.PID] = s
	}
	out := []dbinfo.Lock{}
	err = p.rows(ctx, id, `select a.pid, coalesce(a.usename, ''), coalesce(extract(epoch from now() - a.query_start), 0)::float8,
			coalesce(l.locktype || coalesce(' ' || c.relname, '') || ', ' || l.mode, ''), a.query, pg_blocking_pids(a.pid)
		from pg_stat_activity a left join lateral (select * from pg_locks l where l.pid = a.pid and not l.granted limit 1) l on true left join pg_class c on c.oid = l.relation
		where a.datname = $1 and cardinality(pg_blocking_pids(a.pid)) > 0 order by a.query_start`, func(rows pgx.Rows) error {
		var l dbinfo.Lock
		var waits float64
		var holders []int32
		err := rows.Scan(&l.PID, &l.User, &waits, &l.Lock, &l.Query, &holders)
		l.Waits = seconds(waits)
		for _, pid := range holders {
			s, ok := by[int(pid)]
			if !ok {
				s = dbinfo.Session{PID: int(pid)}
			}
			l.Holders = append(l.Holders, s)
		}
		out = append(out, l)
		return err
	}, role(id))
	return out, err
}

// Statements lists what took most time since statistics began, at most limit (0: 20). CodeMissing when
// the server was started without pg_stat_statements.
func (p *Postgres) Statements(ctx context.Context, id tenfold.ID, limit int) ([]dbinfo.Statement, error) {
	if limit <= 0 {
		limit = 20
	}
	out := []dbinfo.Statement{}
	err := p.rows(ctx, id, `select query, calls, total_exec_time::float8, mean_exec_time::float8, rows, coalesce(shared_blks_hit::float8 / nullif(shared_blks_hit + shared_blks_read, 0), -1)
		from pg_stat_statements where dbid = (select oid from pg_database where datname = $1) and userid <> (select oid from pg_roles where rolname = current_user)
		order by total_exec_time desc limit $2`, func(rows pgx.Rows) error {
		var s dbinfo.Statement
		var total, mean float64
		err := rows.Scan(&s.Query, &s.Calls, &total, &mean, &s.Rows, &s.Hit)
		s.Total, s.Mean = seconds(total/1000), seconds(mean/1000)
		out = append(out, s)
		return err
	}, role(id), limit)
	var pe *pgconn.PgError
	if errors.As(err, &pe) && (pe.Code == "42P01" || pe.Code == "55000") {
		return nil, tenfold.Errorf(tenfold.CodeMissing, "%s counts no statements: it was started without pg_stat_statements", id.Short()).
			WithHint("it is loaded at the next start; at once: tenfold db switchover, or tenfold down and tenfold up")
	}
	return out, err
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// rows asks the primary as superuser, in the database that has the statistics of all.
func (p *Postgres) rows(ctx context.Context, id tenfold.ID, sql string, scan func(pgx.Rows) error, args ...any) error {
	r, err := p.served(id)
	if err != nil {
		return err
	}
	c, err := connect(ctx, r, "postgres")
	if err != nil {
		return tenfold.Errorf(tenfold.CodeUnavailable, "%s does not answer: %w", id.Short(), err).WithHint("see its servers: tenfold db nodes")
	}
	defer c.Close(context.WithoutCancel(ctx))
	rows, err := c.Query(ctx, sql, args...)
	if err != nil {
		return fmt.Errorf("ask %s: %w", id.Short(), err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return fmt.Errorf("ask %s: %w", id.Short(), err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("ask %s: %w", id.Short(), err)
	}
	return nil
}
