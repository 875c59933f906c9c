package cache

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"

	"tenfold"
	"tenfold/internal/cacheinfo"
)

// What can change while a server runs does; what cannot comes with a restart that keeps the data.
func TestAGoalChangesWhileItRuns(t *testing.T) {
	f := begin(t)
	certificate(t, f)
	f.open(t)
	f.start(t, tenfold.Cache{})
	f.await(t, "ready", ready)
	pid := f.pid(t, 1)
	f.must(t, tenfold.FieldURL, "SET", "kept", 1)
	f.start(t, tenfold.Cache{Size: 16 << 20, Evict: "noeviction", Persist: true, Readers: tenfold.Bounds{Min: 1, Max: 2}})
	f.settled(t, 1)
	if f.pid(t, 1) != pid {
		t.Error("it was started again for what can be changed while it runs")
	}
	for n := range 2 {
		for name, want := range map[string]string{"maxmemory": "16777216", "maxmemory-policy": "noeviction", "appendonly": "yes", "save": "3600 1"} {
			r, _ := f.get(id.String())
			if got := f.config(t, r, n+1, name); got != want {
				t.Errorf("%s of server %d: %q", name, n+1, got)
			}
		}
	}
	// More than the machine has is refused, and the old one serves on.
	f.start(t, tenfold.Cache{Size: 1 << 50})
	r := f.await(t, "refused", func(r tenfold.Resource) bool { return r.State == tenfold.StateFailed })
	if !strings.Contains(r.Reason, "the machine has") || r.Hint == "" {
		t.Errorf("%q %q", r.Reason, r.Hint)
	}
	if got := f.must(t, tenfold.FieldURL, "GET", "kept"); got != "1" {
		t.Errorf("kept is %q", got)
	}
	// TLS is another way to speak: all are started again, with what they had.
	f.start(t, tenfold.Cache{TLS: true, Readers: tenfold.Bounds{Min: 1, Max: 1}})
	f.settled(t, 1)
	if url, _ := f.Field(t.Context(), id, tenfold.FieldURL); !strings.HasPrefix(url, "rediss://") {
		t.Error(url)
	}
	if got := f.must(t, tenfold.FieldURL, "GET", "kept"); got != "1" {
		t.Errorf("after it speaks TLS kept is %q", got)
	}
	f.eventually(t, tenfold.FieldReadURL, "1", "GET", "kept")
	x, _ := f.get(id.String())
	f.signal(t, x.Primary, syscall.SIGKILL)
	f.eventually(t, tenfold.FieldURL, "1", "GET", "kept")
	f.settled(t, 1)
	f.start(t, tenfold.Cache{})
	f.await(t, "ready without TLS", func(r tenfold.Resource) bool {
		got, err := f.ask(tenfold.FieldURL, "", "GET", "kept")
		return ready(r) && err == nil && got == "1"
	})
	if _, err := os.Stat(filepath.Join(f.homeOf(id, x.Primary), dumpFile)); err == nil {
		t.Error("a dump is left, which a crash would bring back")
	}
}

