package queue_test

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"tenfold/internal/awsapi"
	"tenfold/internal/kv"
	"tenfold/internal/kv/crashtest"
	"tenfold/tier/queue"
)

const account = "123456789012"

// clock is one that tests move.
type clock struct {
	mu  sync.Mutex
	add time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.add)
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add += d
}

func open(t testing.TB, dir string, c *clock) (*queue.Store, func()) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	db, err := kv.Open(dir, kv.Options{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now
	if c != nil {
		now = c.now
	}
	s, err := queue.Open(db, queue.Config{Log: log, Now: now, URL: func(account, name string) string { return "http://127.0.0.1:1/" + account + "/" + name }})
	if err != nil {
		t.Fatal(err)
	}
	return s, func() {
		s.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}

var keys = map[string]awsapi.Key{
	"ALL":  {Access: "ALL", Secret: "s", Caller: awsapi.Caller{Account: account, Of: "service api", Uses: map[string][]string{"sqs": {awsapi.Every}}}},
	"SOME": {Access: "SOME", Secret: "s", Caller: awsapi.Caller{Account: account, Of: "service web", Line: 4, Uses: map[string][]string{"sqs": {"emails"}}}},
	"ELSE": {Access: "ELSE", Secret: "s", Caller: awsapi.Caller{Account: "999999999999", Of: "service api", Uses: map[string][]string{"sqs": {awsapi.Every}}}},
}

func front(s *queue.Store) http.Handler {
	return awsapi.NewFront(func(access string) (awsapi.Key, bool) { k, ok := keys[access]; return k, ok },
		map[string]awsapi.Served{"sqs": {Service: s, Namespace: "com.amazonaws.sqs#", XMLNS: queue.Namespace}}, slog.New(slog.DiscardHandler))
}

type harness struct {
	t    *testing.T
	at   string
	c    *sqs.Client
	time *clock
	s    *queue.Store
}

func client(at, key string) *sqs.Client {
	return sqs.New(sqs.Options{Region: "us-east-1", BaseEndpoint: &at, RetryMaxAttempts: 1, Credentials: credentials.NewStaticCredentialsProvider(key, "s", "")})
}

func start(t *testing.T) *harness {
	t.Helper()
	c := &clock{}
	s, stop := open(t, t.TempDir(), c)
	srv := httptest.NewServer(front(s))
	t.Cleanup(func() { srv.Close(); stop() })
	return &harness{t, srv.URL, client(srv.URL, "ALL"), c, s}
}

func (h *harness) create(name string, attrs map[string]string) *string {
	h.t.Helper()
	if strings.HasSuffix(name, ".fifo") {
		if attrs == nil {
			attrs = map[string]string{}
		}
		attrs["FifoQueue"] = "true"
	}
	out, err := h.c.CreateQueue(h.t.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attrs})
	if err != nil {
		h.t.Fatal(err)
	}
	return out.QueueUrl
}

func (h *harness) send(u *string, body, group, id string) *sqs.SendMessageOutput {
	h.t.Helper()
	in := &sqs.SendMessageInput{QueueUrl: u, MessageBody: &body}
	if group != "" {
		in.MessageGroupId = &group
	}
	if id != "" {
		in.MessageDeduplicationId = &id
	}
	out, err := h.c.SendMessage(h.t.Context(), in)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

func (h *harness) receive(u *string, n int32) []types.Message {
	h.t.Helper()
	out, err := h.c.ReceiveMessage(h.t.Context(), &sqs.ReceiveMessageInput{QueueUrl: u, MaxNumberOfMessages: n, MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"}, MessageAttributeNames: []string{"All"}})
	if err != nil {
		h.t.Fatal(err)
	}
	return out.Messages
}

func (h *harness) delete(u *string, m types.Message) {
	h.t.Helper()
	if _, err := h.c.DeleteMessage(h.t.Context(), &sqs.DeleteMessageInput{QueueUrl: u, ReceiptHandle: m.ReceiptHandle}); err != nil {
		h.t.Fatal(err)
	}
}

func bodies(ms []types.Message) string {
	var out []string
	for _, m := range ms {
		out = append(out, *m.Body)
	}
	return strings.Join(out, " ")
}

func code(err error) string {
	var e smithy.APIError
	if errors.As(err, &e) {
		return e.ErrorCode()
	}
	return fmt.Sprint(err)
}

func TestMessagesOfAStandardQueue(t *testing.T) {
	h := start(t)
	u := h.create("emails", nil)
	if _, err := h.c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: u, MessageBody: aws.String("hé"), MessageAttributes: map[string]types.MessageAttributeValue{
		"n": {DataType: aws.String("Number"), StringValue: aws.String("1")}, "b": {DataType: aws.String("Binary.x"), BinaryValue: []byte{0, 1}}}}); err != nil {
		t.Fatal(err)
	}
	ms := h.receive(u, 10)
	if len(ms) != 1 || *ms[0].Body != "hé" || *ms[0].MessageAttributes["n"].StringValue != "1" || string(ms[0].MessageAttributes["b"].BinaryValue) != "\x00\x01" || ms[0].Attributes["ApproximateReceiveCount"] != "1" {
		t.Fatalf("%+v", ms)
	}
	if again := h.receive(u, 10); len(again) != 0 {
		t.Fatal("given out twice", again)
	}
	h.time.move(31 * time.Second)
	again := h.receive(u, 10)
	if len(again) != 1 || again[0].Attributes["ApproximateReceiveCount"] != "2" {
		t.Fatal(again)
	}
	h.delete(u, ms[0]) // the older handle deletes nothing
	if _, err := h.c.ChangeMessageVisibility(t.Context(), &sqs.ChangeMessageVisibilityInput{QueueUrl: u, ReceiptHandle: again[0].ReceiptHandle, VisibilityTimeout: 0}); err != nil {
		t.Fatal(err)
	}
	third := h.receive(u, 1)
	if len(third) != 1 {
		t.Fatal("not seen after a timeout of 0")
	}
	h.delete(u, third[0])
	h.time.move(time.Hour)
	if ms := h.receive(u, 1); len(ms) != 0 {
		t.Fatal("seen after it was deleted", bodies(ms))
	}
	if _, err := h.c.ChangeMessageVisibility(t.Context(), &sqs.ChangeMessageVisibilityInput{QueueUrl: u, ReceiptHandle: third[0].ReceiptHandle, VisibilityTimeout: 1}); code(err) != "MessageNotInflight" && code(err) != "AWS.SimpleQueueService.MessageNotInflight" {
		t.Error(code(err))
	}
	if _, err := h.c.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: u, ReceiptHandle: aws.String("x")}); code(err) != "ReceiptHandleIsInvalid" {
		t.Error(code(err))
	}
	// Delays, and retention.
	if _, err := h.c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: u, MessageBody: aws.String("later"), DelaySeconds: 60}); err != nil {
		t.Fatal(err)
	}
	if ms := h.receive(u, 1); len(ms) != 0 {
		t.Fatal("seen before its delay is over")
	}
	got, err := h.c.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: u, AttributeNames: []types.QueueAttributeName{"All"}})
	if err != nil || got.Attributes["ApproximateNumberOfMessagesDelayed"] != "1" || got.Attributes["QueueArn"] != "arn:aws:sqs:us-east-1:"+account+":emails" {
		t.Fatal(got, err)
	}
	h.time.move(61 * time.Second)
	if ms := h.receive(u, 1); bodies(ms) != "later" {
		t.Fatal(bodies(ms))
	}
	h.time.move(5 * 24 * time.Hour)
	if ms := h.receive(u, 1); len(ms) != 0 {
		t.Fatal("older than it is kept", bodies(ms))
	}
}

