package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"tenfold"
	"tenfold/console"
	"tenfold/control"
	"tenfold/internal/atomicfile"
	"tenfold/internal/build"
	"tenfold/internal/keeper"
	"tenfold/internal/lean"
	"tenfold/internal/ledger"
	"tenfold/internal/run"
	"tenfold/internal/secret"
	"tenfold/internal/store"
	"tenfold/tier/cache"
	"tenfold/tier/compute"
	"tenfold/tier/data"
	"tenfold/tier/edge"
	"tenfold/tier/frontend"
	"tenfold/tier/function"
	"tenfold/tier/postgres"
	"tenfold/tier/series"
)

// stopGrace bounds how long each part of the daemon may take to stop.
const stopGrace = 10 * time.Second

// consoleHost is the name under which the door leads to the console.
const consoleHost = "tenfold.localhost"

var pid = os.Getpid()

// Run is the daemon's process: it decides what runs, and may die at any time.
func Run(ctx context.Context, data, version string) error {
	l, binary, err := ground(data)
	if err != nil {
		return err
	}
	settings, err := LoadSettings(l)
	if err != nil {
		return err
	}
	k, err := keeper.Dial(ctx, l.Socket("keeper"))
	if err != nil {
		return fmt.Errorf("start daemon: %w", err)
	}
	bound, err := k.Listen(ctx, doorPlain, "tcp", settings.Listen)
	if err != nil {
		return fmt.Errorf("open the front door on %s: %w", settings.Listen, err)
	}
	names := []string{doorPlain}
	if settings.TLS != "" {
		secure, err := k.Listen(ctx, doorTLS, "tcp", settings.TLS)
		if err != nil {
			return fmt.Errorf("open the front door for TLS on %s: %w", settings.TLS, err)
		}
		settings.TLS, names = secure, append(names, doorTLS)
		// HTTP/3 is an offer beside TLS: without its port, browsers stay with HTTP/2.
		if _, err := k.Listen(ctx, doorQUIC, "udp", secure); err != nil {
			slog.Warn("no HTTP/3", "address", secure+"/udp", "err", err, "hint", "another program has the port; end it and restart the house")
		} else {
			names = append(names, doorQUIC)
		}
	}
	door, old, err := startDoor(ctx, k, l, binary, version, names)
	if err != nil {
		return err
	}
	h, err := newHouse(ctx, l, settings, binary, version, k, bound, door, newOldDoors(k, l, old, settings.Linger))
	if err != nil {
		return err
	}
	defer h.store.Close()
	h.settled = time.AfterFunc(lean.Settled, lean.Shed)
	defer h.settled.Stop()
	services := []run.Service{}
	for _, t := range h.tiers {
		services = append(services, t)
	}
	token, err := loadToken(l)
	if err != nil {
		return err
	}
	if h.git, err = h.newGit(l, token); err != nil {
		return err
	}
	if h.access, err = loadAccess(l); err != nil {
		return err
	}
	h.pools = newPools(h, binary, version)
	services = append(services, h.pools, loop{h}, h.oldDoors, gitJobs{h}, previewLife{h}, certificates{h}, sweeper{h}, disk{h}, server{name: "console", network: "unix", addr: l.Socket("console"), handler: withGit(h, console.Handler(h))})
	if settings.SSH != "" {
		services = append(services, sshRemote{h, settings.SSH})
	}
	if settings.Control != "" {
		services = append(services, server{name: "control over TCP", network: "tcp", addr: settings.Control, handler: control.RequireToken(token, control.Handler(h, false))})
	}
	// Last, so that whoever reaches it finds everything in place.
	services = append(services, server{name: "control", network: "unix", addr: l.Socket("control"), handler: control.Handler(h, true)})
	return run.All(ctx, stopGrace, services...)
}

// The keeper's names for the door's listeners.
const (
	doorPlain = "door"
	doorTLS   = "door-tls"
	doorQUIC  = "door-quic"
)

// doorPrefix begins the unit ids of doors, see turn.
const doorPrefix = "house/door/"

// startDoor makes sure that a door of this version runs and takes connections, and returns its name. The old go on
// beside it, on the same listeners, until oldDoors ends them.
func startDoor(ctx context.Context, k *keeper.Client, l Layout, binary, version string, listeners []string) (name string, old []keeper.Status, err error) {
	id, old, err := turn(ctx, k, doorPrefix, version)
	if err != nil {
		return "", nil, fmt.Errorf("start door: %w", err)
	}
	name = strings.TrimPrefix(id, doorPrefix)
	_, err = k.Start(ctx, keeper.Unit{
		ID: id, Argv: Command(binary, ModeDoor, l.Dir), Env: append(os.Environ(), doorName+"="+name), Dir: "/",
		Listeners: listeners, Restart: keeper.RestartAlways, Log: l.Log("door"), OOMScore: -500, StopGrace: 35 * time.Second,
	})
	if err != nil {
		return "", nil, fmt.Errorf("start door: %w", err)
	}
	return name, old, nil
}

