package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
)

// asked answers an operation by a function of what was asked, both in JSON.
func asked(f func(operation string, q map[string]any) (any, error)) Ask {
	return func(_ context.Context, account, service, operation string, question, answer any) error {
		b, err := json.Marshal(question)
		if err != nil {
			return err
		}
		var q map[string]any
		if err := json.Unmarshal(b, &q); err != nil {
			return err
		}
		a, err := f(service+"."+operation, q)
		if err != nil {
			return err
		}
		if b, err = json.Marshal(a); err != nil {
			return err
		}
		return json.Unmarshal(b, answer)
	}
}

type object = map[string]any

// The event is what AWS' own library for Go reads as one of SQS.
func TestAnEventOfSQS(t *testing.T) {
	var did []string
	q := &SQS{Account: "123456789012", Name: "orders.fifo", ARN: "arn:aws:sqs:us-east-1:123456789012:orders.fifo", Region: "us-east-1", Timeout: 90 * time.Second,
		Ask: asked(func(operation string, q map[string]any) (any, error) {
			did = append(did, operation)
			switch operation {
			case "sqs.ReceiveMessage":
				if q["VisibilityTimeout"] != 95.0 || q["MaxNumberOfMessages"] != 7.0 || q["WaitTimeSeconds"] != 1.0 || q["QueueUrl"] != "orders.fifo" {
					t.Errorf("%v", q)
				}
				return object{"Messages": []object{{"MessageId": "id-1", "ReceiptHandle": "h-1", "MD5OfBody": "5d41402abc4b2a76b9719d911017c592", "MD5OfMessageAttributes": "00", "Body": "<hello> & \"all\"",
					"Attributes":        object{"SentTimestamp": "1545082649183", "MessageGroupId": "g", "ApproximateReceiveCount": "2"},
					"MessageAttributes": object{"n": object{"DataType": "Number", "StringValue": "7"}, "b": object{"DataType": "Binary", "BinaryValue": "aGk="}}}}}, nil
			case "sqs.DeleteMessageBatch":
				if e := q["Entries"].([]any); len(e) != 1 || e[0].(object)["ReceiptHandle"] != "h-1" {
					t.Errorf("%v", q)
				}
				return object{"Failed": []object{{"Code": "ReceiptHandleIsInvalid", "SenderFault": true}}}, nil
			}
			if e := q["Entries"].([]any); e[0].(object)["VisibilityTimeout"] != 0.0 {
				t.Errorf("%v", q)
			}
			return object{"Failed": []object{{"Code": "InternalFailure", "Message": "the disk is full"}}}, nil
		})}
	got, err := q.Take(t.Context(), 7, time.Second, 5*time.Second)
	if err != nil || len(got) != 1 || got[0].Key != "g" || got[0].ID != "id-1" || !q.Ordered() {
		t.Fatalf("%+v, %v", got, err)
	}
	var e events.SQSEvent
	if err := json.Unmarshal(event(got), &e); err != nil {
		t.Fatal(err)
	}
	m := e.Records[0]
	if m.Body != `<hello> & "all"` || m.EventSource != "aws:sqs" || m.EventSourceARN != q.ARN || m.AWSRegion != "us-east-1" || m.Md5OfBody == "" || m.Md5OfMessageAttributes != "00" || m.ReceiptHandle != "h-1" ||
		m.Attributes["SentTimestamp"] != "1545082649183" || *m.MessageAttributes["n"].StringValue != "7" || string(m.MessageAttributes["b"].BinaryValue) != "hi" || strings.Contains(string(event(got)), `\u003c`) {
		t.Errorf("%+v", m)
	}
	if err := q.Done(t.Context(), got); err != nil {
		t.Errorf("one that is gone: %v", err)
	}
	if err := q.Hold(t.Context(), got, 0); err == nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("%v", err)
	}
	if !slices.Equal(did, []string{"sqs.ReceiveMessage", "sqs.DeleteMessageBatch", "sqs.ChangeMessageVisibilityBatch"}) {
		t.Error(did)
	}
}

