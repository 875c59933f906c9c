package table

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/google/uuid"

	"tenfold/internal/awsapi"
	"tenfold/internal/kv"
	"tenfold/tier/table/attr"
	"tenfold/tier/table/request"
)

// An export is a table as it was at a moment, as files of JSON in a bucket, in the form that DynamoDB gives them:
// gzip of a line an item, with manifests that name them.

// Objects are the buckets of an account.
type Objects interface {
	// Put writes an object and returns its ETag. It fails, and leaves what was there, when body does.
	Put(ctx context.Context, account, bucket, key string, body io.Reader) (etag string, err error)
	// Open reads an object, List gives the keys that begin with prefix, in their order. Their errors are an
	// *awsapi.Fault where the bucket or the object is not there.
	Open(ctx context.Context, account, bucket, key string) (io.ReadCloser, error)
	List(ctx context.Context, account, bucket, prefix string) ([]string, error)
}

// spanLeast and spanMost bound what an incremental export is of, as on AWS.
const spanLeast, spanMost = 15 * time.Minute, 24 * time.Hour

// perFile is how much of a table goes into one file, in bytes before they are compressed.
const perFile = 64 << 20

// export is what is kept of an export.
type export struct {
	ID   string     `json:"id"`
	Of   definition `json:"of"`
	Copy uint32     `json:"copy"` // the number of a copy that it may have been made from
	At   int64      `json:"at"`   // Unix ms
	// An incremental export has what changed from From on and before At, both in Unix ms, and View of it.
	From    int64   `json:"from,omitempty"`
	View    string  `json:"view,omitempty"` // "": it is a full export
	Bucket  string  `json:"bucket"`
	Owner   string  `json:"owner,omitempty"`
	Prefix  string  `json:"prefix,omitempty"`
	Token   string  `json:"token,omitempty"`
	Begun   float64 `json:"begun"`
	Ended   float64 `json:"ended,omitempty"`
	Items   int64   `json:"items"`
	Bytes   int64   `json:"bytes"`
	Failed  string  `json:"failed,omitempty"` // a code
	Why     string  `json:"why,omitempty"`
	Whole   bool    `json:"whole,omitempty"`
	Summary string  `json:"summary,omitempty"` // key of the manifest
}

// kind is its ExportType.
func (x *export) kind() string {
	if x.View != "" {
		return "INCREMENTAL_EXPORT"
	}
	return "FULL_EXPORT"
}

func (x *export) arn() string { return x.Of.arn() + "/export/" + x.ID }

func status(whole bool, failed string) string {
	switch {
	case failed != "":
		return "FAILED"
	case whole:
		return "COMPLETED"
	}
	return "IN_PROGRESS"
}

func (x *export) describe() member {
	m := member{
		"ExportArn": x.arn(), "ExportStatus": status(x.Whole, x.Failed), "ExportType": x.kind(), "ExportFormat": "DYNAMODB_JSON",
		"StartTime": x.Begun, "TableArn": x.Of.arn(), "TableId": x.Of.UUID, "S3Bucket": x.Bucket, "S3SseAlgorithm": "AES256",
	}
	if x.View == "" {
		m["ExportTime"] = float64(x.At) / 1000
	} else {
		m["IncrementalExportSpecification"] = member{"ExportFromTime": float64(x.From) / 1000, "ExportToTime": float64(x.At) / 1000, "ExportViewType": x.View}
	}
	optional := func(name, v string) {
		if v != "" {
			m[name] = v
		}
	}
	optional("S3Prefix", x.Prefix)
	optional("S3BucketOwner", x.Owner)
	optional("ClientToken", x.Token)
	optional("ExportManifest", x.Summary)
	optional("FailureCode", x.Failed)
	optional("FailureMessage", x.Why)
	if x.Ended != 0 {
		m["EndTime"] = x.Ended
	}
	if x.Whole {
		m["ItemCount"], m["BilledSizeBytes"] = x.Items, x.Bytes
	}
	return m
}

// keep writes down what is kept of an export or an import.
func (s *Store) keep(kind byte, account, id string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.db.Set(named(kind, account, id), raw, synced)
}

// kept reads what is kept of them, of one account or, with "", of all; the newest first.
func kept[T any](s *Store, kind byte, account string) (out []*T, err error) {
	low := []byte{kv.Tables, kind}
	if account != "" {
		low = named(kind, account, "")
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: low, UpperBound: after(low)})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	for ok := it.Last(); ok; ok = it.Prev() {
		v := new(T)
		if err := json.Unmarshal(it.Value(), v); err != nil {
			return nil, fmt.Errorf("%q: %w", it.Key(), err)
		}
		out = append(out, v)
	}
	return out, it.Error()
}

