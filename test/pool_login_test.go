//go:build scenario

package test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/rdsdata"
	"github.com/aws/aws-sdk-go-v2/service/rdsdata/types"
	"github.com/jackc/pgx/v5"
)

// Clients log in over TLS that they verify by what `db ca` prints, and with a token of `db token`, which is
// told to nobody else.
func TestPoolTLSAndTokens(t *testing.T) {
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "    uses: [db]\ndatabases: [db]\n")})
	h.up(dir)
	root := filepath.Join(t.TempDir(), "root.crt")
	if err := os.WriteFile(root, []byte(h.must(dir, "db", "ca")), 0o600); err != nil {
		t.Fatal(err)
	}
	if file := strings.TrimSpace(h.must(dir, "db", "ca", "--file")); file == "" {
		t.Error("no file")
	} else if b, err := os.ReadFile(file); err != nil || !strings.Contains(string(b), "BEGIN CERTIFICATE") {
		t.Error(file, err)
	}
	plain := strings.TrimSpace(h.must(dir, "db", "url"))
	ask := func(dsn string) error {
		c, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			return err
		}
		defer c.Close(t.Context())
		var n int
		return c.QueryRow(t.Context(), "select 1").Scan(&n)
	}
	secure := func(dsn, mode string) string {
		u, err := url.Parse(dsn)
		if err != nil {
			t.Fatal(err)
		}
		u.RawQuery = "sslmode=" + mode + "&sslrootcert=" + url.QueryEscape(root)
		return u.String()
	}
	for _, mode := range []string{"verify-ca", "verify-full", "verify-full&channel_binding=require", "verify-full&sslnegotiation=direct"} {
		if err := ask(secure(plain, mode)); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
	}
	localhost := strings.Replace(secure(plain, "verify-full"), "127.0.0.1", "localhost", 1)
	if err := ask(localhost); err != nil {
		t.Error(err)
	}
	with := strings.TrimSpace(h.must(dir, "db", "token", "--url"))
	with, _, _ = strings.Cut(with, "\n")
	if err := ask(secure(with, "verify-full")); err != nil {
		t.Error(err)
	}
	if err := ask(with); err != nil {
		t.Error(err)
	}
	u, err := url.Parse(with)
	if err != nil {
		t.Fatal(err)
	}
	token, _ := u.User.Password()
	if token = strings.Split(token, ".")[1]; len(token) < 20 {
		t.Fatal(with)
	}
	filepath.WalkDir(h.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), token) {
				t.Errorf("the token is in %s", path)
			}
		}
		return nil
	})
	h.must(dir, "db", "rotate")
	eventually(t, "the token to end with its password", 20*time.Second, func() bool { return ask(with) != nil })
}

// A service finds the Data API in its environment, and AWS' own client needs no more than that. A service
// that does not use the database has no key.
func TestDataAPIOfAService(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "    uses: [db]\ndatabases: {db: {api: true}}\n")})
	h.up(dir)
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", h.process("echo 1")))
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for kv := range strings.SplitSeq(string(raw), "\x00") {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	client := func(secret string) *rdsdata.Client {
		return rdsdata.New(rdsdata.Options{Region: env["AWS_REGION"], BaseEndpoint: aws.String(env["AWS_ENDPOINT_URL_RDS_DATA"]), RetryMaxAttempts: 1,
			Credentials: credentials.NewStaticCredentialsProvider(env["AWS_ACCESS_KEY_ID"], secret, "")})
	}
	ask := func(c *rdsdata.Client, sql string, params ...types.SqlParameter) (*rdsdata.ExecuteStatementOutput, error) {
		return c.ExecuteStatement(t.Context(), &rdsdata.ExecuteStatementInput{ResourceArn: aws.String(env["DB_ARN"]), SecretArn: aws.String(env["DB_SECRET_ARN"]), Sql: &sql, Parameters: params})
	}
	c := client(env["AWS_SECRET_ACCESS_KEY"])
	for _, sql := range []string{"create table t (n int, s text)", "insert into t values (1, ':a')"} {
		if _, err := ask(c, sql); err != nil {
			t.Fatal(err)
		}
	}
	out, err := ask(c, "select s from t where n = :n", types.SqlParameter{Name: aws.String("n"), Value: &types.FieldMemberLongValue{Value: 1}})
	if err != nil || len(out.Records) != 1 || out.Records[0][0].(*types.FieldMemberStringValue).Value != ":a" {
		t.Fatal(out, err)
	}
	if _, err := ask(client("another"), "select 1"); err == nil || !strings.Contains(err.Error(), "InvalidSignatureException") {
		t.Error(err)
	}
	// It outlives the server, as any client of the pool, and a new daemon has the same keys.
	for range 3 {
		h.kill("postgres -D")
		if _, err := ask(c, "select 1"); err != nil {
			t.Error(err)
		}
	}
	h.kill("house daemon")
	h.kill("house pool")
	eventually(t, "the API after the deaths of pool and daemon", 20*time.Second, func() bool { _, err := ask(c, "select 1"); return err == nil })
	// The pool answers before the daemon, which may still be starting.
	eventually(t, "the pool's statements in `db pool`", 20*time.Second, func() bool {
		out, _ := h.runIn(dir, "db", "pool")
		return strings.Contains(out, "select 1") || strings.Contains(out, "select ?")
	})
}

