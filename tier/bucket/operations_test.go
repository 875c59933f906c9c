package bucket

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused sees to it that an error has S3's status and code.
func refused(t *testing.T, err error, status int, want string) {
	t.Helper()
	var res *smithyhttp.ResponseError
	if !errors.As(err, &res) || res.HTTPStatusCode() != status || code(err) != want {
		t.Errorf("%v, want %d %s", err, status, want)
	}
}

func etag(body []byte) string { sum := md5.Sum(body); return `"` + hex.EncodeToString(sum[:]) + `"` }

// The examples of AWS' reference on objects, through the SDK: what each operation answers, and what it refuses.
func TestExamplesOfObjects(t *testing.T) {
	r := newRig(t, t.TempDir())
	r.want(Wanted{Name: "uploads"})
	ctx, c, bucket := t.Context(), r.client("api"), aws.String("uploads")
	hello := []byte("Happy face")
	sum := sha256.Sum256(hello)
	sha := base64.StdEncoding.EncodeToString(sum[:])

	// Put, with metadata, tags and a checksum; Head and Get have all of it.
	p, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: aws.String("HappyFace.jpg"), Body: bytes.NewReader(hello), ContentType: aws.String("image/jpeg"), CacheControl: aws.String("max-age=60"), ContentDisposition: aws.String("inline"), ContentLanguage: aws.String("de"),
		Metadata: map[string]string{"metadata1": "value1", "metadata2": "value2"}, Tagging: aws.String("key1=value1&key2=value2"), ChecksumAlgorithm: types.ChecksumAlgorithmSha256})
	if must(t, err); *p.ETag != etag(hello) || aws.ToString(p.ChecksumSHA256) != sha {
		t.Errorf("PutObject: %s %s", *p.ETag, aws.ToString(p.ChecksumSHA256))
	}
	h, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: bucket, Key: aws.String("HappyFace.jpg"), ChecksumMode: types.ChecksumModeEnabled})
	if must(t, err); *h.ContentLength != int64(len(hello)) || *h.ContentType != "image/jpeg" || *h.ETag != etag(hello) || *h.CacheControl != "max-age=60" || *h.ContentDisposition != "inline" || *h.ContentLanguage != "de" || len(h.Metadata) != 2 || h.Metadata["metadata1"] != "value1" ||
		aws.ToString(h.ChecksumSHA256) != sha || aws.ToString(h.AcceptRanges) != "bytes" || h.LastModified == nil || time.Since(*h.LastModified) > 10*time.Minute {
		t.Errorf("HeadObject: %+v", h)
	}
	get := func(in *s3.GetObjectInput) (*s3.GetObjectOutput, string, error) {
		in.Bucket = bucket
		out, err := c.GetObject(ctx, in)
		if err != nil {
			return nil, "", err
		}
		defer out.Body.Close()
		b, err := io.ReadAll(out.Body)
		return out, string(b), err
	}
	face := aws.String("HappyFace.jpg")
	g, body, err := get(&s3.GetObjectInput{Key: face, ResponseContentType: aws.String("text/plain"), ResponseCacheControl: aws.String("no-cache")})
	if must(t, err); body != string(hello) || *g.ContentType != "text/plain" || *g.CacheControl != "no-cache" || *g.TagCount != 2 || g.Metadata["metadata2"] != "value2" || *g.ETag != etag(hello) {
		t.Errorf("GetObject: %q %+v", body, g)
	}
	for in, want := range map[string][2]string{"bytes=0-4": {"Happy", "bytes 0-4/10"}, "bytes=6-": {"face", "bytes 6-9/10"}, "bytes=-4": {"face", "bytes 6-9/10"}, "bytes=6-100": {"face", "bytes 6-9/10"}} {
		if g, body, err := get(&s3.GetObjectInput{Key: face, Range: &in}); err != nil || body != want[0] || *g.ContentRange != want[1] {
			t.Errorf("GetObject %s: %q, %v", in, body, err)
		}
	}
	_, _, err = get(&s3.GetObjectInput{Key: face, Range: aws.String("bytes=10-")})
	refused(t, err, 416, "InvalidRange")
	_, _, err = get(&s3.GetObjectInput{Key: aws.String("none")})
	refused(t, err, 404, "NoSuchKey")
	var gone *types.NoSuchKey
	if !errors.As(err, &gone) {
		t.Errorf("%v is no NoSuchKey", err)
	}
	_, err = c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: bucket, Key: aws.String("none")})
	refused(t, err, 404, "NotFound")

	// Conditions, of reading and of writing.
	_, _, err = get(&s3.GetObjectInput{Key: face, IfMatch: aws.String(`"other"`)})
	refused(t, err, 412, "PreconditionFailed")
	_, _, err = get(&s3.GetObjectInput{Key: face, IfNoneMatch: p.ETag})
	refused(t, err, 304, "NotModified")
	_, _, err = get(&s3.GetObjectInput{Key: face, IfModifiedSince: h.LastModified}) // what clients ask again with
	refused(t, err, 304, "NotModified")
	_, _, err = get(&s3.GetObjectInput{Key: face, IfUnmodifiedSince: h.LastModified})
	must(t, err)
	_, _, err = get(&s3.GetObjectInput{Key: face, IfModifiedSince: aws.Time(h.LastModified.Add(-time.Second))})
	must(t, err)
	_, err = c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: bucket, Key: face, IfModifiedSince: h.LastModified})
	refused(t, err, 304, "NotModified")
	_, err = c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: bucket, Key: aws.String("copy"), CopySource: aws.String("uploads/HappyFace.jpg"), CopySourceIfModifiedSince: h.LastModified})
	refused(t, err, 304, "NotModified") // 412 on AWS; the engine's suite has it so
	_, _, err = get(&s3.GetObjectInput{Key: face, IfUnmodifiedSince: aws.Time(h.LastModified.Add(-time.Hour))})
	refused(t, err, 412, "PreconditionFailed")
	put := func(key string, f func(in *s3.PutObjectInput)) error {
		in := &s3.PutObjectInput{Bucket: bucket, Key: &key, Body: bytes.NewReader(hello)}
		f(in)
		_, err := c.PutObject(ctx, in)
		return err
	}
	must(t, put("once", func(in *s3.PutObjectInput) { in.IfNoneMatch = aws.String("*") }))
	refused(t, put("once", func(in *s3.PutObjectInput) { in.IfNoneMatch = aws.String("*") }), 412, "PreconditionFailed")
	must(t, put("once", func(in *s3.PutObjectInput) { in.IfMatch = p.ETag }))
	refused(t, put("once", func(in *s3.PutObjectInput) { in.IfMatch = aws.String(`"other"`) }), 412, "PreconditionFailed")
	refused(t, put("never", func(in *s3.PutObjectInput) { in.IfMatch = p.ETag }), 404, "NoSuchKey")
	refused(t, put("bad", func(in *s3.PutObjectInput) { in.ContentMD5 = aws.String("bm90IGl0cyBtZDUgYXQhIQ==") }), 400, "BadDigest")
	refused(t, put("bad", func(in *s3.PutObjectInput) { in.ChecksumCRC32 = aws.String("AAAAAA==") }), 400, "BadDigest")
	refused(t, put(strings.Repeat("k", 1025), func(*s3.PutObjectInput) {}), 400, "KeyTooLongError")

	// Attributes, tags.
	at, err := c.GetObjectAttributes(ctx, &s3.GetObjectAttributesInput{Bucket: bucket, Key: face, ObjectAttributes: []types.ObjectAttributes{types.ObjectAttributesEtag, types.ObjectAttributesObjectSize, types.ObjectAttributesChecksum, types.ObjectAttributesStorageClass}})
	if must(t, err); `"`+strings.Trim(*at.ETag, `"`)+`"` != etag(hello) || *at.ObjectSize != 10 || at.Checksum == nil || *at.Checksum.ChecksumSHA256 != sha || at.StorageClass != types.StorageClassStandard {
		t.Errorf("GetObjectAttributes: %+v", at)
	}
	_, err = c.GetObjectAttributes(ctx, &s3.GetObjectAttributesInput{Bucket: bucket, Key: aws.String("none"), ObjectAttributes: []types.ObjectAttributes{types.ObjectAttributesEtag}})
	refused(t, err, 404, "NoSuchKey")
	tags := func() (out []string) {
		t.Helper()
		l, err := c.GetObjectTagging(ctx, &s3.GetObjectTaggingInput{Bucket: bucket, Key: face})
		must(t, err)
		for _, x := range l.TagSet {
			out = append(out, *x.Key+"="+*x.Value)
		}
		slices.Sort(out)
		return out
	}
	if got := tags(); !slices.Equal(got, []string{"key1=value1", "key2=value2"}) {
		t.Errorf("GetObjectTagging: %v", got)
	}
	_, err = c.PutObjectTagging(ctx, &s3.PutObjectTaggingInput{Bucket: bucket, Key: face, Tagging: &types.Tagging{TagSet: []types.Tag{{Key: aws.String("Key3"), Value: aws.String("Value3")}}}})
	must(t, err)
	if got := tags(); !slices.Equal(got, []string{"Key3=Value3"}) {
		t.Errorf("PutObjectTagging: %v", got)
	}
	_, err = c.DeleteObjectTagging(ctx, &s3.DeleteObjectTaggingInput{Bucket: bucket, Key: face})
	if must(t, err); len(tags()) != 0 {
		t.Errorf("DeleteObjectTagging: %v", tags())
	}
	_, err = c.PutObjectTagging(ctx, &s3.PutObjectTaggingInput{Bucket: bucket, Key: face, Tagging: &types.Tagging{TagSet: []types.Tag{{Key: aws.String("a"), Value: aws.String("1")}, {Key: aws.String("a"), Value: aws.String("2")}}}})
	refused(t, err, 400, "InvalidTag")
	_, err = c.GetObjectTagging(ctx, &s3.GetObjectTaggingInput{Bucket: bucket, Key: aws.String("none")})
	refused(t, err, 404, "NoSuchKey")

	// Copies keep what the object has, or take something else.
	cp, err := c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: bucket, Key: aws.String("copy"), CopySource: aws.String("/uploads/HappyFace.jpg")})
	if must(t, err); *cp.CopyObjectResult.ETag != etag(hello) || cp.CopyObjectResult.LastModified == nil {
		t.Errorf("CopyObject: %+v", cp.CopyObjectResult)
	}
	if g, _, err := get(&s3.GetObjectInput{Key: aws.String("copy")}); err != nil || *g.ContentType != "image/jpeg" || g.Metadata["metadata1"] != "value1" {
		t.Errorf("CopyObject: %+v, %v", g, err)
	}
	_, err = c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: bucket, Key: aws.String("copy"), CopySource: aws.String("uploads/HappyFace.jpg"), MetadataDirective: types.MetadataDirectiveReplace, Metadata: map[string]string{"other": "x"}, ContentType: aws.String("text/plain")})
	must(t, err)
	if g, _, err := get(&s3.GetObjectInput{Key: aws.String("copy")}); err != nil || *g.ContentType != "text/plain" || len(g.Metadata) != 1 || g.Metadata["other"] != "x" {
		t.Errorf("CopyObject: %+v, %v", g, err)
	}
	_, err = c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: bucket, Key: aws.String("copy"), CopySource: aws.String("uploads/none")})
	refused(t, err, 404, "NoSuchKey")
	_, err = c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: bucket, Key: face, CopySource: aws.String("uploads/HappyFace.jpg")})
	refused(t, err, 400, "InvalidRequest")
	_, err = c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: bucket, Key: aws.String("copy"), CopySource: aws.String("uploads/HappyFace.jpg"), CopySourceIfMatch: aws.String(`"other"`)})
	refused(t, err, 412, "PreconditionFailed")

	// Deletes answer alike whether there was something.
	for range 2 {
		_, err = c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: aws.String("copy")})
		must(t, err)
	}
	del := func(keys ...string) *s3.DeleteObjectsOutput {
		t.Helper()
		var ids []types.ObjectIdentifier
		for _, k := range keys {
			ids = append(ids, types.ObjectIdentifier{Key: &k})
		}
		out, err := c.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: bucket, Delete: &types.Delete{Objects: ids}})
		must(t, err)
		return out
	}
	if out := del("once", "none"); len(out.Deleted) != 2 || len(out.Errors) != 0 || *out.Deleted[0].Key != "once" || *out.Deleted[1].Key != "none" {
		t.Errorf("DeleteObjects: %+v", out)
	}
	_, err = c.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String("none"), Key: face, Body: bytes.NewReader(hello)})
	if code(err) != "NoSuchBucket" && code(err) != "AccessDenied" { // whose `uses` does not name it hears no more
		t.Error(err)
	}
	_, err = r.client("owner").PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String("none"), Key: face, Body: bytes.NewReader(hello)})
	refused(t, err, 404, "NoSuchBucket")
}

