//go:build scenario

package test

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// A service finds its bucket in its environment, and AWS' own client needs no more than that. What was
// acknowledged outlives the process of the buckets, the daemon and the manifest; a presigned URL works at the
// front door; what is stored is told to a queue.
func TestBucketsOfAService(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := write(t, t.TempDir(), echo)
	const buckets = "    uses: [uploads, made]\nqueues: [made]\nbuckets:\n  uploads: {routes: [/uploads/*], versions: true, keep: {tmp/*: 1d}, cors: [https://shop.example.com], limit: {body: 30mb}, events: {new: {on: [created, removed], prefix: raw/, to: made}}}\n  private: {}\n"
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", buckets)})
	h.up(dir)
	env := h.environ("echo 1")
	name := env["UPLOADS_BUCKET"]
	if name != "uploads" {
		t.Fatal(env)
	}
	c := s3.New(s3.Options{Region: env["AWS_REGION"], BaseEndpoint: aws.String(env["AWS_ENDPOINT_URL_S3"]), Credentials: credentials.NewStaticCredentialsProvider(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], "")})
	ctx := t.Context()
	put := func(key, body string) error {
		_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: &name, Key: &key, Body: strings.NewReader(body)})
		return err
	}
	get := func(key string) string {
		out, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: &name, Key: &key})
		if err != nil {
			return err.Error()
		}
		defer out.Body.Close()
		b, _ := io.ReadAll(out.Body)
		return string(b)
	}
	if err := put("raw/a b.txt", "hello"); err != nil {
		t.Fatal(err)
	}
	if got := get("raw/a b.txt"); got != "hello" {
		t.Error(got)
	}
	if _, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String("private"), Key: aws.String("x")}); err == nil || !strings.Contains(err.Error(), "add `uses: [private]` to service api") {
		t.Error(err)
	}
	if _, err := c.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &name}); err == nil || !strings.Contains(err.Error(), "tenfold.yaml names it") {
		t.Error(err)
	}
	eventually(t, "the event", 20*time.Second, func() bool {
		out := h.must(dir, "queue", "receive", "made")
		return strings.Contains(out, "ObjectCreated:Put") && strings.Contains(out, "raw/a+b.txt")
	})

	t.Run("command line", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "f.txt")
		if err := os.WriteFile(file, []byte("from a file"), 0o600); err != nil {
			t.Fatal(err)
		}
		h.must(dir, "bucket", "put", file, "uploads/dir/")
		if out := h.must(dir, "bucket", "ls", "uploads", "-r"); !strings.Contains(out, "dir/f.txt") || !strings.Contains(out, "raw/a b.txt") {
			t.Error(out)
		}
		if out := h.must(dir, "bucket", "get", "s3://uploads/dir/f.txt"); !strings.Contains(out, "from a file") {
			t.Error(out)
		}
		if out := h.must(dir, "bucket", "list"); !strings.Contains(out, "private") || !strings.Contains(out, "presigned URLs at http://") {
			t.Error(out)
		}
		h.must(dir, "bucket", "rm", "uploads/dir/f.txt")
		if out, status := h.runIn(dir, "bucket", "get", "uploads/dir/f.txt"); status == 0 || !strings.Contains(out, "NoSuchKey") || !strings.Contains(out, "hint:") {
			t.Error(status, out)
		}
		if out := h.must(dir, "bucket", "env"); !strings.Contains(out, "AWS_ENDPOINT_URL_S3=http://127.0.0.1:") {
			t.Error(out)
		}
	})

	t.Run("presigned at the front door", func(t *testing.T) {
		door := s3.NewPresignClient(c, func(o *s3.PresignOptions) {
			o.ClientOptions = append(o.ClientOptions, func(o *s3.Options) { o.BaseEndpoint, o.UsePathStyle = aws.String("http://"+h.addr), true })
		})
		p, err := door.PresignGetObject(ctx, &s3.GetObjectInput{Bucket: &name, Key: aws.String("raw/a b.txt")})
		if err != nil {
			t.Fatal(err)
		}
		ask := func(method, url, body string) (int, string, http.Header) {
			r, _ := http.NewRequest(method, url, strings.NewReader(body))
			res, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			b, _ := io.ReadAll(res.Body)
			return res.StatusCode, string(b), res.Header
		}
		for range 2 {
			if code, body, h := ask("GET", p.URL, ""); code != 200 || body != "hello" {
				t.Error(code, body, h)
			}
		}
		if code, body, _ := ask("GET", strings.Replace(p.URL, "Signature=", "Signature=0", 1), ""); code != 403 {
			t.Error(code, body)
		}
		if code, body, _ := ask("GET", "http://"+h.addr+"/uploads/raw/a%20b.txt", ""); code != 403 || !strings.Contains(body, "AccessDenied") {
			t.Error(code, body)
		}
		u, err := door.PresignPutObject(ctx, &s3.PutObjectInput{Bucket: &name, Key: aws.String("big")})
		if err != nil {
			t.Fatal(err)
		}
		if code, body, _ := ask("PUT", u.URL, strings.Repeat("x", 20<<20)); code != 200 { // more than the door takes elsewhere
			t.Error(code, body)
		}
		if n := len(get("big")); n != 20<<20 {
			t.Error(n)
		}
		if code, _, _ := ask("PUT", u.URL, strings.Repeat("x", 31<<20)); code != 413 && code != 400 {
			t.Error(code)
		}
		url := strings.TrimSpace(h.must(dir, "bucket", "presign", "uploads/raw/a b.txt"))
		r, _ := http.NewRequest("GET", url, nil)
		host := r.URL.Host
		r.URL.Host, r.Host = h.addr, host
		res, err := http.DefaultClient.Do(r)
		if err != nil || res.StatusCode != 200 {
			t.Error(res, err, url)
		}
	})

	t.Run("deaths", func(t *testing.T) {
		if err := put("kept", "kept"); err != nil {
			t.Fatal(err)
		}
		// In the middle of an upload: nothing of it is seen.
		body, w := io.Pipe()
		failed := make(chan error, 1)
		go func() {
			r, _ := http.NewRequest("PUT", "", body)
			u, err := s3.NewPresignClient(c).PresignPutObject(ctx, &s3.PutObjectInput{Bucket: &name, Key: aws.String("half")})
			if err != nil {
				failed <- err
				return
			}
			r, _ = http.NewRequest("PUT", u.URL, body)
			r.ContentLength = 8 << 20
			_, err = http.DefaultClient.Do(r)
			failed <- err
		}()
		w.Write(bytes.Repeat([]byte("x"), 4<<20))
		h.kill("house files")
		w.CloseWithError(io.ErrUnexpectedEOF)
		<-failed
		eventually(t, "the bucket after the death of its process", 20*time.Second, func() bool { return get("kept") == "kept" })
		if out := h.must(dir, "bucket", "ls", "uploads", "-r"); strings.Contains(out, "half") {
			t.Error(out)
		}
		h.kill("house daemon")
		eventually(t, "the daemon after its death", 20*time.Second, func() bool { _, status := h.runIn(dir, "status"); return status == 0 })
		h.must(dir, "up", "--detach")
		if got := get("kept"); got != "kept" {
			t.Error(got)
		}
	})

	eventually(t, "the objects in status", 20*time.Second, func() bool { return strings.Contains(h.must(dir, "status"), "3 objects") })
	if out := h.must(dir, "metrics"); !strings.Contains(out, "bucket_number_of_objects{") {
		t.Error("no bucket_number_of_objects in metrics")
	}
	if _, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String("own-idea")}); err != nil {
		t.Error(err)
	}
	if out := h.must(dir, "bucket", "list"); !strings.Contains(out, "not in the manifest") {
		t.Error(out)
	}
	write(t, dir, map[string]string{"tenfold.yaml": manifest("1", "")})
	h.up(dir)
	eventually(t, "buckets that are kept", 20*time.Second, func() bool { return strings.Contains(h.must(dir, "kept"), "bucket/uploads") })
	h.must(dir, "kept", "remove", "echo/production/bucket/uploads", "--yes")
	h.must(dir, "down")
}
