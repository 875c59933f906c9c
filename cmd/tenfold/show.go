package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/container"
)

// asking makes a command that asks the house about one environment.
func (c *cli) asking(use, short string, args cobra.PositionalArgs, f func(context.Context, *control.Client, control.Env, []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
		api := c.client()
		defer api.Close()
		env, err := c.target(cmd.Context(), api)
		if err != nil {
			return err
		}
		return f(cmd.Context(), api, env, args)
	}}
}

func (c *cli) statusCommand() *cobra.Command {
	return c.asking("status", "How the app is, thing by thing", cobra.NoArgs, func(ctx context.Context, api *control.Client, env control.Env, _ []string) error {
		st, err := api.Status(ctx, env)
		if err != nil {
			return err
		}
		if c.json {
			return c.encode(st)
		}
		head := fmt.Sprintf("%s  %s on box  %s", st.App, st.Env.Env, st.State)
		if st.Revision > 0 {
			head += fmt.Sprintf("  deployment %d, %s", st.Revision, ago(st.Changed))
		}
		if st.Label != "" {
			head += ", " + st.Label
		}
		fmt.Fprintln(c.out, head)
		if len(st.URLs) > 0 {
			t := st.Traffic
			share := 0.0
			if t.Requests > 0 {
				share = 100 * float64(t.Errors) / float64(t.Requests)
			}
			hits := ""
			if t.Hits > 0 {
				hits = fmt.Sprintf("  cache hits %.0f%%", 100*float64(t.Hits)/float64(t.Requests))
			}
			fmt.Fprintf(c.out, "%s  %.1f req/s  p95 %.0fms  errors %.2f%%%s\n", st.URLs[0], t.Rate, t.P95, share, hits)
		}
		fmt.Fprintln(c.out)
		rows := [][]string{{"NAME", "KIND", "STATE", "NOW", "NOTE"}}
		for _, r := range st.Resources {
			note, _, _ := strings.Cut(r.Reason, "\n")
			rows = append(rows, []string{string(r.Name), string(r.Kind), string(r.State), r.Now, note})
		}
		table(c.out, rows)
		isolation(c.out, st.Tasks)
		for _, k := range st.Certificates {
			switch {
			case k.Error != "":
				fmt.Fprintf(c.out, "\ncertificate of %s: %s\n", k.Host, k.Error)
				if k.Hint != "" {
					fmt.Fprintf(c.out, "  hint: %s\n", k.Hint)
				}
			case k.NotAfter.IsZero():
				fmt.Fprintf(c.out, "\ncertificate of %s: being got\n", k.Host)
			default:
				fmt.Fprintf(c.out, "\ncertificate of %s: by %s until %s\n", k.Host, k.Issuer, k.NotAfter.Local().Format(time.DateOnly))
			}
		}
		for _, k := range st.Kept {
			fmt.Fprintf(c.out, "\nkept: %s, %s in %s; remove it for good: %s\n", k.ID.Short(), size(k.Bytes), k.Path, k.Remove)
		}
		return nil
	})
}

func (c *cli) psCommand() *cobra.Command {
	return &cobra.Command{Use: "ps", Short: "Every app with its tasks", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		api := c.client()
		defer api.Close()
		h, err := api.House(cmd.Context())
		if err != nil {
			return err
		}
		rows := [][]string{{"APP", "ENV", "STATE", "TASK", "PID", "PORT", "UP", "RESTARTS", "MEMORY", "REQUESTS"}}
		tasks := []control.Task{}
		for _, a := range h.Apps {
			if c.app != "" && string(a.App) != c.app {
				continue
			}
			st, err := api.Status(cmd.Context(), a.Env)
			if err != nil {
				return err
			}
			tasks = append(tasks, st.Tasks...)
			if len(st.Tasks) == 0 {
				rows = append(rows, []string{string(a.App), string(a.Env.Env), a.State})
			}
			for _, t := range st.Tasks {
				rows = append(rows, []string{string(a.App), string(a.Env.Env), t.State, string(t.ID), strconv.Itoa(t.PID), strconv.Itoa(t.Port), strings.TrimSuffix(ago(t.Started), " ago"), strconv.Itoa(t.Restarts), size(t.Memory), strconv.FormatUint(t.Requests, 10)})
			}
		}
		if c.json {
			return c.encode(map[string]any{"apps": h.Apps, "tasks": tasks})
		}
		table(c.out, rows)
		return nil
	}}
}

