package postgres

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"tenfold"
)

func TestNamesThatTheServerHasAreKeptApart(t *testing.T) {
	for name, want := range map[tenfold.Name]string{"main-db": "main_db", "postgres": "app_postgres", "tenfold": "app_tenfold", "pg-x": "app_pg_x"} {
		if got := role(tenfold.ID{Name: name}); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// A name that begins another's: the keeper lists units by prefix.
func TestTwoDatabasesOfOneApp(t *testing.T) {
	f := begin(t)
	want, err := f.Desired(tenfold.App{Name: "shop", Env: "production", Databases: map[tenfold.Name]tenfold.Database{"postgres": {}, "postgres2": {}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		if err := f.Apply(t.Context(), tenfold.Step{Verb: tenfold.VerbStart, Want: w}); err != nil {
			t.Fatal(err)
		}
	}
	for _, w := range want {
		f.await(t, "ready", func(r tenfold.Resource) bool { return r.ID == w.ID && ready(r) })
	}
	before, err := f.house.List(t.Context(), unitPrefix)
	if err != nil || len(before) != 2 {
		t.Fatal(before, err)
	}
	for _, w := range want {
		f.pursue(t.Context(), w.ID.String())
		url, err := f.Field(t.Context(), w.ID, tenfold.FieldURL)
		if err != nil {
			t.Fatal(err)
		}
		c, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Exec(t.Context(), "create table t (n int)"); err != nil {
			t.Error(err)
		}
		c.Close(t.Context())
	}
	after, _ := f.house.List(t.Context(), unitPrefix)
	for i := range after {
		if after[i].PID != before[i].PID {
			t.Errorf("%s was started again", after[i].Unit.ID)
		}
	}

	argv, env, err := f.Command(t.Context(), want[0].ID, "psql")
	if tenfold.CodeOf(err) == tenfold.CodeMissing {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), argv[0], "-Atc", "select current_user")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != role(want[0].ID) {
		t.Fatalf("%s %v", out, err)
	}
}
