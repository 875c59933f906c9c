package transform_test

import (
	"testing"

	"tenfold/tier/event/transform"
)

const event = `{"id":"e","detail":{"id":"o-17","say":"a \"b\"","n":5,"lines":[{"sku":"x"}],"a.b":true}}`

func TestFill(t *testing.T) {
	v, err := transform.Decode([]byte(event))
	if err != nil {
		t.Fatal(err)
	}
	paths := map[string]string{"id": "$.detail.id", "say": "$.detail.say", "n": "$.detail.n", "lines": "$.detail.lines", "sku": "$.detail.lines[0].sku", "dot": "$.detail['a.b']", "none": "$.detail.none"}
	for text, want := range map[string]string{
		`{"order": "<id>", "n": <n>}`:                 `{"order": "o-17", "n": 5}`,
		`{"order": <id>, "none": <none>}`:             `{"order": "o-17", "none": null}`,
		`"<say>, <n> and <sku>"`:                      `"a \"b\", 5 and x"`,
		`{"lines": <lines>, "text":"<lines>"}`:        `{"lines": [{"sku":"x"}], "text":"[{\"sku\":\"x\"}]"}`,
		`{"d": <dot>, "r": "<aws.events.rule-name>"}`: `{"d": true, "r": "paid"}`,
		`"1 < 2"`:      `"1 < 2"`,
		`"a\"<n>\" b"`: `"a\"5\" b"`,
	} {
		x, err := transform.ParseTemplate(paths, text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := string(x.Fill(v, transform.Facts{RuleName: "paid"})); got != want {
			t.Errorf("%s: %s", text, got)
		}
	}
	for _, text := range []string{"", `"<unknown>"`} {
		if _, err := transform.ParseTemplate(paths, text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	for _, p := range []string{"", "detail", "$detail", "$.", "$.a[", "$.a[x]", "$['a"} {
		if _, err := transform.ParsePath(p); err == nil {
			t.Errorf("%q was taken", p)
		}
	}
}

func FuzzFill(f *testing.F) {
	f.Add("$.detail.lines[0]", `{"a": <x>, "b": "<x>"}`, event)
	f.Fuzz(func(t *testing.T, path, text, e string) {
		x, err := transform.ParseTemplate(map[string]string{"x": path}, text)
		if err != nil {
			return
		}
		if v, err := transform.Decode([]byte(e)); err == nil {
			x.Fill(v, transform.Facts{})
		}
	})
}

// The examples of "Amazon EventBridge input transformation" of the User Guide, on its event.
func TestExamplesOfTheGuide(t *testing.T) {
	v, err := transform.Decode([]byte(`{"version":"0","id":"7bf73129-1428-4cd3-a780-95db273d1602","detail-type":"EC2 Instance State-change Notification","source":"aws.ec2","account":"123456789012","time":"2015-11-11T21:29:54Z","region":"us-east-1",` +
		`"resources":["arn:aws:ec2:us-east-1:123456789012:instance/i-abcd1111"],"detail":{"instance-id":"i-0123456789","state":"RUNNING"}}`))
	if err != nil {
		t.Fatal(err)
	}
	paths := map[string]string{"timestamp": "$.time", "instance": "$.detail.instance-id", "state": "$.detail.state", "resource": "$.resources[0]", "detail": "$.detail"}
	facts := transform.Facts{RuleARN: "arn:aws:events:us-east-1:123456789012:rule/example", RuleName: "example", Ingested: "2015-11-11T21:29:55.000Z"}
	for text, want := range map[string]string{
		`"instance <instance> is in <state>"`:                                              `"instance i-0123456789 is in RUNNING"`,
		`{"instance": <instance>, "state": <state>}`:                                       `{"instance": "i-0123456789", "state": "RUNNING"}`,
		`{"instance": "<instance>", "state": "<state>"}`:                                   `{"instance": "i-0123456789", "state": "RUNNING"}`,
		`{"instance": <instance>, "instanceStatus": "instance \"<instance>\" is <state>"}`: `{"instance": "i-0123456789", "instanceStatus": "instance \"i-0123456789\" is RUNNING"}`,
		`{"instance": <instance>, "state": [9, <state>, true], "Transformed": "Yes"}`:      `{"instance": "i-0123456789", "state": [9, "RUNNING", true], "Transformed": "Yes"}`,
		`{"time": <timestamp>, "resource": <resource>, "all": <detail>}`:                   `{"time": "2015-11-11T21:29:54Z", "resource": "arn:aws:ec2:us-east-1:123456789012:instance/i-abcd1111", "all": {"instance-id":"i-0123456789","state":"RUNNING"}}`,
		"\"instance <instance>\"\n\"is in <state>\"":                                       "\"instance i-0123456789\"\n\"is in RUNNING\"",
		`{"rule": <aws.events.rule-name>, "at": <aws.events.event.ingestion-time>}`:        `{"rule": "example", "at": "2015-11-11T21:29:55.000Z"}`,
		`{"rule": "<aws.events.rule-arn>", "static": "text"}`:                              `{"rule": "arn:aws:events:us-east-1:123456789012:rule/example", "static": "text"}`,
	} {
		x, err := transform.ParseTemplate(paths, text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := string(x.Fill(v, facts)); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	if _, err := transform.ParseTemplate(paths, `"<notdefinedkey>"`); err == nil || err.Error() != "contains invalid placeholder notdefinedkey." {
		t.Error(err)
	}
}
