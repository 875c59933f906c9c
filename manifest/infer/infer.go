// Package infer reads a project's own files and says what its manifest leaves out.
//
// Begin at Resolve, which completes an App that package manifest made, and Infer, which drafts a
// manifest for a project without one. It reads through an fs.FS and runs nothing: what it cannot
// see in a file it does not guess silently, but says so in a warning or an error with the line to
// write. detect.go and languages.go hold what is known of each language, one function each.
package infer

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"tenfold"
	"tenfold/internal/lazy"
)

// A Draft is a manifest for a project that has none.
type Draft struct {
	// Text is the manifest, each line with where it comes from as a comment.
	Text    string
	Origins []Origin
	// Warnings are what a person should look at, a sentence each.
	Warnings []string
	// Secrets are values that the project itself offers in its .env, by name.
	Secrets map[string]string
}

// entry is a thing of the draft with its name.
type entry struct {
	name string
	found
	routes, routesFrom string
	secrets            []string
}

// draft is what is collected before it is written.
type draft struct {
	p         project
	frontends []*entry
	services  []*entry
	secrets   map[string]string // name to origin
	out       *Draft
}

// Infer drafts a manifest from the project's files. folder is the name of the project's folder.
// The error is a *tenfold.Error when nothing that runs was found.
func Infer(fsys fs.FS, folder string) (*Draft, error) {
	d := &draft{p: read(fsys), secrets: map[string]string{}, out: &Draft{Secrets: map[string]string{}}}
	d.collect()
	if len(d.frontends)+len(d.services) == 0 && d.p.has("Dockerfile") {
		return contained(folder), nil
	}
	if len(d.frontends)+len(d.services) == 0 {
		return nil, tenfold.Errorf(tenfold.CodeNotFound, "nothing that Tenfold can run was found in %s (no package.json, go.mod, requirements.txt, Gemfile, composer.json, Procfile, Dockerfile or index.html)", folder).
			WithHint("run this in the project's folder, or write a tenfold.yaml with services: {api: {path: …, build: …, command: …}}")
	}
	d.route()
	for _, e := range slices.Concat(d.frontends, d.services) {
		d.out.Warnings = append(d.out.Warnings, e.warnings...)
		if !e.frontend || e.server != "" {
			d.variables(e)
		}
	}
	d.write(folder)
	return d.out, nil
}

// contained is the draft of a project of which only its Dockerfile is understood.
func contained(folder string) *Draft {
	name := kebab(folder)
	return &Draft{
		Text:     "app: " + name + strings.Repeat(" ", max(1, 44-len(name)-5)) + "# the folder's name\nservices:\n  web:\n    path: .\n    build: {dockerfile: Dockerfile}          # in a container: docs/containers.md\n    routes: [/*]\n",
		Warnings: []string{"Dockerfile: what it starts has to listen on 127.0.0.1:$PORT; look which setting of it says so"},
	}
}

// collect looks at the project's folder and those in it, and in apps, packages and services.
func (d *draft) collect() {
	dirs := []string{}
	for _, f := range d.p.folders(".") {
		dirs = append(dirs, f)
		if slices.Contains([]string{"apps", "packages", "services", "frontends", "projects"}, f) {
			dirs = append(dirs, d.p.folders(f)...)
		}
	}
	var below []found
	w, _ := d.p.workspace()
	for _, dir := range dirs {
		// A folder of a Go module is a package, not an entry, unless it is a module of its own.
		if !d.p.marked(dir) {
			continue
		}
		// A package that others are made with, and that starts no server known, is a library.
		if f, ok := d.p.detect(dir, ""); ok && !(f.framework == "node" && w.needed(dir)) {
			below = append(below, f)
		}
	}
	if f, ok := d.p.detect(".", ""); ok && (len(below) == 0 || f.database != "" || f.cache != "" || f.framework != "node" && f.framework != "static files" && f.framework != "python") && !d.p.orchestrates(len(below)) {
		d.add(f)
		if f.frontend {
			below = slices.DeleteFunc(below, func(b found) bool { return b.frontend })
		}
	}
	for _, f := range below {
		d.add(f)
	}
}

// orchestrates says that the root's package.json only starts what lies in the folders below.
func (p project) orchestrates(below int) bool {
	j, ok := p.node(".")
	return ok && below > 0 && (j.Workspaces != nil || p.has("pnpm-workspace.yaml") || j.any("concurrently", "turbo", "lerna", "nx", "npm-run-all") != "" && j.any(servers...) == "")
}

func (p project) marked(dir string) bool {
	return p.first(dir, "package.json", "go.mod", "requirements.txt", "pyproject.toml", "Pipfile", "manage.py", "Gemfile",
		"composer.json", "deno.json", "deno.jsonc", "index.html", "index.php", "Procfile") != ""
}

