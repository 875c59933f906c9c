package postgres

import (
	"testing"

	"tenfold"
)

// A database that no manifest ever named is none that does not run: starting the app would not help.
func TestADatabaseThatThereNeverWasIsNotFound(t *testing.T) {
	p, err := New(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Database(t.Context(), tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindDatabase, Name: "nope"})
	if tenfold.CodeOf(err) != tenfold.CodeNotFound {
		t.Errorf("%v", err)
	}
}