func TestAWaitingClientIsWoken(t *testing.T) {
	h := start(t)
	u := h.create("emails", nil)
	got := make(chan []types.Message)
	go func() {
		out, err := h.c.ReceiveMessage(context.Background(), &sqs.ReceiveMessageInput{QueueUrl: u, WaitTimeSeconds: 20})
		if err != nil {
			t.Error(err)
			close(got)
			return
		}
		got <- out.Messages
	}()
	h.send(u, "now", "", "")
	if ms := <-got; bodies(ms) != "now" {
		t.Fatal(bodies(ms))
	}
	// One that is to end has nobody wait.
	h.s.Leave()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if out, err := h.c.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: u, WaitTimeSeconds: 20}); err != nil || len(out.Messages) > 0 {
		t.Error(out, err)
	}
}

func TestInOrderAndNoneTwice(t *testing.T) {
	h := start(t)
	u := h.create("orders.fifo", map[string]string{"ContentBasedDeduplication": "true"})
	first := h.send(u, "a1", "a", "")
	twice := h.send(u, "a1", "a", "")
	if *first.MessageId != *twice.MessageId || *first.SequenceNumber != *twice.SequenceNumber {
		t.Error("sent twice", first, twice)
	}
	h.send(u, "a2", "a", "")
	h.send(u, "b1", "b", "")
	ms := h.receive(u, 1)
	if bodies(ms) != "a1" || ms[0].Attributes["MessageGroupId"] != "a" || ms[0].Attributes["SequenceNumber"] != *first.SequenceNumber {
		t.Fatal(bodies(ms))
	}
	other := h.receive(u, 10)
	if bodies(other) != "b1" { // a2 waits for a1
		t.Fatal(bodies(other))
	}
	h.time.move(31 * time.Second)
	if ms := h.receive(u, 10); bodies(ms) != "a1 a2 b1" {
		t.Fatal(bodies(ms))
	} else {
		for _, m := range ms {
			h.delete(u, m)
		}
	}
	if _, err := h.c.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: u, ReceiptHandle: ms[0].ReceiptHandle}); err != nil {
		t.Error(err)
	}
	h.send(u, "a1", "a", "")
	if ms := h.receive(u, 10); len(ms) != 0 {
		t.Error("a duplicate within five minutes", bodies(ms))
	}
	h.time.move(6 * time.Minute)
	h.send(u, "a1", "a", "")
	if ms := h.receive(u, 10); bodies(ms) != "a1" {
		t.Error("five minutes are over", bodies(ms))
	}
	// The same attempt gets the same messages.
	h.send(u, "c1", "c", "")
	try := &sqs.ReceiveMessageInput{QueueUrl: u, MaxNumberOfMessages: 10, ReceiveRequestAttemptId: aws.String("try")}
	one, err := h.c.ReceiveMessage(t.Context(), try)
	if err != nil {
		t.Fatal(err)
	}
	two, err := h.c.ReceiveMessage(t.Context(), try)
	if err != nil || bodies(one.Messages) != "c1" || bodies(two.Messages) != "c1" || *one.Messages[0].ReceiptHandle == *two.Messages[0].ReceiptHandle {
		t.Error(bodies(one.Messages), bodies(two.Messages), err)
	}
	if _, err := h.c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: u, MessageBody: aws.String("x")}); code(err) != "MissingParameter" && code(err) != "MissingRequiredParameterException" {
		t.Error(code(err))
	}
}

