package event_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/scheduler"
	stypes "github.com/aws/aws-sdk-go-v2/service/scheduler/types"
	"github.com/cockroachdb/pebble/v2"

	"tenfold/internal/awsapi"
	"tenfold/tier/event"
)

// do asks for an operation without a client, as in a bubble of virtual time.
func do(t *testing.T, s *event.Store, operation string, in any) map[string]any {
	t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	k, _ := keys("ALL")
	raw, err := s.Serve(t.Context(), &awsapi.Request{Caller: k.Caller, Operation: operation, Body: body})
	if err != nil {
		t.Fatal(operation, err)
	}
	var out map[string]any
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

type m = map[string]any

// web answers requests to endpoints.
type web func(r *http.Request, body string) int

// RoundTrip implements http.RoundTripper.
func (w web) RoundTrip(r *http.Request) (*http.Response, error) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	n := w(r, string(b))
	if n == 0 {
		return nil, errors.New("connection refused")
	}
	return &http.Response{StatusCode: n, Status: http.StatusText(n), Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(nil))}, nil
}

// An endpoint that fails is tried again with pauses that grow, then the event goes to the dead-letter queue,
// with what EventBridge says of it.
func TestEndpoints(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var at []time.Time
		var last *http.Request
		status, body := 503, ""
		x := newTargets()
		h := open(t, dir, x, web(func(r *http.Request, b string) int {
			mu.Lock()
			defer mu.Unlock()
			at, last, body = append(at, time.Now()), r, b
			return status
		}))
		defer h.stop()
		w := event.Wanted{Name: "shop", Rules: []event.WantedRule{{Name: "partner", Pattern: `{"source":["shop"]}`, Retries: 5, Age: 24 * time.Hour, Dead: "partner-dead",
			Paths: map[string]string{"id": "$.detail.id"}, Template: `{"order": "<id>"}`,
			Targets: []event.WantedTarget{{URL: "https://partner.example.com/hook", Secret: "hunter2hunter2", Keyed: true, Every: time.Second}}}}}
		if errs := h.Want(t.Context(), account, []event.Wanted{w}); len(errs) > 0 {
			t.Fatal(errs)
		}
		send := func(id string) {
			do(t, h.Store, "PutEvents", m{"Entries": []m{{"Source": "shop", "DetailType": "x", "EventBusName": "shop", "Detail": `{"id":"` + id + `"}`}}})
		}
		send("o-1")
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(at) != 6 || last.Header.Get("Authorization") != "Bearer hunter2hunter2" || body != `{"order": "o-1"}` {
			t.Fatal(at, last, body)
		}
		for i := 1; i < len(at); i++ {
			if d, most := at[i].Sub(at[i-1]), time.Second<<(i-1); d < most/2 || d > most+2*time.Second {
				t.Errorf("pause %d is %s", i, d)
			}
		}
		dead := x.got("partner-dead")
		if len(dead) != 1 || dead[0].Body != `{"order": "o-1"}` || dead[0].Attributes["ERROR_CODE"] != "503" || dead[0].Attributes["RETRY_ATTEMPTS"] != "5" || dead[0].Attributes["EXHAUSTED_RETRY_CONDITION"] != "MaximumRetryAttempts" || !strings.HasSuffix(dead[0].Attributes["RULE_ARN"], ":rule/shop/partner") {
			t.Fatal(dead)
		}
		// What is refused for good is not tried again; what comes back is delivered; and not too fast.
		status = 400
		send("o-2")
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(at) != 7 || len(x.got("partner-dead")) != 2 {
			t.Fatal(len(at), x.got("partner-dead"))
		}
		status, at = 200, nil
		began := time.Now()
		for range 10 {
			send("o-3")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(at) != 10 || at[9].Sub(began) < 9*time.Second {
			t.Fatal(len(at), at)
		}
		// Nothing in the log has the secret.
		it, err := h.db.NewIter(&pebble.IterOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer it.Close()
		for it.First(); it.Valid(); it.Next() {
			if bytes.Contains(it.Value(), []byte("hunter2")) {
				t.Errorf("%q has the secret", it.Key())
			}
		}
	})
}

