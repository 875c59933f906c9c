// Package postgres runs PostgreSQL databases: real servers for each database of an app, held by
// the keeper, so that they outlive the daemon. It initializes, secures, starts, watches and restarts
// them; it never removes data unless Destroy is called by name.
//
// Goals are records in a ledger; Run pursues each (pursue.go), server.go knows the programs and the
// files of a server. Begin at New.
//
// A database with readers is a cluster of such servers: decide.go says what is done next, by a record
// that is on disk first (record.go) and by what was seen (link.go); primary.go and reader.go do it.
package postgres

import (
	"context"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"tenfold"
	"tenfold/internal/depot"
	"tenfold/internal/keeper"
	"tenfold/internal/ledger"
	"tenfold/internal/pgrepl"
	"tenfold/internal/pooldir"
)

// Config is what a Postgres needs.
type Config struct {
	Dir     string // of the tier; data lies below it
	Engines string // where engines installed by Tenfold lie
	Units   Units
	Emit    tenfold.Emit
	// Pooled says that a pooling proxy serves what Pool says: apps are given its port, which stays through
	// failovers, and "-ro" behind the database's name for reads. Else they are given the servers'.
	Pooled bool
	// Bucket says where a bucket is that backups go to, and by which keys; depot.ErrNotYet while it is being made.
	// Nil: there are none.
	Bucket func(context.Context, tenfold.ID) (depot.Bucket, error)
	// Resolve looks up the key that backups are sealed with. Nil: none of them can have one.
	Resolve tenfold.Resolve
	// Outbox takes the rows of outboxes. Nil: there are none.
	Outbox Outbox
}

// Units runs the servers, and tells when one ends.
type Units interface {
	keeper.Units
	// Limit sets what a unit may take; unenforced says which of it does not hold here.
	Limit(ctx context.Context, id string, l keeper.Limits) (unenforced string, err error)
	Subscribe(ctx context.Context) (<-chan keeper.Event, error)
}

// Postgres is the tier of databases.
type Postgres struct {
	cfg     Config
	records *ledger.Ledger[record]
	pursuit ledger.Pursuit // of databases
	readers ledger.Pursuit // of each reader
	archive ledger.Pursuit // of WAL, for each database with backups
	copies  ledger.Pursuit // base backups, retention and drills of these
	samples ledger.Pursuit // what sessions wait for, of databases that run
	moves   ledger.Pursuit // upgrades to another major
	outbox  ledger.Pursuit // of each bus that takes a table's rows

	// gate is held while a reader is started and while the record makes one the primary: what is started
	// as a reader is one.
	gate sync.Mutex

	tries ledger.Patience // of what is tried again and again, by key or by what is done for it: "key#archive"

	mu sync.Mutex
	// Under mu. By key, or by "key#2" for a reader:
	healthy map[string]time.Time  // last good answer
	last    map[string]pgrepl.LSN // of the primary
	seen    map[string]view
	paused  map[string]bool
	// By node:
	links     map[place]*link
	greeted   map[place]time.Time
	positions map[place]string
	slotted   map[place]string // the slots that a reader was given, for which start
	archived  map[string]archived
	// outboxNotes are what there is to say of outboxes, by key of their pursuit.
	outboxNotes map[string]string
	locks       map[string]*sync.Mutex // see one
	loads       map[string]load
	scalings    map[string]scaling
	crowds      map[string]crowd
	samplers    map[string]*sampler
	restarts    map[string][]restartAsked
	confined    map[place]confinement
	unheld      map[string]string // limits that do not hold, by key
	engines     map[int]found     // by major
	began       time.Time         // never changes
	// What the pool said, and when; change is closed when Pool says something new.
	report   pooldir.Report
	reported time.Time
	change   chan struct{}
}

var _ tenfold.Tier = (*Postgres)(nil)

