//go:build scenario

package postgres

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tenfold"
	"tenfold/internal/atomicfile"
)

// What an earlier Tenfold made goes on as it is, and becomes a cluster without a restart.
func TestAnOldDatabaseGetsAReaderAndLosesIt(t *testing.T) {
	f := begin(t)
	f.Postgres = nil
	stop := f.open(t)
	f.start(t, tenfold.Database{})
	f.await(t, "ready", ready)
	first := f.pid(t, 1)
	if _, err := f.connect(t).Exec(t.Context(), "create table t (n int); insert into t values (42)"); err != nil {
		t.Fatal(err)
	}
	stop()
	file := filepath.Join(f.house.Dir, "pg", "goals", strings.ReplaceAll(id.String(), "/", "~")+".json")
	var old map[string]any
	if err := atomicfile.ReadJSON(file, &old); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"nodes", "primary", "epoch"} {
		delete(old, k)
	}
	if err := atomicfile.WriteJSON(file, old, 0o600); err != nil {
		t.Fatal(err)
	}
	f.open(t)
	f.await(t, "ready", ready)

	f.start(t, tenfold.Database{Readers: tenfold.Bounds{Min: 1, Max: 2}})
	f.settled(t, 1)
	if f.pid(t, 1) != first {
		t.Error("the primary was started again for a reader")
	}
	url, err := f.Field(t.Context(), id, tenfold.FieldReadURL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	var n int
	var recovery bool
	if err := c.QueryRow(t.Context(), "select n, pg_is_in_recovery() from t").Scan(&n, &recovery); err != nil || n != 42 || !recovery {
		t.Fatal(n, recovery, err)
	}
	if d := f.Pool(); len(d) != 1 || d[0].Epoch != 1 || len(d[0].Readers) != 1 || d[0].Primary == "" || d[0].Primary == d[0].Readers[0].Addr {
		t.Errorf("the pool is told %+v", d)
	} else {
		for _, addr := range []string{d[0].Primary, d[0].Readers[0].Addr} {
			conf := c.Config().Copy()
			conf.Host, conf.TLSConfig, conf.Fallbacks = filepath.Dir(d[0].Sockets[addr]), nil, nil
			port, _ := strings.CutPrefix(filepath.Ext(d[0].Sockets[addr]), ".")
			n, _ := strconv.Atoi(port)
			conf.Port = uint16(n)
			near, err := pgx.ConnectConfig(t.Context(), conf)
			if err != nil {
				t.Fatalf("by the socket of %s, %q: %v", addr, d[0].Sockets[addr], err)
			}
			var reader, local bool
			if err := near.QueryRow(t.Context(), "select pg_is_in_recovery(), inet_server_addr() is null").Scan(&reader, &local); err != nil || !local || reader != (addr != d[0].Primary) {
				t.Errorf("by the socket of %s: a reader %v, local %v, %v", addr, reader, local, err)
			}
			near.Close(t.Context())
			if fi, err := os.Stat(filepath.Dir(d[0].Sockets[addr])); err != nil || fi.Mode().Perm() != 0o700 {
				t.Errorf("others pass to the socket: %v, %v", fi.Mode(), err)
			}
		}
	}

	// A setting that needs a restart gets one, at both; one that is wrong is refused and the old one runs on.
	f.start(t, tenfold.Database{Readers: tenfold.Bounds{Min: 1, Max: 1}, Settings: map[string]string{"max_connections": "50"}})
	f.settled(t, 1)
	if f.pid(t, 1) == first {
		t.Error("max_connections changed without a restart")
	}
	second := f.pid(t, 1)
	f.start(t, tenfold.Database{Readers: tenfold.Bounds{Min: 1, Max: 1}, Settings: map[string]string{"work_mem": "much"}})
	r := f.await(t, "failed", func(r tenfold.Resource) bool { return r.State == tenfold.StateFailed && r.Failed == r.Goal })
	if !strings.Contains(r.Reason, "work_mem") || f.pid(t, 1) != second {
		t.Errorf("%q", r.Reason)
	}

	f.start(t, tenfold.Database{})
	f.settled(t, 0)
	if _, err := os.Stat(f.homeOf(id, 2)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the reader's folder is still there: %v", err)
	}
	syscall.Kill(f.pid(t, 1), syscall.SIGKILL)
	f.await(t, "restarted", func(tenfold.Resource) bool {
		all, _ := f.status(t.Context(), id.String())
		return all[1].PID != 0 && all[1].PID != second && f.Pool()[0].Primary != ""
	})
	if now, _ := f.get(id.String()); now.Epoch != 1 {
		t.Errorf("without readers the epoch is %d", now.Epoch)
	}
}

