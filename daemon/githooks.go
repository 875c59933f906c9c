package daemon

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/directory"
	"tenfold/internal/gitserver"
	"tenfold/internal/secret"
	"tenfold/internal/webhook"
)

// connection is an app's repository on a Git host.
type connection struct {
	App        tenfold.AppName  `json:"app"`
	URL        string           `json:"url"`
	Provider   webhook.Provider `json:"provider"`
	Repository string           `json:"repository"` // owner/name
	API        string           `json:"api,omitempty"`
	Token      tenfold.Name     `json:"token,omitempty"` // a secret of the app
	Sealed     []byte           `json:"sealed"`          // the hook's secret
}

// gitJob is a delivery that is to be done. It is stored before the delivery is answered, and gone when
// it is done: what the daemon's death interrupts is done again. Of one branch or pull request the
// newest counts.
type gitJob struct {
	App   tenfold.AppName `json:"app"`
	Event webhook.Event   `json:"event"`
	At    time.Time       `json:"at"`
}

// what says what did not happen.
func (j gitJob) what() string {
	switch e := j.Event; e.Action {
	case webhook.Deleted:
		return "what branch " + e.Branch + " had is not all removed with it"
	case webhook.Merged, webhook.Closed:
		return fmt.Sprintf("the preview of pull request %d is not removed", e.PullRequest)
	default:
		return fmt.Sprintf("%s of %s by %s is not deployed", short(e.Commit), e.Branch, e.Author)
	}
}

func (j gitJob) key() string {
	if j.Event.PullRequest > 0 {
		return fmt.Sprintf("%s/pull/%d", j.App, j.Event.PullRequest)
	}
	return string(j.App) + "/branch/" + hex.EncodeToString([]byte(j.Event.Branch))
}

// GitConnect implements control.API.
func (h *house) GitConnect(ctx context.Context, r control.GitConnect) (control.GitConnected, error) {
	u, err := url.Parse(r.URL)
	if err != nil || u.Scheme != "file" && u.Host == "" || u.User != nil && u.Scheme != "ssh" {
		return control.GitConnected{}, tenfold.Errorf(tenfold.CodeInvalid, "%q is not the address of a repository", r.URL).WithHint("https://github.com/owner/name; a token belongs into a secret: --token GIT_TOKEN")
	}
	c := connection{App: r.App, URL: r.URL, Provider: webhook.Provider(r.Kind), API: r.API, Token: r.Token, Repository: strings.Trim(strings.TrimSuffix(u.Path, ".git"), "/")}
	if c.Provider == "" {
		if c.Provider = providerOf(u.Hostname()); c.Provider == "" {
			return control.GitConnected{}, tenfold.Errorf(tenfold.CodeInvalid, "what %s speaks is not known", u.Hostname()).WithHint("say it: --kind github, gitlab, gitea (Forgejo too) or bitbucket")
		}
	}
	switch c.Provider {
	case webhook.GitHub, webhook.GitLab, webhook.Gitea, webhook.Bitbucket:
	default:
		return control.GitConnected{}, tenfold.Errorf(tenfold.CodeInvalid, "no kind of Git host is called %q", r.Kind).WithHint("one of: github, gitlab, gitea, bitbucket")
	}
	if c.API == "" {
		c.API = apiOf(c.Provider, u)
	}
	if c.Token != "" {
		if _, err := h.store.Secret(ctx, string(r.App), string(c.Token), 0); err != nil {
			return control.GitConnected{}, tenfold.Errorf(tenfold.CodeNotFound, "%s has no secret %s", r.App, c.Token).WithHint("tenfold secrets set %s --app %s", c.Token, r.App)
		}
	}
	old, known := h.connections.Get(string(r.App))
	hook := ""
	if known && old.URL == c.URL && !r.Rotate {
		if hook, err = h.key.Open(old.Sealed); err != nil {
			return control.GitConnected{}, err
		}
	} else {
		hook = secret.Generate(24)
	}
	if c.Sealed, err = h.key.Seal(hook); err != nil {
		return control.GitConnected{}, err
	}
	if err := h.connections.Update(string(r.App), func(x *connection) { *x = c }); err != nil {
		return control.GitConnected{}, err
	}
	h.receivers.Delete(r.App)
	if err := h.audit(ctx, r.App, "", "connect", "git "+c.URL, "asked for"); err != nil {
		return control.GitConnected{}, err
	}
	return control.GitConnected{Kind: string(c.Provider), Webhook: h.hookURL(ctx, r.App), Secret: hook, Posts: c.Token != ""}, nil
}

