package frontend

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"tenfold"
	"tenfold/internal/build"
	"tenfold/internal/release"
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
	return leak(ctx, []release.Root{{Dir: dir}}, secrets, values)
}

// rootsOf are the folders of a build with the files that visitors get, each where its URL says; what the
// build did not make is left out.
func rootsOf(res build.Result, b tenfold.Build) []release.Root {
	assets := b.Assets
	if b.Output != "" {
		assets = append([]tenfold.Asset{{From: b.Output}}, assets...)
	}
	var out []release.Root
	for _, a := range assets {
		dir := filepath.Join(res.Dir, filepath.FromSlash(a.From))
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			out = append(out, release.Root{Dir: dir, At: a.To})
		}
	}
	return out
}
