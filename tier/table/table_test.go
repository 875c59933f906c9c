package table_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	streamtypes "github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"
	"github.com/aws/smithy-go"

	"tenfold/internal/awsapi"
	"tenfold/internal/kv"
	"tenfold/tier/table"
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

var keys = map[string]awsapi.Key{
	"ALL": {Access: "ALL", Secret: "secret", Caller: awsapi.Caller{Account: account, Of: "service all", Uses: map[string][]string{"dynamodb": {awsapi.Every}, "s3": {"files"}}}},
	"ONE": {Access: "ONE", Secret: "secret", Caller: awsapi.Caller{Account: account, Of: "service one", Line: 4, Uses: map[string][]string{"dynamodb": {"one"}}}},
}

func front(s *table.Store) *awsapi.Front {
	return awsapi.NewFront(func(a string) (awsapi.Key, bool) { k, ok := keys[a]; return k, ok }, map[string]awsapi.Served{"dynamodb": s.Served()}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
}

func open(t testing.TB, dir string, cfg table.Config) (*table.Store, func()) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	db, err := kv.Open(dir, kv.Options{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Log = log
	s, err := table.Open(db, cfg)
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

// house is a store that is served.
type house struct {
	*table.Store
	*dynamodb.Client
	streams *dynamodbstreams.Client
	at      string
}

func client(at, key string) *dynamodb.Client {
	return dynamodb.New(dynamodb.Options{Region: "us-east-1", BaseEndpoint: &at, Credentials: credentials.NewStaticCredentialsProvider(key, "secret", ""), RetryMaxAttempts: 1})
}

func serve(t testing.TB, cfg table.Config) *house {
	t.Helper()
	s, stop := open(t, t.TempDir(), cfg)
	srv := httptest.NewServer(front(s))
	t.Cleanup(func() { srv.Close(); stop() })
	return &house{s, client(srv.URL, "ALL"), dynamodbstreams.New(dynamodbstreams.Options{Region: "us-east-1", BaseEndpoint: &srv.URL, Credentials: credentials.NewStaticCredentialsProvider("ALL", "secret", "")}), srv.URL}
}

func str(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
func num(n any) types.AttributeValue    { return &types.AttributeValueMemberN{Value: fmt.Sprint(n)} }

type item = map[string]types.AttributeValue

// make creates a table by key a and, unless sort is "", sort.
func (h *house) make(t testing.TB, name, sort string, how ...func(*dynamodb.CreateTableInput)) {
	t.Helper()
	in := &dynamodb.CreateTableInput{TableName: &name, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("a"), AttributeType: "S"}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("a"), KeyType: "HASH"}}}
	if sort != "" {
		in.AttributeDefinitions = append(in.AttributeDefinitions, types.AttributeDefinition{AttributeName: &sort, AttributeType: "N"})
		in.KeySchema = append(in.KeySchema, types.KeySchemaElement{AttributeName: &sort, KeyType: "RANGE"})
	}
	for _, f := range how {
		f(in)
	}
	if _, err := h.CreateTable(t.Context(), in); err != nil {
		t.Fatal(err)
	}
}

// byC adds a global index by c, and b for its order.
func byC(in *dynamodb.CreateTableInput) {
	in.AttributeDefinitions = append(in.AttributeDefinitions, types.AttributeDefinition{AttributeName: aws.String("c"), AttributeType: "S"})
	in.GlobalSecondaryIndexes = append(in.GlobalSecondaryIndexes, types.GlobalSecondaryIndex{IndexName: aws.String("by-c"), KeySchema: []types.KeySchemaElement{{AttributeName: aws.String("c"), KeyType: "HASH"}}, Projection: &types.Projection{ProjectionType: "ALL"}})
}

func withStream(in *dynamodb.CreateTableInput) {
	in.StreamSpecification = &types.StreamSpecification{StreamEnabled: aws.Bool(true), StreamViewType: "NEW_AND_OLD_IMAGES"}
}

func (h *house) put(t testing.TB, name string, x item) {
	t.Helper()
	if _, err := h.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &name, Item: x}); err != nil {
		t.Fatal(err)
	}
}

