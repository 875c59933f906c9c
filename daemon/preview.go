package daemon

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/lazy"
	"tenfold/manifest"
	"tenfold/manifest/infer"
	"tenfold/tier/edge"
)

// preview is an environment that a branch or a pull request has for itself. It is the one thing that
// is removed without being named by a person, with its data: whoever made it said for how long.
type preview struct {
	App     tenfold.AppName     `json:"app"`
	Env     tenfold.Environment `json:"env"`
	Branch  string              `json:"branch"`
	Pull    int                 `json:"pull,omitempty"`
	Fork    bool                `json:"fork,omitempty"`
	Commit  string              `json:"commit"`
	Title   string              `json:"title,omitempty"`
	Author  string              `json:"author,omitempty"`
	Created time.Time           `json:"created"`
	Expires time.Time           `json:"expires,omitzero"`
	// Waits says that a person has to approve Commit first; Approved is the last commit that one did.
	Waits    bool   `json:"waits,omitempty"`
	Approved string `json:"approved,omitempty"`
	// Sealed is the password, Hash what the door compares with; both empty: none is asked.
	Sealed []byte `json:"sealed,omitempty"`
	Hash   string `json:"hash,omitempty"`
	// Failed is why the last deploy did not serve.
	Failed string `json:"failed,omitempty"`
	// Job is what brought the commit, to deploy it once it is approved.
	Job *gitJob `json:"job,omitempty"`
	// Removing says that it is being taken away: nothing of it is deployed any more.
	Removing bool `json:"removing,omitempty"`
}

// approve is the command that has what waits deployed.
func (p preview) approve() string {
	return fmt.Sprintf("tenfold preview approve %s --app %s --commit %s", p.Env, p.App, short(p.Commit))
}

func (p preview) key() string { return string(p.App) + "/" + string(p.Env) }

// lockPreview keeps a preview to one that opens, approves or removes it, until the returned function is
// called.
func (h *house) lockPreview(key string) (unlock func()) {
	l, _ := h.previewing.LoadOrStore(key, new(sync.Mutex))
	l.(*sync.Mutex).Lock()
	return l.(*sync.Mutex).Unlock
}

// previewPace is how often previews are looked at.
const previewPace = time.Minute

// targetsOf says where a branch of a project is deployed, by the manifest in dir.
func targetsOf(dir, branch string, pull bool) ([]manifest.Target, error) {
	text, err := readManifest(dir, manifestName)
	if errors.Is(err, fs.ErrNotExist) {
		draft, err := infer.Infer(os.DirFS(dir), filepath.Base(dir))
		if err != nil {
			return nil, err
		}
		text = []byte(draft.Text)
	} else if err != nil {
		return nil, err
	}
	m, err := manifest.Parse(manifestName, text)
	if err != nil {
		return nil, invalid(err)
	}
	return m.Targets(branch, pull), nil
}

// mostLabel is how long a label of a preview's host may be: with the app's it has to fit a name of DNS.
const mostLabel = 40

// usual is the environment that gives previews their settings, unless the manifest has several such.
const usual = "preview"

// hashed is how a label ends that has a hash.
var hashed = lazy.Regexp(`-[0-9a-f]{5}$`)

// instance names the environment of a branch or a pull request below a template. Neither two of them
// nor one and another environment of the app share a host, and of a preview the label alone is in it:
// where letters were lost, or the label could be another's, a hash of the whole makes the difference.
func instance(t manifest.Target, app tenfold.AppName, branch string, pull int, fork bool) tenfold.Environment {
	whole, label := branch, ""
	if t.Env != usual {
		whole = string(t.Env) + "/" + whole
	}
	if fork {
		if label = fmt.Sprintf("pr-%d", pull); t.Env == usual {
			return t.Env + "/" + tenfold.Environment(label)
		}
		whole = string(t.Env) + "/" + label
	} else {
		label = labelOf(branch)
	}
	// pr-7 is a fork's, and the host of the app itself and of a stage is no branch's.
	if label != whole || len(label) > mostLabel || strings.HasPrefix(label, "pr-") || hashed.MatchString(label) ||
		label == string(app) || label == "production" || label == "staging" || slices.Contains(t.Named, label) {
		sum := sha256.Sum256([]byte(whole))
		label = strings.Trim(label[:min(len(label), mostLabel-6)], "-") + "-" + hex.EncodeToString(sum[:])[:5]
		label = strings.TrimPrefix(label, "-")
	}
	return t.Env + "/" + tenfold.Environment(label)
}

