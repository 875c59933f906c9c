// Package postgres runs PostgreSQL databases: one real server for each database of an app, held by
// the keeper, so that it outlives the daemon. It initializes, secures, starts, watches and restarts
// them; it never removes data unless Destroy is called by name.
//
// Goals are records in a ledger; Run pursues each (pursue.go), server.go knows the programs and the
// files of a server. Begin at New.
package postgres

import (
	"context"
	"fmt"
	"io/fs"
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
	"tenfold/internal/ledger"
)

// Config is what a Postgres needs.
type Config struct {
	Dir     string // of the tier; data lies below it
	Engines string // where engines installed by Tenfold lie
	Units   keeper.Units
	Emit    tenfold.Emit
}

// Postgres is the tier of databases.
type Postgres struct {
	cfg     Config
	records *ledger.Ledger[record]
	pursuit ledger.Pursuit

	mu      sync.Mutex
	healthy map[string]time.Time // last good answer, by key
	backoff map[string]time.Duration
}

var _ tenfold.Tier = (*Postgres)(nil)

// spec is what a database is; it enters the fingerprint.
type spec struct {
	Major      int               `json:"major"`
	Extensions []string          `json:"extensions,omitempty"`
	Settings   map[string]string `json:"settings,omitempty"`
}

// record is a goal with what was made for it.
type record struct {
	ID      tenfold.ID `json:"id"`
	Spec    spec       `json:"spec"`
	Goal    string     `json:"goal"` // "" when stopped
	Serving string     `json:"serving,omitempty"`
	Failed  string     `json:"failed,omitempty"`
	Reason  string     `json:"reason,omitempty"`
	Hint    string     `json:"hint,omitempty"`
	Stopped bool       `json:"stopped,omitempty"`

	Port     int       `json:"port,omitempty"`
	Super    string    `json:"super,omitempty"`    // password of the superuser
	Password string    `json:"password,omitempty"` // of the app's role
	Version  string    `json:"version,omitempty"`
	Begun    time.Time `json:"begun,omitzero"` // when the goal was set, for the event
}

// New reads the records; it starts nothing.
func New(cfg Config) (*Postgres, error) {
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("open databases: %w", err)
	}
	recs, err := ledger.Open[record](filepath.Join(cfg.Dir, "goals"))
	if err != nil {
		return nil, err
	}
	p := &Postgres{cfg: cfg, records: recs, healthy: map[string]time.Time{}, backoff: map[string]time.Duration{}}
	p.pursuit = ledger.Pursuit{Keys: recs.Keys, Work: p.pursue, Pace: 2 * time.Second}
	return p, nil
}

func (p *Postgres) Name() string { return "postgres" }

func (p *Postgres) Run(ctx context.Context, ready func()) error { return p.pursuit.Run(ctx, ready) }

func (p *Postgres) Desired(app tenfold.App, _ tenfold.Scale) ([]tenfold.Resource, error) {
	var out []tenfold.Resource
	for name, d := range app.Databases {
		s := spec{Major: d.Major, Extensions: d.Extensions, Settings: d.Settings}
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
	defer p.pursuit.Wake()
	if s.Verb == tenfold.VerbStop || s.Verb == tenfold.VerbRemove {
		return p.records.Change(key, func(r *record) { r.Goal, r.Stopped = "", true })
	}
	want, ok := s.Want.Spec.(spec)
	if !ok {
		return fmt.Errorf("apply %s: its spec is a %T", s.Want.ID.Short(), s.Want.Spec)
	}
	return p.records.Update(key, func(r *record) {
		r.ID, r.Spec, r.Goal, r.Stopped, r.Failed, r.Reason, r.Hint, r.Begun = s.Want.ID, want, s.Want.Fingerprint, false, "", "", "", time.Now()
	})
}

func (p *Postgres) Observe(ctx context.Context) ([]tenfold.Resource, error) {
	units, err := p.cfg.Units.List(ctx, unitPrefix)
	if err != nil {
		return nil, err
	}
	phase := map[string]keeper.Phase{}
	for _, u := range units {
		phase[strings.TrimPrefix(u.Unit.ID, unitPrefix)] = u.Phase
	}
	var out []tenfold.Resource
	for key, r := range p.records.All() {
		o := tenfold.Resource{ID: r.ID, Goal: r.Goal, Serving: r.Serving, Failed: r.Failed, Reason: r.Reason, Hint: r.Hint, State: tenfold.StatePending}
		running := phase[key] == keeper.Running
		switch {
		case r.Stopped && phase[key] == "":
			o.State, o.Serving = tenfold.StateStopped, ""
		case r.Failed != "" && r.Failed == r.Goal:
			o.State = tenfold.StateFailed
		case running && r.Serving == r.Goal && p.answers(key):
			o.State, o.Endpoint = tenfold.StateReady, net.JoinHostPort("127.0.0.1", strconv.Itoa(r.Port))
			o.Note = "PostgreSQL " + r.Version + " on " + o.Endpoint
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
	r, ok := p.records.Get(id.String())
	if !ok || r.Port == 0 {
		return "", tenfold.Errorf(tenfold.CodeUnavailable, "%s has not been started", id.Short())
	}
	switch f {
	case tenfold.FieldHost:
		return "127.0.0.1", nil
	case tenfold.FieldPort:
		return strconv.Itoa(r.Port), nil
	case tenfold.FieldUser:
		return role(id), nil
	case tenfold.FieldPassword:
		return r.Password, nil
	case tenfold.FieldDatabase:
		return role(id), nil
	case tenfold.FieldURL:
		return dsn(r, role(id), r.Password, role(id)), nil
	}
	return "", fmt.Errorf("a database has no %s", f)
}

func dsn(r record, user, password, database string) string {
	u := url.URL{Scheme: "postgresql", User: url.UserPassword(user, password), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(r.Port)), Path: "/" + database, RawQuery: "sslmode=disable"}
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

// Kept lists stopped databases that have data.
func (p *Postgres) Kept() []Kept {
	var out []Kept
	for _, r := range p.records.All() {
		if dir := p.home(r.ID); r.Stopped {
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
func (p *Postgres) Destroy(ctx context.Context, id tenfold.ID) error {
	r, ok := p.records.Get(id.String())
	if !ok {
		return tenfold.Errorf(tenfold.CodeNotFound, "no %s of %s", id.Short(), id.App).WithHint("list what is kept: tenfold kept")
	}
	if !r.Stopped {
		return tenfold.Errorf(tenfold.CodeConflict, "%s of %s is in use", id.Short(), id.App).WithHint("take it out of the manifest and deploy, or tenfold down --app %s", id.App)
	}
	if err := p.cfg.Units.Remove(ctx, unitPrefix+id.String()); err != nil {
		return err
	}
	if err := os.RemoveAll(p.home(id)); err != nil {
		return fmt.Errorf("destroy %s: %w", id.Short(), err)
	}
	return p.records.Delete(id.String())
}
