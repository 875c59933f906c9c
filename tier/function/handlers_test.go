package function

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"

	"tenfold/internal/keeper/keepertest"
)

// The functions of the tests are this binary in another mode, by AWS' own library.
func TestMain(m *testing.M) {
	keepertest.Main(m, map[string]func(){
		"echo":  func() { lambda.Start(echo) },
		"http":  func() { lambda.Start(respond) },
		"flow":  func() { lambda.Start(flow) },
		"dying": func() { fmt.Println("no database"); os.Exit(3) },
	})
}

type order struct {
	Do   string `json:"do"`
	N    int    `json:"n"`
	Text string `json:"text,omitempty"`
}

func echo(ctx context.Context, e json.RawMessage) (any, error) {
	var o order
	json.Unmarshal(e, &o)
	lc, _ := lambdacontext.FromContext(ctx)
	switch o.Do {
	case "fail":
		return nil, errors.New("out of stock")
	case "panic":
		panic("at the disco")
	case "exit":
		os.Exit(o.N)
	case "sleep":
		<-time.After(time.Duration(o.N) * time.Millisecond)
	case "big":
		return strings.Repeat("x", o.N), nil
	case "print":
		fmt.Println("said", o.Text)
	case "who":
		return map[string]any{"pid": os.Getpid(), "arn": lc.InvokedFunctionArn, "name": lambdacontext.FunctionName, "memory": lambdacontext.MemoryLimitInMB, "env": os.Getenv("GREETING"), "id": lc.AwsRequestID}, nil
	}
	return e, nil
}

func respond(_ context.Context, r events.APIGatewayV2HTTPRequest) (events.APIGatewayV2HTTPResponse, error) {
	b, _ := json.Marshal(r)
	return events.APIGatewayV2HTTPResponse{StatusCode: 201, Headers: map[string]string{"X-Key": r.RouteKey, "Content-Type": "application/json"}, Cookies: []string{"a=1", "b=2"}, Body: string(b)}, nil
}

func flow(_ context.Context, r events.LambdaFunctionURLRequest) (*events.LambdaFunctionURLStreamingResponse, error) {
	return &events.LambdaFunctionURLStreamingResponse{StatusCode: 203, Headers: map[string]string{"X-Of": r.RawPath, "Content-Type": "text/plain"}, Body: strings.NewReader(strings.Repeat("stream ", 20000))}, nil
}
