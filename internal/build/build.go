// Package build turns sources into something that can run: it copies them to a fresh folder, installs
// what they depend on, tests, builds, and keeps the result under a key made of everything that went in.
//
//	<Dir>/builds/<key>/tree/…       the copied context with what the commands made
//	<Dir>/builds/<key>/build.json   written last: without it the build is unfinished and is made again
//	<Dir>/cache/…                   what several builds share
//	<Dir>/toolchains/…              runtimes that the machine lacks
//
// A build is made where it will stay, since tools write absolute paths into what they make (Python's
// venv, for one); the record written last takes the place of a rename. Each command is a unit of the
// keeper: a killed daemon orphans nothing, and the next Build of that entry clears what is left and
// starts again. Begin at Builder.Build.
package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"tenfold/internal/atomicfile"
	"tenfold/internal/container"
	"tenfold/internal/keeper"
	"tenfold/internal/lazy"
	"tenfold/internal/source"
)

// DefaultTimeout bounds each command of a build that names no limit of its own.
const DefaultTimeout = 15 * time.Minute

// Builder makes builds in Dir. Safe for concurrent use; it starts nothing by itself.
type Builder struct {
	Dir   string
	Units keeper.Units
	// Env is what every command gets beside the request's own: PATH, HOME, … It does not enter keys.
	// Empty: what this process says of programs, caches and proxies, and nothing else.
	Env []string
	// Containers makes images; nil: no request may want one.
	Containers *container.Driver

	mu    sync.Mutex
	locks map[string]*sync.Mutex // by key: one build of a key at a time
	slots chan struct{}          // bounds concurrent builds; made on first use
}

// Request says what to build.
type Request struct {
	// ID names the entry in the names of its units: "shop/production/api".
	ID string
	// Root, Context and Path are where the sources lie, as in tenfold.Source; Digest is their content.
	Root, Context, Path, Digest string
	// Only and Also are what of the context is copied, as in tenfold.Source; both empty: all.
	Only, Also []string
	// Language and Version choose the runtime ("node", "22").
	Language, Version string
	// Install, Test and Command run in this order in the entry's folder; empty ones are skipped.
	Install, Test, Command []string
	// Env is what the commands get beside Builder.Env; Secret likewise, but kept out of records (its
	// hash enters the key).
	Env, Secret []string
	// Pins tells the values of Secret apart without them ("shop/TOKEN@3"); with it the key is known
	// before the values are. Empty: the values' hashes enter the key.
	Pins []string
	// Output is the folder with the result, below the entry's; "" for the entry's folder itself.
	Output string
	// Image is a reference to an image that is the result, without any sources. Dockerfile, below the
	// entry's folder, has one built of them, in place of Install and Command. "" for both: no image.
	Image, Dockerfile string
	Timeout           time.Duration // of each command; 0: DefaultTimeout
	Memory            int64         // bytes for each command; 0: no limit
	Log               string        // file for the output of all commands
	// Progress tells what is being done now, Done what a finished stage took. Both may be nil.
	Progress func(text string)
	Done     func(Stage)
}

// Stage is one finished part of a build.
type Stage struct {
	Name    string        `json:"name"` // "install", "test", "build"
	Command string        `json:"command"`
	Took    time.Duration `json:"took"`
	Note    string        `json:"note,omitempty"` // "131 packages installed"
}

// Result is a finished build.
type Result struct {
	Key string `json:"key"`
	// Dir is the entry's folder in the build; Output the folder asked for in the request.
	Dir    string `json:"-"`
	Output string `json:"-"`
	// Tree is the folder of everything that was copied and built; Dir lies in it, or is it.
	Tree string `json:"-"`
	// Image is what runs, in a container; then the folders are empty. "" for what runs as a process.
	Image string `json:"image,omitempty"`
	// Bin lists folders that come first in the PATH of what runs from the build: a runtime that the
	// machine itself lacks.
	Bin    []string      `json:"bin,omitempty"`
	Stages []Stage       `json:"stages"`
	Took   time.Duration `json:"took"`
	Made   time.Time     `json:"made"`
	Cached bool          `json:"-"` // it was there already

	Entry  string `json:"entry"`            // Dir, below tree
	Folder string `json:"folder,omitempty"` // Output, below Entry
}

