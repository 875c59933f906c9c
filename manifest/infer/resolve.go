package infer

import (
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"tenfold"
	"tenfold/manifest"
)

// An Origin says where a value that nobody wrote comes from.
type Origin struct {
	Entry tenfold.Name // "web"; empty for the app itself
	What  string       // "vite, npm run build, dist"
	From  string       // "client"
}

// String is the origin as the comment beside a manifest's line.
func (o Origin) String() string {
	if o.From == "" {
		return o.What
	}
	if o.What == "" {
		return o.From
	}
	return o.From + ": " + o.What
}

// Resolve fills in what the entries of app leave to detection: folder, language, version, install,
// build, output, command, fallback, and the context that is copied for a build. What the manifest
// says is never changed; manifest.Nothing becomes nothing. The error is a *tenfold.Error with the
// line to write.
func Resolve(fsys fs.FS, app *tenfold.App) ([]Origin, error) {
	p := read(fsys)
	var out []Origin
	for _, name := range slices.Sorted(maps.Keys(app.Frontends)) {
		f := app.Frontends[name]
		found, err := p.resolve("frontends", name, &f.Source, &f.Build, f.Line)
		if err != nil {
			return nil, err
		}
		if f.Build.Test.IsZero() && found.test != "" {
			f.Build.Test.Shell = found.test
		}
		if err := resolveServer(name, &f, found); err != nil {
			return nil, err
		}
		switch f.Fallback {
		case "":
			f.Fallback = found.fallback
		case manifest.Nothing:
			f.Fallback = ""
		}
		clearNothing(&f.Build)
		app.Frontends[name] = f
		what := f.Build.Output
		if f.Server != nil {
			what = "server: " + f.Server.Command.String()
		}
		out = append(out, Origin{name, describe(found.framework, f.Build.Command.String(), what), f.Source.Path})
	}
	for _, name := range slices.Sorted(maps.Keys(app.Services)) {
		s := app.Services[name]
		if s.Contained() {
			if err := p.contained("services", name, s.Image, &s.Source, s.Build.Dockerfile, s.Line); err != nil {
				return nil, err
			}
			clearNothing(&s.Build)
			app.Services[name] = s
			out = append(out, Origin{name, describe("container", s.Image, s.Build.Dockerfile, s.Command.String()), s.Source.Path})
			continue
		}
		found, err := p.resolve("services", name, &s.Source, &s.Build, s.Line)
		if err != nil && s.Command.IsZero() {
			return nil, err
		}
		if s.Command.IsZero() {
			if found.frontend || found.command == "" {
				return nil, unknown("services", name, s.Line, "how "+s.Source.Path+" is started is not known", "command: ./server")
			}
			s.Command.Shell = found.command
		}
		clearNothing(&s.Build)
		app.Services[name] = s
		out = append(out, Origin{name, describe(found.framework, s.Command.String(), strings.TrimSpace(s.Build.Language+" "+s.Build.Version)), s.Source.Path})
	}
	for _, name := range slices.Sorted(maps.Keys(app.Functions)) {
		f := app.Functions[name]
		if err := p.function(name, &f); err != nil {
			return nil, err
		}
		app.Functions[name] = f
		what := f.Handler
		if what == "" {
			what = f.Command.String()
		}
		out = append(out, Origin{name, describe(what, strings.TrimSpace(f.Build.Language+" "+f.Build.Version)), f.Source.Path})
	}
	return out, nil
}

// resolveServer settles whether a frontend has a server, and where the files of its build lie.
func resolveServer(name tenfold.Name, f *tenfold.Frontend, found found) error {
	if s := f.Server; s != nil && s.Command.IsZero() {
		switch {
		case found.server != "":
			s.Command.Shell = found.server
		case s.Line > 0:
			return unknown("frontends", name, s.Line, "how the server of "+f.Source.Path+" is started is not known", "server: node server.js")
		default:
			f.Server = nil
		}
	}
	if f.Server != nil {
		f.Build.Private = found.private
		if f.Build.Output == "" {
			f.Build.Assets = found.assets
		}
	}
	if f.Build.Output == "" && len(f.Build.Assets) == 0 {
		f.Build.Output = found.output
	}
	if f.Build.Output == "" && len(f.Build.Assets) == 0 {
		return unknown("frontends", name, f.Line, "the folder with the built files is not known", "build: {output: dist}")
	}
	return nil
}