// labelOf is a branch in the letters of a host name.
func labelOf(branch string) string {
	label := strings.Trim(strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			return c
		case c >= 'A' && c <= 'Z':
			return c - 'A' + 'a'
		}
		return '-'
	}, branch), "-")
	for strings.Contains(label, "--") {
		label = strings.ReplaceAll(label, "--", "-")
	}
	return label
}

// makePassword makes one that can be read out: 20 letters and digits that nobody confuses.
func makePassword() string {
	const letters = "abcdefghjkmnpqrstuvwxyz23456789"
	b := make([]byte, 20)
	rand.Read(b)
	for i := range b {
		b[i] = letters[int(b[i])%len(letters)]
	}
	return string(b)
}

// openPreview makes or renews the record of a preview, before anything of it is deployed: a site is
// never there without its password.
func (h *house) openPreview(ctx context.Context, p preview, t manifest.Target) (preview, error) {
	defer h.lockPreview(p.key())()
	old, known := h.previews.Get(p.key())
	if known && old.Removing { // and that was cut off
		if err := h.remove(ctx, old, "it is made anew"); err != nil {
			return p, err
		}
		known = false
	}
	if known {
		p.Created, p.Approved, p.Sealed, p.Hash = old.Created, old.Approved, old.Sealed, old.Hash
	} else {
		p.Created = now()
	}
	p.Expires = now().Add(t.Keep)
	switch open := t.Open && !p.Fork; {
	case open:
		p.Sealed, p.Hash = nil, ""
	case p.Hash == "":
		password := makePassword()
		hash, err := edge.HashPassword(password)
		if err != nil {
			return p, err
		}
		if p.Sealed, err = h.key.Seal(password); err != nil {
			return p, err
		}
		p.Hash = hash
	}
	p.Waits = p.Fork && p.Approved != p.Commit
	return p, h.previews.Update(p.key(), func(r *preview) { *r = p })
}

// stands says whether p is still the preview that was opened: it is not removed meanwhile, so that what
// is deployed to it has its password. For deploy: remove says Removing while none is under way.
func (h *house) stands(p preview) error {
	if now, ok := h.previews.Get(p.key()); ok && !now.Removing && now.Created.Equal(p.Created) {
		return nil
	} else if !ok {
		if err := os.RemoveAll(h.sourcesOf(gitOrigin(p.App, p.Env))); err != nil {
			h.log.Error("remove sources", "env", p.Env, "err", err)
		}
	}
	return tenfold.Errorf(tenfold.CodeConflict, "the preview %s was removed while %s was on its way to it", p.Env, short(p.Commit)).WithHint("push again to have another")
}

// sitePassword is what the door asks for before an environment, as a hash.
func (h *house) sitePassword(app tenfold.AppName, env tenfold.Environment) string {
	p, _ := h.previews.Get(string(app) + "/" + string(env))
	return p.Hash
}

