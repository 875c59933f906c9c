// Package manifest turns the text of tenfold.yaml into a tenfold.App.
//
// It is pure: no file, clock, randomness or socket. Begin at Parse, which finds every problem of a
// text at once, each with its line, column and what to write instead. The vocabulary is one table
// (keys.go): the parser, docs/manifest.md and docs/tenfold.schema.json are held to it by tests.
// Reading goes in three steps, a file each: syntax.go (text to YAML nodes, refusing what the
// language leaves out), shape.go (nodes to a tree that obeys the nine rules, so that environments
// merge key by key), build.go (tree to App: types, defaults, references).
//
// What only the project's files can tell (language, build, command, folder) stays empty here;
// package manifest/infer fills it in.
package manifest

import (
	"strings"

	"tenfold"
)

// MaxSize is the largest manifest that is read, in bytes; MaxDepth the deepest nesting.
const (
	MaxSize  = 1 << 20
	MaxDepth = 32
)

// Nothing stands in a Command or a Fallback that the manifest set to false, so that detection
// leaves it alone. infer.Resolve turns it into the zero value; the shell takes it as "do nothing".
const Nothing = ":"

// A Manifest is a text without problems. It is immutable but for Folder.
type Manifest struct {
	// File is how messages call it.
	File string
	// Folder is the project's folder: its name is the app's name where the text has no key app.
	// The caller sets it before App.
	Folder string
	// Warnings are what is accepted and yet should be known.
	Warnings []Problem

	top    *tree
	envs   map[string]*tree
	places map[string]place // of envs that are not left out
	text   *text
}

// Parse reads a manifest. name is how messages call the file. The error is an *Errors with up to
// MaxProblems problems, in the order of the file; every environment is checked too.
func Parse(name string, src []byte) (*Manifest, error) {
	rep := &reporter{text: newText(name, src)}
	root := readYAML(rep, src)
	if root == nil {
		return nil, rep.err()
	}
	m := &Manifest{File: name, envs: map[string]*tree{}, places: map[string]place{}, text: rep.text}
	m.top = shape(rep, topKeys(), nil, root, "")
	if m.top == nil {
		return nil, rep.err()
	}
	if envs := m.top.get("environments"); envs != nil {
		for name, e := range envs.fields {
			m.envs[name] = e
		}
	}
	if rep.failed() {
		return nil, rep.err()
	}
	build(rep, m.top, "app", "production")
	for _, name := range sortedKeys(m.envs) {
		if !m.envs[name].off {
			m.places[name] = readPlace(rep, name, m.envs[name])
			build(rep, merge(m.top, m.envs[name]), "app", tenfold.Environment(name))
		}
	}
	if rep.failed() {
		return nil, rep.err()
	}
	m.Warnings = rep.warned()
	return m, nil
}

// App is the manifest in one environment: what environments.<env> says lies over the rest, key by
// key, and every default is filled in. "preview/fix-cart" takes environments.preview, unless an
// entry has its whole name. An environment without an entry is the manifest as it stands; but
// the domain is production's alone unless an entry names another.
// Source.Root, Context, Digest and the revision are the caller's to fill in.
func (m *Manifest) App(env tenfold.Environment) (tenfold.App, error) {
	over, ok := m.envs[string(env)]
	if !ok {
		kind, _, _ := strings.Cut(string(env), "/")
		over, ok = m.envs[kind]
	}
	top := m.top
	if ok {
		if over.off {
			return tenfold.App{}, tenfold.Errorf(tenfold.CodeInvalid, "%s: environments.%s is false", m.File, env).
				WithHint("remove that line, or deploy to another environment")
		}
		top = merge(top, over)
	}
	rep := &reporter{text: m.text}
	app := build(rep, top, kebab(m.Folder), env)
	// One host leads to one place: the domain is production's, unless an environment names its own.
	if env != "production" && (!ok || over.get("domain") == nil) {
		app.Domains = nil
	}
	// One entry, many environments: each has a name of its own below a wildcard.
	if _, one, ok := strings.Cut(string(env), "/"); ok {
		for i, d := range app.Domains {
			if below, wild := strings.CutPrefix(d, "*."); wild {
				app.Domains[i] = one + "." + below
				if app.Door.DNS != nil {
					app.Door.DNS.Wildcards = append(app.Door.DNS.Wildcards, d)
				}
			}
		}
	}
	return app, rep.err()
}

// kebab makes an app's name of a folder's.
func kebab(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	out := strings.Trim(b.String(), "-")
	if out != "" && out[0] >= '0' && out[0] <= '9' {
		out = "app-" + out
	}
	if len(out) > maxName {
		out = strings.Trim(out[:maxName], "-")
	}
	if out == "" {
		return "app"
	}
	return out
}
