//go:build scenario

package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tenfold/internal/enginetest"
)

// seriesAt is a store of time series as a service has it in SERIES_URL.
type seriesAt string

// send writes a body at a path; status 0 is no answer.
func (s seriesAt) send(method, path string, body []byte, fields ...string) (int, string) {
	r, err := http.NewRequest(method, string(s)+path, bytes.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, strings.TrimSpace(string(b))
}

// value is what PromQL answers with, "" for nothing.
func (s seriesAt) value(promQL string) string {
	code, out := s.send("GET", "/api/v1/query?query="+url.QueryEscape(promQL), nil)
	var answer struct {
		Data struct{ Result []struct{ Value []any } }
	}
	if err := json.Unmarshal([]byte(out), &answer); code != 200 || err != nil {
		return fmt.Sprint(code, " ", out)
	}
	if len(answer.Data.Result) == 0 {
		return ""
	}
	return fmt.Sprint(answer.Data.Result[0].Value[1])
}

// A service finds its series in its environment, and any client of InfluxDB, Prometheus or OpenTelemetry writes there.
// What was acknowledged ten seconds ago outlives the engine, the daemon, the front, another keep and the manifest.
func TestSeriesOfAService(t *testing.T) {
	t.Parallel()
	engine := enginetest.Series(t)
	flags, err := engine.Flags(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	otlp := flags["opentelemetry.usePrometheusNaming"]
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	const second = "    uses: [prices]\n  other:\n    path: .\n    build: go build -o echo .\n    command: exec ./echo 2\n    routes: [/other/*]\n    health: {route: /healthz, grace: 3s}\n    uses: [temps]\n"
	declare := func(series string) { write(t, dir, map[string]string{"tenfold.yaml": manifest("1", second+series)}) }
	declare("series: {prices: 90d, temps: {accept: [influx]}}\n")
	h.up(dir)
	prices := seriesAt(h.environ("echo 1")["SERIES_URL"])
	temps := seriesAt(h.environ("echo 2")["SERIES_URL"])
	if !strings.HasPrefix(string(prices), "http://api:") || !strings.HasSuffix(string(prices), "/prices") || !strings.HasPrefix(string(temps), "http://other:") {
		t.Fatal(prices, temps)
	}

	if code, out := prices.send("POST", "/write?precision=s", fmt.Appendf(nil, "gold,market=london usd=2400 %d\ngold,market=zurich usd=2401 %d\n", time.Now().Unix(), time.Now().Unix())); code != 204 {
		t.Fatal(code, out)
	}
	if code, out := prices.send("POST", "/api/v1/write", enginetest.RemoteWrite(31, time.Now(), "silver_usd", "market", "london"), "Content-Encoding", "snappy", "Content-Type", "application/x-protobuf"); code != 204 {
		t.Fatal(code, out)
	}
	code, out := prices.send("POST", "/v1/metrics", enginetest.OTLP(980, time.Now(), "platinum.usd", "market", "london"), "Content-Type", "application/x-protobuf")
	if otlp && code != 200 || !otlp && (code != 501 || !strings.Contains(out, "has no OTLP")) {
		t.Error(code, out)
	}
	written := func(when string) {
		t.Helper()
		eventually(t, "gold "+when, 30*time.Second, func() bool { return prices.value("sum(last_over_time(gold_usd[1h]))") == "4801" })
		eventually(t, "silver "+when, 30*time.Second, func() bool { return prices.value("sum(last_over_time(silver_usd[1h]))") == "31" })
		if otlp {
			eventually(t, "platinum "+when, 30*time.Second, func() bool { return prices.value("sum(last_over_time(platinum_usd[1h]))") == "980" })
		}
	}
	written("at first")

	// Who may what.
	u, err := url.Parse(string(prices))
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := seriesAt(strings.TrimSuffix(string(temps), "/temps") + "/prices")
	if code, out := elsewhere.send("GET", "/api/v1/query?query=up", nil); code != 403 || !strings.Contains(out, "add `uses: [prices]` to service other (tenfold.yaml:") {
		t.Error(code, out)
	}
	if code, out := seriesAt("http://"+u.Host+"/prices").send("POST", "/write", []byte("gold usd=1")); code != 401 {
		t.Error(code, out)
	}
	if code, out := temps.send("POST", "/api/v1/write", nil); code != 403 || !strings.Contains(out, "series.temps.accept has no remote-write") {
		t.Error(code, out)
	}
	if code, out := prices.send("POST", "/api/v1/admin/tsdb/delete_series?match[]=gold_usd", nil); code != 404 {
		t.Error(code, out)
	}

	// What lies on disk outlives any death; while the engine is away requests wait.
	onDisk := func(of string) {
		t.Helper()
		eventually(t, "values of "+of+" on disk", 60*time.Second, func() bool {
			values, _ := filepath.Glob(filepath.Join(h.dir, "series/echo/production", of, "data/data/small/*/*/timestamps.bin"))
			names, _ := filepath.Glob(filepath.Join(h.dir, "series/echo/production", of, "data/indexdb/*/*/items.bin"))
			return len(values) > 0 && len(names) > 0
		})
	}
	onDisk("prices")
	t.Run("deaths", func(t *testing.T) {
		var refused []string
		var wg sync.WaitGroup
		done := make(chan struct{})
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				if code, out := prices.send("POST", "/write", fmt.Appendf(nil, "ticks n=%d", n)); code != 204 {
					refused = append(refused, fmt.Sprint(code, " ", out))
				}
			}
		})
		for range 3 {
			h.kill("/prices/data")
			written("after the death of the engine")
		}
		h.kill("house daemon")
		written("after the death of the daemon")
		eventually(t, "the daemon", 20*time.Second, func() bool { _, status := h.runIn(dir, "status"); return status == 0 })
		close(done)
		wg.Wait()
		if len(refused) > 0 {
			t.Errorf("%d writes were not taken: %s", len(refused), refused[0])
		}
		h.kill("house series")
		written("after the death of the front")
	})

	// Another keep starts the engine anew, on the same data.
	before := h.process("/prices/data")
	declare("series: {prices: {keep: 30d, every: 10s}, temps: {accept: [influx]}}\n")
	h.up(dir)
	if after := h.process("/prices/data"); after == before || !strings.Contains(h.mine()[after], "-retentionPeriod=30d") {
		t.Errorf("%d, then %d: %s", before, after, h.mine()[after])
	}
	written("with another keep")

	if !otlp {
		declare("series: {prices: {keep: 30d, every: 10s, accept: [otlp]}, temps: {accept: [influx]}}\n")
		if out, status := h.runIn(dir, "deploy"); status == 0 || !strings.Contains(out, "has no OTLP") || !strings.Contains(out, "hint: install a newer one") {
			t.Error(status, out)
		}
		written("after a deploy that failed")
	}

	eventually(t, "figures", 30*time.Second, func() bool {
		out := h.must(dir, "metrics")
		return strings.Contains(out, `series="prices",protocol="influx"`) && strings.Contains(out, "series_size_bytes{")
	})
	if out := h.must(dir, "status"); !strings.Contains(out, "VictoriaMetrics") {
		t.Error(out)
	}

	// What left the manifest stays until a person removes it.
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "")})
	h.up(dir)
	eventually(t, "series that are kept", 20*time.Second, func() bool { return strings.Contains(h.must(dir, "kept"), "series/prices") })
	if pid := h.process("/prices/data"); pid > 0 {
		t.Error("its engine runs on")
	}
	declare("series: {prices: 30d, temps: {accept: [influx]}}\n")
	h.up(dir)
	written("after it had left the manifest")
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "")})
	h.up(dir)
	for _, name := range []string{"prices", "temps"} {
		eventually(t, name+" is removed", 20*time.Second, func() bool {
			_, status := h.runIn(dir, "kept", "remove", "echo/production/series/"+name, "--yes")
			return status == 0
		})
	}
	if left, _ := filepath.Glob(filepath.Join(h.dir, "series/echo/production/*")); len(left) > 0 {
		t.Error("left: ", left)
	}
	eventually(t, "no process for series", 20*time.Second, func() bool { return h.process("house series") <= 0 })
	h.must(dir, "down")
}
