package queue_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"tenfold/internal/awsapi"
)

// form asks in the query protocol, at a path of the server.
func (h *harness) form(path string, form url.Values) (int, string) {
	h.t.Helper()
	res := h.post(path, form.Encode(), http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=utf-8"}})
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// post sends a signed request.
func (h *harness) post(path, body string, header http.Header) *http.Response {
	h.t.Helper()
	r, err := http.NewRequest(http.MethodPost, h.at+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	r.Header = header
	sum := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(h.t.Context(), aws.Credentials{AccessKeyID: "ALL", SecretAccessKey: "s"}, r, hex.EncodeToString(sum[:]), "sqs", "us-east-1", time.Now()); err != nil {
		h.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	return res
}

// leaves are the texts of a document by where they stand: "/A/B[2]/C" is C of the second B of A.
func leaves(t *testing.T, doc string) map[string]string {
	t.Helper()
	type level struct {
		path string
		text strings.Builder
		seen map[string]int
	}
	out := map[string]string{}
	stack := []*level{{seen: map[string]int{}}}
	d := xml.NewDecoder(strings.NewReader(doc))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%v: %s", err, doc)
		}
		top := stack[len(stack)-1]
		switch x := token.(type) {
		case xml.StartElement:
			if x.Name.Space != "http://queue.amazonaws.com/doc/2012-11-05/" {
				t.Errorf("%s is in the name space %q", x.Name.Local, x.Name.Space)
			}
			top.seen[x.Name.Local]++
			at := top.path + "/" + x.Name.Local
			if n := top.seen[x.Name.Local]; n > 1 {
				at += fmt.Sprintf("[%d]", n)
			}
			stack = append(stack, &level{path: at, seen: map[string]int{}})
		case xml.CharData:
			top.text.Write(x)
		case xml.EndElement:
			if len(top.seen) == 0 {
				out[top.path] = strings.TrimSpace(top.text.String())
			}
			stack = stack[:len(stack)-1]
		}
	}
}

// same compares an answer with the reference's; * there stands for what differs each time.
func same(t *testing.T, got, want string) {
	t.Helper()
	g, w := leaves(t, got), leaves(t, want)
	for _, k := range slices.Sorted(maps.Keys(w)) {
		if v, there := g[k]; !there || v != w[k] && (w[k] != "*" || v == "") {
			t.Errorf("%s is %q (there: %v), want %q", k, v, there, w[k])
		}
	}
	for _, k := range slices.Sorted(maps.Keys(g)) {
		if _, there := w[k]; !there {
			t.Errorf("%s = %q, which the reference has not", k, g[k])
		}
	}
}

// answered wraps what the reference prints of an operation's answer; result "": it has none.
func answered(operation, result string) string {
	return `<` + operation + `Response xmlns="http://queue.amazonaws.com/doc/2012-11-05/">` + result + `<ResponseMetadata><RequestId>*</RequestId></ResponseMetadata></` + operation + `Response>`
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The MD5s that the reference prints: of "This is a test message", and of its trace header.
const (
	testMessage, testMessageMD5 = "This is a test message", "fafb00f5732ab283681e124bf8747ed1"
	traceHeader, traceHeaderMD5 = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1", "5ae4d5d7636402d80f4eb6d213245a88"
)

// The examples of AWS' reference through the SDK: each of the 23 operations, and what it answers.
func TestExamplesOfTheReference(t *testing.T) {
	h := start(t)
	ctx, c, began := t.Context(), h.c, time.Now()

	made, err := c.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String("MyQueue"), Attributes: map[string]string{"VisibilityTimeout": "40"}, Tags: map[string]string{"QueueType": "Production"}})
	must(t, err)
	u := made.QueueUrl
	if !strings.HasSuffix(*u, "/"+account+"/MyQueue") {
		t.Errorf("CreateQueue: %s", *u)
	}
	found, err := c.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: aws.String("MyQueue"), QueueOwnerAWSAccountId: aws.String(account)})
	if must(t, err); *found.QueueUrl != *u {
		t.Errorf("GetQueueUrl: %s", *found.QueueUrl)
	}
	listed, err := c.ListQueues(ctx, &sqs.ListQueuesInput{QueueNamePrefix: aws.String("My")})
	if must(t, err); !slices.Equal(listed.QueueUrls, []string{*u}) || listed.NextToken != nil {
		t.Errorf("ListQueues: %+v", listed)
	}

	// Attributes: those that were set, those that AWS makes, and none where none is asked for.
	_, err = c.SetQueueAttributes(ctx, &sqs.SetQueueAttributesInput{QueueUrl: u, Attributes: map[string]string{"VisibilityTimeout": "35", "DelaySeconds": "0", "MessageRetentionPeriod": "345600"}})
	must(t, err)
	attrs := func(names ...types.QueueAttributeName) map[string]string {
		t.Helper()
		got, err := c.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: u, AttributeNames: names})
		must(t, err)
		return got.Attributes
	}
	all := attrs("All")
	for _, k := range []string{"CreatedTimestamp", "LastModifiedTimestamp"} {
		var at int64
		if n, err := fmt.Sscan(all[k], &at); n != 1 || err != nil || at < began.Unix() || at > began.Unix()+60 {
			t.Errorf("%s is %q", k, all[k])
		}
		delete(all, k)
	}
	if want := map[string]string{"VisibilityTimeout": "35", "DelaySeconds": "0", "MessageRetentionPeriod": "345600", "ReceiveMessageWaitTimeSeconds": "0", "MaximumMessageSize": "1048576", "QueueArn": "arn:aws:sqs:us-east-1:" + account + ":MyQueue",
		"ApproximateNumberOfMessages": "0", "ApproximateNumberOfMessagesNotVisible": "0", "ApproximateNumberOfMessagesDelayed": "0", "SqsManagedSseEnabled": "false"}; !maps.Equal(all, want) {
		t.Errorf("GetQueueAttributes: %v, want %v", all, want)
	}
	if got := attrs("VisibilityTimeout", "DelaySeconds", "RedrivePolicy"); !maps.Equal(got, map[string]string{"VisibilityTimeout": "35", "DelaySeconds": "0"}) {
		t.Errorf("GetQueueAttributes of some: %v", got)
	}
	if got := attrs(); len(got) != 0 {
		t.Errorf("GetQueueAttributes of none: %v", got)
	}

	// A permission is a statement of the queue's policy.
	_, err = c.AddPermission(ctx, &sqs.AddPermissionInput{QueueUrl: u, Label: aws.String("MyLabel"), AWSAccountIds: []string{"177715257436", "111111111111"}, Actions: []string{"SendMessage", "ReceiveMessage"}})
	must(t, err)
	_, err = c.AddPermission(ctx, &sqs.AddPermissionInput{QueueUrl: u, Label: aws.String("One"), AWSAccountIds: []string{"177715257436"}, Actions: []string{"*"}})
	must(t, err)
	arn := "arn:aws:sqs:us-east-1:" + account + ":MyQueue"
	if got, want := attrs("Policy")["Policy"], `{"Version":"2008-10-17","Id":"`+arn+`/SQSDefaultPolicy","Statement":[`+
		`{"Sid":"MyLabel","Effect":"Allow","Principal":{"AWS":["arn:aws:iam::177715257436:root","arn:aws:iam::111111111111:root"]},"Action":["SQS:SendMessage","SQS:ReceiveMessage"],"Resource":"`+arn+`"},`+
		`{"Sid":"One","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::177715257436:root"},"Action":"SQS:*","Resource":"`+arn+`"}]}`; got != want {
		t.Errorf("AddPermission: %s\nwant %s", got, want)
	}
	for _, label := range []string{"MyLabel", "One"} {
		_, err = c.RemovePermission(ctx, &sqs.RemovePermissionInput{QueueUrl: u, Label: &label})
		must(t, err)
	}
	if got := attrs("Policy"); len(got) != 0 {
		t.Errorf("RemovePermission: %v", got)
	}

	_, err = c.TagQueue(ctx, &sqs.TagQueueInput{QueueUrl: u, Tags: map[string]string{"Owner": "Developer", "QueueType": "Test", "Priority": ""}})
	must(t, err)
	_, err = c.UntagQueue(ctx, &sqs.UntagQueueInput{QueueUrl: u, TagKeys: []string{"Owner", "Absent"}})
	must(t, err)
	tags, err := c.ListQueueTags(ctx, &sqs.ListQueueTagsInput{QueueUrl: u})
	if must(t, err); !maps.Equal(tags.Tags, map[string]string{"QueueType": "Test", "Priority": ""}) {
		t.Errorf("ListQueueTags: %v", tags.Tags)
	}

	// A message, with all that it may carry.
	own := map[string]types.MessageAttributeValue{"Foo": {DataType: aws.String("String"), StringValue: aws.String("Bar")}}
	sent, err := c.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: u, MessageBody: aws.String(testMessage), MessageAttributes: own,
		MessageSystemAttributes: map[string]types.MessageSystemAttributeValue{"AWSTraceHeader": {DataType: aws.String("String"), StringValue: aws.String(traceHeader)}}})
	if must(t, err); *sent.MD5OfMessageBody != testMessageMD5 || *sent.MD5OfMessageAttributes != "ae7155c6026991b6d54b11589678bf9c" || *sent.MD5OfMessageSystemAttributes != traceHeaderMD5 || len(*sent.MessageId) != 36 || sent.SequenceNumber != nil {
		t.Errorf("SendMessage: %+v", sent)
	}
	got := h.receive(u, 5)
	if len(got) != 1 {
		t.Fatalf("ReceiveMessage: %+v", got)
	}
	m := got[0]
	if *m.MessageId != *sent.MessageId || *m.Body != testMessage || *m.MD5OfBody != testMessageMD5 || *m.MD5OfMessageAttributes != *sent.MD5OfMessageAttributes || len(m.MessageAttributes) != 1 || *m.MessageAttributes["Foo"].StringValue != "Bar" || *m.MessageAttributes["Foo"].DataType != "String" || *m.ReceiptHandle == "" {
		t.Errorf("ReceiveMessage: %+v", m)
	}
	if names := slices.Sorted(maps.Keys(m.Attributes)); !slices.Equal(names, []string{"AWSTraceHeader", "ApproximateFirstReceiveTimestamp", "ApproximateReceiveCount", "SenderId", "SentTimestamp"}) || m.Attributes["AWSTraceHeader"] != traceHeader || m.Attributes["ApproximateReceiveCount"] != "1" {
		t.Errorf("ReceiveMessage: attributes %v", m.Attributes)
	}
	if got := attrs("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"); got["ApproximateNumberOfMessages"] != "0" || got["ApproximateNumberOfMessagesNotVisible"] != "1" {
		t.Errorf("in flight: %v", got)
	}
	_, err = c.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{QueueUrl: u, ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: 60})
	must(t, err)
	h.time.move(50 * time.Second) // longer than the queue's 35, shorter than the message's 60
	if got := h.receive(u, 1); len(got) != 0 {
		t.Errorf("ChangeMessageVisibility: seen after 50 s: %v", bodies(got))
	}
	h.time.move(11 * time.Second)
	if got = h.receive(u, 1); len(got) != 1 || got[0].Attributes["ApproximateReceiveCount"] != "2" || got[0].Attributes["ApproximateFirstReceiveTimestamp"] != m.Attributes["ApproximateFirstReceiveTimestamp"] {
		t.Fatalf("seen again: %+v", got)
	}
	_, err = c.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: u, ReceiptHandle: got[0].ReceiptHandle})
	must(t, err)
	_, err = c.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: u, ReceiptHandle: got[0].ReceiptHandle}) // twice is no error
	must(t, err)
	if none, err := c.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: u}); err != nil || none.Messages != nil {
		t.Errorf("an empty queue: %+v, %v", none, err)
	}

	// Batches.
	batch, err := c.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{QueueUrl: u, Entries: []types.SendMessageBatchRequestEntry{
		{Id: aws.String("test_msg_001"), MessageBody: aws.String("test message body 1")},
		{Id: aws.String("test_msg_002"), MessageBody: aws.String("test message body 2"), DelaySeconds: 60, MessageAttributes: own},
		{Id: aws.String("bad"), MessageBody: aws.String("x"), DelaySeconds: 901}}})
	if must(t, err); len(batch.Successful) != 2 || len(batch.Failed) != 1 {
		t.Fatalf("SendMessageBatch: %+v", batch)
	}
	if a, b := batch.Successful[0], batch.Successful[1]; *a.Id != "test_msg_001" || *a.MD5OfMessageBody != "0e024d309850c78cba5eabbeff7cae71" || a.MD5OfMessageAttributes != nil || *b.Id != "test_msg_002" || *b.MD5OfMessageAttributes != "ae7155c6026991b6d54b11589678bf9c" || *a.MessageId == *b.MessageId {
		t.Errorf("SendMessageBatch: %+v, %+v", a, b)
	}
	if f := batch.Failed[0]; *f.Id != "bad" || *f.Code != "InvalidParameterValue" || !f.SenderFault || *f.Message != "Value 901 for parameter DelaySeconds is invalid. Reason: DelaySeconds must be >= 0 and <= 900." {
		t.Errorf("SendMessageBatch: %s %s %s", *f.Id, *f.Code, *f.Message)
	}
	h.time.move(61 * time.Second)
	if got = h.receive(u, 10); bodies(got) != "test message body 1 test message body 2" {
		t.Fatal(bodies(got))
	}
	changed, err := c.ChangeMessageVisibilityBatch(ctx, &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: u, Entries: []types.ChangeMessageVisibilityBatchRequestEntry{
		{Id: aws.String("change_visibility_msg_2"), ReceiptHandle: got[0].ReceiptHandle, VisibilityTimeout: 45}, {Id: aws.String("change_visibility_msg_3"), ReceiptHandle: aws.String("garbage"), VisibilityTimeout: 45}}})
	if must(t, err); len(changed.Successful) != 1 || *changed.Successful[0].Id != "change_visibility_msg_2" || len(changed.Failed) != 1 || *changed.Failed[0].Code != "ReceiptHandleIsInvalid" || !changed.Failed[0].SenderFault {
		t.Errorf("ChangeMessageVisibilityBatch: %+v", changed)
	}
	gone, err := c.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{QueueUrl: u, Entries: []types.DeleteMessageBatchRequestEntry{
		{Id: aws.String("msg1"), ReceiptHandle: got[0].ReceiptHandle}, {Id: aws.String("msg2"), ReceiptHandle: got[1].ReceiptHandle}, {Id: aws.String("msg3"), ReceiptHandle: aws.String("garbage")}}})
	if must(t, err); len(gone.Successful) != 2 || *gone.Successful[0].Id != "msg1" || *gone.Successful[1].Id != "msg2" || len(gone.Failed) != 1 || *gone.Failed[0].Message != `The input receipt handle "garbage" is not a valid receipt handle.` {
		t.Errorf("DeleteMessageBatch: %+v", gone)
	}

	// Dead letters, and their way back.
	dead := h.create("MyDeadLetterQueue", nil)
	deadARN := aws.String("arn:aws:sqs:us-east-1:" + account + ":MyDeadLetterQueue")
	_, err = c.SetQueueAttributes(ctx, &sqs.SetQueueAttributesInput{QueueUrl: u, Attributes: map[string]string{"RedrivePolicy": `{"deadLetterTargetArn":"` + *deadARN + `","maxReceiveCount":"10"}`}})
	must(t, err)
	sources, err := c.ListDeadLetterSourceQueues(ctx, &sqs.ListDeadLetterSourceQueuesInput{QueueUrl: dead})
	if must(t, err); !slices.Equal(sources.QueueUrls, []string{*u}) {
		t.Errorf("ListDeadLetterSourceQueues: %v", sources.QueueUrls)
	}
	for i := range 3 {
		h.send(dead, fmt.Sprint(i), "", "")
	}
	task, err := c.StartMessageMoveTask(ctx, &sqs.StartMessageMoveTaskInput{SourceArn: deadARN, DestinationArn: &arn, MaxNumberOfMessagesPerSecond: aws.Int32(1)})
	must(t, err)
	move := func() types.ListMessageMoveTasksResultEntry {
		t.Helper()
		l, err := c.ListMessageMoveTasks(ctx, &sqs.ListMessageMoveTasksInput{SourceArn: deadARN, MaxResults: aws.Int32(1)})
		if must(t, err); len(l.Results) != 1 {
			t.Fatalf("ListMessageMoveTasks: %+v", l)
		}
		return l.Results[0]
	}
	if r := move(); *r.Status != "RUNNING" || *r.TaskHandle != *task.TaskHandle || *r.SourceArn != *deadARN || *r.DestinationArn != arn || *r.MaxNumberOfMessagesPerSecond != 1 || *r.ApproximateNumberOfMessagesToMove != 3 || r.StartedTimestamp < began.UnixMilli() {
		t.Errorf("ListMessageMoveTasks: %+v", r)
	}
	cancelled, err := c.CancelMessageMoveTask(ctx, &sqs.CancelMessageMoveTaskInput{TaskHandle: task.TaskHandle})
	if must(t, err); cancelled.ApproximateNumberOfMessagesMoved > 1 {
		t.Errorf("CancelMessageMoveTask: %+v", cancelled)
	}
	for r := move(); *r.Status != "CANCELLED"; r = move() {
		if *r.Status != "CANCELLING" || r.TaskHandle != nil {
			t.Fatalf("ListMessageMoveTasks: %+v", r)
		}
	}

	_, err = c.PurgeQueue(ctx, &sqs.PurgeQueueInput{QueueUrl: u})
	must(t, err)
	if got := attrs("ApproximateNumberOfMessages"); got["ApproximateNumberOfMessages"] != "0" {
		t.Errorf("PurgeQueue: %v", got)
	}
	_, err = c.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: u})
	must(t, err)
	if listed, err = c.ListQueues(ctx, &sqs.ListQueuesInput{}); err != nil || !slices.Equal(listed.QueueUrls, []string{*dead}) {
		t.Errorf("DeleteQueue: %+v, %v", listed, err)
	}
}

