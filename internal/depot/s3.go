package depot

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// partSize of an object that is sent in parts, in bytes: as much memory is used for each.
const partSize = 16 << 20

// S3 is a Place in a bucket of an S3 endpoint.
type S3 struct {
	client         *minio.Client
	bucket, prefix string
	where          string
}

// OpenS3 reads "s3://endpoint/bucket/prefix" ("s3+http://" for one without TLS). The credentials are
// those of the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN) or of the AWS
// instance. It asks nothing yet.
func OpenS3(where string) (*S3, error) {
	u, err := url.Parse(where)
	if err != nil || u.Scheme != "s3" && u.Scheme != "s3+http" || u.Host == "" || strings.Trim(u.Path, "/") == "" {
		return nil, fmt.Errorf("open bucket: %q is not s3://endpoint/bucket/prefix", where)
	}
	bucket, prefix, _ := strings.Cut(strings.Trim(u.Path, "/"), "/")
	if prefix != "" {
		prefix += "/"
	}
	c, err := minio.New(u.Host, &minio.Options{
		Secure: u.Scheme == "s3", BucketLookup: minio.BucketLookupAuto,
		Creds: credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.IAM{}}),
	})
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", where, err)
	}
	return &S3{client: c, bucket: bucket, prefix: prefix, where: where}, nil
}

func (s *S3) String() string { return s.where }

// Put implements Place. An object is there when its last part is.
func (s *S3) Put(ctx context.Context, name string, r io.Reader) error {
	_, err := s.client.PutObject(ctx, s.bucket, s.prefix+name, r, -1, minio.PutObjectOptions{PartSize: partSize, NumThreads: 2, ConcurrentStreamParts: true})
	if err != nil {
		return fmt.Errorf("store %s: %w", name, err)
	}
	return nil
}

// Get implements Place.
func (s *S3) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	o, err := s.client.GetObject(ctx, s.bucket, s.prefix+name, minio.GetObjectOptions{})
	if err == nil {
		if _, err = o.Stat(); err == nil {
			return o, nil
		}
		o.Close()
	}
	if minio.ToErrorResponse(err).Code == "NoSuchKey" {
		err = fs.ErrNotExist
	}
	return nil, fmt.Errorf("open %s: %w", name, err)
}

// List implements Place.
func (s *S3) List(ctx context.Context, prefix string) ([]string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var out []string
	for o := range s.client.ListObjects(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.prefix + prefix, Recursive: true}) {
		if o.Err != nil {
			return nil, fmt.Errorf("list %s: %w", prefix, o.Err)
		}
		out = append(out, strings.TrimPrefix(o.Key, s.prefix))
	}
	return out, ctx.Err()
}

// Delete implements Place.
func (s *S3) Delete(ctx context.Context, name string) error {
	if err := s.client.RemoveObject(ctx, s.bucket, s.prefix+name, minio.RemoveObjectOptions{}); err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}
