package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"tenfold"
	"tenfold/internal/keeper"
	"tenfold/internal/otlp"
	"tenfold/internal/pooldir"
	"tenfold/tier/edge/certs"
	"tenfold/tier/pgproxy"
)

// poolPrefix begins the unit ids of pools: one a database, so that a crash or a busy database is nobody
// else's, and a new database needs no listener in a process that runs already. Their ends see turn.
const poolPrefix = "house/pool/"

// poolPace is between two reports of a pool when nothing hurries, and between attempts to reach it.
const (
	poolPace  = time.Second
	poolAgain = 50 * time.Millisecond
)

// RunPool is the process of one database's pool. Its listener was opened by the keeper.
func RunPool(ctx context.Context, data string) error {
	l, _, err := ground(data)
	if err != nil {
		return err
	}
	nl, err := net.FileListener(os.NewFile(3, "pool"))
	if err != nil {
		return fmt.Errorf("take over listener: %w", err)
	}
	port := nl.Addr().(*net.TCPAddr).Port
	dir := filepath.Join(l.Tier("pool"), strconv.Itoa(port))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("start pool: %w", err)
	}
	cfg := pgproxy.Config{Dir: dir, Control: l.Socket(poolSocket(port)), Listeners: []net.Listener{nl}, Telemetry: otlp.FromEnv(), Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	if local, err := l.localCertificates(); err == nil {
		cfg.Certificate = local.Certificate
	} else { // the database serves on
		cfg.Log.Error("no TLS for clients", "err", err)
	}
	p, err := pgproxy.New(cfg)
	if err != nil {
		return err
	}
	return p.Run(ctx, func() {})
}

// localCertificates are those of pools, by the root that the door has too.
func (l Layout) localCertificates() (*certs.Local, error) {
	return certs.OpenLocal(l.certificates(), "localhost", "127.0.0.1", "::1")
}

func poolSocket(port int) string { return "pool-" + strconv.Itoa(port) }

// pools are the house's pools: started, told what the databases' tier knows, and asked how they are used.
type pools struct {
	h       *house
	binary  string
	version string

	mu sync.Mutex
	// Under mu: by ID of the database.
	running map[string]*poolLine
	report  pooldir.Report
}

// poolLine is the way to one pool.
type poolLine struct {
	remote *pgproxy.Remote
	port   int
	unit   string
	cancel context.CancelFunc
	news   chan struct{} // holds one: the directory changed
}

func newPools(h *house, binary, version string) *pools {
	return &pools{h: h, binary: binary, version: version, running: map[string]*poolLine{}, report: pooldir.Report{Databases: map[string]pooldir.State{}}}
}

// Name implements tenfold.Service.
func (p *pools) Name() string { return "pools" }

// Run keeps a pool before each database until ctx ends; the pools go on.
func (p *pools) Run(ctx context.Context, ready func()) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ready()
	for {
		changed := p.h.postgres.Changed()
		if err := p.match(ctx, &wg, p.h.postgres.Pool()); err != nil && ctx.Err() == nil {
			p.h.log.Error("keep pools", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-time.After(2 * time.Second):
		}
	}
}

