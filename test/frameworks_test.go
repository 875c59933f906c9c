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
	"yarn-berry": {
		"package.json":          `{"name":"mono-berry","private":true,"packageManager":"yarn@4.10.3","workspaces":["apps/*","packages/*"]}`,
		".yarnrc.yml":           "nodeLinker: node-modules\nenableTelemetry: false\n",
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
	t.Parallel()
	for name, files := range workspaces {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
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

// TestVariablesOfAnEnvironmentReachItsBuild: each environment is built with its own, and what is secret
// appears nowhere.
func TestVariablesOfAnEnvironmentReachItsBuild(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir()+"/colours", map[string]string{
		"index.html": "<h1>unbuilt</h1>",
		"tenfold.yaml": `app: colours
frontends:
  web:
    path: .
    build: {command: "echo using $TOKEN && mkdir -p out && echo colour $COLOUR size $SIZE > out/index.html", output: out}
    env: {COLOUR: red, SIZE: large}
    uses: [TOKEN]
secrets: [TOKEN]
environments:
  staging: {frontends: {web: {env: {COLOUR: blue}}}}
`})
	h.up(write(t, t.TempDir()+"/first", map[string]string{"index.html": "<h1>first</h1>"}))
	if _, err := h.client().SetSecret(t.Context(), "colours", "TOKEN", "s3cret-of-the-build"); err != nil {
		t.Fatal(err)
	}
	h.must(dir, "up", "--detach")
	out := h.must(dir, "up", "--detach", "--env", "staging")
	for host, want := range map[string]string{"colours.localhost": "colour red size large", "staging.colours.localhost": "colour blue size large"} {
		if _, text := h.get(host, "/"); !strings.Contains(text, want) {
			t.Errorf("%s says %s, want %s", host, text, want)
		}
	}
	logs := h.must(dir, "logs", "web")
	if strings.Contains(out+logs, "s3cret") || !strings.Contains(logs, "using ***") {
		t.Errorf("the build's log:\n%s", logs)
	}
}

// Sites to the letter of their frameworks' documentation, without a manifest: what the first page must
// say, and a file that is released beside what a server renders.
var frameworks = map[string]struct {
	files      map[string]string
	page, want string
	asset      string // a pattern whose first group is the path of an asset that the page names
	server     bool
}{
	"next": {map[string]string{
		"package.json":    `{"name":"next-site","version":"1.0.0","private":true,"scripts":{"dev":"next dev","build":"next build","start":"next start"},"dependencies":{"next":"15.5.4","react":"19.1.1","react-dom":"19.1.1"}}`,
		"next.config.mjs": "export default { output: 'standalone' }\n",
		"app/layout.js":   "export default function Layout({ children }) { return <html><body>{children}</body></html> }\n",
		"app/page.js":     "export default async function Page({ searchParams }) { return <h1>Next says {(await searchParams).q}</h1> }\n",
		"public/logo.svg": "<svg xmlns=\"http://www.w3.org/2000/svg\"/>\n",
	}, "/?q=seven", "Next says", `src="(/_next/static/chunks/[^"]+\.js)"`, true},
	"astro": {map[string]string{
		"package.json":          `{"name":"astro-site","version":"1.0.0","private":true,"type":"module","scripts":{"dev":"astro dev","build":"astro build","preview":"astro preview"},"dependencies":{"astro":"5.14.1"}}`,
		"astro.config.mjs":      "import { defineConfig } from 'astro/config'\nexport default defineConfig({ build: { inlineStylesheets: 'never' } })\n",
		"src/pages/index.astro": "---\nconst title = 'Astro says hello'\n---\n<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n<style>h1 { color: teal }</style>\n",
	}, "/", "Astro says hello", `href="(/_astro/[^"]+\.css)"`, false},
	"react-router": {map[string]string{
		"package.json":           `{"name":"router-site","private":true,"type":"module","scripts":{"build":"react-router build","start":"react-router-serve ./build/server/index.js"},"dependencies":{"@react-router/node":"7.9.3","@react-router/serve":"7.9.3","isbot":"5.1.31","react":"19.1.1","react-dom":"19.1.1","react-router":"7.9.3"},"devDependencies":{"@react-router/dev":"7.9.3","typescript":"5.9.3","vite":"7.1.7"}}`,
		"vite.config.ts":         "import { reactRouter } from '@react-router/dev/vite'\nexport default { plugins: [reactRouter()] }\n",
		"react-router.config.ts": "export default { ssr: true }\n",
		"app/root.tsx":           "import { Links, Meta, Outlet, Scripts } from 'react-router'\nexport default function App() { return <html><head><Meta/><Links/></head><body><Outlet/><Scripts/></body></html> }\n",
		"app/routes.ts":          "import { index } from '@react-router/dev/routes'\nexport default [index('home.tsx')]\n",
		"app/home.tsx":           "export function loader({ request }) { return { q: new URL(request.url).searchParams.get('q') } }\nexport default function Home({ loaderData }) { return <h1>Router says {loaderData.q}</h1> }\n",
	}, "/?q=seven", "Router says", `href="(/assets/[^"]+\.js)"`, true},
}

func TestFrameworksDeployWithoutAManifest(t *testing.T) {
	t.Parallel()
	for name, site := range frameworks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			out := h.up(write(t, t.TempDir()+"/"+name, site.files))
			if !strings.Contains(out, "no tenfold.yaml: inferred") {
				t.Errorf("nothing is said of inferring:\n%s", out)
			}
			host := hostIn(out)
			status, page := h.get(host, site.page)
			if status != 200 || !strings.Contains(page, site.want) || site.server && !strings.Contains(page, "seven") {
				t.Fatalf("%d %s", status, page)
			}
			m := regexp.MustCompile(site.asset).FindStringSubmatch(page)
			if m == nil {
				t.Fatalf("the page names no asset: %s", page)
			}
			if status, text := h.get(host, m[1]); status != 200 || text == "" {
				t.Errorf("%s: %d", m[1], status)
			}
			if status, _ := h.get(host, "/no/such/page"); status != 404 {
				t.Errorf("a page that is not there: %d", status)
			}
			if tasks := regexp.MustCompile(`, 1 task`).MatchString(h.must("", "status", "--app", strings.TrimSuffix(host, ".localhost"))); tasks != site.server {
				t.Errorf("it has a server: %v, want %v", tasks, site.server)
			}
		})
	}
}
