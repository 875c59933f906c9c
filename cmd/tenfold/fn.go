package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tenfold"
	"tenfold/control"
)

func (c *cli) fnCommand() *cobra.Command {
	fn := &cobra.Command{Use: "fn", Aliases: []string{"functions", "function"}, Short: "Functions: list, call, logs", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	fn.AddCommand(c.fnList(), c.fnInvoke(), c.fnLogs())
	return fn
}

func (c *cli) fnList() *cobra.Command {
	return c.asking("list", "The app's functions and how they are used", cobra.NoArgs, func(ctx context.Context, api *control.Client, env control.Env, _ []string) error {
		all, err := api.Functions(ctx, env)
		if err != nil || c.json {
			return orEncode(c, all, err)
		}
		if len(all) == 0 {
			fmt.Fprintf(c.err, "%s has no functions; add one to the manifest: functions: {notify: {path: functions/notify}}\n", env.App)
			return nil
		}
		rows := [][]string{{"NAME", "HANDLER", "RUNTIME", "WARM", "BUSY", "CALLS", "FAILED", "THROTTLED", "P95", "START", "WAITING", "ROUTES", "FROM"}}
		for _, f := range all {
			waiting := "–"
			if n := f.Waiting + f.Queued; n > 0 {
				waiting = strconv.Itoa(n)
			}
			rows = append(rows, []string{
				string(f.Name), f.Handler, orDash(f.Runtime), fmt.Sprintf("%d of %d-%d", f.Warm, f.Min, f.Max), strconv.Itoa(f.Busy), strconv.FormatUint(f.Invocations, 10), strconv.FormatUint(f.Errors, 10),
				strconv.FormatUint(f.Throttles, 10), brief(f.P95), brief(f.Init), waiting, orDash(strings.Join(f.Routes, " ")), orDash(fed(f.From)),
			})
		}
		table(c.out, rows)
		for _, f := range all {
			if f.Last != "" && f.Warm == 0 {
				fmt.Fprintf(c.err, "%s did not start the last time: %s\n", f.Name, f.Last)
			}
			if f.Unenforced != "" {
				fmt.Fprintf(c.err, "%s: %s\n", f.Name, f.Unenforced)
			}
			for _, s := range f.From {
				switch {
				case s.Trouble != "":
					fmt.Fprintf(c.err, "%s: %s cannot be read: %s\n", f.Name, s.Name, s.Trouble)
				case s.Last != "":
					fmt.Fprintf(c.err, "%s: the last batch of %s that failed: %s\n", f.Name, s.Name, s.Last)
				}
			}
		}
		return nil
	})
}

// fed says what event sources gave, in few words.
func fed(all []control.EventSource) string {
	var parts []string
	for _, s := range all {
		text := fmt.Sprintf("%s: %d done", s.Name, s.Records)
		if s.Working > 0 {
			text += fmt.Sprintf(", %d at work", s.Working)
		}
		if s.Failed > 0 {
			text += fmt.Sprintf(", %d failed", s.Failed)
		}
		if s.Filtered > 0 {
			text += fmt.Sprintf(", %d passed over", s.Filtered)
		}
		if s.Dropped > 0 {
			text += fmt.Sprintf(", %d given up on", s.Dropped)
		}
		if s.Behind >= time.Second {
			text += ", " + brief(s.Behind) + " behind"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

// fnInvoke calls a function: its answer is standard output, what is known of the call standard error.
func (c *cli) fnInvoke() *cobra.Command {
	var async, logs bool
	cmd := c.asking("invoke NAME [EVENT]", "Call a function with an event in JSON ({} by default; - reads standard input)", cobra.RangeArgs(1, 2), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		event := []byte("{}")
		if len(args) == 2 {
			event = []byte(args[1])
		}
		if string(event) == "-" {
			var err error
			if event, err = io.ReadAll(os.Stdin); err != nil {
				return err
			}
		}
		if !json.Valid(event) {
			return usage("the event is no JSON: %.60s", event)
		}
		out, err := api.Invoke(ctx, env, control.Invocation{Function: tenfold.Name(args[0]), Payload: event, Async: async, Tail: logs})
		if err != nil || c.json {
			return orEncode(c, out, err)
		}
		c.err.Write(out.Tail)
		switch {
		case async && out.Throttled != "":
			return tenfold.Errorf(tenfold.CodeUnavailable, "function %s was not called: too many of its events wait", args[0]).WithHint("see how many: tenfold fn list; functions.%s.scale sets how many it works at", args[0])
		case async:
			fmt.Fprintf(c.err, "accepted as %s; what comes of it: tenfold fn logs %s\n", out.RequestID, args[0])
			return nil
		case out.Throttled != "":
			return tenfold.Errorf(tenfold.CodeUnavailable, "function %s was not called: %s", args[0], out.Throttled).WithHint("functions.%s.scale sets how many calls it takes at once", args[0])
		case out.Failed != "":
			c.out.Write(line1(out.Payload))
			return tenfold.Errorf(tenfold.CodeFailed, "function %s failed after %s: %s", args[0], brief(out.Took), said(out)).WithHint("see what it said: tenfold fn logs %s", args[0])
		}
		c.out.Write(line1(out.Payload))
		started := ""
		if out.Init > 0 {
			started = ", after a start of " + brief(out.Init)
		}
		fmt.Fprintf(c.err, "%s took %s%s\n", args[0], brief(out.Took), started)
		return nil
	})
	cmd.Flags().BoolVar(&async, "async", false, "do not wait: it is tried again when it fails")
	cmd.Flags().BoolVar(&logs, "tail", false, "print the last 4 KB of its output, too")
	return cmd
}

// said is a function's error in a line.
func said(out control.Invoked) string {
	var e struct{ ErrorType, ErrorMessage string }
	if json.Unmarshal(out.Payload, &e) == nil && e.ErrorMessage != "" {
		return e.ErrorType + ": " + e.ErrorMessage
	}
	return out.Failed
}

// line1 ends b with a line break.
func line1(b []byte) []byte {
	if len(b) == 0 || bytes.HasSuffix(b, []byte("\n")) {
		return b
	}
	return append(slices.Clone(b), '\n')
}

// fnLogs is logs of one function.
func (c *cli) fnLogs() *cobra.Command {
	cmd := c.logsCommand()
	cmd.Use, cmd.Short, cmd.Args = "logs NAME", "What a function said, with Lambda's REPORT lines", cobra.ExactArgs(1)
	return cmd
}
