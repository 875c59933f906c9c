package frontend

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"tenfold"
	"tenfold/internal/release"
	"tenfold/internal/siterules"
)

// rules reads the rule files that a site brings along: from the top of its release, and those that other hosts read
// from the project's folder, from there. What is not honoured is told. A file with an error keeps the
// rules that it had in the release that is served, and says where the error is.
func (it *item) rules(roots []release.Root, project string) map[string]siterules.Set {
	dialect := siterules.Netlify
	for _, name := range []string{"wrangler.toml", "wrangler.json", "wrangler.jsonc"} {
		if _, err := os.Stat(filepath.Join(project, name)); err == nil {
			dialect = siterules.Cloudflare
		}
	}
	out := map[string]siterules.Set{}
	for _, name := range siterules.Names {
		text, err := readRules(name, roots, project)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var set siterules.Set
		var notes []siterules.Note
		if err == nil {
			set, notes, err = siterules.Read(name, text, dialect)
		}
		if err != nil {
			last, kept := it.servedRules(name)
			if kept {
				out[name] = last
			}
			it.emit(tenfold.SeverityWarning, 0, fmt.Sprintf("%v; %s", err, map[bool]string{true: "its rules stay as they were", false: "it has no rules"}[kept]))
			continue
		}
		for i, n := range notes {
			if i == mostNotes {
				it.emit(tenfold.SeverityWarning, 0, fmt.Sprintf("%s: %d more are not honoured", name, len(notes)-i))
				break
			}
			it.emit(tenfold.SeverityWarning, 0, n.String())
		}
		if !set.Empty() {
			out[name] = set
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// mostNotes of a file are told one by one.
const mostNotes = 20

// readRules reads a rule file of the release's top, or of the project's folder where it belongs there.
func readRules(name string, roots []release.Root, project string) ([]byte, error) {
	var dirs []string
	for _, r := range roots {
		if r.At == "" {
			dirs = append(dirs, r.Dir)
		}
	}
	if name != "_redirects" && name != "_headers" {
		dirs = append(dirs, project)
	}
	for _, dir := range dirs {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return nil, err
		}
		f, err := root.Open(name)
		root.Close()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, siterules.MaxFile+1))
	}
	return nil, fs.ErrNotExist
}

// servedRules are the rules that a file has in the release that is served.
func (it *item) servedRules(name string) (siterules.Set, bool) {
	site := it.f.site(it.id)
	id, err := site.Current()
	if err != nil || id == "" {
		return siterules.Set{}, false
	}
	r, err := site.Head(id)
	if err != nil {
		return siterules.Set{}, false
	}
	s, ok := r.Meta.Rules[name]
	return s, ok
}
