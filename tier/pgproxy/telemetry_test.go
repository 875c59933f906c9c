package pgproxy

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	metrics "go.opentelemetry.io/proto/slim/otlp/metrics/v1"
	trace "go.opentelemetry.io/proto/slim/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"net/url"

	"tenfold/internal/enginetest"
	"tenfold/internal/otlp"
)

// collector takes what is sent to it.
type collector struct {
	mu      sync.Mutex
	spans   []*trace.Span
	metrics map[string]*metrics.Metric
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r.URL.Path {
	case "/v1/traces":
		var d trace.TracesData
		if proto.Unmarshal(b, &d) != nil {
			w.WriteHeader(400)
		}
		for _, x := range d.ResourceSpans {
			c.spans = append(c.spans, x.ScopeSpans[0].Spans...)
		}
	case "/v1/metrics":
		var d metrics.MetricsData
		if proto.Unmarshal(b, &d) != nil {
			w.WriteHeader(400)
		}
		for _, x := range d.ResourceMetrics {
			for _, m := range x.ScopeMetrics[0].Metrics {
				c.metrics[m.Name] = m
			}
		}
	}
}

func attribute(s *trace.Span, key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}

// A statement that carries a sampled traceparent is a span of its request, however it is sent; one that
// does not carry one, or is not sampled, is none. What is slow is remembered with it.
func TestStatementsAreSpansOfTheirRequests(t *testing.T) {
	u, err := url.Parse(enginetest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{metrics: map[string]*metrics.Metric{}}
	to := httptest.NewServer(c)
	defer to.Close()
	f := made(t, u.Host, Config{Telemetry: &otlp.Exporter{Traces: to.URL + "/v1/traces", Metrics: to.URL + "/v1/metrics", Interval: 50 * time.Millisecond}})
	conn := f.connect()
	id := func(n byte) string { return strings.Repeat("0", 30) + hex.EncodeToString([]byte{n}) }
	comment := func(n byte, flags string) string {
		return " /*framework='x',traceparent='00-" + id(n) + "-00000000000000" + hex.EncodeToString([]byte{n}) + "-" + flags + "'*/"
	}
	ctx := t.Context()
	modes := []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeDescribeExec}
	for i, mode := range modes {
		if _, err := conn.Exec(ctx, "select $1::int + 1"+comment(byte(i+1), "01"), mode, 7); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(ctx, "select $1::int + 1"+comment(byte(i+100), "00"), mode, 7); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(ctx, "select $1::int + 1", mode, 7); err != nil {
			t.Fatal(err)
		}
	}
	conn.Exec(ctx, "select 1 / $1::int"+comment(50, "01"), pgx.QueryExecModeExec, 0)
	f.exec(conn, "select pg_sleep(0.15)"+comment(51, "01"))
	// The text is one, whatever request it is for: it is prepared once.
	if st := f.stats(); st.Parsed > 6 {
		t.Errorf("%d statements were prepared", st.Parsed)
	}
	view := f.View()[f.db.ID]
	if len(view.Slow) == 0 || !strings.Contains(view.Slow[0].Trace, id(51)) || view.Slow[0].Took < 100*time.Millisecond || view.Slow[0].User != "test" {
		t.Errorf("%+v", view.Slow)
	}
	admin, err := pgx.Connect(ctx, strings.Replace(f.dsn(), "/postgres", "/tenfold", 1)+"&default_query_exec_mode=simple_protocol")
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(ctx)
	rows, err := admin.Query(ctx, "show slow")
	if err != nil {
		t.Fatal(err)
	}
	slow, err := pgx.CollectRows(rows, pgx.RowToMap)
	if err != nil || len(slow) == 0 || !strings.Contains(slow[0]["traceparent"].(string), id(51)) {
		t.Error(slow, err)
	}
	for { // metrics come by a timer
		c.mu.Lock()
		m := c.metrics["db.client.operation.duration"]
		c.mu.Unlock()
		if m != nil && m.GetHistogram().DataPoints[0].Count >= 14 {
			break
		}
	}
	f.stop() // it sends what is left
	c.mu.Lock()
	defer c.mu.Unlock()
	byTrace := map[string][]*trace.Span{}
	for _, s := range c.spans {
		k := hex.EncodeToString(s.TraceId)
		byTrace[k] = append(byTrace[k], s)
	}
	for n := byte(1); int(n) <= len(modes); n++ {
		if got := byTrace[id(n)]; len(got) != 1 || got[0].ParentSpanId[7] != n || !strings.HasPrefix(attribute(got[0], "db.query.text"), "select") || got[0].Name != "SELECT postgres" {
			t.Errorf("mode %v: %d spans: %v", modes[n-1], len(got), got)
		}
		if len(byTrace[id(n+99)]) != 0 {
			t.Error("one that is not sampled was sent")
		}
	}
	if got := byTrace[id(50)]; len(got) != 1 || got[0].Status.GetCode() != trace.Status_STATUS_CODE_ERROR || attribute(got[0], "error.type") != "22012" {
		t.Errorf("%v", got)
	}
	if got := byTrace[id(51)]; len(got) != 1 || got[0].EndTimeUnixNano-got[0].StartTimeUnixNano < uint64(100*time.Millisecond) {
		t.Errorf("%v", got)
	}
	if len(c.spans) != len(modes)+2 {
		t.Errorf("%d spans", len(c.spans))
	}
	for _, name := range []string{"db.client.connection.wait_time", "tenfold.pool.statement.duration", "db.client.connection.count"} {
		if c.metrics[name] == nil {
			t.Errorf("no %s", name)
		}
	}
}
