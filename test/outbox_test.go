//go:build scenario

package test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/jackc/pgx/v5"
)

// Rows of a table are events of a bus, whoever of the house dies: the app only inserts, in its own transactions.
func TestOutboxOfADatabase(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "    uses: [db, seen]\n") + `databases: [db]
queues: [seen]
events:
  news:
    from: {db: outbox}
    rules: {paid: {match: {detail-type: [order.paid]}, input: {paths: {n: $.detail.n}, template: '{"n": <n>}'}, to: seen}}
`})
	h.up(dir)
	env := h.environ("echo 1")
	q := sqs.New(sqs.Options{Region: env["AWS_REGION"], BaseEndpoint: aws.String(env["AWS_ENDPOINT_URL_SQS"]), Credentials: credentials.NewStaticCredentialsProvider(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], "")})
	eventually(t, "what it waits for", 20*time.Second, func() bool { return strings.Contains(h.must(dir, "status"), "waits for table outbox") })
	c, err := pgx.Connect(t.Context(), env["DATABASE_URL"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	insert := func(n int) {
		t.Helper()
		if _, err := c.Exec(t.Context(), fmt.Sprintf(`begin; insert into outbox (detail_type, detail) values ('order.paid', '{"n": %d}'), ('order.seen', '{}'); commit`, n), pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Exec(t.Context(), "create table outbox (id uuid primary key default gen_random_uuid(), detail_type text not null, detail jsonb not null)"); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	wait := func(n int) {
		t.Helper()
		eventually(t, fmt.Sprint(n, " events in the queue"), 30*time.Second, func() bool {
			out, err := q.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: aws.String(env["SEEN_QUEUE_URL"]), MaxNumberOfMessages: 10})
			if err != nil {
				return false // its process was killed
			}
			for _, m := range out.Messages {
				seen[*m.Body] = true
			}
			return len(seen) == n
		})
	}
	for n := range 10 {
		insert(n)
	}
	wait(10)
	h.kill("house data")
	for n := range 10 {
		insert(10 + n)
	}
	wait(20)
	h.kill("house daemon")
	for n := range 10 {
		insert(20 + n)
	}
	wait(30)
	if out := h.must(dir, "metrics"); !strings.Contains(out, "bus_outbox_rows_total{") {
		t.Error("no bus_outbox_rows_total in metrics")
	}
	if _, err := c.Exec(t.Context(), `insert into outbox (detail_type, detail) values ('order.paid', '[]'), ('order.paid', '{"n": 30}')`); err != nil {
		t.Fatal(err)
	}
	wait(31)
	eventually(t, "the row that is no event", 20*time.Second, func() bool { return strings.Contains(h.must(dir, "status"), "1 rows are no events (row ") })
	for n := range 31 {
		if !seen[fmt.Sprintf(`{"n": %d}`, n)] {
			t.Errorf("no event of %d: %v", n, seen)
		}
	}
}
