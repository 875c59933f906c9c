package postgres

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tenfold"
)

// What the pool's query cache needs of a server comes with the key, and goes with it.
func TestQueryCacheMayFollowItsOwnDatabaseOnly(t *testing.T) {
	f := begin(t)
	f.start(t, tenfold.Database{})
	f.await(t, "ready", ready)
	follow := func() (level string, database, whole error) {
		t.Helper()
		url, _ := f.Field(t.Context(), id, tenfold.FieldURL)
		c, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(t.Context())
		if err := c.QueryRow(t.Context(), "show wal_level").Scan(&level); err != nil {
			t.Fatal(err)
		}
		as := func(replication string) error {
			r, err := pgconn.Connect(t.Context(), url+"&replication="+replication)
			if err != nil {
				return err
			}
			defer r.Close(t.Context())
			_, err = r.Exec(t.Context(), "CREATE_REPLICATION_SLOT probe TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT").ReadAll()
			return err
		}
		return level, as("database"), as("true")
	}
	if level, database, _ := follow(); level != "replica" || database == nil {
		t.Errorf("without the cache: %s, %v", level, database)
	}
	f.start(t, tenfold.Database{Proxy: tenfold.Proxy{Cache: true}})
	f.await(t, "ready with the cache", ready)
	if level, database, whole := follow(); level != "logical" || database != nil || whole == nil {
		t.Errorf("with the cache: %s, %v, of the whole server: %v", level, database, whole)
	}
	f.start(t, tenfold.Database{})
	f.await(t, "ready again", ready)
	if level, database, _ := follow(); level != "replica" || database == nil {
		t.Errorf("without it again: %s, %v", level, database)
	}
}
