package table_test

import (
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	streamtypes "github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"

	"tenfold/tier/table"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The examples of AWS' reference, on its table of music, for the operations that no other test here goes through
// the SDK with.
func TestExamplesOfTheReference(t *testing.T) {
	h := serve(t, table.Config{})
	ctx, music := t.Context(), aws.String("Music")
	made, err := h.CreateTable(ctx, &dynamodb.CreateTableInput{TableName: music,
		AttributeDefinitions:  []types.AttributeDefinition{{AttributeName: aws.String("Artist"), AttributeType: "S"}, {AttributeName: aws.String("SongTitle"), AttributeType: "S"}},
		KeySchema:             []types.KeySchemaElement{{AttributeName: aws.String("Artist"), KeyType: "HASH"}, {AttributeName: aws.String("SongTitle"), KeyType: "RANGE"}},
		ProvisionedThroughput: &types.ProvisionedThroughput{ReadCapacityUnits: aws.Int64(5), WriteCapacityUnits: aws.Int64(5)},
		StreamSpecification:   &types.StreamSpecification{StreamEnabled: aws.Bool(true), StreamViewType: types.StreamViewTypeNewAndOldImages},
	})
	must(t, err)
	arn := made.TableDescription.TableArn

	song := func(artist, title, album string) types.WriteRequest {
		return types.WriteRequest{PutRequest: &types.PutRequest{Item: item{"Artist": str(artist), "SongTitle": str(title), "AlbumTitle": str(album)}}}
	}
	wrote, err := h.BatchWriteItem(ctx, &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{"Music": {
		song("No One You Know", "Call Me Today", "Somewhat Famous"), song("Acme Band", "Happy Day", "Songs About Life"), song("No One You Know", "Scared of My Shadow", "Blue Sky Blues"),
	}}, ReturnConsumedCapacity: types.ReturnConsumedCapacityTotal})
	must(t, err)
	if len(wrote.UnprocessedItems) != 0 || len(wrote.ConsumedCapacity) != 1 || aws.ToFloat64(wrote.ConsumedCapacity[0].CapacityUnits) != 3 {
		t.Errorf("BatchWriteItem: %+v", wrote)
	}
	key := func(artist, title string) item { return item{"Artist": str(artist), "SongTitle": str(title)} }
	read, err := h.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{"Music": {
		Keys:                 []item{key("No One You Know", "Call Me Today"), key("Acme Band", "Happy Day"), key("Acme Band", "PartiQL Rocks")},
		ProjectionExpression: aws.String("AlbumTitle"),
	}}})
	must(t, err)
	var albums []string
	for _, i := range read.Responses["Music"] {
		if len(i) != 1 {
			t.Errorf("BatchGetItem: %v", i)
		}
		albums = append(albums, i["AlbumTitle"].(*types.AttributeValueMemberS).Value)
	}
	if slices.Sort(albums); !slices.Equal(albums, []string{"Somewhat Famous", "Songs About Life"}) || len(read.UnprocessedKeys) != 0 {
		t.Errorf("BatchGetItem: %v, %v", albums, read.UnprocessedKeys)
	}

	listed, err := h.ListTables(ctx, &dynamodb.ListTablesInput{})
	if must(t, err); !slices.Equal(listed.TableNames, []string{"Music"}) || listed.LastEvaluatedTableName != nil {
		t.Errorf("ListTables: %+v", listed)
	}
	limits, err := h.DescribeLimits(ctx, &dynamodb.DescribeLimitsInput{})
	if must(t, err); aws.ToInt64(limits.TableMaxReadCapacityUnits) <= 0 || aws.ToInt64(limits.AccountMaxWriteCapacityUnits) <= 0 {
		t.Errorf("DescribeLimits: %+v", limits)
	}
	ends, err := h.DescribeEndpoints(ctx, &dynamodb.DescribeEndpointsInput{})
	if must(t, err); len(ends.Endpoints) != 1 || aws.ToString(ends.Endpoints[0].Address) == "" {
		t.Errorf("DescribeEndpoints: %+v", ends)
	}

	_, err = h.TagResource(ctx, &dynamodb.TagResourceInput{ResourceArn: arn, Tags: []types.Tag{{Key: aws.String("Owner"), Value: aws.String("BlueTeam")}, {Key: aws.String("Stage"), Value: aws.String("Test")}}})
	must(t, err)
	_, err = h.UntagResource(ctx, &dynamodb.UntagResourceInput{ResourceArn: arn, TagKeys: []string{"Stage"}})
	must(t, err)
	tags, err := h.ListTagsOfResource(ctx, &dynamodb.ListTagsOfResourceInput{ResourceArn: arn})
	if must(t, err); len(tags.Tags) != 1 || aws.ToString(tags.Tags[0].Key) != "Owner" || aws.ToString(tags.Tags[0].Value) != "BlueTeam" {
		t.Errorf("ListTagsOfResource: %+v", tags.Tags)
	}

	ttl := func() (types.TimeToLiveStatus, string) {
		got, err := h.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: music})
		must(t, err)
		return got.TimeToLiveDescription.TimeToLiveStatus, aws.ToString(got.TimeToLiveDescription.AttributeName)
	}
	if status, of := ttl(); status != types.TimeToLiveStatusDisabled || of != "" {
		t.Errorf("DescribeTimeToLive: %s %q", status, of)
	}
	_, err = h.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{TableName: music, TimeToLiveSpecification: &types.TimeToLiveSpecification{Enabled: aws.Bool(true), AttributeName: aws.String("ttl")}})
	must(t, err)
	if status, of := ttl(); status != types.TimeToLiveStatusEnabled || of != "ttl" {
		t.Errorf("DescribeTimeToLive: %s %q", status, of)
	}

	points := func() types.PointInTimeRecoveryStatus {
		got, err := h.DescribeContinuousBackups(ctx, &dynamodb.DescribeContinuousBackupsInput{TableName: music})
		must(t, err)
		return got.ContinuousBackupsDescription.PointInTimeRecoveryDescription.PointInTimeRecoveryStatus
	}
	if got := points(); got != types.PointInTimeRecoveryStatusDisabled {
		t.Errorf("DescribeContinuousBackups: %s", got)
	}
	_, err = h.UpdateContinuousBackups(ctx, &dynamodb.UpdateContinuousBackupsInput{TableName: music, PointInTimeRecoverySpecification: &types.PointInTimeRecoverySpecification{PointInTimeRecoveryEnabled: aws.Bool(true)}})
	must(t, err)
	if got := points(); got != types.PointInTimeRecoveryStatusEnabled {
		t.Errorf("DescribeContinuousBackups: %s", got)
	}

	backup, err := h.CreateBackup(ctx, &dynamodb.CreateBackupInput{TableName: music, BackupName: aws.String("MusicBackup")})
	must(t, err)
	backups, err := h.ListBackups(ctx, &dynamodb.ListBackupsInput{TableName: music})
	if must(t, err); len(backups.BackupSummaries) != 1 || aws.ToString(backups.BackupSummaries[0].BackupArn) != aws.ToString(backup.BackupDetails.BackupArn) {
		t.Errorf("ListBackups: %+v", backups.BackupSummaries)
	}
	for made := false; !made; {
		d, err := h.DescribeBackup(ctx, &dynamodb.DescribeBackupInput{BackupArn: backup.BackupDetails.BackupArn})
		must(t, err)
		made = d.BackupDescription.BackupDetails.BackupStatus == types.BackupStatusAvailable
	}
	gone, err := h.DeleteBackup(ctx, &dynamodb.DeleteBackupInput{BackupArn: backup.BackupDetails.BackupArn})
	if must(t, err); aws.ToString(gone.BackupDescription.BackupDetails.BackupName) != "MusicBackup" {
		t.Errorf("DeleteBackup: %+v", gone.BackupDescription)
	}
	if backups, err = h.ListBackups(ctx, &dynamodb.ListBackupsInput{TableName: music}); err != nil || len(backups.BackupSummaries) != 0 {
		t.Errorf("ListBackups after it: %+v, %v", backups, err)
	}

	streams, err := h.streams.ListStreams(ctx, &dynamodbstreams.ListStreamsInput{TableName: music})
	if must(t, err); len(streams.Streams) != 1 || aws.ToString(streams.Streams[0].StreamArn) != aws.ToString(made.TableDescription.LatestStreamArn) {
		t.Errorf("ListStreams: %+v", streams.Streams)
	}
}

