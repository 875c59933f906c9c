package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tenfold"
	"tenfold/control"
)

func (c *cli) busCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "bus", Aliases: []string{"buses", "events-bus"}, Short: "Event buses: list, put, rules, replay", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(c.busList(), c.busPut(), c.busRules(), c.busReplay())
	return cmd
}

// bridge is aws for event buses, with the hint that helps there.
func bridge(ctx context.Context, api *control.Client, env control.Env, operation string, in, out any) error {
	return awsHinted(ctx, api, env, "events", operation, "see what there is: tenfold bus list", in, out)
}

// busState is a bus as `bus list` shows it.
type busState struct {
	Name    string `json:"name"`
	ARN     string `json:"arn"`
	Rules   int    `json:"rules"`
	Archive int    `json:"archiveDays,omitempty"`
	Events  int64  `json:"archived,omitempty"`
}

// busRule is a rule as DescribeRule tells of it.
type busRule struct {
	Name, State, EventPattern, ScheduleExpression, ManagedBy string
}

func rulesOf(ctx context.Context, api *control.Client, env control.Env, bus string) ([]busRule, error) {
	var all []busRule
	in := map[string]any{"EventBusName": bus}
	for {
		var page struct {
			Rules     []busRule
			NextToken string
		}
		if err := bridge(ctx, api, env, "ListRules", in, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Rules...)
		if page.NextToken == "" {
			return all, nil
		}
		in["NextToken"] = page.NextToken
	}
}

// archiveState is an archive as ListArchives tells of it.
type archiveState struct {
	ArchiveName, EventSourceArn string
	RetentionDays               int
	EventCount                  int64
}

func (c *cli) busList() *cobra.Command {
	return c.asking("list", "The app's event buses, their rules and what their archives keep", cobra.NoArgs, func(ctx context.Context, api *control.Client, env control.Env, _ []string) error {
		var page struct{ EventBuses []struct{ Name, Arn string } }
		if err := bridge(ctx, api, env, "ListEventBuses", map[string]any{}, &page); err != nil {
			return err
		}
		var kept struct{ Archives []archiveState }
		if err := bridge(ctx, api, env, "ListArchives", map[string]any{}, &kept); err != nil {
			return err
		}
		all := []busState{}
		for _, b := range page.EventBuses {
			rules, err := rulesOf(ctx, api, env, b.Name)
			if err != nil {
				return err
			}
			s := busState{Name: b.Name, ARN: b.Arn, Rules: len(rules)}
			for _, a := range kept.Archives {
				if a.EventSourceArn == b.Arn {
					s.Archive, s.Events = max(s.Archive, a.RetentionDays), s.Events+a.EventCount
				}
			}
			all = append(all, s)
		}
		if c.json {
			return c.encode(all)
		}
		rows := [][]string{{"NAME", "RULES", "ARCHIVE"}}
		for _, b := range all {
			archive := "-"
			if b.Archive > 0 {
				archive = fmt.Sprintf("%dd, %d events", b.Archive, b.Events)
			}
			rows = append(rows, []string{b.Name, strconv.Itoa(b.Rules), archive})
		}
		table(c.out, rows)
		return nil
	})
}

func (c *cli) busPut() *cobra.Command {
	var source string
	cmd := c.asking("put BUS TYPE [DETAIL]", "Put an event on a bus: its type and its detail in JSON, or - for standard input", cobra.RangeArgs(2, 3), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		detail := "{}"
		if len(args) == 3 {
			detail = args[2]
		}
		if detail == "-" {
			raw, err := io.ReadAll(os.Stdin)
			if err != nil {
				return err
			}
			detail = string(raw)
		}
		var out struct {
			Entries []struct{ EventId, ErrorCode, ErrorMessage string }
		}
		entry := map[string]string{"EventBusName": args[0], "Source": source, "DetailType": args[1], "Detail": detail}
		if err := bridge(ctx, api, env, "PutEvents", map[string]any{"Entries": []any{entry}}, &out); err != nil {
			return err
		}
		if len(out.Entries) != 1 || out.Entries[0].ErrorCode != "" {
			why := "no answer"
			if len(out.Entries) == 1 {
				why = out.Entries[0].ErrorCode + ": " + out.Entries[0].ErrorMessage
			}
			return tenfold.Errorf(tenfold.CodeInvalid, "%s", why).WithHint("a detail is an object of JSON; buses: tenfold bus list")
		}
		fmt.Fprintln(c.out, out.Entries[0].EventId)
		return nil
	})
	cmd.Flags().StringVar(&source, "source", "tenfold", "who says so")
	return cmd
}

