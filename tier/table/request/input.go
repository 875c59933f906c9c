package request

import (
	"time"

	"tenfold/tier/table/attr"
	"tenfold/tier/table/expr"
)

// Input is the members of all operations, named as in AWS' JSON; what an operation does not have, or the
// client did not send, is zero. Pointers where that makes a difference. Strings with a closed set of values
// hold one of them, or "".
//
// Expressions stand here parsed, whether they came as expressions or as the parameters from before there were
// expressions (Expected, AttributeUpdates, QueryFilter, …): see Condition and the fields after it.
type Input struct {
	Operation string

	// TableName is the bare name, whether the client sent a name or an ARN, and whatever member had it:
	// TableName, ResourceArn, TableArn, SourceTableName, or the ARN of a backup, export, import or stream.
	// Account and Region are those of the ARN, or "": the store compares them with the caller's.
	TableName, Account, Region string

	// Items and their keys.

	Item                                attr.Item // PutItem
	Key                                 attr.Item // GetItem, UpdateItem, DeleteItem
	ReturnValues                        string    // NONE, ALL_OLD, UPDATED_OLD, ALL_NEW, UPDATED_NEW
	ReturnValuesOnConditionCheckFailure string    // NONE, ALL_OLD
	ReturnConsumedCapacity              string    // NONE, TOTAL, INDEXES
	ReturnItemCollectionMetrics         string    // NONE, SIZE
	ConsistentRead                      bool
	ClientRequestToken                  string

	// Condition has to hold for a write: from ConditionExpression or Expected.
	Condition *expr.Condition
	// Update is what UpdateItem changes: from UpdateExpression or AttributeUpdates; nil: nothing.
	Update *expr.Update
	// Projection is what to return of an item: from ProjectionExpression or AttributesToGet; nil: all.
	Projection *expr.Projection
	// KeyCondition is what Query reads: from KeyConditionExpression or KeyConditions.
	KeyCondition *expr.KeyCondition
	// Filter drops items that were read: from FilterExpression, QueryFilter or ScanFilter.
	Filter *expr.Condition
	// Legacy says that the parameters from before expressions were used, which some refusals name.
	Legacy bool

	// Query and Scan.

	IndexName              string
	Select                 string // ALL_ATTRIBUTES, ALL_PROJECTED_ATTRIBUTES, COUNT, SPECIFIC_ATTRIBUTES
	Limit                  int    // also of what lists; 0: none was sent
	ScanIndexForward       *bool
	ExclusiveStartKey      attr.Item // nil: from the start
	Segment, TotalSegments int       // Scan; TotalSegments 0: not in parallel

	// Several items.

	Gets          []Keys        // BatchGetItem, a table each, in the order of the request
	Writes        []TableWrites // BatchWriteItem, a table each, in the order of the request
	TransactGets  []Get         // TransactGetItems
	TransactWrite []Write       // TransactWriteItems

	// PartiQL. ExecuteStatement has its one statement in Statements too.

	Statements []Statement
	NextToken  string // also of ListExports and ListImports

	// Tables. ImportTable has the members of TableCreationParameters here.

	AttributeDefinitions        []AttributeDefinition
	KeySchema                   []KeySchemaElement
	LocalSecondaryIndexes       []Index
	GlobalSecondaryIndexes      []Index
	GlobalSecondaryIndexUpdates []IndexUpdate // UpdateTable
	BillingMode                 string        // PROVISIONED, PAY_PER_REQUEST
	ProvisionedThroughput       *Throughput
	OnDemandThroughput          *OnDemandThroughput
	WarmThroughput              *WarmThroughput
	StreamSpecification         *StreamSpecification
	SSESpecification            *SSESpecification
	TableClass                  string // STANDARD, STANDARD_INFREQUENT_ACCESS
	DeletionProtectionEnabled   *bool
	Tags                        []Tag    // CreateTable, TagResource
	TagKeys                     []string // UntagResource
	ResourcePolicy              string
	TimeToLiveSpecification     *TimeToLiveSpecification
	ExclusiveStartTableName     string // ListTables

	ResourceArn, TableArn string // as sent; TableName has the name

	// Backups.

	BackupArn                        string
	BackupName                       string
	BackupType                       string // USER, SYSTEM, AWS_BACKUP, ALL
	ExclusiveStartBackupArn          string
	TimeRangeLowerBound              time.Time
	TimeRangeUpperBound              time.Time
	PointInTimeRecoverySpecification *PointInTimeRecoverySpecification

	// Restores. RestoreTableToPointInTime has the source in TableName.

	TargetTableName               string
	BillingModeOverride           string
	GlobalSecondaryIndexOverride  []Index
	LocalSecondaryIndexOverride   []Index
	ProvisionedThroughputOverride *Throughput
	OnDemandThroughputOverride    *OnDemandThroughput
	SSESpecificationOverride      *SSESpecification
	RestoreDateTime               time.Time
	UseLatestRestorableTime       bool

	// Exports and imports.

	ExportArn, ImportArn           string
	ClientToken                    string
	S3Bucket, S3Prefix             string
	S3BucketOwner                  string
	S3SseAlgorithm, S3SseKmsKeyId  string
	ExportFormat                   string // DYNAMODB_JSON, ION
	ExportType                     string // FULL_EXPORT, INCREMENTAL_EXPORT
	ExportTime                     time.Time
	IncrementalExportSpecification *IncrementalExportSpecification
	S3BucketSource                 *S3BucketSource
	InputFormat                    string // DYNAMODB_JSON, ION, CSV
	InputCompressionType           string // GZIP, ZSTD, NONE
	InputFormatOptions             *InputFormatOptions
	MaxResults, PageSize           int // ListExports, ListImports; 0: none was sent

	// Streams.

	StreamArn               string
	ExclusiveStartStreamArn string
	ExclusiveStartShardId   string
	ShardFilter             *ShardFilter
	ShardId                 string
	ShardIteratorType       string // TRIM_HORIZON, LATEST, AT_SEQUENCE_NUMBER, AFTER_SEQUENCE_NUMBER, AT_TIMESTAMP
	SequenceNumber          string
	Timestamp               time.Time
	ShardIterator           string
}

