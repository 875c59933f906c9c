package main

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tenfold"
	"tenfold/control"
)

// transferred is an export or an import as its Describe operation tells of it.
type transferred struct {
	ExportArn, ExportStatus, ExportManifest string
	ImportArn, ImportStatus                 string
	ItemCount                               int64
	ImportedItemCount, ErrorCount           int64
	FailureCode, FailureMessage             string
}

// lookPace is how often it is asked how far an export or an import is.
const lookPace = 200 * time.Millisecond

// await asks until an export or an import has ended.
func await(ctx context.Context, t *transferred, again func() error) error {
	for t.ExportStatus == "IN_PROGRESS" || t.ImportStatus == "IN_PROGRESS" {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookPace):
		}
		if err := again(); err != nil {
			return err
		}
	}
	if t.FailureCode != "" {
		return tenfold.Errorf(tenfold.CodeFailed, "%s: %s", t.FailureCode, t.FailureMessage).WithHint("see which buckets there are: tenfold bucket list")
	}
	return nil
}

func (c *cli) tableExport() *cobra.Command {
	var at, since string
	cmd := c.asking("export TABLE BUCKET[/PREFIX]", "Write a table as it is, or was, into a bucket, as DynamoDB does", cobra.ExactArgs(2), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		var d struct{ Table struct{ TableArn string } }
		if err := dynamo(ctx, api, env, "DescribeTable", map[string]any{"TableName": args[0]}, &d); err != nil {
			return err
		}
		bucket, prefix := place(args[1])
		in := map[string]any{"TableArn": d.Table.TableArn, "S3Bucket": bucket}
		if prefix != "" {
			in["S3Prefix"] = prefix
		}
		t, err := parseMoment(at)
		if err != nil {
			return err
		}
		seconds := func(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
		if since != "" {
			from, err := parseMoment(since)
			if err != nil {
				return err
			}
			span := map[string]any{"ExportFromTime": seconds(from)}
			if !t.IsZero() {
				span["ExportToTime"] = seconds(t)
			}
			in["ExportType"], in["IncrementalExportSpecification"] = "INCREMENTAL_EXPORT", span
		} else if !t.IsZero() {
			in["ExportTime"] = seconds(t)
		}
		var out struct{ ExportDescription transferred }
		if err := dynamo(ctx, api, env, "ExportTableToPointInTime", in, &out); err != nil {
			return err
		}
		x := &out.ExportDescription
		if err := await(ctx, x, func() error {
			return dynamo(ctx, api, env, "DescribeExport", map[string]any{"ExportArn": x.ExportArn}, &out)
		}); err != nil || c.json {
			return orEncode(c, out.ExportDescription, err)
		}
		fmt.Fprintf(c.out, "%d items of %s in %s\n", x.ItemCount, args[0], path.Join(bucket, path.Dir(x.ExportManifest)))
		return nil
	})
	cmd.Flags().StringVar(&at, "to", "latest", "as it was then, for example '2026-11-23 10:15:30' (UTC)")
	cmd.Flags().StringVar(&since, "since", "", "only what changed since then: 15 minutes to 24 hours of it")
	return cmd
}

func (c *cli) tableImport() *cobra.Command {
	var key, sort string
	cmd := c.asking("import TABLE BUCKET/PREFIX", "Make a table of files in a bucket: an export's, or CSV", cobra.ExactArgs(2), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		bucket, prefix := place(args[1])
		in, err := importOf(args[0], bucket, prefix, key, sort)
		if err != nil {
			return err
		}
		var out struct{ ImportTableDescription transferred }
		if err := dynamo(ctx, api, env, "ImportTable", in, &out); err != nil {
			return err
		}
		x := &out.ImportTableDescription
		if err := await(ctx, x, func() error {
			return dynamo(ctx, api, env, "DescribeImport", map[string]any{"ImportArn": x.ImportArn}, &out)
		}); err != nil || c.json {
			return orEncode(c, out.ImportTableDescription, err)
		}
		fmt.Fprintf(c.out, "%d items are in %s\n", x.ImportedItemCount, args[0])
		if x.ErrorCount > 0 {
			fmt.Fprintf(c.err, "%d were left out: they have no such key, or are no items\n", x.ErrorCount)
		}
		return nil
	})
	cmd.Flags().StringVar(&key, "key", "", "the partition key: user, or user:number (string, number, binary)")
	cmd.Flags().StringVar(&sort, "sort", "", "the sort key, in the same way")
	return cmd
}

// importOf is the request for an import. What the files are is said by their names.
func importOf(name, bucket, prefix, key, sort string) (map[string]any, error) {
	if key == "" {
		return nil, tenfold.Errorf(tenfold.CodeInvalid, "which attribute is the key of %s?", name).WithHint("--key user, or --key user:number; with a sort key --sort at:number")
	}
	kinds := map[string]string{"": "S", "string": "S", "number": "N", "binary": "B"}
	var attributes, schema []map[string]string
	for i, of := range []string{key, sort} {
		if of == "" {
			continue
		}
		attribute, kind, _ := strings.Cut(of, ":")
		if kinds[kind] == "" {
			return nil, tenfold.Errorf(tenfold.CodeInvalid, "%s: a key is no %s", strconv.Quote(of), kind).WithHint("one of: string, number, binary")
		}
		attributes = append(attributes, map[string]string{"AttributeName": attribute, "AttributeType": kinds[kind]})
		schema = append(schema, map[string]string{"AttributeName": attribute, "KeyType": []string{"HASH", "RANGE"}[i]})
	}
	format, zip, rest := "DYNAMODB_JSON", "NONE", prefix
	for suffix, how := range map[string]string{".gz": "GZIP", ".zst": "ZSTD"} {
		if cut, ok := strings.CutSuffix(rest, suffix); ok {
			zip, rest = how, cut
		}
	}
	switch {
	case strings.HasSuffix(rest, ".csv"):
		format = "CSV"
	case !strings.HasSuffix(rest, ".json"): // the folder of an export
		zip, prefix = "GZIP", strings.TrimSuffix(strings.TrimSuffix(prefix, "/"), "/data")+"/data/"
	}
	return map[string]any{"S3BucketSource": map[string]string{"S3Bucket": bucket, "S3KeyPrefix": prefix}, "InputFormat": format, "InputCompressionType": zip,
		"TableCreationParameters": map[string]any{"TableName": name, "AttributeDefinitions": attributes, "KeySchema": schema, "BillingMode": "PAY_PER_REQUEST"}}, nil
}