// Previews implements control.API.
func (h *house) Previews(ctx context.Context, app tenfold.AppName) ([]control.Preview, error) {
	out := []control.Preview{}
	for _, p := range h.previews.All() {
		if app != "" && p.App != app {
			continue
		}
		v := control.Preview{
			Env: control.Env{App: p.App, Env: p.Env}, Branch: p.Branch, Pull: p.Pull, Fork: p.Fork, Commit: p.Commit, Title: p.Title, Author: p.Author,
			Created: p.Created, Expires: p.Expires, State: "deploying", Reason: p.Failed, URL: h.url(p.App, p.Env),
		}
		if len(p.Sealed) > 0 {
			password, err := h.key.Open(p.Sealed)
			if err != nil {
				return nil, fmt.Errorf("read the password of %s: %w", p.Env, err)
			}
			v.Password = password
		}
		e, err := h.environment(ctx, v.Env)
		switch {
		case p.Removing:
			v.State = "being removed"
		case p.Waits:
			v.State = "waiting for approval"
		case p.Failed != "":
			v.State = "failed"
		case err == nil && e.Goal == 0:
			v.State = "stopped"
		case err == nil && e.Goal > 0 && e.Goal == e.Serving:
			v.State = "serving"
			if a, err := h.app(ctx, e.App, e.Env, e.Goal); err == nil {
				if urls := h.urls(a); len(urls) > 0 {
					v.URL = urls[0]
				}
			}
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b control.Preview) int {
		return strings.Compare(string(a.App)+string(a.Env.Env), string(b.App)+string(b.Env.Env))
	})
	return out, nil
}

