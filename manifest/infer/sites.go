package infer

import (
	"encoding/json"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"tenfold"
	"tenfold/internal/lazy"
)

// renderers are frameworks that decide what a project is even where it has a server of its own, too.
var renderers = []string{"next", "nuxt", "astro", "@sveltejs/kit", "@angular/core", "@react-router/dev", "@remix-run/dev"}

// site is one project of a framework that makes pages, being read.
type site struct {
	project
	f   *found
	j   packageJSON
	run string // how scripts are run: "npm"
}

// renders recognises frameworks that make pages; false means: no such framework.
func (p project) renders(f *found, j packageJSON, run string) bool {
	s := site{p, f, j, run}
	switch {
	case j.has("next"):
		s.next()
	case j.has("nuxt"):
		s.nuxt()
	case j.has("astro"):
		s.astro()
	case j.has("@sveltejs/kit"):
		s.svelte()
	case j.any("@react-router/dev", "@remix-run/dev", "@remix-run/serve", "@react-router/serve") != "":
		s.router()
	case j.has("@angular/core"):
		s.angular()
	case j.any("nitropack", "nitro", "vinxi", "@solidjs/start", "@tanstack/react-start") != "":
		s.nitro(s.j.any("nitropack", "nitro", "vinxi", "@solidjs/start", "@tanstack/react-start"))
	case j.has("react-scripts"):
		s.files("create-react-app", "build", "index.html", "")
	case j.has("gatsby"):
		s.files("gatsby", "public", "", "npx gatsby build")
	case j.has("@docusaurus/core"):
		s.files("docusaurus", "build", "", "npx docusaurus build")
	case j.has("@11ty/eleventy"):
		s.files("eleventy", s.setting(outputDir, "_site", ".eleventy.js", "eleventy.config.js", "eleventy.config.mjs", "eleventy.config.cjs", "eleventy.config.ts"), "", "npx @11ty/eleventy")
	case j.has("@vue/cli-service"):
		s.files("vue-cli", "dist", "index.html", "npx vue-cli-service build")
	case j.has("vite"):
		s.vite()
	case j.has("parcel"):
		s.files("parcel", "dist", "index.html", "npx parcel build")
	default:
		return false
	}
	return true
}

// files says that the build makes files and nothing else. build is how, if no script says.
func (s site) files(name, output, fallback, build string) {
	s.f.framework, s.f.frontend, s.f.output, s.f.fallback = name, true, output, fallback
	if s.f.build == "" {
		s.f.build = build
	}
}

// serves says that the build makes a server and the files beside it.
func (s site) serves(name, command, private, build string, assets ...tenfold.Asset) {
	s.f.framework, s.f.frontend, s.f.server, s.f.private, s.f.assets = name, true, command, private, assets
	if s.f.build == "" {
		s.f.build = build
	}
}

func (s site) config(names ...string) string { return s.text(s.first(s.f.dir, names...)) }

// setting is the folder that the first group of re matches in a configuration file.
func (s site) setting(re *lazy.Expr, deflt string, names ...string) string {
	return folder(re, s.config(names...), deflt)
}

// folder is the one that the first group of re matches in a text.
func folder(re *lazy.Expr, text, deflt string) string {
	if m := re.FindStringSubmatch(text); m != nil {
		return within(m[1], deflt)
	}
	return deflt
}

// within is a folder that a configuration names, unless it lies outside the project: then what is usual.
func within(dir, deflt string) string {
	if clean := path.Clean(dir); dir != "" && fs.ValidPath(clean) {
		return clean
	}
	return deflt
}

// start is the project's own start script, unless it is what the framework's template says.
func (s site) start(usual ...string) (string, bool) {
	own := s.j.Scripts["start"]
	for _, u := range usual {
		if own == "" || strings.HasPrefix(own, u) || strings.HasPrefix(own, "npx "+u) {
			return "", false
		}
	}
	if s.run == "npm" {
		return "HOST=127.0.0.1 HOSTNAME=127.0.0.1 npm start", true
	}
	return "HOST=127.0.0.1 HOSTNAME=127.0.0.1 " + s.run + " run start", true
}

