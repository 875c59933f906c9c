package manifest

import (
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"tenfold"
)

// builder turns a tree into an App and reports what does not fit together.
type builder struct {
	*reporter
	top    *tree
	app    tenfold.App
	kinds  map[string]tenfold.Kind
	at     map[string]*yaml.Node // where each name is declared
	routes map[tenfold.Route]routed
	deadOf map[tenfold.Name]tenfold.Name // by queue: where it gives what it gave up on
	// deadMade are queues that rules and functions give up to and that do not stand in the file.
	deadMade []tenfold.Name
	archives []archive // buckets that take backups
}

// routed says who has a route.
type routed struct {
	owner string
	line  int
}

// build makes the App of one environment. It always returns one; the reporter says if it is sound.
func build(r *reporter, top *tree, folder string, env tenfold.Environment) tenfold.App {
	b := &builder{reporter: r, top: top, kinds: map[string]tenfold.Kind{}, at: map[string]*yaml.Node{}, routes: map[tenfold.Route]routed{}, deadOf: map[tenfold.Name]tenfold.Name{}}
	b.app = tenfold.App{Name: tenfold.AppName(folder), Env: env}
	if t := top.get("app"); t != nil && !isNull(t.node) && !t.off {
		if s := t.node.Value; !kebabCase.MatchString(s) || len(s) > maxName {
			b.reporter.at(t.node, "write "+kebab(s), "app: names are kebab-case with at most %d characters, %q is not", maxName, cut(s, 60))
		}
		b.app.Name = tenfold.AppName(t.node.Value)
	}
	if t := top.get("domain"); t != nil && !t.off && !isNull(t.node) {
		b.app.Domains = readHosts(r, t.node, t.path)
	}
	b.declare()
	b.deadLetters()
	b.deadEvents()
	b.contact()
	b.databases() // first: what their users are given depends on them
	b.caches()
	b.frontends()
	b.services()
	b.functions()
	b.canWake()
	b.pins()
	b.jobs()
	b.queues()
	b.tables()
	b.events()
	b.buckets()
	b.keptBackups()
	b.series()
	b.sources()
	b.rings()
	b.secrets()
	b.rules()
	b.cycles()
	if len(b.app.Frontends)+len(b.app.Services)+len(b.app.Functions)+len(b.app.Databases)+len(b.app.Caches)+len(b.app.Queues)+len(b.app.Tables)+len(b.app.Events)+len(b.app.Buckets)+len(b.app.Series) == 0 && !r.failed() {
		r.at(top.node, "write at least \"services: [api]\" or \"frontends: [web]\"", "the app has no frontend, service, function or store of data")
	}
	return b.app
}

// each calls f for the entries of a section that are not left out, in the order of the file.
func (b *builder) each(section string, f func(tenfold.Name, *tree)) {
	t := b.top.get(section)
	if t == nil || t.off {
		return
	}
	for _, name := range t.order {
		if e := t.fields[name]; !e.off {
			f(tenfold.Name(name), e)
		}
	}
}

var sections = []struct {
	name string
	kind tenfold.Kind
}{
	{"frontends", tenfold.KindFrontend},
	{"services", tenfold.KindService},
	{"functions", tenfold.KindFunction},
	{"jobs", tenfold.KindJob},
	{"databases", tenfold.KindDatabase},
	{"caches", tenfold.KindCache},
	{"queues", tenfold.KindQueue},
	{"tables", tenfold.KindTable},
	{"events", tenfold.KindBus},
	{"buckets", tenfold.KindBucket},
	{"series", tenfold.KindSeries},
	{"secrets", tenfold.KindSecret},
}

// declare enters all names in the one namespace.
func (b *builder) declare() {
	for _, s := range sections {
		b.each(s.name, func(n tenfold.Name, t *tree) {
			if k, taken := b.kinds[string(n)]; taken {
				suffix := string(s.kind)
				if s.kind == tenfold.KindDatabase {
					suffix = "db"
				}
				b.reporter.at(t.place(), "call it "+string(n)+"-"+suffix,
					"%s: a %s is called %q already (line %d); names are unique across kinds", t.path, k, n, b.at[string(n)].Line)
				return
			}
			b.kinds[string(n)], b.at[string(n)] = s.kind, t.place()
		})
	}
}

// value is the field when it says something: present, not empty, not false.
func value(t *tree, name string) (*tree, bool) {
	f := t.get(name)
	if f == nil || f.off || f.fields == nil && isNull(f.node) {
		return nil, false
	}
	return f, true
}

func (b *builder) duration(t *tree, name string, deflt time.Duration) time.Duration {
	if f, ok := value(t, name); ok {
		if d, ok := readDuration(b.reporter, f.node, f.path); ok {
			return d
		}
	}
	return deflt
}

