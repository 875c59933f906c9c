package request

import (
	"math"
	"strconv"
	"time"

	"tenfold/tier/table/attr"
)

// reading is a request on its way into an Input. All types in it are right; values of attributes may not be,
// which is told when their turn comes.
type reading struct {
	in     *Input
	params parameters
	// parts are the parameters of the parts of a request: a table's of BatchGetItem, a step's of a transaction.
	parts []parameters
	// steps are, for each part of TransactWriteItems, how many of its four kinds of step are there.
	steps []int
	bad   []badValue
}

// badValue is a value of an attribute that is invalid, and the member that has it.
type badValue struct {
	member string
	err    *attr.Error
}

// note keeps an error of package attr for later.
func (r *reading) note(member string, err error) {
	if err != nil {
		r.bad = append(r.bad, badValue{member, asError(err)})
	}
}

// badIn is the first invalid value of a member.
func (r *reading) badIn(member string) *attr.Error {
	for _, b := range r.bad {
		if b.member == member {
			return b.err
		}
	}
	return nil
}

func asError(err error) *attr.Error {
	if e, ok := err.(*attr.Error); ok {
		return e
	}
	return &attr.Error{Message: err.Error()}
}

// set puts the member of a request where it belongs in the Input. The members of all operations mean the same
// wherever they occur, but for RequestItems and TransactItems.
func (r *reading) set(name string, raw []byte) {
	in := r.in
	if r.params.set(name, raw) {
		return
	}
	switch name {
	case "TableName", "SourceTableName":
		in.setTable(unquote(raw))
	case "Item":
		in.Item = r.item(name, raw)
	case "Key":
		in.Key = r.item(name, raw)
	case "ExclusiveStartKey":
		in.ExclusiveStartKey = r.item(name, raw)
	case "ReturnValues":
		in.ReturnValues = unquote(raw)
	case "ReturnValuesOnConditionCheckFailure":
		in.ReturnValuesOnConditionCheckFailure = unquote(raw)
	case "ReturnConsumedCapacity":
		in.ReturnConsumedCapacity = unquote(raw)
	case "ReturnItemCollectionMetrics":
		in.ReturnItemCollectionMetrics = unquote(raw)
	case "ConsistentRead":
		in.ConsistentRead = boolean(raw)
	case "ClientRequestToken":
		in.ClientRequestToken = unquote(raw)
	case "IndexName":
		in.IndexName = unquote(raw)
	case "Select":
		in.Select = unquote(raw)
	case "Limit":
		in.Limit = small(raw)
	case "ScanIndexForward":
		in.ScanIndexForward = new(boolean(raw))
	case "ResourceArn":
		in.ResourceArn, r.params.resource = unquote(raw), true
		in.setARN(in.ResourceArn)
	case "Segment":
		in.Segment, r.params.segment = small(raw), true
	case "TotalSegments":
		in.TotalSegments = small(raw)
	case "RequestItems":
		r.requestItems(raw)
	case "TransactItems":
		r.transactItems(raw)
	case "NextToken":
		in.NextToken = unquote(raw)
	case "Statement", "Parameters":
		r.statement(name, raw)
	case "Statements", "TransactStatements":
		r.statements(raw)
	default:
		if !in.setTableMember(name, raw) {
			in.setRest(name, raw)
		}
	}
}

// setRest sets the members of the rarer operations.
func (in *Input) setRest(name string, raw []byte) {
	switch name {
	case "TagKeys":
		in.TagKeys = texts(raw)
	case "ExclusiveStartTableName":
		in.ExclusiveStartTableName = unquote(raw)
	case "TableArn":
		in.TableArn = unquote(raw)
		in.setARN(in.TableArn)
	case "SourceTableArn":
		in.setARN(unquote(raw))
	case "TimeToLiveSpecification":
		in.TimeToLiveSpecification = &TimeToLiveSpecification{}
		object(raw, func(name string, raw []byte) {
			switch name {
			case "AttributeName":
				in.TimeToLiveSpecification.AttributeName = unquote(raw)
			case "Enabled":
				in.TimeToLiveSpecification.Enabled = boolean(raw)
			}
		})
	case "BackupArn":
		in.BackupArn = unquote(raw)
		in.setARN(in.BackupArn)
	case "BackupName":
		in.BackupName = unquote(raw)
	case "BackupType":
		in.BackupType = unquote(raw)
	case "ExclusiveStartBackupArn":
		in.ExclusiveStartBackupArn = unquote(raw)
	case "TimeRangeLowerBound":
		in.TimeRangeLowerBound = moment(raw)
	case "TimeRangeUpperBound":
		in.TimeRangeUpperBound = moment(raw)
	case "PointInTimeRecoverySpecification":
		in.PointInTimeRecoverySpecification = &PointInTimeRecoverySpecification{}
		object(raw, func(name string, raw []byte) {
			switch name {
			case "PointInTimeRecoveryEnabled":
				in.PointInTimeRecoverySpecification.PointInTimeRecoveryEnabled = boolean(raw)
			case "RecoveryPeriodInDays":
				in.PointInTimeRecoverySpecification.RecoveryPeriodInDays = small(raw)
			}
		})
	case "TargetTableName":
		in.TargetTableName = unquote(raw)
	case "BillingModeOverride":
		in.BillingModeOverride = unquote(raw)
	case "GlobalSecondaryIndexOverride":
		in.GlobalSecondaryIndexOverride = each(raw, index)
	case "LocalSecondaryIndexOverride":
		in.LocalSecondaryIndexOverride = each(raw, index)
	case "ProvisionedThroughputOverride":
		in.ProvisionedThroughputOverride = throughput(raw)
	case "OnDemandThroughputOverride":
		in.OnDemandThroughputOverride = onDemandThroughput(raw)
	case "SSESpecificationOverride":
		in.SSESpecificationOverride = sseSpecification(raw)
	case "RestoreDateTime":
		in.RestoreDateTime = moment(raw)
	case "UseLatestRestorableTime":
		in.UseLatestRestorableTime = boolean(raw)
	case "StreamArn":
		in.StreamArn = unquote(raw)
		in.setARN(in.StreamArn)
	case "ExclusiveStartStreamArn":
		in.ExclusiveStartStreamArn = unquote(raw)
	case "ExclusiveStartShardId":
		in.ExclusiveStartShardId = unquote(raw)
	case "ShardFilter":
		in.ShardFilter = &ShardFilter{}
		object(raw, func(name string, raw []byte) {
			switch name {
			case "Type":
				in.ShardFilter.Type = unquote(raw)
			case "ShardId":
				in.ShardFilter.ShardId = unquote(raw)
			}
		})
	case "ShardId":
		in.ShardId = unquote(raw)
	case "ShardIteratorType":
		in.ShardIteratorType = unquote(raw)
	case "SequenceNumber":
		in.SequenceNumber = unquote(raw)
	case "Timestamp":
		in.Timestamp = moment(raw)
	case "ShardIterator":
		in.ShardIterator = unquote(raw)
	default:
		in.setTransfer(name, raw)
	}
}