// A target that stays away is tried for a day and no longer.
func TestAge(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		x, tries := newTargets(), 0
		x.refuse = func(to string) error {
			if to == "notify" {
				tries++
				return errors.New("away")
			}
			return nil
		}
		h := open(t, dir, x, nil)
		defer h.stop()
		h.Want(t.Context(), account, []event.Wanted{{Name: "shop", Rules: []event.WantedRule{{Name: "r", Pattern: `{"source":["shop"]}`, Retries: 185, Age: 2 * time.Hour, Dead: "dead", Targets: []event.WantedTarget{{Function: "notify"}}}}}})
		do(t, h.Store, "PutEvents", m{"Entries": []m{{"Source": "shop", "DetailType": "x", "EventBusName": "shop", "Detail": `{}`}}})
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if dead := x.got("dead"); tries < 15 || tries > 40 || len(dead) != 1 || dead[0].Attributes["EXHAUSTED_RETRY_CONDITION"] != "MaximumEventAgeInSeconds" {
			t.Error(tries, dead)
		}
	})
}

// Schedules come at their times, within their window; one that was missed while the house was down comes once.
func TestSchedules(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		x := newTargets()
		h := open(t, dir, x, nil)
		rome := "Europe/Rome" // the bubble begins 2000-01-01 at midnight UTC
		w := []event.Wanted{{Name: "shop", Rules: []event.WantedRule{
			{Name: "nightly", Schedule: "0 2 * * *", Zone: rome, Window: 15 * time.Minute, Age: time.Hour, Targets: []event.WantedTarget{{Queue: "night"}}},
			{Name: "often", Schedule: "rate(10 minutes)", Age: time.Hour, Targets: []event.WantedTarget{{Queue: "often"}}},
			{Name: "once", Schedule: "at(2000-01-01T05:00:00)", Age: time.Hour, Targets: []event.WantedTarget{{Queue: "once"}}},
		}}}
		if errs := h.Want(t.Context(), account, w); len(errs) > 0 {
			t.Fatal(errs)
		}
		do(t, h.Store, "PutRule", m{"Name": "daily", "ScheduleExpression": "cron(30 0 ? * MON-SUN *)"})
		do(t, h.Store, "PutTargets", m{"Rule": "daily", "Targets": []m{{"Id": "a", "Arn": "arn:aws:sqs:us-east-1:" + account + ":daily", "Input": `{"say":"hello"}`}}})
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		if n, d := len(x.got("often")), x.got("daily"); n != 5 || len(d) != 1 || d[0].Body != `{"say":"hello"}` || len(x.got("night")) != 0 {
			t.Error(n, d, x.got("night"))
		}
		if e := x.got("often"); !strings.Contains(e[0].Body, `"detail-type":"Scheduled Event"`) || !strings.Contains(e[0].Body, `"time":"2000-01-01T00:10:00Z"`) {
			t.Error(e[0])
		}
		time.Sleep(17 * time.Minute) // 1:16: two o'clock in Rome was at 1:00
		synctest.Wait()
		if n := len(x.got("night")); n != 1 {
			t.Error(n)
		}
		h.stop()
		time.Sleep(10 * time.Hour)
		h = open(t, dir, x, nil)
		defer h.stop()
		h.Want(t.Context(), account, w)
		time.Sleep(time.Second)
		synctest.Wait()
		if often, once := len(x.got("often")), len(x.got("once")); often != 8 || once != 1 {
			t.Error(often, once)
		}
	})
}

