package pgproxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"tenfold/internal/pooldir"
	"tenfold/tier/pgproxy/dataapi"
)

// A web is the pool's HTTP: the Data API, at the port that PostgreSQL's clients have too. What a client
// says first tells them apart, so a database needs no second port that is kept, handed over and remembered.
type web struct {
	p     *Proxy
	conns chan net.Conn
	gone  chan struct{} // nothing is taken any more

	mu   sync.Mutex
	apis map[int]*endpoint // under mu, by port
}

// endpoint is one database's.
type endpoint struct {
	*dataapi.Server
	peers map[string]int
}

func newWeb(p *Proxy) *web {
	return &web{p: p, conns: make(chan net.Conn), gone: make(chan struct{}), apis: map[int]*endpoint{}}
}

// use makes the databases of a directory those that are answered for.
func (w *web) use(s pooldir.Snapshot) {
	w.mu.Lock()
	var over []*endpoint
	named := map[int]bool{}
	for _, db := range s.Databases {
		if db.API == nil || len(db.Users) == 0 {
			continue
		}
		named[db.Port] = true
		e := w.apis[db.Port]
		if e == nil {
			e = &endpoint{Server: dataapi.New(dataapi.Config{Open: func(ctx context.Context, service string) (*pgconn.PgConn, error) {
				return w.p.visit(ctx, db.Port, service)
			}})}
			w.apis[db.Port] = e
		}
		e.Set(*db.API)
		e.peers = db.API.Peers
	}
	for port, e := range w.apis {
		if !named[port] {
			delete(w.apis, port)
			over = append(over, e)
		}
	}
	w.mu.Unlock()
	for _, e := range over {
		w.p.helpers.Go(e.Close) // it rolls back, which may wait for a loop
	}
}

// visit logs in at the pool itself, as any client does, so that what HTTP asks waits in the same queue. A
// token in place of the password spares both sides the cost of SCRAM.
func (p *Proxy) visit(ctx context.Context, port int, service string) (*pgconn.PgConn, error) {
	p.mu.Lock()
	var db pooldir.Database
	for _, d := range p.snapshot.Databases {
		if d.Port == port && len(d.Users) > 0 {
			db = d
		}
	}
	p.mu.Unlock()
	if db.ID == "" {
		return nil, errors.New("the database is no more")
	}
	cfg, err := pgconn.ParseConfig("sslmode=disable host=127.0.0.1 port=" + strconv.Itoa(port))
	if err != nil {
		return nil, err
	}
	u := db.Users[0]
	cfg.User, cfg.Password, cfg.Database = u.Name+TokenUser, NewToken(db.ID, u, time.Now().Add(time.Minute)), db.Name
	cfg.RuntimeParams = map[string]string{"application_name": service, "timezone": "UTC", "datestyle": "ISO, YMD", "bytea_output": "hex", "extra_float_digits": "1"}
	return pgconn.ConnectConfig(ctx, cfg)
}

// take hands over a connection that speaks HTTP.
func (w *web) take(c net.Conn) {
	select {
	case w.conns <- c:
	case <-w.gone:
		c.Close()
	}
}

// Accept, Close and Addr implement net.Listener.
func (w *web) Accept() (net.Conn, error) {
	select {
	case c := <-w.conns:
		return c, nil
	case <-w.gone:
		return nil, net.ErrClosed
	}
}

func (w *web) Close() error   { return nil }
func (w *web) Addr() net.Addr { return &net.TCPAddr{} }

// ServeHTTP implements http.Handler: it finds the database by the port, and one of the app's others by
// its name.
func (w *web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	at, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	var e *endpoint
	var peers map[string]int
	if at != nil {
		w.mu.Lock()
		if e = w.apis[at.Port]; e != nil {
			peers = e.peers
		}
		w.mu.Unlock()
	}
	if e == nil {
		http.Error(rw, `{"message":"HttpEndpoint is not enabled for this database"}`, http.StatusNotFound)
		return
	}
	if len(peers) > 0 {
		resource, body, err := dataapi.Peek(r)
		if port := peers[resource]; err == nil && port != 0 {
			r.Body = body
			forward(port).ServeHTTP(rw, r)
			return
		}
		r.Body = body
	}
	e.ServeHTTP(rw, r)
}

// forward asks the pool of another database of the app; what was signed stays as it was.
func forward(port int) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))})
			p.Out.Host = p.In.Host
		},
		Transport: &http.Transport{DisableKeepAlives: true},
		ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
}

// run serves until ctx ends, and returns when no request and no transaction is left.
func (w *web) run(ctx context.Context) {
	srv := &http.Server{Handler: w, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	var serving sync.WaitGroup
	serving.Go(func() { srv.Serve(w) })
	<-ctx.Done()
	close(w.gone)
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainFor/2) // the loops drain after it
	defer cancel()
	if srv.Shutdown(limit) != nil {
		srv.Close()
	}
	serving.Wait()
	w.mu.Lock()
	apis := w.apis
	w.apis = map[int]*endpoint{}
	w.mu.Unlock()
	for _, e := range apis {
		e.Close()
	}
}

// begun is a connection of which something was read already.
type begun struct {
	net.Conn
	first []byte
}

func (b *begun) Read(p []byte) (int, error) {
	if len(b.first) > 0 {
		n := copy(p, b.first)
		b.first = b.first[n:]
		return n, nil
	}
	return b.Conn.Read(p)
}

// isHTTP says that a first packet is a request of HTTP: PostgreSQL's begin with a length below 16 MB.
func isHTTP(b []byte) bool { return b[0] >= 'A' && b[0] <= 'Z' }

// surrender gives a client that speaks HTTP to the web.
func (l *loop) surrender(c *client, first []byte) {
	conn, err := detach(c.fd)
	if err != nil {
		l.log.Error("begin HTTP", "database", l.db.ID, "err", err)
	} else {
		unix.EpollCtl(l.poll, unix.EPOLL_CTL_DEL, c.fd, nil) // closing would not: the socket lives on
		b := &begun{conn, append([]byte(nil), first...)}
		l.p.helpers.Go(func() { l.p.web.take(b) })
	}
	l.leave(c)
}