func TestGivenUpOnAndGivenBack(t *testing.T) {
	h := start(t)
	dead := h.create("dead", nil)
	u := h.create("work", map[string]string{"RedrivePolicy": `{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:` + account + `:dead","maxReceiveCount":2}`})
	h.send(u, "poison", "", "")
	for range 2 {
		if ms := h.receive(u, 1); len(ms) != 1 {
			t.Fatal(ms)
		}
		h.time.move(31 * time.Second)
	}
	if ms := h.receive(u, 1); len(ms) != 0 {
		t.Fatal("a third time", bodies(ms))
	}
	out, err := h.c.ListDeadLetterSourceQueues(t.Context(), &sqs.ListDeadLetterSourceQueuesInput{QueueUrl: dead})
	if err != nil || len(out.QueueUrls) != 1 || !strings.HasSuffix(out.QueueUrls[0], "/work") {
		t.Error(out, err)
	}
	if _, err := h.c.StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: aws.String("arn:aws:sqs:us-east-1:" + account + ":dead")}); err != nil {
		t.Fatal(err)
	}
	for {
		l, err := h.c.ListMessageMoveTasks(t.Context(), &sqs.ListMessageMoveTasksInput{SourceArn: aws.String("arn:aws:sqs:us-east-1:" + account + ":dead")})
		if err != nil || len(l.Results) != 1 {
			t.Fatal(l, err)
		}
		if r := l.Results[0]; *r.Status == "COMPLETED" {
			if r.ApproximateNumberOfMessagesMoved != 1 {
				t.Error(r)
			}
			break
		} else if *r.Status != "RUNNING" {
			t.Fatal(*r.Status, *r.FailureReason)
		}
	}
	if ms := h.receive(u, 1); bodies(ms) != "poison" || ms[0].Attributes["ApproximateReceiveCount"] != "1" {
		t.Error(bodies(ms))
	}
}

