// Package cache runs Valkey or Redis for an app's caches: the real server, bounded in memory, shut
// to all but the app's own user, held by the keeper. Apps speak to it directly, never through a
// proxy of ours. Goals are records in a ledger; Run pursues each. Begin at New.
package cache

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
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

	"tenfold"
	"tenfold/internal/atomicfile"
	"tenfold/internal/engines"
	"tenfold/internal/freeport"
	"tenfold/internal/keeper"
	"tenfold/internal/ledger"
)

const unitPrefix = "cache/"

// How a server is watched and restarted.
const (
	startLimit   = 20 * time.Second
	answerPace   = 10 * time.Millisecond
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 10 * time.Second
)

// Config is what a Cache needs.
type Config struct {
	Dir   string
	Units keeper.Units
	Emit  tenfold.Emit
}

// Cache is the tier of caches.
type Cache struct {
	cfg     Config
	records *ledger.Ledger[record]
	pursuit ledger.Pursuit

	mu      sync.Mutex
	healthy map[string]time.Time
	backoff map[string]time.Duration
}

var _ tenfold.Tier = (*Cache)(nil)

type spec struct {
	Engine  string `json:"engine,omitempty"`
	Size    int64  `json:"size"`
	Evict   string `json:"evict"`
	Persist bool   `json:"persist,omitempty"`
}

type record struct {
	ID      tenfold.ID `json:"id"`
	Spec    spec       `json:"spec"`
	Goal    string     `json:"goal"`
	Serving string     `json:"serving,omitempty"`
	Failed  string     `json:"failed,omitempty"`
	Reason  string     `json:"reason,omitempty"`
	Hint    string     `json:"hint,omitempty"`
	Stopped bool       `json:"stopped,omitempty"`

	Port     int       `json:"port,omitempty"`
	Password string    `json:"password,omitempty"`
	Version  string    `json:"version,omitempty"` // "Redis 7.0.15"
	Begun    time.Time `json:"begun,omitzero"`
}

// New reads the records; it starts nothing.
func New(cfg Config) (*Cache, error) {
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("open caches: %w", err)
	}
	recs, err := ledger.Open[record](filepath.Join(cfg.Dir, "goals"))
	if err != nil {
		return nil, err
	}
	c := &Cache{cfg: cfg, records: recs, healthy: map[string]time.Time{}, backoff: map[string]time.Duration{}}
	c.pursuit = ledger.Pursuit{Keys: recs.Keys, Work: c.pursue, Pace: 2 * time.Second}
	return c, nil
}

func (c *Cache) Name() string { return "cache" }

func (c *Cache) Run(ctx context.Context, ready func()) error { return c.pursuit.Run(ctx, ready) }

func (c *Cache) Desired(app tenfold.App, _ tenfold.Scale) ([]tenfold.Resource, error) {
	var out []tenfold.Resource
	for name, d := range app.Caches {
		s := spec{Engine: d.Engine, Size: d.Size, Evict: d.Evict, Persist: d.Persist}
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
	defer c.pursuit.Wake()
	if s.Verb == tenfold.VerbStop || s.Verb == tenfold.VerbRemove {
		return c.records.Change(key, func(r *record) { r.Goal, r.Stopped = "", true })
	}
	want, ok := s.Want.Spec.(spec)
	if !ok {
		return fmt.Errorf("apply %s: its spec is a %T", s.Want.ID.Short(), s.Want.Spec)
	}
	return c.records.Update(key, func(r *record) {
		r.ID, r.Spec, r.Goal, r.Stopped, r.Failed, r.Reason, r.Hint, r.Begun = s.Want.ID, want, s.Want.Fingerprint, false, "", "", "", time.Now()
	})
}

func (c *Cache) Observe(ctx context.Context) ([]tenfold.Resource, error) {
	units, err := c.cfg.Units.List(ctx, unitPrefix)
	if err != nil {
		return nil, err
	}
	phase := map[string]keeper.Phase{}
	for _, u := range units {
		phase[strings.TrimPrefix(u.Unit.ID, unitPrefix)] = u.Phase
	}
	var out []tenfold.Resource
	for key, r := range c.records.All() {
		o := tenfold.Resource{ID: r.ID, Goal: r.Goal, Serving: r.Serving, Failed: r.Failed, Reason: r.Reason, Hint: r.Hint, State: tenfold.StatePending}
		switch {
		case r.Stopped && phase[key] == "":
			o.State, o.Serving = tenfold.StateStopped, ""
		case r.Failed != "" && r.Failed == r.Goal:
			o.State = tenfold.StateFailed
		case phase[key] == keeper.Running && r.Serving == r.Goal && c.answers(key):
			o.State, o.Endpoint = tenfold.StateReady, net.JoinHostPort("127.0.0.1", strconv.Itoa(r.Port))
			o.Note = r.Version + " on " + o.Endpoint
		}
		out = append(out, o)
	}
	return out, nil
}

func (c *Cache) answers(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.healthy[key]) < 10*time.Second
}

// user is the ACL user of an app.
const user = "app"

