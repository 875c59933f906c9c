package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tenfold"
	"tenfold/internal/engines"
	"tenfold/internal/freeport"
	"tenfold/internal/keeper"
	"tenfold/internal/pgrepl"
)

// lostLimit is how long a reader that runs may go without being sent anything while the primary serves,
// before it is cloned anew: the WAL that it needs is gone.
const lostLimit = 30 * time.Second

// readerKeys are the readers to look after, "key#2".
func (p *Postgres) readerKeys() []string {
	var out []string
	for key, r := range p.records.All() {
		if r.Stopped || r.Suspended || r.Serving == "" {
			continue
		}
		for _, n := range r.whole().readers() {
			out = append(out, key+"#"+strconv.Itoa(n.N))
		}
	}
	slices.Sort(out)
	return out
}

// follow brings one reader nearer to following the primary.
func (p *Postgres) follow(ctx context.Context, at string) time.Duration {
	key, number, _ := strings.Cut(at, "#")
	n, _ := strconv.Atoi(number)
	r, ok := p.get(key)
	x, has := r.node(n)
	if !ok || !has || r.Stopped || x.Leaving || n == r.Primary || ctx.Err() != nil {
		return 0
	}
	again, err := p.followOnce(ctx, key, r, x)
	if errors.Is(err, errNotYet) {
		return worriedPace
	}
	if err != nil && ctx.Err() == nil {
		p.say(at, r.ID, fmt.Sprintf("reader %d: %v", n, err))
		return p.tries.Pause(at)
	}
	p.tries.Done(at)
	return again
}

// say warns once of what is tried again and again.
func (p *Postgres) say(at string, id tenfold.ID, text string) {
	if p.tries.News(at, text) && text != "" {
		p.cfg.Emit(tenfold.Event{ID: id, Severity: tenfold.SeverityWarning, Text: text})
	}
}

func (p *Postgres) followOnce(ctx context.Context, key string, r record, x node) (time.Duration, error) {
	switch x.Stage {
	case stageNew:
		return answerPace, p.clone(ctx, key, r, x.N)
	case stageRejoin:
		return answerPace, p.rejoin(ctx, key, r, x.N)
	}
	all, err := p.status(ctx, key)
	if err != nil {
		return 0, err
	}
	u := all[x.N]
	if x.Loose != "" && (x.Loose != thisBoot() || u.Phase == keeper.Running && u.Started.Before(time.Now().Add(-looseFor))) {
		return answerPace, p.fasten(key, r, x)
	}
	if u.Phase != keeper.Running {
		if u.Phase == keeper.Stopping {
			return fencePace, nil
		}
		if p.failing(key, x.N) {
			p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityWarning, Text: fmt.Sprintf("reader %d does not start: it is cloned anew", x.N), Hint: "its log: " + p.logOf(r.ID, x.N)})
			return answerPace, p.records.Change(key, func(c *record) { c.edit(x.N, func(n *node) { n.Stage = stageNew }) })
		}
		return worriedPace, p.startReader(ctx, key, x.N)
	}
	p.mu.Lock()
	hung := p.seen[key].Nodes[x.N].Hung
	p.mu.Unlock()
	if hung {
		p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityWarning, Text: fmt.Sprintf("reader %d is killed: it does not answer", x.N)})
		killAll(p.dataOf(r.ID, x.N))
		return worriedPace, nil
	}
	if err := p.reload(ctx, r, x.N); err != nil {
		return 0, err
	}
	var streaming, restart bool
	var at string
	if err := p.ask(ctx, r, x.N, func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, `select coalesce((select status = 'streaming' from pg_stat_wal_receiver), false),
			exists (select from pg_settings where pending_restart), coalesce(pg_last_wal_replay_lsn(), '0/0')::text`).Scan(&streaming, &restart, &at)
	}); err != nil {
		var pe *pgconn.PgError
		if time.Since(u.Started) < startLimit || errors.As(err, &pe) {
			return worriedPace, nil // it recovers
		}
		return 0, err
	}
	switch {
	case restart && streaming && r.Serving == r.Goal && r.Pending == "": // the primary first: a reader may have no less of anything
		return answerPace, p.cfg.Units.Remove(ctx, unitOf(key, x.N))
	case streaming:
		p.greet(key, r, x.N, u.Started)
		p.confine(ctx, key, r, x.N, u.PID, u.Started)
		return watchPace, p.prepare(ctx, key, r, x.N, u.Started)
	case p.lost(key, x.N, at) && time.Since(u.Started) > lostLimit:
		p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityWarning, Text: fmt.Sprintf("reader %d cannot follow: it is cloned anew", x.N)})
		return answerPace, p.records.Change(key, func(c *record) { c.edit(x.N, func(n *node) { n.Stage = stageNew }) })
	default:
		return worriedPace, nil
	}
}

