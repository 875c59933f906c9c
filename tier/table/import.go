package table

import (
	"cmp"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/cockroachdb/pebble/v2"
	"github.com/google/uuid"
	"github.com/klauspost/compress/zstd"

	"tenfold/internal/awsapi"
	"tenfold/tier/table/attr"
	"tenfold/tier/table/request"
)

// An import is a new table with the items of a bucket's files: DynamoDB's JSON, as exports have it, or CSV. It is a
// table that is being made, like one that is restored, until all was read.

// imported is what is kept of an import.
type imported struct {
	ID        string                      `json:"id"`
	Of        definition                  `json:"of"` // as it was asked for
	Source    request.S3BucketSource      `json:"source"`
	Format    string                      `json:"format"`
	Zip       string                      `json:"zip"`
	Options   *request.InputFormatOptions `json:"options,omitempty"`
	Token     string                      `json:"token"`
	Begun     float64                     `json:"begun"`
	Ended     float64                     `json:"ended,omitempty"`
	Processed int64                       `json:"processed"` // items
	Bytes     int64                       `json:"bytes"`
	Items     int64                       `json:"items"` // that were put
	Errors    int64                       `json:"errors"`
	Failed    string                      `json:"failed,omitempty"`
	Why       string                      `json:"why,omitempty"`
	Whole     bool                        `json:"whole,omitempty"`
}

func (x *imported) arn() string { return x.Of.arn() + "/import/" + x.ID }

func (x *imported) describe() member {
	attributes := []member{}
	for _, name := range x.Of.Order {
		attributes = append(attributes, member{"AttributeName": name, "AttributeType": x.Of.Types[name].String()})
	}
	sort := []string{}
	if x.Of.Sort != "" {
		sort = append(sort, x.Of.Sort)
	}
	source := member{"S3Bucket": x.Source.S3Bucket}
	if x.Source.S3KeyPrefix != "" {
		source["S3KeyPrefix"] = x.Source.S3KeyPrefix
	}
	m := member{
		"ImportArn": x.arn(), "ImportStatus": status(x.Whole, x.Failed), "TableArn": x.Of.arn(), "TableId": x.Of.UUID, "ClientToken": x.Token, "S3BucketSource": source,
		"ErrorCount": x.Errors, "InputFormat": x.Format, "InputCompressionType": x.Zip, "StartTime": x.Begun,
		"ProcessedSizeBytes": x.Bytes, "ProcessedItemCount": x.Processed, "ImportedItemCount": x.Items,
		"TableCreationParameters": member{"TableName": x.Of.Name, "AttributeDefinitions": attributes, "KeySchema": keySchema([]string{x.Of.Hash}, sort)},
	}
	if x.Ended != 0 {
		m["EndTime"] = x.Ended
	}
	if x.Failed != "" {
		m["FailureCode"], m["FailureMessage"] = x.Failed, x.Why
	}
	return m
}

func (s *Store) importTable(c awsapi.Caller, in *request.Input) (any, error) {
	if len(c.Uses["dynamodb"]) == 0 {
		return nil, awsapi.Denied(c, "dynamodb:ImportTable", tableARN(c.Account, in.TableName), in.TableName)
	}
	if in.InputFormat == "ION" {
		return nil, invalid("InputFormat ION is not served: use DYNAMODB_JSON or CSV")
	}
	from := *in.S3BucketSource
	if err := s.bucketFor(c, "ImportTable", from.S3Bucket, from.S3BucketOwner); err != nil {
		return nil, err
	}
	s.transfers.Lock()
	defer s.transfers.Unlock()
	all, err := kept[imported](s, keyImport, c.Account)
	if err != nil {
		return nil, err
	}
	for _, x := range all {
		if x.Token == in.ClientToken && x.Token != "" {
			return member{"ImportTableDescription": x.describe()}, nil
		}
	}
	d := s.form(c, in)
	x := &imported{ID: s.transferID(), Of: *d.clone(), Source: from, Format: in.InputFormat, Zip: cmp.Or(in.InputCompressionType, "NONE"), Options: in.InputFormatOptions, Token: cmp.Or(in.ClientToken, uuid.NewString()), Begun: s.moment()}
	d.Restoring = &source{Import: x.ID}
	for i := range d.Indexes {
		d.Indexes[i].Filling = true
	}
	if err := s.db.Writable(); err != nil {
		return nil, err
	}
	if err := s.keep(keyImport, c.Account, x.ID, x); err != nil {
		return nil, err
	}
	t, err := s.make(d)
	if err != nil {
		return nil, errors.Join(err, s.db.Delete(named(keyImport, c.Account, x.ID), synced))
	}
	s.resume(t)
	return member{"ImportTableDescription": x.describe()}, nil
}

// importItems puts what the files of an import have under a key of the log, and keeps how it went.
func (s *Store) importItems(d *definition, id string, to []byte) error {
	raw, closer, err := s.db.Get(named(keyImport, d.Account, id))
	if err != nil {
		return err
	}
	x := &imported{}
	err = json.Unmarshal(raw, x)
	closer.Close()
	if err != nil {
		return err
	}
	ctx, cancel := s.working()
	defer cancel()
	x.Processed, x.Bytes, x.Items, x.Errors = 0, 0, 0, 0
	err = s.readImport(ctx, d, x, to)
	if s.stopped() {
		return errStopped
	}
	if x.Ended = s.moment(); err != nil {
		x.Failed, x.Why = failure(err)
	} else {
		x.Whole = true
	}
	return errors.Join(err, s.keep(keyImport, d.Account, x.ID, x))
}

