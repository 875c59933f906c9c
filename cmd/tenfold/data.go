package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"tenfold"
	"tenfold/control"
	"tenfold/daemon"
)

func (c *cli) secretsCommand() *cobra.Command {
	list := c.asking("secrets", "The app's secrets, without their values", cobra.NoArgs, func(ctx context.Context, api *control.Client, env control.Env, _ []string) error {
		ss, err := api.Secrets(ctx, env.App)
		if err != nil || c.json {
			return orEncode(c, ss, err)
		}
		rows := [][]string{{"NAME", "VERSION", "SET", "USED"}}
		for _, s := range ss {
			rows = append(rows, []string{string(s.Name), strconv.FormatInt(s.Version, 10), ago(s.Changed), strconv.FormatBool(s.Used)})
		}
		table(c.out, rows)
		return nil
	})
	set := &cobra.Command{Use: "set NAME", Short: "Set a secret; its value is read from standard input, never from the command line", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		if strings.Contains(args[0], "=") {
			return usage("a value on the command line is seen by everybody who runs ps").(*tenfold.Error).WithHint("pipe it in: printf %%s \"$VALUE\" | tenfold secrets set NAME")
		}
		value, err := c.readSecret(args[0])
		if err != nil {
			return err
		}
		return c.setSecret(cmd.Context(), tenfold.Name(args[0]), value)
	}}
	remove := &cobra.Command{Use: "remove NAME", Short: "Forget a secret with all its versions", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		app, err := c.secretsApp(cmd.Context())
		if err != nil {
			return err
		}
		api := c.client()
		defer api.Close()
		return api.RemoveSecret(cmd.Context(), app, tenfold.Name(args[0]))
	}}
	list.AddCommand(set, remove)
	return list
}

// setSecret stores a value. An app whose secrets have none is not started, and up ends the house again that it began
// for it: so where there is no house, one is started for as long as this takes.
func (c *cli) setSecret(ctx context.Context, name tenfold.Name, value string) (err error) {
	api, started, err := c.house(ctx, daemon.Settings{})
	if err != nil {
		return err
	}
	defer api.Close()
	if started {
		defer func() { err = errors.Join(err, c.endHouse(context.WithoutCancel(ctx), api)) }()
	}
	app, err := c.secretsApp(ctx)
	if err != nil {
		return err
	}
	v, err := api.SetSecret(ctx, app, name, value)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.err, "%s of %s is set, version %d; a deploy hands it to those who use it\n", name, app, v)
	return nil
}

// secretsApp is the app whose secrets are meant: one that never ran may have secrets already.
func (c *cli) secretsApp(ctx context.Context) (tenfold.AppName, error) {
	if c.app != "" {
		return tenfold.AppName(c.app), nil
	}
	api := c.client()
	defer api.Close()
	env, err := c.target(ctx, api)
	return env.App, err
}

// readSecret reads a value from standard input: a line typed without echo on a terminal, all of it otherwise.
func (c *cli) readSecret(name string) (string, error) {
	if f, ok := c.in.(*os.File); ok && terminal(f) {
		fmt.Fprintf(c.err, "value of %s: ", name)
		restore := noEcho(f)
		line, err := bufio.NewReader(f).ReadString('\n')
		restore()
		fmt.Fprintln(c.err)
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read value: %w", err)
		}
		return strings.TrimRight(line, "\r\n"), nil
	}
	b, err := io.ReadAll(io.LimitReader(c.in, 1<<20))
	if err != nil {
		return "", fmt.Errorf("read value: %w", err)
	}
	return strings.TrimSuffix(string(b), "\n"), nil
}

// only picks the app's only resource of a kind when none is named.
func (c *cli) only(ctx context.Context, api *control.Client, env control.Env, kind tenfold.Kind, named string) (tenfold.ID, error) {
	id := tenfold.ID{App: env.App, Env: env.Env, Kind: kind, Name: tenfold.Name(named)}
	if named != "" {
		return id, nil
	}
	st, err := api.Status(ctx, env)
	if err != nil {
		return id, err
	}
	var names []string
	for _, r := range st.Resources {
		if r.Kind == kind {
			names = append(names, string(r.Name))
		}
	}
	switch len(names) {
	case 0:
		return id, tenfold.Errorf(tenfold.CodeNotFound, "%s has no %s", env.App, kind).WithHint("add one to the manifest, for example databases: [db]")
	case 1:
		id.Name = tenfold.Name(names[0])
		return id, nil
	}
	return id, usage("which %s? %s", kind, strings.Join(names, ", "))
}

