package infer

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"tenfold"
	"tenfold/internal/lazy"
)

// found is what a folder's files tell of one entry.
type found struct {
	dir       string
	language  string
	version   string
	framework string // "vite", "express": the word people know it by
	frontend  bool
	install   string
	build     string
	command   string
	test      string
	output    string
	// server starts what renders pages, of a frontend whose build yields a server; assets are where the
	// files of such a build lie, private where its server's code does.
	server   string
	assets   []tenfold.Asset
	private  string
	fallback string
	migrate  string
	origin   string // of migrate
	database string // where a need of PostgreSQL was seen, "" for none
	cache    string // where a need of Redis was seen
	queue    string // a job queue that lives in Redis
	warnings []string
}

// detect reads one folder; false means that no known marker is there.
func (p project) detect(dir, name string) (found, bool) {
	f := found{dir: dir}
	ok := false
	switch {
	case p.has(path.Join(dir, "deno.json")) || p.has(path.Join(dir, "deno.jsonc")):
		ok = p.deno(&f)
	case p.hugo(&f):
		ok = true
	case p.has(path.Join(dir, "package.json")):
		ok = p.nodejs(&f)
	case p.has(path.Join(dir, "go.mod")) || p.goMain(dir):
		ok = p.golang(&f, name)
	case p.first(dir, "requirements.txt", "pyproject.toml", "Pipfile", "manage.py") != "":
		ok = p.python(&f)
	case p.has(path.Join(dir, "Gemfile")):
		ok = p.ruby(&f)
	case p.first(dir, "composer.json", "index.php", "public/index.php") != "":
		ok = p.php(&f)
	case p.has(path.Join(dir, "Procfile")):
		// Nothing to install or build: what it says is run as it is.
		f.language, f.framework = "shell", "a Procfile"
		ok = slices.ContainsFunc(pairs(p.text(path.Join(dir, "Procfile")), ":"), func(l [2]string) bool { return l[0] == "web" })
	}
	if !ok {
		index := p.first(dir, "index.html", "public/index.html", "dist/index.html")
		if index == "" || f.command != "" {
			return f, false
		}
		f = found{dir: dir, language: "static", framework: "static files", frontend: true, output: "."}
		if d := strings.TrimPrefix(path.Dir(index), dir); dir != "." || d != "." {
			if f.output = strings.Trim(d, "/"); f.output == "" {
				f.output = "."
			}
		}
	}
	p.procfile(&f)
	p.migrations(&f)
	if p.has(path.Join(dir, "Dockerfile")) {
		f.warnings = append(f.warnings, path.Join(dir, "Dockerfile")+" is not used: "+f.language+" runs as a process; to run it in a container: build: {dockerfile: Dockerfile}")
	}
	return f, true
}

func (p project) procfile(f *found) {
	for _, l := range pairs(p.text(path.Join(f.dir, "Procfile")), ":") {
		if f.language == "python" {
			// A Procfile counts on an active virtual environment.
			l[1] = `PATH="$PWD/.venv/bin:$PATH" ` + l[1]
		}
		switch {
		case f.frontend && f.server == "":
		case l[0] == "web" && f.frontend:
			f.server = l[1]
		case l[0] == "web":
			f.command = l[1]
		case l[0] == "release":
			f.migrate, f.origin = l[1], path.Join(f.dir, "Procfile")
		default:
			f.warnings = append(f.warnings, path.Join(f.dir, "Procfile")+": "+l[0]+" is left out: write it as a service or a job if the app needs it: "+l[1])
		}
	}
}

