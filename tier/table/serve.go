package table

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"tenfold/internal/awsapi"
	"tenfold/tier/table/attr"
	"tenfold/tier/table/expr"
	"tenfold/tier/table/partiql"
	"tenfold/tier/table/request"
)

// Namespace stands before the codes of DynamoDB's errors.
const Namespace = "com.amazonaws.dynamodb.v20120810#"

func fault(code, format string, args ...any) *awsapi.Fault {
	return &awsapi.Fault{Code: code, Message: fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) *awsapi.Fault {
	return fault("ValidationException", format, args...)
}

func errNoTable() *awsapi.Fault {
	return fault("ResourceNotFoundException", "Requested resource not found")
}

func errNoTableNamed(name string) *awsapi.Fault {
	return fault("ResourceNotFoundException", "Requested resource not found: Table: %s not found", name)
}

// Served is the store as a front has it.
func (s *Store) Served() awsapi.Served {
	return awsapi.Served{
		Service: s, Namespace: Namespace, Limit: 16 << 20, Sum: true, Body: true,
		Targets: []string{"DynamoDB_20120810", "DynamoDBStreams_20120810"}, Operations: request.Known,
	}
}

// call is an operation. It returns JSON, or what JSON is to be made of.
type call func(s *Store, q *awsapi.Request, in *request.Input) (any, error)

// plain is an operation that needs to know only who asks.
func plain[T any](f func(*Store, awsapi.Caller, *request.Input) (T, error)) call {
	return func(s *Store, q *awsapi.Request, in *request.Input) (any, error) { return f(s, q.Caller, in) }
}

// operationOf finds an operation of DynamoDB or DynamoDB Streams.
func operationOf(name string) call {
	switch name {
	case "PutItem":
		return plain((*Store).putItem)
	case "GetItem":
		return plain((*Store).getItem)
	case "UpdateItem":
		return plain((*Store).updateItem)
	case "DeleteItem":
		return plain((*Store).deleteItem)
	case "Query":
		return plain((*Store).query)
	case "Scan":
		return plain((*Store).scan)
	case "BatchGetItem":
		return plain((*Store).batchGet)
	case "BatchWriteItem":
		return plain((*Store).batchWrite)
	case "TransactGetItems":
		return plain((*Store).transactGet)
	case "TransactWriteItems":
		return func(s *Store, q *awsapi.Request, in *request.Input) (any, error) {
			return s.transactWrite(q.Caller, in, q.Body)
		}
	case "ExecuteStatement":
		return plain((*Store).executeStatement)
	case "BatchExecuteStatement":
		return plain((*Store).batchExecute)
	case "ExecuteTransaction":
		return func(s *Store, q *awsapi.Request, in *request.Input) (any, error) {
			return s.executeTransaction(q.Caller, in, q.Body)
		}
	case "CreateTable":
		return plain((*Store).createTable)
	case "DescribeTable":
		return plain((*Store).describeTable)
	case "UpdateTable":
		return plain((*Store).updateTable)
	case "DeleteTable":
		return plain((*Store).deleteTable)
	case "ListTables":
		return plain((*Store).listTables)
	case "UpdateTimeToLive":
		return plain((*Store).updateTTL)
	case "DescribeTimeToLive":
		return plain((*Store).describeTTL)
	case "TagResource":
		return plain((*Store).tag)
	case "UntagResource":
		return plain((*Store).untag)
	case "ListTagsOfResource":
		return plain((*Store).listTags)
	case "DescribeLimits":
		return plain((*Store).describeLimits)
	case "DescribeEndpoints":
		return func(_ *Store, q *awsapi.Request, _ *request.Input) (any, error) {
			return member{"Endpoints": []member{{"Address": q.HTTP.Host, "CachePeriodInMinutes": 1440}}}, nil
		}
	case "ListStreams":
		return plain((*Store).listStreams)
	case "DescribeStream":
		return plain((*Store).describeStream)
	case "GetShardIterator":
		return plain((*Store).shardIterator)
	case "GetRecords":
		return plain((*Store).getRecords)
	case "CreateBackup":
		return plain((*Store).createBackup)
	case "DescribeBackup":
		return plain((*Store).describeBackup)
	case "ListBackups":
		return plain((*Store).listBackups)
	case "DeleteBackup":
		return plain((*Store).deleteBackup)
	case "RestoreTableFromBackup":
		return plain((*Store).restoreBackup)
	case "DescribeContinuousBackups":
		return plain((*Store).describeContinuous)
	case "UpdateContinuousBackups":
		return plain((*Store).updateContinuous)
	case "RestoreTableToPointInTime":
		return plain((*Store).restorePoint)
	case "ExportTableToPointInTime":
		return plain((*Store).exportPoint)
	case "DescribeExport":
		return plain((*Store).describeExport)
	case "ListExports":
		return plain((*Store).listExports)
	case "ImportTable":
		return plain((*Store).importTable)
	case "DescribeImport":
		return plain((*Store).describeImport)
	case "ListImports":
		return plain((*Store).listImports)
	}
	return nil
}

// Serve implements awsapi.Service.
func (s *Store) Serve(_ context.Context, q *awsapi.Request) ([]byte, error) {
	switch q.Operation { // Tenfold's own, of an environment's owner
	case "TenfoldVerify", "TenfoldUse":
		var own struct{ TableName string }
		if err := json.Unmarshal(q.Body, &own); err != nil {
			return nil, invalid("%v", err)
		}
		how := (*Store).verifyCall
		if q.Operation == "TenfoldUse" {
			how = (*Store).useCall
		}
		out, err := how(s, q.Caller, own.TableName)
		if err != nil {
			return nil, err
		}
		return json.Marshal(out)
	}
	op := operationOf(q.Operation)
	if op == nil {
		return nil, fault("UnknownOperationException", "")
	}
	in, err := request.Read(q.Operation, q.Body)
	if err != nil {
		return nil, err
	}
	out, err := op(s, q, in)
	if err != nil {
		return nil, told(err)
	}
	if raw, ok := out.([]byte); ok {
		return raw, nil
	}
	return json.Marshal(out)
}

// told gives errors of packages below the codes of DynamoDB.
func told(err error) error {
	var bad *attr.Error
	if errors.As(err, &bad) {
		return invalid("%s", bad.Message)
	}
	var wrong *expr.Error
	if errors.As(err, &wrong) {
		return invalid("%s", wrong.Message)
	}
	var unread *partiql.Error
	if errors.As(err, &unread) {
		return invalid("%s", unread.Message)
	}
	return err
}

// use finds a table that the caller may use.
func (s *Store) use(c awsapi.Caller, name, account, operation string) (*table, *definition, error) {
	t := s.find(c.Account, name)
	if t == nil || account != "" && account != c.Account {
		return nil, nil, errNoTable()
	}
	d := t.def.Load()
	if !may(c, d) {
		return nil, nil, awsapi.Denied(c, "dynamodb:"+operation, tableARN(c.Account, name), name)
	}
	if d.Restoring != nil && operation != "DescribeTable" && operation != "DeleteTable" {
		return nil, nil, errNoTable() // as while a table is being created
	}
	return t, d, nil
}

// may says whether a caller uses a table, or made it.
func may(c awsapi.Caller, d *definition) bool {
	return c.May("dynamodb", d.Name) || !d.Kept && d.By == c.Of
}

// appendMember appends a member to an object in which others stand already; nil: none.
func appendMember(b []byte, name string, m member) []byte {
	if m == nil {
		return b
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return b // numbers and strings alone
	}
	b = append(b, ',')
	b = strconv.AppendQuote(b, name)
	b = append(b, ':')
	return append(b, raw...)
}

// raw is an item in an answer that is made of maps.
func raw(item attr.Item) json.RawMessage { return item.AppendJSON(nil) }
