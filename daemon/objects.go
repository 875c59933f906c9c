package daemon

import (
	"context"
	"errors"
	"io"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"tenfold/internal/awsapi"
)

// objects are the buckets of the house for those of its processes that write files into them or read some, as the
// owner of the account whose they are.
type objects struct {
	at    string // the address of the buckets' process
	owner func(ctx context.Context, account string) (awsapi.Key, bool)
}

// filePart is how much of a file of unknown length is in memory at once, in bytes.
const filePart = 8 << 20

func (o objects) client(ctx context.Context, account string) (*minio.Client, error) {
	k, ok := o.owner(ctx, account)
	if !ok {
		return nil, &awsapi.Fault{Code: "NoSuchBucket", Message: "There are no buckets in account " + account}
	}
	return minio.New(o.at, &minio.Options{Region: awsapi.Region, BucketLookup: minio.BucketLookupPath, Creds: credentials.NewStaticV4(k.Access, k.Secret, "")})
}

// refusal is an error of S3 as a fault.
func refusal(err error) error {
	var r minio.ErrorResponse
	if errors.As(err, &r) && r.Code != "" {
		return &awsapi.Fault{Code: r.Code, Message: r.Message, Status: r.StatusCode}
	}
	return err
}

// Put implements table.Objects.
func (o objects) Put(ctx context.Context, account, bucket, key string, body io.Reader) (string, error) {
	c, err := o.client(ctx, account)
	if err != nil {
		return "", err
	}
	info, err := c.PutObject(ctx, bucket, key, body, -1, minio.PutObjectOptions{PartSize: filePart, NumThreads: 1})
	return info.ETag, refusal(err)
}

// Open implements table.Objects.
func (o objects) Open(ctx context.Context, account, bucket, key string) (io.ReadCloser, error) {
	c, err := o.client(ctx, account)
	if err != nil {
		return nil, err
	}
	f, err := c.GetObject(ctx, bucket, key, minio.GetObjectOptions{})
	if err == nil {
		if _, err = f.Stat(); err == nil {
			return f, nil
		}
		f.Close()
	}
	return nil, refusal(err)
}

// List implements table.Objects.
func (o objects) List(ctx context.Context, account, bucket, prefix string) (out []string, err error) {
	c, err := o.client(ctx, account)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for x := range c.ListObjects(ctx, bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if x.Err != nil {
			return nil, refusal(x.Err)
		}
		out = append(out, x.Key)
	}
	return out, ctx.Err()
}
