package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/directory"
	"tenfold/internal/tasklog"
	"tenfold/tier/compute"
)

func now() time.Time { return time.Now() }

// Run implements control.API.
func (h *house) Run(ctx context.Context, r control.RunRequest, yield func(control.LogLine) error) error {
	if _, err := h.environment(ctx, r.Env); err != nil {
		return err
	}
	id := tenfold.ID{App: r.App, Env: r.Env.Env, Kind: tenfold.KindJob, Name: r.Name}
	if len(r.Command) > 0 {
		id.Kind = tenfold.KindService
		if err := h.audit(ctx, r.App, r.Env.Env, "run", id.Short(), strings.Join(r.Command, " ")); err != nil {
			return err
		}
	}
	launched, err := h.launch(ctx, id, r.Command)
	if err != nil || r.Detach {
		return err
	}
	follow, stop := context.WithCancel(ctx)
	defer stop()
	shown := time.Time{}
	done := make(chan struct{})
	var failed error
	go func() {
		defer close(done)
		failed = tail(follow, launched.Log, launched.Began, func(l tasklog.Line) error {
			shown = l.At
			return yield(logLine(string(r.Name), l))
		})
	}()
	ended, err := h.compute.WaitRun(ctx, launched)
	stop()
	<-done
	if err := errors.Join(err, failed); err != nil || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	rest, err := tasklog.Read(launched.Log, tasklog.Options{Since: laterOf(shown, launched.Began)})
	if err != nil {
		return err
	}
	for _, l := range rest {
		if err := yield(logLine(string(r.Name), l)); err != nil {
			return err
		}
	}
	return yield(control.LogLine{At: now(), From: string(r.Name), Text: ended.Error, Exit: &ended.Exit})
}