// The daemon is killed after the record names the new primary and before anything else was done.
func TestAFailoverGoesOnFromTheRecord(t *testing.T) {
	f := begin(t)
	f.Postgres = nil
	stop := f.open(t)
	f.start(t, tenfold.Database{Readers: tenfold.Bounds{Min: 1, Max: 1}})
	f.settled(t, 1)
	w := f.write(t)
	w.more(t, 20)
	w.stop()
	<-w.done
	rec, _ := f.get(id.String())
	c, err := connect(t.Context(), rec, "postgres") // the app's role is not told how far readers are
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	for { // asynchronous: the last commits may be on their way
		var there int
		if err := c.QueryRow(t.Context(), "select count(*) from pg_stat_replication where replay_lsn >= pg_current_wal_lsn()").Scan(&there); err != nil {
			t.Fatal(err)
		}
		if there == 1 { // one that has not said yet how far it is does not count
			break
		}
	}
	stop()
	killAll(f.dataOf(id, 1))
	file := filepath.Join(f.house.Dir, "pg", "goals", strings.ReplaceAll(id.String(), "/", "~")+".json")
	var r record
	if err := atomicfile.ReadJSON(file, &r); err != nil {
		t.Fatal(err)
	}
	r.Epoch, r.Primary = 2, 2
	r.edit(1, func(n *node) { n.Stage = stageRejoin })
	if err := atomicfile.WriteJSON(file, r, 0o600); err != nil {
		t.Fatal(err)
	}
	f.open(t)
	f.settled(t, 1)
	if lost := w.lost(t); len(lost) > 0 {
		t.Errorf("lost: %v", lost)
	}
	if yes, err := f.recovering(t.Context(), r, 1); err != nil || !yes {
		t.Errorf("the old primary is no reader: %v", err)
	}
}

func TestSwitchoverThereAndBackLosesNothing(t *testing.T) {
	f := begin(t)
	f.start(t, tenfold.Database{Readers: tenfold.Bounds{Min: 1, Max: 1}})
	if err := f.Switchover(t.Context(), id, 0); tenfold.HintOf(err) == "" {
		t.Errorf("with nothing there: %v", err)
	}
	f.settled(t, 1)
	w := f.write(t)
	var gaps []time.Duration
	for _, to := range []int{2, 1} {
		w.more(t, 20)
		at := time.Now()
		if err := f.Switchover(t.Context(), id, to); err != nil {
			f.dump(t)
			t.Fatal(err)
		}
		gaps = append(gaps, time.Since(at))
		w.more(t, 20)
		if r := f.settled(t, 1); r.Primary != to {
			t.Fatalf("node %d is the primary", r.Primary)
		}
	}
	if lost := w.lost(t); len(lost) > 0 {
		t.Errorf("%d of %d are lost", len(lost), len(w.acked))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.ContainsFunc(f.texts, func(s string) bool { return strings.Contains(s, "rewound") || strings.Contains(s, "anew") }) {
		t.Errorf("a node that was shut down in order did not simply follow: %q", f.texts)
	}
	t.Logf("took %v", gaps)
}

// An asynchronous failover may lose what was under way; how much is counted.
func TestFailoverWithoutSyncIsQuickAndCounted(t *testing.T) {
	f := begin(t)
	f.start(t, tenfold.Database{Readers: tenfold.Bounds{Min: 1, Max: 1}})
	f.settled(t, 1)
	w := f.write(t)
	w.more(t, 50)
	at := time.Now()
	if err := f.Failover(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	w.more(t, 20)
	took := time.Unix(0, w.moved.Load()).Sub(at)
	if r := f.settled(t, 1); r.Epoch != 2 || r.Primary != 2 {
		t.Errorf("%+v", r.cluster)
	}
	t.Logf("writes again after %s; %d of %d acknowledged commits lost", took, len(w.lost(t)), len(w.acked))
}

func TestACloneIsACopyOfItsOwn(t *testing.T) {
	f := begin(t)
	f.start(t, tenfold.Database{})
	f.await(t, "ready", ready)
	c := f.connect(t)
	if _, err := c.Exec(t.Context(), "create table t as select 42 n"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Clone(t.Context(), id, "../away"); tenfold.CodeOf(err) != tenfold.CodeInvalid {
		t.Errorf("a name that leads away: %v", err)
	}
	made, err := f.Clone(t.Context(), id, "")
	if err != nil {
		t.Fatal(err)
	}
	copied := f.openAs(t, made)
	var n int
	if err := copied.QueryRow(t.Context(), "select n from t").Scan(&n); err != nil || n != 42 {
		t.Fatal(n, err)
	}
	if _, err := copied.Exec(t.Context(), "update t set n = 1"); err != nil {
		t.Fatal(err)
	}
	if err := c.QueryRow(t.Context(), "select n from t").Scan(&n); err != nil || n != 42 {
		t.Errorf("the old one has %d: %v", n, err)
	}
	if _, err := f.Clone(t.Context(), id, made.Name); tenfold.CodeOf(err) != tenfold.CodeConflict {
		t.Errorf("a name that is taken: %v", err)
	}

	// It stops with the database that it is of, and written into the manifest it stays.
	if err := f.Apply(t.Context(), tenfold.Step{Verb: tenfold.VerbStop, Want: tenfold.Resource{ID: id}}); err != nil {
		t.Fatal(err)
	}
	f.await(t, "stopped", func(r tenfold.Resource) bool {
		all, _ := f.house.List(t.Context(), unitPrefix)
		return r.State == tenfold.StateStopped && len(all) == 0
	})
	want, err := f.Desired(tenfold.App{Name: "shop", Env: "production", Databases: map[tenfold.Name]tenfold.Database{made.Name: {}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Apply(t.Context(), tenfold.Step{Verb: tenfold.VerbStart, Want: want[0]}); err != nil {
		t.Fatal(err)
	}
	f.await(t, "ready", func(r tenfold.Resource) bool { return r.ID == made && ready(r) })
	if err := f.openAs(t, made).QueryRow(t.Context(), "select n from t").Scan(&n); err != nil || n != 1 {
		t.Error(n, err)
	}
}
