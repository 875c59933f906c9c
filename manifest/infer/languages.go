package infer

import (
	"path"
	"regexp"
	"strings"

	"tenfold/internal/lazy"
)

func (p project) deno(f *found) bool {
	f.language, f.framework = "deno", "deno"
	c := p.text(p.first(f.dir, "deno.json", "deno.jsonc"))
	switch main := p.first(f.dir, "main.ts", "server.ts", "mod.ts", "main.js"); {
	case strings.Contains(c, `"start"`):
		f.command = "deno task start"
	case main != "":
		f.command = "deno run --allow-net --allow-env --allow-read " + path.Base(main)
	default:
		return false
	}
	return true
}

// golang finds the program: the folder itself, cmd/<the entry's name>, or the only one below cmd.
func (p project) golang(f *found, name string) bool {
	mod := p.text(path.Join(f.dir, "go.mod"))
	if mod == "" {
		mod = p.text("go.mod")
	}
	f.language, f.framework = "go", "go"
	if m := goVersion.FindStringSubmatch(mod); m != nil {
		f.version = m[1]
	}
	target := ""
	programs := p.programs(f.dir)
	switch {
	case p.goMain(path.Join(f.dir, "cmd", name)) && name != "":
		target = "./cmd/" + name
	case p.goMain(f.dir):
		target = "."
	case len(programs) == 1:
		target = "./" + programs[0]
	case len(programs) > 1:
		for _, prefer := range []string{"cmd/server", "cmd/api", "cmd/web", "cmd/app"} {
			if p.goMain(path.Join(f.dir, prefer)) && target == "" {
				target = "./" + prefer
			}
		}
		if target == "" {
			target = "./" + programs[0]
		}
		f.warnings = append(f.warnings, path.Join(f.dir, "cmd")+": several programs, "+target+" was chosen: write build: and command: for another")
	default:
		return false
	}
	f.build, f.command = "go build -o bin/app "+target, "./bin/app"
	file := path.Join(f.dir, "go.mod")
	for _, d := range []string{"github.com/jackc/pgx", "github.com/lib/pq", "gorm.io/driver/postgres"} {
		if f.database == "" && strings.Contains(mod, d) {
			f.database = file + ": " + strings.TrimPrefix(d, "github.com/")
		}
	}
	for _, d := range []string{"github.com/redis/go-redis", "github.com/go-redis/redis", "github.com/gomodule/redigo", "github.com/hibiken/asynq"} {
		if f.cache == "" && strings.Contains(mod, d) {
			f.cache = file + ": " + strings.TrimPrefix(d, "github.com/")
		}
	}
	if strings.Contains(mod, "github.com/hibiken/asynq") {
		f.queue = "asynq"
	}
	return true
}

// programs are the folders below cmd with a main package, relative to dir.
func (p project) programs(dir string) []string {
	var out []string
	for _, d := range p.folders(path.Join(dir, "cmd")) {
		if p.goMain(d) {
			out = append(out, "cmd/"+path.Base(d))
		}
	}
	return out
}

var (
	pyApp     = lazy.Regexp(`(?m)^(\w+)\s*(?::\s*\w+\s*)?=\s*(Flask|FastAPI|Starlette)\(`)
	factory   = lazy.Regexp(`(?m)^def create_app\(`)
	rubyIs    = lazy.Regexp(`(?m)^ruby ["']([0-9]+\.[0-9]+)`)
	djangoApp = lazy.Regexp(`DJANGO_SETTINGS_MODULE["'],\s*["']([\w.]+)\.settings`)
)