func (h *house) get(t testing.TB, name string, k item) item {
	t.Helper()
	out, err := h.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &name, Key: k, ConsistentRead: aws.Bool(true)})
	if err != nil {
		t.Fatal(err)
	}
	return out.Item
}

func code(err error) string {
	var e smithy.APIError
	if errors.As(err, &e) {
		return e.ErrorCode()
	}
	return fmt.Sprint(err)
}

func whole(t testing.TB, s *table.Store) []table.Verdict {
	t.Helper()
	all, err := s.Verify(account, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range all {
		if v.Count > 0 {
			t.Errorf("table %s: %d wrong: %v", v.Table, v.Count, v.Wrong)
		}
	}
	return all
}

func text(v types.AttributeValue) string {
	switch v := v.(type) {
	case *types.AttributeValueMemberS:
		return v.Value
	case *types.AttributeValueMemberN:
		return v.Value
	}
	return fmt.Sprintf("%T", v)
}

func TestItems(t *testing.T) {
	h := serve(t, table.Config{})
	h.make(t, "one", "b", byC)
	ctx := t.Context()
	h.put(t, "one", item{"a": str("x"), "b": num(1), "c": str("red"), "n": num(5)})
	up, err := h.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: aws.String("one"), Key: item{"a": str("x"), "b": num(1)}, UpdateExpression: aws.String("SET n = n + :one, c = :c REMOVE zz ADD hits :one"),
		ConditionExpression: aws.String("n = :five"), ExpressionAttributeValues: item{":one": num(1), ":c": str("blue"), ":five": num(5)}, ReturnValues: "UPDATED_NEW"})
	if err != nil || text(up.Attributes["n"]) != "6" || text(up.Attributes["hits"]) != "1" || len(up.Attributes) != 3 {
		t.Fatal(err, up)
	}
	_, err = h.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: aws.String("one"), Key: item{"a": str("x"), "b": num(1)}, UpdateExpression: aws.String("SET n = :v"), ConditionExpression: aws.String("n = :v"),
		ExpressionAttributeValues: item{":v": num(9)}, ReturnValuesOnConditionCheckFailure: "ALL_OLD"})
	var failed *types.ConditionalCheckFailedException
	if !errors.As(err, &failed) || text(failed.Item["n"]) != "6" {
		t.Fatal(err)
	}
	for n := range 30 {
		h.put(t, "one", item{"a": str("y"), "b": num(n), "c": str("green")})
	}
	var got []string
	q := &dynamodb.QueryInput{TableName: aws.String("one"), KeyConditionExpression: aws.String("a = :a AND b BETWEEN :l AND :h"), ExpressionAttributeValues: item{":a": str("y"), ":l": num(5), ":h": num(20)}, Limit: aws.Int32(7), ScanIndexForward: aws.Bool(false)}
	for {
		page, err := h.Query(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range page.Items {
			got = append(got, text(x["b"]))
		}
		if q.ExclusiveStartKey = page.LastEvaluatedKey; page.LastEvaluatedKey == nil {
			break
		}
	}
	if fmt.Sprint(got) != "[20 19 18 17 16 15 14 13 12 11 10 9 8 7 6 5]" {
		t.Error(got)
	}
	idx, err := h.Query(ctx, &dynamodb.QueryInput{TableName: aws.String("one"), IndexName: aws.String("by-c"), KeyConditionExpression: aws.String("c = :c"), ExpressionAttributeValues: item{":c": str("blue")}})
	if err != nil || len(idx.Items) != 1 {
		t.Fatal(err, idx)
	}
	old, err := h.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: aws.String("one"), Key: item{"a": str("x"), "b": num(1)}, ReturnValues: "ALL_OLD"})
	if err != nil || text(old.Attributes["c"]) != "blue" {
		t.Fatal(err, old)
	}
	// All segments together are the table, each item once.
	seen := map[string]int{}
	for n := range int32(4) {
		page, err := h.Scan(ctx, &dynamodb.ScanInput{TableName: aws.String("one"), Segment: aws.Int32(n), TotalSegments: aws.Int32(4)})
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range page.Items {
			seen[text(x["b"])]++
		}
	}
	if len(seen) != 30 {
		t.Error(seen)
	}
	whole(t, h.Store)
}

