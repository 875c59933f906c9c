package bucket

import (
	"context"
	"encoding/xml"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/versity/versitygw/backend/posix"
)

// Use is what is in a bucket, as it was last counted.
type Use struct {
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
	// Waiting counts events of all buckets that no target has yet.
	Waiting int `json:"waiting,omitempty"`
	// Requests counts what succeeded and changed the bucket since the process began.
	Changes int64 `json:"changes"`
}

// usage remembers what is in buckets. A bucket is counted by going through its folder, so only what changed is
// counted again, and never more than a hundredth of the time.
type usage struct {
	mu      sync.Mutex
	of      map[[2]string]Use // under mu
	changed map[[2]string]bool
}

func (u *usage) touched(account, bucket string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.changed == nil {
		u.changed, u.of = map[[2]string]bool{}, map[[2]string]Use{}
	}
	k := [2]string{account, bucket}
	x := u.of[k]
	x.Changes++
	u.of[k], u.changed[k] = x, true
}

// Uses are those of an account's buckets that a manifest names, by name.
func (s *Store) Uses(account string) map[string]Use {
	s.mu.Lock()
	names := s.wants[account]
	s.mu.Unlock()
	out := map[string]Use{}
	s.use.mu.Lock()
	defer s.use.mu.Unlock()
	for n := range names {
		x := s.use.of[[2]string{account, n}]
		x.Waiting = s.outbox.waiting()
		out[n] = x
	}
	return out
}

const countEvery = 2 * time.Second

func (s *Store) counting(ctx context.Context) {
	seen := map[[2]string]bool{}
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		began := time.Now()
		for _, w := range s.everything() {
			k := [2]string{w.account, w.Name}
			s.use.mu.Lock()
			again := s.use.changed[k] || !seen[k]
			delete(s.use.changed, k)
			s.use.mu.Unlock()
			if !again {
				continue
			}
			seen[k] = true
			n, bytes := s.count(ctx, k[0]+"."+k[1])
			s.use.mu.Lock()
			if s.use.of == nil {
				s.use.changed, s.use.of = map[[2]string]bool{}, map[[2]string]Use{}
			}
			x := s.use.of[k]
			x.Objects, x.Bytes = n, bytes
			s.use.of[k] = x
			s.use.mu.Unlock()
		}
		t.Reset(max(countEvery, 100*time.Since(began)))
	}
}

// count goes through the folder of a bucket of the engine.
func (s *Store) count(ctx context.Context, bucket string) (objects, bytes int64) {
	dir := filepath.Join(s.cfg.Dir, "buckets", bucket)
	_, err := os.Lstat(filepath.Join(s.cfg.Dir, "versions", bucket))
	versions := err == nil
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, fs.ErrNotExist):
			return nil // removed since
		case err != nil:
			return err
		case e.IsDir() && strings.HasPrefix(e.Name(), posix.MetaTmpDir):
			return fs.SkipDir
		case e.Type().IsRegular():
			if info, err := e.Info(); err == nil && (!versions || !s.marker(bucket, path[len(dir)+1:])) {
				objects++
				bytes += info.Size()
			}
		}
		return nil
	})
	return objects, bytes
}

// corsID marks the rule that the manifest made.
const corsID = "tenfold.yaml"

// cors is S3's document that lets pages of some origins ask.
func cors(origins []string) []byte {
	type rule struct {
		ID            string
		AllowedOrigin []string
		AllowedMethod []string
		AllowedHeader []string
		ExposeHeader  []string
		MaxAgeSeconds int
	}
	doc := struct {
		XMLName xml.Name `xml:"CORSConfiguration"`
		Rule    rule     `xml:"CORSRule"`
	}{Rule: rule{corsID, origins, []string{"GET", "HEAD", "PUT", "POST", "DELETE"}, []string{"*"}, []string{"ETag", "x-amz-version-id", "x-amz-request-id"}, 3000}}
	b, err := xml.Marshal(doc)
	if err != nil {
		panic(err) // strings alone
	}
	return b
}

// marker says whether a file stands for an object that was removed from a bucket with versions.
func (s *Store) marker(bucket, key string) bool {
	_, err := s.attributes.RetrieveAttribute(nil, bucket, key, "delete-marker")
	return err == nil
}
