package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"tenfold"
	"tenfold/internal/dbinfo"
)

// What is small is not worth a word.
const (
	smallIndex = 64 << 10
	smallTable = 10000 // rows: below it, to read all of a table costs nobody anything
	smallWaste = 8 << 20
	wasteShare = 0.3
)

// An inspection is one round of advice over one connection, as superuser in the app's database.
type inspection struct {
	p *Postgres
	r record
	c *pgx.Conn
	dbinfo.Advice
}

// Advice looks at indexes, tables and statements and says what would be better otherwise. It changes
// nothing: whoever reads it does. CodeUnavailable when the database does not run.
func (p *Postgres) Advice(ctx context.Context, id tenfold.ID) (dbinfo.Advice, error) {
	r, err := p.served(id)
	if err != nil {
		return dbinfo.Advice{}, err
	}
	c, err := connect(ctx, r, role(id))
	if err != nil {
		return dbinfo.Advice{}, tenfold.Errorf(tenfold.CodeUnavailable, "%s does not answer: %w", id.Short(), err).WithHint("see its servers: tenfold db nodes")
	}
	defer c.Close(context.WithoutCancel(ctx))
	x := &inspection{p: p, r: r, c: c, Advice: dbinfo.Advice{Findings: []dbinfo.Finding{}}}
	var since *time.Time
	if err := c.QueryRow(ctx, "select stats_reset from pg_stat_database where datname = current_database()").Scan(&since); err != nil {
		return x.Advice, fmt.Errorf("look at %s: %w", id.Short(), err)
	}
	if since != nil {
		x.Since = *since
	}
	for _, look := range []func(context.Context) error{x.missing, x.indexes, x.bloat, x.tables} {
		if err := look(ctx); err != nil {
			return x.Advice, fmt.Errorf("look at %s: %w", id.Short(), err)
		}
	}
	return x.Advice, nil
}

func (x *inspection) add(f dbinfo.Finding) { x.Findings = append(x.Findings, f) }
func (x *inspection) note(format string, args ...any) {
	x.Notes = append(x.Notes, fmt.Sprintf(format, args...))
}

// each calls f for every row, scanned into places.
func each(rows pgx.Rows, err error, places []any, f func() error) error {
	if err != nil {
		return err
	}
	_, err = pgx.ForEachRow(rows, places, f)
	return err
}

// indexes finds those that no server uses and those that no server can use.
func (x *inspection) indexes(ctx context.Context) error {
	used := map[uint32]bool{} // by readers, which count for themselves
	for _, n := range x.r.staying() {
		if n.Stage != stageReady {
			continue
		}
		if err := x.used(ctx, n, used); err != nil {
			x.note("reader %d was not asked which indexes it uses (%v): one that is unused may be in use there", n.N, err)
		}
	}
	rows, err := x.c.Query(ctx, `select s.indexrelid, format('%I.%I', s.schemaname, s.relname), format('%I.%I', s.schemaname, s.indexrelname), pg_relation_size(s.indexrelid), i.indisvalid, pg_get_indexdef(s.indexrelid)
		from pg_stat_user_indexes s join pg_index i using (indexrelid)
		where not i.indisvalid or s.idx_scan = 0 and not i.indisunique and not i.indisexclusion and not i.indisreplident and pg_relation_size(s.indexrelid) >= $1
			and not exists (select from pg_constraint where conindid = s.indexrelid) and not exists (select from pg_inherits where inhrelid = s.indexrelid)
		order by i.indisvalid, pg_relation_size(s.indexrelid) desc`, smallIndex)
	var oid uint32
	var table, index, definition string
	var bytes int64
	var valid bool
	return each(rows, err, []any{&oid, &table, &index, &bytes, &valid, &definition}, func() error {
		f := dbinfo.Finding{Kind: dbinfo.UnusedIndex, On: index, Bytes: bytes, Why: "no statement has used it since statistics began, and each write to " + table + " keeps it up", Do: "drop index concurrently " + index}
		if !valid {
			f.Kind, f.Why, f.Do = dbinfo.InvalidIndex, "it was not finished: no statement can use it, and each write to "+table+" keeps it up", "drop index concurrently "+index+"; "+definition
		}
		if valid && used[oid] {
			return nil
		}
		x.add(f)
		return nil
	})
}

