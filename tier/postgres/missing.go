package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tenfold/internal/dbinfo"
)

// Indexes that are missing.
//
// Which tables are read whole is counted by the server; for which statements, only their plans tell. So the
// statements that took most time are planned again, without running them, and where a large table is read
// from end to end for a few of its rows, the columns of the condition are a candidate. hypopg, where it is
// installed, makes it an index that only the planner sees, and the cost with it decides.

const (
	plannedStatements = 100
	plannedLimit      = 20 * time.Second
	worthIt           = 0.5 // of the cost, at most, with the index
)

// scanned is a large table that is read whole.
type scanned struct {
	name         string // quoted
	oid          uint32
	rows         int64
	scans, reads int64
	bytes        int64
	found        bool // a candidate is for it
}

// candidate is an index that might help.
type candidate struct {
	table   *scanned
	columns string
	query   string // that takes most time of those it is for
	most    time.Duration
	took    time.Duration
	calls   int64
	// By hypopg; 0: not measured.
	before, after float64
}

// missing finds tables that are read whole again and again, and what index would spare it.
func (x *inspection) missing(ctx context.Context) error {
	rows, err := x.c.Query(ctx, `select format('%I.%I', schemaname, relname), schemaname || '.' || relname, relid, n_live_tup, seq_scan, seq_tup_read, pg_relation_size(relid)
		from pg_stat_user_tables where seq_scan > 0 and n_live_tup >= $1 and seq_tup_read / seq_scan >= $1 / 2 order by seq_tup_read desc limit 20`, smallTable)
	tables := map[string]*scanned{}
	var t scanned
	var plain string
	if err := each(rows, err, []any{&t.name, &plain, &t.oid, &t.rows, &t.scans, &t.reads, &t.bytes}, func() error {
		one := t
		tables[plain] = &one
		return nil
	}); err != nil {
		return err
	}
	if len(tables) == 0 {
		return nil
	}
	statements, err := x.p.Statements(ctx, x.r.ID, plannedStatements)
	if err != nil {
		x.note("statements are not counted, so that no index is proposed: %v", err)
	}
	found, err := x.candidates(ctx, tables, statements)
	if err != nil {
		return err
	}
	slices.SortFunc(found, func(a, b *candidate) int { return cmp.Compare(b.took, a.took) })
	for _, c := range found[:min(len(found), 20)] {
		why := fmt.Sprintf("%d calls read all of its %d rows, %s in all", c.calls, c.table.rows, c.took.Round(time.Millisecond))
		if c.after > 0 {
			why += fmt.Sprintf("; hypopg: cost %.0f → %.0f", c.before, c.after)
		}
		x.add(dbinfo.Finding{Kind: dbinfo.MissingIndex, On: c.table.name, Bytes: c.table.bytes, Why: why, Do: "create index concurrently on " + c.table.name + " (" + c.columns + ")", Query: c.query})
	}
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		if t := tables[name]; !t.found && t.scans >= 10 {
			x.add(dbinfo.Finding{Kind: dbinfo.WholeReads, On: t.name, Bytes: t.bytes, Why: fmt.Sprintf("read whole %d times, %d rows each", t.scans, t.reads/t.scans), Do: "-- find the statement: tenfold db top, tenfold db explain"})
		}
	}
	return nil
}

// candidates plans statements again, in a transaction that is rolled back.
func (x *inspection) candidates(ctx context.Context, tables map[string]*scanned, statements []dbinfo.Statement) ([]*candidate, error) {
	ctx, cancel := context.WithTimeout(ctx, plannedLimit)
	defer cancel()
	tx, err := x.c.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	hypo, err := x.hypothetical(ctx, tx)
	if err != nil {
		return nil, err
	}
	// From here on as the app's role: names are found and rows hidden as for the app.
	if _, err := tx.Exec(ctx, "set local transaction_read_only = on; set local role "+pgx.Identifier{role(x.r.ID)}.Sanitize()); err != nil {
		return nil, err
	}
	found := map[string]*candidate{}
	for _, s := range statements {
		err := x.weigh(ctx, tx, hypo, tables, s, found)
		if ctx.Err() != nil {
			x.note("not all statements were looked at: it took longer than %s", plannedLimit)
			break
		}
		var pe *pgconn.PgError
		if err != nil && !errors.As(err, &pe) && x.c.IsClosed() {
			return nil, err
		}
		// Others are statements that cannot be planned now: of a table that is gone, say.
	}
	return slices.Collect(maps.Values(found)), nil
}

// hypothetical is the schema, quoted, that hypopg's functions are in; "" when it is not installed. Where
// it is and was not made in this database, it is for the length of the transaction.
func (x *inspection) hypothetical(ctx context.Context, tx pgx.Tx) (schema string, err error) {
	var available bool
	if err := tx.QueryRow(ctx, `select exists (select from pg_available_extensions where name = 'hypopg'),
		coalesce((select quote_ident(n.nspname) from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'hypopg'), '')`).Scan(&available, &schema); err != nil {
		return "", err
	}
	if !available && schema == "" {
		major, _, _ := strings.Cut(x.r.Version, ".")
		x.note("hypopg is not installed, so that proposed indexes are not measured: apt-get install postgresql-%s-hypopg", major)
		return "", nil
	}
	if schema == "" {
		schema = "tenfold_hypopg"
		if _, err := tx.Exec(ctx, "create schema tenfold_hypopg; create extension hypopg schema tenfold_hypopg; grant usage on schema tenfold_hypopg to public"); err != nil {
			return "", err
		}
	}
	return schema, nil
}

