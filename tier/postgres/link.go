package postgres

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"tenfold/internal/keeper"
	"tenfold/internal/pgrepl"
)

// How servers are asked.
const (
	askLimit    = 2 * time.Second  // for an answer to a question of ours
	probeLimit  = time.Second      // for the first byte of a server
	silentLimit = 10 * time.Second // without a byte: it hangs
)

// link is a standing connection to one node as superuser: failover has no time to log in.
type link struct {
	mu   sync.Mutex // held while it is in use
	conn *pgx.Conn
	port int

	// Under Postgres.mu.
	silent   time.Time // since when the server has said nothing; zero: it speaks
	stopped  bool      // seen stopped by a signal
	lost     time.Time // since when it has not streamed; zero: it does
	failures int
	begun    time.Time // the start that failures was counted for
}

// link of a node; it is made at the first call.
func (p *Postgres) link(key string, n int) *link {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := place{key, n}
	if p.links[at] == nil {
		p.links[at] = &link{}
	}
	return p.links[at]
}

type place struct {
	key string
	n   int
}

// unlink closes the connection to a node that is gone.
func (p *Postgres) unlink(key string, n int) {
	p.mu.Lock()
	l := p.links[place{key, n}]
	delete(p.links, place{key, n})
	p.mu.Unlock()
	if l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.drop()
	}
}

// drop closes the connection. The caller holds l.mu.
func (l *link) drop() {
	if l.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		l.conn.Close(ctx)
		l.conn = nil
	}
}

// open says that there is a connection, which tells soon enough of a reader whether it is well. Of a
// primary it does not: a postmaster that is stopped leaves its backends at work.
func (l *link) open() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn != nil && !l.conn.IsClosed()
}

// ask does something over a node's connection, which is made anew when it has ended. f may be called
// twice.
func (p *Postgres) ask(ctx context.Context, r record, n int, f func(context.Context, *pgx.Conn) error) error {
	x, ok := r.node(n)
	if !ok {
		return fmt.Errorf("database has no node %d", n)
	}
	l := p.link(r.ID.String(), n)
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	for {
		fresh := l.conn == nil || l.conn.IsClosed() || l.port != x.Port
		if fresh {
			l.drop()
			c, err := dial(ctx, x.Port, r.Super, "postgres")
			if err != nil {
				return err
			}
			l.conn, l.port = c, x.Port
		}
		err := f(ctx, l.conn)
		if err == nil || !l.conn.IsClosed() {
			return err
		}
		l.conn = nil
		if fresh || ctx.Err() != nil {
			return err
		}
		// The server was started again since: what is asked may be asked twice.
	}
}

// dial connects as superuser. What the supervisor commits waits for no reader: it must be able to work
// on a cluster that has none.
func dial(ctx context.Context, port int, super, database string) (*pgx.Conn, error) {
	u := url.URL{Scheme: "postgresql", User: url.UserPassword(superuser, super), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Path: "/" + database,
		RawQuery: "sslmode=disable&synchronous_commit=local&application_name=tenfold&default_query_exec_mode=exec"}
	return pgx.Connect(ctx, u.String())
}

// connect opens a connection to the primary as superuser, for one piece of work.
func connect(ctx context.Context, r record, database string) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return dial(ctx, r.port(), r.Super, database)
}

