package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"tenfold"
	"tenfold/control"
)

// planCommand shows how a statement would run. name is the flag of db.
func (c *cli) planCommand(name *string) *cobra.Command {
	var analyze bool
	explain := c.asking("explain 'SELECT …'", "How PostgreSQL would run a statement; - reads it from standard input", cobra.ExactArgs(1), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		sql := args[0]
		if sql == "-" {
			b, err := io.ReadAll(io.LimitReader(c.in, 1<<20))
			if err != nil {
				return fmt.Errorf("read statement: %w", err)
			}
			sql = string(b)
		}
		if strings.TrimSpace(sql) == "" {
			return usage("there is no statement").(*tenfold.Error).WithHint("tenfold db explain 'select * from orders where id = $1'")
		}
		id, err := c.only(ctx, api, env, tenfold.KindDatabase, *name)
		if err != nil {
			return err
		}
		plan, err := api.Plan(ctx, id, sql, analyze)
		if err != nil || c.json {
			return orEncode(c, plan, err)
		}
		fmt.Fprintln(c.out, plan.Text)
		return nil
	})
	explain.Flags().BoolVar(&analyze, "analyze", false, "run it, in a read-only transaction that is rolled back; what writes is refused")
	return explain
}

// adviceCommand shows what could be better in a database.
func (c *cli) adviceCommand(name *string) *cobra.Command {
	return c.asking("advice", "What could be better: indexes missing and unused, bloat, tables that vacuum does not come to", cobra.NoArgs, func(ctx context.Context, api *control.Client, env control.Env, _ []string) error {
		id, err := c.only(ctx, api, env, tenfold.KindDatabase, *name)
		if err != nil {
			return err
		}
		a, err := api.Advice(ctx, id)
		if err != nil || c.json {
			return orEncode(c, a, err)
		}
		for _, f := range a.Findings {
			about := f.On
			if f.Bytes > 0 {
				about += ", " + size(f.Bytes)
			}
			fmt.Fprintf(c.out, "%s: %s\n  %s\n", f.Kind, about, f.Why)
			if f.Query != "" {
				fmt.Fprintf(c.out, "  for  %s\n", line(f.Query))
			}
			fmt.Fprintf(c.out, "  do   %s\n", f.Do)
		}
		if len(a.Findings) == 0 {
			fmt.Fprintln(c.err, "nothing was found")
		}
		if !a.Since.IsZero() {
			a.Notes = append(a.Notes, "statistics began "+ago(a.Since))
		}
		for _, n := range a.Notes {
			fmt.Fprintf(c.err, "note: %s\n", n)
		}
		return nil
	})
}