// setTransfer sets the members of exports and imports.
func (in *Input) setTransfer(name string, raw []byte) {
	switch name {
	case "ExportArn":
		in.ExportArn = unquote(raw)
		in.setARN(in.ExportArn)
	case "ImportArn":
		in.ImportArn = unquote(raw)
		in.setARN(in.ImportArn)
	case "ClientToken":
		in.ClientToken = unquote(raw)
	case "S3Bucket":
		in.S3Bucket = unquote(raw)
	case "S3Prefix":
		in.S3Prefix = unquote(raw)
	case "S3BucketOwner":
		in.S3BucketOwner = unquote(raw)
	case "S3SseAlgorithm":
		in.S3SseAlgorithm = unquote(raw)
	case "S3SseKmsKeyId":
		in.S3SseKmsKeyId = unquote(raw)
	case "ExportFormat":
		in.ExportFormat = unquote(raw)
	case "ExportType":
		in.ExportType = unquote(raw)
	case "ExportTime":
		in.ExportTime = moment(raw)
	case "IncrementalExportSpecification":
		in.IncrementalExportSpecification = &IncrementalExportSpecification{}
		object(raw, func(name string, raw []byte) {
			switch name {
			case "ExportFromTime":
				in.IncrementalExportSpecification.ExportFromTime = moment(raw)
			case "ExportToTime":
				in.IncrementalExportSpecification.ExportToTime = moment(raw)
			case "ExportViewType":
				in.IncrementalExportSpecification.ExportViewType = unquote(raw)
			}
		})
	case "S3BucketSource":
		in.S3BucketSource = &S3BucketSource{}
		object(raw, func(name string, raw []byte) {
			switch name {
			case "S3Bucket":
				in.S3BucketSource.S3Bucket = unquote(raw)
			case "S3BucketOwner":
				in.S3BucketSource.S3BucketOwner = unquote(raw)
			case "S3KeyPrefix":
				in.S3BucketSource.S3KeyPrefix = unquote(raw)
			}
		})
	case "InputFormat":
		in.InputFormat = unquote(raw)
	case "InputCompressionType":
		in.InputCompressionType = unquote(raw)
	case "InputFormatOptions":
		in.InputFormatOptions = &InputFormatOptions{}
		object(raw, func(name string, raw []byte) {
			if name != "Csv" {
				return
			}
			object(raw, func(name string, raw []byte) {
				switch name {
				case "Delimiter":
					in.InputFormatOptions.Delimiter = unquote(raw)
				case "HeaderList":
					in.InputFormatOptions.HeaderList = texts(raw)
				}
			})
		})
	case "MaxResults":
		in.MaxResults = small(raw)
	case "PageSize":
		in.PageSize = small(raw)
	}
}

// item reads the attributes of a member; what is invalid in them is kept for later.
func (r *reading) item(member string, raw []byte) attr.Item {
	item, err := attr.ParseItem(raw)
	r.note(member, err)
	if item == nil {
		item = attr.Item{}
	}
	return item
}

// each reads a list of structures, none as an empty one.
func each[T any](raw []byte, set func(t *T, name string, raw []byte)) []T {
	list := []T{}
	array(raw, func(raw []byte) {
		var t T
		object(raw, func(name string, raw []byte) { set(&t, name, raw) })
		list = append(list, t)
	})
	return list
}

// texts reads a list of strings, none as an empty one.
func texts(raw []byte) []string {
	list := []string{}
	array(raw, func(raw []byte) { list = append(list, unquote(raw)) })
	return list
}

func small(raw []byte) int { return int(min(integer(raw), math.MaxInt32)) }

// moment is a time in seconds since 1970, with a fraction: to the millisecond, which a binary fraction is not exactly.
func moment(raw []byte) time.Time {
	return time.UnixMilli(int64(math.Round(decimal(raw) * 1000))).UTC()
}

func decimal(raw []byte) float64 {
	f, _ := strconv.ParseFloat(string(raw), 64)
	return f
}
