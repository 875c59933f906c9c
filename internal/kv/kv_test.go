package kv

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// disk is a disk in memory that can be full or read-only.
type disk struct {
	vfs.FS
	size     int64
	used     atomic.Int64
	readOnly atomic.Bool
}

func (d *disk) room() (uint64, bool, error) {
	return uint64(max(0, d.size-d.used.Load())), d.readOnly.Load(), nil
}

func (d *disk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if d.readOnly.Load() {
		return nil, unix.EROFS
	}
	f, err := d.FS.Create(name, c)
	return &file{File: f, d: d}, err
}

func (d *disk) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := d.Remove(old); err != nil {
		return nil, err
	}
	return d.Create(name, c)
}

func (d *disk) Remove(name string) error {
	if d.readOnly.Load() {
		return unix.EROFS
	}
	if i, err := d.FS.Stat(name); err == nil {
		d.used.Add(-i.Size())
	}
	return d.FS.Remove(name)
}

func (d *disk) Lock(name string) (io.Closer, error) {
	if d.readOnly.Load() {
		return nil, unix.EROFS
	}
	return d.FS.Lock(name)
}

type file struct {
	vfs.File
	d       *disk
	at, end int64 // of Write, and of what there is
}

// grow takes room for what is written behind the end.
func (f *file) grow(to int64) error {
	if f.d.readOnly.Load() {
		return unix.EROFS
	}
	more := max(0, to-f.end)
	if f.d.used.Add(more) > f.d.size {
		f.d.used.Add(-more)
		return unix.ENOSPC
	}
	f.end += more
	return nil
}

func (f *file) Write(b []byte) (int, error) {
	if err := f.grow(f.at + int64(len(b))); err != nil {
		return 0, err
	}
	f.at += int64(len(b))
	return f.File.Write(b)
}

func (f *file) WriteAt(b []byte, at int64) (int, error) {
	if err := f.grow(at + int64(len(b))); err != nil {
		return 0, err
	}
	return f.File.WriteAt(b, at)
}

func newDisk(size int64) *disk { return &disk{FS: vfs.NewMem(), size: size} }