func TestWhoMay(t *testing.T) {
	h := serve(t, table.Config{})
	if errs := h.Want(t.Context(), account, []table.Wanted{{Name: "one", Hash: "a"}, {Name: "two", Hash: "a"}}); len(errs) > 0 {
		t.Fatal(errs)
	}
	one := client(h.at, "ONE")
	if _, err := one.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("one"), Item: item{"a": str("x")}}); err != nil {
		t.Fatal(err)
	}
	_, err := one.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: aws.String("two"), Key: item{"a": str("x")}})
	if code(err) != "AccessDeniedException" {
		t.Error(err)
	}
	_, err = one.DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: aws.String("one")})
	if code(err) != "ValidationException" {
		t.Error(err)
	}
}

func TestTransactions(t *testing.T) {
	h := serve(t, table.Config{})
	h.make(t, "one", "")
	h.make(t, "two", "", withStream)
	ctx := t.Context()
	h.put(t, "one", item{"a": str("x"), "n": num(10)})
	move := func(token string, want int) error {
		_, err := h.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{ClientRequestToken: &token, TransactItems: []types.TransactWriteItem{
			{Update: &types.Update{TableName: aws.String("one"), Key: item{"a": str("x")}, UpdateExpression: aws.String("SET n = n - :d"), ConditionExpression: aws.String("n >= :w"), ExpressionAttributeValues: item{":d": num(1), ":w": num(want)}}},
			{Put: &types.Put{TableName: aws.String("two"), Item: item{"a": str("x-" + token)}}},
		}})
		return err
	}
	for range 3 {
		if err := move("t1", 1); err != nil {
			t.Fatal(err)
		}
	}
	if n := text(h.get(t, "one", item{"a": str("x")})["n"]); n != "9" {
		t.Error("one token, made several times:", n)
	}
	var cancelled *types.TransactionCanceledException
	if err := move("t2", 100); !errors.As(err, &cancelled) || *cancelled.CancellationReasons[0].Code != "ConditionalCheckFailed" || *cancelled.CancellationReasons[1].Code != "None" {
		t.Error(err)
	}
	if h.get(t, "two", item{"a": str("x-t2")}) != nil {
		t.Error("half of a cancelled transaction is there")
	}
	if err := move("t1", 2); code(err) != "IdempotentParameterMismatchException" {
		t.Error(err)
	}
	got, err := h.TransactGetItems(ctx, &dynamodb.TransactGetItemsInput{TransactItems: []types.TransactGetItem{{Get: &types.Get{TableName: aws.String("one"), Key: item{"a": str("x")}}}, {Get: &types.Get{TableName: aws.String("two"), Key: item{"a": str("nobody")}}}}})
	if err != nil || text(got.Responses[0].Item["n"]) != "9" || got.Responses[1].Item != nil {
		t.Error(err, got)
	}
	whole(t, h.Store)
}

func (h *house) records(t *testing.T, name string) (out []streamtypes.Record) {
	t.Helper()
	d, err := h.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: &name})
	if err != nil {
		t.Fatal(err)
	}
	sd, err := h.streams.DescribeStream(t.Context(), &dynamodbstreams.DescribeStreamInput{StreamArn: d.Table.LatestStreamArn})
	if err != nil {
		t.Fatal(err)
	}
	it, err := h.streams.GetShardIterator(t.Context(), &dynamodbstreams.GetShardIteratorInput{StreamArn: d.Table.LatestStreamArn, ShardId: sd.StreamDescription.Shards[0].ShardId, ShardIteratorType: "TRIM_HORIZON"})
	if err != nil {
		t.Fatal(err)
	}
	for at := it.ShardIterator; ; {
		got, err := h.streams.GetRecords(t.Context(), &dynamodbstreams.GetRecordsInput{ShardIterator: at})
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Records) == 0 {
			return out
		}
		out = append(out, got.Records...)
		at = got.NextShardIterator
	}
}

