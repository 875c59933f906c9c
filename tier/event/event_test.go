package event_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
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
	"github.com/aws/smithy-go"

	"tenfold/internal/awsapi"
	"tenfold/internal/kv"
	"tenfold/tier/event"
)

const account = "123456789012"

// targets takes what is sent, and refuses what it is told to.
type targets struct {
	mu     sync.Mutex
	sent   map[string][]event.Message // by queue
	called map[string][]string        // by function
	ran    []string
	refuse func(to string) error
	news   chan struct{}
}

func newTargets() *targets {
	return &targets{sent: map[string][]event.Message{}, called: map[string][]string{}, news: make(chan struct{}, 1000)}
}

func (x *targets) take(to string, f func()) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.refuse != nil {
		if err := x.refuse(to); err != nil {
			return err
		}
	}
	f()
	select {
	case x.news <- struct{}{}:
	default:
	}
	return nil
}

// Send implements event.Sender.
func (x *targets) Send(_ context.Context, _, queue string, m event.Message) error {
	return x.take(queue, func() { x.sent[queue] = append(x.sent[queue], m) })
}

// Invoke implements event.Invoker.
func (x *targets) Invoke(_ context.Context, _, function, _ string, payload []byte) error {
	return x.take(function, func() { x.called[function] = append(x.called[function], string(payload)) })
}

// Start implements event.Runner.
func (x *targets) Start(_ context.Context, _, job, _ string) error {
	return x.take(job, func() { x.ran = append(x.ran, job) })
}

func (x *targets) got(queue string) []event.Message {
	x.mu.Lock()
	defer x.mu.Unlock()
	return append([]event.Message{}, x.sent[queue]...)
}

// wait waits until a queue has n messages.
func (x *targets) wait(t *testing.T, queue string, n int) []event.Message {
	t.Helper()
	for {
		if all := x.got(queue); len(all) >= n {
			return all
		}
		select {
		case <-x.news:
		case <-t.Context().Done():
			t.Fatal("the test ended before", queue, "had", n)
		}
	}
}

// plain seals by turning around: enough to see that nothing stands in the log as it is.
type plain struct{}

// Seal implements event.Sealer.
func (plain) Seal(s string) ([]byte, error) {
	b := []byte(s)
	for i := range b {
		b[i] ^= 0x55
	}
	return b, nil
}

// Open implements event.Sealer.
func (p plain) Open(b []byte) (string, error) {
	out, err := p.Seal(string(b))
	return string(out), err
}

// house is an open store with its targets.
type house struct {
	*event.Store
	db   *kv.DB
	stop func()
}

func open(t testing.TB, dir string, x *targets, rt http.RoundTripper) *house {
	t.Helper()
	db, err := kv.Open(dir, kv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := event.Open(db, event.Config{Send: x, Invoke: x, Run: x, Seal: plain{}, HTTP: rt})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	ready := make(chan struct{})
	wg.Go(func() { s.Run(ctx, func() { close(ready) }) })
	<-ready
	return &house{s, db, func() {
		cancel()
		wg.Wait()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}}
}

func keys(access string) (awsapi.Key, bool) {
	k, ok := map[string]awsapi.Key{
		"ALL":  {Access: "ALL", Secret: "s", Caller: awsapi.Caller{Account: account, Of: "service api", Uses: map[string][]string{"events": {"*"}}}},
		"SOME": {Access: "SOME", Secret: "s", Caller: awsapi.Caller{Account: account, Of: "service web", Line: 4, Uses: map[string][]string{"events": {"shop"}, "sqs": {"emails"}}}},
		"NONE": {Access: "NONE", Secret: "s", Caller: awsapi.Caller{Account: account, Of: "service x", Uses: map[string][]string{"sqs": {"emails"}}}},
	}[access]
	return k, ok
}

func front(s *event.Store) http.Handler {
	return awsapi.NewFront(keys, map[string]awsapi.Served{"events": s.Served(), "scheduler": s.Scheduler()}, slog.New(slog.DiscardHandler))
}

func client(at, key string) *eventbridge.Client {
	return eventbridge.New(eventbridge.Options{Region: "us-east-1", BaseEndpoint: &at, RetryMaxAttempts: 1, Credentials: credentials.NewStaticCredentialsProvider(key, "s", "")})
}

func start(t *testing.T) (*eventbridge.Client, *targets, string, *house) {
	t.Helper()
	x := newTargets()
	h := open(t, t.TempDir(), x, nil)
	srv := httptest.NewServer(front(h.Store))
	t.Cleanup(func() { srv.Close(); h.stop() })
	return client(srv.URL, "ALL"), x, srv.URL, h
}

func arn(rest string) *string { return aws.String("arn:aws:" + rest) }

func sqsARN(queue string) *string { return arn("sqs:us-east-1:" + account + ":" + queue) }

func code(err error) string {
	var e smithy.APIError
	if errors.As(err, &e) {
		return e.ErrorCode()
	}
	return fmt.Sprint(err)
}

func put(t *testing.T, c *eventbridge.Client, bus, kind, detail string) {
	t.Helper()
	out, err := c.PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{{EventBusName: &bus, Source: aws.String("shop"), DetailType: &kind, Detail: &detail}}})
	if err != nil || out.FailedEntryCount != 0 {
		t.Fatal(out, err)
	}
}

