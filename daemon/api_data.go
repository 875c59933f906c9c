package daemon

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/engines"
	"tenfold/internal/store"
	"tenfold/plan"
)

// Kept implements control.API. Data of an app that is down is kept too, but not left over: only what
// no manifest that should run names counts, and what belongs to an app that is down is its own.
func (h *house) Kept(ctx context.Context) ([]control.Kept, error) {
	named, err := h.named(ctx)
	if err != nil {
		return nil, err
	}
	out := []control.Kept{}
	add := func(id tenfold.ID, path string, bytes int64) {
		if !named[id] {
			out = append(out, control.Kept{ID: id, Path: path, Bytes: bytes, Remove: "tenfold kept remove " + id.String() + " --yes"})
		}
	}
	for _, k := range h.postgres.Kept() {
		add(k.ID, k.Path, k.Bytes)
	}
	for _, k := range h.cache.Kept() {
		add(k.ID, k.Path, k.Bytes)
	}
	for _, id := range h.data.Kept() {
		add(id, h.layout.Tier("data"), 0)
	}
	for _, k := range h.series.Kept() {
		add(k.ID, k.Path, sizeOf(ctx, k.Path))
	}
	for _, id := range h.files.Kept() {
		add(id, h.layout.Tier(filesListener), 0)
	}
	slices.SortFunc(out, func(a, b control.Kept) int { return a.ID.Compare(b.ID) })
	return out, nil
}

// named collects the data that some goal names.
func (h *house) named(ctx context.Context) (map[tenfold.ID]bool, error) {
	envs, err := h.store.Environments(ctx)
	if err != nil {
		return nil, err
	}
	named := map[tenfold.ID]bool{}
	for _, e := range envs {
		if e.Goal == 0 {
			continue
		}
		app, err := h.app(ctx, e.App, e.Env, e.Goal)
		if err != nil {
			return nil, err
		}
		for n := range app.Databases {
			named[app.ID(tenfold.KindDatabase, n)] = true
		}
		for n := range app.Caches {
			named[app.ID(tenfold.KindCache, n)] = true
		}
		for n := range app.Queues {
			named[app.ID(tenfold.KindQueue, n)] = true
		}
		for n := range app.Tables {
			named[app.ID(tenfold.KindTable, n)] = true
		}
		for n := range app.Events {
			named[app.ID(tenfold.KindBus, n)] = true
		}
		for n := range app.Buckets {
			named[app.ID(tenfold.KindBucket, n)] = true
		}
		for n := range app.Series {
			named[app.ID(tenfold.KindSeries, n)] = true
		}
	}
	return named, nil
}

// RemoveData implements control.API.
func (h *house) RemoveData(ctx context.Context, id tenfold.ID) error {
	named, err := h.named(ctx)
	if err != nil {
		return err
	}
	if named[id] {
		return tenfold.Errorf(tenfold.CodeConflict, "%s of %s is in its manifest", id.Short(), id.App).WithHint("take it out and deploy, or tenfold down --app %s", id.App)
	}
	switch id.Kind {
	case tenfold.KindDatabase:
		err = h.postgres.Destroy(ctx, id)
	case tenfold.KindCache:
		err = h.cache.Destroy(ctx, id)
	case tenfold.KindQueue, tenfold.KindTable, tenfold.KindBus:
		err = h.data.Destroy(ctx, id)
	case tenfold.KindBucket:
		err = h.files.Destroy(ctx, id)
	case tenfold.KindSeries:
		err = h.series.Destroy(ctx, id)
	default:
		err = tenfold.Errorf(tenfold.CodeInvalid, "a %s holds no data", id.Kind).WithHint("list what is kept: tenfold kept")
	}
	if err != nil {
		return err
	}
	return h.audit(ctx, id.App, id.Env, "destroy", id.Short(), "asked for by name")
}

func (h *house) audit(ctx context.Context, app tenfold.AppName, env tenfold.Environment, verb, resource, reason string) error {
	return h.store.Audit(ctx, store.Entry{At: now(), Actor: "user", App: string(app), Env: string(env), Verb: verb, Resource: resource, Reason: reason})
}