func (s *Store) readImport(ctx context.Context, d *definition, x *imported, to []byte) error {
	keys, err := s.cfg.Objects.List(ctx, d.Account, x.Source.S3Bucket, x.Source.S3KeyPrefix)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return fault("NoSuchKey", "No object of bucket %s begins with %q", x.Source.S3Bucket, x.Source.S3KeyPrefix)
	}
	b := s.db.NewBatch()
	defer func() { b.Close() }()
	flush := func(how *pebble.WriteOptions) error {
		if err := s.db.Writable(); err != nil {
			return err
		}
		if err := b.Commit(how); err != nil {
			return err
		}
		b.Close()
		b = s.db.NewBatch()
		return nil
	}
	bad := ""
	take := func(item attr.Item, err error) error {
		x.Processed++
		if err == nil {
			err = d.checkItem(item)
		}
		if err == nil && item.Size() > maxItem {
			err = fmt.Errorf("the item has more than %d bytes", maxItem)
		}
		if err == nil {
			err = item.TooDeep()
		}
		if err != nil {
			x.Errors++
			bad = cmp.Or(bad, err.Error())
			return nil
		}
		b.Set(append(slices.Clone(to), d.primary(item)...), d.encode(item), nil)
		x.Items++
		if b.Len() < 1<<20 {
			return nil
		}
		if s.stopped() {
			return errStopped
		}
		return flush(pebble.NoSync)
	}
	for _, key := range keys {
		if err := s.readObject(ctx, d, x, key, take); err != nil {
			return fmt.Errorf("object %s: %w", key, err)
		}
	}
	if x.Errors > 0 {
		s.cfg.Log.Warn("items of an import are left out", "table", d.Name, "items", x.Errors, "first", bad)
	}
	return flush(synced)
}

// readObject reads the items of one file.
func (s *Store) readObject(ctx context.Context, d *definition, x *imported, key string, take func(attr.Item, error) error) error {
	body, err := s.cfg.Objects.Open(ctx, d.Account, x.Source.S3Bucket, key)
	if err != nil {
		return err
	}
	defer body.Close()
	counted := &counter{r: body, n: &x.Bytes}
	var r io.Reader = counted
	switch x.Zip {
	case "GZIP":
		z, err := gzip.NewReader(r)
		if err != nil {
			return err
		}
		defer z.Close()
		r = z
	case "ZSTD":
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxMemory(128<<20))
		if err != nil {
			return err
		}
		defer z.Close()
		r = z
	}
	if x.Format == "CSV" {
		return readCSV(r, d, x.Options, take)
	}
	return lines(r, func(line []byte) error {
		var one struct{ Item json.RawMessage }
		err := json.Unmarshal(line, &one)
		var item attr.Item
		if err == nil {
			item, err = attr.ParseItem(one.Item)
		}
		return take(item, err)
	})
}

type counter struct {
	r io.Reader
	n *int64
}

// Read implements io.Reader.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	*c.n += int64(n)
	return n, err
}

// readCSV reads rows: each attribute is text but those of keys, which are of their types.
func readCSV(r io.Reader, d *definition, o *request.InputFormatOptions, take func(attr.Item, error) error) error {
	c := csv.NewReader(r)
	c.FieldsPerRecord, c.ReuseRecord = -1, true
	var header []string
	if o != nil {
		if o.Delimiter != "" {
			c.Comma, _ = utf8.DecodeRuneInString(o.Delimiter)
		}
		header = o.HeaderList
	}
	for {
		row, err := c.Read()
		if err == io.EOF {
			return nil
		}
		var bad *csv.ParseError
		if errors.As(err, &bad) {
			if err := take(nil, err); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if header == nil {
			header = slices.Clone(row)
			continue
		}
		if err := take(itemOfRow(d, header, row)); err != nil {
			return err
		}
	}
}

func itemOfRow(d *definition, header, row []string) (attr.Item, error) {
	if len(row) > len(header) {
		return nil, fmt.Errorf("a row has %d columns, the header %d", len(row), len(header))
	}
	item := attr.Item{}
	for i, text := range row {
		name := header[i]
		v := attr.String(text)
		switch d.Types[name] {
		case attr.N:
			n, err := attr.Number(text)
			if err != nil {
				return nil, err
			}
			v = attr.Value{Kind: attr.N, Text: n}
		case attr.B:
			b, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				return nil, err
			}
			v = attr.Value{Kind: attr.B, Bytes: b}
		}
		item[name] = v
	}
	return item, nil
}

func (s *Store) describeImport(c awsapi.Caller, in *request.Input) (any, error) {
	all, err := kept[imported](s, keyImport, c.Account)
	if err != nil {
		return nil, err
	}
	for _, x := range all {
		if x.arn() == in.ImportArn {
			if !may(c, &x.Of) {
				return nil, awsapi.Denied(c, "dynamodb:DescribeImport", in.ImportArn, x.Of.Name)
			}
			return member{"ImportTableDescription": x.describe()}, nil
		}
	}
	return nil, fault("ImportNotFoundException", "Import not found: %s", in.ImportArn)
}

func (s *Store) listImports(c awsapi.Caller, in *request.Input) (any, error) {
	all, err := kept[imported](s, keyImport, c.Account)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(x *imported) bool { return !may(c, &x.Of) || in.TableArn != "" && in.TableArn != x.Of.arn() })
	return page("ImportSummaryList", all, in.NextToken, in.PageSize, func(x *imported) (string, member) {
		m := x.describe()
		return x.arn(), member{"ImportArn": m["ImportArn"], "ImportStatus": m["ImportStatus"], "TableArn": m["TableArn"], "S3BucketSource": m["S3BucketSource"], "InputFormat": x.Format, "StartTime": x.Begun}
	}), nil
}