// A task that is cancelled leaves what it did not move where it was.
func TestGivingBackIsCancelled(t *testing.T) {
	h := start(t)
	dead := h.create("dead", nil)
	work := h.create("work", map[string]string{"RedrivePolicy": `{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:` + account + `:dead","maxReceiveCount":2}`})
	for i := range 30 {
		h.send(dead, fmt.Sprint(i), "", "")
	}
	source := aws.String("arn:aws:sqs:us-east-1:" + account + ":dead")
	if _, err := h.c.StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: aws.String("arn:aws:sqs:us-east-1:" + account + ":work")}); err == nil {
		t.Error("work is nobody's dead-letter queue")
	}
	in := &sqs.StartMessageMoveTaskInput{SourceArn: source, DestinationArn: aws.String("arn:aws:sqs:us-east-1:" + account + ":work"), MaxNumberOfMessagesPerSecond: aws.Int32(10)}
	task, err := h.c.StartMessageMoveTask(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.c.StartMessageMoveTask(t.Context(), in); code(err) != "InvalidParameterValue" {
		t.Error("two at once", code(err))
	}
	if _, err := h.c.CancelMessageMoveTask(t.Context(), &sqs.CancelMessageMoveTaskInput{TaskHandle: task.TaskHandle}); err != nil {
		t.Fatal(err)
	}
	for {
		l, err := h.c.ListMessageMoveTasks(t.Context(), &sqs.ListMessageMoveTasksInput{SourceArn: source})
		if err != nil || len(l.Results) != 1 {
			t.Fatal(l, err)
		}
		if s := *l.Results[0].Status; s == "CANCELLED" {
			break
		} else if s != "CANCELLING" {
			t.Fatal(s)
		}
	}
	if _, err := h.c.CancelMessageMoveTask(t.Context(), &sqs.CancelMessageMoveTaskInput{TaskHandle: task.TaskHandle}); err == nil {
		t.Error("cancelled twice")
	}
	n := 0
	for _, u := range []*string{dead, work} {
		for {
			ms := h.receive(u, 10)
			if len(ms) == 0 {
				break
			}
			n += len(ms)
		}
	}
	if n != 30 {
		t.Errorf("%d of 30 messages are left", n)
	}
}