var (
	nextOutput     = lazy.Regexp(`\boutput\s*:\s*['"](export|standalone)['"]`)
	nextBase       = lazy.Regexp(`\bbasePath\s*:\s*['"]/([\w./-]+)['"]`)
	nextDist       = lazy.Regexp(`\bdistDir\s*:\s*['"]([\w./-]+)['"]`)
	outputDir      = lazy.Regexp(`\boutput\s*:\s*['"]([\w./-]+)['"]`)
	noSSR          = lazy.Regexp(`\bssr\s*:\s*false\b`)
	onDemand       = lazy.Regexp(`\boutput\s*:\s*['"](server|hybrid)['"]`)
	asked          = lazy.Regexp(`\bprerender\s*=\s*false\b|\bserver:defer\b`)
	middleware     = lazy.Regexp(`\bmode\s*:\s*['"]middleware['"]`)
	svelteOut      = lazy.Regexp(`\bout\s*:\s*['"]([\w./-]+)['"]`)
	sveltePages    = lazy.Regexp(`\bpages\s*:\s*['"]([\w./-]+)['"]`)
	svelteFallback = lazy.Regexp(`\bfallback\s*:\s*['"]([\w.-]+)['"]`)
	viteOut        = lazy.Regexp(`\boutDir\s*:\s*['"]([\w./-]+)['"]`)
	severalPages   = lazy.Regexp(`\bappType\s*:\s*['"]mpa['"]|(?s)\binput\s*:\s*[{\[][^}\]]*\.html[^}\]]*\.html`)
	buildDirectory = lazy.Regexp(`\bbuildDirectory\s*:\s*['"]([\w./-]+)['"]`)
)

func (s site) next() {
	config := []string{"next.config.js", "next.config.mjs", "next.config.ts", "next.config.cjs"}
	output := ""
	if m := nextOutput.FindStringSubmatch(s.config(config...)); m != nil {
		output = m[1]
	}
	if output == "export" || strings.Contains(s.j.Scripts["build"], "next export") {
		s.files("next", s.setting(nextDist, "out", config...), "", "npx next build")
		return
	}
	base, dist := s.setting(nextBase, "", config...), s.setting(nextDist, ".next", config...)
	command, own := s.start("next start")
	switch {
	case own:
	case output == "standalone":
		// Its folder has neither the public files nor, in a workspace, the same shape everywhere.
		at := path.Join(dist, "standalone")
		if s.above(s.f.dir) {
			at = path.Join(at, s.f.dir)
		}
		command = "HOSTNAME=127.0.0.1 node " + at + "/server.js"
		if s.dir(path.Join(s.f.dir, "public")) {
			command = `ln -sfn "$PWD/public" ` + at + "/public && " + command
		}
	default:
		command = "npx next start -H 127.0.0.1 -p $PORT"
	}
	s.serves("next", command, dist+"/server", "npx next build",
		tenfold.Asset{From: dist + "/static", To: path.Join(base, "_next/static")}, tenfold.Asset{From: "public", To: base})
}

func (s site) nuxt() {
	spa := noSSR.MatchString(s.config("nuxt.config.ts", "nuxt.config.js", "nuxt.config.mjs"))
	if strings.Contains(s.j.Scripts["build"], "generate") {
		fallback := ""
		if spa {
			fallback = "200.html"
		}
		s.files("nuxt", ".output/public", fallback, "")
		return
	}
	s.f.framework = "nuxt"
	s.nitro("nuxt")
	if s.j.Scripts["build"] == "" {
		s.f.build = "npx nuxt build"
	}
}

