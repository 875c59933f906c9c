// Package frontend builds sites into files and decides which release of each is served.
//
// It owns the builds of frontends and the frontends themselves. A build ends in a release (see
// internal/release), which the front door serves by itself; switching is one rename of a link, so a
// visitor gets the old site or the new one and never a mixture. A frontend comes last in a deploy: it
// needs every build and every service of its app. Begin at Frontend.
package frontend

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"tenfold"
	"tenfold/internal/atomicfile"
	"tenfold/internal/build"
	"tenfold/internal/release"
)

// keptReleases stay whatever their age, for instant rollback.
const keptReleases = 5

// keptServers is how many of them keep the build that their server runs from.
const keptServers = 3

// Config is what a Frontend stands on. Dir, Builder, Resolve and Emit are required.
type Config struct {
	Dir     string // records and sites
	Builder *build.Builder
	Resolve tenfold.Resolve
	Emit    tenfold.Emit
	// Changed is called when the state that Observe gives of something may have changed, and does not block. nil:
	// nobody is told.
	Changed func()
	// Serves says whether the server of a frontend answers from a build, or why it never will. nil: no
	// frontend has a server.
	Serves func(frontend tenfold.ID, build string) (ok bool, failed string)
	// Try gives an address where the app answers with a release of a frontend that users do not have
	// yet, until end is called. nil: nothing can be tried out.
	Try func(ctx context.Context, frontend tenfold.ID, release string) (url string, end func(), err error)
}

// Frontend is the tier of frontends and their builds.
type Frontend struct {
	cfg  Config
	wake chan struct{} // there are new items; holds one

	forgets sync.Mutex    // one Forget at a time
	goals   sync.Mutex    // held while a goal is applied
	leaving map[home]bool // takes no goals; under goals

	mu    sync.Mutex
	items map[tenfold.ID]*item
}

// item is one resource with its record: a build or a frontend.
type item struct {
	f    *Frontend
	id   tenfold.ID
	poke chan struct{} // the goal changed; holds one

	mu     sync.Mutex
	rec    record
	cancel context.CancelFunc // of the build on its way

	// Under f.mu: whether somebody pursues it or nobody may, and what ends that and is closed then.
	claimed bool
	end     context.CancelFunc
	ended   chan struct{}
}

// goal is a spec as it was applied.
type goal struct {
	Spec        spec         `json:"spec"`
	Needs       []tenfold.ID `json:"needs,omitempty"`
	Fingerprint string       `json:"fingerprint"`
}

// record is the durable state of a build or a frontend.
type record struct {
	ID      tenfold.ID `json:"id"`
	Goal    *goal      `json:"goal,omitempty"`
	Stopped bool       `json:"stopped,omitempty"`
	Gone    bool       `json:"gone,omitempty"`
	Failed  string     `json:"failed,omitempty"`
	Reason  string     `json:"reason,omitempty"`
	Hint    string     `json:"hint,omitempty"`
	// Releases says which release each fingerprint's build came to, newest last.
	Releases []made `json:"releases,omitempty"`
	// Serving is, of a frontend, the fingerprint that was switched to last.
	Serving string `json:"serving,omitempty"`
	// Passed are, of a frontend, the fingerprints that were tried out with success, newest last.
	Passed []string `json:"passed,omitempty"`
	// Pin is, of a frontend, the release a person went back to; the next deploy ends it.
	Pin tenfold.ReleaseID `json:"pin,omitempty"`
}

type made struct {
	Fingerprint string            `json:"fingerprint"` // of the build
	Release     tenfold.ReleaseID `json:"release"`
	Key         string            `json:"key"`
}

