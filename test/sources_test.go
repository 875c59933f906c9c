//go:build scenario

package test

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// worker is a function that is called with messages: it says what it did, and what it could not do.
const worker = `import json, sys

def handler(event, context):
    failed = []
    for r in event["Records"]:
        assert r["eventSource"] == "aws:sqs" and r["eventSourceARN"].endswith(":" + r["eventSourceARN"].split(":")[-1]) and r["md5OfBody"] and r["attributes"]["SentTimestamp"]
        if r["body"].startswith("bad"):
            failed.append({"itemIdentifier": r["messageId"]})
        else:
            print("did", r["body"], "of", len(event["Records"]), json.dumps(r["messageAttributes"]), flush=True)
    return {"batchItemFailures": failed}
`

// Messages reach a function, whoever of the house dies meanwhile; what it cannot do goes to the dead-letter queue, alone.
// A death may cost a message a try, on a busy machine two.
func TestAFunctionOfAQueue(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	write(t, dir, map[string]string{
		"functions/mailer/handler.py": worker, "functions/order/handler.py": worker,
		"tenfold.yaml": manifest("1", "    uses: [emails, payments]\n") + `queues: {emails: {timeout: 3s, retries: 5}, payments: {fifo: id, timeout: 3s}}
functions:
  mailer: {handler: handler.handler, runtime: python, timeout: 3s, from: {emails: {batch: 5, wait: 1s, parallel: 3}}}
  order: {handler: handler.handler, runtime: python, timeout: 3s, from: payments, scale: 4}
`,
	})
	h.up(dir)
	env := map[string]string{}
	for line := range strings.Lines(h.must(dir, "exec", "api", "--", "env")) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			env[k] = v
		}
	}
	c := sqs.New(sqs.Options{Region: env["AWS_REGION"], BaseEndpoint: aws.String(env["AWS_ENDPOINT_URL_SQS"]),
		Credentials: credentials.NewStaticCredentialsProvider(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], "")})
	send := func(queue, body, group string) {
		in := &sqs.SendMessageInput{QueueUrl: aws.String(env[queue+"_QUEUE_URL"]), MessageBody: &body}
		if group != "" {
			in.MessageGroupId, in.MessageDeduplicationId = &group, &body
		}
		eventually(t, "a message sent", 20*time.Second, func() bool { _, err := c.SendMessage(t.Context(), in); return err == nil })
	}
	did := func(function string) string { return h.must(dir, "fn", "logs", function, "--tail", "5000") }

	// Order of groups, side by side.
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 6 {
				send("PAYMENTS", fmt.Sprintf("g%d-%d", g, i), fmt.Sprint("g", g))
			}
		})
	}
	wg.Wait()
	var said string
	eventually(t, "all groups", 30*time.Second, func() bool { said = did("order"); return strings.Count(said, "did g") >= 24 })
	for g := range 4 {
		last := -1
		for i := range 6 {
			at := strings.Index(said, fmt.Sprintf("did g%d-%d ", g, i))
			if at < last {
				t.Errorf("group %d out of order:\n%s", g, said)
			}
			last = at
		}
	}

	// Whoever dies: nothing is lost.
	const n = 60
	killed := map[int]func(){
		10: func() { h.kill("house daemon"); h.must(dir, "up", "--detach") },
		20: func() { syscall.Kill(processOf(t, h, " invoke "), syscall.SIGKILL) },
		30: func() { h.kill("house data") },
		40: func() { h.bin = h.next(); h.must(dir, "upgrade") },
	}
	send("EMAILS", "bad-1", "")
	for i := range n {
		send("EMAILS", fmt.Sprintf("m%02d", i), "")
		if kill := killed[i]; kill != nil {
			kill()
		}
	}
	var missing []string
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("not done: %v\n%s\n%s", missing, h.must(dir, "queue", "list"), said)
		}
	})
	eventually(t, "every message", 90*time.Second, func() bool {
		said, missing = did("mailer"), nil
		for i := range n {
			if m := fmt.Sprintf("m%02d", i); !strings.Contains(said, "did "+m+" ") {
				missing = append(missing, m)
			}
		}
		return missing == nil
	})
	if strings.Contains(said, "did bad") || !strings.Contains(said, " of 5 ") {
		t.Errorf("%s", said)
	}
	eventually(t, "what was given up on", 30*time.Second, func() bool {
		return strings.Contains(h.must(dir, "queue", "receive", "emails-dead"), "bad-1")
	})
	eventually(t, "an empty queue", 30*time.Second, func() bool {
		out := h.must(dir, "queue", "list")
		for l := range strings.Lines(out) {
			if f := strings.Fields(l); len(f) > 2 && f[0] == "emails" {
				return f[1] == "0" && f[2] == "0"
			}
		}
		return false
	})
	if out := h.must(dir, "fn", "list"); !strings.Contains(out, "emails: ") || !strings.Contains(out, "done") {
		t.Errorf("%s", out)
	}
	if out := h.must(dir, "events"); !strings.Contains(out, "handler.handler can be called, 0-50 environments, from emails") {
		t.Errorf("%s", out)
	}
	h.must(dir, "down")
}
