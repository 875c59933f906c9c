//go:build scenario

package test

import (
	"context"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tenfold/internal/engines"
	"tenfold/internal/enginetest"
)

// A database moves to another major and back under writes through the real pool: no statement fails, no connection
// is refused, and what was acknowledged is there.
func TestDatabaseUpgradeFailsNoStatement(t *testing.T) {
	all := engines.AllPostgres(t.Context(), enginetest.Folder())
	if len(all) == 0 || all[0].Major == all[len(all)-1].Major {
		enginetest.OneMajor(t, len(all))
	}
	path := os.Getenv("PATH")
	for _, e := range all { // the house finds what is in its PATH
		path += string(os.PathListSeparator) + e.Bin
	}
	t.Setenv("PATH", path)
	from, to := strconv.Itoa(all[len(all)-1].Major), strconv.Itoa(all[0].Major)
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	yaml := func(major string) map[string]string {
		return map[string]string{"tenfold.yaml": manifest("1", "    uses: [db]\ndatabases: {db: {engine: postgres-"+major+"}}\n")}
	}
	write(t, dir, yaml(from))
	h.up(dir)
	url := strings.TrimSpace(h.must(dir, "db", "url"))
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(t.Context(), "create table t (n int primary key); create table log (line text)", pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	c.Close(t.Context())
	w := &writers{acknowledged: map[int]bool{}, codes: map[string]int{}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running sync.WaitGroup
	for n := range 8 {
		running.Go(func() { w.run(ctx, url, n, 8) })
	}
	goesOn := func(what string) {
		t.Helper()
		before := w.count()
		eventually(t, "writes after "+what, 30*time.Second, func() bool { return w.count() > before+50 })
	}
	goesOn("the start")
	// The manifest alone moves nothing, and says what does.
	write(t, dir, yaml(to))
	if out, status := h.runIn(dir, "up", "--detach"); status == 0 || !strings.Contains(out, "tenfold db upgrade") {
		t.Errorf("up with another major: exit %d\n%s", status, out)
	}
	t.Log(h.must(dir, "db", "upgrade", "--to", to, "--rehearse"))
	w.worst()
	out := h.must(dir, "db", "upgrade", "--to", to)
	t.Log(out)
	if !strings.Contains(out, "public.log") || !strings.Contains(out, "the way back is open") {
		t.Errorf("%s", out)
	}
	goesOn("the upgrade")
	t.Logf("the longest statement of eight clients took %s", w.worst())
	h.up(dir) // the manifest names the new major by now
	goesOn("the deploy")
	t.Log(h.must(dir, "db", "upgrade", "--back"))
	goesOn("the way back")
	t.Logf("and %s on the way back", w.worst())
	stop()
	running.Wait()
	if len(w.codes) > 0 || len(w.refused) > 0 {
		t.Errorf("statements failed: %v, connections were refused: %v", w.codes, w.refused)
	}
	if c, err = pgx.Connect(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	var rows int
	if err := c.QueryRow(t.Context(), "select count(*) from t").Scan(&rows); err != nil || rows < w.count() {
		t.Errorf("%d of %d acknowledged rows are there: %v", rows, w.count(), err)
	}
	t.Logf("%d inserts acknowledged, %d there", w.count(), rows)
}
