package request

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"tenfold/internal/awsapi"
	"tenfold/tier/table/attr"
)

var update = flag.Bool("update", false, "rewrite the answers in testdata")

// Each file of testdata is a list of requests: in the head of a section the operation and what is tried, then
// the body, then after "=> " what came of it.
func TestRead(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range a.Files {
			operation, _, _ := strings.Cut(f.Name, ":")
			body, want, _ := strings.Cut(string(f.Data), "=> ")
			got := outcome(Read(operation, []byte(strings.Replace(body, `"400K"`, large, 1))))
			if *update {
				a.Files[i].Data = []byte(strings.TrimSpace(body) + "\n=> " + got + "\n\n")
			} else if strings.TrimSpace(want) != got {
				t.Errorf("%s: %s\n got %s\nwant %s", file, f.Name, got, strings.TrimSpace(want))
			}
		}
		if *update {
			if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// large stands for "400K" in testdata: with it an item is too large by the name of its attribute.
var large = `"` + strings.Repeat("a", maxItem) + `"`

// outcome is a refusal, or the members of an Input that are set.
func outcome(in *Input, err error) string {
	var f *awsapi.Fault
	switch {
	case errors.As(err, &f):
		return strings.TrimSpace(f.Code + ": " + f.Message)
	case err != nil:
		return "BUG " + err.Error()
	}
	in.Operation = ""
	return show(reflect.ValueOf(in))
}

func show(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case attr.Item:
		return string(x.AppendJSON(nil))
	case attr.Value:
		return string(x.AppendJSON(nil))
	case time.Time:
		return x.Format(time.RFC3339Nano)
	case []byte:
		return string(x)
	}
	switch v.Kind() {
	case reflect.Pointer:
		if strings.HasSuffix(v.Type().Elem().PkgPath(), "/expr") {
			return "expression"
		}
		return show(v.Elem())
	case reflect.Slice:
		var parts []string
		for i := range v.Len() {
			parts = append(parts, show(v.Index(i)))
		}
		return "[" + strings.Join(parts, " ") + "]"
	case reflect.Struct:
		var parts []string
		for i := range v.NumField() {
			if f := v.Field(i); !f.IsZero() {
				parts = append(parts, v.Type().Field(i).Name+"="+show(f))
			}
		}
		return "{" + strings.Join(parts, " ") + "}"
	}
	return fmt.Sprint(v.Interface())
}

// examples are the requests of testdata.
func examples(t testing.TB) (operations []string, bodies [][]byte) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range a.Files {
			operation, _, _ := strings.Cut(f.Name, ":")
			body, _, _ := strings.Cut(string(f.Data), "=> ")
			operations, bodies = append(operations, operation), append(bodies, []byte(body))
		}
	}
	return operations, bodies
}

// FuzzRead: no body breaks Read, what is wrong is a refusal, and the quick way and the slow way come to the
// same where the quick one dares.
func FuzzRead(f *testing.F) {
	operations, bodies := examples(f)
	for i := range bodies {
		f.Add(operations[i], bodies[i])
	}
	f.Fuzz(func(t *testing.T, operation string, body []byte) {
		in, err := Read(operation, body)
		var fault *awsapi.Fault
		if err != nil && !errors.As(err, &fault) {
			t.Fatalf("not a refusal: %v", err)
		}
		s := operationShape(operation)
		if s == nil {
			return
		}
		if !s.quick(&reading{in: &Input{Operation: operation}}, body) {
			return
		}
		r := reading{in: &Input{Operation: operation}}
		slowErr := s.slow(&r, body)
		var slow *Input
		if slowErr == nil {
			slow, slowErr = r.finish()
		}
		if (err == nil) != (slowErr == nil) || err != nil && err.Error() != slowErr.Error() {
			t.Fatalf("quick: %v, slow: %v", err, slowErr)
		}
		if err == nil && !reflect.DeepEqual(in, slow) {
			t.Fatalf("quick:\n%s\nslow:\n%s", show(reflect.ValueOf(in)), show(reflect.ValueOf(slow)))
		}
	})
}

