package bucket

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/s3response"
)

// What of the engine only has to be told another name: a bucket's in the engine is its account's and its own.

// HeadBucket implements backend.Backend.
func (a *account) HeadBucket(ctx context.Context, in *s3.HeadBucketInput) (*s3.HeadBucketOutput, error) {
	x := *in
	x.Bucket = a.own(in.Bucket)
	out, err := a.Posix.HeadBucket(ctx, &x)
	return out, a.told(err)
}

// GetBucketAcl implements backend.Backend. The engine asks for it in every request for a bucket or an object, once it
// knows who asks.
func (a *account) GetBucketAcl(ctx context.Context, in *s3.GetBucketAclInput) ([]byte, error) {
	if err := a.allowed(ctx, deref(in.Bucket)); err != nil {
		return nil, err
	}
	x := *in
	x.Bucket = a.own(in.Bucket)
	out, err := a.Posix.GetBucketAcl(ctx, &x)
	return out, a.told(err)
}

// PutBucketAcl implements backend.Backend.
func (a *account) PutBucketAcl(ctx context.Context, bucket string, data []byte) error {
	return a.told(a.Posix.PutBucketAcl(ctx, a.name(bucket), data))
}

// DeleteBucket implements backend.Backend.
func (a *account) DeleteBucket(ctx context.Context, bucket string) error {
	if a.named(bucket) {
		return denial(keeps(bucket))
	}
	return a.told(a.Posix.DeleteBucket(ctx, a.name(bucket)))
}

// PutBucketVersioning implements backend.Backend.
func (a *account) PutBucketVersioning(ctx context.Context, bucket string, status types.BucketVersioningStatus) error {
	return a.told(a.Posix.PutBucketVersioning(ctx, a.name(bucket), status))
}

// GetBucketVersioning implements backend.Backend.
func (a *account) GetBucketVersioning(ctx context.Context, bucket string) (s3response.GetBucketVersioningOutput, error) {
	out, err := a.Posix.GetBucketVersioning(ctx, a.name(bucket))
	return out, a.told(err)
}

// PutBucketPolicy implements backend.Backend.
func (a *account) PutBucketPolicy(ctx context.Context, bucket string, policy []byte) error {
	return a.told(a.Posix.PutBucketPolicy(ctx, a.name(bucket), policy))
}

// GetBucketPolicy implements backend.Backend.
func (a *account) GetBucketPolicy(ctx context.Context, bucket string) ([]byte, error) {
	out, err := a.Posix.GetBucketPolicy(ctx, a.name(bucket))
	return out, a.told(err)
}

// DeleteBucketPolicy implements backend.Backend.
func (a *account) DeleteBucketPolicy(ctx context.Context, bucket string) error {
	return a.told(a.Posix.DeleteBucketPolicy(ctx, a.name(bucket)))
}

// PutBucketOwnershipControls implements backend.Backend.
func (a *account) PutBucketOwnershipControls(ctx context.Context, bucket string, ownership types.ObjectOwnership) error {
	return a.told(a.Posix.PutBucketOwnershipControls(ctx, a.name(bucket), ownership))
}

// GetBucketOwnershipControls implements backend.Backend.
func (a *account) GetBucketOwnershipControls(ctx context.Context, bucket string) (types.ObjectOwnership, error) {
	out, err := a.Posix.GetBucketOwnershipControls(ctx, a.name(bucket))
	return out, a.told(err)
}

// DeleteBucketOwnershipControls implements backend.Backend.
func (a *account) DeleteBucketOwnershipControls(ctx context.Context, bucket string) error {
	return a.told(a.Posix.DeleteBucketOwnershipControls(ctx, a.name(bucket)))
}

// PutBucketCors implements backend.Backend.
func (a *account) PutBucketCors(ctx context.Context, bucket string, cors []byte) error {
	return a.told(a.Posix.PutBucketCors(ctx, a.name(bucket), cors))
}

// GetBucketCors implements backend.Backend.
func (a *account) GetBucketCors(ctx context.Context, bucket string) ([]byte, error) {
	out, err := a.Posix.GetBucketCors(ctx, a.name(bucket))
	return out, a.told(err)
}

// DeleteBucketCors implements backend.Backend.
func (a *account) DeleteBucketCors(ctx context.Context, bucket string) error {
	return a.told(a.Posix.DeleteBucketCors(ctx, a.name(bucket)))
}

// PutBucketWebsite implements backend.Backend.
func (a *account) PutBucketWebsite(ctx context.Context, bucket string, website []byte) error {
	return a.told(a.Posix.PutBucketWebsite(ctx, a.name(bucket), website))
}

// GetBucketWebsite implements backend.Backend.
func (a *account) GetBucketWebsite(ctx context.Context, bucket string) ([]byte, error) {
	out, err := a.Posix.GetBucketWebsite(ctx, a.name(bucket))
	return out, a.told(err)
}