func (d *draft) add(f found) {
	list := &d.services
	usual, common := "api", []string{".", "server", "backend", "api", "src"}
	if f.frontend {
		list = &d.frontends
		usual, common = "web", []string{".", "client", "frontend", "web", "ui", "site", "www", "app", "webapp"}
	}
	name := usual
	if !slices.Contains(common, path.Base(f.dir)) {
		name = kebab(path.Base(f.dir))
	}
	for d.taken(name) {
		if alt := kebab(path.Base(f.dir)) + "-" + usual; !d.taken(alt) {
			name = alt
			break
		}
		name += "-2"
	}
	*list = append(*list, &entry{name: name, found: f})
}

func (d *draft) taken(name string) bool {
	return name == "db" || name == "cache" || slices.ContainsFunc(slices.Concat(d.frontends, d.services), func(e *entry) bool { return e.name == name })
}

// mainFirst orders names of sites.
func mainFirst(name string) int {
	if i := slices.Index([]string{"web", "www", "site", "app", "client", "frontend"}, name); i >= 0 {
		return i
	}
	return 100
}

// route gives each entry its URLs.
func (d *draft) route() {
	// The one that is called so is the main one.
	slices.SortStableFunc(d.frontends, func(a, b *entry) int { return mainFirst(a.name) - mainFirst(b.name) })
	for i, e := range d.frontends {
		if len(d.frontends) > 1 {
			e.routes, e.routesFrom = "/*", "first site"
			if i > 0 {
				e.routes, e.routesFrom = "/"+e.name+"/*", "its name"
				d.out.Warnings = append(d.out.Warnings, "frontend "+e.name+" is put under /"+e.name+"/*: its build must know that base path")
			}
		}
	}
	for i, e := range d.services {
		switch {
		case len(d.frontends) == 0 && len(d.services) == 1:
		case len(d.frontends) == 0 && i == 0:
			e.routes, e.routesFrom = "/*", "first service"
		case i == 0:
			e.routes, e.routesFrom = "/api/*", "a guess: the site has /*"
			for _, f := range d.frontends {
				if routes, from := d.p.proxied(f.dir); len(routes) > 0 {
					e.routes, e.routesFrom = strings.Join(routes, ", "), from
				}
			}
		default:
			e.routes, e.routesFrom = "/"+e.name+"/*", "its name"
		}
	}
}

var (
	secretName = lazy.Regexp(`(^|_)(KEY|SECRET|TOKEN|PASSWORD|PASS|CREDENTIALS|DSN|APIKEY)(_|$)`)
	injected   = lazy.Regexp(`^(DATABASE_(READ_)?URL|REDIS_(READ_)?URL|PG[A-Z]+|PORT|HOST|APP_URL|APP_ENV|NODE_ENV|(DB|POSTGRES|REDIS)_[A-Z_]+)$`)
	made       = lazy.Regexp(`^(.*_)?(JWT|SESSION|COOKIE|APP|AUTH|NEXTAUTH)_SECRET(_KEY)?$|^(DJANGO_)?SECRET_KEY(_BASE)?$`)
	variable   = lazy.Regexp(`^[A-Z][A-Z0-9_]*$`)
)

// variables reads .env.example: what looks secret becomes a secret, valued from .env.
func (d *draft) variables(e *entry) {
	file := d.p.first(e.dir, ".env.example", ".env.sample", ".env.template", "env.example")
	if file == "" {
		return
	}
	values := map[string]string{}
	for _, kv := range pairs(d.p.text(path.Join(e.dir, ".env")), "=") {
		values[kv[0]] = kv[1]
	}
	var plain []string
	for _, kv := range pairs(d.p.text(file), "=") {
		name := kv[0]
		switch {
		case !variable.MatchString(name) || injected.MatchString(name) || slices.Contains(e.secrets, name):
		case !secretName.MatchString(name):
			plain = append(plain, name)
		default:
			e.secrets = append(e.secrets, name)
			d.secrets[name] = file
			if v := values[name]; v != "" {
				d.secrets[name] = file + "; value taken from " + path.Join(e.dir, ".env")
				d.out.Secrets[name] = v
			}
		}
	}
	if len(plain) > 0 {
		d.out.Warnings = append(d.out.Warnings, file+" also names "+strings.Join(plain, ", ")+": add them to env of service "+e.name+" if the app needs them")
	}
}

// column is where comments begin.
const column = 43

func (d *draft) line(text, origin string) {
	if origin != "" {
		text = fmt.Sprintf("%-*s # %s", column-1, text, strings.ReplaceAll(origin, "\n", " "))
	}
	d.out.Text += text + "\n"
}

func (d *draft) write(folder string) {
	name, from := kebab(folder), "the folder's name"
	if j, _ := d.p.node("."); j.Name != "" {
		name, from = kebab(j.Name[strings.LastIndexByte(j.Name, '/')+1:]), "package.json"
	}
	d.line("app: "+name, from)
	d.sites()
	if len(d.services) > 0 {
		d.line("services:", "")
		for _, e := range d.services {
			d.service(e)
		}
	}
	d.stores()
	d.declareSecrets()
}

