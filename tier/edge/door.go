package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tenfold/internal/atomicfile"
	"tenfold/internal/directory"
)

// snapshotFile is the last snapshot, in the tier's folder: written by the tier before it tells the
// door, and by the door when it is told, so that either may die at any point.
const snapshotFile = "directory.json"

// Limits of what clients may send.
const (
	maxHeader = 32 << 10
	maxBody   = 10 << 20
	// drainFor bounds how long a door that was told to end waits for open connections.
	drainFor = 30 * time.Second
)

// DoorConfig is what a Door needs.
type DoorConfig struct {
	Dir       string // of the tier: the snapshot lies there
	Control   string // unix socket, mode 0600
	Listeners []net.Listener
	Log       *slog.Logger
}

// Door is the serving half of the tier: a process of its own that routes by the last snapshot,
// whether or not the daemon lives.
type Door struct {
	cfg     DoorConfig
	current atomic.Pointer[table]
	statics *statics
	proxy   *httputil.ReverseProxy
	console *httputil.ReverseProxy
	traffic *traffic

	mu        sync.Mutex
	endpoints map[string]*endpoint
	private   map[string]*privateListener // by address
	serving   *http.Server
	draining  atomic.Bool
	active    atomic.Int64 // requests being answered, upgraded connections included
}

type privateListener struct {
	server *http.Server
	target atomic.Pointer[target]
}

// NewDoor reads the last snapshot; it opens nothing.
func NewDoor(cfg DoorConfig) (*Door, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	d := &Door{cfg: cfg, statics: newStatics(), traffic: newTraffic(), endpoints: map[string]*endpoint{}, private: map[string]*privateListener{}}
	d.proxy = newProxy(d.current.Load, func(w http.ResponseWriter, r *http.Request, err error) {
		failed(r, err).show(w, r.Context().Value(targetKey{}).(target).in)
	})
	var s directory.Snapshot
	if err := atomicfile.ReadJSON(filepath.Join(cfg.Dir, snapshotFile), &s); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	t, err := newTable(s, d.endpoint)
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	d.current.Store(t)
	t.mark()
	d.console = &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.Host = p.In.Host
			p.SetXForwarded()
			p.Out.URL.Scheme, p.Out.URL.Host = "http", "console"
		},
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", d.current.Load().snapshot.Console)
		}},
		FlushInterval: -1, ErrorLog: quiet,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, _ error) {
			page{http.StatusBadGateway, "the console is not available", "the daemon does not answer; apps go on", "tenfold status"}.show(w, r)
		},
	}
	return d, nil
}

// Name implements tenfold.Service.
func (d *Door) Name() string { return "door" }

// endpoint gives the counts of a task, the same ones across snapshots.
func (d *Door) endpoint(e directory.Endpoint) *endpoint {
	if ep, ok := d.endpoints[e.ID]; ok && ep.addr == e.Addr {
		return ep
	}
	ep := &endpoint{id: e.ID, addr: e.Addr}
	d.endpoints[e.ID] = ep
	return ep
}

// apply makes a snapshot the one in use. An older one is refused; the same one again is harmless.
func (d *Door) apply(s directory.Snapshot) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.current.Load()
	if s.Version < old.snapshot.Version {
		return fmt.Errorf("apply snapshot %d: %d is in use", s.Version, old.snapshot.Version)
	}
	t, err := newTable(s, d.endpoint)
	if err != nil {
		return fmt.Errorf("apply snapshot %d: %w", s.Version, errUnusable{err})
	}
	if err := atomicfile.WriteJSON(filepath.Join(d.cfg.Dir, snapshotFile), s, 0o600); err != nil {
		return err
	}
	d.current.Store(t)
	t.mark() // after the store: who sees the mark finds a table without the task
	close(old.changed)
	d.forget(t)
	d.listenPrivately(t)
	return nil
}

// errUnusable is a snapshot with a route that cannot be parsed.
type errUnusable struct{ error }

func (e errUnusable) Unwrap() error { return e.error }