func TestStreamAndExpiry(t *testing.T) {
	c := &clock{}
	h := serve(t, table.Config{Now: c.now})
	h.make(t, "one", "", withStream)
	h.put(t, "one", item{"a": str("x"), "until": num(time.Now().Unix() + 100)})
	h.put(t, "one", item{"a": str("x"), "until": num(time.Now().Unix() + 200)})
	h.put(t, "one", item{"a": str("y"), "until": str("no number")})
	if _, err := h.UpdateTimeToLive(t.Context(), &dynamodb.UpdateTimeToLiveInput{TableName: aws.String("one"), TimeToLiveSpecification: &types.TimeToLiveSpecification{AttributeName: aws.String("until"), Enabled: aws.Bool(true)}}); err != nil {
		t.Fatal(err)
	}
	c.move(150 * time.Second)
	for h.Uses(account)["one"].Items != 2 {
	}
	if err := h.Expire(); err != nil || h.get(t, "one", item{"a": str("x")}) == nil {
		t.Fatal("too early", err)
	}
	c.move(time.Minute)
	for h.get(t, "one", item{"a": str("x")}) != nil { // until what was there before the TTL is dated
		if err := h.Expire(); err != nil {
			t.Fatal(err)
		}
	}
	rs := h.records(t, "one")
	var events []string
	for _, r := range rs {
		events = append(events, string(r.EventName))
	}
	last := rs[len(rs)-1]
	if fmt.Sprint(events) != "[INSERT MODIFY INSERT REMOVE]" || last.UserIdentity == nil || *last.UserIdentity.PrincipalId != "dynamodb.amazonaws.com" || last.Dynamodb.OldImage["until"] == nil {
		t.Error(events, last)
	}
	whole(t, h.Store)
}

func wait(t *testing.T, h *house, name string) {
	t.Helper()
	w := dynamodb.NewTableExistsWaiter(h.Client, func(o *dynamodb.TableExistsWaiterOptions) {
		o.MinDelay, o.MaxDelay = time.Millisecond, 10*time.Millisecond
	})
	if err := w.Wait(t.Context(), &dynamodb.DescribeTableInput{TableName: &name}, time.Minute); err != nil {
		t.Fatal(err)
	}
}

// recoverable has a table's past be kept.
func (h *house) recoverable(t *testing.T, name string) {
	t.Helper()
	if _, err := h.UpdateContinuousBackups(t.Context(), &dynamodb.UpdateContinuousBackupsInput{TableName: &name, PointInTimeRecoverySpecification: &types.PointInTimeRecoverySpecification{PointInTimeRecoveryEnabled: aws.Bool(true)}}); err != nil {
		t.Fatal(err)
	}
}

