package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/awsapi"
	"tenfold/internal/container"
	"tenfold/internal/keeper"
	"tenfold/tier/data"
	"tenfold/tier/function"
	"tenfold/tier/function/source"
)

// invokeListener is the keeper's name for the listener of the functions' process.
const invokeListener = "invoke"

// RunInvoke is the process of functions: it holds their execution environments. Its listener was opened by
// the keeper.
func RunInvoke(ctx context.Context, dir string) error {
	return runCompanion(ctx, dir, invokeListener, func(l Layout, log *slog.Logger) (companionWork, error) {
		k, err := keeper.Dial(ctx, l.Socket("keeper"))
		if err != nil {
			return companionWork{}, fmt.Errorf("start functions: %w", err)
		}
		_, binary, err := ground(dir)
		if err != nil {
			return companionWork{}, err
		}
		engine := containers(binary, l)
		v, err := function.NewInvoker(function.InvokerConfig{
			Contain: func(ctx context.Context, u keeper.Unit, image string) (keeper.Unit, error) {
				return engine.Unit(ctx, u, container.Of(u, image))
			},
			Dir: filepath.Join(l.Tier("function"), "events"), Units: k, Freezer: k, Log: log,
			Ask: askStores(data.NewRemote(l.Socket(dataListener))), Places: filepath.Join(l.Tier("function"), "places"),
		})
		if err != nil {
			return companionWork{}, err
		}
		return companionWork{public: v.Handler(), private: v.ControlHandler(), leave: v.Leave, run: v.Run}, nil
	})
}

// askStores has functions' event sources read at the stores' process, whether or not there is a daemon.
func askStores(r *data.Remote) source.Ask {
	return func(ctx context.Context, account, service, operation string, question, answer any) error {
		b, err := json.Marshal(question)
		if err != nil {
			return err
		}
		out, err := r.Call(ctx, data.Call{Account: account, Service: service, Operation: operation, Body: b})
		if err != nil {
			return err
		}
		if out.Code != "" {
			return &source.Refusal{Code: out.Code, Message: out.Message}
		}
		return json.Unmarshal(out.Body, answer)
	}
}

// invokers is the functions' process as the daemon has it: it is there as long as there are functions.
type invokers struct {
	*function.Remote
	*companion
}

func newInvokers(ctx context.Context, h *house, binary, version string) (*invokers, error) {
	c, err := newCompanion(ctx, h, ModeInvoke, invokeListener, h.layout.Tier("function"), binary, version)
	return &invokers{function.NewRemote(h.layout.Socket(invokeListener)), c}, err
}

// Put implements function.Invokers: it has the process run as long as there is something to serve.
func (i *invokers) Put(ctx context.Context, s function.Snapshot) (rep function.Report, err error) {
	if len(s.Functions)+len(s.Kept) == 0 {
		return rep, i.idle(ctx)
	}
	return rep, i.serving(ctx, func(ctx context.Context) error {
		rep, err = i.Remote.Put(ctx, s)
		return err
	})
}

// account is the number by which AWS' protocols name an environment of an app: 12 digits, the same for its
// life.
func account(app tenfold.AppName, env tenfold.Environment) string {
	sum := sha256.Sum256([]byte(string(app) + "/" + string(env)))
	return fmt.Sprintf("%012d", binary.BigEndian.Uint64(sum[:])%1_000_000_000_000)
}

// functionKeys are those of services and functions that use functions, in the revisions that serve and in
// those that are to.
func (h *house) functionKeys(ctx context.Context) ([]function.Key, error) {
	keys := map[string]function.Key{}
	err := h.holdersOfKeys(ctx, func(app tenfold.App, of tenfold.ID, line int, bs []tenfold.Binding) {
		var uses []tenfold.Name
		for _, b := range bs {
			if b.From.Kind == tenfold.KindFunction && b.Field == tenfold.FieldName {
				uses = append(uses, b.From.Name)
			}
		}
		if len(uses) == 0 {
			return
		}
		k := h.accessKey(app.ID(tenfold.KindIdentity, of.Name))
		have := keys[k.ID]
		have.Access, have.Secret, have.Of, have.Line = k.ID, k.Secret, of.Short(), line
		have.Account, have.Scope = account(app.Name, app.Env), of
		have.Functions = slices.Compact(slices.Sorted(slices.Values(append(have.Functions, uses...))))
		keys[k.ID] = have
	})
	return slices.SortedFunc(maps.Values(keys), func(a, b function.Key) int { return strings.Compare(a.Access, b.Access) }), err
}