// nitro is the server that Nuxt and others build.
func (s site) nitro(name string) {
	s.serves(name, "NITRO_HOST=127.0.0.1 HOST=127.0.0.1 NITRO_PORT=$PORT node .output/server/index.mjs", ".output/server", "", tenfold.Asset{From: ".output/public"})
}

func (s site) astro() {
	c := s.config("astro.config.mjs", "astro.config.ts", "astro.config.js", "astro.config.mts", "astro.config.cjs")
	out := folder(viteOut, c, "dist")
	if !s.j.has("@astrojs/node") || !strings.Contains(c, "@astrojs/node") || !onDemand.MatchString(c) && !s.mentions("src", asked) {
		s.files("astro", out, "", "npx astro build")
		return
	}
	if middleware.MatchString(c) {
		s.f.warnings = append(s.f.warnings, path.Join(s.f.dir, "astro.config.mjs")+": with mode middleware "+out+"/server/entry.mjs starts nothing by itself: use mode: 'standalone', or name what starts it under server")
	}
	s.serves("astro", "HOST=127.0.0.1 node "+out+"/server/entry.mjs", out+"/server", "npx astro build", tenfold.Asset{From: out + "/client"})
}

// mentions looks through the sources below a folder of the project, a bounded number of them.
func (s site) mentions(folder string, re *lazy.Expr) bool {
	found, left := false, 2000
	_ = fs.WalkDir(s.project, path.Join(s.f.dir, folder), func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || left <= 0 || found:
			return fs.SkipAll
		case d.IsDir() && slices.Contains(skipped, d.Name()) && d.Name() != "docs":
			return fs.SkipDir
		case !d.IsDir() && slices.Contains([]string{".astro", ".ts", ".js", ".mjs", ".tsx", ".jsx", ".md", ".mdx"}, path.Ext(name)):
			left--
			found = re.MatchString(s.text(name))
		}
		return nil
	})
	return found
}

func (s site) svelte() {
	config := []string{"svelte.config.js", "svelte.config.ts"}
	switch {
	case s.j.has("@sveltejs/adapter-static"):
		fallback := ""
		if m := svelteFallback.FindStringSubmatch(s.config(config...)); m != nil {
			fallback = m[1]
		}
		s.files("sveltekit", s.setting(sveltePages, "build", config...), fallback, "npx vite build")
		return
	case !s.j.has("@sveltejs/adapter-node"):
		s.f.warnings = append(s.f.warnings, path.Join(s.f.dir, "svelte.config.js")+": use @sveltejs/adapter-node (a server) or @sveltejs/adapter-static (files)")
	}
	out := s.setting(svelteOut, "build", config...)
	// Without the headers it takes every form for one of another site: it would think that it is asked over HTTPS.
	s.serves("sveltekit", "HOST=127.0.0.1 PROTOCOL_HEADER=x-forwarded-proto HOST_HEADER=x-forwarded-host node "+out, out+"/server", "npx vite build",
		tenfold.Asset{From: out + "/client"}, tenfold.Asset{From: out + "/prerendered"})
}

// router is React Router with its framework, and Remix, which it was before.
func (s site) router() {
	name, serve, build := "react-router", "react-router-serve", "npx react-router build"
	config := s.config("react-router.config.ts", "react-router.config.js")
	if s.j.any("@react-router/dev", "@react-router/serve") == "" {
		name, serve, build, config = "remix", "remix-serve", "npx remix vite:build", s.config(viteConfigs...)
		if s.first(s.f.dir, viteConfigs...) == "" { // the compiler before Vite
			command, own := s.start(serve)
			if !own {
				command = "HOST=127.0.0.1 npx remix-serve ./build/index.js"
			}
			s.serves(name, command, "", "npx remix build", tenfold.Asset{From: "public"})
			return
		}
	}
	out := folder(buildDirectory, config, "build")
	if noSSR.MatchString(config) {
		fallback := "index.html"
		if strings.Contains(config, "prerender") {
			fallback = "__spa-fallback.html"
		}
		s.files(name, out+"/client", fallback, build)
		return
	}
	command, own := s.start(serve)
	if !own {
		command = "HOST=127.0.0.1 npx " + serve + " ./" + out + "/server/index.js"
	}
	s.serves(name, command, out+"/server", build, tenfold.Asset{From: out + "/client"})
}