// oldDoors ends the doors before this one, once their last connection has ended or linger is over, and then
// has nothing more to do.
type oldDoors struct {
	keeper *keeper.Client
	layout Layout
	linger time.Duration

	mu    sync.Mutex
	names map[string]bool // of those that are not gone; under mu
}

func newOldDoors(k *keeper.Client, l Layout, old []keeper.Status, linger time.Duration) *oldDoors {
	o := &oldDoors{keeper: k, layout: l, linger: linger, names: map[string]bool{}}
	for _, u := range old {
		o.names[strings.TrimPrefix(u.Unit.ID, doorPrefix)] = true
	}
	return o
}

// sockets are where the old doors can be asked.
func (o *oldDoors) sockets() (out []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name := range o.names {
		out = append(out, doorSocket(o.layout, name))
	}
	return out
}

// lingerFor is how long connections may stay with an old door when nobody says.
const lingerFor = time.Hour

func (*oldDoors) Name() string { return "old doors" }

func (o *oldDoors) Run(ctx context.Context, ready func()) error {
	ready()
	var wg sync.WaitGroup
	o.mu.Lock()
	names := slices.Collect(maps.Keys(o.names))
	o.mu.Unlock()
	for _, name := range names {
		wg.Go(func() {
			limit, cancel := context.WithTimeout(ctx, cmp.Or(o.linger, lingerFor))
			defer cancel()
			// One that cannot be asked is of a version that drains when it is told to end.
			if err := edge.Leave(limit, doorSocket(o.layout, name)); err != nil && limit.Err() == nil {
				slog.Info("an old door is ended", "door", name, "err", err)
			}
			if ctx.Err() != nil {
				return // the next daemon goes on
			}
			if err := o.keeper.Remove(ctx, doorPrefix+name); err != nil && ctx.Err() == nil {
				slog.Error("end an old door", "door", name, "err", err)
			}
			os.Remove(doorSocket(o.layout, name)) // it did not itself, when it was killed
			o.mu.Lock()
			delete(o.names, name)
			o.mu.Unlock()
		})
	}
	<-ctx.Done()
	wg.Wait()
	return nil
}

// newHouse opens the store and makes the tiers; it starts nothing.
func newHouse(ctx context.Context, l Layout, settings Settings, binary, version string, k *keeper.Client, bound, door string, doors *oldDoors) (*house, error) {
	h := &house{
		version: version, started: time.Now(), layout: l, settings: settings, log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		keeper: k, listen: bound, door: door, oldDoors: doors, wakeup: make(chan struct{}, 1), jobsWake: make(chan struct{}, 1), apps: map[appKey]tenfold.App{},
	}
	var err error
	if h.key, err = secret.Load(l.Key()); err != nil {
		return nil, err
	}
	if h.store, err = store.Open(ctx, l.Database()); err != nil {
		return nil, err
	}
	git := l.Tier("git")
	if h.connections, err = ledger.Open[connection](filepath.Join(git, "connections")); err != nil {
		return nil, errors.Join(err, h.store.Close())
	}
	if h.previews, err = ledger.Open[preview](filepath.Join(git, "previews")); err != nil {
		return nil, errors.Join(err, h.store.Close())
	}
	if h.jobs, err = ledger.Open[gitJob](filepath.Join(git, "jobs")); err != nil {
		return nil, errors.Join(err, h.store.Close())
	}
	h.hub = newHub(h.store, h.log, h.wake)
	if h.invokers, err = newInvokers(ctx, h, binary, version); err != nil {
		return nil, errors.Join(err, h.store.Close())
	}
	if h.stores, err = newStores(ctx, h, ModeData, dataListener, binary, version); err != nil {
		return nil, errors.Join(err, h.store.Close())
	}
	if h.filesProcess, err = newStores(ctx, h, ModeFiles, filesListener, binary, version); err != nil {
		return nil, errors.Join(err, h.store.Close())
	}
	h.containers = containers(binary, l)
	if err := h.makeTiers(l, k, binary, version); err != nil {
		return nil, errors.Join(err, h.store.Close())
	}
	return h, nil
}

