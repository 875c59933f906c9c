// Package release is the layout of a frontend's releases on disk. Tier frontend writes it, the front
// door reads it, each in a process of its own:
//
//	<Dir>/blobs/<2 hex>/<SHA-256>      every file once, by content; beside it <SHA-256>.br and so on
//	<Dir>/releases/<id>/release.json   what a release holds (Release)
//	<Dir>/releases/<id>/files/…        its files, hard links to the blobs
//	<Dir>/current -> releases/<id>     what is served
//	<Dir>/left/<id>                    when a release stopped being served (RFC 3339), for Collect
//
// A release appears and is switched by one rename each, so that a reader, or a crash at any point,
// sees the old or the new and never a part. Begin at Site.
package release

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tenfold/internal/atomicfile"
	"tenfold/internal/lazy"
	"tenfold/internal/siterules"
)

// ErrCurrent means that the release is the one being served.
var ErrCurrent = errors.New("it is the one being served")

// ErrEmpty means that there is no file to release.
var ErrEmpty = errors.New("no files")

// Site is the folder of one frontend's releases.
type Site struct{ Dir string }

// Meta is what the maker of a release notes with it; only Server and Rules enter the release's ID.
type Meta struct {
	Source string `json:"source,omitempty"` // digest of the sources
	Build  string `json:"build,omitempty"`  // key of the build
	Label  string `json:"label,omitempty"`  // for people
	// Server is the key of the build whose server answers what has no file in this release; the same
	// files with another server are another release. Empty: files are all there is.
	Server string `json:"server,omitempty"`
	// Rules are what the site's own rule files say, by file; they enter the ID too.
	Rules map[string]siterules.Set `json:"rules,omitempty"`
	// Script is the address of a script that every page of the release begins with; it is in their content,
	// and so in the ID.
	Script string `json:"script,omitempty"`
}

// Release is an immutable frontend build.
type Release struct {
	ID      string          `json:"id"` // 12 hexadecimal digits of SHA-256 over paths and contents
	Meta    Meta            `json:"meta"`
	Created time.Time       `json:"created"`
	Files   map[string]File `json:"files"` // by slash path, without a leading slash; last, see Head
}

// Size is the sum of all files, in bytes.
func (r Release) Size() (n int64) {
	for _, f := range r.Files {
		n += f.Size
	}
	return n
}

// File is one file of a release.
type File struct {
	Digest string `json:"digest"` // SHA-256, hexadecimal
	Size   int64  `json:"size"`   // bytes
	Type   string `json:"type"`   // content type
	// Hashed says that the name carries a hash of the content: the file may be cached for ever.
	Hashed bool `json:"hashed,omitempty"`
	// Coded are the content codings that the file is kept in too, with their bytes.
	Coded map[string]int64 `json:"coded,omitempty"`
}

func (s Site) releases() string { return filepath.Join(s.Dir, "releases") }

// Root is a folder whose files belong to a release.
type Root struct {
	Dir string
	At  string // slash path of the folder in the release; "" for its top
}

// Add makes a release of all files below from, see AddRoots.
func (s Site) Add(ctx context.Context, from string, meta Meta) (Release, error) {
	return s.AddRoots(ctx, []Root{{Dir: from}}, meta)
}

// AddRoots makes a release of all files below roots and returns it; the same files give the same release.
// Of two with one name that of the first root is taken. Symbolic links are followed within their root
// and refused when they leave it. Names that begin with a dot (but .well-known), node_modules and rule
// files are left out: they are for tools, not visitors. ErrEmpty when there is neither file nor server.
func (s Site) AddRoots(ctx context.Context, roots []Root, meta Meta) (Release, error) {
	r := Release{Meta: meta, Created: time.Now().UTC(), Files: map[string]File{}}
	if err := os.MkdirAll(s.releases(), 0o755); err != nil {
		return r, fmt.Errorf("add release: %w", err)
	}
	s.sweep()
	if err := s.store(ctx, roots, &r); err != nil {
		return r, fmt.Errorf("add release: %w", err)
	}
	if len(r.Files) == 0 && meta.Server == "" {
		return r, fmt.Errorf("add release: %w", ErrEmpty)
	}
	r.ID = idOf(r.Files, meta)
	if old, err := s.Open(r.ID); err == nil {
		return *old, nil
	}
	if err := s.place(r); err != nil {
		return r, fmt.Errorf("add release %s: %w", r.ID, err)
	}
	return r, nil
}

