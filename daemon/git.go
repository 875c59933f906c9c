package daemon

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/directory"
	"tenfold/internal/gitserver"
	"tenfold/internal/source"
	"tenfold/manifest"
)

// gitPath is where the git remote is served, below the console's host.
const gitPath = "/git/"

// newGit makes the git remote: a push is a deploy, and moves its branch only when that serves.
func (h *house) newGit(l Layout, token string) (*gitserver.Server, error) {
	return gitserver.New(gitserver.Config{Dir: l.Tier("git"), Auth: gitserver.TokenAuth(token), Push: h.pushed})
}

// withGit serves the remote, and the deliveries of Git hosts, beside the console. Both have their own
// authentication, and none of the console's rules for browsers.
func withGit(h *house, rest http.Handler) http.Handler {
	remote := http.StripPrefix(strings.TrimSuffix(gitPath, "/"), h.git)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, gitPath):
			remote.ServeHTTP(w, r)
		case strings.HasPrefix(r.URL.Path, directory.HooksPath):
			h.deliver(w, r)
		default:
			rest.ServeHTTP(w, r)
		}
	})
}

// sshRemote is the same remote over SSH.
type sshRemote struct {
	h    *house
	addr string
}

func (sshRemote) Name() string { return "git over SSH" }

func (s sshRemote) Run(ctx context.Context, ready func()) error {
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		return fmt.Errorf("listen for git over SSH: %w", err)
	}
	s.h.ssh.Store(l.Addr().String())
	ready()
	return s.h.git.ServeSSH(ctx, l)
}

// gitSource is a commit of a branch, wherever it came from.
type gitSource struct {
	App    tenfold.AppName
	Branch string
	Pull   int  // 0: a push of the branch
	Fork   bool // of the pull request
	Commit string
	Title  string
	Author string
	Actor  string // for the audit log
	Job    *gitJob
}

// gitOrigin is under which the sources of an environment are kept.
func gitOrigin(app tenfold.AppName, env tenfold.Environment) string {
	if env == "production" {
		return gitPath + string(app)
	}
	return gitPath + string(env) + "/" + string(app)
}

// pushed deploys what a branch is about to name. Its error keeps the branch where it was.
func (h *house) pushed(ctx context.Context, p gitserver.Push, progress io.Writer) error {
	if p.Dir == "" {
		return h.branchRemoved(ctx, tenfold.AppName(p.App), p.Branch, progress)
	}
	targets, err := targetsOf(p.Dir, p.Branch, false)
	if err != nil {
		return explained(err)
	}
	if len(targets) == 0 {
		fmt.Fprintf(progress, "%s is kept; environments.*.branch of the manifest names no environment for it\n", p.Branch)
		return nil
	}
	src := gitSource{App: tenfold.AppName(p.App), Branch: p.Branch, Commit: p.New, Author: p.By, Actor: "git push by " + p.By}
	for _, t := range targets {
		if _, err := h.deployBranch(ctx, t, src, p.Dir, progress); err != nil {
			return explained(err)
		}
	}
	return nil
}

// branchRemoved takes a branch's preview along. One that another environment is made of stays.
func (h *house) branchRemoved(ctx context.Context, app tenfold.AppName, branch string, progress io.Writer) error {
	for _, p := range h.previews.All() {
		if p.App == app && p.Branch == branch && p.Pull == 0 {
			if err := h.removePreview(ctx, p, "its branch was removed"); err != nil {
				return err
			}
			fmt.Fprintf(progress, "preview %s is removed\n", p.Env)
		}
	}
	envs, err := h.store.Environments(ctx)
	if err != nil {
		return err
	}
	for _, e := range envs {
		if _, isPreview := h.previews.Get(e.App + "/" + e.Env); e.App != string(app) || e.Goal == 0 || isPreview {
			continue
		}
		if rev, err := h.store.Revision(ctx, e.App, e.Env, e.Goal); err == nil && strings.HasSuffix(rev.Label, pushedTo+branch) {
			return tenfold.Errorf(tenfold.CodeConflict, "%s serves as %s and is not removed", branch, e.Env).WithHint("tenfold down --app %s --env %s", app, e.Env)
		}
	}
	return nil
}

