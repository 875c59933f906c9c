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
// from the project's folder, from there. What is not honoured is told, and where an error is.
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
			var how string
			set, how = it.instead(name, set, err)
			for _, e := range set.Faults {
				it.emit(tenfold.SeverityWarning, 0, e)
			}
			it.emit(tenfold.SeverityWarning, 0, name+": "+how)
			if set.Earlier {
				notes = nil // of lines that do not hold
			}
		}
		for i, n := range notes {
			if i == mostNotes {
				it.emit(tenfold.SeverityWarning, 0, fmt.Sprintf("%s: %d more are not honoured", name, len(notes)-i))
				break
			}
			it.emit(tenfold.SeverityWarning, 0, n.String())
		}
		if !set.Empty() || len(set.Faults) > 0 {
			out[name] = set
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// instead gives the rules that stand in for those of a file with an error: those that it had in the release that
// is served, when it had no error there; else those of its lines without one, as the hosts do that it comes from. how says
// which. The faults go with the rules, for as long as the release is served.
func (it *item) instead(name string, good siterules.Set, err error) (set siterules.Set, how string) {
	switch last, ok := it.servedRules(name); {
	case ok:
		set, how = last, "its rules stay as they were"
		set.Earlier = true
	case good.Empty():
		how = "it has no rules"
	default:
		set, how = good, fmt.Sprintf("its other lines hold (%d rules)", len(good.Redirects)+len(good.Headers))
	}
	all := siterules.Errors{err}
	errors.As(err, &all)
	set.Faults = nil
	for i, e := range all {
		if i == mostNotes {
			set.Faults = append(set.Faults, fmt.Sprintf("%s: %d more errors", name, len(all)-i))
			break
		}
		set.Faults = append(set.Faults, e.Error())
	}
	return set, how
}

// faults says, in a note of status, what is wrong with the rule files of a release.
func faults(r *release.Release) (text string) {
	for _, name := range siterules.Names {
		switch s := r.Meta.Rules[name]; {
		case len(s.Faults) == 0:
			continue
		case s.Earlier:
			text += "; " + s.Faults[0] + "; earlier rules hold"
		case s.Empty():
			text += "; " + s.Faults[0] + "; it has no rules"
		default:
			text += "; " + s.Faults[0] + "; its other lines hold"
		}
		if n := len(r.Meta.Rules[name].Faults); n > 1 {
			text += fmt.Sprintf(" (%d errors)", n)
		}
	}
	return text
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

// servedRules are the rules that a file has in the release that is served, if they are of one without an error.
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
	return s, ok && !s.Empty() && (len(s.Faults) == 0 || s.Earlier)
}