// Key names the build of a request: 20 hexadecimal digits over everything that changes the result.
// It depends on no folder of this machine.
func Key(r Request) string {
	secrets := make([]string, len(r.Secret))
	for i, s := range r.Secret {
		sum := sha256.Sum256([]byte(s))
		secrets[i] = hex.EncodeToString(sum[:])
	}
	if len(r.Pins) > 0 {
		secrets = slices.Clone(r.Pins)
	}
	slices.Sort(secrets)
	env := slices.Sorted(slices.Values(r.Env))
	of := []any{r.Digest, entryOf(r), r.Language, r.Version, r.Install, r.Test, r.Command, r.Output, env, secrets}
	if r.Image != "" || r.Dockerfile != "" {
		of = append(of, r.Image, r.Dockerfile)
	}
	b, err := json.Marshal(of)
	if err != nil {
		panic(err) // strings always marshal
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:10])
}

// entryOf is the entry's folder below the copied context.
func entryOf(r Request) string {
	rel, err := filepath.Rel(filepath.Join("/", r.Context), filepath.Join("/", r.Path))
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "."
	}
	return filepath.ToSlash(rel)
}

func (b *Builder) dir(key string) string { return filepath.Join(b.Dir, "builds", key) }

var keyForm = lazy.Regexp(`^[0-9a-f]{20}$`)

// Find returns a finished build; errors.Is(err, fs.ErrNotExist) when there is none.
func (b *Builder) Find(key string) (Result, error) {
	var r Result
	if !keyForm.MatchString(key) {
		return r, fmt.Errorf("find build %q: %w", key, fs.ErrNotExist)
	}
	if err := atomicfile.ReadJSON(filepath.Join(b.dir(key), "build.json"), &r); err != nil {
		return r, fmt.Errorf("find build %s: %w", key, err)
	}
	r.Tree = filepath.Join(b.dir(key), "tree")
	r.Dir = filepath.Join(r.Tree, filepath.FromSlash(r.Entry))
	r.Output = filepath.Join(r.Dir, filepath.FromSlash(r.Folder))
	if _, err := os.Stat(r.Dir); err != nil {
		return r, fmt.Errorf("find build %s: %w", key, err)
	}
	r.Cached = true
	return r, nil
}