// The examples of the reference in the query protocol, as it prints them: a form, and the answer in XML.
func TestQueryExamples(t *testing.T) {
	h := start(t)
	at := "/" + account + "/MyQueue"
	u := "http://127.0.0.1:1" + at
	ask := func(path, operation, form, result string) string {
		t.Helper()
		f, err := url.ParseQuery("Action=" + operation + "&Version=2012-11-05&" + form)
		must(t, err)
		status, got := h.form(path, f)
		if status != http.StatusOK {
			t.Fatalf("%s: %d %s", operation, status, got)
		}
		same(t, got, answered(operation, result))
		return got
	}
	message := func(body, md5, more string) string {
		return "<ReceiveMessageResult><Message><MessageId>*</MessageId><ReceiptHandle>*</ReceiptHandle><MD5OfBody>" + md5 + "</MD5OfBody><Body>" + body + "</Body>" + more + "</Message></ReceiveMessageResult>"
	}
	handle := func(doc, operation string) string {
		return url.QueryEscape(leaves(t, doc)["/"+operation+"Response/"+operation+"Result/Message/ReceiptHandle"])
	}

	ask("/", "CreateQueue", "QueueName=MyQueue&Attribute.1.Name=VisibilityTimeout&Attribute.1.Value=40&Tag.1.Key=QueueType&Tag.1.Value=Production", "<CreateQueueResult><QueueUrl>"+u+"</QueueUrl></CreateQueueResult>")
	ask("/", "GetQueueUrl", "QueueName=MyQueue", "<GetQueueUrlResult><QueueUrl>"+u+"</QueueUrl></GetQueueUrlResult>")
	ask("/", "ListQueues", "QueueNamePrefix=M", "<ListQueuesResult><QueueUrl>"+u+"</QueueUrl></ListQueuesResult>")
	ask("/", "ListQueues", "QueueNamePrefix=x", "<ListQueuesResult/>") // what is empty is there: older clients fail without it
	ask(at, "SetQueueAttributes", "Attribute.Name=VisibilityTimeout&Attribute.Value=35", "")
	ask(at, "GetQueueAttributes", "AttributeName.1=VisibilityTimeout&AttributeName.2=QueueArn",
		"<GetQueueAttributesResult><Attribute><Name>QueueArn</Name><Value>arn:aws:sqs:us-east-1:"+account+":MyQueue</Value></Attribute><Attribute><Name>VisibilityTimeout</Name><Value>35</Value></Attribute></GetQueueAttributesResult>")
	ask(at, "GetQueueAttributes", "", "<GetQueueAttributesResult/>")
	ask(at, "AddPermission", "Label=MyLabel&AWSAccountId.1=177715257436&ActionName.1=SendMessage&ActionName.2=ReceiveMessage", "")
	ask(at, "RemovePermission", "Label=MyLabel", "")
	ask(at, "TagQueue", "Tag.1.Key=QueueType&Tag.1.Value=Test&Tag.2.Key=Owner&Tag.2.Value=Developer", "")
	ask(at, "ListQueueTags", "", "<ListQueueTagsResult><Tag><Key>Owner</Key><Value>Developer</Value></Tag><Tag><Key>QueueType</Key><Value>Test</Value></Tag></ListQueueTagsResult>")
	ask(at, "UntagQueue", "TagKey.1=QueueType&TagKey.2=Owner", "")
	ask(at, "ListQueueTags", "", "<ListQueueTagsResult/>")

	ask(at, "ReceiveMessage", "MaxNumberOfMessages=5&VisibilityTimeout=15&AttributeName=All", "<ReceiveMessageResult/>")
	ask(at, "SendMessage", "MessageBody=This+is+a+test+message&MessageAttribute.1.Name=Foo&MessageAttribute.1.Value.StringValue=Bar&MessageAttribute.1.Value.DataType=String"+
		"&MessageSystemAttribute.1.Name=AWSTraceHeader&MessageSystemAttribute.1.Value.DataType=String&MessageSystemAttribute.1.Value.StringValue="+url.QueryEscape(traceHeader),
		"<SendMessageResult><MD5OfMessageBody>"+testMessageMD5+"</MD5OfMessageBody><MD5OfMessageAttributes>ae7155c6026991b6d54b11589678bf9c</MD5OfMessageAttributes><MD5OfMessageSystemAttributes>"+traceHeaderMD5+"</MD5OfMessageSystemAttributes><MessageId>*</MessageId></SendMessageResult>")
	got := ask(at, "ReceiveMessage", "MaxNumberOfMessages=5&VisibilityTimeout=15&AttributeName=All&MessageAttributeName=All", message("This is a test message", testMessageMD5,
		"<MD5OfMessageAttributes>*</MD5OfMessageAttributes><Attribute><Name>AWSTraceHeader</Name><Value>*</Value></Attribute><Attribute><Name>ApproximateFirstReceiveTimestamp</Name><Value>*</Value></Attribute><Attribute><Name>ApproximateReceiveCount</Name><Value>1</Value></Attribute>"+
			"<Attribute><Name>SenderId</Name><Value>*</Value></Attribute><Attribute><Name>SentTimestamp</Name><Value>*</Value></Attribute><MessageAttribute><Name>Foo</Name><Value><StringValue>Bar</StringValue><DataType>String</DataType></Value></MessageAttribute>"))
	ask(at, "ChangeMessageVisibility", "VisibilityTimeout=60&ReceiptHandle="+handle(got, "ReceiveMessage"), "")
	ask(at, "DeleteMessage", "ReceiptHandle="+handle(got, "ReceiveMessage"), "")

	ask(at, "SendMessageBatch", "SendMessageBatchRequestEntry.1.Id=test_msg_001&SendMessageBatchRequestEntry.1.MessageBody=test+message+body+1&SendMessageBatchRequestEntry.2.Id=test_msg_002&SendMessageBatchRequestEntry.2.MessageBody=x&SendMessageBatchRequestEntry.2.DelaySeconds=901",
		"<SendMessageBatchResult><SendMessageBatchResultEntry><Id>test_msg_001</Id><MessageId>*</MessageId><MD5OfMessageBody>0e024d309850c78cba5eabbeff7cae71</MD5OfMessageBody></SendMessageBatchResultEntry>"+
			"<BatchResultErrorEntry><Id>test_msg_002</Id><Code>InvalidParameterValue</Code><SenderFault>true</SenderFault><Message>*</Message></BatchResultErrorEntry></SendMessageBatchResult>")
	got = ask(at, "ReceiveMessage", "", message("test message body 1", "0e024d309850c78cba5eabbeff7cae71", ""))
	ask(at, "ChangeMessageVisibilityBatch", "ChangeMessageVisibilityBatchRequestEntry.1.Id=change_visibility_msg_2&ChangeMessageVisibilityBatchRequestEntry.1.VisibilityTimeout=45&ChangeMessageVisibilityBatchRequestEntry.1.ReceiptHandle="+handle(got, "ReceiveMessage"),
		"<ChangeMessageVisibilityBatchResult><ChangeMessageVisibilityBatchResultEntry><Id>change_visibility_msg_2</Id></ChangeMessageVisibilityBatchResultEntry></ChangeMessageVisibilityBatchResult>")
	ask(at, "DeleteMessageBatch", "DeleteMessageBatchRequestEntry.1.Id=msg1&DeleteMessageBatchRequestEntry.1.ReceiptHandle="+handle(got, "ReceiveMessage"),
		"<DeleteMessageBatchResult><DeleteMessageBatchResultEntry><Id>msg1</Id></DeleteMessageBatchResultEntry></DeleteMessageBatchResult>")

	dead := "arn:aws:sqs:us-east-1:" + account + ":dead"
	ask("/", "CreateQueue", "QueueName=dead", "<CreateQueueResult><QueueUrl>*</QueueUrl></CreateQueueResult>")
	ask(at, "SetQueueAttributes", "Attribute.1.Name=RedrivePolicy&Attribute.1.Value="+url.QueryEscape(`{"maxReceiveCount":"10","deadLetterTargetArn":"`+dead+`"}`), "")
	ask("/"+account+"/dead", "ListDeadLetterSourceQueues", "", "<ListDeadLetterSourceQueuesResult><QueueUrl>"+u+"</QueueUrl></ListDeadLetterSourceQueuesResult>")
	ask("/"+account+"/dead", "SendMessage", "MessageBody=x", "<SendMessageResult><MD5OfMessageBody>*</MD5OfMessageBody><MessageId>*</MessageId></SendMessageResult>")
	ask("/", "ListMessageMoveTasks", "SourceArn="+dead, "<ListMessageMoveTasksResult/>")
	got = ask("/", "StartMessageMoveTask", "SourceArn="+dead+"&MaxNumberOfMessagesPerSecond=1", "<StartMessageMoveTaskResult><TaskHandle>*</TaskHandle></StartMessageMoveTaskResult>")
	ask("/", "ListMessageMoveTasks", "SourceArn="+dead, "<ListMessageMoveTasksResult><ListMessageMoveTasksResultEntry><TaskHandle>*</TaskHandle><Status>RUNNING</Status><SourceArn>"+dead+"</SourceArn><MaxNumberOfMessagesPerSecond>1</MaxNumberOfMessagesPerSecond>"+
		"<ApproximateNumberOfMessagesMoved>0</ApproximateNumberOfMessagesMoved><ApproximateNumberOfMessagesToMove>1</ApproximateNumberOfMessagesToMove><StartedTimestamp>*</StartedTimestamp></ListMessageMoveTasksResultEntry></ListMessageMoveTasksResult>")
	ask("/", "CancelMessageMoveTask", "TaskHandle="+url.QueryEscape(leaves(t, got)["/StartMessageMoveTaskResponse/StartMessageMoveTaskResult/TaskHandle"]), "<CancelMessageMoveTaskResult><ApproximateNumberOfMessagesMoved>0</ApproximateNumberOfMessagesMoved></CancelMessageMoveTaskResult>")
	ask(at, "PurgeQueue", "", "")
	ask(at, "DeleteQueue", "", "")
}