// findPreview takes the whole name of a preview's environment, what follows the slash, or a number.
func (h *house) findPreview(app tenfold.AppName, name string) (preview, error) {
	var found []preview
	for _, p := range h.previews.All() {
		_, short, _ := strings.Cut(string(p.Env), "/")
		if (app == "" || p.App == app) && (string(p.Env) == name || short == name || p.Branch == name || p.Pull > 0 && fmt.Sprint(p.Pull) == strings.TrimPrefix(name, "#")) {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 0:
		return preview{}, tenfold.Errorf(tenfold.CodeNotFound, "no preview %q", name).WithHint("list them: tenfold preview list")
	case 1:
		return found[0], nil
	}
	return preview{}, tenfold.Errorf(tenfold.CodeConflict, "%q could be %d previews", name, len(found)).WithHint("name the app, --app %s, or the whole environment: %s", found[0].App, found[0].Env)
}

// RemovePreview implements control.API.
func (h *house) RemovePreview(ctx context.Context, app tenfold.AppName, name string) error {
	p, err := h.findPreview(app, name)
	if err != nil {
		return err
	}
	return h.removePreview(ctx, p, "asked for")
}

// ApprovePreview implements control.API. Only the commit that waits now is approved: what the fork
// pushes next waits again.
func (h *house) ApprovePreview(ctx context.Context, app tenfold.AppName, name, commit string) (control.Preview, error) {
	p, err := h.findPreview(app, name)
	if err != nil {
		return control.Preview{}, err
	}
	if !p.Waits || p.Job == nil {
		return control.Preview{}, tenfold.Errorf(tenfold.CodeConflict, "%s does not wait for approval", p.Env).WithHint("list previews: tenfold preview list")
	}
	if !strings.HasPrefix(p.Commit, commit) {
		return control.Preview{}, tenfold.Errorf(tenfold.CodeConflict, "another commit waits by now: %s of %s", short(p.Commit), p.Author).WithHint("read it, then: %s", p.approve())
	}
	defer h.lockPreview(p.key())()
	if fresh, ok := h.previews.Get(p.key()); !ok || !fresh.Waits || fresh.Removing || fresh.Commit != p.Commit {
		return control.Preview{}, tenfold.Errorf(tenfold.CodeConflict, "another commit of %s came just now, or it was removed", p.Env).WithHint("list previews: tenfold preview list")
	}
	if err := h.previews.Change(p.key(), func(r *preview) { r.Approved, r.Waits = p.Commit, false }); err != nil {
		return control.Preview{}, err
	}
	if err := h.audit(ctx, p.App, p.Env, "approve", "preview "+string(p.Env), "commit "+p.Commit+" of "+p.Author); err != nil {
		return control.Preview{}, err
	}
	// A job of its own: the one that found out that the commit waits may be under way still, and forgets
	// itself when it is done. A newer delivery has this one's place already, and waits for approval again.
	j := *p.Job
	j.At = now()
	if next, ok := h.jobs.Get(j.key()); !ok || next.Event.Commit == j.Event.Commit {
		if err := h.enqueue(j); err != nil {
			return control.Preview{}, err
		}
	}
	all, err := h.Previews(ctx, p.App)
	if err != nil {
		return control.Preview{}, err
	}
	for _, v := range all {
		if v.Env.Env == p.Env {
			return v, nil
		}
	}
	return control.Preview{}, nil
}

// removePreview takes a preview away with all that is its own: tasks, data, releases, logs, sources.
// It may be called again when it was cut off.
func (h *house) removePreview(ctx context.Context, p preview, why string) error {
	defer h.lockPreview(p.key())()
	if fresh, ok := h.previews.Get(p.key()); !ok || !fresh.Created.Equal(p.Created) {
		return nil // somebody else was first
	}
	return h.remove(ctx, p, why)
}

// remove is removePreview for one that holds the preview's lock.
func (h *house) remove(ctx context.Context, p preview, why string) error {
	h.deploying.Lock() // what is being deployed is its goal by now, or will not be (stands)
	err := h.previews.Change(p.key(), func(r *preview) { r.Removing = true })
	h.deploying.Unlock()
	if err != nil {
		return fmt.Errorf("remove preview %s: %w", p.Env, err)
	}
	e := control.Env{App: p.App, Env: p.Env}
	if _, err := h.environment(ctx, e); err == nil {
		if err := h.Down(ctx, e); err != nil {
			return fmt.Errorf("remove preview %s: %w", p.Env, err)
		}
		kept, err := h.Kept(ctx)
		if err != nil {
			return fmt.Errorf("remove preview %s: %w", p.Env, err)
		}
		for _, k := range kept {
			if k.ID.App == p.App && k.ID.Env == p.Env {
				if err := h.RemoveData(ctx, k.ID); err != nil {
					return fmt.Errorf("remove preview %s: %w", p.Env, err)
				}
			}
		}
		if err := h.store.Forget(ctx, string(p.App), string(p.Env)); err != nil {
			return fmt.Errorf("remove preview %s: %w", p.Env, err)
		}
	}
	if err := h.forgetForkSecrets(ctx, p); err != nil {
		return err
	}
	for _, tier := range []interface {
		Forget(context.Context, tenfold.AppName, tenfold.Environment) error
	}{h.compute, h.function, h.frontend} {
		if err := tier.Forget(ctx, p.App, p.Env); err != nil {
			return fmt.Errorf("remove preview %s: %w", p.Env, err)
		}
	}
	if err := h.compute.PruneBuilds(h.builds()); err != nil {
		return fmt.Errorf("remove preview %s: %w", p.Env, err)
	}
	for _, dir := range []string{
		h.sourcesOf(gitOrigin(p.App, p.Env)),
		edge.LogPath(h.layout.Tier("edge"), string(p.App), string(p.Env)),
	} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove preview %s: %w", p.Env, err)
		}
	}
	if err := h.previews.Delete(p.key()); err != nil {
		return fmt.Errorf("remove preview %s: %w", p.Env, err)
	}
	h.hub.emit(tenfold.Event{
		ID: tenfold.ID{App: p.App, Env: "production"}, Severity: tenfold.SeverityInfo,
		Text: fmt.Sprintf("preview %s of %s is removed: %s", p.Env, p.Branch, why),
	})
	return h.audit(ctx, p.App, p.Env, "remove", "preview "+string(p.Env), why)
}

// previewLife removes previews whose time is over.
type previewLife struct{ h *house }

func (previewLife) Name() string { return "previews" }

func (l previewLife) Run(ctx context.Context, ready func()) error {
	ready()
	tick := time.NewTicker(previewPace)
	defer tick.Stop()
	for {
		for _, p := range l.h.previews.All() {
			why := "asked for, and cut off" // Removing
			if !p.Removing {
				why = "nothing was pushed for as long as it is kept"
				if p.Expires.IsZero() || !now().After(p.Expires) {
					continue
				}
			}
			if err := l.h.removePreview(ctx, p, why); err != nil && ctx.Err() == nil {
				l.h.log.Error("remove preview", "env", p.Env, "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
