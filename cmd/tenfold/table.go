package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tenfold"
	"tenfold/control"
)

func (c *cli) tableCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "table", Aliases: []string{"tables"}, Short: "Tables: list, get, put, delete, scan, top, cost, verify, export, import", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(c.tableList(), c.tableGet(), c.tablePut(), c.tableDelete(), c.tableScan(), c.tableTop(), c.tableCost(), c.tableVerify(), c.tableExport(), c.tableImport())
	return cmd
}

// tableState is a table as DescribeTable tells of it.
type tableState struct {
	TableName      string
	TableStatus    string
	ItemCount      int64
	TableSizeBytes int64
	KeySchema      []struct{ AttributeName, KeyType string }
	Types          []struct{ AttributeName, AttributeType string }       `json:"AttributeDefinitions"`
	Throughput     struct{ ReadCapacityUnits, WriteCapacityUnits int64 } `json:"ProvisionedThroughput"`
	Global         []struct{ IndexName, IndexStatus string }             `json:"GlobalSecondaryIndexes"`
	Local          []struct{ IndexName string }                          `json:"LocalSecondaryIndexes"`
	Stream         struct{ StreamViewType string }                       `json:"StreamSpecification"`
	Foreign        bool                                                  `json:"foreign,omitempty"` // made by a service, not in the manifest
}

// key is the attribute of a kind of key, "" for none.
func (t *tableState) key(kind string) string {
	for _, k := range t.KeySchema {
		if k.KeyType == kind {
			return k.AttributeName
		}
	}
	return ""
}

func describeTable(ctx context.Context, api *control.Client, env control.Env, name string) (*tableState, error) {
	var out struct{ Table tableState }
	err := dynamo(ctx, api, env, "DescribeTable", map[string]any{"TableName": name}, &out)
	return &out.Table, err
}

// dynamo is aws for tables, with the hint that helps there.
func dynamo(ctx context.Context, api *control.Client, env control.Env, operation string, in, out any) error {
	return awsHinted(ctx, api, env, "dynamodb", operation, "see what there is: tenfold table list", in, out)
}

func (c *cli) tableList() *cobra.Command {
	return c.asking("list", "The app's tables and what is in them", cobra.NoArgs, func(ctx context.Context, api *control.Client, env control.Env, _ []string) error {
		st, err := api.Status(ctx, env)
		if err != nil {
			return err
		}
		all := []*tableState{}
		in := map[string]any{}
		for {
			var page struct {
				TableNames             []string
				LastEvaluatedTableName string
			}
			if err := dynamo(ctx, api, env, "ListTables", in, &page); err != nil {
				return err
			}
			for _, n := range page.TableNames {
				t, err := describeTable(ctx, api, env, n)
				if err != nil {
					return err
				}
				t.Foreign = !slices.ContainsFunc(st.Resources, func(r control.Resource) bool { return r.Kind == tenfold.KindTable && string(r.Name) == n })
				all = append(all, t)
			}
			if page.LastEvaluatedTableName == "" {
				break
			}
			in["ExclusiveStartTableName"] = page.LastEvaluatedTableName
		}
		if c.json {
			return c.encode(all)
		}
		if len(all) == 0 {
			fmt.Fprintf(c.err, "%s has no tables; add one to the manifest: tables: {sessions: user_id}\n", env.App)
			return nil
		}
		rows := [][]string{{"NAME", "KEY", "SORT", "ITEMS", "SIZE", "INDEXES", "CAPACITY", "STREAM", "NOTE"}}
		for _, t := range all {
			var notes []string
			if t.Foreign {
				notes = append(notes, "not in the manifest")
			}
			if t.TableStatus != "ACTIVE" {
				notes = append(notes, strings.ToLower(t.TableStatus))
			}
			for _, x := range t.Global {
				if x.IndexStatus != "ACTIVE" {
					notes = append(notes, x.IndexName+": "+strings.ToLower(x.IndexStatus))
				}
			}
			capacity := "on demand"
			if t.Throughput.ReadCapacityUnits > 0 {
				capacity = fmt.Sprintf("%d/%d", t.Throughput.ReadCapacityUnits, t.Throughput.WriteCapacityUnits)
			}
			stream := strings.ReplaceAll(strings.ToLower(t.Stream.StreamViewType), "_", "-")
			rows = append(rows, []string{t.TableName, t.key("HASH"), orDash(t.key("RANGE")), strconv.FormatInt(t.ItemCount, 10), size(t.TableSizeBytes), strconv.Itoa(len(t.Global) + len(t.Local)), capacity, orDash(stream), strings.Join(notes, ", ")})
		}
		table(c.out, rows)
		return nil
	})
}

