package querycache

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"tenfold/internal/pgrepl"
	"tenfold/internal/pgwire"
)

const (
	// dialLimit bounds a login, lookLimit a look, makeLimit the making of a slot: it waits for transactions
	// that write.
	dialLimit, lookLimit, makeLimit = 5 * time.Second, 2 * time.Second, 30 * time.Second
	// nagEvery is between two questions how far the stream is, while a look waits for it.
	nagEvery = 5 * time.Millisecond
	// statusEvery is how often the server is told that we live.
	statusEvery = time.Second
	// namePrefix begins the names of slots and publications.
	namePrefix = "tenfold_cache_"
)

// ErrLevel says that the server does not write what is needed to its WAL.
var ErrLevel = errors.New("wal_level is not logical yet")

// Config says whom a Follower follows, and whom it tells. The functions are called by its goroutines, in
// the order in which things happened.
type Config struct {
	Addr, Database, User, Password string
	Name                           string // ends the name of its slot and publication; unique at the server
	Ready                          func()
	Changed                        func([]Change)
}

// Follower reads what changes at a server and asks it how far it is. It keeps nothing at the server beyond
// its life: the slot is temporary, and what it published is removed, at the latest by the next one.
type Follower struct {
	cfg   Config
	name  string
	looks chan lookAsked
	asked chan func(context.Context, *pgconn.PgConn) error

	mu      sync.Mutex
	at      uint64        // under mu: the stream is read to here
	arrived chan struct{} // under mu: closed and replaced when at grows
	conn    net.Conn      // of the stream; written to under writing
	writing sync.Mutex

	published map[uint32]uint64 // by table: the first transaction after it was. Owned by judging.
}

type lookAsked struct {
	asked     time.Time
	number    uint64
	relations []uint32
	done      func(Look)
}

// NewFollower starts nothing.
func NewFollower(cfg Config) *Follower {
	return &Follower{
		cfg: cfg, name: namePrefix + cfg.Name, looks: make(chan lookAsked, 1), asked: make(chan func(context.Context, *pgconn.PgConn) error, 64),
		arrived: make(chan struct{}), published: map[uint32]uint64{},
	}
}

// Look asks how far the server is; done is called when the stream was read to there. false: one is under
// way. asked and number are of the moment before.
func (f *Follower) Look(asked time.Time, number uint64, relations []uint32, done func(Look)) bool {
	select {
	case f.looks <- lookAsked{asked, number, relations, done}:
		return true
	default:
		return false
	}
}

// Judge asks what a query reads, and publishes the tables. false: too many are waiting.
func (f *Follower) Judge(q Question, done func(Verdict)) bool {
	return f.enqueue(func(ctx context.Context, c *pgconn.PgConn) error {
		v, err := f.judge(ctx, c, q)
		if err == nil {
			done(v)
		}
		return err
	})
}

// Tidy takes tables that lost their identity out of what is published: their UPDATEs would fail.
func (f *Follower) Tidy() bool { return f.enqueue(f.tidy) }

func (f *Follower) enqueue(fn func(context.Context, *pgconn.PgConn) error) bool {
	select {
	case f.asked <- fn:
		return true
	default:
		return false
	}
}

// Run follows until ctx ends or something breaks, and says what.
func (f *Follower) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	judge, err := f.dial(ctx, false)
	if err != nil {
		return err
	}
	defer closeConn(judge)
	look, err := f.dial(ctx, false)
	if err != nil {
		return err
	}
	defer closeConn(look)
	if err := f.prepare(ctx, judge); err != nil {
		return err
	}
	defer f.unpublish(judge)
	stream, err := f.open(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	f.conn = stream
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	defer stop()
	var wg sync.WaitGroup
	each := func(fn func() error) {
		wg.Go(func() { cancel(fn()) })
	}
	each(func() error { return f.read(ctx, stream) })
	each(func() error { return f.look(ctx, look) })
	each(func() error { return f.judging(ctx, judge) })
	each(func() error { return f.live(ctx) })
	f.cfg.Ready()
	wg.Wait()
	return context.Cause(ctx)
}

