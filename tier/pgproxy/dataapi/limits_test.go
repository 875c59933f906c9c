package dataapi

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"tenfold/internal/enginetest"
)

// server answers over a real PostgreSQL.
func server(t *testing.T, cfg Config) *Server {
	dsn := enginetest.Postgres(t)
	cfg.Open = func(ctx context.Context, _ string) (*pgconn.PgConn, error) { return pgconn.Connect(ctx, dsn) }
	s := New(cfg)
	t.Cleanup(s.Close)
	return s
}

func code(err error) string {
	var f *fault
	if errors.As(err, &f) {
		return f.code
	}
	return ""
}

func TestTransactionsEndByThemselves(t *testing.T) {
	for name, cfg := range map[string]Config{"idle": {Idle: time.Millisecond}, "life": {Life: time.Millisecond}} {
		s := server(t, cfg)
		out, err := s.begin(t.Context(), "api", nil)
		if err != nil {
			t.Fatal(err)
		}
		id := out.(map[string]string)["transactionId"]
		for {
			x, err := s.take("api", id)
			if err == nil { // asked too early: it counts from there again
				s.back(x)
				continue
			}
			if code(err) != "TransactionNotFoundException" {
				t.Fatal(name, err)
			}
			break
		}
	}
}

func TestStatementsEndOrGoOn(t *testing.T) {
	s := server(t, Config{Limit: 50 * time.Millisecond})
	for _, on := range []string{"true", "false"} {
		table := "made_" + on
		sql := "create table " + table + " as select 1 as n from pg_sleep(0.5)"
		_, err := s.execute(t.Context(), "api", []byte(`{"sql": "`+sql+`", "continueAfterTimeout": `+on+`}`))
		if code(err) != "StatementTimeoutException" {
			t.Fatal(err)
		}
	}
	s.work.Wait()
	has := func(table string) bool {
		c, err := s.cfg.Open(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer closeConn(c)
		_, err = c.Exec(t.Context(), "select from "+table).ReadAll()
		return err == nil
	}
	if !has("made_true") || has("made_false") {
		t.Error("one that was to go on did not, or one that was not did")
	}
}
