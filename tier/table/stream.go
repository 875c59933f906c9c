package table

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"tenfold/internal/awsapi"
	"tenfold/tier/table/attr"
	"tenfold/tier/table/request"
)

// A stream is one shard: its records are numbered in the order in which the changes of each item were made, and
// stand in the same batch as the change. They are kept for a day.

const (
	keepRecords = 24 * time.Hour
	// iteratorFor is how long a shard iterator is good for.
	iteratorFor = 15 * time.Minute
	maxRecords  = 1000
)

// stream numbers records and knows up to where they are all on disk.
type stream struct {
	mu   sync.Mutex
	next uint64
	open []uint64 // those that were given out and are not on disk yet, in order
}

func (r *stream) init() { r.next = 1 }

func (r *stream) begin() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.next
	r.next++
	r.open = append(r.open, n)
	return n
}

func (r *stream) written(n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i, ok := slices.BinarySearch(r.open, n); ok {
		r.open = slices.Delete(r.open, i, i+1)
	}
}

// end is the number before which every record is on disk.
func (r *stream) end() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.open) > 0 {
		return r.open[0]
	}
	return r.next
}

// openStream finds out where a table's records go on. Numbers grow with the clock too, so that none is given
// out twice after all records were deleted.
func (s *Store) openStream(t *table, d *definition) error {
	prefix := key(keyStream, d.ID)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return err
	}
	defer it.Close()
	t.stream.next = uint64(s.cfg.Now().UnixMilli()) << 12
	if it.Last() {
		t.stream.next = max(t.stream.next, binary.BigEndian.Uint64(it.Key()[len(prefix):])+1)
	}
	return it.Error()
}

// startStream gives a definition a new stream.
func (s *Store) startStream(d *definition, view string) {
	now := s.cfg.Now().UTC()
	d.Stream, d.Label, d.Began = view, now.Format("2006-01-02T15:04:05.000"), now.UnixMilli()
}

const (
	recordForm = 1
	insert     = 1
	modify     = 2
	remove     = 3
)

// putRecord appends the record of a change: form, event, whether it expired, moment, keys, image before, image
// after; the last three with their lengths before them, and the images only where the stream has them.
func (s *Store) putRecord(b *pebble.Batch, c *change) uint64 {
	n := c.t.stream.begin()
	event := byte(modify)
	some := c.after
	switch {
	case c.before == nil:
		event = insert
	case c.after == nil:
		event, some = remove, c.before
	}
	v := []byte{recordForm, event, 0}
	if c.expired {
		v[2] = 1
	}
	v = binary.BigEndian.AppendUint64(v, uint64(s.cfg.Now().UnixMilli()))
	old := c.before
	now := c.after
	switch c.d.Stream {
	case "KEYS_ONLY":
		old, now = nil, nil
	case "NEW_IMAGE":
		old = nil
	case "OLD_IMAGE":
		now = nil
	}
	for _, item := range []attr.Item{c.d.keyOf(nil, some), old, now} {
		var raw []byte
		if item != nil {
			raw = item.AppendBinary(nil)
		}
		v = binary.AppendUvarint(v, uint64(len(raw)))
		v = append(v, raw...)
	}
	b.Set(numbered(keyStream, c.d.ID, n), v, nil)
	return n
}

// streamRecord is a record as it was read.
type streamRecord struct {
	n             uint64
	event         byte
	expired       bool
	at            time.Time
	key, old, now attr.Item // nil: it has none
}

var errRecord = errors.New("a stream record cannot be read")

func readRecord(n uint64, v []byte) (r streamRecord, err error) {
	if len(v) < 11 || v[0] != recordForm {
		return r, errRecord
	}
	r = streamRecord{n: n, event: v[1], expired: v[2] == 1, at: time.UnixMilli(int64(binary.BigEndian.Uint64(v[3:])))}
	v = v[11:]
	for _, into := range []*attr.Item{&r.key, &r.old, &r.now} {
		size, w := binary.Uvarint(v)
		if w <= 0 || size > uint64(len(v)-w) {
			return r, errRecord
		}
		if size > 0 {
			if *into, err = attr.ParseBinary(v[w : w+int(size)]); err != nil {
				return r, err
			}
		}
		v = v[w+int(size):]
	}
	return r, nil
}

// sequence is a record's number as DynamoDB writes it.
func sequence(n uint64) string { return fmt.Sprintf("1%020d", n) }