// look asks one node how it is. u is what the keeper says of it.
func (p *Postgres) look(ctx context.Context, r record, n int, u *keeper.Status) sight {
	var s sight
	l := p.link(r.ID.String(), n)
	if u == nil {
		return s
	}
	s.Unit, s.PID, s.Started = u.Phase, u.PID, u.Started
	s.Asked = u.LastExit != nil && u.LastExit.Asked
	if s.Unit != keeper.Running {
		if s.Unit == keeper.Exited {
			s.Final = finalPosition(p.dataOf(r.ID, n))
		}
		p.mu.Lock()
		l.silent, l.stopped = time.Time{}, false
		if s.Unit == keeper.Exited && !s.Asked && l.begun != u.Started {
			l.begun = u.Started
			if l.failures++; u.LastExit.At.Sub(u.Started) > startLimit {
				l.failures = 1
			}
		}
		s.Failures = l.failures
		p.mu.Unlock()
		return s
	}
	x, _ := r.node(n)
	stopped := stoppedBySignal(u.PID)
	alive := !stopped && (n != r.Primary && l.open() || speaks(ctx, x.Port))
	p.mu.Lock()
	switch {
	case alive:
		l.silent, l.stopped = time.Time{}, false
	case ctx.Err() == nil:
		if l.silent.IsZero() {
			l.silent = time.Now()
		}
		// One that is stopped by a signal will not speak, and goes on in the middle of a commit when it
		// is continued. Seen twice: a debugger's look is no reason.
		was := l.stopped
		l.stopped = stopped
		s.Hung = was && l.stopped || time.Since(l.silent) > silentLimit && time.Since(u.Started) > startLimit
	}
	p.mu.Unlock()
	if !alive {
		return s
	}
	err := p.ask(ctx, r, n, func(ctx context.Context, c *pgx.Conn) error {
		var at string
		err := c.QueryRow(ctx, `select pg_is_in_recovery(), (case when pg_is_in_recovery()
			then greatest(coalesce(pg_last_wal_receive_lsn(), '0/0'), coalesce(pg_last_wal_replay_lsn(), '0/0'))
			else pg_current_wal_flush_lsn() end)::text,
			coalesce((select status = 'streaming' from pg_stat_wal_receiver), false)`).Scan(&s.Recovery, &at, &s.Streaming)
		if err != nil {
			return err
		}
		s.Position, err = pgrepl.ParseLSN(at)
		return err
	})
	s.Answers = err == nil
	if s.Answers {
		p.mu.Lock()
		l.failures = 0
		p.mu.Unlock()
	}
	return s
}

// speaks says whether a server answers at all: with one byte, to the question whether it knows TLS. No
// login is needed, and one that starts or has no connection left answers too.
func speaks(ctx context.Context, port int) bool {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	c.SetDeadline(deadline)
	var b [1]byte
	if _, err := c.Write([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}); err != nil {
		return false
	}
	_, err = c.Read(b[:])
	return err == nil
}

// stoppedBySignal says that a process is in the state that SIGSTOP leaves it in.
func stoppedBySignal(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	return len(f) > 0 && f[0] == "T"
}

// see asks every node at once.
func (p *Postgres) see(ctx context.Context, key string, r record) (view, error) {
	units, err := p.status(ctx, key)
	if err != nil {
		return view{}, err
	}
	v := view{Nodes: map[int]sight{}, Gone: map[int]time.Duration{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, n := range r.Nodes {
		wg.Go(func() {
			var u *keeper.Status
			if x, ok := units[n.N]; ok {
				u = &x
			}
			s := p.look(ctx, r, n.N, u)
			mu.Lock()
			defer mu.Unlock()
			v.Nodes[n.N] = s
		})
	}
	wg.Wait()
	if p.took(key, r, &v) {
		p.changed()
	}
	return v, ctx.Err()
}

// took keeps what was seen, fills in what only several looks tell, and says whether it differs from the
// last in what the pool is told.
func (p *Postgres) took(key string, r record, v *view) (changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := v.Nodes[r.Primary]; s.Answers && !s.Recovery {
		p.last[key] = s.Position
	}
	v.Last = p.last[key]
	for n, s := range v.Nodes {
		l := p.links[place{key, n}]
		if l == nil {
			continue
		}
		switch {
		case s.Streaming:
			l.lost = time.Time{}
		case l.lost.IsZero():
			l.lost = time.Now()
		}
	}
	for _, m := range r.Sync {
		if l := p.links[place{key, m}]; l != nil && !l.lost.IsZero() {
			v.Gone[m] = time.Since(l.lost)
		}
	}
	if now, ok := p.records.Get(key); ok && now.Epoch > r.Epoch {
		return false // it was looked at another primary: who made this one knows better
	}
	before := p.seen[key]
	p.seen[key] = *v
	for n, s := range v.Nodes {
		if b := before.Nodes[n]; b.Answers != s.Answers || b.Recovery != s.Recovery || b.Unit != s.Unit {
			changed = true
		}
	}
	return changed
}

// status is what the keeper says of the servers of one database. It lists by prefix, and "db" is a
// prefix of "db2".
func (p *Postgres) status(ctx context.Context, key string) (map[int]keeper.Status, error) {
	all, err := p.cfg.Units.List(ctx, unitPrefix+key)
	out := map[int]keeper.Status{}
	for _, s := range all {
		if k, n, ok := parseUnit(s.Unit.ID); ok && k == key {
			out[n] = s
		}
	}
	return out, err
}