// What each operation refuses, in both protocols: status, code and words. AWS' answers.
func TestRefusals(t *testing.T) {
	h := start(t)
	arn := "arn:aws:sqs:us-east-1:" + account + ":"
	h.create("dead", nil)
	u := *h.create("q", map[string]string{"RedrivePolicy": `{"deadLetterTargetArn":"` + arn + `dead","maxReceiveCount":"3"}`})
	fifo := *h.create("q.fifo", nil)
	h.send(&fifo, "old", "g", "d")
	old := h.receive(&fifo, 1)[0]
	h.time.move(time.Minute)
	label := &sqs.AddPermissionInput{QueueUrl: &u, Label: aws.String("there"), AWSAccountIds: []string{account}, Actions: []string{"*"}}
	if _, err := h.c.AddPermission(t.Context(), label); err != nil {
		t.Fatal(err)
	}
	none := "http://127.0.0.1:1/" + account + "/none"
	const bad = "InvalidParameterValue"
	const queue = "AWS.SimpleQueueService."
	const gone, goneForm = "The specified queue does not exist.", "The specified queue does not exist for this wsdl version."
	list := func(kind string, n int, more string) (string, string) { // a batch's entries, in JSON and in a form
		var j, f []string
		for i := range n {
			id := fmt.Sprintf("e%d", i)
			j = append(j, `{"Id":"`+id+`"`+more+`}`)
			f = append(f, fmt.Sprintf("%sRequestEntry.%d.Id=%s", kind, i+1, id))
		}
		return "[" + strings.Join(j, ",") + "]", strings.Join(f, "&")
	}
	type refusal struct {
		operation, body, form, code string
		status                      int
		message                     string
	}
	all := []refusal{
		{"CreateQueue", `{"QueueName":"no good"}`, "QueueName=no+good", bad, 400, "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"},
		{"CreateQueue", `{"QueueName":"q","Attributes":{"DelaySeconds":"9"}}`, "QueueName=q&Attribute.1.Name=DelaySeconds&Attribute.1.Value=9", "QueueAlreadyExists", 400, "A queue already exists with the same name and a different value for attribute DelaySeconds"},
		{"CreateQueue", `{"QueueName":"n","Attributes":{"Nothing":"9"}}`, "QueueName=n&Attribute.1.Name=Nothing&Attribute.1.Value=9", "InvalidAttributeName", 400, "Unknown Attribute Nothing."},
		{"CreateQueue", `{"QueueName":"n","Attributes":{"DelaySeconds":"901"}}`, "QueueName=n&Attribute.1.Name=DelaySeconds&Attribute.1.Value=901", "InvalidAttributeValue", 400, "Invalid value for the parameter DelaySeconds."},
		{"CreateQueue", `{"QueueName":"n","Attributes":{"ContentBasedDeduplication":"true"}}`, "QueueName=n&Attribute.1.Name=ContentBasedDeduplication&Attribute.1.Value=true", "InvalidAttributeName", 400, "Unknown Attribute ContentBasedDeduplication."},
		{"CreateQueue", `{"QueueName":"n","Attributes":{"DeduplicationScope":"queue"}}`, "QueueName=n&Attribute.1.Name=DeduplicationScope&Attribute.1.Value=queue", "InvalidAttributeName", 400, "You can specify the DeduplicationScope only when FifoQueue is set to true."},
		{"CreateQueue", `{}`, "", "MissingParameter", 400, "The request must contain the parameter QueueName."},
		{"SetQueueAttributes", `{"QueueUrl":"` + u + `","Attributes":{"FifoQueue":"true"}}`, "QueueUrl=" + u + "&Attribute.1.Name=FifoQueue&Attribute.1.Value=true", "InvalidAttributeName", 400, "Unknown Attribute FifoQueue."},
		{"SetQueueAttributes", `{"QueueUrl":"` + fifo + `","Attributes":{"FifoQueue":"false"}}`, "QueueUrl=" + fifo + "&Attribute.1.Name=FifoQueue&Attribute.1.Value=false", "InvalidAttributeValue", 400, "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported."},
		{"GetQueueAttributes", `{"QueueUrl":"` + u + `","AttributeNames":["Nothing"]}`, "QueueUrl=" + u + "&AttributeName.1=Nothing", "InvalidAttributeName", 400, "Unknown Attribute Nothing."},
		{"AddPermission", `{"QueueUrl":"` + u + `","Label":"there","AWSAccountIds":["1"],"Actions":["*"]}`, "QueueUrl=" + u + "&Label=there&AWSAccountId.1=1&ActionName.1=*", bad, 400, "Value there for parameter Label is invalid. Reason: Already exists."},
		{"AddPermission", `{"QueueUrl":"` + u + `","Label":"l","AWSAccountIds":["1"],"Actions":["Fly"]}`, "QueueUrl=" + u + "&Label=l&AWSAccountId.1=1&ActionName.1=Fly", bad, 400, "Value SQS:Fly for parameter ActionName is invalid. Reason: Please refer to the appropriate WSDL for a list of valid actions. "},
		{"AddPermission", `{"QueueUrl":"` + u + `","Label":"l","AWSAccountIds":["1"],"Actions":["*","*","*","*","*","*","*","*"]}`,
			"QueueUrl=" + u + "&Label=l&AWSAccountId.1=1&ActionName.1=*&ActionName.2=*&ActionName.3=*&ActionName.4=*&ActionName.5=*&ActionName.6=*&ActionName.7=*&ActionName.8=*", "OverLimit", 403, "8 Actions were found, maximum allowed is 7."},
		{"RemovePermission", `{"QueueUrl":"` + u + `","Label":"l"}`, "QueueUrl=" + u + "&Label=l", bad, 400, "Value l for parameter Label is invalid. Reason: can't find label."},
		{"TagQueue", `{"QueueUrl":"` + u + `"}`, "QueueUrl=" + u, "MissingParameter", 400, "The request must contain the parameter Tags."},
		{"UntagQueue", `{"QueueUrl":"` + u + `"}`, "QueueUrl=" + u, "MissingParameter", 400, "The request must contain the parameter TagKeys."},
		{"ListQueues", `{"MaxResults":1001}`, "MaxResults=1001", bad, 400, "Value 1001 for parameter MaxResults is invalid. Reason: Must be between 1 and 1000."},
		{"SendMessage", `{"QueueUrl":"` + u + `","MessageBody":""}`, "QueueUrl=" + u + "&MessageBody=", "MissingParameter", 400, "The request must contain the parameter MessageBody."},
		{"SendMessage", `{"QueueUrl":"` + u + `","MessageBody":"\u0001"}`, "QueueUrl=" + u + "&MessageBody=%01", "InvalidMessageContents", 400, "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF"},
		{"SendMessage", `{"QueueUrl":"` + u + `","MessageBody":"x","MessageGroupId":""}`, "QueueUrl=" + u + "&MessageBody=x&MessageGroupId=", bad, 400, "Value  for parameter MessageGroupId is invalid. Reason: MessageGroupId can only include alphanumeric and punctuation characters. 1 to 128 in length."},
		{"SendMessage", `{"QueueUrl":"` + u + `","MessageBody":"x","MessageAttributes":{"a":{"DataType":"String","StringValue":""}}}`, "QueueUrl=" + u + "&MessageBody=x&MessageAttribute.1.Name=a&MessageAttribute.1.Value.DataType=String&MessageAttribute.1.Value.StringValue=", bad, 400,
			"Message (user) attribute 'a' must contain a non-empty value of type 'String'."},
		{"SendMessage", `{"QueueUrl":"` + fifo + `","MessageBody":"x"}`, "QueueUrl=" + fifo + "&MessageBody=x", "MissingParameter", 400, "The request must contain the parameter MessageGroupId."},
		{"SendMessage", `{"QueueUrl":"` + fifo + `","MessageBody":"x","MessageGroupId":"g"}`, "QueueUrl=" + fifo + "&MessageBody=x&MessageGroupId=g", bad, 400, "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly"},
		{"SendMessage", `{"QueueUrl":"` + fifo + `","MessageBody":"x","MessageGroupId":"g","MessageDeduplicationId":"a b"}`, "QueueUrl=" + fifo + "&MessageBody=x&MessageGroupId=g&MessageDeduplicationId=a+b", bad, 400,
			"Value a b for parameter MessageDeduplicationId is invalid. Reason: MessageDeduplicationId can only include alphanumeric and punctuation characters. 1 to 128 in length."},
		{"SendMessage", `{"QueueUrl":"` + fifo + `","MessageBody":"x","MessageGroupId":"g","MessageDeduplicationId":"n","DelaySeconds":2}`, "QueueUrl=" + fifo + "&MessageBody=x&MessageGroupId=g&MessageDeduplicationId=n&DelaySeconds=2", bad, 400,
			"Value 2 for parameter DelaySeconds is invalid. Reason: The request include parameter that is not valid for this queue type."},
		{"SendMessageBatch", `{"QueueUrl":"` + fifo + `","Entries":[{"Id":"a","MessageBody":"x"}]}`, "QueueUrl=" + fifo + "&SendMessageBatchRequestEntry.1.Id=a&SendMessageBatchRequestEntry.1.MessageBody=x", bad, 400, "The request must contain the parameter MessageGroupId."},
		{"SendMessageBatch", `{"QueueUrl":"` + u + `","Entries":[{"Id":"a b","MessageBody":"x"}]}`, "QueueUrl=" + u + "&SendMessageBatchRequestEntry.1.Id=a+b&SendMessageBatchRequestEntry.1.MessageBody=x", queue + "InvalidBatchEntryId", 400,
			"A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 letters long."},
		{"SendMessageBatch", `{"QueueUrl":"` + u + `","Entries":[{"Id":"a","MessageBody":"x"},{"Id":"a","MessageBody":"x"}]}`, "QueueUrl=" + u + "&SendMessageBatchRequestEntry.1.Id=a&SendMessageBatchRequestEntry.2.Id=a", queue + "BatchEntryIdsNotDistinct", 400, "Id a repeated."},
		{"ReceiveMessage", `{"QueueUrl":"` + u + `","MaxNumberOfMessages":11}`, "QueueUrl=" + u + "&MaxNumberOfMessages=11", bad, 400, "Value 11 for parameter MaxNumberOfMessages is invalid. Reason: Must be between 1 and 10, if provided."},
		{"ReceiveMessage", `{"QueueUrl":"` + u + `","WaitTimeSeconds":21}`, "QueueUrl=" + u + "&WaitTimeSeconds=21", bad, 400, "Value 21 for parameter WaitTimeSeconds is invalid. Reason: Must be >= 0 and <= 20, if provided."},
		{"ReceiveMessage", `{"QueueUrl":"` + u + `","AttributeNames":["Nothing"]}`, "QueueUrl=" + u + "&AttributeName.1=Nothing", "InvalidAttributeName", 400, "Unknown Attribute Nothing."},
		{"DeleteMessage", `{"QueueUrl":"` + u + `","ReceiptHandle":"garbage"}`, "QueueUrl=" + u + "&ReceiptHandle=garbage", "ReceiptHandleIsInvalid", 404, `The input receipt handle "garbage" is not a valid receipt handle.`},
		{"DeleteMessage", `{"QueueUrl":"` + fifo + `","ReceiptHandle":"` + *old.ReceiptHandle + `"}`, "QueueUrl=" + fifo + "&ReceiptHandle=" + url.QueryEscape(*old.ReceiptHandle), bad, 400, "Value " + *old.ReceiptHandle + " for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired."},
		{"ChangeMessageVisibility", `{"QueueUrl":"` + u + `","ReceiptHandle":"garbage","VisibilityTimeout":1}`, "QueueUrl=" + u + "&ReceiptHandle=garbage&VisibilityTimeout=1", "ReceiptHandleIsInvalid", 404, `The input receipt handle "garbage" is not a valid receipt handle.`},
		{"ChangeMessageVisibility", `{"QueueUrl":"` + fifo + `","ReceiptHandle":"` + *old.ReceiptHandle + `","VisibilityTimeout":1}`, "QueueUrl=" + fifo + "&VisibilityTimeout=1&ReceiptHandle=" + url.QueryEscape(*old.ReceiptHandle), queue + "MessageNotInflight", 400, "The message referred to is not in flight."},
		{"ChangeMessageVisibility", `{"QueueUrl":"` + u + `","ReceiptHandle":"garbage","VisibilityTimeout":43201}`, "QueueUrl=" + u + "&ReceiptHandle=garbage&VisibilityTimeout=43201", bad, 400, "Value 43201 for parameter VisibilityTimeout is invalid. Reason: VisibilityTimeout must be an integer between 0 and 43200."},
		{"StartMessageMoveTask", `{"SourceArn":"` + arn + `none"}`, "SourceArn=" + arn + "none", "ResourceNotFoundException", 404, "The resource that you specified for the SourceArn parameter doesn't exist."},
		{"StartMessageMoveTask", `{"SourceArn":"` + arn + `q"}`, "SourceArn=" + arn + "q", bad, 400, "Source queue must be configured as a Dead Letter Queue."},
		{"StartMessageMoveTask", `{"SourceArn":"` + arn + `dead","DestinationArn":"` + arn + `none"}`, "SourceArn=" + arn + "dead&DestinationArn=" + arn + "none", "ResourceNotFoundException", 404, "The resource that you specified for the DestinationArn parameter doesn't exist."},
		{"ListMessageMoveTasks", `{"SourceArn":"` + arn + `none"}`, "SourceArn=" + arn + "none", "ResourceNotFoundException", 404, "The resource that you specified for the SourceArn parameter doesn't exist."},
		{"CancelMessageMoveTask", `{"TaskHandle":"garbage"}`, "TaskHandle=garbage", bad, 400, "Value for parameter TaskHandle is invalid."},
		{"Nothing", `{}`, "", "InvalidAction", 400, "The action Nothing is not valid for this endpoint."},
	}
	for _, kind := range []string{"SendMessageBatch", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"} {
		j, f := list(kind, 11, `,"MessageBody":"x","ReceiptHandle":"x","VisibilityTimeout":1`)
		all = append(all,
			refusal{kind, `{"QueueUrl":"` + u + `","Entries":[]}`, "QueueUrl=" + u, queue + "EmptyBatchRequest", 400, "There should be at least one " + kind + "RequestEntry in the request."},
			refusal{kind, `{"QueueUrl":"` + u + `","Entries":` + j + `}`, "QueueUrl=" + u + "&" + f, queue + "TooManyEntriesInBatchRequest", 400, "Maximum number of entries per request are 10. You have sent 11."})
	}
	// A queue that there is not, to each operation on one.
	for _, operation := range []string{"AddPermission", "ChangeMessageVisibility", "ChangeMessageVisibilityBatch", "DeleteMessage", "DeleteMessageBatch", "DeleteQueue", "GetQueueAttributes", "ListDeadLetterSourceQueues", "ListQueueTags", "PurgeQueue",
		"ReceiveMessage", "RemovePermission", "SendMessage", "SendMessageBatch", "SetQueueAttributes", "TagQueue", "UntagQueue"} {
		all = append(all, refusal{operation, `{"QueueUrl":"` + none + `"}`, "QueueUrl=" + none, queue + "NonExistentQueue", 400, gone})
	}
	all = append(all, refusal{"GetQueueUrl", `{"QueueName":"none"}`, "QueueName=none", queue + "NonExistentQueue", 400, gone})
	for _, x := range all {
		f, err := url.ParseQuery("Action=" + x.operation + "&" + x.form)
		must(t, err)
		status, doc := h.form("/", f)
		got := leaves(t, doc)
		message := x.message
		if message == gone {
			message = goneForm
		}
		if status != x.status || got["/ErrorResponse/Error/Code"] != x.code || got["/ErrorResponse/Error/Message"] != strings.TrimSpace(message) || got["/ErrorResponse/Error/Type"] != "Sender" || got["/ErrorResponse/RequestId"] == "" {
			t.Errorf("%s with %q: %d %v, want %d %s %q", x.operation, x.form, status, got, x.status, x.code, message)
		}
		if x.operation == "Nothing" {
			x.code = "UnknownOperationException"
		}
		if err := h.raw(x.operation, x.body); code(err) != x.code || statusOf(err) != x.status || !strings.HasSuffix(err.Error(), ": "+x.message) {
			t.Errorf("%s with %s: %d %v, want %d %s %q", x.operation, x.body, statusOf(err), err, x.status, x.code, x.message)
		}
	}
	// The SDK has types for these.
	var isGone *types.QueueDoesNotExist
	if _, err := h.c.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String("none")}); !errors.As(err, &isGone) {
		t.Error(err)
	}
	var isThere *types.QueueNameExists
	if _, err := h.c.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("q"), Attributes: map[string]string{"DelaySeconds": "9"}}); !errors.As(err, &isThere) {
		t.Error(err)
	}
	var unknown *types.ResourceNotFoundException
	if _, err := h.c.ListMessageMoveTasks(t.Context(), &sqs.ListMessageMoveTasksInput{SourceArn: aws.String(arn + "none")}); !errors.As(err, &unknown) || statusOf(err) != 404 {
		t.Error(err)
	}
	// Permissions and ten tags more than there may be.
	tags := map[string]string{}
	for i := range 51 {
		tags[fmt.Sprint(i)] = ""
	}
	if _, err := h.c.TagQueue(t.Context(), &sqs.TagQueueInput{QueueUrl: &u, Tags: tags}); code(err) != bad || !strings.Contains(err.Error(), "Too many tags added for queue q.") {
		t.Error(err)
	}
	// A key that uses nothing.
	s, stop := open(t, t.TempDir(), nil)
	defer stop()
	_, err := s.Serve(t.Context(), &awsapi.Request{Caller: awsapi.Caller{Account: account, Of: "service x"}, Operation: "CreateQueue", Body: []byte(`{"QueueName":"n"}`)})
	var f *awsapi.Fault
	if !errors.As(err, &f) || f.Code != "AccessDeniedException" || f.Query != "AccessDenied" {
		t.Error(err)
	}
}