func (f *Follower) dial(ctx context.Context, replication bool) (*pgconn.PgConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	host, port, err := net.SplitHostPort(f.cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("follow %s: %w", f.cfg.Addr, err)
	}
	cfg, err := pgconn.ParseConfig("host=" + host + " port=" + port + " sslmode=disable")
	if err != nil {
		return nil, err
	}
	cfg.Database, cfg.User, cfg.Password = f.cfg.Database, f.cfg.User, f.cfg.Password
	cfg.RuntimeParams = map[string]string{"application_name": "tenfold"}
	if replication {
		cfg.RuntimeParams["replication"] = "database"
	}
	return pgconn.ConnectConfig(ctx, cfg)
}

func closeConn(c *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c.Close(ctx)
}

// prepare makes a publication of nothing, and removes those of followers that are gone.
func (f *Follower) prepare(ctx context.Context, c *pgconn.PgConn) error {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	rows, err := ask(ctx, c, "SHOW wal_level")
	if err != nil {
		return err
	}
	if rows[0][0] != "logical" {
		return ErrLevel
	}
	rows, err = ask(ctx, c, `SELECT pg_catalog.quote_ident(pubname) FROM pg_catalog.pg_publication WHERE pubname LIKE 'tenfold\_cache\_%' AND pg_catalog.pg_has_role(pubowner, 'USAGE')
		AND pubname NOT IN (SELECT slot_name FROM pg_catalog.pg_replication_slots)`)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if err := exec(ctx, c, "DROP PUBLICATION IF EXISTS "+r[0]); err != nil {
			return fmt.Errorf("remove a publication that nobody reads: %w", err)
		}
	}
	if err := exec(ctx, c, "CREATE PUBLICATION "+f.name); err != nil {
		return fmt.Errorf("make a publication: %w", err)
	}
	return nil
}

func (f *Follower) unpublish(c *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if c.IsClosed() { // a question was cut off
		again, err := f.dial(ctx, false)
		if err != nil {
			return // the next one does it
		}
		defer closeConn(again)
		c = again
	}
	exec(ctx, c, "DROP PUBLICATION IF EXISTS "+f.name)
}

// open makes the slot and begins to stream.
func (f *Follower) open(ctx context.Context) (net.Conn, error) {
	c, err := f.dial(ctx, true)
	if err != nil {
		return nil, err
	}
	making, cancel := context.WithTimeout(ctx, makeLimit)
	defer cancel()
	if err := exec(making, c, "CREATE_REPLICATION_SLOT "+f.name+" TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT"); err != nil {
		closeConn(c)
		return nil, fmt.Errorf("make a slot: %w", err)
	}
	h, err := c.Hijack()
	if err != nil {
		closeConn(c)
		return nil, err
	}
	if _, err := h.Conn.Write(pgwire.AppendQuery(nil, "START_REPLICATION SLOT "+f.name+" LOGICAL 0/0 (proto_version '1', publication_names '"+f.name+"')")); err != nil {
		h.Conn.Close()
		return nil, err
	}
	return h.Conn, nil
}

// read takes the stream.
func (f *Follower) read(ctx context.Context, conn io.Reader) error {
	r := bufio.NewReaderSize(conn, 64<<10)
	var (
		now   changes
		batch []Change
		at    uint64
		body  []byte
	)
	for {
		typ, p, err := message(r, body)
		if err != nil {
			return fmt.Errorf("read the stream of changes: %w", err)
		}
		body = p[:0]
		switch typ {
		case 'W': // it begins
		case 'E':
			e := pgwire.ParseError(p)
			return fmt.Errorf("read the stream of changes: %w", &e)
		case 'd':
			answer := false
			switch {
			case len(p) >= 18 && p[0] == 'k':
				at, answer = max(at, binary.BigEndian.Uint64(p[1:])), p[17] == 1
			case len(p) >= 25 && p[0] == 'w':
				done, end, err := now.take(p[25:])
				if err != nil {
					return fmt.Errorf("read the stream of changes: %w", err)
				}
				if done {
					if at = max(at, end); len(now.now.Tables) > 0 {
						batch = append(batch, now.now)
					}
				}
			default:
				return fmt.Errorf("read the stream of changes: %w", errShort)
			}
			if answer {
				if err := f.status(false); err != nil {
					return err
				}
			}
		case 'N', 'S':
		default:
			return fmt.Errorf("read the stream of changes: it ended (%q)", typ)
		}
		if r.Buffered() > 0 && len(batch) < 1000 {
			continue
		}
		if len(batch) > 0 { // told before where it ended is
			f.cfg.Changed(batch)
			batch = nil
		}
		f.arrive(at)
	}
}

