package sigv4_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"tenfold/internal/sigv4"
)

var (
	now   = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	alice = aws.Credentials{AccessKeyID: "TFALICE", SecretAccessKey: "her secret"}
)

func hashOf(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])
}

// seen sends r as its bytes and gives what a server reads.
func seen(t testing.TB, r *http.Request) *http.Request {
	t.Helper()
	var got *http.Request
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		got = r.Clone(context.Background())
	}))
	defer s.Close()
	host := r.Host
	r.URL.Host, r.URL.Scheme = s.Listener.Addr().String(), "http"
	r.Host = host
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return got
}

func verifier(at time.Time) *sigv4.Verifier {
	return &sigv4.Verifier{Now: func() time.Time { return at }, Keys: func(k string) (string, bool) {
		return alice.SecretAccessKey, k == alice.AccessKeyID
	}}
}

func code(err error) string {
	var e *sigv4.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestWhatTheSDKSignsIsBelieved(t *testing.T) {
	for _, target := range []string{
		"/", "/2015-03-31/functions/notify/invocations", "/a%20b/c%2Fd/~e", "/x?b=2&a=1&a=0&empty&sp=a+b%20c&a-b=3&u=%C3%BC%2F", "/arn%3Aaws%3Alambda/y?Qualifier=%24LATEST",
	} {
		for _, body := range []string{"", `{"a":1}`, strings.Repeat("x", 70000)} {
			r, err := http.NewRequest(http.MethodPost, "http://lambda.eu-west-1.localhost:4566"+target, bytes.NewReader([]byte(body)))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("X-Amz-Target", "  spaced   out ")
			r.Header.Add("X-Amz-Meta", "one")
			r.Header.Add("X-Amz-Meta", "two")
			if err := v4.NewSigner().SignHTTP(context.Background(), alice, r, hashOf(body), "lambda", "eu-west-1", now); err != nil {
				t.Fatal(err)
			}
			got := seen(t, r)
			v := verifier(now)
			scope, err := v.Verify(got, hashOf(body))
			if err != nil || scope != (sigv4.Scope{AccessKey: "TFALICE", Day: "20261126", Region: "eu-west-1", Service: "lambda"}) {
				t.Fatalf("%s with %d bytes: %+v, %v", target, len(body), scope, err)
			}
			if _, err := v.Verify(got, hashOf(body+"!")); code(err) != sigv4.CodeInvalid {
				t.Errorf("%s: another body is %v", target, err)
			}
			for name, change := range map[string]func(*http.Request){
				"method": func(r *http.Request) { r.Method = "PUT" },
				"path":   func(r *http.Request) { r.RequestURI = "/other" },
				"query":  func(r *http.Request) { r.URL.RawQuery += "&more=1" },
				"host":   func(r *http.Request) { r.Host = "elsewhere" },
				"field":  func(r *http.Request) { r.Header.Set("X-Amz-Target", "another") },
			} {
				c := got.Clone(context.Background())
				c.RequestURI = got.RequestURI
				change(c)
				if _, err := v.Verify(c, hashOf(body)); code(err) != sigv4.CodeInvalid {
					t.Errorf("%s: another %s is %v", target, name, err)
				}
			}
		}
	}
}

func TestPresignedURLs(t *testing.T) {
	r, _ := http.NewRequest(http.MethodGet, "http://a.localhost/file?X-Amz-Expires=60&v=1", nil)
	uri, _, err := v4.NewSigner().PresignHTTP(context.Background(), alice, r, sigv4.Unsigned, "s3", "eu-west-1", now)
	if err != nil {
		t.Fatal(err)
	}
	r, _ = http.NewRequest(http.MethodGet, uri, nil)
	got := seen(t, r)
	if _, err := verifier(now.Add(59*time.Second)).Verify(got, ""); err != nil {
		t.Error(err)
	}
	if _, err := verifier(now.Add(61*time.Second)).Verify(got, ""); code(err) != sigv4.CodeInvalid {
		t.Errorf("expired: %v", err)
	}
}

// Other services than S3 sign the body too, and need not say for how long.
func TestSignedQuery(t *testing.T) {
	r, _ := http.NewRequest(http.MethodPost, "http://a.localhost/", nil)
	uri, _, err := v4.NewSigner().PresignHTTP(context.Background(), alice, r, hashOf("{}"), "dynamodb", "eu-west-1", now)
	if err != nil {
		t.Fatal(err)
	}
	r, _ = http.NewRequest(http.MethodPost, uri, nil)
	got := seen(t, r)
	if _, err := verifier(now.Add(14*time.Minute)).Verify(got, hashOf("{}")); err != nil {
		t.Error(err)
	}
	if _, err := verifier(now.Add(16*time.Minute)).Verify(got, hashOf("{}")); code(err) != sigv4.CodeInvalid {
		t.Errorf("late: %v", err)
	}
	if _, err := verifier(now).Verify(got, hashOf("{ }")); code(err) != sigv4.CodeInvalid {
		t.Errorf("another body: %v", err)
	}
}

func TestWhoIsNotBelieved(t *testing.T) {
	sign := func(c aws.Credentials) *http.Request {
		r, _ := http.NewRequest(http.MethodGet, "http://a.localhost/", nil)
		v4.NewSigner().SignHTTP(context.Background(), c, r, hashOf(""), "sqs", "eu-west-1", now)
		return seen(t, r)
	}
	stranger, liar := alice, alice
	stranger.AccessKeyID, liar.SecretAccessKey = "TFBOB", "guessed"
	for name, c := range map[string]struct {
		r    *http.Request
		at   time.Time
		want string
	}{
		"nobody":   {httptest.NewRequest("GET", "/", nil), now, sigv4.CodeMissing},
		"stranger": {sign(stranger), now, sigv4.CodeUnknown},
		"liar":     {sign(liar), now, sigv4.CodeInvalid},
		"late":     {sign(alice), now.Add(16 * time.Minute), sigv4.CodeInvalid},
		"early":    {sign(alice), now.Add(-16 * time.Minute), sigv4.CodeInvalid},
	} {
		if _, err := verifier(c.at).Verify(c.r, hashOf("")); code(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

func TestWords(t *testing.T) {
	const header, missing = "Authorization header requires ", "Request is missing Authentication Token"
	for _, c := range []struct{ auth, query, date, want string }{
		{"", "", "", missing},
		{"Basic YTpi", "", "", missing},
		{"", "X-Amz-Credential=a&X-Amz-Signature=b&X-Amz-SignedHeaders=c&X-Amz-Date=d", "", missing},
		{"AWS4-HMAC-SHA256 x", "X-Amz-Algorithm", "", "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header."},
		{"AWS4-", "", "", header + "'Credential' parameter. " + header + "'Signature' parameter. " + header + "'SignedHeaders' parameter. " + header + "existence of either a 'X-Amz-Date' or a 'Date' header. Authorization=AWS4-"},
		{"AWS4- Signature=b, Credential=a", "", "a", header + "'SignedHeaders' parameter. Authorization=AWS4- Signature=b, Credential=a"},
		{"AWS4-HMAC-SHA1 Signature=b,Credential=a,SignedHeaders=c", "", "a", "Unsupported AWS 'algorithm': 'AWS4-HMAC-SHA1' (only AWS4-HMAC-SHA256 for now). "},
		{"", "X-Amz-Algorithm=a&X-Amz-Credential=b&X-Amz-Signature=c&X-Amz-Date=d", "", "AWS query-string parameters must include 'X-Amz-SignedHeaders'. Re-examine the query-string parameters."},
	} {
		r := httptest.NewRequest("POST", "/?"+c.query, nil)
		r.Header.Set("Authorization", c.auth)
		r.Header.Set("X-Amz-Date", c.date)
		var e *sigv4.Error
		if _, err := verifier(now).Verify(r, hashOf("")); !errors.As(err, &e) || e.Message != c.want {
			t.Errorf("%q %q: %v", c.auth, c.query, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=TFALICE/20261126/eu-west-1/sqs/aws4_request, SignedHeaders=host;x-amz-date, Signature=00", "a=%zz&b", "20261126T120000Z")
	f.Add("", "X-Amz-Signature=1&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a/b/c/d/aws4_request&X-Amz-Expires=1&X-Amz-SignedHeaders=host", "")
	f.Fuzz(func(t *testing.T, auth, query, date string) {
		r := httptest.NewRequest("POST", "/", nil)
		r.URL.RawQuery = query
		r.Header.Set("Authorization", auth)
		r.Header.Set("X-Amz-Date", date)
		if _, err := verifier(now).Verify(r, hashOf("")); err == nil {
			t.Error("believed")
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	body := strings.Repeat("x", 300)
	r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:8000/", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-amz-json-1.0")
	r.Header.Set("X-Amz-Target", "DynamoDB_20120810.PutItem")
	if err := v4.NewSigner().SignHTTP(b.Context(), alice, r, hashOf(body), "dynamodb", "us-east-1", now); err != nil {
		b.Fatal(err)
	}
	v, hash := verifier(now), hashOf(body)
	r = seen(b, r)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(r, hash); err != nil {
			b.Fatal(err)
		}
	}
}