// DeleteBucketWebsite implements backend.Backend.
func (a *account) DeleteBucketWebsite(ctx context.Context, bucket string) error {
	return a.told(a.Posix.DeleteBucketWebsite(ctx, a.name(bucket)))
}

// CreateMultipartUpload implements backend.Backend.
func (a *account) CreateMultipartUpload(ctx context.Context, in s3response.CreateMultipartUploadInput) (s3response.InitiateMultipartUploadResult, error) {
	in.Bucket = a.own(in.Bucket)
	out, err := a.Posix.CreateMultipartUpload(ctx, in)
	out.Bucket = a.bare(out.Bucket)
	return out, a.told(err)
}

// AbortMultipartUpload implements backend.Backend.
func (a *account) AbortMultipartUpload(ctx context.Context, in *s3.AbortMultipartUploadInput) error {
	x := *in
	x.Bucket = a.own(in.Bucket)
	return a.told(a.Posix.AbortMultipartUpload(ctx, &x))
}

// ListMultipartUploads implements backend.Backend.
func (a *account) ListMultipartUploads(ctx context.Context, in *s3.ListMultipartUploadsInput) (s3response.ListMultipartUploadsResult, error) {
	x := *in
	x.Bucket = a.own(in.Bucket)
	out, err := a.Posix.ListMultipartUploads(ctx, &x)
	out.Bucket = a.bare(out.Bucket)
	return out, a.told(err)
}

// ListParts implements backend.Backend.
func (a *account) ListParts(ctx context.Context, in *s3.ListPartsInput) (s3response.ListPartsResult, error) {
	x := *in
	x.Bucket = a.own(in.Bucket)
	out, err := a.Posix.ListParts(ctx, &x)
	out.Bucket = a.bare(out.Bucket)
	return out, a.told(err)
}

// HeadObject implements backend.Backend.
func (a *account) HeadObject(ctx context.Context, in *s3.HeadObjectInput) (*s3.HeadObjectOutput, error) {
	x := *in
	x.Bucket = a.own(in.Bucket)
	x.IfModifiedSince, x.IfUnmodifiedSince = bySecond(in.IfModifiedSince, in.IfUnmodifiedSince)
	out, err := a.Posix.HeadObject(ctx, &x)
	return out, a.told(err)
}

// GetObject implements backend.Backend.
func (a *account) GetObject(ctx context.Context, in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
	x := *in
	x.Bucket = a.own(in.Bucket)
	x.IfModifiedSince, x.IfUnmodifiedSince = bySecond(in.IfModifiedSince, in.IfUnmodifiedSince)
	out, err := a.Posix.GetObject(ctx, &x)
	return out, a.told(err)
}

// GetObjectAcl implements backend.Backend.
func (a *account) GetObjectAcl(ctx context.Context, in *s3.GetObjectAclInput) (*s3.GetObjectAclOutput, error) {
	x := *in
	x.Bucket = a.own(in.Bucket)
	out, err := a.Posix.GetObjectAcl(ctx, &x)
	return out, a.told(err)
}

// GetObjectAttributes implements backend.Backend.
func (a *account) GetObjectAttributes(ctx context.Context, in *s3.GetObjectAttributesInput) (s3response.GetObjectAttributesResponse, error) {
	x := *in
	x.Bucket = a.own(in.Bucket)
	out, err := a.Posix.GetObjectAttributes(ctx, &x)
	return out, a.told(err)
}

// ListObjects implements backend.Backend.
func (a *account) ListObjects(ctx context.Context, in *s3.ListObjectsInput) (s3response.ListObjectsResult, error) {
	x := *in
	x.Bucket = a.own(in.Bucket)
	out, err := a.Posix.ListObjects(ctx, &x)
	out.Name = a.bareOf(out.Name)
	return out, a.told(err)
}

// ListObjectsV2 implements backend.Backend.
func (a *account) ListObjectsV2(ctx context.Context, in *s3.ListObjectsV2Input) (s3response.ListObjectsV2Result, error) {
	x := *in
	x.Bucket = a.own(in.Bucket)
	out, err := a.Posix.ListObjectsV2(ctx, &x)
	out.Name = a.bareOf(out.Name)
	return out, a.told(err)
}

// DeleteObject implements backend.Backend.
func (a *account) DeleteObject(ctx context.Context, in *s3.DeleteObjectInput) (*s3.DeleteObjectOutput, error) {
	x := *in
	x.Bucket = a.own(in.Bucket)
	out, err := a.Posix.DeleteObject(ctx, &x)
	return out, a.told(err)
}