func (h *house) launch(ctx context.Context, id tenfold.ID, argv []string) (compute.Run, error) {
	if id.Kind == tenfold.KindService {
		return h.compute.Exec(ctx, id, argv)
	}
	return h.compute.RunJob(ctx, id)
}

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// tail yields what a log has since a time and what comes, until ctx ends.
func tail(ctx context.Context, path string, since time.Time, yield func(tasklog.Line) error) error {
	for ctx.Err() == nil {
		lines, err := tasklog.Read(path, tasklog.Options{Since: since})
		if err != nil {
			return err
		}
		for _, l := range lines {
			since = l.At
			if err := yield(l); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

// Shutdown implements control.API: every app goes down in order, then the keeper ends the rest.
func (h *house) Shutdown(ctx context.Context) error {
	envs, err := h.store.Environments(ctx)
	if err != nil {
		return err
	}
	for _, e := range envs {
		if err := h.Down(ctx, control.Env{App: tenfold.AppName(e.App), Env: tenfold.Environment(e.Env)}); err != nil {
			return err
		}
	}
	return h.keeper.Shutdown(ctx)
}

// Upgrade implements control.API: the keeper becomes the binary in place, the daemon ends and is
// started from it, and the new daemon replaces the door. Tasks and databases run on.
func (h *house) Upgrade(ctx context.Context, binary string, linger time.Duration) error {
	if !filepath.IsAbs(binary) {
		return tenfold.Errorf(tenfold.CodeInvalid, "%q is not an absolute path", binary)
	}
	if linger < 0 || linger > 30*24*time.Hour {
		return tenfold.Errorf(tenfold.CodeInvalid, "connections cannot linger for %s", linger).WithHint("write --linger 1h")
	}
	s, err := LoadSettings(h.layout) // as they are on disk: up may have changed them
	if err != nil {
		return err
	}
	if s.Linger = linger; s.Linger == 0 {
		s.Linger = lingerFor
	}
	if err := s.Save(h.layout); err != nil {
		return err
	}
	if err := h.keeper.Reexec(ctx, binary); err != nil {
		return tenfold.Errorf(tenfold.CodeFailed, "%w", err).WithHint("the old version runs on; is %s this machine's tenfold?", binary)
	}
	if err := h.audit(ctx, "", "", "upgrade", "house", "asked for; binary "+binary); err != nil {
		return err
	}
	// The signal ends this very process and may overtake the answer: the caller waits for the next one.
	return h.keeper.Signal(context.WithoutCancel(ctx), "house/daemon", int(syscall.SIGTERM))
}

// traffic sums up what the door saw of an environment.
func (h *house) traffic(ctx context.Context, e control.Env) control.Traffic {
	var out control.Traffic
	r, err := h.edge.Report(ctx, true)
	if err != nil {
		return out
	}
	buckets := make([]uint64, len(directory.Bounds)+1)
	for _, c := range r.Routes {
		if c.App != string(e.App) || c.Env != string(e.Env) {
			continue
		}
		out.Hits += c.Hits
		for i, n := range c.Class {
			out.Requests += n
			if i == 0 || i == 5 {
				out.Errors += n
			}
		}
		for i, n := range c.Buckets {
			buckets[i] += n
		}
	}
	out.P95 = quantile(buckets, 0.95)
	out.Rate = h.rate(e, out.Requests)
	return out
}

// quantile is the upper bound, in milliseconds, of the bucket that holds share q.
func quantile(buckets []uint64, q float64) float64 {
	total := uint64(0)
	for _, n := range buckets {
		total += n
	}
	seen := uint64(0)
	for i, n := range buckets {
		if seen += n; total > 0 && float64(seen) >= q*float64(total) {
			return float64(directory.Bounds[min(i, len(directory.Bounds)-1)]) / float64(time.Millisecond)
		}
	}
	return 0
}

// sample is a count at a time.
type sample struct {
	at time.Time
	n  uint64
}

// rate is the requests per second since the oldest sample of the last ten seconds. Samples are taken
// when somebody asks: for a page that is open that is often, for a single question it says 0.
func (h *house) rate(e control.Env, n uint64) float64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.samples == nil {
		h.samples = map[control.Env][]sample{}
	}
	s := append(h.samples[e], sample{now(), n})
	for len(s) > 1 && time.Since(s[0].at) > 10*time.Second {
		s = s[1:]
	}
	h.samples[e] = s
	first := s[0]
	if took := time.Since(first.at).Seconds(); took > 0.1 && n >= first.n {
		return float64(n-first.n) / took
	}
	return 0
}

// Metrics implements control.API: Prometheus' text format, names by OpenTelemetry's conventions.
func (h *house) Metrics(ctx context.Context, w io.Writer) error {
	r, err := h.edge.Report(ctx, true)
	if err != nil {
		return tenfold.Errorf(tenfold.CodeUnavailable, "%w", err)
	}
	var b strings.Builder
	b.WriteString("# TYPE http_server_request_duration_seconds histogram\n")
	for _, c := range r.Routes {
		labels := label2(c.App, c.Env) + ",http_route=" + quote(c.Pattern)
		sum := uint64(0)
		for i, n := range c.Buckets {
			sum += n
			le := "+Inf"
			if i < len(directory.Bounds) {
				le = fmt.Sprint(directory.Bounds[i].Seconds())
			}
			fmt.Fprintf(&b, "http_server_request_duration_seconds_bucket{%s,le=\"%s\"} %d\n", labels, le, sum)
		}
		fmt.Fprintf(&b, "http_server_request_duration_seconds_sum{%s} %g\nhttp_server_request_duration_seconds_count{%s} %d\n", labels, c.Sum.Seconds(), labels, sum)
	}
	b.WriteString("# TYPE http_server_responses_total counter\n")
	for _, c := range r.Routes {
		for i, n := range c.Class {
			class := fmt.Sprintf("%dxx", i)
			if i == 0 {
				class = "none"
			}
			fmt.Fprintf(&b, "http_server_responses_total{%s,http_route=%s,status_class=\"%s\"} %d\n", label2(c.App, c.Env), quote(c.Pattern), class, n)
		}
	}
	b.WriteString("# TYPE http_cache_hits_total counter\n")
	for _, c := range r.Routes {
		fmt.Fprintf(&b, "http_cache_hits_total{%s,http_route=%s} %d\n", label2(c.App, c.Env), quote(c.Pattern), c.Hits)
	}
	fmt.Fprintf(&b, "# TYPE http_cache_entries gauge\nhttp_cache_entries %d\n# TYPE http_cache_size_bytes gauge\nhttp_cache_size_bytes{tier=\"memory\"} %d\nhttp_cache_size_bytes{tier=\"disk\"} %d\n", r.Cache.Entries, r.Cache.Memory, r.Cache.Disk)
	h.pools.metrics(ctx, &b)
	cacheMetrics(h.cache.Use(), &b)
	functionMetrics(h.function.Use(ctx), &b)
	queueMetrics(h.data.Use(), &b)
	tableMetrics(h.data.Use(), &b)
	eventMetrics(h.data.Use(), &b)
	bucketMetrics(h.files.Use(), &b)
	seriesMetrics(h.series.Use(), &b)
	tasks, err := h.compute.Tasks(ctx)
	if err != nil {
		return err
	}
	for _, m := range []struct{ name, kind string }{{"process_cpu_time_seconds_total", "counter"}, {"process_memory_usage_bytes", "gauge"}, {"task_restarts_total", "counter"}, {"http_server_active_requests", "gauge"}} {
		fmt.Fprintf(&b, "# TYPE %s %s\n", m.name, m.kind)
		for _, t := range tasks {
			v := map[string]float64{
				"process_cpu_time_seconds_total": t.CPU, "process_memory_usage_bytes": float64(t.RSS),
				"task_restarts_total": float64(t.Restarts), "http_server_active_requests": float64(r.Endpoints[string(t.ID)].InFlight),
			}[m.name]
			fmt.Fprintf(&b, "%s{%s,service=%s,task=%s} %g\n", m.name, label2(string(t.Service.App), string(t.Service.Env)), quote(string(t.Service.Name)), quote(string(t.ID)), v)
		}
	}
	_, err = io.WriteString(w, b.String())
	return err
}