func readSequence(s string) (uint64, bool) {
	if len(s) != 21 || s[0] != '1' {
		return 0, false
	}
	n, err := strconv.ParseUint(s[1:], 10, 64)
	return n, err == nil
}

func (d *definition) shard() string { return fmt.Sprintf("shardId-%020d-%08x", d.Began, d.ID) }

// streamOf finds a table by the ARN of its stream.
func (s *Store) streamOf(c awsapi.Caller, arn, operation string) (*table, *definition, error) {
	name, label, ok := strings.Cut(arn, "/stream/")
	name, _ = strings.CutPrefix(name, tableARN(c.Account, ""))
	if ok {
		if t := s.find(c.Account, name); t != nil {
			if d := t.def.Load(); d.Label == label {
				if !may(c, d) {
					return nil, nil, awsapi.Denied(c, "dynamodb:"+operation, arn, name)
				}
				return t, d, nil
			}
		}
	}
	return nil, nil, fault("ResourceNotFoundException", "Requested resource not found: Stream: %s not found", arn)
}

func (s *Store) listStreams(c awsapi.Caller, in *request.Input) (any, error) {
	most := cmp.Or(in.Limit, 100)
	list := []member{}
	out := member{}
	passed := in.ExclusiveStartStreamArn == ""
	for _, t := range s.of(c.Account) {
		d := t.def.Load()
		if d.Label == "" || !may(c, d) || in.TableName != "" && in.TableName != d.Name {
			continue
		}
		if !passed {
			passed = d.streamARN() == in.ExclusiveStartStreamArn
			continue
		}
		if len(list) == most {
			out["LastEvaluatedStreamArn"] = list[most-1]["StreamArn"]
			break
		}
		list = append(list, member{"StreamArn": d.streamARN(), "StreamLabel": d.Label, "TableName": d.Name})
	}
	out["Streams"] = list
	return out, nil
}

func (s *Store) describeStream(c awsapi.Caller, in *request.Input) (any, error) {
	t, d, err := s.streamOf(c, in.StreamArn, "DescribeStream")
	if err != nil {
		return nil, err
	}
	first, err := s.firstRecord(t, d)
	if err != nil {
		return nil, err
	}
	status, numbers := "ENABLED", member{"StartingSequenceNumber": sequence(first)}
	if d.Stream == "" {
		status = "DISABLED"
		numbers["EndingSequenceNumber"] = sequence(max(first, t.stream.end()-1))
	}
	shards := []member{}
	if in.ExclusiveStartShardId < d.shard() && (in.ShardFilter == nil || in.ShardFilter.ShardId == "") {
		shards = append(shards, member{"ShardId": d.shard(), "SequenceNumberRange": numbers})
	}
	var sort []string
	if d.Sort != "" {
		sort = []string{d.Sort}
	}
	m := member{
		"StreamArn": d.streamARN(), "StreamLabel": d.Label, "StreamStatus": status, "TableName": d.Name,
		"KeySchema": keySchema([]string{d.Hash}, sort), "Shards": shards, "CreationRequestDateTime": float64(d.Began) / 1000,
	}
	if d.Stream != "" {
		m["StreamViewType"] = d.Stream
	}
	return member{"StreamDescription": m}, nil
}

// firstRecord is the number of the oldest record of the stream that is left, or of the next.
func (s *Store) firstRecord(t *table, d *definition) (uint64, error) {
	it, err := s.records(d, uint64(d.Began)<<12, t.stream.end())
	if err != nil {
		return 0, err
	}
	defer it.Close()
	if it.First() {
		return binary.BigEndian.Uint64(it.Key()[len(it.Key())-8:]), it.Error()
	}
	return t.stream.end(), it.Error()
}

func (s *Store) records(d *definition, from, to uint64) (*pebble.Iterator, error) {
	return s.db.NewIter(&pebble.IterOptions{LowerBound: numbered(keyStream, d.ID, from), UpperBound: numbered(keyStream, d.ID, to)})
}

// iterator is what a shard iterator says, in base64 of JSON.
type iterator struct {
	From  uint64 `json:"f"`
	Until int64  `json:"u"` // Unix ms
}

func (s *Store) iterator(d *definition, from uint64) string {
	raw, err := json.Marshal(iterator{from, s.cfg.Now().Add(iteratorFor).UnixMilli()})
	if err != nil {
		return "" // two numbers
	}
	return d.streamARN() + "|1|" + base64.StdEncoding.EncodeToString(raw)
}