// Field gives one fact of a cache, for those who use it.
func (c *Cache) Field(_ context.Context, id tenfold.ID, f tenfold.Field) (string, error) {
	r, ok := c.records.Get(id.String())
	if !ok || r.Port == 0 {
		return "", tenfold.Errorf(tenfold.CodeUnavailable, "%s has not been started", id.Short())
	}
	switch f {
	case tenfold.FieldHost:
		return "127.0.0.1", nil
	case tenfold.FieldPort:
		return strconv.Itoa(r.Port), nil
	case tenfold.FieldUser:
		return user, nil
	case tenfold.FieldPassword:
		return r.Password, nil
	case tenfold.FieldURL:
		u := url.URL{Scheme: "redis", User: url.UserPassword(user, r.Password), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(r.Port))}
		return u.String(), nil
	}
	return "", fmt.Errorf("a cache has no %s", f)
}

func (c *Cache) home(id tenfold.ID) string {
	return filepath.Join(c.cfg.Dir, string(id.App), strings.ReplaceAll(string(id.Env), "/", "~"), string(id.Name))
}

// pursue brings one cache nearer to its goal.
func (c *Cache) pursue(ctx context.Context, key string) time.Duration {
	r, ok := c.records.Get(key)
	if !ok || ctx.Err() != nil {
		return 0
	}
	if r.Stopped {
		if err := c.cfg.Units.Remove(ctx, unitPrefix+key); err != nil {
			return time.Second
		}
		return time.Minute
	}
	if r.Failed == r.Goal {
		return time.Minute
	}
	err := c.serve(ctx, key, r)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		delete(c.backoff, key)
		c.healthy[key] = time.Now()
		return 0
	}
	var te *tenfold.Error
	if r.Serving != r.Goal && errors.As(err, &te) {
		c.records.Change(key, func(x *record) {
			if x.Goal == r.Goal {
				x.Failed, x.Reason, x.Hint = r.Goal, err.Error(), te.Hint
			}
		})
		c.cfg.Emit(tenfold.Event{ID: r.ID, Severity: tenfold.SeverityWarning, Text: "cache not started: " + err.Error()})
	}
	c.backoff[key] = min(max(2*c.backoff[key], firstBackoff), lastBackoff)
	return c.backoff[key]
}

// serve makes sure that the server runs as the record says, and asks it.
func (c *Cache) serve(ctx context.Context, key string, r record) error {
	status, err := c.status(ctx, key)
	if err != nil {
		return err
	}
	known := len(status) == 1 && status[0].Unit.ID == unitPrefix+key
	if known && status[0].Phase == keeper.Running && r.Serving == r.Goal {
		return ping(ctx, r)
	}
	crashed := known && status[0].LastExit != nil && !status[0].LastExit.Asked && r.Serving == r.Goal
	begun := time.Now()
	e, err := engines.Cache(ctx, r.Spec.Engine)
	if err != nil {
		return tenfold.Errorf(tenfold.CodeMissing, "%w", err).WithHint("install it: tenfold doctor --fix (or apt-get install valkey-server, before Debian 13 redis-server)")
	}
	if r, err = c.identify(key, r, e); err != nil {
		return err
	}
	if err := c.cfg.Units.Remove(ctx, unitPrefix+key); err != nil {
		return err
	}
	if err := c.configure(r); err != nil {
		return err
	}
	home := c.home(r.ID)
	uid, gid := engines.RunAs()
	if _, err := c.cfg.Units.Start(ctx, keeper.Unit{
		ID: unitPrefix + key, Argv: []string{e.Server, filepath.Join(home, "server.conf")}, Env: []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}, Dir: "/",
		UID: uid, GID: gid, StopGrace: 30 * time.Second, Log: c.LogPath(r.ID), OOMScore: -200,
	}); err != nil {
		return err
	}
	if err := c.await(ctx, key, r); err != nil {
		return err
	}
	if err := c.records.Change(key, func(x *record) {
		if x.Goal == r.Goal {
			x.Serving = r.Goal
		}
	}); err != nil {
		return err
	}
	text, severity := fmt.Sprintf("%s started, %s, %s", r.Version, sizeOf(r.Spec.Size), r.Spec.Evict), tenfold.SeverityInfo
	if crashed {
		text, severity = fmt.Sprintf("%s restarted after %s", r.Version, status[0].LastExit.Describe()), tenfold.SeverityWarning
	}
	c.cfg.Emit(tenfold.Event{ID: r.ID, Severity: severity, Text: text, Took: time.Since(begun)})
	return nil
}

func sizeOf(n int64) string { return strconv.FormatInt(n>>20, 10) + " MB" }

// LogPath is the file with a server's output.
func (c *Cache) LogPath(id tenfold.ID) string { return filepath.Join(c.home(id), "log", "cache.log") }

