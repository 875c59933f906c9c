package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/secret"
	"tenfold/internal/source"
	"tenfold/internal/store"
	"tenfold/manifest"
	"tenfold/manifest/infer"
	"tenfold/plan"
	"tenfold/tier/edge"
)

// manifestName is the file that is read when none is named.
const manifestName = "tenfold.yaml"

// project is a manifest that was read, with what was inferred for it.
type project struct {
	text     []byte
	app      tenfold.App
	inferred string
	warnings []string
	values   map[string]string // secrets that the project itself offers: name to value
}

// Deploy implements control.API.
func (h *house) Deploy(ctx context.Context, r control.DeployRequest) (control.Deployed, error) {
	return h.deploy(ctx, r, false, func() error { return nil })
}

// makingFor is how long a revision may take to be made, before anything is built: others wait for their turn
// meanwhile, and one that hangs, on a disk that does not answer, must not keep it.
const makingFor = 5 * time.Minute

// deploy is Deploy; what a fork proposes gets nothing of the app's (distrust). check is asked while
// nothing else can deploy, up to the new goal.
func (h *house) deploy(ctx context.Context, r control.DeployRequest, fork bool, check func() error) (control.Deployed, error) {
	h.deploying.Lock()
	defer h.deploying.Unlock()
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, makingFor)
	defer cancel()
	d, err := h.makeRevision(ctx, r, fork, check)
	if err != nil && ctx.Err() != nil && whole.Err() == nil {
		return d, tenfold.Errorf(tenfold.CodeUnavailable, "the deployment was not made within %s: %w", makingFor, err).
			WithHint("are the sources on a disk that answers? deploy again: tenfold deploy")
	}
	return d, err
}

// makeRevision makes a revision from a project's folder, while it is its turn.
func (h *house) makeRevision(ctx context.Context, r control.DeployRequest, fork bool, check func() error) (control.Deployed, error) {
	if err := check(); err != nil {
		return control.Deployed{}, err
	}
	p, err := readProject(r)
	if err != nil {
		return control.Deployed{}, err
	}
	if err := h.ours(ctx, p.app, r.Dir); err != nil {
		return control.Deployed{}, err
	}
	if err := checkEngine(ctx, p.app); err != nil {
		return control.Deployed{}, err
	}
	owner := p.app.Name
	if fork {
		h.distrust(&p.app)
		owner = forkSecrets(p.app.Name, p.app.Env)
	}
	if err := h.settleSecrets(ctx, &p, owner, r.Plan); err != nil {
		return control.Deployed{}, err
	}
	if err := digest(ctx, &p.app); err != nil {
		return control.Deployed{}, err
	}
	if err := readPages(&p.app, r.Dir, h.layout.Tier("edge"), r.Plan); err != nil {
		return control.Deployed{}, err
	}
	if err := h.pin(&p.app); err != nil {
		return control.Deployed{}, err
	}
	env := control.Env{App: p.app.Name, Env: p.app.Env}
	d := control.Deployed{Env: env, Inferred: p.inferred, Warnings: p.warnings, URLs: h.urls(p.app)}
	if d.After, err = h.store.LastEvent(ctx); err != nil {
		return d, err
	}
	if r.Plan {
		d.Steps, err = h.dryRun(ctx, p.app)
		return d, err
	}
	desired, err := h.want(ctx, p.app)
	if err != nil {
		return d, tenfold.Errorf(tenfold.CodeInvalid, "%w", err)
	}
	if r.Label == "" {
		r.Label = source.Label(ctx, r.Dir)
	}
	if err := h.sayUnchanged(ctx, desired); err != nil {
		return d, err
	}
	return h.commit(ctx, d, p.app, store.Revision{Dir: r.Dir, Manifest: p.text, Actor: r.Actor, Label: r.Label})
}

// sourcesOf is where the files of an origin lie.
func (h *house) sourcesOf(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return filepath.Join(h.layout.Sources(), hex.EncodeToString(sum[:8]))
}