// angularJSON is what of angular.json matters here.
type angularJSON struct {
	DefaultProject string `json:"defaultProject"`
	Projects       map[string]struct {
		ProjectType string `json:"projectType"`
		Architect   map[string]struct {
			Builder string `json:"builder"`
			Options struct {
				OutputPath json.RawMessage `json:"outputPath"`
				OutputMode string          `json:"outputMode"`
				SSR        json.RawMessage `json:"ssr"`
				Server     json.RawMessage `json:"server"`
			} `json:"options"`
		} `json:"architect"`
	} `json:"projects"`
}

func (s site) angular() {
	var a angularJSON
	project := kebab(s.j.Name[strings.LastIndexByte(s.j.Name, '/')+1:])
	out, browser, server := "dist/"+project, "browser", ""
	if json.Unmarshal([]byte(s.config("angular.json")), &a) == nil {
		for _, name := range slices.Sorted(maps.Keys(a.Projects)) {
			p := a.Projects[name]
			if p.ProjectType == "library" || a.DefaultProject != "" && name != a.DefaultProject {
				continue
			}
			b := p.Architect["build"]
			out = within("dist/"+name, out)
			if strings.HasSuffix(b.Builder, ":browser") {
				browser = ""
			}
			var parts struct {
				Base    string  `json:"base"`
				Browser *string `json:"browser"`
			}
			if text := ""; json.Unmarshal(b.Options.OutputPath, &text) == nil && text != "" {
				out = within(text, out)
			} else if json.Unmarshal(b.Options.OutputPath, &parts) == nil && parts.Base != "" {
				if out = within(parts.Base, out); parts.Browser != nil {
					browser = *parts.Browser
				}
			}
			if on := string(b.Options.SSR); on != "" && on != "false" && on != "null" && b.Options.OutputMode != "static" {
				server = path.Join(out, "server")
			}
			break
		}
	}
	files := within(path.Join(out, browser), path.Join(out, "browser"))
	if server == "" {
		s.files("angular", files, "index.html", "npx ng build")
		return
	}
	s.serves("angular", "HOST=127.0.0.1 node "+server+"/server.mjs", server, "npx ng build", tenfold.Asset{From: files})
}

func (s site) vite() {
	c := s.config(viteConfigs...)
	fallback := "index.html"
	if severalPages.MatchString(c) {
		fallback = ""
	}
	s.files("vite", s.setting(viteOut, "dist", viteConfigs...), fallback, "npx vite build")
}

// hugo is recognised by its configuration, beside which a package.json may bring tools for styles.
func (p project) hugo(f *found) bool {
	config := p.first(f.dir, "hugo.toml", "hugo.yaml", "hugo.yml", "hugo.json")
	if old := p.first(f.dir, "config.toml", "config.yaml"); config == "" && old != "" && p.dir(path.Join(f.dir, "content")) &&
		(p.dir(path.Join(f.dir, "layouts")) || p.dir(path.Join(f.dir, "themes")) || p.dir(path.Join(f.dir, "archetypes"))) {
		config = old
	}
	if config == "" {
		return false
	}
	f.language, f.framework, f.frontend, f.output, f.build = "hugo", "hugo", true, folder(hugoOut, p.text(config), "public"), "hugo --gc --minify"
	if j, ok := p.node(f.dir); ok {
		run := p.packages(f, j)
		f.language = "hugo"
		if b := j.Scripts["build"]; strings.Contains(b, "hugo") {
			f.build = run + " run build"
		}
	}
	return true
}

var hugoOut = lazy.Regexp(`(?im)^\s*"?publishDir"?\s*[:=]\s*['"]?([\w./-]+)`)
