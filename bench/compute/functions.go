package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"tenfold/control"
	"tenfold/internal/measure"
)

// handle is the function of the group functions, by AWS' own library: it gives back what it gets, and ends
// after its answer when it is told to, before it would stand still (100 ms).
func handle() {
	lambda.Start(func(_ context.Context, e json.RawMessage) (json.RawMessage, error) {
		if bytes.Contains(e, []byte(`"last"`)) {
			time.AfterFunc(50*time.Millisecond, func() { os.Exit(0) })
		}
		return e, nil
	})
}

const (
	functionLoad   = 2 * time.Second
	functionRounds = 6
	coldStarts     = 50
)

// functions calls a function of aws-lambda-go warm, beside AWS' Runtime Interface Emulator (aws-lambda-rie
// in PATH), by 64 clients at once, and cold.
func (b *bench) functions() error {
	dir := filepath.Join(b.house.dir, "apps", "fnbench")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text := fmt.Sprintf("app: fnbench\nservices:\n  api: {path: ., runtime: go, build: false, command: exec %s task 1 0, routes: [/*], uses: [echo, cold], health: {route: /healthz}}\n"+
		"functions:\n  echo: {path: ., runtime: provided, build: false, command: exec %s lambda, scale: 0-80, size: 512mb}\n"+
		"  cold: {path: ., runtime: provided, build: false, command: exec %s lambda, size: 512mb}\n", b.self, b.self, b.self)
	if err := os.WriteFile(filepath.Join(dir, "tenfold.yaml"), []byte(text), 0o644); err != nil {
		return err
	}
	args := []string{"up", "--detach", "--listen", "127.0.0.1:0"}
	if b.house.addr != "" {
		args = []string{"deploy"}
	}
	if out, err := b.house.run(dir, args...); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	out, err := b.house.run(dir, "exec", "api", "--", "env")
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	env := map[string]string{}
	for line := range strings.Lines(out) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			env[k] = v
		}
	}
	ours, err := signedCall(env, "ECHO", `{"n":1}`)
	if err != nil {
		return err
	}
	if err := b.warm(ours); err != nil {
		return err
	}
	if err := b.together(ours); err != nil {
		return err
	}
	last, err := signedCall(env, "COLD", `{"last":1}`)
	if err != nil {
		return err
	}
	return b.cold(last)
}

// call is a request that can be sent again and again: a signature is good for a quarter of an hour.
type call struct {
	url    string
	body   []byte
	header http.Header
	client *http.Client
}

func signedCall(env map[string]string, name, body string) (call, error) {
	c := call{url: env["AWS_ENDPOINT_URL_LAMBDA"] + "/2015-03-31/functions/" + env[name+"_FUNCTION"] + "/invocations", body: []byte(body), client: newClient()}
	r, err := http.NewRequest(http.MethodPost, c.url, nil)
	if err != nil {
		return c, err
	}
	sum := sha256.Sum256(c.body)
	keys := aws.Credentials{AccessKeyID: env["AWS_ACCESS_KEY_ID"], SecretAccessKey: env["AWS_SECRET_ACCESS_KEY"]}
	err = v4.NewSigner().SignHTTP(context.Background(), keys, r, hex.EncodeToString(sum[:]), "lambda", env["AWS_REGION"], time.Now())
	c.header = r.Header
	return c, err
}

func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}, Timeout: 30 * time.Second}
}

// do calls once. An answer that is not what was sent is an error.
func (c call) do() error {
	r, err := http.NewRequest(http.MethodPost, c.url, bytes.NewReader(c.body))
	if err != nil {
		return err
	}
	if c.header != nil {
		r.Header = c.header
	}
	res, err := c.client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err == nil && (res.StatusCode != 200 || !bytes.Equal(got, c.body)) {
		err = fmt.Errorf("%d %.200s", res.StatusCode, got)
	}
	return err
}

