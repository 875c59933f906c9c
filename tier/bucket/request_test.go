package bucket

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"tenfold"
	"tenfold/internal/awsapi"
)

// form is a browser's upload: fields that key signed, and a file. more are fields that the policy lets by.
func form(key, bucket, object, body string, more map[string]string) (kind string, form []byte) {
	now := time.Now().UTC()
	day := now.Format("20060102")
	scope := strings.Join([]string{key, day, awsapi.Region, service, "aws4_request"}, "/")
	fields := map[string]string{"key": object, "x-amz-algorithm": "AWS4-HMAC-SHA256", "x-amz-credential": scope, "x-amz-date": now.Format("20060102T150405Z")}
	maps.Copy(fields, more)
	conditions := []string{fmt.Sprintf(`{"bucket": %q}`, bucket)}
	for _, n := range slices.Sorted(maps.Keys(fields)) {
		conditions = append(conditions, fmt.Sprintf(`{%q: %q}`, n, fields[n]))
	}
	policy := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, `{"expiration": %q, "conditions": [%s]}`, now.Add(time.Hour).Format("2006-01-02T15:04:05.000Z"), strings.Join(conditions, ",")))
	mac := func(k []byte, s string) []byte {
		h := hmac.New(sha256.New, k)
		io.WriteString(h, s)
		return h.Sum(nil)
	}
	k := mac(mac(mac(mac([]byte("AWS4secret-"+key), day), awsapi.Region), service), "aws4_request")
	fields["policy"], fields["x-amz-signature"] = policy, hex.EncodeToString(mac(k, policy))
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, n := range slices.Sorted(maps.Keys(fields)) {
		w.WriteField(n, fields[n])
	}
	f, _ := w.CreateFormFile("file", "cat.jpg")
	io.WriteString(f, body)
	w.Close()
	return w.FormDataContentType(), b.Bytes()
}

