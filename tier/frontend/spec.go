package frontend

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"time"

	"tenfold"
	"tenfold/internal/build"
	"tenfold/internal/directory"
)

// spec is what a build or a frontend resource wants. The build's Keep and Line, and where the sources
// lie, do not change what is built and stay out of its fingerprint.
type spec struct {
	Source   tenfold.Source    `json:"source,omitzero"`
	Build    tenfold.Build     `json:"build,omitzero"`
	Env      map[string]string `json:"env,omitempty"`
	Bindings []tenfold.Binding `json:"bindings,omitempty"`
	// Paired says, of a build, that it yields a server too.
	Paired bool `json:"paired,omitempty"`
	// Script is, of a build, what its pages begin with: it says which deployment made them.
	Script string `json:"script,omitempty"`
	// Made is, of a frontend, the fingerprint of the build whose release is served. Server tells one
	// configuration of its server from another, and E2E is what must pass before users get it.
	Made   string          `json:"made,omitempty"`
	Server string          `json:"server,omitempty"`
	E2E    tenfold.Command `json:"e2e,omitzero"`
	Keep   time.Duration   `json:"keep,omitempty"`
	Line   int             `json:"line,omitempty"`
}

// Desired implements tenfold.Tier: a build and a frontend for each frontend. The frontend needs all
// builds and all services of the app, so that no page calls what is not there yet.
func (f *Frontend) Desired(app tenfold.App, _ tenfold.Scale) ([]tenfold.Resource, error) {
	var needs []tenfold.ID
	for n := range app.Frontends {
		needs = append(needs, app.ID(tenfold.KindBuild, n))
	}
	for n := range app.Services {
		needs = append(needs, app.ID(tenfold.KindBuild, n), app.ID(tenfold.KindService, n))
	}
	for n, w := range app.Frontends {
		if w.Server != nil {
			needs = append(needs, app.ID(tenfold.KindService, n))
		}
	}
	slices.SortFunc(needs, tenfold.ID.Compare)
	var out []tenfold.Resource
	for _, name := range slices.Sorted(maps.Keys(app.Frontends)) {
		w := app.Frontends[name]
		b := buildOf(w)
		hashed := b
		hashed.Source.Also = nil
		hashed.Line, hashed.Source.Root, hashed.Build.Timeout, hashed.Build.Size = 0, "", 0, 0
		fp, err := tenfold.FingerprintOf(hashed, nil)
		if err != nil {
			return nil, fmt.Errorf("plan frontend %s: %w", name, err)
		}
		out = append(out, tenfold.Resource{ID: app.ID(tenfold.KindBuild, name), Spec: b, Fingerprint: fp})

		s := spec{Made: fp, Keep: w.Keep, E2E: w.E2E}
		if w.Server != nil {
			server := *w.Server
			server.Line = 0
			if s.Server, err = tenfold.FingerprintOf(server, nil); err != nil {
				return nil, fmt.Errorf("plan frontend %s: %w", name, err)
			}
		}
		if fp, err = tenfold.FingerprintOf(s, needs); err != nil {
			return nil, fmt.Errorf("plan frontend %s: %w", name, err)
		}
		out = append(out, tenfold.Resource{ID: app.ID(tenfold.KindFrontend, name), Spec: s, Fingerprint: fp, Needs: needs})
	}
	return out, nil
}

// buildOf is what the build of a frontend wants.
func buildOf(w tenfold.Frontend) spec {
	return spec{Source: w.Source, Build: w.Build, Env: w.Env, Bindings: w.Bindings, Paired: w.Server != nil, Script: scriptOf(w.Pin), Line: w.Line}
}

// scriptOf is the address of the script by which pages say which deployment made them; "" when nothing is
// pinned to it.
func scriptOf(p *tenfold.Pin) string {
	if p == nil || p.ID == "" {
		return ""
	}
	q := url.Values{"d": {p.ID}}
	for _, r := range p.Routes {
		q.Add("p", string(r))
	}
	return directory.PinScript + "?" + q.Encode()
}

// BuildKey is the key of a frontend's build: what its server runs from too.
func BuildKey(app tenfold.App, name tenfold.Name) string {
	return build.Key(buildOf(app.Frontends[name]).request(app.ID(tenfold.KindBuild, name)))
}

// entry is the name of a frontend in those of its units: "shop/production/web".
func entry(id tenfold.ID) string {
	return string(id.App) + "/" + string(id.Env) + "/" + string(id.Name)
}

func (s spec) request(id tenfold.ID) build.Request {
	r := build.Request{
		ID:   entry(id),
		Root: s.Source.Root, Context: s.Source.Context, Path: s.Source.Path, Digest: s.Source.Digest,
		Language: s.Build.Language, Version: s.Build.Version,
		Install: s.Build.Install.Argv(), Test: s.Build.Test.Argv(), Command: s.Build.Command.Argv(),
		Output: s.Build.Output, Timeout: s.Build.Timeout, Memory: s.Build.Size,
	}
	if r.Only, r.Also = s.Source.Only, s.Source.Also; s.Paired {
		r.Output = ""
	}
	for _, b := range s.Bindings {
		r.Pins = append(r.Pins, fmt.Sprintf("%s=%s@%d/%s", b.Var, b.From, b.Version, b.Field))
	}
	for _, k := range slices.Sorted(maps.Keys(s.Env)) {
		r.Env = append(r.Env, k+"="+s.Env[k])
	}
	return r
}