func TestRules(t *testing.T) {
	c, x, at, _ := start(t)
	ctx := t.Context()
	shop := aws.String("shop")
	made, err := c.CreateEventBus(ctx, &eventbridge.CreateEventBusInput{Name: shop, Description: aws.String("of the shop"), Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("1")}}})
	if err != nil || *made.EventBusArn != "arn:aws:events:us-east-1:"+account+":event-bus/shop" {
		t.Fatal(made, err)
	}
	if _, err := c.CreateEventBus(ctx, &eventbridge.CreateEventBusInput{Name: shop}); code(err) != "ResourceAlreadyExistsException" {
		t.Error(err)
	}
	rule, err := c.PutRule(ctx, &eventbridge.PutRuleInput{Name: aws.String("paid"), EventBusName: shop, EventPattern: aws.String(`{"detail-type":["order.paid"],"detail":{"total":[{"numeric":[">",100]}]}}`)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutRule(ctx, &eventbridge.PutRuleInput{Name: aws.String("bad"), EventBusName: shop, EventPattern: aws.String(`{"a":1}`)}); code(err) != "InvalidEventPatternException" {
		t.Error(err)
	}
	if _, err := c.PutRule(ctx, &eventbridge.PutRuleInput{Name: aws.String("bad"), ScheduleExpression: aws.String("rate(1 minutes)")}); code(err) != "ValidationException" {
		t.Error(err)
	}
	list := []types.Target{
		{Id: aws.String("q"), Arn: sqsARN("emails")},
		{Id: aws.String("o"), Arn: sqsARN("orders.fifo"), SqsParameters: &types.SqsParameters{MessageGroupId: aws.String("g")}, InputPath: aws.String("$.detail")},
		{Id: aws.String("f"), Arn: arn("lambda:us-east-1:" + account + ":function:notify"), InputTransformer: &types.InputTransformer{InputPathsMap: map[string]string{"id": "$.detail.id"}, InputTemplate: aws.String(`{"order": "<id>"}`)}},
		{Id: aws.String("j"), Arn: arn("ecs:us-east-1:" + account + ":cluster/shop"), EcsParameters: &types.EcsParameters{TaskDefinitionArn: arn("ecs:us-east-1:" + account + ":task-definition/digest:3")}},
	}
	if out, err := c.PutTargets(ctx, &eventbridge.PutTargetsInput{Rule: aws.String("paid"), EventBusName: shop, Targets: list}); err != nil || out.FailedEntryCount != 0 {
		t.Fatal(out, err)
	}
	put(t, c, "shop", "order.paid", `{"id":"o-1","total":50}`)
	put(t, c, "shop", "order.paid", `{"id":"o-2","total":500,"say":"<b> & \"x\""}`)
	all := x.wait(t, "emails", 1)
	var e struct {
		ID, Source, Account, Region, Version string
		Kind                                 string `json:"detail-type"`
		Resources                            []string
		Detail                               json.RawMessage
	}
	if err := json.Unmarshal([]byte(all[0].Body), &e); err != nil || e.Source != "shop" || e.Kind != "order.paid" || e.Account != account || e.Version != "0" || string(e.Detail) != `{"id":"o-2","total":500,"say":"<b> & \"x\""}` {
		t.Error(all, err)
	}
	if o := x.wait(t, "orders.fifo", 1)[0]; o.Group != "g" || o.Once == "" || !strings.Contains(o.Body, `"id":"o-2"`) || strings.Contains(o.Body, "source") {
		t.Error(o)
	}
	for {
		x.mu.Lock()
		done := len(x.called["notify"]) == 1 && len(x.ran) == 1
		if done && (x.called["notify"][0] != `{"order": "o-2"}` || x.ran[0] != "digest") {
			t.Error(x.called, x.ran)
		}
		x.mu.Unlock()
		if done {
			break
		}
		<-x.news
	}
	// What PutEvents refuses, entry by entry.
	out, err := c.PutEvents(ctx, &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{
		{EventBusName: shop, Source: aws.String("shop"), DetailType: aws.String("x"), Detail: aws.String("[]")},
		{EventBusName: shop, Source: aws.String("aws.s3"), DetailType: aws.String("x"), Detail: aws.String("{}")},
		{EventBusName: aws.String("none"), Source: aws.String("shop"), DetailType: aws.String("x"), Detail: aws.String("{}")},
		{EventBusName: shop, Source: aws.String("shop"), DetailType: aws.String("x"), Detail: aws.String("{}")},
	}})
	if err != nil || out.FailedEntryCount != 3 || *out.Entries[0].ErrorCode != "MalformedDetail" || *out.Entries[1].ErrorCode != "NotAuthorizedForSourceException" || out.Entries[3].EventId == nil {
		t.Error(out, err)
	}
	big := aws.String(`{"x":"` + strings.Repeat("x", 1<<20) + `"}`)
	if _, err := c.PutEvents(ctx, &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{{Source: aws.String("s"), DetailType: aws.String("x"), Detail: big}}}); code(err) != "ValidationException" {
		t.Error(err)
	}
	// Who may.
	some := client(at, "SOME")
	put(t, some, "shop", "x", "{}")
	if _, err := some.PutEvents(ctx, &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{{Source: aws.String("s"), DetailType: aws.String("x"), Detail: aws.String("{}")}}}); code(err) != "AccessDeniedException" || !strings.Contains(err.Error(), "add `uses: [default]` to service web (tenfold.yaml:4)") {
		t.Error(err)
	}
	if _, err := some.PutTargets(ctx, &eventbridge.PutTargetsInput{Rule: aws.String("paid"), EventBusName: shop, Targets: []types.Target{{Id: aws.String("z"), Arn: sqsARN("payments")}}}); code(err) != "AccessDeniedException" || !strings.Contains(err.Error(), "uses: [payments]") {
		t.Error(err)
	}
	if _, err := client(at, "NONE").ListEventBuses(ctx, &eventbridge.ListEventBusesInput{}); code(err) != "AccessDeniedException" {
		t.Error(err)
	}
	// The rest of the operations on buses and rules.
	if d, err := c.DescribeRule(ctx, &eventbridge.DescribeRuleInput{Name: aws.String("paid"), EventBusName: shop}); err != nil || d.State != types.RuleStateEnabled || *d.Arn != *rule.RuleArn {
		t.Error(d, err)
	}
	if l, err := c.ListRules(ctx, &eventbridge.ListRulesInput{EventBusName: shop}); err != nil || len(l.Rules) != 1 {
		t.Error(l, err)
	}
	if l, err := c.ListTargetsByRule(ctx, &eventbridge.ListTargetsByRuleInput{Rule: aws.String("paid"), EventBusName: shop}); err != nil || len(l.Targets) != 4 || *l.Targets[2].InputTransformer.InputTemplate != `{"order": "<id>"}` {
		t.Error(l, err)
	}
	if l, err := c.ListRuleNamesByTarget(ctx, &eventbridge.ListRuleNamesByTargetInput{TargetArn: sqsARN("emails"), EventBusName: shop}); err != nil || len(l.RuleNames) != 1 {
		t.Error(l, err)
	}
	if _, err := c.DisableRule(ctx, &eventbridge.DisableRuleInput{Name: aws.String("paid"), EventBusName: shop}); err != nil {
		t.Error(err)
	}
	put(t, c, "shop", "order.paid", `{"id":"o-3","total":500}`)
	if _, err := c.EnableRule(ctx, &eventbridge.EnableRuleInput{Name: aws.String("paid"), EventBusName: shop}); err != nil {
		t.Error(err)
	}
	put(t, c, "shop", "order.paid", `{"id":"o-4","total":500}`)
	if all := x.wait(t, "emails", 2); !strings.Contains(all[1].Body, "o-4") {
		t.Error(all[1])
	}
	for _, a := range []*string{made.EventBusArn, rule.RuleArn} {
		if _, err := c.TagResource(ctx, &eventbridge.TagResourceInput{ResourceARN: a, Tags: []types.Tag{{Key: aws.String("b"), Value: aws.String("2")}}}); err != nil {
			t.Error(err)
		}
		if _, err := c.UntagResource(ctx, &eventbridge.UntagResourceInput{ResourceARN: a, TagKeys: []string{"a"}}); err != nil {
			t.Error(err)
		}
		if l, err := c.ListTagsForResource(ctx, &eventbridge.ListTagsForResourceInput{ResourceARN: a}); err != nil || len(l.Tags) != 1 || *l.Tags[0].Key != "b" {
			t.Error(l, err)
		}
	}
	if r, err := c.TestEventPattern(ctx, &eventbridge.TestEventPatternInput{EventPattern: aws.String(`{"source":["a"]}`), Event: aws.String(`{"id":"1","account":"1","source":"a","time":"2026-01-01T00:00:00Z","region":"r","resources":[],"detail-type":"x","detail":{}}`)}); err != nil || !r.Result {
		t.Error(r, err)
	}
	if _, err := c.UpdateEventBus(ctx, &eventbridge.UpdateEventBusInput{Name: shop, Description: aws.String("new")}); err != nil {
		t.Error(err)
	}
	if d, err := c.DescribeEventBus(ctx, &eventbridge.DescribeEventBusInput{Name: shop}); err != nil || *d.Description != "new" {
		t.Error(d, err)
	}
	if l, err := c.ListEventBuses(ctx, &eventbridge.ListEventBusesInput{}); err != nil || len(l.EventBuses) != 2 {
		t.Error(l, err)
	}
	if _, err := c.PutPermission(ctx, &eventbridge.PutPermissionInput{EventBusName: shop, Action: aws.String("events:PutEvents"), Principal: aws.String("*"), StatementId: aws.String("s")}); err != nil {
		t.Error(err)
	}
	if _, err := c.RemovePermission(ctx, &eventbridge.RemovePermissionInput{EventBusName: shop, RemoveAllPermissions: true}); err != nil {
		t.Error(err)
	}
	if _, err := c.DeleteRule(ctx, &eventbridge.DeleteRuleInput{Name: aws.String("paid"), EventBusName: shop}); code(err) != "ValidationException" {
		t.Error(err)
	}
	if out, err := c.RemoveTargets(ctx, &eventbridge.RemoveTargetsInput{Rule: aws.String("paid"), EventBusName: shop, Ids: []string{"q", "o", "f", "j", "none"}}); err != nil || out.FailedEntryCount != 1 {
		t.Error(out, err)
	}
	if _, err := c.DeleteRule(ctx, &eventbridge.DeleteRuleInput{Name: aws.String("paid"), EventBusName: shop}); err != nil {
		t.Error(err)
	}
	if _, err := c.DeleteEventBus(ctx, &eventbridge.DeleteEventBusInput{Name: shop}); err != nil {
		t.Error(err)
	}
	if _, err := c.DescribeEventBus(ctx, &eventbridge.DescribeEventBusInput{Name: shop}); code(err) != "ResourceNotFoundException" {
		t.Error(err)
	}
}

