//go:build scenario

package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"tenfold"
)

// greeter is a function in each language, called by its route, by hand, by the SDK and by schedule.
func greeter(version string) map[string]string {
	return map[string]string{
		"functions/hello/index.mjs": `export const handler = async (event) => {
  console.log("called for", event.rawPath ?? event.source ?? "hand");
  if (event.fail) throw new RangeError("out of stock");
  if (event.rawPath === "/api/teapot") return { statusCode: 418, headers: { "x-tea": "green" }, cookies: ["a=1"], body: "short and stout" };
  return { version: "` + version + `", path: event.rawPath, body: event.body, greeting: process.env.GREETING, env: process.env.APP_ENV };
};
`,
		"functions/count/handler.py": `def handler(event, context):
    return {"words": len(event.get("text", "").split()), "left": context.get_remaining_time_in_millis() > 0}
`,
		"tenfold.yaml": manifest("1", "    uses: [hello]\n") + `functions:
  hello: {routes: [/api/*], env: {GREETING: hi}, schedule: rate(1 minute)}
  count: {runtime: python, handler: handler.handler}
`,
	}
}

func TestFunctions(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	write(t, dir, greeter("one"))
	h.up(dir)
	if status, body := h.get("echo.localhost", "/api/x?a=1"); status != 200 || !strings.Contains(body, `"version":"one"`) || !strings.Contains(body, `"greeting":"hi"`) || !strings.Contains(body, `"path":"/api/x"`) {
		t.Errorf("by its route: %d %s", status, body)
	}
	if status, body := h.get("echo.localhost", "/api/teapot"); status != 418 || body != "short and stout" {
		t.Errorf("a response: %d %s", status, body)
	}
	if status, body := h.get("echo.localhost", "/echo"); status != 200 || !strings.HasPrefix(body, "1 ") {
		t.Errorf("the service beside it: %d %s", status, body)
	}
	if out := h.must(dir, "fn", "invoke", "count", `{"text": "a b c"}`); !strings.Contains(out, `{"words": 3, "left": true}`) {
		t.Errorf("by hand: %s", out)
	}
	out, status := h.runIn(dir, "fn", "invoke", "hello", `{"fail": true}`)
	if status != tenfold.CodeFailed.ExitStatus() || !strings.Contains(out, "RangeError: out of stock") || !strings.Contains(out, "tenfold: hint: see what it said: tenfold fn logs hello") {
		t.Errorf("a failure: %d %s", status, out)
	}
	if out := h.must(dir, "fn", "logs", "hello"); !strings.Contains(out, "called for /api/x") || !strings.Contains(out, "REPORT RequestId: ") || !strings.Contains(out, "RangeError: out of stock") {
		t.Errorf("logs: %s", out)
	}
	if out := h.must(dir, "fn", "list"); !strings.Contains(out, "index.handler") || !strings.Contains(out, "/api/*") || !strings.Contains(out, "1 of 0-50") {
		t.Errorf("list: %s", out)
	}
	if out := h.must(dir, "events"); !strings.Contains(out, "index.handler can be called, 0-50 environments, at /api/*") {
		t.Errorf("events: %s", out)
	}
	if out := h.must(dir, "status"); !strings.Contains(out, "function") || !strings.Contains(out, "warm of 0-50") {
		t.Errorf("status: %s", out)
	}
	if out := h.must(dir, "metrics"); !strings.Contains(out, `function_invocations_total{app="echo",env="production",function="hello"}`) {
		t.Errorf("metrics lack functions:\n%s", out)
	}

	// The service's own keys call what it uses, and nothing else.
	env := map[string]string{}
	for line := range strings.Lines(h.must(dir, "exec", "api", "--", "env")) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			env[k] = v
		}
	}
	c := lambda.New(lambda.Options{Region: env["AWS_REGION"], BaseEndpoint: aws.String(env["AWS_ENDPOINT_URL_LAMBDA"]), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], "")})
	got, err := c.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String(env["HELLO_FUNCTION"]), Payload: []byte(`{}`), LogType: types.LogTypeTail})
	if err != nil || !strings.Contains(string(got.Payload), `"version":"one"`) || got.LogResult == nil {
		t.Errorf("by the SDK: %+v, %v", got, err)
	}
	if _, err := c.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("count")}); err == nil || !strings.Contains(err.Error(), "add count to its uses (tenfold.yaml:3)") {
		t.Errorf("one that it does not use: %v", err)
	}

	// A new version is served without a failed request, while clients call.
	end := h.calls("/api/x", `"version":`)
	write(t, dir, greeter("two"))
	if out, status := h.runIn(dir, "deploy"); status != 0 {
		t.Errorf("deploy: %d %s", status, out)
	}
	// The process of functions dies: events that were accepted are not lost, and callers get answers again.
	if out := h.must(dir, "fn", "invoke", "--async", "count", `{"text": "later"}`); !strings.Contains(out, "accepted as") {
		t.Errorf("asynchronous: %s", out)
	}
	end("a deploy")
	if status, body := h.get("echo.localhost", "/api/x"); status != 200 || !strings.Contains(body, `"version":"two"`) {
		t.Errorf("after a deploy: %d %s", status, body)
	}
	pid := processOf(t, h, " invoke ")
	syscall.Kill(pid, syscall.SIGKILL)
	eventually(t, "answers after the death of the functions' process", 20*time.Second, func() bool {
		status, body := h.get("echo.localhost", "/api/x")
		return status == 200 && strings.Contains(body, `"version":"two"`)
	})

	// An upgrade of the house fails no call.
	end = h.calls("/api/x", `"version":"two"`)
	before := processOf(t, h, " invoke ")
	h.bin = h.next()
	h.must(dir, "upgrade")
	eventually(t, "the next version's process of functions", 20*time.Second, func() bool { pid := processOf(t, h, " invoke "); return pid != 0 && pid != before })
	h.must(dir, "fn", "invoke", "count", `{"text": "a"}`)
	end("an upgrade")

	// Without functions their process ends.
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "")})
	if out, status := h.runIn(dir, "deploy"); status != 0 {
		t.Errorf("deploy: %d %s", status, out)
	}
	eventually(t, "the end of the functions' process", 20*time.Second, func() bool { return processOf(t, h, " invoke ") == 0 })
}

