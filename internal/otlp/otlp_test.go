package otlp

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	trace "go.opentelemetry.io/proto/slim/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

func TestFromEnv(t *testing.T) {
	of := func(vars map[string]string) *Exporter { return from(func(k string) string { return vars[k] }) }
	if e := of(nil); e != nil {
		t.Errorf("%+v", e)
	}
	e := of(map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318/", "OTEL_EXPORTER_OTLP_HEADERS": "a=b, c=d%20e", "OTEL_METRIC_EXPORT_INTERVAL": "500"})
	if e.Traces != "http://h:4318/v1/traces" || e.Metrics != "http://h:4318/v1/metrics" || e.Header.Get("C") != "d e" || e.Interval != 500*time.Millisecond {
		t.Errorf("%+v", e)
	}
	e = of(map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h/x", "OTEL_METRICS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h"})
	if e.Traces != "http://h/x" || e.Metrics != "" {
		t.Errorf("%+v", e)
	}
	if e := of(map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h", "OTEL_SDK_DISABLED": "true"}); e != nil {
		t.Errorf("%+v", e)
	}
}

// inProcess answers requests without a socket, so that time is virtual.
type inProcess struct{ http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w.Result(), nil
}

func TestSendTriesAgainWhenAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var codes = []int{503, 429, 200}
		var got trace.TracesData
		n := 0
		e := &Exporter{Traces: "http://h/v1/traces", Client: &http.Client{Transport: inProcess{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			if err := proto.Unmarshal(b, &got); err != nil || r.Header.Get("Content-Type") != "application/x-protobuf" {
				t.Error(err, r.Header)
			}
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(codes[n])
			n++
		})}}}
		begun := time.Now()
		if err := e.SendTraces(t.Context(), &trace.TracesData{ResourceSpans: []*trace.ResourceSpans{{SchemaUrl: "x"}}}); err != nil {
			t.Error(err)
		}
		if n != 3 || time.Since(begun) != 14*time.Second || got.ResourceSpans[0].SchemaUrl != "x" {
			t.Error(n, time.Since(begun))
		}
		codes, n = []int{400}, 0
		if err := e.SendTraces(t.Context(), &trace.TracesData{}); err == nil || n != 1 {
			t.Error(err, n)
		}
		if err := e.SendMetrics(t.Context(), nil); err != nil {
			t.Error(err)
		}
	})
}
