package main

import (
	"context"
	"encoding/json"
	"log"
	"net/http"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/attributevalue"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// happening is what somebody is to be told of: a message of the queue.
type happening struct {
	To   int64  `json:"to"`
	By   int64  `json:"by"`
	Kind string `json:"kind"` // comment, favorite or follow
	Slug string `json:"slug,omitempty"`
}

// notice is a happening as it lies in its reader's inbox: an item of the table.
type notice struct {
	User int64  `dynamodbav:"user" json:"-"`
	At   string `dynamodbav:"at" json:"at"` // sorts as time does
	Text string `dynamodbav:"text" json:"text"`
	Slug string `dynamodbav:"slug,omitempty" json:"slug,omitempty"`
	Ends int64  `dynamodbav:"ends" json:"-"` // the table forgets it then
}

// keepNotices is how long a notice lies in an inbox.
const keepNotices = 30 * 24 * time.Hour

// telling sends happenings away, so that no request waits for what they lead to. Without a queue nobody is told.
type telling struct {
	queue *sqs.Client
	url   string
}

// tell sends a happening. The request that caused it succeeded already, whatever comes of it.
func (t *telling) tell(ctx context.Context, h happening) {
	if t.queue == nil || h.To == h.By || h.To == 0 {
		return
	}
	body, err := json.Marshal(h)
	if err == nil {
		_, err = t.queue.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &t.url, MessageBody: aws.String(string(body))})
	}
	if err != nil {
		log.Printf("tell %d of a %s: %v", h.To, h.Kind, err)
	}
}

// inbox is the table of notices.
type inbox struct {
	db    *dynamodb.Client
	table string
}

func (x *inbox) put(ctx context.Context, n notice) error {
	item, err := attributevalue.MarshalMap(n)
	if err != nil {
		return err
	}
	_, err = x.db.PutItem(ctx, &dynamodb.PutItemInput{TableName: &x.table, Item: item})
	return err
}

// of gives a user's newest notices.
func (x *inbox) of(ctx context.Context, user int64) ([]notice, error) {
	out := []notice{}
	if x.db == nil {
		return out, nil
	}
	found, err := x.db.Query(ctx, &dynamodb.QueryInput{TableName: &x.table, KeyConditionExpression: aws.String("#u = :u"), ExpressionAttributeNames: map[string]string{"#u": "user"},
		ExpressionAttributeValues: map[string]types.AttributeValue{":u": number(user)}, ScanIndexForward: aws.Bool(false), Limit: aws.Int32(20)})
	if err != nil {
		return nil, err
	}
	return out, attributevalue.UnmarshalListOfMaps(found.Items, &out)
}

// notices answers with a user's inbox.
func (a *api) notices(r *http.Request, viewer int64) (any, error) {
	found, err := a.inbox.of(r.Context(), viewer)
	return map[string]any{"notices": found}, err
}

// notify is the function behind the queue: it writes happenings into inboxes. What fails stays in the queue.
func (a *api) notify(ctx context.Context, e events.SQSEvent) (out events.SQSEventResponse, err error) {
	for _, m := range e.Records {
		if err := a.deliver(ctx, m); err != nil {
			log.Printf("message %s: %v", m.MessageId, err)
			out.BatchItemFailures = append(out.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: m.MessageId})
		}
	}
	return out, nil
}

func (a *api) deliver(ctx context.Context, m events.SQSMessage) error {
	var h happening
	if err := json.Unmarshal([]byte(m.Body), &h); err != nil {
		return err
	}
	var by string
	if err := a.db.QueryRow(ctx, `select username from users where id = $1`, h.By).Scan(&by); err != nil {
		return err
	}
	text := map[string]string{"comment": by + " commented on your article", "favorite": by + " likes your article", "follow": by + " follows you"}[h.Kind]
	now := time.Now().UTC()
	// A message that comes twice is one notice.
	return a.inbox.put(ctx, notice{User: h.To, At: sentAt(m, now).Format("2006-01-02T15:04:05.000Z") + " " + m.MessageId, Text: text, Slug: h.Slug, Ends: now.Add(keepNotices).Unix()})
}

func sentAt(m events.SQSMessage, now time.Time) time.Time {
	var ms int64
	if json.Unmarshal([]byte(m.Attributes["SentTimestamp"]), &ms) != nil {
		return now
	}
	return time.UnixMilli(ms).UTC()
}
