//go:build scenario

package postgres

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tenfold"
	"tenfold/internal/keeper"
)

// writer inserts one row after another at whoever is the primary, and keeps the acknowledged ones.
type writer struct {
	f     *fixture
	stop  context.CancelFunc
	done  chan struct{}
	acked []int
	count atomic.Int64
	moved atomic.Int64 // when the first was acknowledged by the server in use, in nanoseconds
}

func (f *fixture) write(t *testing.T) *writer {
	t.Helper()
	c := f.connect(t)
	if _, err := c.Exec(t.Context(), "create table if not exists w (n int primary key, epoch int)"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &writer{f: f, stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		var c *pgx.Conn
		var at, from string
		for n := 1; ctx.Err() == nil; n++ {
			if now, _ := f.Field(ctx, id, tenfold.FieldURL); c == nil || now != at || c.IsClosed() {
				if c != nil {
					c.Close(ctx)
				}
				at = now
				limit, stop := context.WithTimeout(ctx, time.Second)
				c, _ = pgx.Connect(limit, at)
				if stop(); c == nil {
					<-time.After(time.Millisecond)
					continue
				}
			}
			// A server that is stopped by a signal keeps its connections: do not wait for it for ever.
			limit, stop := context.WithTimeout(ctx, 12*time.Second)
			_, err := c.Exec(limit, "insert into w values ($1, 0)", n)
			if stop(); err != nil {
				c.Close(ctx)
				c = nil
				continue
			}
			w.acked = append(w.acked, n)
			w.count.Add(1)
			if from != at {
				from = at
				w.moved.Store(time.Now().UnixNano())
			}
		}
		if c != nil {
			c.Close(context.Background())
		}
	}()
	t.Cleanup(func() { cancel(); <-w.done })
	return w
}

// more waits until n more rows are acknowledged.
func (w *writer) more(t *testing.T, n int64) {
	t.Helper()
	from := w.count.Load()
	for begun := time.Now(); w.count.Load() < from+n; <-time.After(time.Millisecond) {
		if time.Since(begun) > 60*time.Second {
			w.f.dump(t)
			t.Fatal("no write is acknowledged")
		}
	}
}

// lost are the acknowledged rows that are not there. The writer has ended.
func (w *writer) lost(t *testing.T) (out []int) {
	t.Helper()
	w.stop()
	<-w.done
	c := w.f.connect(t)
	rows, err := c.Query(t.Context(), "select n from w")
	if err != nil {
		t.Fatal(err)
	}
	have, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		t.Fatal(err)
	}
	there := map[int]bool{}
	for _, n := range have {
		there[n] = true
	}
	for _, n := range w.acked {
		if !there[n] {
			out = append(out, n)
		}
	}
	return out
}

func (f *fixture) dump(t *testing.T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.texts {
		t.Log(s)
	}
	r, _ := f.get(id.String())
	t.Logf("%+v", r.cluster)
	for _, n := range r.Nodes {
		t.Logf("node %d: %v", n.N, keeper.LastLines(f.logOf(r.ID, n.N), time.Time{}, 8))
	}
}

// settled waits until the cluster has so many followers that can be relied on and, with sync, is armed.
func (f *fixture) settled(t *testing.T, readers int) record {
	t.Helper()
	return f.reached(t, readers, true)
}

func (f *fixture) reached(t *testing.T, readers int, sound bool) record {
	t.Helper()
	for begun := time.Now(); ; <-time.After(10 * time.Millisecond) {
		r, _ := f.get(id.String())
		f.Postgres.mu.Lock()
		v := f.seen[id.String()]
		f.Postgres.mu.Unlock()
		follow := 0
		for _, n := range r.staying() {
			if v.Nodes[n.N].Streaming && (n.sound() || !sound) {
				follow++
			}
		}
		if follow == readers && len(r.readers()) == readers && r.Serving == r.Goal && v.Nodes[r.Primary].Answers && (r.Spec.Sync == "" || r.Armed && len(r.Sync) == readers) {
			return r
		}
		if time.Since(begun) > 90*time.Second {
			f.dump(t)
			t.Fatalf("not settled: %d follow, %+v", follow, r.cluster)
		}
	}
}

func (f *fixture) pid(t *testing.T, n int) int {
	t.Helper()
	all, err := f.status(t.Context(), id.String())
	if err != nil || all[n].PID == 0 {
		t.Fatal(all[n], err)
	}
	return all[n].PID
}

var kills = map[string]func(t *testing.T, f *fixture, n int){
	"postmaster": func(t *testing.T, f *fixture, n int) { syscall.Kill(f.pid(t, n), syscall.SIGKILL) },
	"group": func(t *testing.T, f *fixture, n int) {
		f.pid(t, n)
		killAll(f.dataOf(id, n))
	},
	"stopped": func(t *testing.T, f *fixture, n int) { syscall.Kill(f.pid(t, n), syscall.SIGSTOP) },
}

