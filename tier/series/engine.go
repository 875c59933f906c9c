package series

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tenfold"
	"tenfold/internal/engines"
	"tenfold/internal/keeper"
)

// How an engine is bounded. Nothing of this is anybody's to set: the engine may be another one day.
const (
	// engineMemory is what its caches may have. It holds more beside them: what comes and goes with requests.
	engineMemory = 64 << 20
	// leastFree is the free space below which it takes no more, so that what is there can still be merged.
	leastFree = 256 << 20
	// mostSeries bounds how many series one question may touch, mostSamples how many values.
	mostSeries, mostSamples = 100_000, 100_000_000
	// longestLine is one line of InfluxDB's protocol, in bytes.
	longestLine = 1 << 20
	queryFor    = 30 * time.Second
	// stopGrace is how long it may take to write down what it has in memory.
	stopGrace = 60 * time.Second
)

// The engine's own user. Its password stands in its environment, never among its arguments.
const (
	engineUser  = "tenfold"
	passwordVar = "VM_httpAuth_password"
)

// found is an installed engine and what it can be told.
type found struct {
	engines.Engine
	flags map[string]bool
}

func (f found) name() string { return strings.TrimSpace("VictoriaMetrics " + f.Version) }

// otlp says that it takes metrics of OTLP: the flag came with the path.
func (f found) otlp() bool { return f.flags["opentelemetry.usePrometheusNaming"] }

// find looks for an engine that can do what a series wants.
func find(ctx context.Context, id tenfold.ID, s spec) (found, error) {
	e, err := engines.Series(ctx)
	if err != nil {
		return found{}, tenfold.Errorf(tenfold.CodeMissing, "%w", err).WithHint("install it: apt-get install victoria-metrics; then systemctl disable --now victoria-metrics, for the house starts its own")
	}
	f := found{Engine: e}
	if f.flags, err = e.Flags(ctx); err != nil {
		return f, err
	}
	if slices.Contains(s.Accept, tenfold.SeriesOTLP) && !f.otlp() {
		rest := slices.DeleteFunc(slices.Clone(s.Accept), func(w string) bool { return w == tenfold.SeriesOTLP })
		if len(rest) == 0 {
			rest = []string{tenfold.SeriesRemoteWrite, tenfold.SeriesInflux}
		}
		return f, tenfold.Errorf(tenfold.CodeMissing, "%s is to accept otlp, and %s (%s) has no OTLP", id.Short(), f.name(), e.Server).
			WithHint("install a newer one (Debian 13 has 1.112), or write accept: [%s]", strings.Join(rest, ", "))
	}
	return f, nil
}

// arguments are those of an engine.
func (f found) arguments(s spec, port int, data string) []string {
	out := []string{f.Server, "-envflag.enable", "-envflag.prefix=VM_", "-httpAuth.username=" + engineUser, "-httpListenAddr=" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		"-storageDataPath=" + data, "-retentionPeriod=" + strconv.Itoa(s.days()) + "d", "-dedup.minScrapeInterval=" + s.Every.String(),
		"-memory.allowedBytes=" + strconv.Itoa(engineMemory), "-storage.minFreeDiskSpaceBytes=" + strconv.Itoa(leastFree), "-loggerLevel=WARN"}
	// What a version does not know it would refuse to start with.
	for _, x := range []struct{ flag, value string }{
		{"search.latencyOffset", "1s"}, // what was written is seen in a second or two, not in thirty
		{"search.maxUniqueTimeseries", strconv.Itoa(mostSeries)}, {"search.maxSamplesPerQuery", strconv.Itoa(mostSamples)},
		{"search.maxQueryDuration", queryFor.String()}, {"search.maxConcurrentRequests", "8"},
		{"maxInsertRequestSize", strconv.Itoa(mostBody)}, {"influx.maxLineSize", strconv.Itoa(longestLine)}, {"influx.maxRequestSize", strconv.Itoa(mostBody)},
		{"opentelemetry.maxRequestSize", strconv.Itoa(mostBody)}, {"opentelemetry.usePrometheusNaming", "true"},
		{"http.maxGracefulShutdownDuration", "5s"}, {"denyQueryTracing", "true"}, {"selfScrapeInterval", "0s"},
		{"inmemoryDataFlushInterval", "1s"}, // what a death may cost: six seconds by this, ten where it cannot be told
	} {
		if f.flags[x.flag] {
			out = append(out, "-"+x.flag+"="+x.value)
		}
	}
	return out
}