// Lists of both kinds: prefixes, delimiters and pages.
func TestExamplesOfLists(t *testing.T) {
	r := newRig(t, t.TempDir())
	r.want(Wanted{Name: "uploads"})
	ctx, c, bucket := t.Context(), r.client("api"), aws.String("uploads")
	for _, k := range []string{"sample.jpg", "photos/2006/January/sample.jpg", "photos/2006/February/sample2.jpg", "photos/2006/February/sample3.jpg", "a b+c.txt"} {
		put(t, c, *bucket, k, k)
	}
	keys := func(all []types.Object, prefixes []types.CommonPrefix) string {
		var out []string
		for _, o := range all {
			if *o.Size != int64(len(*o.Key)) || *o.ETag != etag([]byte(*o.Key)) || o.LastModified == nil || o.StorageClass != types.ObjectStorageClassStandard {
				t.Errorf("listed: %+v", o)
			}
			out = append(out, *o.Key)
		}
		for _, p := range prefixes {
			out = append(out, *p.Prefix)
		}
		return strings.Join(out, " ")
	}
	two := func(in *s3.ListObjectsV2Input, want string, count int32, more bool) *s3.ListObjectsV2Output {
		t.Helper()
		in.Bucket = bucket
		l, err := c.ListObjectsV2(ctx, in)
		must(t, err)
		if got := keys(l.Contents, l.CommonPrefixes); got != want || *l.KeyCount != count || *l.IsTruncated != more || *l.Name != "uploads" || aws.ToString(l.Prefix) != aws.ToString(in.Prefix) || aws.ToString(l.Delimiter) != aws.ToString(in.Delimiter) {
			t.Errorf("ListObjectsV2: %q, %d, %v: want %q", got, *l.KeyCount, *l.IsTruncated, want)
		}
		return l
	}
	two(&s3.ListObjectsV2Input{Delimiter: aws.String("/")}, "a b+c.txt sample.jpg photos/", 3, false)
	two(&s3.ListObjectsV2Input{Prefix: aws.String("photos/2006/"), Delimiter: aws.String("/")}, "photos/2006/February/ photos/2006/January/", 2, false)
	two(&s3.ListObjectsV2Input{Prefix: aws.String("photos/2006/J")}, "photos/2006/January/sample.jpg", 1, false)
	two(&s3.ListObjectsV2Input{StartAfter: aws.String("photos/2006/February/sample3.jpg")}, "photos/2006/January/sample.jpg sample.jpg", 2, false)
	two(&s3.ListObjectsV2Input{Prefix: aws.String("none")}, "", 0, false)
	page := two(&s3.ListObjectsV2Input{MaxKeys: aws.Int32(2)}, "a b+c.txt photos/2006/February/sample2.jpg", 2, true)
	page = two(&s3.ListObjectsV2Input{MaxKeys: aws.Int32(2), ContinuationToken: page.NextContinuationToken}, "photos/2006/February/sample3.jpg photos/2006/January/sample.jpg", 2, true)
	two(&s3.ListObjectsV2Input{MaxKeys: aws.Int32(2), ContinuationToken: page.NextContinuationToken}, "sample.jpg", 1, false)
	_, err := c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: bucket, MaxKeys: aws.Int32(-1)})
	refused(t, err, 400, "InvalidArgument")
	_, err = r.client("owner").ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: aws.String("none")})
	refused(t, err, 404, "NoSuchBucket")

	one, err := c.ListObjects(ctx, &s3.ListObjectsInput{Bucket: bucket, Delimiter: aws.String("/"), MaxKeys: aws.Int32(2)})
	if must(t, err); keys(one.Contents, one.CommonPrefixes) != "a b+c.txt photos/" || !*one.IsTruncated || aws.ToString(one.NextMarker) != "photos/" || *one.MaxKeys != 2 {
		t.Errorf("ListObjects: %+v", one)
	}
	one, err = c.ListObjects(ctx, &s3.ListObjectsInput{Bucket: bucket, Delimiter: aws.String("/"), Marker: one.NextMarker})
	if must(t, err); keys(one.Contents, one.CommonPrefixes) != "sample.jpg" || *one.IsTruncated || *one.Marker != "photos/" {
		t.Errorf("ListObjects: %+v", one)
	}
	_, err = r.client("owner").ListObjects(ctx, &s3.ListObjectsInput{Bucket: aws.String("none")})
	refused(t, err, 404, "NoSuchBucket")
}