// isolation says of tasks what shuts them in, those of a service that are alike in one line.
func isolation(w io.Writer, tasks []control.Task) {
	var lines []string
	for _, t := range tasks {
		var holds, fails []string
		for _, r := range t.Isolation {
			if r.OK {
				holds = append(holds, r.Name)
			} else {
				fails = append(fails, "no "+r.Name+": "+r.Found)
			}
		}
		if len(t.Isolation) == 0 {
			continue
		}
		line := fmt.Sprintf("isolation of %s: %s", t.Service, strings.Join(holds, ", "))
		if len(fails) > 0 {
			line += "\n  " + strings.Join(fails, "\n  ")
		}
		if t.Unenforced != "" {
			line += "\n  a limit does not hold: " + t.Unenforced
		}
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	if len(lines) > 0 {
		fmt.Fprintf(w, "\n%s\n", strings.Join(lines, "\n"))
	}
}

func (c *cli) runCommand() *cobra.Command {
	return c.asking("run JOB | run SERVICE -- COMMAND…", "Run a job, or a command with a service's build and variables, and show its output", cobra.MinimumNArgs(1), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		status, why := 0, ""
		err := api.Run(ctx, control.RunRequest{Env: env, Name: tenfold.Name(args[0]), Command: args[1:]}, func(l control.LogLine) error {
			if l.Exit != nil {
				status, why = *l.Exit, l.Text
			}
			if c.json {
				return c.encode(l)
			}
			if l.Exit != nil {
				return nil
			}
			w := c.out
			if l.Stream == "stderr" {
				w = c.err
			}
			_, err := fmt.Fprintln(w, l.Text)
			return err
		})
		switch {
		case err == nil && status < 0: // it did not end by itself, so it has said nothing of it
			hint := "jobs.%s.timeout sets how long it may take, its service's size how much memory; what it said: tenfold logs %[1]s"
			if len(args) > 1 {
				hint = "services.%s.size sets how much memory it may take"
			}
			return tenfold.Errorf(tenfold.CodeFailed, "%s was ended: %s", args[0], why).WithHint(hint, args[0])
		case err == nil && status != 0:
			return exitStatus(status)
		}
		return err
	})
}

func (c *cli) execCommand() *cobra.Command {
	return c.asking("exec SERVICE -- COMMAND…", "Run a command here, in this terminal, with a service's folder and variables", cobra.MinimumNArgs(2), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		id := tenfold.ID{App: env.App, Env: env.Env, Kind: tenfold.KindService, Name: tenfold.Name(args[0])}
		p, err := api.Environ(ctx, id, "")
		if err != nil {
			return err
		}
		if held, err := container.Terminal(ctx, p.Env, args[1:]); held {
			var ended container.Exit
			if errors.As(err, &ended) {
				return exitStatus(ended)
			}
			return err
		}
		return c.hand(ctx, args[1:], p)
	})
}

// hand runs a command in this terminal and passes its exit status on.
func (c *cli) hand(ctx context.Context, argv []string, p control.Process) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env, cmd.Dir = append(os.Environ(), p.Env...), p.Dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.in, c.out, c.err
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if cmd.ProcessState == nil {
		return tenfold.Errorf(tenfold.CodeMissing, "run %s: %w", argv[0], err).WithHint("is it installed? tenfold doctor says what is missing")
	}
	return exitStatus(cmd.ProcessState.ExitCode())
}

