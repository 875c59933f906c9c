//go:build scenario

package test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"golang.org/x/sys/unix"
)

// On a disk that is full buckets refuse what would need room, in S3's words, serve what they have, leave nothing of
// what was refused, and go on by themselves when there is room again.
func TestBucketsOnAFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root mounts file systems")
	}
	h := newHouse(t)
	disk := filepath.Join(h.dir, "files")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("no small file system here: %v", err)
	}
	t.Cleanup(func() {
		h.run("down", "--house") // its goals lie there
		h.gone()
		unix.Unmount(disk, unix.MNT_DETACH)
	})
	room := func() int64 {
		var st unix.Statfs_t
		if err := unix.Statfs(disk, &st); err != nil {
			t.Fatal(err)
		}
		return int64(st.Bavail) * st.Bsize
	}
	dir := write(t, t.TempDir(), map[string]string{"tenfold.yaml": "app: shop\nqueues: [made]\nbuckets: {uploads: {events: {all: {on: [created, removed], to: made}}}, kept-versions: {versions: true}}\n"})
	h.up(dir)
	c, ctx, bucket := bucketClient(h.bucketEnv(dir)), t.Context(), aws.String("uploads")
	once := func(o *s3.Options) { o.RetryMaxAttempts = 1 }
	put := func(bucket, key string, size int) error {
		_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: bytes.NewReader(bytes.Repeat([]byte("x"), size))}, once)
		return err
	}
	size := func(key string) int {
		out, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: &key}, once)
		if err != nil {
			t.Error(err)
			return -1
		}
		defer out.Body.Close()
		b, err := io.ReadAll(out.Body)
		if err != nil {
			t.Error(err)
		}
		return len(b)
	}
	refused := func(what string, err error) {
		t.Helper()
		var e smithy.APIError
		if !errors.As(err, &e) || e.ErrorCode() != "InsufficientStorage" {
			t.Errorf("%s on a full disk: %v", what, err)
		}
	}
	for _, key := range []string{"kept", "filler"} {
		if err := put("uploads", key, 10<<20); err != nil {
			t.Fatal(err)
		}
	}
	if err := put("kept-versions", "kept", 10<<20); err != nil {
		t.Fatal(err)
	}
	up, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: aws.String("parts")})
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.UploadPart(ctx, &s3.UploadPartInput{Bucket: bucket, Key: up.Key, UploadId: up.UploadId, PartNumber: aws.Int32(1), Body: bytes.NewReader(make([]byte, 5<<20))})
	if err != nil {
		t.Fatal(err)
	}
	before := room()
	for range 2 {
		refused("an object", put("uploads", "big", 50<<20))
		refused("one in place of another", put("uploads", "kept", 50<<20))
		refused("a version", put("kept-versions", "kept", 50<<20))
		_, err = c.UploadPart(ctx, &s3.UploadPartInput{Bucket: bucket, Key: up.Key, UploadId: up.UploadId, PartNumber: aws.Int32(2), Body: bytes.NewReader(make([]byte, 50<<20))}, once)
		refused("a part", err)
	}
	if is := room(); is < before-1<<20 {
		t.Errorf("what was refused takes %d bytes", before-is)
	}
	if got := size("kept"); got != 10<<20 {
		t.Errorf("an object that was to be replaced has %d bytes", got)
	}
	if l, err := c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: bucket}); err != nil || len(l.Contents) != 2 {
		t.Error(l, err)
	}

	// To the last byte: what somebody else wrote.
	f, err := os.Create(filepath.Join(disk, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	for chunk := make([]byte, 1<<20); err == nil; {
		_, err = f.Write(chunk)
		if err != nil && len(chunk) > 1 {
			chunk, err = chunk[:len(chunk)/2], nil
		}
	}
	f.Close()
	refused("a small object", put("uploads", "small", 100<<10))
	eventually(t, "status says that the disk is full", 30*time.Second, func() bool {
		return strings.Contains(h.must(dir, "status"), "read only: the disk of files is full")
	})
	if got := size("kept"); got != 10<<20 {
		t.Error(got)
	}
	if out := h.must(dir, "bucket", "ls", "uploads"); !strings.Contains(out, "kept") {
		t.Error(out)
	}
	// Removing something makes room, and goes on by itself.
	if _, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: aws.String("filler")}, once); err != nil {
		t.Error(err)
	}
	if err := put("uploads", "small", 100<<10); err != nil {
		t.Error(err)
	}
	if err := os.Remove(f.Name()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: bucket, Key: up.Key, UploadId: up.UploadId,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{ETag: p.ETag, PartNumber: aws.Int32(1), ChecksumCRC32: p.ChecksumCRC32}}}}); err != nil {
		t.Error(err)
	}
	if got := size("parts"); got != 5<<20 {
		t.Error(got)
	}
	eventually(t, "status after there is room", 30*time.Second, func() bool { return !strings.Contains(h.must(dir, "status"), "read only") })
	eventually(t, "the event of what was removed", 30*time.Second, func() bool {
		return strings.Contains(h.must(dir, "queue", "receive", "made", "--delete", "--count", "10"), "ObjectRemoved:Delete")
	})
}
