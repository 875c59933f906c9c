package source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
)

// SQS is a queue as its API has it.
type SQS struct {
	Ask     Ask
	Account string
	Name    string // ends in ".fifo" when it is in order
	ARN     string
	Region  string
	Timeout time.Duration // the queue's VisibilityTimeout
}

const sqs = "sqs"

// Visible implements Queue.
func (q *SQS) Visible() time.Duration { return q.Timeout }

// Ordered implements Queue.
func (q *SQS) Ordered() bool { return strings.HasSuffix(q.Name, ".fifo") }

// message is one as ReceiveMessage gives it.
type message struct {
	MessageID     string `json:"MessageId"`
	ReceiptHandle string
	MD5OfBody     string
	MD5OfAttrs    string `json:"MD5OfMessageAttributes"`
	Body          string
	Attributes    map[string]string
	Own           map[string]struct {
		DataType    string
		StringValue *string
		BinaryValue *string // in base64
	} `json:"MessageAttributes"`
}

// Take implements Queue.
func (q *SQS) Take(ctx context.Context, n int, wait, hold time.Duration) ([]Record, error) {
	question := map[string]any{"QueueUrl": q.Name, "MaxNumberOfMessages": n, "WaitTimeSeconds": int(wait / time.Second), "MessageSystemAttributeNames": []string{"All"}, "MessageAttributeNames": []string{"All"}}
	if hold > 0 {
		question["VisibilityTimeout"] = whole(q.Timeout + hold)
	}
	var answer struct{ Messages []message }
	if err := q.Ask(ctx, q.Account, sqs, "ReceiveMessage", question, &answer); err != nil {
		return nil, err
	}
	out := make([]Record, 0, len(answer.Messages))
	for _, m := range answer.Messages {
		r, err := q.record(m)
		if err != nil {
			return out, err
		}
		out = append(out, r)
	}
	return out, nil
}

// whole is a time in seconds that SQS takes.
func whole(d time.Duration) int { return min(int((d+time.Second-1)/time.Second), 43200) }

// record is a message as the event has it.
func (q *SQS) record(m message) (Record, error) {
	type value struct {
		String *string  `json:"stringValue,omitempty"`
		Binary *string  `json:"binaryValue,omitempty"`
		Texts  []string `json:"stringListValues"`
		Blobs  []string `json:"binaryListValues"`
		Type   string   `json:"dataType"`
	}
	own := map[string]value{}
	for name, a := range m.Own {
		own[name] = value{String: a.StringValue, Binary: a.BinaryValue, Texts: []string{}, Blobs: []string{}, Type: a.DataType}
	}
	attrs := m.Attributes
	if attrs == nil {
		attrs = map[string]string{}
	}
	body, err := plain(struct {
		ID         string            `json:"messageId"`
		Handle     string            `json:"receiptHandle"`
		Body       string            `json:"body"`
		Attributes map[string]string `json:"attributes"`
		Own        map[string]value  `json:"messageAttributes"`
		MD5        string            `json:"md5OfBody"`
		MD5OfAttrs string            `json:"md5OfMessageAttributes,omitempty"`
		Source     string            `json:"eventSource"`
		ARN        string            `json:"eventSourceARN"`
		Region     string            `json:"awsRegion"`
	}{m.MessageID, m.ReceiptHandle, m.Body, attrs, own, m.MD5OfBody, m.MD5OfAttrs, "aws:sqs", q.ARN, q.Region})
	r := Record{ID: m.MessageID, Key: attrs["MessageGroupId"], Body: body, Handle: m.ReceiptHandle}
	if ms, err := strconv.ParseInt(attrs["SentTimestamp"], 10, 64); err == nil {
		r.At = time.UnixMilli(ms)
	}
	return r, err
}

// plain is v in JSON as it is: no letter is written longer for the sake of HTML.
func plain(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// Done implements Queue.
func (q *SQS) Done(ctx context.Context, records []Record) error {
	return q.each(ctx, "DeleteMessageBatch", records, func(entry map[string]any) {})
}

// Hold implements Queue.
func (q *SQS) Hold(ctx context.Context, records []Record, d time.Duration) error {
	return q.each(ctx, "ChangeMessageVisibilityBatch", records, func(entry map[string]any) { entry["VisibilityTimeout"] = whole(d) })
}

// each asks for an operation on records, ten at a time. One that the queue refuses has changed hands or is gone: it is
// the queue's again.
func (q *SQS) each(ctx context.Context, operation string, records []Record, set func(map[string]any)) (all error) {
	for some := range slices.Chunk(records, takeMost) {
		var entries []map[string]any
		for i, r := range some {
			e := map[string]any{"Id": strconv.Itoa(i), "ReceiptHandle": r.Handle}
			set(e)
			entries = append(entries, e)
		}
		var answer struct {
			Failed []struct {
				Code, Message string
				SenderFault   bool
			}
		}
		err := q.Ask(ctx, q.Account, sqs, operation, map[string]any{"QueueUrl": q.Name, "Entries": entries}, &answer)
		for _, f := range answer.Failed {
			if err == nil && !f.SenderFault {
				err = errors.New(operation + ": " + f.Message)
			}
		}
		if err != nil {
			all = err
		}
	}
	return all
}