func TestBatches(t *testing.T) {
	h := start(t)
	u := h.create("emails", nil)
	out, err := h.c.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: u, Entries: []types.SendMessageBatchRequestEntry{
		{Id: aws.String("a"), MessageBody: aws.String("one")}, {Id: aws.String("b"), MessageBody: aws.String("\x01")}, {Id: aws.String("c"), MessageBody: aws.String("two")}}})
	if err != nil || len(out.Successful) != 2 || len(out.Failed) != 1 || *out.Failed[0].Id != "b" || !out.Failed[0].SenderFault {
		t.Fatal(out, err)
	}
	ms := h.receive(u, 10)
	if bodies(ms) != "one two" {
		t.Fatal(bodies(ms))
	}
	changed, err := h.c.ChangeMessageVisibilityBatch(t.Context(), &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: u, Entries: []types.ChangeMessageVisibilityBatchRequestEntry{{Id: aws.String("x"), ReceiptHandle: ms[0].ReceiptHandle, VisibilityTimeout: 100}, {Id: aws.String("y"), ReceiptHandle: aws.String("no"), VisibilityTimeout: 1}}})
	if err != nil || len(changed.Successful) != 1 || len(changed.Failed) != 1 {
		t.Error(changed, err)
	}
	del, err := h.c.DeleteMessageBatch(t.Context(), &sqs.DeleteMessageBatchInput{QueueUrl: u, Entries: []types.DeleteMessageBatchRequestEntry{{Id: aws.String("x"), ReceiptHandle: ms[0].ReceiptHandle}, {Id: aws.String("y"), ReceiptHandle: ms[1].ReceiptHandle}}})
	if err != nil || len(del.Successful) != 2 {
		t.Error(del, err)
	}
	if _, err := h.c.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: u, Entries: []types.SendMessageBatchRequestEntry{{Id: aws.String("a"), MessageBody: aws.String("1")}, {Id: aws.String("a"), MessageBody: aws.String("2")}}}); !strings.Contains(code(err), "BatchEntryIdsNotDistinct") {
		t.Error(code(err))
	}
}

func TestQueuesThemselves(t *testing.T) {
	h := start(t)
	for _, n := range []string{"a1", "a2", "a3", "b1"} {
		h.create(n, nil)
	}
	h.create("a1", nil) // the same again
	if _, err := h.c.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("a1"), Attributes: map[string]string{"VisibilityTimeout": "5"}}); !strings.Contains(code(err), "QueueNameExists") && !strings.Contains(code(err), "QueueAlreadyExists") {
		t.Error(code(err))
	}
	for name, attrs := range map[string]map[string]string{"bad name": nil, "x": {"VisibilityTimeout": "-1"}, "y": {"No": "1"}, "z": {"FifoQueue": "true"}, "w": {"RedrivePolicy": `{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:` + account + `:none","maxReceiveCount":2}`}} {
		if _, err := h.c.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attrs}); err == nil {
			t.Errorf("%s was made", name)
		}
	}
	l, err := h.c.ListQueues(t.Context(), &sqs.ListQueuesInput{QueueNamePrefix: aws.String("a"), MaxResults: aws.Int32(2)})
	if err != nil || len(l.QueueUrls) != 2 || l.NextToken == nil {
		t.Fatal(l, err)
	}
	if l, err = h.c.ListQueues(t.Context(), &sqs.ListQueuesInput{QueueNamePrefix: aws.String("a"), MaxResults: aws.Int32(2), NextToken: l.NextToken}); err != nil || len(l.QueueUrls) != 1 || l.NextToken != nil {
		t.Error(l, err)
	}
	u, err := h.c.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String("b1")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.c.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: u.QueueUrl, Attributes: map[string]string{"VisibilityTimeout": "7"}}); err != nil {
		t.Error(err)
	}
	if _, err := h.c.TagQueue(t.Context(), &sqs.TagQueueInput{QueueUrl: u.QueueUrl, Tags: map[string]string{"k": "v", "l": "w"}}); err != nil {
		t.Error(err)
	}
	if _, err := h.c.UntagQueue(t.Context(), &sqs.UntagQueueInput{QueueUrl: u.QueueUrl, TagKeys: []string{"l"}}); err != nil {
		t.Error(err)
	}
	if tags, err := h.c.ListQueueTags(t.Context(), &sqs.ListQueueTagsInput{QueueUrl: u.QueueUrl}); err != nil || len(tags.Tags) != 1 || tags.Tags["k"] != "v" {
		t.Error(tags, err)
	}
	if _, err := h.c.AddPermission(t.Context(), &sqs.AddPermissionInput{QueueUrl: u.QueueUrl, Label: aws.String("l"), AWSAccountIds: []string{account}, Actions: []string{"SendMessage"}}); err != nil {
		t.Error(err)
	}
	if _, err := h.c.RemovePermission(t.Context(), &sqs.RemovePermissionInput{QueueUrl: u.QueueUrl, Label: aws.String("l")}); err != nil {
		t.Error(err)
	}
	h.send(u.QueueUrl, "x", "", "")
	if _, err := h.c.PurgeQueue(t.Context(), &sqs.PurgeQueueInput{QueueUrl: u.QueueUrl}); err != nil {
		t.Error(err)
	}
	if ms := h.receive(u.QueueUrl, 1); len(ms) != 0 {
		t.Error("purged", bodies(ms))
	}
	if _, err := h.c.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: u.QueueUrl}); err != nil {
		t.Error(err)
	}
	if _, err := h.c.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String("b1")}); !strings.Contains(code(err), "QueueDoesNotExist") && !strings.Contains(code(err), "NonExistentQueue") {
		t.Error(code(err))
	}
}

