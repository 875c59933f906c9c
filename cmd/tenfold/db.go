package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tenfold"
	"tenfold/control"
	"tenfold/internal/dbinfo"
)

// dbQuestions are the subcommands of db that ask the house, not a client program. name is the flag's.
func (c *cli) dbQuestions(name *string) []*cobra.Command {
	asking := func(use, short string, f func(context.Context, *control.Client, tenfold.ID) error) *cobra.Command {
		return c.asking(use, short, cobra.NoArgs, func(ctx context.Context, api *control.Client, env control.Env, _ []string) error {
			id, err := c.only(ctx, api, env, tenfold.KindDatabase, *name)
			if err != nil {
				return err
			}
			return f(ctx, api, id)
		})
	}
	nodes := asking("nodes", "Its servers: which is the primary, how far readers are behind", func(ctx context.Context, api *control.Client, id tenfold.ID) error {
		d, err := api.Database(ctx, id)
		if err != nil || c.json {
			return orEncode(c, d, err)
		}
		c.printNodes(d)
		return nil
	})
	failover := asking("failover", "Kill the primary as a crash would: a rehearsal, or the way out when it is ill", func(ctx context.Context, api *control.Client, id tenfold.ID) error {
		begun := time.Now()
		if err := api.Failover(ctx, id); err != nil {
			return err
		}
		return c.tellPrimary(ctx, api, id, begun)
	})
	var node int
	switchover := asking("switchover", "Make a reader the primary in order: nothing is lost", func(ctx context.Context, api *control.Client, id tenfold.ID) error {
		begun := time.Now()
		if err := api.Switchover(ctx, id, node); err != nil {
			return err
		}
		return c.tellPrimary(ctx, api, id, begun)
	})
	switchover.Flags().IntVar(&node, "to", 0, "node to switch to (default: the one that is least behind)")
	activity := asking("activity", "Who is connected, what runs and what it waits for", func(ctx context.Context, api *control.Client, id tenfold.ID) error {
		ss, err := api.Sessions(ctx, id)
		if err != nil || c.json {
			return orEncode(c, ss, err)
		}
		rows := [][]string{{"PID", "USER", "STATE", "AGE", "WAITS FOR", "QUERY"}}
		for _, s := range ss {
			rows = append(rows, []string{strconv.Itoa(s.PID), s.User, s.State, took(s.Age), dash(s.Wait), line(s.Query)})
		}
		table(c.out, rows)
		return nil
	})
	locks := asking("locks", "Who waits for whom", func(ctx context.Context, api *control.Client, id tenfold.ID) error {
		ls, err := api.Locks(ctx, id)
		if err != nil || c.json {
			return orEncode(c, ls, err)
		}
		if len(ls) == 0 {
			fmt.Fprintln(c.err, "nobody waits for a lock")
		}
		for _, l := range ls {
			fmt.Fprintf(c.out, "%d %s waits %s for %s: %s\n", l.PID, l.User, took(l.Waits), dash(l.Lock), line(l.Query))
			for _, h := range l.Holders {
				fmt.Fprintf(c.out, "  held by %d %s, %s for %s: %s\n", h.PID, h.User, dash(h.State), took(h.Age), line(h.Query))
			}
		}
		return nil
	})
	backup := asking("backup", "Take a base backup now", func(ctx context.Context, api *control.Client, id tenfold.ID) error {
		b, err := api.Backup(ctx, id)
		if err != nil || c.json {
			return orEncode(c, b, err)
		}
		fmt.Fprintf(c.out, "%s  %s in %s\n", b.Name, size(b.Bytes), took(b.Ended.Sub(b.Begun)))
		return nil
	})
	backups := asking("backups", "What can be restored from, and until when", func(ctx context.Context, api *control.Client, id tenfold.ID) error {
		bs, err := api.Backups(ctx, id)
		if err != nil || c.json {
			return orEncode(c, bs, err)
		}
		rows := [][]string{{"BACKUP", "FROM", "UNTIL", "SIZE", "PROVEN", "NOTE"}}
		for _, b := range bs {
			proven, note := "never", b.Fault
			if !b.Proven.IsZero() {
				proven = ago(b.Proven)
			}
			if b.Encrypted {
				note = strings.TrimPrefix(note+", encrypted", ", ")
			}
			rows = append(rows, []string{b.Name, b.Ended.UTC().Format(time.DateTime), b.Until.UTC().Format(time.DateTime), size(b.Bytes), proven, note})
		}
		table(c.out, rows)
		return nil
	})
	clone := c.asking("clone [NAME]", "Make a copy beside it, which goes on meanwhile", cobra.MaximumNArgs(1), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		id, err := c.only(ctx, api, env, tenfold.KindDatabase, *name)
		if err != nil {
			return err
		}
		made, err := api.Clone(ctx, id, tenfold.Name(strings.Join(args, "")))
		return c.tellMade(id, made, "a copy of "+string(id.Name), err)
	})
	return []*cobra.Command{c.dbPool(name), c.dbToken(name), c.dbCA(), clone, c.planCommand(name), c.adviceCommand(name), nodes, failover, switchover, activity, locks, c.topCommand(name), c.rotateCommand(name), c.dbUpgradeCommand(name), c.dbRestartCommand(name), backup, backups}
}