func TestBackupsAndPointInTime(t *testing.T) {
	c := &clock{}
	h := serve(t, table.Config{Now: c.now})
	ctx := t.Context()
	h.make(t, "one", "b", byC)
	h.recoverable(t, "one")
	c.move(time.Second)
	for n := range 300 {
		h.put(t, "one", item{"a": str("x"), "b": num(n), "c": str("old")})
	}
	c.move(10 * time.Second)
	then := c.now()
	b, err := h.CreateBackup(ctx, &dynamodb.CreateBackupInput{TableName: aws.String("one"), BackupName: aws.String("before")})
	if err != nil {
		t.Fatal(err)
	}
	c.move(10 * time.Second)
	for n := range 600 {
		if n%3 == 0 {
			h.put(t, "one", item{"a": str("x"), "b": num(n), "c": str("new")})
		} else if _, err := h.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: aws.String("one"), Key: item{"a": str("x"), "b": num(n)}}); err != nil {
			t.Fatal(err)
		}
	}
	for {
		d, err := h.DescribeBackup(ctx, &dynamodb.DescribeBackupInput{BackupArn: b.BackupDetails.BackupArn})
		if err != nil {
			t.Fatal(err)
		}
		if d.BackupDescription.BackupDetails.BackupStatus == "AVAILABLE" {
			break
		}
	}
	if _, err := h.RestoreTableFromBackup(ctx, &dynamodb.RestoreTableFromBackupInput{BackupArn: b.BackupDetails.BackupArn, TargetTableName: aws.String("two")}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.RestoreTableToPointInTime(ctx, &dynamodb.RestoreTableToPointInTimeInput{SourceTableName: aws.String("one"), TargetTableName: aws.String("three"), RestoreDateTime: &then}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"two", "three"} {
		wait(t, h, name)
		for _, x := range []struct {
			color string
			n     int
		}{{"old", 300}, {"new", 0}} {
			got, err := h.Query(ctx, &dynamodb.QueryInput{TableName: &name, IndexName: aws.String("by-c"), KeyConditionExpression: aws.String("c = :c"), ExpressionAttributeValues: item{":c": str(x.color)}})
			if err != nil {
				t.Fatalf("%s by its index: %v", name, err)
			}
			if len(got.Items) != x.n {
				t.Errorf("%s has %d items %s, not %d", name, len(got.Items), x.color, x.n)
			}
		}
		d, err := h.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &name})
		if err != nil || *d.Table.ItemCount != 300 {
			t.Fatalf("%s: %v, %+v", name, err, d)
		}
	}
	whole(t, h.Store)
	if _, err := h.RestoreTableToPointInTime(ctx, &dynamodb.RestoreTableToPointInTimeInput{SourceTableName: aws.String("one"), TargetTableName: aws.String("four"), RestoreDateTime: aws.Time(then.Add(-time.Hour))}); code(err) != "InvalidRestoreTimeException" {
		t.Error(err)
	}
}

func TestIndexIsFilledBesideWrites(t *testing.T) {
	h := serve(t, table.Config{})
	h.make(t, "one", "b")
	for n := range 1000 {
		h.put(t, "one", item{"a": str("x"), "b": num(n), "c": str("c"), "d": num(n % 7)})
	}
	ctx := t.Context()
	in := &dynamodb.CreateTableInput{}
	byC(in)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				k := item{"a": str("x"), "b": num((n*31 + w) % 1500)}
				var err error
				if n%3 == 0 {
					_, err = h.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: aws.String("one"), Key: k})
				} else {
					k["c"] = str(fmt.Sprint("c", n%5))
					_, err = h.PutItem(ctx, &dynamodb.PutItemInput{TableName: aws.String("one"), Item: k})
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	x := in.GlobalSecondaryIndexes[0]
	if _, err := h.UpdateTable(ctx, &dynamodb.UpdateTableInput{TableName: aws.String("one"), AttributeDefinitions: in.AttributeDefinitions, GlobalSecondaryIndexUpdates: []types.GlobalSecondaryIndexUpdate{{Create: &types.CreateGlobalSecondaryIndexAction{IndexName: x.IndexName, KeySchema: x.KeySchema, Projection: x.Projection}}}}); err != nil {
		t.Fatal(err)
	}
	for {
		d, err := h.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: aws.String("one")})
		if err != nil {
			t.Fatal(err)
		}
		if d.Table.GlobalSecondaryIndexes[0].IndexStatus == "ACTIVE" {
			break
		}
	}
	close(stop)
	wg.Wait()
	v := whole(t, h.Store)
	d, err := h.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: aws.String("one")})
	if err != nil || *d.Table.ItemCount != v[0].Items || *d.Table.GlobalSecondaryIndexes[0].ItemCount != v[0].Entries || v[0].Entries == 0 {
		t.Errorf("%v: counted %d and %d, there are %d and %d", err, *d.Table.ItemCount, *d.Table.GlobalSecondaryIndexes[0].ItemCount, v[0].Items, v[0].Entries)
	}
}

