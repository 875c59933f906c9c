package bucket

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"tenfold"
	"tenfold/internal/awsapi"
)

// rig is a Store with its clients.
type rig struct {
	*Store
	t    *testing.T
	url  string
	dir  string
	keys map[string]awsapi.Key

	mu  sync.Mutex
	got []Event
	err error // of a target; under mu
}

const shop, other = "111111111111", "222222222222"

func newRig(t *testing.T, dir string) *rig {
	t.Helper()
	key := func(access, account string, uses ...string) awsapi.Key {
		return awsapi.Key{Access: access, Secret: "secret-" + access, Caller: awsapi.Caller{Account: account, Of: "service " + access, Line: 7, Uses: map[string][]string{"s3": uses}}}
	}
	r := &rig{t: t, dir: dir, keys: map[string]awsapi.Key{}}
	for _, k := range []awsapi.Key{key("api", shop, "uploads"), key("mailer", shop), key("maker", shop, "mail"), key("owner", shop, awsapi.Every), key("stranger", other, awsapi.Every)} {
		r.keys[k.Access] = k
	}
	sockets, err := os.MkdirTemp("", "tfb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	r.Store, err = Open(Config{Dir: dir, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Socket: func(a string) string { return filepath.Join(sockets, a) },
		Keys: func(access string) (awsapi.Key, bool) { k, ok := r.keys[access]; return k, ok },
		Deliver: func(_ context.Context, account string, to tenfold.ID, e Event) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.err == nil {
				r.got = append(r.got, e)
			}
			return r.err
		}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx, func() {}) }()
	srv := httptest.NewServer(r.Store)
	r.url = srv.URL
	t.Cleanup(func() { srv.Close(); stop(); <-done })
	return r
}

func (r *rig) client(key string) *s3.Client {
	return s3.New(s3.Options{Region: awsapi.Region, BaseEndpoint: aws.String(r.url), UsePathStyle: true, RetryMaxAttempts: 1, Credentials: credentials.NewStaticCredentialsProvider(key, "secret-"+key, "")})
}

func (r *rig) want(wants ...Wanted) {
	r.t.Helper()
	for n, err := range r.Want(r.t.Context(), shop, wants) {
		r.t.Fatal(n, err)
	}
}

// wait has at least n events.
func (r *rig) wait(n int) []Event {
	r.t.Helper()
	for range 1000 {
		r.mu.Lock()
		got := r.got
		r.mu.Unlock()
		if len(got) >= n {
			return got
		}
		<-time.After(10 * time.Millisecond)
	}
	r.t.Fatalf("%d events, want %d", len(r.got), n)
	return nil
}

func code(err error) string {
	var e smithy.APIError
	if errors.As(err, &e) {
		return e.ErrorCode()
	}
	return ""
}