// pushedTo stands in the label of what came by git, before the branch.
const pushedTo = " pushed to "

// errWaits says that a fork's commit is not deployed before a person approves of it.
type errWaits struct{ preview preview }

func (e errWaits) Error() string {
	return fmt.Sprintf("commit %s of a fork waits for approval: %s", short(e.preview.Commit), e.preview.approve())
}

// deployBranch deploys files to an environment and waits until they serve, telling progress.
func (h *house) deployBranch(ctx context.Context, t manifest.Target, src gitSource, dir string, progress io.Writer) (control.Deployed, error) {
	env := t.Env
	var p preview
	if t.Preview {
		env = instance(t, src.App, src.Branch, src.Pull, src.Fork)
		var err error
		p, err = h.openPreview(ctx, preview{
			App: src.App, Env: env, Branch: src.Branch, Pull: src.Pull, Fork: src.Fork, Commit: src.Commit, Title: src.Title, Author: src.Author, Job: src.Job,
		}, t)
		if err != nil {
			return control.Deployed{}, err
		}
		if p.Waits {
			return control.Deployed{}, errWaits{p}
		}
	}
	check := func() error { return nil }
	if t.Preview {
		check = func() error { return h.stands(p) }
	}
	d, err := h.deployFiles(ctx, env, src, dir, check, progress)
	if t.Preview {
		failed := ""
		if err != nil {
			failed = explained(err).Error()
		}
		if cerr := h.previews.Change(p.key(), func(r *preview) {
			if r.Created.Equal(p.Created) {
				r.Failed = failed
			}
		}); cerr != nil && err == nil {
			err = cerr
		}
	}
	if err != nil {
		return d, err
	}
	what := string(src.App)
	if env != "production" {
		what += " " + string(env)
	}
	fmt.Fprintf(progress, "%s is up: %s\n", what, strings.Join(d.URLs, " "))
	if len(p.Sealed) > 0 {
		if password, err := h.key.Open(p.Sealed); err == nil && !src.Fork && src.Pull == 0 {
			fmt.Fprintf(progress, "its password: %s (any user name)\n", password)
		}
	}
	return d, nil
}

func (h *house) deployFiles(ctx context.Context, env tenfold.Environment, src gitSource, dir string, check func() error, progress io.Writer) (control.Deployed, error) {
	packed := source.Packed(ctx, dir)
	files, err := h.Upload(ctx, gitOrigin(src.App, env), packed)
	packed.Close()
	if err != nil {
		return control.Deployed{}, err
	}
	d, err := h.deploy(ctx, control.DeployRequest{
		Dir: files, App: src.App, Env: env, Actor: src.Actor, Label: short(src.Commit) + pushedTo + src.Branch,
	}, src.Fork, check)
	if err != nil {
		return d, err
	}
	rev, err := control.Watch(ctx, h, d, func() (control.Revision, error) { return h.Wait(ctx, d.Env, d.Revision) }, func(e tenfold.Event) error {
		_, err := io.WriteString(progress, toPusher(e))
		return err
	})
	if err != nil {
		return d, err
	}
	if rev.State == "failed" {
		return d, tenfold.Errorf(tenfold.CodeFailed, "%s", rev.Reason).WithHint("%s", rev.Hint)
	}
	return d, nil
}

// toPusher is an event as who pushes reads it.
func toPusher(e tenfold.Event) string {
	mark := "!"
	switch e.Severity {
	case tenfold.SeverityProgress:
		mark = "·"
	case tenfold.SeverityInfo:
		mark = "✓"
	case tenfold.SeverityError, tenfold.SeverityAlarm:
		mark = "✗"
	}
	name := string(e.ID.Name)
	if name == "" {
		name = string(tenfold.KindEdge)
	}
	return fmt.Sprintf("%s %-6s %s\n", mark, name, strings.ReplaceAll(strings.TrimRight(e.Text, "\n"), "\n", "\n  "))
}

// explained puts an error's hint into its text: git shows nothing else of it.
func explained(err error) error {
	if hint := tenfold.HintOf(err); hint != "" {
		return fmt.Errorf("%w\nhint: %s", err, hint)
	}
	return err
}
