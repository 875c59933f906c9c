package runtimeapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

type sink struct{ bytes.Buffer }

func (*sink) Begin(string, bool) {}

type client struct {
	t   *testing.T
	url string
}

func (c client) do(method, path, body string, fields ...string) (*http.Response, string) {
	c.t.Helper()
	r, err := http.NewRequest(method, c.url+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	for i := 0; i < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		c.t.Error(err)
		return &http.Response{Request: r}, ""
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res, string(b)
}

func (c client) want(status int, kind string, res *http.Response, body string) {
	c.t.Helper()
	var e struct{ ErrorType string }
	json.Unmarshal([]byte(body), &e)
	if res.StatusCode != status || e.ErrorType != kind {
		c.t.Errorf("%s: %d %s, want %d %s", res.Request.URL.Path, res.StatusCode, body, status, kind)
	}
}

func serve(t *testing.T, cfg Config) (*Environment, client) {
	e := New(cfg)
	s := httptest.NewServer(e)
	t.Cleanup(func() { e.End(&Failure{Type: ErrorSandbox}); s.Close() })
	return e, client{t, s.URL}
}

const runtime = "/2018-06-01/runtime/"

func TestTheProtocolOfARuntime(t *testing.T) {
	e, c := serve(t, Config{Function: "f"})
	done := make(chan error, 1)
	var out sink
	go func() {
		done <- e.Invoke(t.Context(), Invocation{ID: "1", Payload: []byte(`{"a":1}`), Deadline: time.UnixMilli(42), ARN: "arn:f", Trace: "Root=1", Client: "{}"}, &out)
	}()
	res, body := c.do("GET", runtime+"invocation/next", "")
	if body != `{"a":1}` || res.Header.Get(fieldRequestID) != "1" || res.Header.Get(fieldDeadline) != "42" || res.Header.Get(fieldARN) != "arn:f" || res.Header.Get(fieldTrace) != "Root=1" || res.Header.Get(fieldClient) != "{}" || res.Header.Get(fieldIdentity) != "" {
		t.Errorf("next: %v %s", res.Header, body)
	}
	res, body = c.do("GET", runtime+"invocation/next", "")
	c.want(403, "InvalidStateTransition", res, body)
	res, body = c.do("POST", runtime+"invocation/2/response", "")
	c.want(400, "InvalidRequestID", res, body)
	res, body = c.do("POST", runtime+"init/error", "{}")
	c.want(403, "InvalidStateTransition", res, body)
	res, body = c.do("POST", runtime+"invocation/1/response", "answer")
	if res.StatusCode != 202 || body != "{\"status\":\"OK\"}\n" {
		t.Errorf("response: %d %q", res.StatusCode, body)
	}
	if err := <-done; err != nil || out.String() != "answer" {
		t.Errorf("the answer is %q, %v", out.String(), err)
	}
	res, body = c.do("POST", runtime+"invocation/1/response", "again")
	c.want(400, "InvalidRequestID", res, body)
	go func() { done <- e.Invoke(t.Context(), Invocation{ID: "3"}, &out) }()
	c.do("GET", runtime+"invocation/next", "")
	res, body = c.do("POST", runtime+"invocation/3/error", `{"errorMessage":"m","errorType":"T","stackTrace":["s"],"more":1}`, fieldErrorType, "X")
	var f *Failure
	if err := <-done; res.StatusCode != 202 || !errors.As(err, &f) || f.Type != "T" || f.Message != "m" || !strings.Contains(string(f.Payload()), `"more":1`) {
		t.Errorf("error: %d %s, %v", res.StatusCode, body, err)
	}
	res, body = c.do("GET", "/other", "")
	c.want(404, "NotFound", res, body)
}

func TestAnEnvironmentThatEnds(t *testing.T) {
	e, c := serve(t, Config{})
	res, body := c.do("POST", runtime+"init/error", `{"errorMessage":"no database","errorType":"E"}`)
	if <-e.Ready(); res.StatusCode != 202 || e.Failed() == nil || e.Failed().Message != "no database" {
		t.Errorf("init: %s %v", body, e.Failed())
	}
	if err := e.Invoke(t.Context(), Invocation{ID: "1"}, &sink{}); !errors.Is(err, ErrOver) {
		t.Errorf("an event for one that ended: %v", err)
	}
	e, c = serve(t, Config{})
	done := make(chan error, 1)
	go func() { done <- e.Invoke(t.Context(), Invocation{ID: "1"}, &sink{}) }()
	c.do("GET", runtime+"invocation/next", "")
	e.End(&Failure{Type: ErrorExit, Message: "exit status 1"})
	if err := <-done; err == nil || !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("an event within: %v", err)
	}
	e, c = serve(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- e.Invoke(ctx, Invocation{ID: "1"}, &sink{}) }()
	c.do("GET", runtime+"invocation/next", "")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	res, body = c.do("POST", runtime+"invocation/1/response", "late")
	c.want(400, "InvalidRequestID", res, body)
}

func TestResponsesThatAreTooLargeOrCut(t *testing.T) {
	e, c := serve(t, Config{})
	done := make(chan error, 1)
	invoke := func(id string) {
		go func() { done <- e.Invoke(t.Context(), Invocation{ID: id}, &sink{}) }()
		c.do("GET", runtime+"invocation/next", "")
	}
	invoke("1")
	res, body := c.do("POST", runtime+"invocation/1/response", strings.Repeat("x", MaxResponse+1))
	c.want(413, "RequestEntityTooLarge", res, body)
	var f *Failure
	if err := <-done; !errors.As(err, &f) || f.Type != ErrorTooLarge {
		t.Errorf("too large: %v", err)
	}
	invoke("2")
	pr, pw := io.Pipe()
	go func() {
		pw.Write([]byte("half"))
		pw.CloseWithError(errors.New("it died"))
	}()
	http.Post(c.url+runtime+"invocation/2/response", "", pr)
	if err := <-done; !errors.As(err, &f) || f.Type != ErrorTruncated {
		t.Errorf("cut: %v", err)
	}
}