// ask makes a request as it is written, with the answer's body.
func (r *rig) ask(method, target string, body []byte, fields ...string) (*http.Response, string) {
	r.t.Helper()
	q, err := http.NewRequestWithContext(r.t.Context(), method, r.url, bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	q.URL.Opaque = target
	if path, query, ok := strings.Cut(target, "?"); ok {
		q.URL.Opaque, q.URL.RawQuery = path, query
	}
	for i := 0; i < len(fields); i += 2 {
		q.Header.Set(fields[i], fields[i+1])
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(q)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res, string(b)
}

// A browser's form uploads what its signer may, tells of it, and is of nobody who does not use the bucket.
func TestForm(t *testing.T) {
	r := newRig(t, t.TempDir())
	to := tenfold.ID{App: "shop", Env: "production", Kind: tenfold.KindQueue, Name: "thumbs"}
	r.want(Wanted{Name: "uploads", Body: 1 << 20, Events: []Rule{{Name: "made", Created: true, To: to}}}, Wanted{Name: "private"})
	for i, c := range []struct {
		key, object string
		more        map[string]string
		status      int
	}{
		{"api", "raw/a b?.jpg", nil, 204},
		{"api", "raw/b.jpg", map[string]string{"success_action_status": "201"}, 201},
		{"api", "raw/c&d.jpg", map[string]string{"success_action_redirect": "https://shop.example.com/done?x=1"}, 303},
	} {
		kind, body := form(c.key, "uploads", c.object, "12345", c.more)
		res, answer := r.ask("POST", "/uploads", body, "Content-Type", kind)
		if res.StatusCode != c.status {
			t.Fatal(c.object, res.StatusCode, answer)
		}
		if got := get(t, r.client("api"), "uploads", c.object); got != "12345" {
			t.Error(got)
		}
		e := r.wait(i + 1)[i]
		if e.What != "ObjectCreated:Post" || e.Key != c.object || e.Size != 5 || e.By != "api" || len(e.ETag) != 32 {
			t.Errorf("%+v", e)
		}
	}
	kind, body := form("api", "private", "x", "1", nil)
	if res, answer := r.ask("POST", "/private", body, "Content-Type", kind); res.StatusCode != 403 || !strings.Contains(answer, "add `uses: [private]` to service api (tenfold.yaml:7)") {
		t.Error(res.StatusCode, answer)
	}
	// What the head of the request says of a key counts for nothing in a form.
	if res, answer := r.ask("POST", "/private", body, "Content-Type", kind, "Authorization", "AWS4-HMAC-SHA256 Credential=owner/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00"); res.StatusCode != 403 || !strings.Contains(answer, "AccessDenied") {
		t.Error(res.StatusCode, answer)
	}
	kind, body = form("api", "uploads", "long", strings.Repeat("x", 1<<20), nil)
	if res, answer := r.ask("POST", "/uploads", body, "Content-Type", kind); res.StatusCode != 400 || !strings.Contains(answer, "EntityTooLarge") {
		t.Error(res.StatusCode, answer)
	}
}

// However a request says whose it is and what it asks for, what it gets is what the key that signed it may.
func TestNoWayRound(t *testing.T) {
	r := newRig(t, t.TempDir())
	r.want(Wanted{Name: "uploads"}, Wanted{Name: "private"})
	ctx, owner, api := t.Context(), r.client("owner"), r.client("api")
	put(t, owner, "private", "secret", "s3cr3t")
	put(t, api, "uploads", "mine", "mine")

	// Signed twice: one key's name opens the way, another's signature is verified.
	for _, way := range []struct{ named, signs string }{{"owner", "api"}, {"api", "mailer"}} {
		bucket, key := "private", "secret"
		if way.signs == "mailer" {
			bucket, key = "uploads", "mine"
		}
		p, err := s3.NewPresignClient(r.client(way.signs)).PresignGetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
		if err != nil {
			t.Fatal(err)
		}
		u, _ := url.Parse(p.URL)
		other := "AWS4-HMAC-SHA256 Credential=" + way.named + "/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00"
		if res, answer := r.ask("GET", u.RequestURI(), nil, "Authorization", other); res.StatusCode < 400 {
			t.Error(way, res.StatusCode, answer)
		}
		if res, answer := r.ask("GET", u.Path+"?X-Amz-Credential="+way.named+"/x&"+u.RawQuery, nil); res.StatusCode < 400 {
			t.Error(way, res.StatusCode, answer)
		}
		if res, answer := r.ask("GET", u.Path+"?"+u.RawQuery+"&X-Amz-Credential="+way.named+"/x", nil); res.StatusCode < 400 {
			t.Error(way, res.StatusCode, answer)
		}
	}
	// A path that one reads so and another so.
	for _, path := range []string{"/uploads/../private/secret", "/uploads/%2e%2e/private/secret", "/uploads/..%2f..%2fprivate%2fsecret", "/uploads%2f..%2fprivate%2fsecret", "//private/secret", "/./private/secret", "/uploads/..%2f" + shop + ".private%2fsecret", "/" + shop + ".private/secret"} {
		u, err := url.Parse(path)
		if err != nil {
			t.Fatal(err)
		}
		bucket, key, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
		if bucket == "" || bucket == "." {
			bucket = "uploads"
		}
		p, err := s3.NewPresignClient(api).PresignGetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: aws.String(key + "x")})
		if err != nil {
			t.Fatal(err)
		}
		signed, _ := url.Parse(p.URL)
		if res, answer := r.ask("GET", path+"?"+signed.RawQuery, nil); res.StatusCode < 400 || strings.Contains(answer, "s3cr3t") {
			t.Error(path, res.StatusCode, answer)
		}
	}
	// Where a copy is from.
	up, err := api.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: aws.String("uploads"), Key: aws.String("parts")})
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{"private/secret", "/private/secret", "//private/secret", "%2Fprivate%2Fsecret", "%2F%2Fprivate%2Fsecret", "uploads/../private/secret", "uploads/..%2F" + shop + ".private/secret", "uploads%2F..%2F" + shop + ".private%2Fsecret", shop + ".private/secret", "../buckets/" + shop + ".private/secret"} {
		if _, err := api.CopyObject(ctx, &s3.CopyObjectInput{Bucket: aws.String("uploads"), Key: aws.String("got"), CopySource: aws.String(from)}); err == nil {
			t.Errorf("copied from %s: %s", from, get(t, api, "uploads", "got"))
		}
		if _, err := api.UploadPartCopy(ctx, &s3.UploadPartCopyInput{Bucket: up.Bucket, Key: up.Key, UploadId: up.UploadId, PartNumber: aws.Int32(1), CopySource: aws.String(from)}); err == nil {
			t.Errorf("a part copied from %s", from)
		}
	}
	// What the owner may is not denied by the second look.
	if _, err := owner.CopyObject(ctx, &s3.CopyObjectInput{Bucket: aws.String("uploads"), Key: aws.String("got"), CopySource: aws.String("private/secret")}); err != nil {
		t.Error(err)
	}
	if _, err := owner.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: aws.String("private"), Delete: &types.Delete{Objects: []types.ObjectIdentifier{{Key: aws.String("secret")}}}}); err != nil {
		t.Error(err)
	}
}

// Nothing that a request says makes the reader of it fall over, or lose a byte of its body.
func FuzzRead(f *testing.F) {
	kind, body := form("api", "uploads", "raw/a.jpg", "12345", nil)
	f.Add("POST", "/uploads", kind, "", "", body)
	f.Add("PUT", "/uploads/a%20b?partNumber=1&uploadId=x", "", "AWS4-HMAC-SHA256 Credential=api/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00", "%2fprivate%2fx", []byte("x"))
	f.Add("GET", "/uploads/x?X-Amz-Credential=api%2F20260101&X-Amz-Credential=b/", "multipart/form-data; boundary=", "Credential=", "%", []byte(nil))
	f.Add("POST", "/uploads?delete", "multipart/form-data; boundary=x", "", "", []byte("--x\r\nContent-Disposition: form-data; name=\"x-amz-credential\"\r\n\r\n"+strings.Repeat("a", 2000)))
	f.Fuzz(func(t *testing.T, method, target, kind, authorization, from string, body []byte) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		r := &http.Request{Method: method, URL: u, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body))}
		for n, v := range map[string]string{"Content-Type": kind, "Authorization": authorization, "X-Amz-Copy-Source": from} {
			if v != "" {
				r.Header.Set(n, v)
			}
		}
		a := read(r)
		if strings.Contains(a.bucket, "/") || strings.Contains(a.from, "/") || strings.Contains(a.access, "/") {
			t.Errorf("%+v", a)
		}
		if a.bucket != "" && a.key == "" && a.makes && a.operation != "PostObject" {
			t.Errorf("an object without a name: %+v", a)
		}
		if from != "" && a.from == "" {
			t.Errorf("%q is copied from nowhere", from)
		}
		if got, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(got, body) {
			t.Errorf("body: %q, was %q (%v)", got, body, err)
		}
	})
}
