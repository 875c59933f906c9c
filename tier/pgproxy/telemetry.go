package pgproxy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"strings"
	"time"

	common "go.opentelemetry.io/proto/slim/otlp/common/v1"
	metrics "go.opentelemetry.io/proto/slim/otlp/metrics/v1"
	resource "go.opentelemetry.io/proto/slim/otlp/resource/v1"
	trace "go.opentelemetry.io/proto/slim/otlp/trace/v1"

	"tenfold/internal/otlp"
	"tenfold/internal/pooldir"
)

const (
	spansKept   = 4096 // that wait to be sent; more are dropped, and counted
	spansAtOnce = 512
	spansEvery  = 2 * time.Second
	// statementsTold is of how many fingerprints metrics speak, those that took most time.
	statementsTold = 50
	lastWords      = 3 * time.Second // for what is left at the end
)

// span is a statement of a request that is traced.
type span struct {
	pooldir.Slow
	database, id, server string
}

// spans sends what loops saw to a collector. Loops never wait for it.
type spans struct {
	p    *Proxy
	to   *otlp.Exporter
	feed chan span
}

func newSpans(p *Proxy, to *otlp.Exporter) *spans {
	return &spans{p: p, to: to, feed: make(chan span, spansKept)}
}

func (s *spans) add(x span) {
	select {
	case s.feed <- x:
	default: // the collector is away or slow
	}
}

// run sends until ctx ends, and then what is left.
func (s *spans) run(ctx context.Context) {
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() { // a receiver that hangs does not hold the pool's end up
		t := time.AfterFunc(lastWords, stop)
		context.AfterFunc(sending, func() { t.Stop() })
	})()
	began := time.Now()
	batches, measures := time.NewTicker(spansEvery), time.NewTicker(s.to.Interval)
	defer batches.Stop()
	defer measures.Stop()
	var batch []span
	flush := func() {
		if len(batch) > 0 {
			s.tell(s.to.SendTraces(sending, tracesOf(batch)))
			batch = batch[:0]
		}
	}
	for {
		select {
		case x := <-s.feed:
			if batch = append(batch, x); len(batch) >= spansAtOnce {
				flush()
			}
		case <-batches.C:
			flush()
		case <-measures.C:
			s.tell(s.to.SendMetrics(sending, s.p.metrics(began, time.Now())))
		case <-ctx.Done():
			for len(s.feed) > 0 {
				batch = append(batch, <-s.feed)
			}
			flush()
			return
		}
	}
}

func (s *spans) tell(err error) {
	if err != nil {
		s.p.cfg.Log.Warn("telemetry is lost", "err", err)
	}
}

func label(k, v string) *common.KeyValue {
	return &common.KeyValue{Key: k, Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: v}}}
}

func whole(k string, n int64) *common.KeyValue {
	return &common.KeyValue{Key: k, Value: &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: n}}}
}

func seconds(k string, d time.Duration) *common.KeyValue {
	return &common.KeyValue{Key: k, Value: &common.AnyValue{Value: &common.AnyValue_DoubleValue{DoubleValue: d.Seconds()}}}
}

// poolResource is who speaks: the pool of one database.
func poolResource(id string) *resource.Resource {
	return &resource.Resource{Attributes: []*common.KeyValue{label("service.name", "tenfold-pool"), label("service.instance.id", id)}}
}

// tracesOf makes spans, names by OpenTelemetry's conventions for databases. A statement's span begins when
// its client began to wait for a connection; the event says when it had one.
func tracesOf(list []span) *trace.TracesData {
	byID := map[string]*trace.ScopeSpans{}
	out := &trace.TracesData{}
	for _, x := range list {
		to := byID[x.id]
		if to == nil {
			to = &trace.ScopeSpans{Scope: &common.InstrumentationScope{Name: "tenfold/tier/pgproxy"}}
			byID[x.id] = to
			out.ResourceSpans = append(out.ResourceSpans, &trace.ResourceSpans{Resource: poolResource(x.id), ScopeSpans: []*trace.ScopeSpans{to}})
		}
		if s := x.otlp(); s != nil {
			to.Spans = append(to.Spans, s)
		}
	}
	return out
}

func (x span) otlp() *trace.Span {
	parts := strings.Split(x.Trace, "-")
	if len(parts) != 4 {
		return nil
	}
	id, err := hex.DecodeString(parts[1])
	parent, perr := hex.DecodeString(parts[2])
	if err != nil || perr != nil {
		return nil
	}
	own := make([]byte, 8)
	rand.Read(own)
	verb, _, _ := strings.Cut(x.Query, " ")
	verb = strings.ToUpper(verb[:min(len(verb), 20)])
	got := x.At.Add(-x.Took)
	s := &trace.Span{
		TraceId: id, SpanId: own, ParentSpanId: parent, Flags: 1, Name: verb + " " + x.database, Kind: trace.Span_SPAN_KIND_CLIENT,
		StartTimeUnixNano: uint64(got.Add(-x.Waited).UnixNano()), EndTimeUnixNano: uint64(x.At.UnixNano()),
		Attributes: []*common.KeyValue{
			label("db.system.name", "postgresql"), label("db.namespace", x.database), label("db.operation.name", verb), label("db.query.text", x.Query),
			whole("db.response.returned_rows", int64(x.Rows)), label("server.address", x.server), label("tenfold.fingerprint", x.Fingerprint),
			label("tenfold.application", x.Application), seconds("tenfold.pool.wait", x.Waited),
		},
		Events: []*trace.Span_Event{{TimeUnixNano: uint64(got.UnixNano()), Name: "connection borrowed"}},
	}
	if x.Code != "" {
		s.Attributes = append(s.Attributes, label("db.response.status_code", x.Code), label("error.type", x.Code))
		s.Status = &trace.Status{Code: trace.Status_STATUS_CODE_ERROR}
	}
	return s
}