// What an archive keeps is played again, to the rules that are named.
func TestReplay(t *testing.T) {
	c, x, _, _ := start(t)
	ctx := t.Context()
	bus := arn("events:us-east-1:" + account + ":event-bus/shop")
	shop := aws.String("shop")
	c.CreateEventBus(ctx, &eventbridge.CreateEventBusInput{Name: shop})
	a, err := c.CreateArchive(ctx, &eventbridge.CreateArchiveInput{ArchiveName: aws.String("all"), EventSourceArn: bus, RetentionDays: aws.Int32(3), EventPattern: aws.String(`{"source":["shop"]}`)})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"one", "two"} {
		if _, err := c.PutRule(ctx, &eventbridge.PutRuleInput{Name: &n, EventBusName: shop, EventPattern: aws.String(`{"source":["shop"]}`)}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.PutTargets(ctx, &eventbridge.PutTargetsInput{Rule: &n, EventBusName: shop, Targets: []types.Target{{Id: aws.String("q"), Arn: sqsARN(n)}}}); err != nil {
			t.Fatal(err)
		}
	}
	from := time.Now().Add(-time.Second)
	for range 250 {
		put(t, c, "shop", "x", `{"n":1}`)
	}
	x.wait(t, "one", 250)
	x.wait(t, "two", 250)
	if d, err := c.DescribeArchive(ctx, &eventbridge.DescribeArchiveInput{ArchiveName: aws.String("all")}); err != nil || d.EventCount != 250 || d.SizeBytes == 0 {
		t.Error(d, err)
	}
	start := &eventbridge.StartReplayInput{ReplayName: aws.String("again"), EventSourceArn: a.ArchiveArn, EventStartTime: &from, EventEndTime: aws.Time(time.Now().Add(time.Second)),
		Destination: &types.ReplayDestination{Arn: bus, FilterArns: []string{"arn:aws:events:us-east-1:" + account + ":rule/shop/one"}}}
	if _, err := c.StartReplay(ctx, start); err != nil {
		t.Fatal(err)
	}
	if all := x.wait(t, "one", 500); !strings.Contains(all[499].Body, `"replay-name":"again"`) {
		t.Error(all[499])
	}
	for {
		d, err := c.DescribeReplay(ctx, &eventbridge.DescribeReplayInput{ReplayName: aws.String("again")})
		if err != nil {
			t.Fatal(err)
		}
		if d.State == types.ReplayStateCompleted {
			break
		}
	}
	if n := len(x.got("two")); n != 250 {
		t.Error(n)
	}
	if _, err := c.StartReplay(ctx, start); code(err) != "ResourceAlreadyExistsException" {
		t.Error(err)
	}
	if _, err := c.CancelReplay(ctx, &eventbridge.CancelReplayInput{ReplayName: aws.String("again")}); code(err) != "IllegalStatusException" {
		t.Error(err)
	}
	if l, err := c.ListReplays(ctx, &eventbridge.ListReplaysInput{}); err != nil || len(l.Replays) != 1 {
		t.Error(l, err)
	}
	if _, err := c.UpdateArchive(ctx, &eventbridge.UpdateArchiveInput{ArchiveName: aws.String("all"), RetentionDays: aws.Int32(5)}); err != nil {
		t.Error(err)
	}
	if l, err := c.ListArchives(ctx, &eventbridge.ListArchivesInput{}); err != nil || len(l.Archives) != 1 || *l.Archives[0].RetentionDays != 5 || l.Archives[0].EventCount != 250 {
		t.Error(l, err)
	}
	if _, err := c.DeleteArchive(ctx, &eventbridge.DeleteArchiveInput{ArchiveName: aws.String("all")}); err != nil {
		t.Error(err)
	}
}

