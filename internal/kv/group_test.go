package kv

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// slow is a disk whose syncs of the log wait to be let go.
type slow struct {
	vfs.FS
	waiting atomic.Bool
	began   chan chan struct{}
	syncs   atomic.Int64
}

func (s *slow) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.Create(name, c)
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	return &slowFile{f, s}, nil
}

type slowFile struct {
	vfs.File
	s *slow
}

func (f *slowFile) sync() {
	if f.s.syncs.Add(1); f.s.waiting.Load() {
		let := make(chan struct{})
		f.s.began <- let
		<-let
	}
}

func (f *slowFile) Sync() error     { f.sync(); return f.File.Sync() }
func (f *slowFile) SyncData() error { f.sync(); return f.File.SyncData() }

func (f *slowFile) SyncTo(n int64) (bool, error) { f.sync(); return true, f.File.Sync() }

func set(db *DB, key string) error {
	b := db.NewBatch()
	defer b.Close()
	b.Set([]byte(key), []byte("value"), nil)
	return db.Commit(b)
}

// TestWritersShareASync has many write while a sync is under way: one more is enough for all, each sees its write
// at once, and none is told that it is on disk before it is.
func TestWritersShareASync(t *testing.T) {
	mem := vfs.NewCrashableMem()
	disk := &slow{FS: mem, began: make(chan chan struct{})}
	db, err := Open("db", Options{Ballast: 2 << 20, fs: disk, room: func() (uint64, bool, error) { return 1 << 40, false, nil }, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	disk.waiting.Store(true)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := set(db, "first"); err != nil {
			t.Error(err)
		}
	})
	first := <-disk.began
	const writers = 50
	var applied sync.WaitGroup
	var done atomic.Int64
	for i := range writers {
		applied.Add(1)
		wg.Go(func() {
			g := db.Join()
			b := db.NewBatch()
			defer b.Close()
			key := fmt.Sprint("key", i)
			b.Set([]byte(key), nil, nil)
			err := g.Apply(b)
			if !has(t, db, key) {
				t.Errorf("%s is not seen", key)
			}
			applied.Done()
			if err = errors.Join(err, g.Wait()); err != nil {
				t.Error(err)
			}
			done.Add(1)
		})
	}
	applied.Wait()
	close(first)
	second := <-disk.began
	if n := done.Load(); n != 0 {
		t.Errorf("%d writers believe that they are on disk, and nothing was synced", n)
	}
	close(second)
	wg.Wait()
	if n := disk.syncs.Load(); n > 3 { // one may be for zeros
		t.Errorf("%d syncs for %d writers", n, writers)
	}
	disk.waiting.Store(false)
	crashed := mem.CrashClone(vfs.CrashCloneCfg{}) // what was not synced is lost
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	disk.FS = crashed
	db, err = Open("db", Options{Ballast: 2 << 20, fs: disk, room: func() (uint64, bool, error) { return 1 << 40, false, nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for i := range writers {
		if !has(t, db, fmt.Sprint("key", i)) {
			t.Errorf("key%d was acknowledged and is lost", i)
		}
	}
}

// TestADiskOfReadsAloneRefusesCommits has a write refused, and not wait, where the database was opened for reading.
func TestADiskOfReadsAloneRefusesCommits(t *testing.T) {
	d := newDisk(1 << 30)
	db := open(t, d)
	if err := set(db, "key"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	d.readOnly.Store(true)
	db = open(t, d)
	for range 3 {
		if err := set(db, "other"); !errors.Is(err, pebble.ErrReadOnly) {
			t.Errorf("a write on a disk of reads alone: %v", err)
		}
		g := db.Join()
		b := db.NewBatch()
		b.Set([]byte("other"), nil, nil)
		if err := g.Apply(b); !errors.Is(err, pebble.ErrReadOnly) {
			t.Errorf("a write of a group on a disk of reads alone: %v", err)
		}
		b.Close()
		if err := g.Wait(); !errors.Is(err, pebble.ErrReadOnly) { // and not never
			t.Errorf("who waits for what a disk of reads alone took: %v", err)
		}
	}
	if !has(t, db, "key") {
		t.Error("what was written before is not read")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}