// failing says that a reader ended again and again soon after its start, while the primary is well.
func (p *Postgres) failing(key string, n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.links[place{key, n}]
	if l == nil || l.failures < 4 || time.Since(p.healthy[key]) > lostLimit/2 {
		return false
	}
	l.failures = 0
	return true
}

// greet says once for each start that a reader follows, and wakes the cluster, which waited for it.
func (p *Postgres) greet(key string, r record, n int, started time.Time) {
	p.mu.Lock()
	at := place{key, n}
	known := p.greeted[at].Equal(started)
	p.greeted[at] = started
	p.mu.Unlock()
	p.say(key+"#"+strconv.Itoa(n), r.ID, "")
	if !known {
		p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("reader %d follows the primary", n), Took: time.Since(started)})
		p.pursuit.Wake()
	}
}

// looseFor is how long a reader serves before its data is brought to disk: the first seconds are its own.
const looseFor = 2 * time.Second

// fasten has a copied reader's data on disk; after a loss of power there is nothing to rely on.
func (p *Postgres) fasten(key string, r record, x node) error {
	if x.Loose == thisBoot() {
		if err := pgrepl.Sync(p.dataOf(r.ID, x.N)); err != nil {
			return err
		}
	}
	defer p.pursuit.Wake() // it may be relied on
	return p.records.Change(key, func(c *record) {
		c.edit(x.N, func(n *node) {
			if n.Loose != thisBoot() {
				n.Stage = stageNew
			}
			n.Loose = ""
		})
	})
}

// thisBoot is this boot of the machine.
var thisBoot = sync.OnceValue(func() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
})

// lost says that a reader has not been sent anything for long and has come no further, while the primary
// is well.
func (p *Postgres) lost(key string, n int, at string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	where := place{key, n}
	same := p.positions[where] == at
	p.positions[where] = at
	l := p.links[where]
	return same && l != nil && !l.lost.IsZero() && time.Since(l.lost) > lostLimit && time.Since(p.healthy[key]) < lostLimit/2
}

// add notes one more reader.
func (p *Postgres) add(key string, r record) error {
	port, err := freeport.Pick()
	if err != nil {
		return err
	}
	if err := p.records.Change(key, func(x *record) {
		x.cluster = x.whole().cluster
		x.Nodes = append(slices.Clone(x.Nodes), node{N: x.free(), Port: port, Stage: stageNew})
	}); err != nil {
		return err
	}
	p.readers.Wake()
	return nil
}

// drop removes a reader with its copy of the data.
func (p *Postgres) drop(ctx context.Context, key string, r record, n int) error {
	if err := p.cfg.Units.Remove(ctx, unitOf(key, n)); err != nil {
		return err
	}
	p.unlink(key, n)
	gone := p.homeOf(r.ID, n)
	if n == 1 {
		gone = p.dataOf(r.ID, n) // the database's own folder has the others in it
	}
	if err := errors.Join(os.RemoveAll(gone), os.RemoveAll(p.dataOf(r.ID, n)+".new")); err != nil {
		return fmt.Errorf("remove reader %d: %w", n, err)
	}
	if err := p.records.Change(key, func(x *record) {
		x.Nodes = slices.DeleteFunc(slices.Clone(x.Nodes), func(m node) bool { return m.N == n })
	}); err != nil {
		return err
	}
	r, _ = p.get(key)
	p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("reader %d removed", n)})
	return p.slots(ctx, r, true)
}

// replication opens a connection for the replication protocol to the primary.
func replication(ctx context.Context, r record) (*pgconn.PgConn, error) {
	u := url.URL{Scheme: "postgresql", User: url.UserPassword(superuser, r.Super), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port())), RawQuery: "sslmode=disable&replication=true&application_name=tenfold"}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return pgconn.Connect(ctx, u.String())
}

// clone gives a reader the primary's data. It is made beside what there was and takes its place whole.
func (p *Postgres) clone(ctx context.Context, key string, r record, n int) error {
	begun := time.Now()
	if err := p.welcome(ctx, r); err != nil {
		return err
	}
	if err := p.makeHome(r.ID, n); err != nil {
		return err
	}
	data := p.dataOf(r.ID, n)
	fresh, old := data+".new", data+".old"
	if err := errors.Join(os.RemoveAll(fresh), os.RemoveAll(old)); err != nil {
		return fmt.Errorf("clone: %w", err)
	}
	copied, err := p.duplicate(ctx, r, pgrepl.Options{Label: "tenfold " + standby(n)}, fresh)
	if err != nil {
		return err
	}
	if err := p.cfg.Units.Remove(ctx, unitOf(key, n)); err != nil {
		return err
	}
	p.unlink(key, n)
	if err := os.Rename(data, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("clone: %w", err)
	}
	if err := errors.Join(os.Rename(fresh, data), os.RemoveAll(old)); err != nil {
		return fmt.Errorf("clone: %w", err)
	}
	if err := p.prepared(key, r, n, thisBoot()); err != nil {
		return err
	}
	p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("reader %d cloned, %s", n, sizeOf(copied)), Took: time.Since(begun)})
	return nil
}

