// Package source reads the files of a project: which they are, what their bytes hash to, and a copy
// of them to build in.
//
// In a git work tree the files are those that git tracks or would track; elsewhere all of them. Never
// among them: .git, .tenfold, node_modules, .venv, __pycache__, and the files that hold a developer's
// own secrets (.env, .env.local, .env.*.local). The manifest travels with the project (Pack), and is no
// source of what is built: another setting is no other program. Nothing here changes the project. Begin at Digest.
package source

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// Manifest is the file in a project's root that says how it runs.
const Manifest = "tenfold.yaml"

// file is one entry of a project. Only files and symbolic links count: folders follow from them.
type file struct {
	path   string // slash path below the context
	mode   fs.FileMode
	target string // of a symbolic link
}

// Digest is the SHA-256, in hexadecimal, over path, executable bit, link target and content of every
// source in context, a folder below root ("." for all of it). It does not depend on where root lies,
// on times or on owners.
//
// With only, slash paths below context, it is about those files and folders alone.
func Digest(ctx context.Context, root, context string, only ...string) (string, error) {
	dir := filepath.Join(root, context)
	files, err := sources(ctx, root, dir)
	if err != nil {
		return "", fmt.Errorf("digest %s: %w", dir, err)
	}
	files = among(files, only)
	sums := make([][sha256.Size]byte, len(files))
	err = each(ctx, len(files), func(i int) error {
		f := files[i]
		if f.target != "" {
			sums[i] = sha256.Sum256([]byte(f.target))
			return nil
		}
		var err error
		sums[i], err = sum(filepath.Join(dir, filepath.FromSlash(f.path)))
		return err
	})
	if err != nil {
		return "", fmt.Errorf("digest %s: %w", dir, err)
	}
	h := sha256.New()
	for i, f := range files {
		entry(h, f, sums[i])
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// among keeps the files that only names or that lie in a folder it names; without only, all.
func among(files []file, only []string) []file {
	if len(only) == 0 {
		return files
	}
	return slices.DeleteFunc(files, func(f file) bool {
		return !slices.ContainsFunc(only, func(o string) bool { return f.path == o || strings.HasPrefix(f.path, o+"/") })
	})
}

// entry is one line of the digest; the zero byte ends a path because no path holds one.
func entry(h hash.Hash, f file, sum [sha256.Size]byte) {
	kind := "file"
	switch {
	case f.target != "":
		kind = "link"
	case f.mode&0o111 != 0:
		kind = "exec"
	}
	fmt.Fprintf(h, "%s\x00%s\x00%x\n", f.path, kind, sum)
}

func sum(path string) (s [sha256.Size]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return s, readable(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return s, err
	}
	h.Sum(s[:0])
	return s, nil
}

// Copy writes the same files that Digest reads below dst, which must not exist or be empty. Modes are
// 0644, or 0755 for what is executable.
// With only, those files and folders alone.
func Copy(ctx context.Context, root, context, dst string, only ...string) error {
	dir := filepath.Join(root, context)
	files, err := sources(ctx, root, dir)
	if err != nil {
		return fmt.Errorf("copy %s: %w", dir, err)
	}
	files = among(files, only)
	if err := os.MkdirAll(dst, 0o755); err != nil {
		return fmt.Errorf("copy %s: %w", dir, err)
	}
	made := map[string]bool{}
	for _, f := range files {
		folder := filepath.Dir(filepath.Join(dst, filepath.FromSlash(f.path)))
		if !made[folder] {
			if err := os.MkdirAll(folder, 0o755); err != nil {
				return fmt.Errorf("copy %s: %w", dir, err)
			}
			made[folder] = true
		}
	}
	err = each(ctx, len(files), func(i int) error {
		f := files[i]
		to := filepath.Join(dst, filepath.FromSlash(f.path))
		if f.target != "" {
			return os.Symlink(f.target, to)
		}
		return copyFile(filepath.Join(dir, filepath.FromSlash(f.path)), to, f.mode)
	})
	if err != nil {
		return fmt.Errorf("copy %s: %w", dir, err)
	}
	return nil
}

func copyFile(from, to string, mode fs.FileMode) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return readable(err)
	}
	defer in.Close()
	perm := fs.FileMode(0o644)
	if mode&0o111 != 0 {
		perm = 0o755
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in) // a reflink where the file system can
	return errors.Join(err, out.Close())
}

// readable says what to do about a file that may not be read.
func readable(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: make it readable, or name it in .gitignore", err)
	}
	return err
}