// metrics are what every loop counted since the process began.
func (p *Proxy) metrics(began, now time.Time) *metrics.MetricsData {
	m := measuring{from: uint64(began.UnixNano()), at: uint64(now.UnixNano())}
	out := &metrics.MetricsData{}
	views := p.View()
	for id, st := range p.Stats() {
		m.list = nil
		m.gauge("db.client.connection.count", "{connection}", float64(st.Servers-st.Busy), label("db.client.connection.state", "idle"))
		m.gauge("db.client.connection.count", "{connection}", float64(st.Busy), label("db.client.connection.state", "used"))
		m.gauge("db.client.connection.pending_requests", "{request}", float64(st.Waiting))
		m.gauge("tenfold.pool.clients", "{client}", float64(st.Clients))
		m.sum("db.client.connection.timeouts", "{timeout}", float64(st.TimedOut))
		m.sum("tenfold.pool.transactions", "{transaction}", float64(st.Transactions))
		m.sum("tenfold.pool.queries", "{query}", float64(st.Queries))
		m.sum("tenfold.pool.errors", "{error}", float64(st.Errors))
		waits := make([]float64, len(st.Waits)-1)
		for i := range waits {
			waits[i] = float64(uint64(1)<<i) / 1e6
		}
		m.histogram("db.client.connection.wait_time", waits, st.Waits[:], st.Waited)
		bounds := make([]float64, len(pooldir.TimeBounds))
		for i, b := range pooldir.TimeBounds {
			bounds[i] = b.Seconds()
		}
		m.histogram("db.client.operation.duration", bounds, st.Execs[:], st.Executed)
		all := views[id].Statements
		for _, s := range all[:min(len(all), statementsTold)] {
			m.histogram("tenfold.pool.statement.duration", bounds, s.Times[:], s.Executed, label("tenfold.fingerprint", s.Fingerprint), label("db.query.summary", brief(s.Query)))
		}
		out.ResourceMetrics = append(out.ResourceMetrics, &metrics.ResourceMetrics{Resource: poolResource(id), ScopeMetrics: []*metrics.ScopeMetrics{{Scope: &common.InstrumentationScope{Name: "tenfold/tier/pgproxy"}, Metrics: m.list}}})
	}
	return out
}

// brief is as much of a text as a label should have.
func brief(s string) string {
	if len(s) <= 120 {
		return s
	}
	return strings.ToValidUTF8(s[:117], "") + "…"
}

// measuring collects metrics of one database; those of one name are one metric.
type measuring struct {
	from, at uint64
	list     []*metrics.Metric
}

func (m *measuring) named(name, unit string) *metrics.Metric {
	for _, x := range m.list {
		if x.Name == name {
			return x
		}
	}
	x := &metrics.Metric{Name: name, Unit: unit}
	m.list = append(m.list, x)
	return x
}

func (m *measuring) point(v float64, attributes []*common.KeyValue) *metrics.NumberDataPoint {
	return &metrics.NumberDataPoint{StartTimeUnixNano: m.from, TimeUnixNano: m.at, Value: &metrics.NumberDataPoint_AsDouble{AsDouble: v}, Attributes: attributes}
}

func (m *measuring) gauge(name, unit string, v float64, attributes ...*common.KeyValue) {
	x := m.named(name, unit)
	g, ok := x.Data.(*metrics.Metric_Gauge)
	if !ok {
		g = &metrics.Metric_Gauge{Gauge: &metrics.Gauge{}}
		x.Data = g
	}
	g.Gauge.DataPoints = append(g.Gauge.DataPoints, m.point(v, attributes))
}

func (m *measuring) sum(name, unit string, v float64) {
	m.named(name, unit).Data = &metrics.Metric_Sum{Sum: &metrics.Sum{IsMonotonic: true, AggregationTemporality: metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE, DataPoints: []*metrics.NumberDataPoint{m.point(v, nil)}}}
}

func (m *measuring) histogram(name string, bounds []float64, counts []uint64, sum time.Duration, attributes ...*common.KeyValue) {
	x := m.named(name, "s")
	h, ok := x.Data.(*metrics.Metric_Histogram)
	if !ok {
		h = &metrics.Metric_Histogram{Histogram: &metrics.Histogram{AggregationTemporality: metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE}}
		x.Data = h
	}
	total, took := uint64(0), sum.Seconds()
	for _, n := range counts {
		total += n
	}
	h.Histogram.DataPoints = append(h.Histogram.DataPoints, &metrics.HistogramDataPoint{
		StartTimeUnixNano: m.from, TimeUnixNano: m.at, Count: total, Sum: &took, ExplicitBounds: bounds, BucketCounts: counts, Attributes: attributes,
	})
}
