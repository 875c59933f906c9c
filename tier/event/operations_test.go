package event_test

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/scheduler"
	stypes "github.com/aws/aws-sdk-go-v2/service/scheduler/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused sees to it that an error has AWS' status and code, and begins in its words.
func refused(t *testing.T, err error, status int, code, words string) {
	t.Helper()
	var api smithy.APIError
	var res *smithyhttp.ResponseError
	if !errors.As(err, &api) || !errors.As(err, &res) || res.HTTPStatusCode() != status || api.ErrorCode() != code || !strings.HasPrefix(api.ErrorMessage(), words) {
		t.Errorf("%v, want %d %s: %s", err, status, code, words)
	}
}

// recent sees to it that a moment is one of this test.
func recent(t *testing.T, all ...*time.Time) {
	t.Helper()
	for _, at := range all {
		if at == nil || time.Since(*at) < -time.Second || time.Since(*at) > 10*time.Minute {
			t.Errorf("%v is not of now", at)
		}
	}
}

// The examples of AWS' reference on buses, rules and targets, and what each operation refuses.
func TestExamplesOfBusesAndRules(t *testing.T) {
	c, x, _, _ := start(t)
	ctx, bus := t.Context(), aws.String("my-bus")
	busARN := "arn:aws:events:us-east-1:" + account + ":event-bus/my-bus"

	made, err := c.CreateEventBus(ctx, &eventbridge.CreateEventBusInput{Name: bus})
	if must(t, err); *made.EventBusArn != busARN || made.Description != nil {
		t.Errorf("CreateEventBus: %+v", made)
	}
	_, err = c.CreateEventBus(ctx, &eventbridge.CreateEventBusInput{Name: bus})
	refused(t, err, 400, "ResourceAlreadyExistsException", "Event bus my-bus already exists.")
	_, err = c.CreateEventBus(ctx, &eventbridge.CreateEventBusInput{Name: aws.String("a b")})
	refused(t, err, 400, "ValidationException", `1 validation error detected: Value 'a b' at 'name' failed to satisfy constraint: Member must satisfy regular expression pattern: `)
	upd, err := c.UpdateEventBus(ctx, &eventbridge.UpdateEventBusInput{Name: bus, Description: aws.String("of the shop"), DeadLetterConfig: &types.DeadLetterConfig{Arn: sqsARN("dead")}})
	if must(t, err); *upd.Arn != busARN || *upd.Name != "my-bus" || *upd.Description != "of the shop" {
		t.Errorf("UpdateEventBus: %+v", upd)
	}
	_, err = c.UpdateEventBus(ctx, &eventbridge.UpdateEventBusInput{Name: aws.String("none")})
	refused(t, err, 400, "ResourceNotFoundException", "Event bus none does not exist.")
	d, err := c.DescribeEventBus(ctx, &eventbridge.DescribeEventBusInput{Name: bus})
	if must(t, err); *d.Arn != busARN || *d.Name != "my-bus" || *d.Description != "of the shop" || *d.DeadLetterConfig.Arn != *sqsARN("dead") || d.Policy != nil {
		t.Errorf("DescribeEventBus: %+v", d)
	}
	recent(t, d.CreationTime, d.LastModifiedTime)
	_, err = c.DescribeEventBus(ctx, &eventbridge.DescribeEventBusInput{Name: aws.String("none")})
	refused(t, err, 400, "ResourceNotFoundException", "Event bus none does not exist.")
	l, err := c.ListEventBuses(ctx, &eventbridge.ListEventBusesInput{NamePrefix: aws.String("my"), Limit: aws.Int32(1)})
	if must(t, err); len(l.EventBuses) != 1 || *l.EventBuses[0].Arn != busARN || l.NextToken != nil {
		t.Errorf("ListEventBuses: %+v", l)
	}
	_, err = c.DeleteEventBus(ctx, &eventbridge.DeleteEventBusInput{Name: aws.String("default")})
	refused(t, err, 400, "ValidationException", "Cannot delete event bus default.")

	// Permissions stand beside each other in the policy, by their ids.
	for id, who := range map[string]string{"all": "*", "one": "111122223333"} {
		_, err = c.PutPermission(ctx, &eventbridge.PutPermissionInput{EventBusName: bus, StatementId: &id, Principal: &who, Action: aws.String("events:PutEvents")})
		must(t, err)
	}
	_, err = c.PutPermission(ctx, &eventbridge.PutPermissionInput{EventBusName: bus, StatementId: aws.String("all"), Principal: aws.String("*"), Action: aws.String("events:PutEvents"),
		Condition: &types.Condition{Type: aws.String("StringEquals"), Key: aws.String("aws:PrincipalOrgID"), Value: aws.String("o-1234567890")}})
	must(t, err)
	policy := func(want string) {
		t.Helper()
		d, err := c.DescribeEventBus(ctx, &eventbridge.DescribeEventBusInput{Name: bus})
		if must(t, err); aws.ToString(d.Policy) != want {
			t.Errorf("policy %s\nwant %s", aws.ToString(d.Policy), want)
		}
	}
	one := `{"Sid":"one","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"events:PutEvents","Resource":"` + busARN + `"}`
	policy(`{"Version":"2012-10-17","Statement":[` + one + `,{"Sid":"all","Effect":"Allow","Principal":"*","Action":"events:PutEvents","Resource":"` + busARN + `","Condition":{"StringEquals":{"aws:PrincipalOrgID":"o-1234567890"}}}]}`)
	_, err = c.RemovePermission(ctx, &eventbridge.RemovePermissionInput{EventBusName: bus, StatementId: aws.String("all")})
	must(t, err)
	policy(`{"Version":"2012-10-17","Statement":[` + one + `]}`)
	_, err = c.RemovePermission(ctx, &eventbridge.RemovePermissionInput{EventBusName: bus, StatementId: aws.String("all")})
	refused(t, err, 400, "ResourceNotFoundException", "Statement with the provided id does not exist.")
	_, err = c.RemovePermission(ctx, &eventbridge.RemovePermissionInput{EventBusName: bus, RemoveAllPermissions: true})
	must(t, err)
	policy("")
	whole := `{"Version":"2012-10-17","Statement":[{"Sid":"x","Effect":"Allow","Principal":"*","Action":"events:PutEvents","Resource":"` + busARN + `"}]}`
	_, err = c.PutPermission(ctx, &eventbridge.PutPermissionInput{EventBusName: bus, Policy: &whole})
	must(t, err)
	policy(whole)
	_, err = c.PutPermission(ctx, &eventbridge.PutPermissionInput{EventBusName: bus, Policy: aws.String(strings.Replace(whole, `"x"`, `"`+strings.Repeat("x", 11_000)+`"`, 1))})
	refused(t, err, 400, "PolicyLengthExceededException", "")
	_, err = c.PutPermission(ctx, &eventbridge.PutPermissionInput{EventBusName: aws.String("none"), Policy: &whole})
	refused(t, err, 400, "ResourceNotFoundException", "Event bus none does not exist.")

	// Rules.
	pattern := aws.String(`{"source":["com.mycompany.myapp"],"detail-type":["myDetailType"]}`)
	put, err := c.PutRule(ctx, &eventbridge.PutRuleInput{Name: aws.String("test"), EventBusName: bus, EventPattern: pattern, Description: aws.String("d"), RoleArn: arn("iam::" + account + ":role/r"), Tags: []types.Tag{{Key: aws.String("k"), Value: aws.String("v")}}})
	if must(t, err); *put.RuleArn != "arn:aws:events:us-east-1:"+account+":rule/my-bus/test" {
		t.Errorf("PutRule: %s", *put.RuleArn)
	}
	plain, err := c.PutRule(ctx, &eventbridge.PutRuleInput{Name: aws.String("hourly"), ScheduleExpression: aws.String("rate(1 hour)"), State: types.RuleStateDisabled})
	if must(t, err); *plain.RuleArn != "arn:aws:events:us-east-1:"+account+":rule/hourly" {
		t.Errorf("PutRule: %s", *plain.RuleArn)
	}
	for _, bad := range []struct {
		in          eventbridge.PutRuleInput
		code, words string
	}{
		{eventbridge.PutRuleInput{Name: aws.String("r")}, "ValidationException", "Parameter(s) EventPattern or ScheduleExpression must be specified."},
		{eventbridge.PutRuleInput{Name: aws.String("r"), EventPattern: aws.String(`{"a":1}`)}, "InvalidEventPatternException", `Event pattern is not valid. Reason: "a" must be an object or an array`},
		{eventbridge.PutRuleInput{Name: aws.String("r"), EventBusName: bus, ScheduleExpression: aws.String("rate(1 hour)")}, "ValidationException", "ScheduleExpression is supported only on the default event bus."},
		{eventbridge.PutRuleInput{Name: aws.String("r"), EventBusName: aws.String("none"), EventPattern: pattern}, "ResourceNotFoundException", "Event bus none does not exist."},
		{eventbridge.PutRuleInput{Name: aws.String("a b"), EventPattern: pattern}, "ValidationException", "1 validation error detected: Value 'a b' at 'name'"},
		{eventbridge.PutRuleInput{Name: aws.String(strings.Repeat("r", 65)), EventPattern: pattern}, "ValidationException", "1 validation error detected: Value '" + strings.Repeat("r", 65) + "' at 'name' failed to satisfy constraint: Member must have length less than or equal to 64"},
	} {
		_, err := c.PutRule(ctx, &bad.in)
		refused(t, err, 400, bad.code, bad.words)
	}
	for _, e := range []string{"cron(INVALID)", "cron(0 dummy ? * MON-FRI *)", "cron(7 20 * * NOT *)", "cron(71 8 1 * ? *)", "cron(0 1 * * * *)", "rate(1 hours)", "rate(5 minute)", "rate(10 seconds)", "rate(0 minutes)", " rate(1 hour)", "rate( 1 hour )"} {
		_, err := c.PutRule(ctx, &eventbridge.PutRuleInput{Name: aws.String("r"), ScheduleExpression: &e})
		refused(t, err, 400, "ValidationException", "Parameter ScheduleExpression is not valid.")
	}
	dr, err := c.DescribeRule(ctx, &eventbridge.DescribeRuleInput{Name: aws.String("test"), EventBusName: bus})
	if must(t, err); *dr.Name != "test" || *dr.Arn != *put.RuleArn || *dr.EventBusName != "my-bus" || *dr.EventPattern != *pattern || dr.State != types.RuleStateEnabled || *dr.Description != "d" || *dr.RoleArn != "arn:aws:iam::"+account+":role/r" || *dr.CreatedBy != account || dr.ScheduleExpression != nil || dr.ManagedBy != nil {
		t.Errorf("DescribeRule: %+v", dr)
	}
	_, err = c.DescribeRule(ctx, &eventbridge.DescribeRuleInput{Name: aws.String("none")})
	refused(t, err, 400, "ResourceNotFoundException", "Rule none does not exist on EventBus default.")
	rules, err := c.ListRules(ctx, &eventbridge.ListRulesInput{NamePrefix: aws.String("hour")})
	if must(t, err); len(rules.Rules) != 1 || *rules.Rules[0].Name != "hourly" || *rules.Rules[0].ScheduleExpression != "rate(1 hour)" || rules.Rules[0].State != types.RuleStateDisabled || rules.Rules[0].EventPattern != nil {
		t.Errorf("ListRules: %+v", rules.Rules)
	}
	_, err = c.ListRules(ctx, &eventbridge.ListRulesInput{EventBusName: aws.String("none")})
	refused(t, err, 400, "ResourceNotFoundException", "Event bus none does not exist.")
	for _, f := range []func(name string) error{
		func(n string) error {
			_, err := c.DisableRule(ctx, &eventbridge.DisableRuleInput{Name: &n, EventBusName: bus})
			return err
		},
		func(n string) error {
			_, err := c.EnableRule(ctx, &eventbridge.EnableRuleInput{Name: &n, EventBusName: bus})
			return err
		},
	} {
		must(t, f("test"))
		refused(t, f("none"), 400, "ResourceNotFoundException", "Rule none does not exist on EventBus my-bus.")
	}

	// Targets.
	target := func(id string, f func(x *types.Target)) []types.Target {
		x := types.Target{Id: &id, Arn: sqsARN("emails")}
		f(&x)
		return []types.Target{x}
	}
	list := append(target("1", func(*types.Target) {}), target("2", func(x *types.Target) {
		x.InputTransformer = &types.InputTransformer{InputPathsMap: map[string]string{"instance": "$.detail.instance-id", "state": "$.detail.state"}, InputTemplate: aws.String(`"instance <instance> is in <state>"`)}
	})...)
	pt, err := c.PutTargets(ctx, &eventbridge.PutTargetsInput{Rule: aws.String("test"), EventBusName: bus, Targets: list})
	if must(t, err); pt.FailedEntryCount != 0 || len(pt.FailedEntries) != 0 {
		t.Errorf("PutTargets: %+v", pt)
	}
	for _, bad := range []struct {
		targets     []types.Target
		code, words string
	}{
		{target("!@#", func(*types.Target) {}), "ValidationException", "1 validation error detected: Value '!@#' at 'targets.1.member.id' failed to satisfy constraint: Member must satisfy regular expression pattern: "},
		{target(strings.Repeat("x", 65), func(*types.Target) {}), "ValidationException", "1 validation error detected: Value '" + strings.Repeat("x", 65) + "' at 'targets.1.member.id' failed to satisfy constraint: Member must have length less than or equal to 64"},
		{target("t", func(x *types.Target) { x.Input, x.InputPath = aws.String(`{}`), aws.String("$.detail") }), "ValidationException", "Only one of Input, InputPath, or InputTransformer must be provided for target t."},
		{target("t", func(x *types.Target) {
			x.InputTransformer = &types.InputTransformer{InputPathsMap: map[string]string{"a": "$.a"}, InputTemplate: aws.String(`"<notdefinedkey>"`)}
		}), "ValidationException", "InputTemplate for target t contains invalid placeholder notdefinedkey."},
		{append(append(append(append(target("a", func(*types.Target) {}), target("b", func(*types.Target) {})...), target("c", func(*types.Target) {})...), target("d", func(*types.Target) {})...), target("e", func(*types.Target) {})...), "LimitExceededException", "The requested resource exceeds the maximum number allowed"},
		{[]types.Target{}, "ValidationException", "1 validation error detected: Value '[]' at 'targets' failed to satisfy constraint: Member must have length greater than or equal to 1"},
	} {
		_, err := c.PutTargets(ctx, &eventbridge.PutTargetsInput{Rule: aws.String("test"), EventBusName: bus, Targets: bad.targets})
		refused(t, err, 400, bad.code, bad.words)
	}
	_, err = c.PutTargets(ctx, &eventbridge.PutTargetsInput{Rule: aws.String("none"), EventBusName: bus, Targets: list})
	refused(t, err, 400, "ResourceNotFoundException", "Rule none does not exist on EventBus my-bus.")
	var ids []string
	for token := (*string)(nil); ; {
		page, err := c.ListTargetsByRule(ctx, &eventbridge.ListTargetsByRuleInput{Rule: aws.String("test"), EventBusName: bus, Limit: aws.Int32(1), NextToken: token})
		must(t, err)
		for _, x := range page.Targets {
			ids = append(ids, *x.Id+" "+*x.Arn)
		}
		if token = page.NextToken; token == nil {
			break
		}
	}
	if !slices.Equal(ids, []string{"1 " + *sqsARN("emails"), "2 " + *sqsARN("emails")}) {
		t.Errorf("ListTargetsByRule: %v", ids)
	}
	_, err = c.ListTargetsByRule(ctx, &eventbridge.ListTargetsByRuleInput{Rule: aws.String("none")})
	refused(t, err, 400, "ResourceNotFoundException", "Rule none does not exist on EventBus default.")
	names, err := c.ListRuleNamesByTarget(ctx, &eventbridge.ListRuleNamesByTargetInput{TargetArn: sqsARN("emails"), EventBusName: bus, Limit: aws.Int32(1)})
	if must(t, err); !slices.Equal(names.RuleNames, []string{"test"}) || names.NextToken != nil {
		t.Errorf("ListRuleNamesByTarget: %+v", names)
	}
	_, err = c.ListRuleNamesByTarget(ctx, &eventbridge.ListRuleNamesByTargetInput{TargetArn: sqsARN("emails"), EventBusName: aws.String("none")})
	refused(t, err, 400, "ResourceNotFoundException", "Event bus none does not exist.")

	// Events: two go, what is wrong with the others is told entry by entry.
	entry := func(source, kind, detail string) types.PutEventsRequestEntry {
		e := types.PutEventsRequestEntry{EventBusName: bus, Resources: []string{"resource1", "resource2"}, Time: aws.Time(time.Unix(1_700_000_000, 0))}
		for p, v := range map[**string]string{&e.Source: source, &e.DetailType: kind, &e.Detail: detail} {
			if v != "" {
				*p = &v
			}
		}
		return e
	}
	detail := `{"instance-id":"i-0123456789","state":"RUNNING"}`
	pe, err := c.PutEvents(ctx, &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{
		entry("com.mycompany.myapp", "myDetailType", detail), entry("", "x", "{}"), entry("s", "", "{}"), entry("s", "x", ""), entry("s", "x", "nope"), entry("aws.ec2", "x", "{}")}})
	must(t, err)
	var got []string
	for _, e := range pe.Entries {
		got = append(got, aws.ToString(e.ErrorCode)+": "+aws.ToString(e.ErrorMessage))
	}
	if want := []string{": ", "InvalidArgument: Parameter Source is not valid. Reason: Source is a required argument.", "InvalidArgument: Parameter DetailType is not valid. Reason: DetailType is a required argument.",
		"InvalidArgument: Parameter Detail is not valid. Reason: Detail is a required argument.", "MalformedDetail: Detail is malformed.", "NotAuthorizedForSourceException: Not authorized for the source."}; pe.FailedEntryCount != 5 || !slices.Equal(got, want) {
		t.Errorf("PutEvents: %d %q", pe.FailedEntryCount, got)
	}
	all := x.wait(t, "emails", 2)
	bodies := []string{all[0].Body, all[1].Body}
	slices.Sort(bodies)
	if want := []string{`"instance i-0123456789 is in RUNNING"`, `{"version":"0","id":"` + *pe.Entries[0].EventId + `","detail-type":"myDetailType","source":"com.mycompany.myapp","account":"` + account + `","time":"2023-11-14T22:13:20Z","region":"us-east-1","resources":["resource1","resource2"],"detail":` + detail + `}`}; !slices.Equal(bodies, want) {
		t.Errorf("delivered %q\nwant %q", bodies, want)
	}
	_, err = c.PutEvents(ctx, &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{}})
	refused(t, err, 400, "ValidationException", "1 validation error detected: Value '[]' at 'entries' failed to satisfy constraint: Member must have length greater than or equal to 1")
	_, err = c.PutEvents(ctx, &eventbridge.PutEventsInput{Entries: slices.Repeat([]types.PutEventsRequestEntry{entry("s", "x", "{}")}, 11)})
	refused(t, err, 400, "ValidationException", "1 validation error detected: Value at 'entries' failed to satisfy constraint: Member must have length less than or equal to 10")
	_, err = c.PutEvents(ctx, &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{entry("s", "x", `{"x":"`+strings.Repeat("x", 1<<20)+`"}`)}})
	refused(t, err, 400, "ValidationException", "Total size of the entries in the request is over the limit.")

	// The pattern language has its own tests; here is what the operation answers.
	event := aws.String(`{"id":"e00c66cb-fe7a-4fcc-81ad-58eb60f5d96b","detail-type":"myDetailType","source":"com.mycompany.myapp","account":"123456789012","time":"2016-01-10T01:29:23Z","region":"us-east-1","resources":["resource1"],"detail":{"key1":"value1"}}`)
	for p, want := range map[string]bool{`{"source":["com.mycompany.myapp"]}`: true, `{"source":["com.mycompany.myapp1"]}`: false} {
		if r, err := c.TestEventPattern(ctx, &eventbridge.TestEventPatternInput{EventPattern: &p, Event: event}); err != nil || r.Result != want {
			t.Errorf("TestEventPattern %s: %+v, %v", p, r, err)
		}
	}
	_, err = c.TestEventPattern(ctx, &eventbridge.TestEventPatternInput{EventPattern: aws.String(`{"source":"x"}`), Event: event})
	refused(t, err, 400, "InvalidEventPatternException", `Event pattern is not valid. Reason: "source" must be an object or an array`)
	_, err = c.TestEventPattern(ctx, &eventbridge.TestEventPatternInput{EventPattern: pattern, Event: aws.String("plain")})
	refused(t, err, 400, "ValidationException", "Parameter Event is not valid.")

	// Tags of rules and buses.
	for _, a := range []string{busARN, *put.RuleArn} {
		_, err = c.TagResource(ctx, &eventbridge.TagResourceInput{ResourceARN: &a, Tags: []types.Tag{{Key: aws.String("key1"), Value: aws.String("value1")}, {Key: aws.String("key2"), Value: aws.String("value2")}}})
		must(t, err)
		_, err = c.UntagResource(ctx, &eventbridge.UntagResourceInput{ResourceARN: &a, TagKeys: []string{"key1", "k"}})
		must(t, err)
		if tags, err := c.ListTagsForResource(ctx, &eventbridge.ListTagsForResourceInput{ResourceARN: &a}); err != nil || len(tags.Tags) != 1 || *tags.Tags[0].Key != "key2" || *tags.Tags[0].Value != "value2" {
			t.Errorf("tags of %s: %+v, %v", a, tags, err)
		}
	}
	for rest, words := range map[string]string{"rule/none": "Rule none does not exist on EventBus default.", "event-bus/none": "Event bus none does not exist."} {
		a := "arn:aws:events:us-east-1:" + account + ":" + rest
		_, err = c.TagResource(ctx, &eventbridge.TagResourceInput{ResourceARN: &a, Tags: []types.Tag{{Key: aws.String("k"), Value: aws.String("v")}}})
		refused(t, err, 400, "ResourceNotFoundException", words)
		_, err = c.UntagResource(ctx, &eventbridge.UntagResourceInput{ResourceARN: &a, TagKeys: []string{"k"}})
		refused(t, err, 400, "ResourceNotFoundException", words)
		_, err = c.ListTagsForResource(ctx, &eventbridge.ListTagsForResourceInput{ResourceARN: &a})
		refused(t, err, 400, "ResourceNotFoundException", words)
	}

	// And away with all of it.
	_, err = c.DeleteRule(ctx, &eventbridge.DeleteRuleInput{Name: aws.String("test"), EventBusName: bus})
	refused(t, err, 400, "ValidationException", "Rule can't be deleted since it has targets.")
	_, err = c.DeleteEventBus(ctx, &eventbridge.DeleteEventBusInput{Name: bus})
	refused(t, err, 400, "ValidationException", "Event bus can't be deleted since it has rules.")
	rt, err := c.RemoveTargets(ctx, &eventbridge.RemoveTargetsInput{Rule: aws.String("test"), EventBusName: bus, Ids: []string{"1", "2"}})
	if must(t, err); rt.FailedEntryCount != 0 || len(rt.FailedEntries) != 0 {
		t.Errorf("RemoveTargets: %+v", rt)
	}
	_, err = c.RemoveTargets(ctx, &eventbridge.RemoveTargetsInput{Rule: aws.String("none"), EventBusName: bus, Ids: []string{"1"}})
	refused(t, err, 400, "ResourceNotFoundException", "Rule none does not exist on EventBus my-bus.")
	for range 2 { // what is gone is gone
		_, err = c.DeleteRule(ctx, &eventbridge.DeleteRuleInput{Name: aws.String("test"), EventBusName: bus})
		must(t, err)
	}
	for range 2 {
		_, err = c.DeleteEventBus(ctx, &eventbridge.DeleteEventBusInput{Name: bus})
		must(t, err)
	}
}

