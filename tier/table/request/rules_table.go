package request

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"tenfold/internal/awsapi"
)

const wrongParameter = "One or more parameter values were invalid: "

// Bounds of a table and of its indexes.
const (
	maxThroughput      = 1_000_000_000_000
	maxLocalIndexes    = 5
	maxGlobalIndexes   = 20
	maxIndexAttributes = 4 // of one type in the key of a global index
)

// checkCreate checks CreateTable, and ImportTable's table.
func (in *Input) checkCreate() error {
	if in.BillingMode == "PAY_PER_REQUEST" {
		if in.ProvisionedThroughput != nil {
			return validation(wrongParameter + "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST")
		}
	} else {
		if in.ProvisionedThroughput == nil {
			return validation(wrongParameter + "ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is PROVISIONED")
		}
		if err := outOfBounds(in.ProvisionedThroughput); err != nil {
			return err
		}
	}
	if len(in.KeySchema) > len(in.AttributeDefinitions) {
		return validation("Invalid KeySchema: Some index key attribute have no definition")
	}
	if err := in.checkKey(in.KeySchema); err != nil {
		return err
	}
	if in.LocalSecondaryIndexes == nil && in.GlobalSecondaryIndexes == nil && len(in.KeySchema) != len(in.AttributeDefinitions) {
		return validation(wrongParameter + "Number of attributes in KeySchema does not exactly match number of attributes defined in AttributeDefinitions")
	}
	names := make(map[string]bool)
	if in.LocalSecondaryIndexes != nil {
		if err := in.checkLocalIndexes(names); err != nil {
			return err
		}
	}
	if in.GlobalSecondaryIndexes != nil {
		if err := in.checkGlobalIndexes(names); err != nil {
			return err
		}
	}
	if err := in.checkUse(); err != nil {
		return err
	}
	return in.checkStream()
}

// checkKey checks the key of a table, or of an index with at most two attributes in it.
func (in *Input) checkKey(key []KeySchemaElement) error {
	if err := in.checkDefined(key); err != nil {
		return err
	}
	if len(key) == 2 && key[0].AttributeName == key[1].AttributeName {
		return validation("Both the Hash Key and the Range Key element in the KeySchema have the same name")
	}
	if key[0].KeyType != "HASH" {
		return validation("Invalid KeySchema: The first KeySchemaElement is not a HASH key type")
	}
	if len(key) == 2 && key[1].KeyType != "RANGE" {
		return validation("Invalid KeySchema: The second KeySchemaElement is not a RANGE key type")
	}
	return nil
}

// checkDefined checks that each attribute of a key has a definition.
func (in *Input) checkDefined(key []KeySchemaElement) error {
	for _, k := range key {
		if in.defines(k.AttributeName) {
			continue
		}
		keys, defined := make([]string, 0, len(key)), make([]string, 0, len(in.AttributeDefinitions))
		for _, k := range key {
			keys = append(keys, k.AttributeName)
		}
		for _, d := range in.AttributeDefinitions {
			defined = append(defined, d.AttributeName)
		}
		return validation(wrongParameter + "Some index key attributes are not defined in AttributeDefinitions. Keys: [" + strings.Join(keys, ", ") + "], AttributeDefinitions: [" + strings.Join(defined, ", ") + "]")
	}
	return nil
}

func (in *Input) defines(name string) bool {
	return slices.ContainsFunc(in.AttributeDefinitions, func(d AttributeDefinition) bool { return d.AttributeName == name })
}

func (in *Input) checkLocalIndexes(names map[string]bool) error {
	list := in.LocalSecondaryIndexes
	if len(list) == 0 {
		return validation(wrongParameter + "List of LocalSecondaryIndexes is empty")
	}
	if len(in.KeySchema) != 2 {
		return validation(wrongParameter + "Table KeySchema does not have a range key, which is required when specifying a LocalSecondaryIndex")
	}
	for i := range list {
		x := &list[i]
		if err := in.checkKey(x.KeySchema); err != nil {
			return err
		}
		if len(x.KeySchema) != 2 {
			return validation(wrongParameter + "Index KeySchema does not have a range key for index: " + x.IndexName)
		}
		if own, tables := x.KeySchema[0].AttributeName, in.KeySchema[0].AttributeName; own != tables {
			return validation(wrongParameter + "Index KeySchema does not have the same leading hash key as table KeySchema for index: " + x.IndexName + ". index hash key: " + own + ", table hash key: " + tables)
		}
		if err := x.checkProjection(); err != nil {
			return err
		}
		if err := x.checkName(names); err != nil {
			return err
		}
	}
	if len(list) > maxLocalIndexes {
		return validation(wrongParameter + "Number of LocalSecondaryIndexes exceeds per-table limit of 5")
	}
	return nil
}

