package awsapi_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"hash/crc32"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"tenfold/internal/awsapi"
)

type serve func(*awsapi.Request) ([]byte, error)

func (s serve) Serve(_ context.Context, q *awsapi.Request) ([]byte, error) { return s(q) }

func front(t *testing.T, s serve) *httptest.Server {
	t.Helper()
	key := awsapi.Key{Access: "AK", Secret: "secret", Caller: awsapi.Caller{Account: "123456789012", Of: "service api", Line: 7, Uses: map[string][]string{"dynamodb": {"sessions"}}}}
	f := awsapi.NewFront(func(access string) (awsapi.Key, bool) { return key, access == key.Access }, map[string]awsapi.Served{
		"dynamodb": {Service: s, Namespace: "com.amazonaws.dynamodb.v20120810#", Sum: true, Targets: []string{"DynamoDB_20120810"}, Operations: func(name string) bool { return name != "No" }, Body: true},
		"sqs":      {Service: s, Namespace: "com.amazonaws.sqs#", XMLNS: "http://queue.amazonaws.com/doc/2012-11-05/", Limit: 100},
	}, slog.New(slog.DiscardHandler))
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	return srv
}

// ask signs a request and returns its answer, unpacked.
func ask(t *testing.T, srv *httptest.Server, service, kind, target, body, encoding string) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, srv.URL+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", kind)
	if target != "" {
		r.Header.Set("X-Amz-Target", target)
	}
	if encoding != "" {
		r.Header.Set("Content-Encoding", encoding)
	}
	r.Header.Set("Accept-Encoding", "gzip")
	sum := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: "AK", SecretAccessKey: "secret"}, r, hex.EncodeToString(sum[:]), service, "us-east-1", time.Now()); err != nil {
		t.Fatal(err)
	}
	return do(t, r)
}

func do(t *testing.T, r *http.Request) (*http.Response, []byte) {
	t.Helper()
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if s := res.Header.Get("X-Amz-Crc32"); s != "" && s != strconv.FormatUint(uint64(crc32.ChecksumIEEE(b)), 10) {
		t.Errorf("X-Amz-Crc32 %s is not that of what came", s)
	}
	if res.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if b, err = io.ReadAll(z); err != nil {
			t.Fatal(err)
		}
	}
	return res, b
}

func TestJSON(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	srv := front(t, func(q *awsapi.Request) ([]byte, error) {
		if q.Caller.Account != "123456789012" || q.Caller.Region != "us-east-1" || q.Form != nil {
			return nil, errors.New("another caller")
		}
		switch q.Operation {
		case "Echo":
			return q.Body, nil
		case "Long":
			return []byte(`"` + long + `"`), nil
		case "Fault":
			return nil, &awsapi.Fault{Code: "TransactionCanceledException", Message: "no", Fields: map[string]any{"CancellationReasons": []string{"a"}}}
		case "Bug":
			panic("an index out of range")
		case "Denied":
			return nil, awsapi.Denied(q.Caller, "dynamodb:PutItem", "arn:aws:dynamodb:us-east-1:123456789012:table/t", "t")
		}
		return nil, errors.New("disk on fire")
	})
	const kind = "application/x-amz-json-1.0"
	if res, b := ask(t, srv, "dynamodb", kind, "DynamoDB_20120810.Echo", `{"a":1}`, ""); string(b) != `{"a":1}` || res.Header.Get("Content-Type") != kind || res.Header.Get("X-Amz-Crc32") == "" || res.Header.Get("X-Amzn-Requestid") == "" {
		t.Error(res.Header, string(b))
	}
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write([]byte(`{"packed":true}`))
	w.Close()
	if _, b := ask(t, srv, "dynamodb", kind, "DynamoDB_20120810.Echo", z.String(), "gzip"); string(b) != `{"packed":true}` {
		t.Error(string(b))
	}
	if _, b := ask(t, srv, "dynamodb", kind, "DynamoDB_20120810.Echo", "not packed", "gzip"); !strings.Contains(string(b), "SerializationException") {
		t.Error(string(b))
	}
	if res, b := ask(t, srv, "dynamodb", kind, "DynamoDB_20120810.Long", "{}", ""); string(b) != `"`+long+`"` || res.Header.Get("Content-Encoding") != "gzip" {
		t.Error(res.Header, len(b))
	}
	for op, want := range map[string]string{"Fault": "400 com.amazonaws.dynamodb.v20120810#TransactionCanceledException no", "Bug": "500 com.amazonaws.dynamodb.v20120810#InternalServerError", "Other": "500 com.amazonaws.dynamodb.v20120810#InternalServerError",
		"Denied": "400 com.amazon.coral.service#AccessDeniedException User: service api is not authorized to perform: dynamodb:PutItem on resource: arn:aws:dynamodb:us-east-1:123456789012:table/t because it does not use it: add `uses: [t]` to service api (tenfold.yaml:7)"} {
		res, b := ask(t, srv, "dynamodb", kind, "DynamoDB_20120810."+op, "{}", "")
		var e struct {
			Type    string `json:"__type"`
			Message string
			Reasons []string `json:"CancellationReasons"`
		}
		if err := json.Unmarshal(b, &e); err != nil {
			t.Fatal(err)
		}
		if got := strconv.Itoa(res.StatusCode) + " " + e.Type + " " + e.Message; !strings.HasPrefix(got, want) || op == "Fault" && len(e.Reasons) != 1 {
			t.Errorf("%s: %s", op, got)
		}
	}
	if _, b := ask(t, srv, "dynamodb", kind, "", "{}", ""); !strings.Contains(string(b), "UnknownOperationException") {
		t.Error(string(b))
	}
	if _, b := ask(t, srv, "kinesis", kind, "A.B", "{}", ""); !strings.Contains(string(b), "this address serves dynamodb, sqs, not kinesis") {
		t.Error(string(b))
	}
	r, _ := http.NewRequest(http.MethodPost, srv.URL, strings.NewReader("{}"))
	r.Header.Set("X-Amz-Target", "DynamoDB_20120810.Echo")
	if res, b := do(t, r); res.StatusCode != 400 || !strings.Contains(string(b), "MissingAuthenticationTokenException") {
		t.Error(res.StatusCode, string(b))
	}
}

