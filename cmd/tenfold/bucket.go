package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/spf13/cobra"

	"tenfold"
	"tenfold/control"
)

func (c *cli) bucketCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "bucket", Aliases: []string{"buckets"}, Short: "Buckets: list, ls, put, get, rm, presign, env", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(c.bucketList(), c.bucketLs(), c.bucketPut(), c.bucketGet(), c.bucketRm(), c.bucketPresign(), c.bucketEnv())
	return cmd
}

// files is a client of an environment's buckets.
type files struct {
	*minio.Client
	access control.BucketAccess
}

func openFiles(ctx context.Context, api *control.Client, env control.Env) (*files, error) {
	a, err := api.BucketAccess(ctx, env)
	if err != nil {
		return nil, err
	}
	m, err := clientAt(a.Endpoint, a)
	return &files{m, a}, err
}

// clientAt is a client at an address: presigned URLs are good for the host that they were made for.
func clientAt(at string, a control.BucketAccess) (*minio.Client, error) {
	u, err := url.Parse(at)
	if err != nil {
		return nil, err
	}
	return minio.New(u.Host, &minio.Options{Secure: u.Scheme == "https", Region: a.Region, BucketLookup: minio.BucketLookupPath, Creds: credentials.NewStaticV4(a.AccessKey, a.SecretKey, "")})
}

// filing is a command that works on buckets.
func (c *cli) filing(use, short string, args cobra.PositionalArgs, f func(ctx context.Context, b *files, env control.Env, args []string) error) *cobra.Command {
	return c.asking(use, short, args, func(ctx context.Context, api *control.Client, env control.Env, args []string) error {
		b, err := openFiles(ctx, api, env)
		if err != nil {
			return err
		}
		return s3Error(f(ctx, b, env, args))
	})
}

// s3Error is an error of S3 as the command line tells it.
func s3Error(err error) error {
	var r minio.ErrorResponse
	if !errors.As(err, &r) {
		return err
	}
	code, hint := tenfold.CodeFailed, "see what there is: tenfold bucket ls"
	switch r.Code {
	case "NoSuchBucket", "NoSuchKey":
		code = tenfold.CodeNotFound
	case "AccessDenied":
		code = tenfold.CodeInvalid
	case "InsufficientStorage":
		hint = "make room on the disk; nothing was lost"
	}
	return tenfold.Errorf(code, "%s: %s", r.Code, strings.TrimSuffix(r.Message, ".")).WithHint("%s", hint)
}

// place splits "uploads/a/b.txt", or as AWS' command line has it "s3://uploads/a/b.txt".
func place(s string) (bucket, key string) {
	bucket, key, _ = strings.Cut(strings.TrimPrefix(s, "s3://"), "/")
	return bucket, key
}

func (c *cli) bucketList() *cobra.Command {
	return c.filing("list", "The app's buckets and what is in them", cobra.NoArgs, func(ctx context.Context, b *files, env control.Env, _ []string) error {
		all, err := b.ListBuckets(ctx)
		if err != nil {
			return err
		}
		type line struct {
			Name    string    `json:"name"`
			Objects int64     `json:"objects"`
			Bytes   int64     `json:"bytes"`
			Created time.Time `json:"created"`
			Foreign bool      `json:"foreign,omitempty"` // made by a service, not in the manifest
			Public  string    `json:"public,omitempty"`
		}
		lines := []line{}
		for _, x := range all {
			l := line{Name: x.Name, Created: x.CreationDate, Foreign: !slices.Contains(b.access.Named, tenfold.Name(x.Name)), Public: b.access.Public[tenfold.Name(x.Name)]}
			for o := range b.ListObjects(ctx, x.Name, minio.ListObjectsOptions{Recursive: true}) {
				if o.Err != nil {
					return o.Err
				}
				l.Objects++
				l.Bytes += o.Size
			}
			lines = append(lines, l)
		}
		if c.json {
			return c.encode(lines)
		}
		if len(lines) == 0 {
			fmt.Fprintf(c.err, "%s has no buckets; add one to the manifest: buckets: [uploads]\n", env.App)
			return nil
		}
		rows := [][]string{{"NAME", "OBJECTS", "SIZE", "CREATED", "NOTE"}}
		for _, l := range lines {
			note := ""
			switch {
			case l.Foreign:
				note = "not in the manifest"
			case l.Public != "":
				note = "presigned URLs at " + l.Public
			}
			rows = append(rows, []string{l.Name, strconv.FormatInt(l.Objects, 10), size(l.Bytes), ago(l.Created), note})
		}
		table(c.out, rows)
		return nil
	})
}

func (c *cli) bucketLs() *cobra.Command {
	var deep bool
	cmd := c.filing("ls [BUCKET[/PREFIX]]", "Objects of a bucket, or its buckets", cobra.MaximumNArgs(1), func(ctx context.Context, b *files, _ control.Env, args []string) error {
		if len(args) == 0 {
			all, err := b.ListBuckets(ctx)
			if err != nil || c.json {
				return orEncode(c, all, err)
			}
			for _, x := range all {
				fmt.Fprintln(c.out, x.Name)
			}
			return nil
		}
		bucket, prefix := place(args[0])
		type line struct {
			Key      string    `json:"key"`
			Size     int64     `json:"size"`
			Modified time.Time `json:"modified,omitzero"`
			ETag     string    `json:"etag,omitempty"`
		}
		lines := []line{}
		rows := [][]string{{"KEY", "SIZE", "CHANGED"}}
		for o := range b.ListObjects(ctx, bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: deep}) {
			if o.Err != nil {
				return o.Err
			}
			lines = append(lines, line{o.Key, o.Size, o.LastModified, o.ETag})
			if strings.HasSuffix(o.Key, "/") {
				rows = append(rows, []string{o.Key, "-", "-"})
				continue
			}
			rows = append(rows, []string{o.Key, size(o.Size), ago(o.LastModified)})
		}
		if c.json {
			return c.encode(lines)
		}
		table(c.out, rows)
		return nil
	})
	cmd.Flags().BoolVarP(&deep, "recursive", "r", false, "all below, not only the next folder")
	return cmd
}