// rate calls one after the other for a while.
func (c call) rate() (perSecond float64, err error) {
	n, begun := 0, time.Now()
	for ; time.Since(begun) < functionLoad; n++ {
		if err := c.do(); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(begun).Seconds(), nil
}

func (b *bench) warm(ours call) error {
	fig := measure.Figure{Name: "function, warm, one client", Unit: "calls/s", Asked: measure.AtLeast(1.1)}
	peer, end, err := b.emulator()
	if err != nil {
		return err
	}
	defer end()
	for round := range functionRounds {
		for turn := range 2 {
			which := &fig.Ours
			c := ours
			if (round+turn)%2 == 1 {
				if peer == nil {
					continue
				}
				which, c = &fig.Peer, *peer
			}
			v, err := c.rate()
			if err != nil {
				return err
			}
			*which = append(*which, v)
		}
	}
	b.report.Add(fig)
	return nil
}

// emulator starts AWS' emulator with the same function; nil when it is not installed.
func (b *bench) emulator() (*call, func(), error) {
	path, err := exec.LookPath("aws-lambda-rie")
	if err != nil {
		return nil, func() {}, nil
	}
	port := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "0"
		}
		defer l.Close()
		return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	}
	at := "127.0.0.1:" + port()
	cmd := exec.CommandContext(b.ctx, path, "--runtime-interface-emulator-address", at, "--runtime-api-address", "127.0.0.1:"+port(), b.self, "lambda")
	cmd.Env = append(os.Environ(), "LOG_LEVEL=error")
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	end := func() { cmd.Process.Kill(); cmd.Wait() }
	c := &call{url: "http://" + at + "/2015-03-31/functions/function/invocations", body: []byte(`{"n":1}`), client: newClient()}
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if err = c.do(); err == nil {
			return c, end, nil
		}
		if time.Since(begun) > 10*time.Second {
			end()
			return nil, nil, fmt.Errorf("aws-lambda-rie does not answer: %w", err)
		}
	}
}

// together calls by 64 clients at once.
func (b *bench) together(ours call) error {
	const clients = 64
	var wg sync.WaitGroup
	var done, failed atomic.Int64
	var first atomic.Value
	begun := time.Now()
	for range clients {
		wg.Go(func() {
			for time.Since(begun) < functionLoad {
				if err := ours.do(); err != nil {
					failed.Add(1)
					first.CompareAndSwap(nil, err.Error())
					continue
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	if failed.Load() > 0 {
		fmt.Fprintln(os.Stderr, "the first that failed:", first.Load())
	}
	b.count("function, 64 clients: failed calls", "", float64(failed.Load()), 0)
	return nil
}

// cold compares calls that start an environment with what a process needs to come to life by itself.
func (b *bench) cold(last call) error {
	if err := last.do(); err != nil { // all that follow are cold
		return err
	}
	var starts, bare []float64
	for range coldStarts {
		time.Sleep(300 * time.Millisecond) // it ends
		begun := time.Now()
		if err := last.do(); err != nil {
			return err
		}
		starts = append(starts, time.Since(begun).Seconds()*1000)
		d, err := b.bareStart()
		if err != nil {
			return err
		}
		bare = append(bare, d.Seconds()*1000)
	}
	used, err := b.house.api.Functions(b.ctx, control.Env{App: "fnbench", Env: "production"})
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(used, func(f control.Function) bool { return f.Name == "cold" }); i < 0 || used[i].Cold < coldStarts {
		return fmt.Errorf("of %d calls that were to be cold, not all were: %+v", coldStarts, used)
	}
	over := make([]float64, len(starts))
	for i := range starts {
		over[i] = starts[i] - bare[i]
	}
	b.report.Add(figure("function in Go, cold, over a bare process", "ms", []float64{measure.Median(over)}, 5))
	fmt.Printf("%-45s %.2f ms a call, %.2f ms a bare process until it asks for its event\n", "function in Go, cold", measure.Median(starts), measure.Median(bare))
	return nil
}

// bareStart is how long the function's program takes to ask for its first event.
func (b *bench) bareStart() (time.Duration, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	asked := make(chan time.Time, 1)
	server := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case asked <- time.Now():
		default:
		}
		<-r.Context().Done()
	})}
	go server.Serve(l)
	defer server.Close()
	cmd := exec.CommandContext(b.ctx, b.self, "lambda")
	cmd.Env = append(os.Environ(), "AWS_LAMBDA_RUNTIME_API="+l.Addr().String())
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	select {
	case at := <-asked:
		return at.Sub(begun), nil
	case <-time.After(10 * time.Second):
		return 0, errors.New("the function's program asks for no event")
	}
}
