package infer

import (
	"path/filepath"
	"testing"
	"testing/fstest"

	"tenfold/manifest"
)

// FuzzInfer feeds the files that others wrote: whatever they hold, a draft comes out that parses, or an
// error, in bounded time, and nothing that a build is to yield lies outside the project.
func FuzzInfer(f *testing.F) {
	f.Add(`{"name":"a","workspaces":["apps/*","!apps/x"]}`, `packages: ["packages/**"]`, `{"name":"b","dependencies":{"a":"*","next":"15"},"scripts":{"build":"next build"}}`, "export default { output: 'standalone', basePath: '/x' }")
	f.Add(`{"dependencies":{"@angular/core":"20"}}`, "", "{}", `{"projects":{"a":{"architect":{"build":{"options":{"outputPath":{"base":"../x"},"ssr":true}}}}}}`)
	f.Add(`{"workspaces":{"packages":["**/**/**/**/**/**/**/**/**/a"]}}`, "packages: [", `{"name":"a","dependencies":{"a":"*"}}`, "publishDir = '../../etc'")
	f.Fuzz(func(t *testing.T, root, pnpm, inner, config string) {
		fsys := fstest.MapFS{}
		for name, text := range map[string]string{
			"package.json": root, "pnpm-workspace.yaml": pnpm, "apps/web/package.json": inner, "packages/a/b/package.json": inner, "packages/c/package.json": inner,
			"next.config.mjs": config, "apps/web/next.config.js": config, "angular.json": config, "apps/web/angular.json": config, "svelte.config.js": config,
			"astro.config.mjs": config, "react-router.config.ts": config, "vite.config.ts": config, "site/hugo.toml": config, "turbo.json": config,
		} {
			fsys[name] = &fstest.MapFile{Data: []byte(text)}
		}
		d, err := Infer(fsys, "folder")
		if err != nil {
			return
		}
		m, err := manifest.Parse("tenfold.yaml", []byte(d.Text))
		if err != nil {
			t.Fatalf("the draft does not parse: %v\n%s", err, d.Text)
		}
		app, err := m.App("production")
		if err != nil {
			return
		}
		_, _ = Resolve(fsys, &app)
		for _, w := range app.Frontends {
			dirs := []string{w.Build.Output, w.Build.Private}
			for _, a := range w.Build.Assets {
				dirs = append(dirs, a.From, a.To)
			}
			for _, d := range dirs {
				if d != "" && !filepath.IsLocal(d) {
					t.Fatalf("%q lies outside the project: %+v", d, w.Build)
				}
			}
		}
	})
}

func TestPatternsOfWorkspaces(t *testing.T) {
	for _, c := range []struct {
		pattern, dir string
		want         bool
	}{
		{"apps/*", "apps/web", true},
		{"./apps/*", "apps/web", true},
		{"apps/*", "apps/web/sub", false},
		{"apps", "apps", true},
		{"packages/**", "packages/a/b", true},
		{"packages/**", "packages", false},
		{"**/test/**", "packages/a/test/b", true},
		{"**", "x", true},
		{"[", "x", false},
		{"a/**/**/**/**/**/**/**/**/**/**/**/**/**/z", "a/b/c/d/e/z", true},
		{"1/2/3/4/5/6/7/8/9/10/11/12/13", "1/2/3/4/5/6/7/8/9/10/11/12/13", false},
	} {
		if got := matches(c.pattern, c.dir); got != c.want {
			t.Errorf("%q and %q: %v", c.pattern, c.dir, got)
		}
	}
}