func put(t *testing.T, c *s3.Client, bucket, key, body string) {
	t.Helper()
	if _, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader(body)}); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, c *s3.Client, bucket, key string) string {
	t.Helper()
	out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Body.Close()
	b, err := io.ReadAll(out.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRoundTrip(t *testing.T) {
	r := newRig(t, t.TempDir())
	r.want(Wanted{Name: "uploads"}, Wanted{Name: "private"})
	if errs := r.Want(t.Context(), other, []Wanted{{Name: "uploads"}}); len(errs) > 0 {
		t.Fatal(errs)
	}
	ctx, api := t.Context(), r.client("api")
	put(t, api, "uploads", "a b/ü.txt", "hello")
	if got := get(t, api, "uploads", "a b/ü.txt"); got != "hello" {
		t.Error(got)
	}
	// Each environment is an account: the same name is another bucket there.
	if out, err := r.client("stranger").ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: aws.String("uploads")}); err != nil || *out.KeyCount != 0 || *out.Name != "uploads" {
		t.Error(out, err)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 400_000)
	up, err := api.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: aws.String("uploads"), Key: aws.String("big")})
	if err != nil || *up.Bucket != "uploads" {
		t.Fatal(up, err)
	}
	var parts []types.CompletedPart
	for n, body := range [][]byte{big, []byte("end")} {
		p, err := api.UploadPart(ctx, &s3.UploadPartInput{Bucket: up.Bucket, Key: up.Key, UploadId: up.UploadId, PartNumber: aws.Int32(int32(n + 1)), Body: bytes.NewReader(body)})
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, types.CompletedPart{ETag: p.ETag, PartNumber: aws.Int32(int32(n + 1)), ChecksumCRC32: p.ChecksumCRC32})
	}
	if _, err := api.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: up.Bucket, Key: up.Key, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}}); err != nil {
		t.Fatal(err)
	}
	if got := get(t, api, "uploads", "big"); len(got) != len(big)+3 {
		t.Error(len(got))
	}
	if _, err := api.CopyObject(ctx, &s3.CopyObjectInput{Bucket: aws.String("uploads"), Key: aws.String("copy"), CopySource: aws.String("uploads/big")}); err != nil {
		t.Error(err)
	}
	// Presigned: whoever has the URL may, until it ends.
	p, err := s3.NewPresignClient(api).PresignGetObject(ctx, &s3.GetObjectInput{Bucket: aws.String("uploads"), Key: aws.String("a b/ü.txt")}, s3.WithPresignExpires(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Get(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode != 200 || string(b) != "hello" || res.Header.Get("Cache-Control") != "private" {
		t.Error(res.StatusCode, string(b), res.Header)
	}
	if res, err := http.Get(strings.Replace(p.URL, "Signature=", "Signature=0", 1)); err != nil || res.StatusCode != 403 {
		t.Error(res, err)
	}
	if res, err := http.Get(r.url + "/uploads/big"); err != nil || res.StatusCode != 403 {
		t.Error("a private bucket is open", err)
	}
}

func TestUses(t *testing.T) {
	r := newRig(t, t.TempDir())
	r.want(Wanted{Name: "uploads"}, Wanted{Name: "private"})
	ctx := t.Context()
	denied := func(err error, words ...string) {
		t.Helper()
		if code(err) != "AccessDenied" {
			t.Fatal(err)
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%v says nothing of %q", err, w)
			}
		}
	}
	api := r.client("api")
	_, err := api.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String("private"), Key: aws.String("x"), Body: strings.NewReader("x")})
	denied(err, "add `uses: [private]` to service api", "tenfold.yaml:7", "s3:PutObject")
	put(t, r.client("owner"), "private", "secret", "s")
	_, err = api.CopyObject(ctx, &s3.CopyObjectInput{Bucket: aws.String("uploads"), Key: aws.String("x"), CopySource: aws.String("/private/secret")})
	denied(err, "uses: [private]")
	_, err = api.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: aws.String("uploads")})
	denied(err, "tenfold.yaml names it")
	_, err = r.client("mailer").CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String("mine")})
	denied(err, "uses: [mine]")
	// Who made a bucket uses it; nobody else does.
	maker := r.client("maker")
	if _, err := maker.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String("mine")}); err != nil {
		t.Fatal(err)
	}
	put(t, maker, "mine", "x", "x")
	_, err = api.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String("mine"), Key: aws.String("x")})
	denied(err)
	names := func(key string) (out []string) {
		l, err := r.client(key).ListBuckets(ctx, &s3.ListBucketsInput{})
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range l.Buckets {
			out = append(out, *b.Name)
		}
		return out
	}
	for key, want := range map[string]string{"api": "uploads", "maker": "mine", "owner": "mine private uploads", "mailer": "", "stranger": ""} {
		if key == "stranger" {
			r.Want(ctx, other, nil)
		}
		if got := strings.Join(names(key), " "); got != want {
			t.Errorf("%s sees %q, want %q", key, got, want)
		}
	}
	// The key of nobody, a wrong secret, and a bucket that is not there.
	_, err = r.client("nobody").ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: aws.String("uploads")})
	if code(err) != "InvalidAccessKeyId" {
		t.Error(err)
	}
	r.keys["api2"] = awsapi.Key{Access: "api2", Secret: "wrong", Caller: r.keys["api"].Caller}
	for _, b := range []string{"uploads", "private"} {
		if _, err = r.client("api2").ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &b}); code(err) != "SignatureDoesNotMatch" {
			t.Error(b, err)
		}
	}
	if _, err = r.client("owner").ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: aws.String("none")}); code(err) != "NoSuchBucket" {
		t.Error(err)
	}
	if err := r.Remove(ctx, shop, "uploads"); err == nil {
		t.Error("removed while a manifest names it")
	}
	r.want(Wanted{Name: "private"})
	if err := r.Remove(ctx, shop, "uploads"); err != nil {
		t.Error(err)
	}
	if got := strings.Join(names("owner"), " "); got != "mine private" {
		t.Error(got)
	}
}

