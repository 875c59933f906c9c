// Package kv opens the one Pebble database that tables, queues and events share, and stands between it and
// bad disks: it says why writes are refused before Pebble meets a full disk, which would end the process.
//
// Who writes asks Writable first, then commits: with DB.Commit, which shares its sync with other writers, or with
// pebble.Sync. What was committed so is on disk. Every owner of keys has a first byte of its own (Tables, Queues, …).
// Begin at Open.
package kv

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// The first byte of a key says whose it is.
const (
	Tables   = 't'
	Queues   = 'q'
	Events   = 'e'
	Internal = 'i'
)

// Defaults of Options.
const (
	// DefaultReserve is the free space below which writes are refused, in bytes. Flushes and compactions of
	// what was taken before go on in it.
	DefaultReserve = 128 << 20
	// DefaultBallast is the size of the file that is given up when the disk is full after all.
	DefaultBallast = 64 << 20
	// DefaultCache is the size of the cache of blocks, in bytes.
	DefaultCache = 64 << 20

	memTable    = 16 << 20
	ballastName = "ballast"
	// look is how often free space is asked. A disk that takes 500 MB/s does not fill the reserve in it.
	look = 200 * time.Millisecond
)

// Options are what Open may be told; the zero value is useful.
type Options struct {
	Log     *slog.Logger
	Reserve uint64 // bytes; 0: DefaultReserve
	Ballast int64  // bytes; 0: DefaultBallast
	Cache   int64  // bytes; 0: DefaultCache

	fs   vfs.FS
	room func() (free uint64, readOnly bool, err error)
}

// DB is an open database. Safe for concurrent use.
type DB struct {
	*pebble.DB

	dir  string
	o    Options
	why  atomic.Pointer[error] // why writes are refused; nil: they are not
	only error                 // why the database was opened for reading only, or nil
	end  chan struct{}
	done sync.WaitGroup

	joining   sync.Mutex
	gathering *Group      // under joining
	begin     chan *Group // groups from their first writer on

	ballast sync.Mutex // held while the ballast is made or given up
	kept    bool       // under ballast
}

// Open opens the database in dir, which is made when it does not exist (mode 0700).
//
// On a disk that is read-only, or so full that nothing can be written, the database opens for reading only
// and Writable says why. A last write that was torn by a crash was acknowledged to nobody and is left out.
func Open(dir string, o Options) (*DB, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Reserve = or(o.Reserve, DefaultReserve)
	o.Ballast = or(o.Ballast, DefaultBallast)
	o.Cache = or(o.Cache, DefaultCache)
	o.fs = or(o.fs, vfs.Default)
	d := &DB{dir: dir, o: o, end: make(chan struct{}), begin: make(chan *Group, 1)}
	if d.o.room == nil {
		d.o.room = d.statfs
	}
	if err := o.fs.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	d.only = d.cannot()
	if d.only == nil {
		err := d.open(false)
		if err == nil {
			d.check()
			d.done.Go(d.watch)
			d.done.Go(d.sync)
			return d, nil
		}
		if !vfs.IsNoSpaceError(err) && !isReadOnly(err) {
			return nil, fmt.Errorf("open database %s: %w", dir, err)
		}
		d.only = d.refusal(err.Error())
	}
	if err := d.open(true); err != nil {
		return nil, fmt.Errorf("open database %s for reading only, because %w: %w", dir, d.only, err)
	}
	o.Log.Error("database is open for reading only", "dir", dir, "err", d.only)
	d.why.Store(&d.only)
	d.done.Go(d.sync) // to refuse: who waits for a group, or reads behind it, is to have an answer
	return d, nil
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// cannot says why the database cannot be opened for writing. A full disk is given the ballast first.
func (d *DB) cannot() error {
	free, readOnly, err := d.o.room()
	switch {
	case err != nil:
		return fmt.Errorf("ask for free space of %s: %w", d.dir, err)
	case readOnly:
		return d.refusal("it is mounted read-only")
	}
	_, err = d.o.fs.Stat(d.ballastPath())
	d.kept = err == nil
	// Opening replays the log and writes it out, which takes up to two tables of memory.
	if free >= 2*memTable || free >= d.o.Reserve {
		return nil
	}
	d.giveUp()
	if free, _, err = d.o.room(); err == nil && free < min(2*memTable, uint64(d.o.Ballast)/2) {
		return d.refusal(fmt.Sprintf("it has %s free", megabytes(free)))
	}
	return err
}

func (d *DB) open(readOnly bool) error {
	level := pebble.LevelOptions{FilterPolicy: bloom.FilterPolicy(10), FilterType: pebble.TableFilter}
	log := logger{d.o.Log, d.dir}
	po := &pebble.Options{
		FS:                          vfs.OnDiskFull(lockless{d.o.fs, readOnly}, d.giveUp),
		Logger:                      log,
		ReadOnly:                    readOnly,
		FormatMajorVersion:          pebble.FormatNewest,
		CacheSize:                   d.o.Cache,
		MemTableSize:                memTable,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       2,
		L0StopWritesThreshold:       1000,
		LBaseMaxBytes:               64 << 20,
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { log.Error("database works on in the background", "dir", d.dir, "err", err) },
			DiskSlow:        func(i pebble.DiskSlowInfo) { log.Warn("disk is slow", "dir", d.dir, "what", i.String()) },
			WriteStallBegin: func(i pebble.WriteStallBeginInfo) {
				log.Warn("writes wait for the disk", "dir", d.dir, "why", i.Reason)
			},
		},
	}
	for i := range po.Levels {
		po.Levels[i] = level
	}
	p, err := pebble.Open(d.dir, po)
	d.DB = p
	return err
}

