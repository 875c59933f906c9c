// Package pgproxy pools connections to PostgreSQL: many clients of unmodified apps share few server
// connections, a transaction at a time. It holds clients through a failover, a pause or a wake instead
// of failing them, and keeps one to its server only as long as the session has what no other has.
//
// It is a process of its own that serves by the last directory (internal/pooldir), whether or not the
// daemon lives. It decides nothing about servers: which is the primary, and whether it is paused, is
// said by the directory; what it sees of them goes up as a Report.
//
// A database is a loop (loop.go). Messages of clients are taken in frontend.go, those of servers in
// backend.go; seen.go counts them by statement, which admin.go shows; pool.go has the queues and who gets a connection, classify.go what a statement leaves
// behind, settings.go how a session's settings follow its client. Begin at New, then loop.
package pgproxy

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"tenfold/internal/atomicfile"
	"tenfold/internal/otlp"
	"tenfold/internal/pgwire"
	"tenfold/internal/pooldir"
)

// snapshotFile is the last directory, in Config.Dir. It has passwords: mode 0600.
const snapshotFile = "directory.json"

// drainFor bounds how long a pool that was told to end waits for what is under way.
const drainFor = 30 * time.Second

// Config is what a Proxy needs.
type Config struct {
	Dir     string // for the last directory
	Control string // unix socket of the daemon, mode 0600; "" for none
	// Listeners are TCP sockets that somebody else keeps, so that they stay open from one pool to the
	// next; each serves the database whose Port it has. For other ports the pool opens its own.
	Listeners []net.Listener
	// Certificate is what clients that ask for TLS are shown, the same pointer until it is another; nil: TLS
	// is refused. It is asked at each handshake and must be quick.
	Certificate func() (*tls.Certificate, error)
	// Telemetry is where spans and metrics go; nil: nowhere.
	Telemetry *otlp.Exporter
	Log       *slog.Logger
}

// Proxy is the pool's process.
type Proxy struct {
	cfg    Config
	web    *web
	spans  *spans       // nil: nobody wants them
	nobody *pgwire.Keys // of no password: for users that do not exist
	// helpers are goroutines that may block on behalf of loops; they end with life.
	helpers sync.WaitGroup
	life    context.Context
	end     context.CancelFunc

	// sockets are the databases', by server's address.
	sockets atomic.Pointer[map[string]string]

	mu       sync.Mutex
	snapshot pooldir.Snapshot
	loops    map[string]*loop // by ID of the database
	ports    map[int]net.Listener
	running  bool
	// verifiers are of users by name and password, serverLogins of what servers asked for.
	verifiers    map[credentials]*pgwire.Keys
	serverLogins map[credentials]*pgwire.Keys
	tls          *secure       // of the certificate that was shown last
	news         chan struct{} // closed and replaced when something is to be reported at once
}

type credentials struct{ user, password string }

// New reads the last directory; it opens nothing.
func New(cfg Config) (*Proxy, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	p := &Proxy{
		cfg: cfg, loops: map[string]*loop{}, ports: map[int]net.Listener{}, verifiers: map[credentials]*pgwire.Keys{},
		serverLogins: map[credentials]*pgwire.Keys{}, news: make(chan struct{}), nobody: pgwire.NewKeys(string(pgwire.NewKeys("").Salt)),
	}
	p.web = newWeb(p)
	if cfg.Telemetry != nil {
		p.spans = newSpans(p, cfg.Telemetry)
	}
	p.life, p.end = context.WithCancel(context.Background())
	for _, l := range cfg.Listeners {
		p.ports[l.Addr().(*net.TCPAddr).Port] = l
	}
	if err := atomicfile.ReadJSON(filepath.Join(cfg.Dir, snapshotFile), &p.snapshot); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read directory of databases: %w", err)
	}
	return p, nil
}

// Name implements tenfold.Service.
func (p *Proxy) Name() string { return "pool" }

// Run serves until ctx ends; then nothing more is accepted, what is under way comes to its end (within
// drainFor), and clients are told to connect again (57P01).
func (p *Proxy) Run(ctx context.Context, ready func()) error {
	defer p.end()
	var control *http.Server
	var served sync.WaitGroup
	if p.cfg.Control != "" {
		os.Remove(p.cfg.Control)
		cl, err := net.Listen("unix", p.cfg.Control)
		if err != nil {
			return fmt.Errorf("listen for the daemon: %w", err)
		}
		cl.(*net.UnixListener).SetUnlinkOnClose(false) // the next pool may listen there already
		os.Chmod(p.cfg.Control, 0o600)
		control = &http.Server{Handler: p.handler(), ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
		served.Go(func() { control.Serve(cl) })
	}
	var web sync.WaitGroup
	webLife, endWeb := context.WithCancel(context.WithoutCancel(ctx))
	defer endWeb()
	web.Go(func() { p.web.run(webLife) })
	var telling sync.WaitGroup
	defer telling.Wait()
	if p.spans != nil {
		tell, quiet := context.WithCancel(context.WithoutCancel(ctx))
		defer quiet() // after the loops
		telling.Go(func() { p.spans.run(tell) })
	}
	p.mu.Lock()
	p.running = true
	err := p.use(p.snapshot)
	p.mu.Unlock()
	if err == nil {
		ready()
		<-ctx.Done()
	}
	p.mu.Lock()
	p.running = false
	loops := p.loops
	p.loops = map[string]*loop{}
	p.mu.Unlock()
	if control != nil {
		control.Close()
	}
	served.Wait()
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainFor)
	defer cancel()
	for _, l := range loops {
		l.do(l.stopListening)
	}
	endWeb()
	web.Wait() // its connections are clients of the loops
	for _, l := range loops {
		l.do(l.drain)
	}
	for _, l := range loops {
		l.awaitEmpty(limit)
		l.do(func() { l.ended = true })
		<-l.done
	}
	for _, l := range p.ports {
		l.Close()
	}
	p.end()
	p.helpers.Wait()
	return err
}

