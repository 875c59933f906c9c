package daemon

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/gitserver"
	"tenfold/internal/source"
)

// gitPath is where the git remote is served, below the console's host.
const gitPath = "/git/"

// newGit makes the git remote: a push of the default branch is a deploy, and moves the branch only
// when it serves.
func (h *house) newGit(l Layout, token string) (*gitserver.Server, error) {
	return gitserver.New(gitserver.Config{Dir: l.Tier("git"), Auth: gitserver.TokenAuth(token), Push: h.pushed})
}

// withGit serves the remote beside the console. It has its own authentication, and none of the
// console's rules for browsers.
func withGit(git *gitserver.Server, rest http.Handler) http.Handler {
	remote := http.StripPrefix(strings.TrimSuffix(gitPath, "/"), git)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, gitPath) {
			remote.ServeHTTP(w, r)
			return
		}
		rest.ServeHTTP(w, r)
	})
}

// pushed deploys what a branch is about to name. Its error keeps the branch where it was.
func (h *house) pushed(ctx context.Context, p gitserver.Push, progress io.Writer) error {
	if p.Branch != "main" && p.Branch != "master" {
		fmt.Fprintf(progress, "%s is kept; main and master are deployed\n", p.Branch)
		return nil
	}
	if p.Dir == "" {
		return tenfold.Errorf(tenfold.CodeConflict, "%s serves and is not removed", p.Branch).WithHint("tenfold down --app %s", p.App)
	}
	packed := source.Packed(ctx, p.Dir)
	dir, err := h.Upload(ctx, gitPath+p.App, packed)
	packed.Close()
	if err != nil {
		return err
	}
	d, err := h.Deploy(ctx, control.DeployRequest{
		Dir: dir, App: tenfold.AppName(p.App), Actor: "git push by " + p.By, Label: p.New[:min(7, len(p.New))] + " pushed to " + p.Branch,
	})
	if err != nil {
		return explained(err)
	}
	events, stop := context.WithCancel(ctx)
	told := make(chan struct{})
	go func() {
		defer close(told)
		h.Events(events, control.EventQuery{Env: d.Env, After: d.After, Follow: true}, func(e tenfold.Event) error {
			mark := "✓"
			if e.Severity != tenfold.SeverityInfo {
				mark = "!"
			}
			_, err := fmt.Fprintf(progress, "%s %-6s %s\n", mark, e.ID.Name, strings.ReplaceAll(e.Text, "\n", "\n  "))
			return err
		})
	}()
	rev, err := h.Wait(ctx, d.Env, d.Revision)
	select { // what was stored before the outcome is still on its way
	case <-time.After(100 * time.Millisecond):
	case <-told:
	}
	stop()
	<-told
	if err != nil {
		return err
	}
	if rev.State == "failed" {
		return explained(tenfold.Errorf(tenfold.CodeFailed, "%s", rev.Reason).WithHint("%s", rev.Hint))
	}
	fmt.Fprintf(progress, "%s is up: %s\n", d.Env.App, strings.Join(d.URLs, " "))
	return nil
}

// explained puts an error's hint into its text: git shows nothing else of it.
func explained(err error) error {
	if hint := tenfold.HintOf(err); hint != "" {
		return fmt.Errorf("%w\nhint: %s", err, hint)
	}
	return err
}