// weigh plans one statement and notes the indexes that it could use.
func (x *inspection) weigh(ctx context.Context, outer pgx.Tx, hypo string, tables map[string]*scanned, s dbinfo.Statement, found map[string]*candidate) error {
	tx, err := outer.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() {
		tx.Rollback(ctx)
		x.c.PgConn().Deallocate(ctx, preparedName) // a statement outlives the transaction
	}()
	q, err := question(ctx, tx, s.Query)
	if err != nil {
		return err
	}
	var at []planNode
	q.plan.walk(func(n planNode) {
		if n.Kind == "Seq Scan" && n.Filter != "" && tables[n.Schema+"."+n.Table] != nil {
			at = append(at, n)
		}
	})
	for _, n := range at {
		t := tables[n.Schema+"."+n.Table]
		columns, err := x.selective(ctx, tx, t, conditions(n.Filter, n.Alias))
		if err != nil || columns == "" {
			return err
		}
		c := found[t.name+columns]
		if c == nil {
			c = &candidate{table: t, columns: columns}
			if hypo != "" {
				if c.before, c.after, err = x.measure(ctx, tx, hypo, s.Query, q, t, columns); err != nil {
					return err
				}
				if c.after > worthIt*c.before {
					continue
				}
			}
			found[t.name+columns], t.found = c, true
		}
		c.calls += s.Calls
		if c.took += s.Total; s.Total >= c.most {
			c.most, c.query = s.Total, s.Query
		}
	}
	return nil
}

// measure is a statement's cost without and with an index that only the planner sees.
func (x *inspection) measure(ctx context.Context, tx pgx.Tx, hypo, sql string, q asked, t *scanned, columns string) (before, after float64, err error) {
	if _, err := tx.Exec(ctx, "select "+hypo+".hypopg_create_index($1)", "create index on "+t.name+" ("+columns+")"); err != nil {
		return 0, 0, err
	}
	defer tx.Exec(ctx, "select "+hypo+".hypopg_reset()")
	// A plan for any value is kept: one that knows the index is made anew.
	if err := x.c.PgConn().Deallocate(ctx, preparedName); err != nil {
		return 0, 0, err
	}
	with, err := question(ctx, tx, sql)
	return q.plan.Cost, with.plan.Cost, err
}

// A condition is a column that is compared with a value.
type condition struct {
	column string // quoted as needed
	equal  bool
}

// compared finds, in a filter as EXPLAIN writes it, "(t.n = $1)" and "((t.name)::text >= 'x'::text)".
var compared = regexp.MustCompile(`(?:^|[ (])\({1,2}(?:\w+|"[^"]+")\.(\w+|"[^"]+")\)?(?:::[\w ]+)? (=|<=|>=|<|>) `)

// conditions reads a filter. One with OR has none: no single index serves it.
func conditions(filter, alias string) (out []condition) {
	if strings.Contains(filter, " OR ") || strings.Contains(filter, "NOT (") {
		return nil
	}
	for _, m := range compared.FindAllStringSubmatchIndex(filter, -1) {
		c := condition{column: filter[m[2]:m[3]], equal: filter[m[4]:m[5]] == "="}
		against := strings.TrimLeft(filter[m[1]:], "(")
		if strings.HasPrefix(against, alias+".") || slices.Contains(out, c) { // another column of the row
			continue
		}
		out = append(out, c)
	}
	return out
}

// selective are the columns of an index: those that are compared for equality, the one with most values
// first, and one of a range behind them. "" when they tell few rows apart, or an index begins with the first.
func (x *inspection) selective(ctx context.Context, tx pgx.Tx, t *scanned, cs []condition) (string, error) {
	var equal, ranges []string
	distinct := map[string]float64{}
	for _, c := range cs {
		var n float64
		var leads bool
		err := tx.QueryRow(ctx, `select coalesce((select case when s.n_distinct < 0 then -s.n_distinct * $3::float8 else s.n_distinct end from pg_stats s join pg_namespace n on n.nspname = s.schemaname join pg_class c on c.relnamespace = n.oid and c.relname = s.tablename
				where c.oid = $1::oid and quote_ident(s.attname) = $2 and not s.inherited), 1000)::float8,
			exists (select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0] where i.indrelid = $1::oid and i.indisvalid and quote_ident(a.attname) = $2)`, t.oid, c.column, float64(t.rows)).Scan(&n, &leads)
		if err != nil {
			return "", err
		}
		if leads {
			return "", nil // the planner knows that one and does without
		}
		distinct[c.column] = n
		if c.equal {
			equal = append(equal, c.column)
		} else if !slices.Contains(ranges, c.column) {
			ranges = append(ranges, c.column)
		}
	}
	slices.SortStableFunc(equal, func(a, b string) int { return cmp.Compare(distinct[b], distinct[a]) })
	equal = equal[:min(len(equal), 3)]
	product := 1.0
	for _, c := range equal {
		product *= distinct[c]
	}
	if len(ranges) > 0 && (len(equal) > 0 || distinct[ranges[0]] >= 100) {
		equal = append(equal, ranges[0])
		product *= 10
	}
	if product < 50 {
		return "", nil
	}
	return strings.Join(equal, ", "), nil
}