// identify gives a record its port and password, once.
func (c *Cache) identify(key string, r record, e engines.Engine) (record, error) {
	port := r.Port
	if port == 0 {
		var err error
		if port, err = freeport.Pick(); err != nil {
			return r, err
		}
	}
	name := map[string]string{"valkey": "Valkey", "redis": "Redis"}[e.Name]
	err := c.records.Change(key, func(x *record) {
		x.Port, x.Version = port, name+" "+e.Version
		if x.Password == "" {
			var b [18]byte
			rand.Read(b[:])
			x.Password = hex.EncodeToString(b[:])
		}
	})
	fresh, _ := c.records.Get(key)
	fresh.Goal, fresh.Spec = r.Goal, r.Spec
	return fresh, err
}

// configure writes the server's file; the password stands in it and nowhere on a command line.
func (c *Cache) configure(r record) error {
	home := c.home(r.ID)
	if err := os.MkdirAll(home, 0o755); err != nil {
		return fmt.Errorf("configure cache: %w", err)
	}
	save, aof := `save ""`, "no"
	if r.Spec.Persist {
		save, aof = "save 3600 1", "yes"
	}
	conf := fmt.Sprintf(`# written by tenfold
bind 127.0.0.1
port %d
protected-mode yes
daemonize no
dir %q
maxmemory %d
maxmemory-policy %s
%s
appendonly %s
appendfsync everysec
user default off
user %s on >%s ~* &* +@all -@dangerous +info +keys +flushdb +flushall +sort +client +command
user probe on >%s +ping
`, r.Port, home, r.Spec.Size, r.Spec.Evict, save, aof, user, r.Password, r.Password)
	path := filepath.Join(home, "server.conf")
	if err := atomicfile.Write(path, []byte(conf), 0o600); err != nil {
		return err
	}
	if uid, gid := engines.RunAs(); uid > 0 {
		if d, err := engines.Blocked(home); err != nil {
			return fmt.Errorf("configure cache: %w", err)
		} else if d != "" {
			return tenfold.Errorf(tenfold.CodeDenied, "%s does not run as root, and its user cannot pass %s", r.Version, d).
				WithHint("use another data directory: --data /var/lib/tenfold")
		}
		if err := errors.Join(os.Chown(home, uid, gid), os.Chown(path, uid, gid)); err != nil {
			return fmt.Errorf("configure cache: %w", err)
		}
	}
	return nil
}

func (c *Cache) await(ctx context.Context, key string, r record) error {
	begun := time.Now()
	for {
		err := ping(ctx, r)
		if err == nil {
			return nil
		}
		s, lerr := c.status(ctx, key)
		if lerr != nil {
			return lerr
		}
		ended := len(s) == 1 && s[0].Phase == keeper.Exited && s[0].LastExit != nil
		if ended || time.Since(begun) > startLimit {
			how := "does not answer: " + err.Error()
			if ended {
				how = "ended: " + s[0].LastExit.Describe()
			}
			lines := keeper.LastLines(c.LogPath(r.ID), begun.Add(-time.Second), 5)
			return tenfold.Errorf(tenfold.CodeFailed, "%s %s\n  last output  %s", r.Version, how, strings.Join(lines, "\n               ")).WithHint("its whole log: %s", c.LogPath(r.ID))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(answerPace):
		}
	}
}

// ping authenticates and asks, in the protocol's inline form.
func ping(ctx context.Context, r record) error {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(r.Port)))
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Second))
	fmt.Fprintf(conn, "AUTH probe %s\r\nPING\r\n", r.Password)
	in := bufio.NewReader(conn)
	for _, want := range []string{"+OK", "+PONG"} {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		if strings.TrimSpace(line) != want {
			return fmt.Errorf("it answers %q", strings.TrimSpace(line))
		}
	}
	return nil
}

// Kept says where a stopped cache's files lie and how many bytes they have.
type Kept struct {
	ID    tenfold.ID
	Path  string
	Bytes int64
}

// Kept lists stopped caches.
func (c *Cache) Kept() []Kept {
	var out []Kept
	for _, r := range c.records.All() {
		if !r.Stopped {
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
func (c *Cache) Destroy(ctx context.Context, id tenfold.ID) error {
	r, ok := c.records.Get(id.String())
	if !ok {
		return tenfold.Errorf(tenfold.CodeNotFound, "no %s of %s", id.Short(), id.App).WithHint("list what is kept: tenfold kept")
	}
	if !r.Stopped {
		return tenfold.Errorf(tenfold.CodeConflict, "%s of %s is in use", id.Short(), id.App).WithHint("take it out of the manifest and deploy, or tenfold down --app %s", id.App)
	}
	if err := errors.Join(c.cfg.Units.Remove(ctx, unitPrefix+id.String()), os.RemoveAll(c.home(id))); err != nil {
		return fmt.Errorf("destroy %s: %w", id.Short(), err)
	}
	return c.records.Delete(id.String())
}

// status is what the keeper says of one cache's server: one entry or none. The keeper lists by
// prefix, and "hot" is a prefix of "hot2".
func (c *Cache) status(ctx context.Context, key string) ([]keeper.Status, error) {
	all, err := c.cfg.Units.List(ctx, unitPrefix+key)
	return slices.DeleteFunc(all, func(s keeper.Status) bool { return s.Unit.ID != unitPrefix+key }), err
}