// GitDisconnect implements control.API.
func (h *house) GitDisconnect(ctx context.Context, app tenfold.AppName) error {
	c, ok := h.connections.Get(string(app))
	if !ok {
		return tenfold.Errorf(tenfold.CodeNotFound, "%s is not connected to a repository", app).WithHint("tenfold git connect URL --app %s", app)
	}
	if err := h.connections.Delete(string(app)); err != nil {
		return err
	}
	h.receivers.Delete(app)
	return h.audit(ctx, app, "", "disconnect", "git "+c.URL, "asked for")
}

// hookURL is where a Git host reaches the house: by the app's own domain, if it has one.
func (h *house) hookURL(ctx context.Context, app tenfold.AppName) string {
	a := tenfold.App{Name: app, Env: "production"}
	if e, err := h.environment(ctx, control.Env{App: app, Env: "production"}); err == nil && e.Goal > 0 {
		if got, err := h.app(ctx, e.App, e.Env, e.Goal); err == nil {
			a = got
		}
	}
	base := strings.TrimSuffix(h.console(), "/")
	if urls := h.urls(a); len(a.Domains) > 0 && len(urls) > 0 {
		base = strings.TrimSuffix(urls[0], "/")
	}
	return base + directory.HooksPath + string(app)
}

// providerOf tells the well-known hosts by their names.
func providerOf(host string) webhook.Provider {
	switch {
	case host == "github.com", strings.HasPrefix(host, "github."):
		return webhook.GitHub
	case host == "gitlab.com", strings.HasPrefix(host, "gitlab."):
		return webhook.GitLab
	case host == "bitbucket.org":
		return webhook.Bitbucket
	case host == "gitea.com", host == "codeberg.org", strings.HasPrefix(host, "gitea."), strings.HasPrefix(host, "forgejo."), strings.HasPrefix(host, "git."):
		return webhook.Gitea
	}
	return ""
}

// apiOf is where a host of one's own has its API; empty for the public ones, which Poster knows.
func apiOf(p webhook.Provider, u *url.URL) string {
	base := "https://" + u.Host
	if u.Scheme == "http" {
		base = "http://" + u.Host
	}
	switch {
	case u.Scheme == "file", u.Host == "github.com", u.Host == "gitlab.com", u.Host == "bitbucket.org", u.Host == "gitea.com":
		return ""
	case p == webhook.GitHub:
		return base + "/api/v3"
	case p == webhook.GitLab:
		return base + "/api/v4"
	case p == webhook.Gitea:
		return base + "/api/v1"
	}
	return base + "/2.0"
}

// receiver checks the deliveries of an app's hook; made once, since it remembers what it has seen.
func (h *house) receiver(app tenfold.AppName) (*webhook.Receiver, error) {
	if r, ok := h.receivers.Load(app); ok {
		return r.(*webhook.Receiver), nil
	}
	c, ok := h.connections.Get(string(app))
	if !ok {
		return nil, webhook.ErrUnsupported
	}
	secret, err := h.key.Open(c.Sealed)
	if err != nil {
		return nil, err
	}
	r, err := webhook.New(webhook.Config{Secret: []byte(secret), File: filepath.Join(h.layout.Tier("git"), "seen-"+string(app)+".json")})
	if err != nil {
		return nil, err
	}
	first, _ := h.receivers.LoadOrStore(app, r)
	return first.(*webhook.Receiver), nil
}

