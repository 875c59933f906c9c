package request

import (
	"strconv"
	"strings"

	"tenfold/tier/table/attr"
	"tenfold/tier/table/expr"
)

// Bounds of requests.
const (
	maxItem        = 400 << 10 // bytes of an item, names and values
	maxBatchGet    = 100
	maxBatchWrite  = 25
	maxTransaction = 4 << 20 // bytes of a transaction's items
)

// finish checks the rules between members, parses the expressions and gives the Input.
func (r *reading) finish() (*Input, error) {
	if err := r.rules(); err != nil {
		return nil, err
	}
	return r.in, nil
}

func (r *reading) rules() error {
	in, p := r.in, &r.params
	in.Legacy = p.Expected != nil || p.AttributeUpdates != nil || p.KeyConditions != nil || p.QueryFilter != nil || p.ScanFilter != nil || p.AttributesToGet != nil
	switch in.Operation {
	case "PutItem":
		return r.putItem()
	case "GetItem":
		return r.getItem()
	case "UpdateItem":
		return r.updateItem()
	case "DeleteItem":
		return r.deleteItem()
	case "Query":
		return r.query()
	case "Scan":
		return r.scan()
	case "BatchGetItem":
		return r.batchGet()
	case "BatchWriteItem":
		return r.batchWriteItem()
	case "TransactGetItems":
		return r.transactGet()
	case "TransactWriteItems":
		return r.transactWrite()
	case "ExecuteStatement", "BatchExecuteStatement", "ExecuteTransaction":
		if bad := r.badIn("Parameters"); bad != nil {
			return refused(bad)
		}
	case "CreateTable":
		return in.checkCreate()
	case "ImportTable":
		return in.checkImport()
	case "UpdateTable":
		return in.checkUpdate()
	case "TagResource", "UntagResource", "ListTagsOfResource":
		return in.checkTags(r.params.resource)
	case "RestoreTableToPointInTime":
		if in.TableName == "" {
			return validation("One of SourceTableName or SourceTableArn is required")
		}
		if in.RestoreDateTime.IsZero() && !in.UseLatestRestorableTime {
			return validation("One of RestoreDateTime or UseLatestRestorableTime is required")
		}
		if !in.RestoreDateTime.IsZero() && in.UseLatestRestorableTime {
			return validation("RestoreDateTime and UseLatestRestorableTime cannot be used together")
		}
	case "ExportTableToPointInTime":
		return in.checkExport()
	case "ListExports", "ListImports":
		if in.TableArn != "" && in.TableName == "" {
			return validation("Invalid TableArn: " + in.TableArn)
		}
	case "GetShardIterator":
		if in.ShardIteratorType == "AT_TIMESTAMP" && in.Timestamp.IsZero() {
			return validation("Timestamp is required for ShardIteratorType AT_TIMESTAMP")
		}
		if strings.HasSuffix(in.ShardIteratorType, "SEQUENCE_NUMBER") && in.SequenceNumber == "" {
			return validation("SequenceNumber is required for ShardIteratorType " + in.ShardIteratorType)
		}
	}
	return nil
}

func (r *reading) putItem() error {
	if err := r.params.exclusive([]string{"ConditionExpression"}, []string{"Expected", "ConditionalOperator"}); err != nil {
		return err
	}
	if bad := r.badIn("Item"); bad != nil {
		return refused(bad)
	}
	if err := oldOrNone(r.in.ReturnValues); err != nil {
		return err
	}
	if r.in.Item.Size() > maxItem {
		return errItemTooLarge()
	}
	return r.conditional()
}

func (r *reading) deleteItem() error {
	if err := r.params.exclusive([]string{"ConditionExpression"}, []string{"Expected", "ConditionalOperator"}); err != nil {
		return err
	}
	if bad := r.badIn("Key"); bad != nil {
		return refused(bad)
	}
	if err := oldOrNone(r.in.ReturnValues); err != nil {
		return err
	}
	return r.conditional()
}

func oldOrNone(returnValues string) error {
	switch returnValues {
	case "", "NONE", "ALL_OLD":
		return nil
	}
	return validation("ReturnValues can only be ALL_OLD or NONE")
}

func errItemTooLarge() error { return validation("Item size has exceeded the maximum allowed size") }