// Keys is what BatchGetItem asks of one table.
type Keys struct {
	TableName, Account, Region string
	As                         string // what the client calls the table: a name or an ARN; the answer uses it
	Keys                       []attr.Item
	Projection                 *expr.Projection
	ConsistentRead             bool
	// Raw is the JSON of this table's entry, from which UnprocessedKeys is made.
	Raw []byte
}

// TableWrites is what BatchWriteItem does to one table.
type TableWrites struct {
	TableName, Account, Region string
	As                         string // what the client calls the table: a name or an ARN; the answer uses it
	Writes                     []BatchWrite
}

// BatchWrite is one of BatchWriteItem's writes: a put when Item is set, else a delete of Key.
type BatchWrite struct {
	Item, Key attr.Item
}

// Get is one read of TransactGetItems.
type Get struct {
	TableName, Account, Region string
	Key                        attr.Item
	Projection                 *expr.Projection
}

// The kinds of Write.
const (
	Put            = "Put"
	Update         = "Update"
	Delete         = "Delete"
	ConditionCheck = "ConditionCheck"
)

// Write is one step of TransactWriteItems.
type Write struct {
	Kind                                string // Put, Update, Delete, ConditionCheck
	TableName, Account, Region          string
	Item                                attr.Item // Put
	Key                                 attr.Item // the others
	Condition                           *expr.Condition
	Update                              *expr.Update
	ReturnValuesOnConditionCheckFailure string
}

// Statement is one statement of PartiQL.
type Statement struct {
	Statement                           string
	Parameters                          []attr.Value
	ConsistentRead                      bool
	ReturnValuesOnConditionCheckFailure string
}

// AttributeDefinition is an attribute that keys use.
type AttributeDefinition struct {
	AttributeName string
	AttributeType string // S, N, B
}

// KeySchemaElement is one attribute of a key. A table has one or two, a global secondary index up to four of
// each type.
type KeySchemaElement struct {
	AttributeName string
	KeyType       string // HASH, RANGE
}

// Index is a local or global secondary index, to be made.
type Index struct {
	IndexName             string
	KeySchema             []KeySchemaElement
	Projection            IndexProjection
	ProvisionedThroughput *Throughput         // global ones only
	OnDemandThroughput    *OnDemandThroughput // global ones only
	WarmThroughput        *WarmThroughput     // global ones only
}

// IndexProjection is what an index holds beside the keys.
type IndexProjection struct {
	ProjectionType   string // ALL, INCLUDE, KEYS_ONLY
	NonKeyAttributes []string
}

// IndexUpdate changes one global secondary index: exactly one of Create, Update and Delete is set.
type IndexUpdate struct {
	Create *Index
	Update *Index // IndexName and throughputs
	Delete string // the name
}

// Throughput is a provisioned throughput in capacity units a second, at least 1 each.
type Throughput struct {
	ReadCapacityUnits, WriteCapacityUnits int64
}

// OnDemandThroughput bounds what a table on demand takes, in request units a second; -1: no bound.
type OnDemandThroughput struct {
	MaxReadRequestUnits, MaxWriteRequestUnits *int64
}

// WarmThroughput is what a table takes at once, in units a second.
type WarmThroughput struct {
	ReadUnitsPerSecond, WriteUnitsPerSecond *int64
}

// StreamSpecification says whether a table has a stream, and what its records hold.
type StreamSpecification struct {
	StreamEnabled  bool
	StreamViewType string // KEYS_ONLY, NEW_IMAGE, OLD_IMAGE, NEW_AND_OLD_IMAGES
}

// SSESpecification is encryption at rest.
type SSESpecification struct {
	Enabled        *bool
	SSEType        string // AES256, KMS
	KMSMasterKeyId string
}

// Tag is a label of a table.
type Tag struct {
	Key, Value string
}

// TimeToLiveSpecification names the attribute that says when an item ends.
type TimeToLiveSpecification struct {
	AttributeName string
	Enabled       bool
}

// PointInTimeRecoverySpecification says whether a table can be had back as it was at any moment.
type PointInTimeRecoverySpecification struct {
	PointInTimeRecoveryEnabled bool
	RecoveryPeriodInDays       int // 1 to 35; 0: none was sent
}

// IncrementalExportSpecification is the span of an incremental export.
type IncrementalExportSpecification struct {
	ExportFromTime, ExportToTime time.Time
	ExportViewType               string // NEW_IMAGE, NEW_AND_OLD_IMAGES
}

// S3BucketSource is where ImportTable reads.
type S3BucketSource struct {
	S3Bucket, S3BucketOwner, S3KeyPrefix string
}

// InputFormatOptions is how ImportTable reads CSV.
type InputFormatOptions struct {
	Delimiter  string   // one character; "": a comma
	HeaderList []string // nil: the first line is the header
}

// ShardFilter narrows DescribeStream to the children of a shard.
type ShardFilter struct {
	Type, ShardId string
}
