package postgres

import (
	"slices"
	"strings"
	"testing"

	"tenfold"
	"tenfold/internal/dbinfo"
)

func TestConditionsOfAFilter(t *testing.T) {
	for filter, want := range map[string][]condition{
		"(t.n = $1)": {{"n", true}},
		"((t.user_id = $1) AND (t.at >= '2026-01-01'::date))":         {{"user_id", true}, {"at", false}},
		"((t.name)::text = 'x'::text)":                                {{"name", true}},
		`((t."Odd name")::text = 'x'::text)`:                          {{`"Odd name"`, true}},
		"(t.n = ANY ('{1,2}'::integer[]))":                            {{"n", true}},
		"(lower(t.name) = 'x'::text)":                                 nil,
		"(t.a = t.b)":                                                 nil,
		"((t.a = 1) OR (t.b = 2))":                                    nil,
		"((t.name ~~ '%x%'::text) AND (NOT t.gone) AND (t.kind = 3))": {{"kind", true}},
	} {
		if got := conditions(filter, "t"); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", filter, got, want)
		}
	}
}

// One database has all that there is to find.
func TestAdvice(t *testing.T) {
	f := begin(t)
	f.start(t, tenfold.Database{})
	f.await(t, "ready", ready)
	c := f.connect(t)
	for _, sql := range []string{
		`create table orders (id int primary key, buyer int, state text, note text)`,
		`insert into orders select g, g / 7, 'paid', 'x' from generate_series(1, 60000) g`,
		`create index by_note on orders (note)`,
		`create unique index on orders (id, note)`, // unused too, and a constraint
		`analyze orders`,
		`create table log (text text) with (autovacuum_enabled = false)`,
		`insert into log select repeat('x', 500) from generate_series(1, 50000) g`,
		`delete from log where ctid < '(2500,0)'`,
		`vacuum analyze log`,
	} {
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Fatal(sql, err)
		}
	}
	for buyer := range 12 {
		if _, err := c.Exec(t.Context(), "select note from orders where buyer = $1 and state = 'paid'", buyer); err != nil {
			t.Fatal(err)
		}
	}
	c.Close(t.Context()) // it hands in its statistics
	var a dbinfo.Advice
	find := func(kind, on string) (dbinfo.Finding, bool) {
		i := slices.IndexFunc(a.Findings, func(x dbinfo.Finding) bool { return x.Kind == kind && x.On == on })
		if i < 0 {
			return dbinfo.Finding{}, false
		}
		return a.Findings[i], true
	}
	f.await(t, "found", func(tenfold.Resource) bool {
		var err error
		if a, err = f.Advice(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		_, some := find(dbinfo.MissingIndex, "public.orders")
		_, more := find(dbinfo.Vacuum, "public.log")
		return some && more
	})
	if m, _ := find(dbinfo.MissingIndex, "public.orders"); m.Do != "create index concurrently on public.orders (buyer, state)" || !strings.Contains(m.Query, "buyer = $1") || !strings.Contains(m.Why, "12 calls") {
		t.Errorf("%+v", m)
	}
	for kind, on := range map[string]string{dbinfo.UnusedIndex: "public.by_note", dbinfo.Bloat: "public.log"} {
		if x, ok := find(kind, on); !ok || x.Bytes == 0 || x.Do == "" || x.Why == "" {
			t.Errorf("no %s of %s: %+v", kind, on, a.Findings)
		}
	}
	if len(a.Findings) != 4 {
		t.Errorf("more than there is: %+v", a.Findings)
	}
	superuser, err := connect(t.Context(), f.records.All()[id.String()].whole(), role(id))
	if err != nil {
		t.Fatal(err)
	}
	defer superuser.Close(t.Context())
	var there bool
	if err := superuser.QueryRow(t.Context(), "select exists (select from pg_available_extensions where name = 'hypopg')").Scan(&there); err != nil {
		t.Fatal(err)
	}
	if said := strings.Contains(strings.Join(a.Notes, "\n"), "hypopg is not installed"); said == there {
		t.Errorf("hypopg is there: %v; notes: %q", there, a.Notes)
	}
	// As it is proposed, it helps, and there is nothing to propose.
	m, _ := find(dbinfo.MissingIndex, "public.orders")
	if _, err := superuser.Exec(t.Context(), m.Do); err != nil {
		t.Fatal(err)
	}
	if plan, err := f.Plan(t.Context(), id, m.Query, false); err != nil || !strings.Contains(plan.Text, "Index") {
		t.Errorf("%v %v", plan, err)
	}
	if a, err = f.Advice(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, still := find(dbinfo.MissingIndex, "public.orders"); still {
		t.Error("what is there is proposed again")
	}
}