// each calls f for 0..n-1 on a few goroutines and returns the first error, by index.
func each(ctx context.Context, n int, f func(int) error) error {
	next := make(chan int)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for range min(n, 2*runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for i := range next {
				errs[i] = f(i)
			}
		})
	}
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// sources are the files below dir without the manifest.
func sources(ctx context.Context, root, dir string) ([]file, error) {
	files, err := list(ctx, root, dir)
	if err != nil {
		return nil, err
	}
	manifest := filepath.Join(root, Manifest)
	return slices.DeleteFunc(files, func(f file) bool { return filepath.Join(dir, filepath.FromSlash(f.path)) == manifest }), nil
}

// list finds the files below dir in order of path and checks each.
func list(ctx context.Context, root, dir string) ([]file, error) {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	if !within(root, dir) {
		return nil, fmt.Errorf("%s lies outside the project %s", dir, root)
	}
	if info, err := os.Stat(dir); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a folder", dir)
	}
	w := walker{root: root, dir: dir}
	paths, ok := tracked(ctx, dir)
	if ok {
		for _, p := range paths {
			if err := w.add(filepath.FromSlash(p)); err != nil {
				return nil, err
			}
		}
	} else if err := w.walk("."); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	slices.SortFunc(w.files, func(a, b file) int { return strings.Compare(a.path, b.path) })
	w.files = slices.CompactFunc(w.files, func(a, b file) bool { return a.path == b.path })
	return w.files, nil
}

// tracked asks git. An answer without files means that git ignores the whole folder: then it is
// walked like one outside git.
func tracked(ctx context.Context, dir string) ([]string, bool) {
	cmd := exec.CommandContext(ctx, "git", "-C", dir, "ls-files", "-co", "--exclude-standard", "-z")
	cmd.Env = append(os.Environ(), "GIT_OPTIONAL_LOCKS=0")
	out, err := cmd.Output()
	if err != nil || len(out) == 0 {
		return nil, false
	}
	var paths []string
	for p := range bytes.SplitSeq(bytes.TrimRight(out, "\x00"), []byte{0}) {
		paths = append(paths, string(p))
	}
	return paths, true
}

type walker struct {
	root, dir string
	files     []file
}

// add takes one path that git named. Git names a submodule or a repository within as a folder, and
// tracked files that were deleted.
func (w *walker) add(path string) error {
	for part := range strings.SplitSeq(filepath.ToSlash(path), "/") {
		if excluded(part) {
			return nil
		}
	}
	info, err := os.Lstat(filepath.Join(w.dir, path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		return w.walk(filepath.Clean(path))
	}
	return w.take(path, info)
}

func (w *walker) walk(path string) error {
	return filepath.WalkDir(filepath.Join(w.dir, path), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return readable(err)
		}
		rel, err := filepath.Rel(w.dir, p)
		if err != nil {
			return err
		}
		if rel != "." && excluded(d.Name()) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			return nil
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return w.take(rel, info)
	})
}

func (w *walker) take(path string, info fs.FileInfo) error {
	f := file{path: filepath.ToSlash(path), mode: info.Mode()}
	switch {
	case info.Mode().IsRegular():
	case info.Mode()&fs.ModeSymlink != 0:
		full := filepath.Join(w.dir, path)
		target, err := os.Readlink(full)
		if err != nil {
			return err
		}
		if filepath.IsAbs(target) || !within(w.root, filepath.Join(filepath.Dir(full), target)) {
			return fmt.Errorf("%s is a link to %s, outside the project: put the file there itself, or name the link in .gitignore", path, target)
		}
		f.target = target
	default:
		return fmt.Errorf("%s is a %s, which cannot be copied: remove it, or name it in .gitignore", path, kind(info.Mode()))
	}
	w.files = append(w.files, f)
	return nil
}

func kind(m fs.FileMode) string {
	switch {
	case m&fs.ModeSocket != 0:
		return "socket"
	case m&fs.ModeNamedPipe != 0:
		return "named pipe"
	}
	return "device"
}

func within(root, path string) bool {
	rel, err := filepath.Rel(root, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// excluded says that a file or folder of this name is never part of a project's sources.
func excluded(name string) bool {
	switch name {
	case ".git", ".tenfold", "node_modules", ".venv", "__pycache__", ".env", ".env.local":
		return true
	}
	return strings.HasPrefix(name, ".env.") && strings.HasSuffix(name, ".local")
}