// Writable returns nil, or why writes are refused now and what a person can do about it. It costs one
// atomic load.
func (d *DB) Writable() error {
	if p := d.why.Load(); p != nil {
		return *p
	}
	return nil
}

// Checkpoint makes dir, which must not exist, a copy of the database as it is now: of hard links where the
// disk allows it, so it takes hardly any room at first.
func (d *DB) Checkpoint(dir string) error {
	if err := d.DB.Checkpoint(dir, pebble.WithFlushedWAL()); err != nil {
		return fmt.Errorf("copy database: %w", err)
	}
	return nil
}

// Close ends the watch over the disk and closes the database. No iterator, snapshot or batch may be open.
func (d *DB) Close() error {
	close(d.end)
	close(d.begin)
	d.done.Wait()
	return d.DB.Close()
}

func (d *DB) watch() {
	t := time.NewTicker(look)
	defer t.Stop()
	for {
		select {
		case <-d.end:
			return
		case <-t.C:
			d.check()
		}
	}
}

// check decides whether writes are taken until it is called again.
func (d *DB) check() {
	free, readOnly, err := d.o.room()
	var why error
	switch {
	case err != nil:
		why = fmt.Errorf("ask for free space of %s: %w", d.dir, err)
	case readOnly:
		why = d.refusal("it is mounted read-only")
	case free < d.o.Reserve:
		why = d.refusal(fmt.Sprintf("it has %s free and %s are kept in reserve", megabytes(free), megabytes(d.o.Reserve)))
	case !d.keepBallast(free):
		why = d.refusal(fmt.Sprintf("it has %s free and the ballast of %s is not yet back", megabytes(free), megabytes(uint64(d.o.Ballast))))
	}
	before := d.why.Load()
	if why == nil {
		if d.why.Store(nil); before != nil {
			d.o.Log.Info("writes are taken again", "dir", d.dir)
		}
		return
	}
	if d.why.Store(&why); before == nil {
		d.o.Log.Error("writes are refused", "dir", d.dir, "err", why)
	}
}

func (d *DB) refusal(because string) error {
	return fmt.Errorf("the disk of %s takes no writes, %s: reads go on; make room or mount it writable, then writes are taken again%s", d.dir, because, d.after())
}

