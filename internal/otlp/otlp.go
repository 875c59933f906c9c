// Package otlp sends spans and metrics by OTLP over HTTP, in protobuf, to where the usual variables of
// OpenTelemetry say. It batches nothing and keeps nothing; begin at FromEnv.
// Source: "OTLP Specification 1.x", "OpenTelemetry Protocol Exporter".
package otlp

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	metrics "go.opentelemetry.io/proto/slim/otlp/metrics/v1"
	trace "go.opentelemetry.io/proto/slim/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Exporter sends. It may be used by many.
type Exporter struct {
	Traces, Metrics string // URLs; "": not sent
	Header          http.Header
	Client          *http.Client // nil: http.DefaultClient
	// Interval is between two looks at metrics.
	Interval time.Duration
}

// defaultInterval is OpenTelemetry's.
const defaultInterval = time.Minute

// FromEnv reads OTEL_EXPORTER_OTLP_ENDPOINT and those beside it (…_TRACES_ENDPOINT, …_METRICS_ENDPOINT,
// …_HEADERS), OTEL_METRIC_EXPORT_INTERVAL, OTEL_SDK_DISABLED and OTEL_{TRACES,METRICS}_EXPORTER. nil:
// nothing is to be sent.
func FromEnv() *Exporter { return from(os.Getenv) }

func from(env func(string) string) *Exporter {
	e := &Exporter{
		Traces: endpoint(env, "TRACES", "v1/traces"), Metrics: endpoint(env, "METRICS", "v1/metrics"), Header: http.Header{},
		Interval: defaultInterval,
	}
	if strings.EqualFold(env("OTEL_SDK_DISABLED"), "true") || e.Traces == "" && e.Metrics == "" {
		return nil
	}
	for pair := range strings.SplitSeq(env("OTEL_EXPORTER_OTLP_HEADERS"), ",") {
		k, v, ok := strings.Cut(pair, "=")
		if v, err := url.PathUnescape(strings.TrimSpace(v)); ok && err == nil {
			e.Header.Set(strings.TrimSpace(k), v)
		}
	}
	if ms, err := strconv.Atoi(env("OTEL_METRIC_EXPORT_INTERVAL")); err == nil && ms > 0 {
		e.Interval = time.Duration(ms) * time.Millisecond
	}
	return e
}

// endpoint is where one kind goes: its own as it stands, or a path below that of all.
func endpoint(env func(string) string, kind, path string) string {
	if env("OTEL_"+kind+"_EXPORTER") == "none" {
		return ""
	}
	if own := env("OTEL_EXPORTER_OTLP_" + kind + "_ENDPOINT"); own != "" {
		return own
	}
	all := env("OTEL_EXPORTER_OTLP_ENDPOINT")
	if all == "" {
		return ""
	}
	return strings.TrimSuffix(all, "/") + "/" + path
}

// SendTraces sends spans. The message is, byte for byte, an ExportTraceServiceRequest.
func (e *Exporter) SendTraces(ctx context.Context, t *trace.TracesData) error {
	return e.send(ctx, e.Traces, t)
}

// SendMetrics sends metrics.
func (e *Exporter) SendMetrics(ctx context.Context, m *metrics.MetricsData) error {
	return e.send(ctx, e.Metrics, m)
}

// tries is how often something is sent that a receiver says it may take later.
const tries = 3

func (e *Exporter) send(ctx context.Context, to string, m proto.Message) error {
	if to == "" {
		return nil
	}
	b, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("send telemetry: %w", err)
	}
	for n := 1; ; n++ {
		again, err := e.post(ctx, to, b)
		if err == nil || again == 0 || n == tries {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(again):
		}
	}
}

// post sends once; again is after which time it may be tried again, 0: not at all.
func (e *Exporter) post(ctx context.Context, to string, b []byte) (again time.Duration, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(b))
	if err != nil {
		return 0, fmt.Errorf("send telemetry: %w", err)
	}
	for k, v := range e.Header {
		r.Header[k] = v
	}
	r.Header.Set("Content-Type", "application/x-protobuf")
	client := e.Client
	if client == nil {
		client = http.DefaultClient
	}
	res, err := client.Do(r)
	if err != nil {
		return time.Second, fmt.Errorf("send telemetry: %w", err)
	}
	defer res.Body.Close()
	io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	switch res.StatusCode {
	case http.StatusOK, http.StatusAccepted, http.StatusNoContent:
		return 0, nil
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		again = time.Second
		if s, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && s > 0 {
			again = min(time.Duration(s)*time.Second, 30*time.Second)
		}
	}
	return again, fmt.Errorf("send telemetry: %s answered %s", to, res.Status)
}
