package postgres

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tenfold"
)

func refused(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && pe.Code == "28P01"
}

func TestRotateRefusesTheOldPasswordAndCutsNobody(t *testing.T) {
	f := begin(t)
	f.Postgres = nil
	stop := f.open(t)
	if err := f.Rotate(t.Context(), id); tenfold.CodeOf(err) != tenfold.CodeNotFound || tenfold.HintOf(err) == "" {
		t.Errorf("of a database that is not there: %v", err)
	}
	f.start(t, tenfold.Database{})
	f.await(t, "ready", ready)
	open := f.connect(t)
	old, _ := f.Field(t.Context(), id, tenfold.FieldURL)
	clone, err := f.Clone(t.Context(), id, "copy")
	if err != nil {
		t.Fatal(err)
	}
	check := func() string {
		t.Helper()
		url, _ := f.Field(t.Context(), id, tenfold.FieldURL)
		c, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		c.Close(t.Context())
		if _, err := pgx.Connect(t.Context(), old); url == old || !refused(err) {
			t.Errorf("the old password: %v", err)
		}
		if err := open.Ping(t.Context()); err != nil {
			t.Errorf("a connection that was open: %v", err)
		}
		return url
	}
	if err := f.Rotate(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	old = check()
	theirs, _ := f.Field(t.Context(), clone, tenfold.FieldURL)
	if c, err := pgx.Connect(t.Context(), theirs); err != nil {
		t.Errorf("the copy: %v", err)
	} else {
		c.Close(t.Context())
	}

	// The daemon dies when the record knows the next password: the one after it goes on.
	stop()
	key := id.String()
	if err := f.records.Change(key, func(x *record) { x.Next = password() }); err != nil {
		t.Fatal(err)
	}
	f.open(t)
	f.await(t, "rotated", func(r tenfold.Resource) bool {
		now, _ := f.get(key)
		return ready(r) && now.Next == ""
	})
	check()

	superuser, err := connect(t.Context(), f.records.All()[key].whole(), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer superuser.Close(t.Context())
	now, _ := f.get(key)
	var kept int
	if err := superuser.QueryRow(t.Context(), "select count(*) from pg_stat_statements where strpos(query, $1) > 0", now.Password).Scan(&kept); err != nil || kept != 0 {
		t.Errorf("statistics have the password: %v", err)
	}
}
