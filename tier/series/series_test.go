package series

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tenfold"
	"tenfold/internal/enginetest"
)

const day = 24 * time.Hour

func TestSeriesFromNothingThroughDeathsAndChanges(t *testing.T) {
	f := begin(t)
	stop := f.open(t)
	f.apply(t, tenfold.VerbStart, tenfold.Series{Keep: 90 * day, Every: time.Second})
	r := f.await(t, "ready", ready)
	if r.Endpoint != f.front.addr || !strings.HasPrefix(r.Note, "VictoriaMetrics") {
		t.Errorf("%+v", r)
	}
	f.write(t, "gold", 7)
	f.eventually(t, "14", "sum(gold_value)")
	if argv := arguments(t, f.pid(t)); !slices.Contains(argv, "-retentionPeriod=90d") || strings.Contains(strings.Join(argv, " "), f.records.All()[id.String()].Password) {
		t.Error(argv)
	}
	if info, err := os.Stat(filepath.Join(f.home(id), "data")); err != nil || info.Mode().Perm() != 0o700 {
		t.Error(info, err)
	}

	f.flushed(t)
	pid := f.pid(t)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	f.write(t, "silver", 3) // held until the engine is there again
	f.eventually(t, "14", "sum(gold_value)")
	f.eventually(t, "6", "sum(silver_value)")
	f.await(t, "ready", ready)

	pid = f.pid(t)
	stop() // the daemon dies, the engine goes on
	if got := f.query("sum(gold_value)"); got != "14" {
		t.Errorf("without the daemon: %q", got)
	}
	f.open(t)
	f.await(t, "ready after another daemon", ready)
	if f.pid(t) != pid {
		t.Error("another daemon started another engine")
	}

	f.apply(t, tenfold.VerbUpdate, tenfold.Series{Keep: 90 * day, Every: time.Second, Accept: []string{tenfold.SeriesInflux}})
	f.await(t, "of other words", ready)
	if f.pid(t) != pid {
		t.Error("what is accepted needs no other engine")
	}
	f.apply(t, tenfold.VerbUpdate, tenfold.Series{Keep: 30 * day, Every: time.Minute})
	f.await(t, "kept for less", ready)
	if argv := arguments(t, f.pid(t)); !slices.Contains(argv, "-retentionPeriod=30d") || !slices.Contains(argv, "-dedup.minScrapeInterval=1m0s") {
		t.Error(argv)
	}
	f.eventually(t, "14", "sum(gold_value)")

	for begun := time.Now(); f.Use()[id].Counts[query].Requests == 0 || f.Use()[id].Bytes == 0; <-time.After(20 * time.Millisecond) {
		if time.Since(begun) > 30*time.Second {
			t.Fatalf("no figures: %+v", f.Use())
		}
	}
	f.apply(t, tenfold.VerbStop, tenfold.Series{})
	f.await(t, "stopped", func(r tenfold.Resource) bool { return r.State == tenfold.StateStopped })
	if kept := f.Kept(); len(kept) != 1 || kept[0].ID != id {
		t.Error(kept)
	}
	f.apply(t, tenfold.VerbStart, tenfold.Series{Keep: 30 * day, Every: time.Second})
	f.await(t, "again", ready)
	f.eventually(t, "14", "sum(gold_value)")
	if err := f.Destroy(t.Context(), id); tenfold.CodeOf(err) != tenfold.CodeConflict {
		t.Errorf("destroyed while it runs: %v", err)
	}
	f.apply(t, tenfold.VerbStop, tenfold.Series{})
	f.await(t, "stopped", func(r tenfold.Resource) bool { return r.State == tenfold.StateStopped })
	if err := f.Destroy(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.home(id)); !os.IsNotExist(err) || f.Holds() {
		t.Error("files are left")
	}
}

func arguments(t *testing.T, pid int) []string {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(b), "\x00")
}

