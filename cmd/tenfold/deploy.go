package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tenfold"
	"tenfold/control"
)

func (c *cli) deployCommand() *cobra.Command {
	var dry, promote, abort, wait bool
	var file string
	cmd := &cobra.Command{
		Use:   "deploy [DIR]",
		Short: "Deploy a folder to the running house; Ctrl-C leaves the deploy going on. With --plan, only say the steps; with --promote or --abort, end one that is tried out",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api := c.client()
			defer api.Close()
			if promote || abort {
				return c.decide(cmd.Context(), api, args, promote, abort, wait)
			}
			r := control.DeployRequest{Dir: dirOf(args), File: file, Env: tenfold.Environment(c.env), App: tenfold.AppName(c.app), Plan: dry, Actor: actor()}
			env, err := c.deploy(cmd.Context(), api, r, time.Now())
			if cmd.Context().Err() != nil && env.App != "" {
				fmt.Fprintf(c.err, "\nthe deploy of %s goes on without you; follow it: tenfold events --follow --app %s\n", env.App, env.App)
				return exitStatus(tenfold.CodeCanceled.ExitStatus())
			}
			if err == nil && wait && !dry {
				return c.awaitWatch(cmd.Context(), api, env)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "return when the new version is not watched any more: with an error if it was taken back")
	cmd.Flags().BoolVar(&dry, "plan", false, "change nothing; print the steps that a deploy would take")
	cmd.Flags().BoolVar(&promote, "promote", false, "deploy nothing: let the canary on its way take over now, or old tasks that are warm go")
	cmd.Flags().BoolVar(&abort, "abort", false, "deploy nothing: give up the deploy on its way, or go back while old tasks are warm")
	cmd.Flags().StringVarP(&file, "file", "f", "", "manifest, instead of tenfold.yaml")
	return cmd
}

// decide ends a deploy that is tried out or watched.
func (c *cli) decide(ctx context.Context, api *control.Client, args []string, promote, abort, wait bool) error {
	switch {
	case promote && abort:
		return usage("--promote and --abort at once: which?")
	case len(args) > 0:
		return usage("--promote and --abort take no folder: name the app with --app")
	}
	env, err := c.target(ctx, api)
	if err != nil {
		return err
	}
	text, err := api.Decide(ctx, env, promote, actor())
	if err != nil {
		return err
	}
	if c.json {
		err = c.encode(map[string]string{"text": text})
	} else {
		fmt.Fprintln(c.err, text)
	}
	if err == nil && promote && wait {
		return c.awaitWatch(ctx, api, env)
	}
	return err
}

// awaitWatch waits until nothing of an environment is tried out or watched, and fails when what was deployed
// was taken back.
func (c *cli) awaitWatch(ctx context.Context, api *control.Client, env control.Env) error {
	begun := time.Now()
	revs, err := api.Revisions(ctx, env)
	if err != nil || len(revs) == 0 {
		return err
	}
	deployed := revs[0].Revision
	for {
		st, err := api.Status(ctx, env)
		if err != nil {
			return err
		}
		if revs, err = api.Revisions(ctx, env); err != nil {
			return err
		}
		i := slices.IndexFunc(revs, func(r control.Revision) bool { return r.Revision == deployed })
		if i >= 0 && revs[i].State == "failed" {
			return failedRevision(revs[i])
		}
		if !slices.ContainsFunc(st.Resources, func(r control.Resource) bool {
			return r.Trial != "" || r.State != tenfold.StateReady && r.Kind == tenfold.KindService
		}) {
			fmt.Fprintf(c.err, "%-*s %6s\n", textWidth+2, "watched: it stays", took(time.Since(begun)))
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// failedRevision is the error that a failed deployment ends a command with.
func failedRevision(rev control.Revision) error {
	first, rest, _ := strings.Cut(rev.Reason, "\n")
	e := tenfold.Errorf(tenfold.CodeFailed, "%s", first)
	e.Detail, e.Hint = rest, rev.Hint
	if rest == "" {
		e.Detail = "an earlier deployment serves on, if there was one. data is kept."
	}
	return e
}

// deploy asks for a revision and prints its steps until it serves or is given up on.
func (c *cli) deploy(ctx context.Context, api control.API, r control.DeployRequest, begun time.Time) (control.Env, error) {
	if err := c.upload(ctx, api, &r); err != nil {
		return control.Env{}, err
	}
	d, err := api.Deploy(ctx, r)
	if err != nil {
		return control.Env{}, err
	}
	if d.Inferred != "" && !c.json {
		fmt.Fprintf(c.err, "no tenfold.yaml: inferred from the project (keep it: tenfold init)\n\n%s\n\n", indent(d.Inferred))
	}
	for _, w := range d.Warnings {
		fmt.Fprintf(c.err, "warning: %s\n", w)
	}
	if r.Plan {
		return d.Env, c.printPlan(d)
	}
	return d.Env, c.follow(ctx, api, d, begun)
}

func (c *cli) printPlan(d control.Deployed) error {
	if c.json {
		return c.encode(d)
	}
	if len(d.Steps) == 0 {
		fmt.Fprintln(c.out, "nothing to do: what runs is what the manifest wants")
	}
	for _, s := range d.Steps {
		fmt.Fprintln(c.out, s)
	}
	return nil
}

// follow prints events until the revision is decided.
func (c *cli) follow(ctx context.Context, api control.API, d control.Deployed, begun time.Time) error {
	p := newProgress(c.err)
	rev, err := control.Watch(ctx, api, d, func() (control.Revision, error) { return waitFor(ctx, api, d) }, func(e tenfold.Event) error {
		if e.Severity != tenfold.SeverityError && e.Severity != tenfold.SeverityAlarm {
			c.show(p, e)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if rev.State == "failed" {
		return failedRevision(rev)
	}
	c.success(d, rev, begun)
	return nil
}

// waitFor asks for the outcome, again when the daemon was replaced meanwhile.
func waitFor(ctx context.Context, api control.API, d control.Deployed) (control.Revision, error) {
	for {
		rev, err := api.Wait(ctx, d.Env, d.Revision)
		if err == nil || ctx.Err() != nil {
			return rev, err
		}
		if code := tenfold.CodeOf(err); code != tenfold.CodeUnavailable && code != tenfold.CodeInternal && code != tenfold.CodeCanceled {
			return rev, err
		}
		client, ok := api.(*control.Client)
		if !ok {
			return rev, err
		}
		again, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, ready := client.Ready(again)
		cancel()
		if ready != nil {
			return rev, err
		}
	}
}

func (c *cli) success(d control.Deployed, rev control.Revision, begun time.Time) {
	if c.json {
		c.encode(map[string]any{"app": d.App, "env": d.Env.Env, "revision": rev.Revision, "urls": d.URLs, "kept": rev.Kept})
		return
	}
	for _, k := range rev.Kept {
		fmt.Fprintf(c.err, "! %s is not in the manifest: stopped, its data kept in %s (%s); remove it for good: %s\n", k.ID.Short(), k.Path, size(k.Bytes), k.Remove)
	}
	fmt.Fprintf(c.err, "\n%-*s %6s\n", textWidth+2, string(d.App)+" is up", took(time.Since(begun)))
	for i, u := range d.URLs {
		label := "app"
		if i > 0 {
			label = ""
		}
		fmt.Fprintf(c.out, "  %-8s %s\n", label, u)
	}
	if h, err := c.client().House(context.Background()); err == nil && h.Console != "" {
		fmt.Fprintf(c.out, "  %-8s %s\n", "console", h.Console)
	}
}
