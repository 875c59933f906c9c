//go:build scenario

package test

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// A service finds its queues in its environment, and AWS' own client needs no more than that. What was
// acknowledged outlives the process of the stores, the daemon, the manifest and an upgrade.
func TestQueuesOfAService(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	named := manifest("1", "    uses: [emails, orders]\nqueues: {emails: {retries: 1, timeout: 1s}, orders: {fifo: content}, others: {}}\n")
	write(t, dir, map[string]string{"tenfold.yaml": named})
	h.up(dir)
	env := h.environ("echo 1")
	c := sqs.New(sqs.Options{Region: env["AWS_REGION"], BaseEndpoint: aws.String(env["AWS_ENDPOINT_URL_SQS"]), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], "")})
	ctx := t.Context()
	send := func(u, body, group string) error {
		in := &sqs.SendMessageInput{QueueUrl: &u, MessageBody: &body}
		if group != "" {
			in.MessageGroupId = &group
		}
		_, err := c.SendMessage(ctx, in)
		return err
	}
	receive := func(u string) (body, handle string) {
		t.Helper()
		out, err := c.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &u, WaitTimeSeconds: 5})
		if err != nil {
			t.Fatal(err)
		}
		if len(out.Messages) == 0 {
			return "", ""
		}
		return *out.Messages[0].Body, *out.Messages[0].ReceiptHandle
	}
	emails, orders := env["EMAILS_QUEUE_URL"], env["ORDERS_QUEUE_URL"]
	if !strings.HasSuffix(orders, "/orders.fifo") {
		t.Error(orders)
	}
	if err := send(emails, "hello", ""); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := send(orders, "once", "g"); err != nil {
			t.Fatal(err)
		}
	}
	if err := send(strings.Replace(emails, "emails", "others", 1), "x", ""); err == nil || !strings.Contains(err.Error(), "add `uses: [others]` to service api") {
		t.Error(err)
	}
	if _, err := c.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: &emails}); err == nil || !strings.Contains(err.Error(), "tenfold.yaml names the queue") {
		t.Error(err)
	}
	if out := h.must(dir, "queue", "list"); !strings.Contains(out, "emails-dead") || !strings.Contains(out, "orders.fifo") {
		t.Error(out)
	}
	if out := h.must(dir, "status"); !strings.Contains(out, "1 waiting") {
		eventually(t, "the backlog in status", 10*time.Second, func() bool { return strings.Contains(h.must(dir, "status"), "1 waiting") })
	}
	if out := h.must(dir, "metrics"); !strings.Contains(out, "queue_messages_visible{") {
		t.Error("no queue_messages_visible in metrics")
	}
	// The process of the stores dies, and all of the house.
	h.kill("house data")
	eventually(t, "the queue after the death of its process", 20*time.Second, func() bool { return send(emails, "second", "") == nil })
	h.kill("house daemon")
	h.must(dir, "up", "--detach")
	body, handle := receive(emails)
	if body != "hello" {
		t.Fatalf("%q", body)
	}
	if _, err := c.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &emails, ReceiptHandle: &handle}); err != nil {
		t.Error(err)
	}
	if body, handle = receive(orders); body != "once" {
		t.Errorf("%q", body)
	}
	if _, err := c.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &orders, ReceiptHandle: &handle}); err != nil {
		t.Error(err)
	}
	// Two receives, then the dead-letter queue; a person gives it back.
	for range 2 {
		if body, _ := receive(emails); body != "second" {
			t.Errorf("%q", body)
		}
	}
	eventually(t, "a message that was given up on", 20*time.Second, func() bool {
		body, _ := receive(emails)
		if body != "" {
			t.Errorf("%q a third time", body)
		}
		out := h.must(dir, "queue", "receive", "emails-dead")
		return strings.Contains(out, "second")
	})
	h.must(dir, "queue", "redrive", "emails")
	eventually(t, "the message given back", 20*time.Second, func() bool { body, _ := receive(emails); return body == "second" })
	h.must(dir, "queue", "send", "emails", "kept")
	// A manifest without them keeps them; a person removes them by name.
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "")})
	h.up(dir)
	eventually(t, "queues that are kept", 20*time.Second, func() bool { return strings.Contains(h.must(dir, "kept"), "queue/emails") })
	write(t, dir, map[string]string{"tenfold.yaml": named})
	h.up(dir)
	eventually(t, "what was kept", 20*time.Second, func() bool {
		return strings.Contains(h.must(dir, "queue", "receive", "emails", "--count", "10"), "kept")
	})
	h.must(dir, "down")
}
