// Package request reads the bodies of requests to DynamoDB and to DynamoDB Streams, and refuses what those
// services refuse before they look at a table: JSON of the wrong type, values out of their bounds, parameters
// that exclude each other, expressions that do not parse. Refusals come in AWS' order and in AWS' words, on
// which programs and test suites depend.
//
// Begin at Read and at Input, which is what it returns. What operations take is described in operations.txt;
// a request is checked against that, then set into an Input member by member (fill.go, parts.go), then
// against the rules between members (rules.go). The package knows no table: keys are compared with schemas by
// package table.
//
// Sources: the API reference of DynamoDB, the models in AWS' SDKs, and the answers of the service as the
// tests of dynalite have recorded them.
package request

import (
	"tenfold/internal/awsapi"
)

// Anyone is who AccessDeniedException is about: Read does not know who asks, but refuses, as AWS does, what
// is not even the ARN of a table. Who knows the caller puts it in its place.
const Anyone = "arn:aws:iam::000000000000:root"

// Read reads the body of a request. What is wrong with it is an *awsapi.Fault: ValidationException,
// SerializationException, AccessDeniedException (see Anyone), or UnknownOperationException for an operation
// that there is not. Of body nothing is kept but Keys.Raw.
func Read(operation string, body []byte) (*Input, error) {
	s := operationShape(operation)
	if s == nil {
		return nil, unknownOperation()
	}
	quick := reading{in: &Input{Operation: operation}}
	if s.quick(&quick, body) {
		return quick.finish()
	}
	slow := reading{in: &Input{Operation: operation}}
	if err := s.slow(&slow, body); err != nil {
		return nil, err
	}
	return slow.finish()
}

// Known says whether there is an operation of this name.
func Known(operation string) bool { return operationShape(operation) != nil }

// operationShape is what an operation takes, nil where there is none. The names in operations.txt that are not
// in the switch are structures.
func operationShape(operation string) *shape {
	switch operation {
	case "CreateTable", "DescribeTable", "UpdateTable", "DeleteTable", "ListTables",
		"PutItem", "GetItem", "UpdateItem", "DeleteItem", "Query", "Scan",
		"BatchGetItem", "BatchWriteItem", "TransactGetItems", "TransactWriteItems",
		"ExecuteStatement", "BatchExecuteStatement", "ExecuteTransaction",
		"UpdateTimeToLive", "DescribeTimeToLive", "TagResource", "UntagResource", "ListTagsOfResource",
		"DescribeLimits", "DescribeEndpoints",
		"CreateBackup", "DescribeBackup", "ListBackups", "DeleteBackup", "RestoreTableFromBackup",
		"DescribeContinuousBackups", "UpdateContinuousBackups", "RestoreTableToPointInTime",
		"ExportTableToPointInTime", "DescribeExport", "ListExports",
		"ImportTable", "DescribeImport", "ListImports",
		"ListStreams", "DescribeStream", "GetShardIterator", "GetRecords":
		return shapes()[operation]
	}
	return nil
}

// quick reads a request in one pass without building anything but the Input. It says false as soon as
// something may be wrong or needs a closer look, which is slow's.
func (s *shape) quick(r *reading, body []byte) bool {
	c := cursor{b: body}
	if !c.take('{') {
		return false
	}
	var seen uint64
	for first := true; c.more(&first, '}'); {
		name := c.key()
		raw := c.value(0)
		if c.bad {
			return false
		}
		i := s.quoted(name)
		if i < 0 || raw[0] == 'n' {
			continue
		}
		if seen&(1<<i) != 0 || !s.members[i].fits(raw) {
			return false
		}
		seen |= 1 << i
		r.set(s.members[i].name, raw)
	}
	if !c.end() {
		return false
	}
	for i := range s.members {
		if f := &s.members[i]; (f.notNull || f.notNullOld) && seen&(1<<i) == 0 {
			return false
		}
	}
	return !r.invalid()
}

// quoted is the place of the member whose name is this string of JSON, or -1.
func (s *shape) quoted(name []byte) int {
	for i := range s.members {
		if m := s.members[i].name; len(m) == len(name)-2 && m == string(name[1:len(name)-1]) {
			return i
		}
	}
	return -1
}

// invalid is whether a value of an attribute is.
func (r *reading) invalid() bool {
	if len(r.bad) > 0 || r.params.badValues != nil {
		return true
	}
	for i := range r.parts {
		if r.parts[i].badValues != nil {
			return true
		}
	}
	return false
}

// fits says that raw is certainly right for the member, as far as its type and its bounds go. Values of
// attributes are not looked at: package attr does that.
func (f *field) fits(raw []byte) bool {
	if f.never {
		return false
	}
	switch f.kind {
	case isString:
		return raw[0] == '"' && f.fitsText(raw[1:len(raw)-1])
	case isInteger, isLong:
		if raw[0] != '-' && (raw[0] < '0' || raw[0] > '9') {
			return false
		}
		i := integer(raw)
		return (!f.hasLow || i >= f.low) && (!f.hasHigh || i <= f.high)
	case isBoolean:
		return raw[0] == 't' || raw[0] == 'f'
	case isMap:
		if f.of.class == "AttributeValue" {
			return raw[0] == '{'
		}
	}
	n, ok := parse(raw)
	if !ok || f.wrong(&n, false) != "" {
		return false
	}
	var v violations
	f.check(&n, "", &v)
	return len(v) == 0
}

// fitsText says that a string without its quotes is certainly right. Where length counts it has to be ASCII
// and without escapes.
func (f *field) fitsText(text []byte) bool {
	if f.pattern && !isName(text) {
		return false
	}
	if f.short > 0 || f.long > 0 || f.tableOld {
		for _, b := range text {
			if b == '\\' || b >= 0x80 {
				return false
			}
		}
		if f.tableOld && (len(text) < 3 || len(text) > 255) || len(text) < f.short || f.long > 0 && len(text) > f.long {
			return false
		}
	}
	if f.enum == nil {
		return true
	}
	for _, e := range f.enum {
		if e == string(text) {
			return true
		}
	}
	return false
}

// slow reads a request in which something may be wrong, and says what.
func (s *shape) slow(r *reading, body []byte) error {
	n, ok := parse(body)
	if !ok {
		return serialization("")
	}
	switch n.kind {
	case '{':
	case '[':
		return serialization("Start of list found where not expected")
	default:
		return serialization("Unexpected token received from parser")
	}
	if w := s.wrong(&n, false); w != "" {
		return serialization(w)
	}
	if w := s.old(&n); w != "" {
		return validation(w)
	}
	var v violations
	if s.check(&n, "", &v); len(v) > 0 {
		return validation(v.String())
	}
	for i := range s.members {
		name := s.members[i].name
		if m := n.member(name); m != nil {
			r.set(name, m.raw)
		}
	}
	return nil
}

func validation(message string) error {
	return &awsapi.Fault{Code: "ValidationException", Message: message}
}

func serialization(message string) error {
	return &awsapi.Fault{Code: "SerializationException", Message: message}
}

func unknownOperation() error {
	return &awsapi.Fault{Code: "UnknownOperationException"}
}