// span is a duration that may be none: 0s is what stands in the reference as the default of such a key, and says
// that nothing is waited, kept or delayed.
func (b *builder) span(t *tree, name string, deflt time.Duration) time.Duration {
	f, ok := value(t, name)
	if !ok {
		return deflt
	}
	if m := quantity.FindStringSubmatch(f.node.Value); m != nil && timeUnits[m[2]] > 0 && strings.Trim(m[1], "0.") == "" {
		return 0
	}
	return b.duration(t, name, deflt)
}

func (b *builder) size(t *tree, name string, deflt int64) int64 {
	if f, ok := value(t, name); ok {
		if n, ok := readSize(b.reporter, f.node, f.path); ok {
			return n
		}
	}
	return deflt
}

func (b *builder) count(t *tree, name string, deflt, low, high int) int {
	if f, ok := value(t, name); ok {
		if n, ok := readCount(b.reporter, f.node, f.path, low, high); ok {
			return n
		}
	}
	return deflt
}

func (b *builder) word(t *tree, name, deflt string, words []string) string {
	if f, ok := value(t, name); ok {
		if w, ok := readWord(b.reporter, f.node, f.path, words); ok {
			return w
		}
	}
	return deflt
}

// command reads a command; false is Nothing.
func (b *builder) command(t *tree, name string) tenfold.Command {
	if f := t.get(name); f != nil && f.off {
		return tenfold.Command{Shell: Nothing}
	}
	if f, ok := value(t, name); ok {
		c, _ := readCommand(b.reporter, f.node, f.path)
		return c
	}
	return tenfold.Command{}
}

func (b *builder) path(t *tree, name string) string {
	if f, ok := value(t, name); ok {
		p, _ := readPath(b.reporter, f.node, f.path)
		return p
	}
	return ""
}

func (b *builder) env(t *tree) map[string]string {
	f, ok := value(t, "env")
	if !ok || len(f.order) == 0 {
		return nil
	}
	out := map[string]string{}
	for name, v := range f.fields {
		out[name] = v.node.Value
		if v.node.Tag == "!!null" && v.node.Value == "~" {
			out[name] = "~"
		}
	}
	return out
}

func (b *builder) build(t *tree) tenfold.Build {
	var out tenfold.Build
	if f, ok := value(t, "runtime"); ok {
		out.Language, out.Version = readRuntime(b.reporter, f.node, f.path)
	}
	out.Test = b.command(t, "test")
	f := t.get("build")
	if f == nil {
		return out
	}
	if f.off {
		out.Command = tenfold.Command{Shell: Nothing}
		return out
	}
	out.Command = b.command(f, "command")
	out.Output = b.path(f, "output")
	out.Dockerfile = b.dockerfile(t, f)
	out.Size = b.size(f, "size", 0)
	out.Timeout = b.duration(f, "timeout", 15*time.Minute)
	return out
}

func (b *builder) frontends() {
	var bare []*tree
	b.each("frontends", func(n tenfold.Name, t *tree) {
		f := tenfold.Frontend{Source: tenfold.Source{Path: b.path(t, "path")}, Build: b.build(t), Env: b.env(t), Keep: b.duration(t, "keep", 7*24*time.Hour), Line: t.line()}
		if r, ok := value(t, "routes"); ok {
			f.Routes = b.claim("frontend "+string(n), r)
		}
		if t.get("routes") == nil || len(f.Routes) == 0 && !b.failed() {
			bare = append(bare, t)
			f.Routes = []tenfold.Route{"/*"}
		}
		if v := t.get("fallback"); v != nil && v.off {
			f.Fallback = Nothing
		} else if v, ok := value(t, "fallback"); ok {
			f.Fallback, _ = readPath(b.reporter, v.node, v.path)
		}
		f.Images = b.images(t)
		f.Bindings, _ = b.uses(t, f.Env, tenfold.KindFrontend, n)
		if f.E2E = b.command(t, "e2e"); f.E2E.Shell == Nothing {
			f.E2E = tenfold.Command{}
		}
		f.Server = b.server(n, t, f.Env)
		if b.app.Frontends == nil {
			b.app.Frontends = map[tenfold.Name]tenfold.Frontend{}
		}
		b.app.Frontends[n] = f
	})
	if len(b.app.Frontends) == 1 && len(bare) == 1 {
		b.take("/*", "frontend "+bare[0].key.Value, bare[0].place(), bare[0].path)
		return
	}
	for _, t := range bare {
		if o, taken := b.routes["/*"]; len(bare) > 1 || taken {
			hint := "add routes: [/" + t.key.Value + "/*]"
			if taken {
				hint += "; /* belongs to " + o.owner
			}
			b.reporter.at(t.place(), hint, "%s has no routes, and it is not the only frontend", t.path)
		} else {
			b.take("/*", "frontend "+t.key.Value, t.place(), t.path)
		}
	}
}

// claim reads routes and enters their owner.
func (b *builder) claim(owner string, t *tree) []tenfold.Route {
	routes, at := readRoutes(b.reporter, t.node, t.path)
	for i, r := range routes {
		b.take(r, owner, at[i], t.path)
	}
	return routes
}

