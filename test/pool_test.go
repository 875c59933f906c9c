//go:build scenario

package test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// writers insert through the pool, each over one connection, and open another when theirs is ended.
type writers struct {
	mu           sync.Mutex
	acknowledged map[int]bool
	codes        map[string]int // of errors
	refused      []string       // connections
	longest      time.Duration  // that an acknowledged one took
}

func (w *writers) run(ctx context.Context, url string, n, of int) {
	var c *pgx.Conn
	for ; ctx.Err() == nil; n += of {
		if c == nil || c.IsClosed() {
			var err error
			if c, err = pgx.Connect(ctx, url); err != nil {
				w.mu.Lock()
				if ctx.Err() == nil {
					w.refused = append(w.refused, err.Error())
				}
				w.mu.Unlock()
				continue
			}
		}
		asked := time.Now()
		_, err := c.Exec(ctx, "insert into t values ($1)", n)
		w.mu.Lock()
		var pe *pgconn.PgError
		switch {
		case err == nil:
			w.acknowledged[n] = true
			w.longest = max(w.longest, time.Since(asked))
		case errors.As(err, &pe):
			w.codes[pe.Code]++
		case ctx.Err() == nil:
			w.codes["connection"]++
		}
		w.mu.Unlock()
	}
	if c != nil {
		c.Close(context.Background())
	}
}

// worst is the longest wait for an acknowledgement since it was asked last.
func (w *writers) worst() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.longest
	w.longest = 0
	return d
}

func (w *writers) count() int { w.mu.Lock(); defer w.mu.Unlock(); return len(w.acknowledged) }

// A service is given the pool's address. The server and the pool behind it die and are replaced; clients
// wait, none is refused, and nothing that was acknowledged is lost.
func TestPoolHoldsClientsThroughDeathsAndUpgrades(t *testing.T) {
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "    uses: [db]\ndatabases: {db: {proxy: {pool: 3, hold: 20s}}}\n")})
	h.up(dir)
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", h.process("echo 1")))
	if err != nil {
		t.Fatal(err)
	}
	_, url, _ := strings.Cut(string(environ), "DATABASE_URL=")
	url, _, _ = strings.Cut(url, "\x00")
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(t.Context(), "create table t (n int primary key)"); err != nil {
		t.Fatal(err)
	}
	var backends int
	c.Close(t.Context())

	w := &writers{acknowledged: map[int]bool{}, codes: map[string]int{}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() { w.run(ctx, url, n, 8) })
	}
	goesOn := func(what string) {
		t.Helper()
		before := w.count()
		eventually(t, "writes after "+what, 30*time.Second, func() bool { return w.count() > before+50 })
	}
	goesOn("the start")
	for range 3 {
		h.kill("postgres -D")
		goesOn("the death of the server")
	}
	for code := range w.codes {
		if code != "08006" && code != "08007" {
			t.Errorf("a server's death gave %s: %v", code, w.codes)
		}
	}
	h.kill("house pool")
	goesOn("the death of the pool")
	clear(w.codes)
	h.bin = h.next()
	h.must(dir, "upgrade")
	eventually(t, "one pool, of the new binary", 40*time.Second, func() bool {
		pools := 0
		for _, cmd := range h.mine() {
			if strings.Contains(cmd, "house pool") {
				pools++
			}
		}
		return pools == 1
	})
	goesOn("the upgrade")
	for code := range w.codes {
		if code != "57P01" && code != "connection" {
			t.Errorf("the upgrade gave %s: %v", code, w.codes)
		}
	}
	stop()
	all.Wait()
	if len(w.refused) > 0 {
		t.Errorf("%d connections were refused: %s", len(w.refused), w.refused[0])
	}
	if c, err = pgx.Connect(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	rows, err := c.Query(t.Context(), "select n from t")
	if err != nil {
		t.Fatal(err)
	}
	there, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		t.Fatal(err)
	}
	acknowledged := len(w.acknowledged)
	for _, n := range there {
		delete(w.acknowledged, n)
	}
	if len(w.acknowledged) > 0 {
		t.Errorf("acknowledged and lost: %v", w.acknowledged)
	}
	if err := c.QueryRow(t.Context(), "select count(*) from pg_stat_activity where usename = current_user").Scan(&backends); err != nil || backends > 3 {
		t.Errorf("%d connections to the server, at most 3: %v", backends, err)
	}
	t.Logf("%d inserts acknowledged, %d there; at last %v", acknowledged, len(there), w.codes)
	if out := h.must(dir, "status"); !strings.Contains(out, "pool: ") {
		t.Errorf("status: %s", out)
	}
	if out := h.must(dir, "db", "pool"); !strings.Contains(out, "insert into t values ( $1 )") || !strings.Contains(out, "CONNECTIONS") {
		t.Errorf("db pool: %s", out)
	}
	if out := h.must(dir, "db", "pool", "--json"); !strings.Contains(out, `"fingerprint"`) {
		t.Errorf("db pool --json: %s", out)
	}
	if out := h.must(dir, "metrics"); !strings.Contains(out, "db_pool_transactions_total") {
		t.Errorf("metrics: %s", out)
	}
}

// Reads find the reader by themselves, nobody reads less than it wrote, and a failover changes neither.
func TestPoolSplitsReads(t *testing.T) {
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "    uses: [db]\ndatabases: {db: {readers: 1, sync: true, proxy: {split: true}}}\n")})
	h.up(dir)
	url := strings.TrimSpace(h.must(dir, "db", "url"))
	connect := func() *pgx.Conn {
		c, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := connect()
	if _, err := c.Exec(t.Context(), "create table s (n int)"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(t.Context(), "insert into s values (0)"); err != nil {
		t.Fatal(err)
	}
	n, atReader := 0, 0
	pair := func() {
		t.Helper()
		if _, err := c.Exec(t.Context(), "update s set n = $1", n+1); err != nil {
			c.Close(t.Context()) // the primary died: it was told so, and begins again
			c = connect()
			if err := c.QueryRow(t.Context(), "select n from s for update").Scan(&n); err != nil {
				n-- // and once more
			}
			return
		}
		n++
		got, readOnly := 0, ""
		if err := c.QueryRow(t.Context(), "select n, current_setting('transaction_read_only') from s").Scan(&got, &readOnly); err != nil {
			t.Fatal(err)
		}
		if got != n {
			t.Fatalf("read %d after %d was written, read only %s", got, n, readOnly)
		}
		if readOnly == "on" {
			atReader++
		}
	}
	eventually(t, "reads at the reader", 30*time.Second, func() bool { pair(); return atReader > 100 })
	h.must(dir, "db", "failover")
	atReader = 0
	eventually(t, "reads at the other, after a failover", 60*time.Second, func() bool { pair(); return atReader > 100 })
	c.Close(t.Context())
	t.Logf("%d pairs", n)
}