// Deaths of the primary under writes, each way once; FAILOVERS=20 is the figure that is published.
func TestFailoverLosesNoAcknowledgedCommit(t *testing.T) {
	f := begin(t)
	f.start(t, tenfold.Database{Readers: tenfold.Bounds{Min: 2, Max: 2}})
	f.settled(t, 2)
	w := f.write(t)
	w.more(t, 50)
	ways := []string{"postmaster", "group", "stopped"}
	if n := os.Getenv("FAILOVERS"); n != "" {
		var count int
		fmt.Sscan(n, &count)
		ways = slices.Repeat([]string{"postmaster", "group"}, count/2)
	}
	var gaps, backs []time.Duration
	for _, way := range ways {
		r := f.settled(t, 2)
		w.more(t, 20)
		at := time.Now()
		kills[way](t, f, r.Primary)
		for time.Unix(0, w.moved.Load()).Before(at) {
			w.more(t, 1)
		}
		if way != "stopped" {
			gaps = append(gaps, time.Unix(0, w.moved.Load()).Sub(at))
			if os.Getenv("SHOW") != "" {
				fmt.Println(time.Now().Format("05.000"), way, gaps[len(gaps)-1])
			}
		}
		now := f.settled(t, 2)
		backs = append(backs, time.Since(at))
		if now.Epoch != r.Epoch+1 || now.Primary == r.Primary {
			t.Fatalf("%s: epoch %d → %d, primary %d → %d", way, r.Epoch, now.Epoch, r.Primary, now.Primary)
		}
	}
	if lost := w.lost(t); len(lost) > 0 {
		f.dump(t)
		t.Errorf("%d of %d acknowledged commits are lost: %v", len(lost), len(w.acked), lost)
	}
	slices.Sort(gaps)
	slices.Sort(backs)
	t.Logf("%d commits acknowledged; writes again after %v; all nodes again after %v", len(w.acked), gaps, backs)
}

// With every synchronous reader away commits wait for ten seconds, then go on with an alarm; and from
// then on nobody is promoted, because nobody has everything.
func TestCommitsGoOnWithoutReadersAndNobodyIsPromoted(t *testing.T) {
	f := begin(t)
	f.start(t, tenfold.Database{Readers: tenfold.Bounds{Min: 2, Max: 2}})
	before := f.settled(t, 2)
	w := f.write(t)
	w.more(t, 20)
	// The readers are not let in any more.
	hba := filepath.Join(f.dataOf(id, before.Primary), "pg_hba.conf")
	text, err := os.ReadFile(hba)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hba, []byte(strings.ReplaceAll(string(text), "host replication", "# host replication")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.ask(t.Context(), before, before.Primary, func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, "select pg_reload_conf(), (select count(pg_terminate_backend(pid)) from pg_stat_replication)")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	away := time.Now()
	for begun := away; ; <-time.After(20 * time.Millisecond) {
		if r, _ := f.get(id.String()); !r.Armed && len(r.Sync) == 0 {
			break
		}
		if time.Since(begun) > 60*time.Second {
			f.dump(t)
			t.Fatal("commits still wait")
		}
	}
	if waited := time.Since(away); waited < syncPatience-time.Second {
		t.Errorf("commits went on after %s", waited)
	}
	w.more(t, 20)
	f.mu.Lock()
	alarmed := strings.Contains(strings.Join(f.texts, "\n"), "no synchronous reader for 10s")
	f.mu.Unlock()
	if !alarmed {
		t.Error("no alarm")
	}
	kills["group"](t, f, before.Primary)
	if after := f.settled(t, 2); after.Epoch != before.Epoch || after.Primary != before.Primary {
		t.Errorf("node %d was promoted, epoch %d", after.Primary, after.Epoch)
	}
	if lost := w.lost(t); len(lost) > 0 {
		t.Errorf("%d of %d acknowledged commits are lost", len(lost), len(w.acked))
	}
}

func TestAReaderThatIsStoppedIsStartedAgain(t *testing.T) {
	f := begin(t)
	f.start(t, tenfold.Database{Readers: tenfold.Bounds{Min: 1, Max: 1}})
	f.settled(t, 1)
	first := f.pid(t, 2)
	syscall.Kill(first, syscall.SIGSTOP)
	for begun := time.Now(); ; <-time.After(20 * time.Millisecond) {
		if all, _ := f.status(t.Context(), id.String()); all[2].PID != 0 && all[2].PID != first {
			break
		}
		if time.Since(begun) > 30*time.Second {
			f.dump(t)
			t.Fatal("it stays stopped")
		}
	}
	if r := f.settled(t, 1); r.Epoch != 1 {
		t.Errorf("epoch %d", r.Epoch)
	}
}
