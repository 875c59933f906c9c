package infer

import (
	"encoding/json"
	"io/fs"
	"path"
	"slices"
	"strings"

	"tenfold/internal/lazy"
	"tenfold/manifest"
)

// project reads a folder of a project: small files only, and none outside.
type project struct {
	fs.FS
	memo *memo
}

// memo holds what is found out once.
type memo struct {
	looked, is bool
	workspace  workspace
	visited    int // folders that were searched for packages
}

func read(fsys fs.FS) project { return project{fsys, &memo{}} }

func (p project) has(name string) bool {
	info, err := fs.Stat(p, path.Clean(name))
	return err == nil && !info.IsDir()
}

func (p project) dir(name string) bool {
	info, err := fs.Stat(p, path.Clean(name))
	return err == nil && info.IsDir()
}

// text is the file's content, "" when there is none or it is longer than a manifest may be.
func (p project) text(name string) string {
	info, err := fs.Stat(p, path.Clean(name))
	if err != nil || info.IsDir() || info.Size() > manifest.MaxSize {
		return ""
	}
	b, err := fs.ReadFile(p, path.Clean(name))
	if err != nil {
		return ""
	}
	return string(b)
}

// first is the first of the files below dir that exists, as a path, else "".
func (p project) first(dir string, names ...string) string {
	for _, n := range names {
		if f := path.Join(dir, n); p.has(f) {
			return f
		}
	}
	return ""
}

// folders are the folders in dir that may hold an entry, sorted.
func (p project) folders(dir string) []string {
	list, err := fs.ReadDir(p, dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range list {
		n := e.Name()
		if e.IsDir() && !strings.HasPrefix(n, ".") && !strings.HasPrefix(n, "_") && (dir != "." || !slices.Contains(skipped, n)) && !slices.Contains(never, n) {
			out = append(out, path.Join(dir, n))
		}
	}
	return out
}

// never hold an entry, skipped not right below the root: apps/docs may be a site.
var never = []string{"node_modules", "vendor", "dist", "build", "out", "target", "testdata"}

var skipped = []string{
	"node_modules", "vendor", "dist", "build", "out", "target", "test", "tests", "docs", "examples", "e2e", "cypress",
	"venv", "migrations", "static", "public", "scripts", "coverage", "tmp", "log", "testdata",
}

// packageJSON is what of package.json matters here.
type packageJSON struct {
	Name                 string            `json:"name"`
	Main                 string            `json:"main"`
	Scripts              map[string]string `json:"scripts"`
	Dependencies         map[string]string `json:"dependencies"`
	DevDependencies      map[string]string `json:"devDependencies"`
	Engines              map[string]string `json:"engines"`
	PeerDependencies     map[string]string `json:"peerDependencies"`
	OptionalDependencies map[string]string `json:"optionalDependencies"`
	PackageManager       string            `json:"packageManager"`
	Workspaces           any               `json:"workspaces"`
	Proxy                any               `json:"proxy"`
}

func (p project) node(dir string) (packageJSON, bool) {
	var out packageJSON
	s := p.text(path.Join(dir, "package.json"))
	if s == "" || json.Unmarshal([]byte(s), &out) != nil {
		return out, false
	}
	return out, true
}

func (j packageJSON) has(dep string) bool {
	_, a := j.Dependencies[dep]
	_, b := j.DevDependencies[dep]
	return a || b
}

// any is the first of the dependencies that the package has, "" when none.
func (j packageJSON) any(deps ...string) string {
	for _, d := range deps {
		if j.has(d) {
			return d
		}
	}
	return ""
}

var (
	number     = lazy.Regexp(`[0-9]+(\.[0-9]+)?`)
	goVersion  = lazy.Regexp(`(?m)^go ([0-9]+\.[0-9]+)`)
	mainClause = lazy.Regexp(`(?m)^package main\b`)
)

// goMain says whether dir holds a program.
func (p project) goMain(dir string) bool {
	list, err := fs.ReadDir(p, dir)
	if err != nil {
		return false
	}
	for _, e := range list {
		if n := e.Name(); strings.HasSuffix(n, ".go") && !strings.HasSuffix(n, "_test.go") && mainClause.MatchString(p.text(path.Join(dir, n))) {
			return true
		}
	}
	return false
}

// lines of a file such as .env or Procfile: "NAME=value" or "name: command".
func pairs(s, sep string) [][2]string {
	var out [][2]string
	for line := range strings.SplitSeq(s, "\n") {
		line = strings.TrimPrefix(strings.TrimSpace(line), "export ")
		k, v, ok := strings.Cut(line, sep)
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		v = strings.TrimSpace(v)
		if len(v) >= 2 && (v[0] == '"' || v[0] == '\'') && v[len(v)-1] == v[0] {
			v = v[1 : len(v)-1]
		}
		out = append(out, [2]string{strings.TrimSpace(k), v})
	}
	return out
}