// New reads the records; it starts nothing.
func New(cfg Config) (*Postgres, error) {
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("open databases: %w", err)
	}
	recs, err := ledger.Open[record](filepath.Join(cfg.Dir, "goals"))
	if err != nil {
		return nil, err
	}
	p := &Postgres{
		cfg: cfg, records: recs, healthy: map[string]time.Time{},
		last: map[string]pgrepl.LSN{}, seen: map[string]view{}, paused: map[string]bool{}, links: map[place]*link{},
		greeted: map[place]time.Time{}, positions: map[place]string{}, slotted: map[place]string{}, archived: map[string]archived{}, outboxNotes: map[string]string{}, locks: map[string]*sync.Mutex{},
		engines: map[int]found{}, loads: map[string]load{}, scalings: map[string]scaling{}, crowds: map[string]crowd{}, samplers: map[string]*sampler{}, restarts: map[string][]restartAsked{}, confined: map[place]confinement{}, unheld: map[string]string{}, began: time.Now(), change: make(chan struct{}),
	}
	p.pursuit = ledger.Pursuit{Keys: recs.Keys, Work: p.pursue, Pace: 2 * time.Second}
	p.archive = ledger.Pursuit{Keys: p.backedUp, Work: p.keepArchive, Pace: 2 * time.Second}
	p.copies = ledger.Pursuit{Keys: p.backedUp, Work: p.keepCopies, Pace: 2 * time.Second}
	p.readers = ledger.Pursuit{Keys: p.readerKeys, Work: p.follow, Pace: 2 * time.Second}
	p.samples = ledger.Pursuit{Keys: p.sampled, Work: p.sample, Pace: samplePace}
	p.moves = ledger.Pursuit{Keys: p.upgrading, Work: p.pursueUpgrade, Pace: 2 * time.Second}
	p.outbox = ledger.Pursuit{Keys: p.outboxKeys, Work: p.keepOutbox, Pace: 2 * time.Second}
	return p, nil
}

func (p *Postgres) Name() string { return "postgres" }

func (p *Postgres) Desired(app tenfold.App, _ tenfold.Scale) ([]tenfold.Resource, error) {
	var out []tenfold.Resource
	for name, d := range app.Databases {
		s := specOf(d)
		for bus, b := range app.Events {
			if table := b.From[name]; table != "" {
				if s.Outboxes == nil {
					s.Outboxes = map[tenfold.Name]string{}
				}
				s.Outboxes[bus] = table
			}
		}
		f, err := tenfold.FingerprintOf(s, nil)
		if err != nil {
			return nil, err
		}
		out = append(out, tenfold.Resource{ID: app.ID(tenfold.KindDatabase, name), Spec: s, Fingerprint: f})
	}
	return out, nil
}

func (p *Postgres) Apply(_ context.Context, s tenfold.Step) error {
	key := s.Want.ID.String()
	defer p.wake()
	if s.Verb == tenfold.VerbStop || s.Verb == tenfold.VerbRemove {
		return p.records.Change(key, func(r *record) { r.Goal, r.Stopped = "", true })
	}
	want, ok := s.Want.Spec.(spec)
	if !ok {
		return fmt.Errorf("apply %s: its spec is a %T", s.Want.ID.Short(), s.Want.Spec)
	}
	return p.records.Update(key, func(r *record) {
		r.ID, r.Spec, r.Goal, r.Stopped, r.Failed, r.Reason, r.Hint, r.Begun = s.Want.ID, want, s.Want.Fingerprint, false, "", "", "", time.Now()
		r.Of = ""
	})
}

func (p *Postgres) Observe(ctx context.Context) ([]tenfold.Resource, error) {
	units, err := p.cfg.Units.List(ctx, unitPrefix)
	if err != nil {
		return nil, err
	}
	runs := map[string]bool{} // any server of it
	for _, u := range units {
		if key, _, ok := parseUnit(u.Unit.ID); ok {
			runs[key] = true
		}
	}
	var out []tenfold.Resource
	for key, r := range p.records.All() {
		if r.Of != "" {
			continue // no manifest names it, and what none names is stopped
		}
		r = r.whole()
		o := tenfold.Resource{ID: r.ID, Goal: r.Goal, Serving: r.Serving, Failed: r.Failed, Reason: r.Reason, Hint: r.Hint, State: tenfold.StatePending}
		switch {
		case r.Stopped && !runs[key]:
			o.State, o.Serving = tenfold.StateStopped, ""
		case r.Failed != "" && r.Failed == r.Goal:
			o.State = tenfold.StateFailed
		case r.Suspended && r.Serving == r.Goal:
			o.State, o.Endpoint, o.Note = tenfold.StateReady, address(p.door(r)), "PostgreSQL "+r.Version+", asleep: the first connection wakes it"
		case runs[key] && r.Serving == r.Goal && p.answers(key):
			o.State, o.Endpoint = tenfold.StateReady, address(r.port())
			o.Note = "PostgreSQL " + r.Version + " on " + o.Endpoint + p.note(key, r) + p.held(key) + p.outboxNote(key, r)
		}
		out = append(out, o)
	}
	return out, nil
}