// Releases implements control.API.
func (h *house) Releases(_ context.Context, e control.Env, frontend tenfold.Name) ([]control.Release, error) {
	id := tenfold.ID{App: e.App, Env: e.Env, Kind: tenfold.KindFrontend, Name: frontend}
	all, err := h.frontend.Releases(id)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, tenfold.Errorf(tenfold.CodeNotFound, "%s has no frontend %s with releases", e.App, frontend).WithHint("list what there is: tenfold status --app %s", e.App)
	}
	current, err := h.frontend.Current(id)
	if err != nil {
		return nil, err
	}
	out := []control.Release{}
	for _, r := range all {
		out = append(out, control.Release{ID: tenfold.ReleaseID(r.ID), Created: r.Created, Files: len(r.Files), Bytes: r.Size(), Current: tenfold.ReleaseID(r.ID) == current})
	}
	return out, nil
}

// SwitchRelease implements control.API.
func (h *house) SwitchRelease(ctx context.Context, e control.Env, frontend tenfold.Name, id tenfold.ReleaseID) error {
	if err := h.atRest(ctx, e, frontend); err != nil {
		return err
	}
	fid := tenfold.ID{App: e.App, Env: e.Env, Kind: tenfold.KindFrontend, Name: frontend}
	to, server, err := h.frontend.Earlier(fid, id)
	if err != nil {
		return err
	}
	if server != "" {
		if err := h.bringBack(ctx, fid, server); err != nil {
			return err
		}
	}
	if to, err = h.frontend.Rollback(ctx, fid, to); err != nil {
		return err
	}
	return h.audit(ctx, e.App, e.Env, "switch", "frontend "+string(frontend), "release "+string(to)+" asked for")
}

// atRest waits until no deploy of an environment is on its way, and a frontend not moved by one that
// failed and is taken back: either would undo what a person asks for now. What is ill besides is no
// reason to wait.
func (h *house) atRest(ctx context.Context, e control.Env, frontend tenfold.Name) error {
	limited, cancel := context.WithTimeout(ctx, bringBackFor)
	defer cancel()
	for {
		env, err := h.environment(limited, e)
		if err != nil {
			return err
		}
		if env.Goal == 0 {
			return tenfold.Errorf(tenfold.CodeConflict, "%s does not run", e.App).WithHint("start it in its folder: tenfold up")
		}
		rev, err := h.store.Revision(limited, env.App, env.Env, env.Goal)
		if err != nil {
			return err
		}
		desired, err := h.desired(limited, env)
		if err != nil {
			return err
		}
		all, err := h.observe(limited)
		if err != nil {
			return err
		}
		out := plan.Judge(desired, ofEnv(all, env))
		if rev.State != "pending" && !slices.ContainsFunc(slices.Concat(out.Late, out.Left), func(r tenfold.Resource) bool {
			return r.ID.Name == frontend && (r.ID.Kind == tenfold.KindFrontend || r.ID.Kind == tenfold.KindBuild)
		}) {
			return nil
		}
		select {
		case <-limited.Done():
			return tenfold.Errorf(tenfold.CodeConflict, "a deploy of %s is on its way: %w", e.App, limited.Err()).WithHint("wait for it, or see what it waits for: tenfold status --app %s", e.App)
		case <-time.After(restPace):
		}
	}
}

// restPace is how often a deploy that is waited for is looked at: each look observes every tier.
const restPace = 150 * time.Millisecond

// bringBackFor bounds how long the server of an earlier release may take to come up.
const bringBackFor = 2 * time.Minute

