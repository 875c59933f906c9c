package bucket

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/auth"
)

const (
	// leftFor is how long an upload in parts may be unfinished.
	leftFor = 7 * 24 * time.Hour
	// The folder is gone through every sweepMost, and more often for what is kept shorter, up to sweepLeast.
	sweepLeast, sweepMost = time.Minute, time.Hour
)

// engineContext is what the engine wants to be told of who asks, when the store itself does.
func (s *Store) engineContext() context.Context { return asRoot(context.Background(), s.root.Access) }

func asRoot(ctx context.Context, access string) context.Context {
	//lint:ignore SA1029 the engine looks for it under this name
	return context.WithValue(ctx, "account", auth.Account{Access: access, Role: auth.RoleAdmin}) //nolint
}

// pause is how long until the next sweep.
func pause(all []*Wanted) time.Duration {
	p := sweepMost
	for _, w := range all {
		for _, k := range w.Keep {
			p = min(p, k.For/10)
		}
	}
	return max(p, sweepLeast)
}

func (s *Store) everything() (out []*Wanted) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(s.wants)) {
		for _, n := range slices.Sorted(maps.Keys(s.wants[id])) {
			out = append(out, s.wants[id][n])
		}
	}
	return out
}

// sweeping removes what is kept no longer, until ctx ends.
func (s *Store) sweeping(ctx context.Context) {
	t := time.NewTimer(sweepLeast)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		s.Sweep(ctx, time.Now())
		t.Reset(pause(s.everything()))
	}
}

// Sweep removes what is to be kept no longer at a moment: objects by the manifest, and unfinished uploads.
func (s *Store) Sweep(ctx context.Context, now time.Time) {
	for _, w := range s.everything() {
		d := s.doorOf(w.account)
		if d == nil || ctx.Err() != nil {
			continue
		}
		for _, k := range w.Keep {
			if err := s.expire(ctx, d, w, k, now.Add(-k.For)); err != nil {
				s.log.Error("remove what is kept no longer; tried again with the next sweep", "bucket", w.Name, "err", err)
			}
		}
		if err := abandon(ctx, d.account, w.Name, now.Add(-leftFor)); err != nil {
			s.log.Error("remove unfinished uploads; tried again with the next sweep", "bucket", w.Name, "err", err)
		}
	}
}

// expire removes the objects of one kind that were written before a moment.
func (s *Store) expire(ctx context.Context, d *door, w *Wanted, k Keep, before time.Time) error {
	ctx = asRoot(ctx, s.root.Access)
	after := new(string)
	for {
		page, err := d.account.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &w.Name, Prefix: &k.Prefix, MaxKeys: new(int32(1000)), StartAfter: after, ContinuationToken: new(string), Delimiter: new(string), FetchOwner: new(bool)})
		if err != nil {
			return err
		}
		for _, o := range page.Contents {
			after = o.Key
			if o.LastModified == nil || !o.LastModified.Before(before) || !strings.HasSuffix(*o.Key, k.Suffix) {
				continue
			}
			out, err := d.account.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &w.Name, Key: o.Key})
			if err != nil {
				return err
			}
			s.use.touched(w.account, w.Name)
			e := Event{What: "LifecycleExpiration:Delete", By: "lifecycle", Bucket: w.Name, Key: *o.Key}
			if out.DeleteMarker != nil && *out.DeleteMarker {
				e.What, e.Version = "LifecycleExpiration:DeleteMarkerCreated", deref(out.VersionId)
			}
			if s.outbox.deliver != nil {
				if err := s.post(d, w, e); err != nil {
					return err
				}
			}
		}
		if page.IsTruncated == nil || !*page.IsTruncated || len(page.Contents) == 0 {
			return nil
		}
	}
}

// abandon ends uploads in parts that were begun before a moment.
func abandon(ctx context.Context, a *account, bucket string, before time.Time) error {
	var old []types.MultipartUpload
	in := &s3.ListMultipartUploadsInput{Bucket: &bucket, MaxUploads: new(int32(1000)), KeyMarker: new(string), UploadIdMarker: new(string), Prefix: new(string), Delimiter: new(string)}
	for {
		page, err := a.ListMultipartUploads(ctx, in)
		if err != nil {
			return err
		}
		for _, u := range page.Uploads {
			if u.Initiated.Before(before) {
				old = append(old, types.MultipartUpload{Key: &u.Key, UploadId: &u.UploadID})
			}
		}
		if !page.IsTruncated {
			break
		}
		in.KeyMarker, in.UploadIdMarker = &page.NextKeyMarker, &page.NextUploadIDMarker
	}
	for _, u := range old {
		if err := a.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &bucket, Key: u.Key, UploadId: u.UploadId}); err != nil {
			return err
		}
	}
	return nil
}