// deliver takes a delivery: checked, stored, answered; done later. What is wrong with it is told by a
// status alone, since whoever asks may be anybody.
func (h *house) deliver(w http.ResponseWriter, r *http.Request) {
	app := tenfold.AppName(strings.TrimPrefix(r.URL.Path, directory.HooksPath))
	refuse := func(err error) {
		status := webhook.StatusOf(err)
		if status >= 400 {
			h.log.Warn("webhook", "app", app, "status", status, "err", err)
		}
		http.Error(w, http.StatusText(status), status)
	}
	rec, err := h.receiver(app)
	if err != nil {
		http.NotFound(w, r) // whether there is such an app is nobody's business
		return
	}
	got, err := rec.Receive(r)
	if err != nil {
		refuse(err)
		return
	}
	c, _ := h.connections.Get(string(app))
	for _, e := range got.Events {
		if e.Kind == webhook.Other || !strings.EqualFold(e.Repository, c.Repository) && c.Repository != "" && !strings.HasPrefix(c.URL, "file:") {
			continue // a hook of another repository, or of nothing that is deployed
		}
		if err := h.enqueue(gitJob{App: app, Event: e, At: now()}); err != nil {
			rec.Forget(got)
			refuse(err)
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// enqueue stores a job and has it done.
func (h *house) enqueue(j gitJob) error {
	if err := h.jobs.Update(j.key(), func(x *gitJob) { *x = j }); err != nil {
		return err
	}
	select {
	case h.jobsWake <- struct{}{}:
	default:
	}
	return nil
}

// gitJobs does the jobs: of each app one after the other, of different apps side by side.
type gitJobs struct{ h *house }

func (gitJobs) Name() string { return "deliveries of Git hosts" }

func (g gitJobs) Run(ctx context.Context, ready func()) error {
	ready()
	var working sync.WaitGroup
	defer working.Wait()
	busy := map[tenfold.AppName]bool{}
	done := make(chan tenfold.AppName)
	for {
		for _, key := range g.h.jobs.Keys() {
			j, ok := g.h.jobs.Get(key)
			if !ok || busy[j.App] {
				continue
			}
			busy[j.App] = true
			working.Go(func() {
				g.h.do(ctx, key, j)
				select {
				case done <- j.App:
				case <-ctx.Done():
				}
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case app := <-done:
			delete(busy, app)
		case <-g.h.jobsWake:
		}
	}
}

// do does one job and forgets it, unless a newer one has taken its place or the daemon ends.
func (h *house) do(ctx context.Context, key string, j gitJob) {
	limited, cancel := context.WithTimeout(ctx, 45*time.Minute)
	defer cancel()
	if err := h.work(limited, j); err != nil {
		if ctx.Err() != nil {
			return // the next daemon does it
		}
		h.hub.emit(tenfold.Event{
			ID: tenfold.ID{App: j.App, Env: "production"}, Severity: tenfold.SeverityWarning,
			Text: j.what() + ": " + firstOf(err.Error()), Hint: tenfold.HintOf(err),
		})
	}
	if latest, ok := h.jobs.Get(key); ok && latest.At.Equal(j.At) {
		if err := h.jobs.Delete(key); err != nil {
			h.log.Error("forget delivery", "err", err)
		}
	}
}

func short(commit string) string { return commit[:min(7, len(commit))] }

func firstOf(s string) string { first, _, _ := strings.Cut(s, "\n"); return first }

func (h *house) work(ctx context.Context, j gitJob) error {
	e := j.Event
	c, ok := h.connections.Get(string(j.App))
	if !ok {
		return nil // disconnected meanwhile
	}
	switch e.Action {
	case webhook.Deleted:
		return h.branchRemoved(ctx, j.App, e.Branch, io.Discard)
	case webhook.Merged, webhook.Closed:
		for _, p := range h.previews.All() {
			if p.App == j.App && p.Pull == e.PullRequest {
				if err := h.removePreview(ctx, p, "its pull request was "+string(e.Action)); err != nil {
					return err
				}
			}
		}
		return nil
	}
	f, err := h.fetchOf(ctx, c, e)
	if err != nil {
		return err
	}
	// Nobody waits at the other end: what a push would print stands in the events.
	err = h.git.Fetch(ctx, f, io.Discard, func(dir, commit string) error {
		return h.deployEvent(ctx, c, j, dir, commit)
	})
	if errors.Is(err, gitserver.ErrMoved) {
		return tenfold.Errorf(tenfold.CodeConflict, "%w", err).WithHint("the newer commit is told of by a delivery of its own")
	}
	return err
}

// fetchOf is where a commit is fetched: at the connected address. Only of Bitbucket's forks, which it
// keeps no ref of, at the fork's own, and without credentials.
func (h *house) fetchOf(ctx context.Context, c connection, e webhook.Event) (gitserver.Fetch, error) {
	f := gitserver.Fetch{URL: c.URL, Ref: e.Ref, Commit: e.Commit, File: strings.HasPrefix(c.URL, "file:")}
	if c.Provider == webhook.Bitbucket && e.Fork {
		f.URL, f.File = e.CloneURL, false
		return f, nil
	}
	if c.Token == "" {
		return f, nil
	}
	token, err := h.tokenOf(ctx, c)
	if err != nil {
		return f, err
	}
	f.User = map[webhook.Provider]string{webhook.GitHub: "x-access-token", webhook.GitLab: "oauth2", webhook.Gitea: "git", webhook.Bitbucket: "x-token-auth"}[c.Provider]
	f.Password = token
	return f, nil
}

func (h *house) tokenOf(ctx context.Context, c connection) (string, error) {
	return h.resolve(ctx, tenfold.Binding{From: tenfold.ID{App: c.App, Kind: tenfold.KindSecret, Name: c.Token}, Field: tenfold.FieldValue})
}

// deployEvent deploys fetched files to all environments of their branch, and tells the Git host.
func (h *house) deployEvent(ctx context.Context, c connection, j gitJob, dir, commit string) error {
	e := j.Event
	pull := e.Kind == webhook.PullRequest
	targets, err := targetsOf(dir, e.Branch, pull)
	if err != nil {
		h.post(ctx, c, e, commit, webhook.Failure, "the manifest cannot be read: "+firstOf(err.Error()), "")
		return err
	}
	src := gitSource{App: j.App, Branch: e.Branch, Pull: e.PullRequest, Fork: e.Fork, Commit: commit, Title: e.Title, Author: e.Author, Actor: string(c.Provider) + " push by " + e.Author, Job: &j}
	for _, t := range targets {
		if !pull && t.Preview && h.pulled(j.App, e.Branch) {
			continue // its pull request has a preview already
		}
		h.post(ctx, c, e, commit, webhook.Pending, "deploying to "+string(t.Env), "")
		d, err := h.deployBranch(ctx, t, src, dir, io.Discard)
		var waits errWaits
		switch {
		case errors.As(err, &waits):
			h.hub.emit(tenfold.Event{
				ID: tenfold.ID{App: j.App, Env: "production"}, Severity: tenfold.SeverityWarning,
				Text: fmt.Sprintf("pull request %d of %s waits for approval: it comes from a fork", e.PullRequest, e.Author),
				Hint: fmt.Sprintf("read %s, then: %s", e.URL, waits.preview.approve()),
			})
			h.post(ctx, c, e, commit, webhook.Pending, "waiting for approval by a maintainer", "")
			continue
		case err != nil:
			h.post(ctx, c, e, commit, webhook.Failure, firstOf(err.Error()), "")
			if pull {
				h.comment(ctx, c, e, fmt.Sprintf("Commit %s was not deployed:\n\n```\n%s\n```", short(commit), clip(explained(err).Error(), 4000)))
			}
			return err
		}
		address := ""
		if len(d.URLs) > 0 {
			address = d.URLs[0]
		}
		h.post(ctx, c, e, commit, webhook.Success, "serves as "+string(d.Env.Env), address)
		if pull {
			text := fmt.Sprintf("Preview of %s: %s", short(commit), address)
			if p, _ := h.previews.Get(string(j.App) + "/" + string(d.Env.Env)); p.Hash != "" {
				text += fmt.Sprintf("\n\nIts password: `tenfold preview list --app %s`, on the server.", j.App)
			}
			h.comment(ctx, c, e, text)
		}
	}
	return nil
}

// pulled says that a pull request of the repository itself has a preview of a branch.
func (h *house) pulled(app tenfold.AppName, branch string) bool {
	for _, p := range h.previews.All() {
		if p.App == app && p.Branch == branch && p.Pull > 0 && !p.Fork {
			return true
		}
	}
	return false
}

func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return "…" + strings.ToValidUTF8(s[len(s)-most:], "")
}

// post tells the Git host how a commit stands. A host that does not listen fails nothing.
func (h *house) post(ctx context.Context, c connection, e webhook.Event, commit string, s webhook.State, text, address string) {
	h.tell(ctx, c, func(p webhook.Poster) error {
		return p.Status(ctx, e.Repository, webhook.Status{Commit: commit, State: s, URL: address, Description: text})
	})
}

// comment writes the one comment of a pull request.
func (h *house) comment(ctx context.Context, c connection, e webhook.Event, text string) {
	h.tell(ctx, c, func(p webhook.Poster) error {
		return p.Comment(ctx, e.Repository, e.PullRequest, string(c.App), text)
	})
}

// tellPauses are between attempts to tell a Git host something.
var tellPauses = []time.Duration{time.Second, 5 * time.Second}

func (h *house) tell(ctx context.Context, c connection, say func(webhook.Poster) error) {
	if c.Token == "" {
		return
	}
	token, err := h.tokenOf(ctx, c)
	for i := 0; err == nil; i++ {
		err = say(webhook.Poster{Provider: c.Provider, Base: c.API, Token: token})
		var refused *webhook.ResponseError
		if err == nil {
			return
		}
		if i == len(tellPauses) || errors.As(err, &refused) && refused.Code < 500 && refused.Code != http.StatusTooManyRequests {
			break
		}
		select {
		case <-time.After(tellPauses[i]):
			err = nil
		case <-ctx.Done():
			return
		}
	}
	h.log.Warn("tell the Git host", "app", c.App, "err", err)
}