// Build makes the build of r, or returns the one made earlier. Errors: *StageError when a command
// failed, *MissingError when the machine lacks a tool, ctx's own when it ended.
func (b *Builder) Build(ctx context.Context, r Request) (Result, error) {
	key := Key(r)
	lock := b.lock(key)
	lock.Lock()
	defer lock.Unlock()
	if done, err := b.Find(key); err == nil {
		return done, nil
	}
	select {
	case b.slots <- struct{}{}:
		defer func() { <-b.slots }()
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
	if err := b.Clear(ctx, r.ID); err != nil {
		return Result{}, fmt.Errorf("build %s: %w", r.ID, err)
	}
	return b.make(ctx, r, key)
}

func (b *Builder) lock(key string) *sync.Mutex {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.locks == nil {
		b.locks = map[string]*sync.Mutex{}
		b.slots = make(chan struct{}, max(2, runtime.NumCPU()))
	}
	l, ok := b.locks[key]
	if !ok {
		l = &sync.Mutex{}
		b.locks[key] = l
	}
	return l
}

// Clear ends the units that an earlier daemon left in the middle of a build of the entry with this
// Request.ID, of which none is being made now.
func (b *Builder) Clear(ctx context.Context, id string) error {
	left, err := b.Units.List(ctx, unitPrefix(id))
	if err != nil {
		return err
	}
	for _, u := range left {
		if err := b.Units.Remove(ctx, u.Unit.ID); err != nil {
			return err
		}
	}
	return nil
}

func unitPrefix(id string) string { return "build/" + id + "/" }

// making is one build on its way.
type making struct {
	*Builder
	Request
	result Result
	// machine is the environment without anything of the project, env the one of its commands.
	machine, env []string
}

func (b *Builder) make(ctx context.Context, r Request, key string) (Result, error) {
	began := time.Now()
	m := &making{Builder: b, Request: r}
	m.result = Result{Key: key, Entry: entryOf(r), Folder: r.Output}
	m.result.Tree = filepath.Join(b.dir(key), "tree")
	m.result.Dir = filepath.Join(m.result.Tree, filepath.FromSlash(m.result.Entry))
	m.result.Output = filepath.Join(m.result.Dir, filepath.FromSlash(r.Output))
	if m.Timeout == 0 {
		m.Timeout = DefaultTimeout
	}
	if err := os.RemoveAll(b.dir(key)); err != nil {
		return m.result, fmt.Errorf("build %s: %w", r.ID, err)
	}
	if err := m.stages(ctx); err != nil {
		return m.result, err
	}
	m.result.Took, m.result.Made = time.Since(began), time.Now().UTC()
	if err := atomicfile.WriteJSON(filepath.Join(b.dir(key), "build.json"), m.result, 0o644); err != nil {
		return m.result, fmt.Errorf("build %s: %w", r.ID, err)
	}
	return m.result, nil
}

// stages does what the request asks for, one after the other.
func (m *making) stages(ctx context.Context) error {
	if m.Image != "" {
		return m.image(ctx)
	}
	if err := m.copy(ctx); err != nil {
		return err
	}
	if err := m.prepare(ctx); err != nil {
		return err
	}
	if err := m.install(ctx); err != nil {
		return err
	}
	for _, s := range []struct {
		name string
		argv []string
	}{{"test", m.Test}, {"build", m.Command}} {
		if err := m.stage(ctx, s.name, s.argv, nil); err != nil {
			return err
		}
	}
	if m.Dockerfile != "" {
		return m.image(ctx)
	}
	return nil
}

// ErrChanged means that the sources are no longer the ones whose digest was asked for.
var ErrChanged = errors.New("the files changed since the deploy began")

func (m *making) copy(ctx context.Context) error {
	m.progress("copying the sources")
	tree := filepath.Join(m.dir(m.result.Key), "tree")
	both := slices.Clone(m.Only)
	if len(both) > 0 {
		both = append(both, m.Also...)
	}
	if err := source.Copy(ctx, m.Root, m.Context, tree, both...); err != nil {
		return err
	}
	if m.Digest != "" {
		// What is kept under a digest must have it: a file saved meanwhile would stay wrong for good.
		got, err := source.Digest(ctx, m.Root, m.Context, m.Only...)
		if err != nil {
			return err
		}
		if got != m.Digest {
			return fmt.Errorf("copy %s: %w", m.Root, ErrChanged)
		}
	}
	if info, err := os.Stat(m.result.Dir); err != nil || !info.IsDir() {
		return fmt.Errorf("copy %s: there is no folder %s in it, or git ignores it", m.Root, m.Path)
	}
	return nil
}

func (m *making) progress(format string, args ...any) {
	if m.Progress != nil {
		m.Progress(fmt.Sprintf(format, args...))
	}
}

func (m *making) done(s Stage) {
	m.result.Stages = append(m.result.Stages, s)
	if m.Done != nil {
		m.Done(s)
	}
}

// Prune deletes finished and unfinished builds but those in keep, the newest others up to newest, and
// any being made now.
func (b *Builder) Prune(keep map[string]bool, newest int) error {
	entries, err := os.ReadDir(filepath.Join(b.Dir, "builds"))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("prune builds: %w", err)
	}
	type old struct {
		key  string
		made time.Time
	}
	var rest []old
	for _, e := range entries {
		if info, err := e.Info(); err == nil && !keep[e.Name()] {
			rest = append(rest, old{e.Name(), info.ModTime()})
		}
	}
	slices.SortFunc(rest, func(a, b old) int { return b.made.Compare(a.made) })
	var failed error
	for i, o := range rest {
		if i < newest {
			continue
		}
		if l := b.lock(o.key); l.TryLock() {
			failed = errors.Join(failed, os.RemoveAll(b.dir(o.key)))
			l.Unlock()
		}
	}
	failed = errors.Join(failed, b.pruneModules())
	if failed != nil {
		return fmt.Errorf("prune builds: %w", failed)
	}
	return nil
}

// keptModules is how many lock files' node_modules are kept.
const keptModules = 8

func (b *Builder) pruneModules() error {
	dirs, err := filepath.Glob(filepath.Join(b.Dir, "cache", "node_modules", "*"))
	if err != nil || len(dirs) <= keptModules {
		return err
	}
	stamp := map[string]time.Time{}
	for _, d := range dirs {
		if info, err := os.Stat(d); err == nil {
			stamp[d] = info.ModTime()
		}
	}
	slices.SortFunc(dirs, func(a, b string) int { return stamp[b].Compare(stamp[a]) })
	var failed error
	for _, d := range dirs[keptModules:] {
		// Renamed first: a build that restores from it now sees all of it or an error, and then installs.
		gone := filepath.Join(filepath.Dir(d), ".gone-"+filepath.Base(d))
		failed = errors.Join(failed, os.Rename(d, gone), os.RemoveAll(gone))
	}
	return failed
}