// plain is a value as people write JSON: {"S":"a"} is "a". Sets are lists, binary is Base64.
func plain(v map[string]any) any {
	for kind, x := range v {
		switch kind {
		case "N":
			return json.Number(fmt.Sprint(x))
		case "NS":
			list, _ := x.([]any)
			out := make([]any, len(list))
			for i, n := range list {
				out[i] = json.Number(fmt.Sprint(n))
			}
			return out
		case "NULL":
			return nil
		case "M":
			m, _ := x.(map[string]any)
			return plainItem(m)
		case "L":
			list, _ := x.([]any)
			out := make([]any, len(list))
			for i, e := range list {
				m, _ := e.(map[string]any)
				out[i] = plain(m)
			}
			return out
		default:
			return x
		}
	}
	return nil
}

func plainItem(item map[string]any) map[string]any {
	out := make(map[string]any, len(item))
	for n, v := range item {
		m, _ := v.(map[string]any)
		out[n] = plain(m)
	}
	return out
}

// typed is a plain value as DynamoDB has it.
func typed(v any) map[string]any {
	switch v := v.(type) {
	case string:
		return map[string]any{"S": v}
	case json.Number:
		return map[string]any{"N": v.String()}
	case bool:
		return map[string]any{"BOOL": v}
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = typed(e)
		}
		return map[string]any{"L": out}
	case map[string]any:
		return map[string]any{"M": typedItem(v)}
	}
	return map[string]any{"NULL": true}
}

func typedItem(item map[string]any) map[string]any {
	out := make(map[string]any, len(item))
	for n, v := range item {
		out[n] = typed(v)
	}
	return out
}

// keyOf reads a key as it was typed: the partition's, and the sort key where the table has one.
func (t *tableState) keyOf(args []string) (map[string]any, error) {
	out := map[string]any{}
	for i, kind := range []string{"HASH", "RANGE"} {
		name := t.key(kind)
		switch {
		case name == "" && len(args) > i:
			return nil, tenfold.Errorf(tenfold.CodeInvalid, "table %s has no sort key", t.TableName).WithHint("give its key alone: tenfold table get %s %s", t.TableName, args[0])
		case name == "":
			return out, nil
		case len(args) <= i:
			return nil, tenfold.Errorf(tenfold.CodeInvalid, "an item of %s is named by %s and %s", t.TableName, t.key("HASH"), name).WithHint("give both: tenfold table get %s %s SORT", t.TableName, args[0])
		}
		kind := "S"
		for _, a := range t.Types {
			if a.AttributeName == name {
				kind = a.AttributeType
			}
		}
		value := args[i]
		if kind == "B" {
			if _, err := base64.StdEncoding.DecodeString(value); err != nil {
				return nil, tenfold.Errorf(tenfold.CodeInvalid, "%s is binary, and %q is no Base64", name, value).WithHint("write it in Base64: %s", base64.StdEncoding.EncodeToString([]byte(value)))
			}
		}
		out[name] = map[string]any{kind: value}
	}
	return out, nil
}

func (c *cli) printItem(item map[string]any, exact bool) error {
	if !exact {
		item = plainItem(item)
	}
	return json.NewEncoder(c.out).Encode(item)
}

const exactDoc = "with types, as DynamoDB's JSON has them"

func (c *cli) tableGet() *cobra.Command {
	var exact bool
	cmd := c.asking("get TABLE KEY [SORT]", "Print an item", cobra.RangeArgs(2, 3), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		t, err := describeTable(ctx, api, env, args[0])
		if err != nil {
			return err
		}
		k, err := t.keyOf(args[1:])
		if err != nil {
			return err
		}
		var out struct{ Item map[string]any }
		if err := dynamo(ctx, api, env, "GetItem", map[string]any{"TableName": args[0], "Key": k, "ConsistentRead": true}, &out); err != nil {
			return err
		}
		if out.Item == nil {
			return tenfold.Errorf(tenfold.CodeNotFound, "table %s has no item %s", args[0], strings.Join(args[1:], " ")).WithHint("look at some: tenfold table scan %s --limit 10", args[0])
		}
		return c.printItem(out.Item, exact)
	})
	cmd.Flags().BoolVar(&exact, "exact", false, exactDoc)
	return cmd
}

func (c *cli) tablePut() *cobra.Command {
	var exact bool
	cmd := c.asking("put TABLE JSON", "Write an item, in place of the one of its key; - reads items from standard input, one a line", cobra.ExactArgs(2), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		from := io.Reader(strings.NewReader(args[1]))
		if args[1] == "-" {
			from = os.Stdin
		}
		d := json.NewDecoder(from)
		d.UseNumber()
		for n := 1; ; n++ {
			var item map[string]any
			err := d.Decode(&item)
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return tenfold.Errorf(tenfold.CodeInvalid, "item %d is no JSON: %v", n, err).WithHint(`write it in quotes: '{"id": "a", "count": 1}'`)
			}
			if !exact {
				item = typedItem(item)
			}
			if err := dynamo(ctx, api, env, "PutItem", map[string]any{"TableName": args[0], "Item": item}, nil); err != nil {
				return err
			}
		}
	})
	cmd.Flags().BoolVar(&exact, "exact", false, exactDoc)
	return cmd
}