// What a manifest names a client cannot take away; what it names no longer stays, without its rules.
func TestWanted(t *testing.T) {
	c, x, _, h := start(t)
	ctx := t.Context()
	w := event.Wanted{Name: "shop", Archive: 24 * time.Hour, Rules: []event.WantedRule{{Name: "all", Pattern: `{"source":["shop"]}`, Retries: 1, Age: time.Hour, Targets: []event.WantedTarget{{Queue: "emails"}, {Bus: "second"}}}}}
	second := event.Wanted{Name: "second", Rules: []event.WantedRule{{Name: "all", Pattern: `{"source":["shop"]}`, Age: time.Hour, Targets: []event.WantedTarget{{Queue: "other"}, {Bus: "shop"}}}}}
	for range 2 {
		if errs := h.Want(ctx, account, []event.Wanted{w, second}); len(errs) > 0 {
			t.Fatal(errs)
		}
	}
	put(t, c, "shop", "x", `{"n":1}`)
	if a, b := x.wait(t, "other", 3), x.wait(t, "emails", 3); a[0].Body != b[0].Body { // at most five hops in a ring
		t.Error(a, b)
	}
	if _, err := c.DeleteEventBus(ctx, &eventbridge.DeleteEventBusInput{Name: aws.String("shop")}); err == nil || !strings.Contains(err.Error(), "tenfold.yaml names it") {
		t.Error(err)
	}
	if _, err := c.DisableRule(ctx, &eventbridge.DisableRuleInput{Name: aws.String("all"), EventBusName: aws.String("shop")}); code(err) != "ManagedRuleException" {
		t.Error(err)
	}
	if errs := h.Want(ctx, account, []event.Wanted{{Name: "shop", Rules: []event.WantedRule{{Name: "all", Pattern: `{"source":1}`, Targets: []event.WantedTarget{{Queue: "emails"}}}}}}); errs["shop"] == nil {
		t.Error("a bad pattern was taken")
	}
	if errs := h.Want(ctx, account, nil); len(errs) > 0 {
		t.Fatal(errs)
	}
	if l, err := c.ListRules(ctx, &eventbridge.ListRulesInput{EventBusName: aws.String("shop")}); err != nil || len(l.Rules) != 0 {
		t.Error(l, err)
	}
	if _, err := c.DeleteEventBus(ctx, &eventbridge.DeleteEventBusInput{Name: aws.String("shop")}); err != nil {
		t.Error(err)
	}
}