func TestAnAnswerThatNeverEndsIsTimedOut(t *testing.T) {
	e, c := serve(t, Config{})
	for _, mode := range []string{"streaming", ""} {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		var out sink
		go func() { done <- e.Invoke(ctx, Invocation{ID: "slow" + mode}, &out) }()
		c.do("GET", runtime+"invocation/next", "")
		pr, pw := io.Pipe()
		r, _ := http.NewRequest("POST", c.url+runtime+"invocation/slow"+mode+"/response", pr)
		if mode != "" {
			r.Header.Set(fieldMode, mode)
		}
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			if res, err := http.DefaultClient.Do(r); err == nil {
				res.Body.Close()
			}
		}()
		pw.Write([]byte("half")) // the head is read by now, or will be: then nobody answers yet
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("%q: %v", mode, err)
		}
		pw.Close()
		<-sent
	}
}

func TestExtensions(t *testing.T) {
	e, c := serve(t, Config{Function: "f", Handler: "h", Account: "1", Extensions: []string{"watcher"}})
	const ext = "/2020-01-01/extension/"
	res, body := c.do("POST", ext+"register", `{"events":["INVOKE"]}`)
	c.want(403, "Extension.InvalidExtensionName", res, body)
	res, body = c.do("GET", ext+"event/next", "")
	c.want(403, "Extension.MissingExtensionIdentifier", res, body)
	res, body = c.do("GET", ext+"event/next", "", fieldIdentifier, "x")
	c.want(403, "Extension.UnknownExtensionIdentifier", res, body)
	res, body = c.do("POST", ext+"register", `{"events":["SHUTDOWN"]}`, fieldName, "within")
	c.want(403, "ShutdownEventNotSupportedForInternalExtension", res, body)
	res, body = c.do("POST", ext+"register", `{"events":["INVOKE","SHUTDOWN"]}`, fieldName, "watcher")
	me := res.Header.Get(fieldIdentifier)
	if res.StatusCode != 200 || me == "" || !strings.Contains(body, `"handler":"h"`) {
		t.Fatalf("register: %v %s", res, body)
	}
	got := make(chan string)
	logs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- string(b)
	}))
	defer logs.Close()
	port := logs.URL[strings.LastIndex(logs.URL, ":"):]
	res, body = c.do("PUT", "/2022-07-01/telemetry", `{"types":["platform"],"destination":{"protocol":"HTTP","URI":"http://example.com"}}`, fieldIdentifier, me)
	c.want(400, "ValidationError", res, body)
	res, body = c.do("PUT", "/2022-07-01/telemetry", `{"schemaVersion":"2022-07-01","types":["platform"],"buffering":{"maxItems":1000,"timeoutMs":25},"destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain`+port+`/in"}}`, fieldIdentifier, me)
	if res.StatusCode != 200 || !e.Watched("platform") || e.Watched("function") {
		t.Fatalf("subscribe: %v %s", res, body)
	}
	events := make(chan string)
	asks := func() {
		_, body := c.do("GET", ext+"event/next", "", fieldIdentifier, me)
		events <- body
	}
	var out sink
	done := make(chan error, 1)
	go c.do("GET", runtime+"invocation/next", "")
	select {
	case <-e.Ready():
		t.Fatal("ready without its extension")
	case <-time.After(50 * time.Millisecond): // nothing tells that nothing happens
	}
	go asks()
	<-e.Ready()
	res, body = c.do("POST", ext+"register", `{}`, fieldName, "late")
	c.want(403, "Extension.InvalidExtensionState", res, body)
	go func() { done <- e.Invoke(t.Context(), Invocation{ID: "1", ARN: "arn:f", Trace: "Root=1"}, &out) }()
	if body := <-events; !strings.Contains(body, `"eventType":"INVOKE"`) || !strings.Contains(body, `"requestId":"1"`) || !strings.Contains(body, `"tracing":{"type":"X-Amzn-Trace-Id","value":"Root=1"}`) {
		t.Errorf("invoke: %s", body)
	}
	e.Tell("platform", Record{Type: "platform.start", Record: map[string]string{"requestId": "1"}})
	if body := <-got; !strings.Contains(body, `"type":"platform.start"`) {
		t.Errorf("telemetry: %s", body)
	}
	for {
		if res, _ := c.do("POST", runtime+"invocation/1/response", "a"); res.StatusCode == 202 {
			break
		} // its ask for an event is on its way
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	go asks()
	if grace := e.Shutdown("spindown"); grace != ShutdownGrace {
		t.Errorf("grace %v", grace)
	}
	if body := <-events; !strings.Contains(body, `"shutdownReason":"spindown"`) {
		t.Errorf("shutdown: %s", body)
	}
}

func FuzzRegister(f *testing.F) {
	f.Add(`{"events":["INVOKE"]}`, "a")
	f.Fuzz(func(t *testing.T, body, name string) {
		e := New(Config{})
		r := httptest.NewRequest("POST", "/2020-01-01/extension/register", strings.NewReader(body))
		r.Header.Set(fieldName, name)
		e.ServeHTTP(httptest.NewRecorder(), r)
		e.End(&Failure{})
	})
}