// Archives and replays, connections and API destinations: what AWS' reference has of them.
func TestExamplesOfArchivesAndConnections(t *testing.T) {
	c, x, _, _ := start(t)
	ctx := t.Context()
	busARN := arn("events:us-east-1:" + account + ":event-bus/default")
	_, err := c.PutRule(ctx, &eventbridge.PutRuleInput{Name: aws.String("all"), EventPattern: aws.String(`{"source":["shop"]}`)})
	must(t, err)
	_, err = c.PutTargets(ctx, &eventbridge.PutTargetsInput{Rule: aws.String("all"), Targets: []types.Target{{Id: aws.String("q"), Arn: sqsARN("emails")}}})
	must(t, err)

	archive := aws.String("archive1")
	archiveARN := "arn:aws:events:us-east-1:" + account + ":archive/archive1"
	made, err := c.CreateArchive(ctx, &eventbridge.CreateArchiveInput{ArchiveName: archive, EventSourceArn: busARN, Description: aws.String("d"), EventPattern: aws.String(`{"detail-type":["kept"]}`), RetentionDays: aws.Int32(10)})
	if must(t, err); *made.ArchiveArn != archiveARN || made.State != types.ArchiveStateEnabled || made.StateReason != nil {
		t.Errorf("CreateArchive: %+v", made)
	}
	recent(t, made.CreationTime)
	_, err = c.CreateArchive(ctx, &eventbridge.CreateArchiveInput{ArchiveName: archive, EventSourceArn: busARN})
	refused(t, err, 400, "ResourceAlreadyExistsException", "Archive archive1 already exists.")
	_, err = c.CreateArchive(ctx, &eventbridge.CreateArchiveInput{ArchiveName: aws.String("b"), EventSourceArn: arn("events:us-east-1:" + account + ":event-bus/none")})
	refused(t, err, 400, "ResourceNotFoundException", "Event bus none does not exist.")
	_, err = c.CreateArchive(ctx, &eventbridge.CreateArchiveInput{ArchiveName: aws.String("b"), EventSourceArn: busARN, EventPattern: aws.String("[]")})
	refused(t, err, 400, "InvalidEventPatternException", "Event pattern is not valid. Reason: Filter is not an object")
	_, err = c.CreateArchive(ctx, &eventbridge.CreateArchiveInput{ArchiveName: aws.String(strings.Repeat("x", 49)), EventSourceArn: busARN})
	refused(t, err, 400, "ValidationException", "1 validation error detected: Value '"+strings.Repeat("x", 49)+"' at 'archiveName' failed to satisfy constraint: Member must have length less than or equal to 48")

	began := time.Now()
	put(t, c, "default", "kept", `{"n":1}`)
	put(t, c, "default", "lost", `{"n":2}`)
	x.wait(t, "emails", 2)
	d, err := c.DescribeArchive(ctx, &eventbridge.DescribeArchiveInput{ArchiveName: archive})
	if must(t, err); *d.ArchiveArn != archiveARN || *d.ArchiveName != "archive1" || *d.EventSourceArn != *busARN || *d.Description != "d" || *d.EventPattern != `{"detail-type":["kept"]}` || *d.RetentionDays != 10 || d.EventCount != 1 || d.SizeBytes == 0 || d.State != types.ArchiveStateEnabled {
		t.Errorf("DescribeArchive: %+v", d)
	}
	l, err := c.ListArchives(ctx, &eventbridge.ListArchivesInput{NamePrefix: aws.String("arch"), State: types.ArchiveStateEnabled})
	if must(t, err); len(l.Archives) != 1 || *l.Archives[0].ArchiveName != "archive1" || *l.Archives[0].EventSourceArn != *busARN || l.Archives[0].EventCount != 1 || *l.Archives[0].RetentionDays != 10 {
		t.Errorf("ListArchives: %+v", l.Archives)
	}
	_, err = c.UpdateArchive(ctx, &eventbridge.UpdateArchiveInput{ArchiveName: archive})
	refused(t, err, 400, "ValidationException", "At least one of EventPattern, RetentionDays or Description must be provided.")
	_, err = c.UpdateArchive(ctx, &eventbridge.UpdateArchiveInput{ArchiveName: aws.String("none"), RetentionDays: aws.Int32(1)})
	refused(t, err, 400, "ResourceNotFoundException", "Archive none does not exist.")
	upd, err := c.UpdateArchive(ctx, &eventbridge.UpdateArchiveInput{ArchiveName: archive, RetentionDays: aws.Int32(0)})
	if must(t, err); *upd.ArchiveArn != archiveARN || upd.State != types.ArchiveStateEnabled {
		t.Errorf("UpdateArchive: %+v", upd)
	}

	// A replay gives the bus its events again.
	from, to := aws.Time(began.Add(-time.Minute)), aws.Time(time.Now().Add(time.Minute))
	in := func(name, source, bus string) *eventbridge.StartReplayInput {
		return &eventbridge.StartReplayInput{ReplayName: &name, EventSourceArn: &source, EventStartTime: from, EventEndTime: to, Destination: &types.ReplayDestination{Arn: &bus, FilterArns: []string{"arn:aws:events:us-east-1:" + account + ":rule/all"}}, Description: aws.String("again")}
	}
	started, err := c.StartReplay(ctx, in("my-replay", archiveARN, *busARN))
	if must(t, err); *started.ReplayArn != "arn:aws:events:us-east-1:"+account+":replay/my-replay" || started.State != types.ReplayStateStarting {
		t.Errorf("StartReplay: %+v", started)
	}
	recent(t, started.ReplayStartTime)
	all := x.wait(t, "emails", 3)
	if !strings.Contains(all[2].Body, `"detail-type":"kept"`) || !strings.Contains(all[2].Body, `"replay-name":"my-replay"`) {
		t.Errorf("replayed: %s", all[2].Body)
	}
	_, err = c.StartReplay(ctx, in("my-replay", archiveARN, *busARN))
	refused(t, err, 400, "ResourceAlreadyExistsException", "Replay my-replay already exists.")
	_, err = c.StartReplay(ctx, in("other", archiveARN+"none", *busARN))
	refused(t, err, 400, "ValidationException", "Parameter EventSourceArn is not valid. Reason: Archive archive1none does not exist.")
	_, err = c.StartReplay(ctx, in("other", *busARN, *busARN))
	refused(t, err, 400, "ValidationException", "Parameter EventSourceArn is not valid. Reason: Must contain an archive ARN.")
	_, err = c.StartReplay(ctx, in("other", archiveARN, *busARN+"2"))
	refused(t, err, 400, "ValidationException", "Parameter Destination.Arn is not valid. Reason: Cross event bus replay is not permitted.")
	late := in("other", archiveARN, *busARN)
	late.EventStartTime = late.EventEndTime
	_, err = c.StartReplay(ctx, late)
	refused(t, err, 400, "ValidationException", "Parameter EventEndTime is not valid. Reason: EventStartTime must be before EventEndTime.")
	r, err := c.DescribeReplay(ctx, &eventbridge.DescribeReplayInput{ReplayName: aws.String("my-replay")})
	for ; err == nil && r.State != types.ReplayStateCompleted; r, err = c.DescribeReplay(ctx, &eventbridge.DescribeReplayInput{ReplayName: aws.String("my-replay")}) {
		if r.State != types.ReplayStateStarting && r.State != types.ReplayStateRunning {
			t.Fatal(r.State)
		}
	}
	if must(t, err); *r.ReplayArn != *started.ReplayArn || *r.ReplayName != "my-replay" || *r.EventSourceArn != archiveARN || *r.Description != "again" || *r.Destination.Arn != *busARN || len(r.Destination.FilterArns) != 1 || r.EventStartTime.Unix() != from.Unix() || r.EventEndTime.Unix() != to.Unix() {
		t.Errorf("DescribeReplay: %+v", r)
	}
	recent(t, r.ReplayStartTime, r.ReplayEndTime, r.EventLastReplayedTime)
	replays, err := c.ListReplays(ctx, &eventbridge.ListReplaysInput{NamePrefix: aws.String("my"), State: types.ReplayStateCompleted, EventSourceArn: nil})
	if must(t, err); len(replays.Replays) != 1 || *replays.Replays[0].ReplayName != "my-replay" || *replays.Replays[0].EventSourceArn != archiveARN {
		t.Errorf("ListReplays: %+v", replays.Replays)
	}
	_, err = c.CancelReplay(ctx, &eventbridge.CancelReplayInput{ReplayName: aws.String("my-replay")})
	refused(t, err, 400, "IllegalStatusException", "Replay my-replay is not in a valid state for this operation.")
	_, err = c.CancelReplay(ctx, &eventbridge.CancelReplayInput{ReplayName: aws.String("none")})
	refused(t, err, 400, "ResourceNotFoundException", "Replay none does not exist.")
	_, err = c.DescribeReplay(ctx, &eventbridge.DescribeReplayInput{ReplayName: aws.String("none")})
	refused(t, err, 400, "ResourceNotFoundException", "Replay none does not exist.")
	_, err = c.DeleteArchive(ctx, &eventbridge.DeleteArchiveInput{ArchiveName: archive})
	must(t, err)
	_, err = c.DeleteArchive(ctx, &eventbridge.DeleteArchiveInput{ArchiveName: archive})
	refused(t, err, 400, "ResourceNotFoundException", "Archive archive1 does not exist.")
	_, err = c.DescribeArchive(ctx, &eventbridge.DescribeArchiveInput{ArchiveName: archive})
	refused(t, err, 400, "ResourceNotFoundException", "Archive archive1 does not exist.")

	// A connection shows all but its secrets.
	conn := aws.String("my-connection")
	basic := &types.CreateConnectionAuthRequestParameters{BasicAuthParameters: &types.CreateConnectionBasicAuthRequestParameters{Username: aws.String("user"), Password: aws.String("pass")}}
	cc, err := c.CreateConnection(ctx, &eventbridge.CreateConnectionInput{Name: conn, AuthorizationType: types.ConnectionAuthorizationTypeBasic, AuthParameters: basic})
	if must(t, err); !strings.HasPrefix(*cc.ConnectionArn, "arn:aws:events:us-east-1:"+account+":connection/my-connection/") || cc.ConnectionState != types.ConnectionStateAuthorized {
		t.Errorf("CreateConnection: %+v", cc)
	}
	recent(t, cc.CreationTime, cc.LastModifiedTime)
	_, err = c.CreateConnection(ctx, &eventbridge.CreateConnectionInput{Name: conn, AuthorizationType: types.ConnectionAuthorizationTypeBasic, AuthParameters: basic})
	refused(t, err, 400, "ResourceAlreadyExistsException", "Connection my-connection already exists.")
	_, err = c.CreateConnection(ctx, &eventbridge.CreateConnectionInput{Name: conn, AuthorizationType: "INVALID", AuthParameters: basic})
	refused(t, err, 400, "ValidationException", "1 validation error detected: Value 'INVALID' at 'authorizationType' failed to satisfy constraint: Member must satisfy enum value set: [BASIC, OAUTH_CLIENT_CREDENTIALS, API_KEY]")
	_, err = c.CreateConnection(ctx, &eventbridge.CreateConnectionInput{Name: aws.String("a b"), AuthorizationType: types.ConnectionAuthorizationTypeBasic, AuthParameters: basic})
	refused(t, err, 400, "ValidationException", "1 validation error detected: Value 'a b' at 'name' failed to satisfy constraint: Member must satisfy regular expression pattern: ")
	dc, err := c.DescribeConnection(ctx, &eventbridge.DescribeConnectionInput{Name: conn})
	if must(t, err); *dc.Name != "my-connection" || *dc.ConnectionArn != *cc.ConnectionArn || dc.AuthorizationType != types.ConnectionAuthorizationTypeBasic || *dc.AuthParameters.BasicAuthParameters.Username != "user" || dc.ConnectionState != types.ConnectionStateAuthorized {
		t.Errorf("DescribeConnection: %+v", dc)
	}
	uc, err := c.UpdateConnection(ctx, &eventbridge.UpdateConnectionInput{Name: conn, AuthorizationType: types.ConnectionAuthorizationTypeApiKey, AuthParameters: &types.UpdateConnectionAuthRequestParameters{ApiKeyAuthParameters: &types.UpdateConnectionApiKeyAuthRequestParameters{ApiKeyName: aws.String("X-Key"), ApiKeyValue: aws.String("v")}}})
	if must(t, err); *uc.ConnectionArn != *cc.ConnectionArn {
		t.Errorf("UpdateConnection: %+v", uc)
	}
	lc, err := c.ListConnections(ctx, &eventbridge.ListConnectionsInput{ConnectionState: types.ConnectionStateAuthorized})
	if must(t, err); len(lc.Connections) != 1 || lc.Connections[0].AuthorizationType != types.ConnectionAuthorizationTypeApiKey {
		t.Errorf("ListConnections: %+v", lc.Connections)
	}
	for name, f := range map[string]func() error{
		"describe": func() error {
			_, err := c.DescribeConnection(ctx, &eventbridge.DescribeConnectionInput{Name: aws.String("none")})
			return err
		},
		"update": func() error {
			_, err := c.UpdateConnection(ctx, &eventbridge.UpdateConnectionInput{Name: aws.String("none"), Description: aws.String("d")})
			return err
		},
		"delete": func() error {
			_, err := c.DeleteConnection(ctx, &eventbridge.DeleteConnectionInput{Name: aws.String("none")})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, f(), 400, "ResourceNotFoundException", "Failed to describe the connection(s). Connection 'none' does not exist.")
		})
	}

	dest := &eventbridge.CreateApiDestinationInput{Name: aws.String("my-destination"), ConnectionArn: cc.ConnectionArn, InvocationEndpoint: aws.String("https://example.com/api/*"), HttpMethod: types.ApiDestinationHttpMethodPost, Description: aws.String("d")}
	cd, err := c.CreateApiDestination(ctx, dest)
	if must(t, err); !strings.HasPrefix(*cd.ApiDestinationArn, "arn:aws:events:us-east-1:"+account+":api-destination/my-destination/") || cd.ApiDestinationState != types.ApiDestinationStateActive {
		t.Errorf("CreateApiDestination: %+v", cd)
	}
	_, err = c.CreateApiDestination(ctx, dest)
	refused(t, err, 400, "ResourceAlreadyExistsException", "An api-destination 'my-destination' already exists.")
	dd, err := c.DescribeApiDestination(ctx, &eventbridge.DescribeApiDestinationInput{Name: dest.Name})
	if must(t, err); *dd.ApiDestinationArn != *cd.ApiDestinationArn || *dd.Name != *dest.Name || *dd.ConnectionArn != *cc.ConnectionArn || *dd.InvocationEndpoint != *dest.InvocationEndpoint || dd.HttpMethod != dest.HttpMethod || *dd.InvocationRateLimitPerSecond != 300 || *dd.Description != "d" {
		t.Errorf("DescribeApiDestination: %+v", dd)
	}
	recent(t, dd.CreationTime, dd.LastModifiedTime)
	ud, err := c.UpdateApiDestination(ctx, &eventbridge.UpdateApiDestinationInput{Name: dest.Name, InvocationRateLimitPerSecond: aws.Int32(5), HttpMethod: types.ApiDestinationHttpMethodPut})
	if must(t, err); *ud.ApiDestinationArn != *cd.ApiDestinationArn || ud.ApiDestinationState != types.ApiDestinationStateActive {
		t.Errorf("UpdateApiDestination: %+v", ud)
	}
	ld, err := c.ListApiDestinations(ctx, &eventbridge.ListApiDestinationsInput{ConnectionArn: cc.ConnectionArn, NamePrefix: aws.String("my")})
	if must(t, err); len(ld.ApiDestinations) != 1 || *ld.ApiDestinations[0].InvocationRateLimitPerSecond != 5 || ld.ApiDestinations[0].HttpMethod != types.ApiDestinationHttpMethodPut {
		t.Errorf("ListApiDestinations: %+v", ld.ApiDestinations)
	}
	_, err = c.DeleteApiDestination(ctx, &eventbridge.DeleteApiDestinationInput{Name: dest.Name})
	must(t, err)
	for _, f := range []func() error{
		func() error {
			_, err := c.DescribeApiDestination(ctx, &eventbridge.DescribeApiDestinationInput{Name: dest.Name})
			return err
		},
		func() error {
			_, err := c.UpdateApiDestination(ctx, &eventbridge.UpdateApiDestinationInput{Name: dest.Name})
			return err
		},
		func() error {
			_, err := c.DeleteApiDestination(ctx, &eventbridge.DeleteApiDestinationInput{Name: dest.Name})
			return err
		},
	} {
		refused(t, f(), 400, "ResourceNotFoundException", "Failed to describe the api-destination(s). An api-destination 'my-destination' does not exist.")
	}
	gone, err := c.DeleteConnection(ctx, &eventbridge.DeleteConnectionInput{Name: conn})
	if must(t, err); *gone.ConnectionArn != *cc.ConnectionArn || gone.ConnectionState != types.ConnectionStateDeleting {
		t.Errorf("DeleteConnection: %+v", gone)
	}
	dest.ConnectionArn = cc.ConnectionArn
	_, err = c.CreateApiDestination(ctx, dest)
	refused(t, err, 400, "ResourceNotFoundException", "Connection ")

	// What is not served is no operation.
	_, err = c.DeauthorizeConnection(ctx, &eventbridge.DeauthorizeConnectionInput{Name: conn})
	refused(t, err, 400, "UnknownOperationException", "")
	_, err = c.ListEndpoints(ctx, &eventbridge.ListEndpointsInput{})
	refused(t, err, 400, "UnknownOperationException", "")
}