// match starts what is missing, and ends pools of databases that are stopped and of other versions.
func (p *pools) match(ctx context.Context, wg *sync.WaitGroup, dbs []pooldir.Database) error {
	wanted, kept := map[int]bool{}, map[string]bool{}
	for _, d := range dbs {
		if d.Port == 0 {
			continue
		}
		wanted[d.Port] = true
		p.mu.Lock()
		line := p.running[d.ID]
		p.mu.Unlock()
		if line != nil {
			kept[line.unit] = true
			select {
			case line.news <- struct{}{}:
			default:
			}
			continue
		}
		unit, err := p.start(ctx, d.Port)
		if err != nil {
			return err
		}
		kept[unit] = true
		life, cancel := context.WithCancel(ctx)
		line = &poolLine{remote: pgproxy.NewRemote(p.h.layout.Socket(poolSocket(d.Port))), port: d.Port, unit: unit, cancel: cancel, news: make(chan struct{}, 1)}
		p.mu.Lock()
		p.running[d.ID] = line
		p.mu.Unlock()
		wg.Go(func() { p.tend(life, d.ID, line) })
	}
	units, err := p.h.keeper.List(ctx, poolPrefix)
	if err != nil {
		return err
	}
	for _, u := range units {
		if kept[u.Unit.ID] || u.Phase == keeper.Stopping {
			continue
		}
		port, _ := strconv.Atoi(strings.Split(strings.TrimPrefix(u.Unit.ID, poolPrefix), "/")[0])
		if !wanted[port] { // else another serves it
			p.forget(port)
			if err := p.h.keeper.Unlisten(ctx, poolSocket(port)); err != nil {
				return err
			}
		}
		wg.Go(func() { // it drains
			if err := p.h.keeper.Remove(ctx, u.Unit.ID); err != nil && ctx.Err() == nil {
				p.h.log.Error("end a pool", "err", err)
			}
		})
	}
	return nil
}

// start makes sure that the keeper listens for a database and that its pool runs, and returns its unit.
func (p *pools) start(ctx context.Context, port int) (unit string, err error) {
	name := poolSocket(port)
	if _, err := p.h.keeper.Listen(ctx, name, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err != nil {
		return "", fmt.Errorf("listen for a database: %w", err)
	}
	if unit, _, err = turn(ctx, p.h.keeper, poolPrefix+strconv.Itoa(port)+"/", p.version); err != nil {
		return "", fmt.Errorf("start pool: %w", err)
	}
	_, err = p.h.keeper.Start(ctx, keeper.Unit{
		ID: unit, Argv: Command(p.binary, ModePool, p.h.layout.Dir), Env: os.Environ(), Dir: "/",
		Listeners: []string{name}, Restart: keeper.RestartAlways, Log: p.h.layout.Log("pool"), OOMScore: -500, StopGrace: 35 * time.Second,
	})
	if err != nil {
		return "", fmt.Errorf("start pool: %w", err)
	}
	return unit, nil
}

func (p *pools) forget(port int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, line := range p.running {
		if line.port == port {
			line.cancel()
			delete(p.running, id)
			delete(p.report.Databases, id)
		}
	}
}

// opened makes sure that whoever is given a database's address finds a listener there.
func (p *pools) opened(ctx context.Context, id tenfold.ID) error {
	for _, d := range p.h.postgres.Pool() {
		if d.ID == id.String() && d.Port != 0 {
			_, err := p.start(ctx, d.Port)
			return err
		}
	}
	return nil
}

// tend hands a pool its directory whenever it changed, and takes its reports.
func (p *pools) tend(ctx context.Context, id string, line *poolLine) {
	defer line.remote.Close()
	reports := make(chan pooldir.Report)
	var asking sync.WaitGroup
	defer asking.Wait()
	asking.Go(func() { p.ask(ctx, line, reports) })
	for put := true; ; {
		if put {
			if rep, err := line.remote.Put(ctx, p.directory(id)); err == nil {
				p.take(rep)
				put = false
			}
		}
		var again <-chan time.Time
		if put { // it is not there yet
			again = time.After(poolAgain)
		}
		select {
		case <-ctx.Done():
			return
		case <-line.news:
			put = true
		case <-again:
		case rep := <-reports:
			p.take(rep)
		}
	}
}

// ask takes a pool's reports, one after the other.
func (p *pools) ask(ctx context.Context, line *poolLine, reports chan<- pooldir.Report) {
	for ctx.Err() == nil {
		rep, err := line.remote.Report(ctx, poolPace)
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(poolAgain):
			}
			continue
		}
		select {
		case <-ctx.Done():
		case reports <- rep:
		}
	}
}