// builds names those that others than compute need.
func (h *house) builds() map[string]bool {
	out := h.frontend.BuildKeys()
	if out == nil {
		out = map[string]bool{}
	}
	maps.Copy(out, h.function.Builds())
	return out
}

// Functions implements control.API.
func (h *house) Functions(ctx context.Context, e control.Env) ([]control.Function, error) {
	env, err := h.environment(ctx, e)
	if err != nil {
		return nil, err
	}
	out := []control.Function{}
	if env.Goal == 0 {
		return out, nil
	}
	app, err := h.app(ctx, env.App, env.Env, env.Goal)
	if err != nil {
		return nil, err
	}
	use := h.function.Use(ctx)
	for _, n := range slices.Sorted(maps.Keys(app.Functions)) {
		f, u := app.Functions[n], use[app.ID(tenfold.KindFunction, n)]
		c := control.Function{
			Name: n, ARN: "arn:aws:lambda:" + awsapi.Region + ":" + account(app.Name, app.Env) + ":function:" + string(n), Handler: f.Handler, Runtime: strings.TrimSpace(f.Build.Language + " " + f.Build.Version),
			Timeout: f.Timeout, Memory: f.Size.Memory, Min: f.Scale.Min, Max: f.Scale.Max, Concurrency: f.Concurrency,
			Invocations: u.Invocations, Errors: u.Errors, Throttles: u.Throttles, Cold: u.Cold, Busy: u.Busy, Warm: u.Warm, Waiting: u.Waiting, Queued: u.Queued, Dropped: u.Dropped, P95: u.P95, Init: u.Init, Last: u.Last, Unenforced: u.Unenforced,
		}
		if c.Handler == "" {
			c.Handler = f.Command.String()
		}
		for _, r := range f.Routes {
			c.Routes = append(c.Routes, string(r))
		}
		for _, s := range f.From {
			x := u.Sources[string(s.From.Name)]
			c.From = append(c.From, control.EventSource{Name: s.From.Name, Kind: s.From.Kind, Batch: s.Batch, Parallel: s.Parallel, Working: x.Working, Batches: x.Batches,
				Records: x.Records, Failed: x.Failed, Dropped: x.Dropped, Filtered: x.Filtered, Behind: x.Behind, Trouble: x.Trouble, Last: x.Last})
		}
		out = append(out, c)
	}
	return out, nil
}

// Invoke implements control.API.
func (h *house) Invoke(ctx context.Context, e control.Env, q control.Invocation) (control.Invoked, error) {
	id := tenfold.ID{App: e.App, Env: e.Env, Kind: tenfold.KindFunction, Name: q.Function}
	a, err := h.function.Invoke(ctx, function.Call{Function: id, Payload: q.Payload, Async: q.Async, Tail: q.Tail})
	return control.Invoked{RequestID: a.RequestID, Payload: a.Payload, Failed: a.Failed, Throttled: a.Throttled, Took: a.Took, Init: a.Init, Tail: a.Tail}, err
}

// metrics writes the functions' counters in Prometheus' text format, under CloudWatch's names.
func functionMetrics(use map[tenfold.ID]function.Use, b *strings.Builder) {
	each := byResource(b, use)
	each("function_invocations_total", "counter", func(u function.Use) float64 { return float64(u.Invocations) })
	each("function_errors_total", "counter", func(u function.Use) float64 { return float64(u.Errors) })
	each("function_throttles_total", "counter", func(u function.Use) float64 { return float64(u.Throttles) })
	each("function_cold_starts_total", "counter", func(u function.Use) float64 { return float64(u.Cold) })
	each("function_duration_seconds_total", "counter", func(u function.Use) float64 { return u.Duration.Seconds() })
	each("function_concurrent_executions", "gauge", func(u function.Use) float64 { return float64(u.Busy) })
	each("function_async_events_waiting", "gauge", func(u function.Use) float64 { return float64(u.Queued) })
	each("function_async_events_dropped_total", "counter", func(u function.Use) float64 { return float64(u.Dropped) })
}