// forget drops the counts of tasks that are in no snapshot any more and have nothing in flight.
func (d *Door) forget(t *table) {
	named := map[string]bool{}
	for _, s := range t.snapshot.Sites {
		for _, sv := range s.Services {
			for _, e := range sv.Endpoints {
				named[e.ID] = true
			}
		}
	}
	for id, ep := range d.endpoints {
		if !named[id] && ep.inFlight.Load() == 0 {
			delete(d.endpoints, id)
		}
	}
}

// Run serves until ctx ends, then drains: every response says that its connection closes, and Run
// returns when none is open or drainFor is over. Listeners are the keeper's: the next door has them.
func (d *Door) Run(ctx context.Context, ready func()) error {
	os.Remove(d.cfg.Control)
	cl, err := net.Listen("unix", d.cfg.Control)
	if err != nil {
		return fmt.Errorf("listen for the daemon: %w", err)
	}
	cl.(*net.UnixListener).SetUnlinkOnClose(false) // the next door may listen there already
	os.Chmod(d.cfg.Control, 0o600)
	control := &http.Server{Handler: d.controlHandler(), ErrorLog: quiet}
	var wg sync.WaitGroup
	wg.Go(func() { control.Serve(cl) })
	open := &connections{}
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	d.serving = &http.Server{Handler: d, BaseContext: func(net.Listener) context.Context { return base }, MaxHeaderBytes: maxHeader, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, ErrorLog: quiet, ConnState: open.state}
	for _, l := range d.cfg.Listeners {
		wg.Go(func() { d.serving.Serve(l) })
	}
	d.mu.Lock()
	d.listenPrivately(d.current.Load())
	d.mu.Unlock()
	ready()
	<-ctx.Done()
	d.draining.Store(true)
	for _, l := range d.cfg.Listeners {
		l.Close()
	}
	open.closeIdle()
	limit := time.After(drainFor)
	for open.count() > 0 || d.active.Load() > 0 {
		select {
		case <-limit:
			cut() // upgraded connections end with their request's context
			d.serving.Close()
			d.closePrivate()
		case <-time.After(20 * time.Millisecond):
			open.closeIdle()
		}
	}
	d.closePrivate()
	err = errors.Join(d.serving.Close(), control.Close())
	wg.Wait()
	return err
}

func (d *Door) closePrivate() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for addr, p := range d.private {
		p.server.Close()
		delete(d.private, addr)
	}
}

// connections knows which connections are open and idle. http.Server.Shutdown would close idle ones
// in the moment a request arrives on them; here an idle one is closed only after a grace in which
// its next response would have said so.
type connections struct {
	mu   sync.Mutex
	open map[net.Conn]time.Time // when it became idle; zero while active
}

func (c *connections) state(conn net.Conn, s http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[net.Conn]time.Time{}
	}
	switch s {
	case http.StateNew, http.StateActive:
		c.open[conn] = time.Time{}
	case http.StateIdle:
		c.open[conn] = time.Now()
	case http.StateClosed, http.StateHijacked:
		delete(c.open, conn)
	}
}

func (c *connections) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

func (c *connections) closeIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn, since := range c.open {
		if !since.IsZero() && time.Since(since) > 2*time.Second {
			conn.Close()
		}
	}
}

// shared lets the next door listen on a private address while this one drains.
var shared = net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
	var err error
	cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	return errors.Join(cerr, err)
}}

// listenPrivately opens a listener for each service that has a private address, and closes those
// that are no longer named. Under d.mu.
func (d *Door) listenPrivately(t *table) {
	named := map[string]bool{}
	for _, s := range t.snapshot.Sites {
		for _, sv := range s.Services {
			if sv.Private == "" {
				continue
			}
			named[sv.Private] = true
			tg := &target{app: s.App, env: s.Env, service: sv.Name}
			if p, ok := d.private[sv.Private]; ok {
				p.target.Store(tg)
				continue
			}
			l, err := shared.Listen(context.Background(), "tcp", sv.Private)
			if err != nil {
				d.cfg.Log.Error("listen privately", "service", sv.Name, "err", err)
				continue
			}
			p := &privateListener{}
			p.target.Store(tg)
			p.server = &http.Server{MaxHeaderBytes: maxHeader, ErrorLog: quiet, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				d.toService(w, r, *p.target.Load())
			})}
			d.private[sv.Private] = p
			go p.server.Serve(l) // ends with the server, which Run or the next snapshot closes
		}
	}
	for addr, p := range d.private {
		if !named[addr] {
			p.server.Close()
			delete(d.private, addr)
		}
	}
}