// Who does not use a queue does not get at it; what a manifest names is not a client's to delete.
func TestWhoMay(t *testing.T) {
	h := start(t)
	if errs := h.s.Want(t.Context(), account, []queue.Wanted{
		{Name: "emails-dead", Keep: time.Hour}, {Name: "emails", Timeout: time.Second, Keep: time.Hour, Receives: 4, Dead: "emails-dead"}, {Name: "orders.fifo", Keep: time.Hour, FIFO: true, ContentDedupe: true, PerGroup: true}}); len(errs) > 0 {
		t.Fatal(errs)
	}
	got, err := h.c.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: aws.String(h.at + "/" + account + "/emails"), AttributeNames: []types.QueueAttributeName{"All"}})
	if err != nil || got.Attributes["VisibilityTimeout"] != "1" || !strings.Contains(got.Attributes["RedrivePolicy"], `"maxReceiveCount":4`) {
		t.Fatal(got, err)
	}
	some := client(h.at, "SOME")
	if _, err := some.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: aws.String(h.at + "/" + account + "/emails"), MessageBody: aws.String("x")}); err != nil {
		t.Error(err)
	}
	_, err = some.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: aws.String(h.at + "/" + account + "/orders.fifo"), MessageBody: aws.String("x"), MessageGroupId: aws.String("g")})
	if !strings.Contains(fmt.Sprint(err), "add `uses: [orders]` to service web (tenfold.yaml:4)") {
		t.Error(err)
	}
	if _, err := client(h.at, "ELSE").GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String("emails")}); err == nil {
		t.Error("another account sees it")
	}
	if _, err := h.c.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: aws.String(h.at + "/" + account + "/emails")}); !strings.Contains(fmt.Sprint(err), "tenfold.yaml names the queue") {
		t.Error(err)
	}
	own, err := some.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("own")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := some.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: own.QueueUrl}); err != nil {
		t.Error(err)
	}
}

