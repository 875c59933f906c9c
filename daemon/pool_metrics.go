package daemon

import (
	"context"
	"fmt"
	"strings"
	"time"

	"tenfold/internal/pooldir"
	"tenfold/tier/pgproxy"
)

// metrics writes the pools' counters in Prometheus' text format, names by OpenTelemetry's conventions
// where there are some.
func (p *pools) metrics(ctx context.Context, b *strings.Builder) {
	stats := p.stats(ctx)
	each := func(name, kind string, of func(pgproxy.Stats) float64) {
		fmt.Fprintf(b, "# TYPE %s %s\n", name, kind)
		for id, s := range stats {
			fmt.Fprintf(b, "%s{database=%s} %g\n", name, quote(id), of(s))
		}
	}
	each("db_client_connection_count", "gauge", func(s pgproxy.Stats) float64 { return float64(s.Servers) })
	each("db_pool_clients", "gauge", func(s pgproxy.Stats) float64 { return float64(s.Clients) })
	each("db_pool_pinned", "gauge", func(s pgproxy.Stats) float64 { return float64(s.Pinned) })
	each("db_client_connection_pending_requests", "gauge", func(s pgproxy.Stats) float64 { return float64(s.Waiting) })
	each("db_client_connection_timeouts_total", "counter", func(s pgproxy.Stats) float64 { return float64(s.TimedOut) })
	each("db_pool_queries_total", "counter", func(s pgproxy.Stats) float64 { return float64(s.Queries) })
	each("db_pool_transactions_total", "counter", func(s pgproxy.Stats) float64 { return float64(s.Transactions) })
	each("db_pool_errors_total", "counter", func(s pgproxy.Stats) float64 { return float64(s.Errors) })
	each("db_pool_refused_logins_total", "counter", func(s pgproxy.Stats) float64 { return float64(s.Refused) })
	each("db_pool_tls_failures_total", "counter", func(s pgproxy.Stats) float64 { return float64(s.Unshaken) })
	each("db_pool_split_reads_total", "counter", func(s pgproxy.Stats) float64 { return float64(s.Split) })
	each("db_pool_cache_hits_total", "counter", func(s pgproxy.Stats) float64 { return float64(s.CacheHits) })
	each("db_pool_cache_misses_total", "counter", func(s pgproxy.Stats) float64 { return float64(s.CacheMisses) })
	each("db_pool_cache_invalidations_total", "counter", func(s pgproxy.Stats) float64 { return float64(s.CacheInvalidations) })
	each("db_pool_cache_bytes", "gauge", func(s pgproxy.Stats) float64 { return float64(s.CacheBytes) })
	each("db_pool_retries_total", "counter", func(s pgproxy.Stats) float64 { return float64(s.Retried) })
	each("db_pool_sent_ahead_total", "counter", func(s pgproxy.Stats) float64 { return float64(s.Ahead) })
	each("db_pool_taken_back_total", "counter", func(s pgproxy.Stats) float64 { return float64(s.TakenBack) })
	b.WriteString("# TYPE db_pool_pins_total counter\n")
	for id, s := range stats {
		for reason, n := range s.Pins {
			fmt.Fprintf(b, "db_pool_pins_total{database=%s,reason=%s} %d\n", quote(id), quote(reason), n)
		}
	}
	const waits, times = "db_client_connection_wait_time_seconds", "db_client_operation_duration_seconds"
	b.WriteString("# TYPE " + waits + " histogram\n")
	for id, s := range stats {
		histogram(b, waits, "database="+quote(id), s.Waits[:], s.Waited, func(i int) time.Duration { return time.Duration(1<<i) * time.Microsecond })
	}
	b.WriteString("# TYPE " + times + " histogram\n")
	for id, s := range stats {
		histogram(b, times, "database="+quote(id), s.Execs[:], s.Executed, func(i int) time.Duration { return pooldir.TimeBounds[i] })
	}
	p.statementMetrics(ctx, b)
}

// statementsTold is of how many fingerprints of a database metrics speak, those that took most time.
const statementsTold = 50

// statementMetrics writes what became of statements, by fingerprint; the text of each is in a metric of its
// own, to be joined with.
func (p *pools) statementMetrics(ctx context.Context, b *strings.Builder) {
	views := p.views(ctx)
	each := func(name, kind string, of func(labels string, s pooldir.Statement)) {
		fmt.Fprintf(b, "# TYPE %s %s\n", name, kind)
		for id, v := range views {
			for _, s := range v.Statements[:min(len(v.Statements), statementsTold)] {
				of("database="+quote(id)+",fingerprint="+quote(s.Fingerprint), s)
			}
		}
	}
	const times = "db_pool_statement_duration_seconds"
	each(times, "histogram", func(labels string, s pooldir.Statement) {
		histogram(b, times, labels, s.Times[:], s.Executed, func(i int) time.Duration { return pooldir.TimeBounds[i] })
	})
	counter := func(name string, of func(pooldir.Statement) float64) {
		each(name, "counter", func(labels string, s pooldir.Statement) { fmt.Fprintf(b, "%s{%s} %g\n", name, labels, of(s)) })
	}
	counter("db_pool_statement_rows_total", func(s pooldir.Statement) float64 { return float64(s.Rows) })
	counter("db_pool_statement_errors_total", func(s pooldir.Statement) float64 { return float64(s.Failed()) })
	counter("db_pool_statement_wait_seconds_total", func(s pooldir.Statement) float64 { return s.Waited.Seconds() })
	each("db_pool_statement_info", "gauge", func(labels string, s pooldir.Statement) {
		text := strings.ToValidUTF8(s.Query[:min(len(s.Query), 200)], "")
		fmt.Fprintf(b, "db_pool_statement_info{%s,query=%s} 1\n", labels, quote(text))
	})
}

// histogram writes one series; the last of counts is of what is above all bounds.
func histogram(b *strings.Builder, name, labels string, counts []uint64, sum time.Duration, bound func(int) time.Duration) {
	total := uint64(0)
	for i, n := range counts {
		le := "+Inf"
		if i < len(counts)-1 {
			le = fmt.Sprint(bound(i).Seconds())
		}
		total += n
		fmt.Fprintf(b, "%s_bucket{%s,le=\"%s\"} %d\n", name, labels, le, total)
	}
	fmt.Fprintf(b, "%s_sum{%s} %g\n%s_count{%s} %d\n", name, labels, sum.Seconds(), name, labels, total)
}

// views asks every pool what it has seen, by ID of its database.
func (p *pools) views(ctx context.Context) map[string]pooldir.View {
	return askAll(ctx, p, (*pgproxy.Remote).View)
}
