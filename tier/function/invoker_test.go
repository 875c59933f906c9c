package function

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/google/uuid"

	"tenfold"
	"tenfold/internal/keeper/keepertest"
	"tenfold/tier/function/runtimeapi"
)

type bench struct {
	*Invoker
	t     testing.TB
	house *keepertest.House
	addr  string
	dir   string
	snap  Snapshot
}

func id(name string) tenfold.ID {
	return tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindFunction, Name: tenfold.Name(name)}
}

// goal is a function of a mode of this binary.
func (b *bench) goal(name, mode string, change func(*Goal)) {
	exe, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	g := Goal{ID: id(name), Version: "1", Argv: []string{exe}, Dir: b.dir, Env: append(keepertest.Env(mode), "GREETING=hello", "GORACE=atexit_sleep_ms=0"), Handler: "bootstrap",
		Timeout: 10 * time.Second, Size: tenfold.Size{Memory: 512 << 20}, Max: 10, Concurrency: 1, Retries: 2, Age: time.Hour, Routes: []string{"POST /api/:what/*", "/all/*"}, Pass: "of the door", Account: "123456789012",
		LogDir: b.dir + "/logs/" + name, Logs: tenfold.Logs{Max: 8 << 20}}
	if change != nil {
		change(&g)
	}
	b.snap.Functions = slices.DeleteFunc(b.snap.Functions, func(o Goal) bool { return o.ID == g.ID })
	b.snap.Functions = append(b.snap.Functions, g)
	b.Put(b.snap)
}

func start(t testing.TB) *bench {
	t.Helper()
	h := keepertest.Start(t)
	return startIn(t, h, t.TempDir())
}