// sayUnchanged tells what a deploy builds nothing of: its sources and settings are those that serve.
func (h *house) sayUnchanged(ctx context.Context, desired []tenfold.Resource) error {
	observed, err := h.observe(ctx)
	if err != nil {
		return err
	}
	have := map[tenfold.ID]tenfold.Resource{}
	for _, o := range observed {
		have[o.ID] = o
	}
	for _, d := range desired {
		if o := have[d.ID]; d.ID.Kind == tenfold.KindBuild && plan.Serves(d, o) {
			h.hub.emit(tenfold.Event{ID: d.ID, Severity: tenfold.SeverityInfo, Text: "unchanged, not built again: " + o.Note})
		}
	}
	return nil
}

// Upload implements control.API. The folder of an origin keeps its name, by which an app without one
// is called; its files are replaced whole.
func (h *house) Upload(ctx context.Context, origin string, files io.Reader) (string, error) {
	base := filepath.Base(origin)
	if !filepath.IsAbs(origin) || base == "/" {
		return "", tenfold.Errorf(tenfold.CodeInvalid, "%q is not the absolute path of a project", origin)
	}
	room := h.sourcesOf(origin)
	if err := os.MkdirAll(room, 0o755); err != nil {
		return "", fmt.Errorf("take sources: %w", err)
	}
	fresh, err := os.MkdirTemp(room, ".new-")
	if err != nil {
		return "", fmt.Errorf("take sources: %w", err)
	}
	defer os.RemoveAll(fresh)
	if err := source.Unpack(ctx, files, filepath.Join(fresh, base)); err != nil {
		return "", tenfold.Errorf(tenfold.CodeInvalid, "%w", err)
	}
	h.deploying.Lock() // nobody reads the old files meanwhile
	defer h.deploying.Unlock()
	dir := filepath.Join(room, base)
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("take sources: %w", err)
	}
	if err := os.Rename(filepath.Join(fresh, base), dir); err != nil {
		return "", fmt.Errorf("take sources: %w", err)
	}
	return dir, nil
}

// commit stores app as a new revision and makes it the goal.
func (h *house) commit(ctx context.Context, d control.Deployed, app tenfold.App, r store.Revision) (control.Deployed, error) {
	r.App, r.Env, r.Created, r.State = string(app.Name), string(app.Env), time.Now(), "pending"
	if r.Manifest == nil {
		r.Manifest = []byte{}
	}
	n, err := h.store.AddRevision(ctx, r, func(n int64) ([]byte, error) {
		app.Revision = tenfold.Revision(n)
		return json.Marshal(app)
	})
	if err != nil {
		return d, err
	}
	d.Revision = tenfold.Revision(n)
	if err := h.store.Audit(ctx, store.Entry{
		At: r.Created, Actor: r.Actor, App: r.App, Env: r.Env, Revision: n,
		Verb: "deploy", Resource: "app " + r.App, Reason: "asked for from " + r.Dir,
	}); err != nil {
		return d, err
	}
	h.wake()
	return d, nil
}

