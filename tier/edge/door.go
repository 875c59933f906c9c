package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tenfold/internal/atomicfile"
	"tenfold/internal/directory"
	"tenfold/tier/edge/certs"
	"tenfold/tier/edge/httpcache"
	"tenfold/tier/edge/quic"
	"tenfold/tier/edge/upstream"
	"tenfold/tier/edge/wire"
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
	// goodbye is what is left to those who stayed with a door that had left already.
	goodbye = time.Second
)

// DoorConfig is what a Door needs.
type DoorConfig struct {
	Dir       string // of the tier: the snapshot lies there
	Control   string // unix socket of this door alone, mode 0600
	Listeners []net.Listener
	// TLSListeners speak TLS. Public names get certificates of ACME (the directory's URL; empty: Let's
	// Encrypt), local ones of an authority of this house; both lie in the folder Certificates.
	TLSListeners []net.Listener
	// QUIC are sockets for HTTP/3, bound to the addresses of TLSListeners and shared with the doors
	// before and after this one. They speak with the same certificates.
	QUIC         []*net.UDPConn
	Certificates string
	ACME         string
	Log          *slog.Logger
}

// Door is the serving half of the tier: a process of its own that routes by the last snapshot,
// whether or not the daemon lives. Connections are wire's, stored responses httpcache's, the way to
// tasks upstream's; what is left here is which is meant.
type Door struct {
	cfg     DoorConfig
	current atomic.Pointer[table]
	statics *statics
	cache   *httpcache.Cache
	cached  http.Handler // answer, behind the cache
	console *httputil.ReverseProxy

	passwords *passwords
	pictures  *pictures
	places    *places
	traffic   *traffic
	logs      *accessLogs
	serving   *wire.Server
	http3     *quic.Server   // nil without QUIC
	sockets   []*quic.Socket // of http3; set by Run
	keys      *certs.Keyring // nil without TLS
	// certified are the hosts whose handshakes ask for client certificates; under mu, or before Run.
	certified map[string]bool
	// standard says that the listeners are on 80 and 443, which a browser tries by itself.
	standard bool

	mu         sync.Mutex
	services   services
	private    map[string]*privateListener // by address
	life       context.Context             // of what runs beside requests; nil before Run
	background sync.WaitGroup

	// leaving is closed when the door is to take no more connections, left when it has none.
	leaving, left chan struct{}
	waits         waits
	leaves        sync.Once
}

type privateListener struct {
	server *wire.Server
	target atomic.Pointer[serviceKey]
}

// NewDoor reads the last snapshot; it opens nothing.
func NewDoor(cfg DoorConfig) (*Door, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	d := &Door{
		cfg: cfg, passwords: newPasswords(), places: &places{open: map[string]*place{}}, statics: newStatics(), traffic: newTraffic(), logs: &accessLogs{dir: cfg.Dir, m: map[string]*accessLog{}}, private: map[string]*privateListener{},
		leaving: make(chan struct{}), left: make(chan struct{}), waits: waits{changed: make(chan struct{})},
		services: services{ways: map[serviceKey]*upstream.Service{}, ends: map[serviceKey]context.CancelFunc{}},
	}
	d.pictures = &pictures{d: d, m: map[string]*pictureHandler{}}
	err := d.openKeys()
	if err != nil {
		return nil, err
	}
	d.standard = port(cfg.Listeners) == 80 && port(cfg.TLSListeners) == 443
	wired := wire.Config{Handler: d, Hits: hits{d}, Served: served, Passes: passes{}, MaxHeader: maxHeader, Log: cfg.Log}
	if d.keys != nil {
		wired.TLS = d.keys.TLSConfig()
		if wired.AltSvc, err = d.openQUIC(); err != nil {
			return nil, err
		}
	}
	if d.cache, err = httpcache.New(httpcache.Config{Dir: filepath.Join(cfg.Dir, "cache"), Log: cfg.Log}); err != nil {
		return nil, err
	}
	d.cached = d.cache.Handler(ruleOf, http.HandlerFunc(d.answer))
	if d.serving, err = wire.New(wired); err != nil {
		return nil, err
	}
	var s directory.Snapshot
	if err := atomicfile.ReadJSON(filepath.Join(cfg.Dir, snapshotFile), &s); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	t, err := newTable(s, d.traffic, nil, d.logs)
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	t.lead(d.update(s, t.trust))
	d.use(t)
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

// apply makes a snapshot the one in use, and then stores it: requests may wait for what it says. An older one is refused;
// the same one again is harmless.
func (d *Door) apply(s directory.Snapshot) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.current.Load()
	if s.Version < old.snapshot.Version {
		return fmt.Errorf("apply snapshot %d: %w: %d is in use", s.Version, errOlder, old.snapshot.Version)
	}
	t, err := newTable(s, d.traffic, old.limits, d.logs)
	if err != nil {
		return fmt.Errorf("apply snapshot %d: %w", s.Version, errUnusable{err})
	}
	t.lead(d.update(s, t.trust))
	d.use(t)
	d.listenPrivately(t)
	return atomicfile.WriteJSON(filepath.Join(d.cfg.Dir, snapshotFile), s, 0o600)
}