func (s *Store) shardIterator(c awsapi.Caller, in *request.Input) (any, error) {
	t, d, err := s.streamOf(c, in.StreamArn, "GetShardIterator")
	if err != nil {
		return nil, err
	}
	if in.ShardId != d.shard() {
		return nil, fault("ResourceNotFoundException", "Requested resource not found: Shard does not exist")
	}
	first, err := s.firstRecord(t, d)
	if err != nil {
		return nil, err
	}
	from := t.stream.end()
	switch in.ShardIteratorType {
	case "TRIM_HORIZON":
		from = first
	case "LATEST":
	default:
		n, ok := readSequence(in.SequenceNumber)
		if !ok {
			return nil, invalid("Invalid SequenceNumber")
		}
		if n < first && n < uint64(s.cfg.Now().Add(-keepRecords).UnixMilli())<<12 {
			return nil, fault("TrimmedDataAccessException", "The operation attempted to read past the oldest stream record in a shard.")
		}
		if from = n; in.ShardIteratorType == "AFTER_SEQUENCE_NUMBER" {
			from++
		}
	}
	return member{"ShardIterator": s.iterator(d, from)}, nil
}

func (s *Store) getRecords(c awsapi.Caller, in *request.Input) (any, error) {
	arn, rest, ok := strings.Cut(in.ShardIterator, "|1|")
	var at iterator
	raw64, err := base64.StdEncoding.DecodeString(rest)
	if !ok || err != nil || json.Unmarshal(raw64, &at) != nil {
		return nil, invalid("Invalid ShardIterator")
	}
	t, d, err := s.streamOf(c, arn, "GetRecords")
	if err != nil {
		return nil, err
	}
	if s.cfg.Now().UnixMilli() > at.Until {
		return nil, fault("ExpiredIteratorException", "Iterator expired. The iterator was created more than 15 minutes ago.")
	}
	end := t.stream.end()
	it, err := s.records(d, at.From, max(end, at.From))
	if err != nil {
		return nil, err
	}
	defer it.Close()
	list := []member{}
	next, size := max(at.From, end), 0
	for ok := it.First(); ok; ok = it.Next() {
		n := binary.BigEndian.Uint64(it.Key()[len(it.Key())-8:])
		if len(list) == cmp.Or(in.Limit, maxRecords) || size >= pageBytes {
			next = n
			break
		}
		r, err := readRecord(n, it.Value())
		if err != nil {
			return nil, err
		}
		m := r.describe(d)
		size += r.key.Size() + r.old.Size() + r.now.Size()
		list = append(list, m)
	}
	if err := it.Error(); err != nil {
		return nil, err
	}
	out := member{"Records": list}
	if d.Stream != "" || next < end {
		out["NextShardIterator"] = s.iterator(d, next)
	}
	return out, nil
}

// describe is a Record.
func (r streamRecord) describe(d *definition) member {
	m := member{
		"ApproximateCreationDateTime": r.at.Unix(), "Keys": raw(r.key), "SequenceNumber": sequence(r.n),
		"SizeBytes": r.key.Size() + r.old.Size() + r.now.Size(), "StreamViewType": cmp.Or(d.Stream, "NEW_AND_OLD_IMAGES"),
	}
	if r.old != nil {
		m["OldImage"] = raw(r.old)
	}
	if r.now != nil {
		m["NewImage"] = raw(r.now)
	}
	out := member{
		"awsRegion": awsapi.Region, "eventID": fmt.Sprintf("%08x%024x", d.ID, r.n), "eventName": []string{"", "INSERT", "MODIFY", "REMOVE"}[min(r.event, remove)],
		"eventSource": "aws:dynamodb", "eventVersion": "1.1", "dynamodb": m,
	}
	if r.expired {
		out["userIdentity"] = member{"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}
	}
	return out
}

// trimStream deletes the records that are older than a day.
func (s *Store) trimStream(d *definition) error {
	horizon := s.cfg.Now().Add(-keepRecords)
	prefix := key(keyStream, d.ID)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return err
	}
	defer it.Close()
	end := []byte(nil)
	for ok := it.First(); ok; ok = it.Next() {
		if v := it.Value(); len(v) < 11 || !time.UnixMilli(int64(binary.BigEndian.Uint64(v[3:]))).Before(horizon) {
			end = slices.Clone(it.Key())
			break
		}
		end = append(slices.Clone(it.Key()), 0)
	}
	if err := it.Error(); err != nil || end == nil {
		return err
	}
	return s.db.DeleteRange(prefix, end, synced)
}
