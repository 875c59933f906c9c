// Package cache runs Valkey or Redis for an app's caches: real servers, bounded in memory, shut to all but
// the app's own users, held by the keeper. Apps speak to them directly, never through a proxy of ours. A
// cache with readers is a primary and replicas of it; when the primary dies a replica takes over its address.
// One of memcached is a single server, without users (memcached.go).
//
// Goals are records in a ledger; Run pursues each (pursue.go). decide.go says what is done next, by a record
// that is on disk first (record.go) and by what was seen (link.go); primary.go does it, and server.go knows
// the programs and the files of a server. Begin at New.
package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
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
)

const unitPrefix = "cache/"

// Config is what a Cache needs.
type Config struct {
	Dir   string
	Units Units
	Emit  tenfold.Emit
	// Certificate is what servers with TLS are shown by, with names for all of this machine's own addresses.
	// Nil: none of them can have TLS.
	Certificate func() (PEM, error)
	// Resolve looks up the key that backups are sealed with. Nil: none of them can have one.
	Resolve tenfold.Resolve
	// Bucket says where a bucket is that backups go to, and by which keys; depot.ErrNotYet while it is being made.
	// Nil: there are none.
	Bucket func(context.Context, tenfold.ID) (depot.Bucket, error)
	// Memory is what all caches may be made of, in bytes; 0: the machine's.
	Memory int64
}

// Units runs the servers, and tells when one ends.
type Units interface {
	keeper.Units
	Subscribe(ctx context.Context) (<-chan keeper.Event, error)
}

// Cache is the tier of caches.
type Cache struct {
	cfg     Config
	records *ledger.Ledger[record]
	pursuit ledger.Pursuit // of caches
	copies  ledger.Pursuit // backups of these

	dumping sync.Mutex // one backup at a time: each costs a server a copy of its memory

	tries ledger.Patience // of what is tried again and again, by key or by "key#2" for a reader

	mu sync.Mutex
	// Under mu. By key, or by "key#2" for a reader:
	healthy map[string]time.Time // last good answer
	rested  map[string]time.Time // when all was looked at and nothing was to be done
	retry   map[string]time.Time // not before
	seen    map[string]view
	// The last ten minutes, of caches whose readers follow their load.
	scalings map[string][]sampleOf
	// By node:
	links   map[place]*link
	labels  map[place]string // what it was started for
	tuned   map[place]tuning
	failed  map[place]int // starts in a row that came to nothing
	greeted map[place]int // the process that is known to follow
	fed     map[place]int // the process that follows or has followed
	told    map[place]noted
	used    map[place]used
	turns   map[tenfold.ID]int // how often an address for reads was given out
}

var _ tenfold.Tier = (*Cache)(nil)

// New reads the records; it starts nothing.
func New(cfg Config) (*Cache, error) {
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("open caches: %w", err)
	}
	recs, err := ledger.Open[record](filepath.Join(cfg.Dir, "goals"))
	if err != nil {
		return nil, err
	}
	c := &Cache{
		cfg: cfg, records: recs, healthy: map[string]time.Time{}, rested: map[string]time.Time{}, retry: map[string]time.Time{},
		seen: map[string]view{}, links: map[place]*link{}, labels: map[place]string{}, tuned: map[place]tuning{}, failed: map[place]int{}, greeted: map[place]int{}, fed: map[place]int{}, told: map[place]noted{}, turns: map[tenfold.ID]int{}, used: map[place]used{}, scalings: map[string][]sampleOf{},
	}
	c.pursuit = ledger.Pursuit{Keys: recs.Keys, Work: c.pursue, Pace: 2 * time.Second}
	c.copies = ledger.Pursuit{Keys: c.backedUp, Work: c.keepCopies, Pace: 2 * time.Second}
	return c, nil
}

func (c *Cache) Name() string { return "cache" }

func (c *Cache) Desired(app tenfold.App, _ tenfold.Scale) ([]tenfold.Resource, error) {
	var out []tenfold.Resource
	for name, d := range app.Caches {
		s := specOf(d)
		f, err := tenfold.FingerprintOf(s, nil)
		if err != nil {
			return nil, err
		}
		out = append(out, tenfold.Resource{ID: app.ID(tenfold.KindCache, name), Spec: s, Fingerprint: f})
	}
	return out, nil
}