func (d *DB) after() string {
	if d.DB == nil { // found so at start
		return " after a restart"
	}
	return ""
}

func megabytes(n uint64) string { return fmt.Sprintf("%d MB", n>>20) }

func (d *DB) ballastPath() string { return d.o.fs.PathJoin(d.dir, ballastName) }

// keepBallast has the ballast on disk when there is room for it beside the reserve. It reports whether it lies there.
func (d *DB) keepBallast(free uint64) bool {
	d.ballast.Lock()
	defer d.ballast.Unlock()
	if d.kept {
		return true
	}
	if free < d.o.Reserve+uint64(d.o.Ballast) {
		return false
	}
	// Written, not only reserved: disks that compress or copy on write promise nothing about a reservation.
	f, err := d.o.fs.Create(d.ballastPath(), vfs.WriteCategoryUnspecified)
	if err != nil {
		return false
	}
	block := make([]byte, 1<<20)
	for i, x := 0, uint64(1); i < len(block); i++ {
		x = x*6364136223846793005 + 1442695040888963407
		block[i] = byte(x >> 56)
	}
	for left := d.o.Ballast; left > 0 && err == nil; left -= int64(len(block)) {
		_, err = f.Write(block[:min(left, int64(len(block)))])
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		d.o.fs.Remove(d.ballastPath())
		return false
	}
	d.kept = true
	return true
}

// giveUp removes the ballast, so that what Pebble writes just now finds room.
func (d *DB) giveUp() {
	why := d.refusal("it is full")
	d.why.Store(&why)
	d.ballast.Lock()
	defer d.ballast.Unlock()
	if !d.kept {
		return
	}
	d.kept = false
	err := d.o.fs.Remove(d.ballastPath())
	d.o.Log.Error("the disk is full: the ballast is given up and writes are refused", "dir", d.dir, "err", err)
}

func (d *DB) statfs() (uint64, bool, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(d.dir, &s); err != nil {
		return 0, false, err
	}
	return s.Bavail * uint64(s.Bsize), s.Flags&unix.ST_RDONLY != 0, nil
}

// isReadOnly says whether an error is that of a disk that may not be written.
func isReadOnly(err error) bool {
	return errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission)
}

// lockless is a file system on which a database can be read though its lock file cannot be written. The lock
// keeps a second writer away, and there nobody writes.
type lockless struct {
	vfs.FS
	reading bool
}

// Lock implements vfs.FS.
func (l lockless) Lock(name string) (io.Closer, error) {
	c, err := l.FS.Lock(name)
	if err != nil && l.reading && isReadOnly(err) {
		return io.NopCloser(nil), nil
	}
	return c, err
}

// Create implements vfs.FS. A file of the log is written with zeros first: a sync of what grows writes the file's
// size too, which takes half as long again. Pebble uses the files again, and reads zeros as the end.
func (l lockless) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := l.FS.Create(name, category)
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	zeros := make([]byte, 1<<20)
	for at := int64(0); at < memTable; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros, at); err != nil {
			return f, nil // a full disk is met where something is written
		}
	}
	return f, nil
}

// logger has Pebble speak through slog.
type logger struct {
	*slog.Logger
	dir string
}

func (l logger) Infof(format string, args ...any) {
	l.Debug("pebble", "dir", l.dir, "said", fmt.Sprintf(format, args...))
}

func (l logger) Errorf(format string, args ...any) {
	l.Logger.Error("pebble", "dir", l.dir, "err", fmt.Sprintf(format, args...))
}

// Fatalf is called when Pebble cannot tell what is on disk any more, for example after a write to its log
// failed. It may not return; everything acknowledged is there when the process starts again.
func (l logger) Fatalf(format string, args ...any) {
	l.Logger.Error("the database ends this process, because it cannot write safely any more; nothing that was acknowledged is lost, and a start finds it",
		"dir", l.dir, "err", fmt.Sprintf(format, args...), "hint", "look at the disk: "+filepath.Clean(l.dir))
	os.Exit(1)
}