// bringBack has the server of an earlier release run beside the one that serves, and returns when it
// is healthy: then both halves can be switched at once.
func (h *house) bringBack(ctx context.Context, frontend tenfold.ID, build string) error {
	if err := h.compute.RunBuild(frontend, build); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, bringBackFor)
	defer cancel()
	for {
		ok, failed := h.compute.Serves(frontend, build)
		switch {
		case ok:
			return nil
		case failed != "":
			return tenfold.Errorf(tenfold.CodeFailed, "the server of that release does not come up: %s", failed).WithHint("see what it says: tenfold logs %s --app %s", frontend.Name, frontend.App)
		}
		select {
		case <-limited.Done():
			return fmt.Errorf("wait for the server of that release: %w", limited.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Environ implements control.API.
func (h *house) Environ(ctx context.Context, id tenfold.ID, tool string) (control.Process, error) {
	switch id.Kind {
	case tenfold.KindService:
		env, dir, err := h.compute.Process(ctx, id)
		return control.Process{Env: env, Dir: dir}, err
	case tenfold.KindDatabase:
		return h.databaseTool(ctx, id, tool)
	case tenfold.KindCache:
		return h.cacheTool(ctx, id, tool)
	}
	return control.Process{}, tenfold.Errorf(tenfold.CodeInvalid, "a %s has no processes", id.Kind)
}

// fields looks several facts up.
func fields(ctx context.Context, get func(context.Context, tenfold.ID, tenfold.Field) (string, error), id tenfold.ID, vars map[string]tenfold.Field) ([]string, error) {
	var env []string
	for name, f := range vars {
		v, err := get(ctx, id, f)
		if err != nil {
			return nil, err
		}
		env = append(env, name+"="+v)
	}
	slices.Sort(env)
	return env, nil
}

func (h *house) databaseTool(ctx context.Context, id tenfold.ID, tool string) (control.Process, error) {
	env, err := fields(ctx, h.postgres.Field, id, map[string]tenfold.Field{
		"DATABASE_URL": tenfold.FieldURL, "PGHOST": tenfold.FieldHost, "PGPORT": tenfold.FieldPort, "PGUSER": tenfold.FieldUser, "PGPASSWORD": tenfold.FieldPassword, "PGDATABASE": tenfold.FieldDatabase,
	})
	p := control.Process{Env: env}
	if err != nil || tool == "" {
		return p, err
	}
	database, err := h.postgres.Field(ctx, id, tenfold.FieldDatabase)
	if err != nil {
		return p, err
	}
	argv := map[string][]string{
		"psql":    {"psql"},
		"dump":    {"pg_dump", "--format=custom", "--no-owner"},
		"restore": {"pg_restore", "--clean", "--if-exists", "--no-owner", "--single-transaction", "--dbname=" + database},
	}[tool]
	if argv == nil {
		return p, tenfold.Errorf(tenfold.CodeInvalid, "no tool %q for a database", tool)
	}
	for _, e := range engines.AllPostgres(ctx, h.layout.Tier("engines")) {
		if path := e.Tool(argv[0]); path != "" {
			p.Argv = append([]string{path}, argv[1:]...)
			return p, nil
		}
	}
	return p, tenfold.Errorf(tenfold.CodeMissing, "%s is not installed", argv[0]).WithHint("apt-get install postgresql-client")
}

// tasks are an environment's, with what the door counts of them.
func (h *house) tasks(ctx context.Context, e control.Env) ([]control.Task, error) {
	all, err := h.compute.Tasks(ctx)
	if err != nil {
		return nil, err
	}
	report, _ := h.edge.Report(ctx, false) // without the door there are no counts, and still tasks
	out := []control.Task{}
	for _, t := range all {
		if t.Service.App != e.App || t.Service.Env != e.Env {
			continue
		}
		c := report.Endpoints[string(t.ID)]
		out = append(out, control.Task{
			ID: t.ID, Service: t.Service.Name, State: t.State, PID: t.PID, Port: t.Port, Started: t.Started, Restarts: t.Restarts,
			Memory: t.RSS, CPU: t.CPU, InFlight: c.InFlight, Requests: c.Requests, Isolation: rungsOf(t.Rungs), Unenforced: t.Unenforced,
		})
	}
	return out, nil
}

// quote writes a label's value as Prometheus' text format wants it.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

func label2(app, env string) string { return fmt.Sprintf("app=%s,env=%s", quote(app), quote(env)) }

// byResource gives a writer of metrics in Prometheus' text format, a line a resource, labelled by its kind:
// queue="emails".
func byResource[T any](b *strings.Builder, all map[tenfold.ID]T) func(name, kind string, of func(T) float64) {
	ids := slices.SortedFunc(maps.Keys(all), tenfold.ID.Compare)
	return func(name, kind string, of func(T) float64) {
		if len(ids) > 0 {
			fmt.Fprintf(b, "# TYPE %s %s\n", name, kind)
		}
		for _, id := range ids {
			fmt.Fprintf(b, "%s{%s,%s=%s} %g\n", name, label2(string(id.App), string(id.Env)), id.Kind, quote(string(id.Name)), of(all[id]))
		}
	}
}
