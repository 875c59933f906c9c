//go:build scenario

package postgres

import (
	"strings"
	"testing"

	"tenfold"
)

// A preview's database begins as production's is, and what it does stays its own.
func TestAnEnvironmentBeginsAsACopyOfAnother(t *testing.T) {
	f := begin(t)
	preview := id
	preview.Env = "preview/cart"
	ask := func() {
		t.Helper()
		want, err := f.Desired(tenfold.App{Name: "shop", Env: preview.Env, Databases: map[tenfold.Name]tenfold.Database{id.Name: {Clone: "production"}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Apply(t.Context(), tenfold.Step{Verb: tenfold.VerbStart, Want: want[0]}); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	failed := f.await(t, "failed", func(r tenfold.Resource) bool { return r.ID == preview && r.State == tenfold.StateFailed })
	if !strings.Contains(failed.Reason, "which does not run") || failed.Hint == "" {
		t.Errorf("without production: %q, %q", failed.Reason, failed.Hint)
	}
	f.start(t, tenfold.Database{})
	f.await(t, "ready", func(r tenfold.Resource) bool { return r.ID == id && ready(r) })
	c := f.connect(t)
	if _, err := c.Exec(t.Context(), "create table t as select 42 n"); err != nil {
		t.Fatal(err)
	}
	ask()
	f.await(t, "ready", func(r tenfold.Resource) bool { return r.ID == preview && ready(r) })
	copied := f.openAs(t, preview)
	var n int
	if err := copied.QueryRow(t.Context(), "update t set n = n + 1 returning n").Scan(&n); err != nil || n != 43 {
		t.Fatal(n, err)
	}
	if err := c.QueryRow(t.Context(), "select n from t").Scan(&n); err != nil || n != 42 {
		t.Errorf("production has %d: %v", n, err)
	}
	theirs, _ := f.Field(t.Context(), id, tenfold.FieldPassword)
	if own, _ := f.Field(t.Context(), preview, tenfold.FieldPassword); own == theirs {
		t.Error("production's password opens the preview")
	}
	// It stays what it is when it starts again.
	if err := f.Apply(t.Context(), tenfold.Step{Verb: tenfold.VerbStop, Want: tenfold.Resource{ID: preview}}); err != nil {
		t.Fatal(err)
	}
	f.await(t, "stopped", func(r tenfold.Resource) bool { return r.ID == preview && r.State == tenfold.StateStopped })
	ask()
	f.await(t, "ready", func(r tenfold.Resource) bool { return r.ID == preview && ready(r) })
	if err := f.openAs(t, preview).QueryRow(t.Context(), "select n from t").Scan(&n); err != nil || n != 43 {
		t.Fatal(n, err)
	}
}