// Every operation has a description, and all that those refer to is described.
func TestOperationsAreDescribed(t *testing.T) {
	for name, s := range shapes() {
		if len(s.members) == 0 && name != "DescribeLimits" && name != "DescribeEndpoints" {
			t.Errorf("%s has no members", name)
		}
		if len(s.members) > 64 {
			t.Errorf("%s has more members than quick counts", name)
		}
	}
	if operationShape("Put") != nil || Known("ListTable") || !Known("ListTables") {
		t.Error("a structure is no operation")
	}
}

// Every member that is described is read: set knows it.
func TestMembersAreRead(t *testing.T) {
	for operation, s := range shapes() {
		if !Known(operation) {
			continue
		}
		for i := range s.members {
			f := &s.members[i]
			if f.never {
				continue
			}
			r := reading{in: &Input{Operation: operation}}
			r.set(f.name, []byte(sample(f.shape, f.enum)))
			if reflect.DeepEqual(r, reading{in: &Input{Operation: operation}}) {
				t.Errorf("%s.%s is not read", operation, f.name)
			}
		}
	}
}

// sample is JSON of a shape, with all members of structures.
func sample(s *shape, enum []string) string {
	switch {
	case s.class == "AttributeValue":
		return `{"S":"a"}`
	case enum != nil:
		return `"` + enum[0] + `"`
	}
	switch s.kind {
	case isString:
		return `"arn:aws:dynamodb:us-east-1:123456789012:table/sessions"`
	case isBoolean:
		return "true"
	case isList:
		return "[" + sample(s.of, nil) + "]"
	case isMap:
		return `{"abc":` + sample(s.of, nil) + "}"
	case isStruct:
		var members []string
		for i := range s.members {
			members = append(members, `"`+s.members[i].name+`":`+sample(s.members[i].shape, s.members[i].enum))
		}
		return "{" + strings.Join(members, ",") + "}"
	}
	return "5"
}

const putItem = `{"TableName":"sessions","Item":{"id":{"S":"0123456789abcdef"},"user":{"S":"someone@example.com"},"expires":{"N":"1795750000"},"data":{"M":{"theme":{"S":"dark"},"items":{"L":[{"N":"1"},{"N":"2"}]}}}},"ReturnConsumedCapacity":"TOTAL"}`
const query = `{"TableName":"sessions","KeyConditionExpression":"#u = :u AND seen > :t","ExpressionAttributeNames":{"#u":"user"},"ExpressionAttributeValues":{":u":{"S":"someone@example.com"},":t":{"N":"1795750000"}},"Limit":10,"ScanIndexForward":false}`
const updateItem = `{"TableName":"sessions","Key":{"id":{"S":"0123456789abcdef"}},"UpdateExpression":"SET #s = :s ADD hits :one","ConditionExpression":"attribute_exists(id)","ExpressionAttributeNames":{"#s":"seen"},"ExpressionAttributeValues":{":s":{"N":"1795750000"},":one":{"N":"1"}},"ReturnValues":"ALL_NEW"}`
const getItem = `{"TableName":"sessions","Key":{"id":{"S":"0123456789abcdef"}},"ConsistentRead":true}`

func BenchmarkRead(b *testing.B) {
	for _, c := range []struct{ operation, body string }{{"PutItem", putItem}, {"GetItem", getItem}, {"UpdateItem", updateItem}, {"Query", query}} {
		b.Run(c.operation, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(c.body)))
			for b.Loop() {
				if _, err := Read(c.operation, []byte(c.body)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// The requests that come all the time must not fall back to the slow way.
func TestQuick(t *testing.T) {
	for _, c := range []struct{ operation, body string }{{"PutItem", putItem}, {"GetItem", getItem}, {"UpdateItem", updateItem}, {"Query", query}} {
		if !operationShape(c.operation).quick(&reading{in: &Input{}}, []byte(c.body)) {
			t.Error(c.operation)
		}
	}
}
