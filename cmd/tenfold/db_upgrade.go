package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/dbinfo"
)

// dbUpgradeCommand moves a database to another release of PostgreSQL. name is the flag of db.
func (c *cli) dbUpgradeCommand(name *string) *cobra.Command {
	var q control.UpgradeQuestion
	var back, finish bool
	cmd := c.asking("upgrade", "Move to another major of PostgreSQL, with a way back; without --to: to the release that is installed", cobra.NoArgs, func(ctx context.Context, api *control.Client, env control.Env, _ []string) error {
		if back && finish || (back || finish) && (q.To != 0 || q.Rehearse) {
			return usage("--back, --finish and --to are three things").(*tenfold.Error).WithHint("tenfold db upgrade --to 17 --rehearse")
		}
		if q.Rehearse && q.To == 0 {
			return usage("a rehearsal is of a major").(*tenfold.Error).WithHint("tenfold db upgrade --to 17 --rehearse")
		}
		id, err := c.only(ctx, api, env, tenfold.KindDatabase, *name)
		if err != nil {
			return err
		}
		if finish {
			if err := api.UpgradeFinish(ctx, id); err != nil {
				return err
			}
			fmt.Fprintf(c.err, "the old data of %s is removed\n", id.Name)
			return nil
		}
		stop := c.followUpgrade(ctx, api, id)
		var u dbinfo.Upgrade
		if back {
			u, err = api.UpgradeBack(ctx, id)
		} else {
			u, err = api.UpgradeDatabase(ctx, id, q)
		}
		stop()
		if err != nil || c.json {
			return orEncode(c, u, err)
		}
		c.printUpgrade(u)
		return nil
	})
	cmd.Flags().IntVar(&q.To, "to", 0, "the major, for example 17")
	cmd.Flags().BoolVar(&q.Rehearse, "rehearse", false, "on a clone: how long it takes, what would be in the way; nothing is switched")
	cmd.Flags().DurationVar(&q.Keep, "keep", 24*time.Hour, "how long the old major follows, for --back")
	cmd.Flags().BoolVar(&back, "back", false, "go back to the old major with all that was written since, or give up one that copies still")
	cmd.Flags().BoolVar(&finish, "finish", false, "keep the new major: no way back, the old data is removed")
	return cmd
}

// dbRestartCommand restarts a database now. name is the flag of db.
func (c *cli) dbRestartCommand(name *string) *cobra.Command {
	return c.asking("restart", "Restart the primary in order, without its window: clients are held meanwhile", cobra.NoArgs, func(ctx context.Context, api *control.Client, env control.Env, _ []string) error {
		id, err := c.only(ctx, api, env, tenfold.KindDatabase, *name)
		if err != nil {
			return err
		}
		held, err := api.RestartDatabase(ctx, id)
		if err != nil || c.json {
			return orEncode(c, held, err)
		}
		fmt.Fprintf(c.err, "%s is restarted: clients were held for %s\n", id.Name, took(held))
		return nil
	})
}

// followUpgrade says each step while somebody waits for the end.
func (c *cli) followUpgrade(ctx context.Context, api *control.Client, id tenfold.ID) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var last string
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
			if d, err := api.Database(ctx, id); err == nil && d.Upgrade != nil && d.Upgrade.Total == 0 && d.Upgrade.Step != last && !c.json {
				last = d.Upgrade.Step
				fmt.Fprintln(c.err, last)
			}
		}
	}()
	return func() { cancel(); <-done }
}

func (c *cli) printUpgrade(u dbinfo.Upgrade) {
	verb := "is now"
	if u.Rehearsed {
		verb = "would be"
	}
	if u.From == u.To {
		fmt.Fprintf(c.out, "%s is of %s already\n", u.Database, u.To)
		return
	}
	fmt.Fprintf(c.out, "%s: PostgreSQL %s → %s", u.Database, u.From, u.To)
	if u.Bytes > 0 {
		fmt.Fprintf(c.out, ", %d tables, %s", u.Tables, size(u.Bytes))
	}
	fmt.Fprintln(c.out)
	if len(u.Steps) > 0 {
		rows := [][]string{}
		for _, s := range u.Steps {
			rows = append(rows, []string{"  " + took(s.Took), s.What})
		}
		table(c.out, rows)
	}
	if len(u.Skipped) > 0 {
		fmt.Fprintln(c.out, "not published, as that would break their UPDATE and DELETE; copied while writes wait:")
		rows := [][]string{}
		for _, s := range u.Skipped {
			rows = append(rows, []string{"  " + s.Name, size(s.Bytes), s.Why})
		}
		table(c.out, rows)
	}
	for _, n := range u.Notes {
		fmt.Fprintln(c.out, "note: "+n)
	}
	if u.Rehearsed {
		fmt.Fprintf(c.out, "it %s: %s in all, clients held for about %s (and for one restart before, where wal_level is not logical)\n", verb, took(u.Total), took(u.Pause))
		return
	}
	fmt.Fprintf(c.out, "%s in all, clients held for %s at most\n", took(u.Total), took(u.Pause))
	if !u.Until.IsZero() {
		fmt.Fprintf(c.err, "the way back is open until %s UTC\n  go back          tenfold db upgrade --name %s --back\n  keep it          tenfold db upgrade --name %s --finish, and write its engine in tenfold.yaml\n", u.Until.UTC().Format(time.DateTime), u.Database, u.Database)
	}
}
