package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/dbinfo"
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

// top is what `db top --json` prints.
type top struct {
	Waits      dbinfo.Waits       `json:"waits"`
	Statements []dbinfo.Statement `json:"statements"`
}

// topCommand shows what sessions wait for, and the statements that take most time.
func (c *cli) topCommand(name *string) *cobra.Command {
	var limit int
	cmd := c.asking("top", "What active sessions wait for, and the statements that take most time", cobra.NoArgs, func(ctx context.Context, api *control.Client, env control.Env, _ []string) error {
		id, err := c.only(ctx, api, env, tenfold.KindDatabase, *name)
		if err != nil {
			return err
		}
		var t top
		if t.Waits, err = api.Waits(ctx, id); err != nil {
			return err
		}
		if !c.json {
			c.printWaits(t.Waits)
		}
		if t.Statements, err = api.Statements(ctx, id, limit); err != nil || c.json {
			return orEncode(c, t, err)
		}
		c.printStatements(t.Statements)
		return nil
	})
	cmd.Flags().IntVar(&limit, "limit", 20, "how many statements")
	return cmd
}

func (c *cli) printWaits(w dbinfo.Waits) {
	if len(w.Active) == 0 {
		fmt.Fprintf(c.out, "no session was active in %d samples\n\n", w.Samples)
		return
	}
	rows := [][]string{{"ACTIVE SESSIONS", "1 MIN", "10 MIN"}}
	var minute, all float64
	for _, a := range w.Active {
		rows = append(rows, []string{a.On, fmt.Sprintf("%.2f", a.Minute), fmt.Sprintf("%.2f", a.All)})
		minute, all = minute+a.Minute, all+a.All
	}
	if len(w.Active) > 1 {
		rows = append(rows, []string{"all", fmt.Sprintf("%.2f", minute), fmt.Sprintf("%.2f", all)})
	}
	table(c.out, rows)
	fmt.Fprintln(c.out)
}

func (c *cli) printStatements(ss []dbinfo.Statement) {
	rows := [][]string{{"TOTAL", "CALLS", "MEAN", "ROWS", "IN MEMORY", "STATEMENT"}}
	for _, s := range ss {
		hit := "–"
		if s.Hit >= 0 {
			hit = fmt.Sprintf("%.0f%%", 100*s.Hit)
		}
		rows = append(rows, []string{took(s.Total), strconv.FormatInt(s.Calls, 10), took(s.Mean), strconv.FormatInt(s.Rows, 10), hit, line(s.Query)})
	}
	table(c.out, rows)
}

// rotateCommand changes the password of an app's role.
func (c *cli) rotateCommand(name *string) *cobra.Command {
	return c.asking("rotate", "A new password for the app's role; the services that have it are restarted", cobra.NoArgs, func(ctx context.Context, api *control.Client, env control.Env, _ []string) error {
		id, err := c.only(ctx, api, env, tenfold.KindDatabase, *name)
		if err != nil {
			return err
		}
		done, err := api.Rotate(ctx, id)
		if err != nil || c.json {
			return orEncode(c, done, err)
		}
		fmt.Fprintf(c.err, "%s has a new password; connections that are open go on\n", id.Name)
		if len(done.Restarted) > 0 {
			fmt.Fprintf(c.err, "  restarted        %s: new tasks beside the old (tenfold ps)\n", strings.Join(done.Restarted, ", "))
		}
		fmt.Fprintln(c.err, "  everybody else   tenfold db url")
		return nil
	})
}
