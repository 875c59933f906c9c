package manifest

import (
	"strings"
	"time"

	"tenfold"
)

// PullRequests is the word that stands for pull requests where a branch is named.
const PullRequests = "pull-requests"

// PreviewKeep is how long a preview stays after its last push, unless the manifest says otherwise.
const PreviewKeep = 72 * time.Hour

// previewName is the environment whose settings previews have. Another is one too if it is of pull
// requests.
const previewName = "preview"

// Target is an environment that a branch is deployed to.
type Target struct {
	Env tenfold.Environment
	// Preview says that each branch has an environment of its own, which takes the settings of Env:
	// "preview/fix-cart".
	Preview bool
	Keep    time.Duration // of a preview, after its last push
	Open    bool          // a preview without a password
	// Named are the manifest's own environments: no preview is called like one of them.
	Named []string
}

// place is what an environment's entry says of branches.
type place struct {
	said     bool
	patterns []string
	pulls    bool
	keep     time.Duration
	open     bool
}

// readPlace reads branch, keep and auth of an environment.
func readPlace(r *reporter, name string, t *tree) place {
	b := &builder{reporter: r}
	p := place{keep: b.duration(t, "keep", PreviewKeep)}
	if f, ok := value(t, "auth"); ok {
		p.open = f.node.Value == "false"
	}
	if f, ok := value(t, "branch"); ok {
		p.said = true
		parts, _ := readList(r, f.node, f.path, "branch")
		for _, n := range parts {
			switch s := n.Value; {
			case s == PullRequests:
				p.pulls = true
			case s == "" || len(s) > 200 || strings.ContainsAny(s, " \t\r\n~^:?[\\") || strings.HasPrefix(s, "/") || strings.HasPrefix(s, "-") || strings.Contains(s, ".."):
				r.at(n, "write main, release/* or "+PullRequests, "%s: %q is not a branch", f.path, cut(s, 60))
			default:
				p.patterns = append(p.patterns, s)
			}
		}
	}
	if p.pulls && name == "production" {
		r.at(t.get("branch").place(), "give pull requests an environment of their own: preview: {branch: pull-requests}", "environments.production: pull requests never go to production")
	}
	for _, k := range []string{"keep", "auth"} {
		if f, ok := value(t, k); ok && !p.preview(name) {
			r.at(f.place(), "remove it, or write branch: "+PullRequests, "%s: only previews have %s", f.path, k)
		}
	}
	return p
}

func (p place) preview(name string) bool { return p.pulls || name == previewName }

// Targets says where a push of a branch, or a pull request of it, is deployed, by the environments'
// branch. What no environment names: main and master go to production, unless production names others;
// pull requests have previews, unless environments.preview is false; other branches are nowhere.
func (m *Manifest) Targets(branch string, pull bool) []Target {
	out := m.targets(branch, pull)
	for i := range out {
		out[i].Named = sortedKeys(m.envs)
	}
	return out
}

func (m *Manifest) targets(branch string, pull bool) []Target {
	var out []Target
	for _, name := range sortedKeys(m.places) {
		p := m.places[name]
		match := pull && p.pulls
		for _, pattern := range p.patterns {
			match = match || !pull && glob(pattern, branch)
		}
		if match {
			out = append(out, Target{Env: tenfold.Environment(name), Preview: p.preview(name), Keep: p.keep, Open: p.open})
		}
	}
	switch {
	case len(out) > 0:
	case pull:
		if over, ok := m.envs[previewName]; ok && over.off {
			return nil
		}
		if p, ok := m.places[previewName]; ok {
			if p.said {
				return nil // its branches are others
			}
			return []Target{{Env: previewName, Preview: true, Keep: p.keep, Open: p.open}}
		}
		return []Target{{Env: previewName, Preview: true, Keep: PreviewKeep}}
	case (branch == "main" || branch == "master") && !m.places["production"].said:
		return []Target{{Env: "production"}}
	}
	return out
}

// glob matches a pattern in which * stands for anything, slashes included.
func glob(pattern, s string) bool {
	star, from := -1, 0
	i, j := 0, 0
	for j < len(s) {
		switch {
		case i < len(pattern) && pattern[i] == '*':
			star, from = i, j
			i++
		case i < len(pattern) && pattern[i] == s[j]:
			i++
			j++
		case star >= 0: // the last * takes one more
			from++
			i, j = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[i:], "*") == ""
}