// migrations looks for the tools that change a database's schema. The first wins.
func (p project) migrations(f *found) {
	if f.frontend && f.server == "" || f.migrate != "" {
		return
	}
	d := f.dir
	set := func(command, origin string) { f.migrate, f.origin = command, path.Join(d, origin) }
	j, _ := p.node(d)
	switch {
	case p.dir(path.Join(d, "prisma/migrations")):
		set("npx prisma migrate deploy", "prisma/migrations")
	case j.has("prisma") && p.has(path.Join(d, "prisma/schema.prisma")):
		set("npx prisma db push", "prisma/schema.prisma")
	case j.has("knex") && p.dir(path.Join(d, "migrations")):
		set("npx knex migrate:latest", "migrations")
	case j.has("sequelize-cli") && p.dir(path.Join(d, "migrations")):
		set("npx sequelize-cli db:migrate", "migrations")
	case j.has("drizzle-kit") && p.first(d, "drizzle.config.ts", "drizzle.config.js") != "":
		set("npx drizzle-kit migrate", path.Base(p.first(d, "drizzle.config.ts", "drizzle.config.js")))
	case p.has(path.Join(d, "manage.py")) && f.language == "python":
		set(".venv/bin/python manage.py migrate --noinput", "manage.py")
	case p.has(path.Join(d, "alembic.ini")) && f.language == "python":
		set(".venv/bin/alembic upgrade head", "alembic.ini")
	case f.framework == "rails":
		set("bundle exec rails db:migrate", "config/application.rb")
	case f.framework == "laravel":
		set("php artisan migrate --force", "artisan")
	case f.language == "go" && strings.Contains(p.text(path.Join(d, "go.mod")), "github.com/pressly/goose"):
		f.warnings = append(f.warnings, path.Join(d, "go.mod")+": goose is a library here: if the program does not migrate by itself, add migrate: to its service")
	case f.language == "go" && strings.Contains(p.text(path.Join(d, "go.mod")), "github.com/golang-migrate/migrate"):
		f.warnings = append(f.warnings, path.Join(d, "go.mod")+": golang-migrate is a library here: if the program does not migrate by itself, add migrate: to its service")
	}
}

var servers = []string{
	"express", "fastify", "@nestjs/core", "koa", "@hapi/hapi", "hono", "@hono/node-server", "restify", "polka", "h3",
	"@apollo/server", "@trpc/server", "socket.io", "ws", "@feathersjs/feathers", "@adonisjs/core", "micro",
}

func (p project) nodejs(f *found) bool {
	j, ok := p.node(f.dir)
	if !ok {
		return false
	}
	manifestFile := path.Join(f.dir, "package.json")
	f.language, f.version = "node", number.FindString(j.Engines["node"])
	if f.version == "" {
		f.version = number.FindString(p.text(path.Join(f.dir, ".nvmrc")))
	}
	f.version, _, _ = strings.Cut(f.version, ".")
	run := p.packages(f, j)
	if j.Scripts["build"] != "" {
		f.build = run + " run build"
	}
	if t := j.Scripts["test"]; t != "" && !strings.Contains(t, "no test specified") {
		f.test = run + " test"
		if strings.Contains(t, "react-scripts") {
			f.test = "CI=true " + f.test
		}
	}
	p.nodeNeeds(f, j, manifestFile)
	server := ""
	for _, s := range servers {
		if _, ok := j.Dependencies[s]; ok {
			server = s
			break
		}
	}
	defer func() {
		if w, is := p.workspace(); is {
			w.plan(f, run)
		}
	}()
	if (server == "" || j.any(renderers...) != "") && p.renders(f, j, run) {
		return true
	}
	f.framework = strings.TrimPrefix(strings.TrimSuffix(server, "/core"), "@")
	switch main := p.first(f.dir, "server.js", "server.mjs", "index.js", "app.js", "src/index.js", "src/server.js"); {
	case j.Scripts["start"] != "":
		f.command = run + " run start"
		if run == "npm" {
			f.command = "npm start"
		}
	case j.Scripts["start:prod"] != "":
		f.command = run + " run start:prod"
	case server == "" && main == "":
		return false
	case j.Main != "" && p.has(path.Join(f.dir, j.Main)):
		f.command = "node " + path.Clean(j.Main)
	case main != "":
		f.command = "node " + strings.TrimPrefix(strings.TrimPrefix(main, f.dir), "/")
	}
	if f.framework == "" {
		f.framework = "node"
	}
	if f.command == "" {
		f.warnings = append(f.warnings, manifestFile+": "+server+" without a start script: add one, or command: to the service")
	}
	return true
}