// DeleteObjects implements backend.Backend.
func (a *account) DeleteObjects(ctx context.Context, in *s3.DeleteObjectsInput) (s3response.DeleteResult, error) {
	x := *in
	x.Bucket = a.own(in.Bucket)
	out, err := a.Posix.DeleteObjects(ctx, &x)
	return out, a.told(err)
}

// PutObjectAcl implements backend.Backend.
func (a *account) PutObjectAcl(ctx context.Context, in *s3.PutObjectAclInput) error {
	x := *in
	x.Bucket = a.own(in.Bucket)
	return a.told(a.Posix.PutObjectAcl(ctx, &x))
}

// ListObjectVersions implements backend.Backend.
func (a *account) ListObjectVersions(ctx context.Context, in *s3.ListObjectVersionsInput) (s3response.ListVersionsResult, error) {
	x := *in
	x.Bucket = a.own(in.Bucket)
	out, err := a.Posix.ListObjectVersions(ctx, &x)
	out.Name = a.bareOf(out.Name)
	return out, a.told(err)
}

// RestoreObject implements backend.Backend.
func (a *account) RestoreObject(ctx context.Context, in *s3.RestoreObjectInput) error {
	x := *in
	x.Bucket = a.own(in.Bucket)
	return a.told(a.Posix.RestoreObject(ctx, &x))
}

// GetBucketTagging implements backend.Backend.
func (a *account) GetBucketTagging(ctx context.Context, bucket string) (map[string]string, error) {
	out, err := a.Posix.GetBucketTagging(ctx, a.name(bucket))
	return out, a.told(err)
}

// PutBucketTagging implements backend.Backend.
func (a *account) PutBucketTagging(ctx context.Context, bucket string, tags map[string]string) error {
	return a.told(a.Posix.PutBucketTagging(ctx, a.name(bucket), tags))
}

// DeleteBucketTagging implements backend.Backend.
func (a *account) DeleteBucketTagging(ctx context.Context, bucket string) error {
	return a.told(a.Posix.DeleteBucketTagging(ctx, a.name(bucket)))
}

// GetObjectTagging implements backend.Backend.
func (a *account) GetObjectTagging(ctx context.Context, bucket, object, versionId string) (map[string]string, error) {
	out, err := a.Posix.GetObjectTagging(ctx, a.name(bucket), object, versionId)
	return out, a.told(err)
}

// PutObjectTagging implements backend.Backend.
func (a *account) PutObjectTagging(ctx context.Context, bucket, object, versionId string, tags map[string]string) error {
	return a.told(a.Posix.PutObjectTagging(ctx, a.name(bucket), object, versionId, tags))
}

// DeleteObjectTagging implements backend.Backend.
func (a *account) DeleteObjectTagging(ctx context.Context, bucket, object, versionId string) error {
	return a.told(a.Posix.DeleteObjectTagging(ctx, a.name(bucket), object, versionId))
}

// PutObjectLockConfiguration implements backend.Backend.
func (a *account) PutObjectLockConfiguration(ctx context.Context, bucket string, config []byte) error {
	return a.told(a.Posix.PutObjectLockConfiguration(ctx, a.name(bucket), config))
}

// GetObjectLockConfiguration implements backend.Backend.
func (a *account) GetObjectLockConfiguration(ctx context.Context, bucket string) ([]byte, error) {
	out, err := a.Posix.GetObjectLockConfiguration(ctx, a.name(bucket))
	return out, a.told(err)
}

// PutObjectRetention implements backend.Backend.
func (a *account) PutObjectRetention(ctx context.Context, bucket, object, versionId string, retention []byte) error {
	return a.told(a.Posix.PutObjectRetention(ctx, a.name(bucket), object, versionId, retention))
}

// GetObjectRetention implements backend.Backend.
func (a *account) GetObjectRetention(ctx context.Context, bucket, object, versionId string) ([]byte, error) {
	out, err := a.Posix.GetObjectRetention(ctx, a.name(bucket), object, versionId)
	return out, a.told(err)
}

// PutObjectLegalHold implements backend.Backend.
func (a *account) PutObjectLegalHold(ctx context.Context, bucket, object, versionId string, status bool) error {
	return a.told(a.Posix.PutObjectLegalHold(ctx, a.name(bucket), object, versionId, status))
}

// GetObjectLegalHold implements backend.Backend.
func (a *account) GetObjectLegalHold(ctx context.Context, bucket, object, versionId string) (*bool, error) {
	out, err := a.Posix.GetObjectLegalHold(ctx, a.name(bucket), object, versionId)
	return out, a.told(err)
}

// ChangeBucketOwner implements backend.Backend.
func (a *account) ChangeBucketOwner(ctx context.Context, bucket, owner string) error {
	return a.told(a.Posix.ChangeBucketOwner(ctx, a.name(bucket), owner))
}
