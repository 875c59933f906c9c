// Package awsapi is what the services behind AWS' protocols have in common: who asks, how a request is read
// and how an answer or a refusal is written, in AWS JSON 1.0 and 1.1 and in the older query protocol.
//
// A service implements Service and knows nothing of HTTP; Front is the http.Handler before all of them.
// Begin at Front. Sources: Smithy's "AWS JSON 1.0 protocol" and "AWS Query protocol", and what aws-sdk-go-v2,
// botocore and the JavaScript SDK send and check.
package awsapi

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
)

// Region is what everything of a house is said to be in.
const Region = "us-east-1"

// Owner is what Of says of the owner of an environment.
const Owner = "owner"

// Every is what Uses names for "all of this service".
const Every = "*"

// Key is what an access key is good for. Only Front sees the secret.
type Key struct {
	Access, Secret string
	Caller
}

// Caller is who signed a request.
type Caller struct {
	// Account is the 12 digits of an app's environment, and Region what the request was signed for.
	Account, Region string
	// Of names the resource that holds the key, "service api", and Line where it stands in tenfold.yaml, or 0.
	Of   string
	Line int
	// Uses names, by the name that a service signs with ("dynamodb", "sqs"), the resources that the key's
	// holder may use.
	Uses map[string][]string
}

// May says whether the caller's `uses` names a resource of a service.
func (c *Caller) May(service, name string) bool {
	return slices.Contains(c.Uses[service], name) || slices.Contains(c.Uses[service], Every)
}

// Request is one request whose signature was verified.
type Request struct {
	Caller    Caller
	ID        string // of the request, as the client is told
	Operation string // "PutItem": from X-Amz-Target or the form's Action
	// Body is the JSON; nil in the query protocol, in which Form is set.
	Body []byte
	Form url.Values
	HTTP *http.Request
}

// Service answers requests of one of AWS' services. It is called from many goroutines at once.
type Service interface {
	// Serve returns the body of the answer: JSON, or the XML of the query protocol when q.Form is set. An
	// error that is no *Fault is logged and answered as InternalServerError. The context ends with the
	// client's connection.
	Serve(ctx context.Context, q *Request) (body []byte, err error)
}

// Fault is an error as AWS' protocols tell it.
type Fault struct {
	Status  int    // of HTTP; 0: 400
	Code    string // "ResourceNotFoundException", without a namespace
	Message string
	// Query is the code of the query protocol, where it differs: "AWS.SimpleQueueService.NonExistentQueue".
	Query string
	// Fields are further members of the error's JSON, for example CancellationReasons.
	Fields map[string]any
}

func (f *Fault) Error() string { return f.Code + ": " + f.Message }

// Denied is the refusal of a caller whose `uses` does not name what it asked for; need is what is missing
// there. The message begins in AWS' words and ends with the line of the manifest to change.
func Denied(c Caller, operation, arn, need string) *Fault {
	at := ""
	if c.Line > 0 {
		at = fmt.Sprintf(" (tenfold.yaml:%d)", c.Line)
	}
	return &Fault{Status: http.StatusBadRequest, Code: "AccessDeniedException", Query: "AccessDenied",
		Message: fmt.Sprintf("User: %s is not authorized to perform: %s on resource: %s because it does not use it: add `uses: [%s]` to %s%s", c.Of, operation, arn, need, c.Of, at)}
}