// used notes which indexes a reader has used.
func (x *inspection) used(ctx context.Context, n node, into map[uint32]bool) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	c, err := dial(ctx, n.Port, x.r.Super, role(x.r.ID))
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	rows, err := c.Query(ctx, "select indexrelid from pg_stat_user_indexes where idx_scan > 0")
	var oid uint32
	return each(rows, err, []any{&oid}, func() error { into[oid] = true; return nil })
}

// bloat finds tables that are much larger than their rows, by the width of rows in the statistics of
// ANALYZE. pgstattuple knows exactly, and reads all of a table for it.
func (x *inspection) bloat(ctx context.Context) error {
	rows, err := x.c.Query(ctx, `with t as (
			select format('%I.%I', n.nspname, c.relname) as name, greatest(c.reltuples, 0) as rows, c.relpages::float8 as pages, current_setting('block_size')::float8 as page,
				coalesce(substring(array_to_string(c.reloptions, ' ') from 'fillfactor=([0-9]+)')::float8, 100) / 100 as fill,
				24 + case when max(s.null_frac) > 0 then ceil(count(*) / 8.0) else 0 end + sum((1 - s.null_frac) * s.avg_width) as width, count(*) as columns, count(s.attname) as known
			from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
				left join pg_stats s on s.schemaname = n.nspname and s.tablename = c.relname and s.attname = a.attname and not s.inherited
			where c.relkind in ('r', 'm') and n.nspname not in ('pg_catalog', 'information_schema') group by 1, 2, 3, 4, 5)
		select name, (pages * page)::bigint, (greatest(pages - ceil(rows * (4 + ceil(width / 8) * 8) / ((page - 24) * fill)), 0) * page)::bigint as waste from t where known = columns order by waste desc`)
	var name string
	var bytes, waste int64
	return each(rows, err, []any{&name, &bytes, &waste}, func() error {
		if waste >= smallWaste && float64(waste) >= wasteShare*float64(bytes) {
			x.add(dbinfo.Finding{Kind: dbinfo.Bloat, On: name, Bytes: waste, Why: fmt.Sprintf("about %d %% of its %d MB hold no row (an estimate); new rows will fill it, reads pass over it", 100*waste/bytes, bytes>>20), Do: "vacuum (full, analyze) " + name + " -- it locks the table meanwhile; pg_repack does not"})
		}
		return nil
	})
}

// tables finds those that vacuum and analyze do not come to.
func (x *inspection) tables(ctx context.Context) error {
	rows, err := x.c.Query(ctx, `select format('%I.%I', s.schemaname, s.relname), s.n_live_tup, s.n_dead_tup, coalesce(greatest(s.last_vacuum, s.last_autovacuum), 'epoch'), greatest(s.last_analyze, s.last_autoanalyze) is null,
			coalesce((select option_value::boolean from pg_options_to_table(c.reloptions) where option_name = 'autovacuum_enabled'), current_setting('autovacuum')::boolean)
		from pg_stat_user_tables s join pg_class c on c.oid = s.relid where s.n_live_tup + s.n_dead_tup >= $1 order by s.n_dead_tup desc`, smallTable)
	var name string
	var live, dead int64
	var last time.Time
	var unknown, auto bool
	return each(rows, err, []any{&name, &live, &dead, &last, &unknown, &auto}, func() error {
		ago := "never in its statistics"
		if last.Unix() > 0 {
			ago = last.UTC().Format(time.DateTime)
		}
		switch {
		case !auto:
			x.add(dbinfo.Finding{Kind: dbinfo.Vacuum, On: name, Why: fmt.Sprintf("autovacuum is off for it: %d dead rows, last vacuum %s", dead, ago), Do: "alter table " + name + " reset (autovacuum_enabled)"})
		case dead >= smallTable && dead > live/4:
			x.add(dbinfo.Finding{Kind: dbinfo.Vacuum, On: name, Why: fmt.Sprintf("%d dead rows beside %d, last vacuum %s; an old transaction may keep them: tenfold db activity", dead, live, ago), Do: "vacuum (analyze) " + name})
		case unknown:
			x.add(dbinfo.Finding{Kind: dbinfo.Analyze, On: name, Why: fmt.Sprintf("of its %d rows nothing is known: plans for it are guesses", live), Do: "analyze " + name})
		}
		return nil
	})
}