// idOf hashes the index: paths and digests in order of path, then the server and the rules.
func idOf(files map[string]File, meta Meta) string {
	h := sha256.New()
	for _, p := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(h, "%s\x00%s\n", p, files[p].Digest)
	}
	if meta.Server != "" {
		fmt.Fprintf(h, "server\x00%s\n", meta.Server)
	}
	if len(meta.Rules) > 0 {
		rules, _ := json.Marshal(meta.Rules) // maps are written in order of their keys
		fmt.Fprintf(h, "rules\x00%s\n", rules)
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}

// store puts every file's content among the blobs and lists it in r.
func (s Site) store(ctx context.Context, roots []Root, r *Release) error {
	return walk(ctx, roots, func(path, name string) error {
		f, err := s.blob(path, name, r.Meta.Script)
		if err == nil {
			f.Coded, err = s.code(f)
		}
		r.Files[name] = f
		return err
	})
}

// walk visits every file below roots that belongs to a release, each name once: path is where its content
// lies, name its slash path in the release.
func walk(ctx context.Context, roots []Root, file func(path, name string) error) error {
	seen := map[string]bool{}
	for _, r := range roots {
		base, err := filepath.EvalSymlinks(r.Dir)
		if err != nil {
			return err
		}
		w := walker{ctx: ctx, from: r.Dir, base: base, file: func(path, name string) error {
			if seen[name] {
				return nil
			}
			seen[name] = true
			return file(path, name)
		}}
		if err := w.visit(base, strings.TrimPrefix(path.Join("/", r.At), "/"), 0); err != nil {
			return err
		}
	}
	return nil
}

// walker walks one root.
type walker struct {
	ctx        context.Context
	from, base string // the root as it was given, and with links followed
	file       func(path, name string) error
}