// New reads the records in cfg.Dir. It starts nothing.
func New(cfg Config) (*Frontend, error) {
	if cfg.Dir == "" || cfg.Builder == nil || cfg.Resolve == nil || cfg.Emit == nil {
		return nil, errors.New("new frontend: Dir, Builder, Resolve and Emit are required")
	}
	f := &Frontend{cfg: cfg, wake: make(chan struct{}, 1), leaving: map[home]bool{}, items: map[tenfold.ID]*item{}}
	if err := os.MkdirAll(f.records(), 0o755); err != nil {
		return nil, fmt.Errorf("new frontend: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(f.records(), "*.json"))
	if err != nil {
		return nil, fmt.Errorf("new frontend: %w", err)
	}
	for _, path := range files {
		var rec record
		if err := atomicfile.ReadJSON(path, &rec); err != nil {
			return nil, fmt.Errorf("new frontend: %w", err)
		}
		f.item(rec.ID).rec = rec
	}
	return f, nil
}

func (f *Frontend) records() string { return filepath.Join(f.cfg.Dir, "records") }

// SiteDir is the folder of a frontend's releases, as internal/release lays it out.
func (f *Frontend) SiteDir(id tenfold.ID) string {
	return filepath.Join(f.cfg.Dir, "sites", string(id.App), filepath.FromSlash(string(id.Env)), string(id.Name))
}

func (f *Frontend) site(id tenfold.ID) release.Site { return release.Site{Dir: f.SiteDir(id)} }

// LogPaths lists the log files of a frontend's build.
func (f *Frontend) LogPaths(id tenfold.ID) []string {
	files, _ := filepath.Glob(filepath.Join(f.logDir(id), "*.log"))
	return files
}

func (f *Frontend) logDir(id tenfold.ID) string {
	return filepath.Join(f.cfg.Dir, "logs", string(id.App), filepath.FromSlash(string(id.Env)), string(id.Name))
}

// item finds or makes what pursues id.
func (f *Frontend) item(id tenfold.ID) *item {
	f.mu.Lock()
	defer f.mu.Unlock()
	it, ok := f.items[id]
	if !ok {
		it = &item{f: f, id: id, poke: make(chan struct{}, 1), rec: record{ID: id}}
		f.items[id] = it
		f.prod()
	}
	return it
}

// prod makes Run look for items that nobody pursues.
func (f *Frontend) prod() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Name implements tenfold.Service.
func (f *Frontend) Name() string { return "frontend" }

// Run pursues all goals until ctx ends.
func (f *Frontend) Run(ctx context.Context, ready func()) error {
	var wg sync.WaitGroup
	ready()
	for {
		f.mu.Lock()
		for _, it := range f.items {
			if it.claimed {
				continue
			}
			own, end := context.WithCancel(ctx)
			ended := make(chan struct{})
			it.claimed, it.end, it.ended = true, end, ended
			wg.Go(func() {
				defer close(ended)
				defer end()
				it.run(own)
			})
		}
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			wg.Wait()
			f.mu.Lock()
			for _, it := range f.items {
				it.claimed = false
			}
			f.mu.Unlock()
			return nil
		case <-f.wake:
		}
	}
}

// Observe implements tenfold.Tier.
func (f *Frontend) Observe(context.Context) ([]tenfold.Resource, error) {
	var out []tenfold.Resource
	for _, it := range f.all() {
		r, ok, err := it.observe()
		if err != nil {
			return nil, fmt.Errorf("observe %s: %w", it.id.Short(), err)
		}
		if ok {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b tenfold.Resource) int { return a.ID.Compare(b.ID) })
	return out, nil
}

func (f *Frontend) all() []*item {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*item
	for _, it := range f.items {
		out = append(out, it)
	}
	return out
}

// Apply implements tenfold.Tier: it records the goal; Run pursues it.
func (f *Frontend) Apply(_ context.Context, s tenfold.Step) error {
	if k := s.Want.ID.Kind; k != tenfold.KindBuild && k != tenfold.KindFrontend {
		return fmt.Errorf("apply: frontend owns no %s", k)
	}
	f.goals.Lock()
	defer f.goals.Unlock()
	if f.leaving[homeOf(s.Want.ID)] {
		return tenfold.Errorf(tenfold.CodeConflict, "%s/%s is being forgotten", s.Want.ID.App, s.Want.ID.Env).WithHint("try again when it is gone")
	}
	if err := f.item(s.Want.ID).apply(s); err != nil {
		return fmt.Errorf("apply to %s: %w", s.Want.ID.Short(), err)
	}
	return nil
}

// Releases lists a frontend's releases, newest first.
func (f *Frontend) Releases(id tenfold.ID) ([]release.Release, error) { return f.site(id).List() }

// Current is the release that is served, "" when there is none.
func (f *Frontend) Current(id tenfold.ID) (tenfold.ReleaseID, error) {
	c, err := f.site(id).Current()
	return tenfold.ReleaseID(c), err
}

// Earlier finds the release that a person means ("" for the one before the current), and the build
// that its server runs from ("" without one).
func (f *Frontend) Earlier(id tenfold.ID, to tenfold.ReleaseID) (tenfold.ReleaseID, string, error) {
	site := f.site(id)
	all, err := site.Heads()
	if err != nil {
		return "", "", err
	}
	current, err := site.Current()
	if err != nil {
		return "", "", err
	}
	list := fmt.Sprintf("list them: tenfold releases --app %s", id.App)
	at := slices.IndexFunc(all, func(r release.Release) bool { return r.ID == current })
	i := at + 1
	if to != "" {
		i = slices.IndexFunc(all, func(r release.Release) bool { return strings.HasPrefix(r.ID, string(to)) })
	}
	if i < 0 || i >= len(all) {
		return "", "", tenfold.Errorf(tenfold.CodeNotFound, "frontend %s has no earlier release %s", id.Name, to).WithHint("%s", list)
	}
	return tenfold.ReleaseID(all[i].ID), all[i].Meta.Server, nil
}

// Rollback serves an earlier release at once ("" for the one before the current) and stays with it
// until the next deploy that changes the frontend. Its server, if it has one, must serve already.
func (f *Frontend) Rollback(_ context.Context, id tenfold.ID, to tenfold.ReleaseID) (tenfold.ReleaseID, error) {
	release, server, err := f.Earlier(id, to)
	if err != nil {
		return "", err
	}
	if server != "" {
		if ok, failed := f.serves(id, server); !ok {
			return "", tenfold.Errorf(tenfold.CodeUnavailable, "the server of release %s does not answer yet %s", short(string(release)), failed).WithHint("see what it says: tenfold logs %s --app %s", id.Name, id.App)
		}
	}
	it := f.item(id)
	it.mu.Lock()
	defer it.mu.Unlock()
	rec := it.rec
	rec.Pin = release
	if err := it.save(rec); err != nil {
		return "", err
	}
	if err := f.site(id).Switch(string(release)); err != nil {
		return "", err
	}
	it.emit(tenfold.SeverityInfo, 0, "release "+short(string(release))+" serves again")
	return release, nil
}

func (f *Frontend) serves(id tenfold.ID, build string) (bool, string) {
	if f.cfg.Serves == nil {
		return false, "nobody runs it"
	}
	return f.cfg.Serves(id, build)
}

// Released is the build whose server belongs to the release that users get; "" when none does.
func (f *Frontend) Released(id tenfold.ID) string {
	site := f.site(id)
	current, err := site.Current()
	if err != nil || current == "" {
		return ""
	}
	r, err := site.Head(current)
	if err != nil {
		return ""
	}
	return r.Meta.Server
}

// BuildKeys names the builds that this tier still needs, for the Prune of a shared Builder.
func (f *Frontend) BuildKeys() map[string]bool {
	out := map[string]bool{}
	for _, it := range f.all() {
		rec := it.snapshot()
		if rec.Gone {
			continue // what comes back is built again, if it must be
		}
		if n := len(rec.Releases); n > 0 && it.id.Kind == tenfold.KindBuild {
			out[rec.Releases[n-1].Key] = true
		}
		if it.id.Kind != tenfold.KindFrontend {
			continue
		}
		// What users have, and the few before it that they may go back to.
		out[f.Released(it.id)] = true
		if all, err := f.site(it.id).Heads(); err == nil {
			for _, r := range all[:min(len(all), keptServers)] {
				out[r.Meta.Server] = true
			}
		}
	}
	delete(out, "")
	return out
}

func short(id string) string { return id[:min(6, len(id))] }

func (it *item) snapshot() record {
	it.mu.Lock()
	defer it.mu.Unlock()
	return it.rec
}

// path is where the record lies.
func (it *item) path() string {
	return filepath.Join(it.f.records(), strings.ReplaceAll(it.id.String(), "/", "~")+".json")
}

// save replaces the record, durably first. The caller holds it.mu.
func (it *item) save(rec record) error {
	if err := atomicfile.WriteJSON(it.path(), rec, 0o600); err != nil {
		return fmt.Errorf("save record of %s: %w", it.id.Short(), err)
	}
	it.rec = rec
	if it.f.cfg.Changed != nil {
		it.f.cfg.Changed()
	}
	return nil
}

func (it *item) emit(s tenfold.Severity, took time.Duration, text string) {
	it.f.cfg.Emit(tenfold.Event{At: time.Now(), ID: it.id, Severity: s, Text: text, Took: took})
}

func (it *item) apply(s tenfold.Step) error {
	it.mu.Lock()
	defer it.mu.Unlock()
	rec := it.rec
	switch s.Verb {
	case tenfold.VerbStart, tenfold.VerbUpdate:
		sp, ok := s.Want.Spec.(spec)
		if !ok {
			return fmt.Errorf("the spec is a %T", s.Want.Spec)
		}
		if rec.Goal != nil && rec.Goal.Fingerprint == s.Want.Fingerprint && !rec.Stopped && !rec.Gone {
			return nil
		}
		rec.Goal = &goal{sp, s.Want.Needs, s.Want.Fingerprint}
		rec.Stopped, rec.Gone, rec.Failed, rec.Reason, rec.Hint, rec.Pin = false, false, "", "", "", ""
	case tenfold.VerbStop:
		rec.Stopped = true
	case tenfold.VerbRemove:
		// Releases and builds stay on disk: what comes back is served at once.
		rec = record{ID: it.id, Gone: true, Releases: rec.Releases}
	default:
		return fmt.Errorf("unknown verb %q", s.Verb)
	}
	if err := it.save(rec); err != nil {
		return err
	}
	if it.cancel != nil {
		it.cancel() // the build on its way is for another goal
	}
	select {
	case it.poke <- struct{}{}:
	default:
	}
	return nil
}

func (it *item) run(ctx context.Context) {
	for {
		if it.id.Kind == tenfold.KindBuild {
			it.pursueBuild(ctx)
		} else {
			it.pursueSwitch(ctx)
		}
		timer := time.NewTimer(2 * time.Second)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-it.poke:
			timer.Stop()
		case <-timer.C:
		}
	}
}
