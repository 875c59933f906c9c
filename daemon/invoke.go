package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/atomicfile"
	"tenfold/internal/freeport"
	"tenfold/internal/keeper"
	"tenfold/tier/function"
)

const (
	// invokePrefix begins the unit ids of the functions' process: one at a time, since it alone owns the
	// asynchronous events.
	invokePrefix = "house/invoke/"
	// invokeListener is the keeper's name for its listener.
	invokeListener = "invoke"
	// invokeWait is how long a function's process that was just started may take to answer.
	invokeWait, invokeAgain = 10 * time.Second, 10 * time.Millisecond
)

// RunInvoke is the process of functions: it holds their execution environments. Its listener was opened by
// the keeper.
func RunInvoke(ctx context.Context, data string) error {
	l, _, err := ground(data)
	if err != nil {
		return err
	}
	nl, err := net.FileListener(os.NewFile(3, invokeListener))
	if err != nil {
		return fmt.Errorf("take over listener: %w", err)
	}
	k, err := keeper.Dial(ctx, l.Socket("keeper"))
	if err != nil {
		return fmt.Errorf("start functions: %w", err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	v, err := function.NewInvoker(function.InvokerConfig{Dir: filepath.Join(l.Tier("function"), "events"), Units: k, Log: log})
	if err != nil {
		return err
	}
	socket := l.Socket(invokeListener)
	os.Remove(socket)
	cl, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return err
	}
	public := &http.Server{Handler: v.Handler(), ReadHeaderTimeout: 10 * time.Second}
	private := &http.Server{Handler: v.ControlHandler(), ReadHeaderTimeout: 10 * time.Second}
	var wg sync.WaitGroup
	life, die := context.WithCancel(context.WithoutCancel(ctx))
	defer die()
	wg.Go(func() {
		// Calls that came are finished first; those that come wait in the listener for the next process.
		select {
		case <-ctx.Done():
		case <-life.Done():
		}
		limit, cancel := context.WithTimeout(context.Background(), invokeDrain)
		defer cancel()
		public.Shutdown(limit)
		die()
	})
	err = v.Run(life, func() {
		wg.Go(func() { public.Serve(nl) })
		wg.Go(func() { private.Serve(cl) })
	})
	die()
	public.Close()
	private.Close()
	wg.Wait()
	return err
}

// invokeDrain bounds how long calls may go on in a process that is to end.
const invokeDrain = 30 * time.Second

// invokers is the functions' process as the daemon has it: it is there as long as there are functions.
type invokers struct {
	*function.Remote
	h               *house
	binary, version string
	addr            string // where it listens

	mu      sync.Mutex
	started bool // by this daemon
}

// newInvokers opens the listener. Its address is kept: processes are told of it when they start.
func newInvokers(ctx context.Context, h *house, binary, version string) (*invokers, error) {
	file := filepath.Join(h.layout.Tier("function"), "address")
	i := &invokers{Remote: function.NewRemote(h.layout.Socket(invokeListener)), h: h, binary: binary, version: version}
	if b, err := os.ReadFile(file); err == nil && function.Check(strings.TrimSpace(string(b))) == nil {
		i.addr = strings.TrimSpace(string(b))
		if _, err = h.keeper.Listen(ctx, invokeListener, "tcp", i.addr); err == nil {
			return i, nil
		}
		h.log.Warn("functions get another address", "was", i.addr, "err", err) // taken while the house was down
	}
	port, err := freeport.Pick()
	if err != nil {
		return nil, fmt.Errorf("listen for functions: %w", err)
	}
	// The keeper knows a listener by the address that was asked for: it must be the same the next time.
	i.addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return nil, err
	}
	if err := atomicfile.Write(file, []byte(i.addr+"\n"), 0o640); err != nil {
		return nil, err
	}
	if _, err := h.keeper.Listen(ctx, invokeListener, "tcp", i.addr); err != nil {
		return nil, fmt.Errorf("listen for functions: %w", err)
	}
	return i, nil
}

// Put implements function.Invokers: it has the process run as long as there is something to serve.
func (i *invokers) Put(ctx context.Context, s function.Snapshot) (function.Report, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(s.Functions)+len(s.Kept) == 0 {
		return function.Report{}, i.end(ctx, "")
	}
	if !i.started {
		if err := i.end(ctx, i.unit()); err != nil {
			return function.Report{}, err
		}
		if _, err := i.h.keeper.Start(ctx, keeper.Unit{
			ID: i.unit(), Argv: Command(i.binary, ModeInvoke, i.h.layout.Dir), Env: os.Environ(), Dir: "/",
			Listeners: []string{invokeListener}, Restart: keeper.RestartAlways, Log: i.h.layout.Log(invokeListener), OOMScore: -500, StopGrace: 35 * time.Second,
		}); err != nil {
			return function.Report{}, fmt.Errorf("start functions: %w", err)
		}
		i.started = true
	}
	limit, cancel := context.WithTimeout(ctx, invokeWait)
	defer cancel()
	for {
		rep, err := i.Remote.Put(limit, s)
		if err == nil || limit.Err() != nil {
			return rep, err
		}
		select {
		case <-limit.Done():
			return rep, err
		case <-time.After(invokeAgain):
		}
	}
}