func (w walker) visit(dir, name string, depth int) error {
	if depth > 64 {
		return fmt.Errorf("%s: folders within each other without end", name)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		rel := path.Join(name, e.Name())
		if n := e.Name(); n == "node_modules" || strings.HasPrefix(n, ".") && n != ".well-known" || slices.Contains(siterules.Names, rel) {
			continue
		}
		real, err := filepath.EvalSymlinks(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		if out, err := filepath.Rel(w.base, real); err != nil || !filepath.IsLocal(out) {
			return fmt.Errorf("%s is a link that leaves %s", rel, w.from)
		}
		info, err := os.Stat(real)
		if err != nil {
			return err
		}
		switch {
		case info.IsDir():
			err = w.visit(real, rel, depth+1)
		case info.Mode().IsRegular():
			err = w.file(real, rel)
		default:
			err = fmt.Errorf("%s is neither a file nor a folder", rel)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s Site) blobPath(digest string) string {
	return filepath.Join(s.Dir, "blobs", digest[:2], digest)
}

// blob stores one file's content and describes it. The copy is made beside and renamed, so a blob's
// name never stands on half its content.
func (s Site) blob(path, name, script string) (File, error) {
	in, err := open(path, script)
	if err != nil {
		return File{}, err
	}
	defer in.Close()
	tmp := filepath.Join(s.Dir, "blobs", ".new-"+rand.Text())
	if err := os.MkdirAll(filepath.Dir(tmp), 0o755); err != nil {
		return File{}, err
	}
	out, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return File{}, err
	}
	defer os.Remove(tmp)
	h, head := sha256.New(), &prefix{}
	n, err := io.Copy(io.MultiWriter(out, h, head), in)
	if err := errors.Join(err, out.Close()); err != nil {
		return File{}, err
	}
	f := File{Digest: hex.EncodeToString(h.Sum(nil)), Size: n, Type: contentType(name, head.b), Hashed: Hashed(name)}
	to := s.blobPath(f.Digest)
	if info, err := os.Stat(to); err == nil && info.Size() == n {
		return f, nil
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return f, err
	}
	return f, os.Rename(tmp, to)
}

// prefix keeps the first bytes written, for sniffing a content type.
type prefix struct{ b []byte }

func (p *prefix) Write(b []byte) (int, error) {
	p.b = append(p.b, b[:min(len(b), 512-len(p.b))]...)
	return len(b), nil
}

// place makes the release's folder beside and renames it into place.
func (s Site) place(r Release) error {
	tmp := filepath.Join(s.releases(), ".new-"+rand.Text())
	defer os.RemoveAll(tmp)
	if err := os.MkdirAll(filepath.Join(tmp, "files"), 0o755); err != nil {
		return err
	}
	for name, f := range r.Files {
		to := filepath.Join(tmp, "files", filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.Link(s.blobPath(f.Digest), to); err != nil {
			return err
		}
	}
	if err := atomicfile.WriteJSON(filepath.Join(tmp, "release.json"), r, 0o644); err != nil {
		return err
	}
	final := filepath.Join(s.releases(), r.ID)
	// A folder without a readable release.json is what a crash in Remove leaves.
	if err := os.RemoveAll(final); err != nil {
		return err
	}
	if err := os.Rename(tmp, final); err != nil {
		return err
	}
	return atomicfile.SyncDir(s.releases())
}

// sweep takes away what a crash in the middle of Add or Switch left. There is one writer per site.
func (s Site) sweep() {
	for _, dir := range []string{s.releases(), filepath.Join(s.Dir, "blobs"), s.Dir} {
		left, _ := filepath.Glob(filepath.Join(dir, ".new-*"))
		for _, l := range left {
			os.RemoveAll(l)
		}
	}
}

var idForm = lazy.Regexp(`^[0-9a-f]{12,64}$`)

// Open reads a release; errors.Is(err, fs.ErrNotExist) when there is none of that ID.
func (s Site) Open(id string) (*Release, error) {
	return s.open(id, func(path string, r *Release) error { return atomicfile.ReadJSON(path, r) })
}

// Head is Open without Files. A release may list tens of thousands of them, after all the rest: no more
// of it is read than what stands before.
func (s Site) Head(id string) (*Release, error) { return s.open(id, readHead) }

func (s Site) open(id string, read func(path string, r *Release) error) (*Release, error) {
	if !idForm.MatchString(id) {
		return nil, fmt.Errorf("open release %q: %w", id, fs.ErrNotExist)
	}
	var r Release
	if err := read(filepath.Join(s.releases(), id, "release.json"), &r); err != nil {
		return nil, fmt.Errorf("open release %s: %w", id, err)
	}
	if r.ID != id {
		return nil, fmt.Errorf("open release %s: it says that it is %q", id, r.ID)
	}
	return &r, nil
}

func readHead(path string, r *Release) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	d := json.NewDecoder(f)
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		var into any = new(json.RawMessage) // skipped
		switch key {
		case "id":
			into = &r.ID
		case "meta":
			into = &r.Meta
		case "created":
			into = &r.Created
		case "files":
			return nil
		}
		if err := d.Decode(into); err != nil {
			return err
		}
	}
	return nil
}

// Switch makes a release the served one, by one rename.
func (s Site) Switch(id string) error {
	if _, err := s.Open(id); err != nil {
		return fmt.Errorf("switch: %w", err)
	}
	if err := s.leave(id); err != nil {
		return fmt.Errorf("switch to release %s: %w", id, err)
	}
	tmp := filepath.Join(s.Dir, ".new-"+rand.Text())
	if err := os.Symlink(filepath.Join("releases", id), tmp); err != nil {
		return fmt.Errorf("switch to release %s: %w", id, err)
	}
	if err := os.Rename(tmp, filepath.Join(s.Dir, "current")); err != nil {
		os.Remove(tmp)
		return fmt.Errorf("switch to release %s: %w", id, err)
	}
	return atomicfile.SyncDir(s.Dir)
}

// leave notes that the release served until now is not any more, unless it goes on being it.
func (s Site) leave(next string) error {
	id, err := s.Current()
	if err != nil || id == "" || id == next {
		return nil // a link that cannot be read is replaced: it served nothing
	}
	return s.left(id, time.Now())
}

// Clear makes no release the served one.
func (s Site) Clear() error {
	if err := s.leave(""); err != nil {
		return fmt.Errorf("clear current release: %w", err)
	}
	if err := os.Remove(filepath.Join(s.Dir, "current")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("clear current release: %w", err)
	}
	return nil
}

// Current is the ID of the served release, "" when there is none.
func (s Site) Current() (string, error) {
	to, err := os.Readlink(filepath.Join(s.Dir, "current"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read current release: %w", err)
	}
	id := filepath.Base(to)
	if !idForm.MatchString(id) {
		return "", fmt.Errorf("read current release: the link leads to %q", to)
	}
	return id, nil
}

// List returns all releases, newest first. Folders that cannot be read are left out.
func (s Site) List() ([]Release, error) { return s.list(s.Open) }

// Heads is List without Files, see Head.
func (s Site) Heads() ([]Release, error) { return s.list(s.Head) }

func (s Site) list(open func(id string) (*Release, error)) ([]Release, error) {
	entries, err := os.ReadDir(s.releases())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list releases: %w", err)
	}
	var out []Release
	for _, e := range entries {
		if r, err := open(e.Name()); err == nil {
			out = append(out, *r)
		}
	}
	slices.SortFunc(out, func(a, b Release) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out, nil
}

// Remove deletes releases and the blobs that no other release holds. It refuses the current one,
// with ErrCurrent, before deleting anything. An unknown ID is no error.
func (s Site) Remove(ids ...string) error {
	current, err := s.Current()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if id == current {
			return fmt.Errorf("remove release %s: %w", id, ErrCurrent)
		}
	}
	for _, id := range ids {
		if !idForm.MatchString(id) {
			continue
		}
		// Out of the readers' sight first, then file by file.
		gone := filepath.Join(s.releases(), ".new-"+rand.Text())
		if err := os.Rename(filepath.Join(s.releases(), id), gone); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			return fmt.Errorf("remove release %s: %w", id, err)
		}
		if err := os.RemoveAll(gone); err != nil {
			return fmt.Errorf("remove release %s: %w", id, err)
		}
		if err := os.Remove(s.leftPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove release %s: %w", id, err)
		}
	}
	return s.prune()
}

