package depot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// partSize of what is sent and fetched side by side, in bytes, and how many there are at a time: as much memory is used
// for each.
const (
	partSize = 16 << 20
	streams  = 4
)

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
	return openS3(where, u.Host, bucket, prefix, minio.Options{
		Secure: u.Scheme == "s3", BucketLookup: minio.BucketLookupAuto,
		Creds: credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.IAM{}}),
	})
}

// Bucket is one whose keys are known, at an address of its own without TLS: this house's.
type Bucket struct {
	Address, Region string // host:port
	Name            string
	Access, Secret  string
}

// Below is the Place of the objects whose keys begin with prefix and "/". It asks nothing yet.
func (b Bucket) Below(prefix string) (*S3, error) {
	return openS3("bucket "+b.Name+"/"+prefix, b.Address, b.Name, prefix, minio.Options{
		Region: b.Region, BucketLookup: minio.BucketLookupPath, Creds: credentials.NewStaticV4(b.Access, b.Secret, ""),
	})
}

func openS3(where, host, bucket, prefix string, o minio.Options) (*S3, error) {
	c, err := minio.New(host, &o)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", where, err)
	}
	if prefix != "" {
		prefix += "/"
	}
	return &S3{client: c, bucket: bucket, prefix: prefix, where: where}, nil
}

func (s *S3) String() string { return s.where }

// Put implements Place. An object is there when its last part is. One of a single part takes one request.
func (s *S3) Put(ctx context.Context, name string, r io.Reader) error {
	var first bytes.Buffer
	n, err := io.CopyN(&first, r, partSize)
	o := minio.PutObjectOptions{PartSize: partSize}
	switch {
	case errors.Is(err, io.EOF):
		_, err = s.client.PutObject(ctx, s.bucket, s.prefix+name, &first, n, o)
	case err == nil:
		o.NumThreads, o.ConcurrentStreamParts = streams, true
		_, err = s.client.PutObject(ctx, s.bucket, s.prefix+name, io.MultiReader(&first, r), -1, o)
	}
	if err != nil {
		return fmt.Errorf("store %s: %w", name, err)
	}
	return nil
}

// Get implements Place. What is larger than a part is fetched in parts side by side.
func (s *S3) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	var o minio.GetObjectOptions
	o.SetRange(0, partSize-1)
	body, info, head, err := s.core().GetObject(ctx, s.bucket, s.prefix+name, o)
	if minio.ToErrorResponse(err).Code == "InvalidRange" { // it is empty
		body, info, head, err = s.core().GetObject(ctx, s.bucket, s.prefix+name, minio.GetObjectOptions{})
	}
	if err != nil {
		cancel()
		if minio.ToErrorResponse(err).Code == "NoSuchKey" {
			err = fs.ErrNotExist
		}
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	f := &fetched{cancel: cancel, first: body, order: make(chan *part, streams-1)}
	var size int64 // without a range the first is the whole
	if _, total, ok := strings.Cut(head.Get("Content-Range"), "/"); ok {
		size, _ = strconv.ParseInt(total, 10, 64)
	}
	f.wg.Go(func() {
		defer close(f.order)
		for from := int64(partSize); from < size; from += partSize {
			p := &part{done: make(chan struct{})}
			select {
			case f.order <- p: // waits while enough are fetched
			case <-ctx.Done():
				return
			}
			f.wg.Go(func() {
				p.data, p.err = s.part(ctx, name, info.ETag, from, min(from+partSize, size))
				close(p.done)
			})
		}
	})
	return f, nil
}

func (s *S3) core() minio.Core { return minio.Core{Client: s.client} }

// part fetches bytes of an object that is still the same.
func (s *S3) part(ctx context.Context, name, tag string, from, to int64) (data []byte, err error) {
	for range 3 { // of many requests one may fail
		var o minio.GetObjectOptions
		if err := errors.Join(o.SetRange(from, to-1), o.SetMatchETag(tag)); err != nil {
			return nil, err
		}
		var body io.ReadCloser
		if body, _, _, err = s.core().GetObject(ctx, s.bucket, s.prefix+name, o); err == nil {
			data = make([]byte, to-from)
			_, err = io.ReadFull(body, data)
			body.Close()
		}
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("fetch bytes %d to %d of %s: %w", from, to, name, err)
	}
	return data, nil
}

// part is one of an object, under way.
type part struct {
	data []byte
	err  error
	done chan struct{}
}

// fetched reads an object: what the first request brings, then the parts in order.
type fetched struct {
	cancel context.CancelFunc
	first  io.ReadCloser
	over   bool // all of first was read
	order  chan *part
	wg     sync.WaitGroup
	rest   []byte
	once   sync.Once
}

func (f *fetched) Read(b []byte) (int, error) {
	for !f.over {
		n, err := f.first.Read(b)
		if f.over = errors.Is(err, io.EOF); f.over {
			err = nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	for len(f.rest) == 0 {
		p, more := <-f.order
		if !more {
			return 0, io.EOF
		}
		if <-p.done; p.err != nil {
			return 0, p.err
		}
		f.rest = p.data
	}
	n := copy(b, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// Close ends what is fetched.
func (f *fetched) Close() error {
	f.once.Do(func() {
		f.cancel()
		f.first.Close()
		f.wg.Wait()
	})
	return nil
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