// Each service is a user of its own; a rotation gives all of them another password, and takes the old one for a while.
func TestServicesAreUsers(t *testing.T) {
	f := begin(t)
	stop := f.open(t)
	f.start(t, tenfold.Cache{Readers: tenfold.Bounds{Min: 1, Max: 1}})
	f.settled(t, 1)
	urls := map[string]string{}
	for _, by := range []tenfold.Name{"api", "app", ""} {
		for _, field := range []tenfold.Field{tenfold.FieldURL, tenfold.FieldReadURL} {
			if got, err := f.ask(field, by, "ACL", "LIST"); err == nil || !strings.HasPrefix(err.Error(), "NOPERM") {
				t.Errorf("%s may list users: %q %v", by, got, err)
			}
			if got, err := f.ask(field, by, "PING"); err != nil || got != "PONG" {
				t.Errorf("%s: %q %v", by, got, err)
			}
		}
		urls[string(by)], _ = f.FieldFor(t.Context(), id, tenfold.FieldURL, by)
	}
	if urls["api"] == urls[""] || !strings.Contains(urls["api"], "//api:") || !strings.Contains(urls["app"], "//app-service:") || !strings.Contains(urls[""], "//app:") {
		t.Errorf("%v", urls)
	}
	// A daemon that comes back gives the same; a server that is started again knows them.
	stop()
	f.open(t)
	f.settled(t, 1)
	if again, _ := f.FieldFor(t.Context(), id, tenfold.FieldURL, "api"); again != urls["api"] {
		t.Errorf("%s, then %s", urls["api"], again)
	}
	if err := f.Failover(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	f.settled(t, 1)
	works := func(raw string) error {
		c, err := dialURL(raw)
		if err == nil {
			c.Close()
		}
		return err
	}
	if err := works(urls["api"]); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := f.Rotate(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	now, _ := f.FieldFor(t.Context(), id, tenfold.FieldURL, "api")
	if err := works(urls["api"]); now == urls["api"] || err == nil || !strings.HasPrefix(err.Error(), "WRONGPASS") {
		t.Errorf("a password from before two rotations: %v", err)
	}
	if err := f.Rotate(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := works(now); err != nil {
		t.Errorf("the password from before: %v", err)
	}
	r, _ := f.get(id.String())
	f.expire(id.String(), r, time.Now().Add(graceLimit+time.Second))
	for begun := time.Now(); works(now) == nil; <-time.After(20 * time.Millisecond) {
		if time.Since(begun) > 20*time.Second {
			t.Fatal("it is taken after its time")
		}
	}
	conf, err := os.ReadFile(filepath.Join(f.homeOf(id, 1), "server.conf"))
	for _, p := range append([]string{r.Password}, r.Users["api"]) {
		if err != nil || strings.Contains(string(conf), p) {
			t.Errorf("a password stands in the server's file (%v)", err)
		}
	}
}

func TestBackupsAreRestoredBeside(t *testing.T) {
	f := begin(t)
	to := t.TempDir()
	f.cfg.Resolve = func(_ context.Context, b tenfold.Binding) (string, error) { return "a key that is long enough", nil }
	f.open(t)
	plan := &tenfold.Backups{Keep: time.Hour, Every: time.Hour, To: to, Key: &tenfold.Binding{From: tenfold.ID{Kind: tenfold.KindSecret, Name: "KEY"}}}
	f.start(t, tenfold.Cache{Persist: true, Readers: tenfold.Bounds{Min: 1, Max: 1}, Backups: plan})
	f.settled(t, 1)
	list := func(n int) []cacheinfo.Backup {
		t.Helper()
		for begun := time.Now(); ; <-time.After(20 * time.Millisecond) {
			bs, err := f.Backups(t.Context(), id)
			if err == nil && len(bs) >= n {
				return bs
			}
			if time.Since(begun) > 20*time.Second {
				t.Fatal(bs, err, f.events)
			}
		}
	}
	list(1) // by itself
	value := strings.Repeat("v", 100<<10)
	f.must(t, tenfold.FieldURL, "SET", "big", value)
	f.must(t, tenfold.FieldURL, "SET", "brief", "x", "EX", "1000")
	f.eventually(t, tenfold.FieldReadURL, value, "GET", "big")
	b, err := f.Backup(t.Context(), id)
	if err != nil || b.Bytes == 0 || !b.Encrypted {
		t.Fatal(b, err)
	}
	f.must(t, tenfold.FieldURL, "FLUSHALL")
	made, err := f.Restore(t.Context(), id, time.Time{})
	if err != nil || made.Name != "cache-restored" {
		t.Fatal(made, err)
	}
	url, err := f.Field(t.Context(), made, tenfold.FieldURL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := dialURL(url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := redis.String(c.Do("GET", "big")); err != nil || got != value {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	r, _ := f.get(made.String())
	for begun := time.Now(); f.config(t, r, 1, "appendonly") != "yes"; <-time.After(20 * time.Millisecond) {
		if time.Since(begun) > 20*time.Second {
			t.Fatal("what was restored does not persist")
		}
	}
	if k := f.Kept(); len(k) != 1 || k[0].ID != made {
		t.Errorf("kept: %+v", k)
	}
	if _, err := f.Restore(t.Context(), id, time.Now().Add(-time.Hour)); tenfold.CodeOf(err) != tenfold.CodeNotFound {
		t.Errorf("a time before all backups: %v", err)
	}
	if err := f.Destroy(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	// A byte that changed is found before a server is given it.
	for _, x := range list(2) {
		file := filepath.Join(to, "shop", "production", "cache", "dump", x.Name)
		parts, _ := os.ReadDir(file)
		for _, p := range parts {
			if !strings.HasPrefix(p.Name(), "data") {
				continue
			}
			at := filepath.Join(file, p.Name())
			raw, err := os.ReadFile(at)
			if err != nil {
				t.Fatal(err)
			}
			raw[len(raw)-20] ^= 1
			if err := os.WriteFile(at, raw, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := f.Restore(t.Context(), id, time.Time{}); err == nil {
		t.Error("a backup that was changed is restored")
	}
	if k := f.Kept(); len(k) != 0 {
		t.Errorf("a restore that failed left %+v", k)
	}
}

func TestBackupsExpire(t *testing.T) {
	now := time.Now()
	var all []base
	for _, h := range []int{100, 50, 30, 26, 23} {
		all = append(all, base{Ended: now.Add(-time.Duration(h) * time.Hour)})
	}
	if got := expired(all, 24*time.Hour, now); len(got) != 4 {
		t.Errorf("%d go", len(got))
	}
	if got := expired(all, time.Hour, now); len(got) != 4 {
		t.Errorf("the newest goes: %d", len(got))
	}
}