func (p project) python(f *found) bool {
	file := p.first(f.dir, "requirements.txt", "pyproject.toml", "Pipfile", "manage.py")
	f.language = "python"
	f.version = number.FindString(p.text(p.first(f.dir, ".python-version", "runtime.txt")))
	deps := strings.ToLower(p.text(p.first(f.dir, "requirements.txt")) + "\n" + p.text(p.first(f.dir, "pyproject.toml")) + "\n" + p.text(p.first(f.dir, "Pipfile")))
	const venv = "python3 -m venv .venv"
	switch {
	case p.has(path.Join(f.dir, "requirements.txt")):
		f.install = venv + " && .venv/bin/pip install -r requirements.txt"
	case p.has(path.Join(f.dir, "pyproject.toml")):
		f.install = venv + " && .venv/bin/pip install ."
	case p.has(path.Join(f.dir, "Pipfile")):
		f.install = venv + " && .venv/bin/pip install pipenv && VIRTUAL_ENV=$PWD/.venv .venv/bin/pipenv install --deploy"
	default:
		f.install = venv
	}
	needs := func(names ...string) string {
		for _, n := range names {
			if regexp.MustCompile(`(?m)(^|["'\s])` + regexp.QuoteMeta(n) + `($|[^a-z0-9-])`).MatchString(deps) {
				return n
			}
		}
		return ""
	}
	if d := needs("psycopg", "psycopg2", "psycopg2-binary", "asyncpg", "psycopg-binary"); d != "" {
		f.database = file + ": " + d
	}
	if d := needs("redis", "django-redis", "rq", "arq"); d != "" {
		f.cache = file + ": " + d
	}
	f.queue = needs("celery", "rq", "arq")
	if f.cache == "" {
		f.queue = ""
	}
	gunicorn := needs("gunicorn") != ""
	module, app := p.pyModule(f.dir)
	bind := "--bind 127.0.0.1:$PORT"
	switch {
	case p.has(path.Join(f.dir, "manage.py")):
		f.framework = "django"
		f.command = ".venv/bin/python manage.py runserver --noreload 127.0.0.1:$PORT"
		if m := djangoApp.FindStringSubmatch(p.text(path.Join(f.dir, "manage.py"))); gunicorn && m != nil {
			f.command = ".venv/bin/gunicorn " + bind + " " + m[1] + ".wsgi"
		}
	case needs("fastapi", "starlette") != "" && module != "":
		f.framework = "fastapi"
		f.command = ".venv/bin/python -m uvicorn " + module + ":" + app + " --host 127.0.0.1 --port $PORT"
	case needs("flask") != "" && module != "":
		f.framework = "flask"
		f.command = ".venv/bin/flask --app " + module + " run --host 127.0.0.1 --port $PORT"
		if gunicorn {
			f.command = ".venv/bin/gunicorn " + bind + " " + module + ":" + app
		}
	default:
		f.framework = "python"
		main := p.first(f.dir, "main.py", "app.py", "server.py")
		if main == "" {
			return p.has(path.Join(f.dir, "Procfile"))
		}
		f.command = ".venv/bin/python " + path.Base(main)
	}
	return true
}

// pyModule finds the module that makes the application object, and the object's name.
func (p project) pyModule(dir string) (module, app string) {
	for _, n := range []string{"app", "main", "wsgi", "server", "application", "app/main", "app/__init__", "src/main", "src/app"} {
		s := p.text(path.Join(dir, n+".py"))
		m := strings.ReplaceAll(strings.TrimSuffix(n, "/__init__"), "/", ".")
		if v := pyApp.FindStringSubmatch(s); v != nil {
			return m, v[1]
		}
		if factory.MatchString(s) {
			return m, "'create_app()'"
		}
	}
	return "", ""
}

func (p project) ruby(f *found) bool {
	gems := p.text(path.Join(f.dir, "Gemfile"))
	f.language, f.framework = "ruby", "ruby"
	if m := rubyIs.FindStringSubmatch(gems); m != nil {
		f.version = m[1]
	} else {
		f.version = number.FindString(p.text(path.Join(f.dir, ".ruby-version")))
	}
	f.install = "bundle config set --local path vendor/bundle && bundle install"
	gem := func(n string) bool {
		return strings.Contains(gems, `gem "`+n+`"`) || strings.Contains(gems, `gem '`+n+`'`)
	}
	file := path.Join(f.dir, "Gemfile")
	if gem("pg") {
		f.database = file + ": pg"
	}
	for _, n := range []string{"redis", "sidekiq", "resque"} {
		if gem(n) && f.cache == "" {
			f.cache = file + ": " + n
		}
	}
	for _, n := range []string{"sidekiq", "resque"} {
		if gem(n) {
			f.queue = n
		}
	}
	switch {
	case gem("rails"):
		f.framework = "rails"
		f.command = "bundle exec rails server -b 127.0.0.1 -p $PORT"
		if p.dir(path.Join(f.dir, "app/assets")) {
			f.build = "SECRET_KEY_BASE_DUMMY=1 bundle exec rails assets:precompile"
		}
	case p.has(path.Join(f.dir, "config.ru")):
		f.framework = "rack"
		f.command = "bundle exec rackup -o 127.0.0.1 -p $PORT"
	case p.first(f.dir, "app.rb", "main.rb", "server.rb") != "":
		f.command = "bundle exec ruby " + path.Base(p.first(f.dir, "app.rb", "main.rb", "server.rb"))
	default:
		return false
	}
	return true
}

func (p project) php(f *found) bool {
	f.language, f.framework = "php", "php"
	if p.has(path.Join(f.dir, "composer.json")) {
		f.install = "composer install --no-dev --no-interaction"
		f.version = number.FindString(phpNeeds.FindString(p.text(path.Join(f.dir, "composer.json"))))
	}
	root := "."
	switch {
	case p.has(path.Join(f.dir, "public/index.php")):
		root = "public"
	case !p.has(path.Join(f.dir, "index.php")):
		return false
	}
	if p.has(path.Join(f.dir, "artisan")) {
		f.framework = "laravel"
	}
	f.command = "php -S 127.0.0.1:$PORT -t " + root
	env := p.text(p.first(f.dir, ".env.example"))
	if strings.Contains(env, "DB_CONNECTION=pgsql") || strings.Contains(p.text(path.Join(f.dir, "composer.json")), "ext-pdo_pgsql") {
		f.database = path.Join(f.dir, "composer.json") + ": pgsql"
	}
	return true
}

var phpNeeds = lazy.Regexp(`"php"\s*:\s*"[^"]*"`)