// What AWS' front refuses, and how: clients compare the whole of it.
func TestRefusals(t *testing.T) {
	srv := front(t, func(q *awsapi.Request) ([]byte, error) {
		if len(q.Body) == 0 {
			return nil, &awsapi.Fault{Code: "SerializationException"}
		}
		return nil, &awsapi.Fault{Code: q.Operation, Message: "no"}
	})
	const kind = "application/x-amz-json-1.0"
	for target, want := range map[string]string{
		"ValidationException":       `{"__type":"com.amazon.coral.validate#ValidationException","message":"no"}`,
		"SerializationException":    `{"Message":"no","__type":"com.amazon.coral.service#SerializationException"}`,
		"ResourceNotFoundException": `{"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException","message":"no"}`,
		"a.b#ThrottlingException":   `{"__type":"a.b#ThrottlingException","message":"no"}`,
		"No":                        `{"__type":"com.amazon.coral.service#UnknownOperationException"}`,
	} {
		if _, b := ask(t, srv, "dynamodb", kind, "DynamoDB_20120810."+target, "{}", ""); string(b) != want {
			t.Errorf("%s: %s", target, b)
		}
	}
	if _, b := ask(t, srv, "dynamodb", kind, "DynamoDB_20120810.Empty", "", ""); string(b) != `{"__type":"com.amazon.coral.service#SerializationException"}` {
		t.Errorf("no body: %s", b)
	}
	for _, c := range []struct {
		method, kind, target, body, want string
		status                           int
	}{
		{"PUT", "", "", "", "<UnknownOperationException/>\n", 404},
		{"POST", "text/plain", "", "hi", "<UnknownOperationException/>\n", 404},
		{"POST", kind, "", "hi", `{"__type":"com.amazon.coral.service#SerializationException"}`, 400},
		{"POST", kind, "", "{}", `{"__type":"com.amazon.coral.service#UnknownOperationException"}`, 400},
		{"POST", kind, "DynamoDB_20120810.No", "{}", `{"__type":"com.amazon.coral.service#UnknownOperationException"}`, 400},
		{"POST", kind, "DynamoDB_20120810.Yes", "hi", `{"__type":"com.amazon.coral.service#SerializationException"}`, 400},
		{"POST", kind, "DynamoDB_20120810.Yes", "{}", `{"__type":"com.amazon.coral.service#MissingAuthenticationTokenException","message":"Request is missing Authentication Token"}`, 400},
	} {
		r, _ := http.NewRequest(c.method, srv.URL, strings.NewReader(c.body))
		r.Header.Set("Content-Type", c.kind)
		r.Header.Set("X-Amz-Target", c.target)
		res, b := do(t, r)
		if res.StatusCode != c.status || string(b) != c.want || res.Header.Get("X-Amz-Crc32") == "" || len(res.Header.Get("X-Amzn-Requestid")) != 52 {
			t.Errorf("%v: %d %s %v", c, res.StatusCode, b, res.Header)
		}
	}
	r, _ := http.NewRequest(http.MethodOptions, srv.URL, nil)
	r.Header.Set("Origin", "https://example.com")
	r.Header.Set("Access-Control-Request-Headers", "a, b")
	if res, _ := do(t, r); res.StatusCode != 200 || res.Header.Get("Access-Control-Allow-Origin") != "*" || res.Header.Get("Access-Control-Allow-Headers") != "a, b" {
		t.Errorf("a browser's question: %d %v", res.StatusCode, res.Header)
	}
}