// What a stream of DynamoDB says is read by iterators, which may expire; places are sequence numbers.
func TestAStreamOfDynamoDB(t *testing.T) {
	const arn = "arn:aws:dynamodb:us-east-1:123456789012:table/sessions/stream/2026-11-27T00:00:00.000"
	began := time.Now().Unix()
	var all []object
	for i := range 5 {
		at := began - 100
		if i >= 3 {
			at = began + 1
		}
		all = append(all, object{"eventID": strconv.Itoa(i), "eventName": "INSERT", "dynamodb": object{"SequenceNumber": fmt.Sprintf("%03d", i), "ApproximateCreationDateTime": at,
			"Keys": object{"user": object{"S": "u" + strconv.Itoa(i%2)}, "at": object{"N": strconv.Itoa(i)}}, "NewImage": object{"text": object{"S": "<b>"}}, "StreamViewType": "NEW_IMAGE"}})
	}
	expire := true
	ask := asked(func(operation string, q map[string]any) (any, error) {
		switch operation {
		case "dynamodb.ListStreams":
			return object{"Streams": []object{{"StreamArn": "older"}, {"StreamArn": arn}}}, nil
		case "dynamodb.DescribeStream":
			if q["ExclusiveStartShardId"] == nil {
				return object{"StreamDescription": object{"Shards": []object{{"ShardId": "a"}}, "LastEvaluatedShardId": "a", "KeySchema": []object{{"AttributeName": "user", "KeyType": "HASH"}, {"AttributeName": "at", "KeyType": "RANGE"}}}}, nil
			}
			return object{"StreamDescription": object{"Shards": []object{{"ShardId": "b", "ParentShardId": "a"}}}}, nil
		case "dynamodb.GetShardIterator":
			if q["ShardIteratorType"] == "TRIM_HORIZON" {
				return object{"ShardIterator": "0"}, nil
			}
			n, _ := strconv.Atoi(q["SequenceNumber"].(string))
			if n == 77 {
				return nil, &Refusal{"TrimmedDataAccessException", "gone"}
			}
			return object{"ShardIterator": strconv.Itoa(n + 1)}, nil
		case "dynamodb.GetRecords":
			from, _ := strconv.Atoi(q["ShardIterator"].(string))
			if from == 2 && expire {
				expire = false
				return nil, &Refusal{"ExpiredIteratorException", "too late"}
			}
			to := min(len(all), from+int(q["Limit"].(float64)))
			out := object{"Records": all[from:to]}
			if to < len(all) {
				out["NextShardIterator"] = strconv.Itoa(to)
			}
			return out, nil
		}
		return nil, errors.New(operation)
	})
	d := &Dynamo{Ask: ask, Account: "123456789012", Region: "us-east-1", Table: "sessions"}
	shards, err := d.Shards(t.Context())
	if err != nil || !slices.Equal(shards, []Shard{{"a", ""}, {"b", "a"}}) {
		t.Fatalf("%v, %v", shards, err)
	}
	read := func(position string) (out []Record, at string) {
		t.Helper()
		for end := false; !end; {
			var some []Record
			var err error
			if some, position, end, err = d.Read(t.Context(), "a", position, 2); err != nil {
				t.Fatal(err)
			}
			out = append(out, some...)
		}
		return out, position
	}
	oldest, err := d.Begin(t.Context(), "a", Oldest)
	if err != nil {
		t.Fatal(err)
	}
	got, at := read(oldest)
	if len(got) != 5 || expire || at != got[4].Handle || got[0].Key != got[2].Key || got[0].Key == got[1].Key {
		t.Fatalf("%+v", got)
	}
	var e events.DynamoDBEvent
	if err := json.Unmarshal(event(got), &e); err != nil {
		t.Fatal(err)
	}
	if r := e.Records[4]; r.EventSourceArn != arn || r.EventSource != "aws:dynamodb" || r.AWSRegion != "us-east-1" || r.Change.SequenceNumber != "004" || r.Change.NewImage["text"].String() != "<b>" {
		t.Errorf("%+v", r)
	}
	if got, _ := read(got[2].Handle); len(got) != 2 {
		t.Errorf("after a place: %+v", got)
	}
	if got, _ := read(after + "077"); len(got) != 5 {
		t.Errorf("after one that is gone: %d", len(got))
	}
	latest, err := d.Begin(t.Context(), "a", Latest)
	if err != nil {
		t.Fatal(err)
	}
	d.its = nil
	if got, _ := read(latest); len(got) != 2 || got[0].ID != "003" {
		t.Errorf("latest: %+v", got)
	}
}