func readProject(r control.DeployRequest) (project, error) {
	var p project
	if !filepath.IsAbs(r.Dir) {
		return p, tenfold.Errorf(tenfold.CodeInvalid, "the project's folder %q is not an absolute path", r.Dir)
	}
	if info, err := os.Stat(r.Dir); err != nil || !info.IsDir() {
		return p, tenfold.Errorf(tenfold.CodeNotFound, "no folder %s", r.Dir).WithHint("run this in the project's folder, or name it: tenfold up DIR")
	}
	root := os.DirFS(r.Dir)
	file := r.File
	if file == "" {
		file = manifestName
	}
	text, err := []byte(r.Text), error(nil)
	if r.Text == "" {
		text, err = readManifest(r.Dir, file)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && r.File == "":
		draft, err := infer.Infer(root, filepath.Base(r.Dir))
		if err != nil {
			return p, err
		}
		text, p.inferred = []byte(draft.Text), draft.Text
		p.warnings, p.values = draft.Warnings, draft.Secrets
	case errors.Is(err, fs.ErrNotExist):
		return p, tenfold.Errorf(tenfold.CodeNotFound, "no file %s in %s", file, r.Dir).WithHint("write one with tenfold init, or leave --file out")
	case err != nil:
		return p, err
	}
	m, err := manifest.Parse(file, text)
	if err != nil {
		return p, invalid(err)
	}
	env := r.Env
	if env == "" {
		env = "production"
	}
	m.Folder = filepath.Base(r.Dir)
	app, err := m.App(env)
	if err != nil {
		return p, invalid(err)
	}
	for _, w := range m.Warnings {
		p.warnings = append(p.warnings, w.String())
	}
	if r.App != "" {
		app = rename(app, r.App)
	}
	eachSource(&app, func(s *tenfold.Source) { s.Root = r.Dir })
	if _, err := infer.Resolve(root, &app); err != nil {
		return p, invalid(err)
	}
	p.text, p.app = text, app
	return p, nil
}