func TestQueryProtocol(t *testing.T) {
	h := start(t)
	u := h.create("emails", nil)
	ask := func(form url.Values) (int, string) {
		t.Helper()
		return h.form("/"+account+"/emails", form)
	}
	if status, b := ask(url.Values{"Action": {"SendMessageBatch"}, "SendMessageBatchRequestEntry.1.Id": {"a"}, "SendMessageBatchRequestEntry.1.MessageBody": {"<one>"}, "SendMessageBatchRequestEntry.1.MessageAttribute.1.Name": {"k"},
		"SendMessageBatchRequestEntry.1.MessageAttribute.1.Value.DataType": {"String"}, "SendMessageBatchRequestEntry.1.MessageAttribute.1.Value.StringValue": {"v"}}); status != 200 || !strings.Contains(b, "<SendMessageBatchResultEntry>") {
		t.Fatal(status, b)
	}
	status, b := ask(url.Values{"Action": {"ReceiveMessage"}, "QueueUrl": {*u}, "MaxNumberOfMessages": {"10"}, "AttributeName.1": {"All"}, "MessageAttributeName.1": {"k"}})
	var got struct {
		Messages []struct {
			Body, MD5OfBody, ReceiptHandle string
			Attribute                      []struct{ Name, Value string }
			MessageAttribute               []struct {
				Name  string
				Value struct{ StringValue, DataType string }
			}
		} `xml:"ReceiveMessageResult>Message"`
		ID string `xml:"ResponseMetadata>RequestId"`
	}
	if err := xml.Unmarshal([]byte(b), &got); err != nil || status != 200 || len(got.Messages) != 1 || got.Messages[0].Body != "<one>" || got.Messages[0].MessageAttribute[0].Value.StringValue != "v" || len(got.Messages[0].Attribute) < 4 || got.ID == "" {
		t.Fatal(err, status, b)
	}
	if status, b := ask(url.Values{"Action": {"DeleteMessage"}, "ReceiptHandle": {got.Messages[0].ReceiptHandle}}); status != 200 {
		t.Error(status, b)
	}
	if status, b := ask(url.Values{"Action": {"SetQueueAttributes"}, "Attribute.1.Name": {"VisibilityTimeout"}, "Attribute.1.Value": {"9"}}); status != 200 {
		t.Error(status, b)
	}
	if status, b := ask(url.Values{"Action": {"GetQueueAttributes"}, "AttributeName.1": {"VisibilityTimeout"}}); status != 200 || !strings.Contains(b, "<Attribute><Name>VisibilityTimeout</Name><Value>9</Value></Attribute>") {
		t.Error(status, b)
	}
	if status, b := ask(url.Values{"Action": {"ReceiveMessage"}, "QueueUrl": {h.at + "/" + account + "/none"}}); status != 400 || !strings.Contains(b, "<Code>AWS.SimpleQueueService.NonExistentQueue</Code>") {
		t.Error(status, b)
	}
	if status, b := ask(url.Values{"Action": {"Nothing"}}); status != 400 || !strings.Contains(b, "<Code>InvalidAction</Code>") {
		t.Error(status, b)
	}
}

