package bucket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"
)

// account is the engine as one account of AWS sees it. The engine has one folder, since it changes the
// process' working directory to it, and one space of names; accounts have each their own, so a bucket of the
// engine is called "123456789012.uploads". What is told of it says "uploads".
//
// It also has what was acknowledged be on the disk: the engine itself leaves that to the kernel.
type account struct {
	*posix.Posix
	root   string // the engine's folder
	id     string // 12 digits
	owners *owners
	// sees says whether who has a key is told of a bucket, and denied why one may not ask for it, or nil.
	sees   func(access, bucket, owner string) bool
	denied func(access, bucket string) error
	named  func(bucket string) bool // by a manifest
}

var _ backend.Backend = (*account)(nil)

func (a *account) name(bucket string) string { return a.id + "." + bucket }

func (a *account) own(bucket *string) *string {
	if bucket == nil {
		return nil
	}
	n := a.name(*bucket)
	return &n
}

func (a *account) bare(name string) string { return strings.TrimPrefix(name, a.id+".") }

func (a *account) bareOf(name *string) *string {
	if name == nil {
		return nil
	}
	n := a.bare(*name)
	return &n
}

// allowed looks a second time at whether who asks may: the front had only what a request says of itself, and this is
// whom the engine verified, and the bucket that it is about to touch. A form has its key in it, a request may be
// signed twice over, a path may be read in two ways: whatever gets by the front does not get by here. The store
// itself, which is in no request, may all, and nobody what the engine finds in policies.
func (a *account) allowed(ctx context.Context, bucket string) error {
	who, ok := ctx.Value("account").(auth.Account)
	if !ok || who.Access == "" {
		return nil
	}
	return a.denied(who.Access, bucket)
}

// told is an error in the account's words.
func (a *account) told(err error) error {
	var b s3err.BucketError
	if errors.As(err, &b) {
		b.BucketName = a.bare(b.BucketName)
		return b
	}
	return err
}

// source is where a copy is from, as the engine calls it.
func (a *account) source(from *string) *string {
	if from == nil {
		return nil
	}
	s := a.id + "." + strings.TrimPrefix(*from, "/")
	return &s
}

// mayCopy is allowed for what is copied from, which the engine looks at only for users that it has rules for.
func (a *account) mayCopy(ctx context.Context, from *string) error {
	bucket, _, _, err := backend.ParseCopySource(strings.TrimPrefix(deref(from), "/"))
	if err != nil {
		return err
	}
	return a.allowed(ctx, bucket)
}

// ListBuckets implements backend.Backend.
func (a *account) ListBuckets(_ context.Context, in s3response.ListBucketsInput) (out s3response.ListAllMyBucketsResult, err error) {
	out.Owner.ID, out.Prefix = in.Owner, in.Prefix
	all, err := a.buckets()
	if err != nil {
		return out, err
	}
	for _, b := range all {
		if !strings.HasPrefix(b.Name, in.Prefix) || b.Name <= in.ContinuationToken || !a.sees(in.Owner, b.Name, a.owners.of(a, b.Name)) {
			continue
		}
		if n := len(out.Buckets.Bucket); in.MaxBuckets > 0 && n == int(in.MaxBuckets) {
			out.ContinuationToken = out.Buckets.Bucket[n-1].Name
			break
		}
		out.Buckets.Bucket = append(out.Buckets.Bucket, b)
	}
	return out, nil
}

// buckets are all of the account, by name.
func (a *account) buckets() (out []s3response.ListAllMyBucketsEntry, err error) {
	entries, err := os.ReadDir(a.root)
	if err != nil {
		return nil, fmt.Errorf("list buckets: %w", err)
	}
	for _, e := range entries {
		name, mine := strings.CutPrefix(e.Name(), a.id+".")
		if !mine || !e.IsDir() {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // removed since
		}
		out = append(out, s3response.ListAllMyBucketsEntry{Name: name, CreationDate: info.ModTime()})
	}
	slices.SortFunc(out, func(x, y s3response.ListAllMyBucketsEntry) int { return strings.Compare(x.Name, y.Name) })
	return out, nil
}

// ListBucketsAndOwners implements backend.Backend.
func (a *account) ListBucketsAndOwners(context.Context) (out []s3response.Bucket, err error) {
	all, err := a.buckets()
	for _, b := range all {
		out = append(out, s3response.Bucket{Name: b.Name, Owner: a.owners.of(a, b.Name)})
	}
	return out, err
}

// CreateBucket implements backend.Backend.
func (a *account) CreateBucket(ctx context.Context, in *s3.CreateBucketInput, acl []byte) error {
	if err := a.allowed(ctx, ""); err != nil {
		return err
	}
	x := *in
	x.Bucket = a.own(in.Bucket)
	err := a.Posix.CreateBucket(ctx, &x, acl)
	if err == nil {
		a.owners.forget(a, *in.Bucket)
		err = syncDir(a.root)
	}
	return a.told(err)
}