func TestQuery(t *testing.T) {
	srv := front(t, func(q *awsapi.Request) ([]byte, error) {
		if q.Body != nil {
			return nil, &awsapi.Fault{Code: "QueueDoesNotExist", Query: "AWS.SimpleQueueService.NonExistentQueue", Message: "gone <away>"}
		}
		if q.Operation == "Lost" {
			return nil, &awsapi.Fault{Code: "QueueDoesNotExist", Query: "AWS.SimpleQueueService.NonExistentQueue", Message: "gone <away>"}
		}
		return []byte("<R>" + q.Form.Get("QueueName") + "</R>"), nil
	})
	const kind = "application/x-www-form-urlencoded; charset=utf-8"
	if res, b := ask(t, srv, "sqs", kind, "", "Action=Get&QueueName=a%20b", ""); string(b) != "<R>a b</R>" || res.Header.Get("Content-Type") != "text/xml" || res.Header.Get("X-Amz-Crc32") != "" {
		t.Error(res.Header, string(b))
	}
	res, b := ask(t, srv, "sqs", kind, "", "Action=Lost", "")
	var e struct {
		Code    string `xml:"Error>Code"`
		Type    string `xml:"Error>Type"`
		Message string `xml:"Error>Message"`
		ID      string `xml:"RequestId"`
	}
	if err := xml.Unmarshal(b, &e); err != nil || e.Code != "AWS.SimpleQueueService.NonExistentQueue" || e.Type != "Sender" || e.Message != "gone <away>" || e.ID != res.Header.Get("X-Amzn-Requestid") {
		t.Error(err, string(b))
	}
	if res, b := ask(t, srv, "sqs", "application/x-amz-json-1.0", "AmazonSQS.Get", "{}", ""); res.Header.Get("X-Amzn-Query-Error") != "AWS.SimpleQueueService.NonExistentQueue;Sender" || !strings.Contains(string(b), `"com.amazonaws.sqs#QueueDoesNotExist"`) {
		t.Error(res.Header, string(b))
	}
	if res, b := ask(t, srv, "sqs", kind, "", "Action=Get&QueueName="+strings.Repeat("x", 200), ""); res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Error(res.StatusCode, string(b))
	}
	if _, b := ask(t, srv, "dynamodb", kind, "", "Action=Get", ""); !strings.Contains(string(b), "UnknownOperationException") {
		t.Error(string(b))
	}
	for _, body := range []string{"", "Action="} {
		if _, b := ask(t, srv, "sqs", kind, "", body, ""); !strings.Contains(string(b), "MissingAction") {
			t.Error(string(b))
		}
	}
}

// What nobody signed ends in a refusal, whatever it is.
func FuzzFront(f *testing.F) {
	f.Add("POST", "/?Action=X", "application/x-amz-json-1.0", "A.B", "gzip", []byte("{}"))
	f.Add("GET", "/?X-Amz-Signature=a&X-Amz-Credential=a/b/c/d/aws4_request", "application/x-www-form-urlencoded", "", "", []byte("Action=%zz"))
	fr := awsapi.NewFront(func(string) (awsapi.Key, bool) { return awsapi.Key{Secret: "s"}, true }, map[string]awsapi.Served{
		"sqs": {Service: serve(func(*awsapi.Request) ([]byte, error) { panic("served") }), XMLNS: "x"}}, slog.New(slog.DiscardHandler))
	f.Fuzz(func(t *testing.T, method, path, kind, target, encoding string, body []byte) {
		r, err := http.NewRequest(method, "http://127.0.0.1/", bytes.NewReader(body))
		if err != nil {
			return
		}
		r.URL.RawQuery = strings.TrimPrefix(path, "/?")
		r.Header.Set("Content-Type", kind)
		r.Header.Set("X-Amz-Target", target)
		r.Header.Set("Content-Encoding", encoding)
		w := httptest.NewRecorder()
		fr.ServeHTTP(w, r)
		if w.Code < 400 && method != http.MethodOptions && !strings.HasPrefix(w.Body.String(), "healthy") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}