// controlHandler is what the daemon asks.
func (d *Door) controlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /directory", func(w http.ResponseWriter, r *http.Request) {
		var s directory.Snapshot
		if err := json.NewDecoder(io.LimitReader(r.Body, 64<<20)).Decode(&s); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if err := d.apply(s); err != nil {
			status := http.StatusConflict
			var bad errUnusable
			if errors.As(err, &bad) {
				status = http.StatusBadRequest
			}
			http.Error(w, err.Error(), status)
			return
		}
		json.NewEncoder(w).Encode(d.report(false))
	})
	mux.HandleFunc("GET /report", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(d.report(r.FormValue("routes") == "true"))
	})
	return mux
}

func (d *Door) report(routes bool) directory.Report {
	r := directory.Report{Version: d.current.Load().snapshot.Version, Endpoints: map[string]directory.Count{}}
	d.mu.Lock()
	for id, ep := range d.endpoints {
		r.Endpoints[id] = directory.Count{InFlight: ep.inFlight.Load(), Requests: ep.requests.Load(), Errors: ep.errors.Load()}
	}
	d.mu.Unlock()
	if routes {
		r.Routes = d.traffic.routes()
	}
	return r
}

// ServeHTTP routes one request.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.active.Add(1)
	defer d.active.Add(-1)
	if d.draining.Load() && r.Header.Get("Upgrade") == "" {
		w.Header().Set("Connection", "close")
	}
	t := d.current.Load()
	host := hostOf(r)
	if t.console[host] {
		d.console.ServeHTTP(w, r)
		return
	}
	if to, ok := t.redirect[host]; ok {
		if _, port, err := net.SplitHostPort(r.Host); err == nil && port != "" {
			to = net.JoinHostPort(to, port)
		}
		w.Header().Set("Location", "//"+to+r.URL.RequestURI())
		w.WriteHeader(http.StatusMovedPermanently)
		return
	}
	s := t.find(host)
	if s == nil {
		page{http.StatusNotFound, "nothing is served for " + host, known(t), ""}.show(w, r)
		return
	}
	if r.ContentLength > maxBody {
		page{http.StatusRequestEntityTooLarge, "the request is too large", fmt.Sprintf("at most %d bytes are taken", maxBody), ""}.show(w, r)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if redirected(w, r, s, host) {
		return
	}
	w = withHeaders(w, r, s, host)
	route, pattern, ok := s.routes.Find(r.Method, host, r.URL.Path)
	if !ok {
		page{http.StatusNotFound, "no route for " + r.Method + " " + r.URL.Path, "routes: " + patterns(s), ""}.show(w, r)
		return
	}
	begun := time.Now()
	rec := &recorder{ResponseWriter: w}
	defer func() { d.traffic.add(s.App, s.Env, pattern, rec.status, time.Since(begun)) }()
	if route.Frontend != "" {
		d.statics.serve(rec, r, route.Frontend, s.Frontends[route.Frontend])
	} else {
		d.toService(rec, r, target{app: s.App, env: s.Env, service: route.Service})
	}
}

func (d *Door) toService(w http.ResponseWriter, r *http.Request, tg target) {
	tg.in = r
	d.proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), targetKey{}, tg)))
}

func known(t *table) string {
	var hosts []string
	for h := range t.hosts {
		hosts = append(hosts, h)
	}
	slices.Sort(hosts)
	if len(hosts) == 0 {
		return "no app runs here"
	}
	return "here are: " + strings.Join(hosts, ", ")
}

func patterns(s *site) string {
	var out []string
	for _, r := range s.Routes {
		out = append(out, r.Pattern)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}
