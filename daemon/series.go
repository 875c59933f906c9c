package daemon

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"tenfold"
	"tenfold/tier/series"
)

// seriesListener is the keeper's name for the listener of the front of time series.
const seriesListener = "series"

// RunSeries is the process of the front of time series. Their engines are units of the keeper.
func RunSeries(ctx context.Context, dir string) error {
	return runCompanion(ctx, dir, seriesListener, func(_ Layout, log *slog.Logger) (companionWork, error) {
		front := series.NewFront(log)
		return companionWork{public: front, private: front.ControlHandler(), run: func(ctx context.Context, ready func()) error {
			ready()
			<-ctx.Done()
			return nil
		}}, nil
	})
}

// seriesFront is that process as the daemon has it. Unlike others of its kind it has no listener either before there is
// something to serve.
type seriesFront struct {
	h               *house
	binary, version string
	remote          *series.Remote

	mu        sync.Mutex
	companion *companion // nil: it listens nowhere that this daemon knows of; under mu
	idle      bool       // nothing of an earlier daemon is left; under mu
}

func newSeriesFront(h *house, binary, version string) *seriesFront {
	return &seriesFront{h: h, binary: binary, version: version, remote: series.NewRemote(h.layout.Socket(seriesListener))}
}

func (f *seriesFront) open(ctx context.Context) (*companion, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.companion == nil {
		c, err := newCompanion(ctx, f.h, ModeSeries, seriesListener, f.h.layout.Tier(seriesListener), f.binary, f.version)
		if err != nil {
			return nil, err
		}
		f.companion, f.idle = c, false
	}
	return f.companion, nil
}

// Put implements series.Process.
func (f *seriesFront) Put(ctx context.Context, s series.Snapshot) (rep series.Report, err error) {
	c, err := f.open(ctx)
	if err != nil {
		return rep, err
	}
	err = c.serving(ctx, func(ctx context.Context) error {
		rep, err = f.remote.Put(ctx, s)
		return err
	})
	return rep, err
}

// Address implements series.Process.
func (f *seriesFront) Address(ctx context.Context) (string, error) {
	c, err := f.open(ctx)
	if err != nil {
		return "", err
	}
	return c.addr, nil
}

// Idle implements series.Process.
func (f *seriesFront) Idle(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.idle {
		return nil
	}
	c := f.companion
	if c == nil {
		c = &companion{h: f.h, name: seriesListener}
	}
	if err := c.idle(ctx); err != nil {
		return err
	}
	if f.companion != nil {
		if err := f.h.keeper.Unlisten(ctx, seriesListener); err != nil {
			return err
		}
	}
	f.companion, f.idle = nil, true
	return nil
}

// seriesPassword is what a service or function shows for a series: the same for its life, and nowhere stored. It is
// no secret access key, which never leaves its holder: this one is sent with each request.
func (h *house) seriesPassword(of, id tenfold.ID) string {
	of.Kind = tenfold.KindIdentity
	b, err := hkdf.Key(sha256.New, h.access, []byte(of.String()+" "+id.String()), "series", 30)
	if err != nil {
		panic(err) // a length that does not exist
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// seriesField gives one fact of a series to who uses it.
func (h *house) seriesField(ctx context.Context, b tenfold.Binding) (string, error) {
	if b.Field != tenfold.FieldURL {
		return "", fmt.Errorf("a series has no %s", b.Field)
	}
	h.series.Introduce(ctx) // before its first request
	of := tenfold.ID{App: b.From.App, Env: b.From.Env, Name: b.By}
	return h.series.URL(ctx, b.From, string(b.By), h.seriesPassword(of, b.From))
}

// seriesHolders are those who may ask for series, those of the same environments who may not, and where each series
// stands in its manifest.
func (h *house) seriesHolders(ctx context.Context) ([]series.Key, map[string]int, error) {
	keys, lines := map[string]series.Key{}, map[string]int{}
	err := h.holdersOfKeys(ctx, func(app tenfold.App, of tenfold.ID, line int, bs []tenfold.Binding) {
		for n, s := range app.Series {
			id := app.ID(tenfold.KindSeries, n)
			lines[id.String()] = s.Line
			k := series.Key{Of: of, Series: id, User: string(of.Name), Secret: h.seriesPassword(of, id), Line: line}
			k.Uses = keys[k.Secret].Uses || slices.ContainsFunc(bs, func(b tenfold.Binding) bool { return b.From == id })
			keys[k.Secret] = k
		}
	})
	out := make([]series.Key, 0, len(keys))
	for _, k := range keys {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b series.Key) int { return strings.Compare(a.Secret, b.Secret) })
	return out, lines, err
}

// seriesMetrics writes figures of time series in Prometheus' text format.
func seriesMetrics(use map[tenfold.ID]series.Use, b *strings.Builder) {
	each := byResource(b, use)
	each("series_active", "gauge", func(u series.Use) float64 { return u.Active })
	each("series_size_bytes", "gauge", func(u series.Use) float64 { return u.Bytes })
	each("series_rows_refused_total", "counter", func(u series.Use) float64 { return u.Refused })
	ids := slices.SortedFunc(maps.Keys(use), tenfold.ID.Compare)
	write := func(name string, of func(series.Use) map[string]float64) {
		if len(ids) > 0 {
			fmt.Fprintf(b, "# TYPE %s counter\n", name)
		}
		for _, id := range ids {
			values := of(use[id])
			for _, p := range append(slices.Clone(tenfold.SeriesProtocols), "query") {
				if v, ok := values[p]; ok {
					fmt.Fprintf(b, "%s{%s,series=%s,protocol=%s} %g\n", name, label2(string(id.App), string(id.Env)), quote(string(id.Name)), quote(p), v)
				}
			}
		}
	}
	counted := func(of func(series.Count) uint64) func(series.Use) map[string]float64 {
		return func(u series.Use) map[string]float64 {
			out := map[string]float64{}
			for p, c := range u.Counts {
				out[p] = float64(of(c))
			}
			return out
		}
	}
	write("series_rows_inserted_total", func(u series.Use) map[string]float64 { return u.Rows })
	write("series_requests_total", counted(func(c series.Count) uint64 { return c.Requests }))
	write("series_request_bytes_total", counted(func(c series.Count) uint64 { return c.Bytes }))
	write("series_request_errors_total", counted(func(c series.Count) uint64 { return c.Errors }))
}