func (d *draft) sites() {
	if len(d.frontends) == 0 {
		return
	}
	if e := d.frontends[0]; len(d.frontends) == 1 && len(d.serverKeys(e)) == 0 {
		text := "frontends: [" + e.name + "]"
		if e.dir != e.name {
			text = "frontends: {" + e.name + ": {path: " + quote(e.dir) + "}}"
		}
		d.line(text, d.origin(e))
		return
	}
	d.line("frontends:", "")
	for _, e := range d.frontends {
		keys := d.serverKeys(e)
		if len(keys) == 0 {
			d.line("  "+e.name+": {path: "+quote(e.dir)+", routes: ["+e.routes+"]}", d.origin(e))
			continue
		}
		d.line("  "+e.name+":", "")
		d.line("    path: "+quote(e.dir), d.origin(e))
		if e.routes != "" {
			d.line("    routes: ["+e.routes+"]", e.routesFrom)
		}
		d.line("    server: {"+strings.Join(keys, ", ")+"}", e.found.origin)
	}
}

func (d *draft) origin(e *entry) string {
	o := Origin{tenfold.Name(e.name), describe(e.framework, e.command, strings.TrimSpace(e.language+" "+e.version)), e.dir}
	if e.frontend {
		o.What = describe(e.framework, e.build, e.output)
		if e.server != "" {
			o.What = describe(e.framework, e.build, "server: "+e.server)
		}
	}
	if e.dir == "." {
		o.From = ""
	}
	d.out.Origins = append(d.out.Origins, o)
	return o.String()
}

func (d *draft) service(e *entry) {
	d.line("  "+e.name+":", "")
	d.line("    path: "+quote(e.dir), d.origin(e))
	if e.command == "" {
		d.out.Warnings = append(d.out.Warnings, "service "+e.name+" needs a command: how "+e.dir+" is started is not known")
	}
	if e.routes != "" {
		d.line("    routes: ["+e.routes+"]", e.routesFrom)
	}
	if e.migrate != "" {
		d.line("    migrate: "+quote(e.migrate), e.found.origin)
	}
	if uses := e.uses(); len(uses) > 0 {
		d.line("    uses: ["+strings.Join(uses, ", ")+"]", "")
	}
}

// serverKeys is what must be said of the server of a frontend.
func (d *draft) serverKeys(e *entry) (keys []string) {
	if e.server == "" {
		return nil
	}
	if e.migrate != "" {
		keys = append(keys, "migrate: "+quoteInline(e.migrate))
	}
	if uses := e.uses(); len(uses) > 0 {
		keys = append(keys, "uses: ["+strings.Join(uses, ", ")+"]")
	}
	return keys
}

// quoteInline is quote for a text within braces, where a comma ends it.
func quoteInline(s string) string {
	if strings.Contains(s, ",") && s == quote(s) {
		return "'" + s + "'"
	}
	return quote(s)
}

func (e *entry) uses() (uses []string) {
	if e.database != "" {
		uses = append(uses, "db")
	}
	if e.cache != "" {
		uses = append(uses, "cache")
	}
	return append(uses, e.secrets...)
}

func (d *draft) stores() {
	all := slices.Concat(d.services, slices.DeleteFunc(slices.Clone(d.frontends), func(e *entry) bool { return e.server == "" }))
	for _, e := range all {
		if e.database != "" {
			d.line("databases: [db]", e.database)
			break
		}
	}
	cache, queue := "", ""
	for _, e := range all {
		if cache == "" {
			cache = e.cache
		}
		if queue == "" {
			queue = e.queue
		}
	}
	switch {
	case cache != "" && queue != "":
		d.line("caches: {cache: {evict: noeviction, persist: true}}", cache+"; jobs of "+queue+" must not be evicted")
	case cache != "":
		d.line("caches: [cache]", cache)
	}
}

func (d *draft) declareSecrets() {
	names := slices.Sorted(maps.Keys(d.secrets))
	if len(names) == 0 {
		return
	}
	d.line("secrets:", "")
	for _, n := range names {
		text := "  " + n + ":"
		switch {
		case d.out.Secrets[n] == "" && made.MatchString(n):
			text += " {generate: 64}"
			d.line(text, d.secrets[n]+"; made once")
		case d.out.Secrets[n] == "":
			d.line(text, d.secrets[n]+"; tenfold secrets set "+n)
		default:
			d.line(text, d.secrets[n])
		}
	}
}

var plainText = lazy.Regexp(`^[A-Za-z0-9./_][A-Za-z0-9 ./_=,-]*$`)

// quote writes a text so that YAML reads it back.
func quote(s string) string {
	if plainText.MatchString(s) && !slices.Contains([]string{"true", "false", "null", "~", "yes", "no"}, strings.ToLower(s)) && !strings.HasSuffix(s, " ") {
		if _, err := strconv.ParseFloat(s, 64); err != nil {
			return s
		}
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
}

func itoa(i int) string { return strconv.Itoa(i) }

// kebab makes a name of a folder's.
func kebab(s string) string {
	s = strings.Trim(notKebab.ReplaceAllString(strings.ToLower(s), "-"), "-")
	if s == "" || s[0] >= '0' && s[0] <= '9' {
		s = strings.Trim("app-"+s, "-")
	}
	return strings.Trim(s[:min(len(s), 30)], "-")
}

var notKebab = lazy.Regexp(`[^a-z0-9]+`)