func (c *cli) scaleCommand() *cobra.Command {
	return c.asking("scale SERVICE=N | SERVICE=MIN-MAX | SERVICE=default", "Set how many tasks of a service run, over what the manifest says", cobra.MinimumNArgs(1), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		for _, a := range args {
			name, value, ok := strings.Cut(a, "=")
			if !ok {
				return usage("scale %q: want SERVICE=N", a)
			}
			var b tenfold.Bounds
			if value != "default" {
				var err error
				if b, err = parseBounds(value); err != nil {
					return err
				}
			}
			if err := api.Scale(ctx, env, tenfold.Name(name), b); err != nil {
				return err
			}
			fmt.Fprintf(c.err, "%s: %s\n", name, value)
		}
		return nil
	})
}

func parseBounds(s string) (tenfold.Bounds, error) {
	lo, hi, isRange := strings.Cut(s, "-")
	if !isRange {
		hi = lo
	}
	a, err1 := strconv.Atoi(lo)
	b, err2 := strconv.Atoi(hi)
	if err1 != nil || err2 != nil || a < 0 || b < a || b == 0 {
		return tenfold.Bounds{}, usage("%q is neither a number of tasks nor a range such as 1-4", s)
	}
	return tenfold.Bounds{Min: a, Max: b}, nil
}

func (c *cli) releasesCommand() *cobra.Command {
	return c.asking("releases [FRONTEND]", "Deployments of the app, or the kept builds of a frontend", cobra.MaximumNArgs(1), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		if len(args) == 1 {
			rs, err := api.Releases(ctx, env, tenfold.Name(args[0]))
			if err != nil || c.json {
				return orEncode(c, rs, err)
			}
			rows := [][]string{{"RELEASE", "BUILT", "FILES", "SIZE", ""}}
			for _, r := range rs {
				mark := ""
				if r.Current {
					mark = "serving"
				}
				rows = append(rows, []string{string(r.ID), ago(r.Created), strconv.Itoa(r.Files), size(r.Bytes), mark})
			}
			table(c.out, rows)
			return nil
		}
		revs, err := api.Revisions(ctx, env)
		if err != nil || c.json {
			return orEncode(c, revs, err)
		}
		rows := [][]string{{"DEPLOYMENT", "WHEN", "STATE", "BY", "WHAT"}}
		for _, r := range revs {
			what, _, _ := strings.Cut(r.Reason, "\n")
			if what == "" {
				what = r.Label
			}
			rows = append(rows, []string{strconv.FormatInt(int64(r.Revision), 10), ago(r.Created), r.State, r.Actor, what})
		}
		table(c.out, rows)
		return nil
	})
}

func orEncode[T any](c *cli, v T, err error) error {
	if err != nil {
		return err
	}
	return c.encode(v)
}

func (c *cli) rollbackCommand() *cobra.Command {
	var frontend string
	cmd := c.asking("rollback [DEPLOYMENT]", "Go back to an earlier deployment (default: the one before); with --frontend, to an earlier release of one", cobra.MaximumNArgs(1), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		begun := time.Now()
		if frontend != "" {
			if len(args) != 1 {
				return usage("which release? tenfold releases %s lists them", frontend)
			}
			if err := api.SwitchRelease(ctx, env, tenfold.Name(frontend), tenfold.ReleaseID(args[0])); err != nil {
				return err
			}
			fmt.Fprintf(c.err, "%s serves release %s, until the next deploy\n", frontend, args[0])
			return nil
		}
		to := int64(0)
		if len(args) == 1 {
			var err error
			if to, err = strconv.ParseInt(args[0], 10, 64); err != nil || to < 1 {
				return usage("%q is no deployment: want a number", args[0])
			}
		}
		d, err := api.Rollback(ctx, env, tenfold.Revision(to))
		if err != nil {
			return err
		}
		return c.follow(ctx, api, d, begun)
	})
	cmd.Flags().StringVar(&frontend, "frontend", "", "roll back this frontend alone")
	return cmd
}