// The Scheduler's examples: the expressions of its guide, what it answers, and what it refuses.
func TestExamplesOfTheScheduler(t *testing.T) {
	_, _, at, _ := start(t)
	ctx := t.Context()
	c := scheduler.New(scheduler.Options{Region: "us-east-1", BaseEndpoint: &at, RetryMaxAttempts: 1, Credentials: credentials.NewStaticCredentialsProvider("ALL", "s", "")})
	role := arn("iam::" + account + ":role/MyRole")
	in := func(name, expression string) *scheduler.CreateScheduleInput {
		return &scheduler.CreateScheduleInput{Name: &name, ScheduleExpression: &expression, FlexibleTimeWindow: &stypes.FlexibleTimeWindow{Mode: stypes.FlexibleTimeWindowModeOff}, Target: &stypes.Target{Arn: sqsARN("emails"), RoleArn: role}}
	}
	for i, e := range []string{"at(2096-11-20T13:00:00)", "rate(5 minutes)", "rate(1 hour)", "rate(10 days)", "cron(15 10 * * ? *)", "cron(0 18 ? * MON-FRI *)", "cron(0 8 1 * ? *)", "cron(*/15 * * * ? *)", "cron(0/10 * ? * MON-FRI *)", "cron(0/5 8-17 ? * MON-FRI *)",
		"cron(0 9 ? * 2#1 *)", "cron(30 0 ? * 6L 2096-2098)", "cron(0 0 L * ? *)", "cron(15 12 3W * ? *)", "cron(5,35 14 * * ? *)"} {
		name := fmt.Sprintf("e%d", i)
		if out, err := c.CreateSchedule(ctx, in(name, e)); err != nil || *out.ScheduleArn != "arn:aws:scheduler:us-east-1:"+account+":schedule/default/"+name {
			t.Errorf("%s: %v", e, err)
		}
	}
	for _, e := range []string{"cron(0 1 * * * *)", "cron(7 20 * * NOT *)", "cron(INVALID)", "cron(0 dummy ? * MON-FRI *)", "cron(71 8 1 * ? *)", "cron()", "rate(10 seconds)", "rate(10 years)", "rate()", "rate(10)", "rate(10 minutess)", "rate(foo minutes)", "rate(0 minutes)", "rate(-10 minutes)",
		"rate( 10 minutes )", " rate(10 minutes)", "at(2021-12-31T23:59:59Z)", "at(2021-12-31)", "every day"} {
		_, err := c.CreateSchedule(ctx, in("bad", e))
		refused(t, err, 400, "ValidationException", "Invalid Schedule Expression "+e+".")
	}
	full := in("full", "cron(0 8 * * ? *)")
	full.GroupName, full.Description, full.ScheduleExpressionTimezone = aws.String("group1"), aws.String("d"), aws.String("America/New_York")
	full.StartDate, full.EndDate = aws.Time(time.Unix(4_000_000_000, 0)), aws.Time(time.Unix(4_100_000_000, 0))
	full.FlexibleTimeWindow = &stypes.FlexibleTimeWindow{Mode: stypes.FlexibleTimeWindowModeFlexible, MaximumWindowInMinutes: aws.Int32(15)}
	full.ActionAfterCompletion = stypes.ActionAfterCompletionDelete
	full.Target.Input, full.Target.SqsParameters, full.Target.DeadLetterConfig = aws.String("hello"), &stypes.SqsParameters{MessageGroupId: aws.String("g")}, &stypes.DeadLetterConfig{Arn: sqsARN("dead")}
	_, err := c.CreateSchedule(ctx, full)
	refused(t, err, 404, "ResourceNotFoundException", "Schedule group group1 does not exist.")
	g, err := c.CreateScheduleGroup(ctx, &scheduler.CreateScheduleGroupInput{Name: full.GroupName, Tags: []stypes.Tag{{Key: aws.String("k"), Value: aws.String("v")}}})
	if must(t, err); *g.ScheduleGroupArn != "arn:aws:scheduler:us-east-1:"+account+":schedule-group/group1" {
		t.Errorf("CreateScheduleGroup: %s", *g.ScheduleGroupArn)
	}
	_, err = c.CreateScheduleGroup(ctx, &scheduler.CreateScheduleGroupInput{Name: full.GroupName})
	refused(t, err, 409, "ConflictException", "Schedule group group1 already exists.")
	full.ClientToken = nil
	_, err = c.CreateSchedule(ctx, full)
	must(t, err)
	got, err := c.GetSchedule(ctx, &scheduler.GetScheduleInput{Name: full.Name, GroupName: full.GroupName})
	must(t, err)
	x := got.Target
	if *got.Arn != "arn:aws:scheduler:us-east-1:"+account+":schedule/group1/full" || *got.Name != "full" || *got.GroupName != "group1" || *got.Description != "d" || *got.ScheduleExpression != *full.ScheduleExpression || *got.ScheduleExpressionTimezone != "America/New_York" || got.State != stypes.ScheduleStateEnabled ||
		got.ActionAfterCompletion != stypes.ActionAfterCompletionDelete || got.StartDate.Unix() != 4_000_000_000 || got.EndDate.Unix() != 4_100_000_000 || got.FlexibleTimeWindow.Mode != stypes.FlexibleTimeWindowModeFlexible || *got.FlexibleTimeWindow.MaximumWindowInMinutes != 15 {
		t.Errorf("GetSchedule: %+v", got)
	}
	if *x.Arn != *sqsARN("emails") || *x.RoleArn != *role || *x.Input != "hello" || *x.SqsParameters.MessageGroupId != "g" || *x.DeadLetterConfig.Arn != *sqsARN("dead") || *x.RetryPolicy.MaximumEventAgeInSeconds != 86400 || *x.RetryPolicy.MaximumRetryAttempts != 185 {
		t.Errorf("GetSchedule: target %+v", x)
	}
	recent(t, got.CreationDate, got.LastModificationDate)
	_, err = c.GetSchedule(ctx, &scheduler.GetScheduleInput{Name: aws.String("none")})
	refused(t, err, 404, "ResourceNotFoundException", "Schedule none does not exist.")

	up := &scheduler.UpdateScheduleInput{Name: full.Name, GroupName: full.GroupName, ScheduleExpression: aws.String("rate(1 day)"), FlexibleTimeWindow: in("x", "x").FlexibleTimeWindow, Target: full.Target, State: stypes.ScheduleStateDisabled}
	_, err = c.UpdateSchedule(ctx, up)
	must(t, err)
	// What an update leaves out is as if it had never been said.
	if got, err = c.GetSchedule(ctx, &scheduler.GetScheduleInput{Name: full.Name, GroupName: full.GroupName}); err != nil || got.Description != nil || got.StartDate != nil || *got.ScheduleExpressionTimezone != "UTC" || got.State != stypes.ScheduleStateDisabled || got.ActionAfterCompletion != stypes.ActionAfterCompletionNone {
		t.Errorf("UpdateSchedule: %+v, %v", got, err)
	}
	up.Name = aws.String("none")
	_, err = c.UpdateSchedule(ctx, up)
	refused(t, err, 404, "ResourceNotFoundException", "Schedule none does not exist.")

	names := map[string]bool{}
	for token := (*string)(nil); ; {
		l, err := c.ListSchedules(ctx, &scheduler.ListSchedulesInput{NamePrefix: aws.String("e"), MaxResults: aws.Int32(6), NextToken: token})
		must(t, err)
		for _, s := range l.Schedules {
			if names[*s.Name] || *s.GroupName != "default" || s.State != stypes.ScheduleStateEnabled || *s.Target.Arn != *sqsARN("emails") {
				t.Errorf("ListSchedules: %+v", s)
			}
			names[*s.Name] = true
		}
		if token = l.NextToken; token == nil {
			break
		}
	}
	if len(names) != 15 {
		t.Errorf("ListSchedules: %v", slices.Sorted(maps.Keys(names)))
	}
	if l, err := c.ListSchedules(ctx, &scheduler.ListSchedulesInput{State: stypes.ScheduleStateDisabled}); err != nil || len(l.Schedules) != 1 || *l.Schedules[0].Name != "full" {
		t.Errorf("ListSchedules: %+v, %v", l, err)
	}
	_, err = c.ListSchedules(ctx, &scheduler.ListSchedulesInput{GroupName: aws.String("none")})
	refused(t, err, 404, "ResourceNotFoundException", "Schedule group none does not exist.")
	for words, change := range map[string]func(x *scheduler.CreateScheduleInput){
		"1 validation error detected: Value 'a b' at 'name'": func(x *scheduler.CreateScheduleInput) { x.Name = aws.String("a b") },
		"MaximumWindowInMinutes": func(x *scheduler.CreateScheduleInput) {
			x.FlexibleTimeWindow.Mode = stypes.FlexibleTimeWindowModeFlexible
		},
		"The EndDate you specify":     func(x *scheduler.CreateScheduleInput) { x.EndDate = aws.Time(time.Unix(1, 0)) },
		"Invalid Schedule Expression": func(x *scheduler.CreateScheduleInput) { x.ScheduleExpressionTimezone = aws.String("Mars/Olympus") },
		"Target: ":                    func(x *scheduler.CreateScheduleInput) { x.Target.Arn = arn("sns:us-east-1:" + account + ":topic") },
	} {
		bad := in("bad", "rate(1 hour)")
		change(bad)
		_, err := c.CreateSchedule(ctx, bad)
		refused(t, err, 400, "ValidationException", words)
	}

	group, err := c.GetScheduleGroup(ctx, &scheduler.GetScheduleGroupInput{Name: full.GroupName})
	if must(t, err); *group.Arn != *g.ScheduleGroupArn || *group.Name != "group1" || group.State != stypes.ScheduleGroupStateActive {
		t.Errorf("GetScheduleGroup: %+v", group)
	}
	recent(t, group.CreationDate, group.LastModificationDate)
	_, err = c.GetScheduleGroup(ctx, &scheduler.GetScheduleGroupInput{Name: aws.String("none")})
	refused(t, err, 404, "ResourceNotFoundException", "Schedule group none does not exist.")
	_, err = c.TagResource(ctx, &scheduler.TagResourceInput{ResourceArn: group.Arn, Tags: []stypes.Tag{{Key: aws.String("l"), Value: aws.String("w")}}})
	must(t, err)
	_, err = c.UntagResource(ctx, &scheduler.UntagResourceInput{ResourceArn: group.Arn, TagKeys: []string{"k"}})
	must(t, err)
	if tags, err := c.ListTagsForResource(ctx, &scheduler.ListTagsForResourceInput{ResourceArn: group.Arn}); err != nil || len(tags.Tags) != 1 || *tags.Tags[0].Key != "l" || *tags.Tags[0].Value != "w" {
		t.Errorf("ListTagsForResource: %+v, %v", tags, err)
	}
	_, err = c.ListTagsForResource(ctx, &scheduler.ListTagsForResourceInput{ResourceArn: aws.String(*group.Arn + "none")})
	refused(t, err, 404, "ResourceNotFoundException", "")
	if l, err := c.ListScheduleGroups(ctx, &scheduler.ListScheduleGroupsInput{NamePrefix: aws.String("gr")}); err != nil || len(l.ScheduleGroups) != 1 || *l.ScheduleGroups[0].Arn != *group.Arn {
		t.Errorf("ListScheduleGroups: %+v, %v", l, err)
	}
	_, err = c.DeleteScheduleGroup(ctx, &scheduler.DeleteScheduleGroupInput{Name: aws.String("default")})
	refused(t, err, 400, "ValidationException", "")
	_, err = c.DeleteScheduleGroup(ctx, &scheduler.DeleteScheduleGroupInput{Name: full.GroupName})
	must(t, err)
	_, err = c.DeleteScheduleGroup(ctx, &scheduler.DeleteScheduleGroupInput{Name: full.GroupName})
	refused(t, err, 404, "ResourceNotFoundException", "Schedule group group1 does not exist.")
	_, err = c.DeleteSchedule(ctx, &scheduler.DeleteScheduleInput{Name: aws.String("e0")})
	must(t, err)
	_, err = c.DeleteSchedule(ctx, &scheduler.DeleteScheduleInput{Name: aws.String("e0")})
	refused(t, err, 404, "ResourceNotFoundException", "Schedule e0 does not exist.")
	// Who does not use a target has nothing sent to it.
	some := scheduler.New(scheduler.Options{Region: "us-east-1", BaseEndpoint: &at, RetryMaxAttempts: 1, Credentials: credentials.NewStaticCredentialsProvider("SOME", "s", "")})
	other := in("other", "rate(1 hour)")
	other.Target.Arn = sqsARN("payments")
	_, err = some.CreateSchedule(ctx, other)
	refused(t, err, http.StatusForbidden, "AccessDeniedException", "User: service web is not authorized")
}