func (c *Cache) Apply(_ context.Context, s tenfold.Step) error {
	key := s.Want.ID.String()
	defer c.wake()
	if s.Verb == tenfold.VerbStop || s.Verb == tenfold.VerbRemove {
		return c.records.Change(key, func(r *record) { r.Goal, r.Stopped = "", true })
	}
	want, ok := s.Want.Spec.(spec)
	if !ok {
		return fmt.Errorf("apply %s: its spec is a %T", s.Want.ID.Short(), s.Want.Spec)
	}
	return c.records.Update(key, func(r *record) {
		r.ID, r.Spec, r.Goal, r.Stopped, r.Failed, r.Reason, r.Hint, r.Begun = s.Want.ID, want, s.Want.Fingerprint, false, "", "", "", time.Now()
		r.Of = ""
	})
}

func (c *Cache) Observe(ctx context.Context) ([]tenfold.Resource, error) {
	units, err := c.cfg.Units.List(ctx, unitPrefix)
	if err != nil {
		return nil, err
	}
	runs := map[string]bool{} // any server of it
	for _, u := range units {
		if key, _, ok := parseUnit(u.Unit.ID); ok {
			runs[key] = runs[key] || u.Phase != ""
		}
	}
	var out []tenfold.Resource
	for key, r := range c.records.All() {
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
		case runs[key] && r.Serving == r.Goal && c.answers(key):
			o.State, o.Endpoint = tenfold.StateReady, net.JoinHostPort(primaryHost, strconv.Itoa(r.Port))
			o.Note = r.Version + " on " + o.Endpoint + c.note(key, r)
		}
		out = append(out, o)
	}
	return out, nil
}

// note says how many readers follow.
func (c *Cache) note(key string, r record) string {
	if len(r.Nodes) < 2 {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	up := 0
	for _, n := range r.staying() {
		if s := c.seen[key].Nodes[n.N]; s.LinkUp && !s.Syncing {
			up++
		}
	}
	if up == 1 {
		return ", 1 reader"
	}
	return fmt.Sprintf(", %d readers", up)
}

func (c *Cache) answers(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.healthy[key]) < 10*time.Second
}

func (c *Cache) home(id tenfold.ID) string {
	return filepath.Join(c.cfg.Dir, string(id.App), strings.ReplaceAll(string(id.Env), "/", "~"), string(id.Name))
}

// Kept says where a stopped cache's files lie and how many bytes they have.
type Kept struct {
	ID    tenfold.ID
	Path  string
	Bytes int64
}

// Kept lists caches that have files and that no manifest keeps running: stopped ones, and what was restored.
func (c *Cache) Kept() []Kept {
	var out []Kept
	for _, r := range c.records.All() {
		if !r.Stopped && r.Of == "" {
			continue
		}
		k := Kept{ID: r.ID, Path: c.home(r.ID)}
		filepath.WalkDir(k.Path, func(_ string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				if info, err := d.Info(); err == nil {
					k.Bytes += info.Size()
				}
			}
			return nil
		})
		out = append(out, k)
	}
	return out
}

// Destroy removes a stopped cache with its files.
func (c *Cache) Destroy(ctx context.Context, id tenfold.ID) (err error) {
	r, ok := c.records.Get(id.String())
	if !ok {
		return tenfold.Errorf(tenfold.CodeNotFound, "no %s of %s", id.Short(), id.App).WithHint("list what is kept: tenfold kept")
	}
	if !r.Stopped && r.Of == "" {
		return tenfold.Errorf(tenfold.CodeConflict, "%s of %s is in use", id.Short(), id.App).WithHint("take it out of the manifest and deploy, or tenfold down --app %s", id.App)
	}
	if err := c.records.Change(id.String(), func(x *record) { x.Stopped = true }); err != nil {
		return err
	}
	for range 3 { // a start that was under way may have come after the first
		var errs []error
		for _, n := range r.whole().Nodes {
			errs = append(errs, c.cfg.Units.Remove(ctx, unitOf(id.String(), n.N)))
			c.unlink(id.String(), n.N)
		}
		if err = errors.Join(append(errs, os.RemoveAll(c.home(id)))...); err == nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("destroy %s: %w", id.Short(), err)
	}
	return c.records.Delete(id.String())
}