// What is replaced or removed in a bucket with versions can be had back; what is counted is what is there.
func TestVersions(t *testing.T) {
	r := newRig(t, t.TempDir())
	r.want(Wanted{Name: "uploads", Versions: true, CORS: []string{"https://shop.example.com"}})
	ctx, api, name := t.Context(), r.client("api"), aws.String("uploads")
	put(t, api, *name, "dir/a", "one")
	put(t, api, *name, "dir/a", "two")
	put(t, api, *name, "b", "")
	if _, err := api.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: name, Key: aws.String("dir/a")}); err != nil {
		t.Fatal(err)
	}
	l, err := api.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: name, Prefix: aws.String("dir/")})
	if err != nil || len(l.Versions) != 2 || len(l.DeleteMarkers) != 1 || *l.Name != "uploads" {
		t.Fatal(len(l.Versions), len(l.DeleteMarkers), err)
	}
	if n, bytes := r.count(ctx, shop+".uploads"); n != 1 || bytes != 0 {
		filepath.WalkDir(r.dir, func(p string, e fs.DirEntry, err error) error { t.Log(p); return nil })
		t.Error(n, bytes)
	}
	for _, v := range l.Versions {
		out, err := api.GetObject(ctx, &s3.GetObjectInput{Bucket: name, Key: v.Key, VersionId: v.VersionId})
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(out.Body)
		if want := map[bool]string{true: "two", false: "one"}[string(b) == "two"]; string(b) != want {
			t.Error(string(b))
		}
	}
	// Pages of the manifest's origins may ask, others may not.
	for origin, want := range map[string]int{"https://shop.example.com": 200, "https://evil.example.com": 403} {
		q, _ := http.NewRequest(http.MethodOptions, r.url+"/uploads/x", nil)
		q.Header.Set("Origin", origin)
		q.Header.Set("Access-Control-Request-Method", "PUT")
		res, err := http.DefaultClient.Do(q)
		if err != nil || res.StatusCode != want {
			t.Error(origin, res.StatusCode, err)
		}
	}
	// The manifest has the last word.
	r.want(Wanted{Name: "uploads"})
	if _, err := api.GetBucketCors(ctx, &s3.GetBucketCorsInput{Bucket: name}); code(err) != "NoSuchCORSConfiguration" {
		t.Error("the rule of a manifest outlives it", err)
	}
	own := &types.CORSConfiguration{CORSRules: []types.CORSRule{{AllowedOrigins: []string{"*"}, AllowedMethods: []string{"GET"}}}}
	if _, err := api.PutBucketCors(ctx, &s3.PutBucketCorsInput{Bucket: name, CORSConfiguration: own}); err != nil {
		t.Fatal(err)
	}
	r.want(Wanted{Name: "uploads"})
	if out, err := api.GetBucketCors(ctx, &s3.GetBucketCorsInput{Bucket: name}); err != nil || len(out.CORSRules) != 1 {
		t.Error("a client's own rule is gone", err)
	}
	if v, err := api.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: name}); err != nil || v.Status != types.BucketVersioningStatusSuspended {
		t.Error(v.Status, err)
	}
}