func (c *cli) busRules() *cobra.Command {
	return c.asking("rules BUS", "A bus' rules: what they take, and where it goes", cobra.ExactArgs(1), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		all, err := rulesOf(ctx, api, env, args[0])
		if err != nil {
			return err
		}
		if c.json {
			return c.encode(all)
		}
		rows := [][]string{{"NAME", "TAKES", "TO", "NOTE"}}
		for _, r := range all {
			var to struct{ Targets []struct{ Arn string } }
			if err := bridge(ctx, api, env, "ListTargetsByRule", map[string]any{"EventBusName": args[0], "Rule": r.Name}, &to); err != nil {
				return err
			}
			var names []string
			for _, t := range to.Targets {
				names = append(names, lastOf(t.Arn))
			}
			note := ""
			switch {
			case r.State == "DISABLED":
				note = "off"
			case r.ManagedBy == "":
				note = "not in the manifest"
			}
			takes := r.EventPattern
			if takes == "" {
				takes = r.ScheduleExpression
			}
			rows = append(rows, []string{r.Name, takes, strings.Join(names, ", "), note})
		}
		table(c.out, rows)
		return nil
	})
}

// lastOf is what an ARN names: the part after its account, without its kind.
func lastOf(arn string) string {
	p := strings.SplitN(arn, ":", 6)
	name := p[len(p)-1]
	name = strings.TrimPrefix(name, "function:")
	parts := strings.Split(name, "/")
	if len(parts) > 1 {
		return parts[1]
	}
	return name
}

func (c *cli) busReplay() *cobra.Command {
	var from, to time.Duration
	cmd := c.asking("replay BUS", "Play the events of a bus' archive again, those of the last hour unless said", cobra.ExactArgs(1), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		var bus struct{ Arn string }
		if err := bridge(ctx, api, env, "DescribeEventBus", map[string]any{"Name": args[0]}, &bus); err != nil {
			return err
		}
		var kept struct{ Archives []archiveState }
		if err := bridge(ctx, api, env, "ListArchives", map[string]any{"EventSourceArn": bus.Arn}, &kept); err != nil {
			return err
		}
		if len(kept.Archives) == 0 {
			return tenfold.Errorf(tenfold.CodeNotFound, "%s has no archive", args[0]).WithHint("add one to the manifest: events: {%s: {archive: 30d}}", args[0])
		}
		now := time.Now()
		name := fmt.Sprintf("%.40s-%s", args[0], now.UTC().Format("20060102T150405.000"))
		in := map[string]any{"ReplayName": name, "EventSourceArn": strings.Replace(bus.Arn, "event-bus/"+args[0], "archive/"+kept.Archives[0].ArchiveName, 1), "Destination": map[string]any{"Arn": bus.Arn},
			"EventStartTime": float64(now.Add(-from).UnixMilli()) / 1000, "EventEndTime": float64(now.Add(-to).UnixMilli()) / 1000}
		if err := bridge(ctx, api, env, "StartReplay", in, nil); err != nil {
			return err
		}
		fmt.Fprintf(c.out, "%s began\n", name)
		return nil
	})
	cmd.Flags().DurationVar(&from, "since", time.Hour, "how long ago the first event is")
	cmd.Flags().DurationVar(&to, "until", 0, "how long ago the last one is")
	return cmd
}