func (c *cli) dbCommand() *cobra.Command {
	var name string
	tool := func(use, short, tool string) *cobra.Command {
		return c.asking(use, short, cobra.ArbitraryArgs, func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
			id, err := c.only(ctx, api, env, tenfold.KindDatabase, name)
			if err != nil {
				return err
			}
			p, err := api.Environ(ctx, id, tool)
			if err != nil {
				return err
			}
			return c.hand(ctx, append(p.Argv, args...), p)
		})
	}
	db := &cobra.Command{Use: "db", Short: "A database: shell, dump, restore, its servers, statements, backups"}
	url := c.asking("url", "The database's address with its password; standard output should be no shared screen", cobra.NoArgs, func(ctx context.Context, api *control.Client, env control.Env, _ []string) error {
		id, err := c.only(ctx, api, env, tenfold.KindDatabase, name)
		if err != nil {
			return err
		}
		p, err := api.Environ(ctx, id, "")
		if err != nil {
			return err
		}
		for _, kv := range p.Env {
			if v, ok := strings.CutPrefix(kv, "DATABASE_URL="); ok {
				fmt.Fprintln(c.out, v)
			}
		}
		return nil
	})
	db.PersistentFlags().StringVar(&name, "name", "", "database, when the app has several")
	restore := tool("restore [-- ARGS…]", "Read a dump from standard input into the database, replacing what it names; with --to make a copy as it was at a time", "restore")
	read := restore.RunE
	var to string
	restore.Flags().StringVar(&to, "to", "", "a time ('2026-11-23 10:15:30', UTC) or latest: restore from backups to a new database beside this one")
	back := c.asking("", "", cobra.NoArgs, func(ctx context.Context, api *control.Client, env control.Env, _ []string) error {
		id, err := c.only(ctx, api, env, tenfold.KindDatabase, name)
		if err != nil {
			return err
		}
		return c.restoreTo(ctx, api, id, to)
	})
	restore.RunE = func(cmd *cobra.Command, args []string) error {
		if to == "" {
			return read(cmd, args)
		}
		return back.RunE(cmd, args)
	}
	db.AddCommand(
		tool("psql [-- ARGS…]", "A psql shell on the database", "psql"),
		tool("dump [-- ARGS…]", "Write a dump (pg_dump's custom format) to standard output", "dump"),
		restore, url,
	)
	db.AddCommand(c.dbQuestions(&name)...)
	return db
}

func (c *cli) keptCommand() *cobra.Command {
	kept := &cobra.Command{Use: "kept", Short: "Data that no manifest names any more: where it is and how to remove it", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		api := c.client()
		defer api.Close()
		ks, err := api.Kept(cmd.Context())
		if err != nil || c.json {
			return orEncode(c, ks, err)
		}
		rows := [][]string{{"WHAT", "SIZE", "WHERE", "REMOVE FOR GOOD"}}
		for _, k := range ks {
			rows = append(rows, []string{string(k.ID.App) + " " + k.ID.Short(), size(k.Bytes), k.Path, k.Remove})
		}
		table(c.out, rows)
		return nil
	}}
	var yes bool
	remove := &cobra.Command{Use: "remove APP/ENVIRONMENT/KIND/NAME", Short: "Destroy kept data for good", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		id, err := tenfold.ParseID(args[0])
		if err != nil {
			return usage("%v", err)
		}
		if !yes {
			return tenfold.Errorf(tenfold.CodeInvalid, "this destroys %s of %s for good", id.Short(), id.App).WithHint("say --yes if that is meant: tenfold kept remove %s --yes", id)
		}
		api := c.client()
		defer api.Close()
		if err := api.RemoveData(cmd.Context(), id); err != nil {
			return err
		}
		fmt.Fprintf(c.err, "%s of %s is gone\n", id.Short(), id.App)
		return nil
	}}
	remove.Flags().BoolVar(&yes, "yes", false, "yes, destroy it")
	kept.AddCommand(remove)
	return kept
}
