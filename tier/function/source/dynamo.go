package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Dynamo is a table's stream as the API of DynamoDB Streams has it.
type Dynamo struct {
	Ask     Ask
	Account string
	Region  string
	Table   string // as SDKs call it
	// Service is what the API is asked for by; "": dynamodb, as clients sign.
	Service string

	mu  sync.Mutex
	arn string
	by  string            // the table's partition key
	its map[string]cursor // by shard
}

// cursor is an iterator that is good at a position.
type cursor struct{ position, iterator string }

// Positions: "oldest"; "since:" and Unix seconds; "after:" and a sequence number.
const since, after = "since:", "after:"

func (d *Dynamo) ask(ctx context.Context, operation string, question, answer any) error {
	service := d.Service
	if service == "" {
		service = "dynamodb"
	}
	return d.Ask(ctx, d.Account, service, operation, question, answer)
}

// Shards implements Stream: those of the table's newest stream.
func (d *Dynamo) Shards(ctx context.Context) ([]Shard, error) {
	var list struct {
		Streams []struct{ StreamArn string }
	}
	if err := d.ask(ctx, "ListStreams", map[string]any{"TableName": d.Table}, &list); err != nil {
		return nil, err
	}
	if len(list.Streams) == 0 {
		return nil, fmt.Errorf("the table %s has no stream", d.Table)
	}
	arn := list.Streams[len(list.Streams)-1].StreamArn
	var out []Shard
	for from := ""; ; {
		var said struct {
			StreamDescription struct {
				KeySchema []struct{ AttributeName, KeyType string }
				Shards    []struct{ ShardId, ParentShardId string }
				Last      string `json:"LastEvaluatedShardId"`
			}
		}
		question := map[string]any{"StreamArn": arn}
		if from != "" {
			question["ExclusiveStartShardId"] = from
		}
		if err := d.ask(ctx, "DescribeStream", question, &said); err != nil {
			return nil, err
		}
		x := said.StreamDescription
		for _, s := range x.Shards {
			out = append(out, Shard{s.ShardId, s.ParentShardId})
		}
		d.mu.Lock()
		d.arn = arn
		for _, k := range x.KeySchema {
			if k.KeyType == "HASH" {
				d.by = k.AttributeName
			}
		}
		d.mu.Unlock()
		if from = x.Last; from == "" {
			return out, nil
		}
	}
}

// Begin implements Stream. Latest is kept as a time: an iterator is good for minutes, a place for as long as records are.
func (d *Dynamo) Begin(_ context.Context, _, start string) (string, error) {
	if start == Latest {
		return since + strconv.FormatInt(time.Now().Unix(), 10), nil
	}
	return Oldest, nil
}

// iterator gets one for a position.
func (d *Dynamo) iterator(ctx context.Context, shard, position string) (string, error) {
	d.mu.Lock()
	arn, have := d.arn, d.its[shard]
	d.mu.Unlock()
	if have.position == position && have.iterator != "" {
		return have.iterator, nil
	}
	question := map[string]any{"StreamArn": arn, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
	if number, ok := strings.CutPrefix(position, after); ok {
		question["ShardIteratorType"], question["SequenceNumber"] = "AFTER_SEQUENCE_NUMBER", number
	}
	var said struct{ ShardIterator string }
	err := d.ask(ctx, "GetShardIterator", question, &said)
	if code(err) == "TrimmedDataAccessException" { // what came after it is gone
		return d.iterator(ctx, shard, Oldest)
	}
	return said.ShardIterator, err
}

// Read implements Stream.
func (d *Dynamo) Read(ctx context.Context, shard, position string, n int) (records []Record, next string, end bool, err error) {
	it, err := d.iterator(ctx, shard, position)
	if err != nil {
		return nil, position, false, err
	}
	var said struct {
		Records           []json.RawMessage
		NextShardIterator string
	}
	err = d.ask(ctx, "GetRecords", map[string]any{"ShardIterator": it, "Limit": min(max(n, 1), 1000)}, &said)
	if err != nil {
		d.keep(shard, cursor{})
		if c := code(err); c == "ExpiredIteratorException" || c == "TrimmedDataAccessException" {
			return nil, position, false, nil // with another
		}
		return nil, position, false, err
	}
	next = position
	from, _ := strconv.ParseInt(strings.TrimPrefix(position, since), 10, 64)
	for _, raw := range said.Records {
		r, err := d.record(raw)
		if err != nil {
			return nil, position, false, err
		}
		next = r.Handle
		if strings.HasPrefix(position, since) && !r.At.IsZero() && r.At.Unix() < from {
			continue
		}
		records = append(records, r)
	}
	if strings.HasPrefix(position, since) && len(records) == 0 { // the next are not older, or left out too
		next = position
	}
	if said.NextShardIterator == "" {
		return records, next, true, nil
	}
	d.keep(shard, cursor{next, said.NextShardIterator})
	return records, next, false, nil
}

func (d *Dynamo) keep(shard string, c cursor) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.its == nil {
		d.its = map[string]cursor{}
	}
	d.its[shard] = c
}

// record is one as the event has it.
func (d *Dynamo) record(raw json.RawMessage) (Record, error) {
	var x map[string]json.RawMessage
	var said struct {
		DynamoDB struct {
			SequenceNumber              string
			ApproximateCreationDateTime float64
			Keys                        map[string]json.RawMessage
		} `json:"dynamodb"`
	}
	if err := errors.Join(json.Unmarshal(raw, &x), json.Unmarshal(raw, &said)); err != nil {
		return Record{}, fmt.Errorf("read a record of a stream: %w", err)
	}
	if said.DynamoDB.SequenceNumber == "" {
		return Record{}, errors.New("read a record of a stream: it has no sequence number")
	}
	d.mu.Lock()
	arn, by := d.arn, d.by
	d.mu.Unlock()
	set := func(name, value string) {
		if len(x[name]) == 0 {
			x[name], _ = json.Marshal(value)
		}
	}
	set("eventSource", "aws:dynamodb")
	set("eventVersion", "1.1")
	set("awsRegion", d.Region)
	set("eventSourceARN", arn)
	body, err := plain(x)
	r := Record{ID: said.DynamoDB.SequenceNumber, Key: string(said.DynamoDB.Keys[by]), Body: body, Handle: after + said.DynamoDB.SequenceNumber}
	if at := said.DynamoDB.ApproximateCreationDateTime; at > 0 && at < 1e12 {
		r.At = time.UnixMilli(int64(at * 1000))
	}
	return r, err
}