// A house that was started with a collector sends it what pools see, and `metrics` and `db pool` have it too.
func TestPoolTellsACollector(t *testing.T) {
	var mu sync.Mutex
	var got strings.Builder
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		got.WriteString(r.URL.Path)
		got.Write(b)
	}))
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	t.Setenv("OTEL_METRIC_EXPORT_INTERVAL", "500")
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "    uses: [db]\ndatabases: {db: {proxy: {limit: 7}}}\n")})
	h.up(dir)
	c, err := pgx.Connect(t.Context(), strings.TrimSpace(h.must(dir, "db", "url")))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	if _, err := c.Exec(t.Context(), "select pg_sleep(0.2) /*traceparent='00-0123456789abcdef0123456789abcdef-0123456789abcdef-01'*/"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a span and metrics", 20*time.Second, func() bool {
		mu.Lock()
		defer mu.Unlock()
		s := got.String()
		return strings.Contains(s, "\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23") && strings.Contains(s, "db.client.connection.wait_time")
	})
	if out := h.must(dir, "db", "pool"); !strings.Contains(out, "0123456789abcdef0123456789abcdef") {
		t.Error(out)
	}
	out := h.must(dir, "metrics")
	for _, want := range []string{"db_pool_statement_duration_seconds_bucket{", "db_client_connection_wait_time_seconds_sum{", "db_pool_statement_info{"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in metrics", want)
		}
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", h.process("echo 1")))
	if err != nil || !strings.Contains(string(env), "PGAPPNAME=") {
		t.Error("no PGAPPNAME", err)
	}
}

// A function holds no connection: AWS' own client finds the Data API in its environment.
func TestDataAPIOfAFunction(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), map[string]string{
		"tenfold.yaml": "app: datafn\nfunctions:\n  count: {path: ., build: go build -mod=mod -o bin/app ., routes: [/*], uses: [db]}\ndatabases: {db: {api: true}}\n",
		"main.go": `package main

import (
	"context"
	"os"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/rdsdata"
)

func handle(ctx context.Context, r events.APIGatewayV2HTTPRequest) (events.APIGatewayV2HTTPResponse, error) {
	c := rdsdata.New(rdsdata.Options{Region: os.Getenv("AWS_REGION"), BaseEndpoint: aws.String(os.Getenv("AWS_ENDPOINT_URL_RDS_DATA")),
		Credentials: credentials.NewStaticCredentialsProvider(os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), os.Getenv("AWS_SESSION_TOKEN"))})
	out, err := c.ExecuteStatement(ctx, &rdsdata.ExecuteStatementInput{ResourceArn: aws.String(os.Getenv("DB_ARN")), SecretArn: aws.String(os.Getenv("DB_SECRET_ARN")),
		Sql: aws.String("select 41 + 1 as n"), FormatRecordsAs: "JSON"})
	if err != nil {
		return events.APIGatewayV2HTTPResponse{StatusCode: 500, Body: err.Error()}, nil
	}
	return events.APIGatewayV2HTTPResponse{StatusCode: 200, Body: *out.FormattedRecords}, nil
}

func main() { lambda.Start(handle) }
`,
	})
	// The versions are those of this module, so that nothing has to be fetched.
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	sum, err := os.ReadFile("../go.sum")
	if err != nil {
		t.Fatal(err)
	}
	var need strings.Builder
	for line := range strings.Lines(string(mod)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[0], "github.com/aws/") {
			need.WriteString("\t" + f[0] + " " + f[1] + "\n")
		}
	}
	write(t, dir, map[string]string{"go.mod": "module count\n\ngo 1.26\n\nrequire (\n" + need.String() + ")\n", "go.sum": string(sum)})
	h.up(dir)
	eventually(t, "the function's answer", 30*time.Second, func() bool {
		r, err := http.NewRequest("GET", "http://"+h.addr+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "datafn.localhost"
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return false
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		if string(b) != `[{"n":42}]` {
			t.Logf("%d %s", res.StatusCode, b)
		}
		return string(b) == `[{"n":42}]`
	})
}