// TestMain is the server of TestCrashes too.
func TestMain(m *testing.M) {
	dir := crashtest.Dir()
	if dir == "" {
		os.Exit(m.Run())
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	db, err := kv.Open(dir, kv.Options{Log: log})
	if err != nil {
		panic(err)
	}
	s, err := queue.Open(db, queue.Config{Log: log, URL: func(account, name string) string { return "http://127.0.0.1/" + account + "/" + name }})
	if err != nil {
		panic(err)
	}
	crashtest.Serve(front(s))
}

// Nothing acknowledged is lost by kill -9, nothing deleted comes back, what is in order stays so, and what
// was sent again with the same id is not there twice.
func TestCrashes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	var acked, taken, deleted sync.Map // a message may be taken before its sender hears of it
	var order []string                 // of group g, as acknowledged
	unknown := ""                      // sent and not acknowledged: to be sent again
	n := 0
	for round := range 20 {
		at, cmd := crashtest.Start(t, dir)
		c := client(at, "ALL")
		ctx := context.Background()
		for name, attrs := range map[string]map[string]string{"q": {"VisibilityTimeout": "0"}, "o.fifo": {"FifoQueue": "true", "VisibilityTimeout": "0"}} {
			if _, err := c.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name, Attributes: attrs}); err != nil {
				t.Fatal(err)
			}
		}
		q, o := at+"/"+account+"/q", at+"/"+account+"/o.fifo"
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					body := fmt.Sprintf("%d-%d-%d", round, w, i)
					if _, err := c.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &q, MessageBody: &body}); err != nil {
						return
					}
					acked.Store(body, true)
					if i%3 != 0 {
						continue
					}
					got, err := c.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &q, VisibilityTimeout: 60})
					if err != nil {
						return
					}
					for _, m := range got.Messages {
						if _, gone := deleted.Load(*m.Body); gone {
							t.Errorf("%s was deleted", *m.Body)
						}
						taken.Store(*m.Body, true) // whether it is there later, who knows, unless its deletion is acknowledged
						if _, err := c.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &q, ReceiptHandle: m.ReceiptHandle}); err != nil {
							return
						}
						deleted.Store(*m.Body, true)
					}
				}
			})
		}
		wg.Go(func() {
			for {
				body := unknown
				if body == "" {
					n++
					body = fmt.Sprint(n)
				}
				unknown = body
				if _, err := c.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &o, MessageBody: &body, MessageGroupId: aws.String("g"), MessageDeduplicationId: &body}); err != nil {
					return
				}
				order, unknown = append(order, body), ""
			}
		})
		time.AfterFunc(time.Duration(40+round*7)*time.Millisecond, func() { cmd.Process.Kill() })
		wg.Wait()
		cmd.Wait()
	}
	s, stop := open(t, dir, &clock{add: 2 * time.Minute})
	defer stop()
	srv := httptest.NewServer(front(s))
	defer srv.Close()
	c := client(srv.URL, "ALL")
	drain := func(name string) (out []string) {
		u := srv.URL + "/" + account + "/" + name
		for {
			got, err := c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &u, MaxNumberOfMessages: 10, VisibilityTimeout: 600})
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Messages) == 0 {
				return out
			}
			for _, m := range got.Messages {
				out = append(out, *m.Body)
				if _, err := c.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &u, ReceiptHandle: m.ReceiptHandle}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	there := map[string]bool{}
	for _, b := range drain("q") {
		if _, gone := deleted.Load(b); gone || there[b] {
			t.Errorf("%s: deleted %v, twice %v", b, gone, there[b])
		}
		there[b] = true
	}
	count := 0
	acked.Range(func(k, _ any) bool {
		if _, was := taken.Load(k); was {
			return true
		}
		if count++; !there[k.(string)] {
			t.Errorf("%s was acknowledged and is lost", k)
		}
		return true
	})
	got := drain("o.fifo")
	if len(got) > len(order) && got[len(got)-1] == unknown {
		got = got[:len(got)-1]
	}
	if !slices.Equal(got, order) || len(order) < 20 || count < 20 {
		t.Errorf("in order: %d of %d, %d in the other; %v against %v", len(got), len(order), count, got, order)
	}
	t.Logf("20 deaths: %d acknowledged and not deleted, all there; %d in order", count, len(order))
}

func FuzzRequests(f *testing.F) {
	f.Add("SendMessage", `{"QueueUrl":"q","MessageBody":"x","MessageAttributes":{"a":{"DataType":"Number","StringValue":"1"}}}`, "")
	f.Add("ReceiveMessage", "", "QueueUrl=q&MaxNumberOfMessages=x&MessageAttribute.1.Name=a")
	s, stop := open(f, f.TempDir(), nil)
	f.Cleanup(stop)
	caller := keys["ALL"].Caller
	if _, err := s.Serve(context.Background(), &awsapi.Request{Caller: caller, Operation: "CreateQueue", Body: []byte(`{"QueueName":"q"}`)}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, operation, body, form string) {
		q := &awsapi.Request{Caller: caller, Operation: operation, Body: []byte(body), HTTP: httptest.NewRequest(http.MethodPost, "/", nil)}
		if form != "" {
			v, err := url.ParseQuery(form)
			if err != nil {
				return
			}
			q.Body, q.Form = nil, v
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Serve(ctx, q)
	})
}