func (h *house) makeTiers(l Layout, k *keeper.Client, binary, version string) (err error) {
	emit := h.hub.emit
	if h.postgres, err = postgres.New(postgres.Config{Dir: l.Tier("postgres"), Engines: l.Tier("engines"), Units: k, Emit: emit, Pooled: true, Resolve: h.resolve, Bucket: h.backupBucket, Outbox: outboxes{h}}); err != nil {
		return err
	}
	if h.cache, err = cache.New(cache.Config{Dir: l.Tier("cache"), Units: k, Emit: emit, Certificate: cacheCertificates(l), Resolve: h.resolve, Bucket: h.backupBucket}); err != nil {
		return err
	}
	builder := &build.Builder{Dir: l.Tier("build"), Units: k, Containers: h.containers}
	if h.frontend, err = frontend.New(frontend.Config{Dir: l.Tier("frontend"), Builder: builder, Resolve: h.resolve, Emit: emit, Changed: h.wake,
		Serves: func(id tenfold.ID, key string) (bool, string) { return h.compute.Serves(id, key) },
		Try:    h.try,
	}); err != nil {
		return err
	}
	if h.edge, err = edge.New(edge.Config{
		Dir: l.Tier("edge"), Control: doorSocket(l, h.door), Leaving: h.oldDoors.sockets, SiteDir: h.frontend.SiteDir, Emit: emit,
		Resolve: h.resolve, Password: h.sitePassword, Pass: h.doorPass, Console: l.Socket("console"), ConsoleHosts: []string{consoleHost},
	}); err != nil {
		return err
	}
	if h.compute, err = compute.New(compute.Config{
		Dir: l.Tier("compute"), Units: k, Builder: builder, Traffic: h.edge, Resolve: h.resolve, Emit: emit, Changed: h.wake, URL: h.url,
		Box: h.box, Strict: strict(), Containers: h.containers, KeepBuilds: h.builds, Backlog: h.backlog, FrontendBuild: frontend.BuildKey, Released: h.frontend.Released,
	}); err != nil {
		return err
	}
	if h.function, err = function.New(function.Config{
		Dir: l.Tier("function"), Builder: builder, BuildKey: compute.FunctionBuild, Invokers: h.invokers, Address: h.invokers.addr, Traffic: h.edge,
		Resolve: h.resolve, Emit: emit, URL: h.url, Account: account, Keys: h.functionKeys, Pass: h.doorPass, Box: h.boxBeside, Strict: strict(),
	}); err != nil {
		return err
	}
	if h.data, err = data.New(data.Config{Dir: l.Tier("data"), Process: h.stores, Address: h.stores.addr, Emit: emit, Account: account, Keys: h.fileKeys, Secret: h.secretValue}); err != nil {
		return err
	}
	if h.files, err = data.New(data.Config{Dir: l.Tier(filesListener), Process: h.filesProcess, Address: h.filesProcess.addr, Emit: emit, Account: account, Keys: h.fileKeys,
		Kinds: []tenfold.Kind{tenfold.KindBucket}, Traffic: h.edge}); err != nil {
		return err
	}
	if h.series, err = series.New(series.Config{Dir: l.Tier(seriesListener), Units: k, Process: newSeriesFront(h, binary, version), Emit: emit, Holders: h.seriesHolders}); err != nil {
		return err
	}
	h.tiers = []tenfold.Tier{h.postgres, h.cache, h.data, h.files, h.series, h.edge, h.compute, h.function, h.frontend}
	return nil
}

// try opens an address where the goal of an environment answers with a release of a frontend.
func (h *house) try(ctx context.Context, frontend tenfold.ID, release string) (string, func(), error) {
	e, err := h.environment(ctx, control.Env{App: frontend.App, Env: frontend.Env})
	if err != nil {
		return "", nil, err
	}
	app, err := h.app(ctx, e.App, e.Env, e.Goal)
	if err != nil {
		return "", nil, err
	}
	return h.edge.Candidate(ctx, app, frontend.Name, release)
}

// console is the address of the console.
func (h *house) console() string {
	_, port, err := net.SplitHostPort(h.listen)
	if err != nil {
		return ""
	}
	return "http://" + consoleHost + ":" + port
}

// loadToken reads the token for TCP, or makes one.
func loadToken(l Layout) (string, error) {
	b, err := os.ReadFile(l.Token())
	if err == nil && len(strings.TrimSpace(string(b))) >= 32 {
		return strings.TrimSpace(string(b)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read token: %w", err)
	}
	token := secret.Generate(32)
	return token, atomicfile.Write(l.Token(), []byte(token+"\n"), 0o600)
}

// server serves HTTP on one address as long as it runs.
type server struct {
	name, network, addr string
	handler             http.Handler
}

func (s server) Name() string { return s.name }

func (s server) Run(ctx context.Context, ready func()) error {
	if s.network == "unix" {
		os.Remove(s.addr)
	}
	l, err := net.Listen(s.network, s.addr)
	if err != nil {
		return err
	}
	if s.network == "unix" {
		if err := os.Chmod(s.addr, 0o600); err != nil {
			l.Close()
			return err
		}
	}
	base, cancel := context.WithCancel(context.Background())
	srv := &http.Server{Handler: s.handler, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return base }}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	ready()
	select {
	case err = <-done:
		cancel()
		return err
	case <-ctx.Done():
	}
	cancel() // streams end
	grace, stop := context.WithTimeout(context.Background(), 2*time.Second)
	defer stop()
	if srv.Shutdown(grace) != nil {
		srv.Close()
	}
	<-done
	return nil
}
