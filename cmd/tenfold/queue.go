package main

import (
	"bytes"
	"context"
	"encoding/json"
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

func (c *cli) queueCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "queue", Aliases: []string{"queues"}, Short: "Queues: list, send, receive, redrive, purge", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(c.queueList(), c.queueSend(), c.queueReceive(), c.queueRedrive(), c.queuePurge())
	return cmd
}

// aws asks for one of AWS' operations as the environment's owner and reads its answer into out.
func aws(ctx context.Context, api *control.Client, env control.Env, service, operation string, in, out any) error {
	return awsHinted(ctx, api, env, service, operation, "see what there is: tenfold queue list", in, out)
}

// awsHinted is aws with a hint for what is refused.
func awsHinted(ctx context.Context, api *control.Client, env control.Env, service, operation, hint string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	got, err := api.StoreCall(ctx, env, control.StoreCall{Service: service, Operation: operation, Body: body})
	switch {
	case err != nil:
		return err
	case got.Code != "":
		code := tenfold.CodeInvalid
		if strings.Contains(got.Code, "NotFound") || strings.Contains(got.Code, "DoesNotExist") {
			code = tenfold.CodeNotFound
		}
		if strings.HasSuffix(got.Code, "PurgeQueueInProgress") {
			code, hint = tenfold.CodeConflict, "it was emptied less than a minute ago; what came since then stays: purge it again in a minute"
		}
		return tenfold.Errorf(code, "%s: %s", got.Code, got.Message).WithHint("%s", hint)
	case len(got.Body) == 0 || out == nil:
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(got.Body))
	d.UseNumber()
	return d.Decode(out)
}

// queueState is a queue as `queue list` shows it.
type queueState struct {
	Name     string        `json:"name"`
	URL      string        `json:"url"`
	Waiting  int64         `json:"waiting"`
	InFlight int64         `json:"inFlight"`
	Delayed  int64         `json:"delayed"`
	Timeout  time.Duration `json:"timeout"`
	Keep     time.Duration `json:"keep"`
	Dead     string        `json:"dead,omitempty"`
	Foreign  bool          `json:"foreign,omitempty"` // made by a service, not in the manifest
}

func queueURL(ctx context.Context, api *control.Client, env control.Env, name string) (string, error) {
	var out struct{ QueueURL string }
	err := aws(ctx, api, env, "sqs", "GetQueueUrl", map[string]string{"QueueName": name}, &out)
	if err != nil && !strings.HasSuffix(name, ".fifo") { // as the manifest calls it
		if aws(ctx, api, env, "sqs", "GetQueueUrl", map[string]string{"QueueName": name + ".fifo"}, &out) == nil {
			err = nil
		}
	}
	return out.QueueURL, err
}

func (c *cli) queueList() *cobra.Command {
	return c.asking("list", "The app's queues and what waits in them", cobra.NoArgs, func(ctx context.Context, api *control.Client, env control.Env, _ []string) error {
		st, err := api.Status(ctx, env)
		if err != nil {
			return err
		}
		all := []queueState{}
		in := map[string]any{"MaxResults": 1000}
		for {
			var page struct {
				QueueUrls []string
				NextToken string
			}
			if err := aws(ctx, api, env, "sqs", "ListQueues", in, &page); err != nil {
				return err
			}
			for _, u := range page.QueueUrls {
				var got struct{ Attributes map[string]string }
				if err := aws(ctx, api, env, "sqs", "GetQueueAttributes", map[string]any{"QueueUrl": u, "AttributeNames": []string{"All"}}, &got); err != nil {
					return err
				}
				n := func(name string) int64 {
					i, _ := strconv.ParseInt(got.Attributes[name], 10, 64)
					return i
				}
				q := queueState{
					Name: u[strings.LastIndexByte(u, '/')+1:], URL: u, Waiting: n("ApproximateNumberOfMessages"), InFlight: n("ApproximateNumberOfMessagesNotVisible"), Delayed: n("ApproximateNumberOfMessagesDelayed"),
					Timeout: time.Duration(n("VisibilityTimeout")) * time.Second, Keep: time.Duration(n("MessageRetentionPeriod")) * time.Second, Foreign: true,
				}
				_, q.Dead = deadOf(got.Attributes["RedrivePolicy"])
				for _, r := range st.Resources {
					if r.Kind == tenfold.KindQueue && string(r.Name) == strings.TrimSuffix(q.Name, ".fifo") {
						q.Foreign = false
					}
				}
				all = append(all, q)
			}
			if page.NextToken == "" {
				break
			}
			in["NextToken"] = page.NextToken
		}
		if c.json {
			return c.encode(all)
		}
		if len(all) == 0 {
			fmt.Fprintf(c.err, "%s has no queues; add one to the manifest: queues: [emails]\n", env.App)
			return nil
		}
		rows := [][]string{{"NAME", "WAITING", "IN FLIGHT", "DELAYED", "TIMEOUT", "KEEP", "DEAD", "NOTE"}}
		for _, q := range all {
			note := ""
			if q.Foreign {
				note = "not in the manifest"
			}
			rows = append(rows, []string{q.Name, strconv.FormatInt(q.Waiting, 10), strconv.FormatInt(q.InFlight, 10), strconv.FormatInt(q.Delayed, 10), q.Timeout.String(), days(q.Keep), orDash(q.Dead), note})
		}
		table(c.out, rows)
		return nil
	})
}

// deadOf is the ARN and the name of the dead-letter queue in a RedrivePolicy, "" for none.
func deadOf(policy string) (arn, name string) {
	var p struct {
		Target string `json:"deadLetterTargetArn"`
	}
	if json.Unmarshal([]byte(policy), &p) != nil {
		return "", ""
	}
	return p.Target, p.Target[strings.LastIndexByte(p.Target, ':')+1:]
}