// bucketFor says whether a caller may have a bucket written or read.
func (s *Store) bucketFor(c awsapi.Caller, operation, bucket, owner string) error {
	switch {
	case s.cfg.Objects == nil:
		return invalid("There are no buckets here: %s is not served", operation)
	case owner != "" && owner != c.Account, !c.May("s3", bucket):
		return awsapi.Denied(c, "dynamodb:"+operation, "arn:aws:s3:::"+bucket, bucket)
	}
	return nil
}

// transferID is one that sorts by time.
func (s *Store) transferID() string {
	return fmt.Sprintf("%014d-%08x", s.cfg.Now().UnixMilli(), rand.Uint32())
}

func (s *Store) exportPoint(c awsapi.Caller, in *request.Input) (any, error) {
	_, d, err := s.use(c, in.TableName, in.Account, "ExportTableToPointInTime")
	if err != nil {
		var f *awsapi.Fault
		if errors.As(err, &f) && f.Code == errNoTable().Code {
			return nil, fault("TableNotFoundException", "Table not found: %s", in.TableName)
		}
		return nil, err
	}
	switch {
	case in.ExportFormat == "ION":
		return nil, invalid("ExportFormat ION is not served: use DYNAMODB_JSON")
	case d.Recover == 0:
		return nil, fault("PointInTimeRecoveryUnavailableException", "Point in time recovery is not enabled for table '%s'", d.Name)
	}
	if err := s.bucketFor(c, "ExportTableToPointInTime", in.S3Bucket, in.S3BucketOwner); err != nil {
		return nil, err
	}
	now := s.cfg.Now()
	at, from, view := in.ExportTime, time.Time{}, ""
	if i := in.IncrementalExportSpecification; i != nil {
		at, from, view = i.ExportToTime, i.ExportFromTime, cmp.Or(i.ExportViewType, viewBoth)
	}
	if at.IsZero() {
		at = now
	}
	for _, t := range []time.Time{from, at} {
		if first := s.earliest(d); !t.IsZero() && (t.After(now) || t.Before(first)) {
			return nil, fault("InvalidExportTimeException", "The export time %s is not between %s and %s", t.UTC().Format(time.RFC3339), first.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		}
	}
	if span := at.Sub(from); view != "" && (span < spanLeast || span > spanMost) {
		return nil, invalid("The export period must be at least 15 minutes and at most 24 hours, and is %s", span.Round(time.Second))
	}
	s.transfers.Lock()
	defer s.transfers.Unlock()
	all, err := kept[export](s, keyExport, c.Account)
	if err != nil {
		return nil, err
	}
	for _, x := range all {
		if x.Token == in.ClientToken && x.Token != "" {
			return member{"ExportDescription": x.describe()}, nil
		}
	}
	var num definition
	if err := s.number(&num); err != nil {
		return nil, err
	}
	x := &export{ID: s.transferID(), Of: *d, Copy: num.ID, At: at.UnixMilli(), View: view, Bucket: in.S3Bucket, Owner: in.S3BucketOwner, Prefix: strings.Trim(in.S3Prefix, "/"), Token: cmp.Or(in.ClientToken, uuid.NewString()), Begun: dateTime(now)}
	if view != "" {
		x.From = from.UnixMilli()
	}
	if err := s.db.Writable(); err != nil {
		return nil, err
	}
	if err := s.keep(keyExport, c.Account, x.ID, x); err != nil {
		return nil, err
	}
	out := x.describe()
	s.done.Go(func() { s.export(x) })
	return member{"ExportDescription": out}, nil
}

// export writes the files. Where a process ends before it is done, the next begins anew: it is of the same moment.
func (s *Store) export(x *export) {
	ctx, cancel := s.working()
	defer cancel()
	err := s.writeExport(ctx, x)
	if s.stopped() {
		return
	}
	if x.Ended = s.moment(); err != nil {
		s.cfg.Log.Error("export a table", "table", x.Of.Name, "bucket", x.Bucket, "err", err)
		x.Failed, x.Why = failure(err)
	} else {
		x.Whole = true
	}
	if err := s.keep(keyExport, x.Of.Account, x.ID, x); err != nil {
		s.cfg.Log.Error("export a table", "table", x.Of.Name, "err", err)
	}
}

// working is a context that ends with the store.
func (s *Store) working() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		select {
		case <-s.end:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// failure is an error as the description of an export or import has it.
func failure(err error) (code, message string) {
	var f *awsapi.Fault
	if errors.As(err, &f) {
		return "S3" + strings.TrimPrefix(f.Code, "S3"), f.Message
	}
	return "InternalServerError", err.Error()
}

// writeExport makes the table as it was, in the log, and its files.
func (s *Store) writeExport(ctx context.Context, x *export) error {
	copied := key(keyCopy, x.Copy)
	clear := func() error { return s.db.DeleteRange(copied, after(copied), synced) }
	if err := clear(); err != nil {
		return err
	}
	if err := s.settle(); err != nil {
		return err
	}
	snap := s.db.NewSnapshot()
	var items, size int64
	var err error
	if x.View != "" {
		err = s.span(snap, x, copied)
	} else if err = s.copyItems(snap, key(keyItem, x.Of.ID), copied, &items, &size); err == nil {
		err = s.undo(snap, &source{Table: x.Of.ID, At: x.At}, copied)
	}
	snap.Close()
	if err == nil {
		err = s.exportFiles(ctx, x, copied)
	}
	return errors.Join(err, clear())
}

// file is an object of an export that is being written.
type file struct {
	key   string
	pipe  *io.PipeWriter
	zip   *gzip.Writer
	sum   hash.Hash
	items int64
	bytes int
	done  chan error
	etag  string
}

func (s *Store) file(ctx context.Context, x *export, key string) *file {
	r, w := io.Pipe()
	f := &file{key: key, pipe: w, sum: md5.New(), done: make(chan error, 1)}
	f.zip = gzip.NewWriter(io.MultiWriter(w, f.sum))
	go func() {
		var err error
		f.etag, err = s.cfg.Objects.Put(ctx, x.Of.Account, x.Bucket, key, r)
		r.CloseWithError(err) // who writes is not left waiting
		f.done <- err
	}()
	return f
}

// end has the object be there, or not when err is why it cannot be.
func (f *file) end(err error) error {
	if err == nil {
		err = f.zip.Close()
	}
	f.pipe.CloseWithError(err)
	if perr := <-f.done; perr != nil {
		return perr
	}
	return err
}

func (s *Store) exportFiles(ctx context.Context, x *export, copied []byte) error {
	x.Items, x.Bytes = 0, 0
	base := strings.TrimPrefix(x.Prefix+"/AWSDynamoDB/"+x.ID, "/")
	data, lines := base+"/data/", copied
	if x.View != "" { // the files of all incremental exports are together
		data, lines = path.Dir(base)+"/data/", partOf(copied, partWhen, nil)
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lines, UpperBound: after(lines)})
	if err != nil {
		return err
	}
	defer it.Close()
	var files bytes.Buffer
	var f *file
	line := []byte{}
	finish := func() error {
		if f == nil {
			return nil
		}
		if err := f.end(nil); err != nil {
			return err
		}
		b, err := json.Marshal(member{"itemCount": f.items, "md5Checksum": base64.StdEncoding.EncodeToString(f.sum.Sum(nil)), "etag": f.etag, "dataFileS3Key": f.key})
		files.Write(append(b, '\n'))
		f = nil
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		if f == nil {
			f = s.file(ctx, x, data+strings.ReplaceAll(uuid.NewString(), "-", "")+".json.gz")
		}
		size := 0
		if x.View != "" {
			line, size, err = s.spanLine(line[:0], x, copied, it.Key()[len(lines):], it.Value())
		} else {
			line, size, err = itemLine(line[:0], it.Value())
		}
		if err == nil {
			_, err = f.zip.Write(line)
		}
		if err != nil {
			return f.end(err)
		}
		if len(line) == 0 { // it came and went
			continue
		}
		f.items++
		x.Items++
		x.Bytes += int64(size)
		if f.bytes += len(line); f.bytes > perFile {
			if err := finish(); err != nil {
				return err
			}
		}
	}
	if err := errors.Join(it.Error(), finish()); err != nil {
		return err
	}
	return s.manifests(ctx, x, base, files.Bytes())
}

// itemLine appends the line of an item of the log. size is its own, in bytes.
func itemLine(line, raw []byte) (_ []byte, size int, err error) {
	p, err := unpack(raw)
	if err != nil {
		return line, 0, err
	}
	line, err = attr.BinaryToJSON(append(line, `{"Item":`...), p.item)
	return append(line, "}\n"...), p.size, err
}

// manifests writes the list of the files and what they are of, each with its MD5. The summary comes last: where it
// is, all is.
func (s *Store) manifests(ctx context.Context, x *export, base string, files []byte) error {
	put := func(name string, b []byte) error {
		sum := md5.Sum(b)
		if _, err := s.cfg.Objects.Put(ctx, x.Of.Account, x.Bucket, base+"/"+name+".md5", strings.NewReader(hex.EncodeToString(sum[:]))); err != nil {
			return err
		}
		_, err := s.cfg.Objects.Put(ctx, x.Of.Account, x.Bucket, base+"/"+name+".json", bytes.NewReader(b))
		return err
	}
	if err := put("manifest-files", files); err != nil {
		return err
	}
	stamp := func(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }
	summary := member{
		"version": "2020-06-30", "exportArn": x.arn(), "startTime": stamp(int64(math.Round(x.Begun * 1000))), "endTime": stamp(s.cfg.Now().UnixMilli()), "tableArn": x.Of.arn(), "tableId": x.Of.UUID,
		"s3Bucket": x.Bucket, "s3Prefix": x.Prefix, "s3SseAlgorithm": "AES256", "s3SseKmsKeyId": nil, "manifestFilesS3Key": base + "/manifest-files.json",
		"billedSizeBytes": x.Bytes, "itemCount": x.Items, "outputFormat": "DYNAMODB_JSON", "exportType": x.kind(),
	}
	if at := stamp(x.At); x.View == "" {
		summary["exportTime"] = at
	} else {
		summary["version"], summary["outputView"] = "2023-08-01", x.View
		summary["exportFromTime"], summary["exportToTime"] = stamp(x.From), at
	}
	b, err := json.Marshal(summary)
	if err == nil {
		err = put("manifest-summary", b)
	}
	x.Summary = base + "/manifest-summary.json"
	return err
}

func (s *Store) describeExport(c awsapi.Caller, in *request.Input) (any, error) {
	all, err := kept[export](s, keyExport, c.Account)
	if err != nil {
		return nil, err
	}
	for _, x := range all {
		if x.arn() == in.ExportArn {
			if !may(c, &x.Of) {
				return nil, awsapi.Denied(c, "dynamodb:DescribeExport", in.ExportArn, x.Of.Name)
			}
			return member{"ExportDescription": x.describe()}, nil
		}
	}
	return nil, fault("ExportNotFoundException", "Export not found: %s", in.ExportArn)
}

func (s *Store) listExports(c awsapi.Caller, in *request.Input) (any, error) {
	all, err := kept[export](s, keyExport, c.Account)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(x *export) bool { return !may(c, &x.Of) || in.TableArn != "" && in.TableArn != x.Of.arn() })
	return page("ExportSummaries", all, in.NextToken, in.MaxResults, func(x *export) (string, member) {
		return x.arn(), member{"ExportArn": x.arn(), "ExportStatus": status(x.Whole, x.Failed), "ExportType": x.kind()}
	}), nil
}