// directory is what the pool of one database is told. Its version is the time: it grows from one daemon
// to the next.
func (p *pools) directory(id string) pooldir.Snapshot {
	s := pooldir.Snapshot{Version: uint64(time.Now().UnixNano())}
	for _, d := range p.h.postgres.Pool() {
		if d.ID == id {
			if d.API != nil {
				d.API = p.h.dataAPI(d)
			}
			s.Databases = append(s.Databases, d)
		}
	}
	return s
}

// take hands the databases' tier what pools report.
func (p *pools) take(rep pooldir.Report) {
	p.mu.Lock()
	maps.Copy(p.report.Databases, rep.Databases)
	p.report.Version = max(p.report.Version, rep.Version)
	all := pooldir.Report{Version: p.report.Version, Databases: maps.Clone(p.report.Databases)}
	p.mu.Unlock()
	p.h.postgres.Report(all)
}

// stats asks every pool for its counts, by ID of its database.
func (p *pools) stats(ctx context.Context) map[string]pgproxy.Stats {
	return askAll(ctx, p, (*pgproxy.Remote).Stats)
}

// askAll asks every pool; one that does not answer is left out.
func askAll[V any](ctx context.Context, p *pools, ask func(*pgproxy.Remote, context.Context) (map[string]V, error)) map[string]V {
	p.mu.Lock()
	lines := maps.Clone(p.running)
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	out := map[string]V{}
	for _, line := range lines {
		if of, err := ask(line.remote, ctx); err == nil {
			maps.Copy(out, of)
		}
	}
	return out
}

// Pool implements control.API.
func (h *house) Pool(ctx context.Context, id tenfold.ID) (pooldir.View, error) {
	h.pools.mu.Lock()
	line := h.pools.running[id.String()]
	h.pools.mu.Unlock()
	if line == nil {
		return pooldir.View{}, noPool(id)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	all, err := line.remote.View(ctx)
	if err != nil {
		return pooldir.View{}, err
	}
	return all[id.String()], nil
}

// Token implements control.API.
func (h *house) Token(ctx context.Context, id tenfold.ID) (pooldir.Token, error) {
	for _, d := range h.postgres.Pool() {
		if d.ID != id.String() || len(d.Users) == 0 {
			continue
		}
		if err := h.audit(ctx, id.App, id.Env, "token", id.Short(), "asked for"); err != nil {
			return pooldir.Token{}, err
		}
		u, until := d.Users[0], now().Add(pgproxy.TokenLife)
		token := pgproxy.NewToken(d.ID, u, until)
		at := url.URL{Scheme: "postgresql", User: url.UserPassword(u.Name+pgproxy.TokenUser, token), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(d.Port)), Path: "/" + d.Name, RawQuery: "sslmode=require"}
		return pooldir.Token{Token: token, User: u.Name + pgproxy.TokenUser, URL: at.String(), Until: until}, nil
	}
	return pooldir.Token{}, noPool(id)
}

// Authority implements control.API.
func (h *house) Authority(context.Context) (pooldir.Authority, error) {
	l, err := h.layout.localCertificates()
	if err != nil {
		return pooldir.Authority{}, err
	}
	return pooldir.Authority{PEM: string(l.Root()), File: filepath.Join(h.layout.certificates(), "local", "root.crt")}, nil
}

func noPool(id tenfold.ID) error {
	return tenfold.Errorf(tenfold.CodeNotFound, "no pool is before database %s", id.Name).WithHint("databases.%s.proxy is false, or the database does not run: tenfold status", id.Name)
}

// poolNote is what status says of a database's pool.
func (p *pools) note(id tenfold.ID) string {
	p.mu.Lock()
	s, ok := p.report.Databases[id.String()]
	p.mu.Unlock()
	if !ok {
		return ""
	}
	busy := 0
	for _, n := range s.Busy {
		busy += n
	}
	out := fmt.Sprintf(", pool: %d clients on %d connections", s.Clients, busy)
	if s.Waiting > 0 {
		out += fmt.Sprintf(", %d wait", s.Waiting)
	}
	return out
}
