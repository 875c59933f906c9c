//go:build scenario

package test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/scheduler"
	stypes "github.com/aws/aws-sdk-go-v2/service/scheduler/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// An event goes to a queue, a function, a job and an address that fails at first; what is refused for good is
// buried; schedules are made by the SDK; what was acknowledged outlives the process of the stores.
func TestEventsOfAService(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	var mu sync.Mutex
	var told []string // by the partner's endpoint: the authorization and the body
	fails := 2
	partner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case r.URL.Path == "/never":
			w.WriteHeader(http.StatusForbidden)
		case fails > 0:
			fails--
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			told = append(told, r.Header.Get("Authorization")+" "+string(b))
		}
	}))
	defer partner.Close()
	dir := write(t, t.TempDir(), echo)
	write(t, dir, greeter("one"))
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "    uses: [shop-bus, emails, partner-dead]\n") + `functions: {hello: {routes: [/api/*]}}
queues: {emails: {}, payments: {fifo: {}}}
secrets: {PARTNER_KEY: {generate: 24}}
jobs: {digest: {service: api, command: echo digested}}
events:
  shop-bus:
    archive: 1d
    rules:
      paid: {match: {detail-type: [order.paid], detail: {total: [{numeric: [">", 100]}]}}, to: [emails, hello, payments, digest]}
      partner:
        match: {detail-type: [order.paid]}
        input: {paths: {id: $.detail.id}, template: '{"order": "<id>"}'}
        to: {"` + partner.URL + `/hook": {secret: PARTNER_KEY}, "` + partner.URL + `/never": {secret: PARTNER_KEY, header: X-Key}}
        dead: partner-dead
`})
	h.up(dir)
	env := h.environ("echo 1")
	creds := credentials.NewStaticCredentialsProvider(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], "")
	c := eventbridge.New(eventbridge.Options{Region: env["AWS_REGION"], BaseEndpoint: aws.String(env["AWS_ENDPOINT_URL_EVENTBRIDGE"]), RetryMaxAttempts: 1, Credentials: creds})
	q := sqs.New(sqs.Options{Region: env["AWS_REGION"], BaseEndpoint: aws.String(env["AWS_ENDPOINT_URL_SQS"]), RetryMaxAttempts: 1, Credentials: creds})
	ctx := t.Context()
	if env["SHOP_BUS_BUS"] != "shop-bus" || env["AWS_ENDPOINT_URL_SCHEDULER"] != env["AWS_ENDPOINT_URL_EVENTBRIDGE"] {
		t.Fatal(env)
	}
	put := func(detail string) error {
		out, err := c.PutEvents(ctx, &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{{EventBusName: aws.String("shop-bus"), Source: aws.String("shop"), DetailType: aws.String("order.paid"), Detail: &detail}}})
		if err == nil && out.FailedEntryCount > 0 {
			err = fmt.Errorf("%s", *out.Entries[0].ErrorMessage)
		}
		return err
	}
	receive := func(queue string) []sqstypes.Message {
		out, err := q.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: aws.String(env[queue+"_QUEUE_URL"]), MaxNumberOfMessages: 10, MessageAttributeNames: []string{"All"}})
		if err != nil {
			t.Log(err)
			return nil
		}
		return out.Messages
	}
	if err := put(`{"id":"o-1","total":500}`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the event in its queue", 20*time.Second, func() bool {
		all := receive("EMAILS")
		return len(all) == 1 && strings.Contains(*all[0].Body, `"detail":{"id":"o-1","total":500}`)
	})
	eventually(t, "the function's call", 20*time.Second, func() bool { out, _ := h.runIn(dir, "logs", "hello"); return strings.Contains(out, "called for shop") })
	eventually(t, "the job", 20*time.Second, func() bool { out, _ := h.runIn(dir, "logs", "digest"); return strings.Contains(out, "digested") })
	eventually(t, "the partner's answer at the third try", 30*time.Second, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(told) == 1 && strings.HasPrefix(told[0], "Bearer ") && strings.HasSuffix(told[0], ` {"order": "o-1"}`) && len(told[0]) > 40
	})
	eventually(t, "the event that was refused", 20*time.Second, func() bool {
		all := receive("PARTNER_DEAD")
		return len(all) == 1 && *all[0].MessageAttributes["ERROR_CODE"].StringValue == "403"
	})
	if out := h.must(dir, "bus", "list"); !strings.Contains(out, "1d, 1 events") {
		t.Error(out)
	}
	if out := h.must(dir, "bus", "rules", "shop-bus"); !strings.Contains(out, "payments.fifo") || !strings.Contains(out, "order.paid") {
		t.Error(out)
	}
	h.must(dir, "bus", "put", "shop-bus", "order.seen")
	eventually(t, "the counters", 20*time.Second, func() bool { return strings.Contains(h.must(dir, "metrics"), "bus_put_events_entries_total{") })
	// A schedule of the SDK.
	s := scheduler.New(scheduler.Options{Region: env["AWS_REGION"], BaseEndpoint: aws.String(env["AWS_ENDPOINT_URL_SCHEDULER"]), RetryMaxAttempts: 1, Credentials: creds})
	queue, err := q.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: aws.String(env["EMAILS_QUEUE_URL"]), AttributeNames: []sqstypes.QueueAttributeName{"QueueArn"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateSchedule(ctx, &scheduler.CreateScheduleInput{Name: aws.String("soon"), ScheduleExpression: aws.String("at(" + time.Now().UTC().Add(2*time.Second).Format("2006-01-02T15:04:05") + ")"), FlexibleTimeWindow: &stypes.FlexibleTimeWindow{Mode: stypes.FlexibleTimeWindowModeOff},
		Target: &stypes.Target{Arn: aws.String(queue.Attributes["QueueArn"]), RoleArn: aws.String("arn:aws:iam::123456789012:role/r"), Input: aws.String(`{"say":"hello"}`)}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the schedule's message", 20*time.Second, func() bool {
		for _, m := range receive("EMAILS") {
			if *m.Body == `{"say":"hello"}` {
				return true
			}
		}
		return false
	})
	// What was acknowledged when the process of the stores dies is delivered by the next.
	mu.Lock()
	fails = 1_000_000
	mu.Unlock()
	if err := put(`{"id":"o-2","total":1}`); err != nil {
		t.Fatal(err)
	}
	h.kill("house data")
	mu.Lock()
	fails = 0
	mu.Unlock()
	eventually(t, "the delivery after the death of its process", 60*time.Second, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(told) > 1 && strings.Contains(told[len(told)-1], "o-2")
	})
	if _, err := c.DeleteEventBus(ctx, &eventbridge.DeleteEventBusInput{Name: aws.String("shop-bus")}); err == nil || !strings.Contains(err.Error(), "tenfold.yaml names it") {
		t.Error(err)
	}
	if _, err := c.PutEvents(ctx, &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{{Source: aws.String("shop"), DetailType: aws.String("x"), Detail: aws.String("{}")}}}); err == nil || !strings.Contains(err.Error(), "add `uses: [default]` to service api") {
		t.Error(err)
	}
	h.must(dir, "down")
}
