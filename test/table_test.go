//go:build scenario

package test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// environ is what a process of the house was given.
func (h *house) environ(process string) map[string]string {
	h.t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", h.process(process)))
	if err != nil {
		h.t.Fatal(err)
	}
	env := map[string]string{}
	for kv := range strings.SplitSeq(string(raw), "\x00") {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	return env
}

// A service finds its table in its environment, and AWS' own client needs no more than that. What was
// acknowledged outlives the process of the stores, the daemon and the manifest; a mistake is taken back by
// having the table as it was.
func TestTablesOfAService(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	const tables = "    uses: [sessions]\ntables: {sessions: {key: user, sort: at, types: {at: number}, ttl: until, stream: new-and-old-images%s}, others: id}\n"
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", fmt.Sprintf(tables, ""))})
	h.up(dir)
	env := h.environ("echo 1")
	c := dynamodb.New(dynamodb.Options{Region: env["AWS_REGION"], BaseEndpoint: aws.String(env["AWS_ENDPOINT_URL_DYNAMODB"]), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], "")})
	ctx := t.Context()
	name := env["SESSIONS_TABLE"]
	if name != "sessions" || env["AWS_ENDPOINT_URL_DYNAMODB_STREAMS"] != env["AWS_ENDPOINT_URL_DYNAMODB"] {
		t.Fatal(env)
	}
	put := func(user string, at int, device string) error {
		_, err := c.PutItem(ctx, &dynamodb.PutItemInput{TableName: &name, Item: map[string]types.AttributeValue{
			"user": &types.AttributeValueMemberS{Value: user}, "at": &types.AttributeValueMemberN{Value: fmt.Sprint(at)}, "device": &types.AttributeValueMemberS{Value: device}}})
		return err
	}
	for n := range 50 {
		if err := put("u1", n, "phone"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.GetItem(ctx, &dynamodb.GetItemInput{TableName: aws.String("others"), Key: map[string]types.AttributeValue{"id": &types.AttributeValueMemberS{Value: "x"}}}); err == nil || !strings.Contains(err.Error(), "add `uses: [others]` to service api") {
		t.Error(err)
	}
	if _, err := c.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: &name}); err == nil || !strings.Contains(err.Error(), "tenfold.yaml names it") {
		t.Error(err)
	}
	if out := h.must(dir, "table", "get", "sessions", "u1", "7"); !strings.Contains(out, `"device":"phone"`) {
		t.Error(out)
	}
	h.must(dir, "table", "put", "sessions", `{"user": "u2", "at": 1, "device": "tv"}`)
	if out := h.must(dir, "table", "scan", "sessions", "--key", "u2"); !strings.Contains(out, `"tv"`) {
		t.Error(out)
	}
	eventually(t, "the items in status", 10*time.Second, func() bool { return strings.Contains(h.must(dir, "status"), "51 items") })
	if out := h.must(dir, "metrics"); !strings.Contains(out, "table_consumed_write_capacity_units_total{") {
		t.Error("no table_consumed_write_capacity_units_total in metrics")
	}
	if out := h.must(dir, "table", "top", "sessions"); !strings.Contains(out, `{"S":"u1"}`) {
		t.Error(out)
	}
	if out := h.must(dir, "table", "cost"); !strings.Contains(out, "sessions") {
		t.Error(out)
	}
	// An index comes with the next deploy, and is filled.
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", fmt.Sprintf(tables, ", indexes: {by-device: device}"))})
	h.up(dir)
	byDevice := func(device string) int {
		out, err := c.Query(ctx, &dynamodb.QueryInput{TableName: &name, IndexName: aws.String("by-device"), KeyConditionExpression: aws.String("device = :d"), ExpressionAttributeValues: map[string]types.AttributeValue{":d": &types.AttributeValueMemberS{Value: device}}})
		if err != nil {
			return -1
		}
		return len(out.Items)
	}
	eventually(t, "the index", 20*time.Second, func() bool { return byDevice("phone") == 50 })
	// The process of the stores dies, and all of the house.
	then := time.Now()
	h.kill("house data")
	eventually(t, "the table after the death of its process", 20*time.Second, func() bool { return put("u1", 50, "phone") == nil })
	h.kill("house daemon")
	h.must(dir, "up", "--detach")
	if n := byDevice("phone"); n != 51 {
		t.Errorf("%d items", n)
	}
	if out := h.must(dir, "table", "verify"); strings.Contains(out, "wrong") || !strings.Contains(out, "52 items, 52 entries") {
		t.Error(out)
	}
	if _, err := c.RestoreTableToPointInTime(ctx, &dynamodb.RestoreTableToPointInTimeInput{SourceTableName: &name, TargetTableName: aws.String("sessions-before"), RestoreDateTime: &then}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the table as it was", 20*time.Second, func() bool {
		d, err := c.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: aws.String("sessions-before")})
		return err == nil && d.Table.TableStatus == "ACTIVE" && *d.Table.ItemCount >= 51 && *d.Table.ItemCount <= 52
	})
	if out := h.must(dir, "table", "list"); !strings.Contains(out, "not in the manifest") {
		t.Error(out)
	}
	// A key is for ever.
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", strings.NewReplacer("sort: at", "sort: at2", "{at:", "{at2:").Replace(fmt.Sprintf(tables, "")))})
	if out, status := h.runIn(dir, "up", "--detach"); status == 0 || !strings.Contains(out, "a table's key is for ever") {
		t.Error(status, out)
	}
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "")})
	h.up(dir)
	eventually(t, "tables that are kept", 20*time.Second, func() bool { return strings.Contains(h.must(dir, "kept"), "table/sessions") })
	h.must(dir, "kept", "remove", "echo/production/table/sessions", "--yes")
	h.must(dir, "down")
}