func (in *Input) checkGlobalIndexes(names map[string]bool) error {
	list := in.GlobalSecondaryIndexes
	if len(list) == 0 {
		return validation(wrongParameter + "List of GlobalSecondaryIndexes is empty")
	}
	for i := range list {
		x := &list[i]
		if err := in.checkDefined(x.KeySchema); err != nil {
			return err
		}
		if err := checkGlobalKey(x.KeySchema); err != nil {
			return err
		}
		if err := x.checkProjection(); err != nil {
			return err
		}
		if in.BillingMode == "PAY_PER_REQUEST" && x.ProvisionedThroughput != nil {
			return validation(wrongParameter + "ProvisionedThroughput should not be specified for index: " + x.IndexName + " when BillingMode is PAY_PER_REQUEST")
		}
		if err := x.checkName(names); err != nil {
			return err
		}
	}
	if len(list) > maxGlobalIndexes {
		return validation(wrongParameter + "GlobalSecondaryIndex count exceeds the per-table limit of 20")
	}
	return nil
}

// checkGlobalKey checks the key of a global index: up to four attributes that are hashed, then up to four by
// which it is sorted.
func checkGlobalKey(key []KeySchemaElement) error {
	if len(key) <= 2 && (len(key) == 1 || key[1].KeyType != "HASH" || key[0].AttributeName == key[1].AttributeName) {
		return (&Input{AttributeDefinitions: definitions(key)}).checkKey(key)
	}
	count := map[string]int{}
	names := map[string]bool{}
	for i, k := range key {
		switch {
		case k.KeyType != "HASH" && k.KeyType != "RANGE":
			return validation("Invalid KeySchema: The KeyType of the attribute " + k.AttributeName + " is neither HASH nor RANGE")
		case i == 0 && k.KeyType != "HASH":
			return validation("Invalid KeySchema: The first KeySchemaElement is not a HASH key type")
		case k.KeyType == "HASH" && count["RANGE"] > 0:
			return validation("Invalid KeySchema: All HASH key attributes must precede the RANGE key attributes")
		case names[k.AttributeName]:
			return validation("Invalid KeySchema: The attribute " + k.AttributeName + " is in the KeySchema twice")
		}
		names[k.AttributeName] = true
		if count[k.KeyType]++; count[k.KeyType] > maxIndexAttributes {
			return validation("Invalid KeySchema: A KeySchema can have at most 4 attributes of type " + k.KeyType)
		}
	}
	return nil
}

// definitions has all attributes of a key defined, for a check of the rest.
func definitions(key []KeySchemaElement) []AttributeDefinition {
	var list []AttributeDefinition
	for _, k := range key {
		list = append(list, AttributeDefinition{AttributeName: k.AttributeName})
	}
	return list
}

func (x *Index) checkProjection() error {
	switch p := x.Projection; {
	case p.ProjectionType == "":
		return validation(wrongParameter + "Unknown ProjectionType: null")
	case p.ProjectionType == "INCLUDE" && p.NonKeyAttributes == nil:
		return validation(wrongParameter + "ProjectionType is INCLUDE, but NonKeyAttributes is not specified")
	case p.ProjectionType != "INCLUDE" && p.NonKeyAttributes != nil:
		return validation(wrongParameter + "ProjectionType is " + p.ProjectionType + ", but NonKeyAttributes is specified")
	}
	return nil
}

func (x *Index) checkName(names map[string]bool) error {
	if names[x.IndexName] {
		return validation(wrongParameter + "Duplicate index name: " + x.IndexName)
	}
	names[x.IndexName] = true
	return nil
}

// checkUse checks that each attribute that is defined is in a key.
func (in *Input) checkUse() error {
	used := make(map[string]bool)
	note := func(key []KeySchemaElement) {
		for _, k := range key {
			used[k.AttributeName] = true
		}
	}
	note(in.KeySchema)
	for _, list := range [][]Index{in.LocalSecondaryIndexes, in.GlobalSecondaryIndexes} {
		for i := range list {
			note(list[i].KeySchema)
		}
	}
	for _, d := range in.AttributeDefinitions {
		if !used[d.AttributeName] {
			return validation(wrongParameter + "Some AttributeDefinitions are not used. AttributeDefinitions: [" + joinDefinitions(in.AttributeDefinitions) + "], keys used: [" + strings.Join(slices.Sorted(maps.Keys(used)), ", ") + "]")
		}
	}
	return nil
}

func joinDefinitions(list []AttributeDefinition) string {
	var names []string
	for _, d := range list {
		names = append(names, d.AttributeName)
	}
	return strings.Join(names, ", ")
}

func (in *Input) checkStream() error {
	switch s := in.StreamSpecification; {
	case s == nil:
	case s.StreamEnabled && s.StreamViewType == "":
		return validation(wrongParameter + "StreamViewType is required when StreamEnabled is true")
	case !s.StreamEnabled && s.StreamViewType != "":
		return validation(wrongParameter + "StreamViewType cannot be specified when StreamEnabled is false")
	}
	return nil
}