// An object in parts, of which one is copied from another object.
func TestExamplesOfMultipart(t *testing.T) {
	r := newRig(t, t.TempDir())
	r.want(Wanted{Name: "uploads"})
	ctx, c, bucket, key := t.Context(), r.client("api"), aws.String("uploads"), aws.String("largeobject")
	big := bytes.Repeat([]byte("x"), 5<<20)
	put(t, c, *bucket, "source", string(big))

	up, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: key, ContentType: aws.String("text/plain"), Metadata: map[string]string{"k": "v"}})
	if must(t, err); *up.Bucket != "uploads" || *up.Key != *key || *up.UploadId == "" {
		t.Errorf("CreateMultipartUpload: %+v", up)
	}
	copied, err := c.UploadPartCopy(ctx, &s3.UploadPartCopyInput{Bucket: bucket, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(1), CopySource: aws.String("/uploads/source")})
	if must(t, err); *copied.CopyPartResult.ETag != etag(big) || copied.CopyPartResult.LastModified == nil {
		t.Errorf("UploadPartCopy: %+v", copied.CopyPartResult)
	}
	part, err := c.UploadPart(ctx, &s3.UploadPartInput{Bucket: bucket, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(2), Body: bytes.NewReader([]byte("the end"))})
	if must(t, err); *part.ETag != etag([]byte("the end")) {
		t.Errorf("UploadPart: %+v", part)
	}
	ranged, err := c.UploadPartCopy(ctx, &s3.UploadPartCopyInput{Bucket: bucket, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(3), CopySource: aws.String("uploads/source"), CopySourceRange: aws.String("bytes=1-100")})
	if must(t, err); *ranged.CopyPartResult.ETag != etag(big[1:101]) {
		t.Errorf("UploadPartCopy of a range: %+v", ranged.CopyPartResult)
	}
	_, err = c.UploadPartCopy(ctx, &s3.UploadPartCopyInput{Bucket: bucket, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(4), CopySource: aws.String("uploads/none")})
	refused(t, err, 404, "NoSuchKey")
	_, err = c.UploadPart(ctx, &s3.UploadPartInput{Bucket: bucket, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(10_001), Body: bytes.NewReader(nil)})
	refused(t, err, 400, "InvalidArgument")
	_, err = c.UploadPart(ctx, &s3.UploadPartInput{Bucket: bucket, Key: key, UploadId: aws.String("none"), PartNumber: aws.Int32(1), Body: bytes.NewReader(nil)})
	refused(t, err, 404, "NoSuchUpload")

	parts, err := c.ListParts(ctx, &s3.ListPartsInput{Bucket: bucket, Key: key, UploadId: up.UploadId, MaxParts: aws.Int32(2)})
	if must(t, err); len(parts.Parts) != 2 || *parts.Parts[0].PartNumber != 1 || *parts.Parts[0].Size != 5<<20 || *parts.Parts[0].ETag != etag(big) || *parts.Parts[1].Size != 7 || !*parts.IsTruncated || *parts.NextPartNumberMarker != "2" || *parts.UploadId != *up.UploadId {
		t.Errorf("ListParts: %+v", parts)
	}
	if parts, err = c.ListParts(ctx, &s3.ListPartsInput{Bucket: bucket, Key: key, UploadId: up.UploadId, PartNumberMarker: parts.NextPartNumberMarker}); err != nil || len(parts.Parts) != 1 || *parts.Parts[0].PartNumber != 3 || *parts.IsTruncated {
		t.Errorf("ListParts: %+v, %v", parts, err)
	}
	uploads, err := c.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: bucket})
	if must(t, err); len(uploads.Uploads) != 1 || *uploads.Uploads[0].Key != *key || *uploads.Uploads[0].UploadId != *up.UploadId || uploads.Uploads[0].Initiated == nil {
		t.Errorf("ListMultipartUploads: %+v", uploads.Uploads)
	}
	complete := func(id *string, parts ...types.CompletedPart) (*s3.CompleteMultipartUploadOutput, error) {
		return c.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: bucket, Key: key, UploadId: id, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}})
	}
	n := func(i int32, e *string) types.CompletedPart { return types.CompletedPart{PartNumber: &i, ETag: e} }
	_, err = complete(up.UploadId, n(2, part.ETag), n(3, ranged.CopyPartResult.ETag))
	refused(t, err, 400, "EntityTooSmall")
	_, err = complete(up.UploadId, n(1, part.ETag))
	refused(t, err, 400, "InvalidPart")
	again, err := c.UploadPartCopy(ctx, &s3.UploadPartCopyInput{Bucket: bucket, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(4), CopySource: aws.String("uploads/source")})
	must(t, err)
	_, err = complete(up.UploadId, n(4, again.CopyPartResult.ETag), n(1, copied.CopyPartResult.ETag))
	refused(t, err, 400, "InvalidPartOrder")
	_, err = complete(aws.String("none"), n(1, part.ETag))
	refused(t, err, 404, "NoSuchUpload")
	done, err := complete(up.UploadId, n(1, copied.CopyPartResult.ETag), n(2, part.ETag))
	must(t, err)
	a, b := md5.Sum(big), md5.Sum([]byte("the end"))
	both := md5.Sum(append(a[:], b[:]...))
	want := `"` + hex.EncodeToString(both[:]) + `-2"`
	if *done.ETag != want || *done.Bucket != "uploads" || *done.Key != *key || !strings.HasSuffix(*done.Location, "/uploads/largeobject") {
		t.Errorf("CompleteMultipartUpload: %s %s %s %s, want %s", *done.ETag, *done.Bucket, *done.Key, aws.ToString(done.Location), want)
	}
	h, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: bucket, Key: key})
	if must(t, err); *h.ContentLength != 5<<20+7 || *h.ETag != want || *h.ContentType != "text/plain" || h.Metadata["k"] != "v" {
		t.Errorf("HeadObject: %+v", h)
	}
	if h, err = c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: bucket, Key: key, PartNumber: aws.Int32(2)}); err != nil || *h.ContentLength != 7 || *h.PartsCount != 2 {
		t.Errorf("HeadObject of a part: %+v, %v", h, err)
	}

	up, err = c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: key})
	must(t, err)
	_, err = c.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: bucket, Key: key, UploadId: up.UploadId})
	must(t, err)
	_, err = c.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: bucket, Key: key, UploadId: up.UploadId})
	refused(t, err, 404, "NoSuchUpload")
	_, err = c.ListParts(ctx, &s3.ListPartsInput{Bucket: bucket, Key: key, UploadId: up.UploadId})
	refused(t, err, 404, "NoSuchUpload")
}

