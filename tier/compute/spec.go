package compute

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"tenfold"
	"tenfold/internal/build"
)

// buildSpec is what a build resource of a service wants. Where the sources lie and how much memory
// the build may take do not change what is built, so they stay out of the fingerprint.
type buildSpec struct {
	Key    string            `json:"key"`
	Source tenfold.Source    `json:"source"`
	Build  tenfold.Build     `json:"build"`
	Image  string            `json:"image,omitempty"`
	Env    map[string]string `json:"env,omitempty"`
	Line   int               `json:"line,omitempty"`
}

// buildOf is what the build of a service wants. Variables are a task's alone where nothing but an
// engine builds.
func buildOf(w tenfold.Workload) buildSpec {
	b := buildSpec{Source: w.Source, Build: w.Build, Image: w.Image, Env: w.Env, Line: w.Line}
	if w.Contained() && w.Build.Test.IsZero() {
		b.Env = nil
	}
	return b
}

func (s buildSpec) request(id tenfold.ID) build.Request {
	return build.Request{
		ID:   entry(id),
		Root: s.Source.Root, Context: s.Source.Context, Path: s.Source.Path, Digest: s.Source.Digest,
		Language: s.Build.Language, Version: s.Build.Version,
		Install: s.Build.Install.Argv(), Test: s.Build.Test.Argv(), Command: s.Build.Command.Argv(),
		Image: s.Image, Dockerfile: s.Build.Dockerfile,
		Only: s.Source.Only, Also: s.Source.Also, Env: pairs(s.Env), Timeout: s.Build.Timeout, Memory: s.Build.Size,
	}
}

// serviceSpec is what a service resource wants.
type serviceSpec struct {
	Build    string            `json:"build"` // key
	Command  tenfold.Command   `json:"command"`
	Migrate  tenfold.Command   `json:"migrate,omitzero"`
	Env      map[string]string `json:"env,omitempty"`
	Bindings []tenfold.Binding `json:"bindings,omitempty"`
	Health   tenfold.Health    `json:"health"`
	Size     tenfold.Size      `json:"size"`
	Logs     tenfold.Logs      `json:"logs"`
	Routed   bool              `json:"routed"` // has routes or may be called by others
	Scale    tenfold.Bounds    `json:"scale"`
	Scaling  *tenfold.Scaling  `json:"scaling,omitempty"`
	Deadline time.Duration     `json:"deadline"`
	Drain    time.Duration     `json:"drain"`
	Strategy string            `json:"strategy,omitempty"`
	Share    float64           `json:"share,omitempty"`
	Bake     time.Duration     `json:"bake,omitempty"`
	// Pinned is how long tasks may stay for pages that were made with them; 0: none do.
	Pinned time.Duration `json:"pinned,omitempty"`
	// Paired says that this is the server of a frontend: users have it when the frontend's release is
	// switched, and until then the tasks of the version before serve on.
	Paired    bool   `json:"paired,omitempty"`
	Isolation string `json:"isolation,omitempty"`
	Line      int    `json:"line,omitempty"`
}

// version hashes what a running task would notice. Bounds, deadline, drain and how it is deployed are not in
// it: changing them starts no deployment.
func (s serviceSpec) version() (string, error) {
	s.Strategy, s.Share, s.Bake, s.Pinned = "", 0, 0, 0
	s.Scaling = nil
	s.Scale, s.Deadline, s.Drain, s.Line, s.Logs, s.Routed = tenfold.Bounds{}, 0, 0, 0, tenfold.Logs{}, false
	return tenfold.FingerprintOf(s, nil)
}

// jobSpec is what a job resource wants.
type jobSpec struct {
	Service  tenfold.Name      `json:"service"`
	Command  tenfold.Command   `json:"command"`
	Schedule tenfold.Schedule  `json:"schedule,omitzero"`
	Env      map[string]string `json:"env,omitempty"`
	Overlap  string            `json:"overlap"`
	Missed   string            `json:"missed"`
	Retries  int               `json:"retries"`
	Timeout  time.Duration     `json:"timeout"`
	Line     int               `json:"line,omitempty"`
}