// packages chooses install by lock file, here or above, and says how scripts are run.
func (p project) packages(f *found, j packageJSON) (run string) {
	for _, d := range []string{f.dir, "."} {
		switch {
		case p.has(path.Join(d, "pnpm-lock.yaml")):
			f.install = "pnpm install --frozen-lockfile"
			return "pnpm"
		case p.has(path.Join(d, "yarn.lock")):
			f.install = "yarn install --frozen-lockfile"
			if p.has(path.Join(d, ".yarnrc.yml")) || strings.Contains(p.text(path.Join(d, "yarn.lock")), "__metadata:") {
				f.install = "yarn install --immutable"
			}
			return "yarn"
		case p.first(d, "bun.lock", "bun.lockb") != "":
			f.install, f.language = "bun install --frozen-lockfile", "bun"
			return "bun"
		case p.first(d, "package-lock.json", "npm-shrinkwrap.json") != "":
			f.install = "npm ci"
			return "npm"
		}
		if d != f.dir || !p.above(f.dir) {
			break
		}
	}
	// No lock file: what the project says, if it does.
	root := j
	if p.above(f.dir) {
		root, _ = p.node(".")
	}
	said, version, _ := strings.Cut(cmp.Or(j.PackageManager, root.PackageManager), "@")
	if said == "" && p.above(f.dir) && p.has("pnpm-workspace.yaml") {
		said = "pnpm"
	}
	if said == "pnpm" || said == "yarn" || said == "bun" {
		if f.install = said + " install"; said == "yarn" && version != "" && !strings.HasPrefix(version, "1.") {
			f.install += " --no-immutable" // which it would be on its own, in a build without a lock file
		}
		return said
	}
	if len(j.Dependencies)+len(j.DevDependencies)+len(root.Dependencies)+len(root.DevDependencies) > 0 {
		f.install = "npm install"
	}
	return "npm"
}

// above says that the root's package.json owns the folder as a workspace.
func (p project) above(dir string) bool {
	if dir == "." {
		return false
	}
	j, _ := p.node(".")
	return j.Workspaces != nil || p.has("pnpm-workspace.yaml")
}

func (p project) nodeNeeds(f *found, j packageJSON, file string) {
	if d := j.any("pg", "postgres", "pg-promise", "slonik", "@neondatabase/serverless"); d != "" {
		f.database = file + ": " + d
	}
	if schema := path.Join(f.dir, "prisma/schema.prisma"); p.has(schema) {
		switch provider := prismaProvider.FindStringSubmatch(p.text(schema)); {
		case provider == nil:
		case provider[1] == "postgresql" || provider[1] == "postgres":
			f.database = schema + ": postgresql"
		default:
			f.warnings = append(f.warnings, schema+": provider "+provider[1]+": Tenfold runs PostgreSQL only; set provider = \"postgresql\" or keep that database yourself")
		}
	}
	if d := j.any("ioredis", "redis", "bullmq", "bull", "bee-queue", "connect-redis"); d != "" {
		f.cache = file + ": " + d
	}
	if d := j.any("bullmq", "bull", "bee-queue"); d != "" {
		f.queue = d
	}
	if d := j.any("mysql", "mysql2", "mongodb", "mongoose"); d != "" {
		f.warnings = append(f.warnings, file+": "+d+": Tenfold runs PostgreSQL only; keep that database yourself and hand its address in as a secret")
	}
}

var prismaProvider = lazy.Regexp(`(?s)datasource\s+\w+\s*\{[^}]*?provider\s*=\s*"(\w+)"`)

var (
	viteConfigs = []string{"vite.config.ts", "vite.config.js", "vite.config.mjs", "vite.config.mts"}
	viteProxy   = lazy.Regexp(`(?s)proxy\s*:\s*\{(.*)`)
	proxyKey    = lazy.Regexp(`['"]\^?(/[\w/.-]*)['"]\s*:\s*[{'"]`)
)

// proxied are the routes that a development server hands to the service, with their origin.
func (p project) proxied(dir string) (routes []string, origin string) {
	if c := p.first(dir, viteConfigs...); c != "" {
		if m := viteProxy.FindStringSubmatch(p.text(c)); m != nil {
			for _, k := range proxyKey.FindAllStringSubmatch(m[1], 16) {
				if r := strings.TrimSuffix(k[1], "/") + "/*"; !slices.Contains(routes, r) && r != "/*" {
					routes = append(routes, r)
				}
			}
			if len(routes) > 0 {
				return routes, c + ": server.proxy"
			}
		}
	}
	if j, _ := p.node(dir); j.Proxy != nil {
		return []string{"/api/*"}, path.Join(dir, "package.json") + ": proxy; the path is a guess"
	}
	return nil, ""
}
