//go:build scenario

package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Two sites and what they share, as a workspace that each package manager installs in its way.
var monorepo = map[string]string{
	"packages/ui/package.json": `{"name":"@acme/ui","version":"1.0.0","type":"module","main":"dist/index.js","scripts":{"build":"node build.mjs"}}`,
	"packages/ui/build.mjs":    "import fs from 'node:fs'\nfs.mkdirSync('dist', { recursive: true })\nfs.copyFileSync('index.js', 'dist/index.js')\n",
	"packages/ui/index.js":     "export const title = 'first title'\n",
	"apps/web/index.html":      "<!doctype html><div id=app></div><script type=module src=/main.js></script>\n",
	"apps/web/main.js":         "import { title } from '@acme/ui'\ndocument.getElementById('app').textContent = title\n",
	"apps/admin/package.json":  `{"name":"admin","version":"1.0.0","type":"module","scripts":{"build":"vite build --base=/admin/"},"devDependencies":{"vite":"7.1.7"}}`,
	"apps/admin/index.html":    "<!doctype html><h1>the admin</h1><script type=module src=/main.js></script>\n",
	"apps/admin/main.js":       "console.log('admin')\n",
}

func with(base map[string]string, more map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range []map[string]string{base, more} {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

var workspaces = map[string]map[string]string{
	"npm": {
		"package.json":          `{"name":"mono-npm","private":true,"workspaces":["apps/*","packages/*"]}`,
		"apps/web/package.json": `{"name":"web","version":"1.0.0","type":"module","scripts":{"build":"vite build"},"dependencies":{"@acme/ui":"*"},"devDependencies":{"vite":"7.1.7"}}`,
	},
	"turbo-pnpm": {
		"package.json":          `{"name":"mono-turbo","private":true,"packageManager":"pnpm@9.15.9","devDependencies":{"turbo":"2.5.8"}}`,
		"pnpm-workspace.yaml":   "packages:\n  - apps/*\n  - packages/*\n",
		"turbo.json":            `{"tasks":{"build":{"dependsOn":["^build"],"outputs":["dist/**"]}}}`,
		"apps/web/package.json": `{"name":"web","version":"1.0.0","type":"module","scripts":{"build":"vite build"},"dependencies":{"@acme/ui":"workspace:*"},"devDependencies":{"vite":"7.1.7"}}`,
	},
	"yarn": {
		"package.json":          `{"name":"mono-yarn","private":true,"packageManager":"yarn@1.22.22","workspaces":["apps/*","packages/*"]}`,
		"apps/web/package.json": `{"name":"web","version":"1.0.0","type":"module","scripts":{"build":"vite build"},"dependencies":{"@acme/ui":"1.0.0"},"devDependencies":{"vite":"7.1.7"}}`,
	},
}

var script = regexp.MustCompile(`src="(/[^"]*assets/index-[^"]+\.js)"`)

// bundle is the script that a page names.
func (h *house) bundle(t *testing.T, host, page string) string {
	t.Helper()
	_, html := h.get(host, page)
	m := script.FindStringSubmatch(html)
	if m == nil {
		t.Fatalf("%s%s names no script: %s", host, page, html)
	}
	status, text := h.get(host, m[1])
	if status != 200 {
		t.Fatalf("%s%s: %d %s", host, m[1], status, text)
	}
	return text
}

func TestMonoreposBuildOnlyWhatChanged(t *testing.T) {
	for name, files := range workspaces {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			dir := write(t, t.TempDir()+"/mono", with(monorepo, files))
			host := hostIn(h.up(dir))
			if text := h.bundle(t, host, "/"); !strings.Contains(text, "first title") {
				t.Errorf("the site says %s", text)
			}
			if _, text := h.get(host, "/admin/"); !strings.Contains(text, "the admin") {
				t.Errorf("the other site says %s", text)
			}
			h.bundle(t, host, "/admin/")
			change := func(file, text string) string {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				return h.must(dir, "up", "--detach")
			}
			out := change("packages/ui/index.js", "export const title = 'second title'\n")
			if !regexp.MustCompile(`admin +unchanged, not built again: release`).MatchString(out) || strings.Count(out, " built: ") != 1 {
				t.Errorf("what the sites share changed for one of them:\n%s", out)
			}
			if text := h.bundle(t, host, "/"); !strings.Contains(text, "second title") {
				t.Errorf("the site says %s", text)
			}
			out = change("README.md", "# the monorepo\n")
			if strings.Count(out, "unchanged, not built again") != 2 || strings.Contains(out, " built: ") {
				t.Errorf("a README was built:\n%s", out)
			}
			// Back to what was built before: nothing is installed or built again.
			out = change("packages/ui/index.js", "export const title = 'first title'\n")
			if strings.Contains(out, "installed") {
				t.Errorf("the same sources again:\n%s", out)
			}
			if text := h.bundle(t, host, "/"); !strings.Contains(text, "first title") {
				t.Errorf("back again the site says %s", text)
			}
		})
	}
}