// conditional checks and parses the condition of a write, and its update.
func (r *reading) conditional() error {
	if err := r.params.legacyCondition("Expected", r.params.Expected, &r.in.Condition); err != nil {
		return err
	}
	return r.params.parse(targets{condition: &r.in.Condition, update: &r.in.Update})
}

func (r *reading) updateItem() error {
	if err := r.params.exclusive([]string{"UpdateExpression", "ConditionExpression"}, []string{"AttributeUpdates", "Expected", "ConditionalOperator"}); err != nil {
		return err
	}
	if bad := r.badIn("Key"); bad != nil {
		return refused(bad)
	}
	if raw := r.params.AttributeUpdates; raw != nil {
		u, err := expr.LegacyUpdate(raw)
		if err != nil {
			return refused(err)
		}
		r.in.Update = u
	}
	return r.conditional()
}

func (r *reading) getItem() error {
	if err := r.params.exclusive([]string{"ProjectionExpression"}, []string{"AttributesToGet"}); err != nil {
		return err
	}
	if bad := r.badIn("Key"); bad != nil {
		return refused(bad)
	}
	if err := r.params.attributesToGet(&r.in.Projection); err != nil {
		return err
	}
	return r.params.parse(targets{projection: &r.in.Projection})
}

func (r *reading) query() error {
	p, in := &r.params, r.in
	if err := p.exclusive([]string{"ProjectionExpression", "FilterExpression", "KeyConditionExpression"}, []string{"AttributesToGet", "QueryFilter", "ConditionalOperator", "KeyConditions"}); err != nil {
		return err
	}
	if err := p.legacyCondition("QueryFilter", p.QueryFilter, &in.Filter); err != nil {
		return err
	}
	if err := p.attributesToGet(&in.Projection); err != nil {
		return err
	}
	if err := r.startKey(); err != nil {
		return err
	}
	if p.KeyConditions == nil && p.KeyConditionExpression == nil {
		return validation("Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.")
	}
	if err := p.parse(targets{keyCondition: &in.KeyCondition, filter: &in.Filter, projection: &in.Projection}); err != nil {
		return err
	}
	if p.KeyConditions != nil && p.KeyConditionExpression == nil {
		k, err := expr.LegacyKeyConditions(p.KeyConditions)
		if err != nil {
			return refused(err)
		}
		in.KeyCondition = k
	}
	most := 2
	if in.IndexName != "" && !in.KeyCondition.Legacy {
		most = 2 * maxIndexAttributes // keys of global indexes can have several of both types
	}
	if n := len(in.KeyCondition.Terms); n < 1 || n > most {
		return validation("Conditions can be of length 1 or 2 only")
	}
	return r.selected()
}

func (r *reading) scan() error {
	p, in := &r.params, r.in
	if err := p.exclusive([]string{"ProjectionExpression", "FilterExpression"}, []string{"AttributesToGet", "ScanFilter", "ConditionalOperator"}); err != nil {
		return err
	}
	if err := p.attributesToGet(&in.Projection); err != nil {
		return err
	}
	if err := p.legacyCondition("ScanFilter", p.ScanFilter, &in.Filter); err != nil {
		return err
	}
	if err := r.startKey(); err != nil {
		return err
	}
	switch {
	case p.segment && in.TotalSegments == 0:
		return validation("The TotalSegments parameter is required but was not present in the request when Segment parameter is present")
	case !p.segment && in.TotalSegments > 0:
		return validation("The Segment parameter is required but was not present in the request when parameter TotalSegments is present")
	case in.TotalSegments > 0 && in.Segment >= in.TotalSegments:
		return validation("The Segment parameter is zero-based and must be less than parameter TotalSegments: Segment: " + strconv.Itoa(in.Segment) + " is not less than TotalSegments: " + strconv.Itoa(in.TotalSegments))
	}
	if err := p.parse(targets{filter: &in.Filter, projection: &in.Projection}); err != nil {
		return err
	}
	return r.selected()
}

// startKey checks ExclusiveStartKey. AWS says of some invalid values that they are in it, of others not.
func (r *reading) startKey() error {
	bad := r.badIn("ExclusiveStartKey")
	if bad == nil {
		return nil
	}
	if bad.Serialization {
		return refused(bad)
	}
	for _, bare := range []string{"contains duplicates", "number set", "numeric value", "significant digits", "number with magnitude"} {
		if strings.Contains(words(bad), bare) {
			return refused(bad)
		}
	}
	return validation("The provided starting key is invalid: " + words(bad))
}

