// Package series is the tier of time series: values over time, by name and labels, written by InfluxDB's line
// protocol, Prometheus' remote write or OTLP, and asked for by PromQL. A real engine keeps them, VictoriaMetrics,
// one process for each entry of a manifest, held by the keeper.
//
// No app knows the engine. Tier is the half that decides: it keeps goals, has an engine run for each and tells the
// other half. Front is the other, in a process of its own: the address that apps are given, which lets them in by
// what their `uses` names, and holds their requests while an engine starts again. What is on disk stays until a
// person removes it by name. Begin at New, and at Front.ServeHTTP.
package series

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"tenfold"
	"tenfold/internal/keeper"
	"tenfold/internal/ledger"
)

const unitPrefix = "series/"

// Process is the process of the front.
type Process interface {
	// Put has it run and hands down what it serves by; Idle: nothing is left to serve.
	Put(ctx context.Context, s Snapshot) (Report, error)
	Idle(ctx context.Context) error
	// Address is where it listens, host:port of loopback; it is the same for the house's life.
	Address(ctx context.Context) (string, error)
}

// Units runs the engines, and tells when one ends.
type Units interface {
	keeper.Units
	Subscribe(ctx context.Context) (<-chan keeper.Event, error)
}

// Config is what a Tier stands on. All of it is required.
type Config struct {
	Dir     string
	Units   Units
	Process Process
	Emit    tenfold.Emit
	// Holders are those who may ask for the series that it knows, and where these stand in manifests, by their IDs.
	Holders func(context.Context) ([]Key, map[string]int, error)
}

// Tier is the deciding half.
type Tier struct {
	cfg     Config
	records *ledger.Ledger[record]
	pursuit ledger.Pursuit
	prod    chan struct{} // the front is to be told

	telling sync.Mutex // one at a time

	tries ledger.Patience // of what is tried again and again, by key

	mu sync.Mutex
	// Under mu, by key:
	healthy map[string]time.Time // last good answer
	begun   map[string]time.Time // the last start
	deaths  map[string]int       // starts in a row that came to nothing
	stats   map[string]stats     // what engines said of themselves
	report  Report               // of the front
}

var _ tenfold.Tier = (*Tier)(nil)

// New reads the records; it starts nothing.
func New(cfg Config) (*Tier, error) {
	if cfg.Dir == "" || cfg.Units == nil || cfg.Process == nil || cfg.Emit == nil || cfg.Holders == nil {
		return nil, errors.New("new tier of series: all of Config is required")
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil { // engines run as another user
		return nil, fmt.Errorf("open series: %w", err)
	}
	recs, err := ledger.Open[record](filepath.Join(cfg.Dir, "goals"))
	if err != nil {
		return nil, err
	}
	t := &Tier{cfg: cfg, records: recs, prod: make(chan struct{}, 1), healthy: map[string]time.Time{}, begun: map[string]time.Time{}, deaths: map[string]int{},
		stats: map[string]stats{}}
	t.pursuit = ledger.Pursuit{Keys: recs.Keys, Work: t.pursue, Pace: lookPace}
	return t, nil
}

// Name implements tenfold.Service.
func (t *Tier) Name() string { return "series" }

// Desired implements tenfold.Tier.
func (t *Tier) Desired(app tenfold.App, _ tenfold.Scale) ([]tenfold.Resource, error) {
	var out []tenfold.Resource
	for _, name := range slices.Sorted(maps.Keys(app.Series)) {
		s := specOf(app.Series[name])
		f, err := tenfold.FingerprintOf(s, nil)
		if err != nil {
			return nil, err
		}
		out = append(out, tenfold.Resource{ID: app.ID(tenfold.KindSeries, name), Spec: s, Fingerprint: f})
	}
	return out, nil
}

// Apply implements tenfold.Tier.
func (t *Tier) Apply(_ context.Context, s tenfold.Step) error {
	key := s.Want.ID.String()
	defer t.wake()
	if s.Verb == tenfold.VerbStop || s.Verb == tenfold.VerbRemove {
		return t.records.Change(key, func(r *record) { r.Goal, r.Stopped = "", true })
	}
	want, ok := s.Want.Spec.(spec)
	if !ok {
		return fmt.Errorf("apply %s: its spec is a %T", s.Want.ID.Short(), s.Want.Spec)
	}
	t.forget(key)
	return t.records.Update(key, func(r *record) {
		r.ID, r.Spec, r.Goal, r.Stopped, r.Failed, r.Reason, r.Hint = s.Want.ID, want, s.Want.Fingerprint, false, "", "", ""
	})
}

// forget gives a new goal its own tries.
func (t *Tier) forget(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.deaths, key)
	t.tries.Forget(key)
}