var errNotYet = errors.New("the primary does not serve yet")

// welcome makes the primary ready to be followed: its files let readers in, and it keeps WAL for them.
func (p *Postgres) welcome(ctx context.Context, r record) error {
	if err := p.reload(ctx, r, r.Primary); err != nil {
		return err
	}
	if yes, err := p.recovering(ctx, r, r.Primary); err != nil || yes {
		return errNotYet // a failover is under way, or a start: both are told elsewhere
	}
	return p.slots(ctx, r, true)
}

// prepared notes that a node's data can follow. If there was another primary meanwhile, it may hold what
// that one does not.
func (p *Postgres) prepared(key string, r record, n int, loose string) error {
	p.gate.Lock()
	defer p.gate.Unlock()
	return p.records.Change(key, func(x *record) {
		x.edit(n, func(m *node) {
			m.Loose = loose
			if m.Stage = stageReady; x.Epoch != r.Epoch {
				m.Stage = stageRejoin
			}
		})
	})
}

// rejoin makes a node follow that was the primary of an older epoch: what it has beyond the fork is
// taken back by pg_rewind, or by cloning it anew where that is not installed or does not succeed.
func (p *Postgres) rejoin(ctx context.Context, key string, r record, n int) error {
	begun := time.Now()
	if err := p.welcome(ctx, r); err != nil {
		return err
	}
	if err := p.cfg.Units.Remove(ctx, unitOf(key, n)); err != nil {
		return err
	}
	p.unlink(key, n)
	e, err := p.engine(ctx, r)
	if err != nil {
		return err
	}
	// Half rewound it is good for nothing, so until it has succeeded it is to be cloned.
	if err := p.records.Change(key, func(x *record) { x.edit(n, func(m *node) { m.Stage = stageNew }) }); err != nil {
		return err
	}
	tool := filepath.Join(e.Bin, "pg_rewind")
	if _, err := os.Stat(tool); err != nil {
		return p.clone(ctx, key, r, n)
	}
	// pg_rewind reads from the source's control file where its history forks, and until the first
	// checkpoint after a promotion that file knows nothing of it.
	c, err := connect(ctx, r, "postgres")
	if err != nil {
		return err
	}
	_, err = c.Exec(ctx, "checkpoint")
	c.Close(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	data := p.dataOf(r.ID, n)
	if err := os.Remove(filepath.Join(data, "standby.signal")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	uid, gid := engines.RunAs()
	exit, lines, err := keeper.RunToEnd(ctx, p.cfg.Units, keeper.Unit{
		ID:   "rewind/" + r.ID.String() + "/" + strconv.Itoa(n),
		Argv: []string{tool, "--target-pgdata", data, "--source-server", fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=postgres sslmode=disable", r.port(), superuser)},
		Env:  append(environment(e), "PGPASSWORD="+r.Super), Hide: []string{"PGPASSWORD"}, Dir: "/", UID: uid, GID: gid, Log: filepath.Join(p.cfg.Dir, "log", "rewind.log"),
	}, 3)
	if err != nil {
		return err
	}
	if exit.Code != 0 {
		p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityWarning, Text: fmt.Sprintf("node %d could not be rewound and is cloned anew: %s", n, strings.Join(lines, "; "))})
		return p.clone(ctx, key, r, n)
	}
	if err := p.prepared(key, r, n, ""); err != nil {
		return err
	}
	p.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityInfo, Text: fmt.Sprintf("the old primary, node %d, is rewound to follow", n), Took: time.Since(begun)})
	return nil
}

// startReader starts a reader's server, if it still is one: between the look at the record and the
// start nobody is promoted.
func (p *Postgres) startReader(ctx context.Context, key string, n int) error {
	r, _ := p.get(key)
	e, err := p.engine(ctx, r)
	if err != nil {
		return err
	}
	p.gate.Lock()
	defer p.gate.Unlock()
	r, ok := p.get(key)
	x, has := r.node(n)
	if !ok || !has || r.Stopped || n == r.Primary || x.Stage != stageReady {
		return nil
	}
	if err := p.cfg.Units.Remove(ctx, unitOf(key, n)); err != nil {
		return err
	}
	// Slots that it had as a primary would hold back WAL for ever.
	slots := filepath.Join(p.dataOf(r.ID, n), "pg_replslot")
	entries, err := os.ReadDir(slots)
	if err != nil {
		return fmt.Errorf("start reader %d: %w", n, err)
	}
	for _, s := range entries {
		if err := os.RemoveAll(filepath.Join(slots, s.Name())); err != nil {
			return fmt.Errorf("start reader %d: %w", n, err)
		}
	}
	if _, err := p.configure(r, n); err != nil {
		return err
	}
	if _, err := p.launch(ctx, e, r, n); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.links[place{key, n}]; l != nil {
		l.lost = time.Now()
	}
	return nil
}