// resolve does what frontends and services share.
func (p project) resolve(section string, name tenfold.Name, src *tenfold.Source, b *tenfold.Build, line int) (found, error) {
	if src.Path == "" {
		if src.Path = "."; p.dir(string(name)) {
			src.Path = string(name)
		}
	}
	if !p.dir(src.Path) {
		err := unknown(section, name, line, "no folder "+src.Path, "path: <folder>")
		src.Context = "."
		return found{}, err
	}
	src.Context = p.context(src.Path)
	f, ok := p.detect(src.Path, string(name))
	if w, is := p.workspace(); is && src.Context == "." && f.language != "go" && f.language != "python" {
		if _, member := w.dirs[src.Path]; member {
			src.Only, src.Also = w.only(src.Path)
		}
	}
	if !ok && b.Language == "" && section == "services" {
		return f, unknown(section, name, line, "the language of "+src.Path+" is not known (no package.json, go.mod, requirements.txt, Gemfile, composer.json, Procfile or index.html)", "runtime, build and command")
	}
	if !ok && section == "frontends" && b.Output == "" {
		return f, unknown(section, name, line, "no site was found in "+src.Path+" (no package.json or index.html)", "path: <folder>, or build: {command: …, output: …}")
	}
	if ok {
		if b.Language == "" {
			b.Language = f.language
		}
		if b.Version == "" && b.Language == f.language {
			b.Version = f.version
		}
		if b.Install.IsZero() {
			b.Install.Shell = f.install
		}
		if b.Command.IsZero() {
			b.Command.Shell = f.build
		}
	}
	return f, nil
}

// contained fills in where the sources of an image lie, if it has any: all of the entry's folder.
func (p project) contained(section string, name tenfold.Name, image string, src *tenfold.Source, dockerfile string, line int) error {
	if image != "" {
		*src = tenfold.Source{}
		return nil
	}
	if src.Path == "" {
		if src.Path = "."; p.dir(string(name)) {
			src.Path = string(name)
		}
	}
	src.Context = src.Path
	if !p.has(path.Join(src.Path, dockerfile)) {
		return unknown(section, name, line, "there is no "+path.Join(src.Path, dockerfile), "path, or build: {dockerfile: <file below it>}")
	}
	return nil
}

// clearNothing turns what the manifest set to false into no command at all.
func clearNothing(b *tenfold.Build) {
	for _, c := range []*tenfold.Command{&b.Command, &b.Test} {
		if c.Shell == manifest.Nothing {
			*c = tenfold.Command{}
		}
	}
}

// context is the folder that a build needs: the entry's own when it stands by itself, else all.
func (p project) context(dir string) string {
	if dir == "." {
		return "."
	}
	own := func(names ...string) bool { return p.first(dir, names...) != "" }
	switch {
	case p.above(dir), p.has("go.work") && own("go.mod"):
		return "."
	case own("package.json"):
		j, _ := p.node(dir)
		for _, deps := range []map[string]string{j.Dependencies, j.DevDependencies} {
			for _, v := range deps {
				if strings.HasPrefix(v, "file:") || strings.HasPrefix(v, "link:") || strings.HasPrefix(v, "workspace:") {
					return "."
				}
			}
		}
		return dir
	case own("go.mod"):
		if strings.Contains(p.text(path.Join(dir, "go.mod")), "=> ../") {
			return "."
		}
		return dir
	case own("requirements.txt", "pyproject.toml", "Pipfile", "Gemfile", "composer.json", "deno.json", "deno.jsonc"):
		return dir
	case p.has("go.mod") && p.goMain(dir), p.first(".", "requirements.txt", "pyproject.toml", "package.json") != "":
		return "."
	}
	return dir
}

func describe(parts ...string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(parts), func(s string) bool { return s == "" }), ", ")
}

func unknown(section string, name tenfold.Name, line int, what, write string) *tenfold.Error {
	place := "tenfold.yaml"
	if line > 0 {
		place += ":" + itoa(line)
	}
	err := tenfold.Errorf(tenfold.CodeInvalid, "%s", what).WithHint("write under %s.%s: %s (%s)", section, name, write, place)
	err.Resource = strings.TrimSuffix(section, "s") + " " + string(name)
	return err
}