func open(t *testing.T, d *disk) *DB {
	t.Helper()
	db, err := Open("db", Options{Reserve: 8 << 20, Ballast: 2 << 20, fs: d, room: d.room, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func has(t *testing.T, db *DB, key string) bool {
	t.Helper()
	_, c, err := db.Get([]byte(key))
	if err == pebble.ErrNotFound {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	return true
}

func closing(t *testing.T, db *DB) {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// Others fill the disk while somebody writes: writes are refused in time, what was acknowledged stays, reads
// go on, a start on the full disk works, and with room writes are taken again.
func TestFullDisk(t *testing.T) {
	d := newDisk(40 << 20)
	db := open(t, d)
	if err := db.Writable(); err != nil {
		t.Fatal(err)
	}
	value, n := bytes.Repeat([]byte("v"), 64<<10), 0
	for ; db.Writable() == nil; n++ {
		if n > 2000 {
			t.Fatal("writes are never refused")
		}
		if err := db.Set(fmt.Appendf(nil, "k%05d", n), value, pebble.Sync); err != nil {
			t.Fatal(err)
		}
		db.check()
	}
	if err := db.Writable(); !strings.Contains(err.Error(), "8 MB are kept in reserve: reads go on; make room") {
		t.Error(err)
	}
	// Somebody else takes the reserve too, between two looks: what is written goes on, until the log needs room.
	other := d.size - d.used.Load()
	d.used.Add(other)
	for more := 0; !strings.Contains(db.Writable().Error(), "it is full"); more++ {
		if more > 2*memTable/len(value) {
			t.Fatal("the log never grows")
		}
		if err := db.Set([]byte("last"), value, pebble.Sync); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Stat("db/ballast"); err == nil {
		t.Error("the ballast is still there")
	}
	closing(t, db)

	d.used.Add(d.size - d.used.Load()) // not a byte is left
	for range 3 {
		db = open(t, d)
		if err := db.Writable(); err == nil || !strings.Contains(err.Error(), "0 MB free") || !strings.Contains(err.Error(), "after a restart") {
			t.Error(err)
		}
		for i := range n {
			if !has(t, db, fmt.Sprintf("k%05d", i)) {
				t.Fatalf("write %d of %d is lost", i, n)
			}
		}
		if !has(t, db, "last") {
			t.Error("the last write is lost")
		}
		closing(t, db)
	}
	d.used.Store(20 << 20)
	db = open(t, d)
	defer closing(t, db)
	if err := db.Writable(); err != nil {
		t.Error(err)
	}
	if err := db.Set([]byte("after"), value, pebble.Sync); err != nil {
		t.Error(err)
	}
}

func TestReadOnlyDisk(t *testing.T) {
	d := newDisk(100 << 20)
	db := open(t, d)
	if err := db.Set([]byte("a"), nil, pebble.Sync); err != nil {
		t.Fatal(err)
	}
	closing(t, db)
	d.readOnly.Store(true)
	db = open(t, d)
	if err := db.Writable(); err == nil || !strings.Contains(err.Error(), "mounted read-only: reads go on") {
		t.Error(err)
	}
	if !has(t, db, "a") {
		t.Error("lost")
	}
	if err := db.Set([]byte("b"), nil, pebble.Sync); err != pebble.ErrReadOnly {
		t.Error(err)
	}
	closing(t, db)
	d.readOnly.Store(false)
	db = open(t, d)
	if err := db.Writable(); err != nil {
		t.Error(err)
	}
	d.readOnly.Store(true)
	db.check()
	if err := db.Writable(); err == nil || !has(t, db, "a") {
		t.Error(err)
	}
	d.readOnly.Store(false)
	db.check()
	if err := db.Writable(); err != nil {
		t.Error(err)
	}
	closing(t, db)
}

// A log whose end a crash tore opens, with every write before the torn one.
func TestTornLastWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "db")
	db, err := Open(dir, Options{Reserve: 1, Ballast: 1})
	if err != nil {
		t.Fatal(err)
	}
	const n = 50
	var ends []int64 // of the log, after each write
	for i := range n {
		if err := db.Set(fmt.Appendf(nil, "k%02d", i), bytes.Repeat([]byte{byte(i)}, 100), pebble.Sync); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, int64(db.Metrics().WAL.Size))
	}
	copies := t.TempDir()
	took := 0
	for cut := int64(1); cut < 400; cut += 7 {
		zeros := cut%2 == 0 // what was not written is as it was before: the file was made of zeros
		to := filepath.Join(copies, fmt.Sprint(cut))
		if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		logs, err := filepath.Glob(filepath.Join(to, "*.log"))
		if err != nil || len(logs) != 1 {
			t.Fatal(logs, err)
		}
		// The file is longer than what was written to it: room was reserved.
		end := ends[n-1] - cut
		if err := os.Truncate(logs[0], end); err != nil {
			t.Fatal(err)
		}
		if zeros {
			if err := os.Truncate(logs[0], memTable); err != nil {
				t.Fatal(err)
			}
		}
		torn, err := Open(to, Options{Reserve: 1, Ballast: 1})
		if err != nil {
			t.Fatalf("cut %d: %v", cut, err)
		}
		for i := range n {
			if whole := ends[i] <= end; whole != has(t, torn, fmt.Sprintf("k%02d", i)) {
				t.Errorf("cut %d: write %d is there: %v, and should be: %v", cut, i, !whole, whole)
			} else if !whole {
				took++
			}
		}
		closing(t, torn)
	}
	if took < 50 {
		t.Errorf("only %d writes were torn: the test cuts in the wrong place", took)
	}
	closing(t, db)
}

func TestCheckpoint(t *testing.T) {
	d := newDisk(100 << 20)
	db := open(t, d)
	defer closing(t, db)
	for _, k := range []string{"a", "b"} {
		if err := db.Set([]byte(k), nil, pebble.Sync); err != nil {
			t.Fatal(err)
		}
		if k == "a" {
			if err := db.Checkpoint("copy"); err != nil {
				t.Fatal(err)
			}
		}
	}
	c, err := Open("copy", Options{Reserve: 1, Ballast: 1, fs: d, room: d.room})
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, c)
	if !has(t, c, "a") || has(t, c, "b") {
		t.Error("not the state at the time of the copy")
	}
	if err := db.Checkpoint("copy"); err == nil {
		t.Error("a copy over a copy")
	}
}

// A log that cannot be written ends the process, and its last line says what to do.
func TestLastLine(t *testing.T) {
	if os.Getenv("KV_TEST_FATAL") != "" {
		d := newDisk(100 << 20)
		db, err := Open("db", Options{Reserve: 1, Ballast: 1, fs: d, room: func() (uint64, bool, error) { return 1 << 30, false, nil }, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
		if err != nil {
			t.Fatal(err)
		}
		d.readOnly.Store(true)
		err = db.Set([]byte("a"), nil, pebble.Sync)
		t.Fatal("still here: ", err)
	}
	c := exec.Command(os.Args[0], "-test.run", "^TestLastLine$")
	c.Env = append(os.Environ(), "KV_TEST_FATAL=1")
	out, err := c.CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if last := lines[len(lines)-1]; err == nil || !strings.Contains(last, "nothing that was acknowledged is lost") || !strings.Contains(last, "read-only file system") || !strings.Contains(last, "hint=") {
		t.Errorf("%v\n%s", err, out)
	}
}
