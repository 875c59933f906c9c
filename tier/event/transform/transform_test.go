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
