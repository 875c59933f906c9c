package table_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"tenfold/internal/awsapi"
	"tenfold/tier/table"
)

// BenchmarkRequests is what a signed request costs behind the HTTP server.
func BenchmarkRequests(b *testing.B) {
	s, stop := open(b, b.TempDir(), table.Config{})
	defer stop()
	f := front(s)
	ask := func(b *testing.B, operation, body string) {
		r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-amz-json-1.0")
		r.Header.Set("X-Amz-Target", "DynamoDB_20120810."+operation)
		sum := sha256.Sum256([]byte(body))
		if err := v4.NewSigner().SignHTTP(context.Background(), aws.Credentials{AccessKeyID: "ALL", SecretAccessKey: "secret"}, r, hex.EncodeToString(sum[:]), "dynamodb", "us-east-1", time.Now()); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for range b.N {
			r.Body = io.NopCloser(strings.NewReader(body))
			w := httptest.ResponseRecorder{Body: &bytes.Buffer{}}
			f.ServeHTTP(&w, r)
			if w.Code != http.StatusOK {
				b.Fatal(w.Code, w.Body)
			}
		}
	}
	serve := func(operation, body string) {
		if _, err := s.Serve(b.Context(), &awsapi.Request{Operation: operation, Body: []byte(body), Caller: keys["ALL"].Caller}); err != nil {
			b.Fatal(err)
		}
	}
	serve("CreateTable", `{"TableName":"one","BillingMode":"PAY_PER_REQUEST","AttributeDefinitions":[{"AttributeName":"id","AttributeType":"S"},{"AttributeName":"n","AttributeType":"N"}],"KeySchema":[{"AttributeName":"id","KeyType":"HASH"},{"AttributeName":"n","KeyType":"RANGE"}]}`)
	x := func(n int) string {
		return fmt.Sprintf(`{"id":{"S":"user-1"},"n":{"N":"%d"},"name":{"S":"%s"},"mail":{"S":"user-1@example.com"},"age":{"N":"7"},"tags":{"SS":["a","b","c"]}}`, n, strings.Repeat("x", 120))
	}
	for n := range 20 {
		serve("PutItem", `{"TableName":"one","Item":`+x(n)+`}`)
	}
	b.Run("GetItem", func(b *testing.B) { ask(b, "GetItem", `{"TableName":"one","Key":{"id":{"S":"user-1"},"n":{"N":"7"}}}`) })
	b.Run("Query", func(b *testing.B) {
		ask(b, "Query", `{"TableName":"one","KeyConditionExpression":"id = :i AND n >= :n","ExpressionAttributeValues":{":i":{"S":"user-1"},":n":{"N":"3"}},"Limit":10}`)
	})
	b.Run("PutItem", func(b *testing.B) { ask(b, "PutItem", `{"TableName":"one","Item":`+x(3)+`}`) })
	b.Run("UpdateItem", func(b *testing.B) {
		ask(b, "UpdateItem", `{"TableName":"one","Key":{"id":{"S":"user-1"},"n":{"N":"7"}},"UpdateExpression":"SET age = :a, mail = :m ADD visits :one","ExpressionAttributeValues":{":a":{"N":"5"},":m":{"S":"new@example.com"},":one":{"N":"1"}}}`)
	})
}