// use makes a table the one in use.
func (d *Door) use(t *table) {
	d.current.Store(t)
	if err := d.logs.retain(t.snapshot.Sites); err != nil {
		d.cfg.Log.Error("close access log", "err", err)
	}
	d.cache.SetBounds(t.snapshot.Memory, t.snapshot.Disk)
	d.places.retain(t.snapshot.Sites)
	d.pictures.retain(t.snapshot)
	if d.keys != nil {
		hosts, dns := hostsOf(t)
		d.keys.SetContact(t.snapshot.Contact)
		d.keys.SetDNS(dns)
		d.keys.SetHosts(hosts)
		d.askForCertificates(t)
	}
}

// errUnusable is a snapshot with a route that cannot be parsed.
type errUnusable struct{ error }

func (e errUnusable) Unwrap() error { return e.error }

// Run serves until ctx ends, then drains: every response says that its connection closes, and Run
// returns when none is open or drainFor is over. Listeners are the keeper's: the next door has them.
func (d *Door) Run(ctx context.Context, ready func()) error {
	os.Remove(d.cfg.Control)
	cl, err := net.Listen("unix", d.cfg.Control)
	if err != nil {
		return fmt.Errorf("listen for the daemon: %w", err)
	}
	os.Chmod(d.cfg.Control, 0o600)
	control := &http.Server{Handler: d.controlHandler(), ErrorLog: quiet}
	var wg sync.WaitGroup
	wg.Go(func() { control.Serve(cl) })
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	d.mu.Lock()
	d.life = life
	for key, way := range d.services.ways {
		d.begin(key, way)
	}
	d.listenPrivately(d.current.Load())
	d.mu.Unlock()
	work, stopWork := context.WithCancel(ctx)
	defer stopWork()
	d.background.Go(func() { d.runCache(work, life) })
	d.background.Go(func() {
		select {
		case <-d.leaving:
			stopWork()                                           // the next door has the cache's folder now
			quick, cancel := context.WithTimeout(life, drainFor) // clients of HTTP/3 come again to the next door
			d.drain(life, quick)
			cancel()
			close(d.left)
		case <-life.Done():
		}
	})
	d.background.Go(func() {
		if err := d.logs.run(life); err != nil {
			d.cfg.Log.Error("write access log", "err", err)
		}
	})
	for _, l := range d.cfg.Listeners {
		wg.Go(func() { d.serving.Serve(d.proxied(l)) })
	}
	if d.keys != nil {
		d.background.Go(func() {
			if err := d.keys.Run(life, func() {}); err != nil {
				d.cfg.Log.Error("keep certificates", "err", err)
			}
		})
	}
	for _, l := range d.cfg.TLSListeners {
		wg.Go(func() { d.serving.ServeTLS(d.proxied(l)) })
	}
	d.serveQUIC(&wg)
	ready()
	<-ctx.Done()
	rest := drainFor
	select {
	case <-d.leaving:
		rest = goodbye // they had their time
	default:
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), rest)
	defer cancel()
	d.drain(limit, limit)
	err = errors.Join(d.serving.Close(), control.Close(), d.closeQUIC())
	end()
	d.background.Wait()
	wg.Wait()
	return err
}

