//go:build scenario

package test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// follower says what became of items; one that is bad it cannot do.
const follower = `def handler(event, context):
    for r in event["Records"]:
        assert r["eventSource"] == "aws:dynamodb" and "/stream/" in r["eventSourceARN"]
        item = r["dynamodb"]["NewImage"]
        if item["at"]["N"] == "13":
            raise ValueError("unlucky")
    for r in event["Records"]:
        item = r["dynamodb"]["NewImage"]
        print("saw", item["user"]["S"], item["at"]["N"], flush=True)
`

// graveyard says what was given up on.
const graveyard = `def handler(event, context):
    b = event["DDBStreamBatchInfo"]
    print("buried", b["batchSize"], event["requestContext"]["condition"], flush=True)
`

// The changes of a table reach a function, those of each item in order, whoever of the house dies meanwhile; one that
// cannot be done is found by halving, and it alone is given up on.
func TestAFunctionOfATable(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	write(t, dir, map[string]string{
		"functions/follow/handler.py": follower, "functions/bury/handler.py": graveyard,
		"tenfold.yaml": manifest("1", "    uses: [sessions]\n") + `tables: {sessions: {key: user, stream: new-image}}
functions:
  follow: {handler: handler.handler, runtime: python, dead: bury, from: {sessions: {batch: 8, parallel: 4, bisect: true, retries: 1}}}
  bury: {handler: handler.handler, runtime: python}
`,
	})
	h.up(dir)
	env := h.environ("echo 1")
	c := dynamodb.New(dynamodb.Options{Region: env["AWS_REGION"], BaseEndpoint: aws.String(env["AWS_ENDPOINT_URL_DYNAMODB"]),
		Credentials: credentials.NewStaticCredentialsProvider(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], "")})
	put := func(user string, at int) {
		eventually(t, "an item written", 20*time.Second, func() bool {
			_, err := c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("sessions"), Item: map[string]types.AttributeValue{
				"user": &types.AttributeValueMemberS{Value: user}, "at": &types.AttributeValueMemberN{Value: fmt.Sprint(at)}}})
			return err == nil
		})
	}
	const n = 25
	killed := map[int]func(){
		5:  func() { h.kill("house daemon"); h.must(dir, "up", "--detach") },
		10: func() { syscall.Kill(processOf(t, h, " invoke "), syscall.SIGKILL) },
		20: func() { h.kill("house data") },
	}
	for i := range n {
		for u := range 4 {
			if i != 13 || u == 2 {
				put(fmt.Sprint("u", u), i)
			}
		}
		if kill := killed[i]; kill != nil {
			kill()
		}
	}
	var said string
	eventually(t, "every change", 90*time.Second, func() bool {
		said = h.must(dir, "fn", "logs", "follow", "--tail", "5000")
		for u := range 4 {
			for i := range n {
				if i != 13 && !strings.Contains(said, fmt.Sprintf("saw u%d %d\n", u, i)) {
					return false
				}
			}
		}
		return true
	})
	for u := range 4 {
		last := -1
		for i := range n {
			if i == 13 {
				continue
			}
			at := strings.Index(said, fmt.Sprintf("saw u%d %d\n", u, i))
			if at < last {
				t.Errorf("item u%d: %d came before what was before it:\n%s", u, i, said)
			}
			last = at
		}
	}
	if strings.Contains(said, "saw u2 13\n") {
		t.Error("what cannot be done is done")
	}
	eventually(t, "what was given up on", 30*time.Second, func() bool {
		return strings.Contains(h.must(dir, "fn", "logs", "bury"), "buried 1 RetryAttemptsExhausted")
	})
	if out := h.must(dir, "fn", "list"); !strings.Contains(out, "sessions: ") {
		t.Errorf("%s", out)
	}
	h.must(dir, "down")
}