func TestConnections(t *testing.T) {
	c, _, _, _ := start(t)
	ctx := t.Context()
	name := aws.String("partner")
	auth := &types.CreateConnectionAuthRequestParameters{BasicAuthParameters: &types.CreateConnectionBasicAuthRequestParameters{Username: aws.String("u"), Password: aws.String("p")}}
	made, err := c.CreateConnection(ctx, &eventbridge.CreateConnectionInput{Name: name, AuthorizationType: types.ConnectionAuthorizationTypeBasic, AuthParameters: auth})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateConnection(ctx, &eventbridge.CreateConnectionInput{Name: aws.String("o"), AuthorizationType: types.ConnectionAuthorizationTypeOauthClientCredentials, AuthParameters: auth}); code(err) != "ValidationException" {
		t.Error(err)
	}
	if d, err := c.DescribeConnection(ctx, &eventbridge.DescribeConnectionInput{Name: name}); err != nil || *d.AuthParameters.BasicAuthParameters.Username != "u" {
		t.Error(d, err)
	}
	e, err := c.CreateApiDestination(ctx, &eventbridge.CreateApiDestinationInput{Name: name, ConnectionArn: made.ConnectionArn, HttpMethod: types.ApiDestinationHttpMethodPost, InvocationEndpoint: aws.String("https://partner.example.com/*")})
	if err != nil || e.ApiDestinationArn == nil {
		t.Fatal(err)
	}
	if _, err := c.UpdateApiDestination(ctx, &eventbridge.UpdateApiDestinationInput{Name: name, InvocationRateLimitPerSecond: aws.Int32(7)}); err != nil {
		t.Error(err)
	}
	if d, err := c.DescribeApiDestination(ctx, &eventbridge.DescribeApiDestinationInput{Name: name}); err != nil || *d.InvocationRateLimitPerSecond != 7 || *d.ConnectionArn != *made.ConnectionArn {
		t.Error(d, err)
	}
	if l, err := c.ListApiDestinations(ctx, &eventbridge.ListApiDestinationsInput{}); err != nil || len(l.ApiDestinations) != 1 {
		t.Error(l, err)
	}
	if _, err := c.UpdateConnection(ctx, &eventbridge.UpdateConnectionInput{Name: name, Description: aws.String("d")}); err != nil {
		t.Error(err)
	}
	if l, err := c.ListConnections(ctx, &eventbridge.ListConnectionsInput{}); err != nil || len(l.Connections) != 1 {
		t.Error(l, err)
	}
	if _, err := c.DeleteApiDestination(ctx, &eventbridge.DeleteApiDestinationInput{Name: name}); err != nil {
		t.Error(err)
	}
	if _, err := c.DeleteConnection(ctx, &eventbridge.DeleteConnectionInput{Name: name}); err != nil {
		t.Error(err)
	}
}

