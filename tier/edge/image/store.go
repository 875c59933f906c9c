package image

import (
	"bytes"
	"container/list"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"tenfold/internal/lazy"
)

// store keeps results on disk, bounded in bytes; what was used longest ago goes first. A file is named
// <key>.<kind> and begins with the SHA-256 of the rest: what a crash cut short is not served.
type store struct {
	dir  string
	most int64

	mu    sync.Mutex
	size  int64
	files map[string]*list.Element // by key
	order *list.List               // of *stored, used last first
}

type stored struct {
	key  string
	kind kind
	size int64
}

var storedForm = lazy.Regexp(`^([0-9a-f]{64})\.(jpg|png|gif|webp|avif)$`)

// openStore reads what is there; what is no result, or too much, is removed.
func openStore(dir string, most int64) (*store, error) {
	s := &store{dir: dir, most: most, files: map[string]*list.Element{}, order: list.New()}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open pictures: %w", err)
	}
	type aged struct {
		stored
		at time.Time
	}
	var found []aged
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		m := storedForm.FindStringSubmatch(d.Name())
		info, err := d.Info()
		if err != nil {
			return err
		}
		if m == nil || filepath.Dir(p) != s.folder(m[1]) {
			if strings.HasPrefix(d.Name(), ".new-") {
				return os.Remove(p)
			}
			return nil
		}
		found = append(found, aged{stored{m[1], kind(m[2]), info.Size()}, info.ModTime()})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open pictures: %w", err)
	}
	slices.SortFunc(found, func(a, b aged) int { return b.at.Compare(a.at) })
	for _, f := range found {
		s.files[f.key] = s.order.PushBack(&f.stored)
		s.size += f.size
	}
	s.shrink()
	return s, nil
}

func (s *store) folder(key string) string { return filepath.Join(s.dir, key[:2]) }

func (s *store) path(f *stored) string {
	return filepath.Join(s.folder(f.key), f.key+"."+string(f.kind))
}

func (s *store) get(key string) ([]byte, kind, bool) {
	s.mu.Lock()
	e, ok := s.files[key]
	if ok {
		s.order.MoveToFront(e)
	}
	s.mu.Unlock()
	if !ok {
		return nil, "", false
	}
	f := e.Value.(*stored)
	b, err := os.ReadFile(s.path(f))
	if err == nil && len(b) > sha256.Size {
		if sum := sha256.Sum256(b[sha256.Size:]); bytes.Equal(sum[:], b[:sha256.Size]) {
			return b[sha256.Size:], f.kind, true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files[key] == e {
		s.remove(e)
	}
	return nil, "", false
}

// put keeps a result. That it could not be kept is no reason not to serve it.
func (s *store) put(key string, k kind, body []byte) {
	f := &stored{key, k, int64(len(body)) + sha256.Size}
	if f.size > s.most/4 {
		return
	}
	if os.MkdirAll(s.folder(key), 0o700) != nil {
		return
	}
	tmp := filepath.Join(s.folder(key), ".new-"+rand.Text())
	sum := sha256.Sum256(body)
	if os.WriteFile(tmp, append(sum[:], body...), 0o600) != nil {
		os.Remove(tmp)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.files[key]; ok {
		s.remove(e)
	}
	if os.Rename(tmp, s.path(f)) != nil {
		os.Remove(tmp)
		return
	}
	s.files[key] = s.order.PushFront(f)
	s.size += f.size
	s.shrink()
}

// shrink removes what was used longest ago; s.mu is held, or s is not shared yet.
func (s *store) shrink() {
	for s.size > s.most && s.order.Len() > 0 {
		s.remove(s.order.Back())
	}
}

func (s *store) remove(e *list.Element) {
	f := s.order.Remove(e).(*stored)
	delete(s.files, f.key)
	s.size -= f.size
	os.Remove(s.path(f))
}