// What is consumed is what the formula says, and provisioned capacity lets no more through.
func TestProvisioned(t *testing.T) {
	c := &clock{}
	start := time.Now()
	var at time.Duration // stands still unless it is moved
	h := serve(t, table.Config{Now: func() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return start.Add(at) }})
	h.make(t, "one", "", func(in *dynamodb.CreateTableInput) {
		in.BillingMode, in.ProvisionedThroughput = types.BillingModeProvisioned, &types.ProvisionedThroughput{ReadCapacityUnits: aws.Int64(10), WriteCapacityUnits: aws.Int64(10)}
	})
	admitted := func() (n int) {
		for {
			_, err := h.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("one"), Item: item{"a": str("x")}})
			var throttled *types.ProvisionedThroughputExceededException
			if errors.As(err, &throttled) {
				return n
			}
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
	}
	if n := admitted(); n != 3000 {
		t.Errorf("the burst let %d through, not five minutes' worth", n)
	}
	var each []int
	for range 20 {
		c.mu.Lock()
		at += time.Second
		c.mu.Unlock()
		each = append(each, admitted())
	}
	sort.Ints(each)
	if each[0] < 9 || each[19] > 11 {
		t.Errorf("admitted a second: %v", each)
	}
	if u := h.Uses(account)["one"]; u.WriteThrottleEvents != 21 || len(u.Hot) != 1 || u.Hot[0].Key != `{"S":"x"}` {
		t.Errorf("%+v", u)
	}
}

