package frontend

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"tenfold"
	"tenfold/internal/build"
)

// spec is what a build or a frontend resource wants. The build's Keep and Line, and where the sources
// lie, do not change what is built and stay out of its fingerprint.
type spec struct {
	Source   tenfold.Source    `json:"source,omitzero"`
	Build    tenfold.Build     `json:"build,omitzero"`
	Env      map[string]string `json:"env,omitempty"`
	Bindings []tenfold.Binding `json:"bindings,omitempty"`
	// Made is, of a frontend, the fingerprint of the build whose release is served.
	Made string        `json:"made,omitempty"`
	Keep time.Duration `json:"keep,omitempty"`
	Line int           `json:"line,omitempty"`
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
	slices.SortFunc(needs, tenfold.ID.Compare)
	var out []tenfold.Resource
	for _, name := range slices.Sorted(maps.Keys(app.Frontends)) {
		w := app.Frontends[name]
		b := spec{Source: w.Source, Build: w.Build, Env: w.Env, Bindings: w.Bindings, Line: w.Line}
		hashed := b
		hashed.Line, hashed.Source.Root, hashed.Build.Timeout, hashed.Build.Size = 0, "", 0, 0
		fp, err := tenfold.FingerprintOf(hashed, nil)
		if err != nil {
			return nil, fmt.Errorf("plan frontend %s: %w", name, err)
		}
		out = append(out, tenfold.Resource{ID: app.ID(tenfold.KindBuild, name), Spec: b, Fingerprint: fp})

		s := spec{Made: fp, Keep: w.Keep}
		if fp, err = tenfold.FingerprintOf(s, needs); err != nil {
			return nil, fmt.Errorf("plan frontend %s: %w", name, err)
		}
		out = append(out, tenfold.Resource{ID: app.ID(tenfold.KindFrontend, name), Spec: s, Fingerprint: fp, Needs: needs})
	}
	return out, nil
}

func (s spec) request(id tenfold.ID) build.Request {
	r := build.Request{
		ID:   string(id.App) + "/" + string(id.Env) + "/" + string(id.Name),
		Root: s.Source.Root, Context: s.Source.Context, Path: s.Source.Path, Digest: s.Source.Digest,
		Language: s.Build.Language, Version: s.Build.Version,
		Install: s.Build.Install.Argv(), Test: s.Build.Test.Argv(), Command: s.Build.Command.Argv(),
		Output: s.Build.Output, Timeout: s.Build.Timeout, Memory: s.Build.Size,
	}
	for _, k := range slices.Sorted(maps.Keys(s.Env)) {
		r.Env = append(r.Env, k+"="+s.Env[k])
	}
	return r
}