// PutObject implements backend.Backend. The object's file is on the disk before it has its name, and its name
// before it is acknowledged.
func (a *account) PutObject(ctx context.Context, in s3response.PutObjectInput) (s3response.PutObjectOutput, error) {
	in.Bucket = a.own(in.Bucket)
	out, err := a.Posix.PutObjectWithPostFunc(ctx, in, (*os.File).Sync)
	if err == nil {
		err = a.settled(*in.Bucket, *in.Key, false)
	}
	return out, a.told(full(err))
}

// UploadPart implements backend.Backend.
func (a *account) UploadPart(ctx context.Context, in *s3.UploadPartInput) (*s3.UploadPartOutput, error) {
	x := *in
	x.Bucket = a.own(in.Bucket)
	out, err := a.Posix.UploadPartWithPostFunc(ctx, &x, (*os.File).Sync)
	return out, a.told(full(err))
}

// UploadPartCopy implements backend.Backend.
func (a *account) UploadPartCopy(ctx context.Context, in *s3.UploadPartCopyInput) (s3response.CopyPartResult, error) {
	if err := a.mayCopy(ctx, in.CopySource); err != nil {
		return s3response.CopyPartResult{}, err
	}
	x := *in
	x.Bucket, x.CopySource = a.own(in.Bucket), a.source(in.CopySource)
	x.CopySourceIfModifiedSince, x.CopySourceIfUnmodifiedSince = bySecond(in.CopySourceIfModifiedSince, in.CopySourceIfUnmodifiedSince)
	out, err := a.Posix.UploadPartCopy(ctx, &x)
	return out, a.told(full(err))
}

// bySecond has the engine, which knows when an object was modified to the nanosecond, compare by the second, as clients
// are told it: an object is not newer than its own Last-Modified.
func bySecond(modified, unmodified *time.Time) (m, u *time.Time) {
	if modified != nil {
		t := modified.Add(time.Second - 1)
		m = &t
	}
	if unmodified != nil {
		t := unmodified.Add(time.Second)
		u = &t
	}
	return m, u
}

// CompleteMultipartUpload implements backend.Backend.
func (a *account) CompleteMultipartUpload(ctx context.Context, in *s3.CompleteMultipartUploadInput) (s3response.CompleteMultipartUploadResult, string, error) {
	x := *in
	x.Bucket = a.own(in.Bucket)
	out, version, err := a.Posix.CompleteMultipartUpload(ctx, &x)
	out.Bucket = a.bareOf(out.Bucket)
	if err == nil {
		err = a.settled(*x.Bucket, *x.Key, true)
	}
	return out, version, a.told(full(err))
}

// CopyObject implements backend.Backend.
func (a *account) CopyObject(ctx context.Context, in s3response.CopyObjectInput) (s3response.CopyObjectOutput, error) {
	if err := a.mayCopy(ctx, in.CopySource); err != nil {
		return s3response.CopyObjectOutput{}, err
	}
	in.Bucket, in.CopySource = a.own(in.Bucket), a.source(in.CopySource)
	in.CopySourceIfModifiedSince, in.CopySourceIfUnmodifiedSince = bySecond(in.CopySourceIfModifiedSince, in.CopySourceIfUnmodifiedSince)
	out, err := a.Posix.CopyObject(ctx, in)
	if err == nil {
		err = a.settled(*in.Bucket, *in.Key, true)
	}
	return out, a.told(full(err))
}

// NormalizeObjectKey implements backend.Backend.
func (a *account) NormalizeObjectKey(bucket, object string) string {
	return a.Posix.NormalizeObjectKey(a.name(bucket), object)
}

// settled has an object's name on the disk, and its bytes when they were put together from others. One that
// was removed by somebody meanwhile is no error.
func (a *account) settled(bucket, key string, bytes bool) error {
	path := filepath.Join(a.root, bucket, filepath.FromSlash(key))
	if bytes {
		if err := syncPath(path); err != nil {
			return err
		}
	}
	// A folder that was made for it has to be in the folder above it.
	for dir := filepath.Dir(path); strings.HasPrefix(dir, filepath.Join(a.root, bucket)); dir = filepath.Dir(dir) {
		if err := syncPath(dir); err != nil {
			return err
		}
	}
	return nil
}

func syncDir(path string) error { return syncPath(path) }

func syncPath(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return cmp.Or(f.Sync(), f.Close())
}

// ownerOf is who made a bucket: an access key, or the account when a manifest did. "": there is no such bucket.
func (a *account) ownerOf(bucket string) string {
	raw, err := a.GetBucketAcl(context.Background(), &s3.GetBucketAclInput{Bucket: &bucket})
	if err != nil {
		return ""
	}
	acl, err := auth.ParseACL(raw)
	if err != nil {
		return ""
	}
	return cmp.Or(acl.Owner, a.id)
}
