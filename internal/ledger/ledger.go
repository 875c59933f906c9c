// Package ledger is a durable map of records: one JSON file a record, replaced whole. A tier keeps
// its goals in one. Opening it decodes and starts nothing. Begin at Open.
package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"tenfold/internal/atomicfile"
)

const suffix = ".json"

// Ledger maps keys ("app/env/kind/name") to records. Safe for concurrent use.
type Ledger[R any] struct {
	dir string

	// writing is held from the look at a record until its file is written; who only reads does not wait for the disk.
	writing sync.Mutex
	mu      sync.Mutex
	recs    map[string]R // under mu
}

// Open reads the records in dir, which is made when it does not exist (mode 0700).
func Open[R any](dir string) (*Ledger[R], error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l := &Ledger[R]{dir: dir, recs: map[string]R{}}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || strings.HasPrefix(name, ".") {
			continue
		}
		var r R
		if err := atomicfile.ReadJSON(filepath.Join(dir, e.Name()), &r); err != nil {
			return nil, fmt.Errorf("open ledger: %w", err)
		}
		l.recs[strings.ReplaceAll(name, "~", "/")] = r
	}
	return l, nil
}

func (l *Ledger[R]) file(key string) string {
	return filepath.Join(l.dir, strings.ReplaceAll(key, "/", "~")+suffix)
}

// Get returns a record.
func (l *Ledger[R]) Get(key string) (R, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.recs[key]
	return r, ok
}

// Keys lists all keys in order.
func (l *Ledger[R]) Keys() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.recs))
}

// All copies the map; records are plain data.
func (l *Ledger[R]) All() map[string]R {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.recs)
}

// Update changes a record, a zero one when there is none, and stores it before it returns.
func (l *Ledger[R]) Update(key string, f func(*R)) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.update(key, f)
}

func (l *Ledger[R]) update(key string, f func(*R)) error {
	r, _ := l.Get(key)
	f(&r)
	if err := l.write(key, r); err != nil {
		return err
	}
	l.set(key, r)
	return nil
}

// write makes the folder anew when somebody took it away: what is known is here, and a tier that cannot write down that
// it is to stop would never stop.
func (l *Ledger[R]) write(key string, r R) error {
	err := atomicfile.WriteJSON(l.file(key), r, 0o600)
	if errors.Is(err, fs.ErrNotExist) && os.MkdirAll(l.dir, 0o700) == nil {
		err = atomicfile.WriteJSON(l.file(key), r, 0o600)
	}
	if err != nil {
		return fmt.Errorf("update record %s: %w", key, err)
	}
	return nil
}

func (l *Ledger[R]) set(key string, r R) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recs[key] = r
}

// Change is Update of a record that exists; of one that was deleted meanwhile it does nothing.
func (l *Ledger[R]) Change(key string, f func(*R)) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if _, ok := l.Get(key); !ok {
		return nil
	}
	return l.update(key, f)
}

// Soon is Change that returns before the record is on disk: for what is true whether or not a crash forgets it.
// What cannot be written is written with the next change. Flush waits for it.
func (l *Ledger[R]) Soon(key string, f func(*R)) {
	l.writing.Lock()
	r, ok := l.Get(key)
	if !ok {
		l.writing.Unlock()
		return
	}
	f(&r)
	l.set(key, r)
	go func() { // ends with the write; the lock is its owner's to wait for
		defer l.writing.Unlock()
		_ = l.write(key, r)
	}()
}

// Flush returns when nothing of Soon is on its way.
func (l *Ledger[R]) Flush() {
	l.writing.Lock()
	defer l.writing.Unlock()
}

// Delete forgets a record.
func (l *Ledger[R]) Delete(key string) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := os.Remove(l.file(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete record %s: %w", key, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.recs, key)
	return nil
}
