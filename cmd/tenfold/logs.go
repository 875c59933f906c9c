package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"tenfold"
	"tenfold/control"
)

func (c *cli) logsCommand() *cobra.Command {
	var q control.LogQuery
	cmd := c.asking("logs [NAME]", "Output of a service's tasks, a job's runs, … (all without NAME); --grep searches what is kept", cobra.MaximumNArgs(1), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		q.Env = env
		if len(args) > 0 {
			q.Name = tenfold.Name(args[0])
		}
		return api.Logs(ctx, q, c.printLine)
	})
	cmd.Long = cmd.Short + `.

What is kept outlives its task: that of tasks that failed, of versions before, and rotated files are searched too.

  tenfold logs api -f                         the last lines, and what comes
  tenfold logs api/3                          one task; or digest/7: one run of a job
  tenfold logs --grep 'timeout|refused'       in everything of the app
  tenfold logs --grep '(?i)panic' --since 2h --until 1h`
	cmd.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on with what comes")
	cmd.Flags().IntVarP(&q.Tail, "tail", "n", 100, "lines of each task to begin with; with --grep, of those found")
	cmd.Flags().DurationVar(&q.Since, "since", 0, "only lines of the last while, for example 10m")
	cmd.Flags().DurationVar(&q.Until, "until", 0, "only lines that are older than a while")
	cmd.Flags().StringVarP(&q.Grep, "grep", "g", "", "only lines that a regular expression matches; (?i) before it ignores case")
	return cmd
}

func (c *cli) printLine(l control.LogLine) error {
	if c.json {
		return c.encode(l)
	}
	if l.Exit != nil {
		return nil
	}
	_, err := fmt.Fprintf(c.out, "%s %s | %s\n", l.At.Local().Format("15:04:05.000"), l.From, l.Text)
	return err
}

func (c *cli) jobsCommand() *cobra.Command {
	limit := 20
	cmd := c.asking("jobs [JOB]", "Runs of the app's jobs: when, how long, how they ended", cobra.MaximumNArgs(1), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		job := tenfold.Name("")
		if len(args) > 0 {
			job = tenfold.Name(args[0])
		}
		runs, err := api.Runs(ctx, env, job)
		if limit > 0 {
			runs = runs[:min(limit, len(runs))]
		}
		if err != nil || c.json {
			return orEncode(c, runs, err)
		}
		if len(runs) == 0 {
			fmt.Fprintln(c.err, "no job has run yet; tenfold status says when one will, tenfold run JOB runs one now")
			return nil
		}
		rows := [][]string{{"RUN", "BY", "DUE", "BEGAN", "TOOK", "EXIT", "HOW", "LOG"}}
		for _, r := range runs {
			rows = append(rows, runRow(r))
		}
		table(c.out, rows)
		return nil
	})
	cmd.Flags().IntVarP(&limit, "limit", "n", limit, "newest runs to show; 0: all that are remembered")
	return cmd
}

// runRow is a run of a job in a table.
func runRow(r control.JobRun) []string {
	id := string(r.Job) + "/" + strconv.Itoa(r.N)
	by, due, exit, how, ended, log := r.Trigger, "–", "–", "goes on", time.Now(), "gone"
	if r.Attempt > 1 {
		by += " " + strconv.Itoa(r.Attempt-1)
	}
	if !r.Due.IsZero() {
		due = r.Due.Local().Format(time.DateTime)
	}
	if !r.Ended.IsZero() {
		ended, how = r.Ended, "ok"
		if r.Exit >= 0 {
			exit = strconv.Itoa(r.Exit)
		}
	}
	if r.Error != "" {
		how = r.Error
	}
	if r.Log {
		log = "tenfold logs " + id
	}
	return []string{id, by, due, r.Began.Local().Format(time.DateTime), took(ended.Sub(r.Began)), exit, how, log}
}
