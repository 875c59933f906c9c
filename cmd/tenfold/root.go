package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tenfold"
	"tenfold/control"
	"tenfold/daemon"
	"tenfold/manifest"
)

// version is set by the linker (-X main.version=…).
var version = "dev"

// cli is one invocation: where it reads and writes, and the global flags.
type cli struct {
	in       io.Reader
	out, err io.Writer
	data     string
	app      string
	env      string
	json     bool
}

// run executes a command line and returns the exit status.
func run(ctx context.Context, args []string, in io.Reader, out, errw io.Writer) int {
	c := &cli{in: in, out: out, err: errw}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errw)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	// Cobra has no type for these; its Args functions and its search for a subcommand return plain errors.
	for _, of := range []string{"unknown command", "accepts ", "requires "} {
		if strings.HasPrefix(err.Error(), of) {
			err = usage("%v", err)
			c.json = c.json || slices.Contains(args, "--json") // it came before the flags were read
		}
	}
	var exit exitStatus
	if errors.As(err, &exit) {
		return int(exit)
	}
	c.complain(err)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return tenfold.CodeCanceled.ExitStatus()
	}
	return tenfold.CodeOf(err).ExitStatus()
}

// exitStatus passes on the exit status of a command that was run; nothing more is printed.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// complain prints an error with what can be done about it.
func (c *cli) complain(err error) {
	var te *tenfold.Error
	detail := ""
	if errors.As(err, &te) {
		detail = te.Detail
	}
	if c.json {
		json.NewEncoder(c.err).Encode(map[string]any{"error": map[string]any{
			"code": tenfold.CodeOf(err), "message": err.Error(), "detail": detail, "hint": tenfold.HintOf(err),
		}})
		return
	}
	fmt.Fprintf(c.err, "tenfold: error: %s\n", err)
	if detail != "" {
		fmt.Fprintln(c.err, indent(detail))
	}
	if hint := tenfold.HintOf(err); hint != "" {
		fmt.Fprintf(c.err, "tenfold: hint: %s\n", hint)
	}
}

func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n  ")
}

// usage makes an error of wrong arguments.
func usage(format string, args ...any) error {
	return tenfold.Errorf(tenfold.CodeInvalid, format, args...).WithHint("tenfold help lists the commands, tenfold COMMAND --help its flags")
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "tenfold",
		Short: "From the first user to the ten-millionth: one manifest, one binary",
		Long: `Tenfold runs a three-tier web app (frontends, services, functions, databases,
caches, queues, tables) from one manifest.

  tenfold up            run the app in this folder; Ctrl-C stops it, data is kept
  tenfold init          write the manifest that up would infer
  tenfold doctor        what of this machine can be used, and what is missing`,
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	f := root.PersistentFlags()
	f.StringVar(&c.data, "data", daemon.DefaultData(), "data directory of the house (TENFOLD_DATA)")
	f.StringVar(&c.app, "app", "", "app to act on (default: the one of this folder)")
	f.StringVar(&c.env, "env", "production", "environment to act on")
	f.BoolVar(&c.json, "json", false, "print JSON; one object a line for streams")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage("%v", err) })
	root.AddCommand(
		c.initCommand(), c.upCommand(), c.downCommand(), c.deployCommand(), c.statusCommand(), c.psCommand(),
		c.logsCommand(), c.jobsCommand(), c.execCommand(), c.runCommand(), c.scaleCommand(), c.releasesCommand(), c.rollbackCommand(),
		c.edgeCommand(), c.gitCommand(), c.previewCommand(), c.trustCommand(), c.secretsCommand(), c.dbCommand(), c.cacheCommand(), c.queueCommand(), c.tableCommand(), c.bucketCommand(), c.busCommand(), c.fnCommand(), c.openCommand(), c.doctorCommand(), c.importCommand(),
		c.eventsCommand(), c.auditCommand(), c.metricsCommand(), c.keptCommand(), c.versionCommand(), c.upgradeCommand(), c.houseCommand(),
	)
	return root
}

// client speaks to the house of --data, or to the one that TENFOLD_HOST names.
func (c *cli) client() *control.Client {
	if host := os.Getenv("TENFOLD_HOST"); host != "" {
		return control.TCP(host, os.Getenv("TENFOLD_TOKEN"))
	}
	return control.Unix(c.layout().Socket("control"))
}

func (c *cli) layout() daemon.Layout {
	dir, err := filepath.Abs(c.data)
	if err != nil {
		dir = c.data
	}
	return daemon.Layout{Dir: dir}
}

// target says which environment is meant: --app, else the manifest here, else the only app there is.
func (c *cli) target(ctx context.Context, api control.API) (control.Env, error) {
	env := control.Env{App: tenfold.AppName(c.app), Env: tenfold.Environment(c.env)}
	if env.App != "" {
		return env, nil
	}
	h, err := api.House(ctx)
	if err != nil {
		return env, err
	}
	if b, err := os.ReadFile("tenfold.yaml"); err == nil {
		if m, err := manifest.Parse("tenfold.yaml", b); err == nil {
			here, _ := os.Getwd()
			m.Folder = filepath.Base(here)
			if app, err := m.App(env.Env); err == nil && app.Name != "" {
				env.App = app.Name
				return env, nil
			}
		}
	}
	here, _ := os.Getwd()
	var names []string
	for _, a := range h.Apps {
		if a.Env.Env == env.Env {
			names = append(names, string(a.App))
			if string(a.App) == filepath.Base(here) {
				env.App = a.App
			}
		}
	}
	switch {
	case env.App != "":
		return env, nil
	case len(names) == 1:
		env.App = tenfold.AppName(names[0])
		return env, nil
	case len(names) == 0:
		return env, tenfold.Errorf(tenfold.CodeNotFound, "no app runs in %s here", env.Env).WithHint("start one in its folder: tenfold up")
	}
	return env, tenfold.Errorf(tenfold.CodeInvalid, "which app? %s", strings.Join(names, ", ")).WithHint("name it: --app %s; or run this in its folder", names[0])
}

// encode prints v as JSON.
func (c *cli) encode(v any) error {
	e := json.NewEncoder(c.out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
