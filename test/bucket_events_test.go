//go:build scenario

package test

import (
	"bytes"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/minio/minio-go/v7"
	miniokeys "github.com/minio/minio-go/v7/pkg/credentials"
)

// bucketEnv is what the owner of an environment reaches its buckets by.
func (h *house) bucketEnv(dir string) map[string]string {
	h.t.Helper()
	env := map[string]string{}
	for _, word := range strings.Fields(h.must(dir, "bucket", "env")) {
		if name, value, ok := strings.Cut(word, "="); ok {
			env[name] = value
		}
	}
	return env
}

func bucketClient(env map[string]string) *s3.Client {
	return s3.New(s3.Options{Region: env["AWS_REGION"], BaseEndpoint: aws.String(env["AWS_ENDPOINT_URL_S3"]), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], "")})
}

// What is stored by a browser's form at the front door, in parts and by a copy is told of to a function and, by a
// rule of a bus, to a queue; so is what is removed.
func TestBucketEvents(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), map[string]string{
		"functions/thumb/handler.py": `def handler(event, context):
    for r in event["Records"]:
        o = r["s3"]["object"]
        print("thumb of", r["s3"]["bucket"]["name"], o["key"], r["eventName"], o.get("size"), flush=True)
`,
		"tenfold.yaml": `app: shop
functions:
  thumb: {handler: handler.handler, runtime: python, timeout: 5s}
queues: [seen]
events:
  shop-bus: {rules: {files: {match: {source: [aws.s3], detail: {bucket: {name: [uploads]}}}, to: seen}}}
buckets:
  uploads:
    routes: [/uploads/*]
    events:
      pictures: {prefix: raw/, suffix: .jpg, to: thumb}
      all: {on: [created, removed], to: shop-bus}
`,
	})
	h.up(dir)
	env := h.bucketEnv(dir)
	c, ctx, bucket := bucketClient(env), t.Context(), aws.String("uploads")
	thumbed := func(want string) {
		t.Helper()
		eventually(t, "thumb of uploads "+want, 60*time.Second, func() bool {
			return strings.Contains(h.must(dir, "fn", "logs", "thumb"), "thumb of uploads "+want)
		})
	}
	// seen has an event of a kind, of an object, on the queue that the bus's rule leads to.
	seen := func(kind, key, reason string) {
		t.Helper()
		eventually(t, kind+" "+key+" on the bus", 60*time.Second, func() bool {
			out := h.must(dir, "queue", "receive", "seen", "--delete")
			return strings.Contains(out, `"detail-type":"`+kind+`"`) && strings.Contains(out, `"key":"`+key+`"`) && strings.Contains(out, `"reason":"`+reason+`"`)
		})
	}

	// A form, signed by what the service would call: the browser posts it to the front door.
	m, err := minio.New(h.addr, &minio.Options{Region: env["AWS_REGION"], BucketLookup: minio.BucketLookupPath, Creds: miniokeys.NewStaticV4(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], "")})
	if err != nil {
		t.Fatal(err)
	}
	policy := minio.NewPostPolicy()
	for _, err := range []error{policy.SetBucket("uploads"), policy.SetKey("raw/form.jpg"), policy.SetExpires(time.Now().Add(time.Hour)), policy.SetContentType("image/jpeg"), policy.SetContentLengthRange(1, 1<<20)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	at, fields, err := m.PresignedPostPolicy(ctx, policy)
	if err != nil {
		t.Fatal(err)
	}
	post := func(body string) (int, string) {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		for n, v := range fields {
			w.WriteField(n, v)
		}
		f, err := w.CreateFormFile("file", "cat.jpg")
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(f, body)
		w.Close()
		res, err := http.Post(at.String(), w.FormDataContentType(), &b)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		answer, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(answer)
	}
	if code, answer := post("12345"); code != 204 {
		t.Fatal(at, code, answer)
	}
	thumbed("raw/form.jpg ObjectCreated:Post 5")
	seen("Object Created", "raw/form.jpg", "POST Object")
	if code, answer := post(strings.Repeat("x", 2<<20)); code != 400 || !strings.Contains(answer, "EntityTooLarge") {
		t.Error(code, answer)
	}

	up, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: aws.String("raw/parts.jpg")})
	if err != nil {
		t.Fatal(err)
	}
	var parts []types.CompletedPart
	for i, body := range []string{strings.Repeat("x", 5<<20), "end"} {
		n := aws.Int32(int32(i + 1))
		p, err := c.UploadPart(ctx, &s3.UploadPartInput{Bucket: bucket, Key: up.Key, UploadId: up.UploadId, PartNumber: n, Body: strings.NewReader(body)})
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, types.CompletedPart{ETag: p.ETag, PartNumber: n, ChecksumCRC32: p.ChecksumCRC32})
	}
	if _, err := c.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: bucket, Key: up.Key, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}}); err != nil {
		t.Fatal(err)
	}
	thumbed("raw/parts.jpg ObjectCreated:CompleteMultipartUpload 5242883")
	seen("Object Created", "raw/parts.jpg", "CompleteMultipartUpload")

	if _, err := c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: bucket, Key: aws.String("copy.png"), CopySource: aws.String("uploads/raw/form.jpg")}); err != nil {
		t.Fatal(err)
	}
	seen("Object Created", "copy.png", "CopyObject")
	if _, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: aws.String("copy.png")}); err != nil {
		t.Fatal(err)
	}
	seen("Object Deleted", "copy.png", "DeleteObject")
	if out := h.must(dir, "fn", "logs", "thumb"); strings.Contains(out, "copy.png") {
		t.Errorf("the function is told of what no rule of its says: %s", out)
	}
	h.must(dir, "down")
}