func (c *cli) bucketPut() *cobra.Command {
	var kind string
	cmd := c.filing("put FILE|- BUCKET/KEY", "Store a file, or standard input, as an object", cobra.ExactArgs(2), func(ctx context.Context, b *files, _ control.Env, args []string) error {
		bucket, key := place(args[1])
		if key == "" || strings.HasSuffix(key, "/") {
			if args[0] == "-" {
				return usage("an object needs a key: put - uploads/name")
			}
			key += filepath.Base(args[0])
		}
		opts := minio.PutObjectOptions{ContentType: kind, PartSize: 16 << 20}
		if kind == "" {
			opts.ContentType = mime.TypeByExtension(path.Ext(key))
		}
		r, n := io.Reader(os.Stdin), int64(-1)
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return tenfold.Errorf(tenfold.CodeInvalid, "%w", err).WithHint("name a file, or - for standard input")
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				return err
			}
			if info.IsDir() {
				return tenfold.Errorf(tenfold.CodeInvalid, "%s is a folder", args[0]).WithHint("put its files one by one, or: eval \"$(tenfold bucket env)\" && aws s3 sync %s s3://%s/", args[0], bucket)
			}
			r, n = f, info.Size()
		}
		out, err := b.PutObject(ctx, bucket, key, r, n, opts)
		if err != nil {
			return err
		}
		fmt.Fprintf(c.err, "%s/%s: %s\n", bucket, key, size(out.Size))
		return nil
	})
	cmd.Flags().StringVar(&kind, "content-type", "", "what it is; by the key's ending unless said")
	return cmd
}

func (c *cli) bucketGet() *cobra.Command {
	return c.filing("get BUCKET/KEY [FILE]", "Write an object to a file, or to standard output", cobra.RangeArgs(1, 2), func(ctx context.Context, b *files, _ control.Env, args []string) error {
		bucket, key := place(args[0])
		if len(args) == 2 && args[1] != "-" {
			return b.FGetObject(ctx, bucket, key, args[1], minio.GetObjectOptions{})
		}
		o, err := b.GetObject(ctx, bucket, key, minio.GetObjectOptions{})
		if err != nil {
			return err
		}
		defer o.Close()
		_, err = io.Copy(c.out, o)
		return err
	})
}

func (c *cli) bucketRm() *cobra.Command {
	var deep bool
	cmd := c.filing("rm BUCKET/KEY", "Remove an object, or all below a prefix", cobra.ExactArgs(1), func(ctx context.Context, b *files, _ control.Env, args []string) error {
		bucket, key := place(args[0])
		if !deep {
			if key == "" {
				return usage("which object? rm uploads/KEY, or --recursive for all of the bucket")
			}
			return b.RemoveObject(ctx, bucket, key, minio.RemoveObjectOptions{})
		}
		n := 0
		for o := range b.ListObjects(ctx, bucket, minio.ListObjectsOptions{Prefix: key, Recursive: true}) {
			if o.Err != nil {
				return o.Err
			}
			if err := b.RemoveObject(ctx, bucket, o.Key, minio.RemoveObjectOptions{}); err != nil {
				return err
			}
			n++
		}
		fmt.Fprintf(c.err, "%d objects removed\n", n)
		return nil
	})
	cmd.Flags().BoolVarP(&deep, "recursive", "r", false, "all objects whose keys begin so")
	return cmd
}

func (c *cli) bucketPresign() *cobra.Command {
	var lasts time.Duration
	var write bool
	cmd := c.filing("presign BUCKET/KEY", "A URL by which anybody gets an object, or stores it, for a while", cobra.ExactArgs(1), func(ctx context.Context, b *files, _ control.Env, args []string) error {
		bucket, key := place(args[0])
		m := b.Client
		if at := b.access.Public[tenfold.Name(bucket)]; at != "" {
			var err error
			if m, err = clientAt(at, b.access); err != nil {
				return err
			}
		} else {
			fmt.Fprintf(c.err, "%s has no routes: the URL works on this machine alone; buckets: {%s: {routes: [/%s/*]}} leads there from outside\n", bucket, bucket, bucket)
		}
		u, err := m.PresignedGetObject(ctx, bucket, key, lasts, nil)
		if write {
			u, err = m.PresignedPutObject(ctx, bucket, key, lasts)
		}
		if err != nil {
			return err
		}
		fmt.Fprintln(c.out, u)
		return nil
	})
	cmd.Flags().DurationVar(&lasts, "expires", time.Hour, "how long it is good, 168h at most")
	cmd.Flags().BoolVar(&write, "put", false, "to store the object, by PUT")
	return cmd
}

func (c *cli) bucketEnv() *cobra.Command {
	return c.filing("env", "Variables for any client of S3: eval \"$(tenfold bucket env)\"", cobra.NoArgs, func(_ context.Context, b *files, _ control.Env, _ []string) error {
		a := b.access
		if c.json {
			return c.encode(a)
		}
		fmt.Fprintf(c.out, "export AWS_ENDPOINT_URL_S3=%s AWS_REGION=%s AWS_ACCESS_KEY_ID=%s AWS_SECRET_ACCESS_KEY=%s\n", a.Endpoint, a.Region, a.AccessKey, a.SecretKey)
		return nil
	})
}