// launch starts an engine in place of the one that there was.
func (t *Tier) launch(ctx context.Context, key string, r record, s spec, f found) error {
	if err := t.cfg.Units.Remove(ctx, unitPrefix+key); err != nil { // it writes down what it has first
		return err
	}
	home := t.home(r.ID)
	data := filepath.Join(home, "data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return fmt.Errorf("make the folder of a series: %w", err)
	}
	uid, gid := engines.RunAs()
	if uid > 0 {
		if d, err := engines.Blocked(home); err != nil {
			return fmt.Errorf("make the folder of a series: %w", err)
		} else if d != "" {
			return tenfold.Errorf(tenfold.CodeDenied, "%s does not run as root, and its user cannot pass %s", f.name(), d).
				WithHint("use another data directory: --data /var/lib/tenfold")
		}
		if err := os.Chown(data, uid, gid); err != nil {
			return fmt.Errorf("make the folder of a series: %w", err)
		}
	}
	if err := os.Chmod(data, 0o700); err != nil {
		return fmt.Errorf("make the folder of a series: %w", err)
	}
	_, err := t.cfg.Units.Start(ctx, keeper.Unit{
		ID: unitPrefix + key, Label: s.basis(), Argv: f.arguments(s, r.Port, data), Env: []string{"PATH=/usr/bin:/bin", "LC_ALL=C", passwordVar + "=" + r.Password}, Hide: []string{passwordVar}, Dir: "/",
		UID: uid, GID: gid, StopGrace: stopGrace, DeathSignal: syscall.SIGTERM, Log: t.LogPath(r.ID), OOMScore: -200,
	})
	return err
}

// asker speaks to engines.
var asker = &http.Client{Timeout: askLimit, Transport: &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: askLimit}).DialContext}}

// ask puts a question to an engine. What comes back is at most 4 MB of it.
func ask(ctx context.Context, r record, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort("127.0.0.1", strconv.Itoa(r.Port))+path, nil)
	if err != nil {
		return nil, err
	}
	req.SetBasicAuth(engineUser, r.Password)
	res, err := asker.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("the engine answers %s with %s", path, res.Status)
	}
	return b, err
}

// stats are what an engine says of itself.
type stats struct {
	At       time.Time
	Rows     map[string]float64 // inserted since it started, by protocol
	Active   float64            // series that got a value in this hour
	Bytes    float64            // on disk
	ReadOnly bool
	Refused  float64 // rows that were too old, too new or no rows
}

// note is what status says.
func (s stats) note() string {
	switch {
	case s.At.IsZero():
		return ""
	case s.ReadOnly:
		return ", read only: the disk is full"
	}
	return fmt.Sprintf(", %.0f series in this hour, %s", s.Active, sizeOf(int64(s.Bytes)))
}

func sizeOf(n int64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d B", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KB", n>>10)
	}
	return fmt.Sprintf("%d MB", n>>20)
}

// rowsOf are our words for the engine's.
var rowsOf = map[string]string{"influx": tenfold.SeriesInflux, "promremotewrite": tenfold.SeriesRemoteWrite, "opentelemetry": tenfold.SeriesOTLP}

// parseStats reads what is wanted of Prometheus' text format. A line that is none is passed over.
func parseStats(text []byte) stats {
	s := stats{Rows: map[string]float64{}}
	lines := bufio.NewScanner(strings.NewReader(string(text)))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		name, rest := line, ""
		if i := strings.IndexAny(line, "{ "); i >= 0 {
			name, rest = line[:i], line[i:]
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, '}')+1:]), 64)
		if err != nil || value != value {
			continue
		}
		label := ""
		if _, after, ok := strings.Cut(rest, `type="`); ok {
			label, _, _ = strings.Cut(after, `"`)
		}
		switch name {
		case "vm_rows_inserted_total":
			if p := rowsOf[label]; p != "" {
				s.Rows[p] += value
			}
		case "vm_cache_entries":
			if label == "storage/hour_metric_ids" {
				s.Active = value
			}
		case "vm_data_size_bytes":
			s.Bytes += value
		case "vm_rows_ignored_total", "vm_rows_invalid_total":
			s.Refused += value
		case "vm_storage_is_read_only":
			s.ReadOnly = s.ReadOnly || value != 0
		}
	}
	return s
}

// Use is how a series is used.
type Use struct {
	Counts map[string]Count // of requests, by protocol; "query" is one
	// Rows are values that were written since the engine started, by protocol; Refused those that it did not take.
	Rows    map[string]float64
	Refused float64
	Active  float64 // series that got a value in this hour
	Bytes   float64 // on disk
}

// Use is what was seen when it was looked at last; nobody is asked for it.
func (t *Tier) Use() map[tenfold.ID]Use {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := map[tenfold.ID]Use{}
	for key, r := range t.records.All() {
		if s := t.stats[key]; !r.Stopped && !s.At.IsZero() {
			out[r.ID] = Use{Counts: t.report.Counts[key], Rows: s.Rows, Refused: s.Refused, Active: s.Active, Bytes: s.Bytes}
		}
	}
	return out
}

// password is a new one. Nothing in it needs quoting.
func password() string { return rand.Text() }

// lastWords are the end of an engine's output since a moment, for errors.
func (t *Tier) lastWords(id tenfold.ID, since time.Time) string {
	lines := keeper.LastLines(t.LogPath(id), since.Add(-time.Second), 5)
	return cmp.Or(strings.Join(lines, "\n               "), "nothing")
}
