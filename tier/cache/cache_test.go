package cache

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"

	"tenfold"
	"tenfold/internal/keeper"
)

func TestCacheFromNothingThroughCrashAndStop(t *testing.T) {
	f := begin(t)
	f.open(t)
	f.start(t, tenfold.Cache{Persist: true})
	f.await(t, "ready", ready)
	for _, line := range []string{"SET a 1=OK", "CONFIG GET maxmemory=NOPERM", "SHUTDOWN=NOPERM", "FLUSHDB=OK"} {
		command, want, _ := strings.Cut(line, "=")
		words := strings.Fields(command)
		var args []any
		for _, w := range words[1:] {
			args = append(args, w)
		}
		got, err := f.ask(tenfold.FieldURL, "", words[0], args...)
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", command, got)
		}
	}
	f.must(t, tenfold.FieldURL, "SET", "kept", 7)
	<-time.After(1500 * time.Millisecond) // the append-only file is synced each second
	f.signal(t, 1, syscall.SIGKILL)
	f.eventually(t, tenfold.FieldURL, "7", "GET", "kept")
	f.apply(t, tenfold.VerbStop, tenfold.Cache{})
	f.await(t, "stopped", func(r tenfold.Resource) bool { return r.State == tenfold.StateStopped })
	if err := f.Destroy(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.home(id)); !os.IsNotExist(err) {
		t.Fatal("files are left")
	}
}

// A reader takes over the address of a primary that dies or hangs, with what it had, and the old one follows it.
func TestAReaderTakesOverTheAddress(t *testing.T) {
	f := begin(t)
	f.open(t)
	f.start(t, tenfold.Cache{Readers: tenfold.Bounds{Min: 1, Max: 1}})
	f.settled(t, 1)
	url, err := f.Field(t.Context(), id, tenfold.FieldURL)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := f.ask(tenfold.FieldReadURL, "", "SET", "a", 1); err == nil || !strings.HasPrefix(err.Error(), "READONLY") {
		t.Errorf("a reader takes writes: %q %v", out, err)
	}
	for round, how := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGKILL} {
		// On a busy machine a primary may be taken for one that hangs: it is asked until it answers, and who it is then.
		f.eventually(t, tenfold.FieldURL, "OK", "SET", "round", round)
		f.eventually(t, tenfold.FieldReadURL, string(rune('0'+round)), "GET", "round")
		r, _ := f.get(id.String())
		begun := time.Now()
		f.signal(t, r.Primary, how)
		f.eventually(t, tenfold.FieldURL, "OK", "SET", "back", round)
		t.Logf("%s: written again after %s", how, time.Since(begun))
		f.eventually(t, tenfold.FieldURL, string(rune('0'+round)), "GET", "round")
		now, _ := f.get(id.String())
		if now.Epoch <= r.Epoch {
			t.Errorf("nobody took over: %+v", now.cluster)
		}
		if again, _ := f.Field(t.Context(), id, tenfold.FieldURL); again != url {
			t.Errorf("the address is another: %s", again)
		}
		f.settled(t, 1)
	}
	if !f.said("took over") || !f.said("is killed: it does not answer") {
		t.Errorf("events: %+v", f.events)
	}
	// In order, nothing fails but what is cut off.
	f.eventually(t, tenfold.FieldURL, "OK", "SET", "last", "1")
	r, _ := f.get(id.String())
	if err := f.Switchover(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	now, _ := f.get(id.String())
	f.eventually(t, tenfold.FieldURL, "1", "GET", "last")
	if now.Epoch <= r.Epoch {
		t.Errorf("after a switchover: %+v", now.cluster)
	}
	f.eventually(t, tenfold.FieldURL, "OK", "SET", "last", "2")
	f.settled(t, 1)
	f.eventually(t, tenfold.FieldReadURL, "2", "GET", "last")
	if err := f.Failover(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	f.eventually(t, tenfold.FieldURL, "OK", "SET", "last", "3")
}

// old has servers run for an hour already: a young one may be silent.
type old struct{ Units }

func (o old) List(ctx context.Context, prefix string) ([]keeper.Status, error) {
	all, err := o.Units.List(ctx, prefix)
	for i := range all {
		all[i].Started = all[i].Started.Add(-time.Hour)
	}
	return all, err
}

// A primary that computes for seconds stays the primary, and nothing is lost.
func TestAPrimaryThatComputesIsNoDeath(t *testing.T) {
	f := begin(t)
	f.cfg.Units = old{f.cfg.Units}
	f.open(t)
	f.start(t, tenfold.Cache{Readers: tenfold.Bounds{Min: 1, Max: 1}})
	f.settled(t, 1)
	before, _ := f.get(id.String())
	pid := f.pid(t, before.Primary)
	c, err := f.connect(tenfold.FieldURL, "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const script = "local b = redis.call('TIME')[1] while redis.call('TIME')[1] - b < 3 do end return redis.call('SET', KEYS[1], 1)"
	if out, err := redis.String(redis.DoWithTimeout(c, 20*time.Second, "EVAL", script, 1, "computed")); err != nil || out != "OK" {
		t.Errorf("%q %v", out, err)
	}
	f.settled(t, 1)
	if now, _ := f.get(id.String()); now.Epoch != before.Epoch || f.pid(t, now.Primary) != pid {
		t.Errorf("it was taken for dead: %+v\n%+v", now.cluster, f.events)
	}
	f.eventually(t, tenfold.FieldReadURL, "1", "GET", "computed")
}
