//go:build scenario

package postgres

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tenfold"
)

func (f *fixture) backedUpOnce(t *testing.T) {
	t.Helper()
	for begun := time.Now(); ; <-time.After(20 * time.Millisecond) {
		if bs, err := f.Backups(t.Context(), id); err == nil && len(bs) > 0 {
			return
		} else if time.Since(begun) > 60*time.Second {
			f.dump(t)
			t.Fatal("no backup is taken", err)
		}
	}
}

// arrived waits until the archive has all that was committed before a moment.
func (f *fixture) arrived(t *testing.T, at time.Time) {
	t.Helper()
	for begun := time.Now(); ; <-time.After(10 * time.Millisecond) {
		r, _ := f.get(id.String())
		s, _ := f.readArchive(id)
		if f.until(r, s).After(at) {
			return
		}
		if time.Since(begun) > 60*time.Second {
			f.dump(t)
			t.Fatalf("the archive ends at %s", f.until(r, s))
		}
	}
}

// open connects to a database by name.
func (f *fixture) openAs(t *testing.T, which tenfold.ID) *pgx.Conn {
	t.Helper()
	url, err := f.Field(t.Context(), which, tenfold.FieldURL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(t.Context()) })
	return c
}

func TestRestoreToAMomentThroughFailoverAndDeath(t *testing.T) {
	f := begin(t)
	f.Postgres = nil
	key := "a secret of many bits"
	f.resolve = func(b tenfold.Binding) (string, error) {
		if b.Version > 1 {
			return "", fs.ErrNotExist
		}
		return key, nil
	}
	stop := f.open(t)
	to := filepath.Join(f.house.Dir, "elsewhere")
	db := tenfold.Database{
		Readers: tenfold.Bounds{Min: 1, Max: 1}, Sync: tenfold.SyncOn,
		Backups: &tenfold.Backups{Keep: 24 * time.Hour, Every: time.Hour, To: to, Key: &tenfold.Binding{From: tenfold.ID{App: "shop", Kind: tenfold.KindSecret, Name: "K"}, Field: tenfold.FieldValue}},
	}
	f.start(t, db)
	f.settled(t, 1)
	f.backedUpOnce(t)
	c := f.connect(t)
	exec := func(sql string) {
		t.Helper()
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("create table t (n serial, at timestamptz default clock_timestamp(), pad text); alter table t alter pad set storage external")
	for range 100 {
		exec("insert into t (pad) select repeat(md5(random()::text), 100) from generate_series(1, 100)") // 32 MB: several segments
	}
	// The daemon is killed while it archives, the primary too, and there is another.
	stop()
	exec("insert into t (pad) values ('while nobody looked')")
	f.open(t)
	if err := f.Failover(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	f.settled(t, 1)
	c = f.connect(t)
	exec("insert into t (pad) values ('on the new primary')")
	var moment time.Time
	var rows int
	if err := c.QueryRow(t.Context(), "select clock_timestamp(), count(*) from t").Scan(&moment, &rows); err != nil || rows != 10_002 {
		t.Fatal(rows, err)
	}
	exec("insert into t (pad) values ('too late')")
	exec("delete from t where n % 2 = 0")
	var left int
	if err := c.QueryRow(t.Context(), "select count(*) from t").Scan(&left); err != nil {
		t.Fatal(err)
	}
	f.arrived(t, time.Now())

	at := time.Now()
	made, err := f.Restore(t.Context(), id, moment)
	if err != nil {
		f.dump(t)
		t.Fatal(err)
	}
	t.Logf("restored in %s", time.Since(at))
	old := f.openAs(t, made)
	var have int
	var last string
	if err := old.QueryRow(t.Context(), "select count(*), (select pad from t order by n desc limit 1) from t").Scan(&have, &last); err != nil || have != rows || last != "on the new primary" {
		t.Errorf("%s has %d rows, the last is %.40q: %v", made.Name, have, last, err)
	}
	if rs, _ := f.Observe(t.Context()); len(rs) != 1 {
		t.Errorf("the loop sees %+v", rs)
	}
	if err := f.Destroy(t.Context(), made); err != nil {
		t.Error(err)
	}

	// To the end, which is after the last commit.
	made, err = f.Restore(t.Context(), id, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := f.openAs(t, made).QueryRow(t.Context(), "select count(*) from t").Scan(&have); err != nil || have != left {
		t.Errorf("at the end there are %d rows: %v", have, err)
	}

	// A rehearsal proves the newest.
	r, _ := f.get(id.String())
	d, err := f.depot(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	all, _, err := bases(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.drill(t.Context(), r, d, all[0]); err != nil {
		t.Fatal(err)
	}
	if bs, err := f.Backups(t.Context(), id); err != nil || bs[len(bs)-1].Proven.IsZero() || !bs[0].Encrypted {
		t.Errorf("%+v %v", bs, err)
	}
	if rest, _ := filepath.Glob(filepath.Join(f.cfg.Dir, "shop", "production", "*drill*")); len(rest) > 0 {
		t.Errorf("the rehearsal left %q", rest)
	}

	// One that was killed half-way is none, and one with a flipped byte is refused by its name.
	half := filepath.Join(to, "shop", "production", "main-db", "base", "20200101T000000.000Z")
	os.MkdirAll(half, 0o700)
	os.WriteFile(filepath.Join(half, d.Name("data.tar")), []byte("half"), 0o600)
	if bs, err := f.Backups(t.Context(), id); err != nil || len(bs) != len(all) {
		t.Errorf("%d backups, %v", len(bs), err)
	}
	file := filepath.Join(to, "shop", "production", "main-db", "base", all[0].Name, d.Name("data.tar"))
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = f.Restore(t.Context(), id, time.Time{})
	if err == nil || !strings.Contains(err.Error(), all[0].Name) || tenfold.HintOf(err) == "" {
		t.Errorf("a flipped byte: %v", err)
	}
	if _, err := f.Restore(t.Context(), id, time.Now().Add(-time.Hour)); tenfold.CodeOf(err) != tenfold.CodeNotFound {
		t.Errorf("before the first backup: %v", err)
	}
}

// With the archive's folder not to be written the database serves on, and says so.
func TestAnArchiveThatCannotBeWritten(t *testing.T) {
	f := begin(t)
	to := filepath.Join(f.house.Dir, "full")
	if err := os.WriteFile(to, nil, 0o600); err != nil { // a file where the folder should be
		t.Fatal(err)
	}
	f.start(t, tenfold.Database{Backups: &tenfold.Backups{Keep: time.Hour, Every: time.Hour, To: to}})
	f.await(t, "ready", ready)
	c := f.connect(t)
	if _, err := c.Exec(t.Context(), "create table t (x text); alter table t alter x set storage external"); err != nil {
		t.Fatal(err)
	}
	for begun := time.Now(); ; <-time.After(20 * time.Millisecond) {
		f.mu.Lock()
		said := strings.Contains(strings.Join(f.texts, "\n"), "the archive of WAL has stopped")
		f.mu.Unlock()
		if said {
			break
		}
		if _, err := c.Exec(t.Context(), "insert into t select repeat(md5(random()::text), 100) from generate_series(1, 200)"); err != nil {
			t.Fatal(err)
		}
		if time.Since(begun) > 30*time.Second {
			t.Fatal("nobody says so")
		}
	}
	if _, err := c.Exec(t.Context(), "insert into t values ('and goes on')"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(to); err != nil {
		t.Fatal(err)
	}
	f.arrived(t, time.Now())
	f.backedUpOnce(t)
}