// answers says that the database answered lately.
func (p *Postgres) answers(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Since(p.healthy[key]) < 10*time.Second
}

// Field gives one fact of a database, for those who use it.
func (p *Postgres) Field(_ context.Context, id tenfold.ID, f tenfold.Field) (string, error) {
	r, ok := p.get(id.String())
	if !ok || r.port() == 0 {
		return "", tenfold.Errorf(tenfold.CodeUnavailable, "%s has not been started", id.Short())
	}
	switch f {
	case tenfold.FieldHost:
		return "127.0.0.1", nil
	case tenfold.FieldPort:
		return strconv.Itoa(p.door(r)), nil
	case tenfold.FieldUser:
		return role(id), nil
	case tenfold.FieldPassword:
		return r.Password, nil
	case tenfold.FieldDatabase:
		return role(id), nil
	case tenfold.FieldURL:
		return dsn(p.door(r), role(id), r.Password, role(id)), nil
	case tenfold.FieldReadURL:
		if p.pooled(r) {
			return dsn(r.Pool, role(id), r.Password, role(id)+"-ro"), nil
		}
		return dsn(p.readPort(r), role(id), r.Password, role(id)), nil
	}
	return "", fmt.Errorf("a database has no %s", f)
}

func (p *Postgres) pooled(r record) bool { return p.cfg.Pooled && r.Pool != 0 && !r.Spec.Proxy.Off }

// door is the port that apps connect to.
func (p *Postgres) door(r record) int {
	if p.pooled(r) {
		return r.Pool
	}
	return r.port()
}

// readPort is a reader's that follows, the first of them or the primary's.
func (p *Postgres) readPort(r record) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.seen[r.ID.String()]
	for _, n := range r.staying() {
		if s := v.Nodes[n.N]; n.Stage == stageReady && s.Answers && s.Streaming {
			return n.Port
		}
	}
	return r.port()
}

func dsn(port int, user, password, database string) string {
	u := url.URL{Scheme: "postgresql", User: url.UserPassword(user, password), Host: address(port), Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

// role is the name of an app's database and of its role: the resource's name in SQL's letters, apart
// from the names that every server has already.
func role(id tenfold.ID) string {
	name := strings.ReplaceAll(string(id.Name), "-", "_")
	switch {
	case name == superuser, name == "postgres", name == "public", name == "none", name == "template0", name == "template1", strings.HasPrefix(name, "pg_"):
		return "app_" + name
	}
	return name
}

// Kept says where a stopped database's data lies and how many bytes it has.
type Kept struct {
	ID    tenfold.ID
	Path  string
	Bytes int64
}

// Kept lists databases that have data and that no manifest keeps running: stopped ones, and what was
// restored or cloned beside another.
func (p *Postgres) Kept() []Kept {
	var out []Kept
	for _, r := range p.records.All() {
		if dir := p.home(r.ID); r.Stopped || r.Of != "" {
			out = append(out, Kept{r.ID, dir, du(dir)})
		}
	}
	return out
}

func du(dir string) (n int64) {
	filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}

// Destroy removes a stopped database with its data.
func (p *Postgres) Destroy(ctx context.Context, id tenfold.ID) (err error) {
	r, ok := p.records.Get(id.String())
	if !ok {
		return tenfold.Errorf(tenfold.CodeNotFound, "no %s of %s", id.Short(), id.App).WithHint("list what is kept: tenfold kept")
	}
	if !r.Stopped && r.Of == "" {
		return tenfold.Errorf(tenfold.CodeConflict, "%s of %s is in use", id.Short(), id.App).WithHint("take it out of the manifest and deploy, or tenfold down --app %s", id.App)
	}
	if err := p.records.Change(id.String(), func(x *record) { x.Stopped = true }); err != nil {
		return err
	}
	for range 3 { // a start that was under way may have come after the first
		for _, n := range r.whole().Nodes {
			if err := p.cfg.Units.Remove(ctx, unitOf(id.String(), n.N)); err != nil {
				return err
			}
			p.unlink(id.String(), n.N)
		}
		p.unsample(id.String())
		if err = os.RemoveAll(p.home(id)); err == nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("destroy %s: %w", id.Short(), err)
	}
	return p.records.Delete(id.String())
}