// A table goes into a bucket, and another is made of it: by hand, and by a service that uses both.
func TestExportsOfATable(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "    uses: [sessions, files]\ntables: {sessions: {key: user, sort: at, types: {at: number}, backups: 1d}}\nbuckets: [files, others]\n")})
	h.up(dir)
	for n := range 20 {
		h.must(dir, "table", "put", "sessions", fmt.Sprintf(`{"user": "u%d", "at": %d, "device": "phone"}`, n%3, n))
	}
	out := h.must(dir, "table", "export", "sessions", "files/daily")
	where, ok := strings.CutPrefix(strings.TrimSpace(out), "20 items of sessions in ")
	if !ok || !strings.HasPrefix(where, "files/daily/AWSDynamoDB/") {
		t.Fatal(out)
	}
	if out := h.must(dir, "bucket", "ls", where+"/", "-r"); !strings.Contains(out, "manifest-summary.json") || !strings.Contains(out, ".json.gz") {
		t.Error(out)
	}
	if out := h.must(dir, "table", "import", "copied", where, "--key", "user", "--sort", "at:number"); !strings.Contains(out, "20 items are in copied") {
		t.Error(out)
	}
	if out := h.must(dir, "table", "scan", "copied", "--key", "u1"); strings.Count(out, `"u1"`) != 7 {
		t.Error(out)
	}
	env := h.environ("echo 1")
	c := dynamodb.New(dynamodb.Options{Region: env["AWS_REGION"], BaseEndpoint: aws.String(env["AWS_ENDPOINT_URL_DYNAMODB"]), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], "")})
	d, err := c.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String("sessions")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ExportTableToPointInTime(t.Context(), &dynamodb.ExportTableToPointInTimeInput{TableArn: d.Table.TableArn, S3Bucket: aws.String("files")}); err != nil {
		t.Error(err)
	}
	if _, err := c.ExportTableToPointInTime(t.Context(), &dynamodb.ExportTableToPointInTimeInput{TableArn: d.Table.TableArn, S3Bucket: aws.String("others")}); err == nil || !strings.Contains(err.Error(), "add `uses: [others]` to service api") {
		t.Error(err)
	}
	h.must(dir, "down")
}
