package postgres

import (
	"strings"
	"testing"

	"tenfold"
)

// What is explained is never what is done.
func TestPlansAreMadeAndNothingIsWritten(t *testing.T) {
	f := begin(t)
	f.start(t, tenfold.Database{})
	f.await(t, "ready", ready)
	c := f.connect(t)
	if _, err := c.Exec(t.Context(), `create table t (n int primary key, text text); insert into t select g, 'x' from generate_series(1, 1000) g; analyze t;
		create function sly() returns int language plpgsql as $$ begin insert into t values (-1); return 1; end $$;
		create sequence s`); err != nil {
		t.Fatal(err)
	}
	for sql, part := range map[string]string{
		"select * from t where n = 7":                              "Index",
		"select * from t where n = $1 and text = $2":               "Index",
		"/* select */ with x as (select 1 a) table x;":             "Result",
		"update t set n = 0":                                       "Update on t",
		"with gone as (delete from t returning n) select * from t": "Delete on t",
		"values (1)":       "Result",
		"select sly()":     "Result",
		"select 1 into t2": "Result",
	} {
		got, err := f.Plan(t.Context(), id, sql, false)
		if err != nil || !strings.Contains(got.Text, part) || !strings.Contains(got.Text, "cost=") || got.Ran {
			t.Errorf("%s: %+v %v", sql, got, err)
		}
	}
	if got, err := f.Plan(t.Context(), id, "select count(*) from t where n < 10", true); err != nil || !strings.Contains(got.Text, "actual") || !got.Ran {
		t.Errorf("%+v %v", got, err)
	}
	for sql, part := range map[string]string{
		"update t set n = 0 returning n":                                 "it writes",
		"with gone as (delete from t returning n) select * from t":       "it writes",
		"select * from t for update":                                     "locks rows",
		"select 1 into t2":                                               "gives no rows",
		"create table t3 as select 1":                                    "gives no rows",
		"select sly()":                                                   "it writes",
		"select nextval('s')":                                            "it writes",
		"select set_config('transaction_read_only', 'off', true), sly()": "read-write mode must be set before",
		"select * from t where n = $1":                                   "parameters",
		"drop table t":                                                   "no query",
		"commit":                                                         "no query",
		"select 1; drop table t":                                         "multiple commands",
		"explain select 1":                                               "no query",
		"selec 1":                                                        "syntax error",
		"":                                                               "no query",
	} {
		_, err := f.Plan(t.Context(), id, sql, true)
		if tenfold.CodeOf(err) != tenfold.CodeInvalid || !strings.Contains(err.Error(), part) || tenfold.HintOf(err) == "" {
			t.Errorf("%q: %v", sql, err)
		}
	}
	var n, least, tables int
	if err := c.QueryRow(t.Context(), "select count(*), min(n), (select count(*) from pg_class where relname in ('t2', 't3')) from t").Scan(&n, &least, &tables); err != nil || n != 1000 || least != 1 || tables != 0 {
		t.Errorf("%d rows from %d, %d tables more: %v", n, least, tables, err)
	}
}