// calls has four clients ask for a path until the end of something, which is to fail none of them.
func (h *house) calls(path, want string) (end func(of string)) {
	stop := make(chan struct{})
	var ok, bad atomic.Int64
	var first atomic.Value
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if status, body := h.get("echo.localhost", path); status == 200 && strings.Contains(body, want) {
					ok.Add(1)
				} else {
					bad.Add(1)
					first.CompareAndSwap(nil, fmt.Sprint(status, " ", body))
				}
			}
		})
	}
	var once sync.Once
	finish := func() { once.Do(func() { close(stop); wg.Wait() }) }
	h.t.Cleanup(finish)
	return func(of string) {
		h.t.Helper()
		finish()
		h.t.Logf("%s under 4 clients: %d answers, %d failed", of, ok.Load(), bad.Load())
		if bad.Load() > 0 || ok.Load() == 0 {
			h.t.Errorf("the first that failed: %v", first.Load())
		}
	}
}

// processOf finds a process of the house by its command line; 0: there is none.
func processOf(t *testing.T, h *house, part string) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if line := strings.ReplaceAll(string(b), "\x00", " "); strings.Contains(line, part) && strings.Contains(line, h.dir) {
			var pid int
			fmt.Sscanf(f, "/proc/%d/", &pid)
			return pid
		}
	}
	return 0
}

// An unmodified handler of aws-lambda-go runs as "provided".
func TestAFunctionInGo(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), map[string]string{
		"tenfold.yaml": "app: gofn\nfunctions:\n  web: {path: ., build: go build -mod=mod -o bin/app ., routes: [/*], scale: {min: 1, max: 4, concurrency: 4}}\n",
		"go.mod":       "module web\n\ngo 1.24\n\nrequire github.com/aws/aws-lambda-go v1.55.1\n",
		"main.go": `package main

import (
	"context"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
)

func handle(_ context.Context, r events.APIGatewayV2HTTPRequest) (events.APIGatewayV2HTTPResponse, error) {
	return events.APIGatewayV2HTTPResponse{StatusCode: 201, Body: r.RequestContext.HTTP.Method + " " + r.RawPath, Headers: map[string]string{"Content-Type": "text/plain"}}, nil
}

func main() { lambda.Start(handle) }
`,
	})
	sum, err := os.ReadFile("../go.sum")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(sum)) {
		if strings.HasPrefix(line, "github.com/aws/aws-lambda-go ") {
			lines = append(lines, line)
		}
	}
	write(t, dir, map[string]string{"go.sum": strings.Join(lines, "")})
	h.up(dir)
	r, err := http.NewRequest("POST", "http://"+h.addr+"/some/path", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "gofn.localhost"
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); res.StatusCode != 201 || string(b) != "POST /some/path" {
		t.Errorf("%d %s", res.StatusCode, b)
	}
	var all []struct{ Warm int }
	if err := json.Unmarshal([]byte(h.must(dir, "fn", "list", "--json")), &all); err != nil || len(all) != 1 || all[0].Warm < 1 {
		t.Errorf("%+v, %v", all, err)
	}
}