// readManifest reads a manifest of bounded size: Parse says what is wrong with a longer one.
func readManifest(dir, file string) ([]byte, error) {
	if !filepath.IsAbs(file) {
		file = filepath.Join(dir, file)
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > manifest.MaxSize {
		return nil, tenfold.Errorf(tenfold.CodeInvalid, "%s has %d bytes, at most %d are read", filepath.Base(file), info.Size(), manifest.MaxSize).WithHint("a manifest is a few hundred lines; was another file meant?")
	}
	return os.ReadFile(file)
}

func invalid(err error) error {
	var te *tenfold.Error
	if errors.As(err, &te) {
		return err
	}
	return tenfold.Errorf(tenfold.CodeInvalid, "%w", err)
}

// rename gives the app another name everywhere it stands in the App.
func rename(app tenfold.App, to tenfold.AppName) tenfold.App {
	b, err := json.Marshal(app)
	if err != nil {
		return app
	}
	from, _ := json.Marshal(string(app.Name))
	into, _ := json.Marshal(string(to))
	text := strings.ReplaceAll(string(b), `"app":`+string(from), `"app":`+string(into))
	var out tenfold.App
	if json.Unmarshal([]byte(text), &out) != nil {
		return app
	}
	out.Name = to
	return out
}

func eachSource(app *tenfold.App, f func(*tenfold.Source)) {
	for n, v := range app.Frontends {
		f(&v.Source)
		app.Frontends[n] = v
	}
	for n, v := range app.Services {
		f(&v.Source)
		app.Services[n] = v
	}
	for n, v := range app.Functions {
		f(&v.Source)
		app.Functions[n] = v
	}
}

// digest reads the sources, each context once.
func digest(ctx context.Context, app *tenfold.App) (err error) {
	seen := map[string]string{}
	eachSource(app, func(s *tenfold.Source) {
		if s.Context == "" {
			return // an image, whose sources are elsewhere
		}
		key := strings.Join(append([]string{s.Context}, s.Only...), "\x00")
		if _, ok := seen[key]; !ok && err == nil {
			seen[key], err = source.Digest(ctx, s.Root, s.Context, s.Only...)
		}
		s.Digest = seen[key]
	})
	if err != nil {
		return tenfold.Errorf(tenfold.CodeInvalid, "read sources: %w", err)
	}
	return nil
}

// ours refuses to take over the name of an app that runs from another folder. Who pushes to an app's remote,
// or connected a repository to it, named it by its address: that is no mistake, and what ran is taken over. The
// folder whose repository has the commit that was pushed is the same project, and may deploy after it.
func (h *house) ours(ctx context.Context, app tenfold.App, dir string) error {
	envs, err := h.store.Environments(ctx)
	if err != nil {
		return err
	}
	pushed := filepath.Join(h.sourcesOf(gitOrigin(app.Name, app.Env)), string(app.Name))
	for _, e := range envs {
		if e.App != string(app.Name) || e.Env != string(app.Env) || e.Goal == 0 {
			continue
		}
		rev, err := h.store.Revision(ctx, e.App, e.Env, e.Goal)
		if err != nil {
			return err
		}
		label := rev.Label
		if from, err := h.store.Revision(ctx, e.App, e.Env, rev.Origin); err == nil {
			label = from.Label // of what was rolled back to
		}
		commit, branch, byGit := strings.Cut(label, pushedTo)
		switch byGit = byGit && rev.Dir == pushed; {
		case dir == rev.Dir, dir == pushed, byGit && source.Has(ctx, dir, commit):
		case byGit:
			return tenfold.Errorf(tenfold.CodeConflict, "an app %s runs already: commit %s of branch %s, which came by git and is not in %s", app.Name, commit, branch, dir).
				WithHint("the same project? get that commit (git pull), or push: git push tenfold %s; else name this one otherwise (app: in tenfold.yaml)", branch)
		default:
			from := rev.Dir
			if from == pushed {
				from = "what was pushed by git"
			}
			return tenfold.Errorf(tenfold.CodeConflict, "an app %s runs already, from %s", app.Name, from).
				WithHint("name this one otherwise (app: in tenfold.yaml), or end that one: tenfold down --app %s", app.Name)
		}
	}
	return nil
}

// settleSecrets pins the version of each declared secret: the stored one, one that the project
// offers, or one made now. What is missing stops the deploy before anything is built.
func (h *house) settleSecrets(ctx context.Context, p *project, owner tenfold.AppName, dry bool) error {
	var missing []string
	versions := map[tenfold.Name]int64{}
	for _, name := range slices.Sorted(maps.Keys(p.app.Secrets)) {
		s := p.app.Secrets[name]
		have, err := h.store.Secret(ctx, string(owner), string(name), 0)
		if errors.Is(err, store.ErrNotFound) {
			err = nil // said below, with all that are missing
		}
		if err != nil {
			return err
		}
		s.Version = have.Version
		value, offered := p.values[string(name)]
		switch {
		case s.Version > 0:
		case dry && (offered || s.Generate > 0):
			s.Version = 1
		case offered:
			s.Version, err = h.SetSecret(ctx, owner, name, value)
		case s.Generate > 0:
			s.Version, err = h.SetSecret(ctx, owner, name, secret.Generate(s.Generate))
		default:
			missing = append(missing, string(name))
		}
		if err != nil {
			return err
		}
		p.app.Secrets[name] = s
		versions[name] = s.Version
	}
	if len(missing) > 0 {
		return tenfold.Errorf(tenfold.CodeInvalid, "these secrets have no value: %s", strings.Join(missing, ", ")).
			WithHint("tenfold secrets set %s --app %s", missing[0], p.app.Name)
	}
	pin := func(bs []tenfold.Binding) {
		for i, b := range bs {
			if b.From.Kind == tenfold.KindSecret {
				bs[i].Version = versions[b.From.Name]
			}
		}
	}
	for _, f := range p.app.Frontends {
		pin(f.Bindings)
		if f.Server != nil {
			pin(f.Server.Bindings)
		}
	}
	for _, s := range p.app.Services {
		pin(s.Bindings)
	}
	for _, f := range p.app.Functions {
		pin(f.Bindings)
	}
	for _, r := range p.app.Rules {
		for _, b := range r.Auth.Secrets() {
			b.Version = versions[b.From.Name]
		}
	}
	if d := p.app.Door.DNS; d != nil {
		d.Secret.Version = versions[d.Secret.From.Name]
		if dry {
			return nil // it may be one that is yet to be made
		}
		value, err := h.resolve(ctx, d.Secret)
		if err != nil {
			return err
		}
		return edge.CheckDNS(*d, value)
	}
	return nil
}

// dryRun lists the steps that a deploy would take, by playing the plan in a world where every step
// succeeds at once.
func (h *house) dryRun(ctx context.Context, app tenfold.App) ([]string, error) {
	desired, err := h.want(ctx, app)
	if err != nil {
		return nil, tenfold.Errorf(tenfold.CodeInvalid, "%w", err)
	}
	all, err := h.observe(ctx)
	if err != nil {
		return nil, err
	}
	world := map[tenfold.ID]tenfold.Resource{}
	for _, o := range ofEnv(all, store.Environment{App: string(app.Name), Env: string(app.Env)}) {
		world[o.ID] = o
	}
	lines := []string{}
	for {
		steps := plan.Next(desired, slices.Collect(maps.Values(world)))
		if len(steps) == 0 {
			return lines, nil
		}
		for _, s := range steps {
			lines = append(lines, s.String())
			o := s.Want
			switch s.Verb {
			case tenfold.VerbRemove:
				delete(world, o.ID)
				continue
			case tenfold.VerbStop:
				o.State, o.Goal, o.Serving = tenfold.StateStopped, "", ""
			default:
				o.State, o.Goal, o.Serving = tenfold.StateReady, o.Fingerprint, o.Fingerprint
			}
			world[o.ID] = o
		}
	}
}

// Rollback implements control.API.
func (h *house) Rollback(ctx context.Context, e control.Env, to tenfold.Revision) (control.Deployed, error) {
	h.deploying.Lock()
	defer h.deploying.Unlock()
	d := control.Deployed{Env: e}
	if to == 0 {
		var err error
		if to, err = h.before(ctx, e); err != nil {
			return d, err
		}
	}
	rev, err := h.store.Revision(ctx, string(e.App), string(e.Env), int64(to))
	if errors.Is(err, store.ErrNotFound) {
		return d, tenfold.Errorf(tenfold.CodeNotFound, "no deployment %d of %s", to, e.App).WithHint("list them: tenfold releases --app %s", e.App)
	}
	if err != nil {
		return d, err
	}
	if rev.State == "failed" {
		return d, tenfold.Errorf(tenfold.CodeConflict, "deployment %d of %s failed and never served", to, e.App).WithHint("choose one that served: tenfold releases --app %s", e.App)
	}
	var app tenfold.App
	if err := json.Unmarshal(rev.Document, &app); err != nil {
		return d, fmt.Errorf("read deployment %d of %s: %w", to, e.App, err)
	}
	d.URLs = h.urls(app)
	if d.After, err = h.store.LastEvent(ctx); err != nil {
		return d, err
	}
	origin := rev.Revision
	if rev.Origin > 0 {
		origin = rev.Origin
	}
	return h.commit(ctx, d, app, store.Revision{Dir: rev.Dir, Manifest: rev.Manifest, Actor: "rollback", Label: fmt.Sprintf("rollback to deployment %d", to), Origin: origin})
}

// before finds the newest revision that served before the one that serves now. After a rollback it
// counts from where that went, so that rolling back twice goes further back, not to and fro.
func (h *house) before(ctx context.Context, e control.Env) (tenfold.Revision, error) {
	revs, err := h.store.Revisions(ctx, string(e.App), string(e.Env), 1000)
	if err != nil {
		return 0, err
	}
	limit := int64(0)
	for _, r := range revs {
		if r.State == "serving" {
			limit = r.Origin
			if limit == 0 {
				limit = r.Revision
			}
		}
		if r.State == "superseded" && r.Origin == 0 && r.Revision < limit {
			return tenfold.Revision(r.Revision), nil
		}
	}
	return 0, tenfold.Errorf(tenfold.CodeNotFound, "%s has no earlier deployment", e.App).WithHint("list them: tenfold releases --app %s", e.App)
}