func TestScheduler(t *testing.T) {
	x := newTargets()
	h := open(t, t.TempDir(), x, nil)
	srv := httptest.NewServer(front(h.Store))
	defer func() { srv.Close(); h.stop() }()
	ctx := t.Context()
	dial := func(key string) *scheduler.Client {
		return scheduler.New(scheduler.Options{Region: "us-east-1", BaseEndpoint: &srv.URL, RetryMaxAttempts: 1, Credentials: credentials.NewStaticCredentialsProvider(key, "s", "")})
	}
	c := dial("ALL")
	off := &stypes.FlexibleTimeWindow{Mode: stypes.FlexibleTimeWindowModeOff}
	target := &stypes.Target{Arn: sqsARN("emails"), RoleArn: arn("iam::" + account + ":role/r"), Input: aws.String(`{"at":"<aws.scheduler.scheduled-time>"}`)}
	in := &scheduler.CreateScheduleInput{Name: aws.String("soon"), ScheduleExpression: aws.String("at(2020-01-01T00:00:00)"), FlexibleTimeWindow: off, Target: target, ActionAfterCompletion: stypes.ActionAfterCompletionDelete}
	if out, err := c.CreateSchedule(ctx, in); err != nil || *out.ScheduleArn != "arn:aws:scheduler:us-east-1:"+account+":schedule/default/soon" {
		t.Fatal(out, err)
	}
	in = &scheduler.CreateScheduleInput{Name: aws.String("daily"), ScheduleExpression: aws.String("cron(0 8 L * ? *)"), ScheduleExpressionTimezone: aws.String("Europe/Rome"), FlexibleTimeWindow: off, Target: target}
	if _, err := c.CreateSchedule(ctx, in); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateSchedule(ctx, in); err != nil || in.ClientToken == nil { // the SDK's own token makes it the same request
		t.Error(in.ClientToken, err)
	}
	in.ClientToken = nil
	if _, err := c.CreateSchedule(ctx, in); code(err) != "ConflictException" {
		t.Error(err)
	}
	if _, err := c.GetSchedule(ctx, &scheduler.GetScheduleInput{Name: aws.String("none")}); code(err) != "ResourceNotFoundException" {
		t.Error(err)
	}
	if _, err := dial("SOME").UpdateSchedule(ctx, &scheduler.UpdateScheduleInput{Name: in.Name, ScheduleExpression: aws.String("rate(1 hour)"), FlexibleTimeWindow: off, Target: &stypes.Target{Arn: sqsARN("payments"), RoleArn: target.RoleArn}}); code(err) != "AccessDeniedException" {
		t.Error(err)
	}
	if _, err := c.UpdateSchedule(ctx, &scheduler.UpdateScheduleInput{Name: in.Name, ScheduleExpression: aws.String("rate(1 hour)"), FlexibleTimeWindow: &stypes.FlexibleTimeWindow{Mode: stypes.FlexibleTimeWindowModeFlexible, MaximumWindowInMinutes: aws.Int32(5)}, Target: target, State: stypes.ScheduleStateDisabled}); err != nil {
		t.Error(err)
	}
	if g, err := c.GetSchedule(ctx, &scheduler.GetScheduleInput{Name: in.Name}); err != nil || *g.ScheduleExpression != "rate(1 hour)" || g.State != stypes.ScheduleStateDisabled || *g.FlexibleTimeWindow.MaximumWindowInMinutes != 5 || *g.Target.Input != *target.Input {
		t.Error(g, err)
	}
	if _, err := c.CreateScheduleGroup(ctx, &scheduler.CreateScheduleGroupInput{Name: aws.String("g"), Tags: []stypes.Tag{{Key: aws.String("a"), Value: aws.String("1")}}}); err != nil {
		t.Error(err)
	}
	in.GroupName = aws.String("g")
	if _, err := c.CreateSchedule(ctx, in); err != nil {
		t.Error(err)
	}
	if l, err := c.ListSchedules(ctx, &scheduler.ListSchedulesInput{GroupName: aws.String("g")}); err != nil || len(l.Schedules) != 1 {
		t.Error(l, err)
	}
	if l, err := c.ListScheduleGroups(ctx, &scheduler.ListScheduleGroupsInput{}); err != nil || len(l.ScheduleGroups) != 2 {
		t.Error(l, err)
	}
	if g, err := c.GetScheduleGroup(ctx, &scheduler.GetScheduleGroupInput{Name: aws.String("g")}); err != nil || g.State != stypes.ScheduleGroupStateActive {
		t.Error(g, err)
	} else if l, err := c.ListTagsForResource(ctx, &scheduler.ListTagsForResourceInput{ResourceArn: g.Arn}); err != nil || len(l.Tags) != 1 {
		t.Error(l, err)
	}
	if _, err := c.DeleteScheduleGroup(ctx, &scheduler.DeleteScheduleGroupInput{Name: aws.String("g")}); err != nil {
		t.Error(err)
	}
	if _, err := c.DeleteSchedule(ctx, &scheduler.DeleteScheduleInput{Name: aws.String("daily")}); err != nil {
		t.Error(err)
	}
	for { // its only moment is over: it is deleted by itself
		l, err := c.ListSchedules(ctx, &scheduler.ListSchedulesInput{})
		if err != nil {
			t.Fatal(err)
		}
		if len(l.Schedules) == 0 {
			break
		}
	}
}

// Whatever a client sends, nothing breaks.
func FuzzServe(f *testing.F) {
	x := newTargets()
	h := open(f, f.TempDir(), x, web(func(*http.Request, string) int { return 200 }))
	f.Cleanup(h.stop)
	for _, op := range []string{"PutEvents", "PutRule", "PutTargets", "CreateArchive", "StartReplay", "CreateConnection", "CreateApiDestination", "ListRules", "TagResource"} {
		f.Add(op, `{"Name":"a","Rule":"a","EventPattern":"{\"source\":[\"a\"]}","ScheduleExpression":"rate(1 day)","Entries":[{"Source":"a","DetailType":"b","Detail":"{}"}],"Targets":[{"Id":"a","Arn":"arn:aws:sqs:us-east-1:123456789012:q"}]}`)
	}
	k, _ := keys("ALL")
	f.Fuzz(func(t *testing.T, op, body string) {
		h.Serve(context.Background(), &awsapi.Request{Caller: k.Caller, Operation: op, Body: []byte(body)})
		r := httptest.NewRequest("POST", "/schedules/a", nil)
		h.Scheduler().Serve(context.Background(), &awsapi.Request{Caller: k.Caller, Operation: "CreateSchedule", Body: []byte(body), HTTP: r})
	})
}