// prune deletes blobs that no release holds.
func (s Site) prune() error {
	all, err := s.List()
	if err != nil {
		return err
	}
	held := map[string]bool{}
	for _, r := range all {
		for _, f := range r.Files {
			held[f.Digest] = true
		}
	}
	blobs, err := filepath.Glob(filepath.Join(s.Dir, "blobs", "??", "*"))
	if err != nil {
		return err
	}
	for _, b := range blobs {
		digest, _, _ := strings.Cut(filepath.Base(b), ".") // coded forms go with what they are of
		if !held[digest] {
			if err := os.Remove(b); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove blob: %w", err)
			}
		}
	}
	return nil
}

// Path is where a file of a release lies on disk. Whatever file says, the path stays below the
// release's folder; an ID that is none gives a path that does not exist.
func (s Site) Path(id, file string) string {
	if !idForm.MatchString(id) || strings.ContainsRune(file, 0) {
		return filepath.Join(s.releases(), "none")
	}
	return filepath.Join(s.releases(), id, "files", filepath.Join("/", filepath.FromSlash(file)))
}

// Rules are all rules of a release, file by file in the order in which they are asked.
func (r *Release) Rules() siterules.Set {
	var all siterules.Set
	for _, name := range siterules.Names {
		s := r.Meta.Rules[name]
		all.Redirects = append(all.Redirects, s.Redirects...)
		all.Headers = append(all.Headers, s.Headers...)
	}
	return all
}