// A queue is purged once a minute; AWS refuses a second time with an error of its own.
func TestAQueueIsPurgedOnceAMinute(t *testing.T) {
	h := start(t)
	u, other := h.create("q", nil), h.create("other", nil)
	purge := func(u *string) error {
		_, err := h.c.PurgeQueue(t.Context(), &sqs.PurgeQueueInput{QueueUrl: u})
		return err
	}
	must(t, purge(u))
	h.send(u, "stays", "", "")
	h.time.move(59 * time.Second)
	const words = "Only one PurgeQueue operation on q is allowed every 60 seconds."
	var purging *types.PurgeQueueInProgress
	if err := purge(u); !errors.As(err, &purging) || purging.ErrorMessage() != words || statusOf(err) != 400 {
		t.Errorf("in JSON: %d %v", statusOf(err), err)
	}
	status, doc := h.form("/", url.Values{"Action": {"PurgeQueue"}, "QueueUrl": {*u}})
	if got := leaves(t, doc); status != 403 || got["/ErrorResponse/Error/Code"] != "AWS.SimpleQueueService.PurgeQueueInProgress" || got["/ErrorResponse/Error/Message"] != words {
		t.Errorf("in the query protocol: %d %v", status, got)
	}
	must(t, purge(other))
	if ms := h.receive(u, 10); len(ms) != 1 {
		t.Errorf("a refused purge left %v", bodies(ms))
	}
	h.time.move(2 * time.Second) // a refused one does not count
	must(t, purge(u))
}

func statusOf(err error) int {
	var e *smithyhttp.ResponseError
	if errors.As(err, &e) {
		return e.HTTPStatusCode()
	}
	return 0
}

// raw asks in JSON, past what the SDK checks by itself, and returns the refusal as the SDK would.
func (h *harness) raw(operation, body string) error {
	h.t.Helper()
	res := h.post("", body, http.Header{"Content-Type": {"application/x-amz-json-1.0"}, "X-Amz-Target": {"AmazonSQS." + operation}})
	defer res.Body.Close()
	if res.StatusCode == http.StatusOK {
		return nil
	}
	var told struct {
		Type    string `json:"__type"`
		Message string `json:"message"`
	}
	if err := json.NewDecoder(res.Body).Decode(&told); err != nil {
		h.t.Fatal(err)
	}
	_, name, _ := strings.Cut(told.Type, "#")
	if query, _, ok := strings.Cut(res.Header.Get("X-Amzn-Query-Error"), ";"); ok { // as clients of the query protocol knew it
		name = query
	}
	return &smithyhttp.ResponseError{Response: &smithyhttp.Response{Response: res}, Err: &smithy.GenericAPIError{Code: name, Message: told.Message}}
}