// message reads one, into buf if it is large enough.
func message(r io.Reader, buf []byte) (typ byte, body []byte, err error) {
	var h [pgwire.HeaderSize]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	typ, size, _, err := pgwire.Header(h[:])
	if err != nil {
		return 0, nil, err
	}
	n := size - pgwire.HeaderSize
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	body = buf[:n]
	_, err = io.ReadFull(r, body)
	return typ, body, err
}

func (f *Follower) arrive(at uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if at > f.at {
		f.at = at
		close(f.arrived)
		f.arrived = make(chan struct{})
	}
}

func (f *Follower) position() (uint64, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at, f.arrived
}

// status tells the server what was read, and asks for an answer or not.
func (f *Follower) status(answer bool) error {
	at, _ := f.position()
	b := append(make([]byte, 0, 39), 'd', 0, 0, 0, 38, 'r')
	for range 3 {
		b = binary.BigEndian.AppendUint64(b, at)
	}
	b = binary.BigEndian.AppendUint64(b, 0)
	if b = append(b, 0); answer {
		b[len(b)-1] = 1
	}
	f.writing.Lock()
	defer f.writing.Unlock()
	f.conn.SetWriteDeadline(time.Now().Add(lookLimit))
	_, err := f.conn.Write(b)
	return err
}

// live tells the server now and then that we are there.
func (f *Follower) live(ctx context.Context) error {
	t := time.NewTicker(statusEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
			if err := f.status(false); err != nil {
				return err
			}
		}
	}
}

// look answers looks, one after the other.
func (f *Follower) look(ctx context.Context, c *pgconn.PgConn) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case l := <-f.looks:
			out, at, err := ahead(ctx, c, l)
			if err == nil {
				err = f.reach(ctx, at)
			}
			if err != nil {
				return fmt.Errorf("look how far the server is: %w", err)
			}
			l.done(out)
		}
	}
}

// ahead asks the server where its WAL ends, what is seen and what the catalogs say.
func ahead(ctx context.Context, c *pgconn.PgConn, l lookAsked) (out Look, at uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	rows, err := ask(ctx, c, "SELECT pg_catalog.pg_current_wal_insert_lsn(), pg_catalog.pg_current_snapshot(), "+global+", "+catalogOf(l.relations))
	if err != nil {
		return out, 0, err
	}
	r := rows[0]
	lsn, err := pgrepl.ParseLSN(r[0])
	if err != nil {
		return out, 0, err
	}
	if off := lsn % 8192; off == 24 || off == 40 {
		lsn -= off // nothing is on this page yet but its header: the last record ends before it
	}
	out = Look{Asked: l.asked, Number: l.number, Global: r[2]}
	if out.Snapshot, err = ParseSnapshot(r[1]); err != nil {
		return out, 0, err
	}
	if out.Catalog, err = parseCatalog(r[3]); err != nil {
		return out, 0, err
	}
	for _, oid := range l.relations {
		if _, there := out.Catalog[oid]; !there {
			out.Catalog[oid] = "gone"
		}
	}
	return out, uint64(lsn), nil
}