func startIn(t testing.TB, h *keepertest.House, dir string) *bench {
	t.Helper()
	v, err := NewInvoker(InvokerConfig{Dir: dir + "/async", Units: h.Client, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- v.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: v.Handler()}
	go server.Serve(l)
	t.Cleanup(func() {
		server.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	b := &bench{Invoker: v, t: t, house: h, addr: l.Addr().String(), dir: dir}
	b.snap.Keys = []Key{{Access: "TFAPI", Secret: "s3cret", Of: "service api", Account: "123456789012", Scope: tenfold.ID{App: "shop", Env: "production"}, Functions: []tenfold.Name{"echo", "flow"}, Line: 12}}
	return b
}

func (b *bench) call(name string, o order) (string, Outcome, error) {
	payload, _ := json.Marshal(o)
	var out collect
	got, err := b.Invoke(b.t.Context(), id(name), runtimeapi.Invocation{ID: uuid.NewString(), Payload: payload}, false, &out)
	return out.String(), got, err
}

func kind(err error) string {
	var f *runtimeapi.Failure
	if errors.As(err, &f) {
		return f.Type
	}
	return ""
}

func TestAFunctionWorks(t *testing.T) {
	b := start(t)
	b.goal("echo", "echo", nil)
	said, out, err := b.call("echo", order{Do: "who"})
	if err != nil {
		t.Fatal(err)
	}
	var who map[string]any
	if err := json.Unmarshal([]byte(said), &who); err != nil {
		t.Fatal(err)
	}
	if who["arn"] != "arn:aws:lambda:us-east-1:123456789012:function:echo" || who["name"] != "echo" || who["memory"] != 512.0 || who["env"] != "hello" || who["id"] != out.RequestID || out.Init == 0 {
		t.Errorf("the function sees %v, %+v", who, out)
	}
	pid := who["pid"]
	for range 20 {
		said, out, err := b.call("echo", order{Do: "who"})
		json.Unmarshal([]byte(said), &who)
		if err != nil || who["pid"] != pid || out.Init != 0 {
			t.Fatalf("a warm one: %v, %+v, %v", who, out, err)
		}
	}
	if u := b.Report().Functions[id("echo").String()]; u.Invocations != 21 || u.Warm != 1 || u.Cold != 1 || u.Busy != 0 {
		t.Errorf("use: %+v", u)
	}
	// Another version: the next invocation has it, and the old process ends.
	b.goal("echo", "echo", func(g *Goal) { g.Version = "2"; g.Env = append(slices.Clone(g.Env[:len(g.Env)-2]), "GREETING=again") })
	said, _, err = b.call("echo", order{Do: "who"})
	json.Unmarshal([]byte(said), &who)
	if err != nil || who["pid"] == pid || who["env"] != "again" {
		t.Errorf("the next version: %v, %v", who, err)
	}
}

func TestWhatGoesWrongIsNamed(t *testing.T) {
	b := start(t)
	b.goal("echo", "echo", func(g *Goal) { g.Timeout = 30 * time.Second })
	b.goal("brief", "echo", func(g *Goal) { g.Timeout = time.Second })
	if _, _, err := b.call("brief", order{Do: "sleep", N: 60_000}); kind(err) != runtimeapi.ErrorTimeout || !strings.Contains(err.Error(), "timed out after 1.00 seconds") {
		t.Errorf("one that takes too long: %v", err)
	}
	for _, c := range []struct {
		order
		kind, words string
	}{
		{order{Do: "fail"}, "errorString", "out of stock"},
		{order{Do: "panic"}, "string", "at the disco"},
		{order{Do: "exit", N: 7}, runtimeapi.ErrorExit, "exit status 7"},
		{order{Do: "exit"}, runtimeapi.ErrorExit, "without providing a reason"},
		{order{Do: "big", N: 7 << 20}, runtimeapi.ErrorTooLarge, "exceeded maximum allowed payload size"},
	} {
		_, _, err := b.call("echo", c.order)
		if kind(err) != c.kind || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%+v: %v", c.order, err)
		}
		if said, _, err := b.call("echo", order{Text: "after"}); err != nil || !strings.Contains(said, "after") {
			t.Errorf("after %+v: %q, %v", c.order, said, err)
		}
	}
	b.goal("dying", "dying", nil)
	if _, _, err := b.call("dying", order{}); kind(err) != runtimeapi.ErrorExit || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("one that cannot start: %v", err)
	}
	b.goal("gone", "echo", func(g *Goal) { g.Argv = []string{b.dir + "/nothing"} })
	if _, _, err := b.call("gone", order{}); kind(err) != runtimeapi.ErrorEntry && kind(err) != runtimeapi.ErrorExit {
		t.Errorf("one that is not there: %v", err)
	}
	if _, _, err := b.call("other", order{}); !strings.Contains(err.Error(), "no function other") {
		t.Errorf("an unknown one: %v", err)
	}
}

func TestManyAtOnceAndTheLimit(t *testing.T) {
	b := start(t)
	b.goal("echo", "echo", func(g *Goal) { g.Max = 4 })
	var wg sync.WaitGroup
	var mu sync.Mutex
	throttled, worked := 0, 0
	for range 16 {
		wg.Go(func() {
			for range 5 {
				_, _, err := b.call("echo", order{Do: "sleep", N: 5})
				var busy *Throttled
				mu.Lock()
				switch {
				case err == nil:
					worked++
				case errors.As(err, &busy):
					throttled++
				default:
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	u := b.Report().Functions[id("echo").String()]
	if worked == 0 || throttled == 0 || worked+throttled != 80 || u.Warm > 4 || int(u.Throttles) != throttled {
		t.Errorf("%d worked, %d were throttled, %+v", worked, throttled, u)
	}
	// A process that takes several at once.
	b.goal("echo", "echo", func(g *Goal) { g.Version, g.Max, g.Concurrency = "2", 1, 16 })
	for range 16 {
		wg.Go(func() {
			for range 5 {
				if _, _, err := b.call("echo", order{Do: "sleep", N: 5}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func (b *bench) client(access, secret string) *lambda.Client {
	return lambda.New(lambda.Options{Region: "us-east-1", BaseEndpoint: aws.String("http://" + b.addr), Credentials: credentials.NewStaticCredentialsProvider(access, secret, ""), RetryMaxAttempts: 1})
}

func TestTheSDKInvokes(t *testing.T) {
	b := start(t)
	b.goal("echo", "echo", nil)
	b.goal("secret", "echo", nil)
	b.goal("flow", "flow", nil)
	c := b.client("TFAPI", "s3cret")
	ctx := t.Context()
	for _, name := range []string{"echo", "echo:$LATEST", "arn:aws:lambda:us-east-1:123456789012:function:echo", "123456789012:function:echo"} {
		out, err := c.Invoke(ctx, &lambda.InvokeInput{FunctionName: &name, Payload: []byte(`{"do":"print","text":"in the log"}`), LogType: types.LogTypeTail})
		if err != nil {
			t.Fatal(name, err)
		}
		if string(out.Payload) != `{"do":"print","text":"in the log"}` || out.StatusCode != 200 || aws.ToString(out.ExecutedVersion) != "$LATEST" || out.FunctionError != nil {
			t.Errorf("%s: %s %+v", name, out.Payload, out)
		}
		if tail := decode(aws.ToString(out.LogResult)); !strings.HasPrefix(tail, "START RequestId: ") || !strings.Contains(tail, "\nsaid in the log\n") || !strings.Contains(tail, "\nREPORT RequestId: ") {
			t.Errorf("%s: tail %q", name, tail)
		}
	}
	out, err := c.Invoke(ctx, &lambda.InvokeInput{FunctionName: aws.String("echo"), Payload: []byte(`{"do":"fail"}`)})
	if err != nil || aws.ToString(out.FunctionError) != "Unhandled" || !strings.Contains(string(out.Payload), `"errorMessage":"out of stock"`) {
		t.Errorf("a failure: %+v %v", out, err)
	}
	if out, err := c.Invoke(ctx, &lambda.InvokeInput{FunctionName: aws.String("echo"), InvocationType: types.InvocationTypeDryRun}); err != nil || out.StatusCode != 204 {
		t.Errorf("a dry run: %+v %v", out, err)
	}
	var missing *types.ResourceNotFoundException
	if _, err := c.Invoke(ctx, &lambda.InvokeInput{FunctionName: aws.String("nothing")}); !errors.As(err, &missing) {
		t.Errorf("an unknown one: %v", err)
	}
	if _, err := c.Invoke(ctx, &lambda.InvokeInput{FunctionName: aws.String("secret")}); err == nil || !strings.Contains(err.Error(), "AccessDeniedException") || !strings.Contains(err.Error(), "add secret to its uses (tenfold.yaml:12)") {
		t.Errorf("one that is not used: %v", err)
	}
	var bad *types.InvalidRequestContentException
	if _, err := c.Invoke(ctx, &lambda.InvokeInput{FunctionName: aws.String("echo"), Payload: []byte("{")}); !errors.As(err, &bad) {
		t.Errorf("an event that is no JSON: %v", err)
	}
	if _, err := b.client("TFAPI", "guess").Invoke(ctx, &lambda.InvokeInput{FunctionName: aws.String("echo")}); err == nil || !strings.Contains(err.Error(), "InvalidSignatureException") {
		t.Errorf("a wrong secret: %v", err)
	}
	s, err := c.InvokeWithResponseStream(ctx, &lambda.InvokeWithResponseStreamInput{FunctionName: aws.String("flow"), Payload: []byte(`{"rawPath":"/x"}`)})
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	complete := false
	for e := range s.GetStream().Events() {
		switch e := e.(type) {
		case *types.InvokeWithResponseStreamResponseEventMemberPayloadChunk:
			got.Write(e.Value.Payload)
		case *types.InvokeWithResponseStreamResponseEventMemberInvokeComplete:
			complete = e.Value.ErrorCode == nil
		}
	}
	if err := s.GetStream().Err(); err != nil || !complete || !strings.HasSuffix(got.String(), strings.Repeat("stream ", 20000)) {
		t.Errorf("a stream: %v, complete %v, %d bytes", err, complete, got.Len())
	}
}

func TestAsynchronousEventsAreKeptUntilTheyAreDone(t *testing.T) {
	b := start(t)
	b.goal("dead", "echo", nil)
	b.goal("echo", "echo", func(g *Goal) { dead := id("dead"); g.Dead, g.Retries = &dead, 1 })
	c := b.client("TFAPI", "s3cret")
	invoke := func(payload string) {
		t.Helper()
		out, err := c.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("echo"), InvocationType: types.InvocationTypeEvent, Payload: []byte(payload)})
		if err != nil || out.StatusCode != 202 {
			t.Fatalf("%+v %v", out, err)
		}
	}
	eventually := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !ok(); <-time.After(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s does not happen: %+v", what, b.Report())
			}
		}
	}
	uses := func(name string) Use { return b.Report().Functions[id(name).String()] }
	invoke(`{}`)
	eventually("the event", func() bool { return uses("echo").Invocations == 1 && uses("echo").Queued == 0 })
	invoke(`{"do":"fail"}`)
	var kept event1
	eventually("the first failure", func() bool {
		for _, e := range b.async.All() {
			kept = e
		}
		return kept.Tries == 1
	})
	if wait := time.Until(kept.Due); wait < 50*time.Second || wait > retryFirst {
		t.Errorf("it is tried again in %v", wait)
	}
	b.async.Update(kept.ID, func(e *event1) { e.Due = time.Now() })
	b.comes(turn{id: kept.ID, function: kept.Function.String(), due: time.Now()})
	eventually("the dead letter", func() bool {
		return uses("dead").Invocations == 1 && uses("echo").Dropped == 1 && uses("echo").Queued == 0
	})
}

func TestEventsOutliveTheProcess(t *testing.T) {
	h, dir := keepertest.Start(t), t.TempDir()
	v, err := NewInvoker(InvokerConfig{Dir: dir + "/async", Units: h.Client, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	v.Put(Snapshot{Functions: []Goal{{ID: id("echo"), Max: 1, Concurrency: 1}}})
	if err := v.Enqueue(t.Context(), id("echo"), runtimeapi.Invocation{ID: uuid.NewString(), Payload: []byte("{}")}); err != nil {
		t.Fatal(err)
	} // it dies here
	b := startIn(t, h, dir)
	b.goal("echo", "echo", nil)
	for end := time.Now().Add(20 * time.Second); b.Report().Functions[id("echo").String()].Invocations != 1; <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the event was lost")
		}
	}
}

// What waits for a function is bounded: who calls is told, and what ends makes room.
func TestTooManyEventsWait(t *testing.T) {
	b := start(t)
	b.goal("echo", "echo", nil)
	b.mu.Lock()
	b.depths[id("echo").String()] = depth{asyncQueued, 5}
	b.mu.Unlock()
	var busy *Throttled
	in := runtimeapi.Invocation{ID: uuid.NewString(), Payload: []byte("{}")}
	if err := b.Enqueue(t.Context(), id("echo"), in); !errors.As(err, &busy) || busy.Reason != tooDeep {
		t.Errorf("%v", err)
	}
	if a, err := b.Invoker.call(t.Context(), Call{Function: id("echo"), Payload: []byte("{}"), Async: true}); err != nil || a.Throttled != tooDeep {
		t.Errorf("by hand: %+v, %v", a, err)
	}
	b.shoal(id("echo"), 2)
	if err := b.Enqueue(t.Context(), id("echo"), in); err != nil {
		t.Errorf("when there is room: %v", err)
	}
	if b.deepen(id("other"), asyncBytes+1); b.deepen(id("other"), 1) { // one is taken however large
		t.Error("more than its bytes")
	}
	for end := time.Now().Add(20 * time.Second); ; <-time.After(5 * time.Millisecond) {
		b.mu.Lock()
		n := b.depths[id("echo").String()].n
		b.mu.Unlock()
		if n == asyncQueued-1 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d wait", n)
		}
	}
}

func TestRequestsBecomeEvents(t *testing.T) {
	b := start(t)
	b.goal("web", "http", nil)
	b.goal("flow", "flow", nil)
	b.goal("echo", "echo", nil)
	pass := "of the door"
	ask := func(fn, method, path, body string) (*http.Response, string) {
		t.Helper()
		r, err := http.NewRequest(method, "http://"+b.addr+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(FieldFunction, id(fn).String())
		r.Header.Set(FieldPass, pass)
		r.Header.Set("Cookie", "c=1; d=2")
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-Forwarded-For", "10.1.2.3, 127.0.0.1")
		r.Host = "shop.localhost:8080"
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		all, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, string(all)
	}
	res, body := ask("web", "POST", "/api/orders/7/lines?a=1&a=2&b=%20x", `{"n":1}`)
	var e events.APIGatewayV2HTTPRequest
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		t.Fatal(err, body)
	}
	if res.StatusCode != 201 || res.Header.Get("X-Key") != "POST /api/{what}/{proxy+}" || len(res.Header["Set-Cookie"]) != 2 {
		t.Errorf("the answer: %v", res)
	}
	if e.RawPath != "/api/orders/7/lines" || e.RawQueryString != "a=1&a=2&b=%20x" || e.QueryStringParameters["a"] != "1,2" || e.PathParameters["what"] != "orders" || e.PathParameters["proxy"] != "7/lines" ||
		!slices.Equal(e.Cookies, []string{"c=1", "d=2"}) || e.Body != `{"n":1}` || e.RequestContext.HTTP.SourceIP != "10.1.2.3" || e.RequestContext.DomainName != "shop.localhost" || e.Headers[strings.ToLower(FieldFunction)] != "" || e.Headers[strings.ToLower(FieldPass)] != "" {
		t.Errorf("the event: %+v", e)
	}
	if res, body := ask("flow", "GET", "/all/x", ""); res.StatusCode != 203 || res.Header.Get("X-Of") != "/all/x" || body != strings.Repeat("stream ", 20000) {
		t.Errorf("a stream: %v, %d bytes", res, len(body))
	}
	if res, body := ask("echo", "GET", "/all/x", ""); res.StatusCode != 200 || !strings.Contains(body, `"routeKey":"ANY /all/{proxy+}"`) {
		t.Errorf("a bare answer: %v %s", res, body)
	}
	if res, _ := ask("echo", "GET", "/other", ""); res.StatusCode != 404 {
		t.Errorf("no route: %v", res)
	}
	if res, _ := ask("nothing", "GET", "/all/", ""); res.StatusCode != 404 {
		t.Errorf("no function: %v", res)
	}
	if res, _ := ask("echo", "POST", "/api/a/b", strings.Repeat("x", runtimeapi.MaxEvent+1)); res.StatusCode != 413 {
		t.Errorf("too large: %v", res)
	}
	// Whoever reaches the port is not the door.
	for _, pass = range []string{"", "of the doos"} {
		if res, body := ask("echo", "GET", "/all/x", ""); res.StatusCode != 403 || body != `{"message":"Forbidden"}` {
			t.Errorf("with the pass %q: %v %s", pass, res, body)
		}
	}
	pass = ""
	b.goal("echo", "echo", func(g *Goal) { g.Pass = "" })
	if res, _ := ask("echo", "GET", "/all/x", ""); res.StatusCode != 403 {
		t.Errorf("one that has no pass: %v", res)
	}
}

func decode(s string) string {
	b, _ := base64.StdEncoding.DecodeString(s)
	return string(b)
}
