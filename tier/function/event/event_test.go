package event

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
)

// TestTheSamplesRoundTrip makes a request of each HTTP sample of aws-lambda-go, and an event of that, and
// compares what functions read of it.
func TestTheSamplesRoundTrip(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/aws/aws-lambda-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "events", "testdata")
	read := func(name string, v any) {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, v); err != nil {
			t.Fatal(err)
		}
	}
	again := func(method, target, query, body string, coded bool, headers map[string]string, cookies []string, s Source) (*http.Request, []byte) {
		t.Helper()
		if query != "" {
			target += "?" + query
		}
		r := httptest.NewRequest(method, target, nil)
		for name, v := range headers {
			if strings.EqualFold(name, "host") {
				r.Host = v
				continue
			}
			r.Header.Set(name, v)
		}
		if len(cookies) > 0 {
			r.Header.Set("Cookie", strings.Join(cookies, "; "))
		}
		e, err := Request(r, []byte(body), s)
		if err != nil {
			t.Fatal(err)
		}
		return r, e
	}
	for _, name := range []string{"apigw-v2-request-no-authorizer.json", "lambda-urls-request.json"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Fatalf("%s is not among the samples: %v", name, err)
		}
		var want, got events.APIGatewayV2HTTPRequest
		read(name, &want)
		_, e := again(want.RequestContext.HTTP.Method, want.RawPath, want.RawQueryString, want.Body, want.IsBase64Encoded, want.Headers, want.Cookies, Source{Form: V2, ID: want.RequestContext.RequestID, Account: want.RequestContext.AccountID, API: want.RequestContext.APIID, Client: want.RequestContext.HTTP.SourceIP, At: time.UnixMilli(want.RequestContext.TimeEpoch)})
		if err := json.Unmarshal(e, &got); err != nil {
			t.Fatal(err)
		}
		if got.Version != "2.0" || got.RawPath != want.RawPath || got.RawQueryString != want.RawQueryString || !reflect.DeepEqual(got.Cookies, want.Cookies) || !reflect.DeepEqual(got.QueryStringParameters, want.QueryStringParameters) ||
			got.RequestContext.HTTP.Method != want.RequestContext.HTTP.Method || got.RequestContext.HTTP.SourceIP != want.RequestContext.HTTP.SourceIP || got.RequestContext.TimeEpoch != want.RequestContext.TimeEpoch || got.RequestContext.RequestID != want.RequestContext.RequestID {
			t.Errorf("%s:\ngot  %+v\nwant %+v", name, got, want)
		}
		for h, v := range want.Headers {
			if got.Headers[strings.ToLower(h)] != v {
				t.Errorf("%s: header %s is %q, want %q", name, h, got.Headers[strings.ToLower(h)], v)
			}
		}
	}
	var want, got events.ALBTargetGroupRequest
	read("alb-lambda-target-request-headers-only.json", &want)
	var query []string
	for k, v := range want.QueryStringParameters {
		query = append(query, k+"="+v)
	}
	_, e := again(want.HTTPMethod, want.Path, strings.Join(query, "&"), want.Body, want.IsBase64Encoded, want.Headers, nil, Source{Form: ALB, Account: "1"})
	if err := json.Unmarshal(e, &got); err != nil {
		t.Fatal(err)
	}
	if got.HTTPMethod != want.HTTPMethod || got.Path != want.Path || !reflect.DeepEqual(got.QueryStringParameters, want.QueryStringParameters) || !strings.HasPrefix(got.RequestContext.ELB.TargetGroupArn, "arn:aws:elasticloadbalancing:") {
		t.Errorf("alb:\ngot  %+v\nwant %+v", got, want)
	}
}

func TestBodiesAreTextOrBase64(t *testing.T) {
	for _, c := range []struct {
		kind, body, want string
		coded            bool
	}{
		{"application/json", `{"ü":1}`, `{"ü":1}`, false},
		{"text/plain; charset=utf-8", "a", "a", false},
		{"text/plain", "\xff", "/w==", true},
		{"image/png", "a", "YQ==", true},
		{"application/ld+json", "{}", "{}", false},
		{"", "a", "YQ==", true},
		{"image/png", "", "", false},
	} {
		if got, coded := encode(c.kind, []byte(c.body)); got != c.want || coded != c.coded {
			t.Errorf("%s %q: %q %v", c.kind, c.body, got, coded)
		}
	}
}

func TestWhatFunctionsReturn(t *testing.T) {
	for _, c := range []struct {
		form, payload string
		status        int
		kind, body    string
		bad           string
	}{
		{V2, `{"statusCode":201,"headers":{"Content-Type":"text/html","X-N":7,"X-B":true},"body":"<p>"}`, 201, "text/html", "<p>", ""},
		{V2, `{"statusCode":"404"}`, 404, "", "", ""},
		{V2, `{"statusCode":200,"body":"YQ==","isBase64Encoded":true}`, 200, "application/json", "a", ""},
		{V2, `{"message":"hello"}`, 200, "application/json", `{"message":"hello"}`, ""},
		{V2, `"hello"`, 200, "application/json", "hello", ""},
		{V2, `null`, 200, "application/json", "null", ""},
		{V2, `{"statusCode":99}`, 0, "", "", "statusCode"},
		{V2, `{"statusCode":200,"headers":{"X-A":"b\r\nSet-Cookie: c"}}`, 0, "", "", "line break"},
		{V2, `{"statusCode":200,"headers":{"X A":"b"}}`, 0, "", "", "header named"},
		{V2, `{"statusCode":200,"headers":{"X-A":{"b":1}}}`, 0, "", "", "no response"},
		{V2, `{"statusCode":200,"body":"*","isBase64Encoded":true}`, 0, "", "", "base64"},
		{ALB, `{"statusCode":200,"statusDescription":"200 OK","headers":{"Content-Type":"text/plain"},"body":"x"}`, 200, "text/plain", "x", ""},
		{ALB, `"hello"`, 0, "", "", "no statusCode"},
	} {
		a, err := Response([]byte(c.payload), c.form)
		if c.bad != "" {
			if err == nil || !strings.Contains(err.Error(), c.bad) {
				t.Errorf("%s: %v", c.payload, err)
			}
			continue
		}
		if err != nil || a.Status != c.status || a.Header.Get("Content-Type") != c.kind || string(a.Body) != c.body {
			t.Errorf("%s: %+v %v", c.payload, a, err)
		}
	}
}

func FuzzResponse(f *testing.F) {
	f.Add([]byte(`{"statusCode":200,"headers":{"a":"b"},"multiValueHeaders":{"c":["d"]},"cookies":["e=f"],"body":"g"}`), true)
	f.Add([]byte("{\"statusCode\":200}\x00\x00\x00\x00\x00\x00\x00\x00body"), false)
	f.Fuzz(func(t *testing.T, b []byte, alb bool) {
		form := V2
		if alb {
			form = ALB
		}
		check := func(a Answer, err error) {
			if err != nil {
				return
			}
			if a.Status < 200 || a.Status > 999 {
				t.Errorf("status %d", a.Status)
			}
			for name, values := range a.Header {
				for _, v := range values {
					if strings.ContainsAny(name+v, "\r\n\x00") {
						t.Errorf("%q: %q", name, v)
					}
				}
			}
		}
		check(Response(b, form))
		if a, _, ok, err := CutPrelude(b); ok {
			check(a, err)
		}
	})
}
