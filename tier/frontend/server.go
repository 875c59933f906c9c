package frontend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"tenfold"
	"tenfold/internal/build"
)

// checkServer asks that a build made the server that it is to yield, and that no secret stands in its
// code: what a bundler wrote into it would outlive every change of the secret.
func checkServer(ctx context.Context, res build.Result, s spec, secrets []tenfold.Binding, values []string) error {
	private := s.Build.Private
	if private == "" {
		return nil
	}
	dir := filepath.Join(res.Dir, filepath.FromSlash(private))
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return tenfold.Errorf(tenfold.CodeFailed, "the build made no server: there is no folder %s", private).
			WithHint("if the site is files only, say so: server: false, and build: {output: the folder with them}")
	}
	return leak(ctx, dir, secrets, values)
}

// gather puts the files that visitors get into one folder, each where its URL says; end takes it away.
func gather(ctx context.Context, res build.Result, b tenfold.Build) (dir string, end func(), err error) {
	if dir, err = os.MkdirTemp("", "tenfold-assets-"); err != nil {
		return "", nil, fmt.Errorf("gather assets: %w", err)
	}
	end = func() { os.RemoveAll(dir) }
	assets := b.Assets
	if b.Output != "" {
		assets = append([]tenfold.Asset{{From: b.Output}}, assets...)
	}
	for _, a := range assets {
		from := filepath.Join(res.Dir, filepath.FromSlash(a.From))
		if err := copyTree(ctx, from, filepath.Join(dir, filepath.FromSlash(a.To))); err != nil {
			end()
			return "", nil, fmt.Errorf("gather assets of %s: %w", a.From, err)
		}
	}
	return dir, end, nil
}

// copyTree copies files; of two with one name the first stays. Links are followed by the release itself,
// so one that leads out of the folder is refused here.
func copyTree(ctx context.Context, from, to string) error {
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if p == from && errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			return os.MkdirAll(dst, 0o755)
		case d.Type()&fs.ModeSymlink != 0:
			real, err := filepath.EvalSymlinks(p)
			if err != nil {
				return err
			}
			if out, err := filepath.Rel(from, real); err != nil || !filepath.IsLocal(out) {
				return fmt.Errorf("%s is a link that leaves its folder", rel)
			}
			if info, err := os.Stat(real); err != nil || info.IsDir() {
				return err // its files stand under their own name
			}
		case !d.Type().IsRegular():
			return nil
		}
		return copyFile(p, dst)
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