func TestStatements(t *testing.T) {
	h := serve(t, table.Config{})
	h.make(t, "one", "b", byC)
	ctx := t.Context()
	run := func(text string, params ...types.AttributeValue) ([]item, error) {
		out, err := h.ExecuteStatement(ctx, &dynamodb.ExecuteStatementInput{Statement: &text, Parameters: params})
		if err != nil {
			return nil, err
		}
		return out.Items, nil
	}
	for n := range 10 {
		if _, err := run(`INSERT INTO "one" VALUE {'a': 'x', 'b': ?, 'c': 'red', 'n': 1}`, num(n)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := run(`INSERT INTO "one" VALUE {'a': 'x', 'b': 3}`); code(err) != "DuplicateItemException" {
		t.Error(err)
	}
	got, err := run(`UPDATE "one" SET n = n + 5 SET c = 'blue' WHERE a = 'x' AND b = 3 RETURNING ALL NEW *`)
	if err != nil || len(got) != 1 || text(got[0]["n"]) != "6" {
		t.Error(err, got)
	}
	if _, err := run(`UPDATE "one" SET n = 1 WHERE a = 'nobody' AND b = 1`); code(err) != "ConditionalCheckFailedException" {
		t.Error(err)
	}
	if _, err := run(`DELETE FROM "one" WHERE a = 'x'`); code(err) != "ValidationException" {
		t.Error(err)
	}
	if got, err = run(`SELECT b FROM "one" WHERE a = 'x' AND b >= 5 ORDER BY b DESC`); err != nil || len(got) != 5 || text(got[0]["b"]) != "9" || len(got[0]) != 1 {
		t.Error(err, got)
	}
	if got, err = run(`SELECT * FROM "one"."by-c" WHERE c = 'blue'`); err != nil || len(got) != 1 {
		t.Error(err, got)
	}
	if got, err = run(`SELECT * FROM "one" WHERE n > 1`); err != nil || len(got) != 1 {
		t.Error(err, got)
	}
	// Page by page, each item once.
	in := &dynamodb.ExecuteStatementInput{Statement: aws.String(`SELECT b FROM "one" WHERE a IN ['x', 'y']`), Limit: aws.Int32(3)}
	seen := 0
	for {
		out, err := h.ExecuteStatement(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		seen += len(out.Items)
		if in.NextToken = out.NextToken; out.NextToken == nil {
			break
		}
	}
	if seen != 10 {
		t.Error(seen)
	}
	batch, err := h.BatchExecuteStatement(ctx, &dynamodb.BatchExecuteStatementInput{Statements: []types.BatchStatementRequest{
		{Statement: aws.String(`SELECT * FROM "one" WHERE a = 'x' AND b = 1`)}, {Statement: aws.String(`SELECT * FROM "none" WHERE a = 'x'`)},
	}})
	if err != nil || text(batch.Responses[0].Item["b"]) != "1" || batch.Responses[1].Error == nil || batch.Responses[1].Error.Code != "ResourceNotFound" {
		t.Error(err, batch)
	}
	_, err = h.ExecuteTransaction(ctx, &dynamodb.ExecuteTransactionInput{TransactStatements: []types.ParameterizedStatement{
		{Statement: aws.String(`EXISTS(SELECT * FROM "one" WHERE a = 'x' AND b = 1 AND n = 2)`)}, {Statement: aws.String(`DELETE FROM "one" WHERE a = 'x' AND b = 2`)},
	}})
	var cancelled *types.TransactionCanceledException
	if !errors.As(err, &cancelled) || *cancelled.CancellationReasons[0].Code != "ConditionalCheckFailed" {
		t.Error(err)
	}
	if _, err = h.ExecuteTransaction(ctx, &dynamodb.ExecuteTransactionInput{TransactStatements: []types.ParameterizedStatement{
		{Statement: aws.String(`EXISTS(SELECT * FROM "one" WHERE a = 'x' AND b = 1 AND n = 1)`)}, {Statement: aws.String(`DELETE FROM "one" WHERE a = 'x' AND b = 2`)},
	}}); err != nil || h.get(t, "one", item{"a": str("x"), "b": num(2)}) != nil {
		t.Error(err)
	}
	whole(t, h.Store)
}

// again has the SDK ask again: its 1.48 now and then closes the connection while it reads an answer of more than
// four kilobytes, whoever serves.
func again(o *dynamodb.Options) { o.RetryMaxAttempts = 5 }

// What is consumed of random items is what the documented formula says.
func TestConsumedCapacity(t *testing.T) {
	h := serve(t, table.Config{})
	h.make(t, "one", "")
	ctx := t.Context()
	rnd := rand.New(rand.NewPCG(1, 2))
	sizes := map[string]int{}
	for range 1000 {
		id := fmt.Sprint("k", rnd.IntN(200))
		x := item{"a": str(id), "text": str(strings.Repeat("x", rnd.IntN(9000))), "flag": &types.AttributeValueMemberBOOL{Value: true}, "bin": &types.AttributeValueMemberB{Value: make([]byte, rnd.IntN(3000))},
			"list": &types.AttributeValueMemberL{Value: []types.AttributeValue{str("abc"), &types.AttributeValueMemberNULL{Value: true}}}, "set": &types.AttributeValueMemberSS{Value: []string{"p", "qq"}}}
		// Names and values: text and binary by their bytes, true and null one, a list 3 and one for each entry.
		size := 1 + len(id) + 4 + len(x["text"].(*types.AttributeValueMemberS).Value) + 4 + 1 + 3 + len(x["bin"].(*types.AttributeValueMemberB).Value) + 4 + 3 + (1 + 3) + (1 + 1) + 3 + 3
		put, err := h.PutItem(ctx, &dynamodb.PutItemInput{TableName: aws.String("one"), Item: x, ReturnConsumedCapacity: "TOTAL"})
		if err != nil {
			t.Fatal(err)
		}
		if want := math.Max(1, math.Ceil(float64(max(size, sizes[id]))/1024)); *put.ConsumedCapacity.CapacityUnits != want {
			t.Fatalf("a write of %d bytes over %d took %g, not %g", size, sizes[id], *put.ConsumedCapacity.CapacityUnits, want)
		}
		sizes[id] = size
		consistent := rnd.IntN(2) == 0
		got, err := h.GetItem(ctx, &dynamodb.GetItemInput{TableName: aws.String("one"), Key: item{"a": str(id)}, ConsistentRead: &consistent, ReturnConsumedCapacity: "TOTAL"}, again)
		if err != nil {
			t.Fatal(err)
		}
		want := math.Ceil(float64(size) / 4096)
		if !consistent {
			want /= 2
		}
		if *got.ConsumedCapacity.CapacityUnits != want {
			t.Fatalf("a read of %d bytes took %g, not %g", size, *got.ConsumedCapacity.CapacityUnits, want)
		}
	}
}

// No request ends the process, whatever stands in it.
func FuzzServe(f *testing.F) {
	s, stop := open(f, f.TempDir(), table.Config{})
	f.Cleanup(stop)
	caller := keys["ALL"].Caller
	serve := func(operation, body string) error {
		_, err := s.Serve(context.Background(), &awsapi.Request{Caller: caller, Operation: operation, Body: []byte(body), HTTP: httptest.NewRequest("POST", "/", nil)})
		return err
	}
	if err := serve("CreateTable", `{"TableName":"one","BillingMode":"PAY_PER_REQUEST","AttributeDefinitions":[{"AttributeName":"a","AttributeType":"S"},{"AttributeName":"b","AttributeType":"N"},{"AttributeName":"c","AttributeType":"S"}],"KeySchema":[{"AttributeName":"a","KeyType":"HASH"},{"AttributeName":"b","KeyType":"RANGE"}],"GlobalSecondaryIndexes":[{"IndexName":"by-c","KeySchema":[{"AttributeName":"c","KeyType":"HASH"}],"Projection":{"ProjectionType":"KEYS_ONLY"}}],"StreamSpecification":{"StreamEnabled":true,"StreamViewType":"NEW_AND_OLD_IMAGES"}}`); err != nil {
		f.Fatal(err)
	}
	for _, x := range [][2]string{
		{"PutItem", `{"TableName":"one","Item":{"a":{"S":"x"},"b":{"N":"1"},"c":{"S":"y"},"d":{"M":{"e":{"L":[{"N":"1"}]}}}}}`},
		{"UpdateItem", `{"TableName":"one","Key":{"a":{"S":"x"},"b":{"N":"1"}},"UpdateExpression":"SET d.e[0] = d.e[0] + :n REMOVE d.f ADD g :s","ExpressionAttributeValues":{":n":{"N":"1"},":s":{"SS":["q"]}},"ReturnValues":"UPDATED_NEW"}`},
		{"Query", `{"TableName":"one","KeyConditionExpression":"a = :a AND b BETWEEN :b AND :c","FilterExpression":"size(d.e) > :b","ExpressionAttributeValues":{":a":{"S":"x"},":b":{"N":"0"},":c":{"N":"9"}},"Limit":1}`},
		{"Query", `{"TableName":"one","IndexName":"by-c","KeyConditions":{"c":{"ComparisonOperator":"EQ","AttributeValueList":[{"S":"y"}]}},"ExclusiveStartKey":{"a":{"S":"x"},"b":{"N":"1"},"c":{"S":"y"}}}`},
		{"Scan", `{"TableName":"one","Segment":1,"TotalSegments":3,"ScanFilter":{"b":{"ComparisonOperator":"NOT_NULL"}}}`},
		{"ExecuteStatement", `{"Statement":"SELECT * FROM one WHERE a IN ['x','y'] AND b > 0 ORDER BY b DESC","Limit":1}`},
		{"TransactWriteItems", `{"ClientRequestToken":"t","TransactItems":[{"ConditionCheck":{"TableName":"one","Key":{"a":{"S":"x"},"b":{"N":"1"}},"ConditionExpression":"attribute_exists(a)"}},{"Delete":{"TableName":"one","Key":{"a":{"S":"x"},"b":{"N":"2"}}}}]}`},
		{"UpdateTable", `{"TableName":"one","GlobalSecondaryIndexUpdates":[{"Delete":{"IndexName":"by-c"}}]}`},
		{"GetRecords", `{"ShardIterator":"arn|1|e30="}`}, {"UpdateTimeToLive", `{"TableName":"one","TimeToLiveSpecification":{"AttributeName":"b","Enabled":true}}`},
	} {
		f.Add(x[0], x[1])
	}
	f.Fuzz(func(t *testing.T, operation, body string) { serve(operation, body) })
}