// selected checks Select against what is projected.
func (r *reading) selected() error {
	p, in := &r.params, r.in
	switch in.Select {
	case "":
	case "SPECIFIC_ATTRIBUTES":
		if p.AttributesToGet == nil && p.ProjectionExpression == nil {
			return validation("Must specify the AttributesToGet or ProjectionExpression when choosing to get SPECIFIC_ATTRIBUTES")
		}
	default:
		if p.AttributesToGet != nil {
			return validation("Cannot specify the AttributesToGet when choosing to get " + in.Select)
		}
		if p.ProjectionExpression != nil {
			return validation("Cannot specify the ProjectionExpression when choosing to get " + in.Select)
		}
		if in.Select == "ALL_PROJECTED_ATTRIBUTES" && in.IndexName == "" {
			return validation("ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName")
		}
	}
	return nil
}

func (r *reading) batchGet() error {
	count := 0
	for i := range r.in.Gets {
		k, p := &r.in.Gets[i], &r.parts[i]
		if err := p.exclusive([]string{"ProjectionExpression"}, []string{"AttributesToGet"}); err != nil {
			return err
		}
		if err := p.attributesToGet(&k.Projection); err != nil {
			return err
		}
		if err := p.parse(targets{projection: &k.Projection}); err != nil {
			return err
		}
		if bad := r.badIn(k.As); bad != nil {
			return refused(bad)
		}
		if hasDuplicates(k.Keys) {
			return validation("Provided list of item keys contains duplicates")
		}
		if count += len(k.Keys); count > maxBatchGet {
			return validation("Too many items requested for the BatchGetItem call")
		}
	}
	return nil
}

func hasDuplicates(keys []attr.Item) bool {
	if len(keys) < 2 {
		return false
	}
	seen := make(map[string]bool, len(keys))
	var b []byte
	for _, k := range keys {
		b = k.AppendJSON(b[:0])
		if seen[string(b)] {
			return true
		}
		seen[string(b)] = true
	}
	return false
}

func (r *reading) batchWriteItem() error {
	count := 0
	for _, t := range r.in.Writes {
		for _, w := range t.Writes {
			if (w.Item == nil) == (w.Key == nil) {
				return validation("Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes")
			}
		}
	}
	if bad := r.badIn(""); bad != nil {
		return refused(bad)
	}
	for _, t := range r.in.Writes {
		for _, w := range t.Writes {
			if w.Item.Size() > maxItem {
				return errItemTooLarge()
			}
		}
		if count += len(t.Writes); count > maxBatchWrite {
			return validation("Too many items requested for the BatchWriteItem call")
		}
	}
	return nil
}

func (r *reading) transactGet() error {
	if bad := r.badIn(""); bad != nil {
		return refused(bad)
	}
	for i := range r.in.TransactGets {
		p := &r.parts[i]
		if err := p.exclusive([]string{"ProjectionExpression"}, nil); err != nil {
			return err
		}
		if err := p.parse(targets{projection: &r.in.TransactGets[i].Projection}); err != nil {
			return err
		}
	}
	return nil
}

func (r *reading) transactWrite() error {
	size := 0
	for i := range r.in.TransactWrite {
		if r.steps[i] != 1 {
			return validation("TransactItems can only contain one of Check, Put, Update or Delete")
		}
	}
	if bad := r.badIn(""); bad != nil {
		return refused(bad)
	}
	for i := range r.in.TransactWrite {
		w, p := &r.in.TransactWrite[i], &r.parts[i]
		expressions := []string{"ConditionExpression"}
		if w.Kind == Update {
			expressions = []string{"UpdateExpression", "ConditionExpression"}
		}
		if err := p.exclusive(expressions, nil); err != nil {
			return err
		}
		if w.Item.Size() > maxItem {
			return errItemTooLarge()
		}
		size += w.Item.Size() + w.Key.Size()
		if err := p.parse(targets{condition: &w.Condition, update: &w.Update}); err != nil {
			return err
		}
	}
	if size > maxTransaction {
		return validation("The aggregate size of the items in the transaction cannot exceed 4 MB")
	}
	return nil
}