// Observe implements tenfold.Tier.
func (t *Tier) Observe(ctx context.Context) ([]tenfold.Resource, error) {
	all := t.records.All()
	if len(all) == 0 {
		return nil, nil
	}
	units, err := t.cfg.Units.List(ctx, unitPrefix)
	if err != nil {
		return nil, err
	}
	runs := map[string]bool{}
	for _, u := range units {
		runs[strings.TrimPrefix(u.Unit.ID, unitPrefix)] = u.Phase != ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []tenfold.Resource
	for _, key := range slices.Sorted(maps.Keys(all)) {
		r := all[key]
		o := tenfold.Resource{ID: r.ID, Goal: r.Goal, Serving: r.Serving, Failed: r.Failed, Reason: r.Reason, Hint: r.Hint, State: tenfold.StatePending}
		switch {
		case r.Stopped && !runs[key]:
			o.State, o.Serving = tenfold.StateStopped, ""
		case r.Failed != "" && r.Failed == r.Goal:
			o.State = tenfold.StateFailed
		case runs[key] && r.Serving == r.Goal && time.Since(t.healthy[key]) < healthFor:
			o.State = tenfold.StateReady
			if addr, err := t.cfg.Process.Address(ctx); err == nil {
				o.Endpoint = addr
			}
			o.Note = r.Version + t.stats[key].note()
		}
		out = append(out, o)
	}
	return out, nil
}

// URL is where who has a password asks for a series, with the user and the password in it.
func (t *Tier) URL(ctx context.Context, id tenfold.ID, user, password string) (string, error) {
	if _, ok := t.records.Get(id.String()); !ok {
		return "", tenfold.Errorf(tenfold.CodeUnavailable, "%s has not been started", id.Short())
	}
	addr, err := t.cfg.Process.Address(ctx)
	if err != nil {
		return "", err
	}
	return "http://" + user + ":" + password + "@" + addr + "/" + string(id.Name), nil
}

// Kept says where a stopped series' files lie.
type Kept struct {
	ID   tenfold.ID
	Path string
}

// Kept lists series that no manifest has running.
func (t *Tier) Kept() []Kept {
	var out []Kept
	for _, r := range t.records.All() {
		if r.Stopped {
			out = append(out, Kept{r.ID, t.home(r.ID)})
		}
	}
	return out
}

// Destroy removes a stopped series with its files.
func (t *Tier) Destroy(ctx context.Context, id tenfold.ID) (err error) {
	r, ok := t.records.Get(id.String())
	if !ok {
		return tenfold.Errorf(tenfold.CodeNotFound, "no %s of %s", id.Short(), id.App).WithHint("list what is kept: tenfold kept")
	}
	if !r.Stopped {
		return tenfold.Errorf(tenfold.CodeConflict, "%s of %s is in use", id.Short(), id.App).WithHint("take it out of the manifest and deploy, or tenfold down --app %s", id.App)
	}
	for range 3 { // a start that was under way may have come after the first
		if err = errors.Join(t.cfg.Units.Remove(ctx, unitPrefix+id.String()), os.RemoveAll(t.home(id))); err == nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("destroy %s: %w", id.Short(), err)
	}
	defer t.wake()
	return t.records.Delete(id.String())
}

func (t *Tier) home(id tenfold.ID) string {
	return filepath.Join(t.cfg.Dir, string(id.App), strings.ReplaceAll(string(id.Env), "/", "~"), string(id.Name))
}

// LogPath is the file with its engine's output.
func (t *Tier) LogPath(id tenfold.ID) string { return filepath.Join(t.home(id), "log", "series.log") }

// Holds says whether there is anything to serve.
func (t *Tier) Holds() bool {
	for _, r := range t.records.All() {
		if !r.Stopped {
			return true
		}
	}
	return false
}

// spec is what a series is; it enters the fingerprint.
type spec struct {
	Keep   time.Duration `json:"keep"`
	Every  time.Duration `json:"every"`
	Accept []string      `json:"accept,omitempty"`
}

func specOf(s tenfold.Series) spec { return spec{s.Keep, s.Every, s.Accept} }

// basis is what an engine has to be started anew for. What it accepts is the front's business.
func (s spec) basis() string {
	return "keep " + strconv.Itoa(s.days()) + "d every " + s.Every.String()
}

func (s spec) days() int { return max(1, int(s.Keep/(24*time.Hour))) }

// record is a goal with what was made for it.
type record struct {
	ID      tenfold.ID `json:"id"`
	Spec    spec       `json:"spec"`
	Goal    string     `json:"goal"`
	Serving string     `json:"serving,omitempty"`
	Is      spec       `json:"is,omitzero"` // of what serves
	Failed  string     `json:"failed,omitempty"`
	Reason  string     `json:"reason,omitempty"`
	Hint    string     `json:"hint,omitempty"`
	Stopped bool       `json:"stopped,omitempty"`

	// Port is where the engine listens; 0: it is to have one. It may be another after a restart, for only the front
	// and this tier know it. Password lets them in.
	Port     int    `json:"port,omitempty"`
	Password string `json:"password,omitempty"`
	Version  string `json:"version,omitempty"` // "VictoriaMetrics 1.112.0"
	OTLP     bool   `json:"otlp,omitempty"`    // the engine that was started last has it
}

// wants is the spec to be run by: a goal that was given up on leaves what serves as it is.
func (r record) wants() (spec, bool) {
	if r.Failed == r.Goal && r.Failed != "" {
		return r.Is, r.Serving != ""
	}
	return r.Spec, true
}