// leave has the door take no more connections, and returns when the last has ended: a WebSocket may be
// open for hours. The door goes on for those that it has until it is told to end.
func (d *Door) leave(ctx context.Context) error {
	d.leaves.Do(func() { close(d.leaving) })
	select {
	case <-d.left:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drain lets what is under way come to its end, on private listeners too, until limit; over QUIC until quick.
func (d *Door) drain(limit, quick context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { d.serving.Drain(limit) })
	if d.http3 != nil {
		wg.Go(func() { d.drainQUIC(quick) })
	}
	d.mu.Lock()
	private := maps.Clone(d.private)
	clear(d.private)
	d.mu.Unlock()
	for _, p := range private {
		wg.Go(func() {
			p.server.Drain(limit)
			p.server.Close()
		})
	}
	wg.Wait()
}

// runCache runs the cache's background work. Two doors share its folder while one hands over to the
// other: the one that drains lets go first, and the cache of the other serves from memory until then.
func (d *Door) runCache(ctx, life context.Context) {
	dir := filepath.Join(d.cfg.Dir, "cache")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		d.cfg.Log.Error("open cache", "err", err)
		return
	}
	lock, err := os.OpenFile(filepath.Join(d.cfg.Dir, "cache.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		d.cfg.Log.Error("open cache", "err", err)
		return
	}
	defer lock.Close()
	for syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
	if err := d.cache.Run(ctx, func() {}); err != nil && life.Err() == nil {
		d.cfg.Log.Error("run cache", "err", err)
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
			tg := &serviceKey{s.App, s.Env, sv.Name}
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
			p.server, err = wire.New(wire.Config{Log: d.cfg.Log, MaxHeader: maxHeader, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				trace(r.Header)
				d.toService(w, r, *p.target.Load(), upstream.Route{})
			})})
			if err != nil {
				l.Close()
				d.cfg.Log.Error("listen privately", "service", sv.Name, "err", err)
				continue
			}
			d.private[sv.Private] = p
			d.background.Go(func() { p.server.Serve(l) }) // ends with the server, which drain or a later snapshot closes
		}
	}
	for addr := range t.candidates {
		named[addr] = true
		d.listenFor(addr)
	}
	for addr, p := range d.private {
		if !named[addr] {
			d.background.Go(func() { p.server.Close() })
			delete(d.private, addr)
		}
	}
}

// listenFor opens a candidate's address. Under d.mu.
func (d *Door) listenFor(addr string) {
	if _, ok := d.private[addr]; ok {
		return
	}
	l, err := shared.Listen(context.Background(), "tcp", addr)
	if err != nil {
		d.cfg.Log.Error("listen for a candidate", "err", err)
		return
	}
	p := &privateListener{}
	if p.server, err = wire.New(wire.Config{Log: d.cfg.Log, MaxHeader: maxHeader, Handler: d.try(addr)}); err != nil {
		l.Close()
		d.cfg.Log.Error("listen for a candidate", "err", err)
		return
	}
	d.private[addr] = p
	d.background.Go(func() { p.server.Serve(l) })
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
			status := http.StatusInternalServerError
			var bad errUnusable
			switch {
			case errors.As(err, &bad):
				status = http.StatusBadRequest
			case errors.Is(err, errOlder):
				status = http.StatusConflict
			}
			http.Error(w, err.Error(), status)
			return
		}
		json.NewEncoder(w).Encode(d.report(false))
	})
	mux.HandleFunc("POST /leave", func(w http.ResponseWriter, r *http.Request) {
		if err := d.leave(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusRequestTimeout)
		}
	})
	mux.HandleFunc("POST /purge", func(w http.ResponseWriter, r *http.Request) {
		var p directory.Purge
		if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&p); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		json.NewEncoder(w).Encode(directory.Purged{Count: d.cache.Purge(httpcache.Purge{URL: p.URL, Prefix: p.Prefix, Tag: p.Tag, Scope: p.Site})})
	})
	mux.HandleFunc("POST /explain", d.serveExplain)
	mux.HandleFunc("POST /lease", func(w http.ResponseWriter, r *http.Request) {
		var l directory.Lease
		if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&l); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		d.mu.Lock()
		for _, way := range d.services.ways {
			way.Renew(l)
		}
		d.mu.Unlock()
		json.NewEncoder(w).Encode(d.report(false))
	})
	mux.HandleFunc("GET /waiting", d.serveWaiting)
	mux.HandleFunc("GET /report", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(d.report(r.FormValue("routes") == "true"))
	})
	return mux
}

func (d *Door) report(routes bool) directory.Report {
	r := directory.Report{Version: d.current.Load().snapshot.Version, Endpoints: map[string]directory.Count{}}
	d.mu.Lock()
	r.Services = d.loads()
	for _, way := range d.services.ways {
		for _, c := range way.Counts() {
			n := r.Endpoints[c.ID] // one that is apart has two ways
			n.Add(directory.Count{InFlight: c.InFlight, Requests: c.Requests, Errors: c.Errors, Class: c.Class, Buckets: c.Buckets, Lapsed: c.Lapsed})
			r.Endpoints[c.ID] = n
		}
	}
	d.mu.Unlock()
	st := d.cache.Stats()
	r.Cache = directory.CacheCount{Hits: st.Hits, Stale: st.Stale, Misses: st.Misses, Revalidated: st.Revalidated, Collapsed: st.Collapsed, Uncacheable: st.Uncacheable, Entries: st.Entries, Memory: st.MemoryBytes, Disk: st.DiskBytes}
	if routes {
		r.Routes = d.traffic.routes()
		if r.Certificates = d.certificates(); d.keys != nil {
			r.Root, r.Faults = string(d.keys.Root()), d.faults()
		}
	}
	return r
}