func (c *cli) eventsCommand() *cobra.Command {
	var follow bool
	var tail int
	cmd := &cobra.Command{Use: "events", Short: "What happened, newest last", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		api := c.client()
		defer api.Close()
		q := control.EventQuery{Tail: tail, Follow: follow}
		if c.app != "" {
			q.Env = control.Env{App: tenfold.AppName(c.app), Env: tenfold.Environment(c.env)}
		}
		p := newProgress(c.out)
		return api.Events(cmd.Context(), q, func(e tenfold.Event) error { c.show(p, e); return nil })
	}}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	cmd.Flags().IntVarP(&tail, "tail", "n", 50, "events to begin with")
	return cmd
}

func (c *cli) auditCommand() *cobra.Command {
	var limit int
	cmd := &cobra.Command{Use: "audit", Short: "Every step that was taken, by whom and why (append-only)", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		api := c.client()
		defer api.Close()
		es, err := api.Audit(cmd.Context(), tenfold.AppName(c.app), limit)
		if err != nil || c.json {
			return orEncode(c, es, err)
		}
		rows := [][]string{{"WHEN", "BY", "APP", "DEPLOYMENT", "STEP", "REASON"}}
		for _, e := range es {
			rows = append(rows, []string{e.At.Local().Format(time.DateTime), e.Actor, e.App, strconv.FormatInt(int64(e.Revision), 10), e.Verb + " " + e.Resource, e.Reason})
		}
		table(c.out, rows)
		return nil
	}}
	cmd.Flags().IntVarP(&limit, "limit", "n", 100, "newest entries to show")
	return cmd
}

func (c *cli) metricsCommand() *cobra.Command {
	return &cobra.Command{Use: "metrics", Short: "Counters of the front door and the tasks, in Prometheus' text format", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		api := c.client()
		defer api.Close()
		return api.Metrics(cmd.Context(), c.out)
	}}
}

func (c *cli) openCommand() *cobra.Command {
	return c.asking("open", "Open the app in the browser, or print its address where there is none", cobra.NoArgs, func(ctx context.Context, api *control.Client, env control.Env, _ []string) error {
		st, err := api.Status(ctx, env)
		if err != nil {
			return err
		}
		if len(st.URLs) == 0 {
			return tenfold.Errorf(tenfold.CodeConflict, "%s does not run", env.App).WithHint("start it in its folder: tenfold up")
		}
		if opener, err := exec.LookPath("xdg-open"); err == nil && os.Getenv("DISPLAY")+os.Getenv("WAYLAND_DISPLAY") != "" {
			return exec.CommandContext(ctx, opener, st.URLs[0]).Run()
		}
		fmt.Fprintln(c.out, st.URLs[0])
		return nil
	})
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "The version of this binary", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		if c.json {
			return c.encode(map[string]string{"version": version})
		}
		fmt.Fprintln(c.out, "tenfold "+version)
		return nil
	}}
}

func (c *cli) upgradeCommand() *cobra.Command {
	var linger time.Duration
	cmd := &cobra.Command{Use: "upgrade", Short: "Hand the running house over to this binary: tasks and databases run on, no request fails", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		binary, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find own binary: %w", err)
		}
		api := c.client()
		defer api.Close()
		before, err := api.House(cmd.Context())
		if err != nil {
			return err
		}
		// The daemon that answers ends by it, so a lost answer says nothing: another pid does.
		if err := api.Upgrade(cmd.Context(), binary, linger); err != nil && tenfold.CodeOf(err) != tenfold.CodeUnavailable && tenfold.CodeOf(err) != tenfold.CodeCanceled {
			return err
		}
		wait, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
		defer cancel()
		for {
			h, err := api.Ready(wait)
			if err != nil {
				return err
			}
			if h.PID != before.PID {
				fmt.Fprintf(c.err, "the house runs %s (it was %s)\n", h.Version, before.Version)
				return nil
			}
			select {
			case <-wait.Done():
				return wait.Err()
			case <-time.After(50 * time.Millisecond):
			}
		}
	}}
	cmd.Flags().DurationVar(&linger, "linger", 0, "how long open connections, such as WebSockets, may stay with the old front door (default 1h)")
	return cmd
}
