package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"tenfold"
	"tenfold/daemon"
	"tenfold/internal/container"
	"tenfold/manifest/compose"
	"tenfold/manifest/infer"
)

const manifestName = "tenfold.yaml"

func (c *cli) initCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{Use: "init [DIR]", Short: "Write the manifest that up would infer", Args: cobra.MaximumNArgs(1), RunE: func(_ *cobra.Command, args []string) error {
		dir := dirOf(args)
		draft, err := infer.Infer(os.DirFS(dir), filepath.Base(dir))
		if err != nil {
			return err
		}
		for _, w := range draft.Warnings {
			fmt.Fprintf(c.err, "warning: %s\n", w)
		}
		return c.writeManifest(filepath.Join(dir, manifestName), []byte(draft.Text), force)
	}}
	cmd.Flags().BoolVar(&force, "force", false, "replace a tenfold.yaml that is there")
	return cmd
}

// writeManifest writes a new file; what is there is replaced only by force.
func (c *cli) writeManifest(path string, text []byte, force bool) error {
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if force {
		flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return tenfold.Errorf(tenfold.CodeConflict, "%s is there already", path).WithHint("look at it, or replace it with --force")
	}
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	fmt.Fprintf(c.err, "wrote %s\n", path)
	return nil
}

func (c *cli) importCommand() *cobra.Command {
	var force bool
	var out string
	cmd := &cobra.Command{Use: "import COMPOSE_FILE", Short: "Translate a compose file to tenfold.yaml, listing each field that could not be honoured", Args: cobra.ExactArgs(1), RunE: func(_ *cobra.Command, args []string) error {
		dir, name := filepath.Split(args[0])
		if dir == "" {
			dir = "."
		}
		text, notes, err := compose.Import(os.DirFS(dir), name)
		if err != nil {
			return err
		}
		for _, n := range notes {
			fmt.Fprintf(c.err, "%s\n", n)
		}
		if out == "-" {
			_, err := c.out.Write(text)
			return err
		}
		return c.writeManifest(filepath.Join(dir, out), text, force)
	}}
	cmd.Flags().BoolVar(&force, "force", false, "replace a tenfold.yaml that is there")
	cmd.Flags().StringVarP(&out, "output", "o", manifestName, "file to write beside the compose file; - for standard output")
	return cmd
}

func (c *cli) doctorCommand() *cobra.Command {
	var fix daemon.Fix
	cmd := &cobra.Command{Use: "doctor", Short: "What of this machine can be used, and what is missing; --fix installs what may be", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		checks := daemon.Doctor(cmd.Context(), c.layout(), fix, func(line string) { fmt.Fprintln(c.err, line) })
		if c.json {
			return c.encode(checks)
		}
		rows, bad := [][]string{}, 0
		for _, k := range checks {
			mark := "✓"
			if !k.OK {
				mark = "✗"
				if k.Optional {
					mark = "-"
				} else {
					bad++
				}
			}
			rows = append(rows, []string{mark, k.Name, k.Found, k.Fix})
		}
		table(c.out, rows)
		if bad > 0 {
			return tenfold.Errorf(tenfold.CodeMissing, "%d things are missing", bad).WithHint("tenfold doctor --fix installs what it may; the last column says how to do it by hand")
		}
		return nil
	}}
	cmd.Flags().BoolVar(&fix.On, "fix", false, "install what is missing, where that is allowed")
	cmd.Flags().StringVar(&fix.Postgres, "postgres", "", "with --fix: a major of PostgreSQL to install (17), or a folder that has one (/opt/postgresql-17/bin)")
	return cmd
}

// houseCommand starts the processes of a house; people have no use for it.
func (c *cli) houseCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "house", Short: "Start a process of the house (used by up, the keeper and systemd)", Hidden: true}
	for mode, f := range daemon.Modes(version) {
		cmd.AddCommand(&cobra.Command{Use: string(mode), Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			err := f(cmd.Context(), c.layout().Dir)
			var ended container.Exit
			if errors.As(err, &ended) {
				return exitStatus(ended)
			}
			return err
		}})
	}
	cmd.AddCommand(&cobra.Command{Use: "check", Short: "Say the version: a keeper asks this of a binary before it becomes it", RunE: func(*cobra.Command, []string) error {
		fmt.Fprintln(c.out, version)
		return nil
	}})
	return cmd
}
