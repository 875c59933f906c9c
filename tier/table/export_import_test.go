package table_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"tenfold/internal/awsapi"
	"tenfold/tier/table"
)

// folder is a bucket called files, and gate holds back what is written until it is closed.
type folder struct {
	dir  string
	gate chan struct{}
	puts atomic.Int64
}

func (f *folder) at(bucket, key string) (string, error) {
	if bucket != "files" {
		return "", &awsapi.Fault{Code: "NoSuchBucket", Message: "The specified bucket does not exist"}
	}
	return filepath.Join(f.dir, filepath.FromSlash(key)), nil
}

func (f *folder) Put(ctx context.Context, _, bucket, key string, body io.Reader) (string, error) {
	at, err := f.at(bucket, key)
	if err != nil {
		return "", err
	}
	f.puts.Add(1)
	if f.gate != nil {
		select {
		case <-f.gate:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	b, err := io.ReadAll(body)
	if err == nil {
		err = errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, b, 0o644))
	}
	return fmt.Sprintf("%x", md5.Sum(b)), err
}

func (f *folder) Open(_ context.Context, _, bucket, key string) (io.ReadCloser, error) {
	at, err := f.at(bucket, key)
	if err != nil {
		return nil, err
	}
	return os.Open(at)
}

func (f *folder) List(_ context.Context, _, bucket, prefix string) (out []string, err error) {
	if _, err := f.at(bucket, ""); err != nil {
		return nil, err
	}
	err = filepath.WalkDir(f.dir, func(path string, d os.DirEntry, err error) error {
		if rel, rerr := filepath.Rel(f.dir, path); rerr == nil && err == nil && !d.IsDir() && strings.HasPrefix(filepath.ToSlash(rel), prefix) {
			out = append(out, filepath.ToSlash(rel))
		}
		return err
	})
	return out, err
}

func (h *house) exported(t *testing.T, arn *string) *types.ExportDescription {
	t.Helper()
	for {
		d, err := h.DescribeExport(t.Context(), &dynamodb.DescribeExportInput{ExportArn: arn})
		if err != nil {
			t.Fatal(err)
		}
		if d.ExportDescription.ExportStatus != types.ExportStatusInProgress {
			return d.ExportDescription
		}
	}
}