// Buckets: versions, origins, tags, what is not served, and addresses that anyone may use for a while.
func TestExamplesOfBuckets(t *testing.T) {
	r := newRig(t, t.TempDir())
	r.want(Wanted{Name: "uploads", Versions: true})
	ctx, c, bucket := t.Context(), r.client("api"), aws.String("uploads")

	if h, err := c.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: bucket}); err != nil || aws.ToString(h.BucketRegion) != "us-east-1" {
		t.Errorf("HeadBucket: %+v, %v", h, err)
	}
	_, err := r.client("owner").HeadBucket(ctx, &s3.HeadBucketInput{Bucket: aws.String("none")})
	refused(t, err, 404, "NotFound")
	if l, err := c.GetBucketLocation(ctx, &s3.GetBucketLocationInput{Bucket: bucket}); err != nil || l.LocationConstraint != "" {
		t.Errorf("GetBucketLocation: %+v, %v", l, err)
	}
	maker := r.client("maker")
	_, err = maker.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String("examplebucket")})
	must(t, err)
	_, err = maker.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String("No")})
	refused(t, err, 400, "InvalidBucketName")
	put(t, maker, "examplebucket", "x", "x")
	_, err = maker.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: aws.String("examplebucket")})
	refused(t, err, 409, "BucketNotEmpty")
	_, err = maker.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: aws.String("examplebucket"), Key: aws.String("x")})
	must(t, err)
	_, err = maker.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: aws.String("examplebucket")})
	must(t, err)

	// Versions.
	key := aws.String("HappyFace.jpg")
	var ids []string
	for _, body := range []string{"one", "two"} {
		p, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: key, Body: strings.NewReader(body)})
		must(t, err)
		ids = append(ids, *p.VersionId)
	}
	g, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: key, VersionId: &ids[0]})
	must(t, err)
	b, err := io.ReadAll(g.Body)
	if must(t, err); string(b) != "one" || *g.VersionId != ids[0] {
		t.Errorf("GetObject of a version: %q", b)
	}
	marker, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: key})
	if must(t, err); !*marker.DeleteMarker || *marker.VersionId == "" {
		t.Errorf("DeleteObject: %+v", marker)
	}
	_, err = c.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: key})
	refused(t, err, 404, "NoSuchKey")
	l, err := c.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: bucket, Prefix: key})
	if must(t, err); len(l.Versions) != 2 || *l.Versions[0].VersionId != ids[1] || *l.Versions[1].VersionId != ids[0] || *l.Versions[0].IsLatest || len(l.DeleteMarkers) != 1 || !*l.DeleteMarkers[0].IsLatest || *l.DeleteMarkers[0].VersionId != *marker.VersionId {
		t.Errorf("ListObjectVersions: %+v %+v", l.Versions, l.DeleteMarkers)
	}
	_, err = c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: key, VersionId: marker.VersionId})
	must(t, err)
	if got := get(t, c, *bucket, *key); got != "two" {
		t.Errorf("without its marker it is %q", got)
	}
	if v, err := c.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: bucket}); err != nil || v.Status != types.BucketVersioningStatusEnabled {
		t.Errorf("GetBucketVersioning: %+v, %v", v, err)
	}

	// Origins and tags of a bucket.
	_, err = c.GetBucketCors(ctx, &s3.GetBucketCorsInput{Bucket: bucket})
	refused(t, err, 404, "NoSuchCORSConfiguration")
	_, err = c.PutBucketCors(ctx, &s3.PutBucketCorsInput{Bucket: bucket, CORSConfiguration: &types.CORSConfiguration{CORSRules: []types.CORSRule{{AllowedOrigins: []string{"http://www.example.com"}, AllowedHeaders: []string{"*"}, AllowedMethods: []string{"PUT", "POST", "DELETE"}, ExposeHeaders: []string{"x-amz-server-side-encryption"}, MaxAgeSeconds: aws.Int32(3000)}}}})
	must(t, err)
	cors, err := c.GetBucketCors(ctx, &s3.GetBucketCorsInput{Bucket: bucket})
	if must(t, err); len(cors.CORSRules) != 1 || cors.CORSRules[0].AllowedOrigins[0] != "http://www.example.com" || len(cors.CORSRules[0].AllowedMethods) != 3 || *cors.CORSRules[0].MaxAgeSeconds != 3000 {
		t.Errorf("GetBucketCors: %+v", cors.CORSRules)
	}
	_, err = c.DeleteBucketCors(ctx, &s3.DeleteBucketCorsInput{Bucket: bucket})
	must(t, err)
	_, err = c.GetBucketTagging(ctx, &s3.GetBucketTaggingInput{Bucket: bucket})
	refused(t, err, 404, "NoSuchTagSet")
	_, err = c.PutBucketTagging(ctx, &s3.PutBucketTaggingInput{Bucket: bucket, Tagging: &types.Tagging{TagSet: []types.Tag{{Key: aws.String("Key1"), Value: aws.String("Value1")}}}})
	must(t, err)
	if tags, err := c.GetBucketTagging(ctx, &s3.GetBucketTaggingInput{Bucket: bucket}); err != nil || len(tags.TagSet) != 1 || *tags.TagSet[0].Key != "Key1" {
		t.Errorf("GetBucketTagging: %+v, %v", tags, err)
	}
	_, err = c.DeleteBucketTagging(ctx, &s3.DeleteBucketTaggingInput{Bucket: bucket})
	must(t, err)
	_, err = c.PutBucketLifecycleConfiguration(ctx, &s3.PutBucketLifecycleConfigurationInput{Bucket: bucket, LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: []types.LifecycleRule{{Status: types.ExpirationStatusEnabled, Filter: &types.LifecycleRuleFilter{Prefix: aws.String("tmp/")}, Expiration: &types.LifecycleExpiration{Days: aws.Int32(1)}}}}})
	refused(t, err, 501, "NotImplemented") // expiry is the manifest's

	// Presigned: a form of address for those without a key, until it ends.
	signer := s3.NewPresignClient(c)
	ask := func(method, url, body string) (int, string, http.Header) {
		t.Helper()
		q, err := http.NewRequest(method, url, strings.NewReader(body))
		must(t, err)
		res, err := http.DefaultClient.Do(q)
		must(t, err)
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		must(t, err)
		return res.StatusCode, string(b), res.Header
	}
	up, err := signer.PresignPutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: aws.String("signed")}, s3.WithPresignExpires(time.Minute))
	must(t, err)
	if status, body, h := ask(http.MethodPut, up.URL, "by anyone"); status != 200 || h.Get("Etag") != etag([]byte("by anyone")) {
		t.Errorf("presigned PUT: %d %s", status, body)
	}
	down, err := signer.PresignGetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: aws.String("signed"), ResponseContentDisposition: aws.String("attachment")}, s3.WithPresignExpires(time.Minute))
	must(t, err)
	if status, body, h := ask(http.MethodGet, down.URL, ""); status != 200 || body != "by anyone" || h.Get("Content-Disposition") != "attachment" {
		t.Errorf("presigned GET: %d %s %v", status, body, h)
	}
	if status, body, _ := ask(http.MethodGet, strings.Replace(down.URL, "signed", "other", 1), ""); status != 403 || !strings.Contains(body, "<Code>SignatureDoesNotMatch</Code>") {
		t.Errorf("an address for something else: %d %s", status, body)
	}
}