// What is told of objects, to whom, and that it comes again until it is taken.
func TestEvents(t *testing.T) {
	r := newRig(t, t.TempDir())
	to := tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindQueue, Name: "thumbs"}
	r.want(Wanted{Name: "uploads", Versions: true, Keep: []Keep{{Prefix: "raw/tmp", For: time.Hour}},
		Events: []Rule{{Name: "made", Created: true, Prefix: "raw/", Suffix: ".jpg", To: to}, {Name: "gone", Removed: true, Prefix: "raw/", To: to}}})
	ctx, api, name := t.Context(), r.client("api"), aws.String("uploads")
	wait := r.wait
	r.mu.Lock()
	r.err = errors.New("asleep")
	r.mu.Unlock()
	put(t, api, *name, "raw/a b.jpg", "12345")
	put(t, api, *name, "raw/a.png", "x")
	put(t, api, *name, "a.jpg", "x")
	if left, err := os.ReadDir(filepath.Join(r.dir, "events")); err != nil || len(left) != 1 {
		t.Error(len(left), err)
	}
	r.mu.Lock()
	r.err = nil
	r.mu.Unlock()
	e := wait(1)[0]
	if e.What != "ObjectCreated:Put" || e.Size != 5 || e.Key != "raw/a b.jpg" || e.By != "api" || e.Rule != "made" || e.Version == "" {
		t.Errorf("%+v", e)
	}
	object := e.Notification()["Records"].([]any)[0].(map[string]any)["s3"].(map[string]any)["object"].(map[string]any)
	if object["key"] != "raw/a+b.jpg" || object["size"] != int64(5) {
		t.Error(object)
	}
	if kind, detail := e.Detail(); kind != "Object Created" || detail["reason"] != "PutObject" {
		t.Error(kind, detail)
	}
	if _, err := api.CopyObject(ctx, &s3.CopyObjectInput{Bucket: name, Key: aws.String("raw/c.jpg"), CopySource: aws.String("uploads/raw/a%20b.jpg")}); err != nil {
		t.Fatal(err)
	}
	wait(2)
	out, err := api.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: name, Delete: &types.Delete{Objects: []types.ObjectIdentifier{{Key: aws.String("raw/c.jpg")}, {Key: aws.String("a.jpg")}}}})
	if err != nil || len(out.Deleted) != 2 {
		t.Fatal(out, err)
	}
	wait(3)
	if _, err := api.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: name, Key: aws.String("raw/a b.jpg")}); err != nil {
		t.Fatal(err)
	}
	put(t, api, *name, "raw/tmp/x", "x")
	wait(4)
	r.Sweep(ctx, time.Now().Add(59*time.Minute))
	if got := get(t, api, *name, "raw/tmp/x"); got != "x" {
		t.Error(got)
	}
	up, err := api.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: name, Key: aws.String("left")})
	if err != nil {
		t.Fatal(err)
	}
	r.Sweep(ctx, time.Now().Add(61*time.Minute))
	got := wait(5)
	var whats []string
	for _, e := range got {
		whats = append(whats, e.What)
	}
	if want := "ObjectCreated:Put ObjectCreated:Copy ObjectRemoved:DeleteMarkerCreated ObjectRemoved:DeleteMarkerCreated LifecycleExpiration:DeleteMarkerCreated"; strings.Join(whats, " ") != want {
		t.Error(whats)
	}
	if _, err := api.ListParts(ctx, &s3.ListPartsInput{Bucket: name, Key: up.Key, UploadId: up.UploadId}); err != nil {
		t.Error("swept too early", err)
	}
	r.Sweep(ctx, time.Now().Add(8*24*time.Hour))
	if _, err := api.ListParts(ctx, &s3.ListPartsInput{Bucket: name, Key: up.Key, UploadId: up.UploadId}); code(err) != "NoSuchUpload" {
		t.Error("an upload that nobody finished stays", err)
	}
}

// A body that is too long is refused in S3's words, to a client that is still sending.
func TestTooLong(t *testing.T) {
	r := newRig(t, t.TempDir())
	r.want(Wanted{Name: "uploads", Body: 1 << 20})
	_, err := r.client("api").PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("uploads"), Key: aws.String("x"), Body: bytes.NewReader(make([]byte, 20<<20))})
	if code(err) != "EntityTooLarge" {
		t.Error(err)
	}
	put(t, r.client("api"), "uploads", "y", strings.Repeat("y", 1<<20))
}
