package cache

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tenfold"
	"tenfold/internal/engines"
	"tenfold/internal/keeper/keepertest"
)

func TestMain(m *testing.M) { keepertest.Main(m, nil) }

var id = tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindCache, Name: "cache"}

// command speaks to the cache as an app does.
func command(t *testing.T, c *Cache, line string) string {
	t.Helper()
	raw, err := c.Field(t.Context(), id, tenfold.FieldURL)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	pw, _ := u.User.Password()
	fmt.Fprintf(conn, "AUTH %s %s\r\n%s\r\n", u.User.Username(), pw, line)
	in := bufio.NewReader(conn)
	if ok, err := in.ReadString('\n'); err != nil || ok != "+OK\r\n" {
		return "auth: " + ok
	}
	s, _ := in.ReadString('\n')
	if strings.HasPrefix(s, "$") && s != "$-1\r\n" {
		s, _ = in.ReadString('\n')
	}
	return strings.TrimSpace(s)
}

func TestCacheFromNothingThroughCrashAndStop(t *testing.T) {
	if _, err := engines.Cache(t.Context(), ""); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("no engine to test with: %v (apt-get install redis-server)", err)
	}
	h := keepertest.Start(t)
	c, err := New(Config{Dir: filepath.Join(h.Dir, "cache"), Units: h, Emit: func(tenfold.Event) {}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, func() {}) }()
	t.Cleanup(func() { cancel(); <-done })
	apply := func(verb tenfold.Verb, d tenfold.Cache) {
		want, err := c.Desired(tenfold.App{Name: "shop", Env: "production", Caches: map[tenfold.Name]tenfold.Cache{"cache": d}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Apply(t.Context(), tenfold.Step{Verb: verb, Want: want[0]}); err != nil {
			t.Fatal(err)
		}
	}
	await := func(what string, ok func(tenfold.Resource) bool) {
		t.Helper()
		var last []tenfold.Resource
		for begun := time.Now(); time.Since(begun) < 30*time.Second; <-time.After(10 * time.Millisecond) {
			if last, _ = c.Observe(t.Context()); len(last) == 1 && ok(last[0]) {
				return
			}
		}
		t.Fatalf("not %s: %+v", what, last)
	}
	ready := func(r tenfold.Resource) bool { return r.State == tenfold.StateReady }
	apply(tenfold.VerbStart, tenfold.Cache{Size: 8 << 20, Evict: "allkeys-lru", Persist: true})
	await("ready", ready)
	for line, want := range map[string]string{"SET a 1": "+OK", "CONFIG GET maxmemory": "-NOPERM", "SHUTDOWN": "-NOPERM", "FLUSHDB": "+OK"} {
		if got := command(t, c, line); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", line, got)
		}
	}
	if got := command(t, c, "SET kept 7"); got != "+OK" {
		t.Fatal(got)
	}
	<-time.After(1500 * time.Millisecond) // the append-only file is synced each second
	units, _ := h.List(t.Context(), unitPrefix)
	syscall.Kill(units[0].PID, syscall.SIGKILL)
	for begun := time.Now(); command(t, c, "GET kept") != "7"; <-time.After(20 * time.Millisecond) {
		if time.Since(begun) > 20*time.Second {
			t.Fatal("not back after kill -9")
		}
	}
	apply(tenfold.VerbStop, tenfold.Cache{})
	await("stopped", func(r tenfold.Resource) bool { return r.State == tenfold.StateStopped })
	if err := c.Destroy(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.home(id)); !os.IsNotExist(err) {
		t.Fatal("files are left")
	}
}