// awaitEmpty returns when no client is left.
func (l *loop) awaitEmpty(limit context.Context) {
	for limit.Err() == nil {
		left := 0
		if !l.ask(func() {
			for _, x := range l.conns {
				if x.client != nil {
					left++
				}
			}
		}) || left == 0 {
			return
		}
		select {
		case <-limit.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Apply makes a directory the one in use and keeps it. An older one is refused; the same again is harmless.
func (p *Proxy) Apply(s pooldir.Snapshot) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.Version < p.snapshot.Version {
		return fmt.Errorf("apply directory %d: %d is in use", s.Version, p.snapshot.Version)
	}
	if err := os.MkdirAll(p.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("apply directory %d: %w", s.Version, err)
	}
	if err := atomicfile.WriteJSON(filepath.Join(p.cfg.Dir, snapshotFile), s, 0o600); err != nil {
		return err
	}
	p.snapshot = s
	if !p.running {
		return nil
	}
	return p.use(s)
}

// use hands each database to its loop. Under p.mu.
func (p *Proxy) use(s pooldir.Snapshot) error {
	named := map[string]bool{}
	known := map[credentials]*pgwire.Keys{}
	var errs []error
	sockets := map[string]string{}
	for _, db := range s.Databases {
		maps.Copy(sockets, db.Sockets)
	}
	p.sockets.Store(&sockets)
	for _, db := range s.Databases {
		named[db.ID] = true
		keys := map[string]*pgwire.Keys{}
		for _, u := range db.Users {
			c := credentials{u.Name, u.Password}
			if known[c] = p.verifiers[c]; known[c] == nil {
				known[c] = pgwire.NewKeys(u.Password)
			}
			keys[u.Name] = known[c]
		}
		l := p.loops[db.ID]
		fresh := l == nil
		if fresh {
			var err error
			if l, err = newLoop(p); err != nil {
				errs = append(errs, err)
				continue
			}
			p.loops[db.ID] = l
		}
		db.Users = slices.Clone(db.Users)
		if fresh {
			l.apply(db, s.Version, keys)
			if err := p.open(l, db.Port); err != nil {
				errs = append(errs, fmt.Errorf("open database %s: %w", db.ID, err))
			}
			go l.run() // ends in Run or below, which wait for l.done
			continue
		}
		l.do(func() { l.apply(db, s.Version, keys) })
	}
	p.verifiers = known
	p.web.use(s)
	for id, l := range p.loops {
		if !named[id] {
			delete(p.loops, id)
			l.do(func() {
				for _, x := range l.conns {
					if x.client != nil {
						l.dismiss(x.client, &pgwire.Error{Code: "57P01", Message: "database " + l.db.Name + " is no more"})
					}
				}
				l.ended = true
			})
			<-l.done
		}
	}
	return errors.Join(errs...)
}

// open gives a loop its port. Under p.mu.
func (p *Proxy) open(l *loop, port int) error {
	ln := p.ports[port]
	if ln == nil {
		var err error
		if ln, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err != nil {
			return err
		}
		if port != 0 {
			p.ports[port] = ln
		} else {
			defer ln.Close() // the loop has a descriptor of its own
		}
	}
	return l.listen(ln)
}

// serverKeys remembers what a login at servers derives from a password.
func (p *Proxy) serverKeys(user, password string, salt []byte, iterations int) *pgwire.Keys {
	c := credentials{user, password}
	p.mu.Lock()
	k := p.serverLogins[c]
	p.mu.Unlock()
	if k.Fits(salt, iterations) {
		return k
	}
	k = pgwire.DeriveKeys(password, slices.Clone(salt), iterations)
	p.mu.Lock()
	p.serverLogins[c] = k
	p.mu.Unlock()
	return k
}

// handler is what the daemon asks.
func (p *Proxy) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /directory", func(w http.ResponseWriter, r *http.Request) {
		var s pooldir.Snapshot
		if err := json.NewDecoder(io.LimitReader(r.Body, 64<<20)).Decode(&s); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if err := p.Apply(s); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		json.NewEncoder(w).Encode(p.Report())
	})
	// With wait, a duration, the answer comes when there is something that cannot wait (a wake, a
	// finished pause), at the latest after that time.
	mux.HandleFunc("GET /report", func(w http.ResponseWriter, r *http.Request) {
		if wait, err := time.ParseDuration(r.FormValue("wait")); err == nil && wait > 0 {
			select {
			case <-p.News():
			case <-time.After(min(wait, time.Minute)):
			case <-r.Context().Done():
				return
			}
		}
		json.NewEncoder(w).Encode(p.Report())
	})
	mux.HandleFunc("GET /view", func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(p.View()) })
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(p.Stats()) })
	return mux
}

// News is closed when something is to be reported at once.
func (p *Proxy) News() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.news
}

func (p *Proxy) tell() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.news)
	p.news = make(chan struct{})
}

// each asks every loop at once, by ID of its database.
func (p *Proxy) each(fn func(id string, l *loop)) {
	p.mu.Lock()
	loops := make(map[string]*loop, len(p.loops))
	for id, l := range p.loops {
		loops[id] = l
	}
	p.mu.Unlock()
	for id, l := range loops {
		l.ask(func() { fn(id, l) })
	}
}