func (h *house) imported(t *testing.T, in *dynamodb.ImportTableInput) *types.ImportTableDescription {
	t.Helper()
	in.TableCreationParameters.AttributeDefinitions = []types.AttributeDefinition{{AttributeName: aws.String("a"), AttributeType: "S"}, {AttributeName: aws.String("b"), AttributeType: "N"}, {AttributeName: aws.String("c"), AttributeType: "S"}}
	in.TableCreationParameters.KeySchema = []types.KeySchemaElement{{AttributeName: aws.String("a"), KeyType: "HASH"}, {AttributeName: aws.String("b"), KeyType: "RANGE"}}
	in.TableCreationParameters.BillingMode = types.BillingModePayPerRequest
	x := &dynamodb.CreateTableInput{}
	byC(x)
	in.TableCreationParameters.GlobalSecondaryIndexes = x.GlobalSecondaryIndexes
	out, err := h.ImportTable(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	for {
		d, err := h.DescribeImport(t.Context(), &dynamodb.DescribeImportInput{ImportArn: out.ImportTableDescription.ImportArn})
		if err != nil {
			t.Fatal(err)
		}
		if d.ImportTableDescription.ImportStatus != types.ImportStatusInProgress {
			return d.ImportTableDescription
		}
	}
}

// exporting is a house whose exports wait at their first file until it has died; die has another one there.
func exporting(t *testing.T, c *clock) (h *house, files *folder, die func()) {
	t.Helper()
	files = &folder{dir: t.TempDir(), gate: make(chan struct{})}
	dir := t.TempDir()
	h = &house{}
	var stop func()
	var srv *httptest.Server
	begin := func() {
		h.Store, stop = open(t, dir, table.Config{Now: c.now, Objects: files})
		srv = httptest.NewServer(front(h.Store))
		h.Client, h.at = client(srv.URL, "ALL"), srv.URL
	}
	end := func() { srv.Close(); stop() }
	begin()
	t.Cleanup(func() { end() })
	return h, files, func() { end(); close(files.gate); begin() }
}

// A table goes to a bucket as it was at a moment, though its process dies meanwhile, and comes back as another
// table; what is no item is counted and left out.
func TestExportsAndImports(t *testing.T) {
	c := &clock{}
	h, files, die := exporting(t, c)
	ctx := t.Context()
	h.make(t, "one", "b", byC)
	arn := aws.String("arn:aws:dynamodb:us-east-1:" + account + ":table/one")
	ask := &dynamodb.ExportTableToPointInTimeInput{TableArn: arn, S3Bucket: aws.String("files"), S3Prefix: aws.String("daily/"), ClientToken: aws.String("once")}
	if _, err := h.ExportTableToPointInTime(ctx, ask); code(err) != "PointInTimeRecoveryUnavailableException" {
		t.Error(err)
	}
	h.recoverable(t, "one")
	c.move(time.Second)
	for n := range 300 {
		h.put(t, "one", item{"a": str("x"), "b": num(n), "c": str("old"), "raw": &types.AttributeValueMemberB{Value: []byte{0, 255}}})
	}
	c.move(time.Second)
	then := c.now()
	c.move(time.Second)
	for n := range 100 {
		h.put(t, "one", item{"a": str("x"), "b": num(n * 4), "c": str("new")})
	}
	ask.ExportTime = &then
	if _, err := client(h.at, "ONE").ExportTableToPointInTime(ctx, ask); code(err) != "AccessDeniedException" {
		t.Error(err) // its uses does not name the bucket
	}
	out, err := h.ExportTableToPointInTime(ctx, ask)
	if err != nil || out.ExportDescription.ExportStatus != types.ExportStatusInProgress {
		t.Fatal(out, err)
	}
	for files.puts.Load() == 0 {
	}
	die() // in the middle of it
	d := h.exported(t, out.ExportDescription.ExportArn)
	if d.ExportStatus != types.ExportStatusCompleted || *d.ItemCount != 300 || *d.BilledSizeBytes < 300*10 {
		t.Fatalf("%+v", d)
	}
	if again, err := h.ExportTableToPointInTime(ctx, ask); err != nil || *again.ExportDescription.ExportArn != *d.ExportArn {
		t.Error("the same token begins another export", err)
	}
	if list, err := h.ListExports(ctx, &dynamodb.ListExportsInput{TableArn: arn}); err != nil || len(list.ExportSummaries) != 1 {
		t.Error(list, err)
	}
	var manifest struct {
		ItemCount          int
		ManifestFilesS3Key string
	}
	raw, err := os.ReadFile(filepath.Join(files.dir, *d.ExportManifest))
	if err != nil || json.Unmarshal(raw, &manifest) != nil || manifest.ItemCount != 300 || !strings.HasPrefix(manifest.ManifestFilesS3Key, "daily/AWSDynamoDB/") {
		t.Fatal(string(raw), err)
	}
	raw, err = os.ReadFile(filepath.Join(files.dir, manifest.ManifestFilesS3Key))
	if err != nil {
		t.Fatal(err)
	}
	var one struct {
		ItemCount                  int
		MD5Checksum, DataFileS3Key string
	}
	if json.Unmarshal(bytes.TrimSpace(raw), &one) != nil || one.ItemCount != 300 {
		t.Fatal(string(raw))
	}
	data, err := os.ReadFile(filepath.Join(files.dir, one.DataFileS3Key))
	if sum := md5.Sum(data); err != nil || base64.StdEncoding.EncodeToString(sum[:]) != one.MD5Checksum {
		t.Error("the checksum is of something else", err)
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil || bytes.Count(text, []byte("\n")) != 300 || bytes.Contains(text, []byte("new")) || !bytes.Contains(text, []byte(`"raw":{"B":"AP8="}`)) {
		t.Errorf("%.200s %v", text, err)
	}

	// Back into another table, with its index.
	got := h.imported(t, &dynamodb.ImportTableInput{S3BucketSource: &types.S3BucketSource{S3Bucket: aws.String("files"), S3KeyPrefix: aws.String(strings.TrimSuffix(one.DataFileS3Key, filepath.Base(one.DataFileS3Key)))}, InputFormat: types.InputFormatDynamodbJson, InputCompressionType: types.InputCompressionTypeGzip,
		TableCreationParameters: &types.TableCreationParameters{TableName: aws.String("two")}})
	if got.ImportStatus != types.ImportStatusCompleted || got.ImportedItemCount != 300 || got.ErrorCount != 0 || *got.ProcessedSizeBytes != int64(len(data)) {
		t.Fatalf("%+v", got)
	}
	wait(t, h, "two")
	if q, err := h.Query(ctx, &dynamodb.QueryInput{TableName: aws.String("two"), IndexName: aws.String("by-c"), KeyConditionExpression: aws.String("c = :c"), ExpressionAttributeValues: item{":c": str("old")}}); err != nil || len(q.Items) != 300 {
		t.Error(len(q.Items), err)
	}
	whole(t, h.Store)

	// Of CSV, and with lines that are none.
	if err := os.WriteFile(filepath.Join(files.dir, "rows.csv"), []byte("a;b;c;note\nx;1;red;hello\nx;two;red;no number\n;3;red;no key\nx;4;blue;\"a;b\"\nx;5;blue;1;2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	in := &dynamodb.ImportTableInput{S3BucketSource: &types.S3BucketSource{S3Bucket: aws.String("files"), S3KeyPrefix: aws.String("rows")}, InputFormat: types.InputFormatCsv, InputFormatOptions: &types.InputFormatOptions{Csv: &types.CsvOptions{Delimiter: aws.String(";")}},
		TableCreationParameters: &types.TableCreationParameters{TableName: aws.String("three")}}
	if got := h.imported(t, in); got.ImportStatus != types.ImportStatusCompleted || got.ProcessedItemCount != 5 || got.ImportedItemCount != 2 || got.ErrorCount != 3 {
		t.Errorf("%+v", got)
	}
	wait(t, h, "three")
	if got := h.get(t, "three", item{"a": str("x"), "b": num(4)}); fmt.Sprint(got["note"]) != fmt.Sprint(str("a;b")) {
		t.Error(got)
	}
	// What cannot be read leaves no table.
	in.S3BucketSource.S3KeyPrefix, in.TableCreationParameters.TableName, in.ClientToken = aws.String("nothing"), aws.String("four"), nil // the client set one
	if got := h.imported(t, in); got.ImportStatus != types.ImportStatusFailed || !strings.Contains(*got.FailureCode, "NoSuchKey") {
		t.Errorf("%+v", got)
	}
	for {
		if _, err := h.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: aws.String("four")}); code(err) == "ResourceNotFoundException" {
			break
		}
	}
	if list, err := h.ListImports(ctx, &dynamodb.ListImportsInput{PageSize: aws.Int32(2)}); err != nil || len(list.ImportSummaryList) != 2 || list.NextToken == nil {
		t.Error(list, err)
	} else if rest, err := h.ListImports(ctx, &dynamodb.ListImportsInput{PageSize: aws.Int32(2), NextToken: list.NextToken}); err != nil || len(rest.ImportSummaryList) != 1 || rest.NextToken != nil {
		t.Error(rest, err)
	}
}

// An incremental export has of each item that changed in its span what it was before and what it was at the end of it,
// whatever came later and though its process dies meanwhile.
func TestIncrementalExports(t *testing.T) {
	c := &clock{}
	h, files, die := exporting(t, c)
	ctx := t.Context()
	h.make(t, "one", "b", byC)
	h.recoverable(t, "one")
	put := func(n int, text string) { h.put(t, "one", item{"a": str("x"), "b": num(n), "c": str(text)}) }
	drop := func(n int) {
		if _, err := h.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: aws.String("one"), Key: item{"a": str("x"), "b": num(n)}}); err != nil {
			t.Fatal(err)
		}
	}
	c.move(time.Second)
	for n := range 10 {
		put(n, "old")
	}
	c.move(time.Hour)
	from := c.now()
	put(0, "between")
	put(21, "comes")
	c.move(10 * time.Minute)
	changed := c.now()
	put(0, "new")
	drop(1)
	put(20, "made")
	drop(21)
	last := c.now()
	c.move(10 * time.Minute)
	to := c.now().Truncate(time.Millisecond)
	put(0, "later") // the end is not in it
	c.move(time.Minute)
	put(0, "later still")
	put(2, "later")
	drop(20)
	put(1, "again")
	put(21, "again")
	c.move(time.Minute)

	ask := &dynamodb.ExportTableToPointInTimeInput{TableArn: aws.String("arn:aws:dynamodb:us-east-1:" + account + ":table/one"), S3Bucket: aws.String("files"), S3Prefix: aws.String("daily"), ExportType: types.ExportTypeIncrementalExport}
	for what, span := range map[string]*types.IncrementalExportSpecification{
		"none":       nil,
		"no start":   {ExportToTime: &to},
		"a minute":   {ExportFromTime: &from, ExportToTime: aws.Time(from.Add(time.Minute))},
		"two days":   {ExportFromTime: aws.Time(to.Add(-48 * time.Hour)), ExportToTime: &to},
		"the future": {ExportFromTime: &from, ExportToTime: aws.Time(to.Add(time.Hour))},
		"backwards":  {ExportFromTime: &to, ExportToTime: &from},
	} {
		ask.IncrementalExportSpecification, ask.ClientToken = span, nil
		if _, err := h.ExportTableToPointInTime(ctx, ask); code(err) != "ValidationException" && code(err) != "InvalidExportTimeException" {
			t.Errorf("a span of %s: %v", what, err)
		}
	}
	ask.IncrementalExportSpecification = &types.IncrementalExportSpecification{ExportFromTime: &from, ExportToTime: &to}
	ask.ExportFormat = types.ExportFormatIon
	if _, err := h.ExportTableToPointInTime(ctx, ask); code(err) != "ValidationException" || !strings.Contains(err.Error(), "ION is not served") {
		t.Error(err)
	}
	ask.ExportFormat, ask.ClientToken = "", nil
	out, err := h.ExportTableToPointInTime(ctx, ask)
	if err != nil {
		t.Fatal(err)
	}
	for files.puts.Load() == 0 {
	}
	die() // in the middle of it

	type image map[string]map[string]string
	type line struct {
		Metadata struct{ WriteTimestampMicros struct{ N string } }
		Keys     image
		OldImage image
		NewImage image
	}
	// read is what an export has, by the number in its keys.
	read := func(d *types.ExportDescription) map[string]line {
		t.Helper()
		if d.ExportStatus != types.ExportStatusCompleted || d.ExportType != types.ExportTypeIncrementalExport || !d.IncrementalExportSpecification.ExportToTime.Round(time.Millisecond).Equal(to) {
			t.Fatalf("%+v", d)
		}
		var summary struct {
			ItemCount                        int
			ExportType, OutputView           string
			ManifestFilesS3Key, ExportToTime string
		}
		raw, err := os.ReadFile(filepath.Join(files.dir, *d.ExportManifest))
		if err != nil || json.Unmarshal(raw, &summary) != nil || int64(summary.ItemCount) != *d.ItemCount || summary.ExportType != "INCREMENTAL_EXPORT" || summary.OutputView != string(d.IncrementalExportSpecification.ExportViewType) {
			t.Fatal(string(raw), err)
		}
		if raw, err = os.ReadFile(filepath.Join(files.dir, summary.ManifestFilesS3Key)); err != nil {
			t.Fatal(err)
		}
		var one struct{ DataFileS3Key string }
		if json.Unmarshal(bytes.TrimSpace(raw), &one) != nil || filepath.Dir(one.DataFileS3Key) != "daily/AWSDynamoDB/data" {
			t.Fatal(string(raw))
		}
		f, err := os.Open(filepath.Join(files.dir, one.DataFileS3Key))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		lines := map[string]line{}
		for in := json.NewDecoder(z); in.More(); {
			var l line
			if err := in.Decode(&l); err != nil {
				t.Fatal(err)
			}
			lines[l.Keys["b"]["N"]] = l
		}
		if int64(len(lines)) != *d.ItemCount {
			t.Errorf("%d lines of %d", len(lines), *d.ItemCount)
		}
		return lines
	}
	has := func(l line, old, now string) {
		t.Helper()
		at, err := strconv.ParseInt(l.Metadata.WriteTimestampMicros.N, 10, 64)
		if err != nil || at < changed.UnixMilli()*1000 || at > last.UnixMicro() || l.OldImage["c"]["S"] != old || l.NewImage["c"]["S"] != now || len(l.Keys) != 2 {
			t.Errorf("%+v, want %q and %q", l, old, now)
		}
	}
	got := read(h.exported(t, out.ExportDescription.ExportArn))
	if len(got) != 3 {
		t.Errorf("%+v", got)
	}
	has(got["0"], "old", "new")
	has(got["1"], "old", "")
	has(got["20"], "", "made")

	ask.IncrementalExportSpecification.ExportViewType, ask.ClientToken = types.ExportViewTypeNewImage, nil
	if out, err = h.ExportTableToPointInTime(ctx, ask); err != nil {
		t.Fatal(err)
	}
	got = read(h.exported(t, out.ExportDescription.ExportArn))
	has(got["0"], "", "new")
	has(got["1"], "", "")
	has(got["20"], "", "made")
	if list, err := h.ListExports(ctx, &dynamodb.ListExportsInput{}); err != nil || len(list.ExportSummaries) != 2 || list.ExportSummaries[0].ExportType != types.ExportTypeIncrementalExport {
		t.Error(list, err)
	}
}
