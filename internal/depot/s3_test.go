package depot

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// bucket answers as S3 does to what a depot asks of it: whole objects, objects in parts, lists.
type bucket struct {
	mu      sync.Mutex
	objects map[string][]byte
	parts   map[string][]byte // "upload/part"
	uploads int
	failing int // requests for a part of an object that fail yet
}

func (b *bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=who/") {
		http.Error(w, "<Error><Code>AccessDenied</Code></Error>", http.StatusForbidden)
		return
	}
	key := strings.TrimPrefix(r.URL.Path, "/backups/")
	q := r.URL.Query()
	body := func() []byte { p, _ := io.ReadAll(r.Body); return unchunk(p, r.Header.Get("X-Amz-Content-Sha256")) }
	tag := func(p []byte) { s := md5.Sum(p); w.Header().Set("ETag", `"`+hex.EncodeToString(s[:])+`"`) }
	switch {
	case q.Has("location"):
		fmt.Fprint(w, `<LocationConstraint/>`)
	case r.Method == http.MethodPost && q.Has("uploads"):
		b.uploads++
		fmt.Fprintf(w, "<InitiateMultipartUploadResult><UploadId>%d</UploadId></InitiateMultipartUploadResult>", b.uploads)
	case r.Method == http.MethodPut && q.Has("uploadId"):
		p := body()
		b.parts[q.Get("uploadId")+"/"+fmt.Sprintf("%05s", q.Get("partNumber"))] = p
		tag(p)
	case r.Method == http.MethodPost && q.Has("uploadId"):
		var names []string
		for n := range b.parts {
			if strings.HasPrefix(n, q.Get("uploadId")+"/") {
				names = append(names, n)
			}
		}
		slices.Sort(names)
		var whole []byte
		for _, n := range names {
			whole = append(whole, b.parts[n]...)
		}
		b.objects[key] = whole
		fmt.Fprintf(w, "<CompleteMultipartUploadResult><Bucket>backups</Bucket><Key>%s</Key><ETag>x</ETag></CompleteMultipartUploadResult>", key)
	case r.Method == http.MethodPut:
		b.objects[key] = body()
		tag(b.objects[key])
	case r.Method == http.MethodDelete && !q.Has("uploadId"):
		delete(b.objects, key)
		w.WriteHeader(http.StatusNoContent)
	case q.Has("list-type"):
		type object struct{ Key string }
		out := struct {
			XMLName     xml.Name `xml:"ListBucketResult"`
			IsTruncated bool
			Contents    []object
		}{}
		for k := range b.objects {
			if strings.HasPrefix(k, q.Get("prefix")) {
				out.Contents = append(out.Contents, object{k})
			}
		}
		slices.SortFunc(out.Contents, func(a, b object) int { return strings.Compare(a.Key, b.Key) })
		xml.NewEncoder(w).Encode(out)
	case !b.has(key):
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, "<Error><Code>NoSuchKey</Code></Error>")
	case r.Header.Get("Range") != "" && !strings.HasPrefix(r.Header.Get("Range"), "bytes=0-") && b.failing > 0:
		b.failing--
		http.Error(w, "<Error><Code>InternalError</Code></Error>", http.StatusInternalServerError)
	case r.Header.Get("Range") != "" && len(b.objects[key]) == 0:
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		fmt.Fprint(w, "<Error><Code>InvalidRange</Code></Error>")
	default:
		tag(b.objects[key])
		w.Header().Set("Last-Modified", "Thu, 26 Nov 2026 12:00:00 GMT")
		data := b.objects[key]
		b.mu.Unlock() // whoever is slow to read it keeps nobody else waiting
		http.ServeContent(w, r, "", zero, bytes.NewReader(data))
		b.mu.Lock()
	}
}

func (b *bucket) has(key string) bool { _, ok := b.objects[key]; return ok }

// unchunk takes the signatures out of a body that is signed piece by piece.
func unchunk(p []byte, kind string) (out []byte) {
	if !strings.HasPrefix(kind, "STREAMING-") {
		return p
	}
	for len(p) > 0 {
		line, rest, _ := bytes.Cut(p, []byte("\r\n"))
		var n int
		fmt.Sscanf(string(line), "%x", &n)
		if n == 0 || n > len(rest) {
			break
		}
		out, p = append(out, rest[:n]...), rest[min(n+2, len(rest)):]
	}
	return out
}

func testBucket(t *testing.T) (*S3, *bucket) {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "who")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	b := &bucket{objects: map[string][]byte{}, parts: map[string][]byte{}}
	srv := httptest.NewServer(b)
	t.Cleanup(srv.Close)
	place, err := OpenS3("s3+http://" + strings.TrimPrefix(srv.URL, "http://") + "/backups/shop")
	if err != nil {
		t.Fatal(err)
	}
	return place, b
}

func TestABucketIsAPlace(t *testing.T) {
	place, b := testBucket(t)
	suite(t, place)
	for k := range b.objects {
		if !strings.HasPrefix(k, "shop/") {
			t.Errorf("%s lies beside the prefix", k)
		}
	}
	for _, bad := range []string{"", "s3://", "s3://host", "s3://host/", "/folder", "https://host/bucket"} {
		if _, err := OpenS3(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// One whose keys are known is asked by them, whatever the environment says.
func TestABucketOfThisHouseIsAPlace(t *testing.T) {
	b := &bucket{objects: map[string][]byte{}, parts: map[string][]byte{}}
	srv := httptest.NewServer(b)
	defer srv.Close()
	t.Setenv("AWS_ACCESS_KEY_ID", "another")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "another")
	place, err := Bucket{Address: strings.TrimPrefix(srv.URL, "http://"), Region: "us-east-1", Name: "backups", Access: "who", Secret: "secret"}.Below("shop/production/db")
	if err != nil {
		t.Fatal(err)
	}
	suite(t, place)
	if err := place.Put(t.Context(), "wal/1", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if string(b.objects["shop/production/db/wal/1"]) != "x" {
		t.Errorf("stored as %q", slices.Collect(maps.Keys(b.objects)))
	}
}

func TestADirectoryIsAPlace(t *testing.T) { suite(t, Dir(t.TempDir())) }
