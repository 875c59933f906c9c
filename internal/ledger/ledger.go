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

	mu   sync.Mutex
	recs map[string]R
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
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.update(key, f)
}

func (l *Ledger[R]) update(key string, f func(*R)) error {
	r := l.recs[key]
	f(&r)
	if err := atomicfile.WriteJSON(l.file(key), r, 0o600); err != nil {
		return fmt.Errorf("update record %s: %w", key, err)
	}
	l.recs[key] = r
	return nil
}

// Change is Update of a record that exists; of one that was deleted meanwhile it does nothing.
func (l *Ledger[R]) Change(key string, f func(*R)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.recs[key]; !ok {
		return nil
	}
	return l.update(key, f)
}

// Delete forgets a record.
func (l *Ledger[R]) Delete(key string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := os.Remove(l.file(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete record %s: %w", key, err)
	}
	delete(l.recs, key)
	return nil
}