// The four operations of streams: what each answers, where each kind of iterator begins, and what is refused.
func TestExamplesOfStreams(t *testing.T) {
	c := &clock{}
	h := serve(t, table.Config{Now: c.now})
	ctx, forum := t.Context(), aws.String("Forum")
	made, err := h.CreateTable(ctx, &dynamodb.CreateTableInput{TableName: forum, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("ForumName"), AttributeType: "S"}, {AttributeName: aws.String("Subject"), AttributeType: "S"}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("ForumName"), KeyType: "HASH"}, {AttributeName: aws.String("Subject"), KeyType: "RANGE"}},
		StreamSpecification:  &types.StreamSpecification{StreamEnabled: aws.Bool(true), StreamViewType: types.StreamViewTypeNewAndOldImages},
	})
	must(t, err)
	arn := made.TableDescription.LatestStreamArn

	listed, err := h.streams.ListStreams(ctx, &dynamodbstreams.ListStreamsInput{TableName: forum, Limit: aws.Int32(1)})
	if must(t, err); len(listed.Streams) != 1 || aws.ToString(listed.Streams[0].StreamArn) != *arn || aws.ToString(listed.Streams[0].TableName) != "Forum" || aws.ToString(listed.Streams[0].StreamLabel) != *made.TableDescription.LatestStreamLabel || listed.LastEvaluatedStreamArn != nil {
		t.Errorf("ListStreams: %+v", listed)
	}
	if listed, err = h.streams.ListStreams(ctx, &dynamodbstreams.ListStreamsInput{TableName: aws.String("None")}); err != nil || len(listed.Streams) != 0 {
		t.Errorf("ListStreams of no table: %+v, %v", listed, err)
	}

	k := item{"ForumName": str("DynamoDB"), "Subject": str("DynamoDB Thread 1")}
	for _, message := range []string{"first", "second"} {
		i := maps.Clone(k)
		i["Message"] = str(message)
		_, err = h.PutItem(ctx, &dynamodb.PutItemInput{TableName: forum, Item: i})
		must(t, err)
	}
	_, err = h.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: forum, Key: k})
	must(t, err)

	described, err := h.streams.DescribeStream(ctx, &dynamodbstreams.DescribeStreamInput{StreamArn: arn})
	must(t, err)
	d := described.StreamDescription
	if *d.StreamArn != *arn || *d.TableName != "Forum" || *d.StreamLabel != *made.TableDescription.LatestStreamLabel || d.StreamStatus != streamtypes.StreamStatusEnabled || d.StreamViewType != streamtypes.StreamViewTypeNewAndOldImages || d.CreationRequestDateTime == nil ||
		len(d.KeySchema) != 2 || *d.KeySchema[0].AttributeName != "ForumName" || d.KeySchema[0].KeyType != "HASH" || d.KeySchema[1].KeyType != "RANGE" || d.LastEvaluatedShardId != nil || len(d.Shards) != 1 || len(*d.Shards[0].ShardId) < 28 || d.Shards[0].SequenceNumberRange.EndingSequenceNumber != nil {
		t.Fatalf("DescribeStream: %+v", d)
	}
	shard := d.Shards[0].ShardId
	iterator := func(kind streamtypes.ShardIteratorType, number *string) *string {
		t.Helper()
		out, err := h.streams.GetShardIterator(ctx, &dynamodbstreams.GetShardIteratorInput{StreamArn: arn, ShardId: shard, ShardIteratorType: kind, SequenceNumber: number})
		must(t, err)
		return out.ShardIterator
	}
	read := func(at *string, most int32) ([]streamtypes.Record, *string) {
		t.Helper()
		in := &dynamodbstreams.GetRecordsInput{ShardIterator: at}
		if most > 0 {
			in.Limit = &most
		}
		out, err := h.streams.GetRecords(ctx, in)
		must(t, err)
		return out.Records, out.NextShardIterator
	}
	horizon := iterator(streamtypes.ShardIteratorTypeTrimHorizon, nil)
	all, _ := read(horizon, 0)
	if len(all) != 3 || *all[0].Dynamodb.SequenceNumber != *d.Shards[0].SequenceNumberRange.StartingSequenceNumber {
		t.Fatalf("GetRecords: %d records", len(all))
	}
	message := func(m map[string]streamtypes.AttributeValue) string {
		if s, ok := m["Message"].(*streamtypes.AttributeValueMemberS); ok {
			return s.Value
		}
		return ""
	}
	for i, want := range []struct{ name, old, now string }{{"INSERT", "", "first"}, {"MODIFY", "first", "second"}, {"REMOVE", "second", ""}} {
		r := all[i]
		x := r.Dynamodb
		if string(r.EventName) != want.name || *r.EventVersion != "1.1" || *r.EventSource != "aws:dynamodb" || *r.AwsRegion != "us-east-1" || len(*r.EventID) != 32 || r.UserIdentity != nil || x.StreamViewType != streamtypes.StreamViewTypeNewAndOldImages || x.ApproximateCreationDateTime == nil ||
			len(x.Keys) != 2 || message(x.OldImage) != want.old || message(x.NewImage) != want.now || (want.old == "") != (x.OldImage == nil) || (want.now == "") != (x.NewImage == nil) || i > 0 && *x.SequenceNumber <= *all[i-1].Dynamodb.SequenceNumber {
			t.Errorf("GetRecords: record %d: %+v %+v", i, r, x)
		}
	}
	// Bytes of names and values: of the keys, and of each image.
	const keys = len("ForumName") + len("DynamoDB") + len("Subject") + len("DynamoDB Thread 1")
	if got, want := *all[1].Dynamodb.SizeBytes, int64(3*keys+2*len("Message")+len("first")+len("second")); got != want {
		t.Errorf("SizeBytes is %d, want %d", got, want)
	}
	// Where each kind of iterator begins, and pages.
	second := all[1].Dynamodb.SequenceNumber
	for kind, want := range map[streamtypes.ShardIteratorType]int{streamtypes.ShardIteratorTypeAtSequenceNumber: 2, streamtypes.ShardIteratorTypeAfterSequenceNumber: 1, streamtypes.ShardIteratorTypeLatest: 0} {
		number := second
		if kind == streamtypes.ShardIteratorTypeLatest {
			number = nil
		}
		if got, next := read(iterator(kind, number), 0); len(got) != want || next == nil {
			t.Errorf("%s: %d records, want %d", kind, len(got), want)
		}
	}
	got, next := read(horizon, 2)
	if rest, _ := read(next, 2); len(got) != 2 || len(rest) != 1 || *rest[0].EventID != *all[2].EventID {
		t.Errorf("GetRecords by two: %d and %d", len(got), len(rest))
	}

	for name, f := range map[string]func() error{
		"ResourceNotFoundException Requested resource not found: Stream: " + *arn + "0 not found": func() error {
			_, err := h.streams.DescribeStream(ctx, &dynamodbstreams.DescribeStreamInput{StreamArn: aws.String(*arn + "0")})
			return err
		},
		"ResourceNotFoundException Requested resource not found: Shard does not exist": func() error {
			_, err := h.streams.GetShardIterator(ctx, &dynamodbstreams.GetShardIteratorInput{StreamArn: arn, ShardId: aws.String("shardId-00000000000000000000-00000000"), ShardIteratorType: streamtypes.ShardIteratorTypeLatest})
			return err
		},
		"ValidationException Invalid SequenceNumber": func() error {
			_, err := h.streams.GetShardIterator(ctx, &dynamodbstreams.GetShardIteratorInput{StreamArn: arn, ShardId: shard, ShardIteratorType: streamtypes.ShardIteratorTypeAtSequenceNumber, SequenceNumber: aws.String("100000000000000000000x")})
			return err
		},
		"ValidationException Invalid ShardIterator": func() error {
			_, err := h.streams.GetRecords(ctx, &dynamodbstreams.GetRecordsInput{ShardIterator: aws.String("garbage")})
			return err
		},
	} {
		kind, words, _ := strings.Cut(name, " ")
		if err := f(); code(err) != kind || !strings.Contains(err.Error(), words) {
			t.Errorf("%v, want %s", err, name)
		}
	}
	c.move(16 * time.Minute)
	if _, err := h.streams.GetRecords(ctx, &dynamodbstreams.GetRecordsInput{ShardIterator: horizon}); code(err) != "ExpiredIteratorException" {
		t.Error(err)
	}
	c.move(25 * time.Hour)
	older, ok := new(big.Int).SetString(*all[0].Dynamodb.SequenceNumber, 10)
	if !ok {
		t.Fatal(*all[0].Dynamodb.SequenceNumber)
	}
	older.Sub(older, big.NewInt(1))
	if _, err := h.streams.GetShardIterator(ctx, &dynamodbstreams.GetShardIteratorInput{StreamArn: arn, ShardId: shard, ShardIteratorType: streamtypes.ShardIteratorTypeAtSequenceNumber, SequenceNumber: aws.String(older.String())}); code(err) != "TrimmedDataAccessException" {
		t.Error(err)
	}
}