// page is one of a list: what follows the one that the token names.
func page[T any](name string, all []T, token string, most int, of func(T) (string, member)) member {
	out, begun := []member{}, token == ""
	m := member{}
	last := ""
	for _, x := range all {
		id, describe := of(x)
		if begun {
			if len(out) == cmp.Or(most, 25) {
				m["NextToken"] = last
				break
			}
			out, last = append(out, describe), id
		}
		begun = begun || id == token
	}
	m[name] = out
	return m
}

// resumeTransfers goes on with the exports that a process did not finish, and returns the highest number of theirs.
// Imports go on with their tables.
func (s *Store) resumeTransfers() (highest uint32, err error) {
	all, err := kept[export](s, keyExport, "")
	if err != nil {
		return 0, err
	}
	for _, x := range all {
		highest = max(highest, x.Copy)
		if !x.Whole && x.Failed == "" && s.cfg.Objects != nil && s.db.Writable() == nil {
			s.done.Go(func() { s.export(x) })
		}
	}
	return highest, nil
}

// lines reads an object of an import, line by line or as the format has it.
func lines(r io.Reader, f func(line []byte) error) error {
	b := bufio.NewReaderSize(r, 1<<20)
	for {
		line, err := b.ReadBytes('\n')
		if line := bytes.TrimSpace(line); len(line) > 0 {
			if err := f(line); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