// checkUpdate checks UpdateTable.
func (in *Input) checkUpdate() error {
	if in.ProvisionedThroughput == nil && in.BillingMode == "" && len(in.GlobalSecondaryIndexUpdates) == 0 &&
		in.SSESpecification == nil && in.StreamSpecification == nil && in.TableClass == "" &&
		in.DeletionProtectionEnabled == nil && in.OnDemandThroughput == nil && in.WarmThroughput == nil {
		return validation("At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, GlobalSecondaryIndexUpdates or SSESpecification or ReplicaUpdates is required")
	}
	if in.BillingMode == "PROVISIONED" && in.ProvisionedThroughput == nil {
		return validation(wrongParameter + "ProvisionedThroughput must be specified when BillingMode is PROVISIONED")
	}
	if in.ProvisionedThroughput != nil {
		if err := outOfBounds(in.ProvisionedThroughput); err != nil {
			return err
		}
	}
	names := make(map[string]bool)
	for _, u := range in.GlobalSecondaryIndexUpdates {
		name := u.Delete
		switch {
		case u.Update != nil:
			name = u.Update.IndexName
		case u.Create != nil:
			name = u.Create.IndexName
		case name == "":
			return validation(wrongParameter + "One of GlobalSecondaryIndexUpdate.Update, GlobalSecondaryIndexUpdate.Create, GlobalSecondaryIndexUpdate.Delete must not be null")
		}
		if names[name] {
			return validation(wrongParameter + "Only one global secondary index update per index is allowed simultaneously. Index: " + name)
		}
		names[name] = true
		if u.Create != nil {
			if err := checkGlobalKey(u.Create.KeySchema); err != nil {
				return err
			}
			if err := u.Create.checkProjection(); err != nil {
				return err
			}
		}
	}
	return in.checkStream()
}

// outOfBounds refuses a throughput that nobody has.
func outOfBounds(t *Throughput) error {
	switch {
	case t.ReadCapacityUnits > maxThroughput:
		return validation("Given value " + strconv.FormatInt(t.ReadCapacityUnits, 10) + " for ReadCapacityUnits is out of bounds")
	case t.WriteCapacityUnits > maxThroughput:
		return validation("Given value " + strconv.FormatInt(t.WriteCapacityUnits, 10) + " for WriteCapacityUnits is out of bounds")
	}
	return nil
}

// checkTags checks the operations that have a table by its ARN alone; sent is whether it was sent.
func (in *Input) checkTags(sent bool) error {
	if !sent {
		return validation("Invalid TableArn")
	}
	if !looksLikeARN(in.ResourceArn) {
		return &awsapi.Fault{Code: "AccessDeniedException", Message: "User: " + Anyone + " is not authorized to perform: dynamodb:" + in.Operation + " on resource: " + cmp.Or(in.ResourceArn, "*")}
	}
	if in.Operation == "TagResource" && in.Tags == nil {
		return validation("1 validation error detected: Value null at 'tags' failed to satisfy constraint: Member must not be null")
	}
	if in.Operation == "UntagResource" && in.TagKeys == nil {
		return validation("1 validation error detected: Value null at 'tagKeys' failed to satisfy constraint: Member must not be null")
	}
	if !isTableARN(in.ResourceArn) {
		return validation("Invalid TableArn: Invalid ResourceArn provided as input " + in.ResourceArn)
	}
	if in.Operation == "TagResource" && len(in.Tags) == 0 {
		return validation("Atleast one Tag needs to be provided as Input.") // sic
	}
	if in.Operation == "UntagResource" && len(in.TagKeys) == 0 {
		return validation("Atleast one Tag Key needs to be provided as Input.")
	}
	return nil
}

// looksLikeARN says whether s has the six parts of an ARN, the last of them with a slash inside.
func looksLikeARN(s string) bool {
	parts := strings.SplitN(s, ":", 6)
	if len(parts) < 6 {
		return false
	}
	for _, p := range parts {
		if p == "" {
			return false
		}
	}
	slash := strings.IndexByte(parts[5], '/')
	return slash > 0 && slash < len(parts[5])-1
}

func (in *Input) checkExport() error {
	switch i := in.IncrementalExportSpecification; {
	case in.TableName == "":
		return validation("Invalid TableArn: " + in.TableArn)
	case in.ExportType == "INCREMENTAL_EXPORT" && (i == nil || i.ExportFromTime.IsZero()):
		return validation("ExportFromTime must be specified for an incremental export")
	case in.ExportType == "INCREMENTAL_EXPORT" && !i.ExportToTime.IsZero() && !i.ExportFromTime.Before(i.ExportToTime):
		return validation("ExportFromTime must be before ExportToTime")
	case in.ExportType != "INCREMENTAL_EXPORT" && i != nil:
		return validation("IncrementalExportSpecification can only be specified when ExportType is INCREMENTAL_EXPORT")
	case in.ExportType == "INCREMENTAL_EXPORT" && !in.ExportTime.IsZero():
		return validation("ExportTime can only be specified for a full export")
	}
	return nil
}

func (in *Input) checkImport() error {
	if in.InputFormatOptions != nil && in.InputFormat != "CSV" {
		return validation("InputFormatOptions can only be specified when InputFormat is CSV")
	}
	if o := in.InputFormatOptions; o != nil && o.Delimiter != "" && !strings.Contains(",;:|\t ", o.Delimiter) {
		return validation("1 validation error detected: Value '" + o.Delimiter + "' at 'inputFormatOptions.csv.delimiter' failed to satisfy constraint: Member must satisfy regular expression pattern: [,;:|\\t ]")
	}
	return in.checkCreate()
}
