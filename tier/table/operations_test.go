package table_test

import (
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"

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