func (i *invokers) unit() string { return invokePrefix + i.version }

// end ends the processes but the one named.
func (i *invokers) end(ctx context.Context, but string) error {
	units, err := i.h.keeper.List(ctx, invokePrefix)
	if err != nil {
		return err
	}
	for _, u := range units {
		if u.Unit.ID != but {
			if err := i.h.keeper.Remove(ctx, u.Unit.ID); err != nil {
				return err
			}
		}
	}
	i.started = i.started && but != ""
	return nil
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
	envs, err := h.store.Environments(ctx)
	if err != nil {
		return nil, err
	}
	keys := map[string]function.Key{}
	for _, e := range envs {
		for _, revision := range []int64{e.Goal, e.Serving} {
			if revision == 0 {
				continue
			}
			app, err := h.app(ctx, e.App, e.Env, revision)
			if err != nil {
				return nil, err
			}
			add := func(kind tenfold.Kind, name tenfold.Name, line int, bs []tenfold.Binding) {
				var uses []tenfold.Name
				for _, b := range bs {
					if b.From.Kind == tenfold.KindFunction && b.Field == tenfold.FieldName {
						uses = append(uses, b.From.Name)
					}
				}
				if len(uses) == 0 {
					return
				}
				k := h.accessKey(app.ID(tenfold.KindIdentity, name))
				have := keys[k.ID]
				have.Access, have.Secret, have.Of, have.Line = k.ID, k.Secret, app.ID(kind, name).Short(), line
				have.Account, have.Scope = account(app.Name, app.Env), app.ID(kind, name)
				have.Functions = slices.Compact(slices.Sorted(slices.Values(append(have.Functions, uses...))))
				keys[k.ID] = have
			}
			for n, s := range app.Services {
				add(tenfold.KindService, n, s.Line, s.Bindings)
			}
			for n, f := range app.Functions {
				add(tenfold.KindFunction, n, f.Line, f.Bindings)
			}
			for n, f := range app.Frontends {
				if f.Server != nil {
					add(tenfold.KindService, n, f.Line, f.Server.Bindings)
				}
			}
		}
	}
	return slices.SortedFunc(maps.Values(keys), func(a, b function.Key) int { return strings.Compare(a.Access, b.Access) }), nil
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
			Name: n, ARN: "arn:aws:lambda:" + awsRegion + ":" + account(app.Name, app.Env) + ":function:" + string(n), Handler: f.Handler, Runtime: strings.TrimSpace(f.Build.Language + " " + f.Build.Version),
			Timeout: f.Timeout, Memory: f.Size.Memory, Min: f.Scale.Min, Max: f.Scale.Max, Concurrency: f.Concurrency,
			Invocations: u.Invocations, Errors: u.Errors, Throttles: u.Throttles, Cold: u.Cold, Busy: u.Busy, Warm: u.Warm, Waiting: u.Waiting, Queued: u.Queued, Dropped: u.Dropped, P95: u.P95, Init: u.Init, Last: u.Last, Unenforced: u.Unenforced,
		}
		if c.Handler == "" {
			c.Handler = f.Command.String()
		}
		for _, r := range f.Routes {
			c.Routes = append(c.Routes, string(r))
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
	ids := slices.SortedFunc(maps.Keys(use), tenfold.ID.Compare)
	each := func(name, kind string, of func(function.Use) float64) {
		if len(ids) > 0 {
			fmt.Fprintf(b, "# TYPE %s %s\n", name, kind)
		}
		for _, id := range ids {
			fmt.Fprintf(b, "%s{%s,function=%s} %g\n", name, label2(string(id.App), string(id.Env)), quote(string(id.Name)), of(use[id]))
		}
	}
	each("function_invocations_total", "counter", func(u function.Use) float64 { return float64(u.Invocations) })
	each("function_errors_total", "counter", func(u function.Use) float64 { return float64(u.Errors) })
	each("function_throttles_total", "counter", func(u function.Use) float64 { return float64(u.Throttles) })
	each("function_cold_starts_total", "counter", func(u function.Use) float64 { return float64(u.Cold) })
	each("function_duration_seconds_total", "counter", func(u function.Use) float64 { return u.Duration.Seconds() })
	each("function_concurrent_executions", "gauge", func(u function.Use) float64 { return float64(u.Busy) })
	each("function_async_events_waiting", "gauge", func(u function.Use) float64 { return float64(u.Queued) })
	each("function_async_events_dropped_total", "counter", func(u function.Use) float64 { return float64(u.Dropped) })
}