func days(d time.Duration) string {
	if d >= 24*time.Hour && d%(24*time.Hour) == 0 {
		return strconv.Itoa(int(d/(24*time.Hour))) + "d"
	}
	return d.String()
}

func (c *cli) queueSend() *cobra.Command {
	var group, dedupe string
	var delay time.Duration
	cmd := c.asking("send NAME BODY", "Send one message; - reads standard input", cobra.ExactArgs(2), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		body := args[1]
		if body == "-" {
			b, err := io.ReadAll(os.Stdin)
			if err != nil {
				return err
			}
			body = string(b)
		}
		u, err := queueURL(ctx, api, env, args[0])
		if err != nil {
			return err
		}
		in := map[string]any{"QueueUrl": u, "MessageBody": body}
		if strings.HasSuffix(u, ".fifo") && group == "" {
			group = "default"
		}
		if group != "" {
			in["MessageGroupId"] = group
		}
		if dedupe != "" {
			in["MessageDeduplicationId"] = dedupe
		}
		if delay > 0 {
			in["DelaySeconds"] = int(delay / time.Second)
		}
		var out struct{ MessageID string }
		if err := aws(ctx, api, env, "sqs", "SendMessage", in, &out); err != nil || c.json {
			return orEncode(c, out, err)
		}
		fmt.Fprintln(c.out, out.MessageID)
		return nil
	})
	cmd.Flags().StringVar(&group, "group", "", "message group (of a queue in order: default)")
	cmd.Flags().StringVar(&dedupe, "id", "", "deduplication id")
	cmd.Flags().DurationVar(&delay, "delay", 0, "how long it is invisible")
	return cmd
}

func (c *cli) queueReceive() *cobra.Command {
	var remove bool
	count, timeout := 1, time.Duration(0)
	cmd := c.asking("receive NAME", "Print messages, a body a line; they stay unless --delete, and count as received once more", cobra.ExactArgs(1), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		u, err := queueURL(ctx, api, env, args[0])
		if err != nil {
			return err
		}
		if remove {
			timeout = max(timeout, 30*time.Second)
		}
		var out struct {
			Messages []struct {
				MessageID, Body, ReceiptHandle string
				Attributes                     map[string]string
			}
		}
		if err := aws(ctx, api, env, "sqs", "ReceiveMessage", map[string]any{"QueueUrl": u, "MaxNumberOfMessages": min(max(count, 1), 10), "VisibilityTimeout": int(timeout / time.Second), "AttributeNames": []string{"All"}}, &out); err != nil {
			return err
		}
		for _, m := range out.Messages {
			if c.json {
				if err := c.encode(m); err != nil {
					return err
				}
			} else {
				fmt.Fprintln(c.out, m.Body)
			}
			if remove {
				if err := aws(ctx, api, env, "sqs", "DeleteMessage", map[string]any{"QueueUrl": u, "ReceiptHandle": m.ReceiptHandle}, nil); err != nil {
					return err
				}
			}
		}
		if len(out.Messages) == 0 {
			fmt.Fprintf(c.err, "nothing waits in %s now\n", args[0])
		}
		return nil
	})
	cmd.Flags().BoolVar(&remove, "delete", false, "delete what was printed")
	cmd.Flags().IntVar(&count, "count", count, "how many, 10 at most")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "how long they are invisible to others")
	return cmd
}

// queueRedrive gives messages that were given up on back to where they came from.
func (c *cli) queueRedrive() *cobra.Command {
	return c.asking("redrive NAME", "Give what was given up on back: the messages of NAME's dead-letter queue go to NAME again", cobra.ExactArgs(1), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		u, err := queueURL(ctx, api, env, args[0])
		if err != nil {
			return err
		}
		var got struct{ Attributes map[string]string }
		if err := aws(ctx, api, env, "sqs", "GetQueueAttributes", map[string]any{"QueueUrl": u, "AttributeNames": []string{"RedrivePolicy", "QueueArn"}}, &got); err != nil {
			return err
		}
		dead, name := deadOf(got.Attributes["RedrivePolicy"])
		if dead == "" {
			return tenfold.Errorf(tenfold.CodeInvalid, "queue %s has no dead-letter queue", args[0]).WithHint("name the queue that messages came from: tenfold queue list")
		}
		var out struct{ TaskHandle string }
		if err := aws(ctx, api, env, "sqs", "StartMessageMoveTask", map[string]any{"SourceArn": dead, "DestinationArn": got.Attributes["QueueArn"]}, &out); err != nil || c.json {
			return orEncode(c, out, err)
		}
		fmt.Fprintf(c.err, "messages of %s go back to %s; see: tenfold queue list\n", name, args[0])
		return nil
	})
}

func (c *cli) queuePurge() *cobra.Command {
	var yes bool
	cmd := c.asking("purge NAME", "Delete all messages of a queue", cobra.ExactArgs(1), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		u, err := queueURL(ctx, api, env, args[0])
		if err != nil {
			return err
		}
		if !yes {
			return tenfold.Errorf(tenfold.CodeInvalid, "this deletes all messages of %s for good", args[0]).WithHint("say --yes if that is meant: tenfold queue purge %s --yes", args[0])
		}
		return aws(ctx, api, env, "sqs", "PurgeQueue", map[string]string{"QueueUrl": u}, nil)
	})
	cmd.Flags().BoolVar(&yes, "yes", false, "yes, delete them")
	return cmd
}
