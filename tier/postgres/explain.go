package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tenfold"
	"tenfold/internal/dbinfo"
)

// How long a statement may run, or wait for a lock, to be explained.
const (
	analyzeLimit = 30 * time.Second
	lockLimit    = 2 * time.Second
)

// Plan is how PostgreSQL would run a statement, as the app's role; with analyze it does run it, in a
// read-only transaction that is rolled back. Parameters ($1) are left open: the plan is then the one for
// any value. CodeInvalid for what is no query, and with analyze for what writes, locks rows or has
// parameters.
//
// The statement is never put into a text of ours: it is prepared by the protocol, which takes one and no
// more, and PostgreSQL's own parser says what it is. To look for words such as "insert" in it, the obvious
// way, is wrong about both comments and functions.
func (p *Postgres) Plan(ctx context.Context, id tenfold.ID, sql string, analyze bool) (dbinfo.Plan, error) {
	r, err := p.served(id)
	if err != nil {
		return dbinfo.Plan{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, analyzeLimit+5*time.Second)
	defer cancel()
	c, err := asApp(ctx, r)
	if err != nil {
		return dbinfo.Plan{}, tenfold.Errorf(tenfold.CodeUnavailable, "%s does not answer: %w", id.Short(), err).WithHint("see its servers: tenfold db nodes")
	}
	defer c.Close(context.WithoutCancel(ctx))
	tx, err := c.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return dbinfo.Plan{}, fmt.Errorf("explain: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	for k, v := range map[string]time.Duration{"statement_timeout": analyzeLimit, "lock_timeout": lockLimit} {
		if _, err := tx.Exec(ctx, fmt.Sprintf("set local %s = %d", k, v.Milliseconds())); err != nil {
			return dbinfo.Plan{}, fmt.Errorf("explain: %w", err)
		}
	}
	q, err := question(ctx, tx, sql)
	if err != nil {
		return dbinfo.Plan{}, err
	}
	options := "costs"
	if analyze {
		if err := q.runnable(); err != nil {
			return dbinfo.Plan{}, err
		}
		options = "analyze, buffers"
	}
	rows, _ := tx.Query(ctx, "explain ("+options+") "+q.execute)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return dbinfo.Plan{}, refusal(err)
	}
	return dbinfo.Plan{Text: strings.Join(lines, "\n"), Ran: analyze}, nil
}

// asApp connects to the primary as the app's role.
func asApp(ctx context.Context, r record) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return pgx.Connect(ctx, dsn(r.port(), role(r.ID), r.Password, role(r.ID))+"&application_name=tenfold&default_query_exec_mode=exec")
}

// asked is a statement that the server has prepared and planned, and not run.
type asked struct {
	execute string // what to explain
	params  int
	fields  int
	plan    planNode
}

// planNode is a part of a plan, as far as we read it.
type planNode struct {
	Kind   string     `json:"Node Type"`
	Schema string     `json:"Schema"`
	Table  string     `json:"Relation Name"`
	Alias  string     `json:"Alias"`
	Filter string     `json:"Filter"`
	Cost   float64    `json:"Total Cost"`
	Plans  []planNode `json:"Plans"`
}

// walk calls f for a node and all below it.
func (n planNode) walk(f func(planNode)) {
	f(n)
	for _, x := range n.Plans {
		x.walk(f)
	}
}

const preparedName = "tenfold_explain"

// question has a statement prepared and planned.
func question(ctx context.Context, tx pgx.Tx, sql string) (asked, error) {
	made, err := tx.Conn().PgConn().Prepare(ctx, preparedName, sql, nil)
	if err != nil {
		return asked{}, refusal(err)
	}
	q := asked{execute: "execute " + preparedName, params: len(made.ParamOIDs), fields: len(made.Fields)}
	if q.params > 0 {
		q.execute += "(null" + strings.Repeat(", null", q.params-1) + ")"
		if _, err := tx.Exec(ctx, "set local plan_cache_mode = force_generic_plan"); err != nil {
			return q, fmt.Errorf("explain: %w", err)
		}
	}
	q.plan, err = q.planned(ctx, tx)
	return q, err
}

// planned is the plan as the server makes it now.
func (q asked) planned(ctx context.Context, tx pgx.Tx) (planNode, error) {
	var text []byte
	if err := tx.QueryRow(ctx, "explain (verbose, format json) "+q.execute).Scan(&text); err != nil {
		return planNode{}, refusal(err)
	}
	var plans []struct{ Plan planNode }
	if err := json.Unmarshal(text, &plans); err != nil || len(plans) == 0 || plans[0].Plan.Kind == "" {
		return planNode{}, tenfold.Errorf(tenfold.CodeInvalid, "that is no query, so there is no plan for it").WithHint("give one statement: tenfold db explain 'select …'")
	}
	return plans[0].Plan, nil
}

// runnable refuses what would do more than read.
func (q asked) runnable() error {
	const hint = "leave --analyze out: the plan is made without running it"
	fault := ""
	q.plan.walk(func(n planNode) {
		switch n.Kind {
		case "ModifyTable":
			fault = "it writes"
		case "LockRows":
			fault = "it locks rows (for update, for share)"
		}
	})
	switch {
	case fault != "":
		return tenfold.Errorf(tenfold.CodeInvalid, "it is not run: %s", fault).WithHint(hint)
	case q.fields == 0: // select into, create table as
		return tenfold.Errorf(tenfold.CodeInvalid, "it is not run: it gives no rows, so it may make something").WithHint(hint)
	case q.params > 0:
		return tenfold.Errorf(tenfold.CodeInvalid, "it is not run: it has parameters").WithHint("write values for $1 to $%d, or leave --analyze out", q.params)
	}
	return nil
}

// refusal says what the server had against a statement.
func refusal(err error) error {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return fmt.Errorf("explain: %w", err)
	}
	switch pe.Code {
	case "25006":
		return tenfold.Errorf(tenfold.CodeInvalid, "it is not run: it writes (%s)", pe.Message).WithHint("leave --analyze out: the plan is made without running it")
	case "57014", "55P03":
		return tenfold.Errorf(tenfold.CodeFailed, "it was ended: %s", pe.Message).WithHint("it may run for %s and wait for a lock for %s; leave --analyze out", analyzeLimit, lockLimit)
	}
	text := pe.Message
	if pe.Hint != "" {
		text += " (" + pe.Hint + ")"
	}
	return tenfold.Errorf(tenfold.CodeInvalid, "PostgreSQL does not take it: %s", text).WithHint("give one statement, as the app's role sees it: tenfold db psql tries it")
}