// Desired implements tenfold.Tier: a build and a service for each service, a job for each job.
func (c *Compute) Desired(app tenfold.App, scale tenfold.Scale) ([]tenfold.Resource, error) {
	var out []tenfold.Resource
	builds := allBuilds(app)
	for _, name := range slices.Sorted(maps.Keys(app.Services)) {
		w := app.Services[name]
		b := buildOf(w)
		b.Key = build.Key(b.request(app.ID(tenfold.KindBuild, name)))
		r, err := resource(app.ID(tenfold.KindBuild, name), b, b.Key, nil)
		if err != nil {
			return nil, err
		}
		out = append(out, r)

		s := specOf(w, b.Key)
		s.Routed = len(w.Routes) > 0 || called(app, name)
		if r, err = s.resource(app.ID(tenfold.KindService, name), slices.Concat(builds, w.Uses), scale); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	for _, name := range slices.Sorted(maps.Keys(app.Functions)) {
		b := functionBuild(app, name)
		r, err := resource(app.ID(tenfold.KindBuild, name), b, b.Key, nil)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	for _, name := range slices.Sorted(maps.Keys(app.Frontends)) {
		w := app.Frontends[name].Server
		if w == nil {
			continue
		}
		r, err := c.pairedService(app, name, *w, builds, scale)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	for _, name := range slices.Sorted(maps.Keys(app.Jobs)) {
		j := app.Jobs[name]
		s := jobSpec{
			Service: j.Service, Command: j.Command, Schedule: j.Schedule, Env: j.Env, Overlap: cmp.Or(j.Overlap, "forbid"),
			Missed: cmp.Or(j.Missed, "once"), Retries: j.Retries, Timeout: j.Timeout, Line: j.Line,
		}
		hashed := s
		hashed.Line = 0
		r, err := resource(app.ID(tenfold.KindJob, name), s, hashed, []tenfold.ID{app.ID(tenfold.KindService, j.Service)})
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// pairedService is the service of a frontend with a server. Its build is the frontend's; it comes after
// all other services, which its pages call.
func (c *Compute) pairedService(app tenfold.App, name tenfold.Name, w tenfold.Workload, builds []tenfold.ID, scale tenfold.Scale) (tenfold.Resource, error) {
	if c.cfg.FrontendBuild == nil {
		return tenfold.Resource{}, fmt.Errorf("plan frontend %s: nobody says what its build is", name)
	}
	s := specOf(w, c.cfg.FrontendBuild(app, name))
	s.Routed, s.Paired = true, true
	needs := slices.Concat(builds, w.Uses)
	for n := range app.Services {
		needs = append(needs, app.ID(tenfold.KindService, n))
	}
	return s.resource(app.ID(tenfold.KindService, name), needs, scale)
}

// specOf is what a workload wants that runs from a build.
func specOf(w tenfold.Workload, build string) serviceSpec {
	return serviceSpec{
		Build: build, Command: w.Command, Migrate: w.Migrate, Env: w.Env, Bindings: w.Bindings, Health: w.Health,
		Size: w.Size, Logs: w.Logs, Scale: w.Scale, Scaling: w.Scaling, Deadline: w.Deadline, Drain: w.Drain, Line: w.Line,
		Strategy: w.Strategy, Share: w.Share, Bake: w.Bake, Pinned: w.Pinned, Isolation: w.Isolation,
	}
}

// resource is the service within the bounds that scale has for it, after needs, which it puts in order.
func (s serviceSpec) resource(id tenfold.ID, needs []tenfold.ID, scale tenfold.Scale) (tenfold.Resource, error) {
	if bounds, ok := scale[id.Name]; ok {
		s.Scale = bounds
		if s.Scaling != nil && len(s.Scaling.Schedule) > 0 { // who sets bounds by hand means them at any time
			scaling := *s.Scaling
			scaling.Schedule = nil
			s.Scaling = &scaling
		}
	}
	slices.SortFunc(needs, tenfold.ID.Compare)
	hashed := s
	hashed.Line = 0
	return resource(id, s, hashed, slices.Compact(needs))
}

// functionBuild is what the build of a function wants.
func functionBuild(app tenfold.App, name tenfold.Name) buildSpec {
	f := app.Functions[name]
	b := buildSpec{Source: f.Source, Build: f.Build, Image: f.Image, Env: f.Env, Line: f.Line}
	if f.Contained() && f.Build.Test.IsZero() {
		b.Env = nil
	}
	b.Key = build.Key(b.request(app.ID(tenfold.KindBuild, name)))
	return b
}

// FunctionBuild is the key of a function's build, which this tier makes.
func FunctionBuild(app tenfold.App, name tenfold.Name) string { return functionBuild(app, name).Key }

// called says that another of the app's services is given this one's address. One that nobody calls
// and no route leads to is a worker: it need not listen.
func called(app tenfold.App, name tenfold.Name) bool {
	calls := func(bs []tenfold.Binding) bool {
		return slices.ContainsFunc(bs, func(b tenfold.Binding) bool { return b.From.Kind == tenfold.KindService && b.From.Name == name })
	}
	for _, w := range app.Services {
		if calls(w.Bindings) {
			return true
		}
	}
	for _, f := range app.Functions {
		if calls(f.Bindings) {
			return true
		}
	}
	for _, f := range app.Frontends {
		if f.Server != nil && calls(f.Server.Bindings) {
			return true
		}
	}
	return false
}

func resource(id tenfold.ID, spec, hashed any, needs []tenfold.ID) (tenfold.Resource, error) {
	fp, err := tenfold.FingerprintOf(hashed, needs)
	if err != nil {
		return tenfold.Resource{}, fmt.Errorf("plan %s: %w", id.Short(), err)
	}
	return tenfold.Resource{ID: id, Spec: spec, Fingerprint: fp, Needs: needs}, nil
}

// allBuilds are the builds of the whole app: none of its services starts before all of them passed.
func allBuilds(app tenfold.App) []tenfold.ID {
	var out []tenfold.ID
	for n := range app.Services {
		out = append(out, app.ID(tenfold.KindBuild, n))
	}
	for n := range app.Functions {
		out = append(out, app.ID(tenfold.KindBuild, n))
	}
	for n := range app.Frontends {
		out = append(out, app.ID(tenfold.KindBuild, n))
	}
	slices.SortFunc(out, tenfold.ID.Compare)
	return out
}

// entry is the part of unit names, log folders and so on that says whose they are: "shop/production/api".
func entry(id tenfold.ID) string {
	return string(id.App) + "/" + string(id.Env) + "/" + string(id.Name)
}

func pairs(env map[string]string) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(env)) {
		out = append(out, k+"="+env[k])
	}
	return out
}

// worker says that nobody asks a task of it anything.
func (s serviceSpec) worker() bool { return !s.Routed && s.Health.Route == "" }

// probeEvery is the time between two probes of a task that is well.
func (s serviceSpec) probeEvery() time.Duration {
	if s.Health.Every <= 0 {
		return 5 * time.Second
	}
	return s.Health.Every
}