func (b *builder) take(r tenfold.Route, owner string, n *yaml.Node, path string) {
	if o, taken := b.routes[r]; taken {
		b.reporter.at(n, "give one of them another path; of several routes the most specific wins", "%s: route %q belongs to %s already (line %d)", path, r, o.owner, o.line)
		return
	}
	line := 0
	if n != nil {
		line = n.Line
	}
	b.routes[r] = routed{owner, line}
}

func (b *builder) services() {
	count := 0
	b.each("services", func(tenfold.Name, *tree) { count++ })
	b.each("services", func(n tenfold.Name, t *tree) {
		w := b.workload(n, t)
		w.Source, w.Build, w.Image = tenfold.Source{Path: b.path(t, "path")}, b.build(t), b.image(t)
		switch r, ok := value(t, "routes"); {
		case ok:
			w.Routes = b.claim("service "+string(n), r)
		case t.get("routes") == nil && count == 1 && len(b.app.Frontends) == 0:
			w.Routes = []tenfold.Route{"/*"}
			b.take("/*", "service "+string(n), t.place(), t.path)
		}
		if b.app.Services == nil {
			b.app.Services = map[tenfold.Name]tenfold.Workload{}
		}
		b.app.Services[n] = w
	})
}

// workload reads what services and the servers of frontends have in common. t may be nil.
func (b *builder) workload(n tenfold.Name, t *tree) tenfold.Workload {
	w := tenfold.Workload{
		Command: b.command(t, "command"), Migrate: b.command(t, "migrate"), Env: b.env(t),
		Health: b.health(t), Drain: b.duration(t, "drain", 30*time.Second), Sticky: b.duration(t, "sticky", 0),
		Isolation: b.word(t, "isolation", "", isolations),
	}
	if w.Migrate.Shell == Nothing {
		w.Migrate = tenfold.Command{}
	}
	size, timeout, deploy := t.get("size"), t.get("timeout"), t.get("deploy")
	w.Size.Memory = b.size(size, "memory", 0)
	if f, ok := value(size, "cpu"); ok {
		w.Size.CPU, _ = readCPU(b.reporter, f.node, f.path)
	}
	w.Timeout = tenfold.Timeout{Request: b.duration(timeout, "request", time.Minute), Idle: b.duration(timeout, "idle", 10*time.Minute)}
	w.Logs = b.logs(t)
	w.Scale, w.Scaling = b.scale(t)
	b.strategy(deploy, &w)
	if t != nil {
		w.Line = t.line()
		w.Bindings, w.Uses = b.uses(t, w.Env, tenfold.KindService, n)
	}
	return w
}

// logs says how much output of an entry is kept.
func (b *builder) logs(t *tree) tenfold.Logs {
	l := t.get("logs")
	return tenfold.Logs{Keep: b.duration(l, "keep", 30*24*time.Hour), Max: b.size(l, "max", 1<<30)}
}

// server reads a frontend's server. Without the key it has defaults, no command and no line: whether
// there is one is for detection to say. The variables of the build are there when it runs, too.
func (b *builder) server(n tenfold.Name, t *tree, build map[string]string) *tenfold.Workload {
	s := t.get("server")
	if s != nil && s.off {
		return nil
	}
	w := b.workload(n, s)
	if f, ok := value(s.get("deploy"), "strategy"); ok && w.Strategy != "" {
		b.reporter.at(f.node, "remove it; a service can be deployed so", "%s: a frontend's server is switched with its files, never by %s", f.path, w.Strategy)
	}
	for k, v := range build {
		if _, own := w.Env[k]; own || slices.ContainsFunc(w.Bindings, func(x tenfold.Binding) bool { return x.Var == k }) {
			continue
		}
		if w.Env == nil {
			w.Env = map[string]string{}
		}
		w.Env[k] = v
	}
	return &w
}

func (b *builder) health(t *tree) tenfold.Health {
	h := t.get("health")
	// Without a route anything below 500 shows that somebody answers.
	out := tenfold.Health{Low: 100, High: 499, Every: b.duration(h, "every", 5*time.Second), Timeout: b.duration(h, "timeout", 2*time.Second), Grace: b.duration(h, "grace", time.Minute)}
	if f, ok := value(h, "route"); ok {
		out.Low, out.High = 200, 399
		if s := f.node.Value; !pathText.MatchString(s) || strings.ContainsAny(s, "#*") {
			b.reporter.at(f.node, "write a path: /healthz", "%s: %q is not a path", f.path, cut(s, 60))
		} else {
			out.Route = s
		}
	}
	if f, ok := value(h, "status"); ok {
		if low, high, ok := readStatus(b.reporter, f.node, f.path); ok {
			out.Low, out.High = low, high
		}
	}
	return out
}

// maxTasks bounds a count of tasks on one machine.
const maxTasks = 1000