// reach returns when the stream was read to a position. The server says where it is when it is asked: of
// what is not published it sends nothing.
func (f *Follower) reach(ctx context.Context, to uint64) error {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		at, arrived := f.position()
		if at >= to {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-arrived:
		case <-t.C:
			if err := f.status(true); err != nil {
				return err
			}
			t.Reset(nagEvery)
		}
	}
}

// judging answers what is asked of queries, one after the other.
func (f *Follower) judging(ctx context.Context, c *pgconn.PgConn) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case fn := <-f.asked:
			if err := fn(ctx, c); err != nil {
				return fmt.Errorf("look at a query: %w", err)
			}
		}
	}
}

func (f *Follower) judge(ctx context.Context, c *pgconn.PgConn, q Question) (Verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	v, err := analyse(ctx, c, q)
	if err != nil || v.Why != "" {
		return v, err
	}
	var fresh []uint32
	for _, oid := range v.Tables {
		if since, ok := f.published[oid]; ok {
			v.Since = max(v.Since, since)
		} else {
			fresh = append(fresh, oid)
		}
	}
	if len(fresh) == 0 {
		return v, nil
	}
	since, err := f.publish(ctx, c, fresh)
	var said *pgconn.PgError
	if errors.As(err, &said) && said.SeverityUnlocalized != "FATAL" {
		return Verdict{Why: "its tables cannot be published: " + said.Message}, nil
	}
	v.Since = max(v.Since, since)
	return v, err
}

// publish adds tables, and gives the first transaction whose changes of them are surely published: one
// that runs already may have been read without them.
func (f *Follower) publish(ctx context.Context, c *pgconn.PgConn, tables []uint32) (since uint64, err error) {
	rows, err := ask(ctx, c, "SELECT pg_catalog.string_agg('ONLY ' || pg_catalog.format('%I.%I', n.nspname, c.relname), ', ') FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY("+array(tables)+")")
	if err != nil {
		return 0, err
	}
	if err := exec(ctx, c, "BEGIN; SET LOCAL lock_timeout = '1s'; ALTER PUBLICATION "+f.name+" ADD TABLE "+rows[0][0]+"; COMMIT"); err != nil {
		exec(ctx, c, "ROLLBACK")
		return 0, err
	}
	if rows, err = ask(ctx, c, "SELECT pg_catalog.pg_current_snapshot()"); err != nil {
		return 0, err
	}
	s, err := ParseSnapshot(rows[0][0])
	if err != nil {
		return 0, err
	}
	for _, oid := range tables {
		f.published[oid] = s.Max
	}
	return s.Max, nil
}

func (f *Follower) tidy(ctx context.Context, c *pgconn.PgConn) error {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	rows, err := ask(ctx, c, `SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_publication p
		JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid JOIN pg_catalog.pg_class c ON c.oid = r.prrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE p.pubname = '`+f.name+`' AND NOT (c.relreplident = 'f' OR c.relreplident IN ('d', 'i') AND EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisvalid
			AND CASE c.relreplident WHEN 'd' THEN i.indisprimary AND i.indimmediate ELSE i.indisreplident END))`)
	if err != nil {
		return err
	}
	for _, r := range rows {
		err := exec(ctx, c, "ALTER PUBLICATION "+f.name+" DROP TABLE ONLY "+r[1])
		var said *pgconn.PgError
		if err != nil && (!errors.As(err, &said) || said.SeverityUnlocalized == "FATAL") {
			return err
		}
		delete(f.published, number(r[0]))
	}
	return nil
}

// Hint says what can be done about what Run returned.
func Hint(err error) string {
	var said *pgconn.PgError
	switch {
	case errors.Is(err, ErrLevel):
		return "the server takes wal_level = logical with its next restart"
	case errors.As(err, &said) && said.Code == "53400":
		return "raise settings.max_replication_slots or max_wal_senders of the database"
	case errors.As(err, &said) && strings.HasPrefix(said.Code, "42"):
		return "the app's role needs REPLICATION, and CREATE on the database: tenfold up gives both"
	}
	return "it is tried again; the server's log may say more"
}