func (c *cli) tableDelete() *cobra.Command {
	return c.asking("delete TABLE KEY [SORT]", "Delete an item and print what it was", cobra.RangeArgs(2, 3), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		t, err := describeTable(ctx, api, env, args[0])
		if err != nil {
			return err
		}
		k, err := t.keyOf(args[1:])
		if err != nil {
			return err
		}
		var out struct{ Attributes map[string]any }
		if err := dynamo(ctx, api, env, "DeleteItem", map[string]any{"TableName": args[0], "Key": k, "ReturnValues": "ALL_OLD"}, &out); err != nil {
			return err
		}
		if out.Attributes == nil {
			return tenfold.Errorf(tenfold.CodeNotFound, "table %s has no item %s", args[0], strings.Join(args[1:], " ")).WithHint("look at some: tenfold table scan %s --limit 10", args[0])
		}
		return c.printItem(out.Attributes, false)
	})
}

func (c *cli) tableScan() *cobra.Command {
	var exact bool
	var index, key string
	limit := 0
	cmd := c.asking("scan TABLE", "Print items, one a line; --key prints those of one partition, in order", cobra.ExactArgs(1), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		in := map[string]any{"TableName": args[0]}
		operation := "Scan"
		if index != "" {
			in["IndexName"] = index
		}
		if key != "" {
			t, err := describeTable(ctx, api, env, args[0])
			if err != nil {
				return err
			}
			if index != "" {
				return tenfold.Errorf(tenfold.CodeInvalid, "--key goes by the table's own key").WithHint("leave out --index, or scan the index whole")
			}
			t.KeySchema = slices.DeleteFunc(t.KeySchema, func(k struct{ AttributeName, KeyType string }) bool { return k.KeyType == "RANGE" })
			k, err := t.keyOf([]string{key})
			if err != nil {
				return err
			}
			name := t.key("HASH")
			operation = "Query"
			in["KeyConditionExpression"], in["ExpressionAttributeNames"], in["ExpressionAttributeValues"] = "#k = :k", map[string]string{"#k": name}, map[string]any{":k": k[name]}
		}
		for n := 0; ; {
			if limit > 0 {
				in["Limit"] = limit - n
			}
			var page struct {
				Items            []map[string]any
				LastEvaluatedKey map[string]any
			}
			if err := dynamo(ctx, api, env, operation, in, &page); err != nil {
				return err
			}
			for _, item := range page.Items {
				if err := c.printItem(item, exact); err != nil {
					return err
				}
				n++
			}
			if page.LastEvaluatedKey == nil || limit > 0 && n >= limit {
				return nil
			}
			in["ExclusiveStartKey"] = page.LastEvaluatedKey
		}
	})
	cmd.Flags().BoolVar(&exact, "exact", false, exactDoc)
	cmd.Flags().StringVar(&index, "index", "", "read an index")
	cmd.Flags().StringVar(&key, "key", "", "of this partition only")
	cmd.Flags().IntVar(&limit, "limit", 0, "stop after so many")
	return cmd
}

// tableUse is what the store tells of a table's use.
type tableUse struct {
	Table                                                 string
	Items, Bytes                                          int64
	ConsumedReadCapacityUnits, ConsumedWriteCapacityUnits float64
	ReadThrottleEvents, WriteThrottleEvents               uint64
	ConditionalCheckFailedRequests                        uint64
	Amplification                                         float64
	Hot                                                   []struct {
		Key          string
		Units, Share float64
	}
	Indexes []struct {
		Name         string
		Items, Bytes int64
	}
	Bill struct {
		Observed                                 time.Duration
		ReadRate, WriteRate, PeakRead, PeakWrite float64
		OnDemand, Scaled, Fixed                  float64
		Stored, Recovered                        float64
	}
}

func tableUses(ctx context.Context, api *control.Client, env control.Env, args []string) ([]tableUse, error) {
	in := map[string]string{}
	if len(args) > 0 {
		in["TableName"] = args[0]
	}
	var out struct{ Tables []tableUse }
	err := dynamo(ctx, api, env, "TenfoldUse", in, &out)
	return out.Tables, err
}

