package container

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// ignored reads which files of a folder the engine is not given: .dockerignore, or one that is named
// after the Dockerfile.
func ignored(dir, dockerfile string) (*patternmatcher.PatternMatcher, error) {
	var patterns []string
	for _, name := range []string{dockerfile + ".dockerignore", ".dockerignore"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			patterns, err = ignorefile.ReadAll(bytes.NewReader(b))
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		// The engine needs these, and leaves them out itself.
		patterns = append(patterns, "!.dockerignore", "!"+filepath.ToSlash(dockerfile))
		break
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, fmt.Errorf("read .dockerignore: %w", err)
	}
	return m, nil
}

// packContext is the folder as a tar stream, without what .dockerignore names. Close it, read or not: a
// goroutine packs until then.
func packContext(ctx context.Context, dir, dockerfile string) (io.ReadCloser, error) {
	if _, err := os.Stat(filepath.Join(dir, dockerfile)); err != nil {
		return nil, fmt.Errorf("there is no %s in the folder of the service, or git ignores it", dockerfile)
	}
	m, err := ignored(dir, dockerfile)
	if err != nil {
		return nil, err
	}
	out, in := io.Pipe()
	go func() { in.CloseWithError(pack(ctx, dir, m, in)) }()
	return out, nil
}

func pack(ctx context.Context, dir string, m *patternmatcher.PatternMatcher, to io.Writer) error {
	w := tar.NewWriter(to)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		out, err := m.MatchesOrParentMatches(rel)
		switch {
		case err != nil:
			return err
		case out && d.IsDir() && !m.Exclusions():
			return fs.SkipDir // nothing below it can be in again
		case out:
			return nil
		}
		return packFile(w, path, rel, d)
	})
	if err != nil {
		return err
	}
	return w.Close()
}

func packFile(w *tar.Writer, path, name string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	target := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	// Who built it, and when, must not change a layer.
	*h = tar.Header{Typeflag: h.Typeflag, Name: name, Linkname: h.Linkname, Size: h.Size, Mode: h.Mode, Format: tar.FormatPAX}
	if d.IsDir() {
		h.Name += "/"
	}
	if err := w.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}
