package infer

import (
	"io/fs"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// workspace is what a root's package.json or pnpm-workspace.yaml owns: packages that are installed
// together and may need each other.
type workspace struct {
	project
	root packageJSON
	dirs map[string]packageJSON // by folder
	name map[string]string      // of a package: its folder
}

// What is looked at of a workspace, at most.
const (
	maxPackages = 2000
	maxFolders  = 20000
	maxPatterns = 200
	maxSegments = 12 // of a pattern
)

// workspace is what the root owns; false when it owns nothing.
func (p project) workspace() (workspace, bool) {
	if !p.memo.looked {
		p.memo.looked = true
		p.memo.workspace, p.memo.is = p.packagesOf()
	}
	return p.memo.workspace, p.memo.is
}

func (p project) packagesOf() (workspace, bool) {
	w := workspace{project: p, dirs: map[string]packageJSON{}, name: map[string]string{}}
	var ok bool
	if w.root, ok = p.node("."); !ok && !p.has("pnpm-workspace.yaml") {
		return w, false
	}
	patterns := w.root.workspaces()
	if text := p.text("pnpm-workspace.yaml"); text != "" {
		var pnpm struct {
			Packages []string `yaml:"packages"`
		}
		if yaml.Unmarshal([]byte(text), &pnpm) == nil {
			patterns = append(patterns, pnpm.Packages...)
		}
	}
	if patterns = patterns[:min(len(patterns), maxPatterns)]; len(patterns) == 0 {
		return w, false
	}
	w.find(".", patterns, 0)
	return w, len(w.dirs) > 0
}

// workspaces are the patterns of package.json: a list, or a map that has one.
func (j packageJSON) workspaces() (out []string) {
	list := j.Workspaces
	if m, ok := list.(map[string]any); ok {
		list = m["packages"]
	}
	items, _ := list.([]any)
	for _, i := range items {
		if s, ok := i.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// find enters the packages below dir whose folder matches a pattern and no pattern with "!".
func (w workspace) find(dir string, patterns []string, depth int) {
	if w.memo.visited++; depth > 5 || w.memo.visited > maxFolders {
		return
	}
	list, err := fs.ReadDir(w, dir)
	if err != nil {
		return
	}
	for _, e := range list {
		n := e.Name()
		if !e.IsDir() || n == "node_modules" || strings.HasPrefix(n, ".") || len(w.dirs) >= maxPackages {
			continue
		}
		at := path.Join(dir, n)
		in := false
		for _, p := range patterns {
			if out, not := strings.CutPrefix(p, "!"); not {
				in = in && !matches(out, at)
			} else {
				in = in || matches(p, at)
			}
		}
		if j, ok := w.node(at); ok && in {
			w.dirs[at] = j
			if j.Name != "" {
				w.name[j.Name] = at
			}
		}
		w.find(at, patterns, depth+1)
	}
}

// matches says whether a folder is meant by a pattern such as "apps/*" or "packages/**".
func matches(pattern, dir string) bool {
	p := slices.CompactFunc(strings.Split(path.Clean(strings.TrimPrefix(pattern, "./")), "/"), func(a, b string) bool { return a == "**" && b == "**" })
	return len(p) <= maxSegments && match(p, strings.Split(dir, "/"))
}

// match compares segment by segment; "**" takes any number of them.
func match(p, d []string) bool {
	for len(p) > 0 {
		if p[0] == "**" {
			for i := range len(d) + 1 {
				if len(p) == 1 && i < len(d) || len(p) > 1 && match(p[1:], d[i:]) {
					return true
				}
			}
			return false
		}
		if len(d) == 0 {
			return false
		}
		if ok, err := path.Match(p[0], d[0]); err != nil || !ok {
			return false
		}
		p, d = p[1:], d[1:]
	}
	return len(d) == 0
}

// needs are the folders of the packages that the one in dir is made with, each after those it needs
// itself; dir is the last.
func (w workspace) needs(dir string) (out []string) {
	state := map[string]bool{}
	var visit func(string)
	visit = func(at string) {
		if state[at] {
			return
		}
		state[at] = true
		j := w.dirs[at]
		var deps []string
		for _, m := range []map[string]string{j.Dependencies, j.DevDependencies, j.OptionalDependencies, j.PeerDependencies} {
			for d := range m {
				if _, own := w.name[d]; own {
					deps = append(deps, w.name[d])
				}
			}
		}
		slices.Sort(deps)
		for _, d := range deps {
			visit(d)
		}
		out = append(out, at)
	}
	visit(dir)
	return out
}

// needed says that another package is made with the one in dir.
func (w workspace) needed(dir string) bool {
	name := w.dirs[dir].Name
	for other, j := range w.dirs {
		if other == dir || name == "" {
			continue
		}
		for _, deps := range []map[string]string{j.Dependencies, j.DevDependencies, j.PeerDependencies, j.OptionalDependencies} {
			if _, ok := deps[name]; ok {
				return true
			}
		}
	}
	return false
}

// plan says how the package in dir is installed and built: in the workspace's root, with what it needs
// first.
func (w workspace) plan(f *found, run string) {
	if _, member := w.dirs[f.dir]; !member {
		return
	}
	up := "cd " + strings.TrimSuffix(strings.Repeat("../", 1+strings.Count(f.dir, "/")), "/") + " && "
	if f.install != "" {
		f.install = up + f.install
	}
	name := w.dirs[f.dir].Name
	if f.build == "" || name == "" {
		return
	}
	if w.root.has("turbo") && w.first(".", "turbo.json", "turbo.jsonc") != "" && w.dirs[f.dir].Scripts["build"] != "" {
		// Loose: variables of the manifest are not in turbo.json, and nothing is taken from its own cache.
		exec := map[string]string{"pnpm": "pnpm exec", "yarn": "yarn", "bun": "bunx"}[run]
		if exec == "" {
			exec = "npx"
		}
		f.build = up + exec + " turbo run build --filter=" + name + " --env-mode=loose"
		return
	}
	needs := slices.DeleteFunc(w.needs(f.dir), func(d string) bool { return d != f.dir && w.dirs[d].Scripts["build"] == "" })
	if len(needs) == 1 || w.dirs[f.dir].Scripts["build"] == "" {
		return
	}
	if run == "pnpm" {
		f.build = up + "pnpm --filter '" + name + "...' run build"
		return
	}
	var each []string
	for _, d := range needs {
		n := w.dirs[d].Name
		switch run {
		case "yarn":
			each = append(each, "yarn workspace "+n+" run build")
		case "bun":
			each = append(each, "bun run --filter "+n+" build")
		default:
			each = append(each, "npm run build -w "+n)
		}
	}
	f.build = up + strings.Join(each, " && ")
}

// only names what the package in dir is made of: its folder, those of the packages that it needs, and
// what of the root belongs to no package. also are the package.json of all others: package managers
// compare them with the lock file.
func (w workspace) only(dir string) (only, also []string) {
	mine := w.needs(dir)
	var visit func(string)
	visit = func(at string) {
		list, err := fs.ReadDir(w, at)
		if err != nil {
			return
		}
		for _, e := range list {
			p := path.Join(at, e.Name())
			_, isPackage := w.dirs[p]
			switch {
			case slices.Contains(mine, p):
				only = append(only, p)
			case isPackage:
				also = append(also, path.Join(p, "package.json"))
				if w.holds(p) {
					visit(p)
				}
			case e.IsDir() && w.holds(p):
				visit(p)
			case aside(e.Name()):
			default:
				only = append(only, p)
			}
		}
	}
	visit(".")
	return only, also
}

// holds says that there are packages below a folder.
func (w workspace) holds(dir string) bool {
	for d := range w.dirs {
		if strings.HasPrefix(d, dir+"/") {
			return true
		}
	}
	return false
}

// aside says that a file or folder of the root never changes what a build makes.
func aside(name string) bool {
	switch name {
	case ".git", ".github", ".gitlab", ".vscode", ".idea", ".husky", ".changeset", ".turbo", "docs", "node_modules", "tenfold.yaml", ".gitignore", ".gitattributes",
		".editorconfig", ".dockerignore", "Dockerfile", "LICENSE", "CODEOWNERS", "Makefile", "docker-compose.yml", "compose.yaml":
		return true
	}
	return path.Ext(name) == ".md"
}
