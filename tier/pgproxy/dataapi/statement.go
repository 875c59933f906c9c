package dataapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

type executeRequest struct {
	target
	SQL        string        `json:"sql"`
	Parameters []parameter   `json:"parameters"`
	Metadata   bool          `json:"includeResultMetadata"`
	Continue   bool          `json:"continueAfterTimeout"`
	Options    resultOptions `json:"resultSetOptions"`
	Format     string        `json:"formatRecordsAs"`
}

type resultOptions struct {
	Decimal string `json:"decimalReturnType"`
	Long    string `json:"longReturnType"`
}

type executeResponse struct {
	Records   *[][]field `json:"records,omitempty"`
	Columns   []column   `json:"columnMetadata,omitempty"`
	Updated   int64      `json:"numberOfRecordsUpdated"`
	Generated []field    `json:"generatedFields"`
	Formatted string     `json:"formattedRecords,omitempty"`
}

// execute is ExecuteStatement.
func (s *Server) execute(ctx context.Context, who caller, body []byte) (any, error) {
	var q executeRequest
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, bad("the request is no JSON of this operation: %v", err)
	}
	if err := q.check(); err != nil {
		return nil, err
	}
	sql, names := rewrite(q.SQL)
	args, err := arrange(names, q.Parameters)
	if err != nil {
		return nil, err
	}
	return s.run(ctx, who, q.Transaction, q.Continue, func(ctx context.Context, c *pgconn.PgConn) (any, error) {
		return q.do(ctx, c, sql, args)
	})
}

func (q *executeRequest) check() error {
	in := func(name, v string, allowed ...string) error {
		if v == "" {
			return nil
		}
		for _, a := range allowed {
			if v == a {
				return nil
			}
		}
		return bad("%s is none of %v", name, allowed)
	}
	if q.SQL == "" {
		return bad("sql is required")
	}
	return errors.Join(in("formatRecordsAs", q.Format, "NONE", "JSON"), in("decimalReturnType", q.Options.Decimal, "STRING", "DOUBLE_OR_LONG"), in("longReturnType", q.Options.Long, "STRING", "LONG"))
}

// do runs a statement and reads what comes back.
func (q *executeRequest) do(ctx context.Context, c *pgconn.PgConn, sql string, args []bound) (any, error) {
	values, oids, formats := spread(args)
	rr := c.ExecParams(ctx, sql, values, oids, formats, nil)
	d := decoder{options: q.Options}
	size := 0
	for rr.NextRow() {
		if d.fields == nil {
			d.describe(rr.FieldDescriptions())
		}
		for _, v := range rr.Values() {
			size += len(v)
		}
		if size > maxResponse {
			c.CancelRequest(ctx) // the rest is not worth its time
			rr.Close()
			return nil, tooLarge()
		}
		if err := d.row(rr.Values()); err != nil {
			rr.Close()
			return nil, err
		}
	}
	d.describe(rr.FieldDescriptions())
	tag, err := rr.Close()
	if err != nil {
		return nil, err
	}
	out := executeResponse{Generated: []field{}}
	if !tag.Select() {
		out.Updated = tag.RowsAffected()
	}
	if len(d.fields) == 0 {
		return out, nil
	}
	if q.Metadata {
		if out.Columns, err = describe(ctx, c, d.fields); err != nil {
			return nil, err
		}
	}
	if q.Format == "JSON" {
		if out.Formatted, err = d.format(); err != nil {
			return nil, err
		}
		return out, nil
	}
	if d.rows == nil {
		d.rows = [][]field{}
	}
	out.Records = &d.rows
	return out, nil
}

func spread(args []bound) (values [][]byte, oids []uint32, formats []int16) {
	for _, a := range args {
		values, oids = append(values, a.value), append(oids, a.oid)
		var f int16
		if a.binary {
			f = 1
		}
		formats = append(formats, f)
	}
	return values, oids, formats
}

type batchRequest struct {
	target
	SQL  string        `json:"sql"`
	Sets [][]parameter `json:"parameterSets"`
}

// batch is BatchExecuteStatement: all sets in one transaction.
func (s *Server) batch(ctx context.Context, who caller, body []byte) (any, error) {
	var q batchRequest
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, bad("the request is no JSON of this operation: %v", err)
	}
	if q.SQL == "" {
		return nil, bad("sql is required")
	}
	sql, names := rewrite(q.SQL)
	if len(q.Sets) == 0 {
		q.Sets = [][]parameter{nil}
	}
	var b pgconn.Batch
	for _, set := range q.Sets {
		args, err := arrange(names, set)
		if err != nil {
			return nil, err
		}
		values, oids, formats := spread(args)
		b.ExecParams(sql, values, oids, formats, nil)
	}
	type result struct {
		Generated []field `json:"generatedFields"`
	}
	return s.run(ctx, who, q.Transaction, false, func(ctx context.Context, c *pgconn.PgConn) (any, error) {
		if err := c.ExecBatch(ctx, &b).Close(); err != nil {
			return nil, err
		}
		results := make([]result, len(q.Sets))
		for i := range results {
			results[i].Generated = []field{}
		}
		return map[string]any{"updateResults": results}, nil
	})
}

// run gives a connection to do: that of a transaction, or one for this call. When the time is up the
// caller is told so, and what runs is ended unless it is to go on.
func (s *Server) run(ctx context.Context, who caller, id string, on bool, do func(context.Context, *pgconn.PgConn) (any, error)) (any, error) {
	var t *transaction
	var c *pgconn.PgConn
	var err error
	if id != "" {
		if t, err = s.take(who, id); err != nil {
			return nil, err
		}
		c = t.conn
	} else if c, err = s.cfg.Open(ctx, string(who)); err != nil {
		return nil, err
	}
	type outcome struct {
		answer any
		err    error
	}
	life, cancel := context.WithCancel(s.life)
	done := make(chan outcome, 1)
	pid := c.PID()
	s.mu.Lock()
	if s.life.Err() != nil {
		s.mu.Unlock()
		cancel()
		s.release(t, c)
		return nil, &fault{status: http.StatusServiceUnavailable, code: "ServiceUnavailableError", message: "the endpoint is being replaced: ask again"}
	}
	s.work.Go(func() { // ends with its statement, at the latest with s.life
		defer cancel()
		answer, err := do(life, c)
		s.release(t, c)
		done <- outcome{answer, err}
	})
	s.mu.Unlock()
	limit := time.NewTimer(s.cfg.Limit)
	defer limit.Stop()
	select {
	case o := <-done:
		return o.answer, o.err
	case <-ctx.Done():
		if !on {
			cancel()
			<-done
		}
		return nil, ctx.Err()
	case <-limit.C:
	}
	if !on {
		cancel()
		<-done
	}
	return nil, &fault{status: http.StatusBadRequest, code: "StatementTimeoutException", message: "Request timed out", conn: pid}
}

// release ends a connection that was for one call, and gives a transaction back.
func (s *Server) release(t *transaction, c *pgconn.PgConn) {
	if t != nil {
		s.back(t)
		return
	}
	closeConn(c)
}

// closeConn says goodbye; what is open is rolled back by that.
func closeConn(c *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c.Close(ctx)
}