func (c *cli) tableTop() *cobra.Command {
	return c.asking("top [TABLE]", "Which tables take most, which partitions are hot, and what indexes add", cobra.MaximumNArgs(1), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		all, err := tableUses(ctx, api, env, args)
		if err != nil || c.json {
			return orEncode(c, all, err)
		}
		rows := [][]string{{"TABLE", "READ UNITS", "WRITE UNITS", "OF INDEXES", "THROTTLED", "FAILED CONDITIONS", "HOTTEST PARTITION"}}
		for _, t := range all {
			hot := "–"
			if len(t.Hot) > 0 {
				hot = fmt.Sprintf("%s: %.0f %%", t.Hot[0].Key, 100*t.Hot[0].Share)
			}
			rows = append(rows, []string{t.Table, fmt.Sprintf("%.0f", t.ConsumedReadCapacityUnits), fmt.Sprintf("%.0f", t.ConsumedWriteCapacityUnits), fmt.Sprintf("%.2f×", t.Amplification),
				strconv.FormatUint(t.ReadThrottleEvents+t.WriteThrottleEvents, 10), strconv.FormatUint(t.ConditionalCheckFailedRequests, 10), hot})
		}
		table(c.out, rows)
		if len(args) == 0 || len(all) == 0 {
			return nil
		}
		fmt.Fprintln(c.out)
		rows = [][]string{{"PARTITION", "UNITS", "SHARE"}}
		for _, h := range all[0].Hot {
			rows = append(rows, []string{h.Key, fmt.Sprintf("%.1f", h.Units), fmt.Sprintf("%.1f %%", 100*h.Share)})
		}
		table(c.out, rows)
		if len(all[0].Indexes) > 0 {
			fmt.Fprintln(c.out)
			rows = [][]string{{"INDEX", "ITEMS", "SIZE"}}
			for _, x := range all[0].Indexes {
				rows = append(rows, []string{x.Name, strconv.FormatInt(x.Items, 10), size(x.Bytes)})
			}
			table(c.out, rows)
		}
		return nil
	})
}

func (c *cli) tableCost() *cobra.Command {
	return c.asking("cost [TABLE]", "What tables would cost on DynamoDB a month, by what they took in the last day", cobra.MaximumNArgs(1), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		all, err := tableUses(ctx, api, env, args)
		if err != nil || c.json {
			return orEncode(c, all, err)
		}
		dollars := func(f float64) string { return fmt.Sprintf("$%.2f", f) }
		rows := [][]string{{"TABLE", "SEEN FOR", "READS/S", "WRITES/S", "ON DEMAND", "PROVISIONED, SCALED", "FOR THE PEAK", "STORED", "RECOVERY", "CHEAPEST"}}
		for _, t := range all {
			b := t.Bill
			cheapest := "on demand"
			switch {
			case b.Observed == 0:
				cheapest = "nothing was read or written yet"
			case b.Fixed < b.OnDemand && b.Fixed <= b.Scaled:
				cheapest = fmt.Sprintf("capacity: {read: %.0f, write: %.0f}", max(1, b.PeakRead+0.5), max(1, b.PeakWrite+0.5))
			case b.Scaled < b.OnDemand:
				cheapest = "provisioned, with auto scaling"
			}
			rows = append(rows, []string{t.Table, b.Observed.Round(time.Minute).String(), fmt.Sprintf("%.2f", b.ReadRate), fmt.Sprintf("%.2f", b.WriteRate), dollars(b.OnDemand), dollars(b.Scaled), dollars(b.Fixed), dollars(b.Stored), dollars(b.Recovered), cheapest})
		}
		table(c.out, rows)
		fmt.Fprintln(c.err, "a month, at the list prices of us-east-1; without the free tier")
		return nil
	})
}

func (c *cli) tableVerify() *cobra.Command {
	return c.asking("verify [TABLE]", "Check that indexes, expiry and stream say what the table says", cobra.MaximumNArgs(1), func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		in := map[string]string{}
		if len(args) > 0 {
			in["TableName"] = args[0]
		}
		var out struct {
			Tables []struct {
				Table                          string
				Items, Entries, Records, Count int64
				Wrong                          []string
			}
		}
		if err := dynamo(ctx, api, env, "TenfoldVerify", in, &out); err != nil || c.json {
			return orEncode(c, out.Tables, err)
		}
		wrong := int64(0)
		for _, t := range out.Tables {
			verdict := "whole"
			if t.Count > 0 {
				verdict = fmt.Sprintf("%d wrong", t.Count)
			}
			fmt.Fprintf(c.out, "%s: %s (%d items, %d entries of indexes, %d stream records)\n", t.Table, verdict, t.Items, t.Entries, t.Records)
			for _, w := range t.Wrong {
				fmt.Fprintln(c.out, "  "+w)
			}
			wrong += t.Count
		}
		if wrong > 0 {
			return tenfold.Errorf(tenfold.CodeInternal, "%d things are not as they have to be", wrong).WithHint("this is a bug of Tenfold: have the table back as it was (docs/tables.md) and report what stands above")
		}
		return nil
	})
}