// What the engine cannot do is told at the deploy; what served goes on.
func TestOTLPIsAskedOfAnEngineThatHasItNot(t *testing.T) {
	e := enginetest.Series(t)
	flags, err := e.Flags(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f := begin(t)
	f.open(t)
	f.apply(t, tenfold.VerbStart, tenfold.Series{Keep: day, Every: time.Millisecond})
	f.await(t, "ready", ready)
	at := "http://" + f.front.addr + "/prices/v1/metrics"
	body := string(enginetest.OTLP(5, time.Now(), "room.temperature", "floor", "2"))
	code, out := send("POST", at, "api", "let-api-in-prices", body, "Content-Type", "application/x-protobuf")
	f.apply(t, tenfold.VerbUpdate, tenfold.Series{Keep: day, Every: time.Millisecond, Accept: []string{tenfold.SeriesOTLP}})
	if (found{flags: flags}).otlp() {
		if code != 200 {
			t.Error(code, out)
		}
		f.await(t, "ready", ready)
		f.eventually(t, "5", `sum(room_temperature{floor="2"})`)
		return
	}
	if code != 501 || !strings.Contains(out, "has no OTLP: install a newer one") {
		t.Error(code, out)
	}
	r := f.await(t, "refused", func(r tenfold.Resource) bool { return r.State == tenfold.StateFailed })
	if !strings.Contains(r.Reason, "series prices is to accept otlp, and VictoriaMetrics") || !strings.Contains(r.Hint, "accept: [remote-write, influx]") || r.Serving == "" {
		t.Errorf("%+v", r)
	}
	f.write(t, "gold", 7) // as before
}

// An engine that does not come up is told with what it said, and one whose port was taken gets another.
func TestAnEngineThatDoesNotStart(t *testing.T) {
	f := begin(t)
	dir := t.TempDir()
	// Its arguments are read, as the engine's are, and then it ends.
	script := "#!/bin/sh\ncase $1 in -version) echo tags-v1.99.0-0;; -help) echo '  -x int';; *) echo 'cannot open storage: it is broken' >&2; exit 255;; esac\n"
	if err := os.WriteFile(filepath.Join(dir, "victoria-metrics"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	os.Chmod(filepath.Dir(dir), 0o755)
	os.Chmod(dir, 0o755)
	path := os.Getenv("PATH")
	t.Setenv("PATH", dir+":"+path)
	f.open(t)
	f.apply(t, tenfold.VerbStart, tenfold.Series{Keep: day, Every: time.Second})
	r := f.await(t, "failed", func(r tenfold.Resource) bool { return r.State == tenfold.StateFailed })
	if !strings.Contains(r.Reason, "VictoriaMetrics 1.99.0 ended") || !strings.Contains(r.Reason, "cannot open storage: it is broken") || !strings.Contains(r.Hint, "series.log") {
		t.Errorf("%+v", r)
	}
	t.Setenv("PATH", path)
	f.apply(t, tenfold.VerbStart, tenfold.Series{Keep: day, Every: time.Minute})
	f.await(t, "ready", ready)
	f.apply(t, tenfold.VerbStop, tenfold.Series{})
	f.await(t, "stopped", func(r tenfold.Resource) bool { return r.State == tenfold.StateStopped })
	port := f.records.All()[id.String()].Port
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f.apply(t, tenfold.VerbStart, tenfold.Series{Keep: day, Every: time.Minute})
	f.await(t, "ready at another port", ready)
	f.write(t, "gold", 7)
	if now := f.records.All()[id.String()].Port; now == port {
		t.Error("it has the port that is another's")
	}
}

func TestFingerprintsStay(t *testing.T) {
	f, err := New(Config{Dir: t.TempDir(), Units: &nobody{}, Process: &front{}, Emit: func(tenfold.Event) {}, Holders: holdNothing})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		s    tenfold.Series
		want string
	}{
		{tenfold.Series{Keep: 30 * day, Every: time.Second, Line: 3}, "eb261b7d3d129dd5"},
		{tenfold.Series{Keep: 30 * day, Every: time.Second, Line: 9}, "eb261b7d3d129dd5"},
		{tenfold.Series{Keep: 90 * day, Every: time.Minute, Accept: []string{"otlp", "influx"}}, "1fc4717869c9ba3e"},
	} {
		all, err := f.Desired(tenfold.App{Name: "shop", Env: "production", Series: map[tenfold.Name]tenfold.Series{"prices": x.s}}, nil)
		if err != nil || len(all) != 1 || all[0].Fingerprint != x.want {
			t.Errorf("%+v: %v %v, want %s: an upgrade of Tenfold would start it anew", x.s, all, err, x.want)
		}
	}
}

func TestStatsAreRead(t *testing.T) {
	s := parseStats([]byte("# HELP x\nvm_rows_inserted_total{type=\"influx\"} 8\nvm_rows_inserted_total{type=\"promremotewrite\"} 2\nvm_rows_inserted_total{type=\"native\"} 9\n" +
		"vm_cache_entries{type=\"storage/hour_metric_ids\"} 3\nvm_cache_entries{type=\"x\"} 4\nvm_data_size_bytes{type=\"indexdb\"} 100\nvm_data_size_bytes{type=\"storage/small\"} 50\n" +
		"vm_rows_ignored_total{reason=\"big_timestamp\"} 1\nvm_storage_is_read_only{path=\"/x} y\"} 1\nnonsense\n"))
	if s.Rows[tenfold.SeriesInflux] != 8 || s.Rows[tenfold.SeriesRemoteWrite] != 2 || s.Active != 3 || s.Bytes != 150 || s.Refused != 1 || !s.ReadOnly {
		t.Errorf("%+v", s)
	}
}

func FuzzStats(f *testing.F) {
	f.Add([]byte("vm_rows_inserted_total{type=\"influx\"} 8\n"))
	f.Add([]byte("vm_data_size_bytes{type=\"} } 1e400\nvm_cache_entries"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := parseStats(b)
		s.At = time.Now()
		s.note()
	})
}