// restoreTo makes a copy of a database as it was at a time.
func (c *cli) restoreTo(ctx context.Context, api *control.Client, id tenfold.ID, to string) error {
	at, err := parseMoment(to)
	if err != nil {
		return err
	}
	made, err := api.Restore(ctx, id, at)
	return c.tellMade(id, made, string(id.Name)+" as it was", err)
}

// tellMade says what was made beside a database, and what can be done with it.
func (c *cli) tellMade(id, made tenfold.ID, what string, err error) error {
	if err != nil || c.json {
		return orEncode(c, made, err)
	}
	fmt.Fprintf(c.out, "%s\n", made.Name)
	fmt.Fprintf(c.err, "database %s is %s; the old one is untouched\n  look at it  tenfold db psql --name %s\n  keep it     write it under databases in tenfold.yaml\n  drop it     tenfold kept remove %s --yes\n", made.Name, what, made.Name, made)
	return nil
}

// parseMoment reads a time, in UTC unless it says otherwise; "latest" is the zero time.
func parseMoment(s string) (time.Time, error) {
	if s == "latest" {
		return time.Time{}, nil
	}
	for _, form := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02T15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.Parse(form, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usage("%q is no time", s).(*tenfold.Error).WithHint("write --to '2026-11-23 10:15:30' (UTC), --to 2026-11-23T10:15:30+01:00 or --to latest")
}

func (c *cli) tellPrimary(ctx context.Context, api *control.Client, id tenfold.ID, begun time.Time) error {
	d, err := api.Database(ctx, id)
	if err != nil || c.json {
		return orEncode(c, d, err)
	}
	fmt.Fprintf(c.err, "%s has a primary again after %s\n", id.Name, took(time.Since(begun)))
	c.printNodes(d)
	return nil
}

func (c *cli) printNodes(d dbinfo.Database) {
	rows := [][]string{{"NODE", "ROLE", "STATE", "LAG", "COMMITS WAIT", "ADDRESS"}}
	for _, n := range d.Nodes {
		lag := "–"
		if n.Role == "reader" && n.Lag >= 0 {
			lag = size(n.Lag)
		}
		rows = append(rows, []string{strconv.Itoa(n.N), n.Role, n.State, lag, map[bool]string{true: "yes", false: "–"}[n.Sync], n.Addr})
	}
	table(c.out, rows)
	note := fmt.Sprintf("PostgreSQL %s, epoch %d, sync %s", d.Version, d.Epoch, d.Sync)
	if d.Sync != tenfold.SyncOff && !d.Safe {
		note += "; commits are not yet on two nodes"
	}
	fmt.Fprintln(c.out, note)
	for _, a := range d.Alarms {
		fmt.Fprintln(c.out, "alarm: "+a)
	}
}

// line is a statement on one line, short enough for a terminal.
func line(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 90 {
		return string(r[:89]) + "…"
	}
	return s
}

func dash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}
